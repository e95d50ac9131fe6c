//! Stage 12: waiting frames into a queue's transmit ring.

use afxdp::FramePool;

use crate::queues::OwnedQueue;

/// What became of the frames that waited.
pub(crate) struct Sent {
    /// Taken by the ring.
    pub(crate) frames: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Not taken: the ring stayed full after one more round of completions.
    pub(crate) refused: u64,
}

/// Gives the frames that wait to the ring, once more after taking completions where it is full, and wakes the other
/// side. What the ring still doesn't take goes back to the pool.
pub(crate) fn waiting(owned: &mut OwnedQueue, pool: &mut FramePool) -> Sent {
    let offered: u64 = owned.waiting.iter().map(|frame| frame.len() as u64).sum();
    let mut frames = owned.queue.transmit(&mut owned.waiting);
    owned.queue.wake();
    if !owned.waiting.is_empty() {
        owned.queue.reap(pool);
        frames += owned.queue.transmit(&mut owned.waiting);
        owned.queue.wake();
    }
    let mut refused = 0;
    let mut refused_bytes = 0;
    for frame in owned.waiting.drain(..) {
        refused += 1;
        refused_bytes += frame.len() as u64;
        pool.put(frame);
    }
    Sent { frames: frames as u64, bytes: offered - refused_bytes, refused }
}
