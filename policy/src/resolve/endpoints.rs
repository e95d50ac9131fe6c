//! What is asked at each endpoint of this node.
//!
//! Endpoints with the same policies and the same profiles are a group and share one [`EndpointPolicy`]. A policy that
//! changes is worked into each group once, however many endpoints there are; a policy that begins to apply to all
//! members of a group takes them to another group together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::{Key, StagedAction};

use super::ItemId;
use super::policies::{Class, Policies, Policy, PolicyId};
use super::profiles::Profiles;
use crate::rule::{AfterTiers, Checks, Tier, TierDefault};

/// Checks of both directions; absent is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directions {
    /// Of packets towards the endpoint.
    pub ingress: Option<Arc<Checks>>,
    /// Of packets from it.
    pub egress: Option<Arc<Checks>>,
}

/// What is asked at one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Of what starts and ends at the endpoint: tiers, then profiles. Always asked, both ways.
    pub normal: Directions,
    /// What `normal` would be if staged policies were enforced; absent where they would change nothing.
    pub staged: Directions,
    /// At host endpoints, of all packets, before connections are looked at: no match is no opinion. Absent where no
    /// policy is about it.
    pub untracked: Directions,
    /// At host endpoints, of what comes in, before destinations are translated: no match is no opinion.
    pub pre_dnat: Option<Arc<Checks>>,
    /// At host endpoints, of what the host forwards. Absent where no policy is about it; then it is allowed.
    pub forward: Directions,
}

/// A group of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct GroupId(u32);

/// What makes a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GroupKey {
    is_host: bool,
    profiles: Arc<[String]>,
    /// By number.
    policies: Arc<[PolicyId]>,
}

#[derive(Debug)]
struct Group {
    key: GroupKey,
    members: usize,
    policy: Arc<EndpointPolicy>,
}

#[derive(Debug)]
struct Endpoint {
    key: Key,
    is_host: bool,
    profiles: Arc<[String]>,
    group: Option<GroupId>,
    /// Policies that began to apply, or ceased to, since it came into its group.
    flipped: BTreeSet<PolicyId>,
    /// Its profiles are others since it came into its group.
    has_other_profiles: bool,
    /// What was told of it last.
    told: Option<Arc<EndpointPolicy>>,
}

#[derive(Debug, Default)]
pub(super) struct Endpoints {
    endpoints: HashMap<ItemId, Endpoint>,
    groups: HashMap<GroupId, Group>,
    by_key: HashMap<GroupKey, GroupId>,
    next_group: u32,
    /// Endpoints whose group may be another.
    unsettled: BTreeSet<ItemId>,
    /// Endpoints that were told and are gone.
    gone: BTreeSet<Key>,
}

impl Endpoints {
    /// An endpoint is there, new or changed; the profiles that it had.
    pub(super) fn put(&mut self, item: ItemId, key: Key, profiles: Arc<[String]>) -> Arc<[String]> {
        self.unsettled.insert(item);
        match self.endpoints.get_mut(&item) {
            Some(known) => {
                known.has_other_profiles |= known.profiles != profiles;
                std::mem::replace(&mut known.profiles, profiles)
            }
            None => {
                let is_host = matches!(key, Key::HostEndpoint(_));
                let flipped = BTreeSet::new();
                let new = Endpoint {
                    key,
                    is_host,
                    profiles,
                    group: None,
                    flipped,
                    has_other_profiles: false,
                    told: None,
                };
                self.endpoints.insert(item, new);
                Arc::new([])
            }
        }
    }

    /// An endpoint is gone, or none of this node's any more; the profiles that it had.
    pub(super) fn remove(&mut self, item: ItemId) -> Option<Arc<[String]>> {
        let known = self.endpoints.remove(&item)?;
        self.unsettled.remove(&item);
        if let Some(group) = known.group {
            self.leave(group);
        }
        if known.told.is_some() {
            self.gone.insert(known.key);
        }
        Some(known.profiles)
    }

    /// A policy begins or ceases to apply to an endpoint.
    pub(super) fn flip(&mut self, item: ItemId, policy: PolicyId) {
        let Some(known) = self.endpoints.get_mut(&item) else { return };
        if !known.flipped.remove(&policy) {
            known.flipped.insert(policy);
        }
        self.unsettled.insert(item);
    }

