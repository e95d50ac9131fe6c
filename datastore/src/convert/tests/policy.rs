//! Policies, profiles, network sets and endpoints.

use model::{
    Action, EndpointPort, EntityRule, Family, HostEndpoint, HostInterface, IcmpMatch, NetworkPolicy,
    NetworkSet, Order, PolicyKey, PolicyKind, PolicyRule, PortMatch, PortRange, Profile, ServiceAccountMatch,
    ServiceMatch, StagedAction, Tier, TierDefault,
};

use super::*;

#[track_caller]
fn policy(kind: &str, spec: &str) -> NetworkPolicy {
    match resource(&document(kind, "web", spec)) {
        Resource::NetworkPolicy(policy) => policy,
        other => panic!("{other:?}"),
    }
}

fn key(kind: PolicyKind) -> PolicyKey {
    let namespace = kind.is_namespaced().then(|| "default".to_owned());
    PolicyKey { kind, namespace, name: "web".to_owned() }
}

fn order(number: f64) -> Order {
    Order::new(number).unwrap()
}

fn prefixes(texts: &[&str]) -> Vec<model::Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ports(first: u16, last: u16) -> PortMatch {
    PortMatch::Numbers(PortRange { first, last })
}

#[test]
fn a_global_policy_is_read_whole() {
    let spec = "{tier: admin, order: 10.5, selector: role == 'db', namespaceSelector: has(x), \
                serviceAccountSelector: all(), applyOnForward: true, doNotTrack: true, types: [Egress, Ingress], \
                performanceHints: [AssumeNeededOnEveryNode], ingress: [{action: Log}]}";
    let expected = NetworkPolicy {
        tier: "admin".to_owned(),
        order: order(10.5),
        selector: "role == 'db'".to_owned(),
        namespace_selector: Some("has(x)".to_owned()),
        service_account_selector: Some("all()".to_owned()),
        applies_to_ingress: true,
        applies_to_egress: true,
        ingress: vec![PolicyRule::any(Action::Log)],
        do_not_track: true,
        apply_on_forward: true,
        needed_everywhere: true,
        ..NetworkPolicy::empty(key(PolicyKind::GlobalNetworkPolicy))
    };
    assert_eq!(policy("GlobalNetworkPolicy", spec), expected);
}

#[test]
fn a_rule_is_read_whole() {
    let rule = "{action: Deny, ipVersion: 4, protocol: TCP, notProtocol: 17, notICMP: {type: 8, code: 0}, \
                source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16], selector: ' ', notSelector: has(a), \
                namespaceSelector: ' global() ', serviceAccounts: {names: [a, b], selector: has(c)}}, \
                destination: {ports: [80, '443', '1:65535', http], notPorts: [22]}}";
    let policy = policy("NetworkPolicy", &format!("{{ingress: [{rule}]}}"));
    let expected = PolicyRule {
        action: Action::Deny,
        family: Some(Family::V4),
        protocol: Some(Protocol::TCP),
        not_protocol: Some(Protocol::UDP),
        icmp: None,
        not_icmp: Some(IcmpMatch { icmp_type: 8, code: Some(0) }),
        source: EntityRule {
            nets: prefixes(&["10.0.0.0/8"]),
            not_nets: prefixes(&["10.1.0.0/16"]),
            selector: Some(" ".to_owned()),
            not_selector: Some("has(a)".to_owned()),
            namespace_selector: Some(" global() ".to_owned()),
            service_accounts: Some(ServiceAccountMatch {
                names: vec!["a".to_owned(), "b".to_owned()],
                selector: Some("has(c)".to_owned()),
            }),
            ..EntityRule::default()
        },
        destination: EntityRule {
            ports: vec![ports(80, 80), ports(443, 443), ports(1, 65535), PortMatch::Named("http".to_owned())],
            not_ports: vec![ports(22, 22)],
            ..EntityRule::default()
        },
        http: false,
    };
    assert_eq!(policy.ingress, [expected]);
    assert_eq!(policy.key, key(PolicyKind::NetworkPolicy));
}

