//! `tortie show ports`.

use crate::forms::{PortView, PortsView, Traffic};

use super::table::{Table, bytes, or_dash};

pub(super) fn table(view: &PortsView) -> String {
    let mut table = Table::new(&[
        "NAME",
        "KIND",
        "STATE",
        "MTU",
        "QUEUES",
        "RECEIVED",
        "FORWARDED",
        "DROPPED",
        "LOST",
        "ENDPOINT",
    ]);
    for port in &view.ports {
        table.row(vec![
            port.name.clone(),
            port.kind.clone(),
            if port.up { "up" } else { "down" }.to_owned(),
            port.mtu.to_string(),
            queues(port),
            traffic(&port.received),
            traffic(&port.forwarded),
            port.dropped.to_string(),
            port.queues.iter().map(|queue| queue.xdp.lost()).sum::<u64>().to_string(),
            or_dash(port.endpoint.as_deref()),
        ]);
    }
    let mut text = table.columns();
    text.push_str(&format!("\nFrames hold packets of up to {} bytes.\n", view.receivable));
    let warnings: Vec<(&str, &String)> = view
        .ports
        .iter()
        .flat_map(|port| port.warnings.iter().map(|warning| (&*port.name, warning)))
        .collect();
    if let Some(mtu) = view.workload_mtu {
        text.push_str(&format!(
            "Workloads' interfaces carry at most {mtu} bytes, as the tunnels in use need.\n"
        ));
    }
    for (name, warning) in warnings {
        text.push_str(&format!("{name}: {warning}\n"));
    }
    for problem in &view.problems {
        text.push_str(&format!("{} is not a port: {}\n", problem.name, problem.problem));
    }
    text
}

/// How many, and what they got, such as `2 copy, native`.
fn queues(port: &PortView) -> String {
    let mut kinds: Vec<String> =
        port.queues.iter().map(|queue| format!("{}, {}", queue.report.mode, queue.report.attach)).collect();
    kinds.dedup();
    let count = port.queues.len();
    if count == 0 { "0".to_owned() } else { format!("{count} {}", kinds.join(" / ")) }
}

fn traffic(traffic: &Traffic) -> String {
    format!("{} ({})", traffic.packets, bytes(traffic.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::{QueueView, XdpCounts};
    use slowpath::QueueReport;
    use slowpath::status::PortProblem;

    #[test]
    fn a_port_says_what_its_queues_really_got_and_what_was_lost_before_the_walk() {
        let queue = |number: u32, mode: &str, lost: u64| QueueView {
            report: QueueReport {
                queue: number,
                worker: number as u16,
                mode: mode.to_owned(),
                attach: "native".to_owned(),
                receivable: 1778,
                notes: String::new(),
            },
            xdp: XdpCounts { rx_ring_full: lost, ..XdpCounts::default() },
        };
        let port = PortView {
            id: 0,
            name: "eth0".to_owned(),
            kind: "uplink".to_owned(),
            ifindex: 2,
            mac: "02:00:00:00:00:01".to_owned(),
            mtu: 1500,
            up: true,
            warnings: vec!["its MTU is too large".to_owned()],
            endpoint: None,
            qos: None,
            queues: vec![queue(0, "zero-copy", 1), queue(1, "copy", 2)],
            received: Traffic { packets: 10, bytes: 2048 },
            forwarded: Traffic { packets: 9, bytes: 512 },
            dropped: 1,
        };
        let problem =
            PortProblem { name: "eth9".to_owned(), problem: "there is no such interface".to_owned() };
        assert_eq!(
            table(&PortsView { ports: vec![port], problems: vec![problem], workload_mtu: Some(1450), receivable: 1778 }),
            "\
NAME   KIND     STATE   MTU    QUEUES                               RECEIVED       FORWARDED   DROPPED   LOST   ENDPOINT
eth0   uplink   up      1500   2 zero-copy, native / copy, native   10 (2.0 KiB)   9 (512 B)   1         3      -

Frames hold packets of up to 1778 bytes.
Workloads' interfaces carry at most 1450 bytes, as the tunnels in use need.
eth0: its MTU is too large
eth9 is not a port: there is no such interface
"
        );
    }
}
