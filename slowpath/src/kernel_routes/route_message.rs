//! A mirror route as a netlink message.

use std::net::IpAddr;

use model::{Family, Prefix};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteScope, RouteType,
    RouteVia,
};

use super::mirror::{MirrorHop, MirrorTarget};
use super::{MIRROR_PROTOCOL, MIRROR_TABLE, address_family};

/// The message that names `prefix` in our table, with nothing else: enough to delete whatever is there.
pub(super) fn naming(prefix: Prefix) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(prefix.family());
    message.header.destination_prefix_length = prefix.len();
    message.header.table = MIRROR_TABLE;
    message.header.protocol = MIRROR_PROTOCOL.into();
    // `RT_SCOPE_NOWHERE` in a deletion matches any scope (`fib_table_delete` in `net/ipv4/fib_trie.c`).
    message.header.scope = RouteScope::NoWhere;
    message.attributes.push(RouteAttribute::Destination(route_address(prefix.addr())));
    message
}

/// The message that makes `target` the route for `prefix`.
pub(super) fn installing(prefix: Prefix, target: &MirrorTarget) -> RouteMessage {
    let mut message = naming(prefix);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    match target {
        MirrorTarget::Blackhole => message.header.kind = RouteType::BlackHole,
        MirrorTarget::Nexthops(nexthops) => match **nexthops {
            [MirrorHop { gateway, ifindex, .. }] => {
                message.attributes.push(via(prefix.family(), gateway));
                message.attributes.push(RouteAttribute::Oif(ifindex.0));
            }
            ref several => {
                let hops = several.iter().map(|nexthop| hop(prefix.family(), nexthop));
                message.attributes.push(RouteAttribute::MultiPath(hops.collect()));
            }
        },
        MirrorTarget::HostPort { ifindex, via: gateway, source, mtu } => {
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(via(prefix.family(), *gateway));
            message.attributes.push(RouteAttribute::Oif(ifindex.0));
            if let Some(source) = source {
                message.attributes.push(RouteAttribute::PrefSource(route_address(*source)));
            }
            if let Some(mtu) = mtu {
                message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(u32::from(*mtu))]));
            }
        }
    }
    message
}

fn hop(family: Family, nexthop: &MirrorHop) -> RouteNextHop {
    let mut hop = RouteNextHop::default();
    hop.interface_index = nexthop.ifindex.0;
    // rtnexthop(7): the weight less one.
    hop.hops = u8::try_from(nexthop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    hop.attributes.push(via(family, nexthop.gateway));
    hop
}

/// `RTA_GATEWAY`, or `RTA_VIA` where an IPv4 route has an IPv6 next hop (RFC 8950).
fn via(family: Family, gateway: IpAddr) -> RouteAttribute {
    match gateway {
        IpAddr::V6(v6) if family == Family::V4 => RouteAttribute::Via(RouteVia::Inet6(v6)),
        gateway => RouteAttribute::Gateway(route_address(gateway)),
    }
}

fn route_address(addr: IpAddr) -> RouteAddress {
    match addr {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}
