//! Ten thousand neighbours of one speaker, and a clock that every call moves on by what it did: no table that is loaded
//! makes a keepalive late.

mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::wire::capability::Capability;
use bgp::wire::nlri::AfiSafi;
use bgp::wire::open::Open;
use bgp::{ConnectionId, Direction, Input, Output, PeerConfig, PeerId, PeerState, Speaker, SpeakerConfig};
use model::{AsNumber, Family};
use support::{message, unhex, update};

const NEIGHBOURS: u32 = 10_000;
const KEEPALIVE: Duration = Duration::from_secs(3);
/// What a keepalive may be late by.
const LATE: Duration = Duration::from_millis(100);
/// What work takes, rounded up from what was measured: a prefix that is taken in or decided, and a message that is sent.
const PREFIX_TAKES: Duration = Duration::from_micros(1);
const MESSAGE_TAKES: Duration = Duration::from_micros(2);

struct Clocked {
    speaker: Speaker,
    now: Instant,
    /// When each neighbour last heard from us that we live.
    heard: BTreeMap<ConnectionId, Instant>,
    longest: Duration,
    octets: usize,
    longest_call: Duration,
    /// Prefixes that each was told of, and the most that all were told of by one call.
    prefixes: BTreeMap<ConnectionId, usize>,
    most_prefixes: usize,
}

/// How many routes of IPv4, each a /24, the UPDATEs among these octets announce.
fn announced(bytes: &[u8]) -> usize {
    let updates = support::messages(bytes).into_iter().filter(|(kind, _)| *kind == 2);
    let of = |body: &[u8]| {
        let field = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        let attributes = 2 + field(0);
        (body.len() - attributes - 2 - field(attributes)) / 4
    };
    updates.map(|(_, body)| of(&body)).sum()
}

fn address(neighbour: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a01_0000 + neighbour)
}

impl Clocked {
    fn give(&mut self, input: Input<'_>, prefixes: u32) {
        let mut out = Vec::new();
        self.speaker.handle(input, self.now, &mut out);
        let mut took = PREFIX_TAKES * prefixes;
        let (mut asked, mut told) = (Vec::new(), 0);
        for output in out {
            match output {
                Output::Send { connection, bytes } => {
                    took += MESSAGE_TAKES;
                    self.octets += bytes.len();
                    let prefixes = announced(&bytes);
                    *self.prefixes.entry(connection).or_default() += prefixes;
                    told += prefixes;
                    if support::messages(&bytes).iter().any(|(kind, _)| *kind == 4) {
                        let before = self.heard.insert(connection, self.now);
                        let silent = before.map_or(Duration::ZERO, |before| self.now - before);
                        self.longest = self.longest.max(silent);
                    }
                }
                Output::RouteChanged { .. } => took += PREFIX_TAKES,
                Output::WatchNexthop(nexthop) => asked.push(nexthop),
                _ => {}
            }
        }
        self.most_prefixes = self.most_prefixes.max(told);
        self.longest_call = self.longest_call.max(took);
        self.now += took;
        for nexthop in asked {
            self.give(Input::NexthopChanged { nexthop, metric: Some(0) }, 0);
        }
    }

    /// Comes back whenever the speaker asks to, until this time.
    fn pass_until(&mut self, end: Instant) {
        while let Some(deadline) = self.speaker.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            if self.now > end {
                return;
            }
            self.give(Input::Tick, 0);
        }
        self.now = self.now.max(end);
    }

    fn new(mut config: SpeakerConfig) -> Clocked {
        config.limits.max_peers = NEIGHBOURS as usize;
        Clocked {
            speaker: Speaker::new(config),
            now: Instant::now(),
            heard: BTreeMap::new(),
            longest: Duration::ZERO,
            octets: 0,
            longest_call: Duration::ZERO,
            prefixes: BTreeMap::new(),
            most_prefixes: 0,
        }
    }

    fn up(&mut self, neighbour: u32) {
        let as_number = 65_001 + neighbour % 100;
        let mut config = PeerConfig::new(PeerId(neighbour), address(neighbour).into(), AsNumber(as_number));
        (config.passive, config.policy_required, config.hold_time) = (true, false, 3 * KEEPALIVE);
        self.give(Input::PutPeer(config), 0);
        let connection = ConnectionId(u64::from(neighbour));
        self.give(
            Input::ConnectionOpened {
                peer: PeerId(neighbour),
                connection,
                direction: Direction::Inbound,
                local: SocketAddr::from(([10, 0, 0, 1], 179)),
            },
            0,
        );
        let open = Open {
            my_as: as_number as u16,
            // Ours counts; theirs are not what is tested.
            hold_time: 9,
            router_id: address(neighbour),
            capabilities: vec![
                Capability::MultiProtocol(AfiSafi::unicast(Family::V4)),
                Capability::FourOctetAs(as_number),
            ],
        };
        let mut bytes = Vec::new();
        open.emit(&mut bytes);
        bytes.extend(message(bgp::wire::MessageType::Keepalive, &[]));
        self.give(Input::Received { connection, bytes: &bytes }, 0);
    }
}

