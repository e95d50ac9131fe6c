//! What a rule asks of a packet, in nft's words.
//!
//! A rule is a conjunction; where it asks for one of several things that nft can't ask for at once (a port of the list, or
//! one in a named port's set), it becomes several lines. At most one of them matches a packet, so that each packet is
//! counted and logged once.

use std::collections::BTreeSet;

use model::{Family, Prefix};
use policy::resolve::EndpointPolicy;
use policy::rule::{AfterTiers, EndMatch, IcmpMatch, PortRange, Rule, SetId};

use super::members::widest;

/// Protocols whose header begins with source and destination port: TCP, UDP and SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];
/// The same, as nft reads a list.
const WITH_PORTS_TEXT: &str = "{ 6, 17, 132 }";
/// ICMP and ICMPv6.
const ICMP_TEXT: &str = "{ 1, 58 }";

/// Which end of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// Lists of matches, each a line of nft's, of which at most one matches a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alternatives(Vec<String>);

impl Alternatives {
    fn always() -> Alternatives {
        Alternatives(vec![String::new()])
    }

    /// Each of these and each of `others`.
    fn and(self, others: Alternatives) -> Alternatives {
        let join = |left: &String, right: &String| match (left.is_empty(), right.is_empty()) {
            (true, _) => right.clone(),
            (_, true) => left.clone(),
            _ => format!("{left} {right}"),
        };
        Alternatives(
            self.0.iter().flat_map(|left| others.0.iter().map(move |right| join(left, right))).collect(),
        )
    }

    fn and_text(self, text: impl Into<String>) -> Alternatives {
        self.and(Alternatives(vec![text.into()]))
    }
}

/// The matches of a rule, as the beginnings of lines; none where it can't match, one empty where it always does.
pub fn matches(rule: &Rule) -> Vec<String> {
    let families = match rule.family {
        Some(family) => vec![family],
        None => vec![Family::V4, Family::V6],
    };
    if rule.family.is_none() && !asks_for_addresses(&rule.source) && !asks_for_addresses(&rule.destination) {
        return upper_layer(rule, None).0;
    }
    families.into_iter().flat_map(|family| of_family(rule, family)).collect()
}

/// The sets that a rule refers to: of addresses, and of addresses with ports.
pub fn sets_of(rule: &Rule) -> (BTreeSet<SetId>, BTreeSet<SetId>) {
    let ends = [&rule.source, &rule.destination];
    let nets = ends.iter().flat_map(|end| end.sets.iter().chain(&end.not_sets));
    let ports = ends.iter().flat_map(|end| end.named_ports.iter().chain(&end.not_named_ports));
    (nets.copied().collect(), ports.copied().collect())
}

/// The sets that anything refers to that may be asked at an endpoint.
pub fn sets_of_policy(policy: &EndpointPolicy) -> impl Iterator<Item = SetId> {
    let EndpointPolicy { normal, staged: _, untracked, pre_dnat, forward } = policy;
    let directions = [normal, untracked, forward];
    let checks = directions.into_iter().flat_map(|both| [&both.ingress, &both.egress]).chain([pre_dnat]);
    checks.flatten().flat_map(|checks| {
        let profiles = match &checks.after {
            AfterTiers::Profiles(profiles) => profiles.as_slice(),
            AfterTiers::NoMatch => &[],
        };
        let policies = checks.tiers.iter().flat_map(|tier| &tier.policies).chain(profiles);
        policies.flat_map(|policy| &policy.rules).flat_map(|rule| {
            let (nets, ports) = sets_of(rule);
            nets.into_iter().chain(ports)
        })
    })
}

/// Name of the set of addresses with this number.
pub fn nets_name(set: SetId, family: Family) -> String {
    format!("nets{}-{}", digit(family), set.0)
}

/// Name of the set of a named port with this number.
pub fn ports_name(set: SetId, family: Family) -> String {
    format!("ports{}-{}", digit(family), set.0)
}

/// 4 or 6.
pub fn digit(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

fn asks_for_addresses(end: &EndMatch) -> bool {
    let EndMatch { nets, not_nets, sets, not_sets, ports: _, named_ports, not_ports: _, not_named_ports } =
        end;
    let about_nets = !nets.is_empty() || !not_nets.is_empty();
    let about_sets = [sets, not_sets, named_ports, not_named_ports].into_iter().any(|sets| !sets.is_empty());
    about_nets || about_sets
}

fn of_family(rule: &Rule, family: Family) -> Vec<String> {
    let head = Alternatives(vec![format!("meta nfproto ipv{}", digit(family))]);
    let source = addresses(&rule.source, Side::Source, family);
    let destination = addresses(&rule.destination, Side::Destination, family);
    match source.zip(destination) {
        Some((source, destination)) => {
            head.and(source).and(destination).and(upper_layer(rule, Some(family))).0
        }
        None => Vec::new(),
    }
}

fn address_of(side: Side, family: Family) -> &'static str {
    match (side, family) {
        (Side::Source, Family::V4) => "ip saddr",
        (Side::Destination, Family::V4) => "ip daddr",
        (Side::Source, Family::V6) => "ip6 saddr",
        (Side::Destination, Family::V6) => "ip6 daddr",
    }
}

