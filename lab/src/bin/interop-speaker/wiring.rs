//! The speakers of one process, and what lies between them.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Instant;

use bgp::{
    ConnectionId, Direction, Input, NextHopMode, OriginatedRoute, Output, PeerConfig, PeerId, SelfNextHops,
    SendPaths, Speaker, SpeakerConfig,
};
use lab::interop::plan::{FeederPlan, Held, SpeakerPlan, SpeakerState};
use model::{AsNumber, Family, Prefix};

/// The daemon on the other side.
pub(crate) const PEER: PeerId = PeerId(1);
/// Feeder `n` is this many and `n`, as a peer and as a connection.
const FEEDERS: u32 = 1000;

/// The speaker under test, its feeders, and the sockets.
pub(crate) struct Wiring {
    main: Speaker,
    feeders: Vec<Speaker>,
    pub(crate) sockets: BTreeMap<ConnectionId, TcpStream>,
    /// A connection that the speaker asks for.
    pub(crate) connect: Option<(SocketAddr, Option<IpAddr>)>,
    next: u64,
    routes: BTreeMap<Prefix, Vec<IpAddr>>,
}

/// A speaker: the one under test, or a feeder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Main,
    Feeder(usize),
}

/// What is on its way to a speaker in the same process.
enum Arrival {
    Bytes(ConnectionId, Vec<u8>),
    Nexthop(IpAddr),
    Tick,
}

impl Wiring {
    pub(crate) fn new(plan: &SpeakerPlan, now: Instant) -> Wiring {
        let mut wiring = Wiring {
            main: Speaker::new(SpeakerConfig::new(plan.router_id, AsNumber(plan.as_number))),
            feeders: plan.feeders.iter().map(feeder).collect(),
            sockets: BTreeMap::new(),
            connect: None,
            next: 1,
            routes: BTreeMap::new(),
        };
        for prefix in &plan.routes {
            wiring.give(Input::Originate(originated(*prefix, plan.large_communities)), now);
        }
        wiring.give(Input::PutPeer(peer(plan)), now);
        for (at, feeder) in plan.feeders.iter().enumerate() {
            wiring.join(at, feeder, plan, now);
        }
        wiring
    }

    /// Puts a feeder beside the speaker under test.
    fn join(&mut self, at: usize, feeder: &FeederPlan, plan: &SpeakerPlan, now: Instant) {
        let id = FEEDERS + at as u32;
        let connection = ConnectionId(id.into());
        let us = IpAddr::V4(plan.router_id);
        let theirs = config(PeerId(id), feeder.router_id.into(), feeder.as_number);
        self.give(Input::PutPeer(theirs), now);
        let ours = config(PeerId(0), us, plan.as_number);
        self.handle([(Node::Feeder(at), Input::PutPeer(ours))], now);
        for prefix in &feeder.routes {
            self.handle([(Node::Feeder(at), Input::Originate(originated(*prefix, 0)))], now);
        }
        let opened = |peer, local| Input::ConnectionOpened {
            peer,
            connection,
            direction: Direction::Inbound,
            local: SocketAddr::new(local, 179),
        };
        // Both ends at once: neither is to hear of a connection that it doesn't know.
        let ends = [
            (Node::Feeder(at), opened(PeerId(0), feeder.router_id.into())),
            (Node::Main, opened(PeerId(id), us)),
        ];
        self.handle(ends, now);
    }

    pub(crate) fn adopt(&mut self, stream: TcpStream) -> ConnectionId {
        let connection = ConnectionId(self.next);
        self.next += 1;
        self.sockets.insert(connection, stream);
        connection
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.feeders.iter().chain([&self.main]).filter_map(Speaker::next_deadline).min()
    }

    /// Gives the speaker under test an input, and everybody the time.
    pub(crate) fn give(&mut self, input: Input<'_>, now: Instant) {
        self.handle([(Node::Main, input)], now);
        for at in 0..self.feeders.len() {
            self.handle([(Node::Feeder(at), Input::Tick)], now);
        }
    }

