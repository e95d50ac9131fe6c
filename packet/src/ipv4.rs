//! IPv4 (RFC 791), validated as a router must (RFC 1812 §5.2.2).

use std::net::Ipv4Addr;

use crate::{Malformed, NoSpace, checksum, octets, room, u16_at};

/// The header without options: 20 bytes.
pub const HEADER_LEN: usize = 20;
/// The longest header: 60 bytes.
pub const HEADER_LEN_MAX: usize = 60;

pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A checked view of an IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks version, lengths and header checksum; bytes beyond the total length are Ethernet padding and left out.
    ///
    /// # Errors
    /// The `Ipv4…` reasons of [`Malformed`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Malformed::Ipv4HeaderTruncated)?;
        if header[0] >> 4 != 4 {
            return Err(Malformed::Ipv4BadVersion);
        }
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header_len < HEADER_LEN {
            return Err(Malformed::Ipv4BadHeaderLength);
        }
        let with_options = bytes.get(..header_len).ok_or(Malformed::Ipv4HeaderTruncated)?;
        let total_len = usize::from(u16_at(header, 2));
        let payload = bytes.get(header_len..total_len).ok_or(Malformed::Ipv4BadTotalLength)?;
        let is_correct = match header_len {
            HEADER_LEN => checksum::is_correct_header(header),
            _ => checksum::is_correct(with_options),
        };
        if !is_correct {
            return Err(Malformed::Ipv4BadChecksum);
        }
        Ok(Packet { header, options: &with_options[HEADER_LEN..], payload })
    }

    /// Where it comes from.
    pub fn src(&self) -> Ipv4Addr {
        octets::<4>(self.header, 12).into()
    }

    /// Where it goes.
    pub fn dst(&self) -> Ipv4Addr {
        octets::<4>(self.header, 16).into()
    }

    /// Upper-layer protocol.
    pub fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// Hops left.
    pub fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// Differentiated services and ECN (RFC 2474, RFC 3168).
    pub fn tos(&self) -> u8 {
        self.header[1]
    }

    /// Names the datagram that a fragment belongs to.
    pub fn ident(&self) -> u16 {
        u16_at(self.header, 4)
    }

    /// Routers must not fragment it.
    pub fn dont_fragment(&self) -> bool {
        self.flags_and_offset() & DONT_FRAGMENT != 0
    }

    /// Not the last fragment.
    pub fn more_fragments(&self) -> bool {
        self.flags_and_offset() & MORE_FRAGMENTS != 0
    }

    /// Where this fragment's payload begins in the datagram's, in units of 8 bytes.
    pub fn fragment_offset(&self) -> u16 {
        self.flags_and_offset() & FRAGMENT_OFFSET
    }

    fn flags_and_offset(&self) -> u16 {
        u16_at(self.header, 6)
    }

    /// Length of the header with its options: 20..=60 bytes, a multiple of 4.
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Length of header and payload, as the header says.
    pub fn total_len(&self) -> u16 {
        u16_at(self.header, 2)
    }

    /// The options, 0..=40 bytes, not looked into.
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// All after the header, up to the total length.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// An IPv4 header without options, as values. [`Default`] is an unfragmented packet of nothing from nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Where it comes from.
    pub src: Ipv4Addr,
    /// Where it goes.
    pub dst: Ipv4Addr,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Hops left.
    pub ttl: u8,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Names the datagram that a fragment belongs to; any value where fragmentation is forbidden (RFC 6864).
    pub ident: u16,
    /// Routers must not fragment it.
    pub dont_fragment: bool,
    /// Not the last fragment.
    pub more_fragments: bool,
    /// In units of 8 bytes; the lowest 13 bits count.
    pub fragment_offset: u16,
    /// Bytes after the header, at most 65 515.
    pub payload_len: u16,
}

impl Default for Repr {
    fn default() -> Repr {
        Repr {
            src: Ipv4Addr::UNSPECIFIED,
            dst: Ipv4Addr::UNSPECIFIED,
            protocol: 0,
            ttl: 64,
            tos: 0,
            ident: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            payload_len: 0,
        }
    }
}

impl Repr {
    /// The values of a checked header. Options are not among them.
    pub fn parse(packet: &Packet<'_>) -> Repr {
        Repr {
            src: packet.src(),
            dst: packet.dst(),
            protocol: packet.protocol(),
            ttl: packet.ttl(),
            tos: packet.tos(),
            ident: packet.ident(),
            dont_fragment: packet.dont_fragment(),
            more_fragments: packet.more_fragments(),
            fragment_offset: packet.fragment_offset(),
            payload_len: packet.payload().len() as u16,
        }
    }

