//! What each peer said (RFC 4271 §3.2, Adj-RIBs-In), kept before policy in the tables of `loc_rib`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ahash::RandomState;
use model::{Family, Prefix};

use crate::config::PeerKind;
use crate::import::{ImportPolicy, is_forwardable};
use crate::interner::Interner;
use crate::loc_rib::{
    Becomes, Index, Inserted, Key, KeyV4, KeyV6, Path, Rib, Slot, Sought, Spare, TOGETHER, Table, mark,
};
use crate::nexthops::Nexthops;
use crate::output::Output;
use crate::pass::{Pass, Portion, Task};
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
    /// Paths, by [`Family`].
    pub(crate) received: [usize; 2],
    /// Of these, stale ones.
    pub(crate) stale: [usize; 2],
    /// Bytes of all paths' attributes as received, those of each path counted in full.
    attribute_bytes: usize,
    /// What is left to be done to all paths, by [`Family`].
    passes: [Option<Pass>; 2],
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
            passes: [None; 2],
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
        let bytes = received.bytes().len();
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
            let is_certain = self.allowance.admits_all(K::FAMILY, self.received[family] + batch.len())
                && self.allowance.admits_attributes(self.attribute_bytes + batch.len() * bytes);
            if is_certain {
                table.place_all(&mut batch);
            }
            for &sought in &batch {
                if !is_certain {
                    let is_new = || !table.contains(sought, self.slot);
                    match self.allowance.admit(K::FAMILY, self.received[family], is_new) {
                        Admission::Take => {}
                        Admission::Drop => continue,
                        Admission::Close(too_many) => return Err(too_many),
                    }
                    if !self.allowance.admits_attributes(self.attribute_bytes + bytes) {
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
                    spare: Spare::default(),
                    marks: marks | *mark,
                };
                match put(table, nexthops, sought, path, out) {
                    Inserted::New => self.received[family] += 1,
                    Inserted::Replaced(old) => {
                        self.stale[family] -= usize::from(old.has(mark::STALE));
                        self.attribute_bytes -= old.received().bytes().len();
                    }
                }
                self.attribute_bytes += bytes;
            }
        }
        table.keep_batch(batch);
        Ok(())
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
                    self.received[family] -= 1;
                    self.stale[family] -= usize::from(path.has(mark::STALE));
                    self.attribute_bytes -= path.received().bytes().len();
                }
            }
        }
        table.keep_batch(batch);
    }

    /// Removes all paths of a family, by and by: none may come until [`Self::finish`].
    pub(crate) fn clear(&mut self, family: Family) {
        self.passes[family as usize] = None;
        if self.received[family as usize] > 0 {
            // Whatever was to become of them.
            self.stale[family as usize] = 0;
            self.begin(family, Task::Remove(0));
        }
    }

    /// Removes the stale paths of a family, by and by: none may become stale until [`Self::finish`].
    pub(crate) fn sweep_stale(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        self.finish(family, tables, out);
        if self.stale[family as usize] > 0 {
            self.begin(family, Task::Remove(mark::STALE));
        }
    }

    /// Marks all paths of a family as kept from before a restart, by and by: none may come until [`Self::finish`]. Those that
    /// were stale already go (RFC 4724 §4.2: consecutive restarts).
    pub(crate) fn mark_stale(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        let stale_go =
            matches!(self.passes[family as usize], Some(Pass { task: Task::Remove(mark::STALE), .. }));
        if !stale_go {
            self.finish(family, tables, out);
        }
        let (received, stale) = (self.received[family as usize], &mut self.stale[family as usize]);
        if received > 0 {
            *stale = received - *stale;
            self.begin(family, Task::Age);
        }
    }

    fn begin(&mut self, family: Family, task: Task) {
        self.passes[family as usize] = Some(Pass { task, next: Index(0) });
    }

    /// Are there stale paths that stay?
    pub(crate) fn keeps_stale(&self, family: Family) -> bool {
        let go = matches!(self.passes[family as usize], Some(Pass { task: Task::Remove(mark::STALE), .. }));
        self.stale[family as usize] > 0 && !go
    }

    /// Is anything left to be done to all paths?
    pub(crate) fn is_gone_over(&self) -> bool {
        self.passes.iter().any(Option::is_some)
    }

    /// Does all that is left to be done to the paths of a family.
    pub(crate) fn finish(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        self.go_on(family, &mut { Portion::ALL }, tables, out);
    }

    /// Goes on with what is left to be done to the paths of a family.
    pub(crate) fn go_on(
        &mut self,
        family: Family,
        portion: &mut Portion,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) {
        let Some(Pass { task, next }) = self.passes[family as usize] else { return };
        let slot = self.slot;
        let becomes = |path: &mut Path| match task {
            _ if path.source != slot => Becomes::Same,
            Task::Remove(marks) if path.marks & marks == marks => Becomes::Nothing,
            Task::Remove(_) => Becomes::Same,
            Task::Age if path.has(mark::STALE) => Becomes::Nothing,
            Task::Age => {
                path.marks = path.marks & !mark::UNREFRESHED | mark::STALE;
                Becomes::Another
            }
        };
        let counts_stale = !matches!(task, Task::Remove(0) | Task::Age);
        let next = self.go_over(family, next, portion, becomes, counts_stale, tables, out);
        let end = match family {
            Family::V4 => tables.rib.v4.end(),
            Family::V6 => tables.rib.v6.end(),
        };
        let is_over = next >= end
            || match task {
                Task::Remove(0) => self.received[family as usize] == 0,
                Task::Remove(mark::STALE) => self.stale[family as usize] == 0,
                _ => false,
            };
        self.passes[family as usize] = (!is_over).then_some(Pass { task, next });
    }

    /// Lets `becomes` see a portion of a family's paths, and keeps count of those that go.
    #[expect(clippy::too_many_arguments, reason = "one walk for all that is done to all paths")]
    fn go_over(
        &mut self,
        family: Family,
        from: Index,
        portion: &mut Portion,
        becomes: impl FnMut(&mut Path) -> Becomes,
        counts_stale: bool,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) -> Index {
        let Tables { rib, nexthops, .. } = tables;
        let (mut removed, mut stale, mut bytes) = (0, 0, 0);
        let gone = |path: Path| {
            removed += 1;
            bytes += path.received().bytes().len();
            stale += usize::from(counts_stale && path.has(mark::STALE));
            release(&path, nexthops, out);
        };
        let next = match family {
            Family::V4 => rib.v4.go_over(from, portion, becomes, gone),
            Family::V6 => rib.v6.go_over(from, portion, becomes, gone),
        };
        self.received[family as usize] -= removed;
        self.stale[family as usize] -= stale;
        self.attribute_bytes -= bytes;
        next
    }

    /// The peer announces all it has in a family anew: what it doesn't is gone when it is through (RFC 7313 §4).
    pub(crate) fn begin_refresh(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        self.finish(family, tables, out);
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

    /// The peer is through: removes what it has not announced again, by and by.
    pub(crate) fn finish_refresh(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        self.finish(family, tables, out);
        if self.received[family as usize] > 0 {
            self.begin(family, Task::Remove(mark::UNREFRESHED));
        }
    }

    /// The stale paths of a family stay on as a last resort: they carry LLGR_STALE from here on, and those that
    /// must not be kept so long go (RFC 9494 §4.2).
    pub(crate) fn live_long(&mut self, family: Family, tables: &mut Tables, out: &mut Vec<Output>) {
        self.finish(family, tables, out);
        let slot = self.slot;
        let is_stale = |path: &Path| path.source == slot && path.has(mark::STALE);
        let becomes = |path: &mut Path| match is_stale(path) && path.received().has_community(NO_LLGR) {
            true => Becomes::Nothing,
            false => Becomes::Same,
        };
        self.go_over(family, Index(0), &mut { Portion::ALL }, becomes, true, tables, out);
        let Tables { rib, interner, .. } = tables;
        let (mut bytes_before, mut bytes_after) = (0, 0);
        let mut age = |path: &mut Path| {
            if !is_stale(path) {
                return false;
            }
            bytes_before += path.received().bytes().len();
            let aged = |attributes: &Attributes| {
                let (mut rewrite, mut key) = (Rewrite::of(attributes), Vec::new());
                rewrite.add_communities(&[LLGR_STALE], &[]);
                rewrite.write(attributes.nexthop(), &mut key);
                key
            };
            let received = interner.intern(&aged(path.received()));
            path.imported = interner.intern_made(&aged(&path.imported), &received);
            bytes_after += path.received().bytes().len();
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
            let (imported, filtered) = policy.filter(prefix, path.received(), interner);
            let marks = path.marks & !mark::INELIGIBLE | policy.marks(path.received()) | filtered;
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
