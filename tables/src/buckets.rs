//! Resilient hashing: which member of a group each flow takes, such that a change of members moves no flow that it
//! needn't move (what RFC 2992 §2 calls disruption; Linux has it as resilient next-hop groups).
//!
//! A flow's hash picks a bucket, and a bucket has two members: the one that *owns* it, which changes only with the
//! set of members, and the one that *serves* it, which is the owner unless that is dead. So the flows of a next hop
//! that stops answering go to the others at once and come back with it, and a next hop that leaves the group leaves
//! its buckets to the others for good.
//!
//! ```text
//!  owner    a b c d a b c d          c dies:      c leaves:    e joins:
//!  serving  a b c d a b c d          a b a d a b b d    (owner alike)    a b e d a b b d
//! ```

use crate::{AdjacencyId, HopIndex};

/// Buckets of a group at least. A power of two, as is every number of buckets: twice as many then divide each into two,
/// and no flow moves.
const BUCKETS_MIN: usize = 128;
/// Buckets for each member, at least: no member's share is off by more than one in so many. Of unlike weights the lightest
/// has so many, as long as [`BUCKETS_MAX`] allows it.
const BUCKETS_PER_MEMBER: usize = 32;
/// Buckets of a group of unlike weights at most, unless it has more members than a quarter of this.
const BUCKETS_MAX: usize = 2048;

/// A member, and whether flows should take it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Who it is.
    pub(crate) id: AdjacencyId,
    /// How large its part is, beside the others' weights; never 0.
    pub(crate) weight: u32,
    /// May flows take it? Where none may, all are treated alike.
    pub(crate) is_alive: bool,
}

/// The buckets of one group: remembered by the writer from publication to publication.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buckets {
    /// As of the last call of [`Self::settle`].
    members: Vec<Member>,
    /// Positions in `members`.
    owners: Vec<u32>,
    /// Positions in `members`.
    serving: Vec<u32>,
}

impl Buckets {
    /// Brings the buckets into line with the members, moving as few as can be. A single member has no buckets.
    pub(crate) fn settle(&mut self, members: &[Member]) {
        if self.members == members {
            return;
        }
        let before = std::mem::replace(&mut self.members, members.to_vec());
        if members.len() < 2 {
            (self.owners, self.serving) = (Vec::new(), Vec::new());
            return;
        }
        if before.len() == 1 {
            // It had every flow.
            (self.owners, self.serving) = (vec![0; BUCKETS_MIN], vec![0; BUCKETS_MIN]);
        }
        let moved_to: Vec<Option<u32>> = before
            .iter()
            .map(|old| members.iter().position(|new| new.id == old.id).map(|position| position as u32))
            .collect();
        let follow = |buckets: &[u32], len: usize| -> Vec<Option<u32>> {
            let times = if buckets.is_empty() { 0 } else { len / buckets.len() };
            let followed = buckets.iter().map(|old| moved_to.get(*old as usize).copied().flatten());
            let mut doubled: Vec<_> = followed.flat_map(|new| std::iter::repeat_n(new, times)).collect();
            doubled.resize(len, None);
            doubled
        };
        let len = buckets_for(members).max(self.owners.len());
        self.owners = own(follow(&self.owners, len), members);
        self.serving = serve(&follow(&self.serving, len), &self.owners, members);
    }

    /// The next hop of each bucket, where the members' rows follow on each other from `first` on.
    pub(crate) fn hops(&self, first: HopIndex) -> impl Iterator<Item = HopIndex> + '_ {
        self.serving.iter().map(move |position| first + position)
    }
}

/// How many buckets a group of such members has.
fn buckets_for(members: &[Member]) -> usize {
    let lightest = members.iter().map(|member| member.weight).min().unwrap_or(1).max(1);
    let all: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    // Of equal weights this is the number of members.
    let parts = usize::try_from(all.div_ceil(u64::from(lightest))).unwrap_or(usize::MAX);
    let wanted = parts.saturating_mul(BUCKETS_PER_MEMBER).min(BUCKETS_MAX);
    // Each member has some, however many there are.
    let needed = if parts == members.len() { members.len() * BUCKETS_PER_MEMBER } else { members.len() * 4 };
    wanted.max(needed).next_power_of_two().max(BUCKETS_MIN)
}

