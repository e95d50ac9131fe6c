//! `tortie show routes`: the routes in force.

use slowpath::status::{NexthopStatus, RouteStatus, RoutesStatus};

use super::table::{Table, or_dash};

pub(super) fn table(status: &RoutesStatus) -> String {
    let mut table = Table::new(&["PREFIX", "SOURCE", "NEXT HOP", "PORT", "FATE", "INSTALLED"]);
    for route in &status.routes {
        // Every further way of a multipath route has a line of its own under the first.
        for (number, nexthop) in ways(route).iter().enumerate() {
            let first = number == 0;
            let only_first = |text: String| if first { text } else { String::new() };
            table.row(vec![
                only_first(or_dash(route.prefix.as_deref())),
                only_first(or_dash(route.source.as_deref())),
                via(nexthop),
                or_dash(nexthop.port.as_deref()),
                only_first(route.fate.clone()),
                only_first(if route.installed { "yes" } else { "no" }.to_owned()),
            ]);
        }
    }
    format!("{}\n{}\n", table.columns(), footer(status))
}

/// The next hops; one that leads nowhere where there are none.
fn ways(route: &RouteStatus) -> Vec<NexthopStatus> {
    if route.nexthops.is_empty() { vec![NexthopStatus::default()] } else { route.nexthops.clone() }
}

/// The neighbour and the tunnel that it leads to, or what there is in its place; with its share where weights differ.
pub(super) fn via(nexthop: &NexthopStatus) -> String {
    let whom = whom(nexthop);
    match nexthop.share {
        Some(share) => format!("{whom}, {:.0} %", share * 100.0),
        None => whom,
    }
}

fn whom(nexthop: &NexthopStatus) -> String {
    match (nexthop.via, &nexthop.tunnel) {
        (Some(address), None) => address.to_string(),
        (Some(address), Some(tunnel)) => format!("{address}, {tunnel}"),
        (None, _) => or_dash(nexthop.kind.as_deref()),
    }
}

fn footer(status: &RoutesStatus) -> String {
    let counts = status
        .counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(source, count)| format!("{source} {count}"))
        .collect::<Vec<_>>();
    let sources = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    let shown = status.routes.len();
    if shown < status.total {
        format!("{shown} of {} routes shown{sources}. --limit N shows more.", status.total)
    } else {
        format!("{} routes{sources}.", status.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::TunnelStatus;

    fn way(via: &str) -> NexthopStatus {
        NexthopStatus {
            via: Some(via.parse().unwrap()),
            port: Some("eth0".to_owned()),
            ..NexthopStatus::default()
        }
    }

    #[test]
    fn every_way_of_a_multipath_route_has_its_line() {
        let route = |prefix: &str, source: &str, fate: &str, nexthops: Vec<NexthopStatus>| RouteStatus {
            prefix: Some(prefix.to_owned()),
            source: Some(source.to_owned()),
            fate: fate.to_owned(),
            nexthops,
            installed: true,
            ..RouteStatus::default()
        };
        let blackhole = NexthopStatus { kind: Some("blackhole".to_owned()), ..NexthopStatus::default() };
        let tunnel = TunnelStatus {
            kind: "vxlan".to_owned(),
            local: [172, 18, 0, 2].into(),
            remote: [172, 19, 0, 2].into(),
            vni: Some(4096),
            port: Some(4789),
        };
        let tunnelled = NexthopStatus { tunnel: Some(tunnel), ..way("172.18.0.3") };
        let status = RoutesStatus {
            routes: vec![
                route("10.65.0.0/26", "block", "blackhole", vec![blackhole]),
                route("10.65.0.64/26", "bgp", "forward", vec![way("172.18.0.3"), way("172.18.0.4")]),
                route("10.65.0.128/26", "vxlan", "forward", vec![tunnelled]),
            ],
            total: 5,
            counts: [("bgp".to_owned(), 4), ("block".to_owned(), 1), ("static".to_owned(), 0)]
                .into_iter()
                .collect(),
        };
        assert_eq!(
            table(&status),
            "\
PREFIX           SOURCE   NEXT HOP                                   PORT   FATE        INSTALLED
10.65.0.0/26     block    blackhole                                  -      blackhole   yes
10.65.0.64/26    bgp      172.18.0.3                                 eth0   forward     yes
                          172.18.0.4                                 eth0
10.65.0.128/26   vxlan    172.18.0.3, vxlan vni 4096 to 172.19.0.2   eth0   forward     yes

3 of 5 routes shown: bgp 4, block 1. --limit N shows more.
"
        );
    }

    #[test]
    fn an_empty_table_says_so() {
        assert!(table(&RoutesStatus::default()).ends_with("\n0 routes.\n"));
    }
}
