//! What was seen, in order, and whether it was as it should be.

use std::time::Instant;

use anyhow::Result;

use crate::table::Table;
use crate::{Lab, wait};

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Sight {
    what: String,
    good: bool,
    seen: String,
    seconds: f64,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Sights(Vec<Sight>);

impl Sights {
    /// Looks, notes what was seen, and says it; what isn't as it should be doesn't keep from
    /// looking on, a signal does.
    pub(super) fn see(&mut self, lab: &Lab, what: &str, look: impl FnOnce() -> Result<String>) -> bool {
        if wait::interrupted() {
            return false;
        }
        lab.step(what);
        let begin = Instant::now();
        let (good, seen) = match look() {
            Ok(seen) => (true, seen),
            Err(error) => (false, format!("{error:#}")),
        };
        let seconds = begin.elapsed().as_secs_f64();
        let mark = if good { '+' } else { '!' };
        lab.progress().line(&format!("  {mark} {what}: {seen} ({seconds:.0} s)"));
        self.0.push(Sight { what: what.to_owned(), good, seen, seconds });
        good
    }

    /// How many were as they should be, and how many weren't.
    pub fn count(&self) -> (usize, usize) {
        let good = self.0.iter().filter(|sight| sight.good).count();
        (good, self.0.len() - good)
    }

    /// A table for people, a row a sight.
    pub fn table(&self) -> String {
        let mut table = Table::new(&["sight", "", "s", "what was seen"]);
        for sight in &self.0 {
            let seen = sight.seen.split_whitespace().collect::<Vec<_>>().join(" ");
            let ended = if sight.good { "pass" } else { "FAIL" };
            table.row([
                sight.what.as_str(),
                ended,
                &format!("{:.0}", sight.seconds),
                &format!("{seen:.160}"),
            ]);
        }
        table.render()
    }
}
