//! The kernel's interfaces and their addresses, for whoever chooses one at the start.

use model::{IfIndex, InterfaceAddr};

use crate::error::Error;
use crate::interfaces::{addresses, links};
use crate::netlink::Netlink;

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// Its name.
    pub name: String,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<InterfaceAddr>,
}

/// All interfaces, the oldest first.
///
/// # Errors
/// The kernel doesn't tell.
pub fn host_interfaces() -> Result<Vec<HostInterface>, Error> {
    let mut netlink = Netlink::open()?;
    let mut links = links(&mut netlink)?;
    let addresses = addresses(&mut netlink)?;
    links.sort_by_key(|link| link.ifindex);
    let of = |ifindex: IfIndex| {
        addresses.iter().filter(move |address| address.ifindex == ifindex).map(|address| address.addr)
    };
    Ok(links
        .into_iter()
        .map(|link| HostInterface { addresses: of(link.ifindex).collect(), name: link.name })
        .collect())
}
