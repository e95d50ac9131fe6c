//! # lpm: longest-prefix match
//!
//! **What this room is for.** One question, asked for every packet: of all prefixes in a table, which is the longest
//! that an address lies in, and what number was stored with it?
//!
//! **How things pass through it.** One writer owns a [`Table`] and inserts and removes prefixes; each reader owns a
//! [`Lookup`] of the same memory and asks. A change is published by one atomic store, or overwrites answers in place;
//! memory that it replaced is set aside until [`Table::retire`] is told that no reader can still be looking at it.
//!
//! ```text
//!   writer: insert/remove -> prefix store (what covers what) -> engine: overwrite leaves, or swap in new blocks
//!                                                                |  old blocks
//!   retire(epoch, safe) <---------------------------------------+  free again once tag <= safe
//!   reader: lookup(addr) -> root slot -> .. -> leaf                never waits, never locks
//! ```
//!
//! **What it promises.** A [`Lookup`] answers as [`Naive`] would for the table before or after every change that
//! overlaps the question. An [`insert`](Table::insert) that finds no room changes nothing. A removal never fails.
//! All memory is sized by [`Limits`]; all code but `processor.rs`, which holds every number to its array, is safe, so even a
//! wrong use of [`retire`](Table::retire) could only give a wrong answer.
//!
//! **What it never does.** Know what a value means, parse prefixes, or wait for anybody.
//!
//! ```
//! use lpm::{Limits, Table};
//! use std::net::Ipv4Addr;
//!
//! let mut table = Table::<u32>::new(Limits::for_routes(1000));
//! let lookup = table.reader(); // one for each thread that asks
//! table.insert(Ipv4Addr::new(10, 0, 0, 0).into(), 8, 1)?;
//! table.insert(Ipv4Addr::new(10, 65, 0, 0).into(), 16, 2)?;
//!
//! assert_eq!(lookup.lookup(Ipv4Addr::new(10, 65, 0, 7).into()), Some(2));
//! assert_eq!(lookup.lookup(Ipv4Addr::new(10, 1, 1, 1).into()), Some(1));
//! assert_eq!(lookup.lookup(Ipv4Addr::new(192, 0, 2, 1).into()), None);
//!
//! table.remove(Ipv4Addr::new(10, 65, 0, 0).into(), 16);
//! assert_eq!(lookup.lookup(Ipv4Addr::new(10, 65, 0, 7).into()), Some(1));
//! # Ok::<(), lpm::Full>(())
//! ```

mod aligned;
mod arena;
mod engine;
mod ipv4;
mod ipv6;
mod key;
mod limits;
mod lookup;
mod naive;
mod prefix_store;
mod processor;
mod table;

pub use key::Key;
pub use limits::{Full, Limits};
pub use lookup::Lookup;
pub use naive::Naive;
pub use processor::prefetch;
pub use table::{Removing, Table, Usage};

/// What a prefix leads to. Its meaning is unknown here; every number but the largest, [`u32::MAX`], may be stored. An
/// IPv4 table tells 65,534 of them apart at once, and is fastest where all are below 255.
pub type Value = u32;

/// What a batch of look-ups writes for an address that no prefix covers.
pub const NO_ROUTE: Value = Value::MAX;
