//! The form behind `tortie show bgp PREFIX`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Every path that BGP has to a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpRouteStatus {
    /// The prefix that was asked for.
    pub prefix: String,
    /// The best, then those as good, then the others, those that got furthest first.
    pub paths: Vec<BgpPathStatus>,
}

/// One path and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpPathStatus {
    /// The session that it comes from; absent where it is our own.
    pub peer: Option<String>,
    /// Path identifier, 0 without add-path.
    pub path_id: u32,
    /// Where it leads; absent where it is our own.
    pub nexthop: Option<IpAddr>,
    /// AS numbers, the nearest first.
    pub as_path: Vec<u32>,
    /// `IGP`, `EGP` or `incomplete`.
    pub origin: String,
    /// LOCAL_PREF, where it has one.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, where it has one.
    pub med: Option<u32>,
    /// Communities: `aa:nn`, and `aa:nn:mm` for large ones.
    pub communities: Vec<String>,
    /// The cost of the way to the next hop; absent where there is none.
    pub metric: Option<u32>,
    /// Kept from before the peer's restart.
    pub stale: bool,
    /// `best`, `multipath`, `lost` or `ineligible`.
    pub standing: String,
    /// Why it isn't used, where it isn't.
    pub reason: Option<String>,
}
