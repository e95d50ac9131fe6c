//! WorkloadEndpoint (`libcalico-go/lib/apis/internalapi/workloadendpoint.go`).

use std::collections::BTreeMap;

use model::{EndpointPort, Family, IpNat, Prefix, QosControls, QosDirection, Resource, WorkloadEndpoint};

use super::host_endpoint::{address, profiles};
use super::{Identity, Outcome};
use crate::document::Content;
use crate::fields::{Fault, Object};
use crate::invalid::Reason;
use crate::validate;

/// The labels that Calico itself gives an endpoint (`libcalico-go/lib/backend/syncersv1/updateprocessors`).
pub(super) const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";
const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";
/// What labels of an endpoint's namespace and service account begin with, which only its profiles give it.
const INHERITED: [&str; 2] = ["pcns.", "pcsa."];

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    let (node, _) = spec.required_text("node")?;
    let (interface, _) = spec.required_text("interfaceName")?;
    let mut ip_networks = Vec::new();
    if let Some(networks) = spec.field("ipNetworks") {
        for item in networks.items()? {
            ip_networks.push(validate::single_address(&item)?);
        }
    }
    let endpoint = WorkloadEndpoint {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
        labels: labels(identity, spec)?,
        node: validate::name(&node)?,
        interface: validate::interface_name(&interface)?,
        mac: spec.text("mac")?.map(|(field, _)| field.parse()).transpose()?,
        ip_nats: ip_nats(spec, &ip_networks)?,
        allowed_sources: match spec.field("allowSpoofedSourcePrefixes") {
            Some(list) => list.items()?.map(|item| item.parse()).collect::<Result<Vec<Prefix>, Fault>>()?,
            None => Vec::new(),
        },
        qos: qos_controls(&spec.object("qosControls")?)?,
        profiles: profiles(spec)?,
        ports: ports(spec)?,
        ip_networks,
    };
    check_gateway(spec, "ipv4Gateway", Family::V4)?;
    check_gateway(spec, "ipv6Gateway", Family::V6)?;
    check_container(spec)?;
    if endpoint.ip_networks.is_empty() {
        // Calico leaves such an endpoint out of its dataplane altogether.
        return Ok(Outcome::nothing_because_of("spec.ipNetworks".to_owned(), spec.position()));
    }
    Ok(Outcome::of(Resource::WorkloadEndpoint(endpoint)))
}

/// Its own, and those that Calico gives it.
fn labels(identity: &Identity<'_>, spec: &Object<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let mut labels = identity.labels.clone();
    labels.retain(|name, _| !INHERITED.iter().any(|prefix| name.starts_with(prefix)));
    let mut give = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
    give(NAMESPACE_LABEL, &identity.namespace);
    if let Some((_, orchestrator)) = spec.text("orchestrator")? {
        give(ORCHESTRATOR_LABEL, orchestrator);
    }
    if let Some((_, account)) = spec.text("serviceAccountName")? {
        give(SERVICE_ACCOUNT_LABEL, account);
    }
    Ok(labels)
}

/// Those with a name; one without is a port of the host that leads here, which somebody else translates.
fn ports(spec: &Object<'_>) -> Result<Vec<EndpointPort>, Fault> {
    let Some(list) = spec.field("ports") else { return Ok(Vec::new()) };
    let mut ports = Vec::new();
    for item in list.items()? {
        let port = item.object()?;
        let protocol = validate::protocol_with_ports(&port.required("protocol")?)?;
        let number = validate::port(&port.required("port")?)?;
        let host_port: u16 =
            port.field("hostPort").map_or(Ok(0), |field| field.number(0, u16::MAX.into()))?;
        if let Some((field, _)) = port.text("hostIP")? {
            validate::masked_prefix(&field)?;
        }
        match port.text("name")? {
            Some((field, _)) => {
                ports.push(EndpointPort { name: validate::port_name(&field)?, protocol, port: number });
            }
            None if host_port == 0 => return Err(port.fault(Reason::Needs("name or hostPort"))),
            None => {}
        }
    }
    Ok(ports)
}

/// The workload's gateway is always answered for, so an address of the right family is all that is asked of it.
fn check_gateway(spec: &Object<'_>, name: &str, family: Family) -> Result<(), Fault> {
    let Some((field, given)) = spec.text(name)? else { return Ok(()) };
    let gateway: Prefix = field.parse()?;
    if gateway.family() == family {
        return Ok(());
    }
    Err(field.fault(Reason::WrongFamily { given: given.to_owned(), expected: family }))
}

fn check_container(spec: &Object<'_>) -> Result<(), Fault> {
    let Some((field, text)) = spec.text("containerID")? else { return Ok(()) };
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if legal && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(());
    }
    let expected = "letters, digits and '-', a letter or digit at both ends";
    Err(field.fault(Reason::BadForm { expected, given: text.to_owned() }))
}

/// Each stands for an address of the workload's own.
fn ip_nats(spec: &Object<'_>, ip_networks: &[Prefix]) -> Result<Vec<IpNat>, Fault> {
    let Some(list) = spec.field("ipNATs") else { return Ok(Vec::new()) };
    let mut ip_nats = Vec::new();
    for item in list.items()? {
        let nat = item.object()?;
        let (internal_field, external_field) = (nat.required("internalIP")?, nat.required("externalIP")?);
        let (internal, external) = (address(&internal_field)?, address(&external_field)?);
        if !ip_networks.iter().any(|network| network.contains(internal)) {
            return Err(internal_field.fault(Reason::NotOwnAddress(internal)));
        }
        if Family::of(internal) != Family::of(external) {
            let (given, expected) = (external.to_string(), Family::of(internal));
            return Err(external_field.fault(Reason::WrongFamily { given, expected }));
        }
        ip_nats.push(IpNat { internal, external });
    }
    Ok(ip_nats)
}

/// The ranges of `libcalico-go/lib/apis/internalapi/workloadendpoint.go`. A zero, which Go's writers leave where
/// nothing was given, is no limit.
fn qos_controls(qos: &Object<'_>) -> Result<QosControls, Fault> {
    const KILO: i64 = 1_000;
    const PETA: i64 = 1_000_000_000_000_000;
    let limit = |name: &str, min: i64, max: i64| -> Result<Option<u64>, Fault> {
        let Some(field) = qos.field(name) else { return Ok(None) };
        if field.value().content == Content::Int(0) {
            return Ok(None);
        }
        field.number(min, max).map(Some)
    };
    let direction = |name: &str| -> Result<QosDirection, Fault> {
        let limit = |what: &str, min, max| limit(&format!("{name}{what}"), min, max);
        Ok(QosDirection {
            bandwidth: limit("Bandwidth", KILO, PETA)?,
            burst: limit("Burst", KILO, 34_359_738_360)?,
            peak_rate: limit("Peakrate", 1_010, 1_010_000_000_000_000)?,
            min_burst: limit("Minburst", KILO, 100_000_000)?,
            packet_rate: limit("PacketRate", 1, 10_000)?,
            packet_burst: limit("PacketBurst", 1, 10_000)?,
            max_connections: limit("MaxConnections", 1, i64::MAX)?,
        })
    };
    let dscp = qos.field("dscp").map(|field| validate::dscp(&field)).transpose()?;
    Ok(QosControls { ingress: direction("ingress")?, egress: direction("egress")?, dscp })
}
