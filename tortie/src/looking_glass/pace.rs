//! So many requests a second, and a few more at once.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A token bucket.
pub(super) struct Pace {
    a_second: f64,
    at_once: f64,
    left: Mutex<(f64, Option<Instant>)>,
}

impl Pace {
    pub(super) fn new(a_second: u32, at_once: u32) -> Pace {
        Pace { a_second: a_second.into(), at_once: at_once.into(), left: Mutex::new((at_once.into(), None)) }
    }

    /// May another one pass at this time?
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, last) = *left;
        let since = last.map_or(0.0, |last| now.saturating_duration_since(last).as_secs_f64());
        let tokens = (tokens + since * self.a_second).min(self.at_once);
        let passes = tokens >= 1.0;
        *left = (if passes { tokens - 1.0 } else { tokens }, Some(now));
        passes
    }
}

#[test]
fn what_comes_too_fast_waits_and_what_waits_passes() {
    let pace = Pace::new(10, 3);
    let start = Instant::now();
    let passed =
        |millis| (0..5).filter(|_| pace.take(start + std::time::Duration::from_millis(millis))).count();
    assert_eq!([0, 100, 350, 10_000].map(passed), [3, 1, 2, 3]);
}
