use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{
    Action, EndpointPort, EntityRule, Family, IcmpMatch, NetworkPolicy, NetworkSet, Order, PolicyKey,
    PolicyKind, PolicyRule, PortMatch, PortRange, Prefix, Profile, Protocol, Resource, Tier, TierDefault,
    WorkloadEndpoint,
};
use proptest::prelude::*;

use super::cover::covers;
use super::{Finding, lint};
use crate::judge::{self, Packet, Sets};
use crate::resolve::families;
use crate::rule::{EndMatch, Rule, SetId};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn endpoint(labels_of: &[(&str, &str)], profiles: &[&str]) -> Resource {
    Resource::WorkloadEndpoint(WorkloadEndpoint {
        namespace: "default".to_owned(),
        name: "w".to_owned(),
        labels: labels(&[labels_of, &[("projectcalico.org/namespace", "default")]].concat()),
        profiles: profiles.iter().map(|name| (*name).to_owned()).collect(),
        ports: vec![EndpointPort { name: "db".to_owned(), protocol: Protocol::TCP, port: 3306 }],
        ..WorkloadEndpoint::default()
    })
}

fn policy(kind: PolicyKind, selector: &str) -> NetworkPolicy {
    let namespace = kind.is_namespaced().then(|| "default".to_owned());
    NetworkPolicy {
        selector: selector.to_owned(),
        applies_to_ingress: true,
        ..NetworkPolicy::empty(PolicyKey { kind, namespace, name: "p".to_owned() })
    }
}

fn from(selector: &str) -> PolicyRule {
    let source = EntityRule { selector: Some(selector.to_owned()), ..EntityRule::default() };
    PolicyRule { source, ..PolicyRule::any(Action::Allow) }
}

fn found(resources: &[Resource]) -> Vec<String> {
    let all: Vec<&Resource> = resources.iter().collect();
    let short = |text: &str| text.split([':', ';']).next().unwrap_or_default().to_owned();
    lint(&all)
        .into_iter()
        .map(|Finding { resource, field, text }| format!("{resource} {field}: {}", short(&text)))
        .collect()
}

#[test]
fn a_deny_without_conditions_hides_the_rules_after_it() {
    // The tenant network whose every ingress list begins with such a rule.
    let mut namespace = policy(PolicyKind::GlobalNetworkPolicy, "namespace == 'default'");
    namespace.ingress = vec![PolicyRule::any(Action::Deny), from("namespace == 'default'")];
    let mut allow = from("service == 'frontend'");
    allow.protocol = Some(Protocol::TCP);
    let profile = Profile {
        name: "profile-database".to_owned(),
        ingress: vec![PolicyRule::any(Action::Deny), allow],
        egress: vec![PolicyRule::any(Action::Allow)],
        ..Profile::default()
    };
    let endpoints = [
        endpoint(&[("namespace", "default"), ("service", "frontend")], &[]),
        endpoint(&[("namespace", "default")], &["profile-database"]),
    ];
    let mut resources = vec![Resource::NetworkPolicy(namespace), Resource::Profile(profile)];
    resources.extend(endpoints);
    assert_eq!(found(&resources), ["0 spec.ingress[1]: never asked", "1 spec.ingress[1]: never asked"]);
}

#[test]
fn a_rule_that_only_notes_hides_nothing() {
    let mut logged = policy(PolicyKind::GlobalNetworkPolicy, "");
    logged.ingress = vec![PolicyRule::any(Action::Log), PolicyRule::any(Action::Allow)];
    assert!(found(&[Resource::NetworkPolicy(logged)]).is_empty());
}

#[test]
fn selectors_that_select_nobody_are_found_where_there_is_anybody() {
    let mut web = policy(PolicyKind::NetworkPolicy, "app == 'web'");
    web.ingress = vec![from("app == 'db'"), from("set == 'office'")];
    let office = NetworkSet { labels: labels(&[("set", "office")]), ..NetworkSet::default() };
    let local = NetworkSet {
        namespace: Some("default".to_owned()),
        labels: labels(&[("set", "office"), ("projectcalico.org/namespace", "default")]),
        ..NetworkSet::default()
    };
    let resources = |set: &NetworkSet, app| {
        [
            Resource::NetworkPolicy(web.clone()),
            Resource::NetworkSet(set.clone()),
            endpoint(&[("app", app)], &[]),
        ]
    };
    assert!(found(&resources(&local, "web")[..2]).is_empty(), "no endpoints are given");
    assert_eq!(
        found(&resources(&local, "db")),
        ["0 spec.selector: no endpoint of namespace \"default\" given here has these labels"]
    );
    // A set of no namespace isn't in the policy's.
    assert_eq!(found(&resources(&office, "web")).len(), 2);
}

