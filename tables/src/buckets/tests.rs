//! Only those flows move that must, and every member gets its share, whatever comes and goes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn alive(ids: impl IntoIterator<Item = u32>) -> Vec<Member> {
    ids.into_iter().map(|id| Member { id: AdjacencyId(id), weight: 1, is_alive: true }).collect()
}

fn dead(members: &[Member], dead: &[u32]) -> Vec<Member> {
    let is_alive = |member: &Member| !dead.contains(&member.id.0);
    members.iter().map(|member| Member { is_alive: is_alive(member), ..*member }).collect()
}

impl Buckets {
    fn of(members: &[Member]) -> Buckets {
        let mut buckets = Buckets::default();
        buckets.settle(members);
        buckets
    }

    /// The positions by bucket; a single member has every flow without buckets.
    fn serving(&self) -> Vec<u32> {
        if self.members.len() == 1 { vec![0; BUCKETS_MIN] } else { self.serving.clone() }
    }

    fn ids(&self, positions: &[u32]) -> Vec<AdjacencyId> {
        positions.iter().map(|position| self.members[*position as usize].id).collect()
    }

    /// Who serves each of `len` buckets, as many as there are or a multiple.
    fn served_by(&self, len: usize) -> Vec<AdjacencyId> {
        let times = len / self.serving().len();
        self.ids(&self.serving()).into_iter().flat_map(|id| std::iter::repeat_n(id, times)).collect()
    }

    fn load(&self) -> BTreeMap<AdjacencyId, usize> {
        let mut load = BTreeMap::new();
        self.ids(&self.serving()).into_iter().for_each(|id| *load.entry(id).or_default() += 1);
        load
    }

    /// Every member that is alive has its share, to within a bucket; the dead have none.
    fn assert_balanced(&self) {
        let alive: BTreeSet<AdjacencyId> =
            self.members.iter().filter(|member| member.is_alive).map(|member| member.id).collect();
        let load = self.load();
        if alive.is_empty() {
            return;
        }
        assert_eq!(load.keys().copied().collect::<BTreeSet<_>>(), alive);
        let most = self.serving().len().div_ceil(alive.len());
        let least = self.serving().len() / self.members.len();
        assert!(load.values().all(|count| (least..=most).contains(count)), "{load:?}");
    }
}

/// The buckets that `before` and `after` disagree on, and who served them before and serves them after.
fn moves(before: &Buckets, after: &Buckets) -> Vec<(AdjacencyId, AdjacencyId)> {
    let len = before.serving().len().max(after.serving().len());
    let pairs = before.served_by(len).into_iter().zip(after.served_by(len));
    pairs.filter(|(before, after)| before != after).collect()
}

#[test]
fn four_members_have_a_quarter_each() {
    let buckets = Buckets::of(&alive(0..4));
    assert_eq!(buckets.load().into_values().collect::<Vec<_>>(), [32; 4]);
}

#[test]
fn a_dead_members_flows_move_and_come_back() {
    let all = alive(0..4);
    let whole = Buckets::of(&all);
    let mut lame = whole.clone();
    lame.settle(&dead(&all, &[2]));
    assert_eq!(moves(&whole, &lame).len(), 32);
    assert!(moves(&whole, &lame).iter().all(|(before, _)| *before == AdjacencyId(2)));
    lame.assert_balanced();
    lame.settle(&all);
    assert_eq!(moves(&whole, &lame), []);
}

#[test]
fn a_member_that_replaces_another_takes_its_flows_alone() {
    let before = Buckets::of(&alive([0, 1, 2]));
    let mut after = before.clone();
    after.settle(&alive([0, 2, 9]));
    let moved = moves(&before, &after);
    assert_eq!(moved.len(), before.load()[&AdjacencyId(1)]);
    assert!(moved.iter().all(|(from, _)| *from == AdjacencyId(1)), "{moved:?}");
    // 128 buckets for three: the one left over need not go to the newcomer.
    assert!(moved.iter().filter(|(_, to)| *to == AdjacencyId(9)).count() >= 42, "{moved:?}");
}

#[test]
fn where_all_are_dead_each_owner_keeps_its_flows() {
    let all = alive(0..3);
    let whole = Buckets::of(&all);
    let mut gone = whole.clone();
    gone.settle(&dead(&all, &[0, 1, 2]));
    assert_eq!(moves(&whole, &gone), []);
}

/// Members of these weights, numbered from 0.
fn weighted(weights: &[u32]) -> Vec<Member> {
    let member =
        |(id, weight): (usize, &u32)| Member { id: AdjacencyId(id as u32), weight: *weight, is_alive: true };
    weights.iter().enumerate().map(member).collect()
}

/// How many buckets are due to a member, as a fraction of all: its part of the weights.
fn due(members: &[Member], of: &Member, buckets: usize) -> f64 {
    let all: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
    buckets as f64 * f64::from(of.weight) / all
}

#[test]
fn members_have_buckets_by_their_weights() {
    let buckets = Buckets::of(&weighted(&[10, 40]));
    assert_eq!(buckets.serving().len(), 256, "the lightest is due 32 at least");
    assert_eq!(buckets.load().into_values().collect::<Vec<_>>(), [51, 205]);
    assert_eq!(Buckets::of(&weighted(&[7, 7])).load(), Buckets::of(&alive(0..2)).load());
    let one_to_million = Buckets::of(&weighted(&[1, 1_000_000]));
    assert_eq!(one_to_million.load()[&AdjacencyId(0)], 1, "nobody is left out, and the table stays small");
    assert_eq!(one_to_million.serving().len(), BUCKETS_MAX);
}

