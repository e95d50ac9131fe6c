//! A single-producer, single-consumer ring shared with the kernel: one ring, two thin faces.
//!
//! ```text
//!            consumer                producer
//!               |                       |
//!   [ free ][ written, not yet read    ][ free ]      indices run on for ever and wrap at 2^32;
//!                                                     the slot of an index is `index & (size - 1)`
//! ```
//! The producer owns the slots from `producer` round to `consumer`, the consumer the others. Each side publishes its
//! own index with a release store and reads the other's with an acquire load, once per batch
//! (Documentation/networking/af_xdp.rst; net/xdp/xsk_queue.h describes the barriers of the kernel's side).

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::abi::{self, Plain, RingOffset};
use crate::mmap::RingMapping;

/// What keeps a ring's memory alive.
#[derive(Debug)]
#[allow(dead_code, reason = "held, never read: dropping it unmaps the ring")]
pub(crate) enum RingMemory {
    Kernel(RingMapping),
    #[cfg(test)]
    Plain(std::sync::Arc<crate::testing::PlainRing>),
}

/// The ring as both faces see it.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    size: u32,
    _memory: RingMemory,
}

// SAFETY: the pointers lead into `_memory`, which the ring keeps alive and which is not bound to a thread; what is
// behind them is either atomic or, for slots, owned by one face at a time.
unsafe impl<T: Plain + Send> Send for Ring<T> {}

impl<T: Plain> Ring<T> {
    /// The ring in a kernel mapping; `None` if the offsets don't fit the mapping (a kernel we don't understand).
    pub(crate) fn in_mapping(mapping: RingMapping, offset: RingOffset, size: u32) -> Option<Self> {
        let fits = |start: u64, bytes: usize, align: usize| {
            let start = usize::try_from(start).ok()?;
            (start.checked_add(bytes)? <= mapping.len() && start.is_multiple_of(align)).then_some(start)
        };
        let producer = fits(offset.producer, 4, 4)?;
        let consumer = fits(offset.consumer, 4, 4)?;
        let flags = fits(offset.flags, 4, 4)?;
        let slots = fits(offset.desc, size as usize * size_of::<T>(), align_of::<T>())?;
        let start = mapping.start();
        // SAFETY: `fits` has just shown that each offset lies in the mapping with room for what it points at.
        let at = |offset: usize| unsafe { start.add(offset) };
        // SAFETY: in the mapping, aligned (mappings begin on a page), and mapped as long as `_memory` lives.
        Some(unsafe {
            Self::new(
                at(producer).cast(),
                at(consumer).cast(),
                at(flags).cast(),
                at(slots).cast(),
                size,
                RingMemory::Kernel(mapping),
            )
        })
    }

