//! Tunnels that begin and end here: what is written around a packet, what is taken off one, and what is refused.

mod support;

use std::collections::BTreeSet;

use model::MacAddr;
use packet::encapsulation::{Template, VXLAN_PORT};
use packet::{FlowKey, checksum, ecn};
use support::hostile::{fragment, patched, tunnel_packets};
use support::{
    Build, FAR_END, FAR_END_V6, GROUP, HOST, Moved, NARROW, OUR_END, OUR_END_V6, Rig, UPLINK, VNI, VTEP,
    WORKLOAD, assert_checksums, in_ipip, in_vxlan, mac, mend_ipv4_checksum, neighbor_mac, to_group,
};
use tables::{DropReason, PuntReason, WorkloadTunnels};

/// Sends a packet into a tunnel and gives back what left and, from `inner` on, what was inside.
fn through_tunnel(build: &Build, inner: usize) -> (Vec<u8>, Vec<u8>) {
    let mut rig = Rig::new();
    let moved = rig.send(WORKLOAD, &build.frame());
    assert_eq!(moved.forwarded(), 1, "{moved:?}");
    let left = rig.left_by(UPLINK);
    assert_eq!(left[..6], neighbor_mac(UPLINK).0);
    let outer = packet::parse(&left).expect("the outer header's checksum is right");
    let ends = match outer.ipv4_source(&left).zip(outer.ipv4_destination(&left)) {
        Some((source, destination)) => (source.to_string(), destination.to_string()),
        None => {
            let ends = outer.ipv6_source(&left).zip(outer.ipv6_destination(&left)).unwrap();
            (ends.0.to_string(), ends.1.to_string())
        }
    };
    let over_v4 = (OUR_END.to_owned(), FAR_END.to_owned());
    let over_v6 = (OUR_END_V6.to_owned(), FAR_END_V6.to_owned());
    assert!(ends == over_v4 || ends == over_v6, "{ends:?}");
    assert_eq!(outer.l3_end(), left.len());
    rig.audit();
    (left.clone(), left[inner..].to_vec())
}

#[test]
fn a_packet_leaves_in_ipip_as_it_came_but_for_a_lower_ttl() {
    let sent = Build::outward().to("10.72.0.1");
    let (left, mut inner) = through_tunnel(&sent, 34);
    assert_eq!(left[23], packet::protocol::IPIP);
    let frame = sent.frame();
    assert_eq!((inner[8], frame[22]), (63, 64));
    (inner[8], inner[10], inner[11]) = (frame[22], frame[24], frame[25]);
    assert_eq!(inner, frame[14..]);
}

#[test]
fn a_packet_leaves_in_vxlan_and_its_flow_shows_in_the_outer_port() {
    for (to, udp) in [("10.73.0.1", 34), ("fd73::1", 34), ("10.74.0.1", 54), ("fd74::1", 54)] {
        let source = if to.contains(':') { "fd65::2" } else { "10.65.0.2" };
        let ports: BTreeSet<u16> = (0..16)
            .map(|sport| {
                let sent = Build::packet(WORKLOAD, source, to).sport(sport);
                let (left, inner) = through_tunnel(&sent, udp + 16);
                assert_eq!(packet::encapsulation::vni(&left[udp + 8..]), Some(VNI));
                assert_eq!(inner[6..12], VTEP.0);
                assert_checksums(&inner);
                assert_eq!(packet::parse(&inner).unwrap().ttl, 63);
                u16::from_be_bytes([left[udp], left[udp + 1]])
            })
            .collect();
        assert!(ports.len() > 8 && ports.iter().all(|port| *port >= 49_152), "{ports:?}");
    }
}

/// A Linux end drops VXLAN over IPv6 without a UDP checksum, and takes it over IPv4 only without a wrong one.
#[test]
fn vxlan_has_a_right_checksum_over_ipv6_and_none_over_ipv4() {
    for (to, udp, expected) in
        [("10.73.0.1", 34, checksum::L4Checksum::Absent), ("10.74.0.1", 54, checksum::L4Checksum::Correct)]
    {
        for payload in [0, 1, 31, 1350] {
            let (left, _) = through_tunnel(&Build::outward().to(to).payload(payload), udp);
            let outer = packet::parse(&left).unwrap();
            assert_eq!(checksum::verify_l4(&left, &outer), expected, "{payload} bytes to {to}");
        }
    }
}

