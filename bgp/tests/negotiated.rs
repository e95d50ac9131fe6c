//! What only peers that agreed on it may say: long messages (RFC 8654), IPv6 next hops for IPv4 (RFC 8950), marks
//! around a refresh (RFC 7313).

mod support;

use std::net::SocketAddr;

use bgp::wire::MessageType;
use bgp::wire::capability::{Capability, NextHopEncoding};
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::wire::update::{Update, UpdateContext};
use bgp::{ConnectionId, Direction, Input, OriginatedRoute, Output, PeerConfig, PeerKind, PeerState};
use support::{Actor, Bench, EBGP, OBSERVER, ip, message, messages, prefix, unhex, update};

fn open_with(actor: Actor, capability: Capability) -> Open {
    let mut open = actor.open();
    open.capabilities.push(capability);
    open
}

fn establish(bench: &mut Bench, config: PeerConfig, actor: Actor, capability: Capability) {
    bench.give(Input::PutPeer(config));
    bench.establish_with(actor, &open_with(actor, capability));
    bench.take();
}

/// ORIGIN, AS_PATH, NEXT_HOP of AS 65001, then `count` large communities.
fn with_communities(count: u16) -> Vec<u8> {
    let mut attributes = unhex("4001010040020602010000fde94003040a000002");
    attributes.extend([0xd0, 32]);
    attributes.extend((count * 12).to_be_bytes());
    (0..count).for_each(|number| {
        attributes.extend([[0, 0, 0, 1], [0; 4], u32::from(number).to_be_bytes()].concat())
    });
    attributes
}

#[test]
fn a_long_message_is_taken_from_and_told_to_those_who_agreed() {
    let mut bench = Bench::new();
    establish(&mut bench, Bench::config(EBGP), EBGP, Capability::ExtendedMessage);
    establish(&mut bench, Bench::config(OBSERVER), OBSERVER, Capability::ExtendedMessage);
    bench.receive(EBGP, &update(&[], &with_communities(1000), &unhex("18c00002")));
    assert_eq!(bench.state(EBGP), PeerState::Established);
    let (_, body) = bench.sent(OBSERVER).pop().expect("an UPDATE");
    assert!(body.len() > 12_000);
    assert_eq!(bench.status(OBSERVER).v4.announced, 1);
}

#[test]
fn attributes_too_long_for_a_peer_are_counted_rather_than_cut() {
    let mut bench = Bench::new();
    establish(&mut bench, Bench::config(EBGP), EBGP, Capability::ExtendedMessage);
    bench.establish(OBSERVER);
    bench.receive(EBGP, &update(&[], &with_communities(1000), &unhex("18c00002")));
    assert!(bench.sent(OBSERVER).is_empty());
    assert_eq!(bench.status(OBSERVER).errors.not_announceable, 1);
}

#[test]
fn a_long_message_without_agreement_is_an_error() {
    // Neither does one side suffice.
    for (offered, theirs) in [(false, true), (true, false)] {
        let mut bench = Bench::new();
        let mut config = Bench::config(EBGP);
        config.extended_messages = offered;
        bench.give(Input::PutPeer(config));
        let open = if theirs { open_with(EBGP, Capability::ExtendedMessage) } else { EBGP.open() };
        bench.establish_with(EBGP, &open);
        let long = update(&[], &with_communities(1000), &unhex("18c00002"));
        bench.receive(EBGP, &long);
        assert_eq!(bench.notification(EBGP), Some(Notification::with_data(1, 2, &long[16..18])));
    }
}

#[test]
fn a_full_message_holds_the_more_prefixes_the_longer_it_may_be() {
    let count = |long: bool| {
        let mut bench = Bench::new();
        for at in 0..5000u32 {
            bench.give(Input::Originate(OriginatedRoute::new(prefix(&format!(
                "10.{}.{}.0/24",
                at / 250,
                at % 250
            )))));
        }
        let open = if long { open_with(EBGP, Capability::ExtendedMessage) } else { EBGP.open() };
        bench.give(Input::PutPeer(Bench::config(EBGP)));
        bench.establish_with(EBGP, &open);
        let sent = bench.sent(EBGP);
        let context = UpdateContext::usual(PeerKind::Ebgp);
        let nlri = sent.iter().filter(|(kind, _)| *kind == 2).flat_map(|(_, body)| {
            let update = Update::parse(body, &context).expect("our own UPDATE");
            update.announced.into_iter().flatten().flat_map(|announced| announced.nlri).collect::<Vec<_>>()
        });
        assert_eq!(nlri.count(), 5000);
        sent.iter().filter(|(kind, body)| *kind == 2 && body.len() > 100).count()
    };
    assert_eq!((count(false), count(true)), (5, 1));
}

