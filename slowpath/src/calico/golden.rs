//! Calico's own expectations: resources in, the BIRD configuration of one node out (`bgp_golden.jsonl`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use model::{BgpCommunity, BgpFilterOperation, BgpFilterOperator, BgpFilterRule, SecretKey};
use serde_json::{Value, json};

use super::*;

/// The rows of a file of facts; nothing, after a word about it, where there is none.
pub(super) fn oracle(name: &str) -> Option<String> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    let folder = std::env::var_os("TORTIE_ORACLES").map_or_else(default, PathBuf::from);
    let rows = std::fs::read_to_string(folder.join(name)).ok();
    if rows.is_none() {
        println!("skipped: no {name} in $TORTIE_ORACLES or ../shared/oracles");
    }
    rows
}

/// Addresses of services that this node would announce one by one: those with `externalTrafficPolicy: Local`, which has an
/// endpoint here. Which services there are is Kubernetes' to know, so that rows with such have a feature that there isn't.
fn has_services_of_its_own(row: &Value) -> bool {
    let objects = row["k8s_resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let statics = [&row["expect"]["v4"], &row["expect"]["v6"]];
    let mut routes = statics.iter().filter_map(|family| family["aggr"]["static"].as_array()).flatten();
    let is_host = |route: &Value| {
        route["net"].as_str().is_some_and(|net| net.ends_with("/32") || net.ends_with("/128"))
    };
    objects.iter().any(|object| object["kind"] == "Service")
        && routes.any(|route| route["to"] == "blackhole" && is_host(route))
}

/// The row's resources as a file of a datastore, or which feature of theirs there isn't.
fn read_resources(row: &Value, scratch: &Path) -> Result<Vec<Resource>, String> {
    if has_services_of_its_own(row) {
        return Err("Kubernetes' services".to_owned());
    }
    let affinities = row["block_affinities"].as_array().unwrap().iter().enumerate().map(|(i, block)| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "BlockAffinity", "metadata": {"name": format!("block-{i}")},
            "spec": {"cidr": block["cidr"], "node": block["host"], "state": block["state"], "deleted": "false"},
        })
    });
    let resources = row["resources"].as_array().unwrap().iter().cloned().map(without_base_60);
    let items: Vec<_> = resources.chain(affinities).map(|item| with_selector(item, row)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let file = scratch.join("row.json");
    std::fs::write(&file, list.to_string()).unwrap();
    let mut resources =
        datastore::check(&file).unwrap_or_else(|problems| panic!("{}: {}", row["name"], problems[0]));
    resources.extend(speaking_endpoints(row));
    Ok(resources)
}

/// Calico's confd reads which BGPPeer a pod is the other end of from files that Felix writes; here it is the selector that Felix
/// has matched, so that each BGPPeer is given one that finds the pods of its files.
fn with_selector(mut resource: Value, row: &Value) -> Value {
    if row["notes"]["endpoint_status_files"].is_object()
        && resource["spec"]["localWorkloadSelector"].is_string()
    {
        let selector = format!("peer == '{}'", resource["metadata"]["name"].as_str().unwrap());
        resource["spec"]["localWorkloadSelector"] = json!(selector);
    }
    resource
}

/// The pods of Felix's files.
fn speaking_endpoints(row: &Value) -> Vec<Resource> {
    let files = row["notes"]["endpoint_status_files"].as_object().cloned().unwrap_or_default();
    let networks = |file: &Value| {
        let texts = ["ipv4Nets", "ipv6Nets"]
            .into_iter()
            .filter_map(|field| file[field].as_array().cloned())
            .flatten();
        texts.map(|text| text.as_str().unwrap().parse().unwrap()).collect()
    };
    let endpoint = |(name, file): (String, Value)| {
        Resource::WorkloadEndpoint(WorkloadEndpoint {
            namespace: "default".to_owned(),
            name,
            node: row["node"].as_str().unwrap().to_owned(),
            interface: file["ifaceName"].as_str().unwrap().to_owned(),
            ip_networks: networks(&file),
            labels: [("peer".to_owned(), file["bgpPeerName"].as_str().unwrap().to_owned())].into(),
            ..WorkloadEndpoint::default()
        })
    };
    files.into_iter().map(endpoint).collect()
}

