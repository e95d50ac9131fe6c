//! Timers that do not beat in step (RFC 4271 §10).

use std::time::Duration;

/// Shortens intervals to 75–100 %, the same way for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// The interval less up to a quarter of it.
    pub(crate) fn shorten(&mut self, interval: Duration) -> Duration {
        let quarter = (interval / 4).as_nanos().min(u128::from(u64::MAX)) as u64;
        interval - Duration::from_nanos(self.draw() % (quarter + 1))
    }

    /// Any number.
    pub(crate) fn draw(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_loses_at_most_a_quarter() {
        let mut jitter = Jitter::new(1);
        let interval = Duration::from_secs(30);
        for _ in 0..1000 {
            let shortened = jitter.shorten(interval);
            assert!(shortened <= interval && shortened >= interval * 3 / 4);
        }
        assert_eq!(jitter.shorten(Duration::ZERO), Duration::ZERO);
    }
}
