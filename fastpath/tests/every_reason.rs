//! Every reason for a punt or a drop is made to happen, and nothing but its counter moves (ARCHITECTURE.md, D6).
//!
//! The two `match`es name every reason, so that a new one doesn't compile before it has its case here.

mod support;

use model::{PortId, ReversePath, WorkerId};
use support::policed::{
    SYN, Talk, allow, deny, drop_to_host, drop_to_host_but_dhcp_and_dns, forward, limit_connections, police,
    police_host, tell_denied,
};
use support::translation::{
    self, OUTER, POD, SERVER, error_frame, fragments, icmp_frame, outward, tcp_frame, translating,
};
use support::{
    Build, FAR_END, HOST, NARROW, OUR_END, PORTS, Rig, SEGMENT, STRANGER, Sizes, UPLINK, VNI, WORKLOAD,
    arp_request, dhcp_request, fill, in_ipip, in_vxlan, limits, mac, mend_ipv4_checksum,
    neighbor_solicitation, with_options, worker,
};
use tables::{Counters, DropReason, Flows, NatRules, PuntReason, Writer};

fn punt_case(reason: PuntReason) -> (PortId, Vec<u8>) {
    match reason {
        PuntReason::Arp => (WORKLOAD, arp_request()),
        PuntReason::NeighborDiscovery => (WORKLOAD, neighbor_solicitation()),
        PuntReason::InsideSegment => (UPLINK, in_vxlan(&arp_request(), FAR_END, OUR_END, SEGMENT)),
        PuntReason::TtlExceeded => (WORKLOAD, Build::outward().ttl(1).frame()),
        PuntReason::NoRoute => (WORKLOAD, Build::outward().to("198.51.100.1").frame()),
        PuntReason::Unresolved => (WORKLOAD, Build::outward().to("10.67.0.1").frame()),
        PuntReason::TooBig => (WORKLOAD, Build::outward().to("10.69.0.1").payload(1000).frame()),
        PuntReason::Rejected => (WORKLOAD, Build::outward().to("10.76.0.1").frame()),
        PuntReason::Prohibited => (WORKLOAD, Build::outward().to("10.77.0.1").frame()),
        PuntReason::BadOption => (WORKLOAD, with_options(&Build::outward().frame(), &[7, 0, 0, 0])),
        PuntReason::BeyondScope => (UPLINK, Build::packet(UPLINK, "fe80::7", "fd65::2").frame()),
        PuntReason::Denied => (WORKLOAD, Talk::new(POD, OUTER).udp(WORKLOAD)),
        PuntReason::Dhcp => (WORKLOAD, dhcp_request("0.0.0.0", "255.255.255.255")),
        PuntReason::EgressConnections | PuntReason::IngressConnections => {
            let [_, second] = &to_itself()[..] else { unreachable!("two connections") };
            (WORKLOAD, second.clone())
        }
    }
}

/// What must be so for it, and packets that go before.
fn ready_for(reason: PuntReason, rig: &mut Rig) -> Vec<Vec<u8>> {
    match reason {
        PuntReason::EgressConnections => limit_connections(rig, Some(1), None),
        PuntReason::IngressConnections => limit_connections(rig, None, Some(1)),
        PuntReason::Denied => {
            tell_denied(rig);
            police(rig, None, Some(deny()));
            return Vec::new();
        }
        PuntReason::Dhcp => {
            drop_to_host_but_dhcp_and_dns(rig);
            return Vec::new();
        }
        _ => return Vec::new(),
    }
    to_itself()[..1].to_vec()
}

#[test]
fn every_punt_reason_happens_and_moves_its_counter_alone() {
    for reason in PuntReason::ALL {
        let mut rig = Rig::new();
        let (port, frame) = punt_case(*reason);
        for before in ready_for(*reason, &mut rig) {
            assert_eq!(rig.send(port, &before).forwarded(), 1, "{reason}");
        }
        let moved = rig.send(port, &frame);
        assert_eq!(moved.punts(), [(reason.as_str(), 1)], "{moved:?}");
        assert_eq!((moved.received(), moved.forwarded(), moved.drops()), (1, 0, vec![]), "{reason}");
        let punted = rig.punts.pop(|punt, bytes| (punt, bytes.to_vec())).expect("a copy came up");
        assert_eq!((punted.0.reason, punted.0.port), (*reason, Some(port)));
        assert_eq!(punted.1, frame, "the slow path sees the packet as it came");
        rig.audit();
    }
}

