//! Monitoring stations: what they have been told, put together, is what the speaker holds.

#[path = "support/bmp_stream.rs"]
mod bmp_stream;
mod support;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bgp::bmp::wire::{Down, Message, PeerHeader, Statistic, View};
use bgp::bmp::{StationConfig, StationId};
use bgp::wire::MessageType;
use bgp::wire::open::Open;
use bgp::wire::update::{Update, UpdateContext};
use bgp::{
    Capability, ConnectionId, Direction, Filter, FilterAction, FilterRule, Ineligible, Input,
    OriginatedRoute, Output, PathSource, PeerConfig, PeerKind, PeerState, SpeakerConfig, Standing,
};
use model::{AsNumber, Family, Prefix};
use proptest::prelude::*;
use support::{Actor, Bench, EBGP, IBGP, OBSERVER, message, prefix, update};

const STATION: StationId = StationId(1);

fn station(id: StationId) -> StationConfig {
    StationConfig {
        id,
        pre_policy: true,
        post_policy: true,
        loc_rib: true,
        system_name: "a".to_owned(),
        system_description: "Tortie".to_owned(),
    }
}

fn join(bench: &mut Bench, id: StationId) {
    bench.give(Input::StationJoined { config: station(id), time: Duration::from_secs(1_700_000_000) });
}

/// A route of a view: of which peer (our own have none), to where, by which of its paths.
type Place = (View, Option<IpAddr>, Prefix, u32);

/// A station: nothing but what it was told.
#[derive(Default)]
struct Station {
    bytes: Vec<u8>,
    contexts: BTreeMap<Option<IpAddr>, UpdateContext>,
    /// Next hop and attributes.
    routes: BTreeMap<Place, (IpAddr, Vec<u8>)>,
    ended: BTreeSet<(View, Option<IpAddr>, usize)>,
    downs: Vec<String>,
    statistics: Vec<(Option<IpAddr>, Vec<Statistic>)>,
    initiations: usize,
    terminated: bool,
}

impl Station {
    /// Takes what is for it out of what the speaker put out.
    fn take(&mut self, id: StationId, out: &[Output]) {
        for output in out {
            if let Output::ToStation { station, bytes } = output
                && *station == id
            {
                self.bytes.extend(bytes);
                self.read(bytes);
            }
        }
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (message, rest) = Message::take(bytes).unwrap().expect("whole messages are sent");
            self.message(&message);
            bytes = rest;
        }
    }

    fn message(&mut self, message: &Message<'_>) {
        match message {
            Message::Initiation { .. } => self.initiations += 1,
            Message::Termination(_) => self.terminated = true,
            Message::PeerUp { peer, opens, .. } => {
                let opens = opens.map(|open| Open::parse(&open[19..]).unwrap());
                let both = |wanted: fn(&Capability) -> bool| {
                    opens.iter().all(|open| open.capabilities.iter().any(wanted))
                };
                // In these tests a peer that sends several paths does so in both families.
                let several = both(|capability| matches!(capability, Capability::AddPath(_)));
                let context =
                    UpdateContext { add_path: [several; 2], ..UpdateContext::usual(PeerKind::Ibgp) };
                assert!(self.contexts.insert(peer.address, context).is_none(), "up twice");
            }
            Message::PeerDown(peer, down) => {
                self.contexts.remove(&peer.address).expect("it was up");
                self.routes.retain(|(_, address, ..), _| *address != peer.address);
                self.ended.retain(|(_, address, _)| *address != peer.address);
                self.downs.push(match down {
                    Down::LocalNotification(bytes) => format!("we sent {}/{}", bytes[19], bytes[20]),
                    Down::RemoteNotification(bytes) => format!("it sent {}/{}", bytes[19], bytes[20]),
                    other => format!("{other:?}"),
                });
            }
            Message::RouteMonitoring(peer, update) => self.update(peer, update),
            Message::Statistics(peer, statistics) => self.statistics.push((peer.address, statistics.clone())),
        }
    }

    fn update(&mut self, peer: &PeerHeader, message: &[u8]) {
        let context = self.contexts.get(&peer.address).expect("its session stands");
        let update = Update::parse(&message[19..], context).expect("well-formed");
        assert_eq!((update.error, update.discarded), (None, 0));
        if let Some(family) = update.end_of_rib {
            self.ended.insert((peer.view, peer.address, family as usize));
        }
        let place = |prefix, path_id| (peer.view, peer.address, prefix, path_id);
        for nlri in update.withdrawn.into_iter().flatten() {
            self.routes.remove(&place(nlri.prefix, nlri.path_id));
        }
        // NEXT_HOP and MP_REACH_NLRI are told as the next hop.
        let others = update.attributes().filter(|raw| ![3, 14, 15].contains(&raw.code));
        let attributes: Vec<u8> = others.flat_map(|raw| [&[raw.code][..], raw.value].concat()).collect();
        for announced in update.announced.into_iter().flatten() {
            for nlri in announced.nlri {
                let told = (announced.nexthop, attributes.clone());
                self.routes.insert(place(nlri.prefix, nlri.path_id), told);
            }
        }
    }
}

