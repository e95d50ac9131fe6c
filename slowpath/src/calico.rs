//! What Calico's resources mean for this node: its blocks, its endpoints, its peers, what it may announce.
//!
//! ```text
//!  datastore ─ Update ─► Calico (the current resources) ── desired() ──► Desired
//! ```
//!
//! Memoryless, after Felix's calculation graph: [`Calico::desired`] depends on the current resources and the
//! node's name alone, never on the order in which updates came. It decides nothing about sockets, routes in use or
//! tables; whoever asks compares two answers and acts on the difference.

mod blocks;
mod excluded;
mod export;
mod felix;
mod peers;
mod router_id;
mod services;
mod tunnels;
mod warning;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use model::{
    AffinityState, AsNumber, BgpConfiguration, BgpFilter, BgpFilterOperator, BgpFilterRule, BgpPeer,
    BlockAffinity, ClusterInformation, Family, FelixConfiguration, HostEndpoint, IpPool, IpamBlock, Key,
    Node, NodeStatusRequest, PeerTarget, Prefix, PrefixAdvertisement, Resource, Update, WorkloadEndpoint,
};

pub use excluded::Excluded;
use export::Exported;
pub use export::{ExportAction, ExportReach, ExportRule, ExportRules};
pub use felix::Felix;
pub use peers::{DesiredPeer, NextHop, PeerKind, PeerName};
pub use router_id::RouterId;
pub use services::Services;
pub use tunnels::Tunnels;
pub use warning::Warning;

use crate::peer_groups::{Aggregate, Redistribute};

/// BGP's port, where no BGPConfiguration says otherwise.
const BGP_PORT: u16 = 179;
/// The kernel metric that Calico gives routes of normal priority.
const NORMAL_PRIORITY: u32 = 1024;
/// The BGPConfiguration and the FelixConfiguration that hold for the whole cluster.
const CLUSTER_CONFIGURATION: &str = "default";

/// The current resources, seen from one node.
#[derive(Clone, Debug)]
pub struct Calico {
    node_name: String,
    router_id: RouterId,
    nodes: BTreeMap<String, Node>,
    pools: BTreeMap<String, IpPool>,
    /// Those that run here; there may be a thousand times as many elsewhere.
    endpoints: BTreeMap<EndpointName, WorkloadEndpoint>,
    configurations: BTreeMap<String, BgpConfiguration>,
    peers: BTreeMap<String, BgpPeer>,
    filters: BTreeMap<String, BgpFilter>,
    blocks: BTreeMap<(Prefix, String), BlockAffinity>,
    ipam_blocks: BTreeMap<Prefix, IpamBlock>,
    cluster_information: Option<ClusterInformation>,
    felix: BTreeMap<String, FelixConfiguration>,
    /// The labels that profiles give, by profile: BGPPeers select workloads by them too.
    profile_labels: BTreeMap<String, BTreeMap<String, String>>,
    host_endpoints: BTreeMap<String, HostEndpoint>,
    /// What this node is asked to tell of itself.
    status_requests: BTreeMap<String, NodeStatusRequest>,
}

/// Namespace and name of a workload endpoint.
pub type EndpointName = (String, String);

/// What this node should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// This node's own resource, unless it is missing.
    pub node: Option<Node>,
    /// Our AS: the node's, else the cluster's, else 64512.
    pub as_number: AsNumber,
    /// BGP identifier: the node's IPv4 address, unless another is asked for. None: the node has none, and can't speak BGP.
    pub router_id: Option<Ipv4Addr>,
    /// TCP port to listen on for BGP.
    pub listen_port: u16,
    /// Listen on the node's own addresses only, rather than on all.
    pub listen_on_node_address: bool,
    /// The kernel metrics that stand for a route of normal priority: IPv4's and IPv6's.
    pub normal_priority: [u32; 2],
    /// Networks of services.
    pub services: Services,
    /// Our confirmed blocks: announced as they are.
    pub blocks: BTreeSet<Prefix>,
    /// Blocks to discard within where no more specific route is: all but /32s and /128s.
    pub blackholes: BTreeSet<Prefix>,
    /// The workloads that run here.
    pub endpoints: BTreeMap<EndpointName, WorkloadEndpoint>,
    /// This node's host endpoints, by name.
    pub host_endpoints: BTreeMap<String, HostEndpoint>,
    /// The sessions to keep, no two with the same address and port.
    pub peers: BTreeMap<PeerName, DesiredPeer>,
    /// What any peer may be told, behind what the peer's own rules say.
    pub export: ExportRules,
    /// Peers are told all that is known, whatever `export` says.
    pub announce_all: bool,
    /// Networks announced besides blocks and services.
    pub networks: BTreeSet<Prefix>,
    /// Routes of the box's own announced besides, and whence they are.
    pub redistributed: BTreeMap<Prefix, Redistribute>,
    /// Others of the box's own, and their interfaces: a pool or a BGPFilter says whether they are announced, and to whom.
    pub own_routes: BTreeMap<Prefix, String>,
    /// The rules of BGPFilters that say of which of the box's own routes peers are told.
    pub naming_rules: Vec<BgpFilterRule>,
    /// Interfaces whose networks aren't announced, besides Calico's own; `*` stands for any characters.
    pub ignored_interfaces: Vec<String>,
    /// Networks announced as there is a route inside each.
    pub aggregates: Vec<Aggregate>,
    /// The pools that count, by name: who encapsulates and translates asks them.
    pub pools: BTreeMap<String, IpPool>,
    /// The addresses of all nodes: those in their Node resources.
    pub node_addresses: BTreeSet<IpAddr>,
    /// The dataplane's settings, with their defaults.
    pub felix: Felix,
    /// What is encapsulated, how, and what is opened here.
    pub tunnels: Tunnels,
    /// What an operator should know: nothing of it stops us.
    pub warnings: Vec<Warning>,
}

