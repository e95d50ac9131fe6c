//! A peer that announces more than it may.

mod support;

use std::time::Duration;

use bgp::{Input, LimitAction, Output, PeerConfig, PeerState, PrefixLimit, Reached};
use support::{Actor, Bench, EBGP, update};

/// ORIGIN IGP, AS_PATH 65001, NEXT_HOP 10.0.0.2.
const ATTRIBUTES: [u8; 20] = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 10, 0, 0, 2];

fn announce(bench: &mut Bench, actor: Actor, numbers: std::ops::Range<u8>) {
    for number in numbers {
        bench.receive(actor, &update(&[], &ATTRIBUTES, &[24, 10, 1, number]));
    }
}

fn limited(most: usize, action: LimitAction) -> PeerConfig {
    PeerConfig { prefix_limit: Some(PrefixLimit { most, warn_percent: 50, action }), ..Bench::config(EBGP) }
}

fn with_limit(most: usize, action: LimitAction) -> Bench {
    let mut bench = Bench::new();
    bench.give(Input::PutPeer(limited(most, action)));
    bench.establish_with(EBGP, &EBGP.open());
    bench.take();
    bench
}

fn reached(bench: &mut Bench) -> Vec<Reached> {
    let told = |output| match output {
        Output::PrefixLimit { reached, .. } => Some(reached),
        _ => None,
    };
    bench.take().into_iter().filter_map(told).collect()
}

const CLOSE: LimitAction = LimitAction::Close { rest: Duration::from_secs(90) };

#[test]
fn a_limit_that_only_warns_takes_everything_and_says_so_once() {
    let mut bench = with_limit(4, LimitAction::Warn);
    announce(&mut bench, EBGP, 0..10);
    assert_eq!(bench.status(EBGP).v4.received, 10);
    assert_eq!(reached(&mut bench), [Reached::Warning, Reached::Limit]);
    assert_eq!(bench.state(EBGP), PeerState::Established);
}

#[test]
fn what_is_over_a_limit_that_drops_is_refused_and_what_is_held_can_change_and_go() {
    let mut bench = with_limit(4, LimitAction::Drop);
    announce(&mut bench, EBGP, 0..10);
    assert_eq!(reached(&mut bench), [Reached::Warning, Reached::Limit]);
    let status = bench.status(EBGP);
    assert_eq!((status.v4.received, status.errors.prefixes_refused), (4, 6));
    // The first again, with a MED: no path more.
    let changed = [&ATTRIBUTES[..], &[0x80, 4, 4, 0, 0, 0, 9]].concat();
    bench.receive(EBGP, &update(&[], &changed, &[24, 10, 1, 0]));
    let path = &bench.speaker.routes(support::prefix("10.1.0.0/24"))[0];
    assert_eq!(path.attributes.med(), Some(9));
    bench.receive(EBGP, &update(&[24, 10, 1, 0], &[], &[]));
    announce(&mut bench, EBGP, 9..10);
    assert_eq!(bench.status(EBGP).v4.received, 4, "one went, another came");
    assert_eq!(bench.status(EBGP).errors.prefixes_refused, 6);
}

#[test]
fn what_was_dropped_is_asked_for_again_when_the_limit_is_raised() {
    let mut bench = with_limit(4, LimitAction::Drop);
    announce(&mut bench, EBGP, 0..3);
    bench.give(Input::PutPeer(limited(5, LimitAction::Drop)));
    assert!(bench.sent(EBGP).is_empty(), "nothing is missing, and the session stays");
    announce(&mut bench, EBGP, 0..10);
    bench.take();
    bench.give(Input::PutPeer(limited(50, LimitAction::Drop)));
    let refreshes = bench.sent(EBGP).into_iter().filter(|(kind, _)| *kind == 5).count();
    assert_eq!(refreshes, 2, "one a family");
    assert_eq!(bench.state(EBGP), PeerState::Established);
}

