//! Neighbours: who has which MAC on which interface.
//!
//! On uplinks the kernel's table is the truth (ARCHITECTURE.md, D9): facts come by netlink and the kernel is asked to
//! resolve. On workload ports the kernel sees no frame, so facts come from the workload's own ARP and ND ([`arp`],
//! [`nd`]) and from `WorkloadEndpoint.mac`. [`NeighborTable`](table::NeighborTable) holds both.

pub mod arp;
pub mod managed;
pub mod nd;
pub mod table;

use std::fmt;
use std::net::IpAddr;

use model::{IfIndex, MacAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{Netlink, NetlinkError};

/// Errno of a kernel that doesn't know managed neighbours.
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// How sure the kernel is of a neighbour (`NUD_*` in `include/uapi/linux/neighbour.h`, states of RFC 4861 §7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NeighborState {
    /// Asked, not answered yet.
    Incomplete,
    /// Confirmed a short while ago.
    Reachable,
    /// Known, not confirmed lately.
    Stale,
    /// Stale and in use; a probe follows unless something confirms it.
    Delay,
    /// Being probed.
    Probe,
    /// Nobody answered.
    Failed,
    /// The interface needs no resolution.
    Noarp,
    /// Set by an administrator or by us.
    Permanent,
}

impl NeighborState {
    /// May frames be sent to the MAC of a neighbour in this state? The kernel's `NUD_VALID`.
    pub fn is_usable(self) -> bool {
        !matches!(self, NeighborState::Incomplete | NeighborState::Failed)
    }
}

impl fmt::Display for NeighborState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NeighborState::Incomplete => "incomplete",
            NeighborState::Reachable => "reachable",
            NeighborState::Stale => "stale",
            NeighborState::Delay => "delay",
            NeighborState::Probe => "probe",
            NeighborState::Failed => "failed",
            NeighborState::Noarp => "noarp",
            NeighborState::Permanent => "permanent",
        })
    }
}

/// One row of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighborFact {
    /// The interface it lives on.
    pub ifindex: IfIndex,
    /// Its address.
    pub addr: IpAddr,
    /// Its MAC, where known. A failed entry may still show the last one.
    pub mac: Option<MacAddr>,
    /// How sure the kernel is.
    pub state: NeighborState,
}

impl NeighborFact {
    /// `None` for rows that are no neighbour of an internet address: proxy entries, bridge entries, no state.
    pub(crate) fn from_message(message: &NeighbourMessage) -> Option<NeighborFact> {
        let (ifindex, addr) = named_in(message)?;
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(MacAddr),
            _ => None,
        });
        Some(NeighborFact { ifindex, addr, mac, state: state_from_kernel(message.header.state)? })
    }
}

/// Which neighbour a message is about; in a removal it may have no state left.
pub(crate) fn named_in(message: &NeighbourMessage) -> Option<(IfIndex, IpAddr)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let addr = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    Some((IfIndex(message.header.ifindex), addr))
}

fn state_from_kernel(state: NeighbourState) -> Option<NeighborState> {
    Some(match state {
        NeighbourState::Incomplete => NeighborState::Incomplete,
        NeighbourState::Reachable => NeighborState::Reachable,
        NeighbourState::Stale => NeighborState::Stale,
        NeighbourState::Delay => NeighborState::Delay,
        NeighbourState::Probe => NeighborState::Probe,
        NeighbourState::Failed => NeighborState::Failed,
        NeighbourState::Noarp => NeighborState::Noarp,
        NeighbourState::Permanent => NeighborState::Permanent,
        _ => return None,
    })
}

/// Asks the kernel to resolve a neighbour and to keep it resolved.
///
/// The answer comes as a neighbour event. The entry is *managed* (`NTF_EXT_MANAGED`, Linux 5.16): the kernel probes
/// it again by itself, which matters because it never sees our traffic and so would never confirm the entry; left
/// alone it would stay stale for ever after a next hop moved or died. Older kernels resolve once, as if the kernel
/// had a packet to send (`NTF_USE`); then the caller asks again from time to time.
///
/// # Errors
/// Where the kernel refuses, for example because the interface is gone.
pub fn resolve(netlink: &mut Netlink, ifindex: IfIndex, addr: IpAddr) -> Result<(), NetlinkError> {
    let what = "resolve a neighbour";
    let managed = request(ifindex, addr, true);
    match netlink.request(what, RouteNetlinkMessage::NewNeighbour(managed), NLM_F_CREATE) {
        Err(error) if matches!(error.errno(), Some(EINVAL | EOPNOTSUPP)) => netlink.request(
            what,
            RouteNetlinkMessage::NewNeighbour(request(ifindex, addr, false)),
            NLM_F_CREATE,
        ),
        result => result,
    }
}

