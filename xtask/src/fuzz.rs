//! `cargo xtask fuzz`: the fuzz targets, for a while.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tally::Tally;
use crate::{lanes, tools};

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
        Some(target) => these(&mut tally, std::slice::from_ref(target), arguments.seconds)?,
        None => these(&mut tally, &targets, arguments.seconds)?,
    }
    Ok(tally.close())
}

/// Every target, each for this many seconds: first its corpus, then what it makes of it.
pub(crate) fn all(tally: &mut Tally, seconds: u64) -> Result<()> {
    these(tally, &targets()?, seconds)
}

/// These targets, a core for each. What they say is shown as each ends, or at once where there is only one.
fn these(tally: &mut Tally, targets: &[String], seconds: u64) -> Result<()> {
    if !lab::scenario::installed("g++") {
        for target in targets {
            tally.skipped(&name(target), "g++ is not installed, and libFuzzer is built with it");
        }
        return Ok(());
    }
    println!("\nfuzz {}, {seconds} s", targets.join(", "));
    let built = cargo(&["build", "--release", "--bins"]).status().context("cannot start cargo")?;
    if !built.success() {
        targets.iter().for_each(|target| tally.failed(&name(target), &format!("not built ({built})")));
        return Ok(());
    }
    let ended = lanes::each(lanes::cores(), targets, |target| -> Result<_> {
        let mut run = cargo(&["run", "--release", "--bin", target, "--", "--seconds", &seconds.to_string()]);
        if targets.len() > 1 {
            let output = run.output().context("cannot start cargo")?;
            let words = [output.stdout, output.stderr].concat();
            println!("\n{}\n{}", name(target), String::from_utf8_lossy(&words).trim_end());
            return Ok((target, output.status));
        }
        Ok((target, run.status().context("cannot start cargo")?))
    });
    for ended in ended {
        let (target, status) = ended?;
        if status.success() {
            tally.passed(&name(target));
        } else {
            tally.failed(&name(target), &format!("see its words above ({status})"));
        }
    }
    Ok(())
}

fn name(target: &str) -> String {
    format!("fuzz {target}")
}

/// In its own folder its own .cargo/config.toml counts; RUSTFLAGS would replace the coverage flags there.
fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = tools::cargo();
    cargo.current_dir(tools::workspace().join("fuzz")).env_remove("RUSTFLAGS");
    cargo.args(arguments).stdin(Stdio::null());
    cargo
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
