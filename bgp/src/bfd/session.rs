//! One BFD session: the state machine of RFC 5880 §6.2 and the timers of §6.8.
//!
//! ```text
//!             ┌──────── Down heard, or nothing for the detection time ────────┐
//!             ▼                                                               │
//!           Down ── Down heard ──► Init ── Init or Up heard ──────────────► Up
//!             └───────────────────── Init heard ──────────────────────────────▲
//! ```
//! Asynchronous mode without echo and authentication; we take the active role.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::wire::{Control, Diagnostic, State, microseconds};
use crate::jitter::Jitter;

/// RFC 5880 §6.8.3: no faster than this while the session isn't up.
const SLOWEST_START: Duration = Duration::from_secs(1);

/// How a session beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BfdConfig {
    /// Packets of ours that may be lost in a row; at least 1.
    pub detect_mult: u8,
    /// Least interval at which we send while the session is up.
    pub desired_min_tx: Duration,
    /// Least interval at which we can receive.
    pub required_min_rx: Duration,
    /// Interval at which we send while it isn't up; less than 1 s is 1 s.
    pub idle_tx: Duration,
}

impl Default for BfdConfig {
    /// BIRD's defaults, which are Calico's but for `idle_tx`.
    fn default() -> Self {
        BfdConfig {
            detect_mult: 5,
            desired_min_tx: Duration::from_millis(100),
            required_min_rx: Duration::from_millis(10),
            idle_tx: SLOWEST_START,
        }
    }
}

/// What a step of a session asks for or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this.
    Send(Control),
    /// The state is another one.
    Changed {
        /// It was.
        from: State,
        /// It is.
        to: State,
    },
}

/// What the other end's latest packet said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote {
    pub(crate) discriminator: u32,
    pub(crate) state: State,
    pub(crate) diagnostic: Diagnostic,
    pub(crate) demand: bool,
    pub(crate) detect_mult: u8,
    pub(crate) desired_min_tx: Duration,
    pub(crate) required_min_rx: Duration,
}

/// Parameters that were changed, and whether the other end knows them (RFC 5880 §6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    None,
    /// It was asked to confirm.
    Asked,
    /// They changed again meanwhile: its next answer may be to the question before.
    AskAgain,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    config: BfdConfig,
    discriminator: NonZeroU32,
    state: State,
    since: Instant,
    diagnostic: Diagnostic,
    /// None until the other end is heard, and again once it is silent for the detection time.
    remote: Option<Remote>,
    poll: Poll,
    /// What the other end is known to expect of us, and we of it: behind the configuration while a poll is under way.
    tx_in_force: Duration,
    rx_in_force: Duration,
    sent_at: Option<Instant>,
    /// The content of the latest packet, but for poll and final.
    told: Option<Control>,
    /// When the next one is due, and of which interval that was made.
    send_at: Option<Instant>,
    interval: Option<Duration>,
    detect_at: Option<Instant>,
    jitter: Jitter,
}

impl Session {
    /// Down, and about to send.
    pub(crate) fn new(discriminator: NonZeroU32, config: BfdConfig, now: Instant) -> Session {
        Session {
            config,
            discriminator,
            state: State::Down,
            since: now,
            diagnostic: Diagnostic::NONE,
            remote: None,
            poll: Poll::None,
            tx_in_force: config.idle_tx.max(SLOWEST_START),
            rx_in_force: config.required_min_rx,
            sent_at: None,
            told: None,
            send_at: Some(now),
            interval: None,
            detect_at: None,
            jitter: Jitter::new(discriminator.get().into()),
        }
    }

    pub(crate) fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    pub(crate) fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// How often we send, before jitter; `None` where the other end wants nothing.
    pub(crate) fn transmit_interval(&self) -> Option<Duration> {
        let Some(remote) = &self.remote else { return Some(self.tx_in_force) };
        // RFC 5880 §6.8.7: not while the other end asks for silence, by a zero interval or demand mode.
        let demand = remote.demand && remote.state == State::Up && self.state == State::Up;
        let silent = remote.required_min_rx.is_zero() || demand && self.poll == Poll::None;
        (!silent).then(|| self.tx_in_force.max(remote.required_min_rx))
    }

