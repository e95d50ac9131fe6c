//! The engine of IPv4: slots that lead straight to leaves, at as fine a grain as each needs and no finer.
//!
//! The first 16 bits of an address choose a slot of the root. A slot says where its leaves begin and how many of the
//! next bits choose among them: none where one route covers the whole slot, eight where it holds a /24. That is all for
//! most addresses: one load of a slot, one of a leaf, no branch on what was loaded and no counting of bits. So a batch
//! is answered a load at a time for all its addresses, and the processor waits for many cache misses at once. The root,
//! 256 KiB, stays in a core's second-level cache; a wider one lets the leaves be fewer, and both miss it.
//!
//! ```text
//!   bits 0..16        16..24                                        24..26           26..32
//!   root[2^16]  ->  1, 2, 4 .. 256 leaves                   group: 4 slots  ->  1, 2, 4 .. 64 leaves
//!                   code of a value, or LONGER: group_of[2^24] -^
//! ```
//!
//! A leaf is the *code* of a value (`codes.rs`), in a byte where it fits: so what a full internet table's look-ups read is
//! 5 MiB, and how far away that lies is most of what a look-up costs. The largest byte says that the code, this one or a
//! larger, lies [`ELSEWHERE`], in an array of two bytes for each leaf; but for slots that say [`LARGE`], it is this one.
//! Zero stands there for the largest byte itself, so that the kernel need give no memory for what has no larger code.
//! One code, [`LONGER`], says that routes longer than /24 lie there; `group_of` then has the address's group, whose four
//! slots work as the root's do. These addresses are answered by themselves, so that the others don't wait.
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

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering, fence};

use bytemuck::allocation::zeroed_slice_box;

use crate::Value;
use crate::aligned::Aligned;
use crate::engine::Reader;
use crate::processor::Avx2;

mod codes;
#[cfg(target_arch = "x86_64")]
pub(crate) mod lanes;
mod writer;

pub use writer::Engine;

/// Bits of an address that choose a root slot.
const ROOT_BITS: u8 = 16;
/// Bits of an address that lead to a group.
const GROUP_BITS: u8 = 24;
/// Bits of an address that lead to one of a group's slots.
const QUARTER_BITS: u8 = 26;
/// Slots in a group.
const QUARTERS: usize = 4;
/// Bits that choose among the leaves of a slot of the root, at most.
const GRAIN: u8 = GROUP_BITS - ROOT_BITS;
/// Leaves in the arena's unit: blocks begin at multiples of it.
const UNIT: usize = 4;

/// The code that stands for a group; no value has it.
const LONGER: u16 = u16::MAX;
/// The code of no route.
const NONE: u16 = 0;
/// A leaf whose code is this or larger, and lies elsewhere.
const ELSEWHERE: u8 = u8::MAX;
/// In a slot: some of its leaves may have codes larger than [`ELSEWHERE`].
const LARGE: u32 = 1 << 5;
/// In a slot, above these bits: the unit that its leaves begin in.
const START: u32 = 6;
/// Leaf `CODES + UNIT * code` holds the code; below are zeros, into which slot 0 leads.
const CODES: usize = 1 << (32 - ROOT_BITS);
/// Leaves from here on are the arena's.
const BLOCKS: usize = CODES + (UNIT << 16);

/// Addresses that are answered together: enough for their cache misses to overlap.
const BATCH: usize = 64;
/// So many of them whose codes lie elsewhere are faster answered one after the other than together.
const FEW: usize = 4;

/// What readers see. What else is written lies on other cache lines.
#[repr(align(128))]
struct Shared {
    root: Aligned<AtomicU32>,
    /// The codes below [`ELSEWHERE`], or that.
    leaves: Aligned<AtomicU8>,
    /// The other codes, by their [`difference`], at the places of the leaves that say so.
    elsewhere: Box<[AtomicU16]>,
    /// Which group an address of 24 bits has; says nothing where its leaf isn't [`LONGER`].
    group_of: Box<[AtomicU32; 1 << GROUP_BITS]>,
    groups: Box<[[AtomicU32; QUARTERS]]>,
    /// What each code stands for, its bits inverted: so zero is [`NO_ROUTE`](crate::NO_ROUTE).
    values: Box<[AtomicU32; 1 << 16]>,
    /// How often a slot has come to say [`LARGE`]: told after it says so, before a leaf of its becomes so.
    announced: AtomicU32,
    /// Is there a code that isn't its value plus one? Then `values` must be asked. Never taken back.
    coded: AtomicBool,
}

