//! The neighbours we know of and those we are asking for.

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use model::{IfIndex, MacAddr};

use super::{NeighborFact, NeighborState};

/// Between two questions for the same neighbour (RFC 4861 §10: RETRANS_TIMER is one second).
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A question that nobody has repeated for so long is nobody's any more, and gives way when room is short.
const QUESTION_LIFETIME: Duration = Duration::from_secs(10);

/// Who told us of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NeighborOrigin {
    /// The kernel's neighbour table.
    Kernel,
    /// The workload's own ARP or neighbour discovery.
    Workload,
    /// `WorkloadEndpoint.spec.mac`.
    Endpoint,
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborEntry {
    /// Its MAC, where known.
    pub mac: Option<MacAddr>,
    /// How sure we are.
    pub state: NeighborState,
    /// Who told us.
    pub origin: NeighborOrigin,
    /// Since when it has been as it is.
    pub since: Instant,
}

impl NeighborEntry {
    /// The MAC that frames may be sent to, if there is one.
    pub fn usable_mac(&self) -> Option<MacAddr> {
        self.mac.filter(|mac| self.state.is_usable() && !mac.is_zero())
    }
}

/// Whether adjacencies must be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The usable MAC is what it was.
    Same,
    /// There is a usable MAC now, and it is not the one there was.
    Resolved(MacAddr),
    /// There was a usable MAC and there is none now.
    Lost,
}

/// What came of wanting a neighbour's MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is known.
    Known(MacAddr),
    /// It isn't: ask now.
    Ask,
    /// It was asked for less than a second ago.
    Waiting,
    /// It isn't known and there is no room to remember the question.
    Full,
}

/// No room for another neighbour; counted by [`NeighborTable::refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the neighbour table holds its limit of {limit} entries")]
pub struct TableFull {
    /// The limit.
    pub limit: usize,
}

/// A neighbour's key: an address means nothing without its interface.
type Key = (IfIndex, IpAddr);

#[derive(Clone, Copy, Debug)]
struct Question {
    asked: Instant,
    times: u32,
}

/// Neighbours by interface and address, at most `limit` of them, and at most `limit` open questions.
#[derive(Debug)]
pub struct NeighborTable {
    limit: usize,
    entries: AHashMap<Key, NeighborEntry>,
    questions: AHashMap<Key, Question>,
    refused: u64,
}

impl NeighborTable {
    /// An empty table for `limit` neighbours.
    pub fn new(limit: usize) -> NeighborTable {
        NeighborTable { limit, entries: AHashMap::new(), questions: AHashMap::new(), refused: 0 }
    }

    /// Takes the kernel's word for a neighbour.
    ///
    /// # Errors
    /// Where there is no room for a new one.
    pub fn observe(&mut self, fact: &NeighborFact, now: Instant) -> Result<Learned, TableFull> {
        let origin = NeighborOrigin::Kernel;
        let entry = NeighborEntry { mac: fact.mac, state: fact.state, origin, since: now };
        self.insert((fact.ifindex, fact.addr), entry)
    }

    /// Takes a workload's own word, or its endpoint's, for its MAC. What a workload says of itself is newer than its
    /// endpoint's `spec.mac`, which therefore never overwrites it.
    ///
    /// # Errors
    /// Where there is no room for a new one.
    pub fn learn(
        &mut self,
        ifindex: IfIndex,
        addr: IpAddr,
        mac: MacAddr,
        origin: NeighborOrigin,
        now: Instant,
    ) -> Result<Learned, TableFull> {
        let key = (ifindex, addr);
        let said_itself = |entry: &NeighborEntry| entry.origin == NeighborOrigin::Workload;
        if origin == NeighborOrigin::Endpoint && self.entries.get(&key).is_some_and(said_itself) {
            return Ok(Learned::Same);
        }
        let state = match origin {
            NeighborOrigin::Endpoint => NeighborState::Permanent,
            _ => NeighborState::Reachable,
        };
        self.insert(key, NeighborEntry { mac: Some(mac), state, origin, since: now })
    }

    fn insert(&mut self, key: Key, entry: NeighborEntry) -> Result<Learned, TableFull> {
        let room = self.entries.len() < self.limit;
        let before = match self.entries.entry(key) {
            Entry::Occupied(mut occupied) => {
                let known = occupied.get_mut();
                let before = known.usable_mac();
                let same = (known.mac, known.state, known.origin) == (entry.mac, entry.state, entry.origin);
                if !same {
                    *known = entry;
                }
                before
            }
            Entry::Vacant(_) if !room => {
                self.refused += 1;
                return Err(TableFull { limit: self.limit });
            }
            Entry::Vacant(vacant) => {
                vacant.insert(entry);
                None
            }
        };
        let after = entry.usable_mac();
        if after.is_some() {
            self.questions.remove(&key);
        }
        Ok(match (before, after) {
            (before, Some(mac)) if before != after => Learned::Resolved(mac),
            (Some(_), None) => Learned::Lost,
            _ => Learned::Same,
        })
    }

