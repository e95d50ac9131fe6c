//! Which policies are ever asked: what comes before them may decide about everything, for all that they are about.

use std::collections::BTreeMap;

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
    /// Which of the policies a resource is, by the resource's number.
    by_resource: BTreeMap<usize, usize>,
}

/// A policy in force.
struct Asked<'a> {
    policy: &'a NetworkPolicy,
    whom: Selector,
    /// Does it ask for labels of namespaces or service accounts?
    inherited: bool,
    ingress: View,
    egress: View,
}

/// A policy in one direction: what it does by itself, and how it fares among others.
struct View {
    /// The first rule that matches everything.
    end: Option<(usize, Action)>,
    /// Has it a rule with action Pass that is reached?
    passes_on: bool,
    /// By how many it was looked at.
    of: usize,
    /// Somebody's packets may reach it.
    is_reached: bool,
    /// What hides it from the first by whom it was looked at.
    hidden_by: Option<Hider>,
    /// From how many that hides it.
    by_it: usize,
    /// The first other thing that hides it from anybody, or from what is forwarded.
    elsewhere_by: Option<Hider>,
}

/// What no packet gets past.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hider {
    /// Which of the policies.
    policy: usize,
    /// The rule that matches everything; else it is the end of the tier.
    rule: Option<(usize, Action)>,
}

impl View {
    fn of(rules: &[PolicyRule]) -> View {
        let end = rules.iter().position(matches_everything);
        let reached = &rules[..end.map_or(rules.len(), |end| end + 1)];
        View {
            end: end.map(|end| (end, rules[end].action)),
            passes_on: reached.iter().any(|rule| rule.action == Action::Pass),
            of: 0,
            is_reached: false,
            hidden_by: None,
            by_it: 0,
            elsewhere_by: None,
        }
    }

    fn note(&mut self, hider: Option<Hider>, forwarded: bool) {
        self.of += usize::from(!forwarded);
        let Some(hider) = hider else {
            self.is_reached = true;
            return;
        };
        if *self.hidden_by.get_or_insert(hider) == hider {
            self.by_it += usize::from(!forwarded);
        } else {
            self.elsewhere_by.get_or_insert(hider);
        }
    }
}

impl Asked<'_> {
    fn view(&self, ingress: bool) -> &View {
        if ingress { &self.ingress } else { &self.egress }
    }
}

