//! The writer: gives a route words of its own (`rewrite`), changes words in place (`paint`), and takes memory back.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::layout::{
    FIRST_LINE, LINE, LINES_MAX, Leaf, PAGE, PAGE_BITS, PAGE_SLOTS, ROOT_BITS, ROOT_SLOTS, Run, STRIDE,
    WAY_BESIDE, WAY_CHILD, entries_within, entry_cell, entry_of, is_child, is_way, line_start, page_cell,
    root_cell,
};
use super::{Handle, Shared};
use crate::aligned::place_of;
use crate::arena::Arena;
use crate::engine;
use crate::prefix_store::PrefixStore;
use crate::{Full, Key, Limits, Usage, Value};

mod blocks;
mod rewrite;
mod runs;
mod splice;

use blocks::Block;
use rewrite::Change;

/// Lines before the arena's.
const ROOT_LINES: usize = FIRST_LINE / LINE;
/// Routes that went and left their words, at most. One that comes back before a thousand others went writes a line instead of
/// three or four, each of which every reader waits for once.
const GONE_MAX: usize = 1024;
/// Lines of the arena for each of these: it takes six at most, so a fortieth of the arena is theirs.
const LINES_FOR_ONE_GONE: usize = 256;

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
    /// Routes that went, oldest first, whose words aren't joined with their neighbours' yet. Some have come back.
    gone: VecDeque<(u128, u8)>,
    /// How many there may be.
    gone_max: usize,
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
        // A route takes at most five lines and a quarter: where it is the first of its page's slot, a node for each level
        // down to 48 bits, a way, and the node that it ends in. Where it branches off others it takes fewer, and two words in
        // each of two nodes. `Limits::for_routes` gives a route 6 nodes and a quarter more; three lines for four of them are
        // enough.
        let lines = (limits.max_nodes / 4 * 3).min((LINES_MAX - ROOT_LINES) as u32);
        let arena = Arena::new(lines);
        let shared = Shared::new(arena.units());
        Engine {
            lens: vec![0; shared.words().len()].into(),
            shared: Arc::new(shared),
            lines: arena,
            page_routes: vec![0; ROOT_SLOTS].into(),
            pages_used: 0,
            covers_children: false,
            gone: VecDeque::new(),
            gone_max: (lines as usize / LINES_FOR_ONE_GONE).min(GONE_MAX),
            taken: Vec::new(),
            replaced: Vec::new(),
            untagged: Vec::new(),
            retired: VecDeque::new(),
            old_runs: Vec::new(),
            new_runs: Vec::new(),
        }
    }

    fn reader(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared))
    }

    fn insert(&mut self, _: &PrefixStore<u128>, addr: u128, len: u8, value: Value) -> Result<(), Full> {
        let leaf = Leaf { value, len };
        if len > ROOT_BITS {
            self.begin_page(addr);
        }
        let has_words = len <= PAGE_BITS || self.has_words(addr, len);
        self.covers_children = false;
        if !has_words {
            self.rewrite_slot(&Change { addr, len, leaf: Some(leaf) })?;
        }
        if has_words || self.covers_children {
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

    fn remove(&mut self, store: &PrefixStore<u128>, prefixes: &[(u128, u8)]) {
        for (addr, len) in prefixes {
            // What the default route covers is as if nothing did: see `Shared::default`.
            let covering = store.covering(*addr, *len).filter(|(_, covering, _)| *covering > 0);
            self.remove_one(
                *addr,
                *len,
                covering.map_or(Leaf::NO_ROUTE, |(_, len, value)| Leaf { value, len }),
            );
        }
    }

    fn compact(&mut self) {
        while !self.gone.is_empty() {
            self.join_oldest();
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

    fn places(&self) -> Vec<Range<usize>> {
        vec![self.shared.words.place(), place_of(&self.lens)]
    }

    fn bytes(&self) -> usize {
        self.shared.bytes() + self.lens.len() + size_of_val(&*self.page_routes) + self.lines.bytes()
    }
}

impl Engine {
    fn remove_one(&mut self, addr: u128, len: u8, leaf: Leaf) {
        self.paint(addr, len, leaf);
        if len > PAGE_BITS {
            self.gone.push_back((addr, len));
            if self.gone.len() > self.gone_max {
                self.join_oldest();
            }
        }
        if len > ROOT_BITS {
            let routes = &mut self.page_routes[root_cell(addr)];
            *routes -= 1;
            self.pages_used -= usize::from(*routes == 0);
        }
    }

    /// Joins the words of the route that went first with their like. If it has come back, nothing is like them.
    fn join_oldest(&mut self) {
        let Some((addr, len)) = self.gone.pop_front() else { return };
        // Without room for the copy of a node it stays as it is: right, only larger than it need be, until a later
        // change passes here.
        let _ = self.rewrite_slot(&Change { addr, len, leaf: None });
    }

    /// Has this route, which ends below its page, words of its own before it comes? Those that it left when it went, or those that
    /// lie between its neighbours'.
    fn has_words(&self, addr: u128, len: u8) -> bool {
        let (mut cell, mut depth) = (page_cell(addr), PAGE_BITS);
        loop {
            let word = self.word(cell);
            if !is_child(word) {
                return false;
            }
            let start = line_start(word);
            if is_way(word) {
                let way = self.way(start);
                if len <= way.end || way.path.common_len(addr) < way.end {
                    return false;
                }
                (cell, depth) = (start + WAY_CHILD, way.end);
            } else if len > depth + STRIDE {
                (cell, depth) =
                    (entry_cell(self.shared.words(), start, entry_of(addr, depth)), depth + STRIDE);
            } else {
                let (first, last) = entries_within(addr, len, depth);
                return self.begins_at(start, first)
                    && last.checked_add(1).is_none_or(|next| self.begins_at(start, next));
            }
        }
    }

    /// Within the route, every leaf of a route no longer than it becomes `leaf`. The route must have words of its own.
    /// Takes no memory.
    fn paint(&mut self, addr: u128, len: u8, leaf: Leaf) {
        if len == 0 {
            let changed = self.shared.default().changed_to(leaf.value);
            self.shared.default.store(changed.0, Ordering::Release);
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
}
