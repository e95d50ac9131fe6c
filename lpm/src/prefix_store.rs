//! The writer's own list of prefixes: what was inserted, exactly, and what covers what.
//!
//! Prefixes that end within the same byte of an address lie on one *shelf*, found by the bytes before it: there are 510
//! such places, a bit for each, and values in the order of the places. A place's number is 1, then the prefix's bits in
//! that byte; so what covers it on its shelf are the same number's halves. To find what covers a prefix is to ask for a
//! shelf a byte, from the longest on, and mostly the first or the second one knows.

use std::array;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};

use ahash::RandomState;

use crate::{Key, Value};

/// Bits of an address that one shelf is about.
const SHELF_BITS: u8 = 8;
/// Bytes of an address, at most.
const BYTES: usize = 16;

/// Prefixes, found by their bits.
#[derive(Debug)]
pub struct PrefixStore<K> {
    shelves: Vec<Shelf<K>>,
    /// Which of them it is.
    numbers: HashMap<ShelfKey<K>, u32, RandomState>,
    /// Those without a prefix.
    free: Vec<u32>,
    /// The one that was asked for last, for each number of bytes: neighbours mostly come together. Any number is right, as a
    /// shelf knows what leads to it.
    latest: [AtomicU32; BYTES],
    /// The prefix of no bits lies on no shelf.
    default: Option<Value>,
    len: usize,
}

/// The bits that lead to a shelf, and how many bytes these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShelfKey<K>(K, u8);

impl<K: Key> ShelfKey<K> {
    /// What leads to no shelf.
    const NONE: ShelfKey<K> = ShelfKey(K::ZERO, u8::MAX);
}

impl<K: Key> Hash for ShelfKey<K> {
    /// As words: what is derived hashes bytes.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [first, second] = self.0.to_words();
        // At least a byte's bits don't lead there: they are zero, and these have room for the number of bytes.
        let bytes = u64::from(self.1);
        if K::BITS <= 64 {
            state.write_u64(first ^ bytes);
        } else {
            state.write_u64(first);
            state.write_u64(second ^ bytes);
        }
    }
}

/// Prefixes that have all but the bits of one byte in common, and end in that byte.
#[derive(Debug)]
struct Shelf<K> {
    key: ShelfKey<K>,
    taken: [u64; 8],
    values: Values,
}

/// What the prefixes of a shelf have.
#[derive(Debug)]
enum Values {
    /// All the same, as those of one peer mostly do.
    AllOf(Value),
    /// Each its own, in the order of the places.
    Each(Vec<Value>),
}

impl<K: Key> Shelf<K> {
    fn has(&self, place: usize) -> bool {
        self.taken[place / 64] >> (place % 64) & 1 != 0
    }

    fn set(&mut self, place: usize, is_taken: bool) {
        let bit = 1 << (place % 64);
        let word = &mut self.taken[place / 64];
        *word = if is_taken { *word | bit } else { *word & !bit };
    }

    fn is_empty(&self) -> bool {
        // Word by word: one that has just been written can't be read together with others until it has reached the cache.
        self.taken.iter().all(|word| *word == 0)
    }

    /// Is a place taken by a prefix inside that of this one? With each bit more there are twice as many, next to each other.
    fn has_within(&self, place: usize) -> bool {
        (1..=SHELF_BITS).map_while(|bits| (place << bits < 512).then_some((place << bits, 1 << bits))).any(
            |(first, count): (usize, usize)| {
                if count >= 64 {
                    self.taken[first / 64..][..count / 64].iter().any(|word| *word != 0)
                } else {
                    self.taken[first / 64] >> (first % 64) & ((1 << count) - 1) != 0
                }
            },
        )
    }

