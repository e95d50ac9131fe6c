//! Stages 6 and 9: what a workload may send and get.
//!
//! Calico policy will be asked here. Today the stage holds what is true without any policy: nothing passes a
//! workload interface that no endpoint names, and a workload sends from its own addresses only.

use std::net::IpAddr;

use model::PortKind;
use packet::Parsed;
use tables::{DropReason, Fate, HopState, NextHops, Port, Ports};

use crate::Batch;

/// Drops what a workload sends under an address that isn't its own (RFC 2827; Felix's strict reverse-path check).
pub(crate) fn may_send(batch: &mut Batch, ports: &Ports) {
    let Batch { frames, runs, fates, parsed, .. } = batch;
    for run in runs {
        let Some(port) = run.ingress.and_then(|ingress| ports.get(ingress)) else { continue };
        if port.kind != PortKind::Workload {
            continue;
        }
        let rows = run.rows();
        let (fates, parsed) = (&mut fates[rows.clone()], &parsed[rows.clone()]);
        for ((frame, fate), parsed) in frames[rows].iter().zip(fates).zip(parsed) {
            if *fate == Fate::Undecided && !owns_source(port, frame.bytes(), parsed) {
                *fate = Fate::Drop(DropReason::SpoofedSource);
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

/// Drops what would leave by a workload port that no endpoint names.
pub(crate) fn may_receive(batch: &mut Batch, next_hops: &NextHops) {
    let Batch { frames, fates, hops, .. } = batch;
    for ((_, fate), hop) in frames.iter().zip(fates).zip(hops) {
        if *fate == Fate::Undecided && next_hops.get(*hop).state == HopState::UnknownEndpoint {
            *fate = Fate::Drop(DropReason::UnknownEndpoint);
        }
    }
}
