//! Rules of policies and profiles (`api/pkg/apis/projectcalico/v3/policy_common.go`), held to what `validateRule` and
//! the rules of its schema say.

use std::collections::BTreeSet;

use model::{
    Action, EntityRule, Family, IcmpMatch, PolicyRule, PortMatch, Prefix, Protocol, ServiceAccountMatch,
    ServiceMatch,
};

use crate::fields::{Fault, Field, Object};
use crate::invalid::{Position, Reason};
use crate::metadata::{self, Naming};
use crate::validate;

const ACTIONS: &[&str] = &["Allow", "Deny", "Log", "Pass"];
const MEANINGS: &[Action] = &[Action::Allow, Action::Deny, Action::Log, Action::Pass];
/// What Calico takes at most: rules of one direction, networks, ports, methods or paths of one list.
const RULES_MAX: usize = 1024;
const NETS_MAX: usize = 256;
const PORTS_MAX: usize = 50;
const HTTP_MAX: usize = 20;
/// Characters of one path.
const HTTP_PATH_MAX: usize = 1024;

/// Where a rule stands, which decides what it may ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The direction; none in profiles, whose rules Calico holds to less.
    ingress: Option<bool>,
    namespaced: bool,
    /// Written by OpenStack's driver.
    openstack: bool,
}

impl Place {
    pub(super) const PROFILE: Place = Place { ingress: None, namespaced: false, openstack: false };

    pub(super) fn policy(ingress: bool, namespaced: bool, openstack: bool) -> Place {
        Place { ingress: Some(ingress), namespaced, openstack }
    }
}

/// Fields that ask for something that isn't done, with their places.
type Unused = Vec<(String, Option<Position>)>;

/// The rules of one direction.
pub(super) fn list(
    spec: &Object<'_>,
    name: &str,
    place: Place,
    unused: &mut Unused,
) -> Result<Vec<PolicyRule>, Fault> {
    let Some(list) = spec.field(name) else { return Ok(Vec::new()) };
    let mut rules = Vec::new();
    for item in list.items()? {
        validate::at_most(&list, rules.len() + 1, RULES_MAX, "rules")?;
        rules.push(rule(&item.object()?, place, unused)?);
    }
    Ok(rules)
}

fn rule(rule: &Object<'_>, place: Place, unused: &mut Unused) -> Result<PolicyRule, Fault> {
    let protocol = |name| rule.field(name).map(|field| validate::protocol(&field)).transpose();
    let (source, destination) = (rule.object("source")?, rule.object("destination")?);
    let read = PolicyRule {
        action: rule.required("action")?.one_of(ACTIONS, MEANINGS)?,
        family: family(rule)?,
        protocol: protocol("protocol")?,
        not_protocol: protocol("notProtocol")?,
        icmp: icmp(rule, "icmp")?,
        not_icmp: icmp(rule, "notICMP")?,
        source: entity(&source)?,
        destination: entity(&destination)?,
        http: http(rule)?,
    };
    metadata::annotations(&rule.object("metadata")?)?;
    check_icmp(rule, &read)?;
    check_ports(&source, &read, place)?;
    check_ports(&destination, &read, place)?;
    check_families(rule, &read)?;
    check_services(&source, &read.source, place, false)?;
    check_services(&destination, &read.destination, place, true)?;
    if let Some(field) = rule.field("http") {
        check_http(&field, &read, place)?;
    }
    // Requests aren't looked into, so such a rule is about all packets that the rest of it is about; of services nothing
    // is known, so theirs matches nothing. Felix does the same without an application layer and without Kubernetes.
    for field in [rule.field("http"), source.field("services"), destination.field("services")] {
        unused.extend(field.map(|field| (field.path().to_owned(), field.position())));
    }
    Ok(read)
}

fn family(rule: &Object<'_>) -> Result<Option<Family>, Fault> {
    let Some(field) = rule.field("ipVersion") else { return Ok(None) };
    match field.number::<u8>(4, 6)? {
        4 => Ok(Some(Family::V4)),
        6 => Ok(Some(Family::V6)),
        other => Err(field.fault(Reason::OutOfRange { given: other.into(), min: 4, max: 6 })),
    }
}

/// A type, and a code of it; nothing where neither is given.
fn icmp(rule: &Object<'_>, name: &str) -> Result<Option<IcmpMatch>, Fault> {
    let icmp = rule.object(name)?;
    let icmp_type = icmp.field("type").map(|field| field.number(0, 254)).transpose()?;
    let code = icmp.field("code").map(|field| Ok((field.number(0, 255)?, field))).transpose()?;
    match (icmp_type, code) {
        (None, Some((_, field))) => Err(field.fault(Reason::Needs("a type"))),
        (None, None) => Ok(None),
        (Some(icmp_type), code) => Ok(Some(IcmpMatch { icmp_type, code: code.map(|(code, _)| code) })),
    }
}

