//! HostEndpoint (`api/pkg/apis/projectcalico/v3/hostendpoint.go`).

use std::net::IpAddr;

use model::{EndpointPort, HostEndpoint, HostInterface, ParseAddrError, Resource};

use super::{Identity, Outcome};
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::metadata::Naming;
use crate::validate;

/// What gives a host endpoint the DSCP of its packets.
const DSCP_ANNOTATION: &str = "qos.projectcalico.org/dscp";

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    Naming::Subdomain.check("HostEndpoint", &identity.name_field)?;
    let (node, _) = spec.required_text("node")?;
    Naming::Subdomain.check("Node", &node)?;
    let expected_ips = addresses(spec)?;
    let endpoint = HostEndpoint {
        name: identity.name.clone(),
        labels: identity.labels.clone(),
        node: validate::name(&node)?,
        interface: match spec.text("interfaceName")? {
            Some((_, "*")) => HostInterface::All,
            Some((field, _)) => HostInterface::Named(validate::interface_name(&field)?),
            None if expected_ips.is_empty() => {
                return Err(spec.fault(Reason::Needs("interfaceName or expectedIPs")));
            }
            None => HostInterface::WithExpectedIp,
        },
        expected_ips,
        profiles: profiles(spec)?,
        ports: ports(spec)?,
        dscp: match identity.annotations.text(DSCP_ANNOTATION)? {
            Some((field, _)) => Some(validate::dscp(&field)?),
            None => None,
        },
    };
    Ok(Outcome::of(Resource::HostEndpoint(endpoint)))
}

fn addresses(spec: &Object<'_>) -> Result<Vec<IpAddr>, Fault> {
    let Some(list) = spec.field("expectedIPs") else { return Ok(Vec::new()) };
    list.items()?.map(|item| address(&item)).collect()
}

pub(super) fn address(field: &Field<'_>) -> Result<IpAddr, Fault> {
    let text = field.text()?;
    let bad = || ParseAddrError { expected: "address", given: text.to_owned() };
    text.parse().map_err(|_| field.fault(bad()))
}

/// `spec.profiles` of any endpoint.
pub(super) fn profiles(spec: &Object<'_>) -> Result<Vec<String>, Fault> {
    let Some(list) = spec.field("profiles") else { return Ok(Vec::new()) };
    list.items()?
        .map(|item| {
            Naming::Subdomain.check("Profile", &item)?;
            item.text().map(str::to_owned)
        })
        .collect()
}

fn ports(spec: &Object<'_>) -> Result<Vec<EndpointPort>, Fault> {
    let Some(list) = spec.field("ports") else { return Ok(Vec::new()) };
    list.items()?
        .map(|item| {
            let port = item.object()?;
            let (name, _) = port.required_text("name")?;
            Ok(EndpointPort {
                name: validate::port_name(&name)?,
                protocol: validate::protocol_with_ports(&port.required("protocol")?)?,
                port: validate::port(&port.required("port")?)?,
            })
        })
        .collect()
}