/// What a station should know of these prefixes.
fn expected(bench: &Bench, actors: &[Actor], prefixes: &[Prefix]) -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    for prefix in prefixes {
        for path in bench.speaker.routes(*prefix) {
            if path.standing == Standing::Best {
                places.insert((View::LocRib, None, *prefix, 0));
            }
            let PathSource::Peer(id) = path.source else { continue };
            let actor = actors.iter().find(|actor| actor.id == id).unwrap();
            // What is kept of a session that is gone is nothing that its peer says now.
            if bench.state(*actor) != PeerState::Established || path.stale {
                continue;
            }
            let address = Some(IpAddr::V4(actor.address));
            places.insert((View::PrePolicy, address, *prefix, path.path_id));
            let takes_part =
                !matches!(path.standing, Standing::Ineligible(why) if why != Ineligible::Unreachable);
            if takes_part {
                places.insert((View::PostPolicy, address, *prefix, path.path_id));
            }
        }
    }
    places
}

fn places(station: &Station) -> BTreeSet<Place> {
    station.routes.keys().copied().collect()
}

fn attributes(actor: Actor, med: u8) -> Vec<u8> {
    let mut block = vec![0x40, 1, 1, 0, 0x40, 2];
    match actor.as_number {
        65000 => block.push(0),
        number => {
            block.extend([6, 2, 1]);
            block.extend(number.to_be_bytes());
        }
    }
    block.extend([0x40, 3, 4]);
    block.extend(actor.address.octets());
    block.extend([0x80, 4, 4, 0, 0, 0, med]);
    if actor.as_number == 65000 {
        block.extend([0x40, 5, 4, 0, 0, 0, 100]);
    }
    block
}

fn announce(bench: &mut Bench, actor: Actor, number: u8, med: u8) {
    bench.receive(actor, &update(&[], &attributes(actor, med), &[24, 10, 1, number]));
}

fn withdraw(bench: &mut Bench, actor: Actor, number: u8) {
    bench.receive(actor, &update(&[24, 10, 1, number], &[], &[]));
}

/// Rejects one network.
fn without(number: u8) -> Filter {
    let rule = FilterRule::exactly(prefix(&format!("10.1.{number}.0/24")), FilterAction::Reject);
    Filter { rules: vec![rule], ..Filter::accept_all() }
}

