//! Two subnets, a plain router between them, and nodes in both.

use std::net::IpAddr;

use anyhow::Result;
use model::{InterfaceAddr, MacAddr, Prefix};

use super::{CONVERGE, FIRST_REPLY, Plan};
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::tortie::{Settings, ShowRoute, TortieNode};
use crate::vtep::Vtep;
use crate::workload::Workload;
use crate::{Lab, books, traffic};

/// The nodes' interface towards their subnet, and the router's towards the first.
const UPLINK: &str = "eth0";
const POOL: &str = "192.168.0.0/16";
const POOL_V6: &str = "fd65::/48";
const AS_NUMBER: u32 = 64512;

/// A node to be raised.
#[derive(Debug)]
pub(super) struct NodePlan {
    pub(super) name: &'static str,
    /// 0 or 1.
    pub(super) subnet: usize,
    address: &'static str,
    block: &'static str,
    /// Its workload's name and address.
    workload: (&'static str, &'static str),
    /// Its address in tunnels' networks.
    tunnel: &'static str,
    /// The same of IPv6: the node's address, its block, its workload's address and its address in tunnels' networks.
    v6: [&'static str; 4],
    /// Linux, as Calico sets it up, in place of Tortie.
    is_linux: bool,
}

const WALKER_1: NodePlan = NodePlan {
    name: "walker-1",
    subnet: 0,
    address: "172.16.6.47",
    block: "192.168.187.192/26",
    workload: ("busybox-1", "192.168.187.211"),
    tunnel: "192.168.187.192",
    v6: ["fd16:6::47", "fd65::187:c0/122", "fd65::187:d3", "fd65::187:c0"],
    is_linux: false,
};
const WALKER_2: NodePlan = NodePlan {
    name: "walker-2",
    subnet: 0,
    address: "172.16.6.249",
    block: "192.168.135.64/26",
    workload: ("busybox-2", "192.168.135.74"),
    tunnel: "192.168.135.64",
    v6: ["fd16:6::249", "fd65::135:40/122", "fd65::135:4a", "fd65::135:40"],
    is_linux: false,
};
const DEMI_1: NodePlan = NodePlan {
    name: "demi-1",
    subnet: 1,
    address: "172.16.199.114",
    block: "192.168.121.0/26",
    workload: ("busybox-3", "192.168.121.2"),
    tunnel: "192.168.121.0",
    v6: ["fd16:199::114", "fd65::121:0/122", "fd65::121:2", "fd65::121:0"],
    is_linux: false,
};
const LINUX_1: NodePlan = NodePlan {
    name: "linux-1",
    subnet: 1,
    address: "172.16.199.115",
    block: "192.168.60.0/26",
    workload: ("busybox-4", "192.168.60.7"),
    tunnel: "192.168.60.0",
    v6: ["fd16:199::115", "fd65::60:0/122", "fd65::60:7", "fd65::60:0"],
    is_linux: true,
};

/// Two nodes in one subnet, one in the other.
pub(super) const NODES: [NodePlan; 3] = [WALKER_1, WALKER_2, DEMI_1];
/// The same and Linux.
pub(super) const NODES_AND_LINUX: [NodePlan; 4] = [WALKER_1, WALKER_2, DEMI_1, LINUX_1];

impl NodePlan {
    pub(super) fn address(&self) -> IpAddr {
        addr(self.address)
    }

    pub(super) fn workload(&self) -> IpAddr {
        addr(self.workload.1)
    }

    pub(super) fn tunnel(&self) -> IpAddr {
        addr(self.tunnel)
    }

    pub(super) fn address_v6(&self) -> IpAddr {
        addr(self.v6[0])
    }

    pub(super) fn workload_v6(&self) -> IpAddr {
        addr(self.v6[2])
    }

    pub(super) fn tunnel_v6(&self) -> IpAddr {
        addr(self.v6[3])
    }

    fn block(&self) -> Prefix {
        self.block.parse().expect("a block")
    }

