//! What Prometheus scrapes.
//!
//! The page is built afresh for every scrape from what the router knows then, so a port or peer that is gone leaves
//! no series behind. Label values are bounded: ports by `limits.ports`, peers by the configuration, policies by a limit of the slow path, the rest by lists
//! in the program.

mod page;
mod sheet;

use slowpath::status::{
    BfdSessionStatus, BfdStatus, BgpStatus, LimitStatus, PeerStatus, PerFamily, PolicyNumbers, PolicyTotal,
    PrefixLimitStatus, StationStatus, StationsStatus, Summary,
};

use crate::forms::{DropsStatus, StagesStatus};
use crate::observer::CountedPort;
use crate::table_use::{TableUse, TablesStatus};
use page::Page;
pub(crate) use sheet::Sheet;

/// `Content-Type` of the page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// Everything that the page shows.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) ports: Vec<CountedPort>,
    pub(crate) drops: DropsStatus,
    pub(crate) stages: StagesStatus,
    pub(crate) flows: tables::FlowCounts,
    /// How full the tables are, where the slow path answered.
    pub(crate) tables: TablesStatus,
    /// Absent where the slow path didn't answer in time.
    pub(crate) summary: Option<Summary>,
}

/// Renders the page in Prometheus' text format, into the memory of `empty`.
pub(crate) fn render(sample: &Sample, empty: String) -> String {
    let mut page = Page::on(empty);
    let version = [(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)];
    page.gauges("tortie_build_info", "The version that runs; always 1.", &["version"], version);
    ports(&mut page, &sample.ports);
    books(&mut page, &sample.drops);
    stages(&mut page, &sample.stages);
    flows(&mut page, &sample.flows);
    let answered = f64::from(u8::from(sample.summary.is_some()));
    page.gauge(
        "tortie_slow_path_answering",
        "Did the slow path answer this scrape in time? Otherwise its metrics are absent.",
        answered,
    );
    if let Some(summary) = &sample.summary {
        slow_path(&mut page, summary);
        table_use(&mut page, &sample.tables);
        limits(&mut page, summary);
        policy(&mut page, &summary.policy);
        segments(&mut page, summary);
        bfd(&mut page, &summary.bfd);
        bgp(&mut page, &summary.bgp);
        stations(&mut page, &summary.stations);
    }
    page.done()
}

fn ports(page: &mut Page, ports: &[CountedPort]) {
    type Count = fn(&CountedPort) -> u64;
    let counters: [(&str, &str, Count); 5] = [
        ("tortie_received_packets_total", "Packets that the walk took from a port.", |p| {
            p.count.received_packets
        }),
        (
            "tortie_received_bytes_total",
            "Bytes that the walk took from a port, Ethernet headers included.",
            |p| p.count.received_bytes,
        ),
        ("tortie_forwarded_packets_total", "Packets given to a port's transmit rings.", |p| {
            p.count.forwarded_packets
        }),
        (
            "tortie_forwarded_bytes_total",
            "Bytes given to a port's transmit rings, Ethernet headers included.",
            |p| p.count.forwarded_bytes,
        ),
        ("tortie_port_dropped_packets_total", "Packets received on a port that the walk dropped.", |p| {
            p.count.dropped_packets
        }),
    ];
    for (name, help, count) in counters {
        page.counters(name, help, &["port"], ports.iter().map(|port| ([&port.name], count(port))));
    }
    xdp(page, ports)
}

fn xdp(page: &mut Page, ports: &[CountedPort]) {
    let queues =
        ports.iter().flat_map(|port| port.queues.iter().map(move |(queue, counts)| (port, queue, counts)));
    let queues: Vec<(&str, String, _)> =
        queues.map(|(port, queue, counts)| (port.name.as_str(), queue.to_string(), counts.list())).collect();
    for (index, (name, help, _)) in crate::forms::XdpCounts::default().list().into_iter().enumerate() {
        let rows = queues.iter().map(|(port, queue, counts)| ([*port, queue.as_str()], counts[index].2));
        page.counters(&format!("tortie_xdp_{name}_total"), help, &["port", "queue"], rows);
    }
}

