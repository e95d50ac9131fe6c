//! Frames above a page over a veth pair: received in pieces, held whole, sent in pieces.

use super::namespace::{self, Wire, collect, eventually, in_namespace, ip, numbered, veth};
use crate::{AttachRequest, Frame, FramePool, ModeRequest, Program, ProgramKind, Queue, RingSizes, UmemSet};

/// Bytes of a frame whose packet fills an MTU of 9000.
const FULL: usize = 9014;

/// A veth pair with this MTU at both ends.
fn wide_veth(one: &str, other: &str, mtu: u32) -> (u32, u32) {
    let pair = veth(one, other, 1);
    ip(&format!("link set dev {one} mtu {mtu}"));
    ip(&format!("link set dev {other} mtu {mtu}"));
    pair
}

/// A queue in copy mode whose program the driver runs.
fn port(umems: &mut UmemSet, ifindex: u32) -> Queue {
    port_by(umems, ifindex, AttachRequest::Native)
}

/// A queue in copy mode whose program is run as asked.
fn port_by(umems: &mut UmemSet, ifindex: u32, attach: AttachRequest) -> Queue {
    let program = Program::load(ProgramKind::Workload, 1).unwrap();
    program.attach(ifindex, attach).unwrap();
    let mut config = namespace::queue(ifindex, 0);
    config.mode = ModeRequest::Copy;
    config.rings = RingSizes { rx: 256, tx: 256, fill: 256, completion: 256 };
    let (queue, report) = umems.bind(config).unwrap();
    println!("{report}");
    program.set_socket(0, &queue).unwrap();
    queue
}

fn kernel_has_pieces() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 6) {
        println!("skipped: AF_XDP takes packets in pieces since Linux 6.6, and this is {}", release.trim());
    }
    version >= (6, 6)
}

fn balanced(pool: &FramePool, queues: &[&Queue]) {
    let held: usize = queues.iter().map(|queue| queue.outstanding().total()).sum();
    assert_eq!(pool.missing(held), 0);
    assert_eq!(pool.total(), pool.available() + held);
}

#[test]
fn frames_of_every_size_up_to_the_mtu_cross_from_one_interface_to_another_whole_and_in_order() {
    if !kernel_has_pieces() {
        return;
    }
    in_namespace(|| {
        namespace::stay_on_one_core();
        let (a, a_peer) = wide_veth("a", "ap", 9000);
        let (b, b_peer) = wide_veth("b", "bp", 9000);
        let (region, mut pool) = namespace::large_region(1024, 96);
        let mut umems = UmemSet::new(region);
        let (mut from, mut to) = (port(&mut umems, a), port(&mut umems, b));
        let (source, sink) = (Wire::new(a_peer), Wire::new(b_peer));
        // Around every boundary: a chunk's, the page's of a veth's first piece, the MTU's.
        let sizes = [60, 1514, 3498, 3500, 3839, 3840, 3841, 4096, 7680, 7681, 8962, FULL];
        let mut frames: Vec<Frame> = Vec::new();
        for round in 0..20u32 {
            from.refill(&mut pool);
            to.refill(&mut pool);
            let sent: Vec<_> = (0..).zip(sizes).map(|(n, size)| numbered(round * 100 + n, size)).collect();
            sent.iter().for_each(|frame| source.send(frame));
            let mut moved = 0;
            eventually(|| {
                from.receive(&mut pool, &mut frames, 64);
                for frame in &frames {
                    assert_eq!(frame.headroom(), usize::from(crate::HEADROOM));
                }
                moved += to.transmit(&mut frames);
                to.wake().unwrap();
                to.reap(&mut pool);
                balanced(&pool, &[&from, &to]);
                (moved == sent.len()).then_some(())
            })
            .expect("all are forwarded");
            for expected in &sent {
                assert_eq!(sink.receive().as_ref(), Some(expected), "{} bytes", expected.len());
            }
        }
        assert_eq!((from.statistics().rx_dropped, to.statistics().tx_invalid_descriptors), (0, 0));
        assert_eq!((from.counters().bad_receive_descriptors, to.counters().bad_completions), (0, 0));
        let closed = (from.close(&mut pool), to.close(&mut pool));
        assert_eq!((closed.0.lost, closed.1.lost), (0, 0));
        assert_eq!(pool.available(), pool.total());
    });
}

#[test]
fn a_large_frame_that_is_encapsulated_is_sent_from_its_new_start() {
    if !kernel_has_pieces() {
        return;
    }
    in_namespace(|| {
        let (a, b) = wide_veth("a", "b", 9300);
        let (region, mut pool) = namespace::large_region(64, 8);
        let mut queue = port(&mut UmemSet::new(region), a);
        let wire = Wire::new(b);
        for grown in [20, 50, 70, 256] {
            let inner = numbered(9, FULL);
            let outer = numbered(grown as u32, 64).into_iter().cycle().take(grown).collect::<Vec<_>>();
            let mut frame = pool.take_for(FULL).unwrap();
            frame.copy_from(&inner).unwrap();
            frame.grow_front(grown).unwrap();
            frame.bytes_mut()[..grown].copy_from_slice(&outer);
            assert_eq!(queue.transmit(&mut vec![frame]), 1);
            queue.wake().unwrap();
            assert_eq!(wire.receive(), Some([outer, inner].concat()));
        }
        eventually(|| {
            queue.reap(&mut pool);
            (pool.available() == pool.total()).then_some(())
        })
        .expect("all frames come back");
    });
}

