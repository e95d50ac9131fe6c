//! The page as Prometheus reads it.

use super::exposition::read;
use super::*;
use crate::forms::StagesStatus;
use crate::forms::XdpCounts;
use crate::limits::Limits;
use slowpath::status::{QosStatus, SegmentNumbers};
use tables::{Books, DropReason, PortCount, PuntReason, Stage};

fn peer(name: &str, address: &str) -> PeerStatus {
    PeerStatus {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        asn: 64512,
        kind: "node-to-node mesh".to_owned(),
        state: "Established".to_owned(),
        up: true,
        since: String::new(),
        since_seconds: 0,
        info: String::new(),
        received: PerFamily { ipv4: 3, ipv6: 4 },
        announced: PerFamily { ipv4: 1, ipv6: 2 },
        hold_time_seconds: None,
        messages_received: 10,
        messages_sent: 11,
        established_count: 2,
        last_error: None,
        prefix_limit: PrefixLimitStatus::default(),
    }
}

fn bfd() -> BfdStatus {
    let session = BfdSessionStatus {
        address: "10.0.0.2".parse().unwrap(),
        local: "10.0.0.1".parse().unwrap(),
        interface: Some("eth0".to_owned()),
        state: "Up".to_owned(),
        since_seconds: 5,
        diagnostic: String::new(),
        remote: None,
        local_discriminator: 1,
        remote_discriminator: 2,
        transmit_interval_us: Some(100_000),
        detection_time_us: Some(300_000),
        ups: 1,
        received: 7,
        sent: 8,
    };
    BfdStatus {
        bfd_sessions: vec![session],
        refused: [("no_session".to_owned(), 1)].into_iter().collect(),
        problem: None,
        ordinary: None,
    }
}

fn total(staged: bool) -> PolicyTotal {
    PolicyTotal {
        tier: "default".to_owned(),
        policy: "ns/web".to_owned(),
        direction: "ingress".to_owned(),
        action: "deny".to_owned(),
        staged,
        packets: 5,
        bytes: 300,
        would_deny_packets: if staged { 2 } else { 0 },
    }
}

/// A router with something of everything.
pub(super) fn sample() -> Sample {
    let mut books = Books { received: 7, injected: 2, forwarded: 3, ..Books::default() };
    books.punts[PuntReason::Arp.index()] = 1;
    books.drops[DropReason::Blackhole.index()] = 5;
    let count = PortCount { received_packets: 7, received_bytes: 700, ..PortCount::default() };
    let queues = vec![(0, XdpCounts { rx_ring_full: 9, ..XdpCounts::default() }), (1, XdpCounts::default())];
    let limit = LimitStatus {
        direction: "ingress".to_owned(),
        limit: "bandwidth".to_owned(),
        rate: 1_000_000,
        burst: 8,
        peak_rate: None,
        dropped: 3,
    };
    let summary = Summary {
        in_sync: true,
        ready: true,
        routes: [("bgp".to_owned(), 12), ("connected".to_owned(), 1)].into_iter().collect(),
        fib_routes: PerFamily { ipv4: 13, ipv6: 0 },
        fib_bytes: 4096,
        adjacencies: 2,
        groups: 1,
        invalid_files: [("bad.yaml".to_owned(), "why".to_owned())].into_iter().collect(),
        punts_answered: [("arp".to_owned(), 1)].into_iter().collect(),
        icmp_errors: [("too_big".to_owned(), PerFamily { ipv4: 4, ipv6: 0 })].into_iter().collect(),
        qos: [("cali1".to_owned(), QosStatus { limits: vec![limit], dscp: None })].into_iter().collect(),
        policy: PolicyNumbers { totals: vec![total(false), total(true)], uncounted: 4 },
        bfd: bfd(),
        segments: vec![SegmentNumbers {
            name: "site".to_owned(),
            fdb: [("learned".to_owned(), 2)].into_iter().collect(),
            counts: [("moved".to_owned(), 1)].into_iter().collect(),
        }],
        bgp: BgpStatus {
            peers: vec![peer("Mesh_10_0_0_2", "10.0.0.2")],
            orders_full: 8,
            ..BgpStatus::default()
        },
        ..Summary::default()
    };
    Sample {
        flows: tables::FlowCounts { in_use: 3, size: 16, evicted: 2, ports: 1, over_share: 6 },
        stages: StagesStatus::new([tables::StageSample {
            packets: 64,
            ticks: [640; Stage::ALL.len()],
            ..Default::default()
        }]),
        ports: vec![CountedPort { id: 0, name: "eth0".to_owned(), count, queues }],
        drops: DropsStatus::new(&books),
        tables: TablesStatus::new(&Limits::default(), &summary, &tables::FlowCounts::default(), 1),
        summary: Some(summary),
    }
}

const DENIED: &str = "action=\"deny\",direction=\"ingress\",policy=\"ns/web\",tier=\"default\"";

