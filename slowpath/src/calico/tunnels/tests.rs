//! The three nodes of Calico's own examples: two in one subnet, the third beyond a router.

use model::{
    AffinityState, BgpConfiguration, BlockAffinity, FelixConfiguration, Resource, Setting, Setting::Given,
    Update,
};
use proptest::prelude::*;

use super::*;
use crate::calico::Desired;

const WALKER_1: &str = "172.16.6.47";
const WALKER_2: &str = "172.16.6.249";
const DEMI_1: &str = "172.16.199.114";
const BLOCK_1: &str = "192.168.187.192/26";
const BLOCK_2: &str = "192.168.135.64/26";
const BLOCK_3: &str = "192.168.121.0/26";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn node(name: &str, address: &str, tunnel_address: &str) -> Node {
    Node {
        name: name.to_owned(),
        ipv4: Some(format!("{address}/24").parse().unwrap()),
        ipip_tunnel_addr: Some(tunnel_address.parse().unwrap()),
        vxlan_tunnel_addr: Some(tunnel_address.parse().unwrap()),
        ..Node::default()
    }
}

fn nodes() -> Vec<Node> {
    vec![
        node("walker-1", WALKER_1, "192.168.187.192"),
        node("walker-2", WALKER_2, "192.168.135.64"),
        node("demi-1", DEMI_1, "192.168.121.0"),
    ]
}

fn pool(ipip_mode: EncapMode, vxlan_mode: EncapMode) -> IpPool {
    IpPool {
        name: "pool".to_owned(),
        cidr: prefix("192.168.0.0/16"),
        ipip_mode,
        vxlan_mode,
        nat_outgoing: true,
        disabled: false,
        disable_bgp_export: false,
    }
}

/// walker-1's view of the three nodes, their blocks, this pool and these settings.
fn calico(nodes: Vec<Node>, pool: IpPool, felix: FelixConfiguration) -> Calico {
    let mut calico = Calico::new("walker-1");
    let block = |(cidr, node): (&str, &str)| {
        let block =
            BlockAffinity { cidr: prefix(cidr), node: node.to_owned(), state: AffinityState::Confirmed };
        Resource::BlockAffinity(block)
    };
    let blocks = [(BLOCK_1, "walker-1"), (BLOCK_2, "walker-2"), (BLOCK_3, "demi-1")].map(block);
    let felix = FelixConfiguration { name: "default".to_owned(), ..felix };
    let others = [Resource::IpPool(pool), Resource::FelixConfiguration(felix)];
    for resource in nodes.into_iter().map(Resource::Node).chain(blocks).chain(others) {
        calico.apply(&Update::Put(resource.into()));
    }
    calico
}

fn desired(pool: IpPool) -> Desired {
    calico(nodes(), pool, FelixConfiguration::default()).desired()
}

fn ipip(mode: EncapMode) -> Desired {
    desired(pool(mode, EncapMode::Never))
}

fn vxlan(mode: EncapMode) -> Desired {
    desired(pool(EncapMode::Never, mode))
}

/// Where BGP's route to a block leads: each next hop, and the tunnel's far end where it is one.
fn from_bgp(desired: &Desired, block: &str, nexthops: &[&str]) -> Option<Vec<(IpAddr, Option<IpAddr>)>> {
    let target =
        desired.tunnels.bgp_target(prefix(block), nexthops.iter().map(|nexthop| (ip(nexthop), 1)))?;
    let way = |gateway: &Gateway| (gateway.addr, gateway.tunnel.map(|tunnel| tunnel.remote));
    Some(target.gateways().iter().map(way).collect())
}

/// The same for the datastore's routes.
fn from_datastore(desired: &Desired) -> Vec<(String, IpAddr, Option<Encapsulation>)> {
    let way = |(prefix, gateway): (&Prefix, &Gateway)| {
        (prefix.to_string(), gateway.addr, gateway.tunnel.map(|tunnel| tunnel.encapsulation))
    };
    let tunnels = &desired.tunnels;
    tunnels.routes.iter().chain(&tunnels.routes_without_vxlan).map(way).collect()
}

/// With the pool's routes left to Felix, to BGP, or to both; `None` says nothing.
fn shared_out(pool: IpPool, to_felix: Option<ClusterRoutes>, to_bgp: Option<ClusterRoutes>) -> Desired {
    let felix =
        FelixConfiguration { cluster_routes: Setting::from(to_felix), ..FelixConfiguration::default() };
    let mut calico = calico(nodes(), pool, felix);
    let cluster = BgpConfiguration {
        name: "default".to_owned(),
        cluster_routes: to_bgp,
        ..BgpConfiguration::default()
    };
    calico.apply(&Update::Put(Resource::BgpConfiguration(cluster).into()));
    calico.desired()
}

