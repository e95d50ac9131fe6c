//! # What this room is for
//!
//! Whole networks on one machine: Linux network namespaces joined by veth pairs, with the real `tortie` binary,
//! Debian's BIRD and the kernel's own forwarding in them, and real traffic through all of it.
//! A scenario is a behaviour that a user could name, shown end to end.
//!
//! # How things pass through it
//!
//! ```text
//! Scenario --raises--> Lab --owns--> Namespace, Process, state directory
//!                       |
//!                 topology: Fabric, Cluster { TortieNode, BirdNode }, Workload
//!                       |
//!                 traffic + capture ----> proofs, printed as they are found
//!                       |
//!                 books of every node ---> received + injected = forwarded + punted + dropped
//! ```
//!
//! `simulation` is another world: no namespaces, only speakers and their tables, in virtual time.
//!
//! # What it promises
//!
//! A lab leaves nothing behind: namespaces, processes and files go when the [`Lab`] is dropped, after an error, a
//! panic or a signal too; what a killed run left is found by [`sweep`] through its state directory.
//! Every wait has a deadline and says what it waited for.
//! A scenario that cannot run here counts as skipped, never as passed.
//!
//! # What it never does
//!
//! It never touches an interface, a route or a setting of the namespace it was started in: both ends of a veth pair
//! are born inside namespaces of the lab. It never ends a process that it did not start.

pub mod appliance;
pub mod bgp_message;
pub mod bird;
pub mod books;
pub mod browser;
pub mod capture;
pub mod cluster;
pub mod command;
pub mod debian;
pub mod demo;
pub mod dissected;
pub mod disturbance;
pub mod etcd;
pub mod frr;
pub mod hostile;
pub mod interop;
mod lab;
pub mod link;
pub mod machine;
pub mod netns;
pub mod numbers;
pub mod outage;
pub mod package;
pub mod process;
pub mod progress;
pub mod resources;
pub mod scenario;
pub mod scenarios;
pub mod secrets;
pub mod simulation;
pub mod sweep;
pub mod table;
pub mod tortie;
pub mod traffic;
pub mod vm;
pub mod vtep;
pub mod wait;
pub mod workload;

pub use lab::{Lab, Tools};
