//! Speakers wired together, with a clock that only the test moves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::{
    BestPaths, ConnectionId, Direction, Input, Output, PeerConfig, PeerId, PeerState, Speaker, SpeakerConfig,
};
use model::Prefix;

/// What is on its way to a node.
enum Arrival {
    Opened { peer: PeerId, connection: ConnectionId, direction: Direction },
    Failed { peer: PeerId },
    Closed { connection: ConnectionId },
    Bytes { connection: ConnectionId, bytes: Vec<u8> },
    Nexthop(IpAddr),
}

/// A speaker and what it told the world around it.
pub struct Node {
    pub speaker: Speaker,
    pub address: IpAddr,
    /// Routes as `RouteChanged` left them.
    pub fib: BTreeMap<Prefix, BestPaths>,
    /// Everything it put out, in order.
    pub out: Vec<Output>,
    /// Nobody answers here; bytes to it vanish.
    pub silent: bool,
    /// Connections to it are refused.
    pub down: bool,
    watched: BTreeSet<IpAddr>,
}

/// Nodes, connections and a clock.
pub struct Network {
    pub nodes: Vec<Node>,
    pub now: Instant,
    start: Instant,
    /// The two ends of each connection: node and its number there.
    wires: BTreeMap<(usize, ConnectionId), (usize, ConnectionId)>,
    arrivals: VecDeque<(usize, Arrival)>,
    next_connection: u64,
    /// Next hops that cannot be reached, by node.
    pub unreachable: BTreeSet<(usize, IpAddr)>,
    /// Where the bytes of one `Send` are cut; 0 is nowhere.
    pub cut_every: usize,
}

impl Network {
    pub fn new() -> Network {
        let now = Instant::now();
        Network {
            nodes: Vec::new(),
            now,
            start: now,
            wires: BTreeMap::new(),
            arrivals: VecDeque::new(),
            next_connection: 1,
            unreachable: BTreeSet::new(),
            cut_every: 0,
        }
    }

    /// Seconds since the network began.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Adds a node; its number is also its peer number everywhere.
    pub fn add(&mut self, address: &str, config: SpeakerConfig) -> usize {
        self.nodes.push(Node {
            speaker: Speaker::new(config),
            address: address.parse().expect("an address"),
            fib: BTreeMap::new(),
            out: Vec::new(),
            silent: false,
            down: false,
            watched: BTreeSet::new(),
        });
        self.nodes.len() - 1
    }

    /// A peer's configuration towards another node.
    pub fn config(&self, to: usize, as_number: u32) -> PeerConfig {
        let config = PeerConfig::new(PeerId(to as u32), self.nodes[to].address, model::AsNumber(as_number));
        PeerConfig { policy_required: false, ..config }
    }

    /// Puts a new process in a node's place: connections break without a word, routes stay in its table.
    pub fn replace(&mut self, node: usize, config: SpeakerConfig) {
        self.kill(node);
        self.nodes[node].speaker = Speaker::new(config);
        self.nodes[node].down = false;
    }

    /// A node's process dies.
    pub fn kill(&mut self, node: usize) {
        let ends: Vec<_> = self
            .wires
            .range((node, ConnectionId(0))..(node + 1, ConnectionId(0)))
            .map(|(&end, _)| end)
            .collect();
        for end in ends {
            self.close(end);
        }
        self.nodes[node].down = true;
        self.nodes[node].watched.clear();
        self.arrivals.retain(|&(to, _)| to != node);
    }

    fn close(&mut self, end: (usize, ConnectionId)) {
        if let Some((node, connection)) = self.wires.remove(&end) {
            self.wires.remove(&(node, connection));
            if self.nodes[node].silent || self.nodes[end.0].silent {
                return;
            }
            self.arrivals.push_back((node, Arrival::Closed { connection }));
        }
    }

    pub fn give(&mut self, node: usize, input: Input<'_>) {
        let mut out = Vec::new();
        self.nodes[node].speaker.handle(input, self.now, &mut out);
        for output in out {
            self.follow(node, &output);
            self.nodes[node].out.push(output);
        }
    }

