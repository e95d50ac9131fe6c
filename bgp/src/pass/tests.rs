//! A pass in portions against one that is done at once.

use model::Prefix;
use proptest::prelude::*;

use crate::loc_rib::{Slot, mark};
use crate::telling::tests::{PEERS, World};

/// Everything that is known of a path, but by what number it is told apart.
type Known = (Slot, u16, Vec<u8>, Vec<u8>);

fn paths(world: &World) -> Vec<(Prefix, Vec<Known>)> {
    let all = world.speaker.tables.rib.v4.sorted();
    let known = all.map(|(prefix, paths)| {
        let known = paths.as_slice().iter().map(|path| {
            (path.source, path.marks, path.received().key().to_vec(), path.imported.key().to_vec())
        });
        let mut known: Vec<Known> = known.collect();
        known.sort();
        (prefix, known)
    });
    known.collect()
}

/// How many paths each peer has, and how many of them are stale, counted and by the marks.
fn counts(world: &World) -> Vec<[usize; 4]> {
    let of = |slot: Slot, marks: u16| {
        let paths = world.speaker.tables.rib.v4.sorted();
        let all = paths.flat_map(|(_, paths)| paths.as_slice());
        all.filter(|path| path.source == slot && path.marks & marks == marks).count()
    };
    let peers = (0..).map(Slot).zip(&world.speaker.peers);
    let counted = peers.filter_map(|(slot, peer)| {
        let rib_in = &peer.as_ref()?.rib_in;
        Some([rib_in.received[0], of(slot, 0), rib_in.stale[0], of(slot, mark::STALE)])
    });
    counted.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Peers come, go, restart and are refreshed while others speak; what is left undone then is done in the end.
    #[test]
    fn portions_come_to_the_same_end_as_one_call(
        steps in prop::collection::vec((0u8..28, 0..PEERS, any::<u8>(), any::<u8>()), 1..160),
    ) {
        let up = (0..PEERS).map(|peer| (8, peer, 0, peer));
        let steps: Vec<_> = up.chain(steps).collect();
        let (mut portions, mut at_once) = (World::new(1), World::new(1 << 14));
        for round in steps.chunks(20) {
            for &step in round {
                portions.act(step);
                at_once.act(step);
            }
            portions.settle();
            at_once.settle();
            prop_assert_eq!(paths(&portions), paths(&at_once));
            let counts = counts(&portions);
            prop_assert_eq!(&counts, &self::counts(&at_once));
            for [received, paths, stale, marked] in counts {
                prop_assert_eq!((received, stale), (paths, marked));
            }
        }
    }
}
