//! Sets and networks as the writer knows them, and the class of every address that follows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;
use lpm::Lookup;
use model::{Family, Prefix};

use super::atoms::{Atom, AtomId, Atoms};
use super::classes::{ClassId, Classes, NOTHING};
use super::intervals::{Intervals, PREFIXES_MAX};
use super::prefixes::Prefixes;
use super::processor::Avx512;
use crate::rule::SetId;
use crate::sets::Member;

/// One set.
#[derive(Debug, Default)]
struct Set {
    members: BTreeSet<Member>,
    /// The protocols and ports in it, and how many members each has.
    ports: BTreeMap<(u8, u16), usize>,
}

/// All that addresses can be in.
pub(super) struct Addresses {
    sets: HashMap<SetId, Set, RandomState>,
    members: usize,
    /// Networks that rules name, each counted as a member.
    nets: usize,
    limit: usize,
    pub(super) atoms: Atoms,
    pub(super) classes: Classes,
    v4: Prefixes<u32>,
    v6: Prefixes<u128>,
    /// The classes of IPv4, where there are few prefixes.
    intervals: Option<Arc<Intervals>>,
    /// Sets whose protocols and ports are others than they were.
    ports_changed: HashSet<SetId, RandomState>,
}

impl Addresses {
    pub(super) fn new(limit: usize) -> Addresses {
        Addresses {
            sets: HashMap::default(),
            members: 0,
            nets: 0,
            limit,
            atoms: Atoms::default(),
            classes: Classes::new(),
            v4: Prefixes::new(limit),
            v6: Prefixes::new(limit),
            intervals: None,
            ports_changed: HashSet::default(),
        }
    }

    /// Is there room for so many more members or networks?
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.members + self.nets + more <= self.limit
    }

    /// Members of sets and networks of rules.
    pub(super) fn len(&self) -> usize {
        self.members + self.nets
    }

    /// Gives a set exactly these members; `false`, and nothing is changed, where there are too many.
    pub(super) fn put_set(&mut self, id: SetId, members: BTreeSet<Member>) -> bool {
        let before = self.sets.get(&id).map_or(0, |set| set.members.len());
        if members.len() > before && !self.has_room(members.len() - before) {
            return false;
        }
        let old = std::mem::take(&mut self.sets.entry(id).or_default().members);
        old.difference(&members).for_each(|member| self.leave(id, member));
        members.difference(&old).for_each(|member| self.join(id, member));
        self.members = self.members - old.len() + members.len();
        self.sets.entry(id).or_default().members = members;
        true
    }

    /// Changes a set; `false`, and nothing is changed, where there are too many members.
    pub(super) fn update_set(&mut self, id: SetId, removed: &[Member], added: &[Member]) -> bool {
        let set = self.sets.entry(id).or_default();
        let going: BTreeSet<_> = removed.iter().filter(|member| set.members.contains(member)).collect();
        let coming: BTreeSet<_> = added.iter().filter(|member| !set.members.contains(member)).collect();
        let stays = added.iter().filter(|member| going.contains(member)).collect::<BTreeSet<_>>();
        let less = going.len() - stays.len();
        if coming.len() > less && !self.has_room(coming.len() - less) {
            return false;
        }
        for member in going.difference(&stays) {
            self.sets.entry(id).or_default().members.remove(member);
            self.members -= 1;
            self.leave(id, member);
        }
        for member in coming {
            self.sets.entry(id).or_default().members.insert(*member);
            self.members += 1;
            self.join(id, member);
        }
        true
    }

    pub(super) fn remove_set(&mut self, id: SetId) {
        self.put_set(id, BTreeSet::new());
        self.sets.remove(&id);
    }

    fn join(&mut self, id: SetId, member: &Member) {
        let (atom, _) = self.atoms.hold(atom_of(id, member));
        self.add(member.net(), atom);
        if let Member::Port { protocol, port, .. } = *member {
            let members = self.sets.entry(id).or_default().ports.entry((protocol, port)).or_default();
            *members += 1;
            if *members == 1 {
                self.ports_changed.insert(id);
            }
        }
    }

    fn leave(&mut self, id: SetId, member: &Member) {
        let atom = atom_of(id, member);
        if let Some(number) = self.atoms.find(atom) {
            self.remove(member.net(), number);
        }
        self.atoms.let_go(atom);
        if let Member::Port { protocol, port, .. } = *member {
            let ports = &mut self.sets.entry(id).or_default().ports;
            let members = ports.entry((protocol, port)).or_default();
            *members = members.saturating_sub(1);
            if *members == 0 {
                ports.remove(&(protocol, port));
                self.ports_changed.insert(id);
            }
        }
    }

    /// What is in a set.
    pub(super) fn members(&self, id: SetId) -> Option<&BTreeSet<Member>> {
        self.sets.get(&id).map(|set| &set.members)
    }

    /// A rule names the set from now on.
    pub(super) fn name_set(&mut self, id: SetId) {
        self.atoms.hold(Atom::Set(id));
    }

    /// One rule less names it.
    pub(super) fn forget_set(&mut self, id: SetId) {
        self.atoms.let_go(Atom::Set(id));
    }

    /// A rule names the network from now on.
    pub(super) fn name_net(&mut self, net: Prefix) {
        let (atom, first) = self.atoms.hold(Atom::Net(net));
        if first {
            self.nets += 1;
            self.add(net, atom);
        }
    }

    /// One rule less names it.
    pub(super) fn forget_net(&mut self, net: Prefix) {
        if let Some(atom) = self.atoms.let_go(Atom::Net(net)) {
            self.nets -= 1;
            self.remove(net, atom);
        }
    }

    /// Does a rule name the network?
    pub(super) fn knows_net(&self, net: Prefix) -> bool {
        self.atoms.find(Atom::Net(net)).is_some()
    }

    /// The protocols and ports that a set has.
    pub(super) fn ports(&self, id: SetId) -> impl Iterator<Item = (u8, u16)> + '_ {
        self.sets.get(&id).into_iter().flat_map(|set| set.ports.keys().copied())
    }

    fn add(&mut self, net: Prefix, atom: AtomId) {
        match net.addr() {
            IpAddr::V4(addr) => self.v4.add(addr.into(), net.len(), atom),
            IpAddr::V6(addr) => self.v6.add(addr.into(), net.len(), atom),
        }
    }

    fn remove(&mut self, net: Prefix, atom: AtomId) {
        match net.addr() {
            IpAddr::V4(addr) => self.v4.remove(addr.into(), net.len(), atom),
            IpAddr::V6(addr) => self.v6.remove(addr.into(), net.len(), atom),
        }
    }

    /// Brings what readers have left to where they are. They have left what was published before the last publication.
    pub(super) fn settle(&mut self) {
        self.v4.settle();
        self.v6.settle();
        self.classes.settle();
        self.atoms.settle();
    }

    /// Gives every address its class. [`Self::settle`] goes before.
    pub(super) fn classify(&mut self) -> Classified {
        if self.classes.unknown() > 0 && self.classes.has_room() {
            self.v4.dirty_all();
            self.v6.dirty_all();
        }
        if self.v4.sweep(&mut self.classes) {
            let are_few = self.v4.len() <= PREFIXES_MAX;
            self.intervals = are_few.then(|| Arc::new(Intervals::new(&self.v4.intervals())));
        }
        self.v6.sweep(&mut self.classes);
        Classified { fresh: self.classes.close(), ports_changed: std::mem::take(&mut self.ports_changed) }
    }

    /// For readers of the next publication.
    pub(super) fn lookup(&self) -> AddressLookup {
        AddressLookup { intervals: self.intervals.clone(), v4: self.v4.lookup(), v6: self.v6.lookup() }
    }

    /// The most bytes that so many members take.
    pub(super) fn bytes_for(limit: usize) -> usize {
        let intervals = Intervals::bytes_for(limit.min(PREFIXES_MAX));
        Prefixes::<u32>::bytes_for(limit).max(Prefixes::<u128>::bytes_for(limit)) + intervals + limit * 48
    }
}

