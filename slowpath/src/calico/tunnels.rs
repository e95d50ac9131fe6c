//! Tunnels: which packets to other nodes' workloads are encapsulated, and how.
//!
//! Routes to other nodes' workloads come from the datastore, where blocks name their nodes, and addresses in them the nodes
//! that have borrowed them (`blocks.rs`), or from BGP; those of IPIP whose next hop is a node lead to it through a tunnel.
//! Into pools of VXLAN they are always the datastore's, and BGP's are left out. Whose they are into other pools, both
//! configurations say (`programClusterRoutes`): FelixConfiguration of the datastore's, BGPConfiguration of BGP's
//! (`felix/dataplane/linux/ipip_mgr.go`, `noencap_mgr.go`; the kernel filter of
//! `confd/pkg/backends/calico/bgp_processor.go`). Where both have a pool's, the datastore's are preferred.
//! `CrossSubnet` means plainly within the subnet of this node's address, `felix/calc/l3_route_resolver.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::{ClusterRoutes, EncapMode, Family, InterfaceAddr, IpPool, MacAddr, Node, Prefix};
use sha1::{Digest, Sha1};
use tables::{TunnelEnd, TunnelKind};

use super::blocks::Blocks;
use super::{Calico, Felix, Warning, address_of};
use crate::target::{Gateway, Target};
use crate::tunnel::{Encapsulation, Tunnel};

/// What pools, nodes and settings make of tunnels on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tunnels {
    /// What becomes of BGP's routes into pools that aren't plain.
    pools: BTreeMap<Prefix, FromBgp>,
    /// The other nodes, by their IPv4 addresses, as BGP's next hops name them.
    nodes: BTreeMap<IpAddr, IpipNode>,
    /// Routes from the datastore: blocks and VTEPs of other nodes in pools of VXLAN.
    pub routes: BTreeMap<Prefix, Gateway>,
    /// The same in pools of IPIP and in plain ones, where they are the datastore's.
    pub routes_without_vxlan: BTreeMap<Prefix, Gateway>,
    /// Tunnels that end here.
    pub ends: Vec<TunnelEnd>,
    /// This node's own addresses in the tunnels' networks: what it sends from into tunnels, and is reached at by them. Also
    /// the address at which local workloads find the node's speaker.
    pub addresses: BTreeSet<IpAddr>,
}

/// What becomes of BGP's routes into a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FromBgp {
    /// They lead through IPIP, in this mode.
    Ipip(EncapMode),
    /// They are left out: the datastore's count.
    LeftOut,
}

/// Another node, as IPIP sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IpipNode {
    in_our_subnet: bool,
    /// `None` where IPIP is switched off.
    tunnel: Option<Tunnel>,
}

impl Tunnels {
    /// Where BGP's route to a prefix leads, given its next hops, each with its weight; `None` where it is left out, or would lead through a
    /// tunnel that is switched off.
    pub fn bgp_target(
        &self,
        prefix: Prefix,
        nexthops: impl IntoIterator<Item = (IpAddr, u8)>,
    ) -> Option<Target> {
        let mode = match self.treatment(prefix) {
            None => EncapMode::Never,
            Some(FromBgp::Ipip(mode)) => mode,
            Some(FromBgp::LeftOut) => return None,
        };
        let gateway = |(nexthop, weight)| {
            let gateway = match self.nodes.get(&nexthop) {
                Some(node) if is_encapsulated(mode, node.in_our_subnet) => node.tunnel.map(Gateway::behind),
                // In no mode is a router that isn't a node the end of a tunnel.
                _ => Some(Gateway::at(nexthop)),
            };
            Some(gateway?.weighing(weight))
        };
        Target::via(nexthops.into_iter().map(gateway).collect::<Option<_>>()?)
    }

    /// All of the datastore's routes to other nodes' workloads.
    pub fn cluster_routes(&self) -> impl Iterator<Item = (&Prefix, &Gateway)> {
        self.routes.iter().chain(&self.routes_without_vxlan)
    }

    fn treatment(&self, prefix: Prefix) -> Option<FromBgp> {
        // What covers a prefix sorts before it, the longest last.
        let mut before = self.pools.range(..=prefix).rev();
        before.find(|(pool, _)| pool.covers(prefix)).map(|(_, from_bgp)| *from_bgp)
    }
}

fn is_encapsulated(mode: EncapMode, in_our_subnet: bool) -> bool {
    match mode {
        EncapMode::Never => false,
        EncapMode::Always => true,
        EncapMode::CrossSubnet => !in_our_subnet,
    }
}

