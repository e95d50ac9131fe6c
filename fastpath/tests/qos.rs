//! Limits and DSCPs of endpoints, in time that the tests make.

mod support;

use std::sync::Arc;

use fastpath::Worker;
use model::{PortId, QosControls, QosDirection, WorkerId};
use proptest::prelude::*;
use quanta::{Clock, Mock};
use support::{
    Build, FAR_END, HOST, NARROW, OUR_END, PORTS, Parts, Rig, Sizes, UPLINK, VNI, WORKLOAD, arp_request,
    fill, limits, port, worker,
};
use tables::{Counters, DropReason, Flows, Nat, NatRules, Qos, Writer};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

/// Gives the workload these controls; what was before them goes on.
fn control(writer: &mut Writer, controls: QosControls) {
    let before = writer.staged().ports.get(WORKLOAD).and_then(|port| port.endpoint.as_ref()?.qos.clone());
    let mut changed = port(WORKLOAD);
    changed.endpoint.as_mut().unwrap().qos = Qos::new(&controls, 1500, before.as_deref());
    writer.put_port(changed).unwrap();
    writer.publish();
}

fn rig(controls: QosControls) -> (Rig, Arc<Mock>) {
    let mut rig = Rig::new();
    control(&mut rig.writer, controls);
    let (clock, time) = Clock::mock();
    time.increment(5 * SECOND);
    rig.worker.set_clock(clock);
    (rig, time)
}

fn egress(egress: QosDirection) -> QosControls {
    QosControls { egress, ..QosControls::default() }
}

fn ingress(ingress: QosDirection) -> QosControls {
    QosControls { ingress, ..QosControls::default() }
}

fn packets(rate: u64) -> QosDirection {
    QosDirection { packet_rate: Some(rate), ..QosDirection::default() }
}

/// 8 Mbit/s are a megabyte a second; the bucket holds 25 ms of it besides what is asked for.
fn a_megabyte_a_second(burst_bytes: u64) -> QosDirection {
    QosDirection { bandwidth: Some(8_000_000), burst: Some(8 * burst_bytes), ..QosDirection::default() }
}

/// Sends frames until time is up, takes what leaves off the wires, and says how many bytes left by a port.
fn flood(rig: &mut Rig, time: &Mock, frame: &[u8], from: PortId, to: PortId, rounds: u64, gap: u64) -> u64 {
    let mut bytes = 0;
    for _ in 0..rounds {
        for _ in 0..32 {
            assert!(rig.wire(from).send(frame));
        }
        rig.run();
        while let Some(frame) = rig.wire(to).receive() {
            bytes += frame.len() as u64;
        }
        time.increment(gap);
    }
    bytes
}

#[test]
fn each_limit_drops_with_its_own_reason_and_moves_its_counter_alone() {
    let narrow = QosDirection { bandwidth: Some(1_000), burst: Some(1_000), ..QosDirection::default() };
    let large = |build: Build| build.payload(1_400).frame();
    for (reason, controls, from, frame, passed) in [
        (DropReason::EgressPacketRate, egress(packets(1)), WORKLOAD, Build::outward().frame(), 5),
        (DropReason::EgressBandwidth, egress(narrow), WORKLOAD, large(Build::outward()), 1),
        (DropReason::IngressPacketRate, ingress(packets(1)), UPLINK, Build::inward().frame(), 5),
        (DropReason::IngressBandwidth, ingress(narrow), UPLINK, large(Build::inward()), 1),
    ] {
        let (mut rig, _) = rig(controls);
        for _ in 0..8 {
            assert!(rig.wire(from).send(&frame));
        }
        let moved = rig.run();
        assert_eq!(moved.drops(), [(reason.as_str(), 8 - passed)], "{reason}");
        assert_eq!((moved.received(), moved.forwarded()), (8, passed), "{reason}");
        assert_eq!(rig.counters.port(from).dropped_packets, 8 - passed, "{reason}");
        rig.audit();
    }
}