impl<'a> Reach<'a> {
    pub(super) fn of(resources: &[&'a Resource], people: &People<'_>) -> Reach<'a> {
        let tiers = tiers(resources);
        let mut policies: Vec<(Place, usize, Asked<'a>)> = Vec::new();
        for (resource, given) in resources.iter().enumerate() {
            let Resource::NetworkPolicy(policy) = given else { continue };
            let Ok(whom) = compose::of_policy(policy) else { continue };
            if is_in_force(policy) {
                let inherited =
                    policy.namespace_selector.is_some() || policy.service_account_selector.is_some();
                let order = tiers.iter().find(|tier| tier.name == policy.tier).map(|tier| tier.order);
                let tier = TierPlace { name: policy.tier.clone(), order };
                let asked = Asked {
                    policy,
                    whom: whom.selector,
                    inherited,
                    ingress: View::of(&policy.ingress),
                    egress: View::of(&policy.egress),
                };
                policies.push((Place::new(tier, policy.order, &policy.key), resource, asked));
            }
        }
        policies.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let by_resource = policies.iter().enumerate().map(|(at, (_, resource, _))| (*resource, at)).collect();
        let policies = policies.into_iter().map(|(.., asked)| asked).collect();
        let mut reach = Reach { tiers, policies, by_resource };
        reach.look(people);
        reach
    }

    /// Looks at all policies by everybody given; at those of whom it isn't known whom they select, by somebody who has nothing
    /// but them and what is about everybody.
    fn look(&mut self, people: &People<'_>) {
        let is_known: Vec<bool> = self.policies.iter().map(|one| people.can_tell(one.inherited)).collect();
        // Those that may pass a packet on, if anybody whom others are about has them, too.
        let passing = |one: &Asked<'_>| one.ingress.passes_on || one.egress.passes_on;
        let passing: Vec<usize> =
            (0..self.policies.len()).filter(|at| passing(&self.policies[*at])).collect();
        let unknown_passing: Vec<usize> = passing.iter().copied().filter(|at| !is_known[*at]).collect();
        for labels in people.endpoints() {
            let has = |(at, one): &(usize, &Asked<'_>)| is_known[*at] && one.whom.matches(labels);
            let asked: Vec<usize> = self.policies.iter().enumerate().filter(has).map(|(at, _)| at).collect();
            self.walk(&asked, &asked, &unknown_passing);
        }
        // Policies about the same are looked at together: there may be ten thousand about everybody.
        let mut about: BTreeMap<Selector, Vec<usize>> = BTreeMap::new();
        for (at, one) in self.policies.iter().enumerate() {
            about.entry(one.whom.clone()).or_default().push(at);
        }
        let about_all = about.get(&Selector::all()).cloned().unwrap_or_default();
        for (whom, theirs) in about {
            let unknown: Vec<usize> = theirs.iter().copied().filter(|at| !is_known[*at]).collect();
            if unknown.is_empty() {
                continue;
            }
            let mut asked = theirs;
            if whom != Selector::all() {
                asked.extend(&about_all);
                asked.sort_unstable();
            }
            self.walk(&asked, &unknown, &passing);
        }
    }

    /// Walks the policies that somebody has, and notes of some of them whether a packet may reach them. `maybe`: those that may
    /// pass packets on, where they are asked as well. All lists are in order.
    fn walk(&mut self, asked: &[usize], noted: &[usize], maybe: &[usize]) {
        for ingress in [true, false] {
            // What a host endpoint forwards is asked of policies alone that are said to be about that.
            for forwarded in [false, true] {
                let is_asked = |at: &usize| {
                    let policy = self.policies[*at].policy;
                    let applies = if ingress { policy.applies_to_ingress } else { policy.applies_to_egress };
                    applies && (policy.apply_on_forward || !forwarded)
                };
                let asked: Vec<usize> = asked.iter().copied().filter(is_asked).collect();
                let passes_on = |at: &usize| is_asked(at) && self.policies[*at].view(ingress).passes_on;
                let maybe: Vec<usize> = maybe.iter().copied().filter(passes_on).collect();
                let mut noted = noted.iter().copied().peekable();
                for (at, hider) in self.hiders(&asked, &maybe, ingress) {
                    while noted.next_if(|other| *other < at).is_some() {}
                    if noted.peek() == Some(&at) {
                        let one = &mut self.policies[at];
                        let view = if ingress { &mut one.ingress } else { &mut one.egress };
                        view.note(hider, forwarded);
                    }
                }
            }
        }
    }

    /// What hides each of these policies, of one direction and in order, if anything does.
    fn hiders(&self, asked: &[usize], maybe: &[usize], ingress: bool) -> Vec<(usize, Option<Hider>)> {
        let mut hiders = Vec::with_capacity(asked.len());
        let mut hidden: Option<Hider> = None;
        for tier in asked.chunk_by(|a, b| self.policies[*a].policy.tier == self.policies[*b].policy.tier) {
            let mut decided = hidden;
            let mut passes_on = false;
            for at in tier {
                hiders.push((*at, decided));
                if decided.is_none() {
                    let view = self.policies[*at].view(ingress);
                    passes_on |= view.passes_on;
                    decided = view.end.map(|end| Hider { policy: *at, rule: Some(end) });
                }
            }
            let name = &self.policies[tier[0]].policy.tier;
            let default = self.tiers.iter().find(|tier| tier.name == *name).map(|tier| tier.default_action);
            passes_on |= decided.is_none() && default == Some(TierDefault::Pass);
            let until = decided.map_or(usize::MAX, |decided| decided.policy);
            passes_on |= maybe.iter().any(|at| *at < until && self.policies[*at].policy.tier == *name);
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
        let Some(asked) = self.by_resource.get(&resource).map(|at| &self.policies[*at]) else {
            return Vec::new();
        };
        [("ingress", &asked.ingress), ("egress", &asked.egress)]
            .into_iter()
            .filter_map(|(word, view)| {
                let hider = view.hidden_by.as_ref().filter(|_| !view.is_reached)?;
                Some(self.finding(policy, word, view, *hider))
            })
            .collect()
    }

    fn called(&self, word: &str, hider: Hider) -> String {
        let policy = self.policies[hider.policy].policy;
        match hider.rule {
            Some((rule, _)) => format!("spec.{word}[{rule}] of {}", policy.key),
            None => format!("the end of the tier {:?}", policy.tier),
        }
    }

    fn finding(
        &self,
        policy: &NetworkPolicy,
        word: &str,
        view: &View,
        hider: Hider,
    ) -> (&'static str, String) {
        let before = self.policies[hider.policy].policy;
        let (key, tier) = (&before.key, &before.tier);
        let whom = match (view.of, view.elsewhere_by) {
            (0 | 1, None) => String::new(),
            (of, None) => format!(", as for all {of} that it is about"),
            (of, Some(other)) if view.by_it < of => {
                let others = self.called(word, other);
                format!(
                    ", as for {} of the {of} that it is about (from others {others} hides it)",
                    view.by_it
                )
            }
            (_, Some(other)) => format!(" (from what is forwarded {} hides it)", self.called(word, other)),
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
