//! # fastpath: pinned cores that receive, walk and transmit
//!
//! **What this room is for.** Workers: each owns a core, one queue of every port and its frames, and moves packets
//! from ring to ring by what the tables say.
//!
//! **How things pass through it.** A packet's walk is the file list; the order lives in [`walk()`] alone:
//!
//! | stage | file | leaves | side exits |
//! | --- | --- | --- | --- |
//! | 0 | `worker.rs` | the loop: receive, walk, transmit, housekeeping | – |
//! | 1 | `receive.rs` | a [`Batch`] of frames | – |
//! | 2 | `parse.rs` | where each header begins | drop: malformed, by cause |
//! | 3 | `admit.rs`, `dhcp.rs` | packets addressed to this router's ports | punt: ARP, ND, DHCP under OpenStack; drop: not ours, no such port |
//! | 4 | `decapsulate.rs` | what was inside tunnel packets for this router | punt: ARP, ND inside a segment; drop: unknown tunnel source, our own source, malformed |
//! | 5 | `martian.rs` | packets whose addresses may be forwarded | drop: martian, multicast, broadcast, link-local |
//! | 6 | `workload.rs` | packets that their workload may send | drop: spoofed |
//! | 6 | `police.rs` | what a workload may send in a second | drop: egress limits |
//! | 7 | `reverse_path.rs` | packets whose source a route leads back to | drop: no way back, or another one |
//! | 8 | `flow.rs`, `nat.rs` | what is known of a packet's flow, and what it or one to a floating IP becomes | drop: malformed, unknown |
//! | 9 | `route.rs` | a next hop | punt: no route, rejected, prohibited, unresolved; drop: blackhole, broadcast, port down |
//! | 10 | `policy.rs` | what both ends' policies allow; known flows without asking again | punt: too many connections, denied where senders are told; drop: denied, invalid, to the host, flow table full |
//! | 10 | `nat.rs` | packets under a source that they may leave under | drop: ports exhausted |
//! | 11 | `workload.rs` | packets that their workload may get | drop: unknown endpoint |
//! | 11 | `mark.rs` | the endpoint's DSCP in what leaves the node | – |
//! | 12 | `rewrite.rs`, `encapsulate.rs`, `options.rs` | TTL, checksum, MAC addresses and outer headers written | punt: TTL exceeded, too big, bad option; drop: source routed |
//! | 12 | `police.rs` | what a workload may get in a second | drop: ingress limits |
//! | 13 | `exits.rs`, `fragment.rs` | copies in the punt ring, fragments, frames back in their pool, counters | drop: punt ring full, can't be fragmented |
//! | 14 | `transmit.rs` | frames in transmit rings | drop: ring full, over fair share |
//!
//! **What it promises.** After a worker starts, while packets flow: no allocation, no lock, no system call other than
//! the ring wake-up, no logging; an idle worker sleeps, and ports come and go between batches. Each frame ends in exactly one fate, and the books balance.
//!
//! **What it never does.** It decides neither routes nor policy, and never names `slowpath`, `bgp` or `datastore`.

mod admit;
mod batch;
mod capture;
mod decapsulate;
mod dhcp;
mod encapsulate;
mod exits;
mod fair_share;
mod flow;
mod flow_clock;
mod fragment;
mod handoff;
mod heads;
mod mark;
mod martian;
mod memory_port;
mod nat;
mod options;
mod parse;
mod police;
mod policy;
mod port;
mod queues;
mod receive;
mod reverse_path;
mod rewrite;
mod route;
mod stopwatch;
mod tally;
mod trace;
mod transmit;
mod walk;
mod worker;
mod workload;
mod xdp_port;

pub use batch::{BATCH, Batch};
pub use handoff::{Handoffs, handoffs};
pub use memory_port::{MemoryPort, Wire, memory_port};
pub use port::{PortQueue, QueueStatistics};
pub use trace::{MadeUp, Outer, Rehearsal, Unfit};
pub use worker::{Command, Waiting, Worker, WorkerConfig, WorkerEnds, spawn};
pub use xdp_port::XdpPort;
