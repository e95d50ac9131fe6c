//! What the speaker and each peer are told to do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use model::{AsNumber, Family};

use crate::filter::Filter;
use crate::guard::Guard;
use crate::prefix_limit::PrefixLimit;
use crate::wire::capability::Role;

/// A peer's number, chosen by the caller and never reused for another peer while it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// A TCP connection's number, chosen by the caller and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Same AS or another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// The peer is in our AS.
    Ibgp,
    /// The peer is in another AS.
    Ebgp,
}

impl PeerKind {
    /// Of a peer in an AS, towards which we are in `local_as`.
    pub(crate) fn between(local_as: AsNumber, peer_as: AsNumber) -> PeerKind {
        if peer_as == local_as { PeerKind::Ibgp } else { PeerKind::Ebgp }
    }
}

/// The whole speaker's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// The BGP identifier; must not be 0.0.0.0 (RFC 6286 §2.1).
    pub router_id: Ipv4Addr,
    /// Our AS, unless a peer's [`PeerConfig::local_as`] says otherwise.
    pub local_as: AsNumber,
    /// Did this process replace one whose forwarding state still stands?
    /// Sets the R bit in our OPENs until a peer's first session stands, and the F bit always (RFC 4724 §3).
    pub restarting: bool,
    /// Seeds hash tables and timer jitter. A value that peers cannot guess keeps them from crafting collisions;
    /// the same seed and inputs give the same outputs.
    pub seed: u64,
    /// Compare MULTI_EXIT_DISC also between different neighbouring ASes. RFC 4271 does not, as their values
    /// need not be alike; where they are, the outcome no longer depends on which paths are there.
    pub always_compare_med: bool,
    /// What bounds memory.
    pub limits: Limits,
    /// Timers that are not a peer's own.
    pub timers: Timers,
}

impl SpeakerConfig {
    /// The defaults around an identifier and an AS.
    pub fn new(router_id: Ipv4Addr, local_as: AsNumber) -> SpeakerConfig {
        SpeakerConfig {
            router_id,
            local_as,
            restarting: false,
            seed: 0,
            always_compare_med: false,
            limits: Limits::default(),
            timers: Timers::default(),
        }
    }
}

/// Sizes that the speaker never exceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Configured peers; more are refused and counted.
    pub max_peers: usize,
    /// Paths one peer may hold in one family, whatever its own [`PeerConfig::prefix_limit`] says; one more ends the session
    /// with Cease/1 (RFC 4486 §4).
    pub max_prefixes_per_peer: usize,
    /// Paths in one [`Output::RouteChanged`](crate::Output::RouteChanged); at least 1.
    pub max_ecmp_paths: usize,
    /// Prefixes decided and announced in one call of [`Speaker::handle`](crate::Speaker::handle), times peers.
    pub work_per_call: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_peers: 4096, max_prefixes_per_peer: 2_000_000, max_ecmp_paths: 8, work_per_call: 16_384 }
    }
}

/// Timers that are the speaker's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timers {
    /// How long a restarting speaker waits for End-of-RIB of peers that are up before it announces its routes
    /// (Selection_Deferral_Timer, RFC 4724 §4.1). Peers that are down are never waited for.
    pub selection_deferral: Duration,
    /// How long stale routes outlive the peer's return without an End-of-RIB (RFC 4724 §4.2, last paragraph).
    pub stale_after_return: Duration,
    /// The most that a peer's long-lived stale time counts (RFC 9494 §4.2).
    pub long_lived_max: Duration,
    /// Hold time until the peer's OPEN has come (RFC 4271 §8.2.2 suggests 4 minutes).
    pub open_hold_time: Duration,
    /// A session that stood this long forgets earlier errors.
    pub error_forget: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            selection_deferral: Duration::from_secs(120),
            stale_after_return: Duration::from_secs(360),
            long_lived_max: Duration::from_secs(24 * 3600),
            open_hold_time: Duration::from_secs(240),
            error_forget: Duration::from_secs(300),
        }
    }
}

/// Which next hop we announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHopMode {
    /// RFC 4271 §5.1.3: ourselves to eBGP peers and for our own routes, unchanged to iBGP peers.
    Auto,
    /// Always ourselves.
    SelfAddress,
    /// Unchanged, except for our own routes.
    Keep,
}

/// How many of the paths to a prefix a peer is told of (RFC 7911).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendPaths {
    /// The best alone.
    Best,
    /// The best, the best of the others, and so on, so many in all.
    UpTo(usize),
    /// All that could be used.
    All,
}

/// What we announce as "ourselves".
///
/// A family left `None` takes the session's local address where that is of the family; otherwise its
/// routes are not announced. A session over IPv4 that carries IPv6 needs `v6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct SelfNextHops {
    /// For IPv4 routes.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6 routes.
    pub v6: Option<Ipv6Addr>,
}

/// Seconds to stay idle after an error: `min`, doubled with each further error up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorWait {
    /// After the first error.
    pub min: Duration,
    /// Never longer than this.
    pub max: Duration,
}

