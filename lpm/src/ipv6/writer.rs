//! The writer: gives a route words of its own (`rewrite`), changes words in place (`paint`), and takes memory back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::layout::{
    Content, Entry, FIRST_LINE, GROUP, HEADER, LINE, LINES_MAX, Leaf, PAGE, PAGE_BITS, PAGE_SLOTS, ROOT_BITS,
    ROOT_SLOTS, Run, STRIDE, WAY_BESIDE, WAY_CHILD, WAY_END, WIDE, WIDE_FROM, Way, entry_cell, entry_of,
    group_of, is_child, is_node, is_way, line_of, line_start, lines_of, node_word, page_cell, push_run,
    root_cell, runs, way_word,
};
use super::{Handle, Shared, load};
use crate::arena::Arena;
use crate::engine;
use crate::prefix_store::PrefixStore;
use crate::{Full, Key, Limits, NO_ROUTE, Usage, Value};

/// Entries of a node.
const ENTRIES: u16 = 1 << STRIDE;
/// Lines before the arena's.
const ROOT_LINES: usize = FIRST_LINE / LINE;
/// Stands for the word of a way that isn't stored yet.
const NOT_STORED: u32 = 0;

/// Lines next to each other, by their number in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    start: u32,
    lines: u8,
}

/// A route on its way in or out: the first `len` bits of `addr`, and the leaf it brings, if it comes.
#[derive(Clone, Copy)]
struct Change {
    addr: u128,
    len: u8,
    leaf: Option<Leaf>,
}

