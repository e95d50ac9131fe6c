//! How well the router knows what its datastore says: since when it can't follow it, and how long a change takes to be in
//! force.

mod delays;

use std::time::{Duration, Instant, SystemTime};

use datastore::DatastoreSettings;

use crate::status::DatastoreStatus;
use delays::Delays;

/// What is known of the datastore besides its resources.
#[derive(Debug)]
pub(crate) struct Freshness {
    /// When the datastore began to be followed.
    began: Instant,
    /// Has the datastore told all that there is? And how long did it take until that was in force?
    in_sync: bool,
    load: Option<Duration>,
    /// Since when it can't be followed, and why.
    stale: Option<Stale>,
    /// When the first of the changes came that aren't in force yet.
    pending: Option<Instant>,
    pending_changes: u64,
    changes: u64,
    last: Duration,
    total: Duration,
    delays: Delays,
}

#[derive(Debug)]
struct Stale {
    since: Instant,
    reason: String,
}

impl Freshness {
    /// The datastore begins to be followed.
    pub(crate) fn began(now: Instant) -> Freshness {
        Freshness {
            began: now,
            in_sync: false,
            load: None,
            stale: None,
            pending: None,
            pending_changes: 0,
            changes: 0,
            last: Duration::ZERO,
            total: Duration::ZERO,
            delays: Delays::default(),
        }
    }

    /// The datastore has told all that there is.
    pub(crate) fn in_sync(&mut self) {
        self.in_sync = true;
    }

    /// The datastore can't be followed. True: it could until now.
    pub(crate) fn lost(&mut self, reason: String, now: Instant) -> bool {
        let since = self.stale.as_ref().map(|stale| stale.since);
        self.stale = Some(Stale { since: since.unwrap_or(now), reason });
        since.is_none()
    }

    /// It is followed again. Gives how long it wasn't.
    pub(crate) fn found(&mut self, now: Instant) -> Duration {
        self.stale.take().map_or(Duration::ZERO, |stale| now.saturating_duration_since(stale.since))
    }

    /// A change came from the datastore at `at`.
    pub(crate) fn changed(&mut self, at: Instant) {
        self.pending.get_or_insert(at);
        self.pending_changes += 1;
    }

    /// Every change that came is in force.
    pub(crate) fn in_force(&mut self, now: Instant) {
        let first = self.pending.take();
        let changes = std::mem::take(&mut self.pending_changes);
        self.changes += changes;
        // What was there at first is no change that anybody waits for.
        if self.in_sync && self.load.is_none() {
            self.load = Some(now.saturating_duration_since(self.began));
            return;
        }
        let Some(first) = first else { return };
        let delay = now.saturating_duration_since(first);
        self.last = delay;
        self.delays.add(delay, changes);
        // Each is taken to have waited as long as the first of its turn, so that the mean is never too good.
        self.total += delay.saturating_mul(u32::try_from(changes).unwrap_or(u32::MAX));
    }

    /// For an operator.
    pub(crate) fn status(&self, settings: &DatastoreSettings) -> DatastoreStatus {
        let stale = self.stale.as_ref().map(|stale| (stale.since.elapsed(), stale.reason.clone()));
        let since = |age| humantime::format_rfc3339_seconds(SystemTime::now() - age).to_string();
        DatastoreStatus {
            datastore: settings.to_string(),
            in_sync: self.in_sync,
            load_seconds: self.load.map(|load| load.as_secs_f64()),
            stale_since: stale.as_ref().map(|(age, _)| since(*age)),
            stale_seconds: stale.as_ref().map_or(0, |(age, _)| age.as_secs()),
            stale_reason: stale.map(|(_, reason)| reason),
            changes: self.changes,
            last_delay_seconds: self.last.as_secs_f64(),
            median_delay_seconds: self.delays.within(0.5).as_secs_f64(),
            p99_delay_seconds: self.delays.within(0.99).as_secs_f64(),
            longest_delay_seconds: self.delays.longest().as_secs_f64(),
            total_delay_seconds: self.total.as_secs_f64(),
            invalid: std::collections::BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staleness_begins_once_however_often_its_reason_changes() {
        let (mut freshness, start) = (Freshness::began(Instant::now()), Instant::now());
        assert!(freshness.lost("gone".to_owned(), start));
        assert!(!freshness.lost("still gone".to_owned(), start + Duration::from_secs(1)));
        assert_eq!(freshness.found(start + Duration::from_secs(3)), Duration::from_secs(3));
        assert_eq!(freshness.found(start + Duration::from_secs(4)), Duration::ZERO);
    }

    #[test]
    fn a_delay_is_that_of_the_change_which_waited_longest() {
        let (mut freshness, start) = (Freshness::began(Instant::now()), Instant::now());
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        freshness.in_sync();
        freshness.in_force(after(0));
        freshness.changed(after(1));
        freshness.changed(after(3));
        freshness.in_force(after(5));
        freshness.changed(after(10));
        freshness.in_force(after(11));
        let settings = DatastoreSettings::Directory("/r".into());
        let status = freshness.status(&settings);
        assert_eq!((status.changes, status.datastore.as_str()), (3, "directory /r"));
        let milliseconds =
            [status.last_delay_seconds, status.longest_delay_seconds, status.total_delay_seconds]
                .map(|seconds| (seconds * 1000.0).round());
        assert_eq!(milliseconds, [1.0, 4.0, 9.0]);
    }
    #[test]
    fn what_is_there_at_first_is_a_load_and_no_delay() {
        let start = Instant::now();
        let mut freshness = Freshness::began(start);
        let settings = DatastoreSettings::Directory("/r".into());
        freshness.changed(start + Duration::from_secs(1));
        assert_eq!(freshness.status(&settings).load_seconds, None);
        freshness.in_sync();
        freshness.in_force(start + Duration::from_secs(3));
        let status = freshness.status(&settings);
        assert_eq!((status.load_seconds, status.changes), (Some(3.0), 1));
        assert_eq!(status.longest_delay_seconds, 0.0);
        freshness.changed(start + Duration::from_secs(4));
        freshness.in_force(start + Duration::from_secs(5));
        assert_eq!(freshness.status(&settings).longest_delay_seconds, 1.0);
    }
}
