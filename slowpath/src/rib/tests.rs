use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::neighborhood::NEIGHBORS;
use super::*;
use crate::target::Gateway;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn via(last: u8) -> Target {
    Target::via(vec![Gateway::at(IpAddr::from([192, 0, 2, last]))]).unwrap()
}

#[test]
fn the_preferred_source_wins_and_the_next_takes_over_when_it_goes() {
    let mut rib = Rib::default();
    rib.insert(prefix("10.0.0.0/8"), Source::Kernel, &via(1), 0);
    rib.insert(prefix("10.0.0.0/8"), Source::Bgp, &via(2), 0);
    assert_eq!(rib.get(prefix("10.0.0.0/8")).unwrap().source, Source::Bgp);
    assert_eq!((rib.count(Source::Bgp), rib.count(Source::Kernel)), (1, 0));
    rib.remove(prefix("10.0.0.0/8"), Source::Bgp);
    assert_eq!(rib.get(prefix("10.0.0.0/8")).unwrap().source, Source::Kernel);
    rib.remove(prefix("10.0.0.0/8"), Source::Kernel);
    assert!(rib.is_empty());
    assert!(rib.targets().is_empty());
}

#[test]
fn only_a_changed_winner_is_reported() {
    let mut rib = Rib::default();
    rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(1), 0);
    let changed = rib.take_changed();
    rib.changes_told(changed);
    rib.insert(prefix("10.0.0.0/8"), Source::Bgp, &via(2), 0);
    rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(1), 0);
    assert!(!rib.has_changed());
    rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(3), 0);
    assert_eq!(rib.take_changed().len(), 1);
}

#[test]
fn a_route_of_bgps_that_is_gone_waits_for_its_turn_and_no_other_does() {
    let mut rib = Rib::default();
    let places = [1, 2, 3].map(|net| {
        let prefix = Prefix::new([10, net, 0, 0].into(), 16).unwrap();
        rib.insert(prefix, Source::Bgp, &via(1), 0);
        rib.place(prefix)
    });
    rib.insert(prefix("10.3.0.0/16"), Source::Kernel, &via(2), 0);
    rib.insert(prefix("10.4.0.0/16"), Source::Workload, &Target::Local, 0);
    let settle = |rib: &mut Rib| {
        let changed = rib.take_changed();
        rib.changes_told(changed);
    };
    settle(&mut rib);
    for prefix in ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].map(prefix) {
        rib.remove(prefix, Source::Bgp);
    }
    assert_eq!((rib.take_changed(), rib.gone()), (vec![places[2]], 2), "another route takes its place");
    rib.changes_told(vec![places[2]]);
    rib.remove(prefix("10.4.0.0/16"), Source::Workload);
    assert_eq!(rib.take_changed(), [rib.place(prefix("10.4.0.0/16"))]);

    // The first comes back before its turn.
    rib.insert(prefix("10.1.0.0/16"), Source::Bgp, &via(2), 0);
    assert_eq!(rib.take_changed(), [places[0]]);
    rib.changes_told(vec![places[0]]);
    rib.vacate();
    assert_eq!(rib.at(places[1]), (prefix("10.2.0.0/16"), None), "its place is still its own");
    assert_eq!(rib.take_gone(1), [], "it is back");
    assert_eq!(rib.take_gone(9), [places[1]]);
    rib.gone_told(&[places[1]]);
    rib.vacate();
    rib.insert(prefix("10.5.0.0/16"), Source::Bgp, &via(1), 0);
    assert_eq!(rib.place(prefix("10.5.0.0/16")), places[1], "its place is another's");

    // One that goes again and again is there once.
    rib.remove(prefix("10.1.0.0/16"), Source::Bgp);
    rib.insert(prefix("10.1.0.0/16"), Source::Bgp, &via(2), 0);
    rib.remove(prefix("10.1.0.0/16"), Source::Bgp);
    assert_eq!(rib.take_gone(9), [places[0]]);
}

#[test]
fn a_place_stays_its_prefixs_until_it_has_no_route_and_nobody_holds_it() {
    let mut rib = Rib::default();
    let settle = |rib: &mut Rib| {
        let changed = rib.take_changed();
        rib.changes_told(changed);
        let gone = rib.take_gone(1);
        rib.gone_told(&gone);
    };
    rib.insert(prefix("10.0.0.0/8"), Source::Bgp, &via(1), 0);
    let place = rib.place(prefix("10.0.0.0/8"));
    rib.hold(place);
    rib.remove(prefix("10.0.0.0/8"), Source::Bgp);
    settle(&mut rib);
    rib.insert(prefix("10.1.0.0/16"), Source::Bgp, &via(1), 0);
    assert_ne!(rib.place(prefix("10.1.0.0/16")), place, "it is held");
    assert_eq!(rib.at(place), (prefix("10.0.0.0/8"), None));
    rib.vacate();
    assert_eq!(rib.at(place), (prefix("10.0.0.0/8"), None), "it still is");
    rib.let_go(place);
    assert_eq!(rib.place(prefix("10.0.0.0/8")), place, "it may come back");
    rib.vacate();
    rib.insert(prefix("10.2.0.0/16"), Source::Bgp, &via(1), 0);
    assert_eq!(rib.place(prefix("10.2.0.0/16")), place);
    assert_eq!(rib.get(prefix("10.0.0.0/8")), None);
}

