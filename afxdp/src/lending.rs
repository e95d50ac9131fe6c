//! Chunks given up to the kernel and taken back: who has lent which, and for what.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::abi::{self, Descriptor};
use crate::frame::Frame;

/// Nobody in the kernel holds the chunk: a `Frame` or a pool does.
pub(crate) const HELD_HERE: u16 = 0;

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
pub(crate) struct Borrower(pub(crate) u16);

impl Borrower {
    pub(crate) const MAX: u16 = u16::MAX >> 1;

    pub(crate) fn tag(self, lent: Lent) -> u16 {
        (self.0 << 1) | u16::from(lent == Lent::Transmit)
    }
}

/// What came back of a large frame.
pub(crate) enum TakenBack {
    /// Its last part: it is ours again.
    Frame(Frame),
    /// A part; the kernel still has another.
    Part,
    /// Nothing of ours.
    Unknown,
}

/// Gives frames up to the kernel and takes them back, on behalf of one queue and for one purpose.
///
/// What it needs of the region stands here by value, so that a batch's loop finds it in registers.
#[derive(Clone, Copy)]
pub(crate) struct Lender {
    /// The region's number.
    pub(crate) id: u16,
    /// Chunks of each large frame.
    pub(crate) large_chunks: u16,
    /// Invariant: the first byte of the region's mapping, which is never unmapped and has a chunk for each of `tags`, then
    /// one for each of `large_tags`.
    pub(crate) base: NonNull<u8>,
    /// Chunks have 2 to this power bytes.
    pub(crate) chunk_shift: u32,
    /// For each frame of one chunk, who has lent it.
    pub(crate) tags: &'static [AtomicU16],
    /// For each chunk of a large frame, who has lent it.
    pub(crate) large_tags: &'static [AtomicU16],
    /// What this queue writes there.
    pub(crate) tag: u16,
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

    /// Has the region large frames?
    #[inline]
    pub(crate) fn has_large(&self) -> bool {
        self.large_chunks > 0
    }

    /// Is it one of them?
    #[inline]
    pub(crate) fn is_large(&self, frame: &Frame) -> bool {
        u32::from(frame.chunk_size()) >> self.chunk_shift > 1
    }

    /// Gives a large frame up: one descriptor for each chunk that its bytes are in, as the kernel wants it
    /// (`xp_aligned_validate_desc`, net/xdp/xsk_queue.h). They must reach the kernel together.
    ///
    /// # Panics
    /// As [`lend`](Self::lend).
    pub(crate) fn lend_in_parts(self, frame: Frame) -> Parts {
        assert_eq!(frame.region(), self.id, "a frame of another region in this queue");
        let offset = frame.chunk().as_ptr().addr() - self.base.as_ptr().addr() + usize::from(frame.start());
        let parts =
            Parts { at: offset as u64, end: (offset + frame.len()) as u64, chunk_shift: self.chunk_shift };
        for part in parts {
            let part = (part.addr >> self.chunk_shift) as usize - self.tags.len();
            self.large_tags[part].store(self.tag, Ordering::Relaxed);
        }
        parts
    }

    /// Descriptors that a frame takes in a TX ring.
    #[inline]
    pub(crate) fn descriptors(&self, frame: &Frame) -> u32 {
        let (start, len) = (u32::from(frame.start()), frame.len() as u32);
        ((start + len.max(1) - 1) >> self.chunk_shift) - (start >> self.chunk_shift) + 1
    }

    /// Takes back the chunk around an address the kernel returned, if this queue had lent it for this purpose. The
    /// second value is where in its chunk the address is.
    ///
    /// `None` for any other address: outside the region, never lent, returned before, of a large frame. So even a kernel
    /// that repeats itself can't make two frames of one chunk.
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

    /// As [`take_back`](Self::take_back), for the chunks of large frames.
    #[cold]
    pub(crate) fn take_back_part(self, address: u64) -> TakenBack {
        let part = usize::try_from(address >> self.chunk_shift)
            .ok()
            .and_then(|index| index.checked_sub(self.tags.len()));
        let Some((part, tag)) = part.and_then(|part| Some((part, self.large_tags.get(part)?))) else {
            return TakenBack::Unknown;
        };
        if tag.load(Ordering::Relaxed) != self.tag {
            return TakenBack::Unknown;
        }
        tag.store(HELD_HERE, Ordering::Relaxed);
        let first = self.first_part(part);
        let all = &self.large_tags[first..first + usize::from(self.large_chunks)];
        if all.iter().any(|tag| tag.load(Ordering::Relaxed) == self.tag) {
            return TakenBack::Part;
        }
        // SAFETY: as in `take_back`, for each of the frame's chunks: none of them has a tag of this queue any more, and
        // those of its chunks that had none were never given up.
        let frame = unsafe {
            let start = self.base.add((self.tags.len() + first) << self.chunk_shift);
            Frame::new(start, self.large_chunks << self.chunk_shift, self.id)
        };
        TakenBack::Frame(frame)
    }

