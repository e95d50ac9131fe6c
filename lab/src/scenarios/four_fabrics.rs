//! Four parallel layer-2 networks, each machine in all of them: flows spread over the four, and when one is cut only
//! its flows move.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::Family;

use crate::capture::Capture;
use crate::cluster::CONVERGE;
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario};
use crate::tortie::{Settings, ShowRoute, TortieNode};
use crate::traffic::{self, Session, Sink, UdpFlows};
use crate::workload::Workload;
use crate::{Lab, books, wait};

/// A loss of one in four next hops.
pub(super) const FOUR_FABRICS: Scenario = Scenario {
    name: "four-fabrics",
    about: "two nodes in four parallel networks: flows spread over all, a cut moves only its own, and they come back",
    programs: &["tcpdump", "ping", "iperf3", "ethtool"],
    tortie: true,
    alone: true,
    run,
};

const FABRICS: usize = 4;
/// The one that is cut.
const CUT: usize = 2;
const AS_NUMBER: u32 = 64512;
/// Blocks of the two nodes, and a workload in each.
const BLOCKS: [[&str; 2]; 2] = [["10.65.0.0/26", "fd65::/122"], ["10.65.1.0/26", "fd65:0:0:1::/122"]];
const WORKLOADS: [[&str; 2]; 2] = [["10.65.0.1", "fd65::1"], ["10.65.1.1", "fd65:0:0:1::1"]];
/// The last octet of each machine's addresses.
const NODES: [u8; 2] = [1, 2];
const SINK: u8 = 3;
/// What the sink takes for its own.
const SINKS: [&str; 2] = ["10.66.0.0/24", "fd66::/64"];
/// Flows of each family.
const FLOWS: u8 = 128;
/// Where they come from, so that every run has the same flows.
const SOURCE_PORT: u16 = 40_000;
/// Datagrams a second of all flows together: enough that losses tell the time, far less than one core forwards.
const DATAGRAMS: u32 = 8_000;
const SECONDS: u32 = 6;
/// How long flows may be without their fabric.
const OUTAGE_MAX: Duration = Duration::from_secs(1);
const ARRIVE: Duration = Duration::from_secs(10);

/// The fabric that each flow, named by its destination, was seen in.
type Ways = BTreeMap<IpAddr, usize>;

struct Site<'lab> {
    lab: &'lab Lab,
    fabrics: Vec<Fabric>,
    nodes: Vec<TortieNode>,
    workloads: Vec<Workload>,
    sink_host: Namespace,
    sink: Sink,
    /// Datagrams that the sink had when nothing was on its way.
    arrived: u64,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut site = raise(lab)?;
    for node in &site.nodes {
        node.start(lab)?;
    }
    site.one_group_of_four()?;
    site.workloads_talk()?;
    let before = site.ways()?;
    site.spread_evenly(&before, FABRICS)?;

    let mut session = Session::open(
        lab,
        &site.workloads[0].namespace,
        &site.workloads[1].namespace,
        WORKLOADS[1][0].parse()?,
    )?;
    site.cut_under_traffic(&before)?;
    let during = site.ways()?;
    site.only_its_flows_moved(&before, &during)?;

    site.restore()?;
    let after = lab.wait("the flows to come back", CONVERGE, || {
        let ways = site.ways()?;
        let away = before.iter().filter(|(flow, fabric)| ways.get(*flow) != Some(*fabric)).count();
        ensure!(away == 0, "{away} flows are not where they were");
        Ok(Some(ways))
    })?;
    lab.proved(format!("fabric {CUT} is back: all {} flows are where they were before the cut", after.len()));
    session.beats_on(5)?;
    let longest = session.longest_beat()?.as_millis();
    lab.proved(format!(
        "a TCP session between the workloads lived through it; its longest beat took {longest} ms"
    ));
    for node in &site.nodes {
        lab.proved(books::line(node.name(), &books::settled(lab, node)?));
    }
    Ok(())
}

