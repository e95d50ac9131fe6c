//! What every store promises, asked of each of them.

mod server;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use datastore::settings::{EtcdSettings, Pem};
use datastore::{
    DirectoryStore, EtcdStore, Key, Listed, MemoryStore, ResourceKey, ResourceKind, Revision, StatusKey,
    Store, StoreError, Under,
};
use model::Family;
use serde_json::{Value, json};
use server::Etcd;

fn resource(kind: ResourceKind, namespace: &str, name: &str) -> Key {
    Key::Resource(ResourceKey { kind, namespace: namespace.to_owned(), name: name.to_owned() })
}

fn pool(name: &str) -> Key {
    resource(ResourceKind::IpPool, "", name)
}

fn pool_value(name: &str, cidr: &str) -> Value {
    json!({
        "kind": "IPPool", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"cidr": cidr, "ipipMode": "Never", "vxlanMode": "Never"},
    })
}

fn set_value(namespace: &str, name: &str) -> Value {
    json!({
        "kind": "NetworkSet", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nets": ["10.0.0.0/8"]},
    })
}

fn keys(listed: &Listed) -> Vec<String> {
    listed.stored.iter().map(|stored| stored.key.to_string()).collect()
}

/// Everything that holds of every store.
fn contract(store: &dyn Store) {
    a_write_names_the_value_that_it_replaces(store);
    a_list_holds_its_own_keys_in_their_order(store);
    ipam_keeps_its_books(store);
}

fn a_write_names_the_value_that_it_replaces(store: &dyn Store) {
    let (key, value) = (pool("a"), |cidr| pool_value("a", cidr));
    assert_eq!(store.get(&key), Err(StoreError::NotFound(key.clone())));
    assert_eq!(
        store.update(&key, &value("10.0.0.0/16"), Revision(1)),
        Err(StoreError::NotFound(key.clone()))
    );
    assert_eq!(store.delete(&key, None), Err(StoreError::NotFound(key.clone())));
    let first = store.create(&key, &value("10.1.0.0/16")).unwrap();
    assert_eq!(store.create(&key, &value("10.2.0.0/16")), Err(StoreError::AlreadyExists(key.clone())));
    let found = store.get(&key).unwrap();
    assert_eq!((found.value, found.revision), (value("10.1.0.0/16"), first));
    let second = store.update(&key, &value("10.3.0.0/16"), first).unwrap();
    assert!(second > first, "{second:?} comes after {first:?}");
    assert_eq!(store.update(&key, &value("10.4.0.0/16"), first), Err(StoreError::Conflict(key.clone())));
    assert_eq!(store.delete(&key, Some(first)), Err(StoreError::Conflict(key.clone())));
    assert_eq!(store.get(&key).unwrap().value, value("10.3.0.0/16"));
    assert_eq!(store.delete(&key, Some(second)).unwrap().value, value("10.3.0.0/16"));
    assert_eq!(store.delete(&key, Some(second)), Err(StoreError::NotFound(key.clone())));
    let third = store.create(&key, &value("10.5.0.0/16")).unwrap();
    assert!(third > second, "a name that is used again has no old revision");
    let fourth = store.put(&key, &value("10.6.0.0/16"), None).unwrap();
    assert_eq!(store.get(&key).unwrap().revision, fourth);
    store.delete(&key, None).unwrap();
}

fn a_list_holds_its_own_keys_in_their_order(store: &dyn Store) {
    let sets = Under::Kind { kind: ResourceKind::NetworkSet, namespace: None };
    let of_web = Under::Kind { kind: ResourceKind::NetworkSet, namespace: Some("web".to_owned()) };
    let before = store.list(&sets).unwrap();
    assert!(before.stored.is_empty());
    let mut last = before.revision;
    for (namespace, name) in [("web", "b"), ("we", "a"), ("web", "a"), ("webs", "a")] {
        let key = resource(ResourceKind::NetworkSet, namespace, name);
        last = store.create(&key, &set_value(namespace, name)).unwrap();
    }
    store.create(&pool("web"), &pool_value("web", "10.0.0.0/24")).unwrap();
    let all = store.list(&sets).unwrap();
    assert_eq!(
        keys(&all),
        ["NetworkSet(we/a)", "NetworkSet(web/a)", "NetworkSet(web/b)", "NetworkSet(webs/a)"]
    );
    assert!(all.revision >= last && last > before.revision);
    assert_eq!(keys(&store.list(&of_web).unwrap()), ["NetworkSet(web/a)", "NetworkSet(web/b)"]);
    let names_value = all.stored[3].value["metadata"]["namespace"] == "webs";
    assert!(names_value && store.get(&all.stored[3].key).unwrap() == all.stored[3]);
    all.stored.iter().for_each(|stored| drop(store.delete(&stored.key, Some(stored.revision)).unwrap()));
    store.delete(&pool("web"), None).unwrap();
}

