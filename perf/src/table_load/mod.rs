//! A whole internet table through a BGP speaker: in from one eBGP peer, best paths out to another, then all taken back.

mod daemons;
mod ends;
pub(crate) mod feed;
mod speaker;
pub(crate) mod stream;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::Result;
use perf::data::{self, Prefixes};
use perf::measure::{self, Readings};
use perf::record::Record;
use serde::Serialize;

/// The router under test.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const ROUTER_AS: u32 = 64512;
/// Who sends the table.
const FEEDER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const FEEDER_AS: u32 = 64999;
/// Who gets it.
const SINK: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);
const SINK_AS: u32 = 64998;

/// What one may ask of `perf table-load`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Every how manieth prefix of the table.
    #[arg(long, default_value_t = 1)]
    one_in: usize,
    /// Whole daemons beside the whole router, each in a namespace of its own; without it our speaker alone, in memory.
    #[arg(long)]
    daemons: bool,
    /// How many peers send the table, each an equal part of it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=250))]
    feeders: u8,
    /// Only these daemons.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Roots of other Debian trees to look for daemons in, besides this machine's own.
    #[arg(long, value_delimiter = ',')]
    roots: Vec<std::path::PathBuf>,
    /// The router's program; several are measured side by side, in turns.
    #[arg(long, value_delimiter = ',', default_value = "target/release/tortie")]
    tortie: Vec<std::path::PathBuf>,
    /// The router without its mirror in the kernel, too, which no other daemon here has.
    #[arg(long)]
    without_mirror: bool,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// The ends are a process of their own, in a namespace of their own.
#[derive(clap::Subcommand)]
enum Part {
    /// Sender and receiver; started by the measurement itself.
    #[command(hide = true)]
    Ends(ends::Arguments),
}

/// One daemon, or our speaker alone.
#[derive(Serialize)]
struct Row {
    name: String,
    /// Seconds from the first byte to the last route passed on. Of processor time, for the speaker alone.
    load_seconds: Readings,
    /// Likewise until all has been withdrawn.
    withdraw_seconds: Readings,
    /// The share of these times in which the ends, which have one core, were at work: near 1, they measure themselves.
    ends_busy_loading: Readings,
    ends_busy_withdrawing: Readings,
    /// Processor seconds of all threads, for load and withdrawal together.
    processor_seconds: Readings,
    /// Resident with the table; the router under test has settled by then.
    megabytes: Readings,
    /// Resident before the first route: what a whole daemon has besides routes.
    megabytes_before: Readings,
    /// The most that was resident at any time.
    megabytes_peak: Readings,
    /// How much longer it took until the kernel's mirror held everything, where there is one.
    mirror_seconds: Readings,
    /// How much longer than to pass the withdrawal on it took until the router's fast path had no route left; asked by
    /// `tortie show tables`, so some milliseconds too much.
    out_of_table_seconds: Readings,
    /// Processor seconds that the withdrawal took until then.
    withdrawing_threads: BTreeMap<String, Readings>,
    /// Processor seconds of each thread.
    threads: BTreeMap<String, Readings>,
    /// Routes that never came, or with a wrong path; 0 in a sound measurement.
    wrong: usize,
}

impl Row {
    fn new(name: String) -> Row {
        let none = Readings::default;
        Row {
            name,
            load_seconds: none(),
            withdraw_seconds: none(),
            ends_busy_loading: none(),
            ends_busy_withdrawing: none(),
            processor_seconds: none(),
            megabytes: none(),
            megabytes_before: none(),
            megabytes_peak: none(),
            mirror_seconds: none(),
            out_of_table_seconds: none(),
            withdrawing_threads: BTreeMap::new(),
            threads: BTreeMap::new(),
            wrong: 0,
        }
    }
}

