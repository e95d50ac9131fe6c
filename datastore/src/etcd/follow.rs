//! An etcd, followed by a thread of its own: everything that is there, then every change.
//!
//! ```text
//!          ┌──────────────────────────────────────────────────────────────┐
//!          ▼                                                              │ compacted, restored
//!   list at one revision ─► tell the difference ─► watch from the next ───┤
//!          ▲                                          │  ▲               │
//!          └── wait a little (longer each time) ◄─────┘  └─ tell changes ─┘
//!                       connection lost: then watch on from the last change
//! ```
//!
//! What can't be reached changes nothing: the listener is told that its state is stale, and the difference afterwards.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::client::{Client, Failure};
use super::course::{Course, Heard, PREFIXES, Place, WATCH_IDS};
use super::message::{
    KeyValue, WatchAsk, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use super::{listed_at, path};
use crate::event::{CLOSED, Event};
use crate::settings::EtcdSettings;
use crate::store::StoreError;

/// The shortest and the longest wait before another attempt.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Which etcd to follow, and what it may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// How to get at it.
    pub settings: EtcdSettings,
    /// Most resources.
    pub max_resources: usize,
    /// After this long without a word etcd is asked whether it is there, and after as long again it is given up.
    pub patience: Duration,
}

impl EtcdConfig {
    /// The usual limits: 500 000 resources, 5 s without a word.
    pub fn at(settings: EtcdSettings) -> EtcdConfig {
        EtcdConfig { settings, max_resources: 500_000, patience: Duration::from_secs(5) }
    }
}

/// An etcd that is followed. Dropping it ends that; when `drop` returns, the sink is called no more.
#[derive(Debug)]
pub struct Etcd {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Etcd {
    /// Begins to follow. The sink is called from a thread of this room: all that is there, `InSync`, then changes. While
    /// etcd can't be reached it hears [`Event::Stale`], also before there ever was anything.
    ///
    /// The sink may block for a while, as changes wait in etcd meanwhile, and must not drop the `Etcd`.
    ///
    /// # Errors
    /// Certificates or addresses that can't be read, or no thread to be had.
    pub fn open(config: EtcdConfig, sink: impl FnMut(Event) + Send + 'static) -> Result<Etcd, StoreError> {
        let client = Client::new(&config.settings).map_err(StoreError::Unavailable)?;
        let no_thread = |error: std::io::Error| StoreError::Unavailable(error.to_string());
        let runtime = Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let (stop, stopped) = watch::channel(false);
        let follower = Follower {
            runtime,
            client: Arc::new(client),
            stopped,
            patience: config.patience,
            course: Course::new(config.max_resources),
            told: Told::default(),
            retry: RETRY_MIN,
        };
        let thread =
            std::thread::Builder::new().name("datastore".to_owned()).spawn(move || follower.run(sink));
        Ok(Etcd { stop, thread: Some(thread.map_err(no_thread)?) })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // The thread is the only listener, and may have ended.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            // A sink that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// What the listener knows besides the resources.
#[derive(Debug, Default)]
struct Told {
    in_sync: bool,
    /// Why its state is stale.
    stale: Option<String>,
}

/// Why a watch ended.
enum End {
    Stopped,
    /// Everything has to be listed again.
    Outdated,
    /// It can go on from its place.
    Lost(String),
}

/// A watch under way.
struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    /// Has etcd been asked whether it is there?
    asked: bool,
}

struct Follower {
    runtime: Runtime,
    client: Arc<Client>,
    stopped: watch::Receiver<bool>,
    patience: Duration,
    course: Course,
    told: Told,
    retry: Duration,
}

impl Follower {
    fn run(mut self, mut sink: impl FnMut(Event)) {
        let mut has_list = false;
        loop {
            if !has_list {
                let lost = match self.list() {
                    None => return,
                    Some(Ok((found, at))) => self.course.listed(found, at).err(),
                    Some(Err(failure)) => Some(failure.to_string()),
                };
                if let Some(reason) = lost {
                    self.client.abandon();
                    if !self.lost(reason, &mut sink) {
                        return;
                    }
                    continue;
                }
                self.tell(&mut sink);
            }
            match self.watch(&mut sink) {
                End::Stopped => return,
                End::Outdated => has_list = false,
                End::Lost(reason) => {
                    has_list = true;
                    if !self.lost(reason, &mut sink) {
                        return;
                    }
                }
            }
        }
    }

    /// Everything as it is now. None: stop.
    fn list(&mut self) -> Option<Result<(Vec<KeyValue>, Place), Failure>> {
        let client = Arc::clone(&self.client);
        self.unless_stopped(async move {
            let (mut all, header) = listed_at(&client, PREFIXES[0], 0).await?;
            for prefix in &PREFIXES[1..] {
                all.extend(listed_at(&client, prefix, header.revision).await?.0);
            }
            Ok((all, Place::of(&header)))
        })
    }

