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
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowRoute, TortieNode};
use crate::traffic::{self, Session, Sink, UdpFlows};
use crate::workload::Workload;
use crate::{Lab, books, dissected};

/// A loss of one in four next hops.
pub(super) const FOUR_FABRICS: Scenario = Scenario {
    name: "four-fabrics",
    about: "two nodes in four parallel networks: flows spread over all, a cut moves only its own, and they come back",
    programs: &["tcpdump", "tshark", "ping", "iperf3", "ethtool"],
    tortie: true,
    alone: true,
    store: Store::Either,
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
/// How long flows may be without their fabric: on a busy machine for longer than by themselves, and a router that doesn't
/// notice leaves them without it until the end.
const OUTAGE_MAX: Duration = Duration::from_secs(2);
const ARRIVE: Duration = Duration::from_secs(60);

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
        let captures = self.captures()?;
        let flows = UdpFlows::start(self.lab, self.from(), &destinations()?, 2, DATAGRAMS, SOURCE_PORT)?;
        let expected = self.arrived + flows.finish()?;
        self.lab.wait("every datagram", ARRIVE, || {
            self.arrived = self.sink.counted()?.packets;
            ensure!(self.arrived == expected, "{} of {expected} have arrived", self.arrived);
            Ok(Some(()))
        })?;
        let mut ways = Ways::new();
        for (number, capture) in captures.into_iter().enumerate() {
            for (_, flow) in dissected::datagrams(&capture.stop()?, Sink::PORT)? {
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
        let by_kernel = self.forwarded_by_kernel()?;
        let not_received = books::not_received(&self.nodes[0])?;
        let captures = self.captures()?;
        let flows = UdpFlows::start(self.lab, self.from(), &destinations()?, copies, DATAGRAMS, SOURCE_PORT)?;
        self.lab.wait("datagrams to arrive", ARRIVE, || {
            let arrived = self.sink.counted()?.packets - first;
            Ok((arrived > u64::from(DATAGRAMS)).then_some(()))
        })?;
        self.lab.step(&format!("cutting fabric {CUT}"));
        self.plug("down")?;
        let sent = flows.finish()?;
        self.arrived = self.sink.settled(self.lab)?.packets;
        let by_kernel = self.forwarded_by_kernel()? - by_kernel;
        ensure!(by_kernel == 0, "the kernel forwarded {by_kernel} packets of them");
        let lost = (first + sent).checked_sub(self.arrived).context("more arrived than was sent")?;
        // What the router never got, as other programs kept it from its core, would be lost without a cut, too.
        let not_received = books::not_received(&self.nodes[0])? - not_received;
        let by_cut = lost.saturating_sub(not_received);
        let outage = Outage::seen(captures, before)?;
        let cut = before.values().filter(|fabric| **fabric == CUT).count();
        // Of its flows alone, each lost datagram stands for so long.
        let each = before.len() as f64 / (cut as f64 * f64::from(DATAGRAMS));
        let unheard = Duration::from_secs_f64(by_cut as f64 * each);
        ensure!(
            outage.gap.max(unheard) <= OUTAGE_MAX,
            "{lost} of {sent} datagrams were lost, {not_received} before the router, and {:?} passed until a flow moved",
            outage.gap
        );
        self.lab.proved(format!(
            "fabric {CUT} cut under {DATAGRAMS} datagrams a second: {:.1} ms after the last of {} datagrams in it the first of \
             its {cut} flows took another one, and {} of the others' passed meanwhile; {lost} of {sent} were lost, \
             {not_received} of them before the router, each {:.1} ms of those flows; the kernel forwarded none",
            outage.gap.as_secs_f64() * 1e3,
            outage.carried,
            outage.others,
            each * 1e3
        ));
        Ok(())
    }

    fn captures(&self) -> Result<Vec<Capture>> {
        let filter = format!("udp and dst port {}", Sink::PORT);
        let start = |fabric: &Fabric| Capture::start(self.lab, fabric.namespace(), Fabric::BRIDGE, &filter);
        self.fabrics.iter().map(start).collect()
    }

    /// Packets that the senders' node has forwarded without its router.
    fn forwarded_by_kernel(&self) -> Result<u64> {
        let node = self.nodes[0].namespace();
        let (v4, v6) = (node.run("cat", &["/proc/net/snmp"])?, node.run("cat", &["/proc/net/snmp6"])?);
        kernel_forwarded(&v4, &v6).context("the kernel's counters of forwarded packets")
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

/// What captures in all fabrics saw of a cut.
#[derive(Debug, PartialEq, Eq)]
struct Outage {
    /// Datagrams that the fabric carried until then.
    carried: usize,
    /// From the last one there to the first one of its flows elsewhere.
    gap: Duration,
    /// Datagrams of other flows in between: hardly any where the whole machine stood still.
    others: usize,
}

impl Outage {
    fn seen(captures: Vec<Capture>, before: &Ways) -> Result<Outage> {
        let stop = |capture: Capture| dissected::datagrams(&capture.stop()?, Sink::PORT);
        let seen: Vec<Vec<(Duration, IpAddr)>> = captures.into_iter().map(stop).collect::<Result<_>>()?;
        Outage::of(&seen, before).context("no flow was seen to move")
    }

    fn of(seen: &[Vec<(Duration, IpAddr)>], before: &Ways) -> Option<Outage> {
        let (last, _) = seen.get(CUT)?.iter().max()?;
        let others = seen.iter().enumerate().filter(|(fabric, _)| *fabric != CUT);
        let elsewhere = others.flat_map(|(_, seen)| seen).filter(|(_, flow)| before.get(flow) == Some(&CUT));
        let (moved, _) = elsewhere.min()?;
        let others = seen.iter().flatten().filter(|(at, flow)| {
            last < at && at < moved && before.get(flow).is_some_and(|fabric| *fabric != CUT)
        });
        // A flow may have moved while the last one was on its way.
        Some(Outage { carried: seen[CUT].len(), gap: moved.saturating_sub(*last), others: others.count() })
    }
}

/// Out of `/proc/net/snmp`, where names stand above their numbers, and `/proc/net/snmp6`, where each has a line.
fn kernel_forwarded(v4: &str, v6: &str) -> Option<u64> {
    let mut lines = v4.lines().filter(|line| line.starts_with("Ip:")).map(str::split_whitespace);
    let mut columns = lines.next()?.zip(lines.next()?);
    let (_, v4) = columns.find(|(name, _)| *name == "ForwDatagrams")?;
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"))?;
    Some(v4.parse::<u64>().ok()? + v6.trim().parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read() {
        let v4 = "Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams\nIp: 1 64 7 0 0 5\nIcmp: 1\n";
        let v6 = "Ip6InReceives                   \t12\nIp6OutForwDatagrams             \t3\n";
        assert_eq!(kernel_forwarded(v4, v6), Some(8));
        assert_eq!(kernel_forwarded("", v6), None);
    }

    #[test]
    fn an_outage_is_from_the_last_datagram_in_the_fabric_to_the_first_elsewhere() {
        let flow = |n: u8| IpAddr::from([10, 66, 0, n]);
        let at = |milliseconds, n| (Duration::from_millis(milliseconds), flow(n));
        let before = Ways::from([(flow(1), CUT), (flow(2), CUT), (flow(3), 0)]);
        let mut seen =
            vec![vec![at(1, 3), at(20, 3), at(70, 1)], vec![], vec![at(5, 1), at(6, 2)], vec![at(50, 2)]];
        let outage = Outage { carried: 2, gap: Duration::from_millis(44), others: 1 };
        assert_eq!(Outage::of(&seen, &before), Some(outage));
        seen[3].clear();
        seen[0].pop();
        assert_eq!(Outage::of(&seen, &before), None, "nobody moved");
    }
}
