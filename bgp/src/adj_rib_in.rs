//! What each peer said (RFC 4271 §3.2, Adj-RIBs-In), kept before policy in the tables of `loc_rib`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ahash::RandomState;
use model::{Family, Prefix};

use crate::config::PeerKind;
use crate::import::{ImportPolicy, is_forwardable};
use crate::interner::Interner;
use crate::loc_rib::{Inserted, Key, KeyV4, KeyV6, Path, Rib, Slot, Spare, Table, mark};
use crate::nexthops::Nexthops;
use crate::output::Output;
use crate::prefix_limit::{Admission, Allowance, TooMany};
use crate::rewrite::Rewrite;
use crate::status::ErrorCounters;
use crate::wire::attributes::{Attributes, LLGR_STALE, NO_LLGR};
use crate::wire::nlri::Nlri;
use crate::wire::update::Update;

/// What all peers share.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) rib: Rib,
    pub(crate) interner: Interner,
    pub(crate) nexthops: Nexthops,
}

impl Tables {
    pub(crate) fn new(hasher: &RandomState) -> Tables {
        Tables {
            rib: Rib::new(hasher),
            interner: Interner::new(hasher.clone()),
            nexthops: Nexthops::new(hasher.clone()),
        }
    }

    /// Puts a path in and keeps count of next hops; gives back what it replaced.
    pub(crate) fn insert(&mut self, prefix: Prefix, path: Path, out: &mut Vec<Output>) -> Inserted {
        // The new one first, lest a next hop be unwatched only to be watched again.
        if let Some(nexthop) = path.used_nexthop() {
            self.nexthops.acquire(nexthop, out);
        }
        let inserted = match prefix.family() {
            Family::V4 => self.rib.v4.insert(KeyV4::new(prefix), path),
            Family::V6 => self.rib.v6.insert(KeyV6::new(prefix), path),
        };
        if let Inserted::Replaced(old) = &inserted {
            self.release(old, out);
        }
        inserted
    }

    pub(crate) fn remove(
        &mut self,
        prefix: Prefix,
        source: Slot,
        path_id: u32,
        out: &mut Vec<Output>,
    ) -> Option<Path> {
        let removed = match prefix.family() {
            Family::V4 => self.rib.v4.remove(KeyV4::new(prefix), source, path_id),
            Family::V6 => self.rib.v6.remove(KeyV6::new(prefix), source, path_id),
        };
        if let Some(path) = &removed {
            self.release(path, out);
        }
        removed
    }

    fn contains(&self, nlri: Nlri, source: Slot) -> bool {
        match nlri.prefix.family() {
            Family::V4 => self.rib.v4.contains(KeyV4::new(nlri.prefix), source, nlri.path_id),
            Family::V6 => self.rib.v6.contains(KeyV6::new(nlri.prefix), source, nlri.path_id),
        }
    }

    fn release(&mut self, path: &Path, out: &mut Vec<Output>) {
        if let Some(nexthop) = path.used_nexthop() {
            self.nexthops.release(nexthop, out);
        }
    }
}

/// One peer's part of the tables.
#[derive(Debug)]
pub(crate) struct AdjRibIn {
    slot: Slot,
    /// How many paths it may hold.
    pub(crate) allowance: Allowance,
    /// Of which AS the peer is; stays known while the session is down.
    pub(crate) kind: PeerKind,
    /// The identifier in its latest OPEN.
    pub(crate) router_id: Option<Ipv4Addr>,
    /// Paths, by [`Family`].
    pub(crate) received: [usize; 2],
    /// Of these, stale ones.
    pub(crate) stale: [usize; 2],
    /// Bytes of all paths' attributes as received, those of each path counted in full.
    attribute_bytes: usize,
}

impl AdjRibIn {
    pub(crate) fn new(slot: Slot, kind: PeerKind, allowance: Allowance) -> AdjRibIn {
        AdjRibIn {
            slot,
            allowance,
            kind,
            router_id: None,
            received: [0; 2],
            stale: [0; 2],
            attribute_bytes: 0,
        }
    }

