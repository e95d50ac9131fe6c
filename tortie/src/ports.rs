//! Opens ports over AF_XDP for the slow path: worker *i* owns queue *i* of every port (ARCHITECTURE.md, D3).

mod queue_plan;
mod rings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use afxdp::{
    Attach, AttachReport, AttachRequest, BindReport, Delivery, ModeRequest, Program, ProgramKind,
    QueueConfig, Steering, TunnelKind, UmemSet,
};
use crossbeam_channel::Sender;
use fastpath::{Command, QueueStatistics, XdpPort};
use model::{PortId, PortKind};
use slowpath::{NotDelivered, OpenPort, OpenPortError, PortOpener, QueueReport, TunnelTraffic};
use tables::Counters;

use crate::config::Mode;
use crate::limits;
use crate::open_ports::{OpenPorts, OpenedPort};
use crate::tuning::Tuner;
pub(crate) use queue_plan::QueuePlan;
use queue_plan::receive_queues;
pub(crate) use rings::room_for_workloads;
use rings::{FrameBudget, TooFew};

/// What is needed to give a worker queues.
pub(crate) struct WorkerQueues {
    umem: UmemSet,
    commands: Sender<Command>,
    frames: FrameBudget,
}

impl WorkerQueues {
    pub(crate) fn new(umem: UmemSet, commands: Sender<Command>, frames: usize) -> WorkerQueues {
        WorkerQueues { umem, commands, frames: FrameBudget::new(frames) }
    }
}

/// Why a port can't be opened. The slow path shows it as a problem of the interface.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Program(#[from] afxdp::ProgramError),
    #[error(transparent)]
    Attach(#[from] afxdp::AttachError),
    #[error(transparent)]
    Bind(#[from] afxdp::BindError),
    #[error("a socket can't be held until forwarding opens: {0}; are file descriptors left (ulimit -n)?")]
    Hold(std::io::Error),
    #[error(
        "worker {worker} has no {wanted} frames left for its rings ({left} are); raise limits.frames or have fewer ports"
    )]
    Frames { worker: usize, wanted: usize, left: usize },
    #[error("worker {worker} takes no commands; restart tortie, and report this as a bug")]
    Worker { worker: usize },
}

/// An XDP program at work.
struct Attached {
    program: Program,
    ifindex: u32,
    name: String,
    kind: PortKind,
    attach: Attach,
    /// Workers 0 to this, exclusively, own a queue.
    queues: usize,
    /// Queues that frames aren't steered to yet.
    waiting: Vec<Steering>,
}

/// Opens and closes ports.
pub(crate) struct Ports {
    mode: Mode,
    busy_poll: bool,
    /// Queues of each uplink that are asked for.
    queues: usize,
    tuner: Option<Tuner>,
    workers: Vec<WorkerQueues>,
    attached: BTreeMap<PortId, Attached>,
    local: BTreeSet<IpAddr>,
    tunnels: BTreeSet<TunnelKind>,
    /// Ports of own addresses that are translated flows'.
    translated: BTreeMap<IpAddr, RangeInclusive<u16>>,
    /// Do frames of uplinks reach the walk?
    forwarding: bool,
    open: OpenPorts,
    counters: Counters,
    /// Made when it is first needed: most routers never do.
    delivery: Option<Delivery>,
}

impl Ports {
    pub(crate) fn new(
        mode: Mode,
        busy_poll: bool,
        queues: usize,
        tuner: Option<Tuner>,
        workers: Vec<WorkerQueues>,
        open: OpenPorts,
        counters: Counters,
    ) -> Ports {
        Ports {
            mode,
            busy_poll,
            queues,
            tuner,
            workers,
            attached: BTreeMap::new(),
            local: BTreeSet::new(),
            tunnels: BTreeSet::new(),
            translated: BTreeMap::new(),
            forwarding: false,
            open,
            counters,
            delivery: None,
        }
    }

    fn uplinks(&self) -> impl Iterator<Item = &Attached> {
        self.attached.values().filter(|attached| attached.kind == PortKind::Uplink)
    }

