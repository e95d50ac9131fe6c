//! Calico's WorkloadEndpoint resource.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::{MacAddr, Prefix, Protocol};

/// One interface of one workload (`libcalico-go/lib/apis/internalapi/workloadendpoint.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadEndpoint {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`, with those that Calico itself gives: `projectcalico.org/namespace`,
    /// `projectcalico.org/orchestrator` and `projectcalico.org/serviceaccount` (of `spec.serviceAccountName`), and
    /// without those that only its profiles may give it (`pcns.…`, `pcsa.…`).
    pub labels: BTreeMap<String, String>,
    /// `spec.node`: the node it runs on.
    pub node: String,
    /// `spec.interfaceName`: the host's end of its veth pair.
    pub interface: String,
    /// `spec.mac`: the workload's own MAC; asked for by ARP or ND where absent.
    pub mac: Option<MacAddr>,
    /// `spec.ipNetworks`: /32s and /128s only, at least one.
    pub ip_networks: Vec<Prefix>,
    /// `spec.ipNATs`: floating IPs.
    pub ip_nats: Vec<IpNat>,
    /// `spec.profiles`, in order.
    pub profiles: Vec<String>,
    /// `spec.ports` that have a name: what rules may ask for.
    pub ports: Vec<EndpointPort>,
    /// `spec.allowSpoofedSourcePrefixes`: what it may send from besides its own addresses. Where the dataplane's settings
    /// don't allow that, an endpoint that has any isn't there at all.
    pub allowed_sources: Vec<Prefix>,
    /// `spec.qosControls`.
    pub qos: QosControls,
}

/// A port of an endpoint that rules may ask for by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointPort {
    /// Its name, which several may share.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// An address elsewhere that stands for one of the workload's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNat {
    /// The workload's own address.
    pub internal: IpAddr,
    /// The floating IP: what others send to. Of the same family.
    pub external: IpAddr,
}

/// What a workload may send and receive at most. Calico's words: *ingress* is towards the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QosControls {
    /// Towards the workload.
    pub ingress: QosDirection,
    /// From the workload.
    pub egress: QosDirection,
    /// `dscp`, 0 to 63, which packets from the workload leave the node with.
    pub dscp: Option<u8>,
}

/// The limits of one direction; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QosDirection {
    /// `…Bandwidth`, in bits a second.
    pub bandwidth: Option<u64>,
    /// `…Burst`, in bits, beside a bandwidth.
    pub burst: Option<u64>,
    /// `…Peakrate`, in bits a second: at most this fast within a burst.
    pub peak_rate: Option<u64>,
    /// `…Minburst`, in bytes: the burst at the peak rate.
    pub min_burst: Option<u64>,
    /// `…PacketRate`, in packets a second.
    pub packet_rate: Option<u64>,
    /// `…PacketBurst`, in packets, beside a packet rate.
    pub packet_burst: Option<u64>,
    /// `…MaxConnections`: connections at the same time.
    pub max_connections: Option<u64>,
}
