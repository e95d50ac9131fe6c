//! Our fast path as a process of its own between two interfaces: the worker, the walk, the rings and the XDP programs
//! of the product, with tables filled from a file instead of by BGP.

use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use afxdp::{AttachRequest, ModeRequest, Program, ProgramKind, QueueConfig, Region, RegionConfig, UmemSet};
use anyhow::{Context, Result, anyhow, ensure};
use fastpath::{Command, QueueStatistics, Waiting, Worker, WorkerConfig, WorkerEnds, XdpPort};
use model::{IfIndex, MacAddr, PortId, PortKind, Prefix, WorkerId};
use perf::{data, packets};
use tables::{
    Adjacency, Capturing, Counters, Flows, Group, Limits, PolicyReport, Port, Stage, Tracing, Writer,
    copy_ring,
};

use super::rig::{self, Told};

/// What `perf veth router` is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// The worker's core.
    #[arg(long)]
    core: usize,
    /// What it does while there are no packets: busy, interrupt or adaptive.
    #[arg(long, default_value = "adaptive", value_parser = waiting)]
    waiting: Waiting,
}

fn waiting(text: &str) -> Result<Waiting, String> {
    match text {
        "busy" => Ok(Waiting::Busy),
        "interrupt" => Ok(Waiting::Interrupt),
        "adaptive" => Ok(Waiting::Adaptive),
        _ => Err("busy, interrupt or adaptive".to_owned()),
    }
}

/// Next hops that the routes are spread over.
const NEXT_HOPS: usize = 16;
/// As `tortie` has them: see its `limits.rs`.
const FRAMES: u32 = 131_072;
const COPY_BYTES: usize = 2_048;
const SLOTS: usize = 1_024;

/// Forwards from d0 to d1 until its input ends; answers each line of input with its numbers.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut writer = tables()?;
    let (region, pool) =
        Region::new(RegionConfig { frames: FRAMES, chunk_size: 2048, large: None, hugepages: false })?;
    let total = pool.total();
    let counters = Counters::new(1, 2);
    let (punt, _punted) = copy_ring(SLOTS, COPY_BYTES);
    let (_injected, inject) = copy_ring(SLOTS, COPY_BYTES);
    let (orders, commands) = crossbeam_channel::bounded(8);
    let handoffs = fastpath::handoffs(1, SLOTS, COPY_BYTES).pop().context("one worker")?;
    let reader = writer.reader().context("one reader")?;
    let flows = Flows::new(1024);
    let policy_report = PolicyReport::new(1, 64, 64);
    let counters_too = counters.clone();
    let ends = WorkerEnds {
        pool,
        reader,
        flows,
        policy_report,
        tracing: Tracing::new(1),
        capturing: Capturing::new(),
        counters: counters_too,
        punt,
        inject,
        handoffs,
        commands,
    };
    let config = WorkerConfig {
        waiting: arguments.waiting,
        id: WorkerId(0),
        core: Some(arguments.core),
        idle_wait: std::time::Duration::from_millis(1),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let core = core_affinity::CoreId { id: arguments.core };
    let thread = std::thread::spawn(move || {
        core_affinity::set_for_current(core);
        let mut worker = Worker::new(config, ends);
        worker.run(&stopped);
        worker.frames()
    });
    let mut umem = UmemSet::new(region);
    let mut statistics = Vec::new();
    let mut programs = Vec::new();
    for (row, interface) in ["d0", "d1"].into_iter().enumerate() {
        let ifindex = afxdp::interface_index(interface)?;
        let program = Program::load(ProgramKind::Uplink, 1)?;
        program.attach(ifindex, AttachRequest::Native)?;
        let queue = QueueConfig { mode: ModeRequest::Copy, ..QueueConfig::new(ifindex, 0) };
        let queue = QueueConfig { rings: afxdp::RingSizes { rx: 4096, ..queue.rings }, ..queue };
        let (queue, report) = umem.bind(queue)?;
        eprintln!("{report}");
        program.set_socket(0, &queue)?;
        let kernel = Arc::new(QueueStatistics::default());
        let port = PortId(row as u16);
        let queue = Box::new(XdpPort(queue));
        let order = Command::AddQueue { port, queue, statistics: Arc::clone(&kernel) };
        ensure!(orders.send(order).is_ok(), "the worker ended");
        statistics.push(kernel);
        programs.push((ifindex, program));
    }
    let tell = || {
        let books = counters.books();
        let balance = u64::from(books.balance());
        let lost: u64 = statistics.iter().map(|queue| queue.lost()).sum();
        let mut told = Told::from([
            ("received".to_owned(), books.received),
            ("forwarded".to_owned(), books.forwarded),
            ("punted".to_owned(), books.punted()),
            ("dropped".to_owned(), books.dropped()),
            ("balance".to_owned(), balance),
            ("lost by the kernel".to_owned(), lost),
        ]);
        let timed = counters.worker(0).stages();
        let stages = Stage::ALL.iter().map(|stage| (stage_key(*stage), timed.ticks[stage.index()]));
        told.extend(stages);
        told
    };
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{}", serde_json::to_string(&tell())?);
        std::io::stdout().flush()?;
    }
    stop.store(true, Ordering::Relaxed);
    let (free, _) = thread.join().map_err(|_| anyhow!("the worker failed"))?;
    for (ifindex, _program) in programs {
        afxdp::detach(ifindex)?;
    }
    let mut last = tell();
    last.insert("missing frames".to_owned(), (total - free) as u64);
    println!("{}", serde_json::to_string(&last)?);
    Ok(())
}

