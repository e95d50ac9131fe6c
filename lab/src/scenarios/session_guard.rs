//! BGP sessions that are guarded: by a TCP MD5 password (RFC 2385) and by how far segments have come (RFC 5082), with
//! Debian's BIRD 2 at the other end.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Lab;
use crate::bird::Bird;
use crate::cluster::CONVERGE;
use crate::link::Fabric;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::secrets::Secrets;
use crate::tortie::{Peer, Settings, ShowBgp, TortieNode};

pub(super) const SESSION_GUARD: Scenario = Scenario {
    name: "session-guard",
    about: "BGP with passwords and ttlSecurity towards BIRD: both ends alike come up, others don't and say why",
    programs: &["bird", "birdc", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const ROUTER: [&str; 2] = ["10.9.0.1/24", "fd09::1/64"];
const ROUTER_AS: u32 = 64512;
const BIRD_AS: u32 = 64900;
/// Until a silent peer is told of: an attempt to connect is given up after 10 s.
const SILENCE: Duration = Duration::from_secs(90);

/// What the two ends of a session are told.
struct Pair {
    /// BIRD's address.
    address: &'static str,
    /// The key of the Secret at Tortie's end, and what it holds; empty is a key that isn't there.
    password: Option<(&'static str, &'static str)>,
    ttl_security: Option<u8>,
    /// BIRD's side, beside addresses and AS numbers.
    bird: &'static str,
    /// What Tortie says of it; none where it comes up.
    problem: Option<&'static str>,
}

const PAIRS: [Pair; 8] = [
    Pair {
        address: "10.9.0.2",
        password: Some(("right", "cheese")),
        ttl_security: Some(1),
        bird: "password \"cheese\"; ttl security on;",
        problem: None,
    },
    // Tortie has to connect to this one, and the next one to Tortie.
    Pair {
        address: "10.9.0.3",
        password: Some(("right", "cheese")),
        ttl_security: None,
        bird: "password \"cheese\"; passive on;",
        problem: None,
    },
    Pair {
        address: "fd09::2",
        password: Some(("six", "cake")),
        ttl_security: Some(2),
        bird: "password \"cake\"; ttl security on;",
        problem: None,
    },
    Pair { address: "10.9.0.4", password: None, ttl_security: None, bird: "", problem: None },
    Pair {
        address: "10.9.0.5",
        password: Some(("right", "cheese")),
        ttl_security: None,
        bird: "password \"ham\";",
        problem: Some("is the password the same at both ends?"),
    },
    Pair {
        address: "10.9.0.6",
        password: Some(("right", "cheese")),
        ttl_security: None,
        bird: "",
        problem: Some("is the password the same at both ends?"),
    },
    // Without ttl security BIRD sends to a neighbour with a TTL of 1.
    Pair {
        address: "10.9.0.7",
        password: None,
        ttl_security: Some(1),
        bird: "",
        problem: Some("is the peer within the hops of ttlSecurity"),
    },
    Pair {
        address: "10.9.0.8",
        password: Some(("missing", "")),
        ttl_security: None,
        bird: "password \"cheese\";",
        problem: Some("bgp/missing: there is no such file"),
    },
];

fn run(lab: &Lab, _: &Options) -> Result<()> {
    lab.step("raising a router and a BIRD with a session for each guard");
    let fabric = Fabric::raise(lab, "fabric")?;
    let near = fabric.host(lab, "near", &ROUTER)?;
    near.forward()?;
    let secrets = Secrets::create(lab)?;
    for (key, password) in PAIRS.iter().filter_map(|pair| pair.password).filter(|(_, text)| !text.is_empty())
    {
        secrets.write(key, password)?;
    }
    let resources = resources(lab)?;
    let settings = Settings {
        more: format!("bgp: {{ secrets: {} }}\n", secrets.directory().display()),
        ..Settings::default()
    };
    let router = TortieNode::configure(lab, &near, resources.directory(), &settings)?;
    // A BIRD has one session with a neighbour, whichever address of its own it has: so there is one for each.
    let birds: Vec<Bird> = PAIRS
        .iter()
        .enumerate()
        .map(|(number, pair)| {
            let bits = if pair.address.contains(':') { 64 } else { 24 };
            let far = fabric.host(lab, &format!("far{number}"), &[&format!("{}/{bits}", pair.address)])?;
            Bird::start(lab, &far, &configuration(pair, "cheese")?)
        })
        .collect::<Result<_>>()?;
    router.start(lab)?;

    let up = PAIRS.iter().filter(|pair| pair.problem.is_none()).count();
    lab.wait("the sessions whose ends agree", CONVERGE, || {
        let peers = router.show::<ShowBgp>("bgp")?.peers;
        Ok((peers.iter().filter(|peer| peer.up).count() == up).then_some(()))
    })?;
    for (pair, bird) in PAIRS.iter().zip(&birds) {
        let Some(problem) = pair.problem else {
            let what = format!("BIRD's end of the session with {}", pair.address);
            lab.wait(&what, CONVERGE, || bird.established(1).map(Some))?;
            lab.proved(format!("{}: up, with {} at BIRD's end", pair.address, words(pair.bird)));
            continue;
        };
        let said = lab.wait(&format!("what is said of {}", pair.address), SILENCE, || {
            let peer = peer(&router, pair.address)?;
            ensure!(!peer.up, "{} came up", pair.address);
            Ok(peer.last_error.filter(|error| error.contains(problem)))
        })?;
        lab.proved(format!("{}: not up, with {} at BIRD's end: {said}", pair.address, words(pair.bird)));
    }
    new_password(lab, &router, &birds, &secrets)
}

/// Both ends get another one; sessions with other passwords never notice.
fn new_password(lab: &Lab, router: &TortieNode, birds: &[Bird], secrets: &Secrets) -> Result<()> {
    lab.step("changing a password at both ends");
    let others = ["fd09::2", "10.9.0.4"];
    let before: Vec<Peer> = others.iter().map(|other| peer(router, other)).collect::<Result<_>>()?;
    secrets.write("right", "pickle")?;
    for (pair, bird) in PAIRS.iter().zip(birds) {
        let file = lab.directory().join(format!("bird-{}.conf", bird.namespace().name()));
        std::fs::write(&file, configuration(pair, "pickle")?)?;
        let answer = bird.ask("configure")?;
        ensure!(answer.contains("econfigur"), "{answer}");
    }
    lab.wait("the sessions with the new password", CONVERGE, || {
        let all = ["10.9.0.2", "10.9.0.3"].map(|address| peer(router, address));
        for peer in all {
            let peer = peer?;
            if !peer.up || peer.established_count < 2 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    for (other, before) in others.iter().zip(before) {
        let now = peer(router, other)?;
        ensure!(now.up && now.established_count == before.established_count, "{other} was disturbed");
    }
    lab.proved("a new password at both ends: its sessions come back, the others never noticed");
    // What one end alone forgets ends the session, rather than leave it open to anybody.
    secrets.remove("right")?;
    let said = lab.wait("the session without its password to end", CONVERGE, || {
        let peer = peer(router, "10.9.0.2")?;
        ensure!(!peer.up, "it is still up");
        Ok(peer.last_error.filter(|error| error.contains("there is no such file")))
    })?;
    lab.proved(format!("a password that is taken away ends the session: {said}"));
    router.must_run()
}

fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.node("near", Some(ROUTER[0].parse()?), Some(ROUTER[1].parse()?))?;
    for (number, pair) in PAIRS.iter().enumerate() {
        let mut text = format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: peer-{number}}}\n\
             spec:\n  peerIP: \"{}\"\n  asNumber: {BIRD_AS}\n",
            pair.address
        );
        if let Some((key, _)) = pair.password {
            writeln!(text, "  password: {{secretKeyRef: {{name: bgp, key: {key}}}}}")?;
        }
        if let Some(hops) = pair.ttl_security {
            writeln!(text, "  ttlSecurity: {hops}")?;
        }
        resources.write(&format!("bgppeer-{number}.yaml"), &text)?;
    }
    Ok(resources)
}

/// A BIRD's session, with this password in place of `cheese`.
fn configuration(pair: &Pair, password: &str) -> Result<String> {
    let mut text = String::from("log stderr all;\nrouter id 10.9.0.2;\nprotocol device { scan time 2; }\n");
    let (channel, own) = if pair.address.contains(':') { ("ipv6", ROUTER[1]) } else { ("ipv4", ROUTER[0]) };
    let own = own.split('/').next().unwrap_or(own);
    writeln!(
        text,
        "protocol bgp tortie {{ local {} as {BIRD_AS}; neighbor {own} as {ROUTER_AS}; direct; \
         connect delay time 1; connect retry time 3; error wait time 1,3; \
         {} {channel} {{ import all; export none; }}; }}",
        pair.address,
        pair.bird.replace("cheese", password)
    )?;
    Ok(text)
}

fn words(bird: &str) -> &str {
    if bird.is_empty() { "nothing" } else { bird.trim_end_matches(';') }
}

fn peer(router: &TortieNode, address: &str) -> Result<Peer> {
    let address: IpAddr = address.parse()?;
    let peers = router.show::<ShowBgp>("bgp")?.peers;
    peers
        .into_iter()
        .find(|peer| peer.address == address)
        .with_context(|| format!("no session with {address}"))
}
