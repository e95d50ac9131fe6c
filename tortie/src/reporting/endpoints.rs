//! How endpoints fare, a key each (`felix/statusrep/status_reporter.go`). A change waits for the delay, so that one that
//! flaps at the start is written once; only so many are written at a time; and what others have done to the keys is mended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use datastore::{Key, StatusKey, Store, StoreError, Under};
use serde_json::json;
use slowpath::status::{EndpointReports, ReportingStatus};

/// Keys written in one go: Felix writes one.
const AT_ONCE: usize = 20;
/// How often the keys that there are are held against those that should be, as Felix does.
const RESYNC: Duration = Duration::from_secs(180);

pub(super) struct Endpoints {
    node: String,
    /// What stands in the datastore, as far as we know.
    written: BTreeMap<StatusKey, String>,
    /// What there is to tell that isn't written, since the last look.
    seen: BTreeMap<StatusKey, Option<String>>,
    last: Option<Instant>,
    resynced: Option<Instant>,
}

impl Endpoints {
    pub(super) fn new(node: &str) -> Endpoints {
        Endpoints {
            node: node.to_owned(),
            written: BTreeMap::new(),
            seen: BTreeMap::new(),
            last: None,
            resynced: None,
        }
    }

    pub(super) fn is_due(&self, status: &ReportingStatus, now: Instant) -> bool {
        let Some(reports) = &status.endpoints else { return false };
        let delay = Duration::try_from_secs_f64(reports.delay_seconds).unwrap_or_default();
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= delay)
    }

    /// Writes some of what has changed, where it is time.
    ///
    /// # Errors
    /// As the store's; what wasn't written is written the next time.
    pub(super) fn tell(
        &mut self,
        store: &dyn Store,
        status: &ReportingStatus,
        now: Instant,
    ) -> Result<(), StoreError> {
        let Some(reports) = status.endpoints.as_ref().filter(|_| self.is_due(status, now)) else {
            return Ok(());
        };
        self.last = Some(now);
        if self.resynced.is_none_or(|resynced| now.saturating_duration_since(resynced) >= RESYNC) {
            self.resync(store)?;
            self.resynced = Some(now);
        }
        let wanted = self.wanted(reports);
        let gone = self.written.keys().filter(|key| !wanted.contains_key(key)).map(|key| (key.clone(), None));
        let other = wanted.iter().filter(|(key, fares)| self.written.get(*key) != Some(*fares));
        let changed: BTreeMap<StatusKey, Option<String>> =
            other.map(|(key, fares)| (key.clone(), Some(fares.clone()))).chain(gone).collect();
        // What is as it was at the last look: it doesn't flap.
        let settled: Vec<_> = changed
            .iter()
            .filter(|(key, fares)| self.seen.get(*key) == Some(*fares))
            .take(AT_ONCE)
            .map(|(key, fares)| (key.clone(), fares.clone()))
            .collect();
        self.seen = changed;
        for (key, fares) in settled {
            match fares {
                Some(fares) => {
                    store.put(&Key::Status(key.clone()), &json!({"status": fares}), None)?;
                    self.written.insert(key.clone(), fares);
                }
                None => {
                    match store.delete(&Key::Status(key.clone()), None) {
                        Ok(_) | Err(StoreError::NotFound(_)) => {}
                        Err(error) => return Err(error),
                    }
                    self.written.remove(&key);
                }
            }
            self.seen.remove(&key);
        }
        Ok(())
    }

    /// What really stands there: keys of the run before, and what others have written or removed.
    fn resync(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let node = || self.node.clone();
        let mut written = BTreeMap::new();
        for under in [Under::WorkloadStatuses { node: node() }, Under::HostStatuses { node: node() }] {
            for stored in store.list(&under)?.stored {
                let Key::Status(key) = stored.key else { continue };
                // One that can't be read is something else than it should be.
                written.insert(key, stored.value["status"].as_str().unwrap_or_default().to_owned());
            }
        }
        self.written = written;
        Ok(())
    }

    fn wanted(&self, reports: &EndpointReports) -> BTreeMap<StatusKey, String> {
        let workloads = reports.workloads.iter().filter_map(|(namespace, name, fares)| {
            Some((workload_key(&self.node, namespace, name)?, fares.clone()))
        });
        let hosts = reports.hosts.iter().map(|(name, fares)| {
            (StatusKey::Host { node: self.node.clone(), endpoint: name.clone() }, fares.clone())
        });
        workloads.chain(hosts).collect()
    }
}

/// The key of a workload's endpoint, out of its name (`libcalico-go/lib/names/workloadendpoint.go`). Nothing for a name that
/// isn't made of four parts: Felix has no such endpoint.
fn workload_key(node: &str, namespace: &str, name: &str) -> Option<StatusKey> {
    let parts = parts(name);
    let [_, orchestrator, workload, endpoint] = parts.as_slice() else { return None };
    Some(StatusKey::Workload {
        node: node.to_owned(),
        orchestrator: orchestrator.clone(),
        workload: format!("{namespace}/{workload}"),
        endpoint: endpoint.clone(),
    })
}