fn table_use(page: &mut Page, status: &TablesStatus) {
    let rows = |count: fn(&TableUse) -> u64| {
        status.tables.iter().map(move |table| (vec![table.limit.clone()], count(table) as f64))
    };
    let help = "Rows in use of the table whose size this key below limits: in tortie.yaml sets.";
    page.gauges("tortie_table_rows", help, &["table"], rows(|table| table.in_use));
    let help = "Rows of the table whose size this key below limits: in tortie.yaml sets.";
    page.gauges("tortie_table_size", help, &["table"], rows(|table| table.size))
}

fn flows(page: &mut Page, flows: &tables::FlowCounts) {
    page.gauge(
        "tortie_flow_rows_used",
        "Rows of the flow table in use: one a flow, and one for each outer port.",
        flows.in_use as f64,
    );
    page.gauge("tortie_flow_rows", "Rows of the flow table.", flows.size as f64);
    page.gauge("tortie_nat_ports_used", "Ports of the outer addresses in use.", flows.ports as f64);
    page.counter(
        "tortie_flows_evicted_total",
        "Flows without an answer that went before their time to make room.",
        flows.evicted,
    )
}

fn books(page: &mut Page, drops: &DropsStatus) {
    let rows = |reasons: &std::collections::BTreeMap<String, u64>| {
        reasons.iter().map(|(reason, count)| (vec![reason.clone()], *count)).collect::<Vec<_>>()
    };
    page.counters(
        "tortie_punted_packets_total",
        "Packets copied to the slow path, by reason.",
        &["reason"],
        rows(&drops.punted.reasons),
    );
    page.counters(
        "tortie_dropped_packets_total",
        "Packets lost in the walk, by reason.",
        &["reason"],
        rows(&drops.dropped.reasons),
    );
    page.counter("tortie_injected_packets_total", "Packets that the slow path made.", drops.injected);
    page.counter(
        "tortie_fragmented_packets_total",
        "IPv4 packets larger than the next hop's MTU that were cut into fragments.",
        drops.fragmented,
    );
    page.counter(
        "tortie_fragments_total",
        "Fragments made of packets larger than the next hop's MTU.",
        drops.fragments,
    )
}

fn stages(page: &mut Page, stages: &StagesStatus) {
    let workers = || stages.workers.iter().map(|worker| (worker.worker.to_string(), worker));
    page.counters(
        "tortie_stage_ticks_total",
        "Ticks of the time-stamp counter that a worker spent in a stage of the walk, in batches that were timed.",
        &["worker", "stage"],
        workers().flat_map(|(number, worker)| {
            worker.ticks.iter().map(move |(stage, ticks)| (vec![number.clone(), stage.clone()], *ticks))
        }),
    );
    page.counters(
        "tortie_stage_timed_packets_total",
        "Packets in a worker's batches that were timed, one batch in 64: what tortie_stage_ticks_total is to be divided by.",
        &["worker"],
        workers().map(|(number, worker)| (vec![number], worker.packets)),
    )
}

