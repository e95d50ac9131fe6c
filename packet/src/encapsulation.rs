//! Outer headers ready to be written in front of a packet: IPIP (RFC 2003) and VXLAN (RFC 7348) over IPv4.
//!
//! A [`Template`] is made once a tunnel. What differs from packet to packet is mended while it is copied: lengths, the
//! IPv4 header checksum, ECN (RFC 6040 §4.1, normal mode), and for VXLAN the UDP source port, which spreads flows over
//! the paths between the ends (RFC 7348 §5).
//!
//! ```text
//!  IPIP   | MAC 12 | 0800 | outer IPv4 20 |                                              inner IPv4 ...
//!  VXLAN  | MAC 12 | 0800 | outer IPv4 20 | UDP 8 | VXLAN 8 | inner MAC 12 | ethertype 2 | inner IP ...
//!                  |<-------------------- template -------------------->|
//! ```

use std::net::Ipv4Addr;

use model::MacAddr;

use crate::{checksum, ethernet, ipv4, protocol, udp};

/// Bytes of a VXLAN header (RFC 7348 §5).
pub const VXLAN_HEADER_LEN: usize = 8;
/// The port that IANA gave VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// The flag that says that the network identifier is valid.
const VXLAN_VALID: u8 = 0x08;

/// Bytes of both MAC addresses of an Ethernet header.
const ADDRESSES: usize = 12;
const ETHERTYPE: usize = 2;
const IPIP_LEN: usize = ETHERTYPE + ipv4::HEADER_LEN;
const VXLAN_LEN: usize = IPIP_LEN + udp::HEADER_LEN + VXLAN_HEADER_LEN + ADDRESSES;
const IP: usize = ETHERTYPE;
const UDP: usize = IP + ipv4::HEADER_LEN;

/// What stands between the outer MAC addresses and the inner packet, but for what differs from packet to packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    bytes: [u8; VXLAN_LEN],
    len: u8,
}

impl Template {
    /// An IPIP tunnel for IPv4 from `local` to `remote`.
    pub fn ipip(local: Ipv4Addr, remote: Ipv4Addr) -> Template {
        let mut template = Template { bytes: [0; VXLAN_LEN], len: IPIP_LEN as u8 };
        template.outer(local, remote, protocol::IPIP);
        template
    }

    /// A VXLAN tunnel from `local` to `remote` and UDP port `port`. `vni`: the network identifier, of which 24 bits count.
    /// `destination` and `source` become the inner MAC addresses.
    pub fn vxlan(
        local: Ipv4Addr,
        remote: Ipv4Addr,
        port: u16,
        vni: u32,
        destination: MacAddr,
        source: MacAddr,
    ) -> Template {
        let mut template = Template { bytes: [0; VXLAN_LEN], len: VXLAN_LEN as u8 };
        template.outer(local, remote, protocol::UDP);
        let rest = &mut template.bytes[UDP..];
        rest[2..4].copy_from_slice(&port.to_be_bytes());
        // No checksum: RFC 7348 §5 asks for zero.
        rest[8] = VXLAN_VALID;
        rest[12..16].copy_from_slice(&(vni << 8).to_be_bytes());
        rest[16..22].copy_from_slice(&destination.0);
        rest[22..28].copy_from_slice(&source.0);
        template
    }

