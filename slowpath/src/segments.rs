//! VXLAN segments that the operator joins by hand: overlays of others, such as a site of flannel's.
//!
//! Who is there, at which MAC address and behind which tunnel, is written down, as flannel's daemons write it into Linux's
//! forwarding database and neighbour table; or it is asked for by flooding and learned from the answers, as Linux's `vxlan`
//! device does by itself ([`overlay`]). A segment becomes what a pool of VXLAN becomes, so all that holds for pools' tunnels
//! holds for it.

use std::net::IpAddr;
use std::time::Duration;

use model::{Family, MacAddr, Node, Prefix};
use tables::{TunnelEnd, TunnelKind};

use crate::calico::Desired;
use crate::offers::Offers;
use crate::rib::Source;
use crate::target::{Gateway, Target};
use crate::tunnel::{Encapsulation, Tunnel};

pub(crate) mod carrier;
mod fdb;
pub(crate) mod groups;
pub(crate) mod overlay;

use overlay::Overlay;

/// A segment that this node is an end of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name, for people.
    pub name: String,
    /// The network identifier, 24 bits.
    pub vni: u32,
    /// The UDP port that packets come and go to.
    pub port: u16,
    /// This node's address outside: where packets come from and to.
    pub local: IpAddr,
    /// This node's MAC address inside.
    pub mac: MacAddr,
    /// This node's own addresses inside. The host sends from the first of a family.
    pub addresses: Vec<IpAddr>,
    /// Are networks behind an end in this node's own subnet reached without the tunnel (flannel: `DirectRouting`)?
    pub direct_routing: bool,
    /// How ends are found whose place isn't written down.
    pub learning: Option<Learning>,
    /// The other ends.
    pub ends: Vec<SegmentEnd>,
}

/// How the places of ends are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learning {
    /// Addresses outside that questions go to, a copy each: Linux's all-zero entries of the forwarding database.
    pub flood: Vec<IpAddr>,
    /// The multicast group that questions go to, and that this node joins.
    pub group: Option<IpAddr>,
    /// Who may send here besides `flood` and the ends that are written down.
    pub members: Vec<Prefix>,
    /// How long a station is remembered that isn't heard again.
    pub ageing: Duration,
    /// Most stations that are learned.
    pub limit: usize,
}

/// Another end of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Its address inside.
    pub address: IpAddr,
    /// Where it is; `None` where it is asked for, by [`Segment::learning`].
    pub station: Option<Station>,
    /// What it routes to.
    pub networks: Vec<Prefix>,
}

/// Where an end of a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its address outside, of the family of [`Segment::local`].
    pub remote: IpAddr,
    /// Its MAC address inside.
    pub mac: MacAddr,
}

/// Adds what is written down of the segments to what the resources ask for. Where both have a route to a prefix, the
/// resources' holds.
pub(crate) fn join(segments: &[Segment], desired: &mut Desired) {
    for segment in segments {
        for end in &segment.ends {
            let Some(station) = end.station else { continue };
            for (network, gateway) in segment.routes(end, station, desired.node.as_ref()) {
                desired.tunnels.routes.entry(network).or_insert(gateway);
            }
        }
        desired.tunnels.addresses.extend(&segment.addresses);
        desired.tunnels.ends.extend(segment.own_ends());
    }
}

/// Adds what was learned of the segments: routes to the ends that are asked for. Where nobody knows where one is, and no other
/// end routes to the same networks, they can't be reached, and who sends to them is told so rather than sent elsewhere.
pub(crate) fn offer(overlays: &[Overlay], node: Option<&Node>, offers: &mut Offers) {
    let mut add = |prefix: Prefix, target: Target| {
        offers.entry((prefix, Source::Vxlan)).or_insert((target, 0));
    };
    let mut unknown = Vec::new();
    for overlay in overlays {
        let segment = overlay.segment();
        for end in segment.ends.iter().filter(|end| end.station.is_none()) {
            let Some(station) = overlay.station(end.address) else {
                unknown.push(end);
                continue;
            };
            for (prefix, gateway) in segment.routes(end, station, node) {
                add(prefix, Target::Via(vec![gateway]));
            }
        }
    }
    for prefix in unknown.into_iter().flat_map(SegmentEnd::prefixes) {
        add(prefix, Target::Rejected);
    }
}

impl SegmentEnd {
    /// Itself, and what it routes to.
    fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        self.networks.iter().copied().chain([Prefix::host(self.address)])
    }
}

impl Segment {
    /// The routes to an end that is there. The end itself is inside, wherever its networks are reached.
    fn routes(
        &self,
        end: &SegmentEnd,
        station: Station,
        node: Option<&Node>,
    ) -> impl Iterator<Item = (Prefix, Gateway)> {
        let tunnelled = Gateway::behind(self.tunnel(end.address, station));
        let is_direct = self.direct_routing && node.is_some_and(|node| self.shares_subnet(node, station));
        let gateway = if is_direct { Gateway::at(station.remote) } else { tunnelled };
        let itself = Prefix::host(end.address);
        let networks = end.networks.iter().map(move |network| (*network, gateway));
        networks.chain([(itself, tunnelled)])
    }

