//! The decision process: which of several paths to one prefix is used (RFC 4271 §9.1).
//!
//! RFC 4271 §9.1.2: "The Phase 2 decision function … SHALL NOT consider a route whose NEXT_HOP is not
//! resolvable, or whose AS path holds an AS loop." Then, of what is left, §9.1.1 wants the highest degree of
//! preference, and §9.1.2.2 breaks ties, removing at each step what is worse than the best at that step:
//!
//! 1. [`Step::Rank`]: the [`Rank`] of our own routes: before what peers say, beside it or after it. Ours: the RFC leaves the
//!    preference of local routes to policy, and BIRD puts static routes before BGP's and the kernel's after them.
//! 2. [`Step::LongLivedStale`]: routes without LLGR_STALE before any with it (RFC 9494 §4.3).
//! 3. [`Step::LocalPref`]: the highest LOCAL_PREF; 100 where a peer gives none. Among those of the same our own comes first
//!    ([`Step::Local`]): a workload that has moved is announced with a higher one by its new node.
//! 4. [`Step::AsPathLength`] (a): the fewest ASes in AS_PATH; a set is one, confederation segments none.
//! 5. [`Step::Origin`] (b): the lowest ORIGIN.
//! 6. [`Step::Med`] (c): among routes of the same neighbouring AS, the lowest MULTI_EXIT_DISC; none is 0.
//! 7. [`Step::PeerKind`] (d): eBGP routes, if there are any.
//! 8. [`Step::Metric`] (e): the lowest cost to the next hop.
//!
//! What is left here is equally good and is used together (ECMP). Ours, as BIRD's `merge paths`: the paths may
//! lead through different ASes as long as they are equally long. One of them is the best and is announced:
//!
//! 9. [`Step::Stale`]: fresh before stale, so that what we announce is what somebody still vouches for. Ours.
//! 10. [`Step::RouterId`] (f): the lowest BGP identifier; ORIGINATOR_ID in its place (RFC 4456 §9).
//! 11. [`Step::ClusterList`]: the shortest CLUSTER_LIST (RFC 4456 §9).
//! 12. [`Step::PeerAddress`] (g): the lowest peer address.
//! 13. [`Step::PathId`]: the lowest path identifier, for peers that announce several. Ours.
//!
//! As every step looks at all that is left, the outcome does not depend on the order in which paths came.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};

use crate::config::{PeerKind, SpeakerConfig};
use crate::input::Rank;
use crate::status::{Ineligible, Standing, Step};
use crate::wire::attributes::Attributes;

/// The degree of preference of a route without LOCAL_PREF.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the steps ask of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) attributes: &'a Attributes,
    pub(crate) rank: Rank,
    /// `None` for our own routes.
    pub(crate) peer: Option<CandidatePeer>,
    pub(crate) metric: u32,
    pub(crate) stale: bool,
    pub(crate) path_id: u32,
}

/// What the steps ask of a path's peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CandidatePeer {
    pub(crate) kind: PeerKind,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) address: IpAddr,
}

impl Candidate<'_> {
    fn local_pref(&self) -> u32 {
        self.attributes.local_pref().unwrap_or(DEFAULT_LOCAL_PREF)
    }

    fn kind(&self) -> Option<PeerKind> {
        self.peer.map(|peer| peer.kind)
    }

    fn router_id(&self) -> Option<Ipv4Addr> {
        self.attributes.originator_id().or(self.peer.map(|peer| peer.router_id))
    }
}

/// What can be chosen about the steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The best path and its equals are at most so many, and at least one.
    pub(crate) max_paths: usize,
    /// Step 6 compares routes of all neighbouring ASes.
    pub(crate) always_compare_med: bool,
}

impl Rules {
    pub(crate) fn of(config: &SpeakerConfig) -> Rules {
        Rules { max_paths: config.limits.max_ecmp_paths, always_compare_med: config.always_compare_med }
    }
}

/// One run of the decision process; kept to use its memory again.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// How each path fared, in the order given.
    pub(crate) standings: Vec<Standing>,
    /// The best, then its equals in the order of the last steps; indices into what was given.
    pub(crate) chosen: Vec<usize>,
    alive: Vec<usize>,
}

