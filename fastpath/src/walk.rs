//! The whole packet path, in order. Nothing else knows the order.

use tables::Snapshot;

use crate::{Batch, admit, martian, parse, rewrite, route, workload};

/// Takes a batch from "received" to a fate for every frame. Transmitting and counting are the worker's.
pub fn walk(batch: &mut Batch, tables: &Snapshot<'_>) {
    parse::headers(batch);
    admit::frames_for_us(batch, tables.state);
    martian::addresses(batch);
    workload::may_send(batch, &tables.state.ports);
    route::next_hop(batch, tables);
    workload::may_receive(batch, &tables.state.ports);
    rewrite::for_next_hop(batch, tables.state);
}
