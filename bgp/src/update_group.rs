//! Update groups: peers that are told the same are judged once, encoded once and remembered once.
//!
//! ```text
//!  decided ──► Group: policy, what was said ──┬──► members that follow, the same bytes
//!                          │                  └──► the route's own peer, and whose address is its next hop: their own
//!                       backlog ──► members that are behind, as far as they take something
//! ```
//!
//! What is a member's own is where it stands: whether it has begun, the run through the table that it is on, and how far
//! it is behind ([`Backlog`](crate::backlog::Backlog)). So one that takes nothing holds up nobody.

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;
use model::Family;

use crate::adj_rib_out::{AdjRibOut, OutTable};
use crate::export::ExportPolicy;
use crate::former::Former;
use crate::key::{Key, KeyV4, KeyV6};
use crate::loc_rib::{Index, Rib, Table};
use crate::path::Slot;

/// A group's number, taken again when its last member has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupId(usize);

/// Peers of one policy, and what all of them are told.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) policy: ExportPolicy,
    pub(crate) told: AdjRibOut,
    /// In order.
    pub(crate) members: Vec<Slot>,
    /// Where members are; empty where nobody's next hop is passed on.
    pub(crate) at_address: HashMap<IpAddr, Vec<Slot>, RandomState>,
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: Vec<Option<Box<Group>>>,
    /// Numbers below that no group has.
    free: Vec<GroupId>,
    /// The groups of a policy's hash, but for those of one peer alone.
    shared: HashMap<u64, Vec<GroupId>, RandomState>,
    members: usize,
}

impl Groups {
    /// Puts a peer into the group of a policy, which is made where there is none; how many others there are doesn't count.
    pub(crate) fn join(
        &mut self,
        policy: ExportPolicy,
        member: (Slot, IpAddr),
        rib: &Rib,
        hasher: &RandomState,
    ) -> GroupId {
        let id = self.of_policy(&policy).unwrap_or_else(|| self.add(policy, rib, hasher));
        if let Some(group) = self.get_mut(id) {
            group.add(member);
            self.members += 1;
        }
        id
    }

    fn of_policy(&self, policy: &ExportPolicy) -> Option<GroupId> {
        let alike = self.shared.get(&self.hash(policy)?)?;
        alike.iter().copied().find(|id| self.get(*id).is_some_and(|group| group.policy == *policy))
    }

    /// Where a policy's group is looked for; nowhere where it has but one member.
    fn hash(&self, policy: &ExportPolicy) -> Option<u64> {
        policy.alone.is_none().then(|| self.shared.hasher().hash_one(policy))
    }

    fn add(&mut self, policy: ExportPolicy, rib: &Rib, hasher: &RandomState) -> GroupId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            GroupId(self.groups.len() - 1)
        });
        if let Some(hash) = self.hash(&policy) {
            self.shared.entry(hash).or_default().push(id);
        }
        self.groups[id.0] = Some(Box::new(Group {
            policy,
            told: AdjRibOut::new(rib, hasher),
            members: Vec::new(),
            at_address: HashMap::with_hasher(hasher.clone()),
        }));
        id
    }

    /// Takes a peer out; a group without members is gone.
    pub(crate) fn leave(&mut self, id: GroupId, member: (Slot, IpAddr)) {
        let Some(group) = self.get_mut(id) else { return };
        let was_member = group.remove(member);
        let is_empty = group.members.is_empty();
        self.members -= usize::from(was_member);
        if is_empty && let Some(group) = self.take(id) {
            if let Some(hash) = self.hash(&group.policy)
                && let Some(alike) = self.shared.get_mut(&hash)
            {
                alike.retain(|other| *other != id);
                if alike.is_empty() {
                    self.shared.remove(&hash);
                }
            }
            self.free.push(id);
        }
    }

    pub(crate) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.0)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(id.0)?.as_deref_mut()
    }

    /// Takes a group out for a moment, so that it and the tables can be changed side by side.
    pub(crate) fn take(&mut self, id: GroupId) -> Option<Box<Group>> {
        self.groups.get_mut(id.0)?.take()
    }

    pub(crate) fn put_back(&mut self, id: GroupId, group: Box<Group>) {
        self.groups[id.0] = Some(group);
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.groups.len()).map(GroupId)
    }

    /// Groups there may be.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Members of all groups.
    pub(crate) fn members(&self) -> usize {
        self.members
    }
}

impl Group {
    /// Has another policy from here on. What was said stays noted until runs have judged it anew.
    pub(crate) fn judge_again(&mut self, policy: ExportPolicy, rib: &Rib) {
        self.policy = policy;
        self.told.v4.unjudged = Index(0)..rib.v4.end();
        self.told.v6.unjudged = Index(0)..rib.v6.end();
    }

    fn add(&mut self, (member, address): (Slot, IpAddr)) {
        if let Err(at) = self.members.binary_search(&member) {
            self.members.insert(at, member);
        }
        if self.policy.keeps_next_hops() {
            self.at_address.entry(address).or_default().push(member);
        }
    }

    fn remove(&mut self, (member, address): (Slot, IpAddr)) -> bool {
        self.told.v4.backlog.forget(member);
        self.told.v6.backlog.forget(member);
        if let Some(there) = self.at_address.get_mut(&address) {
            there.retain(|other| *other != member);
            if there.is_empty() {
                self.at_address.remove(&address);
            }
        }
        let found = self.members.binary_search(&member);
        found.map(|at| self.members.remove(at)).is_ok()
    }
}