fn ipam_keeps_its_books(store: &dyn Store) {
    let block = |cidr: &str| Key::Block(cidr.parse().unwrap());
    let affinity =
        |node: &str, cidr: &str| Key::Affinity { node: node.to_owned(), block: cidr.parse().unwrap() };
    let block_value = json!({
        "cidr": "10.1.3.64/30", "affinity": "host:n1", "allocations": [0, null, null, null], "unallocated": [1, 2, 3],
        "attributes": [{"handle_id": "h.1", "secondary": {"node": "n1", "pod": "web-0"}}],
        "sequenceNumber": 1_760_000_000_000_000_123_u64, "sequenceNumberForAllocation": {"0": 1_760_000_000_000_000_123_u64},
        "deleted": false,
    });
    let state = json!({"state": "confirmed", "deleted": false});
    let handle = json!({"block": {"10.1.3.64/30": 1}, "deleted": false});
    let config = json!({"strict_affinity": true, "auto_allocate_blocks": true, "maxBlocksPerHost": 20});
    let written = [
        (block("10.1.3.64/30"), block_value.clone()),
        (
            block("fd00::/122"),
            json!({"cidr": "fd00::/122", "allocations": [], "unallocated": [], "attributes": [], "deleted": false}),
        ),
        (affinity("n1", "10.1.3.64/30"), state.clone()),
        (affinity("n1", "fd00::/122"), json!({"state": "pending", "deleted": false})),
        (affinity("n2", "10.1.3.68/30"), state.clone()),
        (Key::Handle("h.1".to_owned()), handle),
        (Key::IpamConfig, config),
    ];
    for (key, value) in &written {
        let revision = store.create(key, value).unwrap();
        let found = store.get(key).unwrap();
        assert_eq!((&found.value, found.revision), (value, revision), "{key}");
    }
    let v4 = Family::V4;
    assert_eq!(keys(&store.list(&Under::Blocks(v4)).unwrap()), ["IPAMBlock(10.1.3.64/30)"]);
    assert_eq!(keys(&store.list(&Under::Blocks(Family::V6)).unwrap()), ["IPAMBlock(fd00::/122)"]);
    let mine = Under::Affinities { node: Some("n1".to_owned()), family: v4 };
    assert_eq!(keys(&store.list(&mine).unwrap()), ["BlockAffinity(n1, 10.1.3.64/30)"]);
    let all = store.list(&Under::Affinities { node: None, family: v4 }).unwrap();
    assert_eq!(keys(&all), ["BlockAffinity(n1, 10.1.3.64/30)", "BlockAffinity(n2, 10.1.3.68/30)"]);
    assert_eq!(keys(&store.list(&Under::Handles).unwrap()), ["IPAMHandle(h.1)"]);
    let key = block("10.1.3.64/30");
    let revision = store.get(&key).unwrap().revision;
    let mut fuller = block_value;
    fuller["allocations"][1] = json!(0);
    fuller["unallocated"] = json!([2, 3]);
    store.update(&key, &fuller, revision).unwrap();
    assert_eq!(store.get(&key).unwrap().value, fuller);
    written.iter().for_each(|(key, _)| drop(store.delete(key, None).unwrap()));
}

#[test]
fn memory_holds_the_contract() {
    contract(&MemoryStore::default());
}

#[test]
fn a_directory_holds_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    contract(&DirectoryStore::open(directory.path()).unwrap());
    let left = fs::read_dir(directory.path())
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert!(left.into_iter().all(|name| name.starts_with('.')), "nothing is left behind");
}

fn etcd() -> Option<(Etcd, EtcdStore)> {
    let etcd = Etcd::start()?;
    let store = EtcdStore::open(&etcd.settings()).unwrap();
    Some((etcd, store))
}

#[test]
fn etcd_holds_the_contract() {
    let Some((etcd, store)) = etcd() else { return };
    contract(&store);
    assert_eq!(etcd.ctl(&["get", "--prefix", "--keys-only", "/"]).trim(), "", "nothing is left behind");
}