#[test]
fn a_large_table_that_has_gone_leaves_no_memory_behind() {
    let mut rib = Rib::default();
    rib.insert(prefix("10.0.0.0/8"), Source::Static, &via(1), 0);
    let many: Vec<Prefix> =
        (0..50_000u32).map(|n| Prefix::new(IpAddr::V4((n << 8).into()), 24).unwrap()).collect();
    many.iter().for_each(|prefix| rib.insert(*prefix, Source::Bgp, &via(2), 0));
    let changed = rib.take_changed();
    rib.changes_told(changed);
    many.iter().for_each(|prefix| rib.remove(*prefix, Source::Bgp));
    let gone = rib.take_gone(many.len());
    rib.gone_told(&gone);
    rib.shrink();
    assert!(rib.entries.capacity() < 5_000 && rib.places.capacity() < 10_000);
    many.iter().for_each(|prefix| rib.insert(*prefix, Source::Bgp, &via(2), 0));
    assert_eq!(rib.len(), 50_001);
}

#[test]
fn the_longest_prefix_covers() {
    let mut rib = Rib::default();
    rib.insert(prefix("0.0.0.0/0"), Source::Static, &via(1), 0);
    rib.insert(prefix("10.65.0.0/26"), Source::Block, &Target::Blackhole, 0);
    let found = rib.covering("10.65.0.9".parse().unwrap(), |_, _| true).unwrap();
    assert_eq!(found.0, prefix("10.65.0.0/26"));
    let found = rib.covering("10.65.0.9".parse().unwrap(), |_, offer| offer.source == Source::Static);
    assert_eq!(found.unwrap().0, prefix("0.0.0.0/0"));
    assert_eq!(rib.covering("::1".parse().unwrap(), |_, _| true), None);
}

#[test]
fn the_first_by_prefix_are_found_among_any_number() {
    let target = TargetId(1);
    let offer = Offer { source: Source::Bgp, target, metric: 0 };
    // Every address of a /20 once, in an order that is none.
    let winner = |n: u32| {
        let host = IpAddr::from((0x0a00_0000 + n * 2731 % 4096).to_be_bytes());
        (Prefix::host(host), offer)
    };
    for most in [0, 1, 700, 4096, 5000] {
        let (first, all) = first_of((0..4096).map(winner), most);
        let expected = (0..4096u32).map(|n| Prefix::host(IpAddr::from((0x0a00_0000 + n).to_be_bytes())));
        assert_eq!(all, 4096);
        assert!(first.iter().map(|(prefix, _)| *prefix).eq(expected.take(most)), "{most}");
    }
}

#[test]
fn neighbours_lie_side_by_side_and_are_told_apart() {
    let rib = Rib::default();
    let of = |text: &str| hash(&rib.hasher, prefix(text));
    let many = [prefix("10.65.64.0/18"), prefix("2001:db8:40::/42")].map(|around| {
        let (bits, len) = (if around.addr().is_ipv4() { 32 } else { 128 }, around.len());
        let inside = (1..=NEIGHBORS).flat_map(move |more| (0..1u128 << more).map(move |n| (more, n)));
        let inside = inside.map(move |(more, n)| {
            let addr = match around.addr() {
                IpAddr::V4(addr) => {
                    IpAddr::V4((addr.to_bits() | (n as u32) << (bits - u32::from(len + more))).into())
                }
                IpAddr::V6(addr) => IpAddr::V6((addr.to_bits() | n << (bits - u32::from(len + more))).into()),
            };
            Prefix::new(addr, len + more).unwrap()
        });
        inside.collect::<Vec<_>>()
    });
    for neighbors in many {
        let hashes: Vec<u64> = neighbors.iter().map(|prefix| hash(&rib.hasher, *prefix)).collect();
        let low = |hash: &u64| hash & (u64::MAX >> 7);
        let first = hashes.iter().map(low).min().unwrap();
        let mut places: Vec<u64> = hashes.iter().map(|hash| low(hash) - first).collect();
        assert!(places.iter().all(|place| *place < 126), "{places:?}");
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 126);
        let tags: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        assert_eq!(tags.len(), 126);
    }
    assert_ne!(of("0.0.0.0/0"), of("::/0"));
}

