//! The client on a store in memory.

use serde_json::json;

use super::*;
use crate::MemoryStore;

fn object(value: serde_json::Value) -> ApiObject {
    let kind = ResourceKind::named(value["kind"].as_str().unwrap()).unwrap();
    let mut object = ApiObject::decode(kind, &value).unwrap();
    object.default_namespace();
    object
}

fn with_spec(kind: &str, name: &str, spec: serde_json::Value) -> ApiObject {
    object(json!({ "kind": kind, "metadata": { "name": name }, "spec": spec }))
}

fn initialized() -> MemoryStore {
    let store = MemoryStore::default();
    Client::new(&store).ensure_initialized().unwrap();
    store
}

#[test]
fn a_pool_is_stored_with_its_defaults_in_gos_order() {
    let store = initialized();
    let client = Client::new(&store);
    client
        .create_new(&with_spec("IPPool", "pool1", json!({ "cidr": "10.1.0.0/16", "natOutgoing": true })))
        .unwrap();
    let key = Key::Resource(ResourceKey {
        kind: ResourceKind::IpPool,
        namespace: String::new(),
        name: "pool1".to_owned(),
    });
    let mut stored = store.get(&key).unwrap().value;
    for field in ["uid", "creationTimestamp"] {
        assert!(stored["metadata"].as_object_mut().unwrap().shift_remove(field).is_some(), "{field}");
    }
    let expected = r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"pool1"},"spec":{"cidr":"10.1.0.0/16","vxlanMode":"Never","ipipMode":"Never","natOutgoing":true,"blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}"#;
    assert_eq!(stored.to_string(), expected);
}

#[test]
fn what_go_never_leaves_out_is_written_though_it_is_empty() {
    let written = |value| object(value).value().clone();
    let bare = json!({ "metadata": { "name": "a" } });
    for (kind, empty) in [("Node", json!({ "spec": {}, "status": {} })), ("Tier", json!({ "spec": {} }))] {
        let mut value = bare.clone();
        value["kind"] = kind.into();
        let written = written(value);
        for (field, empty) in empty.as_object().unwrap() {
            assert_eq!(&written[field], empty, "{kind} {field}");
        }
    }
    let report = json!({ "kind": "CalicoNodeStatus", "metadata": { "name": "a" }, "spec": { "node": "n" } });
    let agent = json!({ "birdV4": {}, "birdV6": {} });
    let status = &written(report)["status"];
    assert_eq!((&status["agent"], &status["routes"]), (&agent, &json!({})));
    assert_eq!(
        (status.get("lastUpdated"), &status["bgp"]["numberEstablishedV4"]),
        (Some(&json!(null)), &json!(0))
    );
    let rules = json!({ "ingress": [{ "action": "Allow", "source": {} }] });
    assert_eq!(with_spec("NetworkPolicy", "a", rules).spec("ingress"), &json!([{ "action": "Allow" }]));
}

#[test]
fn an_icmp_code_without_a_type_is_refused_in_calicos_words() {
    let rule = json!({ "action": "Allow", "protocol": "ICMP", "icmp": { "code": 1 } });
    let error = check(&with_spec("GlobalNetworkPolicy", "a", json!({ "ingress": [rule] })));
    assert_eq!(
        error.unwrap_err().to_string(),
        "error with field Code = '1' (ICMP code specified without an ICMP type)"
    );
}

#[test]
fn what_kubernetes_says_about_a_policy_is_one_of_its_fields() {
    let condition = json!({
        "type": "Valid", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Valid", "message": "",
    });
    for kind in ["NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"] {
        let policy =
            json!({ "kind": kind, "metadata": { "name": "a" }, "status": { "conditions": [&condition] } });
        assert_eq!(object(policy).value()["status"]["conditions"][0], condition, "{kind}");
    }
}

