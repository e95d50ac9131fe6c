//! The writer: leaves painted in place, blocks of another grain put in a slot's place, groups made and dissolved.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::codes::Codes;
use super::{
    BLOCKS, CODES, ELSEWHERE, GRAIN, GROUP_BITS, Handle, LARGE, LONGER, QUARTER_BITS, QUARTERS, ROOT_BITS,
    START, Shared, UNIT, below_root, first_leaf, leaf_index,
};
use crate::aligned::place_of;
use crate::arena::Arena;
use crate::engine;
use crate::prefix_store::PrefixStore;
use crate::processor::prefetch;
use crate::{Full, Key, Limits, Usage, Value};

/// The answer for some addresses, and the length of the route it comes from; 0 where there is none, as if that were a
/// default route to nowhere. With [`LONGER`], the length is that of the route around the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaf {
    code: u16,
    len: u8,
}

/// Where a slot stands.
#[derive(Clone, Copy)]
enum Place {
    Root(usize),
    Quarter { group: usize, quarter: usize },
}

/// What a slot leads to.
#[derive(Clone, Copy)]
enum Slot {
    One(Leaf),
    /// `1 << grain` leaves from `start` on.
    Block {
        start: usize,
        grain: u8,
    },
}

/// Memory that readers may be looking at.
#[derive(Clone, Copy)]
enum Block {
    Leaves { start: usize, grain: u8 },
    Group(usize),
}

/// The writer's side.
pub struct Engine {
    shared: Arc<Shared>,
    /// Of units of leaves.
    units: Arena,
    groups: Arena,
    /// The lengths of the routes that the leaves of blocks come from; of the root's slots with one leaf; of the
    /// groups'.
    leaf_lens: Box<[u8]>,
    root_lens: Box<[u8]>,
    quarter_lens: Box<[[u8; QUARTERS]]>,
    codes: Codes,
    /// Replaced since the last `retire`.
    untagged: Vec<Block>,
    /// Replaced before it, oldest first.
    retired: VecDeque<(u64, Block)>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl engine::Engine<u32> for Engine {
    type Reader = Handle;

    fn new(limits: &Limits) -> Engine {
        let units = Arena::new(limits.ipv4_leaves() / UNIT as u32);
        let groups = Arena::new(limits.ipv4_groups());
        Engine {
            shared: Arc::new(Shared::new(units.units() * UNIT, groups.units())),
            leaf_lens: vec![0; units.units() * UNIT].into(),
            root_lens: vec![0; 1 << ROOT_BITS].into(),
            quarter_lens: bytemuck::allocation::zeroed_slice_box(groups.units()),
            units,
            groups,
            codes: Codes::new(),
            untagged: Vec::new(),
            retired: VecDeque::new(),
        }
    }

    fn reader(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared))
    }

    /// The leaf where the route begins: it comes while the store is asked.
    fn bring_near(&self, addr: u32, len: u8) {
        if len > ROOT_BITS {
            let slot = self.shared.root()[addr.bits(0, ROOT_BITS)].load(Ordering::Relaxed);
            let at = leaf_index(slot, below_root(addr)) as usize;
            prefetch(&self.shared.leaves, at);
            prefetch(&self.leaf_lens, at.wrapping_sub(BLOCKS));
        }
    }

    fn hold(&mut self, value: Value) -> Result<(), Full> {
        self.codes.hold(value, &self.shared)
    }

    fn let_go(&mut self, value: Value) {
        self.codes.let_go(value, &self.shared);
    }

    fn insert(&mut self, _: &PrefixStore<u32>, addr: u32, len: u8, value: Value) -> Result<(), Full> {
        let leaf = self.leaf(len, value);
        if len <= GROUP_BITS {
            self.insert_at(root_place(addr), addr, len, leaf)
        } else {
            self.insert_longer(addr, len, leaf)
        }
    }

    fn replace(&mut self, _: &PrefixStore<u32>, addr: u32, len: u8, value: Value) {
        self.paint(addr, len, self.leaf(len, value));
    }

    /// Both end in leaves of one slot of the root.
    fn are_near((addr, len): (u32, u8), (other, other_len): (u32, u8)) -> bool {
        ends_in_root_slot(len) && ends_in_root_slot(other_len) && addr.common_len(other) >= ROOT_BITS
    }

    fn remove(&mut self, store: &PrefixStore<u32>, prefixes: &[(u32, u8)]) {
        let Some((addr, len)) = prefixes.first().copied() else { return };
        // One route's leaves are painted as soon as it is known that there is no other.
        if prefixes.len() > 1
            && ends_in_root_slot(len)
            && !store.has_within(addr, ROOT_BITS)
            && self.clear(store, addr)
        {
            return;
        }
        for (addr, len) in prefixes {
            let leaf = self.leaf_around(store.covering(*addr, *len));
            self.paint(*addr, *len, leaf);
        }
        if len > QUARTER_BITS {
            let group = self.group(addr);
            self.coarsen(quarter_place(group, addr));
        }
        if len > GROUP_BITS {
            self.dissolve(addr);
        }
        if len > ROOT_BITS {
            self.coarsen(root_place(addr));
        }
    }

    fn retire(&mut self, epoch: u64, safe: u64) {
        self.codes.retire(epoch, safe);
        self.retired.extend(self.untagged.drain(..).map(|block| (epoch, block)));
        while let Some((_, block)) = self.retired.pop_front_if(|(tag, _)| *tag <= safe) {
            self.release(block);
        }
    }

    fn usage(&self) -> Usage {
        let (groups, leaves) = (self.groups.used(), self.units.used() * UNIT);
        let retired_blocks = self.untagged.len() + self.retired.len();
        // A group is found by another word.
        let bytes = size_of_val(&*self.shared.root) + groups * (QUARTERS + 1) * 4 + leaves;
        Usage { routes: 0, nodes: groups, leaves, retired_blocks, bytes }
    }

    fn places(&self) -> Vec<Range<usize>> {
        // Words that lead to groups lie apart from each other, as far as addresses do: each would take a page of its own.
        vec![self.shared.root.place(), self.shared.leaves.place(), place_of(&self.leaf_lens)]
    }

    fn bytes(&self) -> usize {
        self.shared.bytes()
            + self.leaf_lens.len()
            + self.root_lens.len()
            + size_of_val(&*self.quarter_lens)
            + self.units.bytes()
            + self.groups.bytes()
            + Codes::BYTES
    }
}