#[test]
fn selectors_of_namespaces_are_asked_of_what_profiles_give_where_all_are_there() {
    let mut web = policy(PolicyKind::NetworkPolicy, "");
    let source = EntityRule { namespace_selector: Some("team == 'b'".to_owned()), ..EntityRule::default() };
    web.ingress = vec![PolicyRule { source, ..PolicyRule::any(Action::Allow) }];
    let profile = |team| {
        let labels_to_apply = labels(&[("pcns.team", team)]);
        Resource::Profile(Profile { name: "kns.default".to_owned(), labels_to_apply, ..Profile::default() })
    };
    let resources = |team, profiles: &[&str]| {
        [Resource::NetworkPolicy(web.clone()), profile(team), endpoint(&[], profiles)]
    };
    assert_eq!(
        found(&resources("a", &["kns.default"])),
        [
            "0 spec.ingress[0].source.namespaceSelector: no endpoint or network set given here has these labels"
        ]
    );
    assert!(found(&resources("b", &["kns.default"])).is_empty());
    // What the missing one would give, nobody knows.
    assert_eq!(found(&resources("a", &["gone"])).len(), 1);
}

#[test]
fn labels_of_profiles_count_and_missing_profiles_are_found() {
    let profile = Profile {
        name: "kns.default".to_owned(),
        labels_to_apply: labels(&[("pcns.team", "a")]),
        ..Profile::default()
    };
    let resources = [
        Resource::NetworkPolicy(policy(PolicyKind::GlobalNetworkPolicy, "pcns.team == 'a'")),
        Resource::Profile(profile),
        endpoint(&[], &["kns.default", "gone", Profile::DEFAULT_ALLOW]),
    ];
    assert_eq!(found(&resources), ["2 spec.profiles[1]: there is no Profile \"gone\" given here"]);
}

#[test]
fn names_of_ports_are_looked_for_with_their_protocol() {
    let to = |name: &str, protocol| {
        let ports = vec![PortMatch::Named(name.to_owned())];
        let destination = EntityRule { ports, ..EntityRule::default() };
        PolicyRule { protocol, destination, ..PolicyRule::any(Action::Allow) }
    };
    let mut db = policy(PolicyKind::NetworkPolicy, "");
    db.ingress = vec![to("db", Some(Protocol::UDP)), to("bd", Some(Protocol::TCP)), to("db", None)];
    let findings = found(&[Resource::NetworkPolicy(db), endpoint(&[], &[])]);
    assert_eq!(
        findings,
        [
            "0 spec.ingress[0].destination.ports[0]: no endpoint given here has a port of UDP named \"db\"",
            "0 spec.ingress[1].destination.ports[0]: no endpoint given here has a port of TCP named \"bd\"",
        ]
    );
}

#[test]
fn tiers_that_do_not_exist_or_are_never_reached_are_found() {
    let tier = |name: &str, order, default_action| {
        Resource::Tier(Tier { name: name.to_owned(), order: Order::new(order).unwrap(), default_action })
    };
    let inside = |tier: &str, action| {
        let mut policy = policy(PolicyKind::GlobalNetworkPolicy, "all()");
        policy.tier = tier.to_owned();
        policy.ingress = vec![PolicyRule::any(action)];
        policy.applies_to_egress = true;
        Resource::NetworkPolicy(policy)
    };
    assert_eq!(found(&[inside("gone", Action::Deny)]), ["0 spec.tier: there is no Tier \"gone\" given here"]);
    let first = tier("first", 1.0, TierDefault::Deny);
    // Ingress passes on; egress has no rule that would.
    let resources = [first, inside("first", Action::Pass), inside("default", Action::Allow)];
    assert_eq!(found(&resources), ["2 spec.tier: never asked about egress"]);
    // Of what a host endpoint forwards, the first tier's policy isn't asked, unless it is said to be about that.
    let on_forward = |tier: &str| {
        let Resource::NetworkPolicy(mut policy) = inside(tier, Action::Allow) else { unreachable!() };
        policy.apply_on_forward = true;
        Resource::NetworkPolicy(policy)
    };
    let first = tier("first", 1.0, TierDefault::Deny);
    assert!(found(&[first.clone(), inside("first", Action::Allow), on_forward("default")]).is_empty());
    let resources = [first, on_forward("first"), on_forward("default")];
    assert_eq!(
        found(&resources),
        ["2 spec.tier: never asked about ingress", "2 spec.tier: never asked about egress"]
    );
    // What no rule is about passes on; nothing is left where a rule is about everything.
    let passing = tier("first", 1.0, TierDefault::Pass);
    let resources = [passing, inside("first", Action::Allow), inside("default", Action::Allow)];
    assert_eq!(found(&resources), ["2 spec.tier: never asked about ingress"]);
}

