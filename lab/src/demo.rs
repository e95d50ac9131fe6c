//! The demonstration: a small Calico cluster behind a ToR, and what it proves, as a table.

use std::time::Instant;

use anyhow::{Result, bail};
use model::{Family, InterfaceAddr};

use crate::bird::{Bird, PlainRouter, Session};
use crate::cluster::{CONVERGE, Cluster, ClusterPlan, NodePlan, RouterKind, nth};
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::scenario::{Options, Scenario, Store};
use crate::table::Table;
use crate::tortie::{ShowPorts, ShowRoutes};
use crate::traffic::{self, Ping};
use crate::{Lab, books};

/// Three Tortie nodes in a mesh, a ToR with BGP to each of them, an outside host behind it.
pub const DEMO: Scenario = Scenario {
    name: "demo",
    about: "three Tortie nodes and a ToR: BGP up, workloads ping each other, iperf3 between them",
    programs: &["bird", "birdc", "ping", "iperf3", "ethtool", "nft"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const TOR: [&str; 2] = ["172.18.0.1/24", "fd18::1/64"];
const TOR_AS: u32 = 64600;
const CLUSTER_AS: u32 = 64512;
/// The network behind the ToR: its own address and that of the host in it.
const OUTSIDE: [(&str, &str, &str); 2] =
    [("10.99.0.0/24", "10.99.0.1/24", "10.99.0.2/24"), ("fd99::/64", "fd99::1/64", "fd99::2/64")];
/// How long each iperf3 runs, in seconds.
const IPERF_SECONDS: u32 = 3;
/// How many requests a latency is taken from.
const PINGS: u32 = 20;

const PLAN: ClusterPlan = ClusterPlan {
    fabric: "tor",
    as_number: CLUSTER_AS,
    pools: [("10.65.0.0/16", 26), ("fd65::/48", 122)],
    nodes: &[
        NodePlan {
            name: "node1",
            router: RouterKind::Tortie,
            addresses: ["172.18.0.2/24", "fd18::2/64"],
            blocks: ["10.65.1.0/26", "fd65::1:0/122"],
            workloads: 2,
        },
        NodePlan {
            name: "node2",
            router: RouterKind::Tortie,
            addresses: ["172.18.0.3/24", "fd18::3/64"],
            blocks: ["10.65.2.0/26", "fd65::2:0/122"],
            workloads: 2,
        },
        NodePlan {
            name: "node3",
            router: RouterKind::Tortie,
            addresses: ["172.18.0.4/24", "fd18::4/64"],
            blocks: ["10.65.3.0/26", "fd65::3:0/122"],
            workloads: 2,
        },
    ],
};

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut cluster = Cluster::raise(lab, &PLAN)?;
    let outside = outside(lab, &cluster.fabric)?;
    for (index, tor) in TOR.iter().enumerate() {
        cluster.resources.bgp_peer(&format!("tor-{index}"), None, host(tor)?, TOR_AS)?;
    }
    let tor = Bird::start(lab, cluster.fabric.namespace(), &tor_router()?.render())?;
    let begin = Instant::now();
    cluster.start()?;
    // One session with the ToR per family, beside the mesh.
    cluster.mesh_is_up(Family::ALL.len())?;
    lab.wait("the ToR's sessions", CONVERGE, || tor.established(PLAN.nodes.len() * 2).map(Some))?;
    cluster.blocks_are_known()?;
    lab.proved(format!(
        "BGP converged {:.1} s after the first router was started",
        begin.elapsed().as_secs_f64()
    ));
    cluster.everybody_reaches_everybody()?;
    for workload in cluster.workloads() {
        for (_, _, address) in OUTSIDE {
            traffic::reaches(lab, &workload.namespace, host(address)?, CONVERGE)?;
        }
    }
    lab.proved("every workload reaches the host behind the ToR, by IPv4 and IPv6");
    unused_addresses(lab, &cluster)?;
    let measured = measure(lab, &cluster, &outside)?;
    cluster.books_balance()?;
    lab.progress().line(&format!("\n{}", sessions(&cluster)?.render()));
    lab.progress().line(&routes(&cluster)?.render());
    lab.progress().line(&measured.render());
    lab.progress().line(&queues(&cluster)?.render());
    lab.progress().line(&fates(lab, &cluster)?.render());
    lab.progress().line(&lost_before_the_walk(&cluster)?.render());
    Ok(())
}

fn host(text: &str) -> Result<std::net::IpAddr> {
    Ok(text.parse::<InterfaceAddr>()?.addr)
}

/// The ToR is the switch's own namespace: an address on the bridge, and the kernel's forwarding behind it.
fn outside(lab: &Lab, fabric: &Fabric) -> Result<Namespace> {
    let tor = fabric.namespace();
    tor.forward()?;
    for address in TOR {
        link::add_address(tor, Fabric::BRIDGE, address.parse()?)?;
    }
    let outside = lab.namespace("outside")?;
    link::veth(link::End::new(&outside, "eth0"), link::End::new(tor, "outside"))?;
    // What it sends to workloads comes in through the ToR's kernel; its checksums must be complete (D8).
    link::transmit_checksums_by_software(&outside, "eth0")?;
    for (_, near, far) in OUTSIDE {
        link::add_address(tor, "outside", near.parse()?)?;
        link::add_address(&outside, "eth0", far.parse()?)?;
        let gateway = host(near)?;
        outside.ip(&format!(
            "{} route add default via {gateway}",
            if gateway.is_ipv6() { "-6" } else { "-4" }
        ))?;
    }
    Ok(outside)
}

/// The ToR learns the nodes' blocks into its kernel and announces the network behind it.
fn tor_router() -> Result<PlainRouter> {
    let mut sessions = Vec::new();
    for node in PLAN.nodes {
        for (tor, address) in TOR.iter().zip(node.addresses) {
            sessions.push(Session::direct((host(tor)?, TOR_AS), (host(address)?, CLUSTER_AS), "filter own"));
        }
    }
    let std::net::IpAddr::V4(router_id) = host(TOR[0])? else { bail!("the ToR's first address is not IPv4") };
    let routes = OUTSIDE.iter().map(|(network, _, far)| Ok(format!("{network} via {}", host(far)?)));
    Ok(PlainRouter { router_id, routes: routes.collect::<Result<_>>()?, kernel: true, sessions })
}

/// A few packets to an address that nobody has, so that the drops by reason have something to show.
fn unused_addresses(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let from = &cluster.nodes[0].workloads[0].namespace;
    let ping = traffic::ping(from, nth(cluster.nodes[1].block(Family::V4)?, 40), 3)?;
    if ping.received > 0 {
        bail!("an address that nobody has answered");
    }
    lab.proved("packets to an unused address of a block are not answered");
    Ok(())
}

/// Latency and throughput: between two nodes, within one node, and to the host behind the ToR.
fn measure(lab: &Lab, cluster: &Cluster<'_>, outside: &Namespace) -> Result<Table> {
    let mut table =
        Table::new(&["path", "IP", "ping us: min / mean / max", "Gbit/s", "sent again", "lost pings"]);
    let one = &cluster.nodes[0].workloads[0];
    let beside = &cluster.nodes[0].workloads[1];
    let (_, distant) = cluster.distant_workloads()?;
    for family in Family::ALL {
        let away = host(OUTSIDE[usize::from(family == Family::V6)].2)?;
        let paths = [
            ("workload to workload, two nodes", &distant.namespace, distant.address(family)?),
            ("workload to workload, one node", &beside.namespace, beside.address(family)?),
            ("workload to the host behind the ToR", outside, away),
        ];
        for (name, to, address) in paths {
            lab.step(&format!("{name}, {family:?}"));
            let ping = traffic::answered(&one.namespace, address, PINGS)?;
            let speed = traffic::iperf3(lab, &one.namespace, to, address, IPERF_SECONDS)?;
            table.row([
                name.to_owned(),
                format!("{family:?}"),
                latency(ping),
                format!("{:.2}", speed.bits_per_second / 1e9),
                speed.retransmits.to_string(),
                format!("{} of {}", ping.sent - ping.received, ping.sent),
            ]);
        }
    }
    lab.proved("iperf3 ran between two nodes, within one, and to the host behind the ToR");
    Ok(table)
}

/// Microseconds.
fn latency(ping: Ping) -> String {
    ping.round_trip.map_or_else(
        || "-".to_owned(),
        |time| {
            let [min, mean, max] = [time.min_ms, time.mean_ms, time.max_ms].map(|ms| ms * 1000.0);
            format!("{min:.0} / {mean:.0} / {max:.0}")
        },
    )
}

fn sessions(cluster: &Cluster<'_>) -> Result<Table> {
    let mut table = Table::new(&["node", "peer", "type", "AS", "state", "received", "announced"]);
    for node in &cluster.nodes {
        for peer in node.tortie()?.established(0)? {
            table.row([
                node.name().to_owned(),
                peer.address.to_string(),
                peer.kind,
                peer.asn.to_string(),
                peer.state,
                (peer.received.ipv4 + peer.received.ipv6).to_string(),
                (peer.announced.ipv4 + peer.announced.ipv6).to_string(),
            ]);
        }
    }
    Ok(table)
}

fn routes(cluster: &Cluster<'_>) -> Result<Table> {
    let mut table = Table::new(&["node", "routes", "installed", "by source"]);
    for node in &cluster.nodes {
        let routes: ShowRoutes = node.tortie()?.show("routes")?;
        let installed = routes.routes.iter().filter(|route| route.installed).count();
        let by_source = routes.counts.iter().filter(|(_, count)| **count > 0);
        let by_source = by_source.map(|(source, count)| format!("{source} {count}"));
        table.row([
            node.name().to_owned(),
            routes.total.to_string(),
            installed.to_string(),
            by_source.collect::<Vec<_>>().join(", "),
        ]);
    }
    Ok(table)
}

/// How each port was really attached: one line per node and kind of attachment.
fn queues(cluster: &Cluster<'_>) -> Result<Table> {
    let mut table = Table::new(&["node", "port", "kind", "queues"]);
    for node in &cluster.nodes {
        let ports: ShowPorts = node.tortie()?.show("ports")?;
        for port in ports.ports {
            let queue =
                |queue: &crate::tortie::Queue| format!("{}: {} {}", queue.queue, queue.mode, queue.attach);
            let queues = port.queues.iter().map(queue).collect::<Vec<_>>().join(", ");
            table.row([node.name().to_owned(), port.name, port.kind, queues]);
        }
    }
    Ok(table)
}

fn fates(lab: &Lab, cluster: &Cluster<'_>) -> Result<Table> {
    let mut table =
        Table::new(&["node", "received", "injected", "forwarded", "punted", "dropped", "drops by reason"]);
    for node in &cluster.nodes {
        let books = books::settled(lab, node.tortie()?)?;
        let reasons = books.dropped.reasons.iter().filter(|(_, count)| **count > 0);
        let reasons =
            reasons.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ");
        table.row([
            node.name().to_owned(),
            books.received.to_string(),
            books.injected.to_string(),
            books.forwarded.to_string(),
            books.punted.total.to_string(),
            books.dropped.total.to_string(),
            if reasons.is_empty() { "none".to_owned() } else { reasons },
        ]);
    }
    Ok(table)
}

/// What the kernel could not hand to the workers, all queues of a node together: no part of the router's books.
fn lost_before_the_walk(cluster: &Cluster<'_>) -> Result<Table> {
    let mut table =
        Table::new(&["node", "lost before the walk", "ring was full", "other", "times without a free frame"]);
    for node in &cluster.nodes {
        let ports: ShowPorts = node.tortie()?.show("ports")?;
        let counts = || ports.ports.iter().flat_map(|port| &port.queues).map(|queue| queue.xdp);
        let ring_full: u64 = counts().map(|xdp| xdp.rx_ring_full).sum();
        let other: u64 = counts().map(|xdp| xdp.rx_dropped).sum();
        let no_frame: u64 = counts().map(|xdp| xdp.rx_fill_ring_empty).sum();
        table.row([
            node.name().to_owned(),
            (ring_full + other).to_string(),
            ring_full.to_string(),
            other.to_string(),
            no_frame.to_string(),
        ]);
    }
    Ok(table)
}
