//! Groups against the slow and obvious way: whatever happened, each peer has been told what the export policy says for it
//! alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use model::{AsNumber, Family, Prefix};
use proptest::prelude::*;

use super::{learned_from, recipient};
use crate::config::{ConnectionId, NextHopMode, PeerConfig, PeerId, PeerKind, SpeakerConfig};
use crate::export::{ExportPolicy, Permit};
use crate::filter::{Filter, FilterAction, FilterRule};
use crate::input::{Direction, Input, OriginatedRoute};
use crate::key::{Key, KeyV4};
use crate::output::Output;
use crate::path::Slot;
use crate::speaker::Speaker;
use crate::wire::attributes::{NO_LLGR, code};
use crate::wire::capability::{Capability, GracefulRestart, LongLived};
use crate::wire::nlri::{self, AfiSafi, Nlri};
use crate::wire::open::Open;
use crate::wire::route_refresh::{self, RouteRefresh};
use crate::wire::update::{Form, Update, UpdateContext, emit_end_of_rib, emit_withdrawals};
use crate::wire::{MessageType, emit_keepalive, emit_message};

const OUR_AS: u32 = 65000;
/// Peers: each pair or so is a group.
pub(crate) const PEERS: u8 = 9;
/// More than one portion of work.
pub(crate) const PREFIXES: u8 = 150;

/// Kinds of what may happen.
pub(crate) const STEPS: u8 = 30;

fn address(peer: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, peer + 2)
}

fn as_of(peer: u8) -> u32 {
    if peer < 5 { OUR_AS } else { 65001 + u32::from(peer % 2) }
}

fn prefix(number: u8) -> Prefix {
    Prefix::new([192, 0, number, 0].into(), 24).expect("a prefix")
}

/// What may change while a session stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Variant {
    export: u8,
    pub(crate) import: u8,
    pub(crate) cluster: u8,
}

/// The first of several filters accepts everything; others keep some out or change what passes.
fn filter(variant: u8) -> Filter {
    match variant {
        0 => Filter::accept_all(),
        1 => Filter {
            rules: vec![FilterRule::within(
                Prefix::new([192, 0, 0, 0].into(), 18).expect("a prefix"),
                FilterAction::Reject,
            )],
            default: FilterAction::Accept,
        },
        _ => Filter {
            rules: vec![FilterRule {
                operations: vec![crate::filter::Operation::PrependAsPath(vec![AsNumber(65099)])],
                ..FilterRule::any(FilterAction::Accept)
            }],
            default: FilterAction::Reject,
        },
    }
}

fn config(peer: u8, variant: Variant) -> PeerConfig {
    let mut config = PeerConfig::new(PeerId(peer.into()), address(peer).into(), AsNumber(as_of(peer)));
    (config.passive, config.policy_required) = (true, false);
    // Some clients, some not; some eBGP peers get others' next hops.
    config.reflector_client = (peer < 3).then_some(Ipv4Addr::new(1, 0, 0, variant.cluster));
    if peer >= 7 {
        config.next_hop = NextHopMode::Keep;
    }
    (config.import, config.export) = (filter(variant.import), filter(variant.export));
    config
}

/// A speaker, its peers, and what each of them knows.
pub(crate) struct World {
    pub(crate) speaker: Speaker,
    pub(crate) now: Instant,
    connections: BTreeMap<ConnectionId, u8>,
    /// Which connection a peer has, and how it is configured.
    pub(crate) peers: [(Option<ConnectionId>, Variant); PEERS as usize],
    knows: [BTreeMap<Prefix, Vec<u8>>; PEERS as usize],
    next_connection: u64,
}

