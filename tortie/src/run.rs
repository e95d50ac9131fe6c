//! `tortie run`: the table of contents of the running system.
//!
//! ```text
//!   main thread: signals, control socket, metrics          (nothing here can hold up a session or a packet)
//!       │ questions                     ▲ counters
//!       ▼                               │
//!   slowpath thread ── tables, commands ──► worker 0, worker 1, …    (one pinned core each)
//!                   ◄── punts, injects ──►
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use afxdp::{Region, RegionConfig, UmemSet};
use anyhow::{Context, bail};
use fastpath::{Rehearsal, WorkerConfig, WorkerEnds};
use model::WorkerId;
use slowpath::privileges::{NET_RAW, born_with};
use slowpath::{Ends, Slowpath};
use tables::{Capturing, Counters, Flows, PolicyReport, Tracing, Writer, copy_ring};
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::cores::{self, Machine};
use crate::frame_size::{FrameSize, LargestPacket};
use crate::limits::{self, Memory};
use crate::looking_glass::LookingGlass;
use crate::metrics::Sheet;
use crate::observer::Observer;
use crate::open_ports::OpenPorts;
use crate::ports::{Ports, WorkerQueues};
use crate::reporting::Reporting;
use crate::session_sockets::SessionSockets;
use crate::signals::Signals;
use crate::traces::Traces;
use crate::tuning::Tuner;
use crate::{bird, control, flow_hash, http, privileges, startup, supervisor};

/// How often the workers are looked after.
const WATCH: Duration = Duration::from_secs(1);
/// How long a worker may take to close its queues: each waits up to 200 ms for frames on their way out.
const WORKERS_STOP_WITHIN: Duration = Duration::from_secs(5);

/// How long sockets that somebody holds are waited for: a router that was killed while it started nft has left its own to that
/// child until the program is loaded.
const PREDECESSOR_GOES_WITHIN: Duration = Duration::from_millis(500);

/// Runs the router until a signal ends it.
///
/// # Errors
/// What keeps it from starting, or from running on; each error says what to do.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    privileges::check()?;
    privileges::permit_coming_first();
    privileges::give_up_the_rest()?;
    afxdp::map_large_allocations();
    let plan = Machine::read().plan(config)?;
    let runtime = runtime()?;
    runtime.block_on(supervise(config, &plan))
}

