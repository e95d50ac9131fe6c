//! The writer's own list of prefixes: what was inserted, exactly, and what covers what.

use std::collections::BTreeMap;

use crate::{Key, Value};

/// Prefixes in order of address, then length; so a covering prefix comes before all that it covers.
#[derive(Debug)]
pub struct PrefixStore<K> {
    routes: BTreeMap<(K, u8), Value>,
}

impl<K: Key> PrefixStore<K> {
    pub(crate) fn new() -> PrefixStore<K> {
        PrefixStore { routes: BTreeMap::new() }
    }

    /// The address's bits beyond `len` must be zero, here and below.
    pub(crate) fn insert(&mut self, addr: K, len: u8, value: Value) -> Option<Value> {
        self.routes.insert((addr, len), value)
    }

    pub(crate) fn remove(&mut self, addr: K, len: u8) -> Option<Value> {
        self.routes.remove(&(addr, len))
    }

    pub(crate) fn get(&self, addr: K, len: u8) -> Option<Value> {
        self.routes.get(&(addr, len)).copied()
    }

    /// The value of exactly this prefix, to be changed.
    pub(crate) fn get_mut(&mut self, addr: K, len: u8) -> Option<&mut Value> {
        self.routes.get_mut(&(addr, len))
    }

    pub(crate) fn len(&self) -> usize {
        self.routes.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, u8, Value)> + '_ {
        self.routes.iter().map(|(&(addr, len), &value)| (addr, len, value))
    }

    /// The longest prefix of at most `len` bits that covers the first `len` bits of `addr`.
    ///
    /// Looks at the closest prefix that sorts no later. If that does not cover, whatever covers is no longer than the
    /// bits both have in common (a longer one would sort between the two), so the search goes on from there: a step
    /// for each level of nesting at most, and most often one.
    pub(crate) fn longest_match(&self, addr: K, mut len: u8) -> Option<(K, u8, Value)> {
        loop {
            let (&(found, found_len), &value) = self.routes.range(..=(addr.masked(len), len)).next_back()?;
            let common = found.common_len(addr).min(len);
            if common >= found_len {
                return Some((found, found_len, value));
            }
            len = common;
        }
    }

    /// What covers a prefix from outside: the longest one shorter than it.
    pub(crate) fn covering(&self, addr: K, len: u8) -> Option<(K, u8, Value)> {
        self.longest_match(addr, len.checked_sub(1)?)
    }

    /// About how many bytes `routes` entries take: nodes of eleven, two thirds full.
    pub(crate) fn bytes_for(routes: usize) -> usize {
        routes * (size_of::<(K, u8)>() + size_of::<Value>()) * 3 / 2
    }
}
