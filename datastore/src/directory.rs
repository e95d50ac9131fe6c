//! A directory of resources, watched by a thread of its own.
//!
//! ```text
//!   notify ──┐ "something changed"      ┌────────── the watching thread ──────────┐
//!            ├─► wake-up (one slot) ──► │ wait until quiet → list → read → merge  │ ──► sink(Event)
//!   Drop ────┘ "stop"                   │ → compare with what was announced       │
//!                                       └── and every `rescan` without being told ┘
//! ```
//!
//! A wake-up says only *that* something changed, and notifications which files to look at. What changed in them is found
//! by comparing contents, so doubled and reordered notifications can do no harm, and lost ones are made good by the
//! periodic look at all files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::{Resource, Update};

use crate::desired::{Changes, Desired, Files, Limits, Name, Rank, Said, Set};
use crate::event::{CLOSED, Event, Ignored};
use crate::invalid::{Invalid, Reason};
use crate::manifest::{self, Reader};
use crate::scan;
use crate::watch::{Named, Watch};

/// How often a missing directory is looked for.
const MISSING_RETRY: Duration = Duration::from_secs(1);
/// Looking around more often than this would be all that the thread does.
const RESCAN_MIN: Duration = Duration::from_millis(10);
/// A directory that never becomes quiet is read all the same after this many debounce times.
const DEBOUNCE_MAX: u32 = 5;

/// Where the resources are, and what they may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryConfig {
    /// The directory. Its subdirectories are not looked into.
    pub path: PathBuf,
    /// How often the contents are compared without a notification.
    pub rescan: Duration,
    /// How long the directory must be quiet before it is read.
    pub debounce: Duration,
    /// Largest file, in bytes. Reading one takes up to about 20 times its size for a moment.
    pub max_file_bytes: u64,
    /// Most resources in all files together, and most files.
    pub max_resources: usize,
}

impl DirectoryConfig {
    /// The usual limits: a look every 10 s, 100 ms of quiet, files of 4 MiB, 500 000 resources.
    pub fn at(path: impl Into<PathBuf>) -> DirectoryConfig {
        DirectoryConfig {
            path: path.into(),
            rescan: Duration::from_secs(10),
            debounce: Duration::from_millis(100),
            max_file_bytes: 4 << 20,
            max_resources: 500_000,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let (max_file_bytes, max_resources) = (self.max_file_bytes, self.max_resources);
        Limits { max_file_bytes, max_resources, reader: Reader::Router }
    }

    /// Reads everything once, as `tortie run --check` does. `path` may also be a single file.
    ///
    /// # Errors
    /// Every problem of every file.
    pub fn check(&self) -> Result<Vec<Resource>, Vec<Invalid>> {
        let unavailable = |error: io::Error| {
            vec![manifest::whole_file(&self.path, Reason::DirectoryUnavailable(error.kind()))]
        };
        let paths = match std::fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_file() => vec![self.path.clone()],
            Ok(_) => scan::list(&self.path).map_err(unavailable)?,
            Err(error) => return Err(unavailable(error)),
        };
        let mut files = Files::new(self.limits());
        files.load(&paths);
        let Desired { set, problems, .. } = files.desired(&self.path);
        if problems.is_empty() {
            Ok(set.into_values().map(Arc::unwrap_or_clone).collect())
        } else {
            Err(problems.into_values().flatten().collect())
        }
    }
}

/// Reads a directory, or one file, with the usual limits and without watching it.
///
/// # Errors
/// Every problem of every file.
pub fn check(path: impl AsRef<Path>) -> Result<Vec<Resource>, Vec<Invalid>> {
    DirectoryConfig::at(path.as_ref()).check()
}