#[test]
fn policies_that_another_of_their_tier_hides_are_found() {
    let at = |name: &str, order: f64, selector: &str, rules: Vec<PolicyRule>| {
        let mut policy = policy(PolicyKind::GlobalNetworkPolicy, selector);
        policy.key.name = name.to_owned();
        policy.order = Order::new(order).unwrap();
        policy.ingress = rules;
        Resource::NetworkPolicy(policy)
    };
    let deny = || vec![PolicyRule::any(Action::Deny)];
    let web = |order| at("web", order, "app == 'web'", vec![from("app == 'db'")]);
    let all = |order| at("all", order, "", deny());
    assert_eq!(found(&[web(10.0), all(1.0)]), ["0 spec.order: never asked about ingress"]);
    assert!(found(&[web(1.0), all(10.0)]).is_empty());
    // Whom the first one is about, isn't known without endpoints.
    let some = || at("some", 1.0, "tier == 'front'", deny());
    assert!(found(&[web(10.0), some()]).is_empty());
    let front = |app| endpoint(&[("app", app), ("tier", "front")], &[]);
    let back = |app| endpoint(&[("app", app)], &[]);
    assert_eq!(
        found(&[web(10.0), some(), front("web"), front("db")]),
        ["0 spec.order: never asked about ingress"]
    );
    assert!(found(&[web(10.0), some(), front("web"), back("web"), front("db")]).is_empty());
    // A rule that passes on hides what follows in its tier alone.
    let pass = at("pass", 0.5, "", vec![from("has(x)"), PolicyRule::any(Action::Pass)]);
    let own = Tier { name: "late".to_owned(), order: Order::LAST, default_action: TierDefault::Deny };
    let Resource::NetworkPolicy(mut late) = web(10.0) else { unreachable!() };
    late.tier = "late".to_owned();
    let resources = [pass, web(10.0), Resource::Tier(own), Resource::NetworkPolicy(late)];
    assert_eq!(found(&resources), ["1 spec.order: never asked about ingress"]);
}

/// A policy of ingress for the selector, with this order.
fn ordered(name: &str, order: f64, selector: &str, rules: Vec<PolicyRule>) -> NetworkPolicy {
    let mut policy = policy(PolicyKind::GlobalNetworkPolicy, selector);
    policy.key.name = name.to_owned();
    policy.order = Order::new(order).unwrap();
    policy.ingress = rules;
    policy
}

