//! What a start makes of a store.

use std::sync::atomic::AtomicUsize;

use datastore::ipam::{Ipam, Use};
use datastore::{Key, Listed, MemoryStore, Revision, Stored, Under};
use model::InterfaceAddr;
use serde_json::{Value, json};

use super::*;

fn interfaces() -> Vec<HostInterface> {
    let addresses =
        |texts: &[&str]| texts.iter().map(|text| text.parse::<InterfaceAddr>().unwrap()).collect();
    vec![
        HostInterface { name: "lo".to_owned(), addresses: addresses(&["127.0.0.1/8"]) },
        HostInterface {
            name: "eth0".to_owned(),
            addresses: addresses(&["192.0.2.11/24", "2001:db8::11/64"]),
        },
    ]
}

fn variables(pairs: &[(&'static str, &str)]) -> Variables {
    Variables(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
}

fn started(store: &MemoryStore, pairs: &[(&'static str, &str)]) -> Result<(), String> {
    start(store, "node1", &variables(pairs), &interfaces()).map_err(|error| format!("{error:#}"))
}

fn value(store: &MemoryStore, kind: ResourceKind, name: &str) -> Value {
    store.get(&resources::key(kind, name)).unwrap().value
}

fn put(store: &MemoryStore, kind: ResourceKind, name: &str, spec: Value) {
    let key = resources::key(kind, name);
    let value = json!({"metadata": {"name": name}, "spec": spec});
    match store.get(&key) {
        Ok(there) => store.update(&key, &value, there.revision).unwrap(),
        Err(_) => store.create(&key, &value).unwrap(),
    };
}

fn names(store: &MemoryStore, kind: ResourceKind) -> Vec<String> {
    let stored = store.list(&Under::Kind { kind, namespace: None }).unwrap().stored;
    stored.iter().map(|stored| stored.value["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

const NO_POOLS: (&str, &str) = ("NO_DEFAULT_POOLS", "true");

#[test]
fn an_empty_datastore_gets_what_every_cluster_has() {
    let store = MemoryStore::default();
    started(&store, &[("CALICO_IPV4POOL_IPIP", "CrossSubnet"), ("CALICO_IPV6POOL_CIDR", "none")]).unwrap();
    let node = value(&store, ResourceKind::Node, "node1");
    assert_eq!(node["spec"]["bgp"]["ipv4Address"], json!("192.0.2.11/24"));
    assert_eq!(node["spec"]["bgp"].get("ipv6Address"), None, "IPv6 is asked for or left");
    assert_eq!(
        (node["kind"].as_str(), node["apiVersion"].as_str()),
        (Some("Node"), Some("projectcalico.org/v3"))
    );
    assert!(node["metadata"]["uid"].is_string() && node["metadata"]["creationTimestamp"].is_string());

    let pool = value(&store, ResourceKind::IpPool, "default-ipv4-ippool");
    assert_eq!(
        pool["spec"].to_string(),
        r#"{"cidr":"192.168.0.0/16","vxlanMode":"Never","ipipMode":"CrossSubnet","natOutgoing":true,"blockSize":26,"#.to_owned()
            + r#""nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}"#
    );
    assert_eq!(names(&store, ResourceKind::Tier), ["default", "kube-admin", "kube-baseline"]);
    assert_eq!(
        value(&store, ResourceKind::Tier, "default")["spec"],
        json!({"order": 1_000_000, "defaultAction": "Deny"})
    );
    let cluster = value(&store, ResourceKind::ClusterInformation, "default");
    assert_eq!(cluster["spec"]["clusterGUID"].as_str().map(str::len), Some(32));
    assert_eq!(cluster["spec"]["datastoreReady"], json!(true));
    assert_eq!(names(&store, ResourceKind::FelixConfiguration), ["default", "node.node1"]);

    let tunnel = node["spec"]["bgp"]["ipv4IPIPTunnelAddr"].as_str().unwrap().parse().unwrap();
    let held = Ipam::new(&store).assignment(tunnel).unwrap();
    assert_eq!(held.handle(), Some("ipip-tunnel-addr-node1"));
    assert_eq!(held.owner["type"], "ipipTunnelAddress");
    assert_eq!(held.owner["node"], "node1");
}

#[test]
fn a_second_start_changes_nothing() {
    let store = MemoryStore::default();
    let said =
        [("CALICO_IPV4POOL_VXLAN", "Always"), ("CALICO_IPV6POOL_CIDR", "fd00:7::/48"), ("AS", "64513")];
    started(&store, &said).unwrap();
    let last = |store: &MemoryStore| store.list(&Under::Handles).unwrap().revision;
    let before = last(&store);
    started(&store, &said).unwrap();
    let node = value(&store, ResourceKind::Node, "node1");
    assert_eq!(node["spec"]["bgp"]["asNumber"], json!(64_513));
    assert_eq!(last(&store), before);
}

#[test]
fn an_operators_node_is_completed() {
    let store = MemoryStore::default();
    put(&store, ResourceKind::Node, "node1", json!({"bgp": {"routeReflectorClusterID": "1.0.0.1"}}));
    started(&store, &[NO_POOLS, ("IP6", "autodetect"), ("CALICO_K8S_NODE_REF", "k1"), ("AS", "1.10")])
        .unwrap();
    assert_eq!(
        value(&store, ResourceKind::Node, "node1")["spec"],
        json!({
            "bgp": {
                "routeReflectorClusterID": "1.0.0.1", "ipv4Address": "192.0.2.11/24",
                "ipv6Address": "2001:db8::11/64", "asNumber": 65_546,
            },
            "interfaces": [{"name": "eth0", "addresses": ["2001:db8::11"]}],
            "orchRefs": [{"nodeName": "k1", "orchestrator": "k8s"}],
        })
    );
    put(&store, ResourceKind::Node, "node1", json!({"bgp": {"ipv4Address": "203.0.113.5/24"}}));
    started(&store, &[NO_POOLS]).unwrap();
    let stored = value(&store, ResourceKind::Node, "node1")["spec"]["bgp"]["ipv4Address"].clone();
    assert_eq!(stored, json!("203.0.113.5/24"), "what is there stays unless somebody asks");
    started(&store, &[NO_POOLS, ("IP", "192.0.2.11")]).unwrap();
    let stored = value(&store, ResourceKind::Node, "node1")["spec"]["bgp"]["ipv4Address"].clone();
    assert_eq!(stored, json!("192.0.2.11/24"), "with the length of the host's interface");
}

#[test]
fn the_hosts_interfaces_are_told_where_addresses_are_asked_for() {
    let store = MemoryStore::default();
    let told = |said: &[(&'static str, &str)]| {
        started(&store, &[&[NO_POOLS], said].concat()).unwrap();
        value(&store, ResourceKind::Node, "node1")["spec"]["interfaces"].clone()
    };
    let with = |addresses: Value| json!([{"name": "eth0", "addresses": addresses}]);
    assert_eq!(told(&[]), Value::Null);
    assert_eq!(told(&[("IP", "autodetect")]), with(json!(["192.0.2.11"])));
    assert_eq!(told(&[("IP", "192.0.2.11/24"), ("IP6", "none")]), with(json!(["192.0.2.11"])));
    assert_eq!(
        told(&[("IP", "autodetect"), ("IP6", "autodetect")]),
        with(json!(["192.0.2.11", "2001:db8::11"]))
    );
    assert_eq!(told(&[("IP", "none")]), Value::Null);
}

#[test]
fn a_method_that_finds_nothing_leaves_what_is_there_but_one_that_is_none_is_a_mistake() {
    let store = MemoryStore::default();
    started(&store, &[NO_POOLS]).unwrap();
    let again = |method: &'static str| {
        started(&store, &[NO_POOLS, ("IP", "autodetect"), ("IP_AUTODETECTION_METHOD", method)])
    };
    for method in ["interface=wlan.*", "cidr=10.0.0.0/8,nonsense", "kubernetes-internal-ip"] {
        again(method).unwrap();
        let node = value(&store, ResourceKind::Node, "node1");
        assert_eq!(node["spec"]["bgp"]["ipv4Address"], json!("192.0.2.11/24"), "{method}");
    }
    assert_eq!(again("fastest"), Err("Invalid IP autodetection method: fastest".to_owned()));
}

#[test]
fn policy_alone_needs_no_addresses() {
    let store = MemoryStore::default();
    started(&store, &[NO_POOLS, ("CALICO_NETWORKING_BACKEND", "none"), ("AS", "64513"), ("IP", "none")])
        .unwrap();
    assert_eq!(value(&store, ResourceKind::Node, "node1")["spec"], json!({}));
}

#[test]
fn what_can_not_be_is_refused_with_a_reason() {
    for (said, why) in [
        (
            vec![("IP_AUTODETECTION_METHOD", "interface=wlan0")],
            "failed to autodetect an IPv4 address: no valid host interfaces found; choose another method by IP_AUTODETECTION_METHOD or name one by IP",
        ),
        (vec![("IP", "2001:db8::1")], "environment does not contain a valid IPv4 address: IP=2001:db8::1"),
        (
            vec![("IP", "none")],
            "no IPv4 or IPv6 addresses configured or detected, required for Calico networking",
        ),
        (vec![("AS", "x")], "the AS number specified in the environment (AS=x) is not valid"),
        (
            vec![NO_POOLS, ("CALICO_IPV4POOL_CIDR", "10.0.0.0/16")],
            "Invalid configuration with NO_DEFAULT_POOLS defined and CALICO_IPV4POOL_CIDR or CALICO_IPV6POOL_CIDR defined.",
        ),
        (
            vec![("CALICO_IPV4POOL_CIDR", "fd00::/64")],
            "Invalid CIDR specified in CALICO_IPV4POOL_CIDR 'fd00::/64'",
        ),
        (
            vec![("CALICO_IPV4POOL_IPIP", "sometimes")],
            "Unrecognized mode specified in CALICO_IPV4POOL_IPIP 'sometimes'; use Always, CrossSubnet or Never",
        ),
        (
            vec![("CALICO_IPV4POOL_BLOCK_SIZE", "33")],
            "CALICO_IPV4POOL_BLOCK_SIZE=33 is no block size; use 20..=32",
        ),
        (vec![("CALICO_IPV4POOL_NODE_SELECTOR", "rack ==")], "CALICO_IPV4POOL_NODE_SELECTOR='rack =='"),
    ] {
        let store = MemoryStore::default();
        let error = started(&store, &said).unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }
}

#[test]
fn two_nodes_have_no_address_in_common() {
    let store = MemoryStore::default();
    put(&store, ResourceKind::Node, "other", json!({"bgp": {"ipv4Address": "192.0.2.11/24"}}));
    let error = started(&store, &[NO_POOLS]).unwrap_err();
    assert!(error.starts_with("IPv4 address conflict: node 'other' has it already"), "{error}");
    assert_eq!(names(&store, ResourceKind::Node), ["other"]);
    started(&store, &[NO_POOLS, ("DISABLE_NODE_IP_CHECK", "true")]).unwrap();
}

#[test]
fn a_node_that_lost_its_address_keeps_it_from_nobody() {
    let store = MemoryStore::default();
    put(&store, ResourceKind::Node, "node1", json!({"bgp": {"ipv4Address": "203.0.113.5/24"}}));
    put(&store, ResourceKind::Node, "other", json!({"bgp": {"ipv4Address": "192.0.2.11/24"}}));
    started(&store, &[NO_POOLS, ("IP", "autodetect")]).unwrap_err();
    assert_eq!(value(&store, ResourceKind::Node, "node1")["spec"], json!({}));
}

#[test]
fn a_default_pool_keeps_clear_of_the_hosts_own_addresses() {
    let store = MemoryStore::default();
    let mut interfaces = interfaces();
    interfaces[1]
        .addresses
        .extend(["192.168.7.7/24", "172.16.0.1/16"].map(|text| text.parse::<InterfaceAddr>().unwrap()));
    start(&store, "node1", &variables(&[("CALICO_IPV6POOL_CIDR", "none")]), &interfaces).unwrap();
    let pool = value(&store, ResourceKind::IpPool, "default-ipv4-ippool");
    assert_eq!(pool["spec"]["cidr"], json!("172.17.0.0/16"));
}

#[test]
fn a_family_that_has_a_pool_gets_no_other() {
    let store = MemoryStore::default();
    put(&store, ResourceKind::IpPool, "mine", json!({"cidr": "10.65.0.0/16"}));
    started(&store, &[("CALICO_IPV6POOL_CIDR", "none")]).unwrap();
    assert_eq!(names(&store, ResourceKind::IpPool), ["mine"]);
}

#[test]
fn tunnels_have_addresses_while_pools_ask_for_them() {
    let store = MemoryStore::default();
    put(&store, ResourceKind::IpPool, "a", json!({"cidr": "10.1.0.0/16", "ipipMode": "Always"}));
    put(&store, ResourceKind::IpPool, "b", json!({"cidr": "10.2.0.0/16", "vxlanMode": "CrossSubnet"}));
    put(&store, ResourceKind::IpPool, "c", json!({"cidr": "fd00::/112", "vxlanMode": "Always"}));
    started(&store, &[]).unwrap();
    let field = |path: &[&str]| {
        let node = value(&store, ResourceKind::Node, "node1");
        path.iter().fold(&node["spec"], |value, name| &value[*name]).as_str().map(str::to_owned)
    };
    let starts = |path: &[&str], with: &str| field(path).is_some_and(|addr| addr.starts_with(with));
    assert!(starts(&["bgp", "ipv4IPIPTunnelAddr"], "10.1."));
    assert!(starts(&["ipv4VXLANTunnelAddr"], "10.2."));
    assert!(starts(&["ipv6VXLANTunnelAddr"], "fd00::"));

    // Another pool asks instead: the address moves.
    put(&store, ResourceKind::IpPool, "a", json!({"cidr": "10.1.0.0/16"}));
    put(&store, ResourceKind::IpPool, "d", json!({"cidr": "10.4.0.0/16", "ipipMode": "CrossSubnet"}));
    tunnels::reconcile(&store, "node1").unwrap();
    assert!(starts(&["bgp", "ipv4IPIPTunnelAddr"], "10.4."));
    assert_eq!(Ipam::new(&store).addresses_of("ipip-tunnel-addr-node1").unwrap().len(), 1);

    // None does: it is given back.
    for pool in ["b", "d"] {
        put(&store, ResourceKind::IpPool, pool, json!({"cidr": "10.4.0.0/16"}));
    }
    put(
        &store,
        ResourceKind::IpPool,
        "c",
        json!({"cidr": "fd00::/112", "vxlanMode": "Always", "disabled": true}),
    );
    tunnels::reconcile(&store, "node1").unwrap();
    assert_eq!(field(&["bgp", "ipv4IPIPTunnelAddr"]), None);
    assert_eq!((field(&["ipv4VXLANTunnelAddr"]), field(&["ipv6VXLANTunnelAddr"])), (None, None));
    assert_eq!(store.list(&Under::Handles).unwrap().stored, []);
}

#[test]
fn a_tunnels_address_that_is_another_s_is_left_to_it() {
    let store = MemoryStore::default();
    put(&store, ResourceKind::IpPool, "a", json!({"cidr": "10.1.0.0/16", "ipipMode": "Always"}));
    put(&store, ResourceKind::Node, "node1", json!({"bgp": {"ipv4Address": "192.0.2.11/24"}}));
    let ipam = Ipam::new(&store);
    let request = datastore::ipam::AutoAssign {
        count: 1,
        family: Family::V4,
        node: "node1",
        handle: Some("pod"),
        owner: BTreeMap::from([("pod".to_owned(), "web-0".to_owned())]),
        pools: &[],
        namespace: BTreeMap::new(),
        usage: Use::Workload,
        max_blocks: 0,
    };
    let pods = ipam.auto_assign(&request).unwrap().addresses[0];
    put(
        &store,
        ResourceKind::Node,
        "node1",
        json!({"bgp": {"ipv4Address": "192.0.2.11/24", "ipv4IPIPTunnelAddr": pods.to_string()}}),
    );
    tunnels::reconcile(&store, "node1").unwrap();
    let node = value(&store, ResourceKind::Node, "node1");
    assert_ne!(node["spec"]["bgp"]["ipv4IPIPTunnelAddr"], json!(pods.to_string()));
    assert_eq!(ipam.assignment(pods).unwrap().handle(), Some("pod"));
    assert!(store.get(&Key::Handle("ipip-tunnel-addr-node1".to_owned())).is_ok());
}

/// A store where somebody else writes a moment before, a few times.
struct Contested(MemoryStore, AtomicUsize);

impl Store for Contested {
    fn get(&self, key: &Key) -> Result<Stored, StoreError> {
        self.0.get(key)
    }

    fn list(&self, under: &Under) -> Result<Listed, StoreError> {
        self.0.list(under)
    }

    fn create(&self, key: &Key, value: &Value) -> Result<Revision, StoreError> {
        self.0.create(key, value)
    }

    fn update(&self, key: &Key, value: &Value, revision: Revision) -> Result<Revision, StoreError> {
        let is_nodes = *key == resources::key(ResourceKind::Node, "node1");
        let less_one = |left: usize| left.checked_sub(1);
        if is_nodes && self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less_one).is_ok() {
            return Err(StoreError::Conflict(key.clone()));
        }
        self.0.update(key, value, revision)
    }

    fn put(&self, key: &Key, value: &Value, lifetime: Option<Duration>) -> Result<Revision, StoreError> {
        self.0.put(key, value, lifetime)
    }

    fn delete(&self, key: &Key, revision: Option<Revision>) -> Result<Stored, StoreError> {
        self.0.delete(key, revision)
    }
}

#[test]
fn a_node_that_others_write_too_is_completed_all_the_same() {
    let started_after = |conflicts| {
        let store = Contested(MemoryStore::default(), AtomicUsize::new(conflicts));
        put(&store.0, ResourceKind::Node, "node1", json!({}));
        let pairs = variables(&[("CALICO_IPV4POOL_IPIP", "Always"), ("CALICO_IPV6POOL_CIDR", "none")]);
        start(&store, "node1", &pairs, &interfaces()).map(|()| store.0)
    };
    let store = started_after(ATTEMPTS - 1).unwrap();
    let tunnel = value(&store, ResourceKind::Node, "node1")["spec"]["bgp"]["ipv4IPIPTunnelAddr"].clone();
    let addr = tunnel.as_str().unwrap().parse().unwrap();
    let held = Ipam::new(&store).assignment(addr).unwrap();
    assert_eq!(held.handle.as_deref(), Some("ipip-tunnel-addr-node1"));
    assert!(started_after(ATTEMPTS).is_err(), "somebody writes all the time");
}
