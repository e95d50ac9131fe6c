//! What a group of peers has been told (RFC 4271 §3.2, Adj-RIBs-Out), kept once for all of them.
//!
//! All are told the same of a prefix, but the peer that the route comes from, which is told nothing of it. So this is by
//! [`Index`], as the Loc-RIB is: a page for each 64 prefixes, with a word that says of which of them anything was said.
//!
//! What was said itself follows from the best path and the group's policy, so only enough is kept to tell whether something
//! else is to be said now: see [`crate::wording`].
//!
//! A member that leaves takes a copy of all of it along ([`crate::former`]).

use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;

use crate::backlog::Backlog;
use crate::key::{Key, KeyV4, KeyV6};
use crate::loc_rib::{Index, Rib, Table};
use crate::parted::Parted;
use crate::path::Slot;
use crate::wire::nlri::Nlri;
use crate::wording::{Print, Stage, Worded};

/// What is said of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) print: Print,
    /// Whose route it is: to that peer nothing is said.
    pub(crate) source: Slot,
}

/// Prefixes of a page.
pub(crate) const PAGE: usize = 64;

#[derive(Clone, Debug)]
struct Page {
    /// A bit for each that is there.
    there: u64,
    prints: [Print; PAGE],
    sources: Sources,
}

// A prefix takes little more than eight bytes, and there can be millions of them for each group.
const _: () = assert!(size_of::<Page>() == 8 * PAGE + 24);

/// Whose routes those of a page are. A peer's mostly come together.
#[derive(Clone, Debug)]
enum Sources {
    AllOf(Slot),
    Each(Box<[Slot; PAGE]>),
}

impl Page {
    fn new(source: Slot) -> Page {
        Page { there: 0, prints: [Print::UNKNOWN; PAGE], sources: Sources::AllOf(source) }
    }

    fn get(&self, at: usize) -> Option<Said> {
        let source = match &self.sources {
            Sources::AllOf(source) => *source,
            Sources::Each(sources) => sources[at],
        };
        (self.there & 1 << at != 0).then_some(Said { print: self.prints[at], source })
    }

    fn put(&mut self, at: usize, said: Option<Said>) {
        let Some(Said { print, source }) = said else {
            self.there &= !(1 << at);
            return;
        };
        self.there |= 1 << at;
        self.prints[at] = print;
        match &mut self.sources {
            Sources::AllOf(all) if *all == source => {}
            Sources::AllOf(all) => {
                let mut each = Box::new([*all; PAGE]);
                each[at] = source;
                self.sources = Sources::Each(each);
            }
            Sources::Each(each) => each[at] = source,
        }
    }
}

/// What was said, by [`Index`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages(Vec<Option<Box<Page>>>);

impl Pages {
    fn page(&self, number: usize) -> Option<&Page> {
        self.0.get(number)?.as_deref()
    }

    pub(crate) fn get(&self, index: Index) -> Option<Said> {
        self.page(index.0 as usize / PAGE)?.get(index.0 as usize % PAGE)
    }

    /// Notes what is said from now on; gives what was said before.
    fn put(&mut self, index: Index, said: Option<Said>) -> Option<Said> {
        let (number, at) = (index.0 as usize / PAGE, index.0 as usize % PAGE);
        if said.is_some() && self.0.len() <= number {
            self.0.resize_with(number + 1, || None);
        }
        let slot = self.0.get_mut(number)?;
        let page = match (&mut *slot, said) {
            (Some(page), _) => page,
            (None, Some(said)) => slot.insert(Box::new(Page::new(said.source))),
            (None, None) => return None,
        };
        let before = page.get(at);
        page.put(at, said);
        if page.there == 0 {
            *slot = None;
        }
        before
    }

    fn forget_print(&mut self, index: Index) {
        if let Some(Some(page)) = self.0.get_mut(index.0 as usize / PAGE) {
            page.prints[index.0 as usize % PAGE] = Print::UNKNOWN;
        }
    }

    /// Of each page from a number on, a bit for each that is there.
    pub(crate) fn there(&self, from: usize) -> impl Iterator<Item = u64> + '_ {
        let pages = self.0.get(from..).unwrap_or_default();
        pages.iter().map(|page| page.as_ref().map_or(0, |page| page.there))
    }
}

/// The first index from `from` on that there is a bit for, where `there` begins with its page.
pub(crate) fn next_there(from: Index, there: impl Iterator<Item = u64>) -> Option<Index> {
    let (first, at) = (from.0 as usize / PAGE, from.0 as usize % PAGE);
    let mut mask = u64::MAX << at;
    for (number, there) in (first..).zip(there) {
        let left = there & mask;
        if left != 0 {
            return Some(Index((number * PAGE) as u32 + left.trailing_zeros()));
        }
        mask = u64::MAX;
    }
    None
}

/// What the members of a group were told of one family.
#[derive(Debug)]
pub(crate) struct OutTable<K> {
    pages: Pages,
    len: usize,
    /// How many were said of each source, by its slot.
    of_source: Vec<u32>,
    /// In place of all that towards a peer that takes several paths (RFC 7911), each with its identifier; never empty.
    several: Parted<(K, Vec<(u32, Print)>)>,
    hasher: RandomState,
    /// A copy of the pages as they are now, for members that leave.
    copy: Option<Arc<Pages>>,
    /// What was in the Loc-RIB when the group was made and hasn't been judged for it yet. Runs do that; whatever is
    /// decided since then is news, and is judged as such.
    pub(crate) unjudged: Range<Index>,
    /// What members are owed that take nothing now.
    pub(crate) backlog: Backlog<K>,
}

