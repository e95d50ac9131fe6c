//! What whoever asks for addresses sees.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use model::{Family, Prefix};
use serde_json::{Value, json};

use super::*;
use crate::{Key, MemoryStore, ResourceKey, ResourceKind, Store, StoreError, Under};

/// A store and a clock.
#[derive(Default)]
struct World {
    store: MemoryStore,
    seconds: AtomicU64,
}

impl World {
    fn ipam(&self) -> Ipam<'_> {
        Ipam::with_clock(&self.store, || {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + self.seconds.load(Ordering::Relaxed))
        })
    }

    fn put(&self, kind: ResourceKind, name: &str, mut value: Value) {
        value["metadata"]["name"] = json!(name);
        let key = Key::Resource(ResourceKey { kind, namespace: String::new(), name: name.to_owned() });
        match self.store.get(&key) {
            Ok(there) => self.store.update(&key, &value, there.revision).unwrap(),
            Err(_) => self.store.create(&key, &value).unwrap(),
        };
    }

    fn pool(&self, name: &str, spec: Value) {
        self.put(ResourceKind::IpPool, name, json!({"spec": spec}));
    }

    fn node(&self, name: &str, labels: Value) {
        self.put(ResourceKind::Node, name, json!({"metadata": {"labels": labels}}));
    }

    fn wait(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Two nodes, and a pool of four blocks of four addresses.
    fn small() -> World {
        let world = World::default();
        world.pool("pool", json!({"cidr": "10.0.0.0/28", "blockSize": 30}));
        for node in ["node1", "node2"] {
            world.node(node, json!({}));
        }
        world
    }

    fn affinities(&self, node: &str) -> Vec<(Prefix, State)> {
        let under = Under::Affinities { node: Some(node.to_owned()), family: Family::V4 };
        let stored = self.store.list(&under).unwrap().stored;
        let row = |stored: crate::Stored| match stored.key {
            Key::Affinity { block, .. } => (block, State::of_value(&stored.value)),
            key => panic!("{key}"),
        };
        stored.into_iter().map(row).collect()
    }

    fn handle(&self, name: &str) -> Option<String> {
        self.store.get(&Key::Handle(name.to_owned())).ok().map(|stored| stored.value.to_string())
    }

    fn strict(&self, strict_affinity: bool) {
        let config = IpamConfig { strict_affinity, ..IpamConfig::initial() };
        self.ipam().set_config(&config).unwrap();
    }
}

