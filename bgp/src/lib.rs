//! # bgp: BGP-4 as a state machine
//!
//! **What this room is for.** It speaks BGP (RFC 4271 and the extensions a Calico node and a ToR need): keeps
//! sessions with peers, takes their routes, chooses the best, and announces them and our own to others.
//!
//! **How things pass through it.** [`Speaker::handle`] takes one [`Input`] and the time, and appends
//! [`Output`]s; [`Speaker::next_deadline`] says when to come back with [`Input::Tick`]. Inside:
//!
//! ```text
//! bytes ─► wire ─► session ─► adj_rib_in ─► import ─► loc_rib ─► decision ─┬─► Output::RouteChanged
//!                     │                                                    │
//!          graceful_restart, collision             peers ◄─ wire ◄─ adj_rib_out ◄─ export (once for each update_group)
//! ```
//!
//! **What it promises.** The same configuration, inputs and times give the same outputs. No bytes from a peer
//! make it panic, and what a peer can make it remember is bounded by [`Limits`]. Work is done in portions, so a
//! call returns soon and keepalives are in time; [`Speaker::next_deadline`] is "now" while work is left.
//!
//! **What it never does.** Read a clock, open a socket, spawn a thread, know the kernel or the forwarding table.
//!
//! # Using it
//!
//! * Answer [`Output::Connect`] with [`Input::ConnectionOpened`] or [`Input::ConnectFailed`].
//! * Answer [`Output::WatchNexthop`] with [`Input::NexthopChanged`]; until then the next hop is unreachable for
//!   new routes, and a route given before stays as it was.
//! * Call [`Speaker::handle`] with [`Input::Tick`] whenever [`Speaker::next_deadline`] has passed.
//! * Where bytes wait in a queue before they are given, say how far it is with [`Speaker::heard_until`].
//! * When no route has changed for a while, call [`Speaker::rest`], which gives memory back.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use bgp::{Input, Output, PeerConfig, PeerId, Speaker, SpeakerConfig};
//! use model::AsNumber;
//!
//! let mut speaker = Speaker::new(SpeakerConfig::new("10.0.0.1".parse()?, AsNumber(65000)));
//! let (mut now, mut out) = (Instant::now(), Vec::new());
//! let peer = PeerConfig::new(PeerId(1), "10.0.0.2".parse()?, AsNumber(65001));
//! speaker.handle(Input::PutPeer(peer), now, &mut out);
//!
//! // Nothing happens until the connect delay is over.
//! now += Duration::from_secs(2);
//! assert_eq!(speaker.next_deadline(), Some(now));
//! speaker.handle(Input::Tick, now, &mut out);
//! assert!(matches!(out.last(), Some(Output::Connect { peer: PeerId(1), .. })));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

// A protocol of its own: is the way to a peer alive?
pub mod bfd;
// Telling others what is going on.
pub mod bmp;
// What comes in and goes out.
mod config;
mod guard;
mod input;
mod output;
mod status;
// Bytes.
pub mod wire;
// Sessions.
mod collision;
mod connection;
mod jitter;
mod session;
// Routes, in the order they pass.
mod adj_rib_in;
mod adj_rib_out;
mod backlog;
mod decision;
mod export;
mod former;
mod import;
mod loc_rib;
mod update_group;
// What routes are made of, and what several stages use.
mod cohorts;
mod filter;
mod interner;
mod key;
mod nexthops;
mod parted;
mod pass;
mod path;
mod prefix_limit;
mod rewrite;
mod wording;
// All together.
mod agenda;
mod graceful_restart;
pub mod mrt;
mod speaker;
mod sweep;
mod telling;
mod view;
mod work;

pub use config::{
    ConnectionId, ErrorWait, Limits, NextHopMode, PeerConfig, PeerId, PeerKind, SelfNextHops, SendPaths,
    SpeakerConfig, Timers,
};
pub use filter::{Community, Filter, FilterAction, FilterMatch, FilterRule, Operation, PrefixMatch};
pub use guard::{Guard, Password};
pub use input::{Direction, Input, Origin, OriginatedRoute, Rank};
pub use output::{BestPath, BestPaths, Output, PeerState, Reason};
pub use prefix_limit::{LimitAction, PrefixLimit, Reached};
pub use speaker::Speaker;
pub use status::{
    ErrorCounters, FamilyCounters, Ineligible, MessageCounters, PathSource, PathStatus, PeerStatus, Standing,
    Step,
};
pub use wire::attributes::Attributes;
pub use wire::capability::{Capability, Role};
pub use wire::notification::Notification;
