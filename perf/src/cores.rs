//! How long a cache line takes from one core to another, and whether that stays so.
//!
//! Says of the machine what its own tables don't: cores of a virtual machine may lie on several core complexes, each with a
//! third-level cache of its own, and be moved among them. What workers share, and what they find in that cache, goes with it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_utils::CachePadded;
use perf::measure::{self, Readings};
use perf::record::Record;
use serde::Serialize;

/// Times that a line goes there and back in one reading.
const EXCHANGES: u32 = 50_000;
/// Between two rounds, so that they tell of seconds and not of a moment.
const BETWEEN: Duration = Duration::from_millis(500);
/// Cores beyond these aren't asked.
const CORES_MAX: usize = 8;

/// What one may ask of `perf cores`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds, each of them every two cores once.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// Two cores.
#[derive(Serialize)]
struct Pair {
    cores: [usize; 2],
    /// One way, a reading a round.
    nanoseconds: Readings,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(CORES_MAX);
    if cores < 2 {
        println!("skipped: a line goes between two cores, and there is one");
        return Ok(());
    }
    let pair = |one, other| Pair { cores: [one, other], nanoseconds: Readings::default() };
    let mut pairs: Vec<Pair> =
        (0..cores).flat_map(|one| (one + 1..cores).map(move |other| pair(one, other))).collect();
    for _ in 0..arguments.rounds.max(1) {
        for pair in &mut pairs {
            pair.nanoseconds.0.push(exchange(pair.cores));
        }
        thread::sleep(BETWEEN);
    }
    for Pair { cores: [one, other], nanoseconds } in &pairs {
        println!("cores {one} and {other}: a line takes {nanoseconds} ns one way");
    }
    if arguments.record {
        println!("written to {}", Record::new("cores", pairs).write()?.display());
    }
    Ok(())
}

/// Nanoseconds that a line takes from one of two cores to the other.
pub fn exchange(cores: [usize; 2]) -> f64 {
    let turn = CachePadded::new(AtomicU32::new(0));
    let wait_for = |number| {
        while turn.load(Ordering::Acquire) != number {
            std::hint::spin_loop();
        }
    };
    let elapsed = thread::scope(|scope| {
        scope.spawn(|| {
            measure::pin(Some(cores[1]));
            for number in (0..=2 * EXCHANGES).step_by(2) {
                wait_for(number + 1);
                turn.store(number + 2, Ordering::Release);
            }
        });
        let there = scope.spawn(|| {
            measure::pin(Some(cores[0]));
            let mut start = Instant::now();
            for number in (0..=2 * EXCHANGES).step_by(2) {
                turn.store(number + 1, Ordering::Release);
                wait_for(number + 2);
                if number == 0 {
                    // Both are there from now on.
                    start = Instant::now();
                }
            }
            start.elapsed()
        });
        there.join().unwrap_or_default()
    });
    elapsed.as_nanos() as f64 / f64::from(2 * EXCHANGES)
}
