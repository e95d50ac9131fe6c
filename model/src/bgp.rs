//! Calico's BGPConfiguration and BGPPeer resources.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use crate::{BgpCommunity, ClusterRoutes, Prefix};

/// A four-octet AS number (RFC 6793).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsNumber(pub u32);

impl AsNumber {
    /// What Calico gives a node that names none.
    pub const CALICO_DEFAULT: AsNumber = AsNumber(64512);
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

/// Why a text is not an AS number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAsNumberError(
    /// The text that was given.
    pub String,
);

impl fmt::Display for ParseAsNumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an AS number: expected 0..4294967295, or the dotted form HIGH.LOW", self.0)
    }
}

impl std::error::Error for ParseAsNumberError {}

impl FromStr for AsNumber {
    type Err = ParseAsNumberError;

    /// Plain (`4200000000`) or dotted (`64086.59904`), as Calico's numorstring reads it (RFC 5396).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAsNumberError(text.to_owned());
        let number = |part: &str| {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(error());
            }
            part.parse::<u32>().map_err(|_| error())
        };
        match text.split_once('.') {
            None => number(text).map(AsNumber),
            Some((high, low)) => {
                let (high, low) = (number(high)?, number(low)?);
                if high > 0xffff || low > 0xffff {
                    return Err(error());
                }
                Ok(AsNumber(high << 16 | low))
            }
        }
    }
}

/// Cluster-wide or per-node BGP settings (`api/pkg/apis/projectcalico/v3/bgpconfig.go`).
///
/// The resource is named `default`, or `node.NAME` for one node's overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpConfiguration {
    /// `metadata.name`.
    pub name: String,
    /// `spec.nodeToNodeMeshEnabled`; absent means true.
    pub node_to_node_mesh: Option<bool>,
    /// `spec.asNumber`; absent means 64512.
    pub as_number: Option<AsNumber>,
    /// `spec.listenPort`; absent means 179.
    pub listen_port: Option<u16>,
    /// `spec.nodeMeshMaxRestartTime`; absent means 120 s.
    pub mesh_max_restart_time: Option<Duration>,
    /// `spec.nodeMeshPassword`: where the mesh's TCP MD5 password stands (RFC 2385).
    pub mesh_password: Option<SecretKey>,
    /// `spec.bindMode: NodeIP`: listen on the node's own addresses only.
    pub bind_to_node_address: bool,
    /// `spec.prefixAdvertisements`, with the communities that `spec.communities` names; absent from a node's own
    /// configuration means the cluster's.
    pub prefix_advertisements: Option<Vec<PrefixAdvertisement>>,
    /// `spec.serviceClusterIPs`: announced whole by every node.
    pub service_cluster_ips: Vec<Prefix>,
    /// `spec.serviceExternalIPs`, likewise.
    pub service_external_ips: Vec<Prefix>,
    /// `spec.serviceLoadBalancerIPs`: likewise, but for single addresses, which are their services' nodes' to announce.
    pub service_load_balancer_ips: Vec<Prefix>,
    /// `spec.serviceLoadBalancerAggregation: Disabled`: load balancers' networks are not announced whole.
    pub load_balancers_one_by_one: bool,
    /// `spec.ignoredInterfaces`: interfaces whose networks aren't announced; `*` stands for any characters.
    pub ignored_interfaces: Vec<String>,
    /// `spec.localWorkloadPeeringIPV4`: the address that local workloads find the node's speaker at.
    pub local_workload_peering_v4: Option<Ipv4Addr>,
    /// `spec.localWorkloadPeeringIPV6`, likewise.
    pub local_workload_peering_v6: Option<Ipv6Addr>,
    /// `spec.ipv4NormalRoutePriority`: the kernel metric of IPv4 routes in no hurry; absent means 1024.
    pub normal_route_priority_v4: Option<u32>,
    /// `spec.ipv6NormalRoutePriority`, likewise.
    pub normal_route_priority_v6: Option<u32>,
    /// `spec.programClusterRoutes`: for which pools BGP has the routes to other nodes' workloads.
    pub cluster_routes: Option<ClusterRoutes>,
}

/// What a network's routes are told with, where this node announces them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixAdvertisement {
    /// The network: what lies in it is meant.
    pub cidr: Prefix,
    /// Added to what a route carries.
    pub communities: Vec<BgpCommunity>,
}

