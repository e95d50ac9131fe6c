//! Every route but BGP's, worked out anew from what there is: the kernel's state, the neighbours, the resources.
//!
//! Memoryless: two calls are compared and the difference goes to the RIB, so a route can't outlive its reason.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use model::{IfIndex, PortKind, Prefix};

use crate::calico::Desired;
use crate::interfaces::{Address, KernelState, Link, Scope};
use crate::kernel_routes::{KernelRoute, KernelRouteKind};
use crate::neighbors::table::NeighborTable;
use crate::rib::{Rib, Source};
use crate::target::{Gateway, Target};

/// Routing protocols of the kernel that stand for the operator's own hand: `boot` (what `ip route` writes) and
/// `static` (`include/uapi/linux/rtnetlink.h`).
const BY_HAND: [u8; 2] = [3, 4];

/// Routes by prefix and source, with target and metric.
pub type Offers = BTreeMap<(Prefix, Source), (Target, u32)>;

/// Which links are what.
#[derive(Clone, Debug)]
pub struct Roles {
    /// Names of uplinks.
    pub uplinks: Vec<String>,
    /// Beginning of every workload interface's name.
    pub workload_prefix: String,
    /// The kernel's side and the walk's side of the host port.
    pub host: Option<(IfIndex, IfIndex)>,
}

impl Roles {
    /// The kind of port that a link should be; `None` leaves it to the kernel.
    pub fn kind(&self, link: &Link) -> Option<PortKind> {
        if self.host.is_some_and(|(_, far)| far == link.ifindex) {
            Some(PortKind::Host)
        } else if self.uplinks.contains(&link.name) {
            Some(PortKind::Uplink)
        } else if link.name.starts_with(&self.workload_prefix) {
            Some(PortKind::Workload)
        } else {
            None
        }
    }

    /// Do this link's addresses and routes belong to the host, rather than to a workload or the host port?
    fn is_hosts(&self, link: &Link) -> bool {
        let host_port = self.host.is_some_and(|(near, far)| near == link.ifindex || far == link.ifindex);
        !host_port && self.kind(link) != Some(PortKind::Workload)
    }
}

/// Addresses that are the host's own: what is for them stays with the kernel.
pub fn local_addresses<'a>(kernel: &'a KernelState, roles: &'a Roles) -> impl Iterator<Item = &'a Address> {
    kernel.addresses.iter().filter(move |address| {
        let link = kernel.links.iter().find(|link| link.ifindex == address.ifindex);
        link.is_some_and(|link| roles.is_hosts(link))
            && address.scope != Scope::Host
            && is_routable(address.addr.addr)
    })
}

/// All offers as they are now.
pub fn offers(kernel: &KernelState, desired: &Desired, neighbors: &NeighborTable, roles: &Roles) -> Offers {
    let mut offers = Offers::new();
    for address in local_addresses(kernel, roles) {
        offers.insert((Prefix::host(address.addr.addr), Source::Local), (Target::Local, 0));
        let network = address.addr.network();
        let up = kernel.links.iter().any(|link| link.ifindex == address.ifindex && link.up);
        if up && !network.is_host() {
            offers.insert((network, Source::Connected), (Target::Attached(address.ifindex), 0));
            if let Some(broadcast) = broadcast(network) {
                offers.insert((broadcast, Source::Connected), (Target::Broadcast, 0));
            }
        }
    }
    for route in kernel.routes.iter().filter(|route| route.is_learned()) {
        offer_learned(&mut offers, route, roles);
    }
    for (ifindex, addr, _) in neighbors.iter() {
        if neighbors.mac(ifindex, addr).is_none() {
            continue;
        }
        let on_uplink = kernel
            .links
            .iter()
            .any(|link| link.ifindex == ifindex && roles.kind(link) == Some(PortKind::Uplink) && link.up);
        let connected = |network: &Prefix| network.contains(addr);
        let is_connected = local_addresses(kernel, roles)
            .any(|address| address.ifindex == ifindex && connected(&address.addr.network()));
        if on_uplink && is_connected {
            offers.insert((Prefix::host(addr), Source::Neighbor), (Target::Host(ifindex, addr), 0));
        }
    }
    // The host's own in the tunnels' networks: what comes for them, out of a tunnel or plainly, is the kernel's.
    let near = roles.host.map(|(near, _)| near);
    for address in kernel.addresses.iter().filter(|address| Some(address.ifindex) == near) {
        if desired.tunnels.addresses.contains(&address.addr.addr) {
            offers.insert((Prefix::host(address.addr.addr), Source::Local), (Target::Local, 0));
        }
    }
    // Nobody else's packets to the loopback come as far as the look-up: they are martians.
    if let Some(server) = desired.felix.metadata().filter(|server| server.addr.is_loopback()) {
        offers.insert((Prefix::host(server.addr.into()), Source::Local), (Target::Local, 0));
    }
    for (prefix, gateway) in &desired.tunnels.routes {
        offers.insert((*prefix, Source::Vxlan), (Target::Via(vec![*gateway]), 0));
    }
    for (prefix, gateway) in &desired.tunnels.routes_without_vxlan {
        offers.insert((*prefix, Source::Ipam), (Target::Via(vec![*gateway]), 0));
    }
    for peer in desired.peers.values() {
        if let Some(gateway) = peer.reachable_by {
            let target = Target::Via(vec![Gateway::at(gateway)]);
            offers.insert((Prefix::host(peer.address), Source::ReachableBy), (target, 0));
        }
    }
    for block in &desired.blackholes {
        offers.insert((*block, Source::Block), (Target::Blackhole, 0));
    }
    for endpoint in desired.endpoints.values() {
        let Some(link) = kernel.links.iter().find(|link| link.name == endpoint.interface) else { continue };
        for address in &endpoint.ip_networks {
            let target = Target::Host(link.ifindex, address.addr());
            offers.insert((*address, Source::Workload), (target, 0));
        }
    }
    offers
}