impl World {
    /// Of so much work a call.
    pub(crate) fn new(work_per_call: usize) -> World {
        let mut speaker_config = SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, 1), AsNumber(OUR_AS));
        speaker_config.limits.work_per_call = work_per_call;
        let mut world = World {
            speaker: Speaker::new(speaker_config),
            now: Instant::now(),
            connections: BTreeMap::new(),
            peers: [(None, Variant::default()); PEERS as usize],
            knows: Default::default(),
            next_connection: 1,
        };
        (0..PEERS).for_each(|peer| world.give(Input::PutPeer(config(peer, Variant::default()))));
        world
    }

    pub(crate) fn give(&mut self, input: Input<'_>) {
        let mut out = Vec::new();
        self.speaker.handle(input, self.now, &mut out);
        let mut answers = Vec::new();
        for output in out {
            match output {
                Output::Send { connection, bytes } => self.hear(connection, &bytes),
                Output::WatchNexthop(nexthop) => answers.push(nexthop),
                Output::Close { connection } => self.gone(connection),
                _ => {}
            }
        }
        for nexthop in answers {
            self.give(Input::NexthopChanged { nexthop, metric: Some(0) });
        }
    }

    fn gone(&mut self, connection: ConnectionId) {
        if let Some(peer) = self.connections.remove(&connection) {
            self.peers[usize::from(peer)].0 = None;
        }
    }

    /// A peer takes in what it is told.
    fn hear(&mut self, connection: ConnectionId, mut bytes: &[u8]) {
        let Some(&peer) = self.connections.get(&connection) else { return };
        let knows = &mut self.knows[usize::from(peer)];
        while bytes.len() >= 19 {
            let len = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
            let (kind, body) = (bytes[18], &bytes[19..len]);
            bytes = &bytes[len..];
            if kind != MessageType::Update as u8 {
                continue;
            }
            let update = Update::parse(body, &context(peer)).expect("our own UPDATE");
            for Nlri { prefix, .. } in update.withdrawn[0] {
                // One whose first run isn't through may be told that something is gone that it hasn't been told of.
                knows.remove(&prefix);
            }
            for announced in update.announced.into_iter().flatten() {
                let mut key = Vec::new();
                update.canonical_key(announced.nexthop, &mut key);
                announced.nlri.for_each(|nlri| drop(knows.insert(nlri.prefix, key.clone())));
            }
        }
    }

    /// Its session comes up; where it restarts its routes are kept for a while, perhaps for long.
    pub(crate) fn up(&mut self, peer: u8, restarts: bool, lives_long: bool) {
        if self.peers[usize::from(peer)].0.is_some() {
            return;
        }
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(connection, peer);
        self.peers[usize::from(peer)].0 = Some(connection);
        self.knows[usize::from(peer)].clear();
        self.give(Input::ConnectionOpened {
            peer: PeerId(peer.into()),
            connection,
            direction: Direction::Inbound,
            local: SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 179)),
        });
        let family = AfiSafi::unicast(Family::V4);
        let mut capabilities = vec![
            Capability::MultiProtocol(family),
            Capability::RouteRefresh,
            Capability::EnhancedRefresh,
            Capability::FourOctetAs(as_of(peer)),
        ];
        if restarts {
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarted: false,
                notification: false,
                restart_time: 120,
                families: vec![(family, true)],
            }));
        }
        if lives_long {
            let long_lived = LongLived { family, preserved: true, stale_time: 120 };
            capabilities.push(Capability::LongLived(vec![long_lived]));
        }
        let open = Open { my_as: as_of(peer) as u16, hold_time: 0, router_id: address(peer), capabilities };
        let mut bytes = Vec::new();
        open.emit(&mut bytes);
        emit_keepalive(&mut bytes);
        self.say(peer, &bytes);
    }

    pub(crate) fn down(&mut self, peer: u8) {
        if let Some(connection) = self.peers[usize::from(peer)].0 {
            self.gone(connection);
            self.give(Input::ConnectionClosed { connection });
        }
    }

    fn say(&mut self, peer: u8, bytes: &[u8]) {
        if let Some(connection) = self.peers[usize::from(peer)].0 {
            self.give(Input::Received { connection, bytes });
        }
    }

    /// A peer announces some prefixes with a next hop that may be another peer, or is it itself.
    pub(crate) fn announce(&mut self, peer: u8, from: u8, many: u8, variant: u8) {
        let nexthop = if variant < 2 { address(peer) } else { address(variant % PEERS) };
        let mut attributes = vec![0x40, code::ORIGIN, 1, 0];
        let hops = 1 + usize::from(variant % 3);
        attributes.extend([0x40, code::AS_PATH, 2 + 4 * hops as u8, 2, hops as u8]);
        (0..hops)
            .for_each(|hop| attributes.extend((65001 + (hop as u32 + u32::from(peer)) % 4).to_be_bytes()));
        attributes.extend([0x40, code::NEXT_HOP, 4]);
        attributes.extend(nexthop.octets());
        if as_of(peer) == OUR_AS {
            attributes.extend([0x40, code::LOCAL_PREF, 4, 0, 0, 0, 100]);
            // Reflected in a cluster that may be ours, now or soon.
            attributes.extend([0x80, code::ORIGINATOR_ID, 4, 9, 9, 9, 9]);
            attributes.extend([0x80, code::CLUSTER_LIST, 4, 1, 0, 0, 1 + variant % 4]);
        }
        if variant.is_multiple_of(5) {
            attributes.extend([0xc0, code::COMMUNITIES, 4]);
            attributes.extend(NO_LLGR.to_be_bytes());
        }
        let mut bytes = Vec::new();
        emit_message(&mut bytes, MessageType::Update, |out| {
            out.extend([0, 0]);
            out.extend((attributes.len() as u16).to_be_bytes());
            out.extend(&attributes);
            for number in from..from.saturating_add(many).min(PREFIXES) {
                nlri::emit(out, Nlri { path_id: 0, prefix: prefix(number) }, false);
            }
        });
        self.say(peer, &bytes);
    }

    fn withdraw(&mut self, peer: u8, from: u8, many: u8) {
        let gone = from..from.saturating_add(many).min(PREFIXES);
        let gone: Vec<Nlri> = gone.map(|number| Nlri { path_id: 0, prefix: prefix(number) }).collect();
        let mut bytes = Vec::new();
        let form = Form { family: Family::V4, max_len: 4096, add_path: false };
        emit_withdrawals(&mut bytes, form, &gone);
        self.say(peer, &bytes);
    }

    pub(crate) fn refresh(&mut self, peer: u8, subtype: u8) {
        let mut bytes = Vec::new();
        RouteRefresh { family: AfiSafi::unicast(Family::V4), subtype }.emit(&mut bytes);
        self.say(peer, &bytes);
    }

    pub(crate) fn configure(&mut self, peer: u8) {
        self.give(Input::PutPeer(config(peer, self.peers[usize::from(peer)].1)));
    }

    pub(crate) fn act(&mut self, (what, peer, from, many): (u8, u8, u8, u8)) {
        let id = PeerId(peer.into());
        match what {
            0..=5 => self.announce(peer, from % PREFIXES, many, what.wrapping_mul(7).wrapping_add(from)),
            6..=7 => self.withdraw(peer, from % PREFIXES, many),
            8..=9 => self.up(peer, many % 2 == 0, many % 3 == 0),
            10 => self.down(peer),
            11..=13 => {
                if let Some(connection) = self.peers[usize::from(peer)].0 {
                    self.give(Input::Congested { connection, congested: many % 2 == 0 });
                }
            }
            14 => self.refresh(peer, route_refresh::REQUEST),
            15..=16 => {
                self.peers[usize::from(peer)].1.export = many % 3;
                self.configure(peer);
            }
            17 => {
                self.give(Input::RemovePeer(id));
                self.configure(peer);
                if many % 2 == 0 {
                    self.up(peer, false, false);
                    self.announce(peer, from % PREFIXES, many, 1);
                }
            }
            18 => {
                let mut bytes = Vec::new();
                emit_end_of_rib(&mut bytes, Family::V4);
                self.say(peer, &bytes);
            }
            19 => self.give(Input::Originate(OriginatedRoute::new(prefix(from % PREFIXES)))),
            20 => self.give(Input::Withdraw(prefix(from % PREFIXES))),
            21 => self.now += Duration::from_secs(30),
            22 => self.refresh(peer, route_refresh::BEGIN),
            23 => self.refresh(peer, route_refresh::END),
            24..=25 => {
                // Back at once, before all that is to follow from its absence.
                self.down(peer);
                self.up(peer, many % 2 == 0, many % 3 == 0);
                self.announce(peer, from % PREFIXES, many, 1);
            }
            26..=27 => {
                self.peers[usize::from(peer)].1.import = many % 3;
                self.configure(peer);
            }
            28 => {
                // In another cluster: everything is judged anew.
                self.peers[usize::from(peer)].1.cluster = many % 3;
                self.configure(peer);
            }
            _ => self.give(Input::Tick),
        }
    }

    pub(crate) fn settle(&mut self) {
        let open: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for connection in open {
            self.give(Input::Congested { connection, congested: false });
        }
        self.work();
    }

    /// Lets all work be done that doesn't wait for a peer.
    fn work(&mut self) {
        while self.speaker.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            self.give(Input::Tick);
        }
    }

    /// What a peer must know, worked out for it alone.
    fn must_know(&self, slot: Slot) -> Option<(u8, BTreeMap<Prefix, Vec<u8>>)> {
        let speaker = &self.speaker;
        let peer = speaker.peers[slot.0 as usize].as_ref()?;
        let established = peer.session.established()?;
        let relation = speaker.relation(&peer.session.config);
        let (negotiated, local) = (&established.negotiated, established.link.local);
        let policy = ExportPolicy::new(slot, &peer.session.config, relation, negotiated, local);
        let to = recipient(slot, peer.member.as_ref()?);
        let told = (0..PREFIXES).map(prefix).filter_map(|prefix| {
            let best = speaker.tables.rib.v4.get(KeyV4::new(prefix))?.best()?;
            let learned = learned_from(&speaker.peers, best.source);
            let Permit::Yes(rule) = policy.permits(to, prefix, best, learned) else { return None };
            let mut key = Vec::new();
            policy.write(to, Family::V4, best, learned, rule, &mut key).then_some((prefix, key))
        });
        Some((peer.session.config.id.0 as u8, told.collect()))
    }
}

