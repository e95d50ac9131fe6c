//! With whom this node speaks BGP, after confd (`confd/pkg/backends/calico/client.go`, `bgp_processor.go`).
//!
//! In this order, an earlier session keeping a later one away from the same address and port: the node-to-node mesh,
//! BGPPeers for all nodes, BGPPeers for this node among others, and what BGPPeers of other nodes ask of this one, which is
//! at their other end.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use model::{AsNumber, BgpFilter, BgpFilterRule, BgpPeer, Family, Node, PeerNodes, PeerTarget, SecretKey};
use policy::Selector;

use super::{BGP_PORT, Calico, Warning, address_of};
use crate::peer_groups::{DefaultRoute, PeerOptions};

/// A session's name as BIRD's configuration under Calico has it: `Mesh_10_0_0_2`, `Global_fd00__1_port_50`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(String);

impl PeerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Mesh sessions never tell their port; others do where it isn't BGP's own.
    pub(crate) fn of(kind: PeerKind, remote: SocketAddr) -> PeerName {
        let address = remote.ip().to_string().replace(['.', ':'], "_");
        let name = match (kind, remote.port()) {
            (PeerKind::Mesh, _) | (_, BGP_PORT) => format!("{kind}_{address}"),
            (_, port) => format!("{kind}_{address}_port_{port}"),
        };
        PeerName(name)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What made a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// The node-to-node mesh.
    Mesh,
    /// A BGPPeer for all nodes.
    Global,
    /// A BGPPeer for this node, or one of another node that leads here.
    Node,
    /// A workload of this node, which speaks BGP itself.
    LocalWorkload,
    /// Nobody named it: it connected from an address of a group that takes such neighbours in.
    Dynamic,
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PeerKind::Mesh => "Mesh",
            PeerKind::Global => "Global",
            PeerKind::Node => "Node",
            PeerKind::LocalWorkload => "Local_Workload",
            PeerKind::Dynamic => "Dynamic",
        })
    }
}

/// Which next hop the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// As BGP has it (RFC 4271 §5.1.3).
    Auto,
    /// As it came.
    Keep,
    /// Always this node.
    OwnAddress,
}

/// A session to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredPeer {
    /// Unique among the node's sessions.
    pub name: PeerName,
    /// What made it.
    pub kind: PeerKind,
    /// The BGPPeer it comes from, or the Node at the other end of a mesh session.
    pub resource: String,
    /// Where the peer is.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// Its AS.
    pub as_number: AsNumber,
    /// As which AS we speak, where it isn't the node's.
    pub local_as: Option<AsNumber>,
    /// How often our AS may be in the path of a route that is still taken.
    pub allowed_local_as: u8,
    /// The gateway to the peer, where the BGPPeer names one.
    pub reachable_by: Option<IpAddr>,
    /// Wait for the peer to connect; it is sure to.
    pub passive: bool,
    /// The family of the address, which is the one family that the session carries unless options say otherwise.
    pub family: Family,
    /// The address to connect from; none is the system's choice.
    pub source_address: Option<IpAddr>,
    /// Which next hop the peer is told.
    pub next_hop: NextHop,
    /// How long it shall keep our routes while we restart; none is BIRD's 120 s.
    pub restart_time: Option<Duration>,
    /// Interval of keepalives; none is a third of the hold time.
    pub keepalive_time: Option<Duration>,
    /// The peer is a client of this route reflector, under this cluster ID (RFC 4456).
    pub reflector_client: Option<Ipv4Addr>,
    /// The rules of its BGPFilters about routes from it, in order.
    pub import: Vec<BgpFilterRule>,
    /// The rules of its BGPFilters about routes to it, in order: they come before what all peers may be told.
    pub export: Vec<BgpFilterRule>,
    /// The same of the other family's routes, for sessions that carry both.
    pub other_import: Vec<BgpFilterRule>,
    /// See [`Self::other_import`].
    pub other_export: Vec<BgpFilterRule>,
    /// The peer is at most so many hops away, and packets from further off are not its (RFC 5082).
    pub ttl_security: Option<u8>,
    /// Is it to be watched by BFD?
    pub bfd: bool,
    /// Where the password of its TCP connections stands (RFC 2385).
    pub password: Option<SecretKey>,
    /// What it is told of a default route.
    pub default_route: DefaultRoute,
    /// What its range is asked for beyond that.
    pub options: PeerOptions,
}

impl DesiredPeer {
    /// Where to connect to.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// The families of the routes that the session carries.
    pub(crate) fn families(&self) -> Vec<Family> {
        self.options.families(self.family)
    }
}

