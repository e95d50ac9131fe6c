//! A DPDK program that forwards what net_pcap gives it again and again, measured by its own counters.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::dpdk::{Pages, Program, Telemetry};

/// Time for caches and branch predictors to forget what ran on the core before.
const SETTLE: Duration = Duration::from_millis(50);
const ROUND: Duration = Duration::from_millis(300);
/// rte_lpm takes a minute to load the internet, and two on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// Bytes that 65,536 packets and l3fwd's tables take, and more.
const MEBIBYTES: usize = 4096;

/// How a program does its work.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// l3fwd with this look-up ("fib", "lpm"), to this many ports.
    L3fwd { lookup: &'static str, ports: usize },
    /// testpmd, which sends what it gets ("io") or only takes it ("rxonly"): what the device costs alone.
    Testpmd { mode: &'static str },
}

/// The files that tell it what to do.
pub(super) struct Files<'a> {
    /// The packets.
    pub packets: &'a Path,
    /// l3fwd's routes of both families.
    pub routes: [&'a Path; 2],
    /// Which share of the packets each port must send.
    pub shares: &'a [f64],
    /// The program l3fwd.
    pub l3fwd: &'a Path,
    /// The core to run on; another one is for the main thread of those that want one.
    pub core: usize,
}

/// The program, paused while it isn't measured.
pub(super) struct Forwarder {
    program: Program,
    telemetry: Telemetry,
    kind: Kind,
    shares: Vec<f64>,
}

impl Kind {
    /// Its name in tables and records.
    pub(super) fn name(&self, pages: Pages<'_>) -> String {
        match self {
            Kind::L3fwd { lookup, ports: 1 } => format!("l3fwd {lookup}, 1 port, {pages}"),
            Kind::L3fwd { lookup, ports } => format!("l3fwd {lookup}, {ports} ports, {pages}"),
            Kind::Testpmd { mode } => format!("testpmd {mode}, {pages}"),
        }
    }

    fn ports(&self) -> usize {
        match self {
            Kind::L3fwd { ports, .. } => *ports,
            Kind::Testpmd { .. } => 1,
        }
    }

    fn start(&self, pages: Pages<'_>, files: &Files<'_>) -> Result<Program> {
        let core = files.core;
        let other = if core == 0 { 1 } else { core - 1 };
        let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", files.packets.display());
        let mut environment: Vec<String> = vec!["--vdev".to_owned(), device];
        // They swallow what is sent, as net_pcap does that has nowhere to send to.
        let others = (1..self.ports()).flat_map(|port| ["--vdev".to_owned(), format!("net_null{port}")]);
        environment.extend(others);
        let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        match self {
            Kind::L3fwd { lookup, ports } => {
                environment.extend(words(format!("-l {core}")));
                let mask = (1u64 << ports) - 1;
                let mut arguments = words(format!("-p {mask:x} -P --parse-ptype --lookup {lookup}"));
                arguments.extend(words(format!("--config (0,0,{core})")));
                for (option, path) in ["--rule_ipv4", "--rule_ipv6"].into_iter().zip(files.routes) {
                    arguments.extend([option.to_owned(), path.display().to_string()]);
                }
                Program::start(files.l3fwd, pages, &environment, &arguments, false)
            }
            Kind::Testpmd { mode } => {
                environment.extend(words(format!("-l {other},{core} --main-lcore {other}")));
                let arguments = words(format!(
                    "--forward-mode={mode} --port-topology=loop --nb-cores=1 --total-num-mbufs=262144 --no-flush-rx \
                     --burst=32 --auto-start"
                ));
                Program::start(Path::new("dpdk-testpmd"), pages, &environment, &arguments, false)
            }
        }
    }
}

impl Forwarder {
    /// Mebibytes of huge pages that any of them needs.
    pub(super) const MEBIBYTES: usize = MEBIBYTES;

    /// Starts it, waits until packets flow, and pauses it.
    ///
    /// # Errors
    /// Where it doesn't start, or forwards nothing.
    pub(super) fn start(kind: &Kind, pages: Pages<'_>, files: &Files<'_>) -> Result<Forwarder> {
        let mut program = kind.start(pages, files)?;
        let deadline = Instant::now() + PATIENCE;
        let mut telemetry = program.telemetry(PATIENCE)?;
        // Its ports are there, and count, long before its table is loaded.
        loop {
            let counts = telemetry.counts(kind.ports());
            if counts.is_ok_and(|counts| counts.received > 0) {
                break;
            }
            if program.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(program.failed("forwards nothing"));
            }
            thread::sleep(Duration::from_millis(100));
        }
        program.pause();
        Ok(Forwarder { program, telemetry, kind: kind.clone(), shares: files.shares.to_vec() })
    }

    /// Its process.
    pub(super) fn process(&self) -> u32 {
        self.program.child.id()
    }

    /// One round: millions of packets a second.
    ///
    /// # Errors
    /// Where it ended, or didn't forward what it received, or not to where the table says.
    pub(super) fn round(&mut self) -> Result<f64> {
        self.program.go_on();
        thread::sleep(SETTLE);
        let before = self.telemetry.counts(self.kind.ports())?;
        let start = Instant::now();
        thread::sleep(ROUND);
        let after = self.telemetry.counts(self.kind.ports())?;
        let elapsed = start.elapsed();
        self.program.pause();
        let received = after.received - before.received;
        if !matches!(self.kind, Kind::Testpmd { mode: "rxonly" }) {
            let sent: Vec<u64> =
                after.sent.iter().zip(&before.sent).map(|(after, before)| after - before).collect();
            check(received, &sent, &self.shares)?;
        }
        Ok(received as f64 / elapsed.as_secs_f64() / 1e6)
    }
}

/// Everything that was received must have been sent, and by each port its share: the look-ups are those of the table.
fn check(received: u64, sent: &[u64], shares: &[f64]) -> Result<()> {
    for (port, (sent, share)) in sent.iter().zip(shares).enumerate() {
        let expected = received as f64 * share;
        // Ports are read one after another while packets flow.
        let apart = (*sent as f64 - expected).abs() / received as f64;
        ensure!(
            apart < 0.02,
            "of {received} packets port {port} should have sent {expected:.0}, but sent {sent}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_lost_or_sent_by_another_port_are_noticed() {
        assert!(check(1000, &[249, 751], &[0.25, 0.75]).is_ok());
        assert!(check(1000, &[100, 750], &[0.25, 0.75]).is_err());
        assert!(check(1000, &[300, 700], &[0.25, 0.75]).is_err());
    }
}
