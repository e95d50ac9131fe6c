//! The appliance's image, booted under QEMU's software emulation and held to what an operator expects of it.
//!
//! ```text
//!        ops ── mgmt0 ┐                                     ops has ssh and a key, nothing else
//!                     gateway1                              the image: Tortie on two virtio-net data ports
//!   left ── wire-left ── data0   data1 ── wire-right ── right        left is BIRD with the kernel,
//!                                                         └─ far     right a Tortie node with a workload
//! ```
//!
//! ```text
//!   machine.rs  QEMU, its disk and config drive, ssh into it
//!   site.rs     what is around it, and what its config drive says
//!   sights.rs   what was seen, and how it ended, as a table
//!   tour.rs     the sights, in order
//! ```

mod machine;
mod sights;
mod site;
mod tour;

use std::path::PathBuf;

pub use sights::Sights;
pub use tour::tour;

/// The programs that this needs here.
pub const PROGRAMS: [&str; 10] = [
    "qemu-system-x86_64",
    "qemu-img",
    "mkfs.vfat",
    "mcopy",
    "ssh",
    "ssh-keygen",
    "bird",
    "ping",
    "tcpdump",
    "tshark",
];

/// The image, and upgrades to try on it.
#[derive(Clone, Debug)]
pub struct Files {
    /// The image.
    pub disk: PathBuf,
    /// The firmware that it boots with; QEMU's own BIOS where none is named.
    pub firmware: Option<PathBuf>,
    /// Upgrades, if they are to be tried.
    pub upgrades: Option<Upgrades>,
}

/// Upgrades to try.
#[derive(Clone, Debug)]
pub struct Upgrades {
    /// One that works.
    pub good: Upgrade,
    /// One in which the router never becomes ready.
    pub never_ready: Upgrade,
}

/// What `appliance upgrade` takes.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// Where it is.
    pub file: PathBuf,
    /// What it calls itself.
    pub version: String,
}
