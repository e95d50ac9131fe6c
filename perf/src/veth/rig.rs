//! Two veth pairs with the router between them, a generator at one end, a counting sink at the other.
//!
//! ```text
//!   gen │ g0 ─────── d0 │ router │ d1 ─────── s0 │ sink
//!   core 3        core 1   core 2              core 0
//! ```
//! Four cores, so that each of the four that work has its own: the generator, the kernel's thread that polls d0, the
//! router's worker, the kernel's thread that polls s0. What the ends are, and why, stands in `perf/peers/veth/rig.c`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::netns::Namespace;
use lab::progress::Progress;
use lab::{Lab, Tools, command};
use model::{MacAddr, Prefix};
use perf::data::Prefixes;
use perf::keys::{self, Numbers};
use perf::packets;

/// The sink's core; whoever reads numbers shares it.
pub const SINK_CORE: usize = 0;
/// Where the kernel takes frames from the generator, and where it forwards when it is the router.
pub const NAPI_CORE: usize = 1;
/// The router's.
pub const WORKER_CORE: usize = 2;
/// The generator's.
pub const GENERATOR_CORE: usize = 3;

/// MAC address of the router's port towards the sink.
pub const EGRESS: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
/// MAC address of the sink.
pub const SINK: MacAddr = MacAddr([2, 0, 0, 0, 0, 4]);
/// The router's neighbour at the sink.
pub const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 130);

/// Flows where there is more than one; the generator takes them in turn.
pub const FLOWS: usize = 65_536;
/// How long a program may take to be ready: a router may load a full table.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long the kernel may take for a full table.
const ROUTES_WITHIN: Duration = Duration::from_secs(120);
/// Longest answer of a program that is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the generator sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its name in tables and records.
    pub name: &'static str,
    /// Bytes of a frame without its check sequence.
    pub len: usize,
    /// How many flows; a power of two.
    pub flows: usize,
}

/// The loads that routers are compared under.
pub const LOADS: [Load; 3] = [
    Load { name: "64 B, 1 flow", len: 64, flows: 1 },
    Load { name: "64 B, 64 k flows", len: 64, flows: FLOWS },
    Load { name: "1400 B, 64 k flows", len: 1400, flows: FLOWS },
];

/// Who takes frames from the interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Polled {
    /// Threads of the kernel, each on a core of its own: most packets, and a core to be woken for each that comes alone.
    #[default]
    Threads,
    /// Whoever sends, as soft interrupts do on a veth that nobody told otherwise. For light loads.
    Softirq,
}

impl Polled {
    /// The name of a record of the time on the way alone.
    pub fn record(self) -> &'static str {
        match self {
            Polled::Threads => "veth-light-threads",
            Polled::Softirq => "veth-light-softirq",
        }
    }
}

/// What the sink has seen at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    nanoseconds: u64,
    /// Packets of ours.
    pub packets: u64,
    /// Those whose TTL had been lowered.
    pub forwarded: u64,
    /// Packets that said when they left, since the last look.
    pub samples: u64,
    /// How long those were on the way, in nanoseconds: p50, p99, p99.9, longest.
    pub one_way: [u64; 4],
}

/// What came out of one measurement.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Millions of packets a second that reached the sink.
    pub delivered: f64,
    /// Millions of packets a second that the generator made.
    pub offered: f64,
    /// Of those delivered, how many had their TTL lowered: 1 for a router, 0 for what only moves frames.
    pub routed: f64,
    /// How much of its core each had: generator, d0's thread, worker, s0's thread.
    pub busy: [f64; 4],
}

/// The two links, the ends and the way to measure.
pub struct Rig {
    // Dropped in this order: programs before the namespaces that they run in.
    sink: Asked,
    lab: Lab,
    generator: Namespace,
    far_end: Namespace,
    /// Where routers under test run.
    pub router: Namespace,
    program: PathBuf,
    /// Those that poll d0 and s0, where threads do.
    threads: Option<[u32; 2]>,
}

