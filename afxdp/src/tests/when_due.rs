//! What a queue puts off, and for how long: rings in plain memory, no privilege.

use super::namespace::region;
use crate::abi::Descriptor;
use crate::testing::{self, Kernel};
use crate::{FramePool, Queue};

/// Refilled by eights, reaped by sixteens, woken for sixteen.
const SLOTS: u32 = 64;

fn receive(queue: &mut Queue, kernel: &mut Kernel, pool: &mut FramePool, count: u32) {
    assert_eq!(kernel.fill.available(count), count);
    assert_eq!(kernel.rx.free(count), count);
    for _ in 0..count {
        let addr = kernel.fill.read() + 256;
        kernel.rx.write(Descriptor { addr, len: 64, options: 0 });
    }
    kernel.fill.release();
    kernel.rx.submit();
    let mut frames = Vec::new();
    assert_eq!(queue.receive(pool, &mut frames, 64), count as usize);
    frames.into_iter().for_each(|frame| pool.put(frame));
}

fn send(queue: &mut Queue, pool: &mut FramePool, count: usize) {
    let mut frames = Vec::new();
    for _ in 0..count {
        let mut frame = pool.take().unwrap();
        frame.copy_from(&[0; 64]).unwrap();
        frames.push(frame);
    }
    assert_eq!(queue.transmit(&mut frames), count);
}

fn complete(kernel: &mut Kernel) {
    let sent = kernel.tx.available(SLOTS);
    assert_eq!(kernel.completion.free(sent), sent);
    for _ in 0..sent {
        let addr = kernel.tx.read().addr;
        kernel.completion.write(addr);
    }
    kernel.tx.release();
    kernel.completion.submit();
}

#[test]
fn the_fill_ring_is_topped_up_by_steps() {
    let (region, mut pool) = region(512);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    queue.refill_when_due(&mut pool);
    assert_eq!(queue.outstanding().receive, 64, "the first time at once");
    receive(&mut queue, &mut kernel, &mut pool, 7);
    queue.refill_when_due(&mut pool);
    assert_eq!(queue.outstanding().receive, 57, "not for seven");
    receive(&mut queue, &mut kernel, &mut pool, 1);
    queue.refill_when_due(&mut pool);
    assert_eq!(queue.outstanding().receive, 64);
}

#[test]
fn a_fill_ring_that_an_empty_pool_left_short_is_topped_up_as_soon_as_there_are_frames() {
    let (region, mut pool) = region(64);
    let (mut queue, _kernel) = testing::queue(region, SLOTS);
    let kept = pool.take().unwrap();
    queue.refill_when_due(&mut pool);
    assert_eq!(queue.outstanding().receive, 63);
    pool.put(kept);
    queue.refill_when_due(&mut pool);
    assert_eq!(queue.outstanding().receive, 64);
}

#[test]
fn completions_are_taken_by_steps_unless_frames_are_few() {
    let (region, mut pool) = region(128);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    send(&mut queue, &mut pool, 15);
    complete(&mut kernel);
    queue.reap_when_due(&mut pool);
    assert_eq!(queue.outstanding().transmit, 15, "not for fifteen");
    send(&mut queue, &mut pool, 1);
    queue.reap_when_due(&mut pool);
    assert_eq!(queue.outstanding().transmit, 1, "what isn't completed yet");
    complete(&mut kernel);
    let held: Vec<_> =
        std::iter::from_fn(|| (pool.available() > 31).then(|| pool.take())).flatten().collect();
    queue.reap_when_due(&mut pool);
    assert_eq!(queue.outstanding().transmit, 0, "three quarters of the frames are in use");
    held.into_iter().for_each(|frame| pool.put(frame));
    assert_eq!(pool.available(), pool.total());
}

#[test]
fn a_wake_up_waits_for_company_but_not_for_ever() {
    let (region, mut pool) = region(128);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    // The socket is none, so that each system call fails and can be told.
    assert!(queue.wake_when_due().is_ok(), "nothing waits");
    for _ in 0..2 {
        send(&mut queue, &mut pool, 1);
        let calls = (1..).find(|_| queue.wake_when_due().is_err());
        assert_eq!(calls, Some(8), "one frame");
        complete(&mut kernel);
        // What is sent and hasn't been taken back waits for nothing.
        for _ in 0..3 {
            assert!(queue.wake_when_due().is_ok());
        }
    }
    send(&mut queue, &mut pool, 16);
    assert!(queue.wake_when_due().is_err(), "sixteen frames are enough");
    assert_eq!(queue.counters().wakeups, 3);
}

#[test]
fn a_frame_that_nothing_could_go_with_goes_at_once() {
    let (region, mut pool) = region(128);
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    assert!(queue.wake_waiting().is_ok(), "nothing waits");
    send(&mut queue, &mut pool, 1);
    assert!(queue.wake_waiting().is_err());
    complete(&mut kernel);
    assert!(queue.wake_waiting().is_ok(), "it is sent");
    assert_eq!(queue.counters().wakeups, 1);
}
