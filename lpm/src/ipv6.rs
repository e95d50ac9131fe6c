//! The engine for IPv6: a trie whose nodes take one byte of the address each, below a directly indexed root.
//!
//! The first 16 bits of an address index the root, whose slot holds a leaf or says that a page of 256 slots, one for each
//! next byte, has the answer. Below that, a node takes eight bits: 256 entries, each of them a leaf or a child. Equal
//! entries next to each other are a run, and only runs are stored: a bit for each entry at which a run begins, a word
//! for each run. An entry's word is found by one load of its group of the header, and a count of bits.
//!
//! ```text
//!   root[2^16] -> page[2^8] -> node: | 11 x (24 bits: a run begins here; 8 bits: runs before) | word 0 | word 1 | ...
//!                                    '------------ 64 bytes, one cache line, with up to five words ---' '- more lines
//!   a word:  0             no route: the default route answers
//!            0 + 31 bits   a leaf: the value plus one
//!            10 + 30 bits  a child: the node in this line; in the root: the slot's page
//!            11 + 30 bits  a child: the way in this line
//!            all ones      a leaf whose value needs 32 bits: it lies in a second array, at the same place
//!   way:  | the path expected | where it ends | word beside it | word at its end |
//! ```
//!
//! Most nodes of an internet table have a handful of runs and fit in a line or two. Below 48 bits, a *way* stands for two
//! levels or more that lead but one way (a pod's /128 inside a cluster's /48): who leaves the path is answered by what lies
//! beside it. Above, there is a node for each level: few routes lie so alone that it costs an internet table 1 % of memory.
//!
//! **Why look-ups are fast.** A batch goes down level by level, not address by address, and no branch depends on an
//! address: those that have come to their leaf repeat some load in the root and stay where they are. So nothing is
//! mispredicted, and the loads of many addresses are under way at once. A level is cut into passes over the batch that
//! either only compute, which the compiler does eight addresses at a time, or only load. What lies below 48 bits, ways and
//! large values come after that, address by address, a step of each in turn, where they are few: seven batches of eight,
//! of an internet table, have none.
//!
//! Where the processor has AVX-512, `lanes.rs` does so with sixteen addresses in a register.
//!
//! **How it changes.** A run belongs to one route: runs of two routes are never joined, even where their values are
//! equal. So to change a route's value, or to hand its addresses back to the route that covers it, is to overwrite words
//! where they lie. A new route takes a new copy of the one node that it ends in (and what leads there, where there was
//! nothing); it is published by one store to the word that led to the old one. A route that goes leaves its words to
//! the route that covers it, and only when a thousand others have gone after it they are joined with their neighbours:
//! one that flaps finds words of its own. But for these, what the nodes look like depends on the routes alone,
//! not on the order that they came in. The default route stands apart: to change it is one store, and untouched memory
//! stays untouched. It has a count of its changes; a look-up that ends in it reads it before and after, and goes down
//! again where they differ: else one that found no longer route, just before one came, and then no default, just after
//! that went, would have found nothing where there always was a route.
//!
//! **What it costs.** A route of an internet table takes 24 bytes. At most a route takes five lines and a quarter, and
//! the first one longer than /16 in its 2^112 addresses a page of 1 KiB. To insert or remove a prefix of up to 16 bits
//! rewrites up to 2^15 root slots and all that lies under them; anything longer takes one or two nodes.
//!
//! Memory is one array of atomics, root first, then pages, then lines, indexed by number, which is checked, or clamped. Words
//! are stored with Release and read with Acquire, so what they lead to is seen whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytemuck::allocation::zeroed_slice_box;

use crate::aligned::Aligned;
use crate::engine::Reader;
use crate::processor::Avx512;
use crate::{NO_ROUTE, Value};

mod descent;
#[cfg(target_arch = "x86_64")]
pub(crate) mod lanes;
mod layout;
mod writer;

pub use writer::Engine;

use descent::{BATCH, FEW, descend, descend_one, first_cell};
use layout::{FIRST_LINE, LINE, PAGE_BITS, WIDE, leaf_value};

