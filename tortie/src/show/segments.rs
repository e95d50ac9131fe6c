//! `tortie show segments`.

use slowpath::status::{EndStatus, SegmentsStatus};

use super::table::{Table, or_dash};

/// A line for every entry of the forwarding databases, with the ends that are there; then ends that are nowhere, and
/// problems.
pub(super) fn table(status: &SegmentsStatus) -> String {
    let mut table = Table::new(&["SEGMENT", "VNI", "MAC", "REMOTE", "ORIGIN", "AGE", "ADDRESS", "STATE"]);
    for segment in &status.segments {
        let ends_at = |mac: &str| -> Vec<&EndStatus> {
            let is_at = |end: &&EndStatus| end.remote.is_some() && end.mac.as_deref() == Some(mac);
            segment.ends.iter().filter(is_at).collect()
        };
        let first = || vec![segment.name.clone(), segment.vni.to_string()];
        for entry in &segment.fdb {
            let (addresses, states) = of_ends(&ends_at(&entry.mac));
            let age = entry.age_seconds.map(|age| format!("{age}s"));
            let rest = [
                entry.mac.clone(),
                entry.remote.to_string(),
                entry.origin.clone(),
                or_dash(age.as_deref()),
                addresses,
                states,
            ];
            table.row([first(), rest.to_vec()].concat());
        }
        for end in segment.ends.iter().filter(|end| end.remote.is_none()) {
            let rest = [
                or_dash(end.mac.as_deref()),
                or_dash(None),
                or_dash(None),
                or_dash(None),
                end.address.to_string(),
                end.state.clone(),
            ];
            table.row([first(), rest.to_vec()].concat());
        }
    }
    if status.segments.is_empty() {
        return "no segment is configured\n".to_owned();
    }
    let problems = status.segments.iter().flat_map(|segment| {
        segment.problems.iter().map(|problem| format!("warning: {}: {problem}\n", segment.name))
    });
    table.columns() + &problems.collect::<String>()
}

/// Addresses of the ends at one MAC address, and their states.
fn of_ends(ends: &[&EndStatus]) -> (String, String) {
    if ends.is_empty() {
        return (or_dash(None), or_dash(None));
    }
    let addresses: Vec<String> = ends.iter().map(|end| end.address.to_string()).collect();
    let mut states: Vec<&str> = ends.iter().map(|end| end.state.as_str()).collect();
    states.dedup();
    (addresses.join(", "), states.join(", "))
}

/// What has happened, a line a segment and name.
pub(super) fn counts(status: &SegmentsStatus) -> String {
    let mut table = Table::new(&["SEGMENT", "WHAT", "COUNT"]);
    for segment in &status.segments {
        for (what, count) in &segment.counts {
            table.row(vec![segment.name.clone(), what.clone(), count.to_string()]);
        }
    }
    table.columns()
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::{FdbEntry, SegmentStatus};

    fn entry(mac: &str, last: u8, origin: &str, age_seconds: Option<u64>) -> FdbEntry {
        FdbEntry {
            mac: mac.to_owned(),
            remote: [10, 57, 4, last].into(),
            origin: origin.to_owned(),
            age_seconds,
        }
    }

    fn end(address: &str, at: Option<(&str, u8)>, state: &str) -> EndStatus {
        EndStatus {
            address: address.parse().unwrap(),
            mac: at.map(|(mac, _)| mac.to_owned()),
            remote: at.map(|(_, last)| [10, 57, 4, last].into()),
            state: state.to_owned(),
            heard_seconds: None,
        }
    }

    #[test]
    fn a_line_for_every_station_and_for_every_end_that_is_nowhere() {
        let (here, there) = ("5a:00:00:00:00:01", "5a:00:00:00:00:02");
        let segment = SegmentStatus {
            name: "site".to_owned(),
            vni: 100,
            problems: vec!["the group 239.1.1.1 isn't joined: no".to_owned()],
            fdb: vec![
                entry("00:00:00:00:00:00", 21, "flood", None),
                entry(here, 21, "learned", Some(12)),
                entry(there, 22, "static", None),
                entry("5a:00:00:00:00:09", 21, "learned", Some(299)),
            ],
            ends: vec![
                end("192.168.11.1", Some((here, 21)), "reachable"),
                end("fd11::1", Some((here, 21)), "reachable"),
                end("192.168.12.1", Some((there, 22)), "static"),
                end("192.168.13.1", None, "asking"),
            ],
            counts: [("learned".to_owned(), 2)].into(),
            ..SegmentStatus::default()
        };
        let status = SegmentsStatus { segments: vec![segment] };
        assert_eq!(
            table(&status),
            "\
SEGMENT   VNI   MAC                 REMOTE       ORIGIN    AGE    ADDRESS                 STATE
site      100   00:00:00:00:00:00   10.57.4.21   flood     -      -                       -
site      100   5a:00:00:00:00:01   10.57.4.21   learned   12s    192.168.11.1, fd11::1   reachable
site      100   5a:00:00:00:00:02   10.57.4.22   static    -      192.168.12.1            static
site      100   5a:00:00:00:00:09   10.57.4.21   learned   299s   -                       -
site      100   -                   -            -         -      192.168.13.1            asking
warning: site: the group 239.1.1.1 isn't joined: no
"
        );
        assert_eq!(counts(&status), "SEGMENT   WHAT      COUNT\nsite      learned   2\n");
        assert_eq!(table(&SegmentsStatus::default()), "no segment is configured\n");
    }
}