#[test]
fn a_pool_that_breaks_rules_is_refused_with_every_field_that_does() {
    let store = initialized();
    let client = Client::new(&store);
    let refused =
        |name: &str, spec| client.create_new(&with_spec("IPPool", name, spec)).unwrap_err().to_string();
    assert_eq!(
        refused("small", json!({ "cidr": "10.0.250.0/32", "ipipMode": "Always" })),
        "error with field IPPool.Spec.CIDR = '10.0.250.0/32' (IP pool size is too small for use with Calico IPAM. It must \
         be equal to or greater than the block size.)"
    );
    assert!(refused("bad", json!({ "cidr": "10.0.1.0/33" })).contains("CIDR = '10.0.1.0/33'"));
    assert!(
        refused("unmasked", json!({ "cidr": "fd5f::1/123" })).contains("IPPool.Spec.CIDR = 'fd5f::/123'")
    );
    client.create_new(&with_spec("IPPool", "pool1", json!({ "cidr": "10.1.0.0/16" }))).unwrap();
    assert_eq!(
        refused("pool2", json!({ "cidr": "10.1.128.0/17" })),
        "error with field IPPool.Spec.CIDR = '10.1.128.0/17' (IPPool(pool2) CIDR overlaps with IPPool(pool1) CIDR \
         10.1.0.0/16)"
    );
}

#[test]
fn a_policy_needs_its_tier_and_is_shown_with_it() {
    let store = initialized();
    let client = Client::new(&store);
    let policy = with_spec(
        "GlobalNetworkPolicy",
        "admin.web",
        json!({ "tier": "admin", "egress": [{ "action": "Allow" }] }),
    );
    assert_eq!(
        client.create_new(&policy).unwrap_err().to_string(),
        "resource does not exist: Tier(admin) with error: <nil>"
    );
    client.create_new(&with_spec("Tier", "admin", json!({ "order": 10 }))).unwrap();
    client.create_new(&policy).unwrap();
    let read = client.get(ResourceKind::GlobalNetworkPolicy, "", "admin.web").unwrap();
    assert_eq!(read.label(TIER_LABEL), Some("admin"));
    assert_eq!(read.spec("types"), &json!(["Egress"]));
    assert_eq!(read.value()["metadata"].get("annotations"), None, "the note of its name is the store's");
    let tier = ApiObject::named(ResourceKind::Tier, "", "admin");
    assert_eq!(
        client.delete(&tier).unwrap_err().to_string(),
        "operation delete is not supported on admin: Cannot delete a non-empty tier"
    );
    client.delete(&ApiObject::named(ResourceKind::GlobalNetworkPolicy, "", "admin.web")).unwrap();
    client.delete(&tier).unwrap();
    let default = ApiObject::named(ResourceKind::Tier, "", "default");
    assert!(client.delete(&default).unwrap_err().to_string().ends_with("Cannot delete default tier"));
}

#[test]
fn policies_of_older_stores_go_by_their_names_without_the_default_tier() {
    let store = initialized();
    let old = |name: &str| {
        let key = ResourceKey {
            kind: ResourceKind::NetworkPolicy,
            namespace: "default".to_owned(),
            name: name.to_owned(),
        };
        let value = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": {} });
        store.create(&Key::Resource(key), &value).unwrap();
    };
    old("default.web");
    let listed = Client::new(&store).list(ResourceKind::NetworkPolicy, None).unwrap();
    assert_eq!(listed.items[0].name(), "web");
    assert_eq!(listed.items[0].spec_text("tier"), "default");
}

#[test]
fn a_replacement_changes_labels_but_no_other_metadata() {
    let store = initialized();
    let client = Client::new(&store);
    let endpoint = |metadata: serde_json::Value| {
        object(json!({
            "kind": "HostEndpoint", "metadata": metadata, "spec": { "node": "host1", "interfaceName": "eth0" }
        }))
    };
    let first =
        client.apply(&endpoint(json!({ "name": "e", "labels": { "type": "db" }, "uid": "mine" }))).unwrap();
    assert_ne!(first.metadata("uid"), "mine");
    let second = client.apply(&endpoint(json!({ "name": "e", "uid": "mine", "generation": 3 }))).unwrap();
    assert_eq!(second.metadata("uid"), first.metadata("uid"));
    assert_eq!(second.label("type"), None);
    assert_eq!(second.value()["metadata"].get("generation"), None);
    // An older version is out of date.
    assert_eq!(client.replace(&first).unwrap_err().to_string(), "update conflict: HostEndpoint(e)");
    assert_eq!(client.delete(&first).unwrap_err().to_string(), "update conflict: HostEndpoint(e)");
    client.delete(&second).unwrap();
}

