//! BFD's thread: sockets and a clock around [`bgp::bfd`].
//!
//! ```text
//!   event loop ── which ways to watch ──► thread "bfd" ◄──► UDP 3784, 4784
//!        ▲                                     │
//!        └────────── what went up or down ─────┘
//! ```
//! A thread of its own, because a table that loads or a kernel that is slow to answer must not look like a neighbour that
//! failed: nothing here waits for the event loop. It comes before other threads, where that is permitted; where it is late all the
//! same, the kernel has noted when packets came, and they are heard before silence is judged.

mod sockets;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bgp::bfd::{Bfd, BfdConfig, BfdOutput, BfdPath, BfdStatus, Diagnostic, Refused, State};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{interval, sleep_until};
use tracing::{error, info, warn};

use sockets::{Receivers, Senders};

/// Most sessions; as many as BGP has peers.
const SESSIONS_MAX: usize = 4096;
/// Lost links that may wait to be told; the thread takes them at once.
const LOST_LINKS: usize = 64;
/// Bursts of datagrams that are taken of the sockets at once: more than all sessions send within the shortest time.
const BURSTS: usize = 32;
/// How often the report is renewed, and ports that could not be had are tried again.
const RENEW_EVERY: Duration = Duration::from_millis(500);

/// How the box does BFD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BfdSettings {
    /// How sessions beat.
    pub pace: BfdConfig,
    /// Watch peers that aren't neighbours on a link too (RFC 5883); Calico doesn't.
    pub multihop: bool,
    /// Watch the peers of the node-to-node mesh too, which Calico can't ask for.
    pub mesh: bool,
}

/// What became of a session since it was last asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdNews {
    /// Where it is now.
    pub state: State,
    /// It was up and failed, whatever it is now: not by its operator's will.
    pub failed: bool,
    /// Why it is down.
    pub diagnostic: Diagnostic,
}

/// What the thread tells of itself.
#[derive(Clone, Debug, Default)]
pub struct BfdReport {
    /// Every session.
    pub sessions: Vec<BfdStatus>,
    /// When that was.
    pub at: Option<Instant>,
    /// Packets refused, by reason.
    pub refused: BTreeMap<Refused, u64>,
    /// Why BFD's ports can't be had.
    pub problem: Option<String>,
}

/// What the thread and the event loop share. At most one piece of news a session: a loop that is slow sees the latest.
#[derive(Default)]
struct Shared {
    news: Mutex<BTreeMap<BfdPath, BfdNews>>,
    told: Notify,
    report: Mutex<BfdReport>,
    /// Why the thread comes no sooner than others, where it was to and doesn't.
    ordinary: OnceLock<String>,
}

/// The event loop's end.
pub struct BfdThread {
    /// The ways to watch: the latest counts, however late the thread is.
    wanted: watch::Sender<BTreeMap<BfdPath, BfdConfig>>,
    /// Links over which nothing passes any more. The thread ends when there can be no more of them.
    lost_links: mpsc::Sender<u32>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl BfdThread {
    /// Starts the thread, in the network namespace of this one. It opens no port before there is something to watch.
    /// `come_first` has the calling thread come before others, where that is permitted: neighbours take it for dead within
    /// milliseconds.
    ///
    /// # Errors
    /// Where there can be no thread.
    pub fn start(come_first: fn() -> io::Result<()>) -> io::Result<BfdThread> {
        let (wanted, wants) = watch::channel(BTreeMap::new());
        let (lost_links, losses) = mpsc::channel(LOST_LINKS);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("bfd".to_owned()).spawn(move || {
            if let Err(error) = come_first() {
                info!(%error, "BFD's thread comes no sooner than others: on a busy machine it may miss intervals below 50 ms");
                // Said once.
                let _ = of_thread.ordinary.set(error.to_string());
            }
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(Watcher::new(of_thread).run(wants, losses)),
                Err(error) => error!(%error, "no BFD: can't start its event loop"),
            }
        })?;
        Ok(BfdThread { wanted, lost_links, shared, thread: Some(thread) })
    }

    /// Watches these ways and no others.
    pub fn watch(&mut self, paths: BTreeMap<BfdPath, BfdConfig>) {
        self.wanted.send_if_modified(|wanted| {
            let changes = *wanted != paths;
            *wanted = paths;
            changes
        });
    }

    /// Nothing passes over this link any more: who is behind it is lost at once.
    pub fn link_down(&self, link: u32) {
        // With no room there is a flood of these; then the silence tells.
        let _ = self.lost_links.try_send(link);
    }

    /// Waits until there is news.
    pub async fn has_news(&self) {
        self.shared.told.notified().await;
    }

    /// Is there any?
    pub fn has_news_now(&self) -> bool {
        !lock(&self.shared.news).is_empty()
    }

    /// What has become of sessions since the last call.
    pub fn take_news(&self) -> BTreeMap<BfdPath, BfdNews> {
        std::mem::take(&mut *lock(&self.shared.news))
    }

    /// Why the thread comes no sooner than others; absent where it does.
    pub fn ordinary(&self) -> Option<String> {
        self.shared.ordinary.get().cloned()
    }

    /// All sessions, as of a moment ago.
    pub fn report(&self) -> BfdReport {
        lock(&self.shared.report).clone()
    }

    /// Tells every peer that the end is no failure, and ends.
    pub fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.lost_links = mpsc::channel(1).0;
            let _ = thread.join();
        }
    }
}

