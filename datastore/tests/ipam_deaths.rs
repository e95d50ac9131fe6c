//! A writer dies at each of its writes in turn, before it was done or after: whatever was left half done is taken up or
//! given back by those who come after, no address is had twice, and in the end nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use datastore::ipam::{Assign, AutoAssign, Block, Handle, Ipam, IpamConfig, IpamError, Release, State, Use};
use datastore::{
    Key, Listed, MemoryStore, ResourceKey, ResourceKind, Revision, Store, StoreError, Stored, Under,
};
use model::{Family, Prefix};
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node1", "node2"];

/// A connection whose writer dies at a write.
struct Mortal<'a> {
    store: &'a MemoryStore,
    /// How many writes it has made or tried.
    writes: AtomicUsize,
    /// Its last, counted from 0, and whether that is done.
    last: Option<(usize, bool)>,
}

impl Mortal<'_> {
    fn died() -> StoreError {
        StoreError::Unavailable("the writer has died".to_owned())
    }

    fn alive(&self) -> Result<(), StoreError> {
        match self.last {
            Some((last, _)) if self.writes.load(Ordering::Relaxed) > last => Err(Self::died()),
            _ => Ok(()),
        }
    }

    fn write<T>(&self, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.alive()?;
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        match self.last {
            Some((last, is_done)) if last == number => {
                if is_done {
                    // It never hears of it.
                    drop(write());
                }
                Err(Self::died())
            }
            _ => write(),
        }
    }
}

impl Store for Mortal<'_> {
    fn get(&self, key: &Key) -> Result<Stored, StoreError> {
        self.alive()?;
        self.store.get(key)
    }

    fn list(&self, under: &Under) -> Result<Listed, StoreError> {
        self.alive()?;
        self.store.list(under)
    }

    fn create(&self, key: &Key, value: &Value) -> Result<Revision, StoreError> {
        self.write(|| self.store.create(key, value))
    }

    fn update(&self, key: &Key, value: &Value, revision: Revision) -> Result<Revision, StoreError> {
        self.write(|| self.store.update(key, value, revision))
    }

    fn delete(&self, key: &Key, revision: Option<Revision>) -> Result<Stored, StoreError> {
        self.write(|| self.store.delete(key, revision))
    }

    fn put(&self, key: &Key, value: &Value, lifetime: Option<Duration>) -> Result<Revision, StoreError> {
        self.write(|| self.store.put(key, value, lifetime))
    }
}

/// Two nodes and a pool of two blocks of four addresses, and a clock.
struct Site {
    store: MemoryStore,
    seconds: AtomicU64,
}

impl Site {
    fn new() -> Site {
        let site = Site { store: MemoryStore::default(), seconds: AtomicU64::new(0) };
        site.put(ResourceKind::IpPool, "pool", json!({"cidr": "10.0.0.0/29", "blockSize": 30}));
        for node in NODES {
            site.put(ResourceKind::Node, node, json!({}));
        }
        site
    }

    fn put(&self, kind: ResourceKind, name: &str, spec: Value) {
        let key = Key::Resource(ResourceKey { kind, namespace: String::new(), name: name.to_owned() });
        self.store.put(&key, &json!({"metadata": {"name": name}, "spec": spec}), None).unwrap();
    }

    fn by<'a>(&'a self, store: &'a dyn Store) -> Ipam<'a> {
        Ipam::with_clock(store, || self.now())
    }

