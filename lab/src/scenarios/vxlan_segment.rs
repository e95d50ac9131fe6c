//! A site whose overlay is Linux's own: VXLAN as flannel's daemons set it up, joined by hand.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::{Family, InterfaceAddr, MacAddr};

use crate::capture::{Capture, Captured};
use crate::dissected::{self, Frame, Wrapping};
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowDrops, ShowRoute, TortieNode};
use crate::workload::Workload;
use crate::{Lab, traffic};

/// Linux checks the UDP checksum over IPv6, and drops what has none: its device gets no option that says otherwise.
pub(super) const VXLAN_SEGMENT: Scenario = Scenario {
    name: "vxlan-segment",
    about: "a site of Linux VXLAN devices with flannel's numbers, over IPv4 and IPv6, joined by static entries; direct routing",
    programs: &["ping", "tcpdump", "tshark", "ethtool", "iperf3", "bridge"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

/// How long the first reply may take.
const FIRST_REPLY: Duration = Duration::from_secs(60);
/// Megabytes of TCP each way: little enough to be dissected whole.
const MEGABYTES: u32 = 10;
/// What flannel takes.
const PORT: u16 = 8472;
/// The node's MAC address in both segments.
const OWN_MAC: MacAddr = MacAddr([0x5a, 0, 0, 0, 0, 7]);
const UPLINK: &str = "eth0";

/// A network that is reached without the tunnel, and a host in it.
const DIRECT_NETWORK: &str = "10.246.1.0/24";
const DIRECT_TARGET: &str = "10.246.1.5";

/// An end that is Linux: a device, its addresses, and what is behind it.
struct Site {
    name: &'static str,
    vni: u32,
    /// The node's address outside, and the site's.
    outside: [&'static str; 2],
    /// The node's address inside, and the site's.
    inside: [&'static str; 2],
    network: &'static str,
    /// A host in the network.
    target: &'static str,
    /// Bytes of the headers around a packet.
    overhead: u32,
}

const FLANNEL: Site = Site {
    name: "flannel",
    vni: 1,
    outside: ["192.168.1.2", "192.168.1.3"],
    inside: ["10.244.7.0", "10.244.1.0"],
    network: "10.244.1.0/24",
    target: "10.244.1.5",
    overhead: 50,
};

const SITES: [Site; 2] = [
    FLANNEL,
    Site {
        name: "flannel6",
        vni: 2,
        outside: ["fd18::2", "fd18::4"],
        inside: ["10.245.7.0", "10.245.1.0"],
        network: "10.245.1.0/24",
        target: "10.245.1.5",
        overhead: 70,
    },
];

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let fabric = Fabric::raise(lab, "fabric")?;
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(true, 64512)?;
    resources.plain_pool("pool", "10.65.0.0/16".parse()?, 26)?;
    let namespace = lab.namespace("node1")?;
    namespace.forward()?;
    fabric.attach(&namespace, UPLINK)?;
    let addresses: [InterfaceAddr; 2] = ["192.168.1.2/24".parse()?, "fd18::2/64".parse()?];
    for address in addresses {
        link::add_address(&namespace, UPLINK, address)?;
    }
    resources.node("node1", Some(addresses[0]), Some(addresses[1]))?;
    resources.block("node1", "10.65.1.0/26".parse()?)?;
    let workload = Workload::raise(lab, &resources, &namespace, "node1-w1", &["10.65.1.2".parse()?])?;

    let hosts =
        [fabric.host(lab, "site1", &["192.168.1.3/24"])?, fabric.host(lab, "site2", &["fd18::4/64"])?];
    let mut macs = Vec::new();
    for (site, host) in SITES.iter().zip(&hosts) {
        macs.push(raise_device(site, host)?);
    }
    let node = TortieNode::configure(lab, &namespace, resources.directory(), &Settings::default())?;
    append(&node, &segments(&macs))?;
    node.start(lab)?;

    for (index, (site, host)) in SITES.iter().zip(&hosts).enumerate() {
        let filter = format!("host {}", site.outside[1]);
        let capture = Capture::start(lab, fabric.namespace(), Fabric::BRIDGE, &filter)?;
        // What this filter sees is not inside anything.
        let plain = Capture::start(lab, host, "eth0", &format!("host {}", site.target))?;
        reach_each_other(lab, site, host, &namespace, &workload)?;
        let (captured, plain) = (capture.stop()?, plain.stop()?.lines()?.len());
        let carried = encapsulated_as_asked(site, &captured, macs[index])?;
        ensure!(carried > 20 && plain == 0, "{carried} frames in VXLAN, {plain} plain ones");
        lab.proved(format!(
            "{}: {carried} frames of vni {} to and from port {PORT}, between the right stations; tshark finds none malformed \
             and no bad checksum; none without the tunnel",
            site.name, site.vni
        ));
    }
    direct_routing_leaves_the_tunnel_out(lab, &fabric, &node, &hosts[0], &workload)?;
    a_stranger_is_dropped(lab, &fabric, &node)?;
    let drops: ShowDrops = node.show("drops")?;
    ensure!(dropped(&drops, "tunnel_malformed") == 0 && dropped(&drops, "tunnel_not_ours") == 0, "{drops:?}");
    node.stop()
}

/// A device as flannel makes it, and what its daemon writes into it about the node. Returns its MAC address.
fn raise_device(site: &Site, host: &Namespace) -> Result<MacAddr> {
    let Site { name, vni, outside, inside, network, target, overhead } = site;
    let mtu = 1500 - overhead;
    host.ip(&format!("link add {name} type vxlan id {vni} local {} dstport {PORT} nolearning", outside[1]))?;
    link::transmit_checksums_by_software(host, name)?;
    host.ip(&format!("link set {name} mtu {mtu} up"))?;
    host.ip(&format!("address add {}/32 dev {name}", inside[1]))?;
    host.ip("link set lo up")?;
    host.ip(&format!("address add {target}/32 dev lo"))?;
    ensure!(network.starts_with(&target[..6]), "{target} is in {network}");
    host.ip(&format!("neighbor add {} lladdr {OWN_MAC} dev {name} nud permanent", inside[0]))?;
    host.run(
        "bridge",
        &["fdb", "append", &OWN_MAC.to_string(), "dev", name, "dst", outside[0], "self", "permanent"],
    )?;
    host.ip(&format!("route add {}/32 dev {name} scope link src {}", inside[0], inside[1]))?;
    host.ip(&format!("route add 10.65.1.0/26 via {} dev {name} onlink src {target}", inside[0]))?;
    link::mac(host, name)
}

/// Every frame between the two ends that isn't theirs alone is VXLAN with the segment's numbers, addresses and stations.
/// Returns how many there were.
fn encapsulated_as_asked(site: &Site, captured: &Captured, mac: MacAddr) -> Result<usize> {
    let outside: [IpAddr; 2] = [site.outside[0].parse()?, site.outside[1].parse()?];
    let ways = [(outside, (OWN_MAC, mac)), ([outside[1], outside[0]], (mac, OWN_MAC))];
    let mut carried = 0;
    for frame in [dissected::frames(captured)?, dissected::frames_v6(captured)?].concat() {
        let Wrapping::Vxlan { outer, port, vni, macs } = &frame.wrapping else {
            // The hosts' own neighbour discovery; nobody's traffic.
            ensure!(outside.contains(&frame.source) || frame.destination.is_multicast(), "{frame:?}");
            continue;
        };
        let is_asked_for = ways.iter().any(|([source, destination], stations)| {
            (outer.source, outer.destination) == (*source, *destination) && macs == stations
        });
        ensure!(is_asked_for && (*port, *vni) == (PORT, site.vni), "not as asked for: {frame:?}");
        carried += 1;
    }
    Ok(carried)
}

/// What the node's configuration says of both.
fn segments(macs: &[MacAddr]) -> String {
    let of = |(site, mac): (&Site, &MacAddr)| {
        let Site { name, vni, outside, inside, network, .. } = site;
        format!(
            "- name: {name}\n  vni: {vni}\n  local: \"{}\"\n  mac: \"{OWN_MAC}\"\n  addresses: [{}]\n  ends:\n  \
             - {{ remote: \"{}\", address: {}, mac: \"{mac}\", networks: [{network}] }}\n",
            outside[0], inside[0], outside[1], inside[1]
        )
    };
    let direct = format!(
        "- name: direct\n  vni: 3\n  local: \"{}\"\n  mac: \"{OWN_MAC}\"\n  addresses: [10.246.7.0]\n  direct_routing: true\n  \
         ends:\n  - {{ remote: \"{}\", address: 10.246.1.0, mac: \"{}\", networks: [{DIRECT_NETWORK}] }}\n",
        FLANNEL.outside[0], FLANNEL.outside[1], macs[0]
    );
    format!("segments:\n{}{direct}", SITES.iter().zip(macs).map(of).collect::<String>())
}

fn append(node: &TortieNode, text: &str) -> Result<()> {
    let path = node.configuration();
    let mut file = OpenOptions::new().append(true).open(path).with_context(|| path.display().to_string())?;
    Ok(file.write_all(text.as_bytes())?)
}

/// The workload, the node itself and the site, with the largest packets that fit, and TCP both ways.
fn reach_each_other(
    lab: &Lab,
    site: &Site,
    host: &Namespace,
    node: &Namespace,
    workload: &Workload,
) -> Result<()> {
    let target: IpAddr = site.target.parse()?;
    let source = workload.address(Family::V4)?;
    let ends =
        [(&workload.namespace, target), (host, source), (node, target), (host, site.inside[0].parse()?)];
    for (from, to) in ends {
        traffic::reaches(lab, from, to, FIRST_REPLY)?;
        traffic::answered(from, to, 3)?;
    }
    let out = traffic::iperf3_megabytes(lab, &workload.namespace, host, target, MEGABYTES)?;
    let back = traffic::iperf3_megabytes(lab, host, &workload.namespace, source, MEGABYTES)?;
    ensure!(out.bits_per_second > 1e6 && back.bits_per_second > 1e6, "TCP crawls: {out:?} {back:?}");
    lab.proved(format!(
        "{}: workload, host and site reach each other (vni {}, {} to {}); TCP {:.2} and {:.2} Gbit/s",
        site.name,
        site.vni,
        site.outside[0],
        site.outside[1],
        out.bits_per_second / 1e9,
        back.bits_per_second / 1e9
    ));
    Ok(())
}

/// A network of an end in the node's own subnet: no tunnel there or back, while the end itself stays inside.
fn direct_routing_leaves_the_tunnel_out(
    lab: &Lab,
    fabric: &Fabric,
    node: &TortieNode,
    site: &Namespace,
    workload: &Workload,
) -> Result<()> {
    let (target, remote): (IpAddr, IpAddr) = (DIRECT_TARGET.parse()?, FLANNEL.outside[1].parse()?);
    site.ip(&format!("address add {target}/32 dev lo"))?;
    site.ip(&format!("route replace 10.65.1.0/26 via {} dev eth0", FLANNEL.outside[0]))?;
    let capture =
        Capture::start(lab, fabric.namespace(), Fabric::BRIDGE, &format!("host {remote} or host {target}"))?;
    traffic::reaches(lab, &workload.namespace, target, FIRST_REPLY)?;
    traffic::answered(&workload.namespace, target, 3)?;
    traffic::transfer(lab, &workload.namespace, site, target, 1_000_000)?;
    let frames = dissected::frames(&capture.stop()?)?;
    let of_target = |frame: &&Frame| frame.source == target || frame.destination == target;
    let (plain, inside): (Vec<&Frame>, Vec<&Frame>) =
        frames.iter().filter(of_target).partition(|frame| frame.wrapping == Wrapping::Plain);
    ensure!(plain.len() > 700 && inside.is_empty(), "{} plain, {} in tunnels", plain.len(), inside.len());
    for (address, is_tunnelled) in [(DIRECT_TARGET, false), ("10.246.1.0", true)] {
        let route: ShowRoute = node.show(&format!("route {address}"))?;
        let hop = route.nexthops.first().with_context(|| format!("no next hop: {route:?}"))?;
        ensure!(hop.via == Some(remote) && hop.tunnel.is_some() == is_tunnelled, "{address}: {route:?}");
    }
    lab.proved(format!(
        "direct_routing: {} frames to and from {DIRECT_NETWORK} by {remote} as next hop, none in VXLAN; the end itself is inside",
        plain.len()
    ));
    Ok(())
}

/// A host on the same wire that has the segment's numbers, and isn't among its ends.
fn a_stranger_is_dropped(lab: &Lab, fabric: &Fabric, node: &TortieNode) -> Result<()> {
    let stranger = fabric.host(lab, "stranger", &["192.168.1.66/24"])?;
    let site = Site {
        outside: ["192.168.1.2", "192.168.1.66"],
        inside: ["10.244.7.0", "10.244.66.0"],
        network: "10.244.66.0/24",
        target: "10.244.66.5",
        ..FLANNEL
    };
    raise_device(&site, &stranger)?;
    let ping = traffic::ping(&stranger, "10.65.1.2".parse()?, 3)?;
    ensure!(ping.received == 0, "{} answers", ping.received);
    let strangers = lab.wait("the count of what was dropped", FIRST_REPLY, || {
        let strangers = dropped(&node.show("drops")?, "unknown_tunnel_source");
        ensure!(strangers >= 3, "{strangers} dropped");
        Ok(Some(strangers))
    })?;
    lab.proved(format!(
        "VXLAN from a host that isn't an end: no answer, {strangers} dropped as unknown_tunnel_source"
    ));
    Ok(())
}

fn dropped(drops: &ShowDrops, reason: &str) -> u64 {
    drops.dropped.reasons.get(reason).copied().unwrap_or(0)
}
