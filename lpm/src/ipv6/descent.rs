//! How a batch of addresses goes down the trie: level by level, all of them together.

use std::hint::select_unpredictable;
use std::sync::atomic::{AtomicU32, Ordering};

use super::layout::{
    BRANCH, COMMON_BITS, FIRST_LINE, LINE, SPECIAL, STEPS_MAX, STRIDE, WAY_BESIDE, WAY_CHILD, WAY_END, WIDE,
    entry_cell, group_of, is_child, is_node, line_start, page_cell, root_cell, run_index,
};
use super::load;

/// Addresses that go down together.
pub(super) const BATCH: usize = 64;
/// Fewer addresses than this are faster asked for alone than as a batch.
pub(super) const FEW: usize = 12;
/// Up to so many of a batch are faster taken down by themselves, where the others have come to their leaves.
const STRAGGLERS: usize = 32;
/// Bytes in an address.
const KEY_BYTES: usize = 16;

/// Takes all addresses to their leaves' words. The lanes of those whose value lies elsewhere are the answer.
pub(super) fn descend(words: &[AtomicU32], keys: &[u128; BATCH], at: &mut [u32; BATCH]) -> u64 {
    let Some(front) = words.first_chunk::<FIRST_LINE>() else { return 0 };
    for (at, key) in at.iter_mut().zip(keys) {
        *at = front[first_cell(front, *key)].load(Ordering::Acquire);
    }
    let next_three: [u32; BATCH] =
        std::array::from_fn(|lane| (keys[lane] >> (128 - u32::from(COMMON_BITS))) as u32);
    for shift in [16, 8, 0] {
        if !any_at_node(at) {
            break;
        }
        *at = step(words, &next_three.map(|bytes| (bytes >> shift) as u8), at);
    }
    descend_rest(words, keys, lanes_where(at, |word| word & BRANCH != 0), at)
}

/// Takes those to their leaves that have come to nodes, [`COMMON_BITS`] down, or to ways; these are their lanes.
pub(super) fn descend_rest(
    words: &[AtomicU32],
    keys: &[u128; BATCH],
    lanes: u64,
    at: &mut [u32; BATCH],
) -> u64 {
    if lanes == 0 {
        0
    } else if lanes.count_ones() as usize <= STRAGGLERS {
        descend_stragglers(words, keys, lanes, at)
    } else {
        descend_many(words, keys, at)
    }
}

/// A step of each in turn, not one after the other down to their leaves: so their loads are under way together, and as most
/// are at nodes when others are, and at ways when others are, it is foreseen which.
fn descend_stragglers(
    words: &[AtomicU32],
    keys: &[u128; BATCH],
    mut lanes: u64,
    at: &mut [u32; BATCH],
) -> u64 {
    let mut wide_lanes = 0;
    let mut depths = [u32::from(COMMON_BITS); BATCH];
    for _ in 0..STEPS_MAX {
        for lane in each_of(lanes) {
            let word = at[lane];
            if is_child(word) {
                let (cell, depth) = next_cell(words, word, keys[lane], depths[lane]);
                (at[lane], depths[lane]) = (load(words, cell), depth);
            } else {
                lanes &= !(1 << lane);
                // It is looked up again, so nobody asks for its cell.
                wide_lanes |= u64::from(word == WIDE) << lane;
            }
        }
        if lanes == 0 {
            break;
        }
    }
    for lane in each_of(lanes | wide_lanes) {
        at[lane] = 0;
    }
    wide_lanes
}

/// All together.
fn descend_many(words: &[AtomicU32], keys: &[u128; BATCH], at: &mut [u32; BATCH]) -> u64 {
    let bytes: &[u8; BATCH * KEY_BYTES] = bytemuck::cast_ref(keys);
    let mut ways = Ways::new();
    for _ in 0..STEPS_MAX {
        ways.pass(words, keys, at);
        if !any_at_node(at) {
            break;
        }
        *at = step(words, &ways.next.map(|next| bytes[next as usize % (BATCH * KEY_BYTES)]), at);
        for next in &mut ways.next {
            *next = next_byte(*next);
        }
    }
    ways.wide_lanes
}

/// Takes an address to its leaf from a word `depth` bits down, which stands in this cell: the leaf's word and cell.
#[inline(always)]
pub(super) fn descend_one(
    words: &[AtomicU32],
    addr: u128,
    (mut word, mut cell): (u32, usize),
    mut depth: u32,
) -> (u32, usize) {
    for _ in 0..STEPS_MAX {
        if !is_child(word) {
            return (word, cell);
        }
        (cell, depth) = next_cell(words, word, addr, depth);
        word = load(words, cell);
    }
    (0, cell)
}

/// Where an address goes on that has come to a child `depth` bits down: the cell, and its depth.
#[inline(always)]
fn next_cell(words: &[AtomicU32], child: u32, addr: u128, depth: u32) -> (usize, u32) {
    let start = line_start(child);
    if is_node(child) {
        // Shifted round, so that no depth is too large.
        let byte = addr.rotate_left(depth + u32::from(STRIDE)) as u8;
        (entry_cell(words, start, byte), depth + u32::from(STRIDE))
    } else {
        way_cell(words, start, addr, depth)
    }
}

/// The lanes whose bits are set.
fn each_of(mut lanes: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = lanes.trailing_zeros() as usize;
        lanes &= lanes.wrapping_sub(1);
        (lane < BATCH).then_some(lane)
    })
}

