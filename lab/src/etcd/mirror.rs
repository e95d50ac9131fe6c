//! An etcd that holds what the directory of resources holds, so that any scenario runs with either store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::Result;
use datastore::{DirectoryStore, EtcdStore, Key, Store, StoreError, transfer};
use serde_json::Value;

use super::EtcdServer;
use crate::Lab;

/// How often the directory is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// The etcd, and who keeps it like the directory.
pub(crate) struct MirroringEtcd {
    server: EtcdServer,
    stop: Arc<AtomicBool>,
    mirror: Option<JoinHandle<()>>,
}

impl MirroringEtcd {
    /// Starts it with what the directory holds now; what changes there follows.
    pub(crate) fn start(lab: &Lab, resources: &Path) -> Result<MirroringEtcd> {
        let server = EtcdServer::start(lab, &lab.namespace("etcd")?, None, &[])?;
        let mut mirror = Mirror {
            directory: DirectoryStore::open(resources)?,
            etcd: EtcdStore::open(&server.settings())?,
            written: BTreeMap::new(),
        };
        mirror.look()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mirror = std::thread::Builder::new().name("mirror".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                sleep(EVERY);
                // What it misses is written when etcd is back.
                let _ = mirror.look();
            }
        })?;
        Ok(MirroringEtcd { server, stop, mirror: Some(mirror) })
    }

    /// See [`EtcdServer::ctl`].
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Result<String> {
        self.server.ctl(arguments)
    }

    /// Where routers find it.
    pub(crate) fn endpoint(&self) -> String {
        self.server.endpoint()
    }
}

impl Drop for MirroringEtcd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(mirror) = self.mirror.take() {
            // One that panicked has said so.
            let _ = mirror.join();
        }
    }
}

struct Mirror {
    directory: DirectoryStore,
    etcd: EtcdStore,
    written: BTreeMap<Key, Value>,
}

impl Mirror {
    /// Writes what has changed since the last look.
    fn look(&mut self) -> Result<(), StoreError> {
        let present: BTreeMap<Key, Value> = transfer::everything(&self.directory)?
            .into_iter()
            .map(|stored| (stored.key, stored.value))
            .collect();
        for (key, value) in &present {
            if self.written.get(key) != Some(value) {
                self.etcd.put(key, value, None)?;
                self.written.insert(key.clone(), value.clone());
            }
        }
        let gone: Vec<Key> = self.written.keys().filter(|key| !present.contains_key(*key)).cloned().collect();
        for key in gone {
            match self.etcd.delete(&key, None) {
                Ok(_) | Err(StoreError::NotFound(_)) => drop(self.written.remove(&key)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