#[test]
fn a_station_that_comes_late_gets_who_is_there_then_the_table_then_its_end() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.establish(IBGP);
    for number in 0..5 {
        announce(&mut bench, EBGP, number, 1);
    }
    bench.give(Input::Originate(OriginatedRoute::new(prefix("10.9.0.0/16"))));
    bench.take();
    join(&mut bench, STATION);
    let mut station = Station::default();
    station.take(STATION, &bench.take());
    let prefixes: Vec<Prefix> =
        (0..5).map(|number| prefix(&format!("10.1.{number}.0/24"))).chain([prefix("10.9.0.0/16")]).collect();
    assert_eq!(places(&station), expected(&bench, &[EBGP, IBGP], &prefixes));
    assert_eq!(station.contexts.len(), 3, "two peers and ourselves");
    assert_eq!(station.ended.len(), 2 * (2 * 2 + 1), "of each family: two views of two peers, and our own");
    assert_eq!(station.initiations, 1);
    let ours = &station.routes[&(View::LocRib, None, prefix("10.9.0.0/16"), 0)];
    assert_eq!(ours.0, IpAddr::from([10, 0, 0, 1]), "our identifier");
    let theirs = &station.routes[&(View::PrePolicy, Some(EBGP.address.into()), prefixes[0], 0)];
    assert_eq!(theirs.0, IpAddr::V4(EBGP.address));
}

/// A peer is back before all that it said in its session before is looked at again, and says one of three things anew.
#[test]
fn what_is_left_of_a_session_is_not_told_as_said_in_the_next() {
    for keeps in [false, true] {
        let mut config = SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, 1), AsNumber(65000));
        // Four prefixes a call are gone over, and one of them changed.
        config.limits.work_per_call = 1;
        let mut bench = Bench::with(config);
        bench.establish(OBSERVER);
        let open = if keeps { EBGP.graceful_open(false, true) } else { EBGP.open() };
        bench.give(Input::PutPeer(Bench::config(EBGP)));
        bench.establish_with(EBGP, &open);
        (0..200).for_each(|number| announce(&mut bench, EBGP, number, 0));
        // Its next hop is known from here on.
        announce(&mut bench, OBSERVER, 250, 0);
        join(&mut bench, STATION);
        bench.take();
        let mut hello = Vec::new();
        open.emit(&mut hello);
        hello.extend(message(MessageType::Keepalive, &[]));
        let connection = ConnectionId(77);
        let local = (Ipv4Addr::new(10, 0, 0, 1), 179).into();
        let direction = Direction::Inbound;
        let again = update(&[], &attributes(EBGP, 0), &[24, 10, 1, 199]);
        let others = update(&[], &attributes(OBSERVER, 0), &[24, 10, 1, 198]);
        let mut out = Vec::new();
        for input in [
            Input::ConnectionClosed { connection: EBGP.connection() },
            Input::ConnectionOpened { peer: EBGP.id, connection, direction, local },
            Input::Received { connection, bytes: &hello },
            Input::Received { connection, bytes: &again },
            // A prefix is looked at of which something is left.
            Input::Received { connection: OBSERVER.connection(), bytes: &others },
        ] {
            bench.speaker.handle(input, bench.now, &mut out);
        }
        let left = bench.speaker.routes(prefix("10.1.198.0/24"));
        assert_eq!(left.len(), 2, "the pass hasn't come there");
        let mut station = Station::default();
        let is_up =
            |output: &Output| matches!(output, Output::PeerStateChanged { to: PeerState::Established, .. });
        let up = out.iter().position(is_up).expect("it is back");
        station.contexts.insert(Some(IpAddr::V4(OBSERVER.address)), UpdateContext::usual(PeerKind::Ebgp));
        station.contexts.insert(None, UpdateContext::usual(PeerKind::Ibgp));
        station.take(STATION, &out[up..]);
        let told = |station: &Station| -> Vec<Prefix> {
            let of_peer = station.routes.keys().filter(|(view, address, ..)| {
                *view == View::PrePolicy && *address == Some(IpAddr::V4(EBGP.address))
            });
            of_peer.map(|(_, _, prefix, _)| *prefix).collect()
        };
        assert_eq!(told(&station), [prefix("10.1.199.0/24")], "kept: {keeps}");
        bench.give(Input::Tick);
        station.take(STATION, &bench.out);
        assert_eq!(told(&station), [prefix("10.1.199.0/24")], "kept: {keeps}");
    }
}

