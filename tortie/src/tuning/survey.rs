//! What `node checksystem` adds: what each port really got, and what others than the router should change.

use std::path::Path;

use afxdp::{DeviceFeatures, NicQueues, NicRings, interface_index};

use super::advice::{self, Uplink};
use super::machine::Machine;
use crate::config::Config;
use crate::control::{self, Question};
use crate::cores;
use crate::forms::{PortView, PortsView};

/// Of the router that answers at the socket, or else of the uplinks that the configuration names. Nothing where neither
/// is there: then this is no node of ours.
pub(crate) fn survey(config: &Path, socket: &Path) -> String {
    let config = Config::read(config).ok();
    let ports = control::ask::<PortsView>(socket, &Question::Ports).ok();
    if config.is_none() && ports.is_none() {
        return String::new();
    }
    let machine = Machine::at(Path::new("/"));
    let mut text = String::from("Checking ports...\n");
    for port in ports.iter().flat_map(|view| &view.ports) {
        text.push_str(&got(port, &machine, NicRings::of(&port.name).ok()));
    }
    let mut advice = advice::of_machine(&machine);
    if let Some(config) = &config {
        let pinned: Vec<usize> = cores::Machine::read()
            .plan(config)
            .map(|plan| plan.cores)
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        advice.extend(advice::of_cores(&pinned, &config.uplinks, &machine));
        for name in &config.uplinks {
            match uplink(name) {
                Some(uplink) => advice.extend(advice::of_uplink(&uplink, config.workers as u32, &machine)),
                None => advice.push(format!("there is no interface {name}")),
            }
        }
    }
    if advice.is_empty() {
        text.push_str("Nothing to advise.\n");
    }
    for line in advice {
        text.push_str(&format!("ADVICE: {line}\n"));
    }
    text
}

/// One port: a line for each queue.
fn got(port: &PortView, machine: &Machine, rings: Option<NicRings>) -> String {
    let rings = rings.map_or("no rings of its own".to_owned(), |rings| {
        format!("rings of {} (receive) and {} (transmit) slots", rings.rx, rings.tx)
    });
    let mut text = format!("\t\t{}: {} queues, {rings}\n", port.name, port.queues.len());
    let interrupts = machine.interrupts(&port.name);
    for queue in &port.queues {
        let report = &queue.report;
        let of_queue = interrupts.iter().filter(|interrupt| interrupt.queue == report.queue as usize);
        let cores = of_queue.map(|interrupt| {
            let cores = machine.read(&format!("/proc/irq/{}/effective_affinity_list", interrupt.irq));
            format!(
                ", interrupt {} ({}) on core {}",
                interrupt.irq,
                interrupt.name,
                cores.unwrap_or_default()
            )
        });
        text.push_str(&format!(
            "\t\t\tqueue {}: worker {}, {}, {} XDP{}\n",
            report.queue,
            report.worker,
            report.mode,
            report.attach,
            cores.collect::<String>()
        ));
    }
    text
}

fn uplink(name: &str) -> Option<Uplink> {
    let features = DeviceFeatures::of(interface_index(name).ok()?).ok()?;
    Some(Uplink {
        name: name.to_owned(),
        driver: features.driver,
        queues: NicQueues::of(name).ok(),
        zero_copy: features.zero_copy,
    })
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::machine;
    use super::*;

    #[test]
    fn a_port_is_shown_with_its_queues_rings_and_interrupts() {
        let (_folder, machine) = machine(&[
            ("/proc/interrupts", "  40:  0  PCI-MSIX-0000:03:00.0   0-edge      eth0-TxRx-0\n"),
            ("/proc/irq/40/effective_affinity_list", "2\n"),
        ]);
        let port: PortView = serde_json::from_value(serde_json::json!({
            "id": 0, "name": "eth0", "kind": "uplink", "ifindex": 2, "mac": "02:00:00:00:00:01", "mtu": 1500, "up": true,
            "endpoint": null, "dropped": 0,
            "received": {"packets": 0, "bytes": 0}, "forwarded": {"packets": 0, "bytes": 0},
            "queues": [{
                "queue": 0, "worker": 0, "mode": "zero-copy", "attach": "native", "notes": "",
                "xdp": {"rx_dropped": 0, "rx_ring_full": 0, "rx_fill_ring_empty": 0, "rx_invalid": 0, "tx_invalid": 0, "tx_ring_empty": 0},
            }],
        }))
        .unwrap();
        let rings = NicRings { rx: 256, tx: 512, rx_max: 4096, tx_max: 4096 };
        assert_eq!(
            got(&port, &machine, Some(rings)),
            "\t\teth0: 1 queues, rings of 256 (receive) and 512 (transmit) slots\n\
             \t\t\tqueue 0: worker 0, zero-copy, native XDP, interrupt 40 (eth0-TxRx-0) on core 2\n"
        );
    }

    #[test]
    fn a_machine_that_is_no_node_of_ours_is_told_nothing() {
        let nowhere = Path::new("/nonexistent/tortie");
        assert_eq!(survey(nowhere, nowhere), "");
    }
}
