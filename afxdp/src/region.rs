//! A region: memory divided into chunks, mapped once and kept as long as the process.

use std::io;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::frame::Frame;
use crate::mmap::{self, Pages};
use crate::pool::FramePool;

/// What a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionConfig {
    /// How many frames; at least one. Count for each queue its fill, TX and RX rings and the NIC's own, then a few
    /// batches: a worker whose frames all wait in TX rings receives nothing.
    pub frames: u32,
    /// Bytes of a chunk: 2048 or 4096. A received frame has at most `chunk_size - 256` bytes.
    pub chunk_size: u32,
    /// Try 2 MiB pages first; ordinary pages are taken when there are none. [`Region::pages`] tells which it became.
    pub hugepages: bool,
}

/// Why a region can't be made.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// AF_XDP's aligned mode takes chunks of a power of two between 2048 bytes and a page.
    #[error("a chunk of {0} bytes: AF_XDP takes 2048 or 4096")]
    ChunkSize(u32),
    /// No frames, or more than can be addressed.
    #[error("{0} frames: a region has between 1 and 2^24")]
    Frames(u32),
    /// The process made more regions than a frame can name.
    #[error("more than 65535 regions in one process")]
    TooMany,
    /// The memory can't be had.
    #[error("can't map {bytes} bytes for frames: {source}; lower the number of frames or free memory")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Nobody in the kernel holds the chunk: a `Frame` or a pool does.
const HELD_HERE: u16 = 0;

/// What a queue has lent a chunk to the kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lent {
    /// Through the fill ring, to be received into.
    Receive,
    /// Through the TX ring, to be sent.
    Transmit,
}

/// A queue's number within its region; no two living queues of a region have the same.
///
/// Between 1 and [`Borrower::MAX`], so that a tag never equals `HELD_HERE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Borrower(u16);

impl Borrower {
    const MAX: u16 = u16::MAX >> 1;

    fn tag(self, lent: Lent) -> u16 {
        (self.0 << 1) | u16::from(lent == Lent::Transmit)
    }
}

/// Free and never-used numbers for queues.
#[derive(Debug)]
struct Borrowers {
    next: u16,
    returned: Vec<u16>,
}

#[derive(Debug)]
struct Shared {
    id: u16,
    base: NonNull<u8>,
    frames: u32,
    /// Chunks have 2 to this power bytes.
    chunk_shift: u32,
    pages: Pages,
    /// For each chunk, which queue lent it to the kernel and for what. A queue writes a tag of its own when it lends
    /// and clears it when the chunk comes back; it never touches another queue's tag. So each entry has one writer
    /// at a time, and relaxed loads and stores (plain moves) are enough.
    lent: Box<[AtomicU16]>,
    borrowers: Mutex<Borrowers>,
}

// SAFETY: `base` is only ever turned into chunks by the owners of Frames; everything else here is Sync itself.
unsafe impl Sync for Shared {}
// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Shared {}

/// Memory for frames. Cheap to copy: it names memory that stays until the process ends, which is what makes a
/// [`Frame`] sound to hold for as long as one likes.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    shared: &'static Shared,
}

static NEXT_REGION: AtomicU32 = AtomicU32::new(0);

