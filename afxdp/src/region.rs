//! A region: memory divided into chunks, mapped once and kept as long as the process.
//!
//! ```text
//!   | chunk | chunk | ... | chunk | chunk   chunk   chunk | chunk   chunk   chunk | ...
//!    frame   frame         frame         large frame             large frame
//! ```
//! The kernel takes no chunk above a page, huge pages or not (`xdp_umem_reg`, net/xdp/xdp_umem.c). A packet above a chunk
//! comes in several, wherever they lie; a queue puts it together in a large frame, whose chunks are neighbours.

use std::io;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::frame::{Frame, HEADROOM};
use crate::lending::{Borrower, HELD_HERE, Lender, Lent};
use crate::mmap::{self, Pages};
use crate::pool::FramePool;

/// What a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionConfig {
    /// How many frames; at least one. Count for each queue its fill, TX and RX rings and the NIC's own, then a few
    /// batches: a worker whose frames all wait in TX rings receives nothing.
    pub frames: u32,
    /// Bytes of a chunk: 2048 or 4096. What is received in one piece has at most `chunk_size - 256` bytes.
    pub chunk_size: u32,
    /// Frames for what is larger. Without them it isn't received.
    pub large: Option<LargeFrames>,
    /// Try 2 MiB pages first; ordinary pages are taken when there are none. [`Region::pages`] tells which it became.
    pub hugepages: bool,
}

