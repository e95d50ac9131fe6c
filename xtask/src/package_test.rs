//! `cargo xtask package-test`: the Debian package on a clean Debian, from its installation to its purge.

use std::process::ExitCode;

use anyhow::Result;
use lab::scenario::{self, Ended, Options, Outcome};
use lab::{package, wait};

use crate::{deb, install, tools};

/// What the second package is called: newer than the first.
const NEXT: &str = "+next";

/// What one may ask of `cargo xtask package-test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave everything running, and tell how to look around and how to remove it.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    wait::catch_signals()?;
    install::install_for_package_test()?;
    let options = Options { keep: arguments.keep, ..Options::default() };
    Ok(match test(&options)?.outcome {
        Outcome::Passed => ExitCode::SUCCESS,
        Outcome::Failed(_) | Outcome::Skipped(_) => ExitCode::FAILURE,
    })
}

/// Makes two packages, and lets a clean Debian have them.
pub(crate) fn test(options: &Options) -> Result<Ended> {
    let tools = tools::build(None)?;
    let folder = package::folder(&tools)?;
    let version = deb::workspace_version()?;
    for (name, version) in package::PACKAGES.iter().zip([version.clone(), version + NEXT]) {
        let made = deb::make(&tools.tortie, Some(&version), &folder)?;
        std::fs::rename(made, folder.join(name))?;
    }
    println!();
    Ok(scenario::run(&package::PACKAGE, &tools, options))
}