impl Desired {
    /// The node's own address of a family: the one in its Node resource.
    pub fn node_address(&self, family: Family) -> Option<IpAddr> {
        let node = self.node.as_ref()?;
        let address = match family {
            Family::V4 => node.ipv4,
            Family::V6 => node.ipv6,
        };
        address.map(|address| address.addr)
    }

    /// The kernel metric of a family's routes of normal priority.
    pub fn normal_priority(&self, family: Family) -> u32 {
        self.normal_priority[family as usize]
    }
}

impl Calico {
    /// A node's view of no resources at all.
    pub fn new(node_name: impl Into<String>) -> Calico {
        Calico {
            node_name: node_name.into(),
            router_id: RouterId::default(),
            nodes: BTreeMap::new(),
            pools: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            configurations: BTreeMap::new(),
            peers: BTreeMap::new(),
            filters: BTreeMap::new(),
            blocks: BTreeMap::new(),
            ipam_blocks: BTreeMap::new(),
            cluster_information: None,
            felix: BTreeMap::new(),
            profile_labels: BTreeMap::new(),
            host_endpoints: BTreeMap::new(),
            status_requests: BTreeMap::new(),
        }
    }

    /// What this node is asked to tell of itself.
    pub(crate) fn status_requests(&self) -> impl Iterator<Item = &NodeStatusRequest> {
        self.status_requests.values()
    }

    /// Does any BGPPeer select workloads?
    fn selects_workloads(&self) -> bool {
        self.peers.values().any(|peer| matches!(peer.target, PeerTarget::LocalWorkloads(_)))
    }

