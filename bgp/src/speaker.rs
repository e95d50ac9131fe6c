//! The speaker: hands each input to whom it concerns, then does what is due.

mod configuration;
mod membership;
pub(crate) mod monitoring;
mod receive;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ahash::RandomState;
use model::{AsNumber, Family};

use crate::adj_rib_in::{AdjRibIn, Tables};
use crate::agenda::Agenda;
use crate::bmp::monitor::Monitor;
use crate::config::{ConnectionId, PeerConfig, PeerId, PeerKind, SpeakerConfig};
use crate::connection::{Identity, Negotiated};
use crate::decision::Decision;
use crate::graceful_restart::{Heard, Helper, Restart};
use crate::input::{Direction, Input, OriginatedRoute};
use crate::jitter::Jitter;
use crate::output::{Output, Reason};
use crate::pass::Pass;
use crate::path::{Path, Slot};
use crate::rewrite::Rewrite;
use crate::session::{Event, Session, Step};
use crate::status::ErrorCounters;
use crate::sweep::Sweep;
use crate::update_group::{Groups, Member};
use crate::wire::attributes::{code, flag};
use crate::wire::nlri::AfiSafi;
use crate::wire::notification::{CEASE, Notification, cease};
use crate::wire::route_refresh::RouteRefresh;

/// One peer: its session and its part of the routes.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) session: Session,
    pub(crate) rib_in: AdjRibIn,
    /// Where it stands in its update group, while its session stands.
    pub(crate) member: Option<Member>,
    pub(crate) helper: Helper,
    pub(crate) heard: Heard,
    pub(crate) errors: ErrorCounters,
    /// The caller's send buffer is full.
    pub(crate) congested: bool,
    /// It is no longer configured; its paths go by and by.
    pub(crate) is_removed: bool,
}

impl Peer {
    pub(crate) fn negotiated(&self) -> Option<&Negotiated> {
        self.session.established().map(|established| &established.negotiated)
    }

    /// Is there something to tell it, which it takes? While `deferring`, a first run must not begin.
    pub(crate) fn is_due(&self, slot: Slot, groups: &Groups, deferring: bool) -> bool {
        let group = |member: &Member| groups.get(member.group).map(|group| &group.told);
        !self.congested
            && self
                .member
                .as_ref()
                .is_some_and(|member| group(member).is_some_and(|told| member.is_due(slot, told, deferring)))
    }

    pub(crate) fn heard_enough(&self) -> bool {
        self.heard.enough(self.negotiated())
    }
}

/// A BGP speaker; see the [crate]'s documentation.
#[derive(Debug)]
pub struct Speaker {
    pub(crate) config: SpeakerConfig,
    pub(crate) peers: Vec<Option<Peer>>,
    /// Slots below that no peer has.
    vacant: BTreeSet<Slot>,
    pub(crate) agenda: Agenda,
    slots: BTreeMap<PeerId, Slot>,
    connections: HashMap<ConnectionId, Slot, RandomState>,
    pub(crate) tables: Tables,
    /// Looks for what next hops that have moved lead to, by [`Family`].
    pub(crate) sweeps: [Sweep; 2],
    /// Goes over the paths of peers of which something has changed for all, by [`Family`].
    pub(crate) passes: [Pass; 2],
    pub(crate) groups: Groups,
    /// Who comes first of those that wait to be told, by [`Family`].
    pub(crate) next_told: [Slot; 2],
    pub(crate) decision: Decision,
    pub(crate) monitor: Monitor,
    pub(crate) hasher: RandomState,
    jitter: Jitter,
    /// Until we have heard enough after a restart.
    restart: Option<Restart>,
    /// How many clients we reflect routes to in each cluster.
    clients: BTreeMap<Ipv4Addr, usize>,
    /// The clusters of all clients, in order.
    pub(crate) clusters: Arc<[Ipv4Addr]>,
    /// A cluster has got its first client or lost its last one since `clusters` was gathered.
    clusters_changed: bool,
    stopped: bool,
    /// The time of the latest input, which is when work that is left is due.
    latest: Option<Instant>,
    /// See [`Speaker::heard_until`].
    heard: Option<Instant>,
    peers_refused: u64,
}

