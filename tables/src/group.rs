//! Next-hop groups: what a route leads to.

use crate::AdjacencyId;

/// A row of the table of groups, and the value of a route in the forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// What a batch of look-ups answers where no route leads; never a row.
    pub const NONE: GroupId = GroupId(lpm::NO_ROUTE);
}

/// A set of equally good next hops. Routes share groups, so a lost next hop rewrites groups, not routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Silently dropped.
    Blackhole,
    /// A directed broadcast: dropped.
    Broadcast,
    /// An address of this box's own: to its kernel.
    Local(AdjacencyId),
    /// None of the route's next hops can be reached now: as if there were no route.
    Unreachable,
    /// Dropped, and the sender told that the destination is unreachable.
    Rejected,
    /// Dropped, and the sender told that it is prohibited.
    Prohibited,
    /// To one of these, chosen by the flow's hash; never empty, none twice. As long as some take frames, no flow goes to
    /// another.
    Forward(Vec<AdjacencyId>),
    /// Likewise, each taken by as large a part of the flows as its weight is of all: as many weights as members, none 0.
    Weighted(Vec<AdjacencyId>, Vec<u32>),
}

impl Group {
    /// The adjacencies that packets may leave by.
    pub fn members(&self) -> &[AdjacencyId] {
        match self {
            Group::Local(host) => std::slice::from_ref(host),
            Group::Forward(members) | Group::Weighted(members, _) => members,
            Group::Blackhole
            | Group::Broadcast
            | Group::Unreachable
            | Group::Rejected
            | Group::Prohibited => &[],
        }
    }

    /// What part of the flows the member at this position takes.
    pub(crate) fn weight(&self, position: usize) -> u32 {
        match self {
            Group::Weighted(_, weights) => weights.get(position).copied().unwrap_or(1).max(1),
            _ => 1,
        }
    }

    /// Which of `len` buckets a flow with this hash goes to, counted from 0. Of twice as many, one of the two that this one
    /// is divided into.
    #[inline]
    pub(crate) fn choose(len: u32, hash: u32) -> u32 {
        // The high half of the product picks one without a division (Lemire, "fast range").
        ((u64::from(hash) * u64::from(len)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_many_buckets_divide_each_in_two() {
        for hash in (0..1 << 12).map(|step: u32| step.wrapping_mul(0x9e37_79b9)) {
            assert_eq!(Group::choose(256, hash) / 2, Group::choose(128, hash));
        }
    }

    #[test]
    fn hashes_spread_evenly_over_the_buckets() {
        let mut hits = [0u32; 4];
        for step in 0..4000u32 {
            hits[Group::choose(4, step.wrapping_mul(0x9e37_79b9)) as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (900..1100).contains(hits)), "{hits:?}");
    }

    #[test]
    fn the_largest_hash_stays_within_the_buckets() {
        assert_eq!([0, 1, u32::MAX].map(|hash| Group::choose(3, hash)), [0, 0, 2]);
    }
}