impl Region {
    /// Maps the memory and hands out all its frames, in one pool. Never unmapped; needs no privilege.
    pub fn new(config: RegionConfig) -> Result<(Region, FramePool), RegionError> {
        if !matches!(config.chunk_size, 2048 | 4096) {
            return Err(RegionError::ChunkSize(config.chunk_size));
        }
        if !(1..=1 << 24).contains(&config.frames) {
            return Err(RegionError::Frames(config.frames));
        }
        let number = NEXT_REGION
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < u32::from(u16::MAX)).then_some(n + 1)
            })
            .map_err(|_| RegionError::TooMany)?;
        let bytes = config.frames as usize * config.chunk_size as usize;
        let (base, pages) = mmap::map_for_ever(bytes, config.hugepages)
            .map_err(|source| RegionError::Map { bytes, source })?;
        let shared = Box::leak(Box::new(Shared {
            id: number as u16,
            base,
            frames: config.frames,
            chunk_shift: config.chunk_size.trailing_zeros(),
            pages,
            lent: (0..config.frames).map(|_| AtomicU16::new(HELD_HERE)).collect(),
            borrowers: Mutex::new(Borrowers { next: 1, returned: Vec::new() }),
        }));
        let region = Region { shared };
        // Pushed last to first, so that the pool's first frame is the region's first chunk.
        let frames = (0..config.frames)
            .rev()
            .map(|index| {
                // SAFETY: each index is used once, here, for a region nobody else knows yet.
                unsafe { region.claim(index) }
            })
            .collect();
        Ok((region, FramePool::new(region.shared.id, frames)))
    }

    /// Frames in the region.
    pub fn frames(&self) -> u32 {
        self.shared.frames
    }

    /// Bytes of one chunk.
    pub fn chunk_size(&self) -> u32 {
        1 << self.shared.chunk_shift
    }

    /// Bytes of all chunks.
    pub fn len(&self) -> u64 {
        u64::from(self.shared.frames) << self.shared.chunk_shift
    }

    /// Never: a region has at least one frame.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Which pages the memory really got.
    pub fn pages(&self) -> Pages {
        self.shared.pages
    }

    /// The address the kernel is told in `XDP_UMEM_REG`.
    pub(crate) fn address(&self) -> u64 {
        self.shared.base.as_ptr().expose_provenance() as u64
    }

    /// # Safety
    /// `index < frames`, and no `Frame` and no kernel ring names that chunk.
    unsafe fn claim(&self, index: u32) -> Frame {
        let Shared { id, base, chunk_shift, .. } = *self.shared;
        // SAFETY: index < frames, so the chunk lies in the mapping, which is never unmapped; that nobody else names it
        // is the caller's promise.
        unsafe { Frame::new(base.add((index as usize) << chunk_shift), 1 << chunk_shift, id) }
    }

    /// One queue's lending for one purpose, for a batch of frames.
    pub(crate) fn lender(&self, borrower: Borrower, lent: Lent) -> Lender {
        let Shared { id, base, chunk_shift, .. } = *self.shared;
        Lender { id, base, chunk_shift, tags: &self.shared.lent, tag: borrower.tag(lent) }
    }

    /// Addresses of all chunks a queue has lent for a purpose. Slow: reads the whole table.
    pub(crate) fn lent_by(&self, borrower: Borrower, lent: Lent) -> Vec<u64> {
        let tag = borrower.tag(lent);
        (0u64..)
            .zip(self.shared.lent.iter())
            .filter(|(_, entry)| entry.load(Ordering::Relaxed) == tag)
            .map(|(index, _)| index << self.shared.chunk_shift)
            .collect()
    }

    /// A number for a new queue; `None` when all are used or retired.
    pub(crate) fn new_borrower(&self) -> Option<Borrower> {
        let mut borrowers = self.shared.borrowers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(number) = borrowers.returned.pop() {
            return Some(Borrower(number));
        }
        (borrowers.next <= Borrower::MAX).then(|| {
            borrowers.next += 1;
            Borrower(borrowers.next - 1)
        })
    }

    /// Returns the number of a queue that has nothing lent any more.
    pub(crate) fn return_borrower(&self, borrower: Borrower) {
        let mut borrowers = self.shared.borrowers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        borrowers.returned.push(borrower.0);
    }
}

/// Gives frames up to the kernel and takes them back, on behalf of one queue and for one purpose.
///
/// What it needs of the region stands here by value, so that a batch's loop finds it in registers.
#[derive(Clone, Copy)]
pub(crate) struct Lender {
    id: u16,
    base: NonNull<u8>,
    chunk_shift: u32,
    tags: &'static [AtomicU16],
    tag: u16,
}

impl Lender {
    /// Gives a frame up. Returns the AF_XDP address of its first byte: the offset from the region's start.
    ///
    /// # Panics
    /// If the frame is of another region: its address would mean someone else's bytes.
    #[inline]
    pub(crate) fn lend(&self, frame: Frame) -> u64 {
        assert_eq!(frame.region(), self.id, "a frame of another region in this queue");
        let offset = frame.chunk().as_ptr().addr() - self.base.as_ptr().addr();
        self.tags[offset >> self.chunk_shift].store(self.tag, Ordering::Relaxed);
        offset as u64 + u64::from(frame.start())
    }

