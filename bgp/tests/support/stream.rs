//! A peer that sends anything at all: what the fuzzer runs, and what replays its corpus.
//!
//! The first octet chooses the setting, the rest is what the peer sends:
//!
//! | bit | set | clear |
//! | --- | --- | --- |
//! | 0 | in answer to our OPEN | in an established session |
//! | 1 | iBGP | eBGP |
//! | 2 | several paths for a prefix | one |
//! | 3 | AS numbers of two octets | of four |
//! | 4 | seven octets at a time | all at once |
//! | 5 | as the body of one UPDATE | as a stream |
//! | 6 | an import filter rejects half | no filter |
//! | 7 | whatever can be agreed on is, and the listener takes several paths | nothing else is |

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use bgp::wire::capability::{AddPathMode, Capability, GracefulRestart, LongLived, NextHopEncoding};
use bgp::wire::nlri::AfiSafi;
use bgp::wire::open::Open;
use bgp::{
    BestPaths, ConnectionId, Direction, Filter, FilterAction, FilterRule, Input, Output, PeerConfig, PeerId,
    PeerState, Role, SendPaths, Speaker, SpeakerConfig, Standing,
};
use model::{AsNumber, Family, Prefix};

const PEER: PeerId = PeerId(1);
const LISTENER: PeerId = PeerId(2);

/// Lets the peer send `data`; panics where the speaker contradicts itself.
pub fn run(data: &[u8]) {
    let Some((&setting, sent)) = data.split_first() else { return };
    let has = |bit: u8| setting >> bit & 1 == 1;
    let mut world = World::new();
    let as_number = if has(1) { 65000 } else { 65001 };
    let mut peer = config(PEER, as_number);
    peer.add_path = has(2);
    let mut listener = config(LISTENER, 65009);
    if has(7) {
        (peer.v4_over_v6, peer.survive_notification, peer.blackhole) = (true, true, true);
        peer.role = Some(if has(6) { Role::Customer } else { Role::Peer });
        listener.send_paths = SendPaths::All;
    }
    if has(6) {
        let half = Prefix::new(IpAddr::V4(Ipv4Addr::new(128, 0, 0, 0)), 1).expect("a length of 1");
        let rules = vec![FilterRule::within(half, FilterAction::Reject)];
        peer.import = Filter { rules, default: FilterAction::Accept };
    }
    world.give(Input::PutPeer(peer));
    world.give(Input::PutPeer(listener));
    world.connect(LISTENER);
    world.receive(LISTENER, &handshake(LISTENER, 65009, has(7), false, has(7)));
    world.connect(PEER);
    if !has(0) {
        world.receive(PEER, &handshake(PEER, as_number, has(2), has(3), has(7)));
        let states = world.speaker.peers(world.now).map(|peer| peer.state);
        assert!(states.eq([PeerState::Established; 2]), "the setting itself is sound");
    }
    let bytes = if has(5) { update(sent, if has(7) { 65535 } else { 4096 }) } else { sent.to_vec() };
    let size = if has(4) { 7 } else { bytes.len().max(1) };
    for piece in bytes.chunks(size) {
        world.receive(PEER, piece);
    }
    world.check();
    world.pass_hours();
    world.check();
    world.give(Input::RemovePeer(PEER));
    world.check();
    assert!(world.fib.is_empty(), "routes outlive their peer");
    assert!(world.watched.is_empty(), "next hops outlive their routes");
    assert!(
        Family::ALL.iter().all(|&family| world.speaker.route_count(family) == 0),
        "paths outlive their peer"
    );
}

fn config(id: PeerId, as_number: u32) -> PeerConfig {
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, id.0 as u8 + 1));
    let mut config = PeerConfig::new(id, address, AsNumber(as_number));
    config.families = Family::ALL.to_vec();
    config.self_next_hops.v6 = "2001:db8:ffff::1".parse().ok();
    (config.passive, config.policy_required) = (true, false);
    // Nobody sends keepalives here.
    config.hold_time = std::time::Duration::ZERO;
    config
}

