//! New flows judged by policy, one core: plain lists of rules, and what it takes to compile a cluster's policy.
//!
//! All times are of this thread on its core, for these machines are shared.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use perf::acl::{self, Kind};
use perf::cluster::{Cluster, networks};
use perf::judged::{Judged, LIMITS, PACKETS};
use perf::measure::{self, Readings};
use perf::record::Record;
use policy::compile::{Compiler, Packet, Upper};
use policy::rule::SetId;
use serde::Serialize;

/// Policies of the cluster, and endpoints that they are spread over.
const POLICIES: usize = 10_000;
const ENDPOINTS: usize = 100;
/// Networks in the largest set.
const NETWORKS: usize = 1_000_000;
const ROUND: Duration = Duration::from_millis(300);

/// What one may ask of `perf classify`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Rules in the plain lists.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    rules: Vec<usize>,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// One list of rules.
#[derive(Serialize)]
struct List {
    kind: &'static str,
    rules: usize,
    kibibytes: usize,
    batch_millions: Readings,
    by_memory_millions: Readings,
    single_millions: Readings,
    sequential_millions: Readings,
}

/// One thing that a writer does.
#[derive(Serialize)]
struct Work {
    what: String,
    milliseconds: Readings,
}

/// As recorded.
#[derive(Serialize)]
struct Results {
    lists: Vec<List>,
    works: Vec<Work>,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    measure::pin(None);
    let mut lists = Vec::new();
    for kind in [Kind::Acl, Kind::Firewall] {
        for count in &arguments.rules {
            lists.push(list(kind, *count, arguments.rounds)?);
        }
    }
    let mut works = Vec::new();
    for _ in 0..arguments.rounds {
        for (number, (what, time)) in spread()?.into_iter().chain(everywhere()?).chain(largest()?).enumerate()
        {
            if works.len() == number {
                works.push(Work { what, milliseconds: Readings::default() });
            }
            works[number].milliseconds.0.push(time);
        }
    }
    for Work { what, milliseconds } in &works {
        println!("{what}: {milliseconds}");
    }
    if arguments.record {
        println!("written to {}", Record::new("classify", Results { lists, works }).write()?.display());
    }
    Ok(())
}

fn list(kind: Kind, count: usize, rounds: usize) -> Result<List> {
    let rules = acl::rules(kind, count, 1);
    let mut judged = Judged::new(Arc::new(acl::checks(&rules)), acl::packets(&rules, PACKETS, 2))?;
    let mut list = List {
        kind: kind.name(),
        rules: count,
        kibibytes: judged.bytes() >> 10,
        batch_millions: Readings::default(),
        by_memory_millions: Readings::default(),
        single_millions: Readings::default(),
        sequential_millions: Readings::default(),
    };
    for _ in 0..rounds {
        list.batch_millions.0.push(measure::rate_on_core(ROUND, || judged.batches()));
        list.by_memory_millions.0.push(measure::rate_on_core(ROUND, || judged.batches_by_memory()));
        list.single_millions.0.push(measure::rate_on_core(ROUND, || judged.singles()));
        list.sequential_millions.0.push(measure::rate_on_core(ROUND, || judged.sequentially()));
    }
    let List { batch_millions, by_memory_millions, single_millions, sequential_millions, .. } = &list;
    println!(
        "{:4}{count:>6} rules: batch {batch_millions:20} by memory {by_memory_millions:20} single \
         {single_millions:20} rule after rule {:.3} M/s, {} KiB",
        kind.name(),
        sequential_millions.median(),
        list.kibibytes
    );
    Ok(list)
}

/// What a step took, in milliseconds of this thread's time.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let before = measure::on_core();
    let done = work();
    ((measure::on_core() - before).as_secs_f64() * 1e3, done)
}

/// A compiler with the cluster's sets staged.
fn staged(cluster: &Cluster) -> Result<Compiler> {
    let mut compiler = Compiler::new(LIMITS);
    for (id, members) in (0..).map(SetId).zip(&cluster.sets) {
        compiler.put_set(id, members.iter().copied())?;
    }
    Ok(compiler)
}

