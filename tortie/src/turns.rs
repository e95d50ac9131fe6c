//! Whose turn it is with something that serves one at a time, for a while.
//!
//! Who stops asking has gone: a terminal that was closed holds nobody up.

use std::time::{Duration, Instant};

/// Who hasn't asked for so long has gone.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// The turns, by number.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    number: u64,
    lasts: Option<Lasts>,
}

#[derive(Debug)]
struct Lasts {
    until: Instant,
    asked: Instant,
}

impl Turns {
    /// A new turn, which lasts so long at most; its number.
    ///
    /// # Errors
    /// It is somebody else's, so long at most.
    pub(crate) fn begin(&mut self, now: Instant, lasts: Duration) -> Result<u64, Duration> {
        if let Some(Lasts { until, asked }) = &self.lasts
            && let Some(left) = until.checked_duration_since(now)
            && now.duration_since(*asked) < GONE_AFTER
        {
            return Err(left);
        }
        self.number += 1;
        self.lasts = Some(Lasts { until: now + lasts, asked: now });
        Ok(self.number)
    }

    /// Whose turn it is asks: is it still going on? `None`: it was another one's since.
    pub(crate) fn ask(&mut self, number: u64, now: Instant) -> Option<bool> {
        if number != self.number {
            return None;
        }
        let Some(lasts) = &mut self.lasts else { return Some(false) };
        lasts.asked = now;
        Some(now < lasts.until)
    }

    /// Ends this turn; `false` where it had ended.
    pub(crate) fn end(&mut self, number: u64) -> bool {
        number == self.number && self.lasts.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn one_at_a_time_and_not_for_ever() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        assert_eq!(turns.begin(now, LONG), Ok(1));
        assert_eq!(turns.begin(now, LONG), Err(LONG));
        assert_eq!((turns.ask(1, now), turns.ask(2, now)), (Some(true), None));
        assert!(!turns.end(2) && turns.end(1) && !turns.end(1));
        assert_eq!(turns.ask(1, now), Some(false), "what was found may still be asked for");
        assert_eq!(turns.begin(now, LONG), Ok(2));
        assert_eq!(turns.ask(2, now + LONG), Some(false));
        assert_eq!(turns.begin(now + LONG, LONG), Err(Duration::ZERO));
        assert_eq!(turns.begin(now + LONG + Duration::from_nanos(1), LONG), Ok(3));
    }

    #[test]
    fn who_stops_asking_has_gone() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        assert_eq!(turns.begin(now, LONG), Ok(1));
        assert_eq!(turns.ask(1, now + GONE_AFTER), Some(true));
        assert!(turns.begin(now + GONE_AFTER, LONG).is_err(), "asked just now");
        assert_eq!(turns.begin(now + 2 * GONE_AFTER, LONG), Ok(2));
        assert_eq!(turns.ask(1, now + 2 * GONE_AFTER), None);
    }
}