/// What stands in the row's Secrets.
fn password(secret: &SecretKey, row: &Value) -> Value {
    let objects = row["k8s_resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = objects
        .iter()
        .find(|object| object["kind"] == "Secret" && object["metadata"]["name"] == *secret.name);
    // Without it Calico begins the session unguarded, and Tortie doesn't begin it.
    found.map_or(Value::Null, |secret_there| secret_there["stringData"][secret.key.as_str()].clone())
}

/// Whoever extracted the rows read 5663:12 as YAML 1.1 does, which takes it for a number to base 60.
fn without_base_60(mut resource: Value) -> Value {
    for told in resource["spec"]["prefixAdvertisements"].as_array_mut().into_iter().flatten() {
        for community in told["communities"].as_array_mut().into_iter().flatten() {
            if let Some(number) = community.as_u64() {
                *community = json!(format!("{}:{}", number / 60, number % 60));
            }
        }
    }
    resource
}

/// What BIRD is told of a session, as far as this version has it.
fn expected_peer(peer: &Value, filters: &Value) -> Value {
    json!({
        "ip": peer["ip"],
        "port": peer.get("port").unwrap_or(&json!(179)),
        "remote_as": peer["remote_as"],
        "source_address": peer.get("source_address"),
        "passive": peer.get("passive").is_some(),
        "graceful_restart_time": peer.get("graceful_restart_time"),
        "next_hop": peer.get("next_hop"),
        "rr_cluster_id": peer.get("rr_cluster_id"),
        "local_as": peer.get("local_as"),
        "import": statements(peer, "import_filter_calls", filters),
        "export": statements(peer, "export_filter_calls", filters),
        "allow_local_as": peer.get("allow_local_as").unwrap_or(&json!(0)),
        "ttl_security": (peer["ttl_security"] == "on").then_some(&peer["multihop"]),
        "keepalive_time": peer.get("keepalive_time"),
        "password": peer.get("password"),
    })
}

/// What the filters say that BIRD asks for a session, one after the other.
fn statements(peer: &Value, calls: &str, filters: &Value) -> Vec<Value> {
    let calls = peer[calls].as_array().map(Vec::as_slice).unwrap_or_default();
    let said = |call: &Value| filters[call["filter"].as_str().unwrap()]["statements"].as_array().cloned();
    calls.iter().filter_map(said).flatten().map(|said| json!(plainly(said.as_str().unwrap()))).collect()
}

/// A statement with its networks written as we write them: 9000::/64 for 9000::0/64.
fn plainly(statement: &str) -> String {
    let words = statement.split_inclusive([' ', '(', ')']).map(|word| {
        let (word, end) = word.split_at(word.trim_end_matches([' ', '(', ')']).len());
        word.parse::<Prefix>().map_or(word.to_owned(), |prefix| prefix.to_string()) + end
    });
    words.collect()
}

/// A rule of ours in BIRD's words, as Calico's templates put it.
fn statement(rule: &BgpFilterRule) -> String {
    let mut asked = Vec::new();
    if let Some(cidr) = &rule.cidr {
        let operator = match cidr.operator {
            BgpFilterOperator::In => "~",
            BgpFilterOperator::NotIn => "!~",
            BgpFilterOperator::Equal => "=",
            BgpFilterOperator::NotEqual => "!=",
        };
        let set = match cidr.lengths {
            Some((min, max)) => format!("[ {}{{{min},{max}}} ]", cidr.cidr),
            None => cidr.cidr.to_string(),
        };
        asked.push(format!("(net {operator} {set})"));
    }
    if rule.from_peers {
        asked.push("((defined(source))&&(source ~ [ RTS_BGP ]))".to_owned());
    }
    if let Some(interface) = &rule.interface {
        asked.push(format!("((defined(ifname))&&(ifname ~ \"{interface}\"))"));
    }
    if let Some(community) = rule.community {
        asked.push(match community {
            BgpCommunity::Standard(a, b) => format!("(({a}, {b}) ~ bgp_community)"),
            BgpCommunity::Large(a, b, c) => format!("(({a}, {b}, {c}) ~ bgp_large_community)"),
        });
    }
    if !rule.as_path_prefix.is_empty() {
        let numbers: String = rule.as_path_prefix.iter().map(|number| format!("{number} ")).collect();
        asked.push(format!("(bgp_path ~ [= {numbers}* =])"));
    }
    let local_pref = |metric: u32| 2_147_483_647 - metric;
    if let Some(metric) = rule.priority {
        asked.push(format!("(defined(bgp_local_pref)&&(bgp_local_pref = {}))", local_pref(metric)));
    }
    let mut done = String::new();
    for operation in &rule.operations {
        done += &match operation {
            BgpFilterOperation::AddCommunity(BgpCommunity::Standard(a, b)) => {
                format!("bgp_community.add(({a}, {b})); ")
            }
            BgpFilterOperation::AddCommunity(BgpCommunity::Large(a, b, c)) => {
                format!("bgp_large_community.add(({a}, {b}, {c})); ")
            }
            BgpFilterOperation::PrependAsPath(numbers) => {
                numbers.iter().rev().map(|number| format!("bgp_path.prepend({number}); ")).collect()
            }
            BgpFilterOperation::SetPriority(metric) => format!("bgp_local_pref = {}; ", local_pref(*metric)),
        };
    }
    done += if rule.accept { "accept;" } else { "reject;" };
    if !asked.is_empty() {
        done = format!("if ({}) then {{ {done} }}", asked.join("&&"));
    }
    match rule.internal_peer {
        Some(internal) => format!("if ({}is_same_as) then {{ {done} }}", if internal { "" } else { "!" }),
        None => done,
    }
}

fn our_peer(peer: &DesiredPeer, row: &Value) -> Value {
    json!({
        "ip": peer.address,
        "port": peer.port,
        "remote_as": peer.as_number.0,
        "source_address": peer.source_address,
        "passive": peer.passive,
        "graceful_restart_time": peer.restart_time.map(|time| time.as_secs()),
        "next_hop": match peer.next_hop {
            NextHop::Auto => None,
            NextHop::Keep => Some("keep"),
            NextHop::OwnAddress => Some("self"),
        },
        "rr_cluster_id": peer.reflector_client,
        "local_as": peer.local_as.map(|number| number.0),
        "allow_local_as": peer.allowed_local_as,
        "ttl_security": peer.ttl_security,
        "keepalive_time": peer.keepalive_time.map(|time| time.as_secs()),
        "password": peer.password.as_ref().map_or(Value::Null, |secret| password(secret, row)),
        "import": peer.import.iter().map(statement).collect::<Vec<_>>(),
        "export": peer.export.iter().map(statement).collect::<Vec<_>>(),
    })
}

/// The networks that are told with communities, and these as text.
fn told(family: Family, desired: &Desired) -> Vec<Value> {
    let of_family = desired.export.advertisements().iter().filter(|told| told.cidr.family() == family);
    let text = |community: &BgpCommunity| match community {
        BgpCommunity::Standard(a, b) => format!("{a}:{b}"),
        BgpCommunity::Large(a, b, c) => format!("{a}:{b}:{c}"),
    };
    of_family
        .map(|told| {
            let mut texts: Vec<String> = told.communities.iter().map(text).collect();
            texts.sort();
            json!({"cidr": told.cidr.to_string(), "add": texts})
        })
        .collect()
}

fn nets(list: &Value) -> BTreeSet<Prefix> {
    list.as_array().unwrap().iter().map(|entry| entry["net"].as_str().unwrap().parse().unwrap()).collect()
}

/// What BIRD's kernel filter does with routes into pools, where BGPConfiguration says which are BGP's: without a word on
/// it ours are both programs', and Felix's count.
fn check_kernel(name: &str, family: Family, kernel: &Value, desired: &Desired) {
    if !name.starts_with("cluster_routes")
        && !name.contains("programClusterRoutes")
        && name != "felix_cluster_routing"
    {
        return;
    }
    let rejected: Vec<_> =
        kernel.as_array().unwrap().iter().filter(|rule| rule["action"] == "reject").cloned().collect();
    let rejected = nets(&json!(rejected));
    let hop = desired.peers.values().map(|peer| peer.address).find(|address| Family::of(*address) == family);
    let hop = hop.unwrap_or_else(|| desired.node_address(family).unwrap());
    for pool in desired.pools.values().filter(|pool| pool.cidr.family() == family) {
        let is_taken = desired.tunnels.bgp_target(pool.cidr, [(hop, 1)]).is_some();
        assert_eq!(is_taken, !rejected.contains(&pool.cidr), "{name}: BGP's routes into {}", pool.cidr);
    }
}

fn check_family(row: &Value, family: Family, desired: &Desired) {
    let name = row["name"].as_str().unwrap();
    let expect = &row["expect"][if family == Family::V4 { "v4" } else { "v6" }];
    let of_family = |prefixes: &BTreeSet<Prefix>| -> BTreeSet<Prefix> {
        prefixes.iter().copied().filter(|prefix| prefix.family() == family).collect()
    };
    let (bgp, aggregation) = (&expect["bgp"], &expect["aggr"]);
    let peers: BTreeMap<_, _> = bgp["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| (peer["name"].as_str().unwrap().to_owned(), expected_peer(peer, &bgp["filters"])))
        .collect();
    let ours: BTreeMap<_, _> = desired
        .peers
        .values()
        .filter(|peer| peer.family == family)
        .map(|peer| (peer.name.to_string(), our_peer(peer, row)))
        .collect();
    assert_eq!(ours, peers, "{name}: {family} sessions");
    if let Some(local_as) = bgp["local_as"].as_u64() {
        assert_eq!(u64::from(desired.as_number.0), local_as, "{name}: AS");
    }
    assert_eq!(json!(desired.router_id), bgp["router_id"], "{name}: router id");
    let listen = bgp["listen"].as_str().unwrap_or_default();
    let port = listen.split("port ").nth(1);
    assert_eq!(desired.listen_port, port.map_or(179, |port| port.parse().unwrap()), "{name}: listen port");
    let at = desired.node_address(family).filter(|_| desired.listen_on_node_address);
    let listens_at = listen.split("address ").nth(1).and_then(|rest| rest.split(' ').next());
    assert_eq!(at.map(|at| at.to_string()).as_deref(), listens_at, "{name}: {family} listening address");
    assert_eq!(json!(told(family, desired)), bgp["communities"], "{name}: {family} communities");
    let normal = &expect["ipam"]["normal_priority"];
    assert_eq!(json!(desired.normal_priority(family)), *normal, "{name}: {family} normal priority");
    assert_eq!(of_family(&desired.blocks), nets(&aggregation["aggregates"]), "{name}: {family} blocks");
    let statics = aggregation["static"].as_array().unwrap().iter();
    let (blackholes, others): (Vec<_>, Vec<_>) =
        statics.cloned().partition(|entry| entry["to"] == "blackhole");
    let discarded = of_family(&desired.blackholes.union(&desired.services.announced).copied().collect());
    assert_eq!(discarded, nets(&json!(blackholes)), "{name}: {family} blackholes");
    let kernel = expect["ipam"]["kernel"].as_array().unwrap().iter();
    let left_out = kernel.filter(|rule| rule["action"] == "reject" && rule.get("comment").is_none());
    let left_out = nets(&json!(left_out.collect::<Vec<_>>()));
    assert_eq!(of_family(&desired.services.local), left_out, "{name}: {family} networks of services");
    check_kernel(name, family, &expect["ipam"]["kernel"], desired);
    let ways = desired.peers.values().filter(|peer| peer.family == family);
    let ways: BTreeSet<_> = ways
        .filter_map(|peer| {
            let gateway = peer.reachable_by?;
            Some((Prefix::host(peer.address).to_string(), format!("via {gateway}")))
        })
        .collect();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let expected: BTreeSet<_> = others.iter().map(|entry| (text(entry, "net"), text(entry, "to"))).collect();
    assert_eq!(ways, expected, "{name}: {family} ways to peers");

    let own = of_family(&desired.blocks);
    let pool_rules: Vec<_> = desired
        .export
        .rules()
        .iter()
        .filter(|rule| rule.prefix.family() == family && !own.contains(&rule.prefix))
        .filter(|rule| !desired.services.announced.contains(&rule.prefix))
        .map(|rule| {
            let action = if rule.action == ExportAction::Accept { "accept" } else { "reject" };
            json!({"net": rule.prefix.to_string(), "action": action})
        })
        .collect();
    assert_eq!(json!(pool_rules), expect["ipam"]["export_prefixes"], "{name}: {family} pools");
}

#[test]
fn every_row_whose_features_exist_comes_out_as_calico_expects() {
    let Some(rows) = oracle("bgp_golden.jsonl") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let mut compared = 0;
    let mut skipped = BTreeMap::<String, usize>::new();
    for row in rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let resources = match read_resources(&row, scratch.path()) {
            Ok(resources) => resources,
            Err(feature) => {
                *skipped.entry(feature).or_default() += 1;
                continue;
            }
        };
        let router_id = match row["env"]["CALICO_ROUTER_ID"].as_str() {
            None => RouterId::NodeAddress,
            Some("hash") => RouterId::HashOfName,
            Some(address) => RouterId::Is(address.parse().unwrap()),
        };
        let mut calico = Calico::new(row["node"].as_str().unwrap()).with_router_id(router_id);
        resources.into_iter().for_each(|resource| calico.apply(&Update::Put(resource.into())));
        let desired = calico.desired();
        Family::ALL.into_iter().for_each(|family| check_family(&row, family, &desired));
        compared += 1;
    }
    println!("{compared} rows compared");
    for (feature, rows) in &skipped {
        println!("skipped: {rows} rows need {feature}");
    }
    assert!(compared > 0, "no row was compared");
}
