//! Rules taken apart: what each asks of every dimension by itself.
//!
//! A rule asks for its ends' addresses and for protocol and ports, and all of it must be so. Only named ports tie the two
//! together: "at port 80, or at what `http` stands for there". Such a rule becomes several, one for each protocol and port
//! that a name stands for anywhere and one for all others; no packet matches two of them.

use std::collections::BTreeSet;

use model::{Family, Prefix};

use super::addresses::Addresses;
use super::atoms::{Atom, AtomId};
use crate::judge::{ICMP, Step};
use crate::rule::{Action, AfterTiers, Checks, EndMatch, IcmpMatch, PortRange, Rule, SetId, TierDefault};

/// Parts of rules that one program has at most: where names stand for many ports, a rule has many.
pub(super) const PARTS_MAX: usize = 1 << 20;

/// What is asked of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct AddressCondition {
    /// In at least one atom of each list; the lists are in order.
    pub(super) all_of: Vec<Vec<AtomId>>,
    /// In none of these.
    pub(super) none_of: Vec<AtomId>,
}

impl AddressCondition {
    /// Does an address that is in these atoms, in order, meet it?
    pub(super) fn holds(&self, atoms: &[AtomId]) -> bool {
        self.all_of.iter().all(|any| atoms.iter().any(|atom| any.binary_search(atom).is_ok()))
            && !self.none_of.iter().any(|atom| atoms.binary_search(atom).is_ok())
    }

    /// The atoms that it asks for.
    pub(super) fn atoms(&self) -> impl Iterator<Item = AtomId> + '_ {
        self.all_of.iter().flatten().chain(&self.none_of).copied()
    }

    /// Does it ask for nothing?
    pub(super) fn is_any(&self) -> bool {
        self.all_of.is_empty() && self.none_of.is_empty()
    }
}

/// What is asked of the port of one end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PortCondition {
    /// One of these; any, or none at all, where the list is empty.
    pub(super) ports: Vec<PortRange>,
    /// None of these.
    pub(super) not_ports: Vec<PortRange>,
    /// This protocol and port.
    pub(super) only: Option<(u8, u16)>,
    /// None of these protocols with their port.
    pub(super) not_pairs: Vec<(u8, u16)>,
}

impl PortCondition {
    /// Is it met by a packet that shows no port?
    pub(super) fn holds_without(&self) -> bool {
        self.ports.is_empty() && self.only.is_none()
    }
}

/// What is asked of a packet besides addresses and source port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct UpperCondition {
    pub(super) family: Option<Family>,
    pub(super) protocol: Option<u8>,
    pub(super) not_protocol: Option<u8>,
    pub(super) icmp: Option<IcmpMatch>,
    pub(super) not_icmp: Option<IcmpMatch>,
    /// Of the destination port.
    pub(super) port: PortCondition,
}

impl UpperCondition {
    /// Are family and protocol as it wants them?
    pub(super) fn admits(&self, family: Family, protocol: u8) -> bool {
        self.family.is_none_or(|wanted| wanted == family)
            && self.protocol.is_none_or(|wanted| wanted == protocol)
            && self.not_protocol != Some(protocol)
            && (self.icmp.is_none() || ICMP.contains(&protocol))
    }
}

/// A rule, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The number of its rule among the program's steps.
    pub(super) step: u32,
    pub(super) action: Action,
    pub(super) source: AddressCondition,
    pub(super) destination: AddressCondition,
    pub(super) source_port: PortCondition,
    pub(super) upper: UpperCondition,
}

/// Rules that are asked together: a tier's, or the profiles'.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) parts: Vec<Part>,
    /// What holds where no rule decides; `None` asks the next group.
    pub(super) otherwise: Option<crate::judge::Verdict>,
    /// The step that this is.
    pub(super) step: u32,
}

/// All steps that a judgement by these checks can end at, in their order.
pub(super) fn steps(checks: &Checks) -> Vec<Step> {
    let mut steps = Vec::new();
    for (tier, one) in checks.tiers.iter().enumerate().filter(|(_, tier)| !tier.policies.is_empty()) {
        for (policy, one) in one.policies.iter().enumerate() {
            let rules = one.rules.iter().enumerate();
            steps.extend(rules.map(|(rule, one)| Step::Rule { tier, policy, rule, action: one.action }));
        }
        steps.push(Step::TierDefault { tier, default: one.default });
    }
    match &checks.after {
        AfterTiers::NoMatch => steps.push(Step::NoMatch),
        AfterTiers::Profiles(profiles) => {
            for (profile, one) in profiles.iter().enumerate() {
                let rules = one.rules.iter().enumerate();
                steps.extend(rules.map(|(rule, one)| Step::Profile { profile, rule, action: one.action }));
            }
            steps.push(Step::NoProfile);
        }
    }
    steps
}

/// All rules of some checks that a packet can match.
pub(super) fn rules(checks: &Checks) -> impl Iterator<Item = &Rule> {
    let profiles = match &checks.after {
        AfterTiers::Profiles(profiles) => profiles.as_slice(),
        AfterTiers::NoMatch => &[],
    };
    let policies = checks.tiers.iter().flat_map(|tier| &tier.policies).chain(profiles);
    policies.flat_map(|policy| &policy.rules).filter(|rule| !is_never(rule))
}

