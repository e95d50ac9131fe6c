//! Tunnels: which packets to other nodes' workloads are encapsulated, and how.
//!
//! Routes into a pool of IPIP come from BGP; those whose next hop is a node lead to it through a tunnel. Routes into a
//! pool of VXLAN come from the datastore, where blocks name their nodes, and addresses in them the nodes that have borrowed
//! them (`blocks.rs`), and BGP's are left out (the kernel filter of `confd/pkg/backends/calico/bgp_processor.go`).
//! `CrossSubnet` means plainly within the subnet of this node's address, `felix/calc/l3_route_resolver.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::{EncapMode, Family, InterfaceAddr, IpPool, MacAddr, Node, Prefix};
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
    /// They are left out: the datastore's lead through VXLAN.
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
    let view = View { calico, own, felix, blocks: Blocks::of(calico) };
    let mut tunnels = Tunnels { pools: view.treatments(), ..Tunnels::default() };
    view.ipip(&mut tunnels, warnings);
    for family in Family::ALL {
        view.vxlan(family, &mut tunnels, warnings);
    }
    tunnels
}

/// The resources, seen from this node.
struct View<'a> {
    calico: &'a Calico,
    own: &'a Node,
    felix: &'a Felix,
    blocks: Blocks<'a>,
}

impl<'a> View<'a> {
    fn others(&self) -> impl Iterator<Item = &'a Node> {
        let own = &self.own.name;
        self.calico.nodes.values().filter(move |node| node.name != *own)
    }

    fn treatments(&self) -> BTreeMap<Prefix, FromBgp> {
        let from_bgp = |pool: &IpPool| match (pool.vxlan_mode, pool.ipip_mode) {
            (EncapMode::Never, EncapMode::Never) => None,
            (EncapMode::Never, mode) => Some((pool.cidr, FromBgp::Ipip(mode))),
            _ => Some((pool.cidr, FromBgp::LeftOut)),
        };
        self.calico.pools.values().filter_map(from_bgp).collect()
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
            self.calico.pools.values().filter(|pool| pool.ipip_mode != EncapMode::Never).collect();
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
        tunnels.ends.push(self.end(local, TunnelKind::Ipip));
        tunnels.addresses.extend(source);
        if source.is_none() {
            let field = "bgp.ipv4IPIPTunnelAddr";
            warnings.push(Warning::TunnelAddressMissing { node: self.own.name.clone(), field });
        }
    }

    fn vxlan(&self, family: Family, tunnels: &mut Tunnels, warnings: &mut Vec<Warning>) {
        let pools = self.calico.pools.values().filter(|pool| pool.cidr.family() == family);
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
            let of_family = |prefix: &Prefix| prefix.family() == family;
            let blocks: Vec<Prefix> = self.blocks.owned(&node.name).filter(of_family).collect();
            let borrowed = self.blocks.borrowed(&node.name).filter(of_family);
            for prefix in blocks.iter().copied().chain(borrowed) {
                let Some(pool) = pool_of(&asking, prefix) else { continue };
                if !is_encapsulated(pool.vxlan_mode, self.in_our_subnet(remote)) {
                    tunnels.routes.entry(prefix).or_insert(Gateway::at(remote));
                } else if let Some(tunnel) = tunnel {
                    tunnels.routes.entry(prefix).or_insert(Gateway::behind(tunnel));
                } else {
                    without_vtep.insert(node.name.clone());
                }
            }
            // A VTEP's address is one of the node's own block, unless it was borrowed from another.
            if let Some((addr, tunnel)) = vtep.addr.zip(tunnel)
                && !blocks.iter().any(|block| block.contains(addr))
                && pool_of(&asking, Prefix::host(addr)).is_some()
            {
                tunnels.routes.insert(Prefix::host(addr), Gateway::behind(tunnel));
            }
        }
        let field = Vtep::field(family);
        warnings.extend(without_vtep.into_iter().map(|node| Warning::TunnelAddressMissing { node, field }));
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
