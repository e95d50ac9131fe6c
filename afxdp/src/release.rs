//! Closing a queue: when is the kernel done with its frames?
//!
//! Not when `close(2)` returns. A forked child may hold the descriptor for a moment longer, sent packets may still
//! hang somewhere, and the driver of a zero-copy socket is told to let go by a deferred job. All of these keep the
//! kernel's pool of the queue alive, and the last step of dismantling that pool frees the queue for another
//! (`xp_release_deferred` and `xp_clear_dev`, net/xdp/xsk_buff_pool.c). Hence the proof used here: **when a throw-away
//! socket can be bound to the same queue, the former pool is gone**, and with it every use of its frames. So the thread that
//! closes needs CAP_NET_RAW; without it the frames are lost.
//!
//! An interface that leaves takes its queues with it, so nothing can be bound there any more. Its departure and a bind
//! hold the same lock (RTNL): when a bind finds no interface while the queue's own socket is still open, the kernel has
//! stopped the device, unbound that socket and told the driver to let go (`xsk_notifier`, net/xdp/xsk.c). A socket that
//! was closed before isn't among those that are unbound then; its deferred job may run later, unseen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::abi;
use crate::lending::{Borrower, Lent, TakenBack};
use crate::pool::FramePool;
use crate::region::{Region, RegionConfig};
use crate::report::Mode;
use crate::socket::{RingSizes, Socket};

/// Between two looks while `close` waits.
const PAUSE: Duration = Duration::from_millis(2);

/// What closing a queue gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Frames back in the pool.
    pub recovered: usize,
    /// Frames of which it couldn't be proved in time that the kernel is done with them: lost for the life of the
    /// process.
    pub lost: usize,
}

/// A queue that is being closed: its rings are unmapped, its frames not yet returned.
///
/// For workers, who mustn't wait: [`poll`](Self::poll) now and then, in housekeeping. Dropping it loses the frames.
#[must_use = "the frames come back only through poll or wait"]
#[derive(Debug)]
pub struct Closing {
    pub(crate) region: Region,
    pub(crate) borrower: Borrower,
    pub(crate) mode: Mode,
    pub(crate) ifindex: u32,
    pub(crate) queue: u32,
    /// Still there while another thread shares its registration, which takes no longer than a bind.
    pub(crate) socket: Option<Arc<Socket>>,
    /// The network namespace the queue was bound in: the same index elsewhere is another interface.
    pub(crate) namespace: Option<u64>,
    /// Addresses in the TX ring that the kernel hadn't taken when the ring was unmapped.
    pub(crate) untaken: Vec<u64>,
    /// The interface had left while the socket was open: the kernel has unbound it.
    pub(crate) unbound: bool,
    pub(crate) recovered: usize,
    pub(crate) deadline: Instant,
}

/// What a look at the queue shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// The former pool is gone.
    Free,
    /// The interface is gone from its namespace.
    NoInterface,
    /// Not yet.
    Busy,
    /// It can't be found out.
    Unknown,
}

impl Closing {
    /// Looks once, without waiting (a few system calls). `Some` when it is over: all frames that come back are back.
    pub fn poll(&mut self, pool: &mut FramePool) -> Option<Closed> {
        let sight = if self.close_socket() { self.look() } else { Sight::Busy };
        match sight {
            Sight::Free => {
                self.take_all(Lent::Receive, pool);
                self.take_all(Lent::Transmit, pool);
            }
            // A driver that has let go neither reads nor writes frames. Without that, the absence of a NIC doesn't prove
            // that it has stopped: virtio's, for one, is reset after its interface is gone.
            Sight::NoInterface if self.mode == Mode::ZeroCopy && self.unbound => {
                self.take_all(Lent::Receive, pool);
                self.take_all(Lent::Transmit, pool);
            }
            // Nothing is received any more, and of the TX ring nothing taken. Packets under way may still be somewhere,
            // with parts of them in our frames.
            Sight::NoInterface if self.mode == Mode::Copy => {
                self.take_all(Lent::Receive, pool);
                let untaken = std::mem::take(&mut self.untaken);
                self.take(untaken, Lent::Transmit, pool);
            }
            Sight::Busy if Instant::now() < self.deadline => return None,
            Sight::Busy | Sight::NoInterface | Sight::Unknown => {}
        }
        let lost =
            [Lent::Receive, Lent::Transmit].map(|lent| self.region.frames_lent_by(self.borrower, lent));
        let lost = lost.iter().sum();
        if lost == 0 {
            self.region.return_borrower(self.borrower);
        }
        Some(Closed { recovered: self.recovered, lost })
    }

