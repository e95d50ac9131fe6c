//! Readers on other threads while the writer changes the table without pause.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use lpm::{Key, Limits, Lookup, NO_ROUTE, Table, Value};

/// Routes that the writer puts in and takes out, longest last, all of them around one address: every change takes or
/// gives what the reader asks for.
const LENS: [u8; 9] = [0, 8, 15, 18, 19, 24, 25, 30, 32];
const ROUNDS: u64 = 30_000;
/// Addresses in a batch: as many as are answered together, and some by themselves.
const BATCH: usize = 64 + 3;

/// The writer's clock and the readers' quiescent states, as the tables room keeps them.
struct Epochs {
    /// Step number: odd while a change is being made, even between changes.
    step: AtomicU64,
    /// What each reader has passed.
    passed: [AtomicU64; 2],
    stop: AtomicBool,
}

/// What a value says: the length of its prefix, and, where it is to be large, the step at which it was stored.
fn value(step: u64, len: u8, large: bool) -> Value {
    if large { ((step % (1 << 24)) as Value) << 8 | Value::from(len) } else { len.into() }
}

/// Is the value of a prefix of this length to be large?
type IsLarge = fn(u8) -> bool;

/// Which prefixes of the chain are present is written in the step's number, so that every answer can be judged: at
/// step n, a route is absent where its bit in n/2 is set (in Gray code: one change a step). The longest route has the
/// lowest bit and changes most often; a default route touches the whole root.
fn present(step: u64, route: usize) -> bool {
    let number = step / 2;
    (number ^ number >> 1) >> (LENS.len() - 1 - route) & 1 == 0
}

fn expected_len(step: u64) -> Option<u8> {
    (0..LENS.len()).rev().find(|route| present(step, *route)).map(|route| LENS[route])
}

/// Lets the readers stop, also where the writer failed.
struct StopOnDrop<'a>(&'a Epochs);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// Lets the writer free everything, also where the reader failed: it would wait for ever for room.
struct PassOnDrop<'a>(&'a AtomicU64);

impl Drop for PassOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(u64::MAX, Ordering::SeqCst);
    }
}

impl Epochs {
    /// Frees what every reader has passed. A reader that has passed step n began its present look-ups after it: what
    /// was replaced up to n is free.
    fn retire<K: Key>(&self, table: &mut Table<K>) {
        let step = self.step.load(Ordering::SeqCst);
        let safe = self.passed.iter().map(|passed| passed.load(Ordering::SeqCst)).fold(step, u64::min);
        table.retire(step, safe);
    }
}

/// An answer must be that of a state that was current at some time between two readings of the clock.
fn judge(answer: Option<Value>, before: u64, after: u64) {
    let answer = answer.map(|value| value as u8);
    let mut states = (before / 2..=after.div_ceil(2)).map(|state| expected_len(state * 2));
    assert!(
        states.any(|state| state == answer),
        "answered {answer:?} between steps {before} and {after}, where it was {:?} and became {:?}",
        expected_len(before),
        expected_len(after)
    );
}

fn ask<K: Key>(lookup: &Lookup<K>, key: K, epochs: &Epochs, reader: usize) -> u64 {
    let _pass = PassOnDrop(&epochs.passed[reader]);
    let mut asked = 0;
    while !epochs.stop.load(Ordering::Relaxed) {
        epochs.passed[reader].store(epochs.step.load(Ordering::SeqCst), Ordering::SeqCst);
        for _ in 0..16 {
            let before = epochs.step.load(Ordering::SeqCst);
            let answer = lookup.lookup(key);
            judge(answer, before, epochs.step.load(Ordering::SeqCst));
            let (mut answers, before) = ([0; BATCH], epochs.step.load(Ordering::SeqCst));
            lookup.lookup_batch(&[key; BATCH], &mut answers);
            let after = epochs.step.load(Ordering::SeqCst);
            for answer in answers {
                judge(Some(answer).filter(|answer| *answer != NO_ROUTE), before, after);
            }
            asked += 1;
        }
    }
    asked
}

fn churn<K: Key>(table: &mut Table<K>, addr: K, epochs: &Epochs, scale: u8, is_large: IsLarge) {
    let _stop = StopOnDrop(epochs);
    for change in 1..=ROUNDS {
        let (old, new) = ((change - 1) * 2, change * 2);
        let route = (0..LENS.len()).find(|route| present(old, *route) != present(new, *route));
        epochs.step.fetch_add(1, Ordering::SeqCst);
        if let Some(route) = route {
            let len = LENS[route] * scale;
            if present(new, route) {
                // Where a reader sleeps (more threads than cores), its blocks pile up until there is no room.
                while table.insert(addr, len, value(new, LENS[route], is_large(LENS[route]))).is_err() {
                    thread::yield_now();
                    epochs.retire(table);
                }
            } else {
                assert!(table.remove(addr, len).is_some());
            }
        }
        epochs.step.fetch_add(1, Ordering::SeqCst);
        epochs.retire(table);
    }
}

fn check<K: Key>(addr: K, scale: u8, is_large: IsLarge) {
    // Room for a handful of routes and little more, so that blocks are reused at once.
    let mut table = Table::new(Limits { max_routes: 16, max_nodes: 1 << 14, max_leaves: 1 << 14 });
    for len in LENS {
        table.insert(addr, len * scale, value(0, len, is_large(len))).unwrap();
    }
    let epochs = Epochs {
        step: AtomicU64::new(0),
        passed: [AtomicU64::new(0), AtomicU64::new(0)],
        stop: AtomicBool::new(false),
    };
    let lookups = [table.reader(), table.reader().portable()];
    let asked = thread::scope(|scope| {
        let readers: Vec<_> = lookups
            .iter()
            .enumerate()
            .map(|(reader, lookup)| {
                let epochs = &epochs;
                scope.spawn(move || ask(lookup, addr, epochs, reader))
            })
            .collect();
        churn(&mut table, addr, &epochs, scale, is_large);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });
    println!("{asked} answers during {ROUNDS} changes");
    assert!(asked > 0);
}

#[test]
fn ipv4_readers_see_the_table_before_or_after_each_change() {
    check(0x0a41_0007u32, 1, |_| true);
    check(0x0a41_0007u32, 1, |_| false);
    check(0x0a41_0007u32, 1, |len| len % 2 == 0);
}

#[test]
fn ipv6_readers_see_the_table_before_or_after_each_change() {
    check(0xfd00_0065_u128 << 96 | 7, 4, |_| true);
}
