//! A port made of plain memory (ARCHITECTURE.md, D4): the walk without root, NIC or kernel.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use afxdp::{Closing, Frame, FramePool};
use crossbeam_queue::ArrayQueue;

use crate::{PortQueue, QueueStatistics};

/// Both directions of a wire, bounded.
struct Rings {
    towards_port: ArrayQueue<Vec<u8>>,
    from_port: ArrayQueue<Vec<u8>>,
}

/// The router's side: a [`PortQueue`].
pub struct MemoryPort {
    rings: Arc<Rings>,
    /// Frames to receive into, like a fill ring.
    fill: Vec<Frame>,
    fill_max: usize,
    /// Frames sent and not yet reaped, like a completion ring.
    sent: VecDeque<Frame>,
}

/// The other side: whoever is on the wire.
#[derive(Clone)]
pub struct Wire(Arc<Rings>);

/// A port and its wire, each direction holding at most `slots` frames.
///
/// # Panics
/// Where `slots` is zero.
pub fn memory_port(slots: usize) -> (MemoryPort, Wire) {
    let rings = Arc::new(Rings { towards_port: ArrayQueue::new(slots), from_port: ArrayQueue::new(slots) });
    let port = MemoryPort {
        rings: Arc::clone(&rings),
        fill: Vec::with_capacity(slots),
        fill_max: slots,
        sent: VecDeque::with_capacity(slots),
    };
    (port, Wire(rings))
}

impl Wire {
    /// Sends a frame to the port; `false` where the wire is full.
    pub fn send(&self, frame: &[u8]) -> bool {
        self.0.towards_port.push(frame.to_vec()).is_ok()
    }

    /// The next frame that the port sent.
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.0.from_port.pop()
    }
}

impl PortQueue for MemoryPort {
    fn refill(&mut self, pool: &mut FramePool) {
        while self.fill.len() < self.fill_max {
            let Some(frame) = pool.take() else { return };
            self.fill.push(frame);
        }
    }

    fn receive(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>, max: usize) -> usize {
        let mut received = 0;
        while received < max && !self.fill.is_empty() {
            let Some(bytes) = self.rings.towards_port.pop() else { break };
            let Some(mut frame) = self.fill.pop() else { break };
            if frame.copy_from(&bytes).is_err() {
                self.fill.push(frame);
                // What is longer than a chunk takes a large frame, or is lost, as a NIC would lose it.
                let Some(large) = pool.take_for(bytes.len()) else { continue };
                frame = large;
                let _ = frame.copy_from(&bytes);
            }
            frames.push(frame);
            received += 1;
        }
        received
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        let taken = self.transmit_room(frames.len());
        for frame in frames.drain(..taken) {
            // This side alone adds, so the room counted above is there.
            let _ = self.rings.from_port.push(frame.bytes().to_vec());
            self.sent.push_back(frame);
        }
        taken
    }

    fn transmit_room(&mut self, wanted: usize) -> usize {
        (self.rings.from_port.capacity() - self.rings.from_port.len()).min(wanted)
    }

    fn transmit_slots(&self) -> usize {
        self.rings.from_port.capacity()
    }

    fn reap(&mut self, pool: &mut FramePool) {
        self.sent.drain(..).for_each(|frame| pool.put(frame));
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
