//! BGP's routes on their way into the RIB: through tunnels, and past networks whose routes come from elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::BestPath;
use model::Prefix;

use crate::calico::Desired;
use crate::rib::{Offer, Rib, Sought, Source};
use crate::target::Target;

/// Next hops, each with its weight beside the others'. Mostly it is one, which needs no memory of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Nexthops {
    /// None at all.
    #[default]
    None,
    /// One.
    One((IpAddr, u8)),
    /// More than one.
    Several(Vec<(IpAddr, u8)>),
}

impl Nexthops {
    /// All of them.
    pub fn as_slice(&self) -> &[(IpAddr, u8)] {
        match self {
            Nexthops::None => &[],
            Nexthops::One(nexthop) => std::slice::from_ref(nexthop),
            Nexthops::Several(nexthops) => nexthops,
        }
    }
}

impl FromIterator<(IpAddr, u8)> for Nexthops {
    fn from_iter<I: IntoIterator<Item = (IpAddr, u8)>>(nexthops: I) -> Nexthops {
        let mut nexthops = nexthops.into_iter();
        let Some(first) = nexthops.next() else { return Nexthops::None };
        match nexthops.next() {
            None => Nexthops::One(first),
            Some(second) => Nexthops::Several([first, second].into_iter().chain(nexthops).collect()),
        }
    }
}

/// What BGP says of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The next hops; none withdraws the route.
    pub nexthops: Nexthops,
    /// It is of more than normal priority: it comes before a workload's address here, which is about to be gone.
    pub elevated: bool,
    /// Packets there are not wanted: they are dropped rather than sent on (RFC 7999).
    pub discard: bool,
}

impl Learned {
    fn source(&self) -> Source {
        if self.elevated { Source::Elevated } else { Source::Bgp }
    }
}

/// What BGP offers and the RIB doesn't have; the rest is in the RIB alone.
#[derive(Default)]
pub struct BgpRoutes {
    left_out: BTreeMap<Prefix, Learned>,
    /// Those of more than normal priority: few, while a million others need no second look-up.
    elevated: BTreeSet<Prefix>,
}

impl BgpRoutes {
    /// BGP says this of a prefix now.
    pub fn offer(&mut self, rib: &mut Rib, desired: &Desired, prefix: Prefix, learned: Learned) {
        self.offer_sought(rib, desired, rib.seek(prefix), learned);
    }

    /// As [`Self::offer`], where the RIB has looked the prefix up ahead.
    pub fn offer_sought(&mut self, rib: &mut Rib, desired: &Desired, sought: Sought, learned: Learned) {
        let prefix = sought.prefix();
        let source = learned.source();
        if learned.elevated {
            if self.elevated.insert(prefix) {
                rib.remove(prefix, Source::Bgp);
            }
        } else if self.elevated.remove(&prefix) {
            rib.remove(prefix, Source::Elevated);
        }
        let is_withdrawn = learned.nexthops == Nexthops::None && !learned.discard;
        let target = if is_withdrawn { None } else { target(desired, prefix, &learned) };
        match target {
            Some(target) => {
                self.left_out.remove(&prefix);
                rib.insert_sought(sought, source, &target, 0);
            }
            None => {
                rib.remove_sought(sought, source);
                if learned.nexthops == Nexthops::None {
                    self.left_out.remove(&prefix);
                } else {
                    self.left_out.insert(prefix, learned);
                }
            }
        }
    }

    /// Offers everything anew: pools, nodes or services are others now.
    pub fn offer_all(&mut self, rib: &mut Rib, desired: &Desired) {
        let mut offered: Vec<(Prefix, Learned)> = std::mem::take(&mut self.left_out).into_iter().collect();
        for (prefix, _) in rib.iter() {
            let Some(offer) = rib.offers(prefix).find(is_bgps) else { continue };
            let Some(there) = rib.targets().get(offer.target) else { continue };
            let nexthops = there.gateways().iter().map(|gateway| (gateway.addr, gateway.weight)).collect();
            let learned = Learned {
                nexthops,
                elevated: offer.source == Source::Elevated,
                discard: *there == Target::Blackhole,
            };
            // A million routes of the internet lead where they led: those are left alone.
            if target(desired, prefix, &learned).as_ref() != Some(there) {
                offered.push((prefix, learned));
            }
        }
        for (prefix, learned) in offered {
            self.offer(rib, desired, prefix, learned);
        }
    }

    /// Withdraws everything.
    pub fn clear(&mut self, rib: &mut Rib) {
        self.left_out.clear();
        self.elevated.clear();
        let has = |prefix: &Prefix| rib.offers(*prefix).any(|offer| is_bgps(&offer));
        let offered: Vec<Prefix> = rib.iter().map(|(prefix, _)| prefix).filter(has).collect();
        for prefix in offered {
            rib.remove(prefix, Source::Bgp);
            rib.remove(prefix, Source::Elevated);
        }
    }
}

