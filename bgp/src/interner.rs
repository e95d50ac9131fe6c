//! One copy of each attribute set, however many routes have it.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::wire::attributes::Attributes;

/// Every attribute set in use, and some that no longer are.
#[derive(Debug)]
pub(crate) struct Interner {
    /// By eight bits of their hashes, so that none of them is large: one is swept, or grows, in one call. Each set remembers
    /// its hash, so that its bytes are read again only to compare them.
    shards: Box<[HashTable<Arc<Attributes>>; SHARDS]>,
    hasher: RandomState,
    /// How many sets there are.
    len: usize,
    /// Sweep when there are this many.
    sweep_at: usize,
    /// How many shards the sweep under way has left to go through; none without one.
    left: usize,
    /// How many prefixes there were at most since the last sweep.
    prefixes: usize,
    /// Sets that were made of others.
    made: usize,
}

const SHARDS: usize = 256;

/// Of bits that a shard's table has no use for: see [`spread`].
fn shard(hash: u32) -> usize {
    usize::from((hash >> 16) as u8)
}

/// The table takes a set's place from the lower bits and what tells it apart from the upper ones: both are to be there.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// Below this many sets a sweep is not worth its time.
const SWEEP_MIN: usize = 4096;

impl Interner {
    pub(crate) fn new(hasher: RandomState) -> Interner {
        let shards = Box::new([const { HashTable::new() }; SHARDS]);
        Interner { shards, hasher, len: 0, sweep_at: SWEEP_MIN, left: 0, prefixes: 0, made: 0 }
    }

    /// The set with this canonical key, as a peer said it.
    ///
    /// Equal keys give the same `Arc` for as long as anyone holds it, so sets compare by pointer.
    pub(crate) fn intern(&mut self, key: &[u8]) -> Arc<Attributes> {
        let hash = self.hasher.hash_one(key) as u32;
        let is_it = |set: &Arc<Attributes>| set.hash == hash && set.key() == key && set.made_of().is_none();
        self.find_or_add(hash, is_it, || Attributes::from_key(key, hash))
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
        let before = self.len;
        let set = self.find_or_add(hash, is_it, || Attributes::made(key, hash, Arc::clone(of)));
        self.made += self.len - before;
        set
    }

    fn find_or_add(
        &mut self,
        hash: u32,
        is_it: impl Fn(&Arc<Attributes>) -> bool,
        make: impl FnOnce() -> Attributes,
    ) -> Arc<Attributes> {
        let sets = &mut self.shards[shard(hash)];
        if let Some(set) = sets.find(spread(hash), is_it) {
            return Arc::clone(set);
        }
        let set = Arc::new(make());
        sets.insert_unique(spread(hash), Arc::clone(&set), |set| spread(set.hash));
        self.len += 1;
        set
    }

    /// Begins to forget sets that nobody holds, once they may be half of all: there are twice as many as there were or, for who
    /// `rests`, half of the prefixes have gone. It goes through all of them, so a table that goes isn't held up by it.
    pub(crate) fn begin_sweep(&mut self, prefixes: usize, rests: bool) {
        self.prefixes = self.prefixes.max(prefixes);
        let many_are_gone = self.len >= SWEEP_MIN && prefixes < self.prefixes / 2;
        if self.left == 0 && (rests && many_are_gone || self.len >= self.sweep_at) {
            self.prefixes = prefixes;
            // Those that were made of others hold them, and so go first.
            self.left = if self.made > 0 { 2 * SHARDS } else { SHARDS };
        }
    }

    /// Is a sweep under way?
    pub(crate) fn is_sweeping(&self) -> bool {
        self.left > 0
    }

