//! A Debian with systemd as its first process, in a network namespace of the lab: what a package meets.
//!
//! Its tree is read through an overlay in memory, so that every machine begins clean; it has process, mount, host name,
//! IPC and control group namespaces of its own, and this machine's kernel.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::Namespace;
use crate::process::{Identity, Process};
use crate::{Lab, command, wait};

const BOOT: &str = include_str!("machine/boot.sh");
/// How long systemd may take until all that a boot starts is started.
const BOOTED: Duration = Duration::from_secs(180);
/// How long a line of shell may take: a package is written to the disk.
const LINE: Duration = Duration::from_secs(180);
/// Where control groups of the second version are, beside those of the first or alone.
const GROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// A running machine. Dropping it switches it off.
pub struct Machine {
    process: Process,
    first: Identity,
    group: PathBuf,
}

impl Machine {
    /// Boots the Debian in `tree` within a namespace; the lab's directory is its /mnt, to be read only.
    ///
    /// # Errors
    /// This kernel lacks what it takes, or systemd doesn't come up.
    pub fn boot(lab: &Lab, namespace: &Namespace, tree: &Path) -> Result<Machine> {
        let groups = GROUPS.iter().map(Path::new).find(|path| path.join("cgroup.procs").exists());
        let group = groups
            .filter(|path| path.join("cgroup.controllers").exists())
            .context("no control groups of version 2 here")?
            .join(namespace.full());
        std::fs::create_dir(&group).with_context(|| format!("can't make {}", group.display()))?;
        let mut boot = Command::new("sh");
        boot.args(["-c", "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"", "sh"]).arg(&group);
        boot.args(["ip", "netns", "exec", namespace.full()]);
        boot.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc"]);
        boot.args(["sh", "-c", BOOT, "sh"]).arg(tree).arg(lab.directory().join("machine"));
        boot.arg(&group).arg(lab.directory());
        let mut process = lab.spawn(&format!("machine-{}", namespace.name()), boot)?;
        let pid = process.identity().pid;
        let children = format!("/proc/{pid}/task/{pid}/children");
        let first = lab.wait("the machine's first process", BOOTED, || {
            process.must_run()?;
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            let first: Option<u32> = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
            // Before it is systemd, it is a shell that sets the scene.
            let systemd = |pid| {
                std::fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| name.trim() == "systemd")
            };
            Ok(first.filter(|pid| systemd(*pid)))
        })?;
        let machine = Machine { process, first: Identity::of(first)?, group };
        lab.wait("systemd", BOOTED, || {
            let state = machine.output("systemctl is-system-running")?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            Ok(["running", "degraded"].contains(&state.as_str()).then_some(()))
        })?;
        Ok(machine)
    }

    /// Runs a line of shell inside, which must succeed, and gives what it printed.
    ///
    /// # Errors
    /// It fails, or takes longer than three minutes.
    pub fn run(&self, line: &str) -> Result<String> {
        let output = self.output(line)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if !output.status.success() {
            bail!(
                "`{line}` in the machine failed ({}): {} {}",
                output.status,
                text(&output.stdout),
                text(&output.stderr)
            );
        }
        Ok(text(&output.stdout))
    }

    /// Runs a program of this machine's, not of that one's, in a network namespace that was made there.
    ///
    /// # Errors
    /// As [`command::run`].
    pub fn run_in_namespace(&self, name: &str, words: &[&str]) -> Result<String> {
        let namespace = format!("/proc/{}/root/run/netns/{name}", self.first.pid);
        command::run(Command::new("nsenter").arg(format!("--net={namespace}")).args(words), command::SETTING)
    }

    /// Runs a line of shell inside, whatever its exit status.
    ///
    /// # Errors
    /// It can't be started, or takes longer than three minutes.
    pub fn output(&self, line: &str) -> Result<Output> {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.first.pid.to_string(), "--all", "env", "-i"]);
        enter.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"]);
        command::output(enter.args(["sh", "-c", line]), LINE)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The end of a first process is the end of all others.
        let _ = self.first.signal(rustix::process::Signal::KILL);
        let _ = wait::until_true("the end of the machine", BOOTED, || Ok(!self.process.is_running()));
        remove_groups(&self.group);
    }
}

/// Control groups go from the leaves on.
fn remove_groups(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    // Processes on their way out may still be in it; then it stays, empty and without harm.
    let _ = wait::until_true("an empty control group", Duration::from_secs(5), || {
        Ok(std::fs::remove_dir(group).is_ok())
    });
}
