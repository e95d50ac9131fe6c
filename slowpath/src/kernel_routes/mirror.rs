//! Our best routes, kept in the kernel.
//!
//! ```text
//!  event loop                                                                       thread "kernel-mirror"
//!  changed ────►  ledger: wanted, there │ queue of places  ──256──► requests ──►  netlink pipeline ──► kernel, table 116
//!  first_sync_done, resync                     ▲                                         │
//!                                              └──────────────── answers ◄───────────────┘
//! ```
//!
//! The event loop knows what the kernel has, a byte a prefix; what it is to have it works out when the prefix's turn comes.
//! The thread waits for the kernel, and knows nothing.
//!
//! Restart is resync: at start the thread reads what an earlier run left in the table, which is kept, so that traffic
//! flows on; what is still not desired when the first sync is done goes then. Stopping leaves the routes in place.
//! A prefix changed twice before its turn costs one request.

mod ledger;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::{IfIndex, Prefix};
use tokio::sync::Notify;

use self::ledger::{ESRCH, Full, Ledger};
use super::pipeline::{BATCH_CHANGES, Change, Pipeline};
use super::{MIRROR_PROTOCOL, MIRROR_TABLE, policy_rules, routes_of};
use crate::netlink::{Netlink, NetlinkError};
use crate::privileges::{NET_ADMIN, born_with};
use crate::rib::Place;

/// After which a route that the kernel refused is tried again; a link that comes up is a reason to [`Mirror::resync`].
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Requests that wait for the thread: as many as it needs to be busy while the event loop is busy elsewhere.
const REQUESTS_MAX: usize = 64;
/// Answers that the thread gathers before it tells of them, while it has more to do: each telling is a turn of the event loop.
const TOLD_TOGETHER: usize = REQUESTS_MAX / 4;
/// Answers that are taken before something else gets its turn.
const ANSWERS_AT_ONCE: usize = 2 * REQUESTS_MAX;
/// Prefixes in an answer about what the kernel has.
const FOUND_AT_ONCE: usize = 256;

/// One of the next hops of a mirrored route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MirrorHop {
    /// The neighbour.
    pub gateway: IpAddr,
    /// The link that it is on.
    pub ifindex: IfIndex,
    /// Its weight beside the others', from 1 to [`HOP_WEIGHT_MAX`].
    pub weight: u16,
}

/// The largest weight that rtnetlink has room for.
pub const HOP_WEIGHT_MAX: u16 = 256;

/// Where the kernel is to send packets for a mirrored route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MirrorTarget {
    /// To these gateways; at least one.
    Nexthops(Arc<[MirrorHop]>),
    /// Nowhere, silently.
    Blackhole,
    /// Into the host port, and so to the walk: local workloads, pools that need encapsulation (ARCHITECTURE.md, D1a).
    HostPort {
        /// `tortie0`.
        ifindex: IfIndex,
        /// The gateway whose MAC is the far end's: see [`HostPort`](crate::host_port::HostPort).
        via: IpAddr,
        /// The source address of what the host itself sends: the node's, or its tunnel address.
        source: Option<IpAddr>,
        /// Largest packet in bytes, where that is less than the host port takes.
        mtu: Option<u16>,
    },
}

/// What the mirror is to hold, prefix by prefix; the RIB, outside of tests.
pub trait Routes {
    /// The prefix of a place, and what the kernel is to have for it, if anything.
    fn wanted(&mut self, place: Place) -> (Prefix, Option<Arc<MirrorTarget>>);
    /// The place of a prefix, which is held from now on.
    fn hold(&mut self, prefix: Prefix) -> Place;
    /// Nothing is left to know of the place.
    fn let_go(&mut self, place: Place);
}

/// Why a route isn't mirrored.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The kernel gives no netlink socket or refuses the dump.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The thread could not be started.
    #[error("could not start the mirror's thread: {0}")]
    Thread(#[source] io::Error),
    /// Routes could not be removed.
    #[error("could not remove {count} mirrored routes, the first being {prefix}: {source}")]
    Purge {
        /// How many.
        count: usize,
        /// The first of them.
        prefix: Prefix,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// The last route that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorFailure {
    /// The destination.
    pub prefix: Prefix,
    /// The kernel's error number.
    pub errno: i32,
}

/// How far the kernel's table is from what is desired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorStatus {
    /// Routes that should be there.
    pub desired: usize,
    /// Routes that are there.
    pub installed: usize,
    /// Changes waiting for their turn.
    pub waiting: usize,
    /// Routes the kernel refused; they are tried again.
    pub failed: usize,
    /// Routes refused because the limit was reached, ever.
    pub refused_full: u64,
    /// The last refusal by the kernel.
    pub last_failure: Option<MirrorFailure>,
}

