//! Small Debians of their own, from which the daemons of others run: below `target/interop`, made once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::daemons::{DAEMONS, Suite};
use crate::command;
use crate::netns::Namespace;

/// How long making one may take.
const MAKE: Duration = Duration::from_secs(1800);
/// How long a question to a daemon may take.
const QUESTION: Duration = Duration::from_secs(20);
/// Where packages come from.
const MIRROR: &str = "http://deb.debian.org/debian";

/// A Debian in a folder.
pub struct Root(PathBuf);

/// The Debian of a suite, made where it isn't there yet.
///
/// # Errors
/// The suite can't be reached, or a package can't be installed.
pub fn of(suite: Suite, target: &Path) -> Result<Root> {
    let folder = target.join("interop").join(suite.name());
    if folder.is_dir() {
        return Ok(Root(folder));
    }
    println!("making a Debian {} for daemons in {}", suite.name(), folder.display());
    // Under another name until it is whole.
    let unfinished = folder.with_extension("new");
    let _ = std::fs::remove_dir_all(&unfinished);
    std::fs::create_dir_all(&unfinished)?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", suite.name()]).arg(&unfinished).arg(MIRROR);
    command::run(&mut debootstrap, MAKE)
        .context("is debootstrap installed, and Debian's mirror in reach?")?;
    // Nothing is to start when it is installed (invoke-rc.d(8)).
    let policy = unfinished.join("usr/sbin/policy-rc.d");
    std::fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
    command::run(Command::new("chmod").arg("755").arg(&policy), command::SETTING)?;
    let packages = DAEMONS.iter().filter(|daemon| daemon.suite == suite).map(|daemon| daemon.package);
    let mut install = Command::new("chroot");
    install.arg(&unfinished).args([
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-y",
        "-q",
    ]);
    install.arg("--no-install-recommends").args(packages);
    command::run(&mut install, MAKE)?;
    std::fs::rename(&unfinished, &folder)?;
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