/// What is asked of an address; `None` where no address of the family is what is asked for.
fn addresses(end: &EndMatch, side: Side, family: Family) -> Option<Alternatives> {
    let address = address_of(side, family);
    let mut all = Alternatives::always();
    let list = |nets: &[Prefix]| {
        let nets = widest(nets.iter().copied(), family);
        let everybody = nets.iter().any(|net| net.is_default());
        (!nets.is_empty()).then(|| (everybody, braced(nets.iter().map(Prefix::to_string))))
    };
    match list(&end.nets) {
        None if end.nets.is_empty() => {}
        None => return None,
        Some((true, _)) => {}
        Some((false, nets)) => all = all.and_text(format!("{address} {nets}")),
    }
    match list(&end.not_nets) {
        None => {}
        Some((true, _)) => return None,
        Some((false, nets)) => all = all.and_text(format!("{address} != {nets}")),
    }
    for set in &end.sets {
        all = all.and_text(format!("{address} @{}", nets_name(*set, family)));
    }
    for set in &end.not_sets {
        all = all.and_text(format!("{address} != @{}", nets_name(*set, family)));
    }
    Some(all)
}

/// What is asked of protocol, ICMP type and ports. A family is given where named ports are asked for.
fn upper_layer(rule: &Rule, family: Option<Family>) -> Alternatives {
    let mut all = Alternatives::always();
    if let Some(protocol) = rule.protocol {
        all = all.and_text(format!("meta l4proto {protocol}"));
    }
    if let Some(protocol) = rule.not_protocol {
        all = all.and_text(format!("meta l4proto != {protocol}"));
    }
    if let Some(icmp) = &rule.icmp {
        all = all.and_text(icmp_is(icmp));
    }
    if let Some(icmp) = &rule.not_icmp {
        all = all.and(icmp_is_not(icmp));
    }
    all.and(ports(rule, family))
}

fn icmp_is(icmp: &IcmpMatch) -> String {
    let code = icmp.code.map(|code| format!(" @th,8,8 {code}")).unwrap_or_default();
    format!("meta l4proto {ICMP_TEXT} @th,0,8 {}{code}", icmp.icmp_type)
}

fn icmp_is_not(icmp: &IcmpMatch) -> Alternatives {
    let IcmpMatch { icmp_type, code } = icmp;
    let mut all = vec![
        format!("meta l4proto != {ICMP_TEXT}"),
        format!("meta l4proto {ICMP_TEXT} @th,0,8 != {icmp_type}"),
    ];
    if let Some(code) = code {
        all.push(format!("meta l4proto {ICMP_TEXT} @th,0,8 {icmp_type} @th,8,8 != {code}"));
    }
    Alternatives(all)
}

fn ports(rule: &Rule, family: Option<Family>) -> Alternatives {
    let ends = [(&rule.source, Side::Source), (&rule.destination, Side::Destination)];
    let wants = ends.iter().any(|(end, _)| !end.ports.is_empty() || !end.named_ports.is_empty());
    let refuses = ends.iter().any(|(end, _)| !end.not_ports.is_empty() || !end.not_named_ports.is_empty());
    if !wants && !refuses {
        return Alternatives::always();
    }
    let of_ports = |guard: &str| {
        let mut all = Alternatives(vec![guard.to_owned()]);
        for (end, side) in ends {
            all = all.and(wanted_ports(end, side, family));
            for refused in refused_ports(end, side, family) {
                all = all.and_text(refused);
            }
        }
        all
    };
    let guard = format!("meta l4proto {WITH_PORTS_TEXT}");
    match rule.protocol {
        Some(protocol) if WITH_PORTS.contains(&protocol) => of_ports(""),
        // A packet without ports has none of those that are wanted, and none of those that are refused.
        Some(_) if wants => Alternatives(Vec::new()),
        Some(_) => Alternatives::always(),
        None if wants => of_ports(&guard),
        None => {
            let mut all = of_ports(&guard);
            all.0.push(format!("meta l4proto != {WITH_PORTS_TEXT}"));
            all
        }
    }
}

