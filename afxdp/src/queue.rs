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
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::abi::Descriptor;
use crate::frame::Frame;
use crate::pool::FramePool;
use crate::region::{Borrower, Lent, Region};
use crate::release::{Closed, Closing};
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
    aside: Vec<Frame>,
}

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
        let free = self.rings.fill.free(self.config.rings.fill) as usize;
        let mut filled = 0;
        while filled < free {
            let Some(mut frame) = self.aside.pop().or_else(|| pool.take()) else { break };
            frame.reset();
            // In aligned mode the kernel goes to the chunk's beginning by itself.
            let address = self.region.lend(frame, self.borrower, Lent::Receive);
            self.rings.fill.write(address);
            filled += 1;
        }
        if filled > 0 {
            self.rings.fill.submit();
        }
        self.receiving += filled;
        filled
    }

    /// Appends up to `max` received frames to `out`. Returns how many.
    ///
    /// Each descriptor is checked; one that isn't a chunk lent by this queue, or reaches beyond its chunk, is counted
    /// and makes no frame.
    pub fn receive(&mut self, out: &mut Vec<Frame>, max: usize) -> usize {
        let available = self.rings.rx.available(clamp(max));
        let mut received = 0;
        for _ in 0..available {
            let descriptor = self.rings.rx.read();
            if let Some(frame) = self.received(descriptor) {
                out.push(frame);
                received += 1;
            }
        }
        if available > 0 {
            self.rings.rx.release();
        }
        self.counters.received += received as u64;
        received
    }

    fn received(&mut self, descriptor: Descriptor) -> Option<Frame> {
        let Some((frame, start)) = self.region.take_back(descriptor.addr, self.borrower, Lent::Receive)
        else {
            self.counters.bad_receive_descriptors += 1;
            return None;
        };
        self.receiving -= 1;
        // Options would mean a frame in several pieces, which this socket didn't ask for.
        let placed =
            if descriptor.options == 0 { frame.placed(start, descriptor.len as usize) } else { Err(frame) };
        placed
            .map_err(|frame| {
                self.counters.bad_receive_descriptors += 1;
                self.aside.push(frame);
            })
            .ok()
    }

    /// Takes frames from the front of `frames` into the TX ring, as many as fit. Returns how many were taken; the rest
    /// stays with the caller, in order. The kernel may need a [`wake`](Self::wake).
    ///
    /// Empty frames can't be sent: they are counted, and go back to the pool with the next `reap`.
    ///
    /// # Panics
    /// If a frame is of another region.
    pub fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        let free = self.rings.tx.free(clamp(frames.len())) as usize;
        let mut sent = 0;
        for frame in frames.drain(..free) {
            if frame.is_empty() {
                self.counters.empty_frames += 1;
                self.aside.push(frame);
                continue;
            }
            let len = frame.len() as u32;
            let addr = self.region.lend(frame, self.borrower, Lent::Transmit);
            self.rings.tx.write(Descriptor { addr, len, options: 0 });
            sent += 1;
        }
        if sent > 0 {
            self.rings.tx.submit();
        }
        self.transmitting += sent;
        self.counters.transmitted += sent as u64;
        free
    }

    /// Slots free in the TX ring.
    pub fn transmit_room(&mut self) -> usize {
        self.rings.tx.free(self.config.rings.tx) as usize
    }

    /// Returns completed frames to the pool. Returns how many.
    pub fn reap(&mut self, pool: &mut FramePool) -> usize {
        while let Some(frame) = self.aside.pop() {
            pool.put(frame);
        }
        let available = self.rings.completion.available(self.config.rings.completion);
        let mut reaped = 0;
        for _ in 0..available {
            let address = self.rings.completion.read();
            match self.region.take_back(address, self.borrower, Lent::Transmit) {
                Some((frame, _)) => {
                    pool.put(frame);
                    reaped += 1;
                }
                None => self.counters.bad_completions += 1,
            }
        }
        if available > 0 {
            self.rings.completion.release();
        }
        self.transmitting -= reaped;
        self.counters.completed += reaped as u64;
        reaped
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
        let Self { region, borrower, mode, config, rings, socket, .. } = self;
        // The mappings keep the socket open in the kernel.
        drop(rings);
        Closing {
            region,
            borrower,
            mode,
            ifindex: config.ifindex,
            queue: config.queue,
            namespace: socket.namespace(),
            socket: Some(socket),
            untaken,
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
    use std::os::fd::AsRawFd;
    /// Enough for a worker's ports without allocating.
    const ON_STACK: usize = 64;
    let entry = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    if fds.len() <= ON_STACK {
        let mut entries = [libc::pollfd { fd: -1, events: 0, revents: 0 }; ON_STACK];
        for (to, from) in entries.iter_mut().zip(fds) {
            *to = entry(from);
        }
        syscall::poll(&mut entries[..fds.len()], timeout)
    } else {
        let mut entries: Vec<_> = fds.iter().map(entry).collect();
        syscall::poll(&mut entries, timeout)
    }
}
