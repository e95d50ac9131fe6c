//! Node (`libcalico-go/lib/apis/internalapi/node.go`).

use std::net::Ipv4Addr;

use model::{Family, InterfaceAddr, Node, ParseAddrError, Resource};

use super::{Identity, Outcome};
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::validate;

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    if let Some(bgp) = spec.field("bgp").filter(Field::is_empty) {
        return Err(bgp.fault(Reason::Empty));
    }
    let bgp = spec.object("bgp")?;
    let address = |name, family| -> Result<Option<InterfaceAddr>, Fault> {
        bgp.text(name)?.map(|(field, _)| validate::node_address(&field, family)).transpose()
    };
    Ok(Outcome::of(Resource::Node(Node {
        name: identity.name.clone(),
        as_number: bgp.field("asNumber").map(|field| validate::as_number(&field)).transpose()?,
        ipv4: address("ipv4Address", Family::V4)?,
        ipv6: address("ipv6Address", Family::V6)?,
        route_reflector_cluster_id: bgp
            .text("routeReflectorClusterID")?
            .map(|(field, text)| cluster_id(&field, text))
            .transpose()?,
    })))
}

/// A dotted quad (RFC 4456 §7).
fn cluster_id(field: &Field<'_>, text: &str) -> Result<Ipv4Addr, Fault> {
    text.parse().map_err(|_| {
        field.fault(ParseAddrError { expected: "cluster ID in dotted form", given: text.to_owned() })
    })
}
