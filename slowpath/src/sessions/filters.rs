//! BGPFilters' rules as the speaker's filters have them.

use bgp::{Community, FilterAction, FilterMatch, FilterRule, Operation, PrefixMatch};
use model::{
    BgpCommunity, BgpFilterCidr, BgpFilterOperation, BgpFilterOperator, BgpFilterRule, Family, Prefix,
};

use super::local_pref_of;
use crate::calico::{Desired, DesiredPeer};
use crate::target::Gateway;
use crate::tunnel::Encapsulation;

/// The rules about routes from a peer.
pub(super) fn import(peer: &DesiredPeer, internal: bool, desired: &Desired) -> Vec<FilterRule> {
    of_families(peer, &peer.import, &peer.other_import, internal, desired)
}

/// Those about routes to it.
pub(super) fn export(peer: &DesiredPeer, internal: bool, desired: &Desired) -> Vec<FilterRule> {
    of_families(peer, &peer.export, &peer.other_export, internal, desired)
}

/// Where a session carries both families, each rule is about its own.
fn of_families(
    peer: &DesiredPeer,
    own: &[BgpFilterRule],
    other: &[BgpFilterRule],
    internal: bool,
    desired: &Desired,
) -> Vec<FilterRule> {
    let families = peer.families();
    if families == [peer.family] {
        return rules(own, internal, desired);
    }
    let of = |family: Family| {
        let list = if family == peer.family { own } else { other };
        let mut rules = rules(list, internal, desired);
        rules.iter_mut().for_each(|rule| rule.matches.family = Some(family));
        rules
    };
    families.into_iter().flat_map(of).collect()
}

/// The rules that are about such a peer.
fn rules(rules: &[BgpFilterRule], internal: bool, desired: &Desired) -> Vec<FilterRule> {
    let about_it = |rule: &&BgpFilterRule| rule.internal_peer.is_none_or(|wanted| wanted == internal);
    rules.iter().filter(about_it).map(|rule| filter_rule(rule, desired)).collect()
}

fn filter_rule(rule: &BgpFilterRule, desired: &Desired) -> FilterRule {
    let matches = FilterMatch {
        prefix: rule.cidr.as_ref().map(prefixes),
        family: None,
        one_of: rule.interface.as_ref().map(|pattern| behind(pattern, desired)),
        learned: rule.from_peers,
        originated: false,
        rank: None,
        community: rule.community.map(community),
        as_path_begins: rule.as_path_prefix.clone(),
        local_pref: rule.priority.map(local_pref_of),
        local_pref_above: None,
    };
    let action = if rule.accept { FilterAction::Accept } else { FilterAction::Reject };
    FilterRule { matches, action, operations: rule.operations.iter().map(operation).collect() }
}

fn prefixes(cidr: &BgpFilterCidr) -> PrefixMatch {
    let (exactly, negated) = match cidr.operator {
        BgpFilterOperator::In => (false, false),
        BgpFilterOperator::NotIn => (false, true),
        BgpFilterOperator::Equal => (true, false),
        BgpFilterOperator::NotEqual => (true, true),
    };
    let set = if exactly { PrefixMatch::exactly(cidr.cidr) } else { PrefixMatch::within(cidr.cidr) };
    let (min_len, max_len) = cidr.lengths.unwrap_or((set.min_len, set.max_len));
    // Lengths constrain further: a prefix that is equal has its own, or there is none.
    let max_len = max_len.min(set.max_len);
    PrefixMatch { min_len, max_len, negated, ..set }
}

/// Does a rule name this route of the box's own?
pub(crate) fn names(rule: &BgpFilterRule, prefix: Prefix, interface: &str) -> bool {
    let in_set = |cidr: &BgpFilterCidr| {
        let set = prefixes(cidr);
        set.prefix.covers(prefix) && (set.min_len..=set.max_len).contains(&prefix.len())
    };
    rule.cidr.as_ref().is_none_or(in_set)
        && rule.interface.as_ref().is_none_or(|pattern| is_like(interface, pattern))
}