    /// Brings all endpoints into their groups; those of groups that these endpoints are in are worked out anew. What
    /// changed since it was told last; `None` is an endpoint that is gone.
    pub(super) fn settle<'a>(
        &mut self,
        policies: &Policies,
        profiles: &Profiles,
        policies_of: impl Fn(ItemId) -> Vec<PolicyId>,
        touched: impl Iterator<Item = &'a ItemId>,
    ) -> BTreeMap<Key, Option<Arc<EndpointPolicy>>> {
        let mut changed: BTreeMap<Key, Option<Arc<EndpointPolicy>>> =
            std::mem::take(&mut self.gone).into_iter().map(|key| (key, None)).collect();
        let mut news = std::mem::take(&mut self.unsettled);
        let mut stale = self.regroup(&news, policies_of);
        // Where they are now: one that came into a known group may bring a policy that changed.
        stale.extend(touched.filter_map(|item| self.endpoints.get(item)?.group));
        let mut rebuilt = BTreeSet::new();
        for id in stale {
            // Its last member may have left.
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let policy = build(&group.key, policies, profiles);
            if *group.policy != policy {
                group.policy = Arc::new(keep_equal(policy, &group.policy));
                rebuilt.insert(id);
            }
        }
        if !rebuilt.is_empty() {
            let affected = self
                .endpoints
                .iter()
                .filter(|(_, known)| known.group.is_some_and(|id| rebuilt.contains(&id)));
            news.extend(affected.map(|(item, _)| *item));
        }
        // Many endpoints share what they were told and what they are to be told; each pair is compared once.
        let mut compared: HashMap<[*const EndpointPolicy; 2], bool> = HashMap::new();
        for item in news {
            let Some(known) = self.endpoints.get_mut(&item) else { continue };
            let policy = &self.groups[&known.group.expect("all have groups now")].policy;
            let is_told = known.told.as_ref().is_some_and(|told| {
                *compared.entry([Arc::as_ptr(told), Arc::as_ptr(policy)]).or_insert_with(|| told == policy)
            });
            if !is_told {
                known.told = Some(policy.clone());
                changed.insert(known.key.clone(), Some(policy.clone()));
            }
        }
        changed
    }

    /// What was told of an endpoint last.
    pub(super) fn told(&self, item: ItemId) -> Option<&Arc<EndpointPolicy>> {
        self.endpoints.get(&item)?.told.as_ref()
    }

    /// Takes these endpoints to the groups that they belong to; the groups that are new.
    fn regroup(
        &mut self,
        items: &BTreeSet<ItemId>,
        policies_of: impl Fn(ItemId) -> Vec<PolicyId>,
    ) -> BTreeSet<GroupId> {
        let mut fresh = BTreeSet::new();
        // Where others went from the same group with the same changes.
        let mut moves: HashMap<(GroupId, BTreeSet<PolicyId>), GroupId> = HashMap::new();
        for item in items {
            let Some(known) = self.endpoints.get_mut(item) else { continue };
            let flipped = std::mem::take(&mut known.flipped);
            let has_other_profiles = std::mem::take(&mut known.has_other_profiles);
            let from = known.group.filter(|_| !has_other_profiles);
            let target = match from {
                Some(from) if flipped.is_empty() => from,
                Some(from) => {
                    if let Some(target) = moves.get(&(from, flipped.clone())) {
                        *target
                    } else {
                        let old: BTreeSet<PolicyId> =
                            self.groups[&from].key.policies.iter().copied().collect();
                        let policies = old.symmetric_difference(&flipped).copied().collect();
                        let target = self.group(*item, policies, &mut fresh);
                        moves.insert((from, flipped), target);
                        target
                    }
                }
                None => self.group(*item, policies_of(*item).into(), &mut fresh),
            };
            let known = self.endpoints.get_mut(item).expect("it was there");
            let before = known.group.replace(target);
            self.groups.get_mut(&target).expect("a target is a group").members += 1;
            if let Some(before) = before {
                self.leave(before);
            }
        }
        fresh.retain(|id| self.groups.contains_key(id));
        fresh
    }

    /// The group of these policies for the endpoint, known or new. A new one is not worked out yet.
    fn group(&mut self, item: ItemId, policies: Arc<[PolicyId]>, fresh: &mut BTreeSet<GroupId>) -> GroupId {
        let known = &self.endpoints[&item];
        let key = GroupKey { is_host: known.is_host, profiles: known.profiles.clone(), policies };
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = GroupId(self.next_group);
        self.next_group = self.next_group.wrapping_add(1);
        self.by_key.insert(key.clone(), id);
        self.groups.insert(id, Group { key, members: 0, policy: Arc::default() });
        fresh.insert(id);
        id
    }

    fn leave(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.members -= 1;
        if group.members == 0 {
            let group = self.groups.remove(&id).expect("it was there");
            self.by_key.remove(&group.key);
        }
    }
}

