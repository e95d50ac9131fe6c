//! Which of an interface's queues become a worker's.

use model::PortKind;
use slowpath::OpenPort;

/// How many queues of a port are opened, and what an operator should know about that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueuePlan {
    /// Queues 0 to this, exclusively.
    pub(crate) queues: usize,
    /// Where it is less than was asked for, or than the interface has.
    pub(crate) notes: Vec<String>,
}

impl QueuePlan {
    /// `interface`: receive queues that it has. `asked`: those asked for of an uplink; the other kinds take what there
    /// is.
    pub(crate) fn new(kind: PortKind, interface: usize, asked: usize, workers: usize) -> QueuePlan {
        let interface = interface.max(1);
        let wanted = if kind == PortKind::Uplink { asked } else { workers };
        let queues = wanted.min(interface).min(workers);
        let mut notes = Vec::new();
        if kind == PortKind::Uplink && interface < wanted {
            notes.push(format!(
                "{wanted} queues were asked for and the interface has {interface}: using {queues} \
                 (more with `ethtool -L`)"
            ));
        }
        if kind == PortKind::Uplink && workers < wanted {
            notes.push(format!(
                "{wanted} queues were asked for and there are {workers} workers: using {queues} (raise workers)"
            ));
        }
        if interface > queues {
            let fate = match kind {
                PortKind::Uplink => "stays with the kernel",
                PortKind::Workload | PortKind::Host => "is dropped",
            };
            notes.push(format!(
                "the interface has {interface} receive queues and only {queues} belong to workers: what arrives on \
                 the others {fate} (raise workers, or lower its queues with `ethtool -L`)"
            ));
        }
        QueuePlan { queues, notes }
    }
}

/// Receive queues in use. A veth has as many as there are cores, and uses one until told otherwise; netlink, and with
/// it the slow path, knows the first number only.
pub(super) fn receive_queues(port: &OpenPort) -> usize {
    let in_use = afxdp::DeviceFeatures::of(port.ifindex.0).map(|features| features.receive_queues);
    in_use.unwrap_or(port.queues) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_with_fewer_queues_than_asked_is_used_and_said() {
        let plan = QueuePlan::new(PortKind::Uplink, 1, 4, 4);
        assert_eq!(plan.queues, 1);
        assert_eq!(plan.notes.len(), 1);
        assert!(plan.notes[0].contains("4 queues were asked for and the interface has 1"), "{plan:?}");
    }

    #[test]
    fn as_many_queues_as_asked_need_no_note() {
        assert_eq!(QueuePlan::new(PortKind::Uplink, 4, 4, 4), QueuePlan { queues: 4, notes: Vec::new() });
        assert_eq!(QueuePlan::new(PortKind::Workload, 1, 4, 4), QueuePlan { queues: 1, notes: Vec::new() });
    }

    #[test]
    fn queues_without_a_worker_are_named_with_what_becomes_of_their_frames() {
        let uplink = QueuePlan::new(PortKind::Uplink, 8, 2, 2);
        assert_eq!(uplink.queues, 2);
        assert!(uplink.notes[0].contains("stays with the kernel"), "{uplink:?}");
        let workload = QueuePlan::new(PortKind::Workload, 2, 1, 1);
        assert_eq!(workload.queues, 1);
        assert!(workload.notes[0].contains("is dropped"), "{workload:?}");
    }

    #[test]
    fn more_queues_than_workers_are_not_promised() {
        let plan = QueuePlan::new(PortKind::Uplink, 4, 4, 1);
        assert_eq!(plan.queues, 1);
        assert!(plan.notes[0].contains("1 workers"), "{plan:?}");
    }

    #[test]
    fn an_interface_that_tells_no_queues_has_one() {
        assert_eq!(QueuePlan::new(PortKind::Host, 0, 1, 1).queues, 1);
    }
}