#[test]
fn where_several_hide_a_policy_each_from_some_more_than_one_is_named() {
    let deny = || vec![PolicyRule::any(Action::Deny)];
    let resources = [
        Resource::NetworkPolicy(ordered("front", 1.0, "tier == 'front'", deny())),
        Resource::NetworkPolicy(ordered("back", 2.0, "tier == 'back'", deny())),
        Resource::NetworkPolicy(ordered("all", 3.0, "", deny())),
        endpoint(&[("tier", "front")], &[]),
        endpoint(&[("tier", "back")], &[]),
        endpoint(&[("tier", "back")], &[]),
    ];
    let all: Vec<&Resource> = resources.iter().collect();
    let texts: Vec<String> = lint(&all).into_iter().map(|finding| finding.text).collect();
    assert_eq!(
        texts,
        [
            "never asked about ingress: spec.ingress[0] (Deny) of GlobalNetworkPolicy(front) comes before it and \
          matches everything, as for 1 of the 3 that it is about (from others spec.ingress[0] of \
          GlobalNetworkPolicy(back) hides it); give this policy a lower order, or narrow that one"
        ]
    );
    // Of what is forwarded the first isn't asked, and the second hides the third.
    let mut policies = ["one", "two", "three"].map(|name| ordered(name, 1.0, "", deny()));
    for (number, policy) in policies.iter_mut().enumerate() {
        policy.order = Order::new(number as f64).unwrap();
        policy.apply_on_forward = number > 0;
    }
    let policies = policies.map(Resource::NetworkPolicy);
    let all: Vec<&Resource> = policies.iter().collect();
    let findings = lint(&all);
    assert_eq!(findings.len(), 1, "the second is asked of what is forwarded: {findings:?}");
    let said = "(from what is forwarded spec.ingress[0] of GlobalNetworkPolicy(two) hides it)";
    assert!(findings[0].text.contains(said), "{}", findings[0].text);
}

/// Whom it is about isn't known, so nobody can say that it doesn't pass on what a policy of a later tier is then asked of.
#[test]
fn a_policy_that_may_be_asked_before_and_passes_on_hides_nothing() {
    let later = || {
        let mut later = ordered("later", 1.0, "has(app)", vec![PolicyRule::any(Action::Allow)]);
        later.tier = "later".to_owned();
        Resource::NetworkPolicy(later)
    };
    let tier = || {
        let (name, order) = ("later".to_owned(), Order::LAST);
        Resource::Tier(Tier { name, order, default_action: TierDefault::Deny })
    };
    let first = |selector| Resource::NetworkPolicy(ordered("first", 9.0, selector, vec![from("has(b)")]));
    let passing = |order| ordered("passing", order, "has(role)", vec![PolicyRule::any(Action::Pass)]);
    let alone = [tier(), later(), first("")];
    assert_eq!(found(&alone), ["1 spec.tier: never asked about ingress"]);
    // No endpoints are given: one that has an app may well have a role.
    let both = [tier(), later(), first(""), Resource::NetworkPolicy(passing(1.0))];
    assert!(found(&both).is_empty());
    // After a rule that decides about everybody, it passes on nothing.
    let denies = ordered("denies", 5.0, "", vec![PolicyRule::any(Action::Deny)]);
    let late = [tier(), later(), Resource::NetworkPolicy(denies), Resource::NetworkPolicy(passing(6.0))];
    assert!(found(&late).contains(&"1 spec.tier: never asked about ingress".to_owned()));
    // Endpoints are given, and not the profile of which one inherits: whether it is in the namespace isn't known.
    let mut inherited = passing(1.0);
    inherited.selector = String::new();
    inherited.namespace_selector = Some("team == 'a'".to_owned());
    let people = |rest: Vec<Resource>| {
        let mut all =
            vec![tier(), later(), first("has(app)"), endpoint(&[("app", "web"), ("b", "")], &["gone"])];
        all.extend(rest);
        all
    };
    let tiers = |resources: &[Resource]| {
        found(resources).into_iter().filter(|finding| finding.contains("spec.tier")).count()
    };
    assert_eq!(tiers(&people(vec![])), 1);
    assert_eq!(tiers(&people(vec![Resource::NetworkPolicy(inherited)])), 0);
}

/// Policies about the same are looked at once, not each with all others.
#[test]
fn ten_thousand_policies_about_everybody_are_looked_at_in_no_time() {
    const POLICIES: usize = 10_000;
    let policy = |number: usize| {
        let rules = vec![PolicyRule::any(if number == 0 { Action::Deny } else { Action::Allow })];
        Resource::NetworkPolicy(ordered(&format!("p{number}"), number as f64, "", rules))
    };
    let resources: Vec<Resource> = (0..POLICIES).map(policy).collect();
    let all: Vec<&Resource> = resources.iter().collect();
    assert_eq!(lint(&all).len(), POLICIES - 1);
}