#[test]
fn the_tunnels_header_counts_against_the_mtu() {
    let mut rig = Rig::new();
    let largest = 1500 - 20 - 28;
    let fits = Build::outward().to("10.72.0.1").payload(largest);
    assert_eq!(rig.send(WORKLOAD, &fits.frame()).forwarded(), 1);
    assert_eq!(rig.left_by(UPLINK).len(), 1514);
    let moved = rig.send(WORKLOAD, &fits.payload(largest + 1).frame());
    assert_eq!(moved.punts(), [(PuntReason::TooBig.as_str(), 1)]);
    assert_eq!(rig.punts.pop(|punt, _| punt.mtu), Some(1480));
}

/// A packet from another node's workload by each tunnel that ends here.
fn tunnelled(inner: &[u8]) -> [Vec<u8>; 3] {
    [
        in_ipip(inner, FAR_END, OUR_END),
        in_vxlan(inner, FAR_END, OUR_END, VNI),
        in_vxlan(inner, FAR_END_V6, OUR_END_V6, VNI),
    ]
}

#[test]
fn a_tunnels_packet_is_opened_and_what_is_inside_goes_on() {
    let inner = Build::inward().frame();
    for frame in tunnelled(&inner) {
        let mut rig = Rig::new();
        let moved = rig.send(UPLINK, &frame);
        assert_eq!(moved.forwarded(), 1, "{moved:?}");
        let left = rig.left_by(WORKLOAD);
        assert_checksums(&left);
        assert_eq!((left[22], left.len()), (63, inner.len()));
        assert_eq!(left[26..], inner[26..]);
        rig.audit();
    }
}

#[test]
fn ipv6_comes_out_of_vxlan_over_either_family() {
    let inner = Build::packet(UPLINK, "fd65:1::2", "fd65::2").frame();
    for frame in &tunnelled(&inner)[1..] {
        let mut rig = Rig::new();
        rig.send(UPLINK, frame);
        let left = rig.left_by(WORKLOAD);
        assert_checksums(&left);
        assert_eq!(left[22..], inner[22..]);
    }
}

#[test]
fn padding_and_what_follows_the_datagram_stay_outside() {
    let inner = Build::inward().frame();
    for mut frame in tunnelled(&inner) {
        frame.extend([0xee; 9]);
        let mut rig = Rig::new();
        rig.send(UPLINK, &frame);
        assert_eq!(rig.left_by(WORKLOAD).len(), inner.len());
    }
    // The IP packet goes on behind the UDP datagram.
    let mut frame = in_vxlan(&inner, FAR_END, OUR_END, VNI);
    frame.extend([0xee; 9]);
    let total = frame.len() as u16 - 14;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    mend_ipv4_checksum(&mut frame);
    let mut rig = Rig::new();
    rig.send(UPLINK, &frame);
    assert_eq!(rig.left_by(WORKLOAD).len(), inner.len());
}

/// RFC 6040 figure 4 through the whole walk, and DSCP inside as it was sent, whatever it is outside.
#[test]
fn congestion_met_outside_is_told_inside_and_dscp_is_left_alone() {
    for inner_field in 0..4u8 {
        for outer_field in 0..4u8 {
            let mut inner = Build::inward().frame();
            inner[15] = 0xb8 | inner_field;
            mend_ipv4_checksum(&mut inner);
            let mut inner_v6 = Build::packet(UPLINK, "fd65:1::2", "fd65::2").frame();
            inner_v6[14..16].copy_from_slice(&[0x6b, 0x80 | inner_field << 4]);
            let packets = tunnelled(&inner).into_iter().chain(tunnelled(&inner_v6).into_iter().skip(1));
            for mut frame in packets {
                ecn::set(&mut frame, 14, outer_field);
                frame[15] |= if frame[14] == 0x45 { 0x28 } else { 0x00 };
                if frame[14] == 0x45 {
                    mend_ipv4_checksum(&mut frame);
                }
                let mut rig = Rig::new();
                let moved = rig.send(UPLINK, &frame);
                match ecn::decapsulated(inner_field, outer_field) {
                    None => assert_eq!(moved.drops(), [(DropReason::TunnelCongested.as_str(), 1)]),
                    Some(expected) => {
                        let left = rig.left_by(WORKLOAD);
                        assert_checksums(&left);
                        assert_eq!(ecn::traffic_class(&left[14..]), 0xb8 | expected);
                    }
                }
            }
        }
    }
}

