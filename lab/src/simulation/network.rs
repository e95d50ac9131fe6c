//! Speakers wired together in virtual time: nothing waits, and the same seed gives the same history.
//!
//! What is said on a connection arrives in order after the link's delay. What several nodes do at one moment crosses on the
//! way. A node forwards by what its speaker told it last, and goes on doing so while its process is gone, as the kernel's
//! mirror does (D1).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::{ConnectionId, Direction, Input, Output, PeerConfig, PeerId, Speaker, SpeakerConfig};
use model::Prefix;

use crate::numbers::Numbers;

/// Which node.
pub type NodeId = usize;

/// A router: its speaker and its forwarding table.
pub struct Node {
    /// Its name, for people.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// What is reached at the node itself.
    pub own: Vec<Prefix>,
    pub speaker: Speaker,
    /// Next hops by prefix, as `RouteChanged` left them.
    pub fib: BTreeMap<Prefix, Vec<IpAddr>>,
    /// Prefixes that a process before this one left in the table and this one hasn't named yet.
    left_over: BTreeSet<Prefix>,
    /// Its process is gone.
    pub down: bool,
    connections: BTreeSet<ConnectionId>,
    /// When the agenda has it next.
    scheduled: Option<Instant>,
}

enum Event {
    Opened { peer: PeerId, connection: ConnectionId, direction: Direction },
    Failed { peer: PeerId },
    Closed { connection: ConnectionId },
    Bytes { connection: ConnectionId, bytes: Vec<u8> },
    Nexthop(IpAddr),
    Deadline,
}

struct Due {
    at: Instant,
    order: u64,
    node: NodeId,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What has passed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// BGP messages.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// Changes of forwarding tables.
    pub changes: u64,
}

/// Nodes, connections, and a clock.
pub struct Network {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// What has passed so far.
    pub passed: Passed,
    start: Instant,
    now: Instant,
    /// The other end of each connection.
    wires: HashMap<ConnectionId, (NodeId, ConnectionId)>,
    agenda: BinaryHeap<Reverse<Due>>,
    order: u64,
    next_connection: u64,
    by_address: HashMap<IpAddr, NodeId>,
    /// Pairs of nodes whose link is cut, the lower one first.
    cut: BTreeSet<(NodeId, NodeId)>,
    seed: u64,
}