/// What the current resources ask of this node's tunnels.
pub(super) fn desired(
    calico: &Calico,
    own: Option<&Node>,
    felix: &Felix,
    warnings: &mut Vec<Warning>,
) -> Tunnels {
    let Some(own) = own else { return Tunnels::default() };
    let cluster_routes = calico.cluster().and_then(|cluster| cluster.cluster_routes);
    let by_bgp = cluster_routes.unwrap_or(EVERY_CLUSTER_ROUTE);
    let view = View { calico, own, felix, by_bgp, pools: calico.pools(), blocks: Blocks::of(calico) };
    let mut tunnels = Tunnels { pools: view.treatments(), ..Tunnels::default() };
    view.ipip(&mut tunnels, warnings);
    for family in Family::ALL {
        view.vxlan(family, &mut tunnels, warnings);
        view.plain(family, &mut tunnels);
    }
    view.warn_of_pools_without_routes(warnings);
    tunnels
}

/// What BGP has where BGPConfiguration doesn't say. Calico's default is `EnabledNoEncapOnly`, beside Felix's
/// `EnabledIPIPOnly`; here BGP's routes into pools of IPIP count for what the datastore knows no block of, so that a site
/// whose nodes don't know each other's blocks has its routes.
const EVERY_CLUSTER_ROUTE: ClusterRoutes = ClusterRoutes { ipip: true, no_encap: true };

/// The resources, seen from this node.
struct View<'a> {
    calico: &'a Calico,
    own: &'a Node,
    felix: &'a Felix,
    /// For which pools, besides those of VXLAN, BGP has the routes to other nodes' workloads.
    by_bgp: ClusterRoutes,
    pools: Vec<&'a IpPool>,
    blocks: Blocks<'a>,
}

