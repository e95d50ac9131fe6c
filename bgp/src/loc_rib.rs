//! All paths to all prefixes, one table for each family.
//!
//! The Adj-RIBs-In and the Loc-RIB of RFC 4271 §3.2 share these tables: an entry holds every path that peers
//! announced and marks those that the decision process chose. Keys and paths are kept small, as there can be
//! a million of each.
//!
//! A prefix is looked up once, when a peer speaks of it, together with others of the same message ([`Table::seek`]): first
//! where it would be if prefixes came in the order in which they came before. From there on it is an [`Index`], its place in
//! an array, and so it is in the queue and in what groups of peers are told ([`crate::adj_rib_out`]).

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;
use model::{Family, Prefix};

use crate::key::{Key, KeyV4, KeyV6};
use crate::pass::Portion;
use crate::path::{Path, Paths, Slot, mark};

/// A prefix's paths and what is left to do about it.
#[derive(Clone, Debug)]
pub(crate) struct Entry<K> {
    pub(crate) key: K,
    state: u8,
    pub(crate) paths: Paths,
}

// There can be millions of them.
const _: () = assert!(size_of::<Entry<KeyV4>>() == 32 && size_of::<Entry<KeyV6>>() == 48);

/// An entry waits in the queue for the decision process.
const QUEUED: u8 = 1;
/// A chosen path went or changed since the last decision, so the outcome is news even if the rest stays.
const CHOSEN_CHANGED: u8 = 1 << 1;
/// The forwarding plane holds routes for it.
const GIVEN: u8 = 1 << 2;
/// The prefix is gone. It still is where it was, as it may well come back.
const GONE: u8 = 1 << 3;
/// Its place is nobody's.
const VACANT: u8 = 1 << 4;

impl<K> Entry<K> {
    fn new(key: K) -> Entry<K> {
        Entry { key, state: 0, paths: Paths::None }
    }

    fn is(&self, state: u8) -> bool {
        self.state & state != 0
    }

    /// Notes a state, or that it is over; was it so before?
    fn set(&mut self, state: u8, is: bool) -> bool {
        let was = self.is(state);
        self.state = if is { self.state | state } else { self.state & !state };
        was
    }

    /// Has a chosen path gone or changed since the last decision? Whatever comes of the next one is news.
    pub(crate) fn has_chosen_changed(&self) -> bool {
        self.is(CHOSEN_CHANGED)
    }

    /// Does the forwarding plane hold routes for it?
    pub(crate) fn is_given(&self) -> bool {
        self.is(GIVEN)
    }

    /// The forwarding plane holds routes for it, or no longer does.
    pub(crate) fn set_given(&mut self, given: bool) {
        self.set(GIVEN, given);
    }

    /// Has a chosen path gone or changed since this was asked last?
    pub(crate) fn take_chosen_changed(&mut self) -> bool {
        self.set(CHOSEN_CHANGED, false)
    }

    fn note_chosen_changed(&mut self, changed: bool) {
        self.state |= if changed { CHOSEN_CHANGED } else { 0 };
    }

    /// The path that peers are told of.
    pub(crate) fn best(&self) -> Option<&Path> {
        self.paths.as_slice().iter().find(|path| path.has(mark::BEST))
    }
}

/// What becomes of a path that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// It stays as it is.
    Same,
    /// It has been judged anew and stays as it is.
    SameAgain,
    /// It has changed: its prefix is decided again.
    Another,
    /// It goes.
    Nothing,
}

/// What became of an announced path.
pub(crate) enum Inserted {
    /// It is new.
    New,
    /// It took the place of this one.
    Replaced(Path),
}

/// A prefix's place in its family's table, for as long as there are paths to it or news of it is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Index(pub(crate) u32);

impl Index {
    fn at(self) -> usize {
        self.0 as usize
    }
}

