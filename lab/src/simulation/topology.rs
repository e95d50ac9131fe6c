//! The networks that are simulated, each as Calico's documents draw it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp::{
    Filter, FilterAction, FilterMatch, FilterRule, Input, NextHopMode, OriginatedRoute, PeerConfig,
    PrefixMatch, SpeakerConfig,
};
use model::{AsNumber, Prefix};

use super::network::{Network, NodeId};

/// Calico's own AS.
const CALICO_AS: u32 = 64512;
/// The first of the racks' ASes, of four octets.
const RACK_AS: u32 = 4_200_000_000;
/// The core's.
const CORE_AS: u32 = 4_100_000_000;
/// Route reflectors, or spines of the core.
const ABOVE: usize = 4;
/// Nodes of a rack.
const RACK: usize = 40;
/// Top-of-rack routers of a rack.
const TORS: usize = 2;

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Every node a peer of every other, one AS, one fabric.
    Mesh,
    /// Every node a client of four reflectors, which share a cluster and are peers of each other.
    Reflectors,
    /// An AS per rack: nodes are iBGP clients of their two top-of-rack routers, which are eBGP peers of four spines; only a
    /// default route comes down, and the spines have none.
    Racks,
}

/// A network with all that it takes to start a node again.
pub struct Topology {
    /// The network.
    pub network: Network,
    /// Calico nodes; the others are what joins them.
    pub workers: Vec<NodeId>,
    /// Links that a packet can go round when they are cut.
    pub spare_links: Vec<(NodeId, NodeId)>,
    /// Routes that each worker's table holds in the end.
    pub routes: usize,
    plans: Vec<Plan>,
}

/// What a node is told when its process starts.
struct Plan {
    config: SpeakerConfig,
    own: Vec<Prefix>,
    peers: Vec<(NodeId, PeerConfig)>,
}

impl Topology {
    /// A network of `nodes` Calico nodes.
    pub fn new(shape: Shape, nodes: usize, seed: u64) -> Topology {
        let mut building = Building { network: Network::new(seed), plans: Vec::new(), seed };
        let workers: Vec<NodeId> = (0..nodes)
            .map(|at| {
                let as_number = match shape {
                    Shape::Mesh | Shape::Reflectors => CALICO_AS,
                    Shape::Racks => RACK_AS + (at / RACK) as u32,
                };
                building.add(format!("node{at}"), as_number, vec![block(at)])
            })
            .collect();
        let (spare_links, routes) = match shape {
            Shape::Mesh => (building.mesh(&workers), nodes - 1),
            Shape::Reflectors => (building.reflectors(&workers), nodes - 1),
            Shape::Racks => (building.racks(&workers), 1),
        };
        let Building { network, plans, .. } = building;
        Topology { network, workers, spare_links, routes, plans }
    }

    /// Starts every process.
    pub fn start(&mut self) {
        (0..self.plans.len()).for_each(|node| self.instruct(node));
    }

    /// Starts a process in the place of one that died.
    pub fn restart(&mut self, node: NodeId) {
        self.network.restart(node, self.plans[node].config.clone());
        self.instruct(node);
    }

    fn instruct(&mut self, node: NodeId) {
        let plan = &self.plans[node];
        for (_, peer) in &plan.peers {
            self.network.give(node, Input::PutPeer(peer.clone()));
        }
        for prefix in &plan.own {
            self.network.give(node, Input::Originate(OriginatedRoute::new(*prefix)));
        }
    }

    /// Pairs of nodes with a session between them.
    pub fn sessions(&self) -> usize {
        self.plans.iter().map(|plan| plan.peers.len()).sum::<usize>() / 2
    }
}

struct Building {
    network: Network,
    plans: Vec<Plan>,
    seed: u64,
}

impl Building {
    fn add(&mut self, name: String, as_number: u32, own: Vec<Prefix>) -> NodeId {
        let id = self.plans.len();
        let address = Ipv4Addr::from(0x0a00_0001 + id as u32);
        let mut config = SpeakerConfig::new(address, AsNumber(as_number));
        config.seed = self.seed.wrapping_mul(0x1_0001).wrapping_add(id as u64);
        config.limits.max_peers = 20_000;
        self.plans.push(Plan { config: config.clone(), own: own.clone(), peers: Vec::new() });
        // A default route that a node originates says whom to ask, not that everything is there.
        let own = own.into_iter().filter(|prefix| prefix.len() > 0).collect();
        self.network.add(name, IpAddr::V4(address), own, config)
    }

