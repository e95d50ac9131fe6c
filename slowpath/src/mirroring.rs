//! What the kernel is to know of our routes, so that it can go on when we can't (ARCHITECTURE.md, D1 and D1a).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use model::{Family, Prefix};

use crate::host_port::{GATEWAY_V4, GATEWAY_V6, HostPort};
use crate::kernel_routes::mirror::{HOP_WEIGHT_MAX, Mirror, MirrorHop, MirrorTarget, Routes};
use crate::resolve::{Hop, Resolution, resolve};
use crate::rib::{Offer, Place, Rib, Source};
use crate::target::{Gateway, Target, TargetId};

/// Targets that are remembered; more than there are groups for.
const KNOWN_MAX: usize = 1 << 16;

/// Hands the RIB's winners to the kernel's mirror.
pub struct Mirroring {
    mirror: Mirror,
    host: HostPort,
    ways: Ways,
    known: Known,
}

/// How each next hop was reached when its routes were handed over.
#[derive(Default)]
struct Ways(BTreeMap<IpAddr, Resolution>);

/// What routes of a target are in the kernel: a million routes of one peer are one target, which is resolved once, until the ways
/// to gateways change.
#[derive(Default)]
struct Known {
    targets: AHashMap<Lead, Option<Arc<MirrorTarget>>>,
    /// The one asked for last.
    latest: Option<(Lead, Option<Arc<MirrorTarget>>)>,
}

/// Whose route leads where, for which family.
type Lead = (Source, TargetId, Family);

impl Mirroring {
    /// Winners go to this mirror; those for workloads, and those by a tunnel, lead into this host port.
    pub fn new(mirror: Mirror, host: HostPort) -> Mirroring {
        Mirroring { mirror, host, ways: Ways::default(), known: Known::default() }
    }

    /// The kernel's mirror.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The same, to tell it something that isn't about routes.
    pub fn mirror_mut(&mut self) -> &mut Mirror {
        &mut self.mirror
    }

    /// The winners at these places have changed. `node` is the node's own address of a family.
    pub fn update(&mut self, rib: &mut Rib, changed: &[Place], node: impl Fn(Family) -> Option<IpAddr>) {
        for place in changed {
            let (prefix, winner) = rib.at(*place);
            let family = prefix.family();
            let target = winner.and_then(|offer| self.known.target(rib, offer, family, &self.host, &node));
            match self.mirror.changed(*place, target.is_some()) {
                true => rib.hold(*place),
                false => rib.let_go(*place),
            }
        }
    }

    /// Hands over again what leads through a next hop of BGP's or the datastore's that is now reached another way: the fast
    /// path's groups follow by themselves, the kernel's routes name the neighbours.
    pub fn follow(
        &mut self,
        rib: &mut Rib,
        nexthops: impl IntoIterator<Item = IpAddr>,
        node: impl Fn(Family) -> Option<IpAddr>,
    ) {
        self.known = Known::default();
        let moved = self.ways.moved(rib, nexthops);
        if moved.is_empty() {
            return;
        }
        let leads_through = |offer: &Offer| {
            let gateways = rib.targets().get(offer.target).map(Target::gateways).unwrap_or_default();
            matches!(
                offer.source,
                Source::Bgp | Source::Elevated | Source::Vxlan | Source::Ipam | Source::ReachableBy
            ) && gateways.iter().any(|gateway| moved.contains(&gateway.addr))
        };
        let again = rib.winners().filter(|(_, offer)| leads_through(offer));
        let again: Vec<Place> = again.map(|(place, _)| place).collect();
        self.update(rib, &again, &node);
    }

    /// Goes on with what the mirror has to do. It is the last that holds places of prefixes that are gone.
    pub fn go_on(&mut self, rib: &mut Rib, node: impl Fn(Family) -> Option<IpAddr>) {
        let Mirroring { mirror, host, known, .. } = self;
        mirror.go_on(&mut Winners { rib, known, host, node });
        rib.shrink();
    }