#[test]
fn a_filter_that_changes_a_route_shows_between_the_views() {
    let mut bench = Bench::new();
    let local_pref = bgp::Operation::SetLocalPref(7);
    let rule = FilterRule { operations: vec![local_pref], ..FilterRule::any(FilterAction::Accept) };
    let import = Filter { rules: vec![rule], ..Filter::accept_all() };
    bench.give(Input::PutPeer(PeerConfig { import, ..Bench::config(EBGP) }));
    bench.establish_with(EBGP, &EBGP.open());
    join(&mut bench, STATION);
    announce(&mut bench, EBGP, 1, 1);
    let mut station = Station::default();
    station.take(STATION, &bench.take());
    let told = |view, peer: Option<IpAddr>| &station.routes[&(view, peer, prefix("10.1.1.0/24"), 0)].1;
    let address = Some(EBGP.address.into());
    let local_pref = [5, 0, 0, 0, 7];
    let has = |told: &[u8]| told.windows(5).any(|window| window == local_pref);
    assert!(!has(told(View::PrePolicy, address)));
    assert!(has(told(View::PostPolicy, address)) && has(told(View::LocRib, None)));
    // A rejected route is still what the peer said.
    bench.give(Input::PutPeer(PeerConfig { import: without(1), ..Bench::config(EBGP) }));
    station.take(STATION, &bench.take());
    assert_eq!(places(&station), [(View::PrePolicy, address, prefix("10.1.1.0/24"), 0)].into());
}

#[test]
fn the_end_of_a_session_is_told_with_its_cause() {
    let mut bench = Bench::new();
    let mut station = Station::default();
    join(&mut bench, STATION);
    bench.establish(EBGP);
    let notification = [&[0xff; 16][..], &[0, 21, 3, 6, 2]].concat();
    station.take(STATION, &bench.take());
    bench.receive(EBGP, &notification);
    bench.pass(Duration::from_secs(30));
    bench.establish_with(EBGP, &EBGP.open());
    bench.give(Input::ConnectionClosed { connection: EBGP.connection() });
    bench.pass(Duration::from_secs(30));
    bench.establish_with(EBGP, &EBGP.open());
    bench.give(Input::RemovePeer(EBGP.id));
    station.contexts.clear();
    station.bytes.clear();
    let mut anew = Station::default();
    // `establish` took what came first.
    anew.contexts.insert(Some(EBGP.address.into()), UpdateContext::usual(PeerKind::Ebgp));
    anew.take(STATION, &bench.take());
    assert_eq!(anew.downs, ["it sent 6/2", "RemoteLost", "we sent 6/3"]);
}

#[test]
fn counts_are_told_when_asked_for_and_the_end_when_we_end() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    announce(&mut bench, EBGP, 1, 1);
    join(&mut bench, STATION);
    bench.give(Input::TellStatistics);
    bench.give(Input::Shutdown { graceful: true });
    let mut station = Station::default();
    station.take(STATION, &bench.take());
    let [(peer, theirs), (nobody, ours)] = &station.statistics[..] else { panic!("two reports") };
    assert_eq!((*peer, *nobody), (Some(EBGP.address.into()), None));
    assert!(theirs.contains(&Statistic::AdjRibInOf(1, 1, 1)) && ours.contains(&Statistic::LocRibRoutes(1)));
    assert!(station.terminated);
}

#[test]
fn a_congested_station_is_told_the_table_when_it_has_room_and_others_do_not_wait() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    for number in 0..200 {
        announce(&mut bench, EBGP, number, 1);
    }
    bench.take();
    let mut speaker_only = Vec::new();
    let config = station(STATION);
    let time = Duration::ZERO;
    // Full before the first portion: given without the work that follows an input in `Bench::give`.
    bench.speaker.handle(Input::StationJoined { config, time }, bench.now, &mut speaker_only);
    bench.give(Input::StationCongested { station: STATION, congested: true });
    join(&mut bench, StationId(2));
    let out = [speaker_only, bench.take()].concat();
    let (mut slow, mut fast) = (Station::default(), Station::default());
    slow.take(STATION, &out);
    fast.take(StationId(2), &out);
    assert_eq!(fast.routes.len(), 600);
    bench.give(Input::StationCongested { station: STATION, congested: false });
    slow.take(STATION, &bench.take());
    assert_eq!(slow.routes, fast.routes);
}

