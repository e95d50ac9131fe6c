//! Finding and removing labs, by what they wrote into their state directories.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::command;
use crate::process::Identity;

/// The file that names the process which raised the lab.
const OWNER: &str = "owner";
/// The file with a namespace per line.
pub(crate) const NAMESPACES: &str = "namespaces";
/// The file with a process per line.
pub(crate) const PROCESSES: &str = "processes";

/// What the names of state directories begin with.
const PREFIX: &str = "tortie-lab-";

/// And before they have an owner. A sweep takes a directory without one for a lab that is half taken away.
const UNOWNED: &str = ".tortie-lab-";

/// How long processes may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// Where the lab `id` keeps its state.
pub(crate) fn state_directory(id: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{id}"))
}

/// Makes the state directory of the lab `id` of this process. Whoever looks finds it with its owner in it.
pub(crate) fn make_state_directory(id: &str) -> Result<PathBuf> {
    let unowned = std::env::temp_dir().join(format!("{UNOWNED}{id}"));
    fs::create_dir_all(unowned.join("logs"))?;
    // A scenario runs the router as a user who may do nothing; that user must still find its files.
    fs::set_permissions(&unowned, fs::Permissions::from_mode(0o755))?;
    fs::write(unowned.join(OWNER), Identity::own()?.to_string())?;
    let directory = state_directory(id);
    fs::rename(unowned, &directory)?;
    Ok(directory)
}

/// Removes every lab whose owner no longer runs: kept ones, and those of a killed run.
/// Returns the directories of what was removed; labs at work are left alone.
///
/// # Errors
/// Something of a lab could not be removed.
pub fn sweep() -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let owner = fs::read_to_string(entry.path().join(OWNER)).unwrap_or_default();
        if Identity::parse(&owner).is_some_and(Identity::is_alive) {
            continue;
        }
        remove(&entry.path())?;
        removed.push(entry.path());
    }
    Ok(removed)
}

/// Ends a lab's processes, deletes its namespaces, then its state directory. Two may remove the same lab: one of them sweeps
/// while the other, its owner, is about to be through.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    let lines = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let processes: Vec<Identity> = lines(PROCESSES).lines().filter_map(Identity::parse).collect();
    end(&processes)?;
    let existing = namespaces()?;
    for name in lines(NAMESPACES).lines().filter(|name| has(&existing, name)) {
        let deleted = command::run(Command::new("ip").args(["netns", "delete", name]), command::SETTING);
        if deleted.is_err() && has(&namespaces()?, name) {
            deleted?;
        }
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("cannot remove {}", directory.display())),
    }
}

/// What `ip netns list` prints.
fn namespaces() -> Result<String> {
    command::run(Command::new("ip").args(["netns", "list"]), command::SETTING)
}

/// Is there a line `NAME` or `NAME (id: N)`?
fn has(namespaces: &str, name: &str) -> bool {
    namespaces.lines().any(|line| line.split(' ').next() == Some(name))
}

/// SIGTERM to all, then SIGKILL to those that stay.
fn end(processes: &[Identity]) -> Result<()> {
    for process in processes {
        process.signal(Signal::TERM)?;
    }
    let deadline = Instant::now() + GRACE;
    while processes.iter().any(|process| process.is_alive()) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    for process in processes {
        process.signal(Signal::KILL)?;
    }
    Ok(())
}
