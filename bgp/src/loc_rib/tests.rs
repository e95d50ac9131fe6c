use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::input::Rank;
use crate::interner::Interner;

fn key(number: u32) -> KeyV4 {
    KeyV4::new(Prefix::host(Ipv4Addr::from(number).into()))
}

fn path(interner: &mut Interner, source: u32) -> Path {
    let attributes = interner.intern(&[0, 0x40, 1, 1, 0]);
    Path {
        imported: attributes,
        source: Slot(source),
        path_id: 0,
        sent_id: 0,
        marks: 0,
        cohort: 0,
        rank: Rank::Peers,
    }
}

/// Decides everything, as far as this counts: what has no path is gone.
fn decide(table: &mut Table<KeyV4>) {
    while let Some((index, _)) = table.next_queued() {
        table.drop_if_empty(index);
    }
}

proptest! {
    /// Runs of prefixes come and go, in order and against it; places are given to others now and then.
    #[test]
    fn what_is_found_is_what_there_is(
        steps in prop::collection::vec((0u8..8, 0u32..60, 1u32..40, 0u32..3), 1..80)
    ) {
        let hasher = RandomState::with_seed(1);
        let (mut table, mut interner) = (Table::new(hasher.clone()), Interner::new(hasher));
        let mut expected: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (what, from, many, source) in steps {
            let mut numbers: Vec<u32> = (from..from + many).collect();
            if what % 2 == 0 {
                numbers.reverse();
            }
            let mut sought: Vec<_> = numbers.iter().map(|number| Sought::new(key(*number), 0)).collect();
            match what {
                0..=2 => {
                    table.seek(&mut sought);
                    if what == 0 {
                        table.place_all(&mut sought);
                    }
                    for (number, sought) in numbers.iter().zip(sought) {
                        table.insert(sought, path(&mut interner, source));
                        let sources = expected.entry(*number).or_default();
                        sources.retain(|other| *other != source);
                        sources.push(source);
                    }
                }
                3..=5 => {
                    table.seek(&mut sought);
                    for (number, sought) in numbers.iter().zip(sought) {
                        let sources = expected.entry(*number).or_default();
                        let was_there = sources.contains(&source);
                        sources.retain(|other| *other != source);
                        prop_assert_eq!(table.path(sought, Slot(source)).is_some(), was_there);
                        prop_assert_eq!(table.remove(sought, Slot(source)).is_some(), was_there);
                    }
                }
                6 => decide(&mut table),
                _ => {
                    decide(&mut table);
                    table.rehash(true);
                }
            }
        }
        decide(&mut table);
        expected.retain(|_, sources| !sources.is_empty());
        prop_assert_eq!(table.len(), expected.len());
        for number in 0..100 {
            let sources = table.get(key(number)).map(|entry| {
                let mut sources: Vec<u32> = entry.paths.as_slice().iter().map(|path| path.source.0).collect();
                sources.sort_unstable();
                sources
            });
            let expected = expected.get(&number).map(|sources| {
                let mut sources = sources.clone();
                sources.sort_unstable();
                sources
            });
            prop_assert_eq!(sources, expected, "{}", number);
        }
    }
}

/// A table that goes while more is to be done gives back what most of it took, and the rest when that is over.
#[test]
fn a_table_that_goes_is_not_walked_at_each_step() {
    let hasher = RandomState::with_seed(1);
    let (mut table, mut interner) = (Table::new(hasher.clone()), Interner::new(hasher));
    for number in 0..50_000 {
        let sought = table.seek_one(key(number), 0);
        table.insert(sought, path(&mut interner, 1));
    }
    let mut walks = 0;
    for number in 0..50_000 {
        let sought = table.seek_one(key(number), 0);
        table.remove(sought, Slot(1));
        decide(&mut table);
        let gone = table.gone;
        table.shrink_at_work();
        walks += usize::from(table.gone < gone);
        assert!(table.places.len() <= (1 + AT_WORK) * table.len() + SLACK + 1, "{number}");
    }
    assert!((1..=3).contains(&walks), "{walks}");
    table.shrink();
    assert_eq!((table.entries.capacity(), table.places.capacity()), (0, 0));
}

#[test]
fn a_large_table_that_has_gone_leaves_little_behind() {
    let hasher = RandomState::with_seed(1);
    let (mut table, mut interner) = (Table::new(hasher.clone()), Interner::new(hasher));
    for number in 0..50_000 {
        let sought = table.seek_one(key(number), 0);
        table.insert(sought, path(&mut interner, 1));
    }
    for number in 1..50_000 {
        let sought = table.seek_one(key(number), 0);
        table.remove(sought, Slot(1));
        decide(&mut table);
        table.shrink();
        assert!(table.places.len() <= 4 * table.len() + SLACK + 1, "{number}");
    }
    assert!(table.places.capacity() < 5_000);
    let sought = table.seek_one(key(0), 0);
    table.remove(sought, Slot(1));
    decide(&mut table);
    table.shrink();
    assert_eq!((table.entries.capacity(), table.places.capacity()), (0, 0));
}
