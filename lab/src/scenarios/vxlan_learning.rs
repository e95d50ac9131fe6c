//! Two hosts by hand: VXLAN that floods and learns, between Tortie and Linux's own devices.
//!
//! ```text
//!  pod-a 192.168.10.10 ── host1 (Tortie) 10.57.4.20 ──┬── host2 10.57.4.21 ── pod-b 192.168.11.10   vni 100, all-zero entries
//!                                                     ├── host3 10.57.4.22 ── pod-c 192.168.12.10   vni 200, group 239.1.1.1
//!                                                     └── host4 fd57::23   ── pod-d 192.168.13.10   vni 300, group ff05::100
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::{Family, InterfaceAddr, MacAddr, Prefix};

use crate::capture::{Capture, Captured};
use crate::dissected::{self, Arp, Wrapping};
use crate::link::{self, End, Fabric};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Segment, Settings, ShowDrops, ShowRoute, ShowSegments, TortieNode};
use crate::workload::Workload;
use crate::{Lab, books, traffic};

/// Flood and learn.
pub(super) const VXLAN_LEARNING: Scenario = Scenario {
    name: "vxlan-learning",
    about: "Linux VXLAN devices that learn, joined by all-zero FDB entries and by multicast groups; strangers teach nothing",
    programs: &["ping", "tcpdump", "tshark", "ethtool", "iperf3", "bridge"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

/// How long the first reply, and a change, may take.
const SETTLES: Duration = Duration::from_secs(60);
const PORT: u16 = 4789;
/// Host1's MAC address in every segment.
const OWN_MAC: MacAddr = MacAddr([0x5a, 0, 0, 0, 0, 7]);
const UPLINK: &str = "eth0";
/// Megabytes of TCP each way: enough for every header, little enough to be dissected whole.
const MEGABYTES: u32 = 4;
/// UDP: how many, and bytes of each.
const DATAGRAMS: (u32, usize) = (200, 1000);

/// How a segment's ends find each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All-zero entries of the forwarding database, at both ends.
    Flood,
    /// A multicast group, and the network that its members are in.
    Group(&'static str, &'static str),
}

/// An end that is Linux, and the segment that leads to it.
struct Site {
    name: &'static str,
    vni: u32,
    way: Way,
    /// Host1's address outside, and the site's.
    outside: [&'static str; 2],
    /// Host1's address inside, and the site's.
    inside: [&'static str; 2],
    network: &'static str,
    pod: &'static str,
    /// Bytes of the headers around a packet.
    overhead: u32,
}

const SITES: [Site; 3] = [
    Site {
        name: "by-flood",
        vni: 100,
        way: Way::Flood,
        outside: ["10.57.4.20", "10.57.4.21"],
        inside: ["192.168.10.1", "192.168.11.1"],
        network: "192.168.11.0/24",
        pod: "192.168.11.10",
        overhead: 50,
    },
    Site {
        name: "by-group",
        vni: 200,
        way: Way::Group("239.1.1.1", "10.57.4.16/28"),
        outside: ["10.57.4.20", "10.57.4.22"],
        inside: ["192.168.10.2", "192.168.12.1"],
        network: "192.168.12.0/24",
        pod: "192.168.12.10",
        overhead: 50,
    },
    Site {
        name: "by-group6",
        vni: 300,
        way: Way::Group("ff05::100", "fd57::/124"),
        outside: ["fd57::2", "fd57::5"],
        inside: ["192.168.10.3", "192.168.13.1"],
        network: "192.168.13.0/24",
        pod: "192.168.13.10",
        overhead: 70,
    },
];

/// Where the flooded site's end moves to.
const MOVED_TO: &str = "10.57.4.23";
/// Hosts on the same wire that are nobody's end.
const STRANGER: [&str; 2] = ["10.57.4.66/24", "fd57::66/64"];

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let fabric = Fabric::raise(lab, "fabric")?;
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(true, 64512)?;
    resources.plain_pool("pool", "192.168.10.0/24".parse()?, 26)?;
    let namespace = lab.namespace("host1")?;
    namespace.forward()?;
    fabric.attach(&namespace, UPLINK)?;
    let addresses: [InterfaceAddr; 2] = ["10.57.4.20/24".parse()?, "fd57::2/64".parse()?];
    for address in addresses {
        link::add_address(&namespace, UPLINK, address)?;
    }
    resources.node("host1", Some(addresses[0]), Some(addresses[1]))?;
    resources.block("host1", "192.168.10.0/26".parse()?)?;
    let pod_a = Workload::raise(lab, &resources, &namespace, "pod-a", &["192.168.10.10".parse()?])?;
    let mut ends = Vec::new();
    for (number, site) in SITES.iter().enumerate() {
        let outside = with_length(site.outside[1]);
        let host = fabric.host(lab, &format!("host{}", number + 2), &[&outside])?;
        let pod = raise_pod(lab, &host, site)?;
        let mac = raise_device(&host, site, site.outside[1], None)?;
        ends.push(Linux { host, pod, mac });
    }
    let node = TortieNode::configure(lab, &namespace, resources.directory(), &Settings::default())?;
    append(&node, &segments())?;
    let captures = SITES.iter().map(|site| capture(lab, &fabric, site)).collect::<Result<Vec<_>>>()?;
    node.start(lab)?;
    for (site, end) in SITES.iter().zip(&ends) {
        both_ends_learn(lab, site, end, &node)?;
        reach_each_other(lab, site, end, &namespace, &pod_a)?;
    }
    the_switch_knows_the_members(lab, &fabric, &namespace)?;
    for ((site, end), capture) in SITES.iter().zip(&ends).zip(captures) {
        as_asked_for(lab, site, end.mac, &capture.stop()?)?;
    }
    strangers_teach_nothing(lab, &fabric, &node, &ends)?;
    an_end_goes_and_comes_back_elsewhere(lab, &fabric, &node, &ends[0], &pod_a)?;
    books::settled(lab, &node)?;
    node.stop()
}

/// A host that is Linux: where it is, its pod, and its device's MAC address.
struct Linux {
    host: Namespace,
    pod: Namespace,
    mac: MacAddr,
}

fn with_length(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 64 } else { 24 })
}

