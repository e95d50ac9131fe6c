//! Sets, and who is in them: endpoints and network sets give their addresses to the sets whose selectors they match.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::ItemId;
use super::address_sets::{AddressSets, Addresses, SetChanges, SetSpec};
use super::label_index::{Change, LabelIndex, LabelMap};
use crate::judge::Sets;
use crate::rule::SetId;
use crate::sets::Member;

#[derive(Debug, Default)]
pub(super) struct Membership {
    index: LabelIndex<ItemId, SetId>,
    addresses: HashMap<ItemId, Addresses>,
    sets: AddressSets,
}

impl Membership {
    /// Somebody is there, new or changed.
    pub(super) fn put(
        &mut self,
        item: ItemId,
        labels: LabelMap,
        parents: Arc<[String]>,
        addresses: Addresses,
    ) {
        let mut changes = Vec::new();
        match self.addresses.get(&item) {
            Some(before) if *before == addresses => self.index.put_item(item, labels, parents, &mut changes),
            before => {
                // What they gave until now goes, and then they give what they have to the sets that they match then.
                if let Some(before) = before {
                    self.index.matched_by(item).for_each(|set| self.sets.give(set, before, false));
                }
                self.index.put_item(item, labels, parents, &mut Vec::new());
                self.index.matched_by(item).for_each(|set| self.sets.give(set, &addresses, true));
                self.addresses.insert(item, addresses);
            }
        }
        self.give(&changes);
    }

    /// Somebody is gone.
    pub(super) fn remove(&mut self, item: ItemId) {
        let mut changes = Vec::new();
        self.index.remove_item(item, &mut changes);
        self.give(&changes);
        self.addresses.remove(&item);
    }

    /// A profile gives these labels to those who name it.
    pub(super) fn put_parent(&mut self, name: &str, labels: LabelMap) {
        let mut changes = Vec::new();
        self.index.put_parent(name, labels, &mut changes);
        self.give(&changes);
    }

    /// One more rule refers to the set.
    pub(super) fn acquire(&mut self, spec: &SetSpec) -> SetId {
        let (id, is_new) = self.sets.acquire(spec.clone());
        if is_new {
            let mut changes = Vec::new();
            self.index.add_selector(id, spec.selector.clone(), &mut changes);
            self.give(&changes);
        }
        id
    }

    /// One rule fewer refers to the set.
    pub(super) fn release(&mut self, id: SetId) {
        if self.sets.release(id) {
            self.index.remove_selector(id, &mut Vec::new());
        }
    }

    /// What changed in the sets since this was asked last.
    pub(super) fn changes(&mut self) -> SetChanges {
        self.sets.changes()
    }

    /// Every set that rules refer to, with its members in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (SetId, &SetSpec, impl Iterator<Item = Member>)> {
        self.sets.all().map(|(id, spec)| (id, spec, self.sets.members(id)))
    }

    /// One set's members, in order.
    pub(super) fn set(&self, id: SetId) -> impl Iterator<Item = Member> {
        self.sets.members(id)
    }

    fn give(&mut self, changes: &[Change<ItemId, SetId>]) {
        for Change { item, selector, matches } in changes {
            self.sets.give(*selector, &self.addresses[item], *matches);
        }
    }
}

impl Sets for Membership {
    fn contains(&self, set: SetId, addr: IpAddr) -> bool {
        self.sets.contains(set, addr)
    }

    fn contains_port(&self, set: SetId, addr: IpAddr, protocol: u8, port: u16) -> bool {
        self.sets.contains_port(set, addr, protocol, port)
    }
}
