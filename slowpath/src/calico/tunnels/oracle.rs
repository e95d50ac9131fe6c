//! Felix's own expectations: a datastore's contents in, routes to other nodes' workloads out (`calc_states.jsonl`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use model::{AllocationAttributes, IpamBlock, Resource, Update, WorkloadEndpoint};
use serde_json::Value;

use super::*;

const HERE: &str = "localhostname";

fn oracle() -> Option<String> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    let folder = std::env::var_os("TORTIE_ORACLES").map_or_else(default, PathBuf::from);
    std::fs::read_to_string(folder.join("calc_states.jsonl")).ok()
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn parsed<T: std::str::FromStr>(value: &Value) -> Option<T> {
    text(value)?.parse().ok()
}

/// The nodes of a state, whose tunnel addresses stand apart from their resources.
fn nodes(datastore: &[Value]) -> BTreeMap<String, Node> {
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    let mut of = |name: &str, change: &dyn Fn(&mut Node)| {
        let node = Node { name: name.to_owned(), ..Node::default() };
        change(nodes.entry(name.to_owned()).or_insert(node));
    };
    for (key, value) in datastore.iter().map(|entry| (&entry["Key"], &entry["Value"])) {
        match (key["_type"].as_str(), key["Kind"].as_str().or(key["Name"].as_str())) {
            (Some("ResourceKey"), Some("Node")) => of(key["Name"].as_str().unwrap(), &|node| {
                let bgp = &value["Spec"]["BGP"];
                (node.ipv4, node.ipv6) = (parsed(&bgp["IPv4Address"]), parsed(&bgp["IPv6Address"]));
            }),
            (Some("HostConfigKey"), Some(setting)) => {
                of(key["Hostname"].as_str().unwrap(), &|node| match setting {
                    "IPv4VXLANTunnelAddr" => node.vxlan_tunnel_addr = parsed(value),
                    "IPv6VXLANTunnelAddr" => node.vxlan_tunnel_addr_v6 = parsed(value),
                    "VXLANTunnelMACAddr" => node.vxlan_tunnel_mac = parsed(value),
                    "VXLANTunnelMACAddrV6" => node.vxlan_tunnel_mac_v6 = parsed(value),
                    _ => {}
                })
            }
            _ => {}
        }
    }
    // Many states have no resource of the node under test, whose tunnels need one.
    let here = nodes.entry(HERE.to_owned()).or_insert(Node { name: HERE.to_owned(), ..Node::default() });
    here.ipv4.get_or_insert("192.168.0.1/32".parse().unwrap());
    here.ipv6.get_or_insert("dead:beef:1::1/128".parse().unwrap());
    nodes
}

fn pool(value: &Value) -> IpPool {
    let mode = |name: &str| match value[name].as_str() {
        Some("always") => EncapMode::Always,
        Some("cross-subnet") => EncapMode::CrossSubnet,
        _ => EncapMode::Never,
    };
    IpPool {
        name: value["CIDR"].as_str().unwrap().to_owned(),
        cidr: parsed(&value["CIDR"]).unwrap(),
        ipip_mode: mode("IPIPMode"),
        vxlan_mode: mode("VXLANMode"),
        nat_outgoing: value["Masquerade"] == Value::Bool(true),
        disabled: false,
        disable_bgp_export: false,
    }
}

fn block(value: &Value) -> IpamBlock {
    let attributes = list(&value["Attributes"]).iter().map(|attributes| {
        let owner = attributes["ActiveOwnerAttrs"].as_object().into_iter().flatten();
        let owner = owner.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        AllocationAttributes { owner, ..AllocationAttributes::default() }
    });
    IpamBlock {
        cidr: parsed(&value["CIDR"]).unwrap(),
        node: text(&value["Affinity"]).and_then(|affinity| affinity.strip_prefix("host:")).map(str::to_owned),
        allocations: list(&value["Allocations"])
            .iter()
            .map(|row| row.as_u64().map(|row| row as usize))
            .collect(),
        attributes: attributes.collect(),
    }
}