    /// Waits until it is over: some milliseconds as a rule, the queue's `bind_retry` at most.
    pub fn wait(mut self, pool: &mut FramePool) -> Closed {
        loop {
            if let Some(closed) = self.poll(pool) {
                return closed;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Closes the last descriptor; `false` while somebody else holds it.
    fn close_socket(&mut self) -> bool {
        let Some(socket) = self.socket.take() else { return true };
        match Arc::try_unwrap(socket) {
            Ok(socket) => {
                drop(socket);
                true
            }
            Err(shared) => {
                self.socket = Some(shared);
                false
            }
        }
    }

    fn look(&self) -> Sight {
        look(self.namespace, self.ifindex, self.queue)
    }

    fn take_all(&mut self, lent: Lent, pool: &mut FramePool) {
        self.take(self.region.lent_by(self.borrower, lent), lent, pool);
    }

    fn take(&mut self, addresses: Vec<u64>, lent: Lent, pool: &mut FramePool) {
        let lender = self.region.lender(self.borrower, lent);
        for address in addresses {
            let frame = match lender.take_back(address) {
                Some((frame, _)) => frame,
                None => match lender.take_back_part(address) {
                    TakenBack::Frame(frame) => frame,
                    TakenBack::Part | TakenBack::Unknown => continue,
                },
            };
            pool.put(frame);
            self.recovered += 1;
        }
    }
}

/// Whether a queue's interface is gone from its namespace. Asked while the queue's socket is open, a yes means that the
/// kernel has unbound it.
pub(crate) fn interface_left(namespace: Option<u64>, ifindex: u32, queue: u32) -> bool {
    look(namespace, ifindex, queue) == Sight::NoInterface
}

fn look(namespace: Option<u64>, ifindex: u32, queue: u32) -> Sight {
    let Some(region) = throw_away_region() else { return Sight::Unknown };
    match bind_and_close(&region, namespace, ifindex, queue) {
        Ok(()) => Sight::Free,
        Err(libc::EBUSY) => Sight::Busy,
        Err(libc::ENODEV) => Sight::NoInterface,
        Err(_) => Sight::Unknown,
    }
}

/// One chunk for all looks of the process; regions are never unmapped, so there must not be one for each.
fn throw_away_region() -> Option<Region> {
    static REGION: std::sync::OnceLock<Option<Region>> = std::sync::OnceLock::new();
    *REGION.get_or_init(|| {
        let (region, _pool) =
            Region::new(RegionConfig { frames: 1, chunk_size: 4096, large: None, hugepages: false }).ok()?;
        Some(region)
    })
}

/// Binds and closes a throw-away socket; the errno if it can't.
fn bind_and_close(region: &Region, namespace: Option<u64>, ifindex: u32, queue: u32) -> Result<(), i32> {
    let sizes = RingSizes { rx: 2, tx: 2, fill: 2, completion: 2 };
    let socket = Socket::open().map_err(|failed| failed.errno())?;
    if namespace.is_none() || socket.namespace() != namespace {
        return Err(libc::EXDEV);
    }
    socket.register(region).map_err(|failed| failed.errno())?;
    let _rings = socket.make_rings(sizes).map_err(|failed| failed.errno())?;
    socket.bind(ifindex, queue, abi::XDP_COPY, None).map_err(|failed| failed.errno())
}
