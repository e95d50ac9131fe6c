//! Atoms: what an address can be in, as far as rules ask. A class of addresses is a list of them.

use std::collections::HashMap;

use ahash::RandomState;
use model::Prefix;

use crate::rule::SetId;

/// Something that an address is in or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Atom {
    /// A set's networks.
    Set(SetId),
    /// Those of a set's members that are this protocol and port.
    Port(SetId, u8, u16),
    /// A network that rules name.
    Net(Prefix),
}

/// An atom's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AtomId(pub(super) u32);

/// Numbers of atoms, each kept for as long as something uses it.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    ids: HashMap<Atom, (AtomId, usize), RandomState>,
    /// What each number stands for, or stood for last.
    names: Vec<Atom>,
    free: Vec<AtomId>,
    /// Without use since the last publication: classes of that one may still list them.
    dropped: Vec<AtomId>,
}

impl Atoms {
    /// Takes a use of an atom; says too whether it is the first one.
    pub(super) fn hold(&mut self, atom: Atom) -> (AtomId, bool) {
        if let Some((id, uses)) = self.ids.get_mut(&atom) {
            *uses += 1;
            return (*id, false);
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.names.push(atom);
            AtomId(self.names.len() as u32 - 1)
        });
        self.names[id.0 as usize] = atom;
        self.ids.insert(atom, (id, 1));
        (id, true)
    }

    /// Gives a use back; the number where it was the last one.
    pub(super) fn let_go(&mut self, atom: Atom) -> Option<AtomId> {
        let (id, uses) = self.ids.get_mut(&atom)?;
        *uses -= 1;
        if *uses > 0 {
            return None;
        }
        let id = *id;
        self.ids.remove(&atom);
        self.dropped.push(id);
        Some(id)
    }

    /// The number of an atom in use.
    pub(super) fn find(&self, atom: Atom) -> Option<AtomId> {
        self.ids.get(&atom).map(|(id, _)| *id)
    }

    /// What a number stands for.
    pub(super) fn name(&self, id: AtomId) -> Option<Atom> {
        self.names.get(id.0 as usize).copied()
    }

    /// No class lists any more what was dropped.
    pub(super) fn settle(&mut self) {
        self.free.append(&mut self.dropped);
    }
}
