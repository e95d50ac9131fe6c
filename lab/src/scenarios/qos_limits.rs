//! What Calico's QoS controls promise, measured: bandwidth, packet rate and connections in both directions, changed while
//! traffic flows, and the DSCP of what leaves.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::Family;

use super::one_node::{OneNode, UPLINK, outside, port_of};
use crate::capture::Capture;
use crate::cluster::CONVERGE;
use crate::disturbance::undisturbed;
use crate::netns::Namespace;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Limit, Qos, TortieNode};
use crate::{Lab, books, traffic};

/// Limits of one endpoint.
pub(super) const QOS_LIMITS: Scenario = Scenario {
    name: "qos-limits",
    about: "an endpoint's bandwidth, packet rate, connections and DSCP hold in both directions, and change while traffic flows",
    programs: &["ping", "iperf3", "ethtool", "tcpdump"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

/// What is measured, in bits and packets a second.
const BANDWIDTH: u64 = 20_000_000;
const PACKET_RATE: u64 = 1_000;
/// Packets at once: so many that a sender on a busy machine, which sends in clumps, doesn't leave its share unused.
const PACKET_BURST: u64 = 50;
/// Bits at once: Calico's default of 4 Gibit would outlast the measurement.
const BURST: u64 = 1_000_000;
/// The same for TCP: what the limit lets pass in a second and a half.
const TCP_BURST: u64 = BANDWIDTH * 3 / 2;
const SECONDS: u32 = 4;
/// Bytes of a datagram, and of the headers in front that count too.
const PAYLOAD: u32 = 1_400;
const HEADERS: f64 = 14.0 + 20.0 + 8.0;
/// How far UDP may be off, and TCP below, which finds the limit by losing packets.
const UDP_TOLERANCE: f64 = 0.05;
const TCP_TOLERANCE: f64 = 0.10;
/// EF, and how its field looks like in both headers.
const DSCP: u8 = 46;
const PINGS: u32 = 5;
/// What a burst lasts: what a limit allows beyond it while a machine with other work lets the router wait is lost.
const BURST_LASTS: Duration = Duration::from_millis(1_000 * BURST / BANDWIDTH);
/// A share that no wait of the router's explains: it has less pass, not more.
const FAR_ABOVE: f64 = 1.5;

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = OneNode::raise(lab, &["w1", "w2"])?;
    let node = site.start()?;
    let limits = Limits { site: &site, node: &node };
    let (bits, packets) = (format!("Bandwidth: {BANDWIDTH}, "), format!("PacketRate: {PACKET_RATE}, "));
    for direction in ["ingress", "egress"] {
        let burst = format!("{direction}Burst: {BURST}");
        limits.set(&format!("{{{direction}{bits}{burst}}}"), direction, "bandwidth", BANDWIDTH)?;
        limits.bandwidth_holds(direction)?;
        let burst = format!("{direction}PacketBurst: {PACKET_BURST}");
        limits.set(&format!("{{{direction}{packets}{burst}}}"), direction, "packet_rate", PACKET_RATE)?;
        limits.packet_rate_holds(direction)?;
    }
    for direction in ["ingress", "egress"] {
        limits.connections_hold(direction)?;
    }
    limits.change_under_traffic()?;
    limits.dscp_is_written()?;
    let text = node.show_text("ports --limits")?;
    lab.proved(format!("`show ports --limits`:\n{}", String::from_utf8_lossy(&text.stdout).trim_end()));
    let books = books::settled(lab, &node)?;
    lab.proved(books::line("node", &books));
    Ok(())
}

struct Limits<'lab> {
    site: &'lab OneNode<'lab>,
    node: &'lab TortieNode,
}

