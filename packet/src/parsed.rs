//! One frame's headers found and validated, once, for everybody after.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use crate::{Malformed, arp, checksum, ethernet, ipv4, ipv6, octets, protocol, u16_at, vlan};

/// What a frame carries, as far as a router cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A valid IPv4 packet.
    Ipv4,
    /// A valid IPv6 packet.
    Ipv6,
    /// A valid ARP message about IPv4.
    Arp,
    /// Anything else: LLDP, LACP, a third VLAN tag, 802.3 frames.
    Other,
}

/// Is an IP packet a fragment?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fragment {
    /// It isn't.
    Whole,
    /// The first one: the upper-layer header is here.
    First,
    /// Another one: no ports to see.
    Later,
}

/// Are all headers where nearly every packet has them? Then they can be read at fixed places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// Untagged Ethernet, IPv4 without options, whole, and TCP, UDP, ICMP or IPIP: the frame has at least
    /// [`Layout::PLAIN_V4_LEN`] bytes.
    PlainV4,
    /// Untagged Ethernet, IPv6 without extension headers, and TCP or UDP: the frame has at least
    /// [`Layout::PLAIN_V6_LEN`] bytes.
    PlainV6,
    /// Anything else: ask for the offsets.
    Other,
}

impl Layout {
    /// Bytes of the Ethernet and IPv4 headers.
    pub const PLAIN_V4_LEN: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
    /// Bytes of the Ethernet and IPv6 headers.
    pub const PLAIN_V6_LEN: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
}

/// Where each header of a frame begins, and what routing needs of it. Offsets count bytes from the frame's start.
///
/// The IP fields are 0 (and `Whole`, `false`) for [`Kind::Arp`] and [`Kind::Other`].
///
/// Half a cache line, so that a column of them is indexed by a shift. What plain frames have alike stands together and has no
/// gaps: it is written in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Parsed {
    /// What the frame carries.
    pub kind: Kind,
    /// Are all headers at fixed places?
    pub layout: Layout,
    /// The ethertype after the VLAN tags.
    pub ethertype: u16,
    /// The outermost VLAN, 1..=4095. A priority tag (VLAN 0) counts as none.
    pub vlan: Option<NonZeroU16>,
    /// The VLAN of a second tag (802.1ad).
    pub inner_vlan: Option<NonZeroU16>,
    /// Where the IP or ARP header begins: 14, 18 or 22. For [`Kind::Other`], what follows the ethertype.
    pub l3: u16,
    /// Where the upper-layer header begins; 0 where there is none: a later fragment, no IP, nothing following.
    pub l4: u16,
    /// Length of the IP packet from `l3` on, header included, Ethernet padding excluded.
    pub l3_len: u16,
    /// IPv4 TTL or IPv6 hop limit as received.
    pub ttl: u8,
    /// The upper-layer protocol, behind IPv6 extension headers.
    pub protocol: u8,
    /// Whole, first or later fragment.
    pub fragment: Fragment,
    /// IPv4's flag; always set for IPv6, which routers never fragment.
    pub dont_fragment: bool,
}

const _: () = assert!(size_of::<Parsed>() == 32);

impl Parsed {
    /// An untagged frame of which nothing else is known yet.
    pub const UNTAGGED: Parsed = Parsed {
        kind: Kind::Other,
        layout: Layout::Other,
        ethertype: 0,
        vlan: None,
        inner_vlan: None,
        l3: ethernet::HEADER_LEN as u16,
        l3_len: 0,
        l4: 0,
        protocol: 0,
        ttl: 0,
        fragment: Fragment::Whole,
        dont_fragment: false,
    };

    /// A part of a datagram, first or later.
    pub fn is_fragment(&self) -> bool {
        self.fragment != Fragment::Whole
    }

