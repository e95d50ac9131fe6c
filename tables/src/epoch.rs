//! Quiescent states: how the writer knows that no reader still sees what it took away (ARCHITECTURE.md, D5).
//!
//! Every reader has a slot. Between batches it stores the number of the epoch that it has seen; before it sleeps
//! it stores [`OFFLINE`]. What was unlinked before epoch *e* began may be reused once every slot is *e* or later.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread;
use std::time::Duration;

use crossbeam_utils::{Backoff, CachePadded};

/// The slot of a reader that holds nothing.
const OFFLINE: u64 = u64::MAX;

/// The current epoch and what each reader has seen of it.
pub(crate) struct Epochs {
    current: CachePadded<AtomicU64>,
    seen: Box<[CachePadded<AtomicU64>]>,
}

impl Epochs {
    pub(crate) fn new(readers: usize) -> Epochs {
        Epochs {
            current: CachePadded::new(AtomicU64::new(0)),
            seen: (0..readers).map(|_| CachePadded::new(AtomicU64::new(OFFLINE))).collect(),
        }
    }

    /// Writer: what was published before this call belongs to the epoch that it returns.
    pub(crate) fn advance(&self) -> u64 {
        let epoch = self.current.fetch_add(1, Ordering::Release) + 1;
        // Pairs with the fence in `enter`: either the scan of `oldest_seen` sees a reader that is coming online,
        // or that reader sees everything published before this point.
        fence(Ordering::SeqCst);
        epoch
    }

    pub(crate) fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Reader: holds nothing of earlier epochs from here on. One load and one store.
    #[inline]
    pub(crate) fn quiesce(&self, reader: usize) {
        self.seen[reader].store(self.current.load(Ordering::Acquire), Ordering::Release);
    }

    /// Reader: comes back from [`Self::leave`].
    pub(crate) fn enter(&self, reader: usize) {
        self.quiesce(reader);
        fence(Ordering::SeqCst);
        // The epoch may have moved between the load and the fence; the second report is then the later one.
        self.quiesce(reader);
    }

    /// Reader: holds nothing until it enters again.
    pub(crate) fn leave(&self, reader: usize) {
        self.seen[reader].store(OFFLINE, Ordering::Release);
    }

    pub(crate) fn is_online(&self, reader: usize) -> bool {
        self.seen[reader].load(Ordering::Relaxed) != OFFLINE
    }

    /// Writer: the epoch that every reader has reached; the current one where all are offline.
    pub(crate) fn oldest_seen(&self) -> u64 {
        let oldest = self.seen.iter().map(|slot| slot.load(Ordering::Acquire)).min().unwrap_or(OFFLINE);
        oldest.min(self.current())
    }

    /// Writer: waits until every reader has reached the epoch. Readers report between batches, so this takes
    /// some tens of microseconds, or as long as the scheduler keeps a worker from its core.
    pub(crate) fn wait_for(&self, epoch: u64) {
        let backoff = Backoff::new();
        while self.oldest_seen() < epoch {
            if backoff.is_completed() {
                thread::sleep(Duration::from_micros(50));
            } else {
                backoff.snooze();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_online_reader_holds_the_epoch_back_until_it_quiesces() {
        let epochs = Epochs::new(2);
        epochs.enter(0);
        let next = epochs.advance();
        assert_eq!(epochs.oldest_seen(), next - 1);
        epochs.quiesce(0);
        assert_eq!(epochs.oldest_seen(), next);
    }

    #[test]
    fn an_offline_reader_holds_nothing_back() {
        let epochs = Epochs::new(1);
        epochs.enter(0);
        epochs.leave(0);
        let next = epochs.advance();
        epochs.wait_for(next);
        assert_eq!(epochs.oldest_seen(), next);
    }
}
