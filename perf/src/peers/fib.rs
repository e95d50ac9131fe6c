//! Look-ups beside DPDK's rte_fib, rte_fib6 and rte_lpm: the same table, the same addresses, every answer compared.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lpm::{Key, Limits, Lookup, Table, Value};
use perf::batches;
use perf::data::{Internet, Prefixes};
use perf::huge_pages::HugePages;
use perf::keys::{self, Mix, Numbers};
use perf::measure::{self, Readings};

use super::Arguments;
use super::compare::Comparison;
use super::conversation::Conversation;
use super::dpdk::{self, Pages};
use super::exchange::Exchange;
use super::floor::Floor;
use super::quiet::Watched;

/// Addresses asked for in one pass, as in `perf lookup`.
const KEYS: usize = 4 << 20;
/// How theirs is asked; the fastest way counts.
struct Way {
    bulk: usize,
    /// How many addresses ahead each is asked for by a prefetch, as ours are ([`batches::NEAR`]); 0 for none.
    near: usize,
}

const WAYS: &[Way] = &[
    Way { bulk: 32, near: 0 },
    Way { bulk: 64, near: 0 },
    Way { bulk: 32, near: batches::NEAR },
    Way { bulk: 64, near: batches::NEAR },
];

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let near = if self.near == 0 { "" } else { ", near" };
        write!(f, "bulk {}{near}", self.bulk)
    }
}

/// Distinct values, as many as a gateway has sets of next hops.
const VALUES: usize = 255;
/// Pods' own routes beside the internet's (a few more, to fill the last block), and how many share a block of addresses.
const PODS: usize = 20_000;
const PODS_IN_BLOCK: u128 = 64;
const ROUND: Duration = Duration::from_millis(250);
/// Bytes of our table that hold its root: 4 for each /16.
const ROOT: usize = 4 << 16;
/// More than any table here takes in DPDK.
const MEBIBYTES: usize = 3072;

/// A structure of DPDK's and how it is asked.
struct Variant {
    name: &'static str,
    kind: &'static str,
    lookup: &'static str,
    huge: bool,
}

const V4: [Variant; 5] = [
    Variant { name: "rte_fib 2 B AVX-512", kind: "fib2", lookup: "vector", huge: true },
    Variant { name: "rte_fib 4 B AVX-512", kind: "fib4", lookup: "vector", huge: true },
    Variant { name: "rte_fib 2 B scalar", kind: "fib2", lookup: "scalar", huge: true },
    Variant { name: "rte_fib 2 B AVX-512", kind: "fib2", lookup: "vector", huge: false },
    Variant { name: "rte_fib 4 B AVX-512", kind: "fib4", lookup: "vector", huge: false },
];
const LPM: Variant = Variant { name: "rte_lpm", kind: "lpm", lookup: "scalar", huge: true };
/// Next hops of two bytes leave room for 32,767 blocks of its trie, fewer than the internet takes.
const V6: [Variant; 3] = [
    Variant { name: "rte_fib6 4 B AVX-512", kind: "fib4", lookup: "vector", huge: true },
    Variant { name: "rte_fib6 4 B scalar", kind: "fib4", lookup: "scalar", huge: true },
    Variant { name: "rte_fib6 4 B AVX-512", kind: "fib4", lookup: "vector", huge: false },
];

/// A table, and the addresses to ask it for, with the goals.
struct Work<'a, K> {
    prefixes: &'a Prefixes<K>,
    mixes: &'a [(&'static str, Mix, Option<f64>)],
}

/// Compares both families.
pub(super) fn compare(internet: &Internet, arguments: &Arguments) -> Result<Vec<Comparison>> {
    println!("\nlook-ups");
    if let Err(error) = dpdk::check() {
        println!("skipped: look-ups beside rte_fib: {error:#}");
        return Ok(Vec::new());
    }
    let program = build()?;
    let huge = if arguments.no_huge {
        None
    } else {
        HugePages::reserve(MEBIBYTES).inspect_err(|error| println!("skipped: huge pages: {error:#}")).ok()
    };
    let run = Run { program: &program, huge, rounds: arguments.rounds, core: arguments.core()? };
    let mut v4: Vec<&Variant> = V4.iter().collect();
    if arguments.rte_lpm {
        v4.push(&LPM);
    }
    let work = Work {
        prefixes: &internet.v4,
        mixes: &[
            ("IPv4 look-up, uniform", Mix::Uniform, Some(1.5)),
            ("IPv4 look-up, table", Mix::Table, Some(1.5)),
            ("IPv4 look-up, zipf64k", Mix::Zipf, Some(1.0)),
        ],
    };
    let mut all = run.floors(&work)?;
    all.extend(run.family(&work, &v4)?);
    let v6: Vec<&Variant> = V6.iter().collect();
    all.extend(run.family(
        &Work {
            prefixes: &internet.v6,
            mixes: &[
                ("IPv6 look-up, table", Mix::Table, Some(2.0)),
                ("IPv6 look-up, zipf64k", Mix::Zipf, Some(1.2)),
            ],
        },
        &v6,
    )?);
    all.extend(run.family(
        &Work {
            prefixes: &with_pods(&internet.v6),
            mixes: &[
                ("IPv6 look-up with pods, table", Mix::Table, Some(2.0)),
                ("IPv6 look-up with pods, zipf64k", Mix::Zipf, Some(1.2)),
            ],
        },
        &v6,
    )?);
    Ok(all)
}