impl<'a> View<'a> {
    fn others(&self) -> impl Iterator<Item = &'a Node> {
        let own = &self.own.name;
        self.calico.nodes.values().filter(move |node| node.name != *own)
    }

    fn treatments(&self) -> BTreeMap<Prefix, FromBgp> {
        let from_bgp = |pool: &IpPool| match kind(pool) {
            PoolKind::Plain if self.by_bgp.no_encap => None,
            PoolKind::Ipip if self.by_bgp.ipip => Some((pool.cidr, FromBgp::Ipip(pool.ipip_mode))),
            _ => Some((pool.cidr, FromBgp::LeftOut)),
        };
        self.pools.iter().copied().filter_map(from_bgp).collect()
    }

    /// An operator who has taken a pool's routes from one and not given them to the other has none.
    fn warn_of_pools_without_routes(&self, warnings: &mut Vec<Warning>) {
        let ours = self.felix.cluster_routes;
        let without = self.pools.iter().copied().filter(|pool| match kind(pool) {
            PoolKind::Vxlan => false,
            PoolKind::Ipip => !ours.ipip && !self.by_bgp.ipip,
            PoolKind::Plain => !ours.no_encap && !self.by_bgp.no_encap,
        });
        warnings.extend(without.map(|pool| Warning::PoolWithoutRoutes { pool: pool.name.clone() }));
    }

    fn in_our_subnet(&self, addr: IpAddr) -> bool {
        own_address(self.own, Family::of(addr)).is_some_and(|own| own.network().contains(addr))
    }

    /// Everybody who may send tunnel packets here over a family.
    fn remotes(&self, family: Family) -> impl Iterator<Item = Prefix> {
        let nodes = self.others().filter_map(move |node| address_of(node, family)).map(Prefix::host);
        nodes.chain(self.felix.external_nodes.iter().copied().filter(move |prefix| prefix.family() == family))
    }

    fn end(&self, local: IpAddr, kind: TunnelKind) -> TunnelEnd {
        TunnelEnd::new(local, kind, self.remotes(Family::of(local)))
    }

    fn ipip(&self, tunnels: &mut Tunnels, warnings: &mut Vec<Warning>) {
        let asking: Vec<&IpPool> =
            self.pools.iter().copied().filter(|pool| pool.ipip_mode != EncapMode::Never).collect();
        let is_on = self.felix.ipip_enabled.unwrap_or(!asking.is_empty());
        let local = address_of(self.own, Family::V4).filter(|_| is_on);
        if !is_on {
            let off =
                |pool: &&IpPool| Warning::TunnelsSwitchedOff { pool: pool.name.clone(), by: "ipipEnabled" };
            warnings.extend(asking.iter().map(off));
        }
        let source = self.own.ipip_tunnel_addr.map(IpAddr::V4);
        for node in self.others() {
            let Some(remote) = address_of(node, Family::V4) else { continue };
            let tunnel = local.map(|local| Tunnel {
                local,
                remote,
                encapsulation: Encapsulation::Ipip,
                mtu: self.felix.ipip_mtu,
                source,
            });
            tunnels.nodes.insert(remote, IpipNode { in_our_subnet: self.in_our_subnet(remote), tunnel });
        }
        let Some(local) = local else { return };
        if self.felix.cluster_routes.ipip {
            let pools: Vec<&IpPool> =
                asking.into_iter().filter(|pool| kind(pool) == PoolKind::Ipip).collect();
            for node in self.others() {
                let Some(remote) = address_of(node, Family::V4) else { continue };
                let tunnel = tunnels.nodes.get(&remote).and_then(|node| node.tunnel);
                let end = node.ipip_tunnel_addr.map(IpAddr::V4);
                let to = Remote { node, addr: remote, tunnel, end };
                self.route_to(&to, &pools, |pool| pool.ipip_mode, &mut tunnels.routes_without_vxlan);
            }
        }
        tunnels.ends.push(self.end(local, TunnelKind::Ipip));
        tunnels.addresses.extend(source);
        if source.is_none() {
            let field = "bgp.ipv4IPIPTunnelAddr";
            warnings.push(Warning::TunnelAddressMissing { node: self.own.name.clone(), field });
        }
    }

    fn vxlan(&self, family: Family, tunnels: &mut Tunnels, warnings: &mut Vec<Warning>) {
        let pools = self.pools.iter().copied().filter(|pool| pool.cidr.family() == family);
        let asking: Vec<&IpPool> = pools.filter(|pool| pool.vxlan_mode != EncapMode::Never).collect();
        // As in Felix, the setting is IPv4's; IPv6 is the pools' alone (`felix/calc/encapsulation_calculator.go`).
        let asked = !asking.is_empty();
        let is_on = match family {
            Family::V4 => self.felix.vxlan_enabled.unwrap_or(asked),
            Family::V6 => asked,
        };
        if !is_on {
            let off =
                |pool: &&IpPool| Warning::TunnelsSwitchedOff { pool: pool.name.clone(), by: "vxlanEnabled" };
            warnings.extend(asking.iter().map(off));
            return;
        }
        let Some(local) = address_of(self.own, family) else {
            warnings.push(Warning::NoTunnelsWithoutAddress { node: self.own.name.clone(), family });
            return;
        };
        let Felix { vxlan_port: port, vxlan_vni: vni, .. } = *self.felix;
        let own = Vtep::of(self.own, family);
        tunnels.ends.push(self.end(local, TunnelKind::Vxlan { port, vni, mac: own.mac }));
        match own.addr {
            Some(addr) => drop(tunnels.addresses.insert(addr)),
            None => {
                let field = Vtep::field(family);
                warnings.push(Warning::TunnelAddressMissing { node: self.own.name.clone(), field });
            }
        }
        let mut without_vtep = BTreeSet::new();
        for node in self.others() {
            let Some(remote) = address_of(node, family) else { continue };
            let vtep = Vtep::of(node, family);
            let tunnel = vtep.addr.map(|_| {
                let mtu = match family {
                    Family::V4 => self.felix.vxlan_mtu,
                    Family::V6 => self.felix.vxlan_mtu_v6,
                };
                let encapsulation = Encapsulation::Vxlan { port, vni, destination: vtep.mac, own: own.mac };
                Tunnel { local, remote, encapsulation, mtu, source: own.addr }
            });
            let to = Remote { node, addr: remote, tunnel, end: vtep.addr };
            if !self.route_to(&to, &asking, |pool| pool.vxlan_mode, &mut tunnels.routes) {
                without_vtep.insert(node.name.clone());
            }
        }
        let field = Vtep::field(family);
        warnings.extend(without_vtep.into_iter().map(|node| Warning::TunnelAddressMissing { node, field }));
    }

    /// Plain pools, where their routes are the datastore's: to the nodes that need no router in between, as Felix has no
    /// other (`noEncapRoute` in `felix/dataplane/linux/route_mgr.go`).
    fn plain(&self, family: Family, tunnels: &mut Tunnels) {
        if !self.felix.cluster_routes.no_encap {
            return;
        }
        let pools = self.pools.iter().copied().filter(|pool| pool.cidr.family() == family);
        let pools: Vec<&IpPool> = pools.filter(|pool| kind(pool) == PoolKind::Plain).collect();
        for node in self.others() {
            let Some(remote) = address_of(node, family).filter(|addr| self.in_our_subnet(*addr)) else {
                continue;
            };
            let to = Remote { node, addr: remote, tunnel: None, end: None };
            self.route_to(&to, &pools, |_| EncapMode::Never, &mut tunnels.routes_without_vxlan);
        }
    }

    /// Routes to what a node has of these pools. Says whether it has all: a tunnel that it takes may be missing.
    fn route_to(
        &self,
        to: &Remote<'_>,
        pools: &[&IpPool],
        mode: impl Fn(&IpPool) -> EncapMode,
        routes: &mut BTreeMap<Prefix, Gateway>,
    ) -> bool {
        let of_family = |prefix: &Prefix| prefix.family() == Family::of(to.addr);
        let blocks: Vec<Prefix> = self.blocks.owned(&to.node.name).filter(of_family).collect();
        let borrowed = self.blocks.borrowed(&to.node.name).filter(of_family);
        let mut has_all = true;
        for prefix in blocks.iter().copied().chain(borrowed) {
            let Some(pool) = pool_of(pools, prefix) else { continue };
            if !is_encapsulated(mode(pool), self.in_our_subnet(to.addr)) {
                routes.entry(prefix).or_insert(Gateway::at(to.addr));
            } else if let Some(tunnel) = to.tunnel {
                routes.entry(prefix).or_insert(Gateway::behind(tunnel));
            } else {
                has_all = false;
            }
        }
        // A tunnel's address is one of the node's own block, unless it was borrowed from another.
        if let Some((addr, tunnel)) = to.end.zip(to.tunnel)
            && !blocks.iter().any(|block| block.contains(addr))
            && pool_of(pools, Prefix::host(addr)).is_some()
        {
            routes.insert(Prefix::host(addr), Gateway::behind(tunnel));
        }
        has_all
    }
}

