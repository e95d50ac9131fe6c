//! What happens to routes on their way from one peer to another, rule by rule.

mod support;

use bgp::wire::attributes::{AsPath, code};
use bgp::wire::capability::Capability;
use bgp::wire::update::{Update, UpdateContext};
use bgp::{
    Attributes, BestPaths, Input, OriginatedRoute, Output, PathSource, PeerKind, Rank, Standing, Step,
};
use support::{Actor, Bench, EBGP, IBGP, OBSERVER, prefix, unhex, update};

/// ORIGIN IGP, AS_PATH 65001, NEXT_HOP 10.0.0.2.
const SOUND: &str = "4001010040020602010000fde94003040a000002";
const NLRI: &str = "18c00002";

fn announce(bench: &mut Bench, actor: Actor, more: &str) {
    bench.receive(actor, &update(&[], &unhex(&format!("{SOUND}{more}")), &unhex(NLRI)));
}

/// An attribute we sent: flags, code and value.
type Sent = (u8, u8, Vec<u8>);

/// The latest UPDATE sent to the actor: attributes by code.
fn told(bench: &Bench, actor: Actor) -> Option<Vec<Sent>> {
    let (_, body) = bench.sent(actor).into_iter().rfind(|(kind, _)| *kind == 2)?;
    let len = usize::from(u16::from_be_bytes([body[2], body[3]]));
    let mut block = &body[4..4 + len];
    let mut attributes = Vec::new();
    while let [flags, code, rest @ ..] = block {
        let (len, rest) = match (flags & 0x10, rest) {
            (0, [len, rest @ ..]) => (usize::from(*len), rest),
            (_, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            _ => panic!("a whole attribute"),
        };
        attributes.push((*flags, *code, rest[..len].to_vec()));
        block = &rest[len..];
    }
    Some(attributes)
}

fn value(attributes: &[Sent], code: u8) -> Option<Vec<u8>> {
    attributes.iter().find(|(_, of, _)| *of == code).map(|(_, _, value)| value.clone())
}

/// What the observer and the iBGP peer are told of a route of the eBGP peer with some more attributes.
fn passed_on(more: &str) -> [Option<Vec<Sent>>; 2] {
    let mut bench = Bench::new();
    [EBGP, IBGP, OBSERVER].into_iter().for_each(|actor| bench.establish(actor));
    announce(&mut bench, EBGP, more);
    [OBSERVER, IBGP].map(|actor| told(&bench, actor))
}

#[test]
fn an_ebgp_peer_is_told_a_longer_path_and_ourselves_as_next_hop() {
    let [outside, inside] = passed_on("");
    let outside = outside.expect("told");
    assert_eq!(value(&outside, code::AS_PATH), Some(unhex("02020000fde80000fde9")));
    assert_eq!(value(&outside, code::NEXT_HOP), Some(vec![10, 0, 0, 1]));
    assert_eq!(value(&outside, code::LOCAL_PREF), None);
    let inside = inside.expect("told");
    assert_eq!(value(&inside, code::AS_PATH), Some(unhex("02010000fde9")));
    assert_eq!(value(&inside, code::NEXT_HOP), Some(vec![10, 0, 0, 2]));
    assert_eq!(value(&inside, code::LOCAL_PREF), Some(vec![0, 0, 0, 100]));
}

#[test]
fn attributes_are_sent_in_the_order_of_their_codes() {
    let [outside, inside] = passed_on("c00804fde80001c0200c0000fde90000000100000002");
    for attributes in [outside, inside] {
        let codes: Vec<_> = attributes.expect("told").into_iter().map(|(_, code, _)| code).collect();
        assert!(codes.is_sorted(), "{codes:?}");
    }
}

#[test]
fn well_known_communities_bound_how_far_a_route_goes() {
    // NO_EXPORT, NO_EXPORT_SUBCONFED and NO_ADVERTISE of RFC 1997.
    for (community, goes_inside) in [("ffffff01", true), ("ffffff03", true), ("ffffff02", false)] {
        let [outside, inside] = passed_on(&format!("c00804{community}"));
        let routes = |told: Option<Vec<_>>| told.is_some_and(|attributes| !attributes.is_empty());
        assert!(!routes(outside), "{community}");
        assert_eq!(routes(inside), goes_inside, "{community}");
    }
}

#[test]
fn med_is_told_inside_our_as_only() {
    let [outside, inside] = passed_on("80040400000007");
    assert_eq!(value(&outside.expect("told"), code::MULTI_EXIT_DISC), None);
    assert_eq!(value(&inside.expect("told"), code::MULTI_EXIT_DISC), Some(vec![0, 0, 0, 7]));
}

#[test]
fn communities_are_passed_on_and_non_transitive_extended_ones_stay_inside() {
    let [outside, inside] =
        passed_on("c00804fde80001c01010 0002fde900000007 4002fde900000008".replace(' ', "").as_str());
    let (outside, inside) = (outside.expect("told"), inside.expect("told"));
    assert_eq!(value(&outside, code::COMMUNITIES), Some(unhex("fde80001")));
    assert_eq!(value(&outside, code::EXTENDED_COMMUNITIES), Some(unhex("0002fde900000007")));
    assert_eq!(value(&inside, code::EXTENDED_COMMUNITIES), Some(unhex("0002fde9000000074002fde900000008")));
}

#[test]
fn unknown_attributes_pass_with_the_partial_bit_or_not_at_all() {
    let [outside, _] = passed_on("c0de02abcd80df0101");
    let outside = outside.expect("told");
    assert!(outside.contains(&(0xe0, 0xde, vec![0xab, 0xcd])));
    assert_eq!(value(&outside, 0xdf), None);
}

#[test]
fn a_route_is_not_told_to_whom_it_came_from() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    announce(&mut bench, EBGP, "");
    assert!(bench.sent(EBGP).is_empty());
}