impl Speaker {
    /// A speaker without peers or routes.
    pub fn new(config: SpeakerConfig) -> Speaker {
        let seed = |n: u64| config.seed.wrapping_add(n);
        let hasher = RandomState::with_seeds(seed(1), seed(2), seed(3), seed(4));
        Speaker {
            peers: Vec::new(),
            vacant: BTreeSet::new(),
            agenda: Agenda::default(),
            slots: BTreeMap::new(),
            connections: HashMap::with_hasher(hasher.clone()),
            tables: Tables::new(&hasher),
            sweeps: [Sweep::default(), Sweep::default()],
            passes: [Pass::default(), Pass::default()],
            groups: Groups::default(),
            next_told: [Slot(0); 2],
            decision: Decision::default(),
            monitor: Monitor::new(config.local_as, config.router_id),
            hasher,
            jitter: Jitter::new(seed(5)),
            restart: config.restarting.then_some(Restart { deadline: None }),
            clients: BTreeMap::new(),
            clusters: Arc::default(),
            clusters_changed: false,
            stopped: false,
            latest: None,
            heard: None,
            peers_refused: 0,
            config,
        }
    }

    /// Takes one event; appends what is to be done to `out`.
    ///
    /// `now` must never go backwards. After [`Input::Shutdown`] everything else is ignored.
    pub fn handle(&mut self, input: Input<'_>, now: Instant, out: &mut Vec<Output>) {
        if self.stopped {
            return;
        }
        let before = out.len();
        self.latest = Some(now);
        if let Some(restart) = &mut self.restart {
            restart.deadline.get_or_insert(now + self.config.timers.selection_deferral);
        }
        match input {
            Input::PutPeer(config) => {
                self.put_peer(config, now, out);
                self.gather_clusters();
            }
            Input::RemovePeer(peer) => {
                self.remove_peer(peer, now, out);
                self.gather_clusters();
            }
            Input::ConnectionOpened { peer, connection, direction, local } => {
                self.connection_opened(peer, connection, direction, local, now, out);
            }
            Input::ConnectFailed { peer } => self.connect_failed(peer, now, out),
            Input::ConnectionClosed { connection } => {
                if let Some(slot) = self.connections.remove(&connection) {
                    let event = self.with_session(slot, now, out, |session, step| {
                        session.connection_closed(connection, step)
                    });
                    self.session_event(slot, event, now, out);
                }
            }
            Input::Received { connection, bytes } => self.received(connection, bytes, now, out),
            Input::Congested { connection, congested } => self.congested(connection, congested),
            Input::PathLost { peer } => self.path_lost(peer, now, out),
            Input::RequestRefresh { peer } => self.request_refresh(peer, out),
            Input::Originate(route) => self.originate(&route, out),
            Input::Withdraw(prefix) => {
                self.tables.remove(prefix, out);
            }
            Input::NexthopChanged { nexthop, metric } => self.nexthop_changed(nexthop, metric),
            Input::StationJoined { config, time } => self.station_joined(config, time, now, out),
            Input::StationLeft(station) => self.monitor.leave(station),
            Input::StationCongested { station, congested } => self.monitor.congested(station, congested),
            Input::TellStatistics => self.tell_statistics(now, out),
            Input::Tick => {}
            Input::Shutdown { graceful } => self.shutdown(graceful, now, out),
        }
        if !self.stopped {
            self.agenda.settle(&self.peers, &self.groups);
            self.tick(now, out);
            self.agenda.settle(&self.peers, &self.groups);
            self.work(out);
            self.tell_stations(now, out);
            self.agenda.settle(&self.peers, &self.groups);
            self.finish_restart(now, out);
        }
        for output in &out[before..] {
            if let Output::Close { connection } = output {
                self.connections.remove(connection);
            }
        }
    }

