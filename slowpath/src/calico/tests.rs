use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::{
    AffinityState, EncapMode, PeerNodes, PeerTarget, Profile,
    Setting::{self, Given},
};
use proptest::prelude::*;

use super::*;

fn node(name: &str, ipv4: &str) -> Node {
    Node {
        name: name.to_owned(),
        as_number: None,
        ipv4: Some(ipv4.parse().unwrap()),
        ipv6: None,
        ..Node::default()
    }
}

fn peer(name: &str, remote: &str, nodes: PeerNodes) -> BgpPeer {
    BgpPeer {
        nodes,
        as_number: Some(AsNumber(65001)),
        ..BgpPeer::new(name, PeerTarget::Address(remote.parse().unwrap()))
    }
}

fn pool(name: &str, cidr: &str, disable_bgp_export: bool) -> IpPool {
    IpPool {
        name: name.to_owned(),
        cidr: cidr.parse().unwrap(),
        ipip_mode: EncapMode::Never,
        vxlan_mode: EncapMode::Never,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export,
    }
}

fn block(cidr: &str, node: &str, state: AffinityState) -> Resource {
    Resource::BlockAffinity(BlockAffinity { cidr: cidr.parse().unwrap(), node: node.to_owned(), state })
}

fn endpoint(name: &str, node: &str, interface: &str) -> WorkloadEndpoint {
    WorkloadEndpoint {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        node: node.to_owned(),
        interface: interface.to_owned(),
        mac: None,
        ip_networks: vec!["10.65.0.1/32".parse().unwrap()],
        ..WorkloadEndpoint::default()
    }
}

fn configuration(mesh: Option<bool>) -> Resource {
    Resource::BgpConfiguration(BgpConfiguration {
        name: "default".to_owned(),
        node_to_node_mesh: mesh,
        ..BgpConfiguration::default()
    })
}

fn calico(resources: impl IntoIterator<Item = Resource>) -> Calico {
    let mut calico = Calico::new("a");
    resources.into_iter().for_each(|resource| calico.apply(&Update::Put(resource.into())));
    calico
}

fn names(desired: &Desired) -> Vec<&str> {
    desired.peers.keys().map(PeerName::as_str).collect()
}

/// `MergeSelectorConfigs` in `felix/calc/config_batcher.go`.
#[test]
fn of_configurations_that_select_a_node_the_oldest_holds_between_its_own_and_the_clusters() {
    let felix = |name: &str, selector: Option<&str>, created: Option<u64>, vni: u32, port: u16| {
        Resource::FelixConfiguration(FelixConfiguration {
            name: name.to_owned(),
            node_selector: selector.map(str::to_owned),
            created: created.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            vxlan_vni: Given(vni),
            vxlan_port: if port == 0 { Setting::Absent } else { Given(port) },
            ..FelixConfiguration::default()
        })
    };
    let labels = BTreeMap::from([("role".to_owned(), "gpu".to_owned())]);
    let mut calico = calico([
        Resource::Node(Node { labels, ..node("a", "10.0.0.1/24") }),
        felix("default", None, None, 1, 8001),
        felix("others", Some("role == 'storage'"), None, 2, 0),
        felix("nobodys", None, None, 3, 0),
        felix("younger", Some("has(role)"), Some(20), 4, 8004),
        felix("older", Some("role == 'gpu'"), Some(10), 5, 0),
    ]);
    let desired = calico.desired();
    assert_eq!((desired.felix.vxlan_vni, desired.felix.vxlan_port), (5, 8001));
    let (used, left_out) = ("older".to_owned(), "younger".to_owned());
    assert_eq!(desired.warnings, [Warning::ConfigurationsContend { used, left_out }]);

    calico.apply(&Update::Put(felix("node.a", None, None, 6, 0).into()));
    assert_eq!(calico.desired().felix.vxlan_vni, 6);
    calico.apply(&Update::Remove(Key::Node("a".to_owned())));
    calico.apply(&Update::Remove(Key::FelixConfiguration("node.a".to_owned())));
    assert_eq!(calico.desired().felix.vxlan_vni, 1, "without labels nothing selects");
}