    /// A fragment without the upper-layer header.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment == Fragment::Later
    }

    /// An IP packet, of either family.
    pub fn is_ip(&self) -> bool {
        matches!(self.kind, Kind::Ipv4 | Kind::Ipv6)
    }

    /// Where the IP packet ends and Ethernet padding may begin.
    pub fn l3_end(&self) -> usize {
        usize::from(self.l3) + usize::from(self.l3_len)
    }

    /// The IP packet of the parsed frame, without padding; empty for another kind or another frame.
    pub fn l3_packet<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(usize::from(self.l3)..self.l3_end()).unwrap_or(&[])
    }

    /// The upper-layer header and payload of the parsed frame, without padding; empty where there is none.
    pub fn l4_packet<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        if self.l4 == 0 {
            return &[];
        }
        frame.get(usize::from(self.l4)..self.l3_end()).unwrap_or(&[])
    }

    /// Source of an IPv4 packet; `frame` is the one that was parsed.
    #[inline]
    pub fn ipv4_source(&self, frame: &[u8]) -> Option<Ipv4Addr> {
        self.address::<4>(Kind::Ipv4, frame, 12).map(Ipv4Addr::from)
    }

    /// Destination of an IPv4 packet; `frame` is the one that was parsed.
    #[inline]
    pub fn ipv4_destination(&self, frame: &[u8]) -> Option<Ipv4Addr> {
        self.address::<4>(Kind::Ipv4, frame, 16).map(Ipv4Addr::from)
    }

    /// Source of an IPv6 packet; `frame` is the one that was parsed.
    #[inline]
    pub fn ipv6_source(&self, frame: &[u8]) -> Option<Ipv6Addr> {
        self.address::<16>(Kind::Ipv6, frame, 8).map(Ipv6Addr::from)
    }

    /// Destination of an IPv6 packet; `frame` is the one that was parsed.
    #[inline]
    pub fn ipv6_destination(&self, frame: &[u8]) -> Option<Ipv6Addr> {
        self.address::<16>(Kind::Ipv6, frame, 24).map(Ipv6Addr::from)
    }

    /// What there is to know of a frame with [`Layout::PlainV4`] that begins so. Whether it does is not asked.
    #[inline(always)]
    pub fn set_plain_v4(&mut self, head: &[u8; Layout::PLAIN_V4_LEN + 4]) {
        const L3: usize = ethernet::HEADER_LEN;
        *self = Parsed {
            kind: Kind::Ipv4,
            layout: Layout::PlainV4,
            ethertype: ethernet::IPV4,
            l3_len: u16_at(head, L3 + 2),
            l4: Layout::PLAIN_V4_LEN as u16,
            protocol: head[L3 + 9],
            ttl: head[L3 + 8],
            // The others are zero, or the layout is another.
            dont_fragment: head[L3 + 6] != 0,
            ..Parsed::UNTAGGED
        };
    }

    /// [`Self::set_plain_v4`] for [`Layout::PlainV6`].
    #[inline(always)]
    pub fn set_plain_v6(&mut self, head: &[u8; Layout::PLAIN_V6_LEN + 4]) {
        const L3: usize = ethernet::HEADER_LEN;
        *self = Parsed {
            kind: Kind::Ipv6,
            layout: Layout::PlainV6,
            ethertype: ethernet::IPV6,
            // One that doesn't fit 16 bits doesn't fit the frame: the layout is another.
            l3_len: u16_at(head, L3 + 4).wrapping_add(ipv6::HEADER_LEN as u16),
            l4: Layout::PLAIN_V6_LEN as u16,
            protocol: head[L3 + 6],
            ttl: head[L3 + 7],
            dont_fragment: true,
            ..Parsed::UNTAGGED
        };
    }

    #[inline(always)]
    fn address<const N: usize>(&self, kind: Kind, frame: &[u8], at: usize) -> Option<[u8; N]> {
        (self.kind == kind).then(|| octets(frame, usize::from(self.l3) + at))
    }
}

/// Finds and validates the headers of an Ethernet frame: up to two VLAN tags, then ARP, IPv4 or IPv6 with extension
/// headers, then the length of a TCP, UDP or ICMP header. Upper-layer checksums are not a router's to check.
///
/// # Errors
/// The first reason, from the outside in, why the frame can't be routed.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Parsed, Malformed> {
    match parse_plain(frame) {
        Some(parsed) => Ok(parsed),
        None => parse_any(frame),
    }
}

