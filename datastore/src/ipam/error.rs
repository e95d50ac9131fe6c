//! What IPAM can't do, in Calico's words where it has some.

use std::net::IpAddr;

use model::Prefix;

use super::pools::Use;
use crate::StoreError;

/// Why an address wasn't assigned, released or found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Addresses of blocks are for their own node alone, and the block is another's.
    #[error("Block affinity ({affinity}) does not match provided ({node}:host)")]
    OtherAffinity {
        /// Whose it is.
        affinity: String,
        /// Who asked.
        node: String,
    },
    /// Addresses of blocks are for their own node alone, and the block is nobody's.
    #[error("Attempt to assign from block {0} with no affinity")]
    NoAffinity(Prefix),
    /// An address isn't of the block that it was looked for in.
    #[error("IP {addr} not in block {block}")]
    NotInBlock {
        /// The address.
        addr: IpAddr,
        /// The block.
        block: Prefix,
    },
    /// Somebody has the address.
    #[error("resource already exists: {0}")]
    AlreadyAssigned(IpAddr),
    /// Nobody has the address.
    #[error("resource does not exist: {0} with error: IP is unassigned")]
    NotAssigned(IpAddr),
    /// The address was given back a short while ago.
    #[error("IP {0} is in cooldown")]
    CoolingDown(IpAddr),
    /// Whoever releases an address knows another assignment of it than today's.
    #[error("update conflict: {addr} was assigned with sequence number {expected}, not {requested}")]
    BadSequenceNumber {
        /// The address.
        addr: IpAddr,
        /// What was given.
        requested: u64,
        /// What it is.
        expected: u64,
    },
    /// Whoever releases an address knows another owner of it than today's.
    #[error("update conflict: {addr} was assigned by handle '{expected}', not '{requested}'")]
    BadHandle {
        /// The address.
        addr: IpAddr,
        /// What was given.
        requested: String,
        /// What it is.
        expected: String,
    },
    /// No pool is enabled.
    #[error("cannot find a qualified ippool")]
    NoQualifiedPool,
    /// No pool selects the node.
    #[error("no configured Calico pools for node {0}")]
    NoPoolsForNode(String),
    /// No pool is for this use.
    #[error("cannot find a qualified ippool, no pools match the required use ({0})")]
    NoPoolsForUse(Use),
    /// A pool that was asked for.
    #[error("the given pool ({0}) does not exist, or is not enabled")]
    PoolNotEnabled(Prefix),
    /// A pool is not for this use.
    #[error("IP address {addr} is in IP pool \"{pool}\", which is not allowed for use \"{usage}\"")]
    UseNotAllowed {
        /// The address that was asked for.
        addr: IpAddr,
        /// The pool's name.
        pool: String,
        /// What for.
        usage: Use,
    },
    /// A pool's selector can't be read.
    #[error("IP pool {pool}: {reason}")]
    Selector {
        /// The pool's name.
        pool: String,
        /// Why.
        reason: String,
    },
    /// The node has as many blocks as it may have, and they are full.
    #[error("cannot allocate new block due to per host block limit")]
    BlockLimit,
    /// Blocks aren't claimed by themselves, and the node's are full.
    #[error("failed to find or claim a block")]
    NoBlocks,
    /// No pool has the address.
    #[error("The provided IP address is not in a configured pool")]
    NotInPool,
    /// No pool has the network.
    #[error("The requested CIDR ({0}) is not within any configured pools.")]
    CidrNotInPool(Prefix),
    /// It is less than a block.
    #[error("The requested CIDR ({0}) is smaller than the minimum.")]
    CidrTooSmall(Prefix),
    /// Settings that contradict each other.
    #[error("{0}")]
    Config(&'static str),
    /// Others wrote first, each time.
    #[error("Max retries hit - excessive concurrent IPAM requests")]
    TooManyConflicts,
}

impl IpamError {
    /// Has somebody else written, or removed, what was to be written?
    pub(super) fn is_overtaken(&self) -> bool {
        use StoreError::{AlreadyExists, Conflict, NotFound};
        matches!(self, IpamError::Store(Conflict(_) | NotFound(_) | AlreadyExists(_)))
    }

    /// Isn't there what was asked for?
    pub fn is_not_found(&self) -> bool {
        matches!(self, IpamError::Store(StoreError::NotFound(_)) | IpamError::NotAssigned(_))
    }
}
