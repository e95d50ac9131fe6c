//! Next hops that paths use, and what the caller said of them.

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;
use model::Family;

use crate::loc_rib::Index;
use crate::output::Output;

#[derive(Debug, Default)]
struct Nexthop {
    /// Paths that take part in the decision process and have it.
    uses: usize,
    metric: Option<u32>,
    /// Has the caller said anything of it yet?
    answered: bool,
    /// Prefixes that were decided before it did, by [`Family`]: to be decided again when it does.
    waiting: [Vec<Index>; 2],
}

/// Reference-counted next hops.
#[derive(Debug)]
pub(crate) struct Nexthops(HashMap<IpAddr, Nexthop, RandomState>);

impl Nexthops {
    pub(crate) fn new(hasher: RandomState) -> Nexthops {
        Nexthops(HashMap::with_hasher(hasher))
    }

    /// One more path uses it; asks the caller to watch a new one.
    pub(crate) fn acquire(&mut self, nexthop: IpAddr, out: &mut Vec<Output>) {
        let entry = self.0.entry(nexthop).or_default();
        entry.uses += 1;
        if entry.uses == 1 {
            out.push(Output::WatchNexthop(nexthop));
        }
    }

    /// One path fewer uses it; after the last it need not be watched.
    pub(crate) fn release(&mut self, nexthop: IpAddr, out: &mut Vec<Output>) {
        let Some(entry) = self.0.get_mut(&nexthop) else { return };
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses == 0 {
            self.0.remove(&nexthop);
            out.push(Output::UnwatchNexthop(nexthop));
        }
    }

    /// Notes what the caller says; is it news about one that is used? The first answer always is.
    pub(crate) fn set(&mut self, nexthop: IpAddr, metric: Option<u32>) -> bool {
        match self.0.get_mut(&nexthop) {
            Some(entry) if entry.metric != metric || !entry.answered => {
                (entry.metric, entry.answered) = (metric, true);
                true
            }
            _ => false,
        }
    }

    /// A prefix was decided without an answer about its next hop.
    pub(crate) fn wait(&mut self, nexthop: IpAddr, family: Family, index: Index) {
        if let Some(entry) = self.0.get_mut(&nexthop).filter(|entry| !entry.answered) {
            entry.waiting[family as usize].push(index);
        }
    }

    /// The prefixes that waited for the first answer; of any later one, [`Nexthops::set`] says nothing of them.
    pub(crate) fn take_waiting(&mut self, nexthop: IpAddr) -> [Vec<Index>; 2] {
        self.0.get_mut(&nexthop).map(|entry| std::mem::take(&mut entry.waiting)).unwrap_or_default()
    }

    /// Was the caller asked about it, and has not answered yet?
    pub(crate) fn is_awaited(&self, nexthop: IpAddr) -> bool {
        self.0.get(&nexthop).is_some_and(|entry| !entry.answered)
    }

    /// The cost to reach it; `None` is unreachable or not known.
    pub(crate) fn metric(&self, nexthop: IpAddr) -> Option<u32> {
        self.0.get(&nexthop)?.metric
    }
}