/// The kernel need no longer keep this neighbour resolved; the entry ages as any other.
///
/// # Errors
/// Where the kernel refuses, for example because the interface is gone.
pub fn release(netlink: &mut Netlink, ifindex: IfIndex, addr: IpAddr) -> Result<(), NetlinkError> {
    let message = request(ifindex, addr, false);
    netlink.request("release a neighbour", RouteNetlinkMessage::NewNeighbour(message), NLM_F_REPLACE)
}

fn request(ifindex: IfIndex, addr: IpAddr, managed: bool) -> NeighbourMessage {
    let mut message = neighbor_message(ifindex, addr, NeighbourState::None);
    if managed {
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    } else {
        message.header.flags = NeighbourFlags::Use;
    }
    message
}

/// Tells the kernel a neighbour's MAC for good, so that it never asks.
///
/// # Errors
/// Where the kernel refuses, for example because the interface is gone.
pub fn set_permanent(
    netlink: &mut Netlink,
    ifindex: IfIndex,
    addr: IpAddr,
    mac: MacAddr,
) -> Result<(), NetlinkError> {
    let mut message = neighbor_message(ifindex, addr, NeighbourState::Permanent);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.request("set a permanent neighbour", RouteNetlinkMessage::NewNeighbour(message), flags)
}

fn neighbor_message(ifindex: IfIndex, addr: IpAddr, state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex.0;
    message.header.state = state;
    let destination = match addr {
        IpAddr::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            NeighbourAddress::Inet(v4)
        }
        IpAddr::V6(v6) => {
            message.header.family = AddressFamily::Inet6;
            NeighbourAddress::Inet6(v6)
        }
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::interfaces::{self, KernelEvent, Monitor};
    use crate::testing::{Neighborhood, in_namespace_async, ip};

    pub(in crate::neighbors) fn ifindex(name: &str) -> IfIndex {
        let links = interfaces::links(&mut Netlink::open().unwrap()).unwrap();
        links.iter().find(|link| link.name == name).unwrap().ifindex
    }

    async fn wait_for_mac(monitor: &mut Monitor, addr: IpAddr) -> MacAddr {
        let found = async {
            loop {
                if let KernelEvent::NeighborChanged(fact) = monitor.next().await.unwrap()
                    && fact.addr == addr
                    && fact.state.is_usable()
                {
                    return fact.mac.unwrap();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.expect("the neighbour resolves")
    }

    #[test]
    fn the_kernel_resolves_a_neighbour_that_we_ask_for() {
        in_namespace_async(async || {
            let there = Neighborhood::behind("up0", "far0");
            there.ip("link set far0 address 02:00:00:00:00:09");
            there.ip("addr add 192.0.2.9/24 dev far0");
            there.ip("addr add 2001:db8::9/64 dev far0 nodad");
            ip("addr add 192.0.2.1/24 dev up0");
            ip("addr add 2001:db8::1/64 dev up0 nodad");
            let mut netlink = Netlink::open().unwrap();
            let mut monitor = Monitor::open().unwrap();
            let uplink = ifindex("up0");
            for addr in ["192.0.2.9", "2001:db8::9"] {
                let addr: IpAddr = addr.parse().unwrap();
                resolve(&mut netlink, uplink, addr).unwrap();
                resolve(&mut netlink, uplink, addr).unwrap();
                assert_eq!(wait_for_mac(&mut monitor, addr).await.to_string(), "02:00:00:00:00:09");
                assert!(ip(&format!("neigh show {addr}")).contains("managed"));
                release(&mut netlink, uplink, addr).unwrap();
                let left = ip(&format!("neigh show {addr}"));
                assert!(left.contains("02:00:00:00:00:09") && !left.contains("managed"), "{left}");
            }
        });
    }

    #[test]
    fn nobody_at_the_address_becomes_failed() {
        in_namespace_async(async || {
            let _there = Neighborhood::behind("up0", "far0");
            ip("addr add 192.0.2.1/24 dev up0");
            let mut monitor = Monitor::open().unwrap();
            let addr: IpAddr = "192.0.2.77".parse().unwrap();
            resolve(&mut Netlink::open().unwrap(), ifindex("up0"), addr).unwrap();
            let failed = async {
                loop {
                    if let KernelEvent::NeighborChanged(fact) = monitor.next().await.unwrap()
                        && (fact.addr, fact.state) == (addr, NeighborState::Failed)
                    {
                        return fact;
                    }
                }
            };
            let fact = tokio::time::timeout(Duration::from_secs(20), failed).await.expect("it fails");
            assert!(!fact.state.is_usable());
        });
    }

    #[test]
    fn a_neighbour_on_no_interface_is_refused() {
        let error =
            resolve(&mut Netlink::open().unwrap(), IfIndex(0x7fff_0000), "192.0.2.1".parse().unwrap());
        assert!(error.unwrap_err().to_string().starts_with("the kernel refused to resolve a neighbour"));
    }
}
