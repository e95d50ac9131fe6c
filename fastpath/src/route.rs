//! Stage 6: destination to adjacency.
//!
//! Looked up once: rewriting and transmitting use what this stage leaves.

use packet::FlowKey;
use tables::{AdjacencyId, DropReason, Group, PuntReason, Snapshot};

use crate::Batch;

/// Leaves an adjacency and a port to leave by for every frame that goes on.
pub(crate) fn next_hop(batch: &mut Batch, tables: &Snapshot<'_>) {
    for row in 0..batch.len() {
        if batch.undecided(row) {
            route(batch, row, tables);
        }
    }
}

fn route(batch: &mut Batch, row: usize, tables: &Snapshot<'_>) {
    let (frame, parsed) = (batch.frames[row].bytes(), &batch.parsed[row]);
    let group = match parsed.ipv4_destination(frame) {
        Some(destination) => tables.fib.lookup_v4(destination.into()),
        None => {
            parsed.ipv6_destination(frame).and_then(|destination| tables.fib.lookup_v6(destination.into()))
        }
    };
    // The tables promise that a route's group is there; a missing row can only be treated like a missing route.
    let Some(group) = group.and_then(|group| tables.state.group(group)) else {
        return batch.punt(row, PuntReason::NoRoute);
    };
    let members = match group {
        Group::Forward(members) => members,
        Group::Blackhole => return batch.drop(row, DropReason::Blackhole),
        Group::Unreachable => return batch.punt(row, PuntReason::NoRoute),
    };
    let Some(id) = choose(members, batch, row) else {
        return batch.punt(row, PuntReason::NoRoute);
    };
    let Some(adjacency) = tables.state.adjacency(id) else {
        return batch.drop(row, DropReason::PortDown);
    };
    match tables.state.ports.get(adjacency.port) {
        Some(port) if port.up => batch.egress[row] = adjacency.port,
        _ => return batch.drop(row, DropReason::PortDown),
    }
    batch.adjacency[row] = Some(id);
    if adjacency.addresses.is_none() {
        batch.punt(row, PuntReason::Unresolved);
    }
}

/// One flow keeps to one next hop; the hash is taken only where there is a choice.
fn choose(members: &[AdjacencyId], batch: &Batch, row: usize) -> Option<AdjacencyId> {
    match members {
        [only] => Some(*only),
        members => {
            let parsed = &batch.parsed[row];
            let hash = FlowKey::new(batch.frames[row].bytes(), parsed).map_or(0, |mut flow| {
                // Later fragments show no ports, so the first one's don't count either: a datagram stays together.
                if parsed.is_fragment() {
                    (flow.sport, flow.dport) = (0, 0);
                }
                flow.hash()
            });
            Group::choose(members, hash)
        }
    }
}