/// Changes an ordinary IPv4 frame by hand, below the checksum's notice unless the case is about the checksum.
fn patched(patch: impl Fn(&mut Vec<u8>)) -> (PortId, Vec<u8>) {
    let mut frame = Build::outward().frame();
    patch(&mut frame);
    (WORKLOAD, frame)
}

fn patched_v6(patch: impl Fn(&mut Vec<u8>)) -> (PortId, Vec<u8>) {
    let mut frame = Build::packet(WORKLOAD, "fd65::2", "fd65:1::2").frame();
    patch(&mut frame);
    (WORKLOAD, frame)
}

fn tagged() -> Vec<u8> {
    let mut frame = Build::outward().frame();
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    frame
}

/// How a reason is made to happen.
enum Case {
    /// With a policy, by the last of these frames from the workload.
    Policed(fn(&mut Rig), Vec<Vec<u8>>),
    /// By one frame.
    Frame(PortId, Vec<u8>),
    /// With rules of translation, by the last of these frames from the workload.
    Translated(NatRules, Sizes, Vec<Vec<u8>>),
    /// By more than that: in a test of its own.
    Elsewhere,
}

/// Two connections of the workload to itself.
fn to_itself() -> Vec<Vec<u8>> {
    [1, 2].map(|sport| Talk::new(POD, POD).ports(sport, 80).tcp(WORKLOAD, SYN)).to_vec()
}

/// The rules and frames for a reason of translation's.
fn translated(rules: NatRules, frames: Vec<Vec<u8>>) -> Case {
    Case::Translated(rules, Sizes::default(), frames)
}

