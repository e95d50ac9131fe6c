//! A hundred thousand route changes a second, metrics scraped ten times a second, and not a packet lost.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::disturbance::undisturbed;
use crate::link::Fabric;
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowDrops, ShowPorts, ShowRoutes, TortieNode};
use crate::traffic::{self, Sink};
use crate::workload::Workload;
use crate::{Lab, books, wait};

/// Routes that change under the traffic that takes them.
pub(super) const ROUTE_CHURN: Scenario = Scenario {
    name: "route-churn",
    about: "a peer moves 100,000 routes a second between two next hops under traffic and scrapes; nothing is lost",
    programs: &["ethtool"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

const ROUTER: &str = "10.9.0.1/24";
const ROUTER_AS: u32 = 64512;
const FEED: &str = "10.9.0.2/24";
const FEED_AS: u32 = 64999;
const SINKS: [(&str, &str); 2] = [("sink-a", "10.9.0.11/24"), ("sink-b", "10.9.0.12/24")];
const BLOCK: &str = "10.65.0.0/26";
const WORKLOAD: &str = "10.65.0.1";
/// Routes that move.
const ROUTES: usize = 50_000;
/// How many of them a second.
const PER_SECOND: u32 = 100_000;
/// How long they move, in seconds.
const SECONDS: u64 = 10;
/// Destinations of the traffic, each in a route of its own.
const DESTINATIONS: usize = 1000;
/// Datagrams a second: far below what one core forwards, so that a loss is the router's fault.
const DATAGRAMS: u32 = 10_000;
/// Datagrams to each destination: traffic ends a little before the routes stand still.
const COPIES: u32 = DATAGRAMS * (SECONDS as u32 - 2) / DESTINATIONS as u32;
/// The metrics endpoint.
const METRICS: &str = "127.0.0.1:9191";
/// What the frames last that the kernel has for the worker to take, 1,024 of them.
const FRAMES_LAST: Duration = Duration::from_millis(1_024 * 1_000 / DATAGRAMS as u64);
const CONVERGE: Duration = Duration::from_secs(90);
const ARRIVE: Duration = Duration::from_secs(60);

/// A line of `bgp-churn`'s, or of `scrape`'s.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    announced: Option<u64>,
    moved: Option<u64>,
    seconds: f64,
    scrapes: Option<u64>,
    slowest_ms: u64,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let fabric = Fabric::raise(lab, "fabric")?;
    let feed = fabric.host(lab, "feed", &[FEED])?;
    let hosts = SINKS.map(|(name, address)| fabric.host(lab, name, &[address]));
    let [host_a, host_b] = hosts;
    let (host_a, host_b) = (host_a?, host_b?);
    for host in [&host_a, &host_b] {
        // The way back to the workload, without which the kernel would take the sender for itself.
        host.ip(&format!("route add {BLOCK} via {}", address(ROUTER)?))?;
    }
    let mut sinks = [Sink::open(lab, &host_a)?, Sink::open(lab, &host_b)?];
    let (router, workload) = router(lab, &fabric)?;
    router.start(lab)?;

    let bench = Bench { lab, feed, router, workload };
    let (moved, scraped, sent) = undisturbed(lab.progress(), FRAMES_LAST, || {
        let before = books::not_received(&bench.router)?;
        let Measured { moved, scraped, sent, arrived } = bench.measure(&mut sinks)?;
        if arrived == sent {
            return Ok(Ok((moved, scraped, sent)));
        }
        let lost = format!("{arrived} of {sent} datagrams arrived; {}", where_lost(&bench.router)?);
        // What the kernel couldn't give to a worker that other programs kept from its core isn't the routes' loss; a worker
        // that waits for routes is kept from it without them.
        ensure!(books::not_received(&bench.router)? > before, "{lost}");
        Ok(Err(lost))
    })?;
    let router = &bench.router;
    let changes = moved.moved.unwrap_or_default();
    lab.proved(format!(
        "{changes} route changes in {:.1} s, {:.0} a second, and {sent} datagrams through them: none lost",
        moved.seconds,
        changes as f64 / moved.seconds
    ));
    let scrapes = scraped.scrapes.unwrap_or_default();
    // Ten times a second is asked; how many come in time is the machine's, too.
    ensure!(scrapes >= (SECONDS - 2) * 2, "only {scrapes} scrapes in {} s", SECONDS - 2);
    lab.proved(format!("{scrapes} scrapes meanwhile, the slowest took {} ms", scraped.slowest_ms));
    both_sinks_were_used(&mut sinks)?;
    let books = books::settled(lab, router)?;
    lab.proved(books::line("router", &books));
    Ok(())
}

struct Bench<'lab> {
    lab: &'lab Lab,
    feed: Namespace,
    router: TortieNode,
    workload: Workload,
}

/// What came of routes that move under traffic.
struct Measured {
    moved: Told,
    scraped: Told,
    /// Datagrams.
    sent: u64,
    arrived: u64,
}

