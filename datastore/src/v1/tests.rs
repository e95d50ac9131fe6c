use std::path::Path;

use model::{Action, EncapMode, EntityRule, NetworkPolicy, PolicyRule, Protocol, Resource};

use crate::manifest::{self, Reader};

fn read(text: &str) -> Result<Vec<Resource>, Vec<String>> {
    manifest::parse(Path::new("f.yaml"), text, 100, Reader::Writer)
        .map(|manifest| manifest.entries.iter().map(|entry| Resource::clone(&entry.resource)).collect())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// A tenant network as tutorials of that time wrote it.
const TENANT: &str = "\
- apiVersion: v1
  kind: workloadEndpoint
  metadata:
    name: slave1-frontend1
    workload: frontend
    orchestrator: k8s
    node: slave1
    labels: {service: frontend, namespace: default}
  spec:
    interfaceName: cali0ef24b1
    mac: ca:fe:1d:52:bb:e1
    ipNetworks: [172.16.1.1]
    ports: [{name: web, protocol: tcp, port: 80}]
- apiVersion: v1
  kind: policy
  metadata: {name: Namespace_Default}
  spec:
    selector: namespace == 'default'
    types: [ingress, egress]
    ingress:
    - action: deny
    - action: allow
      source: {selector: namespace == 'default', '!net': 10.0.0.1, tag: t}
    egress:
    - action: allow
- apiVersion: v1
  kind: profile
  metadata: {name: profile-database, labels: {a: b}, tags: [t]}
  spec:
    ingress:
    - action: allow
      protocol: tcp
      '!protocol': udplite
      source: {net: 10.1.2.3/8, notTag: u}
      destination: {ports: [3306]}
";

#[test]
fn a_tenant_network_of_the_first_api_is_read() {
    let resources = read(TENANT).unwrap();
    let [Resource::WorkloadEndpoint(endpoint), Resource::NetworkPolicy(policy), Resource::Profile(profile)] =
        resources.as_slice()
    else {
        panic!("{resources:?}")
    };
    assert_eq!(endpoint.name, "slave1-k8s-frontend-slave1--frontend1");
    assert_eq!((endpoint.namespace.as_str(), endpoint.node.as_str()), ("default", "slave1"));
    assert_eq!(endpoint.labels["service"], "frontend");
    assert_eq!(endpoint.ports[0].protocol, Protocol::TCP);

    let rule = |selector: &str, not_net: &str| {
        let not_nets = vec![not_net.parse().unwrap()];
        let source = EntityRule { selector: Some(selector.to_owned()), not_nets, ..EntityRule::default() };
        PolicyRule { source, ..PolicyRule::any(Action::Allow) }
    };
    let expected = NetworkPolicy {
        selector: "namespace == 'default'".to_owned(),
        applies_to_ingress: true,
        applies_to_egress: true,
        ingress: vec![
            PolicyRule::any(Action::Deny),
            rule("(namespace == 'default') && t == ''", "10.0.0.1/32"),
        ],
        egress: vec![PolicyRule::any(Action::Allow)],
        ..NetworkPolicy::empty(policy.key.clone())
    };
    assert_eq!(*policy, expected);
    assert_eq!(policy.key.to_string(), "GlobalNetworkPolicy(namespace-default-8809a212)");

    let labels: Vec<_> =
        profile.labels_to_apply.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["a=b", "t="]);
    let rule = &profile.ingress[0];
    assert_eq!((rule.protocol, rule.not_protocol), (Some(Protocol::TCP), Some(Protocol::UDP_LITE)));
    assert_eq!(rule.source.nets, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(rule.source.not_selector.as_deref(), Some("u == ''"));
}

#[test]
fn pools_peers_and_nodes_of_the_first_api_are_read() {
    let text = "\
apiVersion: v1
kind: ipPool
metadata: {cidr: 192.168.0.0/16}
spec: {ipip: {enabled: true, mode: cross-subnet}, nat-outgoing: true}
---
apiVersion: v1
kind: bgpPeer
metadata: {scope: node, node: rack1-host1, peerIP: 192.168.1.1}
spec: {asNumber: 63400}
---
apiVersion: v1
kind: node
metadata: {name: rack1-host1}
spec: {bgp: {ipv4Address: 10.0.0.11/24}}
---
apiVersion: v1
kind: hostEndpoint
metadata: {name: eth0, node: rack1-host1, labels: {a: b}}
spec: {interfaceName: eth0, profiles: [p]}
";
    let resources = read(text).unwrap();
    let keys: Vec<_> = resources.iter().map(|resource| resource.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "IPPool(192-168-0-0-16)",
            "BGPPeer(rack1-host1.192-168-1-1)",
            "Node(rack1-host1)",
            "HostEndpoint(rack1-host1.eth0)"
        ]
    );
    let Resource::IpPool(pool) = &resources[0] else { panic!() };
    assert_eq!((pool.ipip_mode, pool.nat_outgoing), (EncapMode::CrossSubnet, true));
}

