//! Look-ups alone, one core.

use std::time::Duration;

use anyhow::Result;
use lpm::{Key, Limits, Lookup, Table, Value};
use perf::batches;
use perf::data::{self, Prefixes};
use perf::keys::{self, Mix, Numbers};
use perf::measure::{self, Readings};
use perf::record::Record;
use serde::Serialize;

/// Addresses asked for in one pass: more than any cache holds the order of.
const KEYS: usize = 4 << 20;
/// Distinct values, as many as a gateway has sets of next hops.
const VALUES: usize = 255;

/// What one may ask of `perf lookup`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// One family and mix.
#[derive(Serialize)]
struct Row {
    /// With pods: 20,000 /128s are among the prefixes.
    family: &'static str,
    mix: &'static str,
    routes: usize,
    mebibytes: f64,
    batch_millions: Readings,
    single_millions: Readings,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    measure::pin(None);
    let internet = data::internet()?;
    println!("{} IPv4 and {} IPv6 prefixes, {}", internet.v4.len(), internet.v6.len(), internet.source);
    let mut rows = family("IPv4", &internet.v4, arguments.rounds);
    rows.extend(family("IPv6", &internet.v6, arguments.rounds));
    rows.extend(family("IPv6 with pods", &data::with_pods(&internet.v6), arguments.rounds));
    if arguments.record {
        println!("written to {}", Record::new("lookup", rows).write()?.display());
    }
    Ok(())
}

fn family<K: Key>(family: &'static str, prefixes: &Prefixes<K>, rounds: usize) -> Vec<Row> {
    let mut table = Table::new(Limits::for_routes(prefixes.len() as u32));
    // As the router does.
    table.places().into_iter().for_each(afxdp::prefer_huge_pages);
    let mut numbers = Numbers::new(11);
    for &(addr, len) in prefixes {
        table.insert(addr, len, numbers.below(VALUES) as Value).expect("the limits are the table's");
        table.retire(1, 1);
    }
    let lookup = table.reader();
    let sets: Vec<(Mix, Vec<K>)> = Mix::ALL.map(|mix| (mix, keys::draw(mix, prefixes, KEYS))).into();
    let mut rows: Vec<Row> = (sets.iter())
        .map(|(mix, _)| Row {
            family,
            mix: mix.name(),
            routes: prefixes.len(),
            mebibytes: table.usage().bytes as f64 / 1048576.0,
            batch_millions: Readings::default(),
            single_millions: Readings::default(),
        })
        .collect();
    for _ in 0..rounds {
        for (row, (_, keys)) in rows.iter_mut().zip(&sets) {
            row.batch_millions
                .0
                .push(measure::rate(Duration::from_millis(300), || batches::look_up(&lookup, keys)));
            row.single_millions.0.push(measure::rate(Duration::from_millis(300), || singles(&lookup, keys)));
        }
    }
    for row in &rows {
        println!(
            "{family} {:8} batch {:24} single {:24} M/s, {:.2} MiB",
            row.mix, row.batch_millions, row.single_millions, row.mebibytes
        );
    }
    rows
}

fn singles<K: Key>(lookup: &Lookup<K>, keys: &[K]) -> usize {
    let sum = keys.iter().fold(0u32, |sum, key| sum.wrapping_add(lookup.lookup(*key).unwrap_or_default()));
    std::hint::black_box(sum);
    keys.len()
}
