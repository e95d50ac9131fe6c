//! Which ports of the translated address are taken: a bit each, for each family and protocol.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Family;
use packet::protocol;

const WORDS: usize = 65_536 / 64;
/// The bits of even ports.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// Protocols whose ports are counted. An ICMP query's identifier is its port.
const PROTOCOLS: usize = 4;

/// The bits of all families and protocols: 64 KiB.
pub(super) struct Ports {
    words: Box<[AtomicU64]>,
}

impl Ports {
    pub(super) const BYTES: usize = 2 * PROTOCOLS * WORDS * 8;

    pub(super) fn new() -> Ports {
        Ports { words: (0..2 * PROTOCOLS * WORDS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The same bits, apart.
    pub(super) fn copied(&self) -> Ports {
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Ordering::Relaxed));
        Ports { words: self.words.iter().map(copy).collect() }
    }

    fn of(&self, family: Family, protocol: u8) -> Option<&[AtomicU64]> {
        let row = match protocol {
            protocol::TCP => 0,
            protocol::UDP => 1,
            protocol::ICMP | protocol::ICMPV6 => 2,
            protocol::SCTP => 3,
            _ => return None,
        } + if family == Family::V6 { PROTOCOLS } else { 0 };
        self.words.get(row * WORDS..(row + 1) * WORDS)
    }

    /// Takes a port of the range that nobody has: `wanted` where it can be had; else, from `start` on round the range,
    /// one of the same parity (RFC 4787 REQ-4); else any. `None` where all are taken, or the protocol has no ports.
    pub(super) fn take(
        &self,
        family: Family,
        protocol: u8,
        range: &RangeInclusive<u16>,
        wanted: u16,
        start: u16,
    ) -> Option<u16> {
        let words = self.of(family, protocol)?;
        if range.contains(&wanted) && take_bit(words, wanted) {
            return Some(wanted);
        }
        // An SCTP port is under a checksum of the whole packet, which a router doesn't compute anew.
        if protocol == protocol::SCTP || range.is_empty() {
            return None;
        }
        let parity = if wanted.is_multiple_of(2) { EVEN } else { !EVEN };
        [parity, u64::MAX].into_iter().find_map(|allowed| take_any(words, range, start, allowed))
    }

    /// Gives a port back.
    pub(super) fn give_back(&self, family: Family, protocol: u8, port: u16) {
        if let Some(words) = self.of(family, protocol) {
            words[usize::from(port) / 64].fetch_and(!(1 << (port % 64)), Ordering::AcqRel);
        }
    }

    /// Ports taken, of all families and protocols.
    pub(super) fn taken(&self) -> usize {
        self.words.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }
}

fn take_bit(words: &[AtomicU64], port: u16) -> bool {
    let bit = 1 << (port % 64);
    words[usize::from(port) / 64].fetch_or(bit, Ordering::AcqRel) & bit == 0
}

/// A free bit of the range under `allowed`, word by word from `start`'s on.
fn take_any(words: &[AtomicU64], range: &RangeInclusive<u16>, start: u16, allowed: u64) -> Option<u16> {
    let (first, last) = (usize::from(*range.start()) / 64, usize::from(*range.end()) / 64);
    let count = last - first + 1;
    for step in 0..count {
        let at = first + (usize::from(start) + step) % count;
        let base = at * 64;
        let inside = |bit: usize| range.contains(&((base + bit) as u16));
        let mut free = !words[at].load(Ordering::Relaxed) & allowed;
        while free != 0 {
            let bit = free.trailing_zeros() as usize;
            free &= free - 1;
            let port = (base + bit) as u16;
            if inside(bit) && take_bit(words, port) {
                return Some(port);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_port_is_kept_where_it_is_free_and_its_parity_where_it_is_not() {
        let ports = Ports::new();
        let take = |wanted| ports.take(Family::V4, protocol::UDP, &(1000..=1999), wanted, 7);
        assert_eq!(take(1500), Some(1500));
        let other = take(1500).unwrap();
        assert!(other != 1500 && other % 2 == 0, "{other}");
        assert_eq!(take(53).map(|port| port % 2), Some(1));
        ports.give_back(Family::V4, protocol::UDP, 1500);
        assert_eq!(take(1500), Some(1500));
    }

    #[test]
    fn every_port_of_a_range_is_given_once_and_then_none() {
        let ports = Ports::new();
        let range = 61_437..=61_571;
        let all: BTreeSet<u16> = range
            .clone()
            .map(|n| ports.take(Family::V6, protocol::TCP, &range, 80, n).expect("one is left"))
            .collect();
        assert!(all.iter().eq(range.clone().collect::<Vec<_>>().iter()));
        assert_eq!(ports.take(Family::V6, protocol::TCP, &range, 80, 0), None);
        // Others have their own.
        assert!(ports.take(Family::V4, protocol::TCP, &range, 80, 0).is_some());
        assert!(ports.take(Family::V6, protocol::UDP, &range, 80, 0).is_some());
        assert_eq!(ports.taken(), range.len() + 2);
    }

    #[test]
    fn an_sctp_port_stays_or_there_is_none() {
        let ports = Ports::new();
        let take = || ports.take(Family::V4, protocol::SCTP, &(1..=u16::MAX), 36_412, 0);
        assert_eq!((take(), take()), (Some(36_412), None));
    }

    #[test]
    fn two_threads_never_get_the_same_port() {
        let ports = Ports::new();
        let range = 1024..=5119;
        let taken: Vec<Vec<u16>> = std::thread::scope(|scope| {
            let take =
                || std::iter::from_fn(|| ports.take(Family::V4, protocol::TCP, &range, 2000, 0)).collect();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all: BTreeSet<u16> = taken.iter().flatten().copied().collect();
        assert_eq!(all.len(), 4096);
        assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), 4096);
    }
}