/// The table with pods' /128s in blocks of /122, all in one /64, as Calico assigns them.
fn with_pods(prefixes: &Prefixes<u128>) -> Prefixes<u128> {
    let base = 0xfd00_0010_0244_u128 << 80;
    let mut numbers = Numbers::new(13);
    let mut all = prefixes.clone();
    let blocks = PODS.div_ceil(PODS_IN_BLOCK as usize);
    for _ in 0..blocks {
        let block = base | u128::from(numbers.next()) & 0xffff_ffff_ffff_ffc0;
        all.push((block, 122));
        all.extend((0..PODS_IN_BLOCK).map(|pod| (block | pod, 128)));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Builds `perf/peers/rte_fib.c`.
fn build() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/rte_fib.c");
    let program = dpdk::cache()?.join("rte_fib");
    dpdk::compile(&[source], &["-Wall", "-Wextra"], &program)?;
    Ok(program)
}

/// What all comparisons share.
struct Run<'a> {
    program: &'a Path,
    huge: Option<HugePages>,
    rounds: usize,
    core: usize,
}

impl Run<'_> {
    fn family<K: Key>(&self, work: &Work<'_, K>, variants: &[&Variant]) -> Result<Vec<Comparison>> {
        let (table, prefixes) = load(work.prefixes)?;
        let ours = table.reader();
        let sets: Vec<(Vec<K>, Vec<Value>)> = (work.mixes.iter())
            .map(|(_, mix, _)| {
                let keys = keys::draw(*mix, work.prefixes, KEYS);
                let mut answers = vec![0; KEYS];
                ours.lookup_batch(&keys, &mut answers);
                (keys, answers)
            })
            .collect();
        let folder = dpdk::scratch()?;
        let file = folder.path().join("exchange");
        Exchange { prefixes: &prefixes, sets: &sets }.write(&file)?;
        let mut all = Vec::new();
        for variant in variants {
            let pages = match (&self.huge, variant.huge) {
                (Some(huge), true) => Pages::Huge(huge),
                (None, true) if variant.kind != LPM.kind => continue,
                _ => Pages::Small(MEBIBYTES),
            };
            let compared = self.variant(variant, pages, &file, work, &ours, &sets);
            match compared {
                Ok(compared) => all.extend(compared),
                // DPDK may lack AVX-512, or the table may not fit two bytes.
                Err(error) => println!("skipped: {}, {pages}: {error:#}", variant.name),
            }
        }
        Ok(all)
    }

    /// Our look-ups of IPv4 beside what reading memory costs: see [`Floor`].
    fn floors(&self, work: &Work<'_, u32>) -> Result<Vec<Comparison>> {
        let (table, _) = load(work.prefixes)?;
        let ours = table.reader();
        let mut all = Vec::new();
        for (name, mix, _) in work.mixes {
            let keys = keys::draw(*mix, work.prefixes, KEYS);
            let bytes = table.usage().bytes;
            let mebibytes = |bytes: usize| bytes as f64 / 1048576.0;
            let whole = Floor::spread(bytes, &keys);
            let (root, leaves) = (Floor::flat(4, 16, &keys), Floor::spread(bytes - ROOT, &keys));
            let [narrow, wide] = [2, 4].map(|width| Floor::flat(width, 24, &keys));
            let floors: [(String, &dyn Fn() -> usize); 4] = [
                (format!("one read of {:.1} MiB", mebibytes(bytes)), &|| whole.read()),
                (format!("reads of 4 B a /16 and of {:.1} MiB", mebibytes(bytes - ROOT)), &|| {
                    root.read_both(&leaves)
                }),
                ("one read of 2 B a /24".to_owned(), &|| narrow.read()),
                ("one read of 4 B a /24".to_owned(), &|| wide.read()),
            ];
            for (what, floor) in floors {
                let (mut our_rate, mut floor_rate, mut disturbed) =
                    (Readings::default(), Readings::default(), 0);
                for _ in 0..self.rounds {
                    let look_up =
                        Watched::us().read(|| Ok(measure::rate(ROUND, || batches::look_up(&ours, &keys))))?;
                    let read = Watched::us().read(|| Ok(measure::rate(ROUND, floor)))?;
                    our_rate.0.push(look_up.value);
                    floor_rate.0.push(read.value);
                    disturbed += usize::from(look_up.disturbed) + usize::from(read.disturbed);
                }
                let comparison = Comparison {
                    work: name,
                    rival: "memory",
                    unit: "M/s",
                    peer: what,
                    ours: Some(our_rate),
                    theirs: floor_rate,
                    goal: None,
                    disturbed,
                    floor: true,
                };
                comparison.tell();
                all.push(comparison);
            }
        }
        Ok(all)
    }

    fn variant<K: Key>(
        &self,
        variant: &Variant,
        pages: Pages<'_>,
        file: &Path,
        work: &Work<'_, K>,
        ours: &Lookup<K>,
        sets: &[(Vec<K>, Vec<Value>)],
    ) -> Result<Vec<Comparison>> {
        let mut theirs = Theirs::start(self.program, variant, pages, self.core, file)?;
        println!("{}, {pages}: loaded in {} s, {} MiB", variant.name, theirs.seconds, theirs.mebibytes);
        for (set, (name, ..)) in work.mixes.iter().enumerate() {
            let wrong = theirs.verify(set)?;
            ensure!(wrong == 0, "{name}: {wrong} of {KEYS} answers differ from ours");
        }
        let mut all = Vec::new();
        for (set, (name, _, goal)) in work.mixes.iter().enumerate() {
            let mut our_rate = Readings::default();
            let mut their_rates = vec![Readings::default(); WAYS.len()];
            let mut disturbed = vec![0; WAYS.len()];
            for _ in 0..self.rounds {
                let reading = Watched::us()
                    .read(|| Ok(measure::rate(ROUND, || batches::look_up(ours, &sets[set].0))))?;
                our_rate.0.push(reading.value);
                disturbed.iter_mut().for_each(|count| *count += usize::from(reading.disturbed));
                for ((way, rates), disturbed) in WAYS.iter().zip(&mut their_rates).zip(&mut disturbed) {
                    let watched = Watched::process(theirs.conversation.program.child.id());
                    let reading = watched.read(|| theirs.rate(set, way))?;
                    rates.0.push(reading.value);
                    *disturbed += usize::from(reading.disturbed);
                }
            }
            for ((way, their_rate), disturbed) in WAYS.iter().zip(their_rates).zip(disturbed) {
                let comparison = Comparison {
                    work: name,
                    rival: pages.rival(),
                    unit: "M/s",
                    peer: format!("{}, {way}, {pages}", variant.name),
                    ours: Some(our_rate.clone()),
                    theirs: their_rate,
                    goal: *goal,
                    disturbed,
                    floor: false,
                };
                comparison.tell();
                all.push(comparison);
            }
        }
        Ok(all)
    }
}

