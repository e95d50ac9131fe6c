//! One session against a peer that the test plays, rule by rule.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bgp::wire::MessageType;
use bgp::wire::capability::{AddPathMode, Capability};
use bgp::wire::nlri::AfiSafi;
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::{ConnectionId, Direction, Input, OriginatedRoute, Output, PeerConfig, PeerState, Reason};
use model::{AsNumber, Family};
use support::{Actor, Bench, EBGP, IBGP, OBSERVER, ip, message, prefix, unhex, update};

const KEEPALIVE: MessageType = MessageType::Keepalive;

/// 192.0.2.0/24 with sound attributes of AS 65001.
fn sound_update() -> Vec<u8> {
    update(&[], &unhex("4001010040020602010000fde94003040a000002"), &unhex("18c00002"))
}

fn open_bytes(actor: Actor) -> Vec<u8> {
    let mut bytes = Vec::new();
    actor.open().emit(&mut bytes);
    bytes
}

/// A bench with the actor configured and its connection open.
fn connected(actor: Actor) -> Bench {
    let mut bench = Bench::new();
    bench.give(Input::PutPeer(Bench::config(actor)));
    bench.connect(actor);
    bench
}

#[test]
fn an_open_offers_what_we_can_do() {
    let bench = connected(EBGP);
    let (kind, body) = &bench.sent(EBGP)[0];
    let open = bgp::wire::open::Open::parse(body).expect("our own OPEN");
    assert_eq!((*kind, open.my_as, open.hold_time), (1, 65000, 90));
    for wanted in [
        Capability::MultiProtocol(AfiSafi::unicast(Family::V4)),
        Capability::MultiProtocol(AfiSafi::unicast(Family::V6)),
        Capability::RouteRefresh,
        Capability::FourOctetAs(65000),
    ] {
        assert!(open.capabilities.contains(&wanted), "{wanted:?}");
    }
    let restart = open.capabilities.iter().find_map(|capability| match capability {
        Capability::GracefulRestart(restart) => Some(restart),
        _ => None,
    });
    let restart = restart.expect("graceful restart is offered");
    assert_eq!((restart.restarted, restart.restart_time), (false, 120));
    // A process that has just begun has no forwarding state to preserve.
    assert!(restart.families.iter().all(|&(_, preserved)| !preserved) && restart.families.len() == 2);
}

#[test]
fn a_wide_as_number_is_as_trans_in_the_narrow_field() {
    let mut bench = Bench::new();
    let mut config = Bench::config(EBGP);
    config.local_as = Some(AsNumber(4_200_000_000));
    bench.give(Input::PutPeer(config));
    bench.connect(EBGP);
    let open = bgp::wire::open::Open::parse(&bench.sent(EBGP)[0].1).expect("our own OPEN");
    assert_eq!((open.my_as, open.as_number()), (23456, 4_200_000_000));
}

#[test]
fn messages_out_of_place_are_fsm_errors_that_name_the_state() {
    let cases: [(&[&[u8]], u8); 4] = [
        (&[&message(KEEPALIVE, &[])], 1),
        (&[&sound_update()], 1),
        (&[&open_bytes(EBGP), &sound_update()], 2),
        (&[&open_bytes(EBGP), &message(KEEPALIVE, &[]), &open_bytes(EBGP)], 3),
    ];
    for (messages, subcode) in cases {
        let mut bench = connected(EBGP);
        messages.iter().for_each(|bytes| bench.receive(EBGP, bytes));
        assert_eq!(bench.notification(EBGP), Some(Notification::new(5, subcode)));
        assert_eq!(bench.state(EBGP), PeerState::Idle);
        assert!(bench.out.contains(&Output::Close { connection: EBGP.connection() }));
    }
}

#[test]
fn nothing_follows_a_notification_on_its_connection() {
    let mut bench = connected(EBGP);
    let mut bytes = message(KEEPALIVE, &[]);
    bytes.extend(open_bytes(EBGP));
    bench.receive(EBGP, &bytes);
    bench.receive(EBGP, &bytes);
    assert_eq!(bench.sent(EBGP).iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [1, 3]);
}

