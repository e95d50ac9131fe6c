//! Workers beside each other: what a second and a third core add.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use perf::data;
use perf::measure::{self, Readings};
use perf::record::Record;
use perf::works::WORKS;
use serde::Serialize;

/// What each worker does.
const WORK: &str = "ipv4 full table zipf";
const WORKERS: usize = 3;
const ROUND: Duration = Duration::from_millis(500);

/// What one may ask of `perf workers`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// So many workers.
#[derive(Serialize)]
struct Row {
    workers: usize,
    mpps: Readings,
    /// Of what one worker does, times their number.
    of_linear: f64,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    let internet = data::internet()?;
    let (_, make) = WORKS.iter().find(|(name, _)| *name == WORK).context("a work of that name")?;
    let (mut router, replay) = make(&internet, WORKERS)?;
    let mut parts = (0..WORKERS).map(|number| router.worker(number, &replay)).collect::<Result<Vec<_>>>()?;
    let mut readings = vec![Readings::default(); WORKERS];
    for _ in 0..arguments.rounds {
        for (count, readings) in (1..).zip(&mut readings) {
            let together = Barrier::new(count);
            let rates: Vec<f64> = thread::scope(|scope| {
                let one = |(core, parts): (usize, &mut perf::router::Parts)| {
                    measure::pin(Some(core));
                    together.wait();
                    measure::rate(ROUND, || (0..64).map(|_| parts.worker.round()).sum())
                };
                let threads: Vec<_> = parts
                    .iter_mut()
                    .take(count)
                    .enumerate()
                    .map(|each| scope.spawn(move || one(each)))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap_or(f64::NAN)).collect()
            });
            readings.0.push(rates.iter().sum());
        }
    }
    let one = readings[0].median();
    let rows: Vec<Row> = (1..)
        .zip(readings)
        .map(|(workers, mpps)| Row { workers, of_linear: mpps.median() / (one * workers as f64), mpps })
        .collect();
    for row in &rows {
        println!("{} workers {:24} Mpps, {:.2} of linear", row.workers, row.mpps, row.of_linear);
    }
    if arguments.record {
        println!("written to {}", Record::new("workers", rows).write()?.display());
    }
    Ok(())
}
