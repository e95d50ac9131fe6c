//! Workers beside each other: what a second and a third core add, and what they add to work that shares nothing.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use perf::data;
use perf::measure::{self, Readings};
use perf::record::Record;
use perf::router::Unstarted;
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
    /// Rounds of [`arithmetic`] on the same cores, in billions a second.
    arithmetic: Readings,
    /// The same of them: where these fall short, cores share more than memory.
    arithmetic_of_linear: f64,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    let internet = data::internet()?;
    let (_, make) = WORKS.iter().find(|(name, _)| *name == WORK).context("a work of that name")?;
    let (mut router, replay) = make(&internet, WORKERS)?;
    let workers = (0..WORKERS).map(|number| router.unstarted(number, &replay)).collect::<Result<Vec<_>>>()?;
    let readings = measured(workers, arguments.rounds);
    let of_linear = |of: &Readings, one: &Readings, workers| of.median() / (one.median() * workers as f64);
    let one = readings[0].clone();
    let rows: Vec<Row> = (1..)
        .zip(readings)
        .map(|(workers, (mpps, arithmetic))| Row {
            workers,
            of_linear: of_linear(&mpps, &one.0, workers),
            mpps,
            arithmetic_of_linear: of_linear(&arithmetic, &one.1, workers),
            arithmetic,
        })
        .collect();
    for row in &rows {
        println!(
            "{} workers {:24} Mpps, {:.2} of linear; arithmetic that shares nothing: {:.2} of linear",
            row.workers, row.mpps, row.of_linear, row.arithmetic_of_linear
        );
    }
    if arguments.record {
        println!("written to {}", Record::new("workers", rows).write()?.display());
    }
    Ok(())
}

/// Rounds of one worker, two and so on at the same time, each on a core of its own: how many packets all of them forward,
/// and then how much [`arithmetic`] they do.
fn measured(workers: Vec<Unstarted>, rounds: usize) -> Vec<(Readings, Readings)> {
    let (counts, barrier) = (1..=workers.len(), Barrier::new(workers.len()));
    let (counts, barrier) = (&counts, &barrier);
    // A worker's own readings, in the order in which they are taken; zero where it had to wait.
    let one = |number: usize, worker: Unstarted| {
        measure::pin(Some(number));
        let mut parts = worker.start();
        let mut readings = Vec::new();
        for count in (0..rounds).flat_map(|_| counts.clone()) {
            for work in [
                &mut || (0..64).map(|_| parts.worker.round()).sum(),
                &mut arithmetic as &mut dyn FnMut() -> usize,
            ] {
                barrier.wait();
                readings.push(if number < count { measure::rate(ROUND, work) } else { 0.0 });
            }
        }
        readings
    };
    let each: Vec<Vec<f64>> = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(number, worker)| scope.spawn(move || one(number, worker)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let mut of_counts = vec![(Readings::default(), Readings::default()); each.len()];
    let sum = |at: usize| each.iter().map(|one| one.get(at).copied().unwrap_or(f64::NAN)).sum();
    for round in 0..rounds {
        for (count, (mpps, arithmetics)) in of_counts.iter_mut().enumerate() {
            let at = 2 * (round * each.len() + count);
            mpps.0.push(sum(at));
            arithmetics.0.push(sum(at + 1));
        }
    }
    of_counts
}

/// Work in registers that keeps several of a core's units busy. Says how many rounds it took.
fn arithmetic() -> usize {
    const ROUNDS: usize = 1 << 14;
    let mut lanes: [u64; 8] = std::hint::black_box([1, 2, 3, 4, 5, 6, 7, 8]);
    for _ in 0..ROUNDS {
        for lane in &mut lanes {
            *lane = lane.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7) ^ 0x55;
        }
    }
    std::hint::black_box(lanes);
    ROUNDS
}
