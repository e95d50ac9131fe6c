//! From a target to neighbours: recursive next hops.
//!
//! A gateway without an interface is looked up in the RIB, and so on until a network that this box is attached to.
//! Routes of BGP never resolve a gateway, as in BIRD: a next hop that is reached through the very routes that it
//! carries would come and go for ever. Nor do those of VXLAN, for the same reason; so no tunnel runs in another.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::IfIndex;

use crate::rib::{Offer, Rib};
use crate::target::{Gateway, Target};
use crate::tunnel::Tunnel;

/// Steps of recursion before a chain of gateways is taken for a loop.
const DEPTH_MAX: u8 = 8;
/// What a gateway's weight is divided by, among the ways there: whole for up to ten.
const SHARES: u32 = 2520;

/// A neighbour: an address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighborAddr {
    /// The link.
    pub ifindex: IfIndex,
    /// The address.
    pub addr: IpAddr,
}

/// Where a packet's frame goes, and what it is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// Whom the frame is for.
    pub neighbor: NeighborAddr,
    /// The tunnel that the neighbour leads to, where packets go by one.
    pub tunnel: Option<Tunnel>,
}

impl Hop {
    /// Straight to a neighbour.
    pub fn plain(neighbor: NeighborAddr) -> Hop {
        Hop { neighbor, tunnel: None }
    }
}

/// Where packets go in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Nowhere, silently.
    Blackhole,
    /// Nowhere: the address is everybody's in a network of this box's.
    Broadcast,
    /// Nowhere, and the sender is told that it is unreachable.
    Rejected,
    /// Nowhere, and the sender is told that it is prohibited.
    Prohibited,
    /// To this box's own kernel.
    Local,
    /// To the destination itself on this link; its MAC address has to be asked for.
    Attached(IfIndex),
    /// To one of these, each with its weight beside the others'; never empty.
    Neighbors(BTreeMap<Hop, u32>),
    /// No gateway can be reached.
    Unreachable,
}

/// How to get to a target with the routes as they are.
pub fn resolve(rib: &Rib, target: &Target) -> Resolution {
    match target {
        Target::Blackhole => Resolution::Blackhole,
        Target::Broadcast => Resolution::Broadcast,
        Target::Rejected => Resolution::Rejected,
        Target::Prohibited => Resolution::Prohibited,
        Target::Local => Resolution::Local,
        Target::Attached(ifindex) => Resolution::Attached(*ifindex),
        Target::Host(ifindex, addr) => {
            Resolution::Neighbors([(Hop::plain(NeighborAddr { ifindex: *ifindex, addr: *addr }), 1)].into())
        }
        Target::Via(gateways) => {
            // Where all weigh the same, every neighbour does: what is farther off has no say in who is nearest.
            let alike = gateways.iter().all(|gateway| gateway.weight == gateways[0].weight);
            let mut hops: BTreeMap<Hop, u32> = BTreeMap::new();
            for gateway in gateways {
                let Some(reached) = reach(rib, *gateway, 0) else { continue };
                let ways = reached.neighbors.len().max(1) as u32;
                for neighbor in reached.neighbors {
                    let share = hops.entry(Hop { neighbor, tunnel: gateway.tunnel }).or_default();
                    match alike {
                        true => *share = 1,
                        false => *share += (u32::from(gateway.weight) * SHARES / ways).max(1),
                    }
                }
            }
            if hops.is_empty() { Resolution::Unreachable } else { Resolution::Neighbors(hops) }
        }
    }
}

/// The cost of reaching a BGP next hop (RFC 4271 §9.1.2.1): the metric of the route that covers it, 0 where it is
/// a neighbour on a link; `None` where it can't be reached.
pub fn metric(rib: &Rib, nexthop: IpAddr) -> Option<u32> {
    reach(rib, Gateway::at(nexthop), 0).map(|reached| reached.metric)
}

struct Reached {
    neighbors: Vec<NeighborAddr>,
    metric: u32,
}