#[test]
fn openstack_is_known_by_the_clusters_type() {
    let cluster = |cluster_type: &str| {
        let (name, cluster_type) = ("default".to_owned(), cluster_type.to_owned());
        Resource::ClusterInformation(ClusterInformation { name, cluster_type })
    };
    let mut calico = calico([cluster("OpenStack,bgp")]);
    assert!(calico.desired().felix.flow_rules().passes_dhcp_and_dns);
    calico.apply(&Update::Put(Arc::new(cluster("k8s,bgp"))));
    assert!(!calico.desired().felix.flow_rules().passes_dhcp_and_dns);
    calico.apply(&Update::Put(Arc::new(cluster("openstack"))));
    calico.apply(&Update::Remove(Key::ClusterInformation("default".to_owned())));
    assert!(!calico.desired().felix.flow_rules().passes_dhcp_and_dns);
}

#[test]
fn a_node_without_its_resource_speaks_to_nobody_and_says_so() {
    let desired = calico([Resource::Node(node("b", "10.0.0.2/24"))]).desired();
    assert_eq!(desired.node, None);
    assert!(desired.peers.is_empty());
    assert_eq!(desired.as_number, AsNumber(64512));
    assert_eq!(desired.warnings, [Warning::NodeMissing { node: "a".to_owned() }]);
}

#[test]
fn addresses_that_blind_us_to_subnets_or_to_bgp_are_warned_of() {
    let warnings = |node: Node| calico([Resource::Node(node)]).desired().warnings;
    let host = node("a", "10.0.0.1");
    let address = host.ipv4.unwrap();
    assert_eq!(warnings(host), [Warning::NodeAddressWithoutSubnet { node: "a".to_owned(), address }]);
    let v6_only = Node { ipv4: None, ipv6: Some("fd00::1/64".parse().unwrap()), ..node("a", "10.0.0.1/24") };
    assert_eq!(warnings(v6_only), [Warning::NoRouterId { node: "a".to_owned() }]);
    assert_eq!(warnings(node("a", "10.0.0.1/24")), []);
}

#[test]
fn nodes_with_ipv6_alone_speak_bgp_where_their_identifier_comes_from_elsewhere() {
    let v6_only = |name: &str, address: &str| Node {
        ipv4: None,
        ipv6: Some(address.parse().unwrap()),
        ..node(name, "10.0.0.1/24")
    };
    let resources = [v6_only("a", "fd00::1/64"), v6_only("b", "fd00::2/64")].map(Resource::Node);
    let calico = calico(resources);
    assert_eq!(calico.desired().peers.len(), 0);
    for source in [RouterId::HashOfName, RouterId::Is([192, 0, 2, 1].into())] {
        let desired = calico.clone().with_router_id(source).desired();
        assert!(desired.router_id.is_some());
        assert_eq!(desired.warnings, []);
        let peers: Vec<_> = desired.peers.values().map(|peer| peer.address.to_string()).collect();
        assert_eq!(peers, ["fd00::2"]);
    }
}

#[test]
fn who_waits_is_decided_by_text_and_the_other_side_decides_the_opposite() {
    for (a, b, a_waits) in [
        ("10.0.0.5/24", "10.0.0.8/24", true),
        ("10.0.0.10/24", "10.0.0.9/24", true),
        ("10.0.0.9/24", "10.0.0.10/24", false),
    ] {
        let passive_at = |own: &str, other: &str| {
            let mut calico = Calico::new(own);
            calico.apply(&Update::Put(Resource::Node(node("a", a)).into()));
            calico.apply(&Update::Put(Resource::Node(node("b", b)).into()));
            let peers = calico.desired().peers;
            assert_eq!(peers.len(), 1);
            let session = peers.into_values().next().unwrap();
            assert_eq!(session.resource, other);
            session.passive
        };
        assert_eq!(passive_at("a", "b"), a_waits, "{a} {b}");
        assert_eq!(passive_at("b", "a"), !a_waits, "{a} {b}");
    }
}

