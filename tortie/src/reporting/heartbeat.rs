//! That the node is alive: written again before its lifetime ends, and once more where it stays (`felix/daemon`).

use std::time::{Duration, Instant, SystemTime};

use datastore::{Key, StatusKey, Store, StoreError};
use serde_json::json;
use slowpath::status::ReportingStatus;

pub(super) struct Heartbeat {
    node: String,
    started: Instant,
    last: Option<Instant>,
}

impl Heartbeat {
    pub(super) fn new(node: &str, started: Instant) -> Heartbeat {
        Heartbeat { node: node.to_owned(), started, last: None }
    }

    pub(super) fn is_due(&self, status: &ReportingStatus, now: Instant) -> bool {
        let interval = Duration::try_from_secs_f64(status.interval_seconds).unwrap_or_default();
        !interval.is_zero() && self.last.is_none_or(|last| now.saturating_duration_since(last) >= interval)
    }

    /// Writes it where it is time.
    ///
    /// # Errors
    /// As the store's; then it is still due.
    pub(super) fn beat(
        &mut self,
        store: &dyn Store,
        status: &ReportingStatus,
        now: Instant,
    ) -> Result<(), StoreError> {
        if !self.is_due(status, now) {
            return Ok(());
        }
        let report = json!({
            "time": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            "uptime": now.saturating_duration_since(self.started).as_secs_f64(),
            "first_update": self.last.is_none(),
        });
        let lifetime = Duration::try_from_secs_f64(status.ttl_seconds).unwrap_or_default();
        let node = || self.node.clone();
        // A lifetime of zero is none, as with Felix.
        let lifetime = Some(lifetime).filter(|lifetime| !lifetime.is_zero());
        store.put(&Key::Status(StatusKey::Active { node: node() }), &report, lifetime)?;
        store.put(&Key::Status(StatusKey::Last { node: node() }), &report, None)?;
        self.last = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reporting::tests::status;
    use datastore::MemoryStore;

    #[test]
    fn it_beats_at_its_interval_and_says_once_that_it_is_new() {
        let (store, start) = (MemoryStore::default(), Instant::now());
        let mut heartbeat = Heartbeat::new("n", start);
        let last = Key::Status(StatusKey::Last { node: "n".into() });
        heartbeat.beat(&store, &status(), start).unwrap();
        assert_eq!(store.get(&last).unwrap().value["first_update"], true);
        let first = store.get(&last).unwrap();
        assert!(!heartbeat.is_due(&status(), start + Duration::from_secs(29)));
        heartbeat.beat(&store, &status(), start + Duration::from_secs(29)).unwrap();
        assert_eq!(store.get(&last).unwrap(), first);
        heartbeat.beat(&store, &status(), start + Duration::from_secs(30)).unwrap();
        let report = store.get(&last).unwrap().value;
        assert_eq!((&report["first_update"], &report["uptime"]), (&json!(false), &json!(30.0)));
        assert_eq!(store.get(&Key::Status(StatusKey::Active { node: "n".into() })).unwrap().value, report);
    }

    #[test]
    fn an_interval_of_zero_is_silence() {
        let heartbeat = Heartbeat::new("n", Instant::now());
        let silent = ReportingStatus { interval_seconds: 0.0, ..status() };
        assert!(!heartbeat.is_due(&silent, Instant::now() + Duration::from_secs(3600)));
    }
}
