//! Closing, dying, and binding again.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::namespace::{self, Wire, collect, eventually, in_namespace, ip, numbered, veth};
use crate::{AttachRequest, BindError, Program, ProgramKind, QueueConfig, RingSizes, UmemSet};

/// Tells [`child_that_holds_a_queue_until_killed`] which interface to hold.
const CHILD: &str = "TORTIE_TEST_HOLD_QUEUE_OF";

fn config(ifindex: u32) -> QueueConfig {
    let mut config = namespace::queue(ifindex, 0);
    config.rings = RingSizes { rx: 64, tx: 64, fill: 64, completion: 64 };
    config.tx_budget = None;
    config
}

#[test]
fn closing_returns_every_frame_and_frees_the_queue_at_once() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(256);
        let mut umems = UmemSet::new(region);
        let program = Program::load(ProgramKind::Workload, 1).unwrap();
        program.attach(a, AttachRequest::Native).unwrap();
        let wire = Wire::new(b);
        for round in 0..5 {
            let (mut queue, report) = umems.bind(config(a)).unwrap();
            println!("{report}");
            program.set_socket(0, &queue).unwrap();
            queue.refill(&mut pool);
            // Some received and not fetched, some waiting to be sent.
            (0..5).for_each(|n| wire.send(&numbered(n, 64)));
            let mut frames: Vec<_> = (0..10).filter_map(|_| pool.take()).collect();
            for frame in &mut frames {
                frame.copy_from(&numbered(round, 64)).unwrap();
            }
            assert_eq!(queue.transmit(&mut frames), 10);
            let outstanding = queue.outstanding().total();
            let closed = queue.close(&mut pool);
            assert_eq!((closed.recovered, closed.lost), (outstanding, 0));
            assert_eq!(pool.available(), pool.total());
        }
    });
}

/// A worker has no other (`tortie/src/privileges.rs`).
#[test]
fn a_thread_that_may_open_raw_sockets_and_nothing_else_closes_without_loss() {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(128);
        let (mut queue, _) = UmemSet::new(region).bind(config(a)).unwrap();
        queue.refill(&mut pool);
        let outstanding = queue.outstanding().total();
        let kept = CapabilitySet::NET_RAW;
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets).unwrap();
        let closed = queue.close(&mut pool);
        assert_eq!((closed.recovered, closed.lost), (outstanding, 0));
    });
}

#[test]
fn frames_the_kernel_never_took_come_back_when_the_interface_is_gone() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(128);
        let (mut queue, _) = UmemSet::new(region).bind(config(a)).unwrap();
        queue.refill(&mut pool);
        let mut frames: Vec<_> = (0..10).filter_map(|_| pool.take()).collect();
        for frame in &mut frames {
            frame.copy_from(&numbered(1, 64)).unwrap();
        }
        queue.transmit(&mut frames);
        ip("link del dev a");
        let closed = queue.close(&mut pool);
        assert_eq!((closed.recovered, closed.lost), (74, 0));
        assert_eq!(pool.available(), pool.total());
    });
}

#[test]
fn while_the_interface_is_down_nothing_is_sent_and_the_frames_can_be_had_back() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(128);
        let (mut queue, _) = UmemSet::new(region).bind(config(a)).unwrap();
        ip("link set dev a down");
        let mut frame = pool.take().unwrap();
        frame.copy_from(&numbered(1, 64)).unwrap();
        queue.transmit(&mut vec![frame]);
        assert_eq!(queue.wake().unwrap_err().raw_os_error(), Some(libc::ENETDOWN));
        assert_eq!(queue.outstanding().transmit, 1);
        let closed = queue.close(&mut pool);
        assert_eq!((closed.recovered, closed.lost), (1, 0));
    });
}

#[test]
fn a_worker_can_close_a_queue_without_waiting() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(128);
        let (mut queue, _) = UmemSet::new(region).bind(config(a)).unwrap();
        queue.refill(&mut pool);
        let mut closing = queue.begin_close(&mut pool);
        assert_eq!(pool.available(), 64, "the kernel may still be at it");
        let closed = eventually(|| closing.poll(&mut pool)).expect("it ends");
        assert_eq!((closed.recovered, closed.lost), (64, 0));
    });
}

