//! Which peers want something, and when, so that an input costs what it concerns and not all peers.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::loc_rib::Slot;
use crate::speaker::Peer;

/// Kept true by [`Agenda::settle`], which looks again at the peers that were touched since.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    deadlines: BTreeSet<(Instant, Slot)>,
    /// What `deadlines` holds of each slot.
    deadline_of: Vec<Option<Instant>>,
    /// Peers that wait for a run through a table and can be told.
    waiting: BTreeSet<Slot>,
    touched: Vec<Slot>,
}

impl Agenda {
    /// Something of this peer may be different now.
    pub(crate) fn touch(&mut self, slot: Slot) {
        if self.touched.last() != Some(&slot) {
            self.touched.push(slot);
        }
    }

    /// Looks at what was touched.
    pub(crate) fn settle(&mut self, peers: &[Option<Peer>]) {
        for slot in self.touched.drain(..) {
            let peer = peers.get(slot.0 as usize).and_then(Option::as_ref);
            let deadline = peer.and_then(|peer| {
                peer.session.next_deadline().into_iter().chain(peer.helper.deadline()).min()
            });
            if self.deadline_of.len() <= slot.0 as usize {
                self.deadline_of.resize(slot.0 as usize + 1, None);
            }
            let noted = &mut self.deadline_of[slot.0 as usize];
            if *noted != deadline {
                if let Some(before) = noted.take() {
                    self.deadlines.remove(&(before, slot));
                }
                self.deadlines.extend(deadline.map(|deadline| (deadline, slot)));
                *noted = deadline;
            }
            if peer.is_some_and(|peer| peer.can_be_told() && peer.rib_out.is_due(false)) {
                self.waiting.insert(slot);
            } else {
                self.waiting.remove(&slot);
            }
        }
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Peers whose deadline has come, in the order of their slots.
    pub(crate) fn due(&self, now: Instant) -> BTreeSet<Slot> {
        self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, slot)| *slot).collect()
    }

    /// Peers that wait for a run, as far as they themselves go.
    pub(crate) fn waiting(&self) -> &BTreeSet<Slot> {
        &self.waiting
    }
}