/// RFC 4271 §6.3: "the Data field MUST contain the erroneous attribute (type, length, and value)".
#[test]
fn an_attribute_that_ends_a_session_is_in_the_notification() {
    for (attributes, subcode, data) in [
        // Without prefixes there is nothing to withdraw (RFC 7606 §5.2).
        ("40010103", 6, "40010103"),
        ("8001010040020602010000fde9", 4, "80010100"),
        ("40010100c00803fde800", 5, "c00803fde800"),
        ("400305010203040540010100", 5, "4003050102030405"),
        ("40010100c00808fde8", 1, ""),
        ("40fd0100", 2, "40fd0100"),
        ("800f020002", 9, "800f020002"),
    ] {
        let mut bench = Bench::new();
        bench.establish(EBGP);
        bench.receive(EBGP, &update(&[], &unhex(attributes), &[]));
        let told = bench.notification(EBGP);
        assert_eq!(told, Some(Notification::with_data(3, subcode, &unhex(data))), "{attributes}");
    }
}

#[test]
fn an_open_without_a_common_family_is_refused_with_what_we_miss() {
    let mut bench = connected(EBGP);
    let mut open = EBGP.open();
    open.capabilities =
        vec![Capability::MultiProtocol(AfiSafi { afi: 25, safi: 70 }), Capability::FourOctetAs(65001)];
    let mut bytes = Vec::new();
    open.emit(&mut bytes);
    bench.receive(EBGP, &bytes);
    let data = unhex("010400010001010400020001");
    assert_eq!(bench.notification(EBGP), Some(Notification { code: 2, subcode: 7, data }));
}

#[test]
fn an_ibgp_peer_with_our_identifier_is_refused_and_an_ebgp_peer_is_not() {
    for (actor, refused) in [(IBGP, true), (EBGP, false)] {
        let mut bench = connected(actor);
        let mut open = actor.open();
        open.router_id = "10.0.0.1".parse().expect("an address");
        let mut bytes = Vec::new();
        open.emit(&mut bytes);
        bench.receive(actor, &bytes);
        assert_eq!(
            bench.notification(actor).is_some_and(|sent| (sent.code, sent.subcode) == (2, 3)),
            refused
        );
    }
}

#[test]
fn an_open_that_never_comes_is_waited_for_four_minutes() {
    let mut bench = connected(EBGP);
    bench.pass(Duration::from_secs(239));
    assert_eq!(bench.state(EBGP), PeerState::OpenSent);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.notification(EBGP), Some(Notification::new(4, 0)));
}

#[test]
fn keepalives_are_sent_in_a_third_of_the_hold_time_or_sooner() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    let mut last = bench.now;
    for _ in 0..60 {
        bench.pass(Duration::from_secs(1));
        if bench.take().iter().any(|output| matches!(output, Output::Send { .. })) {
            let interval = bench.now - last;
            assert!(
                interval >= Duration::from_secs(22) && interval <= Duration::from_secs(31),
                "{interval:?}"
            );
            last = bench.now;
        }
    }
    assert_ne!(last, bench.now - Duration::from_secs(60), "some were sent");
}

#[test]
fn a_session_without_a_hold_time_needs_no_keepalives_and_never_falls_silent() {
    // RFC 4271 §4.2: "the smaller", and 0 is none at all, whichever end asks for it.
    for (ours, theirs) in [(0, 90), (90, 0), (0, 0)] {
        let mut bench = Bench::new();
        let config = PeerConfig { hold_time: Duration::from_secs(ours), ..Bench::config(EBGP) };
        bench.give(Input::PutPeer(config));
        bench.establish_with(EBGP, &Open { hold_time: theirs, ..EBGP.open() });
        bench.take();
        bench.pass(Duration::from_secs(24 * 3600));
        assert_eq!(bench.state(EBGP), PeerState::Established, "{ours} and {theirs}");
        assert!(bench.sent(EBGP).is_empty());
    }
}