/// The next hops of a route's paths. Where every path tells its link's bandwidth, flows are shared by it, the largest being
/// 255 parts; where one doesn't, nothing is known of its share, and all count alike.
pub(crate) fn nexthops(paths: &[BestPath]) -> Nexthops {
    if let [only] = paths {
        return Nexthops::One((only.nexthop, 1));
    }
    let bandwidths: Option<Vec<u64>> = paths.iter().map(|path| path.bandwidth).collect();
    let bandwidths = bandwidths.unwrap_or_default();
    let (most, least) = (bandwidths.iter().max().copied(), bandwidths.iter().min().copied());
    let weight = |at: usize| match (bandwidths.get(at), most) {
        (Some(bandwidth), Some(most)) if least != Some(most) => {
            let parts =
                (u128::from(*bandwidth) * u128::from(u8::MAX) + u128::from(most / 2)) / u128::from(most);
            parts.clamp(1, u8::MAX.into()) as u8
        }
        _ => 1,
    };
    paths.iter().enumerate().map(|(at, path)| (path.nexthop, weight(at))).collect()
}

fn is_bgps(offer: &Offer) -> bool {
    matches!(offer.source, Source::Bgp | Source::Elevated)
}

/// Where BGP's route leads; nowhere where somebody else's does.
fn target(desired: &Desired, prefix: Prefix, learned: &Learned) -> Option<Target> {
    if desired.services.is_local(prefix) {
        return None;
    }
    if learned.discard {
        return Some(Target::Blackhole);
    }
    desired.tunnels.bgp_target(prefix, learned.nexthops.as_slice().iter().copied())
}

#[cfg(test)]
mod tests {
    use model::{EncapMode, IpPool, Node, Resource, Update};

    use super::*;
    use crate::calico::Calico;

    const BLOCK: &str = "192.168.121.0/26";

    fn desired(ipip_mode: EncapMode, vxlan_mode: EncapMode) -> Desired {
        let node = |name: &str, address: &str| Node {
            name: name.to_owned(),
            ipv4: Some(address.parse().unwrap()),
            ..Node::default()
        };
        let pool = IpPool {
            name: "pool".to_owned(),
            cidr: "192.168.0.0/16".parse().unwrap(),
            ipip_mode,
            vxlan_mode,
            nat_outgoing: false,
            disabled: false,
            disable_bgp_export: false,
        };
        let mut calico = Calico::new("a");
        let nodes = [node("a", "172.16.6.47/24"), node("b", "172.16.199.114/24")].map(Resource::Node);
        for resource in nodes.into_iter().chain([Resource::IpPool(pool)]) {
            calico.apply(&Update::Put(resource.into()));
        }
        calico.desired()
    }

    fn via(nexthop: IpAddr) -> Learned {
        Learned { nexthops: Nexthops::One((nexthop, 1)), ..Learned::default() }
    }

    #[test]
    fn next_hops_weigh_by_bandwidth_where_all_paths_tell_it() {
        let path = |last: u8, bandwidth| BestPath {
            nexthop: [10, 0, 0, last].into(),
            peer: bgp::PeerId(1),
            kind: bgp::PeerKind::Ebgp,
            local_pref: 100,
            med: None,
            bandwidth,
            discard: false,
        };
        let weights = |bandwidths: &[Option<u64>]| {
            let paths: Vec<BestPath> =
                bandwidths.iter().enumerate().map(|(at, told)| path(at as u8, *told)).collect();
            nexthops(&paths).as_slice().iter().map(|(_, weight)| *weight).collect::<Vec<_>>()
        };
        let gigabit = 125_000_000;
        assert_eq!(weights(&[Some(gigabit), Some(10 * gigabit)]), [26, 255]);
        assert_eq!(weights(&[Some(gigabit), Some(gigabit)]), [1, 1], "alike");
        assert_eq!(weights(&[Some(gigabit), None]), [1, 1], "one doesn't tell");
        assert_eq!(weights(&[Some(1), Some(u64::MAX)]), [1, 255], "nobody is left out");
        assert_eq!(weights(&[None]), [1]);
        assert_eq!(weights(&[]), [0; 0]);
    }

    /// What the RIB has of BGP's for a prefix: is it encapsulated?
    fn has(rib: &Rib, prefix: &str) -> Option<bool> {
        let offer = rib.offers(prefix.parse().unwrap()).find(|offer| offer.source == Source::Bgp)?;
        Some(rib.targets().get(offer.target)?.tunnel().is_some())
    }