/// [`parse`] for the frames that nearly all traffic is made of, those with a plain [`Layout`]. `None` says nothing about a
/// frame but that [`parse`] must look.
#[inline(always)]
pub fn parse_plain(frame: &[u8]) -> Option<Parsed> {
    let mut parsed = Parsed::UNTAGGED;
    parse_plain_into(frame, &mut parsed).map(|_| parsed)
}

/// The first bytes of a frame with a plain layout: its Ethernet and IP headers, and the ports, where it has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHead<'a> {
    /// With [`Layout::PlainV4`].
    V4(&'a [u8; Layout::PLAIN_V4_LEN + 4]),
    /// With [`Layout::PlainV6`].
    V6(&'a [u8; Layout::PLAIN_V6_LEN + 4]),
}

/// [`parse_plain`], written to where it is to lie; else nothing is.
///
/// Each family writes by itself: where the two come together in one value, it is put together on the stack in small pieces
/// and read back in large ones, which a processor waits for.
#[inline(always)]
pub fn parse_plain_into<'a>(frame: &'a [u8], parsed: &mut Parsed) -> Option<PlainHead<'a>> {
    let ethertype: &[u8; 2] = frame.get(12..14)?.first_chunk()?;
    // As the processor reads them: one load and a comparison for each.
    const V4: u16 = ethernet::IPV4.to_be();
    const V6: u16 = ethernet::IPV6.to_be();
    match u16::from_ne_bytes(*ethertype) {
        V4 => plain_v4(frame, parsed).map(PlainHead::V4),
        V6 => plain_v6(frame, parsed).map(PlainHead::V6),
        _ => None,
    }
}

/// Bytes that an IPv4 packet without options must have by its protocol in a frame with [`Layout::PlainV4`]; more than any has for
/// other protocols.
const L3_LEN_MIN: [u32; 256] = {
    let mut bytes = [u32::MAX; 256];
    bytes[protocol::TCP as usize] = ipv4::HEADER_LEN as u32 + 20;
    bytes[protocol::UDP as usize] = ipv4::HEADER_LEN as u32 + 8;
    bytes[protocol::ICMP as usize] = ipv4::HEADER_LEN as u32 + 8;
    bytes[protocol::IPIP as usize] = ipv4::HEADER_LEN as u32 * 2;
    bytes
};

#[inline(always)]
fn plain_v4<'a>(frame: &'a [u8], parsed: &mut Parsed) -> Option<&'a [u8; Layout::PLAIN_V4_LEN + 4]> {
    const L4: usize = Layout::PLAIN_V4_LEN;
    let head: &[u8; L4 + 4] = frame.first_chunk()?;
    let header: &[u8; ipv4::HEADER_LEN] = head[ethernet::HEADER_LEN..].first_chunk()?;
    let flags_and_offset = u16_at(header, 6);
    let l3_len = u16_at(header, 2);
    let protocol = header[9];
    let l3_len_min = L3_LEN_MIN[usize::from(protocol)];
    let fits = u32::from(l3_len) >= l3_len_min && usize::from(l3_len) <= frame.len() - ethernet::HEADER_LEN;
    let whole = flags_and_offset & !ipv4::DONT_FRAGMENT == 0;
    if header[0] != 0x45 || !fits || !whole || !checksum::is_correct_header(header) {
        return None;
    }
    parsed.set_plain_v4(head);
    Some(head)
}

#[inline(always)]
fn plain_v6<'a>(frame: &'a [u8], parsed: &mut Parsed) -> Option<&'a [u8; Layout::PLAIN_V6_LEN + 4]> {
    const L4: usize = Layout::PLAIN_V6_LEN;
    let head: &[u8; L4 + 4] = frame.first_chunk()?;
    let header: &[u8; ipv6::HEADER_LEN] = head[ethernet::HEADER_LEN..].first_chunk()?;
    let l3_len = u16_at(header, 4).checked_add(ipv6::HEADER_LEN as u16)?;
    let protocol = header[6];
    let l4_len_min = match protocol {
        protocol::TCP => 20,
        protocol::UDP => 8,
        _ => return None,
    };
    let fits = usize::from(l3_len) >= ipv6::HEADER_LEN + l4_len_min
        && usize::from(l3_len) <= frame.len() - ethernet::HEADER_LEN;
    if header[0] >> 4 != 6 || !fits {
        return None;
    }
    parsed.set_plain_v6(head);
    Some(head)
}

