//! `tortie show bgp PREFIX`: every path to it, and why each is used or not.

use slowpath::status::{BgpPathStatus, BgpRouteStatus};

use super::table::Table;

pub(super) fn table(route: &BgpRouteStatus) -> String {
    if route.paths.is_empty() {
        return format!("BGP has no path to {}.\n", route.prefix);
    }
    let mut table = Table::new(&[
        "PATH FROM",
        "NEXT HOP",
        "METRIC",
        "LOCAL_PREF",
        "MED",
        "AS_PATH",
        "ORIGIN",
        "STANDING",
    ]);
    for path in &route.paths {
        table.row(row(path));
    }
    table.columns()
}

fn row(path: &BgpPathStatus) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let number = |value: Option<u32>| or_dash(value.map(|value| value.to_string()));
    let as_path: Vec<String> = path.as_path.iter().map(u32::to_string).collect();
    let standing = match &path.reason {
        Some(reason) => format!("{}: {reason}", path.standing),
        None => path.standing.clone(),
    };
    vec![
        path.peer.clone().unwrap_or_else(|| "ourselves".to_owned()),
        or_dash(path.nexthop.map(|nexthop| nexthop.to_string())),
        number(path.metric),
        number(path.local_pref),
        number(path.med),
        if as_path.is_empty() { "-".to_owned() } else { as_path.join(" ") },
        path.origin.clone(),
        if path.stale { format!("{standing}, stale") } else { standing },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_says_why_it_is_not_used() {
        let best = BgpPathStatus {
            peer: Some("Global_10_0_0_9".to_owned()),
            path_id: 0,
            nexthop: Some([10, 0, 0, 9].into()),
            as_path: vec![65001, 65002],
            origin: "IGP".to_owned(),
            local_pref: None,
            med: Some(5),
            communities: Vec::new(),
            metric: Some(0),
            stale: false,
            standing: "best".to_owned(),
            reason: None,
        };
        let lost = BgpPathStatus {
            peer: None,
            nexthop: None,
            as_path: Vec::new(),
            standing: "lost".to_owned(),
            reason: Some("lower LOCAL_PREF".to_owned()),
            local_pref: Some(0),
            med: None,
            ..best.clone()
        };
        let route = BgpRouteStatus { prefix: "0.0.0.0/0".to_owned(), paths: vec![best, lost] };
        let text = table(&route);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(lines[1], ["Global_10_0_0_9", "10.0.0.9", "0", "-", "5", "65001 65002", "IGP", "best"]);
        assert_eq!(lines[2], ["ourselves", "-", "0", "0", "-", "-", "IGP", "lost: lower LOCAL_PREF"]);
        assert_eq!(table(&BgpRouteStatus { paths: Vec::new(), ..route }), "BGP has no path to 0.0.0.0/0.\n");
    }
}
