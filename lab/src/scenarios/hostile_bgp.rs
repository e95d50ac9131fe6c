//! A BGP peer that sends nonsense, beside one that behaves: the nonsense is contained (RFC 7606) or ends the
//! session that it came on (RFC 4271 §6), and nobody else notices.

mod errors;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bgp_message as message;
use crate::bird::{Bird, PlainRouter, Session};
use crate::cluster::CONVERGE;
use crate::hostile::{self, HostilePeer};
use crate::link::Fabric;
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Peer, Settings, ShowBgp, ShowRoute, TortieNode};
use crate::traffic::{self, Sink};
use crate::workload::Workload;
use crate::{Lab, books};
use errors::{CONTAINED, Containment, FATAL};

/// BIRD on one side, a misbehaving peer on the other.
pub(super) const HOSTILE_BGP: Scenario = Scenario {
    name: "hostile-bgp",
    about: "a peer sends malformed UPDATEs and garbage: contained or thrown out, and BIRD beside it never notices",
    programs: &["bird", "birdc", "ping", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const ROUTER: [&str; 2] = ["10.9.0.1/24", "fd09::1/64"];
const ROUTER_AS: u32 = 64512;
const STEADY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const STEADY_AS: u32 = 64998;
/// What the steady peer announces; an address of the first gets traffic.
const STEADY_PREFIXES: [&str; 3] = ["198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24"];
const BEHIND_STEADY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const HOSTILE_AS: u16 = 64999;
const BLOCK: &str = "10.65.0.0/26";
const WORKLOAD: &str = "10.65.0.1";

/// How long a route may take to come or go.
const CHANGE: Duration = Duration::from_secs(60);
/// Datagrams to the steady peer's prefix beside every act, and how many a second: for two seconds.
const BESIDE: u32 = 1000;
const PER_SECOND: u32 = 500;
/// Connects in a row.
const KNOCKS: u32 = 200;

/// The misbehaving peer's addresses, each a session of its own: an error on one does not make the next one wait.
fn hostile_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, 100 + number as u8)
}

/// A prefix of length 24 that the misbehaving peer announces.
fn prefix(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, number as u8, 0)
}

/// The prefix that every well-formed UPDATE of a misbehaving peer announces.
const GOOD: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);

struct Site<'lab> {
    lab: &'lab Lab,
    hostile: Namespace,
    router: TortieNode,
    workload: Workload,
    sink: Sink,
    bird: Bird,
    /// Datagrams sent to the steady peer's prefix so far.
    sent: Cell<u64>,
    /// When the steady session came up, and how often: as it was before the first act.
    steady: Peer,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut site = raise(lab)?;
    let peer = site.greets(0)?;
    site.beside(|site| site.malformed_updates(&peer))?;
    site.beside(|site| site.thrown_out(0, peer))?;
    for number in 1..FATAL.len() {
        site.beside(|site| site.greets(number).and_then(|peer| site.thrown_out(number, peer)))?;
    }
    site.beside(Site::half_an_open)?;
    site.beside(Site::knocks)?;
    site.behaves_again()?;
    site.nobody_noticed()?;
    let books = books::settled(lab, &site.router)?;
    lab.proved(books::line("router", &books));
    Ok(())
}

fn raise(lab: &Lab) -> Result<Site<'_>> {
    lab.step("raising a router with a steady and a hostile peer");
    let fabric = Fabric::raise(lab, "fabric")?;
    let steady = fabric.host(lab, "steady", &[&format!("{STEADY}/24"), &format!("{BEHIND_STEADY}/32")])?;
    steady.ip(&format!("route add {BLOCK} via {}", address(ROUTER[0])?))?;
    // One address more than there are fatal errors: for the half OPEN, the connects and the return.
    let addresses: Vec<String> =
        (0..=FATAL.len()).map(|number| format!("{}/24", hostile_address(number))).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let hostile = fabric.host(lab, "hostile", &addresses)?;
    let (router, workload) = router(lab, &fabric)?;
    let sink = Sink::open(lab, &steady)?;
    let bird = Bird::start(lab, &steady, &steady_router()?.render())?;
    router.start(lab)?;
    let established = lab.wait("the session with BIRD", CONVERGE, || {
        bird.established(1)?;
        let peer = peer(&router, STEADY)?;
        Ok(peer.up.then_some(peer))
    })?;
    traffic::reaches(lab, &workload.namespace, BEHIND_STEADY.into(), CONVERGE)?;
    // Again, now that the second it came up in is over: `since` has whole seconds and must not change.
    let steady = Peer { since: peer(&router, STEADY)?.since, ..established };
    lab.proved(format!("BIRD's session is Established since {}, for the first time", steady.since));
    ensure!(steady.established_count == 1, "BIRD's session came up {} times", steady.established_count);
    Ok(Site { lab, hostile, router, workload, sink, bird, sent: Cell::new(0), steady })
}