/// [`parse`] for whatever there is.
fn parse_any(frame: &[u8]) -> Result<Parsed, Malformed> {
    let mut parsed = link(frame)?;
    let l3 = &frame[usize::from(parsed.l3)..];
    match parsed.ethertype {
        ethernet::IPV4 => network_v4(&mut parsed, l3)?,
        ethernet::IPV6 => network_v6(&mut parsed, l3)?,
        ethernet::ARP => {
            arp::Packet::new_checked(l3)?;
            parsed.kind = Kind::Arp;
        }
        _ => {}
    }
    Ok(parsed)
}

/// Ethernet and VLAN tags.
#[inline]
fn link(frame: &[u8]) -> Result<Parsed, Malformed> {
    let ethernet = ethernet::Packet::new_checked(frame)?;
    let mut parsed = Parsed { ethertype: ethernet.ethertype(), ..Parsed::UNTAGGED };
    if vlan::is_tag(parsed.ethertype) {
        let outer = vlan::Packet::new_checked(ethernet.payload())?;
        parsed.vlan = pass_tag(&mut parsed, &outer);
        if vlan::is_tag(parsed.ethertype) {
            let inner = vlan::Packet::new_checked(outer.payload())?;
            parsed.inner_vlan = pass_tag(&mut parsed, &inner);
        }
    }
    Ok(parsed)
}

/// Steps over a tag and returns its VLAN.
fn pass_tag(parsed: &mut Parsed, tag: &vlan::Packet<'_>) -> Option<NonZeroU16> {
    parsed.l3 += vlan::TAG_LEN as u16;
    parsed.ethertype = tag.ethertype();
    NonZeroU16::new(tag.vid())
}

#[inline]
fn network_v4(parsed: &mut Parsed, l3: &[u8]) -> Result<(), Malformed> {
    let packet = ipv4::Packet::new_checked(l3)?;
    parsed.kind = Kind::Ipv4;
    parsed.l3_len = packet.total_len();
    parsed.protocol = packet.protocol();
    parsed.ttl = packet.ttl();
    parsed.dont_fragment = packet.dont_fragment();
    parsed.fragment = match (packet.fragment_offset(), packet.more_fragments()) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    transport(parsed, packet.header_len(), packet.payload())
}

#[inline]
fn network_v6(parsed: &mut Parsed, l3: &[u8]) -> Result<(), Malformed> {
    let packet = ipv6::Packet::new_checked(l3)?;
    let len = ipv6::HEADER_LEN + packet.payload().len();
    let chain = ipv6::walk(packet.next_header(), packet.payload())?;
    parsed.kind = Kind::Ipv6;
    parsed.l3_len = u16::try_from(len).map_err(|_| Malformed::Ipv6BadPayloadLength)?;
    parsed.protocol = chain.protocol;
    parsed.ttl = packet.hop_limit();
    parsed.dont_fragment = true;
    parsed.fragment = chain.fragment;
    if chain.protocol == protocol::NO_NEXT_HEADER {
        return Ok(());
    }
    transport(parsed, ipv6::HEADER_LEN + chain.len, &packet.payload()[chain.len..])
}

/// Notes where the upper layer begins, `offset` bytes into the IP packet, if it is here and fits.
#[inline]
fn transport(parsed: &mut Parsed, offset: usize, l4: &[u8]) -> Result<(), Malformed> {
    if parsed.is_later_fragment() {
        return Ok(());
    }
    if l4.len() < protocol::header_len_min(parsed.protocol) {
        return Err(Malformed::L4Truncated);
    }
    // At most 22 + 65 535: a header chain that long would need a frame no port carries.
    parsed.l4 = u16::try_from(usize::from(parsed.l3) + offset).map_err(|_| Malformed::Ipv6BadExtension)?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
