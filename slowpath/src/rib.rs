//! The RIB: every route that any source offers, and one winner a prefix.

use std::net::IpAddr;

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Found;
use model::{Family, Prefix};

use crate::target::{Target, TargetId, Targets};

/// Who offers a route. The order of the variants is the order in `show routes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// One of this box's own addresses.
    Local,
    /// A neighbour's address, once its MAC is known.
    Neighbor,
    /// The network of an interface's address.
    Connected,
    /// BGP, of more than normal priority: a workload that was here has moved to another node.
    Elevated,
    /// A local workload's address.
    Workload,
    /// A block of this node's: what no workload has is nowhere.
    Block,
    /// The kernel's main table, written by the operator (`proto static`, `boot`).
    Static,
    /// A BGPPeer's own way to its peer (`spec.reachableBy`).
    ReachableBy,
    /// The datastore: a block of another node, in a pool of VXLAN, which needs no BGP.
    Vxlan,
    /// BGP.
    Bgp,
    /// The kernel's main table, written by another daemon or DHCP.
    Kernel,
    /// Left in the kernel's mirror by the run before this one, until BGP has spoken (RFC 4724: forwarding state is
    /// preserved over a restart).
    Preserved,
}

impl Source {
    /// All sources.
    pub const ALL: [Source; 12] = [
        Source::Local,
        Source::Neighbor,
        Source::Connected,
        Source::Elevated,
        Source::Workload,
        Source::Block,
        Source::Static,
        Source::ReachableBy,
        Source::Vxlan,
        Source::Bgp,
        Source::Kernel,
        Source::Preserved,
    ];

    /// The higher wins. The scale is BIRD's: direct 240, static 200, BGP 100, inherited from the kernel 10.
    pub const fn preference(self) -> u32 {
        match self {
            Source::Local => 255,
            Source::Neighbor => 250,
            Source::Connected => 240,
            Source::Elevated => 235,
            Source::Workload => 230,
            Source::Block => 220,
            Source::Static => 200,
            Source::ReachableBy => 190,
            Source::Vxlan => 110,
            Source::Bgp => 100,
            Source::Kernel => 10,
            Source::Preserved => 5,
        }
    }

    /// The name in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Local => "local",
            Source::Neighbor => "neighbor",
            Source::Connected => "connected",
            Source::Elevated => "elevated",
            Source::Workload => "workload",
            Source::Block => "block",
            Source::Static => "static",
            Source::ReachableBy => "reachable-by",
            Source::Vxlan => "vxlan",
            Source::Bgp => "bgp",
            Source::Kernel => "kernel",
            Source::Preserved => "preserved",
        }
    }
}

/// One source's route to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whose.
    pub source: Source,
    /// Where it leads.
    pub target: TargetId,
    /// The source's own cost: the kernel's route metric; 0 otherwise. The lower wins within one source.
    pub metric: u32,
}

/// The offers for one prefix, best first. Nearly every prefix has one, which then needs no allocation.
struct Entry {
    prefix: Prefix,
    /// It waits to be told of by [`Rib::take_changed`].
    changed: bool,
    /// Nothing where the last offer is gone and that isn't told yet.
    best: Option<Offer>,
    #[allow(clippy::box_collection, reason = "a million empty ones: 8 bytes each instead of 24")]
    others: Option<Box<Vec<Offer>>>,
}

/// All routes. A prefix has a place in an array for as long as it has offers or news; what finds it there is a table of
/// four bytes a prefix.
pub struct Rib {
    entries: Vec<Entry>,
    places: HashTable<u32>,
    hasher: RandomState,
    free: Vec<u32>,
    /// Prefixes of each length, so that a look-up skips lengths that don't exist.
    lengths: [[usize; 129]; 2],
    counts: [usize; Source::ALL.len()],
    targets: Targets,
    changed: Vec<u32>,
}

impl Default for Rib {
    fn default() -> Rib {
        Rib {
            entries: Vec::new(),
            places: HashTable::new(),
            hasher: RandomState::new(),
            free: Vec::new(),
            lengths: [[0; 129]; 2],
            counts: [0; Source::ALL.len()],
            targets: Targets::default(),
            changed: Vec::new(),
        }
    }
}

impl Rib {
    /// Offers a route, in place of the one that the source offered before.
    pub fn insert(&mut self, prefix: Prefix, source: Source, target: &Target, metric: u32) {
        let target = self.targets.intern(target);
        let offer = Offer { source, target, metric };
        let place = self.place(prefix);
        let entry = &mut self.entries[place as usize];
        let before = entry.best;
        if before.is_none() {
            entry.best = Some(offer);
            self.lengths[family_row(prefix)][usize::from(prefix.len())] += 1;
        } else {
            let mut offers = entry.take();
            if let Some(old) = offers.iter().position(|old| old.source == source) {
                let old = offers.swap_remove(old);
                self.targets.release(old.target);
            }
            offers.push(offer);
            entry.put(offers);
        }
        let after = entry.best;
        self.note(place, before, after);
    }