#[derive(Serialize)]
struct Results {
    table: String,
    prefixes: usize,
    feeders: u8,
    updates: usize,
    skipped: Vec<String>,
    rows: Vec<Row>,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(Part::Ends(arguments)) = &arguments.part {
        return ends::run(arguments);
    }
    let (table, source) = table(arguments.one_in)?;
    let feeds = feeds(&table, arguments.feeders);
    let updates = feeds.iter().map(|(_, feed)| feed.updates).sum();
    println!("{} IPv4 prefixes, {source}, in {updates} UPDATEs of {} peers", table.len(), feeds.len());
    let mut results = Results {
        table: source,
        prefixes: table.len(),
        feeders: arguments.feeders,
        updates,
        skipped: Vec::new(),
        rows: Vec::new(),
    };
    if !arguments.daemons {
        measure::pin(None);
        let mut row = Row::new("tortie's speaker alone".to_owned());
        for _ in 0..arguments.rounds {
            let taken = speaker::run(&feeds)?;
            row.load_seconds.0.push(taken.load.as_secs_f64());
            row.withdraw_seconds.0.push(taken.withdraw.as_secs_f64());
            row.processor_seconds.0.push((taken.load + taken.withdraw).as_secs_f64());
            // Later rounds find memory that the first one left.
            if row.megabytes.0.is_empty() {
                row.megabytes.0.push(taken.grown as f64 / 1e6);
            }
        }
        results.rows.push(row);
    } else {
        daemons::measure(arguments, &mut results)?;
    }
    for row in &results.rows {
        println!(
            "{:24} load {:.2} s, withdraw {:.2} s, processor {:.2} s, {:.0} MB{}",
            row.name,
            row.load_seconds.median(),
            row.withdraw_seconds.median(),
            row.processor_seconds.median(),
            row.megabytes.median(),
            if row.wrong > 0 { format!(", {} ROUTES WRONG OR MISSING", row.wrong) } else { String::new() }
        );
        if !row.megabytes_before.0.is_empty() {
            let (before, peak) = (row.megabytes_before.median(), row.megabytes_peak.median());
            println!("  {before:.0} MB before the first route, {peak:.0} MB at most");
        }
        if !row.ends_busy_loading.0.is_empty() {
            let (loading, withdrawing) = (row.ends_busy_loading.median(), row.ends_busy_withdrawing.median());
            println!(
                "  the ends had their core {:.0} % of the load, {:.0} % of the withdrawal",
                100.0 * loading,
                100.0 * withdrawing
            );
        }
        if !row.mirror_seconds.0.is_empty() {
            println!("  in the kernel's mirror {:.2} s later", row.mirror_seconds.median());
        }
        if !row.out_of_table_seconds.0.is_empty() {
            let threads = row.withdrawing_threads.iter();
            let threads = threads.map(|(thread, seconds)| format!(", {thread} {:.3} s", seconds.median()));
            println!(
                "  withdrawn, out of the fast path's table {:.3} s later; processor{}",
                row.out_of_table_seconds.median(),
                threads.collect::<String>().trim_start_matches(',')
            );
        }
        for (thread, seconds) in &row.threads {
            println!("  {thread:16} {:.2} s of processor", seconds.median());
        }
    }
    if arguments.record {
        let name = if arguments.daemons { "peers-table-load" } else { "table-load" };
        let name = match arguments.feeders {
            1 => name.to_owned(),
            many => format!("{name}-{many}-feeders"),
        };
        println!("written to {}", Record::new(&name, results).write()?.display());
    }
    Ok(())
}

/// Where a sender is.
fn feeder(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = FEEDER.octets();
    if number == 0 { FEEDER } else { Ipv4Addr::from([a, b, c + 1, number]) }
}

/// What each sender says: its part of the table. Parts come in the table's order.
fn feeds(table: &Prefixes<u32>, feeders: u8) -> Vec<(Ipv4Addr, feed::Feed)> {
    let parts = table.chunks(table.len().div_ceil(usize::from(feeders)).max(1));
    let numbered = parts.zip(0..feeders);
    numbered
        .map(|(part, number)| {
            let address = feeder(number);
            (address, feed::feed(&part.to_vec(), FEEDER_AS, address, 1 + u64::from(number)))
        })
        .collect()
}

/// The IPv4 prefixes that every daemon takes, and where they come from: a few of a real table's are multicast or loopback.
pub(crate) fn table(one_in: usize) -> Result<(Prefixes<u32>, String)> {
    let internet = data::internet()?;
    let is_unicast = |prefix: &&(u32, u8)| !matches!(prefix.0 >> 24, 0 | 127 | 224..);
    let table = internet.v4.iter().filter(is_unicast).step_by(one_in).copied().collect();
    Ok((table, internet.source))
}

/// OPEN and KEEPALIVE of an end: IPv4 unicast, AS numbers of four octets (RFC 6793), a hold time in seconds.
pub(crate) fn hello(own: Ipv4Addr, own_as: u32, hold: u16) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
    capabilities.extend(own_as.to_be_bytes());
    let mut body = vec![4];
    body.extend(u16::try_from(own_as).unwrap_or(23456).to_be_bytes());
    body.extend(hold.to_be_bytes());
    body.extend(own.octets());
    body.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend(capabilities);
    let open = lab::bgp_message::message(lab::bgp_message::kind::OPEN, &body);
    [open, lab::bgp_message::keepalive()].concat()
}