#[test]
fn what_is_said_of_selectors_names_the_label_that_is_missing_or_the_value() {
    let said = |policy: NetworkPolicy, resources: &[Resource]| -> Vec<String> {
        let policy = Resource::NetworkPolicy(policy);
        let all: Vec<&Resource> = std::iter::once(&policy).chain(resources).collect();
        lint(&all).into_iter().map(|finding| format!("{}: {}", finding.field, finding.text)).collect()
    };
    let profile = Profile {
        name: "kns.default".to_owned(),
        labels_to_apply: labels(&[("pcns.team", "payments")]),
        ..Profile::default()
    };
    let resources = [
        Resource::Profile(profile),
        endpoint(&[("app", "web"), ("zone", "a")], &["kns.default"]),
        endpoint(&[("app", "api")], &["kns.default"]),
    ];
    let global = |selector: &str| policy(PolicyKind::GlobalNetworkPolicy, selector);
    let nothing = "no endpoint given here has these labels: the policy does nothing";
    for (selector, why) in [
        ("ap == 'web'", "nobody has a label \"ap\": is \"app\" meant?"),
        ("has(colour)", "nobody has a label \"colour\""),
        ("app == 'wbe'", "nobody has a label \"app\" that is \"wbe\"; is \"web\" meant?"),
        ("app in {'x', 'y'}", "nobody has a label \"app\" that is \"x\" or \"y\"; there is \"api\", \"web\""),
    ] {
        assert_eq!(said(global(selector), &resources), [format!("spec.selector: {nothing} ({why})")]);
    }
    // Each is there, but nobody has both.
    assert_eq!(
        said(global("app == 'api' && zone == 'a'"), &resources),
        [format!("spec.selector: {nothing}")]
    );
    let of_namespace =
        NetworkPolicy { namespace_selector: Some("team == 'paymnets'".to_owned()), ..global("") };
    let why = "nobody is in a namespace with a label \"team\" that is \"paymnets\"; is \"payments\" meant?";
    assert_eq!(said(of_namespace, &resources), [format!("spec.namespaceSelector: {nothing} ({why})")]);
    let mut rule = from("app == 'web'");
    rule.source.namespace_selector = Some("tema == 'payments'".to_owned());
    let asks = NetworkPolicy { ingress: vec![rule], ..global("") };
    assert_eq!(
        said(asks, &resources),
        [
            "spec.ingress[0].source.namespaceSelector: no endpoint or network set given here has these labels: the rule \
          matches nothing (nobody is in a namespace with a label \"tema\": is \"team\" meant?)"
        ]
    );
}

/// Selectors and names of ports stand for sets that everybody is a member of by the lowest bits of an address.
struct ByBits;

impl Sets for ByBits {
    fn contains(&self, set: SetId, addr: IpAddr) -> bool {
        let bits = match addr {
            IpAddr::V4(addr) => addr.to_bits(),
            IpAddr::V6(addr) => addr.to_bits() as u32,
        };
        bits >> (set.0 % 8) & 1 == 1
    }

    fn contains_port(&self, set: SetId, addr: IpAddr, protocol: u8, port: u16) -> bool {
        let of_protocol = set.0 / PORTS_OF == u32::from(protocol);
        of_protocol && self.contains(set, addr) && port % 2 == u16::try_from(set.0 % 2).unwrap()
    }
}

/// Sets of named ports count on from this times their protocol.
const PORTS_OF: u32 = 1 << 16;

/// Does the rule match, as the slow judge reads it?
fn matches(rule: &PolicyRule, packet: &Packet) -> bool {
    families(rule).contains(&Family::of(packet.source)) && judge::matches(&compiled(rule), packet, &ByBits)
}

fn compiled(rule: &PolicyRule) -> Rule {
    let set = |text: &String| SetId(text.bytes().map(u32::from).sum());
    let protocol = rule.protocol.filter(|protocol| protocol.has_ports()).unwrap_or(Protocol::TCP);
    let named = |text: &String| SetId(set(text).0 + PORTS_OF * u32::from(protocol.0));
    let end = |end: &EntityRule| {
        let numbers = |ports: &[PortMatch]| {
            let number = |port: &PortMatch| match port {
                PortMatch::Numbers(range) => Some(*range),
                PortMatch::Named(_) => None,
            };
            ports.iter().filter_map(number).collect()
        };
        let names = |ports: &[PortMatch]| {
            let name = |port: &PortMatch| match port {
                PortMatch::Named(name) => Some(named(name)),
                PortMatch::Numbers(_) => None,
            };
            ports.iter().filter_map(name).collect()
        };
        EndMatch {
            nets: end.nets.clone(),
            not_nets: end.not_nets.clone(),
            sets: end.selector.iter().map(set).collect(),
            not_sets: end.not_selector.iter().map(set).collect(),
            ports: numbers(&end.ports),
            named_ports: names(&end.ports),
            not_ports: numbers(&end.not_ports),
            not_named_ports: names(&end.not_ports),
        }
    };
    Rule {
        action: rule.action,
        family: rule.family,
        protocol: rule.protocol.map(|protocol| protocol.0),
        not_protocol: rule.not_protocol.map(|protocol| protocol.0),
        icmp: rule.icmp,
        not_icmp: rule.not_icmp,
        source: end(&rule.source),
        destination: end(&rule.destination),
    }
}

