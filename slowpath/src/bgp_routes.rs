//! BGP's routes on their way into the RIB: through tunnels, and past pools whose routes come from elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::Prefix;

use crate::calico::Tunnels;
use crate::rib::{Rib, Source};

/// What BGP offers and the RIB doesn't have; the rest is in the RIB alone.
#[derive(Default)]
pub struct BgpRoutes {
    /// Next hops of what is left out.
    left_out: BTreeMap<Prefix, Vec<IpAddr>>,
}

impl BgpRoutes {
    /// BGP's route to a prefix leads to these next hops now; none withdraws it.
    pub fn offer(&mut self, rib: &mut Rib, tunnels: &Tunnels, prefix: Prefix, nexthops: Vec<IpAddr>) {
        match tunnels.bgp_target(prefix, nexthops.iter().copied()) {
            Some(target) => {
                self.left_out.remove(&prefix);
                rib.insert(prefix, Source::Bgp, &target, 0);
            }
            None => {
                rib.remove(prefix, Source::Bgp);
                if nexthops.is_empty() {
                    self.left_out.remove(&prefix);
                } else {
                    self.left_out.insert(prefix, nexthops);
                }
            }
        }
    }

    /// Offers everything anew: pools or nodes are others now.
    pub fn tunnels_changed(&mut self, rib: &mut Rib, tunnels: &Tunnels) {
        let mut offered: Vec<(Prefix, Vec<IpAddr>)> =
            std::mem::take(&mut self.left_out).into_iter().collect();
        for (prefix, _) in rib.iter() {
            let Some(offer) = rib.offers(prefix).find(|offer| offer.source == Source::Bgp) else { continue };
            let Some(target) = rib.targets().get(offer.target) else { continue };
            let nexthops: Vec<IpAddr> = target.gateways().iter().map(|gateway| gateway.addr).collect();
            // A million routes of the internet lead where they led: those are left alone.
            if tunnels.bgp_target(prefix, nexthops.iter().copied()).as_ref() != Some(target) {
                offered.push((prefix, nexthops));
            }
        }
        for (prefix, nexthops) in offered {
            self.offer(rib, tunnels, prefix, nexthops);
        }
    }

    /// Withdraws everything.
    pub fn clear(&mut self, rib: &mut Rib) {
        self.left_out.clear();
        let is_bgps = |prefix: &Prefix| rib.offers(*prefix).any(|offer| offer.source == Source::Bgp);
        let offered: Vec<Prefix> = rib.iter().map(|(prefix, _)| prefix).filter(is_bgps).collect();
        for prefix in offered {
            rib.remove(prefix, Source::Bgp);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{EncapMode, IpPool, Node, Resource, Update};

    use super::*;
    use crate::calico::Calico;

    const BLOCK: &str = "192.168.121.0/26";

    fn tunnels(ipip_mode: EncapMode, vxlan_mode: EncapMode) -> Tunnels {
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
        calico.desired().tunnels
    }

    /// What the RIB has of BGP's for a prefix: is it encapsulated?
    fn has(rib: &Rib, prefix: &str) -> Option<bool> {
        let offer = rib.offers(prefix.parse().unwrap()).find(|offer| offer.source == Source::Bgp)?;
        Some(rib.targets().get(offer.target)?.tunnel().is_some())
    }

    #[test]
    fn routes_follow_the_pools_mode_there_and_back() {
        let (mut rib, mut routes) = (Rib::default(), BgpRoutes::default());
        let mut now = tunnels(EncapMode::Never, EncapMode::Never);
        let nexthop: IpAddr = "172.16.199.114".parse().unwrap();
        for prefix in [BLOCK, "10.0.0.0/8"] {
            routes.offer(&mut rib, &now, prefix.parse().unwrap(), vec![nexthop]);
        }
        let modes = [EncapMode::Never, EncapMode::Always, EncapMode::CrossSubnet];
        let ways = modes.map(|ipip| (ipip, EncapMode::Never)).into_iter();
        for (ipip, vxlan) in ways.chain(modes.map(|vxlan| (EncapMode::Never, vxlan))) {
            now = tunnels(ipip, vxlan);
            routes.tunnels_changed(&mut rib, &now);
            let expected = (vxlan == EncapMode::Never).then_some(ipip != EncapMode::Never);
            assert_eq!(
                (has(&rib, BLOCK), has(&rib, "10.0.0.0/8")),
                (expected, Some(false)),
                "{ipip:?} {vxlan:?}"
            );
        }
        // Withdrawn while it is left out, it doesn't come back.
        routes.offer(&mut rib, &now, BLOCK.parse().unwrap(), Vec::new());
        routes.tunnels_changed(&mut rib, &tunnels(EncapMode::Never, EncapMode::Never));
        assert_eq!(has(&rib, BLOCK), None);
        routes.clear(&mut rib);
        assert!(rib.is_empty());
    }

    #[test]
    fn routes_that_lead_where_they_led_are_no_news() {
        let (mut rib, mut routes) = (Rib::default(), BgpRoutes::default());
        let now = tunnels(EncapMode::Always, EncapMode::Never);
        let nexthop: IpAddr = "172.16.199.114".parse().unwrap();
        routes.offer(&mut rib, &now, BLOCK.parse().unwrap(), vec![nexthop]);
        routes.offer(&mut rib, &now, "10.0.0.0/8".parse().unwrap(), vec![nexthop]);
        rib.take_changed();
        routes.tunnels_changed(&mut rib, &tunnels(EncapMode::CrossSubnet, EncapMode::Never));
        assert!(!rib.has_changed());
    }
}
