//! After next hops have moved: which prefixes are to be decided again. The table is looked through once for all that have
//! moved meanwhile, a portion at a time, as a thousand may move at once and a look takes as long as the table is large.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::key::Key;
use crate::loc_rib::{Index, Table};

/// One family's look through its table.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// What is looked for, from `next` on; nothing between two looks.
    moved: HashSet<IpAddr>,
    next: Index,
    /// What moved while others were looked for: the next look is for these.
    later: HashSet<IpAddr>,
}

impl Sweep {
    /// A next hop has moved.
    pub(crate) fn add(&mut self, nexthop: IpAddr) {
        self.later.insert(nexthop);
    }

    /// Is nothing looked for?
    pub(crate) fn is_idle(&self) -> bool {
        self.moved.is_empty() && self.later.is_empty()
    }

    /// Looks at so many prefixes more, and queues those that are to be decided again.
    pub(crate) fn go_on<K: Key>(&mut self, table: &mut Table<K>, portion: usize) {
        if self.moved.is_empty() {
            if self.later.is_empty() {
                return;
            }
            (self.moved, self.next) = (std::mem::take(&mut self.later), Index(0));
        }
        let end = Index(self.next.0.saturating_add(u32::try_from(portion).unwrap_or(u32::MAX)));
        let moved = &self.moved;
        table.decide_some_again(self.next..end, |nexthop| moved.contains(&nexthop));
        self.next = end;
        // What came behind the end meanwhile was decided with what is known now.
        if end >= table.end() {
            self.moved.clear();
        }
    }
}

#[cfg(test)]
mod tests;
