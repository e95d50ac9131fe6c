//! Next hops that paths use, and what the caller said of them.

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;

use crate::output::Output;

#[derive(Debug, Default)]
struct Nexthop {
    /// Paths that take part in the decision process and have it.
    uses: usize,
    metric: Option<u32>,
    /// Has the caller said anything of it yet?
    answered: bool,
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

    /// Was the caller asked about it, and has not answered yet?
    pub(crate) fn is_awaited(&self, nexthop: IpAddr) -> bool {
        self.0.get(&nexthop).is_some_and(|entry| !entry.answered)
    }

    /// The cost to reach it; `None` is unreachable or not known.
    pub(crate) fn metric(&self, nexthop: IpAddr) -> Option<u32> {
        self.0.get(&nexthop)?.metric
    }
}
