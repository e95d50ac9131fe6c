//! Adjacencies: how to write a frame to one neighbour.

use std::net::IpAddr;

use model::{MacAddr, PortId};
use packet::encapsulation::Template;

/// A row of the table of adjacencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdjacencyId(pub u32);

/// One neighbour on one port, with the Ethernet addresses ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// The port that frames leave by.
    pub port: PortId,
    /// The neighbour.
    pub neighbor: IpAddr,
    /// Destination and source MAC address as they stand in the frame; `None` until the neighbour is resolved.
    pub addresses: Option<[u8; 12]>,
    /// The outer header that packets get, where a tunnel leads to the neighbour.
    pub encapsulation: Option<Template>,
    /// Largest packet in bytes, before any encapsulation, where it is less than the port allows.
    pub mtu: Option<u16>,
}

impl Adjacency {
    /// An adjacency whose neighbour answered with this MAC address.
    pub fn resolved(port: PortId, neighbor: IpAddr, destination: MacAddr, source: MacAddr) -> Adjacency {
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&destination.0);
        addresses[6..].copy_from_slice(&source.0);
        Adjacency { port, neighbor, addresses: Some(addresses), encapsulation: None, mtu: None }
    }

    /// The same neighbour at the far end of a tunnel.
    #[must_use]
    pub fn encapsulated(self, template: Template) -> Adjacency {
        Adjacency { encapsulation: Some(template), ..self }
    }

    /// The same, for packets of at most so many bytes before any encapsulation; `None` leaves it to the port.
    #[must_use]
    pub fn limited(self, mtu: Option<u16>) -> Adjacency {
        Adjacency { mtu, ..self }
    }

    /// An adjacency whose neighbour is still being asked for.
    pub fn unresolved(port: PortId, neighbor: IpAddr) -> Adjacency {
        Adjacency { port, neighbor, addresses: None, encapsulation: None, mtu: None }
    }
}
