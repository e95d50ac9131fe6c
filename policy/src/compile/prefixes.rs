//! Which prefixes lead to which class, for one family.
//!
//! Two look-up tables take turns: readers look at one; the other one is brought up to date, and shown with the next
//! publication, when no reader is left there. So a publication's addresses change all at once, with its programs.

use std::collections::BTreeMap;

use lpm::{Key, Lookup, Table};

use super::atoms::AtomId;
use super::classes::{ClassId, Classes, NOTHING};

/// A prefix that something names.
#[derive(Debug)]
struct Node {
    direct: Direct,
    class: ClassId,
}

/// The atoms that a prefix itself is in: nearly always one.
#[derive(Debug)]
enum Direct {
    One(AtomId),
    /// In order.
    Many(Vec<AtomId>),
}

impl Direct {
    fn atoms(&self) -> &[AtomId] {
        match self {
            Direct::One(atom) => std::slice::from_ref(atom),
            Direct::Many(atoms) => atoms,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<AtomId>)) {
        let mut atoms = match std::mem::replace(self, Direct::Many(Vec::new())) {
            Direct::One(atom) => vec![atom],
            Direct::Many(atoms) => atoms,
        };
        change(&mut atoms);
        *self = if let [atom] = *atoms { Direct::One(atom) } else { Direct::Many(atoms) };
    }
}

/// The prefixes of one family.
pub(super) struct Prefixes<K: Key> {
    /// By address, then length: what covers others stands before them.
    nodes: BTreeMap<(K, u8), Node>,
    /// Named or no longer named since the last round.
    dirty: Vec<(K, u8)>,
    /// Most prefixes that there may be.
    limit: usize,
    /// Made when there is a prefix; the first is the one that readers look at.
    tables: Option<[Table<K>; 2]>,
    /// What the last round changed, which the second table doesn't know yet.
    behind: Vec<(K, u8, ClassId)>,
    /// Counts calls of [`Table::retire`].
    retired: u64,
}

/// Changes of a table between two moments at which its unlinked memory is taken back.
const RETIRE_EVERY: usize = 1_024;

impl<K: Key> Prefixes<K> {
    pub(super) fn new(limit: usize) -> Prefixes<K> {
        Prefixes {
            nodes: BTreeMap::new(),
            dirty: Vec::new(),
            limit,
            tables: None,
            behind: Vec::new(),
            retired: 0,
        }
    }

    /// The prefix is in the atom from now on.
    pub(super) fn add(&mut self, addr: K, len: u8, atom: AtomId) {
        let node = self
            .nodes
            .entry((addr, len))
            .or_insert_with(|| Node { direct: Direct::Many(Vec::new()), class: NOTHING });
        node.direct.change(|atoms| {
            if let Err(at) = atoms.binary_search(&atom) {
                atoms.insert(at, atom);
            }
        });
        self.dirty.push((addr, len));
    }

    /// The prefix isn't in the atom any more.
    pub(super) fn remove(&mut self, addr: K, len: u8, atom: AtomId) {
        if let Some(node) = self.nodes.get_mut(&(addr, len)) {
            node.direct.change(|atoms| atoms.retain(|other| *other != atom));
            self.dirty.push((addr, len));
        }
    }

    /// Every prefix is to be asked for its class again.
    pub(super) fn dirty_all(&mut self) {
        self.dirty.extend(self.nodes.keys());
    }

    /// Brings the second table to where the first one is. Call it when no reader looks at the second one.
    pub(super) fn settle(&mut self) {
        let behind = std::mem::take(&mut self.behind);
        self.write(&behind);
    }

    /// Gives prefixes that have changed, and those that they cover, their class, and writes it into the second table,
    /// which then is the first. Says whether any class has changed. [`Self::settle`] goes before.
    pub(super) fn sweep(&mut self, classes: &mut Classes) -> bool {
        debug_assert!(self.behind.is_empty(), "settled before");
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        let mut changes = Vec::new();
        if dirty.len() > self.nodes.len() / 4 {
            // Once through all is less than to look each of them up.
            dirty = vec![(K::ZERO, 0)];
        }
        let mut at = 0;
        while let Some(&(addr, len)) = dirty.get(at) {
            let covered = |other: K, longer: u8| longer >= len && other.common_len(addr) >= len;
            let outer = self.tables.as_ref().and_then(|[_, table]| table.covering(addr, len));
            self.sweep_below(addr, len, outer.map_or(NOTHING, |(_, _, class)| class), classes, &mut changes);
            at += dirty[at..].iter().take_while(|(other, longer)| covered(*other, *longer)).count();
        }
        for (addr, len, _) in changes.iter().filter(|(_, _, class)| *class == NOTHING) {
            self.nodes.remove(&(*addr, *len));
        }
        if changes.is_empty() {
            return false;
        }
        if self.tables.is_none() {
            let limits = lpm::Limits::for_routes(u32::try_from(self.limit).unwrap_or(u32::MAX));
            self.tables = Some([Table::new(limits), Table::new(limits)]);
        }
        self.write(&changes);
        if let Some(tables) = &mut self.tables {
            tables.swap(0, 1);
        }
        self.behind = changes;
        true
    }