fn context(peer: u8) -> UpdateContext {
    UpdateContext::usual(if as_of(peer) == OUR_AS { PeerKind::Ibgp } else { PeerKind::Ebgp })
}

fn check(steps: &[(u8, u8, u8, u8)]) {
    // The least there is a call, so that much is left for later.
    let mut world = World::new(1);
    for round in steps.chunks(20) {
        round.iter().for_each(|&step| world.act(step));
        world.settle();
        for slot in (0..world.speaker.peers.len()).map(|at| Slot(at as u32)) {
            let Some((peer, must_know)) = world.must_know(slot) else { continue };
            let knows = &world.knows[usize::from(peer)];
            assert_eq!(knows, &must_know, "peer {peer}, {}", IpAddr::V4(address(peer)));
            let status = world.speaker.peers(world.now).find(|status| status.id == PeerId(peer.into()));
            let announced = status.expect("it is configured").v4.announced;
            assert!(announced >= must_know.len(), "peer {peer}: {announced} are counted");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_group_tells_each_peer_what_it_would_be_told_alone(
        steps in prop::collection::vec((0u8..STEPS, 0..PEERS, any::<u8>(), any::<u8>()), 1..160),
    ) {
        let up = (0..PEERS).map(|peer| (8, peer, 0, peer));
        check(&up.chain(steps).collect::<Vec<_>>());
    }
}

#[test]
fn what_comes_anew_before_the_old_is_gone_is_told_anew() {
    let mut world = World::new(1);
    [0, 1].into_iter().for_each(|peer| world.up(peer, false, false));
    world.announce(0, 0, PREFIXES, 1);
    world.settle();
    // The same peer in another cluster, which is in what others are told.
    world.peers[0].1.cluster = 1;
    world.configure(0);
    world.up(0, false, false);
    world.announce(0, 0, PREFIXES, 1);
    world.settle();
    let (_, must_know) = world.must_know(Slot(1)).expect("a session");
    assert_eq!((must_know.len(), world.knows[1] == must_know), (usize::from(PREFIXES), true));
}

#[test]
fn peers_of_one_policy_are_one_group_and_get_the_same_bytes() {
    let mut world = World::new(1);
    (0..PEERS).for_each(|peer| world.up(peer, false, false));
    // Clients; non-clients; eBGP of either next hop. Two ASes make no difference.
    let groups = world.speaker.groups.ids().filter(|&id| world.speaker.groups.get(id).is_some());
    assert_eq!(groups.count(), 4);
    assert_eq!(world.speaker.groups.members(), usize::from(PEERS));
}

/// A member changes groups, and before it is compared its prefixes are gone and their places are others'.
fn places_become_others(changes_twice: bool) {
    let hosts = |net: [u8; 2]| {
        let host = move |host: u16| {
            let [high, low] = host.to_be_bytes();
            Prefix::new([net[0], net[1], high, low].into(), 32).expect("a prefix")
        };
        // So many that their places are given to others once they are gone.
        (0..1300).map(host)
    };
    let (first, then) = (hosts([192, 0]), hosts([198, 18]));
    let mut world = World::new(1);
    (5..=7).for_each(|peer| world.up(peer, false, false));
    first.clone().for_each(|prefix| world.give(Input::Originate(OriginatedRoute::new(prefix))));
    world.settle();
    assert_eq!(world.knows[6].len(), first.len());
    let filter = |world: &mut World, peer: u8, export| {
        world.peers[usize::from(peer)].1.export = export;
        world.configure(peer);
    };
    if changes_twice {
        // It isn't its turn, so that nothing has been compared when it changes again.
        filter(&mut world, 7, 1);
        filter(&mut world, 5, 1);
        world.give(Input::Tick);
    }
    // The first ones are kept out in the new group.
    filter(&mut world, 6, 1);
    let member = world.speaker.peers[6].as_ref().and_then(|peer| peer.member.as_ref()).expect("a session");
    assert_eq!(member.v4.begun, !changes_twice);
    let connection = world.peers[6].0.expect("a session");
    world.give(Input::Congested { connection, congested: true });
    let knows = world.knows[6].clone();
    first.clone().for_each(|prefix| world.give(Input::Withdraw(prefix)));
    world.work();
    world.speaker.rest();
    world.work();
    then.clone().for_each(|prefix| world.give(Input::Originate(OriginatedRoute::new(prefix))));
    world.work();
    let rib = &world.speaker.tables.rib.v4;
    let place = |prefix| rib.find(KeyV4::new(prefix)).expect("it is there");
    assert!(then.clone().all(|prefix| place(prefix).0 < first.len() as u32), "the places are the same");
    if changes_twice {
        filter(&mut world, 6, 0);
    }
    assert_eq!(world.knows[6], knows, "it takes nothing");
    world.settle();
    assert!(world.knows[6].keys().copied().eq(then));
}

#[test]
fn places_become_others_while_a_member_is_compared() {
    places_become_others(false);
}

#[test]
fn places_become_others_while_a_member_changes_groups_twice() {
    places_become_others(true);
}

#[test]
fn a_member_that_leaves_before_it_has_heard_all_is_told_the_rest() {
    let mut world = World::new(1);
    world.up(5, false, false);
    (0..PREFIXES).for_each(|number| world.give(Input::Originate(OriginatedRoute::new(prefix(number)))));
    world.settle();
    world.up(6, false, false);
    assert!(world.knows[6].len() < usize::from(PREFIXES), "it is told in portions");
    world.peers[6].1.export = 1;
    world.configure(6);
    world.settle();
    let (_, must_know) = world.must_know(Slot(6)).expect("a session");
    assert_eq!(world.knows[6], must_know);
}