    fn len(&self) -> usize {
        self.taken.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn get(&self, place: usize) -> Option<Value> {
        if !self.has(place) {
            return None;
        }
        match &self.values {
            Values::AllOf(value) => Some(*value),
            Values::Each(values) => values.get(index(&self.taken, place)).copied(),
        }
    }

    /// Gives a place a value; the one that it had.
    fn put(&mut self, place: usize, value: Value) -> Option<Value> {
        let old = self.get(place);
        if let Values::AllOf(all) = self.values
            && all != value
        {
            self.values = match self.is_empty() {
                true => Values::AllOf(value),
                false => Values::Each(vec![all; self.len()]),
            };
        }
        match &mut self.values {
            Values::AllOf(_) => {}
            Values::Each(values) if old.is_some() => values[index(&self.taken, place)] = value,
            Values::Each(values) => values.insert(index(&self.taken, place), value),
        }
        self.set(place, true);
        old
    }

    fn take(&mut self, place: usize) -> Option<Value> {
        if !self.has(place) {
            return None;
        }
        let old = match &mut self.values {
            Values::AllOf(value) => *value,
            Values::Each(values) => values.remove(index(&self.taken, place)),
        };
        self.set(place, false);
        Some(old)
    }
}

/// Where among the values of those taken the place's is, or would be.
fn index(taken: &[u64; 8], place: usize) -> usize {
    let (word, bit) = (place / 64, place % 64);
    let before: u32 = taken[..word].iter().map(|word| word.count_ones()).sum();
    (before + (taken[word] & ((1 << bit) - 1)).count_ones()) as usize
}

/// Where a prefix of `len` bits, at least one, lies: the key of its shelf, and its place there.
fn find<K: Key>(addr: K, len: u8) -> (ShelfKey<K>, usize) {
    let above = (len - 1) / SHELF_BITS * SHELF_BITS;
    let bits = len - above;
    (ShelfKey(addr.masked(above), above / SHELF_BITS), 1 << bits | addr.bits(above, bits))
}

impl<K: Key> PrefixStore<K> {
    pub(crate) fn new() -> PrefixStore<K> {
        PrefixStore {
            shelves: Vec::new(),
            numbers: HashMap::default(),
            free: Vec::new(),
            latest: array::from_fn(|_| AtomicU32::new(0)),
            default: None,
            len: 0,
        }
    }

    /// Which shelf a key leads to.
    fn number(&self, key: ShelfKey<K>) -> Option<u32> {
        let latest = &self.latest[usize::from(key.1)];
        let number = latest.load(Ordering::Relaxed);
        if self.shelves.get(number as usize).is_some_and(|shelf| shelf.key == key) {
            return Some(number);
        }
        let number = *self.numbers.get(&key)?;
        latest.store(number, Ordering::Relaxed);
        Some(number)
    }

    fn shelf(&self, key: ShelfKey<K>) -> Option<&Shelf<K>> {
        self.shelves.get(self.number(key)? as usize)
    }

    fn new_shelf(&mut self, key: ShelfKey<K>) -> &mut Shelf<K> {
        let shelf = Shelf { key, taken: [0; 8], values: Values::AllOf(Value::MAX) };
        let number = match self.free.pop() {
            Some(number) => {
                self.shelves[number as usize] = shelf;
                number
            }
            None => {
                self.shelves.push(shelf);
                self.shelves.len() as u32 - 1
            }
        };
        self.numbers.insert(key, number);
        &mut self.shelves[number as usize]
    }

    /// The address's bits beyond `len` must be zero, here and below.
    pub(crate) fn insert(&mut self, addr: K, len: u8, value: Value) -> Option<Value> {
        let old = if len == 0 { self.default.replace(value) } else { self.put_on_shelf(addr, len, value) };
        self.len += usize::from(old.is_none());
        old
    }

    fn put_on_shelf(&mut self, addr: K, len: u8, value: Value) -> Option<Value> {
        let (key, place) = find(addr, len);
        match self.number(key) {
            Some(number) => self.shelves[number as usize].put(place, value),
            None => self.new_shelf(key).put(place, value),
        }
    }

    pub(crate) fn remove(&mut self, addr: K, len: u8) -> Option<Value> {
        let removed = if len == 0 { self.default.take() } else { self.take_from_shelf(addr, len) };
        self.len -= usize::from(removed.is_some());
        removed
    }

    fn take_from_shelf(&mut self, addr: K, len: u8) -> Option<Value> {
        let (key, place) = find(addr, len);
        let number = self.number(key)?;
        let shelf = &mut self.shelves[number as usize];
        let value = shelf.take(place)?;
        if shelf.is_empty() {
            (shelf.key, shelf.values) = (ShelfKey::NONE, Values::AllOf(Value::MAX));
            self.numbers.remove(&key);
            self.free.push(number);
        }
        Some(value)
    }

    pub(crate) fn get(&self, addr: K, len: u8) -> Option<Value> {
        if len == 0 {
            return self.default;
        }
        let (key, place) = find(addr, len);
        self.shelf(key)?.get(place)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// In order of address, then length: put in order here, for nothing else needs one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, u8, Value)> + '_ {
        let mut all = Vec::with_capacity(self.len);
        all.extend(self.default.map(|value| (K::ZERO, 0, value)));
        for shelf in self.shelves.iter().filter(|shelf| !shelf.is_empty()) {
            let ShelfKey(from, bytes) = shelf.key;
            let above = bytes * SHELF_BITS;
            let places = (2..512).filter_map(|place| Some((place, shelf.get(place)?)));
            all.extend(places.map(|(place, value)| {
                let bits = place.ilog2() as u8;
                (from.or_bits(above, bits, place - (1 << bits)), above + bits, value)
            }));
        }
        all.sort_unstable_by_key(|(addr, len, _)| (*addr, *len));
        all.into_iter()
    }

