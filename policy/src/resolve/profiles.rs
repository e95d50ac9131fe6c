//! Profiles, and those of them in force.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use model::Profile;

use super::ItemId;
use super::active::{Active, Drafts};
use super::membership::Membership;
use crate::rule::Policy;
use crate::selector::SelectorError;

#[derive(Debug)]
struct Known {
    /// `None` of one that endpoints name and that isn't there: it denies.
    drafts: Option<Drafts>,
    /// What it was read from.
    resource: Option<Arc<Profile>>,
    /// The endpoints of this node that name it.
    users: BTreeSet<ItemId>,
    active: Option<Active>,
}

#[derive(Debug, Default)]
pub(super) struct Profiles {
    known: HashMap<String, Known>,
    /// Those whose rules or users changed.
    unsettled: BTreeSet<String>,
}

impl Profiles {
    /// The profile's rules; `None` where it isn't there any more.
    pub(super) fn put(&mut self, name: &str, drafts: Option<Drafts>, resource: Option<Arc<Profile>>) {
        let known = self.entry(name);
        (known.drafts, known.resource) = (drafts, resource);
        self.unsettled.insert(name.to_owned());
    }

    /// An endpoint of this node names other profiles than it did.
    pub(super) fn change_user(&mut self, item: ItemId, before: &[String], now: &[String]) {
        for name in before {
            self.entry(name).users.remove(&item);
        }
        for name in now {
            self.entry(name).users.insert(item);
        }
        self.unsettled.extend(before.iter().chain(now).cloned());
    }

    /// Puts in force what has users and retires what has none. The endpoints whose profiles have other rules now.
    pub(super) fn settle(&mut self, membership: &mut Membership) -> BTreeSet<ItemId> {
        let mut changed = BTreeSet::new();
        let (come, go): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unsettled)
            .into_iter()
            .partition(|name| !self.entry(name).users.is_empty());
        for name in come {
            let known = self.known.get_mut(&name).expect("what has users is known");
            let drafts = known.drafts.clone().unwrap_or_else(Drafts::deny);
            match &mut known.active {
                Some(active) => {
                    if active.replace(&drafts, membership) {
                        changed.extend(&known.users);
                    }
                }
                None => known.active = Some(Active::new(&name, &drafts, membership)),
            }
        }
        for name in go {
            let known = self.entry(&name);
            if let Some(active) = known.active.take() {
                active.retire(membership);
            }
            if known.drafts.is_none() {
                self.known.remove(&name);
            }
        }
        changed
    }

    /// The rules of these profiles for one direction, in order.
    pub(super) fn rules(&self, names: &[String], egress: bool) -> Vec<Arc<Policy>> {
        let rules = |name: &String| {
            let active = self.known[name].active.as_ref().expect("what an endpoint names is in force");
            if egress { active.egress.clone() } else { active.ingress.clone() }
        };
        names.iter().map(rules).collect()
    }

    /// The profile, where it is there.
    pub(super) fn named(&self, name: &str) -> Option<&Profile> {
        self.known.get(name)?.resource.as_deref()
    }

    fn entry(&mut self, name: &str) -> &mut Known {
        if !self.known.contains_key(name) {
            self.known.insert(
                name.to_owned(),
                Known { drafts: None, resource: None, users: BTreeSet::new(), active: None },
            );
        }
        self.known.get_mut(name).expect("it was inserted")
    }
}

impl Drafts {
    /// A profile's rules.
    pub(super) fn of_profile(profile: &Profile) -> Result<(Drafts, Vec<SelectorError>), SelectorError> {
        Drafts::of(&profile.ingress, &profile.egress, None)
    }
}
