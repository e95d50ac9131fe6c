//! Lists of plain five-tuple rules in ClassBench's manner (Taylor and Turner, 2007), and packets that meet them.
//!
//! Made up here, the same in every run: prefixes that nest, few of them used by many rules; ports that are mostly one
//! well-known port, the ports above 1023 or any; packets drawn from inside rules, each rule as often as any other.

use std::collections::BTreeSet;
use std::hint::select_unpredictable;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use model::{Family, Prefix};
use policy::compile::{Packet, Upper};
use policy::rule::{Action, AfterTiers, Checks, EndMatch, Policy, PortRange, Rule, Tier, TierDefault};

use crate::keys::{self, Numbers};

/// One rule. IPv4, as rte_acl's five-tuple is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclRule {
    /// Address and length.
    pub source: (u32, u8),
    /// Alike.
    pub destination: (u32, u8),
    /// All of them where it doesn't matter.
    pub source_ports: PortSpan,
    /// Alike.
    pub destination_ports: PortSpan,
    /// Any where it doesn't matter; one with ports where ports matter.
    pub protocol: Option<u8>,
}

/// A range that can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortSpan(pub u16, pub u16);

impl PortSpan {
    const ANY: PortSpan = PortSpan(0, u16::MAX);
}

impl From<RangeInclusive<u16>> for PortSpan {
    fn from(range: RangeInclusive<u16>) -> PortSpan {
        PortSpan(*range.start(), *range.end())
    }
}

/// How a list is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Access control: mostly specific destinations, source ports that don't matter.
    Acl,
    /// A firewall: half the rules leave one address open, ranges of ports at both ends.
    Firewall,
}

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Acl => "acl",
            Kind::Firewall => "fw",
        }
    }
}

/// A five-tuple.
#[derive(Clone, Copy, Debug)]
pub struct FiveTuple {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// 0 where the protocol has none.
    pub source_port: u16,
    /// Alike.
    pub destination_port: u16,
    /// The protocol.
    pub protocol: u8,
}

const WELL_KNOWN: [u16; 24] = [
    20, 21, 22, 23, 25, 53, 67, 69, 80, 110, 123, 135, 139, 143, 161, 389, 443, 445, 514, 993, 1433, 1521,
    3306, 8080,
];

/// `count` different rules.
pub fn rules(kind: Kind, count: usize, seed: u64) -> Vec<AclRule> {
    let mut numbers = Numbers::new(seed);
    let sources =
        prefixes(&mut numbers, count / 6 + 8, &[(8, 1), (16, 6), (20, 5), (24, 10), (28, 4), (32, 8)]);
    let destinations =
        prefixes(&mut numbers, count / 3 + 8, &[(8, 1), (16, 3), (20, 4), (24, 10), (28, 5), (32, 12)]);
    let (open_source, open_destination, open_ports) = match kind {
        Kind::Acl => (25, 4, 90),
        Kind::Firewall => (40, 30, 55),
    };
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    while rules.len() < count {
        let mut end = |pool: &[(u32, u8)], open: usize| {
            if numbers.below(100) < open { (0, 0) } else { pool[skewed(&mut numbers, pool.len())] }
        };
        let (source, destination) = (end(&sources, open_source), end(&destinations, open_destination));
        let protocol = match numbers.below(100) {
            0..75 => Some(6),
            75..92 => Some(17),
            92..96 => Some(1),
            _ => None,
        };
        let has_ports = matches!(protocol, Some(6 | 17));
        let mut ports = |open: usize| {
            if !has_ports || numbers.below(100) < open {
                return PortSpan::ANY;
            }
            match numbers.below(10) {
                0..6 => {
                    let port = WELL_KNOWN[numbers.below(WELL_KNOWN.len())];
                    PortSpan(port, port)
                }
                6..8 => PortSpan(1024, u16::MAX),
                _ => {
                    let first = numbers.below(50_000) as u16;
                    PortSpan(first, first + numbers.below(2_000) as u16)
                }
            }
        };
        let rule = AclRule {
            source,
            destination,
            source_ports: ports(open_ports),
            destination_ports: ports(20),
            protocol,
        };
        if seen.insert(rule.clone()) {
            rules.push(rule);
        }
    }
    // Specific rules before general ones, roughly: or few rules would ever be met.
    rules.sort_by_cached_key(|rule| {
        let ports = [rule.source_ports, rule.destination_ports].map(|range| range.1 - range.0 < 10);
        let bits =
            usize::from(rule.source.1 + rule.destination.1) + ports.iter().filter(|few| **few).count() * 16;
        std::cmp::Reverse(bits + numbers.below(24))
    });
    rules
}