    fn ipam(&self) -> Ipam<'_> {
        self.by(&self.store)
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + self.seconds.load(Ordering::Relaxed))
    }

    fn blocks(&self) -> BTreeMap<Prefix, Block> {
        let blocks = self.ipam().blocks(Family::V4).unwrap();
        blocks.into_iter().map(|block| (block.cidr(), block)).collect()
    }

    /// Who has what, as blocks say it, which alone counts.
    fn assigned(&self) -> BTreeMap<IpAddr, String> {
        let mut assigned = BTreeMap::new();
        for block in self.blocks().values() {
            assert_eq!(block.validate(self.now()), Ok(()), "{block:?}");
            for (addr, _, row) in block.allocations() {
                if let Some(handle) = row.and_then(|row| row.handle()) {
                    assigned.insert(addr, handle.to_owned());
                }
            }
        }
        assigned
    }

    fn affinities(&self) -> Vec<(String, Prefix, State)> {
        let stored = self.store.list(&Under::Affinities { node: None, family: Family::V4 }).unwrap().stored;
        let row = |stored: Stored| match stored.key {
            Key::Affinity { node, block } => (node, block, State::of_value(&stored.value)),
            key => panic!("{key}"),
        };
        stored.into_iter().map(row).collect()
    }

    fn handles(&self) -> BTreeMap<String, BTreeMap<Prefix, i64>> {
        let row = |stored: Stored| {
            let Key::Handle(name) = stored.key else { panic!("{}", stored.key) };
            let handle: Handle = serde_json::from_value(stored.value).unwrap();
            (name, handle.blocks().collect())
        };
        self.store.list(&Under::Handles).unwrap().stored.into_iter().map(row).collect()
    }

    /// What holds at any time, whoever has died: handles count too many at most, and a confirmed claim is of a block of one's own.
    fn is_sound(&self, what: &str) {
        let (blocks, handles) = (self.blocks(), self.handles());
        let mut counted: BTreeMap<(String, Prefix), i64> = BTreeMap::new();
        for (addr, handle) in self.assigned() {
            let block = blocks.keys().find(|block| block.contains(addr)).unwrap();
            *counted.entry((handle, *block)).or_default() += 1;
        }
        for ((handle, block), count) in counted {
            let known = handles.get(&handle).and_then(|blocks| blocks.get(&block)).copied().unwrap_or(0);
            assert!(known >= count, "{what}: {handle} has {count} of {block} and counts {known}");
        }
        for (node, block, state) in self.affinities() {
            let owner = blocks.get(&block).and_then(Block::node);
            assert!(
                state != State::Confirmed || owner == Some(&node),
                "{what}: {node} claims {block} of {owner:?}"
            );
        }
    }

    fn assign(
        &self,
        ipam: &Ipam<'_>,
        node: &str,
        handle: &str,
        count: usize,
    ) -> Result<Vec<IpAddr>, IpamError> {
        let request = AutoAssign {
            count,
            family: Family::V4,
            node,
            handle: Some(handle),
            owner: BTreeMap::new(),
            pools: &[],
            namespace: BTreeMap::new(),
            usage: Use::Workload,
            max_blocks: 0,
        };
        ipam.auto_assign(&request).map(|assigned| assigned.addresses)
    }

    fn release(&self, handle: &str) {
        match self.ipam().release_by_handle(handle) {
            Err(error) if !error.is_not_found() => panic!("{error}"),
            _ => {}
        }
    }
}