/// Another node, as one encapsulation reaches it.
struct Remote<'a> {
    node: &'a Node,
    addr: IpAddr,
    /// The tunnel to it, where there is one.
    tunnel: Option<Tunnel>,
    /// Its address in the tunnels' network.
    end: Option<IpAddr>,
}

/// How a pool's packets go between nodes, wherever these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PoolKind {
    Plain,
    Ipip,
    Vxlan,
}

fn kind(pool: &IpPool) -> PoolKind {
    match (pool.vxlan_mode, pool.ipip_mode) {
        (EncapMode::Never, EncapMode::Never) => PoolKind::Plain,
        (EncapMode::Never, _) => PoolKind::Ipip,
        _ => PoolKind::Vxlan,
    }
}

fn own_address(node: &Node, family: Family) -> Option<InterfaceAddr> {
    match family {
        Family::V4 => node.ipv4,
        Family::V6 => node.ipv6,
    }
}

/// The longest of these pools that covers a prefix.
fn pool_of<'a>(pools: &[&'a IpPool], prefix: Prefix) -> Option<&'a IpPool> {
    let covering = pools.iter().filter(|pool| pool.cidr.covers(prefix));
    covering.max_by_key(|pool| pool.cidr.len()).copied()
}

/// A node's end of VXLAN, as the others see it.
struct Vtep {
    addr: Option<IpAddr>,
    mac: MacAddr,
}

impl Vtep {
    fn of(node: &Node, family: Family) -> Vtep {
        match family {
            Family::V4 => Vtep {
                addr: node.vxlan_tunnel_addr.map(IpAddr::V4),
                mac: node.vxlan_tunnel_mac.unwrap_or_else(|| vtep_mac(&node.name)),
            },
            Family::V6 => Vtep {
                addr: node.vxlan_tunnel_addr_v6.map(IpAddr::V6),
                mac: node.vxlan_tunnel_mac_v6.unwrap_or_else(|| vtep_mac(&format!("{}-v6", node.name))),
            },
        }
    }

    /// Where the address stands in the Node resource.
    fn field(family: Family) -> &'static str {
        match family {
            Family::V4 => "ipv4VXLANTunnelAddr",
            Family::V6 => "ipv6VXLANTunnelAddr",
        }
    }
}

/// The MAC address of a VTEP whose node gives none: the letter f and the first five octets of its name's SHA-1
/// (`vtepMACForHost` in `felix/calc/vxlan_resolver.go`).
fn vtep_mac(name: &str) -> MacAddr {
    let [a, b, c, d, e, ..]: [u8; 20] = Sha1::digest(name.as_bytes()).into();
    MacAddr([b'f', a, b, c, d, e])
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