/// One peer's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The caller's number for the peer.
    pub id: PeerId,
    /// Where the peer is.
    pub address: IpAddr,
    /// Its TCP port; 179 usually.
    pub port: u16,
    /// The address to connect from, or the system's choice.
    pub local_address: Option<IpAddr>,
    /// The AS it must name in its OPEN.
    pub peer_as: AsNumber,
    /// Our AS towards this peer where it is not the speaker's.
    pub local_as: Option<AsNumber>,
    /// How often our AS, as the peer is shown it, may be in the AS_PATH of a route that is still taken.
    pub allowed_own_as: u8,
    /// Families to offer; without duplicates.
    pub families: Vec<Family>,
    /// Wait for the peer to connect, never connect.
    pub passive: bool,
    /// Hold time to offer; zero for none, otherwise at least 3 s (RFC 4271 §4.2).
    pub hold_time: Duration,
    /// Interval of keepalives; `None` is a third of the negotiated hold time. Longer than that third is cut.
    pub keepalive_time: Option<Duration>,
    /// From start or loss of the session to the first attempt to connect (BIRD `connect delay time`).
    pub connect_delay: Duration,
    /// From a failed attempt to the next (BIRD `connect retry time`).
    pub connect_retry: Duration,
    /// From an error to the next attempt (BIRD `error wait time`).
    pub error_wait: ErrorWait,
    /// How long the peer shall keep our routes while we restart (RFC 4724), at most 4095 s; zero offers no
    /// graceful restart of our own but still helps the peer's.
    pub restart_time: Duration,
    /// Keep the peer's routes, and ask it to keep ours, also where a session ends by NOTIFICATION or for want of
    /// keepalives (RFC 8538), not only where its connection is lost. Off unless asked for: a node that is gone for
    /// good is then believed in for its restart time.
    pub survive_notification: bool,
    /// How long the peer shall keep our routes beyond the restart time, as a last resort (RFC 9494), less than 2^24
    /// seconds; zero offers none of our own but still helps the peer's.
    pub long_lived_time: Duration,
    /// Offer to receive several paths for one prefix (RFC 7911).
    pub add_path: bool,
    /// Which paths for one prefix we announce where the peer takes several.
    pub send_paths: SendPaths,
    /// Offer messages of up to 65535 octets (RFC 8654).
    pub extended_messages: bool,
    /// Offer IPv4 routes with IPv6 next hops (RFC 8950).
    pub v4_over_v6: bool,
    /// What we are to a peer in another AS; keeps routes from leaking (RFC 9234).
    pub role: Option<Role>,
    /// Refuse a peer that says nothing of its role (RFC 9234 §4.2, strict mode). Only with [`Self::role`].
    pub strict_role: bool,
    /// Take BLACKHOLE for what it says: packets to such routes are dropped (RFC 7999).
    pub blackhole: bool,
    /// The bandwidth of the link to the peer, in bytes a second: paths of its that tell none get it, and pass it on within our
    /// AS (draft-ietf-idr-link-bandwidth).
    pub link_bandwidth: Option<u64>,
    /// From and to another AS nothing passes a filter that accepts everything without a rule, as if it were not set
    /// (RFC 8212). Off, such a filter is taken at its word.
    pub policy_required: bool,
    /// Which next hop we announce.
    pub next_hop: NextHopMode,
    /// What "ourselves" is in each family.
    pub self_next_hops: SelfNextHops,
    /// We reflect routes between this peer and our other iBGP peers, in the cluster of this number (RFC 4456 §7).
    /// Heeded within our AS only.
    pub reflector_client: Option<Ipv4Addr>,
    /// How its TCP connections are guarded, for whoever opens them.
    pub guard: Guard,
    /// How many paths the peer may hold in a family; `None` is [`Limits::max_prefixes_per_peer`], then the session is closed.
    pub prefix_limit: Option<PrefixLimit>,
    /// Which of the peer's routes we take.
    pub import: Filter,
    /// Which routes the peer gets.
    pub export: Filter,
    /// For people.
    pub description: String,
}

impl PeerConfig {
    /// BIRD's defaults around a peer's number, address and AS: IPv4 and IPv6 by the address's family only,
    /// everything imported and exported within our AS, nothing from and to another (RFC 8212) before
    /// [`Self::policy_required`] is taken back or a filter has a rule.
    pub fn new(id: PeerId, address: IpAddr, peer_as: AsNumber) -> PeerConfig {
        PeerConfig {
            id,
            address,
            port: 179,
            local_address: None,
            peer_as,
            local_as: None,
            allowed_own_as: 0,
            families: vec![Family::of(address)],
            passive: false,
            hold_time: Duration::from_secs(90),
            keepalive_time: None,
            connect_delay: Duration::from_secs(2),
            connect_retry: Duration::from_secs(5),
            error_wait: ErrorWait { min: Duration::from_secs(5), max: Duration::from_secs(30) },
            restart_time: Duration::from_secs(120),
            survive_notification: false,
            long_lived_time: Duration::ZERO,
            add_path: false,
            send_paths: SendPaths::Best,
            extended_messages: true,
            v4_over_v6: false,
            role: None,
            strict_role: false,
            blackhole: false,
            link_bandwidth: None,
            policy_required: true,
            next_hop: NextHopMode::Auto,
            self_next_hops: SelfNextHops::default(),
            reflector_client: None,
            guard: Guard::default(),
            prefix_limit: None,
            import: Filter::accept_all(),
            export: Filter::accept_all(),
            description: String::new(),
        }
    }

    /// Where to connect to.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// May the running session stay when `self` replaces `old`? Only what the peer cannot notice may differ:
    /// filters, limits, next hops, who connects, waiting times and the description.
    pub(crate) fn keeps_session_of(&self, old: &PeerConfig) -> bool {
        let same_for_peer = |config: &PeerConfig| PeerConfig {
            next_hop: NextHopMode::Auto,
            self_next_hops: SelfNextHops::default(),
            passive: false,
            strict_role: false,
            blackhole: false,
            link_bandwidth: None,
            policy_required: false,
            prefix_limit: None,
            connect_delay: Duration::ZERO,
            connect_retry: Duration::ZERO,
            error_wait: ErrorWait { min: Duration::ZERO, max: Duration::ZERO },
            import: Filter::accept_all(),
            export: Filter::accept_all(),
            description: String::new(),
            ..config.clone()
        };
        same_for_peer(self) == same_for_peer(old)
    }
}
