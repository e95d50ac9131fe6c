//! Fast failure, with Debian's BIRD 2 at the other end: traffic over two equal next hops by links of their own, one of which
//! falls silent while its link stays up, which BFD sees; and one whose link loses its carrier.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::bird::Bird;
use crate::cluster::CONVERGE;
use crate::disturbance::undisturbed;
use crate::link::{Fabric, add_address};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowBgp, TortieNode};
use crate::traffic::{Sink, UdpFlows};
use crate::workload::Workload;
use crate::{Lab, wait};

pub(super) const BFD: Scenario = Scenario {
    name: "bfd",
    about: "two equal next hops by two links; one goes silent under traffic, then one loses its carrier: flows move within moments",
    programs: &["bird", "birdc", "ethtool"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

const ROUTER_AS: u32 = 64512;
const TOR_AS: u32 = 64900;
/// The ToRs: each is 10.9.N.2 on the router's interface ethN.
const TORS: [u8; 2] = [0, 1];
/// The one that goes silent, and whose link is cut.
const LOST: usize = 0;
/// Milliseconds between BFD's packets; with `--full` the shorter one, which takes a machine with little else to do.
const INTERVAL: u32 = 100;
const INTERVAL_FULL: u32 = 10;
/// How many may be lost in a row.
const MULTIPLIER: u32 = 3;
const WORKLOAD: &str = "10.65.0.1";
const BLOCK: &str = "10.65.0.0/26";
/// What both ToRs announce, with a sink behind them.
const SINKS: &str = "10.66.0.0/24";
/// How many prefixes more: routes that must not cost anything when their next hop is lost.
const MORE_ROUTES: u32 = 100_000;
const FLOWS: u8 = 200;
const SOURCE_PORT: u16 = 40_000;
const DATAGRAMS: u32 = 8_000;
const SECONDS: u32 = 6;
/// For how long the lost one's flows may be gone: much longer than it takes, for a machine that has other things to do; by
/// the hold time alone it would be until the end.
const GAP_MAX: Duration = Duration::from_secs(1);

/// `tortie show bfd`.
#[derive(Debug, Deserialize)]
struct ShowBfd {
    bfd_sessions: Vec<Session>,
}

#[derive(Debug, Deserialize)]
struct Session {
    address: IpAddr,
    state: String,
    diagnostic: String,
}

fn run(lab: &Lab, options: &Options) -> Result<()> {
    let interval = if options.full { INTERVAL_FULL } else { INTERVAL };
    lab.step("raising a router, two ToRs and a sink behind both");
    let near = lab.namespace("near")?;
    near.forward()?;
    let fabrics: Vec<Fabric> = TORS.iter().map(|tor| link(lab, &near, *tor)).collect::<Result<_>>()?;
    let behind = Fabric::raise(lab, "behind")?;
    let tors: Vec<(Namespace, Bird)> = TORS
        .iter()
        .zip(&fabrics)
        .map(|(number, fabric)| tor(lab, fabric, &behind, *number, interval))
        .collect::<Result<_>>()?;
    let far = behind.host(lab, "far", &["10.8.0.9/24"])?;
    // The sink needs a way back to whoever sends.
    far.ip(&format!("route add {BLOCK} via 10.8.0.{}", TORS[1] + 2))?;
    let resources = resources(lab)?;
    let workload = Workload::raise(lab, &resources, &near, "w1", &[WORKLOAD.parse()?])?;
    let more = format!(
        "bfd: {{ minimum_send_interval: {interval}, minimum_recv_interval: {interval}, multiplier: {MULTIPLIER} }}\n"
    );
    let uplinks = TORS.iter().map(|tor| format!("eth{tor}")).collect();
    let settings = Settings { uplinks, more, ..Settings::default() };
    let router = TortieNode::configure(lab, &near, resources.directory(), &settings)?;
    router.start(lab)?;
    let sink = Sink::open(lab, &far)?;
    let mut bench = Bench { lab, router, workload, sink, interval: Duration::from_millis(interval.into()) };

    bench.both_ways()?;
    for (_, bird) in &tors {
        lab.wait("BIRD's end of BFD", CONVERGE, || {
            let shown = bird.ask("show bfd sessions")?;
            ensure!(shown.contains(".1 ") && shown.contains("Up"), "BIRD says {shown}");
            Ok(Some(()))
        })?;
    }
    lab.proved("both BFD sessions are Up here and at BIRD");
    let (lost, _) = tors.get(LOST).context("a ToR")?;
    let fabric = fabrics.get(LOST).context("a link")?;

    lab.step("silencing a ToR under traffic");
    // Its link stays up, and nobody is told.
    let port = fabric.port(lost, "eth0");
    let bridge = Fabric::BRIDGE;
    let silence = bench.lose(
        || fabric.namespace().ip(&format!("link set {port} nomaster")).map(drop),
        || fabric.namespace().ip(&format!("link set {port} master {bridge}")).map(drop),
        |bench| bench.ended_by_bfd(),
    )?;
    lab.proved(format!(
        "{} goes silent with {MORE_ROUTES} routes behind it: {silence}, of which BFD's own are at most \
         {interval} ms x {MULTIPLIER}",
        address(LOST)?
    ));
    lab.proved("BGP's session ended with Cease/10 (BFD Down), long before its hold time, and came back");

    lab.step("cutting a link under traffic");
    let port = fabric.port(&near, &format!("eth{LOST}"));
    let cut = bench.lose(
        || fabric.namespace().ip(&format!("link set {port} down")).map(drop),
        || fabric.namespace().ip(&format!("link set {port} up")).map(drop),
        |_| Ok(()),
    )?;
    lab.proved(format!(
        "the link to {} loses its carrier with {MORE_ROUTES} routes behind it: {cut}",
        address(LOST)?
    ));
    bench.router.must_run()
}

/// How long flows were gone.
struct Gap {
    lost: u64,
    sent: u64,
    time: Duration,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} datagrams lost, its flows were gone for about {:?}",
            self.lost, self.sent, self.time
        )
    }
}

