//! What each peer said (RFC 4271 §3.2, Adj-RIBs-In), kept before policy in the tables of `loc_rib`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ahash::RandomState;
use model::{Family, Prefix};

use crate::cohorts::{Cohorts, Freshness};
use crate::config::PeerKind;
use crate::import::{ImportPolicy, is_forwardable};
use crate::input::Rank;
use crate::interner::Interner;
use crate::key::{Key, KeyV4, KeyV6};
use crate::loc_rib::{Becomes, Inserted, Rib, Sought, TOGETHER, Table};
use crate::nexthops::Nexthops;
use crate::output::Output;
use crate::path::{Path, Slot, mark};
use crate::prefix_limit::{Admission, Allowance, TooMany};
use crate::rewrite::Rewrite;
use crate::status::ErrorCounters;
use crate::wire::attributes::{Attributes, LLGR_STALE, NO_LLGR};
use crate::wire::nlri::NlriField;
use crate::wire::update::Update;
use crate::work::FamilyKey;

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

    /// Puts a path of ours in.
    pub(crate) fn insert(&mut self, prefix: Prefix, path: Path, out: &mut Vec<Output>) {
        fn insert<K: FamilyKey>(tables: &mut Tables, prefix: Prefix, path: Path, out: &mut Vec<Output>) {
            let Tables { rib, nexthops, .. } = tables;
            let table = K::table(rib);
            let sought = table.seek_one(K::new(prefix), path.path_id);
            put(table, nexthops, sought, path, out);
        }
        match prefix.family() {
            Family::V4 => insert::<KeyV4>(self, prefix, path, out),
            Family::V6 => insert::<KeyV6>(self, prefix, path, out),
        }
    }

    /// Takes a path of ours away.
    pub(crate) fn remove(&mut self, prefix: Prefix, out: &mut Vec<Output>) {
        fn remove<K: FamilyKey>(tables: &mut Tables, prefix: Prefix, out: &mut Vec<Output>) {
            let Tables { rib, nexthops, .. } = tables;
            let table = K::table(rib);
            let sought = table.seek_one(K::new(prefix), 0);
            take(table, nexthops, sought, Slot::LOCAL, out);
        }
        match prefix.family() {
            Family::V4 => remove::<KeyV4>(self, prefix, out),
            Family::V6 => remove::<KeyV6>(self, prefix, out),
        }
    }
}

/// Puts a path in and keeps count of next hops; gives back what it replaced.
fn put<K: Key>(
    table: &mut Table<K>,
    nexthops: &mut Nexthops,
    sought: Sought<K>,
    path: Path,
    out: &mut Vec<Output>,
) -> Inserted {
    // The new one first, lest a next hop be unwatched only to be watched again.
    if let Some(nexthop) = path.used_nexthop() {
        nexthops.acquire(nexthop, out);
    }
    let inserted = table.insert(sought, path);
    if let Inserted::Replaced(old) = &inserted {
        release(old, nexthops, out);
    }
    inserted
}

/// Takes a path away likewise.
fn take<K: Key>(
    table: &mut Table<K>,
    nexthops: &mut Nexthops,
    sought: Sought<K>,
    source: Slot,
    out: &mut Vec<Output>,
) -> Option<Path> {
    let removed = table.remove(sought, source);
    if let Some(path) = &removed {
        release(path, nexthops, out);
    }
    removed
}

fn release(path: &Path, nexthops: &mut Nexthops, out: &mut Vec<Output>) {
    if let Some(nexthop) = path.used_nexthop() {
        nexthops.release(nexthop, out);
    }
}

/// Attributes that are announced, whatever the prefix.
struct Coming<'a> {
    received: Arc<Attributes>,
    /// What makes all such routes ineligible.
    marks: u16,
    policy: &'a ImportPolicy<'a>,
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
    /// Our end of its latest session.
    pub(crate) local: Option<IpAddr>,
    /// Its paths, by [`Family`].
    pub(crate) cohorts: [Cohorts; 2],
}

impl AdjRibIn {
    pub(crate) fn new(slot: Slot, kind: PeerKind, allowance: Allowance) -> AdjRibIn {
        AdjRibIn {
            slot,
            allowance,
            kind,
            router_id: None,
            local: None,
            cohorts: [Cohorts::new(), Cohorts::new()],
        }
    }

    /// Has it no path, not even one that is to go?
    pub(crate) fn is_empty(&self) -> bool {
        self.cohorts.iter().all(Cohorts::is_empty)
    }