fn request<'a>(node: &'a str, count: usize, handle: &'a str) -> AutoAssign<'a> {
    AutoAssign {
        count,
        family: Family::V4,
        node,
        handle: Some(handle),
        owner: BTreeMap::new(),
        pools: &[],
        namespace: BTreeMap::new(),
        usage: Use::Workload,
        max_blocks: 0,
    }
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn block_of(addr: IpAddr) -> Prefix {
    Prefix::new(addr, 30).unwrap()
}

#[test]
fn addresses_of_one_node_come_from_one_block_while_it_has_some() {
    let world = World::small();
    let ipam = world.ipam();
    let first = ipam.auto_assign(&request("node1", 3, "a")).unwrap();
    let second = ipam.auto_assign(&request("node1", 2, "b")).unwrap();
    assert_eq!((first.shortfall, second.shortfall), (None, None));
    let block = block_of(first.addresses[0]);
    assert!(first.addresses.iter().all(|addr| block.contains(*addr)));
    assert!(block.contains(second.addresses[0]) && !block.contains(second.addresses[1]));
    assert_eq!(world.affinities("node1").len(), 2);
    assert!(world.affinities("node1").iter().all(|(_, state)| *state == State::Confirmed));
    let counted =
        |addr: IpAddr, count| format!(r#"{{"block":{{"{}":{count}}},"deleted":false}}"#, block_of(addr));
    assert_eq!(world.handle("a"), Some(counted(first.addresses[0], 3)));
    assert_eq!(ipam.addresses_of("b").unwrap().len(), 2);
}

#[test]
fn nodes_have_blocks_of_their_own_and_borrow_when_there_are_no_more() {
    let world = World::small();
    let ipam = world.ipam();
    ipam.auto_assign(&request("node1", 13, "a")).unwrap();
    assert_eq!(world.affinities("node1").len(), 4);
    let borrowed = ipam.auto_assign(&request("node2", 4, "b")).unwrap();
    assert_eq!(borrowed.addresses.len(), 3);
    assert_eq!(
        borrowed.shortfall.as_deref(),
        Some("Assigned 3 out of 4 requested IPv4 addresses; No IPs available in pools: [10.0.0.0/28]")
    );
    assert_eq!(world.affinities("node2"), []);
}

#[test]
fn strict_affinity_forbids_borrowing() {
    let world = World::small();
    world.strict(true);
    let ipam = world.ipam();
    ipam.auto_assign(&request("node1", 13, "a")).unwrap();
    let none = ipam.auto_assign(&request("node2", 1, "b")).unwrap();
    assert!(none.addresses.is_empty());
    assert_eq!(
        none.shortfall.as_deref(),
        Some(
            "Assigned 0 out of 1 requested IPv4 addresses; No more free affine blocks and strict affinity enabled"
        )
    );
    let taken =
        Assign { addr: addr("10.0.0.1"), node: "node2", handle: None, owner: BTreeMap::new(), usage: None };
    assert!(matches!(ipam.assign(&taken), Err(IpamError::OtherAffinity { .. })));
}

#[test]
fn a_node_claims_no_more_blocks_than_it_may() {
    let world = World::small();
    let config = IpamConfig { strict_affinity: true, max_blocks_per_host: 2, ..IpamConfig::initial() };
    world.ipam().set_config(&config).unwrap();
    let ipam = world.ipam();
    assert_eq!(ipam.auto_assign(&request("node1", 8, "a")).unwrap().addresses.len(), 8);
    assert_eq!(ipam.auto_assign(&request("node1", 1, "b")), Err(IpamError::BlockLimit));
    ipam.release(&[Release::of(ipam.addresses_of("a").unwrap()[0])]).unwrap();
    assert_eq!(ipam.auto_assign(&request("node1", 2, "b")), Err(IpamError::BlockLimit));
    assert_eq!(world.handle("b"), None, "what a failed request got is given back");
    assert_eq!(ipam.auto_assign(&request("node1", 1, "b")).unwrap().addresses.len(), 1);
}

#[test]
fn blocks_are_claimed_by_themselves_only_where_that_is_asked_for() {
    let world = World::small();
    let config = IpamConfig { strict_affinity: true, auto_allocate_blocks: false, ..IpamConfig::initial() };
    world.ipam().set_config(&config).unwrap();
    let ipam = world.ipam();
    assert_eq!(ipam.auto_assign(&request("node1", 1, "a")), Err(IpamError::NoBlocks));
    let (claimed, taken) = ipam.claim_affinity(prefix("10.0.0.0/29"), "node1").unwrap();
    assert_eq!((claimed, taken), (vec![prefix("10.0.0.0/30"), prefix("10.0.0.4/30")], vec![]));
    assert_eq!(ipam.auto_assign(&request("node1", 8, "a")).unwrap().addresses.len(), 8);
    let (claimed, taken) = ipam.claim_affinity(prefix("10.0.0.0/30"), "node2").unwrap();
    assert_eq!((claimed, taken), (vec![], vec![prefix("10.0.0.0/30")]));
    assert_eq!(world.affinities("node2"), []);
}

#[test]
fn an_empty_block_is_taken_from_its_node_after_a_minute() {
    let world = World::small();
    world.strict(true);
    let ipam = world.ipam();
    ipam.auto_assign(&request("node1", 16, "a")).unwrap();
    ipam.release_by_handle("a").unwrap();
    ipam.auto_assign(&request("node1", 1, "b")).unwrap();
    world.wait(59);
    assert!(ipam.auto_assign(&request("node2", 1, "c")).unwrap().addresses.is_empty());
    world.wait(1);
    let taken = ipam.auto_assign(&request("node2", 16, "c")).unwrap();
    assert_eq!(taken.addresses.len(), 12, "all but the block that is in use");
    assert_eq!((world.affinities("node1").len(), world.affinities("node2").len()), (1, 3));
}

#[test]
fn reserved_addresses_are_not_assigned_by_themselves() {
    let world = World::small();
    world.put(
        ResourceKind::IpReservation,
        "r",
        json!({"spec": {"reservedCIDRs": ["10.0.0.0/29", "10.0.0.9"]}}),
    );
    let ipam = world.ipam();
    let assigned = ipam.auto_assign(&request("node1", 16, "a")).unwrap();
    assert_eq!(assigned.addresses.len(), 7);
    assert!(!assigned.addresses.contains(&addr("10.0.0.9")));
    let one =
        Assign { addr: addr("10.0.0.9"), node: "node1", handle: None, owner: BTreeMap::new(), usage: None };
    ipam.assign(&one).unwrap();
    let usage = ipam.utilization().unwrap();
    let PoolUsage { capacity, in_use, reserved, free, .. } = usage[0];
    assert_eq!((capacity, in_use, reserved, free), (16, 8, 9, 0));
}

#[test]
fn one_address_is_assigned_once() {
    let world = World::small();
    let ipam = world.ipam();
    let owner = BTreeMap::from([("note".to_owned(), "by hand".to_owned())]);
    let one = Assign { addr: addr("10.0.0.6"), node: "node1", handle: Some("h"), owner, usage: None };
    ipam.assign(&one).unwrap();
    assert_eq!(world.affinities("node1"), [(prefix("10.0.0.4/30"), State::Confirmed)]);
    assert_eq!(ipam.assign(&one), Err(IpamError::AlreadyAssigned(addr("10.0.0.6"))));
    let held = ipam.assignment(addr("10.0.0.6")).unwrap();
    assert_eq!((held.handle(), held.owner["note"].as_str()), (Some("h"), "by hand"));
    assert!(ipam.assignment(addr("10.0.0.7")).unwrap_err().is_not_found());
    assert!(ipam.assignment(addr("10.0.0.1")).unwrap_err().is_not_found(), "no block");
    assert!(ipam.assignment(addr("192.0.2.1")).unwrap_err().is_not_found(), "no pool");
    let elsewhere = Assign { addr: addr("192.0.2.1"), ..one.clone() };
    assert_eq!(ipam.assign(&elsewhere), Err(IpamError::NotInPool));
    world.pool("pool", json!({"cidr": "10.0.0.0/28", "blockSize": 30, "allowedUses": ["Workload"]}));
    let tunnel = Assign { addr: addr("10.0.0.7"), usage: Some(Use::Tunnel), ..one };
    assert!(matches!(ipam.assign(&tunnel), Err(IpamError::UseNotAllowed { .. })));
}

#[test]
fn what_is_released_is_counted_no_more() {
    let world = World::small();
    let ipam = world.ipam();
    let assigned = ipam.auto_assign(&request("node1", 6, "a")).unwrap().addresses;
    let released = ipam.release(&[Release::of(assigned[0]), Release::of(addr("10.9.9.9"))]).unwrap();
    assert_eq!(released.unassigned, [addr("10.9.9.9")]);
    let again = ipam.release(&[Release::of(assigned[0])]).unwrap();
    assert_eq!(again.unassigned, [assigned[0]]);
    assert_eq!(ipam.addresses_of("a").unwrap().len(), 5);
    ipam.release_by_handle("a").unwrap();
    assert_eq!(world.handle("a"), None);
    assert!(ipam.release_by_handle("a").unwrap_err().is_not_found());
    assert_eq!(world.affinities("node1").len(), 2, "empty blocks stay their node's");
}

#[test]
fn a_stale_release_is_refused() {
    let world = World::small();
    let ipam = world.ipam();
    let first = ipam.auto_assign(&request("node1", 1, "a")).unwrap().addresses[0];
    let block = ipam.blocks(Family::V4).unwrap().remove(0);
    let place = ordinal(block.cidr(), first).unwrap() as usize;
    let stale = Release {
        addr: first,
        handle: Some("a".to_owned()),
        sequence_number: Some(block.sequence_number_of(place)),
    };
    ipam.release(std::slice::from_ref(&stale)).unwrap();
    let anew = Assign { addr: first, node: "node1", handle: Some("b"), owner: BTreeMap::new(), usage: None };
    ipam.assign(&anew).unwrap();
    assert!(matches!(ipam.release(&[stale]), Err(IpamError::BadSequenceNumber { .. })));
    assert_eq!(ipam.addresses_of("b").unwrap(), [first]);
}

#[test]
fn an_address_in_cooldown_is_nobodys_and_not_free() {
    let world = World::small();
    world.ipam().set_config(&IpamConfig { ip_cooldown_seconds: 60, ..IpamConfig::initial() }).unwrap();
    let ipam = world.ipam();
    ipam.auto_assign(&request("node1", 16, "a")).unwrap();
    ipam.release_by_handle("a").unwrap();
    assert_eq!(world.handle("a"), None);
    assert_eq!(ipam.assignment(addr("10.0.0.0")), Err(IpamError::CoolingDown(addr("10.0.0.0"))));
    assert!(ipam.auto_assign(&request("node1", 1, "b")).unwrap().addresses.is_empty());
    world.wait(60);
    assert_eq!(ipam.auto_assign(&request("node1", 16, "b")).unwrap().addresses.len(), 16);
}

#[test]
fn a_block_is_given_up_with_its_last_address_where_the_pool_left_its_node() {
    let world = World::small();
    let ipam = world.ipam();
    ipam.auto_assign(&request("node1", 1, "a")).unwrap();
    world.pool("pool", json!({"cidr": "10.0.0.0/28", "blockSize": 30, "nodeSelector": "rack == '2'"}));
    assert_eq!(
        ipam.auto_assign(&request("node1", 1, "b")).unwrap_err().to_string(),
        "no configured Calico pools for node node1"
    );
    ipam.release_by_handle("a").unwrap();
    assert_eq!(world.affinities("node1"), []);
    assert_eq!(ipam.blocks(Family::V4).unwrap(), []);
}

#[test]
fn an_empty_block_of_a_pool_that_left_the_node_is_given_up_at_the_next_request() {
    let world = World::small();
    let ipam = world.ipam();
    ipam.auto_assign(&request("node1", 1, "a")).unwrap();
    ipam.release_by_handle("a").unwrap();
    world.pool("pool", json!({"cidr": "10.0.0.0/28", "blockSize": 30, "nodeSelector": "rack == '2'"}));
    world.pool("other", json!({"cidr": "10.1.0.0/28", "blockSize": 30}));
    let assigned = ipam.auto_assign(&request("node1", 1, "b")).unwrap().addresses;
    assert!(prefix("10.1.0.0/28").contains(assigned[0]));
    assert_eq!(world.affinities("node1").len(), 1);
}

#[test]
fn a_block_that_is_nobodys_goes_with_its_last_address() {
    let world = World::small();
    let ipam = world.ipam();
    let block = block_of(ipam.auto_assign(&request("node1", 1, "a")).unwrap().addresses[0]);
    ipam.release_host_affinities("node1", true).unwrap();
    assert_eq!(world.affinities("node1").len(), 1, "it isn't empty");
    ipam.release_affinity(block, "node1", false).unwrap();
    assert_eq!(world.affinities("node1"), []);
    assert_eq!(ipam.blocks(Family::V4).unwrap()[0].affinity(), None);
    ipam.release_by_handle("a").unwrap();
    assert_eq!(ipam.blocks(Family::V4).unwrap(), []);
}

#[test]
fn a_claim_that_was_left_half_done_is_taken_up() {
    for (state, block_there) in [
        (State::Pending, false),
        (State::Pending, true),
        (State::PendingDeletion, true),
        (State::PendingDeletion, false),
    ] {
        let world = World::small();
        let ipam = world.ipam();
        let cidr = prefix("10.0.0.8/30");
        world
            .store
            .create(&Key::Affinity { node: "node1".to_owned(), block: cidr }, &state.to_value())
            .unwrap();
        if block_there {
            let block = Block::of_node(cidr, "node1", SystemTime::UNIX_EPOCH);
            world.store.create(&Key::Block(cidr), &block.to_value()).unwrap();
        }
        let assigned = ipam.auto_assign(&request("node1", 1, "a")).unwrap().addresses;
        assert!(cidr.contains(assigned[0]));
        assert_eq!(world.affinities("node1"), [(cidr, State::Confirmed)]);
    }
}

#[test]
fn a_claim_of_anothers_block_is_forgotten() {
    let world = World::small();
    let ipam = world.ipam();
    let cidr = prefix("10.0.0.8/30");
    world
        .store
        .create(&Key::Affinity { node: "node1".to_owned(), block: cidr }, &State::Confirmed.to_value())
        .unwrap();
    let block = Block::of_node(cidr, "node2", SystemTime::UNIX_EPOCH);
    world.store.create(&Key::Block(cidr), &block.to_value()).unwrap();
    let assigned = ipam.auto_assign(&request("node1", 1, "a")).unwrap().addresses;
    assert!(!cidr.contains(assigned[0]));
    assert_eq!(world.affinities("node1").len(), 1);
}

#[test]
fn a_handle_that_counts_too_many_is_mended() {
    let world = World::small();
    let ipam = world.ipam();
    let assigned = ipam.auto_assign(&request("node1", 1, "a")).unwrap().addresses[0];
    let key = Key::Handle("a".to_owned());
    let there = world.store.get(&key).unwrap();
    let block = block_of(assigned).to_string();
    let counted = json!({"block": {block: 3, "10.0.0.0/30": 1, "10.0.0.12/30": 2}, "deleted": false});
    world.store.update(&key, &counted, there.revision).unwrap();
    ipam.release_by_handle("a").unwrap();
    assert_eq!(world.handle("a"), None);
}

#[test]
fn families_have_pools_and_blocks_of_their_own() {
    let world = World::small();
    world.pool("six", json!({"cidr": "fd5f:abcd:64::/48"}));
    let ipam = world.ipam();
    let six = AutoAssign { family: Family::V6, ..request("node1", 7, "a") };
    let assigned = ipam.auto_assign(&six).unwrap().addresses;
    assert!(assigned.iter().all(|addr| prefix("fd5f:abcd:64::/48").contains(*addr)));
    ipam.auto_assign(&request("node1", 2, "a")).unwrap();
    assert_eq!(ipam.addresses_of("a").unwrap().len(), 9);
    let usage = ipam.utilization().unwrap();
    assert_eq!(usage.len(), 3, "the last is for blocks without a pool");
    assert_eq!((usage[1].capacity, usage[1].in_use, usage[1].blocks[0].capacity), (1 << 80, 7, 64));
    ipam.release_by_handle("a").unwrap();
    assert!(ipam.blocks(Family::V6).unwrap()[0].is_empty());
}

#[test]
fn a_node_that_is_not_there_gets_nothing() {
    let world = World::small();
    let error = world.ipam().auto_assign(&request("node9", 1, "a")).unwrap_err();
    assert!(matches!(error, IpamError::Store(StoreError::NotFound(_))));
    assert_eq!(error.to_string(), "resource does not exist: Node(node9)");
}

#[test]
fn addresses_of_a_disabled_pool_are_still_released() {
    let world = World::small();
    let ipam = world.ipam();
    let assigned = ipam.auto_assign(&request("node1", 1, "a")).unwrap().addresses[0];
    world.pool("pool", json!({"cidr": "10.0.0.0/28", "blockSize": 30, "disabled": true}));
    assert_eq!(ipam.release(&[Release::of(assigned)]).unwrap(), Released::default());
    assert_eq!(world.handle("a"), None);
}