#[test]
fn a_bandwidth_is_kept_to_in_both_directions() {
    let controls =
        QosControls { ingress: a_megabyte_a_second(10_000), egress: a_megabyte_a_second(10_000), dscp: None };
    // Four times as much as the limit: 32 frames of 1,042 bytes every 8 ms.
    let allowed = 1_000_000 * 2 + 10_000 + 25_000;
    for (from, to, frame) in [(WORKLOAD, UPLINK, Build::outward()), (UPLINK, WORKLOAD, Build::inward())] {
        let (mut rig, time) = rig(controls);
        let frame = frame.payload(1_000).frame();
        let bytes = flood(&mut rig, &time, &frame, from, to, 250, 8 * MILLISECOND);
        // The last round's time has passed unused.
        assert!(
            bytes <= allowed && bytes >= allowed - 8_000 - 1_042,
            "{bytes} of {allowed} bytes from {from}"
        );
        rig.audit();
    }
}

#[test]
fn what_a_workload_may_get_is_counted_without_its_tunnel_and_what_it_may_send_before_it() {
    let inside = Build::inward().payload(400);
    let (mut rig, _) = rig(ingress(a_megabyte_a_second(1_514)));
    // 1,514 bytes and 25 ms: 26,514, which are 59 frames of 442 bytes, and 53 of 492 with the tunnel's header.
    for _ in 0..64 {
        assert!(rig.wire(UPLINK).send(&inside.in_vxlan(FAR_END, OUR_END, VNI)));
    }
    assert_eq!(rig.run().forwarded(), 59);
    let (mut rig, _) = self::rig(egress(a_megabyte_a_second(1_514)));
    for _ in 0..64 {
        assert!(rig.wire(WORKLOAD).send(&Build::outward().to("10.73.0.1").payload(400).frame()));
    }
    assert_eq!(rig.run().forwarded(), 59);
}

#[test]
fn limits_are_the_endpoints_own_and_leave_arp_alone() {
    let (mut rig, _) = rig(egress(packets(1)));
    for _ in 0..8 {
        assert!(rig.wire(WORKLOAD).send(&arp_request()));
        assert!(rig.wire(NARROW).send(&Build::packet(NARROW, "10.69.0.1", "10.65.0.2").frame()));
        assert!(rig.wire(UPLINK).send(&Build::inward().frame()));
    }
    let moved = rig.run();
    assert_eq!((moved.drops(), moved.punts(), moved.forwarded()), (vec![], vec![("arp", 8)], 16));
}

#[test]
fn a_changed_limit_holds_from_the_next_batch_on_and_a_removed_one_no_more() {
    let (mut rig, time) = rig(egress(packets(1_000)));
    let send = |rig: &mut Rig, count: usize| {
        for _ in 0..count {
            assert!(rig.wire(WORKLOAD).send(&Build::outward().frame()));
        }
        let forwarded = rig.run().forwarded();
        while rig.wire(UPLINK).receive().is_some() {}
        forwarded
    };
    assert_eq!(send(&mut rig, 20), 5);
    control(&mut rig.writer, egress(packets(2_000)));
    assert_eq!(send(&mut rig, 20), 0, "a change is no new burst");
    time.increment(2 * MILLISECOND);
    assert_eq!(send(&mut rig, 20), 4);
    control(&mut rig.writer, QosControls::default());
    assert_eq!(send(&mut rig, 20), 20);
    assert!(!rig.writer.staged().ports.qos_use().egress, "nothing to look at any more");
}

/// One endpoint's packets come in by two workers' queues, and both draw from its buckets.
#[test]
fn two_workers_together_keep_to_an_endpoints_limit() {
    let mut writer = Writer::new(limits(2));
    fill(&mut writer);
    let controls =
        QosControls { egress: a_megabyte_a_second(10_000), ingress: a_megabyte_a_second(10_000), dscp: None };
    control(&mut writer, controls);
    let counters = Counters::new(2, 16);
    let flows = Flows::new(64);
    let (clock, time) = Clock::mock();
    time.increment(5 * SECOND);
    let mut make = |id: u16, handoffs| -> (Worker, Parts) {
        let sizes = Sizes::default();
        let (mut worker, parts) =
            worker(&mut writer, WorkerId(id), (counters.clone(), flows.clone()), handoffs, &PORTS, sizes);
        worker.set_clock(clock.clone());
        (worker, parts)
    };
    let mut ends = fastpath::handoffs(2, 64, 2048).into_iter();
    let mut workers = [make(0, ends.next().unwrap()), make(1, ends.next().unwrap())];
    let mut left = [0; 2];
    for _ in 0..250 {
        for (worker, parts) in &mut workers {
            for _ in 0..16 {
                assert!(parts.wires[WORKLOAD.index()].send(&Build::outward().payload(1_000).frame()));
                assert!(parts.wires[UPLINK.index()].send(&Build::inward().payload(1_000).frame()));
            }
            while worker.round() > 0 {}
            for (sum, port) in left.iter_mut().zip([UPLINK, WORKLOAD]) {
                while let Some(frame) = parts.wires[port.index()].receive() {
                    *sum += frame.len() as u64;
                }
            }
        }
        time.increment(8 * MILLISECOND);
    }
    let allowed = 1_000_000 * 2 + 10_000 + 25_000;
    for bytes in left {
        assert!(bytes <= allowed && bytes >= allowed - 8_000 - 2 * 1_042, "{bytes} of {allowed} bytes");
    }
    assert!(counters.books().balance());
}

