//! Calico's Node resource, as far as routing needs it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{AsNumber, InterfaceAddr, MacAddr};

/// A Calico node: this box or another one (`libcalico-go/lib/apis/internalapi/node.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`: what selectors of nodes ask.
    pub labels: BTreeMap<String, String>,
    /// `spec.bgp.asNumber`; `None` inherits the one of [`crate::BgpConfiguration`].
    pub as_number: Option<AsNumber>,
    /// `spec.bgp.ipv4Address`, in CIDR form: the length tells which nodes share a subnet.
    pub ipv4: Option<InterfaceAddr>,
    /// `spec.bgp.ipv6Address`.
    pub ipv6: Option<InterfaceAddr>,
    /// `spec.bgp.routeReflectorClusterID`: a node that has one takes no part in the mesh.
    pub route_reflector_cluster_id: Option<Ipv4Addr>,
    /// `spec.bgp.ipv4IPIPTunnelAddr`: what the node itself sends from into IPIP pools.
    pub ipip_tunnel_addr: Option<Ipv4Addr>,
    /// `spec.ipv4VXLANTunnelAddr`: its VTEP's address, for IPv4 pools.
    pub vxlan_tunnel_addr: Option<Ipv4Addr>,
    /// `spec.vxlanTunnelMACAddr`: its VTEP's MAC address; derived from the name where absent.
    pub vxlan_tunnel_mac: Option<MacAddr>,
    /// `spec.ipv6VXLANTunnelAddr`: its VTEP's address, for IPv6 pools.
    pub vxlan_tunnel_addr_v6: Option<Ipv6Addr>,
    /// `spec.vxlanTunnelMACAddrV6`: its VTEP's MAC address over IPv6; derived from the name where absent.
    pub vxlan_tunnel_mac_v6: Option<MacAddr>,
}
