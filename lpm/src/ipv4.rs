//! The engine of IPv4: slots that lead straight to leaves, at as fine a grain as each needs and no finer.
//!
//! The first 18 bits of an address choose a slot of the root. A slot says where its leaves begin and how many of the
//! next bits choose among them: none where one route covers the whole slot, six where it holds a /24. That is all for
//! most addresses: one load of a slot, one of a leaf, no branch on what was loaded and no counting of bits. So a batch
//! is answered a load at a time for all its addresses, and the processor waits for many cache misses at once.
//!
//! ```text
//!   bits 0..18        18..24                                        24..26           26..32
//!   root[2^18]  ->  1, 2, 4 .. 64 leaves                    group: 4 slots  ->  1, 2, 4 .. 64 leaves
//!                   code of a value, or LONGER: group_of[2^24] -^
//! ```
//!
//! A leaf is two bytes: the *code* of a value (`codes.rs`), so that a full internet table fits in 8 MiB. One code,
//! [`LONGER`], says that routes longer than /24 lie there; `group_of` then has the address's group, whose four slots
//! work as the root's do. These addresses are gathered and answered by themselves, so that the others don't wait.
//!
//! A slot with one leaf needs no memory for it: a region of the leaves ([`CODES`]) holds each code once, and the slot
//! points there. All-zero memory is an empty table: slot 0 leads, whatever bits choose, into a region of zeros, and
//! code 0 is "no route".
//!
//! What is published how: a change of value, a new route where leaves are fine enough already, and a removal are stores
//! into leaves where they lie. Only where the grain changes is a new block of leaves filled and the slot swapped, with
//! one store; the old block is free again once no reader can be looking at it. Slots and leaves are stored with
//! Release; a reader fences with Acquire between one load and what it leads to. Every index is checked, so were memory
//! reused too early, the answer would be wrong and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering, fence};

use bytemuck::allocation::zeroed_slice_box;

use crate::Value;
use crate::aligned::Aligned;
use crate::engine::Reader;

mod codes;
mod writer;

pub use writer::Engine;

/// Bits of an address that choose a root slot.
const ROOT_BITS: u8 = 18;
/// Bits of an address that lead to a group.
const GROUP_BITS: u8 = 24;
/// Bits of an address that lead to one of a group's slots.
const QUARTER_BITS: u8 = 26;
/// Slots in a group.
const QUARTERS: usize = 4;
/// Bits that choose among a slot's leaves, at most.
const GRAIN: u8 = 6;

/// The code that stands for a group; no value has it.
const LONGER: u16 = u16::MAX;
/// The code of no route.
const NONE: u16 = 0;
/// Leaf `CODES + 2 * code` holds the code; below are zeros, into which slot 0 leads.
const CODES: usize = 1 << (32 - ROOT_BITS);
/// Leaves from here on are the arena's.
const BLOCKS: usize = CODES + (2 << 16);

/// Addresses that are answered together: enough for their cache misses to overlap.
const BATCH: usize = 64;

/// What readers see.
struct Shared {
    root: Aligned,
    leaves: Box<[AtomicU16]>,
    /// Which group an address of 24 bits has; says nothing where its leaf isn't [`LONGER`].
    group_of: Box<[AtomicU32; 1 << GROUP_BITS]>,
    groups: Box<[[AtomicU32; QUARTERS]]>,
    /// What each code stands for, its bits inverted: so zero is [`NO_ROUTE`](crate::NO_ROUTE).
    values: Box<[AtomicU32; 1 << 16]>,
    /// Is there a code that isn't its value plus one? Then `values` must be asked. Never taken back.
    coded: AtomicBool,
}

impl Shared {
    /// Asked for as zeroed memory and not written: the kernel gives a page when it is first touched, not before.
    fn new(leaves: usize, groups: usize) -> Shared {
        Shared {
            root: Aligned::zeroed(1 << ROOT_BITS),
            leaves: zeroed_slice_box(BLOCKS + leaves),
            group_of: zeroed(),
            groups: zeroed_slice_box(groups),
            values: zeroed(),
            coded: AtomicBool::new(false),
        }
    }

    fn bytes(&self) -> usize {
        self.root.bytes()
            + size_of_val(&*self.leaves)
            + size_of_val(&*self.group_of)
            + size_of_val(&*self.groups)
            + size_of_val(&*self.values)
    }

    /// By its length, so that no index of its bits need be checked.
    #[inline(always)]
    fn root(&self) -> &[AtomicU32; 1 << ROOT_BITS] {
        self.root.first_chunk().unwrap_or_else(|| unreachable!("the root has as many slots"))
    }

    fn value(&self, code: u16) -> Value {
        !self.values[usize::from(code)].load(Ordering::Relaxed)
    }
}

/// An array of zeros on the heap.
fn zeroed<const N: usize>() -> Box<[AtomicU32; N]> {
    zeroed_slice_box(N).try_into().unwrap_or_else(|_| unreachable!("a slice of {N}"))
}

