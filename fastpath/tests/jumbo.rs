//! Packets of 9000 bytes through the walk: whole, cut, encapsulated, refused, handed over, out of frames.

mod support;

use model::{PortId, WorkerId};
use support::{
    Build, FAR_END, LARGE_BYTES, NARROW, OUR_END, PORTS, Rig, Sizes, UPLINK, VNI, WORKLOAD, fill, limits,
    port, worker,
};
use tables::{Counters, DropReason, Flows, Port, PuntReason};

/// Payload of UDP that fills an IPv4 packet of 9000 bytes.
const PAYLOAD: usize = 9000 - 28;

fn sizes() -> Sizes {
    Sizes { large_frames: 128, ..Sizes::default() }
}

/// A router whose links carry 9000 bytes, all but the one that carries 576.
fn rig() -> Rig {
    let mut rig = Rig::sized(sizes());
    widen(&mut rig.writer);
    rig
}

fn widen(writer: &mut tables::Writer) {
    for id in PORTS.into_iter().filter(|id| *id != NARROW) {
        writer.put_port(Port { mtu: 9000, ..port(id) }).unwrap();
    }
    writer.publish();
}

fn left_by(rig: &Rig, port: PortId) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| rig.wire(port).receive()).collect()
}

/// What a receiver puts together of packets that came in order.
fn reassembled(packets: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut payload = Vec::new();
    for packet in packets {
        let view = packet::ipv4::Packet::new_checked(&packet).expect("a good header");
        assert_eq!(usize::from(view.fragment_offset()) * 8, payload.len());
        payload.extend_from_slice(view.payload());
    }
    payload
}

#[test]
fn packets_of_every_size_up_to_the_mtu_are_forwarded_whole() {
    let mut rig = rig();
    for l3 in [60, 1500, 1778, 1779, 4096, 8192, 8999, 9000] {
        for build in [Build::outward(), Build::inward()] {
            let (from, to) = if build.from == WORKLOAD { (WORKLOAD, UPLINK) } else { (UPLINK, WORKLOAD) };
            let sent = build.payload(l3 - 28).frame();
            let moved = rig.send(from, &sent);
            assert_eq!((moved.forwarded(), moved.drops(), moved.punts()), (1, vec![], vec![]), "{l3}");
            let got = rig.left_by(to);
            assert_eq!((got.len(), &got[34..], got[22]), (14 + l3, &sent[34..], 63));
        }
    }
    rig.audit();
}

#[test]
fn a_tunnel_takes_its_header_off_the_mtu_and_a_large_packet_is_opened_at_its_end() {
    let mut rig = rig();
    for (to, overhead) in [("10.72.0.1", 20), ("10.73.0.1", 50), ("10.74.0.1", 70)] {
        let sent = Build::outward().to(to).payload(PAYLOAD - overhead).frame();
        assert_eq!(rig.send(WORKLOAD, &sent).forwarded(), 1, "{to}");
        let got = rig.left_by(UPLINK);
        assert_eq!((got.len(), &got[got.len() - 1000..]), (9014, &sent[sent.len() - 1000..]));
        let moved = rig.send(WORKLOAD, &Build::outward().to(to).payload(PAYLOAD - overhead + 1).frame());
        assert_eq!(moved.punts(), [("too_big", 1)], "{to}");
    }
    let inner = Build::inward().payload(PAYLOAD - 50);
    for sent in
        [inner.in_vxlan(FAR_END, OUR_END, VNI), inner.clone().payload(PAYLOAD - 20).in_ipip(FAR_END, OUR_END)]
    {
        assert_eq!(sent.len(), 9014);
        let moved = rig.send(UPLINK, &sent);
        assert_eq!((moved.forwarded(), moved.drops()), (1, vec![]));
        let got = rig.left_by(WORKLOAD);
        assert_eq!(got[got.len() - 1000..], sent[sent.len() - 1000..]);
    }
    while rig.punts.pop(|_, _| ()).is_some() {}
    rig.audit();
}

#[test]
fn a_packet_that_may_be_cut_leaves_a_narrow_link_in_pieces_of_one_chunk() {
    let mut rig = rig();
    for mtu in [576, 1500] {
        rig.writer.put_port(Port { mtu, ..port(NARROW) }).unwrap();
        rig.writer.publish();
        let sent = Build::outward().to("10.69.0.1").payload(PAYLOAD).fragmentable().frame();
        let moved = rig.send(WORKLOAD, &sent);
        let count = (8980usize).div_ceil((usize::from(mtu) - 20) / 8 * 8);
        assert_eq!((moved.forwarded(), moved.drops(), moved.punts()), (count as u64, vec![], vec![]));
        let pieces = left_by(&rig, NARROW);
        assert!(pieces.iter().all(|piece| piece.len() <= 14 + usize::from(mtu)));
        assert_eq!(reassembled(pieces.into_iter().map(|piece| piece[14..].to_vec())), sent[34..]);
    }
    rig.audit();
}

#[test]
fn pieces_above_a_chunk_take_large_frames_and_without_one_the_packet_is_lost_by_name() {
    let mut rig = rig();
    let sent = Build::outward().to("10.73.0.1").payload(PAYLOAD).fragmentable().frame();
    assert_eq!(rig.send(WORKLOAD, &sent).forwarded(), 2);
    let pieces = left_by(&rig, UPLINK);
    assert!(
        pieces.iter().all(|piece| piece.len() <= 9014) && pieces[0].len() > 8900,
        "cut to fit within the tunnel"
    );
    assert_eq!(reassembled(pieces.into_iter().map(|piece| piece[64..].to_vec())), sent[34..]);
    rig.audit();
    // One for the packet itself, none for what it would be cut into.
    let mut rig = Rig::sized(Sizes { large_frames: 1, ..Sizes::default() });
    widen(&mut rig.writer);
    let moved = rig.send(WORKLOAD, &sent);
    assert_eq!(moved.drops(), [(DropReason::NeedsFragmentation.as_str(), 1)]);
    rig.audit();
}