impl<K: Key> OutTable<K> {
    fn new(table: &Table<K>, hasher: &RandomState) -> OutTable<K> {
        OutTable {
            pages: Pages::default(),
            len: 0,
            of_source: Vec::new(),
            several: Parted::new(),
            hasher: hasher.clone(),
            copy: None,
            unjudged: Index(0)..table.end(),
            backlog: Backlog::new(hasher.clone()),
        }
    }

    /// Prefixes that a member has been told of, once it has been told everything.
    pub(crate) fn len(&self, member: Slot) -> usize {
        let own = self.of_source.get(member.0 as usize).copied().unwrap_or(0);
        self.len - own as usize + self.several.len()
    }

    pub(crate) fn get(&self, index: Index) -> Option<Said> {
        self.pages.get(index)
    }

    /// Whatever is said next of a prefix that something is said of counts as something else than before.
    pub(crate) fn forget_print(&mut self, index: Index) {
        self.pages.forget_print(index);
    }

    /// Notes what is said from now on; gives what was said before.
    pub(crate) fn put(&mut self, index: Index, said: Option<Said>) -> Option<Said> {
        self.copy = None;
        let before = self.pages.put(index, said);
        if let Some(said) = said {
            count(&mut self.of_source, said.source, 1);
            self.len += 1;
        }
        if let Some(before) = before {
            count(&mut self.of_source, before.source, -1);
            self.len -= 1;
        }
        before
    }

    /// The first index from `from` on of which anything was said.
    pub(crate) fn next_from(&self, from: Index) -> Option<Index> {
        next_there(from, self.pages.there(from.0 as usize / PAGE))
    }

    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// All that was said. Copying it takes some milliseconds a million prefixes, which members share that leave together.
    pub(crate) fn copy(&mut self) -> Arc<Pages> {
        Arc::clone(self.copy.get_or_insert_with(|| Arc::new(self.pages.clone())))
    }

    /// The same as [`Self::put`] for a peer that takes several paths: notes the difference in `stage`.
    pub(crate) fn stage_several(&mut self, key: K, told: &[(u32, Worded)], force: bool, stage: &mut Stage) {
        let nlri = |path_id: u32| Nlri { path_id, prefix: key.prefix() };
        let hash = self.hasher.hash_one(key);
        let now: Vec<(u32, Print)> = told.iter().map(|&(id, worded)| (id, worded.print)).collect();
        let before = match self.several.find_mut(hash, |(other, _)| *other == key) {
            Some((_, before)) if !now.is_empty() => std::mem::replace(before, now),
            Some(_) => self.several.remove(hash, |(other, _)| *other == key).unwrap_or((key, Vec::new())).1,
            None => {
                if !now.is_empty() {
                    self.several.insert_unique(hash, (key, now), |(key, _)| self.hasher.hash_one(key));
                }
                Vec::new()
            }
        };
        for &(id, _) in &before {
            if told.iter().all(|&(other, _)| other != id) {
                stage.withdrawn.push(nlri(id));
            }
        }
        for &(id, worded) in told {
            if force || !before.contains(&(id, worded.print)) {
                stage.announce(nlri(id), worded);
            }
        }
    }
}

fn count(of_source: &mut Vec<u32>, source: Slot, by: i32) {
    // Nobody asks for our own.
    if source >= Slot::ANY {
        return;
    }
    let at = source.0 as usize;
    if of_source.len() <= at {
        of_source.resize(at + 1, 0);
    }
    of_source[at] = of_source[at].saturating_add_signed(by);
}

/// What a group has been told of both families.
#[derive(Debug)]
pub(crate) struct AdjRibOut {
    pub(crate) v4: OutTable<KeyV4>,
    pub(crate) v6: OutTable<KeyV6>,
}

impl AdjRibOut {
    pub(crate) fn new(rib: &Rib, hasher: &RandomState) -> AdjRibOut {
        AdjRibOut { v4: OutTable::new(&rib.v4, hasher), v6: OutTable::new(&rib.v6, hasher) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::wording::Wordings;

    proptest! {
        /// Three pages, several sources, and indices that come and go.
        #[test]
        fn what_was_said_is_what_was_put(steps in prop::collection::vec((0u32..192, 0u32..4, 0u8..3), 1..400)) {
            let hasher = RandomState::with_seed(1);
            let mut wordings = Wordings::new(hasher.clone());
            let mut told = OutTable::new(&Table::<KeyV4>::new(hasher.clone()), &hasher);
            let mut expected: BTreeMap<u32, Said> = BTreeMap::new();
            for (index, source, word) in steps {
                let said = Said { print: wordings.add(&[word]).print, source: Slot(source) };
                let said = Some(said).filter(|_| word > 0);
                let before = told.put(Index(index), said);
                let expected_before = match said {
                    Some(said) => expected.insert(index, said),
                    None => expected.remove(&index),
                };
                prop_assert_eq!(before, expected_before);
            }
            for index in 0..192 {
                prop_assert_eq!(told.get(Index(index)), expected.get(&index).copied());
                let next = expected.range(index..).next().map(|(index, _)| Index(*index));
                prop_assert_eq!(told.next_from(Index(index)), next);
            }
            for source in (0..4).map(Slot) {
                let others = expected.values().filter(|said| said.source != source).count();
                prop_assert_eq!(told.len(source), others);
            }
        }
    }
}
