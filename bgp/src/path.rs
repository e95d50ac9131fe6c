//! A path to a prefix, whose it is, and those of one prefix together, kept small: there can be millions.

use std::net::IpAddr;
use std::sync::Arc;

use crate::input::Rank;
use crate::wire::attributes::Attributes;

/// A peer's place in the speaker's table, or [`Slot::LOCAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    /// Ourselves.
    pub(crate) const LOCAL: Slot = Slot(u32::MAX);
    /// No peer in particular: any that a route isn't from.
    pub(crate) const ANY: Slot = Slot(u32::MAX - 1);
}

/// What is known of a path, one bit each.
pub(crate) mod mark {
    /// The import filter rejects it.
    pub(crate) const FILTERED: u16 = 1;
    /// Our AS is in its AS_PATH.
    pub(crate) const AS_LOOP: u16 = 1 << 1;
    /// We are its originator, or in its cluster list.
    pub(crate) const REFLECTION_LOOP: u16 = 1 << 2;
    /// Its next hop is ours.
    pub(crate) const OWN_NEXT_HOP: u16 = 1 << 3;
    /// Kept from before the peer's restart.
    pub(crate) const STALE: u16 = 1 << 4;
    /// Chosen: the best, or as good.
    pub(crate) const CHOSEN: u16 = 1 << 5;
    /// Chosen, and the best.
    pub(crate) const BEST: u16 = 1 << 6;
    /// It went down to a customer once and came up again (RFC 9234 §5).
    pub(crate) const ROUTE_LEAK: u16 = 1 << 7;
    /// Any of these keeps a path out of the decision process.
    pub(crate) const INELIGIBLE: u16 = FILTERED | AS_LOOP | REFLECTION_LOOP | OWN_NEXT_HOP | ROUTE_LEAK;
}

/// One path to a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// As the import filter left it.
    pub(crate) imported: Arc<Attributes>,
    pub(crate) source: Slot,
    pub(crate) path_id: u32,
    /// Tells the prefix's paths apart towards peers that take several (RFC 7911): the lowest that was free. Set by
    /// [`Paths::push`].
    pub(crate) sent_id: u32,
    pub(crate) marks: u16,
    /// With which others of its source it came: see [`crate::cohorts`].
    pub(crate) cohort: u8,
    /// By the values that this never has [`Paths`] tells its variants apart, which would take eight bytes a prefix elsewhere.
    pub(crate) rank: Rank,
}

impl Path {
    pub(crate) fn has(&self, marks: u16) -> bool {
        self.marks & marks != 0
    }

    /// As the peer announced it, so that the filter can be asked again.
    pub(crate) fn received(&self) -> &Arc<Attributes> {
        self.imported.made_of().unwrap_or(&self.imported)
    }

    /// Its next hop, if the path takes part in the decision process and is not our own.
    pub(crate) fn used_nexthop(&self) -> Option<IpAddr> {
        if self.has(mark::INELIGIBLE) { None } else { self.imported.nexthop() }
    }
}

/// Paths of one prefix; most have one.
#[derive(Clone, Debug, Default)]
pub(crate) enum Paths {
    #[default]
    None,
    One(Path),
    /// As a slice: with the capacity of a list there would be no byte left to tell the variants apart by.
    Many(Box<[Path]>),
}

impl Paths {
    pub(crate) fn as_slice(&self) -> &[Path] {
        match self {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Paths::None => &mut [],
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(crate) fn position(&self, source: Slot, path_id: u32) -> Option<usize> {
        self.as_slice().iter().position(|path| path.source == source && path.path_id == path_id)
    }

    pub(crate) fn push(&mut self, mut path: Path) {
        path.sent_id = self.free_sent_id();
        *self = match std::mem::take(self) {
            Paths::None => Paths::One(path),
            Paths::One(first) => Paths::Many([first, path].into()),
            Paths::Many(paths) => {
                let mut paths = paths.into_vec();
                paths.reserve_exact(1);
                paths.push(path);
                Paths::Many(paths.into())
            }
        };
    }

    /// The lowest number from 1 on that no path here is told apart by.
    fn free_sent_id(&self) -> u32 {
        let taken = |id: &u32| self.as_slice().iter().any(|path| path.sent_id == *id);
        (1..).find(|id| !taken(id)).unwrap_or(0)
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<Path> {
        match std::mem::take(self) {
            Paths::One(path) if at == 0 => Some(path),
            Paths::Many(paths) if at < paths.len() => {
                let mut paths = paths.into_vec();
                let removed = paths.remove(at);
                *self = match paths.len() {
                    1 => paths.pop().map_or(Paths::None, Paths::One),
                    _ => Paths::Many(paths.into()),
                };
                Some(removed)
            }
            others => {
                *self = others;
                None
            }
        }
    }
}