    /// Is this one of the node's or its workload's addresses?
    pub(super) fn owns(&self, address: IpAddr) -> bool {
        address == self.address() || self.block().contains(address)
    }

    /// [`Self::owns`] of IPv6.
    pub(super) fn owns_v6(&self, address: IpAddr) -> bool {
        let block: Prefix = self.v6[1].parse().expect("a block");
        address == self.address_v6() || block.contains(address)
    }

    /// The MAC address of its VTEP.
    pub(super) fn vtep(&self) -> MacAddr {
        self.end().mac()
    }

    fn end(&self) -> Vtep {
        Vtep { node: self.name, outside: self.address(), inside: self.tunnel(), block: self.block() }
    }
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The router's leg in a subnet.
pub(super) fn gateway(subnet: usize) -> IpAddr {
    addr(["172.16.6.254", "172.16.199.254"][subnet])
}

/// The router's leg in a subnet, by IPv6.
fn gateway_v6(subnet: usize) -> IpAddr {
    addr(["fd16:6::254", "fd16:199::254"][subnet])
}

/// A raised node.
pub(super) struct Node {
    pub(super) plan: &'static NodePlan,
    pub(super) namespace: Namespace,
    pub(super) workload: Workload,
    /// Its router; `None` where that is the kernel with a vxlan device.
    pub(super) tortie: Option<TortieNode>,
}

/// All of it.
pub(super) struct Subnets<'lab> {
    lab: &'lab Lab,
    pub(super) fabrics: [Fabric; 2],
    resources: Resources,
    pub(super) nodes: Vec<Node>,
}

impl<'lab> Subnets<'lab> {
    /// Raises everything, with the pool in these modes; no Tortie runs yet.
    pub(super) fn raise(lab: &'lab Lab, plan: &Plan, modes: (&str, &str)) -> Result<Subnets<'lab>> {
        lab.step("raising two subnets and a router");
        let fabrics = [Fabric::raise(lab, "vlan6")?, Fabric::raise(lab, "vlan199")?];
        let router = lab.namespace("router")?;
        router.forward()?;
        for (subnet, interface) in ["eth0", "eth1"].into_iter().enumerate() {
            fabrics[subnet].attach(&router, interface)?;
            link::add_address(&router, interface, InterfaceAddr { addr: gateway(subnet), len: 24 })?;
            link::add_address(&router, interface, InterfaceAddr { addr: gateway_v6(subnet), len: 64 })?;
        }
        let resources = Resources::create(lab.directory().join("resources"))?;
        match plan.has_mesh() {
            true => resources.mesh_with_all_routes(AS_NUMBER)?,
            false => resources.bgp_configuration(false, AS_NUMBER)?,
        }
        let mut subnets = Subnets { lab, fabrics, resources, nodes: Vec::new() };
        subnets.pool(modes)?;
        for node in plan.nodes {
            lab.step(&format!("raising {}", node.name));
            let node = subnets.raise_node(node)?;
            subnets.nodes.push(node);
        }
        Ok(subnets)
    }

    /// Writes the pool with these modes of IPIP and VXLAN.
    pub(super) fn pool(&self, (ipip, vxlan): (&str, &str)) -> Result<()> {
        self.resources.pool("pool-v6", POOL_V6.parse()?, 122, "Never", vxlan)?;
        self.resources.pool("pool", POOL.parse()?, 26, ipip, vxlan)
    }

    fn raise_node(&self, plan: &'static NodePlan) -> Result<Node> {
        let namespace = self.lab.namespace(plan.name)?;
        namespace.forward()?;
        self.fabrics[plan.subnet].attach(&namespace, UPLINK)?;
        // As on a wire: what the kernel sends, plainly or in its own VXLAN, is complete when it leaves.
        link::transmit_checksums_by_software(&namespace, UPLINK)?;
        let address = InterfaceAddr { addr: plan.address(), len: 24 };
        link::add_address(&namespace, UPLINK, address)?;
        namespace.ip(&format!("route add default via {}", gateway(plan.subnet)))?;
        let address_v6 = InterfaceAddr { addr: plan.address_v6(), len: 64 };
        link::add_address(&namespace, UPLINK, address_v6)?;
        namespace.ip(&format!("-6 route add default via {}", gateway_v6(plan.subnet)))?;
        let tunnel = [plan.tunnel(), plan.tunnel_v6()];
        self.resources.tunnel_node(plan.name, [address, address_v6], tunnel)?;
        for block in [plan.block(), plan.v6[1].parse()?] {
            self.resources.block(plan.name, block)?;
        }
        let addresses = [plan.workload(), plan.workload_v6()];
        let workload = Workload::raise(self.lab, &self.resources, &namespace, plan.workload.0, &addresses)?;
        let tortie = if plan.is_linux {
            workload.plug_into_kernel(&namespace)?;
            None
        } else {
            let directory = self.resources.directory();
            Some(TortieNode::configure(self.lab, &namespace, directory, &Settings::default())?)
        };
        Ok(Node { plan, namespace, workload, tortie })
    }

    /// Starts every router.
    pub(super) fn start(&self) -> Result<()> {
        for node in &self.nodes {
            match &node.tortie {
                Some(tortie) => tortie.start(self.lab)?,
                None => {
                    let others = self.nodes.iter().filter(|other| other.plan.name != node.plan.name);
                    let others: Vec<Vtep> = others.map(|other| other.plan.end()).collect();
                    node.plan.end().raise_on_linux(&node.namespace, UPLINK, &others)?;
                }
            }
        }
        Ok(())
    }

    /// Waits until every session of the mesh is Established.
    pub(super) fn mesh_is_up(&self) -> Result<()> {
        // By IPv4 and by IPv6.
        let expected = 2 * (self.nodes.len() - 1);
        for tortie in self.nodes.iter().filter_map(|node| node.tortie.as_ref()) {
            self.lab.wait(&format!("the BGP sessions of {}", tortie.name()), CONVERGE, || {
                tortie.established(expected).map(|_| Some(()))
            })?;
        }
        Ok(())
    }

    /// Every node with every other.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&Node, &Node)> {
        let others = |from: &Node| {
            let name = from.plan.name;
            self.nodes.iter().filter(move |to| to.plan.name != name)
        };
        self.nodes.iter().flat_map(move |from| others(from).map(move |to| (from, to)))
    }

