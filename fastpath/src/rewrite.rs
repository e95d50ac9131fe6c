//! Stage 8: TTL, checksum and Ethernet addresses, in place.

use model::{PortId, PortKind};
use packet::{Kind, ipv4, ipv6};
use tables::{DropReason, Fate, Ports, PuntReason, State};

use crate::Batch;

/// Makes every frame that goes on ready to leave, and gives it its fate.
pub(crate) fn for_next_hop(batch: &mut Batch, state: &State) {
    for row in 0..batch.len() {
        if batch.undecided(row) {
            batch.fates[row] = rewrite(batch, row, state);
        }
    }
}

fn rewrite(batch: &mut Batch, row: usize, state: &State) -> Fate {
    let egress = batch.egress[row];
    let parsed = batch.parsed[row];
    let adjacency = batch.adjacency[row].and_then(|id| state.adjacency(id));
    let (Some(port), Some(addresses)) =
        (state.ports.get(egress), adjacency.and_then(|adjacency| adjacency.addresses))
    else {
        return Fate::Drop(DropReason::PortDown);
    };
    let decrements = decrements_ttl(batch.ingress[row], egress, &state.ports);
    // RFC 1812 §5.3.1, RFC 8200 §3: what arrives with 1 (or 0) goes no further.
    if decrements && parsed.ttl <= 1 {
        return Fate::Punt(PuntReason::TtlExceeded);
    }
    if parsed.l3_len > port.mtu {
        let told = parsed.kind == Kind::Ipv6 || parsed.dont_fragment;
        return if told {
            Fate::Punt(PuntReason::TooBig)
        } else {
            Fate::Drop(DropReason::NeedsFragmentation)
        };
    }
    let bytes = batch.frames[row].bytes_mut();
    bytes[..12].copy_from_slice(&addresses);
    if decrements {
        let header = &mut bytes[usize::from(parsed.l3)..];
        let _ = match parsed.kind {
            Kind::Ipv4 => ipv4::decrement_ttl(header),
            _ => ipv6::decrement_hop_limit(header),
        };
    }
    Fate::Forward(egress)
}

/// A packet that starts or ends on this box is not forwarded, so its TTL stays as it is.
fn decrements_ttl(ingress: Option<PortId>, egress: PortId, ports: &Ports) -> bool {
    let is_host = |id: PortId| ports.get(id).is_some_and(|port| port.kind == PortKind::Host);
    ingress.is_some_and(|ingress| !is_host(ingress)) && !is_host(egress)
}
