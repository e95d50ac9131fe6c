//! Stage 3: is this frame for us, and is it one that the walk handles?

use model::{MacAddr, PortKind};
use packet::{Kind, Parsed, protocol};
use tables::{DropReason, Fate, Port, PuntReason, State};

use crate::Batch;

/// Decides frames that aren't IP packets addressed to this router; the rest goes on.
pub(crate) fn frames_for_us(batch: &mut Batch, state: &State) {
    for row in 0..batch.len() {
        if !batch.undecided(row) {
            continue;
        }
        // The slow path's own packets carry no addresses yet: they are for us by birth.
        let Some(ingress) = batch.ingress[row] else { continue };
        if !state.ready {
            batch.drop(row, DropReason::NotReady);
            continue;
        }
        match state.ports.get(ingress) {
            None => batch.drop(row, DropReason::PortDown),
            Some(port) => batch.fates[row] = admit(batch, row, port),
        }
    }
}

fn admit(batch: &Batch, row: usize, port: &Port) -> Fate {
    let (frame, parsed) = (batch.frames[row].bytes(), &batch.parsed[row]);
    if parsed.vlan.is_some() {
        return Fate::Drop(DropReason::VlanTagged);
    }
    if port.kind == PortKind::Workload && port.endpoint.is_none() {
        return Fate::Drop(DropReason::UnknownEndpoint);
    }
    let destination = destination(frame);
    if destination != port.mac && !destination.is_multicast() {
        return Fate::Drop(DropReason::NotOurs);
    }
    match parsed.kind {
        Kind::Arp => Fate::Punt(PuntReason::Arp),
        Kind::Ipv6 if is_neighbor_discovery(parsed, frame) => Fate::Punt(PuntReason::NeighborDiscovery),
        Kind::Ipv4 | Kind::Ipv6 if destination.is_multicast() => Fate::Drop(DropReason::Multicast),
        Kind::Ipv4 | Kind::Ipv6 => Fate::Undecided,
        Kind::Other => Fate::Drop(DropReason::UnknownEthertype),
    }
}

/// Router and neighbour solicitations and advertisements, and redirects (RFC 4861 §4): never forwarded.
fn is_neighbor_discovery(parsed: &Parsed, frame: &[u8]) -> bool {
    parsed.protocol == protocol::ICMPV6 && matches!(parsed.l4_packet(frame).first(), Some(133..=137))
}

/// The first six bytes; parsing has seen that they are there.
fn destination(frame: &[u8]) -> MacAddr {
    frame.first_chunk().map_or(MacAddr::default(), |octets| MacAddr(*octets))
}