#[test]
fn what_is_wrong_in_a_manifest_of_the_first_api_keeps_its_place() {
    let problems = read(&TENANT.replace("action: deny", "action: refuse")).unwrap_err();
    assert_eq!(
        problems,
        [
            "f.yaml:21:15: GlobalNetworkPolicy(namespace-default-8809a212): spec.ingress[0].action: \"refuse\" is none of Allow, \
          Deny, Log, Pass"
        ]
    );
    // Kubernetes' own resources have that version, too.
    assert!(
        read("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n").unwrap_err()[0].contains("is not known")
    );
}

fn converted(text: &str) -> Result<serde_json::Value, String> {
    let objects = crate::convert_objects(text).map_err(|error| error.to_string())?;
    Ok(objects.iter().map(|object| object.value().clone()).collect())
}

#[test]
fn what_the_first_api_took_for_granted_is_said_after_a_conversion() {
    let text = "\
apiVersion: v1
kind: ipPool
metadata: {cidr: 'fd00::1/112'}
spec: {disabled: false, ipip: {enabled: false, mode: always}}
---
apiVersion: v1
kind: policy
metadata: {name: no-track, annotations: {a: b}, labels: {c: d}}
spec:
  doNotTrack: true
  ingress: [{action: pass, source: {selector: has(calico/k8s_ns)}}, {}]
";
    let values = converted(text).unwrap();
    assert_eq!(
        values[0],
        serde_json::json!({
            "kind": "IPPool",
            "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "fd00---112"},
            "spec": {
                "cidr": "fd00::/112", "vxlanMode": "Never", "ipipMode": "Never", "blockSize": 122, "nodeSelector": "all()",
                "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic",
            },
        })
    );
    let labels = serde_json::json!({"projectcalico.org/tier": "default"});
    let metadata =
        serde_json::json!({"name": "default.no-track", "annotations": {"a": "b"}, "labels": labels});
    assert_eq!(values[1]["metadata"], metadata);
    let spec = &values[1]["spec"];
    assert_eq!(spec["tier"], "default");
    assert_eq!((&spec["applyOnForward"], &spec["types"]), (&true.into(), &serde_json::json!(["Ingress"])));
    assert_eq!(spec["ingress"][0]["source"]["selector"], "has(projectcalico.org/namespace)");
}

#[test]
fn endpoints_of_the_first_api_keep_who_they_are() {
    let endpoint = |orchestrator: &str, workload: &str| {
        let text = format!(
            "apiVersion: v1\nkind: workloadEndpoint\n\
             metadata: {{name: eth0, node: Rack_1, orchestrator: {orchestrator}, workload: '{workload}', \
             activeInstanceID: c0, labels: {{calico/k8s_ns: shop}}}}\n\
             spec: {{interfaceName: cali0, ipNetworks: ['fd00::1', 10.0.0.1], profiles: [k8s_ns.shop, Web]}}\n"
        );
        converted(&text).map(|values| values[0].clone())
    };
    let value = endpoint("k8s", "shop.front-1").unwrap();
    assert_eq!(
        value["metadata"],
        serde_json::json!({
            "name": "rack--1-k8s-front--1-eth0",
            "namespace": "shop",
            "labels": {"projectcalico.org/namespace": "shop"},
        })
    );
    assert_eq!((&value["spec"]["pod"], &value["spec"]["containerID"]), (&"front-1".into(), &"c0".into()));
    assert_eq!(value["spec"]["ipNetworks"], serde_json::json!(["10.0.0.1/32", "fd00::1/128"]));
    assert_eq!(value["spec"]["profiles"][0], "kns.shop");
    assert_eq!(endpoint("cni", "c1").unwrap()["metadata"]["name"], "rack--1-cni-c1-eth0");
    assert_eq!(
        endpoint("libnetwork", "x").unwrap()["metadata"]["name"],
        "rack--1-libnetwork-libnetwork-eth0"
    );
    assert_eq!(
        endpoint("k8s", "front").unwrap_err(),
        "Failed to convert resource: malformed k8s workload ID 'front': workload was not added through the Calico CNI \
         plugin and cannot be converted"
    );
    let error = endpoint("k8s", "shop.-front").unwrap_err();
    assert!(error.ends_with("error with field pod = '-front' (field must not begin with a '-')"), "{error}");
}

