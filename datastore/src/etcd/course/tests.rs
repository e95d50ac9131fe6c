//! An etcd of the test's own tells its history through a course, among nonsense: nothing that it holds is ever taken away.

use std::collections::{BTreeMap, BTreeSet};

use model::Update;
use proptest::prelude::*;
use prost::Message;
use serde_json::json;

use super::super::message::WatchEvent;
use super::*;

/// What is written, and when.
#[derive(Clone, Debug)]
struct Store {
    cluster: u64,
    revision: i64,
    present: BTreeMap<String, (i64, Vec<u8>)>,
    /// Writes by revision; nothing where the key went.
    history: Vec<(i64, String, Option<Vec<u8>>)>,
}

fn path(name: u8) -> String {
    format!("{}ippools/pool{name}", PREFIXES[0])
}

fn value(name: u8, number: u8) -> Vec<u8> {
    json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": format!("pool{name}")},
        "spec": {"cidr": format!("10.{name}.{number}.0/24")}})
    .to_string()
    .into_bytes()
}

impl Store {
    fn new(cluster: u64) -> Store {
        Store { cluster, revision: 1, present: BTreeMap::new(), history: Vec::new() }
    }

    fn write(&mut self, name: u8, value: Option<Vec<u8>>) {
        if value.is_none() && !self.present.contains_key(&path(name)) {
            return;
        }
        self.revision += 1;
        match &value {
            Some(value) => drop(self.present.insert(path(name), (self.revision, value.clone()))),
            None => drop(self.present.remove(&path(name))),
        }
        self.history.push((self.revision, path(name), value));
    }

    fn header(&self) -> Header {
        Header { cluster_id: self.cluster, revision: self.revision }
    }

    fn list(&self) -> (Vec<KeyValue>, Place) {
        let found = self.present.iter().map(|(key, (mod_revision, value))| KeyValue {
            key: key.clone().into_bytes(),
            mod_revision: *mod_revision,
            value: value.clone(),
        });
        (found.collect(), Place::of(&self.header()))
    }

    fn created(&self) -> Vec<WatchResponse> {
        let answer = |watch_id| WatchResponse {
            header: Some(self.header()),
            watch_id,
            created: true,
            ..WatchResponse::default()
        };
        WATCH_IDS.into_iter().map(answer).collect()
    }

    /// What a watch has to tell that knows everything up to a revision.
    fn since(&self, revision: i64) -> Option<WatchResponse> {
        let events: Vec<WatchEvent> = self
            .history
            .iter()
            .filter(|(at, ..)| *at > revision)
            .map(|(mod_revision, key, value)| WatchEvent {
                kind: i32::from(value.is_none()),
                kv: Some(KeyValue {
                    key: key.clone().into_bytes(),
                    mod_revision: *mod_revision,
                    value: value.clone().unwrap_or_default(),
                }),
            })
            .collect();
        (!events.is_empty()).then(|| WatchResponse {
            header: Some(self.header()),
            watch_id: WATCH_IDS[0],
            events,
            ..WatchResponse::default()
        })
    }

    fn names(&self) -> BTreeSet<String> {
        self.present.keys().filter_map(|path| path.rsplit('/').next()).map(str::to_owned).collect()
    }
}

/// Whoever listens to a course.
struct Listener {
    course: Course,
    known: BTreeMap<String, String>,
    /// How far the true history was told.
    reached: i64,
}

impl Listener {
    fn new(store: &Store) -> Listener {
        let mut listener = Listener { course: Course::new(1_000), known: BTreeMap::new(), reached: 0 };
        listener.list(store);
        listener.watch(store);
        listener
    }

    fn list(&mut self, store: &Store) {
        let (found, at) = store.list();
        self.course.listed(found, at).expect("a store that holds something is believed");
        self.reached = at.last();
        self.tell();
    }

    fn watch(&mut self, store: &Store) {
        self.course.begin().expect("a place");
        for answer in store.created() {
            if self.course.hear(answer) == Heard::Outdated {
                self.list(store);
                return self.watch(store);
            }
        }
        assert!(self.course.stands());
        self.catch_up(store);
    }

    fn catch_up(&mut self, store: &Store) {
        if let Some(answer) = store.since(self.reached) {
            assert_eq!(self.course.hear(answer), Heard::Good);
            self.reached = store.revision;
        }
        self.tell();
    }

    /// Something that the store didn't say, and what follows from it.
    fn mishear(&mut self, answer: WatchResponse, store: &Store) {
        match self.course.hear(answer) {
            Heard::Good | Heard::Incomplete => self.tell(),
            Heard::Outdated => {
                self.list(store);
                self.watch(store);
            }
            Heard::Lost(_) => self.watch(store),
        }
    }

    fn tell(&mut self) {
        for event in self.course.tell() {
            match event {
                Event::Update(Update::Put(resource)) => {
                    let model::Key::IpPool(name) = resource.key() else { continue };
                    self.known.insert(name, format!("{resource:?}"));
                }
                Event::Update(Update::Remove(model::Key::IpPool(name))) => drop(self.known.remove(&name)),
                _ => {}
            }
        }
    }

