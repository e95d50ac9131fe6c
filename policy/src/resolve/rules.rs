//! Rules as resources write them become rules of sets (`felix/calc/rule_scanner.go`, `felix/rules/policy.go`).
//!
//! Every rule keeps its place: one that can't match becomes [`Rule::never`].

use model::{EntityRule, Family, PolicyRule, PortMatch, Prefix, Protocol};

use super::address_sets::SetSpec;
use super::compose::{self, Composed};
use crate::rule::{EndMatch, Rule, SetId};
use crate::selector::{Selector, SelectorError};

/// A rule whose selectors were read, and whose sets have no numbers yet.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// The rule; the numbers of its sets are places in `sets`.
    rule: Rule,
    sets: Vec<SetSpec>,
}

impl Draft {
    /// The rule with sets as `id` numbers them.
    pub(super) fn with_sets(&self, id: &mut impl FnMut(&SetSpec) -> SetId) -> Rule {
        let ids: Vec<SetId> = self.sets.iter().map(id).collect();
        let mut rule = self.rule.clone();
        for end in [&mut rule.source, &mut rule.destination] {
            let lists = [&mut end.sets, &mut end.not_sets, &mut end.named_ports, &mut end.not_named_ports];
            lists.into_iter().flatten().for_each(|set| *set = ids[set.0 as usize]);
        }
        rule
    }
}

/// Rules of a policy of this namespace, or of a global policy or a profile; beside them what was left out of their
/// selectors.
///
/// # Errors
/// A selector can't be read.
pub(super) fn drafts(
    rules: &[PolicyRule],
    namespace: Option<&str>,
) -> Result<Composed<Vec<Draft>>, SelectorError> {
    let mut left_out = Vec::new();
    let drafts = rules.iter().map(|rule| draft(rule, namespace, &mut left_out)).collect::<Result<_, _>>()?;
    Ok(Composed { selector: drafts, left_out })
}

fn draft(
    rule: &PolicyRule,
    namespace: Option<&str>,
    left_out: &mut Vec<SelectorError>,
) -> Result<Draft, SelectorError> {
    let mut sets = Vec::new();
    // Named ports have a protocol of their own; a rule without a protocol that has ports means TCP's.
    let named = rule.protocol.filter(|protocol| protocol.has_ports()).unwrap_or(Protocol::TCP);
    let mut ends = [EndMatch::default(), EndMatch::default()];
    for (end, field) in ends.iter_mut().zip([&rule.source, &rule.destination]) {
        *end = end_match(field, namespace, named, &mut sets, left_out)?;
    }
    let [source, destination] = ends;
    let compiled = Rule {
        action: rule.action,
        family: None,
        protocol: rule.protocol.map(|protocol| protocol.0),
        not_protocol: rule.not_protocol.map(|protocol| protocol.0),
        icmp: rule.icmp,
        not_icmp: rule.not_icmp,
        source,
        destination,
    };
    // Methods and paths are the application layer's to look into: as in Felix, the rest of the rule holds without them. What
    // is behind a service is Kubernetes' to say; as in Felix without it, that is nobody.
    let nobody = [&rule.source, &rule.destination].iter().any(|end| end.service.is_some());
    match families(rule).as_slice() {
        [] => Ok(Draft { rule: Rule::never(rule.action), sets: Vec::new() }),
        _ if nobody => Ok(Draft { rule: Rule::never(rule.action), sets: Vec::new() }),
        [family] => Ok(Draft { rule: of_family(compiled, *family), sets }),
        _ => Ok(Draft { rule: compiled, sets }),
    }
}

