//! The interfaces of this network namespace, by name.

use std::io;

/// The kernel's list. Unlike /sys, it is always of the reader's own network namespace.
const LIST: &str = "/proc/self/net/dev";

/// Every interface's name.
///
/// # Errors
/// /proc can't be read.
pub(crate) fn names() -> io::Result<Vec<String>> {
    Ok(parse(&std::fs::read_to_string(LIST)?))
}

/// Two lines of headings, then `  name: counters…` (proc_net_dev(5)).
fn parse(text: &str) -> Vec<String> {
    text.lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_before_the_colon() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2\ncali12ab:3 4\n";
        assert_eq!(parse(text), ["lo", "cali12ab"]);
    }

    #[test]
    fn every_namespace_has_a_loopback() {
        assert!(names().unwrap().contains(&"lo".to_owned()));
    }
}