#[test]
fn a_peer_that_went_too_far_is_refused_for_its_rest_and_then_let_in() {
    let mut bench = with_limit(4, CLOSE);
    announce(&mut bench, EBGP, 0..5);
    let notification = bench.notification(EBGP).unwrap();
    assert_eq!((notification.code, notification.subcode), (6, 1));
    assert_eq!(notification.data, [0, 1, 1, 0, 0, 0, 4]);
    let status = bench.status(EBGP);
    assert_eq!((status.state, status.v4.received), (PeerState::Idle, 0));
    assert_eq!(status.resting, Some(Duration::from_secs(90)));
    assert_eq!((status.errors.prefix_limit, status.errors.prefix_limit_warnings), (1, 1));
    bench.pass(Duration::from_secs(89));
    bench.take();
    bench.connect(EBGP);
    assert!(bench.take().iter().any(|output| matches!(output, Output::Close { .. })), "still refused");
    bench.pass(Duration::from_secs(1));
    bench.establish_with(EBGP, &EBGP.open());
    announce(&mut bench, EBGP, 0..4);
    assert_eq!(bench.status(EBGP).v4.received, 4);
}

#[test]
fn a_peer_whose_attributes_take_too_much_is_refused_as_if_it_had_too_many_paths() {
    let mut bench = with_limit(1000, CLOSE);
    // Each path has its own: 4,000 octets of an attribute that nobody knows (optional, transitive).
    let attributes = |number: u16| {
        let head = [0xd0, 99, 0x0f, 0xa0];
        [&ATTRIBUTES[..], &head, &number.to_be_bytes(), &[7; 3998]].concat()
    };
    let announce = |bench: &mut Bench, number: u16| {
        let [high, low] = number.to_be_bytes();
        bench.receive(EBGP, &update(&[], &attributes(number), &[24, 10, high, low]));
    };
    // A mebibyte is 261 of them; one that is replaced or withdrawn makes room.
    for number in (0..200).chain(0..200).chain(200..260) {
        announce(&mut bench, number);
    }
    bench.receive(EBGP, &update(&[24, 10, 0, 0], &[], &[]));
    announce(&mut bench, 300);
    assert_eq!((bench.status(EBGP).v4.received, bench.state(EBGP)), (260, PeerState::Established));
    for number in 301..310 {
        announce(&mut bench, number);
    }
    let notification = bench.notification(EBGP).unwrap();
    assert_eq!((notification.code, notification.subcode), (6, 8), "Out of Resources (RFC 4486)");
    let status = bench.status(EBGP);
    assert_eq!((status.state, status.v4.received), (PeerState::Idle, 0));
    assert_eq!((status.resting, status.errors.prefix_limit), (Some(Duration::from_secs(90)), 1));
    bench.pass(Duration::from_secs(90));
    bench.establish_with(EBGP, &EBGP.open());
    announce(&mut bench, 1);
    assert_eq!(bench.status(EBGP).v4.received, 1);
}

#[test]
fn raising_the_limit_ends_the_rest() {
    let mut bench = with_limit(4, CLOSE);
    announce(&mut bench, EBGP, 0..5);
    assert_eq!(bench.state(EBGP), PeerState::Idle);
    bench.give(Input::PutPeer(limited(10, CLOSE)));
    bench.establish_with(EBGP, &EBGP.open());
    announce(&mut bench, EBGP, 0..5);
    assert_eq!(bench.status(EBGP).v4.received, 5);
}

#[test]
fn a_peer_that_keeps_coming_back_with_too_much_costs_a_session_a_rest() {
    let mut bench = Bench::new();
    bench.give(Input::PutPeer(limited(4, CLOSE)));
    let mut sessions = 0;
    for _ in 0..900 {
        if bench.state(EBGP) == PeerState::Active {
            bench.establish_with(EBGP, &EBGP.open());
            announce(&mut bench, EBGP, 0..5);
            sessions += 1;
        }
        bench.pass(Duration::from_secs(1));
    }
    assert_eq!(sessions, 10);
}