    /// Drops a neighbour.
    pub fn remove(&mut self, ifindex: IfIndex, addr: IpAddr) -> Learned {
        let entry = self.entries.remove(&(ifindex, addr));
        match entry.and_then(|entry| entry.usable_mac()) {
            Some(_) => Learned::Lost,
            None => Learned::Same,
        }
    }

    /// Drops every neighbour of an interface and every question on it; yields those that had a usable MAC.
    pub fn remove_interface(&mut self, ifindex: IfIndex) -> Vec<IpAddr> {
        let mut lost = Vec::new();
        self.questions.retain(|key, _| key.0 != ifindex);
        self.entries.retain(|key, entry| {
            let keep = key.0 != ifindex;
            if !keep && entry.usable_mac().is_some() {
                lost.push(key.1);
            }
            keep
        });
        lost
    }

    /// The MAC that frames for this neighbour may go to.
    pub fn mac(&self, ifindex: IfIndex, addr: IpAddr) -> Option<MacAddr> {
        self.entries.get(&(ifindex, addr)).and_then(NeighborEntry::usable_mac)
    }

    /// Who told us of a neighbour.
    pub fn origin(&self, ifindex: IfIndex, addr: IpAddr) -> Option<NeighborOrigin> {
        self.entries.get(&(ifindex, addr)).map(|entry| entry.origin)
    }

