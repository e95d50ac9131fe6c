//! `tortie top`: what passes the running router, as rates, until Ctrl-C.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::config::CONTROL_SOCKET;
use crate::control::{self, Question};
use crate::forms::{DropsStatus, PortsView, Traffic};
use crate::output::{self, Form};
use crate::show::table::Table;

pub(crate) const EXAMPLES: &str = "\
Examples:
  tortie top
  tortie top --interval 5 --ports 40
  tortie top --count 1 -o json";

/// To the upper left, and empty from there on.
const CLEAR: &str = "\x1b[H\x1b[J";
/// Reasons that are shown.
const REASONS: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Seconds between two looks
    #[arg(short = 'i', long, value_name = "SECS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,

    /// How often; until Ctrl-C unless given
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u32>,

    /// How many ports, the busiest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    ports: usize,

    /// For people, or JSON for programs, a line each time
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,

    /// The control socket of the router to ask: `control_socket` of its tortie.yaml
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    socket: PathBuf,
}

/// The counters at one time.
struct Look {
    at: Instant,
    ports: PortsView,
    drops: DropsStatus,
}

/// Rates between two looks. The field names are an interface: programs read them. Add fields, don't rename them.
#[derive(Debug, PartialEq, Serialize)]
struct Rates {
    /// Seconds between the looks.
    seconds: f64,
    /// Of all ports.
    total: PortRates,
    /// The busiest first.
    ports: Vec<PortRates>,
    /// Packets a second, by reason; the most frequent first.
    dropped: Vec<ReasonRate>,
    /// Likewise.
    punted: Vec<ReasonRate>,
}

/// A second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct PortRates {
    name: String,
    received_packets: f64,
    received_bits: f64,
    forwarded_packets: f64,
    forwarded_bits: f64,
    /// Received here, and dropped by the walk.
    dropped_packets: f64,
    /// Lost by the kernel before the walk saw them.
    lost_packets: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ReasonRate {
    reason: String,
    packets: f64,
}

/// Looks and prints.
///
/// # Errors
/// The router doesn't answer.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let clear = if args.output == Form::Table && io::stdout().is_terminal() { CLEAR } else { "" };
    let mut before = Look::now(&args.socket)?;
    let mut looks = 0;
    while args.count.is_none_or(|count| looks < count) {
        std::thread::sleep(Duration::from_secs(args.interval));
        let now = Look::now(&args.socket)?;
        let rates = Rates::between(&before, &now);
        output::print(&match args.output {
            Form::Json => serde_json::to_string(&rates)? + "\n",
            Form::Table => format!("{clear}{}", table(&rates, args.ports)),
        })?;
        before = now;
        looks += 1;
    }
    Ok(ExitCode::SUCCESS)
}

impl Look {
    fn now(socket: &Path) -> Result<Look, control::AskError> {
        let ports = control::ask(socket, &Question::Ports)?;
        let drops = control::ask(socket, &Question::Drops)?;
        Ok(Look { at: Instant::now(), ports, drops })
    }
}

impl Rates {
    fn between(before: &Look, now: &Look) -> Rates {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(f64::MIN_POSITIVE);
        // A port that was closed and opened again counts from zero.
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        let mut ports = Vec::new();
        for port in &now.ports.ports {
            let same = |other: &&crate::forms::PortView| other.id == port.id && other.name == port.name;
            let Some(old) = before.ports.ports.iter().find(same) else { continue };
            let lost = |port: &crate::forms::PortView| port.queues.iter().map(|queue| queue.xdp.lost()).sum();
            let bits = |before: Traffic, now: Traffic| 8.0 * rate(before.bytes, now.bytes);
            ports.push(PortRates {
                name: port.name.clone(),
                received_packets: rate(old.received.packets, port.received.packets),
                received_bits: bits(old.received, port.received),
                forwarded_packets: rate(old.forwarded.packets, port.forwarded.packets),
                forwarded_bits: bits(old.forwarded, port.forwarded),
                dropped_packets: rate(old.dropped, port.dropped),
                lost_packets: rate(lost(old), lost(port)),
            });
        }
        let busy = |port: &PortRates| port.received_packets + port.forwarded_packets;
        ports.sort_by(|one, other| busy(other).total_cmp(&busy(one)).then_with(|| one.name.cmp(&other.name)));
        let total =
            ports.iter().fold(PortRates { name: "all".to_owned(), ..PortRates::default() }, PortRates::plus);
        let reasons = |before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>| {
            let mut rates: Vec<ReasonRate> = now
                .iter()
                .map(|(reason, count)| ReasonRate {
                    reason: reason.clone(),
                    packets: rate(before.get(reason).copied().unwrap_or_default(), *count),
                })
                .filter(|rate| rate.packets > 0.0)
                .collect();
            rates.sort_by(|one, other| other.packets.total_cmp(&one.packets));
            rates
        };
        let dropped = reasons(&before.drops.dropped.reasons, &now.drops.dropped.reasons);
        let punted = reasons(&before.drops.punted.reasons, &now.drops.punted.reasons);
        Rates { seconds, total, ports, dropped, punted }
    }
}

