//! The reader's face.

use std::fmt;

use crate::engine::{Engine, Reader};
use crate::{Key, NO_ROUTE, Value};

/// A reader of a [`crate::Table`]. It never waits, whatever the writer does.
pub struct Lookup<K: Key>(pub(crate) <K::Engine as Engine<K>>::Reader);

impl<K: Key> Clone for Lookup<K> {
    fn clone(&self) -> Self {
        Lookup(self.0.clone())
    }
}

impl<K: Key> fmt::Debug for Lookup<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").finish_non_exhaustive()
    }
}

impl<K: Key> Lookup<K> {
    /// The same without what only some processors have: so that tests and measurements see both.
    pub fn portable(self) -> Lookup<K> {
        Lookup(self.0.portable())
    }

    /// The value of the longest prefix that the address lies in.
    #[inline]
    pub fn lookup(&self, addr: K) -> Option<Value> {
        Some(self.0.lookup(addr)).filter(|value| *value != NO_ROUTE)
    }

    /// [`Lookup::lookup`] for many addresses, several at a time: `out[i]` answers `keys[i]`, with [`NO_ROUTE`] where no
    /// prefix covers it. Of two lengths, the shorter counts.
    #[inline]
    pub fn lookup_batch(&self, keys: &[K], out: &mut [Value]) {
        let len = keys.len().min(out.len());
        self.0.lookup_batch(&keys[..len], &mut out[..len]);
    }
}
