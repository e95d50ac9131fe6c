//! Frames in and out of a queue over a veth pair.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::namespace::{self, Wire, collect, eventually, in_namespace, numbered, veth};
use crate::{
    AttachRequest, FramePool, ModeRequest, Program, ProgramError, ProgramKind, Queue, RingSizes, UmemSet,
    wait,
};

/// A queue in copy mode with small rings, its program attached and the socket in it.
fn port(umems: &mut UmemSet, ifindex: u32, queue: u32, program: &Program) -> Queue {
    let mut config = namespace::queue(ifindex, queue);
    config.mode = ModeRequest::Copy;
    config.rings = RingSizes { rx: 256, tx: 256, fill: 256, completion: 256 };
    config.tx_budget = None;
    let (queue, report) = umems.bind(config).unwrap();
    println!("{report}");
    program.set_socket(queue.number(), &queue).unwrap();
    queue
}

fn workload(ifindex: u32, queues: u32) -> Program {
    let program = Program::load(ProgramKind::Workload, queues).unwrap();
    let report = program.attach(ifindex, AttachRequest::Native).unwrap();
    println!("{report}");
    program
}

fn balanced(pool: &FramePool, queues: &[&Queue]) {
    let held: usize = queues.iter().map(|queue| queue.outstanding().total()).sum();
    assert_eq!(pool.total(), pool.available() + held);
    assert_eq!(pool.missing(held), 0);
}

/// Fills frames from the pool with these bytes.
fn frames_of(pool: &mut FramePool, contents: &[Vec<u8>]) -> Vec<crate::Frame> {
    contents
        .iter()
        .map(|bytes| {
            let mut frame = pool.take().unwrap();
            frame.copy_from(bytes).unwrap();
            frame
        })
        .collect()
}

#[test]
fn frames_from_the_peer_arrive_whole_and_in_order() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(512);
        let program = workload(a, 1);
        let mut queue = port(&mut UmemSet::new(region), a, 0, &program);
        assert_eq!(queue.refill(&mut pool), 256);
        let sent: Vec<_> = (0..200).map(|n| numbered(n, 60 + 7 * n as usize)).collect();
        let wire = Wire::new(b);
        sent.iter().for_each(|frame| wire.send(frame));
        let got = collect(&mut queue, &mut pool, sent.len());
        assert_eq!(got, sent);
        assert_eq!(queue.counters().received, 200);
        assert_eq!(queue.counters().bad_receive_descriptors, 0);
        balanced(&pool, &[&queue]);
    });
}

#[test]
fn a_received_frame_has_room_in_front_for_any_encapsulation_whoever_runs_the_program() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(512);
        let mut umems = UmemSet::new(region);
        let program = Program::load(ProgramKind::Workload, 1).unwrap();
        let wire = Wire::new(b);
        for attach in [AttachRequest::Native, AttachRequest::Generic] {
            program.attach(a, attach).unwrap();
            let mut queue = port(&mut umems, a, 0, &program);
            queue.refill(&mut pool);
            wire.send(&numbered(1, 100));
            let mut frames = Vec::new();
            eventually(|| (queue.receive(&mut pool, &mut frames, 8) > 0).then_some(()))
                .expect("the frame arrives");
            assert_eq!(frames[0].headroom(), usize::from(crate::HEADROOM), "{attach:?}");
            assert_eq!(frames[0].bytes(), numbered(1, 100), "{attach:?}");
            frames.into_iter().for_each(|frame| pool.put(frame));
            assert_eq!(queue.close(&mut pool).lost, 0);
        }
        assert_eq!(pool.available(), pool.total());
    });
}

#[test]
fn transmitted_frames_reach_the_peer_though_one_call_sends_only_thirty_two() {
    in_namespace(|| {
        namespace::stay_on_one_core();
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(512);
        let program = workload(a, 1);
        let mut queue = port(&mut UmemSet::new(region), a, 0, &program);
        let wire = Wire::new(b);
        let sent: Vec<_> = (0..150).map(|n| numbered(n, 64 + 9 * n as usize)).collect();
        let mut frames = frames_of(&mut pool, &sent);
        assert_eq!(queue.transmit(&mut frames), 150);
        assert!(frames.is_empty());
        queue.wake().unwrap();
        for expected in &sent {
            assert_eq!(wire.receive().as_ref(), Some(expected));
        }
        let completed = eventually(|| {
            queue.reap(&mut pool);
            (queue.outstanding().transmit == 0).then_some(())
        });
        assert!(completed.is_some(), "{:?}", queue.outstanding());
        assert_eq!(queue.counters().completed, 150);
        assert_eq!(queue.statistics().tx_invalid_descriptors, 0);
        assert_eq!(pool.available(), pool.total());
    });
}

