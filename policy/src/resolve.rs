//! From resources to what is asked of each endpoint's packets: what Felix's calculation graph does.
//!
//! ```text
//!  endpoints, network sets ──┬──────────────► membership: sets and their members ──► SetChanges
//!  profiles (labels) ────────┤                     ▲ sets of rules in force
//!                            ▼                     │
//!  policies ──► compose ──► label index ──► policies, profiles: rules in force
//!                            (this node's          │
//!  tiers ──► order            endpoints)           ▼
//!                            └────────────► endpoints: groups with the same checks ──► EndpointPolicy
//! ```
//!
//! Answers depend on what there is, not on how it came about; numbers of sets alone are given as they are free.
//! What a resource names and isn't there denies: a profile, and the default of a tier.

mod active;
mod address_sets;
pub mod compose;
mod endpoints;
mod host_interfaces;
mod label_index;
mod membership;
pub(crate) mod order;
mod policies;
mod profiles;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::{
    Action, EndpointPort, HostEndpoint, Key, NetworkPolicy, NetworkSet, PolicyKey, PolicyRule, Prefix,
    Profile, Resource, StagedAction, Tier, Update, WorkloadEndpoint,
};

use active::Drafts;
use address_sets::Addresses;
use endpoints::Endpoints;
use label_index::{Change, LabelIndex, LabelMap};
use membership::Membership;
use policies::{Policies, PolicyId};
use profiles::Profiles;

use crate::judge::Sets;
use crate::rule::SetId;
use crate::selector::SelectorError;
use crate::sets::Member;

pub use address_sets::{SetChanges, SetDelta, SetSpec};
pub use endpoints::{Directions, EndpointPolicy};
pub use host_interfaces::host_endpoint_of;
pub(crate) use rules::families;

/// An endpoint's or network set's number: given again once it is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ItemId(u32);

/// What changed since it was told last. Whoever applies it adds sets and members first, then changes endpoints, and
/// removes sets last: rules never refer to a set that isn't there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of the sets that rules refer to.
    pub sets: SetChanges,
    /// Of endpoints of this node, by [`Key::WorkloadEndpoint`] and [`Key::HostEndpoint`]: what is asked there now, or
    /// `None` of one that is gone. Endpoints that are asked the same share it.
    pub endpoints: BTreeMap<Key, Option<Arc<EndpointPolicy>>>,
}

impl Changes {
    /// Did nothing change?
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// Why a resource means less than it says, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A selector can't be read, and without it nothing else can be meant: the resource is as if it weren't there.
    #[error("left out, as a selector can't be read: {0}")]
    LeftOut(SelectorError),
    /// A selector of namespaces or of service accounts can't be read; as in Calico, the rest holds without it.
    #[error("a selector of namespaces or service accounts can't be read and is ignored: {0}")]
    PartIgnored(SelectorError),
}

/// All resources that are about policy, and what they come to at one node.
#[derive(Debug)]
pub struct Resolver {
    node: String,
    in_sync: bool,
    items: HashMap<Key, ItemId>,
    free_items: Vec<ItemId>,
    next_item: u32,
    membership: Membership,
    /// This node's endpoints, and whom policies are about.
    local: LabelIndex<ItemId, PolicyId>,
    policies: Policies,
    profiles: Profiles,
    endpoints: Endpoints,
    problems: BTreeMap<Key, Problem>,
}

/// What all endpoints and network sets have.
struct Item<'a> {
    labels: &'a BTreeMap<String, String>,
    parents: Arc<[String]>,
    addresses: Addresses,
    /// The node, of an endpoint.
    node: Option<&'a str>,
}

impl Resolver {
    /// Knows nothing yet but the tiers and the profile that always exist; `node` is whose endpoints are asked for.
    pub fn new(node: &str) -> Resolver {
        let mut resolver = Resolver {
            node: node.to_owned(),
            in_sync: false,
            items: HashMap::new(),
            free_items: Vec::new(),
            next_item: 0,
            membership: Membership::default(),
            local: LabelIndex::default(),
            policies: Policies::default(),
            profiles: Profiles::default(),
            endpoints: Endpoints::default(),
            problems: BTreeMap::new(),
        };
        Tier::standard().iter().for_each(|tier| resolver.policies.put_tier(tier));
        resolver.put_profile(&default_allow());
        resolver
    }

