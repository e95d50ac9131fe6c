//! What peers that take nothing for a while are owed: every prefix of which there was news, once, however often.
//!
//! Nothing is kept while nobody is behind. A prefix that came and went while a peer wasn't listening is owed to nobody, so
//! what is kept is bounded by what there is and what there was when a peer fell behind.

use std::collections::{BTreeMap, VecDeque};

use ahash::RandomState;

use crate::key::Key;
use crate::parted::Parted;
use crate::path::Slot;

/// Counts news up from 1, in six bytes: a million a second for nine years, while somebody is behind all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number([u8; 6]);

impl Number {
    const NONE: Number = Number([0; 6]);

    fn of(count: u64) -> Number {
        let [_, _, number @ ..] = count.to_be_bytes();
        Number(number)
    }

    fn get(self) -> u64 {
        let Number([a, b, c, d, e, f]) = self;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

/// News of a prefix.
#[derive(Clone, Copy, Debug)]
struct News<K> {
    key: K,
    number: Number,
    /// The number of the news that brought the prefix up; 0 where it was there before.
    born: Number,
}

// A peer that takes nothing while a table comes in is owed all of it.
const _: () = assert!(size_of::<News<crate::key::KeyV4>>() == 17);

/// News by number, and where in them each peer stands that is behind.
#[derive(Debug)]
pub(crate) struct Backlog<K> {
    /// The latest number.
    last: u64,
    /// In order of numbers; one that is not its prefix's latest counts for nothing.
    news: VecDeque<News<K>>,
    /// The latest of each prefix, by its key.
    latest: Parted<Number>,
    hasher: RandomState,
    behind: BTreeMap<Slot, Behind>,
    /// Everybody knew this one when a peer was last forgotten.
    known_to_all: u64,
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

/// News that everybody knows, of which so many are forgotten with each that comes or is told.
const TRIM: usize = 4;

/// Below so many needless entries it isn't worth to look for them.
const SLACK: usize = 1024;

impl<K: Key> Backlog<K> {
    pub(crate) fn new(hasher: RandomState) -> Backlog<K> {
        Backlog {
            last: 0,
            news: VecDeque::new(),
            latest: Parted::new(),
            hasher,
            behind: BTreeMap::new(),
            known_to_all: 0,
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
        if self.behind.is_empty() {
            (self.news, self.latest) = (VecDeque::new(), Parted::new());
            (self.last, self.known_to_all) = (0, 0);
        } else {
            self.known_to_all = self.farthest();
        }
    }

    /// The number of the last news that everybody knows of.
    fn farthest(&self) -> u64 {
        self.behind.values().map(|behind| behind.known).min().unwrap_or(self.last)
    }

    /// There is news of a prefix, which peers were told of before, or are now.
    pub(crate) fn note(&mut self, key: K, was_said: bool, is_said: bool) {
        let heard = |behind: &Behind| if behind.is_told { u64::MAX } else { behind.known };
        let Some(nearest) = self.behind.values().map(heard).max() else { return };
        self.trim();
        self.last += 1;
        let number = Number::of(self.last);
        let Backlog { news, latest, hasher, .. } = self;
        let hash = hasher.hash_one(key);
        let is_it = |number: &Number| at(news, *number).is_some_and(|news| news.key == key);
        let before = latest.find(hash, is_it).copied();
        let born = match before {
            Some(before) => at(news, before).map_or(Number::NONE, |news| news.born),
            None if was_said => Number::NONE,
            None => number,
        };
        if !is_said && born.get() > nearest {
            // Nobody who is behind has heard of it.
            latest.remove(hash, is_it);
            return;
        }
        news.push_back(News { key, number, born });
        match before.and_then(|before| latest.find_mut(hash, |number| *number == before)) {
            Some(latest) => *latest = number,
            None => {
                let hash_of = |number: &Number| at(news, *number).map_or(0, |news| hasher.hash_one(news.key));
                latest.insert_unique(hash, number, hash_of);
            }
        }
        if self.news.len() > 2 * self.latest.len() + SLACK {
            self.compact();
        }
    }

    /// Is this the latest news of its prefix?
    fn is_latest(&self, news: &News<K>) -> bool {
        self.latest.find(self.hasher.hash_one(news.key), |number| *number == news.number).is_some()
    }

    /// The next prefix that a peer is owed news of; after the last one it is no longer behind.
    pub(crate) fn next(&mut self, peer: Slot) -> Option<Owed<K>> {
        self.trim();
        let behind = self.behind.get(&peer)?;
        let from = self.news.partition_point(|news| news.number.get() <= behind.known);
        let owed = self.news.range(from..).find(|news| self.is_latest(news));
        let Some(&News { key, number, born }) = owed else {
            self.forget(peer);
            return None;
        };
        let behind = self.behind.get_mut(&peer)?;
        let may_know = behind.is_told || born.get() <= behind.known;
        behind.known = number.get();
        Some(Owed { key, may_know })
    }

    /// Every prefix that a peer is owed news of, at least: some more than once, and some that it never heard of.
    pub(crate) fn owed(&self, peer: Slot) -> impl Iterator<Item = K> + '_ {
        let known = self.behind.get(&peer).map_or(self.last, |behind| behind.known);
        let from = self.news.partition_point(|news| news.number.get() <= known);
        self.news.range(from..).map(|news| news.key)
    }

    /// Forgets some of what everybody knows: there may be a million, and somebody waits.
    fn trim(&mut self) {
        let known_to_all = self.known_to_all;
        for _ in 0..TRIM {
            let Some(known) = self.news.pop_front_if(|news| news.number.get() <= known_to_all) else {
                return;
            };
            self.latest.remove(self.hasher.hash_one(known.key), |number| *number == known.number);
        }
    }

    fn compact(&mut self) {
        let farthest = self.farthest();
        let Backlog { news, latest, hasher, .. } = self;
        news.retain(|news| {
            let (hash, is_it) = (hasher.hash_one(news.key), |number: &Number| *number == news.number);
            if news.number.get() <= farthest {
                latest.remove(hash, is_it);
            }
            latest.find(hash, is_it).is_some()
        });
    }

    #[cfg(test)]
    fn kept(&self) -> usize {
        self.news.len()
    }
}

/// The news of a number, if it is kept. Until some were left out in between it is as far from the first as its number.
fn at<K>(news: &VecDeque<News<K>>, number: Number) -> Option<&News<K>> {
    let first = news.front()?.number.get();
    let farthest = number.get().checked_sub(first)? as usize;
    let found = news.get(farthest).filter(|news| news.number == number);
    found.or_else(|| news.get(news.binary_search_by_key(&number, |news| news.number).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyV4;
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

    #[test]
    fn what_everybody_knows_is_forgotten_by_and_by() {
        let mut backlog = backlog();
        let host =
            |number: u32| KeyV4::new(model::Prefix::new(number.to_be_bytes().into(), 32).expect("a prefix"));
        backlog.fall_behind(Slot(1), false);
        (0..10_000).for_each(|number| backlog.note(host(number), false, true));
        backlog.fall_behind(Slot(2), false);
        while backlog.next(Slot(1)).is_some() {}
        assert!(backlog.kept() >= 10_000 - TRIM, "{} are kept: many went at once", backlog.kept());
        for number in 10_000..14_000 {
            let before = backlog.kept();
            backlog.note(host(number), false, true);
            assert!(backlog.kept() + TRIM > before);
        }
        assert_eq!(backlog.kept(), 4_000);
        assert_eq!(backlog.next(Slot(2)), Some(Owed { key: host(10_000), may_know: false }));
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
                let owed: BTreeSet<KeyV4> = backlog.owed(*peer).collect();
                while let Some(next) = backlog.next(*peer) {
                    prop_assert!(owed.contains(&next.key));
                    tell(knows, &said, next)?;
                }
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
