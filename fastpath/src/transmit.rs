//! Stage 14: waiting frames into a queue's transmit ring.

use afxdp::FramePool;

use crate::Batch;
use crate::queues::OwnedQueue;
use crate::tally::Tally;

/// What became of the frames that waited.
pub(crate) struct Sent {
    /// Taken by the ring.
    pub(crate) frames: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Not taken: the ring stayed full after one more round of completions.
    pub(crate) refused: u64,
}

/// Has the ring room to spare for the frames that wait? Where it hasn't, the other side is woken and asked once more.
#[inline]
pub(crate) fn has_room(owned: &mut OwnedQueue, pool: &mut FramePool) -> bool {
    let wanted = owned.waiting.len() + owned.fair_share.headroom();
    let has_room = owned.queue.transmit_room(wanted) >= wanted || {
        owned.queue.wake();
        owned.queue.reap(pool);
        owned.queue.transmit_room(wanted) >= wanted
    };
    if has_room {
        owned.fair_share.rest();
    }
    has_room
}

/// Drops the fragments that wait: nobody's share of a full ring goes to them.
#[cold]
pub(crate) fn drop_pieces(owned: &mut OwnedQueue, pool: &mut FramePool, tally: &mut Tally) {
    // From behind, so that the places of the others stay.
    for place in owned.pieces.drain(..).rev() {
        pool.put(owned.waiting.remove(place));
        tally.refused(1);
    }
}

/// Drops those frames whose port has had its share of a ring that is nearly full.
#[cold]
pub(crate) fn drop_unfair(owned: &mut OwnedQueue, batch: &Batch, pool: &mut FramePool, tally: &mut Tally) {
    drop_pieces(owned, pool, tally);
    let OwnedQueue { port, queue, waiting, gone, fair_share, .. } = owned;
    let room = queue.transmit_room(queue.transmit_slots());
    let shared = fair_share.share(batch, *port, room);
    let mut kept = 0;
    debug_assert_eq!(shared.rows().count(), *gone + waiting.len(), "every frame that waits is in the batch");
    for (place, row) in shared.rows().skip(*gone).take(waiting.len()).enumerate() {
        if fair_share.take(row) {
            waiting.swap(kept, place);
            kept += 1;
        } else {
            tally.dropped(shared.reason, fair_share.source(row));
        }
    }
    waiting.drain(kept..).for_each(|frame| pool.put(frame));
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
