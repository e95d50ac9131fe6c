//! Rounds, medians and cores.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Several readings of one thing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Readings(pub Vec<f64>);

impl Readings {
    /// The middle one.
    ///
    /// # Panics
    /// Where there is none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    /// The smallest and the largest.
    pub fn range(&self) -> (f64, f64) {
        let fold = |by: fn(f64, f64) -> f64, from| self.0.iter().copied().fold(from, by);
        (fold(f64::min, f64::INFINITY), fold(f64::max, f64::NEG_INFINITY))
    }
}

impl fmt::Display for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.range();
        f.pad(&format!("{:.1} ({low:.1}–{high:.1})", self.median()))
    }
}

/// Repeats `work`, which says how many things it did, until `at_least` has passed; millions of them a second.
pub fn rate(at_least: Duration, mut work: impl FnMut() -> usize) -> f64 {
    let start = Instant::now();
    let mut done = 0;
    loop {
        done += work();
        let elapsed = start.elapsed();
        if elapsed >= at_least {
            return done as f64 / elapsed.as_secs_f64() / 1e6;
        }
    }
}

/// [`rate`] by the time that this thread had its core, not by the clock on the wall: on a machine that others use, it waits
/// in between. What they do to caches it can't undo.
pub fn rate_on_core(at_least: Duration, mut work: impl FnMut() -> usize) -> f64 {
    let (start, before) = (Instant::now(), on_core());
    let mut done = 0;
    loop {
        done += work();
        if start.elapsed() >= at_least {
            return done as f64 / (on_core() - before).as_secs_f64() / 1e6;
        }
    }
}

/// How long this thread has had a core.
pub fn on_core() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Pins this thread to a core; the last one, which the system uses least, where none is named.
pub fn pin(core: Option<usize>) {
    // Asked once: a thread that is pinned, and those it starts, are told of their own core alone.
    static CORES: LazyLock<Vec<core_affinity::CoreId>> =
        LazyLock::new(|| core_affinity::get_core_ids().unwrap_or_default());
    let cores = &*CORES;
    if let Some(id) = core.map(|id| core_affinity::CoreId { id }).or(cores.last().copied()) {
        core_affinity::set_for_current(id);
    }
}
