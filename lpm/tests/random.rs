//! Random changes, held to the oracle after each.

use lpm::{Full, Key, Limits, NO_ROUTE, Naive, Table, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt::Debug;

/// A key that tests can move about in.
trait TestKey: Key + Arbitrary + Debug {
    /// An address near one of a few places, so that prefixes nest and share paths.
    fn near(place: u8, offset: u8, tail: u16) -> Self;
    fn last_of(self, len: u8) -> Self;
    fn successor(self) -> Self;
    fn predecessor(self) -> Self;
}

macro_rules! test_key {
    ($type:ty) => {
        impl TestKey for $type {
            fn near(place: u8, offset: u8, tail: u16) -> Self {
                let bits = <$type>::BITS;
                let place = <$type>::from(place % 5) << (bits - 12);
                place | <$type>::from(offset % 4) << (bits / 2) | <$type>::from(tail)
            }
            fn last_of(self, len: u8) -> Self {
                self | <$type>::MAX.checked_shr(len.into()).unwrap_or(0)
            }
            fn successor(self) -> Self {
                self.wrapping_add(1)
            }
            fn predecessor(self) -> Self {
                self.wrapping_sub(1)
            }
        }
    };
}

test_key!(u32);
test_key!(u128);

#[derive(Clone, Copy, Debug)]
enum Step<K> {
    Insert(K, u8, Value),
    /// Removes the route of this number, counted round, or an absent one.
    Remove(usize),
    /// Removes so many that lie next to each other at once, forwards or backwards.
    RemoveRun {
        first: usize,
        count: usize,
        backwards: bool,
    },
    Retire,
}

fn prefixes<K: TestKey>() -> impl Strategy<Value = (K, u8)> {
    let addr = prop_oneof![
        8 => (any::<u8>(), any::<u8>(), any::<u16>()).prop_map(|(a, b, c)| K::near(a, b, c)),
        1 => any::<K>(),
    ];
    (addr, 0..=K::BITS).prop_map(|(addr, len)| (addr.masked(len), len))
}

/// Of IPv4, so near to each other that most share a slot of the root, and some a group.
fn neighbours() -> impl Strategy<Value = (u32, u8)> {
    let len = prop_oneof![8 => 19u8..=24, 2 => 16u8..=18, 1 => 25u8..=32];
    (any::<u16>(), len).prop_map(|(bits, len)| ((u32::from(bits) & 0x7f03).masked(len), len))
}

fn steps<K: TestKey>(prefixes: impl Strategy<Value = (K, u8)>) -> impl Strategy<Value = Vec<Step<K>>> {
    let value =
        prop_oneof![0..4u32, Just(Value::MAX - 1), any::<Value>().prop_map(|v| v.min(Value::MAX - 1))];
    let step = prop_oneof![
        6 => (prefixes, value).prop_map(|((addr, len), value)| Step::Insert(addr, len, value)),
        4 => any::<usize>().prop_map(Step::Remove),
        1 => (any::<usize>(), 2..40usize, any::<bool>())
            .prop_map(|(first, count, backwards)| Step::RemoveRun { first, count, backwards }),
        1 => Just(Step::Retire),
    ];
    vec(step, 1..120)
}

/// Both tables, and every prefix there ever was: its edges are what to ask about.
struct Pair<K: TestKey> {
    table: Table<K>,
    naive: Naive<K>,
    seen: Vec<(K, u8)>,
    epoch: u64,
}

impl<K: TestKey> Pair<K> {
    fn new(limits: Limits) -> Self {
        Pair { table: Table::new(limits), naive: Naive::new(), seen: Vec::new(), epoch: 0 }
    }

    fn take(&mut self, step: Step<K>) -> Result<(), Full> {
        match step {
            Step::Insert(addr, len, value) => {
                self.seen.push((addr, len));
                let replaced = self.table.insert(addr, len, value)?;
                assert_eq!(replaced, self.naive.insert(addr, len, value));
            }
            Step::Remove(number) if !self.seen.is_empty() => {
                let (addr, len) = self.seen[number % self.seen.len()];
                assert_eq!(self.table.remove(addr, len), self.naive.remove(addr, len));
            }
            Step::RemoveRun { first, count, backwards } if !self.seen.is_empty() => {
                self.remove_run(first, count, backwards);
            }
            Step::Remove(_) | Step::RemoveRun { .. } => {}
            Step::Retire => self.retire(),
        }
        Ok(())
    }

    /// Meanwhile an address may be answered as before any of the removals, and as soon as they are over as after all.
    fn remove_run(&mut self, first: usize, count: usize, backwards: bool) {
        let mut prefixes = self.seen.clone();
        prefixes.sort();
        let first = first % prefixes.len();
        let mut run = prefixes[first..prefixes.len().min(first + count)].to_vec();
        if backwards {
            run.reverse();
        }
        let keys: Vec<K> = run.iter().flat_map(|(addr, len)| [*addr, addr.last_of(*len)]).collect();
        let lookup = self.table.reader();
        let mut allowed: Vec<Vec<_>> = keys.iter().map(|key| vec![self.naive.lookup(*key)]).collect();
        let mut removing = self.table.removing();
        for (addr, len) in run {
            assert_eq!(removing.remove(addr, len), self.naive.remove(addr, len));
            for (key, allowed) in keys.iter().zip(&mut allowed) {
                allowed.push(self.naive.lookup(*key));
                assert!(allowed.contains(&lookup.lookup(*key)), "{key:x?}");
            }
        }
        drop(removing);
        for key in keys {
            assert_eq!(lookup.lookup(key), self.naive.lookup(key), "{key:x?}");
        }
    }

    fn retire(&mut self) {
        self.epoch += 1;
        self.table.retire(self.epoch, self.epoch);
    }

    fn check(&self, more: &[K]) {
        let edges = self.seen.iter().flat_map(|&(addr, len)| {
            [addr, addr.predecessor(), addr.last_of(len), addr.last_of(len).successor()]
        });
        let keys: Vec<K> = edges.chain(more.iter().copied()).collect();
        let lookup = self.table.reader();
        let (mut batch, mut portable) = (vec![0; keys.len()], vec![0; keys.len()]);
        lookup.lookup_batch(&keys, &mut batch);
        lookup.clone().portable().lookup_batch(&keys, &mut portable);
        assert_eq!(batch, portable);
        for (key, answer) in keys.into_iter().zip(batch) {
            let expected = self.naive.longest_match(key);
            assert_eq!(lookup.lookup(key), expected.map(|(_, _, value)| value), "{key:x?}");
            assert_eq!(answer, expected.map_or(NO_ROUTE, |(_, _, value)| value), "{key:x?} in a batch");
            assert_eq!(self.table.longest_match(key), expected, "{key:x?} in the store");
        }
        for &(addr, len) in &self.seen {
            assert_eq!(self.table.get(addr, len), self.naive.get(addr, len));
            let covering = self.naive.iter().filter(|(a, l, _)| *l < len && addr.masked(*l) == *a);
            assert_eq!(self.table.covering(addr, len), covering.max_by_key(|(_, l, _)| *l));
        }
        assert!(self.table.iter().eq(self.naive.iter()));
        assert_eq!(self.table.len(), self.naive.len());
    }

    /// Memory in use after this history is what the same routes take when inserted afresh, in another order.
    fn check_no_leak(&mut self) {
        self.table.compact();
        self.retire();
        let mut fresh = Table::new(Limits::for_routes(1000));
        let mut routes: Vec<_> = self.naive.iter().collect();
        routes.reverse();
        for (addr, len, value) in &routes {
            fresh.insert(*addr, *len, *value).unwrap();
        }
        fresh.retire(1, 1);
        assert_eq!(self.table.usage(), fresh.usage());
    }

    fn remove_all(&mut self) {
        for (addr, len, value) in self.naive.iter().collect::<Vec<_>>() {
            assert_eq!(self.table.remove(addr, len), Some(value));
        }
        self.table.compact();
        self.retire();
        let usage = self.table.usage();
        assert_eq!((usage.routes, usage.nodes, usage.leaves, usage.retired_blocks), (0, 0, 0, 0));
    }
}

fn check_steps<K: TestKey>(steps: Vec<Step<K>>, more: &[K]) {
    let mut pair = Pair::new(Limits::for_routes(1000));
    for (number, step) in steps.into_iter().enumerate() {
        pair.take(step).unwrap();
        if number % 8 == 0 {
            pair.check(more);
        }
    }
    pair.check(more);
    pair.check_no_leak();
    pair.remove_all();
}

/// With far too little room some inserts fail, and then nothing may have changed.
fn check_full<K: TestKey>(steps: Vec<Step<K>>, more: &[K]) {
    let mut pair = Pair::new(Limits { max_routes: 25, max_nodes: 64, max_leaves: 64 });
    for step in steps {
        let before = pair.table.usage();
        if pair.take(step).is_err() {
            assert_eq!(pair.table.usage(), before);
        }
        pair.check(more);
    }
    pair.retire();
    pair.check(more);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn ipv4_tables_answer_as_the_oracle_does(steps in steps(prefixes::<u32>()), more: [u32; 8]) {
        check_steps(steps, &more);
    }

    #[test]
    fn ipv6_tables_answer_as_the_oracle_does(steps in steps(prefixes::<u128>()), more: [u128; 8]) {
        check_steps(steps, &more);
    }

    #[test]
    fn ipv4_routes_next_to_each_other_go_together(steps in steps(neighbours()), more: [u16; 8]) {
        check_steps(steps, &more.map(u32::from));
    }

    #[test]
    fn a_full_ipv4_table_stays_as_it_was(steps in steps(prefixes::<u32>()), more: [u32; 4]) {
        check_full(steps, &more);
    }

    #[test]
    fn a_full_ipv6_table_stays_as_it_was(steps in steps(prefixes::<u128>()), more: [u128; 4]) {
        check_full(steps, &more);
    }
}

#[test]
fn the_room_promised_for_any_routes_is_enough() {
    // The dearest routes: hosts far from each other, so that each has a path of its own, and nests all the way down.
    fn check<K: TestKey>(routes: impl Iterator<Item = (K, u8)>) {
        let routes: Vec<_> = routes.collect();
        let mut table = Table::new(Limits::for_routes(routes.len() as u32));
        for (number, (addr, len)) in routes.into_iter().enumerate() {
            table.insert(addr, len, 0).unwrap();
            table.retire(number as u64, number as u64);
        }
    }
    let scattered = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    check::<u32>((0..100_000).map(|n| (scattered(n) as u32, 32)));
    check::<u128>((0..100_000).map(|n| (u128::from(scattered(n)) << 64 | u128::from(scattered(!n)), 128)));
    check::<u128>(
        (0..100_000).map(|n| (u128::from(scattered(n / 129)) << 64 | u128::from(n / 129), (n % 129) as u8)),
    );
}
