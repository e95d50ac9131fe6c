//! A real etcd, followed through whatever may happen to it: afterwards the state that was told is that of a fresh start.

mod oracle;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use datastore::settings::EtcdSettings;
use datastore::{Etcd as Following, EtcdConfig, EtcdStore, Event, Key, ResourceKey, ResourceKind, Store};
use model::{Resource, Update};
use serde_json::{Value, json};
use server::Etcd;
use server::babbler::Babbler;
use server::proxy::Proxy;

const PATIENCE: Duration = Duration::from_secs(60);
const ROOT: &str = "/calico/resources/v3/projectcalico.org";

type Set = BTreeMap<model::Key, Arc<Resource>>;

/// What was told, added up.
struct Told {
    events: Receiver<Event>,
    set: Set,
    in_sync: usize,
    stale: Option<String>,
    invalid: BTreeMap<String, String>,
    ignored: usize,
    _following: Following,
}

fn follow(settings: EtcdSettings) -> Told {
    follow_with(EtcdConfig { patience: Duration::from_millis(300), ..EtcdConfig::at(settings) })
}

fn follow_with(config: EtcdConfig) -> Told {
    let (sender, events) = channel();
    let following = Following::open(config, move |event| drop(sender.send(event))).unwrap();
    Told {
        events,
        set: Set::new(),
        in_sync: 0,
        stale: None,
        invalid: BTreeMap::new(),
        ignored: 0,
        _following: following,
    }
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::Update(Update::Put(resource)) => drop(self.set.insert(resource.key(), resource)),
            Event::Update(Update::Remove(key)) => {
                assert!(self.set.remove(&key).is_some(), "{key} was never told");
            }
            Event::Update(Update::InSync) => self.in_sync += 1,
            Event::Stale { reason } => self.stale = Some(reason),
            Event::Current => assert!(self.stale.take().is_some(), "it was current"),
            Event::Invalid(problem) => {
                self.invalid.insert(problem.file.display().to_string(), problem.to_string());
            }
            Event::Mended { file } => {
                assert!(self.invalid.remove(&file.display().to_string()).is_some(), "it was good");
            }
            Event::Ignored(_) => self.ignored += 1,
        }
    }

    /// Takes events until something holds.
    #[track_caller]
    fn until(&mut self, what: &str, holds: impl Fn(&Told) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.take(event),
                Err(_) => panic!("{what} never came: {:?}, {:?}", self.stale, self.set.keys()),
            }
        }
    }

    #[track_caller]
    fn until_in_sync(&mut self) {
        self.until("the in-sync mark", |told| told.in_sync == 1 && told.stale.is_none());
    }

    #[track_caller]
    fn until_stale(&mut self) {
        self.until("a word about staleness", |told| told.stale.is_some());
    }

    /// Waits for this reason: an etcd that is slow for a moment gives another one before it.
    #[track_caller]
    fn until_stale_by(&mut self, reason: &str) {
        self.until(reason, |told| told.stale.as_ref().is_some_and(|said| said.contains(reason)));
    }

    /// Waits for a resource that is written last, and then for nothing to be different from a fresh start.
    #[track_caller]
    fn until_as_fresh(&mut self, etcd: &Etcd, last: &str) {
        self.until(last, |told| told.stale.is_none() && told.has(last));
        let mut fresh = follow(etcd.settings());
        fresh.until_in_sync();
        // What changes at once is told one by one.
        self.until("the state of a fresh start", |told| {
            told.set == fresh.set && told.invalid == fresh.invalid
        });
        assert_eq!(self.in_sync, 1, "the in-sync mark comes once");
    }

    fn has(&self, pool: &str) -> bool {
        self.set.contains_key(&model::Key::IpPool(pool.to_owned()))
    }
}

fn pool_key(name: &str) -> Key {
    Key::Resource(ResourceKey { kind: ResourceKind::IpPool, namespace: String::new(), name: name.to_owned() })
}

fn pool(name: &str, number: usize) -> Value {
    json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
        "spec": {"cidr": format!("10.{}.{}.0/24", number / 256, number % 256)}})
}

