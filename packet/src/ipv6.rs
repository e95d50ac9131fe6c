//! IPv6 (RFC 8200): the fixed header. Extension headers are walked in `ipv6_extension.rs`.

use std::net::Ipv6Addr;

use crate::{Malformed, NoSpace, octets, room, u16_at, u32_at};

pub use crate::ipv6_extension::{Chain, EXTENSIONS_MAX, is_source_routed, walk};

/// The fixed header: 40 bytes.
pub const HEADER_LEN: usize = 40;
/// Every link carries packets of this many bytes (RFC 8200 §5).
pub const MTU_MIN: usize = 1280;

/// A checked view of an IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks version and payload length; bytes beyond it are Ethernet padding and left out.
    ///
    /// # Errors
    /// [`Malformed::Ipv6HeaderTruncated`], [`Malformed::Ipv6BadVersion`], [`Malformed::Ipv6BadPayloadLength`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Ipv6HeaderTruncated)?;
        if header[0] >> 4 != 6 {
            return Err(Malformed::Ipv6BadVersion);
        }
        let payload = rest.get(..usize::from(u16_at(header, 4))).ok_or(Malformed::Ipv6BadPayloadLength)?;
        Ok(Packet { header, payload })
    }

    /// Where it comes from.
    pub fn src(&self) -> Ipv6Addr {
        octets::<16>(self.header, 8).into()
    }

    /// Where it goes, or the next address of a routing header.
    pub fn dst(&self) -> Ipv6Addr {
        octets::<16>(self.header, 24).into()
    }

    /// Protocol of what follows: an extension header or the upper layer.
    pub fn next_header(&self) -> u8 {
        self.header[6]
    }

    /// Hops left.
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// Differentiated services and ECN.
    pub fn traffic_class(&self) -> u8 {
        (u16_at(self.header, 0) >> 4) as u8
    }

    /// Flow label, 20 bits (RFC 6437).
    pub fn flow_label(&self) -> u32 {
        u32_at(self.header, 0) & 0x000f_ffff
    }

    /// Extension headers and upper layer, up to the payload length.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// An IPv6 header as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Where it comes from.
    pub src: Ipv6Addr,
    /// Where it goes.
    pub dst: Ipv6Addr,
    /// Protocol of what follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Differentiated services and ECN.
    pub traffic_class: u8,
    /// The lowest 20 bits count.
    pub flow_label: u32,
    /// Bytes after the fixed header, extension headers included.
    pub payload_len: u16,
}

impl Default for Repr {
    fn default() -> Repr {
        Repr {
            src: Ipv6Addr::UNSPECIFIED,
            dst: Ipv6Addr::UNSPECIFIED,
            next_header: crate::protocol::NO_NEXT_HEADER,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            payload_len: 0,
        }
    }
}

impl Repr {
    /// The values of a checked header.
    pub fn parse(packet: &Packet<'_>) -> Repr {
        Repr {
            src: packet.src(),
            dst: packet.dst(),
            next_header: packet.next_header(),
            hop_limit: packet.hop_limit(),
            traffic_class: packet.traffic_class(),
            flow_label: packet.flow_label(),
            payload_len: packet.payload().len() as u16,
        }
    }

    /// Writes the header to the front of `buffer`; returns its length, 40.
    ///
    /// # Errors
    /// [`NoSpace`] where the buffer can't hold header *and* payload; nothing is written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let needed = HEADER_LEN + usize::from(self.payload_len);
        let available = buffer.len();
        if needed > available {
            return Err(NoSpace { needed, available });
        }
        let header: &mut [u8; HEADER_LEN] = room(buffer)?;
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        header[..4].copy_from_slice(&first.to_be_bytes());
        header[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        header[6] = self.next_header;
        header[7] = self.hop_limit;
        header[8..24].copy_from_slice(&self.src.octets());
        header[24..].copy_from_slice(&self.dst.octets());
        Ok(HEADER_LEN)
    }
}

/// One hop less; IPv6 has no header checksum to mend. Returns the new hop limit.
///
/// `None`, and no change, where the hop limit is 0 already or `header` is shorter than 40 bytes.
#[inline]
pub fn decrement_hop_limit(header: &mut [u8]) -> Option<u8> {
    let header: &mut [u8; HEADER_LEN] = header.first_chunk_mut()?;
    header[7] = header[7].checked_sub(1)?;
    Some(header[7])
}

/// Writes the DSCP (RFC 2474 §3), of which the lower six bits count; ECN stays.
///
/// No change where `header` is shorter than 40 bytes.
#[inline]
pub fn set_dscp(header: &mut [u8], dscp: u8) {
    let Some(header) = header.first_chunk_mut::<HEADER_LEN>() else { return };
    // Version, traffic class and flow label: the DSCP lies in two bytes.
    let first = u16::from_be_bytes([header[0], header[1]]) & !(0x3f << 6);
    header[..2].copy_from_slice(&(first | u16::from(dscp & 0x3f) << 6).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_check_has_its_own_reason() {
        let mut bytes = [0; 44];
        Repr { payload_len: 4, ..Repr::default() }.emit(&mut bytes).unwrap();
        assert!(Packet::new_checked(&bytes).is_ok());
        assert_eq!(Packet::new_checked(&bytes[..39]).unwrap_err(), Malformed::Ipv6HeaderTruncated);
        assert_eq!(Packet::new_checked(&bytes[..43]).unwrap_err(), Malformed::Ipv6BadPayloadLength);
        bytes[0] = 0x45;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Malformed::Ipv6BadVersion);
    }

    #[test]
    fn a_hop_limit_of_zero_stays() {
        let mut bytes = [0; 40];
        Repr { hop_limit: 1, ..Repr::default() }.emit(&mut bytes).unwrap();
        assert_eq!(decrement_hop_limit(&mut bytes), Some(0));
        assert_eq!(decrement_hop_limit(&mut bytes), None);
        assert_eq!(decrement_hop_limit(&mut bytes[..39]), None);
    }

    proptest! {
        #[test]
        fn headers_emit_and_parse_back(
            src: [u8; 16], dst: [u8; 16], next_header: u8, hop_limit: u8, traffic_class: u8,
            flow_label in 0u32..1 << 20, payload_len in 0u16..64,
        ) {
            let repr = Repr { src: src.into(), dst: dst.into(), next_header, hop_limit, traffic_class, flow_label,
                payload_len };
            let mut bytes = [0; 104];
            prop_assert_eq!(repr.emit(&mut bytes), Ok(HEADER_LEN));
            prop_assert_eq!(Repr::parse(&Packet::new_checked(&bytes).unwrap()), repr);
        }

        #[test]
        fn a_dscp_in_place_equals_a_header_written_anew(
            traffic_class: u8, flow_label in 0u32..1 << 20, dscp in 0u8..64,
        ) {
            let repr = Repr { traffic_class, flow_label, ..Repr::default() };
            let (mut bytes, mut anew) = ([0; 40], [0; 40]);
            repr.emit(&mut bytes).unwrap();
            Repr { traffic_class: dscp << 2 | traffic_class & 0b11, ..repr }.emit(&mut anew).unwrap();
            set_dscp(&mut bytes, dscp);
            prop_assert_eq!(bytes, anew);
        }
    }
}
