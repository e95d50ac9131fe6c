//! host1's segment against the other end's own words.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::segments::testing::{AGEING, OWN_MAC, segment, sought};
use crate::segments::{Learning, SegmentEnd};

const PEER_MAC: MacAddr = MacAddr([0x5a, 0, 0, 0, 0, 1]);
const OTHER_MAC: MacAddr = MacAddr([0x5a, 0, 0, 0, 0, 2]);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 11, 1);
const HOST2: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 57, 4, 21));
const HOST3: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 57, 4, 22));
const SECOND: Duration = Duration::from_secs(1);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A segment whose one end is the other host's.
fn overlay() -> Overlay {
    Overlay::new(Segment { ends: vec![sought("192.168.11.1", "192.168.11.0/24")], ..segment() })
}

/// The other end's answer to a question of ours.
fn reply_of(mac: MacAddr, question: &[u8]) -> Vec<u8> {
    arp::answer(question, mac, |addr| addr != PEER).unwrap().reply.unwrap()
}

/// The other end asks for an address.
fn request(mac: MacAddr, target: Ipv4Addr) -> Vec<u8> {
    arp::request(mac, PEER, target)
}

fn only(sayings: Vec<Saying>) -> Saying {
    let [saying] = <[Saying; 1]>::try_from(sayings).expect("one frame is said");
    saying
}

fn station(remote: IpAddr, mac: MacAddr) -> Option<Station> {
    Some(Station { remote, mac })
}

#[test]
fn an_end_is_asked_for_by_flooding_and_its_answer_is_learned() {
    let now = Instant::now();
    let mut overlay = overlay();
    let question = only(overlay.tick(now));
    assert_eq!(question.to, Audience::Everybody);
    assert_eq!(question.frame[..6], [0xff; 6]);
    assert_eq!(overlay.station(PEER.into()), None);
    assert_eq!(overlay.hear(HOST2, &reply_of(PEER_MAC, &question.frame), now), None, "an answer gets none");
    assert_eq!(overlay.station(PEER.into()), station(HOST2, PEER_MAC));
    assert!(overlay.take_changed() && !overlay.take_changed());
    assert_eq!(overlay.tick(now + SECOND), [], "nothing more to ask");
    assert_eq!((overlay.counts().asked, overlay.counts().learned), (1, 1));
}

#[test]
fn an_ipv6_end_is_asked_for_by_neighbour_discovery() {
    let now = Instant::now();
    let mut overlay = Overlay::new(Segment { ends: vec![sought("fd11::1", "fd11::/64")], ..segment() });
    let question = only(overlay.tick(now));
    let peer = v6("fd11::1");
    let theirs = nd::answer(&question.frame, PEER_MAC, peer, |addr| addr != peer).unwrap();
    assert_eq!(theirs.learned, Some((v6("fd10::1"), OWN_MAC)), "the question says who asks");
    overlay.hear(HOST2, &theirs.reply.unwrap(), now);
    assert_eq!(overlay.station(peer.into()), station(HOST2, PEER_MAC));
}

#[test]
fn who_asks_for_this_node_is_answered_at_its_place_and_learned() {
    let now = Instant::now();
    let mut overlay = overlay();
    let answer = overlay.hear(HOST2, &request(PEER_MAC, OWN), now).unwrap();
    assert_eq!(answer.to, Audience::End(HOST2));
    let theirs = arp::answer(&answer.frame, PEER_MAC, |addr| addr == OWN).unwrap();
    assert_eq!(theirs.learned, (OWN, OWN_MAC));
    assert_eq!(overlay.station(PEER.into()), station(HOST2, PEER_MAC));

    let (own, peer) = (v6("fd10::1"), v6("fd11::1"));
    let answer = overlay.hear(HOST2, &nd::solicitation(PEER_MAC, peer, own), now).unwrap();
    let theirs = nd::answer(&answer.frame, PEER_MAC, peer, |addr| addr != peer).unwrap();
    assert_eq!(theirs.learned, Some((own, OWN_MAC)));
    assert_eq!(overlay.counts().answered, 2);
}

#[test]
fn nobody_elses_address_is_answered_for() {
    let now = Instant::now();
    let mut overlay = overlay();
    let (peer, other) = (v6("fd11::1"), v6("fd12::1"));
    assert_eq!(overlay.hear(HOST2, &request(PEER_MAC, Ipv4Addr::new(192, 168, 12, 1)), now), None);
    assert_eq!(overlay.hear(HOST2, &nd::solicitation(PEER_MAC, peer, other), now), None);
    assert_eq!(overlay.fdb().remote(PEER_MAC), Some(HOST2), "who asked is known all the same");
}

