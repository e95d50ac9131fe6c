//! What `tortie.yaml` says of BGP beyond Calico's resources: a ToR's neighbours, which no resource names one by one, and what
//! such a router announces.
//!
//! A group is the peers at the addresses of a range. Those that connect from there without being anybody's BGPPeer are taken
//! in, if their AS is right and there is room; who is told a default route, or nothing but one, is said here, too. What is
//! [joined](join) to the desired state is treated from then on like anything that a resource asks for.

mod introduction;
mod options;
mod redistribution;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use model::{AsNumber, Family, Prefix, SecretKey};

use crate::calico::{Desired, DesiredPeer, NextHop, PeerKind, PeerName, RouterId};
use crate::sessions;
use crate::stations::StationSettings;
pub(crate) use introduction::Introductions;
pub use options::PeerOptions;
pub(crate) use redistribution::OwnRoutes;
pub use redistribution::Redistribute;

/// How much longer than its routes may be kept a neighbour is remembered that has gone.
const FORGET_AFTER: Duration = Duration::from_secs(150);
/// BGP's port: where a neighbour that was taken in would be, were it ever connected to.
const BGP_PORT: u16 = 179;

/// BGP beyond Calico's resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpSettings {
    /// Where the node's identifier comes from.
    pub router_id: RouterId,
    /// Peers are told all that is known, not only what lies in Calico's pools.
    pub announce_all: bool,
    /// Networks that this router announces as its own.
    pub networks: Vec<Prefix>,
    /// Which of the box's own routes it announces besides.
    pub redistribute: Vec<Redistribute>,
    /// Networks that are announced while there is a route inside them.
    pub aggregates: Vec<Aggregate>,
    /// How peers are treated: the first group that a peer's address is in counts.
    pub groups: Vec<PeerGroup>,
    /// Who is told what peers announce (BMP).
    pub stations: Vec<StationSettings>,
}

/// A network that is announced while there is a route inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// The network.
    pub prefix: Prefix,
    /// What is inside it isn't announced.
    pub summary_only: bool,
}

/// The peers at the addresses of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerGroup {
    /// Their addresses.
    pub range: Prefix,
    /// Who may connect without being named; `None` is nobody.
    pub accept: Option<Accept>,
    /// What they are told of a default route.
    pub default_route: DefaultRoute,
    /// Which next hop they are told, where their BGPPeers don't say.
    pub next_hop: Option<NextHop>,
    /// What else is asked for.
    pub options: PeerOptions,
}

/// Who may connect without being named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Their AS numbers; empty is any.
    pub as_numbers: Vec<RangeInclusive<u32>>,
    /// How many there may be.
    pub limit: usize,
}

impl Accept {
    fn takes(&self, as_number: AsNumber) -> bool {
        self.as_numbers.is_empty() || self.as_numbers.iter().any(|range| range.contains(&as_number.0))
    }
}

/// What a peer is told of a default route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultRoute {
    /// As of any route.
    #[default]
    AsAny,
    /// There is always one: ours, where nobody has told us of one.
    Always,
    /// Likewise, and the peer is told of nothing else.
    Only,
}

impl BgpSettings {
    /// Ranges that nobody may connect from without a password, and where that stands. One within an earlier range is nobody's:
    /// the kernel, which takes the longest, must not ask for its password.
    pub(crate) fn passwords(&self) -> impl Iterator<Item = (Prefix, &SecretKey)> {
        let within_earlier =
            |at: usize, range| self.groups[..at].iter().any(|earlier| earlier.range.covers(range));
        let in_use =
            self.groups.iter().enumerate().filter(move |(at, group)| !within_earlier(*at, group.range));
        in_use.filter_map(|(_, group)| Some((group.range, group.options.password.as_ref()?)))
    }

    /// How many hops away somebody may be who isn't known yet, if that is limited.
    pub(crate) fn ttl_security(&self, address: IpAddr) -> Option<u8> {
        self.group_of(address)?.options.ttl_security
    }

    fn group_of(&self, address: IpAddr) -> Option<&PeerGroup> {
        self.groups.iter().find(|group| group.range.contains(address))
    }
}

/// The neighbours that were taken in.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    taken_in: BTreeMap<IpAddr, TakenIn>,
    /// How many there are of each group, by its range.
    of_range: BTreeMap<Prefix, usize>,
}

