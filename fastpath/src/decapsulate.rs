//! Stage 4: packets of tunnels that end here are opened, and the walk goes on with what is inside.
//!
//! A packet is opened once: what is inside and would have to be opened again is dropped. Fragments aren't put together.
//!
//! UDP checksums aren't looked at: over IPv4 there is none (RFC 7348 §5), and over IPv6 RFC 7348 leaves it to the
//! receiver. None at all is taken too: what RFC 6936 §4 asks of such an end, that it knows whom packets come from, is
//! done here, and what is inside has checksums of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use afxdp::Frame;
use model::{MacAddr, PortKind};
use packet::encapsulation::{VXLAN_HEADER_LEN, vni};
use packet::{Fragment, Kind, Layout, Parsed, ecn, ethernet, ipv4, ipv6, protocol, udp};
use tables::{AddressSet, DropReason, Fate, PuntReason, State, TunnelEnd, TunnelKind};

use crate::heads::Heads;
use crate::{Batch, parse};

/// Opens tunnel packets that came by an uplink. A workload's stay closed: it could send under any address inside.
#[inline(never)]
pub(crate) fn tunnels(batch: &mut Batch, state: &State) {
    if state.tunnel_ends.is_empty() {
        return;
    }
    let Batch { frames, runs, fates, parsed, heads, opened, .. } = batch;
    for run in runs {
        let port = run.ingress.and_then(|ingress| state.ports.get(ingress));
        if port.is_none_or(|port| port.kind != PortKind::Uplink) {
            continue;
        }
        let rows = run.rows();
        let (fates, parsed) = (&mut fates[rows.clone()], &mut parsed[rows.clone()]);
        for (((row, frame), fate), parsed) in rows.clone().zip(&mut frames[rows]).zip(fates).zip(parsed) {
            if *fate != Fate::Undecided || !matches!(parsed.protocol, protocol::IPIP | protocol::UDP) {
                continue;
            }
            let ends = &state.tunnel_ends[..];
            // Nearly every packet is to somewhere else, and that is seen here.
            if heads.plain_v4.contains(row) && !is_an_end(heads.destinations[row], ends) {
                continue;
            }
            let inside = Inside { row, heads, state };
            let outcome = if let Some(end) = plain_ipip(&inside, parsed) {
                open_plain_ipip(frame, parsed, end, inside)
            } else if let Some((end, mac)) = plain_vxlan(frame.bytes(), &inside, parsed) {
                open_plain_vxlan(frame, parsed, end, mac, inside)
            } else {
                match end_of(frame.bytes(), parsed, ends) {
                    Ok(None) => continue,
                    Ok(Some(end)) => open(frame, parsed, end, inside),
                    Err(reason) => Err(Fate::Drop(reason)),
                }
            };
            match outcome {
                Ok(()) => *opened |= 1 << row,
                Err(ended) => *fate = ended,
            }
        }
    }
}

/// What looking inside a row's packet takes.
struct Inside<'a> {
    row: usize,
    heads: &'a mut Heads,
    state: &'a State,
}

/// Do tunnels end at this IPv4 address?
#[inline(always)]
fn is_an_end(addr: u32, ends: &[TunnelEnd]) -> bool {
    ends.iter().any(|end| matches!(end.local, IpAddr::V4(local) if u32::from(local) == addr))
}

/// The end that a plain frame with IPIP is addressed to. What is special about it is left to [`end_of`].
#[inline(always)]
fn plain_ipip<'a>(inside: &Inside<'a>, parsed: &Parsed) -> Option<&'a TunnelEnd> {
    if parsed.protocol != protocol::IPIP || !inside.heads.plain_v4.contains(inside.row) {
        return None;
    }
    let to = IpAddr::V4(inside.heads.destinations[inside.row].into());
    let mut ends = inside.state.tunnel_ends.iter();
    ends.find(|end| end.kind == TunnelKind::Ipip && end.local == to && !end.resolves)
}

