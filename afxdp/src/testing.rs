//! Rings in plain memory: both ends in this process, no kernel, no privilege. And a queue over such rings, whose
//! kernel is played by the test.

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::abi::{Descriptor, Plain};
use crate::queue::Queue;
use crate::region::Region;
use crate::report::{Mode, QueueConfig};
use crate::ring::{Consumer, Producer, Ring, RingMemory};
use crate::socket::{RingSizes, Rings, Socket};
use crate::umem::Kind;

/// The memory of one plain ring. Slots are kept as pairs of `u64`: room and alignment for any descriptor.
#[derive(Debug)]
pub(crate) struct PlainRing {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    slots: Box<[UnsafeCell<[u64; 2]>]>,
}

// SAFETY: the slots are reached only through the two faces of a ring, which never own the same slot at once.
unsafe impl Sync for PlainRing {}

/// Both ends of a ring of `size` slots whose indices begin at `first`.
pub(crate) fn ring<T: Plain>(size: u32, first: u32) -> (Producer<T>, Consumer<T>) {
    assert!(size_of::<T>() <= 16 && align_of::<T>() <= 8);
    let memory = Arc::new(PlainRing {
        producer: AtomicU32::new(first),
        consumer: AtomicU32::new(first),
        flags: AtomicU32::new(0),
        slots: (0..size).map(|_| UnsafeCell::new([0; 2])).collect(),
    });
    (Producer::new(one_end(&memory, size)), Consumer::new(one_end(&memory, size)))
}

fn one_end<T: Plain>(memory: &Arc<PlainRing>, size: u32) -> Ring<T> {
    // SAFETY: the pointers lead into `memory`, which the ring keeps alive; the slots have room for `size` values of at
    // most 16 bytes; the callers make one producer and one consumer.
    unsafe {
        Ring::new(
            NonNull::from(&memory.producer),
            NonNull::from(&memory.consumer),
            NonNull::from(&memory.flags),
            NonNull::from(&*memory.slots).cast(),
            size,
            RingMemory::Plain(Arc::clone(memory)),
        )
    }
}

/// The kernel's ends of a queue's rings.
pub(crate) struct Kernel {
    pub(crate) rx: Producer<Descriptor>,
    pub(crate) tx: Consumer<Descriptor>,
    pub(crate) fill: Consumer<u64>,
    pub(crate) completion: Producer<u64>,
}

/// A queue whose four rings have `size` slots, and the kernel it believes to talk to. Its socket is none. It takes packets in
/// pieces where the region has large frames.
pub(crate) fn queue(region: Region, size: u32) -> (Queue, Kernel) {
    let kind = Kind { mode: Mode::Copy, in_pieces: region.large_frames() > 0 };
    queue_of(kind, region, size)
}

/// As [`queue`], of a kind that needn't suit the region.
pub(crate) fn queue_of(kind: Kind, region: Region, size: u32) -> (Queue, Kernel) {
    let (rx, our_rx) = ring(size, 0);
    let (our_tx, tx) = ring(size, u32::MAX);
    let (our_fill, fill) = ring(size, u32::MAX - size);
    let (completion, our_completion) = ring(size, 7);
    let rings = Rings { rx: our_rx, tx: our_tx, fill: our_fill, completion: our_completion };
    let mut config = QueueConfig::new(0, 0);
    config.rings = RingSizes { rx: size, tx: size, fill: size, completion: size };
    config.need_wakeup = false;
    let borrower = region.new_borrower().expect("a fresh region has numbers");
    let socket = Arc::new(Socket::stand_in());
    let queue = Queue::new(region, borrower, socket, rings, kind, config);
    (queue, Kernel { rx, tx, fill, completion })
}