impl Engine {
    // ---- In place ----

    /// Within the route, every leaf of a route no longer than it becomes `leaf`. The route must have leaves of its own.
    /// Takes no memory.
    fn paint(&mut self, addr: u32, len: u8, leaf: Leaf) {
        if len <= GROUP_BITS {
            let first = addr.bits(0, ROOT_BITS);
            for slot in first..first + (1 << ROOT_BITS.saturating_sub(len)) {
                self.paint_slot(Place::Root(slot), addr, len, leaf);
            }
        } else {
            self.paint_group(self.group(addr), addr, len, leaf);
        }
    }

    fn paint_group(&mut self, group: usize, addr: u32, len: u8, leaf: Leaf) {
        for quarter in within(addr, len, GROUP_BITS, QUARTER_BITS - GROUP_BITS) {
            self.paint_slot(Place::Quarter { group, quarter }, addr, len, leaf);
        }
    }

    fn paint_slot(&mut self, place: Place, addr: u32, len: u8, leaf: Leaf) {
        self.paint_in(place, self.slot(place), addr, len, leaf);
    }

    fn paint_in(&mut self, place: Place, slot: Slot, addr: u32, len: u8, leaf: Leaf) {
        match slot {
            Slot::One(old) if len <= place.depth() && old.len <= len => self.publish(place, leaf),
            Slot::One(_) => {}
            Slot::Block { start, grain } => {
                self.announce(place, leaf.code);
                for at in within(addr, len, place.depth(), grain) {
                    // Lengths first: many leaves are of longer routes, of which nothing else need be read.
                    if self.leaf_lens[start + at - BLOCKS] > len {
                        continue;
                    }
                    match (self.code_at(start + at), place) {
                        (LONGER, Place::Root(slot)) => {
                            self.write(start + at, Leaf { code: LONGER, ..leaf });
                            let group = self.shared.group_of[slot << GRAIN | at].load(Ordering::Relaxed);
                            self.paint_group(group as usize, addr, len, leaf);
                        }
                        _ => self.write(start + at, leaf),
                    }
                }
            }
        }
    }

    // ---- New routes ----

    /// A new route that ends within reach of this slot, or covers it; if it covers more, of the root's others too.
    fn insert_at(&mut self, place: Place, addr: u32, len: u8, leaf: Leaf) -> Result<(), Full> {
        let needed = len.saturating_sub(place.depth());
        match self.slot(place) {
            slot if slot.grain() < needed => return self.refine(place, slot, needed, addr, len, leaf),
            slot if needed > 0 => self.paint_in(place, slot, addr, len, leaf),
            _ => self.paint(addr, len, leaf),
        }
        Ok(())
    }

