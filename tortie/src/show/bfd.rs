//! `tortie show bfd`: who is watched, and how soon silence is noticed.

use std::time::Duration;

use slowpath::status::{BfdSessionStatus, BfdStatus};

use super::table::Table;

/// A row a session; then what was refused, where anything was.
pub(super) fn table(status: &BfdStatus) -> String {
    let mut sessions = Table::new(&[
        "PEER",
        "INTERFACE",
        "STATE",
        "SECONDS",
        "INTERVAL",
        "DETECTION",
        "UPS",
        "RECEIVED",
        "SENT",
        "INFO",
    ]);
    for session in &status.bfd_sessions {
        sessions.row(vec![
            session.address.to_string(),
            session.interface.clone().unwrap_or_else(|| "multihop".to_owned()),
            session.state.clone(),
            session.since_seconds.to_string(),
            time(session.transmit_interval_us),
            time(session.detection_time_us),
            session.ups.to_string(),
            session.received.to_string(),
            session.sent.to_string(),
            info(session),
        ]);
    }
    let mut text = match &status.problem {
        Some(problem) => format!("{problem}\n"),
        None if sessions.is_empty() => "No peer is watched by BFD.\n".to_owned(),
        None => String::new(),
    };
    if !sessions.is_empty() {
        text.push_str(&sessions.columns());
        if let Some(why) = &status.ordinary {
            text.push_str(&format!(
                "\nBFD's thread comes no sooner than others ({why}): on a busy machine it may miss intervals below 50 ms.\n"
            ));
        }
    }
    let mut refused = Table::new(&["REFUSED", "PACKETS"]);
    for (reason, count) in status.refused.iter().filter(|(_, count)| **count > 0) {
        refused.row(vec![reason.clone(), count.to_string()]);
    }
    if !refused.is_empty() {
        text.push_str(&format!("\n{}", refused.columns()));
    }
    text
}

fn time(microseconds: Option<u64>) -> String {
    microseconds.map_or_else(|| "-".to_owned(), |time| format!("{:?}", Duration::from_micros(time)))
}

/// Why it isn't up, and what the other end says.
fn info(session: &BfdSessionStatus) -> String {
    match (&session.remote, session.state.as_str()) {
        (_, "Up") => String::new(),
        (None, _) => format!("{}; the peer is silent", session.diagnostic),
        (Some((state, diagnostic)), _) => {
            format!("{}; the peer is {state}: {diagnostic}", session.diagnostic)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_says_how_soon_silence_is_noticed_and_why_it_is_down() {
        let up = BfdSessionStatus {
            address: "10.0.0.2".parse().unwrap(),
            local: "10.0.0.1".parse().unwrap(),
            interface: Some("eth0".to_owned()),
            state: "Up".to_owned(),
            since_seconds: 7,
            diagnostic: "no diagnostic".to_owned(),
            remote: Some(("Up".to_owned(), "no diagnostic".to_owned())),
            local_discriminator: 1,
            remote_discriminator: 2,
            transmit_interval_us: Some(100_000),
            detection_time_us: Some(500_000),
            ups: 1,
            received: 70,
            sent: 71,
        };
        let down = BfdSessionStatus {
            address: "10.9.0.2".parse().unwrap(),
            interface: None,
            state: "Down".to_owned(),
            diagnostic: "detection time expired".to_owned(),
            remote: None,
            detection_time_us: None,
            ..up.clone()
        };
        let status = BfdStatus {
            bfd_sessions: vec![up, down],
            refused: [("ttl".to_owned(), 3), ("version".to_owned(), 0)].into(),
            problem: None,
            ordinary: Some("Operation not permitted".to_owned()),
        };
        assert_eq!(
            table(&status),
            "\
PEER       INTERFACE   STATE   SECONDS   INTERVAL   DETECTION   UPS   RECEIVED   SENT   INFO
10.0.0.2   eth0        Up      7         100ms      500ms       1     70         71
10.9.0.2   multihop    Down    7         100ms      -           1     70         71     detection time expired; the peer is silent

BFD's thread comes no sooner than others (Operation not permitted): on a busy machine it may miss intervals below 50 ms.

REFUSED   PACKETS
ttl       3
"
        );
        assert_eq!(table(&BfdStatus::default()), "No peer is watched by BFD.\n");
    }
}