    #[test]
    fn routes_follow_the_pools_mode_there_and_back() {
        let (mut rib, mut routes) = (Rib::default(), BgpRoutes::default());
        let mut now = desired(EncapMode::Never, EncapMode::Never);
        let nexthop: IpAddr = "172.16.199.114".parse().unwrap();
        for prefix in [BLOCK, "10.0.0.0/8"] {
            routes.offer(&mut rib, &now, prefix.parse().unwrap(), via(nexthop));
        }
        let modes = [EncapMode::Never, EncapMode::Always, EncapMode::CrossSubnet];
        let ways = modes.map(|ipip| (ipip, EncapMode::Never)).into_iter();
        for (ipip, vxlan) in ways.chain(modes.map(|vxlan| (EncapMode::Never, vxlan))) {
            now = desired(ipip, vxlan);
            routes.offer_all(&mut rib, &now);
            let expected = (vxlan == EncapMode::Never).then_some(ipip != EncapMode::Never);
            assert_eq!(
                (has(&rib, BLOCK), has(&rib, "10.0.0.0/8")),
                (expected, Some(false)),
                "{ipip:?} {vxlan:?}"
            );
        }
        // Withdrawn while it is left out, it doesn't come back.
        routes.offer(&mut rib, &now, BLOCK.parse().unwrap(), Learned::default());
        routes.offer_all(&mut rib, &desired(EncapMode::Never, EncapMode::Never));
        assert_eq!(has(&rib, BLOCK), None);
        routes.clear(&mut rib);
        assert!(rib.is_empty());
    }

    #[test]
    fn what_is_discarded_stays_so_whatever_the_pools_do() {
        let (mut rib, mut routes) = (Rib::default(), BgpRoutes::default());
        let is_blackhole = |rib: &Rib| {
            let offer = rib.offers(BLOCK.parse().unwrap()).next().unwrap();
            rib.targets().get(offer.target) == Some(&Target::Blackhole)
        };
        let nexthop = via("172.16.199.114".parse().unwrap());
        let now = desired(EncapMode::Never, EncapMode::Never);
        let unwanted = Learned { discard: true, ..nexthop.clone() };
        routes.offer(&mut rib, &now, BLOCK.parse().unwrap(), unwanted);
        assert!(is_blackhole(&rib));
        routes.offer_all(&mut rib, &desired(EncapMode::Always, EncapMode::Never));
        assert!(is_blackhole(&rib));
        routes.offer(&mut rib, &now, BLOCK.parse().unwrap(), nexthop);
        assert!(!is_blackhole(&rib));
    }

    #[test]
    fn routes_that_lead_where_they_led_are_no_news() {
        let (mut rib, mut routes) = (Rib::default(), BgpRoutes::default());
        let now = desired(EncapMode::Always, EncapMode::Never);
        let nexthop: IpAddr = "172.16.199.114".parse().unwrap();
        routes.offer(&mut rib, &now, BLOCK.parse().unwrap(), via(nexthop));
        routes.offer(&mut rib, &now, "10.0.0.0/8".parse().unwrap(), via(nexthop));
        let changed = rib.take_changed();
        rib.changes_told(changed);
        routes.offer_all(&mut rib, &desired(EncapMode::CrossSubnet, EncapMode::Never));
        assert!(!rib.has_changed());
    }

    #[test]
    fn a_route_of_more_than_normal_priority_comes_before_the_workload_that_has_left() {
        let (mut rib, mut routes) = (Rib::default(), BgpRoutes::default());
        let now = desired(EncapMode::Never, EncapMode::Never);
        let address: Prefix = "192.168.121.7/32".parse().unwrap();
        rib.insert(address, Source::Workload, &Target::Local, 0);
        let moved = |elevated| Learned { elevated, ..via("172.16.199.114".parse().unwrap()) };
        for (elevated, winner) in
            [(false, Source::Workload), (true, Source::Elevated), (false, Source::Workload)]
        {
            routes.offer(&mut rib, &now, address, moved(elevated));
            assert_eq!(rib.get(address).unwrap().source, winner);
            assert_eq!(rib.offers(address).count(), 2, "BGP has one route");
        }
        routes.offer(&mut rib, &now, address, moved(true));
        routes.clear(&mut rib);
        assert_eq!(rib.get(address).unwrap().source, Source::Workload);
    }

    #[test]
    fn networks_of_services_are_left_to_the_nodes_own_proxy() {
        let (mut rib, mut routes) = (Rib::default(), BgpRoutes::default());
        let mut now = desired(EncapMode::Never, EncapMode::Never);
        let service: Prefix = "10.101.0.7/32".parse().unwrap();
        routes.offer(&mut rib, &now, service, via("172.16.199.114".parse().unwrap()));
        assert!(rib.get(service).is_some());
        now.services.local.insert("10.101.0.0/16".parse().unwrap());
        routes.offer_all(&mut rib, &now);
        assert!(rib.is_empty());
        now.services.local.clear();
        routes.offer_all(&mut rib, &now);
        assert!(rib.get(service).is_some());
    }
}
