//! Stage 12, of packets that leave in a tunnel: TTL, outer header and Ethernet addresses.

use std::ops::Range;

use afxdp::Frame;
use packet::encapsulation::{Template, VXLAN_PORT, VXLAN_PORT_OF_LINUX};
use packet::{FlowHash, Kind, Layout, Parsed, ethernet, ipv4, protocol};
use tables::{DropReason, Fate, HopIndex, NextHop, State};

use crate::BATCH;
use crate::heads::Heads;
use crate::route::flow_hash;

/// The first of the ports that VXLAN's source port is drawn from (RFC 7348 §5: the dynamic range of RFC 6335), and how many
/// they are.
const ENTROPY: (u16, u16) = (49_152, 16_384);

/// What rewriting asks of a batch.
pub(crate) struct Columns<'a> {
    pub(crate) frames: &'a mut [Frame],
    pub(crate) fates: &'a mut [Fate],
    pub(crate) parsed: &'a [Parsed],
    pub(crate) heads: &'a Heads,
    pub(crate) hops: &'a [HopIndex],
}

/// Has plain IPv4 packets leave in their tunnels that are small enough and have two hops left or more, as nearly all of a
/// tunnel's packets are, and says whether no other is left. Others stay as they are.
#[inline(never)]
pub(crate) fn plain_v4(rows: Range<usize>, columns: Columns<'_>, state: &State) -> bool {
    let Columns { frames, fates, parsed, heads, hops } = columns;
    let next_hops = &*state.next_hops;
    let (frames, fates) = (&mut frames[rows.clone()], &mut fates[rows.clone()]);
    let (parsed, hops) = (&parsed[rows.clone()], &hops[rows.clone()]);
    // In a loop of its own, so that each has registers enough.
    let mut ports = [0; BATCH];
    if next_hops.has_vxlan() {
        source_ports(rows.clone(), frames, parsed, heads, &state.flow_hash, &mut ports);
    }
    for ((((frame, fate), parsed), hop), port) in
        frames.iter_mut().zip(&mut *fates).zip(parsed).zip(hops).zip(&ports)
    {
        let hop = next_hops.get(*hop);
        if *fate != Fate::Undecided {
            continue;
        }
        if parsed.ttl > 1
            && hop.is_tunnel_for(parsed.l3_len)
            && parsed.layout == Layout::PlainV4
            && let Some(template) = next_hops.encapsulation(hop)
        {
            debug_assert!(
                !template.is_vxlan()
                    || *port == source_port(flow_hash(&state.flow_hash, frame.bytes(), parsed)),
                "columns hold what stands in the frame"
            );
            if !wrap_plain(frame, parsed, template, hop, *port) {
                continue;
            }
            *fate = Fate::Forward(hop.port);
        }
    }
    // Folded to the end, for the processor compares several at once.
    fates.iter().fold(true, |all, fate| all & (*fate != Fate::Undecided))
}

/// The UDP source port of each plain packet, if it goes into VXLAN: its flow's hash. Of others the number means nothing.
#[inline(always)]
fn source_ports(
    rows: Range<usize>,
    frames: &[Frame],
    parsed: &[Parsed],
    heads: &Heads,
    hash: &FlowHash,
    ports: &mut [u16; BATCH],
) {
    let addresses = heads.sources[rows.clone()].iter().zip(&heads.destinations[rows.clone()]);
    let flows = addresses.zip(&heads.ports[rows]);
    for ((port, (frame, parsed)), ((src, dst), l4)) in
        ports.iter_mut().zip(frames.iter().zip(parsed)).zip(flows)
    {
        let has_ports = matches!(parsed.protocol, protocol::TCP | protocol::UDP);
        let hash = match has_ports && !matches!(*l4 as u16, VXLAN_PORT | VXLAN_PORT_OF_LINUX) {
            true => hash.of_v4(*src, *dst, *l4, parsed.protocol),
            false if parsed.layout == Layout::PlainV4 => flow_hash(hash, frame.bytes(), parsed),
            false => continue,
        };
        *port = source_port(hash);
    }
}

/// `false`: there is no room, and nothing was changed.
#[inline(always)]
fn wrap_plain(frame: &mut Frame, parsed: &Parsed, template: &Template, hop: &NextHop, port: u16) -> bool {
    let overhead = template.overhead();
    // Padding behind the packet would end up inside the tunnel.
    if frame.headroom() < overhead.into() || frame.set_len(parsed.l3_end()).is_err() {
        return false;
    }
    let Some(head) = frame.bytes_mut().first_chunk_mut::<{ Layout::PLAIN_V4_LEN }>() else { return false };
    let tos = head[ethernet::HEADER_LEN + 1];
    let Some(header) = head.last_chunk_mut() else { return false };
    ipv4::lower_ttl(header, parsed.ttl.wrapping_sub(1));
    let grown = frame.grow_front(overhead.into());
    debug_assert!(grown.is_ok(), "there is room in front");
    let ip_len = parsed.l3_len + overhead;
    template.write_below(&hop.addresses, frame.bytes_mut(), ip_len, tos, port, ipv4::HEADER_LEN);
    true
}

/// Puts the outer header in front of what a tunnel of its kind can carry.
pub(crate) fn any(
    frame: &mut Frame,
    parsed: &Parsed,
    template: &Template,
    addresses: &[u8; 12],
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
    let entropy = if template.is_vxlan() { source_port(flow_hash(hash, bytes, parsed)) } else { 0 };
    wrap(frame, parsed, template, addresses, tos, entropy)
}

/// The UDP source port of a flow's packets in VXLAN.
#[inline(always)]
fn source_port(hash: u32) -> u16 {
    ENTROPY.0 + (hash >> 16) as u16 % ENTROPY.1
}

/// Puts the outer header in front. The frame's room for it is the kernel's headroom, so nothing is copied. `tos`: the packet's
/// own, or its traffic class. `entropy`: VXLAN's UDP source port.
#[inline(always)]
fn wrap(
    frame: &mut Frame,
    parsed: &Parsed,
    template: &Template,
    addresses: &[u8; 12],
    tos: u8,
    entropy: u16,
) -> Result<(), DropReason> {
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
    template.write_below(addresses, frame.bytes_mut(), ip_len, tos, entropy, 0);
    Ok(())
}