fn slow_path(page: &mut Page, summary: &Summary) {
    let routes = summary.routes.iter().map(|(source, count)| (vec![source.clone()], *count as f64));
    page.gauges("tortie_routes", "Routes in force, by source.", &["source"], routes);
    page.gauges(
        "tortie_fib_routes",
        "Routes in the fast path's table.",
        &["family"],
        families(&[], &summary.fib_routes),
    );
    let answered = summary.punts_answered.iter().map(|(answer, count)| (vec![answer.clone()], *count));
    page.counters(
        "tortie_punts_answered_total",
        "Punted packets that the slow path dealt with, by what it did.",
        &["answer"],
        answered,
    );
    let errors = summary.icmp_errors.iter().flat_map(|(error, sent)| {
        [("ipv4", sent.ipv4), ("ipv6", sent.ipv6)]
            .map(|(family, count)| (vec![family.to_owned(), error.clone()], count))
    });
    page.counters(
        "tortie_icmp_errors_total",
        "ICMP errors made, by what they tell the sender.",
        &["family", "error"],
        errors,
    );
    page.counter(
        "tortie_datastore_changes_total",
        "Changes of the datastore that are in force.",
        summary.datastore.changes,
    );
    page.gauges(
        "tortie_datastore_delay_quantile_seconds",
        "What this share of the datastore's changes since the start took at most to be in force.",
        &["quantile"],
        [("0.5", summary.datastore.median_delay_seconds), ("0.99", summary.datastore.p99_delay_seconds)]
            .map(|(quantile, delay)| (vec![quantile.to_owned()], delay)),
    );
    let gauges: [(&str, &str, f64); 14] = [
        ("tortie_ready", "Is forwarding open?", f64::from(u8::from(summary.ready))),
        (
            "tortie_datastore_in_sync",
            "Is the datastore's first snapshot in?",
            f64::from(u8::from(summary.in_sync)),
        ),
        (
            "tortie_datastore_invalid_files",
            "Files of the datastore that are malformed now.",
            summary.invalid_files.len() as f64,
        ),
        (
            "tortie_datastore_stale_seconds",
            "How long the datastore hasn't been followed; 0 while it is.",
            summary.datastore.stale_seconds as f64,
        ),
        (
            "tortie_datastore_load_seconds",
            "What the datastore's first snapshot took, from the start until it was in force; 0 before.",
            summary.datastore.load_seconds.unwrap_or(0.0),
        ),
        (
            "tortie_datastore_delay_seconds",
            "What the last change of the datastore took to be in force.",
            summary.datastore.last_delay_seconds,
        ),
        (
            "tortie_datastore_delay_longest_seconds",
            "The longest that a change of the datastore took to be in force.",
            summary.datastore.longest_delay_seconds,
        ),
        ("tortie_fib_bytes", "Memory of the fast path's look-up structures.", summary.fib_bytes as f64),
        ("tortie_adjacencies", "Neighbours that frames can be addressed to.", summary.adjacencies as f64),
        ("tortie_nexthop_groups", "Distinct sets of next hops.", summary.groups as f64),
        (
            "tortie_refused_routes",
            "Routes that a full table refused; raise its limit.",
            summary.refused_routes as f64,
        ),
        ("tortie_neighbors", "Neighbours known.", summary.neighbors as f64),
        ("tortie_mirrored_routes", "Routes that the kernel's mirror holds.", summary.mirrored_routes as f64),
        (
            "tortie_warnings",
            "What an operator should look at; the log names it.",
            summary.warnings.len() as f64,
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, value);
    }
}

/// Drops by limit: `direction` is ingress, towards the workload, or egress.
fn limits(page: &mut Page, summary: &Summary) {
    let rows = |count: fn(&LimitStatus) -> u64| {
        summary.qos.iter().flat_map(move |(port, qos)| {
            qos.limits
                .iter()
                .map(move |limit| ([port.as_str(), &limit.direction, &limit.limit], count(limit)))
        })
    };
    let labels = ["port", "direction", "limit"];
    page.counters(
        "tortie_limit_dropped_packets_total",
        "Packets that a limit of an endpoint dropped.",
        &labels,
        rows(|limit| limit.dropped),
    );
    page.gauges(
        "tortie_limit_rate",
        "What a limit of an endpoint allows, in bits or packets a second, or connections at a time.",
        &labels,
        rows(|limit| limit.rate).map(|(labels, rate)| (labels, rate as f64)),
    )
}

