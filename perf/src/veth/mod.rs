//! AF_XDP between veths: our router beside its peers, same cores, rounds in turn.
//!
//! Each router has links and ends of its own and stands still while another is measured, so that a round takes seconds
//! and all of it meets the machine in the same mood. A shared machine has two of them, one twice as fast as the other:
//! what counts is the ratio to the best peer in the same round, and of those ratios the median.

mod duts;
mod overload;
mod rig;
mod rings;
mod router;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::command;
use perf::data;
use perf::huge_pages::HugePages;
use perf::measure::Readings;
use perf::record::Record;
use serde::Serialize;

use crate::cores;
use duts::{Contender, Router};
use rig::{LOADS, Load, Polled, Rig, Told};

/// Time for a router and the caches to find their stride.
const SETTLE: Duration = Duration::from_millis(300);
/// Packets a second where the time on the way is measured.
const LIGHT: usize = 10_000;

/// Huge pages that DPDK's routers take together.
const DPDK_MEBIBYTES: usize = 2560;

/// What one may ask of `perf veth`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Only these routers: tortie, linux, testpmd, l3fwd, xdp-forward.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// DPDK's l3fwd, built.
    #[arg(long)]
    l3fwd: Option<PathBuf>,
    /// xdp-tools' xdp-forward.
    #[arg(long)]
    xdp_forward: Option<PathBuf>,
    /// Other builds of this program, whose routers are compared with this one's.
    #[arg(long, value_delimiter = ',')]
    other: Vec<PathBuf>,
    /// Flood our router for so many seconds, then see whether it is still whole.
    #[arg(long)]
    overload: Option<u64>,
    /// Check our rings against xsk-rs instead; the program that `perf/peers/veth/xsk-rs` builds.
    #[arg(long)]
    rings: Option<PathBuf>,
    /// Only the time on the way at light load, no floods; with interfaces polled as said.
    #[arg(long, value_name = "POLLED", num_args = 0..=1, default_missing_value = "threads")]
    #[arg(conflicts_with_all = ["overload", "rings"])]
    light: Option<Polled>,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// The router under test is a process of its own.
#[derive(clap::Subcommand)]
enum Part {
    /// Our fast path between d0 and d1; started by the measurement itself.
    #[command(hide = true)]
    Router(router::Arguments),
}

/// One router under one load.
#[derive(Serialize)]
struct Row {
    router: String,
    load: &'static str,
    delivered_millions: Readings,
    offered_millions: Readings,
    routed_share: Readings,
    generator_busy: Readings,
    napi_busy: Readings,
    worker_busy: Readings,
    sink_busy: Readings,
    /// Nanoseconds that a line takes from the core by which packets come to the worker's, and on to the sink's, just before or
    /// just after, whichever is more: some 25 on one core complex, 130 and more between two.
    line_in_ns: Readings,
    line_out_ns: Readings,
}

/// One router's time on the way at light load.
#[derive(Serialize)]
struct Latency {
    router: String,
    p50_us: Readings,
    p99_us: Readings,
    p999_us: Readings,
    lost: Readings,
}

/// All that was measured in one run.
#[derive(Serialize, Default)]
struct Results {
    table: String,
    routes: usize,
    skipped: Vec<String>,
    rates: Vec<Row>,
    latencies: Vec<Latency>,
    /// What our routers told at the end: books, and ticks by stage of one batch in 64.
    told: BTreeMap<String, Told>,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(Part::Router(arguments)) = &arguments.part {
        return router::run(arguments);
    }
    lab::wait::catch_signals()?;
    let cores = std::thread::available_parallelism()?.get();
    if cores < 4 {
        println!("skipped: the rig needs 4 cores, here are {cores}");
        return Ok(());
    }
    if let Some(program) = &arguments.rings {
        return rings::run(program);
    }
    if let Some(seconds) = arguments.overload {
        return overload::run(seconds, arguments.record);
    }
    let (routers, skipped) = routers(arguments)?;
    skipped.iter().for_each(|why| println!("skipped: {why}"));
    let internet = data::internet()?;
    let on_huge_pages = |router: &Router| matches!(router, Router::Testpmd | Router::L3fwd(_));
    let _pages = routers.iter().any(on_huge_pages).then(|| HugePages::reserve(DPDK_MEBIBYTES)).transpose()?;
    let mut contenders = Vec::new();
    for router in routers {
        println!("starting {}", router.name());
        contenders.push(Contender::start(router, &internet.v4, arguments.light.unwrap_or_default())?);
    }
    let mut results =
        Results { table: internet.source, routes: internet.v4.len(), skipped, ..Results::default() };
    for contender in &mut contenders {
        contender.resume()?;
        through(&mut contender.rig).with_context(|| contender.router.name())?;
        contender.pause()?;
    }
    for round in 0..arguments.rounds {
        println!("round {} of {}", round + 1, arguments.rounds);
        for load in LOADS.into_iter().filter(|_| arguments.light.is_none()) {
            for contender in &mut contenders {
                flood(contender, load, arguments, &mut results)?;
            }
        }
        for contender in &mut contenders {
            light(contender, arguments, &mut results)?;
        }
        // Whoever comes after a certain other one shall not always do so.
        contenders.rotate_left(1);
    }
    results.print();
    for contender in contenders.iter_mut().filter(|contender| contender.is_ours()) {
        contender.resume()?;
        let told = contender.finish()?;
        println!("{}: {told:?}", contender.router.name());
        println!("the walk's share of its worker's clocks: {:.1} %", router::walks_share(&told) * 100.0);
        results.told.insert(contender.router.name(), told);
    }
    if arguments.record {
        let name = arguments.light.map_or("veth", Polled::record);
        println!("written to {}", Record::new(name, results).write()?.display());
    }
    Ok(())
}

