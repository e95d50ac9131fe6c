//! Going over all paths of a peer, a portion at a time: one that is gone may have sent a whole table, and others have
//! something to say meanwhile.
//!
//! Nobody else looks at what is left: a path that is to go stays in use until its turn comes, as if the news of its peer had
//! come that much later. What would be mistaken for what is left waits until the pass is over: see
//! [`AdjRibIn::finish`](crate::adj_rib_in::AdjRibIn::finish).

use crate::loc_rib::Index;

/// What becomes of the peer's paths of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Those that have all of these marks go.
    Remove(u16),
    /// Those that are stale go, the others become it.
    Age,
}

/// A pass under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) task: Task,
    /// What is looked at next.
    pub(crate) next: Index,
}

/// How much of a pass is done in one go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion {
    /// Prefixes that are looked at, at most.
    pub(crate) looks: usize,
    /// Paths that go or become something else, at most.
    pub(crate) changes: usize,
}

impl Portion {
    /// All that there is.
    pub(crate) const ALL: Portion = Portion { looks: usize::MAX, changes: usize::MAX };

    pub(crate) fn is_done(self) -> bool {
        self.looks == 0 || self.changes == 0
    }
}

#[cfg(test)]
mod tests;
