//! What filters let pass, and how they change it.

mod support;

use std::net::Ipv4Addr;

use bgp::{
    Attributes, Community, Filter, FilterAction, FilterMatch, FilterRule, Input, Operation, OriginatedRoute,
    PrefixMatch, Rank, SpeakerConfig,
};
use model::AsNumber;
use support::network::Network;
use support::prefix;

const OURS: u32 = 65001;
const THEIRS: u32 = 65002;
const COMMUNITY: u32 = OURS << 16 | 7;

/// Two speakers of different ASes, the first with this filter towards the second, the second with that one from it.
fn pair(export: Filter, import: Filter) -> Network {
    let mut network = Network::new();
    for (id, as_number) in [(1, OURS), (2, THEIRS)] {
        let config = SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, id), AsNumber(as_number));
        network.add(&format!("10.0.0.{id}"), SpeakerConfig { seed: id.into(), ..config });
    }
    let mut config = network.config(1, THEIRS);
    config.export = export;
    network.give(0, Input::PutPeer(config));
    let mut config = network.config(0, OURS);
    config.import = import;
    network.give(1, Input::PutPeer(config));
    network
}

fn originate(network: &mut Network, prefixes: &[&str], communities: &[u32]) {
    for text in prefixes {
        let route =
            OriginatedRoute { communities: communities.to_vec(), ..OriginatedRoute::new(prefix(text)) };
        network.give(0, Input::Originate(route));
    }
}

/// The routes of the second speaker.
fn arrived(network: &Network) -> Vec<String> {
    network.nodes[1].fib.keys().map(ToString::to_string).collect()
}

fn attributes(network: &Network, text: &str) -> std::sync::Arc<Attributes> {
    network.nodes[1].speaker.routes(prefix(text)).remove(0).attributes
}

/// Takes what the rule matches and nothing else.
fn only(matches: FilterMatch) -> Filter {
    let rule = FilterRule { matches, ..FilterRule::any(FilterAction::Accept) };
    Filter { rules: vec![rule], ..Filter::reject_all() }
}

fn doing(operations: &[Operation]) -> Filter {
    let rule = FilterRule { operations: operations.to_vec(), ..FilterRule::any(FilterAction::Accept) };
    Filter { rules: vec![rule], ..Filter::reject_all() }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let filter = Filter {
        rules: vec![
            FilterRule::exactly(prefix("10.0.0.0/26"), FilterAction::Accept),
            FilterRule::within(prefix("10.0.0.0/16"), FilterAction::Reject),
        ],
        default: FilterAction::Accept,
    };
    let mut network = pair(filter, Filter::accept_all());
    originate(&mut network, &["10.0.0.0/26", "10.0.0.0/27", "10.0.0.0/8"], &[]);
    network.run(10);
    assert_eq!(arrived(&network), ["10.0.0.0/8", "10.0.0.0/26"]);
}

#[test]
fn prefixes_are_matched_by_cover_and_length_or_by_all_others() {
    let prefixes = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "192.0.2.0/24"];
    let within = PrefixMatch { min_len: 16, max_len: 20, ..PrefixMatch::within(prefix("10.0.0.0/8")) };
    let negated = PrefixMatch { negated: true, ..within };
    for (prefixes_of_rule, expected) in [
        (PrefixMatch::exactly(prefix("10.1.0.0/16")), &prefixes[1..2]),
        (within, &prefixes[1..2]),
        (negated, &[prefixes[0], prefixes[2], prefixes[3]]),
    ] {
        let filter = only(FilterMatch { prefix: Some(prefixes_of_rule), ..FilterMatch::default() });
        for (export, import) in [(filter.clone(), Filter::accept_all()), (Filter::accept_all(), filter)] {
            let mut network = pair(export, import);
            originate(&mut network, &prefixes, &[]);
            network.run(10);
            assert_eq!(arrived(&network), expected, "{prefixes_of_rule:?}");
        }
    }
    let one_of = Some(vec![prefix("10.1.1.0/24"), prefix("10.9.0.0/16")]);
    let mut network = pair(only(FilterMatch { one_of, ..FilterMatch::default() }), Filter::accept_all());
    originate(&mut network, &prefixes, &[]);
    network.run(10);
    assert_eq!(arrived(&network), ["10.1.1.0/24"]);
}