/// RFC 5227 §2.4: whoever is about to take our address is told that it is taken.
#[test]
fn a_probe_for_our_address_is_answered() {
    let mut overlay = overlay();
    let probe = arp::request(PEER_MAC, Ipv4Addr::UNSPECIFIED, OWN);
    assert!(overlay.hear(HOST2, &probe, Instant::now()).is_some());
    assert_eq!(overlay.station(PEER.into()), None);
}

#[test]
fn a_station_that_moves_is_followed_and_so_is_an_address() {
    let now = Instant::now();
    let mut overlay = overlay();
    overlay.hear(HOST2, &request(PEER_MAC, OWN), now);
    overlay.take_changed();
    overlay.hear(HOST2, &request(PEER_MAC, OWN), now);
    assert!(!overlay.take_changed(), "nothing is new");
    // Gratuitous: it asks for its own address.
    overlay.hear(HOST3, &request(PEER_MAC, PEER), now);
    assert!(overlay.take_changed());
    assert_eq!((overlay.station(PEER.into()), overlay.counts().moved), (station(HOST3, PEER_MAC), 1));
    overlay.hear(HOST2, &request(OTHER_MAC, PEER), now);
    assert!(overlay.take_changed());
    assert_eq!(overlay.station(PEER.into()), station(HOST2, OTHER_MAC));
}

#[test]
fn an_end_in_use_is_asked_again_at_its_place_then_everywhere_and_then_it_is_gone() {
    let start = Instant::now();
    let mut overlay = overlay();
    overlay.hear(HOST2, &request(PEER_MAC, OWN), start);
    assert_eq!(overlay.tick(start + REACHABLE - SECOND), []);
    let mut asked = Vec::new();
    let mut gone = None;
    for second in 0..20 {
        let now = start + REACHABLE + SECOND * second;
        asked.extend(overlay.tick(now).into_iter().map(|saying| saying.to));
        if gone.is_none() && overlay.station(PEER.into()).is_none() {
            gone = Some(second);
        }
    }
    assert_eq!(asked[..3], [Audience::End(HOST2); 3]);
    assert!(asked.len() > 6 && asked[3..].iter().all(|to| *to == Audience::Everybody), "{asked:?}");
    assert_eq!(gone, Some(6), "it is used while it is asked");
    assert!(asked.len() < 12, "and asked less and less");
    // Its next word brings it back.
    overlay.take_changed();
    overlay.hear(HOST2, &request(PEER_MAC, OWN), start + REACHABLE + SECOND * 30);
    assert!(overlay.take_changed() && overlay.station(PEER.into()).is_some());
}

#[test]
fn an_end_that_answers_never_ages_and_another_station_does() {
    let start = Instant::now();
    let mut overlay = overlay();
    overlay.hear(HOST2, &request(PEER_MAC, OWN), start);
    overlay.hear(HOST3, &arp::request(OTHER_MAC, Ipv4Addr::new(192, 168, 10, 9), OWN), start);
    for second in 0..2 * AGEING.as_secs() as u32 {
        let now = start + SECOND * second;
        for question in overlay.tick(now) {
            overlay.hear(HOST2, &reply_of(PEER_MAC, &question.frame), now);
        }
        assert_eq!(overlay.station(PEER.into()), station(HOST2, PEER_MAC), "second {second}");
        assert_eq!(overlay.fdb().remote(OTHER_MAC).is_some(), now < start + AGEING, "second {second}");
    }
    assert_eq!(overlay.counts().aged, 1);
}

#[test]
fn with_a_short_ageing_time_ends_are_asked_the_more_often() {
    let start = Instant::now();
    let learning = Learning { ageing: Duration::from_secs(8), ..segment().learning.unwrap() };
    let mut overlay = Overlay::new(Segment { learning: Some(learning), ..overlay().segment().clone() });
    overlay.hear(HOST2, &request(PEER_MAC, OWN), start);
    assert_eq!(only(overlay.tick(start + SECOND * 2)).to, Audience::End(HOST2));
}

