//! Calico's rules for the fields of each kind, case by case: our own, where `validation.jsonl` has none.

use std::fs;

use datastore::Source;
use serde_json::{Value, json};

/// What is wrong with a resource, as who writes it is told.
fn problems(resource: &Value) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("case.json");
    fs::write(&file, resource.to_string()).unwrap();
    datastore::read(vec![Source::Path(file)])
        .problems
        .iter()
        .map(|problem| problem.reason.to_string())
        .collect()
}

fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Holds specs of a kind to their verdicts, each under the name that the kind's resources commonly have.
fn check(kind: &str, good: &[Value], bad: &[Value]) {
    let name = if kind == "Tier" { "t" } else { "default" };
    let mut wrong = Vec::new();
    for (specs, is_good) in [(good, true), (bad, false)] {
        for spec in specs {
            let problems = problems(&resource(kind, name, spec));
            if problems.is_empty() != is_good {
                wrong.push(format!("{spec}: {problems:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{kind}: {} are judged otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

/// The same of single rules, in every place where one may stand.
fn check_rules(good: &[Value], bad: &[Value]) {
    let of = |rules: &[Value], direction: &str| -> Vec<Value> {
        rules.iter().map(|rule| json!({direction: [rule]})).collect()
    };
    for kind in [
        "GlobalNetworkPolicy",
        "NetworkPolicy",
        "StagedGlobalNetworkPolicy",
        "StagedNetworkPolicy",
        "Profile",
    ] {
        for direction in ["ingress", "egress"] {
            check(kind, &of(good, direction), &of(bad, direction));
        }
    }
}

fn rule(more: &Value) -> Value {
    let mut rule = json!({"action": "Allow"});
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rule
}

#[test]
fn pools() {
    let pool = |more: Value| {
        let mut spec = json!({"cidr": "10.0.0.0/16"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    check(
        "IPPool",
        &[
            pool(json!({"blockSize": 20})),
            pool(json!({"blockSize": 32})),
            pool(json!({"blockSize": 0})),
            pool(json!({"cidr": "10.0.0.0/26", "blockSize": 26})),
            pool(json!({"cidr": "10.0.0.1/32", "disabled": true})),
            pool(json!({"cidr": "fd00::/64", "blockSize": 116, "vxlanMode": "Always"})),
            pool(json!({"cidr": "fd00::/64", "blockSize": 128, "ipipMode": "Never"})),
            pool(json!({"cidr": "fd00::/122"})),
            pool(json!({"ipipMode": "CrossSubnet", "vxlanMode": "Never"})),
            pool(json!({"allowedUses": ["LoadBalancer"], "nodeSelector": "all()"})),
            pool(json!({"allowedUses": ["Workload"], "namespaceSelector": "has(team)"})),
            pool(json!({"assignmentMode": "Manual", "natOutgoing": true, "disableBGPExport": true})),
            // Beside the link-local range.
            pool(json!({"cidr": "169.253.0.0/16"})),
            pool(json!({"cidr": "fec0::/64"})),
        ],
        &[
            json!({}),
            pool(json!({"cidr": ""})),
            pool(json!({"cidr": "10.0.0.1/16"})),
            pool(json!({"cidr": "10.0.0.0"})),
            pool(json!({"cidr": "10.0.0.0/16,10.1.0.0/16"})),
            pool(json!({"cidr": "fd00::1/64"})),
            pool(json!({"cidr": "fd00::/123"})),
            pool(json!({"cidr": "10.0.0.0/26", "blockSize": 25})),
            pool(json!({"blockSize": 19})),
            pool(json!({"blockSize": 33})),
            pool(json!({"blockSize": -1})),
            pool(json!({"blockSize": "26"})),
            pool(json!({"cidr": "fd00::/64", "blockSize": 115})),
            pool(json!({"cidr": "fd00::/64", "blockSize": 129})),
            pool(json!({"cidr": "fd00::/64", "ipipMode": "CrossSubnet"})),
            pool(json!({"cidr": "169.254.0.0/16"})),
            pool(json!({"cidr": "169.254.255.0/24"})),
            pool(json!({"cidr": "168.0.0.0/6"})),
            pool(json!({"cidr": "fe80::/64"})),
            pool(json!({"cidr": "fe00::/8"})),
            pool(json!({"ipipMode": "always"})),
            pool(json!({"vxlanMode": "Sometimes"})),
            pool(json!({"ipipMode": "CrossSubnet", "vxlanMode": "CrossSubnet"})),
            pool(json!({"allowedUses": ["LoadBalancer", "Workload"]})),
            pool(json!({"allowedUses": ["LoadBalancer"], "nodeSelector": "has(rack)"})),
            pool(json!({"allowedUses": ["LoadBalancer"], "vxlanMode": "CrossSubnet"})),
            pool(json!({"allowedUses": ["Workload", "Tunnel"], "namespaceSelector": "has(team)"})),
            pool(json!({"nodeSelector": "global()"})),
            pool(json!({"namespaceSelector": "global()"})),
            pool(json!({"nodeSelector": "rack = 'a'"})),
            pool(json!({"assignmentMode": "automatic"})),
            pool(json!({"natOutgoing": "true"})),
            // The first API's.
            pool(json!({"nat-outgoing": true})),
            pool(json!({"ipip": {"enabled": true}})),
        ],
    );
}

#[test]
fn bgp_peers() {
    check(
        "BGPPeer",
        &[
            json!({"peerIP": "10.0.0.1:179"}),
            json!({"peerIP": "fd00::1", "asNumber": "1.10"}),
            json!({"node": "n1", "peerIP": "10.0.0.1", "asNumber": 4_294_967_295_u32}),
            json!({"nodeSelector": "all()", "peerSelector": "has(rr)"}),
            json!({"peerSelector": "has(rr)", "asNumber": 0}),
            json!({"localWorkloadSelector": "has(bgp)", "asNumber": 65_001}),
            json!({"peerIP": "10.0.0.1", "ttlSecurity": 255, "numAllowedLocalASNumbers": 0, "filters": ["a", "b"]}),
            json!({"peerIP": "10.0.0.1", "keepOriginalNextHop": false, "nextHopMode": "Keep"}),
            json!({"peerIP": "10.0.0.1", "keepOriginalNextHop": true, "sourceAddress": "UseNodeIP"}),
            json!({"peerIP": "[fd00::1]:1179", "reachableBy": "fd00::2", "reversePeering": "Manual"}),
            json!({"peerIP": "10.0.0.1", "maxRestartTime": "2m30s", "keepaliveTime": "20s"}),
            json!({"peerIP": "10.0.0.1", "password": {"secretKeyRef": {"name": "bgp", "key": "rr"}}}),
            json!({"peerIP": "10.0.0.1", "failureDetectionMode": "BFDIfDirectlyConnected"}),
        ],
        &[
            json!({"node": "n1", "nodeSelector": "all()", "peerIP": "10.0.0.1"}),
            json!({"peerIP": "10.0.0.1", "localWorkloadSelector": "all()", "asNumber": 1}),
            json!({"peerSelector": "has(rr)", "asNumber": 64_512}),
            json!({"localWorkloadSelector": "has(bgp)"}),
            json!({"localWorkloadSelector": "has(bgp)", "asNumber": 0}),
            json!({"peerIP": "10.0.0.1", "keepOriginalNextHop": true, "nextHopMode": "Auto"}),
            json!({"peerIP": "10.0.0.1", "nextHopMode": "self"}),
            json!({"peerIP": "10.0.0.1", "sourceAddress": "NodeIP"}),
            json!({"peerIP": "10.0.0.1", "ttlSecurity": 256}),
            json!({"peerIP": "10.0.0.1", "numAllowedLocalASNumbers": -1}),
            json!({"peerIP": "10.0.0.1", "asNumber": "65536.1"}),
            json!({"peerIP": "10.0.0.1", "asNumber": "+1"}),
            json!({"peerIP": "10.0.0.1", "reachableBy": "10.0.0.2/32"}),
            json!({"peerSelector": "has(rr)", "reachableBy": "10.0.0.2"}),
            json!({"peerIP": "10.0.0.1", "reversePeering": "manual"}),
            json!({"peerIP": "10.0.0.1", "maxRestartTime": "2 minutes"}),
            json!({"peerIP": "10.0.0.1:0"}),
            json!({"peerIP": "10.0.0.1/32"}),
            json!({"peerIP": "tor.example.org"}),
            json!({"peerIP": "10.0.0.1", "node": "Node_1"}),
            json!({"peerIP": "10.0.0.1", "nodeselector": "a = 'b'"}),
            json!({"peerSelector": "global()"}),
        ],
    );
}

#[test]
fn bgp_configurations() {
    check(
        "BGPConfiguration",
        &[
            json!({"logSeverityScreen": "trace", "nodeToNodeMeshEnabled": false, "asNumber": "64512"}),
            json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {"cidr": "fd00:10:96::/112"}]}),
            json!({"serviceExternalIPs": [{"cidr": "192.0.2.1"}], "serviceLoadBalancerIPs": []}),
            json!({"listenPort": 1790, "bindMode": "NodeIP", "ignoredInterfaces": ["eth*", "*.100"]}),
            json!({"nodeMeshPassword": {"secretKeyRef": {"name": "bgp", "key": "mesh"}}}),
            json!({"nodeMeshMaxRestartTime": "120s", "nodeToNodeMeshEnabled": true}),
            json!({"communities": [{"name": "c", "value": "65535:65535"}], "prefixAdvertisements": [{"cidr": "10.0.0.0/26", "communities": ["c"]}]}),
            json!({"prefixAdvertisements": [{"cidr": "10.0.0.1", "communities": ["4294967295:0:4294967295"]}]}),
            json!({"localWorkloadPeeringIPV4": "10.1.1.1", "localWorkloadPeeringIPV6": "fd00::1"}),
            json!({"ipv4NormalRoutePriority": 1, "ipv6NormalRoutePriority": 2_147_483_646}),
            json!({"serviceLoadBalancerAggregation": "Disabled", "programClusterRoutes": "EnabledIPIPOnly"}),
        ],
        &[
            json!({"logSeverityScreen": "Critical"}),
            json!({"serviceClusterIPs": [{"cidr": "10.96.0.1/12"}]}),
            json!({"serviceExternalIPs": [{"cidr": "fd00::1/64"}]}),
            json!({"serviceLoadBalancerIPs": ["10.0.0.0/24"]}),
            json!({"listenPort": 65_536}),
            json!({"bindMode": "nodeip"}),
            json!({"ignoredInterfaces": ["*"]}),
            json!({"ignoredInterfaces": ["an-interface-too-long"]}),
            json!({"nodeMeshPassword": {"secretKeyRef": {"name": "bgp", "key": "mesh"}}, "nodeToNodeMeshEnabled": false}),
            json!({"nodeMeshMaxRestartTime": "120s", "nodeToNodeMeshEnabled": false}),
            json!({"communities": [{"name": "c", "value": "1:2"}]}),
            json!({"communities": [{"name": "c", "value": "1:65536"}], "prefixAdvertisements": [{"cidr": "10.0.0.0/26", "communities": ["c"]}]}),
            json!({"communities": [{"name": "c", "value": "1:2:3:4"}], "prefixAdvertisements": [{"cidr": "10.0.0.0/26", "communities": ["c"]}]}),
            json!({"communities": [{"name": "c", "value": "+1:2"}], "prefixAdvertisements": [{"cidr": "10.0.0.0/26", "communities": ["c"]}]}),
            json!({"prefixAdvertisements": [{"cidr": "10.0.0.0/26", "communities": ["other"]}]}),
            json!({"prefixAdvertisements": [{"cidr": "10.0.0.7/26", "communities": ["1:2"]}]}),
            json!({"prefixAdvertisements": [{"cidr": "10.0.0.0/26"}]}),
            json!({"prefixAdvertisements": [{"cidr": "10.0.0.0/26", "communities": ["1:4294967296:1"]}]}),
            json!({"localWorkloadPeeringIPV4": "fd00::1"}),
            json!({"localWorkloadPeeringIPV6": "10.1.1.1"}),
            json!({"ipv4NormalRoutePriority": 0}),
            json!({"ipv6NormalRoutePriority": 2_147_483_647}),
            json!({"programClusterRoutes": "enabled"}),
        ],
    );
}

#[test]
fn bgp_filters() {
    let families = |v4: &[Value], v6: &[Value]| -> Vec<Value> {
        let of = |names: [&str; 2], rules: &[Value]| -> Vec<Value> {
            names.into_iter().flat_map(|name| rules.iter().map(move |rule| json!({name: [rule]}))).collect()
        };
        [of(["importV4", "exportV4"], v4), of(["importV6", "exportV6"], v6)].concat()
    };
    let accept = |more: &Value| {
        let mut rule = json!({"action": "Accept"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let either = |rules: &[Value]| -> Vec<Value> { rules.iter().map(accept).collect() };
    let of_both = [
        json!({"interface": "*", "source": "RemotePeers", "peerType": "iBGP"}),
        json!({"peerType": "eBGP", "communities": {"values": ["65001:7"]}, "asPathPrefix": [65_001, "1.1"]}),
        json!({"communities": {"values": ["1:2:3"]}, "priority": 1}),
        json!({"priority": 2_147_483_646}),
        json!({"operations": [{"addCommunity": {"value": "1:2"}}, {"setPriority": {"value": 100}}]}),
    ];
    let bad_of_both = [
        json!({"action": "accept"}),
        json!({"interface": "an-interface-too-long"}),
        json!({"peerType": "ebgp"}),
        json!({"source": "Local"}),
        json!({"communities": {"values": []}}),
        json!({"communities": {"values": ["1:2", "1:3"]}}),
        json!({"communities": {"values": ["65536:1"]}}),
        json!({"communities": {"values": ["-1:1"]}}),
        json!({"communities": {"values": ["01:1"]}}),
        json!({"operations": [{"addCommunity": {"value": "1:02:3"}}]}),
        json!({"priority": 0}),
        json!({"priority": 2_147_483_647}),
        json!({"asPathPrefix": [4_294_967_296_u64]}),
        json!({"action": "Reject", "operations": [{"addCommunity": {"value": "1:2"}}]}),
        json!({"operations": [{"addCommunity": {"value": "1:2"}, "setPriority": {"value": 1}}]}),
        json!({"operations": [{"prependASPath": {"prefix": []}}]}),
        json!({"operations": [{"setPriority": {"value": 0}}]}),
        json!({"operations": vec![json!({"setPriority": {"value": 1}}); 11]}),
        json!({"prefixLength": {"min": 8}}),
        json!({"matchOperator": "In"}),
    ];
    let v4 = [
        json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 16, "max": 24}}),
        json!({"cidr": "10.0.0.0/8", "matchOperator": "NotIn", "prefixLength": {"min": 0, "max": 32}}),
    ];
    let v6 = [json!({"cidr": "fd00::/8", "matchOperator": "Equal", "prefixLength": {"max": 128}})];
    let bad_v4 = [
        json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 33}}),
        json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": -1}}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"cidr": "10.0.0.0/8", "matchOperator": "in"}),
        json!({"cidr": "10.0.0.1/8", "matchOperator": "In"}),
        json!({"cidr": "10.0.0.1", "matchOperator": "Equal"}),
    ];
    let bad_v6 = [
        json!({"cidr": "fd00::/8", "matchOperator": "In", "prefixLength": {"max": 129}}),
        json!({"cidr": "10.0.0.0/8", "matchOperator": "In"}),
        json!({"cidr": "fd00::1/8", "matchOperator": "In"}),
    ];
    let good = families(&either(&[&of_both[..], &v4].concat()), &either(&[&of_both[..], &v6].concat()));
    let bad = families(
        &either(&[&bad_of_both[..], &bad_v4].concat()),
        &either(&[&bad_of_both[..], &bad_v6].concat()),
    );
    check("BGPFilter", &good, &bad);
}

#[test]
fn rules() {
    let good = [
        json!({"ipVersion": 6, "protocol": "ICMPv6", "icmp": {"type": 128, "code": 0}}),
        json!({"protocol": 58, "icmp": {"type": 254, "code": 255}}),
        json!({"protocol": 1, "notICMP": {"type": 0}}),
        json!({"notICMP": {"type": 8, "code": 0}}),
        json!({"notProtocol": "ICMP", "ipVersion": 4}),
        json!({"protocol": 255, "notProtocol": 1}),
        json!({"protocol": "UDPLite"}),
        json!({"protocol": "132", "source": {"ports": [65_535, "1:65535", "http", "fifteen-letters"]}}),
        json!({"protocol": "UDP", "destination": {"notPorts": ["53"]}}),
        json!({"destination": {"ports": ["dns"]}}),
        json!({"source": {"nets": ["0.0.0.0/0"], "notNets": ["10.0.0.0/8"]}, "ipVersion": 4}),
        json!({"source": {"nets": ["::/0"]}, "destination": {"notNets": ["fd00::/8"]}}),
        json!({"source": {"selector": "", "notSelector": "has(a)", "namespaceSelector": "all()"}}),
        json!({"source": {"namespaceSelector": " global( ) "}}),
        json!({"source": {"serviceAccounts": {"names": ["a"], "selector": "role == 'b'"}}}),
        json!({"source": {"serviceAccounts": {}}}),
        json!({"metadata": {"annotations": {"example.org/Why": "because of: 1, 2 & 3"}}}),
        json!({"source": {"nets": vec!["10.0.0.0/8"; 256]}}),
        json!({"protocol": "TCP", "source": {"ports": vec![80; 50]}}),
    ];
    let bad = [
        json!({"action": "allow"}),
        json!({"action": ""}),
        json!({"action": null}),
        json!({"ipVersion": 5}),
        json!({"protocol": 0}),
        json!({"protocol": 256}),
        json!({"protocol": "icmpv6"}),
        json!({"protocol": "+6"}),
        json!({"notProtocol": "sctp"}),
        json!({"notProtocol": 0}),
        json!({"icmp": {"type": 8}}),
        json!({"icmp": {}}),
        json!({"protocol": "TCP", "icmp": {"type": 8}}),
        json!({"protocol": "ICMP", "icmp": {"code": 0}}),
        json!({"protocol": "ICMP", "icmp": {"type": -1}}),
        json!({"protocol": "ICMP", "icmp": {"type": 8, "code": 256}}),
        json!({"notICMP": {"type": 255}}),
        json!({"notICMP": {"code": 1}}),
        json!({"notProtocol": "ICMPv6", "ipVersion": 4}),
        json!({"protocol": 58, "ipVersion": 4}),
        json!({"protocol": 1, "ipVersion": 6}),
        json!({"source": {"ports": [80]}}),
        json!({"protocol": "ICMP", "source": {"ports": [80]}}),
        json!({"protocol": "UDPLite", "source": {"ports": [80]}}),
        json!({"protocol": "ICMP", "destination": {"notPorts": ["http"]}}),
        json!({"notProtocol": "TCP", "destination": {"ports": [80]}}),
        json!({"protocol": "TCP", "source": {"ports": [0]}}),
        json!({"protocol": "TCP", "source": {"ports": [65_536]}}),
        json!({"protocol": "TCP", "source": {"ports": ["1:2:3"]}}),
        json!({"protocol": "TCP", "source": {"ports": ["2:1"]}}),
        json!({"protocol": "TCP", "source": {"ports": ["80,81"]}}),
        json!({"protocol": "TCP", "source": {"ports": ["Http"]}}),
        json!({"protocol": "TCP", "source": {"ports": ["a.b"]}}),
        json!({"protocol": "TCP", "destination": {"ports": [80, "sixteen--letters"]}}),
        json!({"protocol": "TCP", "destination": {"notPorts": ["-a"]}}),
        json!({"protocol": "TCP", "source": {"ports": [""]}}),
        json!({"protocol": "TCP", "source": {"ports": vec![80; 51]}}),
        json!({"source": {"nets": vec!["10.0.0.0/8"; 257]}}),
        json!({"source": {"nets": ["10.0.0.1/8"]}}),
        json!({"source": {"nets": ["10.0.0.1"]}}),
        json!({"source": {"nets": ["10.0.0.0/8", "fd00::/8"]}}),
        json!({"source": {"nets": ["10.0.0.0/8"]}, "destination": {"notNets": ["fd00::/8"]}}),
        json!({"source": {"nets": ["fd00::/8"]}, "ipVersion": 4}),
        json!({"source": {"notNets": ["0.0.0.0/0"]}}),
        json!({"destination": {"notNets": ["::/0"]}}),
        json!({"source": {"selector": "global()"}}),
        json!({"source": {"selector": "a = 'b'"}}),
        json!({"source": {"notSelector": "!"}}),
        json!({"source": {"selector": format!("a == '{}'", "x".repeat(1024))}}),
        json!({"source": {"namespaceSelector": "global() || has(a)"}}),
        json!({"source": {"namespaceSelector": "!global()"}}),
        json!({"source": {"serviceAccounts": {"selector": "role = 'b'"}}}),
        json!({"metadata": {"annotations": {"-a": "b"}}}),
        json!({"source": {"selecter": "has(a)"}}),
        json!({"sources": {"selector": "has(a)"}}),
    ];
    check_rules(&good.each_ref().map(rule), &bad.each_ref().map(rule));
}

/// What a rule may ask depends on where it stands.
#[test]
fn services_and_requests() {
    let service = json!({"services": {"name": "web", "namespace": "shop"}});
    let bare = json!({"services": {"name": "web"}});
    let allow = |end: &str, of: &Value| rule(&json!({end: of}));
    let get = rule(&json!({"http": {"methods": ["GET"], "paths": [{"exact": "/a"}, {"prefix": "/b/"}]}}));
    for kind in ["NetworkPolicy", "GlobalNetworkPolicy"] {
        let good = [
            json!({"ingress": [allow("source", &service)]}),
            json!({"egress": [allow("destination", &service)]}),
            json!({"ingress": [rule(&json!({"protocol": "TCP", "source": service, "destination": {"ports": [80]}}))]}),
            json!({"ingress": [get]}),
            json!({"ingress": [rule(&json!({"protocol": 6, "http": {}}))]}),
        ];
        let path = |path: &str| rule(&json!({"http": {"paths": [{"exact": path}]}}));
        let mut bad = vec![
            json!({"egress": [allow("source", &service)]}),
            json!({"ingress": [allow("destination", &service)]}),
            json!({"egress": [allow("destination", &json!({"services": {"namespace": "shop"}}))]}),
            json!({"egress": [allow("destination", &json!({"services": {"name": "We_b", "namespace": "shop"}}))]}),
            json!({"egress": [rule(&json!({"protocol": "TCP", "destination": {"services": {"name": "w", "namespace": "s"}, "notPorts": [80]}}))]}),
            json!({"egress": [get]}),
            json!({"ingress": [rule(&json!({"action": "Deny", "http": {}}))]}),
            json!({"ingress": [rule(&json!({"protocol": 17, "http": {}}))]}),
            json!({"ingress": [path("a")]}),
            json!({"ingress": [path("/a?b")]}),
            json!({"ingress": [path(&format!("/{}", "a".repeat(1024)))]}),
            json!({"ingress": [rule(&json!({"http": {"paths": [{}]}}))]}),
        ];
        for (name, value) in [
            ("selector", json!("has(a)")),
            ("notSelector", json!("has(a)")),
            ("namespaceSelector", json!("all()")),
            ("serviceAccounts", json!({})),
            ("nets", json!(["10.0.0.0/8"])),
            ("notNets", json!(["10.0.0.0/8"])),
        ] {
            let mut end = service.clone();
            end[name] = value;
            bad.push(json!({"egress": [allow("destination", &end)]}));
        }
        check(kind, &good, &bad);
    }
    // A policy of a namespace asks for that namespace's services.
    check("NetworkPolicy", &[json!({"egress": [allow("destination", &bare)]})], &[]);
    check("GlobalNetworkPolicy", &[], &[json!({"egress": [allow("destination", &bare)]})]);
}

#[test]
fn policies() {
    for kind in ["GlobalNetworkPolicy", "NetworkPolicy", "StagedGlobalNetworkPolicy", "StagedNetworkPolicy"] {
        let good = [
            json!({"tier": "security", "order": -1.5, "selector": "all()", "types": ["Egress", "Ingress"]}),
            json!({"order": 0, "serviceAccountSelector": "has(a)", "performanceHints": []}),
            json!({"types": []}),
            json!({"ingress": [], "egress": null}),
            json!({"ingress": vec![json!({"action": "Pass"}); 1024]}),
        ];
        let bad = [
            json!({"tier": "Security"}),
            json!({"order": "10"}),
            json!({"selector": "global()"}),
            json!({"selector": "a == 'b' && global()"}),
            json!({"serviceAccountSelector": "global()"}),
            json!({"types": ["Ingress", "Ingress"]}),
            json!({"types": ["ingress"]}),
            json!({"ingress": {"action": "Allow"}}),
            json!({"ingress": vec![json!({"action": "Pass"}); 1025]}),
            json!({"selector": format!("a == '{}'", "x".repeat(1024))}),
        ];
        check(kind, &good, &bad);
    }
    for kind in ["GlobalNetworkPolicy", "StagedGlobalNetworkPolicy"] {
        let good = [
            json!({"namespaceSelector": "has(a)", "applyOnForward": true}),
            json!({"preDNAT": true, "applyOnForward": true, "types": ["Ingress"]}),
            json!({"doNotTrack": true, "applyOnForward": true, "egress": [{"action": "Allow"}]}),
        ];
        let bad = [
            json!({"namespaceSelector": "global()"}),
            json!({"doNotTrack": true}),
            json!({"preDNAT": true, "applyOnForward": true, "egress": [{"action": "Allow"}]}),
            json!({"doNotTrack": true, "preDNAT": true, "applyOnForward": true}),
        ];
        check(kind, &good, &bad);
    }
    // These aren't a namespace's to ask.
    let global = ["doNotTrack", "preDNAT", "applyOnForward"].map(|name| json!({name: true}));
    check("NetworkPolicy", &[], &global);
    check("NetworkPolicy", &[], &[json!({"namespaceSelector": "has(a)"}), json!({"stagedAction": "Set"})]);
    for kind in ["StagedGlobalNetworkPolicy", "StagedNetworkPolicy"] {
        let good =
            ["Set", "Learn", "Ignore"].map(|action| json!({"stagedAction": action, "selector": "all()"}));
        check(kind, &good, &[json!({"stagedAction": "Delete", "order": 1}), json!({"stagedAction": "set"})]);
    }
}

#[test]
fn policies_of_kubernetes() {
    check(
        "StagedKubernetesNetworkPolicy",
        &[
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}}),
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]}),
            json!({"podSelector": {}, "egress": [{"ports": [{"protocol": "UDP", "port": "dns"}, {"port": 80, "endPort": 90}]}]}),
            json!({"stagedAction": "Delete"}),
        ],
        &[
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
            json!({"podSelector": {"matchLabels": {"a$": "b"}}}),
            json!({"podSelector": {}, "policyTypes": ["ingress"]}),
            json!({"podSelector": {}, "egress": [{"ports": [{"protocol": "ICMP"}]}]}),
            json!({"podSelector": {}, "egress": [{"ports": [{"port": 90, "endPort": 80}]}]}),
            json!({"podSelector": {}, "egress": [{"from": []}]}),
            json!({"stagedAction": "Delete", "podSelector": {"matchLabels": {"a": "b"}}}),
        ],
    );
}