#[test]
fn a_policy_is_about_the_directions_it_has_rules_for_and_else_about_ingress() {
    for (spec, expected) in [
        ("{}", (true, false)),
        ("{ingress: [], egress: []}", (true, false)),
        ("{ingress: [{action: Allow}]}", (true, false)),
        ("{egress: [{action: Allow}]}", (false, true)),
        ("{ingress: [{action: Allow}], egress: [{action: Allow}]}", (true, true)),
        ("{egress: [{action: Allow}], types: []}", (false, true)),
        ("{egress: [{action: Allow}], types: [Ingress]}", (true, false)),
        ("{types: [Egress]}", (false, true)),
    ] {
        let policy = policy("NetworkPolicy", spec);
        assert_eq!((policy.applies_to_ingress, policy.applies_to_egress), expected, "{spec}");
        assert_eq!((policy.tier.as_str(), policy.order), ("default", Order::LAST), "{spec}");
    }
}

#[test]
fn a_staged_policy_says_what_it_would_do() {
    let action = |spec: &str| policy("StagedGlobalNetworkPolicy", spec).staged_action;
    assert_eq!(action("{}"), Some(StagedAction::Set));
    assert_eq!(action("{stagedAction: Learn}"), Some(StagedAction::Learn));
    assert_eq!(action("{stagedAction: Delete, tier: a, order: null, types: []}"), Some(StagedAction::Delete));
    assert_eq!(policy("NetworkPolicy", "{}").staged_action, None);
    assert_eq!(
        problem("StagedNetworkPolicy", "{stagedAction: Delete, order: 1}"),
        "spec.order: has no place in a staged policy whose stagedAction is Delete"
    );
}

#[test]
fn a_policy_in_kubernetes_words_is_translated_as_calico_does() {
    let spec = "{podSelector: {matchLabels: {role: db}, matchExpressions: [{key: a, operator: In, values: [x, y]}, \
                {key: b, operator: DoesNotExist}]}, policyTypes: [Ingress, Egress], \
                ingress: [{from: [{podSelector: {matchLabels: {r: f}}, namespaceSelector: {}}, \
                {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], \
                ports: [{port: 6379}, {port: 80, endPort: 90, protocol: UDP}, {port: web}]}], egress: [{}]}";
    let policy = policy("StagedKubernetesNetworkPolicy", spec);
    assert_eq!(
        policy.selector,
        "projectcalico.org/orchestrator == 'k8s' && role == 'db' && a in { 'x', 'y' } && ! has(b)"
    );
    assert_eq!(
        (policy.order, policy.applies_to_ingress, policy.applies_to_egress),
        (order(1000.0), true, true)
    );
    let pods = EntityRule {
        selector: Some("projectcalico.org/orchestrator == 'k8s' && r == 'f'".to_owned()),
        namespace_selector: Some("all()".to_owned()),
        ..EntityRule::default()
    };
    let block = EntityRule {
        nets: prefixes(&["10.0.0.0/8"]),
        not_nets: prefixes(&["10.1.0.0/16"]),
        ..EntityRule::default()
    };
    let tcp = vec![ports(6379, 6379), PortMatch::Named("web".to_owned())];
    let rule = |protocol, source: &EntityRule, ports: &Vec<PortMatch>| PolicyRule {
        protocol: Some(protocol),
        source: source.clone(),
        destination: EntityRule { ports: ports.clone(), ..EntityRule::default() },
        ..PolicyRule::any(Action::Allow)
    };
    let udp = vec![ports(80, 90)];
    assert_eq!(
        policy.ingress,
        [
            rule(Protocol::TCP, &pods, &tcp),
            rule(Protocol::TCP, &block, &tcp),
            rule(Protocol::UDP, &pods, &udp),
            rule(Protocol::UDP, &block, &udp),
        ]
    );
    assert_eq!(policy.egress, [PolicyRule::any(Action::Allow)]);
}

#[test]
fn what_pods_are_called_cannot_escape_its_quotes() {
    assert!(
        problem("StagedKubernetesNetworkPolicy", "{podSelector: {matchLabels: {a: \"x' || all()\"}}}")
            .starts_with("spec.podSelector.matchLabels.a: \"x' || all()\" can't be a label's value")
    );
}

