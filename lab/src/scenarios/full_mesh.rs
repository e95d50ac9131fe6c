//! The node-to-node mesh of a Calico cluster: three nodes, AS 64512, a block each.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use model::{Family, Prefix};

use crate::capture::Capture;
use crate::cluster::{CONVERGE, Cluster, ClusterPlan, Node, NodePlan, RouterKind, nth};
use crate::link::Fabric;
use crate::scenario::{Scenario, Store};
use crate::tortie::{ShowDrops, ShowRoute, ShowRoutes, TortieNode};
use crate::{Lab, traffic};

/// The mesh with Tortie on all nodes.
pub(super) const FULL_MESH: Scenario = Scenario {
    name: "full-mesh",
    about: "node-to-node iBGP between three Tortie nodes, a block each, every workload reaches every other",
    programs: &["ping", "tcpdump", "ethtool", "iperf3"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run: |lab, _| run(lab, &ALL_TORTIE),
};

/// The mesh with BIRD and the kernel on one node.
pub(super) const FULL_MESH_BIRD: Scenario = Scenario {
    name: "full-mesh-bird",
    about: "the same mesh with one node run by Debian's BIRD 2, configured as a Calico node",
    programs: &["bird", "birdc", "ping", "tcpdump", "ethtool", "iperf3"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run: |lab, _| run(lab, &WITH_BIRD),
};

/// How much is transferred, in bytes.
const TRANSFER: u64 = 100_000_000;
/// How many requests go to an address that nobody has.
const TO_NOBODY: u32 = 5;

const MASTER: NodePlan = NodePlan {
    name: "master",
    router: RouterKind::Tortie,
    addresses: ["192.168.0.80/24", "fd00:c0a8::80/64"],
    blocks: ["10.244.152.128/26", "fd65:244::152:80/122"],
    workloads: 2,
};
const NODE1: NodePlan = NodePlan {
    name: "node1",
    router: RouterKind::Tortie,
    addresses: ["192.168.0.81/24", "fd00:c0a8::81/64"],
    blocks: ["10.244.42.64/26", "fd65:244::42:40/122"],
    workloads: 2,
};
const NODE2: NodePlan = NodePlan {
    name: "node2",
    router: RouterKind::Tortie,
    addresses: ["192.168.0.82/24", "fd00:c0a8::82/64"],
    blocks: ["10.244.103.64/26", "fd65:244::103:40/122"],
    workloads: 2,
};
const NODE2_BIRD: NodePlan = NodePlan { router: RouterKind::Bird, ..NODE2 };

const ALL_TORTIE: ClusterPlan = ClusterPlan {
    fabric: "fabric",
    as_number: 64512,
    pools: [("10.244.0.0/16", 26), ("fd65:244::/48", 122)],
    nodes: &[MASTER, NODE1, NODE2],
};
const WITH_BIRD: ClusterPlan = ClusterPlan { nodes: &[MASTER, NODE1, NODE2_BIRD], ..ALL_TORTIE };

fn run(lab: &Lab, plan: &ClusterPlan) -> Result<()> {
    let mut cluster = Cluster::raise(lab, plan)?;
    cluster.start()?;
    cluster.mesh_is_up(0)?;
    cluster.blocks_are_known()?;
    sessions_are_told_as_calico_tells_them(lab, &cluster.nodes[1])?;
    own_block_and_workloads(lab, &cluster.nodes[1])?;
    if plan.nodes.iter().any(|node| node.router == RouterKind::Bird) {
        bird_has_the_blocks(lab, &cluster)?;
    }
    cluster.everybody_reaches_everybody()?;
    unused_addresses_end_in_the_blackhole(lab, &cluster)?;
    transfer_arrives_intact(lab, &cluster)?;
    throughput_both_ways(lab, &cluster)?;
    cluster.books_balance()
}

/// On node1: two peers per family, of the mesh, Established.
fn sessions_are_told_as_calico_tells_them(lab: &Lab, node: &Node) -> Result<()> {
    let peers = node.tortie()?.established(4)?;
    for address in ["192.168.0.80", "192.168.0.82"] {
        let wanted: IpAddr = address.parse()?;
        let peer = peers.iter().find(|peer| peer.address == wanted);
        let as_told = peer.is_some_and(|peer| {
            peer.kind == "node-to-node mesh" && peer.state == "Established" && peer.asn == 64512
        });
        ensure!(as_told, "{} tells {address} as {peer:?}", node.name());
        let received = peer.map_or(0, |peer| peer.received.ipv4);
        ensure!(
            received == 1,
            "{} has {received} IPv4 routes from {address}, not its one block",
            node.name()
        );
    }
    lab.proved(format!("{} shows both peers as node-to-node mesh, Established, one block each", node.name()));
    Ok(())
}

/// The own block is a blackhole, the own workload a host route by its interface.
fn own_block_and_workloads(lab: &Lab, node: &Node) -> Result<()> {
    // A workload's route is installed once its port is open, for which the sessions haven't waited.
    lab.wait(&format!("the own routes of {}", node.name()), CONVERGE, || {
        own_routes_are_installed(node).map(Some)
    })?;
    lab.proved(format!("on {} the own block is a blackhole and {} a route by its interface", node.name(), {
        Prefix::host(node.workloads[0].address(Family::V4)?)
    }));
    Ok(())
}

fn own_routes_are_installed(node: &Node) -> Result<()> {
    let routes: ShowRoutes = node.tortie()?.show("routes")?;
    for family in Family::ALL {
        let block = node.block(family)?.to_string();
        let route = routes.routes.iter().find(|route| route.prefix == block);
        let is_blackhole = route.is_some_and(|route| {
            route.installed && route.nexthops.iter().all(|hop| hop.kind.as_deref() == Some("blackhole"))
        });
        ensure!(is_blackhole, "the own block {block} of {} is {route:?}", node.name());
        let workload = &node.workloads[0];
        let own = Prefix::host(workload.address(family)?).to_string();
        let route = routes.routes.iter().find(|route| route.prefix == own);
        let by_interface = route.is_some_and(|route| {
            route.installed
                && route.nexthops.iter().any(|hop| hop.port.as_deref() == Some(workload.interface.as_str()))
        });
        ensure!(by_interface, "the workload's {own} on {} is {route:?}", node.name());
    }
    Ok(())
}

/// Both directions exchange blocks: BIRD has Tortie's (Tortie having BIRD's was shown for every node).
fn bird_has_the_blocks(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let bird_node = cluster.nodes.last().filter(|node| node.bird().is_ok());
    let Some(bird_node) = bird_node else { anyhow::bail!("the last node has no bird") };
    let bird = bird_node.bird()?;
    for node in cluster.nodes.iter().filter(|node| node.tortie().is_ok()) {
        for family in Family::ALL {
            let protocol = format!("Mesh_{}", node.address(family)?.to_string().replace(['.', ':'], "_"));
            let block = node.block(family)?;
            let routes = lab.wait(&format!("{block} in bird"), CONVERGE, || {
                let routes = bird.routes_from(&protocol)?;
                Ok(routes.contains(&block).then_some(routes))
            })?;
            ensure!(routes == [block], "{} announces {routes:?} and not its block alone", node.name());
        }
    }
    lab.proved("BIRD has each Tortie node's blocks, and nothing else from them");
    Ok(())
}

/// Both from the node itself and from another node.
fn unused_addresses_end_in_the_blackhole(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let node = &cluster.nodes[1];
    for family in Family::ALL {
        let nobody = nth(node.block(family)?, 36);
        let answer: ShowRoute = node.tortie()?.show(&format!("route {nobody}"))?;
        ensure!(answer.fate == "blackhole", "{nobody} on {} has the fate {}", node.name(), answer.fate);
        for from in [&node.workloads[0], &cluster.nodes[0].workloads[0]] {
            let before = blackholed(node.tortie()?)?;
            let ping = traffic::ping(&from.namespace, nobody, TO_NOBODY)?;
            ensure!(ping.received == 0, "{nobody} is nobody's, and yet it answered {}", from.name());
            lab.wait("the count of what was dropped", CONVERGE, || {
                let lost = blackholed(node.tortie()?)? - before;
                ensure!(
                    lost >= u64::from(TO_NOBODY),
                    "{TO_NOBODY} packets to {nobody} were sent, {lost} were dropped as blackhole"
                );
                Ok(Some(()))
            })?;
        }
    }
    lab.proved(format!(
        "packets to unused addresses of {}'s blocks end there, counted as blackhole",
        node.name()
    ));
    Ok(())
}

fn blackholed(tortie: &TortieNode) -> Result<u64> {
    Ok(tortie.show::<ShowDrops>("drops")?.dropped.of("blackhole"))
}

fn transfer_arrives_intact(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    for family in Family::ALL {
        let address = to.address(family)?;
        let capture = Capture::start(
            lab,
            cluster.fabric.namespace(),
            Fabric::BRIDGE,
            &format!("tcp and host {address}"),
        )?;
        let moved = traffic::transfer(lab, &from.namespace, &to.namespace, address, TRANSFER)?;
        let captured = capture.stop()?;
        lab.step("reading the capture");
        let frames = captured.checksums_are_right()?;
        // A capture that saw next to nothing would prove nothing.
        ensure!(frames as u64 > TRANSFER / 2 / 1500, "only {frames} frames were captured on the way");
        lab.proved(format!(
            "100 MB from {} to {} over {family:?} arrived in {:.1} s, SHA-256 {:.16}… intact; {frames} frames captured on the way ({} missed), no bad checksum",
            from.name(),
            to.name(),
            moved.seconds,
            moved.sha256,
            captured.missed
        ));
    }
    Ok(())
}

fn throughput_both_ways(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let (one, other) = cluster.distant_workloads()?;
    for (from, to) in [(one, other), (other, one)] {
        let speed = traffic::iperf3(lab, &from.namespace, &to.namespace, to.address(Family::V4)?, 2)?;
        lab.proved(format!(
            "iperf3 from {} to {}: {:.2} Gbit/s, {} segments sent again",
            from.name(),
            to.name(),
            speed.bits_per_second / 1e9,
            speed.retransmits
        ));
    }
    Ok(())
}
