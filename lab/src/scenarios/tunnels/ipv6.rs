//! The same over IPv6: a pool of IPv6 by VXLAN between the nodes' IPv6 addresses.

use anyhow::{Context, Result, ensure};

use super::subnets::{Node, Subnets};
use super::{CONVERGE, FIRST_REPLY, HOST_BYTES, Plan};
use crate::Lab;
use crate::capture::Capture;
use crate::dissected;
use crate::link::Fabric;
use crate::tortie::ShowRoute;
use crate::traffic;

/// Tunnels over IPv6, and workloads' packets outside them.
const FILTER: &str = "ip6 and (udp port 4789 or net fd65::/48)";

/// Tortie nodes reach each other's workloads and are reached at their tunnel addresses; on the wire is what the pool asks
/// for.
pub(super) fn pools_of_ipv6_go_by_vxlan_over_ipv6(
    lab: &Lab,
    plan: &Plan,
    subnets: &Subnets<'_>,
) -> Result<()> {
    let ours = |pair: &(&Node, &Node)| pair.0.tortie.is_some() && pair.1.tortie.is_some();
    for (from, to) in subnets.pairs().filter(ours) {
        let tortie = from.tortie.as_ref().context("a Tortie")?;
        let target = to.plan.workload_v6();
        lab.wait(&format!("the route of {} to {target}", from.plan.name), CONVERGE, || {
            let route: ShowRoute = tortie.show(&format!("route {target}"))?;
            let remote =
                route.nexthops.first().and_then(|hop| hop.tunnel.as_ref()).map(|tunnel| tunnel.remote);
            let expected = plan.encapsulates(from.plan, to.plan).then(|| to.plan.address_v6());
            ensure!(route.fate == "forward" && remote == expected, "it is {route:?}");
            Ok(Some(()))
        })?;
    }
    let [near, far] = &subnets.fabrics;
    let start = |fabric: &Fabric| Capture::start(lab, fabric.namespace(), Fabric::BRIDGE, FILTER);
    let captures = [start(near)?, start(far)?];
    for (from, to) in subnets.pairs().filter(ours) {
        for (inside, target) in [
            (&from.workload.namespace, to.plan.workload_v6()),
            (&from.namespace, to.plan.workload_v6()),
            (&from.workload.namespace, to.plan.tunnel_v6()),
        ] {
            traffic::reaches(lab, inside, target, FIRST_REPLY)?;
            traffic::answered(inside, target, 2)?;
        }
    }
    let (first, last) = (&subnets.nodes[0], &subnets.nodes[2]);
    for from in [&first.workload.namespace, &first.namespace] {
        traffic::transfer(lab, from, &last.workload.namespace, last.plan.workload_v6(), HOST_BYTES)?;
    }
    let mut counts = (0, 0);
    for capture in captures {
        let captured = capture.stop()?;
        for frame in dissected::frames_v6(&captured)? {
            let [from, to] = [frame.source, frame.destination].map(|address| {
                plan.nodes.iter().find(|node| node.owns_v6(address)).context("nobody's address")
            });
            let (from, to) =
                (from.with_context(|| format!("{frame:?}"))?, to.with_context(|| format!("{frame:?}"))?);
            let is_tunnelled = frame.wrapping != dissected::Wrapping::Plain;
            ensure!(is_tunnelled == plan.encapsulates(from, to), "not what the pool asks for: {frame:?}");
            if let dissected::Wrapping::Vxlan { outer, port, vni, .. } = &frame.wrapping {
                let expected = (from.address_v6(), to.address_v6(), 4789, 4096);
                ensure!(
                    (outer.source, outer.destination, *port, *vni) == expected,
                    "wrong tunnel: {frame:?}"
                );
            }
            counts = (counts.0 + 1, counts.1 + usize::from(is_tunnelled));
        }
    }
    ensure!(counts.1 > 0, "nothing went by a tunnel");
    lab.proved(format!(
        "IPv6: workloads and hosts reach each other, 1 MB of TCP from both arrives; of {} frames on both wires {} are in \
         VXLAN over IPv6, exactly those that the pool asks for, none malformed and no bad checksum",
        counts.0, counts.1
    ));
    Ok(())
}