/// All sessions of this node.
pub(super) fn desired(
    calico: &Calico,
    own: &Node,
    warnings: &mut Vec<Warning>,
) -> BTreeMap<PeerName, DesiredPeer> {
    if calico.router_id.of(own).is_none() {
        return BTreeMap::new();
    }
    let mut sessions = Sessions { calico, own, by_name: BTreeMap::new(), taken: BTreeMap::new(), warnings };
    sessions.mesh();
    sessions.explicit(PeerKind::Global);
    sessions.explicit(PeerKind::Node);
    sessions.local_workloads();
    sessions.reverse();
    sessions.warn_of_filters();
    sessions.by_name
}

struct Sessions<'a> {
    calico: &'a Calico,
    own: &'a Node,
    by_name: BTreeMap<PeerName, DesiredPeer>,
    /// Addresses and ports that lead somewhere already.
    taken: BTreeMap<SocketAddr, PeerName>,
    warnings: &'a mut Vec<Warning>,
}

impl Sessions<'_> {
    /// Every other node, unless it or we reflect routes: reflectors are reached by BGPPeers.
    fn mesh(&mut self) {
        let cluster = self.calico.cluster();
        let enabled = cluster.and_then(|cluster| cluster.node_to_node_mesh).unwrap_or(true);
        if !enabled || self.own.route_reflector_cluster_id.is_some() {
            return;
        }
        let others = self.calico.nodes.values().filter(|node| node.name != self.own.name);
        for node in others.filter(|node| node.route_reflector_cluster_id.is_none()) {
            for family in Family::ALL {
                if let (Some(own), Some(address)) = (address_of(self.own, family), address_of(node, family)) {
                    self.mesh_session(node, own, address);
                }
            }
        }
    }

    fn mesh_session(&mut self, node: &Node, own: IpAddr, address: IpAddr) {
        if own == address {
            self.warnings.push(Warning::AddressOfOtherNode { other: node.name.clone(), address });
            return;
        }
        let port = self.calico.listen_port_of(&node.name);
        self.add(DesiredPeer {
            name: PeerName::of(PeerKind::Mesh, SocketAddr::new(address, port)),
            kind: PeerKind::Mesh,
            resource: node.name.clone(),
            address,
            port,
            as_number: self.calico.as_number_of(node),
            local_as: None,
            allowed_local_as: 0,
            reachable_by: None,
            passive: waits_for(address, own),
            family: Family::of(address),
            source_address: Some(own),
            next_hop: NextHop::Auto,
            restart_time: self.calico.cluster().and_then(|cluster| cluster.mesh_max_restart_time),
            keepalive_time: None,
            reflector_client: None,
            import: Vec::new(),
            export: Vec::new(),
            other_import: Vec::new(),
            other_export: Vec::new(),
            ttl_security: None,
            bfd: false,
            password: self.calico.cluster().and_then(|cluster| cluster.mesh_password.clone()),
            default_route: DefaultRoute::AsAny,
            options: PeerOptions::default(),
        });
    }

    /// Filters that are named and aren't there.
    fn warn_of_filters(&mut self) {
        for peer in self.calico.peers.values() {
            for filter in peer.filters.iter().filter(|name| !self.calico.filters.contains_key(*name)) {
                let (peer, filter) = (peer.name.clone(), filter.clone());
                self.warnings.push(Warning::FilterMissing { peer, filter });
            }
        }
    }

    /// Keeps the session, unless an earlier one leads to the same place or has its name.
    fn add(&mut self, session: DesiredPeer) {
        if let Some(used) = self.in_the_way_of(&session) {
            self.warnings.push(Warning::PeerTwice {
                kind: session.kind,
                resource: session.resource.clone(),
                remote: session.remote(),
                used: used.clone(),
            });
            return;
        }
        self.keep(session);
    }

    fn in_the_way_of(&self, session: &DesiredPeer) -> Option<&PeerName> {
        let named = || self.by_name.get(&session.name).map(|used| &used.name);
        self.taken.get(&session.remote()).or_else(named)
    }

    fn keep(&mut self, session: DesiredPeer) {
        self.taken.insert(session.remote(), session.name.clone());
        self.by_name.insert(session.name.clone(), session);
    }

    /// BGPPeers that are for this node, by name: those for all nodes, or the others.
    fn explicit(&mut self, kind: PeerKind) {
        let calico = self.calico;
        let meant = |peer: &&BgpPeer| {
            (peer.nodes == PeerNodes::All) == (kind == PeerKind::Global) && is_among(&peer.nodes, self.own)
        };
        for peer in calico.peers.values().filter(meant) {
            match &peer.target {
                PeerTarget::Address(remote) => {
                    let family = Family::of(remote.ip());
                    let Some(own) = address_of(self.own, family) else {
                        self.warnings.push(Warning::PeerFamilyMissing { peer: peer.name.clone(), family });
                        continue;
                    };
                    if remote.ip().is_multicast() {
                        let (peer, address) = (peer.name.clone(), remote.ip());
                        self.warnings.push(Warning::PeerAtMulticast { peer, address });
                    }
                    let node = self.node_at(remote.ip());
                    let port = match (remote.port(), node) {
                        // A port that isn't given is the one that the node at the other end listens on.
                        (BGP_PORT, Some(node)) => calico.listen_port_of(&node.name),
                        (port, _) => port,
                    };
                    let remote = SocketAddr::new(remote.ip(), port);
                    // One BGPPeer for all nodes names each node once, this one too.
                    if remote.ip() == own {
                        continue;
                    }
                    match peer.as_number.or_else(|| node.map(|node| calico.as_number_of(node))) {
                        Some(as_number) => {
                            self.add(self.session(kind, peer, own, remote, as_number, node));
                        }
                        None => {
                            self.warnings.push(Warning::PeerWithoutAs { peer: peer.name.clone() });
                        }
                    }
                }
                PeerTarget::Nodes(selector) => {
                    for node in selected(calico, selector) {
                        self.with_node(kind, peer, node).into_iter().for_each(|session| self.add(session));
                    }
                }
                PeerTarget::LocalWorkloads(_) => {}
            }
        }
    }

    /// Workloads of this node that speak BGP: they connect, from the first address that they have of a family. Of the BGPPeers
    /// that select a workload here, the first by name counts (`felix/calc/active_bgp_peer_calculator.go`).
    fn local_workloads(&mut self) {
        let calico = self.calico;
        let of_workloads = |peer: &'_ BgpPeer| match &peer.target {
            PeerTarget::LocalWorkloads(selector) => selector.parse::<Selector>().ok(),
            PeerTarget::Address(_) | PeerTarget::Nodes(_) => None,
        };
        let meant = calico.peers.values().filter(|peer| is_among(&peer.nodes, self.own));
        let meant: Vec<_> =
            meant.filter_map(|peer| Some((of_workloads(peer)?, peer.as_number?, peer))).collect();
        for endpoint in calico.endpoints.values().filter(|_| !meant.is_empty()) {
            let labels = calico.labels_of(endpoint);
            let Some((_, as_number, peer)) = meant.iter().find(|(selector, ..)| selector.matches(&labels))
            else {
                continue;
            };
            for family in Family::ALL {
                let mut addresses = endpoint.ip_networks.iter().filter(|address| address.family() == family);
                let (Some(address), Some(own)) = (addresses.next(), address_of(self.own, family)) else {
                    continue;
                };
                let remote = SocketAddr::new(address.addr(), BGP_PORT);
                let session = self.session(PeerKind::LocalWorkload, peer, own, remote, *as_number, None);
                self.add(DesiredPeer { passive: true, source_address: None, ..session });
            }
        }
    }

    /// What BGPPeers of other nodes ask of this node, which is at their other end. What is there already is the same
    /// session, seen from here.
    fn reverse(&mut self) {
        let calico = self.calico;
        for peer in calico.peers.values().filter(|peer| peer.reverse_peering) {
            let leads_here = match &peer.target {
                PeerTarget::Nodes(selector) => is_selected(selector, self.own),
                PeerTarget::Address(remote) => {
                    let port = calico.listen_port_of(&self.own.name);
                    address_of(self.own, Family::of(remote.ip())) == Some(remote.ip())
                        && (remote.port() == port || remote.port() == BGP_PORT)
                        && peer.as_number.is_none_or(|number| number == calico.as_number_of(self.own))
                }
                PeerTarget::LocalWorkloads(_) => false,
            };
            if !leads_here {
                continue;
            }
            let only = match &peer.target {
                PeerTarget::Address(remote) => Some(Family::of(remote.ip())),
                PeerTarget::Nodes(_) | PeerTarget::LocalWorkloads(_) => None,
            };
            // As whom the other end speaks, and how it gets here, is its own affair.
            let seen_from_here = BgpPeer { local_as_number: None, reachable_by: None, ..peer.clone() };
            for node in calico.nodes.values().filter(|node| is_among(&peer.nodes, node)) {
                for mut session in self.with_node(PeerKind::Node, &seen_from_here, node) {
                    session.as_number = peer.local_as_number.unwrap_or(session.as_number);
                    let wanted = only.is_none_or(|family| family == session.family);
                    if wanted && self.in_the_way_of(&session).is_none() {
                        self.keep(session);
                    }
                }
            }
        }
    }

    /// Sessions with another node, in each family that both have an address of.
    fn with_node(&self, kind: PeerKind, peer: &BgpPeer, node: &Node) -> Vec<DesiredPeer> {
        if node.name == self.own.name {
            return Vec::new();
        }
        let session = |family| {
            let (own, address) = (address_of(self.own, family)?, address_of(node, family)?);
            let remote = SocketAddr::new(address, self.calico.listen_port_of(&node.name));
            let as_number = self.calico.as_number_of(node);
            (own != address).then(|| self.session(kind, peer, own, remote, as_number, Some(node)))
        };
        Family::ALL.into_iter().filter_map(session).collect()
    }

    fn node_at(&self, address: IpAddr) -> Option<&Node> {
        self.calico.nodes.values().find(|node| address_of(node, Family::of(address)) == Some(address))
    }

    fn session(
        &self,
        kind: PeerKind,
        peer: &BgpPeer,
        own: IpAddr,
        remote: SocketAddr,
        as_number: AsNumber,
        node: Option<&Node>,
    ) -> DesiredPeer {
        let address = remote.ip();
        let internal = as_number == self.local_as(peer);
        let family = Family::of(address);
        let other = match family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        DesiredPeer {
            name: PeerName::of(kind, remote),
            kind,
            resource: peer.name.clone(),
            address,
            port: remote.port(),
            as_number,
            local_as: peer.local_as_number,
            allowed_local_as: peer.allowed_local_as,
            reachable_by: peer.reachable_by,
            // Calico lets one end wait only where a BGPPeer of all nodes gives the other node's address.
            passive: kind == PeerKind::Global
                && matches!(peer.target, PeerTarget::Address(_))
                && node.is_some()
                && waits_for(address, own),
            family,
            source_address: peer.bind_to_node_address.then_some(own),
            next_hop: next_hop(peer, internal),
            restart_time: peer.max_restart_time,
            keepalive_time: peer.keepalive_time,
            reflector_client: self.reflector_client(node).filter(|_| internal),
            import: self.filter_rules(peer, |filter| imports(filter, family)),
            export: self.filter_rules(peer, |filter| exports(filter, family)),
            other_import: self.filter_rules(peer, |filter| imports(filter, other)),
            other_export: self.filter_rules(peer, |filter| exports(filter, other)),
            ttl_security: peer.ttl_security,
            bfd: peer.bfd,
            password: peer.password.clone(),
            default_route: DefaultRoute::AsAny,
            options: PeerOptions::default(),
        }
    }

    /// The rules of one list of all filters that a BGPPeer names.
    fn filter_rules(
        &self,
        peer: &BgpPeer,
        list: impl Fn(&BgpFilter) -> &Vec<BgpFilterRule>,
    ) -> Vec<BgpFilterRule> {
        peer.filters.iter().filter_map(|name| self.calico.filters.get(name)).flat_map(list).cloned().collect()
    }

    /// A peer that isn't in our own cluster of reflectors is a client of ours, if it is in our AS.
    fn reflector_client(&self, node: Option<&Node>) -> Option<Ipv4Addr> {
        let own = self.own.route_reflector_cluster_id?;
        let same_cluster = node.and_then(|node| node.route_reflector_cluster_id) == Some(own);
        (!same_cluster).then_some(own)
    }

    fn local_as(&self, peer: &BgpPeer) -> AsNumber {
        peer.local_as_number.unwrap_or_else(|| self.calico.as_number_of(self.own))
    }
}

