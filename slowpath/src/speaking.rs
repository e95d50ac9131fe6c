//! The event loop's end of BGP: what the speaker is told, and what it asks for, carried out.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bgp::{Direction, Input, LimitAction, Output, PeerState, PrefixLimit, Reached, Speaker};
use model::{AsNumber, Family};
use tokio::net::TcpStream;
use tracing::{debug, error, info, warn};

use crate::bgp_routes::{self, Learned};
use crate::calico::PeerKind;
use crate::event_loop::Core;
use crate::peer_groups;
use crate::resolve;
use crate::sessions;

impl Core {
    pub(crate) fn adopt(&mut self, peer: bgp::PeerId, stream: TcpStream, direction: Direction) {
        match self.peers.adopt(peer, stream, direction) {
            Ok((connection, local)) => {
                self.tell(Input::ConnectionOpened { peer, connection, direction, local });
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
        // The resources are what they were; this neighbour alone is new, or of another AS.
        self.desired.peers.retain(|_, peer| peer.kind != PeerKind::Dynamic || peer.address != address);
        peer_groups::join(settings, &self.neighbours, &self.aggregates, &mut self.desired);
        self.apply_sessions();
        if let Some(peer) = self.sessions.at_address(address) {
            self.adopt(peer, stream, Direction::Inbound);
        }
    }

    /// Gives the speaker an input and does what it asks for.
    pub(crate) fn tell(&mut self, input: Input<'_>) {
        let Some(speaker) = &mut self.speaker else { return };
        let mut outputs = std::mem::take(&mut self.outputs);
        speaker.handle(input, Instant::now(), &mut outputs);
        // Carrying an output out may give the speaker another input, whose outputs come after these.
        for output in outputs.drain(..) {
            self.carry_out(output);
        }
        if self.outputs.is_empty() {
            self.outputs = outputs;
        }
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
            Output::RouteChanged { prefix, paths } => {
                if self.aggregates.route_changed(&self.config.bgp, prefix, !paths.is_empty()) {
                    self.dirty.resources = true;
                }
                let normal = sessions::local_pref_of(self.desired.normal_priority(prefix.family()));
                let elevated = paths.first().is_some_and(|best| best.local_pref > normal);
                let discard = paths.first().is_some_and(|best| best.discard);
                let nexthops = bgp_routes::nexthops(&paths);
                self.bgp_routes.offer(
                    &mut self.rib,
                    &self.desired,
                    prefix,
                    Learned { nexthops, elevated, discard },
                );
            }
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
        let peers = self.speaker.iter().flat_map(Speaker::resting);
        peers.filter_map(|peer| Some(self.sessions.desired(peer)?.address)).collect()
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
        if self.speaker.is_none() {
            return;
        }
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
        self.watch_peers();
    }

    /// The node's identifier or AS is new: the sessions of the old one end.
    fn replace_speaker(&mut self) {
        self.tell(Input::Shutdown { graceful: false });
        self.peers.give_up_all();
        self.bgp_routes.clear(&mut self.rib);
        self.aggregates.clear();
        self.nexthops.clear();
        self.sessions.forget();
        let restarting = self.preserve_until.is_some();
        let config = sessions::speaker_config(&self.desired, restarting, self.config.prefixes_per_peer);
        if self.speaker.is_some() {
            self.stations.begin_anew();
        }
        self.speaker = config.map(Speaker::new);
        self.introduce_stations();
    }
}
