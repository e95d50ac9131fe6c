//! Registrations of one region with the kernel, and which of them a new queue joins.
//!
//! A registration (the kernel's UMEM) has one mode: all sockets that share it are zero-copy, or all copy, and all of them
//! take packets in pieces or none does (`xp_assign_dev_shared`, net/xdp/xsk_buff_pool.c). So the first queue of a kind
//! registers the region, later ones of the same kind share that, and a queue of another kind registers the same memory
//! again. Frames pass between all of them by address, as the memory is the same.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::abi;
use crate::features;
use crate::holder;
use crate::queue::Queue;
use crate::region::Region;
use crate::report::{Attempt, BindError, BindReport, BusyPollOutcome, Mode, ModeRequest, QueueConfig};
use crate::socket::{Failed, Rings, Socket};
use crate::virtio;

/// Between two tries at a busy queue.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A bound socket that later ones may share a registration with.
#[derive(Debug)]
struct Member {
    mode: Mode,
    in_pieces: bool,
    need_wakeup: bool,
    ifindex: u32,
    queue: u32,
    socket: Weak<Socket>,
}

/// All registrations of one region. Binding through it decides what is shared.
#[derive(Debug)]
pub struct UmemSet {
    region: Region,
    members: Vec<Member>,
}

/// A way to bind a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) mode: Mode,
    /// Packets above a chunk in several pieces (`XDP_USE_SG`).
    pub(crate) in_pieces: bool,
}

/// A socket bound in one of the ways.
struct Bound {
    socket: Socket,
    rings: Rings,
    kind: Kind,
    shared: bool,
}

impl UmemSet {
    /// No registrations yet.
    pub fn new(region: Region) -> Self {
        Self { region, members: Vec::new() }
    }

    /// Binds one queue of one interface, in the network namespace of the calling thread.
    ///
    /// Blocks for up to `bind_retry` while the queue is busy. The report says what the queue really got.
    pub fn bind(&mut self, config: QueueConfig) -> Result<(Queue, BindReport), BindError> {
        config.check()?;
        self.members.retain(|member| member.socket.strong_count() > 0);
        if self.members.iter().any(|member| (member.ifindex, member.queue) == (config.ifindex, config.queue))
        {
            let interface = features::label(config.ifindex);
            return Err(BindError::AlreadyBound { interface, queue: config.queue });
        }
        let started = Instant::now();
        let mut attempts = Vec::new();
        let mut retried = false;
        let bound = loop {
            attempts.clear();
            match self.try_kinds(&config, &mut attempts) {
                Ok(bound) => break bound,
                Err((_, failed))
                    if failed.errno() == libc::EBUSY && started.elapsed() < config.bind_retry =>
                {
                    retried = true;
                    std::thread::sleep(RETRY_PAUSE);
                }
                Err((mode, failed)) => return Err(self.explain(&config, mode, failed, started.elapsed())),
            }
        };
        let waited = if retried { started.elapsed() } else { Duration::ZERO };
        self.admit(config, bound, attempts, waited)
    }

    /// The ways to bind, best first. In pieces wherever there are large frames, as the MTU may grow later; where a driver
    /// can't do that without copying, it needn't if its packets fit a chunk now. A kernel before 6.6 can't do it at all.
    fn kinds(&self, config: &QueueConfig) -> Vec<Kind> {
        let (first, other) = match config.mode {
            // Slower rather than not at all, unless somebody insists.
            ModeRequest::Auto if virtio::sends_stray_headers(config.ifindex) => (Mode::Copy, None),
            asked => asked.modes(),
        };
        // A driver fills a chunk from its beginning, after the kernel's room; two VLAN tags and a checksum beside the packet
        // (`xp_assign_dev`).
        let fits_a_chunk = || {
            let longest = features::mtu(config.ifindex).map(|mtu| mtu + 14 + 2 * 4 + 4);
            longest.is_ok_and(|longest| longest <= self.region.receivable(false))
        };
        let mut kinds = Vec::new();
        for mode in [Some(first), other].into_iter().flatten() {
            let has_large = self.region.large_frames() > 0;
            if has_large {
                kinds.push(Kind { mode, in_pieces: true });
            }
            if !has_large || mode == Mode::Copy || fits_a_chunk() {
                kinds.push(Kind { mode, in_pieces: false });
            }
        }
        kinds
    }