#[test]
fn felix_configurations() {
    let ports = |ports: Value| json!({"failsafeInboundHostPorts": ports});
    check(
        "FelixConfiguration",
        &[
            json!({"iptablesRefreshInterval": "90s", "netlinkTimeout": "1m30s", "wireguardKeepAlive": "0"}),
            json!({"iptablesBackend": "NFT", "chainInsertMode": "insert", "bpfEnforceRPF": "STRICT"}),
            json!({"natPortRange": "32768:65535", "bpfPSNATPorts": "20000:29999", "istioDSCPMark": "AF23"}),
            json!({"natPortRange": 1024, "natOutgoingAddress": "192.0.2.1"}),
            json!({"featureDetectOverride": "SNATFullyRandom=true,MASQFullyRandom=false,RestoreSupportsLock=,"}),
            json!({"featureDetectOverride": "A-B=true"}),
            json!({"featureGates": "A=enabled,B=false"}),
            json!({"featureGates": "A=b c,,D-E=1,"}),
            json!({"netlinkTimeout": "1h0.5s", "reportingTTL": "+5s", "usageReportingInterval": "0"}),
            json!({"bpfConntrackTimeouts": {"tcpSynSent": "20s", "udpTimeout": "Auto"}}),
            json!({"logActionRateLimit": "9999/day", "logActionRateLimitBurst": 0, "logPrefix": "calico %t/%n"}),
            json!({"defaultEndpointToHostAction": "RETURN", "nftablesFilterDenyAction": "reject"}),
            json!({"interfacePrefix": "cali,tap", "interfaceExclude": "/^kube/,veth1"}),
            ports(json!([])),
            ports(
                json!([{"protocol": "TCP", "port": 22}, {"protocol": "SCTP", "port": 0, "net": "10.0.0.0/8"}]),
            ),
        ],
        &[
            json!({"iptablesRefreshInterval": "soon"}),
            json!({"netlinkTimeout": 10}),
            json!({"iptablesBackend": "nft"}),
            json!({"natPortRange": 0}),
            json!({"natPortRange": "0:1024"}),
            json!({"natPortRange": "2:1"}),
            json!({"bpfPSNATPorts": "65535:65536"}),
            json!({"istioDSCPMark": 64}),
            json!({"istioDSCPMark": "best effort"}),
            json!({"natOutgoingAddress": "fd00::1"}),
            json!({"featureDetectOverride": "A=maybe"}),
            json!({"featureDetectOverride": "A"}),
            json!({"featureDetectOverride": "A-=true"}),
            json!({"featureDetectOverride": "A=true,,B="}),
            json!({"featureDetectOverride": ","}),
            json!({"featureGates": "A="}),
            json!({"featureGates": "A=b,c"}),
            json!({"netlinkTimeout": "-1s"}),
            json!({"reportingTTL": "10ns"}),
            json!({"bpfConntrackTimeouts": {"tcpSynSent": "auto"}}),
            json!({"bpfConntrackTimeouts": {"tcpSynSent": "20"}}),
            json!({"logActionRateLimit": "0/second"}),
            json!({"logActionRateLimit": "10/week"}),
            json!({"logActionRateLimitBurst": 10_000}),
            json!({"logPrefix": "a*b"}),
            json!({"defaultEndpointToHostAction": "Reject"}),
            json!({"nftablesFilterDenyAction": "Return"}),
            json!({"interfaceExclude": "/(/"}),
            json!({"iptablesMarkMask": 4_294_967_296_i64}),
            json!({"floatingIPs": "enabled"}),
            json!({"workloadSourceSpoofing": "any"}),
            json!({"natOutgoingExclusions": "ippoolsonly"}),
            json!({"programClusterRoutes": "disabled"}),
            // Of the configuration for all nodes, and of those for one.
            json!({"nodeSelector": "all()"}),
            ports(json!([{"port": 22}])),
            ports(json!([{"protocol": "tcp", "port": 22}])),
            ports(json!([{"protocol": "6", "port": 22}])),
            ports(json!([{"protocol": "ICMP", "port": 22}])),
            ports(json!([{"protocol": "TCP"}])),
            ports(json!([{"protocol": "TCP", "port": 65_536}])),
            ports(json!([{"protocol": "TCP", "port": 22, "net": "here"}])),
        ],
    );
    let selecting = |name: &str| {
        let spec = json!({"nodeSelector": "has(rack)"});
        problems(&resource("FelixConfiguration", name, &spec)).is_empty()
    };
    assert!(selecting("rack-a"));
    assert!(!selecting("node.n1"));
}