fn raise(lab: &Lab) -> Result<Site<'_>> {
    lab.step("raising four fabrics");
    let fabrics: Vec<Fabric> =
        (0..FABRICS).map(|number| Fabric::raise(lab, &format!("fab{number}"))).collect::<Result<_>>()?;
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, AS_NUMBER)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.plain_pool("pool-1", "fd65::/48".parse()?, 122)?;
    let (mut nodes, mut workloads) = (Vec::new(), Vec::new());
    for (number, name) in ["node-a", "node-b"].into_iter().enumerate() {
        let other = 1 - number;
        let namespace = machine(lab, &fabrics, name, NODES[number])?;
        namespace.forward()?;
        for family in Family::ALL {
            route(&namespace, BLOCKS[other][row(family)], NODES[other], family)?;
            route(&namespace, SINKS[row(family)], SINK, family)?;
            resources.block(name, BLOCKS[number][row(family)].parse()?)?;
        }
        let address = |family| cidr(0, NODES[number], family).parse();
        resources.node(name, Some(address(Family::V4)?), Some(address(Family::V6)?))?;
        let addresses = [WORKLOADS[number][0].parse()?, WORKLOADS[number][1].parse()?];
        workloads.push(Workload::raise(lab, &resources, &namespace, &format!("w{number}"), &addresses)?);
        let uplinks = (0..FABRICS).map(interface).collect();
        let settings = Settings { uplinks, ..Settings::default() };
        nodes.push(TortieNode::configure(lab, &namespace, resources.directory(), &settings)?);
    }
    let sink_host = machine(lab, &fabrics, "sink", SINK)?;
    for family in Family::ALL {
        // The way back, without which the kernel would take the sender for itself.
        route(&sink_host, BLOCKS[0][row(family)], NODES[0], family)?;
    }
    let sink = Sink::open(lab, &sink_host)?;
    Ok(Site { lab, fabrics, nodes, workloads, sink_host, sink, arrived: 0 })
}

/// A machine in every fabric.
fn machine(lab: &Lab, fabrics: &[Fabric], name: &str, host: u8) -> Result<Namespace> {
    let namespace = lab.namespace(name)?;
    for (number, fabric) in fabrics.iter().enumerate() {
        fabric.attach(&namespace, &interface(number))?;
        link::transmit_checksums_by_software(&namespace, &interface(number))?;
        for family in Family::ALL {
            link::add_address(&namespace, &interface(number), cidr(number, host, family).parse()?)?;
        }
    }
    Ok(namespace)
}

/// A static route with a next hop in every fabric.
fn route(namespace: &Namespace, to: &str, host: u8, family: Family) -> Result<()> {
    let flag = if family == Family::V6 { "-6" } else { "-4" };
    let hops: String = (0..FABRICS)
        .map(|number| format!(" nexthop via {} dev {}", address(number, host, family), interface(number)))
        .collect();
    namespace.ip(&format!("{flag} route add {to} proto static{hops}")).map(|_| ())
}

fn interface(fabric: usize) -> String {
    format!("eth{fabric}")
}

fn row(family: Family) -> usize {
    usize::from(family == Family::V6)
}

fn address(fabric: usize, host: u8, family: Family) -> String {
    match family {
        Family::V4 => format!("10.1{fabric}.0.{host}"),
        Family::V6 => format!("fd1{fabric}::{host}"),
    }
}

fn cidr(fabric: usize, host: u8, family: Family) -> String {
    let len = if family == Family::V6 { 64 } else { 24 };
    format!("{}/{len}", address(fabric, host, family))
}

/// Where the flows go.
fn destinations() -> Result<Vec<IpAddr>> {
    let texts = (1..=FLOWS).flat_map(|flow| [format!("10.66.0.{flow}"), format!("fd66::{flow}")]);
    texts.map(|text| text.parse().with_context(|| text.clone())).collect()
}

