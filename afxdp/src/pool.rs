//! The free frames of one region, last in first out: the frame used last is the one still in the cache.

use crate::frame::{Frame, HEADROOM};

/// Free frames of one region. One owner, no locks.
///
/// The books: `total() == available() + lent()`, and what is lent is held by someone: queues
/// ([`Queue::outstanding`](crate::Queue::outstanding)), batches, rings between workers.
/// [`missing`](Self::missing) compares the two.
#[derive(Debug)]
pub struct FramePool {
    region: u16,
    chunk_size: u16,
    frames: usize,
    large_frames: usize,
    longest: usize,
    free: Vec<Frame>,
    /// Those of several chunks.
    large: Vec<Frame>,
}

impl FramePool {
    pub(crate) fn new(region: u16, chunk_size: u16, free: Vec<Frame>, large: Vec<Frame>) -> Self {
        let longest = large.first().or(free.first()).map_or(0, Frame::tailroom);
        Self { region, chunk_size, frames: free.len(), large_frames: large.len(), longest, free, large }
    }

    /// Bytes that the largest frames hold behind their [`HEADROOM`].
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// An empty frame of one chunk with [`HEADROOM`] in front, or `None` when all are lent.
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Moves up to `count` empty frames of one chunk behind those of `to`, and says how many: fewer when the others are lent.
    pub fn take_many(&mut self, count: usize, to: &mut Vec<Frame>) -> usize {
        let rest = self.free.len().saturating_sub(count);
        let taken = self.free.len() - rest;
        to.reserve(taken);
        // SAFETY: the frames from `rest` on are `taken` initialised ones; `to` has room for as many behind its own, and is
        // another vector than `free`. Once `free` ends before them, those in `to` are the only ones.
        unsafe {
            self.free.set_len(rest);
            to.as_mut_ptr().add(to.len()).copy_from_nonoverlapping(self.free.as_ptr().add(rest), taken);
            to.set_len(to.len() + taken);
        }
        taken
    }

    /// An empty frame that holds `len` bytes behind its [`HEADROOM`]: of one chunk where that is enough, else a large one.
    /// `None` when all of that kind are lent, or no frame of the region holds as many.
    pub fn take_for(&mut self, len: usize) -> Option<Frame> {
        if self.fits_a_chunk(len) {
            return self.take();
        }
        self.large.pop_if(|frame| len <= frame.tailroom())
    }

    /// A large frame, or `None` when all are lent.
    pub(crate) fn take_large(&mut self) -> Option<Frame> {
        self.large.pop()
    }

    /// Has the region large frames at all?
    pub(crate) fn has_large(&self) -> bool {
        self.large_frames > 0
    }

    fn fits_a_chunk(&self, len: usize) -> bool {
        len <= usize::from(self.chunk_size - HEADROOM)
    }

    /// Gives a frame back; its bytes are forgotten.
    ///
    /// # Panics
    /// If the frame is of another region: a bug, which would slowly empty that region's pool.
    #[inline]
    pub fn put(&mut self, mut frame: Frame) {
        if frame.chunk_size() == self.chunk_size {
            return self.put_chunk(frame);
        }
        assert_eq!(frame.region(), self.region, "a frame of another region in this pool");
        frame.reset();
        self.large.push(frame);
    }

    /// [`put`](Self::put) for a frame that is known to have one chunk.
    #[inline]
    pub(crate) fn put_chunk(&mut self, mut frame: Frame) {
        debug_assert_eq!(frame.chunk_size(), self.chunk_size);
        assert_eq!(frame.region(), self.region, "a frame of another region in this pool");
        frame.reset();
        self.free.push(frame);
    }

    /// [`put`](Self::put) for all of `frames`, which is empty then. Where all have one chunk, as nearly always, they move in
    /// one piece.
    ///
    /// # Panics
    /// As [`put`](Self::put).
    pub fn put_all(&mut self, frames: &mut Vec<Frame>) {
        if frames.is_empty() {
            return;
        }
        // Folded to the end, for the processor compares several at once.
        let chunk = Frame::kind_of(self.region, self.chunk_size);
        if frames.iter().fold(true, |all, frame| all & (frame.kind() == chunk)) {
            frames.iter_mut().for_each(Frame::reset);
            self.free.append(frames);
        } else {
            frames.drain(..).for_each(|frame| self.put(frame));
        }
    }

    /// Free frames.
    pub fn available(&self) -> usize {
        self.free.len() + self.large.len()
    }

    /// Free frames of the kind that [`take_for`](Self::take_for) gives for so many bytes.
    pub fn available_for(&self, len: usize) -> usize {
        if self.fits_a_chunk(len) { self.free.len() } else { self.large.len() }
    }

