//! Stage 9: destination to next hop.
//!
//! Looked up once: rewriting and transmitting use what this stage leaves. All addresses of a batch are asked for
//! together, so that one look-up's wait for memory is another's work.

use afxdp::Frame;
use packet::{FlowHash, FlowKey, Kind, Layout, Parsed};
use tables::{DropReason, Fate, GroupId, HopIndex, HopState, PuntReason, Rows, Snapshot, State};

use crate::Batch;
use crate::batch::Asked;

/// Leaves a next hop for every frame that goes on.
#[inline(never)]
pub(crate) fn next_hop(batch: &mut Batch, tables: &Snapshot<'_>) {
    look_up(batch, tables);
    let next_hops = &*tables.state.next_hops;
    let Batch { frames, fates, parsed, hops, unnamed, asked, .. } = batch;
    *unnamed = Rows::NONE;
    let len = frames.len();
    let (fates, hops, groups) = (&mut fates[..len], &mut hops[..len], &asked.groups[..len]);
    for (row, ((fate, hop), group)) in fates.iter_mut().zip(hops).zip(groups).enumerate() {
        // What has its fate may get a next hop as well: telling it apart costs more, and nobody looks at it.
        if let Some(ready) = next_hops.ready(GroupId(*group)) {
            *hop = ready;
            continue;
        }
        if *fate != Fate::Undecided {
            continue;
        }
        *hop = choose(tables.state, GroupId(*group), &frames[row], &parsed[row]);
        let state = next_hops.get(*hop).state;
        if state != HopState::Ready {
            *fate = dead_end(state);
            if state == HopState::UnknownEndpoint {
                unnamed.insert(row);
            }
        }
    }
}

/// The fate of a packet whose next hop takes none.
#[cold]
fn dead_end(state: HopState) -> Fate {
    match state {
        // A closed workload port is the next stage's to judge.
        HopState::Ready | HopState::UnknownEndpoint => Fate::Undecided,
        HopState::Unresolved => Fate::Punt(PuntReason::Unresolved),
        HopState::NoRoute => Fate::Punt(PuntReason::NoRoute),
        HopState::Broadcast => Fate::Drop(DropReason::DirectedBroadcast),
        HopState::Rejected => Fate::Punt(PuntReason::Rejected),
        HopState::Prohibited => Fate::Punt(PuntReason::Prohibited),
        HopState::Blackhole => Fate::Drop(DropReason::Blackhole),
        HopState::PortDown => Fate::Drop(DropReason::PortDown),
    }
}

/// The group of every frame still on its way, by row.
fn look_up(batch: &mut Batch, tables: &Snapshot<'_>) {
    let Batch { frames, fates, parsed, heads, asked: Asked { v4, v6, groups }, .. } = batch;
    let len = frames.len();
    // What has its fate is asked for, too: that costs less than telling it apart, and nobody looks at the answer.
    if heads.are_all_plain_v4(len) {
        return tables.fib.lookup_v4_batch(&heads.destinations[..len], &mut groups[..len]);
    }
    if heads.are_all_plain_v6(len) {
        return tables.fib.lookup_v6_batch(&heads.destinations_v6[..len], &mut groups[..len]);
    }
    for (row, ((frame, fate), parsed)) in frames.iter().zip(fates).zip(parsed).enumerate() {
        if *fate != Fate::Undecided {
            continue;
        }
        if parsed.layout == Layout::PlainV4
            && let Some(head) = frame.bytes().first_chunk::<{ Layout::PLAIN_V4_LEN }>()
            && let Some(destination) = head.last_chunk()
        {
            v4.push(row, u32::from_be_bytes(*destination));
        } else if parsed.kind == Kind::Ipv4 {
            v4.push(row, parsed.ipv4_destination(frame.bytes()).map_or(0, u32::from));
        } else {
            v6.push(row, parsed.ipv6_destination(frame.bytes()).map_or(0, u128::from));
        }
    }
    v4.answer(groups, |addrs, answers| tables.fib.lookup_v4_batch(addrs, answers));
    v6.answer(groups, |addrs, answers| tables.fib.lookup_v6_batch(addrs, answers));
}

/// One flow keeps to one next hop. Apart from the loop, whose registers packets without a choice need.
#[inline(never)]
fn choose(state: &State, group: GroupId, frame: &Frame, parsed: &Parsed) -> HopIndex {
    state.next_hops.choose(group, || flow_hash(&state.flow_hash, frame.bytes(), parsed))
}

/// The hash that a flow's packets share: that of the flow inside, where the packet is a tunnel's that passes through.
#[inline(never)]
pub(crate) fn flow_hash(hash: &FlowHash, frame: &[u8], parsed: &Parsed) -> u32 {
    match FlowKey::plain_v4(frame, parsed) {
        Some(flow) if !flow.may_hold_a_tunnel() => hash.of(&flow),
        _ => flow_hash_of_any(hash, frame, parsed),
    }
}

/// [`flow_hash`] of what isn't TCP or UDP in a plain IPv4 frame.
#[cold]
#[inline(never)]
fn flow_hash_of_any(hash: &FlowHash, frame: &[u8], parsed: &Parsed) -> u32 {
    if let Some(inside) = FlowKey::inside(frame, parsed) {
        return hash.of(&inside);
    }
    FlowKey::new(frame, parsed).map_or(0, |mut flow| {
        // Later fragments show no ports, so the first one's don't count either: a datagram stays together.
        if parsed.is_fragment() {
            (flow.sport, flow.dport) = (0, 0);
        }
        hash.of(&flow)
    })
}
