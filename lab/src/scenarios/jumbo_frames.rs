//! Links of 9000 bytes: packets that fill them, plain and by tunnels, and what becomes of them where a link is narrower.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::Family;

use super::path_mtu::{self, PLAIN, PLAN, TUNNELS, Tunnel, Widths};
use crate::capture::Capture;
use crate::cluster::{CONVERGE, Cluster, UPLINK};
use crate::link::Fabric;
use crate::netns::Namespace;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::ShowPorts;
use crate::workload::{INTERFACE, Workload};
use crate::{Lab, command, dissected, traffic};

/// The cluster of `path-mtu`, six times as wide.
pub(super) const JUMBO_FRAMES: Scenario = Scenario {
    name: "jumbo-frames",
    about: "9000 bytes between nodes, plain and by tunnels; then 1500 in the middle: told, cut, and nothing lost unnoticed",
    programs: &["ping", "traceroute", "nstat", "ss", "ethtool", "iperf3", "tcpdump", "tshark"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

/// The MTU of every link.
const JUMBO: u32 = 9000;
/// Later the middle is as narrow as Ethernet usually is.
const WIDTHS: Widths = Widths { ends: JUMBO, middle: 1500, narrow: 1400, datagram: 24_000 };
/// Bytes of a transfer.
const TRANSFER: u64 = 50_000_000;
/// Segments as they are with an MTU of 1400 bytes; smaller than a chunk, unlike those of 9000.
const USUAL_SEGMENT: u32 = 1348;

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut cluster = Cluster::raise(lab, &PLAN)?;
    widen(&cluster)?;
    cluster.comes_up()?;
    carries(lab, &cluster)?;
    full(lab, &cluster, &PLAIN)?;
    speed(lab, &cluster)?;
    for tunnel in &TUNNELS {
        path_mtu::dig(lab, &cluster, tunnel, JUMBO)?;
        full(lab, &cluster, tunnel)?;
    }
    too_long_is_counted(lab, &cluster)?;
    path_mtu::set_pools(&cluster, &PLAIN)?;
    all_show(lab, &cluster, "no tunnel's MTU", |shown| shown.workload_mtu.is_none())?;
    path_mtu::set_workloads(&cluster, JUMBO)?;
    path_mtu::narrow_the_middle(&cluster, &WIDTHS)?;
    all_show(lab, &cluster, "the middle's MTU", |shown| {
        let mut uplinks = shown.ports.iter().filter(|port| port.name == UPLINK);
        uplinks.any(|port| port.up && u32::from(port.mtu) == WIDTHS.middle)
    })?;
    path_mtu::the_path_is_found(lab, &cluster, &WIDTHS)?;
    cluster.books_balance()
}

/// Gives every link of the cluster 9000 bytes.
fn widen(cluster: &Cluster<'_>) -> Result<()> {
    let fabric = cluster.fabric.namespace();
    for node in &cluster.nodes {
        node.namespace.ip(&format!("link set {UPLINK} mtu {JUMBO}"))?;
        fabric.ip(&format!("link set {} mtu {JUMBO}", cluster.fabric.port(&node.namespace, UPLINK)))?;
        for workload in &node.workloads {
            node.namespace.ip(&format!("link set {} mtu {JUMBO}", workload.interface))?;
            workload.namespace.ip(&format!("link set {INTERFACE} mtu {JUMBO}"))?;
        }
    }
    fabric.ip(&format!("link set {} mtu {JUMBO}", Fabric::BRIDGE)).map(|_| ())
}

/// Nobody had to say so: the interfaces' MTU made the frames, the drivers run the programs, and no port is warned of.
fn carries(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    for node in &cluster.nodes {
        let shown: ShowPorts = node.tortie()?.show("ports")?;
        for port in &shown.ports {
            ensure!(port.warnings.is_empty(), "{} on {}: {:?}", port.name, node.name(), port.warnings);
            ensure!(port.mtu == JUMBO as u16, "{} on {} has an MTU of {}", port.name, node.name(), port.mtu);
            for queue in &port.queues {
                ensure!(
                    queue.receivable >= JUMBO && queue.attach == "native",
                    "{} on {} takes {} bytes by {} XDP",
                    port.name,
                    node.name(),
                    queue.receivable,
                    queue.attach
                );
            }
        }
    }
    lab.proved(format!("every port of both nodes has {JUMBO} bytes, tortie0 too, native XDP and no warning"));
    Ok(())
}

/// Packets that fill the way, and not a byte more.
fn full(lab: &Lab, cluster: &Cluster<'_>, tunnel: &Tunnel) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    let capture = Capture::start(lab, cluster.fabric.namespace(), Fabric::BRIDGE, "ip or ip6")?;
    for &(family, takes) in tunnel.takes {
        let target = to.address(family)?;
        traffic::reaches(lab, &from.namespace, target, CONVERGE)?;
        let header = if family == Family::V4 { 28 } else { 48 };
        // What the narrowest of the tunnel's families leaves is what the workloads have.
        let fits = tunnel.leaves(JUMBO).min(JUMBO - takes);
        filled(lab, &from.namespace, target, fits - header)?;
        let sent = traffic::transfer(lab, &from.namespace, &to.namespace, target, TRANSFER)?;
        lab.proved(format!(
            "{}: TCP to {target}, {} MB intact in {:.1} s",
            tunnel.name,
            sent.bytes / 1_000_000,
            sent.seconds
        ));
    }
    let captured = capture.stop()?;
    let frames = [dissected::frames(&captured)?, dissected::frames_v6(&captured)?].concat();
    let longest = longest(&captured)?;
    let least = JUMBO + 14 - tunnel.takes.iter().map(|(_, takes)| takes).max().unwrap_or(&0);
    ensure!(
        (least..=JUMBO + 14).contains(&longest),
        "the longest frame on the way has {longest} bytes, not {least} to {}",
        JUMBO + 14
    );
    lab.proved(format!(
        "{}: {} packets on the way, the longest frame {longest} bytes, tshark finds nothing wrong",
        tunnel.name,
        frames.len()
    ));
    Ok(())
}

/// `ping` with as many bytes as fit gets every one of them back, and none that doesn't fit leaves the workload.
fn filled(lab: &Lab, from: &Namespace, to: IpAddr, size: u32) -> Result<()> {
    traffic::answered_with(from, to, 5, &["-M", "do", "-s", &size.to_string()])?;
    lab.proved(format!("{to}: ping -M do -s {size} is answered 5 times of 5, with every byte right"));
    Ok(())
}

/// The length of the longest frame.
fn longest(captured: &crate::capture::Captured) -> Result<u32> {
    let text = dissected::tshark(captured, &["-T", "fields", "-e", "frame.len"])?;
    let lengths = text.lines().filter_map(|line| line.trim().parse::<u32>().ok());
    lengths.max().context("nothing was captured")
}

/// What large packets are for. Not a limit: others load the machine.
fn speed(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    let target = to.address(Family::V4)?;
    let run = |segment| traffic::iperf3_segments(lab, &from.namespace, &to.namespace, target, 3, segment);
    let (large, usual) = (run(JUMBO - 40)?, run(USUAL_SEGMENT)?);
    lab.proved(format!(
        "iperf3: {:.2} Gbit/s in segments of {} bytes, {:.2} in such of {USUAL_SEGMENT}: {:.1} times",
        large.bits_per_second / 1e9,
        JUMBO - 52,
        usual.bits_per_second / 1e9,
        large.bits_per_second / usual.bits_per_second
    ));
    Ok(())
}

/// A port whose MTU is raised above what frames hold is warned of, and what it loses is counted.
fn too_long_is_counted(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    const WIDER: u32 = 16_000;
    let node = &cluster.nodes[0];
    let workload: &Workload = &node.workloads[1];
    node.namespace.ip(&format!("link set {} mtu {WIDER}", workload.interface))?;
    workload.namespace.ip(&format!("link set {INTERFACE} mtu {WIDER}"))?;
    let port = || -> Result<crate::tortie::Port> {
        let shown: ShowPorts = node.tortie()?.show("ports")?;
        let port = shown.ports.into_iter().find(|port| port.name == workload.interface);
        port.with_context(|| format!("{} is no port", workload.interface))
    };
    lab.wait("the warning", CONVERGE, || Ok(port()?.warnings.first().map(|_| ())))?;
    let target = node.workloads[0].address(Family::V4)?;
    let mut ping = workload.namespace.command("ping");
    ping.args(["-n", "-c", "3", "-i", "0.2", "-W", "1", "-M", "do", "-s", "15000", &target.to_string()]);
    command::output(&mut ping, Duration::from_secs(20))?;
    lab.wait("the count of what was lost", CONVERGE, || {
        Ok((port()?.queues.iter().map(|queue| queue.xdp.rx_too_long).sum::<u64>() >= 3).then_some(()))
    })?;
    let warning = port()?.warnings.join("; ");
    lab.proved(format!(
        "three packets of 15028 bytes are counted as rx_too_long, and the port says: {warning}"
    ));
    for (namespace, interface) in
        [(&node.namespace, workload.interface.as_str()), (&workload.namespace, INTERFACE)]
    {
        namespace.ip(&format!("link set {interface} mtu {JUMBO}"))?;
    }
    Ok(())
}

/// Waits until both routers show it: they hear of changes by inotify and netlink.
fn all_show(lab: &Lab, cluster: &Cluster<'_>, what: &str, is_so: impl Fn(&ShowPorts) -> bool) -> Result<()> {
    for node in &cluster.nodes {
        let tortie = node.tortie()?;
        lab.wait(&format!("{} to show {what}", node.name()), CONVERGE, || {
            Ok(is_so(&tortie.show("ports")?).then_some(()))
        })?;
    }
    Ok(())
}
