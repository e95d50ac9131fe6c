//! A hash table in parts, which grows by one part at a time: an insertion never takes long, however much there is.
//!
//! It takes more time in all than one that doubles, which is why [`crate::loc_rib`] finds prefixes by another.
//!
//! Linear hashing (W. Litwin, "Linear hashing: a new tool for file and table addressing", 1980): when there is too much for the
//! parts there are, the next one in turn is divided between itself and a new one.

use hashbrown::HashTable;

/// Values in all for each part.
const PART: usize = 512;

/// Values by their hashes, which the caller knows.
#[derive(Debug)]
pub(crate) struct Parted<T> {
    parts: Vec<HashTable<T>>,
    len: usize,
}

impl<T> Parted<T> {
    pub(crate) fn new() -> Parted<T> {
        Parted { parts: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Which part a value of this hash is in; absent where there are none. Inside, a table takes its place from the lower bits
    /// and what tells it apart from the uppermost ones.
    fn part_of(&self, hash: u64) -> Option<usize> {
        let parts = self.parts.len();
        let undivided = 1 << parts.checked_ilog2()?;
        let part = (hash >> 32) as usize & (2 * undivided - 1);
        Some(if part < parts { part } else { part - undivided })
    }

    pub(crate) fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts.get(self.part_of(hash)?)?.find(hash, is_it)
    }

    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let part = self.part_of(hash)?;
        self.parts.get_mut(part)?.find_mut(hash, is_it)
    }

    pub(crate) fn remove(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let part = self.part_of(hash)?;
        let found = self.parts.get_mut(part)?.find_entry(hash, is_it).ok()?;
        self.len -= 1;
        Some(found.remove().0)
    }

    /// Puts a value in that isn't there; `hash_of` gives the hash of any that is.
    pub(crate) fn insert_unique(&mut self, hash: u64, value: T, hash_of: impl Fn(&T) -> u64) {
        if self.len >= PART * self.parts.len() {
            self.divide(&hash_of);
        }
        self.put(hash, value, hash_of);
        self.len += 1;
    }

    fn put(&mut self, hash: u64, value: T, hash_of: impl Fn(&T) -> u64) {
        if let Some(part) = self.part_of(hash).and_then(|part| self.parts.get_mut(part)) {
            part.insert_unique(hash, value, hash_of);
        }
    }

    /// Divides the next part in turn, or makes the first one.
    fn divide(&mut self, hash_of: impl Fn(&T) -> u64) {
        let parts = self.parts.len();
        let next = parts - parts.checked_ilog2().map_or(0, |bits| 1 << bits);
        let values = self.parts.get_mut(next).map(std::mem::take).unwrap_or_default();
        self.parts.push(HashTable::with_capacity(values.len() / 2));
        for value in values {
            self.put(hash_of(&value), value, &hash_of);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;

    use ahash::RandomState;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_in_is_found_until_it_is_taken_out(
            steps in prop::collection::vec((0u32..4000, any::<bool>()), 1..9000),
        ) {
            let hasher = RandomState::with_seed(1);
            let hash = |key: u32| hasher.hash_one(key);
            let (mut parted, mut expected) = (Parted::new(), HashMap::new());
            for (step, (key, is_put)) in steps.into_iter().enumerate() {
                let found = parted.find(hash(key), |(other, _)| *other == key);
                prop_assert_eq!(found.map(|(_, value)| value), expected.get(&key));
                if !is_put {
                    let removed = parted.remove(hash(key), |(other, _)| *other == key);
                    prop_assert_eq!(removed.map(|(_, value)| value), expected.remove(&key));
                } else if let Some((_, value)) = parted.find_mut(hash(key), |(other, _)| *other == key) {
                    *value = step;
                    expected.insert(key, step);
                } else {
                    parted.insert_unique(hash(key), (key, step), |(other, _)| hash(*other));
                    expected.insert(key, step);
                }
                prop_assert_eq!(parted.len(), expected.len());
            }
            for key in 0..4000 {
                let found = parted.find(hash(key), |(other, _)| *other == key);
                prop_assert_eq!(found.map(|(_, value)| value), expected.get(&key));
            }
        }
    }

    #[test]
    fn no_insertion_moves_more_than_a_part_or_two() {
        let hasher = RandomState::with_seed(1);
        let (mut parted, moved) = (Parted::new(), Cell::new(0));
        for key in 0..200_000u32 {
            moved.set(0);
            parted.insert_unique(hasher.hash_one(key), key, |key| {
                moved.set(moved.get() + 1);
                hasher.hash_one(key)
            });
            assert!(moved.get() < 8 * PART, "{} at {key}", moved.get());
        }
        assert_eq!(parted.len(), 200_000);
    }
}
