//! Half the maximal rate, while routes change and counters are read: what is lost.
//!
//! In memory: packets become due by the clock and wait in a ring as long as a NIC's; those that find it full are lost. The
//! same without changes, in turn, tells what the machine itself costs: a worker that loses its core for a moment. Such
//! moments are counted, for the worker and for a thread beside it that does nothing but look at the clock.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use afxdp::{Closing, Frame, FramePool};
use anyhow::{Context, Result};
use fastpath::{PortQueue, QueueStatistics};
use lab::disturbance::waited_of;
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
/// A round of 64 packets takes a microsecond; where one takes this long, the core was elsewhere.
const PAUSE: Duration = Duration::from_micros(20);
/// The ring is empty again so long after a pause at the latest, for it is emptied twice as fast as it fills: later losses aren't
/// the pause's.
const BEHIND: Duration = Duration::from_millis(1);
/// The core of whoever changes routes and reads counters. The worker's is the last one.
const WRITER_CORE: usize = 0;
/// The core of the thread that only looks at the clock.
const IDLE_CORE: usize = 1;
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
    /// Of those, the ones that found the ring full from a pause on until it was empty again, or [`BEHIND`] was over.
    lost_in_pauses: u64,
    /// Of the worker's core.
    pauses: Pauses,
    /// How long the worker waited while its core did something else that this machine's kernel knows of. What is missing to the
    /// pauses was taken by others on the same hardware.
    waited_us: u64,
    /// Of the core beside it, where a thread only looked at the clock.
    idle_pauses: Pauses,
    changes_a_second: Readings,
}

/// Moments in which a core did something else for longer than [`PAUSE`].
#[derive(Clone, Copy, Default, Serialize)]
struct Pauses {
    count: u64,
    longest_us: u64,
    total_us: u64,
}

impl Pauses {
    fn add(&mut self, pause: Duration) {
        let us = pause.as_micros() as u64;
        self.count += 1;
        self.longest_us = self.longest_us.max(us);
        self.total_us += us;
    }

    fn merge(&mut self, other: Pauses) {
        self.count += other.count;
        self.longest_us = self.longest_us.max(other.longest_us);
        self.total_us += other.total_us;
    }
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
        let before = counters.books();
        let (changes, waited, idle_pauses) = thread::scope(|scope| -> Result<(f64, Duration, Pauses)> {
            let worker = scope.spawn(|| -> Result<Duration> {
                measure::pin(None);
                paced.worker.sample_stages(u32::MAX);
                let before = waited()?;
                while !stop.load(Ordering::Relaxed) {
                    paced.worker.round();
                }
                Ok(waited()?.saturating_sub(before))
            });
            let idle = scope.spawn(|| look_at_the_clock(&stop));
            // Not beside the worker, where the first measurement left this thread.
            measure::pin(Some(WRITER_CORE));
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
            let waited = worker.join().ok().filter(|_| scraper.is_none_or(|scraper| scraper.join().is_ok()));
            let threads = waited.zip(idle.join().ok()).context("a thread of the measurement panicked")?;
            Ok((rate, threads.0?, threads.1))
        })?;
        let outcome = if disturbed { &mut outcomes.disturbed } else { &mut outcomes.undisturbed };
        outcome.packets += counters.books().received - before.received;
        let losses = std::mem::take(&mut *pace.losses.lock().unwrap_or_else(PoisonError::into_inner));
        outcome.lost += losses.lost;
        outcome.lost_in_pauses += losses.lost_in_pauses;
        outcome.pauses.merge(losses.pauses);
        outcome.waited_us += waited.as_micros() as u64;
        outcome.idle_pauses.merge(idle_pauses);
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
            "{name:12} {:.1} Mpps offered, {} changes a second: {} packets, {} lost, {} of them in pauses of the core",
            outcome.offered_mpps,
            outcome.changes_a_second,
            outcome.packets,
            outcome.lost,
            outcome.lost_in_pauses
        );
        let waited = format!(", {} µs of it with other threads of this kernel", outcome.waited_us);
        for (whose, pauses, waited) in
            [("the worker's core", outcome.pauses, &*waited), ("an idle core", outcome.idle_pauses, "")]
        {
            println!(
                "             {whose} was elsewhere {} times for more than {PAUSE:?}: {} µs in all{waited}, {} µs at most",
                pauses.count, pauses.total_us, pauses.longest_us
            );
        }
    }
}