    /// What tunes a port of this kind.
    fn tuner(&self, kind: PortKind) -> Option<&Tuner> {
        self.tuner.as_ref().filter(|_| kind == PortKind::Uplink)
    }

    fn try_open(&mut self, port: &OpenPort) -> Result<Vec<QueueReport>, Refused> {
        if let Some(tuner) = self.tuner(port.kind) {
            tuner.queues(&port.name);
        }
        let interface = receive_queues(port);
        let plan = QueuePlan::new(port.kind, interface, self.queues, self.workers.len());
        for note in &plan.notes {
            tracing::warn!(port = %port.name, "{note}");
        }
        self.take_frames(port.kind, plan.queues)?;
        let outcome = self.attach(port).and_then(|(program, attach)| {
            let attached = Attached {
                program,
                ifindex: port.ifindex.0,
                name: port.name.clone(),
                kind: port.kind,
                attach: attach.attach,
                queues: plan.queues,
                waiting: Vec::new(),
            };
            self.bind_queues(port, attached, &attach, &plan)
        });
        if outcome.is_err() {
            self.give_up(port.port, plan.queues);
            self.give_frames_back(port.kind, plan.queues);
        } else if let Some(tuner) = self.tuner(port.kind) {
            tuner.interrupts(&port.name);
        }
        outcome
    }

    /// Loads the program of the port's kind and attaches it. Until sockets are bound its fall-back decides (D1).
    fn attach(&self, port: &OpenPort) -> Result<(Program, AttachReport), Refused> {
        let kind = match port.kind {
            PortKind::Uplink => ProgramKind::Uplink,
            PortKind::Workload | PortKind::Host => ProgramKind::Workload,
        };
        let program = Program::load(kind, port.queues.max(1))?;
        if port.kind == PortKind::Uplink {
            // Before the first frame: what is for the node itself must never be taken for transit.
            for address in &self.local {
                program.add_local(*address, self.translated.get(address))?;
            }
            for tunnel in &self.tunnels {
                program.add_tunnel(*tunnel)?;
            }
        }
        let request = match (self.mode, port.kind) {
            // The generic code can't do zero-copy.
            (Mode::ZeroCopy, PortKind::Uplink) => AttachRequest::Native,
            _ => AttachRequest::Auto,
        };
        let report = program.attach(port.ifindex.0, request)?;
        Ok((program, report))
    }

    /// What the queues of a port are asked for, but their number and their rings.
    fn queue_config(&self, port: &OpenPort) -> QueueConfig {
        let mode = match (self.mode, port.kind) {
            (Mode::Auto, PortKind::Uplink) => ModeRequest::Auto,
            (Mode::ZeroCopy, PortKind::Uplink) => ModeRequest::ZeroCopy,
            // veth has no zero-copy; asking for it would only make noise in the report.
            (Mode::Copy, _) | (_, PortKind::Workload | PortKind::Host) => ModeRequest::Copy,
        };
        // A call for each of many workloads would cost more than their interrupts.
        let is_polled = self.busy_poll && port.kind == PortKind::Uplink;
        let busy_poll = is_polled.then_some(limits::BUSY_POLL);
        QueueConfig { mode, busy_poll, ..QueueConfig::new(port.ifindex.0, 0) }
    }

    /// Binds a queue for each worker and hands it over.
    fn bind_queues(
        &mut self,
        port: &OpenPort,
        mut attached: Attached,
        attach: &AttachReport,
        plan: &QueuePlan,
    ) -> Result<Vec<QueueReport>, Refused> {
        let config = self.queue_config(port);
        let mut reports = Vec::new();
        let mut statistics = Vec::new();
        for (worker, owner) in self.workers.iter_mut().enumerate().take(plan.queues) {
            let number = worker as u32;
            let rings = owner.frames.rings(port.kind);
            let (queue, bound) = owner.umem.bind(QueueConfig { queue: number, rings, ..config })?;
            let steered = if attached.kind == PortKind::Uplink && !self.forwarding {
                Steering::of(&queue).map(|waiting| attached.waiting.push(waiting)).map_err(Refused::Hold)
            } else {
                attached.program.set_socket(number, &queue).map_err(Refused::from)
            };
            let counts = Arc::new(QueueStatistics::default());
            // A queue that couldn't be steered goes to its worker as well: it alone can close it properly.
            let command = Command::AddQueue {
                port: port.port,
                queue: Box::new(XdpPort(queue)),
                statistics: Arc::clone(&counts),
            };
            owner
                .commands
                .send_timeout(command, limits::REMOVE_WITHIN)
                .map_err(|_| Refused::Worker { worker })?;
            steered?;
            reports.push(report(worker, &bound, attach, plan));
            statistics.push((number, counts));
        }
        self.attached.insert(port.port, attached);
        let counted_before = self.counters.port(port.port);
        let opened = OpenedPort { name: port.name.clone(), counted_before, queues: statistics };
        self.open.insert(port.port, opened);
        Ok(reports)
    }

