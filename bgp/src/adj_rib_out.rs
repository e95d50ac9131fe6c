//! What each peer has been told (RFC 4271 §3.2, Adj-RIBs-Out), and what it is still to be told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ahash::RandomState;
use model::Family;

use crate::loc_rib::{Key, KeyV4, KeyV6, Table};
use crate::wire::attributes::Attributes;
use crate::wire::nlri::Nlri;
use crate::wire::update::{Form, emit_announcements, emit_end_of_rib, emit_withdrawals};

/// A run through the whole table that a peer is waiting for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Announce also what the peer has been told already (ROUTE-REFRESH).
    pub(crate) force: bool,
    /// End with End-of-RIB.
    pub(crate) end_of_rib: bool,
}

/// A run under way.
#[derive(Debug)]
struct Run<K> {
    keys: std::vec::IntoIter<K>,
    request: Request,
}

/// One peer's view of one family.
#[derive(Debug)]
pub(crate) struct OutTable<K> {
    announced: HashMap<K, Arc<Attributes>, RandomState>,
    /// In place of that towards a peer that takes several paths (RFC 7911), each with its identifier; never empty.
    several: HashMap<K, Vec<(u32, Arc<Attributes>)>, RandomState>,
    requested: Option<Request>,
    run: Option<Run<K>>,
    /// The peer is told of changes as they come: its first run has begun.
    pub(crate) follows: bool,
}

impl<K: Key> OutTable<K> {
    fn new(hasher: RandomState) -> OutTable<K> {
        OutTable {
            announced: HashMap::with_hasher(hasher.clone()),
            several: HashMap::with_hasher(hasher),
            requested: None,
            run: None,
            follows: false,
        }
    }

    /// Prefixes that the peer has been told of.
    pub(crate) fn len(&self) -> usize {
        self.announced.len() + self.several.len()
    }

    /// Asks for a run; one that has begun is finished first.
    pub(crate) fn request(&mut self, request: Request) {
        let before = self.requested.unwrap_or_default();
        self.requested = Some(Request {
            force: before.force || request.force,
            end_of_rib: before.end_of_rib || request.end_of_rib,
        });
    }

    /// The peer cannot take more now: stop, and remember what is owed.
    pub(crate) fn pause(&mut self) {
        if let Some(run) = self.run.take() {
            self.request(run.request);
        }
        if self.follows {
            self.request(Request::default());
        }
        self.follows = false;
    }

    /// Is there something to tell now? While `deferring`, a first run must not begin.
    pub(crate) fn is_due(&self, deferring: bool) -> bool {
        (self.requested.is_some() || self.run.is_some()) && (!deferring || self.follows)
    }

    /// Begins a requested run unless one is under way; says whether it did.
    pub(crate) fn begin(&mut self, table: &Table<K>) -> bool {
        if self.run.is_some() {
            return false;
        }
        let Some(request) = self.requested.take() else { return false };
        let mut keys = table.keys_by_attributes();
        let has_best = |key: &K| table.get(*key).is_some_and(|entry| entry.best().is_some());
        let told = self.announced.keys().chain(self.several.keys());
        let gone: BTreeSet<_> = told.filter(|key| !has_best(key)).copied().collect();
        keys.extend(gone);
        self.run = Some(Run { keys: keys.into_iter(), request });
        self.follows = true;
        true
    }

    /// What the run under way was asked for.
    pub(crate) fn running(&self) -> Option<Request> {
        self.run.as_ref().map(|run| run.request)
    }

    /// The next prefix of the run under way and whether to announce it in any case.
    pub(crate) fn next_of_run(&mut self) -> Option<(K, bool)> {
        let run = self.run.as_mut()?;
        Some((run.keys.next()?, run.request.force))
    }

    /// Ends a run that has no prefix left; gives what it was asked for.
    pub(crate) fn finish_run(&mut self) -> Option<Request> {
        Some(self.run.take_if(|run| run.keys.len() == 0)?.request)
    }

    /// Compares what the peer is to be told with what it has been told, and notes the difference.
    pub(crate) fn stage(&mut self, key: K, told: Option<Arc<Attributes>>, force: bool, stage: &mut Stage) {
        match told {
            Some(attributes) => {
                let before = self.announced.insert(key, Arc::clone(&attributes));
                let same = before.is_some_and(|before| Arc::ptr_eq(&before, &attributes));
                if force || !same {
                    stage.announce(Nlri { path_id: 0, prefix: key.prefix() }, attributes);
                }
            }
            None => {
                if self.announced.remove(&key).is_some() {
                    stage.withdrawn.push(Nlri { path_id: 0, prefix: key.prefix() });
                }
            }
        }
    }

    /// The same for a peer that takes several paths.
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
                stage.announce(nlri(*id), Arc::clone(attributes));
            }
        }
        if !told.is_empty() {
            self.several.insert(key, told);
        }
    }
}

/// One peer's view of both families.
#[derive(Debug)]
pub(crate) struct AdjRibOut {
    pub(crate) v4: OutTable<KeyV4>,
    pub(crate) v6: OutTable<KeyV6>,
}

impl AdjRibOut {
    pub(crate) fn new(hasher: &RandomState) -> AdjRibOut {
        AdjRibOut { v4: OutTable::new(hasher.clone()), v6: OutTable::new(hasher.clone()) }
    }

    pub(crate) fn request(&mut self, family: Family, request: Request) {
        match family {
            Family::V4 => self.v4.request(request),
            Family::V6 => self.v6.request(request),
        }
    }

    pub(crate) fn pause(&mut self) {
        self.v4.pause();
        self.v6.pause();
    }

    pub(crate) fn is_due(&self, deferring: bool) -> bool {
        self.v4.is_due(deferring) || self.v6.is_due(deferring)
    }
}

/// What a peer is to be told, gathered so that prefixes of equal attributes share UPDATEs.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    withdrawn: Vec<Nlri>,
    groups: Vec<(Arc<Attributes>, Vec<Nlri>)>,
    /// From an attribute set's serial number to its group.
    group_of: HashMap<u32, usize>,
}

impl Stage {
    fn announce(&mut self, nlri: Nlri, attributes: Arc<Attributes>) {
        match self.groups.last_mut() {
            Some((last, group)) if Arc::ptr_eq(last, &attributes) => group.push(nlri),
            _ => {
                let next = self.groups.len();
                let at = *self.group_of.entry(attributes.serial).or_insert(next);
                match self.groups.get_mut(at) {
                    Some((of, group)) if Arc::ptr_eq(of, &attributes) => group.push(nlri),
                    _ => self.groups.push((attributes, vec![nlri])),
                }
            }
        }
    }

    /// Appends the UPDATEs, withdrawals first, and forgets what they say.
    pub(crate) fn emit(&mut self, form: Form, end_of_rib: bool, out: &mut Vec<u8>) {
        emit_withdrawals(out, form, &self.withdrawn);
        for (attributes, group) in &self.groups {
            emit_announcements(out, form, attributes, group);
        }
        if end_of_rib {
            emit_end_of_rib(out, form.family);
        }
        self.withdrawn.clear();
        self.groups.clear();
        self.group_of.clear();
    }
}
