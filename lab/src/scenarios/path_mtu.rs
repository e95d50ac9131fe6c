//! Links of different MTU: senders learn what fits, what may be cut is cut, and nobody notices but by the sizes.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::Family;

use super::nat_site::PATIENT;
use crate::cluster::{CONVERGE, Cluster, ClusterPlan, NodePlan, RouterKind, UPLINK, nth};
use crate::disturbance::undisturbed;
use crate::netns::Namespace;
use crate::scenario::{Options, Scenario, Store};
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
    store: Store::Either,
    run,
};

/// The MTUs of a story.
#[derive(Clone, Copy)]
pub(super) struct Widths {
    /// Of the workloads.
    pub(super) ends: u32,
    /// Of both nodes' uplinks.
    pub(super) middle: u32,
    /// In front of the second workload of the first node.
    pub(super) narrow: u32,
    /// Bytes of a datagram's payload that takes three fragments at the sender, each larger than the middle but the last.
    pub(super) datagram: usize,
}

const WIDTHS: Widths = Widths { ends: crate::link::MTU, middle: 1400, narrow: 1300, datagram: 4_000 };
/// Bytes of a transfer: some 15 000 segments.
const TRANSFER: u64 = 20_000_000;
const DATAGRAMS: u32 = 100;
/// What the receive ring of a workload lasts at 2.5 Gbit/s: what comes while a machine with other work lets a router wait for longer is
/// lost.
const RING_LASTS: Duration = Duration::from_millis(5);

pub(super) const PLAN: ClusterPlan = ClusterPlan {
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
    narrow_the_middle(&cluster, &WIDTHS)?;
    cluster.comes_up()?;
    the_path_is_found(lab, &cluster, &WIDTHS)?;
    cluster.books_balance()
}

/// Gives the uplinks and the port in front of one workload their MTUs.
pub(super) fn narrow_the_middle(cluster: &Cluster<'_>, widths: &Widths) -> Result<()> {
    for node in &cluster.nodes {
        node.namespace.ip(&format!("link set {UPLINK} mtu {}", widths.middle))?;
    }
    let near = &cluster.nodes[0];
    // Our end only: the workload itself tells its peers that it takes as much as the others.
    near.namespace.ip(&format!("link set {} mtu {}", near.workloads[1].interface, widths.narrow)).map(|_| ())
}

/// The story: plain, on one node, cut, and by tunnels.
pub(super) fn the_path_is_found(lab: &Lab, cluster: &Cluster<'_>, widths: &Widths) -> Result<()> {
    for family in Family::ALL {
        over_the_middle(lab, cluster, widths, family)?;
        on_one_node(lab, cluster, widths, family)?;
    }
    cut_by_the_router(lab, cluster, widths)?;
    for kind in &TUNNELS {
        through(lab, cluster, widths, kind)?;
    }
    Ok(())
}

