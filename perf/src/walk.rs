//! The walk in memory, one core: cycles a packet, stage by stage.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastpath::Worker;
use perf::data;
use perf::measure::{self, Readings};
use perf::record::Record;
use perf::router::{Parts, Router};
use perf::works::WORKS;
use quanta::Clock;
use serde::Serialize;
use tables::{Stage, StageSample};

const ROUND: Duration = Duration::from_millis(300);

/// What one may ask of `perf walk`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The core to run on; the last one, unless said.
    #[arg(long)]
    core: Option<usize>,
    /// Only the works whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// One kind of work.
struct Work {
    name: &'static str,
    router: Router,
    parts: Parts,
    mpps: Readings,
    stages: Vec<StageSample>,
}

/// As recorded.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    mpps: Readings,
    ticks_a_packet: f64,
    ticks_outside_receive_and_transmit: f64,
    stages: Vec<(&'static str, f64)>,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    measure::pin(arguments.core);
    let internet = data::internet()?;
    println!("{} IPv4 and {} IPv6 prefixes, {}", internet.v4.len(), internet.v6.len(), internet.source);
    let mut works = Vec::new();
    for (name, make) in WORKS {
        if arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str())) {
            let (mut router, replay) = make(&internet, 1)?;
            let parts = router.worker(0, &replay)?;
            works.push(Work { name, router, parts, mpps: Readings::default(), stages: Vec::new() });
        }
    }
    for _ in 0..arguments.rounds {
        for work in &mut works {
            work.round()?;
        }
    }
    let rows: Vec<Row> = works.iter().map(Work::row).collect();
    print(&rows);
    if arguments.record {
        println!("written to {}", Record::new("walk", rows).write()?.display());
    }
    Ok(())
}

impl Work {
    fn round(&mut self) -> Result<()> {
        let (worker, counters) = (&mut self.parts.worker, &self.router.counters);
        worker.sample_stages(u32::MAX);
        let before = counters.books();
        self.mpps.0.push(measure::rate(ROUND, || forward(worker)));
        let after = counters.books();
        ensure!(
            after.received - before.received == after.forwarded - before.forwarded,
            "{}: every packet is forwarded, but {after:?}",
            self.name
        );
        worker.sample_stages(1);
        let stages_before = counters.worker(0).stages();
        measure::rate(ROUND / 3, || forward(worker));
        self.stages.push(difference(&counters.worker(0).stages(), &stages_before));
        Ok(())
    }

    fn row(&self) -> Row {
        let ticks_a_second = ticks_a_second();
        let of =
            |sample: &StageSample, stage: Stage| sample.ticks[stage.index()] as f64 / sample.packets as f64;
        let each = |stage| Readings(self.stages.iter().map(|sample| of(sample, stage)).collect()).median();
        let outside =
            Stage::ALL.into_iter().filter(|stage| !matches!(stage, Stage::Receive | Stage::Transmit));
        Row {
            name: self.name,
            mpps: self.mpps.clone(),
            ticks_a_packet: ticks_a_second / self.mpps.median() / 1e6,
            ticks_outside_receive_and_transmit: outside.map(each).sum(),
            stages: Stage::ALL.map(|stage| (stage.as_str(), each(stage))).into(),
        }
    }
}

/// Some rounds; how many packets they took.
fn forward(worker: &mut Worker) -> usize {
    (0..64).map(|_| worker.round()).sum()
}

fn difference(after: &StageSample, before: &StageSample) -> StageSample {
    StageSample {
        batches: after.batches - before.batches,
        packets: after.packets - before.packets,
        ticks: std::array::from_fn(|stage| after.ticks[stage] - before.ticks[stage]),
    }
}

/// How fast the time-stamp counter runs.
fn ticks_a_second() -> f64 {
    let clock = Clock::new();
    let (start, raw) = (Instant::now(), clock.raw());
    std::thread::sleep(Duration::from_millis(50));
    (clock.raw() - raw) as f64 / start.elapsed().as_secs_f64()
}

fn print(rows: &[Row]) {
    println!("{:26} {:>22} {:>7} {:>8}  clocks a packet in each stage", "", "Mpps", "clocks", "walk");
    for row in rows {
        let stages: Vec<String> =
            row.stages.iter().map(|(name, ticks)| format!("{name} {ticks:.1}")).collect();
        println!(
            "{:26} {:>22} {:>7.1} {:>8.1}  {}",
            row.name,
            row.mpps.to_string(),
            row.ticks_a_packet,
            row.ticks_outside_receive_and_transmit,
            stages.join(" ")
        );
    }
}