/// What policies have decided at all endpoints together.
fn policy(page: &mut Page, policy: &PolicyNumbers) {
    let rows = |staged: bool, count: fn(&PolicyTotal) -> u64| {
        policy.totals.iter().filter(move |total| total.staged == staged).map(move |total| {
            let PolicyTotal { tier, policy, direction, action, .. } = total;
            ([tier, policy, direction, action].map(String::as_str), count(total))
        })
    };
    let labels = ["tier", "policy", "direction", "action"];
    page.counters(
        "tortie_policy_packets_total",
        "Packets that a policy's rules decided on: a flow's first, and every one that is denied. No policy is a tier's end.",
        &labels,
        rows(false, |total| total.packets),
    );
    page.counters(
        "tortie_policy_bytes_total",
        "Bytes of the packets of tortie_policy_packets_total, Ethernet headers included.",
        &labels,
        rows(false, |total| total.bytes),
    );
    page.counters(
        "tortie_policy_staged_denied_packets_total",
        "Packets that passed and that staged policy would have denied.",
        &labels,
        rows(true, |total| total.would_deny_packets).filter(|(labels, _)| labels[3] != "allow"),
    );
    page.counter(
        "tortie_policy_uncounted_packets_total",
        "Packets that policy decided on and that not all of its counts have, as there were too many rules or policies.",
        policy.uncounted,
    )
}

/// Forwarding databases of VXLAN segments, and what has happened in them.
fn segments(page: &mut Page, summary: &Summary) {
    let entries = summary.segments.iter().flat_map(|segment| {
        segment.fdb.iter().map(|(origin, count)| (vec![segment.name.clone(), origin.clone()], *count as f64))
    });
    page.gauges(
        "tortie_segment_fdb_entries",
        "Entries of a VXLAN segment's forwarding database: static, learned, or flooded to.",
        &["segment", "origin"],
        entries,
    );
    let events = summary.segments.iter().flat_map(|segment| {
        segment.counts.iter().map(|(what, count)| (vec![segment.name.clone(), what.clone()], *count))
    });
    page.counters(
        "tortie_segment_events_total",
        "What has happened in a VXLAN segment: stations learned, moved, aged, without room, questions asked and answered.",
        &["segment", "event"],
        events,
    )
}

fn bfd(page: &mut Page, bfd: &BfdStatus) {
    let of = |count: fn(&BfdSessionStatus) -> f64| {
        bfd.bfd_sessions.iter().map(move |session| {
            let interface = session.interface.clone().unwrap_or_default();
            (vec![session.address.to_string(), interface], count(session))
        })
    };
    let labels = &["peer", "interface"];
    let up = of(|session| f64::from(u8::from(session.state == "Up")));
    page.gauges("tortie_bfd_up", "Is the BFD session up?", labels, up);
    let detection = of(|session| session.detection_time_us.unwrap_or_default() as f64 / 1e6);
    page.gauges(
        "tortie_bfd_detection_seconds",
        "After which silence a peer counts as lost; 0 until it is heard.",
        labels,
        detection,
    );
    let refused = bfd.refused.iter().map(|(reason, count)| (vec![reason.clone()], *count));
    page.counters("tortie_bfd_refused_total", "BFD packets refused, by reason.", &["reason"], refused);
    let counts = |count: fn(&BfdSessionStatus) -> u64| {
        bfd.bfd_sessions.iter().map(move |session| {
            let interface = session.interface.clone().unwrap_or_default();
            (vec![session.address.to_string(), interface], count(session))
        })
    };
    page.counters("tortie_bfd_ups_total", "How often a BFD session came up.", labels, counts(|s| s.ups));
    page.counters("tortie_bfd_received_total", "BFD packets taken.", labels, counts(|s| s.received));
    page.counters("tortie_bfd_sent_total", "BFD packets sent.", labels, counts(|s| s.sent))
}