    /// Takes in an UPDATE: first what it withdraws, then what it announces (RFC 4271 §4.3).
    pub(crate) fn apply(
        &mut self,
        update: &Update<'_>,
        policy: &ImportPolicy<'_>,
        tables: &mut Tables,
        errors: &mut ErrorCounters,
        out: &mut Vec<Output>,
    ) -> Result<(), TooMany> {
        errors.attributes_discarded += u64::from(update.discarded);
        errors.treated_as_withdraw += u64::from(update.error.is_some());
        for nlri in update.withdrawn.into_iter().flatten() {
            self.withdraw(nlri, tables, out);
        }
        let mut key = Vec::new();
        for announced in update.announced.into_iter().flatten() {
            if update.error.is_some() {
                announced.nlri.for_each(|nlri| self.withdraw(nlri, tables, out));
                continue;
            }
            update.canonical_key(announced.nexthop, &mut key);
            let received = tables.interner.intern(&key);
            let marks = policy.marks(&received);
            errors.route_leaks += u64::from(marks & mark::ROUTE_LEAK != 0) * announced.nlri.count() as u64;
            for nlri in announced.nlri {
                if is_forwardable(nlri.prefix) {
                    self.announce(nlri, &received, marks, policy, tables, out)?;
                } else {
                    errors.prefixes_ignored += 1;
                }
            }
        }
        Ok(())
    }

    fn announce(
        &mut self,
        nlri: Nlri,
        received: &Arc<Attributes>,
        marks: u16,
        policy: &ImportPolicy<'_>,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) -> Result<(), TooMany> {
        let family = nlri.prefix.family();
        let held = self.received[family as usize];
        match self.allowance.admit(family, held, || !tables.contains(nlri, self.slot)) {
            Admission::Take => {}
            Admission::Drop => return Ok(()),
            Admission::Close(too_many) => return Err(too_many),
        }
        if !self.allowance.admits_attributes(self.attribute_bytes + received.bytes().len()) {
            return Err(TooMany::Attributes);
        }
        let (imported, filtered) = policy.filter(nlri.prefix, received, &mut tables.interner);
        let path = Path {
            received: Arc::clone(received),
            imported,
            source: self.slot,
            path_id: nlri.path_id,
            sent_id: 0,
            spare: Spare::default(),
            marks: marks | filtered,
        };
        match tables.insert(nlri.prefix, path, out) {
            Inserted::New => self.received[family as usize] += 1,
            Inserted::Replaced(old) => {
                self.stale[family as usize] -= usize::from(old.has(mark::STALE));
                self.attribute_bytes -= old.received.bytes().len();
            }
        }
        self.attribute_bytes += received.bytes().len();
        Ok(())
    }

    fn withdraw(&mut self, nlri: Nlri, tables: &mut Tables, out: &mut Vec<Output>) {
        if let Some(path) = tables.remove(nlri.prefix, self.slot, nlri.path_id, out) {
            let family = nlri.prefix.family() as usize;
            self.received[family] -= 1;
            self.stale[family] -= usize::from(path.has(mark::STALE));
            self.attribute_bytes -= path.received.bytes().len();
        }
    }

    /// Removes all paths of a family.
    pub(crate) fn clear(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        if self.received[family as usize] > 0 {
            self.remove_marked(family, 0, tables, out);
        }
    }

    /// Removes the stale paths of a family.
    pub(crate) fn sweep_stale(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        if self.stale[family as usize] > 0 {
            self.remove_marked(family, mark::STALE, tables, out);
        }
    }

    /// Removes paths that have all of `marks`.
    fn remove_marked(&mut self, family: Family, marks: u16, tables: &mut Tables, out: &mut Vec<Output>) {
        let slot = self.slot;
        let goes = |path: &Path| path.source == slot && path.marks & marks == marks;
        self.remove_paths(family, goes, tables, out);
    }

    /// Removes paths of ours that `goes` says.
    fn remove_paths(
        &mut self,
        family: Family,
        goes: impl Fn(&Path) -> bool,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) {
        let Tables { rib, nexthops, .. } = tables;
        let (mut removed, mut stale, mut bytes) = (0, 0, 0);
        let gone = |path: Path| {
            removed += 1;
            bytes += path.received.bytes().len();
            stale += usize::from(path.has(mark::STALE));
            if let Some(nexthop) = path.used_nexthop() {
                nexthops.release(nexthop, out);
            }
        };
        match family {
            Family::V4 => rib.v4.remove_where(goes, gone),
            Family::V6 => rib.v6.remove_where(goes, gone),
        }
        self.received[family as usize] -= removed;
        self.stale[family as usize] -= stale;
        self.attribute_bytes -= bytes;
    }