impl Rig {
    /// Makes the namespaces, the links and the sink. `routes` is the table that every router gets.
    pub fn raise(routes: &Prefixes<u32>, polled: Polled) -> Result<Rig> {
        let tools = Tools { tortie: PathBuf::new(), agent: PathBuf::new() };
        let lab = Lab::raise(&tools, Progress::new(None))?;
        let program = compile(lab.directory())?;
        let [generator, router, far_end] =
            [lab.namespace("gen")?, lab.namespace("router")?, lab.namespace("sink")?];
        join(&generator, "g0", packets::SENDER, &router, "d0", packets::ROUTER)?;
        join(&router, "d1", EGRESS, &far_end, "s0", SINK)?;
        router.ip("address add 192.0.2.1/25 dev d0")?;
        router.ip("address add 192.0.2.129/25 dev d1")?;
        router.ip(&format!("neigh add {NEXT_HOP} lladdr {SINK} dev d1"))?;
        router.forward()?;
        for load in LOADS {
            let path = headers(lab.directory(), load);
            fs::write(&path, flows(load, routes)).with_context(|| format!("writing {}", path.display()))?;
        }
        let threads = match polled {
            Polled::Threads => {
                let threads = [by_thread(&router, "d0", NAPI_CORE)?, by_thread(&far_end, "s0", SINK_CORE)?];
                // What comes back doesn't matter; it must only not disturb.
                by_thread(&router, "d1", SINK_CORE)?;
                Some(threads)
            }
            Polled::Softirq => None,
        };
        let mut command = on_core(&far_end, SINK_CORE);
        command.arg(&program).args(["count", "s0"]);
        let sink = Asked::start("the sink", command)?;
        Ok(Rig { sink, lab, generator, far_end, router, program, threads })
    }

    /// Where files of this run may be put.
    pub fn directory(&self) -> &Path {
        self.lab.directory()
    }

    /// What the sink has seen.
    pub fn seen(&mut self) -> Result<Seen> {
        let line = self.sink.ask("")?;
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let &[nanoseconds, packets, _bytes, forwarded, samples, ref one_way @ ..] = numbers.as_slice() else {
            bail!("the sink said {line:?}");
        };
        let one_way = one_way.try_into().context("four percentiles")?;
        Ok(Seen { nanoseconds, packets, forwarded, samples, one_way })
    }

    /// Sends as much as the link takes for `time` after `settle`, and says what came through meanwhile.
    /// `worker`: the process that does the router's work, unless the kernel does it.
    pub fn flood(
        &mut self,
        load: Load,
        settle: Duration,
        time: Duration,
        worker: Option<u32>,
    ) -> Result<Flooded> {
        // The generator is stopped by its own clock, a little after we have looked.
        let seconds = (settle + time).as_secs_f64().ceil() as u64 + 1;
        let begun = Instant::now();
        let generator = self.send("flood", load, load.flows, seconds)?;
        std::thread::sleep(settle);
        let [near, far] = self.threads.context("floods are for interfaces with threads")?;
        let processes = [Some(generator.id()), Some(near), worker, Some(far)];
        let before = (self.seen()?, processes.map(ticks));
        std::thread::sleep(time);
        let after = (self.seen()?, processes.map(ticks));
        ensure!(begun.elapsed() < Duration::from_secs(seconds), "the generator ended before the measurement");
        signal("ALRM", generator.id())?;
        let offered = offered(generator)?;
        let seconds = (after.0.nanoseconds - before.0.nanoseconds) as f64 / 1e9;
        let packets = after.0.packets - before.0.packets;
        let share = |at: usize| (after.1[at] - before.1[at]) as f64 / TICKS / seconds;
        Ok(Flooded {
            delivered: packets as f64 / seconds / 1e6,
            offered,
            routed: (after.0.forwarded - before.0.forwarded) as f64 / packets.max(1) as f64,
            busy: [0, 1, 2, 3].map(share),
        })
    }

    /// Sends `rate` packets a second for some seconds, and says how long they were on the way.
    pub fn paced(&mut self, rate: usize, seconds: u64) -> Result<Seen> {
        self.seen()?;
        let mut generator = self.send("paced", LOADS[0], rate, seconds)?;
        ensure!(generator.wait()?.success(), "the paced sender failed");
        self.seen()
    }

    /// Has other programs at both ends for once: `receiver`, which takes the sink's place and is ready first, then
    /// `sender`. Returns the receiver's last words.
    pub fn with_other_ends(&mut self, program: &Path, sender: &[&str], receiver: &[&str]) -> Result<String> {
        self.sink.stop();
        // Not on the core of the thread that polls s0: while they take turns the link overflows.
        let mut command = on_core(&self.far_end, GENERATOR_CORE);
        command.arg(program).args(receiver);
        self.sink = Asked::start("the receiver", command)?;
        let mut command = on_core(&self.generator, GENERATOR_CORE);
        command.arg(program).args(sender);
        command::run(&mut command, ROUTES_WITHIN)?;
        self.sink.finish()
    }

