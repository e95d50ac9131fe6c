//! What is offered follows from what there is, and goes with it.

use std::net::IpAddr;
use std::time::Instant;

use model::{MacAddr, WorkloadEndpoint};
use proptest::prelude::*;

use super::*;
use crate::calico::Calico;
use crate::kernel_routes::KernelNexthop;
use crate::neighbors::table::NeighborOrigin;

const UPLINK: IfIndex = IfIndex(2);
const WORKLOAD: IfIndex = IfIndex(3);
const MANAGEMENT: IfIndex = IfIndex(4);
const HOST_NEAR: IfIndex = IfIndex(5);
const HOST_FAR: IfIndex = IfIndex(6);

/// `RTPROT_BOOT`, `RTPROT_STATIC`, `RTPROT_DHCP`.
const BOOT: u8 = 3;
const STATIC: u8 = 4;
const DHCP: u8 = 16;

struct Bench {
    kernel: KernelState,
    desired: Desired,
    neighbors: NeighborTable,
    roles: Roles,
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(ifindex: IfIndex, name: &str) -> Link {
    Link {
        ifindex,
        name: name.to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, ifindex.0 as u8]),
        mtu: 1500,
        up: true,
        kind: None,
        peer: None,
        peer_netns: None,
        num_rx_queues: 1,
    }
}

impl Bench {
    /// Five links, no addresses.
    fn new() -> Bench {
        let links = vec![
            link(UPLINK, "eth0"),
            link(WORKLOAD, "cali1"),
            link(MANAGEMENT, "mgmt0"),
            link(HOST_NEAR, "tortie0"),
            link(HOST_FAR, "tortie1"),
        ];
        Bench {
            kernel: KernelState { links, ..KernelState::default() },
            desired: Calico::new("a").desired(),
            neighbors: NeighborTable::new(16),
            roles: Roles {
                uplinks: vec!["eth0".to_owned()],
                workload_prefix: "cali".to_owned(),
                host: Some((HOST_NEAR, HOST_FAR)),
            },
        }
    }

    fn address(&mut self, ifindex: IfIndex, addr: &str, scope: Scope) -> &mut Bench {
        self.kernel.addresses.push(Address { ifindex, addr: addr.parse().unwrap(), scope });
        self
    }

    fn route(&mut self, to: &str, hops: &[(Option<&str>, IfIndex)], protocol: u8, metric: u32) -> &mut Bench {
        let hop = |(gateway, ifindex): &(Option<&str>, IfIndex)| KernelNexthop {
            gateway: gateway.map(ip),
            ifindex: *ifindex,
            weight: 1,
        };
        self.kernel.routes.push(KernelRoute {
            prefix: prefix(to),
            nexthops: hops.iter().map(hop).collect(),
            metric,
            protocol,
            table: 254,
            kind: KernelRouteKind::Unicast,
        });
        self
    }

    fn neighbor(&mut self, ifindex: IfIndex, addr: &str) -> &mut Bench {
        let mac = MacAddr([2, 0, 0, 0, 1, 1]);
        self.neighbors.learn(ifindex, ip(addr), mac, NeighborOrigin::Workload, Instant::now()).unwrap();
        self
    }

    fn endpoint(&mut self, interface: &str, addresses: &[&str]) -> &mut Bench {
        let endpoint = WorkloadEndpoint {
            namespace: "default".to_owned(),
            name: interface.to_owned(),
            node: "a".to_owned(),
            interface: interface.to_owned(),
            mac: None,
            ip_networks: addresses.iter().map(|address| prefix(address)).collect(),
            ..WorkloadEndpoint::default()
        };
        self.desired.endpoints.insert(("default".to_owned(), interface.to_owned()), endpoint);
        self
    }

    fn offers(&self) -> Offers {
        offers(&self.kernel, &self.desired, &self.neighbors, &self.roles)
    }

    /// What is offered, as text: one `prefix source target metric` each.
    fn told(&self) -> Vec<String> {
        let text = |((prefix, source), (target, metric)): (&(Prefix, Source), &(Target, u32))| {
            format!("{prefix} {} {target:?} {metric}", source.as_str())
        };
        self.offers().iter().map(text).collect()
    }
}

fn gateway(addr: &str, ifindex: IfIndex) -> Target {
    Target::via(vec![Gateway::on(ifindex, ip(addr))]).unwrap()
}