fn marked(dscp: u8) -> QosControls {
    QosControls { dscp: Some(dscp), ..QosControls::default() }
}

fn tos(frame: &[u8]) -> u8 {
    match frame[14] >> 4 {
        4 => frame[15],
        _ => frame[14] << 4 | frame[15] >> 4,
    }
}

#[test]
fn packets_from_the_workload_leave_the_node_with_its_dscp_and_others_with_their_own() {
    for (from, to, frame, expected) in [
        (WORKLOAD, UPLINK, Build::outward(), 46 << 2),
        (WORKLOAD, UPLINK, Build::packet(WORKLOAD, "fd65::2", "fd65:1::2"), 46 << 2),
        (WORKLOAD, HOST, Build::outward().to("172.18.0.1"), 0),
        (UPLINK, WORKLOAD, Build::inward(), 0),
    ] {
        let (mut rig, _) = rig(marked(46));
        let moved = rig.send(from, &frame.frame());
        assert_eq!((moved.forwarded(), moved.drops()), (1, vec![]));
        assert_eq!(tos(&rig.left_by(to)), expected, "{from} to {to}");
        rig.audit();
    }
}

#[test]
fn packets_to_a_pool_stay_in_the_cluster_and_keep_their_dscp() {
    let pools = ["10.65.0.0/16", "fd65:1::/64"].map(|cidr| cidr.parse().unwrap()).to_vec();
    for frame in [Build::outward(), Build::packet(WORKLOAD, "fd65::2", "fd65:1::2")] {
        for (pools, expected) in [(Vec::new(), 46 << 2), (pools.clone(), 0)] {
            let (mut rig, _) = rig(marked(46));
            rig.writer.set_nat(Nat::new(&NatRules { pools, ..NatRules::default() }));
            rig.writer.publish();
            rig.send(WORKLOAD, &frame.frame());
            assert_eq!(tos(&rig.left_by(UPLINK)), expected);
            rig.audit();
        }
    }
}

#[test]
fn in_a_tunnel_the_packet_is_marked_and_the_tunnels_header_is_not() {
    let (mut rig, _) = rig(marked(10));
    rig.send(WORKLOAD, &Build::outward().to("10.73.0.1").frame());
    let frame = rig.left_by(UPLINK);
    assert_eq!(tos(&frame), 0);
    assert_eq!(tos(&frame[50..]), 10 << 2);
    assert!(packet::ipv4::Packet::new_checked(&frame[64..]).is_ok());
}

proptest! {
    /// ECN stays, the checksum is right, and nothing else is written.
    #[test]
    fn of_a_marked_packet_only_the_dscp_differs(dscp in 0u8..64, tos in any::<u8>()) {
        let mut frame = Build::outward().frame();
        frame[15] = tos;
        frame[24..26].fill(0);
        let checksum = packet::checksum::of(&frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        let mut plain = Rig::new();
        plain.send(WORKLOAD, &frame);
        let plain = plain.left_by(UPLINK);
        let (mut rig, _) = rig(marked(dscp));
        rig.send(WORKLOAD, &frame);
        let mut left = rig.left_by(UPLINK);
        prop_assert!(packet::ipv4::Packet::new_checked(&left[14..]).is_ok());
        prop_assert_eq!(left[15], dscp << 2 | tos & 0b11);
        left[15] = plain[15];
        left[24..26].copy_from_slice(&plain[24..26]);
        prop_assert_eq!(left, plain);
    }
}