#[test]
fn frames_stay_away_as_long_as_anybody_keeps_the_socket_open() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(128);
        let (mut queue, _) = UmemSet::new(region).bind(config(a)).unwrap();
        queue.refill(&mut pool);
        // As a child does between fork and exec.
        let copy = queue.as_fd().try_clone_to_owned().unwrap();
        let mut closing = queue.begin_close(&mut pool);
        for _ in 0..20 {
            assert_eq!(closing.poll(&mut pool), None);
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(pool.available(), 64);
        drop(copy);
        assert_eq!(closing.wait(&mut pool).lost, 0);
        assert_eq!(pool.available(), 128);
    });
}

#[test]
fn a_queue_dropped_without_closing_loses_its_frames_and_nothing_else() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(256);
        let mut umems = UmemSet::new(region);
        let (mut queue, _) = umems.bind(config(a)).unwrap();
        queue.refill(&mut pool);
        drop(queue);
        assert_eq!(pool.missing(0), 64);
        let program = Program::load(ProgramKind::Workload, 1).unwrap();
        program.attach(a, AttachRequest::Native).unwrap();
        let (mut queue, _) = umems.bind(config(a)).unwrap();
        program.set_socket(0, &queue).unwrap();
        queue.refill(&mut pool);
        Wire::new(b).send(&numbered(1, 64));
        assert_eq!(collect(&mut queue, &mut pool, 1), [numbered(1, 64)]);
        assert_eq!(queue.close(&mut pool).lost, 0);
        assert_eq!(pool.available(), 192);
    });
}

/// A process of ours that is killed at the end, whatever happens.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_queue_held_by_another_process_names_it_and_is_free_soon_after_that_is_killed() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "tests::closing::child_that_holds_a_queue_until_killed",
            "--ignored",
            "--nocapture",
        ]);
        command.env(CHILD, a.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let mut child = Killed(child);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("bound")), "the child holds the queue");

        let (region, _pool) = namespace::region(64);
        let mut umems = UmemSet::new(region);
        let mut impatient = config(a);
        impatient.bind_retry = Duration::ZERO;
        match umems.bind(impatient).unwrap_err() {
            BindError::Busy { holder: Some(holder), .. } => assert_eq!(holder.pid, child.0.id()),
            BindError::Busy { holder: None, .. } => {
                println!("skipped: no AF_XDP diagnostics to name the holder by")
            }
            other => panic!("{other}"),
        }
        child.0.kill().unwrap();
        let (_queue, report) = umems.bind(config(a)).expect("free within the retry time");
        println!("{report}");
    });
}

#[test]
#[ignore = "a part of the test above, run by it in a process of its own"]
fn child_that_holds_a_queue_until_killed() {
    let Some(ifindex) = std::env::var(CHILD).ok().and_then(|text| text.parse().ok()) else {
        println!("skipped: {CHILD} isn't set; this is started by another test");
        return;
    };
    let (region, mut pool) = namespace::region(128);
    let (mut queue, _) = UmemSet::new(region).bind(config(ifindex)).unwrap();
    queue.refill(&mut pool);
    println!("bound");
    // Killed before that; where the parent is killed first, its end of the pipe is closed, and nothing stays.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
fn what_was_being_received_when_a_queue_closed_is_not_written_to_afterwards() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(64);
        let mut umems = UmemSet::new(region);
        let program = Program::load(ProgramKind::Workload, 1).unwrap();
        program.attach(a, AttachRequest::Native).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let sender = std::thread::spawn({
            let (wire, stop) = (Wire::new(b), std::sync::Arc::clone(&stop));
            move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    wire.send(&numbered(0xffff_ffff, 1000));
                }
            }
        });
        for _ in 0..10 {
            let (mut queue, _) = umems.bind(config(a)).unwrap();
            program.set_socket(0, &queue).unwrap();
            queue.refill(&mut pool);
            let mut frames = Vec::new();
            eventually(|| (queue.receive(&mut pool, &mut frames, 8) > 0).then_some(()))
                .expect("traffic flows");
            frames.drain(..).for_each(|frame| pool.put(frame));
            assert_eq!(queue.close(&mut pool).lost, 0);
            // All frames are ours again: what we write must stay.
            let mut all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
            for frame in &mut all {
                frame.copy_from(&[0x5a; 1792]).unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
            assert!(all.iter().all(|frame| frame.bytes().iter().all(|byte| *byte == 0x5a)));
            all.into_iter().for_each(|frame| pool.put(frame));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        sender.join().unwrap();
    });
}
