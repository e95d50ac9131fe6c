//! What the speaker tells about itself, for `show bgp` and for metrics.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{AsNumber, Family};

use crate::config::{PeerId, PeerKind};
use crate::output::{PeerState, Reason};
use crate::prefix_limit::PrefixLimit;
use crate::wire::attributes::Attributes;
use crate::wire::capability::Capability;

/// Messages of one direction, by type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MessageCounters {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
}

/// Routes of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FamilyCounters {
    /// Negotiated in the present session.
    pub negotiated: bool,
    /// Paths held from the peer, whatever the import filter says of them.
    pub received: usize,
    /// Of these, kept from before its restart.
    pub stale: usize,
    /// Prefixes announced to the peer.
    pub announced: usize,
}

/// What went wrong, counted since the peer was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ErrorCounters {
    /// UPDATEs whose routes were treated as withdrawn (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes discarded (RFC 7606).
    pub attributes_discarded: u64,
    /// Prefixes ignored because no packet can be forwarded to them, such as multicast ones.
    pub prefixes_ignored: u64,
    /// Routes not announced because we have no next hop of their family, or their attributes are too long.
    pub not_announceable: u64,
    /// Sessions ended because the peer sent too many prefixes.
    pub prefix_limit: u64,
    /// Warnings that the peer is near the paths that it may hold.
    pub prefix_limit_warnings: u64,
    /// How often it announced more.
    pub prefix_limit_reached: u64,
    /// Paths not taken because it holds as many as it may.
    pub prefixes_refused: u64,
    /// Routes announced that leaked: they went down to a customer once and came up again (RFC 9234 §5).
    pub route_leaks: u64,
    /// Sessions lost or refused.
    pub sessions_lost: u64,
}

/// One peer, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// The caller's number.
    pub id: PeerId,
    /// Where it is.
    pub address: IpAddr,
    /// The AS it must be in.
    pub remote_as: AsNumber,
    /// Our AS towards it.
    pub local_as: AsNumber,
    /// Same AS or another.
    pub kind: PeerKind,
    /// For people.
    pub description: String,
    /// State of its session.
    pub state: PeerState,
    /// When it entered that state.
    pub since: Instant,
    /// How long the session is Established.
    pub uptime: Option<Duration>,
    /// Why the last session ended or could not be.
    pub last_error: Option<Reason>,
    /// Its BGP identifier, once known.
    pub router_id: Option<Ipv4Addr>,
    /// The negotiated hold time; zero is none.
    pub hold_time: Option<Duration>,
    /// How long it is still refused, after an error or too many prefixes.
    pub resting: Option<Duration>,
    /// How many paths it may hold in a family.
    pub prefix_limit: PrefixLimit,
    /// What its OPEN announced.
    pub capabilities: Vec<Capability>,
    /// IPv4 routes.
    pub v4: FamilyCounters,
    /// IPv6 routes.
    pub v6: FamilyCounters,
    /// Messages received.
    pub messages_in: MessageCounters,
    /// Messages sent.
    pub messages_out: MessageCounters,
    /// What went wrong.
    pub errors: ErrorCounters,
}

impl PeerStatus {
    /// The counters of one family.
    pub fn family(&self, family: Family) -> &FamilyCounters {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// Who a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSource {
    /// We originate it.
    Local,
    /// A peer announced it.
    Peer(PeerId),
}

/// One path to a prefix and what became of it.
#[derive(Clone, Debug)]
pub struct PathStatus {
    /// Who it comes from.
    pub source: PathSource,
    /// Path identifier (RFC 7911), 0 without add-path.
    pub path_id: u32,
    /// Its attributes, after the import filter.
    pub attributes: Arc<Attributes>,
    /// Kept from before the peer's restart.
    pub stale: bool,
    /// Cost to the next hop; `None` is unreachable or not known yet.
    pub metric: Option<u32>,
    /// Is it in use, or why not.
    pub standing: Standing,
}

/// How a path fared in the decision process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It is the best.
    Best,
    /// It is as good as the best and is used beside it.
    Multipath,
    /// It lost against the best at this step.
    Lost(Step),
    /// It never took part.
    Ineligible(Ineligible),
}

/// The steps of the decision process; see `decision.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Before others, whatever its attributes: see [`Rank`](crate::Rank).
    Rank,
    /// Not LLGR_STALE (RFC 9494 §4.3).
    LongLivedStale,
    /// Higher LOCAL_PREF.
    LocalPref,
    /// Our own.
    Local,
    /// Shorter AS_PATH.
    AsPathLength,
    /// Lower ORIGIN.
    Origin,
    /// Lower MULTI_EXIT_DISC among routes of one neighbouring AS.
    Med,
    /// eBGP before iBGP.
    PeerKind,
    /// Lower cost to the next hop.
    Metric,
    /// Fresh before stale (RFC 4724 leaves it open; see `decision.rs`).
    Stale,
    /// Lower BGP identifier, or ORIGINATOR_ID.
    RouterId,
    /// Shorter CLUSTER_LIST (RFC 4456 §9).
    ClusterList,
    /// Lower peer address.
    PeerAddress,
    /// Lower path identifier (RFC 7911 leaves it open).
    PathId,
}

impl fmt::Display for Step {
    /// Why the path that lost is the worse one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Step::Rank => "lower preference",
            Step::LongLivedStale => "long-lived stale",
            Step::LocalPref => "lower LOCAL_PREF",
            Step::Local => "not our own",
            Step::AsPathLength => "longer AS_PATH",
            Step::Origin => "higher ORIGIN",
            Step::Med => "higher MULTI_EXIT_DISC",
            Step::PeerKind => "from our own AS",
            Step::Metric => "farther next hop",
            Step::Stale => "stale",
            Step::RouterId => "higher BGP identifier",
            Step::ClusterList => "longer CLUSTER_LIST",
            Step::PeerAddress => "higher peer address",
            Step::PathId => "higher path identifier",
        })
    }
}

/// Why a path takes no part in the decision process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ineligible {
    /// The import filter rejects it.
    Filtered,
    /// Our AS, as the peer is shown it, is in AS_PATH (RFC 4271 §9.1.2).
    AsLoop,
    /// Our identifier is its ORIGINATOR_ID or in CLUSTER_LIST (RFC 4456 §8).
    ReflectionLoop,
    /// It went down to a customer once and came up again (RFC 9234 §5).
    RouteLeak,
    /// Its next hop is one of our addresses (RFC 4271 §5.1.3).
    OwnNextHop,
    /// The next hop cannot be reached, or nobody has said so yet.
    Unreachable,
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Ineligible::Filtered => "rejected by the import filter",
            Ineligible::AsLoop => "our AS is in AS_PATH",
            Ineligible::ReflectionLoop => "it has been reflected by us",
            Ineligible::RouteLeak => "it has leaked from a customer or a peer",
            Ineligible::OwnNextHop => "we are its next hop",
            Ineligible::Unreachable => "the next hop can't be reached",
        })
    }
}
