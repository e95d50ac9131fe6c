//! A pass in portions against one that is done at once.

use std::collections::BTreeMap;
use std::time::Duration;

use model::Prefix;
use proptest::prelude::*;

use crate::config::PeerId;
use crate::input::Input;
use crate::path::{Slot, mark};
use crate::telling::tests::{PEERS, PREFIXES, STEPS, World};
use crate::wire::attributes::Attributes;
use crate::wire::route_refresh;

/// Everything that is known of a path, but by what number it is told apart.
type Known = (Option<PeerId>, u16, Vec<u8>, Vec<u8>);

fn paths(world: &World) -> Vec<(Prefix, Vec<Known>)> {
    // One that was removed and came back may have another slot here than there.
    let peers = (0..).map(Slot).zip(&world.speaker.peers);
    let whose: BTreeMap<_, _> =
        peers.filter_map(|(slot, peer)| Some((slot, peer.as_ref()?.session.config.id))).collect();
    let all = world.speaker.tables.rib.v4.sorted();
    let known = all.map(|(prefix, paths)| {
        let known = paths.as_slice().iter().map(|path| {
            let peer = whose.get(&path.source).copied();
            (peer, path.marks, path.received().key().to_vec(), path.imported.key().to_vec())
        });
        let mut known: Vec<Known> = known.collect();
        known.sort();
        (prefix, known)
    });
    known.collect()
}

/// What is counted of each peer's paths: how many there are, how many are stale, and what their attributes take.
fn counted(world: &World) -> BTreeMap<PeerId, [usize; 3]> {
    let counted = world.speaker.configured().map(|(_, peer)| {
        let cohorts = &peer.rib_in.cohorts[0];
        (peer.session.config.id, [cohorts.received(), cohorts.stale(), cohorts.bytes()])
    });
    counted.collect()
}

/// The same by the paths themselves.
fn counts(world: &World) -> BTreeMap<PeerId, [usize; 3]> {
    let mut counts: BTreeMap<_, _> =
        world.speaker.configured().map(|(_, peer)| (peer.session.config.id, [0; 3])).collect();
    for (_, known) in paths(world) {
        for (peer, marks, received, _) in known {
            let Some([paths, stale, bytes]) = peer.and_then(|peer| counts.get_mut(&peer)) else { continue };
            *paths += 1;
            *stale += usize::from(marks & mark::STALE != 0);
            *bytes += Attributes::from_key(&received, 0).bytes().len();
        }
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Peers come, go, restart, are refreshed, configured otherwise and removed while others speak; what is left undone then is
    /// done in the end.
    #[test]
    fn portions_come_to_the_same_end_as_one_call(
        steps in prop::collection::vec((0u8..STEPS, 0..PEERS, any::<u8>(), any::<u8>()), 1..160),
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
            prop_assert_eq!(counted(&portions), counts(&portions));
            prop_assert_eq!(counted(&at_once), counts(&at_once));
            for world in [&portions, &at_once] {
                let slots = world.speaker.peers.iter().flatten().count();
                prop_assert_eq!(slots, usize::from(PEERS), "who was removed is gone");
            }
        }
    }
}

/// Something that is about all paths of a peer.
type AboutAll = (&'static str, fn(&mut World));

fn about_all() -> [AboutAll; 7] {
    [
        ("removed", |world| world.give(Input::RemovePeer(PeerId(1)))),
        ("lost", |world| world.give(Input::PathLost { peer: PeerId(1) })),
        ("restarting", |world| world.down(1)),
        ("gone for longer than its restart time", |world| {
            world.now += Duration::from_secs(121);
            world.give(Input::Tick);
        }),
        ("filtered otherwise", |world| {
            world.peers[1].1.import = 2;
            world.configure(1);
        }),
        ("another peer is a client in a cluster that its routes came through", |world| {
            world.peers[0].1.cluster = 2;
            world.configure(0);
        }),
        ("refreshed without announcing anything", |world| {
            world.refresh(1, route_refresh::BEGIN);
            world.refresh(1, route_refresh::END);
        }),
    ]
}

#[test]
fn one_call_goes_over_a_portion() {
    for (what, happens) in about_all() {
        let mut world = World::new(1);
        world.up(1, true, true);
        // In cluster 1.0.0.2.
        world.announce(1, 0, PREFIXES, 1);
        if what.starts_with("gone") {
            world.down(1);
        }
        world.settle();
        let settled = |world: &World| world.speaker.agenda.with_left().next().is_none();
        assert!(settled(&world));
        let before = paths(&world);
        happens(&mut world);
        let differ = |world: &World| {
            let after: BTreeMap<_, _> = paths(world).into_iter().collect();
            before.iter().filter(|(prefix, known)| after.get(prefix) != Some(known)).count()
        };
        assert!(differ(&world) <= usize::from(PREFIXES) / 10, "{what}: {} at once", differ(&world));
        assert!(!settled(&world), "{what}");
        world.settle();
        assert_eq!(differ(&world), usize::from(PREFIXES), "{what}: all in the end");
    }
}
