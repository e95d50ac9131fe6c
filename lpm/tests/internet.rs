//! A real internet table: answers against an oracle that shares nothing with the engine, before and after churn.
//!
//! A debug build takes every tenth prefix.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use lpm::{Key, Limits, NO_ROUTE, Table, Value};

mod numbers;

use numbers::Numbers;

/// The table's prefixes, or `None` and a line that says why there are none.
fn prefixes() -> Option<Vec<(IpAddr, u8)>> {
    let data = std::env::var_os("TORTIE_DATA").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path = data.unwrap_or_else(beside).join("internet-prefixes.txt.gz");
    let Ok(bytes) = std::fs::read(&path) else {
        println!("skipped: no {}: set TORTIE_DATA to the folder that holds it", path.display());
        return None;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    let every = if cfg!(debug_assertions) { 10 } else { 1 };
    let prefix = |line: &str| {
        let (addr, len) = line.split_once('/').unwrap();
        (addr.parse().unwrap(), len.parse().unwrap())
    };
    Some(text.lines().step_by(every).map(prefix).collect())
}

/// One map a length: the answer is found by asking for ever shorter prefixes.
struct ByLength<K>(Vec<HashMap<K, Value>>);

impl<K: Key + Hash> ByLength<K> {
    fn new() -> Self {
        ByLength((0..=K::BITS).map(|_| HashMap::new()).collect())
    }

    fn lookup(&self, addr: K) -> Option<Value> {
        let lengths = self.0.iter().enumerate().rev().filter(|(_, routes)| !routes.is_empty());
        lengths.flat_map(|(len, routes)| routes.get(&addr.masked(len as u8))).next().copied()
    }
}

fn check<K: Key + Hash>(routes: &[(K, u8)], any_key: impl Fn(&mut Numbers) -> K) {
    let mut numbers = Numbers(1);
    let mut table = Table::new(Limits::for_routes(routes.len() as u32));
    let mut oracle = ByLength::new();
    for &(addr, len) in routes {
        let value = numbers.below(1000) as Value;
        table.insert(addr, len, value).unwrap();
        oracle.0[usize::from(len)].insert(addr, value);
        table.retire(1, 1);
    }
    let loaded = table.usage();
    println!("IPv{}: {loaded:?}", if K::BITS == 32 { 4 } else { 6 });
    compare(&table, &oracle, routes, &any_key, &mut numbers);

    // Every third route goes, half of those come back with another value; then all the first values are restored.
    let gone: Vec<_> = routes.iter().step_by(3).collect();
    let mut first = Vec::new();
    for &&(addr, len) in &gone {
        first.push(table.remove(addr, len).unwrap());
        oracle.0[usize::from(len)].remove(&addr);
        table.retire(2, 2);
    }
    for &&(addr, len) in gone.iter().rev().step_by(2) {
        table.insert(addr, len, 5000).unwrap();
        table.retire(2, 2);
        oracle.0[usize::from(len)].insert(addr, 5000);
    }
    compare(&table, &oracle, routes, &any_key, &mut numbers);
    for (&&(addr, len), value) in gone.iter().zip(first) {
        table.insert(addr, len, value).unwrap();
        oracle.0[usize::from(len)].insert(addr, value);
        table.retire(2, 2);
    }
    compare(&table, &oracle, routes, &any_key, &mut numbers);
    assert_eq!(table.usage(), loaded, "churn must not cost memory");
}

fn compare<K: Key + Hash>(
    table: &Table<K>,
    oracle: &ByLength<K>,
    routes: &[(K, u8)],
    any_key: &impl Fn(&mut Numbers) -> K,
    numbers: &mut Numbers,
) {
    let lookup = table.reader();
    let (mut keys, mut answers) = (Vec::new(), Vec::new());
    for round in 0..200_000 {
        let any = any_key(numbers);
        let key = if round % 8 == 0 {
            any
        } else {
            // A random address inside a prefix of the table.
            let (addr, len) = routes[numbers.below(routes.len())];
            let [high, low] = any.to_words();
            let [route_high, route_low] = addr.to_words();
            let [rest_high, rest_low] = any.masked(len).to_words();
            K::from_words([route_high | (high ^ rest_high), route_low | (low ^ rest_low)])
        };
        let expected = oracle.lookup(key);
        assert_eq!(lookup.lookup(key), expected, "{key:x?}");
        assert_eq!(table.longest_match(key).map(|(_, _, value)| value), expected, "{key:x?}");
        keys.push(key);
        answers.push(expected.unwrap_or(NO_ROUTE));
    }
    // Batches of every size up to 150.
    let (mut keys, mut answers, mut out) = (&keys[..], &answers[..], [0; 150]);
    for size in (1..=150).cycle() {
        if size > keys.len() {
            break;
        }
        for lookup in [lookup.clone(), lookup.clone().portable()] {
            lookup.lookup_batch(&keys[..size], &mut out);
            assert_eq!(out[..size], answers[..size]);
        }
        (keys, answers) = (&keys[size..], &answers[size..]);
    }
}

#[test]
fn a_full_internet_table_answers_as_maps_by_length_do() {
    let Some(prefixes) = prefixes() else { return };
    let mut v4: Vec<(u32, u8)> = Vec::new();
    let mut v6: Vec<(u128, u8)> = Vec::new();
    for (addr, len) in prefixes {
        match addr {
            IpAddr::V4(addr) => v4.push((addr.into(), len)),
            IpAddr::V6(addr) => v6.push((addr.into(), len)),
        }
    }
    check(&v4, |numbers| numbers.next() as u32);
    check(&v6, |numbers| 1 << 125 | u128::from(numbers.next()) << 61 | u128::from(numbers.next()));
}
