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

use crate::abi::{Descriptor, XDP_PKT_CONTD};
use crate::assembly::{Assembly, Loss};
use crate::frame::Frame;
use crate::lending::{Borrower, Lender, Lent, TakenBack};
use crate::pool::FramePool;
use crate::region::Region;
use crate::release::{self, Closed, Closing};
use crate::report::{Mode, QueueConfig};
use crate::socket::{Rings, Socket};
use crate::statistics::{Outstanding, QueueCounters, XdpStatistics};
use crate::syscall;
use crate::umem::Kind;

/// RX, fill, TX and completion of one queue. Owned by one worker at a time.
///
/// Close it with [`close`](Self::close). Dropping it closes the socket too, but the frames it held are lost to the
/// region: nothing can then tell when the kernel let them go.
///
/// Its cache lines are its own, for it is written at every batch.
#[derive(Debug)]
#[repr(align(128))]
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
    /// Options that a descriptor may have: none where packets come and go whole.
    expected_options: u32,
    assembly: Assembly,
    aside: Vec<Frame>,
}

/// Frames that `refill_when_due` waits for, at most.
const REFILL_STEP: u32 = 256;
/// Frames on their way out that `reap_when_due` waits for, at most.
const REAP_STEP: u32 = 512;
/// Frames in the TX ring that `wake_when_due` waits for, at most.
const WAKE_STEP: u32 = 64;
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
        Kind { mode, in_pieces }: Kind,
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
            // A frame in several pieces is none where the socket didn't ask for it.
            expected_options: if in_pieces { XDP_PKT_CONTD } else { 0 },
            assembly: Assembly::default(),
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
        let Self { rings, config, .. } = self;
        let filled = rings.fill.extend(config.rings.fill, || {
            let frame = pool.take()?;
            // In aligned mode the kernel goes to the chunk's beginning by itself.
            Some(lender.lend(frame))
        }) as usize;
        self.receiving += filled;
        self.refill_due = if pool.available_for(0) > 0 { 0 } else { usize::MAX };
        filled
    }

    /// [`refill`](Self::refill), where it is worth it: after some frames were received, or where the pool had too few the
    /// last time. The fill ring's index is a cache line that the kernel writes on another core.
    pub fn refill_when_due(&mut self, pool: &mut FramePool) {
        if self.refill_due >= REFILL_STEP.min(self.config.rings.fill / 8) as usize {
            self.refill(pool);
        }
    }

    /// Takes up to `max` descriptors from the RX ring and appends the frames that they make to `out`. Returns how many
    /// frames: fewer than descriptors where packets come in pieces, which are put together in a large frame of the pool.
    ///
    /// Each descriptor is checked; one that isn't a chunk lent by this queue, or reaches beyond its chunk, is counted
    /// and makes no frame.
    pub fn receive(&mut self, pool: &mut FramePool, out: &mut Vec<Frame>, max: usize) -> usize {
        let lender = self.region.lender(self.borrower, Lent::Receive);
        let Self { rings, assembly, expected_options, counters, .. } = self;
        let expected = *expected_options;
        let (before, mut unknown) = (out.len(), 0);
        let read = rings.rx.drain(clamp(max), |descriptor| {
            let Some((frame, start)) = lender.take_back(descriptor.addr) else {
                unknown += 1;
                return;
            };
            if descriptor.options == 0 && assembly.is_idle() {
                match frame.placed(start, descriptor.len as usize) {
                    Ok(frame) => {
                        prefetch(&frame.bytes()[..frame.len().min(CACHE_LINE)]);
                        out.push(frame);
                    }
                    Err(frame) => {
                        counters.bad_receive_descriptors += 1;
                        pool.put(frame);
                    }
                }
                return;
            }
            let placed = match descriptor.options & !expected {
                0 => frame.placed(start, descriptor.len as usize),
                _ => Err(frame),
            };
            counters.bad_receive_descriptors += u64::from(placed.is_err());
            match assembly.add(placed, descriptor.options & expected == 0, pool) {
                Some(Ok(frame)) => out.push(frame),
                Some(Err(Loss::TooLong)) => counters.too_long += 1,
                Some(Err(Loss::NoFrame)) => counters.no_large_frame += 1,
                // It was counted with its piece.
                Some(Err(Loss::BadPiece)) | None => {}
            }
        }) as usize;
        let received = out.len() - before;
        self.receiving -= read - unknown;
        self.counters.bad_receive_descriptors += unknown as u64;
        self.counters.received += received as u64;
        self.refill_due = self.refill_due.saturating_add(read);
        received
    }

    /// [`receive`](Self::receive), and where there is nothing and the queue is busy polled, once more after its driver has
    /// looked for packets.
    pub fn receive_polling(&mut self, pool: &mut FramePool, out: &mut Vec<Frame>, max: usize) -> usize {
        let received = self.receive(pool, out, max);
        if received > 0 || self.config.busy_poll.is_none() {
            return received;
        }
        // The ring tells what came of it. An interface that is down or going away has nothing.
        let _ = syscall::kick_receive(self.socket.fd());
        let polled = self.receive(pool, out, max);
        self.counters.busy_polled += polled as u64;
        polled
    }

    /// Takes frames from the front of `frames` into the TX ring, as many as fit. Returns how many were taken; the rest
    /// stays with the caller, in order. The kernel may need a [`wake`](Self::wake).
    ///
    /// A large frame takes a slot for each chunk that it has bytes in.
    /// Empty frames can't be sent, nor those above a chunk where packets don't go in pieces: they are counted, and go back to
    /// the pool with the next `reap`.
    ///
    /// # Panics
    /// If a frame is of another region.
    pub fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        let lender = self.region.lender(self.borrower, Lent::Transmit);
        let (taken, slots) = match lender.has_large() {
            true => self.fitting_in_parts(&lender, frames),
            false => {
                let slots = self.rings.tx.free(clamp(frames.len()));
                (slots as usize, slots)
            }
        };
        let Self { rings, aside, mode, counters, expected_options, .. } = self;
        let aside_before = aside.len();
        let mut offered = frames.drain(..taken);
        loop {
            // Between large frames, or to the end.
            let run = match lender.has_large() {
                true => offered.as_slice().iter().take_while(|frame| !lender.is_large(frame)).count(),
                false => taken,
            };
            let mut run = offered.by_ref().take(run);
            rings.tx.extend(slots, || {
                let frame = next_to_send(&mut run, aside, counters, *mode)?;
                let len = frame.len() as u32;
                Some(Descriptor { addr: lender.lend(frame), len, options: 0 })
            });
            if !lender.has_large() {
                break;
            }
            let Some(frame) = next_to_send(&mut offered, aside, counters, *mode) else { break };
            // The driver of a queue that takes whole packets only would send each part as a packet of its own.
            if *expected_options == 0 && lender.descriptors(&frame) > 1 {
                counters.too_long_to_send += 1;
                aside.push(frame);
                continue;
            }
            let mut parts = lender.lend_in_parts(frame);
            rings.tx.extend(slots, || parts.next());
        }
        drop(offered);
        let unsent = aside.len() - aside_before;
        self.transmitting += taken - unsent;
        self.counters.transmitted += (taken - unsent) as u64;
        taken
    }

    /// How many frames from the front have room in the TX ring, and the slots that they take.
    fn fitting_in_parts(&mut self, lender: &Lender, frames: &[Frame]) -> (usize, u32) {
        let wanted = frames.iter().map(|frame| lender.descriptors(frame)).sum();
        let free = self.rings.tx.free(wanted);
        if free == wanted {
            return (frames.len(), wanted);
        }
        let mut slots = 0;
        let fits = |frame: &&Frame| {
            slots += lender.descriptors(frame);
            slots <= free
        };
        (frames.iter().take_while(fits).count(), free)
    }

    /// Slots free in the TX ring, counted up to `wanted`: the kernel's index is read only where those known of are fewer.
    #[inline]
    pub fn transmit_room(&mut self, wanted: usize) -> usize {
        self.rings.tx.free(clamp(wanted)) as usize
    }

    /// Slots that the TX ring has.
    pub fn transmit_slots(&self) -> usize {
        self.config.rings.tx as usize
    }

    /// Returns completed frames to the pool. Returns how many.
    pub fn reap(&mut self, pool: &mut FramePool) -> usize {
        let lender = self.region.lender(self.borrower, Lent::Transmit);
        self.aside.drain(..).for_each(|frame| pool.put(frame));
        let before = pool.available();
        let mut bad = 0;
        self.rings.completion.drain(self.config.rings.completion, |address| {
            match lender.take_back(address) {
                Some((frame, _)) => pool.put_chunk(frame),
                None => bad += u64::from(!take_part(lender, address, pool)),
            }
        });
        let reaped = pool.available() - before;
        self.counters.bad_completions += bad;
        self.transmitting -= reaped;
        self.counters.completed += reaped as u64;
        reaped
    }

    /// [`reap`](Self::reap), where it is worth it: when many frames are on their way out, or few are left in the pool. The
    /// completion ring is written by the core that receives at the other end of a veth, or by the NIC's.
    pub fn reap_when_due(&mut self, pool: &mut FramePool) {
        let many = REAP_STEP.min(self.config.rings.tx / 4) as usize;
        if self.transmitting >= many || !self.aside.is_empty() || pool.is_low() {
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
        let waiting = self.waiting();
        if waiting == 0 && !self.rings.fill.needs_wakeup() {
            self.wake_deferred = 0;
            return Ok(());
        }
        self.wake_deferred += 1;
        if waiting < WAKE_STEP.min(self.config.rings.tx / 4) && self.wake_deferred < WAKE_DEFERRALS {
            return Ok(());
        }
        self.wake_deferred = 0;
        self.wake()
    }

    /// [`wake`](Self::wake), where frames wait at all: for when there is nothing that could go with them.
    ///
    /// # Errors
    /// As [`wake`](Self::wake).
    pub fn wake_waiting(&mut self) -> io::Result<()> {
        if self.waiting() == 0 {
            return Ok(());
        }
        self.wake_deferred = 0;
        self.wake()
    }

    /// Frames in the TX ring that the kernel hasn't taken.
    fn waiting(&mut self) -> u32 {
        if self.transmitting == 0 { 0 } else { self.rings.tx.waiting() }
    }

    fn transmit_wants_kick(&self) -> bool {
        !self.config.need_wakeup || self.rings.tx.needs_wakeup()
    }

    /// Writes bytes where the kernel would write them: into a chunk that the queue has lent to be received into.
    #[cfg(test)]
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        let lender = self.region.lender(self.borrower, Lent::Receive);
        let Some((mut frame, _)) = lender.take_back(address) else { panic!("{address} isn't lent") };
        frame.copy_from(bytes).expect("a piece fits a chunk");
        frame.reset();
        assert_eq!(lender.lend(frame), address);
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
        let aside = self.aside.len() + self.assembly.held();
        Outstanding { receive: self.receiving, transmit: self.transmitting, aside }
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
        self.aside.extend(self.assembly.give_up());
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

/// Takes back a part of a large frame, and the frame with its last one; `false` for what was never lent.
#[cold]
#[inline(never)]
fn take_part(lender: Lender, address: u64, pool: &mut FramePool) -> bool {
    match lender.take_back_part(address) {
        TakenBack::Frame(frame) => pool.put(frame),
        TakenBack::Part => {}
        TakenBack::Unknown => return false,
    }
    true
}

/// The next frame that isn't empty; the empty ones before it are put aside.
#[inline]
fn next_to_send(
    offered: &mut impl Iterator<Item = Frame>,
    aside: &mut Vec<Frame>,
    counters: &mut QueueCounters,
    mode: Mode,
) -> Option<Frame> {
    let mut frame = offered.next()?;
    while frame.is_empty() {
        counters.empty_frames += 1;
        aside.push(frame);
        frame = offered.next()?;
    }
    if mode == Mode::Copy {
        // The walk has read the headers only; the kernel is going to copy it all.
        prefetch(&frame.bytes()[frame.len().min(CACHE_LINE)..]);
    }
    Some(frame)
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
