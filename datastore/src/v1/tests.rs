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
            rule("(namespace == 'default') && has(t)", "10.0.0.1/32"),
        ],
        egress: vec![PolicyRule::any(Action::Allow)],
        ..NetworkPolicy::empty(policy.key.clone())
    };
    assert_eq!(*policy, expected);
    assert_eq!(policy.key.to_string(), "GlobalNetworkPolicy(namespace-default)");

    let labels: Vec<_> =
        profile.labels_to_apply.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["a=b", "t="]);
    let rule = &profile.ingress[0];
    assert_eq!((rule.protocol, rule.not_protocol), (Some(Protocol::TCP), Some(Protocol::UDP_LITE)));
    assert_eq!(rule.source.nets, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(rule.source.not_selector.as_deref(), Some("has(u)"));
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
            "IPPool(192.168.0.0-16)",
            "BGPPeer(rack1-host1.192.168.1.1)",
            "Node(rack1-host1)",
            "HostEndpoint(eth0)"
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
            "f.yaml:21:15: GlobalNetworkPolicy(namespace-default): spec.ingress[0].action: \"Refuse\" is none of Allow, \
          Deny, Log, Pass"
        ]
    );
    // Kubernetes' own resources have that version, too.
    assert!(
        read("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n").unwrap_err()[0].contains("is not known")
    );
}
