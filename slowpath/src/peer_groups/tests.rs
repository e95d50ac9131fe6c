//! Who is taken in, and what that makes of the desired state.

use model::{AffinityState, BlockAffinity, Node, Resource, Update};

use super::*;
use crate::calico::Calico;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rack(limit: usize) -> BgpSettings {
    BgpSettings {
        announce_all: true,
        aggregates: vec![Aggregate { prefix: prefix("10.65.0.0/16"), summary_only: true }],
        groups: vec![PeerGroup {
            range: prefix("10.1.0.0/24"),
            accept: Some(Accept { as_numbers: vec![65000..=65010, 64512..=64512], limit }),
            default_route: DefaultRoute::Only,
            next_hop: Some(NextHop::OwnAddress),
            options: PeerOptions::default(),
        }],
        ..BgpSettings::default()
    }
}

fn desired(blocks: &[&str]) -> Desired {
    let mut calico = Calico::new("tor");
    let node =
        Node { name: "tor".to_owned(), ipv4: Some("10.1.0.254/24".parse().unwrap()), ..Node::default() };
    calico.apply(&Update::Put(Resource::Node(node).into()));
    for block in blocks {
        let block =
            BlockAffinity { cidr: prefix(block), node: "tor".to_owned(), state: AffinityState::Confirmed };
        calico.apply(&Update::Put(Resource::BlockAffinity(block).into()));
    }
    calico.desired()
}

#[test]
fn those_of_the_right_as_are_taken_in_until_there_is_no_more_room() {
    let (settings, now) = (rack(2), Instant::now());
    let mut neighbours = Neighbours::default();
    let mut take = |address: &str, number| neighbours.take_in(&settings, ip(address), AsNumber(number), now);
    assert_eq!(take("10.2.0.1", 65000), Err(Refusal::NotAwaited));
    assert_eq!(take("10.1.0.1", 65011), Err(Refusal::WrongAs(AsNumber(65011))));
    assert_eq!(take("10.1.0.1", 65010), Ok(()));
    assert_eq!(take("10.1.0.2", 64512), Ok(()));
    assert_eq!(take("10.1.0.3", 65000), Err(Refusal::Full));
    assert_eq!(take("10.1.0.2", 65001), Ok(()), "one that is there may come back as another AS");
    assert_eq!(take("10.1.0.3", 65000), Err(Refusal::Full), "and takes no more room than before");

    let mut desired = desired(&[]);
    join(&settings, &neighbours, &Aggregates::default(), &mut desired);
    let names: Vec<&str> = desired.peers.keys().map(PeerName::as_str).collect();
    assert_eq!(names, ["Dynamic_10_1_0_1", "Dynamic_10_1_0_2"]);
    let peer = desired.peers.values().next().unwrap();
    assert_eq!((peer.passive, peer.next_hop), (true, NextHop::OwnAddress));
    assert_eq!((peer.as_number, peer.default_route), (AsNumber(65010), DefaultRoute::Only));
}

#[test]
fn a_neighbour_that_has_gone_is_remembered_as_long_as_its_routes_may_be() {
    let (settings, now) = (rack(1), Instant::now());
    let nobody = |_| false;
    let mut neighbours = Neighbours::default();
    let address = ip("10.1.0.1");
    neighbours.take_in(&settings, address, AsNumber(65000), now).unwrap();
    neighbours.session_changed(address, true, now);
    assert!(
        !neighbours.forget_the_gone(now + FORGET_AFTER * 2, nobody)
            && !neighbours.is_without_session(address)
    );
    neighbours.session_changed(address, false, now);
    assert!(
        !neighbours.forget_the_gone(now + FORGET_AFTER / 2, nobody) && neighbours.is_without_session(address)
    );
    assert!(neighbours.forget_the_gone(now + FORGET_AFTER, nobody));
    assert_eq!(neighbours.take_in(&settings, ip("10.1.0.2"), AsNumber(65000), now), Ok(()), "there is room");
}

