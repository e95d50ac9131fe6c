//! A large site in a real etcd: how long it takes to load, and how far behind its changes the router is. Run by hand, as it
//! takes a while and says something only about the machine:
//!
//! ```text
//! cargo test --release -p datastore --test scale -- --ignored --nocapture
//! ```

mod server;

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use datastore::{
    Directory, DirectoryConfig, DirectoryStore, Etcd as Following, EtcdConfig, EtcdStore, Event, Key,
    ResourceKey, ResourceKind, Store,
};
use model::{Resource, Update};
use serde_json::{Value, json};
use server::Etcd;

const ENDPOINTS: usize = 100_000;
const POLICIES: usize = 2_000;
const CHANGES_A_SECOND: usize = 1_000;
const SECONDS: usize = 10;
const WRITERS: usize = 8;

fn endpoint(number: usize, generation: u64) -> (Key, Value) {
    let (node, pod) = (number / 100, number % 100);
    let name = format!("node{node}-k8s-web{pod}-eth0");
    let address = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    let value = json!({
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": "default", "uid": "5ad8bb2c-0e3d-4a5f-9f8c-2f6b3ef5ab34",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": format!("app{}", number % 50), "generation": generation.to_string(),
                "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"}},
        "spec": {"orchestrator": "k8s", "node": format!("node{node}"), "pod": format!("web{pod}"), "endpoint": "eth0",
            "interfaceName": format!("cali{number:x}"), "mac": "ca:fe:1d:52:bb:e9",
            "ipNetworks": [format!("{address}/32")], "profiles": ["kns.default", "ksa.default.default"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    });
    let key = ResourceKey { kind: ResourceKind::WorkloadEndpoint, namespace: "default".to_owned(), name };
    (Key::Resource(key), value)
}

fn policy(number: usize) -> (Key, Value) {
    let name = format!("policy{number}");
    let rule = json!({"action": "Allow", "protocol": "TCP", "source": {"selector": format!("app == 'app{}'", number % 50)},
        "destination": {"ports": [80, "8000:8100"]}});
    let value = json!({
        "kind": "NetworkPolicy", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": "default",
            "annotations": {"projectcalico.org/metadata": json!({"name": name}).to_string()}},
        "spec": {"tier": "default", "order": number, "selector": format!("app == 'app{}'", number % 50),
            "types": ["Ingress", "Egress"], "ingress": [rule, rule, rule], "egress": [{"action": "Allow"}]},
    });
    let key = ResourceKey { kind: ResourceKind::NetworkPolicy, namespace: "default".to_owned(), name };
    (Key::Resource(key), value)
}

/// Processor time of this process so far, in seconds: what others do on the machine doesn't show in it.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc(5)");
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    // utime and stime, in hundredths.
    rest.split(' ').skip(12).take(2).map(|ticks| ticks.parse::<f64>().expect("a number") / 100.0).sum()
}

fn until_in_sync(events: &Receiver<Event>) -> usize {
    let mut resources = 0;
    loop {
        match events.recv_timeout(Duration::from_secs(600)).expect("an event") {
            Event::Update(Update::InSync) => return resources,
            Event::Update(_) => resources += 1,
            Event::Ignored(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// How long ago, in microseconds, a change was written whose label says when.
fn delay(event: &Event, start: Instant) -> Option<u64> {
    let Event::Update(Update::Put(resource)) = event else { return None };
    let Resource::WorkloadEndpoint(endpoint) = &**resource else { return None };
    let written: u64 = endpoint.labels.get("generation")?.parse().ok()?;
    Some((start.elapsed().as_micros() as u64).saturating_sub(written))
}

#[test]
#[ignore = "measures, and takes minutes; see above"]
fn a_large_site_is_loaded_and_followed() {
    let Some(etcd) = Etcd::start() else { return };
    let began = Instant::now();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let settings = etcd.settings();
            scope.spawn(move || {
                let store = EtcdStore::open(&settings).unwrap();
                let endpoints = (writer..ENDPOINTS).step_by(WRITERS).map(|number| endpoint(number, 0));
                let policies = (writer..POLICIES).step_by(WRITERS).map(policy);
                endpoints
                    .chain(policies)
                    .for_each(|(key, value)| assert!(store.put(&key, &value, None).is_ok()));
            });
        }
    });
    println!("written by {WRITERS} writers in {:.1} s", began.elapsed().as_secs_f64());

    let (began, used) = (Instant::now(), processor_seconds());
    let (sender, events) = channel();
    let following =
        Following::open(EtcdConfig::at(etcd.settings()), move |event| drop(sender.send(event))).unwrap();
    let resources = until_in_sync(&events);
    println!(
        "{resources} resources loaded from etcd in {:.2} s, of which {:.2} s of our processor time",
        began.elapsed().as_secs_f64(),
        processor_seconds() - used
    );
    assert_eq!(resources, ENDPOINTS + POLICIES);

    let start = Instant::now();
    let mut delays = Vec::new();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let settings = etcd.settings();
            scope.spawn(move || {
                let store = EtcdStore::open(&settings).unwrap();
                for turn in 0..CHANGES_A_SECOND * SECONDS / WRITERS {
                    let number = turn * WRITERS + writer;
                    let due = Duration::from_secs_f64(number as f64 / CHANGES_A_SECOND as f64);
                    thread::sleep(due.saturating_sub(start.elapsed()));
                    let (key, value) = endpoint(number, start.elapsed().as_micros() as u64);
                    store.put(&key, &value, None).unwrap();
                }
            });
        }
        while delays.len() < CHANGES_A_SECOND * SECONDS {
            let event = events.recv_timeout(Duration::from_secs(60)).expect("a change");
            delays.extend(delay(&event, start));
        }
    });
    delays.sort_unstable();
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    println!(
        "{} changes in {:.1} s; from the write's beginning until told: half within {:.1} ms, 99 % within {:.1} ms, all within {:.1} ms",
        delays.len(),
        start.elapsed().as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    drop(following);

    let began = Instant::now();
    let listed = EtcdStore::open(&etcd.settings()).unwrap();
    let all = datastore::transfer::everything(&listed).unwrap();
    println!("{} values listed in {:.2} s", all.len(), began.elapsed().as_secs_f64());
}

/// A directory with a file a resource, as operators' tools write them: loaded as the router loads it.
#[test]
#[ignore = "measures, and takes minutes; see above"]
fn a_directory_of_many_files_is_written_and_read() {
    const WRITTEN: usize = 2_000;
    const FILES: usize = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(directory.path()).unwrap();
    let began = Instant::now();
    for number in 0..WRITTEN {
        let (key, value) = endpoint(number, 0);
        store.create(&key, &value).unwrap();
    }
    println!("{WRITTEN} files written by the store in {:.1} s", began.elapsed().as_secs_f64());
    for number in WRITTEN..FILES {
        let text = serde_saphyr::to_string(&endpoint(number, 0).1).unwrap();
        std::fs::write(directory.path().join(format!("endpoint{number}.yaml")), text).unwrap();
    }
    let (began, used) = (Instant::now(), processor_seconds());
    let (sender, events) = channel();
    let config = DirectoryConfig::at(directory.path());
    let following = Directory::open(config, move |event| drop(sender.send(event))).unwrap();
    let resources = until_in_sync(&events);
    println!(
        "{resources} files loaded in {:.2} s, of which {:.2} s of our processor time",
        began.elapsed().as_secs_f64(),
        processor_seconds() - used
    );
    drop(following);
    assert_eq!(resources, FILES);
}
