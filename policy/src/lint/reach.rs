//! Which policies are ever asked: what comes before them may decide about everything, for all that they are about.

use model::{Action, NetworkPolicy, PolicyRule, Resource, Tier, TierDefault};

use super::cover;
use super::people::People;
use super::tiers;
use crate::Selector;
use crate::resolve::compose;
use crate::resolve::order::{Place, TierPlace};

/// The policies that are enforced tier by tier, in the order in which they are asked, and what hides them.
pub(super) struct Reach<'a> {
    tiers: Vec<Tier>,
    policies: Vec<Asked<'a>>,
}

/// A policy in force.
struct Asked<'a> {
    /// Which of the resources.
    resource: usize,
    policy: &'a NetworkPolicy,
    whom: Selector,
    /// Does it ask for labels of namespaces or service accounts?
    inherited: bool,
    ingress: View,
    egress: View,
}

/// How a policy fares in one direction.
#[derive(Default)]
struct View {
    /// By how many it was looked at.
    of: usize,
    /// Somebody's packets may reach it.
    is_reached: bool,
    /// What hides it from the first by whom it was looked at.
    hidden_by: Option<Hider>,
}

/// What no packet gets past.
#[derive(Clone)]
struct Hider {
    /// Which of the policies.
    policy: usize,
    /// The rule that matches everything; else it is the end of the tier.
    rule: Option<(usize, Action)>,
}

