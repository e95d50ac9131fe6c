//! A frame: the one owner of one chunk of a region, or of several neighbouring ones.

use std::fmt;
use std::ptr::NonNull;

use crate::abi::XDP_PACKET_HEADROOM;

/// Where a fresh frame's bytes begin in its chunk: where the kernel puts received ones, so that any
/// encapsulation fits in front without a copy.
pub const HEADROOM: u16 = XDP_PACKET_HEADROOM;

/// A change would leave the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame has room for {available} bytes more, {needed} are needed")]
pub struct NoRoom {
    /// Bytes asked for.
    pub needed: usize,
    /// Bytes there are.
    pub available: usize,
}

/// One chunk of a region, owned: the bytes from `start` for `len` are the frame, the rest is room.
///
/// A large frame owns several chunks, which lie behind each other: to whoever holds it, it is one chunk of that size.
///
/// Not `Clone` and not `Copy`: whoever holds it is the only one, in this process or in the kernel, that touches the
/// chunk. It is given up to a [`FramePool`](crate::FramePool) or to a [`Queue`](crate::Queue) for transmission.
/// Dropping it anywhere else leaks the chunk for the life of the process, which is safe, wasteful, and visible in
/// [`FramePool::lent`](crate::FramePool::lent).
///
/// ```text
/// chunk                start             start+len          chunk+chunk_size
///   |<---- headroom ---->|<---- bytes ------>|<---- tailroom ---->|
/// ```
#[must_use = "a frame dropped outside its pool is lost for the life of the process"]
pub struct Frame {
    /// Invariant: the first byte of a chunk of the region `region`, of `chunk_size` bytes, which no other `Frame`
    /// names and which is in no ring the kernel reads.
    chunk: NonNull<u8>,
    /// Invariant: `start + len <= chunk_size`.
    start: u16,
    len: u16,
    chunk_size: u16,
    region: u16,
}

// SAFETY: a Frame is the only owner of its chunk, the memory is never unmapped, and nothing in it is bound to a thread.
unsafe impl Send for Frame {}
// SAFETY: through `&Frame` the bytes can only be read.
unsafe impl Sync for Frame {}

impl Frame {
    /// An empty frame over a chunk.
    ///
    /// # Safety
    /// `chunk` is the first byte of a chunk of `chunk_size` bytes of the region `region`, which is never unmapped;
    /// no other `Frame` names it and the kernel doesn't hold it.
    pub(crate) unsafe fn new(chunk: NonNull<u8>, chunk_size: u16, region: u16) -> Self {
        Self { chunk, start: HEADROOM, len: 0, chunk_size, region }
    }

    /// The same frame with its bytes placed at `start` for `len`; given back if that leaves the chunk.
    pub(crate) fn placed(mut self, start: usize, len: usize) -> Result<Self, Self> {
        match (u16::try_from(start), u16::try_from(len)) {
            (Ok(start), Ok(len)) if u32::from(start) + u32::from(len) <= u32::from(self.chunk_size) => {
                self.start = start;
                self.len = len;
                Ok(self)
            }
            _ => Err(self),
        }
    }

    pub(crate) fn chunk(&self) -> NonNull<u8> {
        self.chunk
    }

    /// Bytes of its chunk, or of all its chunks.
    pub(crate) fn chunk_size(&self) -> u16 {
        self.chunk_size
    }

    pub(crate) fn region(&self) -> u16 {
        self.region
    }

    /// What a frame's pool goes by, its region and the size of its chunk, in one number.
    pub(crate) fn kind(&self) -> u32 {
        Self::kind_of(self.region, self.chunk_size)
    }

    /// [`kind`](Self::kind) of frames with such chunks of such a region.
    pub(crate) fn kind_of(region: u16, chunk_size: u16) -> u32 {
        u32::from(region) << 16 | u32::from(chunk_size)
    }

