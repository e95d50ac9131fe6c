//! One NIC queue: the safe face of its four rings.
//!
//! ```text
//!            refill                receive
//!   pool ----------->  fill ~~~~> rx ----------> batch
//!    ^                     kernel                  |
//!    |       reap                      transmit    |
//!    +-------------- completion <~~~~ tx <---------+
//! ```

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::abi::Descriptor;
use crate::frame::Frame;
use crate::pool::FramePool;
use crate::region::{Borrower, Lent, Region};
use crate::release::{self, Closed, Closing};
use crate::report::{Mode, QueueConfig};
use crate::socket::{Rings, Socket};
use crate::statistics::{Outstanding, QueueCounters, XdpStatistics};
use crate::syscall;

/// RX, fill, TX and completion of one queue. Owned by one worker at a time.
///
/// Close it with [`close`](Self::close). Dropping it closes the socket too, but the frames it held are lost to the
/// region: nothing can then tell when the kernel let them go.
#[derive(Debug)]
pub struct Queue {
    region: Region,
    borrower: Borrower,
    mode: Mode,
    config: QueueConfig,
    // The rings come before the socket: their mappings keep the socket open in the kernel.
    rings: Rings,
    socket: Arc<Socket>,
    counters: QueueCounters,
    receiving: usize,
    transmitting: usize,
    /// Frames received since the fill ring was topped up.
    refill_due: usize,
    /// Calls of `wake_when_due` since the first of the frames that wait.
    wake_deferred: u32,
    aside: Vec<Frame>,
}

/// Frames that `refill_when_due` waits for, at most.
const REFILL_STEP: u32 = 256;
/// Frames on their way out that `reap_when_due` waits for, at most.
const REAP_STEP: u32 = 512;
/// Frames in the TX ring that `wake_when_due` waits for, at most.
const WAKE_STEP: u32 = 256;
/// Calls that it defers a wake-up for, at most.
const WAKE_DEFERRALS: u32 = 8;
/// Bytes that the processor moves between cores at once.
const CACHE_LINE: usize = 64;

impl Queue {
    pub(crate) fn new(
        region: Region,
        borrower: Borrower,
        socket: Arc<Socket>,
        rings: Rings,
        mode: Mode,
        config: QueueConfig,
    ) -> Self {
        Self {
            region,
            borrower,
            mode,
            config,
            rings,
            socket,
            counters: QueueCounters::default(),
            receiving: 0,
            transmitting: 0,
            // The first refill is always due.
            refill_due: usize::MAX,
            wake_deferred: 0,
            // Room for a batch of each kind, so that the way of a packet doesn't allocate.
            aside: Vec::with_capacity(256),
        }
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.config.ifindex
    }

    /// The queue's number on its interface.
    pub fn number(&self) -> u32 {
        self.config.queue
    }

    /// Zero-copy or copy.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Tops up the fill ring from the pool. Returns how many frames went in.
    pub fn refill(&mut self, pool: &mut FramePool) -> usize {
        let lender = self.region.lender(self.borrower, Lent::Receive);
        let Self { rings, aside, config, .. } = self;
        let filled = rings.fill.extend(config.rings.fill, || {
            let mut frame = aside.pop().or_else(|| pool.take())?;
            frame.reset();
            // In aligned mode the kernel goes to the chunk's beginning by itself.
            Some(lender.lend(frame))
        }) as usize;
        self.receiving += filled;
        self.refill_due = if pool.available() > 0 { 0 } else { usize::MAX };
        filled
    }

    /// [`refill`](Self::refill), where it is worth it: after some frames were received, or where the pool had too few the
    /// last time. The fill ring's index is a cache line that the kernel writes on another core.
    pub fn refill_when_due(&mut self, pool: &mut FramePool) {
        if self.refill_due >= REFILL_STEP.min(self.config.rings.fill / 8) as usize {
            self.refill(pool);
        }
    }

