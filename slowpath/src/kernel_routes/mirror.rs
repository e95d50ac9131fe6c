//! Our best routes, kept in the kernel.
//!
//! ```text
//!  event loop            inbox                rows (one lock)                      mirror thread
//!  apply ─────────────► changes ────►  prefix │ desired │ installed   ──256──►   netlink pipeline ──► kernel, table 116
//!  first_sync_done, resync                     └── dirty queue                   ◄── outcomes
//! ```
//!
//! The event loop leaves what it wants in the inbox and goes on; the thread looks it up in the rows. Where the thread falls
//! behind by more than [`INBOX_MAX`] changes the event loop does that itself.
//!
//! Restart is resync: at start the thread reads what an earlier run left in the table and keeps it, so that traffic
//! flows on; what is still not desired when the first sync is done goes then. Stopping leaves the routes in place.
//! A prefix changed twice before its turn costs one request.

mod rows;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::{IfIndex, Prefix};

use self::rows::{ESRCH, Order, Rows};
use super::pipeline::{BATCH_CHANGES, Change, Pipeline};
use super::{MIRROR_PROTOCOL, MIRROR_TABLE, policy_rules, routes_of};
use crate::netlink::{Netlink, NetlinkError};

/// After which a route that the kernel refused is tried again; a link that comes up is a reason to [`Mirror::resync`].
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// After which the thread goes on when its socket failed.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);

/// Changes that may wait to be looked up in the rows, at 32 bytes each.
const INBOX_MAX: usize = 1 << 18;

/// Where the kernel is to send packets for a mirrored route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MirrorTarget {
    /// To these gateways in equal parts; at least one.
    Nexthops(Arc<[(IpAddr, IfIndex)]>),
    /// Nowhere, silently.
    Blackhole,
    /// Into the host port, and so to the walk: local workloads, pools that need encapsulation (DESIGN.md, D1a).
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

/// Routes wanted, each in place of what there was for its prefix; without a target there is to be none of ours.
pub type Changes = Vec<(Prefix, Option<Arc<MirrorTarget>>)>;

