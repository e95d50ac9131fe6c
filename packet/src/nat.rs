//! Translating addresses and ports in place, as a NAT does (RFC 3022), and what ICMP errors quote (RFC 5508 §4).
//!
//! Checksums are changed by what changed under them (RFC 1624), never computed anew: a packet that came damaged leaves damaged,
//! and its length costs nothing. A UDP checksum of zero stays zero.

use model::Family;

use crate::{
    FlowKey, Fragment, Kind, Layout, Parsed, ethernet, icmp, ipv4, ipv6, octets, protocol, u16_at, u32_at,
};

/// DCCP (RFC 4340) and UDP-Lite (RFC 3828): their checksums, at the same place, cover the addresses.
const DCCP: u8 = 33;
const UDP_LITE: u8 = 136;

/// What was added under a checksum: the sum of each new word and the complement of the old one (RFC 1624 equation 3).
#[derive(Clone, Copy, Debug, Default)]
struct Change(u32);

impl Change {
    fn and(self, other: Change) -> Change {
        Change(self.0 + other.0)
    }

    /// The checksum after the change.
    fn applied_to(self, checksum: u16) -> u16 {
        let sum = u32::from(!checksum) + self.0;
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }
}

/// Writes bytes of an even number to an even place and says what changed.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) -> Change {
    let Some(place) = bytes.get_mut(at..at + new.len()) else { return Change::default() };
    let mut change = 0;
    for (old, new) in place.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0) {
        change += u32::from(!u16::from_be_bytes(*old)) + u32::from(u16::from_be_bytes(*new));
    }
    place.copy_from_slice(new);
    Change(change)
}

/// Brings a checksum up to date; says what that changed, for a checksum around it. What lies beyond the end is left out.
fn mend(bytes: &mut [u8], at: usize, change: Change, zero_is_none: bool) -> Change {
    let Some(old) = bytes.get(at..at + 2).map(|_| u16_at(bytes, at)) else { return Change::default() };
    if zero_is_none && old == 0 {
        return Change::default();
    }
    let new = match change.applied_to(old) {
        0 if zero_is_none => 0xffff,
        new => new,
    };
    put(bytes, at, &new.to_be_bytes())
}

/// The IP header at `l3` gets these addresses; its own checksum is brought up to date.
fn put_addresses(bytes: &mut [u8], l3: usize, family: Family, src: u128, dst: u128) -> (Change, Change) {
    match family {
        Family::V4 => {
            let change = put(bytes, l3 + 12, &(src as u32).to_be_bytes());
            let change = change.and(put(bytes, l3 + 16, &(dst as u32).to_be_bytes()));
            (change, mend(bytes, l3 + 10, change, false))
        }
        Family::V6 => {
            let change = put(bytes, l3 + 8, &src.to_be_bytes());
            (change.and(put(bytes, l3 + 24, &dst.to_be_bytes())), Change::default())
        }
    }
}

/// The upper-layer header at `l4` gets the ports of `to`, where it has other ones; its checksum is brought up to date. Says
/// what changed in all.
fn put_ports(bytes: &mut [u8], l4: usize, addresses: Change, from: &FlowKey, to: &FlowKey) -> Change {
    let mut ports = Change::default();
    match from.protocol {
        protocol::TCP | protocol::UDP => {
            if from.sport != to.sport {
                ports = ports.and(put(bytes, l4, &to.sport.to_be_bytes()));
            }
            if from.dport != to.dport {
                ports = ports.and(put(bytes, l4 + 2, &to.dport.to_be_bytes()));
            }
        }
        // An echo's identifier stands for both ports.
        protocol::ICMP | protocol::ICMPV6 if from.sport != to.sport => {
            ports = put(bytes, l4 + 4, &to.sport.to_be_bytes());
        }
        _ => {}
    }
    let mended = match from.protocol {
        protocol::TCP => mend(bytes, l4 + 16, addresses.and(ports), false),
        protocol::UDP => mend(bytes, l4 + 6, addresses.and(ports), true),
        protocol::ICMP => mend(bytes, l4 + 2, ports, false),
        protocol::ICMPV6 => mend(bytes, l4 + 2, addresses.and(ports), false),
        DCCP | UDP_LITE => mend(bytes, l4 + 6, addresses, false),
        _ => Change::default(),
    };
    ports.and(mended)
}

