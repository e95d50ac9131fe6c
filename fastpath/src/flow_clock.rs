//! The time that a worker notes flows by. Flows count it in eighths of a second, so a worker reads it between batches, when it
//! keeps house, and not for each.

use std::time::Duration;

use quanta::Clock;
use tables::{Flows, Ticks};

/// A worker's time.
pub(crate) struct FlowClock {
    now: Ticks,
    /// Another clock than the table's: what it showed when it was set, and the time then.
    set: Option<(Clock, u64, Ticks)>,
}

impl FlowClock {
    pub(crate) fn new(flows: &Flows) -> FlowClock {
        FlowClock { now: flows.now(), set: None }
    }

    /// Goes by this clock from now on.
    pub(crate) fn set(&mut self, clock: Clock) {
        let shown = clock.raw();
        self.set = Some((clock, shown, self.now));
    }

    /// Looks at the clock. `flows`: whose time it is.
    pub(crate) fn read(&mut self, flows: &Flows) {
        self.now = match &self.set {
            None => flows.now(),
            Some((clock, shown, then)) => {
                let since = Duration::from_nanos(clock.delta_as_nanos(*shown, clock.raw()));
                Ticks(then.0.saturating_add(Ticks::from(since).0))
            }
        };
    }

    /// The time when it was last read.
    #[inline(always)]
    pub(crate) fn now(&self) -> Ticks {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_goes_on_from_the_time_that_it_was() {
        let flows = Flows::new(1);
        let mut time = FlowClock::new(&flows);
        let before = time.now();
        let (clock, mock) = Clock::mock();
        mock.increment(Duration::from_secs(77));
        time.set(clock);
        time.read(&flows);
        assert_eq!(time.now(), before);
        mock.increment(Duration::from_secs(2));
        assert_eq!(time.now(), before, "nobody has looked");
        time.read(&flows);
        assert_eq!(time.now(), Ticks(before.0 + 2 * Ticks::PER_SECOND));
    }
}
