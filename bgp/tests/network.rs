//! Speakers talking with each other.

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use bgp::{
    Filter, FilterAction, FilterRule, Input, NextHopMode, OriginatedRoute, Output, PeerConfig, PeerState,
    PrefixMatch, Reason, SpeakerConfig,
};
use model::{AsNumber, Family};
use support::network::Network;
use support::prefix;

fn speaker(id: u8, as_number: u32) -> SpeakerConfig {
    SpeakerConfig { seed: id.into(), ..SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, id), AsNumber(as_number)) }
}

fn originate(network: &mut Network, node: usize, text: &str) {
    network.give(node, Input::Originate(OriginatedRoute::new(prefix(text))));
}

/// Nodes 10.0.0.1, 10.0.0.2, … in these ASes, each a peer of the next; all that connect.
fn chain(as_numbers: &[u32], change: impl Fn(&mut PeerConfig)) -> Network {
    let mut network = Network::new();
    for (at, &as_number) in as_numbers.iter().enumerate() {
        let id = at as u8 + 1;
        network.add(&format!("10.0.0.{id}"), speaker(id, as_number));
    }
    for at in 1..as_numbers.len() {
        for (node, peer) in [(at - 1, at), (at, at - 1)] {
            let mut config = network.config(peer, as_numbers[peer]);
            change(&mut config);
            network.give(node, Input::PutPeer(config));
        }
    }
    network
}

fn pair(as_numbers: [u32; 2]) -> Network {
    chain(&as_numbers, |_| {})
}

#[test]
fn two_speakers_come_up_and_exchange_routes() {
    let mut network = pair([65001, 65002]);
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    assert_eq!(network.state(0, 1), PeerState::Established);
    assert_eq!(network.nexthops(1, "192.0.2.0/24"), ["10.0.0.1"]);
    assert!(network.nodes[0].fib.is_empty(), "our own routes are not given back");
    network.give(0, Input::Withdraw(prefix("192.0.2.0/24")));
    network.run(1);
    assert!(network.nodes[1].fib.is_empty());
}

#[test]
fn a_session_survives_hours_of_silence_on_keepalives_alone() {
    let mut network = pair([65001, 65002]);
    network.run(4 * 3600);
    assert_eq!(network.status(0, 1).errors.sessions_lost, 0);
    assert!(network.status(0, 1).uptime > Some(Duration::from_secs(4 * 3600 - 20)));
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let mut network = pair([65001, 65002]);
    network.cut_every = 7;
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    assert_eq!(network.nexthops(1, "192.0.2.0/24"), ["10.0.0.1"]);
}

#[test]
fn a_hold_time_of_zero_means_no_keepalives() {
    let mut network = chain(&[65001, 65002], |config| config.hold_time = Duration::ZERO);
    network.run(3600);
    assert_eq!(network.state(0, 1), PeerState::Established);
    // One answers each OPEN; the two sides may open a connection each.
    assert!(network.status(0, 1).messages_out.keepalive <= 2);
}

#[test]
fn hold_time_is_negotiated_to_the_minimum() {
    let mut network = pair([65001, 65002]);
    let mut config = network.config(1, 65002);
    config.hold_time = Duration::from_secs(9);
    network.give(0, Input::PutPeer(config));
    network.run(30);
    assert_eq!(network.status(1, 0).hold_time, Some(Duration::from_secs(9)));
}

#[test]
fn connections_that_collide_leave_one() {
    // Both connect at the same moment: node 1 has the higher identifier, so the one it opened stays.
    let mut network = pair([65001, 65001]);
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(60);
    for (node, peer) in [(0, 1), (1, 0)] {
        assert_eq!(network.state(node, peer), PeerState::Established);
        assert_eq!(network.status(node, peer).errors.sessions_lost, 0);
    }
    let connects = network.nodes.iter().flat_map(|node| &node.out);
    assert_eq!(
        connects.filter(|output| matches!(output, Output::Connect { .. })).count(),
        2,
        "a real collision"
    );
    assert_eq!(network.nexthops(1, "192.0.2.0/24"), ["10.0.0.1"]);
}