#[test]
fn the_page_is_what_prometheus_reads() {
    let families = read(&render(&sample(), String::new())).unwrap();
    let expected = [
        ("tortie_received_packets_total", "port=\"eth0\"", 7.0),
        ("tortie_received_bytes_total", "port=\"eth0\"", 700.0),
        ("tortie_forwarded_packets_total", "port=\"eth0\"", 0.0),
        ("tortie_forwarded_bytes_total", "port=\"eth0\"", 0.0),
        ("tortie_punted_packets_total", "reason=\"arp\"", 1.0),
        ("tortie_dropped_packets_total", "reason=\"blackhole\"", 5.0),
        ("tortie_dropped_packets_total", "reason=\"not_ready\"", 0.0),
        ("tortie_injected_packets_total", "", 2.0),
        ("tortie_fragmented_packets_total", "", 0.0),
        ("tortie_fragments_total", "", 0.0),
        ("tortie_icmp_errors_total", "error=\"too_big\",family=\"ipv4\"", 4.0),
        ("tortie_stage_ticks_total", "stage=\"route\",worker=\"0\"", 640.0),
        ("tortie_stage_timed_packets_total", "worker=\"0\"", 64.0),
        ("tortie_xdp_rx_ring_full_total", "port=\"eth0\",queue=\"0\"", 9.0),
        ("tortie_xdp_rx_ring_full_total", "port=\"eth0\",queue=\"1\"", 0.0),
        (
            "tortie_limit_dropped_packets_total",
            "direction=\"ingress\",limit=\"bandwidth\",port=\"cali1\"",
            3.0,
        ),
        ("tortie_limit_rate", "direction=\"ingress\",limit=\"bandwidth\",port=\"cali1\"", 1e6),
        ("tortie_policy_packets_total", DENIED, 5.0),
        ("tortie_policy_bytes_total", DENIED, 300.0),
        ("tortie_policy_staged_denied_packets_total", DENIED, 2.0),
        ("tortie_policy_uncounted_packets_total", "", 4.0),
        ("tortie_routes", "source=\"bgp\"", 12.0),
        ("tortie_fib_routes", "family=\"ipv4\"", 13.0),
        ("tortie_fib_routes", "family=\"ipv6\"", 0.0),
        ("tortie_fib_bytes", "", 4096.0),
        ("tortie_adjacencies", "", 2.0),
        ("tortie_nexthop_groups", "", 1.0),
        ("tortie_neighbors", "", 0.0),
        ("tortie_mirrored_routes", "", 0.0),
        ("tortie_datastore_in_sync", "", 1.0),
        ("tortie_datastore_invalid_files", "", 1.0),
        ("tortie_datastore_stale_seconds", "", 0.0),
        ("tortie_datastore_changes_total", "", 0.0),
        ("tortie_table_rows", "table=\"routes_v4\"", 13.0),
        ("tortie_table_size", "table=\"ports\"", 512.0),
        ("tortie_ready", "", 1.0),
        ("tortie_slow_path_answering", "", 1.0),
        ("tortie_bgp_prefixes_received", "family=\"ipv6\",peer=\"Mesh_10_0_0_2\"", 4.0),
        ("tortie_bgp_prefixes_announced", "family=\"ipv4\",peer=\"Mesh_10_0_0_2\"", 1.0),
        ("tortie_bgp_messages_received_total", "peer=\"Mesh_10_0_0_2\"", 10.0),
        ("tortie_bgp_messages_sent_total", "peer=\"Mesh_10_0_0_2\"", 11.0),
        ("tortie_bgp_established_total", "peer=\"Mesh_10_0_0_2\"", 2.0),
        ("tortie_bgp_orders_full_total", "", 8.0),
        ("tortie_bgp_peer_up", "address=\"10.0.0.2\",peer=\"Mesh_10_0_0_2\"", 1.0),
    ];
    for (name, labels, value) in expected {
        let family = families.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(family.samples.get(labels), Some(&value), "{name}{{{labels}}}: {family:?}");
    }
    assert_eq!(families["tortie_dropped_packets_total"].samples.len(), DropReason::ALL.len());
    assert!(
        families["tortie_build_info"].samples.keys().any(|labels| labels.contains(env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn the_walk_is_measured_even_while_the_slow_path_is_busy() {
    let families = read(&render(&Sample { summary: None, ..sample() }, String::new())).unwrap();
    assert_eq!(families["tortie_slow_path_answering"].samples[""], 0.0);
    assert_eq!(families["tortie_received_packets_total"].samples["port=\"eth0\""], 7.0);
    assert!(!families.contains_key("tortie_ready"));
}

#[test]
fn a_name_with_strange_letters_does_not_break_the_page() {
    let mut sample = sample();
    sample.ports[0].name = "a\"b\\c".to_owned();
    let families = read(&render(&sample, String::new())).unwrap();
    assert!(families["tortie_received_packets_total"].samples.contains_key("port=\"a\\\"b\\\\c\""));
}

#[test]
fn a_router_without_ports_and_peers_has_a_page_too() {
    let families = read(&render(&Sample::default(), String::new())).unwrap();
    assert!(families.contains_key("tortie_build_info"));
}