/// How one frame by the uplink ends.
fn fate(frame: &[u8]) -> Moved {
    let mut rig = Rig::new();
    let moved = rig.send(UPLINK, frame);
    rig.audit();
    moved
}

#[test]
fn hostile_tunnel_packets_end_in_a_fate_of_their_own() {
    for (name, frame, reason) in tunnel_packets() {
        let moved = fate(&frame);
        assert_eq!(moved.drops(), [(reason.as_str(), 1)], "{name}");
        assert_eq!((moved.forwarded(), moved.punts()), (0, vec![]), "{name}");
    }
}

/// The kernel takes its own addresses as sources from the host port, so it wouldn't refuse a forgery that was let through.
#[test]
fn a_datagram_longer_than_its_packet_and_a_network_of_another_address_are_refused() {
    let inner = Build::inward().frame();
    let mut longer = in_vxlan(&inner, FAR_END, OUR_END, VNI);
    longer[39] += 4;
    longer.extend([0; 4]);
    assert_eq!(fate(&longer).drops(), [(DropReason::TunnelMalformed.as_str(), 1)]);
    let elsewhere = to_group(in_vxlan(&inner, FAR_END, GROUP, VNI));
    assert_eq!(fate(&elsewhere).drops(), [(DropReason::UnknownVni.as_str(), 1)]);
}

#[test]
fn our_own_addresses_are_refused_as_sources_out_of_tunnels_and_only_there() {
    let mut rig = Rig::new();
    let ours = Build::inward().source(OUR_END);
    let frames = [
        ours.in_ipip(FAR_END, OUR_END),
        Build::inward().in_ipip(FAR_END, OUR_END),
        // What the reverse path's check is for, where it is asked for.
        ours.frame(),
        ours.in_vxlan(FAR_END, OUR_END, VNI),
        Build::inward().frame(),
    ];
    for frame in &frames {
        assert!(rig.wire(UPLINK).send(frame));
    }
    let moved = rig.run();
    assert_eq!((moved.forwarded(), moved.drops()), (3, vec![("tunnel_own_source", 2)]));
    rig.audit();
}

/// What is inside and isn't ours to open is transit like any other packet.
#[test]
fn a_tunnel_inside_ours_that_ends_elsewhere_goes_on_closed() {
    let through = Build::packet(UPLINK, "10.65.1.2", "10.65.0.2").in_ipip("10.65.1.9", "10.65.0.2");
    for frame in tunnelled(&through) {
        let mut rig = Rig::new();
        assert_eq!(rig.send(UPLINK, &frame).forwarded(), 1);
        let left = rig.left_by(WORKLOAD);
        assert_eq!((left[23], left.len()), (packet::protocol::IPIP, through.len()));
        assert_eq!(left[34..], through[34..]);
    }
}

#[test]
fn the_outer_ttl_ends_with_the_tunnel_and_the_inner_one_counts() {
    for mut frame in tunnelled(&Build::inward().frame()) {
        let at = if frame[14] == 0x45 { 22 } else { 21 };
        frame[at] = 1;
        if frame[14] == 0x45 {
            mend_ipv4_checksum(&mut frame);
        }
        assert_eq!(fate(&frame).forwarded(), 1, "the packet has arrived");
    }
    for frame in tunnelled(&Build::inward().ttl(1).frame()) {
        assert_eq!(fate(&frame).punts(), [(PuntReason::TtlExceeded.as_str(), 1)]);
    }
}