    /// Writes the header, checksum included, to the front of `buffer`; returns its length, 20.
    ///
    /// # Errors
    /// [`NoSpace`] where the buffer can't hold header *and* payload, or the two exceed 65 535 bytes;
    /// nothing is written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let needed = HEADER_LEN + usize::from(self.payload_len);
        let available = buffer.len().min(u16::MAX.into());
        if needed > available {
            return Err(NoSpace { needed, available });
        }
        let header: &mut [u8; HEADER_LEN] = room(buffer)?;
        let flags = if self.dont_fragment { DONT_FRAGMENT } else { 0 }
            | if self.more_fragments { MORE_FRAGMENTS } else { 0 };
        header[0] = 0x45;
        header[1] = self.tos;
        header[2..4].copy_from_slice(&(needed as u16).to_be_bytes());
        header[4..6].copy_from_slice(&self.ident.to_be_bytes());
        header[6..8].copy_from_slice(&(flags | self.fragment_offset & FRAGMENT_OFFSET).to_be_bytes());
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[10..12].fill(0);
        header[12..16].copy_from_slice(&self.src.octets());
        header[16..20].copy_from_slice(&self.dst.octets());
        let checksum = checksum::of(header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        Ok(HEADER_LEN)
    }
}

/// One hop less: writes the TTL and mends the checksum in place (RFC 1812 §5.3.1, RFC 1624). Returns the new TTL.
///
/// `None`, and no change, where the TTL is 0 already or `header` is shorter than 20 bytes.
#[inline]
pub fn decrement_ttl(header: &mut [u8]) -> Option<u8> {
    let header: &mut [u8; HEADER_LEN] = header.first_chunk_mut()?;
    let ttl = header[8].checked_sub(1)?;
    lower_ttl(header, ttl);
    Some(ttl)
}

/// [`decrement_ttl`] of a header whose TTL is known to be `ttl` + 1: it isn't read again.
#[inline]
pub fn lower_ttl(header: &mut [u8; HEADER_LEN], ttl: u8) {
    header[8] = ttl;
    // RFC 1624 equation 3, HC' = ~(~HC + ~m + m'), in this processor's byte order, which the sum doesn't care for. The TTL is the
    // first byte of its word, so that has become smaller by this much, and the checksum becomes larger; 0xffff stands for 0.
    const ONE: u32 = u16::from_ne_bytes([1, 0]) as u32;
    let sum = u32::from(u16::from_ne_bytes([header[10], header[11]])) + ONE;
    let checksum = sum + u32::from(sum >= 0xffff);
    header[10..12].copy_from_slice(&(checksum as u16).to_ne_bytes());
}

