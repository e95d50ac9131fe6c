//! WorkloadEndpoint (`libcalico-go/lib/apis/internalapi/workloadendpoint.go`).

use std::net::IpAddr;

use model::{Family, IpNat, ParseAddrError, Prefix, QosControls, QosDirection, Resource, WorkloadEndpoint};

use super::{Identity, Outcome};
use crate::document::Content;
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::validate;

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
        node: validate::name(&node)?,
        interface: validate::interface_name(&interface)?,
        mac: spec.text("mac")?.map(|(field, _)| field.parse()).transpose()?,
        ip_nats: ip_nats(spec, &ip_networks)?,
        allowed_sources: match spec.field("allowSpoofedSourcePrefixes") {
            Some(list) => list.items()?.map(|item| item.parse()).collect::<Result<Vec<Prefix>, Fault>>()?,
            None => Vec::new(),
        },
        qos: qos_controls(&spec.object("qosControls")?)?,
        ip_networks,
        ..WorkloadEndpoint::default()
    };
    if endpoint.ip_networks.is_empty() {
        // Calico leaves such an endpoint out of its dataplane altogether.
        return Ok(Outcome::nothing_because_of("spec.ipNetworks".to_owned(), spec.position()));
    }
    Ok(Outcome::of(Resource::WorkloadEndpoint(endpoint)))
}

/// Each stands for an address of the workload's own.
fn ip_nats(spec: &Object<'_>, ip_networks: &[Prefix]) -> Result<Vec<IpNat>, Fault> {
    let Some(list) = spec.field("ipNATs") else { return Ok(Vec::new()) };
    let mut ip_nats = Vec::new();
    for item in list.items()? {
        let nat = item.object()?;
        let (internal_field, internal) = address(&nat, "internalIP")?;
        let (external_field, external) = address(&nat, "externalIP")?;
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

fn address<'a>(of: &Object<'a>, name: &str) -> Result<(Field<'a>, IpAddr), Fault> {
    let (field, text) = of.required_text(name)?;
    let bad = || ParseAddrError { expected: "address", given: text.to_owned() };
    let addr = text.parse().map_err(|_| field.fault(bad()))?;
    Ok((field, addr))
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