    /// Takes one update of the datastore's. Resources of other kinds are none of its business.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::Put(resource) => self.put(resource),
            Update::Remove(key) => self.remove(key),
            Update::InSync => self.in_sync = true,
        }
    }

    /// What changed since this was asked last; nothing before the datastore is in sync.
    pub fn changes(&mut self) -> Changes {
        if !self.in_sync {
            return Changes::default();
        }
        let policies = self.policies.settle(&mut self.membership);
        let mut touched: BTreeSet<ItemId> = self.profiles.settle(&mut self.membership);
        touched.extend(policies.into_iter().flat_map(|policy| self.local.matching(policy)));
        let policies_of = |item| self.local.matched_by(item).collect();
        let endpoints = self.endpoints.settle(&self.policies, &self.profiles, policies_of, touched.iter());
        Changes { sets: self.membership.changes(), endpoints }
    }

    /// What was told of an endpoint of this node last.
    pub fn endpoint(&self, key: &Key) -> Option<&Arc<EndpointPolicy>> {
        self.endpoints.told(*self.items.get(key)?)
    }

    /// Every set that rules refer to, with its members in order.
    pub fn sets(&self) -> impl Iterator<Item = (SetId, &SetSpec, impl Iterator<Item = Member>)> {
        self.membership.all()
    }

    /// The members of one set, in order; none where nothing refers to it.
    pub fn set(&self, id: SetId) -> impl Iterator<Item = Member> {
        self.membership.set(id)
    }

    /// Who is in which set, for [`crate::judge::judge`].
    pub fn members(&self) -> &impl Sets {
        &self.membership
    }

    /// The resources that mean less than they say.
    pub fn problems(&self) -> &BTreeMap<Key, Problem> {
        &self.problems
    }

    /// The policies in force, in no order: those that apply to an endpoint of this node, and those that are needed
    /// everywhere.
    pub fn in_force(&self) -> impl Iterator<Item = &PolicyKey> {
        self.policies.in_force()
    }

    /// A policy's rules as they were written. `name`: as [`crate::rule::Policy::name`] has it. `is_staged`: among what would
    /// be asked if staged policies were enforced.
    pub fn policy(&self, tier: &str, name: &str, is_staged: bool) -> Option<&NetworkPolicy> {
        self.policies.named(tier, name, is_staged)
    }

    /// A profile's rules as they were written.
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.named(name)
    }

    fn put(&mut self, resource: &Arc<Resource>) {
        match &**resource {
            Resource::WorkloadEndpoint(endpoint) => self.put_item(resource.key(), workload(endpoint)),
            Resource::HostEndpoint(endpoint) => self.put_item(resource.key(), host(endpoint)),
            Resource::NetworkSet(set) => self.put_item(resource.key(), network_set(set)),
            // This one nobody can write.
            Resource::Profile(profile) if profile.name == Profile::DEFAULT_ALLOW => {}
            Resource::Profile(profile) => self.put_profile(profile),
            Resource::NetworkPolicy(policy) => self.put_policy(policy, resource),
            Resource::Tier(tier) => self.policies.put_tier(tier),
            _ => {}
        }
    }

    fn remove(&mut self, key: &Key) {
        match key {
            Key::WorkloadEndpoint(..) | Key::HostEndpoint(_) | Key::NetworkSet(..) => self.remove_item(key),
            Key::Profile(name) if name == Profile::DEFAULT_ALLOW => {}
            Key::Profile(name) => self.remove_profile(name),
            Key::NetworkPolicy(_) => self.remove_policy(key),
            Key::Tier(name) => match Tier::standard().iter().find(|tier| tier.name == *name) {
                Some(standard) => self.policies.put_tier(standard),
                None => self.policies.remove_tier(name),
            },
            _ => {}
        }
    }

    fn put_item(&mut self, key: Key, item: Item<'_>) {
        let id = match self.items.get(&key) {
            Some(id) => *id,
            None => {
                let id = self.free_items.pop().unwrap_or_else(|| {
                    self.next_item += 1;
                    ItemId(self.next_item - 1)
                });
                self.items.insert(key.clone(), id);
                id
            }
        };
        let labels: LabelMap = Arc::new(item.labels.clone());
        self.membership.put(id, labels.clone(), item.parents.clone(), item.addresses);
        if item.node == Some(&self.node) {
            let before = self.endpoints.put(id, key, item.parents.clone());
            if before != item.parents {
                self.profiles.change_user(id, &before, &item.parents);
            }
            let mut changes = Vec::new();
            self.local.put_item(id, labels, item.parents, &mut changes);
            self.match_policies(&changes);
        } else {
            self.remove_local(id);
        }
    }

    fn remove_item(&mut self, key: &Key) {
        let Some(id) = self.items.remove(key) else { return };
        self.membership.remove(id);
        self.remove_local(id);
        self.free_items.push(id);
    }

    /// It is no endpoint of this node, whatever it was.
    fn remove_local(&mut self, id: ItemId) {
        let Some(profiles) = self.endpoints.remove(id) else { return };
        self.profiles.change_user(id, &profiles, &[]);
        let mut changes = Vec::new();
        self.local.remove_item(id, &mut changes);
        self.match_policies(&changes);
    }

    fn put_profile(&mut self, profile: &Profile) {
        let drafts = match Drafts::of_profile(profile) {
            Ok((drafts, left_out)) => {
                self.note(Key::Profile(profile.name.clone()), left_out);
                Some(drafts)
            }
            Err(error) => {
                self.problems.insert(Key::Profile(profile.name.clone()), Problem::LeftOut(error));
                None
            }
        };
        self.profiles.put(&profile.name, drafts, Some(Arc::new(profile.clone())));
        self.put_parent(&profile.name, Arc::new(profile.labels_to_apply.clone()));
    }

    fn remove_profile(&mut self, name: &str) {
        self.problems.remove(&Key::Profile(name.to_owned()));
        self.profiles.put(name, None, None);
        self.put_parent(name, LabelMap::default());
    }

    fn put_parent(&mut self, name: &str, labels: LabelMap) {
        self.membership.put_parent(name, labels.clone());
        let mut changes = Vec::new();
        self.local.put_parent(name, labels, &mut changes);
        self.match_policies(&changes);
    }

    fn put_policy(&mut self, policy: &NetworkPolicy, resource: &Arc<Resource>) {
        if self.policies.is_known(&policy.key, resource) {
            return;
        }
        let key = resource.key();
        let read = compose::of_policy(policy).and_then(|whom| {
            let namespace = policy.key.namespace.as_deref();
            let (drafts, left_out) = Drafts::of(&policy.ingress, &policy.egress, namespace)?;
            Ok((whom.selector, drafts, whom.left_out.into_iter().chain(left_out).collect()))
        });
        let (selector, drafts, left_out) = match read {
            Ok(read) => read,
            Err(error) => {
                self.remove_policy(&key);
                self.problems.insert(key, Problem::LeftOut(error));
                return;
            }
        };
        self.note(key, left_out);
        // A staged policy that takes nobody's place isn't asked of anybody, whatever it selects.
        let is_asked = policy.staged_action.is_none_or(|action| action == StagedAction::Set);
        let selector = Some(selector).filter(|_| is_asked);
        let (id, has_another_selector) = self.policies.put(policy, resource, selector.clone(), drafts);
        if has_another_selector {
            let mut changes = Vec::new();
            self.local.remove_selector(id, &mut changes);
            if let Some(selector) = selector {
                self.local.add_selector(id, selector, &mut changes);
            }
            self.match_policies(&changes);
        }
    }

    fn remove_policy(&mut self, key: &Key) {
        self.problems.remove(key);
        let Key::NetworkPolicy(policy) = key else { return };
        let Some(id) = self.policies.id(policy) else { return };
        let mut changes = Vec::new();
        self.local.remove_selector(id, &mut changes);
        self.match_policies(&changes);
        self.policies.remove(id, &mut self.membership);
    }

    fn match_policies(&mut self, changes: &[Change<ItemId, PolicyId>]) {
        for Change { item, selector, matches } in changes {
            self.policies.count_user(*selector, *matches);
            self.endpoints.flip(*item, *selector);
        }
    }

    fn note(&mut self, key: Key, left_out: Vec<SelectorError>) {
        match left_out.into_iter().next() {
            Some(error) => drop(self.problems.insert(key, Problem::PartIgnored(error))),
            None => drop(self.problems.remove(&key)),
        }
    }
}

