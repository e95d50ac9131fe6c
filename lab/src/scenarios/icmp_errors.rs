//! What a router owes to senders: ICMP errors with the right source, silence where silence is due, and the host
//! itself as one more neighbour (D1a).

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use model::Family;

use crate::cluster::{Cluster, ClusterPlan, NodePlan, RouterKind, nth};
use crate::netns::Namespace;
use crate::scenario::{Options, Scenario, Store};
use crate::{Lab, command, traffic};

/// Every error is asked for by ping and read from what ping says.
pub(super) const ICMP_ERRORS: Scenario = Scenario {
    name: "icmp-errors",
    about: "TTL exceeded, no route, refused routes and blackhole as senders see them; traceroute; workload to host and back",
    programs: &["ping", "traceroute", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

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
            workloads: 1,
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

/// What one family's addresses and ping's words are.
struct Words {
    family: Family,
    nowhere: &'static str,
    nobody: &'static str,
    ttl_exceeded: &'static str,
    no_route: &'static str,
    host_unreachable: &'static str,
    /// Routes that the administrator of the first node refuses by, an address in each, and what is said.
    unreachable: (&'static str, &'static str, &'static str),
    prohibited: (&'static str, &'static str, &'static str),
}

const WORDS: [Words; 2] = [
    Words {
        family: Family::V4,
        nowhere: "198.51.100.1",
        nobody: "172.18.0.99",
        ttl_exceeded: "Time to live exceeded",
        no_route: "Destination Net Unreachable",
        host_unreachable: "Destination Host Unreachable",
        unreachable: ("203.0.113.0/25", "203.0.113.1", "Destination Host Unreachable"),
        prohibited: ("203.0.113.128/25", "203.0.113.129", "Packet filtered"),
    },
    Words {
        family: Family::V6,
        nowhere: "2001:db8:ffff::1",
        nobody: "fd18::99",
        ttl_exceeded: "Time exceeded: Hop limit",
        no_route: "Destination unreachable: No route",
        host_unreachable: "Destination unreachable: Address unreachable",
        // Code 6, "reject route", which this ping has no words for.
        unreachable: ("2001:db8:1::/48", "2001:db8:1::1", "Destination unreachable: Unknown code 6"),
        prohibited: (
            "2001:db8:2::/48",
            "2001:db8:2::1",
            "Destination unreachable: Administratively prohibited",
        ),
    },
];

/// How long an error may take, in seconds: a neighbour is asked for once a second, and given up after the fourth time.
const PATIENT: &str = "20";

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut cluster = Cluster::raise(lab, &PLAN)?;
    for words in &WORDS {
        for (kind, (prefix, ..)) in [("unreachable", words.unreachable), ("prohibit", words.prohibited)] {
            cluster.nodes[0].namespace.ip(&format!("route add {kind} {prefix}"))?;
        }
    }
    cluster.comes_up()?;
    for words in &WORDS {
        errors(lab, &cluster, words)?;
        host_and_workload_reach_each_other(lab, &cluster, words.family)?;
    }
    cluster.books_balance()
}

fn errors(lab: &Lab, cluster: &Cluster<'_>, words: &Words) -> Result<()> {
    let (from, to) = cluster.distant_workloads()?;
    let target = to.address(words.family)?;
    let routers = [cluster.nodes[0].address(words.family)?, cluster.nodes[1].address(words.family)?];
    for (hop, router) in (1..).zip(routers) {
        let said = ping(&from.namespace, target, Some(hop))?;
        told(&said, router, words.ttl_exceeded)?;
        lab.proved(format!("{target} with TTL {hop}: {router} says \"{}\"", words.ttl_exceeded));
    }
    let nowhere: IpAddr = words.nowhere.parse()?;
    told(&ping(&from.namespace, nowhere, None)?, routers[0], words.no_route)?;
    lab.proved(format!("{nowhere}: {} says \"{}\"", routers[0], words.no_route));
    let nobody: IpAddr = words.nobody.parse()?;
    told(&ping(&from.namespace, nobody, None)?, routers[0], words.host_unreachable)?;
    lab.proved(format!("{nobody}: {} says \"{}\"", routers[0], words.host_unreachable));
    for (kind, (_, refused, says)) in [("unreachable", words.unreachable), ("prohibit", words.prohibited)] {
        let refused: IpAddr = refused.parse()?;
        told(&ping(&from.namespace, refused, None)?, routers[0], says)?;
        lab.proved(format!("{refused}, by a route of the kind {kind}: {} says \"{says}\"", routers[0]));
    }
    traced(lab, &from.namespace, target, &[routers[0], routers[1], target])?;
    let unused = nth(cluster.nodes[1].block(words.family)?, 40);
    let said = said(&from.namespace, unused, &["-c", "3", "-W", "2"])?;
    ensure!(
        said.contains("3 packets transmitted, 0 received") && !said.to_lowercase().contains("unreachable"),
        "an unused address of a block isn't silent: {said}"
    );
    lab.proved(format!("{unused}, unused in the other node's block: silence"));
    Ok(())
}

/// traceroute, by UDP and by ICMP, sees each router by the address that its packet came in by.
fn traced(lab: &Lab, from: &Namespace, to: IpAddr, hops: &[IpAddr]) -> Result<()> {
    for method in ["--udp", "--icmp"] {
        let mut traceroute = from.command("traceroute");
        traceroute.args(["-n", "-q", "1", "-w", super::nat_site::PATIENT, method, &to.to_string()]);
        let said = command::run(&mut traceroute, Duration::from_secs(60))?;
        let seen: Vec<IpAddr> =
            said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
        ensure!(seen == hops, "traceroute {method} to {to} sees {seen:?}, not {hops:?}: {said}");
    }
    let path: Vec<String> = hops.iter().map(ToString::to_string).collect();
    lab.proved(format!("traceroute by UDP and by ICMP: {}", path.join(", ")));
    Ok(())
}

/// D1a: the host is one more neighbour of its workloads, in both directions and without a hop in between.
fn host_and_workload_reach_each_other(lab: &Lab, cluster: &Cluster<'_>, family: Family) -> Result<()> {
    let (workload, _) = cluster.distant_workloads()?;
    let node = &cluster.nodes[0];
    let host = node.address(family)?;
    let ping = traffic::answered(&workload.namespace, host, 3)?;
    let address = workload.address(family)?;
    let back = traffic::answered(&node.namespace, address, 3)?;
    ensure!(
        (ping.ttl, back.ttl) == (Some(64), Some(64)),
        "between host and workload there is no hop, yet replies arrive with TTL {:?} and {:?}",
        ping.ttl,
        back.ttl
    );
    lab.proved(format!("{family:?}: {address} and its own host {host} reach each other, TTL untouched"));
    Ok(())
}

/// What ping prints until it gets an answer or an error, for which it asks once a second.
fn ping(from: &Namespace, to: IpAddr, ttl: Option<u32>) -> Result<String> {
    let ttl = ttl.map(|ttl| ttl.to_string());
    let ttl = ttl.as_ref().map(|ttl| ["-t", ttl]);
    said(from, to, &[&["-c", "1", "-w", PATIENT][..], ttl.as_ref().map_or(&[], |ttl| &ttl[..])].concat())
}

/// What ping prints, whether answered or not.
fn said(from: &Namespace, to: IpAddr, options: &[&str]) -> Result<String> {
    let mut ping = from.command("ping");
    ping.arg("-n").args(options).arg(to.to_string());
    let output = command::output(&mut ping, Duration::from_secs(60))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Did this router say this?
fn told(said: &str, router: IpAddr, words: &str) -> Result<()> {
    let from = format!("From {router} ");
    ensure!(
        said.lines().any(|line| line.starts_with(&from) && line.contains(words)),
        "no line of ping's begins with \"{from}\" and says \"{words}\": {said}"
    );
    Ok(())
}
