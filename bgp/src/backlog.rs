//! What peers that take nothing for a while are owed: every prefix of which there was news, once, however often.
//!
//! Nothing is kept while nobody is behind. A prefix that came and went while a peer wasn't listening is owed to nobody, so
//! what is kept is bounded by what there is and what there was when a peer fell behind.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ahash::RandomState;

use crate::loc_rib::{Key, Slot};

/// The latest news of a prefix.
#[derive(Clone, Copy, Debug)]
struct Latest {
    /// Its number.
    number: u64,
    /// The number of the news that brought the prefix up; 0 where it was there before.
    born: u64,
}

/// News by number, and where in them each peer stands that is behind.
#[derive(Debug)]
pub(crate) struct Backlog<K> {
    /// Numbers are counted up from 1.
    last: u64,
    /// In order; one that is not its prefix's latest counts for nothing.
    news: VecDeque<(u64, K)>,
    latest: HashMap<K, Latest, RandomState>,
    behind: BTreeMap<Slot, Behind>,
}

/// Where a peer stands.
#[derive(Clone, Copy, Debug)]
struct Behind {
    /// The last number that it knows of.
    known: u64,
    /// It is told of the table by other means meanwhile.
    is_told: bool,
}

/// A prefix that a peer is owed news of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed<K> {
    pub(crate) key: K,
    /// It may have been told of it before.
    pub(crate) may_know: bool,
}

/// Below so many needless entries it isn't worth to look for them.
const SLACK: usize = 1024;

impl<K: Key> Backlog<K> {
    pub(crate) fn new(hasher: RandomState) -> Backlog<K> {
        Backlog {
            last: 0,
            news: VecDeque::new(),
            latest: HashMap::with_hasher(hasher),
            behind: BTreeMap::new(),
        }
    }

    /// Is the peer behind?
    pub(crate) fn is_behind(&self, peer: Slot) -> bool {
        self.behind.contains_key(&peer)
    }

    /// From here on the peer is owed what is new, unless it is already. `is_told`: it is told of the table by other means.
    pub(crate) fn fall_behind(&mut self, peer: Slot, is_told: bool) {
        self.behind.entry(peer).or_insert(Behind { known: self.last, is_told });
    }

    /// The peer is owed nothing.
    pub(crate) fn forget(&mut self, peer: Slot) {
        self.behind.remove(&peer);
        self.trim();
    }

    /// There is news of a prefix, which peers were told of before, or are now.
    pub(crate) fn note(&mut self, key: K, was_said: bool, is_said: bool) {
        let heard = |behind: &Behind| if behind.is_told { u64::MAX } else { behind.known };
        let Some(nearest) = self.behind.values().map(heard).max() else { return };
        self.last += 1;
        let number = self.last;
        let born = if was_said { 0 } else { number };
        let latest = self.latest.entry(key).or_insert(Latest { number, born });
        if !is_said && latest.born > nearest {
            // Nobody who is behind has heard of it.
            self.latest.remove(&key);
            return;
        }
        latest.number = number;
        self.news.push_back((number, key));
        if self.news.len() > 2 * self.latest.len() + SLACK {
            self.compact();
        }
    }

    /// The next prefix that a peer is owed news of; after the last one it is no longer behind.
    pub(crate) fn next(&mut self, peer: Slot) -> Option<Owed<K>> {
        let behind = self.behind.get_mut(&peer)?;
        let from = self.news.partition_point(|(number, _)| *number <= behind.known);
        for &(number, key) in self.news.range(from..) {
            let latest = self.latest.get(&key).filter(|latest| latest.number == number);
            if let Some(latest) = latest {
                let may_know = behind.is_told || latest.born <= behind.known;
                behind.known = number;
                return Some(Owed { key, may_know });
            }
        }
        self.forget(peer);
        None
    }

