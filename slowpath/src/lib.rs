//! # slowpath: keeps the tables true
//!
//! **What this room is for.** It talks to BGP peers, the kernel, neighbours and the datastore, works out what the
//! fast path's tables should hold, and makes them hold it.
//!
//! **How things pass through it.** Everything that happens is one `event::Event` in one queue; one task owns all
//! state but BGP's, which a thread of its own has, and takes them in turn:
//!
//! ```text
//!  sockets ─► peers ──► bgp_thread ───┐
//!  netlink ─► interfaces, neighbors ──┼─► rib ─► resolve ─► install ─► tables (fast path)
//!  datastore ─► calico ───────────────┘                        └─────► kernel_routes (mirror, D1)
//!  punt rings ─► punt, neighbors ──► inject rings
//! ```
//!
//! **What it promises.** One task owns the state; I/O tasks only send it events. A restart is a resync: nothing is
//! remembered, forwarding opens once datastore and interfaces are in sync. What can't be done now is retried and
//! named in [`status`].
//!
//! **What it never does.** It never touches a frame that the fast path owns, and never names `fastpath` or `afxdp`.

mod answering;
mod bfd;
mod bgp_routes;
mod bgp_thread;
pub mod calico;
mod cleanup;
mod config;
mod ending;
mod error;
mod ethtool;
mod event;
mod event_loop;
mod failure_detection;
mod flooding;
mod former_settings;
mod forwarding_guard;
mod freshness;
mod host_dhcp;
mod host_interfaces;
mod host_policy;
mod host_port;
mod install;
mod interfaces;
mod kernel_routes;
mod log_prefix;
mod mirroring;
mod mtu_file;
mod neighbors;
mod netlink;
mod nft;
mod observing;
mod offers;
mod peer_groups;
mod peers;
mod policing;
mod policy_counts;
mod policy_log;
mod port_table;
pub mod ports;
mod preserving;
pub mod privileges;
mod punt;
mod report;
mod reserved_ports;
mod resolve;
mod rib;
mod secrets;
mod segments;
mod session_guard;
mod sessions;
mod speaking;
mod spoofing;
mod stations;
pub mod status;
mod sysctl;
mod table_dumps;
mod target;
#[cfg(test)]
mod testing;
mod trace_report;
mod translating;
mod tunnel;
mod tunneling;
mod workload_mtu;
mod workload_policy;
mod workload_side;

pub use bfd::BfdSettings;
pub use bgp::bfd::BfdConfig;
pub use cleanup::cleanup;
pub use config::{Config, Ends, Request, Slowpath};
pub use error::Error;
pub use host_interfaces::{HostInterface, host_interfaces};
pub use peer_groups::{Accept, Aggregate, BgpSettings, DefaultRoute, PeerGroup, PeerOptions, Redistribute};
pub use ports::{NotDelivered, OpenPort, OpenPortError, PortOpener, QueueReport, TunnelTraffic};
pub use segments::{Learning, Segment, SegmentEnd, Station};
pub use session_guard::SocketOptions;
pub use stations::StationSettings;