/// The parts of a name: a `-` stands between them, and within them doubled.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '-' && letters.next_if_eq(&'-').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reporting::tests::status;
    use datastore::MemoryStore;

    fn told(workloads: &[(&str, &str)]) -> ReportingStatus {
        let workload =
            |(name, fares): &(&str, &str)| ("default".to_owned(), (*name).to_owned(), (*fares).to_owned());
        let endpoints = EndpointReports {
            delay_seconds: 1.0,
            workloads: workloads.iter().map(workload).collect(),
            hosts: vec![("eth0".to_owned(), "up".to_owned())],
        };
        ReportingStatus { endpoints: Some(endpoints), ..status() }
    }

    fn stored(store: &MemoryStore) -> Vec<(String, String)> {
        let unders = [Under::WorkloadStatuses { node: "n".into() }, Under::HostStatuses { node: "n".into() }];
        let all = unders.iter().flat_map(|under| store.list(under).unwrap().stored);
        all.map(|stored| match stored.key {
            Key::Status(StatusKey::Workload { orchestrator, workload, endpoint, .. }) => (
                format!("{orchestrator}:{workload}:{endpoint}"),
                stored.value["status"].as_str().unwrap().to_owned(),
            ),
            Key::Status(StatusKey::Host { endpoint, .. }) => {
                (endpoint, stored.value["status"].as_str().unwrap().to_owned())
            }
            other => panic!("{other}"),
        })
        .collect()
    }

    fn pair(key: &str, fares: &str) -> (String, String) {
        (key.to_owned(), fares.to_owned())
    }

    #[test]
    fn what_lasts_for_a_delay_is_written_under_felixs_keys_and_goes_with_its_endpoint() {
        let (store, start) = (MemoryStore::default(), Instant::now());
        let mut endpoints = Endpoints::new("n");
        let second = Duration::from_secs(1);
        let flapping = told(&[("n-k8s-web--0-eth0", "down"), ("strange", "up")]);
        endpoints.tell(&store, &flapping, start).unwrap();
        let up = told(&[("n-k8s-web--0-eth0", "up")]);
        endpoints.tell(&store, &up, start + second).unwrap();
        assert_eq!(stored(&store), [pair("eth0", "up")], "what has just changed waits");
        endpoints.tell(&store, &up, start + second * 2).unwrap();
        assert_eq!(stored(&store), [pair("k8s:default/web-0:eth0", "up"), pair("eth0", "up")]);
        for turn in 3..5 {
            endpoints.tell(&store, &told(&[]), start + second * turn).unwrap();
        }
        assert_eq!(stored(&store), [pair("eth0", "up")]);
    }

    #[test]
    fn what_the_run_before_left_and_others_have_changed_is_mended() {
        let (store, start) = (MemoryStore::default(), Instant::now());
        let left = workload_key("n", "default", "n-k8s-gone-eth0").unwrap();
        store.put(&Key::Status(left), &json!({"status": "up"}), None).unwrap();
        let mut endpoints = Endpoints::new("n");
        let status = told(&[("n-k8s-web-eth0", "up")]);
        for turn in 0..2 {
            endpoints.tell(&store, &status, start + Duration::from_secs(turn)).unwrap();
        }
        let right = [pair("k8s:default/web:eth0", "up"), pair("eth0", "up")];
        assert_eq!(stored(&store), right);
        let key = Key::Status(workload_key("n", "default", "n-k8s-web-eth0").unwrap());
        store.put(&key, &json!({"status": "nonsense"}), None).unwrap();
        for turn in 0..2 {
            endpoints.tell(&store, &status, start + RESYNC + Duration::from_secs(1 + turn)).unwrap();
        }
        assert_eq!(stored(&store), right);
    }

    #[test]
    fn only_some_are_written_at_once() {
        let (store, start) = (MemoryStore::default(), Instant::now());
        let names: Vec<String> = (0..50).map(|number| format!("n-k8s-w{number}-eth0")).collect();
        let workloads: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "up")).collect();
        let (mut endpoints, mut counts) = (Endpoints::new("n"), Vec::new());
        for turn in 0..5 {
            endpoints.tell(&store, &told(&workloads), start + Duration::from_secs(turn)).unwrap();
            counts.push(stored(&store).len());
        }
        assert_eq!(counts, [0, 20, 40, 51, 51]);
    }

    #[test]
    fn who_is_not_to_tell_of_endpoints_writes_nothing() {
        let store = MemoryStore::default();
        let mut endpoints = Endpoints::new("n");
        assert!(!endpoints.is_due(&status(), Instant::now()));
        endpoints.tell(&store, &status(), Instant::now()).unwrap();
        assert_eq!(stored(&store), []);
    }
}