/// Each endpoint has its own share of the policies.
fn spread() -> Result<Vec<(String, f64)>> {
    let cluster = Cluster::new();
    let each = POLICIES / ENDPOINTS;
    let checks: Vec<_> =
        (0..ENDPOINTS).map(|endpoint| Cluster::checks(endpoint * each..(endpoint + 1) * each)).collect();
    let changed = Cluster::checks((1..each).chain([POLICIES]));
    let (cold, compiler) = timed(|| -> Result<_> {
        let mut compiler = staged(&cluster)?;
        for checks in &checks {
            compiler.program(checks)?;
        }
        compiler.publish();
        Ok(compiler)
    });
    let mut compiler = compiler?;
    compiler.publish();
    let (known, unknown) = cluster.labels();
    let mut pods = 20_000..;
    let mut join = |compiler: &mut Compiler, sets: &[SetId]| -> Result<f64> {
        let pod = Cluster::pod(pods.next().unwrap_or_default());
        let (time, done) = timed(|| -> Result<()> {
            for set in sets {
                compiler.update_set(*set, &[], &[pod])?;
            }
            compiler.publish();
            Ok(())
        });
        done.map(|()| time)
    };
    let (as_others, as_no_other) = (join(&mut compiler, &known)?, join(&mut compiler, &unknown)?);
    let old = compiler.program(&checks[0])?;
    compiler.release(old);
    let (policy, done) = timed(|| -> Result<()> {
        compiler.program(&changed)?;
        compiler.release(old);
        compiler.publish();
        Ok(())
    });
    done?;
    Ok(vec![
        (format!("{POLICIES} policies spread over {ENDPOINTS} endpoints, cold, ms"), cold),
        ("a pod with labels that others have, ms".to_owned(), as_others),
        ("a pod with labels that no other has, ms".to_owned(), as_no_other),
        ("a policy of one endpoint changes, ms".to_owned(), policy),
    ])
}

/// All policies select all endpoints: one program.
fn everywhere() -> Result<Vec<(String, f64)>> {
    let cluster = Cluster::new();
    let all: Vec<_> = (0..ENDPOINTS).map(|_| Cluster::checks(0..POLICIES)).collect();
    let (cold, done) = timed(|| -> Result<()> {
        let mut compiler = staged(&cluster)?;
        for checks in &all {
            compiler.program(checks)?;
        }
        compiler.publish();
        Ok(())
    });
    done?;
    Ok(vec![(format!("{POLICIES} policies that each of {ENDPOINTS} endpoints has, cold, ms"), cold)])
}

/// A set of a million networks, and what a packet costs beside it.
fn largest() -> Result<Vec<(String, f64)>> {
    let cluster = Cluster::new();
    let networks = networks(NETWORKS);
    let mut compiler = staged(&cluster)?;
    let program = compiler.program(&Cluster::checks(0..10))?;
    let rate = |compiler: &mut Compiler| {
        let compiled = compiler.publish();
        let asked: Vec<_> = (0..4096u32)
            .map(|number| {
                let source = 0x0a41_0000 + u128::from(number % 10_000);
                let upper = Upper::Ports { source: 40_000, destination: 80 };
                let family = model::Family::V4;
                (program, Packet { source, destination: 1, family, protocol: 6, upper })
            })
            .collect();
        let mut out = vec![policy::compile::Judgement::NO_PROGRAM; asked.len()];
        measure::rate_on_core(ROUND, || {
            compiled.judge_batch(&asked, &mut out);
            asked.len()
        })
    };
    let without = rate(&mut compiler);
    let (load, done) = timed(|| -> Result<()> {
        compiler.put_set(SetId(7), networks)?;
        compiler.publish();
        compiler.settle();
        Ok(())
    });
    done?;
    let with = rate(&mut compiler);
    Ok(vec![
        (format!("a set of {NETWORKS} networks, both tables, ms"), load),
        ("packets a second beside it, by those without it".to_owned(), with / without),
    ])
}