#[test]
fn nothing_new_is_not_told_again() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.establish(OBSERVER);
    announce(&mut bench, EBGP, "");
    bench.take();
    announce(&mut bench, EBGP, "");
    // MED is not told to others, so neither is its change.
    announce(&mut bench, EBGP, "80040400000007");
    assert!(bench.sent(OBSERVER).is_empty());
}

#[test]
fn a_withdrawn_route_is_withdrawn_from_others_and_from_forwarding() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.establish(OBSERVER);
    announce(&mut bench, EBGP, "");
    bench.take();
    bench.receive(EBGP, &update(&unhex(NLRI), &[], &[]));
    assert_eq!(bench.sent(OBSERVER), [(2, unhex("000418c000020000"))]);
    assert!(
        bench
            .out
            .contains(&Output::RouteChanged { prefix: prefix("192.0.2.0/24"), paths: BestPaths::default() })
    );
}

#[test]
fn what_an_update_withdraws_and_announces_is_announced() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.receive(EBGP, &update(&unhex(NLRI), &unhex(SOUND), &unhex(NLRI)));
    assert_eq!(bench.speaker.routes(prefix("192.0.2.0/24")).len(), 1);
}

#[test]
fn treat_as_withdraw_still_does_what_the_update_withdraws_itself() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    announce(&mut bench, EBGP, "");
    bench.receive(EBGP, &update(&[], &unhex(SOUND), &unhex("18c63364")));
    // ORIGIN 3, withdrawing the first and announcing the second.
    let broken = SOUND.replace("40010100", "40010103");
    bench.receive(EBGP, &update(&unhex(NLRI), &unhex(&broken), &unhex("18c63364")));
    assert_eq!(bench.speaker.route_count(model::Family::V4), 0);
    assert_eq!(bench.status(EBGP).errors.treated_as_withdraw, 1);
}

#[test]
fn our_own_route_beats_the_peers_and_is_not_given_to_forwarding() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    announce(&mut bench, EBGP, "");
    bench.take();
    bench.give(Input::Originate(OriginatedRoute::new(prefix("192.0.2.0/24"))));
    assert!(
        bench
            .out
            .contains(&Output::RouteChanged { prefix: prefix("192.0.2.0/24"), paths: BestPaths::default() })
    );
    bench.take();
    bench.give(Input::Withdraw(prefix("192.0.2.0/24")));
    let back = |output: &Output| matches!(output, Output::RouteChanged { paths, .. } if paths.len() == 1);
    assert!(bench.out.iter().any(back), "the peer's route is back");
}

#[test]
fn our_own_route_with_a_preference_gives_way_to_a_higher_one() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    announce(&mut bench, EBGP, "");
    for (local_pref, is_ours) in [(99, false), (100, true), (101, true), (99, false)] {
        assert_eq!(originated_is_best(&mut bench, Rank::Peers, Some(local_pref)), is_ours, "{local_pref}");
    }
}

