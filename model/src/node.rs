//! Calico's Node resource, as far as routing needs it.

use std::net::Ipv4Addr;

use crate::{AsNumber, InterfaceAddr};

/// A Calico node: this box or another one (`libcalico-go/lib/apis/internalapi/node.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `spec.bgp.asNumber`; `None` inherits the one of [`crate::BgpConfiguration`].
    pub as_number: Option<AsNumber>,
    /// `spec.bgp.ipv4Address`, in CIDR form: the length tells which nodes share a subnet.
    pub ipv4: Option<InterfaceAddr>,
    /// `spec.bgp.ipv6Address`.
    pub ipv6: Option<InterfaceAddr>,
    /// `spec.bgp.routeReflectorClusterID`: a node that has one takes no part in the mesh.
    pub route_reflector_cluster_id: Option<Ipv4Addr>,
}
