//! Stages 6 and 10: what is true of workloads without any policy: nothing passes a workload interface that no endpoint
//! names, and a workload sends from its own addresses only.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use model::PortKind;
use packet::{Parsed, protocol};
use tables::{DropReason, Endpoint, Fate, Port, Rows, State, WorkloadTunnels};

use crate::heads::Heads;
use crate::{BATCH, Batch};

/// Drops what a workload sends under an address that isn't its own (RFC 2827; Felix's strict reverse-path check), and
/// tunnels of its own.
pub(crate) fn may_send(batch: &mut Batch, state: &State) {
    for number in 0..batch.runs.len() {
        let run = batch.runs[number];
        if let Some(port) = run.ingress.and_then(|ingress| state.ports.get(ingress))
            && port.kind == PortKind::Workload
        {
            hold_to_its_own(batch, run.rows(), port, state.workload_tunnels);
        }
    }
}

/// Drops what a workload may not send of these rows, which came by its port.
#[inline(never)]
fn hold_to_its_own(batch: &mut Batch, rows: Range<usize>, port: &Port, refused: WorkloadTunnels) {
    let Batch { frames, fates, parsed, heads, .. } = batch;
    if are_surely_its_own(rows.clone(), heads, parsed, port, refused) {
        return;
    }
    let (fates, parsed) = (&mut fates[rows.clone()], &parsed[rows.clone()]);
    for ((frame, fate), parsed) in frames[rows].iter().zip(fates).zip(parsed) {
        if *fate != Fate::Undecided {
            continue;
        }
        if !owns_source(port, frame.bytes(), parsed) {
            *fate = Fate::Drop(DropReason::SpoofedSource);
        } else if is_refused_tunnel(frame.bytes(), parsed, refused) {
            *fate = Fate::Drop(DropReason::TunnelFromWorkload);
        }
    }
}

/// Are these plain IPv4 frames from the only address of that family that the endpoint has, and nothing that looks like a
/// tunnel's packets? So they mostly are, and it is seen of many at once.
#[inline]
fn are_surely_its_own(
    rows: Range<usize>,
    heads: &Heads,
    parsed: &[Parsed; BATCH],
    port: &Port,
    refused: WorkloadTunnels,
) -> bool {
    let Some(own) = port.endpoint.as_ref().and_then(only_v4) else { return false };
    let own = u32::from(own);
    // Each folded to the end, for the processor compares many at once.
    Rows::from(rows.clone()).without(heads.plain_v4).is_empty()
        && heads.sources[rows.clone()].iter().fold(true, |all, source| all & (*source == own))
        && refused.refused_vxlan_port.is_none_or(|port| {
            heads.ports[rows.clone()].iter().fold(true, |none, ports| none & (*ports as u16 != port))
        })
        && !(refused.ipip_refused && parsed[rows].iter().any(|parsed| parsed.protocol == protocol::IPIP))
}

/// The IPv4 address of an endpoint that has one.
fn only_v4(endpoint: &Endpoint) -> Option<Ipv4Addr> {
    let mut only = None;
    for prefix in &endpoint.addresses {
        let IpAddr::V4(addr) = prefix.addr() else { continue };
        if !prefix.is_host() || only.replace(addr).is_some() {
            return None;
        }
    }
    only
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
pub(crate) fn may_receive(batch: &mut Batch) {
    let Batch { fates, unnamed, .. } = batch;
    for row in *unnamed {
        if fates[row] == Fate::Undecided {
            fates[row] = Fate::Drop(DropReason::UnknownEndpoint);
        }
    }
}
