//! A small site that writers of IPAM share, and what must hold there whoever has died or come in between.

#![allow(dead_code, reason = "each test takes what it needs of this")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use datastore::ipam::{AutoAssign, Block, Handle, Ipam, IpamError, State, Use};
use datastore::{Key, MemoryStore, ResourceKey, ResourceKind, Store, Stored, Under};
use model::{Family, Prefix};
use serde_json::{Value, json};

pub const NODES: [&str; 2] = ["node1", "node2"];
/// How many addresses there are.
pub const FULL: usize = 8;

/// Two nodes and a pool of two blocks of four addresses, and a clock.
pub struct Site {
    pub store: MemoryStore,
    seconds: AtomicU64,
}

impl Site {
    pub fn new() -> Site {
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

    pub fn by<'a>(&'a self, store: &'a dyn Store) -> Ipam<'a> {
        Ipam::with_clock(store, || self.now())
    }

    pub fn ipam(&self) -> Ipam<'_> {
        self.by(&self.store)
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + self.seconds.load(Ordering::Relaxed))
    }

    pub fn blocks(&self) -> BTreeMap<Prefix, Block> {
        let blocks = self.ipam().blocks(Family::V4).unwrap();
        blocks.into_iter().map(|block| (block.cidr(), block)).collect()
    }

    /// Who has what, as blocks say it, which alone counts.
    pub fn assigned(&self) -> BTreeMap<IpAddr, String> {
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

    pub fn affinities(&self) -> Vec<(String, Prefix, State)> {
        let stored = self.store.list(&Under::Affinities { node: None, family: Family::V4 }).unwrap().stored;
        let row = |stored: Stored| match stored.key {
            Key::Affinity { node, block } => (node, block, State::of_value(&stored.value)),
            key => panic!("{key}"),
        };
        stored.into_iter().map(row).collect()
    }

    pub fn handles(&self) -> BTreeMap<String, BTreeMap<Prefix, i64>> {
        let row = |stored: Stored| {
            let Key::Handle(name) = stored.key else { panic!("{}", stored.key) };
            let handle: Handle = serde_json::from_value(stored.value).unwrap();
            (name, handle.blocks().collect())
        };
        self.store.list(&Under::Handles).unwrap().stored.into_iter().map(row).collect()
    }

    /// What holds at any time, whoever has died: handles count too many at most, and a confirmed claim is of a block of one's own.
    pub fn is_sound(&self, what: &str) {
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

    pub fn assign(
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

    pub fn release(&self, handle: &str) {
        match self.ipam().release_by_handle(handle) {
            Err(error) if !error.is_not_found() => panic!("{error}"),
            _ => {}
        }
    }

    pub fn wait(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// All is given back: nothing is left, not even what counts.
    pub fn ends_well(&self, what: &str) {
        let users: BTreeSet<String> =
            self.assigned().into_values().chain(self.handles().into_keys()).collect();
        users.iter().for_each(|handle| self.release(handle));
        self.is_sound(what);
        assert_eq!(self.assigned(), BTreeMap::new(), "{what}");
        assert_eq!(self.handles(), BTreeMap::new(), "{what}: handles without addresses");
        for node in NODES {
            self.ipam().release_host_affinities(node, false).unwrap();
        }
        assert_eq!(self.blocks().into_keys().collect::<Vec<_>>(), [], "{what}: blocks of nobody");
        assert_eq!(self.affinities(), [], "{what}: claims of nothing");
    }
}
