//! Calico's HostEndpoint resource.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::EndpointPort;

/// A host's own interface, as policy sees it (`api/pkg/apis/projectcalico/v3/hostendpoint.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.node`.
    pub node: String,
    /// `spec.interfaceName`.
    pub interface: HostInterface,
    /// `spec.expectedIPs`: its addresses, as selectors of other endpoints' rules see it.
    pub expected_ips: Vec<IpAddr>,
    /// `spec.profiles`, in order.
    pub profiles: Vec<String>,
    /// `spec.ports`.
    pub ports: Vec<EndpointPort>,
    /// Annotation `qos.projectcalico.org/dscp`, 0 to 63, which the host's packets leave with.
    pub dscp: Option<u8>,
}

/// Which interface a host endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostInterface {
    /// `*`: every one that no other host endpoint is about.
    All,
    /// The one of this name.
    Named(String),
    /// Whichever has one of the expected addresses.
    WithExpectedIp,
}
