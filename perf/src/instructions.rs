//! Instructions a packet, counted by callgrind: the same on every machine, however busy it is, so they may gate.
//!
//! `perf instructions` runs itself under valgrind, once a kind of work, with collection switched on inside [`rounds`] only,
//! once every packet has passed once: what is remembered of known flows is remembered by then. What comes out is held against `perf/records/instructions.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fastpath::Worker;
use perf::data;
use perf::works::{self, WORKS};
use quanta::{Clock, Mock};

/// Packets that are counted.
const PACKETS: usize = 64 * 256;
/// What a batch takes, by the worker's clock.
const ROUND: Duration = Duration::from_micros(4);
/// The table that is loaded has one prefix in so many: under valgrind, a full one would take minutes.
const ONE_PREFIX_IN: usize = 20;
/// Per cent that a count may be off before it is a regression: what another compiler or another table may do.
const TOLERANCE: f64 = 5.0;

/// What one may ask of `perf instructions`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Fail where a count is more than five per cent above the recorded one.
    #[arg(long)]
    check: bool,
    /// Write the counts into perf/records/instructions.json.
    #[arg(long)]
    record: bool,
}

/// What one may ask of `perf count`, which runs inside valgrind.
#[derive(clap::Args)]
pub struct CountArguments {
    /// The kind of work.
    work: String,
}

/// Forwards [`PACKETS`] packets and says nothing: callgrind does.
pub fn count(arguments: &CountArguments) -> Result<()> {
    let internet = data::made_up(ONE_PREFIX_IN);
    let make = WORKS.iter().find(|(name, _)| *name == arguments.work);
    let (_, make) = make.with_context(|| format!("no work called {:?}", arguments.work))?;
    let (mut router, replay) = make(&internet, 1)?;
    let mut parts = router.worker(0, &replay)?;
    // By the clock on the wall, what is noted once a second would be noted as often as this machine is slow.
    let (clock, time) = Clock::mock();
    parts.worker.set_clock(clock);
    let mut before = 0;
    while before < works::PACKETS {
        before += parts.worker.round();
        time.increment(ROUND);
    }
    rounds(&mut parts.worker, &time);
    let books = router.counters.books();
    ensure!(books.forwarded == books.received, "every packet is forwarded: {books:?}");
    Ok(())
}

/// What is counted.
#[inline(never)]
fn rounds(worker: &mut Worker, time: &Mock) {
    let mut packets = 0;
    while packets < PACKETS {
        packets += worker.round();
        time.increment(ROUND);
    }
}

/// Counts every kind of work, prints, and compares or records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    let recorded = read()?;
    let mut counted = BTreeMap::new();
    let mut worse = Vec::new();
    println!("{:26} {:>12} {:>10}", "instructions a packet", "counted", "recorded");
    for (name, _) in WORKS {
        let count = under_callgrind(name)?;
        let before = recorded.get(name).copied();
        let shown = before.map_or("-".to_owned(), |before| format!("{before:.1}"));
        println!("{name:26} {count:>12.1} {shown:>10}");
        if before.is_some_and(|before| count > before * (1.0 + TOLERANCE / 100.0)) {
            worse.push(name);
        }
        counted.insert(name.to_owned(), (count * 10.0).round() / 10.0);
    }
    if arguments.record {
        fs::write(path(), serde_json::to_string_pretty(&counted)? + "\n")?;
    }
    if arguments.check && !worse.is_empty() {
        bail!(
            "more than {TOLERANCE} % above the record: {}; make it cheaper, or say why in a commit that runs \
             `perf instructions --record`",
            worse.join(", ")
        );
    }
    Ok(())
}

/// Instructions a packet of one kind of work.
fn under_callgrind(work: &str) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*instructions*rounds*"])
        .arg("--callgrind-out-file=/dev/null")
        .arg(std::env::current_exe()?)
        .args(["count", work])
        .output()
        .context("starting valgrind (Debian package valgrind)")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{work}: {} said: {text}", output.status);
    let line = text.lines().find_map(|line| line.split("Collected : ").nth(1));
    let collected: f64 = line.context("callgrind says what it collected")?.trim().parse()?;
    ensure!(collected > 0.0, "{work}: callgrind saw no round of a worker");
    Ok(collected / PACKETS as f64)
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("records/instructions.json")
}

fn read() -> Result<BTreeMap<String, f64>> {
    match fs::read(path()) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path().display())),
        Err(_) => Ok(BTreeMap::new()),
    }
}
