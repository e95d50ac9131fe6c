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
    /// In order of numbers; one that is not its prefix's latest counts for nothing. While such are left out the first of the
    /// two holds what has been gone through; otherwise it is empty.
    news: [VecDeque<News<K>>; 2],
    /// How many of the second are still to be gone through.
    left: usize,
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

/// News that are looked at with each that comes, whether they still count.
const LOOKS: usize = 4;

/// Below so many needless entries it isn't worth to look for them.
const SLACK: usize = 1024;

impl<K: Key> Backlog<K> {
    pub(crate) fn new(hasher: RandomState) -> Backlog<K> {
        Backlog {
            last: 0,
            news: [VecDeque::new(), VecDeque::new()],
            left: 0,
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
            (self.news, self.latest) = ([VecDeque::new(), VecDeque::new()], Parted::new());
            (self.last, self.known_to_all, self.left) = (0, 0, 0);
        } else {
            self.known_to_all = self.behind.values().map(|behind| behind.known).min().unwrap_or(self.last);
        }
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
        news[1].push_back(News { key, number, born });
        match before.and_then(|before| latest.find_mut(hash, |number| *number == before)) {
            Some(latest) => *latest = number,
            None => {
                let hash_of = |number: &Number| at(news, *number).map_or(0, |news| hasher.hash_one(news.key));
                latest.insert_unique(hash, number, hash_of);
            }
        }
        self.leave_out();
    }

    /// Is this the latest news of its prefix?
    fn is_latest(&self, news: &News<K>) -> bool {
        self.latest.find(self.hasher.hash_one(news.key), |number| *number == news.number).is_some()
    }

    /// The news after a number.
    fn after(&self, known: u64) -> impl Iterator<Item = &News<K>> {
        self.news.iter().flat_map(move |news| {
            let from = news.partition_point(|news| news.number.get() <= known);
            news.range(from..)
        })
    }

    /// The next prefix that a peer is owed news of; after the last one it is no longer behind. What counts for nothing takes of
    /// `looks`, and without these there is nothing for now.
    pub(crate) fn next(&mut self, peer: Slot, looks: &mut usize) -> Option<Owed<K>> {
        self.trim();
        let behind = *self.behind.get(&peer)?;
        let (mut known, mut found) = (behind.known, None);
        let mut is_all = true;
        for news in self.after(behind.known) {
            if *looks == 0 {
                is_all = false;
                break;
            }
            known = news.number.get();
            if self.is_latest(news) {
                found = Some(*news);
                break;
            }
            *looks -= 1;
        }
        if found.is_none() && is_all {
            self.forget(peer);
            return None;
        }
        self.behind.get_mut(&peer)?.known = known;
        let News { key, born, .. } = found?;
        Some(Owed { key, may_know: behind.is_told || born.get() <= behind.known })
    }

    /// Every prefix that a peer is owed news of, at least: some more than once, and some that it never heard of.
    pub(crate) fn owed(&self, peer: Slot) -> impl Iterator<Item = K> + '_ {
        let known = self.behind.get(&peer).map_or(self.last, |behind| behind.known);
        self.after(known).map(|news| news.key)
    }

    /// Forgets some of what everybody knows: there may be a million, and somebody waits.
    fn trim(&mut self) {
        let known_to_all = self.known_to_all;
        let [first, second] = &mut self.news;
        for _ in 0..TRIM {
            let is_known = |news: &mut News<K>| news.number.get() <= known_to_all;
            let known = match first.front() {
                Some(_) => first.pop_front_if(is_known),
                None => {
                    let known = second.pop_front_if(is_known);
                    self.left = self.left.saturating_sub(usize::from(known.is_some()));
                    known
                }
            };
            let Some(known) = known else { return };
            self.latest.remove(self.hasher.hash_one(known.key), |number| *number == known.number);
        }
    }

    /// Leaves some out that count for nothing, once these are most.
    fn leave_out(&mut self) {
        if self.left == 0 && self.news[1].len() > 2 * self.latest.len() + SLACK {
            self.left = self.news[1].len();
            // With those that come meanwhile.
            self.news[0] = VecDeque::with_capacity(self.latest.len() + self.left / LOOKS + SLACK);
        }
        for _ in 0..LOOKS.min(self.left) {
            self.left -= 1;
            let Some(news) = self.news[1].pop_front() else { continue };
            if self.is_latest(&news) {
                self.news[0].push_back(news);
            }
            if self.left == 0 {
                let [first, second] = &mut self.news;
                first.append(second);
                *second = std::mem::take(first);
            }
        }
    }

    #[cfg(test)]
    fn kept(&self) -> usize {
        self.news.iter().map(VecDeque::len).sum()
    }
}

/// The news of a number, if it is kept. Until some were left out in between it is as far from the first as its number.
fn at<K>([first, second]: &[VecDeque<News<K>>; 2], number: Number) -> Option<&News<K>> {
    let news = if first.back().is_some_and(|last| last.number >= number) { first } else { second };
    let front = news.front()?.number.get();
    let farthest = number.get().checked_sub(front)? as usize;
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

    fn plenty() -> usize {
        usize::MAX
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
        assert_eq!(
            (backlog.kept(), backlog.next(Slot(1), &mut plenty()), backlog.next(Slot(1), &mut plenty())),
            (1, Some(owed), None)
        );
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
        assert_eq!(backlog.next(Slot(1), &mut plenty()), None);
    }

    #[test]
    fn what_counts_for_nothing_is_left_out_by_and_by_and_passed_over_in_portions() {
        let mut backlog = backlog();
        backlog.fall_behind(Slot(1), false);
        let mut most = 0;
        for round in 0..10 {
            for number in 0..10_000u32 {
                let key = KeyV4::new(model::Prefix::new(number.to_be_bytes().into(), 32).expect("a prefix"));
                let before = backlog.kept();
                backlog.note(key, round > 0, true);
                assert!(backlog.kept() + LOOKS > before, "many went at once");
                most = most.max(backlog.kept());
            }
        }
        assert!((20_000..30_000).contains(&most), "{most} were kept");
        let (mut told, mut calls) = (0, 0);
        while backlog.is_behind(Slot(1)) {
            let mut looks = 100;
            while backlog.next(Slot(1), &mut looks).is_some() {
                told += 1;
            }
            calls += 1;
        }
        assert_eq!(told, 10_000);
        assert!(calls > 10, "{calls} calls");
    }

    #[test]
    fn what_everybody_knows_is_forgotten_by_and_by() {
        let mut backlog = backlog();
        let host =
            |number: u32| KeyV4::new(model::Prefix::new(number.to_be_bytes().into(), 32).expect("a prefix"));
        backlog.fall_behind(Slot(1), false);
        (0..10_000).for_each(|number| backlog.note(host(number), false, true));
        backlog.fall_behind(Slot(2), false);
        while backlog.next(Slot(1), &mut plenty()).is_some() {}
        assert!(backlog.kept() >= 10_000 - TRIM, "{} are kept: many went at once", backlog.kept());
        for number in 10_000..14_000 {
            let before = backlog.kept();
            backlog.note(host(number), false, true);
            assert!(backlog.kept() + TRIM > before);
        }
        assert_eq!(backlog.kept(), 4_000);
        assert_eq!(backlog.next(Slot(2), &mut plenty()), Some(Owed { key: host(10_000), may_know: false }));
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
                                let owed = backlog.next(peers[peer], &mut usize::from(number / 3));
                                let Some(owed) = owed else { break };
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
                while let Some(next) = backlog.next(*peer, &mut plenty()) {
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
