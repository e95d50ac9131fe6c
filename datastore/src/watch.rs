//! The kernel's notifications for one directory, renewed when another directory takes its place.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::SyncSender;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Device and inode: which directory a path leads to.
type Identity = (u64, u64);

/// Wakes the watching thread. Without notifications (none to be had, or none left) only the periodic look remains.
pub(crate) struct Watch {
    wake: SyncSender<()>,
    watcher: Option<RecommendedWatcher>,
    identity: Option<Identity>,
}

impl Watch {
    pub(crate) fn new(wake: SyncSender<()>) -> Watch {
        Watch { wake, watcher: None, identity: None }
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
        if self.identity.is_none() {
            return;
        }
        match watcher(directory, self.wake.clone()) {
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

fn watcher(directory: &Path, wake: SyncSender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error means that notifications may have been lost, which a look around mends.
        if event.is_ok_and(|event| only_reads(event.kind)) {
            return;
        }
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
