//! One copy of each attribute set, however many routes have it.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::wire::attributes::Attributes;

/// Every attribute set in use, and some that no longer are.
#[derive(Debug)]
pub(crate) struct Interner {
    /// Each remembers its hash, so that its bytes are read again only to compare them.
    sets: HashTable<Arc<Attributes>>,
    hasher: RandomState,
    /// Sweep when there are this many.
    sweep_at: usize,
    /// How many prefixes there were at most since the last sweep.
    prefixes: usize,
    /// Sets that were made of others.
    made: usize,
}

/// The table takes a set's place from the lower bits and what tells it apart from the upper ones: both are to be there.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// Below this many sets a sweep is not worth its time.
const SWEEP_MIN: usize = 4096;

impl Interner {
    pub(crate) fn new(hasher: RandomState) -> Interner {
        Interner { sets: HashTable::new(), hasher, sweep_at: SWEEP_MIN, prefixes: 0, made: 0 }
    }

    /// The set with this canonical key, as a peer said it.
    ///
    /// Equal keys give the same `Arc` for as long as anyone holds it, so sets compare by pointer.
    pub(crate) fn intern(&mut self, key: &[u8]) -> Arc<Attributes> {
        let hash = self.hasher.hash_one(key) as u32;
        let is_it = |set: &Arc<Attributes>| set.hash == hash && set.key() == key && set.made_of().is_none();
        if let Some(set) = self.sets.find(spread(hash), is_it) {
            return Arc::clone(set);
        }
        let set = Arc::new(Attributes::from_key(key, hash));
        self.sets.insert_unique(spread(hash), Arc::clone(&set), |set| spread(set.hash));
        set
    }

    /// The set with this canonical key, which an import filter has made of what a peer said; that itself, where they are the
    /// same.
    pub(crate) fn intern_made(&mut self, key: &[u8], of: &Arc<Attributes>) -> Arc<Attributes> {
        if of.key() == key {
            return Arc::clone(of);
        }
        let hash = self.hasher.hash_one(key) as u32 ^ of.hash.rotate_left(1);
        let is_it = |set: &Arc<Attributes>| {
            set.hash == hash && set.key() == key && set.made_of().is_some_and(|other| Arc::ptr_eq(other, of))
        };
        if let Some(set) = self.sets.find(spread(hash), is_it) {
            return Arc::clone(set);
        }
        let set = Arc::new(Attributes::made(key, hash, Arc::clone(of)));
        self.sets.insert_unique(spread(hash), Arc::clone(&set), |set| spread(set.hash));
        self.made += 1;
        set
    }

    /// Forgets sets that nobody holds, once they may be half of all: there are twice as many as there were or, for who `rests`,
    /// half of the prefixes have gone. It goes through all of them, so a table that goes isn't held up by it.
    pub(crate) fn sweep(&mut self, prefixes: usize, rests: bool) {
        self.prefixes = self.prefixes.max(prefixes);
        let many_are_gone = self.sets.len() >= SWEEP_MIN && prefixes < self.prefixes / 2;
        if rests && many_are_gone || self.sets.len() >= self.sweep_at {
            self.prefixes = prefixes;
            let is_held = |set: &Arc<Attributes>| Arc::strong_count(set) > 1;
            if self.made > 0 {
                // They hold what they were made of.
                self.sets.retain(|set| set.made_of().is_none() || is_held(set));
                self.made = self.sets.iter().filter(|set| set.made_of().is_some()).count();
            }
            self.sets.retain(|set| is_held(set));
            self.sets.shrink_to(self.sets.len() * 2, |set| spread(set.hash));
            self.sweep_at = (self.sets.len() * 2).max(SWEEP_MIN);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_share_one_set_and_unused_sets_go() {
        let mut interner = Interner::new(RandomState::with_seed(1));
        let kept = interner.intern(&[0, 0x40, 1, 1, 0]);
        assert!(Arc::ptr_eq(&kept, &interner.intern(&[0, 0x40, 1, 1, 0])));
        for number in 0..SWEEP_MIN as u32 {
            interner.intern(&[&[0, 0x80, 4, 4][..], &number.to_be_bytes()].concat());
        }
        interner.sweep(1, true);
        assert_eq!(interner.len(), 1);
    }

    #[test]
    fn what_a_filter_makes_of_two_sets_is_two_sets() {
        let mut interner = Interner::new(RandomState::with_seed(1));
        let [one, other, key] = [0, 1, 2].map(|origin| [0, 0x40, 1, 1, origin]);
        let (one, other) = (interner.intern(&one), interner.intern(&other));
        let (of_one, of_other) = (interner.intern_made(&key, &one), interner.intern_made(&key, &other));
        assert_eq!((of_one.key(), of_other.key()), (&key[..], &key[..]));
        assert!(of_one.made_of().is_some_and(|of| Arc::ptr_eq(of, &one)));
        assert!(of_other.made_of().is_some_and(|of| Arc::ptr_eq(of, &other)));
        assert!(Arc::ptr_eq(&of_one, &interner.intern_made(&key, &one)), "once each");
        assert!(interner.intern(&key).made_of().is_none(), "nor is it what a peer said");
        assert!(Arc::ptr_eq(&one, &interner.intern_made(one.key(), &one)), "nothing was changed");
        drop((one, other, of_other));
        interner.sweep_at = 0;
        interner.sweep(1, true);
        assert_eq!(interner.len(), 2, "one, and what it was made of");
    }

    #[test]
    fn sets_of_a_table_that_goes_are_forgotten_though_no_others_come() {
        let mut interner = Interner::new(RandomState::with_seed(1));
        let key = |number: usize| [&[0, 0x80, 4, 4][..], &(number as u32).to_be_bytes()].concat();
        let mut held: Vec<_> = (0..3 * SWEEP_MIN).map(|number| interner.intern(&key(number))).collect();
        interner.sweep(3 * SWEEP_MIN, true);
        assert_eq!(interner.len(), 3 * SWEEP_MIN, "all are held");
        held.truncate(1);
        interner.sweep(2 * SWEEP_MIN, true);
        assert_eq!(interner.len(), 3 * SWEEP_MIN, "not worth it yet");
        interner.sweep(SWEEP_MIN, false);
        assert_eq!(interner.len(), 3 * SWEEP_MIN, "not at work");
        interner.sweep(SWEEP_MIN, true);
        assert_eq!(interner.len(), 1);
    }
}
