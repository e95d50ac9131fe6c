//! What workloads may send and get, and what host endpoints' ports may forward: resolved policy, handed to the walk's tables.
//!
//! What doesn't fit the tables closes the endpoints that it is about, until it fits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::Key;
use policy::resolve::{Changes, EndpointPolicy, Resolver, SetDelta};
use policy::rule::{AfterTiers, Checks, SetId};
use tables::{TableFull, Writer};
use tracing::{error, info, warn};

/// The name under which the checks that deny everything are kept in the tables: no endpoint is called so.
const CLOSED: &str = "";

/// Policy of this node's workloads, as the tables have it.
#[derive(Debug, Default)]
pub(crate) struct WorkloadPolicy {
    /// What each workload is to be asked.
    wanted: BTreeMap<Key, Arc<EndpointPolicy>>,
    /// Workloads that are asked checks that deny everything instead.
    closed: BTreeSet<Key>,
    /// Sets whose members the tables had no room for.
    overflowing: BTreeSet<SetId>,
    /// What denies everything. In the tables from the first policy on, so that there is always room for it.
    deny: Option<tables::EndpointPolicy>,
    /// What goes once no port needs it any more.
    leaving: Leaving,
}

/// What is to be asked of one direction of a workload.
pub(crate) struct Asked<'a> {
    /// As the tables call it.
    pub(crate) endpoint: String,
    pub(crate) is_ingress: bool,
    /// If staged policies were enforced?
    pub(crate) is_staged: bool,
    pub(crate) checks: &'a Checks,
}

#[derive(Debug, Default)]
struct Leaving {
    workloads: BTreeSet<String>,
    sets: BTreeSet<SetId>,
}

impl WorkloadPolicy {
    /// Stages what is new and what has changed; `true` where there was any. Before ports are brought into line with the
    /// resources, so that none is open without its policy.
    pub(crate) fn come(&mut self, changes: Changes, resolver: &Resolver, writer: &mut Writer) -> bool {
        if changes.is_empty() {
            return false;
        }
        self.leaving.sets.extend(&changes.sets.removed);
        let closed = std::mem::take(&mut self.closed);
        let mut affected = closed.clone();
        let before = std::mem::take(&mut self.overflowing);
        for id in changes.sets.added.keys() {
            // A number may be given again.
            self.leaving.sets.remove(id);
            self.fill(*id, writer.put_set(*id, []));
        }
        for (id, SetDelta { added, removed }) in &changes.sets.members {
            if !before.contains(id) {
                self.fill(*id, writer.update_set(*id, removed, added));
            }
        }
        // There may be room for them by now.
        for id in before.difference(&changes.sets.removed) {
            self.fill(*id, writer.put_set(*id, resolver.set(*id)));
        }
        for (key, policy) in changes.endpoints {
            let Some(name) = name(&key) else { continue };
            // What the kernel alone is asked to keep is none of the walk's.
            let nothing = tables::EndpointPolicy::default();
            let policy = policy
                .filter(|policy| !matches!(key, Key::HostEndpoint(_)) || asked_of(&key, policy) != nothing);
            if policy.is_none() && !self.wanted.contains_key(&key) {
                continue;
            }
            match policy {
                Some(policy) => {
                    self.leaving.workloads.remove(&name);
                    self.wanted.insert(key.clone(), policy);
                    affected.insert(key);
                }
                None => {
                    self.wanted.remove(&key);
                    affected.remove(&key);
                    self.leaving.workloads.insert(name);
                }
            }
        }
        if !self.overflowing.is_empty() {
            let without = self.wanted.iter().filter(|(key, policy)| refers(key, policy, &self.overflowing));
            affected.extend(without.map(|(key, _)| key.clone()));
        }
        for key in affected {
            let Err(reason) = self.put(&key, writer) else { continue };
            if !closed.contains(&key) {
                warn!("{key} is closed, as its policy doesn't fit the tables: {reason}");
            }
            self.closed.insert(key);
        }
        for key in closed.difference(&self.closed).filter(|key| self.wanted.contains_key(*key)) {
            info!("the policy of {key} fits the tables again");
        }
        true
    }

    /// Stages the removal of what no port needs any more; `true` where there was any. After ports are in line with the
    /// resources.
    pub(crate) fn go(&mut self, writer: &mut Writer) -> bool {
        let Leaving { workloads, sets } = std::mem::take(&mut self.leaving);
        workloads.iter().for_each(|name| writer.remove_policy(name));
        sets.iter().for_each(|set| writer.remove_set(*set));
        !workloads.is_empty() || !sets.is_empty()
    }

