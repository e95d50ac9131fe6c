//! `tortie show ports --limits`.

use crate::forms::PortsView;

use super::table::Table;

pub(super) fn table(view: &PortsView) -> String {
    let mut table =
        Table::new(&["NAME", "ENDPOINT", "DIRECTION", "LIMIT", "RATE", "BURST", "PEAK", "DROPPED", "DSCP"]);
    let mut row = |cells: [String; 9]| table.row(cells.into());
    let dash = || "-".to_owned();
    for port in &view.ports {
        let Some(qos) = &port.qos else { continue };
        let endpoint = port.endpoint.clone().unwrap_or_else(dash);
        let dscp = qos.dscp.map_or_else(dash, |dscp| dscp.to_string());
        if qos.limits.is_empty() {
            row([port.name.clone(), endpoint, dash(), dash(), dash(), dash(), dash(), dash(), dscp]);
            continue;
        }
        for limit in &qos.limits {
            if limit.limit == "connections" {
                row([
                    port.name.clone(),
                    endpoint.clone(),
                    limit.direction.clone(),
                    limit.limit.clone(),
                    limit.rate.to_string(),
                    format!("{} now", limit.burst),
                    dash(),
                    limit.dropped.to_string(),
                    dscp.clone(),
                ]);
                continue;
            }
            let unit = if limit.limit == "bandwidth" { "bit" } else { "p" };
            row([
                port.name.clone(),
                endpoint.clone(),
                limit.direction.clone(),
                limit.limit.clone(),
                format!("{}/s", decimal(limit.rate, unit)),
                decimal(limit.burst, unit),
                limit.peak_rate.map_or_else(dash, |rate| format!("{}/s", decimal(rate, unit))),
                limit.dropped.to_string(),
                dscp.clone(),
            ]);
        }
    }
    if table.is_empty() {
        return "no endpoint has limits or a DSCP\n".to_owned();
    }
    table.columns()
}

/// As Calico's annotations are written: powers of a thousand.
fn decimal(count: u64, unit: &str) -> String {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut prefix = 0;
    let mut value = count as f64;
    while value >= 1000.0 && prefix + 1 < PREFIXES.len() {
        value /= 1000.0;
        prefix += 1;
    }
    let value = if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.2}") };
    format!("{value} {}{unit}", PREFIXES[prefix])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::{PortView, Traffic};
    use slowpath::status::{LimitStatus, QosStatus};

    fn port(name: &str, qos: Option<QosStatus>) -> PortView {
        PortView {
            id: 1,
            name: name.to_owned(),
            kind: "workload".to_owned(),
            ifindex: 2,
            mac: "02:00:00:00:00:01".to_owned(),
            mtu: 1500,
            up: true,
            warnings: Vec::new(),
            endpoint: Some(format!("default/{name}")),
            qos,
            queues: Vec::new(),
            received: Traffic::default(),
            forwarded: Traffic::default(),
            dropped: 0,
        }
    }

    #[test]
    fn a_line_for_every_limit_and_for_a_dscp_alone() {
        let limit = |limit: &str, rate, burst, peak_rate| LimitStatus {
            direction: "egress".to_owned(),
            limit: limit.to_owned(),
            rate,
            burst,
            peak_rate,
            dropped: 7,
        };
        let limits = vec![
            limit("bandwidth", 10_000_000, 4_294_967_296, Some(12_500_000)),
            limit("packet_rate", 100, 5, None),
        ];
        let ports = vec![
            port("cali1", Some(QosStatus { limits, dscp: None })),
            port("cali2", None),
            port("cali3", Some(QosStatus { limits: Vec::new(), dscp: Some(46) })),
        ];
        assert_eq!(
            table(&PortsView { ports, ..PortsView::default() }),
            "\
NAME    ENDPOINT        DIRECTION   LIMIT         RATE        BURST       PEAK           DROPPED   DSCP
cali1   default/cali1   egress      bandwidth     10 Mbit/s   4.29 Gbit   12.50 Mbit/s   7         -
cali1   default/cali1   egress      packet_rate   100 p/s     5 p         -              7         -
cali3   default/cali3   -           -             -           -           -              -         46
"
        );
    }

    #[test]
    fn nothing_to_show_is_said() {
        let view = PortsView { ports: vec![port("cali1", None)], ..PortsView::default() };
        assert_eq!(table(&view), "no endpoint has limits or a DSCP\n");
    }
}
