//! The BGP speaker as Calico's resources want it: who the peers are, what they are told.

pub(crate) mod filters;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bgp::{
    Filter, FilterAction, FilterMatch, FilterRule, Guard, Input, NextHopMode, Operation, Origin,
    OriginatedRoute, Password, PeerConfig, PeerId, Rank, SelfNextHops, SendPaths, SpeakerConfig,
};
use model::{AsNumber, Family, Prefix, SecretKey};

use crate::calico::{
    Desired, DesiredPeer, ExportAction, ExportReach, ExportRule, ExportRules, NextHop, PeerName,
};
use crate::peer_groups::{DefaultRoute, Redistribute};
use crate::secrets::{SecretError, Secrets};

/// The LOCAL_PREF that stands for a kernel metric, which is how Calico carries it across iBGP. A node that announced
/// LOCAL_PREF 100 would lose to every Calico node.
pub const fn local_pref_of(metric: u32) -> u32 {
    2_147_483_647_u32.saturating_sub(metric)
}

/// BIRD's default, which Calico leaves in force.
const HOLD_TIME: Duration = Duration::from_secs(240);

/// What the speaker has been told so far, so that only differences are told.
pub struct Sessions {
    secrets: Secrets,
    /// Ranges of peers that have a password in common, and where it stands.
    ranges: Vec<(Prefix, SecretKey)>,
    /// Sessions that lack what they need to be as safe as was asked for, and what that is.
    held_back: BTreeMap<PeerName, (DesiredPeer, String)>,
    ids: BTreeMap<PeerName, PeerId>,
    told: BTreeMap<PeerId, (DesiredPeer, PeerConfig)>,
    /// Whose of `told` are at an address, each on a port of its own.
    at_address: BTreeMap<IpAddr, BTreeSet<PeerId>>,
    originated: BTreeMap<Prefix, OriginatedRoute>,
    /// Is anybody promised a default route, by [`Family`]?
    promised: [bool; 2],
    next: u32,
}

impl Sessions {
    /// The speaker knows nothing yet; passwords are below this directory.
    pub fn with_secrets(directory: PathBuf) -> Sessions {
        Sessions {
            secrets: Secrets::at(directory),
            ranges: Vec::new(),
            held_back: BTreeMap::new(),
            ids: BTreeMap::new(),
            told: BTreeMap::new(),
            at_address: BTreeMap::new(),
            originated: BTreeMap::new(),
            promised: [false; 2],
            next: 0,
        }
    }