impl Site<'_> {
    fn from(&self) -> &Namespace {
        &self.workloads[0].namespace
    }

    /// The kernel's multipath routes are one route with four next hops, each with its neighbour's MAC address.
    fn one_group_of_four(&self) -> Result<()> {
        for to in [SINKS[0], SINKS[1], BLOCKS[1][0], BLOCKS[1][1]] {
            let (network, _) = to.split_once('/').context("a prefix")?;
            self.lab.wait(&format!("four next hops to {to}"), CONVERGE, || {
                self.nodes[0].must_run()?;
                let route: ShowRoute = self.nodes[0].show(&format!("route {network}"))?;
                let known = route.nexthops.iter().filter(|hop| hop.mac.is_some()).count();
                let is_it = route.prefix.as_deref() == Some(to) && route.source.as_deref() == Some("static");
                ensure!(is_it && known == FABRICS, "{route:?}");
                Ok(Some(()))
            })?;
        }
        self.lab.proved(format!(
            "the kernel's static routes with {FABRICS} next hops are one route each, every next hop resolved"
        ));
        Ok(())
    }

    fn workloads_talk(&self) -> Result<()> {
        let (a, b) = (&self.workloads[0], &self.workloads[1]);
        for family in Family::ALL {
            let to = b.address(family)?;
            traffic::reaches(self.lab, &a.namespace, to, CONVERGE)?;
            let speed = traffic::iperf3_streams(self.lab, &a.namespace, &b.namespace, to, 2, 8)?;
            self.lab.proved(format!(
                "8 TCP streams between workloads, {family:?}: {:.2} Gbit/s, {} segments sent again",
                speed.bits_per_second / 1e9,
                speed.retransmits
            ));
        }
        Ok(())
    }

    /// Sends datagrams of each flow, which must all arrive, and sees which fabric they take.
    fn ways(&mut self) -> Result<Ways> {
        let filter = format!("udp and dst port {}", Sink::PORT);
        let captures: Vec<Capture> = (self.fabrics.iter())
            .map(|fabric| Capture::start(self.lab, fabric.namespace(), Fabric::BRIDGE, &filter))
            .collect::<Result<_>>()?;
        let flows = UdpFlows::start(self.lab, self.from(), &destinations()?, 2, DATAGRAMS, SOURCE_PORT)?;
        let expected = self.arrived + flows.finish()?;
        self.lab.wait("every datagram", ARRIVE, || {
            self.arrived = self.sink.counted()?.packets;
            ensure!(self.arrived == expected, "{} of {expected} have arrived", self.arrived);
            Ok(Some(()))
        })?;
        let mut ways = Ways::new();
        for (number, capture) in captures.into_iter().enumerate() {
            for line in capture.stop()?.lines()? {
                let flow = destination(&line).with_context(|| format!("no destination in: {line}"))?;
                let before = ways.insert(flow, number);
                ensure!(
                    before.is_none_or(|before| before == number),
                    "{flow} took two fabrics: {before:?}, {number}"
                );
            }
        }
        ensure!(ways.len() == 2 * usize::from(FLOWS), "{} flows were captured", ways.len());
        Ok(ways)
    }

    fn spread_evenly(&self, ways: &Ways, over: usize) -> Result<()> {
        let counts = per_fabric(ways);
        let fair = ways.len() / over;
        let used = counts.iter().filter(|count| **count > 0).count();
        ensure!(used == over, "flows use {used} fabrics: {counts:?}");
        // Four standard deviations of a fair choice would be 28 of 64: more is no chance.
        ensure!(counts.iter().all(|count| count.abs_diff(fair) <= 28), "flows are spread {counts:?}");
        self.lab.proved(format!(
            "{} UDP flows of both families are spread {counts:?} over the fabrics",
            ways.len()
        ));
        Ok(())
    }

    /// Pulls the plugs of a fabric while flows run, and measures how long its flows were without a way.
    fn cut_under_traffic(&mut self, before: &Ways) -> Result<()> {
        let first = self.arrived;
        let copies = DATAGRAMS * SECONDS / (2 * u32::from(FLOWS));
        let flows = UdpFlows::start(self.lab, self.from(), &destinations()?, copies, DATAGRAMS, SOURCE_PORT)?;
        self.lab.wait("datagrams to arrive", ARRIVE, || {
            let arrived = self.sink.counted()?.packets - first;
            Ok((arrived > u64::from(DATAGRAMS)).then_some(()))
        })?;
        self.lab.step(&format!("cutting fabric {CUT}"));
        self.plug("down")?;
        let sent = flows.finish()?;
        // The sink reports five times a second, so a second without news is the end.
        self.lab.wait("the last datagram", ARRIVE, || {
            let before = std::mem::replace(&mut self.arrived, self.sink.counted()?.packets);
            wait::pass(Duration::from_secs(1))?;
            Ok((before == self.arrived).then_some(()))
        })?;
        let lost = (first + sent).checked_sub(self.arrived).context("more arrived than was sent")?;
        let cut = before.values().filter(|fabric| **fabric == CUT).count();
        let share = cut as f64 / before.len() as f64;
        let outage = Duration::from_secs_f64(lost as f64 / (f64::from(DATAGRAMS) * share));
        ensure!(
            outage <= OUTAGE_MAX,
            "{lost} of {sent} datagrams were lost: {} ms without a way",
            outage.as_millis()
        );
        self.lab.proved(format!(
            "fabric {CUT} cut under {DATAGRAMS} datagrams a second: {lost} of {sent} lost, so its {cut} flows were {} ms without a way",
            outage.as_millis()
        ));
        Ok(())
    }

    fn only_its_flows_moved(&self, before: &Ways, during: &Ways) -> Result<()> {
        let moved: Vec<_> =
            before.iter().filter(|(flow, fabric)| during.get(*flow) != Some(*fabric)).collect();
        let strays = moved.iter().filter(|(_, fabric)| **fabric != CUT).count();
        ensure!(strays == 0, "{strays} flows of other fabrics moved");
        let counts = per_fabric(during);
        ensure!(counts[CUT] == 0, "flows still take fabric {CUT}: {counts:?}");
        let gained: Vec<usize> =
            counts.iter().zip(per_fabric(before)).map(|(now, then)| now.saturating_sub(then)).collect();
        ensure!(gained.iter().filter(|count| **count > 0).count() == FABRICS - 1, "all to few: {gained:?}");
        self.lab.proved(format!(
            "{} flows moved, all of them fabric {CUT}'s, to the others {gained:?}; {} stayed where they were",
            moved.len(),
            before.len() - moved.len()
        ));
        Ok(())
    }

    fn restore(&self) -> Result<()> {
        self.lab.step(&format!("mending fabric {CUT}"));
        self.plug("up")
    }

    /// Sets all ports of the fabric that is cut, so that its machines lose their carrier or get it back.
    fn plug(&self, state: &str) -> Result<()> {
        let fabric = &self.fabrics[CUT];
        let machines = self.nodes.iter().map(TortieNode::namespace).chain([&self.sink_host]);
        for machine in machines {
            fabric.namespace().ip(&format!("link set {} {state}", fabric.port(machine, &interface(CUT))))?;
        }
        Ok(())
    }
}

/// How many flows each fabric has.
fn per_fabric(ways: &Ways) -> [usize; FABRICS] {
    let mut counts = [0; FABRICS];
    ways.values().for_each(|fabric| counts[*fabric] += 1);
    counts
}

/// The destination of a datagram in a line of tcpdump's: `… > 10.66.0.7.9000: UDP, length 9`.
fn destination(line: &str) -> Option<IpAddr> {
    let (_, after) = line.rsplit_once(" > ")?;
    let (to, _) = after.split_once(": ")?;
    let (address, _) = to.rsplit_once('.')?;
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_from_tcpdump() {
        let ethernet = "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype";
        let v4 =
            format!("{ethernet} IPv4 (0x0800), length 51: 10.65.0.1.40000 > 10.66.0.7.9000: UDP, length 9");
        let v6 = format!("{ethernet} IPv6 (0x86dd), length 69: fd65::1.40001 > fd66::7.9000: UDP, length 7");
        assert_eq!(destination(&v4), "10.66.0.7".parse().ok());
        assert_eq!(destination(&v6), "fd66::7".parse().ok());
    }
}
