//! What is read here as it is meant, and what Calico holds whoever writes it to all the same: a site's manifests are refused
//! where calicoctl refuses them. Who follows a datastore reads on.

use model::{ClusterRoutes, ParseAddrError, PolicyKind, PortMatch};

use super::unread::{ON_OFF, items, word};
use super::{Kind, block_affinity};
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::metadata::Naming;
use crate::schema::{self, Type};
use crate::validate;

const STATUS_CLASSES: &[&str] = &["Agent", "BGP", "Routes"];
/// Longest time between two reports of a node, in seconds.
const STATUS_PERIOD_MAX: i64 = 86_400;

/// The first rule of Calico's that such a field of a resource breaks.
pub(crate) fn check(kind: Kind, resource: &Object<'_>) -> Result<(), Fault> {
    let spec = &resource.object("spec")?;
    match kind {
        Kind::BgpConfiguration => bgp(spec),
        Kind::BgpFilter => filter(spec),
        Kind::BgpPeer => names(spec, &["node"]),
        Kind::BlockAffinity => affinity(spec),
        Kind::NodeStatus => node_status(spec),
        Kind::FelixConfiguration => felix(&resource.object("metadata")?, spec),
        Kind::WorkloadEndpoint => workload(spec),
        Kind::Policy(kind) if kind != PolicyKind::StagedKubernetesNetworkPolicy => rules(spec),
        Kind::Profile => rules(spec),
        _ => Ok(()),
    }
}

/// The mark of an affinity that is about to go is IPAM's to set.
fn affinity(spec: &Object<'_>) -> Result<(), Fault> {
    match spec.field("deleted").filter(|_| block_affinity::deleted(spec).unwrap_or(false)) {
        Some(field) => Err(field.fault(Reason::OutOfPlace("an affinity that is written"))),
        None => Ok(()),
    }
}

/// Whoever reads these networks cuts their host bits off; who writes them is asked what is meant.
fn bgp(spec: &Object<'_>) -> Result<(), Fault> {
    for name in ["serviceClusterIPs", "serviceExternalIPs", "serviceLoadBalancerIPs", "prefixAdvertisements"]
    {
        for item in items(spec, name)? {
            if let Some((field, _)) = item.object()?.text("cidr")? {
                validate::masked_prefix(&field)?;
            }
        }
    }
    Ok(())
}

/// Networks have a length and no host bits, and numbers of communities no needless zeros.
fn filter(spec: &Object<'_>) -> Result<(), Fault> {
    for name in ["importV4", "importV6", "exportV4", "exportV6"] {
        for rule in items(spec, name)? {
            let rule = rule.object()?;
            if let Some((field, text)) = rule.text("cidr")? {
                let masked = validate::masked_prefix(&field)?;
                if !text.contains('/') {
                    return Err(field.fault(Reason::NotStrictlyMasked { given: text.to_owned(), masked }));
                }
            }
            for community in items(&rule.object("communities")?, "values")? {
                plain_community(&community)?;
            }
            for operation in items(&rule, "operations")? {
                if let Some(community) = operation.object()?.object("addCommunity")?.field("value") {
                    plain_community(&community)?;
                }
            }
        }
    }
    Ok(())
}

fn plain_community(field: &Field<'_>) -> Result<(), Fault> {
    let text = field.text()?;
    if text.split(':').any(|number| number.len() > 1 && number.starts_with('0')) {
        let expected = "a community, aa:nn or aa:nn:mm, without leading zeros";
        return Err(field.fault(Reason::BadForm { expected, given: text.to_owned() }));
    }
    Ok(())
}

/// Names of resources, where they are given.
fn names(of: &Object<'_>, fields: &[&'static str]) -> Result<(), Fault> {
    for name in fields {
        if let Some((field, _)) = of.text(name)? {
            Naming::Subdomain.check(name, &field)?;
        }
    }
    Ok(())
}

/// Whoever is asked passes over what it doesn't know; who asks is told.
fn node_status(spec: &Object<'_>) -> Result<(), Fault> {
    spec.required_text("node")?;
    names(spec, &["node"])?;
    let classes = spec.required("classes")?;
    let mut seen = Vec::new();
    for class in classes.items()? {
        let class = (class.one_of(STATUS_CLASSES, STATUS_CLASSES)?, class);
        if seen.contains(&class.0) {
            return Err(class.1.fault(Reason::Twice(class.0.to_owned())));
        }
        seen.push(class.0);
    }
    if seen.is_empty() {
        return Err(classes.fault(Reason::Empty));
    }
    spec.required("updatePeriodSeconds")?.number::<i64>(0, STATUS_PERIOD_MAX).map(drop)
}

/// Who a workload is, and the addresses beside its own.
fn workload(spec: &Object<'_>) -> Result<(), Fault> {
    names(spec, &["node", "orchestrator", "workload", "pod", "endpoint", "serviceAccountName"])?;
    for name in ["ipv4Gateway", "ipv6Gateway"] {
        if let Some((field, text)) = spec.text(name)?
            && text.contains('/')
        {
            return Err(field.fault(ParseAddrError { expected: "IP address", given: text.to_owned() }));
        }
    }
    Ok(())
}

/// Ports by name have names that an endpoint's ports can have.
fn rules(spec: &Object<'_>) -> Result<(), Fault> {
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction)? {
            let rule = rule.object()?;
            for end in [rule.object("source")?, rule.object("destination")?] {
                for port in items(&end, "ports")?.chain(items(&end, "notPorts")?) {
                    if let PortMatch::Named(_) = validate::port_match(&port)? {
                        validate::port_name(&port)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn felix(metadata: &Object<'_>, spec: &Object<'_>) -> Result<(), Fault> {
    let says_whom_it_is_for = |(_, name): (_, &str)| name == "default" || name.starts_with("node.");
    if let Some((selector, _)) = spec.text("nodeSelector")?
        && metadata.text("name")?.is_some_and(says_whom_it_is_for)
    {
        return Err(selector.fault(Reason::OutOfPlace("a configuration whose name says whom it is for")));
    }
    word(spec, "workloadSourceSpoofing", &["Disabled", "Any"])?;
    word(spec, "floatingIPs", ON_OFF)?;
    word(spec, "natOutgoingExclusions", &["IPPoolsOnly", "IPPoolsAndHostIPs"])?;
    word(spec, "programClusterRoutes", &ClusterRoutes::WORDS)?;
    if let Some(range) = spec.field("natPortRange") {
        validate::port_match(&range)?;
    }
    for name in ["failsafeInboundHostPorts", "failsafeOutboundHostPorts"] {
        for item in items(spec, name)? {
            const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
            item.object()?.required("protocol")?.one_of(PROTOCOLS, PROTOCOLS)?;
        }
    }
    let durations =
        schema::FELIX_CONFIGURATION.members.iter().filter(|member| matches!(member.ty, Type::Duration));
    for member in durations {
        spec.field(member.name).map(|field| milliseconds(&field)).transpose()?;
    }
    Ok(())
}

/// A duration, not less than none, without parts of a millisecond.
fn milliseconds(field: &Field<'_>) -> Result<(), Fault> {
    let text = field.text()?;
    let whole = schema::nanoseconds(text).is_some_and(|nanoseconds| {
        const MILLISECOND: i128 = 1_000_000;
        nanoseconds >= 0 && nanoseconds % MILLISECOND == 0
    });
    if whole {
        return Ok(());
    }
    let expected = "a duration in whole milliseconds, such as 90s or 1m30s";
    Err(field.fault(Reason::BadForm { expected, given: text.to_owned() }))
}
