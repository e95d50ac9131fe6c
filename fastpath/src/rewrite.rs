//! Stage 12: TTL, checksum and Ethernet addresses, in place; outer headers are `encapsulate.rs`'s.

use afxdp::Frame;
use model::PortKind;
use packet::{Kind, Layout, Parsed, ethernet, ipv4, ipv6};
use tables::{DropReason, Fate, HopState, NextHop, PuntReason, State};

use crate::batch::Run;
use crate::{Batch, encapsulate, options};

/// Makes every frame that goes on ready to leave, and gives it its fate.
#[inline(never)]
pub(crate) fn for_next_hop(batch: &mut Batch, state: &State) {
    let next_hops = &*state.next_hops;
    let Batch { frames, runs, fates, parsed, heads, hops, .. } = batch;
    for run in runs {
        let forwards = is_forwarded(run, state);
        let rows = run.rows();
        // Packets that came by the same port mostly leave alike.
        if forwards && hops.get(rows.start).is_some_and(|hop| !next_hops.get(*hop).is_plain()) {
            let columns = encapsulate::Columns { frames, fates, parsed, heads, hops };
            if encapsulate::plain_v4(rows.clone(), columns, state) {
                continue;
            }
        }
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
    if hop.is_plain() {
        write_addresses(frame.bytes_mut(), hop);
        return Ok(());
    }
    let template = state.next_hops.encapsulation(hop).ok_or(DropReason::PortDown)?;
    encapsulate::any(frame, parsed, template, &hop.addresses, &state.flow_hash)
}

#[inline(always)]
fn write_addresses(frame: &mut [u8], hop: &NextHop) {
    if let Some(addresses) = frame.first_chunk_mut() {
        *addresses = hop.addresses;
    }
}