/// A path that a peer speaks of, and where its prefix is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought<K> {
    pub(crate) key: K,
    pub(crate) path_id: u32,
    /// Where it was needed.
    hash: Option<u64>,
    found: Option<Index>,
}

impl<K> Sought<K> {
    /// Not looked up yet.
    pub(crate) fn new(key: K, path_id: u32) -> Sought<K> {
        Sought { key, path_id, hash: None, found: None }
    }

    /// Where its prefix is, if it was there when it was sought.
    pub(crate) fn index(&self) -> Option<Index> {
        self.found
    }
}

/// Prefixes that are looked up together: as many as a core can wait for at once, and some.
pub(crate) const TOGETHER: usize = 32;

/// Below so many prefixes that are gone it isn't worth to look for them.
const SLACK: usize = 1024;

/// So many times as many gone prefixes as others are forgotten, which costs a walk through all places: when nothing is to be
/// done, and when something is.
const AT_REST: usize = 3;
const AT_WORK: usize = 15;

/// All prefixes of one family.
///
/// One that is gone keeps its place until there are [`AT_REST`] times as many such as others, or [`AT_WORK`] times: most of a
/// table that goes is never looked up again in what finds prefixes, and one that comes back is where it was.
#[derive(Debug)]
pub(crate) struct Table<K> {
    entries: Vec<Entry<K>>,
    places: HashTable<Index>,
    /// The place behind the one that was found last: prefixes mostly come in the order in which they came before.
    next: Cell<Index>,
    hasher: RandomState,
    free: Vec<Index>,
    gone: usize,
    queue: VecDeque<Index>,
    batch: Vec<Sought<K>>,
}

