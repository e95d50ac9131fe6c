//! IPv4 packets larger than the next hop's MTU leave in pieces (RFC 791 §3.2, RFC 1812 §5.2.7).

mod support;

use model::{PortId, WorkerId};
use support::{
    Build, FAR_END, FRAMES, NARROW, PORTS, Rig, Sizes, UPLINK, WORKLOAD, fill, limits, mac,
    mend_ipv4_checksum, neighbor_mac, port, with_options, worker,
};
use tables::{Counters, DropReason, Flows, Port, Writer};

/// All frames that left by a port, in order.
fn left_by(rig: &Rig, port: PortId) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| rig.wire(port).receive()).collect()
}

/// What a receiver puts together of fragments that came in order: the payload behind the first header.
fn reassembled(packets: &[&[u8]]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (index, packet) in packets.iter().enumerate() {
        let view = packet::ipv4::Packet::new_checked(packet).expect("a good header");
        assert_eq!(usize::from(view.fragment_offset()) * 8, payload.len(), "in order and without a gap");
        assert_eq!(view.more_fragments(), index + 1 < packets.len());
        payload.extend_from_slice(view.payload());
    }
    payload
}

/// A packet of 1028 bytes for the port whose MTU is 576.
fn large() -> Build {
    Build::outward().to("10.69.0.1").payload(1000).fragmentable()
}

#[test]
fn a_packet_that_may_be_cut_leaves_in_pieces_of_the_next_hops_mtu() {
    let mut rig = Rig::new();
    let sent = large().frame();
    let moved = rig.send(WORKLOAD, &sent);
    assert_eq!((moved.forwarded(), moved.drops(), moved.punts()), (2, vec![], vec![]));
    let books = rig.counters.books();
    assert_eq!((books.fragmented, books.fragments), (1, 2));
    let pieces = left_by(&rig, NARROW);
    for piece in &pieces {
        assert_eq!((&piece[..6], &piece[6..12]), (&neighbor_mac(NARROW).0[..], &mac(NARROW).0[..]));
        assert!(piece.len() <= 14 + 576);
        assert_eq!(piece[22], 63, "one hop is one hop");
    }
    let packets: Vec<&[u8]> = pieces.iter().map(|piece| &piece[14..]).collect();
    assert_eq!(reassembled(&packets), sent[34..]);
    rig.audit();
}

#[test]
fn a_fragment_is_cut_again_and_stays_in_its_place() {
    let mut rig = Rig::new();
    let mut later = large().frame();
    later[20..22].copy_from_slice(&[0x20, 125]);
    mend_ipv4_checksum(&mut later);
    rig.send(WORKLOAD, &later);
    let offsets: Vec<(u16, bool)> = left_by(&rig, NARROW)
        .iter()
        .map(|piece| packet::ipv4::Packet::new_checked(&piece[14..]).unwrap())
        .map(|piece| (piece.fragment_offset(), piece.more_fragments()))
        .collect();
    assert_eq!(offsets, [(125, true), (125 + 69, true)]);
    rig.audit();
}

#[test]
fn a_packet_is_cut_before_it_is_encapsulated() {
    for (to, inner, mtu) in [("10.72.0.1", 34, 1480), ("10.73.0.1", 64, 1450)] {
        let mut rig = Rig::new();
        let sent = Build::outward().to(to).payload(1472).fragmentable().frame();
        assert_eq!(rig.send(WORKLOAD, &sent).forwarded(), 2, "{to}");
        let pieces = left_by(&rig, UPLINK);
        for piece in &pieces {
            let outer = packet::parse(piece).expect("the outer header is good");
            assert_eq!((outer.fragment, outer.l3_end()), (packet::Fragment::Whole, piece.len()));
            assert_eq!(outer.ipv4_destination(piece).unwrap().to_string(), FAR_END);
            assert!(piece.len() <= 1514 && piece.len() - inner <= mtu);
        }
        let ports: std::collections::BTreeSet<&[u8]> = pieces.iter().map(|piece| &piece[34..36]).collect();
        assert!(to == "10.72.0.1" || ports.len() == 1, "a datagram's pieces share VXLAN's source port");
        let packets: Vec<&[u8]> = pieces.iter().map(|piece| &piece[inner..]).collect();
        assert_eq!(reassembled(&packets), sent[34..]);
        rig.audit();
    }
}

#[test]
fn options_go_where_rfc_791_wants_them() {
    let mut rig = Rig::new();
    let options = [&[148, 4, 0, 0][..], &[7, 7, 4, 0, 0, 0, 0, 0]].concat();
    rig.send(WORKLOAD, &with_options(&large().frame(), &options));
    let found: Vec<Vec<u8>> = left_by(&rig, NARROW)
        .iter()
        .map(|piece| packet::ipv4::Packet::new_checked(&piece[14..]).unwrap().options().to_vec())
        .collect();
    assert_eq!(found, [options, vec![148, 4, 0, 0]]);
    rig.audit();
}

