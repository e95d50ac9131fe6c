//! What a node tells of itself in the datastore.

use serde::{Deserialize, Serialize};

/// What there is to tell, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportingStatus {
    /// Is the datastore's first snapshot in? Before, nothing of this means anything.
    pub in_sync: bool,
    /// How often the node says that it is alive; zero is never.
    pub interval_seconds: f64,
    /// How long that counts.
    pub ttl_seconds: f64,
    /// How its endpoints fare, and the least time between two words about them; absent where it isn't to tell.
    pub endpoints: Option<EndpointReports>,
    /// CalicoNodeStatus resources for this node.
    pub requests: Vec<StatusRequest>,
}

/// How endpoints fare: `up`, `down` or `error`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointReports {
    /// The least time between two words about them.
    pub delay_seconds: f64,
    /// Workloads': namespace, name, and how they fare.
    pub workloads: Vec<(String, String, String)>,
    /// The host's own: name, and how they fare.
    pub hosts: Vec<(String, String)>,
}

/// A CalicoNodeStatus resource's `spec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusRequest {
    /// The resource's name.
    pub name: String,
    /// Is it about the BGP daemon itself?
    pub agent: bool,
    /// About sessions?
    pub bgp: bool,
    /// About routes?
    pub routes: bool,
    /// How often; zero is once.
    pub period_seconds: u64,
}

/// Routes as CalicoNodeStatus has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportedRoutes {
    /// In order of prefix, those in use before the others of a prefix.
    pub reported_routes: Vec<ReportedRoute>,
}

/// A route as CalicoNodeStatus has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedRoute {
    /// Is it the one in use?
    pub in_use: bool,
    /// The prefix.
    pub destination: String,
    /// The next hop; `N/A` where there is none.
    pub gateway: String,
    /// The interface, or what happens instead, as BIRD has it: `blackhole`, `unreachable`.
    pub interface: String,
    /// `Kernel`, `Static`, `Direct`, `NodeMesh` or `BGPPeer`.
    pub source_type: String,
    /// The peer that it was learned from.
    pub peer_ip: Option<String>,
}
