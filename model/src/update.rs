//! The one stream that a datastore gives: a snapshot, an in-sync mark, then changes.

use std::fmt;
use std::sync::Arc;

use crate::{
    BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, ClusterInformation, FelixConfiguration,
    HostEndpoint, IpPool, IpamBlock, NetworkPolicy, NetworkSet, Node, NodeStatusRequest, PolicyKey, Prefix,
    Profile, Tier, WorkloadEndpoint,
};

/// A resource that the router reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A node, this one or another.
    Node(Node),
    /// A pool of addresses.
    IpPool(IpPool),
    /// A workload's interface.
    WorkloadEndpoint(WorkloadEndpoint),
    /// BGP settings.
    BgpConfiguration(BgpConfiguration),
    /// A BGP session asked for.
    BgpPeer(BgpPeer),
    /// Rules about routes that BGP sessions may have.
    BgpFilter(BgpFilter),
    /// A node's claim of a block.
    BlockAffinity(BlockAffinity),
    /// A block and its allocations.
    IpamBlock(IpamBlock),
    /// What the cluster says of itself.
    ClusterInformation(ClusterInformation),
    /// Settings of the dataplane.
    FelixConfiguration(FelixConfiguration),
    /// A group of policies.
    Tier(Tier),
    /// A policy of any kind.
    NetworkPolicy(NetworkPolicy),
    /// Rules and labels that endpoints share.
    Profile(Profile),
    /// Networks with labels, of a namespace or global.
    NetworkSet(NetworkSet),
    /// A host's own interface.
    HostEndpoint(HostEndpoint),
    /// What is to be told of a node.
    NodeStatus(NodeStatusRequest),
}

/// What names a resource: its kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// By name.
    Node(String),
    /// By name.
    IpPool(String),
    /// By namespace and name.
    WorkloadEndpoint(String, String),
    /// By name.
    BgpConfiguration(String),
    /// By name.
    BgpPeer(String),
    /// By name.
    BgpFilter(String),
    /// By block and node.
    BlockAffinity(Prefix, String),
    /// By block.
    IpamBlock(Prefix),
    /// By name.
    ClusterInformation(String),
    /// By name.
    FelixConfiguration(String),
    /// By name.
    Tier(String),
    /// By kind, namespace and name.
    NetworkPolicy(PolicyKey),
    /// By name.
    Profile(String),
    /// By namespace, where it isn't a global one, and name.
    NetworkSet(Option<String>, String),
    /// By name.
    HostEndpoint(String),
    /// By name.
    NodeStatus(String),
}

impl Resource {
    /// What names this resource.
    pub fn key(&self) -> Key {
        match self {
            Resource::Node(node) => Key::Node(node.name.clone()),
            Resource::IpPool(pool) => Key::IpPool(pool.name.clone()),
            Resource::WorkloadEndpoint(endpoint) => {
                Key::WorkloadEndpoint(endpoint.namespace.clone(), endpoint.name.clone())
            }
            Resource::BgpConfiguration(config) => Key::BgpConfiguration(config.name.clone()),
            Resource::BgpPeer(peer) => Key::BgpPeer(peer.name.clone()),
            Resource::BgpFilter(filter) => Key::BgpFilter(filter.name.clone()),
            Resource::BlockAffinity(block) => Key::BlockAffinity(block.cidr, block.node.clone()),
            Resource::IpamBlock(block) => Key::IpamBlock(block.cidr),
            Resource::ClusterInformation(cluster) => Key::ClusterInformation(cluster.name.clone()),
            Resource::FelixConfiguration(config) => Key::FelixConfiguration(config.name.clone()),
            Resource::Tier(tier) => Key::Tier(tier.name.clone()),
            Resource::NetworkPolicy(policy) => Key::NetworkPolicy(policy.key.clone()),
            Resource::Profile(profile) => Key::Profile(profile.name.clone()),
            Resource::NetworkSet(set) => Key::NetworkSet(set.namespace.clone(), set.name.clone()),
            Resource::HostEndpoint(endpoint) => Key::HostEndpoint(endpoint.name.clone()),
            Resource::NodeStatus(request) => Key::NodeStatus(request.name.clone()),
        }
    }
}

impl Key {
    /// The kind's name in resources.
    pub fn kind(&self) -> &'static str {
        match self {
            Key::Node(_) => "Node",
            Key::IpPool(_) => "IPPool",
            Key::WorkloadEndpoint(..) => "WorkloadEndpoint",
            Key::BgpConfiguration(_) => "BGPConfiguration",
            Key::BgpPeer(_) => "BGPPeer",
            Key::BgpFilter(_) => "BGPFilter",
            Key::BlockAffinity(..) => "BlockAffinity",
            Key::IpamBlock(_) => "IPAMBlock",
            Key::ClusterInformation(_) => "ClusterInformation",
            Key::FelixConfiguration(_) => "FelixConfiguration",
            Key::Tier(_) => "Tier",
            Key::NetworkPolicy(key) => key.kind.name(),
            Key::Profile(_) => "Profile",
            Key::NetworkSet(Some(_), _) => "NetworkSet",
            Key::NetworkSet(None, _) => "GlobalNetworkSet",
            Key::HostEndpoint(_) => "HostEndpoint",
            Key::NodeStatus(_) => "CalicoNodeStatus",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Key::Node(name)
            | Key::IpPool(name)
            | Key::BgpConfiguration(name)
            | Key::BgpPeer(name)
            | Key::BgpFilter(name)
            | Key::ClusterInformation(name)
            | Key::FelixConfiguration(name)
            | Key::Tier(name)
            | Key::Profile(name)
            | Key::NetworkSet(None, name)
            | Key::HostEndpoint(name)
            | Key::NodeStatus(name) => write!(f, "{kind}({name})"),
            Key::WorkloadEndpoint(namespace, name) | Key::NetworkSet(Some(namespace), name) => {
                write!(f, "{kind}({namespace}/{name})")
            }
            Key::BlockAffinity(cidr, node) => write!(f, "{kind}({cidr} of {node})"),
            Key::IpamBlock(cidr) => write!(f, "{kind}({cidr})"),
            Key::NetworkPolicy(key) => key.fmt(f),
        }
    }
}

/// One event of a datastore's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The resource exists with these contents: new, or changed. Shared with whoever announced it.
    Put(Arc<Resource>),
    /// The resource is gone.
    Remove(Key),
    /// All that existed when the stream began has been sent. Sent once.
    InSync,
}