    /// Goes on with the sweep under way by a shard.
    pub(crate) fn sweep(&mut self) {
        let Some(left) = self.left.checked_sub(1) else { return };
        let sets = &mut self.shards[left % SHARDS];
        let (is_for_made, before) = (left >= SHARDS, sets.len());
        sets.retain(|set| {
            let is_made = set.made_of().is_some();
            let stays = Arc::strong_count(set) > 1 || is_for_made && !is_made;
            self.made -= usize::from(!stays && is_made);
            stays
        });
        self.len -= before - sets.len();
        if !is_for_made {
            sets.shrink_to(sets.len() * 2, |set| spread(set.hash));
        }
        self.left = left;
        if left == 0 {
            self.sweep_at = (self.len * 2).max(SWEEP_MIN);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A whole sweep, where one is due.
    fn sweep(interner: &mut Interner, prefixes: usize, rests: bool) {
        interner.begin_sweep(prefixes, rests);
        while interner.is_sweeping() {
            interner.sweep();
        }
        let (sets, made) =
            (interner.shards.iter().flatten(), |set: &&Arc<Attributes>| set.made_of().is_some());
        assert_eq!((sets.clone().count(), sets.filter(made).count()), (interner.len, interner.made));
    }

    #[test]
    fn equal_keys_share_one_set_and_unused_sets_go() {
        let mut interner = Interner::new(RandomState::with_seed(1));
        let kept = interner.intern(&[0, 0x40, 1, 1, 0]);
        assert!(Arc::ptr_eq(&kept, &interner.intern(&[0, 0x40, 1, 1, 0])));
        for number in 0..SWEEP_MIN as u32 {
            interner.intern(&[&[0, 0x80, 4, 4][..], &number.to_be_bytes()].concat());
        }
        sweep(&mut interner, 1, true);
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
        sweep(&mut interner, 1, true);
        assert_eq!(interner.len(), 2, "one, and what it was made of");
    }

    #[test]
    fn sets_of_a_table_that_goes_are_forgotten_though_no_others_come() {
        let mut interner = Interner::new(RandomState::with_seed(1));
        let key = |number: usize| [&[0, 0x80, 4, 4][..], &(number as u32).to_be_bytes()].concat();
        let mut held: Vec<_> = (0..3 * SWEEP_MIN).map(|number| interner.intern(&key(number))).collect();
        sweep(&mut interner, 3 * SWEEP_MIN, true);
        assert_eq!(interner.len(), 3 * SWEEP_MIN, "all are held");
        held.truncate(1);
        sweep(&mut interner, 2 * SWEEP_MIN, true);
        assert_eq!(interner.len(), 3 * SWEEP_MIN, "not worth it yet");
        sweep(&mut interner, SWEEP_MIN, false);
        assert_eq!(interner.len(), 3 * SWEEP_MIN, "not at work");
        sweep(&mut interner, SWEEP_MIN, true);
        assert_eq!(interner.len(), 1);
    }

    proptest! {
        /// Whatever comes and goes between two parts of a sweep: who holds a set gets the same one again, and after a whole sweep
        /// nothing else is left.
        #[test]
        fn a_sweep_in_parts_is_like_one_at_once(
            steps in prop::collection::vec((0u8..4, any::<u8>(), 0u8..4), 1..200),
        ) {
            let mut interner = Interner::new(RandomState::with_seed(1));
            let mut held: BTreeMap<(u8, u8), Arc<Attributes>> = BTreeMap::new();
            for (what, key, of) in steps {
                match what {
                    0 => {
                        let mut set = interner.intern(&[0, 0x40, 1, 1, key]);
                        if of > 0 {
                            set = interner.intern_made(&[0, 0x40, 1, 1, of], &set);
                        }
                        let before = held.insert((key, of), Arc::clone(&set));
                        prop_assert!(before.is_none_or(|before| Arc::ptr_eq(&before, &set)));
                    }
                    1 => held.retain(|(number, _), _| number % 8 != key % 8),
                    2 => {
                        interner.sweep_at = 0;
                        interner.begin_sweep(0, false);
                    }
                    _ => (0..key).for_each(|_| interner.sweep()),
                }
            }
            (0..2 * SHARDS).for_each(|_| interner.sweep());
            interner.sweep_at = 0;
            sweep(&mut interner, 0, false);
            let bases = held.values().filter_map(|set| set.made_of());
            let mut left: Vec<_> = held.values().chain(bases).map(Arc::as_ptr).collect();
            left.sort_unstable();
            left.dedup();
            prop_assert_eq!(interner.len(), left.len());
        }
    }
}
