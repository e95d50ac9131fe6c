//! What a frame costs this room, over rings in plain memory: `cargo test --release -p afxdp -- --ignored --nocapture cost`.

use std::hint::black_box;
use std::time::Instant;

use super::namespace::{large_region, region};
use crate::abi::Descriptor;
use crate::{FramePool, Region, testing};

const BATCH: usize = 64;
const SLOTS: u32 = 2048;
const ROUNDS: u32 = 20_000;

#[test]
#[ignore = "a measurement: it asserts nothing of the time"]
fn a_frames_cost_from_fill_ring_to_pool() {
    measure("without large frames", region(8192));
    measure("beside large frames", large_region(8192, 64));
}

fn measure(what: &str, (region, mut pool): (Region, FramePool)) {
    let (mut queue, mut kernel) = testing::queue(region, SLOTS);
    let mut batch = Vec::with_capacity(BATCH);
    let mut spent = [0.0; 5];
    let mut best = [f64::MAX; 5];
    for round in 1..=ROUNDS {
        let start = Instant::now();
        queue.refill(&mut pool);
        spent[0] += start.elapsed().as_nanos() as f64;
        for _ in 0..kernel.fill.available(BATCH as u32) {
            let addr = kernel.fill.read() / 2048 * 2048 + 256;
            kernel.rx.free(1);
            kernel.rx.write(Descriptor { addr, len: 64, options: 0 });
        }
        kernel.fill.release();
        kernel.rx.submit();
        let start = Instant::now();
        queue.receive(&mut pool, &mut batch, BATCH);
        spent[1] += start.elapsed().as_nanos() as f64;
        black_box(&mut batch);
        let start = Instant::now();
        queue.transmit(&mut batch);
        spent[2] += start.elapsed().as_nanos() as f64;
        for _ in 0..kernel.tx.available(BATCH as u32) {
            let addr = kernel.tx.read().addr;
            kernel.completion.free(1);
            kernel.completion.write(addr);
        }
        kernel.tx.release();
        kernel.completion.submit();
        let start = Instant::now();
        queue.reap(&mut pool);
        spent[3] += start.elapsed().as_nanos() as f64;
        // What looking at the clock costs.
        let start = Instant::now();
        spent[4] += start.elapsed().as_nanos() as f64;
        // The quietest thousand rounds count: other work on the machine only ever adds.
        if round % 1000 == 0 {
            for (best, spent) in best.iter_mut().zip(&mut spent) {
                *best = best.min(*spent / 1000.0 / BATCH as f64);
                *spent = 0.0;
            }
        }
    }
    let [refill, receive, transmit, reap, _] = best.map(|spent| spent - best[4]);
    let sum = refill + receive + transmit + reap;
    println!(
        "{what}: refill {refill:.2}, receive {receive:.2}, transmit {transmit:.2}, reap {reap:.2}: {sum:.2} ns a frame"
    );
    assert_eq!(pool.missing(queue.outstanding().total()), 0);
}