#[test]
fn what_is_not_a_tunnels_goes_on_as_it_came() {
    // Another port, another address, and a later fragment, which shows no port.
    let other_port = patched(Build::inward().in_vxlan(FAR_END, OUR_END, VNI), |frame| frame[36] ^= 1);
    let later = fragment(Build::inward().in_vxlan(FAR_END, OUR_END, VNI), 0x0010);
    for frame in [other_port, later] {
        let mut rig = Rig::new();
        assert_eq!(rig.send(UPLINK, &frame).forwarded(), 1);
        assert_eq!(rig.left_by(support::HOST)[14..], frame[14..], "the kernel's to answer");
    }
    let transit = Build::inward().in_ipip(FAR_END, "10.65.1.9");
    let mut rig = Rig::new();
    assert_eq!(rig.send(UPLINK, &transit).forwarded(), 1);
    assert_eq!(rig.left_by(UPLINK)[26..], transit[26..]);
}

/// A workload's own tunnel, or its forgery of one of ours: never opened, and carried only where Felix's settings allow.
#[test]
fn a_workloads_tunnel_packet_stays_closed() {
    let ours = Build::packet(WORKLOAD, "10.65.1.2", "10.65.0.2");
    let spoofed = ours.in_ipip(FAR_END, OUR_END);
    let ipip = ours.in_ipip("10.65.0.2", "10.65.1.2");
    let vxlan = Build::outward().dport(4789).frame();
    let vxlan_v6 = Build::packet(WORKLOAD, "fd65::2", "fd65:1::2").dport(4789).frame();
    let refused = DropReason::TunnelFromWorkload;
    let none = WorkloadTunnels { ipip_refused: false, refused_vxlan_port: None };
    let elsewhere = WorkloadTunnels { refused_vxlan_port: Some(8472), ..WorkloadTunnels::default() };
    for (frame, tunnels, expected) in [
        (&spoofed, WorkloadTunnels::default(), Some(DropReason::SpoofedSource)),
        (&ipip, WorkloadTunnels::default(), Some(refused)),
        (&vxlan, WorkloadTunnels::default(), Some(refused)),
        (&vxlan_v6, WorkloadTunnels::default(), Some(refused)),
        (&vxlan, elsewhere, None),
        (&ipip, elsewhere, Some(refused)),
        (&ipip, none, None),
        (&vxlan, none, None),
        (&vxlan_v6, none, None),
    ] {
        let mut rig = Rig::new();
        rig.writer.set_workload_tunnels(tunnels);
        rig.writer.publish();
        let moved = rig.send(WORKLOAD, frame);
        let expected: Vec<_> = expected.into_iter().map(|reason| (reason.as_str(), 1)).collect();
        assert_eq!(moved.drops(), expected, "{tunnels:?}");
        assert_eq!(moved.forwarded(), u64::from(expected.is_empty()));
    }
}

/// Between two ends there is one pair of outer addresses, and in these packets one outer port.
#[test]
fn the_flows_of_a_tunnel_that_passes_through_spread_and_each_keeps_to_one_way() {
    let ipip = |build: &Build| build.in_ipip("10.65.1.9", "10.71.0.9");
    let vxlan = |build: &Build| build.in_vxlan("10.65.1.9", "10.71.0.9", 7);
    for carry in [&ipip as &dyn Fn(&Build) -> Vec<u8>, &vxlan] {
        let mut rig = Rig::new();
        let mut used = BTreeSet::new();
        for sport in 0..64 {
            let mut ways = BTreeSet::new();
            for payload in [1, 40, 300] {
                rig.send(UPLINK, &carry(&Build::inward().sport(sport).payload(payload)));
                ways.extend([UPLINK, NARROW].into_iter().filter(|port| rig.wire(*port).receive().is_some()));
            }
            assert_eq!(ways.len(), 1, "one flow, one next hop");
            used.extend(ways);
        }
        assert_eq!(used.len(), 2, "64 flows use both next hops");
    }
}

