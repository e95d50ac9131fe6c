//! What was listed and watched of etcd, and what of that the listener has been told.
//!
//! The told state is a function of the present keys alone: where two keys mean one resource, the one that comes first in
//! their order holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use model::{Key, Resource, Update};

use super::entry::{self, Entry};
use super::message::KeyValue;
use crate::desired::Rank;
use crate::event::Event;
use crate::invalid::{Invalid, Reason};
use crate::manifest;

/// Kinds and fields without effect that are told of; each once, and not for ever.
const MAX_TOLD_IGNORED: usize = 1_000;

/// That of no write.
const NO_REVISION: i64 = 0;

/// What one etcd key holds now.
#[derive(Debug)]
struct Held {
    /// The write that it comes from.
    revision: i64,
    resource: Arc<Resource>,
}

/// The present state, and what was told of it.
#[derive(Debug)]
pub(super) struct State {
    max_resources: usize,
    held: BTreeMap<String, Held>,
    /// Which etcd keys mean a resource: more than one where policies' names have changed.
    meaning: BTreeMap<Key, BTreeSet<String>>,
    /// Resources that may have changed since they were told.
    touched: BTreeSet<Key>,
    told: BTreeMap<Key, Arc<Resource>>,
    problems: BTreeMap<String, Invalid>,
    told_problems: BTreeMap<String, Invalid>,
    touched_problems: BTreeSet<String>,
    told_ignored: BTreeSet<(String, Option<String>)>,
    ignored: Vec<crate::Ignored>,
    /// Is the datastore closed, by its `datastoreReady`?
    closed: bool,
    /// Was a resource left out, as one more than there may be? And is there room by now?
    left_out: bool,
    made_room: bool,
}

impl State {
    pub(super) fn new(max_resources: usize) -> State {
        State {
            max_resources,
            held: BTreeMap::new(),
            meaning: BTreeMap::new(),
            touched: BTreeSet::new(),
            told: BTreeMap::new(),
            problems: BTreeMap::new(),
            told_problems: BTreeMap::new(),
            touched_problems: BTreeSet::new(),
            told_ignored: BTreeSet::new(),
            ignored: Vec::new(),
            closed: false,
            left_out: false,
            made_room: false,
        }
    }

    /// Should everything be listed again, because a resource that was left out has room now?
    pub(super) fn has_made_room(&self) -> bool {
        self.made_room
    }

    /// May what there is be told?
    pub(super) fn is_open(&self) -> bool {
        !self.closed
    }

    /// Is nothing known, good or bad?
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.problems.is_empty()
    }

    /// What is written from now on is another store's: no revision of before says that a value is the same.
    pub(super) fn forget_revisions(&mut self) {
        self.held.values_mut().for_each(|held| held.revision = NO_REVISION);
    }

    /// Everything is as listed, and nothing besides.
    pub(super) fn replace(&mut self, listed: Vec<KeyValue>) {
        let present: BTreeSet<&[u8]> = listed.iter().map(|found| found.key.as_slice()).collect();
        let known = self.held.keys().chain(self.problems.keys());
        let gone: BTreeSet<String> =
            known.filter(|path| !present.contains(path.as_bytes())).cloned().collect();
        gone.iter().for_each(|path| self.remove(path));
        (self.left_out, self.made_room) = (false, false);
        listed.iter().for_each(|found| self.put(found));
    }

    /// A key was written.
    pub(super) fn put(&mut self, found: &KeyValue) {
        let Ok(path) = std::str::from_utf8(&found.key) else { return };
        if self.held.get(path).is_some_and(|held| held.revision == found.mod_revision) {
            return;
        }
        let Some(entry) = entry::read(path, &found.value) else { return };
        let Entry { mut resource, ignored, mut problem, is_ready } = entry;
        if entry::is_flag(path) {
            self.closed = is_ready == Some(false);
        }
        if resource.is_some() && !self.held.contains_key(path) && self.held.len() >= self.max_resources {
            resource = None;
            self.left_out = true;
            let reason = Reason::TooManyResources { max: self.max_resources };
            problem = Some(manifest::whole_file(path.as_ref(), reason));
        }
        self.forget_meaning(path);
        if let Some(resource) = &resource {
            let key = resource.key();
            self.meaning.entry(key.clone()).or_default().insert(path.to_owned());
            self.touched.insert(key);
        }
        match resource {
            Some(resource) => {
                self.held.insert(path.to_owned(), Held { revision: found.mod_revision, resource });
            }
            None => drop(self.held.remove(path)),
        }
        self.touched_problems.insert(path.to_owned());
        match problem {
            Some(problem) => drop(self.problems.insert(path.to_owned(), problem)),
            None => drop(self.problems.remove(path)),
        }
        self.ignored.extend(ignored);
    }

    /// A key is gone.
    pub(super) fn remove(&mut self, path: &str) {
        if entry::is_flag(path) {
            self.closed = false;
        }
        self.forget_meaning(path);
        self.made_room |= self.held.remove(path).is_some() && self.left_out;
        self.problems.remove(path);
        self.touched_problems.insert(path.to_owned());
    }

    fn forget_meaning(&mut self, path: &str) {
        let Some(held) = self.held.get(path) else { return };
        let key = held.resource.key();
        if let Some(paths) = self.meaning.get_mut(&key) {
            paths.remove(path);
            if paths.is_empty() {
                self.meaning.remove(&key);
            }
        }
        self.touched.insert(key);
    }

    /// What has changed since it was last told, in an order in which nothing leans on what isn't there. Nothing while the
    /// datastore is closed.
    pub(super) fn tell(&mut self) -> Vec<Event> {
        if self.closed {
            return Vec::new();
        }
        let mut events = Vec::new();
        self.tell_problems(&mut events);
        let (mut puts, mut removals) = (BTreeMap::new(), BTreeSet::new());
        for key in std::mem::take(&mut self.touched) {
            let path = self.meaning.get(&key).and_then(BTreeSet::first);
            let resource = path.and_then(|path| Some(Arc::clone(&self.held.get(path)?.resource)));
            match resource {
                Some(resource) if self.told.get(&key) == Some(&resource) => {}
                Some(resource) => {
                    self.told.insert(key.clone(), Arc::clone(&resource));
                    puts.insert((Rank::of(&key), key), resource);
                }
                None if self.told.remove(&key).is_some() => drop(removals.insert((Rank::of(&key), key))),
                None => {}
            }
        }
        events.extend(puts.into_values().map(|resource| Event::Update(Update::Put(resource))));
        events.extend(removals.into_iter().rev().map(|(_, key)| Event::Update(Update::Remove(key))));
        for ignored in std::mem::take(&mut self.ignored) {
            // By kind and field: there may be a hundred thousand endpoints.
            let kind = ignored.resource.split('(').next().unwrap_or_default().to_owned();
            if self.told_ignored.len() < MAX_TOLD_IGNORED
                && self.told_ignored.insert((kind, ignored.field.clone()))
            {
                events.push(Event::Ignored(ignored));
            }
        }
        events
    }

    fn tell_problems(&mut self, events: &mut Vec<Event>) {
        for path in std::mem::take(&mut self.touched_problems) {
            match self.problems.get(&path) {
                Some(problem) if self.told_problems.get(&path) == Some(problem) => {}
                Some(problem) => {
                    self.told_problems.insert(path, problem.clone());
                    events.push(Event::Invalid(problem.clone()));
                }
                None if self.told_problems.remove(&path).is_some() => {
                    events.push(Event::Mended { file: PathBuf::from(path) });
                }
                None => {}
            }
        }
    }
}
