//! Removing what a stopped router leaves in the kernel on purpose (D1).

use std::path::Path;

use crate::error::Error;
use crate::former_settings::FormerSettings;
use crate::host_port::HostPort;
use crate::kernel_routes::mirror;
use crate::netlink::Netlink;
use crate::reserved_ports::{NotReserved, ReservedPorts};
use crate::{forwarding_guard, host_dhcp, host_policy, sysctl};

/// Removes mirrored routes and their rules, the forwarding guard, the policy of host endpoints and the host port, and gives
/// workload interfaces their usual settings and the kernel its ports back, but for those that others have reserved. What
/// isn't there is no error.
/// Returns how many mirrored routes went.
///
/// # Errors
/// Where the kernel refuses.
pub fn cleanup(workload_prefix: &str, reserved_ports: &Path, former_settings: &Path) -> Result<usize, Error> {
    let mut netlink = Netlink::open()?;
    let routes = mirror::purge(&mut netlink)?;
    forwarding_guard::remove()?;
    host_policy::remove()?;
    HostPort::remove(&mut netlink)?;
    host_dhcp::remove(&mut netlink, workload_prefix)?;
    sysctl::release_workload_ports(workload_prefix)?;
    FormerSettings::recorded_at(former_settings.to_owned()).restore()?;
    match ReservedPorts::recorded_at(reserved_ports.to_owned()).reserve(None) {
        Ok(()) | Err(NotReserved::TooMany(_)) => Ok(routes),
        Err(NotReserved::Sysctl(error)) => Err(error.into()),
    }
}