#[test]
fn a_passive_side_waits_and_the_other_connects() {
    let mut network = Network::new();
    network.add("10.0.0.1", speaker(1, 65001));
    network.add("10.0.0.2", speaker(2, 65002));
    let mut config = network.config(1, 65002);
    config.passive = true;
    network.give(0, Input::PutPeer(config));
    let config = network.config(0, 65001);
    network.give(1, Input::PutPeer(config));
    network.run(10);
    assert_eq!(network.state(0, 1), PeerState::Established);
    assert!(!network.nodes[0].out.iter().any(|output| matches!(output, Output::Connect { .. })));
}

#[test]
fn the_hold_timer_ends_a_silent_session() {
    let mut network = pair([65001, 65002]);
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    network.nodes[0].silent = true;
    network.run(60);
    assert_eq!(network.state(1, 0), PeerState::Established);
    network.run(31);
    assert!(network.nodes[1].fib.is_empty());
    let expired = network.nodes[1].out.iter().any(|output| {
        matches!(output, Output::PeerStateChanged { reason: Reason::Sent(notification), .. } if notification.code == 4)
    });
    assert!(expired);
    network.nodes[0].silent = false;
    network.run(120);
    assert_eq!(network.nexthops(1, "192.0.2.0/24"), ["10.0.0.1"], "it comes back by itself");
}

#[test]
fn a_wrong_as_number_is_refused_and_tried_again_ever_more_slowly() {
    let mut network = Network::new();
    network.add("10.0.0.1", speaker(1, 65001));
    network.add("10.0.0.2", speaker(2, 65002));
    let mut config = network.config(1, 65002);
    config.passive = true;
    network.give(0, Input::PutPeer(config));
    let config = network.config(0, 65099);
    network.give(1, Input::PutPeer(config));
    network.run(600);
    let connects =
        network.nodes[1].out.iter().filter(|output| matches!(output, Output::Connect { .. })).count();
    assert!((15..35).contains(&connects), "{connects} attempts in 600 s with waits of up to 30 s");
}

#[test]
fn ibgp_routes_do_not_pass_to_ibgp_peers_but_to_ebgp_peers() {
    let mut network = chain(&[65000, 65000, 65000], |_| {});
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    assert_eq!(network.nexthops(1, "192.0.2.0/24"), ["10.0.0.1"]);
    assert!(network.nodes[2].fib.is_empty());
    let mut network = chain(&[65000, 65000, 65001], |_| {});
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    assert_eq!(network.nexthops(2, "192.0.2.0/24"), ["10.0.0.2"]);
    let route = &network.nodes[2].speaker.routes(prefix("192.0.2.0/24"))[0];
    assert_eq!(route.attributes.as_path().as_numbers().collect::<Vec<_>>(), [65000]);
    assert_eq!(route.attributes.local_pref(), None, "LOCAL_PREF stays in its AS");
}

#[test]
fn ebgp_routes_keep_their_next_hop_towards_ibgp_peers_unless_told_otherwise() {
    for (mode, nexthop) in [(NextHopMode::Auto, "10.0.0.1"), (NextHopMode::SelfAddress, "10.0.0.2")] {
        let mut network = chain(&[65001, 65000, 65000], |config| config.next_hop = mode);
        originate(&mut network, 0, "192.0.2.0/24");
        network.run(10);
        assert_eq!(network.nexthops(2, "192.0.2.0/24"), [nexthop]);
        let route = &network.nodes[2].speaker.routes(prefix("192.0.2.0/24"))[0];
        assert_eq!(route.attributes.local_pref(), Some(100));
    }
}

#[test]
fn next_hops_are_kept_between_ases_where_told_so() {
    let mut network = chain(&[65001, 65002, 65003], |config| config.next_hop = NextHopMode::Keep);
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    assert_eq!(network.nexthops(2, "192.0.2.0/24"), ["10.0.0.1"]);
}

#[test]
fn a_loop_of_ases_ends_where_an_as_sees_itself() {
    let mut network = chain(&[65001, 65002, 65003, 65001], |_| {});
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    assert_eq!(network.nexthops(2, "192.0.2.0/24"), ["10.0.0.2"]);
    assert!(network.nodes[3].fib.is_empty());
}

#[test]
fn med_does_not_travel_beyond_the_neighbouring_as() {
    let mut network = chain(&[65001, 65002, 65003], |_| {});
    let route = OriginatedRoute { med: Some(50), ..OriginatedRoute::new(prefix("192.0.2.0/24")) };
    network.give(0, Input::Originate(route));
    network.run(10);
    let med = |node: usize| network.nodes[node].speaker.routes(prefix("192.0.2.0/24"))[0].attributes.med();
    assert_eq!((med(1), med(2)), (Some(50), None));
}

