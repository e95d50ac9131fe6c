//! Millions of changes: what is left is what the same routes take in a table of their own. A debug build makes fewer.

use lpm::{Key, Limits, NO_ROUTE, Table, Value};

mod numbers;

use numbers::Numbers;

const ROUTES: usize = 50_000;
const CHANGES: usize = if cfg!(debug_assertions) { 200_000 } else { 3_000_000 };
/// How far readers are behind the writer, in changes.
const LAG: u64 = 100;

fn check<K: Key>(routes: Vec<(K, u8)>) {
    let mut numbers = Numbers(3);
    let mut table = Table::new(Limits::for_routes(routes.len() as u32));
    let value = |numbers: &mut Numbers| match numbers.below(8) {
        // Now and then one that is its own only.
        0 => 70_000 + numbers.below(20_000) as Value,
        _ => numbers.below(100) as Value,
    };
    for change in 0..CHANGES {
        let (addr, len) = routes[numbers.below(routes.len())];
        if numbers.below(2) == 0 {
            table.remove(addr, len);
        } else {
            table.insert(addr, len, value(&mut numbers)).unwrap();
        }
        table.retire(change as u64, (change as u64).saturating_sub(LAG));
    }
    table.compact();
    table.retire(u64::MAX, u64::MAX);
    let left: Vec<_> = table.iter().collect();
    let mut fresh = Table::new(Limits::for_routes(routes.len() as u32));
    for (addr, len, value) in left.iter().rev() {
        fresh.insert(*addr, *len, *value).unwrap();
        fresh.retire(1, 1);
    }
    assert_eq!(table.usage(), fresh.usage(), "changes must not cost memory");
    let keys: Vec<K> = routes.iter().map(|(addr, _)| *addr).collect();
    let (mut answers, mut expected) = (vec![0; keys.len()], vec![0; keys.len()]);
    table.reader().lookup_batch(&keys, &mut answers);
    fresh.reader().lookup_batch(&keys, &mut expected);
    assert_eq!(answers, expected);
    for (key, answer) in keys.iter().zip(answers) {
        assert_eq!(table.longest_match(*key).map_or(NO_ROUTE, |(_, _, value)| value), answer, "{key:x?}");
    }
}

/// Lengths as on the internet, and some longer: half of them around a hundred places.
fn len(numbers: &mut Numbers, scale: u8) -> u8 {
    let lens =
        [8, 15, 16, 17, 18, 19, 20, 21, 22, 22, 23, 23, 24, 24, 24, 24, 24, 25, 26, 28, 30, 31, 32, 32];
    lens[numbers.below(lens.len())] * scale
}

#[test]
fn ipv4_changes_leave_no_trace() {
    let mut numbers = Numbers(1);
    let route = |_| {
        let len = len(&mut numbers, 1);
        let bits = numbers.next();
        let addr = if bits >> 63 == 0 {
            bits as u32
        } else {
            (bits as u32 % 100) << 24 | (bits >> 32) as u32 & 0x3fff
        };
        (addr.masked(len), len)
    };
    check::<u32>((0..ROUTES).map(route).collect());
}

#[test]
fn ipv6_changes_leave_no_trace() {
    let mut numbers = Numbers(2);
    let route = |_| {
        let len = len(&mut numbers, 4);
        let (high, low) = (numbers.next(), numbers.next());
        let addr =
            u128::from(if high >> 63 == 0 { high } else { (high % 100) << 48 }) << 64 | u128::from(low);
        (addr.masked(len), len)
    };
    check::<u128>((0..ROUTES).map(route).collect());
}
