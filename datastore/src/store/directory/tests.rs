use proptest::prelude::*;
use serde_json::json;
use std::sync::mpsc::channel;
use tempfile::TempDir;

use super::*;
use crate::store::StatusKey;
use crate::{Directory, Event};
use model::Update;

fn pool_key(name: &str) -> Key {
    Key::Resource(ResourceKey { kind: ResourceKind::IpPool, namespace: String::new(), name: name.into() })
}

fn pool(name: &str, cidr: &str) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr}})
}

fn store_of(files: &[(&str, &str)]) -> (TempDir, DirectoryStore) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let store = DirectoryStore::open(dir.path()).unwrap();
    (dir, store)
}

fn text(dir: &TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).unwrap()
}

/// The files that count.
fn names(dir: &TempDir) -> Vec<String> {
    let files = scan::list(dir.path()).unwrap();
    files.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Writes a file by hand, at another time than it was written before: a file system's clock may tick every few milliseconds.
fn edit(dir: &TempDir, name: &str, text: &str) {
    let path = dir.path().join(name);
    let time = || fs::metadata(&path).unwrap().modified().unwrap();
    let before = time();
    while time() == before {
        fs::write(&path, text).unwrap();
    }
}

fn update(store: &DirectoryStore, key: &Key, value: &Value) {
    let revision = store.get(key).unwrap().revision;
    store.update(key, value, revision).unwrap();
}

const SITE: &str = "\
# The site's pools, as agreed in May.
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: a}   # the first
spec: {cidr: 10.1.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: b}
spec: {cidr: 10.2.0.0/16}
--- # the last one
# kept for the old racks
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: c}
spec:
  cidr: \"10.3.0.0/16\"
";

#[test]
fn what_is_created_has_a_file_of_its_own() {
    let (dir, store) = store_of(&[]);
    store.create(&pool_key("a"), &pool("a", "10.1.0.0/16")).unwrap();
    let set = ResourceKey { kind: ResourceKind::NetworkSet, namespace: "web".into(), name: "x".into() };
    let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkSet",
        "metadata": {"name": "x", "namespace": "web"}, "spec": {"nets": []}});
    store.create(&Key::Resource(set), &value).unwrap();
    store.create(&Key::Handle("k8s/Pod.1".into()), &json!({"block": {}})).unwrap();
    assert_eq!(names(&dir), ["ipamhandle_k8s%2fPod.1.yaml", "ippool_a.yaml", "networkset_web_x.yaml"]);
    let expected =
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: a\nspec:\n  cidr: 10.1.0.0/16\n";
    assert_eq!(text(&dir, "ippool_a.yaml"), expected);
}

#[test]
fn another_documents_text_is_left_as_it_is() {
    let (dir, store) = store_of(&[("site.yaml", SITE)]);
    update(&store, &pool_key("b"), &pool("b", "10.9.0.0/16"));
    let (first, rest) = SITE.split_once("---\n").unwrap();
    let last = &rest[rest.find("--- #").unwrap()..];
    let after = text(&dir, "site.yaml");
    assert!(after.starts_with(first) && after.ends_with(last), "{after}");
    assert_eq!(store.get(&pool_key("b")).unwrap().value, pool("b", "10.9.0.0/16"));
    store.delete(&pool_key("b"), None).unwrap();
    assert_eq!(text(&dir, "site.yaml"), format!("{first}{last}"));
    store.delete(&pool_key("c"), None).unwrap();
    assert_eq!(text(&dir, "site.yaml"), first);
    store.delete(&pool_key("a"), None).unwrap();
    assert!(names(&dir).is_empty());
}

#[test]
fn a_list_keeps_its_other_items() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [pool("a", "10.1.0.0/16"), pool("b", "10.2.0.0/16")]});
    for name in ["list.json", "list.yaml"] {
        let (dir, store) = store_of(&[(name, &list.to_string())]);
        update(&store, &pool_key("a"), &pool("a", "10.7.0.0/16"));
        assert_eq!(store.get(&pool_key("b")).unwrap().value, pool("b", "10.2.0.0/16"));
        store.delete(&pool_key("b"), None).unwrap();
        assert_eq!(store.get(&pool_key("a")).unwrap().value, pool("a", "10.7.0.0/16"));
        let is_json = serde_json::from_str::<Value>(&text(&dir, name)).is_ok();
        assert_eq!(is_json, name.ends_with(".json"));
    }
}

