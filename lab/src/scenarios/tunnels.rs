//! IPIP and VXLAN as pools ask for them: nodes in two subnets, and between these a router that knows no workload.

mod ipv6;
mod subnets;
mod wire;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;
use crate::scenario::{Scenario, Store};
use crate::tortie::ShowRoute;
use crate::{Lab, command, traffic};

use subnets::{NodePlan, Subnets};

/// Every packet to another node's workload in IPIP.
pub(super) const IPIP_ALWAYS: Scenario = Scenario {
    name: "ipip-always",
    about: "IPIP between all nodes, routes by BGP; before, without it, the other subnet's workload can't be reached",
    programs: PROGRAMS,
    tortie: true,
    alone: false,
    store: Store::Either,
    run: |lab, _| run(lab, &Plan { kind: Kind::Ipip, mode: "Always", source: "bgp", nodes: &subnets::NODES }),
};

/// IPIP to the other subnet only.
pub(super) const IPIP_CROSS_SUBNET: Scenario = Scenario {
    name: "ipip-cross-subnet",
    about: "IPIP to nodes in another subnet, plain packets within one; routes from blocks, no BGP",
    programs: PROGRAMS,
    tortie: true,
    alone: false,
    store: Store::Either,
    run: |lab, _| {
        run(lab, &Plan { kind: Kind::Ipip, mode: "CrossSubnet", source: "ipam", nodes: &subnets::NODES })
    },
};

/// Every packet to another node's workload in VXLAN, and Linux as one of the ends.
pub(super) const VXLAN_ALWAYS: Scenario = Scenario {
    name: "vxlan-always",
    about: "VXLAN between all nodes, IPv4 and IPv6, without BGP; one of them Linux with a vxlan device as Calico sets it up",
    programs: PROGRAMS,
    tortie: true,
    alone: false,
    store: Store::Either,
    run: |lab, _| {
        run(
            lab,
            &Plan { kind: Kind::Vxlan, mode: "Always", source: "vxlan", nodes: &subnets::NODES_AND_LINUX },
        )
    },
};

/// VXLAN to the other subnet only.
pub(super) const VXLAN_CROSS_SUBNET: Scenario = Scenario {
    name: "vxlan-cross-subnet",
    about: "VXLAN to nodes in another subnet, plain packets within one, IPv4 and IPv6, no BGP",
    programs: PROGRAMS,
    tortie: true,
    alone: false,
    store: Store::Either,
    run: |lab, _| {
        run(lab, &Plan { kind: Kind::Vxlan, mode: "CrossSubnet", source: "vxlan", nodes: &subnets::NODES })
    },
};

const PROGRAMS: &[&str] = &["ping", "tcpdump", "tshark", "ethtool", "iperf3", "traceroute", "bridge"];

/// How long routes may take.
const CONVERGE: Duration = Duration::from_secs(90);
/// How long the first reply may take.
const FIRST_REPLY: Duration = Duration::from_secs(60);
/// How much iperf3 sends by TCP: enough to need the path's MTU, little enough to be dissected whole.
const MEGABYTES: u32 = 10;

/// How many datagrams, 200 a second.
const DATAGRAMS: u32 = 200;
/// How much a host sends by TCP, in bytes.
const HOST_BYTES: u64 = 1_000_000;

/// Which encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ipip,
    Vxlan,
}

/// What is raised.
struct Plan {
    kind: Kind,
    /// The pool's mode of this encapsulation.
    mode: &'static str,
    /// Who has the routes between nodes, as `show route` names it.
    source: &'static str,
    nodes: &'static [NodePlan],
}

impl Plan {
    fn has_mesh(&self) -> bool {
        self.source == "bgp"
    }

    /// Are packets between these nodes encapsulated?
    fn encapsulates(&self, from: &NodePlan, to: &NodePlan) -> bool {
        self.mode == "Always" || from.subnet != to.subnet
    }

    /// The pool's modes, of IPIP and of VXLAN.
    fn modes(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Ipip => (self.mode, "Never"),
            Kind::Vxlan => ("Never", self.mode),
        }
    }
}

