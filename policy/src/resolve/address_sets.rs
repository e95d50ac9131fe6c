//! What is in which set, counted: endpoints share addresses, and networks hold others.
//!
//! A set is told as the fewest networks that hold the same addresses: a network within a wider one isn't told, as
//! Felix has it for dataplanes that can't hold both. What is told of a batch is the difference to what was told last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use model::{EndpointPort, Family, Prefix, Protocol};

use crate::rule::SetId;
use crate::selector::Selector;
use crate::sets::Member;

/// What a set is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetSpec {
    /// Whose addresses: endpoints' and network sets'.
    pub selector: Selector,
    /// Only those with a port of this protocol and name, and that port beside the address.
    pub named_port: Option<(Protocol, String)>,
}

/// What somebody who is selected has to give to sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) nets: Vec<Prefix>,
    pub(super) ports: Vec<EndpointPort>,
}

impl Addresses {
    /// What they give to a set; the same member maybe twice.
    fn members<'a>(&'a self, spec: &'a SetSpec) -> impl Iterator<Item = Member> + 'a {
        let nets = self.nets.iter().filter(|_| spec.named_port.is_none()).map(|net| Member::Net(*net));
        let ports = spec.named_port.iter().flat_map(|(protocol, name)| {
            let named =
                self.ports.iter().filter(move |port| port.protocol == *protocol && port.name == *name);
            named.flat_map(|port| {
                // A port is at an address; a network has none.
                let hosts = self.nets.iter().filter(|net| net.is_host());
                hosts.map(|net| Member::Port { net: *net, protocol: port.protocol.0, port: port.port })
            })
        });
        nets.chain(ports)
    }
}

/// What changed in one set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetDelta {
    /// In order.
    pub added: Vec<Member>,
    /// In order; none of them is in `added`.
    pub removed: Vec<Member>,
}

/// What changed in the sets since it was asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetChanges {
    /// Sets that are new; empty but for what `members` says.
    pub added: BTreeMap<SetId, SetSpec>,
    /// Members that came and went.
    pub members: BTreeMap<SetId, SetDelta>,
    /// Sets that nothing refers to any more; `members` doesn't name them.
    pub removed: BTreeSet<SetId>,
}

/// All sets that rules refer to.
#[derive(Debug, Default)]
pub(super) struct AddressSets {
    ids: HashMap<SetSpec, SetId>,
    sets: BTreeMap<SetId, Set>,
    /// Sets that changed since changes were asked for last.
    touched: BTreeSet<SetId>,
    /// Numbers that are free, and were so when changes were asked for last: none is told as gone and new at once.
    free: BTreeSet<SetId>,
    /// Sets that were told, and are gone.
    gone: BTreeSet<SetId>,
    /// Every number below this was given out.
    next: u32,
}

#[derive(Debug)]
struct Set {
    spec: SetSpec,
    /// How many refer to it.
    references: usize,
    /// It was told.
    told: bool,
    nets: Nets,
    ports: BTreeMap<Member, u32>,
    /// Members that changed, and whether they were told.
    pending: BTreeMap<Member, bool>,
}

impl AddressSets {
    /// One more refers to this set; whether it is new, too, so that its members are not known yet.
    pub(super) fn acquire(&mut self, spec: SetSpec) -> (SetId, bool) {
        if let Some(id) = self.ids.get(&spec) {
            self.sets.get_mut(id).expect("every id has a set").references += 1;
            return (*id, false);
        }
        let id = self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            SetId(self.next - 1)
        });
        let set = Set {
            spec: spec.clone(),
            references: 1,
            told: false,
            nets: Nets::default(),
            ports: BTreeMap::new(),
            pending: BTreeMap::new(),
        };
        self.sets.insert(id, set);
        self.ids.insert(spec, id);
        self.touched.insert(id);
        (id, true)
    }

    /// One fewer refers to this set; whether it is gone.
    pub(super) fn release(&mut self, id: SetId) -> bool {
        let Some(set) = self.sets.get_mut(&id) else { return false };
        set.references -= 1;
        if set.references > 0 {
            return false;
        }
        let set = self.sets.remove(&id).expect("it was there");
        self.ids.remove(&set.spec);
        self.touched.remove(&id);
        if set.told {
            self.gone.insert(id)
        } else {
            self.free.insert(id)
        };
        true
    }

    /// Somebody with these addresses is selected (or no longer).
    pub(super) fn give(&mut self, id: SetId, addresses: &Addresses, selected: bool) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        for member in addresses.members(&set.spec) {
            let (nets, ports, pending) = (&mut set.nets, &mut set.ports, &mut set.pending);
            let mut tell = |member: Member, there: bool| {
                pending.entry(member).or_insert(!there);
            };
            match member {
                Member::Net(net) if selected => nets.add(net, |net, there| tell(Member::Net(net), there)),
                Member::Net(net) => nets.remove(net, |net, there| tell(Member::Net(net), there)),
                port => count(ports, port, selected, |port| tell(port, selected)),
            }
        }
        if !set.pending.is_empty() {
            self.touched.insert(id);
        }
    }

    /// What changed since this was asked last.
    pub(super) fn changes(&mut self) -> SetChanges {
        let mut changes = SetChanges::default();
        for id in std::mem::take(&mut self.touched) {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            if !std::mem::replace(&mut set.told, true) {
                changes.added.insert(id, set.spec.clone());
            }
            let mut delta = SetDelta::default();
            for (member, was_told) in std::mem::take(&mut set.pending) {
                match (was_told, set.contains(member)) {
                    (false, true) => delta.added.push(member),
                    (true, false) => delta.removed.push(member),
                    _ => {}
                }
            }
            if delta != SetDelta::default() {
                changes.members.insert(id, delta);
            }
        }
        changes.removed = std::mem::take(&mut self.gone);
        self.free.extend(&changes.removed);
        changes
    }

    /// The set's members, in order.
    pub(super) fn members(&self, id: SetId) -> impl Iterator<Item = Member> {
        let set = self.sets.get(&id).into_iter();
        set.flat_map(|set| set.nets.widest().map(Member::Net).chain(set.ports.keys().copied()))
    }

    /// Is the address in the set?
    pub(super) fn contains(&self, id: SetId, addr: IpAddr) -> bool {
        self.sets.get(&id).is_some_and(|set| set.nets.holds(addr))
    }

    /// Is the address with this port in a named port's set?
    pub(super) fn contains_port(&self, id: SetId, addr: IpAddr, protocol: u8, port: u16) -> bool {
        let member = Member::Port { net: Prefix::host(addr), protocol, port };
        self.sets.get(&id).is_some_and(|set| set.ports.contains_key(&member))
    }

    /// Every set that is referred to.
    pub(super) fn all(&self) -> impl Iterator<Item = (SetId, &SetSpec)> {
        self.sets.iter().map(|(id, set)| (*id, &set.spec))
    }
}

