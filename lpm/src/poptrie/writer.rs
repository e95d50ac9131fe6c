//! The writer: gives a route leaves of its own (`insert`), changes leaves in place (`paint`), and takes memory back.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::node::{
    BRANCH, Branch, ENTRIES, Entry, Leaf, Record, STRIDE, Shape, Skip, pack_skip, unpack_skip,
};
use super::{Handle, ROOT_BITS, Shared};
use crate::arena::Arena;
use crate::engine;
use crate::prefix_store::PrefixStore;
use crate::{Full, Key, Limits, Usage, Value};

/// Units next to each other in one of the arenas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Nodes { start: u32, len: u8 },
    Leaves { start: u32, len: u8 },
}

/// A route on its way in or out: the first `len` bits of `addr`, and the leaf it brings, if it comes.
#[derive(Clone, Copy)]
struct Change<K> {
    addr: K,
    len: u8,
    leaf: Option<Leaf>,
}

/// The writer's side.
pub struct Engine<K: Key> {
    shared: Arc<Shared>,
    nodes: Arena,
    leaves: Arena,
    /// The length of the route that each leaf comes from; readers have no use for it.
    leaf_lens: Box<[u8]>,
    /// Taken by the change under way: given back if it fails.
    taken: Vec<Block>,
    /// Replaced by the change under way: retired if it succeeds.
    replaced: Vec<Block>,
    /// Replaced since the last `retire`.
    untagged: Vec<Block>,
    /// Replaced before it, oldest first.
    retired: VecDeque<(u64, Block)>,
    key: PhantomData<K>,
}

impl<K: Key> std::fmt::Debug for Engine<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl<K: Key<Engine = Self>> engine::Engine<K> for Engine<K> {
    type Reader = Handle<K>;

    fn new(limits: &Limits) -> Engine<K> {
        let (nodes, leaves) = (Arena::new(limits.max_nodes), Arena::new(limits.max_leaves));
        Engine {
            shared: Arc::new(Shared::new(nodes.units(), leaves.units())),
            leaf_lens: vec![0; leaves.units()].into(),
            nodes,
            leaves,
            taken: Vec::new(),
            replaced: Vec::new(),
            untagged: Vec::new(),
            retired: VecDeque::new(),
            key: PhantomData,
        }
    }

    fn reader(&self) -> Handle<K> {
        Handle { shared: Arc::clone(&self.shared), key: PhantomData }
    }

    fn insert(&mut self, _: &PrefixStore<K>, addr: K, len: u8, value: Value) -> Result<(), Full> {
        let leaf = Leaf::route(value, len);
        if len > ROOT_BITS {
            self.rewrite_root_slot(Change { addr, len, leaf: Some(leaf) })?;
        }
        self.paint(addr, len, leaf);
        Ok(())
    }

    fn replace(&mut self, _: &PrefixStore<K>, addr: K, len: u8, value: Value) {
        self.paint(addr, len, Leaf::route(value, len));
    }

    fn remove(&mut self, _: &PrefixStore<K>, addr: K, len: u8, covering: Option<(u8, Value)>) {
        self.paint(addr, len, covering.map_or(Leaf::NO_ROUTE, |(len, value)| Leaf::route(value, len)));
        if len > ROOT_BITS {
            // Without room to copy the path it stays as it is: right, only larger than it need be, until a later
            // change passes here.
            let _ = self.rewrite_root_slot(Change { addr, len, leaf: None });
        }
    }

    fn retire(&mut self, epoch: u64, safe: u64) {
        self.retired.extend(self.untagged.drain(..).map(|block| (epoch, block)));
        while let Some((_, block)) = self.retired.pop_front_if(|(tag, _)| *tag <= safe) {
            self.release(block);
        }
    }

    fn usage(&self) -> Usage {
        let (nodes, leaves) = (self.nodes.used(), self.leaves.used());
        let retired_blocks = self.untagged.len() + self.retired.len();
        let bytes = size_of_val(&*self.shared.root) + nodes * 24 + leaves * 4;
        Usage { routes: 0, nodes, leaves, retired_blocks, bytes }
    }

    fn bytes(&self) -> usize {
        self.shared.bytes() + self.leaf_lens.len() + self.nodes.bytes() + self.leaves.bytes()
    }
}

impl<K: Key> Engine<K> {
    // ---- In place ----

