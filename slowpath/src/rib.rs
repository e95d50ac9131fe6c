//! The RIB: every route that any source offers, and one winner a prefix.

mod first;
mod neighborhood;
mod source;

use std::net::IpAddr;

use ahash::{AHashMap, RandomState};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Found;
use model::{Family, Prefix};

pub use self::first::first_of;
use self::neighborhood::hash;
pub use self::source::Source;
use crate::target::{Target, TargetId, Targets};

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

fn family_row(prefix: Prefix) -> usize {
    match prefix.family() {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

#[cfg(test)]
mod tests;
