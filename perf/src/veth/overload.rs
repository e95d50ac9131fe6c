//! Overload: whether the router is still whole after minutes of more than it can forward.

use std::time::Duration;

use anyhow::{Result, ensure};
use perf::data;
use perf::record::Record;

use super::duts::{Contender, Router};
use super::rig::{LOADS, Polled};
use super::router::walks_share;

/// How often progress is told.
const TELL_EVERY: u64 = 10;

/// Floods our router for so many seconds; then frames must still come through, the books must balance, and every frame
/// must be back in its pool.
pub fn run(seconds: u64, record: bool) -> Result<()> {
    let routes = data::internet()?.v4;
    let mut contender = Contender::start(Router::Tortie, &routes, Polled::Threads)?;
    contender.resume()?;
    let id = contender.id();
    super::through(&mut contender.rig)?;
    let load = LOADS[1];
    let mut rates = Vec::new();
    for passed in (0..seconds).step_by(TELL_EVERY as usize) {
        let time = Duration::from_secs(TELL_EVERY.min(seconds - passed));
        let flooded = contender.rig.flood(load, Duration::ZERO, time, id)?;
        println!("{passed:4} s: {:.2} of {:.2} Mpps", flooded.delivered, flooded.offered);
        ensure!(!lab::wait::interrupted(), "interrupted");
        ensure!(flooded.delivered > 0.0, "nothing comes through any more");
        rates.push(flooded.delivered);
    }
    let after = contender.rig.paced(1000, 1)?;
    println!("afterwards {} of 1000 packets come through", after.samples);
    ensure!(after.samples >= 990, "the router doesn't forward as before");
    let told = contender.finish()?;
    println!("{told:#?}");
    println!("the walk's share of the worker's clocks: {:.1} %", walks_share(&told) * 100.0);
    if record {
        let results = (seconds, rates, told);
        println!("written to {}", Record::new("veth-overload", results).write()?.display());
    }
    Ok(())
}