impl<'a> Reach<'a> {
    pub(super) fn of(resources: &[&'a Resource], people: &People<'_>) -> Reach<'a> {
        let tiers = tiers(resources);
        let mut policies: Vec<(Place, Asked<'a>)> = Vec::new();
        for (resource, given) in resources.iter().enumerate() {
            let Resource::NetworkPolicy(policy) = given else { continue };
            let Ok(whom) = compose::of_policy(policy) else { continue };
            if is_in_force(policy) {
                let inherited =
                    policy.namespace_selector.is_some() || policy.service_account_selector.is_some();
                let order = tiers.iter().find(|tier| tier.name == policy.tier).map(|tier| tier.order);
                let tier = TierPlace { name: policy.tier.clone(), order };
                let asked = Asked {
                    resource,
                    policy,
                    whom: whom.selector,
                    inherited,
                    ingress: View::default(),
                    egress: View::default(),
                };
                policies.push((Place::new(tier, policy.order, &policy.key), asked));
            }
        }
        policies.sort_by(|(a, _), (b, _)| a.cmp(b));
        let policies = policies.into_iter().map(|(_, asked)| asked).collect();
        let mut reach = Reach { tiers, policies };
        reach.look(people);
        reach
    }

    /// Looks at all policies by everybody given; at those of whom it isn't known whom they select, by somebody who has nothing
    /// but them and what is about everybody.
    fn look(&mut self, people: &People<'_>) {
        let is_known: Vec<bool> = self.policies.iter().map(|one| people.can_tell(one.inherited)).collect();
        for labels in people.endpoints() {
            let has = |(at, one): &(usize, &Asked<'_>)| is_known[*at] && one.whom.matches(labels);
            let asked = self.policies.iter().enumerate().filter(has).map(|(at, _)| at).collect();
            self.walk(asked, None);
        }
        for at in (0..self.policies.len()).filter(|at| !is_known[*at]) {
            let whom = &self.policies[at].whom;
            let has = |one: &Asked<'_>| one.whom == *whom || one.whom == Selector::all();
            let all = self.policies.iter().enumerate().filter(|(_, one)| has(one));
            self.walk(all.map(|(at, _)| at).collect(), Some(at));
        }
    }

    /// Walks the policies that somebody has, and notes which of them (or the one alone) a packet may reach.
    fn walk(&mut self, asked: Vec<usize>, alone: Option<usize>) {
        for ingress in [true, false] {
            // What a host endpoint forwards is asked of policies alone that are said to be about that.
            for forwarded in [false, true] {
                let is_asked = |at: &usize| {
                    let policy = self.policies[*at].policy;
                    let applies = if ingress { policy.applies_to_ingress } else { policy.applies_to_egress };
                    applies && (policy.apply_on_forward || !forwarded)
                };
                let asked: Vec<usize> = asked.iter().copied().filter(is_asked).collect();
                for (at, hider) in self.hiders(&asked, ingress) {
                    if alone.is_some_and(|alone| alone != at) {
                        continue;
                    }
                    let one = &mut self.policies[at];
                    let view = if ingress { &mut one.ingress } else { &mut one.egress };
                    view.of += usize::from(!forwarded);
                    view.is_reached |= hider.is_none();
                    view.hidden_by = view.hidden_by.take().or(hider);
                }
            }
        }
    }

    /// What hides each of these policies, of one direction and in order, if anything does.
    fn hiders(&self, asked: &[usize], ingress: bool) -> Vec<(usize, Option<Hider>)> {
        let mut hiders = Vec::new();
        let mut hidden: Option<Hider> = None;
        for tier in asked.chunk_by(|a, b| self.policies[*a].policy.tier == self.policies[*b].policy.tier) {
            let mut decided = hidden.clone();
            let mut passes_on = false;
            for at in tier {
                hiders.push((*at, decided.clone()));
                let policy = self.policies[*at].policy;
                let rules = if ingress { &policy.ingress } else { &policy.egress };
                let end = rules.iter().position(matches_everything);
                let reached = &rules[..end.map_or(rules.len(), |end| end + 1)];
                if decided.is_none() {
                    passes_on |= reached.iter().any(|rule| rule.action == Action::Pass);
                    decided = end.map(|end| Hider { policy: *at, rule: Some((end, rules[end].action)) });
                }
            }
            let name = &self.policies[tier[0]].policy.tier;
            let default = self.tiers.iter().find(|tier| tier.name == *name).map(|tier| tier.default_action);
            passes_on |= decided.is_none() && default == Some(TierDefault::Pass);
            if !passes_on {
                hidden = hidden.or(decided).or(Some(Hider { policy: tier[0], rule: None }));
            }
        }
        hiders
    }

    /// What is to be said of a policy: the field and the text.
    pub(super) fn findings(&self, resource: usize, policy: &NetworkPolicy) -> Vec<(&'static str, String)> {
        if !self.tiers.iter().any(|tier| tier.name == policy.tier) {
            let text = format!(
                "there is no Tier {:?} given here: its policies are asked after those of all others; write it down",
                policy.tier
            );
            return vec![("spec.tier", text)];
        }
        let Some(asked) = self.policies.iter().find(|asked| asked.resource == resource) else {
            return Vec::new();
        };
        [("ingress", &asked.ingress), ("egress", &asked.egress)]
            .into_iter()
            .filter_map(|(word, view)| {
                let hider = view.hidden_by.as_ref().filter(|_| !view.is_reached)?;
                Some(self.finding(policy, word, view.of, hider))
            })
            .collect()
    }

    fn finding(
        &self,
        policy: &NetworkPolicy,
        word: &str,
        of: usize,
        hider: &Hider,
    ) -> (&'static str, String) {
        let before = self.policies[hider.policy].policy;
        let (key, tier) = (&before.key, &before.tier);
        let whom = match of {
            0 | 1 => String::new(),
            of => format!(", as for all {of} that it is about"),
        };
        match hider.rule {
            Some((rule, action)) if before.tier == policy.tier => {
                let text = format!(
                    "never asked about {word}: spec.{word}[{rule}] ({action}) of {key} comes before it and matches \
                     everything{whom}; give this policy a lower order, or narrow that one"
                );
                ("spec.order", text)
            }
            Some((rule, action)) => {
                let text = format!(
                    "never asked about {word}: spec.{word}[{rule}] ({action}) of {key} in the tier {tier:?}, which comes \
                     before {:?}, matches everything{whom}; let a rule before it have action Pass, or narrow that one",
                    policy.tier
                );
                ("spec.tier", text)
            }
            None => {
                let text = format!(
                    "never asked about {word}: the tier {tier:?} comes before {:?}, {key} in it is asked of all that \
                     this policy is about, and none of its rules passes on; give the tier defaultAction Pass, or a \
                     rule with action Pass",
                    policy.tier
                );
                ("spec.tier", text)
            }
        }
    }
}

/// Is it enforced, and with the tiers, rather than before connections are looked at or translated?
fn is_in_force(policy: &NetworkPolicy) -> bool {
    !policy.key.kind.is_staged() && !policy.do_not_track && !policy.pre_dnat
}

fn matches_everything(rule: &PolicyRule) -> bool {
    cover::covers(rule, &PolicyRule::any(Action::Allow))
}
