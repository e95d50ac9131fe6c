//! The control socket: how `tortie show` asks the running router.
//!
//! One question a connection: a line of JSON, answered by a line of JSON.
//!
//! ```text
//! {"show":"routes","limit":10,"source":"bgp"}
//! {"ok":{"routes":[…],"total":2,"counts":{"bgp":2}}}
//! {"error":"…what, where, what to do"}
//! ```

mod client;
mod listener;
mod server;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use slowpath::status::{
    BfdStatus, BgpDumpStatus, BgpNeighborsStatus, BgpRouteStatus, BgpStatus, DatastoreStatus,
    FingerprintsStatus, HostPolicyStatus, IcmpStatus, NeighborsStatus, PolicyStatus, RouteStatus,
    RoutesStatus, SegmentsStatus, StationsStatus, TracesStatus,
};

use crate::captures::{CaptureQuestion, CapturesStatus};
use crate::forms::{DropsStatus, PortsView, StagesStatus};
use crate::show::flows::FlowsStatus;
use crate::table_use::TablesStatus;
use crate::traces::{FilterQuestion, PacketQuestion};

pub(crate) use client::{AskError, ask};
pub(crate) use listener::{ListenError, Listener};
pub(crate) use server::Server;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "show", rename_all = "snake_case")]
pub(crate) enum Question {
    /// Sessions.
    Bgp,
    /// Everything about the sessions with one peer, or with all.
    BgpNeighbors {
        /// Whose.
        #[serde(default)]
        address: Option<IpAddr>,
    },
    /// BGP's table in MRT's form, a piece a question.
    BgpDump {
        /// Of which table; absent is a new one.
        #[serde(default)]
        id: Option<u64>,
    },
    /// Every path that BGP has to a prefix.
    BgpRoute {
        /// The prefix.
        prefix: String,
    },
    /// Winning routes.
    Routes {
        /// How many to list.
        limit: usize,
        /// Only those of this source.
        #[serde(default)]
        source: Option<String>,
    },
    /// The route that covers an address.
    Route {
        /// The address.
        address: IpAddr,
    },
    /// Neighbours.
    Neighbors,
    /// Ports with their counters.
    Ports,
    /// Where the workers' time goes.
    Stages,
    /// Flows.
    Flows {
        /// Only those that have this address.
        #[serde(default)]
        address: Option<IpAddr>,
        /// How many to list.
        limit: usize,
    },
    /// How full the tables are.
    Tables,
    /// What the tables mean.
    Fingerprints,
    /// The walk's books.
    Drops,
    /// BFD sessions.
    Bfd,
    /// Monitoring stations.
    Bmp,
    /// ICMP errors.
    Icmp,
    /// What nftables keeps of host endpoints' policy.
    HostPolicy,
    /// What the rules of workloads' policy have decided.
    Policy {
        /// Only at this endpoint.
        #[serde(default)]
        endpoint: Option<String>,
        /// Also rules that decided nothing.
        #[serde(default)]
        all: bool,
    },
    /// What staged policy would have denied.
    Staged,
    /// VXLAN segments.
    Segments,
    /// A packet that is made up, and what would become of it.
    Trace {
        /// The packet.
        packet: PacketQuestion,
    },
    /// Packets that pass are to be followed.
    Follow {
        /// Which.
        filter: FilterQuestion,
        /// How many at most.
        count: u32,
        /// How long at most.
        seconds: u64,
    },
    /// What was found of them since this was asked last.
    Followed {
        /// As the answer to [`Question::Follow`] said.
        id: u64,
    },
    /// Nobody waits for them any more.
    EndFollowing {
        /// Likewise.
        id: u64,
    },
    /// Frames that pass are to be copied.
    Capture {
        /// Which.
        filter: CaptureQuestion,
        /// How many at most.
        count: u32,
        /// How long at most.
        seconds: u64,
    },
    /// What was copied since this was asked last.
    Captured {
        /// As the answer to [`Question::Capture`] said.
        id: u64,
    },
    /// Nobody waits for them any more.
    EndCapture {
        /// Likewise.
        id: u64,
    },
    /// The datastore.
    Datastore,
}

/// The answer to the [`Question`] of the same name.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "each variant is the form of its own name")]
pub(crate) enum Reply {
    Bgp(BgpStatus),
    BgpNeighbors(BgpNeighborsStatus),
    BgpDump(BgpDumpStatus),
    BgpRoute(BgpRouteStatus),
    Routes(RoutesStatus),
    Route(RouteStatus),
    Neighbors(NeighborsStatus),
    Ports(PortsView),
    Stages(StagesStatus),
    Flows(FlowsStatus),
    Drops(DropsStatus),
    Bfd(BfdStatus),
    Bmp(StationsStatus),
    Icmp(IcmpStatus),
    HostPolicy(HostPolicyStatus),
    Policy(PolicyStatus),
    Segments(SegmentsStatus),
    Traces(TracesStatus),
    Captures(CapturesStatus),
    Tables(TablesStatus),
    Fingerprints(FingerprintsStatus),
    Datastore(DatastoreStatus),
}

/// What a line of the server's says: an answer, or why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<T> {
    Ok(T),
    Error(String),
}

#[cfg(test)]
mod tests;
