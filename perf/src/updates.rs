//! Table changes a second, alone and beside a reader on another core; and what the reader notices of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_utils::CachePadded;
use lpm::{Key, Limits, Lookup, Table, Value};
use perf::data::{self, Prefixes};
use perf::keys::{self, Mix, Numbers};
use perf::measure::{self, Readings};
use perf::record::Record;
use serde::Serialize;

/// Addresses asked for before the first comes again.
const KEYS: usize = 1 << 20;
/// Addresses in a batch, as many as the walk asks for at once.
const BATCH: usize = 64;
/// Distinct values, as many as a gateway has sets of next hops.
const VALUES: usize = 255;
/// Changes between two reclaims, as the slow path makes them in portions.
const PORTION: usize = 10;
/// How long each reading takes.
const READING: Duration = Duration::from_millis(400);

/// What one may ask of `perf updates`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// Changes alone, in millions a second.
#[derive(Serialize)]
struct Alone {
    family: &'static str,
    routes: usize,
    /// A random route goes and comes back: two changes.
    withdraw_announce: Readings,
    /// A random route gets another value.
    replace: Readings,
}

/// A reader, and a writer on another core that withdraws and announces.
#[derive(Serialize)]
struct Beside {
    family: &'static str,
    mix: &'static str,
    writer: &'static str,
    changes_millions: Readings,
    batch_millions: Readings,
    batch_p50_ns: Readings,
    batch_p99_ns: Readings,
}

#[derive(Serialize)]
struct Results {
    alone: Vec<Alone>,
    beside: Vec<Beside>,
}

/// How fast the writer is to be: its name, and changes a second.
const PACES: [(&str, u64); 3] = [("none", 0), ("100 k/s", 100_000), ("flat out", u64::MAX)];

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    let internet = data::internet()?;
    println!("{} IPv4 and {} IPv6 prefixes, {}", internet.v4.len(), internet.v6.len(), internet.source);
    // Before a thread is pinned, which counts one core from then on.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut results = Results { alone: Vec::new(), beside: Vec::new() };
    family("IPv4", &internet.v4, arguments.rounds, cores, &mut results);
    family("IPv6", &internet.v6, arguments.rounds, cores, &mut results);
    if arguments.record {
        println!("written to {}", Record::new("updates", results).write()?.display());
    }
    Ok(())
}

fn family<K: Key>(
    family: &'static str,
    prefixes: &Prefixes<K>,
    rounds: usize,
    cores: usize,
    results: &mut Results,
) {
    measure::pin(None);
    let mut table = Table::new(Limits::for_routes(prefixes.len() as u32));
    // As the router does.
    table.places().into_iter().for_each(afxdp::prefer_huge_pages);
    let mut numbers = Numbers::new(11);
    for &(addr, len) in prefixes {
        table.insert(addr, len, numbers.below(VALUES) as Value).expect("the limits are the table's");
        table.retire(1, 1);
    }
    let mut writer = Writer { table, prefixes, numbers, epoch: 1 };
    let mut alone = Alone {
        family,
        routes: prefixes.len(),
        withdraw_announce: Readings::default(),
        replace: Readings::default(),
    };
    for _ in 0..rounds {
        alone.withdraw_announce.0.push(measure::rate(READING, || writer.portion(|epoch| epoch)));
        alone.replace.0.push(measure::rate(READING, || writer.replacements()));
    }
    println!(
        "{family} alone: withdraw and announce {:.2} M/s, replace {:.2} M/s",
        alone.withdraw_announce.median(),
        alone.replace.median()
    );
    results.alone.push(alone);

    if cores < 2 {
        println!("skipped: a reader beside a writer takes two cores");
        return;
    }
    for mix in [Mix::Table, Mix::Zipf] {
        let keys = keys::draw(mix, prefixes, KEYS);
        let mut rows = PACES.map(|(name, _)| Beside {
            family,
            mix: mix.name(),
            writer: name,
            changes_millions: Readings::default(),
            batch_millions: Readings::default(),
            batch_p50_ns: Readings::default(),
            batch_p99_ns: Readings::default(),
        });
        for _ in 0..rounds {
            for (row, (_, pace)) in rows.iter_mut().zip(PACES) {
                beside(&mut writer, &keys, pace, cores - 1, row);
            }
        }
        for row in &rows {
            println!(
                "{family} {:8} writer {:8} {:.2} M changes/s: reader {:24} M/s, batch p50 {:5.0} ns, p99 {:24} ns",
                row.mix,
                row.writer,
                row.changes_millions.median(),
                row.batch_millions,
                row.batch_p50_ns.median(),
                row.batch_p99_ns
            );
        }
        results.beside.extend(rows);
    }
}

