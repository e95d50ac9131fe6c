//! Going over the paths of peers of which something has changed for all, a portion at a time: there may be a whole table of
//! them, and others have something to say meanwhile. What becomes of each says its [cohort](crate::cohorts).
//!
//! One walk is for all such peers: it goes round the table, and a peer is through when it comes again to where it was when
//! there began to be something to do.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::adj_rib_in::{AdjRibIn, Tables};
use crate::config::SpeakerConfig;
use crate::import::ImportPolicy;
use crate::loc_rib::{Becomes, Index};
use crate::output::Output;
use crate::path::Slot;
use crate::speaker::Peer;
use crate::work::FamilyKey;

/// How far the walk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// How often it began in front.
    round: u64,
    /// What is looked at next.
    next: Index,
}

/// How much is done in one go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion {
    /// Prefixes that are looked at, at most.
    pub(crate) looks: usize,
    /// Paths that go, become something else or are judged, at most.
    pub(crate) changes: usize,
}

impl Portion {
    pub(crate) fn is_done(self) -> bool {
        self.looks == 0 || self.changes == 0
    }
}

/// A peer of which something is left to be done.
struct Concerned<'a> {
    slot: Slot,
    rib_in: &'a mut AdjRibIn,
    policy: ImportPolicy<'a>,
}

/// The walk through one family's table.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    at: Place,
}

impl Pass {
    /// Goes on by a portion.
    pub(crate) fn go_on<K: FamilyKey>(
        &mut self,
        peers: &mut [Option<Peer>],
        (config, clusters): (&SpeakerConfig, &Arc<[Ipv4Addr]>),
        tables: &mut Tables,
        portion: &mut Portion,
        out: &mut Vec<Output>,
    ) {
        let family = K::FAMILY as usize;
        let concerned = (0..).map(Slot).zip(peers).filter_map(|(slot, peer)| {
            let Peer { session, rib_in, .. } = peer.as_mut()?;
            let policy = || ImportPolicy::new(config, &session.config, rib_in.local, clusters);
            let policy = rib_in.cohorts[family].has_left().then(policy)?;
            Some(Concerned { slot, rib_in, policy })
        });
        let mut concerned: Vec<Concerned<'_>> = concerned.collect();
        if concerned.iter().all(|peer| peer.rib_in.cohorts[family].until().is_none()) {
            // Nobody is under way.
            self.at = Place { round: self.at.round + 1, next: Index(0) };
        }
        let until = Place { round: self.at.round + 1, ..self.at };
        concerned.iter_mut().for_each(|peer| peer.rib_in.cohorts[family].begin_pass(until));
        let Tables { rib, interner, nexthops } = tables;
        let table = K::table(rib);
        loop {
            concerned.retain_mut(|peer| peer.rib_in.cohorts[family].came_to(self.at));
            if concerned.is_empty() || portion.is_done() {
                return;
            }
            if self.at.next >= table.end() {
                self.at = Place { round: self.at.round + 1, next: Index(0) };
                continue;
            }
            // As far as somebody is through.
            let untils = concerned.iter().filter_map(|peer| peer.rib_in.cohorts[family].until());
            let in_round = untils.filter(|until| until.round == self.at.round).map(|until| until.next);
            let end = in_round.min().unwrap_or(table.end()).min(table.end());
            self.at.next = table.go_over(self.at.next..end, portion, |key, path| {
                match concerned.binary_search_by_key(&path.source, |peer| peer.slot) {
                    Ok(at) => {
                        let Concerned { rib_in, policy, .. } = &mut concerned[at];
                        rib_in.settle(key, path, policy, interner, nexthops, out)
                    }
                    Err(_) => Becomes::Same,
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
