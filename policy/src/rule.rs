//! Policy as it is judged by: rules whose selectors have become sets of addresses.
//!
//! Felix's protocol to its dataplanes has the same nouns (`felix/proto/felixbackend.proto`).

use std::sync::Arc;

use model::{Family, Prefix};

pub use model::{Action, IcmpMatch, PortRange, TierDefault};

/// A set of addresses, or of addresses with ports, that many rules may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// What is asked of one end of a packet. An empty list asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndMatch {
    /// In one of these networks.
    pub nets: Vec<Prefix>,
    /// In none of these networks.
    pub not_nets: Vec<Prefix>,
    /// In every one of these sets.
    pub sets: Vec<SetId>,
    /// In none of these sets.
    pub not_sets: Vec<SetId>,
    /// At one of these ports, or in one of `named_ports`.
    pub ports: Vec<PortRange>,
    /// With protocol and port in one of these sets, or at one of `ports`.
    pub named_ports: Vec<SetId>,
    /// At none of these ports.
    pub not_ports: Vec<PortRange>,
    /// With protocol and port in none of these sets.
    pub not_named_ports: Vec<SetId>,
}

/// One rule: everything that it asks must be so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What becomes of what it matches.
    pub action: Action,
    /// Packets of this family.
    pub family: Option<Family>,
    /// Of this protocol.
    pub protocol: Option<u8>,
    /// Not of this protocol.
    pub not_protocol: Option<u8>,
    /// ICMP messages of this kind.
    pub icmp: Option<IcmpMatch>,
    /// No ICMP messages of this kind.
    pub not_icmp: Option<IcmpMatch>,
    /// From here.
    pub source: EndMatch,
    /// To there.
    pub destination: EndMatch,
}

impl Rule {
    /// A rule that matches every packet.
    pub fn any(action: Action) -> Rule {
        Rule {
            action,
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: EndMatch::default(),
            destination: EndMatch::default(),
        }
    }

    /// A rule that matches no packet: it keeps the place of one that can't match, so that rules have the numbers that
    /// their policy gives them.
    pub fn never(action: Action) -> Rule {
        let nowhere =
            EndMatch { not_nets: vec![Prefix::DEFAULT_V4, Prefix::DEFAULT_V6], ..EndMatch::default() };
        Rule { source: nowhere, ..Rule::any(action) }
    }
}

/// A policy, as far as one direction is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Its name, with the namespace before a slash where it has one.
    pub name: String,
    /// In order.
    pub rules: Vec<Rule>,
}

/// A tier's policies for one endpoint and direction, in order. One without policies asks and decides nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// In order; shared with all endpoints that they apply to.
    pub policies: Vec<Arc<Policy>>,
    /// What becomes of what none of them decides.
    pub default: TierDefault,
}

/// What is asked after the tiers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AfterTiers {
    /// The endpoint's profiles, in order; what none of them allows is dropped.
    Profiles(Vec<Arc<Policy>>),
    /// Nothing: these tiers have no opinion, as those of untracked and pre-DNAT policy have it.
    NoMatch,
}

/// All that is asked of packets of one direction at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checks {
    /// In order.
    pub tiers: Vec<Tier>,
    /// What is asked then.
    pub after: AfterTiers,
}

impl Checks {
    /// Is every packet allowed by the first rule that is asked? So it is at an endpoint without policies whose first profile
    /// is `projectcalico-default-allow`.
    pub fn allow_everything(&self) -> bool {
        let profiles = match &self.after {
            AfterTiers::Profiles(profiles) => profiles.as_slice(),
            AfterTiers::NoMatch => &[],
        };
        // Once a tier has policies, its default comes before the next tier's.
        let tier =
            self.tiers.iter().map(|tier| tier.policies.as_slice()).find(|policies| !policies.is_empty());
        let mut rules = tier.unwrap_or(profiles).iter().flat_map(|policy| &policy.rules);
        rules.next().is_some_and(|first| *first == Rule::any(Action::Allow))
    }

    /// The same with other names for its sets.
    pub fn renamed(&self, name: &mut impl FnMut(SetId) -> SetId) -> Checks {
        let mut renamed = self.clone();
        let profiles = match &mut renamed.after {
            AfterTiers::Profiles(profiles) => profiles.as_mut_slice(),
            AfterTiers::NoMatch => &mut [],
        };
        let policies = renamed.tiers.iter_mut().flat_map(|tier| &mut tier.policies).chain(profiles);
        for rule in policies.flat_map(|policy| &mut Arc::make_mut(policy).rules) {
            for end in [&mut rule.source, &mut rule.destination] {
                let lists =
                    [&mut end.sets, &mut end.not_sets, &mut end.named_ports, &mut end.not_named_ports];
                lists.into_iter().flatten().for_each(|set| *set = name(*set));
            }
        }
        renamed
    }

    /// The sets that its rules name, some more than once.
    pub fn sets(&self) -> impl Iterator<Item = SetId> {
        let profiles = match &self.after {
            AfterTiers::Profiles(profiles) => profiles.as_slice(),
            AfterTiers::NoMatch => &[],
        };
        let policies = self.tiers.iter().flat_map(|tier| &tier.policies).chain(profiles);
        let ends =
            policies.flat_map(|policy| &policy.rules).flat_map(|rule| [&rule.source, &rule.destination]);
        let lists = ends.flat_map(|end| [&end.sets, &end.not_sets, &end.named_ports, &end.not_named_ports]);
        lists.flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy<const N: usize>(rules: [&Rule; N]) -> Arc<Policy> {
        let rules = rules.into_iter().cloned().collect();
        Arc::new(Policy { name: "p".to_owned(), rules })
    }

    #[test]
    fn everything_is_allowed_where_the_first_rule_asked_says_so() {
        let (all, none) = (Rule::any(Action::Allow), Rule::any(Action::Deny));
        let tcp = Rule { protocol: Some(6), ..all.clone() };
        let tier =
            |policies: Vec<Arc<Policy>>| Tier { name: "t".to_owned(), policies, default: TierDefault::Pass };
        for (tiers, profiles, free) in [
            (vec![], vec![], false),
            (vec![], vec![policy([&all, &none])], true),
            (vec![], vec![policy([]), policy([&all])], true),
            (vec![], vec![policy([&tcp, &all])], false),
            (vec![], vec![policy([&Rule::any(Action::Log), &all])], false),
            (vec![tier(vec![])], vec![policy([&all])], true),
            (vec![tier(vec![policy([])])], vec![policy([&all])], false),
            (vec![tier(vec![policy([&all])])], vec![policy([&none])], true),
            (vec![tier(vec![policy([&Rule::any(Action::Pass)])])], vec![policy([&all])], false),
        ] {
            let checks = Checks { tiers, after: AfterTiers::Profiles(profiles) };
            assert_eq!(checks.allow_everything(), free, "{checks:?}");
        }
        assert!(!Checks { tiers: vec![], after: AfterTiers::NoMatch }.allow_everything());
    }
}
