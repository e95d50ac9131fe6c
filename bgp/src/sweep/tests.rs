use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ahash::RandomState;
use model::Prefix;

use super::*;
use crate::input::Rank;
use crate::interner::Interner;
use crate::key::KeyV4;
use crate::path::{Path, Slot};
use crate::rewrite::Rewrite;

const PREFIXES: u32 = 1000;

fn key(number: u32) -> KeyV4 {
    KeyV4::new(Prefix::host(Ipv4Addr::from(number).into()))
}

fn nexthop(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number % 10).into()
}

/// Prefixes by ten next hops in turn, of which none waits to be decided.
fn table() -> Table<KeyV4> {
    let hasher = RandomState::with_seed(1);
    let (mut table, mut interner) = (Table::new(hasher.clone()), Interner::new(hasher));
    for number in 0..PREFIXES {
        let mut attributes = Vec::new();
        Rewrite::default().write(Some(nexthop(number)), &mut attributes);
        let attributes = interner.intern(&attributes);
        let path = Path {
            imported: attributes,
            source: Slot(1),
            path_id: 0,
            sent_id: 0,
            marks: 0,
            cohort: 0,
            rank: Rank::Peers,
        };
        let sought = table.seek_one(key(number), 0);
        table.insert(sought, path);
    }
    queued(&mut table);
    table
}

fn queued(table: &mut Table<KeyV4>) -> Vec<KeyV4> {
    std::iter::from_fn(|| table.next_queued().map(|(_, entry)| entry.key)).collect()
}

#[test]
fn all_that_have_moved_are_looked_for_at_once_and_none_is_forgotten() {
    let (mut table, mut sweep) = (table(), Sweep::default());
    let of = |moved: &[u32]| -> BTreeSet<KeyV4> {
        (0..PREFIXES).filter(|number| moved.contains(&(number % 10))).map(key).collect()
    };
    for moved in [1, 2, 3] {
        sweep.add(nexthop(moved));
    }
    let mut again = Vec::new();
    for look in 0..10 {
        assert!(!sweep.is_idle());
        sweep.go_on(&mut table, 100);
        let found = queued(&mut table);
        assert_eq!(found.len(), 30, "a portion of the table");
        again.extend(found);
        if look == 4 {
            // One that was looked for and moves once more, and another: for both all of the table counts.
            sweep.add(nexthop(1));
            sweep.add(nexthop(7));
        }
    }
    assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), of(&[1, 2, 3]));
    assert!(!sweep.is_idle());
    sweep.go_on(&mut table, 5000);
    assert_eq!(queued(&mut table).into_iter().collect::<BTreeSet<_>>(), of(&[1, 7]));
    assert!(sweep.is_idle());
    sweep.go_on(&mut table, 5000);
    assert!(!table.has_queued());
}
