//! Links of different MTU: senders learn what fits, what may be cut is cut, and nobody notices but by the sizes.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::Family;

use crate::cluster::{CONVERGE, Cluster, ClusterPlan, NodePlan, RouterKind, UPLINK, nth};
use crate::netns::Namespace;
use crate::scenario::{Options, Scenario};
use crate::tortie::ShowDrops;
use crate::workload::INTERFACE;
use crate::{Lab, command, traffic};

/// 1500 bytes at the ends, 1400 in the middle, 1300 in front of one workload.
pub(super) const PATH_MTU: Scenario = Scenario {
    name: "path-mtu",
    about: "1500 bytes at the ends, 1400 in the middle, plain and by tunnels: TCP without retransmission storms, UDP told or cut",
    programs: &["ping", "traceroute", "nstat", "ss", "ethtool"],
    tortie: true,
    alone: true,
    run,
};

/// The MTU of both nodes' uplinks; the workloads' is [`crate::link::MTU`].
const MIDDLE: u32 = 1400;
/// The MTU in front of the second workload of the first node.
const NARROW: u32 = 1300;
/// Bytes of a transfer: some 15 000 segments.
const TRANSFER: u64 = 20_000_000;
/// A datagram that takes three fragments at the sender, each larger than the middle but the last.
const DATAGRAM: usize = 4_000;
const DATAGRAMS: u32 = 100;

const PLAN: ClusterPlan = ClusterPlan {
    fabric: "fabric",
    as_number: 64512,
    pools: [("10.65.0.0/16", 26), ("fd65::/48", 122)],
    nodes: &[
        NodePlan {
            name: "near",
            router: RouterKind::Tortie,
            addresses: ["172.18.0.2/24", "fd18::2/64"],
            blocks: ["10.65.0.0/26", "fd65::/122"],
            workloads: 2,
        },
        NodePlan {
            name: "far",
            router: RouterKind::Tortie,
            addresses: ["172.18.0.3/24", "fd18::3/64"],
            blocks: ["10.65.1.0/26", "fd65::1:0/122"],
            workloads: 1,
        },
    ],
};

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut cluster = Cluster::raise(lab, &PLAN)?;
    for node in &cluster.nodes {
        node.namespace.ip(&format!("link set {UPLINK} mtu {MIDDLE}"))?;
    }
    let near = &cluster.nodes[0];
    // Our end only: the workload itself tells its peers that it takes 1500 bytes.
    near.namespace.ip(&format!("link set {} mtu {NARROW}", near.workloads[1].interface))?;
    cluster.start()?;
    cluster.mesh_is_up(0)?;
    cluster.blocks_are_known()?;
    cluster.everybody_reaches_everybody()?;
    for family in Family::ALL {
        over_the_middle(lab, &cluster, family)?;
        on_one_node(lab, &cluster, family)?;
    }
    cut_by_the_router(lab, &cluster)?;
    for tunnel in &TUNNELS {
        through(lab, &cluster, tunnel)?;
    }
    cluster.books_balance()
}