#[test]
fn what_is_written_down_is_neither_overridden_nor_asked_for() {
    let now = Instant::now();
    let written =
        SegmentEnd { station: station(HOST2, PEER_MAC), ..sought("192.168.11.1", "192.168.11.0/24") };
    let mut overlay = Overlay::new(Segment { ends: vec![written], ..segment() });
    assert_eq!(overlay.tick(now), []);
    assert_eq!(overlay.hear(HOST3, &request(PEER_MAC, OWN), now), None, "it isn't even answered");
    assert_eq!((overlay.fdb().remote(PEER_MAC), overlay.counts().contradicted), (Some(HOST2), 1));
    assert!(overlay.hear(HOST2, &request(PEER_MAC, OWN), now).is_some());
    assert!(!overlay.take_changed());
}

#[test]
fn a_segment_without_flooding_answers_and_learns_nothing() {
    let now = Instant::now();
    let written =
        SegmentEnd { station: station(HOST2, PEER_MAC), ..sought("192.168.11.1", "192.168.11.0/24") };
    let mut overlay = Overlay::new(Segment { ends: vec![written], learning: None, ..segment() });
    assert!(overlay.hear(HOST3, &request(OTHER_MAC, OWN), now).is_some());
    assert_eq!((overlay.fdb().remote(OTHER_MAC), overlay.tick(now)), (None, vec![]));
}

#[test]
fn a_full_table_is_counted_and_questions_are_answered_all_the_same() {
    let now = Instant::now();
    let mut overlay = overlay();
    for last in 1..=5 {
        let mac = MacAddr([2, 0, 0, 0, 0, last]);
        let asks = arp::request(mac, Ipv4Addr::new(192, 168, 10, 100 + last), OWN);
        assert!(overlay.hear(HOST2, &asks, now).is_some());
    }
    assert_eq!((overlay.counts().learned, overlay.counts().full), (4, 1));
    assert_eq!(overlay.fdb().learned().count(), 4);
}

#[test]
fn nothing_is_learned_from_what_is_malformed_a_lie_or_from_nowhere() {
    let now = Instant::now();
    let good = request(PEER_MAC, OWN);
    let mut overlay = overlay();
    let mut forged = good.clone();
    forged[6..12].copy_from_slice(&OTHER_MAC.0);
    let mut elsewhere = good.clone();
    elsewhere[..6].copy_from_slice(&OTHER_MAC.0);
    let group = arp::request(MacAddr([1, 0, 0x5e, 0, 0, 1]), PEER, OWN);
    let ours = arp::request(PEER_MAC, OWN, OWN);
    for bad in [&good[..41], &forged, &elsewhere, &group, &request(OWN_MAC, OWN), &ours, &[]] {
        assert_eq!(overlay.hear(HOST2, bad, now), None);
    }
    for from in ["10.57.4.20", "239.1.1.1", "0.0.0.0"] {
        assert_eq!(overlay.hear(from.parse().unwrap(), &good, now), None, "{from}");
    }
    assert_eq!((overlay.counts().invalid, overlay.fdb().learned().count()), (10, 0));
}

#[test]
fn questions_of_a_second_are_bounded_and_everybodys_turn_comes() {
    let start = Instant::now();
    let ends = (1..=100u8).map(|last| sought(&format!("192.168.11.{last}"), &format!("10.0.{last}.0/24")));
    let flood = (1..=32).map(|last| IpAddr::from([10, 57, 4, 100 + last])).collect();
    let learning = Learning { flood, ..segment().learning.unwrap() };
    let mut overlay = Overlay::new(Segment { ends: ends.collect(), learning: Some(learning), ..segment() });
    let mut asked = std::collections::BTreeSet::new();
    for second in 0..13 {
        let sayings = overlay.tick(start + SECOND * second);
        assert!(sayings.len() * 32 <= PACKETS_A_TICK, "{} questions", sayings.len());
        asked.extend(sayings.into_iter().map(|saying| saying.frame[38..42].to_vec()));
    }
    assert_eq!(asked.len(), 100);
}

proptest! {
    #[test]
    fn any_bytes_are_heard_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..120), at in 0usize..90, byte: u8, cut in 0usize..40,
    ) {
        let now = Instant::now();
        let mut overlay = Overlay::new(segment());
        overlay.hear(HOST2, &bytes, now);
        for mut frame in [request(PEER_MAC, OWN), nd::solicitation(PEER_MAC, v6("fd11::1"), v6("fd10::1"))] {
            if let Some(changed) = frame.get_mut(at) {
                *changed = byte;
            }
            frame.truncate(frame.len().saturating_sub(cut));
            overlay.hear(HOST2, &frame, now);
            prop_assert!(overlay.fdb().remote(OWN_MAC).is_none(), "never ourselves");
        }
    }
}
