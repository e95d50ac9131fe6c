//! Ports as the fast path sees them, and the workload behind each workload port.

use std::net::IpAddr;
use std::sync::Arc;

use model::{IfIndex, MacAddr, PortId, PortKind, Prefix};

use crate::Qos;

/// The workload behind a workload port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Namespace and name, for people.
    pub name: String,
    /// The addresses that it may send from.
    pub addresses: Vec<Prefix>,
    /// Its limits and its DSCP; `None` where it has neither.
    pub qos: Option<Arc<Qos>>,
}

impl Endpoint {
    /// May this workload send a packet from that address?
    pub fn owns(&self, source: IpAddr) -> bool {
        self.addresses.iter().any(|prefix| prefix.contains(source))
    }
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its row in the table of ports.
    pub id: PortId,
    /// The interface's name.
    pub name: String,
    /// The interface's number in the kernel.
    pub ifindex: IfIndex,
    /// What it leads to.
    pub kind: PortKind,
    /// Frames to this address, and only those, are walked.
    pub mac: MacAddr,
    /// Largest IP packet that may leave, in bytes.
    pub mtu: u16,
    /// Can frames leave?
    pub up: bool,
    /// Queues that workers own: worker *w* has queue *w*, and where there are fewer queues than workers, the frames
    /// of the others cross to worker *w* mod `queues` (ARCHITECTURE.md, D3). At least one.
    pub queues: u16,
    /// The workload behind a workload port; without one, nothing passes (unknown interface: fail closed).
    pub endpoint: Option<Endpoint>,
}

/// The table of ports: row *n* is port *n*.
#[derive(Clone, Debug, Default)]
#[repr(align(128))]
pub struct Ports {
    rows: Vec<Option<Port>>,
    qos_use: QosUse,
}

/// What of QoS any endpoint asks for: what none does costs a walk nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QosUse {
    /// Limits towards a workload.
    pub ingress: bool,
    /// Limits from a workload.
    pub egress: bool,
    /// A DSCP.
    pub dscp: bool,
    /// Limits of connections.
    pub connections: bool,
}

impl Ports {
    /// The port, if the row is taken.
    #[inline]
    pub fn get(&self, id: PortId) -> Option<&Port> {
        self.rows.get(id.index())?.as_ref()
    }

    /// All ports, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Port> {
        self.rows.iter().flatten()
    }

    pub(crate) fn put(&mut self, port: Port) {
        let index = port.id.index();
        if self.rows.len() <= index {
            self.rows.resize(index + 1, None);
        }
        self.rows[index] = Some(port);
        self.sum_up();
    }

    pub(crate) fn remove(&mut self, id: PortId) -> Option<Port> {
        let port = self.rows.get_mut(id.index())?.take();
        self.sum_up();
        port
    }

    /// What of QoS the endpoints ask for, all together.
    #[inline]
    pub fn qos_use(&self) -> QosUse {
        self.qos_use
    }

    fn sum_up(&mut self) {
        let endpoints = self.rows.iter().flatten().filter_map(|port| port.endpoint.as_ref());
        let uses = endpoints.filter_map(|endpoint| endpoint.qos.as_ref()).map(|qos| qos.in_use());
        self.qos_use = uses.fold(QosUse::default(), |sum, qos| QosUse {
            ingress: sum.ingress || qos.ingress,
            egress: sum.egress || qos.egress,
            dscp: sum.dscp || qos.dscp,
            connections: sum.connections || qos.connections,
        });
    }
}
