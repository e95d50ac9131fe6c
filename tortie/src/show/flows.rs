//! `tortie show flows`: what the walk remembers, and what it translates.

use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tables::{FlowCounts, FlowRow};

use super::table::Table;
use crate::limits;

/// `show flows`. The field names are an interface: programs read them. Add fields, don't rename them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowsStatus {
    /// Flows asked for, as many as were asked for; those heard last come first.
    pub(crate) flows: Vec<FlowView>,
    /// How many match in all.
    pub(crate) total: usize,
    /// Rows of the table in use; a flow takes one, a workload's translated port another, and so do the ports of one address.
    pub(crate) in_use: usize,
    /// Rows of the table.
    pub(crate) size: usize,
    /// Flows that went before their time to make room.
    pub(crate) evicted: u64,
    /// Outer ports in use.
    pub(crate) ports: usize,
    /// First packets dropped because their workload had its share of outer ports.
    #[serde(default)]
    pub(crate) over_share: u64,
    /// The sources with the most flows among all that match, at most ten; sources beyond the first 65,536 aren't counted.
    #[serde(default)]
    pub(crate) sources: Vec<FlowsOf>,
}

/// How many flows an address has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are described above")]
pub(crate) struct FlowsOf {
    pub(crate) source: IpAddr,
    pub(crate) flows: usize,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowView {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or the protocol's number.
    pub(crate) protocol: String,
    /// As its first packet came in.
    pub(crate) original: Ends,
    /// As its first packet went on: the same, unless it is translated.
    pub(crate) translated: Ends,
    /// `new`, `answered`, `established`, `closed` or `reset`.
    pub(crate) state: String,
    /// Seconds since its last packet.
    pub(crate) silent: u32,
}

/// The ends of a packet; ports are 0 where there are none, and an ICMP query's identifier stands for both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are described above")]
pub(crate) struct Ends {
    pub(crate) source: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination: IpAddr,
    pub(crate) destination_port: u16,
}

impl Ends {
    fn of(key: &packet::FlowKey) -> Ends {
        let (source, destination) = (key.source(), key.destination());
        Ends { source, source_port: key.sport, destination, destination_port: key.dport }
    }