/// The routes that lead by an interface of such a name: of those that we tell, the addresses of our workloads, the box's own,
/// and what is behind tunnels to other nodes, by the names that Calico's interfaces for them have. What BGP brought has a next
/// hop, and not yet an interface.
fn behind(pattern: &str, desired: &Desired) -> Vec<Prefix> {
    let endpoints = desired.endpoints.values().filter(|endpoint| is_like(&endpoint.interface, pattern));
    let own = endpoints.flat_map(|endpoint| endpoint.ip_networks.iter().copied());
    let interface = |prefix: &Prefix, gateway: &Gateway| {
        Some(match (gateway.tunnel?.encapsulation, prefix.family()) {
            (Encapsulation::Ipip, _) => "tunl0",
            (Encapsulation::Vxlan { .. }, Family::V4) => "vxlan.calico",
            (Encapsulation::Vxlan { .. }, Family::V6) => "vxlan-v6.calico",
        })
    };
    let others = desired.tunnels.cluster_routes().filter(|(prefix, gateway)| {
        interface(prefix, gateway).is_some_and(|interface| is_like(interface, pattern))
    });
    let of_box = desired.own_routes.iter().filter(|(_, interface)| is_like(interface, pattern));
    let of_box = of_box.map(|(prefix, _)| *prefix);
    let mut all: Vec<Prefix> = own.chain(of_box).chain(others.map(|(prefix, _)| *prefix)).collect();
    all.sort_unstable();
    all
}

/// `*` in a pattern stands for any characters, also for none.
pub(crate) fn is_like(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((begin, rest)) => name.strip_prefix(begin).is_some_and(|left| {
            (0..=left.len()).any(|at| left.get(at..).is_some_and(|left| is_like(left, rest)))
        }),
    }
}

pub(super) fn community(community: BgpCommunity) -> Community {
    match community {
        BgpCommunity::Standard(number, value) => {
            Community::Standard(u32::from(number) << 16 | u32::from(value))
        }
        BgpCommunity::Large(number, first, second) => Community::Large([number, first, second]),
    }
}

fn operation(operation: &BgpFilterOperation) -> Operation {
    match operation {
        BgpFilterOperation::AddCommunity(added) => Operation::AddCommunity(community(*added)),
        BgpFilterOperation::PrependAsPath(numbers) => Operation::PrependAsPath(numbers.clone()),
        BgpFilterOperation::SetPriority(metric) => Operation::SetLocalPref(local_pref_of(*metric)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, like, unlike) in [
            ("eth0", &["eth0"][..], &["eth", "eth01"][..]),
            ("cali*", &["cali", "cali12"], &["cal", "xcali"]),
            ("*.calico", &["vxlan.calico", ".calico"], &["calico", "vxlan.calico1"]),
            ("some*iface", &["someiface", "some-x-iface"], &["some", "iface"]),
            ("a*b*c", &["abc", "axbxc", "abbc"], &["ab", "acb"]),
            ("*", &["", "anything"], &[]),
        ] {
            assert!(like.iter().all(|name| is_like(name, pattern)), "{pattern}");
            assert!(!unlike.iter().any(|name| is_like(name, pattern)), "{pattern}");
        }
    }

    #[test]
    fn equal_and_in_differ_by_the_longest_length_and_lengths_constrain_both() {
        let set = |operator, lengths| {
            prefixes(&BgpFilterCidr { cidr: "10.0.0.0/8".parse().unwrap(), operator, lengths })
        };
        let lens = |set: PrefixMatch| (set.min_len, set.max_len, set.negated);
        assert_eq!(lens(set(BgpFilterOperator::In, None)), (8, 32, false));
        assert_eq!(lens(set(BgpFilterOperator::Equal, None)), (8, 8, false));
        assert_eq!(lens(set(BgpFilterOperator::NotEqual, None)), (8, 8, true));
        assert_eq!(lens(set(BgpFilterOperator::NotIn, Some((16, 24)))), (16, 24, true));
        assert_eq!(lens(set(BgpFilterOperator::Equal, Some((8, 24)))), (8, 8, false));
        // None, as with BIRD, for which a prefix never equals a set of them.
        assert_eq!(lens(set(BgpFilterOperator::Equal, Some((16, 24)))), (16, 8, false));
        assert_eq!(lens(set(BgpFilterOperator::NotEqual, Some((16, 24)))), (16, 8, true));
    }
}
