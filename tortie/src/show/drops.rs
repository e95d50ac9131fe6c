//! `tortie show drops`: what became of every packet.

use tables::{DropReason, PuntReason};

use crate::forms::{ByReason, DropsStatus};

use super::table::Table;

/// `all` also lists reasons that never occurred.
pub(super) fn table(drops: &DropsStatus, all: bool) -> String {
    let dropped = DropReason::ALL.iter().map(|reason| (reason.as_str(), reason.help()));
    let punted = PuntReason::ALL.iter().map(|reason| (reason.as_str(), reason.help()));
    format!(
        "Dropped: {}\n{}\nGiven to the slow path: {}\n{}\n{}\n",
        drops.dropped.total,
        reasons(&drops.dropped, dropped, all),
        drops.punted.total,
        reasons(&drops.punted, punted, all),
        books(drops)
    )
}

fn reasons(
    counts: &ByReason,
    meanings: impl Iterator<Item = (&'static str, &'static str)>,
    all: bool,
) -> String {
    let mut table = Table::new(&["REASON", "PACKETS", "MEANING"]);
    for (reason, meaning) in meanings {
        let count = counts.reasons.get(reason).copied().unwrap_or(0);
        if all || count > 0 {
            table.row(vec![reason.to_owned(), count.to_string(), meaning.to_owned()]);
        }
    }
    if table.is_empty() { String::new() } else { table.columns() }
}

fn books(drops: &DropsStatus) -> String {
    let verdict = if drops.balanced { "the books balance" } else { "THE BOOKS DO NOT BALANCE" };
    let (mut came, mut went) =
        (format!("{} received + {} injected", drops.received, drops.injected), String::new());
    if drops.fragmented > 0 {
        came += &format!(" + {} fragments made", drops.fragments);
        went = format!(" + {} cut into fragments", drops.fragmented);
    }
    format!(
        "{came} = {} forwarded{went} + {} to the slow path + {} dropped: {verdict}.",
        drops.forwarded, drops.punted.total, drops.dropped.total
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tables::Books;

    fn drops() -> DropsStatus {
        let mut books = Books { received: 10, injected: 1, forwarded: 6, ..Books::default() };
        books.punts[PuntReason::Arp.index()] = 3;
        books.drops[DropReason::Blackhole.index()] = 2;
        DropsStatus::new(&books)
    }

    #[test]
    fn only_what_occurred_is_listed() {
        assert_eq!(
            table(&drops(), false),
            "\
Dropped: 2
REASON      PACKETS   MEANING
blackhole   2         The route is a blackhole: an unused address in a block of this node's.

Given to the slow path: 3
REASON   PACKETS   MEANING
arp      3         An ARP packet from a workload or the host.

10 received + 1 injected = 6 forwarded + 3 to the slow path + 2 dropped: the books balance.
"
        );
    }

    #[test]
    fn fragments_are_in_the_books_where_there_are_some() {
        let books = Books { received: 5, forwarded: 9, fragmented: 2, fragments: 6, ..Books::default() };
        let line = "5 received + 0 injected + 6 fragments made = 9 forwarded + 2 cut into fragments + 0 to the slow \
                    path + 0 dropped: the books balance.";
        assert!(table(&DropsStatus::new(&books), false).contains(line));
    }

    #[test]
    fn all_lists_every_reason() {
        let text = table(&drops(), true);
        for reason in DropReason::ALL {
            assert!(text.contains(&format!("\n{reason} ")), "{reason} is missing");
        }
    }

    #[test]
    fn books_that_do_not_balance_are_hard_to_overlook() {
        let drops = DropsStatus { balanced: false, ..drops() };
        assert!(table(&drops, false).contains("THE BOOKS DO NOT BALANCE"));
    }
}
