//! VXLAN segments that are learned about: who asks and tells inside goes up whole, from those alone who may send here.

mod support;

use support::{
    Build, FAR_END, FAR_END_V6, GROUP, GROUP_V6, HOST, OUR_END, OUR_END_V6, Rig, SEGMENT, UPLINK, VNI, VTEP,
    WORKLOAD, arp_request, in_vxlan, neighbor_solicitation, to_group,
};
use tables::PuntReason;

const INSIDE: &str = "inside_segment";

/// Packets of the segment to our own address and to the groups, over both families.
fn carried(inner: &[u8]) -> [Vec<u8>; 4] {
    [
        in_vxlan(inner, FAR_END, OUR_END, SEGMENT),
        to_group(in_vxlan(inner, FAR_END, GROUP, SEGMENT)),
        in_vxlan(inner, FAR_END_V6, OUR_END_V6, SEGMENT),
        to_group(in_vxlan(inner, FAR_END_V6, GROUP_V6, SEGMENT)),
    ]
}

#[test]
fn arp_and_neighbour_discovery_inside_go_up_with_their_outer_headers() {
    for inner in [arp_request(), neighbor_solicitation()] {
        for frame in carried(&inner) {
            let mut rig = Rig::new();
            let moved = rig.send(UPLINK, &frame);
            assert_eq!((moved.punts(), moved.drops()), (vec![(INSIDE, 1)], vec![]));
            let (punt, bytes) = rig.punts.pop(|punt, bytes| (punt, bytes.to_vec())).unwrap();
            assert_eq!((punt.reason, punt.port), (PuntReason::InsideSegment, Some(UPLINK)));
            assert_eq!(bytes, frame);
            rig.audit();
        }
    }
}

#[test]
fn packets_for_our_station_are_opened_whichever_address_they_came_to() {
    for frame in carried(&Build::inward().frame()) {
        let mut rig = Rig::new();
        assert_eq!(rig.send(UPLINK, &frame).forwarded(), 1);
        assert_eq!(rig.left_by(WORKLOAD)[26..], Build::inward().frame()[26..]);
        rig.audit();
    }
}

#[test]
fn a_strangers_question_never_goes_up() {
    for inner in [arp_request(), neighbor_solicitation()] {
        for frame in [
            in_vxlan(&inner, "172.18.0.77", OUR_END, SEGMENT),
            to_group(in_vxlan(&inner, "172.18.0.77", GROUP, SEGMENT)),
            in_vxlan(&inner, "fd18:4::3", OUR_END_V6, SEGMENT),
            to_group(in_vxlan(&inner, "fd18:4::3", GROUP_V6, SEGMENT)),
        ] {
            let mut rig = Rig::new();
            let moved = rig.send(UPLINK, &frame);
            assert_eq!((moved.drops(), moved.punts()), (vec![("unknown_tunnel_source", 1)], vec![]));
        }
    }
}

/// The frame, with another destination inside.
fn addressed(mut frame: Vec<u8>, inner: &[u8], destination: [u8; 6]) -> Vec<u8> {
    let at = frame.len() - inner.len();
    frame[at..at + 6].copy_from_slice(&destination);
    frame
}

#[test]
fn a_question_to_everybody_goes_up_and_nothing_else_that_is_not_for_our_station() {
    let (question, packet) = (arp_request(), Build::inward().frame());
    for (question, packet) in carried(&question).into_iter().zip(carried(&packet)) {
        for destination in [[0xff; 6], [0x33, 0x33, 0xff, 0, 0, 1], [2, 0, 0, 0, 9, 9]] {
            let mut rig = Rig::new();
            let moved = rig.send(UPLINK, &addressed(question.clone(), &arp_request(), destination));
            assert_eq!(moved.punts(), [(INSIDE, 1)]);
            let moved = rig.send(UPLINK, &addressed(packet.clone(), &Build::inward().frame(), destination));
            assert_eq!((moved.drops(), moved.punts()), (vec![("tunnel_not_ours", 1)], vec![]));
        }
    }
}

/// Calico's own networks have their neighbours from the datastore.
#[test]
fn where_nothing_is_resolved_inside_nothing_goes_up() {
    let mut rig = Rig::new();
    let moved = rig.send(UPLINK, &in_vxlan(&arp_request(), FAR_END, OUR_END, VNI));
    assert_eq!((moved.drops(), moved.punts()), (vec![("tunnel_malformed", 1)], vec![]));
}

#[test]
fn a_group_is_a_tunnels_on_uplinks_and_for_its_tunnels_alone() {
    let mut rig = Rig::new();
    let of_group = |build: Build| to_group(build.to(GROUP).frame());
    for (port, frame, reason) in [
        // Another port of the group's, another group, and a workload's own packet to the group.
        (UPLINK, of_group(Build::inward()), "multicast"),
        (UPLINK, to_group(in_vxlan(&arp_request(), FAR_END, "239.1.1.2", SEGMENT)), "multicast"),
        (WORKLOAD, of_group(Build::outward()), "multicast"),
        (UPLINK, to_group(in_vxlan(&arp_request(), FAR_END, GROUP, SEGMENT + 1)), "unknown_vni"),
    ] {
        assert_eq!(rig.send(port, &frame).drops(), [(reason, 1)]);
    }
    rig.audit();
}

#[test]
fn a_question_without_a_whole_header_inside_goes_up_or_ends_and_nothing_worse() {
    let whole = in_vxlan(&arp_request(), FAR_END, OUR_END, SEGMENT);
    assert_eq!(whole[50..56], VTEP.0);
    for len in 14 + 20 + 8..whole.len() {
        let mut frame = whole[..len].to_vec();
        frame[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
        frame[38..40].copy_from_slice(&(len as u16 - 34).to_be_bytes());
        support::mend_ipv4_checksum(&mut frame);
        let mut rig = Rig::new();
        let moved = rig.send(UPLINK, &frame);
        let ended: u64 = moved.drops().iter().chain(&moved.punts()).map(|(_, count)| count).sum();
        assert_eq!((ended, moved.forwarded()), (1, 0), "{len} bytes");
        assert!(rig.wire(HOST).receive().is_none());
        rig.audit();
    }
}