#[test]
fn ipv6_travels_over_an_ipv4_session_with_the_configured_next_hop() {
    let mut network = chain(&[65001, 65002], |config| {
        config.families = Family::ALL.to_vec();
        config.self_next_hops.v6 = Some("2001:db8::1".parse().expect("an address"));
    });
    // Each side needs an address of its own.
    let mut config = network.config(0, 65001);
    config.families = Family::ALL.to_vec();
    config.self_next_hops.v6 = Some("2001:db8::2".parse().expect("an address"));
    network.give(1, Input::PutPeer(config));
    originate(&mut network, 0, "2001:db8:1::/48");
    originate(&mut network, 1, "2001:db8:2::/48");
    network.run(10);
    assert_eq!(network.nexthops(1, "2001:db8:1::/48"), ["2001:db8::1"]);
    assert_eq!(network.nexthops(0, "2001:db8:2::/48"), ["2001:db8::2"]);
}

#[test]
fn ipv6_without_a_next_hop_is_not_announced_but_counted() {
    let mut network = chain(&[65001, 65002], |config| config.families = Family::ALL.to_vec());
    originate(&mut network, 0, "2001:db8:1::/48");
    network.run(10);
    assert!(network.nodes[1].fib.is_empty());
    assert_eq!(network.status(0, 1).errors.not_announceable, 1);
}

/// Nodes 0 and 1 announce the same prefix to node 2.
fn two_ways(as_numbers: [u32; 3]) -> Network {
    let mut network = Network::new();
    for (at, as_number) in as_numbers.into_iter().enumerate() {
        network.add(&format!("10.0.0.{}", at + 1), speaker(at as u8 + 1, as_number));
    }
    for node in [0, 1] {
        let config = network.config(2, as_numbers[2]);
        network.give(node, Input::PutPeer(config));
        let config = network.config(node, as_numbers[node]);
        network.give(2, Input::PutPeer(config));
        originate(&mut network, node, "192.0.2.0/24");
    }
    network
}

#[test]
fn equal_paths_are_used_together_and_one_is_enough() {
    let mut network = two_ways([65001, 65002, 65003]);
    network.run(10);
    assert_eq!(network.nexthops(2, "192.0.2.0/24"), ["10.0.0.1", "10.0.0.2"]);
    network.give(2, Input::NexthopChanged { nexthop: "10.0.0.1".parse().expect("an address"), metric: None });
    network.run(1);
    assert_eq!(network.nexthops(2, "192.0.2.0/24"), ["10.0.0.2"]);
    network
        .give(2, Input::NexthopChanged { nexthop: "10.0.0.1".parse().expect("an address"), metric: Some(5) });
    network.run(1);
    assert_eq!(network.nexthops(2, "192.0.2.0/24"), ["10.0.0.2"], "the nearer next hop wins");
    network.give(1, Input::Shutdown { graceful: false });
    network.run(1);
    assert_eq!(network.nexthops(2, "192.0.2.0/24"), ["10.0.0.1"]);
}

