//! Calico's meaning of resources, read slowly: every question goes through all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::{
    Action, EndpointPort, EntityRule, Family, Key, NetworkPolicy, Order, PolicyKey, PolicyRule, PortMatch,
    Prefix, Profile, Protocol, Resource, StagedAction, Tier, TierDefault,
};
use policy::Selector;
use policy::judge::{Packet, Verdict};
use policy::resolve::compose;

use crate::State;

/// Somebody with labels in effect, addresses and ports.
struct Someone {
    labels: BTreeMap<String, String>,
    nets: Vec<Prefix>,
    ports: Vec<EndpointPort>,
}

/// The slow reading: every question goes through all resources.
pub struct Slow<'a> {
    state: &'a State,
    everyone: BTreeMap<&'a Key, Someone>,
}

impl<'a> Slow<'a> {
    /// Works out who has which labels in effect.
    pub fn new(state: &'a State) -> Slow<'a> {
        let mut everyone = BTreeMap::new();
        for (key, resource) in state {
            let (own, parents, nets, ports) = match &**resource {
                Resource::WorkloadEndpoint(it) => {
                    (&it.labels, it.profiles.clone(), it.ip_networks.clone(), it.ports.clone())
                }
                Resource::HostEndpoint(it) => {
                    let nets = it.expected_ips.iter().map(|addr| Prefix::host(*addr)).collect();
                    (&it.labels, it.profiles.clone(), nets, it.ports.clone())
                }
                Resource::NetworkSet(it) => {
                    let parents = it.namespace.iter().map(|namespace| format!("kns.{namespace}")).collect();
                    (&it.labels, parents, it.nets.clone(), Vec::new())
                }
                _ => continue,
            };
            let mut labels = own.clone();
            for parent in parents {
                if let Some(Resource::Profile(profile)) = state.get(&Key::Profile(parent)).map(|it| &**it) {
                    for (name, value) in &profile.labels_to_apply {
                        labels.entry(name.clone()).or_insert_with(|| value.clone());
                    }
                }
            }
            everyone.insert(key, Someone { labels, nets, ports });
        }
        Slow { state, everyone }
    }

    /// What becomes of a packet by tiers and profiles; staged policies as if they were enforced, where asked so.
    pub fn verdict(&self, key: &Key, egress: bool, packet: &Packet, staged: bool) -> Verdict {
        for (name, policies) in self.tiers(key, egress, staged) {
            let rules = policies.iter().flat_map(|policy| {
                let rules = if egress { &policy.egress } else { &policy.ingress };
                rules.iter().map(|rule| (policy.key.namespace.as_deref(), rule))
            });
            match self.decided(rules, packet) {
                Some(Action::Allow) => return Verdict::Allow,
                Some(Action::Deny) => return Verdict::Deny,
                Some(_) => {}
                None => {
                    let passes =
                        self.tier(&name).is_some_and(|tier| tier.default_action == TierDefault::Pass);
                    if !passes {
                        return Verdict::Deny;
                    }
                }
            }
        }
        let profiles = match &*self.state[key] {
            Resource::WorkloadEndpoint(it) => &it.profiles,
            Resource::HostEndpoint(it) => &it.profiles,
            other => panic!("{} is no endpoint", other.key()),
        };
        for name in profiles {
            if name == Profile::DEFAULT_ALLOW {
                return Verdict::Allow;
            }
            let Some(resource) = self.state.get(&Key::Profile(name.clone())) else { return Verdict::Deny };
            let Resource::Profile(profile) = &**resource else {
                unreachable!("a profile's key is a profile's")
            };
            let rules = if egress { &profile.egress } else { &profile.ingress };
            match self.decided(rules.iter().map(|rule| (None, rule)), packet) {
                Some(Action::Allow) => return Verdict::Allow,
                Some(_) => return Verdict::Deny,
                None => {}
            }
        }
        Verdict::Deny
    }

    /// A tier that was written down, or that always exists.
    fn tier(&self, name: &str) -> Option<Tier> {
        match self.state.get(&Key::Tier(name.to_owned())).map(|it| &**it) {
            Some(Resource::Tier(tier)) => Some(tier.clone()),
            _ => Tier::standard().into_iter().find(|tier| tier.name == name),
        }
    }

    /// The tiers that have policies for the endpoint in this direction, in order.
    fn tiers(&self, key: &Key, egress: bool, staged: bool) -> Vec<(String, Vec<&NetworkPolicy>)> {
        let all = self.state.values().filter_map(|resource| match &**resource {
            Resource::NetworkPolicy(policy) => Some(policy),
            _ => None,
        });
        let all: Vec<&NetworkPolicy> = all.collect();
        let sets_or_deletes = |policy: &&&NetworkPolicy| {
            matches!(policy.staged_action, Some(StagedAction::Set | StagedAction::Delete))
        };
        let replaced: BTreeSet<(bool, Option<String>, String)> = (all.iter().filter(sets_or_deletes))
            .map(|it| (it.key.kind.is_namespaced(), it.key.namespace.clone(), it.key.name.clone()))
            .collect();
        let holds = |policy: &NetworkPolicy| match policy.staged_action {
            Some(action) => staged && action == StagedAction::Set,
            None => {
                let PolicyKey { kind, namespace, name } = &policy.key;
                !(staged && replaced.contains(&(kind.is_namespaced(), namespace.clone(), name.clone())))
            }
        };
        let mut applying: Vec<&NetworkPolicy> = (all.into_iter())
            .filter(|policy| if egress { policy.applies_to_egress } else { policy.applies_to_ingress })
            .filter(|policy| !policy.do_not_track && !policy.pre_dnat && holds(policy))
            .filter(|policy| compose::of_policy(policy).unwrap().selector.matches(&self.everyone[key].labels))
            .collect();
        let tier_order = |policy: &NetworkPolicy| match self.tier(&policy.tier) {
            Some(tier) => (false, tier.order),
            None => (true, Order::LAST),
        };
        applying.sort_by_cached_key(|policy| {
            let PolicyKey { kind, namespace, name } = &policy.key;
            let tie = format!("{name}/{}/{kind}", namespace.clone().unwrap_or_default());
            (tier_order(policy), policy.tier.clone(), policy.order, tie)
        });
        let mut tiers: Vec<(String, Vec<&NetworkPolicy>)> = Vec::new();
        for policy in applying {
            match tiers.last_mut() {
                Some((name, policies)) if *name == policy.tier => policies.push(policy),
                _ => tiers.push((policy.tier.clone(), vec![policy])),
            }
        }
        tiers
    }

    /// What the first rule that decides says.
    fn decided<'b>(
        &self,
        rules: impl Iterator<Item = (Option<&'b str>, &'b PolicyRule)>,
        packet: &Packet,
    ) -> Option<Action> {
        let matching = rules.filter(|(namespace, rule)| self.matches(rule, *namespace, packet));
        matching.map(|(_, rule)| rule.action).find(|action| *action != Action::Log)
    }

