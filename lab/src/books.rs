//! The books of every node: received + injected + fragments = forwarded + fragmented + punted + dropped (D6).

use std::time::Duration;

use anyhow::{Result, bail};

use crate::tortie::{ShowDrops, ShowPorts, TortieNode};
use crate::{Lab, wait};

/// How long frames under way may take to reach their fate.
const SETTLE: Duration = Duration::from_secs(60);

/// Whether these books balance: the sums, and the parts of each sum.
///
/// # Errors
/// They do not; the numbers are told.
pub fn check(books: &ShowDrops) -> Result<()> {
    let came = books.received + books.injected + books.fragments;
    let went = books.forwarded + books.fragmented + books.punted.total + books.dropped.total;
    if came != went {
        bail!(
            "received {} + injected {} + fragments {} = {came}, but forwarded {} + fragmented {} + punted {} + dropped {} = {went}",
            books.received,
            books.injected,
            books.fragments,
            books.forwarded,
            books.fragmented,
            books.punted.total,
            books.dropped.total
        );
    }
    for (name, part) in [("punted", &books.punted), ("dropped", &books.dropped)] {
        let sum: u64 = part.reasons.values().sum();
        if sum != part.total {
            bail!("{name} {} in all, but its reasons sum up to {sum}", part.total);
        }
    }
    if !books.balanced {
        bail!("the router says that its books do not balance");
    }
    Ok(())
}

/// Checks the books of a node once its traffic has come to rest, and returns them.
///
/// # Errors
/// They do not balance.
pub fn settled(lab: &Lab, node: &TortieNode) -> Result<ShowDrops> {
    // A frame between two counters is not lost: the books are judged as soon as they balance, or at the end.
    lab.wait(&format!("the books of {}", node.name()), SETTLE, || {
        let books = node.show::<ShowDrops>("drops")?;
        check(&books).map(|()| Some(books))
    })
}

/// One line for people.
pub fn line(node: &str, books: &ShowDrops) -> String {
    let reasons = |part: &crate::tortie::ByReason| {
        let some = part.reasons.iter().filter(|(_, count)| **count > 0);
        let text = some.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ");
        if text.is_empty() { String::new() } else { format!(" ({text})") }
    };
    let (mut made, mut cut) = (String::new(), String::new());
    if books.fragmented > 0 {
        (made, cut) =
            (format!(" + fragments {}", books.fragments), format!(" + fragmented {}", books.fragmented));
    }
    format!(
        "books of {node}: received {} + injected {}{made} = forwarded {}{cut} + punted {}{} + dropped {}{}",
        books.received,
        books.injected,
        books.forwarded,
        books.punted.total,
        reasons(&books.punted),
        books.dropped.total,
        reasons(&books.dropped)
    )
}

/// How many frames the kernel couldn't give to a router's workers, of all that it received until now.
///
/// # Errors
/// The router doesn't answer.
pub fn not_received(node: &TortieNode) -> Result<u64> {
    // Its counts are at most a second old.
    wait::pass(Duration::from_secs(1))?;
    let ports = node.show::<ShowPorts>("ports")?.ports;
    let counts = ports.iter().flat_map(|port| port.queues.iter().map(|queue| queue.xdp));
    Ok(counts.map(|xdp| xdp.rx_dropped + xdp.rx_ring_full).sum())
}

/// What a router and the kernel tell of losses.
///
/// # Errors
/// The router doesn't answer.
pub fn where_lost(node: &TortieNode) -> Result<String> {
    let ports = node.show::<ShowPorts>("ports")?.ports;
    let queues = ports.iter().flat_map(|port| port.queues.iter().map(|queue| (&port.name, queue.xdp)));
    let lost = queues.filter(|(_, xdp)| xdp.rx_dropped + xdp.rx_ring_full + xdp.rx_fill_ring_empty > 0);
    let lost: Vec<_> = lost.collect();
    Ok(format!("{}; queues: {lost:?}", line(node.name(), &node.show::<ShowDrops>("drops")?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tortie::ByReason;

    fn books() -> ShowDrops {
        let by = |reason: &str, count: u64| ByReason {
            total: count,
            reasons: [(reason.to_owned(), count)].into_iter().collect(),
        };
        ShowDrops {
            received: 10,
            injected: 2,
            forwarded: 7,
            fragmented: 0,
            fragments: 0,
            punted: by("arp", 3),
            dropped: by("no_route", 2),
            balanced: true,
        }
    }

    #[test]
    fn balanced_books_pass() {
        check(&books()).expect("they balance");
    }

    #[test]
    fn a_frame_without_a_fate_is_found() {
        let error = check(&ShowDrops { received: 11, ..books() }).expect_err("one is missing");
        assert!(error.to_string().contains("= 13"), "{error}");
    }

    #[test]
    fn a_drop_without_a_reason_is_found() {
        let mut books = books();
        books.dropped.reasons.clear();
        assert!(check(&books).is_err());
    }
}
