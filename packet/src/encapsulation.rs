//! Outer headers ready to be written in front of a packet: IPIP (RFC 2003) and VXLAN (RFC 7348), the latter over IPv4 and
//! IPv6.
//!
//! A [`Template`] is made once a tunnel. What differs from packet to packet is mended while it is copied: lengths, the
//! IPv4 header checksum, ECN (RFC 6040 §4.1, normal mode), and for VXLAN the UDP source port, which spreads flows over
//! the paths between the ends (RFC 7348 §5), and the IPv6 flow label, which does the same (RFC 6438 §3).
//!
//! ```text
//!  IPIP   | MAC 12 | 0800 | outer IPv4 20 |                                              inner IPv4 ...
//!  VXLAN  | MAC 12 | 0800 | outer IPv4 20 | UDP 8 | VXLAN 8 | inner MAC 12 | ethertype 2 | inner IP ...
//!         | MAC 12 | 86dd | outer IPv6 40 | UDP 8 | VXLAN 8 | inner MAC 12 | ethertype 2 | inner IP ...
//!                  |<-------------------- template -------------------->|
//! ```
//!
//! UDP has no checksum over IPv4, as RFC 7348 §5 asks. Over IPv6 it has one: RFC 6935 would allow none between ends that
//! agree, but a Linux end takes such packets only where it was told (`udp6zerocsumrx`), and Felix tells it nothing
//! (`felix/dataplane/linux/vxlan_mgr.go`). It is summed up over the whole packet, for what is inside may have no checksum
//! of its own, or a wrong one that isn't ours to hide.

use std::net::{Ipv4Addr, Ipv6Addr};

use model::MacAddr;

use crate::checksum::{self, Sum};
use crate::{ecn, ethernet, ipv4, ipv6, protocol, udp};

/// Bytes of a VXLAN header (RFC 7348 §5).
pub const VXLAN_HEADER_LEN: usize = 8;
/// The port that IANA gave VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// The port that Linux took before IANA gave one, and that flannel takes.
pub const VXLAN_PORT_OF_LINUX: u16 = 8472;
/// The flag that says that the network identifier is valid.
const VXLAN_VALID: u8 = 0x08;

/// Bytes of both MAC addresses of an Ethernet header.
const ADDRESSES: usize = 12;
const ETHERTYPE: usize = 2;
const IPIP_LEN: usize = ETHERTYPE + ipv4::HEADER_LEN;
/// What stands behind the outer IP header of VXLAN, up to the inner ethertype.
const VXLAN_REST: usize = udp::HEADER_LEN + VXLAN_HEADER_LEN + ADDRESSES;
const VXLAN_V4_LEN: usize = ETHERTYPE + ipv4::HEADER_LEN + VXLAN_REST;
const VXLAN_V6_LEN: usize = ETHERTYPE + ipv6::HEADER_LEN + VXLAN_REST;
const IP: usize = ETHERTYPE;
const UDP_V4: usize = IP + ipv4::HEADER_LEN;
const UDP_V6: usize = IP + ipv6::HEADER_LEN;

/// Which headers a template has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Ipip,
    VxlanV4,
    VxlanV6,
}

/// What stands between the outer MAC addresses and the inner packet, but for what differs from packet to packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    bytes: [u8; VXLAN_V6_LEN],
    /// The sum over the outer IPv4 header, in this processor's byte order.
    sum: u16,
    overhead: u16,
    shape: Shape,
}

impl Template {
    fn new(shape: Shape) -> Template {
        // VXLAN keeps the inner ethertype where it is; IPIP writes the outer one over it.
        let overhead = match shape {
            Shape::Ipip => ipv4::HEADER_LEN as u16,
            Shape::VxlanV4 => VXLAN_V4_LEN as u16,
            Shape::VxlanV6 => VXLAN_V6_LEN as u16,
        };
        Template { bytes: [0; VXLAN_V6_LEN], sum: 0, overhead, shape }
    }

    /// An IPIP tunnel for IPv4 from `local` to `remote`.
    pub fn ipip(local: Ipv4Addr, remote: Ipv4Addr) -> Template {
        let mut template = Template::new(Shape::Ipip);
        template.outer_v4(local, remote, protocol::IPIP);
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
        let mut template = Template::new(Shape::VxlanV4);
        template.outer_v4(local, remote, protocol::UDP);
        vxlan_rest(&mut template.bytes[UDP_V4..], port, vni, destination, source);
        template
    }

