//! What this node tells of itself in the datastore, as Calico's node does: that it is alive, how its endpoints fare (Felix,
//! `felix/statusrep`), and what CalicoNodeStatus resources ask for (`node/pkg/status`).
//!
//! A thread of its own asks the slow path once a second what there is to tell, and writes what has changed: a datastore that
//! is slow or away holds up nobody. Nothing is removed at the end: what says that the node is alive goes away by itself.

mod endpoints;
mod heartbeat;
mod node_status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use datastore::{DatastoreSettings, Store, StoreError};
use slowpath::status::ReportingStatus;
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::observer::{NoAnswer, Observer};
use endpoints::Endpoints;
use heartbeat::Heartbeat;
use node_status::NodeStatuses;

/// How often it is looked at what there is to tell.
const LOOK: Duration = Duration::from_secs(1);
/// How long a datastore that couldn't be written to is left alone.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Tells until it is dropped.
pub(crate) struct Reporting {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reporting {
    /// Begins to tell.
    ///
    /// # Errors
    /// The system has no thread or no file descriptor left.
    pub(crate) fn start(config: &Config, observer: Observer) -> anyhow::Result<Reporting> {
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context(
            "can't start the event loop of what the node tells; are file descriptors left (ulimit -n)?",
        )?;
        let reporter = Reporter {
            observer,
            runtime,
            stopped: Arc::clone(&stop),
            settings: config.datastore.clone(),
            store: None,
            heartbeat: Heartbeat::new(&config.node, Instant::now()),
            endpoints: Endpoints::new(&config.node),
            statuses: NodeStatuses::new(&config.node),
            problem: None,
        };
        let thread = thread::Builder::new()
            .name("reporting".to_owned())
            .spawn(move || reporter.run())
            .context("can't start the thread that tells of the node")?;
        Ok(Reporting { stop, thread: Some(thread) })
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It may be waiting for a datastore that doesn't answer; nothing of it needs an end.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

struct Reporter {
    observer: Observer,
    runtime: Runtime,
    stopped: Arc<AtomicBool>,
    settings: DatastoreSettings,
    /// Opened with the first word.
    store: Option<Box<dyn Store>>,
    heartbeat: Heartbeat,
    endpoints: Endpoints,
    statuses: NodeStatuses,
    /// Why the last word couldn't be written.
    problem: Option<String>,
}

/// Why nothing could be told.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    SlowPath(#[from] NoAnswer),
}

impl Reporter {
    fn run(mut self) {
        while !self.stopped.load(Ordering::Relaxed) {
            let wait = match self.turn() {
                Ok(()) => {
                    if self.problem.take().is_some() {
                        tracing::info!("what the node tells of itself reaches the datastore again");
                    }
                    LOOK
                }
                Err(Failure::SlowPath(NoAnswer::Ended)) => return,
                Err(failure) => {
                    let problem = failure.to_string();
                    if self.problem.as_ref() != Some(&problem) {
                        tracing::warn!("the node can't tell of itself in the datastore: {problem}");
                    }
                    self.problem = Some(problem);
                    AFTER_FAILURE
                }
            };
            thread::park_timeout(wait);
        }
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let status = self.runtime.block_on(self.observer.reporting())?;
        let now = Instant::now();
        if !status.in_sync || !self.has_something_to_tell(&status, now) {
            return Ok(());
        }
        let store = match &self.store {
            Some(store) => &**store,
            None => &**self.store.insert(self.settings.open()?),
        };
        self.heartbeat.beat(store, &status, now)?;
        self.endpoints.tell(store, &status, now)?;
        let (runtime, observer) = (&self.runtime, &self.observer);
        self.statuses.tell(store, &status, now, |wanted| {
            let ask = async {
                let bgp = observer.bgp().await?;
                let routes = match wanted.routes {
                    true => observer.reported_routes(node_status::ROUTES).await?,
                    false => Default::default(),
                };
                Ok::<_, NoAnswer>((bgp, routes))
            };
            runtime.block_on(ask)
        })
    }

    fn has_something_to_tell(&mut self, status: &ReportingStatus, now: Instant) -> bool {
        self.heartbeat.is_due(status, now)
            || self.endpoints.is_due(status, now)
            || self.statuses.is_due(status, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that tells that it is alive as Felix does where nothing is said.
    pub(super) fn status() -> ReportingStatus {
        ReportingStatus {
            in_sync: true,
            interval_seconds: 30.0,
            ttl_seconds: 90.0,
            endpoints: None,
            requests: Vec::new(),
        }
    }
}
