//! What the slow path tells about itself: the forms behind `tortie show … -o json` and the metrics.
//!
//! The field names are an interface: programs read them. Add fields, don't rename them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::tunnel::{Encapsulation, Tunnel};
mod bfd;
mod bgp_dump;
mod bgp_neighbor;
mod bgp_route;
mod fingerprints;
mod host_policy;
mod limits;
mod policy;
mod reporting;
mod segments;
mod stations;
mod traces;

pub use bfd::{BfdSessionStatus, BfdStatus};
pub use bgp_dump::BgpDumpStatus;
pub use bgp_neighbor::{BgpFamilyStatus, BgpNeighborStatus, BgpNeighborsStatus, PrefixLimitStatus};
pub use bgp_route::{BgpPathStatus, BgpRouteStatus};
pub use fingerprints::{FingerprintStatus, FingerprintsStatus};
pub use host_policy::{HostEndpointStatus, HostPolicyStatus, HostRuleStatus};
pub use limits::{LimitStatus, QosStatus};
pub use policy::{PolicyNumbers, PolicyRuleStatus, PolicyStatus, PolicyTotal, PolicyUse};
pub use reporting::{EndpointReports, ReportedRoute, ReportedRoutes, ReportingStatus, StatusRequest};
pub use segments::{EndStatus, FdbEntry, SegmentStatus, SegmentsStatus};
pub use stations::{StationStatus, StationsStatus};
pub use traces::{TracedHeaders, TracedPacket, TracedPolicy, TracedRoute, TracedStage, TracesStatus};

/// A question to the running slow path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "query")]
pub enum Query {
    /// Sessions.
    Bgp,
    /// Everything about the sessions with one peer, or with all.
    BgpNeighbors {
        /// Whose.
        address: Option<IpAddr>,
    },
    /// BGP's table in MRT's form: the next piece, or the first one.
    BgpDump {
        /// Of which table.
        id: Option<u64>,
    },
    /// Every path that BGP has to a prefix.
    BgpRoute {
        /// The prefix, as text.
        prefix: String,
    },
    /// The winning routes, at most `limit` of them listed; all are counted.
    Routes {
        /// How many to list.
        limit: usize,
        /// Only routes of this source.
        source: Option<String>,
    },
    /// The route that covers an address.
    Route {
        /// The address.
        address: IpAddr,
    },
    /// Neighbours.
    Neighbors,
    /// Ports.
    Ports,
    /// BFD sessions.
    Bfd,
    /// Monitoring stations.
    Stations,
    /// ICMP errors.
    Icmp,
    /// What nftables keeps of host endpoints' policy.
    HostPolicy,
    /// What the rules of workloads' policy have decided.
    Policy {
        /// Only at this endpoint.
        endpoint: Option<String>,
        /// Also rules that decided nothing.
        all: bool,
    },
    /// What staged policy would have denied.
    Staged,
    /// VXLAN segments.
    Segments,
    /// What the walk has found of some packets, to be put into words.
    Traces {
        /// The packets.
        #[serde(skip)]
        traces: Vec<tables::Trace>,
    },
    /// The datastore.
    Datastore,
    /// What this node tells of itself in the datastore.
    Reporting,
    /// Its routes as CalicoNodeStatus has them.
    ReportedRoutes {
        /// So many prefixes of each family at most.
        limit: usize,
    },
    /// What the fast path's tables mean.
    Fingerprints,
    /// Numbers for the metrics.
    Summary,
}

/// The answer to a [`Query`] of the same name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "each variant is the form of its own name")]
pub enum Answer {
    Bgp(BgpStatus),
    BgpNeighbors(BgpNeighborsStatus),
    BgpDump(BgpDumpStatus),
    BgpRoute(BgpRouteStatus),
    Routes(RoutesStatus),
    Route(RouteStatus),
    Neighbors(NeighborsStatus),
    Ports(PortsStatus),
    Bfd(BfdStatus),
    Stations(StationsStatus),
    Icmp(IcmpStatus),
    HostPolicy(HostPolicyStatus),
    Policy(PolicyStatus),
    Segments(SegmentsStatus),
    Traces(TracesStatus),
    Datastore(DatastoreStatus),
    Reporting(ReportingStatus),
    ReportedRoutes(ReportedRoutes),
    Fingerprints(FingerprintsStatus),
    Summary(Box<Summary>),
}

/// `show datastore`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatastoreStatus {
    /// Which it is, and where.
    pub datastore: String,
    /// Is its first snapshot in?
    pub in_sync: bool,
    /// How long it took from the start until that was in force. Absent until it is.
    #[serde(default)]
    pub load_seconds: Option<f64>,
    /// Since when it can't be followed: RFC 3339, UTC. Absent while it can.
    pub stale_since: Option<String>,
    /// The same in seconds; 0 while it can be followed.
    pub stale_seconds: u64,
    /// Why.
    pub stale_reason: Option<String>,
    /// Changes of resources that came and are in force.
    pub changes: u64,
    /// How long the last of them took, from the datastore's word until it was in force.
    pub last_delay_seconds: f64,
    /// Half of those since the first snapshot took no longer.
    #[serde(default)]
    pub median_delay_seconds: f64,
    /// 99 of 100 of them took no longer.
    #[serde(default)]
    pub p99_delay_seconds: f64,
    /// The longest that one took.
    pub longest_delay_seconds: f64,
    /// All of them together.
    pub total_delay_seconds: f64,
    /// Files, or etcd's keys, that can't be read now, with the reason for each.
    pub invalid: BTreeMap<String, String>,
}

