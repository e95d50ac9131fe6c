//! The tables after every step are what the RIB, the ports and the neighbours ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::{IfIndex, MacAddr, PortId, PortKind, Prefix};
use proptest::prelude::*;
use tables::{Group, Limits, Port, Reader, Writer};

use super::{Installer, Surroundings};
use crate::resolve::NeighborAddr;
use crate::rib::{Rib, Source};
use crate::target::{Gateway, Target};
use crate::tunnel::{Encapsulation, Tunnel};

const ETH0: IfIndex = IfIndex(2);
const CALI: IfIndex = IfIndex(3);
const MGMT: IfIndex = IfIndex(4);
const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const KERNELS: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const HOST: PortId = PortId(9);

/// `eth0` is port 0, `cali` port 1; `mgmt` is no port.
#[derive(Default)]
struct Fake {
    macs: BTreeMap<NeighborAddr, MacAddr>,
    lost: BTreeSet<NeighborAddr>,
}

impl Surroundings for Fake {
    fn port(&self, ifindex: IfIndex) -> Option<(PortId, MacAddr)> {
        match ifindex {
            ETH0 => Some((PortId(0), OURS)),
            CALI => Some((PortId(1), OURS)),
            _ => None,
        }
    }

    fn host_port(&self) -> Option<(PortId, MacAddr, MacAddr)> {
        Some((HOST, OURS, KERNELS))
    }

    fn mac(&self, neighbor: NeighborAddr) -> Option<MacAddr> {
        self.macs.get(&neighbor).copied()
    }

    fn is_lost(&self, neighbor: NeighborAddr) -> bool {
        self.lost.contains(&neighbor)
    }
}

struct Bench {
    rib: Rib,
    installer: Installer,
    reader: Reader,
    around: Fake,
}

fn limits(routes: usize) -> Limits {
    Limits {
        ports: 16,
        adjacencies: 64,
        groups: 64,
        routes_v4: routes,
        routes_v6: routes,
        policy: tables::PolicyLimits::NONE,
        readers: 1,
    }
}

impl Bench {
    fn new(routes: usize) -> Bench {
        let mut writer = Writer::new(limits(routes));
        let reader = writer.reader().unwrap();
        let mut rib = Rib::default();
        rib.insert(prefix("172.18.0.0/24"), Source::Connected, &Target::Attached(ETH0), 0);
        Bench { rib, installer: Installer::new(writer), reader, around: Fake::default() }
    }

    fn settle(&mut self) {
        self.reader.go_offline();
        let (changed, gone) = (self.rib.take_changed(), self.rib.take_gone(usize::MAX));
        let winners = changed.iter().chain(&gone).map(|place| self.rib.at(*place));
        self.installer.routes(&self.rib, winners, &self.around);
        self.rib.changes_told(changed);
        self.rib.gone_told(&gone);
        self.installer.rows(&self.rib, &self.around);
    }

    fn resolve(&mut self, addr: &str, mac: u8) {
        let neighbor = NeighborAddr { ifindex: ETH0, addr: addr.parse().unwrap() };
        self.around.macs.insert(neighbor, MacAddr([2, 0, 0, 0, 1, mac]));
    }

    /// The last octet of the MAC address that flows to this address go to, by hash.
    fn flows(&mut self, addr: &str) -> Vec<u8> {
        let IpAddr::V4(addr) = addr.parse().unwrap() else { panic!("IPv4 here") };
        let tables = self.reader.snapshot();
        let group = tables.fib.lookup_v4(addr.into()).expect("a route");
        let next_hops = &tables.state.next_hops;
        let hop = |hash| next_hops.get(next_hops.choose(group, || hash)).addresses[5];
        (0..1024u32).map(|step| hop(step << 22)).collect()
    }

