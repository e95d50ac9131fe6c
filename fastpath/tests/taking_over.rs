//! Queues change hands: what a worker is sent before the change is lost on neither side of it.

mod support;

use std::sync::atomic::AtomicBool;

use fastpath::{Command, memory_port};
use model::PortId;
use support::{Build, Rig, Sizes, UPLINK, WORKLOAD};

#[test]
fn what_came_before_the_order_to_stop_is_forwarded() {
    // More than one batch.
    let waiting = 300;
    let mut rig = Rig::sized(Sizes { wire_slots: 512, flows: 1024, ..Sizes::default() });
    // It had frames to receive in.
    rig.worker.round();
    for _ in 0..waiting {
        assert!(rig.wire(UPLINK).send(&Build::inward().frame()), "the wire has room");
    }
    rig.worker.run(&AtomicBool::new(true));
    let left = std::iter::from_fn(|| rig.wire(WORKLOAD).receive()).count();
    assert_eq!((left, rig.counters.books().forwarded), (waiting, waiting as u64));
    rig.audit();
}

#[test]
fn a_queue_that_is_confirmed_has_frames_to_receive_in() {
    let mut rig = Rig::new();
    rig.worker.round();
    let (free, _) = rig.worker.frames();
    let (queue, _wire) = memory_port(8);
    let new = Command::AddQueue { port: PortId(9), queue: Box::new(queue), statistics: Default::default() };
    rig.commands.send(new).unwrap();
    let (done, ready) = crossbeam_channel::bounded(1);
    rig.commands.send(Command::Confirm { done }).unwrap();
    rig.worker.housekeeping();
    ready.try_recv().expect("the worker has said so");
    assert_eq!(rig.worker.frames().0, free - 8);
}
