//! Everything that can happen to a speaker.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use model::{AsNumber, Prefix};

use crate::bmp::{StationConfig, StationId};
use crate::config::{ConnectionId, PeerConfig, PeerId};

/// Who opened a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer did.
    Inbound,
    /// We did, on [`Output::Connect`](crate::Output::Connect).
    Outbound,
}

/// One event.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "inputs are handed over one at a time, never stored")]
pub enum Input<'a> {
    /// Add a peer, or change it. A change that the peer must learn of resets the session with Cease/6
    /// (RFC 4486); changed filters, next hops and waiting times take effect without a reset.
    PutPeer(PeerConfig),
    /// Forget a peer: Cease/3, its routes go by and by.
    RemovePeer(PeerId),
    /// A TCP connection with a peer stands.
    ConnectionOpened {
        /// Whose; an unknown peer's connection is closed.
        peer: PeerId,
        /// The caller's number for it.
        connection: ConnectionId,
        /// Who opened it.
        direction: Direction,
        /// Our end.
        local: SocketAddr,
    },
    /// The connection asked for with [`Output::Connect`](crate::Output::Connect) did not come to be.
    ConnectFailed {
        /// For whom it was asked.
        peer: PeerId,
    },
    /// The other end closed the connection or it broke. Not to be given for one that the speaker closed.
    ConnectionClosed {
        /// Which.
        connection: ConnectionId,
    },
    /// Bytes of the stream, cut anywhere.
    Received {
        /// Which connection.
        connection: ConnectionId,
        /// In order, none missing.
        bytes: &'a [u8],
    },
    /// The caller's send buffer for the connection is full (`true`): announce nothing more to this peer, only
    /// keepalives. Or it has room again (`false`): what changed meanwhile follows.
    Congested {
        /// Which connection.
        connection: ConnectionId,
        /// Full, or with room.
        congested: bool,
    },
    /// Announce a route of our own, or change it.
    Originate(OriginatedRoute),
    /// Withdraw a route of our own.
    Withdraw(Prefix),
    /// The answer to [`Output::WatchNexthop`](crate::Output::WatchNexthop), and again with each change.
    NexthopChanged {
        /// The address asked for.
        nexthop: IpAddr,
        /// The IGP's cost to reach it (RFC 4271 §9.1.2.2 e); `None` is unreachable.
        metric: Option<u32>,
    },
    /// The way to a peer is lost, as BFD tells: its session ends with Cease/10 (RFC 9384), and its routes go,
    /// whatever was agreed on for restarts.
    PathLost {
        /// Whose.
        peer: PeerId,
    },
    /// Ask a peer for all its routes again (RFC 2918), if it can do that.
    RequestRefresh {
        /// Whom.
        peer: PeerId,
    },
    /// A monitoring station is there (RFC 7854): it is told everything from now on.
    StationJoined {
        /// Who it is and what it wants.
        config: StationConfig,
        /// What the time is, since 1970.
        time: Duration,
    },
    /// A station is gone.
    StationLeft(StationId),
    /// The queue to a station is full (`true`): nothing of the table is added to it; or it has room again.
    StationCongested {
        /// Which.
        station: StationId,
        /// Full, or with room.
        congested: bool,
    },
    /// Tell stations counts (RFC 7854 §4.8).
    TellStatistics,
    /// [`Speaker::next_deadline`](crate::Speaker::next_deadline) passed.
    Tick,
    /// Close every session and take no more input but `Tick`.
    Shutdown {
        /// Close without NOTIFICATION, so that helpers keep our routes (RFC 4724); otherwise Cease/2.
        graceful: bool,
    },
}

/// A route that this speaker originates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginatedRoute {
    /// To where.
    pub prefix: Prefix,
    /// How it is held against what peers say of the same prefix.
    pub rank: Rank,
    /// How we know it.
    pub origin: Origin,
    /// For iBGP peers; `None` is 100.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, sent to every peer.
    pub med: Option<u32>,
    /// RFC 1997: upper half AS, lower half value.
    pub communities: Vec<u32>,
    /// RFC 8092.
    pub large_communities: Vec<[u32; 3]>,
    /// It stands for others, whose paths it leaves out: by whom they were put together (RFC 4271 §5.1.6, §5.1.7).
    pub aggregator: Option<(AsNumber, Ipv4Addr)>,
}

impl OriginatedRoute {
    /// Before what peers say, with an ORIGIN of IGP and nothing else.
    pub fn new(prefix: Prefix) -> OriginatedRoute {
        OriginatedRoute {
            prefix,
            rank: Rank::BeforePeers,
            origin: Origin::Igp,
            local_pref: None,
            med: None,
            communities: Vec::new(),
            large_communities: Vec::new(),
            aggregator: None,
        }
    }
}

/// Which routes to one prefix come first, whatever their attributes: BIRD's preference of a protocol, an administrative distance
/// elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// Before what peers say, as BIRD's static routes (a preference of 200).
    BeforePeers,
    /// What peers say (100), and routes of ours that LOCAL_PREF is to decide about.
    Peers,
    /// After what peers say, as what BIRD learns from the kernel (10).
    AfterPeers,
    /// After all else: it stands in for what others should say, and isn't for everybody, which is for filters to see to.
    StandIn,
}

/// The ORIGIN attribute (RFC 4271 §5.1.1); the order is the preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Interior to the originating AS.
    Igp = 0,
    /// Learned through EGP.
    Egp = 1,
    /// Some other way.
    Incomplete = 2,
}
