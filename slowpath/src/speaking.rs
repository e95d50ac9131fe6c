//! The event loop's end of BGP: what the speaker is told, and what it asks for, carried out.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bgp::{Direction, Input, LimitAction, Output, PeerState, PrefixLimit, Reached};
use model::{AsNumber, Family};
use tokio::net::TcpStream;
use tracing::{debug, error, info, warn};

use crate::bgp_routes::Learned;
use crate::bgp_thread::{Lead, Said, Speech};
use crate::calico::{PeerKind, PeerName};
use crate::event_loop::Core;
use crate::peer_groups;
use crate::resolve;
use crate::rib::Sought;
use crate::sessions;

/// Prefixes that are looked up ahead together: what they touch fits the first-level cache.
const AHEAD: usize = 64;

impl Core {
    pub(crate) fn adopt(&mut self, peer: bgp::PeerId, stream: TcpStream, direction: Direction) {
        match self.peers.adopt(peer, stream, direction) {
            Ok((connection, local)) => {
                self.tell(Input::ConnectionOpened { peer, connection, direction, local });
                // In this order: it must know whose the bytes are.
                self.peers.read(connection);
            }
            Err(error) => {
                debug!(peer = self.peer_name(peer), %error, "the connection was gone at once, or can't be guarded");
                if direction == Direction::Outbound {
                    self.tell(Input::ConnectFailed { peer });
                }
            }
        }
    }

    /// Somebody has connected: a peer, or one that may become one once it has said who it is.
    pub(crate) fn accepted(&mut self, stream: TcpStream, remote: SocketAddr) {
        let known = self.sessions.at_address(remote.ip());
        let ttl_security = match known.and_then(|peer| self.sessions.desired(peer)) {
            Some(peer) => peer.ttl_security,
            None => self.config.bgp.ttl_security(remote.ip()),
        };
        // Nothing is read of what somebody sends from too far off (RFC 5082).
        if !self.peers.has_come_from_near(&stream, ttl_security) {
            info!(%remote, "refused a BGP connection from farther than ttlSecurity has it");
            if let Some((peer, hint)) = known.and_then(|peer| Some((peer, self.peers.hint(peer)?))) {
                self.connect_problems.insert(peer, format!("it connects from too far off: {hint}"));
            }
            return;
        }
        match known.filter(|_| !self.neighbours.is_without_session(remote.ip())) {
            Some(peer) => self.adopt(peer, stream, Direction::Inbound),
            None => match self.neighbours.may_introduce(&self.config.bgp, remote.ip()) {
                Ok(()) => self.introductions.ask(stream, remote),
                Err(refusal) => debug!(%remote, "refused a BGP connection: {refusal}"),
            },
        }
    }

    pub(crate) fn introduced(&mut self, stream: TcpStream, remote: SocketAddr, as_number: AsNumber) {
        let (settings, address) = (&self.config.bgp, remote.ip());
        if let Err(refusal) = self.neighbours.take_in(settings, address, as_number, Instant::now()) {
            info!(%remote, "refused a BGP neighbour: {refusal}");
            return;
        }
        // The resources are what they were; this neighbour alone is new, or of another AS. Whoever is named there, with a
        // session or held back, comes before it.
        let known = self.sessions.at_address(address).and_then(|peer| self.sessions.desired(peer));
        let is_named = known.is_some_and(|peer| peer.kind != PeerKind::Dynamic)
            || self.sessions.held_back().values().any(|(peer, _)| peer.address == address);
        if !is_named
            && let Some(name) =
                peer_groups::join_neighbour(settings, &self.neighbours, address, &mut self.desired)
        {
            self.apply_session(&name);
        }
        if let Some(peer) = self.sessions.at_address(address) {
            self.adopt(peer, stream, Direction::Inbound);
        }
    }

    /// Gives the speaker an input; what it says to it is carried out when its turn comes.
    pub(crate) fn tell(&self, input: Input<'static>) {
        self.bgp.tell(input);
    }

