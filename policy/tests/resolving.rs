//! The resolver held to two oracles: itself, told everything at once, and a slow reading of the resources that knows
//! neither sets nor indexes.

mod dataplane;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::Dataplane;
use model::{
    Action, EndpointPort, EntityRule, Family, HostEndpoint, HostInterface, Key, NetworkPolicy, NetworkSet,
    Order, PolicyKey, PolicyKind, PolicyRule, PortMatch, Prefix, Profile, Protocol, Resource, StagedAction,
    Tier, TierDefault, Update, WorkloadEndpoint,
};
use policy::Selector;
use policy::judge::{Packet, Verdict, judge};
use policy::resolve::{EndpointPolicy, Resolver, compose};
use policy::rule::{AfterTiers, Checks, SetId};
use proptest::prelude::*;

const NODE: &str = "here";
const NAMESPACES: [&str; 2] = ["red", "blue"];

/// Choices drawn from numbers that proptest makes, and makes smaller.
struct Draw<'a>(std::slice::Iter<'a, u8>);

impl Draw<'_> {
    fn below(&mut self, end: u8) -> u8 {
        self.0.next().map_or(0, |number| number % end)
    }

    fn one_in(&mut self, times: u8) -> bool {
        self.below(times) == times - 1
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u8) as usize].clone()
    }

    fn some<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        self.one_in(2).then(|| self.of(all))
    }

    fn few<T>(&mut self, end: u8, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(end)).map(|_| draw(self)).collect()
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        let pairs =
            self.few(3, |draw| (draw.of(&["app", "role"]).to_owned(), draw.of(&["a", "b"]).to_owned()));
        pairs.into_iter().collect()
    }

    fn selector(&mut self) -> String {
        self.of(&[
            "app == 'a'",
            "app == 'b'",
            "has(role)",
            "!has(role)",
            "role != 'a'",
            "app in {'a', 'b'} && role == 'b'",
            "app == 'a' || role == 'a'",
            "all()",
            "given == 'p'",
        ])
        .to_owned()
    }

    fn net(&mut self) -> Prefix {
        let nets = [
            "10.0.0.1/32",
            "10.0.0.2/32",
            "10.0.0.0/30",
            "10.0.0.0/24",
            "0.0.0.0/0",
            "fd00::1/128",
            "fd00::/64",
        ];
        self.of(&nets).parse().unwrap()
    }

    fn host(&mut self) -> IpAddr {
        self.of(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "fd00::1", "fd00::2"]).parse().unwrap()
    }

    fn ports(&mut self) -> Vec<EndpointPort> {
        self.few(3, |draw| EndpointPort {
            name: draw.of(&["http", "dns"]).to_owned(),
            protocol: draw.of(&[Protocol::TCP, Protocol::UDP]),
            port: draw.of(&[80, 81]),
        })
    }

    fn profiles(&mut self) -> Vec<String> {
        self.few(3, |draw| {
            draw.of(&["kns.red", "kns.blue", "p", "missing", Profile::DEFAULT_ALLOW]).to_owned()
        })
    }

    fn port_matches(&mut self) -> Vec<PortMatch> {
        self.few(3, |draw| {
            draw.of(&[
                PortMatch::Numbers((80..=80).into()),
                PortMatch::Numbers((81..=90).into()),
                PortMatch::Named("http".to_owned()),
                PortMatch::Named("dns".to_owned()),
            ])
        })
    }

    fn end(&mut self) -> EntityRule {
        let mut end = EntityRule::default();
        match self.below(8) {
            0 | 1 => end.selector = Some(self.selector()),
            2 => end.nets = self.few(3, Draw::net),
            3 => end.not_nets = self.few(3, Draw::net),
            4 => end.not_selector = Some(self.selector()),
            5 => {
                end.selector = Some(self.selector());
                end.not_selector = Some(self.selector());
            }
            6 => end.namespace_selector = Some(self.of(&["colour == 'red'", "all()", "global()"]).to_owned()),
            _ => {}
        }
        if self.one_in(3) {
            end.ports = self.port_matches();
        }
        if self.one_in(5) {
            end.not_ports = self.port_matches();
        }
        end
    }

    fn rule(&mut self) -> PolicyRule {
        let mut rule = PolicyRule::any(self.of(&[Action::Allow, Action::Deny, Action::Pass, Action::Log]));
        rule.source = self.end();
        rule.destination = self.end();
        if self.one_in(2) {
            rule.protocol = Some(self.of(&[Protocol::TCP, Protocol::UDP, Protocol::ICMP]));
        }
        if self.one_in(6) {
            rule.family = Some(self.of(&Family::ALL));
        }
        rule
    }

    fn policy(&mut self) -> Resource {
        let kind = self.of(&[
            PolicyKind::GlobalNetworkPolicy,
            PolicyKind::NetworkPolicy,
            PolicyKind::StagedGlobalNetworkPolicy,
            PolicyKind::StagedNetworkPolicy,
        ]);
        let namespace = kind.is_namespaced().then(|| self.of(&NAMESPACES).to_owned());
        let mut policy = NetworkPolicy::empty(PolicyKey {
            kind,
            namespace,
            name: self.of(&["one", "two", "three"]).to_owned(),
        });
        policy.tier = self.of(&["default", "early", "ghost", "kube-baseline"]).to_owned();
        policy.order = self.of(&[Order::LAST, Order::new(1.0).unwrap(), Order::new(2.0).unwrap()]);
        policy.selector = self.some(&[()]).map(|()| self.selector()).unwrap_or_default();
        let about = self.below(3);
        (policy.applies_to_ingress, policy.applies_to_egress) = (about != 1, about != 0);
        policy.ingress = self.few(3, Draw::rule);
        policy.egress = self.few(3, Draw::rule);
        if kind.is_staged() {
            policy.staged_action = Some(self.of(&[
                StagedAction::Set,
                StagedAction::Delete,
                StagedAction::Learn,
                StagedAction::Ignore,
            ]));
        }
        if !kind.is_namespaced() {
            let namespaces = ["colour == 'red'", "all()"].map(str::to_owned);
            policy.namespace_selector = if self.one_in(3) { Some(self.of(&namespaces)) } else { None };
            let class = self.below(6);
            (policy.do_not_track, policy.pre_dnat) = (class == 1, class == 2);
            policy.apply_on_forward = (1..4).contains(&class);
        }
        Resource::NetworkPolicy(policy)
    }

    fn resource(&mut self) -> Resource {
        match self.below(12) {
            0..4 => self.policy(),
            4..7 => {
                let namespace = self.of(&NAMESPACES).to_owned();
                let mut labels = self.labels();
                labels.insert("projectcalico.org/namespace".to_owned(), namespace.clone());
                Resource::WorkloadEndpoint(WorkloadEndpoint {
                    namespace,
                    name: self.of(&["pod-1", "pod-2"]).to_owned(),
                    labels,
                    node: self.of(&[NODE, NODE, "there"]).to_owned(),
                    ip_networks: self.few(3, |draw| Prefix::host(draw.host())),
                    profiles: self.profiles(),
                    ports: self.ports(),
                    ..WorkloadEndpoint::default()
                })
            }
            7 => Resource::HostEndpoint(HostEndpoint {
                name: self.of(&["eth0", "eth1"]).to_owned(),
                labels: self.labels(),
                node: self.of(&[NODE, "there"]).to_owned(),
                interface: HostInterface::All,
                expected_ips: self.few(3, Draw::host),
                profiles: self.profiles(),
                ports: self.ports(),
                dscp: None,
            }),
            8 => {
                let namespace = self.some(&NAMESPACES).map(str::to_owned);
                let mut labels = self.labels();
                labels.extend(namespace.clone().map(|it| ("projectcalico.org/namespace".to_owned(), it)));
                Resource::NetworkSet(NetworkSet {
                    namespace,
                    name: self.of(&["set-1", "set-2"]).to_owned(),
                    labels,
                    nets: self.few(4, Draw::net),
                })
            }
            9 | 10 => {
                let name = self.of(&["kns.red", "kns.blue", "p"]);
                let mut labels_to_apply = self.labels();
                labels_to_apply.insert("given".to_owned(), name.to_owned());
                if let Some(colour) = name.strip_prefix("kns.") {
                    labels_to_apply.insert("pcns.colour".to_owned(), colour.to_owned());
                }
                Resource::Profile(Profile {
                    name: name.to_owned(),
                    labels_to_apply,
                    ingress: self.few(3, Draw::rule),
                    egress: self.few(3, Draw::rule),
                })
            }
            _ => Resource::Tier(Tier {
                name: self.of(&["default", "early"]).to_owned(),
                order: self.of(&[Order::LAST, Order::new(1.0).unwrap()]),
                default_action: self.of(&[TierDefault::Deny, TierDefault::Pass]),
            }),
        }
    }

    fn packet(&mut self) -> Packet {
        let family = self.of(&Family::ALL);
        let hosts: &[&str] = match family {
            Family::V4 => &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "192.0.2.1"],
            Family::V6 => &["fd00::1", "fd00::2", "2001:db8::1"],
        };
        let [source, destination] = [self.of(hosts), self.of(hosts)].map(|host| host.parse().unwrap());
        let protocol = self.of(&[6, 17, 1]);
        let ports = (protocol != 1).then(|| (self.of(&[80, 81, 1024]), self.of(&[80, 81, 1024])));
        Packet { protocol, source, destination, ports, icmp: (protocol == 1).then_some((8, 0)) }
    }
}