#[test]
fn a_value_lands_in_etcd_where_calico_looks_for_it() {
    let Some((etcd, store)) = etcd() else { return };
    let value = pool_value("a", "10.1.0.0/16");
    store.create(&pool("a"), &value).unwrap();
    let path = "/calico/resources/v3/projectcalico.org/ippools/a";
    assert_eq!(etcd.ctl(&["get", "--print-value-only", path]).trim_end(), value.to_string());
}

#[test]
fn garbage_under_a_key_is_left_out_of_lists_and_named_by_get() {
    let Some((etcd, store)) = etcd() else { return };
    let root = "/calico/resources/v3/projectcalico.org/ippools";
    etcd.ctl(&["put", &format!("{root}/bad"), "{\"kind\":"]);
    etcd.ctl(&["put", &format!("{root}/worse"), "\u{1}\u{2}"]);
    etcd.ctl(&["put", &format!("{root}/of/nobody"), "{}"]);
    store.create(&pool("good"), &pool_value("good", "10.1.0.0/16")).unwrap();
    let pools = Under::Kind { kind: ResourceKind::IpPool, namespace: None };
    assert_eq!(keys(&store.list(&pools).unwrap()), ["IPPool(good)"]);
    assert!(matches!(store.get(&pool("bad")), Err(StoreError::Unusable { .. })));
    assert_eq!(store.delete(&pool("bad"), None).unwrap().value, Value::Null);
}

#[test]
fn an_affinity_without_a_value_is_an_old_one() {
    let Some((etcd, store)) = etcd() else { return };
    etcd.ctl(&["put", "/calico/ipam/v2/host/n1/ipv4/block/10.0.0.0-26", ""]);
    let key = Key::Affinity { node: "n1".to_owned(), block: "10.0.0.0/26".parse().unwrap() };
    assert_eq!(store.get(&key).unwrap().value, json!({}));
}

#[test]
fn a_list_of_many_pages_is_whole() {
    let Some((_etcd, store)) = etcd() else { return };
    // More than a page, of values that together exceed what gRPC takes at once by itself.
    let names: Vec<String> = (0..6_000).map(|number| format!("h.{number:05}")).collect();
    for name in &names {
        store.create(&Key::Handle(name.clone()), &json!({"block": {}, "filler": "x".repeat(1_000)})).unwrap();
    }
    let listed = store.list(&Under::Handles).unwrap();
    let expected: Vec<String> = names.iter().map(|name| format!("IPAMHandle({name})")).collect();
    assert_eq!(keys(&listed), expected);
}

#[test]
fn a_value_with_a_lifetime_goes_away() {
    let Some((etcd, store)) = etcd() else { return };
    let key = Key::Status(StatusKey::Active { node: "n1".to_owned() });
    store.put(&key, &json!({"uptime": 1.0}), Some(Duration::from_secs(3600))).unwrap();
    let lease = etcd.ctl(&["lease", "list"]).lines().last().unwrap().trim().to_owned();
    assert!(
        etcd.ctl(&["lease", "timetolive", "--keys", &lease])
            .contains("/calico/felix/v2/no-region/host/n1/status")
    );
    etcd.ctl(&["lease", "revoke", &lease]);
    assert_eq!(store.get(&key), Err(StoreError::NotFound(key)));
}

#[test]
fn another_member_is_asked_where_the_first_is_gone() {
    let Some(etcd) = Etcd::start() else { return };
    let mut settings = etcd.settings();
    settings.endpoints.insert(0, format!("http://{}", server::free_port()));
    let store = EtcdStore::open(&settings).unwrap();
    store.create(&pool("a"), &pool_value("a", "10.1.0.0/16")).unwrap();
}

#[test]
fn an_etcd_that_is_gone_is_named_and_found_again() {
    let Some((mut etcd, store)) = etcd() else { return };
    store.create(&pool("a"), &pool_value("a", "10.1.0.0/16")).unwrap();
    etcd.kill();
    let Err(StoreError::Unavailable(reason)) = store.get(&pool("a")) else {
        panic!("nobody is there to answer")
    };
    assert!(reason.contains(&etcd.client.to_string()), "{reason}");
    etcd.run();
    assert_eq!(store.get(&pool("a")).unwrap().value, pool_value("a", "10.1.0.0/16"));
}