/// The peer's OPEN and KEEPALIVE.
fn handshake(id: PeerId, as_number: u32, add_path: bool, two_octets: bool, more: bool) -> Vec<u8> {
    let families = || Family::ALL.into_iter().map(AfiSafi::unicast);
    let mut capabilities: Vec<_> = families().map(Capability::MultiProtocol).collect();
    if !two_octets {
        capabilities.push(Capability::FourOctetAs(as_number));
    }
    if add_path {
        let both = AddPathMode { receive: true, send: true };
        capabilities.push(Capability::AddPath(families().map(|family| (family, both)).collect()));
    }
    if more {
        let family = AfiSafi::unicast(Family::V4);
        capabilities.push(Capability::ExtendedMessage);
        capabilities.push(Capability::EnhancedRefresh);
        capabilities.push(Capability::ExtendedNextHop(vec![NextHopEncoding::V4_OVER_V6]));
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarted: false,
            notification: true,
            restart_time: 120,
            families: vec![(family, true)],
        }));
        let stale_time = 3600;
        capabilities.push(Capability::LongLived(vec![LongLived { family, preserved: true, stale_time }]));
    }
    let router_id = Ipv4Addr::new(10, 0, 0, id.0 as u8 + 1);
    let mut bytes = Vec::new();
    Open { my_as: as_number as u16, hold_time: 90, router_id, capabilities }.emit(&mut bytes);
    bytes.extend([0xff; 16]);
    bytes.extend([0, 19, 4]);
    bytes
}

fn update(body: &[u8], max_len: usize) -> Vec<u8> {
    let body = &body[..body.len().min(max_len - 19)];
    let mut bytes = vec![0xff; 16];
    bytes.extend((19 + body.len() as u16).to_be_bytes());
    bytes.push(2);
    bytes.extend(body);
    bytes
}

/// A speaker and what it told the world around it.
struct World {
    speaker: Speaker,
    now: Instant,
    fib: BTreeMap<Prefix, BestPaths>,
    watched: BTreeSet<IpAddr>,
}

impl World {
    fn new() -> World {
        let config = SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, 1), AsNumber(65000));
        World {
            speaker: Speaker::new(config),
            now: Instant::now(),
            fib: BTreeMap::new(),
            watched: BTreeSet::new(),
        }
    }

    fn connect(&mut self, peer: PeerId) {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 179);
        let connection = ConnectionId(peer.0.into());
        self.give(Input::ConnectionOpened { peer, connection, direction: Direction::Inbound, local });
    }

    fn receive(&mut self, peer: PeerId, bytes: &[u8]) {
        self.give(Input::Received { connection: ConnectionId(peer.0.into()), bytes });
    }

    fn give(&mut self, input: Input<'_>) {
        let mut out = Vec::new();
        self.speaker.handle(input, self.now, &mut out);
        while !out.is_empty() || self.speaker.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            let mut asked = Vec::new();
            for output in out.drain(..) {
                match output {
                    Output::WatchNexthop(nexthop) => {
                        assert!(self.watched.insert(nexthop), "{nexthop} is watched twice");
                        asked.push(nexthop);
                    }
                    Output::UnwatchNexthop(nexthop) => {
                        assert!(self.watched.remove(&nexthop), "{nexthop} was not watched");
                    }
                    Output::RouteChanged { prefix, paths } if paths.is_empty() => {
                        assert!(self.fib.remove(&prefix).is_some(), "{prefix} was not there");
                    }
                    Output::RouteChanged { prefix, paths } => {
                        self.fib.insert(prefix, paths);
                    }
                    Output::Send { bytes, .. } => assert_whole_messages(&bytes),
                    _ => {}
                }
            }
            for nexthop in asked {
                // Some cannot be reached.
                let metric =
                    (nexthop.is_ipv6() || nexthop != IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9))).then_some(7);
                self.speaker.handle(Input::NexthopChanged { nexthop, metric }, self.now, &mut out);
            }
            self.speaker.handle(Input::Tick, self.now, &mut out);
        }
    }

    /// Lets two hours pass: whatever was kept for a peer that is gone is not kept for ever.
    fn pass_hours(&mut self) {
        let end = self.now + std::time::Duration::from_secs(7200);
        while let Some(deadline) = self.speaker.next_deadline().filter(|&deadline| deadline <= end) {
            self.now = self.now.max(deadline);
            self.give(Input::Tick);
        }
        self.now = end;
    }

    /// What was told is what the speaker would tell now.
    fn check(&self) {
        for (prefix, paths) in &self.fib {
            let routes = self.speaker.routes(*prefix);
            let best = routes.first().filter(|route| route.standing == Standing::Best);
            let nexthop = best.and_then(|route| route.attributes.nexthop());
            assert_eq!(nexthop, paths.first().map(|path| path.nexthop), "{prefix}");
        }
    }
}

fn assert_whole_messages(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        assert!(bytes.len() >= 19 && bytes[..16] == [0xff; 16], "no header");
        let len = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        assert!(len >= 19 && len <= bytes.len(), "a length of {len}");
        bytes = &bytes[len..];
    }
}
