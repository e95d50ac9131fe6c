//! The queues that one worker owns: at most one of every port.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use afxdp::{Closing, Frame, FramePool};
use model::PortId;

use crate::batch::ROOM;
use crate::fair_share::FairShare;
use crate::{PortQueue, QueueStatistics};

/// A queue and what waits to leave by it. Its cache lines are its own, for it is written at every batch.
#[repr(align(128))]
pub(crate) struct OwnedQueue {
    pub(crate) port: PortId,
    pub(crate) queue: Box<dyn PortQueue>,
    /// Frames of this batch, in order.
    pub(crate) waiting: Vec<Frame>,
    /// Where fragments wait among them: frames that weren't in the batch.
    pub(crate) pieces: Vec<usize>,
    /// Frames of this batch that were sent already, to make room for fragments.
    pub(crate) gone: usize,
    /// Who gets the last slots of its transmit ring.
    pub(crate) fair_share: FairShare,
    statistics: Arc<QueueStatistics>,
}

/// Row of a port that this worker has no queue of.
const NONE: u16 = u16::MAX;

/// A worker's queues, found by port.
#[derive(Default)]
pub(crate) struct Queues {
    list: Vec<OwnedQueue>,
    closing: Vec<Closing>,
    row_of_port: Vec<u16>,
    /// The row of the queue that is asked first for frames.
    first: usize,
    /// Queues that gave frames to the last batch.
    pub(crate) giving: usize,
}

impl Queues {
    /// Adds a queue; one that the port had before is closed.
    pub(crate) fn add(
        &mut self,
        port: PortId,
        queue: Box<dyn PortQueue>,
        statistics: Arc<QueueStatistics>,
        pool: &mut FramePool,
    ) {
        self.remove(port, pool);
        let fair_share = FairShare::new(queue.transmit_slots());
        let waiting = Vec::with_capacity(ROOM);
        let pieces = Vec::with_capacity(ROOM);
        self.list.push(OwnedQueue { port, queue, waiting, pieces, gone: 0, fair_share, statistics });
        self.number();
    }

    /// Closes a port's queue and takes its frames back.
    pub(crate) fn remove(&mut self, port: PortId, pool: &mut FramePool) {
        if let Some(row) = self.row(port) {
            let mut owned = self.list.remove(row);
            pool.put_all(&mut owned.waiting);
            self.closing.extend(owned.queue.close(pool));
            self.number();
        }
    }

    /// Takes frames back from queues that are closing, as far as the kernel has let go of them.
    pub(crate) fn poll_closing(&mut self, pool: &mut FramePool) {
        self.closing.retain_mut(|closing| closing.poll(pool).is_none());
    }

    /// Closes every queue and waits for the kernel to let go.
    pub(crate) fn close_all(&mut self, pool: &mut FramePool) {
        while let Some(port) = self.list.first().map(|owned| owned.port) {
            self.remove(port, pool);
        }
        for closing in self.closing.drain(..) {
            closing.wait(pool);
        }
    }

    /// This worker's queue of a port.
    #[inline]
    pub(crate) fn of_port(&mut self, port: PortId) -> Option<&mut OwnedQueue> {
        let row = self.row(port)?;
        self.list.get_mut(row)
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, OwnedQueue> {
        self.list.iter_mut()
    }

    /// All queues, beginning with the one that is asked first.
    pub(crate) fn iter_from_first(&mut self) -> impl Iterator<Item = &mut OwnedQueue> {
        // Queues may have gone since.
        let first = self.first.min(self.list.len());
        let (before, after) = self.list.split_at_mut(first);
        after.iter_mut().chain(before)
    }

    /// The next queue is asked first from now on.
    pub(crate) fn next_is_first(&mut self) {
        self.first = if self.first + 1 < self.list.len() { self.first + 1 } else { 0 };
    }

    /// What an idle worker can sleep on.
    pub(crate) fn poll_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.list.iter().filter_map(|owned| owned.queue.poll_fd())
    }

    /// Has what the kernel counted written down for every queue.
    pub(crate) fn read_statistics(&self) {
        self.list.iter().for_each(|owned| owned.queue.read_statistics(&owned.statistics));
    }

    #[inline]
    fn row(&self, port: PortId) -> Option<usize> {
        self.row_of_port.get(port.index()).filter(|row| **row != NONE).map(|row| usize::from(*row))
    }

    fn number(&mut self) {
        self.row_of_port.clear();
        for (row, owned) in self.list.iter().enumerate() {
            if self.row_of_port.len() <= owned.port.index() {
                self.row_of_port.resize(owned.port.index() + 1, NONE);
            }
            self.row_of_port[owned.port.index()] = row as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use afxdp::{Region, RegionConfig};

    use super::*;
    use crate::memory_port;

    #[test]
    fn each_queue_is_asked_first_in_its_turn_also_when_some_have_gone() {
        let config = RegionConfig { frames: 8, chunk_size: 2048, large: None, hugepages: false };
        let mut pool = Region::new(config).unwrap().1;
        let mut queues = Queues::default();
        for port in 0..3 {
            queues.add(PortId(port), Box::new(memory_port(1).0), Arc::default(), &mut pool);
        }
        let turn = |queues: &mut Queues| {
            let asked: Vec<_> = queues.iter_from_first().map(|owned| owned.port.0).collect();
            queues.next_is_first();
            asked
        };
        assert_eq!([turn(&mut queues), turn(&mut queues)], [[0, 1, 2], [1, 2, 0]]);
        // The third one would be next.
        queues.remove(PortId(1), &mut pool);
        queues.remove(PortId(2), &mut pool);
        assert_eq!([turn(&mut queues), turn(&mut queues)], [[0], [0]]);
        queues.add(PortId(2), Box::new(memory_port(1).0), Arc::default(), &mut pool);
        assert_eq!([turn(&mut queues), turn(&mut queues)], [[0, 2], [2, 0]]);
    }
}