#[test]
fn the_older_way_to_keep_next_hops_is_heeded_on_external_sessions_alone() {
    let next_hop = |change: fn(&mut BgpPeer), as_number: u32| {
        let mut tor = peer("tor", "10.0.0.9:179", PeerNodes::All);
        change(&mut tor);
        tor.as_number = Some(AsNumber(as_number));
        let desired = calico([Resource::Node(node("a", "10.0.0.1/24")), Resource::BgpPeer(tor)]).desired();
        desired.peers.into_values().next().unwrap().next_hop
    };
    let (internal, external) = (64512, 65001);
    assert_eq!(next_hop(|peer| peer.keep_original_next_hop = true, external), NextHop::Keep);
    assert_eq!(next_hop(|peer| peer.keep_original_next_hop = true, internal), NextHop::Auto);
    assert_eq!(next_hop(|peer| peer.next_hop_keep = true, external), NextHop::Keep);
    assert_eq!(next_hop(|peer| peer.next_hop_keep = true, internal), NextHop::Keep);
    assert_eq!(next_hop(|peer| peer.next_hop_self = true, internal), NextHop::OwnAddress);
    assert_eq!(next_hop(|_| (), external), NextHop::Auto);
}

#[test]
fn reflectors_take_no_part_in_the_mesh() {
    let reflector =
        Node { route_reflector_cluster_id: Some(Ipv4Addr::new(1, 0, 0, 1)), ..node("r", "10.0.0.9/24") };
    let resources =
        [node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24"), reflector.clone()].map(Resource::Node);
    assert_eq!(names(&calico(resources).desired()), ["Mesh_10_0_0_2"]);
    let own = Node { name: "a".to_owned(), ..reflector };
    let resources = [own, node("b", "10.0.0.2/24")].map(Resource::Node);
    assert!(calico(resources).desired().peers.is_empty());
}

#[test]
fn a_reflector_has_clients_unless_they_are_of_its_own_cluster() {
    let cluster_id = Ipv4Addr::new(1, 0, 0, 1);
    let own = Node { route_reflector_cluster_id: Some(cluster_id), ..node("a", "10.0.0.1/24") };
    let twin = Node { name: "b".to_owned(), ipv4: Some("10.0.0.2/24".parse().unwrap()), ..own.clone() };
    let internal = |name, remote| {
        Resource::BgpPeer(BgpPeer { as_number: Some(AsNumber(64512)), ..peer(name, remote, PeerNodes::All) })
    };
    let desired = calico([
        Resource::Node(own),
        Resource::Node(twin),
        Resource::Node(node("c", "10.0.0.3/24")),
        internal("b", "10.0.0.2:179"),
        internal("c", "10.0.0.3:179"),
        Resource::BgpPeer(peer("tor", "10.0.0.4:179", PeerNodes::All)),
    ])
    .desired();
    let clients: Vec<_> =
        desired.peers.values().map(|peer| (peer.resource.as_str(), peer.reflector_client)).collect();
    assert_eq!(clients, [("b", None), ("c", Some(cluster_id)), ("tor", None)]);
}

#[test]
fn peers_of_all_nodes_come_before_those_of_one_and_none_twice() {
    let named = || PeerNodes::Named("a".to_owned());
    let desired = calico([
        configuration(Some(false)),
        Resource::Node(node("a", "10.0.0.1/24")),
        Resource::BgpPeer(peer("all", "10.0.0.9:179", PeerNodes::All)),
        Resource::BgpPeer(peer("again", "10.0.0.9:179", named())),
        Resource::BgpPeer(peer("port", "10.0.0.9:1179", named())),
        Resource::BgpPeer(peer("self", "10.0.0.1:179", PeerNodes::All)),
        Resource::BgpPeer(peer("v6", "[fd00::9]:179", PeerNodes::All)),
        Resource::BgpPeer(peer("others", "10.0.0.8:179", PeerNodes::Named("b".to_owned()))),
    ])
    .desired();
    assert_eq!(names(&desired), ["Global_10_0_0_9", "Node_10_0_0_9_port_1179"]);
    let warnings: Vec<_> = desired.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "BGPPeer(v6) is left out: this node has no IPv6 address",
            "BGPPeer(again) is left out: Global_10_0_0_9 leads to 10.0.0.9:179 already",
        ]
    );
}

