//! Blocks of a pool: which node owns each, and who has its addresses.

use std::collections::BTreeMap;

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

/// A block and its allocations (`libcalico-go/lib/backend/model/block.go`, `AllocationBlock`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamBlock {
    /// The block.
    pub cidr: Prefix,
    /// The node that owns it, if one does: an affinity of `host:`.
    pub node: Option<String>,
    /// From the block's first address on: the row of [`Self::attributes`] of who has it; `None` is free.
    pub allocations: Vec<Option<usize>>,
    /// Who has addresses of it.
    pub attributes: Vec<AllocationAttributes>,
}

/// Whose an allocated address is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocationAttributes {
    /// The handle by which it is released.
    pub handle: Option<String>,
    /// What is known of its user: `node`, `pod`, `namespace`, `type`, and more.
    pub owner: BTreeMap<String, String>,
    /// Given back, and not given out again for a while.
    pub is_released: bool,
}
