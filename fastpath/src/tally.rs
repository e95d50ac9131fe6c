//! What one batch adds to the counters, in plain numbers, stored once a batch.

use model::PortId;
use tables::{Books, DropReason, PortCount, PuntReason, WorkerCounters};

/// The sums of one batch.
pub(crate) struct Tally {
    /// Punts and drops are entered by methods, which remember that there are any.
    pub(crate) books: Books,
    has_side_exits: bool,
    ports: Vec<PortCount>,
    touched: Vec<PortId>,
}

impl Tally {
    pub(crate) fn new(ports: usize) -> Tally {
        Tally {
            books: Books::default(),
            has_side_exits: false,
            ports: vec![PortCount::default(); ports],
            touched: Vec::with_capacity(ports),
        }
    }

    /// A port's counts; `None` beyond the table of ports.
    pub(crate) fn port(&mut self, port: PortId) -> Option<&mut PortCount> {
        let count = self.ports.get_mut(port.index())?;
        if *count == PortCount::default() {
            self.touched.push(port);
        }
        Some(count)
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
        if let Some(count) = ingress.and_then(|port| self.port(port)) {
            count.dropped_packets += 1;
        }
    }

    /// Adds the sums to the worker's counters and begins anew.
    pub(crate) fn flush(&mut self, counters: &WorkerCounters) {
        // Nearly no batch has any, and a packet that came alone shouldn't wait for a look at every reason.
        if std::mem::take(&mut self.has_side_exits) {
            counters.add(&self.books);
            self.books = Books::default();
        } else {
            counters.add_passed(&self.books);
            let Books { received, injected, forwarded, fragmented, fragments, .. } = &mut self.books;
            [received, injected, forwarded, fragmented, fragments].into_iter().for_each(|count| *count = 0);
        }
        for port in self.touched.drain(..) {
            counters.add_port(port, &self.ports[port.index()]);
            self.ports[port.index()] = PortCount::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use tables::Counters;

    use super::*;

    #[test]
    fn each_batch_is_added_once_with_side_exits_and_without() {
        let (counters, mut tally) = (Counters::new(1, 1), Tally::new(1));
        let port = PortId(0);
        let flush = |tally: &mut Tally| {
            tally.books.received += 4;
            tally.books.forwarded += 1;
            tally.flush(counters.worker(0));
            let books = counters.books();
            let lost = books.drops[DropReason::Blackhole.index()]
                + books.drops[DropReason::TransmitRingFull.index()];
            (books.received, books.forwarded, books.punts[PuntReason::Arp.index()], lost)
        };
        assert_eq!(flush(&mut tally), (4, 1, 0, 0));
        tally.punted(PuntReason::Arp);
        assert_eq!(flush(&mut tally), (8, 2, 1, 0));
        tally.dropped(DropReason::Blackhole, Some(port));
        assert_eq!(flush(&mut tally), (12, 3, 1, 1));
        tally.refused(2);
        assert_eq!(flush(&mut tally), (16, 4, 1, 3));
        assert_eq!(flush(&mut tally), (20, 5, 1, 3));
        assert_eq!(counters.port(port).dropped_packets, 1);
    }
}
