//! Applying a [`Filter`] to a route.

use model::Prefix;

use crate::config::{Filter, FilterAction, FilterRule};

/// What a filter says of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    Reject,
    /// With the rule whose communities are to be added, if it has any.
    Accept(Option<&'a FilterRule>),
}

impl Filter {
    /// The first rule that matches decides.
    pub(crate) fn verdict(&self, prefix: Prefix) -> Verdict<'_> {
        let rule = self.rules.iter().find(|rule| rule.matches(prefix));
        match rule.map_or(self.default, |rule| rule.action) {
            FilterAction::Reject => Verdict::Reject,
            FilterAction::Accept => Verdict::Accept(rule.filter(|rule| rule.adds())),
        }
    }
}

impl FilterRule {
    fn matches(&self, prefix: Prefix) -> bool {
        (self.min_len..=self.max_len).contains(&prefix.len()) && self.prefix.covers(prefix)
    }

    fn adds(&self) -> bool {
        !self.add_communities.is_empty() || !self.add_large_communities.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let filter = Filter {
            rules: vec![
                FilterRule::exactly(prefix("10.0.0.0/26"), FilterAction::Accept),
                FilterRule::within(prefix("10.0.0.0/16"), FilterAction::Reject),
            ],
            default: FilterAction::Accept,
        };
        assert_eq!(filter.verdict(prefix("10.0.0.0/26")), Verdict::Accept(None));
        assert_eq!(filter.verdict(prefix("10.0.0.0/27")), Verdict::Reject);
        assert_eq!(filter.verdict(prefix("10.0.0.0/8")), Verdict::Accept(None));
        assert_eq!(filter.verdict(prefix("fd00::/8")), Verdict::Accept(None));
    }
}