/// Prefixes with their values.
type Valued<K> = Vec<(K, u8, Value)>;

/// Our table of these prefixes, and the values that they got, as in `perf lookup`.
fn load<K: Key>(prefixes: &Prefixes<K>) -> Result<(Table<K>, Valued<K>)> {
    let mut table = Table::new(Limits::for_routes(prefixes.len() as u32));
    // As the router does.
    table.places().into_iter().for_each(afxdp::prefer_huge_pages);
    let mut numbers = Numbers::new(11);
    let mut valued = Vec::with_capacity(prefixes.len());
    for &(addr, len) in prefixes {
        let value = numbers.below(VALUES) as Value;
        table.insert(addr, len, value).context("the limits are the table's")?;
        // No reader looks yet.
        table.retire(1, 1);
        valued.push((addr, len, value));
    }
    Ok((table, valued))
}

/// The C program with a table loaded.
struct Theirs {
    conversation: Conversation,
    /// What loading took, and DPDK's memory afterwards.
    seconds: String,
    mebibytes: usize,
}

impl Theirs {
    fn start(
        program: &Path,
        variant: &Variant,
        pages: Pages<'_>,
        core: usize,
        file: &Path,
    ) -> Result<Theirs> {
        let arguments = [file.display().to_string(), variant.kind.to_owned(), variant.lookup.to_owned()];
        let mut conversation = Conversation::start(program, pages, core, &arguments)?;
        let ready = conversation.answer("ready")?;
        let (seconds, bytes) = ready.split_once(' ').context("two numbers")?;
        let (seconds, mebibytes) = (seconds.to_owned(), bytes.parse::<usize>()? >> 20);
        Ok(Theirs { conversation, seconds, mebibytes })
    }

    /// Answers of this set that differ from ours.
    fn verify(&mut self, set: usize) -> Result<usize> {
        let answer = self.conversation.ask(&format!("verify {set}"), "verify")?;
        let (wrong, of) = answer.split_once(' ').context("two numbers")?;
        ensure!(of.parse::<usize>()? == KEYS, "all addresses are compared");
        Ok(wrong.parse()?)
    }

    /// Millions of look-ups a second.
    fn rate(&mut self, set: usize, way: &Way) -> Result<f64> {
        let Way { bulk, near } = way;
        let answer =
            self.conversation.ask(&format!("rate {set} {bulk} {near} {}", ROUND.as_millis()), "rate")?;
        let (rate, _sum) = answer.split_once(' ').context("two numbers")?;
        Ok(rate.parse()?)
    }
}