    /// Someone needs this neighbour: is it known, or is it time to ask? Whoever still needs it repeats the call, once
    /// a second or oftener.
    pub fn want(&mut self, ifindex: IfIndex, addr: IpAddr, now: Instant) -> Wanted {
        if let Some(mac) = self.mac(ifindex, addr) {
            return Wanted::Known(mac);
        }
        if self.questions.len() >= self.limit {
            let age = |question: &Question| now.saturating_duration_since(question.asked);
            self.questions.retain(|_, question| age(question) < QUESTION_LIFETIME);
        }
        let room = self.questions.len() < self.limit;
        match self.questions.entry((ifindex, addr)) {
            Entry::Occupied(mut question) => {
                let question = question.get_mut();
                if now.saturating_duration_since(question.asked) < RETRY_INTERVAL {
                    return Wanted::Waiting;
                }
                *question = Question { asked: now, times: question.times.saturating_add(1) };
                Wanted::Ask
            }
            Entry::Vacant(_) if !room => {
                self.refused += 1;
                Wanted::Full
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Question { asked: now, times: 1 });
                Wanted::Ask
            }
        }
    }

    /// How often this neighbour has been asked for without an answer.
    pub fn times_asked(&self, ifindex: IfIndex, addr: IpAddr) -> u32 {
        self.questions.get(&(ifindex, addr)).map_or(0, |question| question.times)
    }

    /// All neighbours, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (IfIndex, IpAddr, &NeighborEntry)> {
        self.entries.iter().map(|(&(ifindex, addr), entry)| (ifindex, addr, entry))
    }

    /// How many neighbours are known.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks whether a node has no neighbour at all")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many neighbours and questions found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UPLINK: IfIndex = IfIndex(2);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn addr(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn fact(last: u8, mac: MacAddr, state: NeighborState) -> NeighborFact {
        NeighborFact { ifindex: UPLINK, addr: addr(last), mac: Some(mac), state }
    }

    #[test]
    fn only_a_change_of_the_usable_mac_is_news() {
        let now = Instant::now();
        let mut table = NeighborTable::new(8);
        let mut observe = |mac, state| table.observe(&fact(1, mac, state), now).unwrap();
        assert_eq!(observe(MAC, NeighborState::Incomplete), Learned::Same);
        assert_eq!(observe(MAC, NeighborState::Reachable), Learned::Resolved(MAC));
        assert_eq!(observe(MAC, NeighborState::Stale), Learned::Same);
        assert_eq!(observe(OTHER_MAC, NeighborState::Reachable), Learned::Resolved(OTHER_MAC));
        assert_eq!(observe(OTHER_MAC, NeighborState::Failed), Learned::Lost);
        assert_eq!(observe(OTHER_MAC, NeighborState::Failed), Learned::Same);
        assert_eq!(table.mac(UPLINK, addr(1)), None);
    }

    #[test]
    fn a_question_is_asked_again_after_a_second_until_it_is_answered() {
        let start = Instant::now();
        let mut table = NeighborTable::new(8);
        assert_eq!(table.want(UPLINK, addr(1), start), Wanted::Ask);
        assert_eq!(table.want(UPLINK, addr(1), start + RETRY_INTERVAL / 2), Wanted::Waiting);
        assert_eq!(table.want(UPLINK, addr(1), start + RETRY_INTERVAL), Wanted::Ask);
        assert_eq!(table.times_asked(UPLINK, addr(1)), 2);
        table.observe(&fact(1, MAC, NeighborState::Reachable), start).unwrap();
        assert_eq!(table.want(UPLINK, addr(1), start), Wanted::Known(MAC));
        assert_eq!(table.times_asked(UPLINK, addr(1)), 0);
    }

    #[test]
    fn full_is_refused_and_counted() {
        let now = Instant::now();
        let mut table = NeighborTable::new(2);
        for last in 1..=2 {
            table.observe(&fact(last, MAC, NeighborState::Stale), now).unwrap();
            assert_eq!(table.want(UPLINK, addr(last + 10), now), Wanted::Ask);
        }
        assert_eq!(table.observe(&fact(3, MAC, NeighborState::Stale), now), Err(TableFull { limit: 2 }));
        assert_eq!(table.want(UPLINK, addr(13), now), Wanted::Full);
        assert_eq!((table.len(), table.refused()), (2, 2));
        assert_eq!(
            table.want(UPLINK, addr(13), now + QUESTION_LIFETIME),
            Wanted::Ask,
            "forgotten questions give way"
        );
        table.observe(&fact(2, OTHER_MAC, NeighborState::Stale), now).expect("a known one may change");
    }

    #[test]
    fn a_workloads_own_word_prevails_over_its_endpoints() {
        let now = Instant::now();
        let mut table = NeighborTable::new(2);
        let mut learn = |mac, origin| table.learn(UPLINK, addr(1), mac, origin, now).unwrap();
        assert_eq!(learn(MAC, NeighborOrigin::Endpoint), Learned::Resolved(MAC));
        assert_eq!(learn(OTHER_MAC, NeighborOrigin::Workload), Learned::Resolved(OTHER_MAC));
        assert_eq!(learn(MAC, NeighborOrigin::Endpoint), Learned::Same);
        assert_eq!(table.mac(UPLINK, addr(1)), Some(OTHER_MAC));
    }

    #[test]
    fn an_interface_takes_its_neighbours_and_questions_with_it() {
        let now = Instant::now();
        let mut table = NeighborTable::new(8);
        table.observe(&fact(1, MAC, NeighborState::Stale), now).unwrap();
        table.observe(&fact(2, MAC, NeighborState::Failed), now).unwrap();
        table.learn(IfIndex(3), addr(3), MAC, NeighborOrigin::Workload, now).unwrap();
        table.want(UPLINK, addr(4), now);
        assert_eq!(table.remove_interface(UPLINK), [addr(1)]);
        assert_eq!((table.len(), table.times_asked(UPLINK, addr(4))), (1, 0));
        assert_eq!(table.remove(IfIndex(3), addr(3)), Learned::Lost);
        assert_eq!(table.len(), 0);
    }

    proptest! {
        /// Whoever follows the news alone knows every usable MAC.
        #[test]
        fn the_news_tell_the_whole_story(
            changes in prop::collection::vec((0u8..4, 0u8..3, 0u8..4), 0..60)
        ) {
            let now = Instant::now();
            let mut table = NeighborTable::new(4);
            let mut followed = std::collections::BTreeMap::new();
            for (last, mac, action) in changes {
                let mac = MacAddr([2, 0, 0, 0, 0, mac]);
                let news = match action {
                    0 => table.remove(UPLINK, addr(last)),
                    1 => table.observe(&fact(last, mac, NeighborState::Failed), now).unwrap(),
                    2 => table.observe(&fact(last, mac, NeighborState::Stale), now).unwrap(),
                    _ => table.learn(UPLINK, addr(last), mac, NeighborOrigin::Workload, now).unwrap(),
                };
                match news {
                    Learned::Same => {}
                    Learned::Resolved(mac) => { followed.insert(addr(last), mac); }
                    Learned::Lost => prop_assert!(followed.remove(&addr(last)).is_some()),
                }
            }
            for last in 0..4 {
                prop_assert_eq!(table.mac(UPLINK, addr(last)), followed.get(&addr(last)).copied());
            }
        }
    }
}