#[test]
fn a_helper_keeps_the_routes_of_a_peer_that_restarts() {
    let mut network = pair([65001, 65002]);
    originate(&mut network, 0, "192.0.2.0/24");
    originate(&mut network, 0, "198.51.100.0/24");
    network.run(10);
    network.nodes[1].out.clear();
    network.kill(0);
    network.run(10);
    assert_eq!(network.nexthops(1, "192.0.2.0/24"), ["10.0.0.1"]);
    assert_eq!(network.status(1, 0).v4.stale, 2);
    network.replace(0, SpeakerConfig { restarting: true, ..speaker(1, 65001) });
    let config = network.config(1, 65002);
    network.give(0, Input::PutPeer(config));
    // Only one of its routes comes back.
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(20);
    assert_eq!(network.state(1, 0), PeerState::Established);
    assert_eq!(network.status(1, 0).v4.stale, 0, "End-of-RIB ends staleness");
    let told: Vec<_> = network.nodes[1]
        .out
        .iter()
        .filter_map(|output| match output {
            Output::RouteChanged { prefix, paths } => Some((prefix.to_string(), paths.len())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [("198.51.100.0/24".to_owned(), 0)], "the route that came back never went");
    assert!(network.nodes[0].out.contains(&Output::RestartComplete));
}

#[test]
fn a_helper_gives_up_after_the_restart_time() {
    let mut network = pair([65001, 65002]);
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    network.kill(0);
    network.run(119);
    assert_eq!(network.nexthops(1, "192.0.2.0/24"), ["10.0.0.1"]);
    network.run(2);
    assert!(network.nodes[1].fib.is_empty());
}

#[test]
fn a_process_that_did_not_keep_forwarding_loses_its_stale_routes_at_once() {
    let mut network = pair([65001, 65002]);
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    network.replace(0, speaker(1, 65001));
    let config = network.config(1, 65002);
    network.give(0, Input::PutPeer(config));
    network.run(20);
    assert_eq!(network.state(1, 0), PeerState::Established);
    assert!(network.nodes[1].fib.is_empty(), "its F bit is not set");
}

#[test]
fn a_graceful_shutdown_leaves_routes_with_the_helper_and_a_plain_one_does_not() {
    for (graceful, left) in [(true, 1), (false, 0)] {
        let mut network = pair([65001, 65002]);
        originate(&mut network, 0, "192.0.2.0/24");
        network.run(10);
        network.give(0, Input::Shutdown { graceful });
        network.nodes[0].down = true;
        network.run(5);
        assert_eq!(network.nodes[1].fib.len(), left, "graceful: {graceful}");
    }
}

#[test]
fn a_restarting_speaker_does_not_wait_for_peers_that_are_down() {
    let mut network = Network::new();
    network.add("10.0.0.1", SpeakerConfig { restarting: true, ..speaker(1, 65001) });
    network.add("10.0.0.2", speaker(2, 65002));
    network.add("10.0.0.3", speaker(3, 65003));
    network.nodes[2].down = true;
    for (node, peer, as_number) in [(0, 1, 65002), (0, 2, 65003), (1, 0, 65001)] {
        let config = network.config(peer, as_number);
        network.give(node, Input::PutPeer(config));
    }
    originate(&mut network, 0, "192.0.2.0/24");
    network.run(10);
    assert_eq!(network.nexthops(1, "192.0.2.0/24"), ["10.0.0.1"]);
    assert!(network.nodes[0].out.contains(&Output::RestartComplete));
}

#[test]
fn two_speakers_that_restart_at_once_do_not_wait_for_each_other() {
    let mut network = Network::new();
    for (id, as_number) in [(1, 65001), (2, 65002)] {
        network.add(&format!("10.0.0.{id}"), SpeakerConfig { restarting: true, ..speaker(id, as_number) });
    }
    for (node, peer, as_number) in [(0, 1, 65002), (1, 0, 65001)] {
        let config = network.config(peer, as_number);
        network.give(node, Input::PutPeer(config));
        originate(&mut network, node, &format!("192.0.{node}.0/24"));
    }
    network.run(10);
    assert_eq!(network.nexthops(0, "192.0.1.0/24"), ["10.0.0.2"]);
    assert_eq!(network.nexthops(1, "192.0.0.0/24"), ["10.0.0.1"]);
}

#[test]
fn filters_change_without_a_new_session() {
    let mut network = pair([65001, 65002]);
    for text in ["10.1.0.0/26", "10.1.0.64/32", "192.0.2.0/24"] {
        originate(&mut network, 0, text);
    }
    network.run(10);
    assert_eq!(network.nodes[1].fib.len(), 3);
    let only_blocks = Filter {
        rules: vec![FilterRule::about(
            PrefixMatch { max_len: 26, ..PrefixMatch::within(prefix("10.1.0.0/16")) },
            FilterAction::Accept,
        )],
        default: FilterAction::Reject,
    };
    let mut exporting = network.config(1, 65002);
    exporting.export = only_blocks.clone();
    network.give(0, Input::PutPeer(exporting));
    network.run(1);
    assert_eq!(network.nodes[1].fib.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.0/26"]);
    let config = network.config(1, 65002);
    network.give(0, Input::PutPeer(config));
    network.run(1);
    assert_eq!(network.nodes[1].fib.len(), 3);
    let mut importing = network.config(0, 65001);
    importing.import = Filter { default: FilterAction::Accept, ..only_blocks };
    importing.import.rules[0].action = FilterAction::Reject;
    network.give(1, Input::PutPeer(importing));
    network.run(1);
    assert!(!network.nodes[1].fib.contains_key(&prefix("10.1.0.0/26")));
    assert_eq!(network.nodes[1].fib.len(), 2);
    assert_eq!(network.status(0, 1).errors.sessions_lost, 0);
}

#[test]
fn a_change_that_the_peer_must_learn_of_resets_the_session() {
    let mut network = pair([65001, 65002]);
    network.run(10);
    let mut config = network.config(1, 65002);
    config.hold_time = Duration::from_secs(30);
    network.give(0, Input::PutPeer(config));
    let reset = network.nodes[0].out.iter().any(|output| {
        matches!(output, Output::PeerStateChanged { reason: Reason::Sent(notification), .. }
            if (notification.code, notification.subcode) == (6, 6))
    });
    assert!(reset);
    network.run(30);
    assert_eq!(network.status(1, 0).hold_time, Some(Duration::from_secs(30)));
}

#[test]
fn a_removed_peer_is_told_and_its_routes_go() {
    let mut network = pair([65001, 65002]);
    originate(&mut network, 1, "192.0.2.0/24");
    network.run(10);
    network.give(0, Input::RemovePeer(bgp::PeerId(1)));
    network.run(1);
    assert!(network.nodes[0].fib.is_empty());
    assert_eq!(network.nodes[0].speaker.peers(network.now).count(), 0);
    let told = network.nodes[1].out.iter().any(|output| {
        matches!(output, Output::PeerStateChanged { reason: Reason::Received(notification), .. }
            if (notification.code, notification.subcode) == (6, 3))
    });
    assert!(told);
}

#[test]
fn too_many_prefixes_end_the_session() {
    let mut network = Network::new();
    let mut config = speaker(1, 65001);
    config.limits.max_prefixes_per_peer = 10;
    network.add("10.0.0.1", config);
    network.add("10.0.0.2", speaker(2, 65002));
    for (node, peer, as_number) in [(0, 1, 65002), (1, 0, 65001)] {
        let config = network.config(peer, as_number);
        network.give(node, Input::PutPeer(config));
    }
    for at in 0..10 {
        originate(&mut network, 1, &format!("10.1.{at}.0/24"));
    }
    network.run(10);
    assert_eq!(network.nodes[0].fib.len(), 10);
    originate(&mut network, 1, "10.2.0.0/24");
    network.run(1);
    assert!(network.nodes[0].fib.is_empty());
    assert_eq!(network.status(0, 1).errors.prefix_limit, 1);
    assert!(matches!(network.status(0, 1).last_error, Some(Reason::Sent(notification))
        if notification.code == 6 && notification.subcode == 1 && notification.data == [0, 1, 1, 0, 0, 0, 10]));
}

#[test]
fn a_large_table_arrives_whole_in_few_messages_and_small_portions() {
    let mut network = Network::new();
    let mut config = speaker(1, 65001);
    config.limits.work_per_call = 256;
    network.add("10.0.0.1", config);
    network.add("10.0.0.2", speaker(2, 65002));
    for at in 0..5000u32 {
        originate(&mut network, 0, &format!("10.{}.{}.0/24", at / 256, at % 256));
    }
    for (node, peer, as_number) in [(0, 1, 65002), (1, 0, 65001)] {
        let config = network.config(peer, as_number);
        network.give(node, Input::PutPeer(config));
    }
    network.run(10);
    assert_eq!(network.nodes[1].fib.len(), 5000);
    let updates = network.status(0, 1).messages_out.update;
    // Portions of 128 prefixes, each one message, and End-of-RIB.
    assert!(updates <= 5000 / 128 + 3, "{updates} UPDATEs");
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut network = two_ways([65001, 65002, 65000]);
        for at in 0..500u32 {
            originate(&mut network, 0, &format!("10.{}.{}.0/24", at / 256, at % 256));
        }
        network.run(100);
        network.kill(1);
        network.run(200);
        network.nodes.into_iter().map(|node| node.out).collect::<Vec<_>>()
    };
    let (mut first, mut second) = (run(), run());
    assert_eq!(
        first.iter().map(Vec::len).collect::<Vec<_>>(),
        second.iter().map(Vec::len).collect::<Vec<_>>()
    );
    for (first, second) in first.iter_mut().zip(&mut second) {
        assert!(first == second);
    }
}