#[test]
fn a_table_of_several_portions_is_told_whole() {
    let mut bench = Bench::new();
    let number = |number: u16| {
        let v4 = Prefix::new(Ipv4Addr::from(0x0a00_0000 | u32::from(number)).into(), 32);
        let v6 = Prefix::new(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number).into(), 128);
        [v4, v6].map(|prefix| prefix.expect("a prefix"))
    };
    let all: Vec<Prefix> = (0..1500).flat_map(number).collect();
    all.iter().for_each(|prefix| bench.give(Input::Originate(OriginatedRoute::new(*prefix))));
    // Every third of both families is gone when the station comes.
    let (gone, left): (Vec<_>, Vec<_>) = all.chunks(2).enumerate().partition(|(at, _)| at % 3 == 0);
    gone.iter().flat_map(|(_, both)| *both).for_each(|prefix| bench.give(Input::Withdraw(*prefix)));
    join(&mut bench, STATION);
    let mut station = Station::default();
    station.take(STATION, &bench.take());
    let expected: BTreeSet<Place> =
        left.iter().flat_map(|(_, both)| *both).map(|prefix| (View::LocRib, None, *prefix, 0)).collect();
    assert_eq!((places(&station).len(), places(&station) == expected), (2000, true));
}

/// Those that are gone are forgotten at rest, and others get their places.
#[test]
fn prefixes_in_the_place_of_others_are_told_as_themselves() {
    let mut bench = Bench::new();
    let table = |network: u8| {
        (0..1500u16).map(move |number| {
            let [high, low] = number.to_be_bytes();
            Prefix::new([network, high, low, 0].into(), 24).expect("a prefix")
        })
    };
    let mut station = Station::default();
    for (network, joins, leaves) in
        [(10, true, false), (11, false, true), (12, true, false), (13, false, false)]
    {
        if joins {
            join(&mut bench, STATION);
            station = Station::default();
        }
        table(network).for_each(|prefix| bench.give(Input::Originate(OriginatedRoute::new(prefix))));
        station.take(STATION, &bench.take());
        let expected: BTreeSet<Place> =
            table(network).map(|prefix| (View::LocRib, None, prefix, 0)).collect();
        assert_eq!((places(&station).len(), places(&station) == expected), (1500, true), "{network}");
        if leaves {
            bench.give(Input::StationLeft(STATION));
            assert!(!bench.speaker.has_work(), "what it was told is forgotten");
        }
        table(network).for_each(|prefix| bench.give(Input::Withdraw(prefix)));
        bench.speaker.rest();
    }
}

#[test]
fn paths_are_told_apart_where_the_peer_sends_several() {
    use bgp::wire::capability::AddPathMode;
    use bgp::wire::nlri::AfiSafi;
    let mut bench = Bench::new();
    bench.give(Input::PutPeer(PeerConfig { add_path: true, ..Bench::config(EBGP) }));
    let mut open = EBGP.open();
    let mode = AddPathMode { receive: false, send: true };
    let families = Family::ALL.map(|family| (AfiSafi::unicast(family), mode)).to_vec();
    open.capabilities.push(Capability::AddPath(families));
    bench.establish_with(EBGP, &open);
    join(&mut bench, STATION);
    for (id, med) in [(1, 5), (2, 6)] {
        let nlri = [0, 0, 0, id, 24, 10, 1, 1];
        bench.receive(EBGP, &update(&[], &attributes(EBGP, med), &nlri));
    }
    bench.receive(EBGP, &update(&[0, 0, 0, 1, 24, 10, 1, 1], &[], &[]));
    let mut station = Station::default();
    station.take(STATION, &bench.take());
    assert_eq!(places(&station), expected(&bench, &[EBGP], &[prefix("10.1.1.0/24")]));
    assert!(places(&station).iter().any(|(view, _, _, id)| (*view, *id) == (View::PrePolicy, 2)));
}