/// A change on its way to the kernel; without a target the route is removed.
#[derive(Debug)]
struct Order {
    place: Place,
    prefix: Prefix,
    target: Option<Arc<MirrorTarget>>,
}

/// What the thread is asked.
enum Request {
    /// Which routes of ours the kernel has.
    Read,
    /// To make these changes.
    Change(Vec<Order>),
}

/// What it answers, in order.
enum Answer {
    /// The kernel has these.
    Found(Vec<Prefix>),
    /// And no others.
    Read(Result<(), NetlinkError>),
    /// What became of each change.
    Changed(Vec<Order>, Result<Vec<Option<i32>>, NetlinkError>),
}

/// How well we know what the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    /// Not at all: it is asked as soon as nothing is under way.
    None,
    /// It has been asked.
    Asked,
    /// As it tells itself.
    All,
    /// Something failed; it is asked by and by.
    Lost,
}

/// Keeps the kernel's table [`MIRROR_TABLE`] equal to the desired routes. Dropping it stops the thread and leaves the
/// routes in place.
#[derive(Debug)]
pub struct Mirror {
    ledger: Ledger,
    knowledge: Knowledge,
    requests: Option<mpsc::Sender<Request>>,
    answers: mpsc::Receiver<Answer>,
    /// Requests without an answer.
    under_way: usize,
    told: Arc<Notify>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// When what the kernel refused was last tried again.
    retried: Instant,
    /// Routes that it refused until then, and those of them that it had refused before.
    refused: usize,
    refused_again: usize,
}

impl Mirror {
    /// Starts the thread, in the network namespace of the caller. At most `limit` routes are mirrored; each takes some bytes
    /// here, and some hundreds in the kernel.
    ///
    /// # Errors
    /// Where no netlink socket or no thread is to be had.
    pub fn start(limit: usize) -> Result<Mirror, MirrorError> {
        let (requests, to_do) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (told, stop) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let worker = Worker {
            requests: to_do,
            answers: answer,
            told: Arc::clone(&told),
            untold: 0,
            stop: Arc::clone(&stop),
            netlink: Netlink::open()?,
            pipeline: Pipeline::open()?,
        };
        let builder = std::thread::Builder::new().name("kernel-mirror".into());
        let thread = born_with(NET_ADMIN, || builder.spawn(move || worker.run()))
            .and_then(|thread| thread)
            .map_err(MirrorError::Thread)?;
        Ok(Mirror {
            ledger: Ledger::new(limit),
            knowledge: Knowledge::None,
            requests: Some(requests),
            answers,
            under_way: 0,
            told,
            stop,
            thread: Some(thread),
            retried: Instant::now(),
            refused: 0,
            refused_again: 0,
        })
    }

    /// What the kernel is to have for a prefix is another thing than before. `is_wanted`: it is something at all. Says
    /// whether the place must be held until [`Routes::let_go`].
    ///
    /// What the limit forbids is counted, and logged once.
    pub fn changed(&mut self, place: Place, is_wanted: bool) -> bool {
        self.ledger.change(place, is_wanted).unwrap_or_else(|Full| {
            let MirrorStatus { desired, refused_full, .. } = self.ledger.status();
            if refused_full == 1 {
                tracing::warn!(
                    "the mirror holds its limit of {desired} routes; others stay out of the kernel: raise \
                     limits.mirror_routes (more of these are counted, not logged)"
                );
            }
            false
        })
    }

    /// Takes what the thread has answered, and gives it more to do.
    pub fn go_on(&mut self, routes: &mut impl Routes) {
        for _ in 0..ANSWERS_AT_ONCE {
            let Ok(answer) = self.answers.try_recv() else { break };
            self.hear(answer, routes);
        }
        self.ask(routes);
    }