    /// [`Self::vxlan`] between IPv6 addresses.
    pub fn vxlan_v6(
        local: Ipv6Addr,
        remote: Ipv6Addr,
        port: u16,
        vni: u32,
        destination: MacAddr,
        source: MacAddr,
    ) -> Template {
        let mut template = Template::new(Shape::VxlanV6);
        template.bytes[..ETHERTYPE].copy_from_slice(&ethernet::IPV6.to_be_bytes());
        let repr =
            ipv6::Repr { src: local, dst: remote, next_header: protocol::UDP, ..ipv6::Repr::default() };
        repr.emit(&mut template.bytes[IP..]).expect("forty bytes hold a header");
        let rest = &mut template.bytes[UDP_V6..];
        vxlan_rest(rest, port, vni, destination, source);
        // The sum of all that is the same in every packet waits where the checksum will stand.
        let sum = checksum::pseudo_header_v6(local, remote, protocol::UDP, 0).add_bytes(rest).fold();
        rest[6..8].copy_from_slice(&sum.to_be_bytes());
        template
    }

    fn outer_v4(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) {
        self.bytes[..ETHERTYPE].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        let repr = ipv4::Repr { src, dst, protocol, dont_fragment: true, ..ipv4::Repr::default() };
        let header = &mut self.bytes[IP..UDP_V4];
        repr.emit(header).expect("twenty bytes hold a header");
        // Its length is written with each packet, and the checksum then.
        header[2..4].fill(0);
        header[10..12].fill(0);
        self.sum = Sum::new().add_bytes(header).fold().to_be();
    }

    /// Is it VXLAN? Otherwise it is IPIP.
    #[inline]
    pub fn is_vxlan(&self) -> bool {
        self.shape != Shape::Ipip
    }

    /// Bytes that the frame grows by in front, and the IP packet with it: 20, 50 or 70.
    #[inline]
    pub fn overhead(&self) -> u16 {
        self.overhead
    }

    /// Writes the header into a frame that has grown by [`Self::overhead`] in front, behind the outer MAC addresses, and
    /// that ends where the inner packet does.
    ///
    /// `ip_len`: bytes of the outer IP packet. `tos`: the inner packet's second byte or traffic class. `entropy`: VXLAN's
    /// UDP source port. A frame too short for the header is left as it is.
    pub fn write(&self, frame: &mut [u8], ip_len: u16, tos: u8, entropy: u16) {
        let Some(addresses) = frame.first_chunk().copied() else { return };
        self.write_below(&addresses, frame, ip_len, tos, entropy, 0);
    }

    /// [`Self::write`], and the outer MAC addresses, destination and source.
    ///
    /// `right`: bytes behind the inner ethertype that are known to sum up right, as an IPv4 header does; they add nothing
    /// to a checksum. It isn't only that they needn't be read: where a TTL has just been lowered, they would have to be
    /// waited for.
    #[inline(always)]
    pub fn write_below(
        &self,
        addresses: &[u8; ADDRESSES],
        frame: &mut [u8],
        ip_len: u16,
        tos: u8,
        entropy: u16,
        right: usize,
    ) {
        match self.shape {
            Shape::Ipip => {
                let Some(head) = frame.first_chunk_mut::<{ ADDRESSES + IPIP_LEN }>() else { return };
                let (link, header) = head.split_at_mut(ADDRESSES);
                link.copy_from_slice(addresses);
                header.copy_from_slice(&self.bytes[..IPIP_LEN]);
                self.mend_v4(header, ip_len, tos);
            }
            Shape::VxlanV4 => {
                let Some(head) = frame.first_chunk_mut::<{ ADDRESSES + VXLAN_V4_LEN }>() else { return };
                let (link, header) = head.split_at_mut(ADDRESSES);
                link.copy_from_slice(addresses);
                header.copy_from_slice(&self.bytes[..VXLAN_V4_LEN]);
                header[UDP_V4..UDP_V4 + 2].copy_from_slice(&entropy.to_be_bytes());
                let udp_len = ip_len.wrapping_sub(ipv4::HEADER_LEN as u16);
                header[UDP_V4 + 4..UDP_V4 + 6].copy_from_slice(&udp_len.to_be_bytes());
                self.mend_v4(header, ip_len, tos);
            }
            Shape::VxlanV6 => self.write_v6(addresses, frame, ip_len, tos, entropy, right),
        }
    }

