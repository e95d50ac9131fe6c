//! VXLAN segments that the operator joins by hand: overlays of others, such as a site of flannel's.
//!
//! Who is there, at which MAC address and behind which tunnel, is written down, as flannel's daemons write it into Linux's
//! forwarding database and neighbour table: nothing is learned and nothing flooded. A segment becomes what a pool of VXLAN
//! becomes, so all that holds for pools' tunnels holds for it.

use std::net::IpAddr;

use model::{Family, MacAddr, Node, Prefix};
use tables::{TunnelEnd, TunnelKind};

use crate::calico::Desired;
use crate::target::Gateway;
use crate::tunnel::{Encapsulation, Tunnel};

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
    /// The other ends.
    pub ends: Vec<SegmentEnd>,
}

/// Another end of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Its address outside, of the family of [`Segment::local`].
    pub remote: IpAddr,
    /// Its address inside.
    pub address: IpAddr,
    /// Its MAC address inside.
    pub mac: MacAddr,
    /// What it routes to.
    pub networks: Vec<Prefix>,
}

/// Adds what the segments ask for to what the resources do. Where both have a route to a prefix, the resources' holds.
pub(crate) fn join(segments: &[Segment], desired: &mut Desired) {
    for segment in segments {
        let node = desired.node.as_ref();
        for end in &segment.ends {
            let tunnelled = Gateway::behind(segment.tunnel(end));
            let is_direct =
                segment.direct_routing && node.is_some_and(|node| is_in_subnet(node, segment, end));
            let gateway = if is_direct { Gateway::at(end.remote) } else { tunnelled };
            for network in &end.networks {
                desired.tunnels.routes.entry(*network).or_insert(gateway);
            }
            // The end itself is inside, wherever its networks are reached.
            desired.tunnels.routes.entry(Prefix::host(end.address)).or_insert(tunnelled);
        }
        desired.tunnels.addresses.extend(&segment.addresses);
        desired.tunnels.ends.push(segment.own_end());
    }
}

/// Is the other end in the subnet of the address that the segment begins at, and that the Node resource gives this node?
fn is_in_subnet(node: &Node, segment: &Segment, end: &SegmentEnd) -> bool {
    let own = match Family::of(segment.local) {
        Family::V4 => node.ipv4,
        Family::V6 => node.ipv6,
    };
    own.is_some_and(|own| own.addr == segment.local && own.network().contains(end.remote))
}

impl Segment {
    fn tunnel(&self, end: &SegmentEnd) -> Tunnel {
        let family = Family::of(end.address);
        let Segment { vni, port, local, mac: own, .. } = *self;
        Tunnel {
            local,
            remote: end.remote,
            encapsulation: Encapsulation::Vxlan { port, vni, destination: end.mac, own },
            mtu: None,
            source: self.addresses.iter().copied().find(|address| Family::of(*address) == family),
        }
    }

    fn own_end(&self) -> TunnelEnd {
        let kind = TunnelKind::Vxlan { port: self.port, vni: self.vni, mac: self.mac };
        TunnelEnd::new(self.local, kind, self.ends.iter().map(|end| Prefix::host(end.remote)))
    }
}

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
            remote: ip(remote),
            address: IpAddr::V4(Ipv4Addr::new(10, 244, last, 0)),
            mac: MacAddr([0x5a, 0, 0, 0, 0, last]),
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
}