/// A pod as in the documents: its default route leads to 169.254.10.24, which is on the link and in no network.
fn raise_pod(lab: &Lab, host: &Namespace, site: &Site) -> Result<Namespace> {
    const GATEWAY: &str = "169.254.10.24";
    let pod = lab.namespace(&format!("pod-{}", site.name))?;
    link::veth(End::new(&pod, "eth0"), End::new(host, "pod0"))?;
    link::transmit_checksums_by_software(&pod, "eth0")?;
    pod.ip(&format!("link set eth0 mtu {}", link::MTU - site.overhead))?;
    pod.ip(&format!("address add {}/32 dev eth0", site.pod))?;
    pod.ip(&format!("route add default via {GATEWAY} dev eth0 onlink"))?;
    host.forward()?;
    host.ip(&format!("address add {GATEWAY}/32 dev pod0 scope link"))?;
    host.ip(&format!("route add {}/32 dev pod0 scope link", site.pod))?;
    Ok(pod)
}

/// A device that learns. Returns its MAC address.
fn raise_device(host: &Namespace, site: &Site, local: &str, mac: Option<MacAddr>) -> Result<MacAddr> {
    let Site { name, vni, inside, overhead, .. } = site;
    let address = mac.map(|mac| format!(" address {mac}")).unwrap_or_default();
    let group = match site.way {
        Way::Flood => String::new(),
        Way::Group(group, _) => format!(" group {group} dev eth0"),
    };
    host.ip(&format!(
        "link add {name}{address} type vxlan id {vni} local {local} dstport {PORT} learning{group}"
    ))?;
    link::transmit_checksums_by_software(host, name)?;
    host.ip(&format!("link set {name} mtu {} up", link::MTU - overhead))?;
    if site.way == Way::Flood {
        let zero = MacAddr::default().to_string();
        host.run("bridge", &["fdb", "append", &zero, "dev", name, "dst", site.outside[0]])?;
    }
    host.ip(&format!("address add {}/32 dev {name}", inside[1]))?;
    host.ip(&format!("route add 192.168.10.0/24 via {} dev {name} onlink", inside[0]))?;
    link::mac(host, name)
}

