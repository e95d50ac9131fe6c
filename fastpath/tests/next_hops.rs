//! Flows over several next hops: each keeps to one, a dead one is skipped, fragments stay together.

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use model::PortId;
use packet::{FlowHash, checksum};
use support::{Build, NARROW, Rig, UPLINK, WORKLOAD, mac, neighbor_mac, port, prefix};
use tables::{Adjacency, Group};

/// `10.71.0.0/16` by both uplinks, as the rig has it, and the same by IPv6.
fn rig() -> Rig {
    let mut rig = Rig::new();
    let group = rig.writer.fib().get(prefix("10.71.0.0/16")).unwrap();
    rig.writer.insert_route(prefix("fd71::/64"), group).unwrap();
    rig
}

/// The port that the frame leaves by.
fn way(rig: &mut Rig, frame: &[u8]) -> PortId {
    let moved = rig.send(WORKLOAD, frame);
    assert_eq!(moved.forwarded(), 1, "{moved:?}");
    let ways: Vec<PortId> =
        [UPLINK, NARROW].into_iter().filter(|port| rig.wire(*port).receive().is_some()).collect();
    assert_eq!(ways.len(), 1);
    ways[0]
}

fn flow(number: u16) -> Build {
    Build::outward().to("10.71.0.1").sport(number)
}

fn ways(rig: &mut Rig) -> Vec<PortId> {
    (0..128).map(|number| way(rig, &flow(number).frame())).collect()
}

#[test]
fn the_flows_of_a_port_that_goes_down_move_and_come_back() {
    let mut rig = rig();
    let before = ways(&mut rig);
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 2);
    let set = |rig: &mut Rig, up: bool| {
        rig.writer.put_port(tables::Port { up, ..port(NARROW) }).unwrap();
        rig.writer.publish();
        ways(rig)
    };
    assert_eq!(set(&mut rig, false), vec![UPLINK; 128]);
    assert_eq!(set(&mut rig, true), before);
}

#[test]
fn the_flows_of_a_neighbour_that_stops_answering_move_and_come_back() {
    let mut rig = rig();
    let group = rig.writer.fib().get(prefix("10.71.0.0/16")).unwrap();
    let member = rig.writer.staged().group(group).unwrap().members()[1];
    let before = ways(&mut rig);
    let address = IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2));
    rig.writer.replace_adjacency(member, Adjacency::unresolved(NARROW, address));
    rig.writer.publish();
    assert_eq!(ways(&mut rig), vec![UPLINK; 128]);
    let answers = Adjacency::resolved(NARROW, address, neighbor_mac(NARROW), mac(NARROW));
    rig.writer.replace_adjacency(member, answers);
    rig.writer.publish();
    assert_eq!(ways(&mut rig), before);
}

#[test]
fn where_no_next_hop_is_known_packets_come_up_and_none_is_lost_to_a_dead_port() {
    let mut rig = rig();
    let group = rig.writer.fib().get(prefix("10.71.0.0/16")).unwrap();
    let asked = rig.writer.insert_adjacency(Adjacency::unresolved(UPLINK, [172, 18, 0, 7].into())).unwrap();
    let gone = rig.writer.insert_adjacency(Adjacency::unresolved(PortId(9), [172, 18, 0, 8].into())).unwrap();
    rig.writer.replace_group(group, Group::Forward(vec![asked, gone]));
    rig.writer.publish();
    for number in 0..64 {
        let moved = rig.send(WORKLOAD, &flow(number).frame());
        assert_eq!(moved.punts(), [("unresolved", 1)], "{moved:?}");
    }
}

#[test]
fn flows_are_shared_by_weight_and_follow_a_change_of_it_one_way() {
    let mut rig = rig();
    let group = rig.writer.fib().get(prefix("10.71.0.0/16")).unwrap();
    let members = rig.writer.staged().group(group).unwrap().members().to_vec();
    let equal = ways(&mut rig);
    rig.writer.replace_group(group, Group::Weighted(members, vec![7, 1]));
    rig.writer.publish();
    let unequal = ways(&mut rig);
    let by_narrow = |ways: &[PortId]| ways.iter().filter(|way| **way == NARROW).count();
    assert!((8..=26).contains(&by_narrow(&unequal)), "an eighth of 128, by hash: {}", by_narrow(&unequal));
    // Nobody leaves the one that weighs more.
    assert!(equal.iter().zip(&unequal).all(|(before, after)| before == after || *before == NARROW));
}

