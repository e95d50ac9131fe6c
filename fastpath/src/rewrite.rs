//! Stage 12: TTL, checksum, Ethernet addresses and outer headers, in place.

use afxdp::Frame;
use model::PortKind;
use packet::encapsulation::Template;
use packet::{FlowHash, Kind, Layout, Parsed, ethernet, ipv4, ipv6};
use tables::{DropReason, Fate, HopState, NextHop, PuntReason, State};

use crate::batch::Run;
use crate::route::flow_hash;
use crate::{Batch, options};

/// The first of the ports that VXLAN's source port is drawn from (RFC 7348 §5: the dynamic range of RFC 6335), and how many
/// they are.
const ENTROPY: (u16, u16) = (49_152, 16_384);

/// Makes every frame that goes on ready to leave, and gives it its fate.
#[inline(never)]
pub(crate) fn for_next_hop(batch: &mut Batch, state: &State) {
    let next_hops = &*state.next_hops;
    let Batch { frames, runs, fates, parsed, hops, .. } = batch;
    for run in runs {
        let forwards = is_forwarded(run, state);
        let rows = run.rows();
        let (fates, parsed, hops) = (&mut fates[rows.clone()], &parsed[rows.clone()], &hops[rows.clone()]);
        for (((frame, fate), parsed), hop) in frames[rows].iter_mut().zip(fates).zip(parsed).zip(hops) {
            let hop = next_hops.get(*hop);
            let is_ordinary = forwards && parsed.ttl > 1 && hop.is_ordinary_for(parsed.l3_len);
            if *fate != Fate::Undecided {
                continue;
            }
            // Each writes its own fate: a value that comes from one of two places is taken apart and put together again.
            if is_ordinary && rewrite_plain(frame.bytes_mut(), parsed, hop) {
                *fate = Fate::Forward(hop.port);
            } else {
                *fate = rewrite(frame, parsed, hop, forwards, state);
            }
        }
    }
}

/// A packet that starts on this box is not forwarded, so its TTL stays as it is.
fn is_forwarded(run: &Run, state: &State) -> bool {
    let port = run.ingress.map(|ingress| state.ports.get(ingress));
    port.is_some_and(|port| port.is_none_or(|port| port.kind != PortKind::Host))
}

/// A plain packet to another box, small enough and with two hops left or more: the one that nearly every packet is. Of a frame with
/// another layout nothing is changed, and `false` says so.
#[inline(always)]
fn rewrite_plain(frame: &mut [u8], parsed: &Parsed, hop: &NextHop) -> bool {
    match parsed.layout {
        Layout::PlainV4 => {
            let Some(head) = frame.first_chunk_mut::<{ Layout::PLAIN_V4_LEN }>() else { return false };
            let Some(header) = head.last_chunk_mut() else { return false };
            ipv4::lower_ttl(header, parsed.ttl.wrapping_sub(1));
            write_addresses(head, hop);
        }
        Layout::PlainV6 => {
            let Some(head) = frame.first_chunk_mut::<{ Layout::PLAIN_V6_LEN }>() else { return false };
            ipv6::decrement_hop_limit(&mut head[ethernet::HEADER_LEN..]);
            write_addresses(head, hop);
        }
        Layout::Other => return false,
    }
    true
}

/// Any packet. Apart from the loop, whose registers the ordinary ones need.
#[inline(never)]
fn rewrite(frame: &mut Frame, parsed: &Parsed, hop: &NextHop, forwards: bool, state: &State) -> Fate {
    if hop.state != HopState::Ready {
        return Fate::Drop(DropReason::PortDown);
    }
    if forwards
        && !hop.to_host
        && parsed.layout == Layout::PlainV4
        && parsed.ttl > 1
        && parsed.l3_len <= hop.mtu
        && let Some(template) = state.next_hops.encapsulation(hop)
    {
        return match encapsulate_plain(frame, parsed, template, hop, &state.flow_hash) {
            Ok(()) => Fate::Forward(hop.port),
            Err(reason) => Fate::Drop(reason),
        };
    }
    if parsed.layout == Layout::Other
        && let Some(fate) = options::judge(frame.bytes(), parsed)
    {
        return fate;
    }
    let decrements = forwards && !hop.to_host;
    // RFC 1812 §5.3.1, RFC 8200 §3: what arrives with 1 (or 0) goes no further.
    if decrements && parsed.ttl <= 1 {
        return Fate::Punt(PuntReason::TtlExceeded);
    }
    let is_too_big = parsed.l3_len > hop.mtu;
    if is_too_big && (parsed.kind == Kind::Ipv6 || parsed.dont_fragment) {
        return Fate::Punt(PuntReason::TooBig);
    }
    let bytes = frame.bytes_mut();
    if decrements
        && parsed.layout == Layout::PlainV4
        && let Some(head) = bytes.first_chunk_mut::<{ Layout::PLAIN_V4_LEN }>()
    {
        ipv4::decrement_ttl(&mut head[ethernet::HEADER_LEN..]);
    } else if decrements && let Some(header) = bytes.get_mut(usize::from(parsed.l3)..) {
        let _ = match parsed.kind {
            Kind::Ipv4 => ipv4::decrement_ttl(header),
            _ => ipv6::decrement_hop_limit(header),
        };
    }
    if is_too_big {
        return Fate::Fragment(hop.port);
    }
    match dress(frame, parsed, hop, state) {
        Ok(()) => Fate::Forward(hop.port),
        Err(reason) => Fate::Drop(reason),
    }
}