fn drop_case(reason: DropReason) -> Case {
    let rules = translation::rules();
    let first_packets = |count| (1..=count).map(|sport| outward(sport).frame()).collect();
    let (port, frame) = match reason {
        DropReason::TooShort => (WORKLOAD, vec![0; 13]),
        DropReason::VlanTruncated => patched(|frame| {
            frame.truncate(15);
            frame[12..14].copy_from_slice(&[0x81, 0x00]);
        }),
        DropReason::ArpMalformed => {
            let mut frame = arp_request();
            frame.truncate(30);
            (WORKLOAD, frame)
        }
        DropReason::Ipv4HeaderTruncated => patched(|frame| frame.truncate(14 + 19)),
        DropReason::Ipv4BadVersion => patched(|frame| frame[14] = 0x65),
        DropReason::Ipv4BadHeaderLength => patched(|frame| frame[14] = 0x44),
        DropReason::Ipv4BadTotalLength => patched(|frame| frame[16] = 0xff),
        DropReason::Ipv4BadChecksum => patched(|frame| frame[24] ^= 0xff),
        DropReason::Ipv6HeaderTruncated => patched_v6(|frame| frame.truncate(14 + 39)),
        DropReason::Ipv6BadVersion => patched_v6(|frame| frame[14] = 0x50),
        DropReason::Ipv6BadPayloadLength => patched_v6(|frame| frame[18] = 0xff),
        // Hop-by-hop options whose length runs beyond the packet.
        DropReason::Ipv6BadExtension => patched_v6(|frame| {
            frame[20] = 0;
            frame[55] = 0xff;
        }),
        // Eight bytes of UDP called TCP, whose header takes twenty.
        DropReason::L4Truncated => {
            let mut frame = Build::outward().payload(0).frame();
            frame[23] = packet::protocol::TCP;
            mend_ipv4_checksum(&mut frame);
            (WORKLOAD, frame)
        }
        DropReason::UnknownEthertype => patched(|frame| frame[12..14].copy_from_slice(&[0x88, 0xcc])),
        DropReason::VlanTagged => (WORKLOAD, tagged()),
        DropReason::NotOurs => patched(|frame| frame[..6].copy_from_slice(&mac(HOST).0)),
        DropReason::Multicast => patched(|frame| frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1])),
        DropReason::Broadcast => patched(|frame| frame[..6].copy_from_slice(&[0xff; 6])),
        DropReason::DirectedBroadcast => (WORKLOAD, Build::outward().to("172.18.0.255").frame()),
        DropReason::LinkLocal => (WORKLOAD, Build::outward().to("169.254.1.1").frame()),
        DropReason::MartianSource => (UPLINK, Build::inward().source("127.0.0.1").frame()),
        DropReason::MartianDestination => (WORKLOAD, Build::outward().to("127.0.0.1").frame()),
        DropReason::UnknownEndpoint => (STRANGER, Build::packet(STRANGER, "10.65.0.3", "10.65.1.2").frame()),
        DropReason::SpoofedSource => (WORKLOAD, Build::outward().source("10.65.0.3").frame()),
        DropReason::UnknownTunnelSource => (UPLINK, Build::inward().in_ipip("172.18.0.77", OUR_END)),
        DropReason::UnknownVni => (UPLINK, Build::inward().in_vxlan(FAR_END, OUR_END, VNI + 1)),
        DropReason::TunnelMalformed => (UPLINK, in_vxlan(&arp_request(), FAR_END, OUR_END, VNI)),
        DropReason::TunnelNotOurs => {
            let mut frame = Build::inward().in_vxlan(FAR_END, OUR_END, VNI);
            frame[50 + 5] ^= 1;
            (UPLINK, frame)
        }
        DropReason::TunnelOwnSource => (UPLINK, Build::inward().source(OUR_END).in_ipip(FAR_END, OUR_END)),
        DropReason::TunnelFragment => {
            let mut frame = Build::inward().in_ipip(FAR_END, OUR_END);
            frame[20] = 0x20;
            mend_ipv4_checksum(&mut frame);
            (UPLINK, frame)
        }
        DropReason::TunnelNested => {
            (UPLINK, in_ipip(&Build::inward().in_ipip(FAR_END, OUR_END), FAR_END, OUR_END))
        }
        // Congestion experienced outside, and a transport without ECN inside.
        DropReason::TunnelCongested => {
            let mut frame = Build::inward().in_ipip(FAR_END, OUR_END);
            frame[15] |= 0b11;
            mend_ipv4_checksum(&mut frame);
            (UPLINK, frame)
        }
        DropReason::TunnelFromWorkload => (WORKLOAD, Build::outward().dport(4789).frame()),
        DropReason::TunnelFamily => (WORKLOAD, Build::packet(WORKLOAD, "fd65::2", "fd72::1").frame()),
        DropReason::Blackhole => (UPLINK, Build::inward().to("10.65.0.9").frame()),
        // The last piece would end beyond the largest datagram there is.
        DropReason::NeedsFragmentation => {
            let mut frame = Build::outward().to("10.69.0.1").payload(1000).fragmentable().frame();
            frame[20..22].copy_from_slice(&[0x1f, 0xff]);
            mend_ipv4_checksum(&mut frame);
            (WORKLOAD, frame)
        }
        DropReason::SourceRouted => {
            (WORKLOAD, with_options(&Build::outward().frame(), &[131, 7, 4, 10, 65, 1, 3, 0]))
        }
        DropReason::PortDown => (WORKLOAD, Build::outward().to("10.66.0.1").frame()),
        DropReason::NatPortsExhausted => {
            let outgoing = vec![(OUTER.parse().unwrap(), 50_000..=50_001, true)];
            return translated(NatRules { outgoing, ..rules }, first_packets(3));
        }
        DropReason::NatShareExhausted => {
            let sizes = Sizes { ports_per_address: 2, ..Sizes::default() };
            return Case::Translated(rules, sizes, first_packets(3));
        }
        // One row for the sender's ports, one for this port, and none for the flow.
        DropReason::FlowTableFull => {
            return Case::Translated(rules, Sizes { flows: 2, ..Sizes::default() }, first_packets(1));
        }
        // A reset.
        DropReason::NatInvalid => return translated(rules, vec![tcp_frame(0x04, 1000)]),
        DropReason::NatUnsupported => {
            return translated(NatRules { outgoing: vec![], ..rules }, first_packets(1));
        }
        DropReason::IcmpErrorMalformed => {
            let mut error = error_frame(WORKLOAD, POD, &Build::packet(UPLINK, SERVER, POD).frame());
            error[42] = 0x46 - 0x20;
            return translated(rules, vec![icmp_frame(WORKLOAD, POD, SERVER, &error[34..])]);
        }
        DropReason::FragmentUnknown => {
            let [_, later] = fragments(&outward(1).fragmentable().payload(40).frame(), 5);
            return translated(rules, vec![later]);
        }
        DropReason::EgressDenied => {
            return Case::Policed(|rig| police(rig, Some(allow()), Some(deny())), vec![Build::outward().frame()]);
        }
        // To itself: its own packets come back.
        DropReason::IngressDenied => {
            return Case::Policed(
                |rig| police(rig, Some(deny()), Some(allow())),
                vec![Build::outward().to(POD).frame()],
            );
        }
        DropReason::ForwardDenied => {
            return Case::Policed(|rig| police_host(rig, UPLINK, forward(None, Some(deny()))), vec![Build::outward().frame()]);
        }
        DropReason::WorkloadToHost => {
            return Case::Policed(drop_to_host, vec![Build::outward().to(OUTER).dport(80).frame()]);
        }
        // A reset.
        DropReason::FlowInvalid => {
            return Case::Policed(|rig| police(rig, None, Some(allow())), vec![tcp_frame(0x04, 1000)]);
        }
        DropReason::NoReversePath
        | DropReason::ReversePathElsewhere
        | DropReason::NotReady
        | DropReason::TransmitRingFull
        | DropReason::HandoffRingFull
        | DropReason::PuntRingFull
        // `fairness.rs`: a ring that is nearly full.
        | DropReason::OverFairShare
        // `qos.rs`: limits are exceeded by more than one frame.
        | DropReason::EgressPacketRate
        | DropReason::EgressBandwidth
        | DropReason::IngressPacketRate
        | DropReason::IngressBandwidth => return Case::Elsewhere,
    };
    Case::Frame(port, frame)
}

