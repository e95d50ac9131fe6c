//! What the slow path asks of whoever opens ports: `tortie`, which knows AF_XDP and the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use model::{IfIndex, PortId, PortKind};
use serde::{Deserialize, Serialize};

use crate::privileges::raised;

/// A port to be opened: sockets bound, XDP program attached, queues given to the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPort {
    /// The row that the tables give it.
    pub port: PortId,
    /// What it leads to.
    pub kind: PortKind,
    /// The interface's name.
    pub name: String,
    /// The interface's number.
    pub ifindex: IfIndex,
    /// Receive queues that the interface has.
    pub queues: u32,
}

/// What one queue of a port really got, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// The interface's queue.
    pub queue: u32,
    /// The worker that owns it.
    pub worker: u16,
    /// `zero-copy` or `copy`.
    pub mode: String,
    /// `native` or `generic` XDP.
    pub attach: String,
    /// Largest IP packet that can be received, in bytes; frames beyond it are lost before the walk.
    #[serde(default)]
    pub receivable: u32,
    /// Everything else that was asked for and given or refused, in words.
    pub notes: String,
}

/// Why a port can't be opened: a sentence for the operator, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenPortError(pub String);

/// Why the kernel doesn't receive a frame: a sentence for the operator, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotDelivered(pub String);

/// What of the traffic to the node's own addresses is the walk's nevertheless: tunnels that end here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelTraffic {
    /// IPIP (protocol 4).
    pub ipip: bool,
    /// UDP destination ports of VXLAN, over IPv4 and IPv6.
    pub vxlan_ports: BTreeSet<u16>,
}

/// Opens and closes ports. `tortie` implements it over AF_XDP; tests over nothing.
pub trait PortOpener: Send {
    /// Opens a port; frames reach the walk when this returns, those of an uplink once forwarding is open, too.
    fn open(&mut self, port: &OpenPort) -> Result<Vec<QueueReport>, OpenPortError>;

    /// Forwarding is open: from now on the frames of uplinks reach the walk, which would have dropped them before. The
    /// kernel has forwarded them until now, by the routes that the run before this one left it.
    fn forwarding_opens(&mut self);

    /// The router is about to end: frames of uplinks that arrive from now on are the kernel's.
    fn forwarding_closes(&mut self);

    /// Closes a port. Its XDP program goes too where the interface still exists.
    fn close(&mut self, port: PortId);

    /// Packets to these addresses stay with the kernel on every uplink, those opened later included (D1). Multicast groups
    /// are among them where tunnels end there; what else goes to many stays with the kernel in any case.
    fn set_local(&mut self, addresses: &BTreeSet<IpAddr>);

    /// These tunnels to those addresses come to the walk on every uplink, those opened later included; until told,
    /// none do. A tunnel that stays is never without its entry while others come and go.
    ///
    /// What comes to the walk is decided there: have the tables know a tunnel's end before it is named here, and forget
    /// it after, or its packets are dropped that the kernel might have served.
    fn set_tunnels(&mut self, tunnels: &TunnelTraffic);

    /// These ports of those addresses are translated flows': what comes to them, pieces of datagrams, and ICMP but for echo
    /// requests come to the walk on every uplink, those opened later included.
    fn set_translated(&mut self, ports: &BTreeMap<IpAddr, RangeInclusive<u16>>);

    /// Has the kernel receive a frame that came in by this port, as if it had come to it in the first place.
    ///
    /// # Errors
    /// See [`NotDelivered`].
    fn deliver(&mut self, port: PortId, frame: &[u8]) -> Result<(), NotDelivered>;
}

/// Opens ports with what the event loop is permitted and has laid aside.
pub(crate) struct Raised(pub(crate) Box<dyn PortOpener>);

impl PortOpener for Raised {
    fn open(&mut self, port: &OpenPort) -> Result<Vec<QueueReport>, OpenPortError> {
        raised(|| self.0.open(port))
    }

    fn forwarding_opens(&mut self) {
        raised(|| self.0.forwarding_opens());
    }

    fn forwarding_closes(&mut self) {
        raised(|| self.0.forwarding_closes());
    }

    fn close(&mut self, port: PortId) {
        raised(|| self.0.close(port));
    }

    fn set_local(&mut self, addresses: &BTreeSet<IpAddr>) {
        raised(|| self.0.set_local(addresses));
    }

    fn set_tunnels(&mut self, tunnels: &TunnelTraffic) {
        raised(|| self.0.set_tunnels(tunnels));
    }

    fn set_translated(&mut self, ports: &BTreeMap<IpAddr, RangeInclusive<u16>>) {
        raised(|| self.0.set_translated(ports));
    }

    fn deliver(&mut self, port: PortId, frame: &[u8]) -> Result<(), NotDelivered> {
        raised(|| self.0.deliver(port, frame))
    }
}