    /// Writes length and ECN into the outer IPv4 header of a copy of this template.
    #[inline(always)]
    fn mend_v4(&self, copy: &mut [u8], ip_len: u16, tos: u8) {
        let Some(header) = copy.get_mut(IP..).and_then(|rest| rest.first_chunk_mut::<{ ipv4::HEADER_LEN }>())
        else {
            return;
        };
        // RFC 6040 §4.1: the outer ECN field is the inner one's.
        let ecn = tos & ecn::MASK;
        // The sum doesn't care for the order of bytes, so it is this processor's.
        let (len, ecn_word) = (ip_len.to_be(), u16::from_ne_bytes([0, ecn]));
        let sum = u32::from(self.sum) + u32::from(len) + u32::from(ecn_word);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        header[1] = ecn;
        header[2..4].copy_from_slice(&len.to_ne_bytes());
        header[10..12].copy_from_slice(&(!sum as u16).to_ne_bytes());
    }

    /// Ethertype to inner MAC addresses over IPv6, and the checksum over all that follows. Apart from the others, whose
    /// registers its loop would take.
    #[inline(never)]
    fn write_v6(
        &self,
        addresses: &[u8; ADDRESSES],
        frame: &mut [u8],
        ip_len: u16,
        tos: u8,
        entropy: u16,
        right: usize,
    ) {
        let Some((link, behind)) = frame.split_first_chunk_mut() else { return };
        let Some((header, inner)) = behind.split_first_chunk_mut::<VXLAN_V6_LEN>() else { return };
        *link = *addresses;
        *header = self.bytes;
        let udp_len = ip_len.wrapping_sub(ipv6::HEADER_LEN as u16);
        // The traffic class begins in the middle of the first byte, so its last two bits stand here.
        header[IP + 1] = (tos & ecn::MASK) << 4;
        header[IP + 2..IP + 4].copy_from_slice(&entropy.to_be_bytes());
        header[IP + 4..IP + 6].copy_from_slice(&udp_len.to_be_bytes());
        header[UDP_V6..UDP_V6 + 2].copy_from_slice(&entropy.to_be_bytes());
        header[UDP_V6 + 4..UDP_V6 + 6].copy_from_slice(&udp_len.to_be_bytes());
        // The length counts twice: in the header and in the pseudo-header (RFC 8200 §8.1).
        let same = u16::from_be_bytes([self.bytes[UDP_V6 + 6], self.bytes[UDP_V6 + 7]]);
        let words = Sum::new().add_u16(same).add_u16(entropy).add_u16(udp_len).add_u16(udp_len);
        let Some((ethertype, packet)) = inner.split_first_chunk::<ETHERTYPE>() else { return };
        let words = words.add_u16(u16::from_be_bytes(*ethertype));
        let sum = match words.add_bytes(packet.get(right..).unwrap_or(packet)).checksum() {
            0 => 0xffff,
            sum => sum,
        };
        header[UDP_V6 + 6..UDP_V6 + 8].copy_from_slice(&sum.to_be_bytes());
    }
}

/// UDP, VXLAN and inner Ethernet headers without source port, length, checksum and ethertype.
fn vxlan_rest(rest: &mut [u8], port: u16, vni: u32, destination: MacAddr, source: MacAddr) {
    rest[2..4].copy_from_slice(&port.to_be_bytes());
    rest[8] = VXLAN_VALID;
    rest[12..16].copy_from_slice(&(vni << 8).to_be_bytes());
    rest[16..22].copy_from_slice(&destination.0);
    rest[22..28].copy_from_slice(&source.0);
}

/// The network identifier of a VXLAN header; `None` where it is cut short or says that it has none.
#[inline]
pub fn vni(header: &[u8]) -> Option<u32> {
    let header: &[u8; VXLAN_HEADER_LEN] = header.first_chunk()?;
    (header[0] & VXLAN_VALID != 0).then(|| u32::from_be_bytes([0, header[4], header[5], header[6]]))
}

#[cfg(test)]
mod tests;