    /// Appends up to `max` received frames to `out`. Returns how many.
    ///
    /// Each descriptor is checked; one that isn't a chunk lent by this queue, or reaches beyond its chunk, is counted
    /// and makes no frame.
    pub fn receive(&mut self, out: &mut Vec<Frame>, max: usize) -> usize {
        let lender = self.region.lender(self.borrower, Lent::Receive);
        let Self { rings, aside, .. } = self;
        let (before, aside_before) = (out.len(), aside.len());
        let read = rings.rx.drain(clamp(max), |descriptor| {
            let Some((frame, start)) = lender.take_back(descriptor.addr) else { return };
            // Options would mean a frame in several pieces, which this socket didn't ask for.
            let placed = match descriptor.options {
                0 => frame.placed(start, descriptor.len as usize),
                _ => Err(frame),
            };
            match placed {
                Ok(frame) => {
                    prefetch(&frame.bytes()[..frame.len().min(CACHE_LINE)]);
                    out.push(frame);
                }
                Err(frame) => aside.push(frame),
            }
        }) as usize;
        let received = out.len() - before;
        self.receiving -= received + aside.len() - aside_before;
        self.counters.bad_receive_descriptors += (read - received) as u64;
        self.counters.received += received as u64;
        self.refill_due = self.refill_due.saturating_add(read);
        received
    }

