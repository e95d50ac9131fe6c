//! Stages 6 and 10: what is true of workloads without any policy: nothing passes a workload interface that no endpoint
//! names, and a workload sends from its own addresses only.

use std::net::IpAddr;

use model::PortKind;
use packet::{Parsed, protocol};
use tables::{DropReason, Fate, HopState, NextHops, Port, State, WorkloadTunnels};

use crate::Batch;

/// Drops what a workload sends under an address that isn't its own (RFC 2827; Felix's strict reverse-path check), and
/// tunnels of its own.
#[inline(never)]
pub(crate) fn may_send(batch: &mut Batch, state: &State) {
    let Batch { frames, runs, fates, parsed, .. } = batch;
    for run in runs {
        let Some(port) = run.ingress.and_then(|ingress| state.ports.get(ingress)) else { continue };
        if port.kind != PortKind::Workload {
            continue;
        }
        let rows = run.rows();
        let (fates, parsed) = (&mut fates[rows.clone()], &parsed[rows.clone()]);
        for ((frame, fate), parsed) in frames[rows].iter().zip(fates).zip(parsed) {
            if *fate != Fate::Undecided {
                continue;
            }
            if !owns_source(port, frame.bytes(), parsed) {
                *fate = Fate::Drop(DropReason::SpoofedSource);
            } else if is_refused_tunnel(frame.bytes(), parsed, state.workload_tunnels) {
                *fate = Fate::Drop(DropReason::TunnelFromWorkload);
            }
        }
    }
}

fn owns_source(port: &Port, frame: &[u8], parsed: &Parsed) -> bool {
    let source = match parsed.ipv4_source(frame) {
        Some(source) => Some(IpAddr::V4(source)),
        None => parsed.ipv6_source(frame).map(IpAddr::V6),
    };
    source.zip(port.endpoint.as_ref()).is_some_and(|(source, endpoint)| endpoint.owns(source))
}

/// Is it a tunnel packet that workloads may not send? A later fragment of one shows no port, and is nothing without the
/// first.
#[inline]
fn is_refused_tunnel(frame: &[u8], parsed: &Parsed, refused: WorkloadTunnels) -> bool {
    match parsed.protocol {
        protocol::IPIP => refused.ipip_refused,
        protocol::UDP if parsed.l4 != 0 => {
            let port = frame.get(usize::from(parsed.l4) + 2..).and_then(|port| port.first_chunk());
            port.is_some_and(|port| refused.refused_vxlan_port == Some(u16::from_be_bytes(*port)))
        }
        _ => false,
    }
}

/// Drops what would leave by a workload port that no endpoint names.
pub(crate) fn may_receive(batch: &mut Batch, next_hops: &NextHops) {
    let Batch { frames, fates, hops, .. } = batch;
    for ((_, fate), hop) in frames.iter().zip(fates).zip(hops) {
        if *fate == Fate::Undecided && next_hops.get(*hop).state == HopState::UnknownEndpoint {
            *fate = Fate::Drop(DropReason::UnknownEndpoint);
        }
    }
}