#[test]
fn a_workload_endpoints_name_and_labels_follow_from_its_fields() {
    let store = initialized();
    let client = Client::new(&store);
    let spec = json!({
        "node": "rack1-host1", "orchestrator": "k8s", "pod": "web-0", "endpoint": "eth0", "interfaceName": "cali1",
        "ipNetworks": ["10.1.0.1/32"]
    });
    let created = client.create_new(&with_spec("WorkloadEndpoint", "", spec.clone())).unwrap();
    assert_eq!(created.name(), "rack1--host1-k8s-web--0-eth0");
    assert_eq!(created.label("projectcalico.org/orchestrator"), Some("k8s"));
    assert_eq!(created.label("projectcalico.org/namespace"), Some("default"));
    let refused = client.create_new(&with_spec("WorkloadEndpoint", "other", spec)).unwrap_err().to_string();
    assert!(
        refused.starts_with("error with field Name = 'other' (the WorkloadEndpoint name does not match"),
        "{refused}"
    );
}

#[test]
fn what_nobody_may_write_is_refused_by_name() {
    let store = MemoryStore::default();
    let client = Client::new(&store);
    let cluster = with_spec("ClusterInformation", "default", json!({}));
    let text = |result: Result<ApiObject, ClientError>| result.unwrap_err().to_string();
    assert_eq!(
        text(client.create_new(&cluster)),
        "operation create or apply is not supported on ClusterInformation"
    );
    assert!(text(client.replace(&cluster)).starts_with("resource does not exist"));
    assert_eq!(text(client.delete(&cluster)), "operation delete is not supported on ClusterInformation");
    client.ensure_initialized().unwrap();
    let policy = with_spec("NetworkPolicy", "knp.default.web", json!({}));
    let refusal = text(client.create_new(&policy));
    assert!(refusal.contains("is not supported on"), "{refusal}");
    assert!(
        refusal.contains("kubernetes network policies must be managed through the kubernetes API"),
        "{refusal}"
    );
    assert!(text(client.apply(&policy)).starts_with("resource does not exist"));
    let profile = with_spec("Profile", DEFAULT_ALLOW, json!({}));
    assert_eq!(text(client.create_new(&profile)), "resource already exists: projectcalico-default-allow");
}

#[test]
fn fields_of_the_default_configuration_are_refused_elsewhere() {
    let store = initialized();
    let config = with_spec("BGPConfiguration", "bgpconfiguration1", json!({ "nodeToNodeMeshEnabled": true }));
    let refusal = Client::new(&store).create_new(&config).unwrap_err().to_string();
    assert!(
        refusal.contains("Cannot set nodeToNodeMeshEnabled on a non default BGP Configuration."),
        "{refusal}"
    );
    let config = with_spec("BGPConfiguration", "bgpconfiguration1", json!({ "logSeverityScreen": "Info" }));
    Client::new(&store).create_new(&config).unwrap();
}