#[test]
fn a_packet_that_must_not_be_cut_is_answered_with_the_mtu_that_fits() {
    let mut rig = rig();
    rig.writer.put_port(Port { mtu: 1500, ..port(NARROW) }).unwrap();
    rig.writer.publish();
    let sent = Build::outward().to("10.69.0.1").payload(PAYLOAD).frame();
    let moved = rig.send(WORKLOAD, &sent);
    assert_eq!((moved.punts(), moved.drops()), (vec![("too_big", 1)], vec![]));
    let (punt, bytes) = rig.punts.pop(|punt, bytes| (punt, bytes.to_vec())).expect("it was punted");
    assert_eq!((punt.reason, punt.mtu, bytes.len()), (PuntReason::TooBig, 1500, 9014));
    // The copy is whole, so that the answer can be made of it.
    let parsed = packet::parse(&bytes).expect("it is the packet");
    assert_eq!(parsed.l3_packet(&bytes)[16..], sent[30..]);
    rig.audit();
}

#[test]
fn what_no_frame_holds_is_lost_on_the_wire_and_the_next_packet_is_not() {
    let mut rig = rig();
    let mut long = Build::outward().payload(PAYLOAD).frame();
    long.resize(LARGE_BYTES + 1, 0);
    assert_eq!(rig.send(WORKLOAD, &long).received(), 0);
    assert_eq!(rig.send(WORKLOAD, &Build::outward().payload(PAYLOAD).frame()).forwarded(), 1);
    rig.left_by(UPLINK);
    rig.audit();
}

#[test]
fn large_packets_cross_whole_to_the_worker_that_owns_the_queue() {
    let mut writer = tables::Writer::new(limits(2));
    fill(&mut writer);
    widen(&mut writer);
    let counters = Counters::new(2, 16);
    let flows = Flows::new(64);
    let mut ends = fastpath::handoffs(2, 16, LARGE_BYTES);
    let (second_ends, first_ends) = (ends.remove(1), ends.remove(0));
    let others: Vec<PortId> = PORTS.into_iter().filter(|port| *port != WORKLOAD).collect();
    let shared = || (counters.clone(), flows.clone());
    let (mut owner, owned) = worker(&mut writer, WorkerId(0), shared(), first_ends, &others, sizes());
    let (mut other, unowned) = worker(&mut writer, WorkerId(1), shared(), second_ends, &[WORKLOAD], sizes());
    let sent: Vec<Vec<u8>> =
        [PAYLOAD, 100, PAYLOAD].map(|payload| Build::outward().payload(payload).frame()).into();
    sent.iter().for_each(|frame| assert!(unowned.wires[0].send(frame)));
    other.round();
    owner.round();
    let books = counters.books();
    assert_eq!((books.received, books.forwarded), (3, 3));
    assert!(books.balance(), "{books:?}");
    let uplink = others.iter().position(|port| *port == UPLINK).unwrap();
    for sent in sent {
        assert_eq!(owned.wires[uplink].receive().expect("it crossed")[34..], sent[34..]);
    }
}

#[test]
fn what_its_outer_header_makes_longer_than_a_frame_is_not_handed_over_but_counted() {
    let mut writer = tables::Writer::new(limits(2));
    fill(&mut writer);
    for id in [UPLINK, WORKLOAD] {
        writer.put_port(Port { mtu: 10_000, ..port(id) }).unwrap();
    }
    writer.publish();
    let counters = Counters::new(2, 16);
    let flows = Flows::new(64);
    let mut ends = fastpath::handoffs(2, 16, LARGE_BYTES + 256);
    let (second_ends, first_ends) = (ends.remove(1), ends.remove(0));
    let others: Vec<PortId> = PORTS.into_iter().filter(|port| *port != WORKLOAD).collect();
    let shared = || (counters.clone(), flows.clone());
    let (mut owner, _owned) = worker(&mut writer, WorkerId(0), shared(), first_ends, &others, sizes());
    let (mut other, unowned) = worker(&mut writer, WorkerId(1), shared(), second_ends, &[WORKLOAD], sizes());
    for inner in [LARGE_BYTES - 14 - 50, LARGE_BYTES - 14 - 49] {
        assert!(unowned.wires[0].send(&Build::outward().to("10.73.0.1").payload(inner - 28).frame()));
    }
    other.round();
    owner.round();
    let books = counters.books();
    assert_eq!((books.received, books.forwarded), (2, 1));
    assert_eq!(books.drops[DropReason::HandoffRingFull.index()], 1);
    assert!(books.balance(), "{books:?}");
}

#[test]
fn a_burst_of_large_and_small_packets_keeps_its_order() {
    let mut rig = rig();
    for sport in 0..100 {
        let payload = if sport % 3 == 0 { 20 } else { PAYLOAD };
        assert!(rig.wire(WORKLOAD).send(&Build::outward().payload(payload).sport(sport).frame()));
    }
    let moved = rig.run();
    assert_eq!((moved.forwarded(), moved.drops()), (100, vec![]));
    let ports: Vec<u16> =
        left_by(&rig, UPLINK).iter().map(|frame| u16::from_be_bytes([frame[34], frame[35]])).collect();
    assert_eq!(ports, (0..100).collect::<Vec<u16>>());
    rig.audit();
}
