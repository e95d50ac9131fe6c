//! One copy of each attribute set, however many routes have it.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ahash::RandomState;

use crate::wire::attributes::Attributes;

/// Looked up by the canonical key, so that a hit copies nothing.
#[derive(Debug)]
struct Interned(Arc<Attributes>);

impl Borrow<[u8]> for Interned {
    fn borrow(&self) -> &[u8] {
        self.0.key()
    }
}

impl Hash for Interned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

impl PartialEq for Interned {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for Interned {}

/// Every attribute set in use, and some that no longer are.
#[derive(Debug)]
pub(crate) struct Interner {
    sets: HashSet<Interned, RandomState>,
    next_serial: u32,
    /// Sweep when there are this many.
    sweep_at: usize,
    /// How many prefixes there were at most since the last sweep.
    prefixes: usize,
}

/// Below this many sets a sweep is not worth its time.
const SWEEP_MIN: usize = 4096;

impl Interner {
    pub(crate) fn new(hasher: RandomState) -> Interner {
        Interner { sets: HashSet::with_hasher(hasher), next_serial: 0, sweep_at: SWEEP_MIN, prefixes: 0 }
    }

    /// The set with this canonical key.
    ///
    /// Equal keys give the same `Arc` for as long as anyone holds it, so sets compare by pointer.
    pub(crate) fn intern(&mut self, key: &[u8]) -> Arc<Attributes> {
        if let Some(Interned(set)) = self.sets.get(key) {
            return Arc::clone(set);
        }
        let set = Arc::new(Attributes::from_key(key, self.next_serial));
        // It only orders; after four thousand million sets a run of equal order costs some packing.
        self.next_serial = self.next_serial.wrapping_add(1);
        self.sets.insert(Interned(Arc::clone(&set)));
        set
    }

    /// Forgets sets that nobody holds, once they may be half of all: there are twice as many as there were, or half of the
    /// prefixes have gone.
    pub(crate) fn sweep(&mut self, prefixes: usize) {
        self.prefixes = self.prefixes.max(prefixes);
        let many_are_gone = self.sets.len() >= SWEEP_MIN && prefixes < self.prefixes / 2;
        if many_are_gone || self.sets.len() >= self.sweep_at {
            self.prefixes = prefixes;
            self.sets.retain(|Interned(set)| Arc::strong_count(set) > 1);
            self.sets.shrink_to(self.sets.len() * 2);
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
        interner.sweep(1);
        assert_eq!(interner.len(), 1);
    }

    #[test]
    fn sets_of_a_table_that_goes_are_forgotten_though_no_others_come() {
        let mut interner = Interner::new(RandomState::with_seed(1));
        let key = |number: usize| [&[0, 0x80, 4, 4][..], &(number as u32).to_be_bytes()].concat();
        let mut held: Vec<_> = (0..3 * SWEEP_MIN).map(|number| interner.intern(&key(number))).collect();
        interner.sweep(3 * SWEEP_MIN);
        assert_eq!(interner.len(), 3 * SWEEP_MIN, "all are held");
        held.truncate(1);
        interner.sweep(2 * SWEEP_MIN);
        assert_eq!(interner.len(), 3 * SWEEP_MIN, "not worth it yet");
        interner.sweep(SWEEP_MIN);
        assert_eq!(interner.len(), 1);
    }
}
