//! One peer's session: the finite state machine of RFC 4271 §8, and its waiting times.
//!
//! ```text
//!            wait is over            TCP connection            OPEN            KEEPALIVE
//!    Idle ──────────────► Connect/ ────────────────► OpenSent ──────► OpenConfirm ──────► Established
//!      ▲                  Active ◄── retry later ────────┴─────────────────┴── lost ────────────┘
//!      └── error ───────────┴──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Up to three connections can exist for a moment: the established one, and one from each side that is still
//! opening; `state` is that of the furthest.

mod handshake;

use std::time::{Duration, Instant};

use crate::config::{ConnectionId, PeerConfig};
use crate::connection::{Identity, Link, Negotiated, Opening, Phase};
use crate::input::Direction;
use crate::jitter::Jitter;
use crate::output::{Output, PeerState, Reason};
use crate::prefix_limit::{LimitAction, PrefixLimit};
use crate::status::MessageCounters;
use crate::wire::notification::{CEASE, HOLD_TIMER_EXPIRED, Notification, cease};
use crate::wire::{Framer, MessageType, emit_keepalive};

/// What every step of a session needs from outside.
pub(crate) struct Step<'a> {
    pub(crate) now: Instant,
    /// What peers said until then has been heard.
    pub(crate) heard: Instant,
    pub(crate) out: &'a mut Vec<Output>,
    pub(crate) jitter: &'a mut Jitter,
    pub(crate) identity: Identity,
    pub(crate) open_hold_time: Duration,
    pub(crate) error_forget: Duration,
}

/// What the rest of the speaker must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The session is Established.
    Up,
    /// It no longer is. `graceful`: nobody said that the routes are to go, so the peer may be restarting.
    Down { graceful: bool },
    /// The peer restarted: its old session is gone, a new one is opening.
    Restarted,
}

/// What an established session receives for others to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Received {
    /// Nothing.
    Nothing,
    /// The session's state changed.
    Event(Event),
    /// The message is an UPDATE.
    Update,
    /// The message is a ROUTE-REFRESH.
    RouteRefresh,
}

/// The connection over which routes are exchanged.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) link: Link,
    pub(crate) negotiated: Negotiated,
    since: Instant,
}

/// One peer's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) config: PeerConfig,
    state: PeerState,
    since: Instant,
    established: Option<Established>,
    /// By [`Direction`].
    opening: [Option<Opening>; 2],
    /// `Connect` was asked for and not yet answered.
    connecting: bool,
    /// When to ask for the next connection.
    connect_at: Option<Instant>,
    /// Refuse everything until then.
    idle_until: Option<Instant>,
    /// Refuse everything for good.
    stopped: bool,
    /// How long the next error makes us wait.
    next_error_wait: Duration,
    last_error: Option<Reason>,
    pub(crate) lost: u64,
    pub(crate) messages_in: MessageCounters,
    pub(crate) messages_out: MessageCounters,
    /// Forwarding state stood through a session before.
    pub(crate) was_established: bool,
}

impl Session {
    pub(crate) fn new(config: PeerConfig, step: &mut Step<'_>) -> Session {
        let mut session = Session {
            state: PeerState::Idle,
            since: step.now,
            established: None,
            opening: [None, None],
            connecting: false,
            connect_at: Some(step.now + config.connect_delay),
            idle_until: None,
            stopped: false,
            next_error_wait: config.error_wait.min,
            last_error: None,
            lost: 0,
            messages_in: MessageCounters::default(),
            messages_out: MessageCounters::default(),
            was_established: false,
            config,
        };
        session.settle(Reason::Started, step);
        session
    }