/// A key of a Secret in the namespace that Calico runs in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// `secretKeyRef.name`.
    pub name: String,
    /// `secretKeyRef.key`.
    pub key: String,
}

/// Which of our nodes a [`BgpPeer`] is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerNodes {
    /// Neither `node` nor `nodeSelector`: every node.
    #[default]
    All,
    /// `spec.node`.
    Named(String),
    /// `spec.nodeSelector`, as text: the nodes whose labels it selects.
    Selected(String),
}

/// Who is at the other end of a [`BgpPeer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerTarget {
    /// `spec.peerIP` with its port; 179 where the resource gives none.
    Address(SocketAddr),
    /// `spec.peerSelector`, as text: the nodes whose labels it selects.
    Nodes(String),
    /// `spec.localWorkloadSelector`, as text: the workloads of the same node whose labels it selects.
    LocalWorkloads(String),
}

/// A session with a router outside the mesh, or with a node beyond it (`…/v3/bgppeer.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// `metadata.name`.
    pub name: String,
    /// `spec.node` or `spec.nodeSelector`, or every node.
    pub nodes: PeerNodes,
    /// `spec.peerIP` or `spec.peerSelector`.
    pub target: PeerTarget,
    /// `spec.asNumber`; absent where the other end is a node, which has its own.
    pub as_number: Option<AsNumber>,
    /// `spec.filters`: names of BGPFilters, in the order they are asked.
    pub filters: Vec<String>,
    /// `spec.localASNumber`: as which AS we speak; absent means the node's.
    pub local_as_number: Option<AsNumber>,
    /// `spec.numAllowedLocalASNumbers`: how often our AS may be in the path of a route that we still take.
    pub allowed_local_as: u8,
    /// `spec.reachableBy`: the gateway to the peer, of its family.
    pub reachable_by: Option<IpAddr>,
    /// `spec.reversePeering` is not `Manual`: nodes at the other end have the session as well.
    pub reverse_peering: bool,
    /// `spec.nextHopMode: Keep`: leave the next hop as it came.
    pub next_hop_keep: bool,
    /// `spec.keepOriginalNextHop`, the older field: leave the next hop as it came on a session with another AS. Calico
    /// heeds it on no other.
    pub keep_original_next_hop: bool,
    /// `spec.nextHopMode: Self`: always announce our own address as the next hop.
    pub next_hop_self: bool,
    /// `spec.sourceAddress`: `None` in the resource turns binding to the node's address off.
    pub bind_to_node_address: bool,
    /// `spec.maxRestartTime`; absent means 120 s.
    pub max_restart_time: Option<Duration>,
    /// `spec.keepaliveTime`; absent means a third of the hold time.
    pub keepalive_time: Option<Duration>,
    /// `spec.ttlSecurity`: the peer is at most so many hops away, and packets from further off are not its (RFC 5082).
    pub ttl_security: Option<u8>,
    /// `spec.failureDetectionMode: BFDIfDirectlyConnected`, which is Calico Enterprise's: the peer is watched by BFD.
    pub bfd: bool,
    /// `spec.password`: where the session's TCP MD5 password stands (RFC 2385).
    pub password: Option<SecretKey>,
}

impl BgpPeer {
    /// A peer of every node, with Calico's defaults.
    pub fn new(name: impl Into<String>, target: PeerTarget) -> BgpPeer {
        BgpPeer {
            name: name.into(),
            nodes: PeerNodes::All,
            target,
            as_number: None,
            filters: Vec::new(),
            local_as_number: None,
            allowed_local_as: 0,
            reachable_by: None,
            reverse_peering: true,
            next_hop_keep: false,
            keep_original_next_hop: false,
            next_hop_self: false,
            bind_to_node_address: true,
            max_restart_time: None,
            keepalive_time: None,
            ttl_security: None,
            bfd: false,
            password: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers_are_read_plain_and_dotted() {
        assert_eq!("64512".parse(), Ok(AsNumber(64512)));
        assert_eq!("64086.59904".parse(), Ok(AsNumber(4_200_000_000)));
        assert_eq!("0.1".parse(), Ok(AsNumber(1)));
        for text in ["", "-1", "4294967296", "65536.1", "1.65536", "1.", ".1", "1.2.3", "+5"] {
            assert!(text.parse::<AsNumber>().is_err(), "{text}");
        }
    }
}