#[test]
fn an_aggregate_lives_as_long_as_a_route_inside_it() {
    let settings = rack(1);
    let mut aggregates = Aggregates::default();
    let alive = |aggregates: &Aggregates, blocks: &[&str]| {
        let mut desired = desired(blocks);
        join(&settings, &Neighbours::default(), aggregates, &mut desired);
        assert_eq!(desired.aggregates.is_empty(), !desired.blackholes.contains(&prefix("10.65.0.0/16")));
        !desired.aggregates.is_empty()
    };
    assert!(!alive(&aggregates, &[]));
    assert!(alive(&aggregates, &["10.65.7.0/26"]), "one of our own");
    assert!(!alive(&aggregates, &["10.66.7.0/26"]));
    for (route, exists, flips) in [
        ("10.65.0.0/16", true, false),
        ("10.64.0.0/15", true, false),
        ("10.65.1.0/24", true, true),
        ("10.65.2.0/24", true, false),
        ("10.65.1.0/24", false, false),
        ("10.65.2.0/24", false, true),
    ] {
        assert_eq!(aggregates.route_changed(&settings, prefix(route), exists), flips, "{route}");
    }
    assert!(!alive(&aggregates, &[]));
}

#[test]
fn a_neighbour_that_is_refused_for_a_time_does_not_come_back_as_somebody_new() {
    let (settings, now) = (rack(2), Instant::now());
    let (resting, gone) = (ip("10.1.0.1"), ip("10.1.0.2"));
    let mut neighbours = Neighbours::default();
    for address in [resting, gone] {
        neighbours.take_in(&settings, address, AsNumber(65000), now).unwrap();
    }
    assert!(neighbours.forget_the_gone(now + FORGET_AFTER * 2, |address| address == resting));
    assert!(neighbours.is_without_session(resting) && !neighbours.is_without_session(gone));
    assert!(neighbours.forget_the_gone(now + FORGET_AFTER * 2, |_| false));
}

#[test]
fn a_ranges_options_are_its_peers_where_their_resources_do_not_say() {
    let seconds = Duration::from_secs;
    let options = PeerOptions {
        restart_time: Some(seconds(7)),
        bfd: Some(true),
        ttl_security: Some(1),
        blackhole: true,
        ..PeerOptions::default()
    };
    let mut settings = rack(2);
    settings.groups[0].options = options.clone();
    let mut neighbours = Neighbours::default();
    neighbours.take_in(&settings, ip("10.1.0.1"), AsNumber(65000), Instant::now()).unwrap();
    let mut desired = desired(&[]);
    let named =
        DesiredPeer { restart_time: Some(seconds(9)), ..dynamic_peer(ip("10.1.0.2"), AsNumber(65001)) };
    let elsewhere = dynamic_peer(ip("10.2.0.2"), AsNumber(65001));
    for peer in [named, elsewhere] {
        desired.peers.insert(peer.name.clone(), peer);
    }
    join(&settings, &neighbours, &Aggregates::default(), &mut desired);
    let [taken_in, named, elsewhere] = desired.peers.values().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(
        (taken_in.restart_time, taken_in.bfd, taken_in.ttl_security),
        (Some(seconds(7)), true, Some(1))
    );
    assert_eq!((named.restart_time, &named.options), (Some(seconds(9)), &options));
    assert_eq!((elsewhere.bfd, &elsewhere.options), (false, &PeerOptions::default()));
}

#[test]
fn a_range_within_an_earlier_one_has_no_password_of_its_own() {
    let group = |range: &str, key: &str| PeerGroup {
        range: prefix(range),
        accept: None,
        default_route: DefaultRoute::AsAny,
        next_hop: None,
        options: PeerOptions {
            password: Some(SecretKey { name: "racks".to_owned(), key: key.to_owned() }),
            ..PeerOptions::default()
        },
    };
    let passwords = |groups: Vec<PeerGroup>| -> Vec<(Prefix, String)> {
        let settings = BgpSettings { groups, ..BgpSettings::default() };
        settings.passwords().map(|(range, secret)| (range, secret.key.clone())).collect()
    };
    let (wide, narrow) = (("10.0.0.0/8", "wide"), ("10.1.0.0/16", "narrow"));
    let of = |(range, key): (&str, &str)| (prefix(range), key.to_owned());
    assert_eq!(passwords(vec![group(wide.0, wide.1), group(narrow.0, narrow.1)]), [of(wide)]);
    assert_eq!(passwords(vec![group(narrow.0, narrow.1), group(wide.0, wide.1)]), [of(narrow), of(wide)]);
}
