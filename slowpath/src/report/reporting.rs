//! What this node tells of itself in the datastore, and its routes as BIRD would list them.

use std::collections::{BTreeMap, BTreeSet};

use bgp::{PathSource, PathStatus};
use model::{Family, NodeStatusClass, Prefix};

use crate::calico::PeerKind;
use crate::event_loop::Core;
use crate::rib::{self, Offer, Source};
use crate::status::{
    EndpointReports, NexthopStatus, ReportedRoute, ReportedRoutes, ReportingStatus, RouteStatus,
    StatusRequest,
};

/// What stands for a gateway where there is none.
const NO_GATEWAY: &str = "N/A";

impl Core {
    pub(super) fn reporting(&self) -> ReportingStatus {
        let reporting = self.desired.felix.reporting;
        let request = |request: &model::NodeStatusRequest| StatusRequest {
            name: request.name.clone(),
            agent: request.classes.contains(&NodeStatusClass::Agent),
            bgp: request.classes.contains(&NodeStatusClass::Bgp),
            routes: request.classes.contains(&NodeStatusClass::Routes),
            period_seconds: request.period.as_secs(),
        };
        ReportingStatus {
            in_sync: self.in_sync,
            interval_seconds: reporting.interval.as_secs_f64(),
            ttl_seconds: reporting.ttl.as_secs_f64(),
            endpoints: reporting.endpoints.then(|| EndpointReports {
                delay_seconds: reporting.endpoint_delay.as_secs_f64(),
                ..self.endpoints()
            }),
            requests: self.status_requests().map(request).collect(),
        }
    }

    /// How this node's endpoints fare: up where the interface is there, up, and a port with its policy.
    fn endpoints(&self) -> EndpointReports {
        let ports: BTreeMap<&str, bool> = self
            .ports
            .iter()
            .filter_map(|row| Some((row.port.endpoint.as_ref()?.name.as_str(), row.port.up)))
            .collect();
        let closed: BTreeSet<String> = self.workload_policy.closed().collect();
        let fares = |name: &str| match ports.get(name) {
            _ if closed.contains(name) => "error",
            Some(true) => "up",
            _ => "down",
        };
        let workload = |(namespace, name): &(String, String)| {
            let status = fares(&format!("{namespace}/{name}"));
            (namespace.clone(), name.clone(), status.to_owned())
        };
        let links = &self.kernel.links;
        let host = |endpoint: &model::HostEndpoint| {
            let is_up = match &endpoint.interface {
                model::HostInterface::Named(name) => links.iter().any(|link| link.name == *name && link.up),
                model::HostInterface::All => true,
                model::HostInterface::WithExpectedIp => self.kernel.addresses.iter().any(|address| {
                    endpoint.expected_ips.contains(&address.addr.addr)
                        && links.iter().any(|link| link.ifindex == address.ifindex && link.up)
                }),
            };
            (endpoint.name.clone(), if is_up { "up" } else { "down" }.to_owned())
        };
        EndpointReports {
            delay_seconds: 0.0,
            workloads: self.desired.endpoints.keys().map(workload).collect(),
            hosts: self.desired.host_endpoints.values().map(host).collect(),
        }
    }

    /// At most `limit` prefixes of each family.
    pub(super) fn reported_routes(&self, limit: usize) -> ReportedRoutes {
        let of = |family: Family| {
            let winners = self
                .rib
                .iter()
                .filter(move |(prefix, offer)| prefix.family() == family && offer.source != Source::Neighbor);
            rib::first_of(winners, limit).0
        };
        let wanted: Vec<(Prefix, Offer)> = Family::ALL.into_iter().flat_map(of).collect();
        let prefixes: Vec<Prefix> = wanted.iter().map(|(prefix, _)| *prefix).collect();
        let ask = move |speaker: &bgp::Speaker| -> Vec<Vec<PathStatus>> {
            prefixes.into_iter().map(|prefix| speaker.routes(prefix)).collect()
        };
        let mut paths = self.bgp.ask(ask).unwrap_or_default().into_iter();
        let mut reported = Vec::new();
        for (prefix, offer) in wanted {
            self.report_route(prefix, offer, &paths.next().unwrap_or_default(), &mut reported);
        }
        ReportedRoutes { reported_routes: reported }
    }