/// How long this thread has waited while another one had its core.
fn waited() -> Result<Duration> {
    const SCHEDSTAT: &str = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(SCHEDSTAT).with_context(|| format!("reading {SCHEDSTAT}"))?;
    waited_of(&text).with_context(|| format!("{SCHEDSTAT} doesn't tell who waits"))
}

/// What a core that has nothing to do is kept from.
fn look_at_the_clock(stop: &AtomicBool) -> Pauses {
    measure::pin(Some(IDLE_CORE));
    let mut pauses = Pauses::default();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let pause = now - last;
        if pause > PAUSE {
            pauses.add(pause);
        }
        last = now;
    }
    pauses
}

/// What a paced port has lost, and why.
#[derive(Default)]
struct Losses {
    lost: u64,
    lost_in_pauses: u64,
    pauses: Pauses,
}

/// How fast packets become due, and what was lost.
#[derive(Default)]
struct Pace {
    packets_a_second: AtomicU64,
    /// Grows between rounds: the clock begins anew.
    round: AtomicU64,
    losses: Mutex<Losses>,
}

impl Pace {
    #[cold]
    fn note(&self, lost: u64, pause: Duration, is_behind: bool) {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.lost += lost;
        if is_behind {
            losses.lost_in_pauses += lost;
        }
        if pause > PAUSE {
            losses.pauses.add(pause);
        }
    }
}

/// A port whose packets come by the clock.
struct PacedPort {
    inner: ReplayPort,
    pace: Arc<Pace>,
    /// Since when, and what for.
    began: Option<Began>,
}

/// A round of the measurement, as the port knows it.
struct Began {
    round: u64,
    at: Instant,
    /// When the worker looked last, counted from the beginning.
    looked: Duration,
    /// Until then a pause explains what is lost, unless the ring is empty sooner.
    behind_until: Duration,
    /// Packets taken or lost since.
    gone: u64,
}

impl PortQueue for PacedPort {
    fn refill(&mut self, pool: &mut FramePool) {
        self.inner.refill(pool);
    }

    fn receive(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>, max: usize) -> usize {
        let round = self.pace.round.load(Ordering::Relaxed);
        let began = match &mut self.began {
            Some(began) if began.round == round => began,
            began => began.insert(Began {
                round,
                at: Instant::now(),
                looked: Duration::ZERO,
                behind_until: Duration::ZERO,
                gone: 0,
            }),
        };
        let rate = self.pace.packets_a_second.load(Ordering::Relaxed);
        let now = began.at.elapsed();
        let pause = now - std::mem::replace(&mut began.looked, now);
        let due = (now.as_secs_f64() * rate as f64) as u64;
        let waiting = due.saturating_sub(began.gone);
        let lost = waiting.saturating_sub(RING);
        if pause > PAUSE {
            began.behind_until = now + BEHIND;
        } else if waiting <= max as u64 {
            began.behind_until = now;
        }
        if lost > 0 || pause > PAUSE {
            self.pace.note(lost, pause, now < began.behind_until);
        }
        let taken = self.inner.receive(pool, frames, max.min((waiting - lost) as usize));
        began.gone += lost + taken as u64;
        taken
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.inner.transmit(frames)
    }

    fn transmit_room(&mut self, wanted: usize) -> usize {
        self.inner.transmit_room(wanted)
    }

    fn transmit_slots(&self) -> usize {
        self.inner.transmit_slots()
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