    /// What the fast path does with a packet to this address: port and destination MAC of each next hop.
    fn ways(&mut self, addr: &str) -> Ways {
        let IpAddr::V4(addr) = addr.parse().unwrap() else { panic!("IPv4 here") };
        let tables = self.reader.snapshot();
        let Some(group) = tables.fib.lookup_v4(addr.into()) else { return Ways::NoRoute };
        match tables.state.group(group).expect("a route's group is there") {
            Group::Blackhole => Ways::Blackhole,
            Group::Unreachable => Ways::Unreachable,
            Group::Broadcast => Ways::Broadcast,
            Group::Rejected => Ways::Rejected,
            Group::Prohibited => Ways::Prohibited,
            group @ (Group::Local(_) | Group::Forward(_) | Group::Weighted(..)) => {
                let way = |id: &tables::AdjacencyId| {
                    let adjacency = tables.state.adjacency(*id).expect("a group's adjacency is there");
                    (adjacency.port.0, adjacency.addresses.map(|addresses| addresses[5]))
                };
                Ways::Forward(group.members().iter().map(way).collect())
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ways {
    NoRoute,
    Blackhole,
    Broadcast,
    Rejected,
    Prohibited,
    Unreachable,
    Forward(BTreeSet<(u16, Option<u8>)>),
}

/// Port 0 as the tables have it, up.
fn uplink() -> Port {
    Port {
        id: PortId(0),
        name: "eth0".to_owned(),
        ifindex: ETH0,
        kind: PortKind::Uplink,
        mac: OURS,
        mtu: 1500,
        up: true,
        queues: 1,
        endpoint: None,
    }
}

fn forward(ways: &[(u16, Option<u8>)]) -> Ways {
    Ways::Forward(ways.iter().copied().collect())
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// An IPIP tunnel to this node; inner packets of at most `mtu` bytes, where it is given.
fn tunnel(remote: &str, mtu: Option<u16>) -> Tunnel {
    let local = "172.18.0.1".parse().unwrap();
    Tunnel { local, remote: remote.parse().unwrap(), encapsulation: Encapsulation::Ipip, mtu, source: None }
}

fn via(gateways: &[&str]) -> Target {
    let gateway = |g: &&str| Gateway::at(g.parse().unwrap());
    Target::via(gateways.iter().map(gateway).collect()).unwrap()
}

#[test]
fn a_route_waits_for_its_neighbour_and_follows_it() {
    let mut bench = Bench::new(100);
    bench.rib.insert(prefix("10.65.1.0/26"), Source::Bgp, &via(&["172.18.0.2"]), 0);
    bench.settle();
    assert_eq!(bench.ways("10.65.1.7"), forward(&[(0, None)]));
    bench.resolve("172.18.0.2", 0x22);
    bench.settle();
    assert_eq!(bench.ways("10.65.1.7"), forward(&[(0, Some(0x22))]));
    bench.resolve("172.18.0.2", 0x33);
    bench.settle();
    assert_eq!(bench.ways("10.65.1.7"), forward(&[(0, Some(0x33))]));
}

#[test]
fn a_tunnel_leads_through_every_way_to_its_far_end_and_neighbours_rewrite_rows_alone() {
    let mut bench = Bench::new(100);
    bench.rib.insert(prefix("172.19.0.0/16"), Source::Static, &via(&["172.18.0.2", "172.18.0.3"]), 0);
    let far = tunnel("172.19.0.9", Some(1400));
    let target = Target::via(vec![Gateway::behind(far), Gateway::at("172.18.0.4".parse().unwrap())]).unwrap();
    bench.rib.insert(prefix("10.65.1.0/26"), Source::Bgp, &target, 0);
    for last in 2..5 {
        bench.resolve(&format!("172.18.0.{last}"), last);
    }
    bench.settle();
    // Two ways to the tunnel's far end, and a next hop without a tunnel beside them.
    assert_eq!(bench.ways("10.65.1.7"), forward(&[(0, Some(2)), (0, Some(3)), (0, Some(4))]));
    let template = far.template();
    let wrapped = |bench: &mut Bench| {
        let tables = bench.reader.snapshot();
        let group = tables.fib.lookup_v4(0x0a41_0107).and_then(|group| tables.state.group(group).cloned());
        let Some(Group::Forward(members)) = group else { panic!("{group:?}") };
        let adjacency = |id: &tables::AdjacencyId| tables.state.adjacency(*id).unwrap().clone();
        let adjacencies = members.iter().map(adjacency);
        adjacencies.map(|row| (row.neighbor, row.encapsulation, row.mtu)).collect::<Vec<_>>()
    };
    let mut rows = wrapped(&mut bench);
    rows.sort_by_key(|row| row.0);
    let neighbor = |last: u8| IpAddr::from([172, 18, 0, last]);
    let expected = [
        (neighbor(2), template.clone(), Some(1400)),
        (neighbor(3), template.clone(), Some(1400)),
        (neighbor(4), None, None),
    ];
    assert_eq!(rows, expected);
    // One way goes: the tunnel stays on the other.
    bench.rib.insert(prefix("172.19.0.0/16"), Source::Static, &via(&["172.18.0.3"]), 0);
    bench.settle();
    assert_eq!(bench.ways("10.65.1.7"), forward(&[(0, Some(3)), (0, Some(4))]));
    assert_eq!(wrapped(&mut bench).len(), 2);
}

#[test]
fn a_tunnel_through_a_link_that_is_no_port_leads_nowhere_rather_than_in_a_circle() {
    let mut bench = Bench::new(100);
    bench.rib.insert(prefix("192.168.9.0/24"), Source::Connected, &Target::Attached(MGMT), 0);
    let target = Target::Via(vec![Gateway::behind(tunnel("192.168.9.9", None))]);
    bench.rib.insert(prefix("10.65.1.0/26"), Source::Bgp, &target, 0);
    bench.settle();
    assert_eq!(bench.ways("10.65.1.7"), Ways::Unreachable);
}

#[test]
fn local_packets_and_links_that_are_no_ports_lead_to_the_kernel() {
    let mut bench = Bench::new(100);
    bench.rib.insert(prefix("172.18.0.1/32"), Source::Local, &Target::Local, 0);
    bench.rib.insert(prefix("192.168.9.0/24"), Source::Connected, &Target::Attached(MGMT), 0);
    bench.settle();
    assert_eq!(bench.ways("172.18.0.1"), forward(&[(HOST.0, Some(2))]));
    assert_eq!(bench.ways("192.168.9.9"), forward(&[(HOST.0, Some(2))]));
}

#[test]
fn a_blackhole_stays_beneath_its_workloads() {
    let mut bench = Bench::new(100);
    let workload = Target::Host(CALI, "10.65.0.2".parse().unwrap());
    bench.rib.insert(prefix("10.65.0.0/26"), Source::Block, &Target::Blackhole, 0);
    bench.rib.insert(prefix("10.65.0.2/32"), Source::Workload, &workload, 0);
    bench.settle();
    assert_eq!((bench.ways("10.65.0.2"), bench.ways("10.65.0.3")), (forward(&[(1, None)]), Ways::Blackhole));
    bench.rib.remove(prefix("10.65.0.2/32"), Source::Workload);
    bench.settle();
    assert_eq!(bench.ways("10.65.0.2"), Ways::Blackhole);
}

#[test]
fn routes_that_refuse_are_told_apart() {
    let mut bench = Bench::new(100);
    bench.rib.insert(prefix("10.66.0.0/16"), Source::Static, &Target::Rejected, 0);
    bench.rib.insert(prefix("10.67.0.0/16"), Source::Static, &Target::Prohibited, 0);
    bench.settle();
    assert_eq!((bench.ways("10.66.0.1"), bench.ways("10.67.0.1")), (Ways::Rejected, Ways::Prohibited));
}

#[test]
fn a_lost_way_to_a_gateway_rewrites_groups_and_no_route() {
    let mut bench = Bench::new(100);
    for block in 0..50 {
        let block = Prefix::new(IpAddr::from([10, 70, block, 0]), 24).unwrap();
        bench.rib.insert(block, Source::Bgp, &via(&["172.18.0.2", "10.9.0.1"]), 0);
    }
    bench.rib.insert(prefix("10.9.0.0/16"), Source::Static, &via(&["172.18.0.3"]), 0);
    bench.resolve("172.18.0.2", 0x22);
    bench.resolve("172.18.0.3", 0x33);
    bench.settle();
    assert_eq!(bench.ways("10.70.3.1"), forward(&[(0, Some(0x22)), (0, Some(0x33))]));
    bench.rib.remove(prefix("10.9.0.0/16"), Source::Static);
    bench.settle();
    assert_eq!(bench.ways("10.70.3.1"), forward(&[(0, Some(0x22))]));
    bench.rib.remove(prefix("172.18.0.0/24"), Source::Connected);
    bench.settle();
    assert_eq!(bench.ways("10.70.3.1"), Ways::Unreachable);
}

#[test]
fn a_route_that_loses_a_gateway_moves_only_the_flows_that_took_it() {
    let gateways = ["172.18.0.2", "172.18.0.3", "172.18.0.4", "172.18.0.5"];
    let mut bench = Bench::new(100);
    bench.installer.writer().put_port(uplink()).unwrap();
    for (mac, gateway) in (2..).zip(gateways) {
        bench.resolve(gateway, mac);
    }
    let blocks: Vec<Prefix> =
        (0..3).map(|block| Prefix::new(IpAddr::from([10, 70, block, 0]), 24).unwrap()).collect();
    let route = |bench: &mut Bench, gateways: &[&str]| {
        for block in &blocks {
            bench.rib.insert(*block, Source::Bgp, &via(gateways), 0);
        }
        bench.settle();
        bench.flows("10.70.2.1")
    };
    let before = route(&mut bench, &gateways);
    let without = route(&mut bench, &gateways[1..]);
    let moved = before.iter().zip(&without).filter(|(before, without)| before != without);
    assert!(moved.clone().all(|(before, _)| *before == 2), "the first gateway's flows alone");
    assert_eq!(moved.count(), before.len() / 4);
    let again = route(&mut bench, &gateways);
    let moved = without.iter().zip(&again).filter(|(without, again)| without != again);
    assert!(moved.clone().all(|(_, again)| *again == 2), "it takes its share, and nobody else does");
    assert_eq!(moved.count(), before.len() / 4);
}

#[test]
fn routes_beyond_a_full_table_are_remembered_and_installed_when_there_is_room() {
    let mut bench = Bench::new(4);
    // The connected network first: which routes of one turn find no room is left to chance.
    bench.settle();
    for last in 0..6 {
        let route = Prefix::new(IpAddr::from([10, 80, last, 0]), 24).unwrap();
        bench.rib.insert(route, Source::Bgp, &via(&["172.18.0.2"]), 0);
    }
    bench.settle();
    assert_eq!(bench.installer.refused(), 3, "the connected network takes one row");
    for last in 0..6 {
        let route = Prefix::new(IpAddr::from([10, 80, last, 0]), 24).unwrap();
        if bench.installer.is_installed(route) {
            bench.rib.remove(route, Source::Bgp);
        }
    }
    bench.settle();
    assert_eq!(bench.installer.refused(), 0);
    let count =
        |bench: &mut Bench| (0..6).filter(|l| bench.ways(&format!("10.80.{l}.1")) != Ways::NoRoute).count();
    assert_eq!(count(&mut bench), 3);
}

#[test]
fn nothing_is_left_when_every_route_is_gone() {
    let mut bench = Bench::new(100);
    bench.rib.insert(prefix("10.65.1.0/26"), Source::Bgp, &via(&["172.18.0.2", "172.18.0.3"]), 0);
    bench.settle();
    bench.rib.remove(prefix("10.65.1.0/26"), Source::Bgp);
    bench.rib.remove(prefix("172.18.0.0/24"), Source::Connected);
    bench.settle();
    assert_eq!(bench.installer.tables().taken(), (0, 0));
    assert!(bench.installer.tables().fib().is_empty());
}

proptest! {
    /// Whatever the order and the batches, the tables end as a fresh installer would fill them.
    #[test]
    fn the_tables_depend_on_the_rib_alone(
        steps in prop::collection::vec((0u8..6, 0u8..4, 0u8..4, any::<bool>(), any::<bool>()), 1..40)
    ) {
        let mut bench = Bench::new(100);
        let mut standing = BTreeMap::new();
        for (block, one, two, present, settle) in steps {
            let route = Prefix::new(IpAddr::from([10, 90, block, 0]), 24).unwrap();
            if present {
                let gateways = [format!("172.18.0.{one}"), format!("172.18.0.{two}")];
                let target = via(&[&gateways[0], &gateways[1]]);
                bench.rib.insert(route, Source::Bgp, &target, 0);
                standing.insert(route, target);
            } else {
                bench.rib.remove(route, Source::Bgp);
                standing.remove(&route);
            }
            bench.resolve(&format!("172.18.0.{one}"), one);
            if settle {
                bench.settle();
            }
        }
        bench.settle();
        let mut fresh = Bench::new(100);
        fresh.around.macs = bench.around.macs.clone();
        for (route, target) in &standing {
            fresh.rib.insert(*route, Source::Bgp, target, 0);
        }
        fresh.settle();
        for block in 0..6 {
            let addr = format!("10.90.{block}.1");
            prop_assert_eq!(bench.ways(&addr), fresh.ways(&addr));
        }
        prop_assert_eq!(bench.installer.tables().taken(), fresh.installer.tables().taken());
    }
}

#[test]
fn a_neighbour_that_fails_costs_a_row_a_group_however_many_routes_lead_there() {
    const ROUTES: u32 = 100_000;
    let mut bench = Bench::new(ROUTES as usize + 1);
    let route =
        |number: u32| Prefix::new(IpAddr::from((0x1400_0000 + (number << 8)).to_be_bytes()), 24).unwrap();
    // Most by both, a few by the one that fails alone, a few by the other alone.
    let gateways = |number| match number % 1000 {
        0 => via(&["172.18.0.2"]),
        1 => via(&["172.18.0.3"]),
        _ => via(&["172.18.0.2", "172.18.0.3"]),
    };
    for number in 0..ROUTES {
        bench.rib.insert(route(number), Source::Bgp, &gateways(number), 0);
    }
    bench.resolve("172.18.0.2", 0x22);
    bench.resolve("172.18.0.3", 0x33);
    bench.settle();
    let both = forward(&[(0, Some(0x22)), (0, Some(0x33))]);
    assert_eq!(bench.ways("20.0.2.1"), both);

    let lost = NeighborAddr { ifindex: ETH0, addr: "172.18.0.2".parse().unwrap() };
    bench.around.lost.insert(lost);
    bench.reader.go_offline();
    assert_eq!(bench.installer.rows(&bench.rib, &bench.around), 1, "one group of three has an alternative");
    assert_eq!(bench.ways("20.0.2.1"), forward(&[(0, Some(0x33))]));
    assert_eq!(bench.ways("21.134.158.1"), forward(&[(0, Some(0x33))]), "the last of them too");
    assert_eq!(
        bench.ways("20.0.0.1"),
        forward(&[(0, Some(0x22))]),
        "where there is no other, it is tried on"
    );
    assert!(!bench.rib.has_changed(), "no route was touched");

    bench.around.lost.clear();
    bench.reader.go_offline();
    assert_eq!(bench.installer.rows(&bench.rib, &bench.around), 1);
    assert_eq!(bench.ways("20.0.2.1"), both);
}

#[test]
fn gateways_of_unlike_weights_get_flows_by_them_and_flows_move_only_where_they_must() {
    let mut bench = Bench::new(100);
    bench.installer.writer().put_port(uplink()).unwrap();
    let weighted = |gateways: &[(&str, u8)]| {
        let gateway = |(text, weight): &(&str, u8)| Gateway::at(text.parse().unwrap()).weighing(*weight);
        Target::via(gateways.iter().map(gateway).collect()).unwrap()
    };
    for last in 2..5 {
        bench.resolve(&format!("172.18.0.{last}"), last);
    }
    let put = |bench: &mut Bench, gateways: &[(&str, u8)]| {
        bench.rib.insert(prefix("10.65.1.0/26"), Source::Bgp, &weighted(gateways), 0);
        bench.settle();
        bench.flows("10.65.1.7")
    };
    let count = |flows: &[u8], last: u8| flows.iter().filter(|to| **to == last).count();
    let (one, four) = (("172.18.0.2", 1), ("172.18.0.3", 4));
    let two = put(&mut bench, &[one, four]);
    assert_eq!(two.len(), 1024);
    assert!((200..=210).contains(&count(&two, 2)), "a fifth: {}", count(&two, 2));
    // A third joins: it takes its share, and nobody else gains.
    let three = put(&mut bench, &[one, four, ("172.18.0.4", 5)]);
    assert!((508..=516).contains(&count(&three, 4)), "half: {}", count(&three, 4));
    let moved = two.iter().zip(&three).filter(|(before, after)| before != after);
    assert!(moved.clone().all(|(_, after)| *after == 4));
    // It leaves: only its flows move.
    let again = put(&mut bench, &[one, four]);
    assert!(three.iter().zip(&again).all(|(before, after)| before == after || *before == 4));
    assert!((200..=210).contains(&count(&again, 2)));
    // Weights alike are none.
    let alike = put(&mut bench, &[("172.18.0.2", 9), ("172.18.0.3", 9)]);
    assert_eq!(count(&alike, 2), 512);
}