    /// How long silence may last (RFC 5880 §6.8.4); `None` until the other end is heard.
    pub(crate) fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote.as_ref()?;
        Some(self.rx_in_force.max(remote.desired_min_tx) * u32::from(remote.detect_mult))
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.send_at, self.detect_at].into_iter().flatten().min()
    }

    /// A deadline may have passed.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Step>) {
        if self.detect_at.is_some_and(|at| at <= now) {
            self.detect_at = None;
            self.remote = None;
            if matches!(self.state, State::Init | State::Up) {
                self.enter(State::Down, Diagnostic::DETECTION_TIME_EXPIRED, now, out);
            }
            self.tell_news(now, out);
        }
        if self.send_at.is_some_and(|at| at <= now) {
            self.send(now, out);
        }
    }

    /// A packet of the other end's (RFC 5880 §6.8.6, from where the session is known), which came at `at`: silence lasts from
    /// then on, however late it is looked at.
    pub(crate) fn receive(&mut self, packet: &Control, at: Instant, now: Instant, out: &mut Vec<Step>) {
        self.remote = Some(Remote {
            discriminator: packet.my_discriminator.get(),
            state: packet.state,
            diagnostic: packet.diagnostic,
            demand: packet.demand,
            detect_mult: packet.detect_mult,
            desired_min_tx: Duration::from_micros(packet.desired_min_tx.into()),
            required_min_rx: Duration::from_micros(packet.required_min_rx.into()),
        });
        if packet.final_ {
            self.poll_is_answered();
        }
        self.detect_at = self.detection_time().map(|time| at.min(now) + time);
        if self.state == State::AdminDown {
            return;
        }
        let next = next_state(self.state, packet.state);
        if next != self.state {
            let diagnostic = if next == State::Down { Diagnostic::NEIGHBOR_DOWN } else { Diagnostic::NONE };
            // A session that comes up keeps telling why it was last down until it is up.
            let diagnostic = if next == State::Init { self.diagnostic } else { diagnostic };
            self.enter(next, diagnostic, now, out);
        }
        if packet.poll {
            out.push(Step::Send(Control { final_: true, poll: false, ..self.packet() }));
        }
        self.tell_news(now, out);
        self.reschedule(now);
    }

    /// Beats otherwise from now on.
    pub(crate) fn configure(&mut self, config: BfdConfig, now: Instant, out: &mut Vec<Step>) {
        let before = std::mem::replace(&mut self.config, config);
        if before != config {
            self.parameters_changed();
            self.detect_at = match (self.detect_at, self.detection_time()) {
                // Silence that is allowed to last longer does so from when it began.
                (Some(at), Some(time)) => Some(at.max(now + time)),
                (at, _) => at,
            };
            self.tell_news(now, out);
            self.reschedule(now);
        }
    }

    /// The last packet of a session that ends here on purpose: the other end must not take it for a failure.
    pub(crate) fn farewell(&mut self, now: Instant, out: &mut Vec<Step>) {
        if self.state != State::AdminDown {
            self.enter(State::AdminDown, Diagnostic::ADMIN_DOWN, now, out);
            self.send(now, out);
        }
    }

    /// Ends because the caller knows that the way is gone, as where the carrier is lost.
    pub(crate) fn path_down(&mut self, now: Instant, out: &mut Vec<Step>) {
        if matches!(self.state, State::Init | State::Up) {
            self.remote = None;
            self.detect_at = None;
            self.enter(State::Down, Diagnostic::PATH_DOWN, now, out);
            self.tell_news(now, out);
        }
    }

    fn enter(&mut self, to: State, diagnostic: Diagnostic, now: Instant, out: &mut Vec<Step>) {
        let from = std::mem::replace(&mut self.state, to);
        self.diagnostic = diagnostic;
        self.since = now;
        out.push(Step::Changed { from, to });
        self.parameters_changed();
    }

    /// Our least interval of sending: slow until the session is up.
    fn desired_min_tx(&self) -> Duration {
        match self.state {
            State::Up => self.config.desired_min_tx,
            _ => self.config.idle_tx.max(SLOWEST_START),
        }
    }

    /// RFC 5880 §6.8.3: what makes packets rarer, or more of them expected, waits for the other end to know.
    fn parameters_changed(&mut self) {
        let (tx, rx) = (self.desired_min_tx(), self.config.required_min_rx);
        if self.state != State::Up {
            (self.tx_in_force, self.rx_in_force, self.poll) = (tx, rx, Poll::None);
            return;
        }
        self.tx_in_force = self.tx_in_force.min(tx);
        self.rx_in_force = self.rx_in_force.max(rx);
        self.poll = if self.poll == Poll::None { Poll::Asked } else { Poll::AskAgain };
    }

    fn poll_is_answered(&mut self) {
        match self.poll {
            Poll::None => {}
            Poll::AskAgain => self.poll = Poll::Asked,
            Poll::Asked => {
                self.poll = Poll::None;
                (self.tx_in_force, self.rx_in_force) = (self.desired_min_tx(), self.config.required_min_rx);
            }
        }
    }

    fn packet(&self) -> Control {
        Control {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.poll != Poll::None,
            final_: false,
            // Forwarding is the same process: it doesn't outlive this one.
            control_plane_independent: false,
            demand: false,
            detect_mult: self.config.detect_mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map_or(0, |remote| remote.discriminator),
            desired_min_tx: microseconds(self.desired_min_tx()),
            required_min_rx: microseconds(self.config.required_min_rx),
            required_min_echo_rx: 0,
        }
    }

    /// Sends at once where there is something that the other end doesn't know.
    fn tell_news(&mut self, now: Instant, out: &mut Vec<Step>) {
        let content = Control { poll: false, ..self.packet() };
        if self.told != Some(content) && self.transmit_interval().is_some() {
            self.send(now, out);
        }
    }

    fn send(&mut self, now: Instant, out: &mut Vec<Step>) {
        let packet = self.packet();
        self.told = Some(Control { poll: false, ..packet });
        self.sent_at = Some(now);
        self.interval = None;
        // Silence is kept by `reschedule`; what falls due before it was asked for is a packet too many, no harm.
        if self.transmit_interval().is_some() {
            out.push(Step::Send(packet));
        }
        self.reschedule(now);
    }

    /// When the next packet is due: later or earlier where the interval is another than the one that was reckoned with.
    fn reschedule(&mut self, now: Instant) {
        let interval = self.transmit_interval();
        if interval == self.interval && self.send_at.is_some() == interval.is_some() {
            return;
        }
        self.interval = interval;
        self.send_at = interval.map(|interval| {
            let jittered = self.jittered(interval);
            self.sent_at.map_or(now, |sent| (sent + jittered).max(now))
        });
    }

    /// RFC 5880 §6.8.7: 75 to 100 % of the interval, to 90 % where no packet may be lost.
    fn jittered(&mut self, interval: Duration) -> Duration {
        let jittered = self.jitter.shorten(interval);
        if self.config.detect_mult > 1 {
            return jittered;
        }
        // From 75..100 to 75..90.
        let least = interval * 3 / 4;
        least + (jittered.saturating_sub(least)) * 3 / 5
    }
}

/// RFC 5880 §6.8.6, the state machine itself: where we are, and where the other end says it is.
pub(crate) fn next_state(own: State, heard: State) -> State {
    match (own, heard) {
        (State::AdminDown, _) => State::AdminDown,
        (_, State::AdminDown) => State::Down,
        (State::Down, State::Down) => State::Init,
        (State::Down, State::Init) => State::Up,
        (State::Down, State::Up) => State::Down,
        (State::Init, State::Down) => State::Init,
        (State::Init, State::Init | State::Up) => State::Up,
        (State::Up, State::Down) => State::Down,
        (State::Up, State::Init | State::Up) => State::Up,
    }
}

#[cfg(test)]
mod tests;
