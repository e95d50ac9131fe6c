//! Counters: one writer a worker, summed by whoever reads.
//!
//! A worker adds up a batch's books in plain numbers and then stores each sum once; what a port has received and sent is stored
//! as it comes and goes. A reader sees totals that are at most one batch old and never go back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use model::PortId;

use crate::{DropReason, PuntReason, Stage, StageSample};

const PUNTS: usize = PuntReason::ALL.len();
const DROPS: usize = DropReason::ALL.len();
const STAGES: usize = Stage::ALL.len();

/// A counter with one writer: no read-modify-write instruction is needed.
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, count: u64) {
        if count > 0 {
            self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// On a cache line of its own: workers' rows lie next to each other in memory, and each is written twice a batch.
#[derive(Default)]
#[repr(align(64))]
struct PortCounters {
    received_packets: Counter,
    received_bytes: Counter,
    forwarded_packets: Counter,
    forwarded_bytes: Counter,
    dropped_packets: Counter,
}

/// What one worker counts.
pub struct WorkerCounters {
    rounds: Counter,
    received: Counter,
    injected: Counter,
    forwarded: Counter,
    fragmented: Counter,
    fragments: Counter,
    punts: [Counter; PUNTS],
    drops: [Counter; DROPS],
    ports: Box<[PortCounters]>,
    timed_batches: Counter,
    timed_packets: Counter,
    stage_ticks: [Counter; STAGES],
}

/// Packets and bytes of one port in each direction, and the walk's losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCount {
    /// Packets received by the walk.
    pub received_packets: u64,
    /// Bytes received, Ethernet header included, frame check sequence not.
    pub received_bytes: u64,
    /// Packets given to the transmit ring.
    pub forwarded_packets: u64,
    /// Bytes given to the transmit ring.
    pub forwarded_bytes: u64,
    /// Packets received here that the walk dropped.
    pub dropped_packets: u64,
}

/// The books: every packet that entered the walk, and how it ended.
///
/// `received + injected + fragments = forwarded + fragmented + Σ punts + Σ drops` holds whenever no batch is in flight, and within one
/// batch otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    /// Frames taken from receive rings.
    pub received: u64,
    /// Packets that the slow path made, whether routed by the walk or sent as they were.
    pub injected: u64,
    /// Frames given to transmit rings.
    pub forwarded: u64,
    /// Packets that were cut into fragments (`ipFragOKs` of RFC 4293).
    pub fragmented: u64,
    /// Fragments made of them (`ipFragCreates`); what became of each is counted as of any other frame.
    pub fragments: u64,
    /// By [`PuntReason::index`].
    pub punts: [u64; PUNTS],
    /// By [`DropReason::index`].
    pub drops: [u64; DROPS],
}

// Not derived: the standard library has `Default` for arrays of at most 32 rows.
impl Default for Books {
    fn default() -> Books {
        Books {
            received: 0,
            injected: 0,
            forwarded: 0,
            fragmented: 0,
            fragments: 0,
            punts: [0; PUNTS],
            drops: [0; DROPS],
        }
    }
}

impl Books {
    /// Packets punted, for whatever reason.
    pub fn punted(&self) -> u64 {
        self.punts.iter().sum()
    }

    /// Packets dropped, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Does every packet that came in have an end?
    pub fn balance(&self) -> bool {
        self.received + self.injected + self.fragments
            == self.forwarded + self.fragmented + self.punted() + self.dropped()
    }
}

impl WorkerCounters {
    fn new(ports: usize) -> WorkerCounters {
        WorkerCounters {
            rounds: Counter::default(),
            received: Counter::default(),
            injected: Counter::default(),
            forwarded: Counter::default(),
            fragmented: Counter::default(),
            fragments: Counter::default(),
            punts: std::array::from_fn(|_| Counter::default()),
            drops: std::array::from_fn(|_| Counter::default()),
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
            timed_batches: Counter::default(),
            timed_packets: Counter::default(),
            stage_ticks: std::array::from_fn(|_| Counter::default()),
        }
    }

    /// The worker has come round to its housekeeping once more.
    pub fn add_turn(&self) {
        self.rounds.add(1);
    }

    /// How often it has: within milliseconds it is more, unless the worker hangs or has no core.
    pub fn rounds(&self) -> u64 {
        self.rounds.get()
    }

    /// Adds a batch's books.
    pub fn add(&self, batch: &Books) {
        self.add_passed(batch);
        self.punts.iter().zip(batch.punts).for_each(|(counter, count)| counter.add(count));
        self.drops.iter().zip(batch.drops).for_each(|(counter, count)| counter.add(count));
    }