/// Pools that go by tunnels from now on, and what a tunnel takes of the MTU.
pub(super) struct Tunnel {
    pub(super) name: &'static str,
    /// `ipipMode` and `vxlanMode` of the IPv4 pool, then of the IPv6 pool.
    modes: [[&'static str; 2]; 2],
    /// The families that it carries, and the bytes of its header; the last one is the largest.
    pub(super) takes: &'static [(Family, u32)],
}

impl Tunnel {
    /// What workloads' interfaces are brought down to where uplinks have this MTU.
    pub(super) fn leaves(&self, uplinks: u32) -> u32 {
        uplinks - self.takes.iter().map(|(_, takes)| takes).max().expect("it carries a family")
    }
}

pub(super) const PLAIN: Tunnel = Tunnel {
    name: "plain",
    modes: [["Never", "Never"], ["Never", "Never"]],
    takes: &[(Family::V4, 0), (Family::V6, 0)],
};

pub(super) const TUNNELS: [Tunnel; 2] = [
    Tunnel { name: "IPIP", modes: [["Always", "Never"], ["Never", "Never"]], takes: &[(Family::V4, 20)] },
    Tunnel {
        name: "VXLAN",
        modes: [["Never", "Always"], ["Never", "Always"]],
        takes: &[(Family::V4, 50), (Family::V6, 70)],
    },
];

/// Makes the pools go this way.
pub(super) fn set_pools(cluster: &Cluster<'_>, tunnel: &Tunnel) -> Result<()> {
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
    Ok(())
}

/// Makes the pools go this way, and waits until the workloads' interfaces are brought down to what it leaves.
pub(super) fn dig(lab: &Lab, cluster: &Cluster<'_>, tunnel: &Tunnel, uplinks: u32) -> Result<()> {
    set_pools(cluster, tunnel)?;
    let (from, to) = cluster.distant_workloads()?;
    let left = tunnel.leaves(uplinks);
    for workload in [from, to] {
        let what = format!("{} to be brought down to {left} bytes", workload.name());
        lab.wait(&what, CONVERGE, || {
            let shown = workload.namespace.ip(&format!("link show {INTERFACE}"))?;
            Ok(shown.contains(&format!(" mtu {left} ")).then_some(()))
        })?;
    }
    lab.proved(format!("{}: workloads' interfaces are brought down to {left}", tunnel.name));
    Ok(())
}

/// The same once more through a tunnel: workloads are brought down to what it leaves; one that insists on more learns, and
/// is cut where it may be.
fn through(lab: &Lab, cluster: &Cluster<'_>, widths: &Widths, tunnel: &Tunnel) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    for workload in [from, to] {
        workload.namespace.set(&[("net/ipv4/ip_no_pmtu_disc", "0")])?;
    }
    dig(lab, cluster, tunnel, widths.middle)?;
    for &(family, _) in tunnel.takes {
        traffic::reaches(lab, &from.namespace, to.address(family)?, CONVERGE)?;
        traffic::transfer(lab, &from.namespace, &to.namespace, to.address(family)?, TRANSFER)?;
    }
    // By hand, which stays: both sides now ask for segments that no tunnel takes.
    set_workloads(cluster, widths.ends)?;
    for &(family, takes) in tunnel.takes {
        lab.step(&format!("{}: {family:?} through the tunnel", tunnel.name));
        let mtu = widths.middle - takes;
        transfer(lab, &from.namespace, &to.namespace, to.address(family)?, mtu)?;
        transfer(lab, &to.namespace, &from.namespace, from.address(family)?, mtu)?;
    }
    [from, to].into_iter().try_for_each(|workload| {
        forget(&workload.namespace)?;
        workload.namespace.set(&[("net/ipv4/ip_no_pmtu_disc", "1")])
    })?;
    let target = to.address(Family::V4)?;
    traffic::datagrams(lab, &from.namespace, &to.namespace, target, DATAGRAMS, widths.datagram)?;
    lab.proved(format!("{}: {DATAGRAMS} datagrams, cut in front of the tunnel, arrive intact", tunnel.name));
    Ok(())
}

/// Gives the workloads that are a link apart this MTU, at both ends.
pub(super) fn set_workloads(cluster: &Cluster<'_>, mtu: u32) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    for (workload, node) in [(from, &cluster.nodes[0]), (to, &cluster.nodes[1])] {
        node.namespace.ip(&format!("link set {} mtu {mtu}", workload.interface))?;
        workload.namespace.ip(&format!("link set {INTERFACE} mtu {mtu}"))?;
    }
    Ok(())
}

fn manifest(cluster: &Cluster<'_>, kind: &str, name: &str, spec: &str) -> Result<()> {
    let text =
        format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{spec}");
    cluster.resources.write(&format!("{}-{name}.yaml", kind.to_lowercase()), &text)
}

/// Between nodes: the MTU is learned from ICMP, and TCP goes on at once with what fits.
fn over_the_middle(lab: &Lab, cluster: &Cluster<'_>, widths: &Widths, family: Family) -> Result<()> {
    let Widths { ends, middle, .. } = *widths;
    let (from, to) = cluster.distant_workloads()?;
    let target = to.address(family)?;
    let router = cluster.nodes[0].address(family)?;
    told_by_ping(lab, &from.namespace, target, router, ends - 60, middle)?;
    transfer(lab, &from.namespace, &to.namespace, target, middle)?;
    let back = from.address(family)?;
    transfer(lab, &to.namespace, &from.namespace, back, middle)?;
    forget(&from.namespace)?;
    traced(lab, &from.namespace, target, middle)
}

/// Workload to workload and host to workload on one node, through the narrow port.
fn on_one_node(lab: &Lab, cluster: &Cluster<'_>, widths: &Widths, family: Family) -> Result<()> {
    let node = &cluster.nodes[0];
    let (wide, narrow) = (&node.workloads[0], &node.workloads[1]);
    let target = narrow.address(family)?;
    transfer(lab, &wide.namespace, &narrow.namespace, target, widths.narrow)?;
    transfer(lab, &node.namespace, &narrow.namespace, target, widths.narrow)?;
    // The way back is as wide as the workload: the host takes what it sends.
    let host = node.address(family)?;
    traffic::transfer(lab, &narrow.namespace, &node.namespace, host, TRANSFER / 10)?;
    lab.proved(format!("{family:?}: a workload sends its own host {host} what the host takes"));
    Ok(())
}

