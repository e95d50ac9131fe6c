//! # tables: what the slow path writes and the fast path reads
//!
//! **What this room is for.** The two halves of the router meet here and nowhere else: the slow path holds the
//! one [`Writer`], every worker of the fast path holds a [`Reader`].
//!
//! **How things pass through it.**
//!
//! ```text
//!  slow path                       tables                          fast path
//!  ─────────                       ──────                          ─────────
//!  Writer ── ports, policy, next hops ────► State ──(one swap)──►  Reader::snapshot, once a batch
//!         ── routes ──────────────────────► Fib ───(in place)───►  Snapshot::fib
//!         ◄── copies of packets ─────────── punt ring ◄──────────  fate Punt(reason)
//!         ─── packets of our own ─────────► inject ring ─────────► walked, or sent as they are
//!         ◄── sums ──────────────────────── Counters ◄───────────  one writer a worker
//! ```
//!
//! **What it promises.** A [`Snapshot`] shows one state of ports, adjacencies and groups for as long as it is
//! held, and the forwarding table never names a group that the snapshot lacks: [`Writer::publish`] waits until
//! every reader has passed to the new state before a route may use a new group. Publishing never makes a reader
//! wait. Every table and ring has the size that [`Limits`] gives it at start-up; full is an error that says so.
//!
//! **What it never does.** It decides nothing, and knows neither BGP nor netlink nor AF_XDP.

mod address_set;
mod adjacency;
mod buckets;
mod capture;
mod copy_ring;
mod counters;
mod epoch;
mod fate;
mod fib;
mod fingerprint;
mod flow_rules;
mod flows;
mod group;
mod inject;
mod limits;
mod meter;
mod nat;
mod next_hops;
mod policy;
mod policy_report;
mod ports;
mod punt;
mod qos;
mod rows;
mod snapshot;
mod stage;
mod trace;
mod tunnels;

pub use ::policy::compile::Limits as PolicyLimits;
pub use address_set::AddressSet;
pub use adjacency::{Adjacency, AdjacencyId};
pub use capture::{Capture, CaptureFilter, Captured, Capturing, Passage};
pub use copy_ring::{Full, RingConsumer, RingProducer, copy_ring};
pub use counters::{Books, Counters, PortCount, WorkerCounters};
pub use fate::{DropReason, Fate, PuntReason};
pub use fib::{Fib, FibReader};
pub use fingerprint::Fingerprint;
pub use flow_rules::FlowRules;
pub use flows::{
    Beginning, Between, ColumnsV4, Direction, Flow, FlowCounts, FlowRow, FlowTime, FlowTimeouts, FlowVerdict,
    Flows, Glanced, Glimpses, NotAdded, OuterAddress, Probes, TcpPacket, Ticks, begins_flow,
};
pub use group::{Group, GroupId};
pub use inject::Inject;
pub use limits::{Limits, TableFull};
pub use meter::{Allowance, Meter, MeterTime};
pub use nat::{METADATA, MetadataServer, Nat, NatRules, Outgoing};
pub use next_hops::{CameBy, HopIndex, HopState, NextHop, NextHops, WayBack};
pub use policy::{EndpointPolicy, HostEndpoints, Policy, PortPolicy, TUNNELS};
pub use policy_report::{Decided, Judged, PolicyAct, PolicyEvent, PolicyReport, RuleCount};
pub use ports::{Endpoint, Port, Ports, QosUse};
pub use punt::Punt;
pub use qos::{DEFAULT_BURST, DEFAULT_PACKET_BURST, Policer, PolicerDrops, Qos};
pub use rows::Rows;
pub use snapshot::{Reader, Snapshot, State, Writer};
pub use stage::{Stage, StageSample};
pub use trace::{ANSWERS, Answer, FlowSeen, Headers, Left, RouteTaken, Trace, TraceFilter, Tracing};
pub use tunnels::{TunnelEnd, TunnelKind, WorkloadTunnels};