fn wanted_ports(end: &EndMatch, side: Side, family: Option<Family>) -> Alternatives {
    if end.ports.is_empty() && end.named_ports.is_empty() {
        return Alternatives::always();
    }
    let questions: Vec<Question> = questions(&end.ports, &end.named_ports, side, family).collect();
    let one = |number: usize| {
        let earlier = questions[..number].iter().map(Question::no);
        earlier.chain([questions[number].yes()]).collect::<Vec<_>>().join(" ")
    };
    Alternatives((0..questions.len()).map(one).collect())
}

fn refused_ports(end: &EndMatch, side: Side, family: Option<Family>) -> Vec<String> {
    questions(&end.not_ports, &end.not_named_ports, side, family).map(|question| question.no()).collect()
}

/// A key that is in a list or isn't.
struct Question {
    key: String,
    list: String,
}

impl Question {
    fn yes(&self) -> String {
        format!("{} {}", self.key, self.list)
    }

    fn no(&self) -> String {
        format!("{} != {}", self.key, self.list)
    }
}

fn questions<'a>(
    ports: &'a [PortRange],
    named: &'a [SetId],
    side: Side,
    family: Option<Family>,
) -> impl Iterator<Item = Question> + 'a {
    let port = match side {
        Side::Source => "th sport",
        Side::Destination => "th dport",
    };
    let numbers = (!ports.is_empty()).then(|| Question {
        key: port.to_owned(),
        list: braced(merged(ports).iter().map(|range| match range.first == range.last {
            true => range.first.to_string(),
            false => format!("{}-{}", range.first, range.last),
        })),
    });
    let named = family.into_iter().flat_map(move |family| {
        named.iter().map(move |set| Question {
            key: format!("{} . meta l4proto . {port}", address_of(side, family)),
            list: format!("@{}", ports_name(*set, family)),
        })
    });
    numbers.into_iter().chain(named)
}

/// Ranges in order, those that touch or overlap as one: the kernel refuses intervals that overlap.
fn merged(ports: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

/// One item as it is, several in braces.
fn braced(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.as_slice() {
        [one] => one.clone(),
        several => format!("{{ {} }}", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::rule::Action;

    fn rule(change: impl FnOnce(&mut Rule)) -> Rule {
        let mut rule = Rule::any(Action::Allow);
        change(&mut rule);
        rule
    }

    #[test]
    fn a_rule_about_everything_asks_nothing() {
        assert_eq!(matches(&rule(|_| ())), [""]);
    }

    #[test]
    fn networks_of_one_family_are_a_line_of_that_family() {
        let rule = rule(|rule| {
            rule.protocol = Some(6);
            rule.source.nets = vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
            rule.destination.ports = vec![(80..=90).into(), (91..=91).into(), (443..=443).into()];
        });
        assert_eq!(
            matches(&rule),
            ["meta nfproto ipv4 ip saddr 10.0.0.0/8 meta l4proto 6 th dport { 80-91, 443 }"]
        );
    }

    #[test]
    fn ports_by_number_and_by_name_never_match_the_same_packet_twice() {
        let rule = rule(|rule| {
            rule.family = Some(Family::V4);
            rule.protocol = Some(6);
            rule.destination.ports = vec![(80..=80).into()];
            rule.destination.named_ports = vec![SetId(7)];
        });
        assert_eq!(
            matches(&rule),
            [
                "meta nfproto ipv4 meta l4proto 6 th dport 80",
                "meta nfproto ipv4 meta l4proto 6 th dport != 80 ip daddr . meta l4proto . th dport @ports4-7",
            ]
        );
    }

    #[test]
    fn refused_ports_say_nothing_of_packets_that_have_none() {
        let refusing = rule(|rule| rule.destination.not_ports = vec![(80..=80).into()]);
        assert_eq!(
            matches(&refusing),
            ["meta l4proto { 6, 17, 132 } th dport != 80", "meta l4proto != { 6, 17, 132 }"]
        );
        let of_icmp = rule(|rule| {
            rule.protocol = Some(1);
            rule.destination.not_ports = vec![(80..=80).into()];
        });
        assert_eq!(matches(&of_icmp), ["meta l4proto 1"]);
    }

    #[test]
    fn what_nobody_is_matches_nobody() {
        let nobody = rule(|rule| rule.source.not_nets = vec![Prefix::DEFAULT_V4, Prefix::DEFAULT_V6]);
        assert!(matches(&nobody).is_empty());
        let everybody = rule(|rule| rule.source.nets = vec![Prefix::DEFAULT_V4]);
        assert_eq!(matches(&everybody), ["meta nfproto ipv4"]);
    }
}
