//! What a node announces: its blocks whole, its services' networks, and what lies in pools; nothing else.
//!
//! Calico's `calico_export_to_bgp_peers` with its aggregation (`bird_ipam.cfg`, `bird_aggr.cfg`), in its order:
//!
//! 1. Pools that aren't to be exported are kept back, blocks of ours in them too.
//! 2. What is announced from here on gets the communities of its networks.
//! 3. A block of ours is announced whole. What is inside it needs no announcement of its own, unless it is of more than
//!    normal priority: a workload that has moved to another node.
//! 4. The networks of services; on a route reflector also those that only single nodes announce.
//! 5. What lies in pools, such as a single address out of another node's block (a borrowed one).

use std::collections::BTreeSet;

use model::{IpPool, Prefix, PrefixAdvertisement};

/// What becomes of a route that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportAction {
    /// Announced.
    Accept,
    /// Kept back.
    Reject,
}

/// Which routes a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportReach {
    /// The rule's prefix alone.
    Exactly,
    /// The rule's prefix and all inside it.
    Within,
    /// Of the rule's prefix and all inside it those of more than normal priority.
    Elevated,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportRule {
    /// The prefix.
    pub prefix: Prefix,
    /// It alone, or all inside it too.
    pub reach: ExportReach,
    /// What to do.
    pub action: ExportAction,
}

impl ExportRule {
    /// As much of the rule as is about routes within a network.
    pub fn within(self, network: Prefix) -> Option<ExportRule> {
        match self.reach {
            _ if network.covers(self.prefix) => Some(self),
            ExportReach::Exactly => None,
            _ => self.prefix.covers(network).then_some(ExportRule { prefix: network, ..self }),
        }
    }

    #[cfg(test)]
    fn matches(&self, route: Prefix) -> bool {
        match self.reach {
            ExportReach::Exactly => route == self.prefix,
            ExportReach::Within => self.prefix.covers(route),
            ExportReach::Elevated => false,
        }
    }
}

/// What the rules are made of.
pub(super) struct Exported<'a> {
    /// This node's own blocks.
    pub(super) blocks: &'a BTreeSet<Prefix>,
    /// Networks of services that every node announces, and on a reflector those that it passes on.
    pub(super) services: Vec<Prefix>,
    /// All pools.
    pub(super) pools: Vec<&'a IpPool>,
    /// The networks that are told with communities.
    pub(super) advertisements: Vec<PrefixAdvertisement>,
}

/// The rules in the order they are asked: the first that matches decides, and where none does, `Reject`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ExportRules {
    rules: Vec<ExportRule>,
    advertisements: Vec<PrefixAdvertisement>,
}

impl ExportRules {
    pub(super) fn of(exported: Exported<'_>) -> ExportRules {
        let (mut kept_back, mut announced) = (BTreeSet::new(), BTreeSet::new());
        for pool in exported.pools {
            let pools = if pool.disable_bgp_export { &mut kept_back } else { &mut announced };
            pools.insert(pool.cidr);
        }
        let rule = |reach, action| move |&prefix: &Prefix| ExportRule { prefix, reach, action };
        let of_block = |block: &Prefix| {
            [
                rule(ExportReach::Exactly, ExportAction::Accept)(block),
                rule(ExportReach::Elevated, ExportAction::Accept)(block),
                rule(ExportReach::Within, ExportAction::Reject)(block),
            ]
        };
        let rules = kept_back
            .iter()
            .map(rule(ExportReach::Within, ExportAction::Reject))
            .chain(exported.blocks.iter().flat_map(of_block))
            .chain(exported.services.iter().map(rule(ExportReach::Within, ExportAction::Accept)))
            .chain(announced.iter().map(rule(ExportReach::Within, ExportAction::Accept)))
            .collect();
        ExportRules { rules, advertisements: exported.advertisements }
    }

    /// In the order they are asked; behind the last one everything is rejected.
    pub fn rules(&self) -> &[ExportRule] {
        &self.rules
    }

    /// The networks whose routes get communities where a rule accepts them. A route gets those of every network that it
    /// is in.
    pub fn advertisements(&self) -> &[PrefixAdvertisement] {
        &self.advertisements
    }

    /// What becomes of a route of normal priority.
    #[cfg(test)]
    pub fn action(&self, route: Prefix) -> ExportAction {
        self.rules.iter().find(|rule| rule.matches(route)).map_or(ExportAction::Reject, |rule| rule.action)
    }
}