/// What host1's configuration says.
fn segments() -> String {
    let of = |site: &Site| {
        let Site { name, vni, outside, inside, network, .. } = site;
        let way = match site.way {
            Way::Flood => format!("flood: [{}, {MOVED_TO}]", outside[1]),
            Way::Group(group, members) => format!("group: \"{group}\"\n  members: [\"{members}\"]"),
        };
        format!(
            "- name: {name}\n  vni: {vni}\n  port: {PORT}\n  local: \"{}\"\n  mac: \"{OWN_MAC}\"\n  \
             addresses: [{}]\n  {way}\n  ageing: 12\n  ends:\n  - {{ address: {}, networks: [{network}] }}\n",
            outside[0], inside[0], inside[1]
        )
    };
    format!("segments:\n{}", SITES.iter().map(of).collect::<String>())
}

fn append(node: &TortieNode, text: &str) -> Result<()> {
    let path = node.configuration();
    let mut file = OpenOptions::new().append(true).open(path).with_context(|| path.display().to_string())?;
    Ok(file.write_all(text.as_bytes())?)
}

/// The wire between host1 and a site, groups included. Captures are told apart by the bridge's port.
fn capture(lab: &Lab, fabric: &Fabric, site: &Site) -> Result<Capture> {
    let group = match site.way {
        Way::Flood => String::new(),
        Way::Group(group, _) => format!(" or dst host {group}"),
    };
    let number = SITES.iter().position(|other| other.name == site.name).unwrap_or(0) + 2;
    let interface = format!("host{number}-eth0");
    let filter = format!("udp port {PORT} and (host {}{group})", site.outside[1]);
    Capture::start(lab, fabric.namespace(), &interface, &filter)
}

fn segment(node: &TortieNode, name: &str) -> Result<Segment> {
    let shown: ShowSegments = node.show("segments")?;
    let found = shown.segments.into_iter().find(|segment| segment.name == name);
    found.with_context(|| format!("no segment {name}"))
}

/// Is this station learned at Tortie, behind this end?
fn is_learned(segment: &Segment, mac: MacAddr, remote: &str) -> Result<bool> {
    let remote: IpAddr = remote.parse()?;
    Ok(segment
        .fdb
        .iter()
        .any(|entry| entry.mac == mac.to_string() && entry.remote == remote && entry.origin == "learned"))
}

/// Nobody has written down where anybody is, and after the first ARP both ends know.
fn both_ends_learn(lab: &Lab, site: &Site, end: &Linux, node: &TortieNode) -> Result<()> {
    let Site { name, outside, inside, .. } = site;
    lab.wait(&format!("{name}: host1 to learn where {} is", inside[1]), SETTLES, || {
        let segment = segment(node, name)?;
        ensure!(segment.problems.is_empty(), "{:?}", segment.problems);
        let there = segment.ends.iter().find(|there| Ok(there.address) == inside[1].parse());
        let is_known = there.is_some_and(|there| there.state == "reachable");
        Ok((is_known && is_learned(&segment, end.mac, outside[1])?).then_some(()))
    })?;
    let own = OWN_MAC.to_string();
    let learned = lab.wait(&format!("{name}: Linux to learn where {} is", inside[0]), SETTLES, || {
        let fdb = end.host.run("bridge", &["fdb", "show", "dev", name])?;
        let of_own = |line: &&str| line.starts_with(&own) && line.contains(&format!("dst {}", outside[0]));
        Ok(fdb.lines().find(of_own).map(str::to_owned))
    })?;
    ensure!(!learned.contains("permanent"), "it was written down: {learned}");
    lab.proved(format!(
        "{name}: learned without a static entry: at Tortie {} behind {}, at Linux `{}`",
        end.mac,
        outside[1],
        learned.trim()
    ));
    Ok(())
}

/// Linux forgets host1, and asks for it again with its first packet; unless a question of host1's own came in between, which
/// tells it, too.
fn linux_asks(site: &Site, host: &Namespace) -> Result<()> {
    let Site { name, inside, outside, .. } = site;
    host.ip(&format!("neighbor del {} dev {name}", inside[0]))?;
    host.run("bridge", &["fdb", "del", &OWN_MAC.to_string(), "dev", name, "dst", outside[0]])?;
    let own: IpAddr = inside[0].parse()?;
    traffic::answered(host, own, 3).map(drop)
}