#[test]
fn a_gateway_to_a_peer_stays_with_its_session() {
    let gateway = Some("10.0.0.254".parse().unwrap());
    let desired = calico([
        Resource::Node(node("a", "10.0.0.1/24")),
        Resource::BgpPeer(BgpPeer { reachable_by: gateway, ..peer("tor", "10.9.0.1:179", PeerNodes::All) }),
    ])
    .desired();
    let ways: Vec<_> = desired.peers.values().map(|peer| (peer.address, peer.reachable_by)).collect();
    assert_eq!(ways, [("10.9.0.1".parse().unwrap(), gateway)]);
}

fn labelled(name: &str, ipv4: &str, label: &str) -> Node {
    let labels = BTreeMap::from([(label.to_owned(), "true".to_owned())]);
    Node { labels, ..node(name, ipv4) }
}

/// A BGPPeer of the nodes of one label with the nodes of another.
fn between(nodes: &str, others: &str) -> BgpPeer {
    BgpPeer {
        nodes: PeerNodes::Selected(nodes.to_owned()),
        target: PeerTarget::Nodes(others.to_owned()),
        as_number: None,
        ..peer("selected", "10.0.0.9:179", PeerNodes::All)
    }
}

#[test]
fn nodes_find_each_other_by_their_labels_and_both_ends_have_the_session() {
    let resources = |own: &str, peer: BgpPeer| {
        let nodes = [labelled("a", "10.0.0.1/24", "plain"), labelled("b", "10.0.0.2/24", "plain")];
        let mut calico = Calico::new(own);
        for node in nodes.into_iter().chain([labelled("r", "10.0.0.9/24", "reflector")]) {
            calico.apply(&Update::Put(Resource::Node(node).into()));
        }
        calico.apply(&Update::Put(configuration(Some(false)).into()));
        calico.apply(&Update::Put(Resource::BgpPeer(peer).into()));
        names(&calico.desired()).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let to_reflectors = between("has(plain)", "has(reflector)");
    assert_eq!(resources("a", to_reflectors.clone()), ["Node_10_0_0_9"]);
    assert_eq!(resources("r", to_reflectors.clone()), ["Node_10_0_0_1", "Node_10_0_0_2"]);
    let one_way = BgpPeer { reverse_peering: false, ..to_reflectors };
    assert_eq!(resources("a", one_way.clone()), ["Node_10_0_0_9"]);
    assert_eq!(resources("r", one_way), [] as [&str; 0]);
}

#[test]
fn the_other_end_of_a_session_with_an_as_of_its_own_is_met_as_that_as() {
    let peer = BgpPeer {
        local_as_number: Some(AsNumber(65010)),
        target: PeerTarget::Address("10.0.0.1:179".parse().unwrap()),
        as_number: Some(AsNumber(64512)),
        nodes: PeerNodes::Named("b".to_owned()),
        ..peer("own-as", "10.0.0.9:179", PeerNodes::All)
    };
    let desired = calico([
        configuration(Some(false)),
        Resource::Node(node("a", "10.0.0.1/24")),
        Resource::Node(node("b", "10.0.0.2/24")),
        Resource::BgpPeer(peer),
    ])
    .desired();
    let seen: Vec<_> = desired.peers.values().map(|peer| (peer.as_number, peer.local_as)).collect();
    assert_eq!(seen, [(AsNumber(65010), None)]);
}

#[test]
fn a_peer_that_is_no_node_needs_an_as() {
    let desired = calico([
        Resource::Node(node("a", "10.0.0.1/24")),
        Resource::BgpPeer(BgpPeer { as_number: None, ..peer("tor", "10.0.0.9:179", PeerNodes::All) }),
    ])
    .desired();
    assert!(desired.peers.is_empty());
    assert_eq!(desired.warnings, [Warning::PeerWithoutAs { peer: "tor".to_owned() }]);
}

#[test]
fn a_peer_that_is_in_the_mesh_already_is_left_out() {
    let desired = calico([
        Resource::Node(node("a", "10.0.0.1/24")),
        Resource::Node(node("b", "10.0.0.2/24")),
        Resource::BgpPeer(peer("b", "10.0.0.2:179", PeerNodes::All)),
    ])
    .desired();
    assert_eq!(names(&desired), ["Mesh_10_0_0_2"]);
    assert!(matches!(&desired.warnings[..], [Warning::PeerTwice { .. }]));
}

#[test]
fn two_nodes_of_one_address_get_one_session() {
    let resources = [node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24"), node("c", "10.0.0.2/24")];
    let desired = calico(resources.map(Resource::Node)).desired();
    assert_eq!(desired.peers.values().map(|peer| peer.resource.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(
        desired.warnings[0].to_string(),
        "there is no session with Node(c): Mesh_10_0_0_2 leads to 10.0.0.2:179 already"
    );
}

#[test]
fn only_confirmed_blocks_of_this_node_count_and_host_blocks_are_no_blackholes() {
    let desired = calico([
        Resource::Node(node("a", "10.0.0.1/24")),
        block("10.65.0.0/26", "a", AffinityState::Confirmed),
        block("10.65.0.64/26", "a", AffinityState::Pending),
        block("10.65.0.128/26", "a", AffinityState::PendingDeletion),
        block("10.65.0.192/26", "b", AffinityState::Confirmed),
        block("10.65.1.1/32", "a", AffinityState::Confirmed),
    ])
    .desired();
    let texts = |prefixes: &BTreeSet<Prefix>| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&desired.blocks), ["10.65.0.0/26", "10.65.1.1/32"]);
    assert_eq!(texts(&desired.blackholes), ["10.65.0.0/26"]);
}

#[test]
fn a_block_of_two_nodes_is_warned_of() {
    let desired = calico([
        Resource::Node(node("a", "10.0.0.1/24")),
        block("10.65.0.0/26", "a", AffinityState::Confirmed),
        block("10.65.0.0/26", "b", AffinityState::Confirmed),
        block("10.65.0.64/26", "a", AffinityState::Confirmed),
        block("10.65.0.64/26", "c", AffinityState::Pending),
    ])
    .desired();
    let block = "10.65.0.0/26".parse().unwrap();
    assert_eq!(desired.warnings, [Warning::BlockClaimedTwice { block, other: "b".to_owned() }]);
}

#[test]
fn an_interface_leads_to_the_endpoint_named_first() {
    let desired = calico([
        Resource::Node(node("a", "10.0.0.1/24")),
        Resource::WorkloadEndpoint(endpoint("w2", "a", "cali1")),
        Resource::WorkloadEndpoint(endpoint("w1", "a", "cali1")),
        Resource::WorkloadEndpoint(endpoint("w0", "b", "cali1")),
        Resource::WorkloadEndpoint(endpoint("w3", "a", "cali3")),
    ])
    .desired();
    let names: Vec<_> = desired.endpoints.keys().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["w1", "w3"]);
    assert!(matches!(&desired.warnings[..], [Warning::InterfaceShared { .. }]));
}

#[test]
fn announced_are_own_blocks_and_addresses_in_pools_and_nothing_else() {
    let desired = calico([
        Resource::IpPool(pool("p1", "10.65.0.0/16", false)),
        Resource::IpPool(pool("p2", "10.65.200.0/24", true)),
        Resource::IpPool(pool("p3", "10.66.0.0/16", true)),
        block("10.65.0.0/26", "a", AffinityState::Confirmed),
        block("10.66.0.0/26", "a", AffinityState::Confirmed),
    ])
    .desired();
    for (route, action) in [
        ("10.65.0.0/26", ExportAction::Accept),
        // A workload of ours is reached by its block.
        ("10.65.0.1/32", ExportAction::Reject),
        ("10.65.0.0/27", ExportAction::Reject),
        // Borrowed from another node's block, or that block itself on its way through a reflector.
        ("10.65.0.65/32", ExportAction::Accept),
        ("10.65.0.64/26", ExportAction::Accept),
        ("10.65.200.1/32", ExportAction::Reject),
        // What a pool keeps back it keeps back whole, own blocks too (`bird_ipam.cfg` asks it first).
        ("10.66.0.0/26", ExportAction::Reject),
        ("10.66.0.64/26", ExportAction::Reject),
        ("10.64.0.0/14", ExportAction::Reject),
        ("192.0.2.0/24", ExportAction::Reject),
        ("0.0.0.0/0", ExportAction::Reject),
        ("::/0", ExportAction::Reject),
    ] {
        assert_eq!(desired.export.action(route.parse().unwrap()), action, "{route}");
    }
}

/// Calico keeps pools by CIDR, and of several the one whose name is first (`ippoolprocessor_test.go`), whoever came first.
#[test]
fn of_pools_with_one_cidr_the_first_by_name_counts() {
    let first = IpPool { ipip_mode: EncapMode::Always, ..pool("blue", "10.65.0.0/16", true) };
    let second = IpPool { nat_outgoing: true, ..pool("green", "10.65.0.0/16", false) };
    let other = pool("amber", "10.66.0.0/16", false);
    let own = || Resource::Node(node("a", "10.0.0.1/24"));
    let all = [second.clone(), other.clone(), first.clone()].map(Resource::IpPool);
    let mut both = calico(all.into_iter().chain([own()]));
    let (used, left_out) = ("blue".to_owned(), "green".to_owned());
    let warning = Warning::PoolTwice { cidr: first.cidr, used, left_out };
    let mut desired = both.desired();
    assert_eq!(desired.warnings.remove(0), warning);
    let without_second = calico([own()].into_iter().chain([first, other.clone()].map(Resource::IpPool)));
    assert_eq!(desired, without_second.desired());
    both.apply(&Update::Remove(Key::IpPool("blue".to_owned())));
    let without_first = calico([own()].into_iter().chain([second, other].map(Resource::IpPool)));
    assert_eq!(both.desired(), without_first.desired());
}

fn resource() -> impl Strategy<Value = Resource> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        (name(), 1..5u8, any::<bool>()).prop_map(|(name, host, reflector)| Resource::Node(Node {
            route_reflector_cluster_id: reflector.then_some(Ipv4Addr::new(1, 0, 0, 1)),
            ..node(name, &format!("10.0.0.{host}/24"))
        })),
        (name(), 1..5u8, prop::option::of(name())).prop_map(|(name, host, node)| {
            let nodes = node.map_or(PeerNodes::All, |node| PeerNodes::Named(node.to_owned()));
            Resource::BgpPeer(peer(name, &format!("10.0.0.{host}:179"), nodes))
        }),
        (name(), name(), 0..3u8).prop_map(|(name, node, interface)| {
            Resource::WorkloadEndpoint(endpoint(name, node, &format!("cali{interface}")))
        }),
        (name(), 0..3u8).prop_map(|(node, n)| block(
            &format!("10.65.{n}.0/26"),
            node,
            AffinityState::Confirmed
        )),
        (name(), 0..3u8, any::<bool>()).prop_map(|(name, n, off)| Resource::IpPool(pool(
            name,
            &format!("10.{n}.0.0/16"),
            off
        ))),
        any::<Option<bool>>().prop_map(configuration),
    ]
}