    pub(crate) fn state(&self) -> PeerState {
        self.state
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn last_error(&self) -> Option<&Reason> {
        self.last_error.as_ref()
    }

    pub(crate) fn established(&self) -> Option<&Established> {
        self.established.as_ref()
    }

    /// What was agreed on over a connection, once both OPENs have been seen.
    pub(crate) fn negotiated_on(&self, id: ConnectionId) -> Option<&Negotiated> {
        let established =
            self.established.as_ref().map(|established| (&established.link, &established.negotiated));
        let opening = self.opening.iter().flatten().filter_map(|opening| match &opening.phase {
            Phase::OpenConfirm(negotiated) => Some((&opening.link, &**negotiated)),
            Phase::OpenSent => None,
        });
        opening.chain(established).find(|(link, _)| link.id == id).map(|(_, negotiated)| negotiated)
    }

    /// Until when everything is refused.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        self.idle_until
    }

    /// Nobody need wait any longer: what the session rests for is no more.
    pub(crate) fn end_rest(&mut self, step: &mut Step<'_>) {
        if self.idle_until.take().is_some() {
            self.connect_at = Some(step.now);
            self.settle(Reason::Started, step);
        }
    }

    pub(crate) fn uptime(&self, now: Instant) -> Option<Duration> {
        self.established.as_ref().map(|established| now.saturating_duration_since(established.since))
    }