    /// Goes on until the kernel has everything, or `timeout` has passed; says which. It blocks meanwhile.
    pub fn finish(
        &mut self,
        rib: &mut Rib,
        node: impl Fn(Family) -> Option<IpAddr>,
        timeout: Duration,
    ) -> bool {
        let Mirroring { mirror, host, known, .. } = self;
        mirror.wait_until_idle(&mut Winners { rib, known, host, node }, timeout)
    }
}

/// The RIB as the mirror sees it.
struct Winners<'a, Node> {
    rib: &'a mut Rib,
    known: &'a mut Known,
    host: &'a HostPort,
    node: Node,
}

impl<Node: Fn(Family) -> Option<IpAddr>> Routes for Winners<'_, Node> {
    fn wanted(&mut self, place: Place) -> (Prefix, Option<Arc<MirrorTarget>>) {
        let (prefix, winner) = self.rib.at(place);
        let Winners { rib, known, host, node } = self;
        let target = winner.and_then(|offer| known.target(rib, offer, prefix.family(), host, &*node));
        (prefix, target.cloned())
    }

    fn hold(&mut self, prefix: Prefix) -> Place {
        let place = self.rib.place(prefix);
        self.rib.hold(place);
        place
    }

    fn let_go(&mut self, place: Place) {
        self.rib.let_go(place);
    }
}

impl Known {
    fn target(
        &mut self,
        rib: &Rib,
        offer: Offer,
        family: Family,
        host: &HostPort,
        node: impl Fn(Family) -> Option<IpAddr>,
    ) -> Option<&Arc<MirrorTarget>> {
        let lead = (offer.source, offer.target, family);
        if self.latest.as_ref().is_none_or(|(latest, _)| *latest != lead) {
            if self.targets.len() >= KNOWN_MAX {
                self.targets.clear();
            }
            let known = self.targets.entry(lead);
            let known = known.or_insert_with(|| target(rib, offer, family, host, node).map(Arc::new));
            self.latest = Some((lead, known.clone()));
        }
        self.latest.as_ref()?.1.as_ref()
    }
}

/// Where the kernel is to send what the RIB's winner is for; `None` where it knows the way itself, or there is none.
fn target(
    rib: &Rib,
    offer: Offer,
    family: Family,
    host: &HostPort,
    node: impl Fn(Family) -> Option<IpAddr>,
) -> Option<MirrorTarget> {
    match offer.source {
        Source::Block => Some(MirrorTarget::Blackhole),
        Source::Workload => Some(into_host_port(host, family, node(family), None)),
        Source::ReachableBy
        | Source::Vxlan
        | Source::Ipam
        | Source::Bgp
        | Source::Elevated
        | Source::Preserved => {
            let target = rib.targets().get(offer.target)?;
            if let Some(tunnel) = target.tunnel() {
                let source = tunnel.source.or_else(|| node(family));
                return Some(into_host_port(host, family, source, mtu_within(target, host)));
            }
            if target.gateways().iter().any(|gateway| is_workload(rib, gateway.addr)) {
                return Some(into_host_port(host, family, node(family), None));
            }
            match resolve(rib, target) {
                Resolution::Neighbors(hops) => Some(MirrorTarget::Nexthops(weighted(&hops))),
                Resolution::Blackhole => Some(MirrorTarget::Blackhole),
                _ => None,
            }
        }
        // The kernel has these itself: they came from it.
        Source::Local | Source::Neighbor | Source::Connected | Source::Static | Source::Kernel => None,
    }
}

/// Is this the address of a workload here? To the kernel it is on no link, and nothing that leads to it is.
fn is_workload(rib: &Rib, addr: IpAddr) -> bool {
    rib.get(Prefix::host(addr)).is_some_and(|offer| offer.source == Source::Workload)
}

