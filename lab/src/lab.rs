//! One raised lab: its namespaces, processes and files, and their end.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::etcd::MirroringEtcd;
use crate::netns::Namespace;
use crate::process::Process;
use crate::progress::Progress;
use crate::{sweep, wait};

/// How many labs this process has raised, so that each gets namespaces of its own.
static RAISED: AtomicU32 = AtomicU32::new(0);

/// Shorter waits pass without a word.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// The programs of this workspace that labs run.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The router.
    pub tortie: PathBuf,
    /// Traffic: echo, heartbeat, transfers, UDP to many destinations.
    pub agent: PathBuf,
}

/// Everything that one scenario raised. Dropping it removes all of it, unless it is kept.
pub struct Lab {
    id: String,
    directory: PathBuf,
    tools: Tools,
    progress: Progress,
    kept: Rc<Cell<bool>>,
    namespaces: RefCell<Vec<Namespace>>,
    proofs: RefCell<Vec<String>>,
    uses_etcd: Cell<bool>,
    etcd: RefCell<Option<MirroringEtcd>>,
}

impl Lab {
    /// An empty lab with a state directory of its own.
    ///
    /// # Errors
    /// The state directory cannot be made.
    pub fn raise(tools: &Tools, progress: Progress) -> Result<Lab> {
        let id = id(std::process::id(), RAISED.fetch_add(1, Ordering::Relaxed));
        let directory = sweep::state_directory(&id);
        // A directory of the same name was left by a process that had our number before us.
        if directory.exists() {
            sweep::remove(&directory)?;
        }
        sweep::make_state_directory(&id)
            .with_context(|| format!("cannot make the state directory {}", directory.display()))?;
        Ok(Lab {
            id,
            directory,
            tools: tools.clone(),
            progress,
            kept: Rc::default(),
            namespaces: RefCell::default(),
            proofs: RefCell::default(),
            uses_etcd: Cell::default(),
            etcd: RefCell::default(),
        })
    }

    /// The programs under test.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Where this lab keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What a person sees meanwhile.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// What is being done now.
    pub fn step(&self, what: &str) {
        self.progress.step(what);
    }

    /// Notes and prints one thing that has been shown to be so.
    pub fn proved(&self, what: impl Into<String>) {
        let what = what.into();
        self.progress.line(&format!("  + {what}"));
        self.proofs.borrow_mut().push(what);
    }

    /// All that was proved, in order.
    pub fn proofs(&self) -> Vec<String> {
        self.proofs.borrow().clone()
    }

    /// A namespace of this lab, called `name` in it.
    ///
    /// # Errors
    /// The namespace cannot be made: no root, or no network namespaces here.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let full = format!("{}-{name}", self.id);
        // Noted before it exists: what is noted and never made does not harm the sweep.
        append(&self.directory.join(sweep::NAMESPACES), &full)?;
        let namespace = Namespace::create(name, &full)?;
        self.namespaces.borrow_mut().push(namespace.clone());
        Ok(namespace)
    }

    /// Starts a program that runs beside the scenario until it is stopped or the lab ends.
    /// Its standard output goes to `logs/NAME.out`, its standard error to `logs/NAME.log`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        let process = Process::spawn(name, command, &self.directory.join("logs"), self.kept.clone())?;
        append(&self.directory.join(sweep::PROCESSES), &format!("{} {name}", process.identity()))?;
        Ok(process)
    }

    /// Waits for `what`, showing that it waits where that takes a while.
    ///
    /// # Errors
    /// As [`wait::until`].
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let begin = Instant::now();
        let mut told = false;
        wait::until(what, limit, || {
            if !told && begin.elapsed() >= WORTH_TELLING {
                self.step(&format!("waiting for {what}"));
                told = true;
            }
            look()
        })
    }

    /// Routers that are configured from now on read their resources from an etcd.
    pub fn store_in_etcd(&self) {
        self.uses_etcd.set(true);
    }

    /// Where a router finds the resources of a directory, in YAML's flow form: there, or in the etcd that mirrors them.
    ///
    /// # Errors
    /// The etcd does not start.
    pub fn datastore(&self, resources: &Path) -> Result<String> {
        if !self.uses_etcd.get() {
            return Ok(format!("{{ directory: {} }}", resources.display()));
        }
        let mut etcd = self.etcd.borrow_mut();
        let etcd = match &mut *etcd {
            Some(etcd) => etcd,
            none => none.insert(MirroringEtcd::start(self, resources)?),
        };
        Ok(format!("{{ etcd: {{ endpoints: [\"{}\"] }} }}", etcd.endpoint()))
    }

    /// etcd's own client at the etcd that routers read; nothing where they read a directory.
    ///
    /// # Errors
    /// It fails.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<Option<String>> {
        self.etcd.borrow().as_ref().map(|etcd| etcd.ctl(arguments)).transpose()
    }

    /// Leaves everything running when this lab is dropped.
    pub fn keep(&self) {
        self.kept.set(true);
    }

    /// The namespaces raised so far.
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.namespaces.borrow().clone()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Nobody writes to an etcd that is being taken away.
        drop(self.etcd.take());
        if self.kept.get() {
            return;
        }
        if let Err(error) = sweep::remove(&self.directory) {
            eprintln!("a lab was not removed wholly: {error:#}; `cargo xtask lab --clean` tries again");
        }
    }
}

/// `tt`, the process number in base 36, and a letter for each further lab of the same process.
fn id(process: u32, raised: u32) -> String {
    format!(
        "tt{}{}",
        base36(process),
        if raised == 0 { String::new() } else { format!("x{}", base36(raised)) }
    )
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(number % 36, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

/// Adds a line to a file of the state directory.
fn append(path: &Path, line: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lab_of_every_process_has_its_own_short_name() {
        assert_eq!(id(0, 0), "tt0");
        assert_eq!(id(46_655, 0), "ttzzz");
        assert_eq!(id(46_656, 37), "tt1000x11");
        assert_ne!(id(7, 1), id(8, 1));
    }
}