/// Why a route isn't mirrored.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The kernel gives no netlink socket or refuses the dump.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The thread could not be started.
    #[error("could not start the mirror's thread: {0}")]
    Thread(#[source] io::Error),
    /// The limit is reached; the walk still has the route, the kernel's fall-back lacks it.
    #[error("the mirror holds its limit of {limit} routes; {prefix} stays out of the kernel")]
    Full {
        /// The route left out.
        prefix: Prefix,
        /// The limit.
        limit: usize,
    },
    /// A route without a next hop.
    #[error("{prefix} has no next hop to mirror")]
    NoNexthop {
        /// The route left out.
        prefix: Prefix,
    },
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

/// Keeps the kernel's table [`MIRROR_TABLE`] equal to the desired routes. Dropping it stops the thread and leaves the
/// routes in place.
#[derive(Debug)]
pub struct Mirror {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Locked after the rows, where both are.
    inbox: Mutex<Inbox>,
    work: Condvar,
    rows: Mutex<Rows>,
    idle: Condvar,
}

/// What the thread is to look at.
#[derive(Debug, Default)]
struct Inbox {
    changes: Vec<Order>,
    /// There is something to do that the thread hasn't looked at.
    is_called: bool,
    stop: bool,
}

impl Shared {
    /// The rows, with all that was in the inbox.
    fn rows(&self) -> MutexGuard<'_, Rows> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = std::mem::take(&mut self.inbox().changes);
        for (prefix, target) in changes {
            let Some(target) = target else {
                rows.undesire(prefix);
                continue;
            };
            match rows.desire(prefix, target) {
                Err(error @ MirrorError::Full { .. }) if rows.refused_full == 1 => {
                    tracing::warn!(
                        "{error}; raise limits.mirror_routes (more of these are counted, not logged)"
                    );
                }
                Ok(()) | Err(MirrorError::Full { .. }) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
        rows
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the thread.
    fn call(&self) {
        self.inbox().is_called = true;
        self.work.notify_one();
    }

    /// Waits until the thread is called, or `at_most`.
    fn wait(&self, at_most: Duration) {
        let waited =
            self.work.wait_timeout_while(self.inbox(), at_most, |inbox| !inbox.is_called && !inbox.stop);
        let (mut inbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inbox.is_called = false;
    }
}

impl Mirror {
    /// Starts the thread, in the network namespace of the caller. At most `limit` routes are mirrored; each takes 60
    /// to 120 bytes here, and some hundreds in the kernel.
    ///
    /// # Errors
    /// Where no netlink socket or no thread is to be had.
    pub fn start(limit: usize) -> Result<Mirror, MirrorError> {
        let netlink = Netlink::open()?;
        let pipeline = Pipeline::open()?;
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            work: Condvar::new(),
            rows: Mutex::new(Rows::new(limit)),
            idle: Condvar::new(),
        });
        let worker = Worker { shared: Arc::clone(&shared), netlink, pipeline, retried: Instant::now() };
        let builder = std::thread::Builder::new().name("kernel-mirror".into());
        let thread = builder.spawn(move || worker.run()).map_err(MirrorError::Thread)?;
        Ok(Mirror { shared, thread: Some(thread) })
    }

    /// These are the routes that are to be there from now on.
    ///
    /// What the limit or a target without next hops forbids is counted and logged; what was there for the prefix stays
    /// desired.
    pub fn apply(&self, changes: Changes) {
        let waiting = {
            let mut inbox = self.shared.inbox();
            if inbox.changes.is_empty() {
                inbox.changes = changes;
            } else {
                inbox.changes.extend(changes);
            }
            inbox.changes.len()
        };
        if waiting > INBOX_MAX {
            drop(self.shared.rows());
        }
        self.shared.call();
    }

    /// All routes desired at start-up have been named: what an earlier run left and nobody named may go.
    pub fn first_sync_done(&self) {
        self.shared.rows().allow_sweep();
        self.shared.call();
    }

    /// Compares with the kernel again. Due after a link went down or up: the kernel drops routes through a link that
    /// goes down and doesn't bring them back.
    pub fn resync(&self) {
        self.shared.rows().resync = true;
        self.shared.call();
    }

    /// How far along it is.
    pub fn status(&self) -> MirrorStatus {
        self.shared.rows().status()
    }

    /// Waits until every change has been sent, or `timeout` has passed; says which.
    pub fn wait_until_idle(&self, timeout: Duration) -> bool {
        let rows = self.shared.rows();
        let waited = self.shared.idle.wait_timeout_while(rows, timeout, |rows| !rows.is_idle());
        let (rows, _) = waited.unwrap_or_else(PoisonError::into_inner);
        rows.is_idle()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shared.inbox().stop = true;
        self.shared.call();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// The thread's half.
struct Worker {
    shared: Arc<Shared>,
    netlink: Netlink,
    pipeline: Pipeline,
    /// When what the kernel refused was last tried again.
    retried: Instant,
}

impl Worker {
    fn run(mut self) {
        loop {
            let step = match self.wait_for_work() {
                Work::Stop => return,
                Work::Resync => self.read_table(),
                Work::Orders(orders) => self.carry_out(orders),
            };
            let mut rows = self.shared.rows();
            rows.busy = false;
            if let Err(error) = step {
                tracing::warn!(%error, "mirroring routes into the kernel failed; reading its table again");
                rows.resync = true;
                drop(rows);
                let stopping = self.shared.inbox();
                let wait =
                    self.shared.work.wait_timeout_while(stopping, RECOVERY_INTERVAL, |inbox| !inbox.stop);
                drop(wait);
            } else if rows.is_idle() {
                self.shared.idle.notify_all();
            }
        }
    }

    fn wait_for_work(&mut self) -> Work {
        loop {
            if self.shared.inbox().stop {
                return Work::Stop;
            }
            let mut rows = self.shared.rows();
            if std::mem::take(&mut rows.resync) {
                rows.busy = true;
                return Work::Resync;
            }
            if self.retried.elapsed() >= RETRY_INTERVAL {
                self.retried = Instant::now();
                rows.queue_failed();
            }
            let orders = rows.take_orders();
            if !orders.is_empty() {
                rows.busy = true;
                return Work::Orders(orders);
            }
            self.shared.idle.notify_all();
            drop(rows);
            self.shared.wait(RETRY_INTERVAL);
        }
    }

    fn read_table(&mut self) -> Result<(), NetlinkError> {
        let found = mirrored_prefixes(&mut self.netlink)?;
        self.shared.rows().reconcile(&found.into_iter().collect());
        Ok(())
    }

    fn carry_out(&mut self, orders: Vec<Order>) -> Result<(), NetlinkError> {
        let changes = orders.iter().map(|(prefix, target)| match target {
            Some(target) => (*prefix, Change::Install(target)),
            None => (*prefix, Change::Remove),
        });
        let socket_error = |source| NetlinkError::Socket { what: "change mirrored routes", source };
        let outcomes = self.pipeline.apply(changes).map_err(socket_error)?;
        let mut rows = self.shared.rows();
        for (order, refusal) in orders.into_iter().zip(outcomes) {
            if let Some(errno) = refusal {
                let reason = io::Error::from_raw_os_error(errno);
                tracing::debug!(prefix = %order.0, %reason, "the kernel refused a mirrored route");
            }
            rows.record(order, refusal);
        }
        Ok(())
    }
}

enum Work {
    Stop,
    Resync,
    Orders(Vec<Order>),
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
mod tests;