    fn hear(&mut self, answer: Answer, routes: &mut impl Routes) {
        match answer {
            Answer::Found(prefixes) => {
                for prefix in prefixes {
                    self.ledger.found(routes.hold(prefix));
                }
                // There is more to come, for which nobody will call again.
                self.told.notify_one();
            }
            Answer::Read(Ok(())) => {
                self.under_way -= 1;
                self.ledger.all_found();
                // Unless it is to be asked again: a link has changed meanwhile.
                if self.knowledge == Knowledge::Asked {
                    self.knowledge = Knowledge::All;
                }
            }
            Answer::Read(Err(error)) => {
                self.under_way -= 1;
                self.knowledge = lost(&error);
            }
            Answer::Changed(orders, Ok(outcomes)) => {
                self.under_way -= 1;
                for (order, refusal) in orders.iter().zip(outcomes) {
                    if let Some(errno) = refusal {
                        let reason = io::Error::from_raw_os_error(errno);
                        tracing::debug!(prefix = %order.prefix, %reason, "the kernel refused a mirrored route");
                    }
                    self.ledger.record(order.place, order.prefix, order.target.is_some(), refusal);
                }
            }
            Answer::Changed(orders, Err(error)) => {
                self.under_way -= 1;
                orders.iter().for_each(|order| self.ledger.lost(order.place));
                self.knowledge = lost(&error);
            }
        }
        for place in self.ledger.take_released() {
            routes.let_go(place);
        }
    }

    fn ask(&mut self, routes: &mut impl Routes) {
        if self.knowledge == Knowledge::None && self.under_way == 0 {
            self.knowledge = Knowledge::Asked;
            self.request(Request::Read);
        }
        while self.knowledge == Knowledge::All && self.under_way < REQUESTS_MAX {
            let orders = self.take_orders(routes);
            if orders.is_empty() {
                return;
            }
            self.request(Request::Change(orders));
        }
    }

    fn take_orders(&mut self, routes: &mut impl Routes) -> Vec<Order> {
        let mut orders = Vec::new();
        while orders.len() < BATCH_CHANGES
            && let Some(order) = self.ledger.next_order()
        {
            let (ledger::Order::Install(place) | ledger::Order::Remove(place)) = order;
            let (prefix, mut target) = routes.wanted(place);
            if order == ledger::Order::Remove(place) {
                target = None;
            } else if target.is_none() {
                self.ledger.is_not_wanted(place);
            }
            orders.push(Order { place, prefix, target });
        }
        for place in self.ledger.take_released() {
            routes.let_go(place);
        }
        orders
    }

    fn request(&mut self, request: Request) {
        let requests = self.requests.as_ref();
        if requests.is_some_and(|requests| requests.send(request).is_ok()) {
            self.under_way += 1;
        }
    }

    /// Waits until [`Self::go_on`] has something to take.
    pub async fn has_news(&self) {
        self.told.notified().await;
    }

    /// Due every second: what failed is tried again.
    pub fn retry(&mut self) {
        if self.knowledge == Knowledge::Lost {
            self.knowledge = Knowledge::None;
        }
        if self.retried.elapsed() >= RETRY_INTERVAL {
            self.retried = Instant::now();
            self.retry_refused();
        }
    }

    /// What is refused once may be a matter of a moment, as where a link goes: what is refused again is told.
    fn retry_refused(&mut self) {
        let refused = self.ledger.status().failed;
        let again = refused.min(std::mem::replace(&mut self.refused, refused));
        let before = std::mem::replace(&mut self.refused_again, again);
        if let Some(warning) = self.warning().filter(|_| before == 0) {
            tracing::warn!("{warning}");
        }
        self.ledger.queue_refused();
    }

    /// What an operator should know of routes that the kernel refuses time and again.
    pub fn warning(&self) -> Option<String> {
        let MirrorFailure { prefix, errno } =
            self.ledger.status().last_failure.filter(|_| self.refused_again > 0)?;
        let others = match self.refused_again - 1 {
            0 => String::new(),
            others => format!(" and {others} more routes"),
        };
        let reason = io::Error::from_raw_os_error(errno);
        Some(format!(
            "the kernel refuses {prefix}{others} of its mirror: {reason}; without the router, and for the host's own packets at \
             any time, they aren't there: does `ip route get` find their next hops?"
        ))
    }

    /// All routes desired at start-up have been named: what an earlier run left and nobody named may go.
    pub fn first_sync_done(&mut self) {
        self.ledger.allow_sweep();
    }