    /// Marks all paths of a family as kept from before a restart; those that were stale already go
    /// (RFC 4724 §4.2: consecutive restarts).
    pub(crate) fn mark_stale(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        self.sweep_stale(family, tables, out);
        if self.received[family as usize] == 0 {
            return;
        }
        fn mark_all<K: Key>(table: &mut Table<K>, slot: Slot) {
            table.change_each(|_, path| {
                let ours = path.source == slot;
                if ours {
                    path.marks = path.marks & !mark::UNREFRESHED | mark::STALE;
                }
                ours
            });
        }
        match family {
            Family::V4 => mark_all(&mut tables.rib.v4, self.slot),
            Family::V6 => mark_all(&mut tables.rib.v6, self.slot),
        }
        self.stale[family as usize] = self.received[family as usize];
    }

    /// The peer announces all it has in a family anew: what it doesn't is gone when it is through (RFC 7313 §4).
    pub(crate) fn begin_refresh(&mut self, family: Family, tables: &mut Tables) {
        fn mark_all<K: Key>(table: &mut Table<K>, slot: Slot) {
            table.change_each(|_, path| {
                if path.source == slot {
                    path.marks |= mark::UNREFRESHED;
                }
                // Nothing has become better or worse.
                false
            });
        }
        match family {
            Family::V4 => mark_all(&mut tables.rib.v4, self.slot),
            Family::V6 => mark_all(&mut tables.rib.v6, self.slot),
        }
    }

    /// The peer is through: removes what it has not announced again.
    pub(crate) fn finish_refresh(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        if self.received[family as usize] > 0 {
            self.remove_marked(family, mark::UNREFRESHED, tables, out);
        }
    }

    /// The stale paths of a family stay on as a last resort: they carry LLGR_STALE from here on, and those that
    /// must not be kept so long go (RFC 9494 §4.2).
    pub(crate) fn live_long(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        let slot = self.slot;
        let is_stale = |path: &Path| path.source == slot && path.has(mark::STALE);
        self.remove_paths(family, |path| is_stale(path) && path.received.has_community(NO_LLGR), tables, out);
        let Tables { rib, interner, .. } = tables;
        let (mut bytes_before, mut bytes_after) = (0, 0);
        let mut age = |path: &mut Path| {
            if !is_stale(path) {
                return false;
            }
            bytes_before += path.received.bytes().len();
            for attributes in [&mut path.received, &mut path.imported] {
                let (mut rewrite, mut key) = (Rewrite::of(attributes), Vec::new());
                rewrite.add_communities(&[LLGR_STALE], &[]);
                rewrite.write(attributes.nexthop(), &mut key);
                *attributes = interner.intern(&key);
            }
            bytes_after += path.received.bytes().len();
            true
        };
        match family {
            Family::V4 => rib.v4.change_each(|_, path| age(path)),
            Family::V6 => rib.v6.change_each(|_, path| age(path)),
        }
        self.attribute_bytes = self.attribute_bytes - bytes_before + bytes_after;
    }

    /// Runs all paths through a changed policy.
    pub(crate) fn import_again(
        &mut self,
        policy: &ImportPolicy<'_>,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) {
        let Tables { rib, interner, nexthops } = tables;
        let mut again = |prefix: Prefix, path: &mut Path| {
            let (imported, filtered) = policy.filter(prefix, &path.received, interner);
            let marks = path.marks & !mark::INELIGIBLE | policy.marks(&path.received) | filtered;
            if marks == path.marks && Arc::ptr_eq(&imported, &path.imported) {
                return false;
            }
            let before = path.used_nexthop();
            (path.imported, path.marks) = (imported, marks);
            if let Some(nexthop) = path.used_nexthop() {
                nexthops.acquire(nexthop, out);
            }
            if let Some(nexthop) = before {
                nexthops.release(nexthop, out);
            }
            true
        };
        let slot = self.slot;
        rib.v4.change_each(|key, path| path.source == slot && again(key.prefix(), path));
        rib.v6.change_each(|key, path| path.source == slot && again(key.prefix(), path));
    }
}
