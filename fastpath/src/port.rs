//! A port's queue as a worker sees it (ARCHITECTURE.md, D4): AF_XDP or plain memory.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use afxdp::{Closing, Frame, FramePool};

/// One queue of one port: four rings, whatever they are made of.
pub trait PortQueue: Send {
    /// Tops up the frames that packets are received into.
    fn refill(&mut self, pool: &mut FramePool);

    /// Appends at most `max` received frames to `frames`, and says how many. What comes in pieces is put together in frames of
    /// the pool.
    fn receive(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>, max: usize) -> usize;

    /// Takes frames from the front of `frames` as long as the transmit ring has room, and says how many.
    fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize;

    /// Slots that are free in the transmit ring, counted up to `wanted`.
    fn transmit_room(&mut self, wanted: usize) -> usize;

    /// Slots that the transmit ring has.
    fn transmit_slots(&self) -> usize;

    /// Gives frames that were sent back to the pool.
    fn reap(&mut self, pool: &mut FramePool);

    /// Tells the other side that there is work, where it asked to be told; soon, as more may come that goes with it.
    fn wake(&mut self);

    /// Tells it now: nothing came meanwhile. Where [`wake`](Self::wake) puts nothing off, there is nothing to tell.
    fn wake_now(&mut self) {}

    /// What an idle worker can sleep on; `None` where there is nothing.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Writes what the kernel counted into `statistics`.
    fn read_statistics(&self, statistics: &QueueStatistics);

    /// Ends the queue. Its frames go back to the pool, at once or as the kernel lets go of them: then there is an end
    /// to be waited for, which the worker does between batches.
    fn close(self: Box<Self>, pool: &mut FramePool) -> Option<Closing>;
}

/// What the kernel says about a queue (`XDP_STATISTICS`), refreshed once a second by the worker that owns it.
#[derive(Debug, Default)]
pub struct QueueStatistics {
    /// Frames that came when the worker asked the driver; 0 where interrupts drive the queue.
    pub rx_busy_polled: AtomicU64,
    /// Frames dropped for reasons other than a full ring: longer than a chunk where none may come in pieces.
    pub rx_dropped: AtomicU64,
    /// Frames longer than a large frame.
    pub rx_too_long: AtomicU64,
    /// Frames in pieces while no large frame was free.
    pub rx_no_large_frame: AtomicU64,
    /// Frames dropped because the receive ring was full: the worker was behind.
    pub rx_ring_full: AtomicU64,
    /// Frames dropped because the fill ring was empty: the worker was out of frames, or behind.
    pub rx_fill_ring_empty: AtomicU64,
    /// Receive descriptors that weren't valid.
    pub rx_invalid: AtomicU64,
    /// Transmit descriptors that the kernel refused, and frames above a chunk that the queue can't send.
    pub tx_invalid: AtomicU64,
    /// Times that the kernel found the transmit ring empty.
    pub tx_ring_empty: AtomicU64,
}

impl QueueStatistics {
    /// Frames that were lost before the walk saw them.
    pub fn lost(&self) -> u64 {
        [
            &self.rx_dropped,
            &self.rx_too_long,
            &self.rx_no_large_frame,
            &self.rx_ring_full,
            &self.rx_fill_ring_empty,
        ]
        .iter()
        .map(|counter| counter.load(Ordering::Relaxed))
        .sum()
    }
}
