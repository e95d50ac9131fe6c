//! What a dataplane would make of a resolver's changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::Key;
use policy::resolve::{Changes, EndpointPolicy, SetSpec};
use policy::rule::{Checks, SetId};
use policy::sets::Member;

/// What was told of the resolver's changes, put together: what a dataplane would have.
#[derive(Default)]
pub struct Dataplane {
    pub specs: BTreeMap<SetId, SetSpec>,
    pub members: BTreeMap<SetId, BTreeSet<Member>>,
    pub endpoints: BTreeMap<Key, Arc<EndpointPolicy>>,
}

impl Dataplane {
    /// As the resolver asks for: sets and members first, then endpoints, and sets that are gone last.
    pub fn apply(&mut self, changes: Changes) {
        for (id, spec) in changes.sets.added {
            assert!(self.specs.insert(id, spec).is_none(), "a new set has a free number");
            self.members.insert(id, BTreeSet::new());
        }
        for (id, delta) in changes.sets.members {
            let members = self.members.get_mut(&id).expect("members are of known sets");
            delta.removed.iter().for_each(|member| assert!(members.remove(member), "{member:?}"));
            delta.added.into_iter().for_each(|member| assert!(members.insert(member), "{member:?}"));
        }
        for (key, policy) in changes.endpoints {
            match policy {
                Some(policy) => drop(self.endpoints.insert(key, policy)),
                None => assert!(self.endpoints.remove(&key).is_some(), "{key} was there"),
            }
        }
        for id in changes.sets.removed {
            assert!(self.specs.remove(&id).is_some() && self.members.remove(&id).is_some());
        }
        for checks in self.endpoints.values().flat_map(|policy| all_checks(policy)) {
            for set in checks.sets() {
                assert!(self.specs.contains_key(&set), "rules refer to sets that are there");
            }
        }
    }

    /// Every set's members.
    pub fn sets(&self) -> BTreeMap<SetSpec, BTreeSet<Member>> {
        self.specs.iter().map(|(id, spec)| (spec.clone(), self.members[id].clone())).collect()
    }
}

/// All that is asked at an endpoint.
pub fn all_checks(policy: &EndpointPolicy) -> Vec<&Arc<Checks>> {
    let EndpointPolicy { normal, staged, untracked, pre_dnat, forward } = policy;
    let directions = [normal, staged, untracked, forward];
    directions
        .into_iter()
        .flat_map(|both| [&both.ingress, &both.egress])
        .chain([pre_dnat])
        .flatten()
        .collect()
}
