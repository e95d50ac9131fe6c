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
        Replay { bytes, len, packets: packets.len() }
    }
}

/// A queue of such a port; its cache lines are its own, for it is written at every packet.
#[repr(align(128))]
pub struct ReplayPort {
    replay: Arc<Replay>,
    at: usize,
    fill: Vec<Frame>,
    fill_max: usize,
    sent: Vec<Frame>,
}

impl ReplayPort {
    /// A queue that keeps `slots` frames to receive into, and begins with packet `start`.
    pub fn new(replay: Arc<Replay>, slots: usize, start: usize) -> ReplayPort {
        let at = start % replay.packets;
        ReplayPort {
            replay,
            at,
            fill: Vec::with_capacity(slots),
            fill_max: slots,
            sent: Vec::with_capacity(slots),
        }
    }
}

impl ReplayPort {
    /// A queue that only sends.
    pub fn sink() -> ReplayPort {
        ReplayPort::new(Arc::new(Replay { bytes: vec![0], len: 1, packets: 1 }), 0, 0)
    }
}

impl PortQueue for ReplayPort {
    fn refill(&mut self, pool: &mut FramePool) {
        pool.take_many(self.fill_max - self.fill.len(), &mut self.fill);
    }

    fn receive(&mut self, _: &mut FramePool, frames: &mut Vec<Frame>, max: usize) -> usize {
        let Replay { bytes, len, packets } = &*self.replay;
        let first = self.fill.len().saturating_sub(max);
        let received = self.fill.len() - first;
        let mut rest = &mut self.fill[first..];
        while !rest.is_empty() {
            // As many as come before the packets begin anew.
            let (now, later) = rest.split_at_mut(rest.len().min(packets - self.at));
            for (frame, packet) in now.iter_mut().zip(bytes[self.at * len..].chunks_exact(*len)) {
                let copied = frame.copy_from(packet);
                debug_assert!(copied.is_ok(), "a packet fits a frame");
            }
            self.at = (self.at + now.len()) % packets;
            rest = later;
        }
        frames.extend(self.fill.drain(first..));
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
        self.fill_max
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
        self.fill.into_iter().chain(self.sent).for_each(|frame| pool.put(frame));
        None
    }
}
