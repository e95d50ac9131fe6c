//! The resolver held to what Felix's own tests expect of its calculation graph (`calc_states.jsonl`,
//! `calc_sequences.jsonl`, and of `selectors.jsonl` what is about composition and sets).

mod dataplane;

mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dataplane::{Dataplane, all_checks};
use model::{
    Action, EndpointPort, EntityRule, HostEndpoint, HostInterface, IcmpMatch, Key, NetworkPolicy, NetworkSet,
    Order, PolicyKey, PolicyKind, PolicyRule, PortMatch, PortRange, Prefix, Profile, Protocol, Resource,
    ServiceAccountMatch, ServiceMatch, Tier, TierDefault, Update, WorkloadEndpoint,
};
use policy::Selector;
use policy::resolve::{Directions, Resolver, SetSpec, compose};
use policy::rule::{AfterTiers, Checks};
use policy::sets::Member;
use serde_json::Value;

use oracle::rows;

/// The host under test in the rows.
const NODE: &str = "localhostname";

fn text(of: &Value, field: &str) -> String {
    of[field].as_str().unwrap_or_default().to_owned()
}

fn some_text(of: &Value, field: &str) -> Option<String> {
    of[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn texts(of: &Value, field: &str) -> Vec<String> {
    list(of, field, |one| one.as_str().expect("a text").to_owned())
}

fn list<T>(of: &Value, field: &str, read: impl Fn(&Value) -> T) -> Vec<T> {
    of[field].as_array().map(|items| items.iter().map(read).collect()).unwrap_or_default()
}

fn nets(of: &Value, field: &str) -> Vec<Prefix> {
    texts(of, field).iter().map(|net| net.parse().unwrap_or_else(|error| panic!("{net}: {error}"))).collect()
}

fn labels(of: &Value, field: &str) -> BTreeMap<String, String> {
    serde_json::from_value(of[field].clone()).unwrap_or_default()
}

fn flag(of: &Value, field: &str) -> bool {
    of[field].as_bool().unwrap_or(false)
}

fn protocol(of: &Value, field: &str) -> Option<Protocol> {
    match &of[field] {
        Value::String(name) => Some(name.parse().expect("a protocol")),
        Value::Number(number) => Some(Protocol(number.as_u64().expect("a protocol") as u8)),
        _ => None,
    }
}

fn order(of: &Value) -> Order {
    of["Order"].as_f64().map_or(Order::LAST, |order| Order::new(order).expect("a number"))
}

fn endpoint_ports(of: &Value, field: &str) -> Vec<EndpointPort> {
    let [name, protocol_field, port] = if of[field][0]["name"].is_string() {
        ["name", "protocol", "port"]
    } else {
        ["Name", "Protocol", "Port"]
    };
    list(of, field, |one| EndpointPort {
        name: text(one, name),
        protocol: protocol(one, protocol_field).expect("a protocol"),
        port: one[port].as_u64().expect("a port") as u16,
    })
}

/// One end of a rule of the rows' older form, whose selectors are composed already.
fn end(rule: &Value, end: &str) -> EntityRule {
    let ports = |field: String| {
        list(rule, &field, |port| match some_text(port, "PortName") {
            Some(name) => PortMatch::Named(name),
            None => {
                let number = |field: &str| port[field].as_u64().expect("a port") as u16;
                PortMatch::Numbers(PortRange { first: number("MinPort"), last: number("MaxPort") })
            }
        })
    };
    EntityRule {
        nets: nets(rule, &format!("{end}Nets")),
        not_nets: nets(rule, &format!("Not{end}Nets")),
        selector: some_text(rule, &format!("{end}Selector")),
        not_selector: some_text(rule, &format!("Not{end}Selector")),
        service: some_text(rule, &format!("{end}Service")).map(|name| ServiceMatch { name, namespace: None }),
        ports: ports(format!("{end}Ports")),
        not_ports: ports(format!("Not{end}Ports")),
        ..EntityRule::default()
    }
}

fn rule(rule: &Value) -> PolicyRule {
    let icmp = |kind: &str, code: &str| {
        let icmp_type = rule[kind].as_u64()? as u8;
        Some(IcmpMatch { icmp_type, code: rule[code].as_u64().map(|code| code as u8) })
    };
    PolicyRule {
        protocol: protocol(rule, "Protocol"),
        not_protocol: protocol(rule, "NotProtocol"),
        icmp: icmp("ICMPType", "ICMPCode"),
        not_icmp: icmp("NotICMPType", "NotICMPCode"),
        source: end(rule, "Src"),
        destination: end(rule, "Dst"),
        http: rule["HTTPMatch"].is_object(),
        ..PolicyRule::any(match text(rule, "Action").to_lowercase().as_str() {
            "" | "allow" => Action::Allow,
            "deny" => Action::Deny,
            "next-tier" | "pass" => Action::Pass,
            "log" => Action::Log,
            other => panic!("action {other}"),
        })
    }
}

fn policy(key: &Value, value: &Value) -> NetworkPolicy {
    let namespace = some_text(key, "Namespace");
    let kind = match text(key, "Kind").as_str() {
        "GlobalNetworkPolicy" => PolicyKind::GlobalNetworkPolicy,
        "NetworkPolicy" => PolicyKind::NetworkPolicy,
        "StagedGlobalNetworkPolicy" => PolicyKind::StagedGlobalNetworkPolicy,
        "StagedNetworkPolicy" => PolicyKind::StagedNetworkPolicy,
        other => panic!("a policy of kind {other}"),
    };
    let types = texts(value, "Types");
    let applies_to =
        |wanted: &str| types.is_empty() || types.iter().any(|one| one.eq_ignore_ascii_case(wanted));
    NetworkPolicy {
        tier: some_text(value, "Tier").unwrap_or_else(|| Tier::DEFAULT.to_owned()),
        order: order(value),
        selector: text(value, "Selector"),
        applies_to_ingress: applies_to("ingress"),
        applies_to_egress: applies_to("egress"),
        ingress: list(value, "InboundRules", rule),
        egress: list(value, "OutboundRules", rule),
        do_not_track: flag(value, "DoNotTrack"),
        pre_dnat: flag(value, "PreDNAT"),
        apply_on_forward: flag(value, "ApplyOnForward"),
        needed_everywhere: !texts(value, "PerformanceHints").is_empty(),
        ..NetworkPolicy::empty(PolicyKey { kind, namespace, name: text(key, "Name") })
    }
}

type State = BTreeMap<Key, Arc<Resource>>;

/// What the rows' datastore holds of what policy is made of.
fn state(row: &Value) -> State {
    let mut state = State::new();
    let mut put = |resource: Resource| drop(state.insert(resource.key(), Arc::new(resource)));
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    for pair in row["datastore"].as_array().expect("a list") {
        let (key, value) = (&pair["Key"], &pair["Value"]);
        match text(key, "_type").as_str() {
            "TierKey" => put(Resource::Tier(Tier {
                name: text(key, "Name"),
                order: order(value),
                default_action: if text(value, "DefaultAction") == "Pass" {
                    TierDefault::Pass
                } else {
                    TierDefault::Deny
                },
            })),
            "PolicyKey" => put(Resource::NetworkPolicy(policy(key, value))),
            "WorkloadEndpointKey" => put(Resource::WorkloadEndpoint(WorkloadEndpoint {
                namespace: text(key, "OrchestratorID"),
                name: format!("{}/{}", text(key, "WorkloadID"), text(key, "EndpointID")),
                labels: labels(value, "Labels"),
                node: text(key, "Hostname"),
                ip_networks: [nets(value, "IPv4Nets"), nets(value, "IPv6Nets")].concat(),
                profiles: texts(value, "ProfileIDs"),
                ports: endpoint_ports(value, "Ports"),
                ..WorkloadEndpoint::default()
            })),
            "HostEndpointKey" => put(Resource::HostEndpoint(HostEndpoint {
                name: text(key, "EndpointID"),
                labels: labels(value, "Labels"),
                node: text(key, "Hostname"),
                interface: some_text(value, "Name")
                    .map_or(HostInterface::WithExpectedIp, HostInterface::Named),
                expected_ips: [texts(value, "ExpectedIPv4Addrs"), texts(value, "ExpectedIPv6Addrs")]
                    .concat()
                    .iter()
                    .map(|addr| addr.parse().expect("an address"))
                    .collect(),
                profiles: texts(value, "ProfileIDs"),
                ports: endpoint_ports(value, "Ports"),
                dscp: None,
            })),
            "NetworkSetKey" => put(Resource::NetworkSet(NetworkSet {
                namespace: texts(value, "ProfileIDs")
                    .first()
                    .and_then(|kns| Some(kns.strip_prefix("kns.")?.to_owned())),
                name: text(key, "Name"),
                labels: labels(value, "Labels"),
                nets: nets(value, "Nets"),
            })),
            "ProfileRulesKey" => {
                let profile = profiles.entry(text(&key["ProfileKey"], "Name")).or_default();
                profile.ingress = list(value, "InboundRules", rule);
                profile.egress = list(value, "OutboundRules", rule);
            }
            "ResourceKey" if text(key, "Kind") == "Profile" => {
                profiles.entry(text(key, "Name")).or_default().labels_to_apply =
                    labels(&value["Spec"], "LabelsToApply");
            }
            _ => {}
        }
    }
    for (name, profile) in profiles {
        put(Resource::Profile(Profile { name, ..profile }));
    }
    state
}

/// The set that a row calls so; `None` of those that aren't made of selectors.
fn set_named(name: &str) -> Option<SetSpec> {
    let selector = |text: &str| text.parse::<Selector>().expect("a selector");
    if let Some(text) = name.strip_prefix("sel:") {
        return Some(SetSpec { selector: selector(text), named_port: None });
    }
    let (protocol, rest) = name.strip_prefix("namedport:")?.split_once(',').expect("protocol,port");
    let (port, text) = rest.split_once(':').expect("port:selector");
    let named_port = Some((protocol.parse().expect("a protocol"), port.to_owned()));
    Some(SetSpec { selector: selector(text), named_port })
}

fn member(text: &str) -> Member {
    match text.split_once(',') {
        None => Member::Net(text.parse().expect("a network")),
        Some((addr, port)) => {
            let (protocol, port) = port.split_once(':').expect("protocol:port");
            let protocol: Protocol = protocol.parse().expect("a protocol");
            Member::Port {
                net: addr.parse().expect("an address"),
                protocol: protocol.0,
                port: port.parse().expect("a port"),
            }
        }
    }
}

fn members(of: &Value) -> BTreeSet<Member> {
    of.as_array().expect("a list").iter().map(|one| member(one.as_str().expect("a text"))).collect()
}

/// Tiers and their policies by name, as asked in one direction.
type Names = Vec<(String, Vec<String>)>;

fn names(checks: &Option<Arc<Checks>>) -> Names {
    let tiers = checks.iter().flat_map(|checks| &checks.tiers);
    tiers
        .map(|tier| (tier.name.clone(), tier.policies.iter().map(|policy| policy.name.clone()).collect()))
        .collect()
}

fn expected_names(tiers: &Value, direction: &str) -> Names {
    let of_tier = |tier: &Value| (text(tier, "Name"), list(tier, direction, policy_name));
    let tiers = tiers.as_array().map(|tiers| tiers.iter().map(of_tier).collect()).unwrap_or_default();
    let tiers: Names = tiers;
    tiers.into_iter().filter(|(_, policies)| !policies.is_empty()).collect()
}

fn policy_name(id: &Value) -> String {
    match some_text(id, "Namespace") {
        Some(namespace) => format!("{namespace}/{}", text(id, "Name")),
        None => text(id, "Name"),
    }
}

/// Is what a dataplane has what the row says? Sets of services and of Istio aren't Calico's own to fill.
fn check(row: &Value, resolver: &Resolver, dataplane: &Dataplane, how: &str) {
    let name = format!("{} ({}), {how}", text(row, "name"), text(row, "var"));
    let expected: BTreeMap<SetSpec, BTreeSet<Member>> =
        (row["ipsets"].as_object().expect("a mapping").iter())
            .filter_map(|(name, set)| Some((set_named(name)?, members(set))))
            .collect();
    assert_eq!(dataplane.sets(), expected, "sets of {name}");

    let expected = row["endpoints"].as_object().expect("a mapping");
    let ids: Vec<String> = dataplane.endpoints.keys().map(endpoint_id).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>(), expected.keys().collect(), "endpoints of {name}");
    let mut profiles: BTreeSet<String> = BTreeSet::new();
    for (key, policy) in &dataplane.endpoints {
        let endpoint = &expected[&endpoint_id(key)];
        let empty = Directions::default();
        let pre_dnat = Directions { ingress: policy.pre_dnat.clone(), egress: None };
        let forward = if endpoint.get("forward").is_some() { &policy.forward } else { &empty };
        for (field, both) in [
            ("tiers", &policy.normal),
            ("untracked", &policy.untracked),
            ("prednat", &pre_dnat),
            ("forward", forward),
        ] {
            let of = |direction| expected_names(&endpoint[field], direction);
            assert_eq!(names(&both.ingress), of("IngressPolicies"), "{field} of {key} in {name}");
            assert_eq!(names(&both.egress), of("EgressPolicies"), "{field} of {key} in {name}");
        }
        for checks in all_checks(policy) {
            if let AfterTiers::Profiles(named) = &checks.after {
                profiles.extend(named.iter().map(|profile| profile.name.clone()));
            }
        }
    }
    let in_force: BTreeSet<String> = resolver
        .in_force()
        .map(|key| match &key.namespace {
            Some(namespace) => format!("{namespace}/{}", key.name),
            None => key.name.clone(),
        })
        .collect();
    assert_eq!(in_force, list(row, "policies", policy_name).into_iter().collect(), "policies of {name}");
    assert_eq!(profiles, list(row, "profiles", policy_name).into_iter().collect(), "profiles of {name}");
}

fn endpoint_id(key: &Key) -> String {
    match key {
        Key::WorkloadEndpoint(namespace, name) => format!("{namespace}/{name}"),
        Key::HostEndpoint(name) => name.clone(),
        other => panic!("{other} is no endpoint"),
    }
}

/// The updates that lead from one state to another.
fn updates(from: &State, to: &State) -> Vec<Update> {
    let removed = from.keys().filter(|key| !to.contains_key(key)).map(|key| Update::Remove(key.clone()));
    let put = to.iter().filter(|(key, resource)| from.get(key) != Some(resource));
    removed.chain(put.map(|(_, resource)| Update::Put(resource.clone()))).collect()
}

#[test]
fn every_state_comes_to_what_felix_makes_of_it() {
    let rows = rows("calc_states.jsonl");
    for row in &rows {
        let state = state(row);
        let forwards = updates(&State::new(), &state);
        let backwards: Vec<Update> = forwards.iter().rev().cloned().collect();
        for (how, updates) in [("forwards", forwards), ("backwards", backwards)] {
            let (mut resolver, mut dataplane) = (Resolver::new(NODE), Dataplane::default());
            updates.iter().for_each(|update| resolver.apply(update));
            assert!(resolver.changes().is_empty(), "nothing is told before the datastore is in sync");
            resolver.apply(&Update::InSync);
            dataplane.apply(resolver.changes());
            check(row, &resolver, &dataplane, how);
            assert!(resolver.changes().is_empty());
        }
    }
    println!("{} states, forwards and backwards", rows.len());
}

#[test]
fn what_a_sequence_of_states_comes_to_depends_on_the_last_alone() {
    let states: BTreeMap<String, Value> =
        rows("calc_states.jsonl").into_iter().map(|row| (text(&row, "var"), row)).collect();
    let rows = rows("calc_sequences.jsonl");
    let mut walks = 0;
    let mut all_ways = |sequence: &[&Value], what: &str| {
        let there = sequence.to_vec();
        let back: Vec<&Value> = there.iter().rev().copied().collect();
        let nothing = &states["empty"];
        let between: Vec<&Value> =
            there.iter().flat_map(|state| [*state, nothing]).chain([nothing]).collect();
        for (how, path) in [("as it is", there), ("reversed", back), ("with empty states between", between)] {
            for told in [Told::EachUpdate, Told::EachState, Told::AtTheEnd] {
                walk(&path, told, &format!("{what} {how}, told {told:?}"));
                walks += 1;
            }
        }
    };
    for row in &rows {
        let sequence: Vec<&Value> = texts(row, "states").iter().map(|var| &states[var]).collect();
        if !sequence.is_empty() {
            all_ways(&sequence, &row["states"].to_string());
        }
    }
    // And all states in a row, whichever the file holds.
    let all: Vec<&Value> = states.values().collect();
    if !all.is_empty() {
        all_ways(&all, "all states");
    }
    for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (*one, *other))) {
        walk(&[one, other], Told::EachUpdate, "a pair of states");
        walks += 1;
    }
    println!("{} sequences and all pairs of {} states: {walks} walks", rows.len(), states.len());
}