impl Set {
    fn contains(&self, member: Member) -> bool {
        match member {
            Member::Net(net) => self.nets.counts.contains_key(&net) && !self.nets.is_covered(net),
            port => self.ports.contains_key(&port),
        }
    }
}

/// One more or one fewer; `changed` is told of the first and the last.
fn count<T: Copy + Ord>(counts: &mut BTreeMap<T, u32>, what: T, more: bool, changed: impl FnOnce(T)) {
    let count = counts.entry(what).or_default();
    *count = if more { *count + 1 } else { count.saturating_sub(1) };
    match *count {
        0 => {
            counts.remove(&what);
            changed(what);
        }
        1 if more => changed(what),
        _ => {}
    }
}

/// Networks, how many give each, and which of them no other one holds.
#[derive(Debug, Default)]
struct Nets {
    counts: BTreeMap<Prefix, u32>,
    /// How many networks there are of each length: where there are few, looking for a wider one is quick.
    lengths: BTreeMap<(Family, u8), u32>,
}

impl Nets {
    /// `tell` hears which networks are now told, and which no longer.
    fn add(&mut self, net: Prefix, mut tell: impl FnMut(Prefix, bool)) {
        let mut is_new = false;
        count(&mut self.counts, net, true, |_| is_new = true);
        if !is_new {
            return;
        }
        count(&mut self.lengths, (net.family(), net.len()), true, |_| {});
        if !self.is_covered(net) {
            self.widest_within(net).for_each(|covered| tell(covered, false));
            tell(net, true);
        }
    }

    fn remove(&mut self, net: Prefix, mut tell: impl FnMut(Prefix, bool)) {
        let mut is_gone = false;
        count(&mut self.counts, net, false, |_| is_gone = true);
        if !is_gone {
            return;
        }
        count(&mut self.lengths, (net.family(), net.len()), false, |_| {});
        if !self.is_covered(net) {
            tell(net, false);
            self.widest_within(net).for_each(|uncovered| tell(uncovered, true));
        }
    }

    /// Does a wider network hold this one?
    fn is_covered(&self, net: Prefix) -> bool {
        let wider = self.lengths.range((net.family(), 0)..(net.family(), net.len()));
        wider
            .filter_map(|((_, len), _)| Prefix::new(net.addr(), *len))
            .any(|wide| self.counts.contains_key(&wide))
    }

    fn holds(&self, addr: IpAddr) -> bool {
        let host = Prefix::host(addr);
        self.counts.contains_key(&host) || self.is_covered(host)
    }

    /// The widest networks within this one, itself left out.
    fn widest_within(&self, net: Prefix) -> impl Iterator<Item = Prefix> {
        let within =
            self.counts.range(net..).map(|(inner, _)| *inner).take_while(move |inner| net.covers(*inner));
        widest(within.filter(move |inner| *inner != net))
    }

    /// The widest networks of all.
    fn widest(&self) -> impl Iterator<Item = Prefix> {
        widest(self.counts.keys().copied())
    }
}

/// Of networks in order, those that none before them holds: a network sorts before what it holds.
fn widest(nets: impl Iterator<Item = Prefix>) -> impl Iterator<Item = Prefix> {
    let mut last: Option<Prefix> = None;
    nets.filter(move |net| {
        let is_held = last.is_some_and(|last| last.covers(*net));
        if !is_held {
            last = Some(*net);
        }
        !is_held
    })
}

#[cfg(test)]
mod tests;