    /// When to come back with [`Input::Tick`], if nothing else comes first. Not after now: work is left.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        if self.has_work() {
            return self.latest;
        }
        let restart = self.restart.as_ref().and_then(|restart| restart.deadline);
        self.agenda.next_deadline().into_iter().chain(restart).min()
    }

    /// Everything that peers had said by then has been given as [`Input::Received`]: a caller whose queue can be long tells that
    /// now and then. From the first time on, a peer counts as silent by what has been heard, not by how late it is: what it
    /// said may be waiting.
    pub fn heard_until(&mut self, at: Instant) {
        self.heard = self.heard.max(Some(at));
    }

    /// Peers that were not taken because [`Limits::max_peers`](crate::Limits::max_peers) was reached.
    pub fn peers_refused(&self) -> u64 {
        self.peers_refused
    }

    /// Is work left, which the next [`Input::Tick`] goes on with?
    pub fn has_work(&self) -> bool {
        !self.stopped
            && (self.has_decisions()
                || self.monitor.has_work()
                || self.tables.interner.is_sweeping()
                || self.agenda.has_waiting(self.is_deferring()))
    }

    /// Is there anything to decide, or to be looked for that may be?
    pub(crate) fn has_decisions(&self) -> bool {
        self.tables.rib.has_queued()
            || self.sweeps.iter().any(|sweep| !sweep.is_idle())
            || self.agenda.with_left().next().is_some()
    }

    /// Must peers wait for our routes until others have told theirs? (RFC 4724 §4.1)
    pub(crate) fn is_deferring(&self) -> bool {
        self.restart.is_some() && self.agenda.waits_for_sessions()
    }

    pub(crate) fn identity(&self, config: &PeerConfig, was_established: bool) -> Identity {
        Identity {
            router_id: self.config.router_id,
            local_as: config.local_as.unwrap_or(self.config.local_as),
            restarted: self.config.restarting && !was_established,
            // Our forwarding state outlives a session; only a process that replaced nobody begins without it.
            forwarding_preserved: self.config.restarting || was_established,
        }
    }

    fn with_session<R>(
        &mut self,
        slot: Slot,
        now: Instant,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Session, &mut Step<'_>) -> Option<R>,
    ) -> Option<R> {
        self.agenda.touch(slot);
        let session = &self.peers.get(slot.0 as usize)?.as_ref()?.session;
        let identity = self.identity(&session.config, session.was_established);
        let heard = self.heard.map_or(now, |heard| heard.min(now));
        let session = &mut self.peers.get_mut(slot.0 as usize)?.as_mut()?.session;
        let mut step = Step {
            now,
            heard,
            out,
            jitter: &mut self.jitter,
            identity,
            open_hold_time: self.config.timers.open_hold_time,
            error_forget: self.config.timers.error_forget,
        };
        act(session, &mut step)
    }

    /// Takes a peer out of its slot for a moment, so that it and the tables can be changed side by side.
    pub(crate) fn take_peer(&mut self, slot: Slot) -> Option<Peer> {
        self.agenda.touch(slot);
        self.peers.get_mut(slot.0 as usize)?.take()
    }

    /// Every peer that is configured.
    pub(crate) fn configured(&self) -> impl Iterator<Item = (Slot, &Peer)> {
        let peers = (0..).map(Slot).zip(&self.peers);
        peers.filter_map(|(slot, peer)| Some((slot, peer.as_ref().filter(|peer| !peer.is_removed)?)))
    }

    fn connection_opened(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        direction: Direction,
        local: SocketAddr,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(&slot) = self.slots.get(&peer) else {
            out.push(Output::Close { connection });
            return;
        };
        self.connections.insert(connection, slot);
        self.with_session(slot, now, out, |session, step| {
            session.connection_opened(connection, direction, local, step);
            None::<()>
        });
    }

    fn connect_failed(&mut self, peer: PeerId, now: Instant, out: &mut Vec<Output>) {
        let Some(&slot) = self.slots.get(&peer) else { return };
        if let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) {
            peer.heard.is_down = true;
        }
        self.with_session(slot, now, out, |session, step| {
            session.connect_failed(step);
            None::<()>
        });
    }

    fn path_lost(&mut self, peer: PeerId, now: Instant, out: &mut Vec<Output>) {
        let Some(&slot) = self.slots.get(&peer) else { return };
        let event = self.with_session(slot, now, out, Session::path_lost);
        self.session_event(slot, event, now, out);
    }

    fn request_refresh(&mut self, peer: PeerId, out: &mut Vec<Output>) {
        let Some(slot) = self.slots.get(&peer) else { return };
        let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return };
        let Some(established) = peer.session.established() else { return };
        if !established.negotiated.route_refresh {
            return;
        }
        let (mut bytes, mut messages) = (Vec::new(), 0);
        for family in Family::ALL.into_iter().filter(|&family| established.negotiated.uses(family)) {
            RouteRefresh { family: AfiSafi::unicast(family), subtype: 0 }.emit(&mut bytes);
            messages += 1;
        }
        out.push(Output::Send { connection: established.link.id, bytes });
        peer.session.messages_out.route_refresh += messages;
    }

    fn congested(&mut self, connection: ConnectionId, congested: bool) {
        let Some(&slot) = self.connections.get(&connection) else { return };
        self.agenda.touch(slot);
        let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return };
        if peer.session.established().is_some_and(|established| established.link.id == connection) {
            peer.congested = congested;
            if congested
                && let Some(member) = &peer.member
                && let Some(group) = self.groups.get_mut(member.group)
            {
                member.pause(slot, &mut group.told);
            }
        }
    }

    fn session_event(&mut self, slot: Slot, event: Option<Event>, now: Instant, out: &mut Vec<Output>) {
        let Some(event) = event else { return };
        let Some(mut peer) = self.take_peer(slot) else { return };
        self.leave_group(slot, &mut peer);
        peer.heard.end_of_rib = [false; 2];
        peer.congested = false;
        let Peer { session, rib_in, helper, .. } = &mut peer;
        let graceful = match event {
            Event::Up => {
                if let Some(established) = session.established() {
                    rib_in.kind = established.negotiated.update.kind;
                    rib_in.router_id = Some(established.negotiated.router_id);
                    rib_in.allowance.renew();
                    rib_in.local = Some(established.link.local);
                    let (negotiated, timers) = (&established.negotiated, &self.config.timers);
                    helper.session_up(negotiated, timers, now, rib_in);
                    let connection = established.link.id;
                    let most = self.config.limits.max_prefixes_per_peer;
                    let mut begun = rib_in.cohorts.iter_mut().map(|cohorts| cohorts.begin_session(most));
                    if begun.any(|begun| begun.is_err()) {
                        self.peers[slot.0 as usize] = Some(peer);
                        return self.fail(slot, connection, out_of_resources(), now, out);
                    }
                }
                self.peers[slot.0 as usize] = Some(peer);
                self.join_group(slot);
                self.peer_up(slot, now, out);
                return;
            }
            Event::Down { graceful } => graceful,
            Event::Restarted => true,
        };
        helper.session_down(graceful, now, rib_in);
        let reason = peer.session.last_error().cloned();
        self.peers[slot.0 as usize] = Some(peer);
        self.peer_down(slot, &reason.unwrap_or(Reason::ConnectionLost), now, out);
    }

    fn originate(&mut self, route: &OriginatedRoute, out: &mut Vec<Output>) {
        let mut rewrite = Rewrite::default();
        rewrite.set(flag::WELL_KNOWN, code::ORIGIN, vec![route.origin as u8]);
        rewrite.set(flag::WELL_KNOWN, code::AS_PATH, Vec::new());
        if let Some(med) = route.med {
            rewrite.set(flag::OPTIONAL, code::MULTI_EXIT_DISC, med.to_be_bytes().to_vec());
        }
        if let Some(local_pref) = route.local_pref {
            rewrite.set(flag::WELL_KNOWN, code::LOCAL_PREF, local_pref.to_be_bytes().to_vec());
        }
        rewrite.add_communities(&route.communities, &route.large_communities);
        if let Some((number, address)) = route.aggregator {
            let value = [number.0.to_be_bytes(), address.octets()].concat();
            rewrite.set(flag::WELL_KNOWN, code::ATOMIC_AGGREGATE, Vec::new());
            rewrite.set(flag::OPTIONAL_TRANSITIVE, code::AGGREGATOR, value);
        }
        let mut key = Vec::new();
        rewrite.write(None, &mut key);
        let attributes = self.tables.interner.intern(&key);
        let path = Path {
            imported: attributes,
            source: Slot::LOCAL,
            path_id: 0,
            sent_id: 0,
            rank: route.rank,
            marks: 0,
            cohort: 0,
        };
        self.tables.insert(route.prefix, path, out);
    }

    fn nexthop_changed(&mut self, nexthop: IpAddr, metric: Option<u32>) {
        let is_first = self.tables.nexthops.is_awaited(nexthop);
        if !self.tables.nexthops.set(nexthop, metric) {
            return;
        }
        if is_first {
            // Whatever else leads there is in the queue still.
            let [v4, v6] = self.tables.nexthops.take_waiting(nexthop);
            v4.into_iter().for_each(|index| self.tables.rib.v4.decide_again(index));
            v6.into_iter().for_each(|index| self.tables.rib.v6.decide_again(index));
            return;
        }
        let of = Family::of(nexthop);
        // An IPv6 next hop may be that of IPv4 routes (RFC 8950).
        if of == Family::V4 || self.peers.iter().flatten().any(|peer| peer.session.config.v4_over_v6) {
            self.sweeps[Family::V4 as usize].add(nexthop);
        }
        if of == Family::V6 {
            self.sweeps[Family::V6 as usize].add(nexthop);
        }
    }

    fn shutdown(&mut self, graceful: bool, now: Instant, out: &mut Vec<Output>) {
        let notification = Notification::new(CEASE, cease::SHUTDOWN);
        for at in 0..self.peers.len() {
            self.with_session(Slot(at as u32), now, out, |session, step| {
                session.stop(Some(&notification).filter(|_| !graceful), step)
            });
        }
        self.monitor.terminate(out);
        self.stopped = true;
    }

    /// Looks at every deadline.
    fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        for slot in self.agenda.due(now) {
            let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
            let Some(peer) = &mut self.peers[slot.0 as usize] else { continue };
            if due(peer.helper.deadline()) {
                peer.helper.tick(now, &mut peer.rib_in);
            }
            // Touches it in any case.
            let event = self.with_session(slot, now, out, |session, step| {
                if due(session.next_deadline()) { session.tick(step) } else { None }
            });
            self.session_event(slot, event, now, out);
        }
    }

    /// The restart is over once every peer has been heard, or after the deferral time.
    fn finish_restart(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(restart) = &self.restart else { return };
        let all_heard = self.agenda.all_are_heard();
        let too_late = restart.deadline.is_some_and(|deadline| deadline <= now);
        if (all_heard || too_late) && !self.has_decisions() {
            self.restart = None;
            out.push(Output::RestartComplete);
        }
    }

    /// Our AS and the peer's relation to it.
    pub(crate) fn relation(&self, config: &PeerConfig) -> (AsNumber, PeerKind) {
        let local_as = config.local_as.unwrap_or(self.config.local_as);
        (local_as, PeerKind::between(local_as, config.peer_as))
    }
}

/// The peer makes us keep too much.
pub(crate) fn out_of_resources() -> Notification {
    Notification::new(CEASE, cease::OUT_OF_RESOURCES)
}
