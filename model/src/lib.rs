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
mod block;
mod endpoint;
mod felix;
mod ids;
mod node;
mod pool;
mod update;

pub use addr::{Family, InterfaceAddr, MacAddr, ParseAddrError, Prefix};
pub use bgp::{AsNumber, BgpConfiguration, BgpPeer, ParseAsNumberError, PeerNodes, PeerTarget};
pub use block::{AffinityState, BlockAffinity};
pub use endpoint::{IpNat, QosControls, QosDirection, WorkloadEndpoint};
pub use felix::{ConntrackTimeouts, FelixConfiguration, NatOutgoingExclusions, ReversePath};
pub use ids::{IfIndex, PortId, PortKind, WorkerId};
pub use node::Node;
pub use pool::{EncapMode, IpPool};
pub use update::{Key, Resource, Update};
