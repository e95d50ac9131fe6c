//! One work done by two programs in interleaved rounds, and the table of all of them.

use perf::measure::Readings;
use serde::Serialize;

/// What came out of interleaved rounds of ours and one peer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison {
    /// What both did.
    pub work: &'static str,
    /// Millions of these a second.
    pub unit: &'static str,
    /// Whose program it was compared with.
    pub rival: &'static str,
    /// Which program, and how it was run.
    pub peer: String,
    /// Ours, from the rounds between the peer's. None where nothing of ours corresponds, as for a device's floor.
    pub ours: Option<Readings>,
    /// The peer's.
    pub theirs: Readings,
    /// How many times as fast as the best peer ours must be, where that is asked for.
    pub goal: Option<f64>,
    /// Readings that somebody else's work on the core may have spoilt, in spite of several tries.
    pub disturbed: usize,
    /// A floor shows what the peer's device costs alone, or memory; it is no competitor.
    pub floor: bool,
}

impl Comparison {
    /// Ours by theirs, of medians.
    pub(super) fn ratio(&self) -> Option<f64> {
        self.ours.as_ref().map(|ours| ours.median() / self.theirs.median())
    }

    /// One line for those who watch.
    pub(super) fn tell(&self) {
        let Comparison { work, peer, theirs, unit, .. } = self;
        let each = 1e3 / theirs.median();
        let ours = self.ours.as_ref().map_or(String::new(), |ours| format!("ours {ours}, "));
        let ratio = self.ratio().map_or(String::new(), |ratio| format!(", ratio {ratio:.2}"));
        let shared = match self.disturbed {
            0 => String::new(),
            count => format!(" ({count} readings while the core was shared)"),
        };
        println!("  {work}: {ours}{peer} {theirs} {unit} ({each:.1} ns each){ratio}{shared}");
    }
}

/// Readings of two programs, ours first where there is one of ours.
pub(super) struct Rounds {
    /// Ours.
    pub ours: Option<Readings>,
    /// The peer's.
    pub theirs: Readings,
    /// Readings while the core was shared.
    pub disturbed: usize,
}

/// Of every work the best program of each rival, in the order in which they came. Floors don't compete.
fn best(comparisons: &[Comparison]) -> Vec<&Comparison> {
    let mut best: Vec<&Comparison> = Vec::new();
    for comparison in comparisons.iter().filter(|comparison| !comparison.floor && comparison.ours.is_some()) {
        match best.iter_mut().find(|other| (other.work, other.rival) == (comparison.work, comparison.rival)) {
            Some(other) if comparison.theirs.median() > other.theirs.median() => *other = comparison,
            Some(_) => (),
            None => best.push(comparison),
        }
    }
    best
}

/// Measure, ours, best peer, ratio, goal, met or not.
pub(super) fn print(comparisons: &[Comparison]) {
    let best = best(comparisons);
    if best.is_empty() {
        return;
    }
    println!(
        "\n{:36} {:>22} {:>22} {:>6} {:>6} {:4} best peer",
        "measure", "ours", "best peer", "ratio", "goal", "met"
    );
    for comparison in best {
        let (Some(ours), Some(ratio)) = (&comparison.ours, comparison.ratio()) else { continue };
        let goal = comparison.goal.map_or("–".to_owned(), |goal| format!("{goal:.1}"));
        let met = comparison.goal.map_or("–", |goal| if ratio >= goal { "yes" } else { "no" });
        println!(
            "{:36} {:>22} {:>22} {ratio:>6.2} {goal:>6} {met:4} {}",
            format!("{}, {}", comparison.work, comparison.unit),
            ours.to_string(),
            comparison.theirs.to_string(),
            comparison.peer,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(work: &'static str, peer: &str, ours: f64, theirs: f64) -> Comparison {
        Comparison {
            work,
            unit: "M/s",
            rival: "DPDK",
            peer: peer.to_owned(),
            ours: Some(Readings(vec![ours])),
            theirs: Readings(vec![theirs]),
            goal: None,
            disturbed: 0,
            floor: false,
        }
    }

    #[test]
    fn the_fastest_peer_of_a_work_is_the_one_that_counts() {
        let mut floor = comparison("a", "floor", 10.0, 99.0);
        floor.floor = true;
        let all = [
            comparison("a", "slow", 10.0, 4.0),
            comparison("b", "only", 1.0, 2.0),
            comparison("a", "fast", 9.0, 6.0),
            floor,
        ];
        let best: Vec<&str> = best(&all).iter().map(|comparison| comparison.peer.as_str()).collect();
        assert_eq!(best, ["fast", "only"]);
        assert_eq!(all[2].ratio(), Some(1.5));
    }
}