#[test]
fn communities_as_paths_and_preferences_are_matched() {
    let path = |numbers: &[u32]| numbers.iter().copied().map(AsNumber).collect();
    let default = FilterMatch::default;
    for (matches, with_community, without) in [
        (FilterMatch { community: Some(Community::Standard(COMMUNITY)), ..default() }, true, false),
        (FilterMatch { community: Some(Community::Large([1, 2, 3])), ..default() }, false, false),
        (FilterMatch { as_path_begins: path(&[OURS]), ..default() }, true, true),
        (FilterMatch { as_path_begins: path(&[OURS, 1]), ..default() }, false, false),
        (FilterMatch { as_path_begins: path(&[THEIRS]), ..default() }, false, false),
        (FilterMatch { local_pref: Some(100), ..default() }, true, true),
        (FilterMatch { local_pref: Some(101), ..default() }, false, false),
        (FilterMatch { learned: true, ..default() }, true, true),
    ] {
        let mut network = pair(Filter::accept_all(), only(matches.clone()));
        originate(&mut network, &["10.1.0.0/16"], &[COMMUNITY]);
        originate(&mut network, &["10.2.0.0/16"], &[]);
        network.run(10);
        let came = arrived(&network);
        let is_there = |text: &str| came.iter().any(|prefix| prefix == text);
        assert_eq!(
            (is_there("10.1.0.0/16"), is_there("10.2.0.0/16")),
            (with_community, without),
            "{matches:?}"
        );
    }
    let learned = only(FilterMatch { learned: true, ..default() });
    let mut network = pair(learned, Filter::accept_all());
    originate(&mut network, &["10.1.0.0/16"], &[]);
    network.run(10);
    assert!(arrived(&network).is_empty(), "what is originated here was learned from nobody");
}

#[test]
fn what_is_originated_here_and_its_rank_are_matched() {
    let default = FilterMatch::default;
    let originated = || FilterMatch { originated: true, ..default() };
    let of = |rank| FilterMatch { rank: Some(rank), ..default() };
    for (matches, expected) in [
        (originated(), &["10.1.0.0/16", "10.2.0.0/16"][..]),
        (of(Rank::StandIn), &["10.2.0.0/16"]),
        (of(Rank::Peers), &[]),
    ] {
        let mut network = pair(only(matches.clone()), Filter::accept_all());
        originate(&mut network, &["10.1.0.0/16"], &[]);
        let stand_in = OriginatedRoute::new(prefix("10.2.0.0/16"));
        network.give(0, Input::Originate(OriginatedRoute { rank: Rank::StandIn, ..stand_in }));
        network.run(10);
        assert_eq!(arrived(&network), expected, "{matches:?}");
    }
    for matches in [originated(), of(Rank::Peers)] {
        let mut network = pair(Filter::accept_all(), only(matches.clone()));
        originate(&mut network, &["10.1.0.0/16"], &[]);
        network.run(10);
        assert!(arrived(&network).is_empty(), "what a peer tells wasn't originated here: {matches:?}");
    }
}

#[test]
fn a_filter_may_add_communities_lengthen_the_path_and_set_the_preference() {
    let longer = Operation::PrependAsPath(vec![AsNumber(65010), AsNumber(65011)]);
    let community = Operation::AddCommunity(Community::Standard(COMMUNITY));
    let large = Operation::AddCommunity(Community::Large([OURS, 2, 3]));
    let preference = Operation::SetLocalPref(7);
    let export = doing(&[community.clone(), large, longer.clone(), preference.clone()]);
    let mut network = pair(export, doing(&[community, longer, preference]));
    originate(&mut network, &["10.1.0.0/16"], &[]);
    network.run(10);
    let route = attributes(&network, "10.1.0.0/16");
    assert_eq!(route.communities().collect::<Vec<_>>(), [COMMUNITY], "each is there once");
    assert_eq!(route.large_communities().collect::<Vec<_>>(), [[OURS, 2, 3]]);
    // As it was imported, and before that the sender's own AS before what its filter put there.
    let path: Vec<u32> = route.as_path().as_numbers().collect();
    assert_eq!(path, [65010, 65011, OURS, 65010, 65011]);
    assert_eq!(route.local_pref(), Some(7));
}

#[test]
fn a_preference_set_on_the_way_out_does_not_leave_our_as() {
    let mut network = pair(doing(&[Operation::SetLocalPref(7)]), Filter::accept_all());
    originate(&mut network, &["10.1.0.0/16"], &[]);
    network.run(10);
    assert_eq!(attributes(&network, "10.1.0.0/16").local_pref(), None);
}
