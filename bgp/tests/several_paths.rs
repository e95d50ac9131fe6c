//! Several paths for one prefix, told to a peer that takes them (RFC 7911).

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bgp::wire::capability::{AddPathMode, Capability};
use bgp::wire::nlri::{AfiSafi, Nlri};
use bgp::wire::update::{Update, UpdateContext};
use bgp::{Input, PeerId, PeerKind, SendPaths};
use model::{Family, Prefix};
use proptest::prelude::*;
use support::{Actor, Bench, EBGP, prefix, unhex, update};

/// Takes several paths.
const COLLECTOR: Actor = Actor { id: PeerId(8), address: Ipv4Addr::new(10, 0, 0, 8), as_number: 65000 };
/// Who announces paths.
const SOURCES: [Actor; 3] = [
    EBGP,
    Actor { id: PeerId(4), address: Ipv4Addr::new(10, 0, 0, 4), as_number: 65004 },
    Actor { id: PeerId(5), address: Ipv4Addr::new(10, 0, 0, 5), as_number: 65005 },
];

/// What the collector has been told: path identifiers and their next hops, by prefix.
type Told = BTreeMap<Prefix, BTreeMap<u32, String>>;

fn bench(send_paths: SendPaths) -> Bench {
    let mut bench = Bench::new();
    for source in SOURCES {
        bench.establish(source);
    }
    let mut config = Bench::config(COLLECTOR);
    config.send_paths = send_paths;
    bench.give(Input::PutPeer(config));
    let mut open = COLLECTOR.open();
    let mode = AddPathMode { receive: true, send: false };
    open.capabilities.push(Capability::AddPath(vec![(AfiSafi::unicast(Family::V4), mode)]));
    bench.establish_with(COLLECTOR, &open);
    bench.take();
    bench
}

/// A route of AS `source`, `hops` long.
fn announce(source: Actor, hops: u8, nlri: &str) -> Vec<u8> {
    let numbers = format!("{:08x}", source.as_number).repeat(usize::from(hops));
    let path = format!("4002{:02x}02{hops:02x}{numbers}", 2 + 4 * hops);
    let nexthop = format!("400304{:08x}", u32::from(source.address));
    update(&[], &unhex(&format!("40010100{path}{nexthop}")), &unhex(nlri))
}

/// Reads what was sent to the collector since the last time.
fn read(bench: &mut Bench, told: &mut Told) {
    let context = UpdateContext { add_path: [true, false], ..UpdateContext::usual(PeerKind::Ibgp) };
    for (kind, body) in bench.sent(COLLECTOR) {
        assert_eq!(kind, 2);
        let update = Update::parse(&body, &context).expect("our own UPDATE");
        for Nlri { prefix, path_id } in update.withdrawn[0] {
            let paths = told.get_mut(&prefix).expect("only what was announced is withdrawn");
            assert!(paths.remove(&path_id).is_some(), "{prefix} {path_id} was never announced");
            if paths.is_empty() {
                told.remove(&prefix);
            }
        }
        for announced in update.announced.into_iter().flatten() {
            for Nlri { prefix, path_id } in announced.nlri {
                assert_ne!(path_id, 0);
                told.entry(prefix).or_default().insert(path_id, announced.nexthop.to_string());
            }
        }
    }
    bench.take();
}

fn nexthops(told: &Told, of: &str) -> BTreeSet<String> {
    told.get(&prefix(of)).map(|paths| paths.values().cloned().collect()).unwrap_or_default()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_peer_that_takes_several_paths_gets_each_and_loses_each() {
    let (mut bench, mut told) = (bench(SendPaths::All), Told::new());
    bench.receive(SOURCES[0], &announce(SOURCES[0], 1, "18c00002"));
    bench.receive(SOURCES[1], &announce(SOURCES[1], 3, "18c00002"));
    read(&mut bench, &mut told);
    assert_eq!(nexthops(&told, "192.0.2.0/24"), set(&["10.0.0.2", "10.0.0.4"]));
    // The longer one is not the best, and yet its end is told.
    bench.receive(SOURCES[1], &update(&unhex("18c00002"), &[], &[]));
    read(&mut bench, &mut told);
    assert_eq!(nexthops(&told, "192.0.2.0/24"), set(&["10.0.0.2"]));
    bench.receive(SOURCES[0], &update(&unhex("18c00002"), &[], &[]));
    read(&mut bench, &mut told);
    assert!(told.is_empty());
}

#[test]
fn no_more_paths_are_told_than_asked_for_and_they_are_the_best() {
    let (mut bench, mut told) = (bench(SendPaths::UpTo(2)), Told::new());
    for (source, hops) in SOURCES.into_iter().zip([3, 1, 2]) {
        bench.receive(source, &announce(source, hops, "18c00002"));
    }
    read(&mut bench, &mut told);
    assert_eq!(nexthops(&told, "192.0.2.0/24"), set(&["10.0.0.4", "10.0.0.5"]));
    bench.receive(SOURCES[1], &update(&unhex("18c00002"), &[], &[]));
    read(&mut bench, &mut told);
    assert_eq!(nexthops(&told, "192.0.2.0/24"), set(&["10.0.0.2", "10.0.0.5"]), "the third takes its place");
}

#[test]
fn a_peer_that_takes_one_path_gets_the_best_without_identifiers() {
    let mut bench = Bench::new();
    let mut config = Bench::config(COLLECTOR);
    config.send_paths = SendPaths::All;
    bench.give(Input::PutPeer(config));
    bench.establish_with(COLLECTOR, &COLLECTOR.open());
    bench.establish(EBGP);
    bench.receive(EBGP, &announce(EBGP, 1, "18c00002"));
    let (_, body) = bench.sent(COLLECTOR).pop().expect("an UPDATE");
    assert!(body.ends_with(&unhex("18c00002")) && !body.ends_with(&unhex("0000000118c00002")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever came and went, in whatever order: the collector knows what the speaker holds.
    #[test]
    fn what_the_peer_was_told_is_what_there_is(
        steps in proptest::collection::vec((0usize..3, 0u8..3, 0u8..4), 1..40),
        most in prop_oneof![Just(SendPaths::All), (1usize..4).prop_map(SendPaths::UpTo)],
    ) {
        let (mut bench, mut told) = (bench(most), Told::new());
        for (source, network, hops) in steps {
            let source = SOURCES[source];
            let nlri = format!("1807000{network}");
            let message = match hops {
                0 => update(&unhex(&nlri), &[], &[]),
                hops => announce(source, hops, &nlri),
            };
            bench.receive(source, &message);
            read(&mut bench, &mut told);
            for network in 0..3 {
                let of = format!("7.0.{network}.0/24");
                let routes = bench.speaker.routes(prefix(&of));
                let held: BTreeSet<String> =
                    routes.iter().filter_map(|route| Some(route.attributes.nexthop()?.to_string())).collect();
                let got = nexthops(&told, &of);
                match most {
                    SendPaths::UpTo(most) => {
                        prop_assert_eq!(got.len(), held.len().min(most));
                        prop_assert!(got.is_subset(&held));
                    }
                    _ => prop_assert_eq!(got, held),
                }
            }
        }
    }
}