impl Decision {
    /// There is one path, which can be used, or none at all.
    pub(crate) fn choose_only(&mut self, paths: usize) {
        self.chosen.clear();
        self.standings.clear();
        self.chosen.extend(0..paths);
        self.standings.resize(paths, Standing::Best);
    }

    /// Chooses the best path and its equals.
    pub(crate) fn run(&mut self, paths: &[Result<Candidate<'_>, Ineligible>], rules: Rules) {
        self.chosen.clear();
        self.alive.clear();
        self.standings.clear();
        self.standings
            .extend(paths.iter().map(|path| path.map_or_else(Standing::Ineligible, |_| Standing::Best)));
        if let [only] = paths {
            self.chosen.extend(only.is_ok().then_some(0));
            return;
        }
        let of = |at: usize| paths[at].as_ref().ok();
        self.alive.extend((0..paths.len()).filter(|&at| of(at).is_some()));
        if self.alive.len() > 1 {
            self.keep_lowest(Step::Rank, |at| of(at).map(|path| path.rank));
            self.keep_lowest(Step::LongLivedStale, |at| {
                of(at).map(|path| path.attributes.is_long_lived_stale())
            });
            self.keep_lowest(Step::LocalPref, |at| of(at).map(|path| Reverse(path.local_pref())));
            self.keep_lowest(Step::Local, |at| of(at).map(|path| path.peer.is_some()));
            self.keep_lowest(Step::AsPathLength, |at| of(at).map(|path| path.attributes.hops()));
            self.keep_lowest(Step::Origin, |at| of(at).map(|path| path.attributes.origin()));
            self.keep_lowest_med(|at| {
                let path = of(at)?;
                let neighbor = path.attributes.neighbor_as().filter(|_| !rules.always_compare_med);
                Some((neighbor, path.attributes.med().unwrap_or(0)))
            });
            self.keep_lowest(Step::PeerKind, |at| of(at).map(|path| path.kind() == Some(PeerKind::Ibgp)));
            self.keep_lowest(Step::Metric, |at| of(at).map(|path| path.metric));
        }
        self.chosen.extend_from_slice(&self.alive);
        if self.alive.len() > 1 {
            let rank = |path: &Candidate<'_>| {
                let address = path.peer.map(|peer| peer.address);
                (path.stale, path.router_id(), path.attributes.cluster_list().count(), address, path.path_id)
            };
            self.chosen.sort_by_key(|&at| of(at).map(rank));
            self.keep_lowest(Step::Stale, |at| of(at).map(|path| path.stale));
            self.keep_lowest(Step::RouterId, |at| of(at).map(Candidate::router_id));
            self.keep_lowest(Step::ClusterList, |at| {
                of(at).map(|path| path.attributes.cluster_list().count())
            });
            self.keep_lowest(Step::PeerAddress, |at| of(at).map(|path| path.peer.map(|peer| peer.address)));
            self.keep_lowest(Step::PathId, |at| of(at).map(|path| path.path_id));
            self.chosen.truncate(rules.max_paths.max(1));
            for &equal in self.chosen.iter().skip(1) {
                self.standings[equal] = Standing::Multipath;
            }
        }
    }

    /// Removes what is higher than the lowest of those left.
    fn keep_lowest<R: Ord>(&mut self, step: Step, rank: impl Fn(usize) -> R) {
        if self.alive.len() < 2 {
            return;
        }
        let Some(lowest) = self.alive.iter().map(|&at| rank(at)).min() else { return };
        let standings = &mut self.standings;
        self.alive.retain(|&at| {
            let stays = rank(at) == lowest;
            if !stays {
                standings[at] = Standing::Lost(step);
            }
            stays
        });
    }

    /// Removes what has a higher MULTI_EXIT_DISC than another of the same neighbouring AS.
    fn keep_lowest_med(&mut self, rank: impl Fn(usize) -> Option<(Option<u32>, u32)>) {
        let mut ranks: Vec<_> = self.alive.iter().filter_map(|&at| rank(at)).collect();
        ranks.sort_unstable();
        // Of each AS the first, which is the lowest.
        ranks.dedup_by_key(|&mut (neighbor, _)| neighbor);
        let standings = &mut self.standings;
        self.alive.retain(|&at| {
            let stays = rank(at).is_some_and(|rank| ranks.binary_search(&rank).is_ok());
            if !stays {
                standings[at] = Standing::Lost(Step::Med);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests;
