//! The whole packet path, in order. Nothing else knows the order.
//!
//! Stages with long loops aren't inlined here: each then has the registers to itself, and costs the same whatever its
//! neighbours become.

use tables::{Flows, Snapshot, Stage, Ticks};

use crate::policy::{Policing, Reporter};
use crate::trace::Watch;
use crate::{
    Batch, admit, decapsulate, flow, mark, martian, nat, parse, police, policy, reverse_path, rewrite, route,
    workload,
};

/// Takes a batch from "received" to a fate for every frame. Transmitting and counting are the worker's. `now`: the
/// flows' time. `watch` is
/// told when a stage is over.
pub(crate) fn walk(
    batch: &mut Batch,
    tables: &Snapshot<'_>,
    (flows, now): (&Flows, Ticks),
    reporter: Reporter<'_>,
    watch: &mut Watch,
) {
    parse::headers(batch);
    watch.lap(Stage::Parse, batch, tables);
    admit::frames_for_us(batch, tables.state);
    watch.lap(Stage::Admit, batch, tables);
    decapsulate::tunnels(batch, tables.state);
    watch.lap(Stage::Decapsulate, batch, tables);
    martian::addresses(batch, tables.state);
    watch.lap(Stage::Martian, batch, tables);
    workload::may_send(batch, tables.state);
    let qos = tables.state.ports.qos_use();
    if qos.egress {
        police::from_workloads(batch, &tables.state.ports, watch.meter_time());
    }
    watch.lap(Stage::WorkloadSend, batch, tables);
    reverse_path::sources(batch, tables);
    watch.lap(Stage::ReversePath, batch, tables);
    let policing = Policing::of(tables.state);
    if tables.state.policy.has_untracked() {
        policy::untracked(batch, tables.state, reporter);
        watch.lap(Stage::Policy, batch, tables);
    }
    let memory = flow::remembering(tables.state, flows, now, policing.is_some());
    if let Some(memory) = &memory {
        nat::known_flows(batch, tables.state, memory, policing.as_ref());
    }
    watch.lap(Stage::Nat, batch, tables);
    route::next_hop(batch, tables);
    watch.lap(Stage::Route, batch, tables);
    workload::may_receive(batch);
    watch.lap(Stage::WorkloadReceive, batch, tables);
    if let Some(memory) = &memory {
        if let Some(policing) = &policing {
            policy::judge(batch, policing, memory, reporter);
            watch.lap(Stage::Policy, batch, tables);
        }
        nat::leaving(batch, tables.state, memory);
        watch.lap(Stage::Nat, batch, tables);
    }
    if qos.dscp {
        mark::dscp(batch, tables.state);
        watch.lap(Stage::WorkloadReceive, batch, tables);
    }
    rewrite::for_next_hop(batch, tables.state);
    watch.lap(Stage::Rewrite, batch, tables);
    nat::undo_for_slow_path(batch);
    watch.lap(Stage::Nat, batch, tables);
    if qos.ingress {
        // Last, so that only what really leaves counts.
        police::to_workloads(batch, &tables.state.ports, watch.meter_time());
        watch.lap(Stage::WorkloadReceive, batch, tables);
    }
}
