//! Words and blocks: how the writer reads what is there, and writes what readers see.

use std::sync::atomic::Ordering;

use super::super::layout::{
    COMMON_BITS, Content, Entry, GROUP, HEADER, Leaf, Run, STRIDE, WAY_BESIDE, WAY_CHILD, WAY_END, WIDE,
    WIDE_FROM, Way, entry_cell, entry_of, group_of, is_child, is_way, line_of, line_start, lines_of,
    node_word, runs, way_word,
};
use super::super::load;
use super::{Engine, ROOT_LINES};
use crate::{Full, Key, NO_ROUTE};

/// Lines next to each other, by their number in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) start: u32,
    pub(super) lines: u8,
}

impl Engine {
    /// Puts an entry into a cell `depth` bits down, where readers see it.
    pub(super) fn publish(&mut self, cell: usize, depth: u8, entry: Entry) -> Result<(), Full> {
        if let Entry::Leaf(leaf) = entry {
            self.write_leaf(cell, leaf);
        } else {
            let word = self.store(entry, depth)?;
            self.write(cell, word);
        }
        Ok(())
    }

    /// The word of a branch; a way is given its line, and nodes as far as none may begin.
    pub(super) fn store(&mut self, entry: Entry, depth: u8) -> Result<u32, Full> {
        let way = match entry {
            Entry::Node(word) => return Ok(word),
            Entry::Leaf(leaf) => return self.store_runs(&[Run { first: 0, content: Content::Leaf(leaf) }]),
            Entry::Way(way) => way,
        };
        if way.end == depth + STRIDE || depth < COMMON_BITS {
            // A node does as well, and who comes here in a batch isn't held up.
            let (entry, below) = (entry_of(way.path, depth), depth + STRIDE);
            let word = if way.end == below { way.child } else { self.store(Entry::Way(way), below)? };
            let beside = |first| Run { first, content: Content::Leaf(way.beside) };
            let child = Run { first: entry, content: Content::Child(word) };
            return match entry {
                0 => self.store_runs(&[child, beside(1)]),
                u8::MAX => self.store_runs(&[beside(0), child]),
                _ => self.store_runs(&[beside(0), child, beside(entry + 1)]),
            };
        }
        let line = self.take(1)?;
        let word = way_word(line);
        let start = line_start(word);
        for part in 0..WAY_END {
            self.write(start + part, (way.path >> (96 - 32 * part)) as u32);
        }
        self.write(start + WAY_END, way.end.into());
        self.write_leaf(start + WAY_BESIDE, way.beside);
        self.write(start + WAY_CHILD, way.child);
        Ok(word)
    }

    /// Writes a node of `new_runs`; its word.
    pub(super) fn store_node(&mut self) -> Result<u32, Full> {
        let runs = std::mem::take(&mut self.new_runs);
        let word = self.store_runs(&runs);
        self.new_runs = runs;
        word
    }

    pub(super) fn store_runs(&mut self, runs: &[Run]) -> Result<u32, Full> {
        let word = node_word(self.take(lines_of(runs.len()))?);
        let start = line_start(word);
        let mut header = [0u32; HEADER];
        for (cell, run) in (start + HEADER..).zip(runs) {
            let (group, within) = group_of(run.first);
            header[group as usize] |= 1 << within;
            match run.content {
                Content::Leaf(leaf) => self.write_leaf(cell, leaf),
                Content::Child(word) => self.write(cell, word),
            }
        }
        let mut before = 0;
        for (group, begins) in header.into_iter().enumerate() {
            self.write(start + group, begins | before << GROUP);
            before += begins.count_ones();
        }
        Ok(word)
    }

    /// What a cell `depth` bits down holds, where the first bits of `addr` lead.
    pub(super) fn entry(&self, cell: usize, depth: u8, addr: u128) -> Entry {
        let word = self.word(cell);
        if !is_child(word) {
            Entry::Leaf(self.leaf(cell, word))
        } else {
            self.way_of(word, depth, addr).map_or(Entry::Node(word), Entry::Way)
        }
    }

