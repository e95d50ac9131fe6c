//! The whole packet path, in order. Nothing else knows the order.

use tables::{Snapshot, Stage};

use crate::stopwatch::Stopwatch;
use crate::{Batch, admit, decapsulate, martian, parse, reverse_path, rewrite, route, workload};

/// Takes a batch from "received" to a fate for every frame. Transmitting and counting are the worker's.
pub(crate) fn walk(batch: &mut Batch, tables: &Snapshot<'_>, stopwatch: &mut Stopwatch) {
    parse::headers(batch);
    stopwatch.lap(Stage::Parse);
    admit::frames_for_us(batch, tables.state);
    stopwatch.lap(Stage::Admit);
    decapsulate::tunnels(batch, tables.state);
    stopwatch.lap(Stage::Decapsulate);
    martian::addresses(batch);
    stopwatch.lap(Stage::Martian);
    workload::may_send(batch, &tables.state.ports);
    stopwatch.lap(Stage::WorkloadSend);
    reverse_path::sources(batch, tables);
    stopwatch.lap(Stage::ReversePath);
    route::next_hop(batch, tables);
    stopwatch.lap(Stage::Route);
    workload::may_receive(batch, &tables.state.next_hops);
    stopwatch.lap(Stage::WorkloadReceive);
    rewrite::for_next_hop(batch, tables.state);
    stopwatch.lap(Stage::Rewrite);
}
