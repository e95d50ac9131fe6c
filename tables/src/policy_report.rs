//! What policy does, told to the slow path: how often each rule decided at each port, and which packets it denied or was to
//! log.
//!
//! Counted and told once a judgement: of a flow's first packet, and of every packet that is denied. Packets of known flows
//! are not counted here; Calico's iptables dataplane counts the same. A worker counts in rows of its own; events of all
//! workers share one bounded queue, and what finds it full is counted as lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use model::PortId;
use policy::compile::{Packet, RuleId};

/// Rows that a rule's count is looked for in, from the one that its number hashes to.
const PROBES: usize = 8;

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyAct {
    /// It met a rule with action Log.
    Logged,
    /// It was dropped.
    Denied,
    /// It was let pass, and staged policy would have dropped it.
    WouldBeDenied,
}

/// A packet that somebody may want to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyEvent {
    /// What happened.
    pub act: PolicyAct,
    /// By which rule.
    pub rule: RuleId,
    /// At which workload's port.
    pub port: PortId,
    /// Towards the workload?
    pub is_ingress: bool,
    /// The packet as policy saw it.
    pub packet: Packet,
}

/// What a rule's judgement was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Judged {
    /// It held.
    Enforced,
    /// Staged policy's; enforcing it would have changed nothing.
    Staged,
    /// Staged policy's: it would have denied what passed.
    WouldBeDenied,
}

/// Whose judgements are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decided {
    /// The rule.
    pub rule: RuleId,
    /// At which workload's port.
    pub port: PortId,
    /// Towards the workload?
    pub is_ingress: bool,
    /// What for.
    pub judged: Judged,
}

impl Decided {
    /// In one word, which is never 0: 32 bits of the rule, 16 of the port, one of the direction, two of what for.
    fn number(self) -> u64 {
        let judged = match self.judged {
            Judged::Enforced => 1,
            Judged::Staged => 2,
            Judged::WouldBeDenied => 3,
        };
        u64::from(self.rule.0) << 19 | u64::from(self.port.0) << 3 | u64::from(self.is_ingress) << 2 | judged
    }

    /// What [`Self::number`] made a word of; `None` of 0.
    fn of(number: u64) -> Option<Decided> {
        let judged = match number & 3 {
            1 => Judged::Enforced,
            2 => Judged::Staged,
            3 => Judged::WouldBeDenied,
            _ => return None,
        };
        let (rule, port) = (RuleId((number >> 19) as u32), PortId((number >> 3) as u16));
        Some(Decided { rule, port, is_ingress: number & 4 != 0, judged })
    }
}

/// Packets and bytes that a rule has decided on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// Packets.
    pub packets: u64,
    /// Bytes, with Ethernet headers.
    pub bytes: u64,
}

/// One row of one worker: [`Decided::number`] of what it counts, or 0 where it is free. The counts only ever rise, whoever
/// has the row.
#[derive(Default)]
struct Row {
    decided: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
}

struct Report {
    workers: Box<[CachePadded<Box<[Row]>>]>,
    /// Judgements by rules that found no row.
    uncounted: AtomicU64,
    events: ArrayQueue<PolicyEvent>,
    lost: AtomicU64,
}

/// A handle of the one report. Cheap to clone.
#[derive(Clone)]
pub struct PolicyReport(Arc<Report>);

impl PolicyReport {
    /// For so many workers, each with rows for so many rules, and so many events that may wait.
    ///
    /// # Panics
    /// Where no event may wait, or a worker has no row.
    pub fn new(workers: usize, rules: usize, events: usize) -> PolicyReport {
        assert!(rules > 0, "rows for no rule");
        let rows = || (0..rules.next_power_of_two()).map(|_| Row::default()).collect();
        PolicyReport(Arc::new(Report {
            workers: (0..workers).map(|_| CachePadded::new(rows())).collect(),
            uncounted: AtomicU64::new(0),
            events: ArrayQueue::new(events),
            lost: AtomicU64::new(0),
        }))
    }

    /// Bytes of a report of this size.
    pub fn bytes(workers: usize, rules: usize, events: usize) -> usize {
        workers * rules.next_power_of_two() * size_of::<Row>() + events * (size_of::<PolicyEvent>() + 8)
    }

    /// Counts a packet of so many bytes for a rule, in a worker's own rows.
    pub fn count(&self, worker: usize, decided: Decided, bytes: usize) {
        let Some(rows) = self.0.workers.get(worker) else { return };
        let number = decided.number();
        // Fibonacci hashing: the rules of one program follow on each other.
        let start = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        for probe in 0..PROBES {
            let row = &rows[(start + probe) & (rows.len() - 1)];
            match row.decided.load(Ordering::Relaxed) {
                0 => row.decided.store(number, Ordering::Release),
                taken if taken == number => {}
                _ => continue,
            }
            // Nobody else writes here, so no read-modify-write instruction is needed.
            let add =
                |sum: &AtomicU64, by: u64| sum.store(sum.load(Ordering::Relaxed) + by, Ordering::Relaxed);
            add(&row.packets, 1);
            add(&row.bytes, bytes as u64);
            return;
        }
        self.0.uncounted.fetch_add(1, Ordering::Relaxed);
    }

    /// How many rows there are, of all workers.
    pub fn rows(&self) -> usize {
        self.0.workers.iter().map(|rows| rows.len()).sum()
    }

