//! A worker beside the others: a packet that is made up goes through its walk, by the same tables, leaves nowhere, is counted
//! nowhere and begins nothing.
//!
//! It has a queue of the port that the packet comes in by, made of memory, and of no other: whatever would leave has no way
//! out. Of the flow table it gets a copy of what concerns the packet. What it draws from limits of packets and bytes is
//! really gone, as a meter takes nothing back: one packet's worth.

use std::cell::LazyCell;
use std::net::IpAddr;
use std::time::Duration;

use afxdp::FramePool;
use model::{PortId, WorkerId};
use packet::FlowKey;
use tables::{
    Capturing, Counters, Flows, PolicyReport, Port, Punt, Reader, RingConsumer, Trace, TraceFilter, Tracing,
    copy_ring,
};

use super::{MadeUp, Unfit};
use crate::{Waiting, Worker, WorkerConfig, WorkerEnds, handoffs, memory_port};

/// The largest IP packet that is handed to nobody.
const PUNT_BYTES: usize = 65_535;

/// What takes made-up packets through the walk, one at a time.
pub struct Rehearsal {
    /// Made with the first packet: most routers are never asked, and a worker takes about a megabyte.
    worker: LazyCell<Worker, Box<dyn FnOnce() -> Worker + Send>>,
    flows: Flows,
    tracing: Tracing,
    punts: RingConsumer<Punt>,
    longest: usize,
}

impl Rehearsal {
    /// With a reader of its own, some frames, the flows that workers share, and as many ports as the tables have.
    pub fn new(mut reader: Reader, pool: FramePool, flows: Flows, ports: usize) -> Rehearsal {
        reader.go_offline();
        let (punt, punts) = copy_ring(1, PUNT_BYTES);
        let (tracing, longest) = (Tracing::new(1), pool.longest());
        let (follow, flow_table) = (tracing.clone(), flows.clone());
        let make = move || {
            let ends = WorkerEnds {
                pool,
                reader,
                flows: flow_table,
                policy_report: PolicyReport::new(1, 1, 1),
                tracing: follow,
                capturing: Capturing::new(),
                counters: Counters::new(1, ports),
                punt,
                inject: copy_ring(1, 1).1,
                handoffs: handoffs(1, 1, 1).remove(0),
                commands: crossbeam_channel::bounded(1).1,
            };
            let config = WorkerConfig {
                id: WorkerId(0),
                core: None,
                waiting: Waiting::Interrupt,
                idle_wait: Duration::ZERO,
            };
            Worker::new(config, ends)
        };
        Rehearsal { worker: LazyCell::new(Box::new(make)), flows, tracing, punts, longest }
    }

    fn worker(&mut self) -> &mut Worker {
        LazyCell::force_mut(&mut self.worker)
    }

    /// The port with this name, or of the endpoint with this name.
    pub fn port_named(&mut self, name: &str) -> Option<PortId> {
        self.port(|port| {
            port.name == name || port.endpoint.as_ref().is_some_and(|endpoint| endpoint.name == name)
        })
    }

    /// The port of the workload that has this address.
    pub fn port_of_sender(&mut self, source: IpAddr) -> Option<PortId> {
        self.port(|port| port.endpoint.as_ref().is_some_and(|endpoint| endpoint.owns(source)))
    }

    /// What every port is called.
    pub fn port_names(&mut self) -> Vec<(PortId, String)> {
        self.worker().look_at_tables(|tables| {
            tables.state.ports.iter().map(|port| (port.id, port.name.clone())).collect()
        })
    }

    fn port(&mut self, is_it: impl Fn(&Port) -> bool) -> Option<PortId> {
        self.worker()
            .look_at_tables(|tables| tables.state.ports.iter().find(|port| is_it(port)).map(|port| port.id))
    }

    /// Takes a packet through the walk.
    ///
    /// # Errors
    /// There can be no such packet.
    pub fn walk(&mut self, packet: &MadeUp) -> Result<Trace, Unfit> {
        let (frame, outer) = self.worker().look_at_tables(|tables| {
            let outer = tables.state.nat.outgoing(model::Family::of(packet.source));
            packet.frame(tables.state).map(|frame| (frame, outer.map(|outgoing| outgoing.outer.clone())))
        })?;
        if frame.len() > self.longest {
            return Err(Unfit::TooLong);
        }
        let flows = self.flows.rehearsal(&keys(&frame), outer.as_ref());
        let (queue, wire) = memory_port(1);
        wire.send(&frame);
        self.tracing.start(TraceFilter::default(), 1);
        self.worker().rehearse(packet.ingress, Box::new(queue), flows);
        while self.punts.pop(|_, _| ()).is_some() {}
        let trace = self.tracing.next().ok_or(Unfit::TooLong)?;
        Ok(Trace { worker: None, ..trace })
    }
}

/// The packet's key, and that of what is inside it.
fn keys(frame: &[u8]) -> Vec<FlowKey> {
    let Ok(parsed) = packet::parse(frame) else { return Vec::new() };
    [FlowKey::new(frame, &parsed), FlowKey::inside(frame, &parsed)].into_iter().flatten().collect()
}