/// Those that can be run here and were asked for; and why others can't.
fn routers(arguments: &Arguments) -> Result<(Vec<Router>, Vec<String>)> {
    let mut skipped = Vec::new();
    let mut all = vec![Router::Tortie, Router::Linux];
    all.extend(arguments.other.iter().cloned().map(Router::Other));
    match command::output(std::process::Command::new("dpdk-testpmd").arg("--version"), command::SETTING) {
        Ok(_) => all.push(Router::Testpmd),
        Err(_) => skipped.push("testpmd isn't installed (Debian: dpdk-dev)".to_owned()),
    }
    match &arguments.l3fwd {
        Some(path) => all.push(Router::L3fwd(path.clone())),
        None => skipped.push("l3fwd: no --l3fwd PATH".to_owned()),
    }
    match &arguments.xdp_forward {
        Some(path) => all.push(Router::XdpForward(path.clone())),
        None => skipped.push("xdp-forward: no --xdp-forward PATH".to_owned()),
    }
    if !arguments.only.is_empty() {
        let named = |router: &Router| arguments.only.contains(&router.name());
        all.retain(|router| named(router) || matches!(router, Router::Other(_)));
        ensure!(!all.is_empty(), "none of {:?} can be run", arguments.only);
    }
    Ok((all, skipped))
}

/// One router under one load.
fn flood(contender: &mut Contender, load: Load, arguments: &Arguments, results: &mut Results) -> Result<()> {
    ensure!(!lab::wait::interrupted(), "interrupted");
    let time = Duration::from_secs_f64(arguments.seconds);
    let lines = || {
        let ways = [[rig::NAPI_CORE, rig::WORKER_CORE], [rig::WORKER_CORE, rig::SINK_CORE]];
        ways.map(cores::exchange)
    };
    let before = lines();
    contender.resume()?;
    let flooded = contender.rig.flood(load, SETTLE, time, contender.id())?;
    contender.pause()?;
    let after = lines();
    let row = results.row(&contender.router, load.name);
    let [generator, napi, worker, sink] = flooded.busy;
    row.delivered_millions.0.push(flooded.delivered);
    row.offered_millions.0.push(flooded.offered);
    row.routed_share.0.push(flooded.routed);
    row.generator_busy.0.push(generator);
    row.napi_busy.0.push(napi);
    row.worker_busy.0.push(worker);
    row.sink_busy.0.push(sink);
    row.line_in_ns.0.push(before[0].max(after[0]));
    row.line_out_ns.0.push(before[1].max(after[1]));
    Ok(())
}

/// One router with few packets: how long is each on the way?
fn light(contender: &mut Contender, arguments: &Arguments, results: &mut Results) -> Result<()> {
    ensure!(!lab::wait::interrupted(), "interrupted");
    contender.resume()?;
    // What waits in queues is through by then.
    std::thread::sleep(SETTLE);
    let seconds = arguments.seconds.ceil() as u64;
    let seen = contender.rig.paced(LIGHT, seconds)?;
    contender.pause()?;
    let row = results.latency(&contender.router);
    let [p50, p99, p999, _] = seen.one_way.map(|nanoseconds| nanoseconds as f64 / 1e3);
    row.p50_us.0.push(p50);
    row.p99_us.0.push(p99);
    row.p999_us.0.push(p999);
    row.lost.0.push(1.0 - seen.samples as f64 / (LIGHT * seconds as usize) as f64);
    Ok(())
}

/// Waits until a packet comes through.
fn through(rig: &mut Rig) -> Result<()> {
    for _ in 0..30 {
        if rig.paced(100, 1)?.samples > 0 {
            return Ok(());
        }
    }
    bail!("no packet came through within 30 s")
}