#[test]
fn the_kernels_generic_code_delivers_large_frames_too() {
    if !kernel_has_pieces() {
        return;
    }
    in_namespace(|| {
        namespace::stay_on_one_core();
        let (a, b) = wide_veth("a", "b", 9000);
        let (region, mut pool) = namespace::large_region(512, 8);
        let mut queue = port_by(&mut UmemSet::new(region), a, AttachRequest::Generic);
        queue.refill(&mut pool);
        let wire = Wire::new(b);
        let sent = [numbered(0, FULL), numbered(1, 60), numbered(2, 4096)];
        sent.iter().for_each(|frame| wire.send(frame));
        assert!(collect(&mut queue, &mut pool, 3) == sent, "{:?}", queue.counters());
        balanced(&pool, &[&queue]);
    });
}

#[test]
fn a_frame_longer_than_a_large_one_is_counted_and_those_around_it_arrive() {
    if !kernel_has_pieces() {
        return;
    }
    in_namespace(|| {
        let (a, b) = wide_veth("a", "b", 16_000);
        let (region, mut pool) = namespace::large_region(512, 8);
        let mut queue = port(&mut UmemSet::new(region), a);
        queue.refill(&mut pool);
        let wire = Wire::new(b);
        let longest = 3 * 4096 - 256;
        let sent = [numbered(0, longest), numbered(1, longest + 1), numbered(2, 100), numbered(3, longest)];
        sent.iter().for_each(|frame| wire.send(frame));
        let got = collect(&mut queue, &mut pool, 3);
        assert!(got == [sent[0].clone(), sent[2].clone(), sent[3].clone()], "the second one alone is lost");
        assert_eq!((queue.counters().too_long, queue.counters().received), (1, 3));
        balanced(&pool, &[&queue]);
    });
}

#[test]
fn without_large_frames_what_is_above_a_chunk_is_counted_by_the_kernel() {
    in_namespace(|| {
        let (a, b) = wide_veth("a", "b", 9000);
        let (region, mut pool) = namespace::region(512);
        let mut queue = port(&mut UmemSet::new(region), a);
        queue.refill(&mut pool);
        let wire = Wire::new(b);
        let sent = [numbered(0, 1792), numbered(1, 1793), numbered(2, FULL), numbered(3, 60)];
        sent.iter().for_each(|frame| wire.send(frame));
        assert_eq!(collect(&mut queue, &mut pool, 2), [sent[0].clone(), sent[3].clone()]);
        assert_eq!(queue.statistics().rx_dropped, 2);
        balanced(&pool, &[&queue]);
    });
}

#[test]
fn a_queue_that_dies_with_large_frames_under_way_gives_them_all_back() {
    if !kernel_has_pieces() {
        return;
    }
    in_namespace(|| {
        let (a, _b) = wide_veth("a", "b", 9000);
        let (region, mut pool) = namespace::large_region(512, 32);
        let mut queue = port(&mut UmemSet::new(region), a);
        queue.refill(&mut pool);
        let mut frames = Vec::new();
        for _ in 0..32 {
            let mut frame = pool.take_for(FULL).unwrap();
            frame.copy_from(&numbered(0, FULL)).unwrap();
            frames.push(frame);
        }
        assert_eq!(queue.transmit(&mut frames), 32);
        // Nobody woke the kernel; closing does.
        assert_eq!(queue.close(&mut pool).lost, 0);
        assert_eq!(pool.available(), pool.total());
    });
}

#[test]
fn the_report_says_how_long_a_frame_may_be() {
    if !kernel_has_pieces() {
        return;
    }
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (c, _d) = veth("c", "d", 1);
        let mut umems = UmemSet::new(namespace::large_region(64, 8).0);
        let (_one, first) = umems.bind(namespace::queue(a, 0)).unwrap();
        assert!(first.in_pieces && first.receivable == 3 * 4096 - 256, "{first}");
        assert!(first.to_string().contains("frames of up to 12032 bytes in pieces"), "{first}");
        // Zero-copy in pieces, then without, as 1500 bytes fit a chunk.
        assert_eq!(first.attempts.iter().map(|tried| tried.in_pieces).collect::<Vec<_>>(), [true, false]);
        let (_other, second) = umems.bind(namespace::queue(b, 0)).unwrap();
        assert!(second.shared && second.in_pieces, "{second}");
        ip("link set dev c mtu 9000");
        let (_third, third) = umems.bind(namespace::queue(c, 0)).unwrap();
        assert_eq!(third.attempts.len(), 1, "zero-copy without pieces isn't tried for 9000 bytes: {third}");
        let mut umems = UmemSet::new(namespace::region(64).0);
        let (e, _f) = veth("e", "f", 1);
        let (_fourth, fourth) = umems.bind(namespace::queue(e, 0)).unwrap();
        assert!(!fourth.in_pieces && fourth.receivable == 1792, "{fourth}");
    });
}