#[test]
fn without_encapsulation_routes_lead_to_their_next_hops_and_nothing_is_opened_here() {
    let desired = ipip(EncapMode::Never);
    assert_eq!(from_bgp(&desired, BLOCK_3, &[DEMI_1]), Some(vec![(ip(DEMI_1), None)]));
    assert_eq!((desired.tunnels.ends.as_slice(), desired.tunnels.addresses.len()), (&[][..], 0));
    assert!(desired.tunnels.routes.is_empty() && desired.warnings.is_empty(), "{desired:?}");
}

#[test]
fn ipip_always_encapsulates_towards_every_node_and_towards_nobody_else() {
    let desired = ipip(EncapMode::Always);
    for (block, nexthop) in [(BLOCK_2, WALKER_2), (BLOCK_3, DEMI_1), ("192.168.121.9/32", DEMI_1)] {
        assert_eq!(from_bgp(&desired, block, &[nexthop]), Some(vec![(ip(nexthop), Some(ip(nexthop)))]));
    }
    // A router that announces part of the pool is no node.
    assert_eq!(from_bgp(&desired, BLOCK_3, &["172.16.6.254"]), Some(vec![(ip("172.16.6.254"), None)]));
    // Outside the pool nothing is encapsulated, whoever announces it.
    assert_eq!(from_bgp(&desired, "10.0.0.0/8", &[DEMI_1]), Some(vec![(ip(DEMI_1), None)]));
    assert_eq!(from_bgp(&desired, "192.0.0.0/8", &[DEMI_1]), Some(vec![(ip(DEMI_1), None)]));
    assert_eq!(from_bgp(&desired, BLOCK_3, &[]), None);
}

#[test]
fn ipip_across_subnets_is_plain_within_ours_also_where_one_route_leads_to_both() {
    let desired = ipip(EncapMode::CrossSubnet);
    assert_eq!(from_bgp(&desired, BLOCK_2, &[WALKER_2]), Some(vec![(ip(WALKER_2), None)]));
    let both = from_bgp(&desired, BLOCK_3, &[DEMI_1, WALKER_2]);
    assert_eq!(both, Some(vec![(ip(WALKER_2), None), (ip(DEMI_1), Some(ip(DEMI_1)))]));
}

#[test]
fn an_address_recorded_without_its_subnet_makes_every_node_another_subnets() {
    let mut nodes = nodes();
    nodes[0].ipv4 = Some(format!("{WALKER_1}/32").parse().unwrap());
    let desired =
        calico(nodes, pool(EncapMode::CrossSubnet, EncapMode::Never), FelixConfiguration::default())
            .desired();
    assert_eq!(from_bgp(&desired, BLOCK_2, &[WALKER_2]), Some(vec![(ip(WALKER_2), Some(ip(WALKER_2)))]));
    assert!(
        matches!(&desired.warnings[..], [Warning::NodeAddressWithoutSubnet { .. }]),
        "{:?}",
        desired.warnings
    );
}

#[test]
fn an_ipip_tunnel_carries_both_ends_its_mtu_and_what_the_node_sends_from() {
    let felix = FelixConfiguration { ipip_mtu: Given(1400), ..FelixConfiguration::default() };
    let desired = calico(nodes(), pool(EncapMode::Always, EncapMode::Never), felix).desired();
    let target = desired.tunnels.bgp_target(prefix(BLOCK_3), [(ip(DEMI_1), 1)]).unwrap();
    let expected = Tunnel {
        local: ip(WALKER_1),
        remote: ip(DEMI_1),
        encapsulation: Encapsulation::Ipip,
        mtu: Some(1400),
        source: Some(ip("192.168.187.192")),
    };
    assert_eq!(target.tunnel(), Some(&expected));
    assert_eq!(desired.tunnels.addresses, BTreeSet::from([ip("192.168.187.192")]));
}

#[test]
fn ipip_routes_come_from_blocks_and_bgps_stand_behind_them() {
    let desired = ipip(EncapMode::CrossSubnet);
    let (far, near) = ((BLOCK_3, DEMI_1, Some(Encapsulation::Ipip)), (BLOCK_2, WALKER_2, None));
    let expected =
        [far, near].map(|(block, node, encapsulation)| (block.to_owned(), ip(node), encapsulation));
    assert_eq!(from_datastore(&desired), expected);
    let tunnel = desired.tunnels.routes_without_vxlan[&prefix(BLOCK_3)].tunnel;
    assert_eq!(tunnel.and_then(|tunnel| tunnel.source), Some(ip("192.168.187.192")));
    assert_eq!(from_bgp(&desired, BLOCK_3, &[DEMI_1]), Some(vec![(ip(DEMI_1), Some(ip(DEMI_1)))]));
    assert_eq!(desired.warnings, []);
}

