//! A route gets words of its own, or gives them back: by copying the node that it ends in.

use super::super::layout::{
    Content, Entry, Leaf, PAGE_BITS, Run, STRIDE, Way, entries_within, entry_cell, entry_of, is_child,
    is_node, line_start, page_cell,
};
use super::Engine;
use super::splice::Spliced;
use crate::{Full, Key};

/// Stands for the word of a way that isn't stored yet.
const NOT_STORED: u32 = 0;

/// A route on its way in or out: the first `len` bits of `addr`, and the leaf it brings, if it comes.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub(super) addr: u128,
    pub(super) len: u8,
    pub(super) leaf: Option<Leaf>,
}

impl Engine {
    /// Copies the node that the route ends in, with the change, and what stands above it as far as that must change
    /// its form, and publishes it by one store.
    pub(super) fn rewrite_slot(&mut self, change: &Change) -> Result<(), Full> {
        let slot = page_cell(change.addr);
        let done = match self.rewrite(slot, PAGE_BITS, change) {
            Ok(Some(entry)) => self.publish(slot, PAGE_BITS, entry),
            Ok(None) => Ok(()),
            Err(full) => Err(full),
        };
        if done.is_ok() {
            self.taken.clear();
            self.untagged.append(&mut self.replaced);
        } else {
            while let Some(block) = self.taken.pop() {
                self.lines.release(block.start, block.lines.into());
            }
            self.replaced.clear();
        }
        done
    }

    /// Makes the change in what a cell `depth` bits down holds; the route is longer than that. What the cell has to
    /// hold now, or `None` where the change is published already, further down, or there is none to make.
    fn rewrite(&mut self, cell: usize, depth: u8, change: &Change) -> Result<Option<Entry>, Full> {
        let word = self.word(cell);
        if change.leaf.is_none() && is_node(word) && change.len <= depth + STRIDE {
            // Painted already, it may look like a way, but its runs are still to be joined.
            return self.rewrite_node(word, depth, change);
        }
        match (self.entry(cell, depth, change.addr), change.leaf) {
            (Entry::Leaf(_), None) => Ok(None),
            (Entry::Leaf(old), Some(leaf)) => self.sprout(old, depth, change, leaf).map(Some),
            (Entry::Way(way), _) => self.rewrite_way(cell, way, depth, change),
            (Entry::Node(word), _) => self.rewrite_node(word, depth, change),
        }
    }

    /// What leads from an entry, so far a leaf, to the route.
    fn sprout(&mut self, beside: Leaf, depth: u8, change: &Change, leaf: Leaf) -> Result<Entry, Full> {
        let bottom = depth + (change.len - depth - 1) / STRIDE * STRIDE;
        self.begin_with(beside);
        self.cover(bottom, entries_within(change.addr, change.len, bottom), leaf);
        let node = self.store_node()?;
        Ok(if bottom > depth {
            Entry::Way(Way { path: change.addr, end: bottom, beside, child: node })
        } else {
            Entry::Node(node)
        })
    }

    fn rewrite_node(&mut self, word: u32, depth: u8, change: &Change) -> Result<Option<Entry>, Full> {
        let start = line_start(word);
        if change.len <= depth + STRIDE {
            let entries = entries_within(change.addr, change.len, depth);
            let spliced = match change.leaf {
                Some(leaf) => self.splice_in(start, entries, leaf),
                None => self.splice_out(start, entries, depth),
            };
            match spliced? {
                Spliced::Unclear => {}
                Spliced::AsItWas => return Ok(None),
                Spliced::Node(copy) => {
                    self.replace_block(word);
                    return Ok(Some(Entry::Node(copy)));
                }
            }
            let runs_before = self.read_runs(start);
            match change.leaf {
                Some(leaf) => {
                    self.cover(depth, entries, leaf);
                }
                None => {
                    self.join_runs(depth);
                    if self.new_runs.len() == runs_before && self.only_way(depth).is_none() {
                        return Ok(None);
                    }
                }
            }
            self.replace_block(word);
            return self.compress(depth, change.addr, None).map(Some);
        }
        let entry = entry_of(change.addr, depth);
        let cell = entry_cell(self.shared.words(), start, entry);
        let Some(new) = self.rewrite(cell, depth + STRIDE, change)? else { return Ok(None) };
        let content = match new {
            Entry::Leaf(leaf) => Content::Leaf(leaf),
            _ if is_child(self.word(cell)) => return self.publish(cell, depth + STRIDE, new).map(|()| None),
            Entry::Node(word) => Content::Child(word),
            Entry::Way(_) => Content::Child(NOT_STORED),
        };
        let pending = if let Entry::Way(way) = new { Some(way) } else { None };
        self.read_runs(start);
        self.set(depth, entry, content);
        self.replace_block(word);
        self.compress(depth, change.addr, pending).map(Some)
    }