impl<K: Key> Table<K> {
    pub(crate) fn new(hasher: RandomState) -> Table<K> {
        Table {
            entries: Vec::new(),
            places: HashTable::new(),
            next: Cell::default(),
            hasher,
            free: Vec::new(),
            gone: 0,
            queue: VecDeque::new(),
            batch: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.gone
    }

    /// One more than the last index there has been since the table was empty.
    pub(crate) fn end(&self) -> Index {
        Index(self.entries.len() as u32)
    }

    pub(crate) fn find(&self, key: K) -> Option<Index> {
        self.find_hashed(key, self.hasher.hash_one(key))
    }

    pub(crate) fn get(&self, key: K) -> Option<&Entry<K>> {
        self.entry(self.find(key)?)
    }

    /// What is at an index, unless its prefix is gone.
    pub(crate) fn entry(&self, index: Index) -> Option<&Entry<K>> {
        self.entries.get(index.at()).filter(|entry| !entry.is(GONE | VACANT))
    }

    /// Room for what is looked up together, to be given back with [`Table::keep_batch`] to be used again.
    pub(crate) fn batch(&mut self) -> Vec<Sought<K>> {
        std::mem::take(&mut self.batch)
    }

    pub(crate) fn keep_batch(&mut self, batch: Vec<Sought<K>>) {
        self.batch = batch;
    }

    /// Looks prefixes up together: each waits for memory, and so they wait at the same time. What is found stays so until
    /// something is decided.
    pub(crate) fn seek(&self, sought: &mut [Sought<K>]) {
        // First as if each lay behind the one before.
        let Index(next) = self.next.get();
        for (sought, next) in sought.iter_mut().zip((next..).map(Index)) {
            sought.found = Some(next).filter(|next| self.is(*next, sought.key));
            if sought.found.is_none() {
                sought.hash = Some(self.hasher.hash_one(sought.key));
            }
        }
        for sought in sought.iter_mut().filter(|sought| sought.found.is_none()) {
            sought.found = self.find_hashed(sought.key, self.hash_of(*sought));
        }
        if let Some(Index(last)) = sought.last().and_then(|sought| sought.found) {
            self.next.set(Index(last + 1));
        }
    }

    /// Is the place this prefix's, even if that is gone?
    fn is(&self, index: Index, key: K) -> bool {
        self.entries.get(index.at()).is_some_and(|entry| entry.key == key && !entry.is(VACANT))
    }

    fn hash_of(&self, sought: Sought<K>) -> u64 {
        sought.hash.unwrap_or_else(|| self.hasher.hash_one(sought.key))
    }

    fn find_hashed(&self, key: K, hash: u64) -> Option<Index> {
        self.places.find(hash, |place| self.entries[place.at()].key == key).copied()
    }

    /// Gives those an index that have none, all before anything is written to their entries: so these writes wait at the same
    /// time, too. Each must get a path.
    pub(crate) fn place_all(&mut self, sought: &mut [Sought<K>]) {
        for sought in sought {
            sought.found = Some(self.place(*sought));
        }
    }

    /// Looks a single one up.
    pub(crate) fn seek_one(&self, key: K, path_id: u32) -> Sought<K> {
        let mut sought = [Sought::new(key, path_id)];
        self.seek(&mut sought);
        let [sought] = sought;
        sought
    }

    /// The path that this source has.
    pub(crate) fn path(&self, sought: Sought<K>, source: Slot) -> Option<&Path> {
        // Another of the same message may have brought the prefix up.
        let index = sought.found.or_else(|| self.find_hashed(sought.key, self.hash_of(sought)));
        let paths = &self.entry(index?)?.paths;
        paths.as_slice().get(paths.position(source, sought.path_id)?)
    }

    /// The index of a prefix, which gets one where it has none.
    fn place(&mut self, sought: Sought<K>) -> Index {
        let index = sought.found.unwrap_or_else(|| self.place_sought(sought));
        let entry = &mut self.entries[index.at()];
        if entry.set(GONE, false) {
            self.gone -= 1;
        }
        index
    }

    fn place_sought(&mut self, sought: Sought<K>) -> Index {
        if self.places.len() == self.places.capacity() {
            self.rehash(false);
        }
        let hash = self.hash_of(sought);
        let Table { entries, places, hasher, free, .. } = self;
        let found = places.entry(
            hash,
            |place| entries[place.at()].key == sought.key,
            |place| hasher.hash_one(entries[place.at()].key),
        );
        match found {
            hashbrown::hash_table::Entry::Occupied(place) => *place.get(),
            hashbrown::hash_table::Entry::Vacant(place) => {
                let index = free.pop().unwrap_or(Index(entries.len() as u32));
                place.insert(index);
                if index.at() == entries.len() {
                    entries.push(Entry::new(sought.key));
                } else {
                    entries[index.at()] = Entry::new(sought.key);
                }
                index
            }
        }
    }

    /// Makes what finds prefixes anew: with more room, or without those that are gone, whose places others may get from here
    /// on. Entry by entry, as they lie in memory, which is much quicker than in the order of what is there.
    fn rehash(&mut self, forgets: bool) {
        let room = if forgets { self.len() } else { 2 * self.places.len().max(8) };
        let Table { entries, places, hasher, free, .. } = self;
        // Not beside each other.
        (*places, *free) = (HashTable::new(), Vec::new());
        // Enough for all: nobody is asked for a hash again.
        places.reserve(room, |_| 0);
        for (index, entry) in (0..).map(Index).zip(entries) {
            if forgets && entry.is(GONE) {
                entry.state = VACANT;
            }
            if entry.is(VACANT) {
                free.push(index);
            } else {
                places.insert_unique(hasher.hash_one(entry.key), index, |_| 0);
            }
        }
        // Those in front are taken first.
        free.reverse();
        self.gone = if forgets { 0 } else { self.gone };
    }

    /// Puts a path beside others or in place of the source's former one.
    ///
    /// A path that says nothing new only sheds its staleness and is given back as what it replaced.
    pub(crate) fn insert(&mut self, sought: Sought<K>, mut path: Path) -> Inserted {
        let index = self.place(sought);
        let entry = &mut self.entries[index.at()];
        let Some(at) = entry.paths.position(path.source, path.path_id) else {
            entry.paths.push(path);
            enqueue(entry, index, &mut self.queue);
            return Inserted::New;
        };
        let old = &mut entry.paths.as_mut_slice()[at];
        let chosen = mark::CHOSEN | mark::BEST;
        let same = Arc::ptr_eq(&old.imported, &path.imported)
            && old.rank == path.rank
            && (old.marks ^ path.marks) & !(chosen | mark::STALE) == 0;
        if same {
            let replaced = old.clone();
            let was_stale = old.has(mark::STALE);
            old.marks &= !mark::STALE;
            old.cohort = path.cohort;
            if was_stale {
                enqueue(entry, index, &mut self.queue);
            }
            return Inserted::Replaced(replaced);
        }
        let was_chosen = old.has(mark::CHOSEN);
        path.sent_id = old.sent_id;
        std::mem::swap(old, &mut path);
        entry.note_chosen_changed(was_chosen);
        enqueue(entry, index, &mut self.queue);
        Inserted::Replaced(path)
    }

    /// Takes a source's path away.
    pub(crate) fn remove(&mut self, sought: Sought<K>, source: Slot) -> Option<Path> {
        let index = sought.found?;
        let entry = &mut self.entries[index.at()];
        let at = entry.paths.position(source, sought.path_id)?;
        let removed = entry.paths.remove(at)?;
        entry.note_chosen_changed(removed.has(mark::CHOSEN));
        enqueue(entry, index, &mut self.queue);
        Some(removed)
    }

    /// Lets `becomes` see the paths of a range of prefixes, as far as a portion goes. Says where it has come to.
    pub(crate) fn go_over(
        &mut self,
        range: Range<Index>,
        portion: &mut Portion,
        mut becomes: impl FnMut(K, &mut Path) -> Becomes,
    ) -> Index {
        let mut next = range.start;
        while next < range.end
            && !portion.is_done()
            && let Some(entry) = self.entries.get_mut(next.at())
        {
            portion.looks -= 1;
            let (key, mut at) = (entry.key, 0);
            while let Some(path) = entry.paths.as_mut_slice().get_mut(at) {
                let matters = |path: &Path| (Arc::as_ptr(&path.imported), path.marks & mark::INELIGIBLE);
                let (before, was_chosen) = (matters(path), path.has(mark::CHOSEN));
                let becomes = becomes(key, path);
                let is_another = was_chosen && (becomes == Becomes::Nothing || matters(path) != before);
                match becomes {
                    Becomes::Nothing => drop(entry.paths.remove(at)),
                    Becomes::Same | Becomes::SameAgain | Becomes::Another => at += 1,
                }
                if becomes != Becomes::Same {
                    portion.changes = portion.changes.saturating_sub(1);
                }
                if matches!(becomes, Becomes::Nothing | Becomes::Another) {
                    entry.note_chosen_changed(is_another);
                    enqueue(entry, next, &mut self.queue);
                }
            }
            next = Index(next.0 + 1);
        }
        next
    }

    /// Has the prefixes of a range decided again of which a path that takes part in decisions has such a next hop.
    pub(crate) fn decide_some_again(&mut self, range: Range<Index>, is_such: impl Fn(IpAddr) -> bool) {
        let end = range.end.at().min(self.entries.len());
        let some = self.entries.get_mut(range.start.at()..end).into_iter().flatten();
        for (index, entry) in (range.start.0..).map(Index).zip(some) {
            if entry.paths.as_slice().iter().filter_map(Path::used_nexthop).any(&is_such) {
                enqueue(entry, index, &mut self.queue);
            }
        }
    }

    /// Has a prefix decided again, if it is there.
    pub(crate) fn decide_again(&mut self, index: Index) {
        if let Some(entry) = self.entries.get_mut(index.at()).filter(|entry| !entry.is(GONE | VACANT)) {
            enqueue(entry, index, &mut self.queue);
        }
    }

    /// The next prefix to decide; [`Table::drop_if_empty`] is due once everybody knows what came of it.
    pub(crate) fn next_queued(&mut self) -> Option<(Index, &mut Entry<K>)> {
        let index = self.queue.pop_front()?;
        let entry = &mut self.entries[index.at()];
        entry.set(QUEUED, false);
        Some((index, entry))
    }

    /// A prefix that has no path left is gone, unless it waits to be decided again.
    pub(crate) fn drop_if_empty(&mut self, index: Index) {
        let entry = &mut self.entries[index.at()];
        if !entry.is(GONE | VACANT | QUEUED) && entry.paths.as_slice().is_empty() {
            entry.set(GONE, true);
            self.gone += 1;
        }
    }

    /// Prefixes that wait to be decided.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Gives memory back that a large table no longer needs: indices stay what they are, so all of it goes with the last
    /// prefix, and what finds prefixes before that.
    pub(crate) fn shrink(&mut self) {
        let left = self.len();
        if left == 0 && self.queue.is_empty() && self.entries.capacity() > 1024 {
            (self.entries, self.free, self.places, self.gone) = (Vec::new(), Vec::new(), HashTable::new(), 0);
        }
        self.forget(AT_REST);
        if self.queue.is_empty() && self.queue.capacity() > 1024 {
            self.queue = VecDeque::new();
        }
    }

    /// What of that can't wait.
    pub(crate) fn shrink_at_work(&mut self) {
        self.forget(AT_WORK);
    }

    fn forget(&mut self, times: usize) {
        if self.gone > times * self.len() + SLACK {
            self.rehash(true);
        }
    }

    /// All prefixes with their paths, in order.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (Prefix, &Paths)> {
        let mut entries: Vec<&Entry<K>> =
            self.entries.iter().filter(|entry| !entry.is(GONE | VACANT)).collect();
        entries.sort_unstable_by_key(|entry| entry.key);
        entries.into_iter().map(|entry| (entry.key.prefix(), &entry.paths))
    }
}