fn run(lab: &Lab, plan: &Plan) -> Result<()> {
    let starts_plain = plan.has_mesh() && plan.mode == "Always";
    let modes = if starts_plain { ("Never", "Never") } else { plan.modes() };
    let subnets = Subnets::raise(lab, plan, modes)?;
    subnets.start()?;
    if plan.has_mesh() {
        subnets.mesh_is_up()?;
    }
    if starts_plain {
        without_encapsulation_only_the_own_subnet_is_reached(lab, &subnets)?;
        subnets.pool(plan.modes())?;
    }
    routes_are_told_with_their_tunnels(lab, plan, &subnets)?;
    subnets.everybody_reaches_everybody()?;

    let captures = wire::Captures::start(lab, &subnets)?;
    subnets.everybody_reaches_everybody()?;
    hosts_reach_workloads_and_are_reached(lab, plan, &subnets)?;
    the_tunnel_is_one_hop(lab, &subnets)?;
    bulk_arrives(lab, plan, &subnets)?;
    captures.stop()?.show_what_was_asked_for(lab, plan, &subnets)?;
    if plan.kind == Kind::Vxlan {
        ipv6::pools_of_ipv6_go_by_vxlan_over_ipv6(lab, plan, &subnets)?;
    }
    subnets.books_balance()
}

/// What the documents show of `off`: the router between drops what it has no route for.
fn without_encapsulation_only_the_own_subnet_is_reached(lab: &Lab, subnets: &Subnets<'_>) -> Result<()> {
    let from = &subnets.nodes[0].workload.namespace;
    for node in &subnets.nodes[1..] {
        subnets.route_is(&subnets.nodes[0], node, |route| {
            route.fate == "forward" && route.nexthops.iter().all(|hop| hop.tunnel.is_none())
        })?;
    }
    let (near, far) = (subnets.nodes[1].plan.workload(), subnets.nodes[2].plan.workload());
    traffic::reaches(lab, from, near, FIRST_REPLY)?;
    let ping = traffic::ping(from, far, 3)?;
    ensure!(ping.received == 0, "{far} answered although the router between has no route to it");
    lab.proved(format!("without encapsulation {near} is reached, and {far} beyond the router is not"));
    Ok(())
}

/// On every Tortie node, to every other node's workload.
fn routes_are_told_with_their_tunnels(lab: &Lab, plan: &Plan, subnets: &Subnets<'_>) -> Result<()> {
    for (from, to) in subnets.pairs() {
        if from.tortie.is_none() {
            continue;
        }
        let expected = plan.encapsulates(from.plan, to.plan);
        let is_so = |route: &ShowRoute| {
            let tunnel = route.nexthops.first().and_then(|hop| hop.tunnel.as_ref());
            let through = match from.plan.subnet == to.plan.subnet {
                true => to.plan.address(),
                false => subnets::gateway(from.plan.subnet),
            };
            route.fate == "forward"
                && route.source.as_deref() == Some(plan.source)
                && route.nexthops.iter().all(|hop| hop.via == Some(through))
                && match tunnel {
                    None => !expected,
                    Some(tunnel) => {
                        let (kind, vni) = match plan.kind {
                            Kind::Ipip => ("ipip", None),
                            Kind::Vxlan => ("vxlan", Some(4096)),
                        };
                        expected
                            && (tunnel.kind.as_str(), tunnel.vni) == (kind, vni)
                            && (tunnel.local, tunnel.remote) == (from.plan.address(), to.plan.address())
                    }
                }
        };
        subnets.route_is(from, to, is_so)?;
    }
    let told = subnets.nodes[0].tortie.as_ref().context("the first node is a Tortie")?;
    let text = told.show_text(&format!("route {}", subnets.nodes[2].plan.workload()))?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let name = match plan.kind {
        Kind::Ipip => "ipip to 172.16.199.114",
        Kind::Vxlan => "vxlan vni 4096 to 172.16.199.114",
    };
    ensure!(text.contains(name), "`show route` doesn't say \"{name}\": {text}");
    lab.proved(format!("every node's routes name the tunnels that the pool asks for, such as \"{name}\""));
    Ok(())
}