fn some<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = Option<T>> {
    prop_oneof![1 => Just(None), 3 => prop::sample::select(values).prop_map(Some)]
}

fn few<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![1 => Just(Vec::new()), 3 => prop::collection::vec(prop::sample::select(values), 1..3)]
}

fn ends() -> impl Strategy<Value = EntityRule> {
    let nets: Vec<Prefix> =
        ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.2/31", "::/0", "fd00::/126", "fd00::2/127"]
            .map(|net| net.parse().unwrap())
            .to_vec();
    let ports = vec![
        PortMatch::Numbers(PortRange { first: 1, last: 3 }),
        PortMatch::Numbers(PortRange { first: 2, last: 2 }),
        PortMatch::Numbers(PortRange { first: 3, last: 4 }),
        PortMatch::Named("a".to_owned()),
        PortMatch::Named("b".to_owned()),
    ];
    let selectors = vec!["has(a)".to_owned(), "has(b)".to_owned()];
    (few(nets.clone()), few(nets), few(ports.clone()), few(ports), some(selectors.clone()), some(selectors))
        .prop_map(|(nets, not_nets, ports, not_ports, selector, not_selector)| EntityRule {
            nets,
            not_nets,
            ports,
            not_ports,
            selector,
            not_selector,
            ..EntityRule::default()
        })
}

fn rules() -> impl Strategy<Value = PolicyRule> {
    let protocols = vec![Protocol::ICMP, Protocol::TCP, Protocol::UDP];
    let icmp = vec![
        IcmpMatch { icmp_type: 8, code: None },
        IcmpMatch { icmp_type: 8, code: Some(0) },
        IcmpMatch { icmp_type: 8, code: Some(1) },
        IcmpMatch { icmp_type: 3, code: None },
    ];
    let heads = (
        some(vec![Family::V4, Family::V6]),
        some(protocols.clone()),
        some(protocols),
        some(icmp.clone()),
        some(icmp),
    );
    (heads, ends(), ends()).prop_map(
        |((family, protocol, not_protocol, icmp, not_icmp), source, destination)| PolicyRule {
            family,
            protocol,
            not_protocol,
            icmp,
            not_icmp,
            source,
            destination,
            ..PolicyRule::any(Action::Deny)
        },
    )
}

/// How many conditions [`only`] tells apart.
const CONDITIONS: usize = 11;

/// The rule with these of its conditions, numbered from 0.
fn only(rule: &PolicyRule, conditions: &[usize]) -> PolicyRule {
    let has = |number: usize| conditions.contains(&number);
    let end = |end: &EntityRule| EntityRule {
        nets: if has(5) { end.nets.clone() } else { Vec::new() },
        not_nets: if has(6) { end.not_nets.clone() } else { Vec::new() },
        ports: if has(7) { end.ports.clone() } else { Vec::new() },
        not_ports: if has(8) { end.not_ports.clone() } else { Vec::new() },
        selector: end.selector.clone().filter(|_| has(9)),
        not_selector: end.not_selector.clone().filter(|_| has(10)),
        ..EntityRule::default()
    };
    PolicyRule {
        family: rule.family.filter(|_| has(0)),
        protocol: rule.protocol.filter(|_| has(1)),
        not_protocol: rule.not_protocol.filter(|_| has(2)),
        icmp: rule.icmp.filter(|_| has(3)),
        not_icmp: rule.not_icmp.filter(|_| has(4)),
        source: end(&rule.source),
        destination: end(&rule.destination),
        ..PolicyRule::any(rule.action)
    }
}