/// Prefixes of which about half lie in others; lengths by weight.
fn prefixes(numbers: &mut Numbers, count: usize, lengths: &[(u8, usize)]) -> Vec<(u32, u8)> {
    let sum = lengths.iter().map(|(_, weight)| weight).sum();
    let mut all: Vec<(u32, u8)> = Vec::new();
    let mut seen = BTreeSet::new();
    while all.len() < count {
        let mut at = numbers.below(sum);
        let (len, _) = lengths
            .iter()
            .find(|(_, weight)| {
                let found = at < *weight;
                at = at.wrapping_sub(*weight);
                found
            })
            .expect("the weights make the sum");
        let mut addr: u32 = keys::any(numbers);
        if let Some((outer, shorter)) =
            all.get(numbers.below(all.len() * 2 + 1)).filter(|(_, outer)| outer < len)
        {
            let kept = u32::MAX << (32 - shorter);
            addr = outer & kept | addr & !kept;
        }
        let prefix = (addr & u32::MAX << (32 - len), *len);
        if seen.insert(prefix) {
            all.push(prefix);
        }
    }
    all
}

/// A number below `count`, small ones more often.
fn skewed(numbers: &mut Numbers, count: usize) -> usize {
    let one = numbers.below(count);
    if numbers.below(2) == 0 { one } else { numbers.below(one + 1) }
}

/// `count` packets, each within a rule.
pub fn packets(rules: &[AclRule], count: usize, seed: u64) -> Vec<FiveTuple> {
    let mut numbers = Numbers::new(seed);
    let mut packet = || {
        let rule = &rules[numbers.below(rules.len())];
        let protocol = rule.protocol.unwrap_or([6, 17, 47][numbers.below(3)]);
        let mut addr = |(addr, len): (u32, u8)| {
            let random: u32 = keys::any(&mut numbers);
            addr | u32::MAX.checked_shr(len.into()).unwrap_or(0) & random
        };
        let (source, destination) = (addr(rule.source), addr(rule.destination));
        let has_ports = matches!(protocol, 6 | 17);
        let mut port = |range: PortSpan, typical: usize| {
            let any = range == PortSpan::ANY;
            let port = if any { typical } else { numbers.below(usize::from(range.1 - range.0) + 1) };
            if has_ports { if any { port as u16 } else { range.0 + port as u16 } } else { 0 }
        };
        let source_port = port(rule.source_ports, 40_000);
        let destination_port = port(rule.destination_ports, 443);
        FiveTuple { source, destination, source_port, destination_port, protocol }
    };
    (0..count).map(|_| packet()).collect()
}

/// The rules as one policy, the n-th allowing where n is even; what none of them matches is passed on and not decided.
pub fn checks(rules: &[AclRule]) -> Checks {
    let prefix =
        |(addr, len): (u32, u8)| Prefix::new(IpAddr::V4(addr.into()), len).expect("a length of IPv4");
    let end = |net: (u32, u8), ports: PortSpan| EndMatch {
        nets: if net.1 == 0 { Vec::new() } else { vec![prefix(net)] },
        ports: if ports == PortSpan::ANY {
            Vec::new()
        } else {
            vec![PortRange { first: ports.0, last: ports.1 }]
        },
        ..EndMatch::default()
    };
    let rules = rules.iter().enumerate().map(|(number, rule)| Rule {
        protocol: rule.protocol,
        source: end(rule.source, rule.source_ports),
        destination: end(rule.destination, rule.destination_ports),
        ..Rule::any(if number % 2 == 0 { Action::Allow } else { Action::Deny })
    });
    let policies = vec![Arc::new(Policy { name: "acl".to_owned(), rules: rules.collect() })];
    let tiers = vec![Tier { name: "acl".to_owned(), policies, default: TierDefault::Pass }];
    Checks { tiers, after: AfterTiers::NoMatch }
}

impl From<&FiveTuple> for Packet {
    fn from(tuple: &FiveTuple) -> Packet {
        // One branch, not one a protocol: which of both it is, no branch predictor can learn.
        let has_ports = select_unpredictable(tuple.protocol == 6, true, tuple.protocol == 17);
        Packet {
            source: tuple.source.into(),
            destination: tuple.destination.into(),
            family: Family::V4,
            protocol: tuple.protocol,
            upper: if has_ports {
                Upper::Ports { source: tuple.source_port, destination: tuple.destination_port }
            } else {
                Upper::Nothing
            },
        }
    }
}
