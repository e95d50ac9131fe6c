//! Calico's FelixConfiguration resource, as far as it changes packets here.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use crate::{ClusterRoutes, Prefix, Protocol};

/// What a resource says of one setting. Felix takes the default where it can't read a value, and doesn't ask a less particular
/// resource for another one (`Config.resolve` in `felix/config/config_params.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// Nothing: what a less particular resource says holds.
    #[default]
    Absent,
    /// The default, whatever a less particular resource says: a value that is no good, or Calico's word for "work it out".
    Standard,
    /// This.
    Given(T),
}

impl<T> Setting<T> {
    /// This setting, unless it is absent; else the other.
    pub fn or(self, other: Setting<T>) -> Setting<T> {
        if matches!(self, Setting::Absent) { other } else { self }
    }

    /// What was given, where it wasn't the default that was asked for.
    pub fn given(self) -> Option<T> {
        match self {
            Setting::Given(given) => Some(given),
            Setting::Absent | Setting::Standard => None,
        }
    }
}

impl<T> From<Option<T>> for Setting<T> {
    fn from(given: Option<T>) -> Setting<T> {
        given.map_or(Setting::Absent, Setting::Given)
    }
}

/// Settings of the dataplane, for all nodes (`default`), one (`node.NAME`), or those of other names' selectors
/// (`api/pkg/apis/projectcalico/v3/felixconfig.go`). The defaults belong to whoever merges them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FelixConfiguration {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.creationTimestamp`. One without is older than all others.
    pub created: Option<SystemTime>,
    /// `spec.nodeSelector`, as text: the nodes that a resource is for whose name doesn't say so.
    pub node_selector: Option<String>,
    /// `spec.metadataAddr`: the server that answers 169.254.169.254 under OpenStack.
    pub metadata_addr: Setting<String>,
    /// `spec.metadataPort`: its port.
    pub metadata_port: Setting<u16>,
    /// `spec.ipipEnabled`; where absent, the pools tell.
    pub ipip_enabled: Setting<bool>,
    /// `spec.ipipMTU`, in bytes of the inner packet.
    pub ipip_mtu: Setting<u16>,
    /// `spec.vxlanEnabled`; where absent, the pools tell.
    pub vxlan_enabled: Setting<bool>,
    /// `spec.vxlanMTU`, in bytes of the inner packet.
    pub vxlan_mtu: Setting<u16>,
    /// `spec.vxlanMTUV6`, in bytes of the inner packet.
    pub vxlan_mtu_v6: Setting<u16>,
    /// `spec.vxlanPort`: the UDP port of tunnel packets.
    pub vxlan_port: Setting<u16>,
    /// `spec.vxlanVNI`, 1 to 2²⁴ − 1.
    pub vxlan_vni: Setting<u32>,
    /// `spec.programClusterRoutes`: for which pools the datastore has the routes to other nodes' workloads.
    pub cluster_routes: Setting<ClusterRoutes>,
    /// `spec.allowIPIPPacketsFromWorkloads`.
    pub allow_ipip_from_workloads: Setting<bool>,
    /// `spec.allowVXLANPacketsFromWorkloads`.
    pub allow_vxlan_from_workloads: Setting<bool>,
    /// `spec.externalNodesList`: who, besides the nodes, may send tunnel packets here.
    pub external_nodes: Setting<Vec<Prefix>>,
    /// `spec.workloadSourceSpoofing: Any`: are endpoints' allowed prefixes honoured?
    pub workload_source_spoofing: Setting<bool>,
    /// `spec.floatingIPs: Enabled`.
    pub floating_ips: Setting<bool>,
    /// `spec.natOutgoingAddress`: what outgoing packets are translated to.
    pub nat_outgoing_address: Setting<Ipv4Addr>,
    /// `spec.natPortRange`: ports that translated TCP and UDP flows may get.
    pub nat_port_range: Setting<RangeInclusive<u16>>,
    /// `spec.natOutgoingExclusions`.
    pub nat_outgoing_exclusions: Setting<NatOutgoingExclusions>,
    /// `spec.bpfEnforceRPF`: the check of sources on uplinks.
    pub reverse_path: Setting<ReversePath>,
    /// `spec.bpfConntrackTimeouts`.
    pub conntrack_timeouts: Setting<ConntrackTimeouts>,
    /// `spec.interfacePrefix`: what names of workloads' interfaces begin with, at least one.
    pub interface_prefixes: Setting<Vec<String>>,
    /// `spec.interfaceExclude`: interfaces that are no host endpoints; an expression between slashes, or a name.
    pub interface_exclude: Setting<Vec<String>>,
    /// `spec.defaultEndpointToHostAction`.
    pub endpoint_to_host: Setting<EndpointToHost>,
    /// `spec.failsafeInboundHostPorts`; empty is none at all.
    pub failsafe_inbound: Setting<Vec<FailsafePort>>,
    /// `spec.failsafeOutboundHostPorts`; empty is none at all.
    pub failsafe_outbound: Setting<Vec<FailsafePort>>,
    /// `spec.disableConntrackInvalidCheck`: are packets let through that belong to no flow and can't begin one?
    pub conntrack_invalid_allowed: Setting<bool>,
    /// `spec.nftablesFilterDenyAction`, else `spec.iptablesFilterDenyAction`.
    pub deny_action: Setting<DenyAction>,
    /// `spec.logPrefix`: what the lines of `Log` rules begin with.
    pub log_prefix: Setting<String>,
    /// `spec.logActionRateLimit`; without limit where absent.
    pub log_rate: Setting<LogRate>,
    /// `spec.logActionRateLimitBurst`: lines that may come at once, beside a rate.
    pub log_burst: Setting<u16>,
    /// What the node tells of itself.
    pub reporting: Reporting,
}

/// How a node tells of itself in the datastore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reporting {
    /// `spec.reportingInterval`: how often it says that it is alive; zero is never.
    pub interval: Setting<Duration>,
    /// `spec.reportingTTL`: how long that counts.
    pub ttl: Setting<Duration>,
    /// `spec.endpointReportingEnabled`.
    pub endpoints: Setting<bool>,
    /// `spec.endpointReportingDelay`: the least time between two of its words about endpoints.
    pub endpoint_delay: Setting<Duration>,
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

/// How long a flow without packets is remembered; `None` where not given. One setting: a node's hides all of the cluster's.
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