    fn report_route(
        &self,
        prefix: Prefix,
        offer: Offer,
        paths: &[PathStatus],
        reported: &mut Vec<ReportedRoute>,
    ) {
        let route = self.route_status(prefix, offer);
        let is_bgp = matches!(offer.source, Source::Bgp | Source::Elevated);
        // Paths come with the best first.
        let mut from_peers = paths.iter().filter_map(|path| match path.source {
            PathSource::Peer(peer) => Some((path, self.learned_from(peer)?)),
            PathSource::Local => None,
        });
        let (source_type, peer_ip) = match from_peers.clone().next().filter(|_| is_bgp) {
            Some((_, (kind, peer))) => (kind, Some(peer)),
            None => (source_type(offer.source), None),
        };
        let (gateways, interfaces) = ways(&route);
        for (gateway, interface) in gateways.into_iter().zip(interfaces) {
            reported.push(ReportedRoute {
                in_use: true,
                destination: prefix.to_string(),
                gateway,
                interface,
                source_type: source_type.to_owned(),
                peer_ip: peer_ip.clone(),
            });
        }
        if is_bgp {
            from_peers.next();
        }
        for (path, (kind, peer)) in from_peers {
            let gateway = path.attributes.nexthop();
            reported.push(ReportedRoute {
                in_use: false,
                destination: prefix.to_string(),
                gateway: gateway.map_or_else(|| NO_GATEWAY.to_owned(), |gateway| gateway.to_string()),
                interface: gateway.and_then(|gateway| self.interface_towards(gateway)).unwrap_or_default(),
                source_type: kind.to_owned(),
                peer_ip: Some(peer),
            });
        }
    }

    fn learned_from(&self, peer: bgp::PeerId) -> Option<(&'static str, String)> {
        let peer = self.sessions.desired(peer)?;
        let kind = if peer.kind == PeerKind::Mesh { "NodeMesh" } else { "BGPPeer" };
        Some((kind, peer.address.to_string()))
    }

    fn interface_towards(&self, address: std::net::IpAddr) -> Option<String> {
        self.route(address).nexthops.into_iter().find_map(|nexthop| nexthop.port)
    }
}

/// Where a route leads, one pair each: gateways and interfaces.
fn ways(route: &RouteStatus) -> (Vec<String>, Vec<String>) {
    let gateway = |nexthop: &NexthopStatus| match nexthop.via {
        Some(via) if nexthop.kind.is_none() => via.to_string(),
        _ => NO_GATEWAY.to_owned(),
    };
    let interface = |nexthop: &NexthopStatus| match (nexthop.kind.as_deref(), &nexthop.port) {
        (None | Some("attached"), Some(port)) => port.clone(),
        (Some("blackhole"), _) => "blackhole".to_owned(),
        (Some("local"), _) => "lo".to_owned(),
        _ => "unreachable".to_owned(),
    };
    (route.nexthops.iter().map(gateway).collect(), route.nexthops.iter().map(interface).collect())
}

/// What BIRD would have it from: its kernel protocol knows workloads' routes and other daemons', its static one blocks.
fn source_type(source: Source) -> &'static str {
    match source {
        Source::Local | Source::Neighbor | Source::Connected => "Direct",
        Source::Block | Source::Static | Source::ReachableBy => "Static",
        Source::Workload
        | Source::Vxlan
        | Source::Ipam
        | Source::Kernel
        | Source::Preserved
        | Source::Bgp
        | Source::Elevated => "Kernel",
    }
}
