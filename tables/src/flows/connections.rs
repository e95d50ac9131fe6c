//! How many connections each port's endpoint has at the moment, of those that were counted: Calico's limits of them
//! (`ingressMaxConnections`, `egressMaxConnections`).
//!
//! A connection is counted before its flow is added, and again off when the flow is removed, for whatever reason.

use std::sync::atomic::{AtomicU32, Ordering};

use model::PortId;

use super::verdict::Between;

/// A port number has 16 bits.
const PORTS: usize = 1 << 16;

/// One count for each port and direction.
pub(super) struct Connections {
    egress: Box<[AtomicU32]>,
    ingress: Box<[AtomicU32]>,
}

impl Connections {
    pub(super) const BYTES: usize = 2 * PORTS * size_of::<AtomicU32>();

    pub(super) fn new() -> Connections {
        let zeros = || (0..PORTS).map(|_| AtomicU32::new(0)).collect();
        Connections { egress: zeros(), ingress: zeros() }
    }

    /// The same counts, apart.
    pub(super) fn copied(&self) -> Connections {
        let copy = |counts: &[AtomicU32]| {
            counts.iter().map(|count| AtomicU32::new(count.load(Ordering::Relaxed))).collect()
        };
        Connections { egress: copy(&self.egress), ingress: copy(&self.ingress) }
    }

    /// Counts one more connection from a port's endpoint, unless there are `limit` already.
    pub(super) fn take_egress(&self, port: PortId, limit: u64) -> bool {
        take(&self.egress[port.index()], limit)
    }

    /// Counts one more connection to a port's endpoint, unless there are `limit` already.
    pub(super) fn take_ingress(&self, port: PortId, limit: u64) -> bool {
        take(&self.ingress[port.index()], limit)
    }

    /// Counts one connection off.
    pub(super) fn give_back(&self, counted: Between) {
        if let Some(port) = counted.egress {
            self.egress[port.index()].fetch_sub(1, Ordering::AcqRel);
        }
        if let Some(port) = counted.ingress {
            self.ingress[port.index()].fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// How many a port's endpoint has: from it, and to it.
    pub(super) fn of(&self, port: PortId) -> (u32, u32) {
        let count = |counts: &[AtomicU32]| counts[port.index()].load(Ordering::Relaxed);
        (count(&self.egress), count(&self.ingress))
    }
}

fn take(count: &AtomicU32, limit: u64) -> bool {
    let more = |count: u32| (u64::from(count) < limit).then(|| count.saturating_add(1));
    count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::{Beginning, Flow, FlowTimeouts, Flows, Ticks};
    use model::Family;
    use packet::{FlowKey, protocol};

    const NOW: Ticks = Ticks(1000);
    const PORT: PortId = PortId(5);

    fn key(n: u16) -> FlowKey {
        FlowKey { src: 1, dst: 2, sport: n, dport: 80, protocol: protocol::TCP, family: Family::V4 }
    }

    fn add(flows: &Flows, n: u16) -> Flow {
        flows.add(&key(n), &key(n).reversed(), NOW, &FlowTimeouts::default()).unwrap()
    }

    /// Adds a connection from the port's endpoint, if there may be one more.
    fn connect(flows: &Flows, n: u16, limit: u64) -> bool {
        let counted = Between { egress: Some(PORT), ingress: None };
        let may = flows.count_egress(PORT, limit);
        if may {
            flows.begin(&add(flows, n), &Beginning { counted, ..Beginning::default() });
        }
        may
    }

    #[test]
    fn a_connection_counts_until_its_flow_is_gone_for_whatever_reason() {
        let flows = Flows::new(4);
        assert!((0..2).all(|n| connect(&flows, n, 2)) && !connect(&flows, 2, 2));
        let first = flows.look_up(&key(0), NOW, &FlowTimeouts::default()).unwrap();
        flows.forget(&first);
        assert_eq!(flows.connections_of(PORT), (1, 0));
        flows.forget(&first);
        assert_eq!(flows.connections_of(PORT), (1, 0), "it is forgotten once");
        // Evicted by others, which aren't counted.
        for n in 10..20 {
            add(&flows, n);
        }
        assert_eq!(flows.connections_of(PORT), (0, 0));
        assert!(connect(&flows, 30, 1));
        assert_eq!(flows.end(0..4, |original, _| original.sport == 30), 1);
        assert!(connect(&flows, 31, 1));
        flows.age(4, Ticks(NOW.0 + 8 * 3600), &FlowTimeouts::default());
        assert_eq!((flows.connections_of(PORT), flows.counts().in_use), ((0, 0), 0));
    }

    #[test]
    fn a_flow_that_went_before_it_began_is_counted_off() {
        let flows = Flows::new(1);
        let flow = add(&flows, 1);
        let other = add(&flows, 2);
        let counted = Between { egress: None, ingress: Some(PORT) };
        for late in [flow, other] {
            assert!(flows.count_ingress(PORT, 10));
            flows.begin(&late, &Beginning { counted, ..Beginning::default() });
        }
        assert_eq!(flows.connections_of(PORT), (0, 1), "the one whose row it is by now");
        flows.forget(&other);
        assert_eq!(flows.connections_of(PORT), (0, 0));
    }

    /// Many threads begin and end flows in a table that is too small for them: no count is lost or left over.
    #[test]
    fn counts_come_back_to_nothing_whoever_evicts_whom() {
        let flows = Flows::new(16);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let flows = &flows;
                scope.spawn(move || {
                    (0..5_000).for_each(|n| {
                        connect(flows, thread * 5_000 + n, 8);
                    })
                });
            }
        });
        assert!(flows.connections_of(PORT).0 <= 8);
        flows.end(0..16, |_, _| true);
        assert_eq!((flows.connections_of(PORT), flows.counts().in_use), ((0, 0), 0));
    }

    #[test]
    fn no_more_are_taken_than_the_limit_however_many_try() {
        let connections = Connections::new();
        let tries = || (0..1_000).filter(|_| connections.take_ingress(PortId(3), 1_500)).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(tries)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, connections.of(PortId(3))), (1_500, (0, 1_500)));
        connections.give_back(Between { egress: None, ingress: Some(PortId(3)) });
        assert!(connections.take_ingress(PortId(3), 1_500) && !connections.take_ingress(PortId(3), 1_500));
        assert!(connections.take_egress(PortId(3), 1), "the other direction has its own");
    }
}