#[test]
fn what_does_not_fit_in_the_ring_stays_with_the_caller_in_order() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(512);
        let program = workload(a, 1);
        let mut queue = port(&mut UmemSet::new(region), a, 0, &program);
        let contents: Vec<_> = (0..300).map(|n| numbered(n, 64)).collect();
        let mut frames = frames_of(&mut pool, &contents);
        assert_eq!(queue.transmit_room(1_000), 256);
        assert_eq!(queue.transmit(&mut frames), 256);
        assert_eq!(frames.len(), 44);
        assert_eq!(frames[0].bytes(), contents[256]);
        assert_eq!(queue.transmit(&mut frames), 0);
        frames.into_iter().for_each(|frame| pool.put(frame));
        balanced(&pool, &[&queue]);
    });
}

#[test]
fn an_encapsulated_frame_is_sent_from_its_new_start() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(64);
        let program = workload(a, 1);
        let mut queue = port(&mut UmemSet::new(region), a, 0, &program);
        let wire = Wire::new(b);
        // 20 as for IPIP, 50 as for VXLAN, 256 as far as it goes.
        for grown in [20, 50, 256] {
            let inner = numbered(9, 300);
            let outer = numbered(grown as u32, 64).into_iter().cycle().take(grown).collect::<Vec<_>>();
            let mut frames = frames_of(&mut pool, std::slice::from_ref(&inner));
            frames[0].grow_front(grown).unwrap();
            frames[0].bytes_mut()[..grown].copy_from_slice(&outer);
            queue.transmit(&mut frames);
            queue.wake().unwrap();
            assert_eq!(wire.receive(), Some([outer, inner].concat()));
        }
        eventually(|| {
            queue.reap(&mut pool);
            (pool.available() == pool.total()).then_some(())
        })
        .expect("all frames come back, whatever address they were sent from");
    });
}

#[test]
fn an_empty_frame_is_counted_and_comes_back_instead_of_being_sent() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(8);
        let program = workload(a, 1);
        let mut queue = port(&mut UmemSet::new(region), a, 0, &program);
        let mut frames = vec![pool.take().unwrap()];
        assert_eq!(queue.transmit(&mut frames), 1);
        assert_eq!((queue.counters().empty_frames, queue.outstanding().aside), (1, 1));
        balanced(&pool, &[&queue]);
        queue.reap(&mut pool);
        assert_eq!(pool.available(), 8);
    });
}

#[test]
fn frames_cross_from_one_interface_to_another_without_a_copy_and_none_is_lost() {
    in_namespace(|| {
        namespace::stay_on_one_core();
        let (a, a_peer) = veth("a", "ap", 1);
        let (b, b_peer) = veth("b", "bp", 1);
        let (region, mut pool) = namespace::region(1024);
        let mut umems = UmemSet::new(region);
        let (program_a, program_b) = (workload(a, 1), workload(b, 1));
        let mut from = port(&mut umems, a, 0, &program_a);
        let mut to = port(&mut umems, b, 0, &program_b);
        let (source, sink) = (Wire::new(a_peer), Wire::new(b_peer));
        let mut expected = 0;
        let mut batch = Vec::new();
        for round in 0..50u32 {
            from.refill(&mut pool);
            to.refill(&mut pool);
            for n in 0..40 {
                source.send(&numbered(round * 40 + n, 60 + (n as usize * 31) % 1400));
            }
            let mut moved = 0;
            eventually(|| {
                from.receive(&mut pool, &mut batch, 64);
                moved += to.transmit(&mut batch);
                to.wake().unwrap();
                to.reap(&mut pool);
                balanced(&pool, &[&from, &to]);
                (moved == 40).then_some(())
            })
            .expect("all forty are forwarded");
            for n in 0..40 {
                let frame = sink.receive().expect("forwarded");
                assert_eq!(frame, numbered(expected, 60 + (n as usize * 31) % 1400));
                expected += 1;
            }
        }
        assert_eq!((from.counters().received, to.counters().transmitted), (2000, 2000));
        assert_eq!(from.statistics().rx_dropped, 0);
        let closed = (from.close(&mut pool), to.close(&mut pool));
        assert_eq!((closed.0.lost, closed.1.lost), (0, 0));
        assert_eq!(pool.available(), pool.total());
    });
}

