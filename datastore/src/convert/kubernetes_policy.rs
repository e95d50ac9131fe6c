//! StagedKubernetesNetworkPolicy: a policy in Kubernetes' words, translated as Calico does it
//! (`libcalico-go/lib/backend/k8s/conversion/conversion.go`).

use std::collections::BTreeMap;

use model::{
    Action, EntityRule, NetworkPolicy, Order, PolicyKind, PolicyRule, PortMatch, PortRange, Prefix, Protocol,
    Resource, StagedAction,
};

use super::policy::{check_says_nothing, key, staged_action};
use super::{Identity, Outcome};
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::metadata::{self, Naming};
use crate::validate;

const KIND: PolicyKind = PolicyKind::StagedKubernetesNetworkPolicy;
/// Where all of Kubernetes' policies stand in the default tier.
const ORDER: f64 = 1000.0;
/// Pods are all that these policies select.
const IS_POD: &str = "projectcalico.org/orchestrator == 'k8s'";

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    Naming::Subdomain.check(KIND.name(), &identity.name_field)?;
    let mut policy = NetworkPolicy::empty(key(KIND, identity));
    policy.staged_action = staged_action(KIND, spec)?;
    if policy.staged_action == Some(StagedAction::Delete) {
        check_says_nothing(spec, &["stagedAction"])?;
        return Ok(Outcome::of(Resource::NetworkPolicy(policy)));
    }
    policy.order = Order::new(ORDER).unwrap_or_default();
    policy.selector = pods(&spec.object("podSelector")?)?;
    policy.ingress = rules(spec, "ingress", "from")?;
    policy.egress = rules(spec, "egress", "to")?;
    let types = spec.field("policyTypes").filter(|field| !field.is_empty());
    policy.applies_to_ingress = types.is_none();
    policy.applies_to_egress = types.is_none() && !policy.egress.is_empty();
    if let Some(list) = types {
        for item in list.items()? {
            match item.one_of(&["Ingress", "Egress"], &[true, false])? {
                true => policy.applies_to_ingress = true,
                false => policy.applies_to_egress = true,
            }
        }
    }
    Ok(Outcome::of(Resource::NetworkPolicy(policy)))
}

/// Each protocol with each peer is a rule; no ports, and no peers, are all.
fn rules(spec: &Object<'_>, direction: &str, peers: &str) -> Result<Vec<PolicyRule>, Fault> {
    let Some(list) = spec.field(direction) else { return Ok(Vec::new()) };
    let mut rules = Vec::new();
    for item in list.items()? {
        let rule = item.object()?;
        let mut ends = Vec::new();
        if let Some(list) = rule.field(peers) {
            for peer in list.items()? {
                ends.push(entity(&peer.object()?)?);
            }
        }
        if ends.is_empty() {
            ends.push(EntityRule::default());
        }
        for (protocol, ports) in ports(&rule)? {
            for end in &ends {
                let mut rule = PolicyRule { protocol, ..PolicyRule::any(Action::Allow) };
                let far = if direction == "ingress" { &mut rule.source } else { &mut rule.destination };
                far.clone_from(end);
                rule.destination.ports.clone_from(&ports);
                rules.push(rule);
            }
        }
    }
    Ok(rules)
}

fn entity(peer: &Object<'_>) -> Result<EntityRule, Fault> {
    if let Some(block) = peer.field("ipBlock") {
        let block = block.object()?;
        let not_nets = match block.field("except") {
            Some(list) => list.items()?.map(|net| net.parse()).collect::<Result<Vec<Prefix>, Fault>>()?,
            None => Vec::new(),
        };
        return Ok(EntityRule {
            nets: vec![block.required("cidr")?.parse()?],
            not_nets,
            ..EntityRule::default()
        });
    }
    Ok(EntityRule {
        selector: Some(pods(&peer.object("podSelector")?)?),
        namespace_selector: match peer.field("namespaceSelector") {
            Some(field) => Some(namespaces(&field.object()?)?),
            None => None,
        },
        ..EntityRule::default()
    })
}

/// Ports of one protocol; without one it is any.
type PortsOfProtocol = (Option<Protocol>, Vec<PortMatch>);