    /// Watches from where the course is.
    fn watch(&mut self, sink: &mut impl FnMut(Event)) -> End {
        let Some(from) = self.course.begin() else { return End::Outdated };
        let mut watching = match self.begin(from) {
            None => return End::Stopped,
            Some(Ok(watching)) => watching,
            Some(Err(failure)) => return End::Lost(failure.to_string()),
        };
        loop {
            let answer = match self.next(&mut watching) {
                None => return End::Stopped,
                Some(Ok(answer)) => answer,
                // More changes at once than one answer may hold: a list has pages.
                Some(Err(status)) if status.code() == Code::OutOfRange => return End::Outdated,
                Some(Err(status)) => {
                    self.client.abandon();
                    return End::Lost(status.message().to_owned());
                }
            };
            watching.asked = false;
            match self.course.hear(answer) {
                Heard::Good => {
                    self.retry = RETRY_MIN;
                    self.tell(sink);
                }
                Heard::Incomplete => {}
                Heard::Outdated => return End::Outdated,
                Heard::Lost(reason) => {
                    self.client.abandon();
                    return End::Lost(reason);
                }
            }
            if self.course.has_made_room() {
                return End::Outdated;
            }
        }
    }

    fn begin(&mut self, from: Place) -> Option<Result<Watching, Failure>> {
        let client = Arc::clone(&self.client);
        self.unless_stopped(async move {
            let (requests, queue) = mpsc::channel(PREFIXES.len() + 1);
            for (index, prefix) in PREFIXES.into_iter().enumerate() {
                let create = WatchCreateRequest {
                    key: prefix.as_bytes().to_vec(),
                    range_end: path::end_of(prefix),
                    start_revision: from.next()[index],
                    watch_id: WATCH_IDS[index],
                };
                // There is room for all of them.
                let _ = requests.try_send(WatchRequest { ask: Some(WatchAsk::Create(create)) });
            }
            let answers = client.watch(queue).await?;
            Ok(Watching { requests, answers, asked: false })
        })
    }

    /// The next answer, or why there is none. None: stop.
    fn next(&mut self, watching: &mut Watching) -> Option<Result<WatchResponse, Status>> {
        let patience = self.patience;
        let mut stopped = self.stopped.clone();
        self.runtime.block_on(async {
            loop {
                // Counted from here: while the listener is busy, nobody hears what etcd says.
                let deadline = Instant::now() + patience;
                tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stop| *stop) => return None,
                    answer = watching.answers.message() => return Some(match answer {
                        Ok(Some(answer)) => Ok(answer),
                        Ok(None) => Err(Status::unavailable("etcd ended the watch")),
                        Err(status) => Err(status),
                    }),
                    () = tokio::time::sleep_until(deadline) => {
                        if watching.asked {
                            let silence = format!("etcd said nothing for {} s", 2.0 * patience.as_secs_f64());
                            return Some(Err(Status::deadline_exceeded(silence)));
                        }
                        watching.asked = true;
                        let ask = WatchRequest { ask: Some(WatchAsk::Progress(WatchProgressRequest {})) };
                        // A queue that is full or gone shows by no answer.
                        let _ = watching.requests.try_send(ask);
                    }
                }
            }
        })
    }

    /// Tells what has changed, and that it is all there is.
    fn tell(&mut self, sink: &mut impl FnMut(Event)) {
        self.course.tell().into_iter().for_each(&mut *sink);
        if !self.course.is_open() {
            self.stale(CLOSED.to_owned(), sink);
            return;
        }
        if !std::mem::replace(&mut self.told.in_sync, true) {
            sink(Event::Update(model::Update::InSync));
        }
        if self.told.stale.take().is_some() {
            sink(Event::Current);
        }
    }

    fn stale(&mut self, reason: String, sink: &mut impl FnMut(Event)) {
        if self.told.stale.as_ref() != Some(&reason) {
            self.told.stale = Some(reason.clone());
            sink(Event::Stale { reason });
        }
    }

    /// Says so, and waits until it may be tried again. False: stop.
    fn lost(&mut self, reason: String, sink: &mut impl FnMut(Event)) -> bool {
        self.stale(reason, sink);
        let wait = self.retry;
        self.retry = (wait * 2).min(RETRY_MAX);
        // Made within the runtime, which a sleep needs.
        self.unless_stopped(async move { tokio::time::sleep(wait).await }).is_some()
    }

    fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut stopped = self.stopped.clone();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => None,
                done = work => Some(done),
            }
        })
    }
}