#[derive(Clone, Debug)]
enum Act {
    Announce(usize, u8, u8),
    Withdraw(usize, u8),
    Lose(usize),
    Reject(usize, u8),
    Join(u32),
    Leave(u32),
    Congest(u32, bool),
    Wait,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0_usize..3, 0_u8..6, 0_u8..3).prop_map(|(who, what, med)| Act::Announce(who, what, med)),
        3 => (0_usize..3, 0_u8..6).prop_map(|(who, what)| Act::Withdraw(who, what)),
        1 => (0_usize..3).prop_map(Act::Lose),
        1 => (0_usize..3, 0_u8..6).prop_map(|(who, what)| Act::Reject(who, what)),
        1 => (1_u32..4).prop_map(Act::Join),
        1 => (1_u32..4).prop_map(Act::Leave),
        1 => (1_u32..4, any::<bool>()).prop_map(|(who, full)| Act::Congest(who, full)),
        1 => Just(Act::Wait),
    ]
}

proptest! {
    /// Whatever happens, and whenever a station comes: it knows what the speaker holds.
    #[test]
    fn stations_know_what_the_speaker_holds(acts in prop::collection::vec(act(), 1..80)) {
        let actors = [EBGP, IBGP, OBSERVER];
        let mut bench = Bench::new();
        for actor in actors {
            bench.give(Input::PutPeer(Bench::config(actor)));
            bench.establish_with(actor, &actor.graceful_open(false, true));
        }
        bench.take();
        let mut stations: BTreeMap<u32, Station> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Announce(who, what, med) => {
                    announce(&mut bench, actors[who], what, med);
                }
                Act::Withdraw(who, what) => withdraw(&mut bench, actors[who], what),
                Act::Lose(who) => {
                    let actor = actors[who];
                    if bench.state(actor) == PeerState::Established {
                        bench.give(Input::ConnectionClosed { connection: actor.connection() });
                    } else {
                        bench.establish_with(actor, &actor.graceful_open(true, true));
                    }
                }
                Act::Reject(who, what) => {
                    let config = PeerConfig { import: without(what), ..Bench::config(actors[who]) };
                    bench.give(Input::PutPeer(config));
                }
                Act::Join(id) => {
                    if let Entry::Vacant(place) = stations.entry(id) {
                        place.insert(Station::default());
                        join(&mut bench, StationId(id));
                    }
                }
                Act::Leave(id) => {
                    stations.remove(&id);
                    bench.give(Input::StationLeft(StationId(id)));
                }
                Act::Congest(id, congested) => {
                    bench.give(Input::StationCongested { station: StationId(id), congested });
                }
                Act::Wait => bench.pass(Duration::from_secs(7)),
            }
            let out = bench.take();
            stations.iter_mut().for_each(|(id, station)| station.take(StationId(*id), &out));
        }
        for id in 1..4 {
            bench.give(Input::StationCongested { station: StationId(id), congested: false });
        }
        let out = bench.take();
        let prefixes: Vec<Prefix> = (0..6).map(|number| prefix(&format!("10.1.{number}.0/24"))).collect();
        let expected = expected(&bench, &actors, &prefixes);
        for (id, mut station) in stations {
            station.take(StationId(id), &out);
            prop_assert_eq!(places(&station), expected.clone(), "station {}", id);
            for ((view, peer, prefix, _), (nexthop, told)) in &station.routes {
                let best = bench.speaker.routes(*prefix);
                let of = |source| actors.iter().any(|actor| {
                    PathSource::Peer(actor.id) == source && Some(IpAddr::V4(actor.address)) == *peer
                });
                let path = best.iter().find(|path| match view {
                    View::LocRib => path.standing == Standing::Best,
                    _ => of(path.source),
                }).unwrap();
                let held: Vec<u8> =
                    path.attributes.iter().flat_map(|raw| [&[raw.code][..], raw.value].concat()).collect();
                prop_assert_eq!((Some(*nexthop), told), (path.attributes.nexthop(), &held));
            }
        }
    }
}

