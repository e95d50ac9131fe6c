//! Scenarios: a name, what it shows, what it needs, and how it ended.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};

use crate::progress::Progress;
use crate::{Lab, Tools, command};

/// What a caller may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Leave the lab running.
    pub keep: bool,
    /// The whole internet table rather than a tenth of it, BFD at 10 ms rather than 100.
    pub full: bool,
    /// Resources are kept in an etcd, which the lab starts, rather than read from their directory.
    pub etcd: bool,
    /// Other scenarios run meanwhile: every line names its own.
    pub beside_others: bool,
}

/// Where the routers of a scenario read their resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// In the directory that the scenario writes, or in an etcd that holds the same: [`Options::etcd`].
    Either,
    /// In an etcd that the scenario starts: it is about that.
    Etcd,
    /// Nowhere, or in a place of their own: it makes no difference, and this is why.
    Unused(&'static str),
}

impl Store {
    /// A word for a list.
    pub fn word(self) -> &'static str {
        match self {
            Store::Either => "either",
            Store::Etcd => "etcd",
            Store::Unused(_) => "none",
        }
    }
}

/// A behaviour that a user could name, shown end to end.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What one types.
    pub name: &'static str,
    /// What it shows, in one line.
    pub about: &'static str,
    /// The programs it needs on the machine beside `ip`.
    pub programs: &'static [&'static str],
    /// Whether it runs Tortie, and so needs AF_XDP.
    pub tortie: bool,
    /// Whether it measures rates, losses or times, so that nothing else may run meanwhile.
    pub alone: bool,
    /// Where its routers read their resources.
    pub store: Store,
    /// The scenario itself.
    pub run: fn(&Lab, &Options) -> Result<()>,
}

/// Why a scenario cannot run here; not a failure.
#[derive(Debug)]
pub struct CannotRun(
    /// The reason, and what would help.
    pub String,
);

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for CannotRun {}

/// How a scenario ended.
#[derive(Debug)]
pub enum Outcome {
    /// All that it shows was so.
    Passed,
    /// Something was not.
    Failed(Error),
    /// It could not run here.
    Skipped(String),
}

/// A scenario that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its name.
    pub name: &'static str,
    /// How.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// What it proved.
    pub proofs: Vec<String>,
}

/// Runs one scenario in a lab of its own, printing what it proves and how it ends.
pub fn run(scenario: &Scenario, tools: &Tools, options: &Options) -> Ended {
    let progress = Progress::new(options.beside_others.then_some(scenario.name));
    progress.line(&format!("{}: {}", scenario.name, scenario.about));
    let begin = Instant::now();
    let mut proofs = Vec::new();
    let result = missing(scenario, options)
        .map_or_else(|| in_a_lab(scenario, Lab::raise(tools, progress.clone())?, options, &mut proofs), Err);
    let outcome = match result {
        Ok(()) => Outcome::Passed,
        Err(error) => match error.downcast::<CannotRun>() {
            Ok(CannotRun(reason)) => Outcome::Skipped(reason),
            Err(error) => Outcome::Failed(error),
        },
    };
    let took = begin.elapsed();
    match &outcome {
        Outcome::Passed => progress.line(&format!("  passed in {:.1} s", took.as_secs_f64())),
        Outcome::Failed(error) => {
            progress.line(&format!("  FAILED after {:.1} s: {error:#}", took.as_secs_f64()));
        }
        Outcome::Skipped(reason) => progress.line(&format!("  skipped: {reason}")),
    }
    Ended { name: scenario.name, outcome, took, proofs }
}

fn in_a_lab(scenario: &Scenario, lab: Lab, options: &Options, proofs: &mut Vec<String>) -> Result<()> {
    if options.keep {
        // Before anything is started: what a scenario starts ends with the scenario otherwise.
        lab.keep();
    }
    if options.etcd {
        lab.store_in_etcd();
    }
    let result = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&lab, options)))
        .unwrap_or_else(|_| Err(anyhow!("the scenario panicked")));
    *proofs = lab.proofs();
    if let Err(error) = &result
        && !error.is::<CannotRun>()
    {
        last_words(&lab);
    }
    if options.keep {
        look_around(&lab);
    }
    result
}

/// The end of every log that says something, before the lab and its logs go.
fn last_words(lab: &Lab) {
    const LINES: usize = 12;
    let Ok(entries) = std::fs::read_dir(lab.directory().join("logs")) else { return };
    let mut logs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    logs.sort();
    for path in logs.iter().filter(|path| !path.to_string_lossy().contains("capture-")) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if let Some(name) = path.file_name().filter(|_| !lines.is_empty()) {
            lab.progress().line(&format!("  the end of {}:", name.to_string_lossy()));
            for line in &lines[lines.len().saturating_sub(LINES)..] {
                lab.progress().line(&format!("    {line:.300}"));
            }
        }
    }
}

/// How to look around in a lab that was left running, and how to remove it.
pub fn look_around(lab: &Lab) {
    let mut text = String::from("\nThe lab is left running. Its namespaces:\n");
    for namespace in lab.namespaces() {
        text.push_str(&format!("  ip netns exec {} bash    # {}\n", namespace.full(), namespace.name()));
    }
    text.push_str(&format!("Configuration, resources, captures and logs: {}\n", lab.directory().display()));
    let tortie = lab.tools().tortie.display().to_string();
    let sockets =
        std::fs::read_dir(lab.directory()).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sockets: Vec<_> =
        sockets.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
    sockets.sort();
    if let Some(socket) = sockets.first() {
        text.push_str("Ask a router:\n");
        for what in ["bgp", "routes", "neighbors", "ports", "drops"] {
            text.push_str(&format!("  {tortie} show {what} --socket {}\n", socket.display()));
        }
    }
    text.push_str("Remove it:\n  cargo xtask lab --clean\n");
    lab.progress().line(&text);
}

/// What this machine lacks for the scenario.
fn missing(scenario: &Scenario, options: &Options) -> Option<Error> {
    if let (true, Store::Unused(why)) = (options.etcd, scenario.store) {
        return Some(CannotRun(format!("there is nothing to run with an etcd: {why}")).into());
    }
    let etcd = (options.etcd && scenario.store == Store::Either).then_some("etcd");
    let programs: Vec<&str> = scenario.programs.iter().copied().chain(etcd).collect();
    let reason = if !rustix::process::geteuid().is_root() {
        Some("network namespaces need root".to_owned())
    } else if let Err(error) = namespaces_work() {
        Some(format!("network namespaces cannot be made here: {error:#}"))
    } else if let Some(program) = programs.iter().find(|program| !installed(program)) {
        Some(format!("`{program}` is not installed; `cargo xtask test` installs it"))
    } else if scenario.tortie && !has_af_xdp() {
        Some("this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)".to_owned())
    } else {
        None
    };
    reason.map(|reason| CannotRun(reason).into())
}

fn namespaces_work() -> Result<()> {
    command::run(Command::new("unshare").args(["--net", "true"]), command::SETTING).map(|_| ())
}

/// Whether a program is where a shell of root would find it.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let common = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Path::new);
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        || common.iter().any(|folder| folder.join(program).is_file())
}

/// A kernel with AF_XDP registers the protocol `XDP` at boot.
fn has_af_xdp() -> bool {
    let protocols = std::fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    protocols.lines().any(|line| line.split_whitespace().next() == Some("XDP"))
}