/// Frames of several neighbouring chunks. Only packets above a chunk take one, from their arrival until they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeFrames {
    /// How many; at least one.
    pub count: u32,
    /// Chunks of each: two or more, and below 64 KiB together. Such a frame has at most `chunks * chunk_size - 256` bytes.
    pub chunks: u16,
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
    /// No large frames, or too many, or such as hold no more than a chunk, or more than a frame's length can say.
    #[error("{} large frames of {} chunks: there must be 2 chunks, less than 64 KiB, and no more than 2^24 of all chunks", .0.count, .0.chunks)]
    Large(LargeFrames),
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
    /// Frames of one chunk; their chunks come first.
    frames: u32,
    large_frames: u32,
    /// Chunks of each large frame; 0 where there are none.
    large_chunks: u16,
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
        let large = config.large.unwrap_or(LargeFrames { count: 0, chunks: 0 });
        let chunks = config.large.map_or(Some(config.frames), |large| chunks(&config, large));
        let chunks = chunks.ok_or(RegionError::Large(large))?;
        let number = NEXT_REGION
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < u32::from(u16::MAX)).then_some(n + 1)
            })
            .map_err(|_| RegionError::TooMany)?;
        let bytes = chunks as usize * config.chunk_size as usize;
        let (base, pages) = mmap::map_for_ever(bytes, config.hugepages)
            .map_err(|source| RegionError::Map { bytes, source })?;
        let shared = Box::leak(Box::new(Shared {
            id: number as u16,
            base,
            frames: config.frames,
            large_frames: large.count,
            large_chunks: large.chunks,
            chunk_shift: config.chunk_size.trailing_zeros(),
            pages,
            lent: (0..chunks).map(|_| AtomicU16::new(HELD_HERE)).collect(),
            borrowers: Mutex::new(Borrowers { next: 1, returned: Vec::new() }),
        }));
        let region = Region { shared };
        // Pushed last to first, so that the pool's first frame is the region's first chunk.
        let frames = (0..config.frames)
            .rev()
            .map(|index| {
                // SAFETY: each chunk is claimed once, here, for a region nobody else knows yet; it is one of the first
                // `frames`.
                unsafe { region.claim(index, 1) }
            })
            .collect();
        let large_frames = (0..large.count)
            .rev()
            .map(|number| {
                // SAFETY: as above; these lie behind the others, and `chunks` counts them all.
                unsafe { region.claim(config.frames + number * u32::from(large.chunks), large.chunks) }
            })
            .collect();
        Ok((region, FramePool::new(region.shared.id, config.chunk_size as u16, frames, large_frames)))
    }

    /// Frames in the region, large ones not counted.
    pub fn frames(&self) -> u32 {
        self.shared.frames
    }

    /// Large frames in the region.
    pub fn large_frames(&self) -> u32 {
        self.shared.large_frames
    }

    /// Bytes of the longest frame that can be received: in pieces, or in one.
    pub fn receivable(&self, in_pieces: bool) -> u32 {
        let chunks = if in_pieces { u32::from(self.shared.large_chunks.max(1)) } else { 1 };
        chunks * self.chunk_size() - u32::from(HEADROOM)
    }

    /// Bytes of one chunk.
    pub fn chunk_size(&self) -> u32 {
        1 << self.shared.chunk_shift
    }

    /// Bytes of all chunks.
    pub fn len(&self) -> u64 {
        (self.shared.lent.len() as u64) << self.shared.chunk_shift
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
    /// `count` chunks from `index` on are in the region, and no `Frame` and no kernel ring names one of them.
    unsafe fn claim(&self, index: u32, count: u16) -> Frame {
        let Shared { id, base, chunk_shift, .. } = *self.shared;
        // SAFETY: the chunks lie in the mapping, which is never unmapped; that they do, and that nobody else names them, is
        // the caller's promise.
        unsafe { Frame::new(base.add((index as usize) << chunk_shift), count << chunk_shift, id) }
    }

    /// One queue's lending for one purpose, for a batch of frames.
    pub(crate) fn lender(&self, borrower: Borrower, lent: Lent) -> Lender {
        let Shared { id, base, frames, large_chunks, chunk_shift, .. } = *self.shared;
        let (tags, large_tags) = self.shared.lent.split_at(frames as usize);
        Lender { id, large_chunks, base, chunk_shift, tags, large_tags, tag: borrower.tag(lent) }
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

    /// How many frames a queue has lent for a purpose, wholly or in part. As slow as [`lent_by`](Self::lent_by).
    pub(crate) fn frames_lent_by(&self, borrower: Borrower, lent: Lent) -> usize {
        let Lender { tags, large_tags, large_chunks, tag, .. } = self.lender(borrower, lent);
        let is_lent = |entry: &AtomicU16| entry.load(Ordering::Relaxed) == tag;
        let large = large_tags.chunks(usize::from(large_chunks.max(1)));
        tags.iter().filter(|entry| is_lent(entry)).count()
            + large.filter(|parts| parts.iter().any(is_lent)).count()
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

/// All chunks of a region; `None` where its large frames can't be had.
fn chunks(config: &RegionConfig, large: LargeFrames) -> Option<u32> {
    let fits = u32::from(large.chunks).checked_mul(config.chunk_size)? <= u32::from(u16::MAX);
    let all = large.count.checked_mul(large.chunks.into())?.checked_add(config.frames)?;
    (large.count >= 1 && large.chunks >= 2 && fits && all <= 1 << 24).then_some(all)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn region(frames: u32) -> (Region, FramePool) {
        Region::new(RegionConfig { frames, chunk_size: 2048, large: None, hugepages: false }).unwrap()
    }

    /// Four frames of a chunk of 4096 bytes, two of several.
    pub(crate) fn large_region(chunks: u16) -> (Region, FramePool) {
        let large = Some(LargeFrames { count: 2, chunks });
        Region::new(RegionConfig { frames: 4, chunk_size: 4096, large, hugepages: false }).unwrap()
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
    fn large_frames_lie_behind_the_others_and_overlap_nothing() {
        let (region, mut pool) = large_region(3);
        assert_eq!((region.frames(), region.large_frames(), region.len()), (4, 2, (4 + 2 * 3) * 4096));
        assert_eq!((region.receivable(false), region.receivable(true)), (3840, 3 * 4096 - 256));
        let mut frames: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        frames.extend(std::iter::from_fn(|| pool.take_for(4000)));
        assert_eq!(frames.len(), 6);
        for (n, frame) in (0u8..).zip(&mut frames) {
            frame.grow_front(256).unwrap();
            frame.set_len(frame.len() + frame.tailroom()).unwrap();
            frame.bytes_mut().fill(n);
        }
        for (n, frame) in (0u8..).zip(&frames) {
            assert!(frame.bytes().iter().all(|byte| *byte == n));
        }
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
        let config = |frames, chunk_size| {
            Region::new(RegionConfig { frames, chunk_size, large: None, hugepages: false })
        };
        assert!(matches!(config(1, 1024), Err(RegionError::ChunkSize(1024))));
        assert!(matches!(config(1, 3000), Err(RegionError::ChunkSize(3000))));
        assert!(matches!(config(0, 2048), Err(RegionError::Frames(0))));
        assert!(matches!(config(u32::MAX, 4096), Err(RegionError::Frames(u32::MAX))));
        for (count, chunks) in [(0, 3), (1, 1), (1, 16), (1, u16::MAX), (u32::MAX, 2), (1 << 23, 3)] {
            let large = LargeFrames { count, chunks };
            let config = RegionConfig { frames: 1, chunk_size: 4096, large: Some(large), hugepages: false };
            assert!(matches!(Region::new(config), Err(RegionError::Large(refused)) if refused == large));
        }
    }

    #[test]
    fn asking_for_huge_pages_gives_memory_whether_there_are_any_or_not() {
        let (region, mut pool) =
            Region::new(RegionConfig { frames: 8, chunk_size: 4096, large: None, hugepages: true }).unwrap();
        println!("got {}", region.pages());
        let mut frame = pool.take().unwrap();
        frame.copy_from(&[7; 3840]).unwrap();
        assert_eq!(frame.bytes(), [7; 3840]);
    }
}
