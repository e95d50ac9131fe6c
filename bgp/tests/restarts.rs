//! What outlives a session: graceful restart with NOTIFICATIONs (RFC 8538), and for long (RFC 9494).

mod support;

use bgp::wire::MessageType;
use std::time::Duration;

use bgp::wire::attributes::LLGR_STALE;
use bgp::wire::capability::{Capability, GracefulRestart, LongLived};
use bgp::wire::nlri::AfiSafi;
use bgp::wire::notification::{Notification, cease};
use bgp::wire::open::Open;
use bgp::{Input, PeerConfig, PeerState, Standing, Step};
use model::Family;
use support::{Actor, Bench, EBGP, IBGP, OBSERVER, message, prefix, unhex, update};

const CEASE: u8 = 6;

/// 192.0.2.0/24 with sound attributes of AS 65001.
fn sound_update() -> Vec<u8> {
    update(&[], &unhex("4001010040020602010000fde94003040a000002"), &unhex("18c00002"))
}

/// An OPEN that asks to keep IPv4 routes, also after a NOTIFICATION.
fn open(notification: bool) -> Open {
    let mut open = EBGP.open();
    open.capabilities.push(Capability::GracefulRestart(GracefulRestart {
        restarted: false,
        notification,
        restart_time: 120,
        families: vec![(AfiSafi::unicast(Family::V4), true)],
    }));
    open
}

fn config() -> PeerConfig {
    PeerConfig { survive_notification: true, ..Bench::config(EBGP) }
}

/// A session over which a route came.
fn with_a_route(notification: bool) -> Bench {
    let mut bench = Bench::new();
    bench.establish(OBSERVER);
    bench.give(Input::PutPeer(config()));
    bench.establish_with(EBGP, &open(notification));
    bench.receive(EBGP, &sound_update());
    assert_eq!(routes(&bench), 1);
    bench.take();
    bench
}

fn routes(bench: &Bench) -> usize {
    bench.speaker.routes(prefix("192.0.2.0/24")).len()
}

fn notification(code: u8, subcode: u8) -> Vec<u8> {
    message(MessageType::Notification, &[code, subcode])
}

#[test]
fn routes_outlive_a_notification_only_where_both_said_so() {
    for (both, left) in [(true, 1), (false, 0)] {
        let mut bench = with_a_route(both);
        bench.receive(EBGP, &notification(CEASE, cease::RESET));
        assert_eq!(routes(&bench), left, "N bit: {both}");
        assert_eq!(bench.status(EBGP).v4.stale, left);
    }
}

#[test]
fn routes_outlive_an_error_that_we_found_and_a_hold_timer() {
    let mut bench = with_a_route(true);
    bench.receive(EBGP, &message(MessageType::RouteRefresh, &[0; 5]));
    assert_eq!(bench.notification(EBGP).map(|sent| (sent.code, sent.subcode)), Some((1, 2)));
    assert_eq!(routes(&bench), 1);

    let mut bench = with_a_route(true);
    bench.pass(Duration::from_secs(91));
    assert_eq!(bench.notification(EBGP), Some(Notification::new(4, 0)));
    assert_eq!(routes(&bench), 1);
}

