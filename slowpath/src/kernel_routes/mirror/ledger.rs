//! What the kernel is to have of each prefix and what it has: a byte for each place of the RIB, and a queue. No I/O.

use std::collections::VecDeque;

use super::{MirrorFailure, MirrorStatus};
use crate::rib::Place;
use model::Prefix;

/// Errno: the route to remove is gone already.
pub(super) const ESRCH: i32 = 3;

/// The kernel is to have a route of ours.
const WANTED: u8 = 1;
/// It has one, as far as we know.
const THERE: u8 = 1 << 1;
/// An earlier run left it there.
const LEFT: u8 = 1 << 2;
/// The kernel must be told something.
const DUE: u8 = 1 << 3;
/// It is being told something: what is due waits for the outcome.
const UNDER_WAY: u8 = 1 << 4;
/// It refused what it was told last.
const REFUSED: u8 = 1 << 5;
/// The dump under way has found a route.
const FOUND: u8 = 1 << 6;

/// What there is to do about a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Install(Place),
    Remove(Place),
}

/// There are as many routes as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The state of every place. A place of which there is anything to know is held.
#[derive(Debug)]
pub(super) struct Ledger {
    limit: usize,
    states: Vec<u8>,
    queue: VecDeque<Place>,
    refused: Vec<Place>,
    /// Nothing is left to know of these; they may be let go.
    released: Vec<Place>,
    may_sweep: bool,
    status: MirrorStatus,
}

impl Ledger {
    pub(super) fn new(limit: usize) -> Ledger {
        Ledger {
            limit,
            states: Vec::new(),
            queue: VecDeque::new(),
            refused: Vec::new(),
            released: Vec::new(),
            may_sweep: false,
            status: MirrorStatus::default(),
        }
    }

    /// The kernel is to have a route of ours to a prefix, another than before, or none. Says whether the place must be held.
    pub(super) fn change(&mut self, place: Place, is_wanted: bool) -> Result<bool, Full> {
        if self.states.len() <= place.at() {
            if !is_wanted {
                return Ok(false);
            }
            self.states.resize(place.at() + 1, 0);
        }
        let was_wanted = self.has(place, WANTED);
        if is_wanted && !was_wanted && self.status.desired >= self.limit {
            self.status.refused_full += 1;
            return if self.states[place.at()] == 0 { Err(Full) } else { Ok(true) };
        }
        match (was_wanted, is_wanted) {
            (false, true) => {
                self.states[place.at()] |= WANTED;
                self.status.desired += 1;
            }
            (true, false) => {
                self.states[place.at()] &= !WANTED;
                self.status.desired -= 1;
                self.has_not_failed(place);
            }
            _ => {}
        }
        if is_wanted || was_wanted {
            self.look_at(place);
        }
        Ok(self.states[place.at()] != 0)
    }

    fn has(&self, place: Place, state: u8) -> bool {
        self.states.get(place.at()).is_some_and(|there| there & state != 0)
    }

    /// Puts a place into the queue if the kernel must be told something.
    fn look_at(&mut self, place: Place) {
        let (may_sweep, state) = (self.may_sweep, &mut self.states[place.at()]);
        let may_go = *state & THERE != 0 && (*state & LEFT == 0 || may_sweep);
        if *state & DUE != 0 || *state & (WANTED | UNDER_WAY) == 0 && !may_go {
            return;
        }
        *state |= DUE;
        if *state & UNDER_WAY == 0 {
            self.queue.push_back(place);
        }
    }

    fn has_not_failed(&mut self, place: Place) {
        if self.has(place, REFUSED) {
            self.states[place.at()] &= !REFUSED;
            self.status.failed -= 1;
        }
    }

    fn release_if_unknown(&mut self, place: Place) {
        if self.states[place.at()] == 0 {
            self.released.push(place);
        }
    }