    /// Withdraws the source's route.
    pub fn remove(&mut self, prefix: Prefix, source: Source) {
        let Some(place) = self.find(prefix) else { return };
        let entry = &mut self.entries[place as usize];
        let Some(before) = entry.best else { return };
        let mut offers = entry.take();
        if let Some(old) = offers.iter().position(|old| old.source == source) {
            let old = offers.swap_remove(old);
            self.targets.release(old.target);
        }
        if offers.is_empty() {
            self.lengths[family_row(prefix)][usize::from(prefix.len())] -= 1;
        }
        entry.put(offers);
        let after = entry.best;
        self.note(place, Some(before), after);
    }

    fn find(&self, prefix: Prefix) -> Option<u32> {
        let is_it = |place: &u32| self.entries[*place as usize].prefix == prefix;
        self.places.find(self.hasher.hash_one(prefix), is_it).copied()
    }

    /// A prefix's place, which it gets where it has none.
    fn place(&mut self, prefix: Prefix) -> u32 {
        let Rib { entries, places, hasher, free, .. } = self;
        let found = places.entry(
            hasher.hash_one(prefix),
            |place| entries[*place as usize].prefix == prefix,
            |place| hasher.hash_one(entries[*place as usize].prefix),
        );
        match found {
            Found::Occupied(place) => *place.get(),
            Found::Vacant(vacant) => {
                let place = free.pop().unwrap_or(entries.len() as u32);
                vacant.insert(place);
                let entry = Entry { prefix, changed: false, best: None, others: None };
                match entries.get_mut(place as usize) {
                    Some(old) => *old = entry,
                    None => entries.push(entry),
                }
                place
            }
        }
    }

    /// Gives up the place of a prefix without offers and news.
    fn forget(&mut self, place: u32) {
        let Rib { entries, places, hasher, free, .. } = self;
        let hash = hasher.hash_one(entries[place as usize].prefix);
        if let Ok(found) = places.find_entry(hash, |other| *other == place) {
            found.remove();
            free.push(place);
        }
    }

    /// Gives memory back that a large table no longer needs.
    fn shrink(&mut self) {
        if self.places.is_empty() && self.entries.capacity() > 1024 {
            (self.entries, self.free) = (Vec::new(), Vec::new());
        }
        if self.places.capacity() > 4 * self.places.len() + 1024 {
            let Rib { entries, places, hasher, .. } = self;
            places.shrink_to(2 * places.len(), |place| hasher.hash_one(entries[*place as usize].prefix));
        }
    }

    fn note(&mut self, place: u32, before: Option<Offer>, after: Option<Offer>) {
        if before == after {
            return;
        }
        if let Some(offer) = before {
            self.counts[offer.source as usize] -= 1;
        }
        if let Some(offer) = after {
            self.counts[offer.source as usize] += 1;
        }
        if !std::mem::replace(&mut self.entries[place as usize].changed, true) {
            self.changed.push(place);
        }
    }

    /// The winner for the very prefix.
    pub fn get(&self, prefix: Prefix) -> Option<Offer> {
        self.entries[self.find(prefix)? as usize].best
    }

    /// The winner of the longest prefix that covers the address and that `accept` takes.
    pub fn covering(&self, addr: IpAddr, accept: impl Fn(Prefix, Offer) -> bool) -> Option<(Prefix, Offer)> {
        let lengths = &self.lengths[if addr.is_ipv4() { 0 } else { 1 }];
        (0..=Family::of(addr).bits()).rev().filter(|len| lengths[usize::from(*len)] > 0).find_map(|len| {
            let prefix = Prefix::new(addr, len)?;
            let offer = self.get(prefix)?;
            accept(prefix, offer).then_some((prefix, offer))
        })
    }

    /// Prefixes whose winner has changed since the last call, each with its winner, if there is one.
    pub fn take_changed(&mut self) -> Vec<(Prefix, Option<Offer>)> {
        let places = std::mem::take(&mut self.changed);
        let mut changed = Vec::with_capacity(places.len());
        for place in places {
            let entry = &mut self.entries[place as usize];
            entry.changed = false;
            changed.push((entry.prefix, entry.best));
            if entry.best.is_none() {
                self.forget(place);
            }
        }
        self.shrink();
        changed
    }

