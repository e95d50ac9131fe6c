//! # perf: how fast it is, measured
//!
//! **What this room is for.** Figures that a sceptic can make again: the look-up, the walk in memory and the whole
//! router between veths, each beside its peers on the same work, on the same cores, in one run.
//!
//! **How things pass through it.** [`data`] reads an internet table (or makes one of its shape), [`keys`] draws
//! addresses from it, a file of this room measures one thing in [`measure`]'s rounds, and [`record`] writes what came
//! out, with commit and machine, into `perf/records/`.
//!
//! **What it promises.** The same inputs in every run. Rounds of the things compared are interleaved, and what is
//! told is their median and range. Nothing is asserted of the clock: these machines are shared, and only ratios of
//! one run mean something. What can be asserted anywhere is: no allocation in the walk, instructions under callgrind.
//!
//! **What it never does.** Run in production, or touch an interface that it didn't make.

pub mod acl;
pub mod batches;
pub mod cluster;
pub mod data;
pub mod huge_pages;
pub mod judged;
pub mod keys;
pub mod measure;
pub mod packets;
pub mod record;
pub mod replay_port;
pub mod router;
pub mod works;
