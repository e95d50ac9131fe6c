//! Stage 1: frames from the receive rings, from the slow path and from other workers.

use afxdp::FramePool;
use model::PortId;
use tables::{Fate, Inject, RingConsumer};

use crate::Batch;
use crate::queues::Queues;
use crate::tally::Tally;

/// Fills the batch from the worker's queues, beginning with the queue in row `first`, so that a busy port can't
/// starve the others.
pub(crate) fn frames(batch: &mut Batch, queues: &mut Queues, first: usize, tally: &mut Tally) {
    for owned in queues.iter_from(first) {
        let before = batch.len();
        let room = batch.room();
        let received = owned.queue.receive(&mut batch.frames, room);
        if received == 0 {
            continue;
        }
        batch.admit_from(Some(owned.port), Fate::Undecided);
        tally.books.received += received as u64;
        let bytes: u64 = batch.frames[before..].iter().map(|frame| frame.len() as u64).sum();
        if let Some(count) = tally.port(owned.port) {
            count.received_packets += received as u64;
            count.received_bytes += bytes;
        }
    }
}

/// Takes packets that the slow path made: some to be routed, some to be sent as they are.
pub(crate) fn injected(
    batch: &mut Batch,
    inject: &mut RingConsumer<Inject>,
    pool: &mut FramePool,
    tally: &mut Tally,
) {
    while let Some(how) = copy_in(batch, inject, pool) {
        tally.books.injected += 1;
        let fate = match how {
            Inject::Transmit(port) => Fate::Forward(port),
            Inject::Walk => Fate::Undecided,
        };
        batch.admit_from(None, fate);
    }
}

/// Takes frames that other workers have walked and this one has the queue for.
pub(crate) fn handed_over(batch: &mut Batch, from: &mut [RingConsumer<PortId>], pool: &mut FramePool) {
    for ring in from {
        while let Some(port) = copy_in(batch, ring, pool) {
            batch.admit_from(None, Fate::Forward(port));
        }
    }
}

/// Copies one packet out of a ring into a frame of this worker's; what doesn't fit the batch or finds no free frame
/// stays in the ring.
fn copy_in<M>(batch: &mut Batch, ring: &mut RingConsumer<M>, pool: &mut FramePool) -> Option<M> {
    if batch.room() == 0 || ring.is_empty() {
        return None;
    }
    let mut frame = pool.take()?;
    let taken = ring.pop(|meta, bytes| (meta, frame.copy_from(bytes)));
    match taken {
        // The rings' buffers are no longer than a frame; see `limits.rs` of `tortie`.
        Some((meta, Ok(()))) => {
            batch.frames.push(frame);
            Some(meta)
        }
        Some((_, Err(_))) | None => {
            pool.put(frame);
            None
        }
    }
}
