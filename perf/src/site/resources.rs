//! A large site's resources, as Calico's CNI plugin and its operators write them.

use datastore::{Key, ResourceKey, ResourceKind};
use serde_json::{Value, json};

/// The node that is measured.
pub(super) const NODE: &str = "node0";
/// Endpoints on each node.
const A_NODE: usize = 100;
/// Applications: each has an equal share of endpoints and policies.
const APPLICATIONS: usize = 50;

/// What a node needs besides.
pub(super) fn basics() -> Vec<(Key, Value)> {
    let resource = |kind: ResourceKind, name: &str, spec: Value| {
        let value = json!({
            "kind": kind.name(), "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec,
        });
        (Key::Resource(ResourceKey { kind, namespace: String::new(), name: name.to_owned() }), value)
    };
    let allow = json!([{"action": "Allow"}]);
    let profile = json!({"ingress": allow, "egress": allow, "labelsToApply": {"pcns.team": "a"}});
    vec![
        resource(ResourceKind::Node, NODE, json!({"bgp": {"ipv4Address": "192.0.2.1/24"}})),
        resource(ResourceKind::BgpConfiguration, "default", json!({"nodeToNodeMeshEnabled": false})),
        resource(ResourceKind::IpPool, "pool", json!({"cidr": "10.0.0.0/8"})),
        resource(ResourceKind::Profile, "kns.default", profile),
    ]
}

/// Endpoint number *n*; `change` stands in a label.
pub(super) fn endpoint(number: usize, change: usize) -> (Key, Value) {
    let (node, pod) = (number / A_NODE, number % A_NODE);
    let name = format!("node{node}-k8s-web{pod}-eth0");
    let address = format!("10.{}.{}.{}/32", number >> 16, number >> 8 & 255, number & 255);
    let value = json!({
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": "default", "uid": "5ad8bb2c-0e3d-4a5f-9f8c-2f6b3ef5ab34",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": format!("app{}", number % APPLICATIONS), "change": change.to_string(),
                "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"}},
        "spec": {"orchestrator": "k8s", "node": format!("node{node}"), "pod": format!("web{pod}"), "endpoint": "eth0",
            "interfaceName": format!("cali{number:x}"), "mac": "ca:fe:1d:52:bb:e9",
            "ipNetworks": [address], "profiles": ["kns.default", "ksa.default.default"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    });
    let key = ResourceKey { kind: ResourceKind::WorkloadEndpoint, namespace: "default".to_owned(), name };
    (Key::Resource(key), value)
}

/// Policy number *n*: an application is reached by itself and by the next one.
pub(super) fn policy(number: usize) -> (Key, Value) {
    let name = format!("policy{number}");
    let application = |number: usize| format!("app == 'app{}'", number % APPLICATIONS);
    let rule = |from: usize| {
        json!({"action": "Allow", "protocol": "TCP", "source": {"selector": application(from)},
            "destination": {"ports": [80, "8000:8100", 9000 + number % 1000]}})
    };
    let value = json!({
        "kind": "NetworkPolicy", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": "default",
            "annotations": {"projectcalico.org/metadata": json!({"name": name}).to_string()}},
        "spec": {"tier": "default", "order": number, "selector": application(number),
            "types": ["Ingress", "Egress"], "ingress": [rule(number), rule(number + 1)],
            "egress": [{"action": "Allow"}]},
    });
    let key = ResourceKey { kind: ResourceKind::NetworkPolicy, namespace: "default".to_owned(), name };
    (Key::Resource(key), value)
}