    /// Takes the port's queues from the workers and waits until they are closed.
    fn give_up(&self, port: PortId, queues: usize) {
        for (number, worker) in self.workers.iter().enumerate().take(queues) {
            let (done, closed) = crossbeam_channel::bounded(1);
            let asked = worker
                .commands
                .send_timeout(Command::RemoveQueue { port, done }, limits::REMOVE_WITHIN)
                .is_ok();
            if !asked || closed.recv_timeout(limits::REMOVE_WITHIN).is_err() {
                tracing::warn!(worker = number, %port, "a worker is slow to close its queue; going on without it");
            }
        }
    }

    /// Waits until every worker has the queues that it was sent, with frames in their fill rings: what is steered to a queue
    /// before is lost.
    fn workers_are_ready(&self) {
        let asked = self.workers.iter().map(|worker| {
            let (done, ready) = crossbeam_channel::bounded(1);
            worker
                .commands
                .send_timeout(Command::Confirm { done }, limits::REMOVE_WITHIN)
                .ok()
                .map(|()| ready)
        });
        // All are asked before the first is waited for.
        for (number, ready) in asked.collect::<Vec<_>>().into_iter().enumerate() {
            if ready.is_none_or(|ready| ready.recv_timeout(limits::REMOVE_WITHIN).is_err()) {
                tracing::warn!(
                    worker = number,
                    "a worker is slow to take its queues; going on without its word"
                );
            }
        }
    }

    fn take_frames(&mut self, kind: PortKind, queues: usize) -> Result<(), Refused> {
        for worker in 0..queues {
            if let Err(TooFew { wanted, left }) = self.workers[worker].frames.take(kind) {
                self.give_frames_back(kind, worker);
                return Err(Refused::Frames { worker, wanted, left });
            }
        }
        Ok(())
    }

    fn give_frames_back(&mut self, kind: PortKind, queues: usize) {
        for worker in self.workers.iter_mut().take(queues) {
            worker.frames.give_back(kind);
        }
    }
}

impl PortOpener for Ports {
    fn open(&mut self, port: &OpenPort) -> Result<Vec<QueueReport>, OpenPortError> {
        self.try_open(port).map_err(|refused| OpenPortError(refused.to_string()))
    }

    fn forwarding_opens(&mut self) {
        self.workers_are_ready();
        self.forwarding = true;
        for attached in self.attached.values_mut() {
            for queue in std::mem::take(&mut attached.waiting) {
                if let Err(error) = attached.program.steer(queue) {
                    tracing::error!(port = %attached.name, %error, "a queue stays with the kernel");
                }
            }
        }
    }

    fn forwarding_closes(&mut self) {
        for uplink in self.uplinks() {
            for queue in 0..uplink.queues as u32 {
                if let Err(error) = uplink.program.remove_socket(queue) {
                    tracing::warn!(port = %uplink.name, queue, %error, "what is in this queue at the end is lost");
                }
            }
        }
    }

    fn close(&mut self, port: PortId) {
        self.open.remove(port);
        let Some(mut attached) = self.attached.remove(&port) else { return };
        // They would keep sockets bound that workers close.
        attached.waiting.clear();
        self.give_up(port, attached.queues);
        self.give_frames_back(attached.kind, attached.queues);
        match afxdp::detach(attached.ifindex) {
            // The usual case is the second: the interface went, and its program with it.
            Ok(_) | Err(afxdp::AttachError::NoInterface { .. }) => {}
            Err(error) => {
                tracing::warn!(port = %attached.name, %error, "a port is closed; its XDP program stays")
            }
        }
    }

