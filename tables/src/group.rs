//! Next-hop groups: what a route leads to.

use crate::AdjacencyId;

/// A row of the table of groups, and the value of a route in the forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// A set of equally good next hops. Routes share groups, so a lost next hop rewrites groups, not routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Silently dropped.
    Blackhole,
    /// None of the route's next hops can be reached now: as if there were no route.
    Unreachable,
    /// To one of these, chosen by the flow's hash; never empty.
    Forward(Vec<AdjacencyId>),
}

impl Group {
    /// The one of `members` for a flow with this hash; `None` where there is none.
    #[inline]
    pub fn choose(members: &[AdjacencyId], hash: u32) -> Option<AdjacencyId> {
        // The high half of the product picks a member without a division (Lemire, "fast range").
        members.get(((u64::from(hash) * members.len() as u64) >> 32) as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_spread_evenly_over_the_members() {
        let members: Vec<AdjacencyId> = (0..4).map(AdjacencyId).collect();
        let mut hits = [0u32; 4];
        for step in 0..4000u32 {
            let member = Group::choose(&members, step.wrapping_mul(0x9e37_79b9)).unwrap();
            hits[member.0 as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (900..1100).contains(hits)), "{hits:?}");
    }

    #[test]
    fn one_flow_stays_with_one_member() {
        let members: Vec<AdjacencyId> = (0..3).map(AdjacencyId).collect();
        assert_eq!(Group::choose(&members, 0xdead_beef), Group::choose(&members, 0xdead_beef));
        assert_eq!(Group::choose(&[], 7), None);
    }
}