impl Drop for BfdThread {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own state.
struct Watcher {
    shared: Arc<Shared>,
    bfd: Bfd,
    receivers: Option<Receivers>,
    senders: Senders,
    problem: Option<String>,
    outputs: Vec<BfdOutput>,
}

impl Watcher {
    fn new(shared: Arc<Shared>) -> Watcher {
        // The hasher's keys are as good as random, and nobody else knows them.
        let seed = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 0);
        Watcher {
            shared,
            bfd: Bfd::new(seed, SESSIONS_MAX),
            receivers: None,
            senders: Senders::default(),
            problem: None,
            outputs: Vec::new(),
        }
    }

    async fn run(
        mut self,
        mut wants: watch::Receiver<BTreeMap<BfdPath, BfdConfig>>,
        mut losses: mpsc::Receiver<u32>,
    ) {
        let mut renew = interval(RENEW_EVERY);
        loop {
            let far = Instant::now() + Duration::from_secs(3600);
            let deadline = self.bfd.next_deadline().unwrap_or(far);
            tokio::select! {
                Ok(()) = wants.changed() => {
                    let paths = wants.borrow_and_update().clone();
                    self.watch(&paths);
                }
                link = losses.recv() => match link {
                    Some(link) => self.link_down(link),
                    None => break,
                },
                () = Receivers::readable(self.receivers.as_ref()) => self.receive(),
                () = sleep_until(deadline.into()) => {
                    // What has come in time is heard before silence is judged: it is this thread that may be late.
                    self.receive();
                    self.bfd.tick(Instant::now(), &mut self.outputs);
                }
                _ = renew.tick() => self.renew(),
            }
            self.carry_out();
        }
        self.watch(&BTreeMap::new());
        self.carry_out();
    }

    fn watch(&mut self, paths: &BTreeMap<BfdPath, BfdConfig>) {
        let now = Instant::now();
        let gone: Vec<BfdPath> = self.bfd.paths().filter(|path| !paths.contains_key(path)).collect();
        for path in gone {
            self.bfd.remove(path, now, &mut self.outputs);
        }
        // The farewells leave before their sockets go.
        self.carry_out();
        self.senders.keep(|path| paths.contains_key(path));
        for (path, config) in paths {
            if !self.bfd.put(*path, *config, now, &mut self.outputs) {
                warn!(peer = %path.remote, limit = SESSIONS_MAX, "too many BFD sessions; this peer is not watched");
            }
        }
        self.open_ports();
        self.renew();
    }

    /// The ports are had while there is something to watch, and left to others otherwise.
    fn open_ports(&mut self) {
        if self.bfd.paths().next().is_none() {
            self.receivers = None;
            self.problem = None;
        } else if self.receivers.is_none() {
            match Receivers::open() {
                Ok(receivers) => {
                    self.receivers = Some(receivers);
                    self.problem = None;
                }
                Err(error) => {
                    let problem =
                        format!("can't have BFD's UDP ports: {error}; is another BFD running here?");
                    if self.problem.as_ref() != Some(&problem) {
                        error!("{problem}");
                    }
                    self.problem = Some(problem);
                }
            }
        }
    }

    fn link_down(&mut self, link: u32) {
        let paths: Vec<BfdPath> = self.bfd.paths().filter(|path| path.link == Some(link)).collect();
        for path in paths {
            self.bfd.path_down(path, Instant::now(), &mut self.outputs);
        }
    }

    fn receive(&mut self) {
        let Watcher { receivers: Some(receivers), bfd, outputs, .. } = self else { return };
        for _ in 0..BURSTS {
            if !receivers.receive(|datagram| bfd.received(&datagram, Instant::now(), outputs)) {
                return;
            }
        }
    }

    fn carry_out(&mut self) {
        let mut changed = false;
        for output in std::mem::take(&mut self.outputs) {
            match output {
                BfdOutput::Send { path, bytes } => self.senders.send(path, &bytes),
                BfdOutput::Changed { path, from, to, diagnostic, remote_admin_down } => {
                    let failed = from == State::Up && to == State::Down && !remote_admin_down;
                    self.tell(path, from, BfdNews { state: to, failed, diagnostic });
                    changed = true;
                }
            }
        }
        if changed {
            self.renew();
            self.shared.told.notify_one();
        }
    }

    fn tell(&self, path: BfdPath, from: State, news: BfdNews) {
        match news.state {
            State::Up => info!(peer = %path.remote, %from, to = %news.state, "BFD session up"),
            State::Down if from == State::Up => {
                warn!(peer = %path.remote, %from, to = %news.state, diagnostic = %news.diagnostic, "BFD session down");
            }
            _ => {
                info!(peer = %path.remote, %from, to = %news.state, diagnostic = %news.diagnostic, "BFD session")
            }
        }
        let mut all = lock(&self.shared.news);
        let failed_before = all.get(&path).is_some_and(|before| before.failed);
        all.insert(path, BfdNews { failed: news.failed || failed_before, ..news });
    }

    fn renew(&mut self) {
        if self.problem.is_some() {
            self.open_ports();
        }
        // Whoever reads it may not be running: sessions must not wait for that, the report can.
        let Ok(mut report) = self.shared.report.try_lock() else { return };
        let now = Instant::now();
        *report = BfdReport {
            sessions: self.bfd.status(now),
            at: Some(now),
            refused: self.bfd.refused().clone(),
            problem: self.problem.clone(),
        };
    }
}

#[cfg(test)]
mod tests;
