//! `cargo xtask fuzz`: the fuzz targets, for a while.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tally::Tally;
use crate::tools;

/// What one may ask of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The target; all of them when none is named.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// List the targets.
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let targets = targets()?;
    if arguments.list {
        targets.iter().for_each(|target| println!("{target}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut tally = Tally::default();
    match &arguments.target {
        Some(target) if !targets.contains(target) => {
            bail!("there is no fuzz target {target:?}; there are {}", targets.join(", "))
        }
        Some(target) => one(&mut tally, target, arguments.seconds)?,
        None => all(&mut tally, arguments.seconds)?,
    }
    Ok(tally.close())
}

/// Every target, each for this many seconds: first its corpus, then what it makes of it.
pub(crate) fn all(tally: &mut Tally, seconds: u64) -> Result<()> {
    for target in targets()? {
        one(tally, &target, seconds)?;
    }
    Ok(())
}

fn one(tally: &mut Tally, target: &str, seconds: u64) -> Result<()> {
    let name = format!("fuzz {target}");
    if !lab::scenario::installed("g++") {
        tally.skipped(&name, "g++ is not installed, and libFuzzer is built with it");
        return Ok(());
    }
    println!("\n{name}, {seconds} s");
    let mut cargo = tools::cargo();
    // In its own folder its own .cargo/config.toml counts; RUSTFLAGS would replace the coverage flags there.
    cargo.current_dir(tools::workspace().join("fuzz")).env_remove("RUSTFLAGS");
    cargo.args(["run", "--release", "--bin", target, "--", "--seconds", &seconds.to_string()]);
    let status = cargo.stdin(Stdio::null()).status().context("cannot start cargo")?;
    if status.success() {
        tally.passed(&name);
    } else {
        tally.failed(&name, &format!("see its words above ({status})"));
    }
    Ok(())
}

/// The binaries of the fuzz crate, which stands outside the workspace.
fn targets() -> Result<Vec<String>> {
    let mut cargo = tools::cargo();
    cargo.current_dir(tools::workspace().join("fuzz"));
    let output = cargo.args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    if !output.status.success() {
        bail!("cannot read fuzz/Cargo.toml: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let targets = metadata["packages"][0]["targets"].as_array().context("the fuzz crate has no targets")?;
    let binaries = targets.iter().filter(|target| target["kind"][0] == "bin");
    Ok(binaries.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}
