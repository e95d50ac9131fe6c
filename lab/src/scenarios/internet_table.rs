//! A real internet table over eBGP, and traffic to a thousand places of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use model::{Family, Prefix};
use serde_json::Value;

use crate::bird::{Bird, PlainRouter, Session};
use crate::disturbance::undisturbed;
use crate::link::Fabric;
use crate::netns::Namespace;
use crate::numbers::Numbers;
use crate::resources::Resources;
use crate::scenario::{CannotRun, Options, Scenario, Store};
use crate::tortie::{Settings, ShowRoutes, TortieNode};
use crate::traffic::{self, Sink, SinkReport};
use crate::workload::Workload;
use crate::{Lab, books, command, wait};

/// The whole internet, or a tenth of it.
pub(super) const INTERNET_TABLE: Scenario = Scenario {
    name: "internet-table",
    about: "BIRD announces a real internet table over eBGP; traffic to a thousand destinations leaves by the right next hop",
    programs: &["bird", "birdc", "ethtool", "zcat"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

/// The metrics endpoint, in the router's namespace.
const METRICS: &str = "127.0.0.1:9191";
/// How long it is looked at what the router does unasked.
const UNASKED: Duration = Duration::from_secs(3);
/// Without `--full`, every tenth prefix.
const THINNING: usize = 10;
/// How many destinations get traffic.
const DESTINATIONS: usize = 1000;
/// How many datagrams each destination gets.
const COPIES: u32 = 3;
/// How many datagrams a second: far below what one core forwards, and in a second fewer than the ring of a workload's port
/// holds, so that a loss is the router's fault.
const PER_SECOND: u32 = 1000;
/// For how long that ring, of 1,024 frames, holds them.
const RING_LASTS: Duration = Duration::from_secs(1);
/// How long the table may take.
const TABLE: Duration = Duration::from_secs(300);
/// The most routes that `show routes` lists at once; traffic is what tells of the others.
const LISTED: u64 = 1_000_000;
/// The protocol number of the routes that the router mirrors into the kernel.
const MIRROR_PROTOCOL: u8 = 116;
/// How long datagrams under way may take.
const ARRIVE: Duration = Duration::from_secs(60);

const ROUTER: [&str; 2] = ["10.9.0.1/24", "fd09::1/64"];
const ROUTER_AS: u32 = 64512;
const FEED: [&str; 2] = ["10.9.0.2/24", "fd09::2/64"];
const FEED_AS: u32 = 64999;
/// The two next hops of the table, each a machine that takes whatever comes.
const SINKS: [(&str, [&str; 2]); 2] =
    [("sink-a", ["10.9.0.11/24", "fd09::11/64"]), ("sink-b", ["10.9.0.12/24", "fd09::12/64"])];
const BLOCKS: [&str; 2] = ["10.65.0.0/26", "fd65::/122"];
const WORKLOAD: [&str; 2] = ["10.65.0.1", "fd65::1"];

/// One prefix of the table, and which of [`SINKS`] it goes to.
struct Announced {
    prefix: Prefix,
    sink: usize,
}

fn run(lab: &Lab, options: &Options) -> Result<()> {
    let table = table(if options.full { 1 } else { THINNING })?;
    let count = |family| table.iter().filter(|announced| announced.prefix.family() == family).count();
    let (ipv4, ipv6) = (count(Family::V4), count(Family::V6));
    lab.step(&format!("bird loads {ipv4} IPv4 and {ipv6} IPv6 prefixes"));
    let fabric = Fabric::raise(lab, "fabric")?;
    let feed = fabric.host(lab, "feed", &FEED)?;
    let sinks = SINKS.map(|(name, addresses)| sink_host(lab, &fabric, name, &addresses));
    let [sink_a, sink_b] = sinks;
    let mut sinks = [Sink::open(lab, &sink_a?)?, Sink::open(lab, &sink_b?)?];
    let bird = Bird::start(lab, &feed, &feed_router(&table)?.render())?;
    lab.wait("bird to load the table", TABLE, || {
        Ok((bird.count("where source = RTS_STATIC")? >= table.len() as u64).then_some(()))
    })?;

    let (router, workload) = router(lab, &fabric)?;
    let started = Instant::now();
    router.start(lab)?;
    let converged = converge(lab, &router, ipv4, ipv6)?;
    lab.proved(format!(
        "{ipv4} IPv4 and {ipv6} IPv6 routes were received and installed {:.1} s after both sessions were Established, {:.1} s after the start",
        converged.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ));
    lab.proved(format!("the router holds {:.0} MB of memory", router.resident_bytes()? as f64 / 1e6));

    let destinations = destinations(&table);
    let expected = expected_counts(&table, &destinations)?;
    warm_up(lab, &workload.namespace, &expected, &mut sinks)?;
    leaves_by_the_right_nexthop(lab, &workload.namespace, &destinations, &expected, &mut sinks)?;
    let books = books::settled(lab, &router)?;
    lab.proved(books::line("router", &books));
    a_scrape_takes_little(lab, &router)?;
    the_kernel_could_go_on(lab, &router, [ipv4, ipv6], started)
}

/// What the metrics cost beside a table of this size: the time that the threads which answer have run for, less what they run
/// without being asked, so that other work on the machine doesn't count.
fn a_scrape_takes_little(lab: &Lab, router: &TortieNode) -> Result<()> {
    let answering = ["tortie", "slowpath"];
    let started = (Instant::now(), router.threads_time(&answering)?);
    wait::pass(UNASKED)?;
    let unasked =
        router.threads_time(&answering)?.saturating_sub(started.1).div_duration_f64(started.0.elapsed());
    let arguments = [METRICS, "--every-ms", "50", "--seconds", "3"];
    let started = (Instant::now(), router.threads_time(&answering)?);
    let mut scraper = traffic::agent(lab, router.namespace(), "scrape", &arguments)?;
    let scraped: Value = serde_json::from_str(&scraper.finish(TABLE)?)?;
    let asked = router.threads_time(&answering)?.saturating_sub(started.1);
    let cost = asked.saturating_sub(started.0.elapsed().mul_f64(unasked));
    let scrapes = scraped["scrapes"].as_u64().filter(|scrapes| *scrapes > 0).context("no scrape at all")?;
    lab.proved(format!(
        "{scrapes} scrapes with this table took the router {:.2} ms of a processor each; half came within {} µs, the slowest took {} ms",
        cost.as_secs_f64() * 1e3 / scrapes as f64,
        scraped["median_us"],
        scraped["slowest_ms"]
    ));
    Ok(())
}

/// The mirror in the kernel, for the time after a crash, holds the whole table.
fn the_kernel_could_go_on(
    lab: &Lab,
    router: &TortieNode,
    expected: [usize; 2],
    started: Instant,
) -> Result<()> {
    lab.wait("the kernel's mirror of the table", TABLE, || {
        for (family, expected) in ["-4", "-6"].iter().zip(expected) {
            let question = format!("{family} -o route show table all proto {MIRROR_PROTOCOL}");
            let mirrored = router.namespace().ip(&question)?.lines().count();
            ensure!(mirrored >= expected, "{mirrored} of {expected} routes with {family} so far");
        }
        Ok(Some(()))
    })?;
    lab.proved(format!(
        "the kernel's mirror holds all of them, seen {:.1} s after the start",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Every `step`-th prefix of the file, thrown to one of the sinks by its place in the file.
fn table(step: usize) -> Result<Vec<Announced>> {
    let file = data_directory().join("internet-prefixes.txt.gz");
    if !file.is_file() {
        return Err(
            CannotRun(format!("no internet table: {} is missing; set TORTIE_DATA", file.display())).into()
        );
    }
    let text = command::run(Command::new("zcat").arg(&file), command::SETTING)?;
    let chosen = text.lines().enumerate().step_by(step);
    chosen
        .map(|(line, text)| {
            let prefix = text.parse().with_context(|| format!("line {} of {}", line + 1, file.display()))?;
            // Any rule will do that does not follow the order of the table.
            let sink = (spread(line as u64) % SINKS.len() as u64) as usize;
            Ok(Announced { prefix, sink })
        })
        .collect()
}

/// `$TORTIE_DATA`, else `../shared/data` beside the workspace.
fn data_directory() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("TORTIE_DATA").map_or_else(beside, PathBuf::from)
}

/// A number of its own for each: near numbers go far apart.
fn spread(number: u64) -> u64 {
    Numbers::new(number).next()
}

fn sink_host(lab: &Lab, fabric: &Fabric, name: &str, addresses: &[&str]) -> Result<Namespace> {
    let sink = fabric.host(lab, name, addresses)?;
    // The way back to the workload, without which the kernel would take the sender for itself.
    for (block, router) in BLOCKS.iter().zip(ROUTER) {
        let router = router.parse::<model::InterfaceAddr>()?.addr;
        sink.ip(&format!("{} route add {block} via {router}", if router.is_ipv6() { "-6" } else { "-4" }))?;
    }
    Ok(sink)
}

/// A router that announces the table with the sinks as next hops: they are on the router's own subnet, so a
/// `direct` session passes them on unchanged (RFC 4271 §5.1.3).
fn feed_router(table: &[Announced]) -> Result<PlainRouter> {
    let host = |text: &str| text.parse::<model::InterfaceAddr>().map(|address| address.addr);
    let nexthop = |announced: &Announced| {
        let family = usize::from(announced.prefix.family() == Family::V6);
        SINKS[announced.sink].1[family].split('/').next().unwrap_or_default()
    };
    let IpAddr::V4(router_id) = host(FEED[0])? else { anyhow::bail!("the feed's first address is not IPv4") };
    let sessions = FEED.iter().zip(ROUTER).map(|(source, router)| {
        Ok(Session::direct((host(source)?, FEED_AS), (host(router)?, ROUTER_AS), "filter own"))
    });
    Ok(PlainRouter {
        router_id,
        routes: table
            .iter()
            .map(|announced| format!("{} via {}", announced.prefix, nexthop(announced)))
            .collect(),
        kernel: false,
        sessions: sessions.collect::<Result<_>>()?,
    })
}

fn router(lab: &Lab, fabric: &Fabric) -> Result<(TortieNode, Workload)> {
    let namespace = fabric.host(lab, "router", &ROUTER)?;
    namespace.forward()?;
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.plain_pool("pool-1", "fd65::/48".parse()?, 122)?;
    resources.node("router", Some(ROUTER[0].parse()?), Some(ROUTER[1].parse()?))?;
    for block in BLOCKS {
        resources.block("router", block.parse()?)?;
    }
    for (index, feed) in FEED.iter().enumerate() {
        let feed = feed.parse::<model::InterfaceAddr>()?.addr;
        resources.bgp_peer(&format!("feed-{index}"), None, feed, FEED_AS)?;
    }
    let addresses: Vec<IpAddr> = WORKLOAD.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let workload = Workload::raise(lab, &resources, &namespace, "w1", &addresses)?;
    let settings = Settings { metrics: Some(METRICS.parse()?), ..Settings::default() };
    let router = TortieNode::configure(lab, &namespace, resources.directory(), &settings)?;
    Ok((router, workload))
}

/// Waits for the sessions, then until every route is installed; returns the time between the two.
fn converge(lab: &Lab, router: &TortieNode, ipv4: usize, ipv6: usize) -> Result<Duration> {
    lab.wait("the feed's sessions", crate::cluster::CONVERGE, || router.established(2).map(Some))?;
    let established = Instant::now();
    let (ipv4, ipv6) = (ipv4 as u64, ipv6 as u64);
    lab.wait("the table to be received", TABLE, || {
        router.must_run()?;
        let peers = router.established(2)?;
        let received =
            |one: fn(&crate::tortie::PerFamily) -> u64| peers.iter().map(|peer| one(&peer.received)).sum();
        let got: (u64, u64) = (received(|count| count.ipv4), received(|count| count.ipv6));
        ensure!(got == (ipv4, ipv6), "{} IPv4 and {} IPv6 routes so far", got.0, got.1);
        Ok(Some(()))
    })?;
    lab.wait("the table to be installed", TABLE, || {
        router.must_run()?;
        // Counted whole, listed not at all: to ask must not slow down what is asked about.
        let routes: ShowRoutes = router.show("routes --source bgp --limit 1")?;
        let got = routes.counts.get("bgp").copied().unwrap_or(0);
        ensure!(got == ipv4 + ipv6, "{got} of {} routes so far", ipv4 + ipv6);
        Ok(Some(()))
    })?;
    let converged = established.elapsed();
    let wanted = (ipv4 + ipv6).min(LISTED);
    lab.wait("every route to be in the fast path", TABLE, || {
        let all: ShowRoutes = router.show(&format!("routes --source bgp --limit {wanted}"))?;
        let installed =
            all.routes.iter().filter(|route| route.installed && !route.nexthops.is_empty()).count() as u64;
        ensure!(installed == wanted, "{installed} of {wanted} routes are in the fast path");
        Ok(Some(()))
    })?;
    let listed = if wanted < ipv4 + ipv6 { format!("the first {wanted}") } else { format!("all {wanted}") };
    lab.proved(format!("`show routes` lists {listed} of them as installed in the fast path"));
    Ok(converged)
}

/// A host inside each of a thousand prefixes, spread over the table.
fn destinations(table: &[Announced]) -> Vec<IpAddr> {
    let mut destinations: Vec<IpAddr> = Vec::new();
    for index in 0..DESTINATIONS as u64 {
        let announced = &table[(spread(index) % table.len() as u64) as usize];
        let host = host_inside(announced.prefix, spread(index + 1_000_000));
        if !destinations.contains(&host) {
            destinations.push(host);
        }
    }
    destinations
}

/// An address of the prefix, its host bits taken from `noise`.
fn host_inside(prefix: Prefix, noise: u64) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(addr) => {
            let hosts = u32::MAX.checked_shr(u32::from(prefix.len())).unwrap_or(0);
            IpAddr::V4((u32::from(addr) | (noise as u32 & hosts)).into())
        }
        IpAddr::V6(addr) => {
            let hosts = u128::MAX.checked_shr(u32::from(prefix.len())).unwrap_or(0);
            let noise = u128::from(noise) << 64 | u128::from(spread(noise));
            IpAddr::V6((u128::from(addr) | (noise & hosts)).into())
        }
    }
}

/// For each sink, the destinations that belong to it: by the longest prefix, found the slow and certain way.
fn expected_counts(table: &[Announced], destinations: &[IpAddr]) -> Result<[BTreeMap<IpAddr, u64>; 2]> {
    let mut expected = [BTreeMap::new(), BTreeMap::new()];
    for &destination in destinations {
        let covering = table.iter().filter(|announced| announced.prefix.contains(destination));
        let longest = covering.max_by_key(|announced| announced.prefix.len());
        let longest = longest.with_context(|| format!("no prefix covers {destination}"))?;
        expected[longest.sink].insert(destination, u64::from(COPIES));
    }
    Ok(expected)
}

/// The sinks' MAC addresses are asked for by the first packets; these are not counted.
fn warm_up(
    lab: &Lab,
    from: &Namespace,
    expected: &[BTreeMap<IpAddr, u64>; 2],
    sinks: &mut [Sink; 2],
) -> Result<()> {
    for (belongs, sink) in expected.iter().zip(sinks) {
        for family in Family::ALL {
            let first = belongs.keys().find(|destination| Family::of(**destination) == family);
            let first = *first.with_context(|| format!("no {family:?} destination for one of the sinks"))?;
            lab.wait(&format!("the first datagram to {first}"), ARRIVE, || {
                traffic::udp_to_many(lab, from, &[first], 1, PER_SECOND)?;
                Ok(sink.counted()?.destinations.contains_key(&first).then_some(()))
            })?;
        }
    }
    Ok(())
}

fn leaves_by_the_right_nexthop(
    lab: &Lab,
    from: &Namespace,
    destinations: &[IpAddr],
    expected: &[BTreeMap<IpAddr, u64>; 2],
    sinks: &mut [Sink; 2],
) -> Result<()> {
    let sent = undisturbed(lab.progress(), RING_LASTS / 2, || {
        // Late datagrams must not be taken for ours.
        let before = [sinks[0].settled(lab)?, sinks[1].settled(lab)?];
        lab.step(&format!("sending to {} destinations", destinations.len()));
        let sent = traffic::udp_to_many(lab, from, destinations, COPIES, PER_SECOND)?;
        for ((sink, before), expected) in sinks.iter_mut().zip(&before).zip(expected) {
            let counted = since(before, &sink.settled(lab)?);
            let words = difference(expected, &counted);
            ensure!(counted.keys().all(|to| expected.contains_key(to)), "{words}");
            if counted != *expected {
                return Ok(Err(words));
            }
        }
        Ok(Ok(sent))
    })?;
    lab.proved(format!(
        "{sent} datagrams to {} destinations: {} left by {}, {} by {}, all by the right one, none lost",
        destinations.len(),
        expected[0].len(),
        SINKS[0].0,
        expected[1].len(),
        SINKS[1].0
    ));
    Ok(())
}

/// What was counted after `before`.
fn since(before: &SinkReport, after: &SinkReport) -> BTreeMap<IpAddr, u64> {
    let grown = after.destinations.iter().map(|(destination, count)| {
        (*destination, count - before.destinations.get(destination).copied().unwrap_or(0))
    });
    grown.filter(|(_, count)| *count > 0).collect()
}

/// What is too few, too many or astray, in one line.
fn difference(expected: &BTreeMap<IpAddr, u64>, counted: &BTreeMap<IpAddr, u64>) -> String {
    let missing: Vec<_> =
        expected.iter().filter(|(to, count)| counted.get(to).unwrap_or(&0) < count).collect();
    let astray: Vec<_> = counted.keys().filter(|to| !expected.contains_key(to)).collect();
    format!(
        "{} destinations lack datagrams, such as {:?}; {} came that belong elsewhere, such as {:?}",
        missing.len(),
        missing.first(),
        astray.len(),
        astray.first()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_belongs_to_the_longest_prefix_that_covers_it() {
        let announced = |text: &str, sink| Announced { prefix: text.parse().expect("a prefix"), sink };
        let table = [announced("10.0.0.0/8", 0), announced("10.1.0.0/16", 1), announced("10.1.2.0/24", 0)];
        let to = |text: &str| text.parse::<IpAddr>().expect("an address");
        let destinations = [to("10.9.9.9"), to("10.1.9.9"), to("10.1.2.9")];
        let expected = expected_counts(&table, &destinations).expect("all are covered");
        assert_eq!(expected[0].keys().copied().collect::<Vec<_>>(), [to("10.1.2.9"), to("10.9.9.9")]);
        assert_eq!(expected[1].keys().copied().collect::<Vec<_>>(), [to("10.1.9.9")]);
    }

    #[test]
    fn a_host_inside_a_prefix_is_inside_it_for_every_length() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/32", "2001:db8::1/128"] {
            let prefix: Prefix = text.parse().expect("a prefix");
            for noise in [0, 1, u64::MAX, spread(7)] {
                assert!(prefix.contains(host_inside(prefix, noise)), "{text}");
            }
        }
    }
}