/// Something that a writer does, and what there is before.
struct Deed {
    name: &'static str,
    before: fn(&Site),
    /// By `node1`, for the handle `pod`.
    act: fn(&Site, &Ipam<'_>) -> Result<(), IpamError>,
}

const FULL: usize = 8;

fn first_block() -> Prefix {
    "10.0.0.0/30".parse().unwrap()
}

const DEEDS: &[Deed] = &[
    Deed {
        name: "takes an address of a block that it claims",
        before: |_| {},
        act: |site, ipam| site.assign(ipam, "node1", "pod", 1).map(drop),
    },
    Deed {
        name: "takes addresses of two blocks",
        before: |_| {},
        act: |site, ipam| site.assign(ipam, "node1", "pod", 6).map(drop),
    },
    Deed {
        name: "takes another address of its own block",
        before: |site| drop(site.assign(&site.ipam(), "node1", "before", 1)),
        act: |site, ipam| site.assign(ipam, "node1", "pod", 1).map(drop),
    },
    Deed {
        name: "borrows of another's block",
        before: |site| drop(site.assign(&site.ipam(), "node2", "before", 5)),
        act: |site, ipam| site.assign(ipam, "node1", "pod", 2).map(drop),
    },
    Deed {
        name: "takes an empty block from another",
        before: |site| {
            site.assign(&site.ipam(), "node2", "before", 8).unwrap();
            site.release("before");
            site.seconds.fetch_add(120, Ordering::Relaxed);
        },
        act: |site, ipam| site.assign(ipam, "node1", "pod", 2).map(drop),
    },
    Deed {
        name: "takes up a claim that was left half done",
        before: |site| {
            let claim = Key::Affinity { node: "node1".to_owned(), block: first_block() };
            site.store.create(&claim, &json!({"state": "pendingDeletion", "deleted": false})).unwrap();
        },
        act: |site, ipam| site.assign(ipam, "node1", "pod", 1).map(drop),
    },
    Deed {
        name: "takes one address",
        before: |_| {},
        act: |_, ipam| {
            let assign = Assign {
                addr: "10.0.0.2".parse().unwrap(),
                node: "node1",
                handle: Some("pod"),
                owner: BTreeMap::new(),
                usage: None,
            };
            match ipam.assign(&assign) {
                // It has got it before it died.
                Err(IpamError::Store(error)) => Err(error.into()),
                _ => Ok(()),
            }
        },
    },
    Deed {
        name: "gives back by handle",
        before: |site| drop(site.assign(&site.ipam(), "node1", "pod", 6)),
        act: |_, ipam| match ipam.release_by_handle("pod") {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        },
    },
    Deed {
        name: "gives back an address",
        before: |site| drop(site.assign(&site.ipam(), "node1", "pod", 2)),
        act: |site, ipam| {
            let mine = site.assigned().into_keys().next();
            mine.map_or(Ok(()), |addr| ipam.release(&[Release::of(addr)]).map(drop))
        },
    },
    Deed {
        name: "gives up its blocks, one of them in use",
        before: |site| {
            site.assign(&site.ipam(), "node1", "before", 4).unwrap();
            site.assign(&site.ipam(), "node1", "pod", 2).unwrap();
            site.release("before");
        },
        act: |_, ipam| ipam.release_host_affinities("node1", false),
    },
    Deed {
        name: "gives up its empty blocks",
        before: |site| {
            site.assign(&site.ipam(), "node1", "before", 4).unwrap();
            site.release("before");
        },
        act: |_, ipam| ipam.release_affinity("10.0.0.0/29".parse().unwrap(), "node1", true),
    },
    Deed {
        name: "gives back the last address of a block that is nobody's",
        before: |site| {
            site.assign(&site.ipam(), "node1", "pod", 2).unwrap();
            site.ipam().release_host_affinities("node1", false).unwrap();
        },
        act: |_, ipam| match ipam.release_by_handle("pod") {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        },
    },
];

/// Runs a deed that ends at a write; tells how many writes it came to.
fn until(deed: &Deed, last: Option<(usize, bool)>, strict: bool) -> (Site, usize) {
    let site = Site::new();
    (deed.before)(&site);
    if strict {
        let config = IpamConfig { strict_affinity: true, ..IpamConfig::initial() };
        site.ipam().set_config(&config).unwrap();
    }
    let mortal = Mortal { store: &site.store, writes: AtomicUsize::new(0), last };
    let outcome = (deed.act)(&site, &site.by(&mortal));
    // Some of what it does it does at the side, and says nothing if that fails.
    assert!(last.is_some() || outcome.is_ok(), "{}: {outcome:?}", deed.name);
    let writes = mortal.writes.load(Ordering::Relaxed);
    (site, writes)
}

fn survives(deed: &Deed, last: (usize, bool), strict: bool) {
    let what = format!("{}, dies at write {last:?}, strict: {strict}", deed.name);
    let after = || until(deed, Some(last), strict).0;

    let site = after();
    site.is_sound(&what);
    // Another node gets whatever nobody has, its claims of it left half done or not.
    site.seconds.fetch_add(120, Ordering::Relaxed);
    if !strict {
        let taken = site.assigned();
        let got = site.assign(&site.ipam(), "node2", "other", FULL).unwrap();
        assert_eq!(got.len(), FULL - taken.len(), "{what}: node2 gets the rest; {taken:?}");
        assert!(got.iter().all(|addr| !taken.contains_key(addr)), "{what}: {got:?}, {taken:?}");
        site.is_sound(&what);
    }
    ends_well(&site, &what);

    // The same once more, by whoever takes its place.
    let site = after();
    if let Err(error) = (deed.act)(&site, &site.ipam()) {
        panic!("{what}: its successor fails: {error}");
    }
    site.is_sound(&what);
    ends_well(&site, &what);
}

/// All is given back: nothing is left, not even what counts.
fn ends_well(site: &Site, what: &str) {
    let users: BTreeSet<String> = site.assigned().into_values().chain(site.handles().into_keys()).collect();
    users.iter().for_each(|handle| site.release(handle));
    site.is_sound(what);
    assert_eq!(site.assigned(), BTreeMap::new(), "{what}");
    assert_eq!(site.handles(), BTreeMap::new(), "{what}: handles without addresses");
    for node in NODES {
        site.ipam().release_host_affinities(node, false).unwrap();
    }
    assert_eq!(site.blocks().into_keys().collect::<Vec<_>>(), [], "{what}: blocks of nobody");
    assert_eq!(site.affinities(), [], "{what}: claims of nothing");
}

#[test]
fn a_writer_may_die_at_any_of_its_writes() {
    let mut deaths = 0;
    for deed in DEEDS {
        for strict in [false, true] {
            let (site, writes) = until(deed, None, strict);
            assert!(writes > 0 || strict, "{} writes something", deed.name);
            ends_well(&site, deed.name);
            for last in (0..writes).flat_map(|write| [(write, false), (write, true)]) {
                survives(deed, last, strict);
                deaths += 1;
            }
        }
    }
    println!("deaths: {deaths}");
}
