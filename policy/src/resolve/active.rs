//! Rules in force: a policy's or profile's, as long as an endpoint of this node needs them.

use std::sync::Arc;

use model::{Action, PolicyRule};

use super::membership::Membership;
use super::rules::{self, Draft};
use crate::rule::{Policy, Rule, SetId};
use crate::selector::SelectorError;

/// The rules of both directions, as text became them: they refer to no set yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Drafts {
    ingress: Vec<Draft>,
    egress: Vec<Draft>,
}

impl Drafts {
    /// Beside the drafts, what was left out of selectors.
    pub(super) fn of(
        ingress: &[PolicyRule],
        egress: &[PolicyRule],
        namespace: Option<&str>,
    ) -> Result<(Drafts, Vec<SelectorError>), SelectorError> {
        let (ingress, egress) = (rules::drafts(ingress, namespace)?, rules::drafts(egress, namespace)?);
        let left_out = ingress.left_out.into_iter().chain(egress.left_out).collect();
        Ok((Drafts { ingress: ingress.selector, egress: egress.selector }, left_out))
    }

    /// What stands in for a profile that isn't there: nothing is allowed (`DummyDropRules`).
    pub(super) fn deny() -> Drafts {
        let deny =
            rules::drafts(&[PolicyRule::any(Action::Deny)], None).expect("it has no selector").selector;
        Drafts { ingress: deny.clone(), egress: deny }
    }
}

/// Rules in force, and the sets that they refer to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) ingress: Arc<Policy>,
    pub(super) egress: Arc<Policy>,
    sets: Vec<SetId>,
}

impl Active {
    pub(super) fn new(name: &str, drafts: &Drafts, membership: &mut Membership) -> Active {
        let mut sets = Vec::new();
        let mut policy = |drafts: &[Draft]| {
            let rules: Vec<Rule> = (drafts.iter())
                .map(|draft| {
                    draft.with_sets(&mut |spec| {
                        let id = membership.acquire(spec);
                        sets.push(id);
                        id
                    })
                })
                .collect();
            Arc::new(Policy { name: name.to_owned(), rules })
        };
        let (ingress, egress) = (policy(&drafts.ingress), policy(&drafts.egress));
        Active { ingress, egress, sets }
    }

    /// No longer in force.
    pub(super) fn retire(self, membership: &mut Membership) {
        self.sets.into_iter().for_each(|set| membership.release(set));
    }

    /// In force with other rules; says whether they differ. Sets that both refer to stay as they are.
    pub(super) fn replace(&mut self, drafts: &Drafts, membership: &mut Membership) -> bool {
        let new = Active::new(&self.ingress.name, drafts, membership);
        let old = std::mem::replace(self, new);
        // What is equal stays the same in memory, too, and compares quickly.
        let differs =
            [(&old.ingress, &mut self.ingress), (&old.egress, &mut self.egress)].map(|(old, new)| {
                let differs = old != new;
                if !differs {
                    *new = old.clone();
                }
                differs
            });
        old.retire(membership);
        differs.contains(&true)
    }
}