    fn outer(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) {
        self.bytes[..ETHERTYPE].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        let repr = ipv4::Repr { src, dst, protocol, dont_fragment: true, ..ipv4::Repr::default() };
        let header = &mut self.bytes[IP..UDP];
        repr.emit(header).expect("twenty bytes hold a header");
        // Its length is written with each packet: the checksum is made for a length of 0.
        header[2..4].fill(0);
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// Is it VXLAN? Otherwise it is IPIP.
    #[inline]
    pub fn is_vxlan(&self) -> bool {
        usize::from(self.len) == VXLAN_LEN
    }

    /// Bytes that the frame grows by in front, and the IP packet with it: 20 or 50.
    #[inline]
    pub fn overhead(&self) -> u16 {
        // VXLAN keeps the inner ethertype where it is; IPIP writes the outer one over it.
        if self.is_vxlan() { VXLAN_LEN as u16 } else { ipv4::HEADER_LEN as u16 }
    }

    /// Writes the header into a frame that has grown by [`Self::overhead`] in front, behind the outer MAC addresses.
    ///
    /// `ip_len`: bytes of the outer IP packet. `tos`: the inner packet's second byte or traffic class. `entropy`: VXLAN's
    /// UDP source port. A frame too short for the header is left as it is.
    #[inline]
    pub fn write(&self, frame: &mut [u8], ip_len: u16, tos: u8, entropy: u16) {
        if self.is_vxlan() {
            let Some(header) =
                frame.get_mut(ADDRESSES..).and_then(|rest| rest.first_chunk_mut::<VXLAN_LEN>())
            else {
                return;
            };
            *header = self.bytes;
            header[UDP..UDP + 2].copy_from_slice(&entropy.to_be_bytes());
            let udp_len = ip_len.wrapping_sub(ipv4::HEADER_LEN as u16);
            header[UDP + 4..UDP + 6].copy_from_slice(&udp_len.to_be_bytes());
            self.mend(header, ip_len, tos);
        } else {
            let Some(header) = frame.get_mut(ADDRESSES..).and_then(|rest| rest.first_chunk_mut::<IPIP_LEN>())
            else {
                return;
            };
            header.copy_from_slice(&self.bytes[..IPIP_LEN]);
            self.mend(header, ip_len, tos);
        }
    }

    /// Writes length and ECN into the outer IPv4 header of a copy of this template.
    #[inline(always)]
    fn mend(&self, copy: &mut [u8], ip_len: u16, tos: u8) {
        let Some(header) = copy.get_mut(IP..).and_then(|rest| rest.first_chunk_mut::<{ ipv4::HEADER_LEN }>())
        else {
            return;
        };
        // RFC 6040 §4.1: the outer ECN field is the inner one's.
        let ecn = tos & 0b11;
        // The sum of the template, in which both fields are zero, and these two words.
        let words = u32::from(!u16::from_be_bytes([self.bytes[IP + 10], self.bytes[IP + 11]]));
        let sum = words + u32::from(ip_len) + u32::from(ecn);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        header[1] = ecn;
        header[2..4].copy_from_slice(&ip_len.to_be_bytes());
        header[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
    }
}

/// The network identifier of a VXLAN header; `None` where it is cut short or says that it has none.
#[inline]
pub fn vni(header: &[u8]) -> Option<u32> {
    let header: &[u8; VXLAN_HEADER_LEN] = header.first_chunk()?;
    (header[0] & VXLAN_VALID != 0).then(|| u32::from_be_bytes([0, header[4], header[5], header[6]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    const LOCAL: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
    const REMOTE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);

    /// An inner Ethernet frame behind `room` bytes, as `grow_front` leaves it.
    fn grown(room: usize, tos: u8) -> (Vec<u8>, usize) {
        let payload_len = 100;
        let inner = ipv4::Repr {
            src: [10, 65, 0, 2].into(),
            dst: [10, 65, 1, 2].into(),
            protocol: 253,
            tos,
            payload_len,
            ..ipv4::Repr::default()
        };
        let mut frame = vec![0; room + 14 + 20 + 100];
        frame[room + 12..room + 14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        inner.emit(&mut frame[room + 14..]).unwrap();
        let len = frame.len() - 14;
        (frame, len)
    }

    #[test]
    fn an_ipip_packet_parses_and_holds_the_inner_one() {
        let template = Template::ipip(LOCAL, REMOTE);
        let (mut frame, ip_len) = grown(template.overhead().into(), 0b11);
        template.write(&mut frame, ip_len as u16, 0b11, 0);
        let parsed = parse(&frame).unwrap();
        assert_eq!((parsed.protocol, parsed.l4, usize::from(parsed.l3_len)), (protocol::IPIP, 34, ip_len));
        assert_eq!(parsed.ipv4_source(&frame).zip(parsed.ipv4_destination(&frame)), Some((LOCAL, REMOTE)));
        assert_eq!(frame[15], 0b11, "congestion experienced shows outside (RFC 6040)");
        assert_eq!(ipv4::Packet::new_checked(&frame[34..]).unwrap().dst(), Ipv4Addr::new(10, 65, 1, 2));
    }

    #[test]
    fn a_vxlan_packet_parses_and_holds_the_inner_frame() {
        let (destination, source) = (MacAddr([2; 6]), MacAddr([4; 6]));
        let template = Template::vxlan(LOCAL, REMOTE, VXLAN_PORT, 4096, destination, source);
        let (mut frame, ip_len) = grown(template.overhead().into(), 0b10 | 0x20);
        template.write(&mut frame, ip_len as u16, 0b10 | 0x20, 50_000);
        let parsed = parse(&frame).unwrap();
        assert_eq!(parsed.protocol, protocol::UDP);
        let outer = udp::Packet::new_checked(parsed.l4_packet(&frame)).unwrap();
        assert_eq!((outer.sport(), outer.dport(), outer.checksum()), (50_000, VXLAN_PORT, 0));
        assert_eq!(vni(outer.payload()), Some(4096));
        assert_eq!(frame[15], 0b10, "only ECN is taken over");
        let inner = &outer.payload()[VXLAN_HEADER_LEN..];
        assert_eq!((&inner[..6], &inner[6..12]), (&destination.0[..], &source.0[..]));
        assert!(parse(inner).is_ok_and(|inner| inner.l3_len == 120));
    }

    #[test]
    fn a_header_without_an_identifier_has_none() {
        assert_eq!(vni(&[0, 0, 0, 0, 0, 16, 0, 0]), None);
        assert_eq!(vni(&[8, 0, 0, 0, 0, 16, 0]), None);
        assert_eq!(vni(&[8, 0, 0, 0, 0, 16, 0, 0]), Some(4096));
    }

    #[test]
    fn a_frame_that_is_too_short_is_left_alone() {
        let mut frame = [7; 20];
        Template::ipip(LOCAL, REMOTE).write(&mut frame, 20, 0, 0);
        assert_eq!(frame, [7; 20]);
    }
}
