//! Counting what passed, failed and could not run, and the closing line.

use std::process::ExitCode;

use lab::scenario::Outcome;

/// Checks that have ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl Tally {
    /// One more check that held.
    pub(crate) fn passed(&mut self, _name: &str) {
        self.passed += 1;
    }

    /// This many more checks that held.
    pub(crate) fn passed_many(&mut self, count: usize) {
        self.passed += count;
    }

    /// A check that did not hold, and why.
    pub(crate) fn failed(&mut self, name: &str, why: &str) {
        self.failed.push((name.to_owned(), why.to_owned()));
    }

    /// A check that could not run here, and why.
    pub(crate) fn skipped(&mut self, name: &str, why: &str) {
        self.skipped.push((name.to_owned(), why.to_owned()));
    }

    /// How a scenario ended.
    pub(crate) fn outcome(&mut self, name: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed(name),
            Outcome::Failed(error) => self.failed(name, &format!("{error:#}")),
            Outcome::Skipped(reason) => self.skipped(name, reason),
        }
    }

    /// `N passed, N failed`, and `, N skipped` if there were any.
    fn line(&self) -> String {
        let skipped = match self.skipped.len() {
            0 => String::new(),
            count => format!(", {count} skipped"),
        };
        format!("{} passed, {} failed{skipped}", self.passed, self.failed.len())
    }

    /// Prints what was skipped and what failed, then the closing line. The exit status is zero if nothing failed.
    pub(crate) fn close(&self) -> ExitCode {
        println!();
        for (name, why) in &self.skipped {
            println!("skipped: {name}: {why}");
        }
        for (name, why) in &self.failed {
            println!("failed: {name}: {why}");
        }
        println!("{}", self.line());
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_names_skips_only_where_there_are_some() {
        let mut tally = Tally::default();
        tally.passed_many(3);
        assert_eq!(tally.line(), "3 passed, 0 failed");
        tally.skipped("a scenario", "no root");
        tally.failed("another", "it rained");
        assert_eq!(tally.line(), "3 passed, 1 failed, 1 skipped");
    }
}
