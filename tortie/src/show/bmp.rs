//! `tortie show bmp`: monitoring stations.

use slowpath::status::StationsStatus;

use super::table::{Table, bytes, or_dash};

pub(super) fn table(status: &StationsStatus) -> String {
    if status.stations.is_empty() {
        return "No monitoring stations; name them under `bgp.bmp` in tortie.yaml.\n".to_owned();
    }
    let mut table =
        Table::new(&["STATION", "STATE", "FOR", "CONNECTED", "CUT OFF", "SENT", "WAITING", "PROBLEM"]);
    for station in &status.stations {
        table.row(vec![
            station.address.clone(),
            if station.up { "up" } else { "down" }.to_owned(),
            format!("{} s", station.since_seconds),
            station.connected_count.to_string(),
            station.cut_off_count.to_string(),
            bytes(station.sent_bytes),
            format!("{} of {}", bytes(station.queued_bytes), bytes(station.buffer_bytes)),
            or_dash(station.problem.as_deref()),
        ]);
    }
    table.columns()
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::StationStatus;

    #[test]
    fn a_station_that_is_down_says_why() {
        let station = StationStatus {
            address: "192.0.2.9:11019".to_owned(),
            since_seconds: 3,
            connected_count: 2,
            cut_off_count: 1,
            sent_bytes: 2048,
            buffer_bytes: 1 << 20,
            problem: Some("Connection refused".to_owned()),
            ..StationStatus::default()
        };
        let text = table(&StationsStatus { stations: vec![station] });
        let row: Vec<&str> = text
            .lines()
            .nth(1)
            .unwrap()
            .split("   ")
            .filter(|cell| !cell.is_empty())
            .map(str::trim)
            .collect();
        assert_eq!(
            row,
            ["192.0.2.9:11019", "down", "3 s", "2", "1", "2.0 KiB", "0 B of 1.0 MiB", "Connection refused"]
        );
        assert!(table(&StationsStatus::default()).contains("bgp.bmp"));
    }
}
