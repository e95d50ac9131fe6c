//! What a peer was told as a member of the group that it has left, for its new group to tell it the difference.
//!
//! ```text
//!  group left ── pages, what was owed ──► Former ──► compared in a run of the new group, portion by portion
//!                                                       │ then
//!                   what is decided from then on ──► owed by the new group
//! ```
//! It is by [`Index`], and a prefix's place may become another's. That does no harm: from the moment at which a member changes
//! groups, whatever is decided of a prefix is owed to it ([`crate::backlog`]), so this counts for what nothing has been decided
//! of since, and that is where it was.

use std::sync::Arc;

use crate::adj_rib_out::{PAGE, Pages, Said, next_there};
use crate::loc_rib::Index;
use crate::path::Slot;

/// What was told, and how far that has been gone through.
#[derive(Debug)]
pub(crate) struct Former<K> {
    told: Told,
    /// Prefixes of which the member hasn't heard the latest, or anything else may have been told; some are here twice.
    others: Vec<K>,
    next: Index,
    /// How many of the others have been gone through.
    gone_through: usize,
}

#[derive(Debug)]
enum Told {
    /// All of it.
    All(Arc<Pages>),
    /// Some of it, or something else of these: of each page of prefixes, a bit for each.
    Some(Vec<u64>),
}

/// What is gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before<K> {
    /// Something was told of this one, or may have been.
    At(Index),
    /// What was told of this one isn't known.
    Other(K),
}

impl<K: Copy + Ord> Former<K> {
    /// All that was said was told.
    pub(crate) fn all(said: Arc<Pages>) -> Former<K> {
        Former { told: Told::All(said), others: Vec::new(), next: Index(0), gone_through: 0 }
    }

    /// Some of what was said was told, or what the member came with, or something else of it.
    pub(crate) fn some(said: &Pages, before: Option<Former<K>>) -> Former<K> {
        let mut there: Vec<u64> = said.there(0).collect();
        let others = match before {
            None => Vec::new(),
            Some(Former { told, others, .. }) => {
                let before = match told {
                    Told::All(said) => said.there(0).collect(),
                    Told::Some(there) => there,
                };
                there.resize(there.len().max(before.len()), 0);
                there.iter_mut().zip(before).for_each(|(there, before)| *there |= before);
                others
            }
        };
        Former { told: Told::Some(there), others, next: Index(0), gone_through: 0 }
    }

    /// Prefixes of which anything may have been told, whatever was said.
    pub(crate) fn add_others(&mut self, others: impl IntoIterator<Item = K>) {
        let is_first = self.others.is_empty();
        self.others.extend(others);
        if !is_first {
            // However often a member changes groups before it has been compared.
            self.others.sort_unstable();
            self.others.dedup();
        }
    }

    /// What was told of a prefix, as far as that is certain.
    pub(crate) fn get(&self, index: Index) -> Option<Said> {
        match &self.told {
            Told::All(said) => said.get(index),
            Told::Some(_) => None,
        }
    }

    /// May this peer have been told of a prefix that is gone through?
    pub(crate) fn may_know(&self, peer: Slot, index: Index) -> bool {
        self.get(index).is_none_or(|said| said.source != peer)
    }

    /// What hasn't been gone through yet; none twice.
    pub(crate) fn go_on(&mut self) -> Option<Before<K>> {
        let page = self.next.0 as usize / PAGE;
        let next = match &self.told {
            Told::All(said) => next_there(self.next, said.there(page)),
            Told::Some(there) => next_there(self.next, there.get(page..).unwrap_or_default().iter().copied()),
        };
        if let Some(index) = next {
            self.next = Index(index.0 + 1);
            return Some(Before::At(index));
        }
        let other = self.others.get(self.gone_through).copied()?;
        self.gone_through += 1;
        Some(Before::Other(other))
    }
}
