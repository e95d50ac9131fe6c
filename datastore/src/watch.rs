//! The kernel's notifications for one directory, renewed when another directory takes its place, and which files they name.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::scan;

/// Device and inode: which directory a path leads to.
type Identity = (u64, u64);
/// Files that are named one by one; of more, all are looked at.
const MAX_NAMED: usize = 10_000;

/// What notifications have told of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// These files, and no other one.
    Files(BTreeSet<PathBuf>),
    /// Anything may have changed.
    Anything,
}

impl Default for Named {
    fn default() -> Named {
        Named::Files(BTreeSet::new())
    }
}

impl Named {
    fn name(&mut self, event: notify::Result<notify::Event>) {
        let Named::Files(files) = self else { return };
        match event {
            Ok(event) if !event.need_rescan() && !event.paths.is_empty() => {
                for path in event.paths.into_iter().filter(|path| !scan::is_writers_own(path)) {
                    if !scan::counts(&path) || files.len() == MAX_NAMED {
                        // What isn't read itself may be what a link leads to.
                        *self = Named::Anything;
                        return;
                    }
                    files.insert(path);
                }
            }
            _ => *self = Named::Anything,
        }
    }
}

/// Wakes the watching thread. Without notifications (none to be had, or none left) only the periodic look remains.
pub(crate) struct Watch {
    wake: SyncSender<()>,
    watcher: Option<RecommendedWatcher>,
    identity: Option<Identity>,
    named: Arc<Mutex<Named>>,
}

impl Watch {
    pub(crate) fn new(wake: SyncSender<()>) -> Watch {
        Watch { wake, watcher: None, identity: None, named: Arc::new(Mutex::new(Named::Anything)) }
    }

    /// What was told of since this was asked last. Asked before anything is read, so that what changes meanwhile is told
    /// of the next time.
    pub(crate) fn named(&self) -> Named {
        std::mem::take(&mut *self.named.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something has changed without a notification.
    pub(crate) fn name_anything(&self) {
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = Named::Anything;
    }

    /// Does the path lead to another directory than the one watched?
    pub(crate) fn is_stale(&self, directory: &Path) -> bool {
        identity(directory) != self.identity
    }

    /// Makes sure that the directory at this path, if there is one, is the one watched.
    pub(crate) fn renew(&mut self, directory: &Path) {
        if !self.is_stale(directory) {
            return;
        }
        self.watcher = None;
        self.identity = identity(directory);
        self.name_anything();
        if self.identity.is_none() {
            return;
        }
        match watcher(directory, self.wake.clone(), Arc::clone(&self.named)) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => tracing::warn!(
                directory = %directory.display(),
                %error,
                "no notifications of changes; they are found by the periodic look alone"
            ),
        }
    }
}

fn identity(directory: &Path) -> Option<Identity> {
    std::fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn watcher(
    directory: &Path,
    wake: SyncSender<()>,
    named: Arc<Mutex<Named>>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error means that notifications may have been lost, which a look around mends.
        if event.as_ref().is_ok_and(|event| only_reads(event.kind)) {
            return;
        }
        named.lock().unwrap_or_else(PoisonError::into_inner).name(event);
        // Full: the thread is to wake up anyway.
        let _ = wake.try_send(());
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Our own reading is notified too, and would wake us for ever.
fn only_reads(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