proptest! {
    #[test]
    fn only_the_current_resources_count_and_not_how_they_came(
        history in prop::collection::vec((resource(), any::<bool>()), 0..40)
    ) {
        let mut lived = Calico::new("a");
        let mut current = BTreeMap::new();
        for (resource, stays) in history {
            let key = resource.key();
            lived.apply(&Update::Put(resource.clone().into()));
            if stays {
                current.insert(key, resource);
            } else {
                lived.apply(&Update::Remove(key.clone()));
                current.remove(&key);
            }
        }
        let fresh = calico(current.into_values().rev());
        prop_assert_eq!(lived.desired(), fresh.desired());
    }

    #[test]
    fn no_two_sessions_lead_to_the_same_place_and_none_to_ourselves(
        resources in prop::collection::vec(resource(), 0..40)
    ) {
        let desired = calico(resources).desired();
        let remotes: BTreeSet<_> = desired.peers.values().map(DesiredPeer::remote).collect();
        prop_assert_eq!(remotes.len(), desired.peers.len());
        if let Some(own) = desired.node.and_then(|node| node.ipv4) {
            prop_assert!(remotes.iter().all(|remote| remote.ip() != own.addr));
        }
    }
}

#[test]
fn workloads_that_speak_bgp_are_waited_for() {
    let speaker = |name: &str, node: &str, address: &str| WorkloadEndpoint {
        labels: [("app".to_owned(), "bird".to_owned())].into(),
        ip_networks: vec![address.parse().unwrap()],
        ..endpoint(name, node, &format!("cali-{name}"))
    };
    let with_workloads = BgpPeer {
        as_number: Some(AsNumber(64516)),
        local_as_number: Some(AsNumber(65002)),
        ..BgpPeer::new("workloads", PeerTarget::LocalWorkloads("app == 'bird'".to_owned()))
    };
    let desired = calico([
        Resource::Node(node("a", "10.0.0.1/24")),
        Resource::BgpPeer(with_workloads),
        Resource::BgpConfiguration(BgpConfiguration {
            name: "default".to_owned(),
            local_workload_peering_v4: Some([10, 64, 0, 1].into()),
            ..BgpConfiguration::default()
        }),
        Resource::WorkloadEndpoint(speaker("w1", "a", "10.65.0.1/32")),
        Resource::WorkloadEndpoint(speaker("w2", "b", "10.65.0.2/32")),
        Resource::WorkloadEndpoint(endpoint("w3", "a", "cali3")),
    ])
    .desired();
    assert_eq!(names(&desired), ["Local_Workload_10_65_0_1"]);
    let session = desired.peers.values().next().unwrap();
    assert!(session.passive);
    assert_eq!((session.source_address, session.local_as), (None, Some(AsNumber(65002))));
    assert!(desired.tunnels.addresses.contains(&IpAddr::from([10, 64, 0, 1])), "the host has the address");
}

