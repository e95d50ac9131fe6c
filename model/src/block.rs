//! Block affinities: which node owns which block of a pool.

use crate::Prefix;

/// How far the claim of a block has come. Only a confirmed one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum AffinityState {
    /// The block is the node's. An affinity without a state counts as confirmed.
    #[default]
    Confirmed,
    /// Claimed, the block not yet written.
    Pending,
    /// Being given up.
    PendingDeletion,
}

/// A node's claim of one block of addresses, such as 10.65.0.0/26 (`design/ipam`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockAffinity {
    /// The block.
    pub cidr: Prefix,
    /// The node that owns it.
    pub node: String,
    /// How far the claim has come.
    pub state: AffinityState,
}