#[test]
fn an_address_makes_itself_local_and_its_network_connected() {
    let mut bench = Bench::new();
    bench.address(UPLINK, "172.18.0.2/24", Scope::Global).address(UPLINK, "fd00::2/64", Scope::Global);
    let expected = Offers::from([
        ((prefix("172.18.0.2/32"), Source::Local), (Target::Local, 0)),
        ((prefix("172.18.0.0/24"), Source::Connected), (Target::Attached(UPLINK), 0)),
        ((prefix("172.18.0.255/32"), Source::Connected), (Target::Broadcast, 0)),
        ((prefix("fd00::2/128"), Source::Local), (Target::Local, 0)),
        ((prefix("fd00::/64"), Source::Connected), (Target::Attached(UPLINK), 0)),
    ]);
    assert_eq!(bench.offers(), expected);

    bench.kernel.links[0].up = false;
    assert_eq!(bench.told(), ["172.18.0.2/32 local Local 0", "fd00::2/128 local Local 0"]);
}

#[test]
fn a_network_of_two_addresses_has_no_broadcast() {
    let mut bench = Bench::new();
    bench.address(UPLINK, "172.18.0.3/31", Scope::Global);
    assert_eq!(
        bench.told(),
        ["172.18.0.2/31 connected Attached(IfIndex(2)) 0", "172.18.0.3/32 local Local 0"]
    );
}

#[test]
fn a_route_of_the_kernel_with_four_next_hops_is_one_offer_with_four_gateways() {
    for gateways in [
        ["172.18.0.9", "172.18.1.9", "172.18.2.9", "172.18.3.9"],
        ["fd18::9", "fd18:1::9", "fd18:2::9", "fd18:3::9"],
    ] {
        let mut bench = Bench::new();
        let to = if gateways[0].contains(':') { "fd65::/64" } else { "10.65.0.0/16" };
        let links = [10, 11, 12, 13].map(IfIndex);
        let hops: Vec<_> = gateways.iter().zip(links).map(|(addr, link)| (Some(*addr), link)).collect();
        bench.route(to, &hops, STATIC, 0);
        let gateway = |(addr, link): (&str, IfIndex)| Gateway::on(link, ip(addr));
        let target = Target::via(gateways.into_iter().zip(links).map(gateway).collect()).unwrap();
        assert_eq!(target.gateways().len(), 4);
        assert_eq!(bench.offers(), Offers::from([((prefix(to), Source::Static), (target, 0))]));
    }
}

#[test]
fn addresses_that_are_not_the_hosts_own_offer_nothing() {
    let mut bench = Bench::new();
    bench
        .address(WORKLOAD, "10.65.9.9/24", Scope::Global)
        .address(HOST_NEAR, "192.0.2.77/24", Scope::Global)
        .address(UPLINK, "fe80::1/64", Scope::Link)
        .address(UPLINK, "169.254.7.7/16", Scope::Link)
        .address(MANAGEMENT, "10.9.9.9/8", Scope::Host)
        .address(IfIndex(99), "10.8.8.8/8", Scope::Global);
    assert_eq!(bench.told(), Vec::<String>::new());
    bench.address(MANAGEMENT, "192.0.2.1/32", Scope::Global);
    assert_eq!(bench.told(), ["192.0.2.1/32 local Local 0"], "no network of one address is connected");
}

#[test]
fn a_tunnel_address_is_the_kernels_once_the_kernel_has_it_and_vxlan_routes_are_as_desired() {
    let mut bench = Bench::new();
    bench.desired.tunnels.addresses.insert(ip("10.65.9.1"));
    assert_eq!(bench.told(), Vec::<String>::new());
    bench.address(HOST_NEAR, "10.65.9.1/32", Scope::Global).address(HOST_NEAR, "10.65.9.2/32", Scope::Global);
    assert_eq!(bench.told(), ["10.65.9.1/32 local Local 0"], "the other is none of ours");
    let far = Gateway::at(ip("172.18.0.9"));
    bench.desired.tunnels.routes.insert(prefix("10.65.1.0/26"), far);
    let offers = bench.offers();
    let offer = offers.get(&(prefix("10.65.1.0/26"), Source::Vxlan));
    assert_eq!(offer, Some(&(Target::Via(vec![far]), 0)));
}

#[test]
fn routes_by_hand_are_static_and_those_of_daemons_are_the_kernels() {
    let mut bench = Bench::new();
    bench
        .route("10.1.0.0/16", &[(Some("172.18.0.9"), UPLINK)], STATIC, 0)
        .route("10.2.0.0/16", &[(Some("172.18.0.9"), UPLINK)], BOOT, 5)
        .route("0.0.0.0/0", &[(Some("172.18.0.1"), UPLINK)], DHCP, 100)
        .route("10.3.0.0/16", &[(None, MANAGEMENT)], STATIC, 0);
    let expected = Offers::from([
        ((prefix("10.1.0.0/16"), Source::Static), (gateway("172.18.0.9", UPLINK), 0)),
        ((prefix("10.2.0.0/16"), Source::Static), (gateway("172.18.0.9", UPLINK), 5)),
        ((prefix("0.0.0.0/0"), Source::Kernel), (gateway("172.18.0.1", UPLINK), 100)),
        ((prefix("10.3.0.0/16"), Source::Static), (Target::Attached(MANAGEMENT), 0)),
    ]);
    assert_eq!(bench.offers(), expected);
}