    /// The longest prefix of at most `len` bits that covers the first `len` bits of `addr`.
    pub(crate) fn longest_match(&self, addr: K, mut len: u8) -> Option<(K, u8, Value)> {
        while len > 0 {
            let (key, place) = find(addr, len);
            if let Some(shelf) = self.shelf(key) {
                let covering = std::iter::successors(Some(place), |place| Some(place / 2));
                for (place, len) in covering.take_while(|place| *place > 1).zip((1..=len).rev()) {
                    if let Some(value) = shelf.get(place) {
                        return Some((addr.masked(len), len, value));
                    }
                }
            }
            len = (len - 1) / SHELF_BITS * SHELF_BITS;
        }
        self.default.map(|value| (K::ZERO, 0, value))
    }

    /// Is there a prefix longer than `len` bits, fewer than an address has, that begins with the first `len` of `addr` and
    /// ends in the same byte as the next bit?
    pub(crate) fn has_within(&self, addr: K, len: u8) -> bool {
        let (key, longer) = find(addr, len + 1);
        self.shelf(key).is_some_and(|shelf| shelf.has_within(longer / 2))
    }

    /// What covers a prefix from outside: the longest one shorter than it.
    pub(crate) fn covering(&self, addr: K, len: u8) -> Option<(K, u8, Value)> {
        self.longest_match(addr, len.checked_sub(1)?)
    }

    /// About how many bytes `routes` entries take at most: a shelf each, in an array and found by a hash map that have just
    /// grown. On the internet, 35 routes of IPv4 or five of IPv6 share one.
    pub(crate) fn bytes_for(routes: usize) -> usize {
        routes * (size_of::<Shelf<K>>() * 2 + (size_of::<ShelfKey<K>>() + size_of::<u32>()) * 16 / 7 + 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn check<K: Key>(steps: Vec<(K, u8, bool)>) {
        let (mut store, mut oracle) = (PrefixStore::<K>::new(), BTreeMap::new());
        for (number, (addr, len, add)) in (0..).zip(&steps) {
            // Runs of one value, as routes of one peer have.
            let (addr, number) = (addr.masked(*len), number / 12 % 4);
            if *add {
                assert_eq!(store.insert(addr, *len, number), oracle.insert((addr, *len), number));
            } else {
                assert_eq!(store.remove(addr, *len), oracle.remove(&(addr, *len)));
            }
            assert_eq!(store.len(), oracle.len());
        }
        let all: Vec<_> = oracle.iter().map(|((addr, len), value)| (*addr, *len, *value)).collect();
        assert_eq!(store.iter().collect::<Vec<_>>(), all);
        for (addr, len, _) in steps {
            let covers =
                |(found, shorter, _): &&(K, u8, Value)| *shorter <= len && addr.masked(*shorter) == *found;
            assert_eq!(
                store.longest_match(addr, len),
                all.iter().filter(covers).max_by_key(|found| found.1).copied()
            );
            assert_eq!(store.get(addr.masked(len), len), oracle.get(&(addr.masked(len), len)).copied());
            let last = (len + 1).next_multiple_of(SHELF_BITS);
            let within = |(found, longer, _): &(K, u8, Value)| {
                (len + 1..=last).contains(longer) && found.masked(len) == addr.masked(len)
            };
            assert!(len == K::BITS || store.has_within(addr, len) == all.iter().any(within));
        }
        for (addr, len, value) in all {
            assert_eq!(store.remove(addr, len), Some(value));
        }
        assert!(
            store.numbers.is_empty() && store.free.len() == store.shelves.len(),
            "an empty shelf is another's"
        );
    }

    /// Of few bits, so that prefixes meet.
    fn near() -> impl Strategy<Value = u128> {
        any::<u128>().prop_map(|bits| bits & (0x8101_8301 << 96 | 0x8100_0000_0000_0000 | 3))
    }

    proptest! {
        #[test]
        fn the_store_knows_what_an_ordered_map_does_of_ipv4(
            steps in proptest::collection::vec((near(), 0u8..=32, prop::bool::weighted(0.7)), 1..200)
        ) {
            check::<u32>(steps.into_iter().map(|(addr, len, add)| ((addr >> 96) as u32, len, add)).collect());
        }

        #[test]
        fn the_store_knows_what_an_ordered_map_does_of_ipv6(
            steps in proptest::collection::vec((near(), 0u8..=128, prop::bool::weighted(0.7)), 1..200)
        ) {
            check::<u128>(steps);
        }
    }
}