fn address(text: &str) -> Result<IpAddr> {
    Ok(text.parse::<model::InterfaceAddr>()?.addr)
}

fn router(lab: &Lab, fabric: &Fabric) -> Result<(TortieNode, Workload)> {
    let namespace = fabric.host(lab, "router", &ROUTER)?;
    namespace.forward()?;
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.node("router", Some(ROUTER[0].parse()?), Some(ROUTER[1].parse()?))?;
    resources.block("router", BLOCK.parse()?)?;
    resources.bgp_peer("steady", None, STEADY.into(), STEADY_AS)?;
    for number in 0..=FATAL.len() {
        let address = hostile_address(number).into();
        resources.bgp_peer(&format!("hostile-{number}"), None, address, u32::from(HOSTILE_AS))?;
    }
    let workload = Workload::raise(lab, &resources, &namespace, "w1", &[WORKLOAD.parse()?])?;
    let router = TortieNode::configure(lab, &namespace, resources.directory(), &Settings::default())?;
    Ok((router, workload))
}

fn steady_router() -> Result<PlainRouter> {
    Ok(PlainRouter {
        router_id: STEADY,
        routes: STEADY_PREFIXES.iter().map(|prefix| format!("{prefix} blackhole")).collect(),
        kernel: false,
        sessions: vec![Session::direct(
            (STEADY.into(), STEADY_AS),
            (address(ROUTER[0])?, ROUTER_AS),
            "filter own",
        )],
    })
}

/// The router's session with this address.
fn peer(router: &TortieNode, address: Ipv4Addr) -> Result<Peer> {
    let peers = router.show::<ShowBgp>("bgp")?.peers;
    peers
        .into_iter()
        .find(|peer| peer.address == address)
        .with_context(|| format!("no session with {address}"))
}