impl Shared {
    /// Asked for as zeroed memory and not written: the kernel gives a page when it is first touched, not before.
    fn new(leaves: usize, groups: usize) -> Shared {
        Shared {
            root: Aligned::zeroed(1 << ROOT_BITS),
            leaves: Aligned::zeroed(BLOCKS + leaves),
            elsewhere: zeroed_slice_box(BLOCKS + leaves),
            group_of: zeroed(),
            groups: zeroed_slice_box(groups),
            values: zeroed(),
            announced: AtomicU32::new(0),
            coded: AtomicBool::new(false),
        }
    }

    fn bytes(&self) -> usize {
        self.root.bytes()
            + self.leaves.bytes()
            + size_of_val(&*self.elsewhere)
            + size_of_val(&*self.group_of)
            + size_of_val(&*self.groups)
            + size_of_val(&*self.values)
    }

    /// By its length, so that no index of its bits need be checked.
    #[inline(always)]
    fn root(&self) -> &[AtomicU32; 1 << ROOT_BITS] {
        self.root.first_chunk().unwrap_or_else(|| unreachable!("the root has as many slots"))
    }

    /// The code of a leaf.
    fn code(&self, leaf: usize) -> u16 {
        match self.leaves[leaf].load(Ordering::Relaxed) {
            ELSEWHERE => difference(self.elsewhere[leaf].load(Ordering::Relaxed)),
            code => code.into(),
        }
    }

    /// Gives a leaf a code, where readers see it.
    #[inline]
    fn write(&self, leaf: usize, code: u16) {
        let byte = u8::try_from(code).unwrap_or(ELSEWHERE);
        if byte == ELSEWHERE {
            self.write_elsewhere(leaf..leaf + 1, code);
        }
        self.leaves[leaf].store(byte, Ordering::Release);
    }

    /// [`Shared::write`] for some leaves next to each other.
    fn fill(&self, leaves: Range<usize>, code: u16) {
        let byte = u8::try_from(code).unwrap_or(ELSEWHERE);
        if byte == ELSEWHERE {
            self.write_elsewhere(leaves.clone(), code);
        }
        self.leaves[leaves].iter().for_each(|leaf| leaf.store(byte, Ordering::Release));
    }

    /// Before a leaf says [`ELSEWHERE`], for whoever reads that looks there.
    fn write_elsewhere(&self, leaves: Range<usize>, code: u16) {
        for leaf in &self.elsewhere[leaves] {
            // The kernel gives no page for what is only read.
            if leaf.load(Ordering::Relaxed) != difference(code) {
                leaf.store(difference(code), Ordering::Release);
            }
        }
    }

    fn value(&self, code: u16) -> Value {
        !self.values[usize::from(code)].load(Ordering::Relaxed)
    }
}

/// What stands elsewhere for a code, and the code for what stands there: zero for the smallest that lies there.
#[inline(always)]
fn difference(code: u16) -> u16 {
    code ^ u16::from(ELSEWHERE)
}

/// An array of zeros on the heap.
fn zeroed<const N: usize>() -> Box<[AtomicU32; N]> {
    zeroed_slice_box(N).try_into().unwrap_or_else(|_| unreachable!("a slice of {N}"))
}

/// The leaf that a slot leads to; `chosen` are the address's bits that the slot hasn't used, in its lower end.
///
/// A slot is the unit of its first leaf in 26 bits, [`LARGE`], and how many of those bits choose nothing in the other 5.
#[inline(always)]
fn leaf_index(slot: u32, chosen: u32) -> u32 {
    first_leaf(slot) + (chosen >> (slot % LARGE))
}

/// The first of the leaves that a slot leads to.
#[inline(always)]
fn first_leaf(slot: u32) -> u32 {
    (slot >> START) * UNIT as u32
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
pub struct Handle {
    shared: Arc<Shared>,
    avx2: Option<Avx2>,
}

impl Handle {
    fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared, avx2: Avx2::detect() }
    }
}

impl Reader<u32> for Handle {
    fn portable(mut self) -> Handle {
        self.avx2 = None;
        self
    }

    #[inline]
    fn lookup(&self, key: u32) -> Value {
        let shared = &*self.shared;
        let slot = shared.root()[(key >> (32 - ROOT_BITS)) as usize].load(Ordering::Acquire);
        let at = leaf_index(slot, below_root(key));
        let mut code = leaf(&shared.leaves, at, Ordering::Acquire);
        if code == u32::from(ELSEWHERE) {
            code = code_elsewhere(shared, key, at);
        }
        if shared.coded.load(Ordering::Relaxed) {
            !shared.values[usize::from(code as u16)].load(Ordering::Relaxed)
        } else {
            code.wrapping_sub(1)
        }
    }