/// Starts the parts, waits, and stops them in reverse order.
async fn supervise(config: &Config, plan: &cores::Plan) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("can't listen for signals")?;
    // First of all, so that a second router of the same name ends before it touches an interface.
    let Sockets { control, bird, http } = Sockets::open(config).await?;
    // Before the slow path, which then finds the node complete.
    let startup = tokio::select! {
        startup = startup::on_a_thread(config) => startup.context("the node can't start up")?,
        signal = signals.next() => {
            tracing::info!(signal, "ending before the start is over");
            return Ok(());
        }
    };
    let largest = LargestPacket::of(config);
    let size = FrameSize::for_mtu(largest.mtu);
    let memory = Memory::of(&config.limits, config.workers, size);
    tracing::info!(node = %config.node, version = env!("CARGO_PKG_VERSION"), "tortie starts");
    tracing::info!("{}", largest.sentence(size, &config.limits));
    tracing::info!("{}", memory.summary());
    tracing::info!("{}", plan.sentence);
    match Tuner::new(config, &plan.cores) {
        Some(tuner) => tuner.cores(),
        None if config.busy_poll => tracing::warn!(
            "`waiting: busy-poll` without `tuning`: interrupts bring packets before workers poll, unless \
             napi_defer_hard_irqs and gro_flush_timeout of the uplinks are set by somebody else"
        ),
        None => {}
    }

    let opened = OpenPorts::default();
    let counters = Counters::new(config.workers, config.limits.ports);
    let (questions, requests) = mpsc::channel(limits::QUESTIONS);
    // At most `Limits::NAT_PORTS`.
    let flows = Flows::with_share(config.limits.flows, config.limits.nat_ports_per_address as u32);
    flows.places().into_iter().for_each(afxdp::prefer_huge_pages);
    let capturing = Capturing::new();
    let observer =
        Observer::new(questions, counters.clone(), opened.clone(), flows.clone(), capturing.clone())
            .with_limits(config.limits);
    let tracing = Tracing::new(limits::FOLLOWED_WAITING);
    let watching = (tracing.clone(), capturing);
    let (workers, mut ends) = start_workers(config, size, plan, opened, counters, &flows, &watching)?;
    let observer =
        observer.with_traces(Traces::new(rehearsal(config, size, &mut ends.writer, flows)?, tracing));
    let mut slow = SlowPathThread::start(config, size, ends, requests)?;
    // From here on this thread answers questions, and what it starts tells of the node.
    privileges::give_up_all()?;
    let reporting = Reporting::start(config, observer.clone())?;
    tracing::info!(socket = %config.control_socket.display(), "tortie runs");

    let outcome = {
        let serving = async {
            tokio::join!(
                control.serve(&observer),
                serve_bird(bird.as_ref(), &observer),
                serve_http(http.0.as_ref(), &observer),
                serve_http(http.1.as_ref(), &observer),
                supervisor::keep_told(&observer)
            )
        };
        tokio::select! {
            _ = serving => unreachable!("servers serve until dropped"),
            signal = signals.next() => {
                tracing::info!(signal, "stopping; the same signal again ends at once");
                supervisor::stopping();
                Ok(())
            }
            ended = slow.ended() => Err(ended),
            worker = workers.one_ended() => {
                Err(anyhow::anyhow!("worker {worker} ended; this is a bug, please report the log"))
            }
        }
    };
    // A second signal ends the process wherever the orderly way is: everything that matters stays in the kernel.
    let stopping = async {
        slow.stop().await;
        drop((control, bird, http, startup, reporting));
        workers.stop().await
    };
    tokio::select! {
        () = stopping => {}
        signal = signals.next() => {
            tracing::warn!(signal, "ending at once");
            std::process::exit(i32::from(outcome.is_err()));
        }
    }
    tracing::info!(
        "stopped; on purpose this stays: XDP programs (the kernel forwards transit, workload ports stay closed), \
         mirrored routes and the nftables tables; `tortie cleanup -c FILE` removes them"
    );
    outcome
}

async fn serve_bird(servers: Option<&bird::Servers>, observer: &Observer) {
    match servers {
        Some(servers) => servers.serve(observer).await,
        None => std::future::pending().await,
    }
}

/// What questions are answered at.
struct Sockets {
    control: control::Server,
    bird: Option<bird::Servers>,
    http: (Option<http::Server>, Option<http::Server>),
}

impl Sockets {
    /// Opens all, and tries again for [`PREDECESSOR_GOES_WITHIN`].
    async fn open(config: &Config) -> anyhow::Result<Sockets> {
        let deadline = Instant::now() + PREDECESSOR_GOES_WITHIN;
        loop {
            match Sockets::try_open(config).await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
                result => return result,
            }
        }
    }

    async fn try_open(config: &Config) -> anyhow::Result<Sockets> {
        Ok(Sockets {
            control: control::Server::listen(&config.control_socket)?,
            bird: config.bird_sockets.as_deref().map(bird::Servers::listen).transpose()?,
            http: http_servers(config).await?,
        })
    }
}

/// The metrics and the looking glass, where they are asked for.
async fn http_servers(config: &Config) -> anyhow::Result<(Option<http::Server>, Option<http::Server>)> {
    let metrics = match &config.metrics {
        Some(endpoint) => Some(http::Server::listen(endpoint, http::Site::Metrics(Sheet::default())).await?),
        None => None,
    };
    let glass = match &config.looking_glass {
        Some(endpoint) => {
            let glass = Arc::new(LookingGlass::new(config.node.clone()));
            Some(http::Server::listen(endpoint, http::Site::LookingGlass(glass)).await?)
        }
        None => None,
    };
    Ok((metrics, glass))
}

async fn serve_http(server: Option<&http::Server>, observer: &Observer) {
    match server {
        Some(server) => server.serve(observer).await,
        None => std::future::pending().await,
    }
}

/// A runtime of one thread, the caller's.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the event loop; are file descriptors left (ulimit -n)?")
}

