//! What calico/node does when it starts, where `tortie.yaml` asks for it by `startup` (`node/pkg/lifecycle/startup`,
//! `node/pkg/allocateip`): the node's own resource is made or completed, pools and settings that every cluster has are made
//! where they are missing, and the node's ends of tunnels get their addresses, which are looked after from then on.
//!
//! Decisions are functions of variables, interfaces and stored values; only this file and `resources.rs` touch the store.

mod addresses;
mod cluster;
mod detect;
mod pools;
mod resources;
mod tunnels;

use std::collections::BTreeMap;
use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail};
use datastore::{ClientError, ResourceKind, Store, StoreError};
use model::Family;
use slowpath::HostInterface;
use slowpath::privileges::{NOTHING, born_with};
use tokio::sync::oneshot;

use crate::config::Config;
use resources::Resources;

/// How often the addresses of tunnels are held against the pools. calico/node follows changes, and looks every five minutes.
const LOOK_AFTER: Duration = Duration::from_secs(30);
/// How often a datastore that can't be asked is asked again, where it is to be waited for.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often the node's resource is tried to be written where others write it too, as calico/node has it.
const ATTEMPTS: usize = 5;

/// What an operator says about the start: the environment first, then the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables(BTreeMap<&'static str, String>);

impl Variables {
    /// A variable that is set; one that is set to nothing counts as well.
    fn lookup(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().or_else(|| self.0.get(name).cloned())
    }

    /// A variable's text, empty where it isn't set.
    fn get(&self, name: &str) -> String {
        self.lookup(name).unwrap_or_default()
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name).eq_ignore_ascii_case("true")
    }
}

/// Looks after what the start has made, until it is dropped.
pub(crate) struct Startup {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Startup {
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

/// Starts the node up, where that is asked for, on a thread of its own: a datastore may take its time, and a signal is to end the
/// program all the same.
///
/// # Errors
/// What is wrong with the variables, the host's addresses or the datastore.
pub(crate) async fn on_a_thread(config: &Config) -> anyhow::Result<Option<Startup>> {
    let config = config.clone();
    let (told, outcome) = oneshot::channel();
    let named = thread::Builder::new().name("startup".to_owned());
    let start = move || {
        // Nobody listens where a signal came meanwhile.
        let _ = told.send(run(&config));
    };
    born_with(NOTHING, || named.spawn(start)).and_then(|thread| thread).context("can't start a thread")?;
    outcome.await.context("the start failed; this is a bug, please report the log")?
}

fn run(config: &Config) -> anyhow::Result<Option<Startup>> {
    let Some(variables) = config.startup.clone().map(Variables) else { return Ok(None) };
    let store = config.datastore.open().context("can't write to the datastore")?;
    if variables.is_true("WAIT_FOR_DATASTORE") {
        wait_for(&*store, &config.node)?;
    }
    let interfaces = slowpath::host_interfaces().context("can't list the host's interfaces")?;
    start(&*store, &config.node, &variables, &interfaces)?;
    look_after(store, config.node.clone()).map(Some)
}

/// Everything but looking after it.
fn start(
    store: &dyn Store,
    node: &str,
    variables: &Variables,
    interfaces: &[HostInterface],
) -> anyhow::Result<()> {
    let resources = Resources::new(store);
    let host = addresses::Host { interfaces, source_towards: &source_towards };
    again_on_conflict(|| addresses::configure(&resources, node, variables, &host))?;
    // Many nodes may start at once where nothing has been written yet.
    again_on_conflict(|| pools::configure(&resources, variables, interfaces, ipv6_is_there()))?;
    again_on_conflict(|| cluster::configure(&resources, node, &variables.get("CLUSTER_TYPE")))?;
    again_on_conflict(|| tunnels::reconcile(store, node))
        .context("can't set the addresses of the node's tunnels")
}

/// Begins anew where somebody else has written what this was about to write.
fn again_on_conflict(work: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    for _ in 1..ATTEMPTS {
        match work() {
            Err(error) if is_conflict(&error) => tracing::info!("trying again: {error:#}"),
            outcome => return outcome,
        }
    }
    work()
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(StoreError::Conflict(_)))
            || matches!(cause.downcast_ref(), Some(StoreError::AlreadyExists(_)))
            || matches!(cause.downcast_ref(), Some(ClientError::AlreadyExists(_) | ClientError::Conflict(_)))
    })
}

fn wait_for(store: &dyn Store, node: &str) -> anyhow::Result<()> {
    loop {
        match store.get(&resources::key(ResourceKind::Node, node)) {
            Err(StoreError::Unavailable(why)) => tracing::info!("waiting for the datastore: {why}"),
            Ok(_) | Err(StoreError::NotFound(_)) => return Ok(()),
            Err(error) => bail!(error),
        }
        thread::sleep(ASK_AGAIN);
    }
}

/// Holds the tunnels' addresses against the pools now and then.
fn look_after(store: Box<dyn Store>, node: String) -> anyhow::Result<Startup> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = thread::Builder::new()
        .name("tunnel-addresses".to_owned())
        .spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::park_timeout(LOOK_AFTER);
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = tunnels::reconcile(&*store, &node) {
                    tracing::warn!("can't look after the addresses of the node's tunnels: {error:#}");
                }
            }
        })
        .context("can't start the thread that looks after the tunnels' addresses")?;
    Ok(Startup { stop, thread: Some(thread) })
}

/// The address that the host would send from towards a destination. Nothing is sent.
fn source_towards(destination: &str, family: Family) -> Option<std::net::IpAddr> {
    let of_family = |addr: &std::net::SocketAddr| Family::of(addr.ip()) == family;
    let there = (destination, 80).to_socket_addrs().ok()?.find(of_family)?;
    let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(there).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// Does the kernel speak IPv6, and nobody has switched it off?
fn ipv6_is_there() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")
        .is_ok_and(|disabled| disabled.trim() == "0")
}

#[cfg(test)]
mod tests;