#[test]
fn of_two_routes_the_lower_metric_counts_and_none_leads_through_ourselves() {
    let mut bench = Bench::new();
    bench
        .route("10.1.0.0/16", &[(Some("172.18.0.8"), UPLINK)], STATIC, 20)
        .route("10.1.0.0/16", &[(Some("172.18.0.9"), UPLINK)], STATIC, 10)
        .route("10.1.0.0/16", &[(Some("172.18.0.7"), UPLINK)], STATIC, 30)
        .route("10.2.0.0/16", &[(Some("192.0.2.1"), HOST_NEAR)], STATIC, 0)
        .route("10.3.0.0/16", &[(Some("192.0.2.1"), HOST_NEAR), (Some("172.18.0.9"), UPLINK)], STATIC, 0);
    let expected = Offers::from([
        ((prefix("10.1.0.0/16"), Source::Static), (gateway("172.18.0.9", UPLINK), 10)),
        ((prefix("10.3.0.0/16"), Source::Static), (gateway("172.18.0.9", UPLINK), 0)),
    ]);
    assert_eq!(bench.offers(), expected);
}

#[test]
fn kernel_routes_that_refuse_keep_their_kind_and_the_kernels_own_are_not_learned() {
    let mut bench = Bench::new();
    for (kind, target) in [
        (KernelRouteKind::Blackhole, "Blackhole"),
        (KernelRouteKind::Unreachable, "Rejected"),
        (KernelRouteKind::Prohibit, "Prohibited"),
    ] {
        bench.kernel.routes.clear();
        bench.route("10.4.0.0/16", &[], STATIC, 0);
        bench.kernel.routes[0].kind = kind;
        assert_eq!(bench.told(), [format!("10.4.0.0/16 static {target} 0")]);
    }
    bench.kernel.routes.clear();
    bench.route("172.18.0.0/24", &[(None, UPLINK)], 2, 0);
    assert_eq!(bench.told(), Vec::<String>::new(), "RTPROT_KERNEL follows from the addresses");
}

#[test]
fn workloads_are_hosts_behind_their_interface_and_blocks_are_blackholes() {
    let mut bench = Bench::new();
    bench.desired.blackholes.insert(prefix("10.65.0.0/26"));
    bench.endpoint("cali1", &["10.65.0.1/32", "fd65::1/128"]).endpoint("cali-absent", &["10.65.0.2/32"]);
    let expected = Offers::from([
        ((prefix("10.65.0.0/26"), Source::Block), (Target::Blackhole, 0)),
        ((prefix("10.65.0.1/32"), Source::Workload), (Target::Host(WORKLOAD, ip("10.65.0.1")), 0)),
        ((prefix("fd65::1/128"), Source::Workload), (Target::Host(WORKLOAD, ip("fd65::1")), 0)),
    ]);
    assert_eq!(bench.offers(), expected);
}

#[test]
fn next_hops_that_the_kernel_is_told_of_are_followed_those_of_peers_too() {
    let plainly =
        |to: &str, source, via: &str| ((prefix(to), source), (Target::Via(vec![Gateway::at(ip(via))]), 0));
    let offers = Offers::from([
        plainly("10.65.1.0/26", Source::Ipam, "10.9.0.2"),
        plainly("10.65.2.0/26", Source::Vxlan, "10.9.0.3"),
        plainly("172.20.0.9/32", Source::ReachableBy, "10.9.0.5"),
        plainly("10.77.0.0/24", Source::Static, "10.9.0.6"),
    ]);
    let followed: Vec<IpAddr> = plain_nexthops(&offers).collect();
    assert_eq!(followed, [ip("10.9.0.2"), ip("10.9.0.3"), ip("10.9.0.5")]);
}

