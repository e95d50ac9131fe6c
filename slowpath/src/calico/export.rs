//! What a node announces: its blocks whole, and what lies in pools; nothing else.
//!
//! Calico's `calico_export_to_bgp_peers` with its aggregation (`bird_aggr.cfg`, `bird_ipam.cfg`).

use std::collections::BTreeSet;

use model::{IpPool, Prefix};

/// What becomes of a route that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportAction {
    /// Announced.
    Accept,
    /// Kept back.
    Reject,
}

/// Which prefixes a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportReach {
    /// The rule's prefix alone.
    Exactly,
    /// The rule's prefix and all inside it.
    Within,
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
    fn matches(&self, route: Prefix) -> bool {
        match self.reach {
            ExportReach::Exactly => route == self.prefix,
            ExportReach::Within => self.prefix.covers(route),
        }
    }
}

/// The rules in the order they are asked: the first that matches decides, and where none does, `Reject`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ExportRules {
    rules: Vec<ExportRule>,
}

impl ExportRules {
    /// Own blocks are announced whole, so what is inside them needs no announcement of its own. A single address
    /// out of another node's block (a borrowed one) passes as a part of its pool.
    pub(super) fn of<'a>(blocks: &BTreeSet<Prefix>, pools: impl Iterator<Item = &'a IpPool>) -> ExportRules {
        let (mut kept_back, mut announced) = (BTreeSet::new(), BTreeSet::new());
        for pool in pools {
            let pools = if pool.disable_bgp_export { &mut kept_back } else { &mut announced };
            pools.insert(pool.cidr);
        }
        let rule = |reach, action| move |&prefix: &Prefix| ExportRule { prefix, reach, action };
        let rules = blocks
            .iter()
            .map(rule(ExportReach::Exactly, ExportAction::Accept))
            .chain(blocks.iter().map(rule(ExportReach::Within, ExportAction::Reject)))
            .chain(kept_back.iter().map(rule(ExportReach::Within, ExportAction::Reject)))
            .chain(announced.iter().map(rule(ExportReach::Within, ExportAction::Accept)))
            .collect();
        ExportRules { rules }
    }

    /// In the order they are asked; behind the last one everything is rejected.
    pub fn rules(&self) -> &[ExportRule] {
        &self.rules
    }

    /// What becomes of a route.
    pub fn action(&self, route: Prefix) -> ExportAction {
        self.rules.iter().find(|rule| rule.matches(route)).map_or(ExportAction::Reject, |rule| rule.action)
    }
}
