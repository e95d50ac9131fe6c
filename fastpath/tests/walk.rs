//! A frame in, a frame out: what the walk writes, and what it leaves alone.

mod support;

use std::collections::BTreeSet;

use packet::checksum;
use proptest::prelude::*;
use support::{Build, HOST, NARROW, Rig, UPLINK, WORKLOAD, assert_checksums, echo, mac, neighbor_mac};
use tables::Inject;

#[test]
fn a_packet_to_another_node_gets_new_addresses_and_a_lower_ttl() {
    let mut rig = Rig::new();
    let sent = Build::outward().frame();
    let moved = rig.send(WORKLOAD, &sent);
    assert_eq!((moved.received(), moved.forwarded()), (1, 1));
    let left = rig.left_by(UPLINK);
    assert_eq!(left[..6], neighbor_mac(UPLINK).0);
    assert_eq!(left[6..12], mac(UPLINK).0);
    assert_eq!(left[22], 63);
    assert_checksums(&left);
    let mut expected = sent.clone();
    expected[..12].copy_from_slice(&left[..12]);
    expected[22] = 63;
    expected[24..26].copy_from_slice(&left[24..26]);
    assert_eq!(left, expected, "nothing else is touched");
    rig.audit();
}

#[test]
fn ipv6_is_forwarded_alike() {
    let mut rig = Rig::new();
    rig.send(WORKLOAD, &Build::packet(WORKLOAD, "fd65::2", "fd65:1::2").frame());
    let left = rig.left_by(UPLINK);
    assert_eq!((left[21], &left[..6]), (63, &neighbor_mac(UPLINK).0[..]));
    assert_checksums(&left);
}

#[test]
fn a_packet_from_another_node_reaches_the_workload() {
    let mut rig = Rig::new();
    rig.send(UPLINK, &Build::inward().frame());
    let left = rig.left_by(WORKLOAD);
    assert_eq!(left[..6], neighbor_mac(WORKLOAD).0);
    assert_eq!(left[22], 63);
    rig.audit();
}

#[test]
fn what_is_for_the_host_or_from_it_keeps_its_ttl() {
    let mut rig = Rig::new();
    rig.send(WORKLOAD, &echo("172.18.0.1", 1));
    assert_eq!(rig.left_by(HOST)[22], 1);
    rig.send(HOST, &Build::packet(HOST, "172.18.0.1", "10.65.0.2").ttl(1).frame());
    assert_eq!(rig.left_by(WORKLOAD)[22], 1);
}

#[test]
fn padding_after_a_short_packet_does_no_harm() {
    let mut rig = Rig::new();
    let mut frame = Build::outward().payload(1).frame();
    frame.resize(60, 0);
    rig.send(WORKLOAD, &frame);
    assert_eq!(rig.left_by(UPLINK).len(), 60);
}

#[test]
fn flows_spread_over_equal_next_hops_and_each_keeps_to_one() {
    let mut rig = Rig::new();
    let mut used = BTreeSet::new();
    for sport in 0..64 {
        let frame = Build::outward().to("10.71.0.1").sport(sport).frame();
        let mut ways = BTreeSet::new();
        for _ in 0..3 {
            rig.send(WORKLOAD, &frame);
            ways.extend([UPLINK, NARROW].into_iter().filter(|port| rig.wire(*port).receive().is_some()));
        }
        assert_eq!(ways.len(), 1, "one flow, one next hop");
        used.extend(ways);
    }
    assert_eq!(used.len(), 2, "64 flows use both next hops");
}

#[test]
fn a_packet_of_the_slow_path_is_sent_as_it_is_or_routed() {
    let mut rig = Rig::new();
    let frame = Build::inward().frame();
    rig.inject.push(Inject::Transmit(NARROW), &frame).unwrap();
    let moved = rig.run();
    assert_eq!((moved.received(), moved.injected(), moved.forwarded()), (0, 1, 1));
    assert_eq!(rig.left_by(NARROW), frame);
    rig.inject.push(Inject::Walk, &frame).unwrap();
    rig.run();
    let left = rig.left_by(WORKLOAD);
    assert_eq!((&left[..6], left[22]), (&neighbor_mac(WORKLOAD).0[..], 64));
    rig.audit();
}

#[test]
fn a_published_change_is_in_force_with_the_next_batch() {
    let mut rig = Rig::new();
    rig.send(UPLINK, &Build::inward().frame());
    rig.left_by(WORKLOAD);
    rig.writer.remove_route(support::prefix("10.65.0.2/32"));
    let moved = rig.send(UPLINK, &Build::inward().frame());
    assert_eq!(moved.drops(), [("blackhole", 1)], "the block's blackhole is what is left");
}

#[test]
fn a_long_run_loses_no_frame() {
    let mut rig = Rig::new();
    for round in 0..2_000u16 {
        for _ in 0..40 {
            rig.wire(WORKLOAD).send(&Build::outward().sport(round).frame());
            rig.wire(UPLINK).send(&Build::inward().sport(round).frame());
        }
        rig.run();
        while rig.wire(UPLINK).receive().is_some() {}
        while rig.wire(WORKLOAD).receive().is_some() {}
    }
    let books = rig.counters.books();
    assert_eq!((books.received, books.forwarded), (160_000, 160_000));
    rig.audit();
}

#[test]
fn the_fragments_of_a_datagram_take_one_way() {
    let mut rig = Rig::new();
    for sport in 0..32 {
        let mut first = Build::outward().to("10.71.0.1").sport(sport).fragmentable().frame();
        let mut later = first.clone();
        for (frame, fragment) in [(&mut first, [0x20, 0x00]), (&mut later, [0x00, 0x05])] {
            frame[20..22].copy_from_slice(&fragment);
            frame[24..26].fill(0);
            let checksum = checksum::of(&frame[14..34]);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        let mut ways = BTreeSet::new();
        for frame in [first, later] {
            rig.send(WORKLOAD, &frame);
            ways.extend([UPLINK, NARROW].into_iter().filter(|port| rig.wire(*port).receive().is_some()));
        }
        assert_eq!(ways.len(), 1, "source port {sport}");
    }
}

proptest! {
    /// Whatever comes in by whatever port, it ends in exactly one fate and no frame is lost.
    #[test]
    fn any_bytes_end_in_one_fate(
        frames in prop::collection::vec(
            (0usize..5, any::<bool>(), prop::collection::vec(any::<u8>(), 1..200), any::<u16>()), 1..20)
    ) {
        let mut rig = Rig::new();
        for (port, ordinary, bytes, at) in frames {
            let port = support::PORTS[port];
            // Random bytes hardly get past the first check, so half of the frames are good ones with a few bytes
            // changed.
            let frame = if ordinary {
                let mut frame = Build::packet(port, "10.65.0.2", "10.65.1.2").frame();
                let at = usize::from(at) % frame.len();
                let end = (at + bytes.len().min(4)).min(frame.len());
                frame[at..end].copy_from_slice(&bytes[..end - at]);
                frame
            } else {
                bytes
            };
            prop_assert!(rig.wire(port).send(&frame));
        }
        let moved = rig.run();
        let ends = moved.forwarded()
            + moved.punts().iter().chain(&moved.drops()).map(|(_, count)| count).sum::<u64>();
        prop_assert_eq!(moved.received(), ends);
        rig.audit();
    }
}