fn endpoint(key: &Value, value: &Value) -> WorkloadEndpoint {
    let networks = list(&value["IPv4Nets"]).iter().chain(list(&value["IPv6Nets"]));
    WorkloadEndpoint {
        name: key["WorkloadID"].as_str().unwrap().to_owned(),
        node: key["Hostname"].as_str().unwrap().to_owned(),
        interface: value["Name"].as_str().unwrap().to_owned(),
        ip_networks: networks.map(|network| parsed(network).unwrap()).collect(),
        ..WorkloadEndpoint::default()
    }
}

fn resources(datastore: &[Value]) -> Vec<Resource> {
    let others = datastore.iter().filter_map(|entry| {
        let (key, value) = (&entry["Key"], &entry["Value"]);
        Some(match key["_type"].as_str()? {
            "IPPoolKey" => Resource::IpPool(pool(value)),
            "BlockKey" => Resource::IpamBlock(block(value)),
            "WorkloadEndpointKey" => Resource::WorkloadEndpoint(endpoint(key, value)),
            _ => return None,
        })
    });
    others.chain(nodes(datastore).into_values().map(Resource::Node)).collect()
}

/// Where a state's packets to other nodes' workloads go, and whether within the subnet and so plainly.
type Routes = BTreeMap<Prefix, (IpAddr, bool)>;

/// What Felix says, but for routes that its dataplane can't program: to nodes without an address, or through tunnels to nodes
/// without an end.
fn expected(row: &Value, nodes: &BTreeMap<String, Node>) -> Routes {
    let routes = list(&row["routes"]).iter().filter(|route| {
        let to_others = text(&route["Types"]).is_some_and(|types| types.contains("REMOTE_WORKLOAD"));
        to_others && route["LocalWorkload"] != Value::Bool(true) && route["IpPoolType"] == "VXLAN"
    });
    let routes = routes.filter_map(|route| {
        let (to, node): (Prefix, IpAddr) = (parsed(&route["Dst"])?, parsed(&route["DstNodeIp"])?);
        let in_subnet = route["SameSubnet"] == Value::Bool(true);
        let has_end = Vtep::of(nodes.get(text(&route["DstNodeName"])?)?, to.family()).addr.is_some();
        (in_subnet || has_end).then_some((to, (node, in_subnet)))
    });
    routes.collect()
}

fn ours(datastore: &[Value], nodes: &BTreeMap<String, Node>) -> Routes {
    let mut calico = Calico::new(HERE);
    resources(datastore).into_iter().for_each(|resource| calico.apply(&Update::Put(resource.into())));
    let desired = calico.desired();
    // Local workloads' routes are preferred to all others; VTEPs' are another kind of Felix's.
    let local = desired.endpoints.values().flat_map(|endpoint| endpoint.ip_networks.iter().copied());
    let vteps = nodes.values().flat_map(|node| Family::ALL.map(|family| Vtep::of(node, family).addr));
    let aside: BTreeSet<Prefix> = local.chain(vteps.flatten().map(Prefix::host)).collect();
    let routes = desired.tunnels.routes.iter().filter(|(prefix, _)| !aside.contains(prefix));
    let to = |gateway: &Gateway| match gateway.tunnel {
        Some(tunnel) => (tunnel.remote, false),
        None => (gateway.addr, true),
    };
    routes.map(|(prefix, gateway)| (*prefix, to(gateway))).collect()
}

#[test]
fn routes_to_other_nodes_workloads_are_felixs() {
    let Some(text) = oracle() else {
        println!("skipped: no oracles; TORTIE_ORACLES names their folder");
        return;
    };
    let (mut states, mut routes, mut borrowed) = (0, 0, 0);
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let datastore = list(&row["datastore"]);
        // Another way to know where workloads are, which Calico doesn't use with blocks.
        let by_workloads = datastore.iter().any(|entry| entry["Key"]["Name"] == "RouteSource");
        // Two states name a variable of their source instead of some routes.
        let is_whole = list(&row["routes"]).iter().all(Value::is_object);
        if by_workloads || !is_whole {
            continue;
        }
        let nodes = nodes(datastore);
        let expected = expected(&row, &nodes);
        assert_eq!(ours(datastore, &nodes), expected, "{}", row["name"]);
        states += 1;
        routes += expected.len();
        borrowed += expected.keys().filter(|prefix| prefix.is_host()).count();
    }
    println!("{states} states with {routes} routes, {borrowed} to borrowed addresses");
    assert!(routes >= 15 && borrowed >= 3, "{states} states, {routes} routes, {borrowed} borrowed");
}
