//! Node (`libcalico-go/lib/apis/internalapi/node.go`).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use model::{Family, InterfaceAddr, MacAddr, Node, ParseAddrError, Resource};

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
        labels: identity.labels.clone(),
        as_number: bgp.field("asNumber").map(|field| validate::as_number(&field)).transpose()?,
        ipv4: address("ipv4Address", Family::V4)?,
        ipv6: address("ipv6Address", Family::V6)?,
        route_reflector_cluster_id: bgp
            .text("routeReflectorClusterID")?
            .map(|(field, text)| parsed(&field, text, "cluster ID in dotted form"))
            .transpose()?,
        ipip_tunnel_addr: tunnel_addr(&bgp, "ipv4IPIPTunnelAddr")?,
        vxlan_tunnel_addr: tunnel_addr(spec, "ipv4VXLANTunnelAddr")?,
        vxlan_tunnel_mac: tunnel_mac(spec, "vxlanTunnelMACAddr")?,
        vxlan_tunnel_addr_v6: spec
            .text("ipv6VXLANTunnelAddr")?
            .map(|(field, text)| parsed::<Ipv6Addr>(&field, text, "IPv6 address"))
            .transpose()?,
        vxlan_tunnel_mac_v6: tunnel_mac(spec, "vxlanTunnelMACAddrV6")?,
    })))
}

fn tunnel_addr(of: &Object<'_>, name: &str) -> Result<Option<Ipv4Addr>, Fault> {
    of.text(name)?.map(|(field, text)| parsed(&field, text, "IPv4 address")).transpose()
}

fn tunnel_mac(spec: &Object<'_>, name: &str) -> Result<Option<MacAddr>, Fault> {
    spec.text(name)?.map(|(field, _)| field.parse()).transpose()
}

fn parsed<T: FromStr>(field: &Field<'_>, text: &str, expected: &'static str) -> Result<T, Fault> {
    text.parse().map_err(|_| field.fault(ParseAddrError { expected, given: text.to_owned() }))
}
