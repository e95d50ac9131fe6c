//! The writer's own list of prefixes: what was inserted, exactly, and what covers what.
//!
//! Prefixes that end within the same byte of an address lie on one *shelf*, found by the bytes before it: there are 510
//! such places, a bit for each, and values in the order of the places. A place's number is 1, then the prefix's bits in
//! that byte; so what covers it on its shelf are the same number's halves. To find what covers a prefix is to ask for a
//! shelf a byte, from the longest on, and mostly the first or the second one knows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};

use ahash::RandomState;

use crate::{Key, Value};

/// Bits of an address that one shelf is about.
const SHELF_BITS: u8 = 8;

/// Prefixes, found by their bits.
#[derive(Debug)]
pub struct PrefixStore<K> {
    /// By the bits that lead to them, and how many bytes these are.
    shelves: HashMap<ShelfKey, Shelf, RandomState>,
    /// The prefix of no bits lies on no shelf.
    default: Option<Value>,
    len: usize,
    family: std::marker::PhantomData<K>,
}

/// The bits that lead to a shelf, and how many bytes these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShelfKey([u64; 2], u8);

impl Hash for ShelfKey {
    /// As two words: what is derived hashes bytes.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ShelfKey([first, second], bytes) = *self;
        state.write_u64(first);
        // At least a byte's bits don't lead there: they are zero, and these have room for the number of bytes.
        state.write_u64(second ^ u64::from(bytes));
    }
}

/// Prefixes that have all but the bits of one byte in common, and end in that byte.
#[derive(Debug, Default)]
struct Shelf {
    taken: [u64; 8],
    values: Vec<Value>,
}

impl Shelf {
    fn has(&self, place: usize) -> bool {
        self.taken[place / 64] >> (place % 64) & 1 != 0
    }

    /// Where among the values the place's is, or would be.
    fn index(&self, place: usize) -> usize {
        let (word, bit) = (place / 64, place % 64);
        let before: u32 = self.taken[..word].iter().map(|word| word.count_ones()).sum();
        (before + (self.taken[word] & ((1 << bit) - 1)).count_ones()) as usize
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut Value> {
        if self.has(place) {
            let index = self.index(place);
            self.values.get_mut(index)
        } else {
            None
        }
    }

    fn get(&self, place: usize) -> Option<Value> {
        if self.has(place) { self.values.get(self.index(place)).copied() } else { None }
    }
}

/// Where a prefix of `len` bits, at least one, lies: the key of its shelf, and its place there.
fn find<K: Key>(addr: K, len: u8) -> (ShelfKey, usize) {
    let above = (len - 1) / SHELF_BITS * SHELF_BITS;
    let bits = len - above;
    (ShelfKey(addr.masked(above).to_words(), above / SHELF_BITS), 1 << bits | addr.bits(above, bits))
}

impl<K: Key> PrefixStore<K> {
    pub(crate) fn new() -> PrefixStore<K> {
        PrefixStore { shelves: HashMap::default(), default: None, len: 0, family: std::marker::PhantomData }
    }

    /// The address's bits beyond `len` must be zero, here and below.
    pub(crate) fn insert(&mut self, addr: K, len: u8, value: Value) -> Option<Value> {
        let old = if len == 0 { self.default.replace(value) } else { self.put_on_shelf(addr, len, value) };
        self.len += usize::from(old.is_none());
        old
    }

    fn put_on_shelf(&mut self, addr: K, len: u8, value: Value) -> Option<Value> {
        let (key, place) = find(addr, len);
        let shelf = self.shelves.entry(key).or_default();
        if let Some(old) = shelf.get_mut(place) {
            return Some(std::mem::replace(old, value));
        }
        let index = shelf.index(place);
        shelf.taken[place / 64] |= 1 << (place % 64);
        shelf.values.insert(index, value);
        None
    }

    pub(crate) fn remove(&mut self, addr: K, len: u8) -> Option<Value> {
        let removed = if len == 0 { self.default.take() } else { self.take_from_shelf(addr, len) };
        self.len -= usize::from(removed.is_some());
        removed
    }

    fn take_from_shelf(&mut self, addr: K, len: u8) -> Option<Value> {
        let (key, place) = find(addr, len);
        let Entry::Occupied(mut entry) = self.shelves.entry(key) else { return None };
        let shelf = entry.get_mut();
        if !shelf.has(place) {
            return None;
        }
        let value = shelf.values.remove(shelf.index(place));
        shelf.taken[place / 64] &= !(1 << (place % 64));
        if shelf.values.is_empty() {
            entry.remove();
        }
        Some(value)
    }

    pub(crate) fn get(&self, addr: K, len: u8) -> Option<Value> {
        if len == 0 {
            return self.default;
        }
        let (key, place) = find(addr, len);
        self.shelves.get(&key)?.get(place)
    }

    /// The value of exactly this prefix, to be changed.
    pub(crate) fn get_mut(&mut self, addr: K, len: u8) -> Option<&mut Value> {
        if len == 0 {
            return self.default.as_mut();
        }
        let (key, place) = find(addr, len);
        self.shelves.get_mut(&key)?.get_mut(place)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// In order of address, then length: put in order here, for nothing else needs one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, u8, Value)> + '_ {
        let mut all = Vec::with_capacity(self.len);
        all.extend(self.default.map(|value| (K::ZERO, 0, value)));
        for (ShelfKey(words, bytes), shelf) in &self.shelves {
            let (from, above) = (K::from_words(*words), bytes * SHELF_BITS);
            let places = (2..512).filter(|place| shelf.has(*place));
            all.extend(places.zip(&shelf.values).map(|(place, value)| {
                let bits = place.ilog2() as u8;
                (from.or_bits(above, bits, place - (1 << bits)), above + bits, *value)
            }));
        }
        all.sort_unstable_by_key(|(addr, len, _)| (*addr, *len));
        all.into_iter()
    }

    /// The longest prefix of at most `len` bits that covers the first `len` bits of `addr`.
    pub(crate) fn longest_match(&self, addr: K, mut len: u8) -> Option<(K, u8, Value)> {
        while len > 0 {
            let (key, place) = find(addr, len);
            if let Some(shelf) = self.shelves.get(&key) {
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

    /// What covers a prefix from outside: the longest one shorter than it.
    pub(crate) fn covering(&self, addr: K, len: u8) -> Option<(K, u8, Value)> {
        self.longest_match(addr, len.checked_sub(1)?)
    }

    /// About how many bytes `routes` entries take at most: a shelf each, in a hash map that has just grown, with room for
    /// four values. On the internet, 35 routes of IPv4 or five of IPv6 share one.
    pub(crate) fn bytes_for(routes: usize) -> usize {
        routes * ((size_of::<ShelfKey>() + size_of::<Shelf>()) * 16 / 7 + 32)
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
            let addr = addr.masked(*len);
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
        }
        for (addr, len, value) in all {
            assert_eq!(store.remove(addr, len), Some(value));
        }
        assert!(store.shelves.is_empty(), "an empty shelf takes no room");
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
