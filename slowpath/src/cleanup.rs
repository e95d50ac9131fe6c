//! Removing what a stopped router leaves in the kernel on purpose (D1).

use crate::error::Error;
use crate::forwarding_guard;
use crate::host_port::HostPort;
use crate::kernel_routes::{mirror, policy_rules};
use crate::netlink::Netlink;

/// Removes mirrored routes and their rules, the forwarding guard and the host port. What isn't there is no error.
/// Returns how many mirrored routes went.
///
/// # Errors
/// Where the kernel refuses.
pub fn cleanup() -> Result<usize, Error> {
    let mut netlink = Netlink::open()?;
    let routes = mirror::purge(&mut netlink)?;
    policy_rules::remove_rules(&mut netlink)?;
    forwarding_guard::remove()?;
    HostPort::remove(&mut netlink)?;
    Ok(routes)
}