/// Next hops of the datastore's routes to other nodes' workloads and to peers that are reached without a tunnel. The kernel gets
/// such a route once it is known how its next hop is reached.
pub fn plain_nexthops(offers: &Offers) -> impl Iterator<Item = IpAddr> {
    let theirs = offers
        .iter()
        .filter(|((_, source), _)| matches!(source, Source::Vxlan | Source::Ipam | Source::ReachableBy));
    let gateways = theirs.flat_map(|(_, (target, _))| target.gateways());
    gateways.filter(|gateway| gateway.tunnel.is_none()).map(|gateway| gateway.addr)
}

fn offer_learned(offers: &mut Offers, route: &KernelRoute, roles: &Roles) {
    let target = match route.kind {
        KernelRouteKind::Unicast => {
            let through_us =
                |ifindex: IfIndex| roles.host.is_some_and(|(near, far)| near == ifindex || far == ifindex);
            let hops = || route.nexthops.iter().filter(|hop| !through_us(hop.ifindex));
            let gateways: Vec<Gateway> = hops()
                .filter_map(|hop| Some(weighing(Gateway::on(hop.ifindex, hop.gateway?), hop.weight)))
                .collect();
            match Target::via(gateways) {
                Some(target) => target,
                None => match hops().next() {
                    Some(hop) => Target::Attached(hop.ifindex),
                    None => return,
                },
            }
        }
        KernelRouteKind::Blackhole => Target::Blackhole,
        KernelRouteKind::Unreachable => Target::Rejected,
        KernelRouteKind::Prohibit => Target::Prohibited,
    };
    let source = if BY_HAND.contains(&route.protocol) { Source::Static } else { Source::Kernel };
    let offer = offers.entry((route.prefix, source)).or_insert_with(|| (target.clone(), route.metric));
    if route.metric < offer.1 {
        *offer = (target, route.metric);
    }
}

/// The kernel's weights are 1 to 256.
fn weighing(gateway: Gateway, weight: u16) -> Gateway {
    gateway.weighing(weight.min(u8::MAX.into()) as u8)
}

/// The directed broadcast address of an IPv4 network that has one: neither point-to-point links (RFC 3021) nor single
/// addresses do.
fn broadcast(network: Prefix) -> Option<Prefix> {
    match network.addr() {
        IpAddr::V4(addr) if network.len() < 31 => {
            Some(Prefix::host(IpAddr::V4((u32::from(addr) | u32::MAX >> network.len()).into())))
        }
        _ => None,
    }
}

/// Link-local and loopback addresses are no destinations of the forwarding table.
fn is_routable(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => !addr.is_loopback() && !addr.is_link_local(),
        IpAddr::V6(addr) => addr != Ipv6Addr::LOCALHOST && !addr.is_unicast_link_local(),
    }
}

/// Brings the RIB from one set of offers to another.
pub fn apply(rib: &mut Rib, before: &Offers, after: &Offers) {
    for (prefix, source) in before.keys().filter(|key| !after.contains_key(*key)) {
        rib.remove(*prefix, *source);
    }
    for ((prefix, source), (target, metric)) in after {
        if before.get(&(*prefix, *source)) != Some(&(target.clone(), *metric)) {
            rib.insert(*prefix, *source, target, *metric);
        }
    }
}

#[cfg(test)]
mod tests;
