//! `cargo xtask bench` calls this; one subcommand a measurement.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod lookup;

/// Measure Tortie on this machine.
#[derive(Parser)]
#[command(name = "perf", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Look-ups alone: every address mix, both families, full table.
    Lookup(lookup::Arguments),
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().what {
        What::Lookup(arguments) => lookup::run(&arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}