/// A stream with every type of message.
fn eventful() -> Vec<u8> {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    for number in 0..50 {
        announce(&mut bench, EBGP, number, number);
    }
    bench.give(Input::Originate(OriginatedRoute::new(prefix("2001:db8:1::/48"))));
    bench.take();
    join(&mut bench, STATION);
    bench.give(Input::PutPeer(Bench::config(IBGP)));
    bench.establish_with(IBGP, &IBGP.open());
    announce(&mut bench, IBGP, 7, 1);
    withdraw(&mut bench, EBGP, 3);
    bench.give(Input::TellStatistics);
    bench.give(Input::ConnectionClosed { connection: EBGP.connection() });
    bench.give(Input::RemovePeer(IBGP.id));
    bench.give(Input::Shutdown { graceful: false });
    let mut station = Station::default();
    station.take(STATION, &bench.take());
    station.bytes
}

#[test]
fn every_seed_of_the_corpus_is_read_without_contradiction() {
    for folder in ["corpus/bmp", "regressions/bmp"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder);
        for seed in std::fs::read_dir(&folder).expect("the folder can be read") {
            bmp_stream::run(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}

proptest! {
    #[test]
    fn a_stream_with_a_wrong_octet_is_read_without_panic(at in 0_usize..4000, octet: u8) {
        let mut bytes = eventful();
        if let Some(there) = bytes.get_mut(at) {
            *there = octet;
        }
        bmp_stream::run(&bytes);
    }
}

/// Wireshark reads the same bytes.
#[test]
fn tshark_finds_nothing_malformed() {
    use std::process::Command;
    if !Command::new("tshark").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: tshark is not installed");
        return;
    }
    let bytes = eventful();
    // Debian 12's tshark takes what stands behind the OPENs of a Peer Up for more of BGP: the table's name (RFC 9069 §4.4).
    let (mut stream, mut sent) = (Vec::new(), 0);
    let mut rest = &bytes[..];
    while let Ok(Some((message, after))) = Message::take(rest) {
        match message {
            Message::PeerUp { peer, local, ports, opens, .. } => {
                Message::PeerUp { peer, local, ports, opens, table: None }.emit(&mut stream);
            }
            other => other.emit(&mut stream),
        }
        (rest, sent) = (after, sent + 1);
    }
    assert!(rest.is_empty());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bmp.pcap");
    std::fs::write(&file, pcap(&stream)).unwrap();
    let read = |arguments: &[&str]| {
        let mut command = Command::new("tshark");
        let output =
            command.arg("-r").arg(&file).args(["-d", "tcp.port==11019,bmp"]).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(read(&["-Y", "_ws.malformed || _ws.expert.severity >= 6291456"]), "");
    let kinds = read(&["-T", "fields", "-e", "bmp.type"]);
    let seen: BTreeSet<&str> = kinds.split([',', '\n']).filter(|kind| !kind.is_empty()).collect();
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5"].into(), "every type is there");
    let found = kinds.split([',', '\n']).filter(|kind| !kind.is_empty()).count();
    assert_eq!(found, sent, "it finds as many messages as were sent");
    let prefixes = read(&["-T", "fields", "-e", "bgp.nlri_prefix"]);
    assert!(prefixes.contains("10.1.7.0"), "{prefixes}");
}

/// A capture of one TCP stream from 10.0.0.1 to 10.0.0.9's port 11019: Ethernet, IPv4, segments of 1000 octets.
fn pcap(stream: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2_u16, 4].map(u16::to_le_bytes).concat());
    file.extend([0_u32, 0, 65535, 1].map(u32::to_le_bytes).concat());
    for (at, chunk) in stream.chunks(1000).enumerate() {
        let mut frame = [&[2; 6][..], &[4; 6], &[8, 0]].concat();
        let total = (40 + chunk.len()) as u16;
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9]);
        frame.extend([40000_u16, 11019].map(u16::to_be_bytes).concat());
        frame.extend((1 + at as u32 * 1000).to_be_bytes());
        frame.extend([0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(chunk);
        file.extend(
            [1_u32, at as u32, frame.len() as u32, frame.len() as u32].map(u32::to_le_bytes).concat(),
        );
        file.extend(frame);
    }
    file
}