fn put_pool(store: &EtcdStore, name: &str, number: usize) {
    store.put(&pool_key(name), &pool(name, number), None).unwrap();
}

fn started() -> Option<(Etcd, EtcdStore, Told)> {
    let etcd = Etcd::start()?;
    let store = EtcdStore::open(&etcd.settings()).unwrap();
    put_pool(&store, "first", 1);
    let mut told = follow(etcd.settings());
    told.until_in_sync();
    Some((etcd, store, told))
}

fn settings_by(proxy: &Proxy) -> EtcdSettings {
    EtcdSettings { endpoints: vec![format!("http://{}", proxy.address)], ..EtcdSettings::default() }
}

#[test]
fn everything_is_told_then_every_change() {
    let Some((etcd, store, mut told)) = started() else { return };
    assert!(told.has("first"));
    put_pool(&store, "second", 2);
    let affinity = Key::Affinity { node: "n1".to_owned(), block: "10.0.1.0/26".parse().unwrap() };
    store.create(&affinity, &json!({"state": "confirmed", "deleted": false})).unwrap();
    store.delete(&pool_key("first"), None).unwrap();
    store.create(&Key::Handle("h".to_owned()), &json!({"block": {}})).unwrap();
    put_pool(&store, "last", 3);
    told.until_as_fresh(&etcd, "last");
    assert_eq!(told.set.len(), 3);
}

#[test]
fn what_others_write_is_read() {
    let Some(rows) = oracle::rows("etcd_values.jsonl") else { return };
    let Some(etcd) = Etcd::start() else { return };
    let mut resources = 0;
    for row in &rows {
        let (Some(key), value) = (row["key"].as_str(), &row["value"]) else { continue };
        etcd.ctl(&["put", key, &value.to_string()]);
        resources += usize::from(key.contains("/networkpolicies/") || key.contains("/workloadendpoints/"));
        resources += usize::from(key.contains("/felixconfigurations/"));
        let has_type = value["spec"]["clusterType"].as_str().is_some_and(|of| !of.is_empty());
        resources += usize::from(key.ends_with("/clusterinformations/default") && has_type);
    }
    let mut told = follow(etcd.settings());
    told.until_in_sync();
    assert!(told.invalid.is_empty(), "{:?}", told.invalid);
    println!("rows compared: {}, of which {resources} are resources that the router reads", rows.len());
    assert_eq!(told.set.len(), resources);
}

#[test]
fn garbage_counts_as_absent_and_is_named() {
    let Some((etcd, store, mut told)) = started() else { return };
    let key = format!("{ROOT}/ippools/first");
    let is_bad = |told: &Told| told.invalid.contains_key(&key) && !told.has("first");
    for garbage in ["{", "", "7", r#"{"spec":{"cidr":"nonsense"}}"#] {
        etcd.ctl(&["put", &key, garbage]);
        told.until(garbage, is_bad);
        put_pool(&store, "first", 1);
        told.until("the pool again", |told| told.has("first") && told.invalid.is_empty());
    }
    etcd.ctl(&["put", &key, "{"]);
    etcd.ctl(&["put", &format!("{ROOT}/clusterinformations/default"), "garbage"]);
    put_pool(&store, "last", 2);
    told.until_as_fresh(&etcd, "last");
    etcd.ctl(&["del", &key]);
    told.until("its problem's end", |told| told.invalid.len() == 1);
}

#[test]
fn a_closed_datastore_changes_nothing_until_it_opens() {
    let Some((etcd, store, mut told)) = started() else { return };
    let flag = |is_ready: bool| {
        let value = json!({"metadata": {"name": "default"}, "spec": {"datastoreReady": is_ready}});
        etcd.ctl(&["put", &format!("{ROOT}/clusterinformations/default"), &value.to_string()]);
    };
    flag(false);
    told.until_stale_by("datastoreReady");
    store.delete(&pool_key("first"), None).unwrap();
    put_pool(&store, "last", 2);
    // Whoever starts now waits, and hears of nothing.
    let mut late = follow(etcd.settings());
    late.until_stale_by("datastoreReady");
    assert!(late.set.is_empty() && late.in_sync == 0);
    assert!(told.has("first") && !told.has("last"));
    flag(true);
    late.until_in_sync();
    told.until_as_fresh(&etcd, "last");
    assert!(!told.has("first"));
}

