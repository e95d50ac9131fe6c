//! `cargo xtask demo`: the main job, shown.

use std::process::ExitCode;

use anyhow::Result;
use lab::scenario::{self, Options, Outcome};
use lab::{demo, wait};

use crate::{install, tools};

/// What one may ask of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave everything running, and tell how to look around and how to remove it.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    wait::catch_signals()?;
    install::install()?;
    let tools = tools::build(None)?;
    println!();
    let options = Options { keep: arguments.keep, ..Options::default() };
    let ended = scenario::run(&demo::DEMO, &tools, &options);
    Ok(match ended.outcome {
        Outcome::Passed => ExitCode::SUCCESS,
        Outcome::Failed(_) | Outcome::Skipped(_) => ExitCode::FAILURE,
    })
}