#[test]
fn a_rule_that_no_packet_filter_can_follow_is_read_and_told() {
    let text = document("NetworkPolicy", "web", "{ingress: [{action: Allow, http: {methods: [GET]}}]}");
    let manifest = parse(&text).unwrap();
    assert_eq!(
        manifest.ignored[0].to_string(),
        "f.yaml:4:40: NetworkPolicy(web): spec.ingress[0].http: not used by this version"
    );
    let Resource::NetworkPolicy(policy) = &*manifest.entries[0].resource else { panic!() };
    assert!(policy.ingress[0].http);
}

#[test]
fn a_policy_is_refused_where_calico_refuses_it_and_the_field_is_named() {
    let rule = |rule: &str| format!("{{egress: [{{action: Allow, {rule}}}]}}");
    for (spec, expected) in [
        ("{selector: 'a ='}".to_owned(), "spec.selector: not a selector: at character 3: expected"),
        ("{selector: global()}".to_owned(), "spec.selector: global() can stand in"),
        (format!("{{selector: \"{}\"}}", "a".repeat(1025)), "spec.selector: too long: 1025 characters"),
        ("{order: low}".to_owned(), "spec.order: expected a number, found a text"),
        ("{types: [Ingress, Ingress]}".to_owned(), "spec.types[1]: \"Ingress\" stands twice"),
        ("{types: [ingress]}".to_owned(), "spec.types[0]: \"ingress\" is none of Ingress, Egress"),
        ("{preDNAT: true}".to_owned(), "spec.preDNAT: needs spec.applyOnForward: true"),
        (
            "{preDNAT: true, applyOnForward: true, egress: [{action: Deny}]}".to_owned(),
            "spec.egress: has no place in a policy with preDNAT",
        ),
        (
            "{preDNAT: true, applyOnForward: true, types: [Egress]}".to_owned(),
            "spec.types: has no place in a policy with preDNAT",
        ),
        ("{ingress: [{}]}".to_owned(), "spec.ingress[0].action: is required"),
        ("{ingress: [{action: allow}]}".to_owned(), "spec.ingress[0].action: \"allow\" is none of Allow"),
        (rule("protocol: tcp"), "spec.egress[0].protocol: \"tcp\" is not a protocol"),
        (rule("protocol: '0'"), "spec.egress[0].protocol: \"0\" is not a protocol"),
        (rule("protocol: 256"), "spec.egress[0].protocol: 256 is out of range"),
        (rule("icmp: {type: 8}"), "spec.egress[0].icmp: needs protocol ICMP or ICMPv6"),
        (rule("protocol: ICMP, icmp: {code: 8}"), "spec.egress[0].icmp.code: needs a type"),
        (rule("ipVersion: 6, notProtocol: 1"), "spec.egress[0].ipVersion: ICMP needs ipVersion 4"),
        (rule("ipVersion: 5"), "spec.egress[0].ipVersion: 5 is out of range"),
        (rule("destination: {ports: [80]}"), "spec.egress[0].destination.ports[0]: ports by number need"),
        (rule("protocol: 47, source: {notPorts: [a]}"), "spec.egress[0].source.notPorts[0]: ports by number"),
        (
            rule("protocol: TCP, source: {ports: ['2:1']}"),
            "spec.egress[0].source.ports[0]: \"2:1\" is not a port",
        ),
        (rule("protocol: TCP, source: {ports: [0]}"), "spec.egress[0].source.ports[0]: 0 is out of range"),
        (
            rule("source: {nets: [10.0.0.1/8]}"),
            "spec.egress[0].source.nets[0]: 10.0.0.1/8 must be strictly masked",
        ),
        (
            rule("source: {nets: [10.0.0.1]}"),
            "spec.egress[0].source.nets[0]: 10.0.0.1 must be strictly masked: write",
        ),
        (rule("source: {notNets: ['::/0']}"), "spec.egress[0].source.notNets[0]: ::/0 is everything"),
        (
            rule("source: {nets: [10.0.0.0/8]}, destination: {notNets: ['fd00::/8']}"),
            "spec.egress[0].destination.notNets: a rule's networks must be of one family",
        ),
        (rule("source: {selector: a ==}"), "spec.egress[0].source.selector: not a selector: at character 5"),
        (
            rule("source: {namespaceSelector: global() || all()}"),
            "spec.egress[0].source.namespaceSelector: global() can stand in",
        ),
        (
            rule("source: {services: {name: a, namespace: b}}"),
            "spec.egress[0].source.services: has no place in the source",
        ),
        (
            rule("destination: {services: {name: a}}"),
            "spec.egress[0].destination.services: needs a namespace",
        ),
        (
            rule("destination: {services: {name: a, namespace: b}, serviceAccounts: {}}"),
            "spec.egress[0].destination.serviceAccounts: can't be set together with services",
        ),
        (rule("http: {}"), "spec.egress[0].http: has no place in egress"),
    ] {
        let problem = problem("GlobalNetworkPolicy", &spec);
        assert!(problem.starts_with(expected), "{spec}: {problem}");
    }
}