#[test]
fn neighbors_are_offered_on_connected_networks_of_uplinks_alone() {
    let mut bench = Bench::new();
    bench
        .address(UPLINK, "172.18.0.2/24", Scope::Global)
        .address(MANAGEMENT, "192.0.2.1/24", Scope::Global)
        .neighbor(UPLINK, "172.18.0.3")
        .neighbor(UPLINK, "203.0.113.3")
        .neighbor(MANAGEMENT, "192.0.2.3")
        .neighbor(WORKLOAD, "172.18.0.4");
    let neighbors = |bench: &Bench| -> Vec<(Prefix, Target)> {
        let of_neighbors = |((prefix, source), (target, _)): ((Prefix, Source), (Target, u32))| {
            (source == Source::Neighbor).then_some((prefix, target))
        };
        bench.offers().into_iter().filter_map(of_neighbors).collect()
    };
    let expected = [(prefix("172.18.0.3/32"), Target::Host(UPLINK, ip("172.18.0.3")))];
    assert_eq!(neighbors(&bench), expected);

    bench.kernel.links[0].up = false;
    assert_eq!(neighbors(&bench), []);
    bench.kernel.links[0].up = true;
    bench.neighbors.remove(UPLINK, ip("172.18.0.3"));
    assert_eq!(neighbors(&bench), []);
}

#[test]
fn what_disappears_goes_from_the_rib_and_what_others_offer_stays() {
    let mut bench = Bench::new();
    bench
        .address(UPLINK, "172.18.0.2/24", Scope::Global)
        .route("10.1.0.0/16", &[(Some("172.18.0.9"), UPLINK)], STATIC, 0)
        .endpoint("cali1", &["10.65.0.1/32"]);
    let mut rib = Rib::default();
    let of_bgp = gateway("172.18.0.5", UPLINK);
    rib.insert(prefix("10.1.0.0/16"), Source::Bgp, &of_bgp, 0);
    let before = bench.offers();
    apply(&mut rib, &Offers::new(), &before);
    assert_eq!(rib.len(), 5);
    assert_eq!(rib.get(prefix("10.1.0.0/16")).unwrap().source, Source::Static);

    let after = Bench::new().offers();
    apply(&mut rib, &before, &after);
    assert_eq!(rib.len(), 1);
    assert_eq!(rib.get(prefix("10.1.0.0/16")).unwrap().source, Source::Bgp);
}

/// What the RIB holds, with targets instead of their numbers.
fn held(rib: &Rib) -> BTreeMap<Prefix, Vec<(Source, Target, u32)>> {
    let offer = |offer: crate::rib::Offer| {
        (offer.source, rib.targets().get(offer.target).unwrap().clone(), offer.metric)
    };
    rib.iter().map(|(prefix, _)| (prefix, rib.offers(prefix).map(offer).collect())).collect()
}

fn any_offers() -> impl Strategy<Value = Offers> {
    let prefixes = ["10.0.0.0/8", "10.65.0.0/26", "10.65.0.1/32", "fd65::/64"].map(prefix);
    let sources = [Source::Local, Source::Connected, Source::Workload, Source::Static, Source::Kernel];
    let target = prop_oneof![
        Just(Target::Blackhole),
        Just(Target::Rejected),
        Just(Target::Local),
        (1u32..4).prop_map(|ifindex| Target::Attached(IfIndex(ifindex))),
        (1u8..4).prop_map(|last| gateway(&format!("192.0.2.{last}"), UPLINK)),
    ];
    let key = (prop::sample::select(prefixes.to_vec()), prop::sample::select(sources.to_vec()));
    prop::collection::btree_map(key, (target, 0u32..3), 0..12)
}

proptest! {
    /// The way to a set of offers leaves nothing in the RIB.
    #[test]
    fn the_rib_depends_on_the_last_offers_alone(ways in prop::collection::vec(any_offers(), 1..5)) {
        let mut walked = Rib::default();
        let mut before = Offers::new();
        for after in ways {
            apply(&mut walked, &before, &after);
            before = after;
        }
        let mut at_once = Rib::default();
        apply(&mut at_once, &Offers::new(), &before);
        prop_assert_eq!(held(&walked), held(&at_once));
    }
}

#[test]
fn the_loopback_is_reached_where_it_serves_openstacks_metadata() {
    let mut bench = Bench::new();
    let is_offered = |bench: &Bench, addr: &str| {
        let offers = offers(&bench.kernel, &bench.desired, &bench.neighbors, &bench.roles);
        offers.contains_key(&(Prefix::host(ip(addr)), Source::Local))
    };
    assert!(!is_offered(&bench, "127.0.0.1"));
    bench.desired.felix.openstack = true;
    assert!(is_offered(&bench, "127.0.0.1"));
    // Another host's is routed as any other address.
    bench.desired.felix.metadata_server = Some((std::net::Ipv4Addr::new(192, 0, 2, 7), 80));
    assert!(!is_offered(&bench, "127.0.0.1") && !is_offered(&bench, "192.0.2.7"));
}