    /// Does what a node asks for.
    fn follow(&mut self, node: usize, output: &Output) {
        match output {
            Output::Connect { peer, remote, .. } => {
                let other = self.nodes.iter().position(|other| other.address == remote.ip() && !other.down);
                match other {
                    Some(other) if !self.nodes[other].silent && !self.nodes[node].silent => {
                        self.open(node, other, *peer);
                    }
                    _ => self.arrivals.push_back((node, Arrival::Failed { peer: *peer })),
                }
            }
            Output::Send { connection, bytes } => {
                let Some(&(other, connection)) = self.wires.get(&(node, *connection)) else { return };
                if self.nodes[node].silent || self.nodes[other].silent {
                    return;
                }
                let size = if self.cut_every == 0 { bytes.len() } else { self.cut_every };
                for piece in bytes.chunks(size.max(1)) {
                    self.arrivals.push_back((other, Arrival::Bytes { connection, bytes: piece.to_vec() }));
                }
            }
            Output::Close { connection } => self.close((node, *connection)),
            Output::WatchNexthop(nexthop) => {
                assert!(self.nodes[node].watched.insert(*nexthop), "{nexthop} is watched twice");
                self.arrivals.push_back((node, Arrival::Nexthop(*nexthop)));
            }
            Output::UnwatchNexthop(nexthop) => {
                assert!(self.nodes[node].watched.remove(nexthop), "{nexthop} was not watched");
            }
            Output::RouteChanged { prefix, paths } => {
                let fib = &mut self.nodes[node].fib;
                if paths.is_empty() {
                    assert!(fib.remove(prefix).is_some(), "{prefix} was not in the table");
                } else {
                    fib.insert(*prefix, paths.clone());
                }
            }
            Output::PeerStateChanged { .. }
            | Output::PrefixLimit { .. }
            | Output::ToStation { .. }
            | Output::RestartComplete => {}
        }
    }

    fn open(&mut self, from: usize, to: usize, peer: PeerId) {
        let ends = [from, to].map(|node| {
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            (node, connection)
        });
        self.wires.insert(ends[0], ends[1]);
        self.wires.insert(ends[1], ends[0]);
        let back = PeerId(from as u32);
        for ((node, connection), peer, direction) in
            [(ends[0], peer, Direction::Outbound), (ends[1], back, Direction::Inbound)]
        {
            self.arrivals.push_back((node, Arrival::Opened { peer, connection, direction }));
        }
    }

    fn deliver(&mut self, node: usize, arrival: Arrival) {
        if self.nodes[node].down {
            return;
        }
        match arrival {
            Arrival::Opened { peer, connection, direction } => {
                let local = SocketAddr::new(self.nodes[node].address, 179);
                self.give(node, Input::ConnectionOpened { peer, connection, direction, local });
            }
            Arrival::Failed { peer } => self.give(node, Input::ConnectFailed { peer }),
            Arrival::Closed { connection } => self.give(node, Input::ConnectionClosed { connection }),
            Arrival::Bytes { connection, bytes } => {
                self.give(node, Input::Received { connection, bytes: &bytes });
            }
            Arrival::Nexthop(nexthop) => {
                let metric = (!self.unreachable.contains(&(node, nexthop))).then_some(0);
                self.give(node, Input::NexthopChanged { nexthop, metric });
            }
        }
    }

    /// Lets time pass: what arrives is delivered at once, in order; then the earliest deadline comes.
    pub fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            while let Some((node, arrival)) = self.arrivals.pop_front() {
                self.deliver(node, arrival);
            }
            let deadline = |node: &Node| node.speaker.next_deadline().filter(|_| !node.down);
            let Some(next) = self.nodes.iter().filter_map(deadline).min().filter(|&next| next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            // What several do at one moment crosses on the way.
            for node in 0..self.nodes.len() {
                if deadline(&self.nodes[node]).is_some_and(|deadline| deadline <= self.now) {
                    self.give(node, Input::Tick);
                }
            }
        }
        self.now = end;
    }

    pub fn state(&self, node: usize, peer: usize) -> PeerState {
        self.status(node, peer).state
    }

    pub fn status(&self, node: usize, peer: usize) -> bgp::PeerStatus {
        let id = PeerId(peer as u32);
        self.nodes[node]
            .speaker
            .peers(self.now)
            .find(|status| status.id == id)
            .expect("the peer is configured")
    }

    /// Next hops of a prefix in a node's table.
    pub fn nexthops(&self, node: usize, prefix: &str) -> Vec<String> {
        let prefix: Prefix = prefix.parse().expect("a prefix");
        let paths = self.nodes[node].fib.get(&prefix);
        paths.map(|paths| paths.iter().map(|path| path.nexthop.to_string()).collect()).unwrap_or_default()
    }
}
