//! How long changes took, in classes a tenth apart: what a share of them took at most.

use std::time::Duration;

/// The first class's end.
const SHORTEST: f64 = 1e-5;
/// Each class ends so much later than the one before.
const STEP: f64 = 1.1;
/// The last one begins after some twenty hours.
const CLASSES: usize = 240;

/// Counts by class.
#[derive(Debug)]
pub(crate) struct Delays {
    counts: [u64; CLASSES],
    longest: Duration,
}

impl Default for Delays {
    fn default() -> Delays {
        Delays { counts: [0; CLASSES], longest: Duration::ZERO }
    }
}

impl Delays {
    /// So many took so long.
    pub(crate) fn add(&mut self, delay: Duration, count: u64) {
        let class = (delay.as_secs_f64() / SHORTEST).log(STEP).ceil().max(0.0) as usize;
        self.counts[class.min(CLASSES - 1)] += count;
        self.longest = self.longest.max(delay);
    }

    /// The longest of all.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// What this share of them took at most, a tenth too much at worst; zero where there are none.
    pub(crate) fn within(&self, share: f64) -> Duration {
        let wanted = (self.counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut counted = 0;
        for (class, count) in self.counts.iter().enumerate() {
            counted += count;
            if counted >= wanted && counted > 0 {
                let end = SHORTEST * STEP.powi(i32::try_from(class).unwrap_or(i32::MAX));
                return Duration::from_secs_f64(end).min(self.longest);
            }
        }
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_delays_is_known_to_a_tenth() {
        let mut delays = Delays::default();
        assert_eq!(delays.within(0.99), Duration::ZERO);
        (1..=1000).for_each(|milliseconds| delays.add(Duration::from_millis(milliseconds), 1));
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let told = delays.within(share).as_secs_f64() * 1000.0;
            assert!((exact..=exact * STEP).contains(&told), "{share}: {told}");
        }
    }

    #[test]
    fn what_is_out_of_all_classes_is_counted_too() {
        let mut delays = Delays::default();
        delays.add(Duration::ZERO, 3);
        assert_eq!(delays.within(0.5), Duration::ZERO);
        delays.add(Duration::from_secs(1_000_000), 7);
        assert!(delays.within(0.5) > Duration::from_secs(50_000));
        assert_eq!(delays.longest(), Duration::from_secs(1_000_000));
    }
}
