//! What resources say that an operator probably didn't mean.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use model::{Family, InterfaceAddr, Prefix};

use super::{EndpointName, PeerKind, PeerName};

/// Something to look at. We go on as its text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// There is no Node resource of our name.
    NodeMissing {
        /// Our name.
        node: String,
    },
    /// Our Node resource has no IPv4 address, which BGP needs as an identifier.
    NoRouterId {
        /// Our name.
        node: String,
    },
    /// Our address stands without the length of its subnet.
    NodeAddressWithoutSubnet {
        /// Our name.
        node: String,
        /// The address, a /32 or /128.
        address: InterfaceAddr,
    },
    /// Two FelixConfigurations with selectors are about this node.
    ConfigurationsContend {
        /// The older one.
        used: String,
        /// The other.
        left_out: String,
    },
    /// Two IPPools have the same CIDR.
    PoolTwice {
        /// Their CIDR.
        cidr: Prefix,
        /// The one whose name is first.
        used: String,
        /// The other.
        left_out: String,
    },
    /// Another node confirmed the same block.
    BlockClaimedTwice {
        /// The block.
        block: Prefix,
        /// The other node.
        other: String,
    },
    /// Two endpoints of ours name the same interface.
    InterfaceShared {
        /// The interface.
        interface: String,
        /// The endpoint it leads to.
        used: EndpointName,
        /// The endpoint that gets nothing.
        left_out: EndpointName,
    },
    /// An endpoint of ours asks to send under addresses of others, which FelixConfiguration doesn't allow.
    SpoofingRefused {
        /// The endpoint that gets nothing.
        endpoint: EndpointName,
    },
    /// A BGPPeer needs an address of a family that this node has none of.
    PeerFamilyMissing {
        /// The BGPPeer.
        peer: String,
        /// The family.
        family: Family,
    },
    /// A BGPPeer names no AS, and its address is no node's.
    PeerWithoutAs {
        /// The BGPPeer.
        peer: String,
    },
    /// A BGPPeer's address is one that no TCP connection can be made to.
    PeerAtMulticast {
        /// The BGPPeer.
        peer: String,
        /// The address.
        address: IpAddr,
    },
    /// A BGPPeer names a BGPFilter that isn't there.
    FilterMissing {
        /// The BGPPeer.
        peer: String,
        /// The BGPFilter.
        filter: String,
    },
    /// A session would lead where another one leads already.
    PeerTwice {
        /// What asks for it.
        kind: PeerKind,
        /// The BGPPeer, or the other Node of the mesh.
        resource: String,
        /// Where it leads.
        remote: SocketAddr,
        /// The session that stays.
        used: PeerName,
    },
    /// A pool wants its packets encapsulated and FelixConfiguration forbids it.
    TunnelsSwitchedOff {
        /// The pool.
        pool: String,
        /// The field that forbids it.
        by: &'static str,
    },
    /// A pool wants VXLAN and our Node resource has no address of its family.
    NoTunnelsWithoutAddress {
        /// Our name.
        node: String,
        /// The family.
        family: Family,
    },
    /// A pool is encapsulated and a node, ours or another, has no tunnel address for that.
    TunnelAddressMissing {
        /// The node's name.
        node: String,
        /// Where the address should stand in its resource's spec.
        field: &'static str,
    },
    /// Neither FelixConfiguration nor BGPConfiguration leaves routes into a pool to anybody.
    PoolWithoutRoutes {
        /// The pool.
        pool: String,
    },
    /// Another node has the same address as this one.
    AddressOfOtherNode {
        /// The other node.
        other: String,
        /// The address.
        address: std::net::IpAddr,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::NodeMissing { node } => {
                write!(f, "there is no Node resource named {node}: no BGP session is kept until there is one")
            }
            Warning::NoRouterId { node } => write!(
                f,
                "Node({node}) has no spec.bgp.ipv4Address, which BGP needs as its identifier: no session is kept; `bgp: {{ router_id: hash }}` gives it another one"
            ),
            Warning::NodeAddressWithoutSubnet { node, address } => write!(
                f,
                "Node({node}) records {address}: without its subnet's length every other node counts as being in \
                 another subnet"
            ),
            Warning::ConfigurationsContend { used, left_out } => write!(
                f,
                "FelixConfiguration({left_out}) is left out: FelixConfiguration({used}) selects this node too, and is older"
            ),
            Warning::PoolTwice { cidr, used, left_out } => write!(
                f,
                "IPPool({left_out}) is left out: IPPool({used}) has {cidr} too, and its name is first"
            ),
            Warning::BlockClaimedTwice { block, other } => {
                write!(f, "block {block} is confirmed for node {other} too: both announce it")
            }
            Warning::InterfaceShared { interface, used: (used_in, used), left_out: (left_in, left) } => {
                write!(
                    f,
                    "WorkloadEndpoint({left_in}/{left}) names interface {interface}, which leads to \
                 WorkloadEndpoint({used_in}/{used}) already: it is left out"
                )
            }
            Warning::SpoofingRefused { endpoint: (namespace, name) } => write!(
                f,
                "WorkloadEndpoint({namespace}/{name}) is left out: it has allowSpoofedSourcePrefixes, and \
                 FelixConfiguration doesn't say workloadSourceSpoofing: Any"
            ),
            Warning::PeerFamilyMissing { peer, family } => {
                write!(f, "BGPPeer({peer}) is left out: this node has no {family} address")
            }
            Warning::PeerWithoutAs { peer } => {
                write!(f, "BGPPeer({peer}) is left out: its peerIP is no node's, so it needs an asNumber")
            }
            Warning::PeerAtMulticast { peer, address } => {
                write!(
                    f,
                    "BGPPeer {peer}: {address} is a multicast address: there will be no session with it"
                )
            }
            Warning::FilterMissing { peer, filter } => {
                write!(f, "BGPPeer({peer}) goes without BGPFilter({filter}): there is none of this name")
            }
            Warning::PeerTwice { kind: PeerKind::Mesh, resource, remote, used } => {
                write!(f, "there is no session with Node({resource}): {used} leads to {remote} already")
            }
            Warning::PeerTwice { resource, remote, used, .. } => {
                write!(f, "BGPPeer({resource}) is left out: {used} leads to {remote} already")
            }
            Warning::TunnelsSwitchedOff { pool, by } => write!(
                f,
                "IPPool({pool}) asks for tunnels and FelixConfiguration's {by} is false: what should go by them goes \
                 nowhere"
            ),
            Warning::NoTunnelsWithoutAddress { node, family } => write!(
                f,
                "Node({node}) has no {family} address for the outer header: there is no VXLAN for {family} pools"
            ),
            Warning::TunnelAddressMissing { node, field: field @ "bgp.ipv4IPIPTunnelAddr" } => write!(
                f,
                "Node({node}) has no spec.{field}: what the node itself sends into IPIP pools goes out under its own \
                 address, and replies come back plainly, where routers between know the way"
            ),
            Warning::TunnelAddressMissing { node, field } => write!(
                f,
                "Node({node}) has no spec.{field}: other nodes have no way by VXLAN to its workloads"
            ),
            Warning::PoolWithoutRoutes { pool } => write!(
                f,
                "IPPool({pool}) has no routes to other nodes: programClusterRoutes leaves them to BGP in \
                 FelixConfiguration, and to Felix in BGPConfiguration"
            ),
            Warning::AddressOfOtherNode { other, address } => {
                write!(f, "Node({other}) has this node's address {address}: there is no session with it")
            }
        }
    }
}