    /// The file of headers for a load, as `rig.c` reads it.
    pub fn headers(&self, load: Load) -> PathBuf {
        headers(self.directory(), load)
    }

    /// Gives the kernel the table, and whatever looks up there.
    pub fn kernel_routes(&self, routes: &Prefixes<u32>) -> Result<()> {
        let path = self.directory().join("routes");
        fs::write(&path, kernel_routes(routes))?;
        let mut ip = self.router.command("ip");
        ip.args(["-force", "-batch"]).arg(&path);
        // Some prefixes aren't ones that the kernel routes to.
        command::output(&mut ip, ROUTES_WITHIN).map(drop)
    }

    fn send(&self, how: &str, load: Load, number: usize, seconds: u64) -> Result<Child> {
        let mut command = on_core(&self.generator, GENERATOR_CORE);
        command.arg(&self.program).args([how, "g0"]);
        command.arg(headers(self.directory(), load)).arg(load.len.to_string());
        command.args([number.to_string(), seconds.to_string()]).stdout(Stdio::piped());
        command.spawn().context("starting the generator")
    }
}

/// Compiles the C program of the two ends.
fn compile(directory: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/veth/rig.c");
    let program = directory.join("rig");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-o"]).arg(&program).arg(source);
    command::run(&mut gcc, command::SETTING).context("compiling the rig's ends")?;
    Ok(program)
}

/// A veth pair whose ends have NAPI (so that XDP frames can be sent to them) and no IPv6 chatter.
fn join(
    left: &Namespace,
    near: &str,
    near_mac: MacAddr,
    right: &Namespace,
    far: &str,
    far_mac: MacAddr,
) -> Result<()> {
    let far_end = format!("name {far} address {far_mac} netns {}", right.full());
    left.ip(&format!("link add {near} address {near_mac} type veth peer {far_end}"))?;
    for (namespace, interface) in [(left, near), (right, far)] {
        let ipv6 = format!("net/ipv6/conf/{interface}/disable_ipv6");
        namespace.set(&[(&ipv6, "1")])?;
        namespace.run("ethtool", &["-K", interface, "gro", "on"])?;
    }
    // Only now: an end that goes up asks whether the other one has NAPI.
    left.ip(&format!("link set {near} up"))?;
    right.ip(&format!("link set {far} up"))?;
    Ok(())
}

/// Gives an interface a kernel thread of its own that polls it, on a core of its own. Says which it is.
fn by_thread(namespace: &Namespace, interface: &str, core: usize) -> Result<u32> {
    let ours = |known: &[u32]| -> Vec<u32> {
        let prefix = format!("napi/{interface}-");
        let named = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(&prefix))
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| !known.contains(pid)).filter(named).collect()
    };
    // Other rigs may have interfaces of the same name.
    let known = ours(&[]);
    namespace.run("sh", &["-c", &format!("echo 1 > /sys/class/net/{interface}/threaded")])?;
    let found = ours(&known);
    let [thread] = found.as_slice() else { bail!("{} threads poll {interface}", found.len()) };
    let arguments = ["-pc", &core.to_string(), &thread.to_string()];
    command::run(Command::new("taskset").args(arguments), command::SETTING)?;
    let arguments = [NICE, "-p", &thread.to_string()];
    command::run(Command::new("renice").args(arguments), command::SETTING)?;
    Ok(*thread)
}

/// Millions of frames a second that the generator says it made.
fn offered(generator: Child) -> Result<f64> {
    let said = String::from_utf8(generator.wait_with_output()?.stdout)?;
    let words: Vec<&str> = said.split_whitespace().collect();
    let &[frames, "frames", "in", nanoseconds, ..] = words.as_slice() else {
        bail!("the generator said {said:?}");
    };
    Ok(frames.parse::<f64>()? / nanoseconds.parse::<f64>()? * 1e3)
}

/// A program in a namespace that runs before all other work, so that each core is measured as if it were alone.
///
/// Where the kernel groups tasks by session (sched(7), autogroups), a nice value counts within the session only; so the
/// program gets a session of its own, and that the nice value.
pub fn urgent(namespace: &Namespace) -> Command {
    let mut command = namespace.command("nice");
    let script = format!("echo {NICE} 2>/dev/null > /proc/$$/autogroup; exec \"$@\"");
    command.args(["-n", NICE, "setsid", "sh", "-c", &script, "sh"]);
    command
}