    /// A new route that ends in a group.
    fn insert_longer(&mut self, addr: u32, len: u8, leaf: Leaf) -> Result<(), Full> {
        let place = root_place(addr);
        let around = match self.slot(place) {
            Slot::One(leaf) => leaf,
            Slot::Block { start, grain } => self.leaf_at(start + addr.bits(ROOT_BITS, grain)),
        };
        if around.code == LONGER {
            return if len <= QUARTER_BITS {
                self.paint(addr, len, leaf);
                Ok(())
            } else {
                self.insert_at(quarter_place(self.group(addr), addr), addr, len, leaf)
            };
        }
        let group = self.found(around)?;
        self.shared.group_of[addr.bits(0, GROUP_BITS)].store(group as u32, Ordering::Release);
        // Nobody sees the group before the last step.
        let done = if len <= QUARTER_BITS {
            self.paint_group(group, addr, len, leaf);
            Ok(())
        } else {
            self.insert_at(quarter_place(group, addr), addr, len, leaf)
        };
        let done = done.and_then(|()| {
            let longer = Leaf { code: LONGER, ..around };
            match self.slot(place) {
                Slot::Block { start, grain: GRAIN } => {
                    self.announce(place, LONGER);
                    self.write(start + addr.bits(ROOT_BITS, GRAIN), longer);
                    Ok(())
                }
                slot => self.refine(place, slot, GRAIN, addr, GROUP_BITS, longer),
            }
        });
        if done.is_err() {
            if let Slot::Block { start, grain } = self.slot(quarter_place(group, addr)) {
                self.release(Block::Leaves { start, grain });
            }
            self.release(Block::Group(group));
        }
        done
    }

    /// A group whose addresses are all answered as those around it.
    fn found(&mut self, around: Leaf) -> Result<usize, Full> {
        let max = self.groups.units() as u32;
        let group = self.groups.allocate(1).ok_or(Full::Nodes { max })? as usize;
        for quarter in 0..QUARTERS {
            self.publish(Place::Quarter { group, quarter }, around);
        }
        Ok(group)
    }

    /// Gives the slot more leaves, the route's among them.
    fn refine(
        &mut self,
        place: Place,
        old: Slot,
        grain: u8,
        addr: u32,
        len: u8,
        leaf: Leaf,
    ) -> Result<(), Full> {
        let start = self.take(grain)?;
        let each = 1 << (grain - old.grain());
        let mut is_large = is_large(leaf);
        for at in 0..1 << old.grain() {
            let leaf = self.leaf_of(old, at);
            is_large |= self::is_large(leaf);
            self.fill(start + at * each..start + (at + 1) * each, leaf);
        }
        let Range { start: first, end } = within(addr, len, place.depth(), grain);
        self.fill(start + first..start + end, leaf);
        self.publish_block(place, start, grain, is_large);
        self.replaced(old);
        Ok(())
    }

    // ---- After a removal ----

    /// Gives a slot of the root one leaf, now that no route ends in its leaves; unless a group has some.
    fn clear(&mut self, store: &PrefixStore<u32>, addr: u32) -> bool {
        let place = root_place(addr);
        let old = self.slot(place);
        if self.has_group(place, old) {
            return false;
        }
        let leaf = self.leaf_around(store.longest_match(addr, ROOT_BITS));
        self.publish(place, leaf);
        self.replaced(old);
        true
    }

    /// Gives the slot as few leaves as tell its routes apart. Without room for them it stays as it is: right, only
    /// larger than it need be, until a later removal passes here.
    fn coarsen(&mut self, place: Place) {
        let old = self.slot(place);
        let Slot::Block { start, grain } = old else { return };
        let leaves = start..start + (1 << grain);
        // Lengths first: most often they say that all of it is needed.
        // In a plain loop, which compares many at once.
        let mut longest = 0;
        for len in &self.leaf_lens[leaves.start - BLOCKS..leaves.end - BLOCKS] {
            longest = longest.max(*len);
        }
        let needed = longest.saturating_sub(place.depth());
        if needed == grain || self.has_group(place, old) {
            return;
        }
        if needed == 0 {
            self.publish(place, self.leaf_at(start));
        } else {
            let Ok(fewer) = self.take(needed) else { return };
            let mut is_large = false;
            for at in 0..1 << needed {
                let leaf = self.leaf_at(start + (at << (grain - needed)));
                is_large |= self::is_large(leaf);
                self.write(fewer + at, leaf);
            }
            self.publish_block(place, fewer, needed, is_large);
        }
        self.replaced(old);
    }