#[test]
fn an_old_manifest_becomes_a_present_one_when_it_is_changed() {
    let old =
        "apiVersion: v1\nkind: ipPool\nmetadata:\n  cidr: 10.1.0.0/16\nspec:\n  ipip:\n    enabled: true\n";
    let (dir, store) = store_of(&[("old.yaml", old)]);
    let pools = Under::Kind { kind: ResourceKind::IpPool, namespace: None };
    let found = store.list(&pools).unwrap().stored.remove(0);
    assert_eq!(found.value["spec"]["cidr"], "10.1.0.0/16");
    assert_eq!(text(&dir, "old.yaml"), old, "reading changes nothing");
    let mut value = found.value.clone();
    value["spec"]["disabled"] = json!(true);
    store.update(&found.key, &value, found.revision).unwrap();
    assert_eq!(store.get(&found.key).unwrap().value, value);
    assert!(text(&dir, "old.yaml").starts_with("apiVersion: projectcalico.org/v3\n"));
}

#[test]
fn what_a_manifest_leaves_out_is_known() {
    let endpoint = "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {resourceVersion: '7'}\n\
        spec: {node: n-1, orchestrator: k8s, pod: web, endpoint: eth0}\n";
    let (_dir, store) = store_of(&[("w.yaml", endpoint)]);
    let endpoints = Under::Kind { kind: ResourceKind::WorkloadEndpoint, namespace: Some("default".into()) };
    let found = store.list(&endpoints).unwrap().stored.remove(0);
    assert_eq!(found.key.to_string(), "WorkloadEndpoint(default/n--1-k8s-web-eth0)");
    assert_eq!(found.value["metadata"], json!({"name": "n--1-k8s-web-eth0", "namespace": "default"}));
}

#[test]
fn a_file_that_cannot_be_read_hides_no_other() {
    let (_dir, store) =
        store_of(&[("bad.yaml", "a: [\n"), ("site.yaml", SITE), ("note.yaml", "just a text\n")]);
    assert!(store.get(&pool_key("a")).is_ok());
    store.create(&pool_key("d"), &pool("d", "10.4.0.0/16")).unwrap();
}

#[test]
fn somebody_elses_file_of_that_name_is_not_overwritten() {
    let (dir, store) = store_of(&[("ippool_a.yaml", "a: [\n")]);
    let result = store.create(&pool_key("a"), &pool("a", "10.1.0.0/16"));
    assert!(matches!(result, Err(StoreError::Unusable { .. })), "{result:?}");
    assert_eq!(text(&dir, "ippool_a.yaml"), "a: [\n");
}

#[test]
fn a_change_by_hand_is_a_conflict_for_who_read_before() {
    let (dir, store) = store_of(&[("site.yaml", SITE)]);
    let before = store.get(&pool_key("a")).unwrap();
    edit(&dir, "site.yaml", &SITE.replace("10.1.0.0", "10.8.0.0"));
    let result = store.update(&pool_key("a"), &pool("a", "10.1.0.0/16"), before.revision);
    assert_eq!(result, Err(StoreError::Conflict(pool_key("a"))));
}

#[test]
fn an_affinity_is_a_resource_too_but_written_by_ipam_alone() {
    let (_dir, store) = store_of(&[]);
    let affinity = Key::Affinity { node: "n1".into(), block: "10.0.0.0/26".parse().unwrap() };
    store.create(&affinity, &json!({"state": "confirmed", "deleted": false})).unwrap();
    let affinities = Under::Kind { kind: ResourceKind::BlockAffinity, namespace: None };
    let found = store.list(&affinities).unwrap().stored.remove(0);
    assert_eq!(found.key.to_string(), "BlockAffinity(n1-10-0-0-0-26)");
    assert_eq!(
        found.value["spec"],
        json!({"state": "confirmed", "deleted": "false", "node": "n1", "cidr": "10.0.0.0/26", "type": "host"})
    );
    let result = store.put(&found.key, &found.value, None);
    assert!(matches!(result, Err(StoreError::Unusable { .. })), "{result:?}");
}