fn bgp(page: &mut Page, bgp: &BgpStatus) {
    let up = bgp
        .peers
        .iter()
        .map(|peer| (vec![peer.name.clone(), peer.address.to_string()], f64::from(u8::from(peer.up))));
    page.gauges("tortie_bgp_peer_up", "Is the session established?", &["peer", "address"], up);
    let prefixes = |count: fn(&PeerStatus) -> &PerFamily| {
        bgp.peers.iter().flat_map(move |peer| families(&[&peer.name], count(peer)))
    };
    page.gauges(
        "tortie_bgp_prefixes_received",
        "Prefixes that a peer announces to us.",
        &["peer", "family"],
        prefixes(|p| &p.received),
    );
    page.gauges(
        "tortie_bgp_prefixes_announced",
        "Prefixes that we announce to a peer.",
        &["peer", "family"],
        prefixes(|p| &p.announced),
    );
    let counts = |count: fn(&PeerStatus) -> u64| {
        bgp.peers.iter().map(move |peer| (vec![peer.name.clone()], count(peer)))
    };
    page.counters(
        "tortie_bgp_messages_received_total",
        "BGP messages received from a peer.",
        &["peer"],
        counts(|p| p.messages_received),
    );
    page.counters(
        "tortie_bgp_messages_sent_total",
        "BGP messages sent to a peer.",
        &["peer"],
        counts(|p| p.messages_sent),
    );
    page.counters(
        "tortie_bgp_established_total",
        "How often a session came up.",
        &["peer"],
        counts(|p| p.established_count),
    );
    page.counter(
        "tortie_bgp_orders_full_total",
        "How often the event loop had to wait as the queue of its orders to BGP was full.",
        bgp.orders_full,
    );
    prefix_limits(page, bgp)
}

fn prefix_limits(page: &mut Page, bgp: &BgpStatus) {
    let limits = |count: fn(&PrefixLimitStatus) -> u64| {
        let row = move |peer: &PeerStatus| (vec![peer.name.clone()], count(&peer.prefix_limit));
        bgp.peers.iter().map(row)
    };
    page.gauges(
        "tortie_bgp_prefix_limit",
        "Paths that a peer may hold in a family.",
        &["peer"],
        limits(|limit| limit.most).map(|(labels, most)| (labels, most as f64)),
    );
    page.counters(
        "tortie_bgp_prefix_limit_warnings_total",
        "Warnings that a peer is near its limit.",
        &["peer"],
        limits(|limit| limit.warnings),
    );
    page.counters(
        "tortie_bgp_prefix_limit_exceeded_total",
        "How often a peer has announced more than its limit.",
        &["peer"],
        limits(|limit| limit.reached),
    );
    page.counters(
        "tortie_bgp_paths_refused_total",
        "Paths not taken for a peer's limit.",
        &["peer"],
        limits(|limit| limit.refused),
    )
}

fn stations(page: &mut Page, status: &StationsStatus) {
    let rows = |value: fn(&StationStatus) -> u64| {
        status.stations.iter().map(move |station| (vec![station.address.clone()], value(station)))
    };
    let gauge = |value| rows(value).map(|(labels, value)| (labels, value as f64));
    let labels = &["station"];
    page.gauges("tortie_bmp_up", "Is the monitoring station connected?", labels, gauge(|s| s.up.into()));
    page.gauges(
        "tortie_bmp_queued_bytes",
        "Bytes that wait for a monitoring station.",
        labels,
        gauge(|s| s.queued_bytes),
    );
    page.counters(
        "tortie_bmp_sent_bytes_total",
        "Bytes sent to a monitoring station.",
        labels,
        rows(|s| s.sent_bytes),
    );
    page.counters(
        "tortie_bmp_cut_off_total",
        "How often a monitoring station was cut off for being slow.",
        labels,
        rows(|s| s.cut_off_count),
    );
}

/// One row a family, after the given labels.
fn families(labels: &[&str], count: &PerFamily) -> [(Vec<String>, f64); 2] {
    [("ipv4", count.ipv4), ("ipv6", count.ipv6)].map(|(family, count)| {
        let labels = labels.iter().chain([&family]).map(|label| (*label).to_owned()).collect();
        (labels, count as f64)
    })
}

#[cfg(test)]
mod cost;
#[cfg(test)]
pub(crate) mod exposition;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod tests;