impl Bench<'_> {
    fn measure(&self, sinks: &mut [Sink; 2]) -> Result<Measured> {
        let Bench { lab, feed, router, workload } = self;
        let go = lab.directory().join("go");
        // Left by the measurement before.
        let _ = std::fs::remove_file(&go);
        let peer = churn(lab, feed, &go)?;
        lab.wait("the routes to be installed", CONVERGE, || {
            router.must_run()?;
            let routes: ShowRoutes = router.show("routes --source bgp --limit 1")?;
            let got = routes.counts.get("bgp").copied().unwrap_or(0);
            ensure!(got == ROUTES as u64 + 1, "{got} of {} routes so far", ROUTES + 1);
            Ok(Some(()))
        })?;
        let destinations: Vec<IpAddr> =
            (0..DESTINATIONS).map(|number| inside((number * (ROUTES / DESTINATIONS)) as u32)).collect();
        warm_up(lab, &workload.namespace, destinations[0], sinks)?;
        // Late datagrams must not be taken for those that are counted.
        let before = settled(lab, sinks)?;

        lab.step(&format!("moving {PER_SECOND} routes a second, sending {DATAGRAMS} datagrams a second"));
        std::fs::write(&go, "")?;
        let seconds = (SECONDS - 2).to_string();
        let arguments = [METRICS, "--every-ms", "100", "--seconds", &seconds];
        let mut scraper = traffic::agent(lab, router.namespace(), "scrape", &arguments)?;
        let sent = traffic::udp_to_many(lab, &workload.namespace, &destinations, COPIES, DATAGRAMS)?;
        let scraped: Told = serde_json::from_str(&scraper.finish(ARRIVE)?)?;
        let moved = lab.wait("the last route to move", CONVERGE, || {
            Ok(told(&wait::read(peer.output())?).into_iter().find(|told| told.moved.is_some()))
        })?;
        Ok(Measured { moved, scraped, sent, arrived: settled(lab, sinks)? - before })
    }
}

/// What the router and the kernel tell of losses.
fn where_lost(router: &TortieNode) -> Result<String> {
    let drops: ShowDrops = router.show("drops")?;
    let ports: ShowPorts = router.show("ports")?;
    let queues = ports.ports.iter().flat_map(|port| port.queues.iter().map(|queue| (&port.name, queue.xdp)));
    let reasons = drops.dropped.reasons.iter().chain(&drops.punted.reasons).filter(|(_, count)| **count > 0);
    Ok(format!(
        "the walk received {}, forwarded {}, and {:?}; queues: {:?}",
        drops.received,
        drops.forwarded,
        reasons.collect::<Vec<_>>(),
        queues.collect::<Vec<_>>()
    ))
}

/// Traffic really followed the routes: each sink got some of the moving destinations.
fn both_sinks_were_used(sinks: &mut [Sink; 2]) -> Result<()> {
    for (sink, (name, _)) in sinks.iter_mut().zip(SINKS) {
        let used: BTreeSet<IpAddr> = sink.counted()?.destinations.into_keys().collect();
        ensure!(used.len() > DESTINATIONS / 2, "{name} got datagrams for {} destinations only", used.len());
    }
    Ok(())
}

fn churn(lab: &Lab, feed: &Namespace, go: &std::path::Path) -> Result<crate::process::Process> {
    let connect = format!("{}:179", address(ROUTER)?);
    let (source, first, second) = (address(FEED)?, address(SINKS[0].1)?, address(SINKS[1].1)?);
    let (routes, rate, seconds) = (ROUTES.to_string(), PER_SECOND.to_string(), SECONDS.to_string());
    let (as_number, go) =
        (FEED_AS.to_string(), go.to_str().context("the temporary directory's name is not UTF-8")?);
    let (source, nexthops) = (source.to_string(), format!("{first},{second}"));
    let arguments = [
        &["--connect", &connect, "--source", &source, "--as-number", &as_number][..],
        &[
            "--nexthops",
            &nexthops,
            "--routes",
            &routes,
            "--per-second",
            &rate,
            "--seconds",
            &seconds,
            "--go",
            go,
        ],
    ];
    let mut process = traffic::agent(lab, feed, "bgp-churn", &arguments.concat())?;
    lab.wait("the feed to announce its routes", CONVERGE, || {
        process.must_run()?;
        let told = told(&wait::read(process.output())?);
        Ok(told.iter().any(|told| told.announced == Some(ROUTES as u64 + 1)).then_some(()))
    })?;
    Ok(process)
}

fn told(text: &str) -> Vec<Told> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn router(lab: &Lab, fabric: &Fabric) -> Result<(TortieNode, Workload)> {
    let namespace = fabric.host(lab, "router", &[ROUTER])?;
    namespace.forward()?;
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.node("router", Some(ROUTER.parse()?), None)?;
    resources.block("router", BLOCK.parse()?)?;
    resources.bgp_peer("feed", None, address(FEED)?, FEED_AS)?;
    let workload = Workload::raise(lab, &resources, &namespace, "w1", &[WORKLOAD.parse()?])?;
    let settings = Settings { metrics: Some(METRICS.parse()?), ..Settings::default() };
    let router = TortieNode::configure(lab, &namespace, resources.directory(), &settings)?;
    Ok((router, workload))
}

fn address(text: &str) -> Result<IpAddr> {
    Ok(text.parse::<model::InterfaceAddr>()?.addr)
}

/// An address in the `number`-th moving prefix: see `bgp-churn` of the lab's agent.
fn inside(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(20, 0, 0, 7)) + number * 256))
}

/// Both sinks' MAC addresses are asked for by the first packets; these are not counted.
fn warm_up(lab: &Lab, from: &Namespace, first: IpAddr, sinks: &mut [Sink; 2]) -> Result<()> {
    let steady = IpAddr::V4(Ipv4Addr::new(19, 0, 0, 7));
    for (destination, sink) in [first, steady].into_iter().zip(sinks) {
        lab.wait(&format!("the first datagram to {destination}"), ARRIVE, || {
            traffic::udp_to_many(lab, from, &[destination], 1, DATAGRAMS)?;
            Ok(sink.counted()?.destinations.contains_key(&destination).then_some(()))
        })?;
    }
    Ok(())
}

fn settled(lab: &Lab, sinks: &mut [Sink; 2]) -> Result<u64> {
    sinks.iter_mut().map(|sink| Ok(sink.settled(lab)?.packets)).sum()
}
