//! `cargo xtask test`: everything that must hold, and a closing line that counts it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use lab::scenario::Options;
use lab::scenarios;

use crate::install::Installed;
use crate::tally::Tally;
use crate::{fuzz, install, lab as chore, package_test, tools};

/// How long each fuzz target runs, in seconds.
const FUZZ_SECONDS: u64 = 20;

/// Scenarios that run with an etcd, too: routes, policy, and tunnels without BGP. `cargo xtask lab --store etcd` runs all.
const WITH_ETCD: [&str; 3] = ["host-routes", "tenant-policy", "vxlan-cross-subnet"];

/// What one may ask of `cargo xtask test`.
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Leave out what needs root: installing packages, and the lab's scenarios.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut tally = Tally::default();
    let all: Vec<_> = scenarios::ALL.iter().collect();
    if !arguments.quick {
        install::install_for_scenarios(&all)?;
    }
    check(&mut tally, "format", tools::cargo().args(["fmt", "--all", "--check"]))?;
    let mut clippy = tools::cargo();
    check(
        &mut tally,
        "lints",
        clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    advisories(&mut tally)?;
    tests(&mut tally)?;
    instructions(&mut tally)?;
    fuzz::all(&mut tally, FUZZ_SECONDS)?;
    if !arguments.quick {
        chore::run_all(&all, &Options::default(), None, &mut tally)?;
        let with_etcd: Vec<_> = WITH_ETCD.into_iter().filter_map(scenarios::named).collect();
        chore::run_all(&with_etcd, &Options { etcd: true, ..Options::default() }, None, &mut tally)?;
        package(&mut tally)?;
    }
    Ok(tally.close())
}

/// A command that holds if its exit status is zero; its output goes to the terminal.
fn check(tally: &mut Tally, name: &str, command: &mut Command) -> Result<()> {
    println!("\n{name}");
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    if status.success() {
        tally.passed(name);
    } else {
        tally.failed(name, &format!("see its words above ({status})"));
    }
    Ok(())
}

/// The Debian package on a clean Debian.
fn package(tally: &mut Tally) -> Result<()> {
    const NAME: &str = "the Debian package";
    println!("\n{NAME}");
    if install::install_for_package_test()? == Installed::NotAll {
        tally.skipped(NAME, "packages that it is made with are missing here");
        return Ok(());
    }
    let ended = package_test::test(&Options::default())?;
    tally.outcome(NAME, &ended.outcome);
    Ok(())
}

/// Known weaknesses of what comes from outside; licences, sources and bans are a test's (`xtask/tests/dependencies.rs`).
fn advisories(tally: &mut Tally) -> Result<()> {
    const NAME: &str = "advisories";
    println!("\n{NAME}");
    let said = tools::cargo().args(["deny", "check", "advisories"]).stdin(Stdio::null()).output();
    let said = said.context("cannot start cargo")?;
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    if said.status.success() {
        tally.passed(NAME);
    } else if words.contains("no such command") || words.contains("no such subcommand") {
        tally.skipped(NAME, "no cargo-deny here: `cargo install --locked cargo-deny` brings it");
    } else if words.contains("failed to fetch advisory database") {
        tally.skipped(NAME, "the advisory database can't be reached from here");
    } else {
        println!("{words}");
        tally.failed(NAME, "see its words above");
    }
    Ok(())
}

/// No more instructions a packet than `perf/records/instructions.json` says.
fn instructions(tally: &mut Tally) -> Result<()> {
    const NAME: &str = "instructions a packet";
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        tally.skipped(NAME, "no valgrind here");
        return Ok(());
    }
    let mut cargo = tools::cargo();
    check(tally, NAME, cargo.args(["run", "--release", "--package", "perf", "--", "instructions", "--check"]))
}