fn enqueue<K>(entry: &mut Entry<K>, index: Index, queue: &mut VecDeque<Index>) {
    if !entry.set(QUEUED, true) {
        queue.push_back(index);
    }
}

/// The tables of both families.
#[derive(Debug)]
pub(crate) struct Rib {
    pub(crate) v4: Table<KeyV4>,
    pub(crate) v6: Table<KeyV6>,
}

impl Rib {
    pub(crate) fn new(hasher: &RandomState) -> Rib {
        Rib { v4: Table::new(hasher.clone()), v6: Table::new(hasher.clone()) }
    }

    /// The paths to a prefix.
    pub(crate) fn paths(&self, prefix: Prefix) -> &[Path] {
        match prefix.family() {
            Family::V4 => self.v4.get(KeyV4::new(prefix)).map(|entry| entry.paths.as_slice()),
            Family::V6 => self.v6.get(KeyV6::new(prefix)).map(|entry| entry.paths.as_slice()),
        }
        .unwrap_or_default()
    }

    pub(crate) fn len(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4.len(),
            Family::V6 => self.v6.len(),
        }
    }

    pub(crate) fn has_queued(&self) -> bool {
        self.v4.has_queued() || self.v6.has_queued()
    }

    /// The prefix whose place this is, and its paths. One that is there stays where it is.
    pub(crate) fn at(&self, family: Family, index: Index) -> Option<(Prefix, &[Path])> {
        fn of<K: Key>(entry: &Entry<K>) -> (Prefix, &[Path]) {
            (entry.key.prefix(), entry.paths.as_slice())
        }
        match family {
            Family::V4 => self.v4.entry(index).map(of),
            Family::V6 => self.v6.entry(index).map(of),
        }
    }

    /// Prefixes of both families that wait to be decided.
    pub(crate) fn queued(&self) -> usize {
        self.v4.queued() + self.v6.queued()
    }
}

#[cfg(test)]
mod tests;