#[test]
fn an_etcd_that_dies_and_comes_back_is_followed_on() {
    let Some((mut etcd, store, mut told)) = started() else { return };
    for round in 0..2 {
        etcd.kill();
        told.until_stale();
        assert!(told.has("first"), "the last state stays in force");
        etcd.run();
        put_pool(&store, &format!("last{round}"), 2 + round);
        told.until_as_fresh(&etcd, &format!("last{round}"));
    }
}

#[test]
fn a_member_that_dies_is_replaced_by_another() {
    let Some(mut members) = Etcd::cluster() else { return };
    let endpoints = members.iter().map(Etcd::url).collect();
    let settings = EtcdSettings { endpoints, ..EtcdSettings::default() };
    let store = EtcdStore::open(&settings).unwrap();
    let mut told = follow(settings);
    told.until_in_sync();
    // They may have to choose a leader first, at any time.
    let put = |name: &str, number: usize| {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = store.put(&pool_key(name), &pool(name, number), None) {
            assert!(Instant::now() < end, "{error}");
        }
    };
    put("first", 1);
    told.until("the first pool", |told| told.has("first"));
    // The one that both are connected to.
    members[0].kill();
    put("last", 2);
    told.until_as_fresh(&members[1], "last");
}

/// A range without keys, of cluster 7 at revision 5: a new etcd says so.
const NOTHING: &[u8] = &[0x0a, 4, 0x08, 7, 0x18, 5];

