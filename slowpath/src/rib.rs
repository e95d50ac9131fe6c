//! The RIB: every route that any source offers, and one winner a prefix.

mod entries;
mod first;
mod neighborhood;
mod source;

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::IpAddr;

use ahash::{AHashMap, RandomState};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Found;
use model::{Family, Prefix};

use self::entries::{Entries, mark};
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u32);

impl Place {
    /// Where that is in an array.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// Room for changed prefixes that is kept when they have been told.
const CHANGED_KEPT: usize = 1 << 16;

/// Below so many idle prefixes it isn't worth to look for them.
const SLACK: usize = 1024;

/// What a look-up ahead has found ([`Rib::seek`]). Right or not by now, it is checked before it is relied on.
#[derive(Clone, Copy, Debug)]
pub struct Sought {
    prefix: Prefix,
    /// Where it was needed.
    hash: Option<u64>,
    place: Option<Place>,
}

impl Sought {
    /// What was looked up.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }
}

/// All routes. A prefix has a place in an array; what finds it there is a table of four bytes a prefix.
///
/// A prefix that comes to an end keeps its place until there are three times as many such as others: most of a table that goes
/// is never looked up in that table again, and a prefix that comes back is where it was.
#[derive(Default)]
pub struct Rib {
    entries: Entries,
    places: HashTable<Place>,
    hasher: RandomState,
    /// The place behind the one that was found last: prefixes mostly come in the order in which they came before.
    next: Cell<Place>,
    /// The offers besides the best, which few prefixes have; best first, never empty.
    others: AHashMap<Place, Vec<Offer>>,
    /// Prefixes of each length, so that a look-up skips lengths that don't exist.
    lengths: Lengths,
    counts: [usize; Source::ALL.len()],
    targets: Targets,
    changed: Vec<Place>,
    /// Prefixes whose last route was BGP's and is gone, each once, in the order in which that happened. One that has a route
    /// again is among those that have changed, too.
    gone: VecDeque<Place>,
    /// Among them is a winner that gateways may be reached by.
    ways_changed: bool,
}

/// By family, then length.
struct Lengths([[usize; 129]; 2]);

impl Lengths {
    fn of(&mut self, prefix: Prefix) -> &mut usize {
        &mut self.0[prefix.family() as usize][usize::from(prefix.len())]
    }
}

impl Default for Lengths {
    fn default() -> Lengths {
        Lengths([[0; 129]; 2])
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
        let place = self.still(sought).unwrap_or_else(|| self.place_of(sought));
        self.entries.wake(place);
        let before = self.entries.best(place);
        match before {
            None => {
                self.entries.set_best(place, Some(offer));
                *self.lengths.of(prefix) += 1;
            }
            Some(only) if only.source == source && !self.entries.has(place, mark::SEVERAL) => {
                self.entries.set_best(place, Some(offer));
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
        let Some(place) = self.still(sought).or_else(|| self.find(sought)) else { return };
        let before = self.entries.best(place);
        if !self.entries.has(place, mark::SEVERAL) {
            let Some(only) = before.filter(|only| only.source == source) else { return };
            self.entries.set_best(place, None);
            *self.lengths.of(sought.prefix) -= 1;
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
        let mut offers = match self.entries.has(place, mark::SEVERAL) {
            true => self.others.remove(&place).unwrap_or_default(),
            false => Vec::new(),
        };
        self.entries.set(place, mark::SEVERAL, false);
        offers.extend(self.entries.best(place));
        self.entries.set_best(place, None);
        offers
    }

    fn put(&mut self, place: Place, mut offers: Vec<Offer>) {
        offers.sort_by_key(|offer| (std::cmp::Reverse(offer.source.preference()), offer.metric));
        self.entries.set_best(place, (!offers.is_empty()).then(|| offers.remove(0)));
        if !offers.is_empty() {
            self.entries.set(place, mark::SEVERAL, true);
            self.others.insert(place, offers);
        }
    }

    /// Looks a prefix up ahead.
    pub fn seek(&self, prefix: Prefix) -> Sought {
        let mut sought = Sought { prefix, hash: None, place: None };
        let next = self.next.get();
        if self.entries.is(next, prefix) {
            sought.place = Some(next);
        } else {
            sought.hash = Some(hash(&self.hasher, prefix));
            sought.place = self.find(sought);
        }
        if let Some(Place(place)) = sought.place {
            self.next.set(Place(place + 1));
        }
        sought
    }

    /// Looks some dozens of prefixes up ahead, which wait for memory at the same time.
    pub fn seek_all(&self, prefixes: impl Iterator<Item = Prefix>, all: &mut Vec<Sought>) {
        // First as if each lay behind the one before.
        let Place(next) = self.next.get();
        all.extend((next..).map(Place).zip(prefixes).map(
            |(next, prefix)| match self.entries.is(next, prefix) {
                true => Sought { prefix, hash: None, place: Some(next) },
                false => Sought { prefix, hash: Some(hash(&self.hasher, prefix)), place: None },
            },
        ));
        for sought in all.iter_mut().filter(|sought| sought.place.is_none()) {
            sought.place = self.find(*sought);
        }
        if let Some(Place(last)) = all.last().and_then(|sought| sought.place) {
            self.next.set(Place(last + 1));
        }
    }

    /// The place that a look-up ahead found, if it still is the prefix's.
    fn still(&self, sought: Sought) -> Option<Place> {
        sought.place.filter(|place| self.entries.is(*place, sought.prefix))
    }

    fn find(&self, sought: Sought) -> Option<Place> {
        let hash = self.hash_of(sought);
        self.places.find(hash, |place| self.entries.is(*place, sought.prefix)).copied()
    }

    fn hash_of(&self, sought: Sought) -> u64 {
        sought.hash.unwrap_or_else(|| hash(&self.hasher, sought.prefix))
    }

    /// A prefix's place, which it gets where it has none: its own as long as it is held, or has an offer or news.
    pub fn place(&mut self, prefix: Prefix) -> Place {
        let sought = self.seek(prefix);
        sought.place.unwrap_or_else(|| self.place_of(sought))
    }

    fn place_of(&mut self, sought: Sought) -> Place {
        if self.places.len() == self.places.capacity() {
            self.grow();
        }
        let hashed = self.hash_of(sought);
        let Rib { entries, places, hasher, .. } = self;
        let found = places.entry(
            hashed,
            |place| entries.is(*place, sought.prefix),
            |place| hash(hasher, entries.prefix(*place)),
        );
        match found {
            Found::Occupied(place) => *place.get(),
            Found::Vacant(vacant) => {
                let place = entries.add(sought.prefix);
                vacant.insert(place);
                place
            }
        }
    }

    /// Makes more room in what finds prefixes. Place by place, as they lie in memory, which is much quicker than in the order
    /// of what is there.
    fn grow(&mut self) {
        let Rib { entries, places, hasher, .. } = self;
        let room = 2 * places.len().max(8);
        // Not beside each other.
        *places = HashTable::new();
        // Enough for all: nobody is asked for a hash again.
        places.reserve(room, |_| 0);
        for place in entries.taken() {
            places.insert_unique(hash(hasher, entries.prefix(place)), place, |_| 0);
        }
    }

    /// From here on the place stays the prefix's, whatever becomes of its routes.
    pub fn hold(&mut self, place: Place) {
        self.entries.wake(place);
        self.entries.set(place, mark::HELD, true);
    }

    /// Nobody holds the place any more.
    pub fn let_go(&mut self, place: Place) {
        self.entries.set(place, mark::HELD, false);
        self.entries.may_rest(place);
    }

    /// Gives memory back that a large table no longer needs. Due now and then, where places have been given up.
    pub fn shrink(&mut self) {
        let (all, idle) = self.entries.counts();
        // Looking costs a walk through all places: it is due when three quarters of the prefixes have gone, and then again.
        if idle > 3 * (all - idle) + SLACK {
            self.vacate();
        }
    }

    /// Places of prefixes that have come to their end are nobody's from here on.
    fn vacate(&mut self) {
        let (all, idle) = self.entries.counts();
        let Rib { entries, places, hasher, .. } = self;
        *places = HashTable::new();
        // Enough for all: nobody is asked for a hash again.
        places.reserve(all - idle, |_| 0);
        entries.vacate(|place, prefix| {
            places.insert_unique(hash(hasher, prefix), place, |_| 0);
        });
    }

    fn note(&mut self, place: Place, before: Option<Offer>) {
        let after = self.entries.best(place);
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
        let is_going = after.is_none() && before.is_some_and(|offer| offer.source.may_linger());
        if self.entries.has(place, mark::CHANGED) || is_going && self.entries.has(place, mark::GOING) {
            return;
        }
        self.entries.set(place, if is_going { mark::GOING } else { mark::CHANGED }, true);
        match is_going {
            true => self.gone.push_back(place),
            false => self.changed.push(place),
        }
    }

    /// The winner for the very prefix.
    pub fn get(&self, prefix: Prefix) -> Option<Offer> {
        self.entries.best(self.seek(prefix).place?)
    }

    /// The prefix of a place, and its winner, where there is one.
    pub fn at(&self, place: Place) -> (Prefix, Option<Offer>) {
        (self.entries.prefix(place), self.entries.best(place))
    }

    /// The winner of the longest prefix that covers the address and that `accept` takes.
    pub fn covering(&self, addr: IpAddr, accept: impl Fn(Prefix, Offer) -> bool) -> Option<(Prefix, Offer)> {
        let lengths = &self.lengths.0[Family::of(addr) as usize];
        (0..=Family::of(addr).bits()).rev().filter(|len| lengths[usize::from(*len)] > 0).find_map(|len| {
            let prefix = Prefix::new(addr, len)?;
            let offer = self.get(prefix)?;
            accept(prefix, offer).then_some((prefix, offer))
        })
    }

    /// Places of prefixes whose winner has changed since the last call, but for [those that are gone](Self::take_gone):
    /// [`Self::changes_told`] is due once everybody knows.
    pub fn take_changed(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.changed)
    }

    /// Everybody knows of these changes: places of prefixes without routes may be another's from here on.
    pub fn changes_told(&mut self, mut changed: Vec<Place>) {
        for place in changed.drain(..) {
            self.entries.set(place, mark::CHANGED, false);
            self.entries.may_rest(place);
        }
        if self.changed.is_empty() {
            // For the next: while a table loads it is as large each time.
            changed.shrink_to(CHANGED_KEPT);
            self.changed = changed;
        }
    }

    /// Has a winner changed since [`Self::take_changed`]?
    #[cfg(test)]
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The next places, `most` at once, of prefixes whose last route was BGP's and is gone: these may come by the million, and
    /// nobody waits for them. [`Self::gone_told`] is due once everybody knows.
    pub fn take_gone(&mut self, most: usize) -> Vec<Place> {
        let Rib { entries, gone, .. } = self;
        let mut next: Vec<Place> = gone.drain(..most.min(gone.len())).collect();
        next.retain(|place| {
            let is_back = entries.best(*place).is_some();
            if is_back {
                entries.set(*place, mark::GOING, false);
            }
            !is_back
        });
        next
    }

    /// Everybody knows that these are gone: places of prefixes without routes may be another's from here on.
    pub fn gone_told(&mut self, gone: &[Place]) {
        for place in gone {
            self.entries.set(*place, mark::GOING, false);
            self.entries.may_rest(*place);
        }
        if self.gone.is_empty() {
            self.gone.shrink_to(CHANGED_KEPT);
        }
    }

    /// Prefixes that wait for [`Self::take_gone`].
    pub fn gone(&self) -> usize {
        self.gone.len()
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
        self.winners().map(|(place, offer)| (self.entries.prefix(place), offer))
    }

    /// Every place of a prefix that has a winner, with it.
    pub fn winners(&self) -> impl Iterator<Item = (Place, Offer)> {
        self.entries.taken().filter_map(|place| Some((place, self.entries.best(place)?)))
    }

    /// Every source's offer for the very prefix, best first.
    pub fn offers(&self, prefix: Prefix) -> impl Iterator<Item = Offer> {
        let place = self.seek(prefix).place;
        let best = place.and_then(|place| self.entries.best(place));
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

#[cfg(test)]
mod tests;
