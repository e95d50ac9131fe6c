use std::collections::VecDeque;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const CIDR: &str = "10.65.79.0/29";

fn cidr() -> Prefix {
    CIDR.parse().unwrap()
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + seconds)
}

fn of_handle(handle: &str) -> Attributes {
    Attributes { handle: Some(handle.to_owned()), ..Attributes::default() }
}

fn addr(place: usize) -> IpAddr {
    nth(cidr(), place as u128)
}

fn assign(block: &mut Block, count: usize, handle: &str) -> Vec<IpAddr> {
    block.auto_assign(count, &of_handle(handle), "node1", false, &Reservations::default()).unwrap()
}

#[test]
fn a_new_block_is_stored_as_calico_stores_it() {
    let block = Block::of_node("10.65.79.0/30".parse().unwrap(), "node1", at(0));
    assert_eq!(
        block.to_value().to_string(),
        r#"{"cidr":"10.65.79.0/30","affinity":"host:node1","affinity_claim_time":"2026-01-01T00:00:00Z","#
            .to_owned()
            + r#""allocations":[null,null,null,null],"unallocated":[0,1,2,3],"attributes":null,"#
            + r#""sequenceNumber":1767225600000000000,"sequenceNumberForAllocation":{},"deleted":false}"#
    );
}

#[test]
fn a_block_with_allocations_is_stored_as_calico_stores_it() {
    let mut block = Block::of_node("10.65.79.0/30".parse().unwrap(), "node1", at(0));
    let owner = BTreeMap::from([("type".to_owned(), "ipipTunnelAddress".to_owned())]);
    let tunnel = Attributes { owner, ..of_handle("ipip-tunnel-addr-node1") };
    block.assign("10.65.79.1".parse().unwrap(), &tunnel, "node1", false).unwrap();
    block.count_write();
    let text = block.to_value().to_string();
    assert_eq!(
        text,
        r#"{"cidr":"10.65.79.0/30","affinity":"host:node1","affinity_claim_time":"2026-01-01T00:00:00Z","#
            .to_owned()
            + r#""allocations":[null,0,null,null],"unallocated":[0,2,3],"#
            + r#""attributes":[{"handle_id":"ipip-tunnel-addr-node1","secondary":{"type":"ipipTunnelAddress"}}],"#
            + r#""sequenceNumber":1767225600000000001,"sequenceNumberForAllocation":{"1":1767225600000000000},"#
            + r#""deleted":false}"#
    );
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(Block::from_value(&read).unwrap(), block);
}

#[test]
fn what_other_versions_of_calico_write_is_read() {
    let old = json!({
        "cidr": "10.65.79.0/30", "hostAffinity": "node7", "strictAffinity": false,
        "allocations": [0, null, null, 0], "unallocated": [1, 2],
        "attributes": [{"handle_id": "h\r\nline", "secondary": null}]
    });
    let block = Block::from_value(&old).unwrap();
    assert_eq!(block.node(), Some("node7"));
    assert_eq!(block.age(at(0)), Duration::MAX);
    assert_eq!(block.addresses_of("h").len(), 2);
    assert_eq!(block.sequence_number_of(0), 0);
    assert_eq!(block.to_value()["affinity"], json!("host:node7"));
    assert_eq!(block.to_value().get("hostAffinity"), None);

    let nobodys = json!({"cidr": "fd00::/126", "affinity": null, "allocations": [null, null, null, null],
        "unallocated": [0, 1, 2, 3], "attributes": null, "deleted": false});
    let block = Block::from_value(&nobodys).unwrap();
    assert_eq!((block.affinity(), block.is_empty()), (None, true));
}