proptest! {
    /// Whatever the order of offers and withdrawals, the winner is the preferred one of those that stand.
    #[test]
    fn the_winner_depends_on_what_stands_alone(
        steps in prop::collection::vec((0usize..Source::ALL.len(), 0u8..4, any::<bool>()), 1..60)
    ) {
        let mut rib = Rib::default();
        let mut standing: BTreeMap<Source, u8> = Default::default();
        for (source, gateway, offered) in steps {
            let source = Source::ALL[source];
            if offered {
                rib.insert(prefix("10.0.0.0/8"), source, &via(gateway), 0);
                standing.insert(source, gateway);
            } else {
                rib.remove(prefix("10.0.0.0/8"), source);
                standing.remove(&source);
            }
            let expected = standing.iter().max_by_key(|(source, _)| source.preference());
            let found = rib.get(prefix("10.0.0.0/8"));
            prop_assert_eq!(found.map(|offer| offer.source), expected.map(|(source, _)| *source));
            let target = found.and_then(|offer| rib.targets().get(offer.target)).cloned();
            prop_assert_eq!(target, expected.map(|(_, gateway)| via(*gateway)));
            prop_assert_eq!(Source::ALL.iter().map(|s| rib.count(*s)).sum::<usize>(), rib.len());
        }
    }

    /// Whatever comes, goes, is held and swept away, of both families: what is found is what there is, and a place that is
    /// held stays the prefix's.
    #[test]
    fn what_is_found_is_what_there_is(
        steps in prop::collection::vec((0u8..12, 0u8..40, 0u32..3), 1..300)
    ) {
        let of = |number: u8| -> Prefix {
            let (net, len) = (number / 2 % 4, number / 8);
            match number % 2 {
                0 => Prefix::new(IpAddr::from([10, net, 0, 0]), 16 + len).unwrap(),
                _ => Prefix::new(IpAddr::from([0x2001, 0xdb8, net.into(), 0, 0, 0, 0, 0]), 48 + len).unwrap(),
            }
        };
        let mut rib = Rib::default();
        let mut standing: BTreeMap<Prefix, BTreeMap<Source, u32>> = BTreeMap::new();
        let mut held: BTreeMap<Prefix, Place> = BTreeMap::new();
        for (what, number, metric) in steps {
            let prefix = of(number);
            match what {
                0..=3 => {
                    let source = [Source::Bgp, Source::Kernel][usize::from(what % 2)];
                    rib.insert(prefix, source, &via(1), metric);
                    standing.entry(prefix).or_default().insert(source, metric);
                }
                4..=7 => {
                    let source = [Source::Bgp, Source::Kernel][usize::from(what % 2)];
                    rib.remove(prefix, source);
                    standing.entry(prefix).or_default().remove(&source);
                }
                8 => {
                    let place = rib.place(prefix);
                    rib.hold(place);
                    prop_assert_eq!(*held.entry(prefix).or_insert(place), place);
                }
                9 => {
                    if let Some(place) = held.remove(&prefix) {
                        rib.let_go(place);
                    }
                }
                10 => {
                    let changed = rib.take_changed();
                    rib.changes_told(changed);
                    let gone = rib.take_gone(usize::from(metric as u8 % 4));
                    prop_assert!(gone.iter().all(|place| rib.at(*place).1.is_none()));
                    rib.gone_told(&gone);
                }
                _ => rib.vacate(),
            }
            for (prefix, place) in &held {
                prop_assert_eq!(rib.at(*place), (*prefix, rib.get(*prefix)));
            }
        }
        let mut found = Vec::new();
        // As neighbours, there and back.
        rib.seek_all((0..40).chain((0..40).rev()).map(of), &mut found);
        for sought in found {
            let prefix = sought.prefix();
            let offers = standing.get(&prefix).cloned().unwrap_or_default();
            let best = offers.iter().max_by_key(|(source, _)| source.preference());
            let there = sought.place.and_then(|place| rib.entries.best(place));
            prop_assert_eq!(there, rib.get(prefix));
            prop_assert_eq!(there.map(|offer| (offer.source, offer.metric)), best.map(|(s, m)| (*s, *m)));
            let all: BTreeMap<Source, u32> = rib.offers(prefix).map(|offer| (offer.source, offer.metric)).collect();
            prop_assert_eq!(all, offers);
        }
        let prefixes = standing.iter().filter(|(_, offers)| !offers.is_empty()).map(|(prefix, _)| *prefix);
        prop_assert_eq!(rib.iter().map(|(prefix, _)| prefix).collect::<BTreeSet<_>>(), prefixes.collect());
    }
}