    /// # Safety
    /// The pointers are aligned and valid as long as `memory` lives, `slots` for `size` values; whoever else uses them
    /// keeps to the protocol above. `size` is a power of two.
    pub(crate) unsafe fn new(
        producer: NonNull<AtomicU32>,
        consumer: NonNull<AtomicU32>,
        flags: NonNull<AtomicU32>,
        slots: NonNull<T>,
        size: u32,
        memory: RingMemory,
    ) -> Self {
        debug_assert!(size.is_power_of_two());
        Self { producer, consumer, flags, slots, size, _memory: memory }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid and aligned as long as `_memory` lives (`new`); only ever used atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as in `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & abi::XDP_RING_NEED_WAKEUP != 0
    }

    /// A pointer that is in bounds for every index.
    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: `size` is a power of two, so the masked index is below it, and `slots` has `size` values.
        unsafe { self.slots.add((index & (self.size - 1)) as usize) }
    }
}

/// The face that writes: fill and TX rings.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Ring<T>,
    /// Next index to write; published by `submit`.
    next: u32,
    /// The consumer's index as last read.
    consumer: u32,
}

impl<T: Plain> Producer<T> {
    pub(crate) fn new(ring: Ring<T>) -> Self {
        let next = ring.producer().load(Ordering::Relaxed);
        let consumer = ring.consumer().load(Ordering::Acquire);
        Self { ring, next, consumer }
    }

    /// Slots free to write, at most `wanted`. Looks at the consumer's index only when the last look isn't enough.
    pub(crate) fn free(&mut self, wanted: u32) -> u32 {
        if self.known_free() < wanted {
            self.consumer = self.ring.consumer().load(Ordering::Acquire);
        }
        self.known_free().min(wanted)
    }

    fn known_free(&self) -> u32 {
        // A peer's index beyond ours would be nonsense; then nothing is free.
        self.ring.size.saturating_sub(self.next.wrapping_sub(self.consumer))
    }

    /// Writes the next slot. The other side sees it after [`submit`](Self::submit).
    ///
    /// # Panics
    /// If no slot is known to be free; ask [`free`](Self::free) first.
    #[cfg(test)]
    pub(crate) fn write(&mut self, value: T) {
        assert!(self.known_free() > 0, "the ring is full");
        // SAFETY: in bounds (`slot`), and free, so the other side doesn't touch it until `submit`.
        unsafe { self.ring.slot(self.next).write(value) }
        self.next = self.next.wrapping_add(1);
    }

    /// Writes and publishes what `next` gives, at most `wanted` values and as many as are free. Returns how many.
    ///
    /// One look at the other side's index and one publication for all of them.
    pub(crate) fn extend(&mut self, wanted: u32, mut next: impl FnMut() -> Option<T>) -> u32 {
        let free = self.free(wanted);
        let mut written = 0;
        while written < free {
            let Some(value) = next() else { break };
            // SAFETY: in bounds (`slot`), and one of the `free` slots after `self.next`, which the other side doesn't
            // touch until they are published below.
            unsafe { self.ring.slot(self.next.wrapping_add(written)).write(value) }
            written += 1;
        }
        if written > 0 {
            self.next = self.next.wrapping_add(written);
            self.submit();
        }
        written
    }

    /// Publishes what was written.
    pub(crate) fn submit(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Published values that the other side hasn't taken yet.
    pub(crate) fn waiting(&mut self) -> u32 {
        self.consumer = self.ring.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(self.consumer)
    }

    /// The published values that the other side hasn't taken yet, oldest first. For taking a ring apart.
    pub(crate) fn untaken(&mut self) -> Vec<T> {
        let waiting = self.waiting().min(self.ring.size);
        (0..waiting)
            .map(|n| {
                // SAFETY: in bounds, written by us, and a consumer only reads.
                unsafe { self.ring.slot(self.consumer.wrapping_add(n)).read() }
            })
            .collect()
    }

    /// Whether the kernel sleeps until it is kicked.
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// The face that reads: RX and completion rings.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Ring<T>,
    /// Next index to read; published by `release`.
    next: u32,
    /// The producer's index as last read.
    producer: u32,
}

impl<T: Plain> Consumer<T> {
    pub(crate) fn new(ring: Ring<T>) -> Self {
        let next = ring.consumer().load(Ordering::Relaxed);
        let producer = ring.producer().load(Ordering::Acquire);
        Self { ring, next, producer }
    }

    /// Values ready to read, at most `wanted`. Looks at the producer's index only when the last look isn't enough.
    pub(crate) fn available(&mut self, wanted: u32) -> u32 {
        if self.known_available() < wanted {
            self.producer = self.ring.producer().load(Ordering::Acquire);
        }
        self.known_available().min(wanted)
    }

    fn known_available(&self) -> u32 {
        // More than a ring holds would be nonsense; never read a slot twice for it.
        self.producer.wrapping_sub(self.next).min(self.ring.size)
    }

    /// Reads the next value. The other side may reuse its slot after [`release`](Self::release).
    ///
    /// # Panics
    /// If no value is known to be there; ask [`available`](Self::available) first.
    #[cfg(test)]
    pub(crate) fn read(&mut self) -> T {
        assert!(self.known_available() > 0, "the ring is empty");
        // SAFETY: in bounds (`slot`), published by the other side before the index we acquired, and not released yet.
        let value = unsafe { self.ring.slot(self.next).read() };
        self.next = self.next.wrapping_add(1);
        value
    }

    /// Gives `each` the values that are there, at most `max`, and publishes that they may be overwritten. Returns how
    /// many.
    ///
    /// One look at the other side's index and one publication for all of them.
    pub(crate) fn drain(&mut self, max: u32, mut each: impl FnMut(T)) -> u32 {
        let available = self.available(max);
        for read in 0..available {
            // SAFETY: in bounds (`slot`), and one of the `available` slots after `self.next`, which the other side
            // published before the index we acquired and doesn't touch until they are released below.
            each(unsafe { self.ring.slot(self.next.wrapping_add(read)).read() });
        }
        if available > 0 {
            self.next = self.next.wrapping_add(available);
            self.release();
        }
        available
    }

    /// Publishes that what was read may be overwritten.
    pub(crate) fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use crate::testing;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u32),
        Submit,
        Extend(u32),
        Read(u32),
        Release,
        Drain(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u32..9).prop_map(Step::Write),
            Just(Step::Submit),
            (1u32..9).prop_map(Step::Extend),
            (1u32..9).prop_map(Step::Read),
            Just(Step::Release),
            (1u32..9).prop_map(Step::Drain),
        ]
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_queue_with_two_publications(
            size_log in 0u32..4,
            first in prop_oneof![Just(0u32), Just(u32::MAX - 3), any::<u32>()],
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let size = 1u32 << size_log;
            let (mut producer, mut consumer) = testing::ring::<u64>(size, first);
            // The model: written but not submitted, submitted but not read, read but not released.
            let mut written = VecDeque::new();
            let mut submitted = VecDeque::new();
            let mut unreleased = 0u32;
            let mut value = 0u64;
            for step in steps {
                match step {
                    Step::Write(wanted) => {
                        let used = written.len() as u32 + submitted.len() as u32 + unreleased;
                        let free = producer.free(wanted);
                        prop_assert_eq!(free, wanted.min(size - used));
                        for _ in 0..free {
                            producer.write(value);
                            written.push_back(value);
                            value += 1;
                        }
                    }
                    Step::Submit => {
                        producer.submit();
                        submitted.append(&mut written);
                    }
                    Step::Extend(wanted) => {
                        let free = size - (written.len() as u32 + submitted.len() as u32 + unreleased);
                        // One value fewer than was asked for, so that both ends of the batch are met.
                        let mut left = wanted - 1;
                        let extended = producer.extend(wanted, || {
                            left = left.checked_sub(1)?;
                            written.push_back(value);
                            value += 1;
                            Some(value - 1)
                        });
                        prop_assert_eq!(extended, free.min(wanted - 1));
                        if extended > 0 {
                            submitted.append(&mut written);
                        }
                    }
                    Step::Read(wanted) => {
                        let available = consumer.available(wanted);
                        prop_assert_eq!(available, wanted.min(submitted.len() as u32));
                        for _ in 0..available {
                            prop_assert_eq!(Some(consumer.read()), submitted.pop_front());
                            unreleased += 1;
                        }
                    }
                    Step::Release => {
                        consumer.release();
                        unreleased = 0;
                    }
                    Step::Drain(max) => {
                        let mut drained = Vec::new();
                        let count = consumer.drain(max, |value| drained.push(value));
                        let expected: Vec<u64> = submitted.drain(..submitted.len().min(max as usize)).collect();
                        prop_assert_eq!(count as usize, expected.len());
                        prop_assert_eq!(drained, expected);
                        if count > 0 {
                            unreleased = 0;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn two_threads_pass_every_value_once_and_in_order() {
        const COUNT: u64 = 200_000;
        let (mut producer, mut consumer) = testing::ring::<u64>(64, u32::MAX - 100);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut next = 0;
                while next < COUNT {
                    let free = producer.free(32).min((COUNT - next) as u32);
                    for _ in 0..free {
                        producer.write(next);
                        next += 1;
                    }
                    producer.submit();
                    if free == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < COUNT {
                let available = consumer.available(32);
                for _ in 0..available {
                    assert_eq!(consumer.read(), expected);
                    expected += 1;
                }
                consumer.release();
                if available == 0 {
                    std::thread::yield_now();
                }
            }
        });
    }

    #[test]
    fn what_the_other_side_has_not_taken_can_be_read_back() {
        let (mut producer, mut consumer) = testing::ring::<u64>(4, 0);
        assert_eq!(producer.free(3), 3);
        for value in 10..13 {
            producer.write(value);
        }
        producer.submit();
        assert_eq!(consumer.available(1), 1);
        consumer.read();
        consumer.release();
        assert_eq!(producer.waiting(), 2);
        assert_eq!(producer.untaken(), [11, 12]);
    }

    #[test]
    #[should_panic(expected = "the ring is full")]
    fn writing_into_a_full_ring_panics_rather_than_overwrite() {
        let (mut producer, _consumer) = testing::ring::<u64>(1, 0);
        producer.write(1);
        producer.write(2);
    }
}
