//! Policies by number, in order, and those of them in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::{NetworkPolicy, Order, PolicyKey, PolicyKind, Resource, StagedAction, Tier, TierDefault};

use super::active::{Active, Drafts};
use super::membership::Membership;
use super::order::{Place, TierPlace};
use crate::selector::Selector;

/// A policy's number: small, and given again once it is free, be it before anybody was told: whoever has the new one of
/// that number is worked out anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PolicyId(u32);

/// When a policy is asked. Each is asked in exactly one of these, but for what is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Before connections are looked at.
    Untracked,
    /// Before destinations are translated.
    PreDnat,
    /// Of what starts and ends at an endpoint, and of what a host endpoint forwards where this says so.
    Tracked { on_forward: bool },
}

#[derive(Debug)]
pub(super) struct Policy {
    pub(super) key: PolicyKey,
    pub(super) class: Class,
    pub(super) ingress: bool,
    pub(super) egress: bool,
    /// `None` of one that is enforced.
    pub(super) staged: Option<StagedAction>,
    pub(super) tier: String,
    order: Order,
    /// What it was read from, to see what changes.
    resource: Arc<Resource>,
    /// Whom it is about; `None` of one that is asked of nobody.
    selector: Option<Selector>,
    drafts: Drafts,
    /// Is it in force without users, too?
    needed_everywhere: bool,
    /// How many endpoints of this node it applies to.
    users: usize,
    active: Option<Active>,
    /// Its place among all policies, as a number; right after [`Policies::rank`].
    rank: u32,
}

#[derive(Debug, Default)]
pub(super) struct Policies {
    ids: HashMap<PolicyKey, PolicyId>,
    slots: Vec<Option<Policy>>,
    free: Vec<PolicyId>,
    in_order: BTreeMap<Place, PolicyId>,
    ranks_are_stale: bool,
    tiers: HashMap<String, Tier>,
    /// The enforced policies whose place staged ones would take, or whom they would remove.
    staged_over: HashMap<PolicyKey, BTreeSet<PolicyId>>,
    /// Policies whose rules or users changed.
    unsettled: BTreeSet<PolicyId>,
    /// Policies whose place, tier or kind changed: endpoints that have them have other checks.
    moved: BTreeSet<PolicyId>,
}

impl Policies {
    /// What is in a slot that is in use.
    pub(super) fn get(&self, id: PolicyId) -> &Policy {
        self.slots[id.0 as usize].as_ref().expect("a policy's number is in use as long as somebody has it")
    }

    fn get_mut(&mut self, id: PolicyId) -> &mut Policy {
        self.slots[id.0 as usize].as_mut().expect("a policy's number is in use as long as somebody has it")
    }

    pub(super) fn id(&self, key: &PolicyKey) -> Option<PolicyId> {
        self.ids.get(key).copied()
    }

    /// Is this what the policy was read from?
    pub(super) fn is_known(&self, key: &PolicyKey, resource: &Arc<Resource>) -> bool {
        self.id(key).is_some_and(|id| self.get(id).resource == *resource)
    }

    /// A policy is there, new or changed: its number, and whether its selector is another.
    pub(super) fn put(
        &mut self,
        policy: &NetworkPolicy,
        resource: &Arc<Resource>,
        selector: Option<Selector>,
        drafts: Drafts,
    ) -> (PolicyId, bool) {
        let class = match (policy.do_not_track, policy.pre_dnat) {
            (true, _) => Class::Untracked,
            (false, true) => Class::PreDnat,
            // What a namespace's policy is about never is a host endpoint, so it matters of global ones alone.
            (false, false) => Class::Tracked { on_forward: policy.apply_on_forward },
        };
        let mut new = Policy {
            key: policy.key.clone(),
            class,
            ingress: policy.applies_to_ingress,
            egress: policy.applies_to_egress,
            staged: policy.key.kind.is_staged().then(|| policy.staged_action.unwrap_or_default()),
            tier: policy.tier.clone(),
            order: policy.order,
            resource: resource.clone(),
            selector,
            drafts,
            needed_everywhere: policy.needed_everywhere,
            users: 0,
            active: None,
            rank: 0,
        };
        let (id, has_another_selector) = match self.id(&policy.key) {
            Some(id) => {
                self.leave_order(id);
                let old = self.slots[id.0 as usize].take().expect("a known policy has a slot");
                (new.users, new.active) = (old.users, old.active);
                (id, old.selector != new.selector)
            }
            None => (self.new_id(), true),
        };
        self.ids.insert(policy.key.clone(), id);
        self.slots[id.0 as usize] = Some(new);
        self.enter_order(id);
        self.unsettled.insert(id);
        (id, has_another_selector)
    }

