//! Untracked policy of host endpoints (`doNotTrack`): asked of every packet that comes in, before any flow is looked for.
//!
//! What it allows belongs to no flow and is translated nowhere; other ends' policies are asked of each such packet, and of
//! what answers it, for itself.

use ::policy::judge::Verdict;
use packet::FlowKey;
use tables::{DropReason, Fate, State};

use super::ask::{asked, is_one_of, judge};
use super::{Judge, Packet, Policing, Reporter, Ways, is_open};
use crate::Batch;

/// Asks it of a batch, where any host endpoint has such policy.
#[cold]
pub(crate) fn untracked(batch: &mut Batch, state: &State, reporter: Reporter<'_>) {
    let Batch { frames, runs, fates, parsed, opened, policy, .. } = batch;
    let host_endpoints = state.policy.host_endpoints();
    for run in runs {
        let Some(port) = run.ingress else { continue };
        let Some(program) = state.policy.of_host(port).untracked else { continue };
        for row in run.rows() {
            // What comes out of a tunnel comes by no interface that has such policy.
            if fates[row] != Fate::Undecided || *opened >> row & 1 != 0 {
                continue;
            }
            let bytes = frames[row].bytes();
            let Some(key) = FlowKey::new(bytes, &parsed[row]) else { continue };
            let message = parsed[row].l4_packet(bytes).first_chunk().map(|[kind, code]| (*kind, *code));
            let asked = asked(&key, message);
            if is_one_of(&host_endpoints.failsafe_inbound, &asked, true)
                || is_one_of(&host_endpoints.failsafe_outbound, &asked, false)
            {
                continue;
            }
            match judge(state, reporter, program, &asked, (port, true), (bytes, &[])) {
                Verdict::Allow => policy.untracked.insert(row),
                Verdict::Deny => fates[row] = Fate::Drop(DropReason::ForwardDenied),
                Verdict::NoMatch => {}
            }
        }
    }
}

/// Asks the other ends of what untracked policy has let in.
#[cold]
pub(super) fn forwarded(batch: &mut Batch, judge: &Judge<'_>) {
    let policing: &Policing<'_> = &judge.policing;
    let Batch { frames, runs, fates, parsed, hops, opened, policy, .. } = batch;
    let mut ways = Ways::new(policing, runs, *opened, judge.epoch);
    for row in policy.untracked {
        if !is_open(fates[row]) {
            continue;
        }
        ways.turn_to(row, policing.state.next_hops.get(hops[row]));
        let (bytes, parsed) = (frames[row].bytes(), &parsed[row]);
        let Some(key) = FlowKey::new(bytes, parsed).filter(|_| ways.is_asked) else { continue };
        let packet = Packet { bytes, parsed, key: &key, way: ways.way, foreseen: &[] };
        let between = packet.way.between(tables::Direction::Original);
        if let Err(fate) = judge.ask_all(&packet, &key, None, packet.icmp(), between, true) {
            fates[row] = fate;
        }
    }
}