#[test]
fn updates_keep_a_session_as_keepalives_do() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    for _ in 0..5 {
        bench.pass(Duration::from_secs(60));
        bench.receive(EBGP, &sound_update());
    }
    assert_eq!(bench.state(EBGP), PeerState::Established);
    bench.pass(Duration::from_secs(91));
    assert_eq!(bench.notification(EBGP), Some(Notification::new(4, 0)));
}

#[test]
fn after_an_error_the_peer_is_refused_for_a_while() {
    let mut bench = connected(EBGP);
    bench.receive(EBGP, &message(KEEPALIVE, &[]));
    bench.take();
    bench.connect(EBGP);
    assert!(bench.out.contains(&Output::Close { connection: EBGP.connection() }));
    bench.pass(Duration::from_secs(6));
    bench.take();
    bench.connect(EBGP);
    assert_eq!(bench.state(EBGP), PeerState::OpenSent);
}

#[test]
fn connections_of_strangers_are_closed() {
    let mut bench = Bench::new();
    bench.connect(EBGP);
    assert_eq!(bench.out, [Output::Close { connection: EBGP.connection() }]);
}

#[test]
fn a_failed_connection_is_tried_again_after_the_retry_time() {
    let mut bench = Bench::new();
    let mut config = Bench::config(EBGP);
    config.passive = false;
    config.local_address = Some(ip("10.0.0.1"));
    bench.give(Input::PutPeer(config));
    bench.pass(Duration::from_secs(2));
    let connect = Output::Connect {
        peer: EBGP.id,
        remote: SocketAddr::new(ip("10.0.0.2"), 179),
        local: Some(ip("10.0.0.1")),
    };
    assert_eq!(bench.take().last(), Some(&connect));
    assert_eq!(bench.state(EBGP), PeerState::Connect);
    bench.give(Input::ConnectFailed { peer: EBGP.id });
    assert_eq!(bench.state(EBGP), PeerState::Active);
    bench.take();
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.take().last(), Some(&connect));
}

/// A second connection, opened by us, to the same peer.
const OURS: ConnectionId = ConnectionId(77);

fn open_ours(bench: &mut Bench) {
    let local = SocketAddr::new(ip("10.0.0.1"), 40000);
    bench.give(Input::ConnectionOpened {
        peer: EBGP.id,
        connection: OURS,
        direction: Direction::Outbound,
        local,
    });
}

#[test]
fn of_colliding_connections_the_one_of_the_higher_identifier_stays() {
    // The peer's identifier is 10.0.0.2, ours 10.0.0.1: its connection stays, whichever OPEN comes first.
    for ours_first in [true, false] {
        let mut bench = connected(EBGP);
        open_ours(&mut bench);
        let connections = if ours_first { [OURS, EBGP.connection()] } else { [EBGP.connection(), OURS] };
        for connection in connections {
            bench.give(Input::Received { connection, bytes: &open_bytes(EBGP) });
        }
        assert!(bench.out.contains(&Output::Close { connection: OURS }), "ours first: {ours_first}");
        assert!(!bench.out.contains(&Output::Close { connection: EBGP.connection() }));
        bench.receive(EBGP, &message(KEEPALIVE, &[]));
        assert_eq!(bench.state(EBGP), PeerState::Established);
    }
}

#[test]
fn an_established_session_survives_a_collision() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    open_ours(&mut bench);
    assert_eq!(bench.out, [Output::Close { connection: OURS }]);
    assert_eq!(bench.state(EBGP), PeerState::Established);
}