/// [`open`] for a plain frame, in which all stands at fixed places.
#[inline(always)]
fn open_plain_ipip(
    frame: &mut Frame,
    parsed: &mut Parsed,
    end: &TunnelEnd,
    inside: Inside<'_>,
) -> Result<(), Fate> {
    const MALFORMED: Fate = Fate::Drop(DropReason::TunnelMalformed);
    if !end.knows_v4(inside.heads.sources[inside.row].into()) {
        return Err(Fate::Drop(DropReason::UnknownTunnelSource));
    }
    // Ethernet padding of the outer frame is not part of what is inside.
    frame.set_len(parsed.l3_end()).map_err(|_| MALFORMED)?;
    let outer = frame.bytes().get(ethernet::HEADER_LEN + 1).copied().ok_or(MALFORMED)?;
    frame.trim_front(ipv4::HEADER_LEN).map_err(|_| MALFORMED)?;
    let head: &mut [u8; ethernet::HEADER_LEN] = frame.bytes_mut().first_chunk_mut().ok_or(MALFORMED)?;
    head[12..].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    go_on_inside(frame, parsed, outer, inside).map_err(Fate::Drop)
}

/// The end that a plain frame with VXLAN is addressed to, and its MAC address. As [`plain_ipip`].
#[inline(always)]
fn plain_vxlan<'a>(frame: &[u8], inside: &Inside<'a>, parsed: &Parsed) -> Option<(&'a TunnelEnd, MacAddr)> {
    let Inside { row, heads, state } = inside;
    if parsed.protocol != protocol::UDP || !heads.plain_v4.contains(*row) {
        return None;
    }
    let (to, to_port) = (IpAddr::V4(heads.destinations[*row].into()), heads.ports[*row] as u16);
    let asked = vni(frame.get(Layout::PLAIN_V4_LEN + udp::HEADER_LEN..)?)?;
    for end in &*state.tunnel_ends {
        let TunnelKind::Vxlan { port, vni, mac } = end.kind else { continue };
        if port == to_port && vni == asked && end.local == to {
            return (!end.resolves).then_some((end, mac));
        }
    }
    None
}

/// [`open`] for a plain frame, in which all stands at fixed places.
#[inline(always)]
fn open_plain_vxlan(
    frame: &mut Frame,
    parsed: &mut Parsed,
    end: &TunnelEnd,
    mac: MacAddr,
    inside: Inside<'_>,
) -> Result<(), Fate> {
    if !end.knows_v4(inside.heads.sources[inside.row].into()) {
        return Err(Fate::Drop(DropReason::UnknownTunnelSource));
    }
    let outer = frame.bytes().get(ethernet::HEADER_LEN + 1).copied().unwrap_or(0);
    take_off_vxlan(frame, Layout::PLAIN_V4_LEN, parsed.l3_end(), mac).map_err(Fate::Drop)?;
    go_on_inside(frame, parsed, outer, inside).map_err(Fate::Drop)
}

/// The tunnel end that a packet is addressed to, or why it is dropped although it is addressed to one.
#[inline(always)]
fn end_of<'a>(
    frame: &[u8],
    parsed: &Parsed,
    ends: &'a [TunnelEnd],
) -> Result<Option<&'a TunnelEnd>, DropReason> {
    let first = match parsed.kind {
        Kind::Ipv4 => {
            let to = parsed.ipv4_destination(frame).unwrap_or(Ipv4Addr::UNSPECIFIED);
            ends.iter().position(|end| matches!(end.local, IpAddr::V4(local) if local == to))
        }
        _ => {
            let to = parsed.ipv6_destination(frame).unwrap_or(Ipv6Addr::UNSPECIFIED);
            ends.iter().position(|end| matches!(end.local, IpAddr::V6(local) if local == to))
        }
    };
    match first.and_then(|first| ends.get(first..)) {
        Some(ends) => end_here(frame, parsed, ends),
        None => Ok(None),
    }
}

