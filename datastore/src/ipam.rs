//! IP address management as Calico does it (`libcalico-go/lib/ipam`, `design/ipam`), on any [`Store`](crate::Store) and beside
//! Calico's own writers.
//!
//! A pool is cut into blocks, a block has an affinity to one node, and an address is one row of a block. Who holds what is
//! also counted by handle. Three kinds of value, written one after the other, so the order is what keeps them true:
//!
//! ```text
//! claim     affinity pending ─► block ─► affinity confirmed
//! assign    handle + n ─► block
//! release   block ─► handle − n
//! give up   affinity pendingDeletion ─► block gone, or without affinity ─► affinity gone
//! ```
//!
//! Each write names the revision that it replaces; one that comes too late is done again from what is there now, at most
//! [`RETRIES`] times. Only the block says whose an address is: no address can be handed out twice, however many write. A
//! writer that dies between two writes leaves an affinity to be taken up again, or a handle that counts too many, never one
//! that counts too few; both are mended by whoever comes by next.

mod address;
mod affinity;
mod allocator;
mod assigning;
mod block;
mod block_order;
mod claiming;
mod config;
mod error;
mod go_random;
mod handle;
mod pools;
mod releasing;
mod reservations;
mod stored;
mod utilization;

pub use address::{nth, ordinal};
pub use affinity::State;
pub use allocator::{Ipam, RETRIES};
pub use assigning::{Assign, Assigned, AutoAssign};
pub use block::{Attributes, Block, WINDOWS_RESERVED};
pub use config::IpamConfig;
pub use error::IpamError;
pub use handle::Handle;
pub use pools::{Pool, Use, selects};
pub use releasing::{Release, Released};
pub use reservations::Reservations;
pub use utilization::{BlockUsage, PoolUsage};

#[cfg(test)]
mod tests;