    /// What is to be asked of workloads, by their names; not of those that are allowed everything.
    pub(crate) fn asked(&self) -> impl Iterator<Item = Asked<'_>> {
        self.wanted.iter().filter_map(|(key, policy)| Some((key, name(key)?, policy))).flat_map(
            |(key, endpoint, policy)| {
                let EndpointPolicy { normal, staged, untracked, pre_dnat, forward } = &**policy;
                // In the order in which they are asked.
                let sides = match key {
                    Key::HostEndpoint(_) => [
                        (true, false, untracked.ingress.as_ref()),
                        (true, false, pre_dnat.as_ref()),
                        (true, false, forward.ingress.as_ref()),
                        (false, false, forward.egress.as_ref()),
                    ],
                    _ => [
                        (true, false, unless_free(normal.ingress.as_ref())),
                        (false, false, unless_free(normal.egress.as_ref())),
                        (true, true, staged.ingress.as_ref()),
                        (false, true, staged.egress.as_ref()),
                    ],
                };
                sides.into_iter().filter_map(move |(is_ingress, is_staged, checks)| {
                    Some(Asked { endpoint: endpoint.clone(), is_ingress, is_staged, checks: &**checks? })
                })
            },
        )
    }

    /// Workloads that are asked what denies everything instead, by name.
    pub(crate) fn closed(&self) -> impl Iterator<Item = String> {
        self.closed.iter().filter_map(name)
    }

    /// Stages what a workload is asked; denial of everything, and why, where that doesn't fit.
    fn put(&mut self, key: &Key, writer: &mut Writer) -> Result<(), String> {
        let (Some(policy), Some(name)) = (self.wanted.get(key), name(key)) else { return Ok(()) };
        let deny = self.deny.get_or_insert_with(|| {
            let deny = deny();
            if let Err(full) = writer.put_policy(CLOSED, &deny) {
                error!("{full}; there is no room even to deny: raise the limits of policy");
            }
            deny
        });
        let asked = asked_of(key, policy);
        let outcome = if refers(key, policy, &self.overflowing) {
            Err("a set of addresses has more members than limits.policy_members leaves room for".to_owned())
        } else {
            writer.put_policy(&name, &asked).map_err(|full| full.to_string())
        };
        if outcome.is_err()
            && let Err(full) = writer.put_policy(&name, deny)
        {
            error!("{key} can't even be closed: {full}");
        }
        outcome
    }

    fn fill(&mut self, id: SetId, outcome: Result<(), TableFull>) {
        if outcome.is_err() {
            self.overflowing.insert(id);
        }
    }
}

/// Who is allowed everything need not be asked, nor their flows remembered: that is a look-up a packet.
fn unless_free(checks: Option<&Arc<Checks>>) -> Option<&Arc<Checks>> {
    checks.filter(|checks| !checks.allow_everything())
}

/// How the tables call an endpoint.
fn name(key: &Key) -> Option<String> {
    match key {
        Key::WorkloadEndpoint(namespace, name) => Some(format!("{namespace}/{name}")),
        Key::HostEndpoint(name) => Some(host_name(name)),
        _ => None,
    }
}

/// How the tables call a host endpoint: no workload's name begins so.
pub(crate) fn host_name(name: &str) -> String {
    format!("HostEndpoint({name})")
}

/// What the walk asks at an endpoint. At a host's, of what is forwarded: the rest is the kernel's.
fn asked_of(key: &Key, policy: &EndpointPolicy) -> tables::EndpointPolicy {
    match key {
        Key::HostEndpoint(_) => tables::EndpointPolicy {
            ingress: policy.forward.ingress.clone(),
            egress: policy.forward.egress.clone(),
            pre_dnat: policy.pre_dnat.clone(),
            untracked: policy.untracked.ingress.clone(),
            ..tables::EndpointPolicy::default()
        },
        _ => tables::EndpointPolicy {
            ingress: unless_free(policy.normal.ingress.as_ref()).cloned(),
            egress: unless_free(policy.normal.egress.as_ref()).cloned(),
            staged_ingress: policy.staged.ingress.clone(),
            staged_egress: policy.staged.egress.clone(),
            ..tables::EndpointPolicy::default()
        },
    }
}

/// No tier and no profile: nothing is allowed.
fn deny() -> tables::EndpointPolicy {
    let nothing = Arc::new(Checks { tiers: Vec::new(), after: AfterTiers::Profiles(Vec::new()) });
    let both = (Some(nothing.clone()), Some(nothing));
    tables::EndpointPolicy { ingress: both.0, egress: both.1, ..tables::EndpointPolicy::default() }
}

/// Does anything that an endpoint is asked name one of these sets?
fn refers(key: &Key, policy: &EndpointPolicy, sets: &BTreeSet<SetId>) -> bool {
    if sets.is_empty() {
        return false;
    }
    let tables::EndpointPolicy { ingress, egress, staged_ingress, staged_egress, pre_dnat, untracked } =
        asked_of(key, policy);
    [ingress, egress, staged_ingress, staged_egress, pre_dnat, untracked]
        .iter()
        .flatten()
        .any(|checks| checks.sets().any(|set| sets.contains(&set)))
}

#[cfg(test)]
mod tests;