#[test]
fn of_the_bgp_peers_that_select_a_workload_the_first_by_name_counts_and_one_address_a_family() {
    let with_workloads = |name: &str, nodes: PeerNodes, selector: &str, as_number: u32| {
        Resource::BgpPeer(BgpPeer {
            as_number: Some(AsNumber(as_number)),
            nodes,
            ..BgpPeer::new(name, PeerTarget::LocalWorkloads(selector.to_owned()))
        })
    };
    let of_namespace = Profile {
        name: "kns.edge".to_owned(),
        labels_to_apply: [("pcns.role".to_owned(), "edge".to_owned())].into(),
        ingress: Vec::new(),
        egress: Vec::new(),
    };
    let speaker = |name: &str, addresses: &[&str]| {
        Resource::WorkloadEndpoint(WorkloadEndpoint {
            labels: [("app".to_owned(), name.to_owned())].into(),
            profiles: vec!["kns.edge".to_owned()],
            ip_networks: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ..endpoint(name, "a", &format!("cali-{name}"))
        })
    };
    let mut calico = calico([
        Resource::Node(Node { ipv6: Some("fd00::1/64".parse().unwrap()), ..node("a", "10.0.0.1/24") }),
        // One for all nodes doesn't come before one of this node, as it would among others.
        with_workloads("z-all", PeerNodes::All, "has(app)", 65001),
        with_workloads("b-own", PeerNodes::Named("a".to_owned()), "pcns.role == 'edge'", 65002),
        with_workloads("a-elsewhere", PeerNodes::Named("b".to_owned()), "has(app)", 65003),
        speaker("w1", &["10.65.0.1/32", "10.65.0.2/32", "fd65::1/128", "fd65::2/128"]),
    ]);
    let sessions = |calico: &Calico| -> Vec<_> {
        let desired = calico.desired();
        desired.peers.values().map(|peer| (peer.address.to_string(), peer.as_number.0)).collect()
    };
    let both = |as_number| [("10.65.0.1".to_owned(), as_number), ("fd65::1".to_owned(), as_number)];
    assert_eq!(sessions(&calico), both(65001), "the profile isn't there yet");
    let profile = Update::Put(Resource::Profile(of_namespace).into());
    assert!(calico.concerns(&profile));
    calico.apply(&profile);
    assert_eq!(sessions(&calico), both(65002));
    calico.apply(&Update::Remove(Key::Profile("kns.edge".to_owned())));
    assert_eq!(sessions(&calico), both(65001));
}

#[test]
fn a_peer_at_an_address_without_tcp_is_warned_of() {
    let desired = calico([
        Resource::Node(node("a", "10.0.0.1/24")),
        Resource::BgpPeer(peer("tor", "224.0.0.5:179", PeerNodes::All)),
    ])
    .desired();
    assert_eq!(names(&desired), ["Global_224_0_0_5"], "as with Calico");
    let expected = Warning::PeerAtMulticast { peer: "tor".to_owned(), address: [224, 0, 0, 5].into() };
    assert_eq!(desired.warnings, [expected]);
}
