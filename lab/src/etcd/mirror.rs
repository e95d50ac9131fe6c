//! A lab's etcd: it holds what the directory of resources holds, so that any scenario runs with either store.
//!
//! Routers live in namespaces of their own, so it listens on a socket of the file system, which all of them share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context, Result};
use datastore::settings::EtcdSettings;
use datastore::{DirectoryStore, EtcdStore, Key, Store, StoreError, transfer};
use serde_json::Value;

use crate::Lab;
use crate::process::Process;

/// etcd takes a socket's name for a host and wants a port behind it.
const SOCKET: &str = "etcd.sock:0";
const START: Duration = Duration::from_secs(30);
/// How often the directory is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// The etcd, and who keeps it like the directory.
pub(crate) struct Etcd {
    endpoint: String,
    stop: Arc<AtomicBool>,
    mirror: Option<JoinHandle<()>>,
    _process: Process,
}

impl Etcd {
    /// Starts it with what the directory holds now; what changes there follows.
    pub(crate) fn start(lab: &Lab, resources: &Path) -> Result<Etcd> {
        let namespace = lab.namespace("etcd")?;
        let peer = "http://127.0.0.1:2380";
        let mut command = namespace.command("etcd");
        command
            .current_dir(lab.directory())
            .args(["--name", "lab", "--data-dir", "etcd", "--log-level", "error"])
            .args(["--listen-client-urls", &format!("unix://{SOCKET}")])
            .args(["--advertise-client-urls", "http://127.0.0.1:2379"])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &format!("lab={peer}")]);
        let process = lab.spawn("etcd", command).context("cannot start etcd: is etcd-server installed?")?;
        let endpoint = format!("unix://{}", lab.directory().join(SOCKET).display());
        let settings = EtcdSettings { endpoints: vec![endpoint.clone()], ..EtcdSettings::default() };
        let mut mirror = Mirror {
            directory: DirectoryStore::open(resources)?,
            etcd: EtcdStore::open(&settings)?,
            written: BTreeMap::new(),
        };
        lab.wait("etcd", START, || Ok(mirror.look().ok()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mirror = std::thread::Builder::new().name("mirror".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                sleep(EVERY);
                // A scenario may have killed etcd; what it misses is written when it is back.
                let _ = mirror.look();
            }
        })?;
        Ok(Etcd { endpoint, stop, mirror: Some(mirror), _process: process })
    }

    /// Where routers find it.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Etcd {
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
