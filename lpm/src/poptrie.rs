//! The engine: a poptrie (Asai and Ohara, SIGCOMM 2015) with a directly indexed root, updated by copying paths.
//!
//! The first 18 bits of an address index the root. Below it, nodes take six bits each. A node has no array of 64
//! entries but two bit vectors: which entries are nodes themselves, and where a run of equal leaves begins. Counting
//! bits in them finds a child in the node's run of children, or a leaf in its run of leaves. Where many bits lead but one
//! way (an IPv6 /128 inside a /48), a *skip* stands for the whole way: the path it expects, what lies beside it, and
//! the node at its end.
//!
//! ```text
//!   root[2^18] -> node { children: 0010..  leaf runs: 1001.. } -> children next to each other
//!                                                             \-> leaves next to each other
//!              -> skip { path ..: end } -> node                   beside the path: one leaf
//! ```
//!
//! A leaf belongs to one route: runs of two routes are never joined, even where their values are equal. So to change a
//! route's value, or to hand its addresses back to the route that covers it, is to overwrite leaves where they lie.
//! Only a new route takes new memory, and only on the way from its root slot down to where it ends.
//!
//! Memory is in arenas of atomics, indexed by number; all of it is safe code. A root slot is stored with Release and
//! read with Acquire, so what it leads to is seen whole. Leaves are stored and read likewise, because a value written
//! over another may stand for something that was made just before it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytemuck::allocation::zeroed_slice_box;

use crate::engine::Reader;
use crate::{Key, NO_ROUTE, Value};

mod node;
mod writer;

pub use writer::Engine;

use node::{BRANCH, Leaf, STRIDE, unpack_skip};

/// Bits of an address that index the root.
const ROOT_BITS: u8 = 18;
/// Questions whose first, likely uncached, read is begun before any is carried on.
const BATCH: usize = 16;

/// What readers see: the root and both arenas.
struct Shared {
    root: Box<[AtomicU64]>,
    /// A node is three words: children, leaf runs, and the two arenas' indices.
    nodes: Box<[[AtomicU64; 3]]>,
    leaves: Box<[AtomicU32]>,
}

impl Shared {
    /// Asked for as zeroed memory and not written: the kernel gives a page when it is first touched, not before.
    fn new(nodes: usize, leaves: usize) -> Shared {
        Shared {
            root: zeroed_slice_box(1 << ROOT_BITS),
            nodes: zeroed_slice_box(nodes),
            leaves: zeroed_slice_box(leaves),
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.root) + size_of_val(&*self.nodes) + size_of_val(&*self.leaves)
    }
}

/// A handle of the memory.
pub struct Handle<K> {
    shared: Arc<Shared>,
    key: PhantomData<K>,
}

impl<K> Clone for Handle<K> {
    fn clone(&self) -> Self {
        Handle { shared: Arc::clone(&self.shared), key: PhantomData }
    }
}

impl<K: Key> Reader<K> for Handle<K> {
    #[inline]
    fn lookup(&self, addr: K) -> Value {
        self.resolve(addr, self.root_slot(addr)).unwrap_or(NO_ROUTE)
    }

    fn lookup_batch(&self, keys: &[K], out: &mut [Value]) {
        for (keys, out) in keys.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let mut slots = [0; BATCH];
            for (slot, key) in slots.iter_mut().zip(keys) {
                *slot = self.root_slot(*key);
            }
            for ((out, key), slot) in out.iter_mut().zip(keys).zip(slots) {
                *out = self.resolve(*key, slot).unwrap_or(NO_ROUTE);
            }
        }
    }
}

impl<K: Key> Handle<K> {
    #[inline(always)]
    fn root_slot(&self, addr: K) -> u64 {
        // The index has 18 bits, as the root has slots: `get` can't fail, and the compiler need not know.
        self.shared.root.get(addr.bits(0, ROOT_BITS)).map_or(0, |slot| slot.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn resolve(&self, addr: K, slot: u64) -> Option<Value> {
        if slot & BRANCH == 0 { Leaf::value_of(slot as u32) } else { self.descend(addr, slot as u32) }
    }

    /// From node `index`, which takes the bits after the root's, down to a leaf.
    ///
    /// Every index is checked: were memory reused too early, the answer would be wrong and nothing else.
    #[inline]
    fn descend(&self, addr: K, mut index: u32) -> Option<Value> {
        let mut depth = ROOT_BITS;
        while depth < K::BITS {
            let [children, leaf_runs, bases] = self.shared.nodes.get(index as usize)?;
            let children = children.load(Ordering::Relaxed);
            let leaf_runs = leaf_runs.load(Ordering::Relaxed);
            let bases = bases.load(Ordering::Relaxed);
            let at = addr.bits(depth, STRIDE);
            if children >> at & 1 != 0 {
                let before = (children & ((1 << at) - 1)).count_ones();
                index = ((bases >> 32) as u32).wrapping_add(before);
                depth += STRIDE;
            } else if leaf_runs != 0 {
                let begun = (leaf_runs & (u64::MAX >> (63 - at))).count_ones();
                let leaf = (bases as u32).wrapping_add(begun).wrapping_sub(1);
                return Leaf::value_of(self.shared.leaves.get(leaf as usize)?.load(Ordering::Acquire));
            } else {
                let block = (bases >> 32) as u32;
                let [high, low, rest] = self.shared.nodes.get(block as usize)?;
                let path = K::from_words([high.load(Ordering::Relaxed), low.load(Ordering::Relaxed)]);
                let (beside, end) = unpack_skip(rest.load(Ordering::Acquire));
                if path.common_len(addr) < end || end <= depth {
                    return beside.value();
                }
                index = block.wrapping_add(1);
                depth = end;
            }
        }
        None
    }
}