#[test]
fn a_login_is_made_and_renewed() {
    let Some(mut etcd) = Etcd::start() else { return };
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "reader:word"],
        &["role", "add", "reads"],
        &["role", "grant-permission", "--prefix=true", "reads", "read", "/calico/"],
        &["user", "grant-role", "reader", "reads"],
        &["auth", "enable"],
    ] {
        etcd.ctl(arguments);
    }
    let store = |etcd: &Etcd, user: &str, password: &str| {
        let login = Some((user.to_owned(), password.to_owned()));
        EtcdStore::open(&EtcdSettings { login, ..etcd.settings() }).unwrap()
    };
    let root = store(&etcd, "root", "secret");
    root.create(&pool("a"), &pool_value("a", "10.1.0.0/16")).unwrap();
    // The server forgets its tokens: what comes next is told that its token is invalid.
    etcd.kill();
    etcd.run();
    root.create(&pool("b"), &pool_value("b", "10.2.0.0/16")).unwrap();
    let reader = store(&etcd, "reader", "word");
    assert!(reader.get(&pool("a")).is_ok());
    let refusal = |store: &EtcdStore| match store.delete(&pool("a"), None) {
        Err(StoreError::Unavailable(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refusal(&reader).contains("permission denied"));
    assert!(refusal(&store(&etcd, "root", "wrong")).contains("authentication failed"));
    let nobody = EtcdStore::open(&etcd.settings()).unwrap();
    assert!(refusal(&nobody).contains("user name is empty"));
}

/// An authority, and what it signed for a server of ours and for a client. None: there is no openssl here.
fn certificates(directory: &Path) -> Option<()> {
    let openssl = |arguments: &str| {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().ok()?;
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    };
    fs::write(directory.join("server.ext"), format!("subjectAltName=IP:{}\n", server::host())).unwrap();
    fs::write(directory.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.crt"))?;
    for name in ["server", "client"] {
        openssl(&format!("req -new {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"))?;
        openssl(&format!(
            "x509 -req -days 2 -CA ca.crt -CAkey ca.key -CAcreateserial -in {name}.csr -extfile {name}.ext -out {name}.crt"
        ))?;
    }
    Some(())
}

#[test]
fn both_sides_show_their_certificates() {
    let directory = tempfile::tempdir().unwrap();
    if certificates(directory.path()).is_none() {
        println!("skipped: no openssl here to make certificates");
        return;
    }
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let Some(etcd) = Etcd::with(
        "https",
        &[
            "--cert-file",
            &path("server.crt"),
            "--key-file",
            &path("server.key"),
            "--trusted-ca-file",
            &path("ca.crt"),
            "--client-cert-auth",
        ],
    ) else {
        return;
    };
    let file = |name: &str| Pem::File(path(name).into());
    let inline = |name: &str| Pem::Inline(fs::read_to_string(path(name)).unwrap());
    let identity = Some((file("client.crt"), file("client.key")));
    let good = EtcdSettings { ca: Some(file("ca.crt")), identity, ..etcd.settings() };
    let store = EtcdStore::open(&good).unwrap();
    store.create(&pool("a"), &pool_value("a", "10.1.0.0/16")).unwrap();
    let identity = Some((inline("client.crt"), inline("client.key")));
    let all_inline = EtcdSettings { ca: Some(inline("ca.crt")), identity, ..etcd.settings() };
    assert!(EtcdStore::open(&all_inline).unwrap().get(&pool("a")).is_ok());
    // An address without a scheme is taken for https where there are certificates.
    let bare = EtcdSettings { endpoints: vec![etcd.client.to_string()], ..good.clone() };
    assert!(EtcdStore::open(&bare).unwrap().get(&pool("a")).is_ok());
    let strangers = EtcdSettings { ca: None, ..good.clone() };
    let Err(StoreError::Unavailable(reason)) = EtcdStore::open(&strangers).unwrap().get(&pool("a")) else {
        panic!("the system's authorities know nothing of this one")
    };
    assert!(reason.contains("certificate"), "{reason}");
    let unnamed = EtcdSettings { identity: None, ..good.clone() };
    assert!(EtcdStore::open(&unnamed).unwrap().get(&pool("a")).is_err());
    let missing = EtcdSettings { ca: Some(Pem::File("/nowhere/ca.crt".into())), ..good };
    let Err(error) = EtcdStore::open(&missing) else { panic!("there is no such file") };
    assert!(error.to_string().contains("/nowhere/ca.crt can't be read"), "{error}");
}