#[test]
fn both_configurations_say_whose_a_pools_routes_are() {
    let words = ClusterRoutes::MEANINGS.map(Some).into_iter().chain([None]);
    for (to_felix, to_bgp) in words.clone().flat_map(|felix| words.clone().map(move |bgp| (felix, bgp))) {
        for is_ipip in [true, false] {
            let mode = if is_ipip { EncapMode::Always } else { EncapMode::Never };
            let desired = shared_out(pool(mode, EncapMode::Never), to_felix, to_bgp);
            let has = |given: ClusterRoutes| if is_ipip { given.ipip } else { given.no_encap };
            let (felixs, bgps) = (to_felix.map_or(is_ipip, has), to_bgp.is_none_or(has));
            let case = format!("{to_felix:?}, {to_bgp:?}, IPIP {is_ipip}");
            let routes = desired.tunnels.routes_without_vxlan.contains_key(&prefix(BLOCK_2));
            assert_eq!(routes, felixs, "{case}");
            assert_eq!(from_bgp(&desired, BLOCK_2, &[WALKER_2]).is_some(), bgps, "{case}");
            assert!(from_bgp(&desired, "10.0.0.0/8", &[WALKER_2]).is_some(), "in no pool: {case}");
            let without = Warning::PoolWithoutRoutes { pool: "pool".to_owned() };
            assert_eq!(desired.warnings.contains(&without), !felixs && !bgps, "{case}");
        }
        let vxlan = shared_out(pool(EncapMode::Never, EncapMode::Always), to_felix, to_bgp);
        assert_eq!((vxlan.tunnels.routes.len(), vxlan.tunnels.routes_without_vxlan.len()), (2, 0));
        assert_eq!(from_bgp(&vxlan, BLOCK_2, &[WALKER_2]), None);
        assert_eq!(vxlan.warnings, []);
    }
}

#[test]
fn a_plain_pool_of_felixs_has_no_routes_to_another_subnet() {
    let everything = ClusterRoutes { ipip: true, no_encap: true };
    let desired = shared_out(pool(EncapMode::Never, EncapMode::Never), Some(everything), None);
    assert_eq!(from_datastore(&desired), [(BLOCK_2.to_owned(), ip(WALKER_2), None)]);
    assert!(desired.tunnels.ends.is_empty());
}

#[test]
fn an_ipip_address_out_of_anothers_block_gets_a_route_of_its_own() {
    let mut nodes = nodes();
    nodes[2].ipip_tunnel_addr = Some("192.168.135.77".parse().unwrap());
    let desired =
        calico(nodes, pool(EncapMode::Always, EncapMode::Never), FelixConfiguration::default()).desired();
    let route = desired.tunnels.routes_without_vxlan[&prefix("192.168.135.77/32")];
    assert_eq!(route.tunnel.map(|tunnel| tunnel.remote), Some(ip(DEMI_1)));
}

#[test]
fn vxlan_routes_come_from_affinities_and_bgps_are_left_out() {
    let desired = vxlan(EncapMode::Always);
    let to = |name: &str| Encapsulation::Vxlan {
        port: 4789,
        vni: 4096,
        destination: vtep_mac(name),
        own: vtep_mac("walker-1"),
    };
    assert_eq!(
        from_datastore(&desired),
        [
            (BLOCK_3.to_owned(), ip(DEMI_1), Some(to("demi-1"))),
            (BLOCK_2.to_owned(), ip(WALKER_2), Some(to("walker-2"))),
        ]
    );
    assert_eq!(from_bgp(&desired, BLOCK_3, &[DEMI_1]), None);
    assert_eq!(from_bgp(&desired, "10.0.0.0/8", &[DEMI_1]), Some(vec![(ip(DEMI_1), None)]));
    let across = vxlan(EncapMode::CrossSubnet);
    assert_eq!(
        from_datastore(&across),
        [(BLOCK_3.to_owned(), ip(DEMI_1), Some(to("demi-1"))), (BLOCK_2.to_owned(), ip(WALKER_2), None),]
    );
}