    /// Is the other end in the subnet of the address that the segment begins at, and that the Node resource gives this node?
    fn shares_subnet(&self, node: &Node, station: Station) -> bool {
        let own = match Family::of(self.local) {
            Family::V4 => node.ipv4,
            Family::V6 => node.ipv6,
        };
        own.is_some_and(|own| own.addr == self.local && own.network().contains(station.remote))
    }

    fn tunnel(&self, address: IpAddr, station: Station) -> Tunnel {
        let family = Family::of(address);
        let Segment { vni, port, local, mac: own, .. } = *self;
        Tunnel {
            local,
            remote: station.remote,
            encapsulation: Encapsulation::Vxlan { port, vni, destination: station.mac, own },
            mtu: None,
            source: self.addresses.iter().copied().find(|address| Family::of(*address) == family),
        }
    }

    /// The group that this node joins.
    pub(crate) fn group(&self) -> Option<IpAddr> {
        self.learning.as_ref()?.group
    }

    /// The ends of tunnels that the segment has here: at this node's address, and at the group's.
    fn own_ends(&self) -> impl Iterator<Item = TunnelEnd> {
        [Some(self.local), self.group()].into_iter().flatten().map(|at| {
            let kind = TunnelKind::Vxlan { port: self.port, vni: self.vni, mac: self.mac };
            let written = self.ends.iter().filter_map(|end| end.station).map(|station| station.remote);
            let learning = self.learning.as_ref();
            let flooded = learning.into_iter().flat_map(|learning| learning.flood.iter().copied());
            let members = learning.into_iter().flat_map(|learning| learning.members.iter().copied());
            TunnelEnd::new(at, kind, written.chain(flooded).map(Prefix::host).chain(members)).resolving()
        })
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use model::{Resource, Update};

    use super::*;
    use crate::calico::Calico;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    /// Another node of a flannel site: its subnet's first address is its own inside.
    fn end(last: u8, remote: &str) -> SegmentEnd {
        SegmentEnd {
            address: IpAddr::V4(Ipv4Addr::new(10, 244, last, 0)),
            station: Some(Station { remote: ip(remote), mac: MacAddr([0x5a, 0, 0, 0, 0, last]) }),
            networks: vec![prefix(&format!("10.244.{last}.0/24"))],
        }
    }

    fn segment() -> Segment {
        Segment {
            name: "site".to_owned(),
            vni: 1,
            port: 8472,
            local: ip("192.168.1.2"),
            mac: MacAddr([0x5a, 0, 0, 0, 0, 7]),
            addresses: vec![ip("10.244.7.0")],
            direct_routing: false,
            learning: None,
            ends: vec![end(1, "192.168.1.3"), end(2, "192.168.2.4")],
        }
    }

    fn desired() -> Desired {
        let mut calico = Calico::new("a");
        let node =
            Node { name: "a".to_owned(), ipv4: Some("192.168.1.2/24".parse().unwrap()), ..Node::default() };
        calico.apply(&Update::Put(Arc::new(Resource::Node(node))));
        calico.desired()
    }

    fn joined(segment: Segment) -> Desired {
        let mut desired = desired();
        join(&[segment], &mut desired);
        desired
    }

    fn gateway(desired: &Desired, to: &str) -> Gateway {
        desired.tunnels.routes[&prefix(to)]
    }

    #[test]
    fn an_end_and_its_networks_are_behind_a_tunnel_with_its_mac_address() {
        let desired = joined(segment());
        for to in ["10.244.2.0/24", "10.244.2.0/32"] {
            let tunnel = gateway(&desired, to).tunnel.unwrap();
            assert_eq!((tunnel.local, tunnel.remote), (ip("192.168.1.2"), ip("192.168.2.4")));
            assert_eq!(tunnel.source, Some(ip("10.244.7.0")));
            let [destination, own] = [2, 7].map(|last| MacAddr([0x5a, 0, 0, 0, 0, last]));
            assert_eq!(tunnel.encapsulation, Encapsulation::Vxlan { port: 8472, vni: 1, destination, own });
            assert!(tunnel.template().is_some());
        }
        assert_eq!(desired.tunnels.addresses.iter().copied().collect::<Vec<_>>(), [ip("10.244.7.0")]);
    }

    #[test]
    fn packets_of_the_other_ends_are_opened_and_nobody_elses() {
        let desired = joined(segment());
        let [end] = &desired.tunnels.ends[..] else { panic!("{:?}", desired.tunnels.ends) };
        let mac = MacAddr([0x5a, 0, 0, 0, 0, 7]);
        assert_eq!((end.local, end.kind), (ip("192.168.1.2"), TunnelKind::Vxlan { port: 8472, vni: 1, mac }));
        let known = [3, 9].map(|last| end.knows_v4(Ipv4Addr::new(192, 168, 1, last)));
        assert_eq!(known, [true, false]);
    }

    #[test]
    fn direct_routing_leaves_the_tunnel_out_within_the_subnet_and_for_networks_alone() {
        let desired = joined(Segment { direct_routing: true, ..segment() });
        assert_eq!(gateway(&desired, "10.244.1.0/24"), Gateway::at(ip("192.168.1.3")));
        assert!(gateway(&desired, "10.244.1.0/32").tunnel.is_some(), "the end itself is inside");
        assert!(gateway(&desired, "10.244.2.0/24").tunnel.is_some(), "another subnet");
        let elsewhere = Segment { direct_routing: true, local: ip("192.168.9.9"), ..segment() };
        assert!(gateway(&joined(elsewhere), "10.244.1.0/24").tunnel.is_some(), "not this node's address");
    }

    #[test]
    fn a_route_of_the_resources_holds_against_a_segments() {
        let mut desired = desired();
        let own = Gateway::at(ip("192.168.1.99"));
        desired.tunnels.routes.insert(prefix("10.244.1.0/24"), own);
        join(&[segment()], &mut desired);
        assert_eq!(gateway(&desired, "10.244.1.0/24"), own);
    }

    #[test]
    fn an_end_that_is_asked_for_has_routes_once_it_is_known_and_cannot_be_reached_before() {
        let now = std::time::Instant::now();
        let host2 = ip("10.57.4.21");
        let mut overlays = [Overlay::new(testing::segment())];
        let mut offers = Offers::new();
        offer(&overlays, None, &mut offers);
        let at = |offers: &Offers, to: &str| offers[&(prefix(to), Source::Vxlan)].0.clone();
        for to in ["192.168.11.0/24", "192.168.11.1/32", "fd11::/64", "fd11::1/128"] {
            assert_eq!(at(&offers, to), Target::Rejected, "not by the default route");
        }
        let theirs = MacAddr([0x5a, 0, 0, 0, 0, 1]);
        let request =
            crate::neighbors::arp::request(theirs, [192, 168, 11, 1].into(), [192, 168, 10, 1].into());
        overlays[0].hear(host2, &request, now);
        let mut offers = Offers::new();
        offer(&overlays, None, &mut offers);
        let target = at(&offers, "192.168.11.0/24");
        let tunnel = target.tunnel().expect("a tunnel");
        assert_eq!((tunnel.local, tunnel.remote), (ip("10.57.4.20"), host2));
        let Encapsulation::Vxlan { destination, own, .. } = tunnel.encapsulation else {
            panic!("{tunnel:?}")
        };
        assert_eq!((destination, own), (theirs, testing::OWN_MAC));
        assert_eq!(at(&offers, "fd11::/64"), Target::Rejected, "another end");
        // A second way to the same network, of which only one end is there.
        let both = [Overlay::new(testing::segment()), overlays[0].clone()];
        let mut offers = Offers::new();
        offer(&both, None, &mut offers);
        assert_eq!(at(&offers, "192.168.11.0/24"), target);
        assert_eq!(crate::offers::plain_nexthops(&offers).count(), 0);
    }

    #[test]
    fn direct_routing_holds_for_ends_that_were_learned() {
        let node = Node { ipv4: Some("10.57.4.20/24".parse().unwrap()), ..Node::default() };
        let mut overlays = [Overlay::new(Segment { direct_routing: true, ..testing::segment() })];
        let theirs = MacAddr([0x5a, 0, 0, 0, 0, 1]);
        let request =
            crate::neighbors::arp::request(theirs, [192, 168, 11, 1].into(), [192, 168, 10, 1].into());
        overlays[0].hear(ip("10.57.4.21"), &request, std::time::Instant::now());
        let mut offers = Offers::new();
        offer(&overlays, Some(&node), &mut offers);
        let (target, _) = &offers[&(prefix("192.168.11.0/24"), Source::Vxlan)];
        assert_eq!(*target, Target::Via(vec![Gateway::at(ip("10.57.4.21"))]));
        assert_eq!(crate::offers::plain_nexthops(&offers).collect::<Vec<_>>(), [ip("10.57.4.21")]);
    }

    #[test]
    fn those_who_are_flooded_to_may_send_and_with_a_group_its_members() {
        let opened = |segment: Segment, from: [u8; 4]| -> Vec<(String, bool)> {
            let ends = joined(segment).tunnels.ends;
            ends.iter().map(|end| (end.local.to_string(), end.knows_v4(from.into()))).collect()
        };
        let own = "10.57.4.20".to_owned();
        assert_eq!(opened(testing::segment(), [10, 57, 4, 21]), [(own.clone(), true)]);
        assert_eq!(opened(testing::segment(), [10, 57, 4, 22]), [(own.clone(), false)]);
        let mut grouped = testing::segment();
        let learning = grouped.learning.as_mut().unwrap();
        (learning.group, learning.members) = (Some(ip("239.1.1.1")), vec![prefix("10.57.4.0/24")]);
        let group = "239.1.1.1".to_owned();
        let both = |known| [(own.clone(), known), (group.clone(), known)];
        assert_eq!(opened(grouped.clone(), [10, 57, 4, 22]), both(true));
        assert_eq!(opened(grouped, [10, 57, 5, 22]), both(false));
    }
}
