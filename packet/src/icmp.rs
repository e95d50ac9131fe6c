//! ICMP for IPv4 (RFC 792) and IPv6 (RFC 4443): a view of both, echoes, and the errors that a router sends.
//!
//! The errors are in `icmp/error.rs`; whether one may be sent at all is in `icmp/answer.rs`.

use std::net::Ipv6Addr;

use crate::{Kind, Malformed, NoSpace, checksum, protocol, room_for, u16_at, u32_at};

mod answer;
mod error;

pub use answer::may_answer;
pub use error::{NotBuilt, Problem, build_error};

/// Type, code, checksum and four bytes whose meaning depends on the type: 8 bytes.
pub const HEADER_LEN: usize = 8;

/// ICMPv4 message types (RFC 792).
pub mod v4 {
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (deprecated by RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Asks for an echo.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Is a message of this type about another packet gone wrong (RFC 1812 §4.3.1)?
    pub const fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }
}

/// ICMPv6 message types (RFC 4443, RFC 4861).
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Asks for an echo.
    pub const ECHO_REQUEST: u8 = 128;
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 129;
    /// Asks for routers: the first of neighbor discovery's messages.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Redirect: the last of them.
    pub const REDIRECT: u8 = 137;

    /// Is a message of this type about another packet gone wrong? The highest bit tells (RFC 4443 §2.1).
    pub const fn is_error(kind: u8) -> bool {
        kind < 128
    }

    /// Is a message of this type neighbor discovery, which never leaves the link (RFC 4861)?
    pub const fn is_neighbor_discovery(kind: u8) -> bool {
        matches!(kind, ROUTER_SOLICITATION..=REDIRECT)
    }
}

/// Is a message of this type an echo request or reply, in the ICMP of this family?
pub const fn is_echo(family: Kind, kind: u8) -> bool {
    match family {
        Kind::Ipv4 => matches!(kind, v4::ECHO_REQUEST | v4::ECHO_REPLY),
        Kind::Ipv6 => matches!(kind, v6::ECHO_REQUEST | v6::ECHO_REPLY),
        Kind::Arp | Kind::Other => false,
    }
}

/// A checked view of an ICMP message of either family. The checksum is not among the checks: see
/// [`checksum::verify_l4`].
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// # Errors
    /// [`Malformed::L4Truncated`] below 8 bytes.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let (header, payload) = bytes.split_first_chunk().ok_or(Malformed::L4Truncated)?;
        Ok(Packet { header, payload })
    }

    /// Message type: see [`v4`] and [`v6`].
    pub fn kind(&self) -> u8 {
        self.header[0]
    }

    /// What more precisely; its meaning depends on the type.
    pub fn code(&self) -> u8 {
        self.header[1]
    }

    /// Checksum as received.
    pub fn checksum(&self) -> u16 {
        u16_at(self.header, 2)
    }

    /// An echo's identifier.
    pub fn ident(&self) -> u16 {
        u16_at(self.header, 4)
    }

    /// An echo's sequence number.
    pub fn seq(&self) -> u16 {
        u16_at(self.header, 6)
    }

    /// The next hop's MTU in ICMPv4 "fragmentation needed" (RFC 1191 §4).
    pub fn next_hop_mtu(&self) -> u16 {
        u16_at(self.header, 6)
    }

    /// The next hop's MTU in ICMPv6 "packet too big" (RFC 4443 §3.2).
    pub fn mtu(&self) -> u32 {
        u32_at(self.header, 4)
    }

    /// All after the header: an echo's data, or the packet that an error quotes.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// An echo request or reply as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// A reply, else a request.
    pub reply: bool,
    /// Names the asker.
    pub ident: u16,
    /// Counts the asker's requests.
    pub seq: u16,
    /// Comes back as it went.
    pub payload: &'a [u8],
}

impl<'a> Echo<'a> {
    /// The values of a message, or `None` where it is no echo of this family.
    pub fn parse(family: Kind, packet: &Packet<'a>) -> Option<Echo<'a>> {
        is_echo(family, packet.kind()).then(|| Echo {
            reply: matches!(packet.kind(), v4::ECHO_REPLY | v6::ECHO_REPLY),
            ident: packet.ident(),
            seq: packet.seq(),
            payload: packet.payload(),
        })
    }

    /// Bytes that emitting writes.
    pub fn len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// Never: a message has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes an ICMPv4 message with its checksum to the front of `buffer`; returns its length.
    ///
    /// # Errors
    /// [`NoSpace`], and nothing is written.
    pub fn emit_v4(&self, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let kind = if self.reply { v4::ECHO_REPLY } else { v4::ECHO_REQUEST };
        self.emit(kind, checksum::Sum::new(), buffer)
    }

    /// Writes an ICMPv6 message with its checksum to the front of `buffer`; returns its length.
    ///
    /// # Errors
    /// [`NoSpace`], and nothing is written.
    pub fn emit_v6(&self, src: Ipv6Addr, dst: Ipv6Addr, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let kind = if self.reply { v6::ECHO_REPLY } else { v6::ECHO_REQUEST };
        let pseudo = checksum::pseudo_header_v6(src, dst, protocol::ICMPV6, self.len() as u32);
        self.emit(kind, pseudo, buffer)
    }

    fn emit(&self, kind: u8, pseudo: checksum::Sum, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let message = room_for(buffer, self.len())?;
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        message[4..6].copy_from_slice(&self.ident.to_be_bytes());
        message[6..8].copy_from_slice(&self.seq.to_be_bytes());
        message[HEADER_LEN..].copy_from_slice(self.payload);
        let checksum = pseudo.add_bytes(message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        Ok(self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn echoes_emit_and_parse_back(
            reply: bool, ident: u16, seq: u16, payload in proptest::collection::vec(any::<u8>(), 0..40),
            ips: [[u8; 16]; 2],
        ) {
            let echo = Echo { reply, ident, seq, payload: &payload };
            let mut bytes = [0; 48];

            let len = echo.emit_v4(&mut bytes).unwrap();
            prop_assert!(checksum::is_correct(&bytes[..len]));
            let packet = Packet::new_checked(&bytes[..len]).unwrap();
            prop_assert_eq!(Echo::parse(Kind::Ipv4, &packet), Some(echo));
            prop_assert_eq!(Echo::parse(Kind::Ipv6, &packet), None);

            let (src, dst) = (ips[0].into(), ips[1].into());
            let len = echo.emit_v6(src, dst, &mut bytes).unwrap();
            let pseudo = checksum::pseudo_header_v6(src, dst, protocol::ICMPV6, len as u32);
            prop_assert!(pseudo.add_bytes(&bytes[..len]).is_correct());
            prop_assert_eq!(Echo::parse(Kind::Ipv6, &Packet::new_checked(&bytes[..len]).unwrap()), Some(echo));
        }
    }
}
