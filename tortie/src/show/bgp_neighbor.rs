//! `tortie show bgp neighbor`: everything that is known of a session.

use std::collections::BTreeMap;
use std::fmt::Write;

use slowpath::status::{BgpNeighborStatus, BgpNeighborsStatus, PrefixLimitStatus};

pub(super) fn text(status: &BgpNeighborsStatus) -> String {
    if status.neighbors.is_empty() {
        return "No such neighbor.\n".to_owned();
    }
    status.neighbors.iter().map(neighbor).collect::<Vec<_>>().join("\n")
}

fn neighbor(neighbor: &BgpNeighborStatus) -> String {
    let BgpNeighborStatus { session, .. } = neighbor;
    let mut text = format!("{} is {}, AS {}, {}\n", session.name, session.address, session.asn, session.kind);
    let mut line = |name: &str, value: String| {
        // Writing to a text can't fail.
        let _ = writeln!(text, "  {name:<20}{value}");
    };
    line("state", format!("{} since {}", session.state, session.since));
    if let Some(error) = &session.last_error {
        line("last error", error.clone());
    }
    if let Some(seconds) = neighbor.resting_seconds {
        line("refused for", format!("{seconds} s more"));
    }
    if let Some(router_id) = &neighbor.router_id {
        line("router ID", router_id.clone());
    }
    line("our AS", neighbor.local_as.to_string());
    if let Some(seconds) = session.hold_time_seconds {
        line("hold time", format!("{seconds} s"));
    }
    for (name, family) in neighbor.families.iter().filter(|(_, family)| family.negotiated) {
        let stale = if family.stale > 0 { format!(", {} stale", family.stale) } else { String::new() };
        line(name, format!("{} received{stale}, {} announced", family.received, family.announced));
    }
    line("prefix limit", limit(&session.prefix_limit));
    line("messages received", counts(&neighbor.received_messages));
    line("messages sent", counts(&neighbor.sent_messages));
    line("errors", counts(&neighbor.errors));
    for capability in &neighbor.capabilities {
        line("capability", capability.clone());
    }
    text
}

fn limit(limit: &PrefixLimitStatus) -> String {
    let rest = limit.rest_seconds.map_or(String::new(), |seconds| format!(" for {seconds} s"));
    let mut text =
        format!("{} a family, warning at {}, then {}{rest}", limit.most, limit.warns_at, limit.action);
    for (count, what) in [(limit.warnings, "warned"), (limit.reached, "exceeded"), (limit.closed, "closed")] {
        if count > 0 {
            let _ = write!(text, "; {what} {count} times");
        }
    }
    if limit.refused > 0 {
        let _ = write!(text, "; {} paths refused", limit.refused);
    }
    text
}

/// What isn't zero.
fn counts(counts: &BTreeMap<String, u64>) -> String {
    let counted: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{count} {}", name.replace('_', " ")))
        .collect();
    if counted.is_empty() { "none".to_owned() } else { counted.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::{BgpFamilyStatus, PeerStatus, PerFamily};

    fn session() -> PeerStatus {
        PeerStatus {
            name: "Dynamic_10_1_0_2".to_owned(),
            address: "10.1.0.2".parse().unwrap(),
            asn: 65010,
            kind: "dynamic".to_owned(),
            state: "Idle".to_owned(),
            up: false,
            since: "2026-11-21T23:30:04Z".to_owned(),
            since_seconds: 60,
            info: String::new(),
            received: PerFamily::default(),
            announced: PerFamily::default(),
            hold_time_seconds: None,
            messages_received: 0,
            messages_sent: 0,
            established_count: 1,
            last_error: Some("sent Cease/Maximum Number of Prefixes Reached".to_owned()),
            prefix_limit: PrefixLimitStatus {
                most: 100,
                warns_at: 75,
                action: "close".to_owned(),
                rest_seconds: Some(300),
                warnings: 1,
                reached: 1,
                refused: 0,
                closed: 1,
            },
        }
    }

    #[test]
    fn a_neighbor_that_went_too_far_is_shown_with_its_limit_and_its_rest() {
        let family = BgpFamilyStatus { negotiated: true, received: 3, stale: 1, announced: 2 };
        let status = BgpNeighborsStatus {
            neighbors: vec![BgpNeighborStatus {
                session: session(),
                local_as: 64512,
                router_id: None,
                capabilities: vec!["route refresh".to_owned()],
                families: [("ipv4".to_owned(), family), ("ipv6".to_owned(), BgpFamilyStatus::default())]
                    .into(),
                received_messages: [("open".to_owned(), 1), ("update".to_owned(), 0)].into(),
                sent_messages: BTreeMap::new(),
                errors: [("sessions_lost".to_owned(), 1)].into(),
                resting_seconds: Some(240),
            }],
        };
        assert_eq!(
            text(&status),
            "\
Dynamic_10_1_0_2 is 10.1.0.2, AS 65010, dynamic
  state               Idle since 2026-11-21T23:30:04Z
  last error          sent Cease/Maximum Number of Prefixes Reached
  refused for         240 s more
  our AS              64512
  ipv4                3 received, 1 stale, 2 announced
  prefix limit        100 a family, warning at 75, then close for 300 s; warned 1 times; exceeded 1 times; closed 1 times
  messages received   1 open
  messages sent       none
  errors              1 sessions lost
  capability          route refresh
"
        );
        assert_eq!(text(&BgpNeighborsStatus::default()), "No such neighbor.\n");
    }
}