    fn rewrite_way(
        &mut self,
        cell: usize,
        way: Way,
        depth: u8,
        change: &Change,
    ) -> Result<Option<Entry>, Full> {
        let word = self.word(cell);
        let common = way.path.common_len(change.addr);
        if common < change.len.min(way.end) || (change.leaf.is_some() && change.len <= way.end) {
            let Some(leaf) = change.leaf else { return Ok(None) };
            if common >= way.end && change.len == way.end {
                self.covers_children = true;
                return Ok(None); // All that it covers lies at the way's end, and has words of its own.
            }
            self.replace_block(word);
            return self
                .fork(way, common.min(change.len - 1) / STRIDE * STRIDE, depth, change, leaf)
                .map(Some);
        }
        let child_cell = self.way_child(word, way, depth);
        let inner = if change.len > way.end {
            let Some(inner) = self.rewrite(child_cell, way.end, change)? else { return Ok(None) };
            inner
        } else {
            // The route has gone that parted this way from the one below it.
            self.entry(child_cell, way.end, way.path)
        };
        match inner {
            Entry::Way(below) if below.beside == way.beside => {
                if change.len <= way.end {
                    self.replace_block(self.word(child_cell));
                }
                self.replace_block(word);
                Ok(Some(Entry::Way(below)))
            }
            Entry::Leaf(leaf) => {
                self.replace_block(word);
                self.end_in_leaf(way, depth, leaf).map(Some)
            }
            _ if change.len <= way.end => Ok(None),
            _ => self.publish(child_cell, way.end, inner).map(|()| None),
        }
    }

    /// A way from which a route branches off, or on which it ends, in the node at `fork`.
    fn fork(&mut self, way: Way, fork: u8, depth: u8, change: &Change, leaf: Leaf) -> Result<Entry, Full> {
        let covers = change.len <= fork + STRIDE;
        let sprout =
            if covers { None } else { Some(self.sprout(way.beside, fork + STRIDE, change, leaf)?) };
        let sprout = match sprout {
            Some(entry) => Some(self.store(entry, fork + STRIDE)?),
            None => None,
        };
        let on_path = entry_of(way.path, fork);
        let (first, last) = entries_within(change.addr, change.len, fork);
        let mut below = (fork + STRIDE < way.end).then_some(way);
        if let Some(below) = &mut below
            && covers
            && (first..=last).contains(&on_path)
        {
            below.beside = leaf;
        }
        let on_path_content = Content::Child(if below.is_some() { NOT_STORED } else { way.child });
        self.begin_with(way.beside);
        self.set(fork, on_path, on_path_content);
        std::mem::swap(&mut self.old_runs, &mut self.new_runs);
        match sprout {
            Some(word) => self.set(fork, first, Content::Child(word)),
            None => self.cover(fork, (first, last), leaf),
        }
        let node = self.compress(fork, way.path, below)?;
        self.lead(way, depth, fork, node)
    }

    /// A way at whose end there is only a leaf left.
    fn end_in_leaf(&mut self, way: Way, depth: u8, leaf: Leaf) -> Result<Entry, Full> {
        if leaf == way.beside {
            return Ok(Entry::Leaf(leaf));
        }
        let bottom = way.end - STRIDE;
        let entry = entry_of(way.path, bottom);
        self.begin_with(way.beside);
        self.set(bottom, entry, Content::Leaf(leaf));
        let node = Entry::Node(self.store_node()?);
        self.lead(way, depth, bottom, node)
    }

    /// The first part of a way, to `end`, where there is now `inner`.
    fn lead(&mut self, way: Way, depth: u8, end: u8, inner: Entry) -> Result<Entry, Full> {
        match inner {
            _ if end == depth => Ok(inner),
            Entry::Way(below) if below.beside == way.beside => Ok(inner),
            _ => Ok(Entry::Way(Way { end, child: self.store(inner, end)?, ..way })),
        }
    }

    /// The smallest entry that stands for a node of `new_runs`, `depth` bits down, where the first bits of `addr` lead.
    /// `pending` is the child that isn't stored yet, if there is one.
    fn compress(&mut self, depth: u8, addr: u128, pending: Option<Way>) -> Result<Entry, Full> {
        if let [Run { content: Content::Leaf(leaf), .. }] = self.new_runs[..] {
            return Ok(Entry::Leaf(leaf));
        }
        let Some((first, child, beside)) = self.only_way(depth) else {
            if let Some(way) = pending {
                let word = self.store(Entry::Way(way), depth + STRIDE)?;
                let waiting = |run: &&mut Run| run.content == Content::Child(NOT_STORED);
                if let Some(run) = self.new_runs.iter_mut().find(waiting) {
                    run.content = Content::Child(word);
                }
            }
            return self.store_node().map(Entry::Node);
        };
        let (path, end) = (addr.masked(depth).or_bits(depth, STRIDE, first.into()), depth + STRIDE);
        let below = match pending {
            Some(way) => Some(way),
            None => self.way_of(child, end, path),
        };
        match (below, pending) {
            (Some(below), None) if below.beside == beside => {
                self.replace_block(child);
                Ok(Entry::Way(below))
            }
            (Some(below), Some(_)) if below.beside == beside => Ok(Entry::Way(below)),
            (_, Some(way)) => {
                let child = self.store(Entry::Way(way), end)?;
                Ok(Entry::Way(Way { path, end, beside, child }))
            }
            (_, None) => Ok(Entry::Way(Way { path, end, beside, child })),
        }
    }

    /// Where `new_runs` have one child, and beside it only a route that covers all of the node: the child's entry, its
    /// word, and that route.
    fn only_way(&self, depth: u8) -> Option<(u8, u32, Leaf)> {
        if !(2..=3).contains(&self.new_runs.len()) {
            return None;
        }
        let mut child = None;
        let mut beside = None;
        for run in &self.new_runs {
            match run.content {
                Content::Child(word) if child.is_none() => child = Some((run.first, word)),
                Content::Leaf(leaf) if leaf.len <= depth && beside.is_none_or(|beside| beside == leaf) => {
                    beside = Some(leaf);
                }
                Content::Leaf(_) | Content::Child(_) => return None,
            }
        }
        child.zip(beside).map(|((first, word), beside)| (first, word, beside))
    }
}
