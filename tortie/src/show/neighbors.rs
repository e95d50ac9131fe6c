//! `tortie show neighbors`.

use slowpath::status::{NeighborsStatus, TunnelStatus};

use super::table::{Table, or_dash};

pub(super) fn table(status: &NeighborsStatus) -> String {
    let mut table = Table::new(&["ADDRESS", "MAC", "PORT", "STATE", "USED BY", "TUNNELS"]);
    for neighbor in &status.neighbors {
        table.row(vec![
            neighbor.address.to_string(),
            or_dash(neighbor.mac.as_deref()),
            neighbor.port.clone(),
            neighbor.state.clone(),
            neighbor.used_by.to_string(),
            tunnels(&neighbor.tunnels),
        ]);
    }
    table.columns()
}

/// The first, and how many more: a gateway may lead to hundreds.
fn tunnels(tunnels: &[TunnelStatus]) -> String {
    match tunnels {
        [] => or_dash(None),
        [only] => only.to_string(),
        [first, more @ ..] => format!("{first}, {} more", more.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::NeighborStatus;

    #[test]
    fn what_isnt_known_is_a_dash_and_tunnels_are_named() {
        let neighbor = |mac: Option<&str>, state: &str| NeighborStatus {
            address: "172.18.0.3".parse().unwrap(),
            mac: mac.map(str::to_owned),
            port: "eth0".to_owned(),
            state: state.to_owned(),
            used_by: 2,
            tunnels: Vec::new(),
        };
        let tunnel = |last: u8, vni: Option<u32>| TunnelStatus {
            kind: if vni.is_none() { "ipip" } else { "vxlan" }.to_owned(),
            local: [172, 16, 6, 47].into(),
            remote: [172, 16, 199, last].into(),
            vni,
            port: vni.map(|_| 4789),
        };
        let leading =
            |tunnels| NeighborStatus { tunnels, ..neighbor(Some("02:00:00:00:00:03"), "reachable") };
        let status = NeighborsStatus {
            neighbors: vec![
                leading(vec![tunnel(114, None)]),
                leading(vec![tunnel(114, Some(4096)), tunnel(115, Some(4096)), tunnel(116, Some(4096))]),
                neighbor(None, "incomplete"),
            ],
        };
        assert_eq!(
            table(&status),
            "\
ADDRESS      MAC                 PORT   STATE        USED BY   TUNNELS
172.18.0.3   02:00:00:00:00:03   eth0   reachable    2         ipip to 172.16.199.114
172.18.0.3   02:00:00:00:00:03   eth0   reachable    2         vxlan vni 4096 to 172.16.199.114, 2 more
172.18.0.3   -                   eth0   incomplete   2         -
"
        );
    }
}