/// The name of a stage's ticks in what the router tells.
fn stage_key(stage: Stage) -> String {
    format!("ticks: {}", stage.as_str())
}

/// The share of the worker's timed ticks that went neither into receiving nor into transmitting.
pub fn walks_share(told: &Told) -> f64 {
    let ticks = |stage: &Stage| told.get(&stage_key(*stage)).copied().unwrap_or(0) as f64;
    let total: f64 = Stage::ALL.iter().map(ticks).sum();
    1.0 - (ticks(&Stage::Receive) + ticks(&Stage::Transmit)) / total
}

/// The internet's IPv4 routes, spread over next hops that are all the sink.
fn tables() -> Result<Writer> {
    let routes = data::internet()?.v4;
    let mut writer = Writer::new(Limits {
        ports: 2,
        adjacencies: 64,
        groups: 64,
        routes_v4: routes.len() * 5 / 4,
        routes_v6: 16,
        policy: tables::PolicyLimits::NONE,
        readers: 1,
    });
    let egress = PortId(1);
    for (id, name, mac) in [(PortId(0), "d0", packets::ROUTER), (egress, "d1", rig::EGRESS)] {
        writer.put_port(port(id, name, mac)?)?;
    }
    let mut groups = Vec::new();
    for _ in 0..NEXT_HOPS {
        let adjacency = Adjacency::resolved(egress, rig::NEXT_HOP.into(), rig::SINK, rig::EGRESS);
        let adjacency = writer.insert_adjacency(adjacency)?;
        groups.push(writer.insert_group(Group::Forward(vec![adjacency]))?);
    }
    writer.set_ready(true);
    writer.publish();
    for (number, (addr, len)) in routes.into_iter().enumerate() {
        let prefix = Prefix::new(IpAddr::V4(addr.into()), len).context("a prefix of at most 32 bits")?;
        writer.insert_route(prefix, groups[number % NEXT_HOPS])?;
        if number % 1024 == 0 {
            writer.reclaim();
        }
    }
    Ok(writer)
}

fn port(id: PortId, name: &str, mac: MacAddr) -> Result<Port> {
    let ifindex = IfIndex(afxdp::interface_index(name)?);
    let name = name.to_owned();
    Ok(Port {
        id,
        name,
        ifindex,
        kind: PortKind::Uplink,
        mac,
        mtu: 1500,
        up: true,
        queues: 1,
        endpoint: None,
    })
}