    /// Has a winner changed since [`Self::take_changed`]?
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The targets that routes lead to.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Every prefix with its winner, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Offer)> {
        self.entries.iter().filter_map(|entry| Some((entry.prefix, entry.best?)))
    }

    /// Every source's offer for the very prefix, best first.
    pub fn offers(&self, prefix: Prefix) -> impl Iterator<Item = Offer> {
        let entry = self.find(prefix).map(|place| &self.entries[place as usize]);
        entry.into_iter().flat_map(|entry| {
            entry.best.into_iter().chain(entry.others.iter().flat_map(|others| others.iter().copied()))
        })
    }

    /// Prefixes that have a route.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Is there no route at all?
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Winners of one source.
    pub fn count(&self, source: Source) -> usize {
        self.counts[source as usize]
    }
}

impl Entry {
    fn take(&mut self) -> Vec<Offer> {
        let mut offers = self.others.take().map_or_else(Vec::new, |others| *others);
        offers.extend(self.best.take());
        offers
    }

    fn put(&mut self, mut offers: Vec<Offer>) {
        offers.sort_by_key(|offer| (std::cmp::Reverse(offer.source.preference()), offer.metric));
        self.best = (!offers.is_empty()).then(|| offers.remove(0));
        self.others = (!offers.is_empty()).then(|| Box::new(offers));
    }
}

fn family_row(prefix: Prefix) -> usize {
    match prefix.family() {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Gateway;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn via(last: u8) -> Target {
        Target::via(vec![Gateway::at(IpAddr::from([192, 0, 2, last]))]).unwrap()
    }

    #[test]
    fn the_preferred_source_wins_and_the_next_takes_over_when_it_goes() {
        let mut rib = Rib::default();
        rib.insert(prefix("10.0.0.0/8"), Source::Kernel, &via(1), 0);
        rib.insert(prefix("10.0.0.0/8"), Source::Bgp, &via(2), 0);
        assert_eq!(rib.get(prefix("10.0.0.0/8")).unwrap().source, Source::Bgp);
        assert_eq!((rib.count(Source::Bgp), rib.count(Source::Kernel)), (1, 0));
        rib.remove(prefix("10.0.0.0/8"), Source::Bgp);
        assert_eq!(rib.get(prefix("10.0.0.0/8")).unwrap().source, Source::Kernel);
        rib.remove(prefix("10.0.0.0/8"), Source::Kernel);
        assert!(rib.is_empty());
        assert!(rib.targets().is_empty());
    }

    #[test]
    fn only_a_changed_winner_is_reported() {
        let mut rib = Rib::default();
        rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(1), 0);
        rib.take_changed();
        rib.insert(prefix("10.0.0.0/8"), Source::Bgp, &via(2), 0);
        rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(1), 0);
        assert!(!rib.has_changed());
        rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(3), 0);
        assert_eq!(rib.take_changed().len(), 1);
    }

    #[test]
    fn the_longest_prefix_covers() {
        let mut rib = Rib::default();
        rib.insert(prefix("0.0.0.0/0"), Source::Static, &via(1), 0);
        rib.insert(prefix("10.65.0.0/26"), Source::Block, &Target::Blackhole, 0);
        let found = rib.covering("10.65.0.9".parse().unwrap(), |_, _| true).unwrap();
        assert_eq!(found.0, prefix("10.65.0.0/26"));
        let found = rib.covering("10.65.0.9".parse().unwrap(), |_, offer| offer.source == Source::Static);
        assert_eq!(found.unwrap().0, prefix("0.0.0.0/0"));
        assert_eq!(rib.covering("::1".parse().unwrap(), |_, _| true), None);
    }

    proptest! {
        /// Whatever the order of offers and withdrawals, the winner is the preferred one of those that stand.
        #[test]
        fn the_winner_depends_on_what_stands_alone(
            steps in prop::collection::vec((0usize..Source::ALL.len(), 0u8..4, any::<bool>()), 1..60)
        ) {
            let mut rib = Rib::default();
            let mut standing: std::collections::BTreeMap<Source, u8> = Default::default();
            for (source, gateway, offered) in steps {
                let source = Source::ALL[source];
                if offered {
                    rib.insert(prefix("10.0.0.0/8"), source, &via(gateway), 0);
                    standing.insert(source, gateway);
                } else {
                    rib.remove(prefix("10.0.0.0/8"), source);
                    standing.remove(&source);
                }
                let expected = standing.iter().max_by_key(|(source, _)| source.preference());
                let found = rib.get(prefix("10.0.0.0/8"));
                prop_assert_eq!(found.map(|offer| offer.source), expected.map(|(source, _)| *source));
                let target = found.and_then(|offer| rib.targets().get(offer.target)).cloned();
                prop_assert_eq!(target, expected.map(|(_, gateway)| via(*gateway)));
                prop_assert_eq!(Source::ALL.iter().map(|s| rib.count(*s)).sum::<usize>(), rib.len());
            }
        }
    }
}