/// The new one, with what is equal to the old one being the same in memory.
fn keep_equal(mut new: EndpointPolicy, old: &EndpointPolicy) -> EndpointPolicy {
    let pairs = [
        (&mut new.normal.ingress, &old.normal.ingress),
        (&mut new.normal.egress, &old.normal.egress),
        (&mut new.staged.ingress, &old.staged.ingress),
        (&mut new.staged.egress, &old.staged.egress),
        (&mut new.untracked.ingress, &old.untracked.ingress),
        (&mut new.untracked.egress, &old.untracked.egress),
        (&mut new.pre_dnat, &old.pre_dnat),
        (&mut new.forward.ingress, &old.forward.ingress),
        (&mut new.forward.egress, &old.forward.egress),
    ];
    for (new, old) in pairs {
        if new == old {
            new.clone_from(old);
        }
    }
    new
}

/// What a group's endpoints are asked.
fn build(key: &GroupKey, policies: &Policies, profiles: &Profiles) -> EndpointPolicy {
    let sorted = policies.sorted(&key.policies);
    let group = Build { policies, sorted: &sorted };
    let is_tracked = |policy: &Policy| matches!(policy.class, Class::Tracked { .. });
    let is_enforced = |policy: &Policy| policy.staged.is_none();
    let after = |egress| AfterTiers::Profiles(profiles.rules(&key.profiles, egress));
    let normal = |egress| {
        let tiers = group.tiers(egress, None, |policy| is_tracked(policy) && is_enforced(policy));
        Some(Arc::new(Checks { tiers, after: after(egress) }))
    };
    let normal = Directions { ingress: normal(false), egress: normal(true) };
    let mut policy = EndpointPolicy { normal, ..EndpointPolicy::default() };
    if sorted.iter().any(|id| group.is_staged(policies.get(*id))) {
        let staged = |egress| {
            let would_hold = |policy: &Policy| match policy.staged {
                None => !policies.is_staged_over(policy),
                Some(action) => action == StagedAction::Set,
            };
            let tiers = group.tiers(egress, None, |policy| is_tracked(policy) && would_hold(policy));
            Some(Arc::new(Checks { tiers, after: after(egress) }))
        };
        policy.staged = Directions { ingress: staged(false), egress: staged(true) };
    }
    if key.is_host {
        // Checks that nothing is asked by are not there.
        let some = |tiers: Vec<Tier>, after| (!tiers.is_empty()).then(|| Arc::new(Checks { tiers, after }));
        let no_opinion = |class, egress| {
            let of_class = |policy: &Policy| policy.class == class && is_enforced(policy);
            some(group.tiers(egress, Some(TierDefault::Pass), of_class), AfterTiers::NoMatch)
        };
        let forward = |egress| {
            let on_forward = Class::Tracked { on_forward: true };
            let tiers = group.tiers(egress, None, |policy| policy.class == on_forward && is_enforced(policy));
            some(tiers, AfterTiers::Profiles(Vec::new()))
        };
        policy.untracked = Directions {
            ingress: no_opinion(Class::Untracked, false),
            egress: no_opinion(Class::Untracked, true),
        };
        policy.pre_dnat = no_opinion(Class::PreDnat, false);
        policy.forward = Directions { ingress: forward(false), egress: forward(true) };
    }
    policy
}

struct Build<'a> {
    policies: &'a Policies,
    /// In the order in which they are asked.
    sorted: &'a [PolicyId],
}

impl Build<'_> {
    /// The tiers with some of the policies of one direction; `default` stands for the tiers' own, where given.
    fn tiers(
        &self,
        egress: bool,
        default: Option<TierDefault>,
        takes: impl Fn(&Policy) -> bool,
    ) -> Vec<Tier> {
        let mut tiers: Vec<Tier> = Vec::new();
        for id in self.sorted {
            let policy = self.policies.get(*id);
            if !(if egress { policy.egress } else { policy.ingress }) || !takes(policy) {
                continue;
            }
            if tiers.last().is_none_or(|tier| tier.name != policy.tier) {
                let default = default.unwrap_or_else(|| self.policies.tier_default(&policy.tier));
                tiers.push(Tier { name: policy.tier.clone(), policies: Vec::new(), default });
            }
            let tier = tiers.last_mut().expect("one was pushed");
            tier.policies.push(policy.rules(egress).clone());
        }
        tiers
    }

    /// Would enforcing staged policies change anything about this policy?
    fn is_staged(&self, policy: &Policy) -> bool {
        match policy.staged {
            None => self.policies.is_staged_over(policy),
            Some(action) => action == StagedAction::Set,
        }
    }
}