#[test]
fn what_has_no_conversion_is_refused() {
    for (text, error) in [
        (
            "kind: bgpPeer\nmetadata: {scope: global, node: n, peerIP: 10.0.0.1}",
            "With Global scope having a Node is invalid",
        ),
        (
            "kind: bgpPeer\nmetadata: {scope: node, peerIP: 10.0.0.1}",
            "With Node scope a Node must be defined",
        ),
        (
            "kind: node\nmetadata: {name: n}\nspec: {bgp: {asNumber: 1}}",
            "Invalid NodeBGPSpec, missing address",
        ),
        (
            "kind: profile\nmetadata: {name: p, tags: [a], labels: {a: b}}",
            "Tag: 'a' and Label 'a == b' have the same value for Profile: p. Change the Label key before proceeding",
        ),
    ] {
        let error = format!("Failed to convert resource: {error}");
        assert_eq!(converted(&format!("apiVersion: v1\n{text}\n")).unwrap_err(), error);
    }
    let present = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\n";
    assert_eq!(
        converted(present).unwrap_err(),
        "Failed to create resources from file: unknown resource type (Tier) and/or version (projectcalico.org/v3)"
    );
}

#[test]
fn policies_of_kubernetes_become_calicos() {
    let text = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop, labels: {a: b}}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 10.1.0.0/16, except: [10.1.2.0/24]}
    - namespaceSelector: {}
    ports:
    - {port: 443}
    - {port: 80, endPort: 90}
    - {port: 91}
    - {port: dns, protocol: UDP}
    - {protocol: SCTP}
";
    let value = converted(text).unwrap()[0].clone();
    assert_eq!(value["metadata"], serde_json::json!({"name": "web", "namespace": "shop"}));
    let spec = &value["spec"];
    assert_eq!(spec["tier"], "default");
    assert_eq!(spec["selector"], "projectcalico.org/orchestrator == 'k8s' && role == 'db'");
    assert_eq!((&spec["order"], &spec["types"]), (&1000.into(), &serde_json::json!(["Ingress"])));
    let rules: Vec<_> = spec["ingress"].as_array().unwrap().iter().collect();
    let asked: Vec<_> =
        rules.iter().map(|rule| (rule["protocol"].clone(), rule["destination"]["ports"].clone())).collect();
    let tcp = serde_json::json!(["80:91", 443]);
    let both = |one: (serde_json::Value, serde_json::Value)| [one.clone(), one];
    let expected = [
        both(("SCTP".into(), serde_json::Value::Null)),
        both(("TCP".into(), tcp)),
        both(("UDP".into(), serde_json::json!(["dns"]))),
    ];
    assert_eq!(asked, expected.concat());
    assert_eq!(rules[0]["source"], serde_json::json!({"nets": ["10.1.0.0/16"], "notNets": ["10.1.2.0/24"]}));
    assert_eq!(
        rules[1]["source"],
        serde_json::json!({"selector": "projectcalico.org/orchestrator == 'k8s'", "namespaceSelector": "all()"})
    );
    assert!(
        converted(&text.replace("port: 443", "port: '-50:-1'"))
            .unwrap_err()
            .contains("policy: web: error with rule")
    );
}
