//! What one batch adds to the counters, in plain numbers, stored once a batch.

use model::PortId;
use tables::{Books, DropReason, PortCount, PuntReason, WorkerCounters};

/// The sums of one batch.
pub(crate) struct Tally {
    pub(crate) books: Books,
    ports: Vec<PortCount>,
    touched: Vec<PortId>,
}

impl Tally {
    pub(crate) fn new(ports: usize) -> Tally {
        Tally {
            books: Books::default(),
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
    }

    pub(crate) fn dropped(&mut self, reason: DropReason, ingress: Option<PortId>) {
        self.books.drops[reason.index()] += 1;
        if let Some(count) = ingress.and_then(|port| self.port(port)) {
            count.dropped_packets += 1;
        }
    }

    /// Adds the sums to the worker's counters and begins anew.
    pub(crate) fn flush(&mut self, counters: &WorkerCounters) {
        counters.add(&self.books);
        self.books = Books::default();
        for port in self.touched.drain(..) {
            counters.add_port(port, &self.ports[port.index()]);
            self.ports[port.index()] = PortCount::default();
        }
    }
}