    fn set_local(&mut self, addresses: &BTreeSet<IpAddr>) {
        for uplink in self.uplinks() {
            // New addresses first: an address that moved within the set is never without its entry.
            for address in addresses.difference(&self.local) {
                if let Err(error) = uplink.program.add_local(*address, self.translated.get(address)) {
                    tracing::error!(port = %uplink.name, %address, %error, "an own address is taken for transit");
                }
            }
            for address in self.local.difference(addresses) {
                if let Err(error) = uplink.program.remove_local(*address) {
                    tracing::warn!(port = %uplink.name, %address, %error, "a former own address stays with the kernel");
                }
            }
        }
        self.local = addresses.clone();
    }

    fn set_translated(&mut self, ports: &BTreeMap<IpAddr, RangeInclusive<u16>>) {
        for uplink in self.uplinks() {
            for address in self.local.iter().filter(|own| ports.get(own) != self.translated.get(own)) {
                if let Err(error) = uplink.program.add_local(*address, ports.get(address)) {
                    tracing::error!(port = %uplink.name, %address, %error, "translated flows' ports are as they were");
                }
            }
        }
        self.translated = ports.clone();
    }

    fn set_tunnels(&mut self, tunnels: &TunnelTraffic) {
        let tunnels = tunnel_kinds(tunnels);
        for uplink in self.uplinks() {
            for tunnel in tunnels.difference(&self.tunnels) {
                if let Err(error) = uplink.program.add_tunnel(*tunnel) {
                    tracing::error!(port = %uplink.name, ?tunnel, %error, "a tunnel that ends here is left to the kernel");
                }
            }
            for tunnel in self.tunnels.difference(&tunnels) {
                if let Err(error) = uplink.program.remove_tunnel(*tunnel) {
                    tracing::warn!(port = %uplink.name, ?tunnel, %error, "a tunnel that ends no more is kept from the kernel");
                }
            }
        }
        self.tunnels = tunnels;
    }

    fn deliver(&mut self, port: PortId, frame: &[u8]) -> Result<(), NotDelivered> {
        self.try_deliver(port, frame).map_err(NotDelivered)
    }
}

impl Ports {
    fn try_deliver(&mut self, port: PortId, frame: &[u8]) -> Result<(), String> {
        let attached = self.attached.get(&port).ok_or("the port is gone")?;
        let name = &attached.name;
        if attached.attach == Attach::Generic {
            return Err(format!(
                "{name} has generic XDP, which would take the frame from the kernel again; it needs a driver with native XDP, \
                 as those of taps and veths are"
            ));
        }
        let delivery = match self.delivery.take() {
            Some(delivery) => delivery,
            None => Delivery::new().map_err(|error| format!("{name}: {error}"))?,
        };
        let received = delivery.receive(attached.ifindex, frame);
        self.delivery = Some(delivery);
        received.map_err(|error| {
            format!("the kernel doesn't receive a frame handed to it on {name}: {error}; it takes Linux 5.18 or later")
        })
    }
}

/// As the XDP program has them.
fn tunnel_kinds(traffic: &TunnelTraffic) -> BTreeSet<TunnelKind> {
    let vxlan = traffic.vxlan_ports.iter().map(|port| TunnelKind::Vxlan { port: *port });
    traffic.ipip.then_some(TunnelKind::Ipip).into_iter().chain(vxlan).collect()
}

fn report(worker: usize, bound: &BindReport, attach: &AttachReport, plan: &QueuePlan) -> QueueReport {
    let mut notes = vec![bound.to_string(), attach.to_string()];
    notes.extend(plan.notes.iter().cloned());
    QueueReport {
        queue: bound.queue,
        // At most `limits::WORKERS`.
        worker: worker as u16,
        mode: bound.mode.to_string(),
        attach: attach.attach.to_string(),
        // Without the Ethernet header.
        receivable: bound.receivable - 14,
        notes: notes.join("; "),
    }
}
