//! Everything a speaker asks for or tells.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

use model::{Family, Prefix};

use crate::bmp::StationId;
use crate::config::{ConnectionId, PeerId, PeerKind};
use crate::prefix_limit::{PrefixLimit, Reached};
use crate::wire::notification::Notification;

/// One request or fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection; answer with `ConnectionOpened` or `ConnectFailed`. Asked again for the same
    /// peer, a former attempt is to be given up.
    Connect {
        /// For whom.
        peer: PeerId,
        /// To where.
        remote: SocketAddr,
        /// From where, or the system's choice.
        local: Option<IpAddr>,
    },
    /// Write these bytes: one or more whole messages.
    Send {
        /// To which connection.
        connection: ConnectionId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close the connection once everything sent is written.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Say with `NexthopChanged` how this address is reached, now and with each change.
    WatchNexthop(IpAddr),
    /// No more need to say.
    UnwatchNexthop(IpAddr),
    /// The routes to a prefix are now these.
    RouteChanged {
        /// To where.
        prefix: Prefix,
        /// The best path, then those equal to it; empty where there is none or the best is our own. Prefixes that came
        /// together mostly share theirs.
        paths: BestPaths,
    },
    /// A peer's session changed its state.
    PeerStateChanged {
        /// Whose.
        peer: PeerId,
        /// It was.
        from: PeerState,
        /// It is.
        to: PeerState,
        /// Why.
        reason: Reason,
    },
    /// A peer is near the paths that it may hold, or has announced more. Told once each in a session and family.
    PrefixLimit {
        /// Whose.
        peer: PeerId,
        /// In which family.
        family: Family,
        /// How far it has gone.
        reached: Reached,
        /// What it may hold.
        limit: PrefixLimit,
    },
    /// Send these bytes, one or more messages of BMP, to a monitoring station.
    ToStation {
        /// Which.
        station: StationId,
        /// What.
        bytes: Vec<u8>,
    },
    /// A restarting speaker has heard from its peers (or waited long enough): routes that the forwarding plane
    /// kept from before and that no `RouteChanged` has named can go. Given once, where
    /// [`SpeakerConfig::restarting`](crate::SpeakerConfig::restarting) was set.
    RestartComplete,
}

/// The paths to a prefix that the forwarding plane should use. Where there are none nothing is counted, either: a million
/// prefixes may go at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BestPaths(Option<Arc<[BestPath]>>);

impl From<Vec<BestPath>> for BestPaths {
    fn from(paths: Vec<BestPath>) -> BestPaths {
        BestPaths((!paths.is_empty()).then(|| paths.into()))
    }
}

impl Deref for BestPaths {
    type Target = [BestPath];

    fn deref(&self) -> &[BestPath] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// One path to a prefix that the forwarding plane should use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BestPath {
    /// Where to send; reachable, perhaps through another route.
    pub nexthop: IpAddr,
    /// Who announced it.
    pub peer: PeerId,
    /// Whether in our AS.
    pub kind: PeerKind,
    /// Degree of preference: the announced LOCAL_PREF, or 100.
    pub local_pref: u32,
    /// MULTI_EXIT_DISC, where there is one.
    pub med: Option<u32>,
    /// The bandwidth of the link there, in bytes a second, where the path tells it (draft-ietf-idr-link-bandwidth).
    pub bandwidth: Option<u64>,
    /// Packets are to be dropped rather than sent there: a BLACKHOLE of a peer that is heeded (RFC 7999).
    pub discard: bool,
}

/// The states of RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerState {
    /// Not trying; refusing the peer's connections. After an error, until its wait is over.
    Idle,
    /// Waiting for our TCP connection.
    Connect,
    /// Waiting for the peer's TCP connection, or for the time to try again.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN received as well.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PeerState::Idle => "Idle",
            PeerState::Connect => "Connect",
            PeerState::Active => "Active",
            PeerState::OpenSent => "OpenSent",
            PeerState::OpenConfirm => "OpenConfirm",
            PeerState::Established => "Established",
        })
    }
}

/// Why a session changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The peer was configured, or its wait is over.
    Started,
    /// Time to connect.
    Connecting,
    /// The TCP connection stands; our OPEN is sent.
    Connected,
    /// The peer's OPEN came.
    OpenReceived,
    /// The peer confirmed our OPEN.
    Confirmed,
    /// Our TCP connection did not come to be.
    ConnectFailed,
    /// The peer closed the TCP connection, or it broke.
    ConnectionLost,
    /// The peer opened a new connection while the session stood: it has restarted (RFC 4724 §4.2).
    PeerRestarted,
    /// The session was closed with this NOTIFICATION of ours.
    Sent(Notification),
    /// The session was closed by this NOTIFICATION of the peer.
    Received(Notification),
    /// Closed without NOTIFICATION, so that the peer keeps our routes.
    GracefulShutdown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Started => f.write_str("started"),
            Reason::Connecting => f.write_str("connecting"),
            Reason::Connected => f.write_str("TCP connection open"),
            Reason::OpenReceived => f.write_str("OPEN received"),
            Reason::Confirmed => f.write_str("KEEPALIVE received"),
            Reason::ConnectFailed => f.write_str("TCP connection failed"),
            Reason::ConnectionLost => f.write_str("TCP connection lost"),
            Reason::PeerRestarted => f.write_str("the peer restarted"),
            Reason::Sent(notification) => write!(f, "sent {notification}"),
            Reason::Received(notification) => write!(f, "received {notification}"),
            Reason::GracefulShutdown => f.write_str("closed for a graceful restart"),
        }
    }
}
