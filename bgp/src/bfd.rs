//! BFD: is the way to a neighbour alive, told within milliseconds (RFC 5880; 5881 for one hop, 5883 for several).
//!
//! As pure as the rest of the room: [`Bfd::received`] takes a datagram and what the kernel knows of it, [`Bfd::tick`] comes
//! when [`Bfd::next_deadline`] has passed, and both append [`BfdOutput`]s. Asynchronous mode, without echo and
//! authentication: a packet that has any is refused and counted.

mod session;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::jitter::Jitter;
use session::{Session, Step};

pub use session::BfdConfig;
pub use wire::{CONTROL_LEN, Control, Diagnostic, Refused, State};

/// The TTL that one hop's packets leave and arrive with (RFC 5881 §5).
const ONE_HOP_TTL: u8 = 255;

/// What a session watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BfdPath {
    /// The other end.
    pub remote: IpAddr,
    /// Our end.
    pub local: IpAddr,
    /// The link between them (RFC 5881); `None` is any number of hops (RFC 5883).
    pub link: Option<u32>,
}

/// A datagram that came to one of BFD's ports.
#[derive(Clone, Copy, Debug)]
pub struct BfdDatagram<'a> {
    /// Who sent it.
    pub from: IpAddr,
    /// To which address of ours.
    pub to: IpAddr,
    /// By which link.
    pub link: u32,
    /// To the port of multihop sessions.
    pub multihop: bool,
    /// Its TTL, or hop limit, on arrival.
    pub ttl: u8,
    /// When it came, which may be a while before it is looked at.
    pub at: Instant,
    /// Its payload.
    pub bytes: &'a [u8],
}

/// What is asked for or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BfdOutput {
    /// Send this on the way that it is about, with a TTL of 255.
    Send {
        /// From where to where.
        path: BfdPath,
        /// The payload.
        bytes: [u8; CONTROL_LEN],
    },
    /// A session's state is another one.
    Changed {
        /// Whose.
        path: BfdPath,
        /// It was.
        from: State,
        /// It is.
        to: State,
        /// Why, where it is down.
        diagnostic: Diagnostic,
        /// The other end has been taken down by its operator: no failure of the way (RFC 5882 §3.2).
        remote_admin_down: bool,
    },
}

/// A session as it is, for people and programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdStatus {
    /// What it watches.
    pub path: BfdPath,
    /// Its state.
    pub state: State,
    /// How long it has been in it.
    pub age: Duration,
    /// Why it was last down.
    pub diagnostic: Diagnostic,
    /// What the other end says of itself, where it is heard.
    pub remote: Option<(State, Diagnostic)>,
    /// Our discriminator and the other end's, which is 0 until it is heard.
    pub discriminators: (u32, u32),
    /// How often we send, before jitter; `None`: the other end wants nothing.
    pub transmit_interval: Option<Duration>,
    /// After which silence the other end counts as lost; `None` until it is heard.
    pub detection_time: Option<Duration>,
    /// How often it came up.
    pub ups: u64,
    /// Packets taken.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
}

#[derive(Debug)]
struct Row {
    session: Session,
    /// As it stands in the schedule.
    due: Option<Instant>,
    ups: u64,
    received: u64,
    sent: u64,
}

/// All sessions.
#[derive(Debug)]
pub struct Bfd {
    rows: BTreeMap<BfdPath, Row>,
    by_discriminator: BTreeMap<NonZeroU32, BfdPath>,
    schedule: BTreeSet<(Instant, BfdPath)>,
    discriminators: Jitter,
    max_sessions: usize,
    refused: BTreeMap<Refused, u64>,
    steps: Vec<Step>,
}

impl Bfd {
    /// No sessions, and never more than `max_sessions`. Who can't guess the seed can't guess discriminators.
    pub fn new(seed: u64, max_sessions: usize) -> Bfd {
        Bfd {
            rows: BTreeMap::new(),
            by_discriminator: BTreeMap::new(),
            schedule: BTreeSet::new(),
            discriminators: Jitter::new(seed),
            max_sessions,
            refused: BTreeMap::new(),
            steps: Vec::new(),
        }
    }

    /// Watches a way, or goes on watching it at another pace. `false` where there are as many sessions as there may be.
    pub fn put(&mut self, path: BfdPath, config: BfdConfig, now: Instant, out: &mut Vec<BfdOutput>) -> bool {
        if !self.rows.contains_key(&path) {
            if self.rows.len() >= self.max_sessions {
                return false;
            }
            let discriminator = self.new_discriminator();
            self.by_discriminator.insert(discriminator, path);
            let session = Session::new(discriminator, config, now);
            self.rows.insert(path, Row { session, due: None, ups: 0, received: 0, sent: 0 });
        }
        self.step(path, now, out, |session, now, steps| {
            session.configure(config, now, steps);
            session.tick(now, steps);
        });
        true
    }

    /// Watches a way no longer. The other end is told that this is no failure.
    pub fn remove(&mut self, path: BfdPath, now: Instant, out: &mut Vec<BfdOutput>) {
        self.step(path, now, out, Session::farewell);
        if let Some(row) = self.rows.remove(&path) {
            self.by_discriminator.remove(&row.session.discriminator());
            if let Some(due) = row.due {
                self.schedule.remove(&(due, path));
            }
        }
    }

