//! How many paths a peer may hold in one family, and what becomes of it beyond (RFC 4271 §6.7, RFC 4486 §4).
//!
//! A warning comes first, once a session and family, when the peer is near what it may hold. Where nothing else is said the
//! limit is [`Limits::max_prefixes_per_peer`](crate::Limits::max_prefixes_per_peer), which no action lets a peer pass.
//!
//! A path may have 64 KiB of attributes (RFC 8654), so paths alone bound nothing: their attributes may take
//! [`ATTRIBUTE_BYTES_A_PATH`] on the average of as many paths as there may be, or the session ends, whatever the action.

use std::time::Duration;

use model::Family;

/// How many paths a peer may hold in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimit {
    /// Paths; with add-path (RFC 7911) a prefix can have several. At least 1.
    pub most: usize,
    /// Warn from this share of `most` on, in percent: 1 to 100.
    pub warn_percent: u8,
    /// What becomes of one path more.
    pub action: LimitAction,
}

/// What becomes of a path that is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAction {
    /// It is taken; the limit is there to be told of.
    Warn,
    /// It is not taken; those that are held stay. What has been dropped is asked for again when the limit is raised.
    Drop,
    /// The session ends with Cease/1, and begins anew only after this time.
    Close {
        /// How long the peer is refused.
        rest: Duration,
    },
}

impl LimitAction {
    /// As configurations name it.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitAction::Warn => "warn",
            LimitAction::Drop => "drop",
            LimitAction::Close { .. } => "close",
        }
    }
}

impl PrefixLimit {
    /// FRR's and Junos's share.
    pub const WARN_PERCENT: u8 = 75;
    /// How long a peer is refused that has gone beyond its limit, where nothing else is said: a peer that comes back with the
    /// same table costs one table in five minutes.
    pub const REST: Duration = Duration::from_secs(300);

    /// So many paths, then the session is closed.
    pub fn closing(most: usize) -> PrefixLimit {
        PrefixLimit {
            most,
            warn_percent: PrefixLimit::WARN_PERCENT,
            action: LimitAction::Close { rest: PrefixLimit::REST },
        }
    }

    /// The count of paths from which on it is warned.
    pub fn warns_at(&self) -> usize {
        let share = self.most as u128 * u128::from(self.warn_percent.clamp(1, 100));
        (share.div_ceil(100) as usize).max(1)
    }
}

/// How far a peer has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reached {
    /// It holds the share from which on it is warned.
    Warning,
    /// It has announced more than it may hold.
    Limit,
}

/// Bytes of attributes that a path may have on average, each path with all of its own: of the internet's it is below 100.
const ATTRIBUTE_BYTES_A_PATH: usize = 512;
/// And however few paths there may be.
const ATTRIBUTE_BYTES_MIN: usize = 1 << 20;

/// A peer announced more than it may, and its session is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    Paths {
        family: Family,
        most: usize,
    },
    /// Attributes, in bytes.
    Attributes,
}

/// What becomes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Take,
    Drop,
    Close(TooMany),
}

/// One peer's limit, and how far the peer has gone in its present session.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    pub(crate) limit: PrefixLimit,
    /// What no peer may pass, whatever its limit's action.
    hard: usize,
    /// By [`Family`].
    warned: [bool; 2],
    exceeded: [bool; 2],
    /// Below this many paths there is nothing to say of one more, by [`Family`].
    quiet_below: [usize; 2],
    /// Not told yet.
    news: Vec<(Family, Reached)>,
    /// Paths not taken, in all sessions.
    pub(crate) dropped: u64,
    /// Paths were dropped in this session, by [`Family`].
    missing: [bool; 2],
}

impl Allowance {
    /// `hard` is the limit where none is given.
    pub(crate) fn new(limit: Option<PrefixLimit>, hard: usize) -> Allowance {
        let mut allowance = Allowance {
            limit: PrefixLimit::closing(hard),
            hard,
            warned: [false; 2],
            exceeded: [false; 2],
            quiet_below: [0; 2],
            news: Vec::new(),
            dropped: 0,
            missing: [false; 2],
        };
        allowance.set(limit);
        allowance
    }

