//! Stage 0: a pinned core and its loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use afxdp::{FramePool, Sleeper};
use crossbeam_channel::{Receiver, Sender};
use model::{PortId, WorkerId};
use tables::{
    Capturing, Counters, Flows, Inject, PolicyReport, Punt, Reader, RingConsumer, RingProducer, Snapshot,
    Stage, Tracing,
};

use crate::capture::Copies;
use crate::exits::Exits;
use crate::flow_clock::FlowClock;
use crate::handoff::Handoffs;
use crate::policy::Reporter;
use crate::queues::Queues;
use crate::tally::Tally;
use crate::trace::{Answers, Watch};
use crate::walk::walk;
use crate::{Batch, PortQueue, QueueStatistics, receive};

/// Rounds without a packet before a worker that needn't look any longer sleeps.
const IDLE_ROUNDS: u32 = 64;
/// How long a worker looks for the next packet after the last one, before it sleeps. Longer than the gaps of light
/// traffic: waking a core costs more time than all of the walk.
const LOOK_AGAIN_FOR: Duration = Duration::from_millis(1);
/// Rounds between two looks at commands and the clock.
const HOUSEKEEPING_ROUNDS: u32 = 256;
/// Rounds after the order to stop: more than the largest receive ring has batches. Ports that nobody takes from a worker get
/// new frames for ever.
const LAST_ROUNDS: usize = 64;
/// Rows of the flow table that housekeeping looks at: some microseconds, and the whole of the default table within seconds.
const AGED_ROWS: usize = 128;
/// Time between two readings of the kernel's counters.
const STATISTICS_EVERY: Duration = Duration::from_secs(1);

/// How a worker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Which worker it is.
    pub id: WorkerId,
    /// The core it is pinned to, numbered as the kernel does; `None` leaves it to the scheduler.
    pub core: Option<usize>,
    /// What it does while there are no packets.
    pub waiting: Waiting,
    /// Longest sleep of a worker without packets: packets from the slow path may wait this long.
    pub idle_wait: Duration,
}

/// What a worker does while there are no packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waiting {
    /// Looks again at once, for ever: its core is never free.
    Busy,
    /// Sleeps soon: its core is free, and most packets of light traffic find it asleep.
    Interrupt,
    /// Looks again for a while after each packet, then sleeps: awake under light traffic, asleep without any.
    #[default]
    Adaptive,
}

/// A worker's ends of what it shares with the rest.
pub struct WorkerEnds {
    /// Its frames.
    pub pool: FramePool,
    /// The tables.
    pub reader: Reader,
    /// The flows, which all workers share.
    pub flows: Flows,
    /// Where policy's doings are told; the worker counts in its own rows.
    pub policy_report: PolicyReport,
    /// Which packets are followed, and what was found of them.
    pub tracing: Tracing,
    /// Which frames are copied for somebody, and the copies.
    pub capturing: Capturing,
    /// All counters; the worker writes its own row.
    pub counters: Counters,
    /// Copies of packets for the slow path.
    pub punt: RingProducer<Punt>,
    /// Packets from the slow path.
    pub inject: RingConsumer<Inject>,
    /// Rings to and from the other workers.
    pub handoffs: Handoffs,
    /// What ports there are.
    pub commands: Receiver<Command>,
}

/// A change of a worker's queues. Rare; taken between batches.
pub enum Command {
    /// Owns this queue from now on.
    AddQueue {
        /// The port's row in the tables.
        port: PortId,
        /// The queue.
        queue: Box<dyn PortQueue>,
        /// Where the kernel's counters are written once a second.
        statistics: Arc<QueueStatistics>,
    },
    /// Gives up its queue of a port and answers.
    RemoveQueue {
        /// The port.
        port: PortId,
        /// Told when no frame is taken from the queue or given to it any more. The kernel may let go of the socket a
        /// little later. A listener that went away is ignored.
        done: Sender<()>,
    },
    /// Answers when all commands before this one are carried out, and queues that they brought have frames to receive in.
    Confirm {
        /// Told so. A listener that went away is ignored.
        done: Sender<()>,
    },
}

/// One worker: a thread's whole state. Its cache lines are its own, for it is written at every batch.
#[repr(align(128))]
pub struct Worker {
    config: WorkerConfig,
    ends: WorkerEnds,
    queues: Queues,
    batch: Batch,
    tally: Tally,
    watch: Watch,
    flow_clock: FlowClock,
    /// What policy says of packets that are followed.
    answers: Answers,
    copies: Copies,
    /// The last round had no packet.
    was_idle: bool,
    statistics_read: Instant,
    sleeper: Sleeper,
}

/// Starts a worker on a thread of its own, pinned where `config` says so.
///
/// # Errors
/// Where the thread can't be started, or can't be pinned to the core.
pub fn spawn(config: WorkerConfig, ends: WorkerEnds, stop: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
    let (pinned, outcome) = crossbeam_channel::bounded(1);
    let core = config.core;
    let thread = thread::Builder::new().name(format!("worker-{}", config.id.0)).spawn(move || {
        let ok = core.is_none_or(|id| core_affinity::set_for_current(core_affinity::CoreId { id }));
        // The starter waits for this answer, so it is still there.
        let _ = pinned.send(ok);
        if ok {
            Worker::new(config, ends).run(&stop);
        }
    })?;
    match outcome.recv() {
        Ok(true) => Ok(thread),
        _ => Err(io::Error::other(format!("can't pin a worker to core {}", core.unwrap_or_default()))),
    }
}