    /// Puts a leaf in the place of a group without routes.
    fn dissolve(&mut self, addr: u32) {
        let group = self.group(addr);
        let mut slots = (0..QUARTERS).map(|quarter| self.slot(Place::Quarter { group, quarter }));
        if !slots.all(|slot| matches!(slot, Slot::One(leaf) if leaf.len <= GROUP_BITS)) {
            return;
        }
        if let (Slot::Block { start, .. }, Slot::One(leaf)) =
            (self.slot(root_place(addr)), self.slot(quarter_place(group, addr)))
        {
            self.write(start + addr.bits(ROOT_BITS, GRAIN), leaf);
            self.untagged.push(Block::Group(group));
        }
    }

    // ---- Slots, leaves and blocks ----

    fn leaf(&self, len: u8, value: Value) -> Leaf {
        Leaf { code: self.codes.find(value, &self.shared), len }
    }

    /// What is answered where this route is the longest.
    fn leaf_around(&self, route: Option<(u32, u8, Value)>) -> Leaf {
        route.map_or(Leaf { code: super::NONE, len: 0 }, |(_, len, value)| self.leaf(len, value))
    }

    /// Does one of the slot's leaves lead to a group? That is larger than [`ELSEWHERE`], so the slot would say so.
    fn has_group(&self, place: Place, slot: Slot) -> bool {
        match slot {
            Slot::Block { start, grain } if self.word(place).load(Ordering::Relaxed) & LARGE != 0 => {
                (start..start + (1 << grain)).any(|at| self.code_at(at) == LONGER)
            }
            _ => false,
        }
    }

    /// The group of an address whose leaf is [`LONGER`].
    fn group(&self, addr: u32) -> usize {
        self.shared.group_of[addr.bits(0, GROUP_BITS)].load(Ordering::Relaxed) as usize
    }

    fn slot(&self, place: Place) -> Slot {
        let len = match place {
            Place::Root(slot) => self.root_lens[slot],
            Place::Quarter { group, quarter } => self.quarter_lens[group][quarter],
        };
        let word = self.word(place).load(Ordering::Relaxed);
        let start = first_leaf(word) as usize;
        if start < BLOCKS {
            Slot::One(Leaf { code: self.code_at(start), len })
        } else {
            Slot::Block { start, grain: 32 - place.depth() - (word % LARGE) as u8 }
        }
    }

    /// From here on the slot is answered with one leaf.
    fn publish(&mut self, place: Place, leaf: Leaf) {
        match place {
            Place::Root(slot) => self.root_lens[slot] = leaf.len,
            Place::Quarter { group, quarter } => self.quarter_lens[group][quarter] = leaf.len,
        }
        self.publish_block(place, CODES + UNIT * usize::from(leaf.code), 0, is_large(leaf));
    }

    /// From here on the slot leads to these leaves; `is_large` where one of them may be.
    fn publish_block(&mut self, place: Place, start: usize, grain: u8, is_large: bool) {
        let word = ((start / UNIT) as u32) << START | u32::from(32 - place.depth() - grain);
        let word = if is_large { word | LARGE } else { word };
        self.word(place).store(word, Ordering::Release);
    }

    /// The word that readers see of a slot.
    #[inline]
    fn word(&self, place: Place) -> &AtomicU32 {
        match place {
            Place::Root(slot) => &self.shared.root[slot],
            Place::Quarter { group, quarter } => &self.shared.groups[group][quarter],
        }
    }

