//! Routes of the kernel: those we learn from it, and those we mirror into it.
//!
//! *Learned* routes are the main table's that someone else put there: an administrator, DHCP, router advertisements,
//! another routing daemon. *Mirrored* routes are our own best routes, in a table and under a protocol number of
//! our own, so that the kernel forwards transit traffic while no `tortie` runs (ARCHITECTURE.md, D1) and reaches
//! workloads and remote pools itself.

pub mod mirror;
mod pipeline;
pub mod policy_rules;
mod route_message;

use std::net::IpAddr;

use model::{Family, IfIndex, Prefix};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{Netlink, NetlinkError};

/// Our route table's number: `ip route show table 116`. 116 is the letter t; it is below 253, so it fits the old
/// eight-bit field, and neither iproute2, systemd nor Calico uses it.
pub const MIRROR_TABLE: u8 = 116;
/// Our routes' protocol number: `ip route show proto 116`. Not in iproute2's `rt_protos` and above `RTPROT_STATIC`,
/// so the kernel and other daemons leave such routes alone.
pub const MIRROR_PROTOCOL: u8 = 116;
/// The kernel's main table (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;

/// RTPROT_REDIRECT and RTPROT_KERNEL: made by the kernel itself.
const PROTOCOLS_OF_THE_KERNEL: [u8; 2] = [1, 2];

/// What the kernel does with packets for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelRouteKind {
    /// Sends them to a next hop.
    Unicast,
    /// Drops them silently.
    Blackhole,
    /// Answers that the destination is unreachable.
    Unreachable,
    /// Answers that the destination is prohibited.
    Prohibit,
}

/// One next hop of a kernel route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelNexthop {
    /// The gateway; `None` where the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The interface to leave by.
    pub ifindex: IfIndex,
    /// Its share among the route's next hops: 1..=256.
    pub weight: u16,
}

/// A route as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelRoute {
    /// The destination.
    pub prefix: Prefix,
    /// Where to; empty unless `kind` is unicast.
    pub nexthops: Vec<KernelNexthop>,
    /// The kernel's preference: the lowest wins. With `prefix` it names the route in its table.
    pub metric: u32,
    /// Who put it there (`/etc/iproute2/rt_protos`).
    pub protocol: u8,
    /// In which table.
    pub table: u32,
    /// What becomes of the packets.
    pub kind: KernelRouteKind,
}

impl KernelRoute {
    /// Is this a route to learn: in the main table, made neither by the kernel itself nor by us?
    pub fn is_learned(&self) -> bool {
        self.table == MAIN_TABLE
            && self.protocol != MIRROR_PROTOCOL
            && !PROTOCOLS_OF_THE_KERNEL.contains(&self.protocol)
    }

    /// `None` for what is no route of ours to read: clones, local and multicast routes, other families, routes that
    /// match on more than the destination.
    pub(crate) fn from_message(message: &RouteMessage) -> Option<KernelRoute> {
        let header = &message.header;
        if header.flags.contains(RouteFlags::Cloned) || header.source_prefix_length != 0 || header.tos != 0 {
            return None;
        }
        let unspecified = match header.address_family {
            AddressFamily::Inet => Prefix::DEFAULT_V4,
            AddressFamily::Inet6 => Prefix::DEFAULT_V6,
            _ => return None,
        };
        let mut addr = unspecified.addr();
        let mut single = KernelNexthop { gateway: None, ifindex: IfIndex(0), weight: 1 };
        let mut nexthops = Vec::new();
        let (mut metric, mut table) = (0, u32::from(header.table));
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(destination) => addr = ip_addr(destination)?,
                RouteAttribute::Gateway(gateway) => single.gateway = ip_addr(gateway),
                RouteAttribute::Via(via) => single.gateway = via_addr(via),
                RouteAttribute::Oif(ifindex) => single.ifindex = IfIndex(*ifindex),
                RouteAttribute::Priority(priority) => metric = *priority,
                RouteAttribute::Table(id) => table = *id,
                RouteAttribute::MultiPath(hops) => nexthops = hops.iter().map(nexthop).collect(),
                _ => {}
            }
        }
        let kind = kind(header.kind)?;
        if kind == KernelRouteKind::Unicast && nexthops.is_empty() {
            nexthops.push(single);
        }
        let prefix = Prefix::new(addr, header.destination_prefix_length)?;
        Some(KernelRoute { prefix, nexthops, metric, protocol: header.protocol.into(), table, kind })
    }
}

fn kind(kind: RouteType) -> Option<KernelRouteKind> {
    match kind {
        RouteType::Unicast => Some(KernelRouteKind::Unicast),
        RouteType::BlackHole => Some(KernelRouteKind::Blackhole),
        RouteType::Unreachable => Some(KernelRouteKind::Unreachable),
        RouteType::Prohibit => Some(KernelRouteKind::Prohibit),
        _ => None,
    }
}

fn nexthop(hop: &RouteNextHop) -> KernelNexthop {
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(gateway) => ip_addr(gateway),
        RouteAttribute::Via(via) => via_addr(via),
        _ => None,
    });
    // `rtnh_hops` is the weight less one (`include/uapi/linux/rtnetlink.h`).
    KernelNexthop { gateway, ifindex: IfIndex(hop.interface_index), weight: u16::from(hop.hops) + 1 }
}

fn ip_addr(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn via_addr(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteVia::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Reads the routes we learn from: see [`KernelRoute::is_learned`].
///
/// # Errors
/// Where the kernel refuses, or its table changes faster than it can be read.
pub fn learned_routes(netlink: &mut Netlink) -> Result<Vec<KernelRoute>, NetlinkError> {
    routes_of(netlink, "list the main route table", RouteHeader::RT_TABLE_MAIN, |route| {
        route.is_learned().then_some(route)
    })
}

/// Reads the routes that a [`Mirror`](mirror::Mirror) of ours put into the kernel, in this run or an earlier one.
///
/// # Errors
/// As [`learned_routes`].
pub fn mirrored_routes(netlink: &mut Netlink) -> Result<Vec<KernelRoute>, NetlinkError> {
    routes_of(netlink, "list the mirrored routes", MIRROR_TABLE, |route| {
        (route.protocol == MIRROR_PROTOCOL).then_some(route)
    })
}

fn routes_of<T>(
    netlink: &mut Netlink,
    what: &'static str,
    table: u8,
    keep: impl Fn(KernelRoute) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    let mut routes = Vec::new();
    for family in Family::ALL {
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(family);
        request.header.table = table;
        let answer = netlink.dump(what, RouteNetlinkMessage::GetRoute(request), |row| match row {
            RouteNetlinkMessage::NewRoute(route) => KernelRoute::from_message(&route).and_then(&keep),
            _ => None,
        });
        match answer {
            Ok(found) => routes.extend(found),
            // The kernel makes a table with its first route; until then it doesn't know the number.
            Err(error) if error.errno() == Some(ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(routes)
}

/// Errno: no such table, or no such rule.
const ENOENT: i32 = 2;