impl Worker {
    /// A worker without queues; [`Command::AddQueue`] gives it some.
    pub fn new(config: WorkerConfig, ends: WorkerEnds) -> Worker {
        let (tally, watch) = (Tally::new(ends.counters.clone(), config.id), Watch::new(ends.flows.clone()));
        let flow_clock = FlowClock::new(&ends.flows);
        Worker {
            config,
            ends,
            queues: Queues::default(),
            batch: Batch::new(),
            tally,
            watch,
            flow_clock,
            answers: Answers::default(),
            copies: Copies::new(),
            was_idle: true,
            statistics_read: Instant::now(),
            sleeper: Sleeper::default(),
        }
    }

    /// Receives, walks and transmits until `stop` is set, then what its queues hold by then, and closes them.
    pub fn run(&mut self, stop: &AtomicBool) {
        let mut idle = Idle::default();
        let mut rounds = 0u32;
        while !stop.load(Ordering::Relaxed) {
            if rounds.is_multiple_of(HOUSEKEEPING_ROUNDS) {
                self.housekeeping();
            }
            rounds = rounds.wrapping_add(1);
            if self.round() > 0 {
                idle = Idle::default();
            } else if idle.is_over(self.config.waiting) {
                self.sleep();
                self.housekeeping();
                idle.slept = true;
            }
        }
        // Uplinks are the kernel's again by now. What they got before is in these rings and nowhere else, and where a worker
        // had to wait for its core that may be a lot.
        for _ in 0..LAST_ROUNDS {
            if self.round() == 0 {
                break;
            }
        }
        self.queues.read_statistics();
        self.queues.close_all(&mut self.ends.pool);
    }

    /// One batch: refill, receive, walk, transmit, count. Says how many frames it took.
    pub fn round(&mut self) -> usize {
        let Worker {
            config, ends, queues, batch, tally, was_idle, watch, flow_clock, answers, copies, ..
        } = self;
        watch.begin();
        for owned in queues.iter_mut() {
            owned.queue.reap(&mut ends.pool);
            owned.queue.refill(&mut ends.pool);
        }
        if ends.handoffs.from.iter().any(|ring| !ring.is_empty()) {
            receive::handed_over(batch, &mut ends.handoffs.from, &mut ends.pool);
        }
        if !ends.inject.is_empty() {
            receive::injected(batch, &mut ends.inject, &mut ends.pool, tally);
        }
        receive::frames(batch, queues, &mut ends.pool, tally);
        let taken = batch.len();
        let was_idle = std::mem::replace(was_idle, taken == 0);
        watch.stopwatch.lap(Stage::Receive);
        if taken == 0 {
            // What the rounds before left to wait for company goes alone.
            queues.iter_mut().for_each(|owned| owned.queue.wake_now());
            watch.stopwatch.end(0);
            return 0;
        }
        let snapshot = ends.reader.snapshot();
        let worker = config.id.index();
        let follows = ends.tracing.is_on() && watch.follow(batch, flow_clock.now(), config.id, &ends.tracing);
        let capture = ends.capturing.current();
        if let Some(capture) = &capture {
            copies.take(batch, capture);
        }
        let answers = &*answers;
        let reporter = Reporter { report: &ends.policy_report, worker, answers: follows.then_some(answers) };
        walk(batch, &snapshot, (&ends.flows, flow_clock.now()), reporter, watch);
        if follows {
            watch.tell(&snapshot, answers, &ends.tracing);
        }
        if let Some(capture) = &capture {
            copies.hand_on(batch, capture);
        }
        let stopwatch = &mut watch.stopwatch;
        let mut exits = Exits {
            worker,
            queues,
            handoffs: &mut ends.handoffs,
            punt: &mut ends.punt,
            pool: &mut ends.pool,
            tally,
            capture: capture.as_deref(),
        };
        exits.settle(batch, snapshot.state);
        stopwatch.lap(Stage::Exits);
        exits.transmit(batch);
        if was_idle {
            // Packets are few: there is no company to wait for.
            queues.iter_mut().for_each(|owned| owned.queue.wake_now());
        }
        batch.clear();
        stopwatch.lap(Stage::Transmit);
        tally.flush();
        stopwatch.lap(Stage::Exits);
        if let Some(sample) = stopwatch.end(taken) {
            ends.counters.worker(worker).add_stages(&sample);
        }
        taken
    }