/// Ports by protocol, in the order of the protocols' names; all of them where none are given.
fn ports(rule: &Object<'_>) -> Result<Vec<PortsOfProtocol>, Fault> {
    let Some(list) = rule.field("ports").filter(|list| !list.is_empty()) else {
        return Ok(vec![(None, Vec::new())]);
    };
    let mut all: BTreeMap<Protocol, Vec<PortMatch>> = BTreeMap::new();
    let mut whole = Vec::new();
    for item in list.items()? {
        let port = item.object()?;
        let protocol = match port.field("protocol") {
            Some(field) => validate::protocol_with_ports(&field)?,
            None => Protocol::TCP,
        };
        let ports = all.entry(protocol).or_default();
        match port.field("port") {
            Some(field) => ports.push(port_match(&field, &port)?),
            None => whole.push(protocol),
        }
    }
    for protocol in whole {
        all.insert(protocol, Vec::new());
    }
    let mut all: Vec<_> =
        all.into_iter().map(|(protocol, ports)| (Some(protocol), simplified(ports))).collect();
    all.sort_by_key(|(protocol, _)| protocol.map(|protocol| protocol.to_string()));
    Ok(all)
}

/// Names first, then the fewest ranges of numbers.
fn simplified(ports: Vec<PortMatch>) -> Vec<PortMatch> {
    let (names, numbers): (Vec<_>, Vec<_>) =
        ports.iter().cloned().partition(|port| matches!(port, PortMatch::Named(_)));
    let single = |port: &PortMatch| matches!(port, PortMatch::Numbers(range) if range.first == range.last);
    if ports.len() <= 1 || numbers.is_empty() || numbers.len() == 1 && single(&numbers[0]) {
        // Nothing to join: as they were given.
        return ports;
    }
    let mut ranges: Vec<PortRange> = numbers
        .into_iter()
        .filter_map(|port| if let PortMatch::Numbers(range) = port { Some(range) } else { None })
        .collect();
    ranges.sort();
    let mut joined: Vec<PortRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last);
            }
            _ => joined.push(range),
        }
    }
    names.into_iter().chain(joined.into_iter().map(PortMatch::Numbers)).collect()
}

fn port_match(field: &Field<'_>, port: &Object<'_>) -> Result<PortMatch, Fault> {
    let given = validate::port_match(field)?;
    let Some(end) = port.field("endPort") else { return Ok(given) };
    let last = validate::port(&end)?;
    match given {
        PortMatch::Numbers(range) if range.first <= last => {
            Ok(PortMatch::Numbers(PortRange { first: range.first, last }))
        }
        _ => Err(end.fault(Reason::Needs("a port that is a number, not above it"))),
    }
}

fn pods(selector: &Object<'_>) -> Result<String, Fault> {
    let mut terms = terms(selector)?;
    terms.insert(0, IS_POD.to_owned());
    Ok(terms.join(" && "))
}

fn namespaces(selector: &Object<'_>) -> Result<String, Fault> {
    let terms = terms(selector)?;
    Ok(if terms.is_empty() { "all()".to_owned() } else { terms.join(" && ") })
}

/// A label selector of Kubernetes in Calico's language. Names and values are checked before, so none can escape its quotes.
fn terms(selector: &Object<'_>) -> Result<Vec<String>, Fault> {
    let labels = metadata::labels(&selector.object("matchLabels")?)?;
    let mut terms: Vec<String> = labels.iter().map(|(name, value)| format!("{name} == '{value}'")).collect();
    let Some(list) = selector.field("matchExpressions") else { return Ok(terms) };
    for item in list.items()? {
        let expression = item.object()?;
        let (key, name) = expression.required_text("key")?;
        metadata::check_label_name(&key)?;
        let mut values = Vec::new();
        if let Some(list) = expression.field("values") {
            for value in list.items()? {
                metadata::check_label_value(&value)?;
                values.push(format!("'{}'", value.text()?));
            }
        }
        let values = values.join(", ");
        const OPERATORS: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist"];
        terms.push(match expression.required("operator")?.one_of(OPERATORS, OPERATORS)? {
            "In" => format!("{name} in {{ {values} }}"),
            "NotIn" => format!("{name} not in {{ {values} }}"),
            "Exists" => format!("has({name})"),
            _ => format!("! has({name})"),
        });
    }
    Ok(terms)
}