    /// Every connection that exists.
    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        let established = self.established.as_ref().map(|established| established.link.id);
        established.into_iter().chain(self.opening.iter().flatten().map(|opening| opening.link.id))
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let links = self.opening.iter().flatten().map(|opening| &opening.link);
        let links = links.chain(self.established.as_ref().map(|established| &established.link));
        let connect_at = self.connect_at.filter(|_| self.may_connect());
        links.filter_map(Link::next_deadline).chain(self.idle_until).chain(connect_at).min()
    }

    /// A deadline may have passed.
    pub(crate) fn tick(&mut self, step: &mut Step<'_>) -> Option<Event> {
        let now = step.now;
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let mut event = None;
        if let Some(established) = &mut self.established
            && established.link.is_silent(now, step.heard)
        {
            let id = established.link.id;
            event = self.fail(id, Notification::new(HOLD_TIMER_EXPIRED, 0), step);
        }
        for at in 0..self.opening.len() {
            if let Some(opening) = &mut self.opening[at]
                && opening.link.is_silent(now, step.heard)
            {
                let id = opening.link.id;
                self.fail(id, Notification::new(HOLD_TIMER_EXPIRED, 0), step);
            }
        }
        self.send_due_keepalives(step);
        if passed(self.idle_until) {
            self.idle_until = None;
            self.connect_at = Some(now);
            self.settle(Reason::Started, step);
        }
        if passed(self.connect_at) && self.may_connect() {
            self.connect_at = None;
            self.connecting = true;
            self.settle(Reason::Connecting, step);
            let config = &self.config;
            step.out.push(Output::Connect {
                peer: config.id,
                remote: config.remote(),
                local: config.local_address,
            });
        }
        event
    }

    /// Not while a connection exists: one is enough, and a second would only collide.
    fn may_connect(&self) -> bool {
        !self.config.passive
            && !self.connecting
            && !self.stopped
            && self.idle_until.is_none()
            && self.established.is_none()
            && self.opening.iter().all(Option::is_none)
    }

    fn send_due_keepalives(&mut self, step: &mut Step<'_>) {
        let opening = self.opening.iter_mut().flatten().filter_map(|opening| match &opening.phase {
            Phase::OpenConfirm(negotiated) => Some((&mut opening.link, negotiated.keepalive_time)),
            Phase::OpenSent => None,
        });
        let established = self
            .established
            .as_mut()
            .map(|established| (&mut established.link, established.negotiated.keepalive_time));
        for (link, interval) in opening.chain(established) {
            if link.keepalive_deadline.is_some_and(|deadline| deadline <= step.now) {
                send_keepalive(link, interval, &mut self.messages_out, step);
            }
        }
    }

    /// A TCP connection stands.
    pub(crate) fn connection_opened(
        &mut self,
        id: ConnectionId,
        direction: Direction,
        local: std::net::SocketAddr,
        step: &mut Step<'_>,
    ) {
        if direction == Direction::Outbound {
            self.connecting = false;
        }
        let beside_established = self.established.is_some();
        // A peer that restarts comes anew while we still believe in its old session (RFC 4724 §4.2).
        let may_be_restart = direction == Direction::Inbound
            && self
                .established
                .as_ref()
                .is_some_and(|established| established.negotiated.graceful_restart.is_some());
        if self.stopped || self.idle_until.is_some() || beside_established && !may_be_restart {
            step.out.push(Output::Close { connection: id });
            self.settle(Reason::ConnectionLost, step);
            return;
        }
        // Another one from the same side: whoever opened it has given up the older.
        if let Some(older) = self.opening[direction as usize].take() {
            self.close_with(&older.link, Notification::new(CEASE, cease::COLLISION), step);
        }
        let mut bytes = Vec::new();
        step.identity.open(&self.config).emit(&mut bytes);
        self.messages_out.open += 1;
        step.out.push(Output::Send { connection: id, bytes: bytes.clone() });
        let link = Link {
            id,
            direction,
            local: local.ip(),
            local_port: local.port(),
            opens: [bytes, Vec::new()],
            framer: Framer::default(),
            hold_deadline: Some(step.now + step.open_hold_time),
            hold_check: None,
            keepalive_deadline: None,
        };
        self.opening[direction as usize] = Some(Opening { link, phase: Phase::OpenSent, beside_established });
        self.settle(Reason::Connected, step);
    }

    /// Our attempt to connect came to nothing.
    pub(crate) fn connect_failed(&mut self, step: &mut Step<'_>) {
        if std::mem::take(&mut self.connecting) {
            self.connect_at = Some(step.now + step.jitter.shorten(self.config.connect_retry));
            if self.established.is_none() {
                self.last_error = Some(Reason::ConnectFailed);
            }
            self.settle(Reason::ConnectFailed, step);
        }
    }

    /// The other end closed a connection, or it broke.
    pub(crate) fn connection_closed(&mut self, id: ConnectionId, step: &mut Step<'_>) -> Option<Event> {
        self.lose(id, Reason::ConnectionLost, step)
    }

    /// A connection is gone without an error of ours.
    fn lose(&mut self, id: ConnectionId, reason: Reason, step: &mut Step<'_>) -> Option<Event> {
        let survives = self.survives_notification();
        let established = self.drop_link(id, step)?;
        // After an error the peer reports, do not hurry; a collision is none.
        let wait = match &reason {
            Reason::Received(notification) if !is_collision(notification) => self.take_error_wait(),
            _ if established => self.config.connect_delay,
            _ => self.config.connect_retry,
        };
        self.connect_at = Some(step.now + step.jitter.shorten(wait));
        self.note_error(&reason);
        let graceful = match &reason {
            Reason::Received(notification) => survives && !notification.is_hard_reset(),
            reason => *reason == Reason::ConnectionLost,
        };
        self.settle(reason, step);
        established.then_some(Event::Down { graceful })
    }

    /// Ends a connection with a NOTIFICATION; the session rests if that was its last connection.
    pub(crate) fn fail(
        &mut self,
        id: ConnectionId,
        notification: Notification,
        step: &mut Step<'_>,
    ) -> Option<Event> {
        let survives = self.survives_notification();
        let (link, established) = self.take_link(id, step)?;
        let too_many = notification.code == CEASE
            && matches!(notification.subcode, cease::MAX_PREFIXES | cease::OUT_OF_RESOURCES);
        let notification = if established { in_full(notification, survives) } else { notification };
        let graceful = survives && !notification.is_hard_reset();
        self.close_with(&link, notification.clone(), step);
        let reason = Reason::Sent(notification);
        self.note_error(&reason);
        if self.connections().next().is_none() {
            let wait = if too_many { self.rest_of_limit() } else { self.take_error_wait() };
            self.idle_until = Some(step.now + wait);
            self.connecting = false;
        }
        self.settle(reason, step);
        established.then_some(Event::Down { graceful })
    }

    /// How long a peer is refused that has announced more than it may.
    fn rest_of_limit(&self) -> Duration {
        match self.config.prefix_limit.map(|limit| limit.action) {
            Some(LimitAction::Close { rest }) => rest,
            _ => PrefixLimit::REST,
        }
    }

    /// Do both sides of the established session keep routes through a NOTIFICATION?
    fn survives_notification(&self) -> bool {
        self.established.as_ref().is_some_and(|established| established.negotiated.survives_notification)
    }

    /// Remembers why a connection ended, unless another one took its place.
    fn note_error(&mut self, reason: &Reason) {
        let collided = match reason {
            Reason::Sent(notification) | Reason::Received(notification) => is_collision(notification),
            _ => false,
        };
        if !collided {
            self.last_error = Some(reason.clone());
        }
    }

    /// Ends everything for good: with a NOTIFICATION, or without one so that the peer keeps our routes.
    pub(crate) fn stop(&mut self, notification: Option<&Notification>, step: &mut Step<'_>) -> Option<Event> {
        self.stopped = true;
        self.close_all(notification, step)
    }

    /// The way to the peer is lost: every connection ends, and the next one waits as after any error. The peer's routes
    /// don't outlive it, whatever was agreed on for restarts: they lead where nothing arrives.
    pub(crate) fn path_lost(&mut self, step: &mut Step<'_>) -> Option<Event> {
        self.connections().next()?;
        self.idle_until = Some(step.now + self.take_error_wait());
        let event = self.close_all(Some(&Notification::new(CEASE, cease::BFD_DOWN)), step);
        self.last_error = Some(Reason::Sent(Notification::new(CEASE, cease::BFD_DOWN)));
        event
    }

    /// Ends everything and begins again with another configuration.
    pub(crate) fn restart(&mut self, config: PeerConfig, step: &mut Step<'_>) -> Option<Event> {
        let event = self.close_all(Some(&Notification::new(CEASE, cease::RECONFIGURED)), step);
        self.idle_until = None;
        self.next_error_wait = config.error_wait.min;
        self.connect_at = Some(step.now + config.connect_delay);
        self.config = config;
        self.settle(Reason::Started, step);
        event
    }

    fn close_all(&mut self, notification: Option<&Notification>, step: &mut Step<'_>) -> Option<Event> {
        let event = self.established.as_ref().map(|_| Event::Down { graceful: false });
        let survives = self.survives_notification();
        let ids: Vec<_> = self.connections().collect();
        for id in ids {
            let Some((link, established)) = self.take_link(id, step) else { continue };
            match notification {
                Some(notification) => {
                    let notification = in_full(notification.clone(), established && survives);
                    self.close_with(&link, notification, step);
                }
                None => step.out.push(Output::Close { connection: link.id }),
            }
        }
        self.connecting = false;
        let reason = notification.map_or(Reason::GracefulShutdown, |sent| Reason::Sent(sent.clone()));
        self.settle(reason, step);
        event
    }

    /// Takes a connection's framer, to be given back with [`Session::return_framer`].
    pub(crate) fn take_framer(&mut self, id: ConnectionId) -> Option<Framer> {
        self.link_mut(id).map(|link| std::mem::take(&mut link.framer))
    }

    /// Gives a framer back, if the connection still is.
    pub(crate) fn return_framer(&mut self, id: ConnectionId, framer: Framer) {
        if let Some(link) = self.link_mut(id) {
            link.framer = framer;
        }
    }

    fn link_mut(&mut self, id: ConnectionId) -> Option<&mut Link> {
        let opening = self.opening.iter_mut().flatten().map(|opening| &mut opening.link);
        let established = self.established.as_mut().map(|established| &mut established.link);
        opening.chain(established).find(|link| link.id == id)
    }

    /// Forgets a connection; says whether it was the established one, `None` where it is unknown.
    fn drop_link(&mut self, id: ConnectionId, step: &Step<'_>) -> Option<bool> {
        self.take_link(id, step).map(|(_, established)| established)
    }

    fn take_link(&mut self, id: ConnectionId, step: &Step<'_>) -> Option<(Link, bool)> {
        if let Some(established) = self.established.take_if(|established| established.link.id == id) {
            self.lost += 1;
            if step.now.saturating_duration_since(established.since) >= step.error_forget {
                self.next_error_wait = self.config.error_wait.min;
            }
            return Some((established.link, true));
        }
        let is_it = |opening: &mut Opening| opening.link.id == id;
        let opening = self.opening.iter_mut().find_map(|opening| opening.take_if(is_it))?;
        Some((opening.link, false))
    }

    /// The wait for this error; the next one's is twice as long.
    fn take_error_wait(&mut self) -> Duration {
        let wait = self.next_error_wait;
        self.next_error_wait = (wait * 2).min(self.config.error_wait.max);
        wait
    }

    fn close_with(&mut self, link: &Link, notification: Notification, step: &mut Step<'_>) {
        let mut bytes = Vec::new();
        notification.emit(&mut bytes);
        self.messages_out.notification += 1;
        step.out.push(Output::Send { connection: link.id, bytes });
        step.out.push(Output::Close { connection: link.id });
    }

    /// Brings `state` in line with the connections, and tells.
    fn settle(&mut self, reason: Reason, step: &mut Step<'_>) {
        let opening = self.opening.iter().flatten().map(|opening| match opening.phase {
            Phase::OpenSent => PeerState::OpenSent,
            Phase::OpenConfirm(_) => PeerState::OpenConfirm,
        });
        let established = self.established.as_ref().map(|_| PeerState::Established);
        let state = match opening.chain(established).max() {
            Some(state) => state,
            None if self.stopped || self.idle_until.is_some() => PeerState::Idle,
            None if self.connecting => PeerState::Connect,
            None => PeerState::Active,
        };
        if state != self.state {
            let from = std::mem::replace(&mut self.state, state);
            self.since = step.now;
            step.out.push(Output::PeerStateChanged { peer: self.config.id, from, to: state, reason });
        }
    }
}