    /// Takes commands, looks at the clock, ages some flows, tells the writer that it holds no old tables; now and then reads the kernel's counters.
    pub fn housekeeping(&mut self) {
        self.ends.counters.worker(self.config.id.index()).add_turn();
        while let Ok(command) = self.ends.commands.try_recv() {
            match command {
                Command::AddQueue { port, queue, statistics } => {
                    self.queues.add(port, queue, statistics, &mut self.ends.pool);
                }
                Command::RemoveQueue { port, done } => {
                    self.queues.remove(port, &mut self.ends.pool);
                    // A listener that went away doesn't need the answer.
                    let _ = done.send(());
                }
                Command::Confirm { done } => {
                    self.queues.iter_mut().for_each(|owned| {
                        owned.queue.refill(&mut self.ends.pool);
                    });
                    let _ = done.send(());
                }
            }
        }
        self.queues.poll_closing(&mut self.ends.pool);
        self.ends.reader.quiesce();
        self.flow_clock.read(&self.ends.flows);
        if self.ends.flows.in_use() > 0 {
            let timeouts = self.ends.reader.snapshot().state.nat.timeouts;
            self.ends.flows.age(AGED_ROWS, self.flow_clock.now(), &timeouts);
        }
        if self.statistics_read.elapsed() >= STATISTICS_EVERY {
            self.queues.read_statistics();
            self.statistics_read = Instant::now();
        }
    }

    /// Looks at the tables between batches.
    pub(crate) fn look_at_tables<T>(&mut self, look: impl FnOnce(Snapshot<'_>) -> T) -> T {
        let seen = look(self.ends.reader.snapshot());
        // Whoever only looks now and then holds up nobody.
        self.ends.reader.go_offline();
        seen
    }

    /// One batch that comes by a queue that is there for it alone, and meets these flows. For a worker that has no others.
    pub(crate) fn rehearse(&mut self, port: PortId, queue: Box<dyn PortQueue>, flows: Flows) {
        self.watch.meet(flows.clone());
        self.flow_clock.read(&flows);
        self.ends.flows = flows;
        self.queues.add(port, queue, Arc::default(), &mut self.ends.pool);
        self.round();
        self.queues.remove(port, &mut self.ends.pool);
        self.ends.reader.go_offline();
    }

    /// Times one batch in `one_in` stage by stage, instead of one in 64. For benchmarks, which want them all.
    ///
    /// # Panics
    /// Where `one_in` is zero.
    pub fn sample_stages(&mut self, one_in: u32) {
        assert!(one_in > 0, "one batch in none");
        self.watch.stopwatch.set_one_in(one_in);
    }

    /// Goes by another clock: tests of rates make their own time, and what is counted is the same however long it takes.
    pub fn set_clock(&mut self, clock: quanta::Clock) {
        self.flow_clock.set(clock.clone());
        self.watch.stopwatch.set_clock(clock);
    }

    /// Free frames and all frames of this worker, for audits.
    pub fn frames(&self) -> (usize, usize) {
        (self.ends.pool.available(), self.ends.pool.total())
    }

    /// Sleeps until a frame arrives, at most as long as the configuration says. The tables' writer doesn't wait for
    /// a worker that sleeps.
    fn sleep(&mut self) {
        self.ends.reader.go_offline();
        if self.queues.poll_fds().next().is_none() {
            thread::sleep(self.config.idle_wait);
        } else {
            // Interrupted or failed: the next round looks at the rings anyway.
            let _ = self.sleeper.sleep(self.queues.poll_fds(), self.config.idle_wait);
        }
    }
}

/// Rounds without a packet.
#[derive(Default)]
struct Idle {
    rounds: u32,
    /// When a look at the clock found no packet first.
    since: Option<Instant>,
    /// It has slept since the last packet: what comes late comes rarely, so it doesn't look for long again.
    slept: bool,
}

impl Idle {
    /// Counts a round without a packet. Has it been looking for long enough?
    fn is_over(&mut self, waiting: Waiting) -> bool {
        self.rounds = self.rounds.wrapping_add(1);
        if !self.rounds.is_multiple_of(IDLE_ROUNDS) {
            // Lets a sibling on the same core have the pipeline.
            std::hint::spin_loop();
            return false;
        }
        match waiting {
            Waiting::Busy => false,
            Waiting::Interrupt => true,
            Waiting::Adaptive if self.slept => true,
            Waiting::Adaptive => {
                let now = Instant::now();
                now.duration_since(*self.since.get_or_insert(now)) >= LOOK_AGAIN_FOR
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_worker_never_sleeps_and_the_others_do_after_some_rounds() {
        let slept = |waiting, rounds| {
            let mut idle = Idle::default();
            (0..rounds).any(|_| idle.is_over(waiting))
        };
        assert!(!slept(Waiting::Busy, 10_000));
        assert!(!slept(Waiting::Interrupt, IDLE_ROUNDS - 1));
        assert!(slept(Waiting::Interrupt, IDLE_ROUNDS));
        // How long it looks goes by the clock, which no test waits for.
        assert!(!slept(Waiting::Adaptive, IDLE_ROUNDS));
    }

    #[test]
    fn after_a_sleep_without_a_packet_an_adaptive_worker_looks_shortly() {
        let mut idle = Idle { slept: true, ..Idle::default() };
        let rounds = (1..).find(|_| idle.is_over(Waiting::Adaptive));
        assert_eq!(rounds, Some(IDLE_ROUNDS));
    }
}