/// A run through the whole table that a peer is waiting for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Announce also what the peer has been told already (ROUTE-REFRESH).
    pub(crate) force: bool,
    /// End with End-of-RIB.
    pub(crate) end_of_rib: bool,
}

impl Request {
    fn and(self, other: Request) -> Request {
        Request { force: self.force || other.force, end_of_rib: self.end_of_rib || other.end_of_rib }
    }
}

/// A run under way.
#[derive(Debug)]
pub(crate) struct Run<K> {
    /// The next index to look at, and where the run ends: what comes later is news.
    pub(crate) next: Index,
    pub(crate) end: Index,
    pub(crate) request: Request,
    /// What is compared with; what of it isn't said any more is withdrawn after the run.
    pub(crate) former: Option<Box<Former<K>>>,
}

/// Where a peer stands in one family of its group.
#[derive(Debug)]
pub(crate) struct Progress<K> {
    /// Its first run has begun: it is told of news, or is behind.
    pub(crate) begun: bool,
    pub(crate) requested: Option<Request>,
    pub(crate) run: Option<Run<K>>,
    /// For the next run, which is then the first one in this group.
    pub(crate) former: Option<Box<Former<K>>>,
}

impl<K: Key> Progress<K> {
    fn new() -> Progress<K> {
        Progress { begun: false, requested: None, run: None, former: None }
    }

    /// Asks for a run; one that has begun is finished first.
    pub(crate) fn request(&mut self, request: Request) {
        self.requested = Some(self.requested.unwrap_or_default().and(request));
    }

    /// Is it told of news as it comes?
    pub(crate) fn follows(&self, member: Slot, told: &OutTable<K>) -> bool {
        self.begun && !told.backlog.is_behind(member)
    }

    /// Is there something to tell now? While `deferring`, a first run must not begin.
    fn is_due(&self, member: Slot, told: &OutTable<K>, deferring: bool) -> bool {
        let owed = self.requested.is_some() || self.run.is_some() || told.backlog.is_behind(member);
        owed && (!deferring || self.begun)
    }

    /// Begins a requested run unless one is under way; says whether it did.
    pub(crate) fn begin(&mut self, table: &Table<K>) -> bool {
        if self.run.is_some() {
            return false;
        }
        let Some(request) = self.requested.take() else { return false };
        self.run = Some(Run { next: Index(0), end: table.end(), request, former: self.former.take() });
        self.begun = true;
        true
    }

    /// Is it being compared with what it was told as a member of another group, or about to be? What it is owed is news of
    /// that, and comes later.
    pub(crate) fn compares(&self) -> bool {
        self.former.is_some() || self.run.as_ref().is_some_and(|run| run.former.is_some())
    }

    /// It leaves its group, and takes along what it was told here.
    fn leave(&mut self, member: Slot, told: &mut OutTable<K>) {
        if self.begun {
            self.former = Some(Box::new(match self.run.take() {
                None => Former::all(told.copy()),
                Some(run) => {
                    self.request(run.request);
                    Former::some(told.pages(), run.former.map(|before| *before))
                }
            }));
        }
        // Also where it has heard nothing here yet, and is as it came.
        if let Some(former) = &mut self.former {
            former.add_others(told.backlog.owed(member));
        }
        self.begun = false;
    }

    /// It comes from another group: from here on it is owed news of what it was told there.
    fn arrive(&self, member: Slot, told: &mut OutTable<K>) {
        if self.former.is_some() {
            told.backlog.fall_behind(member, true);
        }
    }
}

/// A peer as a member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) group: GroupId,
    /// Where the peer is.
    pub(crate) address: IpAddr,
    pub(crate) v4: Progress<KeyV4>,
    pub(crate) v6: Progress<KeyV6>,
}

impl Member {
    pub(crate) fn of(group: GroupId, address: IpAddr) -> Member {
        Member { group, address, v4: Progress::new(), v6: Progress::new() }
    }

    pub(crate) fn request(&mut self, family: Family, request: Request) {
        match family {
            Family::V4 => self.v4.request(request),
            Family::V6 => self.v6.request(request),
        }
    }

    pub(crate) fn is_due(&self, slot: Slot, told: &AdjRibOut, deferring: bool) -> bool {
        self.v4.is_due(slot, &told.v4, deferring) || self.v6.is_due(slot, &told.v6, deferring)
    }

    /// The peer takes nothing now: it is owed what is new from here on.
    pub(crate) fn pause(&self, slot: Slot, told: &mut AdjRibOut) {
        if self.v4.begun {
            told.v4.backlog.fall_behind(slot, false);
        }
        if self.v6.begun {
            told.v6.backlog.fall_behind(slot, false);
        }
    }

    /// It leaves its group: see [`Progress::leave`].
    pub(crate) fn leave(&mut self, slot: Slot, told: &mut AdjRibOut) {
        self.v4.leave(slot, &mut told.v4);
        self.v6.leave(slot, &mut told.v6);
    }

    /// It comes from another group: see [`Progress::arrive`].
    pub(crate) fn arrive(&self, slot: Slot, told: &mut AdjRibOut) {
        self.v4.arrive(slot, &mut told.v4);
        self.v6.arrive(slot, &mut told.v6);
    }
}
