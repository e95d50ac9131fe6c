//! Sets held to what their givers give, however they come and go.

use std::collections::{BTreeMap, BTreeSet};

use model::{EndpointPort, Prefix, Protocol};
use proptest::prelude::*;

use super::{AddressSets, Addresses, Member, SetSpec};

fn nets(texts: &[&str]) -> Addresses {
    Addresses { nets: texts.iter().map(|text| text.parse().unwrap()).collect(), ports: Vec::new() }
}

fn everyone() -> SetSpec {
    SetSpec { selector: crate::Selector::all(), named_port: None }
}

fn net(text: &str) -> Member {
    Member::Net(text.parse().unwrap())
}

#[test]
fn a_network_within_a_wider_one_is_told_only_once_the_wider_one_is_gone() {
    let mut sets = AddressSets::default();
    let (id, _) = sets.acquire(everyone());
    let wide = nets(&["10.65.0.0/16", "10.65.1.0/24", "10.65.1.5/32", "10.65.2.0/24"]);
    sets.give(id, &wide, true);
    let changes = sets.changes();
    assert_eq!(changes.added.len(), 1);
    assert_eq!(changes.members[&id].added, [net("10.65.0.0/16")]);

    sets.give(id, &nets(&["10.65.0.0/16"]), false);
    let delta = sets.changes().members.remove(&id).unwrap();
    assert_eq!(delta.removed, [net("10.65.0.0/16")]);
    assert_eq!(delta.added, [net("10.65.1.0/24"), net("10.65.2.0/24")]);
}

#[test]
fn an_address_stays_until_its_last_giver_is_gone() {
    let mut sets = AddressSets::default();
    let (id, _) = sets.acquire(everyone());
    sets.give(id, &nets(&["10.0.0.1/32", "10.0.0.2/32"]), true);
    sets.give(id, &nets(&["10.0.0.2/32"]), true);
    sets.changes();
    sets.give(id, &nets(&["10.0.0.1/32", "10.0.0.2/32"]), false);
    let delta = sets.changes().members.remove(&id).unwrap();
    assert_eq!((delta.added, delta.removed), (vec![], vec![net("10.0.0.1/32")]));
}

#[test]
fn what_goes_and_comes_back_within_a_batch_is_not_told() {
    let mut sets = AddressSets::default();
    let (id, _) = sets.acquire(everyone());
    sets.give(id, &nets(&["10.0.0.1/32"]), true);
    sets.changes();
    sets.give(id, &nets(&["10.0.0.1/32"]), false);
    sets.give(id, &nets(&["10.0.0.1/32"]), true);
    assert_eq!(sets.changes(), Default::default());
}

#[test]
fn a_set_is_gone_with_its_last_reference_and_its_number_rests_for_a_batch() {
    let mut sets = AddressSets::default();
    let (id, is_new) = sets.acquire(everyone());
    assert!(is_new);
    assert_eq!(sets.acquire(everyone()), (id, false));
    sets.changes();
    assert!(!sets.release(id));
    assert!(sets.release(id));
    let (other, _) = sets.acquire(everyone());
    assert_ne!(other, id);
    assert_eq!(sets.changes().removed, [id].into());
    assert!(sets.release(other));
    sets.changes();
    assert_eq!(sets.acquire(everyone()).0, id);
}

#[test]
fn a_named_port_is_at_every_address_of_those_who_name_it() {
    let mut sets = AddressSets::default();
    let named_port = Some((Protocol::TCP, "http".to_owned()));
    let (id, _) = sets.acquire(SetSpec { named_port, ..everyone() });
    let port = |protocol, port| EndpointPort { name: "http".to_owned(), protocol, port };
    let mut who = nets(&["10.0.0.1/32", "fd00::1/128"]);
    who.ports = vec![port(Protocol::TCP, 80), port(Protocol::TCP, 8080), port(Protocol::UDP, 80)];
    sets.give(id, &who, true);
    let at = |net: &str, port| Member::Port { net: net.parse().unwrap(), protocol: Protocol::TCP.0, port };
    let all = [at("10.0.0.1", 80), at("10.0.0.1", 8080), at("fd00::1", 80), at("fd00::1", 8080)];
    assert_eq!(sets.members(id).collect::<Vec<_>>(), all);
    assert!(sets.contains_port(id, "fd00::1".parse().unwrap(), Protocol::TCP.0, 80));
    assert!(!sets.contains(id, "fd00::1".parse().unwrap()));
}

proptest! {
    /// Givers of few networks close together come and go; now and then changes are asked for.
    #[test]
    fn what_was_told_is_always_the_fewest_networks_with_the_same_addresses(
        acts in prop::collection::vec((0u8..4, prop::collection::vec((0u8..16, 0u8..=4), 0..3), prop::bool::ANY), 1..40),
    ) {
        let mut sets = AddressSets::default();
        let (id, _) = sets.acquire(everyone());
        let mut givers: BTreeMap<u8, Addresses> = BTreeMap::new();
        let mut told: BTreeSet<Member> = BTreeSet::new();
        for (giver, given, ask) in acts {
            let given = given.iter().map(|(bits, len)| Prefix::new([10, 0, 0, bits << 4].into(), 24 + len).unwrap());
            let given = Addresses { nets: given.collect(), ports: Vec::new() };
            if let Some(old) = givers.insert(giver, given.clone()) {
                sets.give(id, &old, false);
            }
            sets.give(id, &given, true);
            if ask && let Some(delta) = sets.changes().members.remove(&id) {
                for member in delta.removed {
                    prop_assert!(told.remove(&member));
                }
                for member in delta.added {
                    prop_assert!(told.insert(member));
                }
                let all: BTreeSet<Prefix> = givers.values().flat_map(|giver| giver.nets.clone()).collect();
                let is_held = |net: &Prefix| all.iter().any(|wide| wide != net && wide.covers(*net));
                let fewest: BTreeSet<Member> = all.iter().filter(|net| !is_held(net)).map(|net| Member::Net(*net)).collect();
                prop_assert_eq!(&told, &fewest);
                prop_assert_eq!(&sets.members(id).collect::<BTreeSet<_>>(), &fewest);
                for last in 0..=255u8 {
                    let addr = [10, 0, 0, last].into();
                    prop_assert_eq!(sets.contains(id, addr), all.iter().any(|net| net.contains(addr)));
                }
            }
        }
    }
}