    /// Tries the kinds in order; the failure of the last one if none will do.
    fn try_kinds(&self, config: &QueueConfig, attempts: &mut Vec<Attempt>) -> Result<Bound, (Mode, Failed)> {
        let mut kinds = self.kinds(config).into_iter().peekable();
        while let Some(kind) = kinds.next() {
            match self.try_kind(config, kind, attempts) {
                Err(failed) if is_matter_of_mode(failed.errno()) && kinds.peek().is_some() => {
                    attempts.push(attempt(kind, false, &failed));
                }
                decided => return decided.map_err(|failed| (kind.mode, failed)),
            }
        }
        unreachable!("there is a way to bind at least, and the last one decides")
    }

    /// Tries one kind: first sharing a registration there is, then with one of its own.
    fn try_kind(
        &self,
        config: &QueueConfig,
        kind: Kind,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Bound, Failed> {
        let is_alike = |member: &&Member| {
            (member.mode, member.in_pieces, member.need_wakeup)
                == (kind.mode, kind.in_pieces, config.need_wakeup)
        };
        let sharable = self.members.iter().filter(is_alike).filter_map(|member| member.socket.upgrade());
        for shared in sharable {
            match self.try_bind(config, kind, Some(&shared)) {
                // That one's interface is gone, and nobody has closed it yet.
                Err(failed) if failed.errno() == libc::EBADF => {}
                Err(failed) if is_matter_of_mode(failed.errno()) => {
                    attempts.push(attempt(kind, true, &failed));
                    break;
                }
                decided => return decided,
            }
        }
        self.try_bind(config, kind, None)
    }

    fn try_bind(&self, config: &QueueConfig, kind: Kind, shared: Option<&Socket>) -> Result<Bound, Failed> {
        let socket = Socket::open()?;
        if shared.is_none() {
            socket.register(&self.region)?;
        }
        let rings = socket.make_rings(config.rings)?;
        let mut flags = match kind.mode {
            Mode::ZeroCopy => abi::XDP_ZEROCOPY,
            Mode::Copy => abi::XDP_COPY,
        };
        if config.need_wakeup {
            flags |= abi::XDP_USE_NEED_WAKEUP;
        }
        if kind.in_pieces {
            flags |= abi::XDP_USE_SG;
        }
        socket.bind(config.ifindex, config.queue, flags, shared)?;
        // Ask rather than assume; every kernel with an offsets' flags word has this option.
        let mode = match socket.is_zero_copy() {
            Ok(true) => Mode::ZeroCopy,
            Ok(false) => Mode::Copy,
            Err(_) => kind.mode,
        };
        Ok(Bound { socket, rings, kind: Kind { mode, ..kind }, shared: shared.is_some() })
    }

    /// Makes a queue of a bound socket and remembers it for sharing.
    fn admit(
        &mut self,
        config: QueueConfig,
        bound: Bound,
        attempts: Vec<Attempt>,
        waited: Duration,
    ) -> Result<(Queue, BindReport), BindError> {
        let Kind { mode, in_pieces } = bound.kind;
        let borrower = self.region.new_borrower().ok_or(BindError::TooManyQueues)?;
        let tx_budget = config.tx_budget.filter(|budget| {
            mode == Mode::Copy && bound.socket.set(abi::XDP_MAX_TX_SKB_BUDGET, budget).is_ok()
        });
        let busy_poll = match config.busy_poll {
            None => BusyPollOutcome::Off,
            Some(_) if mode == Mode::ZeroCopy && virtio::sends_apart(config.ifindex) => {
                BusyPollOutcome::Unsuited
            }
            Some(wanted) => match bound.socket.set_busy_poll(wanted.usecs, wanted.budget) {
                Ok(()) => BusyPollOutcome::On,
                Err(error) => BusyPollOutcome::Refused(error.raw_os_error().unwrap_or(0)),
            },
        };
        let config = QueueConfig {
            busy_poll: config.busy_poll.filter(|_| busy_poll == BusyPollOutcome::On),
            ..config
        };
        let is_in_danger = || config.mode != ModeRequest::Copy && virtio::sends_stray_headers(config.ifindex);
        let report = BindReport {
            interface: features::label(config.ifindex),
            ifindex: config.ifindex,
            queue: config.queue,
            mode,
            in_pieces,
            receivable: self.region.receivable(in_pieces),
            need_wakeup: config.need_wakeup,
            shared: bound.shared,
            tx_budget,
            busy_poll,
            pages: self.region.pages(),
            advice: attempts
                .iter()
                .find_map(|attempt| advice(config.ifindex, attempt.mode, attempt.errno))
                .or_else(|| is_in_danger().then_some(virtio::STRAY_HEADERS)),
            attempts,
            waited,
        };
        let socket = Arc::new(bound.socket);
        self.members.push(Member {
            mode,
            in_pieces,
            need_wakeup: config.need_wakeup,
            ifindex: config.ifindex,
            queue: config.queue,
            socket: Arc::downgrade(&socket),
        });
        Ok((Queue::new(self.region, borrower, socket, bound.rings, bound.kind, config), report))
    }

    fn explain(&self, config: &QueueConfig, mode: Mode, failed: Failed, waited: Duration) -> BindError {
        let (ifindex, queue, step) = (config.ifindex, config.queue, failed.step);
        let interface = features::label(ifindex);
        match failed.errno() {
            libc::EPERM | libc::EACCES => BindError::NotPermitted { step },
            libc::ENOBUFS => BindError::MemoryLock { step, bytes: self.region.len() },
            libc::EAFNOSUPPORT | libc::ENOSYS | libc::ENOPROTOOPT => BindError::NoAfXdp { step },
            libc::EBUSY => {
                BindError::Busy { interface, queue, waited, holder: holder::of_queue(ifindex, queue) }
            }
            libc::ENODEV => BindError::NoInterface { ifindex },
            libc::ENETDOWN => BindError::InterfaceDown { interface },
            libc::EOPNOTSUPP => {
                let driver = features::DeviceFeatures::of(ifindex).ok().and_then(|device| device.driver);
                BindError::Unsupported { interface, driver, mode }
            }
            libc::EINVAL => match features::DeviceFeatures::of(ifindex) {
                Ok(device) if queue >= device.receive_queues => {
                    BindError::NoSuchQueue { interface, queue, queues: device.receive_queues }
                }
                _ => {
                    let advice = advice(ifindex, mode, libc::EINVAL);
                    BindError::Other { interface, queue, step, source: failed.source, advice }
                }
            },
            _ => BindError::Other { interface, queue, step, source: failed.source, advice: None },
        }
    }
}

fn attempt(kind: Kind, shared: bool, failed: &Failed) -> Attempt {
    let Kind { mode, in_pieces } = kind;
    Attempt { mode, in_pieces, shared, step: failed.step, errno: failed.errno() }
}

/// What to do about a refusal whose errno says too little. virtio_net maps AF_XDP's memory only for a device that has
/// its memory mapped at all (`virtqueue_dma_dev` in `virtnet_xsk_pool_enable`, drivers/net/virtio_net.c).
fn advice(ifindex: u32, mode: Mode, errno: i32) -> Option<&'static str> {
    if (mode, errno) != (Mode::ZeroCopy, libc::EINVAL) {
        return None;
    }
    virtio::is_driven(ifindex)
        .then_some("virtio_net needs VIRTIO_F_ACCESS_PLATFORM for zero-copy: iommu_platform=on in QEMU")
}

/// Whether another mode may do better. Where not, the error itself is the answer, rather than a lesser mode.
fn is_matter_of_mode(errno: i32) -> bool {
    !matches!(
        errno,
        libc::EBUSY
            | libc::ENETDOWN
            | libc::ENODEV
            | libc::EPERM
            | libc::EACCES
            | libc::ENOBUFS
            | libc::EAFNOSUPPORT
    )
}