/// `show bgp`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BgpStatus {
    /// Our AS number.
    pub local_as: u32,
    /// Our BGP identifier; absent until the node's resource is known.
    pub router_id: Option<String>,
    /// When the router began to run, and when what its sessions should be last changed: RFC 3339, UTC.
    #[serde(default)]
    pub started: String,
    /// See [`Self::started`].
    #[serde(default)]
    pub reconfigured: String,
    /// How often the event loop had to wait as the queue of its orders to BGP's thread was full.
    #[serde(default)]
    pub orders_full: u64,
    /// Every configured session.
    pub peers: Vec<PeerStatus>,
}

/// One session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// As Calico names it, such as `Mesh_172_18_0_2`.
    pub name: String,
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's AS number.
    pub asn: u32,
    /// `node-to-node mesh`, `global` or `node specific`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The FSM's state, as RFC 4271 names it.
    pub state: String,
    /// Established?
    pub up: bool,
    /// When it entered the state: RFC 3339, UTC.
    pub since: String,
    /// Seconds in the state.
    pub since_seconds: u64,
    /// What an operator should know, such as why it is down.
    pub info: String,
    /// Prefixes received.
    pub received: PerFamily,
    /// Prefixes announced.
    pub announced: PerFamily,
    /// Hold time in force, in seconds; absent while the session is down.
    pub hold_time_seconds: Option<u64>,
    /// BGP messages received and sent on this and earlier connections.
    pub messages_received: u64,
    /// See [`Self::messages_received`].
    pub messages_sent: u64,
    /// How often the session came up.
    pub established_count: u64,
    /// Why it last went down.
    pub last_error: Option<String>,
    /// How many paths it may hold, and how far it has gone.
    #[serde(default)]
    pub prefix_limit: PrefixLimitStatus,
}

/// A count for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerFamily {
    /// IPv4.
    pub ipv4: u64,
    /// IPv6.
    pub ipv6: u64,
}

/// `show routes`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RoutesStatus {
    /// The winners, in order of prefix; cut at the limit that was asked for.
    pub routes: Vec<RouteStatus>,
    /// How many winners there are.
    pub total: usize,
    /// Winners by source.
    pub counts: BTreeMap<String, usize>,
}

/// One route, or the answer to `show route ADDR`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RouteStatus {
    /// The address asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    /// The prefix; absent where nothing covers the address.
    pub prefix: Option<String>,
    /// `local`, `neighbor`, `connected`, `workload`, `block`, `static`, `vxlan`, `bgp`, `kernel` or `preserved`.
    pub source: Option<String>,
    /// The source's preference: the higher wins.
    pub preference: Option<u32>,
    /// What happens to a packet: `forward`; `attached`: the destination is on the link itself and asked for with the
    /// first packet; `blackhole`; `rejected` and `prohibited`: dropped, and the sender told; `local`; `unresolved`: no next hop's MAC address is known; or `no_route`.
    pub fate: String,
    /// Where to.
    pub nexthops: Vec<NexthopStatus>,
    /// Is it in the fast path's table?
    pub installed: bool,
    /// In the answer to `show route ADDR`: what other sources offer for the same prefix, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub others: Vec<OfferStatus>,
}

/// A route that isn't taken, as another source's is preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferStatus {
    /// As [`RouteStatus::source`].
    pub source: String,
    /// As [`RouteStatus::preference`].
    pub preference: u32,
    /// Where it would lead, where that is to somebody.
    pub via: Vec<IpAddr>,
    /// Why it isn't taken.
    pub reason: String,
}

/// One next hop of a route.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NexthopStatus {
    /// The neighbour.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub via: Option<IpAddr>,
    /// The port's name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<String>,
    /// The neighbour's MAC address; absent until it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mac: Option<String>,
    /// `blackhole`, `rejected`, `prohibited`, `local`, `attached` or `unreachable` where there is no neighbour.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// Its part of the flows, from 0 to 1, where next hops have unlike weights.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub share: Option<f64>,
    /// The tunnel that the neighbour leads to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tunnel: Option<TunnelStatus>,
}

/// A tunnel to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// `ipip` or `vxlan`.
    pub kind: String,
    /// The outer source address.
    pub local: IpAddr,
    /// The outer destination address.
    pub remote: IpAddr,
    /// VXLAN's network identifier.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vni: Option<u32>,
    /// VXLAN's UDP port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
}