    /// Compares with the kernel again. Due after a link went down or up: the kernel drops routes through a link that
    /// goes down and doesn't bring them back.
    pub fn resync(&mut self) {
        self.knowledge = Knowledge::None;
    }

    /// How far along it is.
    pub fn status(&self) -> MirrorStatus {
        self.ledger.status()
    }

    fn is_idle(&self) -> bool {
        self.under_way == 0 && self.ledger.is_idle() && self.knowledge == Knowledge::All
    }

    /// Goes on until every change has been made, or `timeout` has passed; says which. It blocks meanwhile.
    pub fn wait_until_idle(&mut self, routes: &mut impl Routes, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            self.go_on(routes);
            if self.is_idle() {
                return true;
            }
            match self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(answer) => self.hear(answer, routes),
                Err(_) => return false,
            }
        }
    }
}

fn lost(error: &NetlinkError) -> Knowledge {
    tracing::warn!(%error, "mirroring routes into the kernel failed; reading its table again");
    Knowledge::Lost
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// The thread's half: it does as it is told, in order.
struct Worker {
    requests: mpsc::Receiver<Request>,
    answers: mpsc::Sender<Answer>,
    told: Arc<Notify>,
    /// Answers since it last told of any.
    untold: usize,
    stop: Arc<AtomicBool>,
    netlink: Netlink,
    pipeline: Pipeline,
}

impl Worker {
    fn run(mut self) {
        while let Some(request) = self.next()
            && !self.stop.load(Ordering::Relaxed)
        {
            let answer = match request {
                Request::Read => Answer::Read(self.read_table()),
                Request::Change(orders) => {
                    let changes = orders.iter().map(|order| match &order.target {
                        Some(target) => (order.prefix, Change::Install(target)),
                        None => (order.prefix, Change::Remove),
                    });
                    let socket_error =
                        |source| NetlinkError::Socket { what: "change mirrored routes", source };
                    let outcomes = self.pipeline.apply(changes).map_err(socket_error);
                    Answer::Changed(orders, outcomes)
                }
            };
            self.answer(answer);
        }
    }

    fn read_table(&mut self) -> Result<(), NetlinkError> {
        let found = mirrored_prefixes(&mut self.netlink)?;
        for part in found.chunks(FOUND_AT_ONCE) {
            self.answer(Answer::Found(part.to_vec()));
        }
        Ok(())
    }

    /// What is to be done next; `None` where the mirror is gone.
    fn next(&mut self) -> Option<Request> {
        match self.requests.try_recv() {
            Ok(request) => Some(request),
            Err(_) => {
                self.tell();
                self.requests.recv().ok()
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        // The mirror is gone: nobody waits.
        let _ = self.answers.send(answer);
        self.untold += 1;
        if self.untold >= TOLD_TOGETHER {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if std::mem::take(&mut self.untold) > 0 {
            self.told.notify_one();
        }
    }
}

fn mirrored_prefixes(netlink: &mut Netlink) -> Result<Vec<Prefix>, NetlinkError> {
    routes_of(netlink, "list the mirrored routes", MIRROR_TABLE, |route| {
        (route.protocol == MIRROR_PROTOCOL).then_some(route.prefix)
    })
}

/// Removes everything of ours from the kernel's routing: the rules, then the routes. For a clean uninstall, with no
/// [`Mirror`] running. Yields how many routes there were.
///
/// # Errors
/// Where the kernel refuses.
pub fn purge(netlink: &mut Netlink) -> Result<usize, MirrorError> {
    policy_rules::remove_rules(netlink)?;
    let prefixes = mirrored_prefixes(netlink)?;
    let mut pipeline = Pipeline::open()?;
    let mut left = Vec::new();
    for batch in prefixes.chunks(BATCH_CHANGES) {
        let socket_error = |source| NetlinkError::Socket { what: "remove mirrored routes", source };
        let changes = batch.iter().map(|prefix| (*prefix, Change::Remove));
        let outcomes = pipeline.apply(changes).map_err(socket_error)?;
        let refused =
            |(prefix, errno): (&Prefix, Option<i32>)| Some((*prefix, errno.filter(|e| *e != ESRCH)?));
        left.extend(batch.iter().zip(outcomes).filter_map(refused));
    }
    match left.first() {
        None => Ok(prefixes.len()),
        Some(&(prefix, errno)) => {
            let source = io::Error::from_raw_os_error(errno);
            Err(MirrorError::Purge { count: left.len(), prefix, source })
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
