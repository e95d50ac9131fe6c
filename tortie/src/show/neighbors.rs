//! `tortie show neighbors`.

use slowpath::status::NeighborsStatus;

use super::table::{Table, or_dash};

pub(super) fn table(status: &NeighborsStatus) -> String {
    let mut table = Table::new(&["ADDRESS", "MAC", "PORT", "STATE", "USED BY"]);
    for neighbor in &status.neighbors {
        table.row(vec![
            neighbor.address.to_string(),
            or_dash(neighbor.mac.as_deref()),
            neighbor.port.clone(),
            neighbor.state.clone(),
            neighbor.used_by.to_string(),
        ]);
    }
    table.columns()
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::NeighborStatus;

    #[test]
    fn a_neighbour_without_a_mac_address_shows_a_dash() {
        let neighbor = |mac: Option<&str>, state: &str| NeighborStatus {
            address: "172.18.0.3".parse().unwrap(),
            mac: mac.map(str::to_owned),
            port: "eth0".to_owned(),
            state: state.to_owned(),
            used_by: 2,
        };
        let status = NeighborsStatus {
            neighbors: vec![neighbor(Some("02:00:00:00:00:03"), "reachable"), neighbor(None, "incomplete")],
        };
        assert_eq!(
            table(&status),
            "\
ADDRESS      MAC                 PORT   STATE        USED BY
172.18.0.3   02:00:00:00:00:03   eth0   reachable    2
172.18.0.3   -                   eth0   incomplete   2
"
        );
    }
}