/// Originates a route of a prefix that a peer tells, too: is it the best?
fn originated_is_best(bench: &mut Bench, rank: Rank, local_pref: Option<u32>) -> bool {
    let own = OriginatedRoute::new(prefix("192.0.2.0/24"));
    bench.give(Input::Originate(OriginatedRoute { rank, local_pref, ..own }));
    bench.speaker.routes(prefix("192.0.2.0/24"))[0].source == PathSource::Local
}

/// Whatever LOCAL_PREF it has; and where it alone has changed, that is news.
#[test]
fn the_rank_of_our_own_route_comes_before_its_preference() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    announce(&mut bench, EBGP, "");
    for local_pref in [None, Some(0), Some(100), Some(u32::MAX)] {
        for (rank, is_ours) in [
            (Rank::BeforePeers, true),
            (Rank::AfterPeers, false),
            (Rank::Peers, local_pref != Some(0)),
            (Rank::StandIn, false),
        ] {
            assert_eq!(originated_is_best(&mut bench, rank, local_pref), is_ours, "{rank:?} {local_pref:?}");
        }
    }
    let ours = bench.speaker.routes(prefix("192.0.2.0/24")).into_iter().next_back().unwrap();
    assert_eq!((ours.source, ours.standing), (PathSource::Local, Standing::Lost(Step::Rank)));
}

#[test]
fn a_route_waits_for_its_next_hop() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    let unreachable = Input::NexthopChanged { nexthop: support::ip("10.0.0.2"), metric: None };
    announce(&mut bench, EBGP, "");
    bench.give(unreachable);
    let route = &bench.speaker.routes(prefix("192.0.2.0/24"))[0];
    assert_eq!(route.standing, Standing::Ineligible(bgp::Ineligible::Unreachable));
    assert!(matches!(bench.out.last(), Some(Output::RouteChanged { paths, .. }) if paths.is_empty()));
}

/// An OPEN of a peer that knows only two-octet AS numbers.
fn old_speaker(bench: &mut Bench, actor: Actor) {
    bench.give(Input::PutPeer(Bench::config(actor)));
    let mut open = actor.open();
    open.capabilities.retain(|capability| !matches!(capability, Capability::FourOctetAs(_)));
    bench.establish_with(actor, &open);
    bench.take();
}

#[test]
fn an_old_speaker_gets_as_trans_and_the_whole_path_beside_it() {
    let mut bench = Bench::new();
    old_speaker(&mut bench, OBSERVER);
    bench.establish(EBGP);
    // AS_PATH 65001 200000, AGGREGATOR 200000.
    let attributes = unhex("4001010040020a02020000fde900030d404003040a000002c0070800030d400a000009");
    bench.receive(EBGP, &update(&[], &attributes, &unhex(NLRI)));
    let told = told(&bench, OBSERVER).expect("told");
    assert_eq!(value(&told, code::AS_PATH), Some(unhex("0203fde8fde95ba0")));
    assert_eq!(value(&told, code::AS4_PATH), Some(unhex("02030000fde80000fde900030d40")));
    assert_eq!(value(&told, code::AGGREGATOR), Some(unhex("5ba00a000009")));
    assert_eq!(value(&told, code::AS4_AGGREGATOR), Some(unhex("00030d400a000009")));
}

#[test]
fn an_old_speakers_paths_are_put_together() {
    let cases = [
        // AS_PATH, AS4_PATH, AGGREGATOR, and the whole.
        ("0203fde95ba05ba0", "02020003 0d4000030d41", "", vec![65001, 200000, 200001]),
        // A longer AS4_PATH than AS_PATH is ignored.
        ("0201fde9", "02020000fde900030d40", "", vec![65001]),
        // Somebody aggregated since, without knowing of AS4_PATH: it is ignored.
        ("0202fde95ba0", "020100030d40", "c00706fde90a000009", vec![65001, 23456]),
    ];
    for (old, new, aggregator, whole) in cases {
        let new = new.replace(' ', "");
        let mut bench = Bench::new();
        old_speaker(&mut bench, EBGP);
        let attribute =
            |flags: &str, code: u8, value: &str| format!("{flags}{code:02x}{:02x}{value}", value.len() / 2);
        let attributes =
            ["40010100", &attribute("40", 2, old), "4003040a000002", aggregator, &attribute("c0", 17, &new)]
                .concat();
        bench.receive(EBGP, &update(&[], &unhex(&attributes), &unhex(NLRI)));
        let route = &bench.speaker.routes(prefix("192.0.2.0/24"))[0];
        assert_eq!(route.attributes.as_path().as_numbers().collect::<Vec<_>>(), whole);
        assert_eq!(route.attributes.value(code::AS4_PATH), None);
    }
}

