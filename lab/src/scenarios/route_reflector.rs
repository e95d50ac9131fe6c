//! Two route reflectors in one cluster in place of the mesh (RFC 4456): who tells what to whom, and that one of them may go.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use model::Family;

use crate::cluster::{CONVERGE, Cluster, ClusterPlan, NodePlan, RouterKind};
use crate::scenario::{Scenario, Store};
use crate::tortie::ShowRoute;
use crate::{Lab, traffic};

/// Tortie reflects, for Tortie and for BIRD.
pub(super) const ROUTE_REFLECTOR: Scenario = Scenario {
    name: "route-reflector",
    about: "mesh off, two Tortie nodes reflect routes to a Tortie and a BIRD node; one reflector dies, nothing is lost",
    programs: &["bird", "birdc", "ping", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const REFLECTORS: &[&str] = &["rr1", "rr2"];
const CLUSTER: Ipv4Addr = Ipv4Addr::new(1, 0, 0, 1);
/// Pings while a reflector dies, ten a second.
const PINGS: u32 = 100;

const fn node(
    name: &'static str,
    router: RouterKind,
    addresses: [&'static str; 2],
    blocks: [&'static str; 2],
) -> NodePlan {
    NodePlan { name, router, addresses, blocks, workloads: 1 }
}

const PLAN: ClusterPlan = ClusterPlan {
    fabric: "fabric",
    as_number: 64512,
    pools: [("10.244.0.0/16", 26), ("fd65:244::/48", 122)],
    nodes: &[
        node(
            "node1",
            RouterKind::Tortie,
            ["192.168.0.81/24", "fd00:c0a8::81/64"],
            ["10.244.42.64/26", "fd65:244::42:40/122"],
        ),
        node(
            "rr1",
            RouterKind::Tortie,
            ["192.168.0.1/24", "fd00:c0a8::1/64"],
            ["10.244.1.0/26", "fd65:244::1:0/122"],
        ),
        node(
            "rr2",
            RouterKind::Tortie,
            ["192.168.0.2/24", "fd00:c0a8::2/64"],
            ["10.244.2.0/26", "fd65:244::2:0/122"],
        ),
        node(
            "node2",
            RouterKind::Bird,
            ["192.168.0.82/24", "fd00:c0a8::82/64"],
            ["10.244.103.64/26", "fd65:244::103:40/122"],
        ),
    ],
};

fn run(lab: &Lab, _: &crate::scenario::Options) -> Result<()> {
    let mut cluster = Cluster::raise(lab, &PLAN)?;
    cluster.reflect(REFLECTORS, CLUSTER)?;
    cluster.start()?;
    cluster.mesh_is_up(0)?;
    cluster.blocks_are_known()?;
    bird_sees_who_brought_it_in(lab, &cluster)?;
    cluster.everybody_reaches_everybody()?;
    one_reflector_dies(lab, &cluster)?;
    cluster.nodes[2].tortie()?.must_run()
}

/// What BIRD is told of the other client's block names that client, and the cluster once, from both reflectors.
fn bird_sees_who_brought_it_in(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let (client, bird) = (&cluster.nodes[0], cluster.nodes[3].bird()?);
    for family in Family::ALL {
        let block = client.block(family)?;
        let wanted = [
            format!("BGP.originator_id: {}", client.address(Family::V4)?),
            format!("BGP.cluster_list: {CLUSTER}"),
            format!("BGP.next_hop: {}", client.address(family)?),
        ];
        let told = lab.wait(&format!("both reflectors' word of {block}"), CONVERGE, || {
            let told = bird.ask(&format!("show route {block} all"))?;
            let twice = |line: &String| told.lines().filter(|told| told.trim() == *line).count() == 2;
            Ok(wanted.iter().all(twice).then_some(told))
        })?;
        ensure!(
            !told.contains("BGP.cluster_list: 1.0.0.1 1.0.0.1"),
            "went round among the reflectors: {told}"
        );
    }
    lab.proved(format!(
        "BIRD has node1's blocks from both reflectors, each with originator {}, cluster list {CLUSTER} and node1 itself \
         as next hop",
        client.address(Family::V4)?
    ));
    Ok(())
}

/// The other one has told the same.
fn one_reflector_dies(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    let address = to.address(Family::V4)?;
    lab.step("pinging while rr1 dies");
    let (ping, killed) = std::thread::scope(|scope| {
        let pings = scope.spawn(|| traffic::answered(&from.namespace, address, PINGS));
        std::thread::sleep(std::time::Duration::from_secs(2));
        let killed = cluster.nodes[1].tortie().and_then(crate::tortie::TortieNode::kill);
        (pings.join(), killed)
    });
    killed?;
    ping.map_err(|_| anyhow::anyhow!("pinging panicked"))??;
    let answer: ShowRoute = cluster.nodes[0].tortie()?.show(&format!("route {address}"))?;
    let next_hop = cluster.nodes[3].address(Family::V4)?;
    ensure!(
        answer.nexthops.iter().any(|hop| hop.via == Some(next_hop)),
        "without rr1 node1's way to {address} is {answer:?}"
    );
    lab.proved(format!("rr1 is killed under {PINGS} pings from {} to {}: none lost", from.name(), to.name()));
    Ok(())
}
