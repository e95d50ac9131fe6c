//! Why the slow path can't start, or can't go on.

use crate::forwarding_guard::GuardError;
use crate::host_port::HostPortError;
use crate::kernel_routes::mirror::MirrorError;
use crate::netlink::NetlinkError;
use crate::nft::NftError;
use crate::sysctl::SysctlError;

/// What ends the slow path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses a netlink request.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A kernel setting can't be written.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The rule that closes the kernel's own way to workloads can't be set (D1).
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The host port can't be made.
    #[error(transparent)]
    HostPort(#[from] HostPortError),
    /// The thread that keeps host endpoints' policy can't be started.
    #[error("could not start the thread of host endpoints' policy: {0}")]
    HostPolicyThread(#[source] std::io::Error),
    /// The thread that watches peers by BFD can't be started.
    #[error("could not start the thread of BFD: {0}")]
    BfdThread(#[source] std::io::Error),
    /// The thread that speaks BGP can't be started.
    #[error("could not start the thread of BGP: {0}")]
    BgpThread(#[source] std::io::Error),
    /// The thread that speaks BGP has ended by itself.
    #[error("the thread of BGP has ended; restart tortie")]
    BgpEnded,
    /// What isn't needed can't be given up.
    #[error("could not give up capabilities: {0}; does a seccomp filter forbid capset?")]
    Privileges(#[source] std::io::Error),
    /// A table of host endpoints' policy can't be removed.
    #[error("could not remove host endpoints' policy: {0}")]
    HostPolicy(#[from] NftError),
    /// The mirror of routes can't be started.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The directory of resources can't be opened.
    #[error(transparent)]
    Datastore(#[from] datastore::OpenError),
    /// The kernel's changes can't be followed any more.
    #[error("lost touch with the kernel's network: {0}; restart tortie")]
    KernelLost(String),
}