#[test]
fn tiers() {
    let tier = |name: &str, spec: &Value| problems(&resource("Tier", name, spec)).is_empty();
    check(
        "Tier",
        &[json!({}), json!({"order": 0.5}), json!({"defaultAction": "Pass"})],
        &[json!({"defaultAction": "Allow"}), json!({"defaultAction": "pass"}), json!({"order": "first"})],
    );
    assert!(tier(&"a".repeat(63), &json!({})));
    for name in ["", "a.b", "A", "-a", "a-", "a_b", &"a".repeat(64)] {
        assert!(!tier(name, &json!({})), "{name:?}");
    }
    let mut told = resource("Tier", "t", &json!({}));
    told["status"] =
        json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Ok", "message": ""}]});
    assert_eq!(problems(&told), Vec::<String>::new());
    for (name, order, action) in
        [("kube-admin", 1_000, "Pass"), ("default", 1_000_000, "Deny"), ("kube-baseline", 10_000_000, "Pass")]
    {
        assert!(tier(name, &json!({"order": order, "defaultAction": action})), "{name}");
        assert!(!tier(name, &json!({"order": order + 1, "defaultAction": action})), "{name}");
        assert!(!tier(name, &json!({"defaultAction": action})), "{name}");
        let other = if action == "Pass" { "Deny" } else { "Pass" };
        assert!(!tier(name, &json!({"order": order, "defaultAction": other})), "{name}");
    }
}