/// A bench with a peer over IPv6, whose routes of IPv4 lead through IPv6 where `both` agreed.
fn over_ipv6(both: bool) -> (Bench, ConnectionId) {
    let mut bench = Bench::new();
    let mut config = PeerConfig::new(EBGP.id, ip("2001:db8::2"), model::AsNumber(65001));
    config.families = model::Family::ALL.to_vec();
    (config.v4_over_v6, config.passive, config.policy_required) = (true, true, false);
    bench.give(Input::PutPeer(config));
    let connection = ConnectionId(100);
    let local = SocketAddr::new(ip("2001:db8::1"), 179);
    bench.give(Input::ConnectionOpened { peer: EBGP.id, connection, direction: Direction::Inbound, local });
    let encoding = Capability::ExtendedNextHop(vec![NextHopEncoding::V4_OVER_V6]);
    let open = if both { open_with(EBGP, encoding) } else { EBGP.open() };
    let mut bytes = Vec::new();
    open.emit(&mut bytes);
    bytes.extend(message(MessageType::Keepalive, &[]));
    bench.give(Input::Received { connection, bytes: &bytes });
    bench.take();
    (bench, connection)
}

/// 192.0.2.0/24 by MP_REACH_NLRI with next hops of so many octets.
fn mp_reach(nexthop: &str) -> Vec<u8> {
    let value = format!("000101{:02x}{nexthop}0018c00002", nexthop.len() / 2);
    let attributes = format!("800e{:02x}{value}4001010040020602010000fde9", value.len() / 2);
    update(&[], &unhex(&attributes), &[])
}

const GLOBAL: &str = "20010db8000000000000000000000002";
const LINK_LOCAL: &str = "fe800000000000000000000000000002";

#[test]
fn ipv4_routes_lead_through_ipv6_neighbours_where_agreed() {
    for nexthop in [GLOBAL.to_owned(), format!("{GLOBAL}{LINK_LOCAL}")] {
        let (mut bench, connection) = over_ipv6(true);
        bench.give(Input::Received { connection, bytes: &mp_reach(&nexthop) });
        let nexthops = bench.out.iter().find_map(|output| match output {
            Output::RouteChanged { paths, .. } => {
                Some(paths.iter().map(|path| path.nexthop).collect::<Vec<_>>())
            }
            _ => None,
        });
        assert_eq!(nexthops, Some(vec![ip("2001:db8::2")]));
        // Unreachable, it takes the IPv4 route along.
        bench.take();
        bench.give(Input::NexthopChanged { nexthop: ip("2001:db8::2"), metric: None });
        assert!(matches!(&bench.out[..], [Output::RouteChanged { paths, .. }] if paths.is_empty()));
    }
}

#[test]
fn an_ipv6_next_hop_nobody_agreed_on_ends_the_session() {
    let (mut bench, connection) = over_ipv6(false);
    bench.give(Input::Received { connection, bytes: &mp_reach(GLOBAL) });
    assert_ne!(bench.state(EBGP), PeerState::Established);
}

#[test]
fn our_ipv4_routes_are_told_with_an_ipv6_next_hop_over_ipv6() {
    let (mut bench, _) = over_ipv6(true);
    bench.give(Input::Originate(OriginatedRoute::new(prefix("198.51.100.0/24"))));
    let sent = bench.out.iter().find_map(|output| match output {
        Output::Send { bytes, .. } => Some(messages(bytes)),
        _ => None,
    });
    let (_, body) = sent.expect("an UPDATE").remove(0);
    let context = UpdateContext { v4_over_v6: true, ..UpdateContext::usual(PeerKind::Ebgp) };
    let update = Update::parse(&body, &context).expect("our own UPDATE");
    let mut announced = update.announced.into_iter().flatten();
    let mp = announced.next().expect("routes");
    assert_eq!((update.error, mp.nexthop), (None, ip("2001:db8::1")));
    assert_eq!(mp.nlri.map(|nlri| nlri.prefix).collect::<Vec<_>>(), [prefix("198.51.100.0/24")]);
}