#[test]
fn a_service_is_asked_for_at_the_far_end_and_told_to_be_unknown() {
    let spec = "{ingress: [{action: Allow, source: {services: {name: a}}}]}";
    let manifest = parse(&document("NetworkPolicy", "web", spec)).unwrap();
    assert_eq!(manifest.ignored[0].field.as_deref(), Some("spec.ingress[0].source.services"));
    let service = ServiceMatch { name: "a".to_owned(), namespace: None };
    assert_eq!(policy("NetworkPolicy", spec).ingress[0].source.service, Some(service));
}

#[test]
fn names_are_refused_that_calico_refuses() {
    for (kind, name, good) in [
        ("NetworkPolicy", "knp.default.a.b", true),
        ("NetworkPolicy", "ossg.default.SG-1", true),
        ("GlobalNetworkPolicy", "knp.default.a", false),
        ("GlobalNetworkPolicy", "tier.web", true),
        ("NetworkPolicy", "Web", false),
        ("Tier", "a.b", false),
        ("GlobalNetworkSet", "a$b", false),
        ("Profile", "kns.my-space", true),
    ] {
        assert_eq!(parse(&document(kind, name, "{}")).is_ok(), good, "{kind} {name}");
    }
}

#[test]
fn the_standard_tiers_may_be_written_down_as_they_are() {
    let tier = |name: &str, spec: &str| parse(&document("Tier", name, spec)).map(|manifest| manifest.entries);
    assert!(tier("kube-admin", "{order: 1000, defaultAction: Pass}").is_ok());
    assert_eq!(
        tier("default", "{order: 1000000, defaultAction: Pass}").unwrap_err(),
        ["f.yaml:4:39: Tier(default): spec.defaultAction: the tier default always has order 1000000 and \
          defaultAction Deny"]
    );
    let admin = Tier { name: "admin".to_owned(), order: order(7.0), default_action: TierDefault::Deny };
    // As Go's decoder takes names of fields in any case, so do we.
    assert_eq!(resource(&document("Tier", "admin", "{Order: 7}")), Resource::Tier(admin));
}

#[test]
fn profiles_and_sets_of_networks_are_read_whole() {
    let spec = "{labelsToApply: {a: b}, ingress: [{action: Deny}], egress: [{action: Allow}]}";
    let profile = Profile {
        name: "p".to_owned(),
        labels_to_apply: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ingress: vec![PolicyRule::any(Action::Deny)],
        egress: vec![PolicyRule::any(Action::Allow)],
    };
    assert_eq!(resource(&document("Profile", "p", spec)), Resource::Profile(profile));

    let nets = "{nets: [10.0.0.1, 11.0.0.1/8, 'dead:beef::/96']}";
    let set = NetworkSet {
        namespace: None,
        name: "s".to_owned(),
        labels: BTreeMap::new(),
        nets: prefixes(&["10.0.0.1/32", "11.0.0.0/8", "dead:beef::/96"]),
    };
    assert_eq!(resource(&document("GlobalNetworkSet", "s", nets)), Resource::NetworkSet(set.clone()));
    let labels = BTreeMap::from([("projectcalico.org/namespace".to_owned(), "default".to_owned())]);
    let set = NetworkSet { namespace: Some("default".to_owned()), labels, ..set };
    assert_eq!(resource(&document("NetworkSet", "s", nets)), Resource::NetworkSet(set));
}