/// A line that takes longer goes from one core complex to another.
const SHORT_NS: f64 = 80.0;

impl Row {
    /// The mean rate, and of how many readings, where lines took so long.
    fn where_lines_take(&self, short_in: bool, short_out: bool) -> String {
        let lines = self.line_in_ns.0.iter().zip(&self.line_out_ns.0);
        let such = |(line_in, line_out): (&f64, &f64)| {
            (*line_in < SHORT_NS, *line_out < SHORT_NS) == (short_in, short_out)
        };
        let rates = self.delivered_millions.0.iter().zip(lines).filter(|(_, lines)| such(*lines));
        let rates: Vec<f64> = rates.map(|(rate, _)| *rate).collect();
        if rates.is_empty() {
            return "–".to_owned();
        }
        format!("{:.2} ({})", rates.iter().sum::<f64>() / rates.len() as f64, rates.len())
    }
}

impl Results {
    fn row(&mut self, router: &Router, load: &'static str) -> &mut Row {
        let same = |row: &Row| (&row.router, row.load) == (&router.name(), load);
        let at = self.rates.iter().position(same).unwrap_or_else(|| {
            self.rates.push(Row {
                router: router.name(),
                load,
                delivered_millions: Readings::default(),
                offered_millions: Readings::default(),
                routed_share: Readings::default(),
                generator_busy: Readings::default(),
                napi_busy: Readings::default(),
                worker_busy: Readings::default(),
                sink_busy: Readings::default(),
                line_in_ns: Readings::default(),
                line_out_ns: Readings::default(),
            });
            self.rates.len() - 1
        });
        &mut self.rates[at]
    }

    fn latency(&mut self, router: &Router) -> &mut Latency {
        let same = |row: &Latency| row.router == router.name();
        let at = self.latencies.iter().position(same).unwrap_or_else(|| {
            self.latencies.push(Latency {
                router: router.name(),
                p50_us: Readings::default(),
                p99_us: Readings::default(),
                p999_us: Readings::default(),
                lost: Readings::default(),
            });
            self.latencies.len() - 1
        });
        &mut self.latencies[at]
    }

    fn print(&self) {
        println!();
        println!(
            "router        load                Mpps median (range)      of best peer  offered  busy: gen napi worker sink"
        );
        for load in LOADS {
            let rows = self.rates.iter().filter(|row| row.load == load.name);
            let peers = rows.clone().filter(|row| PEERS.contains(&row.router.as_str()));
            let best =
                peers.max_by(|a, b| a.delivered_millions.median().total_cmp(&b.delivered_millions.median()));
            for row in rows {
                let percent = |readings: &Readings| format!("{:.0}", readings.median() * 100.0);
                println!(
                    "{:13} {:19} {:24} {:12.2} {:8.1}  {:>8} {:>4} {:>6} {:>4}",
                    row.router,
                    row.load,
                    exact(&row.delivered_millions),
                    best.map_or(f64::NAN, |best| paired(&row.delivered_millions, &best.delivered_millions)),
                    row.offered_millions.median(),
                    percent(&row.generator_busy),
                    percent(&row.napi_busy),
                    percent(&row.worker_busy),
                    percent(&row.sink_busy)
                );
            }
        }
        println!();
        println!(
            "Mpps, mean (readings), where a line from NAPI's core to the worker's, and on to the sink's, took"
        );
        println!("router        load                short, short   short, long    long, short    long, long");
        for row in &self.rates {
            let of = |short_in, short_out| format!("{:14}", row.where_lines_take(short_in, short_out));
            let each = [of(true, true), of(true, false), of(false, true), of(false, false)];
            println!("{:13} {:19} {}", row.router, row.load, each.join(" "));
        }
        println!();
        println!("one way at {LIGHT} packets a second, µs: p50, p99, p99.9; lost");
        for row in &self.latencies {
            let lost = row.lost.median() * 100.0;
            println!("{:13} {:24} {:24} {:24} {lost:.2} %", row.router, row.p50_us, row.p99_us, row.p999_us);
        }
    }
}

/// Those whose figures are to be reached; what never leaves the kernel is shown beside them, as the ceiling.
const PEERS: [&str; 3] = ["linux", "testpmd", "l3fwd"];

/// The median of the ratios of each round: the machine as a whole is faster in some rounds than in others.
fn paired(ours: &Readings, theirs: &Readings) -> f64 {
    Readings(ours.0.iter().zip(&theirs.0).map(|(ours, theirs)| ours / theirs).collect()).median()
}

/// Two decimals: differences of a tenth matter here.
fn exact(readings: &Readings) -> String {
    let (low, high) = readings.range();
    format!("{:.2} ({low:.2}–{high:.2})", readings.median())
}
