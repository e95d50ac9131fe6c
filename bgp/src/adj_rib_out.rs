//! What a group of peers has been told (RFC 4271 §3.2, Adj-RIBs-Out), kept once for all of them.
//!
//! All are told the same of a prefix, but the peer that the route comes from, which is told nothing of it. So this is by
//! [`Index`], as the Loc-RIB is: a page for each 64 prefixes, with a word that says of which of them anything was said.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;

use crate::backlog::Backlog;
use crate::loc_rib::{Index, Key, KeyV4, KeyV6, Rib, Slot, Table};
use crate::update_group::Former;
use crate::wire::attributes::Attributes;
use crate::wire::nlri::Nlri;
use crate::wire::update::{Form, emit_announcements, emit_withdrawals};

/// What is said of a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) attributes: Arc<Attributes>,
    /// Whose route it is: to that peer nothing is said.
    pub(crate) source: Slot,
}

impl Said {
    pub(crate) fn is(&self, other: &Said) -> bool {
        Arc::ptr_eq(&self.attributes, &other.attributes) && self.source == other.source
    }
}

const PAGE: usize = 64;

#[derive(Debug)]
struct Page {
    /// A bit for each that is there.
    there: u64,
    said: [Option<Said>; PAGE],
}

/// What the members of a group were told of one family.
#[derive(Debug)]
pub(crate) struct OutTable<K> {
    pages: Vec<Option<Box<Page>>>,
    len: usize,
    /// How many were said of each source, by its slot.
    of_source: Vec<u32>,
    /// In place of all that towards a peer that takes several paths (RFC 7911), each with its identifier; never empty.
    pub(crate) several: HashMap<K, Vec<(u32, Arc<Attributes>)>, RandomState>,
    /// What was in the Loc-RIB when the group was made and hasn't been judged for it yet. Runs do that; whatever is
    /// decided since then is news, and is judged as such.
    pub(crate) unjudged: Range<Index>,
    /// All of it, as it is now, for members that leave.
    former: Option<Arc<Former<K>>>,
    /// What members are owed that take nothing now.
    pub(crate) backlog: Backlog<K>,
}

impl<K: Key> OutTable<K> {
    fn new(table: &Table<K>, hasher: &RandomState) -> OutTable<K> {
        OutTable {
            pages: Vec::new(),
            len: 0,
            of_source: Vec::new(),
            several: HashMap::with_hasher(hasher.clone()),
            unjudged: Index(0)..table.end(),
            former: None,
            backlog: Backlog::new(hasher.clone()),
        }
    }

    /// Prefixes that a member has been told of, once it has been told everything.
    pub(crate) fn len(&self, member: Slot) -> usize {
        let own = self.of_source.get(member.0 as usize).copied().unwrap_or(0);
        self.len - own as usize + self.several.len()
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Said> {
        let (page, at) = (index.0 as usize / PAGE, index.0 as usize % PAGE);
        self.pages.get(page)?.as_deref()?.said[at].as_ref()
    }

    /// Notes what is said from now on; gives what was said before.
    pub(crate) fn put(&mut self, index: Index, said: Option<Said>) -> Option<Said> {
        let (number, at) = (index.0 as usize / PAGE, index.0 as usize % PAGE);
        if said.is_some() && self.pages.len() <= number {
            self.pages.resize_with(number + 1, || None);
        }
        self.former = None;
        let slot = self.pages.get_mut(number)?;
        if said.is_none() && slot.is_none() {
            return None;
        }
        let page = slot.get_or_insert_with(|| Box::new(Page { there: 0, said: [const { None }; PAGE] }));
        match &said {
            Some(said) => {
                page.there |= 1 << at;
                count(&mut self.of_source, said.source, 1);
                self.len += 1;
            }
            None => page.there &= !(1 << at),
        }
        let before = std::mem::replace(&mut page.said[at], said);
        if page.there == 0 {
            *slot = None;
        }
        if let Some(before) = &before {
            count(&mut self.of_source, before.source, -1);
            self.len -= 1;
        }
        before
    }

    /// The first index from `from` on of which anything was said.
    pub(crate) fn next_from(&self, from: Index) -> Option<Index> {
        let (first, at) = (from.0 as usize / PAGE, from.0 as usize % PAGE);
        let there = |page: &Option<Box<Page>>| page.as_ref().map_or(0, |page| page.there);
        let mut mask = u64::MAX << at;
        for (number, page) in self.pages.iter().enumerate().skip(first) {
            let left = there(page) & mask;
            if left != 0 {
                return Some(Index((number * PAGE) as u32 + left.trailing_zeros()));
            }
            mask = u64::MAX;
        }
        None
    }

    /// All that was said, in order of prefixes.
    pub(crate) fn former(&mut self, table: &Table<K>) -> Arc<Former<K>> {
        if let Some(former) = &self.former {
            return Arc::clone(former);
        }
        let mut all = Former::new();
        let mut next = Index(0);
        while let Some(index) = self.next_from(next) {
            next = Index(index.0 + 1);
            if let (Some(entry), Some(said)) = (table.entry(index), self.get(index)) {
                all.push((entry.key, Some(said.clone())));
            }
        }
        all.sort_unstable_by_key(|(key, _)| *key);
        Arc::clone(self.former.insert(Arc::new(all)))
    }

    /// The same as [`Self::put`] for a peer that takes several paths: notes the difference in `stage`.
    pub(crate) fn stage_several(
        &mut self,
        key: K,
        told: Vec<(u32, Arc<Attributes>)>,
        force: bool,
        stage: &mut Stage,
    ) {
        let before = self.several.remove(&key).unwrap_or_default();
        let nlri = |path_id: u32| Nlri { path_id, prefix: key.prefix() };
        for &(id, _) in &before {
            if told.iter().all(|&(other, _)| other != id) {
                stage.withdrawn.push(nlri(id));
            }
        }
        for (id, attributes) in &told {
            let is_told = |(other, said): &(u32, _)| other == id && Arc::ptr_eq(said, attributes);
            if force || !before.iter().any(is_told) {
                stage.announce(nlri(*id), attributes);
            }
        }
        if !told.is_empty() {
            self.several.insert(key, told);
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

/// What is to be told, gathered so that prefixes of equal attributes share UPDATEs.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    withdrawn: Vec<Nlri>,
    groups: Vec<(Arc<Attributes>, Vec<Nlri>)>,
    /// From an attribute set's serial number to its group.
    group_of: HashMap<u32, usize, RandomState>,
}

impl Stage {
    pub(crate) fn withdraw(&mut self, prefix: model::Prefix) {
        self.withdrawn.push(Nlri { path_id: 0, prefix });
    }

    pub(crate) fn announce(&mut self, nlri: Nlri, attributes: &Arc<Attributes>) {
        match self.groups.last_mut() {
            Some((last, group)) if Arc::ptr_eq(last, attributes) => group.push(nlri),
            _ => {
                let next = self.groups.len();
                let at = *self.group_of.entry(attributes.serial).or_insert(next);
                match self.groups.get_mut(at) {
                    Some((of, group)) if Arc::ptr_eq(of, attributes) => group.push(nlri),
                    _ => self.groups.push((Arc::clone(attributes), vec![nlri])),
                }
            }
        }
    }

    /// Appends the UPDATEs, withdrawals first, and forgets what they say.
    pub(crate) fn emit(&mut self, form: Form, out: &mut Vec<u8>) {
        emit_withdrawals(out, form, &self.withdrawn);
        for (attributes, group) in &self.groups {
            emit_announcements(out, form, attributes, group);
        }
        self.withdrawn.clear();
        self.groups.clear();
        self.group_of.clear();
    }
}
