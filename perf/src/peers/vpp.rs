//! VPP's packet generator on the same packets and routes, where an installed vpp is named.
//!
//! Debian has no package of VPP, so this needs somebody's own installation, with vppctl beside vpp. Its commands are those of
//! VPP 24.06 and later.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use perf::packets;
use perf::router::NEXT_HOPS;

use super::dpdk;
use super::memory::next_hop;

const SETTLE: Duration = Duration::from_millis(100);
const ROUND: Duration = Duration::from_millis(500);
/// A million routes by its command line.
const PATIENCE: Duration = Duration::from_secs(120);

/// A vpp of our own with one worker, paused while it isn't measured.
pub(super) struct Vpp {
    child: Child,
    control: PathBuf,
    socket: PathBuf,
}

/// What `show runtime` says of a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Runtime {
    /// Millions of packets a second, those of the generator.
    pub mpps: f64,
    /// Clocks a packet in all nodes but the generator's.
    pub clocks_a_packet: f64,
    /// The share of packets that got a next hop's addresses.
    pub forwarded: f64,
}

impl Vpp {
    /// Starts it with these packets and routes; its files go to `folder`.
    ///
    /// # Errors
    /// Where it doesn't start, or refuses a command.
    pub(super) fn start(
        vpp: &Path,
        core: usize,
        folder: &Path,
        pcap: &Path,
        prefixes: &[(IpAddr, u8)],
    ) -> Result<Vpp> {
        let last = dpdk::cores()? - 1;
        let other = if core == 0 { 1 } else { core - 1 };
        let socket = folder.join("vpp.sock");
        let script = folder.join("vpp.script");
        write_script(&script, pcap, prefixes)?;
        let startup = folder.join("vpp.conf");
        let lines = [
            format!(
                "unix {{ nodaemon nosyslog cli-listen {} runtime-dir {} }}",
                socket.display(),
                folder.display()
            ),
            format!("cpu {{ main-core {other} corelist-workers {core} }}"),
            "memory { main-heap-size 4G }\nbuffers { buffers-per-numa 32768 }".to_owned(),
            "api-segment { prefix tortie-perf }".to_owned(),
            "plugins { plugin default { disable } }\n".to_owned(),
        ];
        fs::write(&startup, lines.join("\n"))?;
        let mut command = Command::new("taskset");
        command.args(["-c", &format!("0-{last}"), "setpriv", "--pdeathsig", "KILL"]).arg(vpp);
        command.arg("-c").arg(&startup).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(folder.join("vpp.stderr"))?);
        let child = command.spawn().with_context(|| format!("starting {}", vpp.display()))?;
        let vpp = Vpp { child, control: vpp.with_file_name("vppctl"), socket };
        let deadline = Instant::now() + PATIENCE;
        while vpp.control("show version").is_err() {
            if Instant::now() > deadline {
                bail!("vpp didn't get ready: {}", fs::read_to_string(folder.join("vpp.stderr"))?.trim());
            }
            thread::sleep(Duration::from_millis(100));
        }
        let said = vpp.control(&format!("exec {}", script.display()))?;
        if !said.is_empty() {
            bail!("vpp refuses: {}", said.lines().next().unwrap_or_default());
        }
        vpp.signal(rustix::process::Signal::STOP);
        Ok(vpp)
    }

    /// Its process.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// One round.
    ///
    /// # Errors
    /// Where it ended, or answers otherwise than expected.
    pub(super) fn round(&mut self) -> Result<Runtime> {
        self.signal(rustix::process::Signal::CONT);
        thread::sleep(SETTLE);
        self.control("clear runtime")?;
        thread::sleep(ROUND);
        let shown = self.control("show runtime")?;
        self.signal(rustix::process::Signal::STOP);
        let runtime =
            parse(&shown).with_context(|| format!("vpp's `show runtime` can't be read:\n{shown}"))?;
        ensure!(runtime.forwarded > 0.97, "vpp forwards only some packets:\n{shown}");
        Ok(runtime)
    }

    fn control(&self, command: &str) -> Result<String> {
        dpdk::output(Command::new(&self.control).arg("-s").arg(&self.socket).args(command.split(' ')))
    }

    fn signal(&self, signal: rustix::process::Signal) {
        // Where it has ended, the next command to it fails.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal);
    }
}

