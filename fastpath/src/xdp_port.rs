//! A port's queue over AF_XDP.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use afxdp::{Closing, Frame, FramePool, Queue};

use crate::{PortQueue, QueueStatistics};

/// An AF_XDP queue as a worker's port.
pub struct XdpPort(pub Queue);

impl PortQueue for XdpPort {
    fn refill(&mut self, pool: &mut FramePool) {
        self.0.refill_when_due(pool);
        // Once a round: frames whose wake-up was put off don't wait for the next ones.
        let _ = self.0.wake_when_due();
    }

    fn receive(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>, max: usize) -> usize {
        self.0.receive_polling(pool, frames, max)
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.0.transmit(frames)
    }

    fn transmit_room(&mut self, wanted: usize) -> usize {
        self.0.transmit_room(wanted)
    }

    fn transmit_slots(&self) -> usize {
        self.0.transmit_slots()
    }

    fn reap(&mut self, pool: &mut FramePool) {
        self.0.reap_when_due(pool);
    }

    fn wake(&mut self) {
        // The interface may be down or going away. The frames stay in the ring, the slow path hears of it by
        // netlink and closes the port; there is nothing that a worker could do about it.
        let _ = self.0.wake_when_due();
    }

    fn wake_now(&mut self) {
        // As in `wake`.
        let _ = self.0.wake_waiting();
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn read_statistics(&self, statistics: &QueueStatistics) {
        let (kernel, ours) = (self.0.statistics(), self.0.counters());
        let pairs = [
            (&statistics.rx_busy_polled, ours.busy_polled),
            (&statistics.rx_dropped, kernel.rx_dropped),
            (&statistics.rx_too_long, ours.too_long),
            (&statistics.rx_no_large_frame, ours.no_large_frame),
            (&statistics.rx_ring_full, kernel.rx_ring_full),
            (&statistics.rx_fill_ring_empty, kernel.rx_fill_ring_empty),
            (&statistics.rx_invalid, kernel.rx_invalid_descriptors),
            (&statistics.tx_invalid, kernel.tx_invalid_descriptors + ours.too_long_to_send),
            (&statistics.tx_ring_empty, kernel.tx_ring_empty),
        ];
        for (shown, counted) in pairs {
            shown.store(counted, Ordering::Relaxed);
        }
    }

    fn close(self: Box<Self>, pool: &mut FramePool) -> Option<Closing> {
        Some(self.0.begin_close(pool))
    }
}