impl Limits<'_> {
    /// Gives the first workload these controls and waits until `show ports` tells of the limit.
    fn set(&self, controls: &str, direction: &str, limit: &str, rate: u64) -> Result<()> {
        self.site.resources.qos_controls("node", self.site.workloads[0].name(), controls)?;
        self.site.lab.wait("the new limit", CONVERGE, || {
            let limits = self.qos()?.limits;
            let is_it =
                |l: &&Limit| (l.direction.as_str(), l.limit.as_str(), l.rate) == (direction, limit, rate);
            Ok((limits.len() == 1).then(|| limits.iter().find(is_it).cloned()).flatten().map(drop))
        })
    }

    fn qos(&self) -> Result<Qos> {
        Ok(port_of(self.node, &self.site.workloads[0])?.qos.unwrap_or_default())
    }

    fn dropped(&self) -> Result<u64> {
        Ok(self.qos()?.limits.first().context("a limit")?.dropped)
    }

    /// Who sends to whom in a direction, and to what address.
    fn ends(&self, direction: &str) -> Result<(&Namespace, &Namespace, IpAddr)> {
        let workload = &self.site.workloads[0];
        Ok(match direction {
            "ingress" => (&self.site.outside, &workload.namespace, workload.address(Family::V4)?),
            _ => (&workload.namespace, &self.site.outside, outside(Family::V4)?),
        })
    }

    fn bandwidth_holds(&self, direction: &str) -> Result<()> {
        let (from, to, address) = self.ends(direction)?;
        let offered = (PAYLOAD, BANDWIDTH * 3);
        let udp = || traffic::iperf3_udp(self.site.lab, from, to, address, SECONDS, offered);
        let of_limit = (f64::from(PAYLOAD) + HEADERS) / f64::from(PAYLOAD) / BANDWIDTH as f64;
        let (_, share) = measured(
            self.site.lab,
            &format!("{direction}: of the limit UDP got"),
            1.0 - UDP_TOLERANCE..=1.0 + UDP_TOLERANCE,
            || udp().map(|udp| (udp, udp.bits_per_second * of_limit)),
        )?;
        let dropped = self.dropped()?;
        ensure!(dropped > 0, "{direction}: the limit dropped nothing");
        // TCP waits 0.2 s and more for what was lost, so it needs a bucket that keeps what it doesn't use meanwhile. What
        // is in it is used up first.
        let deep = format!("{{{direction}Bandwidth: {BANDWIDTH}, {direction}Burst: {TCP_BURST}}}");
        self.set(&deep, direction, "bandwidth", BANDWIDTH)?;
        let (tcp, tcp_share) = measured(
            self.site.lab,
            &format!("{direction}: of the limit TCP got, headers included,"),
            1.0 - TCP_TOLERANCE..=1.0 + UDP_TOLERANCE,
            || {
                udp()?;
                let tcp = traffic::iperf3(self.site.lab, from, to, address, SECONDS * 2)?;
                // Of 1,514 bytes, 1,448 are TCP's payload.
                Ok((tcp, tcp.bits_per_second * 1_514.0 / 1_448.0 / BANDWIDTH as f64))
            },
        )?;
        self.site.lab.proved(format!(
            "{direction} bandwidth {} Mbit/s: of three times as much UDP {:.1} % of the limit arrives ({dropped} packets \
             dropped), TCP gets {:.1} % ({} segments sent again)",
            BANDWIDTH / 1_000_000,
            share * 100.0,
            tcp_share * 100.0,
            tcp.retransmits
        ));
        Ok(())
    }

    fn packet_rate_holds(&self, direction: &str) -> Result<()> {
        let (from, to, address) = self.ends(direction)?;
        const SMALL: u32 = 100;
        let offered = (SMALL, PACKET_RATE * 4 * u64::from(SMALL) * 8);
        let (_, share) = measured(
            self.site.lab,
            &format!("{direction}: of the limit of packets passed"),
            1.0 - UDP_TOLERANCE..=1.0 + UDP_TOLERANCE,
            || {
                let udp = traffic::iperf3_udp(self.site.lab, from, to, address, SECONDS, offered)?;
                Ok((udp, udp.per_second / PACKET_RATE as f64))
            },
        )?;
        self.site.lab.proved(format!(
            "{direction} packet rate {PACKET_RATE}: of four times as many {:.1} % of the limit arrive ({} packets dropped)",
            share * 100.0,
            self.dropped()?
        ));
        Ok(())
    }

    /// One session lives and another doesn't come up; once the first has ended the other one does.
    fn connections_hold(&self, direction: &str) -> Result<()> {
        let lab = self.site.lab;
        // A closed connection counts until it is forgotten.
        self.site.resources.felix("bpfConntrackTimeouts: {tcpFinsSeen: 1s, tcpResetSeen: 1s}")?;
        self.set(&format!("{{{direction}MaxConnections: 1}}"), direction, "connections", 1)?;
        let (from, to, address) = self.ends(direction)?;
        let mut first = traffic::Session::open(lab, from, to, address)?;
        let mut second = first.try_another(lab, from)?;
        let refused =
            lab.wait("a refused connection", CONVERGE, || Ok(Some(self.dropped()?).filter(|n| *n > 0)))?;
        first.beats_on(5)?;
        ensure!(second.beats()? == 0, "{direction}: a second connection came up beside the first");
        let echo = first.hang_up();
        second.beats_on(5)?;
        drop((second, echo));
        lab.proved(format!(
            "{direction} connections 1: a second one is refused ({refused} packets dropped) while the first lives, and comes \
             up once it has ended"
        ));
        Ok(())
    }

    /// A session lives through a limit's coming, changing and going; the other workload isn't limited.
    fn change_under_traffic(&self) -> Result<()> {
        let (from, to, address) = self.ends("egress")?;
        let mut session = traffic::Session::open(self.site.lab, from, to, address)?;
        for rate in [BANDWIDTH, BANDWIDTH / 2] {
            self.set(
                &format!("{{egressBandwidth: {rate}, egressBurst: {BURST}}}"),
                "egress",
                "bandwidth",
                rate,
            )?;
            session.beats_on(5)?;
            ensure!(self.dropped()? == 0, "a limit far above what the session sends has dropped of it");
        }
        self.site.resources.qos_controls("node", self.site.workloads[0].name(), "{}")?;
        self.site
            .lab
            .wait("no limit any more", CONVERGE, || Ok((self.qos()? == Qos::default()).then_some(())))?;
        session.beats_on(5)?;
        let longest = session.longest_beat()?;
        let free = traffic::iperf3(self.site.lab, from, to, address, 2)?;
        ensure!(free.bits_per_second > 3.0 * BANDWIDTH as f64, "still limited: {free:?}");
        self.site.lab.proved(format!(
            "a session lived through a limit's coming, changing and going (longest beat {} ms); then TCP got {:.0} Mbit/s",
            longest.as_millis(),
            free.bits_per_second / 1e6
        ));
        Ok(())
    }

    fn dscp_is_written(&self) -> Result<()> {
        let workload = &self.site.workloads[0];
        let resources = &self.site.resources;
        resources.qos_controls("node", workload.name(), &format!("{{dscp: {DSCP}}}"))?;
        self.site.lab.wait("the DSCP", CONVERGE, || Ok((self.qos()?.dscp == Some(DSCP)).then_some(())))?;
        let capture = Capture::start(self.site.lab, &self.site.outside, UPLINK, &echoes_marked(DSCP))?;
        for family in Family::ALL {
            for from in [&workload.namespace, &self.site.workloads[1].namespace] {
                let to = outside(family)?;
                traffic::answered(from, to, PINGS)?;
            }
        }
        let captured = capture.stop()?;
        let marked = captured.checksums_are_right()?;
        ensure!(marked >= 2 * PINGS as usize, "{marked} echo requests of {} are marked", 2 * PINGS);
        for line in captured.lines()? {
            let is_its = workload.addresses.iter().any(|own| line.contains(&format!(" {own} > ")));
            ensure!(is_its, "another's echo request is marked: {line}");
        }
        self.site.lab.proved(format!(
            "{marked} echo requests left with DSCP {DSCP}, IPv4 and IPv6, checksums right, and those of a neighbour \
             without"
        ));
        Ok(())
    }
}

/// A measurement whose share is among these, and the share; anew where the machine disturbed it.
fn measured<T>(
    lab: &Lab,
    what: &str,
    due: RangeInclusive<f64>,
    measure: impl Fn() -> Result<(T, f64)>,
) -> Result<(T, f64)> {
    undisturbed(lab.progress(), BURST_LASTS, || {
        let (measured, share) = measure()?;
        let words = format!("{what} {:.1} %", share * 100.0);
        ensure!(share < FAR_ABOVE, "{words}");
        Ok(if due.contains(&share) { Ok((measured, share)) } else { Err(words) })
    })
}

/// What tcpdump is to look for: echo requests of either family with this DSCP. The kernel's replies copy it.
fn echoes_marked(dscp: u8) -> String {
    let field = u16::from(dscp);
    format!(
        "(icmp[icmptype] = icmp-echo and ip[1] & 0xfc = {}) or (ip6[6] = 58 and ip6[40] = 128 and ip6[0:2] & 0x0fc0 = {})",
        field << 2,
        field << 6
    )
}
