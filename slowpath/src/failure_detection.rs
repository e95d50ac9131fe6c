//! What BFD and carriers tell, acted on: traffic leaves a neighbour that failed before anybody works out new routes.
//!
//! First the groups that the neighbour is in lose it: a row each, however many routes lead there. Then BGP's session ends
//! (RFC 9384), and its routes go one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::bfd::{BfdConfig, BfdPath, State};
use bgp::{Input, PeerId};
use model::{Family, IfIndex};
use tracing::{info, warn};

use crate::bfd::{BfdSettings, BfdThread};
use crate::calico::{DesiredPeer, PeerKind};
use crate::event_loop::Core;
use crate::interfaces::KernelState;
use crate::resolve::NeighborAddr;

/// What is watched for whom, and who has failed.
pub(crate) struct Watch {
    pub(crate) thread: BfdThread,
    peers: BTreeMap<BfdPath, Vec<PeerId>>,
    /// Neighbours that BFD has seen fail and not come back.
    pub(crate) lost: BTreeSet<NeighborAddr>,
}

impl Watch {
    pub(crate) fn new(thread: BfdThread) -> Watch {
        Watch { thread, peers: BTreeMap::new(), lost: BTreeSet::new() }
    }
}

impl Core {
    /// Brings what is watched into line with sessions and addresses.
    pub(crate) fn watch_peers(&mut self) {
        let settings = self.config.bfd;
        let mut peers: BTreeMap<BfdPath, Vec<PeerId>> = BTreeMap::new();
        for (id, peer) in self.sessions.peers() {
            if (peer.bfd || settings.mesh && peer.kind == PeerKind::Mesh)
                && let Some(path) =
                    path(peer, &self.kernel, settings, |family| self.desired.node_address(family))
            {
                peers.entry(path).or_default().push(id);
            }
        }
        let paces: BTreeMap<BfdPath, BfdConfig> = peers.keys().map(|path| (*path, settings.pace)).collect();
        self.watch.thread.watch(paces);
        let is_watched = |lost: &NeighborAddr| {
            peers.keys().any(|path| path.link == Some(lost.ifindex.0) && path.remote == lost.addr)
        };
        let before = self.watch.lost.len();
        self.watch.lost.retain(is_watched);
        self.dirty.rows |= self.watch.lost.len() != before;
        self.watch.peers = peers;
    }

    /// Acts on what BFD has seen, where it has.
    pub(crate) fn heed_bfd(&mut self) {
        let news = self.watch.thread.take_news();
        if news.is_empty() {
            return;
        }
        let mut failed: Vec<PeerId> = Vec::new();
        let mut moves = false;
        for (path, news) in news {
            let neighbor = path.link.map(|link| NeighborAddr { ifindex: IfIndex(link), addr: path.remote });
            if news.failed {
                failed.extend(self.watch.peers.get(&path).into_iter().flatten());
            }
            match (neighbor, news.state) {
                (Some(neighbor), State::Up) => {
                    self.dirty.rows |= self.watch.lost.remove(&neighbor);
                }
                (Some(neighbor), _) if news.failed => moves |= self.watch.lost.insert(neighbor),
                _ => {}
            }
        }
        if moves {
            self.move_traffic();
        }
        for peer in failed {
            self.tell(Input::PathLost { peer });
        }
    }

    /// A session stands: its TCP connection knows better than BFD whether the peer can be reached.
    pub(crate) fn peer_is_back(&mut self, peer: PeerId) {
        let Some(address) = self.sessions.desired(peer).map(|peer| peer.address) else { return };
        let before = self.watch.lost.len();
        self.watch.lost.retain(|lost| lost.addr != address);
        self.dirty.rows |= self.watch.lost.len() != before;
    }

    /// Nothing passes over a link any more: what is behind it is reached otherwise, or not, from now on. The rest of what
    /// the kernel has to say of it comes later.
    pub(crate) fn carrier_lost(&mut self, ifindex: IfIndex) {
        let link = self.kernel.links.iter_mut().find(|link| link.ifindex == ifindex && link.up);
        if let Some(link) = link {
            link.up = false;
            warn!(link = link.name, "carrier lost");
            self.watch.thread.link_down(ifindex.0);
            self.dirty.offers = true;
            self.dirty.way_lost = true;
        }
    }

    /// Rewrites the rows of groups that have lost a neighbour, before anything else is done.
    pub(crate) fn move_traffic(&mut self) {
        match self.rewrite_rows() {
            0 => info!("next hops are lost, and no group had others to go on with"),
            groups => info!(groups, "next hops are lost; their groups go on without them"),
        }
    }
}

/// The way to a peer: over the link of the network that it is in, else over any number of hops where that is asked for.
fn path(
    peer: &DesiredPeer,
    kernel: &KernelState,
    settings: BfdSettings,
    own: impl Fn(Family) -> Option<IpAddr>,
) -> Option<BfdPath> {
    let around = |address: &&crate::interfaces::Address| {
        let network = address.addr.network();
        !network.is_host() && network.contains(peer.address)
    };
    // Where several are, the narrowest is the one that routes prefer.
    let near = kernel.addresses.iter().filter(around).max_by_key(|address| address.addr.network().len());
    if let Some(near) = near {
        let local = peer.source_address.unwrap_or(near.addr.addr);
        return Some(BfdPath { remote: peer.address, local, link: Some(near.ifindex.0) });
    }
    let local = peer.source_address.or_else(|| own(peer.family))?;
    settings.multihop.then_some(BfdPath { remote: peer.address, local, link: None })
}