/// Times that a look-up begins again because the default route has changed meanwhile: as good as never twice.
const DEFAULT_CHANGES_MAX: u32 = 8;

/// What readers see. What else is written lies on other cache lines.
#[repr(align(128))]
struct Shared {
    /// Root, pages and lines.
    words: Aligned<AtomicU32>,
    /// Values too large for a word, at the places of the words that say so. Most tables never touch it: a group of next
    /// hops has a small number.
    wide: Box<[AtomicU32]>,
    /// The [`Default`] route.
    default: AtomicU64,
}

impl Shared {
    /// Asked for as zeroed memory and not written: the kernel gives a page when it is first touched, not before.
    fn new(lines: usize) -> Shared {
        let len = FIRST_LINE + lines * LINE;
        Shared {
            words: Aligned::zeroed(len),
            wide: zeroed_slice_box(len),
            default: AtomicU64::new(Default::NONE.0),
        }
    }

    #[inline(always)]
    fn words(&self) -> &[AtomicU32] {
        &self.words
    }

    fn wide(&self, cell: usize) -> Value {
        self.wide.get(cell).map_or(NO_ROUTE, |value| value.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn default(&self) -> Default {
        Default(self.default.load(Ordering::Acquire))
    }

    fn bytes(&self) -> usize {
        self.words.bytes() + size_of_val(&*self.wide)
    }
}

/// What the default route leads to, or [`NO_ROUTE`], in the low half; how often that has changed in the high one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Default(u64);

impl Default {
    const NONE: Default = Default(NO_ROUTE as u64);

    #[inline(always)]
    fn value(self) -> Value {
        self.0 as Value
    }

    fn changed_to(self, value: Value) -> Default {
        Default((self.0 >> 32).wrapping_add(1) << 32 | u64::from(value))
    }
}

/// The word of a cell, or no route where there is no such cell: were memory reused too early, the answer would be wrong
/// and nothing else.
#[inline(always)]
fn load(words: &[AtomicU32], cell: usize) -> u32 {
    match words.get(cell) {
        Some(word) => word.load(Ordering::Acquire),
        None => 0,
    }
}

/// A handle of the memory.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    avx512: Option<Avx512>,
}

impl Reader<u128> for Handle {
    #[inline]
    fn lookup(&self, addr: u128) -> Value {
        self.lookup_around(addr, || {})
    }

    fn portable(mut self) -> Handle {
        self.avx512 = None;
        self
    }