impl Network {
    /// An empty network.
    pub fn new(seed: u64) -> Network {
        let start = Instant::now();
        Network {
            nodes: Vec::new(),
            passed: Passed::default(),
            start,
            now: start,
            wires: HashMap::new(),
            agenda: BinaryHeap::new(),
            order: 0,
            next_connection: 1,
            by_address: HashMap::new(),
            cut: BTreeSet::new(),
            seed,
        }
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Adds a node.
    pub fn add(&mut self, name: String, address: IpAddr, own: Vec<Prefix>, config: SpeakerConfig) -> NodeId {
        let id = self.nodes.len();
        self.by_address.insert(address, id);
        self.nodes.push(Node {
            name,
            address,
            own,
            speaker: Speaker::new(config),
            fib: BTreeMap::new(),
            left_over: BTreeSet::new(),
            down: false,
            connections: BTreeSet::new(),
            scheduled: None,
        });
        id
    }

    /// The node at an address.
    pub fn at(&self, address: IpAddr) -> Option<NodeId> {
        self.by_address.get(&address).copied()
    }

    /// A peer's configuration as seen from anywhere; its number is the node's.
    pub fn peer(&self, node: NodeId, as_number: u32) -> PeerConfig {
        let config =
            PeerConfig::new(PeerId(node as u32), self.nodes[node].address, model::AsNumber(as_number));
        PeerConfig { policy_required: false, ..config }
    }

    /// Is there a link between two nodes that packets and connections may take?
    pub fn is_linked(&self, one: NodeId, other: NodeId) -> bool {
        !self.cut.contains(&(one.min(other), one.max(other)))
    }

    /// Cuts a link, or mends it; both ends notice at once, as by carrier loss.
    pub fn set_link(&mut self, one: NodeId, other: NodeId, up: bool) {
        let link = (one.min(other), one.max(other));
        if up {
            self.cut.remove(&link);
            return;
        }
        self.cut.insert(link);
        let over: Vec<ConnectionId> = self.nodes[one]
            .connections
            .iter()
            .copied()
            .filter(|connection| self.wires.get(connection).is_some_and(|(node, _)| *node == other))
            .collect();
        for connection in over {
            if let Some((_, far)) = self.wires.remove(&connection) {
                self.wires.remove(&far);
                self.nodes[one].connections.remove(&connection);
                self.nodes[other].connections.remove(&far);
                self.soon(one, Event::Closed { connection });
                self.soon(other, Event::Closed { connection: far });
            }
        }
        for (node, far) in [(one, other), (other, one)] {
            let nexthop = self.nodes[far].address;
            self.soon(node, Event::Nexthop(nexthop));
        }
    }

    /// A node's process dies: its connections break, its forwarding goes on.
    pub fn kill(&mut self, node: NodeId) {
        for connection in std::mem::take(&mut self.nodes[node].connections) {
            if let Some((far, other_end)) = self.wires.remove(&connection) {
                self.wires.remove(&other_end);
                self.nodes[far].connections.remove(&other_end);
                let delay = self.delay_between(node, far);
                self.later(delay, far, Event::Closed { connection: other_end });
            }
        }
        self.nodes[node].down = true;
    }

    /// A new process in the place of one that died; the caller gives it its peers and routes again.
    pub fn restart(&mut self, node: NodeId, config: SpeakerConfig) {
        let node = &mut self.nodes[node];
        node.speaker = Speaker::new(SpeakerConfig { restarting: true, ..config });
        node.left_over = node.fib.keys().copied().collect();
        node.down = false;
        node.scheduled = None;
    }

    /// Hands a node an input now.
    pub fn give(&mut self, node: NodeId, input: Input<'_>) {
        let mut out = Vec::new();
        self.nodes[node].speaker.handle(input, self.now, &mut out);
        for output in out {
            self.follow(node, output);
        }
        let deadline = self.nodes[node].speaker.next_deadline();
        if let Some(deadline) = deadline
            && self.nodes[node].scheduled.is_none_or(|scheduled| deadline < scheduled)
        {
            let deadline = deadline.max(self.now);
            self.nodes[node].scheduled = Some(deadline);
            self.push(deadline, node, Event::Deadline);
        }
    }

    /// Lets time pass until `until`, calling `look` after each `step` of it.
    pub fn run(&mut self, until: Duration, step: Duration, mut look: impl FnMut(&Network)) {
        let end = self.start + until;
        let mut next_look = self.now + step;
        while let Some(Reverse(due)) = self.agenda.peek() {
            let at = due.at.min(end);
            while next_look <= at {
                self.now = next_look;
                look(self);
                next_look += step;
            }
            if due.at > end {
                break;
            }
            let Some(Reverse(due)) = self.agenda.pop() else { break };
            self.now = due.at;
            self.deliver(due.node, due.event);
        }
        while next_look <= end {
            self.now = next_look;
            look(self);
            next_look += step;
        }
        self.now = end;
    }

    fn deliver(&mut self, node: NodeId, event: Event) {
        if let Event::Deadline = event {
            // Only the latest of a node's entries counts; an earlier deadline may have made others needless.
            if self.nodes[node].scheduled != Some(self.now) {
                return;
            }
            self.nodes[node].scheduled = None;
        }
        if self.nodes[node].down {
            return;
        }
        match event {
            Event::Opened { peer, connection, direction } => {
                // It may have broken on the way.
                if self.wires.contains_key(&connection) {
                    let local = SocketAddr::new(self.nodes[node].address, 179);
                    self.give(node, Input::ConnectionOpened { peer, connection, direction, local });
                }
            }
            Event::Failed { peer } => self.give(node, Input::ConnectFailed { peer }),
            Event::Closed { connection } => self.give(node, Input::ConnectionClosed { connection }),
            Event::Bytes { connection, bytes } => {
                self.give(node, Input::Received { connection, bytes: &bytes });
            }
            Event::Nexthop(nexthop) => {
                let there = self.at(nexthop).is_some_and(|far| self.is_linked(node, far));
                self.give(node, Input::NexthopChanged { nexthop, metric: there.then_some(0) });
            }
            Event::Deadline => self.give(node, Input::Tick),
        }
    }

    fn follow(&mut self, node: NodeId, output: Output) {
        match output {
            Output::Connect { peer, remote, .. } => {
                let far = self.at(remote.ip());
                match far.filter(|&far| !self.nodes[far].down && self.is_linked(node, far)) {
                    Some(far) => self.open(node, far, peer),
                    None => self.soon(node, Event::Failed { peer }),
                }
            }
            Output::Send { connection, bytes } => {
                let Some(&(far, far_end)) = self.wires.get(&connection) else { return };
                self.passed.messages += count_messages(&bytes);
                self.passed.octets += bytes.len() as u64;
                let delay = self.delay_between(node, far);
                self.later(delay, far, Event::Bytes { connection: far_end, bytes });
            }
            Output::Close { connection } => {
                self.nodes[node].connections.remove(&connection);
                if let Some((far, far_end)) = self.wires.remove(&connection) {
                    self.wires.remove(&far_end);
                    self.nodes[far].connections.remove(&far_end);
                    let delay = self.delay_between(node, far);
                    self.later(delay, far, Event::Closed { connection: far_end });
                }
            }
            Output::WatchNexthop(nexthop) => self.soon(node, Event::Nexthop(nexthop)),
            Output::RouteChanged { prefix, paths } => {
                self.passed.changes += 1;
                let node = &mut self.nodes[node];
                node.left_over.remove(&prefix);
                if paths.is_empty() {
                    node.fib.remove(&prefix);
                } else {
                    node.fib.insert(prefix, paths.iter().map(|path| path.nexthop).collect());
                }
            }
            Output::RestartComplete => {
                let node = &mut self.nodes[node];
                for prefix in std::mem::take(&mut node.left_over) {
                    node.fib.remove(&prefix);
                }
            }
            Output::UnwatchNexthop(_)
            | Output::PeerStateChanged { .. }
            | Output::PrefixLimit { .. }
            | Output::ToStation { .. } => {}
        }
    }

    fn open(&mut self, from: NodeId, to: NodeId, peer: PeerId) {
        let [near, far] = [0, 1].map(|more| ConnectionId(self.next_connection + more));
        self.next_connection += 2;
        self.wires.insert(near, (to, far));
        self.wires.insert(far, (from, near));
        self.nodes[from].connections.insert(near);
        self.nodes[to].connections.insert(far);
        let delay = self.delay_between(from, to);
        let back = PeerId(from as u32);
        self.later(delay, to, Event::Opened { peer: back, connection: far, direction: Direction::Inbound });
        self.later(delay, from, Event::Opened { peer, connection: near, direction: Direction::Outbound });
    }

    /// The delay of a link: the same for all that passes between two nodes, so nothing overtakes. 0.2 to 1.2 ms.
    fn delay_between(&self, one: NodeId, other: NodeId) -> Duration {
        let pair = (one.min(other) as u64) << 32 | one.max(other) as u64;
        Duration::from_micros(200 + Numbers::new(pair ^ self.seed).below(1000) as u64)
    }

    fn soon(&mut self, node: NodeId, event: Event) {
        self.push(self.now, node, event);
    }

    fn later(&mut self, delay: Duration, node: NodeId, event: Event) {
        self.push(self.now + delay, node, event);
    }

    fn push(&mut self, at: Instant, node: NodeId, event: Event) {
        self.order += 1;
        self.agenda.push(Reverse(Due { at, order: self.order, node, event }));
    }
}

fn count_messages(mut bytes: &[u8]) -> u64 {
    let mut messages = 0;
    while let Some(&[high, low]) = bytes.get(16..18).and_then(|length| length.first_chunk()) {
        messages += 1;
        bytes = bytes.get(usize::from(u16::from_be_bytes([high, low])).max(19)..).unwrap_or_default();
    }
    messages
}