#[test]
fn each_queue_of_an_interface_receives_and_sends() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 2);
        let (region, mut pool) = namespace::region(1024);
        let mut umems = UmemSet::new(region);
        let program = workload(a, 2);
        let mut queues = [port(&mut umems, a, 0, &program), port(&mut umems, a, 1, &program)];
        let wrong = program.set_socket(1, &queues[0]);
        assert!(matches!(wrong, Err(ProgramError::WrongQueue { queue: 1, bound_to: 0 })));
        let wire = Wire::new(b);
        queues.iter_mut().for_each(|queue| assert_eq!(queue.refill(&mut pool), 256));
        // Which queue a flow comes by is the kernel's choice: a hash over addresses and ports.
        for port in 0..64u16 {
            let mut packet = vec![0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            packet.extend_from_slice(&(1024 + 37 * port).to_be_bytes());
            packet.extend_from_slice(&[0, 53, 0, 26, 0, 0]);
            packet.resize(46, 0);
            let mut frame = numbered(0, 14 + 4)[..12].to_vec();
            frame.extend_from_slice(&[8, 0]);
            frame.extend_from_slice(&packet);
            wire.send(&frame);
        }
        let mut counts = [0, 0];
        let mut frames = Vec::new();
        eventually(|| {
            for (queue, count) in queues.iter_mut().zip(&mut counts) {
                *count += queue.receive(&mut pool, &mut frames, 64);
            }
            frames.drain(..).for_each(|frame| pool.put(frame));
            (counts[0] + counts[1] == 64).then_some(())
        });
        assert_eq!(counts[0] + counts[1], 64, "{counts:?}");
        assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
        while wire.try_receive().is_some() {}
        for (n, queue) in (0..).zip(&mut queues) {
            queue.transmit(&mut frames_of(&mut pool, &[numbered(n, 100)]));
            queue.wake().unwrap();
            assert_eq!(wire.receive(), Some(numbered(n, 100)));
        }
    });
}

#[test]
fn a_wait_ends_when_a_frame_comes_or_the_time_is_over() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(64);
        let program = workload(a, 1);
        let mut queue = port(&mut UmemSet::new(region), a, 0, &program);
        queue.refill(&mut pool);
        let started = Instant::now();
        assert_eq!(wait(&[queue.as_fd()], Duration::from_millis(20)).unwrap(), 0);
        assert!(started.elapsed() >= Duration::from_millis(20));
        Wire::new(b).send(&numbered(1, 64));
        assert_eq!(wait(&[queue.as_fd()], namespace::PATIENCE).unwrap(), 1);
        assert_eq!(queue.receive(&mut pool, &mut Vec::new(), 64), 1);
        let many: Vec<_> = std::iter::repeat_n(queue.as_fd(), 65).collect();
        assert_eq!(wait(&many, Duration::ZERO).unwrap(), 0);
    });
}

#[test]
fn a_full_receive_ring_and_an_empty_fill_ring_show_in_the_statistics() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(64);
        let program = workload(a, 1);
        let mut config = namespace::queue(a, 0);
        config.rings = RingSizes { rx: 4, tx: 4, fill: 32, completion: 4 };
        config.tx_budget = None;
        let (mut queue, _) = UmemSet::new(region).bind(config).unwrap();
        program.set_socket(0, &queue).unwrap();
        let wire = Wire::new(b);
        (0..3).for_each(|n| wire.send(&numbered(n, 64)));
        // All three, before there is anything to receive into.
        eventually(|| (queue.statistics().rx_dropped == 3).then_some(())).expect("nothing to receive into");
        assert!(queue.statistics().rx_fill_ring_empty > 0);
        queue.refill(&mut pool);
        (0..10).for_each(|n| wire.send(&numbered(n, 64)));
        eventually(|| (queue.statistics().rx_ring_full == 6).then_some(()))
            .unwrap_or_else(|| panic!("four of ten fit: {:?}", queue.statistics()));
        let mut frames = Vec::new();
        assert_eq!(queue.receive(&mut pool, &mut frames, 64), 4);
        frames.into_iter().for_each(|frame| pool.put(frame));
        balanced(&pool, &[&queue]);
    });
}