fn imports(filter: &BgpFilter, family: Family) -> &Vec<BgpFilterRule> {
    match family {
        Family::V4 => &filter.import_v4,
        Family::V6 => &filter.import_v6,
    }
}

fn exports(filter: &BgpFilter, family: Family) -> &Vec<BgpFilterRule> {
    match family {
        Family::V4 => &filter.export_v4,
        Family::V6 => &filter.export_v6,
    }
}

fn next_hop(peer: &BgpPeer, internal: bool) -> NextHop {
    if peer.next_hop_keep || (peer.keep_original_next_hop && !internal) {
        NextHop::Keep
    } else if peer.next_hop_self {
        NextHop::OwnAddress
    } else {
        NextHop::Auto
    }
}

/// Is a BGPPeer for these nodes for this one?
fn is_among(nodes: &PeerNodes, node: &Node) -> bool {
    match nodes {
        PeerNodes::All => true,
        PeerNodes::Named(name) => *name == node.name,
        PeerNodes::Selected(selector) => is_selected(selector, node),
    }
}

/// A selector that isn't one selects nothing; the datastore refuses it before it comes here.
pub(super) fn is_selected(selector: &str, node: &Node) -> bool {
    selector.parse::<Selector>().is_ok_and(|selector| selector.matches(&node.labels))
}

/// The nodes that a selector is about, by name.
fn selected<'a>(calico: &'a Calico, selector: &str) -> Vec<&'a Node> {
    let Ok(selector) = selector.parse::<Selector>() else { return Vec::new() };
    calico.nodes.values().filter(|node| selector.matches(&node.labels)).collect()
}

/// Of two nodes the one with the lesser address connects. Calico compares addresses as text, so that 10.0.0.10
/// connects to 10.0.0.9; both ends must do it alike.
fn waits_for(peer: IpAddr, own: IpAddr) -> bool {
    peer.to_string() > own.to_string()
}
