//! Networks of Kubernetes' services: announced by nodes, forwarded by whoever does the services (kube-proxy).
//!
//! After `updateGlobalRoutes` in `confd/pkg/backends/calico/client.go`. Which services there are is Kubernetes' to know:
//! their single addresses are not announced.

use std::collections::BTreeSet;

use model::{BgpConfiguration, Node, Prefix};

/// The label of nodes that services' traffic shall not come to.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What BGPConfiguration says of services, seen from this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Announced by this node.
    pub announced: BTreeSet<Prefix>,
    /// What BGP says of these networks, or inside them, isn't for our forwarding: the node's own service proxy does them.
    pub local: BTreeSet<Prefix>,
    /// What a route reflector passes on besides: load balancers' and external networks, to their single addresses.
    passed_on: BTreeSet<Prefix>,
}

impl Services {
    pub(super) fn of(cluster: Option<&BgpConfiguration>, node: Option<&Node>) -> Services {
        let Some(cluster) = cluster else { return Services::default() };
        let aggregated = cluster.service_load_balancer_ips.iter().filter(|network| {
            // A single address is its service's nodes' to announce.
            !network.is_host() && !cluster.load_balancers_one_by_one
        });
        let networks = cluster.service_cluster_ips.iter().chain(&cluster.service_external_ips);
        let local: BTreeSet<Prefix> = networks.chain(aggregated).copied().collect();
        let excluded = |node: &Node| node.labels.get(EXCLUDED).is_some_and(|value| value == "true");
        let announced = if node.is_some_and(excluded) { BTreeSet::new() } else { local.clone() };
        let passed_on = cluster.service_load_balancer_ips.iter().chain(&cluster.service_external_ips);
        Services { announced, local, passed_on: passed_on.copied().collect() }
    }

    /// What may be announced from here.
    pub(super) fn exported(&self, node: Option<&Node>) -> Vec<Prefix> {
        let reflects = node.is_some_and(|node| node.route_reflector_cluster_id.is_some());
        let passed_on = self.passed_on.difference(&self.announced).filter(|_| reflects);
        self.announced.iter().chain(passed_on).copied().collect()
    }

    /// Is a destination one of the services' that the node itself does?
    pub fn is_local(&self, prefix: Prefix) -> bool {
        self.local.iter().any(|network| network.covers(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn cluster() -> BgpConfiguration {
        BgpConfiguration {
            service_cluster_ips: networks(&["10.101.0.0/16"]),
            service_external_ips: networks(&["80.15.0.0/24"]),
            service_load_balancer_ips: networks(&["90.15.0.0/24", "90.16.0.1/32"]),
            ..BgpConfiguration::default()
        }
    }

    #[test]
    fn networks_are_announced_whole_and_a_load_balancers_single_address_is_not() {
        let services = Services::of(Some(&cluster()), None);
        let expected = networks(&["10.101.0.0/16", "80.15.0.0/24", "90.15.0.0/24"]);
        assert_eq!(services.exported(None), expected);
        assert!(services.is_local("10.101.7.7/32".parse().unwrap()));
        assert!(!services.is_local("10.0.0.0/8".parse().unwrap()));
    }

    #[test]
    fn load_balancers_one_by_one_are_none_of_this_nodes() {
        let cluster = BgpConfiguration { load_balancers_one_by_one: true, ..cluster() };
        let services = Services::of(Some(&cluster), None);
        assert_eq!(services.exported(None), networks(&["10.101.0.0/16", "80.15.0.0/24"]));
    }

    #[test]
    fn a_node_outside_load_balancing_announces_nothing_and_still_leaves_services_to_its_proxy() {
        let labels = [(EXCLUDED.to_owned(), "true".to_owned())].into();
        let node = Node { labels, ..Node::default() };
        let services = Services::of(Some(&cluster()), Some(&node));
        assert_eq!(services.exported(Some(&node)), []);
        assert!(services.is_local("80.15.0.9/32".parse().unwrap()));
    }

    #[test]
    fn a_reflector_passes_single_addresses_of_services_on() {
        let node = Node { route_reflector_cluster_id: Some([1, 1, 1, 1].into()), ..Node::default() };
        let services = Services::of(Some(&cluster()), Some(&node));
        assert!(services.exported(Some(&node)).contains(&"90.16.0.1/32".parse().unwrap()));
    }
}
