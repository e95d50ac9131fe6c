//! The whole packet path, in order. Nothing else knows the order.
//!
//! Stages with long loops aren't inlined here: each then has the registers to itself, and costs the same whatever its
//! neighbours become.

use tables::{Flows, Snapshot, Stage};

use crate::policy::{Policing, Reporter};
use crate::stopwatch::Stopwatch;
use crate::{
    Batch, admit, decapsulate, flow, mark, martian, nat, parse, police, policy, reverse_path, rewrite, route,
    workload,
};

/// Takes a batch from "received" to a fate for every frame. Transmitting and counting are the worker's.
pub(crate) fn walk(
    batch: &mut Batch,
    tables: &Snapshot<'_>,
    flows: &Flows,
    reporter: Reporter<'_>,
    stopwatch: &mut Stopwatch,
) {
    parse::headers(batch);
    stopwatch.lap(Stage::Parse);
    admit::frames_for_us(batch, tables.state);
    stopwatch.lap(Stage::Admit);
    decapsulate::tunnels(batch, tables.state);
    stopwatch.lap(Stage::Decapsulate);
    martian::addresses(batch);
    stopwatch.lap(Stage::Martian);
    workload::may_send(batch, tables.state);
    let qos = tables.state.ports.qos_use();
    if qos.egress {
        police::from_workloads(batch, &tables.state.ports, stopwatch.meter_time());
    }
    stopwatch.lap(Stage::WorkloadSend);
    reverse_path::sources(batch, tables);
    stopwatch.lap(Stage::ReversePath);
    let policing = Policing::of(tables.state);
    let memory = flow::remembering(tables.state, flows, policing.is_some());
    if let Some(memory) = &memory {
        nat::known_flows(batch, tables.state, memory, policing.as_ref());
    }
    stopwatch.lap(Stage::Nat);
    route::next_hop(batch, tables);
    stopwatch.lap(Stage::Route);
    workload::may_receive(batch, &tables.state.next_hops);
    stopwatch.lap(Stage::WorkloadReceive);
    if let Some(memory) = &memory {
        if let Some(policing) = &policing {
            policy::judge(batch, policing, memory, reporter);
            stopwatch.lap(Stage::Policy);
        }
        nat::leaving(batch, tables.state, memory);
        stopwatch.lap(Stage::Nat);
    }
    if qos.dscp {
        mark::dscp(batch, tables.state);
        stopwatch.lap(Stage::WorkloadReceive);
    }
    rewrite::for_next_hop(batch, tables.state);
    stopwatch.lap(Stage::Rewrite);
    nat::undo_for_slow_path(batch);
    stopwatch.lap(Stage::Nat);
    if qos.ingress {
        // Last, so that only what really leaves counts.
        police::to_workloads(batch, &tables.state.ports, stopwatch.meter_time());
        stopwatch.lap(Stage::WorkloadReceive);
    }
}