    /// The caller knows that the way is gone, as where the carrier of its link is lost: no need to wait for silence.
    pub fn path_down(&mut self, path: BfdPath, now: Instant, out: &mut Vec<BfdOutput>) {
        self.step(path, now, out, Session::path_down);
    }

    /// Takes a datagram; one that is for no session is counted and has no effect.
    pub fn received(&mut self, datagram: &BfdDatagram<'_>, now: Instant, out: &mut Vec<BfdOutput>) {
        match self.find(datagram) {
            Ok((path, packet)) => {
                if let Some(row) = self.rows.get_mut(&path) {
                    row.received += 1;
                }
                let at = datagram.at;
                self.step(path, now, out, |session, now, steps| session.receive(&packet, at, now, steps));
            }
            Err(refused) => *self.refused.entry(refused).or_default() += 1,
        }
    }

    /// The session that a datagram is for (RFC 5880 §6.8.6, RFC 5881 §3).
    fn find(&self, datagram: &BfdDatagram<'_>) -> Result<(BfdPath, Control), Refused> {
        if !datagram.multihop && datagram.ttl != ONE_HOP_TTL {
            return Err(Refused::Ttl);
        }
        let packet = Control::parse(datagram.bytes)?;
        let is_its = |path: &BfdPath| match path.link {
            Some(link) => path.remote == datagram.from && !datagram.multihop && link == datagram.link,
            None => (path.remote, path.local) == (datagram.from, datagram.to) && datagram.multihop,
        };
        let found = match NonZeroU32::new(packet.your_discriminator) {
            Some(ours) => self.by_discriminator.get(&ours).copied().filter(is_its),
            // Until the other end knows our number: the one session with it, over this link or between these addresses.
            None => {
                let first = BfdPath { remote: datagram.from, local: [0; 4].into(), link: None };
                let same_remote = self.rows.range(first..).map(|(path, _)| path);
                same_remote.take_while(|path| path.remote == datagram.from).find(|path| is_its(path)).copied()
            }
        };
        Ok((found.ok_or(Refused::NoSession)?, packet))
    }

    /// Does what is due. What has come until then is to be given first: silence is told from what wasn't looked at by that.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<BfdOutput>) {
        while let Some((due, path)) = self.schedule.first().copied().filter(|(due, _)| *due <= now) {
            self.schedule.remove(&(due, path));
            if let Some(row) = self.rows.get_mut(&path) {
                row.due = None;
            }
            self.step(path, now, out, Session::tick);
        }
    }

    /// When to come back with [`Self::tick`].
    pub fn next_deadline(&self) -> Option<Instant> {
        self.schedule.first().map(|(due, _)| *due)
    }

    /// What is watched.
    pub fn paths(&self) -> impl Iterator<Item = BfdPath> + '_ {
        self.rows.keys().copied()
    }

    /// Every session, in order of the other end's address.
    pub fn status(&self, now: Instant) -> Vec<BfdStatus> {
        let status = |(path, row): (&BfdPath, &Row)| BfdStatus {
            path: *path,
            state: row.session.state(),
            age: now.saturating_duration_since(row.session.since()),
            diagnostic: row.session.diagnostic(),
            remote: row.session.remote().map(|remote| (remote.state, remote.diagnostic)),
            discriminators: (
                row.session.discriminator().get(),
                row.session.remote().map_or(0, |remote| remote.discriminator),
            ),
            transmit_interval: row.session.transmit_interval(),
            detection_time: row.session.detection_time(),
            ups: row.ups,
            received: row.received,
            sent: row.sent,
        };
        self.rows.iter().map(status).collect()
    }

    /// Packets that were refused, by reason.
    pub fn refused(&self) -> &BTreeMap<Refused, u64> {
        &self.refused
    }

    fn step(
        &mut self,
        path: BfdPath,
        now: Instant,
        out: &mut Vec<BfdOutput>,
        act: impl FnOnce(&mut Session, Instant, &mut Vec<Step>),
    ) {
        let Some(row) = self.rows.get_mut(&path) else { return };
        act(&mut row.session, now, &mut self.steps);
        for step in self.steps.drain(..) {
            out.push(match step {
                Step::Send(packet) => {
                    row.sent += 1;
                    BfdOutput::Send { path, bytes: packet.emit() }
                }
                Step::Changed { from, to } => {
                    row.ups += u64::from(to == State::Up);
                    let remote = row.session.remote().map(|remote| remote.state);
                    let remote_admin_down = to == State::Down && remote == Some(State::AdminDown);
                    BfdOutput::Changed {
                        path,
                        from,
                        to,
                        diagnostic: row.session.diagnostic(),
                        remote_admin_down,
                    }
                }
            });
        }
        let due = row.session.next_deadline();
        if due != row.due {
            if let Some(before) = row.due {
                self.schedule.remove(&(before, path));
            }
            if let Some(due) = due {
                self.schedule.insert((due, path));
            }
            row.due = due;
        }
    }

    /// Not zero, and no other session's.
    fn new_discriminator(&mut self) -> NonZeroU32 {
        loop {
            let drawn = NonZeroU32::new(self.discriminators.draw() as u32);
            if let Some(drawn) = drawn.filter(|drawn| !self.by_discriminator.contains_key(drawn)) {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests;