    /// Where the bytes begin, counted from the chunk's first byte.
    pub(crate) fn start(&self) -> u16 {
        self.start
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start + len <= chunk_size`, so the range lies in the chunk, which is mapped for ever, was zeroed
        // when mapped, and which this Frame alone owns; `&self` keeps writers out.
        unsafe {
            std::slice::from_raw_parts(
                self.chunk.as_ptr().add(usize::from(self.start)),
                usize::from(self.len),
            )
        }
    }

    /// The frame's bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes this the only reference.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.chunk.as_ptr().add(usize::from(self.start)),
                usize::from(self.len),
            )
        }
    }

    /// Bytes in the frame.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the frame has no byte. An empty frame can't be transmitted.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes free in front: what [`grow_front`](Self::grow_front) may take.
    pub fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    /// Bytes free behind: what [`set_len`](Self::set_len) may add.
    pub fn tailroom(&self) -> usize {
        usize::from(self.chunk_size - self.start - self.len)
    }

    /// Adds `n` bytes in front (encapsulation). They hold whatever was there: write them all.
    pub fn grow_front(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.headroom() {
            return Err(NoRoom { needed: n, available: self.headroom() });
        }
        // `n` fits in u16, being at most `start`; and start + len stays what it was.
        self.start -= n as u16;
        self.len += n as u16;
        Ok(())
    }

    /// Takes `n` bytes off the front (decapsulation).
    pub fn trim_front(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.len() {
            return Err(NoRoom { needed: n, available: self.len() });
        }
        self.start += n as u16;
        self.len -= n as u16;
        Ok(())
    }

    /// Makes the frame `n` bytes long by cutting its tail or extending it. Added bytes hold whatever was there.
    pub fn set_len(&mut self, n: usize) -> Result<(), NoRoom> {
        let available = usize::from(self.chunk_size - self.start);
        if n > available {
            return Err(NoRoom { needed: n, available });
        }
        self.len = n as u16;
        Ok(())
    }

    /// Adds a copy of `bytes` behind the frame's own. Unchanged if they don't fit.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let len = self.len();
        self.set_len(len + bytes.len())?;
        self.bytes_mut()[len..].copy_from_slice(bytes);
        Ok(())
    }

    /// Makes the frame empty again, with the room in front that a received one has ([`HEADROOM`]).
    pub fn reset(&mut self) {
        self.start = HEADROOM;
        self.len = 0;
    }

    /// Makes the frame hold a copy of `bytes`, beginning at [`HEADROOM`]. Unchanged if they don't fit.
    pub fn copy_from(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let available = usize::from(self.chunk_size - HEADROOM);
        if bytes.len() > available {
            return Err(NoRoom { needed: bytes.len(), available });
        }
        self.start = HEADROOM;
        self.len = bytes.len() as u16;
        self.bytes_mut().copy_from_slice(bytes);
        Ok(())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame(region {}, start {}, len {})", self.region, self.start, self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::region::{Region, RegionConfig};

    fn frame(chunk_size: u32) -> Frame {
        let (_, mut pool) =
            Region::new(RegionConfig { frames: 1, chunk_size, large: None, hugepages: false }).unwrap();
        pool.take().unwrap()
    }

    #[test]
    fn a_frame_is_sixteen_bytes_and_so_is_an_optional_one() {
        assert_eq!(size_of::<Frame>(), 16);
        assert_eq!(size_of::<Option<Frame>>(), 16);
    }

    #[test]
    fn encapsulation_moves_the_start_and_leaves_the_bytes_where_they_are() {
        let mut frame = frame(2048);
        frame.copy_from(b"payload").unwrap();
        let before = frame.bytes().as_ptr();
        frame.grow_front(50).unwrap();
        assert_eq!((frame.headroom(), frame.len()), (206, 57));
        assert_eq!(frame.bytes()[50..].as_ptr(), before);
        frame.trim_front(50).unwrap();
        assert_eq!(frame.bytes(), b"payload");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut frame = frame(2048);
        frame.copy_from(b"abc").unwrap();
        assert_eq!(frame.grow_front(257), Err(NoRoom { needed: 257, available: 256 }));
        assert_eq!(frame.trim_front(4), Err(NoRoom { needed: 4, available: 3 }));
        assert_eq!(frame.set_len(1793), Err(NoRoom { needed: 1793, available: 1792 }));
        assert_eq!(frame.copy_from(&[0; 1793]), Err(NoRoom { needed: 1793, available: 1792 }));
        assert_eq!(frame.bytes(), b"abc");
    }

    #[derive(Clone, Debug)]
    enum Change {
        GrowFront(usize),
        TrimFront(usize),
        SetLen(usize),
        CopyFrom(usize),
        Reset,
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0usize..600).prop_map(Change::GrowFront),
            (0usize..600).prop_map(Change::TrimFront),
            (0usize..5000).prop_map(Change::SetLen),
            (0usize..5000).prop_map(Change::CopyFrom),
            Just(Change::Reset),
        ]
    }

    proptest! {
        #[test]
        fn no_sequence_of_changes_leaves_the_chunk(
            chunk_size in prop_oneof![Just(2048u32), Just(4096u32)],
            changes in proptest::collection::vec(change(), 0..60),
        ) {
            let size = chunk_size as usize;
            let mut frame = frame(chunk_size);
            // The model: where the bytes begin and how many they are.
            let (mut start, mut len) = (256usize, 0usize);
            for change in changes {
                let (ok, next) = match change {
                    Change::GrowFront(n) => (frame.grow_front(n), start.checked_sub(n).map(|s| (s, len + n))),
                    Change::TrimFront(n) => (frame.trim_front(n), len.checked_sub(n).map(|l| (start + n, l))),
                    Change::SetLen(n) => (frame.set_len(n), (start + n <= size).then_some((start, n))),
                    Change::CopyFrom(n) => {
                        (frame.copy_from(&vec![1; n]), (256 + n <= size).then_some((256, n)))
                    }
                    Change::Reset => {
                        frame.reset();
                        (Ok(()), Some((256, 0)))
                    }
                };
                prop_assert_eq!(ok.is_ok(), next.is_some());
                (start, len) = next.unwrap_or((start, len));
                prop_assert_eq!((frame.headroom(), frame.len()), (start, len));
                prop_assert_eq!(frame.headroom() + frame.len() + frame.tailroom(), size);
                frame.bytes_mut().fill(0xa5);
            }
        }
    }
}
