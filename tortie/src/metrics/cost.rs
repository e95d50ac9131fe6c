//! What a scrape costs where there is much to tell.

use slowpath::status::{PolicyTotal, Summary};

use super::tests::sample;
use super::*;
use crate::forms::XdpCounts;

/// Endpoints with a port, a queue and policies of their own, and a full table.
const ENDPOINTS: u16 = 1_000;

fn large() -> Sample {
    let few = sample();
    let port = |id: u16| CountedPort {
        id,
        name: format!("cali{id:011x}"),
        count: tables::PortCount { received_packets: 1 << 40, ..few.ports[0].count },
        queues: vec![(0, XdpCounts::default())],
    };
    let total = |id: u16, direction: &str, action: &str| PolicyTotal {
        tier: "default".to_owned(),
        policy: format!("namespace-{}/policy-{id}", id % 50),
        direction: direction.to_owned(),
        action: action.to_owned(),
        staged: false,
        packets: 123_456_789,
        bytes: 1 << 40,
        would_deny_packets: 0,
    };
    let policies = (0..ENDPOINTS).flat_map(|id| {
        [("ingress", "allow"), ("ingress", "deny"), ("egress", "allow")].map(|(d, a)| total(id, d, a))
    });
    let summary = few.summary.unwrap();
    let limits = summary.qos["cali1"].clone();
    let qos = (0..ENDPOINTS).map(|id| (format!("cali{id:011x}"), limits.clone())).collect();
    let policy = PolicyNumbers { totals: policies.collect(), uncounted: 0 };
    Sample {
        ports: (0..ENDPOINTS).map(port).collect(),
        summary: Some(Summary { policy, qos, ..summary }),
        ..few
    }
}

/// Memory is taken for the page and for names of rows, and not for every series several times.
#[test]
fn a_series_takes_few_allocations() {
    let sample = large();
    let mut page = String::new();
    let counted = allocation_counter::measure(|| page = render(&sample, String::new()));
    let series = page.lines().filter(|line| !line.starts_with('#')).count() as u64;
    assert!(series > 20_000, "{series}");
    let more_than_rows = 6 * series;
    assert!(counted.count_total < more_than_rows, "{} allocations for {series} series", counted.count_total);
}

/// Nanoseconds that this thread has run for, whatever else the machine does (proc(5), `schedstat`).
fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// `cargo test --release -p tortie -- --ignored --nocapture scrape` says what it takes here.
#[test]
#[ignore = "measures; it asserts nothing"]
fn a_scrape_of_a_thousand_endpoints_is_measured() {
    let (sample, sheet) = (large(), Sheet::default());
    let mut times: Vec<f64> = (0..201)
        .map(|_| {
            let begin = processor_time();
            std::hint::black_box(sheet.write(|empty| render(&sample, empty)));
            (processor_time() - begin) as f64 / 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let page = render(&sample, String::new());
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    println!(
        "{ENDPOINTS} endpoints: {series} series, {} bytes; median {:.2} ms of the processor, worst of {} {:.2} ms",
        page.len(),
        times[times.len() / 2],
        times.len(),
        times[times.len() - 1]
    );
}
