//! `tortie show bgp`: `calicoctl node status`, with the numbers that one asks for next.

use slowpath::status::{BgpStatus, PeerStatus, PerFamily};

use super::table::Table;

/// Seconds in a day: older sessions show the date in place of the time, as BIRD does.
const DAY: u64 = 86_400;

pub(super) fn table(bgp: &BgpStatus) -> String {
    let router_id = bgp.router_id.as_deref().unwrap_or("not known yet");
    let mut text = format!("Tortie is running. Local AS {}, router ID {router_id}.\n", bgp.local_as);
    for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
        text.push_str(&format!("\n{family} BGP status\n"));
        let peers = bgp.peers.iter().filter(|peer| peer.address.is_ipv4() == is_v4);
        let table = sessions(peers);
        if table.is_empty() {
            text.push_str(&format!("No {family} peers found.\n"));
        } else {
            text.push_str(&table.boxes());
        }
    }
    text
}

fn sessions<'a>(peers: impl Iterator<Item = &'a PeerStatus>) -> Table {
    let mut table =
        Table::new(&["PEER ADDRESS", "PEER TYPE", "AS", "STATE", "SINCE", "RECEIVED", "ANNOUNCED", "INFO"]);
    for peer in peers {
        table.row(vec![
            peer.address.to_string(),
            peer.kind.clone(),
            peer.asn.to_string(),
            if peer.up { "up" } else { "start" }.to_owned(),
            since(peer),
            prefixes(peer, &peer.received),
            prefixes(peer, &peer.announced),
            info(peer),
        ]);
    }
    table
}

/// The time of day, or the date where that is longer ago.
pub(crate) fn since(peer: &PeerStatus) -> String {
    match peer.since.split_once('T') {
        Some((_, time)) if peer.since_seconds < DAY => time.get(..8).unwrap_or(time).to_owned(),
        Some((date, _)) => date.to_owned(),
        None => peer.since.clone(),
    }
}

/// Prefixes of the session's own family; those of the other one, where it carries any, are named.
fn prefixes(peer: &PeerStatus, count: &PerFamily) -> String {
    let (own, other, name) = match peer.address.is_ipv4() {
        true => (count.ipv4, count.ipv6, "v6"),
        false => (count.ipv6, count.ipv4, "v4"),
    };
    if other == 0 { own.to_string() } else { format!("{own} + {other} {name}") }
}

/// The FSM's state, and what else an operator should know.
pub(crate) fn info(peer: &PeerStatus) -> String {
    let more = match (&peer.last_error, peer.info.as_str()) {
        (Some(error), _) if !peer.up => error.as_str(),
        (_, info) => info,
    };
    if more.is_empty() { peer.state.clone() } else { format!("{} {more}", peer.state) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::PrefixLimitStatus;

    fn peer(address: &str) -> PeerStatus {
        PeerStatus {
            name: "Mesh".to_owned(),
            address: address.parse().unwrap(),
            asn: 64512,
            kind: "node-to-node mesh".to_owned(),
            state: "Established".to_owned(),
            up: true,
            since: "2026-11-21T23:30:04Z".to_owned(),
            since_seconds: 60,
            info: String::new(),
            received: PerFamily { ipv4: 2, ipv6: 0 },
            announced: PerFamily { ipv4: 1, ipv6: 1 },
            hold_time_seconds: Some(90),
            messages_received: 0,
            messages_sent: 0,
            established_count: 1,
            last_error: None,
            prefix_limit: PrefixLimitStatus::default(),
        }
    }

    #[test]
    fn sessions_stand_in_a_box_for_each_family() {
        let down = PeerStatus {
            up: false,
            state: "Active".to_owned(),
            since_seconds: 100_000,
            last_error: Some("Connection refused".to_owned()),
            received: PerFamily::default(),
            announced: PerFamily::default(),
            ..peer("172.17.8.103")
        };
        let bgp = BgpStatus {
            local_as: 64512,
            router_id: Some("172.17.8.101".to_owned()),
            peers: vec![peer("172.17.8.102"), down],
            ..BgpStatus::default()
        };
        assert_eq!(
            table(&bgp),
            "\
Tortie is running. Local AS 64512, router ID 172.17.8.101.

IPv4 BGP status
+--------------+-------------------+-------+-------+------------+----------+-----------+---------------------------+
| PEER ADDRESS | PEER TYPE         | AS    | STATE | SINCE      | RECEIVED | ANNOUNCED | INFO                      |
+--------------+-------------------+-------+-------+------------+----------+-----------+---------------------------+
| 172.17.8.102 | node-to-node mesh | 64512 | up    | 23:30:04   | 2        | 1 + 1 v6  | Established               |
| 172.17.8.103 | node-to-node mesh | 64512 | start | 2026-11-21 | 0        | 0         | Active Connection refused |
+--------------+-------------------+-------+-------+------------+----------+-----------+---------------------------+

IPv6 BGP status
No IPv6 peers found.
"
        );
    }

    #[test]
    fn a_session_counts_its_own_family_first() {
        let count = PerFamily { ipv4: 0, ipv6: 3 };
        assert_eq!(prefixes(&peer("fd18::1"), &count), "3");
        assert_eq!(prefixes(&peer("172.18.0.1"), &count), "0 + 3 v6");
        assert_eq!(prefixes(&peer("fd18::1"), &PerFamily { ipv4: 2, ipv6: 3 }), "3 + 2 v4");
    }
}