fn workload(endpoint: &WorkloadEndpoint) -> Item<'_> {
    Item {
        labels: &endpoint.labels,
        parents: endpoint.profiles.as_slice().into(),
        addresses: addresses(endpoint.ip_networks.iter().copied(), &endpoint.ports),
        node: Some(&endpoint.node),
    }
}

fn host(endpoint: &HostEndpoint) -> Item<'_> {
    Item {
        labels: &endpoint.labels,
        parents: endpoint.profiles.as_slice().into(),
        addresses: addresses(endpoint.expected_ips.iter().map(|addr| Prefix::host(*addr)), &endpoint.ports),
        node: Some(&endpoint.node),
    }
}

fn network_set(set: &NetworkSet) -> Item<'_> {
    // What a namespace's labels are to its workloads they are to its network sets.
    let parents = set.namespace.iter().map(|namespace| format!("kns.{namespace}")).collect();
    Item { labels: &set.labels, parents, addresses: addresses(set.nets.iter().copied(), &[]), node: None }
}

fn addresses(nets: impl Iterator<Item = Prefix>, ports: &[EndpointPort]) -> Addresses {
    Addresses { nets: nets.collect(), ports: ports.to_vec() }
}

/// The profile that always exists and that nobody can change.
fn default_allow() -> Profile {
    let allow = vec![PolicyRule::any(Action::Allow)];
    Profile {
        name: Profile::DEFAULT_ALLOW.to_owned(),
        labels_to_apply: BTreeMap::new(),
        ingress: allow.clone(),
        egress: allow,
    }
}

#[cfg(test)]
mod tests;
