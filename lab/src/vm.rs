//! A virtual machine of a lab: a Debian kernel under QEMU's software emulation, which boots in seconds and needs
//! nothing of the machine but `qemu-system-x86_64`.
//!
//! What this machine's own kernel lacks can be shown with it: the `ipip` device, or a driver that does AF_XDP without
//! copying. Each of its NICs is virtio-net and stands, as `eth0`, in a namespace of the lab; nothing of it touches the
//! machine's own interfaces.
//!
//! ```text
//!   kernel.rs     a kernel and its modules, unpacked from Debian's packages and kept in target/vm
//!   initramfs.rs  what runs in it: busybox, and programs of this machine with their libraries
//!   init.sh       its first process: loads modules, then runs what the channel says
//!   channel.rs    the console that commands go in by, and their output comes out by
//! ```

mod channel;
mod initramfs;
mod kernel;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use model::MacAddr;

use crate::Lab;
use crate::netns::Namespace;
use crate::process::Process;
use channel::Channel;

/// How long until the first process answers. It takes four seconds on an idle core, and shares its cores in CI.
const BOOT: Duration = Duration::from_secs(300);
/// How long a command that only changes a setting may take: everything is slower by a factor of ten or so.
const SETTING: Duration = Duration::from_secs(90);

/// The programs that a scenario with a virtual machine needs here.
pub const PROGRAMS: [&str; 2] = ["qemu-system-x86_64", "busybox"];

/// A NIC of a virtual machine, and where its other end stands.
pub struct Nic<'a> {
    /// The namespace that the other end is put into, as `eth0`.
    pub outside: &'a Namespace,
    /// Its MAC address inside.
    pub mac: MacAddr,
    /// Pairs of queues.
    pub queues: u32,
    /// Whether the driver is told to map memory for the device (VIRTIO_F_ACCESS_PLATFORM). Without it Linux's driver
    /// has no device to map AF_XDP's memory for, and refuses zero-copy (`virtnet_xsk_pool_enable`).
    pub access_platform: bool,
}

/// What a virtual machine is made of. Inside, its NICs are called `eth0`, `eth1`, ... in order.
pub struct Plan<'a> {
    /// What it is called in the lab; its host name.
    pub name: &'a str,
    /// Memory, in MiB.
    pub memory: u32,
    /// Processors: with software emulation each takes a core of this machine.
    pub processors: u32,
    /// Its NICs.
    pub nics: &'a [Nic<'a>],
    /// Programs that it gets: names as a shell would find them, or whole paths.
    pub programs: &'a [&'a Path],
    /// Modules to load beside the NIC's driver, each after those that it depends on.
    pub modules: &'a [&'a str],
}

/// A running virtual machine. Its lab ends it, like any other process of the lab.
pub struct Vm {
    name: String,
    release: String,
    process: RefCell<Process>,
    channel: RefCell<Channel>,
}