    /// Within the route, every leaf of a route no longer than it becomes `leaf`. The route must have leaves of its own,
    /// or end in the root. Takes no memory.
    pub(crate) fn paint(&mut self, addr: K, len: u8, leaf: Leaf) {
        let first = addr.bits(0, ROOT_BITS);
        let count = 1 << ROOT_BITS.saturating_sub(len);
        for slot in first..first + count {
            let word = self.shared.root[slot].load(Ordering::Relaxed);
            if word & BRANCH != 0 {
                self.paint_node(self.record(word as u32), ROOT_BITS, addr, len, leaf);
            } else if len <= ROOT_BITS && Leaf::unpack(word).len <= len {
                self.shared.root[slot].store(leaf.pack(), Ordering::Release);
            }
        }
    }

    /// [`Engine::paint`] below a node whose entries take the bits from `depth` on.
    fn paint_node(&mut self, record: Record, depth: u8, addr: K, len: u8, leaf: Leaf) {
        if record.is_skip() {
            return self.paint_skip(record, depth, addr, len, leaf);
        }
        for at in entries_within(addr, len, depth) {
            if let Some(child) = record.child_at(at) {
                self.paint_node(self.record(child), depth + STRIDE, addr, len, leaf);
            } else if len <= depth + STRIDE {
                self.paint_leaf(record.leaf_at(at), len, leaf);
            }
        }
    }

    fn paint_skip(&mut self, record: Record, depth: u8, addr: K, len: u8, leaf: Leaf) {
        let skip = self.skip(record);
        if len <= depth && skip.beside.len <= len {
            let [_, _, rest] = &self.shared.nodes[record.child_base as usize];
            rest.store(pack_skip(leaf, skip.end), Ordering::Release);
        }
        if skip.path.common_len(addr) >= len.min(skip.end) {
            self.paint_node(skip.child, skip.end, addr, len, leaf);
        }
    }

    fn paint_leaf(&mut self, index: u32, len: u8, leaf: Leaf) {
        let index = index as usize;
        if self.leaf_lens[index] <= len {
            self.leaf_lens[index] = leaf.len;
            self.shared.leaves[index].store(leaf.code, Ordering::Release);
        }
    }

    // ---- By copying the path ----

    /// Copies the path from the route's root slot down to where the route ends, with the change, and publishes it.
    fn rewrite_root_slot(&mut self, change: Change<K>) -> Result<(), Full> {
        let slot = change.addr.bits(0, ROOT_BITS);
        let old = self.shared.root[slot].load(Ordering::Relaxed);
        let entry = if old & BRANCH == 0 {
            Entry::Leaf(Leaf::unpack(old))
        } else {
            self.replaced.push(Block::Nodes { start: old as u32, len: 1 });
            Entry::Branch(Branch::Stored(self.record(old as u32)))
        };
        match self.rewrite(entry, ROOT_BITS, &change).and_then(|entry| self.root_word(entry)) {
            Ok(new) => {
                self.shared.root[slot].store(new, Ordering::Release);
                self.taken.clear();
                self.untagged.append(&mut self.replaced);
                Ok(())
            }
            Err(full) => {
                while let Some(block) = self.taken.pop() {
                    self.release(block);
                }
                self.replaced.clear();
                Err(full)
            }
        }
    }

    /// An entry with the change made in it. The route is longer than `depth`, the bits that lead to the entry.
    fn rewrite(&mut self, entry: Entry<K>, depth: u8, change: &Change<K>) -> Result<Entry<K>, Full> {
        if matches!(entry, Entry::Leaf(_)) && change.leaf.is_none() {
            return Ok(entry); // Nothing below to tidy up.
        }
        let mut entries = self.expand(entry, depth);
        if change.len > depth + STRIDE {
            let at = change.addr.bits(depth, STRIDE);
            entries[at] = self.rewrite(entries[at], depth + STRIDE, change)?;
        } else if let Some(leaf) = change.leaf {
            for at in entries_within(change.addr, change.len, depth) {
                self.cover(&mut entries[at], leaf);
            }
        }
        self.compress(&entries, depth, change.addr)
    }