/// Where IPv4 and what it carries begin in [`Layout::PlainV4`].
const L3: usize = ethernet::HEADER_LEN;
const L4: usize = Layout::PLAIN_V4_LEN;

/// [`translate`] of TCP or UDP in a plain IPv4 frame, where all stands at fixed places, the upper layer's checksum at the end of
/// `LEN` bytes; `false`, and nothing is changed, where there are fewer.
#[inline(always)]
fn translate_plain<const LEN: usize>(frame: &mut [u8], zero_is_none: bool, to: &FlowKey) -> bool {
    let Some(head) = frame.first_chunk_mut::<LEN>() else { return false };
    let write = |head: &mut [u8; LEN], at: usize, value: u32| -> Change {
        let old = u32_at(head, at);
        if let Some(place) = head.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *place = value.to_be_bytes();
        }
        let words = |both: u32| (both >> 16) + (both & 0xffff);
        if old == value { Change::default() } else { Change(words(!old) + words(value)) }
    };
    let mend = |head: &mut [u8; LEN], at: usize, change: Change, zero_is_none: bool| {
        let old = u16_at(head, at);
        let new = match (change.applied_to(old), old) {
            (_, 0) if zero_is_none => 0,
            (0, _) if zero_is_none => 0xffff,
            (new, _) => new,
        };
        if let Some(place) = head.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *place = new.to_be_bytes();
        }
    };
    let addresses = write(head, L3 + 12, to.src as u32).and(write(head, L3 + 16, to.dst as u32));
    let ports = write(head, L4, u32::from(to.sport) << 16 | u32::from(to.dport));
    mend(head, L3 + 10, addresses, false);
    mend(head, LEN - 2, addresses.and(ports), zero_is_none);
    true
}

/// Makes a packet of one flow one of another. `from` is its [`FlowKey`], `to` of the same family and protocol; an SCTP port,
/// which is under a checksum of all the packet, stays. Of a later fragment only the addresses change.
pub fn translate(frame: &mut [u8], parsed: &Parsed, from: &FlowKey, to: &FlowKey) {
    let is_done = match (parsed.layout, parsed.protocol) {
        (Layout::PlainV4, protocol::TCP) => translate_plain::<{ L4 + 18 }>(frame, false, to),
        (Layout::PlainV4, protocol::UDP) => translate_plain::<{ L4 + 8 }>(frame, true, to),
        _ => false,
    };
    if is_done {
        return;
    }
    let (addresses, _) = put_addresses(frame, parsed.l3.into(), from.family, to.src, to.dst);
    if parsed.l4 != 0 {
        put_ports(frame, parsed.l4.into(), addresses, from, to);
    }
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its flow. Of a later fragment without ports.
    pub key: FlowKey,
    l3: u16,
    /// 0 where there is none.
    l4: u16,
}

/// An ICMP error quotes no packet that could be recognised: not of its family, cut off before the upper layer's first 8 bytes,
/// or an ICMP error again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet quoted in an ICMP error is malformed")]
pub struct BrokenQuote;

/// Is this packet an ICMP error?
pub fn is_icmp_error(frame: &[u8], parsed: &Parsed) -> bool {
    let Some(kind) = parsed.l4_packet(frame).first() else { return false };
    match (parsed.kind, parsed.protocol) {
        (Kind::Ipv4, protocol::ICMP) => icmp::v4::is_error(*kind),
        (Kind::Ipv6, protocol::ICMPV6) => icmp::v6::is_error(*kind),
        _ => false,
    }
}