fn check_icmp(rule: &Object<'_>, read: &PolicyRule) -> Result<(), Fault> {
    let is_icmp = |protocol| matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
    if let Some(field) = rule.field("icmp")
        && !read.protocol.is_some_and(is_icmp)
    {
        return Err(field.fault(Reason::IcmpNeedsProtocol));
    }
    for protocol in [read.protocol, read.not_protocol].into_iter().flatten() {
        let (family, number) = match protocol {
            Protocol::ICMP => (Family::V4, 4),
            Protocol::ICMPV6 => (Family::V6, 6),
            _ => continue,
        };
        if read.family.is_some_and(|given| given != family) {
            let reason = Reason::ProtocolOfOtherFamily { protocol, family: number };
            return Err(rule.required("ipVersion")?.fault(reason));
        }
    }
    Ok(())
}

fn entity(entity: &Object<'_>) -> Result<EntityRule, Fault> {
    Ok(EntityRule {
        nets: nets(entity, "nets")?,
        not_nets: nets(entity, "notNets")?,
        selector: validate::plain_selector(entity, "selector")?,
        not_selector: validate::selector(entity, "notSelector")?,
        namespace_selector: namespace_selector(entity)?,
        service_accounts: service_accounts(entity)?,
        service: service(entity)?,
        ports: ports(entity, "ports")?,
        not_ports: ports(entity, "notPorts")?,
    })
}

/// Networks without host bits, always with a length.
fn nets(entity: &Object<'_>, name: &str) -> Result<Vec<Prefix>, Fault> {
    let Some(list) = entity.field(name) else { return Ok(Vec::new()) };
    let mut nets = Vec::new();
    for item in list.items()? {
        validate::at_most(&list, nets.len() + 1, NETS_MAX, "networks")?;
        let net = validate::masked_prefix(&item)?;
        if !item.text()?.contains('/') {
            let given = item.text()?.to_owned();
            return Err(item.fault(Reason::NotStrictlyMasked { given, masked: net }));
        }
        if name == "notNets" && net.is_default() {
            return Err(item.fault(Reason::NegatedEverything(net)));
        }
        nets.push(net);
    }
    Ok(nets)
}

fn ports(entity: &Object<'_>, name: &str) -> Result<Vec<PortMatch>, Fault> {
    let Some(list) = entity.field(name) else { return Ok(Vec::new()) };
    let mut ports = Vec::new();
    for item in list.items()? {
        validate::at_most(&list, ports.len() + 1, PORTS_MAX, "ports")?;
        ports.push(validate::port_match(&item)?);
    }
    Ok(ports)
}

/// Of namespaces' labels, or `global()` alone.
fn namespace_selector(entity: &Object<'_>) -> Result<Option<String>, Fault> {
    let Some((field, text)) = entity.text("namespaceSelector")? else { return Ok(None) };
    let selector = validate::parsed_selector(&field)?;
    if text.contains("global(") && "global()".parse().as_ref() != Ok(&selector) {
        return Err(field.fault(Reason::GlobalSelector));
    }
    Ok(Some(text.to_owned()))
}

fn service_accounts(entity: &Object<'_>) -> Result<Option<ServiceAccountMatch>, Fault> {
    let Some(field) = entity.field("serviceAccounts") else { return Ok(None) };
    let accounts = field.object()?;
    let names = match accounts.field("names") {
        Some(names) => {
            names.items()?.map(|item| item.text().map(str::to_owned)).collect::<Result<Vec<_>, Fault>>()?
        }
        None => Vec::new(),
    };
    Ok(Some(ServiceAccountMatch { names, selector: validate::selector(&accounts, "selector")? }))
}

fn service(entity: &Object<'_>) -> Result<Option<ServiceMatch>, Fault> {
    let Some(field) = entity.field("services") else { return Ok(None) };
    let service = field.object()?;
    let named = |field: Field<'_>| {
        Naming::Subdomain.check("Service", &field)?;
        field.text().map(str::to_owned)
    };
    Ok(Some(ServiceMatch {
        name: named(service.required_text("name")?.0)?,
        namespace: service.text("namespace")?.map(|(field, _)| named(field)).transpose()?,
    }))
}