#[test]
fn a_peer_that_comes_anew_has_restarted_and_keeps_its_routes() {
    let mut bench = Bench::new();
    bench.give(Input::PutPeer(Bench::config(EBGP)));
    bench.establish_with(EBGP, &EBGP.graceful_open(false, true));
    bench.receive(EBGP, &sound_update());
    bench.take();
    let again = ConnectionId(78);
    let local = SocketAddr::new(ip("10.0.0.1"), 179);
    bench.give(Input::ConnectionOpened {
        peer: EBGP.id,
        connection: again,
        direction: Direction::Inbound,
        local,
    });
    assert_eq!(bench.state(EBGP), PeerState::Established, "a mere connection proves nothing");
    let mut bytes = Vec::new();
    EBGP.graceful_open(true, true).emit(&mut bytes);
    bytes.extend(message(KEEPALIVE, &[]));
    bench.give(Input::Received { connection: again, bytes: &bytes });
    assert!(bench.out.contains(&Output::Close { connection: EBGP.connection() }));
    assert_eq!(bench.notification(EBGP), None, "no NOTIFICATION, or it would drop ours");
    assert_eq!((bench.state(EBGP), bench.status(EBGP).v4.stale), (PeerState::Established, 1));
    assert!(bench.speaker.routes(prefix("192.0.2.0/24"))[0].stale);
    // It announces the same, then End-of-RIB: nothing was ever withdrawn.
    bench.give(Input::Received { connection: again, bytes: &sound_update() });
    bench.give(Input::Received { connection: again, bytes: &update(&[], &[], &[]) });
    assert_eq!(bench.status(EBGP).v4.stale, 0);
    assert!(!bench.out.iter().any(|output| matches!(output, Output::RouteChanged { .. })));
}

#[test]
fn stale_routes_do_not_wait_for_end_of_rib_for_ever() {
    let mut bench = Bench::new();
    bench.give(Input::PutPeer(Bench::config(EBGP)));
    bench.establish_with(EBGP, &EBGP.graceful_open(false, true));
    bench.receive(EBGP, &sound_update());
    bench.give(Input::ConnectionClosed { connection: EBGP.connection() });
    bench.establish_with(EBGP, &EBGP.graceful_open(true, true));
    for _ in 0..6 {
        bench.pass(Duration::from_secs(59));
        bench.receive(EBGP, &message(KEEPALIVE, &[]));
    }
    assert_eq!(bench.status(EBGP).v4.stale, 1);
    bench.pass(Duration::from_secs(7));
    assert_eq!(bench.status(EBGP).v4.received, 0);
}

#[test]
fn a_notification_ends_graceful_restart_before_it_begins() {
    let mut bench = Bench::new();
    bench.give(Input::PutPeer(Bench::config(EBGP)));
    bench.establish_with(EBGP, &EBGP.graceful_open(false, true));
    bench.receive(EBGP, &sound_update());
    bench.receive(EBGP, &message(MessageType::Notification, &[6, 4]));
    assert_eq!(bench.status(EBGP).v4.received, 0);
    assert_eq!(bench.status(EBGP).last_error, Some(Reason::Received(Notification::new(6, 4))));
}