    /// Takes back the chunk around an address the kernel returned, if this queue had lent it for this purpose. The
    /// second value is where in its chunk the address is.
    ///
    /// `None` for any other address: outside the region, never lent, returned before. So even a kernel that repeats
    /// itself can't make two frames of one chunk.
    #[inline]
    pub(crate) fn take_back(&self, address: u64) -> Option<(Frame, usize)> {
        let index = usize::try_from(address >> self.chunk_shift).ok()?;
        let tag = self.tags.get(index)?;
        if tag.load(Ordering::Relaxed) != self.tag {
            return None;
        }
        tag.store(HELD_HERE, Ordering::Relaxed);
        let chunk_size = 1 << self.chunk_shift;
        // SAFETY: there is one tag per chunk, so the chunk lies in the mapping, which is never unmapped. The tag says
        // that this queue gave up the one Frame of this chunk and hasn't made a new one since; only this queue writes
        // its tag, and a queue is used by one thread at a time.
        let frame = unsafe { Frame::new(self.base.add(index << self.chunk_shift), chunk_size, self.id) };
        Some((frame, address as usize & (usize::from(chunk_size) - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(frames: u32) -> (Region, FramePool) {
        Region::new(RegionConfig { frames, chunk_size: 2048, hugepages: false }).unwrap()
    }

    #[test]
    fn frames_of_a_region_do_not_overlap() {
        let (region, mut pool) = region(32);
        let mut frames: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((frames.len(), region.len()), (32, 32 * 2048));
        for (n, frame) in frames.iter_mut().enumerate() {
            frame.grow_front(256).unwrap();
            frame.set_len(2048).unwrap();
            frame.bytes_mut().fill(n as u8);
        }
        for (n, frame) in frames.iter().enumerate() {
            assert!(frame.bytes().iter().all(|byte| *byte == n as u8));
        }
    }

    #[test]
    fn a_lent_chunk_comes_back_once_and_only_to_its_borrower() {
        let (region, mut pool) = region(4);
        let (one, two) = (region.new_borrower().unwrap(), region.new_borrower().unwrap());
        let address = region.lender(one, Lent::Receive).lend(pool.take().unwrap());
        assert_eq!(address, 256);
        assert!(region.lender(two, Lent::Receive).take_back(address).is_none(), "another queue");
        assert!(region.lender(one, Lent::Transmit).take_back(address).is_none(), "another purpose");
        assert!(region.lender(one, Lent::Receive).take_back(address + 2048).is_none(), "a chunk never lent");
        assert!(region.lender(one, Lent::Receive).take_back(4 * 2048).is_none(), "just outside the region");
        assert!(region.lender(one, Lent::Receive).take_back(u64::MAX).is_none(), "far outside the region");
        let (frame, start) = region.lender(one, Lent::Receive).take_back(address + 44).expect("lent by one");
        assert_eq!(start, 300);
        assert!(region.lender(one, Lent::Receive).take_back(address).is_none(), "a second time");
        pool.put(frame);
    }

    #[test]
    fn what_a_queue_has_lent_can_be_listed_by_purpose() {
        let (region, mut pool) = region(4);
        let borrower = region.new_borrower().unwrap();
        let mut frame = pool.take().unwrap();
        frame.grow_front(200).unwrap();
        assert_eq!(region.lender(borrower, Lent::Transmit).lend(frame), 56);
        region.lender(borrower, Lent::Receive).lend(pool.take().unwrap());
        assert_eq!(region.lent_by(borrower, Lent::Transmit), [0]);
        assert_eq!(region.lent_by(borrower, Lent::Receive), [2048]);
    }

    #[test]
    fn queue_numbers_are_used_again_and_run_out() {
        let (region, _pool) = region(1);
        let first = region.new_borrower().unwrap();
        assert_ne!(region.new_borrower().unwrap(), first);
        region.return_borrower(first);
        assert_eq!(region.new_borrower(), Some(first));
        let rest = std::iter::from_fn(|| region.new_borrower()).count();
        assert_eq!(rest, usize::from(Borrower::MAX) - 2);
    }

    #[test]
    fn sizes_that_af_xdp_cannot_take_are_refused() {
        let config = |frames, chunk_size| Region::new(RegionConfig { frames, chunk_size, hugepages: false });
        assert!(matches!(config(1, 1024), Err(RegionError::ChunkSize(1024))));
        assert!(matches!(config(1, 3000), Err(RegionError::ChunkSize(3000))));
        assert!(matches!(config(0, 2048), Err(RegionError::Frames(0))));
        assert!(matches!(config(u32::MAX, 4096), Err(RegionError::Frames(u32::MAX))));
    }

    #[test]
    fn asking_for_huge_pages_gives_memory_whether_there_are_any_or_not() {
        let (region, mut pool) =
            Region::new(RegionConfig { frames: 8, chunk_size: 4096, hugepages: true }).unwrap();
        println!("got {}", region.pages());
        let mut frame = pool.take().unwrap();
        frame.copy_from(&[7; 3840]).unwrap();
        assert_eq!(frame.bytes(), [7; 3840]);
    }
}
