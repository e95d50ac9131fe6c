//! Peers watched by BFD, with Debian's BIRD 2 at the other end: traffic over two equal next hops, one of which falls silent
//! while its link stays up.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::bird::Bird;
use crate::cluster::CONVERGE;
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
    about: "two equal next hops behind BIRD and BFD; one goes silent under traffic, and its flows move within moments",
    programs: &["bird", "birdc", "ethtool"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

const ROUTER_AS: u32 = 64512;
const TOR_AS: u32 = 64900;
/// The last octet of each ToR.
const TORS: [u8; 2] = [2, 3];
/// The ToR that goes silent.
const SILENT: u8 = 2;
const WORKLOAD: &str = "10.65.0.1";
const BLOCK: &str = "10.65.0.0/26";
/// What both ToRs announce, with a sink behind them.
const SINKS: &str = "10.66.0.0/24";
/// How many prefixes more: routes that must not cost anything when their next hop is lost.
const MORE_ROUTES: u32 = 100_000;
const FLOWS: u8 = 64;
const SOURCE_PORT: u16 = 40_000;
const DATAGRAMS: u32 = 4_000;
const SECONDS: u32 = 6;
/// What of the traffic may be lost: half of it for much longer than silence takes to be noticed, for a machine that has other
/// things to do; by the hold time alone it would be all of the silent one's.
const LOST_MAX: Duration = Duration::from_secs(2);

/// `tortie show bfd`.
#[derive(Debug, Deserialize)]
struct ShowBfd {
    bfd_sessions: Vec<Session>,
}

#[derive(Debug, Deserialize)]
struct Session {
    address: IpAddr,
    state: String,
    detection_time_us: Option<u64>,
    diagnostic: String,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    lab.step("raising a router, two ToRs and a sink behind both");
    let fabric = Fabric::raise(lab, "fabric")?;
    let behind = Fabric::raise(lab, "behind")?;
    let tors: Vec<(Namespace, Bird)> =
        TORS.iter().map(|last| tor(lab, &fabric, &behind, *last)).collect::<Result<_>>()?;
    let far = behind.host(lab, "far", &["10.8.0.9/24"])?;
    // The sink needs a way back to whoever sends.
    far.ip(&format!("route add {BLOCK} via 10.8.0.{}", TORS[1]))?;
    let near = fabric.host(lab, "near", &["10.9.0.1/24"])?;
    near.forward()?;
    let resources = resources(lab)?;
    let workload = Workload::raise(lab, &resources, &near, "w1", &[WORKLOAD.parse()?])?;
    let more = "bfd: { minimum_send_interval: 50, minimum_recv_interval: 50, multiplier: 3 }\n".to_owned();
    let settings = Settings { more, ..Settings::default() };
    let router = TortieNode::configure(lab, &near, resources.directory(), &settings)?;
    router.start(lab)?;
    let mut sink = Sink::open(lab, &far)?;

    let sessions = lab.wait("both BFD sessions", CONVERGE, || {
        router.established(TORS.len())?;
        let sessions = router.show::<ShowBfd>("bfd")?.bfd_sessions;
        Ok((sessions.iter().filter(|session| session.state == "Up").count() == TORS.len())
            .then_some(sessions))
    })?;
    let detection = Duration::from_micros(
        sessions.iter().filter_map(|session| session.detection_time_us).max().context("a detection time")?,
    );
    for (_, bird) in &tors {
        let shown = bird.ask("show bfd sessions")?;
        ensure!(shown.contains("10.9.0.1") && shown.contains("Up"), "BIRD says {shown}");
    }
    lab.proved(format!("both sessions are Up here and at BIRD; silence is noticed after {detection:?}"));
    let wanted = MORE_ROUTES as usize + 1;
    lab.wait("the routes by both ToRs", CONVERGE, || {
        let route: crate::tortie::ShowRoute = router.show("route 10.66.0.1")?;
        let all: crate::tortie::ShowRoutes = router.show("routes --limit 1 --source bgp")?;
        let bgp = all.counts.get("bgp").copied().unwrap_or_default();
        Ok((route.nexthops.len() == TORS.len() && bgp as usize >= wanted).then_some(()))
    })?;

    lab.step("silencing a ToR under traffic");
    let destinations: Vec<IpAddr> = (1..=FLOWS).map(|last| IpAddr::from([10, 66, 0, last])).collect();
    reach(lab, &workload, &mut sink, &destinations)?;
    let before = sink.counted()?.packets;
    let copies = DATAGRAMS * SECONDS / u32::from(FLOWS);
    let flows = UdpFlows::start(lab, &workload.namespace, &destinations, copies, DATAGRAMS, SOURCE_PORT)?;
    wait::pass(Duration::from_secs(2))?;
    let (silent, _) = tors.first().context("a ToR")?;
    // Its link stays up, and nobody is told.
    fabric.namespace().ip(&format!("link set {} nomaster", fabric.port(silent, "eth0")))?;
    let sent = flows.finish()?;
    wait::pass(Duration::from_millis(500))?;
    let lost = sent.saturating_sub(sink.counted()?.packets - before);
    let lost_time = Duration::from_secs_f64(lost as f64 / (f64::from(DATAGRAMS) / TORS.len() as f64));
    lab.proved(format!(
        "10.9.0.{SILENT} goes silent with {wanted} routes behind it: {lost} of {sent} datagrams lost, its flows were gone \
         for about {lost_time:?}, of which {detection:?} at most is BFD's own"
    ));
    ensure!(lost_time <= LOST_MAX, "that is more than {LOST_MAX:?}");
    let session = lab.wait("the session to end by BFD", CONVERGE, || {
        let peers = router.show::<ShowBgp>("bgp")?.peers;
        let peer = peers.into_iter().find(|peer| peer.address == IpAddr::from([10, 9, 0, SILENT]));
        Ok(peer.filter(|peer| !peer.up).and_then(|peer| peer.last_error))
    })?;
    let said = router.said();
    ensure!(said.contains("BFD Down"), "it ended otherwise: {session}");
    let shown = router.show::<ShowBfd>("bfd")?.bfd_sessions;
    let down = shown.iter().find(|session| session.address == IpAddr::from([10, 9, 0, SILENT]));
    let down = down.context("it is still watched")?;
    ensure!(down.state != "Up" && down.diagnostic.contains("detection time"), "{down:?}");
    lab.proved("BGP's session ended with Cease/10 (BFD Down), long before its hold time");

    fabric.namespace().ip(&format!("link set {} master {}", fabric.port(silent, "eth0"), Fabric::BRIDGE))?;
    lab.wait("both ToRs again", CONVERGE, || {
        router.established(TORS.len())?;
        let up = router.show::<ShowBfd>("bfd")?.bfd_sessions;
        Ok(up.iter().all(|session| session.state == "Up").then_some(()))
    })?;
    lab.proved("it comes back: BFD and BGP are up again");
    router.must_run()
}

/// Until every flow has got through once: neighbours are known then, and policy has been asked.
fn reach(lab: &Lab, workload: &Workload, sink: &mut Sink, destinations: &[IpAddr]) -> Result<()> {
    lab.wait("every flow to get through", CONVERGE, || {
        let before = sink.counted()?.packets;
        let flows =
            UdpFlows::start(lab, &workload.namespace, destinations, 1, DATAGRAMS, SOURCE_PORT)?.finish()?;
        wait::pass(Duration::from_millis(300))?;
        Ok((sink.counted()?.packets - before == flows).then_some(()))
    })
}

fn tor(lab: &Lab, fabric: &Fabric, behind: &Fabric, last: u8) -> Result<(Namespace, Bird)> {
    let namespace = fabric.host(lab, &format!("tor{last}"), &[&format!("10.9.0.{last}/24")])?;
    behind.attach(&namespace, "eth1")?;
    crate::link::transmit_checksums_by_software(&namespace, "eth1")?;
    add_address(&namespace, "eth1", format!("10.8.0.{last}/24").parse()?)?;
    namespace.forward()?;
    namespace.ip(&format!("route add {SINKS} via 10.8.0.9"))?;
    namespace.ip(&format!("route add {BLOCK} via 10.9.0.1"))?;
    let mut text = format!(
        "log stderr all;\nrouter id 10.9.0.{last};\nprotocol device {{ scan time 2; }}\n\
         protocol bfd {{ interface \"eth0\" {{ min rx interval 50 ms; min tx interval 50 ms; idle tx interval 1 s; \
         multiplier 3; }}; }}\n\
         protocol bgp tortie {{ local 10.9.0.{last} as {TOR_AS}; neighbor 10.9.0.1 as {ROUTER_AS}; direct; bfd; \
         connect delay time 1; connect retry time 3; error wait time 1,3; \
         ipv4 {{ import all; export where source = RTS_STATIC; }}; }}\n\
         protocol static {{ ipv4;\n  route {SINKS} via 10.8.0.9;\n"
    );
    for number in 0..MORE_ROUTES {
        let prefix = Ipv4Addr::from((20 << 24) + (number << 8));
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
    for last in TORS {
        resources.write(
            &format!("bgppeer-{last}.yaml"),
            &format!(
                "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: tor-{last}}}\n\
                 spec: {{peerIP: 10.9.0.{last}, asNumber: {TOR_AS}, \
                 failureDetectionMode: BFDIfDirectlyConnected}}\n"
            ),
        )?;
    }
    Ok(resources)
}
