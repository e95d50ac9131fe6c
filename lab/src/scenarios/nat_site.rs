//! A node with two workloads in a pool that is translated, and a server outside that knows no pool.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::Family;
use serde::Deserialize;

use crate::Lab;
use crate::cluster::CONVERGE;
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::tortie::{Settings, ShowDrops, TortieNode};
use crate::workload::Workload;
use crate::{command, traffic};

const NODE: [&str; 2] = ["172.18.0.2/24", "fd18::2/64"];
const SERVER: [&str; 2] = ["172.18.0.9/24", "fd18::9/64"];
const POOLS: [(&str, u8); 2] = [("10.65.0.0/16", 26), ("fd65::/48", 122)];
const BLOCKS: [&str; 2] = ["10.65.0.0/26", "fd65::/122"];
const WORKLOADS: [(&str, [&str; 2]); 2] =
    [("w1", ["10.65.0.1", "fd65::1"]), ("w2", ["10.65.0.2", "fd65::2"])];

/// A raised site.
pub(super) struct Site<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) server: Namespace,
    pub(super) node: TortieNode,
    pub(super) workloads: Vec<Workload>,
    pub(super) resources: Resources,
}

/// `show flows`, as far as the scenarios read it.
#[derive(Debug, Deserialize)]
pub(super) struct ShowFlows {
    pub(super) flows: Vec<Flow>,
    pub(super) ports: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Flow {
    pub(super) protocol: String,
    pub(super) original: Ends,
    pub(super) translated: Ends,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ends {
    pub(super) source: IpAddr,
    pub(super) source_port: u16,
}

impl Site<'_> {
    /// Raises the site; the router doesn't run yet. `felix`: lines of the FelixConfiguration.
    pub(super) fn raise<'lab>(lab: &'lab Lab, felix: &str) -> Result<Site<'lab>> {
        lab.step("raising a node, two workloads and a server");
        let fabric = Fabric::raise(lab, "fabric")?;
        let node = lab.namespace("node")?;
        node.forward()?;
        fabric.attach(&node, "eth0")?;
        // As on a wire, the host's own packets leave with whole checksums.
        link::transmit_checksums_by_software(&node, "eth0")?;
        for address in NODE {
            link::add_address(&node, "eth0", address.parse()?)?;
        }
        let server = fabric.host(lab, "server", &SERVER)?;
        let resources = Resources::create(lab.directory().join("resources"))?;
        resources.bgp_configuration(false, 64512)?;
        pools(&resources, true)?;
        resources.node("node", Some(NODE[0].parse()?), Some(NODE[1].parse()?))?;
        for block in BLOCKS {
            resources.block("node", block.parse()?)?;
        }
        let workloads = WORKLOADS.map(|(name, addresses)| {
            let addresses: Vec<IpAddr> =
                addresses.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
            Workload::raise(lab, &resources, &node, name, &addresses)
        });
        let workloads = workloads.into_iter().collect::<Result<_>>()?;
        let node = TortieNode::configure(lab, &node, resources.directory(), &Settings::default())?;
        let site = Site { lab, server, node, workloads, resources };
        site.felix(felix)?;
        Ok(site)
    }

    /// Writes the pools anew.
    pub(super) fn pools(&self, nat_outgoing: bool) -> Result<()> {
        pools(&self.resources, nat_outgoing)
    }

    /// Writes the FelixConfiguration.
    pub(super) fn felix(&self, spec: &str) -> Result<()> {
        self.resources.felix(spec)
    }

    /// Starts the router and waits until the workloads reach the server.
    pub(super) fn start(&self) -> Result<()> {
        self.node.start(self.lab)?;
        for workload in &self.workloads {
            for family in Family::ALL {
                traffic::reaches(self.lab, &workload.namespace, self.server(family)?, CONVERGE)?;
            }
        }
        Ok(())
    }

    pub(super) fn server(&self, family: Family) -> Result<IpAddr> {
        address(SERVER, family)
    }

    pub(super) fn node_address(&self, family: Family) -> Result<IpAddr> {
        address(NODE, family)
    }

    /// How many packets were dropped for a reason.
    pub(super) fn dropped(&self, reason: &str) -> Result<u64> {
        let drops: ShowDrops = self.node.show("drops")?;
        Ok(drops.dropped.of(reason))
    }
}

fn address(of: [&str; 2], family: Family) -> Result<IpAddr> {
    Ok(of[usize::from(family == Family::V6)].parse::<model::InterfaceAddr>()?.addr)
}

fn pools(resources: &Resources, nat_outgoing: bool) -> Result<()> {
    for (index, (cidr, size)) in POOLS.iter().enumerate() {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pool-{index}}}\n\
             spec: {{cidr: '{cidr}', blockSize: {size}, natOutgoing: {nat_outgoing}}}\n"
        );
        resources.write(&format!("ippool-{index}.yaml"), &text)?;
    }
    Ok(())
}

/// What a program says in a namespace.
pub(super) fn said(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = namespace.command(program);
    command.args(arguments);
    let output = command::output(&mut command, Duration::from_secs(60))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// For traceroute: it waits 5 s for each answer, however soon another hop's came. As a rule it gives one up after ten times
/// as long as the next hop took (traceroute(8), `-w`).
pub(super) const PATIENT: &str = "5,0,0";

/// The routers and the end that traceroute names, in order.
pub(super) fn trace(from: &Namespace, to: IpAddr, arguments: &[&str]) -> Result<Vec<IpAddr>> {
    let to = to.to_string();
    let arguments = [&["-n", "-q", "1", "-w", PATIENT, "-m", "4"], arguments, &[&to]].concat();
    let text = said(from, "traceroute", &arguments)?;
    let hop = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
    let hops: Vec<IpAddr> = text.lines().skip(1).map_while(hop).collect();
    ensure!(!hops.is_empty(), "traceroute names no hop: {text}");
    Ok(hops)
}

/// UDP answers come back: so many kilobytes a second from the far end for two seconds.
pub(super) fn udp_answers(lab: &Lab, from: &Namespace, to: &Namespace, address: IpAddr) -> Result<()> {
    let answer = lab.wait("iperf3 over UDP", CONVERGE, || {
        // One for each try: it ends with the client that it has served, however that fared.
        let mut server = to.command("iperf3");
        server.args(["-s", "-1"]);
        let _server = lab.spawn("iperf3-udp", server)?;
        traffic::listening(to, 5201)?;
        let address = address.to_string();
        // So few that a client which stands still for half a second finds them in its socket.
        let arguments = ["-c", &address, "-u", "-R", "-t", "2", "-b", "1M", "-l", "1000", "-J"];
        let answer: serde_json::Value = serde_json::from_str(&said(from, "iperf3", &arguments)?)?;
        Ok(answer.get("error").is_none().then_some(answer))
    })?;
    let sum = &answer["end"]["sum"];
    let (packets, lost) = (sum["packets"].as_u64(), sum["lost_packets"].as_u64());
    let packets = packets.with_context(|| format!("no count of packets in {sum}"))?;
    // A busy machine may lose some in a ring; a broken translation loses all.
    ensure!(
        packets > 100 && lost.is_some_and(|lost| lost * 10 < packets),
        "of {packets} datagrams {lost:?} were lost"
    );
    Ok(())
}
