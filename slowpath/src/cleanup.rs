//! Removing what a stopped router leaves in the kernel on purpose (D1).

use crate::error::Error;
use crate::host_port::HostPort;
use crate::kernel_routes::mirror;
use crate::netlink::Netlink;
use crate::{forwarding_guard, sysctl};

/// Removes mirrored routes and their rules, the forwarding guard and the host port, and gives workload interfaces
/// their usual settings back. What isn't there is no error.
/// Returns how many mirrored routes went.
///
/// # Errors
/// Where the kernel refuses.
pub fn cleanup(workload_prefix: &str) -> Result<usize, Error> {
    let mut netlink = Netlink::open()?;
    let routes = mirror::purge(&mut netlink)?;
    forwarding_guard::remove()?;
    HostPort::remove(&mut netlink)?;
    sysctl::release_workload_ports(workload_prefix)?;
    Ok(routes)
}
