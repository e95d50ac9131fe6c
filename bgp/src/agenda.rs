//! Which peers want something, and when, so that an input costs what it concerns and not all peers.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::path::Slot;
use crate::speaker::Peer;
use crate::update_group::Groups;

/// Kept true by [`Agenda::settle`], which looks again at the peers that were touched since.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    deadlines: BTreeSet<(Instant, Slot)>,
    /// What `deadlines` holds of each slot.
    deadline_of: Vec<Option<Instant>>,
    /// Peers that wait for a run through a table or are behind, and can be told.
    waiting: BTreeSet<Slot>,
    /// Peers of whose paths something is left to be done to all.
    with_left: BTreeSet<Slot>,
    /// What counts of each slot below.
    standing: Vec<Standing>,
    /// Of those that wait, the ones that need not wait for others to be heard first.
    begun: usize,
    peers: usize,
    /// Peers that a restart waits for, and of these the ones with a session.
    unheard: usize,
    unheard_up: usize,
    touched: Vec<Slot>,
}

/// How a peer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    is_there: bool,
    begun: bool,
    unheard: bool,
    up: bool,
}

impl Agenda {
    /// Something of this peer may be different now.
    pub(crate) fn touch(&mut self, slot: Slot) {
        if self.touched.last() != Some(&slot) {
            self.touched.push(slot);
        }
    }

    /// Looks at what was touched.
    pub(crate) fn settle(&mut self, peers: &[Option<Peer>], groups: &Groups) {
        for slot in self.touched.drain(..) {
            let there = peers.get(slot.0 as usize).and_then(Option::as_ref);
            // One that was removed only keeps its slot.
            let peer = there.filter(|peer| !peer.is_removed);
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
            if peer.is_some_and(|peer| peer.is_due(slot, groups, false)) {
                self.waiting.insert(slot);
            } else {
                self.waiting.remove(&slot);
            }
            if there.is_some_and(|peer| peer.rib_in.has_left()) {
                self.with_left.insert(slot);
            } else {
                self.with_left.remove(&slot);
            }
            let standing = Standing {
                is_there: peer.is_some(),
                begun: peer.is_some_and(|peer| peer.is_due(slot, groups, true)),
                unheard: peer.is_some_and(|peer| !peer.heard_enough()),
                up: peer.is_some_and(|peer| peer.negotiated().is_some()),
            };
            if self.standing.len() <= slot.0 as usize {
                self.standing.resize(slot.0 as usize + 1, Standing::default());
            }
            let before = std::mem::replace(&mut self.standing[slot.0 as usize], standing);
            for (sum, was, is) in [
                (&mut self.peers, before.is_there, standing.is_there),
                (&mut self.begun, before.begun, standing.begun),
                (&mut self.unheard, before.unheard, standing.unheard),
                (&mut self.unheard_up, before.unheard && before.up, standing.unheard && standing.up),
            ] {
                *sum = *sum + usize::from(is) - usize::from(was);
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

    /// Does anybody wait who is told now? While `deferring`, first runs don't begin.
    pub(crate) fn has_waiting(&self, deferring: bool) -> bool {
        if deferring { self.begun > 0 } else { !self.waiting.is_empty() }
    }

    /// Peers of whose paths something is left to be done to all.
    pub(crate) fn with_left(&self) -> impl Iterator<Item = Slot> + '_ {
        self.with_left.iter().copied()
    }

    /// Peers that wait, as far as they themselves go.
    pub(crate) fn waiting(&self) -> &BTreeSet<Slot> {
        &self.waiting
    }

    /// Is there a peer with a session that a restart waits for?
    pub(crate) fn waits_for_sessions(&self) -> bool {
        self.unheard_up > 0
    }

    /// Has every peer, of which there is one, been heard after a restart?
    pub(crate) fn all_are_heard(&self) -> bool {
        self.peers > 0 && self.unheard == 0
    }
}