/// What says that our routes are to go at once, where NOTIFICATIONs alone no longer do (RFC 8538 §3.1, §4).
fn in_full(notification: Notification, survives: bool) -> Notification {
    let is_final = notification.code == CEASE
        && matches!(
            notification.subcode,
            cease::MAX_PREFIXES | cease::OUT_OF_RESOURCES | cease::SHUTDOWN | cease::DECONFIGURED
        );
    if survives && is_final { notification.into_hard_reset() } else { notification }
}

fn is_collision(notification: &Notification) -> bool {
    (notification.code, notification.subcode) == (CEASE, cease::COLLISION)
}

fn send_keepalive(
    link: &mut Link,
    interval: Duration,
    messages_out: &mut MessageCounters,
    step: &mut Step<'_>,
) {
    let mut bytes = Vec::new();
    emit_keepalive(&mut bytes);
    messages_out.keepalive += 1;
    step.out.push(Output::Send { connection: link.id, bytes });
    link.keepalive_deadline = Some(step.now + step.jitter.shorten(interval)).filter(|_| !interval.is_zero());
}

/// Counts messages of a type.
pub(crate) fn count(counters: &mut MessageCounters, kind: MessageType, messages: u64) {
    *match kind {
        MessageType::Open => &mut counters.open,
        MessageType::Update => &mut counters.update,
        MessageType::Notification => &mut counters.notification,
        MessageType::Keepalive => &mut counters.keepalive,
        MessageType::RouteRefresh => &mut counters.route_refresh,
    } += messages;
}
