//! When the other side of a queue is told that there is work: at once where packets are few, else as soon as none comes.

mod support;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use afxdp::{Closing, Frame, FramePool};
use fastpath::{Command, MemoryPort, PortQueue, QueueStatistics, memory_port};
use support::{Build, Rig, UPLINK};

/// A queue that puts off every wake-up, and counts those that may not be put off.
struct Patient {
    port: MemoryPort,
    told: Arc<AtomicUsize>,
}

impl PortQueue for Patient {
    fn refill(&mut self, pool: &mut FramePool) {
        self.port.refill(pool);
    }

    fn receive(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>, max: usize) -> usize {
        self.port.receive(pool, frames, max)
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.port.transmit(frames)
    }

    fn transmit_room(&mut self, wanted: usize) -> usize {
        self.port.transmit_room(wanted)
    }

    fn transmit_slots(&self) -> usize {
        self.port.transmit_slots()
    }

    fn reap(&mut self, pool: &mut FramePool) {
        self.port.reap(pool);
    }

    fn wake(&mut self) {}

    fn wake_now(&mut self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read_statistics(&self, _: &QueueStatistics) {}

    fn close(self: Box<Self>, pool: &mut FramePool) -> Option<Closing> {
        Box::new(self.port).close(pool)
    }
}

#[test]
fn packets_wait_for_company_only_while_there_is_some() {
    let mut rig = Rig::new();
    let told = Arc::new(AtomicUsize::new(0));
    let (port, wire) = memory_port(8);
    let queue = Box::new(Patient { port, told: Arc::clone(&told) });
    rig.commands.send(Command::AddQueue { port: UPLINK, queue, statistics: Arc::default() }).unwrap();
    rig.worker.housekeeping();
    rig.worker.round();
    let mut round = |packet: bool| {
        let before = told.load(Ordering::Relaxed);
        if packet {
            assert!(wire.send(&Build::inward().frame()), "the wire has room");
        }
        assert_eq!(rig.worker.round(), usize::from(packet));
        told.load(Ordering::Relaxed) - before
    };
    assert_eq!(round(true), 1, "the first one comes alone");
    assert_eq!([round(true), round(true)], [0, 0], "they come one after the other");
    assert_eq!(round(false), 1, "none comes any more");
    assert_eq!(round(true), 1, "the first one again");
}
