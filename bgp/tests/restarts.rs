//! What outlives a session: graceful restart with NOTIFICATIONs (RFC 8538).

mod support;

use bgp::wire::MessageType;
use bgp::wire::capability::{Capability, GracefulRestart};
use bgp::wire::nlri::AfiSafi;
use bgp::wire::notification::{Notification, cease};
use bgp::wire::open::Open;
use bgp::{Input, PeerConfig, PeerState};
use model::Family;
use support::{Bench, EBGP, OBSERVER, message, prefix, unhex, update};

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
    bench.pass(std::time::Duration::from_secs(91));
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
    config.hold_time = std::time::Duration::from_secs(30);
    bench.give(Input::PutPeer(config));
    // No Hard Reset: the peer may keep what we said until we are back.
    assert_eq!(bench.notification(EBGP), Some(Notification::new(CEASE, cease::RECONFIGURED)));
    assert_ne!(bench.state(EBGP), PeerState::Established);
}