    /// Waits until one node's route to another's workload is as it should be.
    pub(super) fn route_is(&self, from: &Node, to: &Node, is_so: impl Fn(&ShowRoute) -> bool) -> Result<()> {
        let Some(tortie) = &from.tortie else { return Ok(()) };
        let target = to.plan.workload();
        self.lab.wait(&format!("the route of {} to {target}", from.plan.name), CONVERGE, || {
            let route: ShowRoute = tortie.show(&format!("route {target}"))?;
            anyhow::ensure!(is_so(&route), "it is {route:?}");
            Ok(Some(()))
        })
    }

    /// Every workload pings every other.
    pub(super) fn everybody_reaches_everybody(&self) -> Result<()> {
        let mut pairs = 0;
        for (from, to) in self.pairs() {
            let (inside, target) = (&from.workload.namespace, to.plan.workload());
            traffic::reaches(self.lab, inside, target, FIRST_REPLY)?;
            traffic::answered(inside, target, 2)?;
            pairs += 1;
        }
        self.lab
            .proved(format!("{pairs} pairs of workloads on different nodes reach each other, no ping lost"));
        Ok(())
    }

    /// The books of every Tortie balance.
    pub(super) fn books_balance(&self) -> Result<()> {
        for tortie in self.nodes.iter().filter_map(|node| node.tortie.as_ref()) {
            tortie.must_run()?;
            let books = books::settled(self.lab, tortie)?;
            self.lab.proved(books::line(tortie.name(), &books));
        }
        Ok(())
    }
}
