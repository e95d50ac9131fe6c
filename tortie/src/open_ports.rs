//! The ports that are open now, with what is needed to count them: the one place that both who opens ports and who
//! shows them look at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastpath::QueueStatistics;
use model::PortId;
use tables::PortCount;

/// One open port.
#[derive(Clone, Debug)]
pub(crate) struct OpenedPort {
    /// The interface's name.
    pub(crate) name: String,
    /// What the port's row of counters stood at when it was opened: rows are taken again after a removal, and a new
    /// port starts at zero.
    pub(crate) counted_before: PortCount,
    /// Each queue's number and the kernel's counters of it.
    pub(crate) queues: Vec<(u32, Arc<QueueStatistics>)>,
}

/// All open ports, by number. Cheap to clone; never held across a wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenPorts(Arc<Mutex<BTreeMap<PortId, OpenedPort>>>);

impl OpenPorts {
    pub(crate) fn insert(&self, port: PortId, opened: OpenedPort) {
        self.rows().insert(port, opened);
    }

    pub(crate) fn remove(&self, port: PortId) -> Option<OpenedPort> {
        self.rows().remove(&port)
    }

    /// All of them as they are now.
    pub(crate) fn list(&self) -> Vec<(PortId, OpenedPort)> {
        self.rows().iter().map(|(port, opened)| (*port, opened.clone())).collect()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<PortId, OpenedPort>> {
        // The map is whole between any two calls, whatever a panicking holder did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was counted since `before`.
pub(crate) fn since(now: &PortCount, before: &PortCount) -> PortCount {
    PortCount {
        received_packets: now.received_packets.saturating_sub(before.received_packets),
        received_bytes: now.received_bytes.saturating_sub(before.received_bytes),
        forwarded_packets: now.forwarded_packets.saturating_sub(before.forwarded_packets),
        forwarded_bytes: now.forwarded_bytes.saturating_sub(before.forwarded_bytes),
        dropped_packets: now.dropped_packets.saturating_sub(before.dropped_packets),
    }
}