/// The families that a rule may match: a list of networks without one of a family takes that family away, and so does
/// refusing all of its addresses (`FilterRuleToIPVersion`).
pub(crate) fn families(rule: &PolicyRule) -> Vec<Family> {
    let own = rule.family.or(match rule.protocol {
        Some(Protocol::ICMP) => Some(Family::V4),
        Some(Protocol::ICMPV6) => Some(Family::V6),
        _ => None,
    });
    let has = |nets: &[Prefix], family| nets.is_empty() || nets.iter().any(|net| net.family() == family);
    let refuses_all =
        |nets: &[Prefix], family| nets.iter().any(|net| net.is_default() && net.family() == family);
    let ends = [&rule.source, &rule.destination];
    let may = |family: &Family| {
        own.is_none_or(|own| own == *family)
            && ends.iter().all(|end| has(&end.nets, *family) && has(&end.not_nets, *family))
            && !ends.iter().any(|end| refuses_all(&end.not_nets, *family))
    };
    Family::ALL.into_iter().filter(may).collect()
}

/// The rule for one family alone.
fn of_family(mut rule: Rule, family: Family) -> Rule {
    rule.family = Some(family);
    for end in [&mut rule.source, &mut rule.destination] {
        end.nets.retain(|net| net.family() == family);
        end.not_nets.retain(|net| net.family() == family);
    }
    rule
}

