//! What the tests share: one speaker and hand-made peers ([`Bench`]), and a network of speakers ([`Network`]).
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod network;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bgp::wire::MessageType;
use bgp::wire::capability::{Capability, GracefulRestart};
use bgp::wire::nlri::AfiSafi;
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::{ConnectionId, Direction, Input, Output, PeerConfig, PeerId, PeerState, Speaker, SpeakerConfig};
use model::{AsNumber, Family, Prefix};

/// A file of the oracles or data, or a line that says why the test is skipped.
pub fn shared_file(variable: &str, folder: &str, name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(folder),
        PathBuf::from,
    );
    let path = folder.join(name);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: {} is not there; set {variable}", path.display());
    None
}

/// The rows of an oracle file; none where the file is absent.
pub fn oracle(name: &str) -> Vec<serde_json::Value> {
    let Some(path) = shared_file("TORTIE_ORACLES", "oracles", name) else { return Vec::new() };
    let text = std::fs::read_to_string(path).expect("the file can be read");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// Octets from hexadecimal digits.
pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(digit).collect()
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A message of any type around a body.
pub fn message(kind: MessageType, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(((19 + body.len()) as u16).to_be_bytes());
    bytes.push(kind as u8);
    bytes.extend(body);
    bytes
}

/// An UPDATE of IPv4 routes.
pub fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [withdrawn, attributes] {
        body.extend((field.len() as u16).to_be_bytes());
        body.extend(field);
    }
    body.extend(nlri);
    message(MessageType::Update, &body)
}

/// Cuts bytes into messages: type and body.
pub fn messages(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while bytes.len() >= 19 {
        let len = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        found.push((bytes[18], bytes[19..len].to_vec()));
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "whole messages are sent");
    found
}

/// A peer played by the test.
#[derive(Clone, Copy, Debug)]
pub struct Actor {
    pub id: PeerId,
    pub address: Ipv4Addr,
    pub as_number: u32,
}

impl Actor {
    pub fn connection(self) -> ConnectionId {
        ConnectionId(u64::from(self.id.0))
    }

    /// An OPEN with IPv4, IPv6, route refresh and four-octet AS numbers.
    pub fn open(self) -> Open {
        Open {
            my_as: u16::try_from(self.as_number).unwrap_or(23456),
            hold_time: 90,
            router_id: self.address,
            capabilities: vec![
                Capability::MultiProtocol(AfiSafi::unicast(Family::V4)),
                Capability::MultiProtocol(AfiSafi::unicast(Family::V6)),
                Capability::RouteRefresh,
                Capability::FourOctetAs(self.as_number),
            ],
        }
    }

    pub fn graceful_open(self, restarted: bool, preserved: bool) -> Open {
        let mut open = self.open();
        open.capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarted,
            notification: false,
            restart_time: 120,
            families: vec![(AfiSafi::unicast(Family::V4), preserved)],
        }));
        open
    }
}

/// AS 65000's speaker, 10.0.0.1.
pub const EBGP: Actor = Actor { id: PeerId(2), address: Ipv4Addr::new(10, 0, 0, 2), as_number: 65001 };
pub const IBGP: Actor = Actor { id: PeerId(3), address: Ipv4Addr::new(10, 0, 0, 3), as_number: 65000 };
pub const OBSERVER: Actor = Actor { id: PeerId(9), address: Ipv4Addr::new(10, 0, 0, 9), as_number: 65009 };

/// One speaker, AS 65000 and 10.0.0.1, whose peers the test plays. Every next hop is reachable.
pub struct Bench {
    pub speaker: Speaker,
    pub now: Instant,
    /// Everything put out since [`Bench::take`], except watched next hops.
    pub out: Vec<Output>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, 1), AsNumber(65000)))
    }

    pub fn with(config: SpeakerConfig) -> Bench {
        Bench { speaker: Speaker::new(config), now: Instant::now(), out: Vec::new() }
    }

    pub fn config(actor: Actor) -> PeerConfig {
        let mut config = PeerConfig::new(actor.id, actor.address.into(), AsNumber(actor.as_number));
        config.families = Family::ALL.to_vec();
        config.self_next_hops.v6 = Some("2001:db8:ffff::1".parse().expect("an address"));
        config.passive = true;
        config.policy_required = false;
        config
    }

    /// Gives an input, answers requests for next hops, and lets all work be done.
    pub fn give(&mut self, input: Input<'_>) {
        let mut out = Vec::new();
        self.speaker.handle(input, self.now, &mut out);
        loop {
            let mut answers = Vec::new();
            for output in out.drain(..) {
                match output {
                    Output::WatchNexthop(nexthop) => answers.push(nexthop),
                    Output::UnwatchNexthop(_) => {}
                    output => self.out.push(output),
                }
            }
            for nexthop in answers {
                self.speaker.handle(Input::NexthopChanged { nexthop, metric: Some(0) }, self.now, &mut out);
            }
            if out.is_empty() && self.speaker.next_deadline().is_none_or(|deadline| deadline > self.now) {
                break;
            }
            self.speaker.handle(Input::Tick, self.now, &mut out);
        }
    }

    /// Lets time pass, stopping at every deadline.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.speaker.next_deadline().filter(|&deadline| deadline <= end) {
            self.now = self.now.max(deadline);
            self.give(Input::Tick);
        }
        self.now = end;
    }

    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    pub fn receive(&mut self, actor: Actor, bytes: &[u8]) {
        self.give(Input::Received { connection: actor.connection(), bytes });
    }

    /// Opens a connection from the actor's side.
    pub fn connect(&mut self, actor: Actor) {
        self.give(Input::ConnectionOpened {
            peer: actor.id,
            connection: actor.connection(),
            direction: Direction::Inbound,
            local: SocketAddr::new(ip("10.0.0.1"), 179),
        });
    }

    /// Brings a session up with a given OPEN.
    pub fn establish_with(&mut self, actor: Actor, open: &Open) {
        self.connect(actor);
        let mut bytes = Vec::new();
        open.emit(&mut bytes);
        bytes.extend(message(MessageType::Keepalive, &[]));
        self.receive(actor, &bytes);
        assert_eq!(self.state(actor), PeerState::Established);
    }

    /// Configures the actor as a peer and brings its session up.
    pub fn establish(&mut self, actor: Actor) {
        self.give(Input::PutPeer(Bench::config(actor)));
        self.establish_with(actor, &actor.open());
        self.take();
    }

    pub fn status(&self, actor: Actor) -> bgp::PeerStatus {
        self.speaker.peers(self.now).find(|peer| peer.id == actor.id).expect("the peer is configured")
    }

    pub fn state(&self, actor: Actor) -> PeerState {
        self.status(actor).state
    }

    /// Messages sent to the actor since [`Bench::take`].
    pub fn sent(&self, actor: Actor) -> Vec<(u8, Vec<u8>)> {
        let sent = self.out.iter().filter_map(|output| match output {
            Output::Send { connection, bytes } if *connection == actor.connection() => Some(&bytes[..]),
            _ => None,
        });
        messages(&sent.collect::<Vec<_>>().concat())
    }

    /// The NOTIFICATION sent to the actor since [`Bench::take`].
    pub fn notification(&self, actor: Actor) -> Option<Notification> {
        let sent = self.sent(actor);
        sent.iter().find(|(kind, _)| *kind == 3).and_then(|(_, body)| Notification::parse(body))
    }
}