    fn lookup_batch(&self, keys: &[u32], out: &mut [Value]) {
        let ((whole, keys_left), (whole_out, out_left)) = (keys.as_chunks(), out.as_chunks_mut());
        for (keys, out) in whole.iter().zip(whole_out) {
            self.answer(keys, out);
        }
        // Too few to be worth the stages: one after the other they overlap well enough.
        for (key, out) in keys_left.iter().zip(out_left) {
            *out = self.lookup(*key);
        }
    }
}

/// Numbers of a batch's addresses, where no load of some crosses a cache line's border.
#[repr(align(64))]
struct Batch([u32; BATCH]);

/// The slots of the addresses, and one less than the codes in their leaves: their values, mostly. Returns the slots, one or
/// the other, of those whose leaves say [`ELSEWHERE`]. `meanwhile` is what tests do between slots and leaves.
///
/// Where there are 255 values, one address in 255 has a code that fills its byte and lies nowhere else: to go and see would
/// be a branch mispredicted in every fourth batch.
#[inline(always)]
fn read(
    root: &[AtomicU32; 1 << ROOT_BITS],
    leaves: &[AtomicU8],
    keys: &[u32; BATCH],
    slots: &mut [u32; BATCH],
    out: &mut [u32; BATCH],
    meanwhile: impl FnOnce(),
) -> u32 {
    for (slot, key) in slots.iter_mut().zip(keys) {
        *slot = root[(key >> (32 - ROOT_BITS)) as usize].load(Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    let at = leaf_indices(keys, slots);
    meanwhile();
    for (code, at) in out.iter_mut().zip(&at) {
        *code = leaf(leaves, *at, Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    let mut full = 0;
    for (code, slot) in out.iter_mut().zip(slots) {
        full |= if *code == u32::from(ELSEWHERE) { *slot } else { 0 };
        *code = code.wrapping_sub(1);
    }
    full
}

/// The leaves that these slots lead to.
#[inline(always)]
fn leaf_indices(keys: &[u32; BATCH], slots: &[u32; BATCH]) -> [u32; BATCH] {
    let mut at = [0; BATCH];
    for ((at, slot), key) in at.iter_mut().zip(slots).zip(keys) {
        *at = leaf_index(*slot, below_root(*key));
    }
    at
}

impl Handle {
    /// One load for all the addresses, then the next.
    #[inline(always)]
    fn answer(&self, keys: &[u32; BATCH], out: &mut [u32; BATCH]) {
        self.answer_around(keys, out, || {});
    }

    /// [`Self::answer`], and what tests do between slots and leaves.
    #[inline(always)]
    fn answer_around(&self, keys: &[u32; BATCH], out: &mut [u32; BATCH], meanwhile: impl FnOnce()) {
        let shared = &*self.shared;
        // By themselves, or they would be looked up again for each address.
        let (root, leaves) = (shared.root(), &*shared.leaves);
        let announced = shared.announced.load(Ordering::Acquire);
        let mut slots = Batch([0; BATCH]);
        let full = match self.avx2 {
            Some(avx2) => avx2.read(root, leaves, keys, &mut slots.0, out, meanwhile),
            None => read(root, leaves, keys, &mut slots.0, out, meanwhile),
        };
        // A slot that came to say so since it was read may lead to anything.
        if full & LARGE != 0 || shared.announced.load(Ordering::Relaxed) != announced {
            answer_elsewhere(shared, keys, &slots.0, out);
        }
        // After the codes: whoever read a code that needs it reads this as true.
        if shared.coded.load(Ordering::Relaxed) {
            let values = &*shared.values;
            for out in out {
                *out = !values[usize::from(out.wrapping_add(1) as u16)].load(Ordering::Relaxed);
            }
        }
    }
}

/// Is the code of an address, whose leaf says [`ELSEWHERE`], no larger? The leaf must have been read before, with Acquire:
/// a slot says [`LARGE`] before a leaf of its becomes so. A slot that leads to another leaf now says nothing.
#[inline(always)]
fn is_no_larger(shared: &Shared, key: u32, at: u32) -> bool {
    let slot = shared.root()[(key >> (32 - ROOT_BITS)) as usize].load(Ordering::Relaxed);
    (slot & LARGE == 0) & (leaf_index(slot, below_root(key)) == at)
}

/// The code of an address whose leaf says that it lies elsewhere.
#[inline(always)]
fn code_elsewhere(shared: &Shared, key: u32, at: u32) -> u32 {
    if is_no_larger(shared, key, at) {
        return ELSEWHERE.into();
    }
    let code = other_code(shared, at, Ordering::Acquire);
    if code != u32::from(LONGER) {
        return code;
    }
    let group = shared.group_of[(key >> (32 - GROUP_BITS)) as usize].load(Ordering::Acquire);
    let at = leaf_index(quarter(&shared.groups, group, key, Ordering::Acquire), below_quarter(key));
    match leaf(&shared.leaves, at, Ordering::Acquire) {
        code if code == u32::from(ELSEWHERE) => other_code(shared, at, Ordering::Acquire),
        code => code,
    }
}

/// The codes that lie elsewhere than in the leaves that slots led to, less one.
#[inline(never)]
fn answer_elsewhere(shared: &Shared, keys: &[u32; BATCH], slots: &[u32; BATCH], out: &mut [u32; BATCH]) {
    let lane_if = |(lane, out): (usize, &u32)| u64::from(*out == u32::from(ELSEWHERE) - 1) << lane;
    let mut lanes = out.iter().enumerate().map(lane_if).fold(0, std::ops::BitOr::bitor);
    if lanes.count_ones() as usize <= FEW {
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize % BATCH;
            let at = leaf_index(slots[lane], below_root(keys[lane]));
            out[lane] = code_elsewhere(shared, keys[lane], at).wrapping_sub(1);
            lanes &= lanes - 1;
        }
        return;
    }
    let mut codes = out.map(|out| out.wrapping_add(1));
    codes_elsewhere(shared, keys, &leaf_indices(keys, slots), &mut codes);
    *out = codes.map(|code| code.wrapping_sub(1));
}

/// The codes that lie elsewhere than in the leaves, of many addresses.
#[inline(always)]
fn codes_elsewhere(shared: &Shared, keys: &[u32; BATCH], at: &[u32; BATCH], codes: &mut [u32; BATCH]) {
    // No branch for each; the others repeat some load that is near, and 0 is no code of theirs.
    let places: [u32; BATCH] = std::array::from_fn(|lane| {
        let is_large = (codes[lane] == u32::from(ELSEWHERE)) & !is_no_larger(shared, keys[lane], at[lane]);
        if is_large { at[lane] } else { 0 }
    });
    let mut others = [0; BATCH];
    for (other, place) in others.iter_mut().zip(&places) {
        *other = other_code(shared, *place, Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    for ((code, other), place) in codes.iter_mut().zip(&others).zip(&places) {
        *code = if *place == 0 { *code } else { *other };
    }
    if codes.iter().fold(false, |any, code| any | (*code == u32::from(LONGER))) {
        answer_longer(shared, keys, codes);
    }
}

/// One load for all addresses whose code is [`LONGER`], then the next.
#[inline(never)]
fn answer_longer(shared: &Shared, keys: &[u32; BATCH], codes: &mut [u32; BATCH]) {
    let (mut lanes, mut count) = ([0; BATCH], 0);
    for (lane, code) in codes.iter().enumerate() {
        lanes[count % BATCH] = lane;
        count += usize::from(*code == u32::from(LONGER));
    }
    // Each is below `BATCH`, as the compiler is told.
    let lanes = || lanes[..count.min(BATCH)].iter().map(|lane| lane % BATCH);
    let (group_of, groups, leaves) = (&*shared.group_of, &*shared.groups, &*shared.leaves);
    let mut at = [0; BATCH];
    for lane in lanes() {
        at[lane] = group_of[(keys[lane] >> (32 - GROUP_BITS)) as usize].load(Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    for lane in lanes() {
        at[lane] = quarter(groups, at[lane], keys[lane], Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    for lane in lanes() {
        at[lane] = leaf_index(at[lane], below_quarter(keys[lane]));
        codes[lane] = leaf(leaves, at[lane], Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    for lane in lanes() {
        if codes[lane] == u32::from(ELSEWHERE) {
            codes[lane] = other_code(shared, at[lane], Ordering::Relaxed);
        }
    }
    fence(Ordering::Acquire);
}

/// The code that lies elsewhere for a leaf.
#[inline(always)]
fn other_code(shared: &Shared, at: u32, order: Ordering) -> u32 {
    leaf(&shared.elsewhere, at, order) ^ u32::from(ELSEWHERE)
}

/// What stands in a leaf, or elsewhere at its place.
#[inline(always)]
fn leaf<T: Load>(leaves: &[T], index: u32, order: Ordering) -> u32 {
    leaves.get(index as usize).map_or(0, |leaf| leaf.load(order))
}

/// A number that threads share.
trait Load {
    fn load(&self, order: Ordering) -> u32;
}

impl Load for AtomicU8 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u32 {
        AtomicU8::load(self, order).into()
    }
}

impl Load for AtomicU16 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u32 {
        AtomicU16::load(self, order).into()
    }
}

/// The slot of an address in its group.
#[inline(always)]
fn quarter(groups: &[[AtomicU32; QUARTERS]], group: u32, key: u32, order: Ordering) -> u32 {
    let quarter = (key >> (32 - QUARTER_BITS)) as usize % QUARTERS;
    groups.get(group as usize).map_or(0, |group| group[quarter].load(order))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Table};

    /// A leaf's code is small, then large and another one each time, and a reader never finds a large one that is gone.
    #[test]
    fn a_large_code_is_there_before_its_leaf_says_so() {
        /// At odd steps, a large one.
        fn code_at(step: u32) -> u16 {
            if step.is_multiple_of(2) { 7 } else { 256 + (step % 60_000) as u16 }
        }
        let (shared, step) = (Shared::new(UNIT, 0), AtomicU32::new(0));
        shared.write(BLOCKS, code_at(0));
        let ask = |_| {
            let before = step.load(Ordering::SeqCst);
            let at = BLOCKS as u32;
            let code = match leaf(&shared.leaves, at, Ordering::Acquire) {
                code if code == u32::from(ELSEWHERE) => other_code(&shared, at, Ordering::Acquire),
                code => code,
            };
            // The step after is taken before it is told.
            let after = step.load(Ordering::SeqCst) + 1;
            let was = (before..=after).any(|step| u32::from(code_at(step)) == code);
            (!was).then_some((before, code, after))
        };
        let stop = AtomicBool::new(false);
        let wrong = std::thread::scope(|scope| {
            scope.spawn(|| {
                for next in (1..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    shared.write(BLOCKS, code_at(next));
                    step.store(next, Ordering::SeqCst);
                }
            });
            while step.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            let wrong = (0..5_000_000).find_map(ask);
            stop.store(true, Ordering::Relaxed);
            wrong
        });
        assert_eq!(wrong, None, "step before, code, step after");
    }

    /// A route's value, and with it its code, grows beyond a byte when its slot has been read and its leaf hasn't.
    #[test]
    fn a_code_that_grows_beyond_a_byte_meanwhile_is_looked_for_elsewhere() {
        let (addr, large) = (0x0a00_0100, 1000);
        for (before, is_portable) in [(7, false), (254, false), (7, true), (254, true)] {
            let mut table = Table::<u32>::new(Limits::for_routes(16));
            table.insert(addr, 24, before).unwrap();
            let handle = if is_portable { table.reader().0.portable() } else { table.reader().0 };
            let mut out = [0; BATCH];
            handle.answer(&[addr; BATCH], &mut out);
            assert_eq!(out, [before; BATCH]);
            handle.answer_around(&[addr; BATCH], &mut out, || assert!(table.insert(addr, 24, large).is_ok()));
            assert_eq!(out, [large; BATCH]);
            handle
                .answer_around(&[addr; BATCH], &mut out, || assert!(table.insert(addr, 24, before).is_ok()));
            assert_eq!(out, [before; BATCH]);
        }
    }

    /// Routes go together when their slot has been read and their leaves haven't, and others come that need as much room.
    #[test]
    fn leaves_that_a_reader_is_on_its_way_to_are_nobody_elses() {
        let mut table = Table::<u32>::new(Limits { max_routes: 128, max_nodes: 0, max_leaves: 0 });
        let part = |first: u32| (0..64).map(move |number| (first | number << 8, 24));
        table.insert(0x0a00_0000, 8, 9).unwrap();
        part(0x0a41_0000).for_each(|(addr, len)| assert_eq!(table.insert(addr, len, 1), Ok(None)));
        let handle = table.reader().0;
        let keys = std::array::from_fn(|number| 0x0a41_0007 | (number as u32) << 8);
        let mut out = [0; BATCH];
        handle.answer_around(&keys, &mut out, || {
            let mut removing = table.removing();
            part(0x0a41_0000).for_each(|(addr, len)| assert_eq!(removing.remove(addr, len), Some(1)));
            drop(removing);
            table.retire(1, 0);
            part(0x0a42_0000).for_each(|(addr, len)| assert_eq!(table.insert(addr, len, 2), Ok(None)));
        });
        assert_eq!(out, [1; BATCH]);
        handle.answer_around(&keys, &mut out, || {});
        assert_eq!(out, [9; BATCH]);
    }
}