#[test]
fn a_broken_rule_is_told_with_gos_name_of_the_field() {
    let store = initialized();
    let client = Client::new(&store);
    for (kind, spec, words) in [
        ("BGPPeer", json!({ "peerIP": "badpeerIP" }), "error with field PeerIP = 'badpeerIP'"),
        ("BGPPeer", json!({ "node": "node 2", "peerIP": "fd5f::6:ee" }), "error with field Node = 'node 2'"),
        (
            "HostEndpoint",
            json!({ "interfaceName": "wibblywobblyeth0", "node": "h" }),
            "error with field InterfaceName = 'wibblywobblyeth0'",
        ),
        (
            "NetworkPolicy",
            json!({ "Egress": [{ "action": "jumpupanddown" }] }),
            "error with field Action = 'jumpupanddown'",
        ),
        (
            "NetworkPolicy",
            json!({ "Egress": [{ "action": "Deny", "protocol": "TCP", "source": { "ports": ["0:65535"] } }] }),
            "error with field Port = '0' (port range invalid, port number must be between 1 and 65535)",
        ),
        (
            "NetworkPolicy",
            json!({ "Egress": [{ "action": "Deny", "protocol": "TCP", "source": { "ports": [0, 10] } }] }),
            "error with field Port = '0' (port range invalid, port number must be between 1 and 65535)",
        ),
        (
            "Profile",
            json!({ "Ingress": [{ "action": "Deny", "protocol": "ICMP", "ICMP": { "type": 256, "code": 255 } }] }),
            "error with field Type = '256'",
        ),
        (
            "Profile",
            json!({ "Ingress": [{ "action": "Deny", "protocol": "ICMP", "ICMP": { "type": 19, "code": 256 } }] }),
            "error with field Code = '256'",
        ),
    ] {
        let refusal = client.create_new(&with_spec(kind, "x", spec)).unwrap_err().to_string();
        assert!(refusal.starts_with(words), "{refusal}");
    }
}

#[test]
fn a_pool_that_goes_takes_its_empty_blocks_along() {
    let store = initialized();
    let client = Client::new(&store);
    client.create_new(&with_spec("IPPool", "pool1", json!({ "cidr": "10.1.0.0/16" }))).unwrap();
    let block = |text: &str| text.parse::<model::Prefix>().unwrap();
    for (cidr, allocations) in [("10.1.0.0/26", json!([null, null])), ("10.1.0.64/26", json!([0, null]))] {
        let value =
            json!({ "cidr": cidr, "affinity": "host:n", "allocations": allocations, "sequenceNumber": 7 });
        store.create(&Key::Block(block(cidr)), &value).unwrap();
        let affinity = Key::Affinity { node: "n".to_owned(), block: block(cidr) };
        store.create(&affinity, &json!({ "state": "confirmed" })).unwrap();
    }
    client.delete(&ApiObject::named(ResourceKind::IpPool, "", "pool1")).unwrap();
    let left = store.list(&Under::Blocks(model::Family::V4)).unwrap().stored;
    assert_eq!(left.len(), 1);
    assert_eq!(
        left[0].value,
        json!({ "cidr": "10.1.0.64/26", "allocations": [0, null], "sequenceNumber": 8 })
    );
    let affinities = Under::Affinities { node: None, family: model::Family::V4 };
    assert_eq!(store.list(&affinities).unwrap().stored, []);
}

#[test]
fn a_node_that_goes_gives_back_its_addresses_and_blocks() {
    let store = initialized();
    let client = Client::new(&store);
    client.create_new(&with_spec("IPPool", "pool1", json!({ "cidr": "10.1.0.0/16" }))).unwrap();
    let spec = json!({ "ipv4VXLANTunnelAddr": "10.1.0.0" });
    client.create_new(&with_spec("Node", "n", spec)).unwrap();
    let block = "10.1.0.0/26".parse::<model::Prefix>().unwrap();
    let ipam = crate::ipam::Ipam::new(&store);
    ipam.claim_affinity(block, "n").unwrap();
    let addr = "10.1.0.0".parse().unwrap();
    let owner = std::collections::BTreeMap::new();
    let taken = crate::ipam::Assign { addr, node: "n", handle: Some("tunnel"), owner, usage: None };
    ipam.assign(&taken).unwrap();
    client.delete(&ApiObject::named(ResourceKind::Node, "", "n")).unwrap();
    assert_eq!(store.list(&Under::Blocks(model::Family::V4)).unwrap().stored, []);
    assert_eq!(store.list(&Under::Handles).unwrap().stored, []);
}