    /// Is anything left to be done to all paths?
    pub(crate) fn has_left(&self) -> bool {
        self.cohorts.iter().any(Cohorts::has_left)
    }

    fn attribute_bytes(&self) -> usize {
        self.cohorts.iter().map(Cohorts::bytes).sum()
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
        for field in update.withdrawn {
            self.withdraw(field, tables, out);
        }
        // Most attributes take less: one allocation.
        let mut key = Vec::with_capacity(256);
        for announced in update.announced.into_iter().flatten() {
            if update.error.is_some() {
                self.withdraw(announced.nlri, tables, out);
                continue;
            }
            update.canonical_key(announced.nexthop, &mut key);
            let received = tables.interner.intern(&key);
            let marks = policy.marks(&received);
            if marks & mark::ROUTE_LEAK != 0 {
                errors.route_leaks += announced.nlri.count() as u64;
            }
            let coming = Coming { received, marks, policy };
            match announced.nlri.family() {
                Family::V4 => self.announce::<KeyV4>(announced.nlri, &coming, tables, errors, out),
                Family::V6 => self.announce::<KeyV6>(announced.nlri, &coming, tables, errors, out),
            }?;
        }
        Ok(())
    }

    /// Takes prefixes in that have one attribute set.
    fn announce<K: FamilyKey>(
        &mut self,
        mut nlri: NlriField<'_>,
        coming: &Coming<'_>,
        tables: &mut Tables,
        errors: &mut ErrorCounters,
        out: &mut Vec<Output>,
    ) -> Result<(), TooMany> {
        let Coming { received, marks, policy } = coming;
        let Tables { rib, nexthops, interner } = tables;
        let (table, family) = (K::table(rib), K::FAMILY as usize);
        let (bytes, cohort) = (received.bytes().len(), self.cohorts[family].current());
        let one_by_one = policy.filter.asks_for_prefixes();
        let mut filtered = None;
        let mut batch = table.batch();
        while !nlri.is_empty() {
            batch.clear();
            while batch.len() < TOGETHER
                && let Some(nlri) = nlri.next()
            {
                if is_forwardable(nlri.prefix) {
                    batch.push(Sought::new(K::new(nlri.prefix), nlri.path_id));
                } else {
                    errors.prefixes_ignored += 1;
                }
            }
            table.seek(&mut batch);
            if self.cohorts[family].has_gone() {
                self.take_gone(&batch, table, nexthops, out);
            }
            let held = self.cohorts[family].received() + batch.len();
            let is_certain = self.allowance.admits_all(K::FAMILY, held)
                && self.allowance.admits_attributes(self.attribute_bytes() + batch.len() * bytes);
            if is_certain {
                table.place_all(&mut batch);
            }
            for &sought in &batch {
                if !is_certain {
                    let is_new = || table.path(sought, self.slot).is_none();
                    match self.allowance.admit(K::FAMILY, self.cohorts[family].received(), is_new) {
                        Admission::Take => {}
                        Admission::Drop => continue,
                        Admission::Close(too_many) => return Err(too_many),
                    }
                    if !self.allowance.admits_attributes(self.attribute_bytes() + bytes) {
                        return Err(TooMany::Attributes);
                    }
                }
                if one_by_one {
                    filtered = None;
                }
                let (imported, mark) =
                    filtered.get_or_insert_with(|| policy.filter(sought.key.prefix(), received, interner));
                let path = Path {
                    imported: Arc::clone(imported),
                    source: self.slot,
                    path_id: sought.path_id,
                    sent_id: 0,
                    cohort,
                    rank: Rank::Peers,
                    marks: marks | *mark,
                };
                if let Inserted::Replaced(old) = put(table, nexthops, sought, path, out) {
                    self.cohorts[family].remove(old.cohort, old.received().bytes().len());
                    // The pass hasn't come to it, so it isn't marked; that it is said again is news all the same.
                    if self.cohorts[family].freshness(old.cohort) != Freshness::Fresh
                        && let Some(index) = sought.index()
                    {
                        table.decide_again(index);
                    }
                }
                self.cohorts[family].add(bytes);
            }
        }
        table.keep_batch(batch);
        Ok(())
    }

