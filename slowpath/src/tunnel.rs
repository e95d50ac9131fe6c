//! Tunnels that start here: what a route says of the outer header of its packets.

use std::net::IpAddr;

use model::MacAddr;
use packet::encapsulation::Template;

/// A tunnel to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// The outer source: this node's address.
    pub local: IpAddr,
    /// The outer destination: the other node's address.
    pub remote: IpAddr,
    /// What is between the outer IP header and the packet.
    pub encapsulation: Encapsulation,
    /// Largest inner packet in bytes, where the operator has set it; what the way there allows holds in any case.
    pub mtu: Option<u16>,
    /// What this node itself sends from into the tunnel; `None` where it has no address for that.
    pub source: Option<IpAddr>,
}

/// What a tunnel wraps packets in, within the outer IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encapsulation {
    /// IPv4 in IPv4 (RFC 2003).
    Ipip,
    /// Ethernet in UDP (RFC 7348).
    Vxlan {
        /// The UDP port that packets go to.
        port: u16,
        /// The network identifier.
        vni: u32,
        /// The other node's VTEP: the inner destination.
        destination: MacAddr,
        /// This node's VTEP: the inner source.
        own: MacAddr,
    },
}

impl Tunnel {
    /// The outer header, ready to be written; `None` where the ends are of different families, or of one that this kind
    /// of tunnel doesn't do.
    pub fn template(&self) -> Option<Template> {
        match (self.encapsulation, self.local, self.remote) {
            (Encapsulation::Ipip, IpAddr::V4(local), IpAddr::V4(remote)) => {
                Some(Template::ipip(local, remote))
            }
            (Encapsulation::Vxlan { port, vni, destination, own }, IpAddr::V4(local), IpAddr::V4(remote)) => {
                Some(Template::vxlan(local, remote, port, vni, destination, own))
            }
            (Encapsulation::Vxlan { port, vni, destination, own }, IpAddr::V6(local), IpAddr::V6(remote)) => {
                Some(Template::vxlan_v6(local, remote, port, vni, destination, own))
            }
            _ => None,
        }
    }
}