/// Does it keep a place that no packet comes to ([`Rule::never`])?
fn is_never(rule: &Rule) -> bool {
    let nowhere = |end: &EndMatch| {
        [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6].iter().all(|all| end.not_nets.contains(all))
    };
    nowhere(&rule.source) || nowhere(&rule.destination)
}

/// Takes checks apart by the steps that they have; `None` where that makes more than [`PARTS_MAX`] parts.
pub(super) fn groups(checks: &Checks, steps: &[Step], addresses: &Addresses) -> Option<Vec<Group>> {
    use crate::judge::Verdict;
    let mut groups = Vec::new();
    let (mut parts, mut count) = (Vec::new(), 0);
    for (number, step) in (0..).zip(steps) {
        let (rule, action) = match *step {
            Step::Rule { tier, policy, rule, action } => {
                (&checks.tiers[tier].policies[policy].rules[rule], action)
            }
            Step::Profile { profile, rule, action } => {
                let AfterTiers::Profiles(profiles) = &checks.after else { continue };
                // There is nothing to pass on to.
                let action = if action == Action::Pass { Action::Deny } else { action };
                (&profiles[profile].rules[rule], action)
            }
            Step::TierDefault { default, .. } => {
                let otherwise = (default == TierDefault::Deny).then_some(Verdict::Deny);
                groups.push(Group { parts: std::mem::take(&mut parts), otherwise, step: number });
                continue;
            }
            Step::NoProfile | Step::NoMatch => {
                let verdict = if *step == Step::NoMatch { Verdict::NoMatch } else { Verdict::Deny };
                let parts = std::mem::take(&mut parts);
                groups.push(Group { parts, otherwise: Some(verdict), step: number });
                continue;
            }
        };
        let before = parts.len();
        take_apart(rule, number, action, addresses, &mut parts);
        count += parts.len() - before;
        if count > PARTS_MAX {
            return None;
        }
    }
    Some(groups)
}

fn take_apart(rule: &Rule, step: u32, action: Action, addresses: &Addresses, parts: &mut Vec<Part>) {
    if is_never(rule) {
        return;
    }
    let sources = ends(&rule.source, addresses);
    let destinations = ends(&rule.destination, addresses);
    for (source, source_port) in &sources {
        for (destination, port) in &destinations {
            let upper = UpperCondition {
                family: rule.family,
                protocol: rule.protocol,
                not_protocol: rule.not_protocol,
                icmp: rule.icmp,
                not_icmp: rule.not_icmp,
                port: port.clone(),
            };
            let [source, destination] = [source, destination].map(Clone::clone);
            parts.push(Part { step, action, source, destination, source_port: source_port.clone(), upper });
            if parts.len() > PARTS_MAX {
                return;
            }
        }
    }
}

/// What an end asks of address and port, in as many ways as there are.
fn ends(end: &EndMatch, addresses: &Addresses) -> Vec<(AddressCondition, PortCondition)> {
    let atoms = |atoms: &mut dyn Iterator<Item = Atom>| {
        let mut found: Vec<AtomId> = atoms.filter_map(|atom| addresses.atoms.find(atom)).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let nets = |nets: &[Prefix]| atoms(&mut nets.iter().copied().map(Atom::Net));
    let mut address = AddressCondition::default();
    if !end.nets.is_empty() {
        address.all_of.push(nets(&end.nets));
    }
    address.all_of.extend(end.sets.iter().map(|set| atoms(&mut [Atom::Set(*set)].into_iter())));
    address.all_of.sort_unstable();
    address.all_of.dedup();
    address.none_of = nets(&end.not_nets);
    address.none_of.extend(atoms(&mut end.not_sets.iter().copied().map(Atom::Set)));
    address.none_of.sort_unstable();
    address.none_of.dedup();

    let named = || end.named_ports.iter().chain(&end.not_named_ports);
    let pairs: BTreeSet<(u8, u16)> = named().flat_map(|set| addresses.ports(*set)).collect();
    let mut ways = Vec::new();
    // Named ports alone are asked for: away from what the names stand for there is no way.
    if !end.ports.is_empty() || end.named_ports.is_empty() {
        let port = PortCondition {
            ports: end.ports.clone(),
            not_ports: end.not_ports.clone(),
            only: None,
            not_pairs: pairs.iter().copied().collect(),
        };
        ways.push((address.clone(), port));
    }
    for (protocol, port) in pairs {
        if end.not_ports.iter().any(|range| range.contains(port)) {
            continue;
        }
        let there = |sets: &[SetId]| {
            let mut all = sets.iter().map(|set| Atom::Port(*set, protocol, port));
            atoms(&mut all)
        };
        let mut address = address.clone();
        let asks = !end.ports.is_empty() || !end.named_ports.is_empty();
        if asks && !end.ports.iter().any(|range| range.contains(port)) {
            let any = there(&end.named_ports);
            if any.is_empty() {
                continue;
            }
            address.all_of.push(any);
        }
        address.none_of.extend(there(&end.not_named_ports));
        address.none_of.sort_unstable();
        address.none_of.dedup();
        ways.push((address, PortCondition { only: Some((protocol, port)), ..PortCondition::default() }));
    }
    ways
}
