//! Half the maximal rate, while routes change and counters are read: what is lost.
//!
//! In memory: packets become due by the clock and wait in a ring as long as a NIC's; those that find it full are lost. The
//! same without changes, in turn, tells what the machine itself costs: a worker that loses its core for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use afxdp::{Closing, Frame, FramePool};
use anyhow::{Context, Result};
use fastpath::{PortQueue, QueueStatistics};
use model::Prefix;
use perf::data;
use perf::keys::Numbers;
use perf::measure::{self, Readings};
use perf::record::Record;
use perf::replay_port::ReplayPort;
use perf::router::Address;
use perf::works::WORKS;
use serde::Serialize;

/// What the worker does.
const WORK: &str = "ipv4 full table zipf";
/// Packets that wait for the worker at most, as in a NIC's ring.
const RING: u64 = 4096;
/// Changes between two reclaims, as the slow path makes them in portions.
const PORTION: usize = 100;

/// What one may ask of `perf loss`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds with changes, and as many without.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of each round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Table changes a second.
    #[arg(long, default_value_t = 100_000)]
    changes: u64,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

#[derive(Clone, Default, Serialize)]
struct Outcome {
    offered_mpps: f64,
    packets: u64,
    lost: u64,
    changes_a_second: Readings,
}

#[derive(Serialize)]
struct Outcomes {
    maximal_mpps: f64,
    undisturbed: Outcome,
    disturbed: Outcome,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    let internet = data::internet()?;
    let (_, make) = WORKS.iter().find(|(name, _)| *name == WORK).context("a work of that name")?;
    let (mut router, replay) = make(&internet, 2)?;
    let pace = Arc::new(Pace::default());
    let port =
        PacedPort { inner: ReplayPort::new(replay.clone(), 512, 0), pace: Arc::clone(&pace), began: None };
    let mut paced = router.worker_with(0, Box::new(port))?;
    let maximal = {
        let mut free = router.worker(1, &replay)?;
        measure::pin(None);
        measure::rate(Duration::from_secs(2), || (0..64).map(|_| free.worker.round()).sum())
    };
    pace.packets_a_second.store((maximal * 1e6 / 2.0) as u64, Ordering::Relaxed);
    let mut outcomes = Outcomes {
        maximal_mpps: maximal,
        undisturbed: Outcome { offered_mpps: maximal / 2.0, ..Outcome::default() },
        disturbed: Outcome { offered_mpps: maximal / 2.0, ..Outcome::default() },
    };
    let counters = router.counters.clone();
    for round in 0..arguments.rounds * 2 {
        let disturbed = round % 2 == 1;
        let stop = AtomicBool::new(false);
        let (before, lost_before) = (counters.books(), pace.lost.load(Ordering::Relaxed));
        let changes = thread::scope(|scope| -> Result<f64> {
            let worker = scope.spawn(|| {
                measure::pin(None);
                paced.worker.sample_stages(u32::MAX);
                while !stop.load(Ordering::Relaxed) {
                    paced.worker.round();
                }
            });
            let scraper = disturbed.then(|| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::black_box(counters.books());
                        thread::sleep(Duration::from_millis(100));
                    }
                })
            });
            let start = Instant::now();
            let mut made = 0u64;
            let mut numbers = Numbers::new(round as u64);
            while start.elapsed() < Duration::from_secs(arguments.seconds) {
                let due = (start.elapsed().as_secs_f64() * arguments.changes as f64) as u64;
                if !disturbed || made >= due {
                    thread::sleep(Duration::from_micros(200));
                    continue;
                }
                for _ in 0..PORTION {
                    let (addr, len) = internet.v4[numbers.below(internet.v4.len())];
                    let prefix = Prefix::new(addr.ip(), len).context("a prefix of a table is one")?;
                    let group = router.groups[numbers.below(router.groups.len())];
                    router.writer.insert_route(prefix, group)?;
                    made += 1;
                }
                router.writer.reclaim();
            }
            let rate = made as f64 / start.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            let ended = worker.join().is_ok() && scraper.is_none_or(|scraper| scraper.join().is_ok());
            anyhow::ensure!(ended, "a thread of the measurement panicked");
            Ok(rate)
        })?;
        let outcome = if disturbed { &mut outcomes.disturbed } else { &mut outcomes.undisturbed };
        outcome.packets += counters.books().received - before.received;
        outcome.lost += pace.lost.load(Ordering::Relaxed) - lost_before;
        outcome.changes_a_second.0.push(changes);
        pace.round.fetch_add(1, Ordering::Relaxed);
    }
    print(&outcomes);
    if arguments.record {
        println!("written to {}", Record::new("loss", outcomes).write()?.display());
    }
    Ok(())
}

fn print(outcomes: &Outcomes) {
    println!("at most {:.1} Mpps", outcomes.maximal_mpps);
    for (name, outcome) in [("undisturbed", &outcomes.undisturbed), ("disturbed", &outcomes.disturbed)] {
        println!(
            "{name:12} {:.1} Mpps offered, {} changes a second: {} packets, {} lost",
            outcome.offered_mpps, outcome.changes_a_second, outcome.packets, outcome.lost
        );
    }
}

/// How fast packets become due, and what was lost.
#[derive(Default)]
struct Pace {
    packets_a_second: AtomicU64,
    /// Grows between rounds: the clock begins anew.
    round: AtomicU64,
    lost: AtomicU64,
}

/// A port whose packets come by the clock.
struct PacedPort {
    inner: ReplayPort,
    pace: Arc<Pace>,
    /// The round, when it began, and the packets taken or lost since.
    began: Option<(u64, Instant, u64)>,
}

impl PortQueue for PacedPort {
    fn refill(&mut self, pool: &mut FramePool) {
        self.inner.refill(pool);
    }

    fn receive(&mut self, frames: &mut Vec<Frame>, max: usize) -> usize {
        let round = self.pace.round.load(Ordering::Relaxed);
        let (_, start, gone) = match &mut self.began {
            Some(began) if began.0 == round => began,
            began => began.insert((round, Instant::now(), 0)),
        };
        let rate = self.pace.packets_a_second.load(Ordering::Relaxed);
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        let waiting = due.saturating_sub(*gone);
        let lost = waiting.saturating_sub(RING);
        self.pace.lost.fetch_add(lost, Ordering::Relaxed);
        let taken = self.inner.receive(frames, max.min((waiting - lost) as usize));
        *gone += lost + taken as u64;
        taken
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.inner.transmit(frames)
    }

    fn reap(&mut self, pool: &mut FramePool) {
        self.inner.reap(pool);
    }

    fn wake(&mut self) {}

    fn poll_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }

    fn read_statistics(&self, _: &QueueStatistics) {}

    fn close(self: Box<Self>, pool: &mut FramePool) -> Option<Closing> {
        Box::new(self.inner).close(pool)
    }
}
