//! A port that receives the same packets over and over: the walk's own speed, without a kernel or a wire.
//!
//! Each frame is written anew, as a NIC would write it, so what the walk changes does no harm. What is
//! sent is counted and forgotten.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use afxdp::{Closing, Frame, FramePool};
use fastpath::{PortQueue, QueueStatistics};

/// What to receive, shared by the ports of all workers.
pub struct Replay {
    /// All packets, one behind the other, of one length each.
    bytes: Vec<u8>,
    len: usize,
    packets: usize,
    at_once: usize,
}

impl Replay {
    /// Packets of one length, in the order in which they come, over and over.
    ///
    /// # Panics
    /// Where they differ in length, or there is none.
    pub fn new(packets: &[Vec<u8>]) -> Replay {
        let len = packets.first().map_or(0, Vec::len);
        assert!(len > 0 && packets.iter().all(|packet| packet.len() == len), "packets of one length");
        let bytes = packets.concat();
        // As a NIC that writes frames by itself, it costs no look-ups of pages.
        afxdp::prefer_huge_pages(bytes.as_ptr().addr()..bytes.as_ptr().addr() + bytes.len());
        Replay { bytes, len, packets: packets.len(), at_once: usize::MAX }
    }

    /// At most so many of them are there when somebody looks: with one, each is a batch of its own, as under light traffic.
    pub fn at_once(self, at_once: usize) -> Replay {
        Replay { at_once, ..self }
    }
}

/// A queue of such a port; its cache lines are its own, for it is written at every packet.
#[repr(align(128))]
pub struct ReplayPort {
    replay: Arc<Replay>,
    at: usize,
    slots: usize,
    sent: Vec<Frame>,
}

impl ReplayPort {
    /// A queue that begins with packet `start`, and keeps up to `slots` frames until they are reaped.
    pub fn new(replay: Arc<Replay>, slots: usize, start: usize) -> ReplayPort {
        let at = start % replay.packets;
        ReplayPort { replay, at, slots, sent: Vec::with_capacity(slots) }
    }
}

/// Length of the shortest packets, which most works have.
const SHORTEST: usize = 64;

/// Each packet into a frame.
#[inline(always)]
fn copy<P: AsRef<[u8]>>(frames: &mut [Frame], packets: impl IntoIterator<Item = P>) {
    for (frame, packet) in frames.iter_mut().zip(packets) {
        let copied = frame.copy_from(packet.as_ref());
        debug_assert!(copied.is_ok(), "a packet fits a frame");
    }
}

impl ReplayPort {
    /// A queue that only sends.
    pub fn sink() -> ReplayPort {
        ReplayPort::new(Arc::new(Replay::new(&[vec![0]])), 0, 0)
    }
}

impl PortQueue for ReplayPort {
    /// There is no ring that somebody else fills: a frame is taken when its packet comes.
    fn refill(&mut self, _: &mut FramePool) {}

    fn receive(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>, max: usize) -> usize {
        let Replay { bytes, len, packets, at_once } = &*self.replay;
        let before = frames.len();
        let received = pool.take_many(max.min(self.slots).min(*at_once), frames);
        let mut rest = &mut frames[before..];
        while !rest.is_empty() {
            // As many as come before the packets begin anew.
            let (now, later) = rest.split_at_mut(rest.len().min(packets - self.at));
            let these = &bytes[self.at * len..];
            // A NIC puts packets where they are near. Those of the next batch are asked for, so that nobody waits for them.
            for later in 0..now.len() {
                lpm::prefetch(these, (now.len() + later) * len);
            }
            match *len {
                // A copy of a known length is two instructions.
                SHORTEST => copy(now, these.as_chunks::<SHORTEST>().0),
                len => copy(now, these.chunks_exact(len)),
            }
            self.at = (self.at + now.len()) % packets;
            rest = later;
        }
        received
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        let taken = frames.len();
        self.sent.append(frames);
        taken
    }

    fn transmit_room(&mut self, wanted: usize) -> usize {
        wanted
    }

    fn transmit_slots(&self) -> usize {
        self.slots
    }

    fn reap(&mut self, pool: &mut FramePool) {
        pool.put_all(&mut self.sent);
    }

    fn wake(&mut self) {}

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read_statistics(&self, _: &QueueStatistics) {}

    fn close(self: Box<Self>, pool: &mut FramePool) -> Option<Closing> {
        self.sent.into_iter().for_each(|frame| pool.put(frame));
        None
    }
}
