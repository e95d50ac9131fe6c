//! Identifiers, each a type of its own so that one can't be passed for another.

use std::fmt;

/// The kernel's number of a network interface, unique within one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub u32);

/// A port: an interface as the fast path sees it. A row number in the port table, reused after removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

impl PortId {
    /// As an index into a table of ports.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A worker: one pinned core of the fast path. Worker *i* owns queue *i* of every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

impl WorkerId {
    /// As an index into a table of workers.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a port leads to, which decides its XDP program and who may send what through it (ARCHITECTURE.md, D1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKind {
    /// Towards other nodes and routers: a NIC of the host. The kernel keeps the host's own traffic.
    Uplink,
    /// Towards one local workload: the host's end of its veth pair. Every frame goes to the walk.
    Workload,
    /// Towards the host's own kernel: the far end of `tortie0` (D1a).
    Host,
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PortKind::Uplink => "uplink",
            PortKind::Workload => "workload",
            PortKind::Host => "host",
        })
    }
}
