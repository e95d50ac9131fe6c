//! Route reflection (RFC 4456): what goes between iBGP peers, and why it never goes round.

mod support;

use std::net::Ipv4Addr;

use bgp::{Ineligible, Input, OriginatedRoute, PathStatus, SpeakerConfig, Standing};
use model::AsNumber;
use support::network::Network;
use support::prefix;

const AS: u32 = 64512;
const ROUTE: &str = "192.0.2.0/24";

/// Nodes 10.0.0.1, 10.0.0.2, … of one AS, without sessions.
fn nodes(count: u8) -> Network {
    let mut network = Network::new();
    for id in 1..=count {
        let config = SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, id), AsNumber(AS));
        network.add(&format!("10.0.0.{id}"), SpeakerConfig { seed: id.into(), ..config });
    }
    network
}

/// A session between two nodes, the second of which is the first one's client in `cluster`.
fn session(network: &mut Network, [reflector, client]: [usize; 2], cluster: Option<u8>) {
    let mut config = network.config(client, AS);
    config.reflector_client = cluster.map(|id| Ipv4Addr::new(0, 0, 0, id));
    network.give(reflector, Input::PutPeer(config));
    let back = network.config(reflector, AS);
    network.give(client, Input::PutPeer(back));
}

fn originate(network: &mut Network, node: usize) {
    network.give(node, Input::Originate(OriginatedRoute::new(prefix(ROUTE))));
}

/// The one path that a node has to the route.
fn path(network: &Network, node: usize) -> PathStatus {
    let mut paths = network.nodes[node].speaker.routes(prefix(ROUTE));
    assert_eq!(paths.len(), 1, "paths at node {node}");
    paths.remove(0)
}

fn knows(network: &Network, node: usize) -> bool {
    network.nodes[node].fib.contains_key(&prefix(ROUTE))
}

fn clusters(path: &PathStatus) -> Vec<String> {
    path.attributes.cluster_list().map(|cluster| cluster.to_string()).collect()
}

/// A reflector, two clients, and two peers that are none.
fn star() -> Network {
    let mut network = nodes(5);
    for (peer, cluster) in [(1, Some(9)), (2, Some(9)), (3, None), (4, None)] {
        session(&mut network, [0, peer], cluster);
    }
    network
}

#[test]
fn a_clients_route_goes_to_every_other_peer_with_its_originator_and_next_hop() {
    let mut network = star();
    originate(&mut network, 1);
    network.run(10);
    for node in [2, 3, 4] {
        let path = path(&network, node);
        assert_eq!(path.attributes.originator_id(), Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(clusters(&path), ["0.0.0.9"]);
        assert_eq!(network.nexthops(node, ROUTE), ["10.0.0.2"]);
    }
    assert!(network.nodes[1].speaker.routes(prefix(ROUTE)).len() == 1, "nothing comes back to the client");
    network.give(1, Input::Withdraw(prefix(ROUTE)));
    network.run(1);
    assert!([2, 3, 4].iter().all(|node| !knows(&network, *node)));
}

#[test]
fn the_route_of_a_peer_that_is_no_client_goes_to_clients_only() {
    let mut network = star();
    originate(&mut network, 3);
    network.run(10);
    assert_eq!([1, 2, 4].map(|node| knows(&network, node)), [true, true, false]);
}

#[test]
fn without_clients_nothing_goes_between_ibgp_peers() {
    let mut network = nodes(3);
    session(&mut network, [0, 1], None);
    session(&mut network, [0, 2], None);
    originate(&mut network, 1);
    network.run(10);
    assert_eq!([0, 2].map(|node| knows(&network, node)), [true, false]);
}

#[test]
fn reflectors_of_one_cluster_do_not_take_each_others_copies() {
    // Two reflectors, each with both clients, peers of each other.
    let mut network = nodes(4);
    for reflector in [0, 1] {
        for client in [2, 3] {
            session(&mut network, [reflector, client], Some(9));
        }
    }
    session(&mut network, [0, 1], None);
    originate(&mut network, 2);
    network.run(10);
    for (reflector, other) in [(0, 1), (1, 0)] {
        let standings: Vec<Standing> = network.nodes[reflector]
            .speaker
            .routes(prefix(ROUTE))
            .into_iter()
            .map(|path| path.standing)
            .collect();
        assert!(standings.contains(&Standing::Best), "{standings:?}");
        let looped = Standing::Ineligible(Ineligible::ReflectionLoop);
        assert!(standings.contains(&looped), "reflector {reflector} was told by {other}: {standings:?}");
    }
    // The other client hears it from both.
    assert_eq!(network.nodes[3].speaker.routes(prefix(ROUTE)).len(), 2);
    network.give(2, Input::Withdraw(prefix(ROUTE)));
    network.run(5);
    assert!((0..4).all(|node| !knows(&network, node)), "no copy keeps another alive");
}

#[test]
fn a_route_from_one_cluster_into_another_has_been_through_both() {
    // Client 0 of reflector 1, whose client in another cluster is reflector 2, whose client is 3.
    let mut network = nodes(4);
    session(&mut network, [1, 0], Some(1));
    session(&mut network, [1, 2], Some(2));
    session(&mut network, [2, 3], Some(3));
    originate(&mut network, 0);
    network.run(10);
    assert_eq!(clusters(&path(&network, 2)), ["0.0.0.2", "0.0.0.1"]);
    let last = path(&network, 3);
    assert_eq!(clusters(&last), ["0.0.0.3", "0.0.0.2", "0.0.0.1"]);
    assert_eq!(last.attributes.originator_id(), Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(network.nexthops(3, ROUTE), ["10.0.0.1"]);
}

#[test]
fn a_ring_of_reflectors_comes_to_rest() {
    let mut network = nodes(4);
    // Each is the client of the one before it, in a cluster of its own; the last closes the ring.
    for (reflector, client) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        session(&mut network, [reflector, client], Some(reflector as u8 + 1));
    }
    originate(&mut network, 0);
    network.run(30);
    assert!([1, 2, 3].iter().all(|node| knows(&network, *node)));
    network.give(0, Input::Withdraw(prefix(ROUTE)));
    network.run(30);
    assert!((0..4).all(|node| !knows(&network, node)), "a withdrawn route doesn't go round for ever");
}

#[test]
fn a_cluster_that_we_join_later_makes_older_routes_of_it_loops() {
    let mut network = nodes(3);
    // A reflector of cluster 9 tells us, who are no reflector yet.
    session(&mut network, [0, 1], Some(9));
    session(&mut network, [0, 2], Some(9));
    originate(&mut network, 1);
    network.run(10);
    assert!(knows(&network, 2));
    // Now 2 reflects for somebody in that cluster as well.
    let mut client = network.config(1, AS);
    client.reflector_client = Some(Ipv4Addr::new(0, 0, 0, 9));
    network.give(2, Input::PutPeer(client));
    network.run(1);
    assert_eq!(path(&network, 2).standing, Standing::Ineligible(Ineligible::ReflectionLoop));
    assert!(!knows(&network, 2));
}