    /// Joins two nodes; `change` sees each end's configuration, the one at the first node first.
    fn join(&mut self, one: NodeId, other: NodeId, change: impl FnOnce(&mut PeerConfig, &mut PeerConfig)) {
        let as_of = |node: NodeId| self.plans[node].config.local_as.0;
        let [mut at_one, mut at_other] =
            [(other, one), (one, other)].map(|(to, own)| self.peer(to, own, as_of(to)));
        change(&mut at_one, &mut at_other);
        self.plans[one].peers.push((other, at_one));
        self.plans[other].peers.push((one, at_other));
    }

    /// A session as Calico configures it.
    fn peer(&self, to: NodeId, own: NodeId, as_number: u32) -> PeerConfig {
        let mut config = self.network.peer(to, as_number);
        config.add_path = true;
        config.hold_time = Duration::from_secs(240);
        // `passive on` where the peer's address is greater than ours, as text.
        config.passive = config.address.to_string() > self.network.nodes[own].address.to_string();
        config
    }

    fn mesh(&mut self, nodes: &[NodeId]) -> Vec<(NodeId, NodeId)> {
        for (at, &one) in nodes.iter().enumerate() {
            for &other in &nodes[at + 1..] {
                self.join(one, other, |_, _| {});
            }
        }
        Vec::new()
    }

    fn reflectors(&mut self, nodes: &[NodeId]) -> Vec<(NodeId, NodeId)> {
        let cluster = Ipv4Addr::new(1, 0, 0, 1);
        let reflectors: Vec<NodeId> =
            (0..ABOVE).map(|at| self.add(format!("reflector{at}"), CALICO_AS, Vec::new())).collect();
        self.mesh(&reflectors);
        for &node in nodes {
            for &reflector in &reflectors {
                self.join(reflector, node, |client, _| client.reflector_client = Some(cluster));
            }
        }
        // Nothing but sessions goes there.
        nodes.iter().flat_map(|&node| reflectors.iter().map(move |&reflector| (node, reflector))).collect()
    }

    fn racks(&mut self, nodes: &[NodeId]) -> Vec<(NodeId, NodeId)> {
        let default = Prefix::DEFAULT_V4;
        let spines: Vec<NodeId> =
            (0..ABOVE).map(|at| self.add(format!("spine{at}"), CORE_AS, vec![default])).collect();
        // Where only a default route comes down, a spine that has lost one of a rack's routers can't go round the other one's
        // lost link to a node. So a rack loses links of one kind, and all of one router's.
        let mut spare = Vec::new();
        for (number, rack) in nodes.chunks(RACK).enumerate() {
            for which in 0..TORS {
                let tor = self.add(format!("rack{number}-tor{which}"), RACK_AS + number as u32, Vec::new());
                for &spine in &spines {
                    self.join(tor, spine, |up, down| {
                        up.export = but_not(default);
                        down.export = only(default);
                    });
                    spare.extend((number % 2 == 0 && which == 0).then_some((tor, spine)));
                }
                for &node in rack {
                    let cluster = Ipv4Addr::from(0x0100_0000 + number as u32);
                    self.join(tor, node, |down, _| {
                        down.reflector_client = Some(cluster);
                        down.next_hop = NextHopMode::SelfAddress;
                        down.export = only(default);
                    });
                    spare.extend((number % 2 == 1 && which == 0).then_some((tor, node)));
                }
            }
        }
        spare
    }
}

/// The block of a node: a /26 of 172.16.0.0/12.
fn block(at: usize) -> Prefix {
    let address = Ipv4Addr::from(0xac10_0000 + ((at as u32) << 6));
    Prefix::new(address.into(), 26).unwrap_or(Prefix::DEFAULT_V4)
}

fn only(prefix: Prefix) -> Filter {
    Filter { rules: vec![about(prefix, FilterAction::Accept)], default: FilterAction::Reject }
}

fn but_not(prefix: Prefix) -> Filter {
    Filter { rules: vec![about(prefix, FilterAction::Reject)], default: FilterAction::Accept }
}

fn about(prefix: Prefix, action: FilterAction) -> FilterRule {
    let matches = FilterMatch { prefix: Some(PrefixMatch::exactly(prefix)), ..FilterMatch::default() };
    FilterRule { matches, action, operations: Vec::new() }
}

/// Every `one_in`-th of a list, from a place that the seed says.
pub fn some<T: Copy>(of: &[T], one_in: usize, seed: u64) -> Vec<T> {
    of.iter().skip(seed as usize % one_in).step_by(one_in).copied().collect()
}

/// The addresses that packets are sent to: one in each worker's block.
pub fn destinations(topology: &Topology) -> Vec<(NodeId, IpAddr)> {
    let of = |&node: &NodeId| Some((node, topology.network.nodes[node].own.first()?.addr()));
    topology.workers.iter().filter_map(of).collect()
}