/// Pools that go by tunnels from now on, and the MTU that is left within.
struct Tunnel {
    name: &'static str,
    /// `ipipMode` and `vxlanMode` of the IPv4 pool, then of the IPv6 pool.
    modes: [[&'static str; 2]; 2],
    /// The families that it carries, and what fits.
    fits: &'static [(Family, u32)],
    /// What workloads' interfaces are brought down to.
    workloads: u32,
}

const TUNNELS: [Tunnel; 2] = [
    Tunnel {
        name: "IPIP",
        modes: [["Always", "Never"], ["Never", "Never"]],
        fits: &[(Family::V4, MIDDLE - 20)],
        workloads: MIDDLE - 20,
    },
    Tunnel {
        name: "VXLAN",
        modes: [["Never", "Always"], ["Never", "Always"]],
        fits: &[(Family::V4, MIDDLE - 50), (Family::V6, MIDDLE - 70)],
        workloads: MIDDLE - 70,
    },
];

/// The same once more through a tunnel: workloads are brought down to what it leaves; one that insists on 1500 bytes
/// learns, and is cut where it may be.
fn through(lab: &Lab, cluster: &Cluster<'_>, tunnel: &Tunnel) -> Result<()> {
    for (index, ((pool, block_size), [ipip, vxlan])) in PLAN.pools.iter().zip(tunnel.modes).enumerate() {
        let name = format!("pool-{index}");
        let spec = format!(
            "  cidr: {pool}\n  blockSize: {block_size}\n  ipipMode: {ipip}\n  vxlanMode: {vxlan}\n  natOutgoing: false\n  nodeSelector: all()\n"
        );
        manifest(cluster, "IPPool", &name, &spec)?;
    }
    for node in &cluster.nodes {
        let [v4, v6] = Family::ALL.map(|family| node.block(family).map(|block| nth(block, 50)));
        let (v4, v6) = (v4?, v6?);
        let spec = format!(
            "  bgp:\n    ipv4Address: {}\n    ipv6Address: {}\n    ipv4IPIPTunnelAddr: {v4}\n  ipv4VXLANTunnelAddr: {v4}\n  ipv6VXLANTunnelAddr: {v6}\n",
            node.addresses[0], node.addresses[1]
        );
        manifest(cluster, "Node", node.name(), &spec)?;
    }
    let (from, to) = cluster.distant_workloads()?;
    for workload in [from, to] {
        workload.namespace.set(&[("net/ipv4/ip_no_pmtu_disc", "0")])?;
        let what = format!("{} to be brought down to {} bytes", workload.name(), tunnel.workloads);
        lab.wait(&what, CONVERGE, || {
            let shown = workload.namespace.ip(&format!("link show {INTERFACE}"))?;
            Ok(shown.contains(&format!(" mtu {} ", tunnel.workloads)).then_some(()))
        })?;
    }
    lab.proved(format!("{}: workloads' interfaces are brought down to {}", tunnel.name, tunnel.workloads));
    for &(family, _) in tunnel.fits {
        traffic::reaches(lab, &from.namespace, to.address(family)?, CONVERGE)?;
        traffic::transfer(lab, &from.namespace, &to.namespace, to.address(family)?, TRANSFER)?;
    }
    // By hand, which stays: both sides now ask for segments that no tunnel takes.
    for (workload, node) in [(from, &cluster.nodes[0]), (to, &cluster.nodes[1])] {
        node.namespace.ip(&format!("link set {} mtu {}", workload.interface, crate::link::MTU))?;
        workload.namespace.ip(&format!("link set {INTERFACE} mtu {}", crate::link::MTU))?;
    }
    for &(family, mtu) in tunnel.fits {
        lab.step(&format!("{}: {family:?} through the tunnel", tunnel.name));
        transfer(lab, &from.namespace, &to.namespace, to.address(family)?, mtu)?;
        transfer(lab, &to.namespace, &from.namespace, from.address(family)?, mtu)?;
    }
    [from, to].into_iter().try_for_each(|workload| {
        forget(&workload.namespace)?;
        workload.namespace.set(&[("net/ipv4/ip_no_pmtu_disc", "1")])
    })?;
    let target = to.address(Family::V4)?;
    traffic::datagrams(lab, &from.namespace, &to.namespace, target, DATAGRAMS, DATAGRAM)?;
    lab.proved(format!("{}: {DATAGRAMS} datagrams, cut in front of the tunnel, arrive intact", tunnel.name));
    Ok(())
}

fn manifest(cluster: &Cluster<'_>, kind: &str, name: &str, spec: &str) -> Result<()> {
    let text =
        format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{spec}");
    cluster.resources.write(&format!("{}-{name}.yaml", kind.to_lowercase()), &text)
}

/// Between nodes: the MTU is learned from ICMP, and TCP goes on at once with what fits.
fn over_the_middle(lab: &Lab, cluster: &Cluster<'_>, family: Family) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    let target = to.address(family)?;
    let router = cluster.nodes[0].address(family)?;
    told_by_ping(lab, &from.namespace, target, router, MIDDLE)?;
    transfer(lab, &from.namespace, &to.namespace, target, MIDDLE)?;
    let back = from.address(family)?;
    transfer(lab, &to.namespace, &from.namespace, back, MIDDLE)?;
    forget(&from.namespace)?;
    traced(lab, &from.namespace, target, MIDDLE)
}

/// Workload to workload and host to workload on one node, through the port that takes 1300 bytes.
fn on_one_node(lab: &Lab, cluster: &Cluster<'_>, family: Family) -> Result<()> {
    let node = &cluster.nodes[0];
    let (wide, narrow) = (&node.workloads[0], &node.workloads[1]);
    let target = narrow.address(family)?;
    transfer(lab, &wide.namespace, &narrow.namespace, target, NARROW)?;
    transfer(lab, &node.namespace, &narrow.namespace, target, NARROW)?;
    // The way back is as wide as the workload: the host takes what it sends.
    let host = node.address(family)?;
    traffic::transfer(lab, &narrow.namespace, &node.namespace, host, TRANSFER / 10)?;
    lab.proved(format!("{family:?}: a workload sends its own host {host} what the host takes"));
    Ok(())
}

/// Without "don't fragment" a router cuts: whole datagrams, and fragments of the sender's own.
fn cut_by_the_router(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    let target = to.address(Family::V4)?;
    for workload in [from, to] {
        forget(&workload.namespace)?;
        workload.namespace.set(&[("net/ipv4/ip_no_pmtu_disc", "1")])?;
    }
    let router = cluster.nodes[0].tortie()?;
    let before: ShowDrops = router.show("drops")?;
    for size in [1_472, DATAGRAM] {
        traffic::datagrams(lab, &from.namespace, &to.namespace, target, DATAGRAMS, size)?;
    }
    let after: ShowDrops = router.show("drops")?;
    let (cut, made) = (after.fragmented - before.fragmented, after.fragments - before.fragments);
    // One of the small ones, two of the three that a large one already is.
    ensure!(
        cut == u64::from(DATAGRAMS) * 3 && made == cut * 2,
        "{cut} packets were cut into {made} fragments, not {} into {}",
        DATAGRAMS * 3,
        DATAGRAMS * 6
    );
    lab.proved(format!(
        "UDP without \"don't fragment\": {DATAGRAMS} datagrams of 1472 and of {DATAGRAM} bytes arrive with their hash intact; {cut} packets cut into {made} fragments"
    ));
    let reassembled = absolute(&to.namespace, "IpReasmOKs")?;
    ensure!(
        reassembled >= u64::from(DATAGRAMS) * 2,
        "{reassembled} datagrams were put together by {}",
        to.name()
    );
    // Replies as well: ping compares every byte of them.
    let mut ping = from.namespace.command("ping");
    ping.args(["-n", "-c", "5", "-i", "0.2", "-W", "2", "-M", "dont", "-s", "3000", &target.to_string()]);
    let said = command::run(&mut ping, Duration::from_secs(20))?;
    ensure!(said.contains("5 received") && !said.contains("wrong data"), "{said}");
    lab.proved("ping with 3000 bytes, cut on both ways: 5 of 5 replies with every byte right");
    Ok(())
}

/// A packet that must not be fragmented is answered by the router with the MTU.
fn told_by_ping(lab: &Lab, from: &Namespace, to: IpAddr, router: IpAddr, mtu: u32) -> Result<()> {
    let mut ping = from.command("ping");
    ping.args(["-n", "-c", "2", "-i", "0.5", "-W", "1", "-M", "do", "-s", "1440", &to.to_string()]);
    let output = command::output(&mut ping, Duration::from_secs(15))?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let first = said.lines().find(|line| line.starts_with(&format!("From {router} "))).unwrap_or_default();
    ensure!(
        first.contains(&format!("mtu = {mtu}")) || first.contains(&format!("mtu={mtu}")),
        "{router} didn't tell an MTU of {mtu}: {said}"
    );
    lab.proved(format!("{to}: {router} says that {mtu} bytes fit, and no more"));
    Ok(())
}

/// What traceroute finds the path's MTU to be.
fn traced(lab: &Lab, from: &Namespace, to: IpAddr, mtu: u32) -> Result<()> {
    let mut traceroute = from.command("traceroute");
    traceroute.args(["-n", "--mtu", "-q", "1", "-w", "3", &to.to_string()]);
    let said = command::run(&mut traceroute, Duration::from_secs(30))?;
    ensure!(said.contains(&format!("F={mtu}")), "traceroute finds another MTU than {mtu}: {said}");
    lab.proved(format!("{to}: `traceroute --mtu` finds F={mtu}"));
    Ok(())
}

/// A TCP transfer in segments that fit, with hardly any sent twice.
fn transfer(lab: &Lab, from: &Namespace, to: &Namespace, address: IpAddr, mtu: u32) -> Result<()> {
    let counts =
        || -> Result<(u64, u64)> { Ok((absolute(from, "TcpOutSegs")?, absolute(from, "TcpRetransSegs")?)) };
    // An end that remembers a small MTU asks for small segments, and the other would have nothing to learn.
    [from, to].into_iter().try_for_each(forget)?;
    let before = counts()?;
    traffic::transfer(lab, from, to, address, TRANSFER)?;
    let after = counts()?;
    let (sent, again) = (after.0 - before.0, after.1 - before.1);
    // A busy machine loses some at full speed. Without path-MTU discovery, each one would be sent again, and again.
    ensure!(again * 20 <= sent, "{again} of {sent} segments to {address} were sent again");
    let learned = learned(from, address)?;
    ensure!(learned == Some(mtu), "{} takes the MTU to {address} for {learned:?}, not {mtu}", from.name());
    lab.proved(format!(
        "TCP from {} to {address}: {} MB intact, the path's MTU learned as {mtu}, {again} of {sent} segments sent again",
        from.name(),
        TRANSFER / 1_000_000
    ));
    Ok(())
}

/// The MTU that a kernel remembers of the way to an address.
fn learned(namespace: &Namespace, to: IpAddr) -> Result<Option<u32>> {
    let route = namespace.ip(&format!("route get {to}"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    words.next().map(|mtu| mtu.parse().with_context(|| format!("no MTU: {route}"))).transpose()
}

/// Has a kernel forget the MTUs that it has learned.
fn forget(namespace: &Namespace) -> Result<()> {
    for family in ["-4", "-6"] {
        namespace.ip(&format!("{family} route flush cache"))?;
    }
    Ok(())
}

/// A counter of the kernel's since the namespace was made.
fn absolute(namespace: &Namespace, name: &str) -> Result<u64> {
    let told = namespace.run("nstat", &["-asz", name])?;
    let line = told.lines().find(|line| line.starts_with(name));
    let count = line.and_then(|line| line.split_whitespace().nth(1));
    count.and_then(|count| count.parse().ok()).with_context(|| format!("nstat has no {name}: {told}"))
}
