//! Writers that ask one store for addresses, each through a connection that loses and dies, and the books afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::thread;

use datastore::ipam::{AutoAssign, Block, Handle, Ipam, IpamConfig, IpamError, State, Use};
use datastore::{Key, ResourceKey, ResourceKind, Store, StoreError, Under};
use model::{Family, Prefix};
use serde_json::{Value, json};

use crate::way::{Gate, Way, died};

/// How a run goes.
pub struct Plan {
    /// Decides everything but how threads take turns.
    pub seed: u64,
    /// Threads, each at a node of its own or with another.
    pub writers: usize,
    /// Requests of each.
    pub steps: usize,
    /// Of a hundred writes, how many come too late without anybody's doing.
    pub conflicts: u32,
    /// Of a hundred writes, how many are the last of their writer: half of them are still done.
    pub deaths: u32,
}

/// What is asked of the whole site.
#[derive(Clone, Copy)]
pub struct Site {
    /// Are addresses of blocks for their own node alone?
    pub strict: bool,
    /// Seconds.
    pub cooldown: u32,
}

const NODES: usize = 6;

/// xorshift64*: its numbers decide when a connection fails.
struct Dice(u64);

impl Dice {
    fn of(seed: u64, writer: usize) -> Dice {
        Dice((seed ^ (writer as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }

    fn percent(&mut self, chance: u32) -> bool {
        self.below(100) < u64::from(chance)
    }
}

/// A connection to the store. Once it has died, nothing comes through.
struct Connection {
    state: Mutex<(Dice, bool)>,
    conflicts: u32,
    deaths: u32,
}

impl Gate for Connection {
    fn read<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let is_dead = self.state.lock().unwrap_or_else(PoisonError::into_inner).1;
        if is_dead { Err(died()) } else { read() }
    }

    fn write<T>(&self, key: &Key, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.read(|| Ok(()))?;
        thread::yield_now();
        let (dies, is_done, is_late) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let dies = state.0.percent(self.deaths);
            state.1 = dies;
            (dies, state.0.percent(50), state.0.percent(self.conflicts))
        };
        if dies {
            if is_done {
                // Whoever writes never hears of it.
                let _ = write();
            }
            return Err(died());
        }
        if is_late { Err(StoreError::Conflict(key.clone())) } else { write() }
    }
}

/// What writers believe to have.
type Held = Mutex<BTreeMap<IpAddr, String>>;

fn node(writer: usize) -> String {
    format!("node{}", writer % NODES)
}

fn put(store: &dyn Store, kind: ResourceKind, name: &str, value: &Value) {
    let key = Key::Resource(ResourceKey { kind, namespace: String::new(), name: name.to_owned() });
    store.create(&key, value).unwrap();
}

/// Lets writers at an empty store, each through one of these ways to it, and looks at the books when they are done.
///
/// # Panics
/// An address was handed out twice, or the books are wrong.
pub fn run(stores: &[&dyn Store], plan: &Plan, site: Site) {
    let store = stores[0];
    // 64 addresses in 16 blocks: ten writers run into each other all the time.
    let pool = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "pool"},
        "spec": {"cidr": "10.0.0.0/26", "blockSize": 30},
    });
    put(store, ResourceKind::IpPool, "pool", &pool);
    for number in 0..NODES {
        let resource = json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "Node",
            "metadata": {"name": node(number)},
        });
        put(store, ResourceKind::Node, &node(number), &resource);
    }
    let config = IpamConfig {
        strict_affinity: site.strict,
        ip_cooldown_seconds: site.cooldown,
        ..IpamConfig::initial()
    };
    Ipam::new(store).set_config(&config).unwrap();

    let held = Held::default();
    let left: Vec<Vec<String>> = thread::scope(|scope| {
        let held = &held;
        let writers: Vec<_> = (0..plan.writers)
            .map(|writer| {
                let store = stores[writer % stores.len()];
                scope.spawn(move || write(store, plan, writer, held))
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let ipam = Ipam::new(store);
    // What dead writers had: their successors give it back by handle, as nodes do when they start.
    let held = held.into_inner().unwrap();
    let known: BTreeSet<&String> = held.values().collect();
    for handle in left.iter().flatten().filter(|handle| !known.contains(handle)) {
        release(&ipam, handle).unwrap();
    }
    check_books(store, &held);
    for handle in known {
        release(&ipam, handle).unwrap();
    }
    assert_eq!(store.list(&Under::Handles).unwrap().stored, [], "handles without addresses");
    for block in ipam.blocks(Family::V4).unwrap() {
        assert!(site.cooldown > 0 || block.is_empty(), "{block:?}");
    }
}

fn release(ipam: &Ipam<'_>, handle: &str) -> Result<(), IpamError> {
    match ipam.release_by_handle(handle) {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => outcome,
    }
}

/// One writer's life. Returns the handles it ever used.
fn write(store: &dyn Store, plan: &Plan, writer: usize, held: &Held) -> Vec<String> {
    let mut dice = Dice::of(plan.seed, writer);
    let mut handles: Vec<String> = Vec::new();
    let mut mine: Vec<String> = Vec::new();
    let connect = |seed: u64| {
        let state = Mutex::new((Dice(seed | 1), false));
        Way { store, gate: Connection { state, conflicts: plan.conflicts, deaths: plan.deaths } }
    };
    let mut connection = connect(dice.below(u64::MAX));
    for step in 0..plan.steps {
        let ipam = Ipam::new(&connection);
        let outcome = if mine.is_empty() || dice.percent(60) {
            let handle = format!("w{writer}-{step}");
            handles.push(handle.clone());
            let request = AutoAssign {
                count: 1 + dice.below(3) as usize,
                family: Family::V4,
                node: &node(writer),
                handle: Some(&handle),
                owner: BTreeMap::from([("node".to_owned(), node(writer))]),
                pools: &[],
                namespace: BTreeMap::new(),
                usage: Use::Workload,
                max_blocks: 0,
            };
            ipam.auto_assign(&request).map(|assigned| {
                let mut held = held.lock().unwrap();
                for addr in &assigned.addresses {
                    let before = held.insert(*addr, handle.clone());
                    assert_eq!(before, None, "{addr} was handed out twice, now to {handle}");
                }
                if !assigned.addresses.is_empty() {
                    mine.push(handle);
                }
            })
        } else {
            let handle = mine.swap_remove(dice.below(mine.len() as u64) as usize);
            // From here on others may have them.
            held.lock().unwrap().retain(|_, holder| *holder != handle);
            release(&ipam, &handle)
        };
        drop(ipam);
        match outcome {
            Ok(()) | Err(IpamError::TooManyConflicts | IpamError::BlockLimit) => {}
            Err(IpamError::Store(StoreError::Unavailable(_))) => connection = connect(dice.below(u64::MAX)),
            Err(error) => panic!("{error}"),
        }
    }
    handles
}

/// Blocks are whole, handles count what there is, claims and blocks agree, and everybody has what they believe to have.
fn check_books(store: &dyn Store, held: &BTreeMap<IpAddr, String>) {
    let ipam = Ipam::new(store);
    let blocks: BTreeMap<Prefix, Block> =
        ipam.blocks(Family::V4).unwrap().into_iter().map(|block| (block.cidr(), block)).collect();
    let mut assigned = BTreeMap::new();
    let mut counted: BTreeMap<String, BTreeMap<Prefix, i64>> = BTreeMap::new();
    for (cidr, block) in &blocks {
        assert_eq!(block.validate(std::time::SystemTime::now()), Ok(()), "{block:?}");
        for (addr, _, row) in block.allocations() {
            let Some(handle) = row.and_then(|row| row.handle()) else { continue };
            assigned.insert(addr, handle.to_owned());
            *counted.entry(handle.to_owned()).or_default().entry(*cidr).or_default() += 1;
        }
    }
    assert_eq!(&assigned, held, "what is assigned, and what writers have");
    let handles = store.list(&Under::Handles).unwrap().stored.into_iter().map(|stored| {
        let Key::Handle(name) = stored.key else { panic!("{}", stored.key) };
        let handle: Handle = serde_json::from_value(stored.value).unwrap();
        (name, handle.blocks().collect::<BTreeMap<Prefix, i64>>())
    });
    for (name, blocks) in handles {
        let there = counted.remove(&name).unwrap_or_default();
        for (block, count) in &there {
            // A writer that died counted first; nobody has released by this handle since, which would mend it.
            assert!(
                blocks.get(block).is_some_and(|counted| counted >= count),
                "{name}: {blocks:?}, {there:?}"
            );
        }
    }
    assert_eq!(counted, BTreeMap::new(), "addresses whose handle is missing");
    let affinities = store.list(&Under::Affinities { node: None, family: Family::V4 }).unwrap();
    for stored in &affinities.stored {
        let Key::Affinity { node, block } = &stored.key else { panic!("{}", stored.key) };
        if State::of_value(&stored.value) == State::Confirmed {
            let owner = blocks.get(block).and_then(Block::node);
            assert_eq!(owner, Some(node.as_str()), "a confirmed claim of {block}");
        }
    }
    for (cidr, block) in &blocks {
        if let Some(node) = block.node() {
            let key = Key::Affinity { node: node.to_owned(), block: *cidr };
            assert!(store.get(&key).is_ok(), "{cidr} is {node}'s, who doesn't claim it");
        }
    }
}