/// The leaf that a slot leads to; `chosen` are the address's bits that the slot hasn't used, in its lower end.
///
/// A slot is the number of its first leaf, halved, in 27 bits, and how many of those bits choose nothing in the other
/// 5.
#[inline(always)]
fn leaf_index(slot: u32, chosen: u32) -> u32 {
    // Modulo 32, which the shift does by itself.
    (slot >> 5 << 1) + chosen.wrapping_shr(slot)
}

/// The bits that a root slot's leaves are chosen by.
#[inline(always)]
fn below_root(key: u32) -> u32 {
    key & ((1 << (32 - ROOT_BITS)) - 1)
}

/// The bits that a group's slot's leaves are chosen by.
#[inline(always)]
fn below_quarter(key: u32) -> u32 {
    key & ((1 << (32 - QUARTER_BITS)) - 1)
}

/// A handle of the memory.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Reader<u32> for Handle {
    #[inline]
    fn lookup(&self, key: u32) -> Value {
        let shared = &*self.0;
        let slot = shared.root()[(key >> (32 - ROOT_BITS)) as usize].load(Ordering::Acquire);
        let mut code = leaf(&shared.leaves, leaf_index(slot, below_root(key)), Ordering::Acquire);
        if code == u32::from(LONGER) {
            let group = shared.group_of[(key >> (32 - GROUP_BITS)) as usize].load(Ordering::Acquire);
            let slot = quarter(&shared.groups, group, key, Ordering::Acquire);
            code = leaf(&shared.leaves, leaf_index(slot, below_quarter(key)), Ordering::Acquire);
        }
        if shared.coded.load(Ordering::Relaxed) {
            !shared.values[usize::from(code as u16)].load(Ordering::Relaxed)
        } else {
            code.wrapping_sub(1)
        }
    }

    fn lookup_batch(&self, keys: &[u32], out: &mut [Value]) {
        let shared = &*self.0;
        let ((whole, keys_left), (whole_out, out_left)) = (keys.as_chunks(), out.as_chunks_mut());
        for (keys, out) in whole.iter().zip(whole_out) {
            answer(shared, keys, out);
        }
        // Too few to be worth the stages: one after the other they overlap well enough.
        for (key, out) in keys_left.iter().zip(out_left) {
            *out = self.lookup(*key);
        }
    }
}

/// One load for all the addresses, then the next.
#[inline(always)]
fn answer(shared: &Shared, keys: &[u32; BATCH], out: &mut [u32; BATCH]) {
    // By themselves, or they would be looked up again for each address.
    let (root, leaves) = (shared.root(), &*shared.leaves);
    let mut at = [0; BATCH];
    for (at, key) in at.iter_mut().zip(keys) {
        *at = root[(key >> (32 - ROOT_BITS)) as usize].load(Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    for (at, key) in at.iter_mut().zip(keys) {
        *at = leaf_index(*at, below_root(*key));
    }
    for (out, at) in out.iter_mut().zip(&at) {
        *out = leaf(leaves, *at, Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    // Folded to the end, for the processor compares many at once.
    if out.iter().fold(false, |any, code| any | (*code == u32::from(LONGER))) {
        answer_longer(shared, keys, out);
    }
    // After the codes: whoever read a code that needs it reads this as true.
    if shared.coded.load(Ordering::Relaxed) {
        let values = &*shared.values;
        for out in out {
            *out = !values[usize::from(*out as u16)].load(Ordering::Relaxed);
        }
    } else {
        for out in out {
            *out = out.wrapping_sub(1);
        }
    }
}

/// The same for those whose code is [`LONGER`].
#[inline(never)]
fn answer_longer(shared: &Shared, keys: &[u32; BATCH], codes: &mut [u32; BATCH]) {
    let (group_of, groups, leaves) = (&*shared.group_of, &*shared.groups, &*shared.leaves);
    let (mut lanes, mut count) = ([0; BATCH], 0);
    for (lane, code) in codes.iter().enumerate() {
        lanes[count % BATCH] = lane;
        count += usize::from(*code == u32::from(LONGER));
    }
    let lanes = &lanes[..count.min(BATCH)];
    let mut at = [0; BATCH];
    for (at, lane) in at.iter_mut().zip(lanes) {
        *at = group_of[(keys[lane % BATCH] >> (32 - GROUP_BITS)) as usize].load(Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    for (at, lane) in at.iter_mut().zip(lanes) {
        *at = quarter(groups, *at, keys[lane % BATCH], Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    for (at, lane) in at.iter().zip(lanes) {
        let index = leaf_index(*at, below_quarter(keys[lane % BATCH]));
        codes[lane % BATCH] = leaf(leaves, index, Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
}

#[inline(always)]
fn leaf(leaves: &[AtomicU16], index: u32, order: Ordering) -> u32 {
    leaves.get(index as usize).map_or(0, |leaf| leaf.load(order).into())
}

/// The slot of an address in its group.
#[inline(always)]
fn quarter(groups: &[[AtomicU32; QUARTERS]], group: u32, key: u32, order: Ordering) -> u32 {
    let quarter = (key >> (32 - QUARTER_BITS)) as usize % QUARTERS;
    groups.get(group as usize).map_or(0, |group| group[quarter].load(order))
}