    /// The way that a child `depth` bits down is, be it written as a way or as a node.
    pub(super) fn way_of(&self, word: u32, depth: u8, addr: u128) -> Option<Way> {
        let start = line_start(word);
        if is_way(word) {
            return Some(self.way(start));
        }
        let count = runs(self.shared.words(), start);
        if count > 3 {
            return None;
        }
        let (mut child, mut beside) = (None, None);
        for cell in start + HEADER..start + HEADER + count {
            let word = self.word(cell);
            if is_child(word) {
                if child.replace((cell, word)).is_some() {
                    return None;
                }
            } else {
                let leaf = self.leaf(cell, word);
                if leaf.len > depth || beside.replace(leaf).is_some_and(|beside| beside != leaf) {
                    return None;
                }
            }
        }
        let ((cell, child), beside) = child.zip(beside)?;
        let entry = self.nth_begin(start, cell - start - HEADER);
        let path = addr.masked(depth).or_bits(depth, STRIDE, entry);
        Some(Way { path, end: depth + STRIDE, beside, child })
    }

    /// A bit for each entry of a group at which a run begins.
    pub(super) fn begins(&self, cell: usize) -> u32 {
        self.word(cell) & ((1 << GROUP) - 1)
    }

    /// Does a run of a node begin at this entry?
    pub(super) fn begins_at(&self, start: usize, entry: u8) -> bool {
        let (group, within) = group_of(entry);
        self.begins(start + group as usize) >> within & 1 == 1
    }

    /// The entry at which a node's run of this number begins.
    pub(super) fn nth_begin(&self, start: usize, mut number: usize) -> usize {
        for group in 0..HEADER {
            let mut begins = self.begins(start + group);
            let count = begins.count_ones() as usize;
            if number >= count {
                number -= count;
                continue;
            }
            for _ in 0..number {
                begins &= begins - 1;
            }
            return group * GROUP as usize + begins.trailing_zeros() as usize;
        }
        0
    }

    /// What the run in a cell holds.
    pub(super) fn content(&self, cell: usize) -> Content {
        let word = self.word(cell);
        if is_child(word) { Content::Child(word) } else { Content::Leaf(self.leaf(cell, word)) }
    }

    /// The cell of a way's child, where `word` is the way's.
    pub(super) fn way_child(&self, word: u32, way: Way, depth: u8) -> usize {
        if is_way(word) {
            line_start(word) + WAY_CHILD
        } else {
            entry_cell(self.shared.words(), line_start(word), entry_of(way.path, depth))
        }
    }

    pub(super) fn way(&self, start: usize) -> Way {
        let part = |at: usize| u128::from(self.word(start + at));
        let beside = start + WAY_BESIDE;
        Way {
            path: part(0) << 96 | part(1) << 64 | part(2) << 32 | part(3),
            end: self.word(start + WAY_END) as u8,
            beside: self.leaf(beside, self.word(beside)),
            child: self.word(start + WAY_CHILD),
        }
    }

    /// The leaf that a cell's word is.
    pub(super) fn leaf(&self, cell: usize, word: u32) -> Leaf {
        let value = if word == WIDE { self.shared.wide(cell) } else { word.wrapping_sub(1) };
        Leaf { value, len: self.lens[cell] }
    }

    pub(super) fn write_leaf(&mut self, cell: usize, leaf: Leaf) {
        self.lens[cell] = leaf.len;
        if leaf.value >= WIDE_FROM && leaf.value != NO_ROUTE {
            self.shared.wide[cell].store(leaf.value, Ordering::Release);
            self.write(cell, WIDE);
        } else {
            self.write(cell, leaf.value.wrapping_add(1));
        }
    }

    pub(super) fn word(&self, cell: usize) -> u32 {
        load(self.shared.words(), cell)
    }

    pub(super) fn write(&self, cell: usize, word: u32) {
        self.shared.words()[cell].store(word, Ordering::Release);
    }

    pub(super) fn take(&mut self, lines: u8) -> Result<u32, Full> {
        let max = self.lines.units() as u32;
        let start = self.lines.allocate(lines.into()).ok_or(Full::Nodes { max })?;
        self.taken.push(Block { start, lines });
        Ok(ROOT_LINES as u32 + start)
    }

    /// The child that `word` leads to has a successor.
    pub(super) fn replace_block(&mut self, word: u32) {
        let lines = if is_way(word) { 1 } else { lines_of(runs(self.shared.words(), line_start(word))) };
        self.replaced.push(Block { start: line_of(word) - ROOT_LINES as u32, lines });
    }
}
