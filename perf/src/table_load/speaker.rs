//! Our speaker alone, in memory: bytes of one peer in, bytes for another out. No sockets, no routing table behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bgp::{ConnectionId, Direction, Input, Output, PeerConfig, PeerId, Speaker, SpeakerConfig};
use model::AsNumber;
use perf::measure;

use super::feed::Feed;
use super::stream::{Said, read};
use super::{FEEDER_AS, ROUTER, ROUTER_AS, SINK, SINK_AS, hello};

/// As much as one read of a socket gives.
const CHUNK: usize = 64 << 10;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Processor time until the last prefix had been passed on.
    pub load: Duration,
    /// Then until the last had been taken back.
    pub withdraw: Duration,
    /// Bytes that this process had grown by when all were passed on.
    pub grown: u64,
}

/// Loads a table into a fresh speaker and takes it back.
///
/// # Errors
/// Where it doesn't pass everything on.
pub fn run(feeds: &[(Ipv4Addr, Feed)]) -> Result<Taken> {
    let now = Instant::now();
    let mut bench = Bench {
        speaker: Speaker::new(SpeakerConfig::new(ROUTER, AsNumber(ROUTER_AS))),
        now,
        out: Vec::new(),
        sent: Vec::new(),
    };
    let before = resident_bytes()?;
    // The receiver is the first; senders are told what others send, too.
    let feeders = feeds.iter().map(|(address, _)| (*address, FEEDER_AS));
    for (id, (address, peer_as)) in (1..).zip(std::iter::once((SINK, SINK_AS)).chain(feeders)) {
        let mut config = PeerConfig::new(PeerId(id), IpAddr::V4(address), AsNumber(peer_as));
        (config.passive, config.policy_required) = (true, false);
        bench.give(Input::PutPeer(config));
        let connection = ConnectionId(u64::from(id));
        bench.give(Input::ConnectionOpened {
            peer: PeerId(id),
            connection,
            direction: Direction::Inbound,
            local: SocketAddr::from((ROUTER, 179)),
        });
        // Nobody keeps it alive: the clock doesn't go on for long.
        let hello = hello(address, peer_as, 0);
        bench.give(Input::Received { connection, bytes: &hello });
    }
    bench.sent.clear();
    let prefixes = feeds.iter().map(|(_, feed)| feed.origins.len()).sum();
    let (announced, load) = bench.pass(feeds.iter().map(|(_, feed)| &feed.announcement[..]));
    ensure!(announced == (prefixes, 0), "{announced:?} of {prefixes} were passed on");
    let grown = resident_bytes()?.saturating_sub(before);
    let (withdrawn, withdraw) = bench.pass(feeds.iter().map(|(_, feed)| &feed.withdrawal[..]));
    ensure!(withdrawn == (0, prefixes), "{withdrawn:?} of {prefixes} were taken back");
    Ok(Taken { load, withdraw, grown })
}

struct Bench {
    speaker: Speaker,
    now: Instant,
    out: Vec<Output>,
    sent: Vec<Vec<u8>>,
}

impl Bench {
    fn give(&mut self, input: Input<'_>) {
        self.speaker.handle(input, self.now, &mut self.out);
        let mut asked = Vec::new();
        for output in self.out.drain(..) {
            match output {
                Output::Send { connection: ConnectionId(1), bytes } => self.sent.push(bytes),
                Output::WatchNexthop(nexthop) => asked.push(nexthop),
                _ => {}
            }
        }
        for nexthop in asked {
            self.speaker.handle(Input::NexthopChanged { nexthop, metric: Some(0) }, self.now, &mut self.out);
        }
    }

    /// Gives time until no work is left.
    fn work(&mut self) {
        while self.speaker.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            self.give(Input::Tick);
        }
    }

    /// Gives each sender's stream, by turns, then time until no work is left; counts what was announced and withdrawn.
    fn pass<'a>(&mut self, streams: impl Iterator<Item = &'a [u8]>) -> ((usize, usize), Duration) {
        let before = measure::on_core();
        let mut streams: Vec<_> = (2..).zip(streams.map(|stream| stream.chunks(CHUNK))).collect();
        while !streams.is_empty() {
            streams.retain_mut(|(connection, chunks)| {
                let chunk = chunks.next();
                if let Some(bytes) = chunk {
                    self.give(Input::Received { connection: ConnectionId(*connection), bytes });
                }
                chunk.is_some()
            });
        }
        self.work();
        self.speaker.rest();
        self.work();
        let taken = measure::on_core() - before;
        let (mut announced, mut withdrawn) = (0, 0);
        for mut bytes in self.sent.drain(..) {
            read(&mut bytes, |said| match said {
                Said::Announced { .. } => announced += 1,
                Said::Withdrawn(_) => withdrawn += 1,
                _ => {}
            });
        }
        ((announced, withdrawn), taken)
    }
}

fn resident_bytes() -> Result<u64> {
    lab::process::Identity::own()?.resident_bytes()
}