/// The table and who changes it.
struct Writer<'a, K: Key> {
    table: Table<K>,
    prefixes: &'a Prefixes<K>,
    numbers: Numbers,
    epoch: u64,
}

impl<K: Key> Writer<'_, K> {
    /// Some changes, then a reclaim; `safe` is told the new epoch and says which one every reader has passed.
    fn portion(&mut self, safe: impl FnOnce(u64) -> u64) -> usize {
        for _ in 0..PORTION / 2 {
            let (addr, len) = self.prefixes[self.numbers.below(self.prefixes.len())];
            let value = self.table.remove(addr, len).expect("every prefix is there");
            self.table.insert(addr, len, value).expect("it has been there");
        }
        self.epoch += 1;
        self.table.retire(self.epoch, safe(self.epoch));
        PORTION
    }

    fn replacements(&mut self) -> usize {
        for _ in 0..PORTION {
            let (addr, len) = self.prefixes[self.numbers.below(self.prefixes.len())];
            let value = self.numbers.below(VALUES) as Value;
            self.table.insert(addr, len, value).expect("a value that others have");
        }
        self.epoch += 1;
        self.table.retire(self.epoch, self.epoch);
        PORTION
    }
}

/// What both threads know, each on cache lines of its own, as the router has it.
struct Shared {
    /// The writer's epoch, and the one that the reader has passed.
    epoch: CachePadded<AtomicU64>,
    passed: CachePadded<AtomicU64>,
    stop: CachePadded<AtomicBool>,
}

/// One reading: a reader on this core, a writer two before it, for neighbours may be two threads of one core.
fn beside<K: Key>(
    writer: &mut Writer<'_, K>,
    keys: &[K],
    changes_a_second: u64,
    core: usize,
    row: &mut Beside,
) {
    let lookup = writer.table.reader();
    let shared = Shared {
        epoch: AtomicU64::new(writer.epoch).into(),
        passed: AtomicU64::new(writer.epoch).into(),
        stop: AtomicBool::new(false).into(),
    };
    let (rate, mut times) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            measure::pin(Some(core));
            let read = read(&lookup, keys, &shared);
            shared.stop.store(true, Ordering::Relaxed);
            read
        });
        scope.spawn(|| {
            measure::pin(Some(core.saturating_sub(2)));
            row.changes_millions.0.push(write(writer, changes_a_second, &shared));
        });
        reader.join().expect("the reader ends")
    });
    times.sort_unstable();
    row.batch_millions.0.push(rate);
    row.batch_p50_ns.0.push(times[times.len() / 2] as f64);
    row.batch_p99_ns.0.push(times[times.len() * 99 / 100] as f64);
}

/// Asks until the reading's time is over: look-ups in millions a second, and how long each batch took in nanoseconds.
fn read<K: Key>(lookup: &Lookup<K>, keys: &[K], shared: &Shared) -> (f64, Vec<u64>) {
    let clock = quanta::Clock::new();
    let mut answers = [0; BATCH];
    // Written beforehand, so that the kernel needn't find memory while the clock runs.
    let mut times = vec![u64::MAX; READING.as_nanos() as usize / 50];
    let (start, mut taken) = (Instant::now(), 0);
    'reading: loop {
        for keys in keys.chunks_exact(BATCH) {
            shared.passed.store(shared.epoch.load(Ordering::Acquire), Ordering::Release);
            let before = clock.raw();
            lookup.lookup_batch(keys, &mut answers);
            std::hint::black_box(&answers);
            times[taken] = clock.raw() - before;
            taken += 1;
            if taken == times.len() {
                break 'reading;
            }
        }
        if start.elapsed() >= READING {
            break;
        }
    }
    let elapsed = start.elapsed();
    times.truncate(taken);
    times.iter_mut().for_each(|time| *time = clock.delta_as_nanos(0, *time));
    ((taken * BATCH) as f64 / elapsed.as_secs_f64() / 1e6, times)
}

/// Changes the table at this pace until told to stop; millions a second.
fn write<K: Key>(writer: &mut Writer<'_, K>, changes_a_second: u64, shared: &Shared) -> f64 {
    let (start, mut changes) = (Instant::now(), 0);
    while !shared.stop.load(Ordering::Relaxed) {
        let due = start.elapsed().as_nanos() as f64 * changes_a_second as f64 / 1e9;
        if changes as f64 >= due {
            // Asleep, as the slow path is when it has nothing to do: a thread that spins takes its share of the machine.
            thread::sleep(Duration::from_micros(20));
            continue;
        }
        changes += writer.portion(|epoch| {
            shared.epoch.store(epoch, Ordering::Release);
            shared.passed.load(Ordering::Acquire)
        });
    }
    changes as f64 / start.elapsed().as_secs_f64() / 1e6
}