/// Without "don't fragment" a router cuts: whole datagrams, and fragments of the sender's own.
fn cut_by_the_router(lab: &Lab, cluster: &Cluster<'_>, widths: &Widths) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    let target = to.address(Family::V4)?;
    for workload in [from, to] {
        forget(&workload.namespace)?;
        workload.namespace.set(&[("net/ipv4/ip_no_pmtu_disc", "1")])?;
    }
    let router = cluster.nodes[0].tortie()?;
    let before: ShowDrops = router.show("drops")?;
    let sizes = [widths.ends as usize - 28, widths.datagram];
    for size in sizes {
        traffic::datagrams(lab, &from.namespace, &to.namespace, target, DATAGRAMS, size)?;
    }
    // What the sender makes of each, and of that all that is larger than the middle.
    let packets = sizes.iter().flat_map(|size| fragments(size + 8, widths.ends));
    let larger = packets.map(|payload| fragments(payload, widths.middle).len()).filter(|pieces| *pieces > 1);
    let pieces: Vec<u64> = larger.map(|pieces| pieces as u64 * u64::from(DATAGRAMS)).collect();
    let expected = (pieces.len() as u64 * u64::from(DATAGRAMS), pieces.iter().sum::<u64>());
    let (cut, made) = lab.wait("the count of what was cut", CONVERGE, || {
        let after: ShowDrops = router.show("drops")?;
        let (cut, made) = (after.fragmented - before.fragmented, after.fragments - before.fragments);
        ensure!(
            (cut, made) == expected,
            "{cut} packets were cut into {made} fragments, not {} into {}",
            expected.0,
            expected.1
        );
        Ok(Some((cut, made)))
    })?;
    lab.proved(format!(
        "UDP without \"don't fragment\": {DATAGRAMS} datagrams of {} and of {} bytes arrive with their hash intact; {cut} packets cut into {made} fragments",
        sizes[0], sizes[1]
    ));
    let reassembled = absolute(&to.namespace, "IpReasmOKs")?;
    ensure!(
        reassembled >= u64::from(DATAGRAMS) * 2,
        "{reassembled} datagrams were put together by {}",
        to.name()
    );
    // Replies as well: ping compares every byte of them.
    traffic::answered_with(&from.namespace, target, 5, &["-M", "dont", "-s", "3000"])?;
    lab.proved("ping with 3000 bytes, cut on both ways: 5 of 5 replies with every byte right");
    Ok(())
}

/// The payloads of the fragments that a packet with this payload goes in, of itself where it fits.
fn fragments(payload: usize, mtu: u32) -> Vec<usize> {
    let room = mtu as usize - 20;
    let (mut left, mut fragments) = (payload, Vec::new());
    while left > room {
        fragments.push(room / 8 * 8);
        left -= room / 8 * 8;
    }
    fragments.push(left);
    fragments
}

/// A packet that must not be fragmented is answered by the router with the MTU.
fn told_by_ping(lab: &Lab, from: &Namespace, to: IpAddr, router: IpAddr, size: u32, mtu: u32) -> Result<()> {
    let mut ping = from.command("ping");
    let size = size.to_string();
    // Until the first error.
    ping.args(["-n", "-c", "2", "-i", "0.5", "-w", "15", "-M", "do", "-s", &size, &to.to_string()]);
    let output = command::output(&mut ping, Duration::from_secs(30))?;
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
    traceroute.args(["-n", "--mtu", "-q", "1", "-w", PATIENT, &to.to_string()]);
    let said = command::run(&mut traceroute, Duration::from_secs(30))?;
    ensure!(said.contains(&format!("F={mtu}")), "traceroute finds another MTU than {mtu}: {said}");
    lab.proved(format!("{to}: `traceroute --mtu` finds F={mtu}"));
    Ok(())
}

/// A TCP transfer in segments that fit, with hardly any sent twice.
fn transfer(lab: &Lab, from: &Namespace, to: &Namespace, address: IpAddr, mtu: u32) -> Result<()> {
    // A busy machine loses some at full speed, sometimes many. Without path-MTU discovery, each one would be sent again, and
    // again, in every transfer.
    let (sent, again) = undisturbed(lab.progress(), RING_LASTS, || {
        let (sent, again) = segments(lab, from, to, address)?;
        ensure!(again < sent, "of {sent} segments to {address} {again} were sent again");
        Ok(if again * 20 <= sent {
            Ok((sent, again))
        } else {
            Err(format!("of {sent} segments to {address} {again} were sent again"))
        })
    })?;
    let learned = learned(from, address)?;
    ensure!(learned == Some(mtu), "{} takes the MTU to {address} for {learned:?}, not {mtu}", from.name());
    lab.proved(format!(
        "TCP from {} to {address}: {} MB intact, the path's MTU learned as {mtu}, {again} of {sent} segments sent again",
        from.name(),
        TRANSFER / 1_000_000
    ));
    Ok(())
}

/// The segments that a transfer took, and how many were sent again.
fn segments(lab: &Lab, from: &Namespace, to: &Namespace, address: IpAddr) -> Result<(u64, u64)> {
    let counts =
        || -> Result<(u64, u64)> { Ok((absolute(from, "TcpOutSegs")?, absolute(from, "TcpRetransSegs")?)) };
    // An end that remembers a small MTU asks for small segments, and the other would have nothing to learn.
    [from, to].into_iter().try_for_each(forget)?;
    let before = counts()?;
    traffic::transfer(lab, from, to, address, TRANSFER)?;
    let after = counts()?;
    Ok((after.0 - before.0, after.1 - before.1))
}

/// The MTU that a kernel remembers of the way to an address.
fn learned(namespace: &Namespace, to: IpAddr) -> Result<Option<u32>> {
    let route = namespace.ip(&format!("route get {to}"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    words.next().map(|mtu| mtu.parse().with_context(|| format!("no MTU: {route}"))).transpose()
}

/// Has a kernel forget the MTUs that it has learned.
pub(super) fn forget(namespace: &Namespace) -> Result<()> {
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