/// How many of `buckets` each member is due, by its weight, to within one; `counts` is how many it has. Nobody has none.
fn fair_shares(counts: &[usize], members: &[Member], buckets: usize) -> Vec<usize> {
    let all: u128 = members.iter().map(|member| u128::from(member.weight)).sum::<u128>().max(1);
    let exact = |member: &Member| u128::from(member.weight) * buckets as u128;
    let mut shares: Vec<usize> = members.iter().map(|member| (exact(member) / all) as usize).collect();
    let left_over = buckets - shares.iter().sum::<usize>().min(buckets);
    // What is left over goes to those that have more than their part already, so that nothing moves for its sake, then to
    // those that are furthest below their due.
    let mut order: Vec<usize> = (0..members.len()).collect();
    let below = |at: &usize| exact(&members[*at]) % all;
    order.sort_by_key(|at| std::cmp::Reverse((below(at) > 0 && counts[*at] > shares[*at], below(at))));
    for at in order.into_iter().take(left_over) {
        shares[at] += 1;
    }
    for at in 0..shares.len() {
        let most = (0..shares.len()).max_by_key(|at| shares[*at]).unwrap_or(at);
        if shares[at] == 0 && shares[most] > 1 {
            shares[at] = 1;
            shares[most] -= 1;
        }
    }
    shares
}

/// The owner of each bucket: as before, as far as every member gets its fair share.
fn own(before: Vec<Option<u32>>, members: &[Member]) -> Vec<u32> {
    let mut counts = vec![0; members.len()];
    for owner in before.iter().flatten() {
        counts[*owner as usize] += 1;
    }
    let mut room = fair_shares(&counts, members, before.len());
    let kept: Vec<Option<u32>> = before
        .into_iter()
        .map(|owner| {
            let left = &mut room[owner? as usize];
            *left = left.checked_sub(1)?;
            owner
        })
        .collect();
    // In turn, so that neighbouring buckets, which a later doubling divides, have different owners.
    let members = members.len();
    let mut turn = 0;
    kept.into_iter()
        .map(|owner| {
            owner.unwrap_or_else(|| {
                while room[turn % members] == 0 {
                    turn += 1;
                }
                room[turn % members] -= 1;
                turn += 1;
                ((turn - 1) % members) as u32
            })
        })
        .collect()
}

/// Who serves each bucket: its owner if alive, else who served it before, else the one that serves fewest for its weight.
fn serve(before: &[Option<u32>], owners: &[u32], members: &[Member]) -> Vec<u32> {
    let is_alive = |position: u32| members.get(position as usize).is_some_and(|member| member.is_alive);
    let alive: Vec<u32> = (0..members.len() as u32).filter(|position| is_alive(*position)).collect();
    if alive.is_empty() || alive.len() == members.len() {
        return owners.to_vec();
    }
    let weight = |position: u32| u64::from(members[position as usize].weight.max(1));
    let all: u64 = alive.iter().map(|position| weight(*position)).sum();
    let most = |position: u32| (owners.len() as u64 * weight(position)).div_ceil(all) as usize;
    let mut counts = vec![0; members.len()];
    for owner in owners {
        counts[*owner as usize] += 1;
    }
    let mut serving: Vec<Option<u32>> =
        owners.iter().map(|owner| is_alive(*owner).then_some(*owner)).collect();
    for (server, before) in serving.iter_mut().zip(before).filter(|(server, _)| server.is_none()) {
        *server = before.filter(|before| is_alive(*before) && counts[*before as usize] < most(*before));
        if let Some(server) = server {
            counts[*server as usize] += 1;
        }
    }
    let fewest = |counts: &mut Vec<usize>| {
        // Compared as counts per weight, without a division; `alive` isn't empty, and 0 would be an answer all the same.
        let load = |position: u32, other: u32| counts[position as usize] as u128 * u128::from(weight(other));
        let server = alive.iter().copied().min_by(|a, b| load(*a, *b).cmp(&load(*b, *a))).unwrap_or(0);
        counts[server as usize] += 1;
        server
    };
    serving.into_iter().map(|server| server.unwrap_or_else(|| fewest(&mut counts))).collect()
}

#[cfg(test)]
mod tests;