type State = BTreeMap<Key, Arc<Resource>>;

/// Updates, some of which take back what another gave.
fn updates(numbers: &[u8]) -> Vec<Update> {
    let mut draw = Draw(numbers.iter());
    let mut updates = Vec::new();
    while draw.0.len() > 0 {
        let resource = draw.resource();
        updates.push(if draw.one_in(5) {
            Update::Remove(resource.key())
        } else {
            Update::Put(Arc::new(resource))
        });
    }
    updates
}

fn state(updates: &[Update]) -> State {
    let mut state = State::new();
    for update in updates {
        match update {
            Update::Put(resource) => drop(state.insert(resource.key(), resource.clone())),
            Update::Remove(key) => drop(state.remove(key)),
            Update::InSync => {}
        }
    }
    state
}

/// A resolver that was told everything at once.
fn at_once(state: &State) -> (Resolver, Dataplane) {
    let (mut resolver, mut dataplane) = (Resolver::new(NODE), Dataplane::default());
    state.values().for_each(|resource| resolver.apply(&Update::Put(resource.clone())));
    resolver.apply(&Update::InSync);
    dataplane.apply(resolver.changes());
    (resolver, dataplane)
}

/// What is asked of endpoints, with sets called by their place in order instead of by number.
fn endpoints(dataplane: &Dataplane) -> BTreeMap<Key, String> {
    let by_spec: BTreeMap<_, _> = dataplane.specs.iter().map(|(id, spec)| (spec, *id)).collect();
    let places: BTreeMap<SetId, SetId> =
        (0..).zip(by_spec.values()).map(|(place, id)| (*id, SetId(place))).collect();
    let placed = |checks: &mut Option<Arc<Checks>>| {
        let Some(checks) = checks else { return };
        let checks = Arc::make_mut(checks);
        let profiles = match &mut checks.after {
            AfterTiers::Profiles(profiles) => profiles.as_mut_slice(),
            AfterTiers::NoMatch => &mut [],
        };
        for policy in checks.tiers.iter_mut().flat_map(|tier| &mut tier.policies).chain(profiles) {
            for rule in &mut Arc::make_mut(policy).rules {
                for end in [&mut rule.source, &mut rule.destination] {
                    for list in
                        [&mut end.sets, &mut end.not_sets, &mut end.named_ports, &mut end.not_named_ports]
                    {
                        list.iter_mut().for_each(|set| *set = places[set]);
                    }
                }
            }
        }
    };
    let written = |policy: &EndpointPolicy| {
        let mut policy = policy.clone();
        let EndpointPolicy { normal, staged, untracked, pre_dnat, forward } = &mut policy;
        for both in [normal, staged, untracked, forward] {
            placed(&mut both.ingress);
            placed(&mut both.egress);
        }
        placed(pre_dnat);
        format!("{policy:?}")
    };
    dataplane.endpoints.iter().map(|(key, policy)| (key.clone(), written(policy))).collect()
}

