//! A queue against a kernel that says anything at all: rings in plain memory, no privilege.
//!
//! Whatever comes back, no chunk gets a second owner and the books balance.

use std::collections::HashSet;

use proptest::prelude::*;

use super::namespace::{large_region, region};
use crate::abi::Descriptor;
use crate::testing::{self, Kernel};
use crate::umem::Kind;
use crate::{Frame, FramePool, Mode, Queue, Region};

const FRAMES: u32 = 24;
const LARGE: u32 = 3;
const SLOTS: u32 = 8;

/// What the kernel does next.
#[derive(Clone, Debug)]
enum Deed {
    /// Takes from the fill ring and returns a frame, or a piece of one, as it should.
    Receive { len: u32, options: u32 },
    /// Takes from the TX ring and completes, as it should.
    Complete,
    /// Returns an RX descriptor of its own invention.
    InventReceived(Descriptor),
    /// Completes an address of its own invention.
    InventCompletion(u64),
    /// Returns the last good descriptor again.
    RepeatReceived,
    /// Completes the last good address again.
    RepeatCompletion,
}

/// Mostly addresses near the region, where the mistakes are interesting.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![9 => 0..u64::from(FRAMES + 3 * LARGE + 2) * 4096, 1 => any::<u64>()]
}

fn deed() -> impl Strategy<Value = Deed> {
    let descriptor = (address(), prop_oneof![0u32..4000, any::<u32>()], 0u32..2)
        .prop_map(|(addr, len, options)| Descriptor { addr, len, options });
    prop_oneof![
        4 => (0u32..1792, 0u32..2).prop_map(|(len, options)| Deed::Receive { len, options }),
        4 => Just(Deed::Complete),
        2 => descriptor.prop_map(Deed::InventReceived),
        2 => address().prop_map(Deed::InventCompletion),
        1 => Just(Deed::RepeatReceived),
        1 => Just(Deed::RepeatCompletion),
    ]
}

#[derive(Default)]
struct Memory {
    received: Descriptor,
    completed: u64,
}

fn act(kernel: &mut Kernel, deed: &Deed, memory: &mut Memory) {
    let received = match deed {
        Deed::Receive { len, options } if kernel.fill.available(1) == 1 => {
            let addr = kernel.fill.read() / 2048 * 2048 + 256;
            kernel.fill.release();
            memory.received = Descriptor { addr, len: *len, options: *options };
            Some(memory.received)
        }
        Deed::InventReceived(descriptor) => Some(*descriptor),
        Deed::RepeatReceived => Some(memory.received),
        _ => None,
    };
    let completed = match deed {
        Deed::Complete if kernel.tx.available(1) == 1 => {
            memory.completed = kernel.tx.read().addr;
            kernel.tx.release();
            Some(memory.completed)
        }
        Deed::InventCompletion(address) => Some(*address),
        Deed::RepeatCompletion => Some(memory.completed),
        _ => None,
    };
    // A kernel without room drops; the frame then stays lent, which the books show.
    if let Some(descriptor) = received
        && kernel.rx.free(1) == 1
    {
        kernel.rx.write(descriptor);
        kernel.rx.submit();
    }
    if let Some(address) = completed
        && kernel.completion.free(1) == 1
    {
        kernel.completion.write(address);
        kernel.completion.submit();
    }
}

/// Every chunk is somewhere once.
fn check(queue: &Queue, pool: &mut FramePool, held: &[Frame]) {
    assert_eq!(pool.total(), pool.available() + held.len() + queue.outstanding().total());
    let mut free: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    free.extend(std::iter::from_fn(|| pool.take_large()));
    let chunks: HashSet<_> = free.iter().chain(held).map(Frame::chunk).collect();
    assert_eq!(chunks.len(), free.len() + held.len(), "two frames of one chunk");
    free.into_iter().rev().for_each(|frame| pool.put(frame));
}

/// Plays a kernel of these deeds to a queue over the region.
fn suffer(deeds: &[Deed], (region, mut pool): (Region, FramePool)) {
    let sizes = [1, 3].map(|chunks| (chunks * region.chunk_size()) as usize);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    let (mut memory, mut held) = (Memory::default(), Vec::new());
    for deed in deeds {
        queue.refill(&mut pool);
        act(&mut kernel, deed, &mut memory);
        queue.receive(&mut pool, &mut held, 4);
        for frame in &held {
            assert!(sizes.contains(&(frame.headroom() + frame.len() + frame.tailroom())));
        }
        queue.transmit(&mut held);
        queue.reap(&mut pool);
        check(&queue, &mut pool, &held);
    }
}

