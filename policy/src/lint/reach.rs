//! Which tiers' policies are ever asked.

use model::{Action, NetworkPolicy, Order, Resource, Tier, TierDefault};

use super::tiers;
use crate::Selector;

/// Where each direction ends, if it ends for everybody.
pub(super) struct Reach {
    tiers: Vec<Tier>,
    ingress: Ends,
    egress: Ends,
}

/// Of one direction.
struct Ends {
    /// Of what starts and ends at endpoints.
    own: Option<End>,
    /// Of what host endpoints forward, where only policies are asked that are said to be about that.
    forwarded: Option<End>,
}

/// A tier that passes nothing on, whose policies are about every endpoint.
struct End {
    tier: Tier,
    /// One of those policies.
    policy: String,
}

impl Reach {
    pub(super) fn of(resources: &[&Resource]) -> Reach {
        let policies: Vec<&NetworkPolicy> = resources
            .iter()
            .filter_map(|resource| match resource {
                Resource::NetworkPolicy(policy) if is_in_force(policy) => Some(policy),
                _ => None,
            })
            .collect();
        let tiers = tiers(resources);
        let on_forward: Vec<&NetworkPolicy> =
            policies.iter().copied().filter(|policy| policy.apply_on_forward).collect();
        let end = |policies: &[&NetworkPolicy], ingress| {
            tiers.iter().find_map(|tier| end_of(tier, policies, ingress))
        };
        let ends = |ingress| Ends { own: end(&policies, ingress), forwarded: end(&on_forward, ingress) };
        Reach { ingress: ends(true), egress: ends(false), tiers }
    }

    /// What is to be said of a policy's tier: the field and the text.
    pub(super) fn findings(&self, policy: &NetworkPolicy) -> Vec<(&'static str, String)> {
        let Some(tier) = self.tiers.iter().find(|tier| tier.name == policy.tier) else {
            let text = format!(
                "there is no Tier {:?} given here: its policies are asked after those of all others; write it down",
                policy.tier
            );
            return vec![("spec.tier", text)];
        };
        if !is_in_force(policy) {
            return Vec::new();
        }
        let never = |applies: bool, ends: &Ends, word: &str| {
            let comes_first = |end: &&End| applies && place(&end.tier) < place(tier);
            let own = ends.own.as_ref().filter(comes_first)?;
            let end =
                if policy.apply_on_forward { ends.forwarded.as_ref().filter(comes_first)? } else { own };
            let text = format!(
                "never asked about {word}: the tier {:?} comes before {:?}, {} in it is about every endpoint, and \
                 none of its rules passes on; give the tier defaultAction Pass, or a rule with action Pass",
                end.tier.name, tier.name, end.policy
            );
            Some(("spec.tier", text))
        };
        let ingress = never(policy.applies_to_ingress, &self.ingress, "ingress");
        let egress = never(policy.applies_to_egress, &self.egress, "egress");
        ingress.into_iter().chain(egress).collect()
    }
}

/// Is it enforced, and with the tiers, rather than before connections are looked at or translated?
fn is_in_force(policy: &NetworkPolicy) -> bool {
    !policy.key.kind.is_staged() && !policy.do_not_track && !policy.pre_dnat
}

fn place(tier: &Tier) -> (Order, &str) {
    (tier.order, &tier.name)
}

fn end_of(tier: &Tier, policies: &[&NetworkPolicy], ingress: bool) -> Option<End> {
    let mut about_all = None;
    for policy in policies.iter().filter(|policy| policy.tier == tier.name) {
        let (applies, rules) = if ingress {
            (policy.applies_to_ingress, &policy.ingress)
        } else {
            (policy.applies_to_egress, &policy.egress)
        };
        if applies && rules.iter().any(|rule| rule.action == Action::Pass) {
            return None;
        }
        if applies && is_about_everybody(policy) {
            about_all = about_all.or(Some(policy));
        }
    }
    let policy = about_all.filter(|_| tier.default_action == TierDefault::Deny)?;
    Some(End { tier: tier.clone(), policy: policy.key.to_string() })
}

fn is_about_everybody(policy: &NetworkPolicy) -> bool {
    policy.key.namespace.is_none()
        && policy.namespace_selector.is_none()
        && policy.service_account_selector.is_none()
        && policy.selector.parse().as_ref() == Ok(&Selector::all())
}