    fn names(&self) -> BTreeSet<String> {
        self.known.keys().cloned().collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8, u8),
    Remove(u8),
    CatchUp,
    Reconnect,
    /// Bytes that are no answer, or happen to be one.
    Bytes(Vec<u8>),
    Nonsense((&'static str, Spoil)),
}

/// What a good answer is turned into, given what it would have removed, the store, and where the watch begins.
type Spoil = fn(WatchResponse, u8, &Store, i64) -> WatchResponse;

/// Answers that nobody should believe, by name.
const NONSENSE: [(&str, Spoil); 11] = [
    ("empty", |_, _, _, _| WatchResponse::default()),
    ("no header", |good, _, _, _| WatchResponse { header: None, ..good }),
    ("another's watch", |good, _, _, _| WatchResponse { watch_id: 77, ..good }),
    ("a key of another watch", |good, _, _, _| WatchResponse { watch_id: WATCH_IDS[1], ..good }),
    ("no key", |good, _, _, _| {
        let events = good.events.iter().map(|event| WatchEvent { kv: None, ..event.clone() }).collect();
        WatchResponse { events, ..good }
    }),
    ("an old removal", |good, name, _, begun| WatchResponse { events: vec![removal(name, begun)], ..good }),
    ("an unknown kind", |good, _, _, _| {
        let events = good.events.iter().map(|event| WatchEvent { kind: 9, ..event.clone() }).collect();
        WatchResponse { events, ..good }
    }),
    ("cancelled", |good, _, _, _| WatchResponse { canceled: true, ..good }),
    ("compacted", |good, _, _, _| WatchResponse { compact_revision: 5, ..good }),
    ("another cluster", |good, _, store, _| WatchResponse {
        header: Some(Header { cluster_id: 99, ..store.header() }),
        ..good
    }),
    ("created twice", |good, _, _, _| WatchResponse { created: true, events: Vec::new(), ..good }),
];

fn removal(name: u8, mod_revision: i64) -> WatchEvent {
    WatchEvent {
        kind: WatchEventKind::Delete.into(),
        kv: Some(KeyValue { key: path(name).into_bytes(), mod_revision, value: Vec::new() }),
    }
}

/// Each would take a pool away, if it were believed.
fn nonsense(spoil: Spoil, name: u8, store: &Store, begun: i64) -> WatchResponse {
    let good = WatchResponse {
        header: Some(store.header()),
        watch_id: WATCH_IDS[0],
        events: vec![removal(name, store.revision + 1)],
        ..WatchResponse::default()
    };
    spoil(good, name, store, begun)
}

fn step() -> impl Strategy<Value = Step> {
    let which = prop::sample::select(&NONSENSE[..]);
    prop_oneof![
        4 => (0u8..5, 0u8..4).prop_map(|(name, number)| Step::Write(name, number)),
        1 => (0u8..5).prop_map(Step::Remove),
        2 => Just(Step::CatchUp),
        1 => Just(Step::Reconnect),
        2 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Bytes),
        5 => which.prop_map(Step::Nonsense),
    ]
}

proptest! {
    #[test]
    fn garbage_takes_nothing_away_and_delays_nothing(steps in prop::collection::vec(step(), 1..60)) {
        let mut store = Store::new(1);
        store.write(9, Some(value(9, 0)));
        let mut listener = Listener::new(&store);
        for (number, step) in steps.into_iter().enumerate() {
            let before: BTreeSet<String> = listener.names();
            match step {
                Step::Write(name, number) => store.write(name, Some(value(name, number))),
                Step::Remove(name) => store.write(name, None),
                Step::CatchUp => listener.catch_up(&store),
                Step::Reconnect => listener.watch(&store),
                Step::Bytes(bytes) => if let Ok(answer) = WatchResponse::decode(bytes.as_slice()) {
                    listener.mishear(answer, &store);
                }
                Step::Nonsense((_, spoil)) => {
                    let begun = listener.course.begun.map_or(0, |place| place.last());
                    listener.mishear(nonsense(spoil, (number % 5) as u8, &store, begun), &store);
                }
            }
            let lost: Vec<&String> = before.iter()
                .filter(|name| !listener.known.contains_key(*name) && store.names().contains(*name))
                .collect();
            prop_assert!(lost.is_empty(), "{lost:?} went, and are there");
        }
        listener.catch_up(&store);
        let fresh = Listener::new(&store);
        prop_assert_eq!(listener.known, fresh.known);
    }
}

#[test]
fn another_etcd_that_holds_nothing_is_not_believed_until_it_holds_something() {
    let mut store = Store::new(1);
    store.write(1, Some(value(1, 1)));
    let mut listener = Listener::new(&store);
    let mut other = Store::new(2);
    let (found, at) = other.list();
    assert!(listener.course.listed(found, at).is_err());
    listener.tell();
    assert_eq!(listener.names(), store.names());
    other.write(2, Some(value(2, 2)));
    listener.list(&other);
    assert_eq!(listener.names(), other.names());
    // The same one may well be emptied.
    other.write(2, None);
    listener.list(&other);
    assert_eq!(listener.names(), BTreeSet::new());
}

#[test]
fn the_same_revision_of_a_restored_store_is_another_write() {
    let mut store = Store::new(1);
    store.write(1, Some(value(1, 1)));
    let mut copy = Store { cluster: 2, ..store.clone() };
    store.write(1, Some(value(1, 2)));
    copy.write(1, Some(value(1, 3)));
    let mut listener = Listener::new(&store);
    listener.watch(&copy);
    assert_eq!(listener.known, Listener::new(&copy).known);
}