/// `cargo test` on the whole workspace, read while it is shown.
fn tests(tally: &mut Tally) -> Result<()> {
    println!("\ntests");
    let mut cargo = tools::cargo();
    // A test that cannot run here passes with a line `skipped: why`; only --show-output lets us see it.
    cargo.args(["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    let mut child =
        cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("no output of cargo")?;
    let mut reader = TestOutput::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if reader.read(&line) {
            println!("{line}");
            std::io::stdout().flush()?;
        }
    }
    let status = child.wait()?;
    reader.count(tally);
    if !status.success() && reader.failed.is_empty() {
        tally.failed("tests", &format!("cargo test ended with {status}: see its words above"));
    }
    Ok(())
}

/// What libtest prints, line by line.
#[derive(Debug, Default)]
struct TestOutput {
    passed: usize,
    failed: Vec<Failed>,
    ignored: Vec<String>,
    skipped: Vec<(String, String)>,
    /// The test whose captured output is being read.
    current: Option<String>,
}

/// A test that failed.
#[derive(Debug, Default)]
struct Failed {
    name: String,
    /// How it panicked, without the backtrace.
    panic: Vec<String>,
    /// Is that what is being read?
    panics: bool,
}

impl Failed {
    /// Longest panic that is repeated at the end.
    const LINES: usize = 8;

    /// A line of its captured output.
    fn read(&mut self, line: &str) {
        if self.panic.is_empty() && line.starts_with("thread '") && line.contains(" panicked at ") {
            self.panics = true;
        } else if line == "stack backtrace:" || line.starts_with("note: ") || self.panic.len() == Self::LINES
        {
            self.panics = false;
        }
        if self.panics && !line.is_empty() {
            self.panic.push(line.to_owned());
        }
    }

    fn why(&self) -> String {
        if self.panic.is_empty() { "see its words above".to_owned() } else { self.panic.join("\n  ") }
    }
}

impl TestOutput {
    /// Reads one line; tells whether a person wants to see it.
    fn read(&mut self, line: &str) -> bool {
        if let Some(rest) = line.strip_prefix("test ")
            && let Some((name, end)) = rest.rsplit_once(" ... ")
        {
            return self.result(name, end);
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.current = Some(name.to_owned());
            return self.failed_current().is_some();
        }
        if line.starts_with("test result:") || line == "failures:" || line == "successes:" {
            self.current = None;
            return line.starts_with("test result:");
        }
        if let (Some(name), Some(why)) = (&self.current, line.strip_prefix("skipped: ")) {
            let already = self.skipped.last().is_some_and(|(last, _)| last == name);
            if !already {
                self.skipped.push((name.clone(), why.to_owned()));
            }
            return false;
        }
        // Captured output is of interest where a test failed; the names listed under "successes:" never.
        let Some(failed) = self.failed_current() else { return false };
        failed.read(line);
        true
    }

    fn result(&mut self, name: &str, end: &str) -> bool {
        if end == "ok" {
            self.passed += 1;
        } else if end.starts_with("ignored") {
            self.ignored.push(name.to_owned());
        } else if end.starts_with("FAILED") {
            self.failed.push(Failed { name: name.to_owned(), ..Failed::default() });
            return true;
        }
        false
    }

    /// The test whose output is being read, if it failed.
    fn failed_current(&mut self) -> Option<&mut Failed> {
        let current = self.current.as_deref()?;
        self.failed.iter_mut().find(|failed| failed.name == current)
    }

    /// A test that skipped itself is not one that passed.
    fn count(&self, tally: &mut Tally) {
        tally.passed_many(self.passed.saturating_sub(self.skipped.len()));
        for failed in &self.failed {
            tally.failed(&failed.name, &failed.why());
        }
        for name in &self.ignored {
            tally.skipped(name, "ignored unless asked for");
        }
        for (name, why) in &self.skipped {
            tally.skipped(name, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test queue::binds ... ok
test ring::wraps ... ok
test table::holds ... FAILED
test slow::one ... ignored, takes an hour

successes:

---- queue::binds stdout ----
skipped: no AF_XDP here
skipped: and no root

successes:
    queue::binds
    ring::wraps

failures:

---- table::holds stdout ----
holding it

thread 'table::holds' (7) panicked at src/table.rs:3:5:
assertion failed: it holds
stack backtrace:
   0: __rustc::rust_begin_unwind

failures:
    table::holds

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn what_runs_with_an_etcd_too_runs_with_either_store() {
        for name in WITH_ETCD {
            let scenario = scenarios::named(name).expect(name);
            assert_eq!(scenario.store, lab::scenario::Store::Either, "{name}");
        }
    }

    #[test]
    fn a_test_that_skipped_itself_does_not_count_as_passed() {
        let mut output = TestOutput::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| output.read(line)).collect();
        assert_eq!(output.passed, 2);
        assert_eq!(output.failed.len(), 1);
        assert_eq!(output.skipped, [("queue::binds".to_owned(), "no AF_XDP here".to_owned())]);
        let mut tally = Tally::default();
        output.count(&mut tally);
        assert!(format!("{tally:?}").contains("passed: 1"), "{tally:?}");
        assert!(shown.contains(&"assertion failed: it holds"), "{shown:?}");
        assert!(shown.contains(&"holding it"), "{shown:?}");
        let why = "thread 'table::holds' (7) panicked at src/table.rs:3:5:\n  assertion failed: it holds";
        assert_eq!((output.failed[0].name.as_str(), output.failed[0].why().as_str()), ("table::holds", why));
        assert!(!shown.contains(&"    ring::wraps"), "{shown:?}");
    }
}
