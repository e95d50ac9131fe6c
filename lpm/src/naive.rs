//! The oracle: a sorted list, searched from end to end. Slow, and right at a glance.

use crate::{Key, Value};

/// A table that answers by looking at every prefix. Tests hold the fast engine to it.
#[derive(Clone, Debug, Default)]
pub struct Naive<K> {
    /// In order of address, then length.
    routes: Vec<(K, u8, Value)>,
}

impl<K: Key> Naive<K> {
    /// An empty table.
    pub fn new() -> Naive<K> {
        Naive { routes: Vec::new() }
    }

    /// Stores a value for a prefix; returns the one it replaces.
    pub fn insert(&mut self, addr: K, len: u8, value: Value) -> Option<Value> {
        match self.position(addr, len) {
            Ok(at) => Some(std::mem::replace(&mut self.routes[at].2, value)),
            Err(at) => {
                self.routes.insert(at, (addr.masked(len), len, value));
                None
            }
        }
    }

    /// Removes a prefix; returns its value.
    pub fn remove(&mut self, addr: K, len: u8) -> Option<Value> {
        self.position(addr, len).ok().map(|at| self.routes.remove(at).2)
    }

    /// The value of exactly this prefix.
    pub fn get(&self, addr: K, len: u8) -> Option<Value> {
        self.position(addr, len).ok().map(|at| self.routes[at].2)
    }

    /// The value of the longest prefix that the address lies in.
    pub fn lookup(&self, addr: K) -> Option<Value> {
        self.longest_match(addr).map(|(_, _, value)| value)
    }

    /// The longest prefix that the address lies in, and its value.
    pub fn longest_match(&self, addr: K) -> Option<(K, u8, Value)> {
        self.iter().filter(|(prefix, len, _)| addr.masked(*len) == *prefix).max_by_key(|(_, len, _)| *len)
    }

    /// All prefixes with their values, in order of address, then length.
    pub fn iter(&self) -> impl Iterator<Item = (K, u8, Value)> + '_ {
        self.routes.iter().copied()
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    fn position(&self, addr: K, len: u8) -> Result<usize, usize> {
        self.routes.binary_search_by_key(&(addr.masked(len), len), |(addr, len, _)| (*addr, *len))
    }
}