    /// Takes paths away that the pass has not come to yet: what takes their place is new, even if it says the same.
    fn take_gone<K: FamilyKey>(
        &mut self,
        batch: &[Sought<K>],
        table: &mut Table<K>,
        nexthops: &mut Nexthops,
        out: &mut Vec<Output>,
    ) {
        let cohorts = &mut self.cohorts[K::FAMILY as usize];
        for &sought in batch {
            let path = table.path(sought, self.slot);
            if path.is_some_and(|path| cohorts.freshness(path.cohort) == Freshness::Gone)
                && let Some(path) = take(table, nexthops, sought, self.slot, out)
            {
                cohorts.remove(path.cohort, path.received().bytes().len());
            }
        }
    }

    fn withdraw(&mut self, nlri: NlriField<'_>, tables: &mut Tables, out: &mut Vec<Output>) {
        match nlri.family() {
            Family::V4 => self.withdraw_of::<KeyV4>(nlri, tables, out),
            Family::V6 => self.withdraw_of::<KeyV6>(nlri, tables, out),
        }
    }

    fn withdraw_of<K: FamilyKey>(
        &mut self,
        mut nlri: NlriField<'_>,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) {
        let Tables { rib, nexthops, .. } = tables;
        let (table, family) = (K::table(rib), K::FAMILY as usize);
        let mut batch = table.batch();
        while !nlri.is_empty() {
            batch.clear();
            while batch.len() < TOGETHER
                && let Some(nlri) = nlri.next()
            {
                batch.push(Sought::new(K::new(nlri.prefix), nlri.path_id));
            }
            table.seek(&mut batch);
            for &sought in &batch {
                if let Some(path) = take(table, nexthops, sought, self.slot, out) {
                    self.cohorts[family].remove(path.cohort, path.received().bytes().len());
                }
            }
        }
        table.keep_batch(batch);
    }

    /// Makes a path what it is to be.
    pub(crate) fn settle<K: FamilyKey>(
        &mut self,
        key: K,
        path: &mut Path,
        policy: &ImportPolicy<'_>,
        interner: &mut Interner,
        nexthops: &mut Nexthops,
        out: &mut Vec<Output>,
    ) -> Becomes {
        let cohorts = &mut self.cohorts[K::FAMILY as usize];
        let freshness = cohorts.freshness(path.cohort);
        let goes = match freshness {
            Freshness::Gone => true,
            Freshness::LongLived => path.received().has_community(NO_LLGR),
            Freshness::Fresh | Freshness::Stale => false,
        };
        if goes {
            cohorts.remove(path.cohort, path.received().bytes().len());
            release(path, nexthops, out);
            return Becomes::Nothing;
        }
        let mut becomes = Becomes::Same;
        if freshness != Freshness::Fresh && !path.has(mark::STALE) {
            path.marks |= mark::STALE;
            becomes = Becomes::Another;
        }
        let is_last_resort = freshness == Freshness::LongLived;
        let ages = is_last_resort && !path.imported.is_long_lived_stale();
        if !ages && !cohorts.judges() {
            return becomes;
        }
        let mut received = Arc::clone(path.received());
        if is_last_resort && !received.is_long_lived_stale() {
            let aged = interner.intern(&long_lived_stale(&received));
            cohorts.resize(path.cohort, received.bytes().len(), aged.bytes().len());
            received = aged;
        }
        let (mut imported, filtered) = policy.filter(key.prefix(), &received, interner);
        // Whatever the filter leaves of it.
        if is_last_resort && !imported.is_long_lived_stale() {
            imported = interner.intern_made(&long_lived_stale(&imported), &received);
        }
        let marks = path.marks & !mark::INELIGIBLE | policy.marks(&received) | filtered;
        if marks == path.marks && Arc::ptr_eq(&imported, &path.imported) {
            return if becomes == Becomes::Same { Becomes::SameAgain } else { becomes };
        }
        let before = path.used_nexthop();
        (path.imported, path.marks) = (imported, marks);
        // The new one first, lest a next hop be unwatched only to be watched again.
        if let Some(nexthop) = path.used_nexthop() {
            nexthops.acquire(nexthop, out);
        }
        if let Some(nexthop) = before {
            nexthops.release(nexthop, out);
        }
        Becomes::Another
    }
}

/// The attributes with LLGR_STALE beside their communities (RFC 9494 §4.2).
fn long_lived_stale(attributes: &Attributes) -> Vec<u8> {
    let (mut rewrite, mut key) = (Rewrite::of(attributes), Vec::new());
    rewrite.add_communities(&[LLGR_STALE], &[]);
    rewrite.write(attributes.nexthop(), &mut key);
    key
}