#[test]
fn every_drop_reason_happens_and_moves_its_counter_alone() {
    for reason in DropReason::ALL {
        let (mut rig, port, before, frame) = match drop_case(*reason) {
            Case::Frame(port, frame) => (Rig::new(), port, vec![], frame),
            Case::Translated(rules, sizes, mut frames) => {
                let last = frames.pop().expect("a frame to drop");
                (translating(&rules, sizes), WORKLOAD, frames, last)
            }
            Case::Policed(police, mut frames) => {
                let mut rig = Rig::new();
                police(&mut rig);
                let last = frames.pop().expect("a frame to drop");
                (rig, WORKLOAD, frames, last)
            }
            Case::Elsewhere => continue,
        };
        for before in before {
            assert_eq!(rig.send(port, &before).forwarded(), 1, "{reason}");
        }
        let moved = rig.send(port, &frame);
        assert_eq!(moved.drops(), [(reason.as_str(), 1)], "{reason}: {moved:?}");
        assert_eq!((moved.received(), moved.forwarded(), moved.punts()), (1, 0, vec![]), "{reason}");
        assert_eq!(rig.counters.port(port).dropped_packets, 1, "{reason}");
        rig.audit();
    }
}

#[test]
fn nothing_is_forwarded_before_the_tables_are_ready() {
    let mut rig = Rig::new();
    rig.writer.set_ready(false);
    rig.writer.publish();
    let moved = rig.send(WORKLOAD, &Build::outward().frame());
    assert_eq!(moved.drops(), [(DropReason::NotReady.as_str(), 1)]);
    rig.audit();
}