#[test]
fn keepalives_to_ten_thousand_neighbours_are_in_time_while_a_table_is_loaded_and_taken_back() {
    let mut clocked = Clocked::new(SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, 1), AsNumber(65000)));
    (0..NEIGHBOURS).for_each(|neighbour| clocked.up(neighbour));
    let alive = message(bgp::wire::MessageType::Keepalive, &[]);
    let attributes = unhex("400101004002060201 0000fde9 400304 0a010000".replace(' ', "").as_str());
    let routes = |second: u32| {
        let mut field = Vec::new();
        (0..250u32).for_each(|number| field.extend([24, 20, (second & 0xff) as u8, number as u8]));
        field
    };
    // A second of announcements, then one of withdrawals, as one read each; meanwhile the neighbours say that they live.
    for second in 0..8u32 {
        let bytes = match second < 4 {
            true => update(&[], &attributes, &routes(second)),
            false => update(&routes(second - 4), &[], &[]),
        };
        clocked.give(Input::Received { connection: ConnectionId(0), bytes: &bytes }, 250);
        let end = clocked.now + Duration::from_secs(1);
        for neighbour in 0..NEIGHBOURS {
            let connection = ConnectionId(u64::from(neighbour));
            clocked.give(Input::Received { connection, bytes: &alive }, 0);
        }
        clocked.pass_until(end);
    }
    let up = clocked.speaker.peers(clocked.now).filter(|peer| peer.state == PeerState::Established);
    assert_eq!(up.count() as u32, NEIGHBOURS);
    assert_eq!(clocked.speaker.route_count(Family::V4), 0);
    assert!(
        clocked.octets > 2 * 1000 * 4 * (NEIGHBOURS as usize - 1),
        "everybody was told: {}",
        clocked.octets
    );
    assert!(
        clocked.longest <= KEEPALIVE + LATE,
        "{:?} without a keepalive; the longest call took {:?}",
        clocked.longest,
        clocked.longest_call
    );
    assert!(clocked.longest_call <= LATE, "a call took {:?}", clocked.longest_call);
}

/// A thousand who were full take something again: each is owed the whole table, and no call tells all of them.
#[test]
fn those_who_wait_for_a_table_take_turns() {
    const WAITING: u32 = 1000;
    const PREFIXES: u32 = 1500;
    /// Prefixes that a call looks at: a tenth of those who wait would be looked at for nothing less.
    const WORK: usize = 640;
    let mut config = SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, 1), AsNumber(65000));
    config.limits.work_per_call = WORK;
    let mut clocked = Clocked::new(config);
    (0..=WAITING).for_each(|neighbour| clocked.up(neighbour));
    let full = |clocked: &mut Clocked, neighbour: u32, congested| {
        clocked.give(Input::Congested { connection: ConnectionId(neighbour.into()), congested }, 0);
    };
    (1..=WAITING).for_each(|neighbour| full(&mut clocked, neighbour, true));
    let attributes = unhex("400101004002060201 0000fde9 400304 0a010000".replace(' ', "").as_str());
    for block in 0..PREFIXES / 250 {
        let mut field = Vec::new();
        (0..250u32).for_each(|number| field.extend([24, 20, block as u8, number as u8]));
        clocked.give(
            Input::Received { connection: ConnectionId(0), bytes: &update(&[], &attributes, &field) },
            250,
        );
    }
    clocked.pass_until(clocked.now + Duration::from_millis(100));
    assert_eq!(clocked.most_prefixes, 0, "nobody takes anything");
    (1..=WAITING).for_each(|neighbour| full(&mut clocked, neighbour, false));
    clocked.pass_until(clocked.now + Duration::from_secs(1));
    assert!(clocked.most_prefixes <= WORK, "a call told of {} prefixes", clocked.most_prefixes);
    for neighbour in 1..=WAITING {
        let told = clocked.prefixes.get(&ConnectionId(neighbour.into()));
        assert_eq!(told, Some(&(PREFIXES as usize)), "neighbour {neighbour}");
    }
}