    /// Which of the chunks of large frames is the first of its frame's.
    pub(crate) fn first_part(self, part: usize) -> usize {
        part - part % usize::from(self.large_chunks)
    }
}

/// The descriptors of a large frame, in order.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    at: u64,
    end: u64,
    chunk_shift: u32,
}

impl Iterator for Parts {
    type Item = Descriptor;

    fn next(&mut self) -> Option<Descriptor> {
        if self.at >= self.end {
            return None;
        }
        let boundary = ((self.at >> self.chunk_shift) + 1) << self.chunk_shift;
        let (addr, end) = (self.at, boundary.min(self.end));
        self.at = end;
        let options = if end < self.end { abi::XDP_PKT_CONTD } else { 0 };
        // At most a chunk.
        Some(Descriptor { addr, len: (end - addr) as u32, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::tests::{large_region, region};

    #[test]
    fn a_lent_chunk_comes_back_once_and_only_to_its_borrower() {
        let (region, mut pool) = region(4);
        let (one, two) = (region.new_borrower().unwrap(), region.new_borrower().unwrap());
        let address = region.lender(one, Lent::Receive).lend(pool.take().unwrap());
        assert_eq!(address, 256);
        let taken = |by, lent, address| region.lender(by, lent).take_back(address);
        assert!(taken(two, Lent::Receive, address).is_none(), "another queue");
        assert!(taken(one, Lent::Transmit, address).is_none(), "another purpose");
        assert!(taken(one, Lent::Receive, address + 2048).is_none(), "a chunk never lent");
        assert!(taken(one, Lent::Receive, 4 * 2048).is_none(), "just outside the region");
        assert!(taken(one, Lent::Receive, u64::MAX).is_none(), "far outside the region");
        let (frame, start) = taken(one, Lent::Receive, address + 44).expect("lent by one");
        assert_eq!(start, 300);
        assert!(taken(one, Lent::Receive, address).is_none(), "a second time");
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
    fn a_large_frame_goes_in_one_descriptor_a_chunk_and_is_back_when_all_are() {
        let (region, mut pool) = large_region(3);
        let borrower = region.new_borrower().unwrap();
        let lender = region.lender(borrower, Lent::Transmit);
        let first = 4 * 4096;
        for (trimmed, len, expected) in [
            (0, 9014, vec![(first + 256, 3840, 1), (first + 4096, 4096, 1), (first + 8192, 1078, 0)]),
            (50, 3790, vec![(first + 306, 3790, 0)]),
            (0, 3841, vec![(first + 256, 3840, 1), (first + 4096, 1, 0)]),
            (0, 12_032, vec![(first + 256, 3840, 1), (first + 4096, 4096, 1), (first + 8192, 4096, 0)]),
            // Decapsulated so far that the first chunk has nothing left.
            (3840, 200, vec![(first + 4096, 200, 0)]),
        ] {
            let mut frame = pool.take_for(4000).unwrap();
            frame.set_len(trimmed + len).unwrap();
            frame.trim_front(trimmed).unwrap();
            assert_eq!(lender.descriptors(&frame) as usize, expected.len());
            let parts: Vec<_> =
                lender.lend_in_parts(frame).map(|part| (part.addr, part.len, part.options)).collect();
            assert_eq!(parts, expected);
            assert_eq!(region.frames_lent_by(borrower, Lent::Transmit), 1);
            // Whichever comes back last, it is then that the frame is ours again, and whole.
            let mut frame = None;
            for (left, (address, ..)) in (0..parts.len()).zip(&parts).rev() {
                match lender.take_back_part(*address) {
                    TakenBack::Part => assert!(left > 0),
                    TakenBack::Frame(back) => {
                        assert!(left == 0 && frame.replace(back).is_none());
                    }
                    TakenBack::Unknown => panic!("{address} was lent"),
                }
                assert!(matches!(lender.take_back_part(*address), TakenBack::Unknown), "a second time");
            }
            let frame = frame.expect("all parts are back");
            assert_eq!(frame.headroom() + frame.tailroom(), 3 * 4096);
            pool.put(frame);
            assert_eq!(pool.available(), pool.total());
        }
    }
}
