//! With whom this node speaks BGP, after confd (`confd/pkg/backends/calico/client.go`, `bgp_processor.go`).
//!
//! In this order, an earlier session keeping a later one away from the same address and port:
//! the node-to-node mesh, BGPPeers for all nodes, BGPPeers for this node.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use model::{AsNumber, BgpPeer, Family, Node, PeerNodes};

use super::{BGP_PORT, Calico, Warning, address_of, router_id};

/// A session's name as BIRD's configuration under Calico has it: `Mesh_10_0_0_2`, `Global_fd00__1_port_50`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(String);

impl PeerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Mesh sessions never tell their port; others do where it isn't BGP's own.
    fn of(kind: PeerKind, remote: SocketAddr) -> PeerName {
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
    /// A BGPPeer for this node.
    Node,
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PeerKind::Mesh => "Mesh",
            PeerKind::Global => "Global",
            PeerKind::Node => "Node",
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
    /// Wait for the peer to connect; it is sure to.
    pub passive: bool,
    /// The family of the address, which is the one family that the session carries.
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
}

impl DesiredPeer {
    /// Where to connect to.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// All sessions of this node.
pub(super) fn desired(
    calico: &Calico,
    own: &Node,
    warnings: &mut Vec<Warning>,
) -> BTreeMap<PeerName, DesiredPeer> {
    if router_id(own).is_none() {
        return BTreeMap::new();
    }
    let mut sessions = Sessions { calico, own, by_name: BTreeMap::new(), taken: BTreeMap::new(), warnings };
    sessions.mesh();
    sessions.explicit(PeerKind::Global, |nodes| *nodes == PeerNodes::All);
    sessions.explicit(PeerKind::Node, |nodes| *nodes == PeerNodes::Named(own.name.clone()));
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
            passive: waits_for(address, own),
            family: Family::of(address),
            source_address: Some(own),
            next_hop: NextHop::Auto,
            restart_time: self.calico.cluster().and_then(|cluster| cluster.mesh_max_restart_time),
            keepalive_time: None,
            reflector_client: None,
        });
    }

    /// Keeps the session, unless an earlier one leads to the same place or has its name.
    fn add(&mut self, session: DesiredPeer) {
        let named = self.by_name.get(&session.name).map(|used| &used.name);
        if let Some(used) = self.taken.get(&session.remote()).or(named) {
            self.warnings.push(Warning::PeerTwice {
                kind: session.kind,
                resource: session.resource.clone(),
                remote: session.remote(),
                used: used.clone(),
            });
            return;
        }
        self.taken.insert(session.remote(), session.name.clone());
        self.by_name.insert(session.name.clone(), session);
    }

    /// BGPPeers, by name.
    fn explicit(&mut self, kind: PeerKind, meant: impl Fn(&PeerNodes) -> bool) {
        let calico = self.calico;
        for peer in calico.peers.values().filter(|peer| meant(&peer.nodes)) {
            let family = Family::of(peer.peer.ip());
            let Some(own) = address_of(self.own, family) else {
                self.warnings.push(Warning::PeerFamilyMissing { peer: peer.name.clone(), family });
                continue;
            };
            // One BGPPeer for all nodes names each node once, this one too.
            if peer.peer.ip() == own {
                continue;
            }
            self.add(self.session(kind, peer, own));
        }
    }

    fn session(&self, kind: PeerKind, peer: &BgpPeer, own: IpAddr) -> DesiredPeer {
        let address = peer.peer.ip();
        let node =
            self.calico.nodes.values().find(|node| address_of(node, Family::of(address)) == Some(address));
        let port = match (peer.peer.port(), node) {
            // A port that isn't given is the one that the node at the other end listens on.
            (BGP_PORT, Some(node)) => self.calico.listen_port_of(&node.name),
            (port, _) => port,
        };
        DesiredPeer {
            name: PeerName::of(kind, SocketAddr::new(address, port)),
            kind,
            resource: peer.name.clone(),
            address,
            port,
            as_number: peer.as_number,
            // Only where both ends are sure to have the session; a BGPPeer of one node tells nothing of the other.
            passive: kind == PeerKind::Global && node.is_some() && waits_for(address, own),
            family: Family::of(address),
            source_address: peer.bind_to_node_address.then_some(own),
            next_hop: self.next_hop(peer),
            restart_time: peer.max_restart_time,
            keepalive_time: peer.keepalive_time,
            reflector_client: self.reflector_client(peer, node),
        }
    }

    fn next_hop(&self, peer: &BgpPeer) -> NextHop {
        if peer.next_hop_keep || (peer.keep_original_next_hop && !self.is_internal(peer)) {
            NextHop::Keep
        } else if peer.next_hop_self {
            NextHop::OwnAddress
        } else {
            NextHop::Auto
        }
    }

    /// iBGP with a peer that isn't in our own cluster of reflectors.
    fn reflector_client(&self, peer: &BgpPeer, node: Option<&Node>) -> Option<Ipv4Addr> {
        let own = self.own.route_reflector_cluster_id?;
        let same_cluster = node.and_then(|node| node.route_reflector_cluster_id) == Some(own);
        (self.is_internal(peer) && !same_cluster).then_some(own)
    }

    fn is_internal(&self, peer: &BgpPeer) -> bool {
        peer.as_number == self.calico.as_number_of(self.own)
    }
}

/// Of two nodes the one with the lesser address connects. Calico compares addresses as text, so that 10.0.0.10
/// connects to 10.0.0.9; both ends must do it alike.
fn waits_for(peer: IpAddr, own: IpAddr) -> bool {
    peer.to_string() > own.to_string()
}