#[test]
fn ends_open_what_the_other_nodes_and_the_listed_ones_send() {
    let felix = FelixConfiguration {
        external_nodes: Given(vec![prefix("10.9.9.8/30"), prefix("fd00::9/128")]),
        vxlan_port: Given(8472),
        vxlan_vni: Given(1),
        ..FelixConfiguration::default()
    };
    let desired = calico(nodes(), pool(EncapMode::Never, EncapMode::CrossSubnet), felix).desired();
    let [end] = &desired.tunnels.ends[..] else { panic!("{:?}", desired.tunnels.ends) };
    assert_eq!(
        (end.local.to_string(), end.kind),
        (WALKER_1.to_owned(), TunnelKind::Vxlan { port: 8472, vni: 1, mac: vtep_mac("walker-1") })
    );
    for (remote, known) in
        [(WALKER_2, true), (DEMI_1, true), ("10.9.9.9", true), (WALKER_1, false), ("10.9.9.12", false)]
    {
        assert_eq!(end.knows_v4(remote.parse().unwrap()), known, "{remote}");
    }
}

#[test]
fn a_setting_overrides_the_pools_and_what_that_breaks_is_told() {
    let on = FelixConfiguration {
        ipip_enabled: Given(true),
        vxlan_enabled: Given(true),
        ..FelixConfiguration::default()
    };
    let opened = calico(nodes(), pool(EncapMode::Never, EncapMode::Never), on).desired();
    assert_eq!(
        opened.tunnels.ends.iter().map(|end| end.kind).collect::<Vec<_>>(),
        [TunnelKind::Ipip, TunnelKind::Vxlan { port: 4789, vni: 4096, mac: vtep_mac("walker-1") }]
    );
    assert_eq!(from_bgp(&opened, BLOCK_3, &[DEMI_1]), Some(vec![(ip(DEMI_1), None)]));

    let off = || FelixConfiguration {
        ipip_enabled: Given(false),
        vxlan_enabled: Given(false),
        ..FelixConfiguration::default()
    };
    let closed = calico(nodes(), pool(EncapMode::CrossSubnet, EncapMode::Never), off()).desired();
    assert_eq!(from_datastore(&closed), []);
    assert_eq!(from_bgp(&closed, BLOCK_3, &[DEMI_1]), None, "not plainly: the pool forbids it");
    assert_eq!(from_bgp(&closed, BLOCK_2, &[WALKER_2]), Some(vec![(ip(WALKER_2), None)]));
    assert!(closed.tunnels.ends.is_empty());
    let by = |by| Warning::TunnelsSwitchedOff { pool: "pool".to_owned(), by };
    assert_eq!(closed.warnings, [by("ipipEnabled")]);
    let closed = calico(nodes(), pool(EncapMode::Never, EncapMode::Always), off()).desired();
    assert_eq!((from_datastore(&closed).len(), closed.warnings), (0, vec![by("vxlanEnabled")]));
}

#[test]
fn a_node_without_a_vtep_gets_no_vxlan_route_and_is_named() {
    let mut nodes = nodes();
    nodes[2].vxlan_tunnel_addr = None;
    let pool = pool(EncapMode::Never, EncapMode::CrossSubnet);
    let desired = calico(nodes.clone(), pool.clone(), FelixConfiguration::default()).desired();
    assert_eq!(from_datastore(&desired).iter().map(|route| route.0.as_str()).collect::<Vec<_>>(), [BLOCK_2]);
    let missing =
        |node: &str| Warning::TunnelAddressMissing { node: node.to_owned(), field: "ipv4VXLANTunnelAddr" };
    assert_eq!(desired.warnings, [missing("demi-1")]);
    // In our subnet nobody needs one, but our own: the third node can't answer without it.
    nodes[1].vxlan_tunnel_addr = None;
    nodes[0].vxlan_tunnel_addr = None;
    let desired = calico(nodes, pool, FelixConfiguration::default()).desired();
    assert_eq!(desired.warnings, [missing("walker-1"), missing("demi-1")]);
}

#[test]
fn a_vtep_whose_address_is_of_anothers_block_gets_a_route_of_its_own() {
    let mut nodes = nodes();
    nodes[2].vxlan_tunnel_addr = Some("192.168.135.77".parse().unwrap());
    let desired =
        calico(nodes, pool(EncapMode::Never, EncapMode::Always), FelixConfiguration::default()).desired();
    let route = desired.tunnels.routes.get(&prefix("192.168.135.77/32")).unwrap();
    assert_eq!(route.tunnel.map(|tunnel| tunnel.remote), Some(ip(DEMI_1)));
}

