//! Stage 3: is this frame for us, and is it one that the walk handles?

use std::net::IpAddr;

use model::{MacAddr, PortId, PortKind};
use packet::{Kind, Layout, Parsed, protocol};
use tables::{DropReason, Fate, Port, PuntReason, State};

use crate::batch::drop_all;
use crate::heads::word;
use crate::{Batch, dhcp};

/// Decides frames that aren't IP packets addressed to this router; the rest goes on.
#[inline(never)]
pub(crate) fn frames_for_us(batch: &mut Batch, state: &State) {
    let Batch { frames, runs, fates, parsed, heads, .. } = batch;
    for run in runs {
        // The slow path's own packets carry no addresses yet: they are for us by birth.
        let Some(ingress) = run.ingress else { continue };
        let rows = run.rows();
        let (fates, parsed) = (&mut fates[rows.clone()], &parsed[rows.clone()]);
        match open_port(ingress, state) {
            Err(reason) => drop_all(fates, reason),
            Ok(port) => {
                let ours = word(port.mac);
                // Folded to the end, for the processor compares several at once.
                if heads.to[rows.clone()].iter().fold(true, |all, to| all & (*to == ours)) {
                    continue;
                }
                for ((frame, fate), parsed) in frames[rows].iter().zip(fates).zip(parsed) {
                    let destination = destination(frame.bytes());
                    let is_plain = parsed.layout != Layout::Other && word(destination) == ours;
                    if !is_plain && *fate == Fate::Undecided {
                        *fate = out_of_the_ordinary(frame.bytes(), parsed, destination, port, state);
                    }
                }
            }
        }
    }
}

/// The port, if anything at all may come in by it.
fn open_port(ingress: PortId, state: &State) -> Result<&Port, DropReason> {
    if !state.ready {
        return Err(DropReason::NotReady);
    }
    let port = state.ports.get(ingress).ok_or(DropReason::PortDown)?;
    match port.kind {
        PortKind::Workload if port.endpoint.is_none() => Err(DropReason::UnknownEndpoint),
        _ => Ok(port),
    }
}

/// Anything but an ordinary packet to this router.
#[cold]
fn out_of_the_ordinary(
    frame: &[u8],
    parsed: &Parsed,
    destination: MacAddr,
    port: &Port,
    state: &State,
) -> Fate {
    if parsed.vlan.is_some() {
        return Fate::Drop(DropReason::VlanTagged);
    }
    if destination != port.mac && !destination.is_multicast() {
        return Fate::Drop(DropReason::NotOurs);
    }
    match parsed.kind {
        Kind::Arp => Fate::Punt(PuntReason::Arp),
        Kind::Ipv6 if is_neighbor_discovery(parsed, frame) => Fate::Punt(PuntReason::NeighborDiscovery),
        // Whether it is a tunnel's packet is seen where tunnels are opened; anything else to a group ends after that.
        Kind::Ipv4 | Kind::Ipv6 if is_to_a_tunnels_group(frame, parsed, port, state) => Fate::Undecided,
        Kind::Ipv4 | Kind::Ipv6 if dhcp::is_to_all_servers(frame, parsed, port, state) => {
            Fate::Punt(PuntReason::Dhcp)
        }
        Kind::Ipv4 | Kind::Ipv6 if destination == MacAddr::BROADCAST => Fate::Drop(DropReason::Broadcast),
        Kind::Ipv4 | Kind::Ipv6 if destination.is_multicast() => Fate::Drop(DropReason::Multicast),
        Kind::Ipv4 | Kind::Ipv6 => Fate::Undecided,
        Kind::Other => Fate::Drop(DropReason::UnknownEthertype),
    }
}

/// Router and neighbour solicitations and advertisements, and redirects (RFC 4861 §4): never forwarded.
fn is_neighbor_discovery(parsed: &Parsed, frame: &[u8]) -> bool {
    parsed.protocol == protocol::ICMPV6 && matches!(parsed.l4_packet(frame).first(), Some(133..=137))
}

/// By an uplink, to a multicast group that tunnels end at?
fn is_to_a_tunnels_group(frame: &[u8], parsed: &Parsed, port: &Port, state: &State) -> bool {
    let destination = match parsed.kind {
        Kind::Ipv4 => parsed.ipv4_destination(frame).map(IpAddr::V4),
        _ => parsed.ipv6_destination(frame).map(IpAddr::V6),
    };
    port.kind == PortKind::Uplink
        && destination.is_some_and(|group| {
            group.is_multicast() && state.tunnel_ends.iter().any(|end| end.local == group)
        })
}

/// The first six bytes; parsing has seen that they are there.
fn destination(frame: &[u8]) -> MacAddr {
    frame.first_chunk().map_or(MacAddr::default(), |octets| MacAddr(*octets))
}
