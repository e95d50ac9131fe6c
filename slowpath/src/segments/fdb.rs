//! A segment's forwarding database: behind which tunnel each MAC address is.
//!
//! As Linux's `vxlan` device has it (drivers/net/vxlan/vxlan_core.c, `vxlan_snoop`): a source MAC address is where its packet
//! came from, until it is heard from somewhere else or not heard of for the ageing time; what the operator wrote down is
//! never overridden. Linux looks at every packet; here ARP and neighbour discovery teach, and the walk's packets don't.

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use model::MacAddr;

/// What hearing from a station has taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is known now.
    New,
    /// It is where it was.
    Same,
    /// It has moved: it was elsewhere before.
    Moved,
    /// It is written down elsewhere: whoever sent this is not believed.
    Contradicted,
    /// There is no room for it.
    Full,
}

/// A station that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Learned {
    /// The end that it is behind.
    pub(crate) remote: IpAddr,
    /// When it was heard last.
    pub(crate) heard: Instant,
}

/// MAC addresses and the ends that they are behind.
#[derive(Clone, Debug)]
pub(crate) struct Fdb {
    written: AHashMap<MacAddr, IpAddr>,
    learned: AHashMap<MacAddr, Learned>,
    /// Most stations that are learned.
    limit: usize,
    ageing: Duration,
}

impl Fdb {
    /// What is written down, room for `limit` learned stations, and how long one is remembered that isn't heard again.
    pub(crate) fn new(
        written: impl IntoIterator<Item = (MacAddr, IpAddr)>,
        limit: usize,
        ageing: Duration,
    ) -> Fdb {
        Fdb { written: written.into_iter().collect(), learned: AHashMap::new(), limit, ageing }
    }

    /// A packet of this station's came from `remote`.
    pub(crate) fn hear(&mut self, mac: MacAddr, remote: IpAddr, now: Instant) -> Heard {
        if let Some(written) = self.written.get(&mac) {
            return if *written == remote { Heard::Same } else { Heard::Contradicted };
        }
        let has_room = self.learned.len() < self.limit;
        match self.learned.entry(mac) {
            Entry::Occupied(mut known) => {
                let before = known.insert(Learned { remote, heard: now });
                if before.remote == remote { Heard::Same } else { Heard::Moved }
            }
            Entry::Vacant(_) if !has_room => Heard::Full,
            Entry::Vacant(new) => {
                new.insert(Learned { remote, heard: now });
                Heard::New
            }
        }
    }

    /// The end that a station is behind.
    pub(crate) fn remote(&self, mac: MacAddr) -> Option<IpAddr> {
        self.written.get(&mac).copied().or_else(|| self.learned.get(&mac).map(|learned| learned.remote))
    }

    /// Forgets stations that weren't heard for the ageing time, and says which.
    pub(crate) fn age(&mut self, now: Instant) -> Vec<MacAddr> {
        let (mut gone, ageing) = (Vec::new(), self.ageing);
        self.learned.retain(|mac, learned| {
            let stays = now.saturating_duration_since(learned.heard) < ageing;
            if !stays {
                gone.push(*mac);
            }
            stays
        });
        gone
    }

    /// What is written down, in no order.
    pub(crate) fn written(&self) -> impl Iterator<Item = (MacAddr, IpAddr)> {
        self.written.iter().map(|(mac, remote)| (*mac, *remote))
    }

    /// What is learned, in no order.
    pub(crate) fn learned(&self) -> impl Iterator<Item = (MacAddr, Learned)> {
        self.learned.iter().map(|(mac, learned)| (*mac, *learned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AGEING: Duration = Duration::from_secs(300);

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn end(last: u8) -> IpAddr {
        [10, 57, 4, last].into()
    }

    #[test]
    fn a_station_is_where_it_was_heard_last_until_it_ages() {
        let start = Instant::now();
        let mut fdb = Fdb::new([], 8, AGEING);
        assert_eq!(fdb.hear(mac(1), end(1), start), Heard::New);
        assert_eq!(fdb.hear(mac(1), end(1), start + AGEING / 2), Heard::Same);
        assert_eq!(fdb.age(start + AGEING), [], "it was heard since");
        assert_eq!(fdb.hear(mac(1), end(2), start + AGEING), Heard::Moved);
        assert_eq!(fdb.remote(mac(1)), Some(end(2)));
        assert_eq!(fdb.age(start + 2 * AGEING), [mac(1)]);
        assert_eq!(fdb.remote(mac(1)), None);
    }

    #[test]
    fn what_is_written_down_is_never_overridden_and_never_ages() {
        let start = Instant::now();
        let mut fdb = Fdb::new([(mac(1), end(1))], 8, AGEING);
        assert_eq!(fdb.hear(mac(1), end(2), start), Heard::Contradicted);
        assert_eq!(fdb.hear(mac(1), end(1), start), Heard::Same);
        assert_eq!((fdb.age(start + 9 * AGEING), fdb.remote(mac(1))), (vec![], Some(end(1))));
        assert_eq!(fdb.learned().count(), 0);
    }

    #[test]
    fn a_full_table_takes_nobody_new_and_still_follows_those_it_knows() {
        let start = Instant::now();
        let mut fdb = Fdb::new([(mac(9), end(9))], 2, AGEING);
        assert_eq!(
            [1, 2, 3].map(|last| fdb.hear(mac(last), end(1), start)),
            [Heard::New, Heard::New, Heard::Full]
        );
        assert_eq!(fdb.hear(mac(2), end(2), start), Heard::Moved);
        assert_eq!(fdb.hear(mac(9), end(9), start), Heard::Same, "what is written down takes no room");
        assert_eq!(fdb.age(start + AGEING).len(), 2);
        assert_eq!(fdb.hear(mac(3), end(1), start + AGEING), Heard::New);
    }

    proptest! {
        /// Against every packet there was, looked through from the last.
        #[test]
        fn it_answers_as_the_history_does(
            packets in prop::collection::vec((0u8..6, 0u8..3, 0u64..200), 0..40),
            asked in 0u64..4000,
        ) {
            let start = Instant::now();
            let mut fdb = Fdb::new([(mac(0), end(0))], 64, AGEING);
            let mut history: Vec<(MacAddr, IpAddr, Instant)> = Vec::new();
            let mut now = start;
            for (station, from, later) in packets {
                now += Duration::from_secs(later);
                fdb.age(now);
                fdb.hear(mac(station), end(from), now);
                history.push((mac(station), end(from), now));
            }
            now += Duration::from_secs(asked);
            fdb.age(now);
            for station in 0..6 {
                let last = history.iter().rev().find(|(heard, ..)| *heard == mac(station));
                let fresh = last.filter(|(_, _, at)| now.duration_since(*at) < AGEING).map(|(_, from, _)| *from);
                let expected = if station == 0 { Some(end(0)) } else { fresh };
                prop_assert_eq!(fdb.remote(mac(station)), expected);
            }
        }
    }
}
