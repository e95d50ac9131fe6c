//! The RIB: every route that any source offers, and one winner a prefix.

use std::net::IpAddr;

use ahash::{AHashMap, RandomState};
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
    /// The same in a pool of IPIP or a plain one, where `programClusterRoutes` leaves its routes to Felix.
    Ipam,
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
    pub const ALL: [Source; 13] = [
        Source::Local,
        Source::Neighbor,
        Source::Connected,
        Source::Elevated,
        Source::Workload,
        Source::Block,
        Source::Static,
        Source::ReachableBy,
        Source::Vxlan,
        Source::Ipam,
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
            Source::Ipam => 105,
            Source::Bgp => 100,
            Source::Kernel => 10,
            Source::Preserved => 5,
        }
    }

    /// May gateways be reached by such a route? Not by what itself has gateways far off.
    pub const fn resolves(self) -> bool {
        !matches!(self, Source::Vxlan | Source::Ipam | Source::Bgp | Source::Elevated | Source::Preserved)
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
            Source::Ipam => "ipam",
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

/// A prefix's place in the RIB: the prefix's own for as long as it has an offer, or news, or somebody holds it
/// ([`Rib::hold`]). Who keeps something of every prefix keeps it by this, in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u32);

impl Place {
    /// Where that is in an array.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// How many bits neighbours may have of their own: see [`hash`].
const NEIGHBORS: u8 = 6;

/// Room for changed prefixes that is kept when they have been told.
const CHANGED_KEPT: usize = 1 << 16;

/// It waits to be told of by [`Rib::take_changed`].
const CHANGED: u8 = 1;
/// Somebody holds the place.
const HELD: u8 = 1 << 1;
/// There are offers besides the best.
const SEVERAL: u8 = 1 << 2;

/// One prefix; there can be a million of them.
struct Entry {
    prefix: Prefix,
    marks: u8,
    /// Nothing where the last offer is gone.
    best: Option<Offer>,
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    fn has(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    /// Is the place the prefix's? Otherwise it is free.
    fn is_needed(&self) -> bool {
        self.best.is_some() || self.marks != 0
    }
}

/// What a look-up ahead has found ([`Rib::seek`]). Right or not by now, it is checked before it is relied on.
#[derive(Clone, Copy, Debug)]
pub struct Sought {
    prefix: Prefix,
    hash: u64,
    place: Option<Place>,
}

impl Sought {
    /// What was looked up.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }
}

/// All routes. A prefix has a place in an array; what finds it there is a table of four bytes a prefix.
pub struct Rib {
    entries: Vec<Entry>,
    places: HashTable<Place>,
    hasher: RandomState,
    free: Vec<Place>,
    /// The offers besides the best, which few prefixes have; best first, never empty.
    others: AHashMap<Place, Vec<Offer>>,
    /// Prefixes of each length, so that a look-up skips lengths that don't exist.
    lengths: [[usize; 129]; 2],
    counts: [usize; Source::ALL.len()],
    targets: Targets,
    changed: Vec<Place>,
    /// Among them is a winner that gateways may be reached by.
    ways_changed: bool,
    /// As many prefixes as there were at most since [`Self::shrink`] last looked for memory to give back.
    most: usize,
}

impl Default for Rib {
    fn default() -> Rib {
        Rib {
            entries: Vec::new(),
            places: HashTable::new(),
            hasher: RandomState::new(),
            free: Vec::new(),
            others: AHashMap::new(),
            lengths: [[0; 129]; 2],
            counts: [0; Source::ALL.len()],
            targets: Targets::default(),
            changed: Vec::new(),
            ways_changed: false,
            most: 0,
        }
    }
}

impl Rib {
    /// Offers a route, in place of the one that the source offered before.
    pub fn insert(&mut self, prefix: Prefix, source: Source, target: &Target, metric: u32) {
        self.insert_sought(self.seek(prefix), source, target, metric);
    }

    /// As [`Self::insert`], where the prefix has been looked up ahead.
    pub fn insert_sought(&mut self, sought: Sought, source: Source, target: &Target, metric: u32) {
        let target = self.targets.intern(target);
        let offer = Offer { source, target, metric };
        let prefix = sought.prefix;
        let place = self.still(sought).unwrap_or_else(|| self.place_of(prefix, sought.hash));
        let entry = &mut self.entries[place.at()];
        let before = entry.best;
        match before {
            None => {
                entry.best = Some(offer);
                self.lengths[family_row(prefix)][usize::from(prefix.len())] += 1;
            }
            Some(only) if only.source == source && !entry.has(SEVERAL) => {
                entry.best = Some(offer);
                self.targets.release(only.target);
            }
            Some(_) => {
                let mut offers = self.take(place);
                if let Some(old) = offers.iter().position(|old| old.source == source) {
                    let old = offers.swap_remove(old);
                    self.targets.release(old.target);
                }
                offers.push(offer);
                self.put(place, offers);
            }
        }
        self.note(place, before);
    }

    /// Withdraws the source's route.
    pub fn remove(&mut self, prefix: Prefix, source: Source) {
        self.remove_sought(self.seek(prefix), source);
    }

    /// As [`Self::remove`], where the prefix has been looked up ahead.
    pub fn remove_sought(&mut self, sought: Sought, source: Source) {
        let prefix = sought.prefix;
        let Some(place) = self.still(sought).or_else(|| self.find(prefix, sought.hash)) else { return };
        let entry = &mut self.entries[place.at()];
        let before = entry.best;
        if !entry.has(SEVERAL) {
            let Some(only) = before.filter(|only| only.source == source) else { return };
            entry.best = None;
            self.lengths[family_row(prefix)][usize::from(prefix.len())] -= 1;
            self.targets.release(only.target);
            self.note(place, before);
            return;
        }
        let mut offers = self.take(place);
        if let Some(old) = offers.iter().position(|old| old.source == source) {
            let old = offers.swap_remove(old);
            self.targets.release(old.target);
        }
        self.put(place, offers);
        self.note(place, before);
    }

    /// All offers of a prefix, which has none until they are [`Self::put`] back.
    fn take(&mut self, place: Place) -> Vec<Offer> {
        let entry = &mut self.entries[place.at()];
        let mut offers = match entry.has(SEVERAL) {
            true => self.others.remove(&place).unwrap_or_default(),
            false => Vec::new(),
        };
        entry.marks &= !SEVERAL;
        offers.extend(entry.best.take());
        offers
    }

    fn put(&mut self, place: Place, mut offers: Vec<Offer>) {
        offers.sort_by_key(|offer| (std::cmp::Reverse(offer.source.preference()), offer.metric));
        let entry = &mut self.entries[place.at()];
        entry.best = (!offers.is_empty()).then(|| offers.remove(0));
        if !offers.is_empty() {
            entry.marks |= SEVERAL;
            self.others.insert(place, offers);
        }
    }

    /// Looks a prefix up ahead.
    pub fn seek(&self, prefix: Prefix) -> Sought {
        let hash = hash(&self.hasher, prefix);
        Sought { prefix, hash, place: self.find(prefix, hash) }
    }

    /// Looks some dozens of prefixes up ahead, which wait for memory at the same time.
    pub fn seek_all(&self, prefixes: impl Iterator<Item = Prefix>, all: &mut Vec<Sought>) {
        let hashed = |prefix| Sought { prefix, hash: hash(&self.hasher, prefix), place: None };
        all.extend(prefixes.map(hashed));
        for sought in all {
            sought.place = self.find(sought.prefix, sought.hash);
        }
    }

    /// The place that a look-up ahead found, if it still is the prefix's.
    fn still(&self, sought: Sought) -> Option<Place> {
        let is_still = |place: &Place| {
            let entry = &self.entries[place.at()];
            entry.prefix == sought.prefix && entry.is_needed()
        };
        sought.place.filter(is_still)
    }

    fn find(&self, prefix: Prefix, hash: u64) -> Option<Place> {
        let is_it = |place: &Place| self.entries[place.at()].prefix == prefix;
        self.places.find(hash, is_it).copied()
    }

    /// A prefix's place, which it gets where it has none: its own as long as it is held, or has an offer or news.
    pub fn place(&mut self, prefix: Prefix) -> Place {
        self.place_of(prefix, hash(&self.hasher, prefix))
    }

    fn place_of(&mut self, prefix: Prefix, hashed: u64) -> Place {
        let Rib { entries, places, hasher, free, .. } = self;
        let found = places.entry(
            hashed,
            |place| entries[place.at()].prefix == prefix,
            |place| hash(hasher, entries[place.at()].prefix),
        );
        match found {
            Found::Occupied(place) => *place.get(),
            Found::Vacant(vacant) => {
                let place = free.pop().unwrap_or(Place(entries.len() as u32));
                vacant.insert(place);
                let entry = Entry { prefix, marks: 0, best: None };
                match entries.get_mut(place.at()) {
                    Some(old) => *old = entry,
                    None => entries.push(entry),
                }
                place
            }
        }
    }

    /// From here on the place stays the prefix's, whatever becomes of its routes.
    pub fn hold(&mut self, place: Place) {
        self.entries[place.at()].marks |= HELD;
    }

    /// Nobody holds the place any more.
    pub fn let_go(&mut self, place: Place) {
        self.entries[place.at()].marks &= !HELD;
        self.forget_unless_needed(place);
    }

    fn forget_unless_needed(&mut self, place: Place) {
        let Rib { entries, places, hasher, free, .. } = self;
        let entry = &entries[place.at()];
        if entry.is_needed() {
            return;
        }
        if let Ok(found) = places.find_entry(hash(hasher, entry.prefix), |other| *other == place) {
            found.remove();
            free.push(place);
        }
    }

    /// Gives memory back that a large table no longer needs. Places stay what they are, so of the array it is what lies behind
    /// the last one in use. Due now and then, where places have been given up.
    pub fn shrink(&mut self) {
        let Rib { entries, places, hasher, free, most, .. } = self;
        // Looking costs a walk through all places: it is due when half of the prefixes have gone, and then again.
        if places.len() > *most / 2 {
            return;
        }
        *most = places.len();
        let few = 2 * places.len() + 1024;
        if places.capacity() > 2 * few {
            places.shrink_to(few, |place| hash(hasher, entries[place.at()].prefix));
        }
        if entries.capacity() > 2 * few {
            entries.truncate(entries.iter().rposition(Entry::is_needed).map_or(0, |last| last + 1));
            free.retain(|place| place.at() < entries.len());
            entries.shrink_to(few);
            free.shrink_to(few);
        }
    }

    fn note(&mut self, place: Place, before: Option<Offer>) {
        let entry = &mut self.entries[place.at()];
        let after = entry.best;
        if before == after {
            return;
        }
        if let Some(offer) = before {
            self.counts[offer.source as usize] -= 1;
        }
        if let Some(offer) = after {
            self.counts[offer.source as usize] += 1;
        }
        self.ways_changed |= before.into_iter().chain(after).any(|offer| offer.source.resolves());
        if !entry.has(CHANGED) {
            entry.marks |= CHANGED;
            self.changed.push(place);
        }
    }

    /// The winner for the very prefix.
    pub fn get(&self, prefix: Prefix) -> Option<Offer> {
        self.entries[self.seek(prefix).place?.at()].best
    }

    /// The prefix of a place, and its winner, where there is one.
    pub fn at(&self, place: Place) -> (Prefix, Option<Offer>) {
        let Entry { prefix, best, .. } = self.entries[place.at()];
        (prefix, best)
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

    /// Places of prefixes whose winner has changed since the last call: [`Self::changes_told`] is due once everybody knows.
    pub fn take_changed(&mut self) -> Vec<Place> {
        self.most = self.most.max(self.places.len());
        std::mem::take(&mut self.changed)
    }

    /// Everybody knows of these changes: places of prefixes without routes may be another's from here on.
    pub fn changes_told(&mut self, mut changed: Vec<Place>) {
        for place in changed.drain(..) {
            self.entries[place.at()].marks &= !CHANGED;
            self.forget_unless_needed(place);
        }
        if self.changed.is_empty() {
            // For the next: while a table loads it is as large each time.
            changed.shrink_to(CHANGED_KEPT);
            self.changed = changed;
        }
    }

    /// Has a winner changed since [`Self::take_changed`]?
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// May gateways be reached otherwise since the last call?
    pub fn take_ways_changed(&mut self) -> bool {
        std::mem::take(&mut self.ways_changed)
    }

    /// The targets that routes lead to.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Every prefix with its winner, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Offer)> {
        self.entries.iter().filter_map(|entry| Some((entry.prefix, entry.best?)))
    }

    /// Every place of a prefix that has a winner, with it.
    pub fn winners(&self) -> impl Iterator<Item = (Place, Offer)> {
        (0..).map(Place).zip(&self.entries).filter_map(|(place, entry)| Some((place, entry.best?)))
    }

    /// Every source's offer for the very prefix, best first.
    pub fn offers(&self, prefix: Prefix) -> impl Iterator<Item = Offer> {
        let place = self.seek(prefix).place;
        let best = place.and_then(|place| self.entries[place.at()].best);
        let others = place.and_then(|place| self.others.get(&place)).into_iter().flatten();
        best.into_iter().chain(others.copied())
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

/// The first `most` of these by their prefixes, in order, and how many there are: not all are put in order for a few.
pub fn first_of(
    winners: impl Iterator<Item = (Prefix, Offer)>,
    most: usize,
) -> (Vec<(Prefix, Offer)>, usize) {
    let (mut first, mut all) = (Vec::new(), 0);
    for winner in winners {
        all += 1;
        first.push(winner);
        if first.len() >= most.saturating_mul(2).max(1024) {
            keep_first(&mut first, most);
        }
    }
    keep_first(&mut first, most);
    first.sort_unstable_by_key(|(prefix, _)| *prefix);
    (first, all)
}

fn keep_first(winners: &mut Vec<(Prefix, Offer)>, most: usize) {
    if winners.len() > most {
        winners.select_nth_unstable_by_key(most, |(prefix, _)| *prefix);
        winners.truncate(most);
    }
}

/// Where a prefix lies, by its upper bits, and which of those it is that have these in common: at most 126. Neighbours, which
/// mostly come and go together, lie side by side, so that what finds one brings the others near. In the seven upper bits,
/// which tell apart what lies side by side, none is another's.
fn hash(hasher: &RandomState, prefix: Prefix) -> u64 {
    let len = prefix.len();
    let above = len.saturating_sub(1) / NEIGHBORS * NEIGHBORS;
    let (around, below) = match prefix.addr() {
        IpAddr::V4(addr) => {
            let addr = u64::from(addr.to_bits());
            (hasher.hash_one((addr >> (32 - above)) << 8 | u64::from(above)), addr >> (32 - len))
        }
        IpAddr::V6(addr) => {
            let addr = addr.to_bits();
            let bits = |len: u8| addr.checked_shr(u32::from(128 - len)).unwrap_or(0);
            (hasher.hash_one((bits(above), above)), bits(len) as u64)
        }
    };
    let neighbor = 1 << (len - above) | below & ((1 << (len - above)) - 1);
    around.wrapping_add(neighbor) ^ neighbor << 57
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
        let changed = rib.take_changed();
        rib.changes_told(changed);
        rib.insert(prefix("10.0.0.0/8"), Source::Bgp, &via(2), 0);
        rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(1), 0);
        assert!(!rib.has_changed());
        rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(3), 0);
        assert_eq!(rib.take_changed().len(), 1);
    }

    #[test]
    fn a_place_stays_its_prefixs_until_it_has_no_route_and_nobody_holds_it() {
        let mut rib = Rib::default();
        let settle = |rib: &mut Rib| {
            let changed = rib.take_changed();
            rib.changes_told(changed);
        };
        rib.insert(prefix("10.0.0.0/8"), Source::Bgp, &via(1), 0);
        let place = rib.place(prefix("10.0.0.0/8"));
        rib.hold(place);
        rib.remove(prefix("10.0.0.0/8"), Source::Bgp);
        settle(&mut rib);
        rib.insert(prefix("10.1.0.0/16"), Source::Bgp, &via(1), 0);
        assert_ne!(rib.place(prefix("10.1.0.0/16")), place, "it is held");
        assert_eq!(rib.at(place), (prefix("10.0.0.0/8"), None));
        rib.let_go(place);
        rib.insert(prefix("10.2.0.0/16"), Source::Bgp, &via(1), 0);
        assert_eq!(rib.place(prefix("10.2.0.0/16")), place);
    }

    #[test]
    fn a_large_table_that_has_gone_leaves_no_memory_behind() {
        let mut rib = Rib::default();
        rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(1), 0);
        let many: Vec<Prefix> =
            (0..50_000u32).map(|n| Prefix::new(IpAddr::V4((n << 8).into()), 24).unwrap()).collect();
        many.iter().for_each(|prefix| rib.insert(*prefix, Source::Bgp, &via(2), 0));
        let changed = rib.take_changed();
        rib.changes_told(changed);
        many.iter().for_each(|prefix| rib.remove(*prefix, Source::Bgp));
        let changed = rib.take_changed();
        rib.changes_told(changed);
        rib.shrink();
        assert!(rib.entries.capacity() < 5_000 && rib.places.capacity() < 10_000 && rib.free.len() < 5_000);
        many.iter().for_each(|prefix| rib.insert(*prefix, Source::Bgp, &via(2), 0));
        assert_eq!(rib.len(), 50_001);
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

    #[test]
    fn the_first_by_prefix_are_found_among_any_number() {
        let target = TargetId(1);
        let offer = Offer { source: Source::Bgp, target, metric: 0 };
        // Every address of a /20 once, in an order that is none.
        let winner = |n: u32| {
            let host = IpAddr::from((0x0a00_0000 + n * 2731 % 4096).to_be_bytes());
            (Prefix::host(host), offer)
        };
        for most in [0, 1, 700, 4096, 5000] {
            let (first, all) = first_of((0..4096).map(winner), most);
            let expected = (0..4096u32).map(|n| Prefix::host(IpAddr::from((0x0a00_0000 + n).to_be_bytes())));
            assert_eq!(all, 4096);
            assert!(first.iter().map(|(prefix, _)| *prefix).eq(expected.take(most)), "{most}");
        }
    }

    #[test]
    fn neighbours_lie_side_by_side_and_are_told_apart() {
        let rib = Rib::default();
        let of = |text: &str| hash(&rib.hasher, prefix(text));
        let many = [prefix("10.65.64.0/18"), prefix("2001:db8:40::/42")].map(|around| {
            let (bits, len) = (if around.addr().is_ipv4() { 32 } else { 128 }, around.len());
            let inside = (1..=NEIGHBORS).flat_map(move |more| (0..1u128 << more).map(move |n| (more, n)));
            let inside = inside.map(move |(more, n)| {
                let addr = match around.addr() {
                    IpAddr::V4(addr) => {
                        IpAddr::V4((addr.to_bits() | (n as u32) << (bits - u32::from(len + more))).into())
                    }
                    IpAddr::V6(addr) => {
                        IpAddr::V6((addr.to_bits() | n << (bits - u32::from(len + more))).into())
                    }
                };
                Prefix::new(addr, len + more).unwrap()
            });
            inside.collect::<Vec<_>>()
        });
        for neighbors in many {
            let hashes: Vec<u64> = neighbors.iter().map(|prefix| hash(&rib.hasher, *prefix)).collect();
            let low = |hash: &u64| hash & (u64::MAX >> 7);
            let first = hashes.iter().map(low).min().unwrap();
            let mut places: Vec<u64> = hashes.iter().map(|hash| low(hash) - first).collect();
            assert!(places.iter().all(|place| *place < 126), "{places:?}");
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), 126);
            let tags: std::collections::BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert_eq!(tags.len(), 126);
        }
        assert_ne!(of("0.0.0.0/0"), of("::/0"));
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
