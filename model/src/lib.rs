//! # model: the nouns every room shares
//!
//! **What this room is for.** Plain values with one meaning everywhere: addresses and prefixes, identifiers,
//! and the Calico resources that a node reads.
//!
//! **How things pass through it.** `datastore` makes resources and [`Update`]s, `slowpath` turns them into
//! routes and peers; `packet`, `bgp`, `tables` and `fastpath` use the addresses.
//!
//! **What it promises.** Values are ordered, comparable and printable; a [`Prefix`] never has host bits set.
//!
//! **What it never does.** No I/O, no serialization, no behaviour beyond arithmetic on the value itself,
//! and no type that only one room uses: a noun moves in when a second room needs it.

mod addr;
mod bgp;
mod bgp_filter;
mod block;
mod cluster_information;
mod cluster_routes;
mod endpoint;
mod felix;
mod host_endpoint;
mod ids;
mod network_set;
mod node;
mod node_status;
mod order;
mod policy;
mod pool;
mod profile;
mod protocol;
mod rule;
mod tier;
mod update;

pub use addr::{Family, InterfaceAddr, MacAddr, ParseAddrError, Prefix};
pub use bgp::{
    AsNumber, BgpConfiguration, BgpPeer, ParseAsNumberError, PeerNodes, PeerTarget, PrefixAdvertisement,
    SecretKey,
};
pub use bgp_filter::{
    BgpCommunity, BgpFilter, BgpFilterCidr, BgpFilterOperation, BgpFilterOperator, BgpFilterRule,
};
pub use block::{AffinityState, AllocationAttributes, BlockAffinity, IpamBlock};
pub use cluster_information::ClusterInformation;
pub use cluster_routes::ClusterRoutes;
pub use endpoint::{EndpointPort, IpNat, QosControls, QosDirection, WorkloadEndpoint};
pub use felix::{
    ConntrackTimeouts, DenyAction, EndpointToHost, FailsafePort, FelixConfiguration, LogRate,
    NatOutgoingExclusions, Reporting, ReversePath, Setting,
};
pub use host_endpoint::{HostEndpoint, HostInterface};
pub use ids::{IfIndex, PortId, PortKind, WorkerId};
pub use network_set::NetworkSet;
pub use node::Node;
pub use node_status::{NodeStatusClass, NodeStatusRequest};
pub use order::Order;
pub use policy::{NetworkPolicy, PolicyKey, PolicyKind, StagedAction};
pub use pool::{EncapMode, IpPool};
pub use profile::Profile;
pub use protocol::{ParseProtocolError, Protocol};
pub use rule::{
    Action, EntityRule, IcmpMatch, PolicyRule, PortMatch, PortRange, ServiceAccountMatch, ServiceMatch,
};
pub use tier::{Tier, TierDefault};
pub use update::{Key, Resource, Update};
