//! Stage 7: does a route lead back to where a packet from an uplink says it comes from? (RFC 3704)
//!
//! Costs a second look-up for each packet, so it is skipped as a whole unless asked for. What the routes mean is
//! Linux's `fib_validate_source`: a default route counts, a blackhole doesn't, and nobody else may send under an
//! address of this box's own.

use model::{PortKind, ReversePath};
use packet::{Kind, Layout, Parsed};
use tables::{CameBy, DropReason, Fate, GroupId, NextHops, Ports, Snapshot, WayBack};

use crate::Batch;
use crate::batch::{Asked, Run};

/// Drops packets from uplinks whose source the routes don't lead back to, as loosely or strictly as the tables say.
pub(crate) fn sources(batch: &mut Batch, tables: &Snapshot<'_>) {
    let judge = match tables.state.reverse_path {
        ReversePath::Disabled => return,
        ReversePath::Loose => loose,
        ReversePath::Strict => strict,
    };
    look_up(batch, tables);
    let Batch { frames, runs, fates, asked: Asked { groups, .. }, opened, .. } = batch;
    for run in runs.iter().filter(|run| is_uplinks(run, &tables.state.ports)) {
        let Some(port) = run.ingress else { continue };
        let rows = run.rows();
        for (((row, _), fate), group) in
            rows.clone().zip(&frames[rows.clone()]).zip(&mut fates[rows.clone()]).zip(&groups[rows])
        {
            if *fate != Fate::Undecided {
                continue;
            }
            let came_by = if *opened >> row & 1 == 1 { CameBy::Tunnel } else { CameBy::Port(port) };
            if let Some(reason) = judge(&tables.state.next_hops, GroupId(*group), came_by) {
                *fate = Fate::Drop(reason);
            }
        }
    }
}

/// Some route must lead back.
fn loose(next_hops: &NextHops, group: GroupId, _: CameBy) -> Option<DropReason> {
    (!next_hops.leads_on(group)).then_some(DropReason::NoReversePath)
}

/// A route must lead back the way that the packet came. Of several next hops one is enough, whichever the flow would
/// take: the other side spreads its flows as it likes (RFC 3704 §2.3, feasible paths).
fn strict(next_hops: &NextHops, group: GroupId, came_by: CameBy) -> Option<DropReason> {
    match next_hops.way_back(group, came_by) {
        WayBack::Here => None,
        WayBack::Elsewhere => Some(DropReason::ReversePathElsewhere),
        WayBack::Nowhere => Some(DropReason::NoReversePath),
    }
}

/// Workloads are held to their own addresses, and the host is trusted.
fn is_uplinks(run: &Run, ports: &Ports) -> bool {
    run.ingress.and_then(|port| ports.get(port)).is_some_and(|port| port.kind == PortKind::Uplink)
}

/// The group that packets to each source would go to, by row.
fn look_up(batch: &mut Batch, tables: &Snapshot<'_>) {
    let Batch { frames, runs, fates, parsed, asked: Asked { v4, v6, groups }, .. } = batch;
    for run in runs.iter().filter(|run| is_uplinks(run, &tables.state.ports)) {
        let rows = run.rows();
        for (((row, frame), fate), parsed) in
            rows.clone().zip(&frames[rows.clone()]).zip(&fates[rows.clone()]).zip(&parsed[rows])
        {
            if *fate != Fate::Undecided {
                continue;
            }
            if let Some(source) = plain_v4_source(frame.bytes(), parsed) {
                v4.push(row, source);
            } else if parsed.kind == Kind::Ipv4 {
                v4.push(row, parsed.ipv4_source(frame.bytes()).map_or(0, u32::from));
            } else {
                v6.push(row, parsed.ipv6_source(frame.bytes()).map_or(0, u128::from));
            }
        }
    }
    v4.answer(groups, |addrs, answers| tables.fib.lookup_v4_batch(addrs, answers));
    v6.answer(groups, |addrs, answers| tables.fib.lookup_v6_batch(addrs, answers));
}

#[inline(always)]
fn plain_v4_source(frame: &[u8], parsed: &Parsed) -> Option<u32> {
    let head: &[u8; Layout::PLAIN_V4_LEN] = frame.first_chunk()?;
    let (_, addresses) = head.split_last_chunk::<8>()?;
    let source = addresses.first_chunk()?;
    (parsed.layout == Layout::PlainV4).then(|| u32::from_be_bytes(*source))
}