/// The writer's side.
pub struct Engine {
    shared: Arc<Shared>,
    lines: Arena,
    /// The length of the route that each leaf comes from; readers have no use for it.
    lens: Box<[u8]>,
    /// Routes longer than the root's bits, by root slot, and how many slots have any.
    page_routes: Box<[u32]>,
    pages_used: usize,
    /// Does the route under way cover children of the node that it ends in? They are painted after.
    covers_children: bool,
    /// Taken by the change under way: given back if it fails.
    taken: Vec<Block>,
    /// Replaced by the change under way: retired if it succeeds.
    replaced: Vec<Block>,
    /// Replaced since the last `retire`.
    untagged: Vec<Block>,
    /// Replaced before it, oldest first.
    retired: VecDeque<(u64, Block)>,
    /// Runs of the node being rewritten, as it was and as it will be; kept for their memory.
    old_runs: Vec<Run>,
    new_runs: Vec<Run>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl engine::Engine<u128> for Engine {
    type Reader = Handle;

    fn new(limits: &Limits) -> Engine {
        // A route takes at most four lines and a quarter: the node that it ends in and a way to it, and where that
        // branches off another way, a node there and the other half of that way; four words in the last nodes of both.
        // `Limits::for_routes` gives a route 6 nodes and a quarter more; three lines for four of them are enough.
        let lines = (limits.max_nodes / 4 * 3).min((LINES_MAX - ROOT_LINES) as u32);
        let lines = Arena::new(lines);
        let shared = Shared::new(lines.units());
        Engine {
            lens: vec![0; shared.words().len()].into(),
            shared: Arc::new(shared),
            lines,
            page_routes: vec![0; ROOT_SLOTS].into(),
            pages_used: 0,
            covers_children: false,
            taken: Vec::new(),
            replaced: Vec::new(),
            untagged: Vec::new(),
            retired: VecDeque::new(),
            old_runs: Vec::new(),
            new_runs: Vec::new(),
        }
    }

    fn reader(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    fn insert(&mut self, _: &PrefixStore<u128>, addr: u128, len: u8, value: Value) -> Result<(), Full> {
        let leaf = Leaf { value, len };
        if len > ROOT_BITS {
            self.begin_page(addr);
        }
        if len > PAGE_BITS {
            self.covers_children = false;
            self.rewrite_slot(&Change { addr, len, leaf: Some(leaf) })?;
        }
        if len <= PAGE_BITS || self.covers_children {
            self.paint(addr, len, leaf);
        }
        if len > ROOT_BITS {
            let routes = &mut self.page_routes[root_cell(addr)];
            self.pages_used += usize::from(*routes == 0);
            *routes += 1;
        }
        Ok(())
    }

    fn replace(&mut self, _: &PrefixStore<u128>, addr: u128, len: u8, value: Value) {
        self.paint(addr, len, Leaf { value, len });
    }

    fn remove(&mut self, _: &PrefixStore<u128>, addr: u128, len: u8, covering: Option<(u8, Value)>) {
        // What the default route covers is as if nothing did: see `Shared::default`.
        let covering = covering.filter(|(covering, _)| *covering > 0);
        self.paint(addr, len, covering.map_or(Leaf::NO_ROUTE, |(len, value)| Leaf { value, len }));
        if len > PAGE_BITS {
            // Without room for the copy of a node it stays as it is: right, only larger than it need be, until a later
            // change passes here.
            let _ = self.rewrite_slot(&Change { addr, len, leaf: None });
        }
        if len > ROOT_BITS {
            let routes = &mut self.page_routes[root_cell(addr)];
            *routes -= 1;
            self.pages_used -= usize::from(*routes == 0);
        }
    }

    fn retire(&mut self, epoch: u64, safe: u64) {
        self.retired.extend(self.untagged.drain(..).map(|block| (epoch, block)));
        while let Some((_, block)) = self.retired.pop_front_if(|(tag, _)| *tag <= safe) {
            self.lines.release(block.start, block.lines.into());
        }
    }

    fn usage(&self) -> Usage {
        let nodes = self.lines.used();
        let retired_blocks = self.untagged.len() + self.retired.len();
        let bytes = (ROOT_SLOTS + self.pages_used * PAGE_SLOTS + nodes * LINE) * size_of::<u32>();
        Usage { routes: 0, nodes, leaves: 0, retired_blocks, bytes }
    }

    fn bytes(&self) -> usize {
        self.shared.bytes() + self.lens.len() + size_of_val(&*self.page_routes) + self.lines.bytes()
    }
}

impl Engine {
    // ---- In place ----

    /// Within the route, every leaf of a route no longer than it becomes `leaf`. The route must have words of its own.
    /// Takes no memory.
    fn paint(&mut self, addr: u128, len: u8, leaf: Leaf) {
        if len == 0 {
            self.shared.default.store(leaf.value, Ordering::Release);
        } else if len <= ROOT_BITS {
            let first = root_cell(addr);
            for slot in first..first + (1 << (ROOT_BITS - len)) {
                if self.word(slot) == PAGE {
                    let page = ROOT_SLOTS + slot * PAGE_SLOTS;
                    for cell in page..page + PAGE_SLOTS {
                        self.paint_cell(cell, PAGE_BITS, addr, len, leaf);
                    }
                } else if self.lens[slot] <= len {
                    self.write_leaf(slot, leaf);
                }
            }
        } else {
            let first = page_cell(addr);
            for cell in first..first + (1 << PAGE_BITS.saturating_sub(len)) {
                self.paint_cell(cell, PAGE_BITS, addr, len, leaf);
            }
        }
    }

    /// Gives the address's root slot a page, if it has none yet, that answers as the slot did. It stays for good: its
    /// memory is its alone.
    fn begin_page(&mut self, addr: u128) {
        let slot = root_cell(addr);
        let word = self.word(slot);
        if word == PAGE {
            return;
        }
        let leaf = self.leaf(slot, word);
        let page = ROOT_SLOTS + slot * PAGE_SLOTS;
        for cell in page..page + PAGE_SLOTS {
            self.write_leaf(cell, leaf);
        }
        self.write(slot, PAGE);
    }

    /// [`Engine::paint`] in what a cell `depth` bits down holds.
    fn paint_cell(&mut self, cell: usize, depth: u8, addr: u128, len: u8, leaf: Leaf) {
        let word = self.word(cell);
        if !is_child(word) {
            if len <= depth && self.lens[cell] <= len {
                self.write_leaf(cell, leaf);
            }
            return;
        }
        let start = line_start(word);
        if !is_way(word) {
            let (first, last) = entries_within(addr, len, depth);
            let words = self.shared.words();
            for cell in entry_cell(words, start, first)..=entry_cell(words, start, last) {
                self.paint_cell(cell, depth + STRIDE, addr, len, leaf);
            }
            return;
        }
        if len <= depth && self.lens[start + WAY_BESIDE] <= len {
            self.write_leaf(start + WAY_BESIDE, leaf);
        }
        let way = self.way(start);
        if way.path.common_len(addr) >= len.min(way.end) {
            self.paint_cell(start + WAY_CHILD, way.end, addr, len, leaf);
        }
    }

    // ---- By copying a node ----

    /// Copies the node that the route ends in, with the change, and what stands above it as far as that must change
    /// its form, and publishes it by one store.
    fn rewrite_slot(&mut self, change: &Change) -> Result<(), Full> {
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
            let runs_before = self.read_runs(start);
            match change.leaf {
                Some(leaf) => {
                    self.cover(depth, entries_within(change.addr, change.len, depth), leaf);
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

    // ---- Runs ----

    /// Reads a node's runs into `old_runs`; how many.
    fn read_runs(&mut self, start: usize) -> usize {
        self.old_runs.clear();
        let mut cell = start + HEADER;
        for group in 0..HEADER {
            let mut begins = self.begins(start + group);
            while begins != 0 {
                let first = (group * GROUP as usize) as u8 + begins.trailing_zeros() as u8;
                begins &= begins - 1;
                let word = self.word(cell);
                let content =
                    if is_child(word) { Content::Child(word) } else { Content::Leaf(self.leaf(cell, word)) };
                self.old_runs.push(Run { first, content });
                cell += 1;
            }
        }
        self.old_runs.len()
    }

    /// Makes `new_runs` of `old_runs`, those joined that one route has come to fill.
    fn join_runs(&mut self, depth: u8) {
        self.new_runs.clear();
        for run in &self.old_runs {
            push_run(&mut self.new_runs, *run, depth);
        }
    }

    /// Makes `new_runs` of `old_runs`, with `leaf` in these entries, first and last, in place of leaves of shorter routes.
    fn cover(&mut self, depth: u8, entries: (u8, u8), leaf: Leaf) {
        let gives_way = |content| matches!(content, Content::Leaf(old) if old.len <= leaf.len);
        let (first, last) = entries;
        let is_covered =
            |run: &Run| matches!(run.content, Content::Child(_)) && (first..=last).contains(&run.first);
        self.covers_children |= self.old_runs.iter().any(is_covered);
        self.put(depth, entries, Content::Leaf(leaf), gives_way);
    }

    /// Makes `new_runs` of `old_runs`, with something else in one entry.
    fn set(&mut self, depth: u8, entry: u8, content: Content) {
        self.put(depth, (entry, entry), content, |_| true);
    }

    fn put(
        &mut self,
        depth: u8,
        (first, last): (u8, u8),
        content: Content,
        gives_way: impl Fn(Content) -> bool,
    ) {
        self.new_runs.clear();
        let mut push =
            |first: u16, content| push_run(&mut self.new_runs, Run { first: first as u8, content }, depth);
        let (first, behind) = (u16::from(first), u16::from(last) + 1);
        for (at, run) in self.old_runs.iter().enumerate() {
            let begin = u16::from(run.first);
            let end = self.old_runs.get(at + 1).map_or(ENTRIES, |next| u16::from(next.first));
            if end <= first || behind <= begin || !gives_way(run.content) {
                push(begin, run.content);
                continue;
            }
            if begin < first {
                push(begin, run.content);
            }
            push(begin.max(first), content);
            if behind < end {
                push(behind, run.content);
            }
        }
    }

    /// Makes `old_runs` of a node all of whose entries are one leaf.
    fn begin_with(&mut self, leaf: Leaf) {
        self.old_runs.clear();
        self.old_runs.push(Run { first: 0, content: Content::Leaf(leaf) });
    }

    // ---- Words and blocks ----

    /// Puts an entry into a cell `depth` bits down, where readers see it.
    fn publish(&mut self, cell: usize, depth: u8, entry: Entry) -> Result<(), Full> {
        if let Entry::Leaf(leaf) = entry {
            self.write_leaf(cell, leaf);
        } else {
            let word = self.store(entry, depth)?;
            self.write(cell, word);
        }
        Ok(())
    }

    /// The word of a branch; a way is given its line.
    fn store(&mut self, entry: Entry, depth: u8) -> Result<u32, Full> {
        let way = match entry {
            Entry::Node(word) => return Ok(word),
            Entry::Leaf(leaf) => return self.store_runs(&[Run { first: 0, content: Content::Leaf(leaf) }]),
            Entry::Way(way) => way,
        };
        if way.end == depth + STRIDE {
            // A node does as well, and who comes here in a batch isn't held up.
            let entry = entry_of(way.path, depth);
            let beside = |first| Run { first, content: Content::Leaf(way.beside) };
            let child = Run { first: entry, content: Content::Child(way.child) };
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
    fn store_node(&mut self) -> Result<u32, Full> {
        let runs = std::mem::take(&mut self.new_runs);
        let word = self.store_runs(&runs);
        self.new_runs = runs;
        word
    }

    fn store_runs(&mut self, runs: &[Run]) -> Result<u32, Full> {
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
    fn entry(&self, cell: usize, depth: u8, addr: u128) -> Entry {
        let word = self.word(cell);
        if !is_child(word) {
            Entry::Leaf(self.leaf(cell, word))
        } else {
            self.way_of(word, depth, addr).map_or(Entry::Node(word), Entry::Way)
        }
    }

    /// The way that a child `depth` bits down is, be it written as a way or as a node.
    fn way_of(&self, word: u32, depth: u8, addr: u128) -> Option<Way> {
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
    fn begins(&self, cell: usize) -> u32 {
        self.word(cell) & ((1 << GROUP) - 1)
    }

    /// The entry at which a node's run of this number begins.
    fn nth_begin(&self, start: usize, mut number: usize) -> usize {
        for group in 0..HEADER {
            let mut begins = self.begins(start + group);
            while begins != 0 {
                if number == 0 {
                    return group * GROUP as usize + begins.trailing_zeros() as usize;
                }
                number -= 1;
                begins &= begins - 1;
            }
        }
        0
    }

    /// The cell of a way's child, where `word` is the way's.
    fn way_child(&self, word: u32, way: Way, depth: u8) -> usize {
        if is_way(word) {
            line_start(word) + WAY_CHILD
        } else {
            entry_cell(self.shared.words(), line_start(word), entry_of(way.path, depth))
        }
    }

    fn way(&self, start: usize) -> Way {
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
    fn leaf(&self, cell: usize, word: u32) -> Leaf {
        let value = if word == WIDE { self.shared.wide(cell) } else { word.wrapping_sub(1) };
        Leaf { value, len: self.lens[cell] }
    }

    fn write_leaf(&mut self, cell: usize, leaf: Leaf) {
        self.lens[cell] = leaf.len;
        if leaf.value >= WIDE_FROM && leaf.value != NO_ROUTE {
            self.shared.wide[cell].store(leaf.value, Ordering::Release);
            self.write(cell, WIDE);
        } else {
            self.write(cell, leaf.value.wrapping_add(1));
        }
    }

    fn word(&self, cell: usize) -> u32 {
        load(self.shared.words(), cell)
    }

    fn write(&self, cell: usize, word: u32) {
        self.shared.words()[cell].store(word, Ordering::Release);
    }

    fn take(&mut self, lines: u8) -> Result<u32, Full> {
        let max = self.lines.units() as u32;
        let start = self.lines.allocate(lines.into()).ok_or(Full::Nodes { max })?;
        self.taken.push(Block { start, lines });
        Ok(ROOT_LINES as u32 + start)
    }

    /// The child that `word` leads to has a successor.
    fn replace_block(&mut self, word: u32) {
        let lines = if is_way(word) { 1 } else { lines_of(runs(self.shared.words(), line_start(word))) };
        self.replaced.push(Block { start: line_of(word) - ROOT_LINES as u32, lines });
    }
}

/// The first and the last entry of a node `depth` bits down that the first `len` bits of `addr` overlap.
fn entries_within(addr: u128, len: u8, depth: u8) -> (u8, u8) {
    if len <= depth {
        return (0, u8::MAX);
    }
    let first = entry_of(addr, depth);
    (first, first | u8::MAX.checked_shr((len - depth).into()).unwrap_or(0))
}