    /// Every prefix that a peer is owed news of.
    pub(crate) fn owed(&self, peer: Slot) -> impl Iterator<Item = K> + '_ {
        let known = self.behind.get(&peer).map_or(self.last, |behind| behind.known);
        self.latest.iter().filter(move |(_, latest)| latest.number > known).map(|(key, _)| *key)
    }

    /// Forgets what everybody knows.
    fn trim(&mut self) {
        let Some(farthest) = self.behind.values().map(|behind| behind.known).min() else {
            (self.news, self.last) = (VecDeque::new(), 0);
            self.latest = HashMap::with_hasher(self.latest.hasher().clone());
            return;
        };
        while let Some(&(number, key)) = self.news.front().filter(|(number, _)| *number <= farthest) {
            self.news.pop_front();
            if self.latest.get(&key).is_some_and(|latest| latest.number == number) {
                self.latest.remove(&key);
            }
        }
    }

    fn compact(&mut self) {
        self.trim();
        let latest = &self.latest;
        self.news.retain(|(number, key)| latest.get(key).is_some_and(|latest| latest.number == *number));
    }

    #[cfg(test)]
    fn kept(&self) -> usize {
        self.news.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loc_rib::KeyV4;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn key(number: u8) -> KeyV4 {
        KeyV4::new(model::Prefix::new([10, 0, 0, number].into(), 32).expect("a prefix"))
    }

    fn backlog() -> Backlog<KeyV4> {
        Backlog::new(RandomState::with_seed(1))
    }

    #[test]
    fn nothing_is_kept_while_nobody_is_behind() {
        let mut backlog = backlog();
        backlog.note(key(1), false, true);
        assert_eq!(backlog.kept(), 0);
        backlog.fall_behind(Slot(1), false);
        backlog.note(key(1), true, true);
        let owed = Owed { key: key(1), may_know: true };
        assert_eq!((backlog.kept(), backlog.next(Slot(1)), backlog.next(Slot(1))), (1, Some(owed), None));
        assert!(!backlog.is_behind(Slot(1)));
        assert_eq!(backlog.kept(), 0);
    }

    #[test]
    fn prefixes_that_come_and_go_by_the_million_take_no_room() {
        let mut backlog = backlog();
        backlog.fall_behind(Slot(1), false);
        for number in 0..1_000_000u32 {
            let key = KeyV4::new(model::Prefix::new(number.to_be_bytes().into(), 32).expect("a prefix"));
            backlog.note(key, false, true);
            backlog.note(key, true, false);
        }
        assert!(backlog.kept() <= 2 * SLACK, "{} are kept", backlog.kept());
        assert_eq!(backlog.next(Slot(1)), None);
    }

    proptest! {
        /// Told the present state of what it is owed, a peer knows what everybody knows, whenever it listens.
        #[test]
        fn whoever_catches_up_knows_all(
            steps in prop::collection::vec((0u8..8, 0u8..8, any::<bool>()), 1..200),
        ) {
            let mut backlog = backlog();
            let mut said: BTreeSet<u8> = BTreeSet::new();
            let mut knows: [BTreeSet<u8>; 3] = Default::default();
            let peers = [Slot(0), Slot(1), Slot(2)];
            for (what, number, flag) in steps {
                match what {
                    0..=2 => {
                        let peer = usize::from(what);
                        if flag {
                            backlog.fall_behind(peers[peer], false);
                        } else {
                            // Some of what it is owed.
                            for _ in 0..number {
                                let Some(owed) = backlog.next(peers[peer]) else { break };
                                tell(&mut knows[peer], &said, owed)?;
                            }
                        }
                    }
                    _ => {
                        let was = said.contains(&number);
                        if flag { said.insert(number); } else { said.remove(&number); }
                        backlog.note(key(number), was, flag);
                        for (peer, knows) in peers.iter().zip(&mut knows) {
                            if !backlog.is_behind(*peer) {
                                tell(knows, &said, Owed { key: key(number), may_know: true })?;
                            }
                        }
                    }
                }
            }
            for (peer, knows) in peers.iter().zip(&mut knows) {
                let mut owed: BTreeSet<KeyV4> = backlog.owed(*peer).collect();
                while let Some(next) = backlog.next(*peer) {
                    prop_assert!(owed.remove(&next.key));
                    tell(knows, &said, next)?;
                }
                prop_assert!(owed.is_empty());
                prop_assert_eq!(&*knows, &said);
            }
            prop_assert_eq!(backlog.kept(), 0);
        }
    }

    fn tell(knows: &mut BTreeSet<u8>, said: &BTreeSet<u8>, owed: Owed<KeyV4>) -> Result<(), TestCaseError> {
        let std::net::IpAddr::V4(addr) = owed.key.prefix().addr() else { return Ok(()) };
        let number = addr.octets()[3];
        prop_assert!(owed.may_know || !knows.contains(&number), "it knows of {number}");
        if said.contains(&number) {
            knows.insert(number);
        } else {
            knows.remove(&number);
        }
        Ok(())
    }
}
