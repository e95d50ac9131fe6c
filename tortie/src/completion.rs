//! What shells and `man` know of the command line: made from it, so that neither can say anything else.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::output;

/// What `completion` takes.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell to write for
    #[arg(value_enum)]
    shell: Shell,
}

/// What `man` takes.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where the pages go; it must be there
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Prints a shell's completions.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn completion(args: &CompletionArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for each command and subcommand.
///
/// # Errors
/// A page can't be written.
pub(crate) fn man(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    let directory = args.directory.display();
    clap_mangen::generate_to(command, &args.directory)
        .with_context(|| format!("can't write manual pages to {directory}"))?;
    Ok(ExitCode::SUCCESS)
}