/// Makes tables and rings, starts the workers, and returns the slow path's ends.
fn start_workers(
    config: &Config,
    size: FrameSize,
    plan: &cores::Plan,
    opened: OpenPorts,
    counters: Counters,
    flows: &Flows,
    (tracing, capturing): &(Tracing, Capturing),
) -> anyhow::Result<(Workers, Ends)> {
    let mut writer = Writer::new(table_limits(config));
    writer.fib().places().into_iter().for_each(afxdp::prefer_huge_pages);
    writer.set_flow_hash(flow_hash::of(config));
    let policy_report =
        PolicyReport::new(config.workers, limits::POLICY_RULES_COUNTED, limits::POLICY_EVENTS);
    let mut workers = Workers { stop: Arc::default(), threads: Vec::new() };
    let (mut punts, mut injects, mut queues) = (Vec::new(), Vec::new(), Vec::new());
    let handoffs = fastpath::handoffs(config.workers, limits::HANDOFF_SLOTS, size.bytes() as usize);
    for ((index, handoffs), core) in handoffs.into_iter().enumerate().zip(&plan.cores) {
        let (region, pool) = Region::new(RegionConfig {
            // `Limits::FRAMES` ends far below 2^32.
            frames: config.limits.frames as u32,
            chunk_size: size.chunk_bytes,
            large: size.large(&config.limits),
            hugepages: false,
        })?;
        let (punt, punted) = copy_ring(limits::PUNT_SLOTS, size.bytes() as usize);
        let (injected, inject) = copy_ring(limits::INJECT_SLOTS, limits::INJECT_BYTES);
        let (orders, commands) = crossbeam_channel::bounded(limits::COMMANDS);
        let reader = writer.reader().context("a table reader for every worker")?;
        let (counters, flows, policy_report) = (counters.clone(), flows.clone(), policy_report.clone());
        let (tracing, capturing) = (tracing.clone(), capturing.clone());
        let ends = WorkerEnds {
            pool,
            reader,
            flows,
            policy_report,
            tracing,
            capturing,
            counters,
            punt,
            inject,
            handoffs,
            commands,
        };
        let worker = WorkerConfig {
            // At most `limits::WORKERS`.
            id: WorkerId(index as u16),
            core: *core,
            waiting: config.waiting,
            idle_wait: limits::IDLE_WAIT,
        };
        let thread = born_with(NET_RAW, || fastpath::spawn(worker, ends, Arc::clone(&workers.stop)))
            .and_then(|thread| thread)
            .with_context(|| format!("can't start worker {index}; name other cores in `cores`, or none"))?;
        workers.threads.push(thread);
        queues.push(WorkerQueues::new(UmemSet::new(region), orders, config.limits.frames));
        punts.push(punted);
        injects.push(injected);
    }
    let ports = Ports::new(
        config.mode,
        config.busy_poll,
        config.queues,
        Tuner::new(config, &plan.cores),
        queues,
        opened,
        counters,
    );
    let flows = flows.clone();
    let ends = Ends {
        writer,
        punts,
        injects,
        flows,
        policy_report,
        ports: Box::new(ports),
        session_sockets: Arc::new(SessionSockets),
        come_first: afxdp::come_first,
    };
    Ok((workers, ends))
}

/// What takes packets that are made up through the walk.
fn rehearsal(
    config: &Config,
    size: FrameSize,
    writer: &mut Writer,
    flows: Flows,
) -> anyhow::Result<Rehearsal> {
    let region = RegionConfig {
        frames: limits::REHEARSAL_FRAMES,
        chunk_size: size.chunk_bytes,
        large: None,
        hugepages: false,
    };
    let (_, pool) = Region::new(region)?;
    let reader = writer.reader().context("a table reader for made-up packets")?;
    Ok(Rehearsal::new(reader, pool, flows, config.limits.ports))
}

fn table_limits(config: &Config) -> tables::Limits {
    tables::Limits {
        ports: config.limits.ports,
        adjacencies: config.limits.adjacencies,
        groups: config.limits.groups,
        routes_v4: config.limits.routes_v4,
        routes_v6: config.limits.routes_v6,
        policy: config.limits.policy(),
        // One more looks at what is made up.
        readers: config.workers + 1,
    }
}