    fn matches(&self, rule: &PolicyRule, namespace: Option<&str>, packet: &Packet) -> bool {
        let family = Family::of(packet.source);
        let suits = |nets: &[Prefix]| nets.is_empty() || nets.iter().any(|net| net.family() == family);
        let ends = [&rule.source, &rule.destination];
        let only = match rule.protocol {
            Some(Protocol::ICMP) if rule.family.is_none() => Some(Family::V4),
            _ => rule.family,
        };
        only.is_none_or(|only| only == family)
            && ends.iter().all(|end| suits(&end.nets) && suits(&end.not_nets))
            && rule.protocol.is_none_or(|protocol| protocol.0 == packet.protocol)
            && self.end(
                &rule.source,
                rule,
                namespace,
                packet,
                packet.source,
                packet.ports.map(|ports| ports.0),
            )
            && self.end(
                &rule.destination,
                rule,
                namespace,
                packet,
                packet.destination,
                packet.ports.map(|it| it.1),
            )
    }

    fn end(
        &self,
        end: &EntityRule,
        rule: &PolicyRule,
        namespace: Option<&str>,
        packet: &Packet,
        addr: IpAddr,
        port: Option<u16>,
    ) -> bool {
        let selected = compose::of_end(end, namespace).unwrap().selector;
        let refused: Option<Selector> = end.not_selector.as_ref().map(|text| text.parse().unwrap());
        // Those whom the addresses may belong to: several may share one.
        let here = || self.everyone.values().filter(|who| who.nets.iter().any(|net| net.contains(addr)));
        let is_meant = |who: &Someone| {
            selected.as_ref().is_none_or(|selected| selected.matches(&who.labels))
                && !(selected.is_some()
                    && refused.as_ref().is_some_and(|refused| refused.matches(&who.labels)))
        };
        let named_protocol = rule.protocol.filter(|protocol| protocol.has_ports()).unwrap_or(Protocol::TCP);
        let at = |ports: &[PortMatch]| {
            let Some(port) = port else { return false };
            ports.iter().any(|wanted| match wanted {
                PortMatch::Numbers(range) => range.contains(port),
                PortMatch::Named(name) => here().filter(|who| is_meant(who)).any(|who| {
                    who.nets.iter().any(|net| net.is_host() && net.addr() == addr)
                        && who.ports.iter().any(|known| {
                            known.name == *name
                                && known.port == port
                                && known.protocol == named_protocol
                                && known.protocol.0 == packet.protocol
                        })
                }),
            })
        };
        (end.nets.is_empty() || end.nets.iter().any(|net| net.contains(addr)))
            && !end.not_nets.iter().any(|net| net.contains(addr))
            && (selected.is_none() || here().any(is_meant))
            && (selected.is_some()
                || !here().any(|who| refused.as_ref().is_some_and(|no| no.matches(&who.labels))))
            && (end.ports.is_empty() || at(&end.ports))
            && !at(&end.not_ports)
    }
}