impl Site<'_> {
    /// Opens a valid session from one of the hostile addresses and announces a good route on it.
    fn greets(&self, number: usize) -> Result<HostilePeer> {
        let source = hostile_address(number);
        let peer = HostilePeer::connect(self.lab, &self.hostile, source.into(), address(ROUTER[0])?)?;
        peer.send(&message::open(4, HOSTILE_AS, source))?;
        peer.send(&message::keepalive())?;
        self.lab
            .wait(&format!("the session with {source}"), CHANGE, || Ok(self.is_up(number)?.then_some(())))?;
        peer.send(&message::update(&[], &message::valid_attributes(HOSTILE_AS, source).concat(), &[GOOD]))?;
        self.comes(GOOD)?;
        if number == 0 {
            self.lab.proved(format!(
                "{source} opens a valid session and announces {GOOD}/24: it is in `show routes`"
            ));
        }
        Ok(peer)
    }

    /// RFC 7606: what can be contained is, and the session stays.
    fn malformed_updates(&self, peer: &HostilePeer) -> Result<()> {
        let nexthop = hostile_address(0);
        let valid = message::valid_attributes(HOSTILE_AS, nexthop);
        let victims: Vec<Ipv4Addr> = (1..=CONTAINED.len()).map(prefix).collect();
        let announced =
            victims.iter().zip(CONTAINED).filter(|(_, error)| error.ends == Containment::Withdraw);
        let announced: Vec<Ipv4Addr> = announced.map(|(victim, _)| *victim).collect();
        peer.send(&message::update(&[], &valid.concat(), &announced))?;
        for victim in &announced {
            self.comes(*victim)?;
        }
        for (victim, error) in victims.iter().zip(CONTAINED) {
            self.lab.step(error.what);
            peer.send(&message::update(&[], &(error.attributes)(HOSTILE_AS, nexthop), &[*victim]))?;
            let became = match error.ends {
                Containment::Withdraw => self.goes(*victim).map(|()| "is treated as withdrawn")?,
                Containment::Discard => self.comes(*victim).map(|()| "is taken without it")?,
            };
            let session = self.session(0)?;
            ensure!(
                session.up && session.established_count == 1,
                "{} ended the session: {}",
                error.what,
                session.last_error.unwrap_or_default()
            );
            self.comes(GOOD)?;
            self.lab.proved(format!(
                "{}: {victim}/24 {became} ({}), the session stays",
                error.what, error.source
            ));
        }
        self.plain_withdrawal(peer)
    }

    /// After all that the session still does what sessions are for.
    fn plain_withdrawal(&self, peer: &HostilePeer) -> Result<()> {
        let victim = prefix(200);
        let valid = message::valid_attributes(HOSTILE_AS, hostile_address(0)).concat();
        peer.send(&message::update(&[], &valid, &[victim]))?;
        self.comes(victim)?;
        peer.send(&message::update(&[victim], &[], &[]))?;
        self.goes(victim)?;
        self.comes(GOOD)?;
        self.lab
            .proved(format!("on the same session {victim}/24 is announced and comes, is withdrawn and goes"));
        Ok(())
    }

    /// RFC 4271 §6: what cannot be contained ends the session with the NOTIFICATION that tells why.
    fn thrown_out(&self, number: usize, peer: HostilePeer) -> Result<()> {
        let error = &FATAL[number];
        self.lab.step(error.what);
        peer.send(&(error.octets)(hostile_address(number)))?;
        let told = peer.is_thrown_out()?;
        ensure!(
            (told.code, told.subcode, told.data.as_slice()) == error.notification,
            "{} is answered by {told:?} and not by {:?}",
            error.what,
            error.notification
        );
        self.lab.wait("the end of the session", CHANGE, || Ok((!self.is_up(number)?).then_some(())))?;
        self.goes(GOOD)?;
        self.lab.proved(format!(
            "{}: NOTIFICATION {}/{} {:02x?}, its routes go, tortie lives",
            error.what, told.code, told.subcode, told.data
        ));
        Ok(())
    }

    fn half_an_open(&self) -> Result<()> {
        let number = FATAL.len();
        let source = hostile_address(number);
        let mut peer = HostilePeer::connect(self.lab, &self.hostile, source.into(), address(ROUTER[0])?)?;
        let open = message::open(4, HOSTILE_AS, source);
        peer.send(&open[..open.len() / 2])?;
        peer.hears(message::kind::OPEN)?;
        self.lab.wait("the half session to be known", CHANGE, || {
            let state = self.session(number)?.state;
            ensure!(state == "OpenSent", "with half an OPEN there the session is {state}");
            Ok(Some(()))
        })?;
        peer.close()?;
        self.lab.wait("the half session to be forgotten", CHANGE, || {
            let state = self.session(number)?.state;
            Ok((state != "OpenSent").then_some(()))
        })?;
        self.lab.proved(format!("half an OPEN, then a close: {source} is {}", self.session(number)?.state));
        Ok(())
    }

    fn knocks(&self) -> Result<()> {
        let router = address(ROUTER[0])?;
        let known = hostile_address(FATAL.len());
        // An address of the same machine that no session is configured for.
        let stranger = Ipv4Addr::new(10, 9, 0, 99);
        crate::link::add_address(&self.hostile, "eth0", format!("{stranger}/24").parse()?)?;
        for (who, source) in [("a configured peer", known), ("a stranger", stranger)] {
            let accepted = hostile::knock(&self.hostile, self.lab, source.into(), router, KNOCKS)?;
            self.router.must_run()?;
            self.lab
                .proved(format!("{KNOCKS} connects in a row by {who}, {accepted} accepted: tortie lives"));
        }
        Ok(())
    }

    /// The address that knocked opens a session like any other.
    fn behaves_again(&self) -> Result<()> {
        let number = FATAL.len();
        let peer = self.greets(number)?;
        self.lab
            .proved(format!("{} behaves, and has a session and its route at once", hostile_address(number)));
        peer.close()
    }

    /// Lets datagrams flow to the steady peer's prefix while the act is played.
    fn beside<T>(&self, act: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let file = self.lab.directory().join("destination-behind-steady");
        std::fs::write(&file, format!("{BEHIND_STEADY}\n"))?;
        let path = file.to_str().context("the temporary directory's name is not UTF-8")?;
        let (port, copies, rate) = (Sink::PORT.to_string(), BESIDE.to_string(), PER_SECOND.to_string());
        let arguments = ["--destinations", path, "--port", &port, "--copies", &copies, "--per-second", &rate];
        let mut sender = traffic::agent(self.lab, &self.workload.namespace, "udp-send", &arguments)?;
        let played = act(self)?;
        let told: serde_json::Value = serde_json::from_str(&sender.finish(CONVERGE)?)?;
        self.sent
            .set(self.sent.get() + told["packets"].as_u64().context("udp-send told no number of packets")?);
        let now = peer(&self.router, STEADY)?;
        ensure!(
            now.up && now.established_count == self.steady.established_count,
            "BIRD's session was disturbed: {} since {}, {}",
            now.state,
            now.since,
            now.last_error.unwrap_or_default()
        );
        Ok(played)
    }

    /// BIRD's session, its routes and the traffic to them are as they were.
    fn nobody_noticed(&mut self) -> Result<()> {
        self.bird.established(1)?;
        let now = peer(&self.router, STEADY)?;
        ensure!(
            now.up && now.established_count == 1 && self.steady.since_seconds <= now.since_seconds,
            "BIRD's session did not stay: {} since {}, up {} times",
            now.state,
            now.since,
            now.established_count
        );
        for prefix in STEADY_PREFIXES {
            let prefix: model::Prefix = prefix.parse()?;
            let route = self.route(crate::cluster::nth(prefix, 1))?;
            ensure!(route.prefix == Some(prefix.to_string()), "BIRD's {prefix} is gone: {route:?}");
        }
        self.lab.proved(format!(
            "BIRD's session never left Established: {} s, {} time up, all {} prefixes there",
            now.since_seconds,
            now.established_count,
            STEADY_PREFIXES.len()
        ));
        let sent = self.sent.get();
        self.lab.wait("every datagram to BIRD's prefix", CHANGE, || {
            let counted = self.sink.counted()?.packets;
            ensure!(counted == sent, "{counted} of {sent} datagrams came");
            Ok(Some(()))
        })?;
        self.lab.proved(format!("{sent} datagrams went to BIRD's prefix beside all this, none was lost"));
        Ok(())
    }

    fn session(&self, number: usize) -> Result<Peer> {
        self.router.must_run()?;
        peer(&self.router, hostile_address(number))
    }

    fn is_up(&self, number: usize) -> Result<bool> {
        Ok(self.session(number)?.up)
    }

    fn route(&self, address: IpAddr) -> Result<ShowRoute> {
        // No route is an answer too, with a failing exit status.
        let said = self.router.show_text(&format!("route {address} -o json"))?;
        serde_json::from_slice(&said.stdout)
            .with_context(|| format!("`show route` said: {}", String::from_utf8_lossy(&said.stderr)))
    }

    fn has(&self, prefix: Ipv4Addr) -> Result<bool> {
        Ok(self.route(prefix.into())?.prefix == Some(format!("{prefix}/24")))
    }

    fn comes(&self, prefix: Ipv4Addr) -> Result<()> {
        self.lab.wait(&format!("{prefix}/24 to come"), CHANGE, || Ok(self.has(prefix)?.then_some(())))
    }

    fn goes(&self, prefix: Ipv4Addr) -> Result<()> {
        self.lab.wait(&format!("{prefix}/24 to go"), CHANGE, || Ok((!self.has(prefix)?).then_some(())))
    }
}