#[test]
fn a_burst_of_large_packets_keeps_its_order_and_loses_nothing() {
    let mut rig = Rig::new();
    for sport in 0..64 {
        // Every second one is small enough.
        let frame = if sport % 2 == 0 { large() } else { large().payload(10) };
        assert!(rig.wire(WORKLOAD).send(&frame.sport(sport).frame()));
    }
    let moved = rig.run();
    assert_eq!((moved.forwarded(), moved.drops()), (96, vec![]));
    let mut firsts = Vec::new();
    for frame in left_by(&rig, NARROW) {
        let parsed = packet::parse(&frame).unwrap();
        if !parsed.is_later_fragment() {
            firsts.push(u16::from_be_bytes([frame[34], frame[35]]));
        }
    }
    assert_eq!(firsts, (0..64).collect::<Vec<u16>>());
    rig.audit();
}

#[test]
fn without_frames_for_all_pieces_the_packet_is_lost_as_a_whole() {
    // Receive rings hold nearly all frames, and a next hop that takes 28 bytes at a time wants 126 for a packet.
    let slots = FRAMES / PORTS.len() - 10;
    let mut rig = Rig::sized(Sizes { wire_slots: slots, ..Sizes::default() });
    rig.writer.put_port(Port { mtu: 28, ..port(NARROW) }).unwrap();
    rig.writer.publish();
    let moved = rig.send(WORKLOAD, &large().frame());
    assert_eq!(moved.drops(), [(DropReason::NeedsFragmentation.as_str(), 1)]);
    let books = rig.counters.books();
    assert_eq!((books.fragmented, books.fragments, books.forwarded), (0, 0, 0));
    rig.audit();
}

#[test]
fn pieces_cross_to_the_worker_that_owns_the_queue() {
    let mut writer = Writer::new(limits(2));
    fill(&mut writer);
    let counters = Counters::new(2, 16);
    let flows = Flows::new(64);
    let mut ends = fastpath::handoffs(2, 16, 2048);
    let (second_ends, first_ends) = (ends.remove(1), ends.remove(0));
    let others: Vec<PortId> = PORTS.into_iter().filter(|port| *port != WORKLOAD).collect();
    let sizes = Sizes::default();
    let (mut owner, owned) =
        worker(&mut writer, WorkerId(0), (counters.clone(), flows.clone()), first_ends, &others, sizes);
    let (mut other, unowned) =
        worker(&mut writer, WorkerId(1), (counters.clone(), flows.clone()), second_ends, &[WORKLOAD], sizes);
    assert!(unowned.wires[0].send(&large().frame()));
    other.round();
    owner.round();
    let books = counters.books();
    assert_eq!((books.received, books.fragmented, books.fragments, books.forwarded), (1, 1, 2, 2));
    assert!(books.balance(), "{books:?}");
    let narrow = others.iter().position(|port| *port == NARROW).unwrap();
    let pieces: Vec<Vec<u8>> = std::iter::from_fn(|| owned.wires[narrow].receive()).collect();
    let packets: Vec<&[u8]> = pieces.iter().map(|piece| &piece[14..]).collect();
    assert_eq!(reassembled(&packets), large().frame()[34..]);
    assert_eq!(books.drops[DropReason::HandoffRingFull.index()], 0);
}

#[test]
fn more_pieces_than_a_batch_keep_their_order_beside_whole_packets() {
    let mut rig = Rig::new();
    rig.writer.put_port(Port { mtu: 68, ..port(NARROW) }).unwrap();
    rig.writer.publish();
    for sport in 0..6 {
        let frame = if sport % 2 == 0 { large() } else { large().payload(10) };
        assert!(rig.wire(WORKLOAD).send(&frame.sport(sport).frame()));
    }
    let moved = rig.run();
    assert_eq!(moved.drops(), []);
    let firsts: Vec<u16> = (left_by(&rig, NARROW).iter())
        .filter(|frame| !packet::parse(frame).unwrap().is_later_fragment())
        .map(|frame| u16::from_be_bytes([frame[34], frame[35]]))
        .collect();
    assert_eq!(firsts, (0..6).collect::<Vec<u16>>());
    rig.audit();
}

/// A sender whose every packet has to be cut can't push others out of a ring that is nearly full.
#[test]
fn a_full_ring_takes_whole_packets_before_pieces() {
    let mut rig = Rig::sized(Sizes { wire_slots: 64, ..Sizes::default() });
    rig.writer.put_port(Port { mtu: 68, ..port(NARROW) }).unwrap();
    rig.writer.publish();
    for sport in 0..16 {
        let frame = if sport % 2 == 0 { large() } else { large().payload(10) };
        assert!(rig.wire(WORKLOAD).send(&frame.sport(sport).frame()));
    }
    rig.run();
    let whole =
        left_by(&rig, NARROW).iter().filter(|frame| !packet::parse(frame).unwrap().is_fragment()).count();
    assert_eq!(whole, 8);
    rig.audit();
}