    fn sweep_below(
        &mut self,
        addr: K,
        len: u8,
        outer: ClassId,
        classes: &mut Classes,
        changes: &mut Vec<(K, u8, ClassId)>,
    ) {
        // Prefixes around the one that is looked at, the longest last.
        let mut around: Vec<(K, u8, ClassId)> = Vec::new();
        let nodes = self.nodes.range_mut((addr, len)..);
        for (&(at, longer), node) in nodes.take_while(|((at, _), _)| at.common_len(addr) >= len) {
            while around.pop_if(|(base, shorter, _)| at.common_len(*base) < *shorter).is_some() {}
            let parent = around.last().map_or(outer, |(_, _, class)| *class);
            let atoms = node.direct.atoms();
            // One that nothing names any more is as what covers it, and goes.
            let class = if atoms.is_empty() { parent } else { classes.derive(parent, atoms) };
            let stored = if atoms.is_empty() { NOTHING } else { class };
            if node.class != stored || atoms.is_empty() {
                classes.move_prefix(node.class, stored);
                node.class = stored;
                changes.push((at, longer, stored));
            }
            around.push((at, longer, class));
        }
    }

    fn write(&mut self, changes: &[(K, u8, ClassId)]) {
        let Some([_, table]) = &mut self.tables else { return };
        for some in changes.chunks(RETIRE_EVERY) {
            for (addr, len, class) in some {
                if *class == NOTHING {
                    table.remove(*addr, *len);
                } else {
                    // Made for so many prefixes, however they lie, it has room; and classes have few enough numbers.
                    let written = table.insert(*addr, *len, *class);
                    debug_assert!(written.is_ok(), "{written:?}");
                }
            }
            self.retired += 1;
            table.retire(self.retired, self.retired);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// For readers of the next publication.
    pub(super) fn lookup(&self) -> Option<Lookup<K>> {
        self.tables.as_ref().map(|[table, _]| table.reader())
    }

    /// The most bytes that prefixes so many take: each in the tree of nodes, and in both tables.
    pub(super) fn bytes_for(limit: usize) -> usize {
        let limits = lpm::Limits::for_routes(u32::try_from(limit).unwrap_or(u32::MAX));
        2 * Table::<K>::new(limits).bytes() + limit * size_of::<((K, u8), Node)>() * 3 / 2
    }
}

impl Prefixes<u32> {
    /// Where the class of addresses changes, from the first address on: each with the class that begins there.
    pub(super) fn intervals(&self) -> Vec<(u32, ClassId)> {
        const END: u64 = 1 << 32;
        let mut intervals = vec![(0, NOTHING)];
        let mut begin = |at: u64, class: ClassId| {
            let Ok(at) = u32::try_from(at) else { return };
            match intervals.last_mut() {
                Some(last) if last.0 == at => last.1 = class,
                Some(last) if last.1 == class => {}
                _ => intervals.push((at, class)),
            }
        };
        // Prefixes around the one that is looked at, with where they end, the longest last.
        let mut around: Vec<(u64, ClassId)> = Vec::new();
        let leave = |around: &mut Vec<(u64, ClassId)>, up_to: u64, begin: &mut dyn FnMut(u64, ClassId)| {
            while let Some((end, _)) = around.pop_if(|(end, _)| *end <= up_to) {
                begin(end, around.last().map_or(NOTHING, |(_, class)| *class));
            }
        };
        for ((addr, len), node) in &self.nodes {
            leave(&mut around, (*addr).into(), &mut begin);
            begin((*addr).into(), node.class);
            around.push((u64::from(*addr) + (END >> len), node.class));
        }
        leave(&mut around, END, &mut begin);
        intervals
    }
}