/// Pods, hosts and devices answer each other; TCP both ways, whose segments are as large as fits, and UDP both ways.
fn reach_each_other(lab: &Lab, site: &Site, end: &Linux, host1: &Namespace, pod_a: &Workload) -> Result<()> {
    let [pod_b, own, theirs]: [IpAddr; 3] =
        [site.pod.parse()?, site.inside[0].parse()?, site.inside[1].parse()?];
    let source = pod_a.address(Family::V4)?;
    linux_asks(site, &end.host)?;
    let pings = [
        (&end.pod, source),
        (&pod_a.namespace, pod_b),
        (host1, pod_b),
        (host1, theirs),
        (&end.host, own),
        (&pod_a.namespace, theirs),
    ];
    for (from, to) in pings {
        traffic::reaches(lab, from, to, SETTLES)?;
        traffic::answered(from, to, 3)?;
    }
    let out = traffic::iperf3_megabytes(lab, &pod_a.namespace, &end.pod, pod_b, MEGABYTES)?;
    let back = traffic::iperf3_megabytes(lab, &end.pod, &pod_a.namespace, source, MEGABYTES)?;
    ensure!(out.bits_per_second > 1e6 && back.bits_per_second > 1e6, "TCP crawls: {out:?} {back:?}");
    let (count, size) = DATAGRAMS;
    traffic::datagrams(lab, &pod_a.namespace, &end.pod, pod_b, count, size)?;
    traffic::datagrams(lab, &end.pod, &pod_a.namespace, source, count, size)?;
    lab.proved(format!(
        "{}: pods, hosts and devices reach each other; {MEGABYTES} MB of TCP at {:.2} and {:.2} Gbit/s; {count} \
         datagrams each way, none lost",
        site.name,
        out.bits_per_second / 1e9,
        back.bits_per_second / 1e9
    ));
    // By now host1 has no question of its own any more.
    linux_asks(site, &end.host)
}

/// Both groups were joined by IGMP and MLD, so a switch that listens knows where to send.
fn the_switch_knows_the_members(lab: &Lab, fabric: &Fabric, host1: &Namespace) -> Result<()> {
    let port = fabric.port(host1, UPLINK);
    for group in SITES.iter().filter_map(|site| match site.way {
        Way::Group(group, _) => Some(group),
        Way::Flood => None,
    }) {
        lab.wait(&format!("the switch to know that host1 is in {group}"), SETTLES, || {
            let members = fabric.namespace().run("bridge", &["mdb", "show"])?;
            let is_it = |line: &&str| line.contains(&port) && line.contains(&format!("grp {group} "));
            Ok(members.lines().find(is_it).map(|_| ()))
        })?;
    }
    lab.proved("host1 is a member of 239.1.1.1 and ff05::100: the switch has heard its IGMP and MLD");
    Ok(())
}

/// Everything between the ends was VXLAN with the segment's numbers, between the right stations; questions went where they
/// are flooded to, and answers to the one who asked.
fn as_asked_for(lab: &Lab, site: &Site, mac: MacAddr, captured: &Captured) -> Result<()> {
    lab.step("dissecting what was captured");
    let outside: [IpAddr; 2] = [site.outside[0].parse()?, site.outside[1].parse()?];
    let ways = [(outside, (OWN_MAC, mac)), ([outside[1], outside[0]], (mac, OWN_MAC))];
    let mut carried = 0;
    for frame in [dissected::frames(captured)?, dissected::frames_v6(captured)?].concat() {
        let Wrapping::Vxlan { outer, port, vni, macs } = &frame.wrapping else {
            anyhow::bail!("not in VXLAN: {frame:?}");
        };
        // Linux's own: router solicitations and reports of its device, which has IPv6 too.
        if frame.destination.is_multicast() && outer.source == outside[1] {
            continue;
        }
        let is_asked_for = ways.iter().any(|([source, destination], stations)| {
            (outer.source, outer.destination) == (*source, *destination) && macs == stations
        });
        ensure!(is_asked_for && (*port, *vni) == (PORT, site.vni), "not as asked for: {frame:?}");
        carried += 1;
    }
    let arp = dissected::arp_in_vxlan(captured)?;
    let flooded_to: IpAddr = match site.way {
        Way::Flood => outside[1],
        Way::Group(group, _) => group.parse()?,
    };
    let inside: [IpAddr; 2] = [site.inside[0].parse()?, site.inside[1].parse()?];
    let count = |is: &dyn Fn(&Arp) -> bool| arp.iter().filter(|arp| is(arp)).count();
    let ours = |arp: &Arp| arp.outer.source == outside[0] && arp.vni == site.vni;
    let flooded = count(&|arp| {
        ours(arp) && arp.is_request && arp.outer.destination == flooded_to && arp.target == inside[1]
    });
    let answers = count(&|arp| ours(arp) && !arp.is_request);
    let astray = count(&|arp| ours(arp) && !arp.is_request && arp.outer.destination != outside[1]);
    ensure!(
        carried > 1000 && flooded > 0 && answers > 0 && astray == 0,
        "{carried} carried, {flooded} flooded, {answers} answers, {astray} of them astray"
    );
    lab.proved(format!(
        "{}: {carried} frames of vni {} between the right stations and {} ARP messages inside, {flooded} of our questions to \
         {flooded_to}, {answers} answers; tshark finds none malformed and no bad checksum",
        site.name,
        site.vni,
        arp.len()
    ));
    Ok(())
}

