//! The lab without Tortie: what the same network does with BIRD and the kernel.

use anyhow::Result;
use model::Family;

use crate::capture::Capture;
use crate::cluster::{Cluster, ClusterPlan, NodePlan, RouterKind};
use crate::link::Fabric;
use crate::scenario::{Options, Scenario, Store};
use crate::{Lab, traffic};

/// When this fails, the lab is to blame and not the router.
pub(super) const BASELINE: Scenario = Scenario {
    name: "baseline",
    about: "the lab itself, with BIRD and the kernel's forwarding on every node",
    programs: &["bird", "birdc", "ping", "iperf3", "tcpdump", "ethtool"],
    tortie: false,
    alone: false,
    store: Store::Unused("BIRD and the kernel alone: nobody reads resources"),
    run,
};

const PLAN: ClusterPlan = ClusterPlan {
    fabric: "fabric",
    as_number: 64512,
    pools: [("10.244.0.0/16", 26), ("fd65::/48", 122)],
    nodes: &[
        NodePlan {
            name: "node1",
            router: RouterKind::Bird,
            addresses: ["192.168.0.81/24", "fd00::81/64"],
            blocks: ["10.244.42.64/26", "fd65::1:0/122"],
            workloads: 1,
        },
        NodePlan {
            name: "node2",
            router: RouterKind::Bird,
            addresses: ["192.168.0.82/24", "fd00::82/64"],
            blocks: ["10.244.103.64/26", "fd65::2:0/122"],
            workloads: 1,
        },
    ],
};

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut cluster = Cluster::raise(lab, &PLAN)?;
    cluster.comes_up()?;
    let (from, to) = cluster.distant_workloads()?;
    let address = to.address(Family::V4)?;
    let filter = format!("host {address} and tcp");
    let capture = Capture::start(lab, cluster.fabric.namespace(), Fabric::BRIDGE, &filter)?;
    let moved = traffic::transfer(lab, &from.namespace, &to.namespace, address, 10_000_000)?;
    lab.proved(format!("10 MB arrived with their SHA-256 intact in {:.1} s", moved.seconds));
    let captured = capture.stop()?;
    let frames = captured.checksums_are_right()?;
    lab.proved(format!("{frames} frames were captured on the way, no bad checksum"));
    let speed = traffic::iperf3(lab, &from.namespace, &to.namespace, address, 1)?;
    lab.proved(format!("iperf3: {:.2} Gbit/s", speed.bits_per_second / 1e9));
    Ok(())
}