    /// All that should be there has been named: what an earlier run left and nobody named may go.
    pub(super) fn allow_sweep(&mut self) {
        self.may_sweep = true;
        for place in self.places() {
            if self.has(place, LEFT) && !self.has(place, WANTED) {
                self.look_at(place);
            }
        }
    }

    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        (0..self.states.len() as u32).map(Place)
    }

    /// A dump found a route of ours; the place is held.
    pub(super) fn found(&mut self, place: Place) {
        if self.states.len() <= place.at() {
            self.states.resize(place.at() + 1, 0);
        }
        self.states[place.at()] |= FOUND;
    }

    /// The dump is over; nothing was under way meanwhile.
    pub(super) fn all_found(&mut self) {
        self.refused.clear();
        (self.status.failed, self.status.installed) = (0, 0);
        for place in self.places() {
            let before = self.states[place.at()];
            let found = before & FOUND != 0;
            let mut state = before & !(FOUND | REFUSED);
            match (found, before & THERE != 0) {
                (true, false) => state |= THERE | LEFT,
                (false, true) => state &= !(THERE | LEFT),
                _ => {}
            }
            self.states[place.at()] = state;
            self.status.installed += usize::from(found);
            // What is there may be what another was refused in place of.
            let is_as_wanted = (state & WANTED != 0) == found && state & LEFT == 0 && before & REFUSED == 0;
            if !is_as_wanted {
                self.look_at(place);
            }
            if before != 0 {
                self.release_if_unknown(place);
            }
        }
    }

    /// Has what the kernel refused tried again.
    pub(super) fn queue_refused(&mut self) {
        for place in std::mem::take(&mut self.refused) {
            if self.has(place, REFUSED) {
                self.has_not_failed(place);
                self.look_at(place);
            }
        }
    }

    /// What to do next; it is under way from here on.
    pub(super) fn next_order(&mut self) -> Option<Order> {
        loop {
            let Some(place) = self.queue.pop_front() else {
                self.queue.shrink_to(1024);
                return None;
            };
            let state = &mut self.states[place.at()];
            *state &= !DUE;
            if *state & WANTED != 0 {
                *state |= UNDER_WAY;
                return Some(Order::Install(place));
            }
            if *state & THERE != 0 {
                *state |= UNDER_WAY;
                return Some(Order::Remove(place));
            }
            self.release_if_unknown(place);
        }
    }

    /// What was wanted when it was asked for can't be had now: the order under way removes what is there.
    pub(super) fn is_not_wanted(&mut self, place: Place) {
        if self.has(place, WANTED) {
            self.states[place.at()] &= !WANTED;
            self.status.desired -= 1;
        }
    }

    /// What the kernel answered to an order.
    pub(super) fn record(&mut self, place: Place, prefix: Prefix, is_install: bool, refusal: Option<i32>) {
        let was_there = self.has(place, THERE);
        let state = &mut self.states[place.at()];
        *state &= !UNDER_WAY;
        match (refusal, is_install) {
            (None, true) => {
                *state = *state & !LEFT | THERE;
                self.status.installed += usize::from(!was_there);
                self.has_not_failed(place);
            }
            (None | Some(ESRCH), false) => {
                *state &= !(THERE | LEFT);
                self.status.installed -= usize::from(was_there);
                self.has_not_failed(place);
            }
            (Some(errno), _) => {
                self.status.last_failure = Some(MirrorFailure { prefix, errno });
                if *state & (REFUSED | DUE) == 0 && *state & (WANTED | THERE) != 0 {
                    *state |= REFUSED;
                    self.status.failed += 1;
                    self.refused.push(place);
                }
            }
        }
        self.is_free_again(place);
    }

    /// Nobody knows what became of an order: a dump must follow.
    pub(super) fn lost(&mut self, place: Place) {
        self.states[place.at()] = self.states[place.at()] & !UNDER_WAY | DUE;
        self.queue.push_back(place);
    }

    /// An order is over: what came up meanwhile may follow.
    fn is_free_again(&mut self, place: Place) {
        if self.has(place, DUE) {
            self.queue.push_back(place);
        } else {
            self.release_if_unknown(place);
        }
    }

    /// Places that need not be held any longer.
    pub(super) fn take_released(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.released)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn status(&self) -> MirrorStatus {
        MirrorStatus { waiting: self.queue.len(), ..self.status }
    }

    /// Counted anew: what should be there, and what is.
    #[cfg(test)]
    pub(super) fn counted(&self) -> (usize, usize, usize) {
        let count = |state| self.states.iter().filter(|there| *there & state != 0).count();
        (count(WANTED), count(THERE), self.states.iter().filter(|state| **state != 0).count())
    }
}