impl PortRates {
    fn plus(self, other: &PortRates) -> PortRates {
        PortRates {
            name: self.name,
            received_packets: self.received_packets + other.received_packets,
            received_bits: self.received_bits + other.received_bits,
            forwarded_packets: self.forwarded_packets + other.forwarded_packets,
            forwarded_bits: self.forwarded_bits + other.forwarded_bits,
            dropped_packets: self.dropped_packets + other.dropped_packets,
            lost_packets: self.lost_packets + other.lost_packets,
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            short(self.received_packets),
            short(self.received_bits),
            short(self.forwarded_packets),
            short(self.forwarded_bits),
            short(self.dropped_packets),
            short(self.lost_packets),
        ]
    }
}

fn table(rates: &Rates, ports: usize) -> String {
    let mut table =
        Table::new(&["PORT", "IN PKT/S", "IN BIT/S", "OUT PKT/S", "OUT BIT/S", "DROPPED/S", "LOST/S"]);
    table.row(rates.total.cells());
    for port in rates.ports.iter().take(ports) {
        table.row(port.cells());
    }
    let mut text = table.columns();
    if let Some(hidden) = rates.ports.len().checked_sub(ports).filter(|hidden| *hidden > 0) {
        text.push_str(&format!("and {hidden} ports with less; --ports {} shows them\n", rates.ports.len()));
    }
    for (heading, reasons) in [("DROPPED FOR", &rates.dropped), ("TO THE SLOW PATH FOR", &rates.punted)] {
        if reasons.is_empty() {
            continue;
        }
        let mut table = Table::new(&[heading, "PKT/S"]);
        for rate in reasons.iter().take(REASONS) {
            table.row(vec![rate.reason.clone(), short(rate.packets)]);
        }
        text.push_str(&format!("\n{}", table.columns()));
    }
    text
}

/// Three digits and a unit of thousands.
fn short(value: f64) -> String {
    let mut value = value;
    for unit in ["", " k", " M", " G"] {
        // What would be rounded to 1000 belongs to the next unit.
        if value < 999.5 {
            let digits = if unit.is_empty() || value >= 99.95 {
                0
            } else if value >= 9.995 {
                1
            } else {
                2
            };
            return format!("{value:.digits$}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} T")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::PortView;
    use slowpath::status::PortStatus;
    use tables::{Books, DropReason, PortCount};

    fn look(at: Instant, counts: &[(u16, &str, u64)], blackholed: u64) -> Look {
        let ports = counts.iter().map(|(id, name, received_packets)| {
            let port = PortStatus { id: *id, name: (*name).to_owned(), ..PortStatus::default() };
            let count = PortCount {
                received_packets: *received_packets,
                received_bytes: 100 * received_packets,
                ..PortCount::default()
            };
            PortView::new(port, &count, Vec::new())
        });
        let mut books = Books::default();
        books.drops[DropReason::Blackhole.index()] = blackholed;
        let ports =
            PortsView { ports: ports.collect(), problems: Vec::new(), workload_mtu: None, receivable: 1500 };
        Look { at, ports, drops: DropsStatus::new(&books) }
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks_the_busiest_port_first() {
        let start = Instant::now();
        let before = look(start, &[(1, "eth0", 10), (2, "cali1", 0), (3, "was", 5)], 4);
        let later = start + Duration::from_secs(2);
        let now = look(later, &[(1, "eth0", 12), (2, "cali1", 3000), (3, "is", 9)], 10);
        let rates = Rates::between(&before, &now);
        let shown: Vec<(&str, f64)> =
            rates.ports.iter().map(|port| (&*port.name, port.received_packets)).collect();
        assert_eq!(shown, [("cali1", 1500.0), ("eth0", 1.0)], "a port that is new has no rate yet");
        assert_eq!((rates.total.received_packets, rates.total.received_bits), (1501.0, 1501.0 * 800.0));
        assert_eq!(rates.dropped, [ReasonRate { reason: "blackhole".to_owned(), packets: 3.0 }]);
        let text = table(&rates, 1);
        assert!(text.contains("cali1   1.50 k     1.20 M"), "{text}");
        assert!(text.contains("and 1 ports with less; --ports 2 shows them"), "{text}");
        assert!(text.ends_with("DROPPED FOR   PKT/S\nblackhole     3\n"), "{text}");
    }

    #[test]
    fn a_port_that_was_opened_again_has_no_rate_below_zero() {
        let start = Instant::now();
        let (before, now) =
            (look(start, &[(1, "eth0", 10)], 0), look(start + Duration::from_secs(1), &[(1, "eth0", 2)], 0));
        assert_eq!(Rates::between(&before, &now).total.received_packets, 0.0);
    }

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        for (value, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (999.6, "1.00 k"),
            (12_345.0, "12.3 k"),
            (123_456.0, "123 k"),
            (999_600.0, "1.00 M"),
            (2.5e9, "2.50 G"),
            (7e13, "70.0 T"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
