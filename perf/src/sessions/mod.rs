//! A thousand BGP sessions on one box, each with a short hold time, while one more peer sends a whole internet table: how late
//! keepalives come, and what it all takes.
//!
//! The router is the whole program in a namespace of its own; everybody else is one process in another (`crowd.rs`), behind
//! one address, as nodes behind a ToR are.

mod crowd;

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::netns::Namespace;
use lab::progress::Progress;
use lab::resources::Resources;
use lab::tortie::{Settings, ShowRoutes, TortieNode};
use lab::{Lab, Tools, link, wait};
use perf::record::Record;
use serde::{Deserialize, Serialize};

/// The router under test.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const ROUTER_AS: u32 = 64512;
/// The crowd's address on the link, and where its speakers are, all behind it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const CROWD: &str = "10.10.0.0/16";
/// Who sends the table.
const FEEDER: Ipv4Addr = Ipv4Addr::new(10, 10, 255, 1);
const FEEDER_AS: u32 = 64999;
/// How long the crowd is watched with nothing else to do, before and after.
const QUIET: Duration = Duration::from_secs(15);
/// How long the table may take.
const TABLE: Duration = Duration::from_secs(300);

/// What one may ask of `perf sessions`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// How many sessions, besides the one that the table comes by.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=4000))]
    sessions: u16,
    /// Seconds after which a silent peer is taken for gone; a keepalive is due after a third of that.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(3..=240))]
    hold: u16,
    /// Every how manieth prefix of the table.
    #[arg(long, default_value_t = 1)]
    one_in: usize,
    /// The router's program.
    #[arg(long, default_value = "target/release/tortie")]
    tortie: PathBuf,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// The others are a process of their own, in a namespace of their own.
#[derive(clap::Subcommand)]
enum Part {
    /// All speakers but the router; started by the measurement itself.
    #[command(hide = true)]
    Crowd(crowd::Arguments),
}

/// How late keepalives were, in milliseconds after a third of the hold time; what came early counts as 0.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Lateness {
    keepalives: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// The longest silence of a session.
    longest_gap_ms: f64,
    /// Sessions that the router ended.
    lost: usize,
}

/// One part of the measurement.
#[derive(Serialize)]
struct Phase {
    name: &'static str,
    seconds: f64,
    lateness: Lateness,
    /// Resident at its end.
    megabytes: f64,
}

#[derive(Serialize)]
struct Results {
    sessions: u16,
    hold_seconds: u16,
    prefixes: usize,
    /// From the first OPEN until all sessions stood.
    up_seconds: f64,
    phases: Vec<Phase>,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(Part::Crowd(arguments)) = &arguments.part {
        return crowd::run(arguments);
    }
    wait::catch_signals()?;
    let tortie = std::fs::canonicalize(&arguments.tortie).with_context(|| {
        format!("{}: `cargo build --release -p tortie` makes it", arguments.tortie.display())
    })?;
    let lab = Lab::raise(&Tools { tortie, agent: PathBuf::new() }, Progress::new(None))?;
    let (here, there) = (lab.namespace("router")?, lab.namespace("crowd")?);
    link::veth(link::End::new(&here, "eth0"), link::End::new(&there, "eth0"))?;
    link::add_address(&here, "eth0", format!("{ROUTER}/24").parse()?)?;
    link::add_address(&there, "eth0", format!("{GATEWAY}/24").parse()?)?;
    link::transmit_checksums_by_software(&there, "eth0")?;
    here.ip(&format!("route add {CROWD} via {GATEWAY}"))?;
    // Every address of the network is the crowd's, without naming each.
    there.ip("link set lo up")?;
    there.ip(&format!("route add local {CROWD} dev lo"))?;
    let router = start(&lab, &here, arguments)?;
    let mut crowd = Crowd::start(&there, arguments)?;
    let mut results = Results {
        sessions: arguments.sessions,
        hold_seconds: arguments.hold,
        prefixes: 0,
        up_seconds: crowd.ask::<f64>("up")?,
        phases: Vec::new(),
    };
    println!("{} sessions stood after {:.1} s", arguments.sessions, results.up_seconds);
    let mut phase = |name, crowd: &mut Crowd, began: Instant| {
        let lateness = crowd.ask::<Lateness>("lateness")?;
        let megabytes = router.resident_bytes()? as f64 / 1e6;
        println!(
            "{name:12} {:5.1} s: {} keepalives, late by {:.1} ms (half), {:.1} ms (99 of 100), {:.1} ms (all); longest \
             silence {:.0} ms; {} sessions lost; {megabytes:.0} MB",
            began.elapsed().as_secs_f64(),
            lateness.keepalives,
            lateness.p50_ms,
            lateness.p99_ms,
            lateness.max_ms,
            lateness.longest_gap_ms,
            lateness.lost
        );
        results.phases.push(Phase { name, seconds: began.elapsed().as_secs_f64(), lateness, megabytes });
        Ok::<(), anyhow::Error>(())
    };
    let began = Instant::now();
    wait::pass(QUIET)?;
    phase("quiet", &mut crowd, began)?;
    let began = Instant::now();
    let prefixes: usize = crowd.ask("load")?;
    let holds = |wanted: u64| {
        lab.wait("the table", TABLE, || {
            let shown: ShowRoutes = router.show("routes --limit 0 --source bgp")?;
            let held = shown.counts.get("bgp").copied().unwrap_or_default();
            Ok((held == wanted).then_some(()))
        })
    };
    let own = u64::from(arguments.sessions);
    holds(own + prefixes as u64)?;
    phase("table load", &mut crowd, began)?;
    let began = Instant::now();
    wait::pass(QUIET)?;
    phase("with table", &mut crowd, began)?;
    let began = Instant::now();
    crowd.ask::<usize>("withdraw")?;
    holds(own)?;
    phase("withdrawal", &mut crowd, began)?;
    results.prefixes = prefixes;
    router.must_run()?;
    let lost: usize = results.phases.iter().map(|phase| phase.lateness.lost).sum();
    if arguments.record {
        println!("written to {}", Record::new("sessions", results).write()?.display());
    }
    ensure!(lost == 0, "{lost} sessions were lost");
    Ok(())
}

fn start(lab: &Lab, namespace: &Namespace, arguments: &Arguments) -> Result<TortieNode> {
    namespace.forward()?;
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.node("router", Some(format!("{ROUTER}/24").parse()?), None)?;
    // A node's own export policy: nobody is told what others have said, as in Calico.
    let more = format!(
        "bgp: {{ peers: [{{ range: {CROWD}, accept: any, limit: {}, hold_time: {} }}] }}\n",
        arguments.sessions + 1,
        arguments.hold
    );
    let settings = Settings { more, ..Settings::default() };
    let node = TortieNode::configure(lab, namespace, resources.directory(), &settings)?;
    node.start(lab)?;
    Ok(node)
}

/// The process with everybody else.
struct Crowd {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Crowd {
    fn start(namespace: &Namespace, arguments: &Arguments) -> Result<Crowd> {
        let mut command = namespace.command(std::env::current_exe()?);
        command.args(["sessions", "crowd", "--sessions", &arguments.sessions.to_string()]);
        command.args(["--hold", &arguments.hold.to_string(), "--one-in", &arguments.one_in.to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting the crowd")?;
        let input = child.stdin.take().context("its input is a pipe")?;
        let output = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        Ok(Crowd { child, input, output })
    }

    fn ask<Answer: for<'de> Deserialize<'de>>(&mut self, what: &str) -> Result<Answer> {
        writeln!(self.input, "{what}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the crowd said {line:?}"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // It ends with its input; a measurement that failed doesn't wait for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
