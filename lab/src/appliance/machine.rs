//! A machine that boots from a disk, and ssh into it.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::MacAddr;

use super::Files;
use crate::link::Fabric;
use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, command};

/// How long an ordinary question may take: everything is slower by a factor of ten or so, ssh's greeting too.
const QUESTION: Duration = Duration::from_secs(90);
/// How long it may take from power-on, or a restart, until ssh answers.
pub(super) const BOOT: Duration = Duration::from_secs(300);

/// The disk that it gets: larger than the image, as a hypervisor's would be.
const DISK: &str = "1536M";

/// Where a NIC's other end goes.
pub(super) enum Wire<'a> {
    /// Into a namespace, as `eth0`.
    Namespace(&'a Namespace),
    /// Into a switch.
    Fabric(&'a Fabric),
}

/// A NIC: its MAC address, its pairs of queues, its other end.
pub(super) struct Nic<'a> {
    pub(super) mac: MacAddr,
    pub(super) queues: u32,
    pub(super) wire: Wire<'a>,
}

/// A running appliance. Its lab ends it.
pub(super) struct Machine<'lab> {
    lab: &'lab Lab,
    process: RefCell<Process>,
    console: PathBuf,
    /// From where ssh is spoken, to which address, with which key.
    ops: Namespace,
    address: String,
    key: PathBuf,
}