/// Ports by number need a protocol that has some, ports by name none that has none.
fn check_ports(entity: &Object<'_>, read: &PolicyRule, place: Place) -> Result<(), Fault> {
    for name in ["ports", "notPorts"] {
        let Some(list) = entity.field(name) else { continue };
        for item in list.items()? {
            let good = match read.protocol {
                Some(protocol) => protocol.has_ports(),
                None => place.openstack || matches!(validate::port_match(&item)?, PortMatch::Named(_)),
            };
            if !good {
                return Err(item.fault(Reason::PortsNeedProtocol));
            }
        }
    }
    Ok(())
}

/// All networks are of one family, which is the rule's where it has one.
fn check_families(rule: &Object<'_>, read: &PolicyRule) -> Result<(), Fault> {
    let (source, destination) = (&read.source, &read.destination);
    let mut families: BTreeSet<Family> = read.family.into_iter().collect();
    for (end, name, nets) in [
        ("source", "nets", &source.nets),
        ("source", "notNets", &source.not_nets),
        ("destination", "nets", &destination.nets),
        ("destination", "notNets", &destination.not_nets),
    ] {
        families.extend(nets.iter().map(|net| net.family()));
        if families.len() > 1 {
            return Err(rule.object(end)?.required(name)?.fault(Reason::MixedFamilies));
        }
    }
    Ok(())
}

/// A service is asked for at the far end, alone, and by its full name where no namespace is the policy's own.
fn check_services(
    entity: &Object<'_>,
    read: &EntityRule,
    place: Place,
    at_destination: bool,
) -> Result<(), Fault> {
    let (Some(field), Some(service)) = (entity.field("services"), &read.service) else { return Ok(()) };
    for other in ["selector", "notSelector", "namespaceSelector", "serviceAccounts", "nets", "notNets"] {
        if let Some(other) = entity.field(other)
            && (!other.is_empty() || other.path().ends_with("serviceAccounts"))
        {
            return Err(other.fault(Reason::Exclusive("services of the same end")));
        }
    }
    if at_destination {
        for other in ["ports", "notPorts"] {
            if let Some(other) = entity.field(other).filter(|other| !other.is_empty()) {
                return Err(other.fault(Reason::Exclusive("services of the destination: they have ports")));
            }
        }
    }
    let Some(ingress) = place.ingress else { return Ok(()) };
    if at_destination == ingress {
        let reason = if ingress { "the destination of ingress" } else { "the source of egress" };
        return Err(field.fault(Reason::OutOfPlace(reason)));
    }
    if !place.namespaced && service.namespace.is_none() {
        return Err(field.fault(Reason::Needs("a namespace, as the policy has none of its own")));
    }
    Ok(())
}

/// Does the rule ask for methods or paths? They are held to their rules all the same.
fn http(rule: &Object<'_>) -> Result<bool, Fault> {
    let Some(field) = rule.field("http") else { return Ok(false) };
    let http = field.object()?;
    if let Some(list) = http.field("methods") {
        let mut seen = BTreeSet::new();
        for item in list.items()? {
            let method = item.text()?;
            validate::at_most(&list, seen.len() + 1, HTTP_MAX, "methods")?;
            if !seen.insert(method) {
                return Err(item.fault(Reason::Twice(method.to_owned())));
            }
        }
    }
    if let Some(list) = http.field("paths") {
        for (number, item) in list.items()?.enumerate() {
            validate::at_most(&list, number + 1, HTTP_MAX, "paths")?;
            http_path(&item)?;
        }
    }
    Ok(true)
}

/// `exact` or `prefix`, never both (RFC 3986 §3.3).
fn http_path(item: &Field<'_>) -> Result<(), Fault> {
    let path = item.object()?;
    let (field, text) = match (path.text("exact")?, path.text("prefix")?) {
        (Some((field, _)), Some(_)) => return Err(field.fault(Reason::Exclusive("prefix"))),
        (Some(path), None) | (None, Some(path)) => path,
        (None, None) => return Err(item.fault(Reason::Needs("exact or prefix"))),
    };
    validate::at_most(&field, text.chars().count(), HTTP_PATH_MAX, "characters")?;
    if !text.starts_with('/') || text.contains(['?', '#', ' ']) {
        return Err(field.fault(Reason::BadHttpPath(text.to_owned())));
    }
    Ok(())
}

fn check_http(field: &Field<'_>, read: &PolicyRule, place: Place) -> Result<(), Fault> {
    let out_of_place = |reason| Err(field.fault(Reason::OutOfPlace(reason)));
    if read.protocol.is_some_and(|protocol| protocol != Protocol::TCP) {
        return out_of_place("a rule of another protocol than TCP");
    }
    if read.action != Action::Allow {
        return out_of_place("a rule that doesn't allow");
    }
    if place.ingress == Some(false) {
        return out_of_place("egress");
    }
    Ok(())
}