/// Why a directory can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It isn't there.
    #[error("the resource directory {} does not exist; create it, or name another one", path.display())]
    NotFound {
        /// The directory.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} is not a directory; name the directory that holds the resource files", path.display())]
    NotADirectory {
        /// What was named.
        path: PathBuf,
    },
    /// It can't be listed.
    #[error("the resource directory {} can't be listed", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An etcd can't be followed as it was asked.
    #[error(transparent)]
    Etcd(#[from] crate::StoreError),
    /// No thread could be started.
    #[error("the thread that watches {} can't be started", path.display())]
    Thread {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A watched directory. Dropping it ends the watching; when `drop` returns, the sink is called no more.
#[derive(Debug)]
pub struct Directory {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Directory {
    /// Begins to watch. The sink is called from a thread of this room: all that is there, `InSync`, then changes.
    ///
    /// The sink must not block for long, as nothing is noticed meanwhile, and must not drop the `Directory`.
    ///
    /// # Errors
    /// Where the directory is missing or can't be listed. Later it may vanish and come back.
    pub fn open(
        config: DirectoryConfig,
        sink: impl FnMut(Event) + Send + 'static,
    ) -> Result<Directory, OpenError> {
        if let Err(source) = scan::list(&config.path) {
            let path = config.path;
            return Err(match source.kind() {
                io::ErrorKind::NotFound => OpenError::NotFound { path },
                io::ErrorKind::NotADirectory => OpenError::NotADirectory { path },
                _ => OpenError::Unreadable { path, source },
            });
        }
        let path = config.path.clone();
        let stop = Arc::new(AtomicBool::new(false));
        // One slot: a wake-up carries nothing, so a second one waiting would say no more.
        let (wake, woken) = sync_channel(1);
        let watcher = Watcher {
            watch: Watch::new(wake.clone()),
            stop: Arc::clone(&stop),
            woken,
            files: Files::new(config.limits()),
            available: true,
            in_sync: false,
            closed: false,
            announced: Announced::default(),
            config,
        };
        let thread = std::thread::Builder::new()
            .name("datastore".to_owned())
            .spawn(move || watcher.run(sink))
            .map_err(|source| OpenError::Thread { path, source })?;
        Ok(Directory { stop, wake, thread: Some(thread) })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Full is as good: the thread looks at `stop` whenever it wakes.
        let _ = self.wake.try_send(());
        if let Some(thread) = self.thread.take() {
            // A sink that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// What the sink knows already.
#[derive(Debug, Default)]
struct Announced {
    set: Set,
    problems: BTreeMap<Name, Invalid>,
    /// By file: resource and field; the place may move without a word.
    ignored: BTreeMap<Name, BTreeSet<(String, Option<String>)>>,
}

struct Watcher {
    config: DirectoryConfig,
    watch: Watch,
    stop: Arc<AtomicBool>,
    woken: Receiver<()>,
    files: Files,
    /// Could the directory be listed last time?
    available: bool,
    /// Has the sink been told all that there is? And that it may be out of date, as the directory is closed?
    in_sync: bool,
    closed: bool,
    announced: Announced,
}

impl Watcher {
    fn run(mut self, mut sink: impl FnMut(Event)) {
        self.load(&mut sink);
        while self.wait_for_change() {
            self.load(&mut sink);
        }
    }

    /// Waits until the directory has changed and come to rest. False: stop.
    fn wait_for_change(&mut self) -> bool {
        loop {
            let rescan = self.config.rescan.max(RESCAN_MIN);
            let patience = if self.available { rescan } else { rescan.min(MISSING_RETRY) };
            match self.woken.recv_timeout(patience) {
                Ok(()) => break,
                Err(RecvTimeoutError::Timeout) if self.unnoticed_change() => {
                    self.watch.name_anything();
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        self.wait_until_quiet();
        !self.stop.load(Ordering::Relaxed)
    }

    /// The periodic look, for changes that no notification told of.
    fn unnoticed_change(&mut self) -> bool {
        match scan::list(&self.config.path) {
            Ok(paths) => {
                !self.available || self.watch.is_stale(&self.config.path) || self.files.differ(&paths)
            }
            Err(_) => self.available,
        }
    }

    /// Lets a writer finish: half a file is not read if its other half follows within the debounce time.
    fn wait_until_quiet(&self) {
        let began = Instant::now();
        let patience = self.config.debounce.saturating_mul(DEBOUNCE_MAX);
        while !self.stop.load(Ordering::Relaxed) && began.elapsed() < patience {
            if self.woken.recv_timeout(self.config.debounce).is_err() {
                return;
            }
        }
    }

    fn load(&mut self, sink: &mut impl FnMut(Event)) {
        // Watched before it is listed: what changes in between is told of.
        self.watch.renew(&self.config.path);
        if let Named::Files(files) = self.watch.named()
            && self.available
            && self.files.reload(&files)
        {
            return self.tell(None, sink);
        }
        let listed = scan::list(&self.config.path);
        self.available = listed.is_ok();
        match listed {
            Ok(paths) => {
                self.files.load(&paths);
                self.tell(None, sink);
            }
            Err(error) => self.tell(Some(Reason::DirectoryUnavailable(error.kind())), sink),
        }
    }

    fn tell(&mut self, unavailable: Option<Reason>, sink: &mut impl FnMut(Event)) {
        // What changes meanwhile waits with the files, and is told when they say that they may be used again.
        if self.files.are_closed() {
            if !std::mem::replace(&mut self.closed, true) {
                sink(Event::Stale { reason: CLOSED.to_owned() });
            }
            return;
        }
        let directory = &self.config.path;
        let mut changes = match self.files.said(directory) {
            Said::Some(changes) => changes,
            Said::All(desired) => self.announced.changes(desired),
        };
        let (_, problems) = changes.files.entry(directory.clone().into_os_string()).or_default();
        problems.splice(0..0, unavailable.map(|reason| manifest::whole_file(directory, reason)));
        self.announced.announce(changes, sink);
        if !std::mem::replace(&mut self.in_sync, true) {
            sink(Event::Update(Update::InSync));
        }
        if std::mem::take(&mut self.closed) {
            sink(Event::Current);
        }
    }
}

impl Announced {
    /// What is otherwise where this is all there is.
    fn changes(&self, desired: Desired) -> Changes {
        let Desired { set, ignored, problems } = desired;
        let mut changes = Changes::default();
        for file in self.problems.keys().chain(self.ignored.keys()) {
            changes.files.entry(file.clone()).or_default();
        }
        for found in ignored {
            changes.files.entry(found.file.clone().into_os_string()).or_default().0.push(found);
        }
        for (file, problems) in problems {
            changes.files.entry(file).or_default().1 = problems;
        }
        let gone = self.set.keys().filter(|key| !set.contains_key(*key));
        changes.resources.extend(gone.map(|(_, key)| (key.clone(), None)));
        changes.resources.extend(set.into_iter().map(|((_, key), resource)| (key, Some(resource))));
        changes
    }

    /// Tells what is new of this: puts, what others lean on first; then removals, the other way round. Putting first lets a
    /// renamed resource take over from its older self without a gap.
    fn announce(&mut self, changes: Changes, sink: &mut impl FnMut(Event)) {
        let Changes { resources, files } = changes;
        let (mut mended, mut newly_ignored) = (Vec::new(), Vec::new());
        for (file, (ignored, problems)) in files {
            newly_ignored.extend(self.ignore(&file, ignored));
            match first_of_file(problems) {
                Some(problem) if self.problems.get(&file) == Some(&problem) => {}
                Some(problem) => {
                    sink(Event::Invalid(problem.clone()));
                    self.problems.insert(file, problem);
                }
                None if self.problems.remove(&file).is_some() => mended.push(file),
                None => {}
            }
        }
        let (mut puts, mut removals) = (Set::new(), BTreeSet::new());
        for (key, resource) in resources {
            let key = (Rank::of(&key), key);
            match resource {
                Some(resource) if self.set.get(&key) == Some(&resource) => {}
                Some(resource) => {
                    self.set.insert(key.clone(), Arc::clone(&resource));
                    puts.insert(key, resource);
                }
                None if self.set.remove(&key).is_some() => drop(removals.insert(key)),
                None => {}
            }
        }
        puts.into_values().for_each(|resource| sink(Event::Update(Update::Put(resource))));
        removals.into_iter().rev().for_each(|(_, key)| sink(Event::Update(Update::Remove(key))));
        mended.into_iter().for_each(|file| sink(Event::Mended { file: file.into() }));
        newly_ignored.into_iter().for_each(|found| sink(Event::Ignored(found)));
    }

    /// Gives what of a file hasn't been told yet.
    fn ignore(&mut self, file: &OsStr, ignored: Vec<Ignored>) -> Vec<Ignored> {
        let before = self.ignored.remove(file).unwrap_or_default();
        let mut now = BTreeSet::new();
        let mut is_new = |found: &Ignored| {
            let what = (found.resource.clone(), found.field.clone());
            let was_told = before.contains(&what);
            now.insert(what) && !was_told
        };
        let new = ignored.into_iter().filter(&mut is_new).collect();
        if !now.is_empty() {
            self.ignored.insert(file.to_owned(), now);
        }
        new
    }
}

/// The first of a file's problems, which counts the others.
fn first_of_file(problems: Vec<Invalid>) -> Option<Invalid> {
    let more = problems.len().saturating_sub(1);
    problems.into_iter().next().map(|first| Invalid { more, ..first })
}

#[cfg(test)]
mod tests;