    /// The limit is another one; gives the families of which paths are missing that it may let in.
    pub(crate) fn set(&mut self, limit: Option<PrefixLimit>) -> Vec<Family> {
        let limit = limit.unwrap_or(PrefixLimit::closing(self.hard));
        self.limit = PrefixLimit { most: limit.most.clamp(1, self.hard.max(1)), ..limit };
        let missing = Family::ALL.into_iter().filter(|family| self.missing[*family as usize]).collect();
        self.renew();
        missing
    }

    /// The session is new: it is warned again.
    pub(crate) fn renew(&mut self) {
        self.warned = [false; 2];
        self.exceeded = [false; 2];
        self.missing = [false; 2];
        self.news.clear();
        self.quiet_below = [self.limit.warns_at() - 1; 2];
    }

    /// The peer holds `held` paths of the family and announces another; `is_new` says whether it is one more.
    pub(crate) fn admit(&mut self, family: Family, held: usize, is_new: impl FnOnce() -> bool) -> Admission {
        if held < self.quiet_below[family as usize] || !is_new() {
            return Admission::Take;
        }
        self.look(family, held)
    }

    /// May it hold so many paths, and nobody need be told of any of them?
    pub(crate) fn admits_all(&self, family: Family, held: usize) -> bool {
        held <= self.quiet_below[family as usize]
    }

    /// One more than `held`, which is worth a look.
    fn look(&mut self, family: Family, held: usize) -> Admission {
        let at = family as usize;
        if !self.warned[at] {
            self.warned[at] = true;
            self.news.push((family, Reached::Warning));
        }
        self.quiet_below[at] = self.limit.most;
        if held < self.limit.most {
            return Admission::Take;
        }
        if !self.exceeded[at] {
            self.exceeded[at] = true;
            self.news.push((family, Reached::Limit));
        }
        match self.limit.action {
            LimitAction::Warn if held < self.hard => {
                self.quiet_below[at] = self.hard;
                Admission::Take
            }
            LimitAction::Warn => Admission::Close(TooMany::Paths { family, most: self.hard }),
            LimitAction::Drop => {
                self.dropped += 1;
                self.missing[at] = true;
                Admission::Drop
            }
            LimitAction::Close { .. } => Admission::Close(TooMany::Paths { family, most: self.limit.most }),
        }
    }

    /// May the attributes of the peer's paths take so many bytes together, those of each path counted in full?
    pub(crate) fn admits_attributes(&self, bytes: usize) -> bool {
        let paths = match self.limit.action {
            LimitAction::Warn => self.hard,
            LimitAction::Drop | LimitAction::Close { .. } => self.limit.most,
        };
        bytes <= paths.saturating_mul(ATTRIBUTE_BYTES_A_PATH).max(ATTRIBUTE_BYTES_MIN)
    }