#[test]
fn a_name_too_long_for_a_file_is_cut_and_stays_its_own() {
    let (_dir, store) = store_of(&[]);
    let long = |end: &str| Key::Handle(format!("{}{end}", "h".repeat(300)));
    store.create(&long("a"), &json!({"block": {}})).unwrap();
    store.create(&long("b"), &json!({"block": {"x": 1}})).unwrap();
    assert_eq!(store.list(&Under::Handles).unwrap().stored.len(), 2);
    assert_eq!(store.get(&long("b")).unwrap().value, json!({"block": {"x": 1}}));
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let (dir, store) = store_of(&[]);
    let key = Key::Handle("h".into());
    store.create(&key, &json!({"block": {"n": 0}})).unwrap();
    let writer = || {
        let (store, key) = (DirectoryStore::open(dir.path()).unwrap(), key.clone());
        for _ in 0..10 {
            loop {
                let found = store.get(&key).unwrap();
                let count = found.value["block"]["n"].as_i64().unwrap();
                match store.update(&key, &json!({"block": {"n": count + 1}}), found.revision) {
                    Ok(_) => break,
                    Err(StoreError::Conflict(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(writer))));
    assert_eq!(store.get(&key).unwrap().value["block"]["n"], 40);
}

#[test]
fn who_watches_the_directory_sees_what_is_written() {
    let (dir, store) = store_of(&[]);
    let (sender, events) = channel();
    let mut config = DirectoryConfig::at(dir.path());
    config.debounce = Duration::from_millis(20);
    let _watching = Directory::open(config, move |event| drop(sender.send(event))).unwrap();
    let next = || loop {
        match events.recv_timeout(Duration::from_secs(60)).expect("an event should have come") {
            Event::Update(Update::InSync) => {}
            Event::Update(update) => break format!("{update:?}"),
            other => panic!("{other:?}"),
        }
    };
    let revision = store.create(&pool_key("a"), &pool("a", "10.1.0.0/16")).unwrap();
    assert!(next().contains("10.1.0.0/16"));
    store.update(&pool_key("a"), &pool("a", "10.2.0.0/16"), revision).unwrap();
    assert!(next().contains("10.2.0.0/16"));
    let book = json!({"state": "confirmed", "deleted": false});
    let affinity = Key::Affinity { node: "n1".into(), block: "10.2.0.0/26".parse().unwrap() };
    store.create(&affinity, &book).unwrap();
    assert!(next().contains("BlockAffinity"));
    store.create(&Key::Handle("h".into()), &json!({"block": {"10.2.0.0/26": 1}, "deleted": false})).unwrap();
    store.create(&Key::IpamConfig, &json!({"strict_affinity": true, "auto_allocate_blocks": true})).unwrap();
    store.delete(&pool_key("a"), None).unwrap();
    assert!(next().contains("Remove"), "handles and settings are IPAM's own and disturb nobody");
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        ".{0,12}",
        "[ -~]{0,12}",
        prop::sample::select(vec![
            "n", "on", "yes", "~", "null", "1e3", "0x1", "1_0", "---", "- a", "a: b", "#", "", " a\n b\n"
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1.0e6..1.0e6).prop_map(|number: f64| Value::from((number * 8.0).round() / 8.0 + 0.0625)),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        let fields = prop::collection::btree_map("[a-z0-9./#:-]{1,8}", inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_is_written_is_read_again(spec in any_json(), other in any_json(), is_json in any::<bool>()) {
        let value = |name: &str, spec: &Value| json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": name}, "spec": spec,
        });
        let (a, b) = (value("a", &spec), value("b", &other));
        let mut whole = file::written(&a, is_json).unwrap();
        if !is_json {
            whole.push_str("---\n");
            whole.push_str(&file::written(&b, false).unwrap());
        }
        let path = Path::new(if is_json { "f.json" } else { "f.yaml" });
        let file = File::parse(path, &whole).unwrap();
        let found: Vec<(Key, Value)> = file.entries().cloned().collect();
        let mut expected = vec![(pool_key("a"), a)];
        expected.extend((!is_json).then(|| (pool_key("b"), b.clone())));
        prop_assert_eq!(found, expected, "{}", whole);
        let changed = file.replace(&pool_key("a"), Some(&value("a", &other))).unwrap().unwrap();
        let file = File::parse(path, &changed).unwrap();
        prop_assert_eq!(&file.entries().next().unwrap().1["spec"], &other, "{}", changed);
    }
}

#[test]
fn reports_of_nodes_stand_in_a_folder_of_their_own_and_end_with_their_lifetime() {
    let (dir, store) = store_of(&[]);
    let active = Key::Status(StatusKey::Active { node: "n.1".into() });
    let last = Key::Status(StatusKey::Last { node: "n.1".into() });
    let workload = |workload: &str| {
        Key::Status(StatusKey::Workload {
            node: "n.1".into(),
            orchestrator: "k8s".into(),
            workload: workload.into(),
            endpoint: "eth0".into(),
        })
    };
    let under = Under::WorkloadStatuses { node: "n.1".into() };
    assert_eq!(store.list(&under).unwrap().stored, vec![]);
    store.put(&active, &json!({"uptime": 1}), Some(Duration::from_secs(90))).unwrap();
    store.put(&last, &json!({"uptime": 2}), None).unwrap();
    store.put(&workload("default/b"), &json!({"status": "up"}), None).unwrap();
    store.put(&workload("default/a"), &json!({"status": "down"}), None).unwrap();
    assert_eq!(names(&dir), Vec::<String>::new(), "no file of theirs is watched");
    assert_eq!(store.get(&active).unwrap().value, json!({"uptime": 1}));
    assert_eq!(store.get(&last).unwrap().value, json!({"uptime": 2}));
    let listed: Vec<Key> = store.list(&under).unwrap().stored.into_iter().map(|stored| stored.key).collect();
    assert_eq!(listed, [workload("default/a"), workload("default/b")]);
    assert_eq!(store.delete(&workload("default/a"), None).unwrap().value, json!({"status": "down"}));
    assert!(matches!(store.get(&workload("default/a")), Err(StoreError::NotFound(_))));
    store.put(&active, &json!({"uptime": 3}), Some(Duration::ZERO)).unwrap();
    assert!(matches!(store.get(&active), Err(StoreError::NotFound(_))), "its time is over");
}

#[test]
fn what_others_write_meanwhile_is_seen_by_who_asks_for_it() {
    let (dir, store) = store_of(&[("a.yaml", SITE)]);
    assert!(store.get(&pool_key("a")).is_ok());
    // A file that comes changes the directory.
    let other = DirectoryStore::open(dir.path()).unwrap();
    other.create(&pool_key("x"), &pool("x", "10.9.0.0/16")).unwrap();
    assert!(matches!(
        store.create(&pool_key("x"), &pool("x", "10.8.0.0/16")),
        Err(StoreError::AlreadyExists(_))
    ));
    // One that is edited in place is looked at again when it is asked for.
    fs::write(dir.path().join("a.yaml"), SITE.replace("10.1.0.0/16", "10.70.0.0/16")).unwrap();
    assert_eq!(store.get(&pool_key("a")).unwrap().value["spec"]["cidr"], "10.70.0.0/16");
    other.delete(&pool_key("x"), None).unwrap();
    assert!(matches!(store.get(&pool_key("x")), Err(StoreError::NotFound(_))));
}

#[test]
fn what_is_written_in_one_tick_of_the_clock_is_seen() {
    let (dir, store) = store_of(&[("a.yaml", SITE)]);
    // In place, as long as before.
    for turn in 0..10 {
        let cidr = format!("10.{turn}.0.0/16");
        fs::write(dir.path().join("a.yaml"), SITE.replace("10.1.0.0/16", &cidr)).unwrap();
        assert_eq!(store.get(&pool_key("a")).unwrap().value["spec"]["cidr"], cidr);
    }
    // By a new file and one that goes, so that there are as many as before.
    let other = DirectoryStore::open(dir.path()).unwrap();
    for turn in 0..10 {
        let [key, next] = [turn, turn + 1].map(|turn| pool_key(&format!("p{turn}")));
        if turn > 0 {
            other.delete(&key, None).unwrap();
            assert!(matches!(store.get(&key), Err(StoreError::NotFound(_))));
        }
        other.create(&next, &pool(&format!("p{}", turn + 1), "10.9.0.0/16")).unwrap();
        assert!(store.get(&next).is_ok());
        update(&store, &pool_key("b"), &pool("b", &format!("10.{turn}.0.0/16")));
    }
}