#[test]
fn sets_profiles_and_reservations() {
    for kind in ["NetworkSet", "GlobalNetworkSet"] {
        check(
            kind,
            &[
                json!({}),
                json!({"nets": []}),
                json!({"nets": ["10.0.0.1", "10.0.0.7/8", "::/0", "fd00::1/64"]}),
            ],
            &[
                json!({"nets": ["10.0.0.0/33"]}),
                json!({"nets": [""]}),
                json!({"nets": ["example.org"]}),
                json!({"net": []}),
            ],
        );
    }
    check(
        "Profile",
        &[json!({}), json!({"labelsToApply": {"pcns.a": "", "example.org/B_c": "D.e"}})],
        &[
            json!({"labelsToApply": {"a b": "c"}}),
            json!({"labelsToApply": {"a": "-"}}),
            json!({"types": ["Ingress"]}),
        ],
    );
    check(
        "IPReservation",
        &[json!({}), json!({"reservedCIDRs": ["10.0.0.7/24", "fd00::1"]})],
        &[json!({"reservedCIDRs": ["10.0.0.0-10.0.0.9"]}), json!({"reservedCIDRs": "10.0.0.0/24"})],
    );
}

#[test]
fn endpoints() {
    let host = |more: Value| {
        let mut spec = json!({"node": "n1", "interfaceName": "eth0"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    check(
        "HostEndpoint",
        &[
            host(json!({"interfaceName": "*"})),
            host(json!({"interfaceName": "", "expectedIPs": ["10.0.0.1"]})),
            host(
                json!({"ports": [{"name": "bgp", "protocol": "TCP", "port": 179}, {"name": "x", "protocol": 132, "port": 65_535}]}),
            ),
            host(json!({"profiles": ["kns.a", "b"]})),
        ],
        &[
            json!({}),
            json!({"node": "n1"}),
            json!({"interfaceName": "eth0"}),
            host(json!({"node": "N_1"})),
            host(json!({"interfaceName": "eth0,eth1"})),
            host(json!({"interfaceName": "an-interface-too-long"})),
            host(json!({"expectedIPs": ["10.0.0.1/32"]})),
            host(json!({"profiles": ["A"]})),
            host(json!({"ports": [{"name": "BGP", "protocol": "TCP", "port": 179}]})),
            host(json!({"ports": [{"name": "a-much-too-long-name", "protocol": "TCP", "port": 179}]})),
            host(json!({"ports": [{"name": "123", "protocol": "TCP", "port": 179}]})),
            host(json!({"ports": [{"name": "a", "protocol": "ICMP", "port": 179}]})),
            host(json!({"ports": [{"name": "a", "protocol": "TCP", "port": 0}]})),
            host(json!({"ports": [{"name": "a", "protocol": "TCP"}]})),
            host(json!({"ports": [{"name": "a", "port": 1}]})),
        ],
    );
    let workload = |more: Value| {
        let mut spec =
            json!({"node": "n1", "interfaceName": "cali1", "ipNetworks": ["10.0.0.1/32", "fd00::1/128"]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    check(
        "WorkloadEndpoint",
        &[
            workload(
                json!({"mac": "EE:ee:ee:ee:ee:ee", "ipv4Gateway": "169.254.1.1", "ipv6Gateway": "fe80::1"}),
            ),
            workload(
                json!({"ipNATs": [{"internalIP": "10.0.0.1", "externalIP": "192.0.2.1"}, {"internalIP": "fd00::1", "externalIP": "2001:db8::1"}]}),
            ),
            workload(
                json!({"ports": [{"name": "", "protocol": "TCP", "port": 1, "hostPort": 2, "hostIP": "10.0.0.1"}]}),
            ),
            workload(json!({"allowSpoofedSourcePrefixes": ["10.0.0.7/8", "fd00::1"]})),
            workload(
                json!({"qosControls": {"ingressBandwidth": 1_000, "egressPacketRate": 10_000, "dscp": "AF43"}}),
            ),
            workload(
                json!({"qosControls": {"egressBandwidth": 1_000_000_000_000_000_i64, "egressBurst": 34_359_738_360_i64, "dscp": 63}}),
            ),
            workload(json!({"qosControls": {"dscp": " cs6 "}})),
            workload(json!({"qosControls": {"dscp": "Af11"}})),
            workload(json!({"containerID": "0aB-9"})),
            workload(json!({"mac": "eeee.eeee.eeee"})),
            workload(
                json!({"orchestrator": "k8s", "pod": "a.b-0", "endpoint": "eth0", "serviceAccountName": "c"}),
            ),
            workload(
                json!({"ports": [{"name": "a", "protocol": "UDP", "port": 1, "hostIP": "10.0.0.0/24"}]}),
            ),
        ],
        &[
            json!({}),
            workload(json!({"interfaceName": ""})),
            workload(json!({"ipNetworks": ["10.0.0.0/31"]})),
            workload(json!({"ipNetworks": ["fd00::/127"]})),
            workload(json!({"ipNetworks": ["10.0.0.256"]})),
            workload(json!({"mac": "ee:ee:ee:ee:ee"})),
            workload(json!({"mac": "+e:ee:ee:ee:ee:ee"})),
            workload(json!({"mac": "e:ee:ee:ee:ee:ee"})),
            workload(json!({"node": "N1"})),
            workload(json!({"orchestrator": "K8s"})),
            workload(json!({"pod": "a_b"})),
            workload(json!({"endpoint": "eth0:1"})),
            workload(json!({"serviceAccountName": "a b"})),
            workload(json!({"profiles": ["A"]})),
            workload(json!({"ipv4Gateway": "169.254.1.1/32"})),
            workload(json!({"ipv6Gateway": "fe80::1/64"})),
            workload(
                json!({"ports": [{"name": "a", "protocol": "UDP", "port": 1, "hostIP": "10.0.0.1/24"}]}),
            ),
            workload(json!({"ipv4Gateway": "fe80::1"})),
            workload(json!({"ipv6Gateway": "169.254.1.1"})),
            workload(json!({"ipNATs": [{"internalIP": "10.0.0.1", "externalIP": "2001:db8::1"}]})),
            workload(json!({"ipNATs": [{"internalIP": "10.0.0.2", "externalIP": "192.0.2.1"}]})),
            workload(json!({"ports": [{"name": "", "protocol": "TCP", "port": 1}]})),
            workload(json!({"ports": [{"name": "a", "protocol": "ICMP", "port": 1}]})),
            workload(json!({"allowSpoofedSourcePrefixes": ["all"]})),
            workload(json!({"containerID": "a.b"})),
            workload(json!({"containerID": "-a"})),
            workload(json!({"qosControls": {"ingressBandwidth": 999}})),
            workload(json!({"qosControls": {"ingressPacketRate": 10_001}})),
            workload(json!({"qosControls": {"dscp": 64}})),
            workload(json!({"qosControls": {"dscp": "AF44"}})),
            workload(json!({"qosControls": {"dscp": "+1"}})),
            workload(json!({"qosControls": {"dscp": " 1"}})),
            workload(json!({"qosControls": {"dscp": " "}})),
            workload(json!({"qosControls": {"dscp": "CS9"}})),
            workload(json!({"qosControls": {"bandwidth": 1_000}})),
        ],
    );
}

#[test]
fn nodes_and_books() {
    check(
        "Node",
        &[
            json!({}),
            json!({"bgp": {"asNumber": 64_512}}),
            json!({"bgp": {"ipv4Address": "10.0.0.1", "ipv6Address": "fd00::1"}}),
            json!({"bgp": {"ipv4Address": "10.0.0.1/24", "routeReflectorClusterID": "244.0.0.1"}}),
            json!({"ipv4VXLANTunnelAddr": "10.0.0.1", "vxlanTunnelMACAddr": "66:40:18:59:1f:16"}),
            json!({"wireguard": {"interfaceIPv4Address": "10.0.0.1", "interfaceIPv6Address": "fd00::1"}}),
            json!({"orchRefs": [{"nodeName": "N", "orchestrator": "k8s"}], "addresses": [{"address": "10.0.0.1", "type": "InternalIP"}]}),
        ],
        &[
            json!({"bgp": {}}),
            json!({"bgp": {"ipv4Address": "fd00::1/64"}}),
            json!({"bgp": {"ipv4Address": "10.0.0.1/33"}}),
            json!({"bgp": {"ipv4Address": "here"}}),
            json!({"bgp": {"ipv4IPIPTunnelAddr": "10.0.0.1/32"}}),
            json!({"bgp": {"ipv4IPIPTunnelAddr": "fd00::1"}}),
            json!({"bgp": {"routeReflectorClusterID": "1"}}),
            json!({"bgp": {"routeReflectorClusterID": "fd00::1"}}),
            json!({"ipv4VXLANTunnelAddr": "fd00::1"}),
            json!({"ipv6VXLANTunnelAddr": "10.0.0.1"}),
            json!({"vxlanTunnelMACAddrV6": "66"}),
            json!({"wireguard": {"interfaceIPv4Address": "fd00::1"}}),
            json!({"wireguard": {"interfaceIPv6Address": "10.0.0.1"}}),
        ],
    );
    check(
        "IPAMConfiguration",
        &[
            json!({"strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": 0, "ipCooldownSeconds": 1200}),
            json!({"maxBlocksPerHost": 1_000_000, "kubeVirtVMAddressPersistence": "Disabled"}),
        ],
        &[
            json!({"maxBlocksPerHost": -1}),
            json!({"maxBlocksPerHost": 1_000_001}),
            json!({"ipCooldownSeconds": 1201}),
            json!({"kubeVirtVMAddressPersistence": "disabled"}),
            json!({"strictAffinity": "true"}),
        ],
    );
    check(
        "KubeControllersConfiguration",
        &[
            json!({"prometheusMetricsPort": 0, "debugProfilePort": 65_535, "logSeverityScreen": "None"}),
            json!({"etcdV3CompactionPeriod": "10m", "controllers": {"node": {"leakGracePeriod": "15m", "reconcilerPeriod": "5m"}}}),
            json!({"controllers": {"node": {"hostEndpoint": {"templates": [{"generateName": "a", "interfacePattern": "^eth", "labels": {"a": "b"}}]}}}}),
        ],
        &[
            json!({"prometheusMetricsPort": 65_536}),
            json!({"debugProfilePort": -1}),
            json!({"logSeverityScreen": "Trace"}),
            json!({"healthChecks": "On"}),
            json!({"controllers": {"node": {"syncLabels": true}}}),
            json!({"controllers": {"nodes": {}}}),
            json!({"controllers": {"policyMigration": {"enabled": "Yes"}}}),
            json!({"etcdV3CompactionPeriod": "ten minutes"}),
            json!({"controllers": {"namespace": {"reconcilerPeriod": "5"}}}),
            json!({"controllers": {"node": {"hostEndpoint": {"templates": [{"interfacePattern": "*"}]}}}}),
            json!({"controllers": {"node": {"hostEndpoint": {"templates": [{"labels": {"a": "b c"}}]}}}}),
        ],
    );
    let asked = |more: Value| {
        let mut spec = json!({"node": "n1", "classes": ["Agent", "BGP"], "updatePeriodSeconds": 10});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    check(
        "CalicoNodeStatus",
        &[
            asked(json!({})),
            asked(json!({"classes": ["Routes"]})),
            asked(json!({"updatePeriodSeconds": 0})),
            asked(json!({"updatePeriodSeconds": 86_400})),
        ],
        &[
            asked(json!({"node": ""})),
            asked(json!({"node": "N_1"})),
            asked(json!({"classes": []})),
            asked(json!({"classes": null})),
            asked(json!({"classes": ["Agent", "Agent"]})),
            asked(json!({"classes": ["agent"]})),
            asked(json!({"updatePeriodSeconds": null})),
            asked(json!({"updatePeriodSeconds": -1})),
            asked(json!({"updatePeriodSeconds": 86_401})),
        ],
    );
    check(
        "LiveMigration",
        &[json!({"source": {"workload": {"workloadID": "a/b"}}, "target": {"selector": "has(a)"}})],
        &[json!({"destination": "b"})],
    );
    check("ClusterInformation", &[json!({"datastoreReady": false})], &[json!({"datastoreReady": "no"})]);
}

/// All kinds' names, labels and annotations are held to the same.
#[test]
fn metadata() {
    let spec = |kind: &str| match kind {
        "IPPool" => json!({"cidr": "10.0.0.0/16"}),
        "HostEndpoint" => json!({"node": "n", "expectedIPs": ["10.0.0.1"]}),
        "WorkloadEndpoint" => json!({"node": "n", "interfaceName": "c", "ipNetworks": ["10.0.0.1"]}),
        _ => json!({}),
    };
    for kind in [
        "BGPFilter",
        "BGPPeer",
        "FelixConfiguration",
        "GlobalNetworkPolicy",
        "GlobalNetworkSet",
        "HostEndpoint",
        "IPPool",
        "IPReservation",
        "KubeControllersConfiguration",
        "NetworkPolicy",
        "NetworkSet",
        "Node",
        "Profile",
        "StagedGlobalNetworkPolicy",
        "StagedKubernetesNetworkPolicy",
        "StagedNetworkPolicy",
        "Tier",
        "WorkloadEndpoint",
    ] {
        let with = |metadata: Value| {
            let mut whole = resource(kind, "default", &spec(kind));
            if kind == "Tier" {
                whole["metadata"]["name"] = json!("a");
            }
            whole["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
            problems(&whole)
        };
        let good = [
            json!({"labels": {"a": "", "example.org/A_b.c": "D-e_f.g"}}),
            json!({"annotations": {"Example.org/A": "any text: even this"}}),
            json!({"uid": "x", "resourceVersion": "7", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}),
            json!({"managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {".": {}}}}]}),
            json!({"name": "0a-b"}),
        ];
        for metadata in good {
            assert_eq!(with(metadata.clone()), Vec::<String>::new(), "{kind} {metadata}");
        }
        let bad = [
            json!({"labels": {"a b": ""}}),
            json!({"labels": {"/a": "b"}}),
            json!({"labels": {"a": "b/c"}}),
            json!({"labels": {"a": "x".repeat(64)}}),
            json!({"annotations": {"a$": "b"}}),
            json!({"annotations": {"a": "x".repeat(256 << 10)}}),
            json!({"name": "a".repeat(254)}),
            json!({"name": "a b"}),
            json!({"label": {"a": "b"}}),
        ];
        // Of endpoints that OpenStack names.
        let is_free = kind == "WorkloadEndpoint";
        let names = ["A", "a_b", "a-", ".a"].map(|name| json!({"name": name}));
        for metadata in bad.into_iter().chain(names.into_iter().filter(|_| !is_free)) {
            assert_ne!(with(metadata.clone()), Vec::<String>::new(), "{kind} {metadata}");
        }
    }
}