#[test]
fn what_is_no_block_is_refused() {
    for (value, why) in [
        (json!({}), "cidr"),
        (json!({"cidr": "x"}), "prefix"),
        (json!({"cidr": "10.0.0.0/8", "allocations": []}), "too large"),
        (json!({"cidr": "10.0.0.0/30", "allocations": [null]}), "4 addresses, and 1 allocations"),
    ] {
        let reason = Block::from_value(&value).unwrap_err();
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn an_address_that_somebody_has_is_not_free_whatever_the_queue_says() {
    let value = json!({"cidr": "10.0.0.0/30", "affinity": "host:node1", "allocations": [0, null, null, null],
        "unallocated": [0, 9, 1], "attributes": [{"handle_id": "h"}]});
    let mut block = Block::from_value(&value).unwrap();
    assert_eq!(block.free(&Reservations::default()), 1);
    assert_eq!(assign(&mut block, 4, "x"), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn the_address_that_has_been_free_for_longest_is_next() {
    let mut block = Block::of_node(cidr(), "node1", at(0));
    assert_eq!(assign(&mut block, 2, "a"), [addr(0), addr(1)]);
    block.release(&[Release::of(addr(0))], Duration::ZERO, at(1)).unwrap();
    assert_eq!(assign(&mut block, 7, "b"), [addr(2), addr(3), addr(4), addr(5), addr(6), addr(7), addr(0)]);
    assert!(assign(&mut block, 1, "c").is_empty());
}

#[test]
fn a_stale_release_changes_nothing() {
    let mut block = Block::of_node(cidr(), "node1", at(0));
    assign(&mut block, 1, "old");
    let number = block.sequence_number_of(0);
    let release = Release { addr: addr(0), handle: Some("old".to_owned()), sequence_number: Some(number) };
    block.count_write();
    block.release(std::slice::from_ref(&release), Duration::ZERO, at(1)).unwrap();
    block.assign(addr(0), &of_handle("new"), "node1", false).unwrap();
    let before = block.clone();
    let error = block.release(std::slice::from_ref(&release), Duration::ZERO, at(2)).unwrap_err();
    assert_eq!(
        error,
        IpamError::BadSequenceNumber { addr: addr(0), requested: number, expected: number + 1 }
    );
    let by_handle = Release { sequence_number: None, ..release };
    let error = block.release(&[Release::of(addr(0)), by_handle], Duration::ZERO, at(2)).unwrap_err();
    assert!(matches!(error, IpamError::BadHandle { .. }), "{error}");
    assert_eq!(block, before, "all or nothing");
}

#[test]
fn an_address_cools_down_before_it_is_free() {
    let cooldown = Duration::from_secs(30);
    let mut block = Block::of_node(cidr(), "node1", at(0));
    assign(&mut block, 1, "a");
    let (_, given) = block.release(&[Release::of(addr(0))], cooldown, at(10)).unwrap();
    assert_eq!(given, BTreeMap::from([("a".to_owned(), 1)]));
    assert!(!block.is_empty() && block.holder(addr(0)).is_some_and(|row| !row.is_held()));
    assert_eq!(block.to_value()["attributes"], json!([{"releasedAt": "2026-01-01T00:00:10Z"}]));
    let (unassigned, _) = block.release(&[Release::of(addr(0))], cooldown, at(20)).unwrap();
    assert_eq!(unassigned, [addr(0)], "it is given back already");
    assert!(!block.collect(cooldown, at(39)));
    assert!(block.collect(cooldown, at(40)));
    assert!(block.is_empty());
    assert_eq!(block.unallocated().last(), Some(&0));
}

#[test]
fn strict_affinity_keeps_others_out() {
    let mut block = Block::of_node(cidr(), "node1", at(0));
    let none = Reservations::default();
    let error = block.auto_assign(1, &of_handle("a"), "node2", true, &none).unwrap_err();
    assert_eq!(error.to_string(), "Block affinity (host:node1) does not match provided (node2:host)");
    block.drop_affinity();
    let error = block.assign(addr(0), &of_handle("a"), "node1", true).unwrap_err();
    assert_eq!(error.to_string(), "Attempt to assign from block 10.65.79.0/29 with no affinity");
    assert_eq!(block.auto_assign(1, &of_handle("a"), "node2", false, &none).unwrap().len(), 1);
}

#[test]
fn addresses_that_windows_keeps_leave_a_block_empty() {
    let mut block = Block::of_node(cidr(), "node1", at(0));
    assign(&mut block, 1, "Windows-Reserved-IPAM-Handle");
    assert!(block.is_empty());
    assign(&mut block, 1, "a");
    assert!(!block.is_empty());
}

#[test]
fn a_broken_block_is_named_in_calicoctls_words() {
    let broken =
        |allocations: serde_json::Value, unallocated: serde_json::Value, attributes: serde_json::Value| {
            let value = json!({"cidr": "10.0.0.0/30", "allocations": allocations, "unallocated": unallocated,
            "attributes": attributes});
            Block::from_value(&value).unwrap().validate(at(0)).unwrap_err()
        };
    let free = json!([null, null, null, null]);
    let one = json!([{"handle_id": "a"}]);
    assert_eq!(
        broken(json!([99, null, null, null]), json!([1, 2, 3]), json!([])),
        "allocation 0 indexes a nonexistent attribute 99"
    );
    assert_eq!(
        broken(free.clone(), json!([0, 1, 2, 3]), one.clone()),
        "attribute index 0 exists but is not indexed by an allocation"
    );
    assert_eq!(
        broken(
            json!([0, null, null, null]),
            json!([1, 2, 3]),
            json!([{"releasedAt": "2026-01-01T00:01:00Z"}])
        ),
        "attribute index 0 has releasedAt in the future, suggesting clock skew"
    );
    assert_eq!(
        broken(free.clone(), json!([0, 1, 1, 2, 3]), json!([])),
        "ordinal 1 appears more than once in Unallocated array"
    );
    assert_eq!(
        broken(json!([null, 0, null, null]), json!([0, 1, 2, 3]), one.clone()),
        "ordinal 1 is allocated but appears in Unallocated"
    );
    assert_eq!(
        broken(free, json!([0, 2, 3, 99]), json!([])),
        "ordinal 99 appears in the Unallocated array but is out of the block"
    );
    assert_eq!(
        broken(json!([null, 0, 0, null]), json!([0]), one),
        "expected 4 addresses in this block, but Unallocated (1) + Allocated (2) = 3"
    );
}

/// What a block is, at its slowest: what became of each address, and a queue.
#[derive(Debug, Default)]
struct Model {
    held: BTreeMap<usize, (String, u64)>,
    cooling: BTreeMap<usize, u64>,
    free: VecDeque<usize>,
}

#[derive(Clone, Debug)]
enum Act {
    Auto(usize, usize),
    Assign(usize, usize),
    Release(Vec<(usize, bool, bool)>),
    ByHandle(usize),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0usize..5, 0usize..3).prop_map(|(count, handle)| Act::Auto(count, handle)),
        (0usize..9, 0usize..3).prop_map(|(place, handle)| Act::Assign(place, handle)),
        prop::collection::vec((0usize..8, any::<bool>(), any::<bool>()), 1..4).prop_map(Act::Release),
        (0usize..3).prop_map(Act::ByHandle),
        (0u64..20).prop_map(Act::Wait),
    ]
}

impl Model {
    fn collect(&mut self, cooldown: u64, now: u64) {
        let cooled: Vec<usize> = self
            .cooling
            .iter()
            .filter(|(_, since)| now >= *since + cooldown)
            .map(|(place, _)| *place)
            .collect();
        for place in cooled {
            self.cooling.remove(&place);
            self.free.push_back(place);
        }
    }

    fn cool(&mut self, places: &[usize], cooldown: u64, now: u64) {
        for place in places {
            self.held.remove(place);
            self.cooling.insert(*place, now);
        }
        self.collect(cooldown, now);
    }
}

proptest! {
    #[test]
    fn a_block_does_what_the_slow_model_does(
        acts in prop::collection::vec(act(), 1..40),
        cooldown in prop_oneof![Just(0u64), Just(10)],
        reserved in prop_oneof![Just(None), (0usize..8).prop_map(Some)],
    ) {
        let handle = |number: usize| format!("h{number}");
        let reservations: Reservations = reserved.map(|place| Prefix::host(addr(place))).into_iter().collect();
        let wait = Duration::from_secs(cooldown);
        let mut now = 0;
        let mut block = Block::of_node(cidr(), "node1", at(0));
        let mut model = Model { free: (0..8).collect(), ..Model::default() };
        for act in acts {
            match act {
                Act::Auto(count, number) => {
                    let attributes = of_handle(&handle(number));
                    let got = block.auto_assign(count, &attributes, "node1", true, &reservations).unwrap();
                    let next: Vec<usize> =
                        model.free.iter().copied().filter(|place| Some(*place) != reserved).take(count).collect();
                    model.free.retain(|place| !next.contains(place));
                    prop_assert_eq!(got, next.iter().map(|place| addr(*place)).collect::<Vec<_>>());
                    let stamp = block.sequence_number();
                    model.held.extend(next.into_iter().map(|place| (place, (handle(number), stamp))));
                }
                Act::Assign(place, number) => {
                    let outcome = block.assign(addr(place), &of_handle(&handle(number)), "node1", true);
                    let free = model.free.contains(&place);
                    prop_assert_eq!(outcome.is_ok(), free);
                    if free {
                        model.free.retain(|free| *free != place);
                        model.held.insert(place, (handle(number), block.sequence_number()));
                    }
                }
                Act::Release(asked) => {
                    let asked: Vec<Release> = asked.into_iter().map(|(place, by_handle, stale)| {
                        let number = block.sequence_number_of(place);
                        let handle = model.held.get(&place).map(|(handle, _)| handle.clone());
                        Release {
                            addr: addr(place),
                            handle: handle.filter(|_| by_handle),
                            sequence_number: stale.then_some(number + 1),
                        }
                    }).collect();
                    let outcome = block.release(&asked, wait, at(now));
                    let stale = asked.iter().any(|release| release.sequence_number.is_some());
                    prop_assert_eq!(outcome.is_err(), stale);
                    if !stale {
                        let places: Vec<usize> = asked.iter().filter_map(|release| block.place(release.addr)).collect();
                        let held: Vec<usize> =
                            places.into_iter().filter(|place| model.held.contains_key(place)).collect();
                        model.cool(&held, cooldown, now);
                    }
                }
                Act::ByHandle(number) => {
                    let name = handle(number);
                    let held: Vec<usize> =
                        model.held.iter().filter(|(_, (held, _))| *held == name).map(|(place, _)| *place).collect();
                    prop_assert_eq!(block.release_by_handle(&name, wait, at(now)), held.len());
                    model.cool(&held, cooldown, now);
                }
                Act::Wait(seconds) => {
                    now += seconds;
                    block.collect(wait, at(now));
                    model.collect(cooldown, now);
                }
            }
            block.count_write();
            prop_assert_eq!(block.validate(at(now)), Ok(()));
            prop_assert_eq!(block.unallocated(), model.free.make_contiguous());
            for place in 0..8 {
                let held = block.holder(addr(place)).filter(|row| row.is_held());
                let held = held.map(|row| (row.handle().unwrap().to_owned(), block.sequence_number_of(place)));
                prop_assert_eq!(held, model.held.get(&place).cloned());
            }
            let text = block.to_value().to_string();
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(Block::from_value(&read).unwrap().to_value().to_string(), text);
        }
    }
}
