//! What one batch adds to the counters: its books in plain numbers, stored once a batch, and what ports receive and send.

use model::{PortId, WorkerId};
use tables::{Books, Counters, DropReason, PuntReason, WorkerCounters};

/// The books of one batch, and where they go.
pub(crate) struct Tally {
    /// Punts and drops are entered by methods, which remember that there are any.
    pub(crate) books: Books,
    has_side_exits: bool,
    counters: Counters,
    worker: usize,
}

impl Tally {
    /// Counts in the worker's own row.
    pub(crate) fn new(counters: Counters, worker: WorkerId) -> Tally {
        Tally { books: Books::default(), has_side_exits: false, counters, worker: worker.index() }
    }

    #[inline]
    fn counters(&self) -> &WorkerCounters {
        self.counters.worker(self.worker)
    }

    /// Frames that a port's receive ring gave.
    #[inline]
    pub(crate) fn received(&mut self, port: PortId, packets: u64, bytes: u64) {
        self.books.received += packets;
        self.counters().add_received(port, packets, bytes);
    }

    /// Frames that a port's transmit ring took.
    #[inline]
    pub(crate) fn forwarded(&mut self, port: PortId, packets: u64, bytes: u64) {
        self.books.forwarded += packets;
        self.counters().add_forwarded(port, packets, bytes);
    }

    pub(crate) fn punted(&mut self, reason: PuntReason) {
        self.books.punts[reason.index()] += 1;
        self.has_side_exits = true;
    }

    /// Frames that the transmit ring didn't take.
    pub(crate) fn refused(&mut self, frames: u64) {
        if frames > 0 {
            self.books.drops[DropReason::TransmitRingFull.index()] += frames;
            self.has_side_exits = true;
        }
    }

    pub(crate) fn dropped(&mut self, reason: DropReason, ingress: Option<PortId>) {
        self.books.drops[reason.index()] += 1;
        self.has_side_exits = true;
        if let Some(port) = ingress {
            self.counters().add_dropped(port, 1);
        }
    }

    /// Adds the books to the worker's counters and begins anew.
    pub(crate) fn flush(&mut self) {
        let counters = self.counters.worker(self.worker);
        // Nearly no batch has any, and a packet that came alone shouldn't wait for a look at every reason.
        if std::mem::take(&mut self.has_side_exits) {
            counters.add(&self.books);
            self.books = Books::default();
        } else {
            counters.add_passed(&self.books);
            let Books { received, injected, forwarded, fragmented, fragments, .. } = &mut self.books;
            [received, injected, forwarded, fragmented, fragments].into_iter().for_each(|count| *count = 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use tables::PortCount;

    use super::*;

    #[test]
    fn each_batch_is_added_once_with_side_exits_and_without() {
        let (counters, port) = (Counters::new(1, 1), PortId(0));
        let mut tally = Tally::new(counters.clone(), WorkerId(0));
        let flush = |tally: &mut Tally| {
            tally.received(port, 4, 256);
            tally.forwarded(port, 1, 80);
            tally.flush();
            let books = counters.books();
            let lost = [DropReason::Blackhole, DropReason::TransmitRingFull]
                .map(|reason| books.drops[reason.index()]);
            (books.received, books.forwarded, books.punts[PuntReason::Arp.index()], lost)
        };
        assert_eq!(flush(&mut tally), (4, 1, 0, [0, 0]));
        tally.punted(PuntReason::Arp);
        assert_eq!(flush(&mut tally), (8, 2, 1, [0, 0]));
        tally.dropped(DropReason::Blackhole, Some(port));
        assert_eq!(flush(&mut tally), (12, 3, 1, [1, 0]));
        tally.refused(2);
        assert_eq!(flush(&mut tally), (16, 4, 1, [1, 2]));
        assert_eq!(flush(&mut tally), (20, 5, 1, [1, 2]));
        let count = PortCount {
            received_packets: 20,
            received_bytes: 1280,
            forwarded_packets: 5,
            forwarded_bytes: 400,
            dropped_packets: 1,
        };
        assert_eq!(counters.port(port), count);
    }
}
