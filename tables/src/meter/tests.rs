use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;

const BEGIN: u64 = 5_000_000_000;

fn at(nanos_later: u64) -> MeterTime {
    MeterTime::from_nanos(BEGIN + nanos_later)
}

/// Bits that pass of so many packets of one size, one every `gap` nanoseconds.
fn bits_passed(meter: &Meter, size: u32, gap: u64, packets: u64) -> u64 {
    (0..packets).filter(|n| meter.draw(at(n * gap), &[size], 1) == 1).count() as u64 * u64::from(size) * 8
}

#[test]
fn a_full_bucket_passes_its_depth_at_once_and_then_its_rate() {
    let meter = Meter::new(Allowance::Packets { rate: 1_000, depth: 5 });
    assert_eq!(meter.draw(at(0), &[100; 8], 0xff), 0b1_1111);
    assert_eq!(meter.draw(at(999_999), &[100], 1), 0);
    assert_eq!(meter.draw(at(1_000_000), &[100; 2], 0b11), 0b01);
    assert_eq!(meter.draw(at(60_000_000_000), &[100; 8], 0xff), 0b1_1111, "no more than full, however long");
}

#[test]
fn a_packet_too_large_for_what_is_left_leaves_it_to_a_smaller_one() {
    let meter = Meter::new(Allowance::Bits { rate: 1_000_000, depth: 8 * 1_000 });
    assert_eq!(meter.draw(at(0), &[900, 200, 90], 0b111), 0b101);
}

#[test]
fn only_rows_that_are_asked_for_cost_anything() {
    let meter = Meter::new(Allowance::Packets { rate: 1, depth: 2 });
    assert_eq!(meter.draw(at(0), &[1; 64], 1 << 63 | 1 << 5), 1 << 63 | 1 << 5);
    assert_eq!(meter.draw(at(0), &[1; 64], 1), 0);
}

#[test]
fn what_is_given_back_can_be_drawn_again() {
    let meter = Meter::new(Allowance::Bits { rate: 8_000, depth: 8 * 3_000 });
    assert_eq!(meter.draw(at(0), &[1_000, 2_000], 0b11), 0b11);
    assert_eq!(meter.draw(at(0), &[1], 1), 0);
    meter.give_back(&[1_000, 2_000], 0b10);
    assert_eq!(meter.draw(at(0), &[2_000, 1], 0b11), 0b01);
}

#[test]
fn a_changed_allowance_is_no_new_burst_and_no_debt() {
    let slow = Meter::new(Allowance::Bits { rate: 1_000_000, depth: 8_000_000 });
    assert_eq!(slow.draw(at(0), &[500_000; 2], 0b11), 0b11);
    // Nothing is left, and at ten times the rate 1 Mbit is back after 0.1 s.
    let fast = Meter::following(Allowance::Bits { rate: 10_000_000, depth: 8_000_000 }, &slow);
    assert_eq!(fast.draw(at(99_000_000), &[125_000], 1), 0);
    assert_eq!(fast.draw(at(100_100_000), &[125_000], 1), 1);
    let shallow = Meter::following(Allowance::Bits { rate: 1_000_000, depth: 8_000 }, &fast);
    assert_eq!(shallow.draw(at(108_200_000), &[1_000], 1), 1, "no more is missing than the bucket holds");
    let untouched =
        Meter::following(Allowance::Packets { rate: 1, depth: 3 }, &Meter::new(shallow.allowance()));
    assert_eq!(untouched.draw(at(0), &[1; 3], 0b111), 0b111);
}

#[test]
fn the_extremes_of_calicos_ranges_fit() {
    let slowest = Meter::new(Allowance::Bits { rate: 1_000, depth: 34_359_738_360 });
    assert_eq!(slowest.draw(at(0), &[u32::MAX, 1], 0b11), 0b01, "the largest burst is 4 GiB");
    let petabit = Meter::new(Allowance::Bits { rate: 1_000_000_000_000_000, depth: 12_112 });
    assert_eq!(petabit.draw(at(0), &[1_514], 0b1), 0b01);
    assert_eq!(petabit.draw(at(1), &[1_514], 1), 1);
    let once_a_second = Meter::new(Allowance::Packets { rate: 1, depth: 1 });
    assert_eq!(once_a_second.draw(at(0), &[1; 2], 0b11), 0b01);
    assert_eq!(once_a_second.draw(at(1_000_000_001), &[1; 2], 0b11), 0b01);
}

#[test]
fn all_threads_together_pass_what_one_would() {
    const THREADS: u64 = 4;
    const DRAWS: u64 = 20_000;
    let meter = Meter::new(Allowance::Bits { rate: 1_000_000_000, depth: 800_000 });
    let start = Barrier::new(THREADS as usize);
    let passed: u64 = thread::scope(|scope| {
        let draw = || {
            start.wait();
            // Everybody's clock passes the same 20 ms; four times as much is asked for as the rate brings.
            let bytes = (0..DRAWS).map(|n| meter.draw(at(n * 1_000), &[125; 2], 0b11).count_ones() * 125);
            bytes.map(u64::from).sum::<u64>() * 8
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(draw)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // 20 ms at 1 Gbit/s and the depth, less what a thread whose clock is behind could not have, never more.
    let most = 20_000_000 + 800_000;
    assert!(passed <= most, "{passed} of {most} bits");
    assert!(passed > most / 2, "{passed} of {most} bits");
}

proptest! {
    /// Against the definition: tokens in a bucket, in exact fractions.
    #[test]
    fn a_meter_is_a_token_bucket(
        rate in 1_000u64..10_000_000_000,
        depth in 12_112u64..10_000_000,
        steps in prop::collection::vec((0u64..200_000, 60u32..1514), 1..200),
    ) {
        let meter = Meter::new(Allowance::Bits { rate, depth });
        // In units of 1 / (bits × nanoseconds), which makes the rate whole.
        const UNIT: u128 = 1_000_000_000;
        let full = u128::from(depth) * UNIT;
        // What rounding up to 1/64 ns costs at most, a packet.
        let slack = u128::from(rate) / 16 + 1;
        let (mut most, mut time) = (full, 0);
        for (n, (gap, size)) in steps.into_iter().enumerate() {
            time += gap;
            most = (most + u128::from(gap) * u128::from(rate)).min(full);
            let cost = u128::from(size) * 8 * UNIT;
            if meter.draw(at(time), &[size], 1) == 1 {
                prop_assert!(cost <= most + slack, "{} of {most} at {n}", cost);
                most = most.saturating_sub(cost);
            } else {
                prop_assert!(cost + slack * (n as u128 + 2) > most, "{} of {most} at {n}", cost);
            }
        }
    }

    #[test]
    fn in_the_long_run_the_rate_is_kept_to(rate in 1_000_000u64..10_000_000_000, size in 60u32..1514) {
        let meter = Meter::new(Allowance::Bits { rate, depth: 121_120 });
        // Twice as many bits as the rate allows.
        let gap = u64::from(size) * 8 * 500_000_000 / rate + 1;
        let packets = 20_000;
        let passed = bits_passed(&meter, size, gap, packets);
        let allowed = u128::from(rate) * u128::from(gap * packets) / 1_000_000_000 + 121_120;
        prop_assert!(u128::from(passed) <= allowed + 1, "{passed} of {allowed}");
        prop_assert!(u128::from(passed) * 100 >= allowed.min(u128::from(packets * u64::from(size) * 8)) * 95, "{passed} of {allowed}");
    }
}