/// [`end_of`] a packet to an address at which tunnels end, of which the first of `ends` is one.
fn end_here<'a>(
    frame: &[u8],
    parsed: &Parsed,
    ends: &'a [TunnelEnd],
) -> Result<Option<&'a TunnelEnd>, DropReason> {
    let Some(local) = ends.first().map(|end| end.local) else { return Ok(None) };
    let mut here = ends.iter().filter(|end| end.local == local);
    if parsed.protocol == protocol::IPIP {
        let end = here.find(|end| end.kind == TunnelKind::Ipip);
        return match end {
            Some(_) if parsed.fragment != Fragment::Whole => Err(DropReason::TunnelFragment),
            end => Ok(end),
        };
    }
    // A later fragment shows no port: it goes on as what it is, to this box.
    let Some(datagram) = frame.get(usize::from(parsed.l4)..).filter(|_| parsed.l4 != 0) else {
        return Ok(None);
    };
    let to = u16_at(datagram, 2);
    let asked = datagram.get(udp::HEADER_LEN..).and_then(vni);
    let mut is_vxlan = false;
    for end in here {
        let TunnelKind::Vxlan { port, vni, .. } = end.kind else { continue };
        if port == to && asked == Some(vni) && parsed.fragment == Fragment::Whole {
            return Ok(Some(end));
        }
        is_vxlan |= port == to;
    }
    match is_vxlan {
        false => Ok(None),
        true if parsed.fragment != Fragment::Whole => Err(DropReason::TunnelFragment),
        true if asked.is_none() => Err(DropReason::TunnelMalformed),
        true => Err(DropReason::UnknownVni),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]))
}

/// Takes the outer headers off and parses what was inside; otherwise says how the packet's walk ends. What asks or tells who
/// is where in a segment goes up as it came, for it is the outer source that the slow path learns.
#[inline(never)]
fn open(frame: &mut Frame, parsed: &mut Parsed, end: &TunnelEnd, inside: Inside<'_>) -> Result<(), Fate> {
    if !is_known(frame.bytes(), parsed, end) {
        return Err(Fate::Drop(DropReason::UnknownTunnelSource));
    }
    if end.resolves && resolves_inside(frame.bytes(), parsed) {
        return Err(Fate::Punt(PuntReason::InsideSegment));
    }
    take_off(frame, parsed, end, inside).map_err(Fate::Drop)
}

/// Is there ARP or neighbour discovery inside this VXLAN packet? As in `admit.rs`; extension headers in front of the latter
/// are nobody's practice.
fn resolves_inside(frame: &[u8], parsed: &Parsed) -> bool {
    let inner = frame.get(usize::from(parsed.l4) + udp::HEADER_LEN + VXLAN_HEADER_LEN..).unwrap_or(&[]);
    match u16_at(inner, 12) {
        ethernet::ARP => true,
        ethernet::IPV6 => {
            inner.get(ethernet::HEADER_LEN + 6) == Some(&protocol::ICMPV6)
                && matches!(inner.get(ethernet::HEADER_LEN + ipv6::HEADER_LEN), Some(133..=137))
        }
        _ => false,
    }
}

#[inline(always)]
fn take_off(
    frame: &mut Frame,
    parsed: &mut Parsed,
    end: &TunnelEnd,
    inside: Inside<'_>,
) -> Result<(), DropReason> {
    let outer = traffic_class(frame.bytes(), parsed);
    match end.kind {
        TunnelKind::Ipip => take_off_ipip(frame, parsed),
        TunnelKind::Vxlan { mac, .. } => take_off_vxlan(frame, parsed.l4.into(), parsed.l3_end(), mac),
    }?;
    go_on_inside(frame, parsed, outer, inside)
}

/// What was inside a packet without its outer header, which had this traffic class.
#[inline(always)]
fn go_on_inside(
    frame: &mut Frame,
    parsed: &mut Parsed,
    outer: u8,
    inside: Inside<'_>,
) -> Result<(), DropReason> {
    let Inside { row, heads, state } = inside;
    parse_inner(frame.bytes(), parsed, row, heads)?;
    let may_be_nested = matches!(parsed.protocol, protocol::IPIP | protocol::UDP)
        && (!heads.plain_v4.contains(row) || is_an_end(heads.destinations[row], &state.tunnel_ends));
    if may_be_nested && !matches!(end_of(frame.bytes(), parsed, &state.tunnel_ends), Ok(None)) {
        return Err(DropReason::TunnelNested);
    }
    if is_from(frame.bytes(), parsed, &state.own_addresses) {
        return Err(DropReason::TunnelOwnSource);
    }
    match ecn::carry_in(frame.bytes_mut(), parsed.l3.into(), outer) {
        true => Ok(()),
        false => Err(DropReason::TunnelCongested),
    }
}