fn end_match(
    end: &EntityRule,
    namespace: Option<&str>,
    protocol: Protocol,
    sets: &mut Vec<SetSpec>,
    left_out: &mut Vec<SelectorError>,
) -> Result<EndMatch, SelectorError> {
    let composed = compose::of_end(end, namespace)?;
    left_out.extend(composed.left_out);
    let not = end.not_selector.as_deref().map(str::parse::<Selector>).transpose()?;
    // Whom a rule selects is known, and those it refuses can be taken out of them. Where it selects nobody in
    // particular, it also means those whom nobody knows, and refusing stays a question of its own.
    let (whom, not) = match (composed.selector, not) {
        (Some(whom), Some(not)) => (Some(whom.and(&not.negated())), None),
        either => either,
    };
    let mut set = |selector: &Selector, named_port: Option<&str>| {
        let named_port = named_port.map(|name| (protocol, name.to_owned()));
        sets.push(SetSpec { selector: selector.clone(), named_port });
        SetId(sets.len() as u32 - 1)
    };
    let everyone = Selector::all();
    // Refused ports are looked up among the selected as well: the rule is about nobody else.
    let among = whom.as_ref().unwrap_or(&everyone);
    let mut named = |ports: &[PortMatch]| -> Vec<SetId> {
        let names = ports.iter().filter_map(|port| match port {
            PortMatch::Named(name) => Some(name),
            PortMatch::Numbers(_) => None,
        });
        names.map(|name| set(among, Some(name))).collect()
    };
    let numbers = |ports: &[PortMatch]| {
        let ranges = ports.iter().filter_map(|port| match port {
            PortMatch::Numbers(range) => Some(*range),
            PortMatch::Named(_) => None,
        });
        ranges.collect::<Vec<_>>()
    };
    let (named_ports, not_named_ports) = (named(&end.ports), named(&end.not_ports));
    let ports = numbers(&end.ports);
    // Where only ports with names are asked for, their sets hold none but the selected already.
    let is_said = !named_ports.is_empty() && ports.is_empty();
    Ok(EndMatch {
        nets: end.nets.clone(),
        not_nets: end.not_nets.clone(),
        sets: whom.iter().filter(|_| !is_said).map(|whom| set(whom, None)).collect(),
        not_sets: not.iter().map(|not| set(not, None)).collect(),
        ports,
        named_ports,
        not_ports: numbers(&end.not_ports),
        not_named_ports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Action, PortRange, ServiceMatch};

    fn nets(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The compiled rule, and the sets that it names, in the order of their numbers.
    fn compiled(rule: &PolicyRule) -> (Rule, Vec<SetSpec>) {
        let draft = draft(rule, None, &mut Vec::new()).unwrap();
        let mut sets = Vec::new();
        let rule = draft.with_sets(&mut |spec| {
            sets.push(spec.clone());
            SetId(sets.len() as u32 - 1)
        });
        (rule, sets)
    }

    fn from(source: EntityRule) -> PolicyRule {
        PolicyRule { source, ..PolicyRule::any(Action::Allow) }
    }

    #[test]
    fn networks_of_one_family_make_a_rule_of_that_family() {
        let of = |source: EntityRule| compiled(&from(source)).0;
        let v4 = of(EntityRule { nets: nets(&["10.0.0.0/8"]), ..EntityRule::default() });
        assert_eq!((v4.family, v4.source.nets.len()), (Some(Family::V4), 1));
        let not_v6 = of(EntityRule { not_nets: nets(&["fd00::/8"]), ..EntityRule::default() });
        assert_eq!(not_v6.family, Some(Family::V6));
        let mixed = of(EntityRule { nets: nets(&["10.0.0.0/8", "fd00::/8"]), ..EntityRule::default() });
        assert_eq!((mixed.family, mixed.source.nets.len()), (None, 2));
    }

    #[test]
    fn a_rule_whose_ends_share_no_family_keeps_its_place_and_never_matches() {
        let mut rule = from(EntityRule { nets: nets(&["10.0.0.0/8"]), ..EntityRule::default() });
        rule.destination.nets = nets(&["fd00::/8"]);
        assert_eq!(compiled(&rule).0, Rule::never(Action::Allow));
        let rule = PolicyRule {
            family: Some(Family::V6),
            ..from(EntityRule { not_nets: nets(&["10.0.0.0/8"]), ..EntityRule::default() })
        };
        assert_eq!(compiled(&rule).0, Rule::never(Action::Allow));
    }

    #[test]
    fn refusing_every_address_of_a_family_leaves_the_other() {
        let rule = from(EntityRule { not_nets: nets(&["0.0.0.0/0", "fd00::/8"]), ..EntityRule::default() });
        let (rule, _) = compiled(&rule);
        assert_eq!((rule.family, rule.source.not_nets), (Some(Family::V6), nets(&["fd00::/8"])));
    }

    #[test]
    fn icmp_is_ipv4s_and_icmpv6_is_ipv6s() {
        for (protocol, family) in
            [(Protocol::ICMP, Some(Family::V4)), (Protocol::ICMPV6, Some(Family::V6)), (Protocol::TCP, None)]
        {
            let rule = PolicyRule { protocol: Some(protocol), ..PolicyRule::any(Action::Deny) };
            assert_eq!(compiled(&rule).0.family, family);
        }
    }

    #[test]
    fn requests_are_not_looked_into_and_behind_a_service_is_nobody() {
        let selected = EntityRule { selector: Some("a == 'b'".to_owned()), ..EntityRule::default() };
        let rule = PolicyRule { protocol: Some(Protocol::TCP), ..from(selected) };
        assert_eq!(compiled(&PolicyRule { http: true, ..rule.clone() }), compiled(&rule));
        let service = Some(ServiceMatch { name: "web".to_owned(), namespace: None });
        let rule = from(EntityRule { service, ..EntityRule::default() });
        assert_eq!(compiled(&rule), (Rule::never(Action::Allow), vec![]));
    }

    #[test]
    fn named_ports_alone_say_who_is_selected_and_beside_numbers_they_do_not() {
        let http = PortMatch::Named("http".to_owned());
        let mut end =
            EntityRule { selector: Some("a == 'b'".to_owned()), ports: vec![http], ..EntityRule::default() };
        let (rule, sets) = compiled(&from(end.clone()));
        assert_eq!((rule.source.sets.len(), rule.source.named_ports.len(), sets.len()), (0, 1, 1));
        assert_eq!(sets[0].selector.to_string(), "a == \"b\"");
        assert_eq!(sets[0].named_port, Some((Protocol::TCP, "http".to_owned())));

        end.ports.push(PortMatch::Numbers(PortRange { first: 80, last: 80 }));
        let (rule, sets) = compiled(&from(end));
        assert_eq!((rule.source.sets.len(), rule.source.named_ports.len(), sets.len()), (1, 1, 2));
    }

    #[test]
    fn a_refused_selector_alone_stays_a_refusal() {
        let not_selector = Some("a == 'b'".to_owned());
        let (rule, sets) = compiled(&from(EntityRule { not_selector, ..EntityRule::default() }));
        assert_eq!((rule.source.sets.len(), rule.source.not_sets.len()), (0, 1));
        assert_eq!(sets[0].selector.to_string(), "a == \"b\"");
    }
}