impl Drop for Vpp {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two generator interfaces, neighbours behind the second, routes to them, and a stream without end.
fn write_script(path: &Path, pcap: &Path, prefixes: &[(IpAddr, u8)]) -> Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let v6 = prefixes.first().is_some_and(|(addr, _)| addr.is_ipv6());
    let gateway =
        |number: usize| if v6 { format!("fd00:1::{number:x}") } else { format!("172.18.1.{number}") };
    let local = if v6 { "fd00:1::fe/64" } else { "172.18.1.254/24" };
    writeln!(out, "create packet-generator interface pg0\ncreate packet-generator interface pg1")?;
    writeln!(out, "set interface mac address pg0 {}", packets::ROUTER)?;
    writeln!(out, "set interface state pg0 up\nset interface state pg1 up")?;
    writeln!(
        out,
        "{}",
        if v6 { "enable ip6 interface pg0" } else { "set interface ip address pg0 198.18.0.254/24" }
    )?;
    writeln!(out, "set interface ip address pg1 {local}")?;
    for number in 1..=NEXT_HOPS as usize {
        writeln!(out, "set ip neighbor pg1 {} 02:00:00:01:00:{number:02x} static", gateway(number))?;
    }
    for (number, (addr, len)) in prefixes.iter().enumerate() {
        writeln!(out, "ip route add {addr}/{len} via {} pg1", gateway(1 + next_hop(number)))?;
    }
    // More packets than it can send in a day.
    writeln!(
        out,
        "packet-generator new name flows limit 1000000000000000 pcap {} interface pg0 node ethernet-input",
        pcap.display()
    )?;
    writeln!(out, "packet-generator enable-stream flows")?;
    Ok(out.flush()?)
}

/// The worker's part of `show runtime`: the one in which the generator made packets.
///
/// A row is: name, state, calls, vectors (that is packets), suspends, clocks a packet, packets a call. The state may be of two
/// words.
fn parse(shown: &str) -> Option<Runtime> {
    let block = shown.split("Thread ").find(|block| rows(block).any(|(name, ..)| name == "pg-input"))?;
    let seconds: f64 = block.split("Time ").nth(1)?.split(',').next()?.trim().parse().ok()?;
    let of = |wanted: fn(&str) -> bool| rows(block).filter(move |(name, ..)| wanted(name));
    let packets: f64 = of(|name| name == "pg-input").map(|(_, vectors, _)| vectors).sum();
    let clocks: f64 = of(|name| name != "pg-input").map(|(_, vectors, clocks)| vectors * clocks).sum();
    let rewritten: f64 = of(|name| name.ends_with("-rewrite")).map(|(_, vectors, _)| vectors).sum();
    (packets > 0.0 && seconds > 0.0).then(|| Runtime {
        mpps: packets / seconds / 1e6,
        clocks_a_packet: clocks / packets,
        forwarded: rewritten / packets,
    })
}

/// Name, packets and clocks a packet of every node that saw packets.
fn rows(block: &str) -> impl Iterator<Item = (&str, f64, f64)> {
    block.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [.., _calls, vectors, _suspends, clocks, _vectors_a_call] = words.as_slice() else { return None };
        let vectors: f64 = vectors.parse().ok().filter(|vectors| *vectors > 0.0)?;
        Some((*words.first()?, vectors, clocks.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_that_generates_is_found_and_its_generator_left_out() {
        let shown = "\
Thread 0 vpp_main (lcore 2)
Time 2.0, 10 sec internal node vector rate 0.00 loops/sec 1000.00
  vector rates in 0.0000e0, out 0.0000e0, drop 0.0000e0, punt 0.0000e0
             Name                 State         Calls          Vectors        Suspends         Clocks       Vectors/Call
api-rx-from-ring                any wait                 0               0               4          9.19e3            0.00
---------------
Thread 1 vpp_wk_0 (lcore 3)
Time 2.0, 10 sec internal node vector rate 256.00 loops/sec 31234.56
  vector rates in 2.7e7, out 2.7e7, drop 0.0000e0, punt 0.0000e0
             Name                 State         Calls          Vectors        Suspends         Clocks       Vectors/Call
ethernet-input                   active             200000        50000000               0          7.20e0          256.00
ip4-lookup                       active             200000        50000000               0          1.00e1          256.00
ip4-rewrite                      active             100000        25000000               0          1.00e1          256.00
pg-input                         polling            200000        50000000               0          3.30e1          256.00
unix-epoll-input                 polling               195               0               0          4.00e2            0.00
";
        let runtime = parse(shown).expect("it can be read");
        assert_eq!(runtime.mpps, 25.0);
        assert!((runtime.clocks_a_packet - 22.2).abs() < 1e-9);
        assert_eq!(runtime.forwarded, 0.5);
        assert_eq!(parse("Thread 0 vpp_main (lcore 2)\nTime 2.0, nothing\n"), None);
    }
}
