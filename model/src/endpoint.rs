//! Calico's WorkloadEndpoint resource.

use crate::{MacAddr, Prefix};

/// One interface of one workload (`libcalico-go/lib/apis/internalapi/workloadendpoint.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEndpoint {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.node`: the node it runs on.
    pub node: String,
    /// `spec.interfaceName`: the host's end of its veth pair.
    pub interface: String,
    /// `spec.mac`: the workload's own MAC; asked for by ARP or ND where absent.
    pub mac: Option<MacAddr>,
    /// `spec.ipNetworks`: /32s and /128s only, at least one.
    pub ip_networks: Vec<Prefix>,
}
