//! The free frames of one region, last in first out: the frame used last is the one still in the cache.

use crate::frame::Frame;

/// Free frames of one region. One owner, no locks.
///
/// The books: `total() == available() + lent()`, and what is lent is held by someone: queues
/// ([`Queue::outstanding`](crate::Queue::outstanding)), batches, rings between workers.
/// [`missing`](Self::missing) compares the two.
#[derive(Debug)]
pub struct FramePool {
    region: u16,
    total: usize,
    free: Vec<Frame>,
}

impl FramePool {
    pub(crate) fn new(region: u16, free: Vec<Frame>) -> Self {
        Self { region, total: free.len(), free }
    }

    /// An empty frame with [`HEADROOM`](crate::HEADROOM) in front, or `None` when all are lent.
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Gives a frame back; its bytes are forgotten.
    ///
    /// # Panics
    /// If the frame is of another region: a bug, which would slowly empty that region's pool.
    pub fn put(&mut self, mut frame: Frame) {
        assert_eq!(frame.region(), self.region, "a frame of another region in this pool");
        frame.reset();
        self.free.push(frame);
    }

    /// Free frames.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Frames the region was made with.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Frames taken and not given back.
    pub fn lent(&self) -> usize {
        self.total - self.free.len()
    }

    /// Frames that nobody admits to hold: lent, less what the holders count (`held`). Zero, or a leak.
    pub fn missing(&self, held: usize) -> usize {
        self.lent().saturating_sub(held)
    }
}

#[cfg(test)]
mod tests {
    use crate::region::{Region, RegionConfig};

    fn pool(frames: u32) -> super::FramePool {
        Region::new(RegionConfig { frames, chunk_size: 2048, hugepages: false }).unwrap().1
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
    #[should_panic(expected = "a frame of another region")]
    fn a_frame_of_another_region_is_not_taken_in() {
        let (mut one, mut two) = (pool(1), pool(1));
        one.put(two.take().unwrap());
    }
}
