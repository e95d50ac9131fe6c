//! What becomes of a peer's paths, said once for all that came together: in one session, between the same two refreshes.
//!
//! A session that ends, a timer that runs out or a filter that changes is about a whole table, which takes long to go over. So
//! it is noted here, and [`crate::pass`] makes each path what it is to be, by and by. What comes meanwhile is of a cohort of its
//! own and is not mistaken for what was there before; what is noted meanwhile holds for all paths that haven't been looked at
//! since. A path that waits stays in use, as if the news had come that much later, but no longer counts if it is to go.

use crate::pass::Place;

/// What becomes of a cohort's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// They are as the peer says.
    Fresh,
    /// They are kept from before a restart (RFC 4724).
    Stale,
    /// They are stale and a last resort: they carry LLGR_STALE, and those that must not be kept so long go (RFC 9494 §4.2).
    LongLived,
    /// They go.
    Gone,
}

/// Paths that came together.
#[derive(Clone, Copy, Debug)]
struct Cohort {
    freshness: Freshness,
    /// The peer announces all it has anew, and hasn't these yet (RFC 7313).
    unrefreshed: bool,
    paths: usize,
    /// Bytes of all paths' attributes as received, those of each path counted in full.
    bytes: usize,
}

impl Cohort {
    const NEW: Cohort = Cohort { freshness: Freshness::Fresh, unrefreshed: false, paths: 0, bytes: 0 };
}

/// What is left to be done to all paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    /// The import policy is another: they are judged by it.
    judges: bool,
    /// Some are stale or a last resort from here on.
    ages: bool,
    /// All are what they are to be when the pass comes there; nothing has been done where it isn't known.
    until: Option<Place>,
}

/// No number is free for another cohort, or too much is left of former ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyCohorts;

/// One peer's paths of one family.
#[derive(Debug)]
pub(crate) struct Cohorts {
    /// By number. Without paths it is free, but for the current one.
    cohorts: Vec<Cohort>,
    /// What comes now is of this one.
    current: u8,
    left: Option<Left>,
}

impl Cohorts {
    pub(crate) fn new() -> Cohorts {
        Cohorts { cohorts: vec![Cohort::NEW], current: 0, left: None }
    }

    /// The number for what comes now.
    pub(crate) fn current(&self) -> u8 {
        self.current
    }

    /// A path of the current cohort has come.
    pub(crate) fn add(&mut self, bytes: usize) {
        let cohort = &mut self.cohorts[usize::from(self.current)];
        cohort.paths += 1;
        cohort.bytes += bytes;
    }

    /// A path has gone or is no longer of its cohort.
    pub(crate) fn remove(&mut self, number: u8, bytes: usize) {
        let cohort = &mut self.cohorts[usize::from(number)];
        cohort.paths -= 1;
        cohort.bytes -= bytes;
    }

    /// A path's attributes take more or less than before.
    pub(crate) fn resize(&mut self, number: u8, before: usize, after: usize) {
        let cohort = &mut self.cohorts[usize::from(number)];
        cohort.bytes = cohort.bytes - before + after;
    }

    pub(crate) fn freshness(&self, number: u8) -> Freshness {
        self.cohorts[usize::from(number)].freshness
    }

    fn sum(&self, of: impl Fn(&Cohort) -> bool) -> usize {
        self.cohorts.iter().filter(|cohort| of(cohort)).map(|cohort| cohort.paths).sum()
    }

    /// Paths that stay.
    pub(crate) fn received(&self) -> usize {
        self.sum(|cohort| cohort.freshness != Freshness::Gone)
    }

    /// Of these, stale ones.
    pub(crate) fn stale(&self) -> usize {
        self.sum(|cohort| matches!(cohort.freshness, Freshness::Stale | Freshness::LongLived))
    }

    /// Bytes of the attributes of paths that stay.
    pub(crate) fn bytes(&self) -> usize {
        let stay = self.cohorts.iter().filter(|cohort| cohort.freshness != Freshness::Gone);
        stay.map(|cohort| cohort.bytes).sum()
    }

    fn gone(&self) -> usize {
        self.sum(|cohort| cohort.freshness == Freshness::Gone)
    }

    /// Is there a path that is to go?
    pub(crate) fn has_gone(&self) -> bool {
        self.left.is_some() && self.gone() > 0
    }

    /// Is there no path, not even one that is to go?
    pub(crate) fn is_empty(&self) -> bool {
        self.sum(|_| true) == 0
    }

    /// What comes from here on is of another cohort, unless nothing has come of this one yet.
    fn renew(&mut self) -> Result<(), TooManyCohorts> {
        if self.cohorts[usize::from(self.current)].paths > 0 {
            let free = self.cohorts.iter().position(|cohort| cohort.paths == 0);
            let number = free.unwrap_or(self.cohorts.len());
            self.current = u8::try_from(number).map_err(|_| TooManyCohorts)?;
            if free.is_none() {
                self.cohorts.push(Cohort::NEW);
            }
        }
        self.cohorts[usize::from(self.current)] = Cohort::NEW;
        Ok(())
    }

    /// A session begins. One that ends and begins again before the pass is through must not leave more than `most` paths
    /// behind.
    pub(crate) fn begin_session(&mut self, most: usize) -> Result<(), TooManyCohorts> {
        if self.gone() > most {
            return Err(TooManyCohorts);
        }
        self.renew()
    }

    /// The peer announces all it has anew: what it doesn't is gone when it is through (RFC 7313 §4).
    pub(crate) fn begin_refresh(&mut self) -> Result<(), TooManyCohorts> {
        self.cohorts.iter_mut().for_each(|cohort| cohort.unrefreshed = true);
        self.renew()
    }