#[test]
fn sources_are_held_to_the_routes_where_asked_for() {
    let mut rig = Rig::new();
    let (nowhere, elsewhere) = (Build::inward().source("198.51.100.1"), Build::inward().source("10.69.0.1"));
    for (reverse_path, frame, dropped) in [
        (ReversePath::Disabled, &nowhere, None),
        (ReversePath::Loose, &nowhere, Some(DropReason::NoReversePath)),
        (ReversePath::Loose, &elsewhere, None),
        (ReversePath::Strict, &nowhere, Some(DropReason::NoReversePath)),
        (ReversePath::Strict, &elsewhere, Some(DropReason::ReversePathElsewhere)),
    ] {
        rig.writer.set_reverse_path(reverse_path);
        rig.writer.publish();
        let moved = rig.send(UPLINK, &frame.frame());
        let expected: Vec<_> = dropped.iter().map(|reason| (reason.as_str(), 1)).collect();
        assert_eq!(moved.drops(), expected, "{reverse_path:?}");
    }
}

#[test]
fn a_packet_to_a_workload_port_without_endpoint_is_dropped() {
    let mut rig = Rig::new();
    let moved = rig.send(UPLINK, &Build::inward().to("10.70.0.1").frame());
    assert_eq!(moved.drops(), [(DropReason::UnknownEndpoint.as_str(), 1)]);
}

#[test]
fn frames_beyond_a_full_transmit_ring_are_dropped_and_counted() {
    // A larger ring keeps a slot for whoever comes next.
    let mut rig = Rig::sized(Sizes { wire_slots: 4, ..Sizes::default() });
    for _ in 0..2 {
        for _ in 0..3 {
            assert!(rig.wire(WORKLOAD).send(&Build::outward().frame()));
        }
        rig.run();
    }
    let books = rig.counters.books();
    assert_eq!((books.forwarded, books.drops[DropReason::TransmitRingFull.index()]), (4, 2));
    rig.audit();
}

#[test]
fn packets_beyond_a_full_punt_ring_are_dropped_and_counted() {
    let mut rig = Rig::sized(Sizes { punt_slots: 2, ..Sizes::default() });
    for _ in 0..5 {
        assert!(rig.wire(WORKLOAD).send(&arp_request()));
    }
    let moved = rig.run();
    assert_eq!(moved.punts(), [(PuntReason::Arp.as_str(), 2)]);
    assert_eq!(moved.drops(), [(DropReason::PuntRingFull.as_str(), 3)]);
    rig.audit();
}

/// Worker 0 has the workload's queue, worker 1 the uplink's: what leaves crosses a ring of two.
#[test]
fn frames_for_another_workers_queue_cross_a_bounded_ring() {
    let mut writer = Writer::new(limits(2));
    fill(&mut writer);
    let counters = Counters::new(2, 16);
    let flows = Flows::new(64);
    let shared = || (counters.clone(), flows.clone());
    let mut ends = fastpath::handoffs(2, 2, 2048);
    let (second_ends, first_ends) = (ends.remove(1), ends.remove(0));
    let others: Vec<PortId> = PORTS.into_iter().filter(|port| *port != NARROW).collect();
    // The tables say that every port has one queue, which is worker 0's: so worker 1 is the one that hands over.
    let sizes = Sizes::default();
    let (mut owner, owned) = worker(&mut writer, WorkerId(0), shared(), first_ends, &others, sizes);
    let (mut other, unowned) = worker(&mut writer, WorkerId(1), shared(), second_ends, &[NARROW], sizes);
    for _ in 0..3 {
        assert!(unowned.wires[0].send(&Build::packet(NARROW, "10.69.0.1", "10.65.1.2").frame()));
    }
    other.round();
    assert_eq!(counters.books().drops[DropReason::HandoffRingFull.index()], 1);
    owner.round();
    let books = counters.books();
    assert_eq!((books.received, books.forwarded), (3, 2));
    assert!(books.balance(), "{books:?}");
    assert_eq!((0..3).filter(|_| owned.wires[0].receive().is_some()).count(), 2);
}
