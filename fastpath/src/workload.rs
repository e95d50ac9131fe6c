//! Stages 5 and 7: what a workload may send and get.
//!
//! Calico policy will be asked here. Today the stage holds what is true without any policy: nothing passes a
//! workload interface that no endpoint names, and a workload sends from its own addresses only.

use std::net::IpAddr;

use model::PortKind;
use tables::{DropReason, Ports};

use crate::Batch;

/// Drops what a workload sends under an address that isn't its own (RFC 2827; Felix's strict reverse-path check).
pub(crate) fn may_send(batch: &mut Batch, ports: &Ports) {
    for row in 0..batch.len() {
        if !batch.undecided(row) {
            continue;
        }
        let Some(port) = batch.ingress[row].and_then(|ingress| ports.get(ingress)) else { continue };
        if port.kind != PortKind::Workload {
            continue;
        }
        let (frame, parsed) = (batch.frames[row].bytes(), &batch.parsed[row]);
        let source = match parsed.ipv4_source(frame) {
            Some(source) => Some(IpAddr::V4(source)),
            None => parsed.ipv6_source(frame).map(IpAddr::V6),
        };
        let owned =
            source.zip(port.endpoint.as_ref()).is_some_and(|(source, endpoint)| endpoint.owns(source));
        if !owned {
            batch.drop(row, DropReason::SpoofedSource);
        }
    }
}

/// Drops what would leave by a workload port that no endpoint names.
pub(crate) fn may_receive(batch: &mut Batch, ports: &Ports) {
    for row in 0..batch.len() {
        if !batch.undecided(row) {
            continue;
        }
        let closed = ports
            .get(batch.egress[row])
            .is_some_and(|port| port.kind == PortKind::Workload && port.endpoint.is_none());
        if closed {
            batch.drop(row, DropReason::UnknownEndpoint);
        }
    }
}