/// A host that has the numbers of every segment, and an end's own MAC address, and isn't among those who may send.
fn strangers_teach_nothing(lab: &Lab, fabric: &Fabric, node: &TortieNode, ends: &[Linux]) -> Result<()> {
    let stranger = fabric.host(lab, "stranger", &STRANGER)?;
    for (site, end) in SITES.iter().zip(ends) {
        let dropped =
            || Ok::<_, anyhow::Error>(node.show::<ShowDrops>("drops")?.dropped.of("unknown_tunnel_source"));
        let (before, learned) = (dropped()?, segment(node, site.name)?.counts["learned"]);
        let local = if site.outside[1].contains(':') { STRANGER[1] } else { STRANGER[0] };
        let local = local.split('/').next().unwrap_or_default();
        raise_device(&stranger, site, local, Some(end.mac))?;
        let ping = traffic::ping(&stranger, site.inside[0].parse()?, 3)?;
        ensure!(ping.received == 0, "{} answers", ping.received);
        let strangers = lab.wait("the count of what was dropped", SETTLES, || {
            Ok(Some(dropped()? - before).filter(|strangers| *strangers > 0))
        })?;
        let after = segment(node, site.name)?;
        ensure!(is_learned(&after, end.mac, site.outside[1])?, "the end was taken over: {after:?}");
        ensure!(after.counts["moved"] == 0 && after.counts["learned"] == learned, "it taught: {after:?}");
        stranger.ip(&format!("link delete {}", site.name))?;
        lab.proved(format!(
            "{}: a stranger with the end's MAC address gets no answer and teaches nothing; {strangers} of its packets dropped as \
             unknown_tunnel_source",
            site.name
        ));
    }
    Ok(())
}

/// The end is switched off: its network becomes unreachable rather than sent elsewhere. Then another host has its addresses,
/// and is found.
fn an_end_goes_and_comes_back_elsewhere(
    lab: &Lab,
    fabric: &Fabric,
    node: &TortieNode,
    end: &Linux,
    pod_a: &Workload,
) -> Result<()> {
    let site = &SITES[0];
    let fate = || Ok::<_, anyhow::Error>(node.show::<ShowRoute>(&format!("route {}", site.pod))?.fate);
    end.host.ip("link set eth0 down")?;
    lab.wait("the end to be missed", SETTLES, || Ok((fate()? == "rejected").then_some(())))?;
    let pod_b: IpAddr = site.pod.parse()?;
    ensure!(traffic::ping(&pod_a.namespace, pod_b, 2)?.received == 0, "somebody answered for it");
    let host5 = fabric.host(lab, "host5", &[&with_length(MOVED_TO)])?;
    let address: Prefix = format!("{}/32", site.pod).parse()?;
    host5.ip("link set lo up")?;
    host5.ip(&format!("address add {address} dev lo"))?;
    raise_device(&host5, site, MOVED_TO, Some(end.mac))?;
    traffic::reaches(lab, &pod_a.namespace, pod_b, SETTLES)?;
    let segment = segment(node, site.name)?;
    ensure!(is_learned(&segment, end.mac, MOVED_TO)?, "{segment:?}");
    lab.proved(format!(
        "by-flood: an end that is gone is missed and its network rejected; at {MOVED_TO} it is found again ({} aged, {} moved)",
        segment.counts["aged"], segment.counts["moved"]
    ));
    Ok(())
}