/// What is measured with.
struct Bench<'a> {
    lab: &'a Lab,
    router: TortieNode,
    workload: Workload,
    sink: Sink,
    /// Between BFD's packets.
    interval: Duration,
}

impl Bench<'_> {
    /// Until traffic has both ways, and BFD watches both.
    fn both_ways(&self) -> Result<()> {
        self.lab.wait("both ToRs and their routes", CONVERGE, || {
            self.router.established(TORS.len())?;
            let sessions = self.router.show::<ShowBfd>("bfd")?.bfd_sessions;
            ensure!(
                sessions.iter().filter(|session| session.state == "Up").count() == TORS.len(),
                "{sessions:?}"
            );
            let route: crate::tortie::ShowRoute = self.router.show("route 10.66.0.1")?;
            let all: crate::tortie::ShowRoutes = self.router.show("routes --limit 1 --source bgp")?;
            let bgp = all.counts.get("bgp").copied().unwrap_or_default();
            Ok((route.nexthops.len() == TORS.len() && bgp > u64::from(MORE_ROUTES)).then_some(()))
        })
    }

    /// How often sessions have come up: it rises when one fails that shouldn't.
    fn comings(&self) -> Result<u64> {
        Ok(self.router.show::<ShowBgp>("bgp")?.peers.iter().map(|peer| peer.established_count).sum())
    }

    /// Traffic over both ways, of which one is lost in the midst of it; then it is there again.
    fn lose(
        &mut self,
        cut: impl Fn() -> Result<()>,
        mend: impl Fn() -> Result<()>,
        look: impl Fn(&Self) -> Result<()>,
    ) -> Result<Gap> {
        let (lab, interval) = (self.lab, self.interval);
        // A machine with other work lets a router wait, and BFD sees failures where there are none.
        undisturbed(lab.progress(), interval, || {
            self.both_ways()?;
            let destinations: Vec<IpAddr> = (1..=FLOWS).map(|last| IpAddr::from([10, 66, 0, last])).collect();
            reach(self.lab, &self.workload, &mut self.sink, &destinations)?;
            let comings = self.comings()?;
            let before = self.sink.settled(self.lab)?.packets;
            let copies = DATAGRAMS * SECONDS / u32::from(FLOWS);
            let from = &self.workload.namespace;
            let flows = UdpFlows::start(self.lab, from, &destinations, copies, DATAGRAMS, SOURCE_PORT)?;
            wait::pass(Duration::from_secs(2))?;
            cut()?;
            let sent = flows.finish()?;
            let lost = sent.saturating_sub(self.sink.settled(self.lab)?.packets - before);
            let time = Duration::from_secs_f64(lost as f64 / (f64::from(DATAGRAMS) / TORS.len() as f64));
            let looked = look(self);
            mend()?;
            self.both_ways()?;
            if self.comings()? > comings + 1 {
                return Ok(Err("BFD saw a failure where there was none".to_owned()));
            }
            looked?;
            Ok(if time > GAP_MAX {
                Err(format!("flows were gone for {time:?}"))
            } else {
                Ok(Gap { lost, sent, time })
            })
        })
    }

    fn ended_by_bfd(&self) -> Result<()> {
        let address = address(LOST)?;
        let session = self.lab.wait("the session to end by BFD", CONVERGE, || {
            let peers = self.router.show::<ShowBgp>("bgp")?.peers;
            let peer = peers.into_iter().find(|peer| peer.address == address);
            Ok(peer.filter(|peer| !peer.up).and_then(|peer| peer.last_error))
        })?;
        self.lab.wait("the router to say so", CONVERGE, || {
            ensure!(self.router.said().contains("BFD Down"), "it ended otherwise: {session}");
            Ok(Some(()))
        })?;
        let shown = self.router.show::<ShowBfd>("bfd")?.bfd_sessions;
        let down = shown.iter().find(|session| session.address == address).context("it is still watched")?;
        ensure!(down.state != "Up" && down.diagnostic.contains("detection time"), "{down:?}");
        Ok(())
    }
}