    /// Likewise; whoever connects from one of these ranges must have its password.
    pub fn with_ranges<'a>(self, ranges: impl Iterator<Item = (Prefix, &'a SecretKey)>) -> Sessions {
        Sessions { ranges: ranges.map(|(range, secret)| (range, secret.clone())).collect(), ..self }
    }

    /// The passwords of ranges. One that can't be had has none: its peers are held back one by one.
    pub fn range_passwords(&mut self) -> BTreeMap<Prefix, Password> {
        let mut passwords = BTreeMap::new();
        for (range, secret) in &self.ranges {
            if let Ok(password) = self.secrets.get(secret) {
                passwords.insert(*range, password);
            }
        }
        passwords
    }

    /// What the speaker must be told to go from what it knows to `desired`.
    pub fn changes(&mut self, desired: &Desired) -> Vec<Input<'static>> {
        let mut inputs = Vec::new();
        self.originate(desired, &mut inputs);
        let guards = self.guards(desired);
        let gone: Vec<PeerName> =
            self.ids.keys().filter(|name| !guards.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(id) = self.ids.remove(&name) {
                if let Some((peer, _)) = self.told.remove(&id) {
                    self.leave_address(peer.address, id);
                }
                inputs.push(Input::RemovePeer(id));
            }
        }
        self.promised = Family::ALL.map(|family| originates_default(desired, family));
        let export = export_filter(desired);
        for (name, guard) in guards {
            inputs.extend(self.put(&name, guard, desired, export.clone()));
        }
        inputs
    }

    /// Likewise, where this peer alone is new or another: what that takes doesn't grow with the number of others.
    pub fn changes_of(&mut self, name: &PeerName, desired: &Desired) -> Vec<Input<'static>> {
        let Some(peer) = desired.peers.get(name) else { return Vec::new() };
        // The first who is promised a default route changes what others are told; without its password none has a session.
        let is_promised = |family: &Family| self.promised[*family as usize];
        let is_like_others =
            peer.default_route == DefaultRoute::AsAny || peer.families().iter().all(is_promised);
        match self.guard(peer) {
            Ok(guard) if is_like_others => {
                self.put(name, guard, desired, export_filter(desired)).into_iter().collect()
            }
            _ => self.changes(desired),
        }
    }

    /// What the speaker must be told of a peer; nothing where it knows.
    fn put(
        &mut self,
        name: &PeerName,
        guard: Guard,
        desired: &Desired,
        export: Filter,
    ) -> Option<Input<'static>> {
        let peer = desired.peers.get(name)?;
        let id = *self.ids.entry(name.clone()).or_insert_with(|| {
            self.next += 1;
            PeerId(self.next)
        });
        let config = PeerConfig { guard, ..peer_config(id, peer, desired, self.promised, export) };
        let before = self.told.insert(id, (peer.clone(), config.clone()));
        if before.as_ref().is_none_or(|(before, _)| before.address != peer.address) {
            if let Some((before, _)) = &before {
                self.leave_address(before.address, id);
            }
            self.at_address.entry(peer.address).or_default().insert(id);
        }
        before.is_none_or(|(_, told)| told != config).then_some(Input::PutPeer(config))
    }

    fn leave_address(&mut self, address: IpAddr, id: PeerId) {
        if let Some(there) = self.at_address.get_mut(&address) {
            there.remove(&id);
            if there.is_empty() {
                self.at_address.remove(&address);
            }
        }
    }

    /// How each session is guarded. One whose password can't be had is held back rather than left open to anybody.
    fn guards(&mut self, desired: &Desired) -> BTreeMap<PeerName, Guard> {
        let of_peers = desired.peers.values().filter_map(|peer| peer.password.as_ref());
        let of_ranges = self.ranges.iter().map(|(_, secret)| secret);
        let needed: BTreeSet<&SecretKey> = of_peers.chain(of_ranges).collect();
        self.secrets.keep(|secret| needed.contains(secret));
        self.held_back.clear();
        let mut guards = BTreeMap::new();
        for (name, peer) in &desired.peers {
            match self.guard(peer) {
                Ok(guard) => drop(guards.insert(name.clone(), guard)),
                Err(error) => {
                    self.held_back.insert(name.clone(), (peer.clone(), error.to_string()));
                }
            }
        }
        guards
    }

    fn guard(&mut self, peer: &DesiredPeer) -> Result<Guard, SecretError> {
        let password = peer.password.as_ref().map(|secret| self.secrets.get(secret)).transpose()?;
        Ok(Guard { password, ttl_security: peer.ttl_security })
    }

    /// Sessions that lack what they need to be as safe as was asked for, and what that is.
    pub fn held_back(&self) -> &BTreeMap<PeerName, (DesiredPeer, String)> {
        &self.held_back
    }

    /// Looks at the passwords in use again: is any of them another one?
    pub fn secrets_changed(&mut self) -> bool {
        self.secrets.look_again()
    }

    /// The speaker is new: it has been told nothing.
    pub fn forget(&mut self) {
        self.told.clear();
        self.at_address.clear();
        self.originated.clear();
    }

    /// The peer that somebody who connects from this address is.
    pub fn at_address(&self, remote: IpAddr) -> Option<PeerId> {
        self.at_address.get(&remote)?.first().copied()
    }

    /// Every session that the speaker has been told of.
    pub fn peers(&self) -> impl Iterator<Item = (PeerId, &DesiredPeer)> {
        self.told.iter().map(|(id, (peer, _))| (*id, peer))
    }

    /// What made a session.
    pub fn desired(&self, id: PeerId) -> Option<&DesiredPeer> {
        self.told.get(&id).map(|(peer, _)| peer)
    }

    fn originate(&mut self, desired: &Desired, inputs: &mut Vec<Input<'static>>) {
        let wanted = originated(desired);
        for prefix in self.originated.keys().filter(|prefix| !wanted.contains_key(prefix)) {
            inputs.push(Input::Withdraw(*prefix));
        }
        for (prefix, route) in &wanted {
            if self.originated.get(prefix) != Some(route) {
                inputs.push(Input::Originate(route.clone()));
            }
        }
        self.originated = wanted;
    }
}