#[test]
fn republishing_moves_no_flow() {
    let mut rig = rig();
    let before = ways(&mut rig);
    for mtu in 1400..1420 {
        rig.writer.put_port(tables::Port { mtu, ..port(WORKLOAD) }).unwrap();
        rig.writer.publish();
    }
    assert_eq!(ways(&mut rig), before);
}

#[test]
fn a_symmetric_router_sends_both_directions_by_one_next_hop() {
    for seed in 0..4 {
        let mut rig = rig();
        rig.writer.set_flow_hash(FlowHash::new(seed, true));
        // Workloads anywhere, so that the reverse direction may come by the same port.
        let mut workload = port(WORKLOAD);
        workload.endpoint.as_mut().unwrap().addresses.push(prefix("10.71.0.0/16"));
        rig.writer.put_port(workload).unwrap();
        rig.writer.publish();
        for number in 0..64 {
            let there = Build::packet(WORKLOAD, "10.71.0.1", "10.71.0.2").sport(number).frame();
            let mut back = Build::packet(WORKLOAD, "10.71.0.2", "10.71.0.1").sport(53).frame();
            back[36..38].copy_from_slice(&number.to_be_bytes());
            assert_eq!(way(&mut rig, &there), way(&mut rig, &back), "{number}");
        }
    }
}

/// Makes a fragment of an IPv4 frame: its flags and offset, with the header's checksum put right.
fn fragment(frame: &[u8], flags_and_offset: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Puts a fragment header (RFC 8200 §4.5) into an IPv6 frame.
fn fragment_v6(frame: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let header =
        [packet::protocol::UDP, 0, (offset >> 5) as u8, (offset << 3) as u8 | u8::from(more), 0, 0, 0, 7];
    frame[20] = 44;
    let payload_len = u16::from_be_bytes([frame[18], frame[19]]) + 8;
    frame[18..20].copy_from_slice(&payload_len.to_be_bytes());
    frame.splice(54..54, header);
    frame
}

/// The first fragment has ports and the later ones have none, so no fragment's ports count.
#[test]
fn every_fragment_of_a_datagram_takes_the_way_of_the_first() {
    let mut rig = rig();
    let mut used = BTreeSet::new();
    for host in 0..64 {
        let v4 = flow(host).to(&format!("10.71.0.{host}")).fragmentable().frame();
        let v6 = Build::packet(WORKLOAD, "fd65::2", &format!("fd71::{host}")).sport(host).frame();
        let v4: BTreeSet<PortId> =
            [0x2000, 0x2005, 0x0009].map(|at| way(&mut rig, &fragment(&v4, at))).into_iter().collect();
        let v6: BTreeSet<PortId> = [(0, true), (5, true), (9, false)]
            .map(|(offset, more)| way(&mut rig, &fragment_v6(&v6, offset, more)))
            .into_iter()
            .collect();
        assert_eq!((v4.len(), v6.len()), (1, 1), "{host}");
        used.extend(v4.into_iter().chain(v6));
    }
    assert_eq!(used.len(), 2, "datagrams are spread all the same");
}

/// A router doesn't reassemble, so it can't know that fragments overlap (RFC 815): they go on as they came.
#[test]
fn overlapping_fragments_are_forwarded_as_they_are() {
    let mut rig = rig();
    let whole = flow(1).fragmentable().frame();
    for at in [0x2000, 0x2002, 0x2001, 0x0001] {
        let sent = fragment(&whole, at);
        let moved = rig.send(WORKLOAD, &sent);
        assert_eq!(moved.forwarded(), 1, "{at:#x}: {moved:?}");
        let left = [UPLINK, NARROW].into_iter().find_map(|port| rig.wire(port).receive()).unwrap();
        assert_eq!(left[26..], sent[26..], "{at:#x}");
        assert_eq!(left[20..22], sent[20..22]);
    }
}

/// RFC 1858 §3: a first fragment too short for its own header says nothing that could be judged, so it goes nowhere.
#[test]
fn a_first_fragment_without_its_header_is_dropped() {
    let mut rig = rig();
    let mut tiny = flow(1).payload(0).fragmentable().frame();
    tiny[23] = packet::protocol::TCP;
    let moved = rig.send(WORKLOAD, &fragment(&tiny, 0x2000));
    assert_eq!(moved.drops(), [("l4_truncated", 1)]);
}