/// Puts Ethernet addresses, and an outer header where the next hop has one, onto a packet that fits its MTU.
pub(crate) fn dress(
    frame: &mut Frame,
    parsed: &Parsed,
    hop: &NextHop,
    state: &State,
) -> Result<(), DropReason> {
    if !hop.is_plain() {
        let template = state.next_hops.encapsulation(hop).ok_or(DropReason::PortDown)?;
        encapsulate(frame, parsed, template, &state.flow_hash)?;
    }
    write_addresses(frame.bytes_mut(), hop);
    Ok(())
}

#[inline(always)]
fn write_addresses(frame: &mut [u8], hop: &NextHop) {
    if let Some(addresses) = frame.first_chunk_mut() {
        *addresses = hop.addresses;
    }
}

/// A plain IPv4 packet, small enough and with hops left, that leaves in a tunnel: what nearly all of a tunnel's packets are.
#[inline(always)]
fn encapsulate_plain(
    frame: &mut Frame,
    parsed: &Parsed,
    template: &Template,
    hop: &NextHop,
    hash: &FlowHash,
) -> Result<(), DropReason> {
    let head: &mut [u8; Layout::PLAIN_V4_LEN] =
        frame.bytes_mut().first_chunk_mut().ok_or(DropReason::PortDown)?;
    ipv4::decrement_ttl(&mut head[ethernet::HEADER_LEN..]);
    let tos = head[ethernet::HEADER_LEN + 1];
    wrap(frame, parsed, template, tos, hash)?;
    write_addresses(frame.bytes_mut(), hop);
    Ok(())
}

/// Puts the outer header in front of what a tunnel of its kind can carry.
fn encapsulate(
    frame: &mut Frame,
    parsed: &Parsed,
    template: &Template,
    hash: &FlowHash,
) -> Result<(), DropReason> {
    let bytes = frame.bytes();
    let l3 = usize::from(parsed.l3);
    let tos = match (parsed.kind, bytes.get(l3..l3 + 2)) {
        (Kind::Ipv4, Some(&[_, tos])) => tos,
        (_, Some(&[first, second])) => first << 4 | second >> 4,
        _ => 0,
    };
    if !template.is_vxlan() && parsed.kind != Kind::Ipv4 {
        return Err(DropReason::TunnelFamily);
    }
    wrap(frame, parsed, template, tos, hash)
}

/// Puts the outer header in front. The frame's room for it is the kernel's headroom, so nothing is copied. `tos`: the packet's
/// own, or its traffic class.
#[inline(always)]
fn wrap(
    frame: &mut Frame,
    parsed: &Parsed,
    template: &Template,
    tos: u8,
    hash: &FlowHash,
) -> Result<(), DropReason> {
    let entropy = match template.is_vxlan() {
        true => ENTROPY.0 + (flow_hash(hash, frame.bytes(), parsed) >> 16) as u16 % ENTROPY.1,
        false => 0,
    };
    let overhead = template.overhead();
    // The MTU has been looked at, so the length fits 16 bits.
    let ip_len = parsed.l3_len + overhead;
    // Padding behind the packet would end up inside the tunnel.
    let cut = frame.set_len(parsed.l3_end());
    let grown = cut.and_then(|()| frame.grow_front(overhead.into()));
    debug_assert!(
        grown.is_ok(),
        "a received frame has 256 bytes in front, and no packet is encapsulated twice"
    );
    grown.map_err(|_| DropReason::PortDown)?;
    template.write(frame.bytes_mut(), ip_len, tos, entropy);
    Ok(())
}