/// The whole speaker's settings; `None` as long as the node has no BGP identifier.
pub fn speaker_config(
    desired: &Desired,
    restarting: bool,
    prefixes_per_peer: usize,
) -> Option<SpeakerConfig> {
    let router_id: Ipv4Addr = desired.router_id?;
    let mut config = SpeakerConfig::new(router_id, desired.as_number);
    config.restarting = restarting;
    config.limits.max_prefixes_per_peer = prefixes_per_peer;
    Some(config)
}

/// Where BGP is listened for: on every address, or on the node's own.
pub fn listen_addresses(desired: &Desired) -> Vec<SocketAddr> {
    let of = |family| match (desired.listen_on_node_address, family) {
        (true, family) => desired.node_address(family),
        (false, Family::V4) => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (false, Family::V6) => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let addresses = Family::ALL.into_iter().filter_map(of);
    addresses.map(|address| SocketAddr::new(address, desired.listen_port)).collect()
}

/// What identifies the speaker: a change of it means a new one.
pub fn identity(desired: &Desired) -> Option<(Ipv4Addr, AsNumber)> {
    desired.router_id.map(|router_id| (router_id, desired.as_number))
}

/// Our blocks, our services' and other networks, and the addresses of workloads that lie in no block of ours (borrowed ones);
/// the box's own routes that pools and BGPFilters are about; aggregates, and default routes for who was promised one. Where there
/// are peers in other ASes, also the datastore's routes to other nodes' workloads: Calico's BIRD learns from the kernel what
/// Felix has programmed, and tells such peers.
///
/// What another daemon has put into the kernel's table loses to any route that BGP brings, as it does in our own table, and so do
/// the datastore's routes.
fn originated(desired: &Desired) -> BTreeMap<Prefix, OriginatedRoute> {
    let in_own_block = |address: &Prefix| desired.blocks.iter().any(|block| block.covers(*address));
    let borrowed = desired
        .endpoints
        .values()
        .flat_map(|endpoint| &endpoint.ip_networks)
        .filter(|address| !in_own_block(address));
    let route = |prefix: &Prefix| {
        let local_pref = Some(local_pref_of(desired.normal_priority(prefix.family())));
        (*prefix, OriginatedRoute { rank: Rank::Peers, local_pref, ..OriginatedRoute::new(*prefix) })
    };
    let networks = desired.blocks.iter().chain(&desired.services.announced).chain(&desired.networks);
    let mut originated: BTreeMap<Prefix, OriginatedRoute> = networks.chain(borrowed).map(route).collect();
    for (prefix, kind) in &desired.redistributed {
        let (prefix, mut own) = route(prefix);
        if *kind == Redistribute::Kernel {
            own.rank = Rank::AfterPeers;
        }
        // Known some other way than by an IGP of this AS, as others have it for what they redistribute.
        originated.entry(prefix).or_insert(OriginatedRoute { origin: Origin::Incomplete, ..own });
    }
    for prefix in desired.own_routes.keys() {
        let (prefix, own) = route(prefix);
        originated.entry(prefix).or_insert(own);
    }
    for aggregate in &desired.aggregates {
        let (prefix, own) = route(&aggregate.prefix);
        let aggregator = desired.router_id.map(|router_id| (desired.as_number, router_id));
        originated.entry(prefix).or_insert(OriginatedRoute { aggregator, ..own });
    }
    if has_external(desired) {
        for (prefix, _) in desired.tunnels.cluster_routes() {
            let (prefix, own) = route(prefix);
            originated.entry(prefix).or_insert(OriginatedRoute { rank: Rank::StandIn, ..own });
        }
    }
    for family in Family::ALL {
        if originates_default(desired, family) {
            let prefix = default_route(family);
            let (rank, local_pref) = (Rank::StandIn, Some(0));
            let stand_in = OriginatedRoute { rank, local_pref, ..OriginatedRoute::new(prefix) };
            originated.entry(prefix).or_insert(stand_in);
        }
    }
    originated
}

fn peer_config(
    id: PeerId,
    peer: &DesiredPeer,
    desired: &Desired,
    promised: [bool; 2],
    export: Filter,
) -> PeerConfig {
    let mut config = PeerConfig::new(id, peer.address, peer.as_number);
    config.port = peer.port;
    config.local_address = peer.source_address;
    config.local_as = peer.local_as;
    config.allowed_own_as = peer.allowed_local_as;
    config.reflector_client = peer.reflector_client;
    config.families = peer.families();
    config.passive = peer.passive;
    config.hold_time = HOLD_TIME;
    config.keepalive_time = peer.keepalive_time;
    // `add paths on` in Calico's templates is both directions; its peers have a filter of their own or need none.
    config.add_path = true;
    config.send_paths = SendPaths::All;
    config.policy_required = false;
    if let Some(restart_time) = peer.restart_time {
        config.restart_time = restart_time;
    }
    config.next_hop = match peer.next_hop {
        NextHop::Auto => NextHopMode::Auto,
        NextHop::Keep => NextHopMode::Keep,
        NextHop::OwnAddress => NextHopMode::SelfAddress,
    };
    // Without an address to connect from, "ourselves" is the session's own end: a ToR has one in each network.
    if peer.source_address.is_some() {
        config.self_next_hops = SelfNextHops {
            v4: match desired.node_address(Family::V4) {
                Some(IpAddr::V4(addr)) => Some(addr),
                _ => None,
            },
            v6: match desired.node_address(Family::V6) {
                Some(IpAddr::V6(addr)) => Some(addr),
                _ => None,
            },
        };
    }
    peer.options.apply(&mut config);
    // The session's own end is of one family.
    for family in config.families.iter().filter(|family| **family != peer.family) {
        match desired.node_address(*family) {
            Some(IpAddr::V4(addr)) => config.self_next_hops.v4 = Some(addr),
            Some(IpAddr::V6(addr)) => config.self_next_hops.v6 = Some(addr),
            None => {}
        }
    }
    let internal = is_internal(peer, desired);
    config.import = Filter { rules: filters::import(peer, internal, desired), ..Filter::accept_all() };
    // What the peer's own filters don't decide, what all peers may be told does.
    let mut own = filters::export(peer, internal, desired);
    let default_routes = peer
        .families()
        .into_iter()
        .map(|family| FilterRule::exactly(default_route(family), FilterAction::Accept));
    match peer.default_route {
        DefaultRoute::Only | DefaultRoute::Always => own.extend(default_routes),
        DefaultRoute::AsAny => {
            for family in peer.families() {
                if promised[family as usize] {
                    let matches = FilterRule::exactly(default_route(family), FilterAction::Reject).matches;
                    own.insert(0, no_stand_in(matches));
                }
            }
        }
    }
    if internal {
        // In our AS everybody hears of a block from the node that has it.
        own.push(no_stand_in(FilterMatch::default()));
    }
    config.export = match peer.default_route {
        DefaultRoute::Only => Filter { rules: own, default: FilterAction::Reject },
        DefaultRoute::Always | DefaultRoute::AsAny => {
            own.extend(export.rules);
            Filter { rules: own, ..export }
        }
    };
    config.description = peer.name.to_string();
    config
}

/// Rejects routes of ours that stand in for what others tell.
fn no_stand_in(matches: FilterMatch) -> FilterRule {
    let matches = FilterMatch { rank: Some(Rank::StandIn), ..matches };
    FilterRule { matches, ..FilterRule::any(FilterAction::Reject) }
}

/// Is there a peer in another AS than the one that we speak to it as?
pub(crate) fn has_external(desired: &Desired) -> bool {
    desired.peers.values().any(|peer| !is_internal(peer, desired))
}

/// Is the peer in the AS that we speak as?
fn is_internal(peer: &DesiredPeer, desired: &Desired) -> bool {
    peer.as_number == peer.local_as.unwrap_or(desired.as_number)
}

/// Is anybody promised a default route?
fn originates_default(desired: &Desired, family: Family) -> bool {
    let promised =
        |peer: &DesiredPeer| peer.default_route != DefaultRoute::AsAny && peer.families().contains(&family);
    desired.peers.values().any(promised)
}

const fn default_route(family: Family) -> Prefix {
    match family {
        Family::V4 => Prefix::DEFAULT_V4,
        Family::V6 => Prefix::DEFAULT_V6,
    }
}

/// The rules that all peers have in common. Communities go with the rule that accepts a route: each network of theirs has the
/// rules once more, as far as they are about it, the longer network first, so that the first match still decides.
fn export_filter(desired: &Desired) -> Filter {
    let rules = &desired.export;
    let mut networks: Vec<Prefix> = rules.advertisements().iter().map(|told| told.cidr).collect();
    networks.sort_by_key(|network| (Reverse(network.len()), *network));
    networks.dedup();
    let mut filter = Filter { rules: Vec::new(), default: FilterAction::Reject };
    for aggregate in &desired.aggregates {
        filter.rules.push(FilterRule::exactly(aggregate.prefix, FilterAction::Accept));
        if aggregate.summary_only {
            filter.rules.push(FilterRule::within(aggregate.prefix, FilterAction::Reject));
        }
    }
    let named = desired.networks.iter();
    filter.rules.extend(named.map(|network| FilterRule::exactly(*network, FilterAction::Accept)));
    if desired.announce_all {
        return Filter { default: FilterAction::Accept, ..filter };
    }
    if !desired.redistributed.is_empty() {
        let mut rule = FilterRule::any(FilterAction::Accept);
        rule.matches.one_of = Some(desired.redistributed.keys().copied().collect());
        // What a peer tells of the same prefix was asked for by nobody.
        rule.matches.originated = true;
        filter.rules.push(rule);
    }
    for network in networks {
        let operations = communities(rules, network);
        let about_it = rules.rules().iter().filter_map(|rule| rule.within(network));
        filter.rules.extend(about_it.map(|rule| export_rule(rule, desired, &operations)));
    }
    filter.rules.extend(rules.rules().iter().map(|rule| export_rule(*rule, desired, &[])));
    filter
}

/// What routes of a network are told with: the communities of all networks that it lies in.
fn communities(rules: &ExportRules, network: Prefix) -> Vec<Operation> {
    let covering = rules.advertisements().iter().filter(|told| told.cidr.covers(network));
    let added = covering.flat_map(|told| &told.communities).map(|added| filters::community(*added));
    added.map(Operation::AddCommunity).collect()
}

fn export_rule(rule: ExportRule, desired: &Desired, operations: &[Operation]) -> FilterRule {
    let action = match rule.action {
        ExportAction::Accept => FilterAction::Accept,
        ExportAction::Reject => FilterAction::Reject,
    };
    let mut compiled = match rule.reach {
        ExportReach::Exactly => FilterRule::exactly(rule.prefix, action),
        ExportReach::Within | ExportReach::Elevated => FilterRule::within(rule.prefix, action),
    };
    if rule.reach == ExportReach::Elevated {
        let normal = desired.normal_priority(rule.prefix.family());
        compiled.matches.local_pref_above = Some(local_pref_of(normal));
    }
    if action == FilterAction::Accept {
        compiled.operations = operations.to_vec();
    }
    compiled
}

#[cfg(test)]
mod tests;
