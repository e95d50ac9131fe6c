//! The BGP speaker as Calico's resources want it: who the peers are, what they are told.

mod filters;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp::{
    Filter, FilterAction, FilterRule, Input, NextHopMode, OriginatedRoute, PeerConfig, PeerId, SelfNextHops,
    SpeakerConfig,
};
use model::{AsNumber, Family, Prefix};

use crate::calico::{Desired, DesiredPeer, ExportAction, ExportReach, ExportRules, NextHop, PeerName};

/// Calico's way of carrying a route's kernel metric across iBGP: `local_pref = 2147483647 - metric`, with 1024 for a
/// route of normal priority. A node that announced LOCAL_PREF 100 would lose to every Calico node.
const NORMAL_LOCAL_PREF: u32 = local_pref_of(1024);

/// The LOCAL_PREF that stands for a kernel metric.
const fn local_pref_of(metric: u32) -> u32 {
    2_147_483_647_u32.saturating_sub(metric)
}

/// BIRD's default, which Calico leaves in force.
const HOLD_TIME: Duration = Duration::from_secs(240);

/// What the speaker has been told so far, so that only differences are told.
#[derive(Default)]
pub struct Sessions {
    ids: BTreeMap<PeerName, PeerId>,
    told: BTreeMap<PeerId, (DesiredPeer, PeerConfig)>,
    originated: BTreeMap<Prefix, OriginatedRoute>,
    next: u32,
}

impl Sessions {
    /// What the speaker must be told to go from what it knows to `desired`.
    pub fn changes(&mut self, desired: &Desired) -> Vec<Input<'static>> {
        let mut inputs = Vec::new();
        self.originate(desired, &mut inputs);
        let gone: Vec<PeerName> =
            self.ids.keys().filter(|name| !desired.peers.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(id) = self.ids.remove(&name) {
                self.told.remove(&id);
                inputs.push(Input::RemovePeer(id));
            }
        }
        let export = export_filter(&desired.export);
        for (name, peer) in &desired.peers {
            let id = *self.ids.entry(name.clone()).or_insert_with(|| {
                self.next += 1;
                PeerId(self.next)
            });
            let config = peer_config(id, peer, desired, export.clone());
            let known = self.told.get(&id).is_some_and(|(_, told)| *told == config);
            if !known {
                inputs.push(Input::PutPeer(config.clone()));
            }
            self.told.insert(id, (peer.clone(), config));
        }
        inputs
    }

    /// The speaker is new: it has been told nothing.
    pub fn forget(&mut self) {
        self.told.clear();
        self.originated.clear();
    }

    /// The peer that somebody who connects from this address is.
    pub fn at_address(&self, remote: IpAddr) -> Option<PeerId> {
        self.told.iter().find(|(_, (peer, _))| peer.address == remote).map(|(id, _)| *id)
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

/// What identifies the speaker: a change of it means a new one.
pub fn identity(desired: &Desired) -> Option<(Ipv4Addr, AsNumber)> {
    desired.router_id.map(|router_id| (router_id, desired.as_number))
}

/// Our blocks, and the addresses of workloads that lie in no block of ours (borrowed ones).
fn originated(desired: &Desired) -> BTreeMap<Prefix, OriginatedRoute> {
    let in_own_block = |address: &Prefix| desired.blocks.iter().any(|block| block.covers(*address));
    let borrowed = desired
        .endpoints
        .values()
        .flat_map(|endpoint| &endpoint.ip_networks)
        .filter(|address| !in_own_block(address));
    let route = |prefix: &Prefix| {
        let route = OriginatedRoute { local_pref: Some(NORMAL_LOCAL_PREF), ..OriginatedRoute::new(*prefix) };
        (*prefix, route)
    };
    desired.blocks.iter().chain(borrowed).map(route).collect()
}

fn peer_config(id: PeerId, peer: &DesiredPeer, desired: &Desired, export: Filter) -> PeerConfig {
    let mut config = PeerConfig::new(id, peer.address, peer.as_number);
    config.port = peer.port;
    config.local_address = peer.source_address;
    config.local_as = peer.local_as;
    config.allowed_own_as = peer.allowed_local_as;
    config.reflector_client = peer.reflector_client;
    config.families = vec![peer.family];
    config.passive = peer.passive;
    config.hold_time = HOLD_TIME;
    config.keepalive_time = peer.keepalive_time;
    config.add_path = true;
    if let Some(restart_time) = peer.restart_time {
        config.restart_time = restart_time;
    }
    config.next_hop = match peer.next_hop {
        NextHop::Auto => NextHopMode::Auto,
        NextHop::Keep => NextHopMode::Keep,
        NextHop::OwnAddress => NextHopMode::SelfAddress,
    };
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
    let internal = peer.as_number == peer.local_as.unwrap_or(desired.as_number);
    config.import = Filter { rules: filters::rules(&peer.import, internal, desired), ..Filter::accept_all() };
    // What the peer's own filters don't decide, what all peers may be told does.
    let mut own = filters::rules(&peer.export, internal, desired);
    own.extend(export.rules);
    config.export = Filter { rules: own, ..export };
    config.description = peer.name.to_string();
    config
}

fn export_filter(rules: &ExportRules) -> Filter {
    let rules = rules.rules().iter().map(|rule| {
        let action = match rule.action {
            ExportAction::Accept => FilterAction::Accept,
            ExportAction::Reject => FilterAction::Reject,
        };
        match rule.reach {
            ExportReach::Exactly => FilterRule::exactly(rule.prefix, action),
            ExportReach::Within => FilterRule::within(rule.prefix, action),
        }
    });
    Filter { rules: rules.collect(), default: FilterAction::Reject }
}

#[cfg(test)]
mod tests;