#[test]
fn a_hard_reset_takes_the_routes_along() {
    let mut bench = with_a_route(true);
    let hard = Notification::with_text(cease::SHUTDOWN, "moving out").into_hard_reset();
    let mut bytes = Vec::new();
    hard.emit(&mut bytes);
    bench.receive(EBGP, &bytes);
    assert_eq!(routes(&bench), 0);
    let why = bench.status(EBGP).last_error.expect("a reason").to_string();
    assert!(why.ends_with(r#"(Hard Reset) for 6/2 (Administrative Shutdown): "moving out""#), "{why}");
}

#[test]
fn what_is_final_is_said_as_a_hard_reset_to_whom_knows_it() {
    let mut bench = with_a_route(true);
    bench.give(Input::RemovePeer(EBGP.id));
    let sent = bench.notification(EBGP).expect("a NOTIFICATION");
    assert_eq!(sent.inside(), Some(Notification::new(CEASE, cease::DECONFIGURED)));

    let mut bench = with_a_route(false);
    bench.give(Input::RemovePeer(EBGP.id));
    assert_eq!(bench.notification(EBGP), Some(Notification::new(CEASE, cease::DECONFIGURED)));
}

#[test]
fn a_changed_configuration_leaves_our_routes_with_the_peer() {
    let mut bench = with_a_route(true);
    let mut config = config();
    config.hold_time = Duration::from_secs(30);
    bench.give(Input::PutPeer(config));
    // No Hard Reset: the peer may keep what we said until we are back.
    assert_eq!(bench.notification(EBGP), Some(Notification::new(CEASE, cease::RECONFIGURED)));
    assert_ne!(bench.state(EBGP), PeerState::Established);
}

#[test]
fn what_is_kept_of_a_peer_goes_when_that_is_configured_otherwise() {
    for change in [false, true] {
        let mut bench = with_a_route(true);
        bench.give(Input::ConnectionClosed { connection: EBGP.connection() });
        assert_eq!(bench.status(EBGP).v4.stale, 1);
        bench.give(Input::PutPeer(PeerConfig { add_path: change, ..config() }));
        assert_eq!(routes(&bench), usize::from(!change), "as if its session stood");
    }
}

/// An OPEN that asks to keep IPv4 routes for two minutes, and for an hour as a last resort.
fn long_lived_open(preserved: bool) -> Open {
    let mut open = EBGP.graceful_open(true, true);
    let family = AfiSafi::unicast(Family::V4);
    open.capabilities.push(Capability::LongLived(vec![LongLived { family, preserved, stale_time: 3600 }]));
    open
}

/// A peer that announces 192.0.2.0/24, perhaps with a community, is gone for longer than its restart time.
/// The observer knows what LLGR_STALE is, the iBGP peer doesn't.
fn long_gone(community: &str) -> Bench {
    let mut bench = Bench::new();
    bench.establish(IBGP);
    let mut open = OBSERVER.open();
    open.capabilities.push(Capability::LongLived(Vec::new()));
    bench.give(Input::PutPeer(Bench::config(OBSERVER)));
    bench.establish_with(OBSERVER, &open);
    bench.give(Input::PutPeer(Bench::config(EBGP)));
    bench.establish_with(EBGP, &long_lived_open(true));
    let attributes = format!("4001010040020602010000fde94003040a000002{community}");
    bench.receive(EBGP, &update(&[], &unhex(&attributes), &unhex("18c00002")));
    bench.give(Input::ConnectionClosed { connection: EBGP.connection() });
    keep_up(&mut bench, 119);
    assert_eq!(routes(&bench), 1);
    assert!(!is_last_resort(&bench), "not before the restart time is over");
    bench.take();
    keep_up(&mut bench, 2);
    bench
}

/// Lets seconds pass while the others keep their sessions.
fn keep_up(bench: &mut Bench, mut seconds: u64) {
    while seconds > 0 {
        let step = seconds.min(50);
        bench.pass(Duration::from_secs(step));
        for actor in [IBGP, OBSERVER] {
            bench.receive(actor, &message(MessageType::Keepalive, &[]));
        }
        seconds -= step;
    }
}

fn is_last_resort(bench: &Bench) -> bool {
    let routes = bench.speaker.routes(prefix("192.0.2.0/24"));
    routes.iter().any(|route| route.stale && route.attributes.has_community(LLGR_STALE))
}

/// Messages to the actor that end with the prefix alone: as announcements and withdrawals of it do.
fn told(bench: &Bench, actor: Actor) -> Vec<Vec<u8>> {
    bench.sent(actor).into_iter().filter(|(kind, _)| *kind == 2).map(|(_, body)| body).collect()
}

#[test]
fn after_the_restart_time_routes_stay_as_a_last_resort_for_as_long_as_the_peer_asked() {
    let mut bench = long_gone("");
    assert!(is_last_resort(&bench));
    let community = unhex("c00804ffff0006");
    assert!(told(&bench, OBSERVER)[0].windows(7).any(|window| window == community));
    // Who doesn't know what that means would take it for a route like any other.
    assert_eq!(told(&bench, IBGP)[0], unhex("000418c000020000"));
    keep_up(&mut bench, 3590);
    assert_eq!(routes(&bench), 1);
    keep_up(&mut bench, 20);
    assert_eq!(routes(&bench), 0);
}

#[test]
fn a_last_resort_loses_to_everything_else() {
    let mut bench = long_gone("");
    // A longer path and a lower LOCAL_PREF.
    let attributes = "40010102 40020e0203 0000fde9 0000fdea 0000fdeb 4003040a000003 40050400000001";
    bench.receive(IBGP, &update(&[], &unhex(&attributes.replace(' ', "")), &unhex("18c00002")));
    let routes = bench.speaker.routes(prefix("192.0.2.0/24"));
    assert_eq!(
        (routes[0].standing, routes[1].standing),
        (Standing::Best, Standing::Lost(Step::LongLivedStale))
    );
    assert!(routes[1].stale);
}

#[test]
fn a_route_that_must_not_live_long_does_not() {
    assert_eq!(routes(&long_gone("c00804ffff0007")), 0);
}

#[test]
fn a_peer_that_is_back_makes_its_routes_fresh_or_loses_them() {
    for (preserved, again, left) in [(true, true, 1), (true, false, 0), (false, false, 0)] {
        let mut bench = long_gone("");
        bench.establish_with(EBGP, &long_lived_open(preserved));
        assert_eq!(routes(&bench), usize::from(preserved), "F bit");
        if again {
            bench.receive(EBGP, &sound_update());
            assert!(!is_last_resort(&bench));
        }
        bench.receive(EBGP, &update(&[], &[], &[]));
        assert_eq!(routes(&bench), left);
    }
}