/// Writes the DSCP (RFC 2474 §3), of which the lower six bits count; ECN stays. The checksum is mended as RFC 1624 says.
///
/// No change where `header` is shorter than 20 bytes.
#[inline]
pub fn set_dscp(header: &mut [u8], dscp: u8) {
    let Some(header) = header.first_chunk_mut::<HEADER_LEN>() else { return };
    let before = u16::from_be_bytes([header[0], header[1]]);
    header[1] = dscp << 2 | header[1] & 0b11;
    let after = u16::from_be_bytes([header[0], header[1]]);
    let checksum = u16::from_be_bytes([header[10], header[11]]);
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A UDP packet's header of 20 bytes, 115 in all, whose checksum 0xb861 is widely printed.
    const KNOWN: [u8; 20] =
        [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];

    fn packet(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = vec![0; 24];
        let repr =
            Repr { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into(), payload_len: 4, ..Repr::default() };
        repr.emit(&mut bytes).unwrap();
        change(&mut bytes);
        bytes
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Malformed) {
        assert_eq!(Packet::new_checked(bytes).unwrap_err(), expected);
    }

    #[test]
    fn a_known_header_is_read_and_written_alike() {
        let mut bytes = vec![0; 0x73];
        bytes[..20].copy_from_slice(&KNOWN);
        let packet = Packet::new_checked(&bytes).unwrap();
        assert_eq!((packet.src(), packet.dst()), ([192, 168, 0, 1].into(), [192, 168, 0, 199].into()));
        assert!(packet.dont_fragment() && !packet.more_fragments());
        let mut again = vec![0; 0x73];
        Repr::parse(&packet).emit(&mut again).unwrap();
        assert_eq!(again[..20], KNOWN);
    }

    #[test]
    fn every_check_of_rfc_1812_has_its_own_reason() {
        check(&packet(|_| ())[..19], Malformed::Ipv4HeaderTruncated);
        check(&packet(|b| b[0] = 0x65), Malformed::Ipv4BadVersion);
        check(&packet(|b| b[0] = 0x44), Malformed::Ipv4BadHeaderLength);
        check(&packet(|b| b[0] = 0x4f), Malformed::Ipv4HeaderTruncated);
        check(&packet(|b| b[3] = 19), Malformed::Ipv4BadTotalLength);
        check(&packet(|b| b[3] = 25), Malformed::Ipv4BadTotalLength);
        check(&packet(|b| b[10] ^= 1), Malformed::Ipv4BadChecksum);
    }

    #[test]
    fn padding_after_the_total_length_is_left_out() {
        let mut bytes = packet(|_| ());
        bytes.extend([0xaa; 22]);
        assert_eq!(Packet::new_checked(&bytes).unwrap().payload().len(), 4);
    }

    #[test]
    fn options_are_part_of_the_header() {
        let mut bytes = packet(|b| {
            b[0] = 0x46;
            b[10..12].fill(0);
            b[20..24].copy_from_slice(&[0x94, 4, 0, 0]); // router alert (RFC 2113)
        });
        let sum = checksum::of(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let packet = Packet::new_checked(&bytes).unwrap();
        assert_eq!(
            (packet.header_len(), packet.options(), packet.payload().len()),
            (24, &[0x94, 4, 0, 0][..], 0)
        );
    }

    #[test]
    fn a_ttl_of_zero_stays() {
        let mut bytes = packet(|b| b[8] = 0);
        let before = bytes.clone();
        assert_eq!(decrement_ttl(&mut bytes), None);
        assert_eq!(bytes, before);
        assert_eq!(decrement_ttl(&mut bytes[..19]), None);
    }

    #[test]
    fn a_packet_beyond_65535_bytes_is_not_written() {
        let repr = Repr { payload_len: u16::MAX, ..Repr::default() };
        assert_eq!(repr.emit(&mut vec![0; 70_000]), Err(NoSpace { needed: 65_555, available: 65_535 }));
    }

    prop_compose! {
        fn reprs()(
            src: [u8; 4], dst: [u8; 4], protocol: u8, ttl: u8, tos: u8, ident: u16, dont_fragment: bool,
            more_fragments: bool, fragment_offset in 0u16..0x2000, payload_len in 0u16..64,
        ) -> Repr {
            Repr { src: src.into(), dst: dst.into(), protocol, ttl, tos, ident, dont_fragment, more_fragments,
                fragment_offset, payload_len }
        }
    }

    proptest! {
        #[test]
        fn headers_emit_and_parse_back(repr in reprs()) {
            let mut bytes = [0; 84];
            prop_assert_eq!(repr.emit(&mut bytes), Ok(HEADER_LEN));
            prop_assert_eq!(Repr::parse(&Packet::new_checked(&bytes).unwrap()), repr);
        }

        #[test]
        fn a_decrement_in_place_equals_a_header_written_anew(repr in reprs()) {
            prop_assume!(repr.ttl > 0);
            let (mut bytes, mut anew) = ([0; 84], [0; 84]);
            repr.emit(&mut bytes).unwrap();
            Repr { ttl: repr.ttl - 1, ..repr }.emit(&mut anew).unwrap();
            prop_assert_eq!(decrement_ttl(&mut bytes), Some(repr.ttl - 1));
            prop_assert_eq!(bytes, anew);
        }

        /// Of every checksum, wrong ones, too: whoever is behind us finds the same fault.
        #[test]
        fn a_decrement_changes_a_checksum_as_rfc_1624_says(ttl in 1u8.., protocol: u8) {
            for checksum in 0..=u16::MAX {
                let mut bytes = [0; HEADER_LEN];
                (bytes[8], bytes[9]) = (ttl, protocol);
                bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
                decrement_ttl(&mut bytes);
                let [before, after] = [ttl, ttl - 1].map(|ttl| u16::from_be_bytes([ttl, protocol]));
                prop_assert_eq!(u16_at(&bytes, 10), crate::checksum::update(checksum, before, after));
            }
        }

        #[test]
        fn a_dscp_in_place_equals_a_header_written_anew(repr in reprs(), dscp in 0u8..64) {
            let (mut bytes, mut anew) = ([0; 84], [0; 84]);
            repr.emit(&mut bytes).unwrap();
            Repr { tos: dscp << 2 | repr.tos & 0b11, ..repr }.emit(&mut anew).unwrap();
            set_dscp(&mut bytes, dscp);
            prop_assert_eq!(bytes, anew);
        }
    }
}