/// What an ICMP error quotes; `frame` is one.
///
/// # Errors
/// [`BrokenQuote`]; also where the error is itself a fragment.
pub fn quoted(frame: &[u8], parsed: &Parsed) -> Result<Quoted, BrokenQuote> {
    if parsed.is_fragment() {
        return Err(BrokenQuote);
    }
    let l3 = usize::from(parsed.l4) + icmp::HEADER_LEN;
    let packet = frame.get(l3..parsed.l3_end()).ok_or(BrokenQuote)?;
    let (family, src, dst, protocol, header_len, fragment) = match parsed.kind {
        Kind::Ipv4 => quoted_v4(packet)?,
        Kind::Ipv6 => quoted_v6(packet)?,
        Kind::Arp | Kind::Other => return Err(BrokenQuote),
    };
    let (mut sport, mut dport, mut l4) = (0, 0, 0);
    if fragment != Fragment::Later {
        let upper: &[u8; 8] = packet.get(header_len..).and_then(<[u8]>::first_chunk).ok_or(BrokenQuote)?;
        l4 = l3 + header_len;
        let is_icmp = matches!(protocol, protocol::ICMP | protocol::ICMPV6);
        if matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
            (sport, dport) = (u16_at(upper, 0), u16_at(upper, 2));
        } else if is_icmp && icmp::is_echo(parsed.kind, upper[0]) {
            sport = u16_at(upper, 4);
            dport = sport;
        } else if protocol == protocol::ICMP && icmp::v4::is_error(upper[0])
            || protocol == protocol::ICMPV6 && icmp::v6::is_error(upper[0])
        {
            return Err(BrokenQuote);
        }
    }
    let key = FlowKey { src, dst, sport, dport, protocol, family };
    let place = |at: usize| u16::try_from(at).map_err(|_| BrokenQuote);
    Ok(Quoted { key, l3: place(l3)?, l4: place(l4)? })
}

type Header = (Family, u128, u128, u8, usize, Fragment);

fn quoted_v4(packet: &[u8]) -> Result<Header, BrokenQuote> {
    let header: &[u8; ipv4::HEADER_LEN] = packet.first_chunk().ok_or(BrokenQuote)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN {
        return Err(BrokenQuote);
    }
    let address = |at| u128::from(u32::from_be_bytes(octets(header, at)));
    let fragment = match u16_at(header, 6) & 0x1fff {
        0 => Fragment::Whole,
        _ => Fragment::Later,
    };
    Ok((Family::V4, address(12), address(16), header[9], header_len, fragment))
}

fn quoted_v6(packet: &[u8]) -> Result<Header, BrokenQuote> {
    let (header, payload) = packet.split_first_chunk::<{ ipv6::HEADER_LEN }>().ok_or(BrokenQuote)?;
    if header[0] >> 4 != 6 {
        return Err(BrokenQuote);
    }
    let chain = ipv6::walk(header[6], payload).map_err(|_| BrokenQuote)?;
    let address = |at| u128::from_be_bytes(octets(header, at));
    let header_len = ipv6::HEADER_LEN + chain.len;
    Ok((Family::V6, address(8), address(24), chain.protocol, header_len, chain.fragment))
}

/// Translates an ICMP error: it goes from `src` to `dst` from now on, and what it quotes becomes a packet of the flow `quote`.
pub fn translate_error(
    frame: &mut [u8],
    parsed: &Parsed,
    (src, dst): (u128, u128),
    quoted: &Quoted,
    quote: &FlowKey,
) {
    let family = quoted.key.family;
    let (inner, mended) = put_addresses(frame, quoted.l3.into(), family, quote.src, quote.dst);
    let mut inside = inner.and(mended);
    if quoted.l4 != 0 {
        // The quote ends with the packet: what lies behind is padding.
        let quote_end = parsed.l3_end().min(frame.len());
        let upper = &mut frame[..quote_end];
        inside = inside.and(put_ports(upper, quoted.l4.into(), inner, &quoted.key, quote));
    }
    let (outer, _) = put_addresses(frame, parsed.l3.into(), family, src, dst);
    let change = if family == Family::V6 { inside.and(outer) } else { inside };
    mend(frame, usize::from(parsed.l4) + 2, change, false);
}

/// The identification that the fragments of one datagram share; `None` for a whole packet.
pub fn fragment_id(frame: &[u8], parsed: &Parsed) -> Option<u32> {
    if !parsed.is_fragment() {
        return None;
    }
    let packet = parsed.l3_packet(frame);
    if parsed.kind == Kind::Ipv4 {
        return Some(u16_at(packet, 4).into());
    }
    // Parsing has walked this chain, so it ends.
    let (mut next, mut at) = (*packet.get(6)?, ipv6::HEADER_LEN);
    while next != protocol::FRAGMENT {
        let &[following, len, ..] = packet.get(at..)? else { return None };
        at += match next {
            protocol::AUTHENTICATION => (usize::from(len) + 2) * 4,
            _ => (usize::from(len) + 1) * 8,
        };
        next = following;
    }
    packet.get(at + 4..at + 8).map(|id| u32::from_be_bytes(octets(id, 0)))
}

#[cfg(test)]
mod tests;