    /// The rows that count something, by number. What a row has counted in all is also what it counted for others, before.
    pub fn counts(&self) -> impl Iterator<Item = (usize, Decided, RuleCount)> {
        let rows = self.0.workers.iter().flat_map(|rows| rows.iter()).enumerate();
        rows.filter_map(|(number, row)| {
            let decided = Decided::of(row.decided.load(Ordering::Acquire))?;
            let (packets, bytes) = (&row.packets, &row.bytes);
            let [packets, bytes] = [packets, bytes].map(|sum| sum.load(Ordering::Relaxed));
            Some((number, decided, RuleCount { packets, bytes }))
        })
    }

    /// Gives a row to others that need one; its counts stay. For what isn't asked any more: a packet that a worker counts
    /// there meanwhile becomes the next one's.
    pub fn forget(&self, row: usize, decided: Decided) {
        let each = self.0.workers.first().map_or(1, |rows| rows.len());
        if let Some(row) = self.0.workers.get(row / each).and_then(|rows| rows.get(row % each)) {
            let _ = row.decided.compare_exchange(decided.number(), 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Judgements that were not counted, as there were too many rules.
    pub fn uncounted(&self) -> u64 {
        self.0.uncounted.load(Ordering::Relaxed)
    }

    /// Tells of a packet, unless too many events wait.
    pub fn tell(&self, event: PolicyEvent) {
        if self.0.events.push(event).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The oldest event that waits.
    pub fn next_event(&self) -> Option<PolicyEvent> {
        self.0.events.pop()
    }

    /// Events that found the queue full.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Family;
    use policy::compile::Upper;
    use std::collections::BTreeMap;

    fn by(rule: u32) -> Decided {
        Decided { rule: RuleId(rule), port: PortId(1), is_ingress: true, judged: Judged::Enforced }
    }

    fn sums(report: &PolicyReport) -> BTreeMap<u32, (u64, u64)> {
        let mut sums = BTreeMap::new();
        for (_, decided, RuleCount { packets, bytes }) in report.counts() {
            let sum: &mut (u64, u64) = sums.entry(decided.rule.0).or_default();
            (sum.0, sum.1) = (sum.0 + packets, sum.1 + bytes);
        }
        sums
    }

    #[test]
    fn every_rule_has_its_count_and_a_worker_beyond_the_last_none() {
        let report = PolicyReport::new(2, 64, 1);
        for (worker, rule, bytes) in [(0, 0, 60), (1, 0, 40), (0, 5, 100), (0, u32::MAX - 1, 1), (2, 7, 1)] {
            report.count(worker, by(rule), bytes);
        }
        let expected = [(0, (2, 100)), (5, (1, 100)), (u32::MAX - 1, (1, 1))];
        assert_eq!(sums(&report), BTreeMap::from(expected));
        assert_eq!(report.uncounted(), 0);
    }

    #[test]
    fn ports_directions_and_staged_rules_are_counted_apart() {
        let report = PolicyReport::new(1, 64, 1);
        let all = [Judged::Enforced, Judged::Staged, Judged::WouldBeDenied]
            .map(|judged| Decided { judged, ..by(u32::MAX) });
        let others = [
            Decided { port: PortId(u16::MAX), ..by(u32::MAX) },
            Decided { port: PortId(0), ..by(0) },
            Decided { is_ingress: false, ..by(0) },
        ];
        let all: Vec<_> = all.into_iter().chain(others).collect();
        all.iter().for_each(|decided| report.count(0, *decided, 60));
        let mut counted: Vec<_> =
            report.counts().map(|(_, decided, count)| (decided, count.packets)).collect();
        counted.sort_unstable();
        let mut expected: Vec<_> = all.into_iter().map(|decided| (decided, 1)).collect();
        expected.sort_unstable();
        assert_eq!(counted, expected);
    }

    #[test]
    fn a_row_that_is_forgotten_goes_to_another_rule_and_its_count_goes_on() {
        let report = PolicyReport::new(1, 1, 1);
        report.count(0, by(1), 60);
        report.count(0, by(2), 60);
        assert_eq!(report.uncounted(), 1, "the only row is taken");
        report.forget(0, by(2));
        assert_eq!(sums(&report), BTreeMap::from([(1, (1, 60))]), "it isn't this rule's");
        report.forget(0, by(1));
        report.count(0, by(2), 40);
        assert_eq!(sums(&report), BTreeMap::from([(2, (2, 100))]));
    }

    #[test]
    fn what_finds_no_row_is_counted_as_such_and_nothing_is_lost_in_all() {
        let report = PolicyReport::new(1, 16, 1);
        (0..1_000).for_each(|rule| report.count(0, by(rule), 60));
        let counted: u64 = sums(&report).values().map(|(packets, _)| packets).sum();
        assert!((1..=16).contains(&counted), "{counted}");
        assert_eq!(counted + report.uncounted(), 1_000);
    }

    #[test]
    fn events_beyond_the_queue_are_lost_and_counted() {
        let report = PolicyReport::new(1, 1, 2);
        let event = |port| PolicyEvent {
            act: PolicyAct::Denied,
            rule: RuleId(1),
            port: PortId(port),
            is_ingress: true,
            packet: Packet {
                source: 1,
                destination: 2,
                family: Family::V4,
                protocol: 6,
                upper: Upper::Ports { source: 3, destination: 4 },
            },
        };
        (0..5).for_each(|port| report.tell(event(port)));
        assert_eq!((report.next_event(), report.next_event()), (Some(event(0)), Some(event(1))));
        assert_eq!((report.next_event(), report.lost()), (None, 3));
    }
}