    /// Does what the speaker asks for.
    pub(crate) fn heed(&mut self, mut speech: Speech) {
        let mut sought = Vec::with_capacity(AHEAD);
        let mut said = speech.take();
        let mut all = said.drain(..);
        while !all.as_slice().is_empty() {
            let next = all.as_slice().iter().take(AHEAD);
            self.rib.seek_all(next.filter_map(Said::prefix), &mut sought);
            let mut sought = sought.drain(..);
            for said in all.by_ref().take(AHEAD) {
                match said {
                    Said::Route { lead, .. } => {
                        let Some(sought) = sought.next() else { continue };
                        self.route_changed(sought, speech.lead(lead));
                    }
                    Said::Closed { connection, error } => {
                        if let Some(error) = error {
                            debug!(?connection, %error, "BGP connection broke");
                        }
                        self.peers.close(connection);
                    }
                    Said::Output(output) => self.carry_out(*output),
                }
            }
        }
        drop(all);
        self.bgp.give_back(said, speech);
    }

    /// The routes to a prefix lead there now, or there are none.
    fn route_changed(&mut self, sought: Sought, lead: Option<&Lead>) {
        let prefix = sought.prefix();
        if self.aggregates.route_changed(&self.config.bgp, prefix, lead.is_some()) {
            self.dirty.resources = true;
        }
        let normal = sessions::local_pref_of(self.desired.normal_priority(prefix.family()));
        let learned = lead.map_or_else(Learned::default, |lead| Learned {
            nexthops: lead.nexthops.clone(),
            elevated: lead.local_pref > normal,
            discard: lead.discard,
        });
        self.bgp_routes.offer_sought(&mut self.rib, &self.desired, sought, learned);
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect { peer, remote, local } => self.peers.connect(peer, remote, local),
            Output::Send { connection, bytes } => {
                if self.peers.send(connection, bytes) {
                    self.tell(Input::Congested { connection, congested: true });
                }
            }
            Output::Close { connection } => self.peers.close(connection),
            Output::WatchNexthop(nexthop) => {
                let metric = resolve::metric(&self.rib, nexthop);
                self.nexthops.insert(nexthop, metric);
                self.tell(Input::NexthopChanged { nexthop, metric });
            }
            Output::UnwatchNexthop(nexthop) => drop(self.nexthops.remove(&nexthop)),
            // It comes as `Said::Route`.
            Output::RouteChanged { .. } => {}
            Output::PeerStateChanged { peer, from, to, reason } => {
                let name = self.peer_name(peer);
                if let Some(address) = self.sessions.desired(peer).map(|peer| peer.address)
                    && (from == PeerState::Established) != (to == PeerState::Established)
                {
                    self.neighbours.session_changed(address, to == PeerState::Established, Instant::now());
                }
                if to == PeerState::Established {
                    *self.established.entry(peer).or_default() += 1;
                    info!(peer = name, "BGP session established");
                    self.peer_is_back(peer);
                } else if from == PeerState::Established {
                    warn!(peer = name, state = %to, "BGP session lost: {reason}");
                } else {
                    debug!(peer = name, %from, %to, "BGP: {reason}");
                }
            }
            Output::PrefixLimit { peer, family, reached, limit } => {
                self.prefix_limit_reached(peer, family, reached, limit);
            }
            Output::ToStation { station, bytes } => self.tell_station(station, bytes),
            Output::RestartComplete => {
                info!("restart complete: BGP has spoken");
                self.stop_preserving();
            }
        }
    }

    /// A peer is near its limit, or beyond it: an operator should know before routes are missing.
    fn prefix_limit_reached(
        &mut self,
        peer: bgp::PeerId,
        family: Family,
        reached: Reached,
        limit: PrefixLimit,
    ) {
        let (name, most) = (self.peer_name(peer), limit.most);
        match (reached, limit.action) {
            (Reached::Warning, _) => {
                warn!(peer = name, %family, most, "the peer has announced {} of the paths that it may", limit.warns_at());
            }
            (Reached::Limit, LimitAction::Warn) => {
                warn!(peer = name, %family, most, "the peer has announced more paths than its limit");
            }
            (Reached::Limit, LimitAction::Drop) => {
                error!(peer = name, %family, most, "the peer has announced more paths than it may; others are not taken");
            }
            (Reached::Limit, LimitAction::Close { rest }) => {
                let rest_seconds = rest.as_secs();
                error!(peer = name, %family, most, rest_seconds, "the peer has announced more paths than it may; it is refused for a time");
            }
        }
    }

    /// Where those are that are refused for a time.
    pub(crate) fn resting_addresses(&self) -> BTreeSet<IpAddr> {
        let peers: Vec<_> = self.bgp.ask(|speaker| speaker.resting().collect()).unwrap_or_default();
        peers.into_iter().filter_map(|peer| Some(self.sessions.desired(peer)?.address)).collect()
    }

    /// A peer that drops what we send, as with another password or from too far off, is silent: only the clock tells.
    pub(crate) fn note_connect_problem(&mut self, peer: bgp::PeerId, error: &std::io::Error) {
        let problem = match self.peers.hint(peer) {
            Some(hint) if error.kind() == std::io::ErrorKind::TimedOut => format!("no answer: {hint}"),
            _ => error.to_string(),
        };
        self.connect_problems.insert(peer, problem);
    }

    pub(crate) fn peer_name(&self, peer: bgp::PeerId) -> String {
        self.sessions.desired(peer).map_or_else(|| format!("{peer:?}"), |peer| peer.name.to_string())
    }

    pub(crate) fn apply_sessions(&mut self) {
        let identity = sessions::identity(&self.desired);
        if identity != self.speaker_identity {
            self.replace_speaker();
            self.speaker_identity = identity;
        }
        if !self.bgp.has_speaker() {
            return;
        }
        self.peers.guard_ranges(self.sessions.range_passwords());
        match self.peers.listen(&sessions::listen_addresses(&self.desired)) {
            Ok(()) => self.listen_problem = None,
            Err(error) => {
                let problem = error.to_string();
                if self.listen_problem.as_ref() != Some(&problem) {
                    error!("{problem}");
                }
                self.listen_problem = Some(problem);
            }
        }
        let before = self.sessions.held_back().clone();
        let changes = self.sessions.changes(&self.desired);
        for (name, (_, problem)) in self.sessions.held_back() {
            if before.get(name).is_none_or(|(_, before)| before != problem) {
                warn!(peer = %name, "no BGP session: {problem}");
            }
        }
        self.tell_sessions(changes);
        self.watch_peers();
    }

    /// The same where one peer alone is new or another.
    fn apply_session(&mut self, name: &PeerName) {
        if self.bgp.has_speaker() {
            let changes = self.sessions.changes_of(name, &self.desired);
            self.tell_sessions(changes);
            self.dirty.watch |= self.desired.peers.get(name).is_some_and(|peer| peer.bfd);
        }
    }

    fn tell_sessions(&mut self, changes: Vec<Input<'static>>) {
        for input in changes {
            // The speaker asks anew where it needs to; a connection to where the peer was is not for its session.
            match &input {
                Input::PutPeer(config) => {
                    self.peers.guard(config);
                    self.peers.retarget(config.id, config.remote(), config.local_address);
                }
                Input::RemovePeer(peer) => {
                    self.peers.forget(*peer);
                    self.connect_problems.remove(peer);
                }
                _ => {}
            }
            self.tell(input);
        }
    }

    /// The node's identifier or AS is new: the sessions of the old one end.
    fn replace_speaker(&mut self) {
        self.tell(Input::Shutdown { graceful: false });
        let said = self.bgp.catch_up();
        self.heed(said);
        self.peers.give_up_all();
        self.bgp_routes.clear(&mut self.rib);
        self.aggregates.clear();
        self.nexthops.clear();
        self.sessions.forget();
        let restarting = self.preserve_until.is_some();
        let config = sessions::speaker_config(&self.desired, restarting, self.config.prefixes_per_peer);
        if self.bgp.has_speaker() {
            self.stations.begin_anew();
        }
        self.bgp.begin(config);
        self.introduce_stations();
    }
}
