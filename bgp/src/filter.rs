//! Filters: which routes pass from a peer and to it, and how they are changed on the way.

use model::{AsNumber, Family, Prefix};

use crate::config::PeerKind;
use crate::decision::DEFAULT_LOCAL_PREF;
use crate::input::Rank;
use crate::wire::attributes::Attributes;

/// What a filter does with a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterAction {
    /// Let it pass.
    Accept,
    /// Keep it out.
    Reject,
}

/// A list of rules; the first that matches decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// In the order they are tried.
    pub rules: Vec<FilterRule>,
    /// Where no rule matches.
    pub default: FilterAction,
}

/// What a route must be for a rule to decide about it: all that is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FilterMatch {
    /// Its prefix, matched so.
    pub prefix: Option<PrefixMatch>,
    /// It is of this family.
    pub family: Option<Family>,
    /// Its prefix, as it stands, is one of these, which are in order.
    pub one_of: Option<Vec<Prefix>>,
    /// It was learned by BGP, not originated here.
    pub learned: bool,
    /// It was originated here, not learned by BGP.
    pub originated: bool,
    /// It was originated here with this rank.
    pub rank: Option<Rank>,
    /// It carries this community.
    pub community: Option<Community>,
    /// Its AS_PATH begins with these, the nearest AS first.
    pub as_path_begins: Vec<AsNumber>,
    /// Its LOCAL_PREF, [100](crate::Step::LocalPref) where it has none.
    pub local_pref: Option<u32>,
    /// Its LOCAL_PREF is higher than this.
    pub local_pref_above: Option<u32>,
}

/// A set of prefixes: those that `prefix` covers, of some lengths; or all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixMatch {
    /// Covers what is in the set.
    pub prefix: Prefix,
    /// Shortest length in the set.
    pub min_len: u8,
    /// Longest length in the set.
    pub max_len: u8,
    /// Match what is not in the set.
    pub negated: bool,
}

impl PrefixMatch {
    /// The prefix itself and everything inside it.
    pub fn within(prefix: Prefix) -> PrefixMatch {
        PrefixMatch { prefix, min_len: prefix.len(), max_len: prefix.family().bits(), negated: false }
    }

    /// The prefix alone.
    pub fn exactly(prefix: Prefix) -> PrefixMatch {
        PrefixMatch { max_len: prefix.len(), ..PrefixMatch::within(prefix) }
    }

    fn matches(&self, prefix: Prefix) -> bool {
        let in_set = (self.min_len..=self.max_len).contains(&prefix.len()) && self.prefix.covers(prefix);
        in_set != self.negated
    }
}

/// A community that a route carries or is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Community {
    /// RFC 1997: the upper half is an AS, the lower one a value.
    Standard(u32),
    /// RFC 8092: an AS and two values.
    Large([u32; 3]),
}

/// A change to a route that a filter accepts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Carry this community as well.
    AddCommunity(Community),
    /// Have these before its AS_PATH, in this order, the first one nearest.
    PrependAsPath(Vec<AsNumber>),
    /// Have this LOCAL_PREF. Never told to another AS (RFC 4271 §5.1.5).
    SetLocalPref(u32),
}

/// What to do with routes of some kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilterRule {
    /// Which routes.
    pub matches: FilterMatch,
    /// What to do.
    pub action: FilterAction,
    /// How accepted routes are changed, in this order.
    pub operations: Vec<Operation>,
}

/// What a filter that must be set and isn't lets pass (RFC 8212 §3).
static NOTHING: Filter = Filter { rules: Vec::new(), default: FilterAction::Reject };

impl Filter {
    /// The filter in force: in another AS nothing passes where a policy is required and none was set.
    pub(crate) fn in_force(&self, policy_required: bool, kind: PeerKind) -> &Filter {
        let is_unset = self.rules.is_empty() && self.default == FilterAction::Accept;
        if policy_required && is_unset && kind == PeerKind::Ebgp { &NOTHING } else { self }
    }