    /// `leaf`'s route covers all of the entry: what can be told of it without memory is told here, nodes below are left
    /// for [`Engine::paint`].
    fn cover(&mut self, entry: &mut Entry<K>, leaf: Leaf) {
        match entry {
            Entry::Leaf(old) if old.len <= leaf.len => *old = leaf,
            Entry::Branch(Branch::Stored(record)) if record.is_skip() => {
                let skip = self.skip(*record);
                if skip.beside.len <= leaf.len {
                    self.replaced.push(Block::Nodes { start: record.child_base, len: 2 });
                    *entry = Entry::Branch(Branch::Skip(Skip { beside: leaf, ..skip }));
                }
            }
            Entry::Branch(Branch::Skip(skip)) if skip.beside.len <= leaf.len => skip.beside = leaf,
            Entry::Leaf(_) | Entry::Branch(_) => {}
        }
    }

    /// The 64 entries that an entry stands for, `depth` bits down; the memory that said so is replaced.
    fn expand(&mut self, entry: Entry<K>, depth: u8) -> [Entry<K>; ENTRIES] {
        match entry {
            Entry::Leaf(leaf) => [Entry::Leaf(leaf); ENTRIES],
            Entry::Branch(Branch::Skip(skip)) => unroll(skip, depth),
            Entry::Branch(Branch::Stored(record)) if record.is_skip() => {
                self.replaced.push(Block::Nodes { start: record.child_base, len: 2 });
                unroll(self.skip(record), depth)
            }
            Entry::Branch(Branch::Stored(record)) => {
                let (children, leaves) =
                    (record.children.count_ones() as u8, record.leaf_runs.count_ones() as u8);
                if children > 0 {
                    self.replaced.push(Block::Nodes { start: record.child_base, len: children });
                }
                if leaves > 0 {
                    self.replaced.push(Block::Leaves { start: record.leaf_base, len: leaves });
                }
                std::array::from_fn(|at| match record.child_at(at) {
                    Some(child) => Entry::Branch(Branch::Stored(self.record(child))),
                    None => Entry::Leaf(self.leaf(record.leaf_at(at))),
                })
            }
        }
    }

    /// The smallest entry that stands for 64 entries `depth` bits down, where the first bits of `addr` lead.
    fn compress(&mut self, entries: &[Entry<K>; ENTRIES], depth: u8, addr: K) -> Result<Entry<K>, Full> {
        let shape = Shape::of(entries, depth);
        match (shape.children.count_ones(), shape.leaf_runs.count_ones()) {
            (0, 1) => Ok(entries[0]),
            (1, 1) => {
                let at = shape.children.trailing_zeros() as usize;
                // Where there is one child and one run, the run begins at entry 0 or right behind the child.
                let (Entry::Branch(branch), Entry::Leaf(beside)) =
                    (entries[at], entries[shape.leaf_runs.trailing_zeros() as usize])
                else {
                    return self.store_node(entries, shape);
                };
                let path = addr.masked(depth).or_bits(depth, STRIDE, at);
                self.lengthen(
                    branch,
                    Skip { path, end: depth + STRIDE, beside, child: Record::default() },
                    depth,
                )
            }
            _ => self.store_node(entries, shape),
        }
    }

    /// A skip that leads to `branch`; if that is itself a skip with the same route beside it, the two become one.
    fn lengthen(&mut self, branch: Branch<K>, skip: Skip<K>, depth: u8) -> Result<Entry<K>, Full> {
        let below = match branch {
            Branch::Skip(below) => Some(below),
            Branch::Stored(record) if record.is_skip() => Some(self.skip(record)),
            Branch::Stored(_) => None,
        };
        // A route that is no longer than `depth` and lies beside the lower skip lies beside this one too.
        let joined = below.filter(|below| below.beside.len <= depth);
        let skip = match (joined, branch) {
            (Some(below), Branch::Stored(record)) => {
                self.replaced.push(Block::Nodes { start: record.child_base, len: 2 });
                below
            }
            (Some(below), Branch::Skip(_)) => below,
            (None, _) => Skip { child: self.store_branch(branch)?, ..skip },
        };
        Ok(Entry::Branch(Branch::Skip(skip)))
    }