/// What leaves by a tunnel when a packet goes into it, worked out anew from what went in.
fn as_it_leaves(sent: &[u8], template: &Template) -> Vec<u8> {
    let parsed = packet::parse(sent).unwrap();
    let mut left = vec![0; template.overhead().into()];
    left.extend(&sent[..parsed.l3_end()]);
    let inner = &mut left[usize::from(template.overhead())..];
    inner[22] -= 1;
    mend_ipv4_checksum(inner);
    let flow = FlowKey::inside(sent, &parsed).or(FlowKey::new(sent, &parsed)).unwrap();
    let port = 49_152 + (flow.hash() >> 16) as u16 % 16_384;
    let (ip_len, tos) = (left.len() - 14, sent[15]);
    template.write(&mut left, ip_len as u16, tos, port);
    left[..6].copy_from_slice(&neighbor_mac(UPLINK).0);
    left[6..12].copy_from_slice(&mac(UPLINK).0);
    left
}

/// Of many kinds, behind each other: into all tunnels and into none, tunnels of others, and some that end here.
#[test]
fn packets_of_a_batch_leave_in_their_tunnels_each_as_it_came() {
    let (ours, theirs) = (OUR_END.parse().unwrap(), FAR_END.parse().unwrap());
    let (ours_v6, theirs_v6) = (OUR_END_V6.parse().unwrap(), FAR_END_V6.parse().unwrap());
    let far = MacAddr([2, 0, 0, 0, 2, 3]);
    let templates = [
        ("10.72.0.1", Template::ipip(ours, theirs)),
        ("10.73.0.1", Template::vxlan(ours, theirs, VXLAN_PORT, VNI, far, VTEP)),
        ("10.74.0.1", Template::vxlan_v6(ours_v6, theirs_v6, VXLAN_PORT, VNI, far, VTEP)),
    ];
    let mut rig = Rig::new();
    // What is left of one batch doesn't show in the next.
    for first in [0, 1] {
        let (mut expected, mut plain, mut ended, mut refused) = (Vec::new(), 0, 0, 0);
        for number in first..60 + first {
            let (to, template) = &templates[number % 3];
            let build = Build::inward().sport(number as u16).payload(12 + number).to(to);
            let mut frame = match number % 11 {
                4 => build.clone().to("10.69.0.1").frame(),
                5 => build.clone().ttl(1).frame(),
                6 => in_ipip(&build.frame(), "10.65.1.9", to),
                7 => in_vxlan(&build.frame(), "10.65.1.9", to, 7),
                8 => build.source("127.0.0.1").frame(),
                _ => build.frame(),
            };
            let is_tcp = number % 5 == 1 && frame[23] == 17 && number % 11 != 7;
            (frame[15], frame[23]) = (number as u8, if is_tcp { 6 } else { frame[23] });
            mend_ipv4_checksum(&mut frame);
            match number % 11 {
                4 => plain += 1,
                5 => ended += 1,
                8 => refused += 1,
                _ => expected.push(as_it_leaves(&frame, template)),
            }
            frame.extend(vec![0xee; number % 4]);
            assert!(rig.wire(UPLINK).send(&frame));
        }
        let moved = rig.run();
        assert_eq!(moved.forwarded(), (expected.len() + plain) as u64, "{moved:?}");
        assert_eq!(moved.punts(), [(PuntReason::TtlExceeded.as_str(), ended)]);
        assert_eq!(moved.drops(), [(DropReason::MartianSource.as_str(), refused)]);
        for expected in expected {
            assert_eq!(rig.wire(UPLINK).receive(), Some(expected));
        }
        while rig.wire(NARROW).receive().is_some() {}
    }
    rig.audit();
}

/// What the host itself sends is not forwarded.
#[test]
fn the_hosts_own_packets_keep_their_ttl_in_a_tunnel() {
    for (to, inner) in [("10.72.0.1", 34), ("10.73.0.1", 64), ("10.74.0.1", 84)] {
        let mut rig = Rig::new();
        rig.send(HOST, &Build::packet(HOST, OUR_END, to).frame());
        assert_eq!(rig.left_by(UPLINK)[inner + 8], 64);
    }
}
