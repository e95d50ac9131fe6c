//! What comes down: packets that the slow path makes.

use model::PortId;

/// How an injected packet is treated; the bytes that go with it begin with an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inject {
    /// Sent as it is through the port: ARP and neighbour discovery.
    Transmit(PortId),
    /// Routed like a packet from the host: ICMP errors. The Ethernet addresses are written by the walk.
    Walk,
    /// Routed likewise, but belongs to no flow and is translated nowhere: sent in the name of somebody who was asked, as
    /// who asked knows it.
    WalkAsIs,
}
