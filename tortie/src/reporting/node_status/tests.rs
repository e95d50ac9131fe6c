use datastore::MemoryStore;
use slowpath::status::{PerFamily, PrefixLimitStatus};

use super::*;
use crate::reporting::tests::status;

fn key() -> Key {
    Key::Resource(ResourceKey {
        kind: ResourceKind::CalicoNodeStatus,
        namespace: String::new(),
        name: "mine".to_owned(),
    })
}

fn resource() -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "CalicoNodeStatus", "metadata": {"name": "mine"},
        "spec": {"node": "n", "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 10},
    })
}

fn asked(period_seconds: u64) -> ReportingStatus {
    let request =
        StatusRequest { name: "mine".to_owned(), agent: true, bgp: true, routes: true, period_seconds };
    ReportingStatus { requests: vec![request], ..status() }
}

fn bgp() -> BgpStatus {
    let peer = |name: &str, address: &str, kind: &str, up: bool| PeerStatus {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        asn: 64512,
        kind: kind.to_owned(),
        state: if up { "Established" } else { "Active" }.to_owned(),
        up,
        since: "2026-11-21T09:19:28Z".to_owned(),
        since_seconds: 60,
        info: String::new(),
        received: PerFamily::default(),
        announced: PerFamily::default(),
        hold_time_seconds: None,
        messages_received: 0,
        messages_sent: 0,
        established_count: 0,
        last_error: None,
        prefix_limit: PrefixLimitStatus::default(),
    };
    BgpStatus {
        orders_full: 0,
        local_as: 64512,
        router_id: Some("172.17.0.3".to_owned()),
        started: "2026-11-21T09:10:56Z".to_owned(),
        reconfigured: "2026-11-21T09:12:00Z".to_owned(),
        peers: vec![
            peer("Mesh_172_17_0_5", "172.17.0.5", "node-to-node mesh", true),
            peer("Node_172_17_0_6", "172.17.0.6", "node specific", false),
            peer("Global_fd00__1", "fd00::1", "global", true),
        ],
    }
}

fn routes() -> ReportedRoutes {
    let route =
        |in_use, destination: &str, gateway: &str, interface: &str, source: &str, peer: Option<&str>| {
            ReportedRoute {
                in_use,
                destination: destination.to_owned(),
                gateway: gateway.to_owned(),
                interface: interface.to_owned(),
                source_type: source.to_owned(),
                peer_ip: peer.map(str::to_owned),
            }
        };
    ReportedRoutes {
        reported_routes: vec![
            route(true, "192.168.110.128/26", "172.17.0.5", "eth0", "NodeMesh", Some("172.17.0.5")),
            route(true, "192.168.162.128/26", "N/A", "blackhole", "Static", None),
            route(false, "fd65::/122", "fd00::1", "eth0", "BGPPeer", Some("fd00::1")),
        ],
    }
}

fn tell(statuses: &mut NodeStatuses, store: &MemoryStore, asked: &ReportingStatus, now: Instant) {
    statuses.tell(store, asked, now, |_| Ok((bgp(), routes()))).unwrap();
}

#[test]
fn a_resource_is_filled_in_as_calicos_node_does() {
    let store = MemoryStore::default();
    store.create(&key(), &resource()).unwrap();
    tell(&mut NodeStatuses::new("n"), &store, &asked(10), Instant::now());
    let mut value = store.get(&key()).unwrap().value;
    assert_eq!(value["spec"], resource()["spec"]);
    assert!(value["status"]["lastUpdated"].as_str().is_some_and(|time| time.ends_with('Z')));
    value["status"].as_object_mut().unwrap().shift_remove("lastUpdated");
    let daemon = json!({
        "state": "Ready", "version": format!("v{}+tortie", env!("CARGO_PKG_VERSION")), "routerID": "172.17.0.3",
        "lastBootTime": "2026-11-21 09:10:56", "lastReconfigurationTime": "2026-11-21 09:12:00",
    });
    assert_eq!(
        value["status"],
        json!({
            "agent": {"birdV4": daemon, "birdV6": daemon},
            "bgp": {
                "numberEstablishedV4": 1, "numberNotEstablishedV4": 1,
                "peersV4": [
                    {"peerIP": "172.17.0.5", "type": "NodeMesh", "state": "Established", "since": "09:19:28"},
                    {"peerIP": "172.17.0.6", "type": "NodePeer", "state": "Active", "since": "09:19:28"},
                ],
                "numberEstablishedV6": 1, "numberNotEstablishedV6": 0,
                "peersV6": [{"peerIP": "fd00::1", "type": "GlobalPeer", "state": "Established", "since": "09:19:28"}],
            },
            "routes": {
                "routesV4": [
                    {"type": "FIB", "destination": "192.168.110.128/26", "gateway": "172.17.0.5", "interface": "eth0",
                        "learnedFrom": {"sourceType": "NodeMesh", "peerIP": "172.17.0.5"}},
                    {"type": "FIB", "destination": "192.168.162.128/26", "gateway": "N/A", "interface": "blackhole",
                        "learnedFrom": {"sourceType": "Static"}},
                ],
                "routesV6": [
                    {"type": "RIB", "destination": "fd65::/122", "gateway": "fd00::1", "interface": "eth0",
                        "learnedFrom": {"sourceType": "BGPPeer", "peerIP": "fd00::1"}},
                ],
            },
        })
    );
}

#[test]
fn nothing_new_is_not_written_and_a_period_of_zero_is_once() {
    let (store, start) = (MemoryStore::default(), Instant::now());
    store.create(&key(), &resource()).unwrap();
    let mut statuses = NodeStatuses::new("n");
    tell(&mut statuses, &store, &asked(10), start);
    let first = store.get(&key()).unwrap();
    assert!(!statuses.is_due(&asked(10), start + Duration::from_secs(9)));
    assert!(statuses.is_due(&asked(10), start + Duration::from_secs(10)));
    tell(&mut statuses, &store, &asked(10), start + Duration::from_secs(10));
    assert_eq!(store.get(&key()).unwrap(), first);
    // Another period is another request.
    assert!(statuses.is_due(&asked(0), start + Duration::from_secs(11)));
    tell(&mut statuses, &store, &asked(0), start + Duration::from_secs(11));
    assert!(!statuses.is_due(&asked(0), start + Duration::from_secs(86_400)));
}

#[test]
fn what_is_not_asked_for_stays_and_another_nodes_resource_is_left_alone() {
    let store = MemoryStore::default();
    let mut value = resource();
    value["status"] = json!({"bgp": {"numberEstablishedV4": 7}});
    store.create(&key(), &value).unwrap();
    let mut only_agent = asked(10);
    (only_agent.requests[0].bgp, only_agent.requests[0].routes) = (false, false);
    tell(&mut NodeStatuses::new("n"), &store, &only_agent, Instant::now());
    let filled = store.get(&key()).unwrap();
    assert_eq!(filled.value["status"]["bgp"], json!({"numberEstablishedV4": 7}));
    assert_eq!(filled.value["status"]["routes"], json!({}));
    tell(&mut NodeStatuses::new("another"), &store, &asked(10), Instant::now());
    assert_eq!(store.get(&key()).unwrap(), filled);
}

#[test]
fn a_resource_that_is_gone_by_then_is_no_failure() {
    let mut statuses = NodeStatuses::new("n");
    tell(&mut statuses, &MemoryStore::default(), &asked(10), Instant::now());
}
