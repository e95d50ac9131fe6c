//! The form behind `tortie show bgp neighbor`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PeerStatus;

/// `show bgp neighbor`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BgpNeighborsStatus {
    /// Those that were asked for, by name.
    pub neighbors: Vec<BgpNeighborStatus>,
}

/// Everything that is known of one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BgpNeighborStatus {
    /// What `show bgp` tells.
    #[serde(flatten)]
    pub session: PeerStatus,
    /// Our AS towards it.
    pub local_as: u32,
    /// Its BGP identifier, while the session is up.
    pub router_id: Option<String>,
    /// What its OPEN announced, while the session is up.
    pub capabilities: Vec<String>,
    /// What each family of the session has: `ipv4`, `ipv6`.
    pub families: BTreeMap<String, BgpFamilyStatus>,
    /// Messages received, by type.
    pub received_messages: BTreeMap<String, u64>,
    /// Messages sent, by type.
    pub sent_messages: BTreeMap<String, u64>,
    /// What went wrong, by what it was; all there is, zeros included.
    pub errors: BTreeMap<String, u64>,
    /// How long it is still refused, after an error or too many prefixes.
    pub resting_seconds: Option<u64>,
}

/// One family of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpFamilyStatus {
    /// Agreed on in the present session.
    pub negotiated: bool,
    /// Paths held from the peer.
    pub received: u64,
    /// Of these, kept from before its restart.
    pub stale: u64,
    /// Prefixes that it is told.
    pub announced: u64,
}

/// How many paths a peer may hold in a family, and how far it has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixLimitStatus {
    /// Paths.
    pub most: u64,
    /// From so many on it is warned.
    pub warns_at: u64,
    /// What becomes of one more: `warn`, `drop` or `close`.
    pub action: String,
    /// How long it is refused after `close`, in seconds.
    pub rest_seconds: Option<u64>,
    /// Warnings that it is near the limit.
    pub warnings: u64,
    /// How often it has announced more.
    pub reached: u64,
    /// Paths not taken for it.
    pub refused: u64,
    /// Sessions closed for it.
    pub closed: u64,
}