/// A ToR's address.
fn address(tor: usize) -> Result<IpAddr> {
    Ok(Ipv4Addr::new(10, 9, *TORS.get(tor).context("a ToR")?, 2).into())
}

/// A link of the router's own to a ToR.
fn link(lab: &Lab, near: &Namespace, tor: u8) -> Result<Fabric> {
    let fabric = Fabric::raise(lab, &format!("fabric{tor}"))?;
    let interface = format!("eth{tor}");
    fabric.attach(near, &interface)?;
    crate::link::transmit_checksums_by_software(near, &interface)?;
    add_address(near, &interface, format!("10.9.{tor}.1/24").parse()?)?;
    Ok(fabric)
}

/// Until every flow has got through once: neighbours are known then, and policy has been asked.
fn reach(lab: &Lab, workload: &Workload, sink: &mut Sink, destinations: &[IpAddr]) -> Result<()> {
    lab.wait("every flow to get through", CONVERGE, || {
        let before = sink.settled(lab)?.packets;
        let flows =
            UdpFlows::start(lab, &workload.namespace, destinations, 1, DATAGRAMS, SOURCE_PORT)?.finish()?;
        Ok((sink.settled(lab)?.packets - before == flows).then_some(()))
    })
}

fn tor(lab: &Lab, fabric: &Fabric, behind: &Fabric, number: u8, interval: u32) -> Result<(Namespace, Bird)> {
    let namespace = fabric.host(lab, &format!("tor{number}"), &[&format!("10.9.{number}.2/24")])?;
    behind.attach(&namespace, "eth1")?;
    crate::link::transmit_checksums_by_software(&namespace, "eth1")?;
    add_address(&namespace, "eth1", format!("10.8.0.{}/24", number + 2).parse()?)?;
    namespace.forward()?;
    namespace.ip(&format!("route add {SINKS} via 10.8.0.9"))?;
    namespace.ip(&format!("route add {BLOCK} via 10.9.{number}.1"))?;
    let mut text = format!(
        "log stderr all;\nrouter id 10.9.{number}.2;\nprotocol device {{ scan time 2; }}\n\
         protocol bfd {{ interface \"eth0\" {{ min rx interval {interval} ms; min tx interval {interval} ms; \
         idle tx interval 1 s; multiplier {MULTIPLIER}; }}; }}\n\
         protocol bgp tortie {{ local 10.9.{number}.2 as {TOR_AS}; neighbor 10.9.{number}.1 as {ROUTER_AS}; direct; bfd; \
         connect delay time 1; connect retry time 3; error wait time 1,3; \
         ipv4 {{ import all; export where source = RTS_STATIC; }}; }}\n\
         protocol static {{ ipv4;\n  route {SINKS} via 10.8.0.9;\n"
    );
    for more in 0..MORE_ROUTES {
        let prefix = Ipv4Addr::from((20 << 24) + (more << 8));
        writeln!(text, "  route {prefix}/24 blackhole;")?;
    }
    text.push_str("}\n");
    let bird = Bird::start(lab, &namespace, &text)?;
    Ok((namespace, bird))
}

fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.node("near", Some("10.9.0.1/24".parse()?), None)?;
    resources.block("near", BLOCK.parse()?)?;
    for tor in TORS {
        resources.write(
            &format!("bgppeer-{tor}.yaml"),
            &format!(
                "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: tor-{tor}}}\n\
                 spec: {{peerIP: 10.9.{tor}.2, asNumber: {TOR_AS}, sourceAddress: None, \
                 failureDetectionMode: BFDIfDirectlyConnected}}\n"
            ),
        )?;
    }
    Ok(resources)
}