    /// Lets everything pass.
    pub fn accept_all() -> Filter {
        Filter { rules: Vec::new(), default: FilterAction::Accept }
    }

    /// Lets nothing pass.
    pub fn reject_all() -> Filter {
        Filter { rules: Vec::new(), default: FilterAction::Reject }
    }

    /// Can routes of equal attributes fare differently?
    pub(crate) fn asks_for_prefixes(&self) -> bool {
        let asks = |matches: &FilterMatch| {
            matches.prefix.is_some() || matches.family.is_some() || matches.one_of.is_some()
        };
        self.rules.iter().any(|rule| asks(&rule.matches))
    }

    /// The first rule that matches decides. `originated`: the rank of a route that wasn't learned by BGP.
    pub(crate) fn verdict(
        &self,
        prefix: Prefix,
        attributes: &Attributes,
        originated: Option<Rank>,
    ) -> Verdict<'_> {
        let rule = self.rules.iter().find(|rule| rule.matches.matches(prefix, attributes, originated));
        match rule.map_or(self.default, |rule| rule.action) {
            FilterAction::Reject => Verdict::Reject,
            FilterAction::Accept => Verdict::Accept(rule.filter(|rule| !rule.operations.is_empty())),
        }
    }
}

impl FilterRule {
    /// A rule about all routes.
    pub fn any(action: FilterAction) -> FilterRule {
        FilterRule { matches: FilterMatch::default(), action, operations: Vec::new() }
    }

    /// A rule about a prefix and everything inside it.
    pub fn within(prefix: Prefix, action: FilterAction) -> FilterRule {
        FilterRule::about(PrefixMatch::within(prefix), action)
    }

    /// A rule about a prefix alone.
    pub fn exactly(prefix: Prefix, action: FilterAction) -> FilterRule {
        FilterRule::about(PrefixMatch::exactly(prefix), action)
    }

    /// A rule about a set of prefixes.
    pub fn about(prefixes: PrefixMatch, action: FilterAction) -> FilterRule {
        let matches = FilterMatch { prefix: Some(prefixes), ..FilterMatch::default() };
        FilterRule { matches, ..FilterRule::any(action) }
    }
}

impl FilterMatch {
    fn matches(&self, prefix: Prefix, attributes: &Attributes, originated: Option<Rank>) -> bool {
        self.prefix.is_none_or(|prefixes| prefixes.matches(prefix))
            && self.family.is_none_or(|family| prefix.family() == family)
            && self.one_of.as_ref().is_none_or(|prefixes| prefixes.binary_search(&prefix).is_ok())
            && !(self.learned && originated.is_some())
            && !(self.originated && originated.is_none())
            && self.rank.is_none_or(|wanted| originated == Some(wanted))
            && self.community.is_none_or(|community| carries(attributes, community))
            && self.begins_as_path(attributes)
            && self.local_pref.is_none_or(|wanted| local_pref(attributes) == wanted)
            && self.local_pref_above.is_none_or(|limit| local_pref(attributes) > limit)
    }

    fn begins_as_path(&self, attributes: &Attributes) -> bool {
        let mut path = attributes.as_path().as_numbers();
        self.as_path_begins.iter().all(|wanted| path.next() == Some(wanted.0))
    }
}

fn local_pref(attributes: &Attributes) -> u32 {
    attributes.local_pref().unwrap_or(DEFAULT_LOCAL_PREF)
}

fn carries(attributes: &Attributes, community: Community) -> bool {
    match community {
        Community::Standard(wanted) => attributes.communities().any(|community| community == wanted),
        Community::Large(wanted) => attributes.large_communities().any(|community| community == wanted),
    }
}

/// What a filter says of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    Reject,
    /// With the rule by which the route is to be changed, if there is one.
    Accept(Option<&'a FilterRule>),
}
