//! SIGKILL under traffic: fail-open for transit, fail-closed for workloads (D1), and the way back.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use model::{Family, Prefix};

use crate::bird::{Bird, PlainRouter, Session as BgpSession};
use crate::capture::Capture;
use crate::cluster::CONVERGE;
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowRoute, TortieNode};
use crate::traffic::{self, Session};
use crate::workload::{INTERFACE, Workload};
use crate::{Lab, books, wait};

/// The router dies and comes back.
pub(super) const KILL_THE_ROUTER: Scenario = Scenario {
    name: "kill-the-router",
    about: "SIGKILL and restart under traffic: ssh alive, transit by the kernel, workloads closed, graceful restart",
    programs: &["bird", "birdc", "ping", "tcpdump", "ethtool", "nft"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

/// The router's uplinks: towards `left` and towards `right`.
pub(crate) const UPLINKS: [(&str, [&str; 2]); 2] =
    [("eth0", ["10.1.0.1/24", "fd01::1/64"]), ("eth1", ["10.2.0.1/24", "fd02::1/64"])];
const LEFT: [&str; 2] = ["10.1.0.2", "fd01::2"];
/// Networks behind `left`, which only BGP tells of.
pub(crate) const BEHIND_LEFT: [(&str, &str); 2] = [("10.50.0.0/24", "10.50.0.1"), ("fd50::/64", "fd50::1")];
const BLOCKS: [&str; 2] = ["10.65.0.0/26", "fd65::/122"];
pub(crate) const WORKLOAD: [&str; 2] = ["10.65.0.1", "fd65::1"];
const LEFT_AS: u32 = 64601;
const ROUTER_AS: u32 = 64512;

/// How long the router stays dead, at least.
const DEAD: Duration = Duration::from_secs(5);
/// What a person at an ssh session would call a hang.
const HANG: Duration = Duration::from_secs(3);

/// `left` and `right` are two outside hosts, `router` the node between them, `w1` its workload.
pub(crate) struct Site<'lab> {
    lab: &'lab Lab,
    pub(crate) left: Namespace,
    pub(crate) right: Namespace,
    pub(crate) router: TortieNode,
    workload: Workload,
    pub(crate) bird: Bird,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = raise(lab)?;
    site.comes_up()?;
    let mut ssh = Session::open(
        lab,
        &site.left,
        site.router.namespace(),
        UPLINKS[0].1[0].parse::<model::InterfaceAddr>()?.addr,
    )?;
    let mut transit = Session::open(lab, &site.right, &site.left, BEHIND_LEFT[0].1.parse()?)?;
    lab.proved("a session to the router itself and one across it are open");

    lab.step("SIGKILL to the router");
    site.router.kill()?;
    let killed = Instant::now();
    ssh.beats_on(10)?;
    transit.beats_on(10)?;
    site.transit_by_the_kernel()?;
    site.workloads_are_closed()?;
    site.bird_keeps_the_blocks("while the router is dead")?;
    wait::pass(DEAD.saturating_sub(killed.elapsed()))?;
    ssh.beats_on(5)?;
    transit.beats_on(5)?;

    let dead_for = killed.elapsed();
    let started = Instant::now();
    site.router.start(lab)?;
    site.comes_back(started)?;
    ssh.beats_on(5)?;
    transit.beats_on(5)?;
    site.bird_keeps_the_blocks("after the restart")?;
    lab.proved(format!("the router was dead for {:.1} s", dead_for.as_secs_f64()));
    for (name, session) in [("ssh session", &ssh), ("transit session", &transit)] {
        let longest = session.longest_beat()?;
        ensure!(longest < HANG, "the {name} hung for {:.1} s", longest.as_secs_f64());
        lab.proved(format!(
            "the {name} lived through it: {} beats, the slowest took {:.3} s",
            session.beats()?,
            longest.as_secs_f64()
        ));
    }
    let books = books::settled(lab, &site.router)?;
    lab.proved(books::line("router", &books));
    Ok(())
}

pub(crate) fn raise(lab: &Lab) -> Result<Site<'_>> {
    lab.step("raising two networks with the router between them");
    let router = lab.namespace("router")?;
    router.forward()?;
    let fabrics = [Fabric::raise(lab, "lan-left")?, Fabric::raise(lab, "lan-right")?];
    for (fabric, (interface, addresses)) in fabrics.iter().zip(UPLINKS) {
        fabric.attach(&router, interface)?;
        for address in addresses {
            link::add_address(&router, interface, address.parse()?)?;
        }
    }
    let left = fabrics[0].host(lab, "left", &["10.1.0.2/24", "fd01::2/64"])?;
    let right = fabrics[1].host(lab, "right", &["10.2.0.2/24", "fd02::2/64"])?;
    // What `right` sends, and what answers it, goes over the router.
    for (namespace, four, six) in [(&left, "10.1.0.1", "fd01::1"), (&right, "10.2.0.1", "fd02::1")] {
        namespace.ip(&format!("route add default via {four}"))?;
        namespace.ip(&format!("-6 route add default via {six}"))?;
    }
    for (_, address) in BEHIND_LEFT {
        link::add_address(&left, "lo", format!("{}", Prefix::host(address.parse()?)).parse()?)?;
    }
    let resources = resources(lab)?;
    let addresses: Vec<IpAddr> = WORKLOAD.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let workload = Workload::raise(lab, &resources, &router, "w1", &addresses)?;
    let settings = Settings {
        uplinks: UPLINKS.iter().map(|(interface, _)| (*interface).to_owned()).collect(),
        ..Settings::default()
    };
    let router = TortieNode::configure(lab, &router, resources.directory(), &settings)?;
    let bird = Bird::start(lab, &left, &left_router()?.render())?;
    Ok(Site { lab, left, right, router, workload, bird })
}

fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.plain_pool("pool-1", "fd65::/48".parse()?, 122)?;
    let [four, six] = UPLINKS[0].1;
    resources.node("router", Some(four.parse()?), Some(six.parse()?))?;
    for block in BLOCKS {
        resources.block("router", block.parse()?)?;
    }
    for (index, peer) in LEFT.iter().enumerate() {
        resources.bgp_peer(&format!("left-{index}"), Some("router"), peer.parse()?, LEFT_AS)?;
    }
    Ok(resources)
}

/// `left` announces what is behind it, and learns the router's blocks.
fn left_router() -> Result<PlainRouter> {
    let sessions = LEFT.iter().zip(UPLINKS[0].1).map(|(source, router)| {
        Ok(BgpSession::direct(
            (source.parse()?, LEFT_AS),
            (router.parse::<model::InterfaceAddr>()?.addr, ROUTER_AS),
            "filter own",
        ))
    });
    Ok(PlainRouter {
        router_id: LEFT[0].parse()?,
        routes: BEHIND_LEFT.iter().map(|(prefix, _)| format!("{prefix} blackhole")).collect(),
        kernel: false,
        sessions: sessions.collect::<Result<_>>()?,
    })
}

impl Site<'_> {
    /// Sessions, routes, and traffic to the workload and across.
    pub(crate) fn comes_up(&self) -> Result<()> {
        self.router.start(self.lab)?;
        self.is_established()?;
        for (prefix, address) in BEHIND_LEFT {
            self.lab.wait(&format!("{prefix} on the router"), CONVERGE, || {
                let route: ShowRoute = self.router.show(&format!("route {address}"))?;
                Ok((route.fate == "forward" && route.prefix.as_deref() == Some(prefix)).then_some(()))
            })?;
        }
        self.bird_keeps_the_blocks("before the kill")?;
        for address in &self.workload.addresses {
            traffic::reaches(self.lab, &self.left, *address, CONVERGE)?;
            traffic::reaches(self.lab, &self.right, *address, CONVERGE)?;
        }
        for (_, address) in BEHIND_LEFT {
            traffic::reaches(self.lab, &self.right, address.parse()?, CONVERGE)?;
            traffic::reaches(self.lab, &self.workload.namespace, address.parse()?, CONVERGE)?;
        }
        self.lab.proved("BGP is up; the workload, and the networks behind left, are reached over the router");
        Ok(())
    }

    /// Waits until both sides call both sessions Established.
    pub(crate) fn is_established(&self) -> Result<()> {
        self.lab.wait("the BGP sessions of the router", CONVERGE, || {
            self.bird.established(2)?;
            self.router.established(2).map(|_| Some(()))
        })
    }

    /// The slow path mirrored its routes into the kernel, which now uses them.
    fn transit_by_the_kernel(&self) -> Result<()> {
        for (prefix, address) in BEHIND_LEFT {
            let address = address.parse()?;
            traffic::answered(&self.right, address, 10)?;
            self.lab.proved(format!(
                "{prefix}, learned by BGP, is still reached from right: the kernel forwards"
            ));
        }
        Ok(())
    }

    /// Nothing that a workload sends leaves, and nothing reaches it.
    fn workloads_are_closed(&self) -> Result<()> {
        for (family, address) in Family::ALL.into_iter().zip(WORKLOAD) {
            let target: IpAddr = LEFT[usize::from(family == Family::V6)].parse()?;
            let inside = Capture::start(
                self.lab,
                &self.workload.namespace,
                INTERFACE,
                &format!("dst host {address}"),
            )?;
            let outside = Capture::start(self.lab, &self.left, "eth0", &format!("src host {address}"))?;
            let inwards = traffic::ping(&self.left, address.parse()?, 5)?;
            let outwards = traffic::ping(&self.workload.namespace, target, 5)?;
            ensure!(inwards.received == 0, "the workload {address} answers although nobody guards it");
            ensure!(
                outwards.received == 0,
                "the workload {address} reaches {target} although nobody guards it"
            );
            let (inside, outside) = (inside.stop()?.lines()?, outside.stop()?.lines()?);
            ensure!(inside.is_empty(), "packets reached the workload: {}", inside.join("; "));
            ensure!(outside.is_empty(), "packets of the workload left: {}", outside.join("; "));
        }
        self.lab.proved("no packet of the workload leaves, and none reaches it, by IPv4 and IPv6");
        Ok(())
    }

    /// Graceful restart (RFC 4724): the helper forwards on while the router is away.
    pub(crate) fn bird_keeps_the_blocks(&self, when: &str) -> Result<()> {
        for (block, router) in BLOCKS.iter().zip(UPLINKS[0].1) {
            let block: Prefix = block.parse()?;
            let router = router.parse::<model::InterfaceAddr>()?.addr;
            let protocol = format!("Global_{}", router.to_string().replace(['.', ':'], "_"));
            // Before the first announcement there is nothing to keep yet.
            let limit = if when.starts_with("before") { CONVERGE } else { Duration::ZERO };
            self.lab.wait(&format!("{block} in left's bird"), limit, || {
                Ok(self.bird.routes_from(&protocol)?.contains(&block).then_some(()))
            })?;
        }
        self.lab.proved(format!("left's BIRD has the router's blocks {when}"));
        Ok(())
    }

    /// Seconds from the start of the new process to each thing that works again.
    fn comes_back(&self, started: Instant) -> Result<()> {
        let since = |what: &str| {
            self.lab.proved(format!("{what} {:.1} s after the restart", started.elapsed().as_secs_f64()));
        };
        since("the router answers questions");
        for address in &self.workload.addresses {
            traffic::reaches(self.lab, &self.left, *address, CONVERGE)?;
            since(&format!("left reaches the workload {address}"));
        }
        self.is_established()?;
        since("BGP is Established again");
        for (_, address) in BEHIND_LEFT {
            traffic::reaches(self.lab, &self.workload.namespace, address.parse()?, CONVERGE)?;
            since(&format!("the workload reaches {address}"));
        }
        Ok(())
    }
}