    /// Is less than a quarter of the frames free, or of the large ones?
    pub(crate) fn is_low(&self) -> bool {
        self.free.len() < self.frames / 4 || self.large.len() < self.large_frames / 4
    }

    /// Frames the region was made with.
    pub fn total(&self) -> usize {
        self.frames + self.large_frames
    }

    /// Frames taken and not given back.
    pub fn lent(&self) -> usize {
        self.total() - self.available()
    }

    /// Frames that nobody admits to hold: lent, less what the holders count (`held`). Zero, or a leak.
    pub fn missing(&self, held: usize) -> usize {
        self.lent().saturating_sub(held)
    }
}

#[cfg(test)]
mod tests {
    use crate::region::{LargeFrames, Region, RegionConfig};

    fn pool(frames: u32) -> super::FramePool {
        Region::new(RegionConfig { frames, chunk_size: 2048, large: None, hugepages: false }).unwrap().1
    }

    #[test]
    fn the_frame_put_last_is_taken_first_and_comes_back_empty() {
        let mut pool = pool(4);
        let (mut first, second) = (pool.take().unwrap(), pool.take().unwrap());
        first.copy_from(b"old").unwrap();
        let chunk = first.chunk();
        pool.put(second);
        pool.put(first);
        let again = pool.take().unwrap();
        assert_eq!(again.chunk(), chunk);
        assert_eq!((again.len(), again.headroom()), (0, 256));
    }

    #[test]
    fn an_empty_pool_gives_nothing_and_the_books_balance() {
        let mut pool = pool(3);
        let taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((taken.len(), pool.available(), pool.lent()), (3, 0, 3));
        assert_eq!(pool.missing(taken.len()), 0);
        let mut taken = taken.into_iter();
        pool.put(taken.next().unwrap());
        let _dropped = taken.next();
        // One in hand, one dropped by mistake.
        assert_eq!((pool.total(), pool.lent(), pool.missing(1)), (3, 2, 1));
    }

    #[test]
    fn many_go_and_come_as_one_by_one() {
        let large = Some(LargeFrames { count: 1, chunks: 5 });
        let config = RegionConfig { frames: 4, chunk_size: 2048, large, hugepages: false };
        let mut pool = Region::new(config).unwrap().1;
        let mut taken = Vec::new();
        assert_eq!(pool.take_many(3, &mut taken), 3);
        assert_eq!(pool.take_many(3, &mut taken), 1);
        assert_eq!((taken.len(), pool.available_for(0)), (4, 0));
        taken.iter_mut().for_each(|frame| frame.copy_from(b"old").unwrap());
        pool.put_all(&mut taken);
        assert_eq!((taken.len(), pool.available_for(0)), (0, 4));
        pool.take_many(2, &mut taken);
        assert!(taken.iter().all(|frame| frame.is_empty() && frame.headroom() == 256));
        taken.push(pool.take_for(4000).unwrap());
        pool.put_all(&mut taken);
        assert_eq!((pool.available_for(0), pool.available_for(4000), pool.lent()), (4, 1, 0));
    }

    #[test]
    #[should_panic(expected = "a frame of another region")]
    fn many_with_one_of_another_region_are_not_taken_in() {
        let (mut one, mut two) = (pool(1), pool(1));
        one.put_all(&mut vec![two.take().unwrap()]);
    }

    #[test]
    #[should_panic(expected = "a frame of another region")]
    fn a_frame_of_another_region_is_not_taken_in() {
        let (mut one, mut two) = (pool(1), pool(1));
        one.put(two.take().unwrap());
    }

    #[test]
    fn each_frame_goes_back_to_its_kind_and_as_many_bytes_find_one_that_holds_them() {
        let large = Some(LargeFrames { count: 4, chunks: 5 });
        let config = RegionConfig { frames: 4, chunk_size: 2048, large, hugepages: false };
        let mut pool = Region::new(config).unwrap().1;
        assert_eq!((pool.total(), pool.available_for(1792), pool.available_for(1793)), (8, 4, 4));
        let longest = 5 * 2048 - 256;
        assert_eq!(pool.longest(), longest);
        assert!(pool.take_for(longest + 1).is_none());
        let mut taken: Vec<_> = [0, 1792, 1793, longest].map(|len| pool.take_for(len).unwrap()).into();
        assert_eq!((pool.available(), pool.available_for(0), pool.available_for(longest)), (4, 2, 2));
        assert!(!pool.is_low());
        taken.extend([1793, 1793].map(|len| pool.take_for(len).unwrap()));
        assert!(pool.is_low(), "there are small ones, and no large ones");
        assert!(pool.take_for(1793).is_none(), "no frame of the other kind takes its place");
        taken.into_iter().for_each(|frame| pool.put(frame));
        assert_eq!((pool.available_for(0), pool.available_for(longest), pool.lent()), (4, 4, 0));
    }
}