/// Is what was inside from one of these addresses? From this router's own the kernel would believe it: what the host sends
/// by a tunnel comes back to it by the port that the walk hands it packets by, so it takes its own addresses there
/// (`accept_local`).
#[inline(always)]
fn is_from(frame: &[u8], parsed: &Parsed, own: &AddressSet) -> bool {
    const SOURCE: usize = ethernet::HEADER_LEN + 12;
    if parsed.layout == Layout::PlainV4
        && let Some(head) = frame.first_chunk::<{ Layout::PLAIN_V4_LEN }>()
    {
        return own.has_v4([head[SOURCE], head[SOURCE + 1], head[SOURCE + 2], head[SOURCE + 3]].into());
    }
    match parsed.ipv4_source(frame) {
        Some(source) => own.has_v4(source),
        None => parsed.ipv6_source(frame).is_some_and(|source| own.has_v6(source)),
    }
}

/// [`ecn::traffic_class`] of a packet whose family is known.
#[inline(always)]
fn traffic_class(frame: &[u8], parsed: &Parsed) -> u8 {
    let l3 = usize::from(parsed.l3);
    match parsed.kind {
        Kind::Ipv4 => frame.get(l3 + 1).copied().unwrap_or(0),
        _ => frame.get(l3..).map_or(0, ecn::traffic_class),
    }
}

/// May the sender send packets to this end?
fn is_known(frame: &[u8], parsed: &Parsed, end: &TunnelEnd) -> bool {
    match parsed.ipv4_source(frame) {
        Some(source) => end.knows_v4(source),
        None => parsed.ipv6_source(frame).is_some_and(|source| end.knows_v6(source)),
    }
}

/// The inner packet has no Ethernet header: the last bytes of the outer one become it.
fn take_off_ipip(frame: &mut Frame, parsed: &Parsed) -> Result<(), DropReason> {
    // Ethernet padding of the outer frame is not part of what is inside.
    frame.set_len(parsed.l3_end()).map_err(|_| DropReason::TunnelMalformed)?;
    let l4 = usize::from(parsed.l4);
    let front = l4.checked_sub(ethernet::HEADER_LEN).ok_or(DropReason::TunnelMalformed)?;
    frame.trim_front(front).map_err(|_| DropReason::TunnelMalformed)?;
    let ethertype = frame.bytes_mut().get_mut(12..14).ok_or(DropReason::TunnelMalformed)?;
    ethertype.copy_from_slice(&ethernet::IPV4.to_be_bytes());
    Ok(())
}

/// `l4`, `l3_end`: where the datagram begins and its packet ends. `mac`: the end's own address, to which the frame inside must
/// be addressed.
#[inline(always)]
fn take_off_vxlan(frame: &mut Frame, l4: usize, l3_end: usize, mac: MacAddr) -> Result<(), DropReason> {
    let datagram = frame.bytes().get(l4..).unwrap_or(&[]);
    // What follows the datagram in the IP packet, or the packet in the frame, is not part of what is inside.
    let end = l4 + usize::from(u16_at(datagram, 4));
    if end > l3_end {
        return Err(DropReason::TunnelMalformed);
    }
    frame.set_len(end).map_err(|_| DropReason::TunnelMalformed)?;
    let front = l4 + udp::HEADER_LEN + VXLAN_HEADER_LEN;
    frame.trim_front(front).map_err(|_| DropReason::TunnelMalformed)?;
    match frame.bytes().first_chunk() {
        Some(destination) if *destination == mac.0 => Ok(()),
        Some(_) => Err(DropReason::TunnelNotOurs),
        None => Err(DropReason::TunnelMalformed),
    }
}

/// As `parse.rs`, and only IP goes on.
#[inline(always)]
fn parse_inner(frame: &[u8], parsed: &mut Parsed, row: usize, heads: &mut Heads) -> Result<(), DropReason> {
    let head = packet::parse_plain_into(frame, parsed);
    heads.replace(row, head);
    if head.is_some() { Ok(()) } else { parse_inner_of_any(frame, parsed) }
}

#[inline(never)]
fn parse_inner_of_any(frame: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    *parsed = packet::parse(frame).map_err(parse::reason)?;
    // RFC 7348 §6.1: an inner tag is discarded unless configured otherwise.
    if parsed.vlan.is_some() {
        return Err(DropReason::VlanTagged);
    }
    if parsed.is_ip() { Ok(()) } else { Err(DropReason::TunnelMalformed) }
}