proptest! {
    /// Weights, then one that leaves, then one that joins: shares are as due, and flows move only where they must.
    #[test]
    fn weights_are_kept_to_and_move_no_more_flows_than_they_must(
        weights in prop::collection::vec(1_u32..=100, 2..12),
        lost in any::<prop::sample::Index>(),
    ) {
        let members = weighted(&weights);
        let whole = Buckets::of(&members);
        let assert_due = |buckets: &Buckets| {
            let len = buckets.serving().len();
            for member in &buckets.members {
                let has = buckets.load().get(&member.id).copied().unwrap_or_default();
                let due = due(&buckets.members, member, len);
                // To within a bucket, but for what those are given who would have none.
                assert!((has as f64 - due).abs() <= 1.0 || due < 1.0 && has == 1, "{has} of {due}: {weights:?}");
            }
        };
        assert_due(&whole);

        let lost = lost.index(members.len());
        let mut left = members.clone();
        left.remove(lost);
        let mut without = whole.clone();
        without.settle(&left);
        let moved = moves(&whole, &without);
        if left.len() > 1 {
            assert_due(&without);
        }
        // Each of the others may get a bucket for a rounded share; beyond that only the lost one's flows move.
        let others = moved.iter().filter(|(from, _)| from.0 != lost as u32).count();
        let times = moved.len().max(1).min(without.serving().len() / whole.serving().len()).max(1);
        prop_assert!(others <= members.len() * times, "{others} of others moved: {weights:?}");

        let mut back = without.clone();
        back.settle(&members);
        assert_due(&back);
        let joined = moves(&without, &back);
        let beside = joined.iter().filter(|(_, to)| to.0 != lost as u32).count();
        let times = back.serving().len() / without.serving().len();
        prop_assert!(beside <= members.len() * times.max(1), "{beside} moved between others: {weights:?}");
    }

    /// One that is dead leaves its flows to the others by their weights, and has them back.
    #[test]
    fn a_dead_member_s_flows_are_served_by_weight_and_come_back(
        weights in prop::collection::vec(1_u32..=20, 2..8),
        lost in any::<prop::sample::Index>(),
    ) {
        let members = weighted(&weights);
        let whole = Buckets::of(&members);
        let lost = lost.index(members.len()) as u32;
        let mut lame = whole.clone();
        lame.settle(&dead(&members, &[lost]));
        let moved = moves(&whole, &lame);
        prop_assert_eq!(moved.len(), whole.load()[&AdjacencyId(lost)]);
        prop_assert!(moved.iter().all(|(from, _)| from.0 == lost));
        lame.settle(&members);
        prop_assert_eq!(moves(&whole, &lame), []);
    }

    #[test]
    fn a_lost_member_moves_its_own_flows_only(count in 2u32..80, lost in any::<prop::sample::Index>()) {
        let lost = lost.index(count as usize) as u32;
        let before = Buckets::of(&alive(0..count));
        let mut after = before.clone();
        after.settle(&alive((0..count).filter(|id| *id != lost)));
        after.assert_balanced();
        let moved = moves(&before, &after);
        prop_assert_eq!(moved.len(), before.load()[&AdjacencyId(lost)]);
        prop_assert!(moved.iter().all(|(from, _)| from.0 == lost));
    }

    #[test]
    fn a_new_member_takes_its_share_and_no_other_flow_moves(count in 1u32..80) {
        let before = Buckets::of(&alive(0..count));
        let mut after = before.clone();
        after.settle(&alive(0..=count));
        after.assert_balanced();
        let moved = moves(&before, &after);
        prop_assert_eq!(moved.len(), after.load()[&AdjacencyId(count)]);
        prop_assert!(moved.iter().all(|(_, to)| to.0 == count));
    }

    /// A history of members that come, go, die and recover: balance holds after each step, nothing moves without
    /// a change, and a death moves only the flows of the dead.
    #[test]
    fn any_history_stays_balanced(
        steps in prop::collection::vec((prop::collection::btree_set(0u32..12, 1..10), any::<u16>()), 1..20)
    ) {
        let mut buckets = Buckets::default();
        for (ids, deaths) in steps {
            let all = alive(ids.iter().copied());
            buckets.settle(&all);
            buckets.assert_balanced();
            let before = buckets.clone();
            let gone: Vec<u32> = ids.iter().copied().filter(|id| deaths >> id & 1 == 1).collect();
            buckets.settle(&dead(&all, &gone));
            buckets.assert_balanced();
            if gone.len() < ids.len() {
                let moved = moves(&before, &buckets);
                prop_assert!(moved.iter().all(|(from, to)| gone.contains(&from.0) && !gone.contains(&to.0)));
            }
            let again = buckets.clone();
            // As if something had changed and changed back.
            buckets.members = alive(ids.iter().copied());
            buckets.settle(&again.members);
            prop_assert_eq!(&again.serving, &buckets.serving, "settled is settled");
        }
    }

    /// Deaths one after the other: each moves what the newly dead served, and nothing else.
    #[test]
    fn deaths_in_a_row_move_what_the_dead_served(order in Just((0u32..8).collect::<Vec<_>>()).prop_shuffle()) {
        let all = alive(0..8);
        let mut buckets = Buckets::of(&all);
        for count in 1..8 {
            let before = buckets.clone();
            buckets.settle(&dead(&all, &order[..count]));
            buckets.assert_balanced();
            let moved = moves(&before, &buckets);
            prop_assert_eq!(moved.len(), before.load()[&AdjacencyId(order[count - 1])]);
        }
    }
}