/// Two rules that ask for the same few things, so that covering is not rare and each condition counts.
fn pairs() -> impl Strategy<Value = (PolicyRule, PolicyRule)> {
    let conditions = prop::sample::subsequence((0..CONDITIONS).collect::<Vec<_>>(), 1..=3);
    (rules(), rules(), conditions)
        .prop_map(|(earlier, later, conditions)| (only(&earlier, &conditions), only(&later, &conditions)))
}

/// Every packet of a small world.
fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    let v4 = ["10.0.0.1", "10.0.0.2", "10.0.0.4", "192.0.2.3"];
    let v6 = ["fd00::1", "fd00::2", "fd00::4", "2001:db8::3"];
    for addrs in [v4, v6] {
        for source in addrs {
            for destination in addrs {
                let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
                let packet = |protocol: Protocol, ports, icmp| Packet {
                    protocol: protocol.0,
                    source,
                    destination,
                    ports,
                    icmp,
                };
                for (icmp_type, code) in [(8, 0), (8, 1), (3, 1)] {
                    packets.push(packet(Protocol::ICMP, None, Some((icmp_type, code))));
                }
                for (from, to) in [(1, 2), (2, 3), (3, 1), (4, 4), (5, 2)] {
                    packets.push(packet(Protocol::TCP, Some((from, to)), None));
                    packets.push(packet(Protocol::UDP, Some((to, from)), None));
                }
            }
        }
    }
    packets
}

/// So many, or as many as `PROPTEST_CASES` asks for.
fn cases(usual: u32) -> ProptestConfig {
    let asked = ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig { max_global_rejects: asked.cases.saturating_mul(25), ..asked },
        None => ProptestConfig { cases: usual, ..asked },
    }
}

proptest! {
    // Many pairs, to try every condition with every other.
    #![proptest_config(cases(4_000))]
    #[test]
    fn what_a_covered_rule_matches_the_covering_one_matches_too((earlier, later) in pairs()) {
        prop_assume!(covers(&earlier, &later));
        for packet in packets() {
            prop_assert!(!matches(&later, &packet) || matches(&earlier, &packet), "{packet:?}");
        }
    }
}

#[test]
fn a_rule_that_asks_more_is_covered_by_the_one_that_asks_less() {
    let narrow = PolicyRule { protocol: Some(Protocol::TCP), ..from("app == 'a'") };
    assert!(covers(&PolicyRule::any(Action::Pass), &narrow));
    assert!(covers(&from("app==\"a\""), &narrow), "the same selector, written otherwise");
    assert!(!covers(&narrow, &from("app == 'a'")));
}

#[test]
fn a_rule_that_leaves_a_family_or_a_protocol_out_covers_none_of_it() {
    let net = |net: &str| -> Vec<Prefix> { vec![net.parse().unwrap()] };
    let mut not_these = PolicyRule::any(Action::Deny);
    not_these.source.not_nets = net("fd00::/8");
    let mut from_v4 = PolicyRule::any(Action::Allow);
    from_v4.source.nets = net("10.0.0.0/8");
    assert!(!covers(&not_these, &from_v4), "it is about IPv6 alone");
    let mut from_v6 = PolicyRule::any(Action::Allow);
    from_v6.source.nets = net("2001:db8::/32");
    assert!(covers(&not_these, &from_v6));

    // Without a protocol, a name is one of TCP's ports.
    let mut to_name = PolicyRule::any(Action::Deny);
    to_name.destination.ports = vec![PortMatch::Named("dns".to_owned())];
    let of = |protocol| PolicyRule { protocol: Some(protocol), ..to_name.clone() };
    assert!(covers(&to_name, &of(Protocol::TCP)));
    assert!(!covers(&to_name, &of(Protocol::UDP)));

    // Whom a rule selects may share an address with somebody whose port of that name is another.
    let mut but_name = PolicyRule::any(Action::Deny);
    but_name.source.not_ports = vec![PortMatch::Named("dns".to_owned())];
    let mut of_some = but_name.clone();
    of_some.source.selector = Some("has(a)".to_owned());
    assert!(!covers(&but_name, &of_some));
    assert!(covers(&but_name, &but_name) && covers(&of_some, &of_some));
}
