//! What is asked about: a packet, as far as policy sees it.

use model::Family;

use crate::judge;

/// Addresses, protocol and ports of a packet, in the form that a walk has them in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from; an IPv4 address fills the lowest 32 bits.
    pub source: u128,
    /// Where it goes to, alike.
    pub destination: u128,
    /// The family of both.
    pub family: Family,
    /// IANA's number.
    pub protocol: u8,
    /// What lies above IP.
    pub upper: Upper,
}

/// What of the upper layer's header rules can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// Nothing: protocols without ports, later fragments, headers cut short.
    Nothing,
    /// The ports.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// The kind of an ICMP or ICMPv6 message.
    Icmp {
        /// The type.
        icmp_type: u8,
        /// The code.
        code: u8,
    },
}

impl From<&judge::Packet> for Packet {
    /// A message of ICMP has no ports, whatever the slow judge was told of any.
    fn from(packet: &judge::Packet) -> Packet {
        let upper = match (packet.icmp, packet.ports) {
            (Some((icmp_type, code)), _) if judge::ICMP.contains(&packet.protocol) => {
                Upper::Icmp { icmp_type, code }
            }
            (_, Some((source, destination))) => Upper::Ports { source, destination },
            _ => Upper::Nothing,
        };
        Packet {
            source: number(packet.source),
            destination: number(packet.destination),
            family: Family::of(packet.source),
            protocol: packet.protocol,
            upper,
        }
    }
}

fn number(addr: std::net::IpAddr) -> u128 {
    match addr {
        std::net::IpAddr::V4(addr) => u32::from(addr).into(),
        std::net::IpAddr::V6(addr) => addr.into(),
    }
}

impl From<&Packet> for judge::Packet {
    fn from(packet: &Packet) -> judge::Packet {
        let addr = |number: u128| match packet.family {
            Family::V4 => std::net::IpAddr::V4((number as u32).into()),
            Family::V6 => std::net::IpAddr::V6(number.into()),
        };
        judge::Packet {
            protocol: packet.protocol,
            source: addr(packet.source),
            destination: addr(packet.destination),
            ports: match packet.upper {
                Upper::Ports { source, destination } => Some((source, destination)),
                _ => None,
            },
            icmp: match packet.upper {
                Upper::Icmp { icmp_type, code } => Some((icmp_type, code)),
                _ => None,
            },
        }
    }
}