    /// An endpoint's labels: its own, and what its profiles give where it doesn't say otherwise. Of two profiles the one named
    /// first counts.
    fn labels_of(&self, endpoint: &WorkloadEndpoint) -> BTreeMap<String, String> {
        let mut labels = endpoint.labels.clone();
        for (label, value) in
            endpoint.profiles.iter().filter_map(|name| self.profile_labels.get(name)).flatten()
        {
            labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
        labels
    }

    /// May a change, once it is taken, change what is desired? What is about workloads elsewhere or about policy alone doesn't.
    pub fn concerns(&self, update: &Update) -> bool {
        let is_here = |namespace: &String, name: &String| {
            self.endpoints.contains_key(&(namespace.clone(), name.clone()))
        };
        match update {
            Update::InSync => true,
            Update::Put(resource) => match &**resource {
                Resource::WorkloadEndpoint(endpoint) => {
                    endpoint.node == self.node_name || is_here(&endpoint.namespace, &endpoint.name)
                }
                Resource::Tier(_)
                | Resource::NetworkPolicy(_)
                | Resource::NetworkSet(_)
                | Resource::NodeStatus(_) => false,
                Resource::Profile(_) => self.selects_workloads(),
                _ => true,
            },
            Update::Remove(key) => match key {
                Key::WorkloadEndpoint(namespace, name) => is_here(namespace, name),
                Key::Tier(_) | Key::NetworkPolicy(_) | Key::NetworkSet(..) | Key::NodeStatus(_) => false,
                Key::Profile(_) => self.selects_workloads(),
                _ => true,
            },
        }
    }

    /// Takes one change. `InSync` changes nothing: whether the view is complete is for the caller to remember.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::Put(resource) => self.put(resource),
            Update::Remove(key) => self.remove(key),
            Update::InSync => {}
        }
    }

    fn put(&mut self, resource: &Resource) {
        match resource {
            Resource::Node(node) => drop(self.nodes.insert(node.name.clone(), node.clone())),
            Resource::IpPool(pool) => drop(self.pools.insert(pool.name.clone(), pool.clone())),
            Resource::WorkloadEndpoint(endpoint) => {
                let name = (endpoint.namespace.clone(), endpoint.name.clone());
                if endpoint.node == self.node_name {
                    self.endpoints.insert(name, endpoint.clone());
                } else {
                    // It may have been here.
                    self.endpoints.remove(&name);
                }
            }
            Resource::BgpConfiguration(configuration) => {
                self.configurations.insert(configuration.name.clone(), configuration.clone());
            }
            Resource::BgpPeer(peer) => drop(self.peers.insert(peer.name.clone(), peer.clone())),
            Resource::BgpFilter(filter) => drop(self.filters.insert(filter.name.clone(), filter.clone())),
            Resource::BlockAffinity(block) => {
                self.blocks.insert((block.cidr, block.node.clone()), block.clone());
            }
            Resource::IpamBlock(block) => drop(self.ipam_blocks.insert(block.cidr, block.clone())),
            Resource::ClusterInformation(cluster) => self.cluster_information = Some(cluster.clone()),
            Resource::FelixConfiguration(config) => {
                drop(self.felix.insert(config.name.clone(), config.clone()))
            }
            Resource::HostEndpoint(endpoint) => {
                self.host_endpoints.insert(endpoint.name.clone(), endpoint.clone());
            }
            Resource::NodeStatus(request) if request.node == self.node_name => {
                self.status_requests.insert(request.name.clone(), request.clone());
            }
            Resource::NodeStatus(request) => drop(self.status_requests.remove(&request.name)),
            Resource::Profile(profile) if profile.labels_to_apply.is_empty() => {
                drop(self.profile_labels.remove(&profile.name));
            }
            Resource::Profile(profile) => {
                drop(self.profile_labels.insert(profile.name.clone(), profile.labels_to_apply.clone()));
            }
            // Policy isn't made of what routes are made of.
            Resource::Tier(_) | Resource::NetworkPolicy(_) | Resource::NetworkSet(_) => {}
        }
    }

    fn remove(&mut self, key: &Key) {
        match key {
            Key::Node(name) => drop(self.nodes.remove(name)),
            Key::IpPool(name) => drop(self.pools.remove(name)),
            Key::WorkloadEndpoint(namespace, name) => {
                self.endpoints.remove(&(namespace.clone(), name.clone()));
            }
            Key::BgpConfiguration(name) => drop(self.configurations.remove(name)),
            Key::BgpPeer(name) => drop(self.peers.remove(name)),
            Key::BgpFilter(name) => drop(self.filters.remove(name)),
            Key::BlockAffinity(cidr, node) => drop(self.blocks.remove(&(*cidr, node.clone()))),
            Key::IpamBlock(cidr) => drop(self.ipam_blocks.remove(cidr)),
            Key::ClusterInformation(_) => self.cluster_information = None,
            Key::FelixConfiguration(name) => drop(self.felix.remove(name)),
            Key::HostEndpoint(name) => drop(self.host_endpoints.remove(name)),
            Key::NodeStatus(name) => drop(self.status_requests.remove(name)),
            Key::Profile(name) => drop(self.profile_labels.remove(name)),
            Key::Tier(_) | Key::NetworkPolicy(_) | Key::NetworkSet(..) => {}
        }
    }

    /// The same, with its BGP identifier from there.
    pub fn with_router_id(self, router_id: RouterId) -> Calico {
        Calico { router_id, ..self }
    }

    /// This node's own FelixConfiguration, the oldest of those that select it, and the cluster's (`MergeSelectorConfigs` in
    /// `felix/calc/config_batcher.go`).
    fn felix_configurations(
        &self,
        node: Option<&Node>,
        warnings: &mut Vec<Warning>,
    ) -> Vec<&FelixConfiguration> {
        let by_selector = |config: &&FelixConfiguration| {
            config.name != CLUSTER_CONFIGURATION && !config.name.starts_with("node.")
        };
        let selects = |config: &&FelixConfiguration| {
            node.zip(config.node_selector.as_ref()).is_some_and(|(node, text)| peers::is_selected(text, node))
        };
        let mut selecting: Vec<_> = self.felix.values().filter(by_selector).filter(selects).collect();
        selecting.sort_by_key(|config| (config.created, &config.name));
        if let [used, left_out, ..] = &selecting[..] {
            let (used, left_out) = (used.name.clone(), left_out.name.clone());
            warnings.push(Warning::ConfigurationsContend { used, left_out });
        }
        let own = self.felix.get(&format!("node.{}", self.node_name));
        let selecting = selecting.into_iter().next();
        own.into_iter().chain(selecting).chain(self.felix.get(CLUSTER_CONFIGURATION)).collect()
    }

    /// Do endpoints count that ask to send under addresses of others (`workloadSourceSpoofing`)?
    pub(crate) fn allows_spoofing(&self) -> bool {
        let node = self.nodes.get(&self.node_name);
        Felix::of(&self.felix_configurations(node, &mut Vec::new())).workload_source_spoofing
    }

    /// What the current resources ask of this node.
    pub fn desired(&self) -> Desired {
        let mut warnings = Vec::new();
        let node = self.nodes.get(&self.node_name);
        self.warn_of_own_node(node, &mut warnings);
        let mut felix = Felix::of(&self.felix_configurations(node, &mut warnings));
        felix.openstack |= self.cluster_information.as_ref().is_some_and(ClusterInformation::is_openstack);
        let blocks = self.own_blocks(&mut warnings);
        let pools = self.pools();
        self.warn_of_left_out_pools(&pools, &mut warnings);
        let services = Services::of(self.cluster(), node);
        let export = ExportRules::of(Exported {
            blocks: &blocks,
            services: services.exported(node),
            pools: pools.clone(),
            advertisements: self.prefix_advertisements(),
        });
        let cluster = self.cluster();
        let peers = node.map(|node| peers::desired(self, node, &mut warnings)).unwrap_or_default();
        let mut tunnels = tunnels::desired(self, node, &felix, &mut warnings);
        if peers.values().any(|peer| peer.kind == PeerKind::LocalWorkload) {
            tunnels.addresses.extend(cluster.into_iter().flat_map(local_workload_peering));
        }
        let priority = |of: fn(&BgpConfiguration) -> Option<u32>| cluster.and_then(of);
        Desired {
            as_number: node.map_or_else(|| self.cluster_as(), |node| self.as_number_of(node)),
            router_id: node.and_then(|node| self.router_id.of(node)),
            listen_port: self.listen_port_of(&self.node_name),
            blackholes: blocks.iter().copied().filter(|block| !block.is_host()).collect(),
            endpoints: self.own_endpoints(&mut warnings),
            host_endpoints: (self.host_endpoints.iter())
                .filter(|(_, endpoint)| endpoint.node == self.node_name)
                .map(|(name, endpoint)| (name.clone(), endpoint.clone()))
                .collect(),
            peers,
            listen_on_node_address: cluster.is_some_and(|cluster| cluster.bind_to_node_address),
            normal_priority: [
                priority(|cluster| cluster.normal_route_priority_v4).unwrap_or(NORMAL_PRIORITY),
                priority(|cluster| cluster.normal_route_priority_v6).unwrap_or(NORMAL_PRIORITY),
            ],
            services,
            export,
            announce_all: false,
            networks: BTreeSet::new(),
            redistributed: BTreeMap::new(),
            own_routes: BTreeMap::new(),
            naming_rules: self.naming_rules(),
            ignored_interfaces: cluster.map(|cluster| cluster.ignored_interfaces.clone()).unwrap_or_default(),
            aggregates: Vec::new(),
            pools: pools.into_iter().map(|pool| (pool.name.clone(), pool.clone())).collect(),
            node_addresses: (self.nodes.values())
                .flat_map(|node| [node.ipv4, node.ipv6])
                .flatten()
                .map(|address| address.addr)
                .collect(),
            tunnels,
            felix,
            node: node.cloned(),
            blocks,
            warnings,
        }
    }

    /// The pools that count: of those with the same CIDR the one whose name is first, as in Calico.
    fn pools(&self) -> Vec<&IpPool> {
        let mut taken = BTreeSet::new();
        self.pools.values().filter(|pool| taken.insert(pool.cidr)).collect()
    }

    fn warn_of_left_out_pools(&self, counting: &[&IpPool], warnings: &mut Vec<Warning>) {
        for pool in self.pools.values() {
            let Some(used) = counting.iter().find(|used| used.cidr == pool.cidr) else { continue };
            if used.name != pool.name {
                let (used, left_out) = (used.name.clone(), pool.name.clone());
                warnings.push(Warning::PoolTwice { cidr: pool.cidr, used, left_out });
            }
        }
    }

    fn warn_of_own_node(&self, node: Option<&Node>, warnings: &mut Vec<Warning>) {
        let Some(node) = node else {
            warnings.push(Warning::NodeMissing { node: self.node_name.clone() });
            return;
        };
        if self.router_id.of(node).is_none() {
            warnings.push(Warning::NoRouterId { node: node.name.clone() });
        }
        for address in [node.ipv4, node.ipv6].into_iter().flatten() {
            if address.network().is_host() {
                warnings.push(Warning::NodeAddressWithoutSubnet { node: node.name.clone(), address });
            }
        }
    }

    /// Blocks whose affinity is confirmed. One that several nodes claim is nobody's until they agree.
    fn own_blocks(&self, warnings: &mut Vec<Warning>) -> BTreeSet<Prefix> {
        let confirmed = |block: &&BlockAffinity| block.state == AffinityState::Confirmed;
        let mut own = BTreeSet::new();
        for block in self.blocks.values().filter(confirmed).filter(|block| block.node == self.node_name) {
            let other = self
                .blocks
                .range((block.cidr, String::new())..)
                .map(|(_, other)| other)
                .take_while(|other| other.cidr == block.cidr)
                .filter(confirmed)
                .find(|other| other.node != self.node_name);
            if let Some(other) = other {
                warnings.push(Warning::BlockClaimedTwice { block: block.cidr, other: other.node.clone() });
            }
            own.insert(block.cidr);
        }
        own
    }

    /// Of endpoints with the same interface the one named first counts, as Felix has it: an interface leads to
    /// one workload.
    fn own_endpoints(&self, warnings: &mut Vec<Warning>) -> BTreeMap<EndpointName, WorkloadEndpoint> {
        let mut holders: BTreeMap<&str, &EndpointName> = BTreeMap::new();
        let mut own = BTreeMap::new();
        for (name, endpoint) in &self.endpoints {
            if let Some(holder) = holders.get(endpoint.interface.as_str()) {
                warnings.push(Warning::InterfaceShared {
                    interface: endpoint.interface.clone(),
                    used: (*holder).clone(),
                    left_out: name.clone(),
                });
                continue;
            }
            holders.insert(&endpoint.interface, name);
            own.insert(name.clone(), endpoint.clone());
        }
        own
    }

    fn cluster(&self) -> Option<&BgpConfiguration> {
        self.configurations.get(CLUSTER_CONFIGURATION)
    }

    /// A node's own, whole, else the cluster's.
    fn prefix_advertisements(&self) -> Vec<PrefixAdvertisement> {
        let own = self.configurations.get(&format!("node.{}", self.node_name));
        let of = |configuration: &BgpConfiguration| configuration.prefix_advertisements.clone();
        own.and_then(of).or_else(|| self.cluster().and_then(of)).unwrap_or_default()
    }

    /// A rule that accepts everything, or all but something, names nothing.
    fn naming_rules(&self) -> Vec<BgpFilterRule> {
        let lists = self.filters.values().flat_map(|filter| [&filter.export_v4, &filter.export_v6]);
        let names = |rule: &&BgpFilterRule| {
            use BgpFilterOperator::{Equal, In};
            let by_cidr = rule.cidr.as_ref().map(|cidr| matches!(cidr.operator, In | Equal));
            rule.accept && !rule.from_peers && by_cidr.unwrap_or(rule.interface.is_some())
        };
        lists.flatten().filter(names).cloned().collect()
    }

    fn cluster_as(&self) -> AsNumber {
        self.cluster().and_then(|cluster| cluster.as_number).unwrap_or(AsNumber::CALICO_DEFAULT)
    }

    fn as_number_of(&self, node: &Node) -> AsNumber {
        node.as_number.unwrap_or_else(|| self.cluster_as())
    }

    /// A node's own setting, else the cluster's, else 179.
    fn listen_port_of(&self, node: &str) -> u16 {
        let own = self.configurations.get(&format!("node.{node}"));
        own.and_then(|own| own.listen_port)
            .or_else(|| self.cluster().and_then(|cluster| cluster.listen_port))
            .unwrap_or(BGP_PORT)
    }
}

/// Where local workloads find the node's speaker.
fn local_workload_peering(cluster: &BgpConfiguration) -> impl Iterator<Item = IpAddr> {
    let v4 = cluster.local_workload_peering_v4.map(IpAddr::V4);
    v4.into_iter().chain(cluster.local_workload_peering_v6.map(IpAddr::V6))
}

fn address_of(node: &Node, family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => node.ipv4,
        Family::V6 => node.ipv6,
    }
    .map(|address| address.addr)
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
