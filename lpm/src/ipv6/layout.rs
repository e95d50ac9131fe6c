//! How words, nodes and ways are written.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::Value;

use super::load;

/// Bits of an address that index the root.
pub(super) const ROOT_BITS: u8 = 16;
/// Slots of the root.
pub(super) const ROOT_SLOTS: usize = 1 << ROOT_BITS;
/// Bits of an address that lead to its place in a page.
pub(super) const PAGE_BITS: u8 = 24;
/// Slots of a page.
pub(super) const PAGE_SLOTS: usize = 1 << (PAGE_BITS - ROOT_BITS);
/// In a root slot: the page answers.
pub(super) const PAGE: u32 = BRANCH;
/// Words before the lines: the root, then a page for each of its slots.
pub(super) const FIRST_LINE: usize = ROOT_SLOTS + ROOT_SLOTS * PAGE_SLOTS;
/// Bits of an address that one node takes.
pub(super) const STRIDE: u8 = 8;
/// Few prefixes of the internet are longer. No way begins before: that far, all addresses' next bytes are at one place, and
/// a batch's addresses go down together.
pub(super) const COMMON_BITS: u8 = 48;
/// Words in a line, which is the arena's unit and a cache line.
pub(super) const LINE: usize = 16;
/// Lines of root and arena at most, so that the number of a cell has 32 bits.
pub(super) const LINES_MAX: usize = (1 << 28) - 1;
/// Nodes and ways on the longest path: 13 nodes below the page, a way before each.
pub(super) const STEPS_MAX: usize = 27;

/// Set in a word that isn't a leaf of its own.
pub(super) const BRANCH: u32 = 1 << 31;
/// The bits that tell nodes from [`SPECIAL`] words, where [`BRANCH`] is set.
pub(super) const KIND: u32 = 0b11 << 30;
/// The [`KIND`] of ways and of [`WIDE`].
pub(super) const SPECIAL: u32 = 0b11 << 30;
/// A leaf whose value lies elsewhere.
pub(super) const WIDE: u32 = u32::MAX;
/// Values from here on are [`WIDE`].
pub(super) const WIDE_FROM: Value = BRANCH - 1;

/// Entries that one word of a node's header is about: a bit for each at which a run begins, and in the eight bits above
/// them the number of runs begun before.
pub(super) const GROUP: u32 = 24;
/// Words of a node before its runs' words.
pub(super) const HEADER: usize = 256usize.div_ceil(GROUP as usize);

/// Words of a way: the four of its path, then these.
pub(super) const WAY_END: usize = 4;
/// The leaf of those who leave the path.
pub(super) const WAY_BESIDE: usize = 5;
/// The child at its end.
pub(super) const WAY_CHILD: usize = 6;

/// The word of a node.
pub(super) fn node_word(line: u32) -> u32 {
    BRANCH | line
}

/// The word of a way.
pub(super) fn way_word(line: u32) -> u32 {
    SPECIAL | line
}

/// Does this word lead to a node or a way?
pub(super) fn is_child(word: u32) -> bool {
    word & BRANCH != 0 && word != WIDE
}

/// Does this word lead to a way?
pub(super) fn is_way(word: u32) -> bool {
    word & KIND == SPECIAL && word != WIDE
}

/// The line that a child lies in.
pub(super) fn line_of(word: u32) -> u32 {
    word & !KIND
}

/// The first cell of the line that a child lies in: the number of a line has 28 bits.
#[inline(always)]
pub(super) fn line_start(word: u32) -> usize {
    (word << LINE.trailing_zeros()) as usize
}

/// The cell in the root that an address begins at.
#[inline(always)]
pub(super) fn root_cell(addr: u128) -> usize {
    (addr >> (128 - ROOT_BITS)) as usize
}

/// The cell in its page that an address goes on at, where the root says so.
#[inline(always)]
pub(super) fn page_cell(addr: u128) -> usize {
    ROOT_SLOTS + (addr >> (128 - PAGE_BITS)) as usize
}

/// Does this word lead to a node?
#[inline(always)]
pub(super) fn is_node(word: u32) -> bool {
    word & KIND == BRANCH
}

/// The answer that a leaf's word stands for.
#[inline(always)]
pub(super) fn leaf_value(word: u32, default: impl FnOnce() -> Value) -> Value {
    if word == 0 { default() } else { word.wrapping_sub(1) }
}

/// In which group of a node an entry is, and the how manieth there.
#[inline(always)]
pub(super) fn group_of(entry: u8) -> (u32, u32) {
    // 171 / 4096 is 1 / 24 for all numbers of eight bits; told like this, it is computed in vectors of 32 bits.
    let group = (u32::from(entry) * 171) >> 12;
    (group, u32::from(entry) - group * GROUP)
}

/// The index in a node of the word of an entry's run, where `header` is the word of the entry's group.
#[inline(always)]
pub(super) fn run_index(header: u32, entry: u8) -> u32 {
    let begun = header << (31 - group_of(entry).1);
    // The run that is begun last is the one: its number is one less than how many are begun.
    (HEADER as u32 - 1) + (header >> GROUP) + begun.count_ones()
}

