//! The writer's face: what is in the table, and the engine that answers for it.

use std::ops::Range;

use crate::engine::Engine;
use crate::prefix_store::PrefixStore;
use crate::{Full, Key, Limits, Lookup, Value};

/// A table of prefixes with one writer, who owns this, and any number of readers, who own a [`Lookup`] each.
#[derive(Debug)]
pub struct Table<K: Key> {
    store: PrefixStore<K>,
    engine: K::Engine,
    limits: Limits,
    /// Gone from the store, and still answered; near each other. Empty unless there is a [`Removing`].
    leaving: Vec<(K, u8)>,
}

/// Removals, of which those that come one after the other and lie close together are carried out at once, in a fraction of
/// the time: see [`Table::removing`].
#[derive(Debug)]
pub struct Removing<'a, K: Key>(&'a mut Table<K>);

/// How much of a table's memory is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Routes in the table.
    pub routes: usize,
    /// Node slots (IPv4: groups) in use, those of blocks awaiting reuse among them.
    pub nodes: usize,
    /// Leaves in use, likewise.
    pub leaves: usize,
    /// Blocks replaced but not yet free; see [`Table::retire`].
    pub retired_blocks: usize,
    /// Bytes that readers read: the root, and the nodes and leaves in use.
    pub bytes: usize,
}

impl<K: Key> Table<K> {
    /// An empty table. All that readers see is allocated here.
    pub fn new(limits: Limits) -> Table<K> {
        Table { store: PrefixStore::new(), engine: K::Engine::new(&limits), limits, leaving: Vec::new() }
    }

    /// Stores `value` for the prefix of the first `len` bits of `addr`; returns the value it replaces.
    /// A replacement needs no room for a route, only for its value where that is new.
    ///
    /// # Errors
    /// [`Full`], and nothing is changed.
    ///
    /// # Panics
    /// Where `len` exceeds [`Key::BITS`] or `value` is [`u32::MAX`]: both are mistakes of the caller.
    pub fn insert(&mut self, addr: K, len: u8, value: Value) -> Result<Option<Value>, Full> {
        assert!(len <= K::BITS, "a prefix of {len} bits in addresses of {}", K::BITS);
        assert!(value != Value::MAX, "the largest value is not for storing");
        let addr = addr.masked(len);
        self.engine.bring_near(addr, len);
        if self.store.len() >= self.limits.max_routes as usize && self.store.get(addr, len).is_none() {
            return Err(Full::Routes { max: self.limits.max_routes });
        }
        self.engine.hold(value)?;
        let old = self.store.insert(addr, len, value);
        if let Some(old) = old {
            self.engine.replace(&self.store, addr, len, value);
            self.engine.let_go(old);
        } else if let Err(full) = self.engine.insert(&self.store, addr, len, value) {
            self.store.remove(addr, len);
            self.engine.let_go(value);
            return Err(full);
        }
        Ok(old)
    }

    /// Removes a prefix; returns its value, or `None` where there was none.
    pub fn remove(&mut self, addr: K, len: u8) -> Option<Value> {
        self.removing().remove(addr, len)
    }

    /// For many removals: a reader may be answered with what is removed until the returned value is dropped. Neighbours in
    /// the order of addresses gain by it, and routes that lie inside others gain where they go before those.
    pub fn removing(&mut self) -> Removing<'_, K> {
        Removing(self)
    }

    /// Answers without the prefixes that are leaving.
    fn settle(&mut self) {
        if !self.leaving.is_empty() {
            self.engine.remove(&self.store, &self.leaving);
            self.leaving.clear();
        }
    }

    /// The value of exactly this prefix.
    pub fn get(&self, addr: K, len: u8) -> Option<Value> {
        if len > K::BITS { None } else { self.store.get(addr.masked(len), len) }
    }

    /// The longest prefix that an address lies in, and its value. For the slow path: readers use a [`Lookup`].
    pub fn longest_match(&self, addr: K) -> Option<(K, u8, Value)> {
        self.store.longest_match(addr, K::BITS)
    }

    /// The longest prefix that covers this one from outside, and its value.
    pub fn covering(&self, addr: K, len: u8) -> Option<(K, u8, Value)> {
        self.store.covering(addr, len.min(K::BITS))
    }

    /// All prefixes with their values, in order of address, then length.
    pub fn iter(&self) -> impl Iterator<Item = (K, u8, Value)> + '_ {
        self.store.iter()
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A reader of this table, for another thread; cheap, and cheap to clone. It sees all later changes.
    pub fn reader(&self) -> Lookup<K> {
        Lookup(self.engine.reader())
    }

    /// Tags the blocks replaced since the last call with `epoch`, then frees all whose tag is at most `safe`.
    ///
    /// The caller raises `epoch` with each call and gives as `safe` an epoch that every reader has passed: each has
    /// finished, since that call, whatever look-ups it had begun. Without readers `safe` may equal `epoch`.
    pub fn retire(&mut self, epoch: u64, safe: u64) {
        self.engine.retire(epoch, safe);
    }

    /// Gives up what is kept for IPv6 routes that went and may come back, up to a thousand of them: what the table takes then
    /// depends on its routes alone, once [`Table::retire`] has made it free. A router has no need of it, for it is never much.
    pub fn compact(&mut self) {
        self.engine.compact();
    }

    /// What is in use now.
    pub fn usage(&self) -> Usage {
        Usage { routes: self.len(), ..self.engine.usage() }
    }

    /// The addresses at which lies what nearly all look-ups read, and what the writer keeps beside it. All of it is
    /// reserved and little touched; what is, lies close together: so it may well lie in huge pages.
    pub fn places(&self) -> Vec<Range<usize>> {
        self.engine.places()
    }

    /// The most memory this table can ever take, in bytes: the arenas as reserved, and the prefix store when full.
    pub fn bytes(&self) -> usize {
        self.engine.bytes() + PrefixStore::<K>::bytes_for(self.limits.max_routes as usize)
    }
}

impl<K: Key> Removing<'_, K> {
    /// As [`Table::remove`], but for when readers see it.
    pub fn remove(&mut self, addr: K, len: u8) -> Option<Value> {
        if len > K::BITS {
            return None;
        }
        let (table, prefix) = (&mut *self.0, (addr.masked(len), len));
        if table.leaving.last().is_some_and(|last| !K::Engine::are_near(*last, prefix)) {
            table.settle();
        }
        table.engine.bring_near(prefix.0, len);
        let value = table.store.remove(prefix.0, len)?;
        table.leaving.push(prefix);
        table.engine.let_go(value);
        Some(value)
    }
}

impl<K: Key> Drop for Removing<'_, K> {
    fn drop(&mut self) {
        self.0.settle();
    }
}