#[test]
fn attributes_too_long_for_a_message_are_not_told_but_counted() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.establish(IBGP);
    // AS_PATH of 960 numbers fits here, but not with LOCAL_PREF and the rest beside it once more is added.
    let mut path = Vec::new();
    for _ in 0..4 {
        path.extend([2, 250]);
        (0..250).for_each(|_| path.extend(unhex("0000fde9")));
    }
    let mut attributes = unhex("400101004003040a0000025002");
    attributes.extend((path.len() as u16).to_be_bytes());
    attributes.extend(&path);
    assert!(AsPath::four_octet(&path).is_well_formed());
    let room = 4096 - 23 - attributes.len() - 4 - 4;
    attributes.extend([0xd0, 0xde, (room >> 8) as u8, room as u8]);
    attributes.extend(vec![0; room]);
    bench.receive(EBGP, &update(&[], &attributes, &unhex(NLRI)));
    assert_eq!(bench.speaker.routes(prefix("192.0.2.0/24")).len(), 1);
    assert!(bench.sent(IBGP).is_empty());
    assert_eq!(bench.status(IBGP).errors.not_announceable, 1);
}

#[test]
fn what_we_announce_reads_back_as_what_we_hold() {
    let mut bench = Bench::new();
    bench.establish(OBSERVER);
    for at in 0..300 {
        let mut route = OriginatedRoute::new(prefix(&format!("10.{}.{}.0/24", at / 100, at % 100)));
        route.communities = vec![0xfde8_0000 + at / 100];
        bench.give(Input::Originate(route));
    }
    let context = UpdateContext::usual(PeerKind::Ebgp);
    let mut prefixes = Vec::new();
    for (_, body) in bench.sent(OBSERVER) {
        let update = Update::parse(&body, &context).expect("our own UPDATE");
        assert_eq!(update.error, None);
        let nlri = update.announced.into_iter().flatten().flat_map(|announced| announced.nlri);
        prefixes.extend(nlri.map(|nlri| nlri.prefix));
    }
    prefixes.sort_unstable();
    assert_eq!(prefixes.len(), 300);
    assert!(prefixes.is_sorted_by(|a, b| a < b), "each once");
}

#[test]
fn every_loser_says_why_it_lost() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    bench.establish(IBGP);
    announce(&mut bench, EBGP, "");
    let longer = unhex("4001010040020a02020000fde90000fdea4003040a00000340050400000064");
    bench.receive(IBGP, &update(&[], &longer, &unhex(NLRI)));
    let standings: Vec<_> =
        bench.speaker.routes(prefix("192.0.2.0/24")).iter().map(|route| route.standing).collect();
    assert_eq!(standings, [Standing::Best, Standing::Lost(bgp::Step::AsPathLength)]);
}

#[test]
fn views_of_attributes_are_readable_by_callers() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    announce(&mut bench, EBGP, "c00804fde80001");
    let routes = bench.speaker.routes(prefix("192.0.2.0/24"));
    let attributes: &Attributes = &routes[0].attributes;
    assert_eq!(attributes.nexthop(), Some(support::ip("10.0.0.2")));
    assert_eq!((attributes.hops(), attributes.neighbor_as()), (1, Some(65001)));
    assert_eq!(attributes.communities().collect::<Vec<_>>(), [0xfde8_0001]);
}

#[test]
fn a_route_that_moves_to_a_new_next_hop_is_never_gone_meanwhile() {
    let mut bench = Bench::new();
    bench.establish(EBGP);
    announce(&mut bench, EBGP, "");
    bench.take();
    let elsewhere = SOUND.replace("0a000002", "0a000009");
    bench.receive(EBGP, &update(&[], &unhex(&elsewhere), &unhex(NLRI)));
    let changes: Vec<Vec<String>> = (bench.take().into_iter())
        .filter_map(|output| match output {
            Output::RouteChanged { paths, .. } => Some(paths),
            _ => None,
        })
        .map(|paths| paths.iter().map(|path| path.nexthop.to_string()).collect())
        .collect();
    assert_eq!(changes, [["10.0.0.9"]], "the bench answers for the new next hop one input later");
}