#[test]
fn a_host_endpoint_is_read_whole() {
    let spec = "{node: n, interfaceName: '*', expectedIPs: [10.0.0.1, 'fd00::1'], profiles: [p], \
                ports: [{name: ssh, protocol: TCP, port: 22}]}";
    let text = document("HostEndpoint", "h", spec)
        .replace("{name: h}", "{name: h, labels: {a: b}, annotations: {qos.projectcalico.org/dscp: EF}}");
    let expected = HostEndpoint {
        name: "h".to_owned(),
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        node: "n".to_owned(),
        interface: HostInterface::All,
        expected_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        profiles: vec!["p".to_owned()],
        ports: vec![EndpointPort { name: "ssh".to_owned(), protocol: Protocol::TCP, port: 22 }],
        dscp: Some(46),
    };
    assert_eq!(resource(&text), Resource::HostEndpoint(expected));
    assert_eq!(problem("HostEndpoint", "{node: n}"), "spec: needs interfaceName or expectedIPs");
}

#[test]
fn an_endpoint_has_the_labels_that_calico_gives_and_none_that_only_profiles_give() {
    let spec = "{node: n, interfaceName: cali1, ipNetworks: [10.1.3.66], orchestrator: k8s, serviceAccountName: sa, \
                ports: [{name: http, protocol: TCP, port: 80}, {protocol: UDP, port: 53, hostPort: 53}]}";
    let text = document("WorkloadEndpoint", "w", spec).replace(
        "{name: w}",
        "{name: w, namespace: shop, labels: {a: b, pcns.c: d, projectcalico.org/namespace: x}}",
    );
    let Resource::WorkloadEndpoint(endpoint) = resource(&text) else { panic!() };
    let labels: Vec<_> = endpoint.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        labels,
        [
            "a=b",
            "projectcalico.org/namespace=shop",
            "projectcalico.org/orchestrator=k8s",
            "projectcalico.org/serviceaccount=sa"
        ]
    );
    assert_eq!(endpoint.ports, [EndpointPort { name: "http".to_owned(), protocol: Protocol::TCP, port: 80 }]);
}

#[test]
fn an_endpoint_without_a_name_is_called_after_its_fields() {
    let text = document(
        "WorkloadEndpoint",
        "w",
        "{node: rack-1, interfaceName: cali1, ipNetworks: [10.1.3.66], orchestrator: k8s, pod: web-0, endpoint: eth0}",
    );
    let Resource::WorkloadEndpoint(endpoint) = resource(&text.replace("{name: w}", "{}")) else { panic!() };
    assert_eq!(endpoint.name, "rack--1-k8s-web--0-eth0");
}

#[test]
fn labels_and_annotations_are_held_to_kubernetes_rules() {
    let labelled = |metadata: &str| {
        let text = document("Profile", "p", "{}").replace("{name: p}", &format!("{{name: p, {metadata}}}"));
        parse(&text).map(|_| ()).map_err(|problems| problems[0].clone())
    };
    assert_eq!(
        labelled("labels: {a: '', projectcalico.org/b: c}, annotations: {Big.org/x: 'any thing'}"),
        Ok(())
    );
    for (metadata, field) in [
        ("labels: {'a b': c}", "metadata.labels.a b: \"a b\" can't name"),
        ("labels: {a: 'b c'}", "metadata.labels.a: \"b c\" can't be a label's value"),
        ("labels: {a: [1]}", "metadata.labels.a: expected a text"),
        ("annotations: {'...': x}", "metadata.annotations....: \"...\" can't name"),
    ] {
        let problem = labelled(metadata).unwrap_err();
        assert!(problem.contains(field), "{metadata}: {problem}");
    }
}