/// The atom that a member of a set is in.
fn atom_of(id: SetId, member: &Member) -> Atom {
    match *member {
        Member::Net(_) => Atom::Set(id),
        Member::Port { protocol, port, .. } => Atom::Port(id, protocol, port),
    }
}

/// What a round of classifying has changed.
pub(super) struct Classified {
    /// Classes that are new.
    pub(super) fresh: Vec<ClassId>,
    /// Sets with other protocols and ports than before.
    pub(super) ports_changed: HashSet<SetId, RandomState>,
}

/// The readers' side: an address's class.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressLookup {
    /// Where there are few prefixes of IPv4, these are asked and not the table.
    intervals: Option<Arc<Intervals>>,
    v4: Option<Lookup<u32>>,
    v6: Option<Lookup<u128>>,
}

impl AddressLookup {
    /// The same by tables alone.
    pub(super) fn without_intervals(self) -> AddressLookup {
        AddressLookup { intervals: None, ..self }
    }

    /// The class of one address.
    #[inline]
    pub(super) fn class(&self, family: Family, addr: u128) -> ClassId {
        match (family, &self.intervals) {
            (Family::V4, Some(intervals)) => return intervals.class(addr as u32),
            (Family::V4, None) => self.v4.as_ref().and_then(|table| table.lookup(addr as u32)),
            (Family::V6, _) => self.v6.as_ref().and_then(|table| table.lookup(addr)),
        }
        .unwrap_or(NOTHING)
    }

    /// The classes of many: `classes[i]` for `addrs[i]`.
    #[inline(always)]
    pub(super) fn classes_v4(&self, avx512: Option<Avx512>, addrs: &[u32], classes: &mut [ClassId]) {
        match &self.intervals {
            Some(intervals) => intervals.classes(avx512, addrs, classes),
            None => answer(self.v4.as_ref(), addrs, classes),
        }
    }

    /// The classes of many, alike.
    #[inline]
    pub(super) fn classes_v6(&self, addrs: &[u128], classes: &mut [ClassId]) {
        answer(self.v6.as_ref(), addrs, classes);
    }
}

#[inline]
fn answer<K: lpm::Key>(table: Option<&Lookup<K>>, addrs: &[K], classes: &mut [ClassId]) {
    let Some(table) = table else { return classes.fill(NOTHING) };
    table.lookup_batch(addrs, classes);
    for class in classes {
        if *class == lpm::NO_ROUTE {
            *class = NOTHING;
        }
    }
}
