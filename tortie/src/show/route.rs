//! `tortie show route ADDR`: what happens to a packet.

use slowpath::status::RouteStatus;

use super::routes::via;
use super::table::{Table, or_dash};

pub(super) fn table(route: &RouteStatus) -> String {
    let address = route.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let Some(prefix) = &route.prefix else {
        return format!("No route covers {address}: a packet to it is answered with ICMP \"unreachable\".\n");
    };
    let source = or_dash(route.source.as_deref());
    let preference = route.preference.map_or_else(String::new, |value| format!(", preference {value}"));
    let installed = if route.installed { "" } else { "\nNot in the fast path's table." };
    let mut text = format!(
        "{address} is covered by {prefix} ({source}{preference}): {}.{installed}\n",
        meaning(&route.fate)
    );
    let mut table = Table::new(&["NEXT HOP", "PORT", "MAC"]);
    for nexthop in &route.nexthops {
        table.row(vec![via(nexthop), or_dash(nexthop.port.as_deref()), or_dash(nexthop.mac.as_deref())]);
    }
    if !table.is_empty() {
        text.push_str(&format!("\n{}", table.columns()));
    }
    for other in &route.others {
        let via: Vec<String> = other.via.iter().map(ToString::to_string).collect();
        let via = if via.is_empty() { String::new() } else { format!(" by {}", via.join(", ")) };
        text.push_str(&format!(
            "\n{} offers one too{via}, which isn't taken: {}.",
            other.source, other.reason
        ));
    }
    if !route.others.is_empty() {
        text.push('\n');
    }
    text
}

/// `slowpath::status::RouteStatus::fate`, in words.
fn meaning(fate: &str) -> &str {
    match fate {
        "forward" => "forwarded",
        "attached" => "sent to the address itself, which is on the link",
        "blackhole" => "dropped, the route is a blackhole",
        "local" => "taken by this host's kernel",
        "unresolved" => "held up, no next hop's MAC address is known yet",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::{NexthopStatus, OfferStatus};

    #[test]
    fn a_route_is_told_in_a_sentence_and_its_ways_in_a_table() {
        let route = RouteStatus {
            address: Some("10.65.0.65".parse().unwrap()),
            prefix: Some("10.65.0.64/26".to_owned()),
            source: Some("bgp".to_owned()),
            preference: Some(20),
            fate: "forward".to_owned(),
            nexthops: vec![NexthopStatus {
                via: Some("172.18.0.3".parse().unwrap()),
                port: Some("eth0".to_owned()),
                mac: Some("02:00:00:00:00:03".to_owned()),
                kind: None,
                share: Some(0.25),
                tunnel: None,
            }],
            installed: true,
            others: vec![OfferStatus {
                source: "kernel".to_owned(),
                preference: 10,
                via: vec!["172.18.0.9".parse().unwrap()],
                reason: "bgp has preference 100, kernel 10".to_owned(),
            }],
        };
        assert_eq!(
            table(&route),
            "\
10.65.0.65 is covered by 10.65.0.64/26 (bgp, preference 20): forwarded.

NEXT HOP           PORT   MAC
172.18.0.3, 25 %   eth0   02:00:00:00:00:03

kernel offers one too by 172.18.0.9, which isn't taken: bgp has preference 100, kernel 10.
"
        );
    }

    #[test]
    fn an_address_without_a_route_is_told_what_becomes_of_it() {
        let route = RouteStatus {
            address: Some("192.0.2.1".parse().unwrap()),
            fate: "no_route".to_owned(),
            ..RouteStatus::default()
        };
        assert_eq!(
            table(&route),
            "No route covers 192.0.2.1: a packet to it is answered with ICMP \"unreachable\".\n"
        );
    }
}
