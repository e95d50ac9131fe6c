//! A next hop goes away behind many routes: how long until no packet takes it any more.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use model::PortId;
use perf::data;
use perf::measure::Readings;
use perf::record::Record;
use perf::router::{EGRESS, Encapsulate, Router};
use serde::Serialize;
use tables::{Adjacency, Group, HopState};

const ROUTES: usize = 100_000;

/// What one may ask of `perf next-hop-loss`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 101)]
    rounds: usize,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

#[derive(Serialize)]
struct Outcome {
    routes: usize,
    rows_written: usize,
    microseconds: Readings,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut internet = data::internet()?;
    internet.v4.truncate(ROUTES);
    let mut router = Router::new(ROUTES, 1, Encapsulate::Plain)?;
    let neighbor = |port, last: u8| {
        Adjacency::resolved(port, [172, 18, 9, last].into(), Default::default(), Default::default())
    };
    let (lost, left) = {
        let writer = &mut router.writer;
        (writer.insert_adjacency(neighbor(EGRESS, 1))?, writer.insert_adjacency(neighbor(EGRESS, 2))?)
    };
    let group = router.writer.insert_group(Group::Forward(vec![lost, left]))?;
    router.writer.publish();
    router.groups = vec![group];
    router.add(&internet.v4)?;
    let mut reader = router.writer.reader().context("a reader")?;
    let (addr, _) = internet.v4[ROUTES / 2];
    let mut readings = Readings::default();
    for round in 0..arguments.rounds {
        let members = if round % 2 == 0 { vec![left] } else { vec![lost, left] };
        let expected = members.len();
        reader.go_offline();
        let start = Instant::now();
        router.writer.replace_group(group, Group::Forward(members));
        router.writer.publish();
        readings.0.push(start.elapsed().as_secs_f64() * 1e6);
        let snapshot = reader.snapshot();
        let found = snapshot.fib.lookup_v4(addr).context("the route is there")?;
        let next_hops = &snapshot.state.next_hops;
        let hashes = (0..1024u32).map(|step| step << 22);
        let taken: BTreeSet<_> = hashes.map(|hash| next_hops.choose(found, || hash)).collect();
        ensure!(taken.len() == expected, "every route follows its group");
        for hop in taken.into_iter().map(|hop| next_hops.get(hop)) {
            ensure!((hop.port, hop.state) == (EGRESS, HopState::Ready) && EGRESS != PortId(0), "{hop:?}");
        }
    }
    let outcome = Outcome { routes: ROUTES, rows_written: 1, microseconds: readings };
    println!(
        "one group's row behind {ROUTES} routes: {} µs until every reader's next batch",
        outcome.microseconds
    );
    if arguments.record {
        println!("written to {}", Record::new("next-hop-loss", outcome).write()?.display());
    }
    Ok(())
}
