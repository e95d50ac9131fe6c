//! Next hops that paths use, and what the caller said of them.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ahash::RandomState;
use model::Family;

use crate::loc_rib::Index;
use crate::output::Output;

#[derive(Debug)]
struct Nexthop {
    address: IpAddr,
    /// Paths that take part in the decision process and have it; none where its place is nobody's.
    uses: usize,
    metric: Option<u32>,
    /// Has the caller said anything of it yet?
    answered: bool,
    /// Prefixes that were decided before it did, by [`Family`]: to be decided again when it does.
    waiting: [Vec<Index>; 2],
}

impl Nexthop {
    fn new(address: IpAddr) -> Nexthop {
        Nexthop { address, uses: 0, metric: None, answered: false, waiting: Default::default() }
    }
}

/// Reference-counted next hops.
///
/// Paths come and are decided in long runs of one next hop, so the one that was asked for last is looked at first.
#[derive(Debug)]
pub(crate) struct Nexthops {
    places: HashMap<IpAddr, usize, RandomState>,
    nexthops: Vec<Nexthop>,
    free: Vec<usize>,
    latest: Cell<usize>,
}

impl Nexthops {
    pub(crate) fn new(hasher: RandomState) -> Nexthops {
        Nexthops {
            places: HashMap::with_hasher(hasher),
            nexthops: Vec::new(),
            free: Vec::new(),
            latest: Cell::new(0),
        }
    }

    fn find(&self, address: IpAddr) -> Option<usize> {
        let latest = self.latest.get();
        if self.nexthops.get(latest).is_some_and(|nexthop| nexthop.address == address && nexthop.uses > 0) {
            return Some(latest);
        }
        let place = *self.places.get(&address)?;
        self.latest.set(place);
        Some(place)
    }

    fn get(&self, address: IpAddr) -> Option<&Nexthop> {
        self.nexthops.get(self.find(address)?)
    }

    fn get_mut(&mut self, address: IpAddr) -> Option<&mut Nexthop> {
        let place = self.find(address)?;
        self.nexthops.get_mut(place)
    }

    /// One more path uses it; asks the caller to watch a new one.
    pub(crate) fn acquire(&mut self, address: IpAddr, out: &mut Vec<Output>) {
        if let Some(nexthop) = self.get_mut(address) {
            nexthop.uses += 1;
            return;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.nexthops.push(Nexthop::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
            self.nexthops.len() - 1
        });
        self.nexthops[place] = Nexthop { uses: 1, ..Nexthop::new(address) };
        self.places.insert(address, place);
        out.push(Output::WatchNexthop(address));
    }

    /// One path fewer uses it; after the last it need not be watched.
    pub(crate) fn release(&mut self, address: IpAddr, out: &mut Vec<Output>) {
        let Some(place) = self.find(address) else { return };
        let nexthop = &mut self.nexthops[place];
        nexthop.uses -= 1;
        if nexthop.uses == 0 {
            nexthop.waiting = Default::default();
            self.places.remove(&address);
            self.free.push(place);
            out.push(Output::UnwatchNexthop(address));
        }
    }

    /// Notes what the caller says; is it news about one that is used? The first answer always is.
    pub(crate) fn set(&mut self, address: IpAddr, metric: Option<u32>) -> bool {
        match self.get_mut(address) {
            Some(nexthop) if nexthop.metric != metric || !nexthop.answered => {
                (nexthop.metric, nexthop.answered) = (metric, true);
                true
            }
            _ => false,
        }
    }

    /// A prefix was decided without an answer about its next hop.
    pub(crate) fn wait(&mut self, address: IpAddr, family: Family, index: Index) {
        if let Some(nexthop) = self.get_mut(address).filter(|nexthop| !nexthop.answered) {
            nexthop.waiting[family as usize].push(index);
        }
    }

    /// The prefixes that waited for the first answer; of any later one, [`Nexthops::set`] says nothing of them.
    pub(crate) fn take_waiting(&mut self, address: IpAddr) -> [Vec<Index>; 2] {
        self.get_mut(address).map(|nexthop| std::mem::take(&mut nexthop.waiting)).unwrap_or_default()
    }

    /// Was the caller asked about it, and has not answered yet?
    pub(crate) fn is_awaited(&self, address: IpAddr) -> bool {
        self.get(address).is_some_and(|nexthop| !nexthop.answered)
    }

    /// Has the caller said that it can be reached?
    pub(crate) fn is_reachable(&self, address: IpAddr) -> bool {
        self.metric(address).is_some()
    }

    /// The cost to reach it; `None` is unreachable or not known.
    pub(crate) fn metric(&self, address: IpAddr) -> Option<u32> {
        self.get(address)?.metric
    }
}
