//! Stage 1: frames from the receive rings, from the slow path and from other workers.

use afxdp::FramePool;
use model::PortId;
use tables::{Fate, Inject, RingConsumer};

use crate::batch::{BATCH, Batch};
use crate::queues::{OwnedQueue, Queues};
use crate::tally::Tally;

/// Rows of a batch that other workers and the slow path can't take from the ports.
const FOR_PORTS: usize = BATCH / 2;

/// Fills the batch from the worker's queues, beginning with another one each time.
///
/// Each queue that had frames the last time may give an equal part of the batch; what others leave is shared out in the same
/// way. So where there are more frames than the worker can take, a busy port gets no more of it than another one.
pub(crate) fn frames(batch: &mut Batch, queues: &mut Queues, pool: &mut FramePool, tally: &mut Tally) {
    let mut giving = queues.giving.max(1);
    queues.giving = 0;
    let mut is_first_pass = true;
    while batch.room() > 0 && giving > 0 {
        let part = batch.room().div_ceil(giving);
        giving = 0;
        let mut gave = 0;
        for owned in queues.iter_from_first() {
            let room = batch.room().min(part);
            let received = from_queue(batch, owned, room, pool, tally);
            gave += usize::from(received > 0);
            // There may be more where so many came from.
            giving += usize::from(received == part);
        }
        if is_first_pass {
            (queues.giving, is_first_pass) = (gave, false);
        }
    }
    queues.next_is_first();
}

fn from_queue(
    batch: &mut Batch,
    owned: &mut OwnedQueue,
    room: usize,
    pool: &mut FramePool,
    tally: &mut Tally,
) -> usize {
    let before = batch.len();
    let received = owned.queue.receive(pool, &mut batch.frames, room);
    if received == 0 {
        return 0;
    }
    batch.admit_from(Some(owned.port), Fate::Undecided);
    let bytes: u64 = batch.frames[before..].iter().map(|frame| frame.len() as u64).sum();
    tally.received(owned.port, received as u64, bytes);
    received
}

/// Takes packets that the slow path made: some to be routed, some to be sent as they are. In most rounds there is none, so it is
/// called where there are.
#[inline(never)]
pub(crate) fn injected(
    batch: &mut Batch,
    inject: &mut RingConsumer<Inject>,
    pool: &mut FramePool,
    tally: &mut Tally,
) {
    while batch.room() > FOR_PORTS
        && let Some(how) = copy_in(batch, inject, pool)
    {
        tally.books.injected += 1;
        let fate = match how {
            Inject::Transmit(port) => Fate::Forward(port),
            Inject::Walk => Fate::Undecided,
            Inject::WalkAsIs => {
                batch.policy.untracked.insert(batch.frames.len() - 1);
                Fate::Undecided
            }
        };
        batch.admit_from(None, fate);
    }
}

/// Takes frames that other workers have walked and this one has the queue for. Called where there are any.
#[inline(never)]
pub(crate) fn handed_over(batch: &mut Batch, from: &mut [RingConsumer<PortId>], pool: &mut FramePool) {
    for ring in from {
        while batch.room() > FOR_PORTS
            && let Some(port) = copy_in(batch, ring, pool)
        {
            batch.admit_from(None, Fate::Forward(port));
        }
    }
}

/// Copies one packet out of a ring into a frame of this worker's; what doesn't fit the batch or finds no free frame
/// stays in the ring.
fn copy_in<M>(batch: &mut Batch, ring: &mut RingConsumer<M>, pool: &mut FramePool) -> Option<M> {
    let mut frame = pool.take_for(ring.next_len()?.min(pool.longest()))?;
    let taken = ring.pop(|meta, bytes| (meta, frame.copy_from(bytes)));
    match taken {
        Some((meta, Ok(()))) => {
            batch.frames.push(frame);
            Some(meta)
        }
        // Nothing longer is handed over or injected.
        Some((_, Err(_))) | None => {
            pool.put(frame);
            None
        }
    }
}