/// The neighbours with their weights as near to one another's as the kernel can have them.
fn weighted(hops: &BTreeMap<Hop, u32>) -> Arc<[MirrorHop]> {
    let common = hops.values().copied().fold(0, gcd).max(1);
    let most = hops.values().map(|weight| weight / common).max().unwrap_or(1);
    let room = u32::from(HOP_WEIGHT_MAX);
    let weight = |weight: u32| match weight / common {
        weight if most <= room => weight,
        weight => (u64::from(weight) * u64::from(room) / u64::from(most)) as u32,
    };
    let hop = |(hop, given): (&Hop, &u32)| MirrorHop {
        gateway: hop.neighbor.addr,
        ifindex: hop.neighbor.ifindex,
        weight: weight(*given).clamp(1, room) as u16,
    };
    hops.iter().map(hop).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Into the walk, which knows workloads and tunnels: the kernel knows neither.
fn into_host_port(host: &HostPort, family: Family, source: Option<IpAddr>, mtu: Option<u16>) -> MirrorTarget {
    let via = match family {
        Family::V4 => IpAddr::V4(GATEWAY_V4),
        Family::V6 => IpAddr::V6(GATEWAY_V6),
    };
    MirrorTarget::HostPort { ifindex: host.kernel_side, via, source, mtu }
}

/// Largest packet for the tunnels of a target: the host port, which takes what the uplinks take, doesn't tell the host.
fn mtu_within(target: &Target, host: &HostPort) -> Option<u16> {
    let uplinks = u16::try_from(host.mtu).unwrap_or(u16::MAX);
    let tunnels = target.gateways().iter().filter_map(|gateway| gateway.tunnel);
    let mtu = tunnels.filter_map(|tunnel| {
        let within = uplinks.saturating_sub(tunnel.template()?.overhead());
        Some(tunnel.mtu.map_or(within, |mtu| mtu.min(within)))
    });
    mtu.min()
}

impl Ways {
    /// Remembers how these next hops are reached now, forgets all others, and names those for which it is news.
    fn moved(&mut self, rib: &Rib, nexthops: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
        let way = |addr| (addr, resolve(rib, &Target::Via(vec![Gateway::at(addr)])));
        let now: BTreeMap<IpAddr, Resolution> = nexthops.into_iter().map(way).collect();
        let before = std::mem::replace(&mut self.0, now);
        let moved = self.0.iter().filter(|(addr, way)| before.get(*addr) != Some(*way));
        moved.map(|(addr, _)| *addr).collect()
    }
}

#[cfg(test)]
mod tests {
    use model::IfIndex;

    use super::*;
    use crate::resolve::NeighborAddr;
    use crate::tunnel::{Encapsulation, Tunnel};

    #[test]
    fn a_next_hop_moves_when_another_neighbour_leads_to_it() {
        let [eth0, eth1] = [IfIndex(2), IfIndex(3)];
        let [near, far]: [IpAddr; 2] = ["172.18.0.2", "10.9.0.1"].map(|addr| addr.parse().unwrap());
        let mut rib = Rib::default();
        let connected: Prefix = "172.18.0.0/24".parse().unwrap();
        rib.insert(connected, Source::Connected, &Target::Attached(eth0), 0);
        let behind: Prefix = "10.9.0.0/16".parse().unwrap();
        let through = |last: u8| Target::Via(vec![Gateway::at(IpAddr::from([172, 18, 0, last]))]);
        rib.insert(behind, Source::Static, &through(3), 0);
        let mut ways = Ways::default();
        assert_eq!(ways.moved(&rib, [near, far]), BTreeSet::from([near, far]), "both are news");
        assert_eq!(ways.moved(&rib, [near, far]), BTreeSet::new());
        rib.insert(behind, Source::Static, &through(4), 0);
        assert_eq!(ways.moved(&rib, [near, far]), BTreeSet::from([far]));
        rib.insert(connected, Source::Connected, &Target::Attached(eth1), 0);
        assert_eq!(ways.moved(&rib, [near, far]), BTreeSet::from([near, far]));
    }

    #[test]
    fn weights_are_as_near_to_one_anothers_as_the_kernel_can_have_them() {
        for (given, kernels) in [
            (&[1, 1][..], &[1, 1][..]),
            (&[7_560, 2_520], &[3, 1]),
            (&[2_520 * 40_000, 2_520 * 10_000], &[4, 1]),
            (&[512, 257, 1], &[256, 128, 1]),
            (&[u32::MAX, 1], &[256, 1]),
        ] {
            let hop = |number: usize| {
                Hop::plain(NeighborAddr { ifindex: IfIndex(2), addr: IpAddr::from([10, 0, 0, number as u8]) })
            };
            let hops = given.iter().enumerate().map(|(number, weight)| (hop(number), *weight)).collect();
            let weights: Vec<u16> = weighted(&hops).iter().map(|hop| hop.weight).collect();
            assert_eq!(weights, kernels);
        }
    }

    fn mirrored(rib: &Rib, prefix: Prefix, host: &HostPort, node: IpAddr) -> Option<MirrorTarget> {
        target(rib, rib.get(prefix)?, prefix.family(), host, |_| Some(node))
    }

    fn host_port() -> HostPort {
        let mac = model::MacAddr::default();
        let (kernel_side, far_side) = (IfIndex(7), IfIndex(8));
        HostPort { kernel_side, kernel_mac: mac, far_side, far_name: "tortie1", far_mac: mac, mtu: 1500 }
    }

    #[test]
    fn what_is_behind_a_workload_leads_into_the_host_port_as_the_workload_does() {
        let node: IpAddr = "172.18.0.1".parse().unwrap();
        let [workload, behind] = ["10.65.0.1/32", "10.70.0.0/24"].map(|text| text.parse::<Prefix>().unwrap());
        let mut rib = Rib::default();
        rib.insert(workload, Source::Workload, &Target::Host(IfIndex(3), workload.addr()), 0);
        rib.insert(behind, Source::Bgp, &Target::Via(vec![Gateway::at(workload.addr())]), 0);
        let host = host_port();
        let via = IpAddr::V4(GATEWAY_V4);
        let into_host_port =
            MirrorTarget::HostPort { ifindex: host.kernel_side, via, source: Some(node), mtu: None };
        for prefix in [workload, behind] {
            assert_eq!(mirrored(&rib, prefix, &host, node), Some(into_host_port.clone()));
        }
    }

    #[test]
    fn what_goes_by_a_tunnel_leads_into_the_host_port_from_the_tunnels_address() {
        let far = Tunnel {
            local: "172.18.0.1".parse().unwrap(),
            remote: "172.18.0.2".parse().unwrap(),
            encapsulation: Encapsulation::Ipip,
            mtu: None,
            source: Some("10.65.0.1".parse().unwrap()),
        };
        let node: IpAddr = "172.18.0.1".parse().unwrap();
        let host = host_port();
        let kernel_side = host.kernel_side;
        let block: Prefix = "10.65.1.0/26".parse().unwrap();
        for (gateway, source, expected, mtu) in [
            (Gateway::behind(far), Source::Bgp, far.source, 1480),
            (Gateway::behind(far), Source::Vxlan, far.source, 1480),
            (Gateway::behind(Tunnel { source: None, ..far }), Source::Vxlan, Some(node), 1480),
            (Gateway::behind(Tunnel { mtu: Some(1400), ..far }), Source::Bgp, far.source, 1400),
            (Gateway::behind(Tunnel { mtu: Some(9000), ..far }), Source::Bgp, far.source, 1480),
        ] {
            let mut rib = Rib::default();
            rib.insert(block, source, &Target::Via(vec![gateway]), 0);
            let via = IpAddr::V4(GATEWAY_V4);
            let into_host_port =
                MirrorTarget::HostPort { ifindex: kernel_side, via, source: expected, mtu: Some(mtu) };
            assert_eq!(mirrored(&rib, block, &host, node), Some(into_host_port));
        }
        let mut rib = Rib::default();
        rib.insert("172.18.0.0/24".parse().unwrap(), Source::Connected, &Target::Attached(IfIndex(2)), 0);
        rib.insert(block, Source::Vxlan, &Target::Via(vec![Gateway::at(far.remote)]), 0);
        let hop = MirrorHop { gateway: far.remote, ifindex: IfIndex(2), weight: 1 };
        let nexthops = MirrorTarget::Nexthops([hop].into());
        assert_eq!(mirrored(&rib, block, &host, node), Some(nexthops), "within our subnet");
    }
}
