//! What stands between a [`crate::Table`] and the memory that readers see: one engine a family.

use std::fmt::Debug;
use std::ops::Range;

use crate::prefix_store::PrefixStore;
use crate::{Full, Key, Limits, Usage, Value};

/// The writer's side of an engine. It keeps answers; which prefix covers which is the [`PrefixStore`]'s to know.
pub trait Engine<K: Key<Engine = Self>>: Debug + Send + Sized {
    /// What readers hold.
    type Reader: Reader<K>;

    /// Empty, with all the memory that readers will ever see.
    fn new(limits: &Limits) -> Self;

    /// A reader's handle of the same memory.
    fn reader(&self) -> Self::Reader;

    /// A prefix is about to be inserted, replaced or removed: time to ask for the memory that this will read.
    fn bring_near(&self, _addr: K, _len: u8) {}

    /// One more prefix is to have this value; told before the prefix is inserted or its value replaced.
    ///
    /// # Errors
    /// [`Full::Values`], and nothing is changed.
    fn hold(&mut self, _value: Value) -> Result<(), Full> {
        Ok(())
    }

    /// One prefix less has this value; told when none will be the answer because of that prefix at the next `retire`.
    fn let_go(&mut self, _value: Value) {}

    /// Answers `value` for a prefix that is new; it is in `store` already.
    ///
    /// # Errors
    /// [`Full`], and nothing is changed.
    fn insert(&mut self, store: &PrefixStore<K>, addr: K, len: u8, value: Value) -> Result<(), Full>;

    /// Answers `value` for a prefix that is there. Needs no room.
    fn replace(&mut self, store: &PrefixStore<K>, addr: K, len: u8, value: Value);

    /// Is to remove both at once less work than to remove them one after the other?
    fn are_near(_prefix: (K, u8), _other: (K, u8)) -> bool {
        false
    }

    /// Answers for the addresses of prefixes as what covers them does. They are no longer in `store`, which knows the rest,
    /// and each is near all the others. Never fails.
    fn remove(&mut self, store: &PrefixStore<K>, prefixes: &[(K, u8)]);

    /// See [`crate::Table::compact`].
    fn compact(&mut self) {}

    /// See [`crate::Table::retire`].
    fn retire(&mut self, epoch: u64, safe: u64);

    /// Units of memory in use; the number of routes is the table's to fill in.
    fn usage(&self) -> Usage;

    /// The most memory that the engine can ever take, in bytes.
    fn bytes(&self) -> usize;

    /// See [`crate::Table::places`].
    fn places(&self) -> Vec<Range<usize>>;
}

/// The reader's side of an engine.
pub trait Reader<K>: Clone + Send + Sync {
    /// See [`crate::Lookup::portable`].
    fn portable(self) -> Self {
        self
    }

    /// The value of the longest prefix that the address lies in, or [`crate::NO_ROUTE`].
    fn lookup(&self, addr: K) -> Value;

    /// [`Reader::lookup`] for many addresses: `out[i]` answers `keys[i]`; both have one length.
    fn lookup_batch(&self, keys: &[K], out: &mut [Value]);
}