#[test]
fn a_pool_of_ipv6_goes_by_vxlan_over_ipv6() {
    let v6 = |mut node: Node, last: u16| {
        node.ipv6 = Some(format!("fd00:16:{}::{last}/64", if last == 3 { 199 } else { 6 }).parse().unwrap());
        node.vxlan_tunnel_addr_v6 = Some(format!("fd65::{last}:0").parse().unwrap());
        node
    };
    let nodes = nodes().into_iter().zip(1..).map(|(node, last)| v6(node, last)).collect();
    let pool = IpPool { cidr: prefix("fd65::/48"), ..pool(EncapMode::Never, EncapMode::CrossSubnet) };
    let felix = FelixConfiguration {
        vxlan_mtu: Given(1300),
        vxlan_mtu_v6: Given(1400),
        // As in Felix, this is not about IPv6.
        vxlan_enabled: Given(false),
        ..FelixConfiguration::default()
    };
    let mut calico = calico(nodes, pool, felix);
    for (last, node) in [(2, "walker-2"), (3, "demi-1")] {
        let cidr = prefix(&format!("fd65::{last}:0/122"));
        let block = BlockAffinity { cidr, node: node.to_owned(), state: AffinityState::Confirmed };
        calico.apply(&Update::Put(Resource::BlockAffinity(block).into()));
    }
    let Desired { tunnels, warnings, .. } = calico.desired();
    assert_eq!(warnings, []);
    assert_eq!(tunnels.routes.get(&prefix("fd65::2:0/122")), Some(&Gateway::at(ip("fd00:16:6::2"))));
    let expected = Tunnel {
        local: ip("fd00:16:6::1"),
        remote: ip("fd00:16:199::3"),
        encapsulation: Encapsulation::Vxlan {
            port: 4789,
            vni: 4096,
            destination: vtep_mac("demi-1-v6"),
            own: vtep_mac("walker-1-v6"),
        },
        mtu: Some(1400),
        source: Some(ip("fd65::1:0")),
    };
    assert_eq!(tunnels.routes.get(&prefix("fd65::3:0/122")), Some(&Gateway::behind(expected)));
    assert!(expected.template().is_some_and(|template| template.overhead() == 70));
    let [end] = &tunnels.ends[..] else { panic!("{:?}", tunnels.ends) };
    assert!(end.local == ip("fd00:16:6::1") && end.knows_v6("fd00:16:199::3".parse().unwrap()), "{end:?}");
}

/// `printf walker-1 | sha1sum` and so on.
#[test]
fn a_vteps_mac_address_is_the_nodes_or_made_of_its_name() {
    assert_eq!(vtep_mac("walker-1").to_string(), "66:d5:98:3a:77:e4");
    let named = node("walker-1", WALKER_1, "192.168.187.192");
    assert_eq!(Vtep::of(&named, Family::V6).mac.to_string(), "66:88:07:00:c0:52");
    let given = Node { vxlan_tunnel_mac: Some(MacAddr([2, 0, 0, 0, 0, 7])), ..named };
    assert_eq!(Vtep::of(&given, Family::V4).mac, MacAddr([2, 0, 0, 0, 0, 7]));
}

proptest! {
    /// No route, of BGP or the datastore, is encapsulated unless its pool asks for it; and with `Always` none is plain
    /// that leads to a node.
    #[test]
    fn encapsulated_is_what_the_pool_asks_for(mode in 0usize..3, is_vxlan in any::<bool>(), last in any::<u8>()) {
        let mode = [EncapMode::Never, EncapMode::Always, EncapMode::CrossSubnet][mode];
        let desired = if is_vxlan { vxlan(mode) } else { ipip(mode) };
        for (nexthop, is_far) in [(WALKER_2, false), (DEMI_1, true)] {
            let address = format!("192.168.121.{last}/32");
            let expected = is_encapsulated(mode, !is_far);
            if let Some(target) = desired.tunnels.bgp_target(prefix(&address), [(ip(nexthop), 1)]) {
                prop_assert_eq!(target.tunnel().is_some(), expected);
                prop_assert!(!is_vxlan || mode == EncapMode::Never);
            } else {
                prop_assert!(is_vxlan && mode != EncapMode::Never);
            }
        }
        let Tunnels { routes, routes_without_vxlan, .. } = &desired.tunnels;
        prop_assert_eq!(routes.is_empty(), !is_vxlan || mode == EncapMode::Never);
        prop_assert_eq!(routes_without_vxlan.is_empty(), is_vxlan || mode == EncapMode::Never);
        for gateway in routes.values().chain(routes_without_vxlan.values()) {
            let expected = is_encapsulated(mode, gateway.addr == ip(WALKER_2));
            prop_assert_eq!(gateway.tunnel.is_some(), expected);
        }
    }
}