#[test]
fn what_answers_in_its_place_takes_nothing_away() {
    let Some((mut etcd, store, mut told)) = started() else { return };
    let nonsense: [(&'static [u8], &str); 3] =
        [(b"", "makes no sense"), (NOTHING, "holds nothing"), (b"\xff\xff\xff", "failed to decode")];
    for (round, (answer, complaint)) in nonsense.into_iter().enumerate() {
        etcd.kill();
        told.until_stale();
        let babbler = Babbler::at(etcd.client, answer);
        told.until_stale_by(complaint);
        assert!(told.has("first"), "the last state stays in force");
        // Commands don't take it for an answer either.
        assert!(store.list(&datastore::Under::Handles).is_err() || answer == NOTHING);
        drop(babbler);
        etcd.run();
        put_pool(&store, &format!("last{round}"), 2 + round);
        told.until_as_fresh(&etcd, &format!("last{round}"));
    }
}

#[test]
fn an_etcd_that_comes_later_is_waited_for() {
    let Some(mut etcd) = Etcd::start() else { return };
    // One that is killed before its first write may not remember that it is its own cluster's only member.
    put_pool(&EtcdStore::open(&etcd.settings()).unwrap(), "first", 1);
    etcd.kill();
    let mut told = follow(etcd.settings());
    told.until_stale();
    etcd.run();
    told.until_in_sync();
    assert!(told.has("first"));
}

#[test]
fn what_was_compacted_meanwhile_is_made_up_for() {
    let Some((etcd, store, _)) = started() else { return };
    let proxy = Proxy::to(etcd.client);
    put_pool(&store, "gone", 5);
    let mut told = follow(settings_by(&proxy));
    told.until_in_sync();
    proxy.cut();
    told.until_stale();
    store.delete(&pool_key("gone"), None).unwrap();
    (0..20).for_each(|number| put_pool(&store, "first", 100 + number));
    put_pool(&store, "last", 6);
    let revision = store.get(&pool_key("last")).unwrap().revision.0;
    etcd.ctl(&["compact", &revision.to_string()]);
    proxy.open();
    told.until_as_fresh(&etcd, "last");
    assert!(!told.has("gone"));
}

#[test]
fn an_etcd_restored_from_a_copy_is_another_one() {
    let Some((mut etcd, store, mut told)) = started() else { return };
    let copy = etcd.directory().join("copy");
    etcd.ctl(&["snapshot", "save", copy.to_str().unwrap()]);
    // Lost with the restoration.
    (0..10).for_each(|number| put_pool(&store, &format!("lost{number}"), 10 + number));
    told.until("what will be lost", |told| told.has("lost9"));
    etcd.kill();
    etcd.restore(&copy);
    etcd.run();
    put_pool(&store, "last", 2);
    told.until_as_fresh(&etcd, "last");
    assert!(!told.has("lost0"));
}

#[test]
fn a_partition_is_noticed_and_survived() {
    let Some((etcd, store, _)) = started() else { return };
    let proxy = Proxy::to(etcd.client);
    let mut told = follow(settings_by(&proxy));
    told.until_in_sync();
    proxy.silence();
    told.until_stale();
    assert!(told.has("first"), "the last state stays in force");
    store.delete(&pool_key("first"), None).unwrap();
    put_pool(&store, "last", 2);
    // What stood still may go on, or have been given up: both end alike.
    proxy.open();
    told.until_as_fresh(&etcd, "last");
}

#[test]
fn a_slow_etcd_is_followed_slowly() {
    let Some((etcd, store, _)) = started() else { return };
    let proxy = Proxy::to(etcd.client);
    proxy.slow(Duration::from_millis(100));
    let mut told = follow(settings_by(&proxy));
    told.until_in_sync();
    (0..50).for_each(|number| put_pool(&store, &format!("p{number}"), 10 + number));
    put_pool(&store, "last", 2);
    told.until_as_fresh(&etcd, "last");
}

#[test]
fn a_full_etcd_is_followed_until_it_has_room_again() {
    let Some(etcd) = Etcd::with("http", &["--quota-backend-bytes", "2000000"]) else { return };
    let store = EtcdStore::open(&etcd.settings()).unwrap();
    put_pool(&store, "first", 1);
    let mut told = follow(etcd.settings());
    told.until_in_sync();
    let filler = json!({"block": {}, "filler": "x".repeat(100_000)});
    let refusal = (0..1_000)
        .find_map(|number| store.put(&Key::Handle(format!("h{}", number % 3)), &filler, None).err());
    let refusal = refusal.expect("it has a quota").to_string();
    assert!(refusal.contains("database space exceeded"), "{refusal}");
    assert!(etcd.ctl(&["alarm", "list"]).contains("NOSPACE"));
    // Reading goes on: whoever starts now sees everything.
    let mut late = follow(etcd.settings());
    late.until_in_sync();
    assert!(late.has("first"));
    let revision = store.get(&pool_key("first")).unwrap().revision.0 + 1;
    let now = etcd.ctl(&["endpoint", "status", "--write-out", "json"]);
    let now =
        serde_json::from_str::<Value>(&now).unwrap()[0]["Status"]["header"]["revision"].as_i64().unwrap();
    assert!(now > revision);
    etcd.ctl(&["compact", &now.to_string()]);
    etcd.ctl(&["defrag"]);
    etcd.ctl(&["alarm", "disarm"]);
    put_pool(&store, "last", 2);
    late.until_as_fresh(&etcd, "last");
    told.until_as_fresh(&etcd, "last");
}

#[test]
fn resources_beyond_the_limit_are_left_out_and_taken_up_when_there_is_room() {
    let Some((etcd, store, _)) = started() else { return };
    let mut told = follow_with(EtcdConfig { max_resources: 2, ..EtcdConfig::at(etcd.settings()) });
    told.until_in_sync();
    put_pool(&store, "second", 2);
    put_pool(&store, "third", 3);
    // The two may be told in one go, the problem before what there is room for.
    told.until("two pools and a problem", |told| !told.invalid.is_empty() && told.set.len() == 2);
    assert!(!told.has("third"));
    store.delete(&pool_key("first"), None).unwrap();
    told.until("the third", |told| told.has("third") && told.invalid.is_empty());
    assert_eq!(told.set.len(), 2);
}
