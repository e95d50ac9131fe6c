//! The slow judge: what Calico's semantics say of one packet, step by step, and why.
//!
//! It reads the rules one after the other, as `felix/bpf/polprog/pol_prog_builder.go` generates code for them. Explaining
//! is its work, and being right: whatever judges faster is held to it.

use std::net::IpAddr;

use model::Family;

use crate::rule::{Action, AfterTiers, Checks, EndMatch, IcmpMatch, Policy, Rule, SetId, Tier, TierDefault};

/// IANA's protocol numbers of ICMP and ICMPv6.
pub(crate) const ICMP: [u8; 2] = [1, 58];

/// What is known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IANA's number.
    pub protocol: u8,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes to, of the same family.
    pub destination: IpAddr,
    /// Source and destination port, of protocols that have some.
    pub ports: Option<(u16, u16)>,
    /// Type and code of an ICMP message.
    pub icmp: Option<(u8, u8)>,
}

/// Who is in which set.
pub trait Sets {
    /// Is the address in the set?
    fn contains(&self, set: SetId, addr: IpAddr) -> bool;
    /// Is the address with this protocol and port in the set of a named port?
    fn contains_port(&self, set: SetId, addr: IpAddr, protocol: u8, port: u16) -> bool;
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Allowed.
    Allow,
    /// Dropped.
    Deny,
    /// These checks have no opinion.
    NoMatch,
}

/// One step of a judgement. Numbers count from 0 in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A rule matched.
    Rule {
        /// The tier.
        tier: usize,
        /// The policy in the tier.
        policy: usize,
        /// The rule in the policy.
        rule: usize,
        /// What it does.
        action: Action,
    },
    /// No rule of a tier decided, so the tier's default holds.
    TierDefault {
        /// The tier.
        tier: usize,
        /// The default.
        default: TierDefault,
    },
    /// A rule of a profile matched.
    Profile {
        /// The profile.
        profile: usize,
        /// The rule in the profile.
        rule: usize,
        /// What it does; passing on in a profile is dropping.
        action: Action,
    },
    /// No profile decided.
    NoProfile,
    /// All tiers have passed it on, and there is nothing after them.
    NoMatch,
}

/// A verdict, and how it came about: the last step is the one that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// In order.
    pub steps: Vec<Step>,
}

/// Judges one packet.
pub fn judge(checks: &Checks, packet: &Packet, sets: &impl Sets) -> Judgement {
    let mut steps = Vec::new();
    for (number, tier) in checks.tiers.iter().enumerate().filter(|(_, tier)| !tier.policies.is_empty()) {
        if let Some(verdict) = judge_tier(number, tier, packet, sets, &mut steps) {
            return Judgement { verdict, steps };
        }
    }
    let AfterTiers::Profiles(profiles) = &checks.after else {
        steps.push(Step::NoMatch);
        return Judgement { verdict: Verdict::NoMatch, steps };
    };
    for (profile, policy) in profiles.iter().enumerate() {
        for (rule, action) in matching(policy, packet, sets) {
            steps.push(Step::Profile { profile, rule, action });
            let verdict = match action {
                Action::Allow => Verdict::Allow,
                Action::Deny | Action::Pass => Verdict::Deny,
                Action::Log => continue,
            };
            return Judgement { verdict, steps };
        }
    }
    steps.push(Step::NoProfile);
    Judgement { verdict: Verdict::Deny, steps }
}

/// The tier's verdict; `None` where it passes the packet on.
fn judge_tier(
    number: usize,
    tier: &Tier,
    packet: &Packet,
    sets: &impl Sets,
    steps: &mut Vec<Step>,
) -> Option<Verdict> {
    for (policy, rules) in tier.policies.iter().enumerate() {
        for (rule, action) in matching(rules, packet, sets) {
            steps.push(Step::Rule { tier: number, policy, rule, action });
            match action {
                Action::Allow => return Some(Verdict::Allow),
                Action::Deny => return Some(Verdict::Deny),
                Action::Pass => return None,
                Action::Log => {}
            }
        }
    }
    steps.push(Step::TierDefault { tier: number, default: tier.default });
    match tier.default {
        TierDefault::Deny => Some(Verdict::Deny),
        TierDefault::Pass => None,
    }
}

/// The rules that match, in order.
fn matching<'a>(
    policy: &'a Policy,
    packet: &'a Packet,
    sets: &'a impl Sets,
) -> impl Iterator<Item = (usize, Action)> + 'a {
    let rules = policy.rules.iter().enumerate();
    rules.filter(|(_, rule)| matches(rule, packet, sets)).map(|(number, rule)| (number, rule.action))
}

/// Is everything so that a rule asks?
pub fn matches(rule: &Rule, packet: &Packet, sets: &impl Sets) -> bool {
    let icmp = |wanted: &IcmpMatch| {
        ICMP.contains(&packet.protocol)
            && packet.icmp.is_some_and(|(icmp_type, code)| {
                icmp_type == wanted.icmp_type && wanted.code.is_none_or(|wanted| wanted == code)
            })
    };
    rule.family.is_none_or(|family| family == Family::of(packet.source))
        && rule.protocol.is_none_or(|protocol| protocol == packet.protocol)
        && rule.not_protocol.is_none_or(|protocol| protocol != packet.protocol)
        && rule.icmp.as_ref().is_none_or(icmp)
        && !rule.not_icmp.as_ref().is_some_and(icmp)
        && end_matches(&rule.source, packet, packet.source, packet.ports.map(|(source, _)| source), sets)
        && end_matches(
            &rule.destination,
            packet,
            packet.destination,
            packet.ports.map(|(_, destination)| destination),
            sets,
        )
}

fn end_matches(end: &EndMatch, packet: &Packet, addr: IpAddr, port: Option<u16>, sets: &impl Sets) -> bool {
    let at = |ports: &[crate::rule::PortRange], named: &[SetId]| {
        port.is_some_and(|port| {
            ports.iter().any(|range| range.contains(port))
                || named.iter().any(|set| sets.contains_port(*set, addr, packet.protocol, port))
        })
    };
    let asks_for_ports = !end.ports.is_empty() || !end.named_ports.is_empty();
    (end.nets.is_empty() || end.nets.iter().any(|net| net.contains(addr)))
        && !end.not_nets.iter().any(|net| net.contains(addr))
        && end.sets.iter().all(|set| sets.contains(*set, addr))
        && !end.not_sets.iter().any(|set| sets.contains(*set, addr))
        && (!asks_for_ports || at(&end.ports, &end.named_ports))
        && !at(&end.not_ports, &end.not_named_ports)
}