    /// What has been reached since this was asked last.
    pub(crate) fn take_news(&mut self) -> Vec<(Family, Reached)> {
        std::mem::take(&mut self.news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allowance(most: usize, action: LimitAction) -> Allowance {
        Allowance::new(Some(PrefixLimit { most, warn_percent: 80, action }), 100)
    }

    /// Offers new paths until one is not taken, or there are `tries`; how many were taken, and how it ended.
    fn fill(allowance: &mut Allowance, tries: usize) -> (usize, Admission) {
        for held in 0..tries {
            match allowance.admit(Family::V4, held, || true) {
                Admission::Take => {}
                other => return (held, other),
            }
        }
        (tries, Admission::Take)
    }

    #[test]
    fn a_warning_comes_once_a_session_when_the_share_is_reached() {
        let mut allowance = allowance(10, LimitAction::Drop);
        assert_eq!(fill(&mut allowance, 7).0, 7);
        assert_eq!(allowance.take_news(), []);
        assert_eq!(allowance.admit(Family::V4, 7, || true), Admission::Take, "the eighth of ten");
        assert_eq!(allowance.take_news(), [(Family::V4, Reached::Warning)]);
        assert_eq!(allowance.admit(Family::V4, 8, || true), Admission::Take);
        assert_eq!(allowance.admit(Family::V6, 7, || true), Admission::Take);
        assert_eq!(allowance.take_news(), [(Family::V6, Reached::Warning)], "families count apart");
        allowance.renew();
        allowance.admit(Family::V4, 7, || true);
        assert_eq!(allowance.take_news(), [(Family::V4, Reached::Warning)], "a new session is told anew");
    }

    #[test]
    fn one_path_more_is_taken_dropped_or_ends_the_session() {
        let rest = Duration::from_secs(9);
        assert_eq!(fill(&mut allowance(10, LimitAction::Warn), 50), (50, Admission::Take));
        assert_eq!(fill(&mut allowance(10, LimitAction::Drop), 50), (10, Admission::Drop));
        let (taken, Admission::Close(too_many)) = fill(&mut allowance(10, LimitAction::Close { rest }), 50)
        else {
            panic!("it closes")
        };
        assert_eq!((taken, too_many), (10, TooMany::Paths { family: Family::V4, most: 10 }));
    }

    #[test]
    fn nobody_passes_what_holds_for_everybody() {
        for action in [LimitAction::Warn, LimitAction::Close { rest: Duration::ZERO }] {
            let (taken, admission) = fill(&mut allowance(1000, action), 500);
            assert_eq!(taken, 100);
            assert_eq!(admission, Admission::Close(TooMany::Paths { family: Family::V4, most: 100 }));
        }
        assert_eq!(fill(&mut Allowance::new(None, 100), 500).0, 100);
    }

    proptest! {
        /// What is admitted together would be one by one, without a word.
        #[test]
        fn all_are_admitted_only_where_each_is(
            most in 1_usize..20,
            warn_percent in 1_u8..=100,
            held in 0_usize..30,
            more in 0_usize..30,
        ) {
            let limit = PrefixLimit { most, warn_percent, action: LimitAction::Warn };
            let mut allowance = Allowance::new(Some(limit), 25);
            let all = allowance.admits_all(Family::V4, held + more);
            let each = (held..held + more).all(|held| {
                allowance.admit(Family::V4, held, || true) == Admission::Take
                    && allowance.take_news().is_empty()
            });
            prop_assert_eq!(all, each && (more > 0 || all));
        }

        /// Whatever comes and goes: never more than the limit, and each thing is told at most once.
        #[test]
        fn the_limit_holds_over_any_history(
            most in 1_usize..20,
            warn_percent in 1_u8..=100,
            steps in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..200),
        ) {
            let limit = PrefixLimit { most, warn_percent, action: LimitAction::Drop };
            let mut allowance = Allowance::new(Some(limit), 100);
            let (mut held, mut told, mut refused) = (0_usize, Vec::new(), 0);
            for (announce, is_new) in steps {
                if !announce {
                    held = held.saturating_sub(1);
                    continue;
                }
                match allowance.admit(Family::V6, held, || is_new) {
                    Admission::Take => held += usize::from(is_new),
                    Admission::Drop => {
                        prop_assert!(is_new && held == most);
                        refused += 1;
                    }
                    Admission::Close(_) => prop_assert!(false, "it drops"),
                }
                prop_assert!(held <= most);
                let news = allowance.take_news();
                if held >= limit.warns_at() && is_new {
                    prop_assert!(news.contains(&(Family::V6, Reached::Warning)) || told.contains(&Reached::Warning));
                }
                told.extend(news.into_iter().map(|(_, reached)| reached));
            }
            prop_assert_eq!(allowance.dropped, refused);
            for reached in [Reached::Warning, Reached::Limit] {
                prop_assert!(told.iter().filter(|other| **other == reached).count() <= 1);
            }
            prop_assert_eq!(told.contains(&Reached::Limit), refused > 0);
        }
    }
}