    fn have(&self, address: IpAddr) -> bool {
        self.source == address || self.destination == address
    }
}

impl FlowView {
    fn of(row: &FlowRow) -> FlowView {
        FlowView {
            protocol: protocol(row.original.protocol),
            original: Ends::of(&row.original),
            translated: Ends::of(&row.reply.reversed()),
            state: row.state.to_owned(),
            silent: row.silent,
        }
    }
}

fn protocol(number: u8) -> String {
    match number {
        packet::protocol::TCP => "tcp".to_owned(),
        packet::protocol::UDP => "udp".to_owned(),
        packet::protocol::ICMP => "icmp".to_owned(),
        packet::protocol::ICMPV6 => "icmpv6".to_owned(),
        packet::protocol::SCTP => "sctp".to_owned(),
        other => other.to_string(),
    }
}

impl FlowsStatus {
    /// The flows that have this address on either side, before or after translation; all of them without one.
    pub(crate) fn new(
        rows: impl Iterator<Item = FlowRow>,
        counts: FlowCounts,
        address: Option<IpAddr>,
        limit: usize,
    ) -> FlowsStatus {
        let FlowCounts { in_use, size, evicted, ports, over_share } = counts;
        let mut status = FlowsStatus { in_use, size, evicted, ports, over_share, ..FlowsStatus::default() };
        let matches = |flow: &FlowView| {
            address.is_none_or(|address| flow.original.have(address) || flow.translated.have(address))
        };
        // The greatest is the first to go: the one that has been silent for longest.
        let mut heard_last = BinaryHeap::new();
        let mut kept = Vec::new();
        let mut sources: HashMap<IpAddr, usize> = HashMap::new();
        for flow in rows.map(|row| FlowView::of(&row)).filter(matches) {
            status.total += 1;
            let has_room = sources.len() < limits::FLOW_SOURCES_COUNTED;
            if let Some(flows) = sources.get_mut(&flow.original.source) {
                *flows += 1;
            } else if has_room {
                sources.insert(flow.original.source, 1);
            }
            if kept.len() < limit {
                heard_last.push((flow.silent, kept.len()));
                kept.push(flow);
            } else if let Some((_, place)) =
                heard_last.peek().copied().filter(|(silent, _)| flow.silent < *silent)
            {
                heard_last.pop();
                heard_last.push((flow.silent, place));
                kept[place] = flow;
            }
        }
        kept.sort_by_key(|flow| flow.silent);
        status.flows = kept;
        let mut sources: Vec<FlowsOf> =
            sources.into_iter().map(|(source, flows)| FlowsOf { source, flows }).collect();
        sources.sort_unstable_by_key(|of| (std::cmp::Reverse(of.flows), of.source));
        sources.truncate(limits::FLOW_SOURCES_SHOWN);
        status.sources = sources;
        status
    }
}

pub(super) fn table(status: &FlowsStatus) -> String {
    let mut table = Table::new(&[
        "PROTOCOL",
        "SOURCE",
        "DESTINATION",
        "TRANSLATED SOURCE",
        "TRANSLATED DESTINATION",
        "STATE",
        "SILENT",
    ]);
    for flow in &status.flows {
        let FlowView { original, translated, .. } = flow;
        let (source, destination) = ends(original);
        let (to_source, to_destination) = ends(translated);
        let changed = |from: &str, to: String| if from == to { "-".to_owned() } else { to };
        table.row(vec![
            flow.protocol.clone(),
            source.clone(),
            destination.clone(),
            changed(&source, to_source),
            changed(&destination, to_destination),
            flow.state.clone(),
            format!("{} s", flow.silent),
        ]);
    }
    let sums = format!(
        "{} of {} flows; {} of {} rows and {} outer ports in use, {} flows evicted, \
         {} packets above a workload's share of ports.\n",
        status.flows.len(),
        status.total,
        status.in_use,
        status.size,
        status.ports,
        status.evicted,
        status.over_share
    );
    if table.is_empty() { sums } else { table.columns() + &sums }
}

/// Source and destination, with their ports where there are any.
fn ends(ends: &Ends) -> (String, String) {
    let end = |address: IpAddr, port: u16| match port {
        0 => address.to_string(),
        port => std::net::SocketAddr::new(address, port).to_string(),
    };
    (end(ends.source, ends.source_port), end(ends.destination, ends.destination_port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Family;
    use packet::FlowKey;

    fn rows() -> Vec<FlowRow> {
        let original = FlowKey {
            src: 0x0a41_0002,
            dst: 0xc000_0201,
            sport: 5000,
            dport: 53,
            protocol: 17,
            family: Family::V4,
        };
        let outer = FlowKey { src: 0xac12_0001, sport: 50_000, ..original };
        let plain = FlowKey { src: 7, dst: 9, sport: 0, dport: 0, protocol: 47, family: Family::V6 };
        vec![
            FlowRow { original, reply: outer.reversed(), state: "established", silent: 3 },
            FlowRow { original: plain, reply: plain.reversed(), state: "new", silent: 0 },
        ]
    }

    fn counts() -> FlowCounts {
        FlowCounts { in_use: 3, size: 1024, evicted: 4, ports: 1, over_share: 5 }
    }

    #[test]
    fn only_what_is_translated_shows_in_the_columns_for_it() {
        let status = FlowsStatus::new(rows().into_iter(), counts(), None, 10);
        assert_eq!(
            table(&status),
            "\
PROTOCOL   SOURCE           DESTINATION    TRANSLATED SOURCE   TRANSLATED DESTINATION   STATE         SILENT
47         ::7              ::9            -                   -                        new           0 s
udp        10.65.0.2:5000   192.0.2.1:53   172.18.0.1:50000    -                        established   3 s
2 of 2 flows; 3 of 1024 rows and 1 outer ports in use, 4 flows evicted, 5 packets above a workload's share of ports.
"
        );
    }

    #[test]
    fn those_heard_last_are_shown_and_those_with_most_flows_named() {
        let row = |source: u128, silent: u32| {
            let original =
                FlowKey { src: source, dst: 9, sport: 1, dport: 2, protocol: 17, family: Family::V6 };
            FlowRow { original, reply: original.reversed(), state: "new", silent }
        };
        let rows = [(1, 5), (2, 1), (1, 7), (3, 0), (1, 2)].map(|(source, silent)| row(source, silent));
        let status = FlowsStatus::new(rows.into_iter(), counts(), None, 2);
        let silent: Vec<u32> = status.flows.iter().map(|flow| flow.silent).collect();
        assert_eq!((silent, status.total), (vec![0, 1], 5));
        let sources: Vec<(String, usize)> =
            status.sources.iter().map(|of| (of.source.to_string(), of.flows)).collect();
        assert_eq!(sources, [("::1".to_owned(), 3), ("::2".to_owned(), 1), ("::3".to_owned(), 1)]);
    }

    #[test]
    fn an_address_is_looked_for_on_both_sides_of_the_translation_and_all_are_counted() {
        let of = |address: &str, limit| {
            let address = Some(address.parse().unwrap());
            let status = FlowsStatus::new(rows().into_iter(), counts(), address, limit);
            (status.flows.len(), status.total)
        };
        assert_eq!(of("172.18.0.1", 10), (1, 1));
        assert_eq!(of("10.65.0.2", 0), (0, 1));
        assert_eq!(of("10.65.0.3", 10), (0, 0));
    }
}
