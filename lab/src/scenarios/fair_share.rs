//! A greedy workload and two modest ones share an uplink whose far end is slow: what the kernel's forwarding makes of it,
//! and what Tortie does.
//!
//! The far end is a receiver that takes its time for every packet, in a kernel thread of its own. A veth whose receiver is
//! behind tells its sender to wait where the sender has a queue (Linux 6.16 and later), so the router's transmit ring (or
//! the kernel's queue) fills, as it does in front of a slow wire.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use model::Family;

use super::one_node::{OneNode, UPLINK, outside};
use crate::disturbance::undisturbed;
use crate::scenario::{CannotRun, Options, Scenario, Store};
use crate::tortie::ShowDrops;
use crate::traffic::{Sink, SinkReport};
use crate::{Lab, books, traffic};

/// One greedy workload and two modest ones.
pub(super) const FAIR_SHARE: Scenario = Scenario {
    name: "fair-share",
    about: "a greedy workload takes nothing from its neighbours on a slow uplink; the kernel's forwarding, for comparison",
    programs: &["ping", "ethtool", "nft"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

/// Workloads, and what each sends, in tenths of what the greedy one does.
const SENDERS: [(&str, u32); 3] = [("greedy", 10), ("modest1", 1), ("modest2", 1)];
/// A tenth of the greedy one's, as a part of what the far end takes: together they send twice as much as that.
const TENTH: u32 = 6;
/// What the greedy one sends in a second while the far end is measured.
const MEASURING: u32 = 20_000;
const SECONDS: u32 = 6;
/// Rules that the receiver looks at for each packet: what makes it slow.
const RULES: usize = 20_000;
/// What may be lost of a modest workload's packets in a thousand: where other programs keep the far end from its processor
/// for longer than a share of the ring lasts, some are. And what must be lost of them without fairness, and of the greedy
/// one's.
const MODEST_LOSS: u64 = 30;
const UNFAIR_LOSS: u64 = 100;
const GREEDY_LOSS: u64 = 200;
/// A share of the ring in front of the far end lasts no longer where other programs keep it from its processor.
const SHARE_LASTS: Duration = Duration::from_millis(20);
/// How long the first reply may take.
const REST: Duration = Duration::from_secs(60);

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = OneNode::raise(lab, &SENDERS.map(|(name, _)| name))?;
    slow_far_end(&site)?;
    for n in 0..SENDERS.len() {
        site.node.ip(&format!("route add {} via {}", destination(n), outside(Family::V4)?))?;
    }
    let mut sink = Sink::open(lab, &site.outside)?;
    // The kernel answers for a gateway that it has a route to.
    let default = format!("default via {}", outside(Family::V4)?);
    site.node.ip(&format!("route add {default}"))?;
    for workload in &site.workloads {
        workload.plug_into_kernel(&site.node)?;
        traffic::reaches(lab, &workload.namespace, outside(Family::V4)?, REST)?;
    }
    let takes = far_end_takes(&site, &mut sink)?;
    lab.proved(format!("the far end takes {takes} packets a second"));
    let at_first = rates(takes);
    let by_kernel = flood(&site, &mut sink, &at_first)?;
    lab.proved(format!("through the kernel: {}", by_kernel.line()));
    if by_kernel.lost(0) < GREEDY_LOSS {
        return Err(CannotRun(format!(
            "the far end is not slow enough to be a bottleneck ({}): this needs a veth that holds its sender back, of \
             Linux 6.16 or later",
            by_kernel.line()
        ))
        .into());
    }
    site.node.ip(&format!("route del {default}"))?;
    let node = site.start()?;
    for modest in 1..SENDERS.len() {
        ensure!(
            by_kernel.lost(modest) > UNFAIR_LOSS,
            "the comparison is fair too, so this proves nothing: {}",
            by_kernel.line()
        );
    }
    let by_tortie = undisturbed(lab.progress(), SHARE_LASTS, || {
        // Anew: it depends on what else the machine does.
        let rates = rates(far_end_takes(&site, &mut sink)?);
        let by_tortie = flood(&site, &mut sink, &rates)?;
        let is_fair = (1..SENDERS.len()).all(|modest| by_tortie.lost(modest) <= MODEST_LOSS);
        Ok(if is_fair && by_tortie.lost(0) >= GREEDY_LOSS {
            Ok(by_tortie)
        } else {
            Err(format!(
                "a modest workload lost its share, or the far end was no bottleneck: {}",
                by_tortie.line()
            ))
        })
    })?;
    lab.proved(format!("through Tortie: {}", by_tortie.line()));
    let books = books::settled(lab, &node)?;
    lab.proved(books::line("node", &books));
    ensure!(unfair(&books) > 0, "nothing was dropped for being more than a fair share");
    Ok(())
}

fn unfair(books: &ShowDrops) -> u64 {
    books.dropped.of("over_fair_share")
}

/// Makes the machine outside receive slowly, by a thread of its own, and the node's side of the link wait for it.
fn slow_far_end(site: &OneNode<'_>) -> Result<()> {
    let mut rules =
        String::from("table ip slow {\n chain prerouting {\n  type filter hook prerouting priority -300;\n");
    writeln!(rules, "  udp dport != {} accept", Sink::PORT)?;
    for rule in 0..RULES {
        writeln!(rules, "  udp sport {} ip ttl 255 accept", 1 + rule % 1_000)?;
    }
    rules.push_str(" }\n}\n");
    let file = site.lab.directory().join("slow.nft");
    std::fs::write(&file, rules)?;
    site.outside.run("nft", &["-f", file.to_str().context("a path in UTF-8")?])?;
    site.outside.run("ethtool", &["-K", UPLINK, "gro", "on"])?;
    site.outside.run("sh", &["-c", &format!("echo 1 > /sys/class/net/{UPLINK}/threaded")])?;
    // A veth hands packets to its peer's own thread where that peer couldn't get them unsegmented anyway.
    site.node.run("ethtool", &["-K", UPLINK, "tso", "off"])?;
    site.node.run("tc", &["qdisc", "add", "dev", UPLINK, "root", "pfifo", "limit", "1000"])?;
    Ok(())
}

fn destination(n: usize) -> IpAddr {
    IpAddr::from([10, 200, 0, 1 + n as u8])
}

/// What was sent and what arrived, by workload.
struct Outcome {
    sent: [u64; SENDERS.len()],
    arrived: [u64; SENDERS.len()],
    took: Duration,
}

impl Outcome {
    /// Packets lost in a thousand.
    fn lost(&self, n: usize) -> u64 {
        (self.sent[n] - self.arrived[n].min(self.sent[n])) * 1_000 / self.sent[n].max(1)
    }

    fn line(&self) -> String {
        let part = |n: usize| {
            format!(
                "{} {} of {} arrived ({:.1} % lost)",
                SENDERS[n].0,
                self.arrived[n],
                self.sent[n],
                self.lost(n) as f64 / 10.0
            )
        };
        (0..SENDERS.len()).map(part).collect::<Vec<_>>().join(", ")
    }
}

/// Packets a second.
fn far_end_takes(site: &OneNode<'_>, sink: &mut Sink) -> Result<u32> {
    let flood = flood(site, sink, &[MEASURING, 1, 1])?;
    Ok((flood.arrived[0] as f64 / flood.took.as_secs_f64()) as u32)
}

/// What each sends in a second to a far end that takes so many.
fn rates(takes: u32) -> [u32; SENDERS.len()] {
    SENDERS.map(|(_, tenths)| (tenths * takes / TENTH).max(1))
}

/// All send at once; counts until nothing more arrives.
fn flood(site: &OneNode<'_>, sink: &mut Sink, rates: &[u32; SENDERS.len()]) -> Result<Outcome> {
    let by_workload = |report: &SinkReport| -> [u64; SENDERS.len()] {
        std::array::from_fn(|n| report.destinations.get(&destination(n)).copied().unwrap_or(0))
    };
    let before = by_workload(&sink.settled(site.lab)?);
    let begin = Instant::now();
    let mut senders = Vec::new();
    for (n, (workload, rate)) in site.workloads.iter().zip(rates).enumerate() {
        let file = site.lab.directory().join(format!("destination-{}", workload.name()));
        std::fs::write(&file, format!("{}\n", destination(n)))?;
        let path = file.to_str().context("a path in UTF-8")?;
        let (port, copies) = (Sink::PORT.to_string(), (rate * SECONDS).to_string());
        let rate = rate.to_string();
        let arguments = ["--destinations", path, "--port", &port, "--copies", &copies, "--per-second", &rate];
        senders.push(traffic::agent(site.lab, &workload.namespace, "udp-send", &arguments)?);
    }
    let mut sent = [0; SENDERS.len()];
    for (sent, mut sender) in sent.iter_mut().zip(senders) {
        let told: serde_json::Value = serde_json::from_str(&sender.finish(Duration::from_secs(60))?)?;
        *sent = told["packets"].as_u64().ok_or_else(|| anyhow!("udp-send told no number of packets"))?;
    }
    let took = begin.elapsed();
    let after = by_workload(&sink.settled(site.lab)?);
    Ok(Outcome { sent, took, arrived: std::array::from_fn(|n| after[n] - before[n]) })
}