proptest! {
    #[test]
    fn whatever_the_kernel_returns_no_chunk_gets_two_owners(deeds in proptest::collection::vec(deed(), 1..120)) {
        suffer(&deeds, region(FRAMES));
        suffer(&deeds, large_region(FRAMES, LARGE));
    }
}

fn received(
    queue: &mut Queue,
    pool: &mut FramePool,
    kernel: &mut Kernel,
    descriptor: Descriptor,
) -> Vec<Frame> {
    assert_eq!(kernel.rx.free(1), 1);
    kernel.rx.write(descriptor);
    kernel.rx.submit();
    let mut frames = Vec::new();
    queue.receive(pool, &mut frames, 8);
    frames
}

#[test]
fn each_kind_of_bad_descriptor_is_counted_and_makes_no_frame() {
    let (region, mut pool) = region(FRAMES);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    queue.refill(&mut pool);
    let never_lent = u64::from(SLOTS) * 2048 + 256;
    let outside = u64::from(FRAMES) * 2048;
    for addr in [never_lent, outside, u64::MAX] {
        let frames = received(&mut queue, &mut pool, &mut kernel, Descriptor { addr, len: 64, options: 0 });
        assert!(frames.is_empty(), "{addr:#x}");
    }
    assert_eq!(queue.counters().bad_receive_descriptors, 3);
    assert_eq!(queue.outstanding().receive, SLOTS as usize);
    // Good chunks with bad contents come back to us, though not as frames.
    for (addr, len, options) in [(256, 1793, 0), (2048 + 256, u32::MAX, 0), (4096 + 256, 64, 1)] {
        assert!(received(&mut queue, &mut pool, &mut kernel, Descriptor { addr, len, options }).is_empty());
    }
    assert_eq!(queue.counters().bad_receive_descriptors, 6);
    assert_eq!(
        (queue.outstanding().receive, pool.available()),
        (SLOTS as usize - 3, (FRAMES - SLOTS) as usize + 3)
    );
    let good = received(
        &mut queue,
        &mut pool,
        &mut kernel,
        Descriptor { addr: 3 * 2048 + 256, len: 1792, options: 0 },
    );
    assert_eq!((good.len(), good[0].len(), good[0].tailroom()), (1, 1792, 0));
    let again = received(
        &mut queue,
        &mut pool,
        &mut kernel,
        Descriptor { addr: 3 * 2048 + 256, len: 64, options: 0 },
    );
    assert!(again.is_empty(), "a chunk comes back once");
    check(&queue, &mut pool, &good);
}

/// Plays a kernel that delivers one packet of these pieces, in the chunks that it was given first.
fn in_pieces(queue: &mut Queue, pool: &mut FramePool, kernel: &mut Kernel, pieces: &[&[u8]]) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        assert_eq!(kernel.fill.available(1), 1);
        let addr = kernel.fill.read();
        kernel.fill.release();
        // What the kernel copies into the chunk, written before the queue looks.
        queue.write(addr, piece);
        let options = u32::from(number + 1 < pieces.len());
        frames.extend(received(queue, pool, kernel, Descriptor { addr, len: piece.len() as u32, options }));
        queue.refill(pool);
    }
    frames
}

#[test]
fn a_packet_in_pieces_becomes_one_frame_and_its_chunks_are_free_again() {
    let (region, mut pool) = large_region(FRAMES, LARGE);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    queue.refill(&mut pool);
    let packet: Vec<u8> = (0..9014u32).map(|at| (at % 251) as u8).collect();
    let mut frames = in_pieces(&mut queue, &mut pool, &mut kernel, &packet.chunks(3840).collect::<Vec<_>>());
    frames.extend(in_pieces(&mut queue, &mut pool, &mut kernel, &[&packet[..60]]));
    assert_eq!(frames.iter().map(Frame::bytes).collect::<Vec<_>>(), [&packet[..], &packet[..60]]);
    assert_eq!((frames[0].headroom(), frames[0].tailroom()), (256, 3 * 4096 - 256 - 9014));
    assert_eq!(queue.counters().received, 2);
    check(&queue, &mut pool, &frames);
    // And out again, each as many descriptors as chunks.
    assert_eq!(queue.transmit(&mut frames), 2);
    assert_eq!((kernel.tx.available(SLOTS), queue.outstanding().transmit), (4, 2));
    for _ in 0..4 {
        kernel.completion.write(kernel.tx.read().addr);
    }
    kernel.completion.submit();
    assert_eq!((queue.reap(&mut pool), queue.counters().bad_completions), (2, 0));
    check(&queue, &mut pool, &[]);
}