#[derive(Clone, Copy, Debug)]
struct TakenIn {
    as_number: AsNumber,
    /// Its group's range.
    range: Prefix,
    /// Since when it has had no session; `None` while it has one.
    without_session: Option<Instant>,
}

/// Why a neighbour isn't taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("nobody is awaited at this address")]
    NotAwaited,
    #[error("its group has as many neighbours as it may")]
    Full,
    #[error("AS {0} is none of its group's")]
    WrongAs(AsNumber),
}

impl Neighbours {
    /// May somebody at this address be asked who it is? One that has been taken in already, and has lost its session, is
    /// asked again.
    pub(crate) fn may_introduce(&self, settings: &BgpSettings, address: IpAddr) -> Result<(), Refusal> {
        let group = settings.group_of(address).ok_or(Refusal::NotAwaited)?;
        let accept = group.accept.as_ref().ok_or(Refusal::NotAwaited)?;
        let is_there = self.taken_in.contains_key(&address);
        let there = self.of_range.get(&group.range).copied().unwrap_or_default();
        if is_there || there < accept.limit { Ok(()) } else { Err(Refusal::Full) }
    }

    /// Takes it in, if its AS is right.
    pub(crate) fn take_in(
        &mut self,
        settings: &BgpSettings,
        address: IpAddr,
        as_number: AsNumber,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.may_introduce(settings, address)?;
        let group = settings.group_of(address).ok_or(Refusal::NotAwaited)?;
        if !group.accept.as_ref().is_some_and(|accept| accept.takes(as_number)) {
            return Err(Refusal::WrongAs(as_number));
        }
        let neighbour = TakenIn { as_number, range: group.range, without_session: Some(now) };
        if self.taken_in.insert(address, neighbour).is_none() {
            *self.of_range.entry(group.range).or_default() += 1;
        }
        Ok(())
    }

    /// A peer has a session now, or has lost it.
    pub(crate) fn session_changed(&mut self, address: IpAddr, established: bool, now: Instant) {
        if let Some(neighbour) = self.taken_in.get_mut(&address) {
            neighbour.without_session = (!established).then_some(now);
        }
    }

    /// Does this one wait for its neighbour to come back?
    pub(crate) fn is_without_session(&self, address: IpAddr) -> bool {
        self.taken_in.get(&address).is_some_and(|neighbour| neighbour.without_session.is_some())
    }

    /// Forgets those that have been away for long, but for who is refused for a time and must not come back as somebody new;
    /// is anybody forgotten?
    pub(crate) fn forget_the_gone(&mut self, now: Instant, rests: impl Fn(IpAddr) -> bool) -> bool {
        let before = self.taken_in.len();
        let is_gone = |since: Instant| now.saturating_duration_since(since) >= FORGET_AFTER;
        self.taken_in.retain(|address, neighbour| {
            let stays = !neighbour.without_session.is_some_and(is_gone) || rests(*address);
            if !stays && let Some(there) = self.of_range.get_mut(&neighbour.range) {
                *there -= 1;
            }
            stays
        });
        self.taken_in.len() < before
    }
}

/// Which aggregates have a route inside them.
#[derive(Debug, Default)]
pub(crate) struct Aggregates {
    inside: BTreeMap<Prefix, BTreeSet<Prefix>>,
}

impl Aggregates {
    /// BGP has a route to this prefix now, or none any more. Is an aggregate with a route now without, or the other way
    /// round?
    pub(crate) fn route_changed(&mut self, settings: &BgpSettings, prefix: Prefix, exists: bool) -> bool {
        let mut flipped = false;
        let around = settings.aggregates.iter().map(|aggregate| aggregate.prefix);
        for aggregate in around.filter(|aggregate| *aggregate != prefix && aggregate.covers(prefix)) {
            let inside = self.inside.entry(aggregate).or_default();
            let was_empty = inside.is_empty();
            if exists {
                inside.insert(prefix);
            } else {
                inside.remove(&prefix);
            }
            flipped |= was_empty != inside.is_empty();
        }
        flipped
    }

    fn has_learned(&self, aggregate: Prefix) -> bool {
        self.inside.get(&aggregate).is_some_and(|inside| !inside.is_empty())
    }