    /// Writes a node of these entries.
    fn store_node(&mut self, entries: &[Entry<K>; ENTRIES], shape: Shape) -> Result<Entry<K>, Full> {
        let mut record = Record { children: shape.children, leaf_runs: shape.leaf_runs, ..Record::default() };
        if shape.leaf_runs != 0 {
            record.leaf_base = self.take_leaves(shape.leaf_runs.count_ones() as u8)?;
        }
        if shape.children != 0 {
            record.child_base = self.take_nodes(shape.children.count_ones() as u8)?;
        }
        for (at, entry) in entries.iter().enumerate() {
            match entry {
                Entry::Branch(branch) => {
                    let child = self.store_branch(*branch)?;
                    let index = record.child_base + (shape.children & ((1 << at) - 1)).count_ones();
                    self.write_node(index, child.to_words());
                }
                Entry::Leaf(leaf) if shape.leaf_runs >> at & 1 != 0 => {
                    let index = record.leaf_at(at) as usize;
                    self.leaf_lens[index] = leaf.len;
                    self.shared.leaves[index].store(leaf.code, Ordering::Relaxed);
                }
                Entry::Leaf(_) => {}
            }
        }
        Ok(Entry::Branch(Branch::Stored(record)))
    }

    /// The record of a branch; a skip is given its block.
    fn store_branch(&mut self, branch: Branch<K>) -> Result<Record, Full> {
        match branch {
            Branch::Stored(record) => Ok(record),
            Branch::Skip(skip) => {
                let block = self.take_nodes(2)?;
                let [high, low] = skip.path.to_words();
                self.write_node(block, [high, low, pack_skip(skip.beside, skip.end)]);
                self.write_node(block + 1, skip.child.to_words());
                Ok(Record { child_base: block, ..Record::default() })
            }
        }
    }

    /// What a root slot holds for an entry.
    fn root_word(&mut self, entry: Entry<K>) -> Result<u64, Full> {
        match entry {
            Entry::Leaf(leaf) => Ok(leaf.pack()),
            Entry::Branch(branch) => {
                let record = self.store_branch(branch)?;
                let index = self.take_nodes(1)?;
                self.write_node(index, record.to_words());
                Ok(BRANCH | u64::from(index))
            }
        }
    }

    // ---- Words and blocks ----

    fn record(&self, index: u32) -> Record {
        Record::from_words(self.words(index))
    }

    fn skip(&self, record: Record) -> Skip<K> {
        let [high, low, rest] = self.words(record.child_base);
        let (beside, end) = unpack_skip(rest);
        Skip { path: K::from_words([high, low]), end, beside, child: self.record(record.child_base + 1) }
    }

    fn leaf(&self, index: u32) -> Leaf {
        let code = self.shared.leaves[index as usize].load(Ordering::Relaxed);
        Leaf { code, len: self.leaf_lens[index as usize] }
    }

    fn words(&self, index: u32) -> [u64; 3] {
        self.shared.nodes[index as usize].each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    fn write_node(&self, index: u32, words: [u64; 3]) {
        for (to, word) in self.shared.nodes[index as usize].iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
    }

    fn take_nodes(&mut self, len: u8) -> Result<u32, Full> {
        let max = self.nodes.units() as u32;
        let start = self.nodes.allocate(len.into()).ok_or(Full::Nodes { max })?;
        self.taken.push(Block::Nodes { start, len });
        Ok(start)
    }

    fn take_leaves(&mut self, len: u8) -> Result<u32, Full> {
        let max = self.leaves.units() as u32;
        let start = self.leaves.allocate(len.into()).ok_or(Full::Leaves { max })?;
        self.taken.push(Block::Leaves { start, len });
        Ok(start)
    }

    fn release(&mut self, block: Block) {
        match block {
            Block::Nodes { start, len } => self.nodes.release(start, len.into()),
            Block::Leaves { start, len } => self.leaves.release(start, len.into()),
        }
    }
}

/// Which of the entries that take the bits from `depth` on overlap the first `len` bits of `addr`.
fn entries_within<K: Key>(addr: K, len: u8, depth: u8) -> std::ops::Range<usize> {
    if len <= depth {
        return 0..ENTRIES;
    }
    let first = addr.bits(depth, STRIDE);
    first..first + (1 << (depth + STRIDE).saturating_sub(len))
}

/// The entries of the first node on a skip's way.
fn unroll<K: Key>(skip: Skip<K>, depth: u8) -> [Entry<K>; ENTRIES] {
    let mut entries = [Entry::Leaf(skip.beside); ENTRIES];
    let next = if skip.end == depth + STRIDE { Branch::Stored(skip.child) } else { Branch::Skip(skip) };
    entries[skip.path.bits(depth, STRIDE)] = Entry::Branch(next);
    entries
}