/// When changes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    EachUpdate,
    EachState,
    AtTheEnd,
}

/// Walks through states; what was told then is what is expected of the state.
fn walk(path: &[&Value], told: Told, how: &str) {
    let (mut resolver, mut dataplane) = (Resolver::new(NODE), Dataplane::default());
    resolver.apply(&Update::InSync);
    let mut before = State::new();
    for (number, row) in path.iter().enumerate() {
        let next = state(row);
        for update in updates(&before, &next) {
            resolver.apply(&update);
            if told == Told::EachUpdate {
                dataplane.apply(resolver.changes());
            }
        }
        before = next;
        if told != Told::AtTheEnd || number == path.len() - 1 {
            dataplane.apply(resolver.changes());
            check(row, &resolver, &dataplane, how);
        }
    }
}

#[test]
fn selectors_are_composed_as_calico_composes_them() {
    let (mut held, mut refused) = (0, Vec::new());
    for row in rows("selectors.jsonl") {
        let namespace = some_text(&row, "namespace");
        let composed = match text(&row, "kind").as_str() {
            "compose_policy" => {
                let kind = if namespace.is_some() {
                    PolicyKind::NetworkPolicy
                } else {
                    PolicyKind::GlobalNetworkPolicy
                };
                let policy = NetworkPolicy {
                    selector: text(&row, "selector"),
                    namespace_selector: some_text(&row, "namespace_selector"),
                    service_account_selector: some_text(&row, "service_account_selector"),
                    ..NetworkPolicy::empty(PolicyKey { kind, namespace, name: "p".to_owned() })
                };
                compose::of_policy(&policy).map(|composed| Some(composed.selector))
            }
            "compose_entity_rule" => {
                let accounts = &row["service_accounts"];
                let end = EntityRule {
                    selector: some_text(&row, "selector"),
                    not_selector: some_text(&row, "not_selector"),
                    namespace_selector: some_text(&row, "namespace_selector"),
                    service_accounts: accounts.is_object().then(|| ServiceAccountMatch {
                        names: texts(accounts, "names"),
                        selector: some_text(accounts, "selector"),
                    }),
                    ..EntityRule::default()
                };
                compose::of_end(&end, namespace.as_deref()).map(|composed| composed.selector)
            }
            _ => continue,
        };
        match composed {
            Ok(selector) => {
                let expected: Option<Selector> =
                    some_text(&row, "expect").map(|text| text.parse().expect("a selector"));
                assert_eq!(selector, expected, "{row}");
                held += 1;
            }
            Err(_) => {
                // Calico composes text before it reads it; what can't be read then is refused later.
                assert!(text(&row, "expect").parse::<Selector>().is_err(), "{row}");
                refused.push(text(&row, "id"));
            }
        }
    }
    println!("held: {held}; refused where Calico refuses later: {refused:?}");
}