#[test]
fn several_paths_of_one_prefix_are_told_apart_where_negotiated() {
    let mut bench = Bench::new();
    let mut config = Bench::config(EBGP);
    config.add_path = true;
    bench.give(Input::PutPeer(config));
    let mut open = EBGP.open();
    let send = AddPathMode { receive: false, send: true };
    open.capabilities.push(Capability::AddPath(vec![(AfiSafi::unicast(Family::V4), send)]));
    bench.establish_with(EBGP, &open);
    let attributes = |nexthop: &str| unhex(&format!("4001010040020602010000fde9400304{nexthop}"));
    bench.receive(EBGP, &update(&[], &attributes("0a000002"), &unhex("0000000118c00002")));
    bench.receive(EBGP, &update(&[], &attributes("0a000004"), &unhex("0000000218c00002")));
    assert_eq!(bench.speaker.routes(prefix("192.0.2.0/24")).len(), 2);
    let told = bench.out.iter().rev().find_map(|output| match output {
        Output::RouteChanged { paths, .. } => Some(paths.len()),
        _ => None,
    });
    assert_eq!(told, Some(2), "both are used");
    bench.receive(EBGP, &update(&unhex("0000000118c00002"), &[], &[]));
    let routes = bench.speaker.routes(prefix("192.0.2.0/24"));
    assert_eq!(routes.iter().map(|route| route.path_id).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_refresh_announces_everything_again_but_only_for_families_in_use() {
    let mut bench = Bench::new();
    bench.give(Input::Originate(OriginatedRoute::new(prefix("198.51.100.0/24"))));
    bench.establish(EBGP);
    bench.receive(EBGP, &message(MessageType::RouteRefresh, &[0, 1, 0, 1]));
    assert_eq!(bench.sent(EBGP).len(), 1);
    assert!(bench.sent(EBGP)[0].1.ends_with(&unhex("18c63364")));
    bench.take();
    bench.receive(EBGP, &message(MessageType::RouteRefresh, &[0, 25, 0, 70]));
    assert!(bench.sent(EBGP).is_empty());
}

#[test]
fn a_refresh_is_asked_for_in_each_family_if_the_peer_can_do_it() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.give(Input::RequestRefresh { peer: EBGP.id });
    assert_eq!(bench.sent(EBGP), [(5, vec![0, 1, 0, 1]), (5, vec![0, 2, 0, 1])]);
}

#[test]
fn end_of_rib_follows_the_first_routes_of_each_family() {
    let mut bench = Bench::new();
    bench.give(Input::Originate(OriginatedRoute::new(prefix("198.51.100.0/24"))));
    bench.give(Input::PutPeer(Bench::config(EBGP)));
    bench.establish_with(EBGP, &EBGP.open());
    let updates: Vec<_> =
        bench.sent(EBGP).into_iter().filter(|(kind, _)| *kind == 2).map(|(_, body)| body).collect();
    assert_eq!(updates.len(), 3);
    assert_eq!(updates[1], unhex("00000000"));
    assert_eq!(updates[2], unhex("00000007900f0003000201"));
}

#[test]
fn a_congested_peer_gets_only_keepalives_and_then_what_it_missed() {
    let mut bench = Bench::new();
    bench.establish(OBSERVER);
    bench.give(Input::Originate(OriginatedRoute::new(prefix("198.51.100.0/24"))));
    bench.take();
    bench.give(Input::Congested { connection: OBSERVER.connection(), congested: true });
    bench.give(Input::Originate(OriginatedRoute::new(prefix("203.0.113.0/24"))));
    bench.give(Input::Withdraw(prefix("198.51.100.0/24")));
    assert!(bench.sent(OBSERVER).is_empty());
    bench.give(Input::Congested { connection: OBSERVER.connection(), congested: false });
    let sent = bench.sent(OBSERVER);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].1, unhex("000418c633640000"), "the withdrawal comes first");
    assert!(sent[1].1.ends_with(&unhex("18cb0071")));
}

#[test]
fn shutdown_says_goodbye_and_then_nothing() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.receive(EBGP, &sound_update());
    bench.take();
    bench.give(Input::Shutdown { graceful: false });
    assert_eq!(bench.notification(EBGP), Some(Notification::new(6, 2)));
    assert!(
        !bench.out.iter().any(|output| matches!(output, Output::RouteChanged { .. })),
        "forwarding goes on"
    );
    bench.take();
    bench.connect(EBGP);
    assert!(bench.out.is_empty() && bench.speaker.next_deadline().is_none());
}

/// AS 65000's speaker in place of one whose forwarding state still stands, with a route of its own.
fn restarting() -> Bench {
    let mut config = bgp::SpeakerConfig::new("10.0.0.1".parse().expect("an address"), AsNumber(65000));
    config.restarting = true;
    let mut bench = Bench::with(config);
    bench.give(Input::Originate(OriginatedRoute::new(prefix("198.51.100.0/24"))));
    bench.give(Input::PutPeer(Bench::config(EBGP)));
    bench
}

fn sent_updates(bench: &Bench) -> usize {
    bench.sent(EBGP).iter().filter(|(kind, _)| *kind == 2).count()
}