fn reach(rib: &Rib, gateway: Gateway, depth: u8) -> Option<Reached> {
    if let Some(ifindex) = gateway.ifindex {
        return Some(Reached { neighbors: vec![NeighborAddr { ifindex, addr: gateway.addr }], metric: 0 });
    }
    if depth == DEPTH_MAX {
        return None;
    }
    let (_, offer) = rib.covering(gateway.addr, |_, offer: Offer| offer.source.resolves())?;
    match rib.targets().get(offer.target)? {
        // Our own address or a broadcast as a next hop is a mistake of the peer's; a route that drops reaches nothing.
        Target::Local | Target::Broadcast | Target::Blackhole | Target::Rejected | Target::Prohibited => None,
        Target::Attached(ifindex) | Target::Host(ifindex, _) => Some(Reached {
            neighbors: vec![NeighborAddr { ifindex: *ifindex, addr: gateway.addr }],
            metric: offer.metric,
        }),
        Target::Via(gateways) => {
            let neighbors: Vec<NeighborAddr> = gateways
                .iter()
                .filter_map(|next| reach(rib, *next, depth + 1))
                .flat_map(|reached| reached.neighbors)
                .collect();
            (!neighbors.is_empty()).then_some(Reached { neighbors, metric: offer.metric })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rib::Source;
    use model::Prefix;

    const ETH0: IfIndex = IfIndex(2);

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn via(gateways: &[&str]) -> Target {
        Target::via(gateways.iter().map(|g| Gateway::at(addr(g))).collect()).unwrap()
    }

    fn attached() -> Rib {
        let mut rib = Rib::default();
        rib.insert(prefix("172.18.0.0/24"), Source::Connected, &Target::Attached(ETH0), 0);
        rib
    }

    fn on_eth0(addresses: &[&str]) -> Resolution {
        let hop = |a: &&str| (Hop::plain(NeighborAddr { ifindex: ETH0, addr: addr(a) }), 1);
        Resolution::Neighbors(addresses.iter().map(hop).collect())
    }

    #[test]
    fn a_gateway_on_a_link_is_its_own_neighbour() {
        assert_eq!(resolve(&attached(), &via(&["172.18.0.2"])), on_eth0(&["172.18.0.2"]));
        assert_eq!(metric(&attached(), addr("172.18.0.2")), Some(0));
    }

    #[test]
    fn a_gateway_behind_a_gateway_is_followed() {
        let mut rib = attached();
        rib.insert(prefix("10.9.0.0/16"), Source::Static, &via(&["172.18.0.1", "172.18.0.3"]), 20);
        assert_eq!(resolve(&rib, &via(&["10.9.0.1"])), on_eth0(&["172.18.0.1", "172.18.0.3"]));
        assert_eq!(metric(&rib, addr("10.9.0.1")), Some(20));
    }

    #[test]
    fn an_ipv4_route_leads_to_an_ipv6_neighbour() {
        let mut rib = Rib::default();
        rib.insert(prefix("2001:db8::/64"), Source::Connected, &Target::Attached(ETH0), 0);
        assert_eq!(resolve(&rib, &via(&["2001:db8::2"])), on_eth0(&["2001:db8::2"]));
        assert_eq!(metric(&rib, addr("2001:db8::2")), Some(0));
    }

    #[test]
    fn a_gateways_weight_is_divided_among_the_ways_to_it() {
        let mut rib = attached();
        rib.insert(prefix("10.9.0.0/16"), Source::Static, &via(&["172.18.0.1", "172.18.0.3"]), 20);
        let weighted = |(text, weight)| Gateway::at(addr(text)).weighing(weight);
        let target = Target::via([("10.9.0.1", 4), ("172.18.0.3", 1)].map(weighted).to_vec()).unwrap();
        let Resolution::Neighbors(hops) = resolve(&rib, &target) else { panic!("they are reached") };
        let weights: Vec<u32> = hops.values().map(|weight| weight / SHARES).collect();
        assert_eq!(weights, [2, 3], "half of four, and the other half beside its own");
    }

    #[test]
    fn gateways_in_a_circle_reach_nothing() {
        let mut rib = attached();
        rib.insert(prefix("10.1.0.0/16"), Source::Static, &via(&["10.2.0.1"]), 0);
        rib.insert(prefix("10.2.0.0/16"), Source::Static, &via(&["10.1.0.1"]), 0);
        assert_eq!(resolve(&rib, &via(&["10.1.0.1"])), Resolution::Unreachable);
    }

    #[test]
    fn a_route_of_bgp_never_resolves_a_next_hop() {
        let mut rib = attached();
        rib.insert(prefix("10.3.0.0/16"), Source::Bgp, &via(&["172.18.0.2"]), 0);
        assert_eq!(resolve(&rib, &via(&["10.3.0.1"])), Resolution::Unreachable);
        rib.insert(prefix("0.0.0.0/0"), Source::Kernel, &via(&["172.18.0.9"]), 0);
        assert_eq!(resolve(&rib, &via(&["10.3.0.1"])), on_eth0(&["172.18.0.9"]));
    }

    #[test]
    fn the_gateways_that_can_be_reached_are_enough() {
        assert_eq!(resolve(&attached(), &via(&["10.4.0.1", "172.18.0.2"])), on_eth0(&["172.18.0.2"]));
    }

    #[test]
    fn our_own_address_is_no_next_hop() {
        let mut rib = attached();
        rib.insert(prefix("172.18.0.1/32"), Source::Local, &Target::Local, 0);
        assert_eq!(resolve(&rib, &via(&["172.18.0.1"])), Resolution::Unreachable);
    }
}