/// What the slow path is told.
fn slow_path_config(config: &Config, size: FrameSize) -> slowpath::Config {
    slowpath::Config {
        node: config.node.clone(),
        datastore: config.datastore.clone(),
        secrets: config.secrets.clone(),
        bfd: config.bfd,
        uplinks: config.uplinks.clone(),
        workload_prefix: config.workload_prefix.clone(),
        lower_workload_mtu: config.lower_workload_mtu,
        mtu_file: config.mtu_file.clone(),
        reserved_ports: config.reserved_ports(),
        former_settings: config.former_settings(),
        receivable: size.receivable(),
        segments: config.segments.clone(),
        bgp: config.bgp.clone(),
        mirror_routes: config.limits.mirror_routes,
        neighbors: config.limits.neighbors,
        prefixes_per_peer: config.limits.prefixes_per_peer,
        stop_within: limits::STOP_WITHIN,
    }
}

/// The fast path's threads.
struct Workers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Waits until one ends by itself, which none should.
    async fn one_ended(&self) -> usize {
        loop {
            if let Some(worker) = self.threads.iter().position(JoinHandle::is_finished) {
                return worker;
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    /// Ends them all: queues are closed, frames on their way out are sent.
    async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + WORKERS_STOP_WITHIN;
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (number, thread) in self.threads.drain(..).enumerate() {
            if !thread.is_finished() {
                tracing::warn!(worker = number, "a worker is slow to close its queues; ending without it");
            } else if thread.join().is_err() {
                tracing::error!(worker = number, "a worker failed while it stopped");
            }
        }
    }
}

impl Drop for Workers {
    /// Also where the start fails half-way: no worker outlives it.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The slow path on a thread of its own, so that no scrape or question can hold up a session.
struct SlowPathThread {
    stop: Arc<AtomicBool>,
    outcome: oneshot::Receiver<anyhow::Result<()>>,
    over: bool,
}

impl SlowPathThread {
    fn start(
        config: &Config,
        size: FrameSize,
        ends: Ends,
        requests: mpsc::Receiver<slowpath::Request>,
    ) -> anyhow::Result<SlowPathThread> {
        let (told, outcome) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let config = slow_path_config(config, size);
        let stopped = Arc::clone(&stop);
        thread::Builder::new()
            .name("slowpath".to_owned())
            .spawn(move || {
                let outcome = runtime().and_then(|runtime| {
                    let slow_path = Slowpath::new(config, ends, requests, stopped);
                    Ok(runtime.block_on(slow_path.run())?)
                });
                // The main thread may have given up waiting.
                let _ = told.send(outcome);
            })
            .context("can't start the slow path's thread")?;
        Ok(SlowPathThread { stop, outcome, over: false })
    }

    /// Waits until it ends by itself, which it does only when it can't go on, and says why.
    async fn ended(&mut self) -> anyhow::Error {
        let outcome = (&mut self.outcome).await;
        self.over = true;
        match outcome {
            Ok(Err(error)) => error.context("the slow path can't go on"),
            Ok(Ok(())) => {
                anyhow::anyhow!("the slow path ended unasked; this is a bug, please report the log")
            }
            Err(_) => anyhow::anyhow!("the slow path failed; this is a bug, please report the log"),
        }
    }

    /// Ends it: sessions end in such a way that peers keep our routes.
    async fn stop(mut self) {
        if self.over {
            return;
        }
        self.stop.store(true, Ordering::Relaxed);
        // Its own patience, and as much again for the way.
        match tokio::time::timeout(2 * limits::STOP_WITHIN, &mut self.outcome).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!("the slow path ended with: {error:#}"),
            Ok(Err(_)) => tracing::error!("the slow path failed while it stopped"),
            Err(_) => tracing::warn!("the slow path is slow to stop; ending without it"),
        }
    }
}

/// Refuses where a router is at work: what it needs must not be removed under it.
///
/// # Errors
/// A router answers at the control socket.
pub(crate) fn refuse_beside_a_router(config: &Config) -> anyhow::Result<()> {
    if std::os::unix::net::UnixStream::connect(&config.control_socket).is_ok() {
        bail!("a router is running and answers at {}; stop it first", config.control_socket.display());
    }
    Ok(())
}