/// Two routes of AS 65001.
fn two_routes() -> Vec<u8> {
    update(&[], &unhex("4001010040020602010000fde94003040a000002"), &unhex("18c0000218c00003"))
}

#[test]
fn what_is_not_announced_again_between_the_marks_is_gone() {
    let mut bench = Bench::new();
    establish(&mut bench, Bench::config(EBGP), EBGP, Capability::EnhancedRefresh);
    bench.receive(EBGP, &two_routes());
    bench.take();
    let refresh = |subtype| message(MessageType::RouteRefresh, &[0, 1, subtype, 1]);
    bench.receive(EBGP, &refresh(1));
    bench.receive(EBGP, &update(&[], &unhex("4001010040020602010000fde94003040a000002"), &unhex("18c00002")));
    assert!(bench.out.is_empty(), "nothing has become better or worse: {:?}", bench.out);
    assert_eq!(bench.status(EBGP).v4.received, 2);
    bench.receive(EBGP, &refresh(2));
    assert_eq!(bench.status(EBGP).v4.received, 1);
    assert!(matches!(&bench.out[..], [Output::RouteChanged { prefix: gone, paths }]
        if *gone == prefix("192.0.3.0/24") && paths.is_empty()));
}

#[test]
fn marks_of_a_peer_that_offered_none_mean_nothing() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.receive(EBGP, &two_routes());
    bench.receive(EBGP, &message(MessageType::RouteRefresh, &[0, 1, 1, 1]));
    bench.receive(EBGP, &message(MessageType::RouteRefresh, &[0, 1, 2, 1]));
    assert_eq!(bench.status(EBGP).v4.received, 2);
}

#[test]
fn a_refresh_is_told_between_marks_to_whom_offered_them() {
    for marked in [false, true] {
        let mut bench = Bench::new();
        bench.give(Input::Originate(OriginatedRoute::new(prefix("198.51.100.0/24"))));
        let capability = if marked { Capability::EnhancedRefresh } else { Capability::RouteRefresh };
        establish(&mut bench, Bench::config(EBGP), EBGP, capability);
        bench.receive(EBGP, &message(MessageType::RouteRefresh, &[0, 1, 0, 1]));
        let kinds: Vec<_> = bench.sent(EBGP).into_iter().map(|(kind, body)| (kind, body[2])).collect();
        // The third octet of a ROUTE-REFRESH is the mark.
        let expected: &[(u8, u8)] = if marked { &[(5, 1), (2, 0), (5, 2)] } else { &[(2, 0)] };
        assert_eq!(kinds, expected);
    }
}

#[test]
fn a_mark_of_the_wrong_length_is_an_error_of_its_own() {
    // RFC 7313 §5 is about its own subtypes, and about peers that offered them; else it is a bad length (RFC 4271 §6.1).
    let of_its_own = |message: &[u8]| Notification::with_data(7, 1, message);
    let of_any = |message: &[u8]| Notification::with_data(1, 2, &message[16..18]);
    let enhanced = Capability::EnhancedRefresh;
    for (body, offers, expected) in [
        (&[0, 1, 1, 1, 0][..], &enhanced, &of_its_own as &dyn Fn(&[u8]) -> Notification),
        (&[0, 1, 1], &enhanced, &of_its_own),
        (&[0, 1, 2], &enhanced, &of_its_own),
        (&[0, 1, 0], &enhanced, &of_any),
        (&[0, 1, 0, 1, 0], &enhanced, &of_any),
        (&[0, 1, 1], &Capability::RouteRefresh, &of_any),
    ] {
        let mut bench = Bench::new();
        establish(&mut bench, Bench::config(EBGP), EBGP, offers.clone());
        let message = message(MessageType::RouteRefresh, body);
        bench.receive(EBGP, &message);
        assert_eq!(bench.notification(EBGP), Some(expected(&message)), "{body:?}");
    }
}