#[test]
fn sets_hold_whom_their_selectors_match() {
    let mut held = 0;
    for row in rows("selectors.jsonl").iter().filter(|row| text(row, "kind") == "ipset_members") {
        let mut resolver = Resolver::new(NODE);
        let mut put = |resource: Resource| resolver.apply(&Update::Put(Arc::new(resource)));
        for (name, endpoint) in row["endpoints"].as_object().expect("a mapping") {
            put(Resource::WorkloadEndpoint(WorkloadEndpoint {
                name: name.clone(),
                labels: labels(endpoint, "labels"),
                ip_networks: nets(endpoint, "cidrs"),
                profiles: texts(endpoint, "parents"),
                ports: endpoint_ports(endpoint, "ports"),
                ..WorkloadEndpoint::default()
            }));
        }
        for name in row["parents"].as_object().expect("a mapping").keys() {
            let labels_to_apply = labels(&row["parents"], name);
            put(Resource::Profile(Profile { name: name.clone(), labels_to_apply, ..Profile::default() }));
        }
        // A rule for each set of the row, in a policy about an endpoint of this node that gives no address.
        put(Resource::WorkloadEndpoint(WorkloadEndpoint {
            node: NODE.to_owned(),
            ..WorkloadEndpoint::default()
        }));
        let sets = row["ip_sets"].as_object().expect("a mapping");
        let ask = |set: &Value| PolicyRule {
            protocol: protocol(set, "protocol"),
            source: EntityRule {
                selector: some_text(set, "selector"),
                ports: some_text(set, "named_port").into_iter().map(PortMatch::Named).collect(),
                ..EntityRule::default()
            },
            ..PolicyRule::any(Action::Allow)
        };
        let key = PolicyKey { kind: PolicyKind::GlobalNetworkPolicy, namespace: None, name: "p".to_owned() };
        let ingress = sets.values().map(ask).collect();
        put(Resource::NetworkPolicy(NetworkPolicy { ingress, ..NetworkPolicy::empty(key) }));
        resolver.apply(&Update::InSync);
        let mut dataplane = Dataplane::default();
        dataplane.apply(resolver.changes());
        let expected: BTreeMap<SetSpec, BTreeSet<Member>> = (sets.values())
            .map(|set| {
                let named_port = some_text(set, "named_port").zip(protocol(set, "protocol"));
                let named_port = named_port.map(|(name, protocol)| (protocol, name));
                let selector = text(set, "selector").parse().expect("a selector");
                (SetSpec { selector, named_port }, members(&set["members"]))
            })
            .collect();
        assert_eq!(dataplane.sets(), expected, "{row}");
        held += sets.len();
    }
    println!("held: {held} sets");
}
