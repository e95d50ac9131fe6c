//! Two pinned workers, each with a queue of the uplink, and workloads whose one queue belongs to the first: what
//! the second receives for them crosses the ring between the two.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use model::Family;

use crate::cluster::CONVERGE;
use crate::link::{self, End};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowPorts, TortieNode};
use crate::workload::Workload;
use crate::{Lab, books, traffic};

/// A node whose frames must change workers.
pub(super) const TWO_WORKERS: Scenario = Scenario {
    name: "two-workers",
    about: "two workers and a two-queue uplink: frames for single-queue workloads cross between them, none goes astray",
    programs: &["ping", "iperf3", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const UPLINK: &str = "eth0";
const QUEUES: u32 = 2;
const NODE: [&str; 2] = ["10.9.0.1/24", "fd09::1/64"];
const OUTSIDE: [&str; 2] = ["10.9.0.2/24", "fd09::2/64"];
const NODE_AS: u32 = 64512;
const BLOCKS: [&str; 2] = ["10.65.0.0/26", "fd65::/122"];
const WORKLOADS: [(&str, [&str; 2]); 2] =
    [("w1", ["10.65.0.1", "fd65::1"]), ("w2", ["10.65.0.2", "fd65::2"])];

/// Enough streams that the sender's hash puts some on each queue; all on one has a chance of 1 in 128.
const STREAMS: u32 = 8;
const SECONDS: u32 = 3;
/// Transfers each way, and how large each is. Every one is a flow of its own.
const TRANSFERS: u32 = 4;
const BYTES: u64 = 25_000_000;
/// What each queue must have received at least: more than pings and handshakes come to.
const FRAMES: u64 = 10_000;

struct Site<'lab> {
    lab: &'lab Lab,
    outside: Namespace,
    node: TortieNode,
    workloads: Vec<Workload>,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = raise(lab)?;
    site.node.start(lab)?;
    site.queues_have_their_workers()?;
    site.everybody_answers()?;
    let before = site.received_by_queue()?;
    site.many_streams()?;
    site.transfers()?;
    site.both_queues_received(&before)?;
    let books = books::settled(lab, &site.node)?;
    lab.proved(books::line("node", &books));
    let full = books.dropped.of("handoff_ring_full");
    lab.proved(format!("{full} frames found the ring between the workers full; TCP sent them again"));
    Ok(())
}

fn raise(lab: &Lab) -> Result<Site<'_>> {
    lab.step("raising a node with a two-queue uplink");
    let (node, outside) = (lab.namespace("node")?, lab.namespace("outside")?);
    node.forward()?;
    link::veth_with_queues(End::new(&outside, UPLINK), End::new(&node, UPLINK), QUEUES)?;
    // As on a wire, checksums are complete when a frame leaves.
    link::transmit_checksums_by_software(&outside, UPLINK)?;
    for (namespace, addresses) in [(&node, NODE), (&outside, OUTSIDE)] {
        for address in addresses {
            link::add_address(namespace, UPLINK, address.parse()?)?;
        }
    }
    for (block, address) in BLOCKS.iter().zip(NODE) {
        let via = address.parse::<model::InterfaceAddr>()?.addr;
        outside.ip(&format!("{} route add {block} via {via}", if via.is_ipv6() { "-6" } else { "-4" }))?;
    }
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, NODE_AS)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.plain_pool("pool-1", "fd65::/48".parse()?, 122)?;
    resources.node("node", Some(NODE[0].parse()?), Some(NODE[1].parse()?))?;
    for block in BLOCKS {
        resources.block("node", block.parse()?)?;
    }
    let workloads = WORKLOADS.map(|(name, addresses)| {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        Workload::raise(lab, &resources, &node, name, &addresses)
    });
    let settings = Settings { workers: QUEUES, ..Settings::default() };
    let node = TortieNode::configure(lab, &node, resources.directory(), &settings)?;
    Ok(Site { lab, outside, node, workloads: workloads.into_iter().collect::<Result<_>>()? })
}