/// The host itself as one more sender and receiver (D1a).
fn hosts_reach_workloads_and_are_reached(lab: &Lab, plan: &Plan, subnets: &Subnets<'_>) -> Result<()> {
    for (from, to) in subnets.pairs() {
        for (inside, target) in
            [(&from.namespace, to.plan.workload()), (&to.workload.namespace, from.plan.tunnel())]
        {
            traffic::reaches(lab, inside, target, FIRST_REPLY)?;
            traffic::answered(inside, target, 2)?;
        }
        let source = source_towards(&from.namespace, to.plan.workload())?;
        let expected = match plan.encapsulates(from.plan, to.plan) {
            true => from.plan.tunnel(),
            false => from.plan.address(),
        };
        ensure!(source == expected, "{} sends to {} from {source}", from.plan.name, to.plan.workload());
    }
    for to in &subnets.nodes[1..3] {
        // In full segments: the host has to know how much fits into the tunnel.
        let (from, inside) = (&subnets.nodes[0].namespace, &to.workload.namespace);
        traffic::transfer(lab, from, inside, to.plan.workload(), HOST_BYTES)?;
    }
    lab.proved(
        "hosts reach other nodes' workloads, from their tunnel address where the pool asks for a tunnel, and are \
         reached at it; 1 MB of TCP from a host arrives intact in both subnets",
    );
    Ok(())
}

/// The source address that the kernel of a namespace chooses.
fn source_towards(namespace: &Namespace, target: IpAddr) -> Result<IpAddr> {
    let route = namespace.ip(&format!("route get {target}"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "src");
    let source = words.nth(1).with_context(|| format!("no source in: {route}"))?;
    Ok(source.parse()?)
}

/// A sender sees both nodes and not what carries the tunnel.
fn the_tunnel_is_one_hop(lab: &Lab, subnets: &Subnets<'_>) -> Result<()> {
    let (from, to) = (&subnets.nodes[0], &subnets.nodes[2]);
    let target = to.plan.workload();
    let mut traceroute = from.workload.namespace.command("traceroute");
    traceroute.args(["-n", "-q", "1", "-w", super::nat_site::PATIENT, "-m", "6", &target.to_string()]);
    let text = command::run(&mut traceroute, Duration::from_secs(30))?;
    let hops: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    let expected = [from.plan.address(), to.plan.address(), target].map(|hop| hop.to_string());
    ensure!(hops == expected, "traceroute from {} to {target} says: {text}", from.workload.name());
    lab.proved(format!("traceroute to {target}: {}", expected.join(", ")));
    Ok(())
}

/// TCP in segments of the path's MTU, and UDP: to the same subnet, to the other one, and to and from Linux.
fn bulk_arrives(lab: &Lab, plan: &Plan, subnets: &Subnets<'_>) -> Result<()> {
    let first = &subnets.nodes[0];
    for other in &subnets.nodes[1..] {
        let is_linux = other.tortie.is_none();
        let ways = [(first, other), (other, first)];
        for (from, to) in ways.into_iter().take(if is_linux { 2 } else { 1 }) {
            let (inside, target) = (&from.workload.namespace, to.plan.workload());
            let speed = traffic::iperf3_megabytes(lab, inside, &to.workload.namespace, target, MEGABYTES)?;
            traffic::datagrams(lab, inside, &to.workload.namespace, target, DATAGRAMS, 1200)?;
            lab.proved(format!(
                "iperf3 from {} to {} ({}{}): TCP {:.2} Gbit/s, {} segments sent again; {DATAGRAMS} UDP datagrams, none lost",
                from.plan.name,
                to.plan.name,
                if plan.encapsulates(from.plan, to.plan) { "tunnelled" } else { "plain" },
                if is_linux { ", Linux at one end" } else { "" },
                speed.bits_per_second / 1e9,
                speed.retransmits
            ));
        }
    }
    Ok(())
}