    /// Takes frames from the front of `frames` into the TX ring, as many as fit. Returns how many were taken; the rest
    /// stays with the caller, in order. The kernel may need a [`wake`](Self::wake).
    ///
    /// Empty frames can't be sent: they are counted, and go back to the pool with the next `reap`.
    ///
    /// # Panics
    /// If a frame is of another region.
    pub fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        let lender = self.region.lender(self.borrower, Lent::Transmit);
        let Self { rings, aside, mode, .. } = self;
        let mode = *mode;
        let taken = rings.tx.free(clamp(frames.len()));
        let aside_before = aside.len();
        let mut offered = frames.drain(..taken as usize);
        let sent = rings.tx.extend(taken, || {
            let mut frame = offered.next()?;
            while frame.is_empty() {
                aside.push(frame);
                frame = offered.next()?;
            }
            if mode == Mode::Copy {
                // The walk has read the headers only; the kernel is going to copy it all.
                prefetch(&frame.bytes()[frame.len().min(CACHE_LINE)..]);
            }
            let len = frame.len() as u32;
            Some(Descriptor { addr: lender.lend(frame), len, options: 0 })
        }) as usize;
        drop(offered);
        self.counters.empty_frames += (aside.len() - aside_before) as u64;
        self.transmitting += sent;
        self.counters.transmitted += sent as u64;
        taken as usize
    }

    /// Slots free in the TX ring.
    pub fn transmit_room(&mut self) -> usize {
        self.rings.tx.free(self.config.rings.tx) as usize
    }

    /// Returns completed frames to the pool. Returns how many.
    pub fn reap(&mut self, pool: &mut FramePool) -> usize {
        let lender = self.region.lender(self.borrower, Lent::Transmit);
        self.aside.drain(..).for_each(|frame| pool.put(frame));
        let before = pool.available();
        let read = self.rings.completion.drain(self.config.rings.completion, |address| {
            if let Some((frame, _)) = lender.take_back(address) {
                pool.put(frame);
            }
        }) as usize;
        let reaped = pool.available() - before;
        self.counters.bad_completions += (read - reaped) as u64;
        self.transmitting -= reaped;
        self.counters.completed += reaped as u64;
        reaped
    }

    /// [`reap`](Self::reap), where it is worth it: when many frames are on their way out, or few are left in the pool. The
    /// completion ring is written by the core that receives at the other end of a veth, or by the NIC's.
    pub fn reap_when_due(&mut self, pool: &mut FramePool) {
        let many = REAP_STEP.min(self.config.rings.tx / 4) as usize;
        let few = pool.available() < pool.total() / 4;
        if self.transmitting >= many || !self.aside.is_empty() || few {
            self.reap(pool);
        }
    }

    /// Kicks the kernel where it asked for it: for the fill ring, and for the TX ring if frames wait in it.
    ///
    /// In copy mode one system call sends a limited number of frames, so it is repeated until the ring is empty or the
    /// device takes no more. That the device is full is no error: the frames wait for the next call. An interface that
    /// is down or gone is one (`ENETDOWN`, `ENXIO`); its frames stay where they are until it is up again or the queue
    /// is closed.
    pub fn wake(&mut self) -> io::Result<()> {
        if self.rings.fill.needs_wakeup() {
            self.counters.wakeups += 1;
            tolerate(syscall::kick_receive(self.socket.fd()))?;
        }
        let mut waiting = self.rings.tx.waiting();
        while waiting > 0 && self.transmit_wants_kick() {
            self.counters.wakeups += 1;
            let kicked = syscall::kick_transmit(self.socket.fd());
            let before = std::mem::replace(&mut waiting, self.rings.tx.waiting());
            tolerate(kicked)?;
            if waiting >= before || self.mode == Mode::ZeroCopy {
                break;
            }
        }
        Ok(())
    }

    /// [`wake`](Self::wake), where it is worth it: once many frames wait, or some calls after the first of them. A worker
    /// calls it at least once a round, so a frame waits a few rounds at most.
    ///
    /// A system call costs as much as sending a frame, and the kernel's thread at the other end of a veth, where it is
    /// faster than we are, goes to sleep after each and must be woken by the next.
    ///
    /// # Errors
    /// As [`wake`](Self::wake).
    pub fn wake_when_due(&mut self) -> io::Result<()> {
        if self.transmitting == 0 && !self.rings.fill.needs_wakeup() {
            return Ok(());
        }
        let waiting = self.rings.tx.waiting();
        self.wake_deferred += 1;
        if waiting < WAKE_STEP.min(self.config.rings.tx / 4) && self.wake_deferred < WAKE_DEFERRALS {
            return Ok(());
        }
        self.wake_deferred = 0;
        self.wake()
    }

    fn transmit_wants_kick(&self) -> bool {
        !self.config.need_wakeup || self.rings.tx.needs_wakeup()
    }

    /// The kernel's counters for this socket; zeros if it won't tell.
    pub fn statistics(&self) -> XdpStatistics {
        self.socket.statistics().unwrap_or_default().into()
    }

    /// This side's counters.
    pub fn counters(&self) -> QueueCounters {
        self.counters
    }

    /// Frames this queue holds or has lent to the kernel: its part of what the pool counts as lent.
    pub fn outstanding(&self) -> Outstanding {
        Outstanding { receive: self.receiving, transmit: self.transmitting, aside: self.aside.len() }
    }

    /// Closes the queue and returns its frames to the pool. Waits until the kernel is provably done with them: some
    /// milliseconds as a rule, the configured `bind_retry` at most, after which what is left is counted as lost.
    ///
    /// Call it in the network namespace the queue was bound in. A worker, who mustn't wait, uses
    /// [`begin_close`](Self::begin_close).
    pub fn close(self, pool: &mut FramePool) -> Closed {
        self.begin_close(pool).wait(pool)
    }

    /// Starts closing: what was submitted is sent as far as the device takes it, the rings are unmapped. The frames
    /// come back through the returned [`Closing`].
    pub fn begin_close(mut self, pool: &mut FramePool) -> Closing {
        // An interface that is down or gone sends nothing any more; its frames are recovered with the others.
        let _ = self.wake();
        let recovered = self.aside.len() + self.reap(pool);
        let untaken = self.rings.tx.untaken().iter().map(|descriptor| descriptor.addr).collect();
        let namespace = self.socket.namespace();
        // Before the socket is closed: only then does the answer prove anything.
        let unbound = release::interface_left(namespace, self.config.ifindex, self.config.queue);
        let Self { region, borrower, mode, config, rings, socket, .. } = self;
        // The mappings keep the socket open in the kernel.
        drop(rings);
        Closing {
            region,
            borrower,
            mode,
            ifindex: config.ifindex,
            queue: config.queue,
            namespace,
            socket: Some(socket),
            untaken,
            unbound,
            recovered,
            deadline: Instant::now() + config.bind_retry,
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
}

/// Asks for the cache lines of bytes that another core has just written: asked for together, they arrive while others
/// are waited for.
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(CACHE_LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint: it reads nothing, and can't fault. x86-64 has had it from the beginning.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, CACHE_LINE);
}

/// "Not now" is no failure of a kick.
fn tolerate(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Sleeps until a queue has received frames, or `timeout` passes (rounded up to a millisecond). Returns how many of
/// `fds` have something; a signal ends the wait early.
pub fn wait(fds: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<usize> {
    Sleeper::default().sleep(fds.iter().copied(), timeout)
}

/// Sleeps again and again without allocating.
#[derive(Default)]
pub struct Sleeper {
    entries: Vec<libc::pollfd>,
}

impl Sleeper {
    /// As [`wait`]. Allocates only where there are more descriptors than ever before.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn sleep<'a>(
        &mut self,
        fds: impl Iterator<Item = BorrowedFd<'a>>,
        timeout: Duration,
    ) -> io::Result<usize> {
        let entry =
            |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        self.entries.clear();
        self.entries.extend(fds.map(entry));
        syscall::poll(&mut self.entries, timeout)
    }
}