impl TunnelStatus {
    pub(crate) fn of(tunnel: &Tunnel) -> TunnelStatus {
        let (kind, vni, port) = match tunnel.encapsulation {
            Encapsulation::Ipip => ("ipip", None, None),
            Encapsulation::Vxlan { vni, port, .. } => ("vxlan", Some(vni), Some(port)),
        };
        TunnelStatus { kind: kind.to_owned(), local: tunnel.local, remote: tunnel.remote, vni, port }
    }
}

impl fmt::Display for TunnelStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vni {
            Some(vni) => write!(f, "{} vni {vni} to {}", self.kind, self.remote),
            None => write!(f, "{} to {}", self.kind, self.remote),
        }
    }
}

/// `show neighbors`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NeighborsStatus {
    /// Every neighbour known, by port and address.
    pub neighbors: Vec<NeighborStatus>,
}

/// One neighbour.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NeighborStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, once known.
    pub mac: Option<String>,
    /// The port's name.
    pub port: String,
    /// As the kernel names it: `reachable`, `stale`, `incomplete`, `failed`, `permanent`, …
    pub state: String,
    /// How many routes' next-hop groups need it.
    pub used_by: usize,
    /// The tunnels that it leads to.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tunnels: Vec<TunnelStatus>,
}

/// `show icmp`: what was told to senders by ICMP, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpStatus {
    /// Errors made, by what they tell; all there are, those at zero included.
    pub errors: BTreeMap<String, PerFamily>,
    /// Punted packets that got no answer, by reason.
    pub silent: BTreeMap<String, u64>,
}

/// `show ports`, without the fast path's counters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PortsStatus {
    /// Every port, by number.
    pub ports: Vec<PortStatus>,
    /// Interfaces that should be ports and aren't, with the reason.
    pub problems: Vec<PortProblem>,
    /// MTU that workloads' interfaces are brought down to, in bytes; absent where they are left alone.
    #[serde(default)]
    pub workload_mtu: Option<u32>,
    /// Largest IP packet that frames hold, in bytes; what a port's queues can receive stands with them.
    #[serde(default)]
    pub receivable: u32,
}

/// One port.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PortStatus {
    /// Its number in the fast path.
    pub id: u16,
    /// The interface's name.
    pub name: String,
    /// `uplink`, `workload` or `host`.
    pub kind: String,
    /// The kernel's number of the interface.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: String,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Up?
    pub up: bool,
    /// What an operator should know of it; none where all is well.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The workload endpoint behind it.
    pub endpoint: Option<String>,
    /// The endpoint's QoS controls, where it has any.
    #[serde(default)]
    pub qos: Option<QosStatus>,
    /// What each of its queues really got.
    pub queues: Vec<crate::QueueReport>,
}

/// An interface that should be a port and isn't.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortProblem {
    /// The interface's name.
    pub name: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// Numbers for the metrics.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Is the datastore's first snapshot in?
    pub in_sync: bool,
    /// Is forwarding open?
    pub ready: bool,
    /// Winning routes by source.
    pub routes: BTreeMap<String, usize>,
    /// Routes in the fast path's table.
    pub fib_routes: PerFamily,
    /// Memory of the fast path's look-up structures, in bytes.
    pub fib_bytes: usize,
    /// Rows taken.
    pub adjacencies: usize,
    /// Rows taken.
    pub groups: usize,
    /// Routes that a full table refused.
    pub refused_routes: usize,
    /// Neighbours known.
    pub neighbors: usize,
    /// Neighbours that a full table refused.
    pub refused_neighbors: u64,
    /// Routes that the kernel's mirror holds.
    pub mirrored_routes: usize,
    /// How well the datastore is followed.
    #[serde(default)]
    pub datastore: DatastoreStatus,
    /// Datastore files that are malformed now, with the message for each.
    pub invalid_files: BTreeMap<String, String>,
    /// Punted packets answered, by what was done.
    pub punts_answered: BTreeMap<String, u64>,
    /// ICMP errors made, by what they tell.
    #[serde(default)]
    pub icmp_errors: BTreeMap<String, PerFamily>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
    /// QoS controls by port: those of endpoints that have any.
    #[serde(default)]
    pub qos: BTreeMap<String, QosStatus>,
    /// Stations of each segment's forwarding database by origin, and what has happened there.
    #[serde(default)]
    pub segments: Vec<SegmentNumbers>,
    /// What policy has decided.
    #[serde(default)]
    pub policy: PolicyNumbers,
    /// What of policy's tables is in use.
    #[serde(default)]
    pub policy_use: PolicyUse,
    /// Who is watched.
    #[serde(default)]
    pub bfd: BfdStatus,
    /// Monitoring stations.
    #[serde(default)]
    pub stations: StationsStatus,
    /// Sessions.
    pub bgp: BgpStatus,
}

/// A segment's numbers for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentNumbers {
    /// Its name.
    pub name: String,
    /// Entries of its forwarding database by origin, as in [`FdbEntry::origin`].
    pub fdb: BTreeMap<String, usize>,
    /// As [`SegmentStatus::counts`].
    pub counts: BTreeMap<String, u64>,
}