impl<'lab> Machine<'lab> {
    /// Powers a machine on, with a copy of the disk that is written to and forgotten.
    pub(super) fn power_on(
        lab: &'lab Lab,
        files: &Files,
        drive: &Path,
        nics: &[Nic<'_>],
        (ops, address, key): (&Namespace, &str, &Path),
    ) -> Result<Machine<'lab>> {
        // The taps are born here, where QEMU finds them, and moved to where they belong once it holds them.
        let room = lab.namespace("power")?;
        let console = lab.directory().join("logs/console.log");
        let copy = lab.directory().join("disk.qcow2");
        let mut image = Command::new("qemu-img");
        image
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(&files.disk)
            .arg(&copy)
            .arg(DISK);
        command::run(&mut image, command::SETTING)?;
        let mut qemu = room.command("qemu-system-x86_64");
        qemu.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-nodefaults",
            "-display",
            "none",
            "-vga",
            "std",
        ]);
        qemu.args(["-m", "1024", "-smp", "2", "-device", "virtio-rng-pci"]);
        if let Some(firmware) = &files.firmware {
            qemu.arg("-bios").arg(firmware);
        }
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        qemu.arg("-drive").arg(format!("file={},if=virtio,format=qcow2", copy.display()));
        qemu.arg("-drive").arg(format!("file={},if=virtio,format=raw,readonly=on", drive.display()));
        for (index, nic) in nics.iter().enumerate() {
            let (many, queues) = if nic.queues > 1 {
                (" multi_queue", format!(",queues={}", nic.queues))
            } else {
                ("", String::new())
            };
            room.ip(&format!("tuntap add tap{index} mode tap{many}"))?;
            qemu.arg("-netdev");
            qemu.arg(format!("tap,id=n{index},ifname=tap{index},script=no,downscript=no{queues}"));
            // What zero-copy asks of the hypervisor: memory mapped for the device, and a vector for each queue, one for
            // the device's settings and one for the control queue.
            let queues = match nic.queues {
                1 => String::new(),
                queues => format!(",mq=on,vectors={},iommu_platform=on", 2 * queues + 2),
            };
            qemu.arg("-device").arg(format!(
                "virtio-net-pci,netdev=n{index},mac={},romfile=,disable-legacy=on{queues}",
                nic.mac
            ));
        }
        let mut process = lab.spawn("qemu", qemu)?;
        for (index, nic) in nics.iter().enumerate() {
            // A tap without its program has no carrier; only with it may it go elsewhere.
            lab.wait(&format!("QEMU to hold tap{index}"), command::SETTING, || {
                process.must_run()?;
                room.ip(&format!("link set tap{index} up"))?;
                Ok(room.ip(&format!("-o link show tap{index}"))?.contains("LOWER_UP").then_some(()))
            })?;
            match &nic.wire {
                Wire::Namespace(namespace) => {
                    room.ip(&format!("link set tap{index} netns {} name eth0", namespace.full()))?;
                    namespace.ip("link set eth0 up")?;
                }
                Wire::Fabric(fabric) => {
                    let inside = fabric.namespace();
                    room.ip(&format!("link set tap{index} netns {} name machine", inside.full()))?;
                    inside.ip(&format!("link set machine up master {}", Fabric::BRIDGE))?;
                }
            }
        }
        Ok(Machine {
            lab,
            process: RefCell::new(process),
            console,
            ops: ops.clone(),
            address: address.to_owned(),
            key: key.to_owned(),
        })
    }

    /// What it has said on its serial console.
    pub(super) fn console(&self) -> String {
        // A console says what isn't UTF-8 while the firmware draws.
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    fn ssh(&self) -> Command {
        let mut ssh = self.ops.command("ssh");
        ssh.arg("-i").arg(&self.key);
        let known = self.lab.directory().join("known_hosts");
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            // The first key is taken; another one later would be an error.
            "StrictHostKeyChecking=accept-new",
            "ConnectTimeout=20",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=6",
            // Kind to a processor that is emulated.
            "KexAlgorithms=curve25519-sha256",
            "Ciphers=aes128-gcm@openssh.com",
            "LogLevel=ERROR",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["-F", "none", "-o"]).arg(format!("UserKnownHostsFile={}", known.display()));
        ssh.arg(format!("root@{}", self.address));
        ssh
    }

    /// Runs a shell script inside, which must succeed, and returns what it printed.
    pub(super) fn run(&self, script: &str) -> Result<String> {
        self.run_within(script, QUESTION)
    }

    pub(super) fn run_within(&self, script: &str, limit: Duration) -> Result<String> {
        self.process.borrow_mut().must_run()?;
        command::run(self.ssh().arg("--").arg(script), limit)
    }

    /// A connection that asks for a password in place of showing a key.
    pub(super) fn knock_with_a_password(&self) -> Result<String> {
        let mut ssh = self.ssh();
        ssh.args([
            "-o",
            "PubkeyAuthentication=no",
            "-o",
            "BatchMode=no",
            "-o",
            "NumberOfPasswordPrompts=0",
            "true",
        ]);
        let output = command::output(&mut ssh, QUESTION)?;
        ensure!(!output.status.success(), "it was let in");
        Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Runs a command inside that reads a file of this machine and ends with a restart.
    pub(super) fn feed(&self, file: &Path, script: &str, limit: Duration) -> Result<String> {
        let ssh = self.ssh();
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" < \"$0\""]).arg(file).arg(ssh.get_program()).args(ssh.get_args());
        let output = command::output(shell.arg("--").arg(script), limit)?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok(said.trim().to_owned())
    }

    /// Which start of the machine this is.
    pub(super) fn boot_id(&self) -> Result<String> {
        Ok(self.run("cat /proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }

    /// Waits until it has started anew, as often as it does, and calls itself `slot`; which start that is.
    pub(super) fn comes_back(&self, before: &str, slot: &str) -> Result<String> {
        self.lab.wait(&format!("the appliance to come back in slot {slot}"), BOOT, || {
            if let Err(error) = self.process.borrow_mut().must_run() {
                // Waiting longer cannot help.
                return Ok(Some(Err(error)));
            }
            let now = self.run("cat /proc/sys/kernel/random/boot_id /proc/cmdline")?;
            let (id, words) = now.split_once('\n').context("no answer")?;
            let there = id != before && words.contains(&format!("tortie.slot={slot}"));
            Ok(there.then(|| Ok(id.to_owned())))
        })?
    }

    /// Waits until ssh answers.
    pub(super) fn answers(&self) -> Result<()> {
        self.lab.wait("ssh on the appliance", BOOT, || {
            if let Err(error) = self.process.borrow_mut().must_run() {
                return Ok(Some(Err(error)));
            }
            self.run("true").map(|_| Some(Ok(())))
        })?
    }
}
