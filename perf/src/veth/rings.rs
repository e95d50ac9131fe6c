//! Our rings against an AF_XDP implementation that isn't ours: xsk-rs sends, xsk-rs receives, our router stands between.

use std::path::Path;

use anyhow::{Result, ensure};
use perf::data;

use super::duts::{Contender, Router};
use super::rig::{FLOWS, LOADS, Load, Polled};

/// Frames of each length: the rings wrap dozens of times.
const COUNT: usize = 100_000;

/// Sends numbered frames of every length through our router: each must arrive once, right to the last byte.
pub fn run(program: &Path) -> Result<()> {
    let routes = data::internet()?.v4;
    let mut contender = Contender::start(Router::Tortie, &routes, Polled::Threads)?;
    contender.resume()?;
    super::through(&mut contender.rig)?;
    let many = |load: &&Load| load.flows == FLOWS;
    for load in LOADS.iter().filter(many) {
        let [length, flows, count] = [load.len, load.flows, COUNT].map(|number| number.to_string());
        let headers = contender.rig.headers(*load);
        let sender = ["send", "g0", &headers.to_string_lossy(), &length, &flows, &count];
        let receiver = ["receive", "s0", &length, &count];
        let said = contender.rig.with_other_ends(program, &sender, &receiver)?;
        println!("{} frames of {} bytes by xsk-rs: {said}", COUNT, load.len);
        println!("our router: {}", contender.ask()?);
        ensure!(
            said == format!("{COUNT} received 0 wrong 0 repeated"),
            "frames were lost, changed or repeated"
        );
    }
    contender.finish().map(drop)
}
