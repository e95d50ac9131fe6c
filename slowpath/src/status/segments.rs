//! What is known of VXLAN segments.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `show segments`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentsStatus {
    /// Every segment, as the configuration has them.
    pub segments: Vec<SegmentStatus>,
}

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentStatus {
    /// Its name.
    pub name: String,
    /// The network identifier.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// This node's address outside.
    pub local: Option<IpAddr>,
    /// This node's MAC address inside.
    pub mac: String,
    /// Seconds after which a station is forgotten that isn't heard again; absent where nothing is learned.
    pub ageing_seconds: Option<u64>,
    /// What an operator should know, such as a group that can't be joined.
    pub problems: Vec<String>,
    /// The forwarding database: what is written down, whom is flooded to, what was learned.
    pub fdb: Vec<FdbEntry>,
    /// The other ends that routes lead to.
    pub ends: Vec<EndStatus>,
    /// What has happened since the start, by name.
    pub counts: BTreeMap<String, u64>,
}

/// Behind which tunnel a station is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// Its MAC address; all zeros for what has no entry of its own, as in Linux.
    pub mac: String,
    /// The other end's address outside, or a group.
    pub remote: IpAddr,
    /// `static`, `learned` or `flood`.
    pub origin: String,
    /// Seconds since a learned station was heard.
    pub age_seconds: Option<u64>,
}

/// An end that routes lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndStatus {
    /// Its address inside.
    pub address: IpAddr,
    /// Its MAC address, once known.
    pub mac: Option<String>,
    /// Its address outside, once known.
    pub remote: Option<IpAddr>,
    /// `static`: written down; `reachable`: it was heard lately; `probing`: it is being asked whether it is still there;
    /// `asking`: nobody knows where it is, and its networks can't be reached.
    pub state: String,
    /// Seconds since it was heard.
    pub heard_seconds: Option<u64>,
}