    /// Gives speakers inputs and does what all ask for until nobody asks for anything.
    fn handle<'b>(&mut self, inputs: impl IntoIterator<Item = (Node, Input<'b>)>, now: Instant) {
        let mut arrivals = VecDeque::new();
        let mut asked = Vec::new();
        for (node, input) in inputs {
            let mut out = Vec::new();
            self.speaker(node).handle(input, now, &mut out);
            asked.push((node, out));
        }
        for (node, mut out) in asked {
            self.carry_out(node, &mut out, &mut arrivals);
        }
        let mut out = Vec::new();
        while let Some((node, arrival)) = arrivals.pop_front() {
            let input = match &arrival {
                Arrival::Bytes(connection, bytes) => Input::Received { connection: *connection, bytes },
                // Everything is on the one link.
                Arrival::Nexthop(nexthop) => Input::NexthopChanged { nexthop: *nexthop, metric: Some(0) },
                Arrival::Tick => Input::Tick,
            };
            self.speaker(node).handle(input, now, &mut out);
            self.carry_out(node, &mut out, &mut arrivals);
        }
    }

    fn speaker(&mut self, node: Node) -> &mut Speaker {
        match node {
            Node::Main => &mut self.main,
            Node::Feeder(at) => &mut self.feeders[at],
        }
    }

    fn carry_out(&mut self, node: Node, out: &mut Vec<Output>, arrivals: &mut VecDeque<(Node, Arrival)>) {
        for output in out.drain(..) {
            match output {
                Output::Connect { peer: PEER, remote, local } => self.connect = Some((remote, local)),
                Output::Send { connection, bytes } => {
                    match (node, connection.0.checked_sub(FEEDERS.into())) {
                        (Node::Main, Some(at)) => {
                            arrivals
                                .push_back((Node::Feeder(at as usize), Arrival::Bytes(connection, bytes)));
                        }
                        (Node::Feeder(_), _) => {
                            arrivals.push_back((Node::Main, Arrival::Bytes(connection, bytes)));
                        }
                        // A write that fails is told of by the reading thread.
                        (Node::Main, None) => {
                            let _ = self.sockets.get_mut(&connection).map(|socket| socket.write_all(&bytes));
                        }
                    }
                }
                Output::Close { connection } => {
                    if let Some(socket) = self.sockets.remove(&connection) {
                        let _ = socket.shutdown(std::net::Shutdown::Both);
                    }
                }
                Output::WatchNexthop(nexthop) => arrivals.push_back((node, Arrival::Nexthop(nexthop))),
                Output::RouteChanged { prefix, paths } if node == Node::Main => {
                    if paths.is_empty() {
                        self.routes.remove(&prefix);
                    } else {
                        self.routes.insert(prefix, paths.iter().map(|path| path.nexthop).collect());
                    }
                }
                _ => {}
            }
        }
        let now_due = self.speaker(node).next_deadline().is_some_and(|deadline| deadline <= Instant::now());
        if now_due && !arrivals.iter().any(|(to, arrival)| *to == node && matches!(arrival, Arrival::Tick)) {
            arrivals.push_back((node, Arrival::Tick));
        }
    }

    /// How everything stands.
    pub(crate) fn state(&self, now: Instant) -> SpeakerState {
        let mut state = SpeakerState::default();
        if let Some(peer) = self.main.peers(now).find(|peer| peer.id == PEER) {
            state.established = peer.state == bgp::PeerState::Established;
            state.last_error = peer.last_error.map(|reason| reason.to_string());
            state.capabilities =
                peer.capabilities.iter().map(|capability| format!("{capability:?}")).collect();
            state.updates_in = peer.messages_in.update;
            state.refreshes_in = peer.messages_in.route_refresh;
            state.stale = peer.v4.stale + peer.v6.stale;
        }
        state.routes = self
            .routes
            .iter()
            .map(|(&prefix, nexthops)| Held { prefix, nexthops: nexthops.clone() })
            .collect();
        let told = |feeder: &Speaker| feeder.peers(now).map(|peer| peer.v4.received).sum();
        state.feeders_hold = self.feeders.iter().map(told).collect();
        state
    }
}

fn feeder(plan: &FeederPlan) -> Speaker {
    Speaker::new(SpeakerConfig::new(plan.router_id, AsNumber(plan.as_number)))
}

/// A peer with whom everything is exchanged.
fn config(id: PeerId, address: IpAddr, as_number: u32) -> PeerConfig {
    let mut config = PeerConfig::new(id, address, AsNumber(as_number));
    (config.passive, config.policy_required) = (true, false);
    config
}

fn peer(plan: &SpeakerPlan) -> PeerConfig {
    let mut peer = config(PEER, plan.peer, plan.peer_as);
    peer.passive = false;
    peer.local_address = Some(plan.listen);
    peer.families = plan.families.iter().map(|&six| if six { Family::V6 } else { Family::V4 }).collect();
    peer.add_path = true;
    peer.send_paths = if plan.all_paths { SendPaths::All } else { SendPaths::Best };
    peer.v4_over_v6 = plan.v4_over_v6;
    peer.reflector_client = plan.reflects.then_some(plan.router_id);
    peer.next_hop = if plan.all_paths { NextHopMode::Keep } else { NextHopMode::Auto };
    peer.self_next_hops = SelfNextHops {
        v4: Some(plan.router_id),
        v6: match plan.listen {
            IpAddr::V6(addr) => Some(addr),
            IpAddr::V4(_) => None::<Ipv6Addr>,
        },
    };
    peer
}

fn originated(prefix: Prefix, large_communities: u32) -> OriginatedRoute {
    let large_communities = (0..large_communities).map(|number| [64512, 0, number]).collect();
    OriginatedRoute { large_communities, ..OriginatedRoute::new(prefix) }
}
