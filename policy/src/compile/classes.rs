//! Classes: addresses that are in the same atoms are the same to every program.
//!
//! A class has a number, which the look-up tables of addresses lead to. A number is taken anew only when no table that a
//! reader may be looking at leads to it any more: after [`Classes::settle`].

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use super::atoms::AtomId;

/// A class's number.
pub(super) type ClassId = u32;

/// Of addresses that are in nothing.
pub(super) const NOTHING: ClassId = 0;
/// Of addresses whose class found no number: every program that asks for addresses denies them. It is the largest number
/// that a table of IPv4 can hold without a table of its own.
pub(super) const UNKNOWN: ClassId = 65_533;

#[derive(Debug)]
struct Class {
    atoms: Arc<[AtomId]>,
    /// Prefixes that lead to it.
    prefixes: usize,
}

/// All classes in use.
#[derive(Debug)]
pub(super) struct Classes {
    rows: Vec<Option<Class>>,
    by_atoms: HashMap<Arc<[AtomId]>, ClassId, RandomState>,
    /// The classes that list an atom, by its number.
    with_atom: Vec<Vec<ClassId>>,
    /// Made since the last [`Self::close`].
    fresh: Vec<ClassId>,
    /// Without prefixes, maybe.
    left: Vec<ClassId>,
    released: Vec<ClassId>,
    free: Vec<ClassId>,
    /// What a class becomes by one atom more: asked a million times for a set of a million networks.
    derived: HashMap<(ClassId, AtomId), ClassId, RandomState>,
    /// Prefixes of class [`UNKNOWN`].
    unknown: usize,
}

impl Classes {
    pub(super) fn new() -> Classes {
        Classes {
            rows: vec![None],
            by_atoms: HashMap::default(),
            with_atom: Vec::new(),
            fresh: Vec::new(),
            left: Vec::new(),
            released: Vec::new(),
            free: Vec::new(),
            derived: HashMap::default(),
            unknown: 0,
        }
    }

    /// The atoms of a class; none of one that isn't there.
    pub(super) fn atoms(&self, id: ClassId) -> &[AtomId] {
        self.rows.get(id as usize).and_then(Option::as_ref).map_or(&[], |class| &class.atoms)
    }

    /// The classes that list an atom.
    pub(super) fn with(&self, atom: AtomId) -> &[ClassId] {
        self.with_atom.get(atom.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// One more than the largest number in use.
    pub(super) fn end(&self) -> usize {
        self.rows.len()
    }

    /// Classes in use, that of addresses in nothing aside.
    pub(super) fn len(&self) -> usize {
        self.by_atoms.len()
    }

    /// Prefixes whose class found no number.
    pub(super) fn unknown(&self) -> usize {
        self.unknown
    }

    /// Is there a number for a class that had none?
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.rows.len() < UNKNOWN as usize
    }

    /// The class of what is in `atoms` and within a prefix of class `parent`.
    pub(super) fn derive(&mut self, parent: ClassId, atoms: &[AtomId]) -> ClassId {
        if parent == UNKNOWN {
            return UNKNOWN;
        }
        let [atom] = *atoms else { return self.joined(parent, atoms) };
        if let Some(id) = self.derived.get(&(parent, atom)) {
            return *id;
        }
        let id = self.joined(parent, atoms);
        self.derived.insert((parent, atom), id);
        id
    }

    fn joined(&mut self, parent: ClassId, atoms: &[AtomId]) -> ClassId {
        let mut all = [self.atoms(parent), atoms].concat();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            return NOTHING;
        }
        if let Some(id) = self.by_atoms.get(&*all) {
            return *id;
        }
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.rows.len() < UNKNOWN as usize => {
                self.rows.push(None);
                self.rows.len() as ClassId - 1
            }
            None => return UNKNOWN,
        };
        for atom in &all {
            let index = atom.0 as usize;
            if self.with_atom.len() <= index {
                self.with_atom.resize_with(index + 1, Vec::new);
            }
            self.with_atom[index].push(id);
        }
        let atoms: Arc<[AtomId]> = all.into();
        self.by_atoms.insert(Arc::clone(&atoms), id);
        self.rows[id as usize] = Some(Class { atoms, prefixes: 0 });
        self.fresh.push(id);
        self.left.push(id);
        id
    }

    /// A prefix goes from one class to another.
    pub(super) fn move_prefix(&mut self, from: ClassId, to: ClassId) {
        match self.rows.get_mut(from as usize) {
            Some(Some(class)) => {
                class.prefixes -= 1;
                if class.prefixes == 0 {
                    self.left.push(from);
                }
            }
            _ => self.unknown -= usize::from(from == UNKNOWN),
        }
        match self.rows.get_mut(to as usize) {
            Some(Some(class)) => class.prefixes += 1,
            _ => self.unknown += usize::from(to == UNKNOWN),
        }
    }

    /// Ends a round of changes: classes that nothing leads to are gone. Returns those that are new and stay.
    pub(super) fn close(&mut self) -> Vec<ClassId> {
        self.derived.clear();
        let mut touched = Vec::new();
        for id in std::mem::take(&mut self.left) {
            let row = &mut self.rows[id as usize];
            let Some(class) = row.take_if(|class| class.prefixes == 0) else { continue };
            self.by_atoms.remove(&class.atoms);
            touched.extend_from_slice(&class.atoms);
            self.released.push(id);
        }
        touched.sort_unstable();
        touched.dedup();
        for atom in touched {
            self.with_atom[atom.0 as usize].retain(|id| self.rows[*id as usize].is_some());
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|id| self.rows[*id as usize].is_some());
        fresh
    }

    /// No table leads any more to classes that were gone before the last round.
    pub(super) fn settle(&mut self) {
        self.free.append(&mut self.released);
    }
}
