//! `tortie show datastore`: whether the router still knows what its datastore says.

use slowpath::status::DatastoreStatus;

use super::table::Table;

/// One line a fact, then what can't be read.
pub(super) fn table(status: &DatastoreStatus) -> String {
    let state = match (&status.stale_since, status.in_sync) {
        (Some(since), _) => format!("stale since {since} ({} s)", status.stale_seconds),
        (None, true) => match status.load_seconds {
            Some(load) => format!("current, loaded in {load:.2} s"),
            None => "current".to_owned(),
        },
        (None, false) => "not in sync yet".to_owned(),
    };
    let mut facts =
        Table::new(&["DATASTORE", "STATE", "CHANGES", "LAST DELAY", "99 % WITHIN", "LONGEST DELAY"]);
    facts.row(vec![
        status.datastore.clone(),
        state,
        status.changes.to_string(),
        milliseconds(status.last_delay_seconds),
        milliseconds(status.p99_delay_seconds),
        milliseconds(status.longest_delay_seconds),
    ]);
    let mut text = facts.columns();
    if let Some(reason) = &status.stale_reason {
        text.push_str(&format!("\n{reason}; the last state stays in force\n"));
    }
    if !status.invalid.is_empty() {
        text.push_str("\nCan't be read:\n");
        status.invalid.values().for_each(|problem| text.push_str(&format!("  {problem}\n")));
    }
    text
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staleness_and_its_reason_come_first() {
        let status = DatastoreStatus {
            datastore: "etcd at http://a:2379".to_owned(),
            in_sync: true,
            stale_since: Some("2026-01-01T00:00:00Z".to_owned()),
            stale_seconds: 7,
            stale_reason: Some("etcd can't be reached: connection refused".to_owned()),
            changes: 3,
            last_delay_seconds: 0.0015,
            p99_delay_seconds: 0.02,
            longest_delay_seconds: 0.25,
            invalid: [("/k".to_owned(), "/k: it isn't JSON".to_owned())].into(),
            ..DatastoreStatus::default()
        };
        assert_eq!(
            table(&status),
            "\
DATASTORE               STATE                                    CHANGES   LAST DELAY   99 % WITHIN   LONGEST DELAY
etcd at http://a:2379   stale since 2026-01-01T00:00:00Z (7 s)   3         1.5 ms       20.0 ms       250.0 ms

etcd can't be reached: connection refused; the last state stays in force

Can't be read:
  /k: it isn't JSON
"
        );
    }
}