impl Vm {
    /// Boots a machine and waits until it takes commands.
    ///
    /// # Errors
    /// There is no kernel and none can be fetched (a [`CannotRun`](crate::scenario::CannotRun)), QEMU ends, or the
    /// machine doesn't answer in time.
    pub fn boot(lab: &Lab, plan: &Plan<'_>) -> Result<Vm> {
        let begin = Instant::now();
        let kernel = kernel::get(lab)?;
        lab.step(&format!("booting Linux {} in {}", kernel.release, plan.name));
        let initramfs = initramfs::build(lab, plan, &kernel)?;
        // The taps are born here, where QEMU finds them, and moved to where they belong once it holds them.
        let room = lab.namespace(plan.name)?;
        for (index, nic) in plan.nics.iter().enumerate() {
            let queues = if nic.queues > 1 { " multi_queue" } else { "" };
            room.ip(&format!("tuntap add tap{index} mode tap{queues}"))?;
        }
        let socket = lab.directory().join(format!("{}.commands", plan.name));
        let console = lab.directory().join("logs").join(format!("{}-console.log", plan.name));
        let mut qemu = room.command("qemu-system-x86_64");
        machine(&mut qemu, plan, &kernel.image, &initramfs);
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        let commands = format!("socket,id=commands,path={},server=on,wait=off", socket.display());
        qemu.arg("-chardev").arg(commands);
        qemu.args(["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=commands"]);
        let mut process = lab.spawn(&format!("{}-qemu", plan.name), qemu)?;
        let mut channel = lab.wait("QEMU's socket", SETTING, || Channel::open(&socket).map(Some))?;
        lab.wait(&format!("Linux to boot in {}", plan.name), BOOT, || {
            if let Err(error) = process.must_run() {
                // Waiting longer cannot help.
                return Ok(Some(Err(error)));
            }
            Ok(channel.ready()?.then_some(Ok(())))
        })??;
        let vm = Vm {
            name: plan.name.to_owned(),
            release: kernel.release,
            process: RefCell::new(process),
            channel: RefCell::new(channel),
        };
        for (index, nic) in plan.nics.iter().enumerate() {
            room.ip(&format!("link set tap{index} netns {} name eth0", nic.outside.full()))?;
            nic.outside.ip("link set eth0 up")?;
        }
        lab.proved(format!(
            "Linux {} booted in {} in {:.1} s",
            vm.release,
            vm.name,
            begin.elapsed().as_secs_f64()
        ));
        Ok(vm)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The release of its kernel.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Runs a shell script inside, which must succeed, and returns what it printed.
    ///
    /// # Errors
    /// Its exit status isn't zero; what it said is told. Or it takes longer than a minute and a half.
    pub fn run(&self, lab: &Lab, script: &str) -> Result<String> {
        self.run_within(lab, script, SETTING)
    }

    /// [`Vm::run`] for what takes longer.
    ///
    /// # Errors
    /// As [`Vm::run`].
    pub fn run_within(&self, lab: &Lab, script: &str, limit: Duration) -> Result<String> {
        let reply = self.answer(lab, script, limit)?;
        if reply.status != 0 {
            let said = [reply.output.trim(), reply.error.trim()].join("\n");
            bail!("`{script}` in {} failed (exit status {}): {}", self.name, reply.status, said.trim());
        }
        Ok(reply.output)
    }

    /// Writes a file inside; its folder is made.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, lab: &Lab, path: &str, text: &str) -> Result<()> {
        let script = format!(
            "mkdir -p $(dirname {path}) && cat > {path}.new <<'end of file' && mv {path}.new {path}\n{text}\nend of file"
        );
        self.run(lab, &script).map(|_| ())
    }

    /// Starts a program inside that runs until it ends or is ended; its words go to `/run/NAME.log` there, its process
    /// number to `/run/NAME.pid`. No quotes in the command.
    ///
    /// # Errors
    /// The shell cannot start it.
    pub fn spawn(&self, lab: &Lab, name: &str, command: &str) -> Result<()> {
        // Through a shell that isn't busybox's: setsid, which is, would run busybox's own program of the name.
        let script = format!(
            "setsid /usr/bin/dash -c 'exec {command}' > /run/{name}.log 2>&1 & echo $! > /run/{name}.pid"
        );
        self.run(lab, &script).map(|_| ())
    }

    /// What a program started with [`Vm::spawn`] has said: its last lines, for an error message.
    pub fn last_words(&self, lab: &Lab, name: &str) -> String {
        self.run(lab, &format!("tail -n 12 /run/{name}.log")).unwrap_or_default()
    }

    fn answer(&self, lab: &Lab, script: &str, limit: Duration) -> Result<channel::Reply> {
        let mut channel = self.channel.borrow_mut();
        channel
            .send(script, limit)
            .with_context(|| format!("cannot write to the console of {}", self.name))?;
        let first = script.lines().next().unwrap_or_default();
        // It ends what takes too long by itself, and says so.
        lab.wait(&format!("`{first}` in {}", self.name), limit + SETTING, || {
            if let Err(error) = self.process.borrow_mut().must_run() {
                return Ok(Some(Err(error)));
            }
            channel.insist()?;
            Ok(channel.receive()?.map(Ok))
        })?
    }
}

/// The machine but for its consoles: no device that isn't needed.
fn machine(qemu: &mut Command, plan: &Plan<'_>, kernel: &Path, initramfs: &PathBuf) {
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.args(["-m", &plan.memory.to_string(), "-smp", &plan.processors.to_string()]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    // Without KASLR what Debian's virtio_net takes for a header is above the machine's memory, up to 1 GiB of it, and reads
    // as zeros (`afxdp/src/virtio.rs`): zero-copy can be shown.
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet mitigations=off nokaslr"]);
    for (index, nic) in plan.nics.iter().enumerate() {
        let queues = if nic.queues > 1 { format!(",queues={}", nic.queues) } else { String::new() };
        qemu.arg("-netdev").arg(format!("tap,id=n{index},ifname=tap{index},script=no,downscript=no{queues}"));
        let mut device = format!("virtio-net-pci,netdev=n{index},mac={},romfile=,disable-legacy=on", nic.mac);
        if nic.queues > 1 {
            // A vector for each queue, one for the device's settings and one for the control queue.
            device.push_str(&format!(",mq=on,vectors={}", 2 * nic.queues + 2));
        }
        if nic.access_platform {
            device.push_str(",iommu_platform=on");
        }
        qemu.arg("-device").arg(device);
    }
}