/// [`urgent`], and pinned.
fn on_core(namespace: &Namespace, core: usize) -> Command {
    let mut command = urgent(namespace);
    command.args(["taskset", "-c", &core.to_string()]);
    command
}

/// The most urgent that isn't real-time.
const NICE: &str = "-20";

fn headers(directory: &Path, load: Load) -> PathBuf {
    directory.join(format!("headers-{}-{}", load.len, load.flows))
}

/// Headers and flows as `rig.c` wants them: random addresses in random prefixes of the table.
fn flows(load: Load, routes: &Prefixes<u32>) -> Vec<u8> {
    let mut numbers = Numbers::new(7);
    let mut bytes = Vec::with_capacity(42 + 8 * load.flows);
    while bytes.len() < 42 + 8 * load.flows {
        let destination = Ipv4Addr::from(keys::inside(routes, &mut numbers));
        // What no router forwards would make the flows fewer.
        let [first, ..] = destination.octets();
        if matches!(first, 0 | 127 | 192 | 198 | 224..) || destination.is_broadcast() {
            continue;
        }
        let frame = packets::udp(IpAddr::V4(destination), (bytes.len() / 8) as u16, load.len);
        if bytes.is_empty() {
            bytes.extend(&frame[..40]);
            // No UDP checksum: the payload changes on the way out.
            bytes.extend([0, 0]);
        }
        bytes.extend(&frame[30..34]);
        bytes.extend(&frame[24..26]);
        bytes.extend(&frame[34..36]);
    }
    bytes
}

/// Sends a signal to a process that we started.
pub fn signal(name: &str, id: u32) -> Result<()> {
    let arguments = [format!("-{name}"), id.to_string()];
    command::run(Command::new("kill").args(arguments), command::SETTING).map(drop)
}

/// Clock ticks a second (`sysconf(_SC_CLK_TCK)`), 100 on every Linux of today.
const TICKS: f64 = 100.0;

/// Clock ticks that a process, or a kernel thread, has run (proc(5), fields 14 and 15).
fn ticks(pid: Option<u32>) -> u64 {
    let stat = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok()).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}

/// All routes of a table as `ip -batch` takes them.
fn kernel_routes(routes: &Prefixes<u32>) -> String {
    let line = |(addr, len): &(u32, u8)| {
        let prefix = Prefix::new(IpAddr::V4((*addr).into()), *len).map(|prefix| prefix.to_string());
        format!("route replace {} via {NEXT_HOP} dev d1\n", prefix.unwrap_or_default())
    };
    routes.iter().map(line).collect()
}

/// A program beside us that answers a line with a line. Dropping it ends it.
pub struct Asked {
    name: &'static str,
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Asked {
    /// Starts it and waits for its first line.
    pub fn start(name: &'static str, mut command: Command) -> Result<Asked> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let answers = BufReader::new(child.stdout.take().context("a pipe from it")?);
        let mut asked = Asked { name, child, answers };
        let begun = Instant::now();
        let line = asked.line()?;
        ensure!(line == "ready" && begun.elapsed() < READY_WITHIN, "{name} said {line:?}");
        Ok(asked)
    }

    /// Asks, and returns the answer.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        let name = self.name;
        let begun = Instant::now();
        let input = self.child.stdin.as_mut().context("a pipe to it")?;
        writeln!(input, "{question}").with_context(|| format!("asking {name}"))?;
        let answer = self.line()?;
        ensure!(begun.elapsed() < ANSWER_WITHIN, "{name} took {:?} to answer", begun.elapsed());
        Ok(answer)
    }

    /// Ends its input, waits until it ends, and returns its last line.
    pub fn finish(&mut self) -> Result<String> {
        drop(self.child.stdin.take());
        let last = self.line()?;
        ensure!(self.child.wait()?.success(), "{} failed", self.name);
        Ok(last)
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).with_context(|| format!("reading from {}", self.name))?;
        ensure!(line.ends_with('\n'), "{} ended", self.name);
        Ok(line.trim_end().to_owned())
    }
}

impl Asked {
    fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program that is only started and ended. What it says goes into a file.
pub struct Program(Child);

impl Program {
    /// Starts it.
    pub fn start(mut command: Command, log: &Path) -> Result<Program> {
        let file = fs::File::create(log)?;
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        Ok(Program(command.spawn().context("starting a program")?))
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It gives its sockets back in order where it can.
        let _ = signal("CONT", self.id()).and_then(|()| signal("TERM", self.id()));
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Numbers by name, as a router of ours tells them.
pub type Told = BTreeMap<String, u64>;
