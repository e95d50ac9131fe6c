//! Two nodes on one subnet, routes by next hop, no encapsulation: what flannel calls host-gw.

use anyhow::{Result, ensure};
use model::{Family, MacAddr};

use crate::capture::{Capture, Captured};
use crate::cluster::{Cluster, ClusterPlan, NodePlan, RouterKind, UPLINK};
use crate::link::{self, Fabric};
use crate::scenario::{Options, Scenario, Store};
use crate::workload::{HOST_MAC, INTERFACE};
use crate::{Lab, traffic};

/// Only MAC addresses and the TTL change on the way.
pub(super) const HOST_ROUTES: Scenario = Scenario {
    name: "host-routes",
    about: "two nodes on one subnet, routes by next hop: only MAC addresses and the TTL change on the way",
    programs: &["ping", "tcpdump", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

/// What Linux sends echo requests and replies with.
const TTL: u32 = 64;
/// How many requests are captured.
const PINGS: u32 = 5;

const PLAN: ClusterPlan = ClusterPlan {
    fabric: "fabric",
    as_number: 64512,
    pools: [("192.168.0.0/16", 24), ("fd65:168::/48", 122)],
    nodes: &[
        NodePlan {
            name: "host1",
            router: RouterKind::Tortie,
            addresses: ["10.57.4.20/24", "fd00:57::20/64"],
            blocks: ["192.168.10.0/24", "fd65:168::10:0/122"],
            workloads: 1,
        },
        NodePlan {
            name: "host2",
            router: RouterKind::Tortie,
            addresses: ["10.57.4.21/24", "fd00:57::21/64"],
            blocks: ["192.168.11.0/24", "fd65:168::11:0/122"],
            workloads: 1,
        },
    ],
};

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut cluster = Cluster::raise(lab, &PLAN)?;
    cluster.comes_up()?;
    for family in Family::ALL {
        packets_keep_everything_but_macs_and_ttl(lab, &cluster, family)?;
    }
    cluster.books_balance()
}

/// Captures at the sender, on the fabric and at the receiver, and compares.
fn packets_keep_everything_but_macs_and_ttl(lab: &Lab, cluster: &Cluster<'_>, family: Family) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    let (source, target) = (from.address(family)?, to.address(family)?);
    let filter = format!("src host {source} and dst host {target}");
    let captures = [
        Capture::start(lab, &from.namespace, INTERFACE, &filter)?,
        Capture::start(lab, cluster.fabric.namespace(), Fabric::BRIDGE, &filter)?,
        Capture::start(lab, &to.namespace, INTERFACE, &filter)?,
    ];
    let ping = traffic::answered(&from.namespace, target, PINGS)?;
    let [sent, passed, arrived] = captures.map(Capture::stop);
    ensure!(
        ping.ttl == Some(TTL - 2),
        "a reply over two routers arrived with TTL {:?}, not {}",
        ping.ttl,
        TTL - 2
    );
    lab.proved(format!("{family:?}: the TTL of a reply over two routers is {}", TTL - 2));
    let uplinks =
        [link::mac(&cluster.nodes[0].namespace, UPLINK)?, link::mac(&cluster.nodes[1].namespace, UPLINK)?];
    carried_by("at the sender", &sent?, (from.mac, HOST_MAC))?;
    let passed = passed?;
    carried_by("on the fabric", &passed, (uplinks[0], uplinks[1]))?;
    not_encapsulated(&passed)?;
    carried_by("at the receiver", &arrived?, (HOST_MAC, to.mac))?;
    lab.proved(format!(
        "{family:?}: MAC addresses change on the way, {} > {HOST_MAC}, then {} > {}, then {HOST_MAC} > {}; no encapsulation",
        from.mac, uplinks[0], uplinks[1], to.mac
    ));
    Ok(())
}

/// Every frame of the capture goes from this MAC address to that.
fn carried_by(place: &str, captured: &Captured, expected: (MacAddr, MacAddr)) -> Result<()> {
    let macs = captured.macs()?;
    ensure!(macs.len() >= PINGS as usize, "{} of {PINGS} packets were seen {place}", macs.len());
    for seen in macs {
        ensure!(
            seen == expected,
            "{place} a frame goes from {} to {}, not from {} to {}",
            seen.0,
            seen.1,
            expected.0,
            expected.1
        );
    }
    Ok(())
}

/// 14 bytes of Ethernet, 20 or 40 of IP, 8 of ICMP and 56 of ping: nothing around it.
fn not_encapsulated(captured: &Captured) -> Result<()> {
    for line in captured.lines()? {
        ensure!(line.contains("length 98:") || line.contains("length 118:"), "not a plain ping: {line}");
    }
    Ok(())
}
