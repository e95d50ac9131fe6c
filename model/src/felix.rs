//! Calico's FelixConfiguration resource, as far as it changes packets here.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::{Prefix, Protocol};

/// Settings of the dataplane, for all nodes (`default`) or one (`node.NAME`)
/// (`api/pkg/apis/projectcalico/v3/felixconfig.go`). What a resource leaves out is `None`; the defaults belong to
/// whoever merges them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FelixConfiguration {
    /// `metadata.name`.
    pub name: String,
    /// `spec.ipipEnabled`; where absent, the pools tell.
    pub ipip_enabled: Option<bool>,
    /// `spec.ipipMTU`, in bytes of the inner packet.
    pub ipip_mtu: Option<u16>,
    /// `spec.vxlanEnabled`; where absent, the pools tell.
    pub vxlan_enabled: Option<bool>,
    /// `spec.vxlanMTU`, in bytes of the inner packet.
    pub vxlan_mtu: Option<u16>,
    /// `spec.vxlanMTUV6`, in bytes of the inner packet.
    pub vxlan_mtu_v6: Option<u16>,
    /// `spec.vxlanPort`: the UDP port of tunnel packets.
    pub vxlan_port: Option<u16>,
    /// `spec.vxlanVNI`, 1 to 2²⁴ − 1.
    pub vxlan_vni: Option<u32>,
    /// `spec.allowIPIPPacketsFromWorkloads`.
    pub allow_ipip_from_workloads: Option<bool>,
    /// `spec.allowVXLANPacketsFromWorkloads`.
    pub allow_vxlan_from_workloads: Option<bool>,
    /// `spec.externalNodesList`: who, besides the nodes, may send tunnel packets here.
    pub external_nodes: Option<Vec<Prefix>>,
    /// `spec.workloadSourceSpoofing: Any`: are endpoints' allowed prefixes honoured?
    pub workload_source_spoofing: Option<bool>,
    /// `spec.floatingIPs: Enabled`.
    pub floating_ips: Option<bool>,
    /// `spec.natOutgoingAddress`: what outgoing packets are translated to.
    pub nat_outgoing_address: Option<Ipv4Addr>,
    /// `spec.natPortRange`: ports that translated TCP and UDP flows may get.
    pub nat_port_range: Option<RangeInclusive<u16>>,
    /// `spec.natOutgoingExclusions`.
    pub nat_outgoing_exclusions: Option<NatOutgoingExclusions>,
    /// `spec.bpfEnforceRPF`: the check of sources on uplinks.
    pub reverse_path: Option<ReversePath>,
    /// `spec.bpfConntrackTimeouts`.
    pub conntrack_timeouts: ConntrackTimeouts,
    /// `spec.interfacePrefix`: what names of workloads' interfaces begin with, at least one.
    pub interface_prefixes: Option<Vec<String>>,
    /// `spec.interfaceExclude`: interfaces that are no host endpoints; an expression between slashes, or a name.
    pub interface_exclude: Option<Vec<String>>,
    /// `spec.defaultEndpointToHostAction`.
    pub endpoint_to_host: Option<EndpointToHost>,
    /// `spec.failsafeInboundHostPorts`; empty is none at all.
    pub failsafe_inbound: Option<Vec<FailsafePort>>,
    /// `spec.failsafeOutboundHostPorts`; empty is none at all.
    pub failsafe_outbound: Option<Vec<FailsafePort>>,
    /// `spec.disableConntrackInvalidCheck`: are packets let through that belong to no flow and can't begin one?
    pub conntrack_invalid_allowed: Option<bool>,
    /// `spec.nftablesFilterDenyAction`, else `spec.iptablesFilterDenyAction`.
    pub deny_action: Option<DenyAction>,
    /// `spec.logPrefix`: what the lines of `Log` rules begin with.
    pub log_prefix: Option<String>,
    /// `spec.logActionRateLimit`; without limit where absent.
    pub log_rate: Option<LogRate>,
    /// `spec.logActionRateLimitBurst`: lines that may come at once, beside a rate.
    pub log_burst: Option<u16>,
    /// What the node tells of itself.
    pub reporting: Reporting,
}

/// How a node tells of itself in the datastore; each is absent where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reporting {
    /// `spec.reportingInterval`: how often it says that it is alive; zero is never.
    pub interval: Option<Duration>,
    /// `spec.reportingTTL`: how long that counts.
    pub ttl: Option<Duration>,
    /// `spec.endpointReportingEnabled`.
    pub endpoints: Option<bool>,
    /// `spec.endpointReportingDelay`: the least time between two of its words about endpoints.
    pub endpoint_delay: Option<Duration>,
}

/// What becomes of packets from a workload to its own host that the workload's policy allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointToHost {
    /// Dropped.
    #[default]
    Drop,
    /// Allowed.
    Accept,
    /// As the host's own policy says.
    Return,
}

/// What a denied packet's sender gets to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenyAction {
    /// Nothing.
    #[default]
    Drop,
    /// An ICMP error, or a TCP reset.
    Reject,
}

/// A port of the host that no policy closes, so that a mistake in policy doesn't cut the host off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FailsafePort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
    /// `net`: for these peers only.
    pub net: Option<Prefix>,
}

/// How many packets `Log` rules may note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRate {
    /// 1 to 9999.
    pub packets: u16,
    /// In this time: a second, a minute, an hour or a day.
    pub per: Duration,
}

/// Destinations that outgoing packets reach untranslated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatOutgoingExclusions {
    /// Any pool's addresses.
    #[default]
    IpPoolsOnly,
    /// Any pool's addresses, and the nodes' own.
    IpPoolsAndHostIps,
}

/// How sources of packets from uplinks are held to the routes (RFC 3704 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReversePath {
    /// Not at all. The default, where Calico's eBPF dataplane has `Loose` and its iptables dataplane leaves uplinks to
    /// the kernel: with a default route `Loose` refuses next to nothing, and it costs every packet a second look-up.
    #[default]
    Disabled,
    /// Some route must lead back.
    Loose,
    /// A route through the same port must lead back.
    Strict,
}

/// How long a flow without packets is remembered; `None` where not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackTimeouts {
    /// `creationGracePeriod`: what a new entry gets at least.
    pub creation_grace_period: Option<Duration>,
    /// `tcpSynSent`: a connection that nobody has answered.
    pub tcp_syn_sent: Option<Duration>,
    /// `tcpEstablished`.
    pub tcp_established: Option<Duration>,
    /// `tcpFinsSeen`: both sides have closed.
    pub tcp_fins_seen: Option<Duration>,
    /// `tcpResetSeen`.
    pub tcp_reset_seen: Option<Duration>,
    /// `udpTimeout`.
    pub udp: Option<Duration>,
    /// `icmpTimeout`.
    pub icmp: Option<Duration>,
    /// `genericTimeout`: any other protocol.
    pub generic: Option<Duration>,
}