/// Somebody with labels in effect, addresses and ports.
struct Someone {
    labels: BTreeMap<String, String>,
    nets: Vec<Prefix>,
    ports: Vec<EndpointPort>,
}

/// The slow reading: every question goes through all resources.
struct Slow<'a> {
    state: &'a State,
    everyone: BTreeMap<&'a Key, Someone>,
}

impl<'a> Slow<'a> {
    fn new(state: &'a State) -> Slow<'a> {
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
    fn verdict(&self, key: &Key, egress: bool, packet: &Packet, staged: bool) -> Verdict {
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
            && (selected.is_none() || here().any(|who| is_meant(who)))
            && (selected.is_some()
                || !here().any(|who| refused.as_ref().is_some_and(|no| no.matches(&who.labels))))
            && (end.ports.is_empty() || at(&end.ports))
            && !at(&end.not_ports)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn whatever_came_in_whatever_order_and_batches_the_last_state_alone_counts(
        numbers in prop::collection::vec(any::<u8>(), 0..600),
        told in prop::collection::vec(any::<bool>(), 60),
    ) {
        let updates = updates(&numbers);
        let (mut resolver, mut dataplane) = (Resolver::new(NODE), Dataplane::default());
        let in_sync = updates.len() / 4;
        for (number, update) in updates.iter().enumerate() {
            if number == in_sync {
                resolver.apply(&Update::InSync);
            }
            resolver.apply(update);
            if told[number % told.len()] {
                dataplane.apply(resolver.changes());
            }
        }
        resolver.apply(&Update::InSync);
        dataplane.apply(resolver.changes());
        let (_, wanted) = at_once(&state(&updates));
        prop_assert_eq!(dataplane.sets(), wanted.sets());
        prop_assert_eq!(endpoints(&dataplane), endpoints(&wanted));
        prop_assert!(resolver.changes().is_empty());

        // And all of it taken back leaves nothing.
        state(&updates).keys().for_each(|key| resolver.apply(&Update::Remove(key.clone())));
        dataplane.apply(resolver.changes());
        prop_assert!(dataplane.endpoints.is_empty() && dataplane.specs.is_empty());
    }

    #[test]
    fn every_packet_ends_as_a_slow_reading_of_the_resources_has_it(
        numbers in prop::collection::vec(any::<u8>(), 100..600),
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 6), 24),
    ) {
        let state = state(&updates(&numbers));
        let (resolver, dataplane) = at_once(&state);
        let slow = Slow::new(&state);
        for numbers in &packets {
            let packet = Draw(numbers.iter()).packet();
            for (key, policy) in &dataplane.endpoints {
                let staged = if policy.staged.ingress.is_some() { &policy.staged } else { &policy.normal };
                for (egress, staged, checks) in [
                    (false, false, &policy.normal.ingress),
                    (true, false, &policy.normal.egress),
                    (false, true, &staged.ingress),
                    (true, true, &staged.egress),
                ] {
                    let checks = checks.as_ref().expect("it is always asked");
                    let judged = judge(checks, &packet, resolver.members());
                    let expected = slow.verdict(key, egress, &packet, staged);
                    prop_assert_eq!(judged.verdict, expected, "{} {:?} egress {} {:?}", key, packet, egress, judged.steps);
                }
            }
        }
    }
}