/// A bit for each lane whose word is such.
fn lanes_where(at: &[u32; BATCH], is_such: impl Fn(u32) -> bool) -> u64 {
    let lane_if = |(lane, word): (usize, &u32)| u64::from(is_such(*word)) << lane;
    at.iter().enumerate().map(lane_if).fold(0, std::ops::BitOr::bitor)
}

fn any_at_node(at: &[u32; BATCH]) -> bool {
    at.iter().fold(false, |any, word| any | is_node(*word))
}

/// Takes every address that has come to a node down one level, by its byte; the others stay where they are.
///
/// What is computed and what is loaded are kept apart: loops that only compute become vector code, and loops that only
/// load have many loads under way. That is worth two arrays on the stack. Where the addresses have come to is written to
/// other memory than it is read from, or the compiler makes masked stores of it, which AMD's processors do in a dozen
/// clocks each. A function of its own, so that the compiler sees it so wherever it is called.
#[inline(never)]
fn step(words: &[AtomicU32], bytes: &[u8; BATCH], from: &[u32; BATCH]) -> [u32; BATCH] {
    let last = (words.len() - 1) as u32;
    let mut cells = [0u32; BATCH];
    let mut found = [0u32; BATCH];
    for ((cell, at), byte) in cells.iter_mut().zip(from).zip(bytes) {
        let header = (at << LINE.trailing_zeros()).wrapping_add(group_of(*byte).0);
        *cell = if is_node(*at) { header.min(last) } else { 0 };
    }
    load_all(words, &cells, &mut found);
    for (((cell, header), at), byte) in cells.iter_mut().zip(&found).zip(from).zip(bytes) {
        let run = (at << LINE.trailing_zeros()).wrapping_add(run_index(*header, *byte));
        *cell = if is_node(*at) { run.min(last) } else { 0 };
    }
    load_all(words, &cells, &mut found);
    let mut to = [0; BATCH];
    for ((to, from), found) in to.iter_mut().zip(from).zip(&found) {
        *to = if is_node(*from) { *found } else { *from };
    }
    to
}

/// Loads cells, none of which lies beyond the last one.
#[inline(always)]
fn load_all(words: &[AtomicU32], cells: &[u32; BATCH], found: &mut [u32; BATCH]) {
    for (found, cell) in found.iter_mut().zip(cells) {
        *found = words[*cell as usize].load(Ordering::Acquire);
    }
}

/// The cell in the root, or in its page, that an address begins at.
#[inline(always)]
pub(super) fn first_cell(front: &[AtomicU32; FIRST_LINE], addr: u128) -> usize {
    let root = root_cell(addr);
    let word = front[root].load(Ordering::Acquire);
    // Of the words that a root slot can hold, only the one that leads to its page looks like a node.
    select_unpredictable(is_node(word), page_cell(addr), root)
}

/// Where, in a batch's bytes, byte `index` (0..16, first on the wire) of an address lies.
#[inline(always)]
fn byte_at(lane: usize, index: usize) -> usize {
    lane * KEY_BYTES + if cfg!(target_endian = "little") { KEY_BYTES - 1 - index } else { index }
}

/// The byte after this one.
fn next_byte(byte_at: u32) -> u32 {
    if cfg!(target_endian = "little") { byte_at.wrapping_sub(1) } else { byte_at.wrapping_add(1) }
}

/// A batch on its way further down than all go.
struct Ways {
    /// Where in the batch's bytes each address's next byte lies.
    next: [u32; BATCH],
    /// Addresses whose value lies elsewhere.
    wide_lanes: u64,
}

impl Ways {
    /// All addresses that have come to nodes have [`COMMON_BITS`] behind them.
    fn new() -> Ways {
        let next = std::array::from_fn(|lane| byte_at(lane, COMMON_BITS as usize / 8) as u32);
        Ways { next, wide_lanes: 0 }
    }

    /// Takes all that have come to ways to their end or beside them.
    fn pass(&mut self, words: &[AtomicU32], keys: &[u128; BATCH], at: &mut [u32; BATCH]) {
        let mut lanes = lanes_where(at, |word| word >= SPECIAL);
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize;
            let word = at[lane];
            if word == WIDE {
                self.wide_lanes |= 1 << lane;
                at[lane] = 0;
            } else {
                let (cell, depth) = way_cell(words, line_start(word), keys[lane], 0);
                at[lane] = load(words, cell);
                self.next[lane] = byte_at(lane, depth as usize / 8 % KEY_BYTES) as u32;
            }
            // A way may end in another one.
            if at[lane] < SPECIAL {
                lanes &= lanes - 1;
            }
        }
    }
}

/// Where an address goes on that has come to a way `depth` bits down: the cell, and its depth.
#[inline(always)]
pub(super) fn way_cell(words: &[AtomicU32], start: usize, addr: u128, depth: u32) -> (usize, u32) {
    // One question for all of the line, not one for each word.
    let Some(line) = words.get(start..).and_then(|rest| rest.first_chunk::<LINE>()) else {
        return (0, depth);
    };
    let part = |index: usize| u128::from(line[index].load(Ordering::Acquire));
    let path = part(0) << 96 | part(1) << 64 | part(2) << 32 | part(3);
    let end = line[WAY_END].load(Ordering::Acquire);
    if (path ^ addr).leading_zeros() >= end { (start + WAY_CHILD, end) } else { (start + WAY_BESIDE, depth) }
}