    /// The peer is through: what it has not announced again goes.
    pub(crate) fn finish_refresh(&mut self) {
        self.let_go(|cohort| cohort.unrefreshed);
    }

    /// All paths go.
    pub(crate) fn clear(&mut self) {
        // Whatever was to become of them.
        self.left = None;
        self.let_go(|_| true);
    }

    /// The stale paths go.
    pub(crate) fn sweep_stale(&mut self) {
        self.let_go(|cohort| matches!(cohort.freshness, Freshness::Stale | Freshness::LongLived));
    }

    fn let_go(&mut self, which: impl Fn(&Cohort) -> bool) {
        self.cohorts
            .iter_mut()
            .filter(|cohort| which(cohort))
            .for_each(|cohort| cohort.freshness = Freshness::Gone);
        self.leave(false, false);
    }

    /// The peer restarts: its paths are stale, and those that are already go (RFC 4724 §4.2: consecutive restarts).
    pub(crate) fn mark_stale(&mut self) {
        for cohort in &mut self.cohorts {
            cohort.freshness =
                if cohort.freshness == Freshness::Fresh { Freshness::Stale } else { Freshness::Gone };
            cohort.unrefreshed = false;
        }
        self.leave(false, true);
    }

    /// The stale paths stay on as a last resort.
    pub(crate) fn live_long(&mut self) {
        for cohort in self.cohorts.iter_mut().filter(|cohort| cohort.freshness == Freshness::Stale) {
            cohort.freshness = Freshness::LongLived;
        }
        self.leave(false, true);
    }

    /// All paths are to be judged by another policy.
    pub(crate) fn judge_again(&mut self) {
        self.leave(true, false);
    }

    fn leave(&mut self, judges: bool, ages: bool) {
        let before = self.left.unwrap_or(Left { judges: false, ages: false, until: None });
        let left = Left { judges: before.judges || judges, ages: before.ages || ages, until: None };
        self.left = Some(left).filter(|_| self.is_due(left));
    }

    /// Has anything that is left to be done to do with a path that is there?
    fn is_due(&self, left: Left) -> bool {
        let changes = (left.judges || left.ages) && !self.is_empty();
        changes || self.gone() > 0
    }

    /// Is anything left to be done?
    pub(crate) fn has_left(&self) -> bool {
        self.left.is_some()
    }

    /// Are paths to be judged by another policy?
    pub(crate) fn judges(&self) -> bool {
        self.left.is_some_and(|left| left.judges)
    }

    /// Until where the pass has something to do here, once it has begun to.
    pub(crate) fn until(&self) -> Option<Place> {
        self.left?.until
    }

    /// The pass begins with what is left: all is done at `until`.
    pub(crate) fn begin_pass(&mut self, until: Place) {
        if let Some(left) = &mut self.left {
            left.until.get_or_insert(until);
        }
    }

    /// The pass has come to `place`; says whether there is more to do.
    pub(crate) fn came_to(&mut self, place: Place) -> bool {
        self.left =
            self.left.filter(|left| left.until.is_none_or(|until| place < until) && self.is_due(*left));
        self.has_left()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cohort_begins_where_the_one_before_has_paths() {
        let mut cohorts = Cohorts::new();
        for _ in 0..3 {
            assert_eq!((cohorts.begin_session(10), cohorts.current()), (Ok(()), 0), "nothing has come");
        }
        cohorts.add(100);
        assert_eq!((cohorts.begin_refresh(), cohorts.current()), (Ok(()), 1));
        cohorts.add(100);
        cohorts.remove(0, 100);
        assert_eq!((cohorts.begin_refresh(), cohorts.current()), (Ok(()), 0), "it is free again");
        assert_eq!((cohorts.received(), cohorts.bytes()), (1, 100));
        cohorts.finish_refresh();
        assert_eq!((cohorts.received(), cohorts.bytes(), cohorts.is_empty()), (0, 0, false));
        assert!(cohorts.has_left());
        cohorts.remove(1, 100);
        assert!(!cohorts.came_to(Place::default()), "none is left that is to go");
    }

    #[test]
    fn refreshes_that_begin_and_never_end_are_bounded() {
        let mut cohorts = Cohorts::new();
        for number in 0..=u8::MAX {
            assert_eq!(cohorts.current(), number);
            cohorts.add(1);
            let begun = cohorts.begin_refresh();
            assert_eq!(begun.is_err(), number == u8::MAX);
        }
    }

    #[test]
    fn sessions_leave_no_more_paths_behind_than_a_peer_may_have() {
        let mut cohorts = Cohorts::new();
        for _ in 0..2 {
            assert_eq!(cohorts.begin_session(3), Ok(()));
            cohorts.add(1);
            cohorts.add(1);
            cohorts.clear();
        }
        assert_eq!(cohorts.begin_session(3), Err(TooManyCohorts));
        assert_eq!(cohorts.begin_session(4), Ok(()));
    }

    #[test]
    fn stale_paths_of_the_restart_before_go() {
        let mut cohorts = Cohorts::new();
        cohorts.add(1);
        cohorts.mark_stale();
        cohorts.live_long();
        assert_eq!((cohorts.freshness(0), cohorts.stale()), (Freshness::LongLived, 1));
        cohorts.begin_session(9).expect("a number");
        cohorts.add(1);
        cohorts.mark_stale();
        assert_eq!((cohorts.freshness(0), cohorts.freshness(1)), (Freshness::Gone, Freshness::Stale));
        assert_eq!((cohorts.received(), cohorts.stale()), (1, 1));
    }
}
