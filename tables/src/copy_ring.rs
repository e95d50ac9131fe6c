//! A bounded ring of packet copies between two threads, without allocation after start-up.
//!
//! Buffers circulate: the producer takes an empty one, fills it and queues it; the consumer reads it and gives it
//! back. Frames themselves never cross threads, so each worker's frames stay its own.
//!
//! All buffers of a ring are parts of one piece of memory, which is zeroed, so that the kernel hands it out page by page as packets
//! come: most rings hold few at a time, and those between workers whose queues are the same on every port hold none ever. A page is
//! waited for once.

use std::sync::Arc;

use bytes::BytesMut;
use crossbeam_queue::ArrayQueue;

/// No empty buffer: the other side is behind. The packet was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is full")]
pub struct Full;

struct Slot<M> {
    meta: M,
    bytes: BytesMut,
}

struct Ring<M> {
    empty: ArrayQueue<BytesMut>,
    filled: ArrayQueue<Slot<M>>,
}

/// The side that queues packets.
pub struct RingProducer<M>(Arc<Ring<M>>);

/// The side that reads packets.
pub struct RingConsumer<M> {
    ring: Arc<Ring<M>>,
    /// The oldest packet, where its length was asked for.
    oldest: Option<Slot<M>>,
}

/// A ring of `slots` packets of at most `bytes_max` bytes each; longer ones are cut.
///
/// # Panics
/// Where `slots` is zero.
pub fn copy_ring<M>(slots: usize, bytes_max: usize) -> (RingProducer<M>, RingConsumer<M>) {
    let ring = Arc::new(Ring { empty: ArrayQueue::new(slots), filled: ArrayQueue::new(slots) });
    let mut memory = BytesMut::zeroed(slots * bytes_max);
    for _ in 0..slots {
        // There is room for as many.
        let _ = ring.empty.push(memory.split_to(bytes_max));
    }
    (RingProducer(Arc::clone(&ring)), RingConsumer { ring, oldest: None })
}

impl<M> RingProducer<M> {
    /// Queues a copy of the packet, cut to the buffer's size.
    pub fn push(&mut self, meta: M, packet: &[u8]) -> Result<(), Full> {
        let mut bytes = self.0.empty.pop().ok_or(Full)?;
        let len = packet.len().min(bytes.capacity());
        // What fits needs no other memory.
        bytes.clear();
        bytes.extend_from_slice(&packet[..len]);
        // There are as many slots as buffers, so a buffer in hand means a free slot.
        self.0.filled.push(Slot { meta, bytes }).map_err(|_| Full)
    }
}

impl<M> RingConsumer<M> {
    /// Bytes of the oldest packet, which stays; `None` where the ring is empty.
    pub fn next_len(&mut self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        if self.oldest.is_none() {
            self.oldest = self.take();
        }
        self.oldest.as_ref().map(|slot| slot.bytes.len())
    }

    /// Hands the oldest packet to `read`; `None` where the ring is empty.
    pub fn pop<R>(&mut self, read: impl FnOnce(M, &[u8]) -> R) -> Option<R> {
        let Slot { meta, bytes } = self.oldest.take().or_else(|| self.take())?;
        let result = read(meta, &bytes);
        // Every buffer came from `empty`, which therefore has room for it.
        let _ = self.ring.empty.push(bytes);
        Some(result)
    }

    /// To look whether there is any takes two loads; to take one where there is none, a fence, which a worker would wait for
    /// some 90 clocks at each batch.
    fn take(&self) -> Option<Slot<M>> {
        if self.ring.filled.is_empty() { None } else { self.ring.filled.pop() }
    }

    /// Is there nothing to read?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.oldest.is_none() && self.ring.filled.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_in_order_and_a_full_ring_refuses() {
        let (mut producer, mut consumer) = copy_ring(2, 4);
        assert_eq!(producer.push(1, b"one"), Ok(()));
        assert_eq!(producer.push(2, b"longer than four"), Ok(()));
        assert_eq!(producer.push(3, b"no"), Err(Full));
        assert_eq!(consumer.pop(|meta, bytes| (meta, bytes.to_vec())), Some((1, b"one".to_vec())));
        assert_eq!(producer.push(3, b"yes"), Ok(()));
        assert_eq!(
            (consumer.next_len(), consumer.next_len(), consumer.is_empty()),
            (Some(4), Some(4), false)
        );
        assert_eq!(producer.push(4, b"no"), Err(Full), "whoever looked hasn't read");
        assert_eq!(consumer.pop(|meta, bytes| (meta, bytes.to_vec())), Some((2, b"long".to_vec())));
        assert_eq!(consumer.pop(|meta, bytes| (meta, bytes.to_vec())), Some((3, b"yes".to_vec())));
        assert!(consumer.is_empty());
        assert_eq!((consumer.pop(|meta: i32, _| meta), consumer.next_len()), (None, None));
    }

    /// Bytes that this process holds.
    fn resident() -> usize {
        let sizes = std::fs::read_to_string("/proc/self/statm").unwrap();
        sizes.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn a_ring_takes_memory_for_packets_that_came() {
        const BYTES: usize = 2_048;
        const SLOTS: usize = 1 << 17;
        let before = resident();
        let (mut producer, mut consumer) = copy_ring(SLOTS, BYTES);
        for number in 0..1_000u32 {
            assert_eq!(producer.push(number, &[1; BYTES]), Ok(()));
            assert_eq!(consumer.pop(|meta, bytes| (meta, bytes.len())), Some((number, BYTES)));
        }
        // Half of it is more than other tests take meanwhile.
        let taken = resident().saturating_sub(before);
        assert!(taken < SLOTS * BYTES / 2, "{taken} bytes");
        // A packet that doesn't fit is cut, not given other memory.
        assert_eq!(producer.push(0, &[1; BYTES + 1]), Ok(()));
        assert_eq!(consumer.pop(|_, bytes| bytes.len()), Some(BYTES));
    }

    #[test]
    fn nothing_is_lost_between_two_threads() {
        let (mut producer, mut consumer) = copy_ring(8, 8);
        let writer = std::thread::spawn(move || {
            for number in 0..10_000u64 {
                while producer.push(number, &number.to_be_bytes()).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        for expected in 0..10_000u64 {
            while consumer.is_empty() {
                std::thread::yield_now();
            }
            let (meta, bytes) = consumer.pop(|meta, bytes| (meta, bytes.to_vec())).unwrap();
            assert_eq!((meta, bytes.as_slice()), (expected, &expected.to_be_bytes()[..]));
        }
        writer.join().unwrap();
    }
}