/// The cell of the run that an entry of the node at `start` belongs to.
#[inline(always)]
pub(super) fn entry_cell(words: &[AtomicU32], start: usize, entry: u8) -> usize {
    let header = load(words, start + group_of(entry).0 as usize);
    start + run_index(header, entry) as usize
}

/// How many runs the node at `start` has.
pub(super) fn runs(words: &[AtomicU32], start: usize) -> usize {
    let last = words[start + HEADER - 1].load(Ordering::Relaxed);
    (last >> GROUP) as usize + (last << (32 - GROUP)).count_ones() as usize
}

/// Lines of a node of this many runs: at most 17.
pub(super) fn lines_of(runs: usize) -> u8 {
    (HEADER + runs).div_ceil(LINE) as u8
}

/// Where in a node `depth` bits down an address's entry is.
pub(super) fn entry_of(addr: u128, depth: u8) -> u8 {
    (addr >> (128 - STRIDE - depth)) as u8
}

/// The first and the last entry of a node `depth` bits down that the first `len` bits of `addr` overlap.
pub(super) fn entries_within(addr: u128, len: u8, depth: u8) -> (u8, u8) {
    if len <= depth {
        return (0, u8::MAX);
    }
    let first = entry_of(addr, depth);
    (first, first | u8::MAX.checked_shr((len - depth).into()).unwrap_or(0))
}

/// The answer for some addresses, and the route it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// The route's value, or [`crate::NO_ROUTE`].
    pub(super) value: Value,
    /// Length of the route's prefix; 0 where there is none.
    pub(super) len: u8,
}

impl Leaf {
    pub(super) const NO_ROUTE: Leaf = Leaf { value: crate::NO_ROUTE, len: 0 };
}

/// What stands in a run of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Leaf(Leaf),
    /// The word of a node or a way; 0 for a way that isn't stored yet.
    Child(u32),
}

/// Entries of a node, from `first` to where the next run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u8,
    pub(super) content: Content,
}

/// Adds a run behind others of a node `depth` bits down, unless it only goes on with the last one's route.
pub(super) fn push_run(runs: &mut Vec<Run>, run: Run, depth: u8) {
    if !runs.last().is_some_and(|last| goes_on_with(last, &run, depth)) {
        runs.push(run);
    }
}

/// Does a run of a node `depth` bits down only go on with the route of the last one?
pub(super) fn goes_on_with(last: &Run, run: &Run, depth: u8) -> bool {
    let Content::Leaf(leaf) = run.content else { return false };
    last.content == run.content && route_of(leaf, last.first, depth) == route_of(leaf, run.first, depth)
}

/// Two leaves of one length in one node come from one route exactly where this is equal: which of the node's parts of
/// that length the entry lies in.
fn route_of(leaf: Leaf, entry: u8, depth: u8) -> u16 {
    u16::from(entry) >> (STRIDE - leaf.len.saturating_sub(depth))
}

/// A way without forks: addresses that begin with the first `end` bits of `path` go on at `child`, the others of the
/// entry it stands in are answered by `beside`. Down to [`COMMON_BITS`] it is written as a node for each level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) path: u128,
    /// A multiple of eight, as all depths are.
    pub(super) end: u8,
    /// Of a route that covers the whole entry.
    pub(super) beside: Leaf,
    /// The word of a node, or of a way that something else lies beside.
    pub(super) child: u32,
}

/// What stands in a root slot or in an entry of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Leaf(Leaf),
    /// The word of a node that forks.
    Node(u32),
    /// A way, or a node that leads but one way, or one that isn't stored yet.
    Way(Way),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_equal_values_of_two_routes_stay_apart() {
        let mut runs = Vec::new();
        let of_33 = Content::Leaf(Leaf { value: 7, len: 33 });
        for first in [0, 9, 128, 255] {
            push_run(&mut runs, Run { first, content: of_33 }, 32);
        }
        let firsts: Vec<u8> = runs.iter().map(|run| run.first).collect();
        assert_eq!(firsts, [0, 128], "two /33 of one value");
        push_run(&mut runs, Run { first: 9, content: Content::Child(3) }, 32);
        push_run(&mut runs, Run { first: 10, content: Content::Child(3) }, 32);
        assert_eq!(runs.len(), 4, "children are never joined");
    }

    #[test]
    fn no_line_looks_like_a_wide_value() {
        assert_ne!(way_word(LINES_MAX as u32 - 1), WIDE);
        assert_eq!(line_start(way_word(LINES_MAX as u32 - 1)), (LINES_MAX - 1) * LINE);
        assert!(!is_child(WIDE) && is_child(node_word(5)) && is_child(way_word(5)));
        assert!(is_way(way_word(5)) && !is_way(node_word(5)) && !is_way(WIDE));
    }
}
