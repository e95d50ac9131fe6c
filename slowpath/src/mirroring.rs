//! What the kernel is to know of our routes, so that it can go on when we can't (DESIGN.md, D1 and D1a).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::{Family, IfIndex, Prefix};
use tracing::warn;

use crate::host_port::{GATEWAY_V4, GATEWAY_V6, HostPort};
use crate::kernel_routes::mirror::{Mirror, MirrorError, MirrorRoute, MirrorTarget};
use crate::resolve::{Resolution, resolve};
use crate::rib::{Offer, Rib, Source};
use crate::target::{Gateway, Target};

/// Hands the RIB's winners to the kernel's mirror.
pub struct Mirroring {
    mirror: Mirror,
    host: HostPort,
    ways: Ways,
    full: u64,
}

/// How each BGP next hop was reached when its routes were handed over.
#[derive(Default)]
struct Ways(BTreeMap<IpAddr, Resolution>);

impl Mirroring {
    /// Winners go to this mirror; those for workloads lead into this host port.
    pub fn new(mirror: Mirror, host: HostPort) -> Mirroring {
        Mirroring { mirror, host, ways: Ways::default(), full: 0 }
    }

    /// The kernel's mirror.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Brings the mirror's route to a prefix into line with the RIB. `node` is the node's own address of a family.
    pub fn update(&mut self, rib: &Rib, prefix: Prefix, node: impl Fn(Family) -> Option<IpAddr>) {
        let target = self.target(rib, prefix, node);
        let Some(target) = target else { return self.mirror.withdraw(prefix) };
        match self.mirror.install(MirrorRoute { prefix, target }) {
            Ok(()) => {}
            Err(error @ MirrorError::Full { .. }) => {
                self.full += 1;
                if self.full == 1 {
                    warn!("{error}; raise limits.mirror_routes (more of these are counted, not logged)");
                }
            }
            Err(error) => warn!("{error}"),
        }
    }

    /// Hands over again what leads through a BGP next hop that is now reached another way: the fast path's groups
    /// follow by themselves, the kernel's routes name the neighbours.
    pub fn follow(
        &mut self,
        rib: &Rib,
        nexthops: impl IntoIterator<Item = IpAddr>,
        node: impl Fn(Family) -> Option<IpAddr>,
    ) {
        let moved = self.ways.moved(rib, nexthops);
        if moved.is_empty() {
            return;
        }
        let leads_through = |offer: &Offer| {
            let gateways = rib.targets().get(offer.target).map(Target::gateways).unwrap_or_default();
            offer.source == Source::Bgp && gateways.iter().any(|gateway| moved.contains(&gateway.addr))
        };
        for (prefix, _) in rib.iter().filter(|(_, offer)| leads_through(offer)) {
            self.update(rib, prefix, &node);
        }
    }

    fn target(
        &self,
        rib: &Rib,
        prefix: Prefix,
        node: impl Fn(Family) -> Option<IpAddr>,
    ) -> Option<MirrorTarget> {
        let offer = rib.get(prefix)?;
        match offer.source {
            Source::Block => Some(MirrorTarget::Blackhole),
            Source::Workload => Some(MirrorTarget::HostPort {
                ifindex: self.host.kernel_side,
                via: match prefix.family() {
                    Family::V4 => IpAddr::V4(GATEWAY_V4),
                    Family::V6 => IpAddr::V6(GATEWAY_V6),
                },
                source: node(prefix.family()),
            }),
            Source::Bgp | Source::Preserved => match resolve(rib, rib.targets().get(offer.target)?) {
                Resolution::Neighbors(neighbors) => {
                    let gateways: Arc<[(IpAddr, IfIndex)]> =
                        neighbors.iter().map(|neighbor| (neighbor.addr, neighbor.ifindex)).collect();
                    Some(MirrorTarget::Nexthops(gateways))
                }
                _ => None,
            },
            // The kernel has these itself: they came from it.
            Source::Local | Source::Neighbor | Source::Connected | Source::Static | Source::Kernel => None,
        }
    }
}

impl Ways {
    /// Remembers how these next hops are reached now, forgets all others, and names those for which it is news.
    fn moved(&mut self, rib: &Rib, nexthops: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
        let way = |addr| (addr, resolve(rib, &Target::Via(vec![Gateway { addr, ifindex: None }])));
        let now: BTreeMap<IpAddr, Resolution> = nexthops.into_iter().map(way).collect();
        let before = std::mem::replace(&mut self.0, now);
        let moved = self.0.iter().filter(|(addr, way)| before.get(*addr) != Some(*way));
        moved.map(|(addr, _)| *addr).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_moves_when_another_neighbour_leads_to_it() {
        let [eth0, eth1] = [IfIndex(2), IfIndex(3)];
        let [near, far]: [IpAddr; 2] = ["172.18.0.2", "10.9.0.1"].map(|addr| addr.parse().unwrap());
        let mut rib = Rib::default();
        let connected: Prefix = "172.18.0.0/24".parse().unwrap();
        rib.insert(connected, Source::Connected, &Target::Attached(eth0), 0);
        let behind: Prefix = "10.9.0.0/16".parse().unwrap();
        let through =
            |last: u8| Target::Via(vec![Gateway { addr: IpAddr::from([172, 18, 0, last]), ifindex: None }]);
        rib.insert(behind, Source::Static, &through(3), 0);
        let mut ways = Ways::default();
        assert_eq!(ways.moved(&rib, [near, far]), BTreeSet::from([near, far]), "both are news");
        assert_eq!(ways.moved(&rib, [near, far]), BTreeSet::new());
        rib.insert(behind, Source::Static, &through(4), 0);
        assert_eq!(ways.moved(&rib, [near, far]), BTreeSet::from([far]));
        rib.insert(connected, Source::Connected, &Target::Attached(eth1), 0);
        assert_eq!(ways.moved(&rib, [near, far]), BTreeSet::from([near, far]));
    }
}
