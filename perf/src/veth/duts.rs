//! The routers that are compared, each started on the same interfaces and cores, and ended without a trace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use perf::data::Prefixes;
use perf::packets;

use super::rig::{self, Asked, Polled, Program, Rig, SINK, SINK_CORE, Told, WORKER_CORE};

/// A router to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Router {
    /// Our fast path.
    Tortie,
    /// The same of another build of this program, to compare two states of the tree.
    Other(PathBuf),
    /// The kernel's own forwarding, on the core that polls d0.
    Linux,
    /// DPDK's testpmd over net_af_xdp: writes MAC addresses, looks nothing up.
    Testpmd,
    /// DPDK's l3fwd over net_af_xdp.
    L3fwd(PathBuf),
    /// xdp-tools' xdp-forward: looks up in the kernel's table, never leaves the kernel.
    XdpForward(PathBuf),
}

/// A router at work, between links of its own. Dropping it ends it.
pub struct Contender {
    /// Which it is.
    pub router: Router,
    // Before the rig: its programs end before its namespaces go.
    running: Running,
    /// Its links and ends.
    pub rig: Rig,
}

impl Contender {
    /// Raises a rig and starts the router in it. It stands still until [`resume`](Self::resume)d.
    pub fn start(router: Router, routes: &Prefixes<u32>, polled: Polled) -> Result<Contender> {
        let mut rig = Rig::raise(routes, polled)?;
        let running = router.start(&mut rig, routes)?;
        let contender = Contender { router, running, rig };
        contender.pause()?;
        Ok(contender)
    }

    /// The process that does its work.
    pub fn id(&self) -> Option<u32> {
        self.running.id()
    }

    /// Takes its core away: what polls without end would be in the way of the others.
    pub fn pause(&self) -> Result<()> {
        self.running.id().map_or(Ok(()), |id| rig::signal("STOP", id))
    }

    /// Gives it its core back.
    pub fn resume(&self) -> Result<()> {
        self.running.id().map_or(Ok(()), |id| rig::signal("CONT", id))
    }

    /// Can it be asked for its books?
    pub fn is_ours(&self) -> bool {
        matches!(self.running, Running::Ours(_))
    }

    /// Our router's numbers as it tells them.
    pub fn ask(&mut self) -> Result<String> {
        let Running::Ours(asked) = &mut self.running else { bail!("only our router says something") };
        asked.ask("")
    }

    /// Ends our router, and returns its last words: its books must balance and no frame may be missing.
    pub fn finish(&mut self) -> Result<Told> {
        let Running::Ours(asked) = &mut self.running else { bail!("only our router says something") };
        let told: Told = serde_json::from_str(&asked.finish()?).context("the router's last words")?;
        ensure!(told["balance"] == 1, "the books don't balance: {told:?}");
        ensure!(told["missing frames"] == 0, "frames are missing: {told:?}");
        Ok(told)
    }
}

/// What does a router's work.
enum Running {
    /// Ours: it can be asked.
    Ours(Asked),
    /// A program that is ended by a signal.
    Program(Program),
    /// The kernel, which needs no program.
    Kernel,
}

impl Router {
    /// Its name in tables and records.
    pub fn name(&self) -> String {
        match self {
            Router::Tortie => "tortie".to_owned(),
            Router::Other(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Router::Linux => "linux".to_owned(),
            Router::Testpmd => "testpmd".to_owned(),
            Router::L3fwd(_) => "l3fwd".to_owned(),
            Router::XdpForward(_) => "xdp-forward".to_owned(),
        }
    }

    /// Starts it; [`super::through`] tells when it forwards.
    fn start(&self, rig: &mut Rig, routes: &Prefixes<u32>) -> Result<Running> {
        let log = rig.directory().join("logs").join(self.name());
        let running = match self {
            Router::Linux => {
                rig.kernel_routes(routes)?;
                Running::Kernel
            }
            Router::Tortie => {
                let program = std::env::current_exe().context("where this program is")?;
                Running::Ours(Asked::start("our router", ours(rig, &program))?)
            }
            Router::Other(path) => Running::Ours(Asked::start("the other build", ours(rig, path))?),
            Router::Testpmd => Running::Program(Program::start(testpmd(rig), &log)?),
            Router::L3fwd(path) => Running::Program(Program::start(l3fwd(rig, path)?, &log)?),
            Router::XdpForward(path) => {
                rig.kernel_routes(routes)?;
                let mut command = rig.router.command(path);
                command.args(["load", "-m", "native", "-f", "fib", "-F", "full", "d0", "d1"]);
                lab::command::run(&mut command, lab::command::SETTING)?;
                Running::Kernel
            }
        };
        Ok(running)
    }
}

impl Running {
    fn id(&self) -> Option<u32> {
        match self {
            Running::Ours(asked) => Some(asked.id()),
            Running::Program(process) => Some(process.id()),
            Running::Kernel => None,
        }
    }
}

/// Arguments of the environment layer: no devices but the two interfaces. Without busy polling, as the interfaces have
/// a thread that polls them; with it the two take turns, at a tenth of the rate.
fn devices(command: &mut Command) {
    command.args(["--no-pci", "--no-telemetry", "--in-memory", "--log-level", "error"]);
    for interface in ["d0", "d1"] {
        let number = &interface[1..];
        command.args(["--vdev", &format!("net_af_xdp{number},iface={interface},busy_budget=0")]);
    }
}

/// A build of this program as a router; its worker pins itself.
fn ours(rig: &Rig, program: &Path) -> Command {
    let mut command = rig::urgent(&rig.router);
    command.arg(program).args(["veth", "router", "--core", &WORKER_CORE.to_string()]);
    command
}

fn testpmd(rig: &Rig) -> Command {
    let mut command = rig::urgent(&rig.router);
    command.args(["dpdk-testpmd", "-l", &format!("{SINK_CORE},{WORKER_CORE}")]);
    devices(&mut command);
    command.args(["--", "--nb-cores=1", "--forward-mode=mac", &format!("--eth-peer=1,{SINK}")]);
    command.args(["--rxd=2048", "--txd=2048", "--burst=64", "--mbcache=512", "--no-lsc-interrupt"]);
    // Not interactive.
    command.args(["--stats-period=3600"]);
    command
}

/// Two routes cover everything: its table is indexed by address, so that a full one costs the same.
fn l3fwd(rig: &Rig, path: &Path) -> Result<Command> {
    let rules = rig.directory().join("l3fwd-v4");
    std::fs::write(&rules, "R0.0.0.0/1 1\nR128.0.0.0/1 1\n")?;
    let rules_v6 = rig.directory().join("l3fwd-v6");
    std::fs::write(&rules_v6, "R2000::/3 1\n")?;
    let mut command = rig::urgent(&rig.router);
    command.arg(path).args(["-l", &WORKER_CORE.to_string()]);
    devices(&mut command);
    command.args(["--", "-p", "0x3", "-P", "--parse-ptype", "--lookup=fib"]);
    command.arg(format!("--config=(0,0,{WORKER_CORE}),(1,0,{WORKER_CORE})"));
    command.args([format!("--eth-dest=0,{}", packets::SENDER), format!("--eth-dest=1,{SINK}")]);
    command.arg(format!("--rule_ipv4={}", rules.display()));
    command.arg(format!("--rule_ipv6={}", rules_v6.display()));
    Ok(command)
}