#[test]
fn a_restarting_speaker_says_so_and_that_it_kept_forwarding() {
    let mut bench = restarting();
    bench.connect(EBGP);
    let open = bgp::wire::open::Open::parse(&bench.sent(EBGP)[0].1).expect("our own OPEN");
    let said = open.capabilities.iter().any(|capability| match capability {
        Capability::GracefulRestart(restart) => {
            restart.restarted && restart.families.iter().all(|&(_, preserved)| preserved)
        }
        _ => false,
    });
    assert!(said);
}

#[test]
fn a_restarting_speaker_announces_after_it_has_heard_its_peers() {
    let mut bench = restarting();
    bench.establish_with(EBGP, &EBGP.graceful_open(false, true));
    bench.receive(EBGP, &sound_update());
    assert_eq!(sent_updates(&bench), 0, "not before End-of-RIB");
    assert!(
        bench.out.iter().any(|output| matches!(output, Output::RouteChanged { .. })),
        "but forwarding begins"
    );
    bench.receive(EBGP, &update(&[], &[], &[]));
    // The route and an End-of-RIB for each family.
    assert_eq!(sent_updates(&bench), 3);
    assert!(bench.out.contains(&Output::RestartComplete));
}

#[test]
fn a_restarting_speaker_does_not_wait_longer_than_the_deferral_time() {
    let mut bench = restarting();
    bench.establish_with(EBGP, &EBGP.graceful_open(false, true));
    for _ in 0..2 {
        bench.pass(Duration::from_secs(59));
        bench.receive(EBGP, &message(KEEPALIVE, &[]));
    }
    assert_eq!(sent_updates(&bench), 0);
    bench.pass(Duration::from_secs(3));
    assert_eq!(sent_updates(&bench), 3);
    assert!(bench.out.contains(&Output::RestartComplete));
}

#[test]
fn a_session_that_comes_back_says_that_forwarding_was_kept_but_not_that_we_restarted() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.give(Input::ConnectionClosed { connection: EBGP.connection() });
    bench.connect(EBGP);
    let open = bgp::wire::open::Open::parse(&bench.sent(EBGP)[0].1).expect("our own OPEN");
    let said = open.capabilities.iter().any(|capability| match capability {
        Capability::GracefulRestart(restart) => {
            !restart.restarted && restart.families.iter().all(|&(_, preserved)| preserved)
        }
        _ => false,
    });
    assert!(said);
}

#[test]
fn peers_beyond_the_limit_are_refused_and_counted() {
    let mut config = bgp::SpeakerConfig::new("10.0.0.1".parse().expect("an address"), AsNumber(65000));
    config.limits.max_peers = 1;
    let mut bench = Bench::with(config);
    bench.give(Input::PutPeer(Bench::config(EBGP)));
    bench.give(Input::PutPeer(Bench::config(IBGP)));
    assert_eq!((bench.speaker.peers(bench.now).count(), bench.speaker.peers_refused()), (1, 1));
    // A place that is given up is free again.
    bench.give(Input::RemovePeer(EBGP.id));
    bench.establish(IBGP);
}

#[test]
fn a_peer_that_has_not_been_listened_to_is_not_silent() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    // The hold time is 90 s; nobody has listened since the tenth second.
    let begin = bench.now;
    let heard = |bench: &mut Bench, seconds| bench.speaker.heard_until(begin + Duration::from_secs(seconds));
    heard(&mut bench, 10);
    bench.pass(Duration::from_secs(200));
    assert_eq!(bench.state(EBGP), PeerState::Established);
    assert!(bench.sent(EBGP).len() > 5, "we say that we live, all the same");
    // What it said in the meantime is heard late.
    bench.receive(EBGP, &message(MessageType::Keepalive, &[]));
    heard(&mut bench, 200);
    bench.pass(Duration::from_secs(89));
    assert_eq!(bench.state(EBGP), PeerState::Established);
    // All is heard, and it said nothing more.
    heard(&mut bench, 291);
    bench.pass(Duration::from_secs(2));
    assert_ne!(bench.state(EBGP), PeerState::Established);
    assert_eq!(bench.notification(EBGP), Some(Notification::new(4, 0)));
}
