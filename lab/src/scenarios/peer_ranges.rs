//! Ranges of neighbours that nobody names, each range with a password (RFC 2385), with Debian's BIRD 2 at the other ends.
//!
//! ```text
//!  Tortie 10.9.0.1 ──┬── 10.9.0.2, .3    the rack's password                        taken in
//!   takes in who     ├── 10.9.0.4        none                                       dropped by the kernel
//!   connects         ├── 10.9.0.17       its own, in a range of its own in there    taken in
//!                    ├── 10.9.0.18       the rack's, in that range                  dropped by the kernel
//!                    ├── 10.9.0.5        named by a BGPPeer, waits: Tortie connects with its range's password
//!                    ├── 10.9.0.6        has a range itself, which Tortie connects to
//!                    └── fd09::2         the password of a range of IPv6            taken in
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Lab;
use crate::bird::Bird;
use crate::cluster::CONVERGE;
use crate::link::Fabric;
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::secrets::Secrets;
use crate::tortie::{Peer, Settings, ShowBgp, ShowRoutes, TortieNode};

/// Dynamic neighbours with passwords.
pub(super) const PEER_RANGES: Scenario = Scenario {
    name: "peer-ranges",
    about: "neighbours that nobody names, a password a range of them, towards BIRD and a range of BIRD's",
    programs: &["bird", "birdc", "ethtool", "nstat"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const ROUTER: [&str; 2] = ["10.9.0.1/24", "fd09::1/64"];
const ROUTER_AS: u32 = 64512;
const BIRD_AS: u32 = 64900;

/// Passwords by the file that Tortie reads; a BIRD that has none of them has none.
const PASSWORDS: [(&str, &str); 3] = [("rack", "cheese"), ("servers", "ham"), ("six", "cake")];

/// Who connects, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It does; Tortie knows nobody at its address.
    ItConnects,
    /// Tortie does: a BGPPeer without a password names it, and it waits.
    WeConnect,
    /// Tortie does, and it has named nobody either.
    ToItsRange,
}

struct Neighbour {
    address: &'static str,
    /// Which of [`PASSWORDS`] it has.
    password: Option<&'static str>,
    way: Way,
    /// Does its range ask for that password?
    is_right: bool,
}

const fn connects(address: &'static str, password: Option<&'static str>, is_right: bool) -> Neighbour {
    Neighbour { address, password, way: Way::ItConnects, is_right }
}

const NEIGHBOURS: [Neighbour; 8] = [
    connects("10.9.0.2", Some("rack"), true),
    connects("10.9.0.3", Some("rack"), true),
    connects("10.9.0.4", None, false),
    connects("10.9.0.17", Some("servers"), true),
    connects("10.9.0.18", Some("rack"), false),
    connects("fd09::2", Some("six"), true),
    Neighbour { address: "10.9.0.5", password: Some("rack"), way: Way::WeConnect, is_right: true },
    Neighbour { address: "10.9.0.6", password: Some("rack"), way: Way::ToItsRange, is_right: true },
];

impl Neighbour {
    fn is_six(&self) -> bool {
        self.address.contains(':')
    }

    /// What it announces, one of a kind.
    fn network(&self) -> String {
        match self.address.rsplit_once(['.', ':']) {
            Some((_, last)) if self.is_six() => format!("fd77:{last}::/48"),
            Some((_, last)) => format!("10.77.{last}.0/24"),
            None => String::new(),
        }
    }

    /// BIRD's configuration.
    fn configuration(&self, passwords: &BTreeMap<&str, &str>) -> Result<String> {
        let mut text = String::from("log stderr all;\nprotocol device { scan time 2; }\n");
        writeln!(text, "router id 10.9.9.{};", self.address.rsplit(['.', ':']).next().unwrap_or("1"))?;
        let channel = if self.is_six() { "ipv6" } else { "ipv4" };
        let own = address_of(ROUTER[usize::from(self.is_six())]);
        let neighbour = match self.way {
            Way::ToItsRange => "neighbor range 10.9.0.0/24".to_owned(),
            Way::ItConnects | Way::WeConnect => format!("neighbor {own}"),
        };
        let waits = if self.way == Way::ItConnects { "" } else { "passive on; " };
        let password = self.password.and_then(|name| passwords.get(name));
        let password = password.map(|password| format!("password \"{password}\"; ")).unwrap_or_default();
        writeln!(text, "protocol static {{ {channel}; route {} blackhole; }}", self.network())?;
        writeln!(
            text,
            "protocol bgp tortie {{ local {} as {BIRD_AS}; {neighbour} as {ROUTER_AS}; direct; {waits}{password}\
             connect delay time 1; connect retry time 3; error wait time 1,3; \
             {channel} {{ import all; export all; }}; }}",
            self.address
        )?;
        Ok(text)
    }
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    lab.step("raising a router with ranges of neighbours, and a BIRD for each of them");
    let fabric = Fabric::raise(lab, "fabric")?;
    let near = fabric.host(lab, "near", &ROUTER)?;
    near.forward()?;
    let secrets = Secrets::create(lab)?;
    for (name, password) in PASSWORDS {
        secrets.write(name, password)?;
    }
    let resources = resources(lab)?;
    let more = format!(
        "bgp:\n  secrets: {}\n  peers:\n  \
         - {{ range: 10.9.0.16/28, accept: [{BIRD_AS}], limit: 4, password: bgp/servers }}\n  \
         - {{ range: 10.9.0.0/24, accept: any, limit: 8, password: bgp/rack }}\n  \
         - {{ range: \"fd09::/64\", accept: any, limit: 4, password: bgp/six }}\n",
        secrets.directory().display()
    );
    let router =
        TortieNode::configure(lab, &near, resources.directory(), &Settings { more, ..Settings::default() })?;
    let mut passwords = BTreeMap::from(PASSWORDS);
    let mut birds = Vec::new();
    for (number, neighbour) in NEIGHBOURS.iter().enumerate() {
        let bits = if neighbour.is_six() { 64 } else { 24 };
        let far = fabric.host(lab, &format!("far{number}"), &[&format!("{}/{bits}", neighbour.address)])?;
        birds.push(Bird::start(lab, &far, &neighbour.configuration(&passwords)?)?);
    }
    router.start(lab)?;
    sessions_are_those_with_the_right_password(lab, &router, &near)?;
    a_new_password_is_one_ranges_alone(lab, &router, &birds, &secrets, &mut passwords)?;
    without_its_file_a_range_lets_nobody_in(lab, &router, &secrets)?;
    router.must_run()
}

/// Who has it is in, and what they announce is there; the kernel has dropped what the others sent.
fn sessions_are_those_with_the_right_password(
    lab: &Lab,
    router: &TortieNode,
    near: &Namespace,
) -> Result<()> {
    let right = NEIGHBOURS.iter().filter(|neighbour| neighbour.is_right);
    lab.wait("the sessions with the right password", CONVERGE, || {
        let peers = router.show::<ShowBgp>("bgp")?.peers;
        for neighbour in right.clone() {
            let peer = peer(&peers, neighbour.address)?;
            ensure!(peer.up, "{} is {}, {:?}", peer.address, peer.state, peer.last_error);
        }
        Ok(Some(()))
    })?;
    lab.wait("their networks", CONVERGE, || {
        let routes = router.show::<ShowRoutes>("routes --source bgp")?.routes;
        let is_there = |neighbour: &Neighbour| {
            routes.iter().any(|route| route.prefix == neighbour.network() && route.installed)
        };
        ensure!(right.clone().all(is_there), "there are {routes:?}");
        ensure!(routes.len() == right.clone().count(), "there are more: {routes:?}");
        Ok(Some(()))
    })?;
    for (counter, of_whom) in [
        ("TcpExtTCPMD5NotFound", "10.9.0.4, which has none"),
        ("TcpExtTCPMD5Failure", "10.9.0.18, which has the rack's"),
    ] {
        // Whoever isn't heard tries again every 3 s.
        let dropped = lab.wait(&format!("the kernel to drop segments of {of_whom}"), CONVERGE, || {
            let said = near.run("nstat", &["-asz", counter])?;
            let counted = said.lines().find_map(|line| line.strip_prefix(counter)?.split_whitespace().next());
            let counted: u64 = counted.with_context(|| format!("no {counter} in {said}"))?.parse()?;
            Ok((counted > 0).then_some(counted))
        })?;
        lab.proved(format!("the kernel has dropped {dropped} segments of {of_whom} ({counter})"));
    }
    let peers = router.show::<ShowBgp>("bgp")?.peers;
    for neighbour in &NEIGHBOURS {
        let Some(there) = peers.iter().find(|peer| peer.address.to_string() == neighbour.address) else {
            ensure!(!neighbour.is_right, "{} isn't there", neighbour.address);
            continue;
        };
        ensure!(neighbour.is_right, "{} was let in", neighbour.address);
        let came_by_itself = neighbour.way == Way::ItConnects;
        ensure!((there.kind == "dynamic") == came_by_itself, "{} is {}", there.address, there.kind);
    }
    lab.proved(format!(
        "{} of {} neighbours are in, those with their range's password: {} came by themselves, one was named and waited, and \
         one is a range of BIRD's",
        right.clone().count(),
        NEIGHBOURS.len(),
        right.filter(|neighbour| neighbour.way == Way::ItConnects).count()
    ));
    Ok(())
}

/// The rack's neighbours come back with it; who is in another range never notices.
fn a_new_password_is_one_ranges_alone(
    lab: &Lab,
    router: &TortieNode,
    birds: &[Bird],
    secrets: &Secrets,
    passwords: &mut BTreeMap<&str, &str>,
) -> Result<()> {
    lab.step("changing the password of a range at both ends");
    let before = router.show::<ShowBgp>("bgp")?.peers;
    secrets.write("rack", "pickle")?;
    passwords.insert("rack", "pickle");
    for (neighbour, bird) in NEIGHBOURS.iter().zip(birds) {
        let file = lab.directory().join(format!("bird-{}.conf", bird.namespace().name()));
        std::fs::write(&file, neighbour.configuration(passwords)?)?;
        let answer = bird.ask("configure")?;
        ensure!(answer.contains("econfigur"), "{answer}");
    }
    let of_rack = |neighbour: &&Neighbour| neighbour.is_right && neighbour.password == Some("rack");
    lab.wait("the neighbours with the new password", CONVERGE, || {
        let peers = router.show::<ShowBgp>("bgp")?.peers;
        for neighbour in NEIGHBOURS.iter().filter(of_rack) {
            let (now, then) = (peer(&peers, neighbour.address)?, peer(&before, neighbour.address)?);
            ensure!(now.up && now.established_count > then.established_count, "{now:?}");
        }
        Ok(Some(()))
    })?;
    let now = router.show::<ShowBgp>("bgp")?.peers;
    for neighbour in NEIGHBOURS.iter().filter(|neighbour| neighbour.is_right && !of_rack(neighbour)) {
        let (now, then) = (peer(&now, neighbour.address)?, peer(&before, neighbour.address)?);
        ensure!(now.up && now.established_count == then.established_count, "{} was disturbed", now.address);
    }
    lab.proved(
        "a range's new password at both ends: its neighbours come back, those of other ranges never noticed",
    );
    Ok(())
}

/// Rather than open it to anybody.
fn without_its_file_a_range_lets_nobody_in(lab: &Lab, router: &TortieNode, secrets: &Secrets) -> Result<()> {
    lab.step("taking the password of a range away");
    secrets.remove("rack")?;
    let in_rack = |peer: &&Peer| {
        let text = peer.address.to_string();
        NEIGHBOURS.iter().any(|neighbour| neighbour.address == text && neighbour.password != Some("servers"))
            && !text.contains(':')
    };
    lab.wait("the range's sessions to end", CONVERGE, || {
        let peers = router.show::<ShowBgp>("bgp")?.peers;
        let up = peers.iter().filter(in_rack).find(|peer| peer.up);
        ensure!(up.is_none(), "{up:?} is still up");
        Ok(Some(()))
    })?;
    // 10.9.0.4, which has no password, tries every 3 s: twice until then.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(7) {
        let peers = router.show::<ShowBgp>("bgp")?.peers;
        let up = peers.iter().filter(in_rack).find(|peer| peer.up);
        ensure!(up.is_none(), "{up:?} was let in without a password");
        thread::sleep(Duration::from_millis(500));
    }
    let peers = router.show::<ShowBgp>("bgp")?.peers;
    ensure!(peer(&peers, "10.9.0.17")?.up && peer(&peers, "fd09::2")?.up, "other ranges were disturbed");
    lab.proved("a range whose password is taken away ends its sessions and lets nobody in; the others stay");
    Ok(())
}

fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.node("near", Some(ROUTER[0].parse()?), Some(ROUTER[1].parse()?))?;
    for neighbour in NEIGHBOURS.iter().filter(|neighbour| neighbour.way != Way::ItConnects) {
        let name = format!("peer-{}", neighbour.address.replace(['.', ':'], "-"));
        resources.bgp_peer(&name, Some("near"), neighbour.address.parse()?, BIRD_AS)?;
    }
    Ok(resources)
}

/// The session with this neighbour.
fn peer<'a>(peers: &'a [Peer], address: &str) -> Result<&'a Peer> {
    let address: IpAddr = address.parse()?;
    peers.iter().find(|peer| peer.address == address).with_context(|| format!("no session with {address}"))
}

/// An address without its length.
fn address_of(cidr: &str) -> &str {
    cidr.split('/').next().unwrap_or(cidr)
}
