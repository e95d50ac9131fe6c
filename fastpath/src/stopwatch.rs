//! Where a worker's time goes: now and then, one batch is timed stage by stage.

use quanta::Clock;
use tables::{MeterTime, Stage, StageSample};

/// One batch in so many is timed: reading the time-stamp counter takes some 20 clocks, a dozen times a batch.
const SAMPLED: u32 = 64;

/// A worker's stopwatch.
pub(crate) struct Stopwatch {
    clock: Clock,
    one_in: u32,
    batches_to_go: u32,
    running: bool,
    last: u64,
    sample: StageSample,
}

impl Stopwatch {
    pub(crate) fn new() -> Stopwatch {
        Stopwatch {
            clock: Clock::new(),
            one_in: SAMPLED,
            batches_to_go: SAMPLED,
            running: false,
            last: 0,
            sample: StageSample::default(),
        }
    }

    /// Goes by another clock from now on.
    pub(crate) fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// What the time is, for meters. The time-stamp counter is the same on all cores, and so is what it is scaled by.
    #[inline]
    pub(crate) fn meter_time(&self) -> MeterTime {
        MeterTime::from_nanos(self.clock.delta_as_nanos(0, self.clock.raw()))
    }

    /// Times one batch in `one_in`, which is not zero, from now on.
    pub(crate) fn set_one_in(&mut self, one_in: u32) {
        (self.one_in, self.batches_to_go) = (one_in, one_in);
    }

    /// A round begins. Whether its batch is timed is decided here, and said.
    #[inline]
    pub(crate) fn begin(&mut self) -> bool {
        self.running = self.batches_to_go == 1;
        if self.running {
            self.last = self.clock.raw();
        }
        self.running
    }

    /// A stage is over.
    #[inline]
    pub(crate) fn lap(&mut self, stage: Stage) {
        if self.running {
            let now = self.clock.raw();
            self.sample.ticks[stage.index()] += now.saturating_sub(self.last);
            self.last = now;
        }
    }

    /// A round with packets is over; what was measured, where its batch was timed. A round without packets doesn't count,
    /// and what was timed of it is forgotten.
    #[inline]
    pub(crate) fn end(&mut self, packets: usize) -> Option<StageSample> {
        if packets == 0 {
            if self.running {
                self.sample = StageSample::default();
            }
            return None;
        }
        self.batches_to_go -= 1;
        if !self.running {
            return None;
        }
        self.batches_to_go = self.one_in;
        Some(StageSample { batches: 1, packets: packets as u64, ..std::mem::take(&mut self.sample) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_in_so_many_is_timed_and_empty_rounds_do_not_count() {
        let mut stopwatch = Stopwatch::new();
        stopwatch.set_one_in(3);
        let mut samples = Vec::new();
        for packets in [1, 0, 1, 0, 1, 0, 1, 1, 5] {
            stopwatch.begin();
            stopwatch.lap(Stage::Route);
            samples.extend(stopwatch.end(packets).map(|sample| (sample.batches, sample.packets)));
        }
        assert_eq!(samples, [(1, 1), (1, 5)]);
    }
}