    fn lookup_batch(&self, keys: &[u128], out: &mut [Value]) {
        let (full, rest) = keys.as_chunks::<BATCH>();
        let (full_out, rest_out) = out.as_chunks_mut::<BATCH>();
        for (keys, out) in full.iter().zip(full_out) {
            self.answer(keys, out);
        }
        // Fewer than a batch's addresses cost as much as all of them.
        if rest.len() <= FEW {
            for (key, out) in rest.iter().zip(rest_out) {
                *out = self.lookup(*key);
            }
        } else {
            let mut padded = [0; BATCH];
            let mut answers = [0; BATCH];
            padded[..rest.len()].copy_from_slice(rest);
            self.answer(&padded, &mut answers);
            rest_out.copy_from_slice(&answers[..rest.len()]);
        }
    }
}

impl Handle {
    fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared, avx512: Avx512::detect() }
    }

    /// Answers a whole batch.
    fn answer(&self, keys: &[u128; BATCH], out: &mut [Value; BATCH]) {
        self.answer_around(keys, out, || {});
    }

    /// [`Self::answer`], and what tests do between going down and asking for the default route.
    #[inline(always)]
    fn answer_around(&self, keys: &[u128; BATCH], out: &mut [Value; BATCH], meanwhile: impl FnOnce()) {
        let before = self.shared.default();
        let words = self.shared.words();
        let wide_lanes = match self.avx512 {
            Some(avx512) => avx512.descend(words, keys, out),
            None => descend(words, keys, out),
        };
        meanwhile();
        let default = self.shared.default();
        if default != before {
            self.answer_one_by_one(keys, out);
            return;
        }
        for word in out.iter_mut() {
            *word = leaf_value(*word, || default.value());
        }
        if wide_lanes != 0 {
            self.answer_wide(keys, wide_lanes, out);
        }
    }

    /// Answers while the default route changes.
    #[cold]
    fn answer_one_by_one(&self, keys: &[u128; BATCH], out: &mut [Value; BATCH]) {
        for (key, out) in keys.iter().zip(out) {
            *out = self.lookup(*key);
        }
    }

    /// [`Reader::lookup`], and what tests do between going down and asking for the default route.
    #[inline(always)]
    fn lookup_around(&self, addr: u128, mut meanwhile: impl FnMut()) -> Value {
        let mut default = self.shared.default();
        for _ in 0..DEFAULT_CHANGES_MAX {
            if let Some(value) = self.longer_than_default(addr) {
                return value;
            }
            meanwhile();
            let after = self.shared.default();
            if after == default {
                break;
            }
            default = after;
        }
        default.value()
    }

    /// The answer that isn't the default route's.
    #[inline(always)]
    fn longer_than_default(&self, addr: u128) -> Option<Value> {
        let words = self.shared.words();
        let cell = first_cell(words.first_chunk()?, addr);
        let (word, cell) = descend_one(words, addr, (load(words, cell), cell), u32::from(PAGE_BITS));
        match word {
            0 => None,
            WIDE => Some(self.shared.wide(cell)),
            word => Some(leaf_value(word, || NO_ROUTE)),
        }
    }

    /// Answers again those whose value lies elsewhere.
    #[cold]
    fn answer_wide(&self, keys: &[u128; BATCH], mut lanes: u64, out: &mut [Value; BATCH]) {
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize;
            out[lane] = self.lookup(keys[lane]);
            lanes &= lanes - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Table};

    const KEY: u128 = 0x2001_0db8 << 96 | 1;
    const LONGER: (u128, u8) = (KEY, 128);

    /// A table with a default route, and its handles: with and without what this processor has beyond others.
    fn table() -> (Table<u128>, [Handle; 2]) {
        let mut table = Table::new(Limits::for_routes(16));
        table.insert(0, 0, 7).unwrap();
        let handle = table.reader().0;
        (table, [handle.clone(), handle.portable()])
    }

    /// The default route goes as a longer one comes, in the moment between going down and asking for it, and the other way
    /// round: there always is a route.
    #[test]
    fn an_address_has_a_route_while_the_default_gives_way_to_a_longer_one_and_comes_back() {
        let (mut table, handles) = table();
        let (addr, len) = LONGER;
        for (round, handle) in handles.iter().cycle().take(4).enumerate() {
            let mut out = [0; BATCH];
            handle.answer_around(&[KEY; BATCH], &mut out, || {
                table.insert(addr, len, 9).unwrap();
                table.remove(0, 0);
            });
            assert_eq!(out, [9; BATCH], "round {round}");
            table.insert(0, 0, 7).unwrap();
            table.remove(addr, len);
            let mut changes = 0;
            let found = handle.lookup_around(KEY, || {
                changes += 1;
                table.insert(addr, len, 9).unwrap();
                table.remove(0, 0);
            });
            assert_eq!((found, changes), (9, 1));
            table.insert(0, 0, 7).unwrap();
            table.remove(addr, len);
            // As often as one likes: there is an end.
            let found = handle.lookup_around(KEY, || assert!(table.insert(0, 0, 7).is_ok()));
            assert_eq!(found, 7);
        }
    }

    /// Between two that differ, neither default route may be the answer: a longer one may have come before the second.
    #[test]
    fn a_default_route_that_comes_after_a_longer_one_never_takes_its_addresses() {
        let (mut table, handles) = table();
        let (addr, len) = LONGER;
        for handle in handles {
            table.remove(0, 0);
            table.remove(addr, len);
            let mut out = [0; BATCH];
            handle.answer_around(&[KEY; BATCH], &mut out, || {
                table.insert(addr, len, 9).unwrap();
                table.insert(0, 0, 7).unwrap();
            });
            assert_eq!(out, [9; BATCH]);
        }
    }
}