impl Site<'_> {
    /// D3: worker *i* owns queue *i* of every port.
    fn queues_have_their_workers(&self) -> Result<()> {
        let owners = self.lab.wait("the ports", CONVERGE, || {
            let ports: ShowPorts = self.node.show("ports")?;
            let owners = |name: &str| -> Result<Vec<(u32, u32)>> {
                let port = ports.ports.iter().find(|port| port.name == name && port.up);
                let port = port.with_context(|| format!("no port {name} yet"))?;
                Ok(port.queues.iter().map(|queue| (queue.queue, queue.worker)).collect())
            };
            let workloads = self.workloads.iter().map(|workload| owners(&workload.interface));
            Ok(Some((owners(UPLINK)?, workloads.collect::<Result<Vec<_>>>()?)))
        })?;
        ensure!(owners.0 == [(0, 0), (1, 1)], "queues and workers of {UPLINK}: {:?}", owners.0);
        ensure!(owners.1.iter().all(|owners| owners == &[(0, 0)]), "of the workloads: {:?}", owners.1);
        self.lab.proved(format!(
            "`show ports`: queue 0 of {UPLINK} is worker 0's and queue 1 worker 1's; the workloads' one queue is worker 0's"
        ));
        Ok(())
    }

    fn everybody_answers(&self) -> Result<()> {
        let mut ways = 0;
        for family in Family::ALL {
            let outside = OUTSIDE[usize::from(family == Family::V6)].parse::<model::InterfaceAddr>()?.addr;
            for workload in &self.workloads {
                let others = self.workloads.iter().filter(|other| other.name() != workload.name());
                let mut pairs =
                    vec![(&self.outside, workload.address(family)?), (&workload.namespace, outside)];
                for other in others {
                    pairs.push((&workload.namespace, other.address(family)?));
                }
                for (from, to) in pairs {
                    traffic::reaches(self.lab, from, to, CONVERGE)?;
                    traffic::answered(from, to, 5)?;
                    ways += 1;
                }
            }
        }
        self.lab.proved(format!("{ways} ways between the workloads and the outside answer, no ping lost"));
        Ok(())
    }

    /// TCP by IPv4 and IPv6, to a workload and from it.
    fn many_streams(&self) -> Result<()> {
        let workload = &self.workloads[0];
        for family in Family::ALL {
            let outside = OUTSIDE[usize::from(family == Family::V6)].parse::<model::InterfaceAddr>()?.addr;
            let inside = workload.address(family)?;
            let ways = [
                ("to the workload", &self.outside, &workload.namespace, inside),
                ("from the workload", &workload.namespace, &self.outside, outside),
            ];
            for (name, from, to, address) in ways {
                let speed = traffic::iperf3_streams(self.lab, from, to, address, SECONDS, STREAMS)?;
                self.lab.proved(format!(
                    "{STREAMS} TCP streams {name}, {family:?}: {:.2} Gbit/s, {} segments sent again",
                    speed.bits_per_second / 1e9,
                    speed.retransmits
                ));
            }
        }
        Ok(())
    }

    fn transfers(&self) -> Result<()> {
        let inside = &self.workloads[1];
        let outside = OUTSIDE[0].parse::<model::InterfaceAddr>()?.addr;
        for _ in 0..TRANSFERS {
            traffic::transfer(
                self.lab,
                &self.outside,
                &inside.namespace,
                inside.address(Family::V4)?,
                BYTES,
            )?;
            traffic::transfer(self.lab, &inside.namespace, &self.outside, outside, BYTES)?;
        }
        self.lab.proved(format!(
            "{TRANSFERS} transfers of {} MB each way arrived with their SHA-256 intact",
            BYTES / 1_000_000
        ));
        Ok(())
    }

    /// What the kernel gave to the AF_XDP socket of each queue of the uplink: veth's own counters.
    fn received_by_queue(&self) -> Result<Vec<u64>> {
        let text = self.node.namespace().run("ethtool", &["-S", UPLINK])?;
        let counter = |queue: u32| {
            let name = format!("rx_queue_{queue}_xdp_redirect:");
            let line = text.lines().find_map(|line| line.trim().strip_prefix(&name));
            line.and_then(|count| count.trim().parse().ok()).with_context(|| format!("no {name} in: {text}"))
        };
        (0..QUEUES).map(counter).collect()
    }

    fn both_queues_received(&self, before: &[u64]) -> Result<()> {
        let after = self.received_by_queue()?;
        let received: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        ensure!(
            received.iter().all(|&frames| frames >= FRAMES),
            "the queues of {UPLINK} received {received:?} frames: the traffic did not spread"
        );
        self.lab.proved(format!(
            "the kernel gave {} frames to worker 0 and {} to worker 1, who owns no queue of a workload: these crossed",
            received[0], received[1]
        ));
        Ok(())
    }
}