    /// [`add`](Self::add) of a batch of which nothing was punted or dropped: there are many reasons not to be looked at.
    #[inline]
    pub fn add_passed(&self, batch: &Books) {
        self.received.add(batch.received);
        self.injected.add(batch.injected);
        self.forwarded.add(batch.forwarded);
        self.fragmented.add(batch.fragmented);
        self.fragments.add(batch.fragments);
    }

    /// Adds a batch that was timed.
    pub fn add_stages(&self, sample: &StageSample) {
        self.timed_batches.add(sample.batches);
        self.timed_packets.add(sample.packets);
        self.stage_ticks.iter().zip(sample.ticks).for_each(|(counter, ticks)| counter.add(ticks));
    }

    /// What was timed of this worker's batches.
    pub fn stages(&self) -> StageSample {
        StageSample {
            batches: self.timed_batches.get(),
            packets: self.timed_packets.get(),
            ticks: self.stage_ticks.each_ref().map(Counter::get),
        }
    }

    /// Adds what came by a port.
    #[inline]
    pub fn add_received(&self, port: PortId, packets: u64, bytes: u64) {
        if let Some(counters) = self.ports.get(port.index()) {
            counters.received_packets.add(packets);
            counters.received_bytes.add(bytes);
        }
    }

    /// Adds what a port's transmit ring took.
    #[inline]
    pub fn add_forwarded(&self, port: PortId, packets: u64, bytes: u64) {
        if let Some(counters) = self.ports.get(port.index()) {
            counters.forwarded_packets.add(packets);
            counters.forwarded_bytes.add(bytes);
        }
    }

    /// Adds packets that came by a port and were dropped.
    #[inline]
    pub fn add_dropped(&self, port: PortId, packets: u64) {
        if let Some(counters) = self.ports.get(port.index()) {
            counters.dropped_packets.add(packets);
        }
    }
}

/// The counters of all workers.
#[derive(Clone)]
pub struct Counters {
    workers: Arc<[CachePadded<WorkerCounters>]>,
}

impl Counters {
    /// Counters for this many workers and ports.
    pub fn new(workers: usize, ports: usize) -> Counters {
        Counters { workers: (0..workers).map(|_| CachePadded::new(WorkerCounters::new(ports))).collect() }
    }

    /// One worker's own counters.
    ///
    /// # Panics
    /// Where there is no such worker.
    pub fn worker(&self, index: usize) -> &WorkerCounters {
        &self.workers[index]
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The books of all workers.
    pub fn books(&self) -> Books {
        let mut sum = Books::default();
        for worker in self.workers.iter() {
            // Ends before beginnings, so that a batch between the two reads shows as in flight, not as invented.
            for (total, counter) in sum.drops.iter_mut().zip(&worker.drops) {
                *total += counter.get();
            }
            for (total, counter) in sum.punts.iter_mut().zip(&worker.punts) {
                *total += counter.get();
            }
            sum.forwarded += worker.forwarded.get();
            sum.fragmented += worker.fragmented.get();
            sum.fragments += worker.fragments.get();
            sum.injected += worker.injected.get();
            sum.received += worker.received.get();
        }
        sum
    }

    /// One port's counts, summed over workers.
    pub fn port(&self, port: PortId) -> PortCount {
        let mut sum = PortCount::default();
        for counters in self.workers.iter().filter_map(|worker| worker.ports.get(port.index())) {
            sum.received_packets += counters.received_packets.get();
            sum.received_bytes += counters.received_bytes.get();
            sum.forwarded_packets += counters.forwarded_packets.get();
            sum.forwarded_bytes += counters.forwarded_bytes.get();
            sum.dropped_packets += counters.dropped_packets.get();
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_are_summed_over_workers_and_balance() {
        let counters = Counters::new(2, 4);
        let mut batch = Books { received: 3, forwarded: 1, ..Books::default() };
        batch.punts[PuntReason::Arp.index()] = 1;
        batch.drops[DropReason::Blackhole.index()] = 1;
        counters.worker(0).add(&batch);
        counters.worker(1).add(&batch);
        let books = counters.books();
        assert_eq!((books.received, books.forwarded, books.punted(), books.dropped()), (6, 2, 2, 2));
        assert!(books.balance());
    }

    #[test]
    fn a_lost_packet_unbalances_the_books() {
        assert!(!Books { received: 1, ..Books::default() }.balance());
    }

    #[test]
    fn a_port_beyond_the_table_is_ignored() {
        let counters = Counters::new(1, 1);
        counters.worker(0).add_received(PortId(7), 1, 64);
        assert_eq!(counters.port(PortId(7)), PortCount::default());
    }
}