    /// A policy is gone; nobody it applied to counts as its user any more.
    pub(super) fn remove(&mut self, id: PolicyId, membership: &mut Membership) {
        self.leave_order(id);
        let policy = self.slots[id.0 as usize].take().expect("a known policy has a slot");
        self.ids.remove(&policy.key);
        if let Some(active) = policy.active {
            active.retire(membership);
        }
        self.unsettled.remove(&id);
        self.moved.remove(&id);
        self.free.push(id);
    }

    pub(super) fn put_tier(&mut self, tier: &Tier) {
        if self.tiers.get(&tier.name) != Some(tier) {
            self.change_tier(&tier.name, Some(tier.clone()));
        }
    }

    pub(super) fn remove_tier(&mut self, name: &str) {
        self.change_tier(name, None);
    }

    /// One endpoint more, or one fewer, that a policy applies to.
    pub(super) fn count_user(&mut self, id: PolicyId, more: bool) {
        // The last to leave may be told of after the policy itself.
        let Some(policy) = self.slots[id.0 as usize].as_mut() else { return };
        policy.users = if more { policy.users + 1 } else { policy.users.saturating_sub(1) };
        if policy.users <= 1 {
            self.unsettled.insert(id);
        }
    }

    /// Puts in force what is needed and retires what isn't. The policies whose endpoints have other checks now.
    pub(super) fn settle(&mut self, membership: &mut Membership) -> BTreeSet<PolicyId> {
        let mut changed = std::mem::take(&mut self.moved);
        // Those that come before those that go: sets that both refer to stay.
        let (come, go): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.unsettled).into_iter().partition(|id| self.get(*id).is_needed());
        for id in come {
            let policy = self.get_mut(id);
            let name = match &policy.key.namespace {
                Some(namespace) => format!("{namespace}/{}", policy.key.name),
                None => policy.key.name.clone(),
            };
            match &mut policy.active {
                Some(active) => {
                    if active.replace(&policy.drafts, membership) {
                        changed.insert(id);
                    }
                }
                None => {
                    policy.active = Some(Active::new(&name, &policy.drafts, membership));
                    changed.insert(id);
                }
            }
        }
        for id in go {
            if let Some(active) = self.get_mut(id).active.take() {
                active.retire(membership);
            }
        }
        if std::mem::take(&mut self.ranks_are_stale) {
            for (rank, id) in (0..).zip(self.in_order.values()) {
                self.slots[id.0 as usize].as_mut().expect("what has a place has a slot").rank = rank;
            }
        }
        changed
    }

    /// The policies in force.
    pub(super) fn in_force(&self) -> impl Iterator<Item = &PolicyKey> {
        self.slots.iter().flatten().filter(|policy| policy.active.is_some()).map(|policy| &policy.key)
    }

    /// Policies in the order in which they are asked.
    pub(super) fn sorted(&self, ids: &[PolicyId]) -> Vec<PolicyId> {
        let mut sorted: Vec<(u32, PolicyId)> = ids.iter().map(|id| (self.get(*id).rank, *id)).collect();
        sorted.sort_unstable();
        sorted.into_iter().map(|(_, id)| id).collect()
    }

    /// What becomes of what no policy of the tier decides. A tier that isn't there denies.
    pub(super) fn tier_default(&self, tier: &str) -> TierDefault {
        self.tiers.get(tier).map(|tier| tier.default_action).unwrap_or_default()
    }

    /// The policy of a tier that is asked under this name, with its namespace before a slash; among staged ones, where they
    /// would be enforced, first.
    pub(super) fn named(&self, tier: &str, name: &str, is_staged: bool) -> Option<&NetworkPolicy> {
        use PolicyKind::{
            GlobalNetworkPolicy, NetworkPolicy, StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy,
            StagedNetworkPolicy,
        };
        let staged = [StagedNetworkPolicy, StagedKubernetesNetworkPolicy, StagedGlobalNetworkPolicy];
        let kinds = staged.into_iter().filter(|_| is_staged).chain([NetworkPolicy, GlobalNetworkPolicy]);
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, name),
        };
        kinds.into_iter().find_map(|kind| {
            let key = PolicyKey { kind, namespace: namespace.clone(), name: name.to_owned() };
            let policy = self.get(self.id(&key)?);
            match &*policy.resource {
                Resource::NetworkPolicy(resource) if policy.tier == tier => Some(resource),
                _ => None,
            }
        })
    }

    /// Would a staged policy take this one's place, or remove it?
    pub(super) fn is_staged_over(&self, policy: &Policy) -> bool {
        self.staged_over.contains_key(&policy.key)
    }

    fn new_id(&mut self) -> PolicyId {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            PolicyId(self.slots.len() as u32 - 1)
        })
    }

    fn place(&self, policy: &Policy) -> Place {
        let order = self.tiers.get(&policy.tier).map(|tier| tier.order);
        Place::new(TierPlace { name: policy.tier.clone(), order }, policy.order, &policy.key)
    }

    fn enter_order(&mut self, id: PolicyId) {
        let place = self.place(self.get(id));
        self.in_order.insert(place, id);
        self.stage(id, true);
        self.ranks_are_stale = true;
        self.moved.insert(id);
    }

    fn leave_order(&mut self, id: PolicyId) {
        let place = self.place(self.get(id));
        self.in_order.remove(&place);
        self.stage(id, false);
    }

    /// A staged policy's effect on the one that is enforced, begins or ends.
    fn stage(&mut self, id: PolicyId, begins: bool) {
        let policy = self.get(id);
        let Some(StagedAction::Set | StagedAction::Delete) = policy.staged else { return };
        let enforced = enforced(&policy.key);
        if let Some(known) = self.id(&enforced) {
            self.moved.insert(known);
        }
        if begins {
            self.staged_over.entry(enforced).or_default().insert(id);
        } else if let Some(over) = self.staged_over.get_mut(&enforced) {
            over.remove(&id);
            if over.is_empty() {
                self.staged_over.remove(&enforced);
            }
        }
    }

    fn change_tier(&mut self, name: &str, tier: Option<Tier>) {
        let of_tier = |policy: &&PolicyId| self.get(**policy).tier == name;
        let members: Vec<PolicyId> = self.ids.values().filter(of_tier).copied().collect();
        members.iter().for_each(|id| self.leave_order(*id));
        match tier {
            Some(tier) => drop(self.tiers.insert(name.to_owned(), tier)),
            None => drop(self.tiers.remove(name)),
        }
        members.iter().for_each(|id| self.enter_order(*id));
    }
}

impl Policy {
    fn is_needed(&self) -> bool {
        self.users > 0 || self.needed_everywhere && self.selector.is_some()
    }

    /// Its rules for one direction.
    pub(super) fn rules(&self, egress: bool) -> &Arc<crate::rule::Policy> {
        let active = self.active.as_ref().expect("what an endpoint has is in force");
        if egress { &active.egress } else { &active.ingress }
    }
}

/// The policy that a staged one is about.
fn enforced(staged: &PolicyKey) -> PolicyKey {
    let (kind, name) = match staged.kind {
        PolicyKind::StagedGlobalNetworkPolicy => (PolicyKind::GlobalNetworkPolicy, staged.name.clone()),
        // As kube-controllers name what they copy from Kubernetes.
        PolicyKind::StagedKubernetesNetworkPolicy => {
            (PolicyKind::NetworkPolicy, format!("knp.default.{}", staged.name))
        }
        _ => (PolicyKind::NetworkPolicy, staged.name.clone()),
    };
    PolicyKey { kind, namespace: staged.namespace.clone(), name }
}