#[test]
fn a_packet_that_no_large_frame_holds_is_counted_and_the_next_one_is_whole() {
    let (region, mut pool) = large_region(FRAMES, LARGE);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    queue.refill(&mut pool);
    let piece: &[u8] = &[7; 3840];
    assert!(in_pieces(&mut queue, &mut pool, &mut kernel, &[piece; 4]).is_empty());
    assert_eq!((queue.counters().too_long, queue.counters().no_large_frame), (1, 0));
    let mut held = Vec::new();
    for _ in 0..LARGE {
        held.extend(in_pieces(&mut queue, &mut pool, &mut kernel, &[piece; 3]));
    }
    assert_eq!(held.len(), LARGE as usize);
    assert!(in_pieces(&mut queue, &mut pool, &mut kernel, &[piece; 2]).is_empty());
    assert_eq!((queue.counters().too_long, queue.counters().no_large_frame), (1, 1));
    assert_eq!(in_pieces(&mut queue, &mut pool, &mut kernel, &[piece]).len(), 1, "small ones need none");
    assert_eq!(queue.counters().bad_receive_descriptors, 0);
}

#[test]
fn of_large_frames_only_those_go_into_the_ring_that_fit_whole() {
    let (region, mut pool) = large_region(FRAMES, LARGE);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    let mut frames: Vec<Frame> = (0..LARGE)
        .map(|_| {
            let mut frame = pool.take_for(9014).unwrap();
            frame.set_len(9014).unwrap();
            frame
        })
        .collect();
    // Eight slots, three for each.
    assert_eq!(queue.transmit(&mut frames), 2);
    assert_eq!((frames.len(), kernel.tx.available(SLOTS)), (1, 6));
    check(&queue, &mut pool, &frames);
}

#[test]
fn a_queue_of_whole_packets_sends_no_part_of_a_larger_one() {
    let (region, mut pool) = large_region(FRAMES, LARGE);
    let kind = Kind { mode: Mode::ZeroCopy, in_pieces: false };
    let (mut queue, mut kernel) = testing::queue_of(kind, region, SLOTS);
    let mut frames: Vec<Frame> = [60, 3840, 3841, 100]
        .map(|len| {
            // A large frame with little in it goes like any other.
            let mut frame = pool.take_for(if len == 100 { 9014 } else { len }).unwrap();
            frame.copy_from(&vec![1; len]).unwrap();
            frame
        })
        .into();
    assert_eq!(queue.transmit(&mut frames), 4);
    assert_eq!((queue.counters().too_long_to_send, queue.counters().transmitted), (1, 3));
    let sent: Vec<_> = (0..kernel.tx.available(SLOTS))
        .map(|_| kernel.tx.read())
        .map(|sent| (sent.len, sent.options))
        .collect();
    assert_eq!(sent, [(60, 0), (3840, 0), (100, 0)]);
    check(&queue, &mut pool, &[]);
}

#[test]
fn a_completion_of_what_was_never_sent_is_counted() {
    let (region, mut pool) = region(FRAMES);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    queue.refill(&mut pool);
    // In the fill ring, not in the TX ring.
    kernel.completion.write(256);
    kernel.completion.submit();
    assert_eq!(queue.reap(&mut pool), 0);
    assert_eq!(queue.counters().bad_completions, 1);
    check(&queue, &mut pool, &[]);
}

#[test]
fn a_descriptor_carries_the_frames_own_start_and_length() {
    let (region, mut pool) = region(FRAMES);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    let mut frame = pool.take().unwrap();
    frame.copy_from(&[1; 100]).unwrap();
    frame.grow_front(50).unwrap();
    queue.transmit(&mut vec![frame]);
    assert_eq!(kernel.tx.available(8), 1);
    assert_eq!(kernel.tx.read(), Descriptor { addr: 206, len: 150, options: 0 });
    // The kernel gives back the very address; the chunk is found from it.
    kernel.completion.write(206);
    kernel.completion.submit();
    assert_eq!(queue.reap(&mut pool), 1);
    assert_eq!(pool.available(), pool.total());
}

#[test]
fn an_empty_pool_fills_what_it_can() {
    let (region, mut pool) = region(3);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    assert_eq!(queue.refill(&mut pool), 3);
    assert_eq!(queue.refill(&mut pool), 0);
    assert_eq!(kernel.fill.available(8), 3);
}
