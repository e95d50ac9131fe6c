//! `cargo xtask interop`: our BGP before the daemons of others.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;
use lab::interop::{self, Cell};
use lab::{command, wait};

use crate::{install, tools};

/// What one may ask of `cargo xtask interop`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only daemons whose names contain one of these, such as `bird`.
    names: Vec<String>,
    /// Write the whole table to this file as well, with a word on each cell that isn't a yes.
    #[arg(long, value_name = "FILE", conflicts_with = "names")]
    record: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    wait::catch_signals()?;
    install::install_for_interop()?;
    let (built, speaker) = tools::build_for_interop()?;
    println!("{}", interop::head());
    let lines = interop::run(&built, &speaker, &tools::workspace().join("target"), &arguments.names)?;
    if let Some(file) = &arguments.record {
        let ask =
            |program: &str, words: &[&str]| command::run(Command::new(program).args(words), command::SETTING);
        let (date, kernel) = (ask("date", &["-u", "+%Y-%m-%d"])?, ask("uname", &["-sr"])?);
        std::fs::write(file, interop::record::text(&lines, date.trim(), kernel.trim()))?;
    }
    let failed = lines.iter().flat_map(|line| line.cells.iter().flatten());
    let failed = failed.filter(|cell| matches!(cell, Cell::Failed(_))).count();
    println!("{failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
