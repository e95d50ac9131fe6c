//! Small Debians of their own, from which the daemons of others run: below `target/interop`, made once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::daemons::{DAEMONS, Suite};
use crate::netns::Namespace;
use crate::{command, debian};

/// How long a question to a daemon may take.
const QUESTION: Duration = Duration::from_secs(20);

/// A Debian in a folder.
pub struct Root(PathBuf);

/// The Debian of a suite, made where it isn't there yet.
///
/// # Errors
/// The suite can't be reached, or a package can't be installed.
pub fn of(suite: Suite, target: &Path) -> Result<Root> {
    let folder = target.join("interop").join(suite.name());
    let packages = DAEMONS.iter().filter(|daemon| daemon.suite == suite).map(|daemon| daemon.package);
    debian::tree(&folder, suite.name(), &packages.collect::<Vec<_>>())?;
    Ok(Root(folder))
}

impl Root {
    /// The version of a package inside; `None` where it isn't installed.
    pub fn version(&self, package: &str) -> Option<String> {
        let mut query = Command::new("chroot");
        query.arg(&self.0).args(["dpkg-query", "-W", "-f", "${Version}", package]);
        let version = command::run(&mut query, command::SETTING).ok()?;
        Some(version.split(['-', '+']).next().unwrap_or_default().to_owned())
    }

    /// A program of the root's, to be run in a namespace, with `shared` as its `/mnt`.
    ///
    /// `ip netns exec` gives it mounts of its own, which end with it.
    pub fn command(&self, namespace: &Namespace, shared: &Path, words: &[&str]) -> Command {
        let script = "root=$1; shared=$2; shift 2; mount -t proc proc \"$root/proc\" && mount --bind \"$shared\" \"$root/mnt\" \
                      && exec chroot \"$root\" \"$@\"";
        let mut command = namespace.command("sh");
        command.args(["-c", script, "sh"]).arg(&self.0).arg(shared).args(words);
        command
    }

    /// Runs a program of the root's to its end and gives what it printed.
    ///
    /// # Errors
    /// It fails, or takes too long.
    pub fn run(&self, namespace: &Namespace, shared: &Path, words: &[&str]) -> Result<String> {
        ensure!(!words.is_empty(), "nothing to run");
        command::run(&mut self.command(namespace, shared, words), QUESTION)
    }
}
