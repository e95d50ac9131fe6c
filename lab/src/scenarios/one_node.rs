//! One node with an uplink to a machine outside, and workloads.

use std::net::IpAddr;

use anyhow::{Context, Result};
use model::Family;

use crate::cluster::CONVERGE;
use crate::link::{self, End};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::tortie::{Port, Settings, ShowPorts, TortieNode};
use crate::workload::Workload;
use crate::{Lab, traffic};

/// The uplink, on both sides.
pub(super) const UPLINK: &str = "eth0";
const NODE: [&str; 2] = ["10.9.0.1/24", "fd09::1/64"];
const OUTSIDE: [&str; 2] = ["10.9.0.2/24", "fd09::2/64"];
const NODE_AS: u32 = 64512;
const BLOCKS: [&str; 2] = ["10.65.0.0/26", "fd65::/122"];

/// The site; nothing runs on the node yet.
pub(super) struct OneNode<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) outside: Namespace,
    pub(super) node: Namespace,
    pub(super) resources: Resources,
    pub(super) workloads: Vec<Workload>,
}

impl OneNode<'_> {
    /// Raises the node, the machine outside, and workloads of these names.
    pub(super) fn raise<'lab>(lab: &'lab Lab, workloads: &[&str]) -> Result<OneNode<'lab>> {
        lab.step("raising a node, its workloads and a machine outside");
        let (node, outside) = (lab.namespace("node")?, lab.namespace("outside")?);
        node.forward()?;
        link::veth(End::new(&outside, UPLINK), End::new(&node, UPLINK))?;
        // As on a wire, checksums are complete when a frame leaves.
        link::transmit_checksums_by_software(&outside, UPLINK)?;
        for (namespace, addresses) in [(&node, NODE), (&outside, OUTSIDE)] {
            for address in addresses {
                link::add_address(namespace, UPLINK, address.parse()?)?;
            }
        }
        for (block, address) in BLOCKS.iter().zip(NODE) {
            let via = address.parse::<model::InterfaceAddr>()?.addr;
            outside
                .ip(&format!("{} route add {block} via {via}", if via.is_ipv6() { "-6" } else { "-4" }))?;
        }
        let resources = Resources::create(lab.directory().join("resources"))?;
        resources.bgp_configuration(false, NODE_AS)?;
        resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
        resources.plain_pool("pool-1", "fd65::/48".parse()?, 122)?;
        resources.node("node", Some(NODE[0].parse()?), Some(NODE[1].parse()?))?;
        for block in BLOCKS {
            resources.block("node", block.parse()?)?;
        }
        let mut raised = Vec::new();
        for (number, name) in (1..).zip(workloads) {
            let addresses: [IpAddr; 2] =
                [format!("10.65.0.{number}").parse()?, format!("fd65::{number}").parse()?];
            raised.push(Workload::raise(lab, &resources, &node, name, &addresses)?);
        }
        Ok(OneNode { lab, outside, node, resources, workloads: raised })
    }

    /// Starts Tortie and waits until every workload reaches the outside.
    pub(super) fn start(&self) -> Result<TortieNode> {
        let (directory, settings) = (self.resources.directory(), Settings::default());
        let node = TortieNode::configure(self.lab, &self.node, directory, &settings)?;
        node.start(self.lab)?;
        for workload in &self.workloads {
            for family in Family::ALL {
                traffic::reaches(self.lab, &workload.namespace, outside(family)?, CONVERGE)?;
            }
        }
        Ok(node)
    }
}

/// The address of the machine outside.
pub(super) fn outside(family: Family) -> Result<IpAddr> {
    Ok(OUTSIDE[usize::from(family == Family::V6)].parse::<model::InterfaceAddr>()?.addr)
}

/// What `show ports` tells of a workload's port.
pub(super) fn port_of(node: &TortieNode, workload: &Workload) -> Result<Port> {
    let ports = node.show::<ShowPorts>("ports")?.ports;
    let port = ports.into_iter().find(|port| port.name == workload.interface);
    port.with_context(|| format!("no port {}", workload.interface))
}