    /// To be told before a leaf of a slot that readers see gets this code.
    fn announce(&self, place: Place, code: u16) {
        if code > ELSEWHERE.into() {
            let slot = self.word(place);
            // Nobody else writes.
            let before = slot.load(Ordering::Relaxed);
            slot.store(before | LARGE, Ordering::Release);
            if before & LARGE == 0 {
                self.shared.announced.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// What a slot answers in one of its places.
    fn leaf_of(&self, slot: Slot, at: usize) -> Leaf {
        match slot {
            Slot::One(leaf) => leaf,
            Slot::Block { start, .. } => self.leaf_at(start + at),
        }
    }

    /// A leaf of a block.
    fn leaf_at(&self, index: usize) -> Leaf {
        Leaf { code: self.code_at(index), len: self.leaf_lens[index - BLOCKS] }
    }

    fn code_at(&self, index: usize) -> u16 {
        self.shared.code(index)
    }

    fn write(&mut self, index: usize, leaf: Leaf) {
        self.leaf_lens[index - BLOCKS] = leaf.len;
        self.shared.write(index, leaf.code);
    }

    fn fill(&mut self, leaves: Range<usize>, leaf: Leaf) {
        self.leaf_lens[leaves.start - BLOCKS..leaves.end - BLOCKS].fill(leaf.len);
        self.shared.fill(leaves, leaf.code);
    }

    /// A block of `1 << grain` leaves, at least two.
    fn take(&mut self, grain: u8) -> Result<usize, Full> {
        let max = (self.units.units() * UNIT) as u32;
        let unit = self.units.allocate(units(grain)).ok_or(Full::Leaves { max })?;
        Ok(BLOCKS + UNIT * unit as usize)
    }

    fn replaced(&mut self, slot: Slot) {
        if let Slot::Block { start, grain } = slot {
            self.untagged.push(Block::Leaves { start, grain });
        }
    }

    fn release(&mut self, block: Block) {
        match block {
            Block::Leaves { start, grain } => {
                self.units.release(((start - BLOCKS) / UNIT) as u32, units(grain));
            }
            Block::Group(group) => self.groups.release(group as u32, 1),
        }
    }
}

impl Place {
    /// Bits of an address that lead to the slot.
    fn depth(self) -> u8 {
        match self {
            Place::Root(_) => ROOT_BITS,
            Place::Quarter { .. } => QUARTER_BITS,
        }
    }
}

impl Slot {
    /// Bits that choose among its leaves.
    fn grain(self) -> u8 {
        match self {
            Slot::One(_) => 0,
            Slot::Block { grain, .. } => grain,
        }
    }
}

/// Units that a block takes.
fn units(grain: u8) -> usize {
    (1usize << grain).div_ceil(UNIT)
}

/// Must a slot say [`LARGE`] for the sake of this leaf?
fn is_large(leaf: Leaf) -> bool {
    leaf.code > ELSEWHERE.into()
}

/// Is it in the leaves of a slot of the root that routes of this length end?
fn ends_in_root_slot(len: u8) -> bool {
    (ROOT_BITS + 1..=GROUP_BITS).contains(&len)
}

fn root_place(addr: u32) -> Place {
    Place::Root(addr.bits(0, ROOT_BITS))
}

fn quarter_place(group: usize, addr: u32) -> Place {
    Place::Quarter { group, quarter: addr.bits(GROUP_BITS, QUARTER_BITS - GROUP_BITS) }
}

/// Which of the `1 << grain` parts below the first `depth` bits overlap the first `len` bits of `addr`, which has these
/// `depth` bits.
fn within(addr: u32, len: u8, depth: u8, grain: u8) -> Range<usize> {
    if len <= depth {
        return 0..1 << grain;
    }
    let first = addr.bits(depth, grain);
    first..first + (1 << (depth + grain).saturating_sub(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine as _, Reader};
    use crate::{NO_ROUTE, Naive};
    use proptest::prelude::*;

    /// An engine with room for very little: 256 leaves a chunk of the arena, 64 groups.
    fn small(leaves: u32) -> Engine {
        let engine = Engine::new(&Limits { max_routes: 0, max_nodes: 0, max_leaves: leaves / 16 });
        assert_eq!((engine.units.units() * UNIT) as u32, leaves.max(256));
        engine
    }

    fn insert(
        engine: &mut Engine,
        store: &mut PrefixStore<u32>,
        addr: u32,
        len: u8,
        value: Value,
    ) -> Result<(), Full> {
        engine.hold(value)?;
        store.insert(addr, len, value);
        let done = engine.insert(store, addr, len, value);
        if done.is_err() {
            store.remove(addr, len);
            engine.let_go(value);
        }
        done
    }

    #[test]
    fn an_insert_without_room_leaves_nothing_behind() {
        let (mut engine, mut store) = (small(512), PrefixStore::new());
        insert(&mut engine, &mut store, 0x0a00_0000, 24, 1).unwrap();
        let before = engine.usage();
        // A block for the /32, and none for the slot above it.
        assert_eq!(insert(&mut engine, &mut store, 0x0b00_0000, 32, 2), Err(Full::Leaves { max: 512 }));
        assert_eq!(engine.usage(), before);
        insert(&mut engine, &mut store, 0x0b00_0000, 24, 3).unwrap();
        let before = engine.usage();
        for (addr, len) in [(0x0c00_0000, 24), (0x0a00_0000, 32), (0x0c00_0000, 19), (0x0c00_0000, 26)] {
            assert_eq!(insert(&mut engine, &mut store, addr, len, 4), Err(Full::Leaves { max: 512 }));
            assert_eq!(engine.usage(), before);
        }
        // These need no leaves of their own.
        insert(&mut engine, &mut store, 0x0c00_0000, 16, 5).unwrap();
        insert(&mut engine, &mut store, 0x0b00_0080, 25, 6).unwrap();
        let reader = engine.reader();
        let answers =
            [0x0a00_0000, 0x0b00_0000, 0x0b00_0080, 0x0c00_0000, 0x0d00_0000].map(|key| reader.lookup(key));
        assert_eq!(answers, [1, 3, 6, 5, NO_ROUTE]);
    }

    #[test]
    fn groups_run_out() {
        let (mut engine, mut store) = (small(128 * 64), PrefixStore::new());
        for group in 0..64 {
            insert(&mut engine, &mut store, group << 8, 25, group).unwrap();
        }
        let before = engine.usage();
        assert_eq!(insert(&mut engine, &mut store, 64 << 8, 25, 1), Err(Full::Nodes { max: 64 }));
        assert_eq!(engine.usage(), before);
        store.remove(7 << 8, 25);
        engine.remove(&store, &[(7 << 8, 25)]);
        engine.retire(1, 1);
        insert(&mut engine, &mut store, 64 << 8, 25, 1).unwrap();
    }

    /// Changes near a few places, in so little room that many fail; what comes out must be what the oracle says.
    fn change() -> impl Strategy<Value = (u32, u8, bool)> {
        let addr = (0u32..5, any::<u32>()).prop_map(|(place, bits)| place << 16 | bits & 0x0000_c103);
        (addr, prop_oneof![0u8..=32, 15u8..=17, 23u8..=27], prop::bool::weighted(0.6))
    }

    proptest! {
        #[test]
        fn what_fits_is_answered_and_what_does_not_changes_nothing(
            changes in proptest::collection::vec(change(), 1..150)
        ) {
            let (mut engine, mut naive, mut seen) = (small(1024), Naive::<u32>::new(), Vec::new());
            let mut store = PrefixStore::new();
            for (number, (addr, len, add)) in changes.into_iter().enumerate() {
                let (addr, number) = (addr.masked(len), number as u32);
                seen.extend([addr, addr | (u32::MAX.checked_shr(len.into()).unwrap_or(0)), addr.wrapping_sub(1)]);
                let before = engine.usage();
                let old = naive.get(addr, len);
                if add && old.is_some() {
                    engine.hold(number).unwrap();
                    store.insert(addr, len, number);
                    engine.replace(&store, addr, len, number);
                    engine.let_go(old.unwrap());
                    naive.insert(addr, len, number);
                } else if add {
                    match insert(&mut engine, &mut store, addr, len, number) {
                        Ok(()) => drop(naive.insert(addr, len, number)),
                        Err(_) => prop_assert_eq!(engine.usage(), before),
                    }
                } else if let Some(value) = naive.remove(addr, len) {
                    store.remove(addr, len);
                    engine.remove(&store, &[(addr, len)]);
                    engine.let_go(value);
                }
                if number % 3 == 0 {
                    engine.retire(number.into(), number.into());
                }
                let reader = engine.reader();
                let mut answers = vec![0; seen.len()];
                reader.lookup_batch(&seen, &mut answers);
                for (key, answer) in seen.iter().zip(answers) {
                    prop_assert_eq!(answer, naive.lookup(*key).unwrap_or(NO_ROUTE), "{:x}", key);
                    prop_assert_eq!(answer, reader.lookup(*key), "{:x}", key);
                }
            }
            for (addr, len, value) in naive.iter().collect::<Vec<_>>().into_iter().rev() {
                store.remove(addr, len);
                engine.remove(&store, &[(addr, len)]);
                engine.let_go(value);
            }
            engine.retire(u64::MAX, u64::MAX);
            let usage = engine.usage();
            prop_assert_eq!((usage.nodes, usage.leaves, usage.retired_blocks), (0, 0, 0));
        }
    }
}
