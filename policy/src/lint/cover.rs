//! Does a rule match all that another one matches? "No" may be wrong, "yes" never is.

use model::{EntityRule, Family, IcmpMatch, PolicyRule, PortMatch, PortRange, Prefix, Protocol};

use crate::Selector;
use crate::resolve::families;

/// Does everything that `later` matches end at `earlier`?
pub(super) fn covers(earlier: &PolicyRule, later: &PolicyRule) -> bool {
    let (wider, narrower) = (families(earlier), families(later));
    let family = match *narrower.as_slice() {
        // What matches nothing by itself isn't hidden by another.
        [] => return false,
        [family] => Some(family),
        _ => None,
    };
    let named = named_ports_of(earlier) == named_ports_of(later);
    earlier.action != model::Action::Log
        && !earlier.http
        && narrower.iter().all(|family| wider.contains(family))
        && earlier.protocol.is_none_or(|wanted| later.protocol == Some(wanted))
        && earlier.not_protocol.is_none_or(|refused| is_not(later, refused))
        && earlier.icmp.is_none_or(|wanted| later.icmp.is_some_and(|icmp| includes(wanted, icmp)))
        && earlier.not_icmp.is_none_or(|refused| is_not_icmp(later, refused))
        && end_covers(&earlier.source, &later.source, family, named)
        && end_covers(&earlier.destination, &later.destination, family, named)
}

/// The protocol whose ports a rule's names mean.
fn named_ports_of(rule: &PolicyRule) -> Protocol {
    rule.protocol.filter(|protocol| protocol.has_ports()).unwrap_or(Protocol::TCP)
}

fn is_not(rule: &PolicyRule, refused: Protocol) -> bool {
    rule.protocol.is_some_and(|protocol| protocol != refused) || rule.not_protocol == Some(refused)
}

/// Is every message of the one a message of the other?
fn includes(wider: IcmpMatch, narrower: IcmpMatch) -> bool {
    wider.icmp_type == narrower.icmp_type && wider.code.is_none_or(|code| narrower.code == Some(code))
}

fn is_not_icmp(rule: &PolicyRule, refused: IcmpMatch) -> bool {
    let other = |icmp: IcmpMatch| {
        let codes_differ = matches!((icmp.code, refused.code), (Some(a), Some(b)) if a != b);
        icmp.icmp_type != refused.icmp_type || codes_differ
    };
    let no_icmp = |protocol| !matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
    rule.icmp.is_some_and(other)
        || rule.not_icmp.is_some_and(|not| includes(not, refused))
        || rule.protocol.is_some_and(no_icmp)
}

/// `named`: whether names of ports mean the same protocol's in both rules.
fn end_covers(earlier: &EntityRule, later: &EntityRule, family: Option<Family>, named: bool) -> bool {
    let same = asks_for_the_same(earlier, later);
    // A name that is refused is one of those whom the rule selects: of fewer, it refuses less.
    (same || asks_for_nobody(earlier))
        && nets_cover(&earlier.nets, &later.nets, family)
        && earlier.not_nets.iter().all(|refused| is_outside(later, *refused, family))
        && ports_cover(&earlier.ports, &later.ports, named)
        && earlier.not_ports.iter().all(|refused| is_elsewhere(later, refused, named && same))
}

/// Does it leave open who stands at this end?
fn asks_for_nobody(end: &EntityRule) -> bool {
    end.selector.is_none()
        && end.not_selector.is_none()
        && end.namespace_selector.is_none()
        && end.service_accounts.is_none()
        && end.service.is_none()
}

fn asks_for_the_same(a: &EntityRule, b: &EntityRule) -> bool {
    let same = |a: &Option<String>, b: &Option<String>| match (a, b) {
        (Some(a), Some(b)) => {
            a == b || matches!((a.parse(), b.parse()), (Ok::<Selector, _>(a), Ok(b)) if a == b)
        }
        (None, None) => true,
        _ => false,
    };
    same(&a.selector, &b.selector)
        && same(&a.not_selector, &b.not_selector)
        && same(&a.namespace_selector, &b.namespace_selector)
        && a.service_accounts == b.service_accounts
        && a.service == b.service
}

fn nets_cover(earlier: &[Prefix], later: &[Prefix], family: Option<Family>) -> bool {
    let covered = |net: &Prefix| earlier.iter().any(|wider| wider.covers(*net));
    let all_of_family = || earlier.iter().any(|net| net.is_default() && Some(net.family()) == family);
    earlier.is_empty() || (!later.is_empty() && later.iter().all(covered)) || all_of_family()
}

/// Is no packet of the rule's in the network?
fn is_outside(rule: &EntityRule, refused: Prefix, family: Option<Family>) -> bool {
    let apart = |net: &Prefix| !net.covers(refused) && !refused.covers(*net);
    rule.not_nets.iter().any(|wider| wider.covers(refused))
        || (!rule.nets.is_empty() && rule.nets.iter().all(apart))
        || family.is_some_and(|family| family != refused.family())
}

fn ports_cover(earlier: &[PortMatch], later: &[PortMatch], named: bool) -> bool {
    let covered = |port: &PortMatch| earlier.iter().any(|wider| port_covers(wider, port, named));
    earlier.is_empty() || (!later.is_empty() && later.iter().all(covered))
}

/// `named`: whether one name means the same ports in both.
fn port_covers(wider: &PortMatch, narrower: &PortMatch, named: bool) -> bool {
    match (wider, narrower) {
        (PortMatch::Numbers(wider), PortMatch::Numbers(narrower)) => range_covers(*wider, *narrower),
        (PortMatch::Named(wider), PortMatch::Named(narrower)) => named && wider == narrower,
        _ => false,
    }
}

fn range_covers(wider: PortRange, narrower: PortRange) -> bool {
    wider.contains(narrower.first) && wider.contains(narrower.last)
}

/// Is no packet of the rule's at the port? Of named ports nobody here knows the numbers.
fn is_elsewhere(rule: &EntityRule, refused: &PortMatch, named: bool) -> bool {
    let apart = |port: &PortMatch| match (port, refused) {
        (PortMatch::Numbers(port), PortMatch::Numbers(refused)) => {
            port.last < refused.first || refused.last < port.first
        }
        _ => false,
    };
    rule.not_ports.iter().any(|wider| port_covers(wider, refused, named))
        || (!rule.ports.is_empty() && rule.ports.iter().all(apart))
}