    /// BGP has no routes any more.
    pub(crate) fn clear(&mut self) {
        self.inside.clear();
    }
}

/// Adds what the settings ask for to what the resources do.
pub(crate) fn join(
    settings: &BgpSettings,
    neighbours: &Neighbours,
    aggregates: &Aggregates,
    desired: &mut Desired,
) {
    desired.announce_all = settings.announce_all;
    desired.networks = settings.networks.iter().copied().collect();
    let named = desired.peers.values().filter(|peer| peer.kind != PeerKind::Dynamic);
    let named: BTreeSet<IpAddr> = named.map(|peer| peer.address).collect();
    for address in neighbours.taken_in.keys().filter(|address| !named.contains(address)) {
        join_neighbour(settings, neighbours, *address, desired);
    }
    desired.peers.values_mut().for_each(|peer| treat(settings, peer));
    // What peers of our AS are told of by the nodes that have it is a route of ours only where others are told of it.
    let tells_others = sessions::has_external(desired);
    let own = |aggregate: &Aggregate| {
        let own = desired.blocks.iter().chain(&desired.networks).chain(&desired.services.announced);
        let cluster = desired.tunnels.cluster_routes().map(|(prefix, _)| prefix).filter(|_| tells_others);
        own.chain(cluster).any(|prefix| *prefix != aggregate.prefix && aggregate.prefix.covers(*prefix))
    };
    let alive = |aggregate: &&Aggregate| own(aggregate) || aggregates.has_learned(aggregate.prefix);
    desired.aggregates = settings.aggregates.iter().filter(alive).copied().collect();
    desired.blackholes.extend(desired.aggregates.iter().map(|aggregate| aggregate.prefix));
}

/// Adds a neighbour that was taken in, as the one thing that is new: it is nobody's BGPPeer. Gives its name, where its group
/// takes it.
pub(crate) fn join_neighbour(
    settings: &BgpSettings,
    neighbours: &Neighbours,
    address: IpAddr,
    desired: &mut Desired,
) -> Option<PeerName> {
    let neighbour = neighbours.taken_in.get(&address)?;
    let accept = settings.group_of(address)?.accept.as_ref()?;
    if desired.router_id.is_none() || !accept.takes(neighbour.as_number) {
        return None;
    }
    let mut peer = dynamic_peer(address, neighbour.as_number);
    treat(settings, &mut peer);
    let name = peer.name.clone();
    desired.peers.insert(name.clone(), peer);
    Some(name)
}

/// The first group that a peer's address is in says how it is treated, where its resource doesn't.
fn treat(settings: &BgpSettings, peer: &mut DesiredPeer) {
    let Some(group) = settings.group_of(peer.address) else { return };
    peer.default_route = group.default_route;
    let options = &group.options;
    peer.bfd = options.bfd.unwrap_or(peer.bfd);
    peer.restart_time = peer.restart_time.or(options.restart_time);
    peer.keepalive_time = peer.keepalive_time.or(options.keepalive_time);
    peer.ttl_security = peer.ttl_security.or(options.ttl_security);
    peer.password = peer.password.take().or_else(|| options.password.clone());
    peer.options = options.clone();
    if let (NextHop::Auto, Some(next_hop)) = (peer.next_hop, group.next_hop) {
        peer.next_hop = next_hop;
    }
}

fn dynamic_peer(address: IpAddr, as_number: AsNumber) -> DesiredPeer {
    let remote = SocketAddr::new(address, BGP_PORT);
    DesiredPeer {
        name: PeerName::of(PeerKind::Dynamic, remote),
        kind: PeerKind::Dynamic,
        resource: "tortie.yaml".to_owned(),
        address,
        port: BGP_PORT,
        as_number,
        local_as: None,
        allowed_local_as: 0,
        reachable_by: None,
        passive: true,
        family: Family::of(address),
        source_address: None,
        next_hop: NextHop::Auto,
        restart_time: None,
        keepalive_time: None,
        reflector_client: None,
        import: Vec::new(),
        export: Vec::new(),
        other_import: Vec::new(),
        other_export: Vec::new(),
        ttl_security: None,
        bfd: false,
        password: None,
        default_route: DefaultRoute::AsAny,
        options: PeerOptions::default(),
    }
}

#[cfg(test)]
mod tests;
