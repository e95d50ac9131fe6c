//! The speaker is told every difference, once.

use model::{
    AffinityState, BgpCommunity, BgpConfiguration, BgpFilter, BgpFilterRule, BgpPeer, BlockAffinity,
    EncapMode, IpPool, Key, Node, PeerTarget, PrefixAdvertisement, Resource, Update, WorkloadEndpoint,
};

use super::*;
use crate::calico::Calico;
use crate::peer_groups::{
    Accept, Aggregate, Aggregates, BgpSettings, Neighbours, PeerGroup, PeerOptions, join, join_neighbour,
};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn pool(name: &str, cidr: &str, disable_bgp_export: bool) -> Resource {
    Resource::IpPool(IpPool {
        name: name.to_owned(),
        cidr: prefix(cidr),
        ipip_mode: EncapMode::Never,
        vxlan_mode: EncapMode::Never,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export,
    })
}

fn peer(name: &str, remote: &str) -> Resource {
    Resource::BgpPeer(BgpPeer {
        as_number: Some(AsNumber(65001)),
        ..BgpPeer::new(name, PeerTarget::Address(remote.parse().unwrap()))
    })
}

fn block(cidr: &str) -> BlockAffinity {
    BlockAffinity { cidr: prefix(cidr), node: "a".to_owned(), state: AffinityState::Confirmed }
}

fn endpoint(addresses: &[&str]) -> Resource {
    Resource::WorkloadEndpoint(WorkloadEndpoint {
        namespace: "default".to_owned(),
        name: "w".to_owned(),
        node: "a".to_owned(),
        interface: "cali1".to_owned(),
        mac: None,
        ip_networks: addresses.iter().map(|address| prefix(address)).collect(),
        ..WorkloadEndpoint::default()
    })
}

/// One node's resources and what its speaker was told.
struct Bench {
    calico: Calico,
    sessions: Sessions,
}

impl Bench {
    /// A node with a block in a pool and one peer, not yet told.
    fn new() -> Bench {
        let mut bench =
            Bench { calico: Calico::new("a"), sessions: Sessions::with_secrets("/nonexistent".into()) };
        bench.put(Resource::Node(Node {
            name: "a".to_owned(),
            as_number: None,
            ipv4: Some("10.0.0.1/24".parse().unwrap()),
            ipv6: None,
            ..Node::default()
        }));
        bench.put(pool("pods", "10.65.0.0/16", false));
        bench.put(Resource::BlockAffinity(block("10.65.0.0/26")));
        bench.put(peer("tor", "10.0.0.9:179"));
        bench
    }

    fn put(&mut self, resource: Resource) {
        self.calico.apply(&Update::Put(resource.into()));
    }

    fn remove(&mut self, key: Key) {
        self.calico.apply(&Update::Remove(key));
    }

    fn changes(&mut self) -> Vec<Input<'static>> {
        self.sessions.changes(&self.calico.desired())
    }

    fn tor(&self) -> PeerId {
        self.sessions.at_address("10.0.0.9".parse().unwrap()).unwrap()
    }
}

/// The inputs as text, without the details.
fn told(inputs: &[Input<'_>]) -> Vec<String> {
    let text = |input: &Input<'_>| match input {
        Input::Originate(route) => format!("originate {}", route.prefix),
        Input::Withdraw(prefix) => format!("withdraw {prefix}"),
        Input::PutPeer(config) => format!("put {}", config.address),
        Input::RemovePeer(_) => "remove".to_owned(),
        other => panic!("{other:?}"),
    };
    inputs.iter().map(text).collect()
}

#[test]
fn everything_is_told_once_and_anew_to_a_new_speaker() {
    let mut bench = Bench::new();
    let all = ["originate 10.65.0.0/26", "put 10.0.0.9"];
    assert_eq!(told(&bench.changes()), all);
    let tor = bench.tor();
    assert_eq!(told(&bench.changes()), [""; 0]);
    bench.sessions.forget();
    assert_eq!(told(&bench.changes()), all);
    assert_eq!(bench.tor(), tor, "a peer keeps its number");
}

#[test]
fn own_routes_have_the_local_preference_of_calicos_nodes() {
    let mut bench = Bench::new();
    bench.put(endpoint(&["10.65.7.7/32"]));
    let preferences: Vec<Option<u32>> = bench
        .changes()
        .iter()
        .filter_map(|input| match input {
            Input::Originate(route) => Some(route.local_pref),
            _ => None,
        })
        .collect();
    assert_eq!(preferences, [Some(2_147_482_623); 2]);
}

#[test]
fn a_changed_export_filter_is_told_to_the_peer_and_nothing_else_is() {
    let mut bench = Bench::new();
    bench.changes();
    bench.put(pool("pods", "10.65.0.0/16", true));
    let changes = bench.changes();
    let [Input::PutPeer(config)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(config.id, bench.tor());
    let expected = export_filter(&bench.calico.desired());
    assert_eq!(config.export, expected);
    assert!(config.export.rules.iter().any(|rule| rule.action == FilterAction::Reject));
    assert_eq!(told(&bench.changes()), [""; 0]);
}

#[test]
fn a_peer_without_its_resource_is_removed_and_unknown_from_then_on() {
    let mut bench = Bench::new();
    bench.changes();
    let tor = bench.tor();
    bench.remove(Key::BgpPeer("tor".to_owned()));
    let changes = bench.changes();
    assert!(matches!(changes.as_slice(), [Input::RemovePeer(removed)] if *removed == tor), "{changes:?}");
    assert_eq!(bench.sessions.at_address("10.0.0.9".parse().unwrap()), None);
    assert!(bench.sessions.desired(tor).is_none());

    bench.put(peer("tor", "10.0.0.9:179"));
    assert_eq!(told(&bench.changes()), ["put 10.0.0.9"]);
    assert_ne!(bench.tor(), tor, "what is late for the old session doesn't meet the new one");
}

#[test]
fn a_borrowed_address_is_originated_by_itself_and_one_of_an_own_block_is_not() {
    let mut bench = Bench::new();
    bench.changes();
    bench.put(endpoint(&["10.65.0.5/32", "10.65.7.7/32"]));
    assert_eq!(told(&bench.changes()), ["originate 10.65.7.7/32"]);
    bench.put(endpoint(&["10.65.0.5/32"]));
    assert_eq!(told(&bench.changes()), ["withdraw 10.65.7.7/32"]);
}

#[test]
fn addresses_of_a_block_that_goes_are_borrowed_from_then_on() {
    let mut bench = Bench::new();
    bench.put(endpoint(&["10.65.0.5/32"]));
    bench.changes();
    bench.put(Resource::BlockAffinity(BlockAffinity {
        state: AffinityState::PendingDeletion,
        ..block("10.65.0.0/26")
    }));
    let changes = told(&bench.changes());
    assert_eq!(changes[..2], ["withdraw 10.65.0.0/26", "originate 10.65.0.5/32"]);
}

/// What the built-in rules say of a route, in the order they are asked: accepted with these communities, or rejected.
fn said(filter: &Filter, route: &str, local_pref: u32) -> Option<Vec<Operation>> {
    let route = prefix(route);
    let about = |rule: &&FilterRule| {
        let set = rule.matches.prefix.unwrap();
        set.prefix.covers(route)
            && route.len() <= set.max_len
            && rule.matches.local_pref_above.is_none_or(|limit| local_pref > limit)
    };
    let rule = filter.rules.iter().find(about)?;
    (rule.action == FilterAction::Accept).then(|| rule.operations.clone())
}

const NORMAL: u32 = 2_147_482_623;

#[test]
fn a_block_is_announced_whole_and_inside_it_only_what_is_of_more_than_normal_priority() {
    let bench = Bench::new();
    let filter = export_filter(&bench.calico.desired());
    assert!(said(&filter, "10.65.0.0/26", NORMAL).is_some());
    assert!(said(&filter, "10.65.0.7/32", NORMAL).is_none());
    assert!(said(&filter, "10.65.0.7/32", NORMAL + 1).is_some());
    assert!(said(&filter, "10.65.9.7/32", NORMAL).is_some(), "borrowed");
    assert!(said(&filter, "10.66.0.0/16", NORMAL + 1).is_none(), "in no pool");
}

#[test]
fn a_pool_that_is_not_exported_keeps_our_blocks_back_too() {
    let mut bench = Bench::new();
    bench.put(pool("pods", "10.65.0.0/16", true));
    let filter = export_filter(&bench.calico.desired());
    assert!(said(&filter, "10.65.0.0/26", NORMAL).is_none());
    assert!(said(&filter, "10.65.0.7/32", NORMAL + 1).is_none());
}

#[test]
fn a_route_is_told_with_the_communities_of_every_network_that_it_is_in() {
    let mut bench = Bench::new();
    let told = |cidr: &str, value| PrefixAdvertisement {
        cidr: prefix(cidr),
        communities: vec![BgpCommunity::Standard(65001, value)],
    };
    let advertisements = vec![
        told("10.65.0.0/16", 16),
        told("10.65.0.0/24", 24),
        told("10.99.0.0/16", 99),
        told("10.65.0.9/32", 32),
    ];
    bench.put(Resource::BgpConfiguration(BgpConfiguration {
        name: "default".to_owned(),
        prefix_advertisements: Some(advertisements),
        service_cluster_ips: vec![prefix("10.96.0.0/12")],
        ..BgpConfiguration::default()
    }));
    let filter = export_filter(&bench.calico.desired());
    let with = |values: &[u32]| {
        let added = |value: &u32| Operation::AddCommunity(bgp::Community::Standard(65001 << 16 | value));
        Some(values.iter().map(added).collect::<Vec<_>>())
    };
    assert_eq!(said(&filter, "10.65.0.0/26", NORMAL), with(&[16, 24]));
    assert_eq!(said(&filter, "10.65.7.0/26", NORMAL), with(&[16]));
    assert_eq!(said(&filter, "10.65.0.9/32", NORMAL), None, "inside our block, whatever it is told with");
    assert_eq!(said(&filter, "10.65.0.9/32", NORMAL + 1), with(&[16, 24, 32]));
    assert_eq!(said(&filter, "10.96.0.0/12", NORMAL), with(&[]), "not in the network, though around it");
    assert_eq!(said(&filter, "10.99.0.0/16", NORMAL), with(&[99]));
    assert_eq!(said(&filter, "10.98.0.0/16", NORMAL), with(&[]));

    bench.put(Resource::BgpConfiguration(BgpConfiguration {
        name: "node.a".to_owned(),
        prefix_advertisements: Some(vec![told("10.65.0.0/16", 7)]),
        ..BgpConfiguration::default()
    }));
    let filter = export_filter(&bench.calico.desired());
    assert_eq!(
        said(&filter, "10.65.0.0/26", NORMAL),
        with(&[7]),
        "a node's own take the place of the cluster's"
    );
}

#[test]
fn services_are_announced_and_not_forwarded() {
    let mut bench = Bench::new();
    bench.changes();
    bench.put(Resource::BgpConfiguration(BgpConfiguration {
        name: "default".to_owned(),
        service_cluster_ips: vec![prefix("10.96.0.0/12")],
        normal_route_priority_v4: Some(5000),
        ..BgpConfiguration::default()
    }));
    let changes = bench.changes();
    assert_eq!(
        told(&changes),
        ["originate 10.65.0.0/26", "originate 10.96.0.0/12", "put 10.0.0.9"],
        "the block has another priority"
    );
    let preferences = changes.iter().filter_map(|input| match input {
        Input::Originate(route) => route.local_pref,
        _ => None,
    });
    assert_eq!(preferences.collect::<Vec<_>>(), [2_147_478_647; 2]);
    assert!(!bench.calico.desired().blackholes.contains(&prefix("10.96.0.0/12")));
}

#[test]
fn bgp_is_listened_for_at_the_nodes_address_where_that_is_asked_for() {
    let mut bench = Bench::new();
    let texts = |bench: &Bench| {
        let addresses = listen_addresses(&bench.calico.desired());
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts(&bench), ["0.0.0.0:179", "[::]:179"]);
    bench.put(Resource::BgpConfiguration(BgpConfiguration {
        name: "default".to_owned(),
        bind_to_node_address: true,
        listen_port: Some(1179),
        ..BgpConfiguration::default()
    }));
    assert_eq!(texts(&bench), ["10.0.0.1:1179"]);
}

/// What `said` of a route of ours says where the speaker's filter has rules by rank, too.
fn announces(filter: &Filter, route: &str, rank: Rank, local_pref: u32) -> bool {
    let route = prefix(route);
    let about = |rule: &&FilterRule| {
        rule.matches.prefix.is_none_or(|set| set.prefix.covers(route) && route.len() <= set.max_len)
            && rule.matches.rank.is_none_or(|wanted| rank == wanted)
            && rule.matches.local_pref_above.is_none_or(|limit| local_pref > limit)
    };
    let rule = filter.rules.iter().find(about);
    rule.map_or(filter.default, |rule| rule.action) == FilterAction::Accept
}

#[test]
fn who_was_promised_a_default_route_is_told_one_and_nobody_else_the_one_that_stands_in() {
    let mut bench = Bench::new();
    bench.put(peer("node", "10.0.0.7:179"));
    let mut desired = bench.calico.desired();
    desired.announce_all = true;
    let promised =
        desired.peers.values_mut().find(|peer| peer.address == IpAddr::from([10, 0, 0, 7])).unwrap();
    promised.default_route = DefaultRoute::Only;
    let changes = bench.sessions.changes(&desired);
    let stand_in = changes.iter().find_map(|input| match input {
        Input::Originate(route) if route.prefix == Prefix::DEFAULT_V4 => Some((route.rank, route.local_pref)),
        _ => None,
    });
    assert_eq!(stand_in, Some((Rank::StandIn, Some(0))), "anybody else's comes before it, here and there");
    let export = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        let config = changes.iter().find_map(|input| match input {
            Input::PutPeer(config) if config.address == address => Some(config.export.clone()),
            _ => None,
        });
        config.unwrap()
    };
    let (node, tor) = (export("10.0.0.7"), export("10.0.0.9"));
    for (route, rank, local_pref, to_node, to_tor) in [
        ("0.0.0.0/0", Rank::StandIn, 0, true, false),
        ("0.0.0.0/0", Rank::Peers, NORMAL, true, true),
        ("10.65.0.0/26", Rank::Peers, NORMAL, false, true),
        ("203.0.113.0/24", Rank::AfterPeers, NORMAL, false, true),
    ] {
        assert_eq!(announces(&node, route, rank, local_pref), to_node, "{route} {rank:?} down");
        assert_eq!(announces(&tor, route, rank, local_pref), to_tor, "{route} {rank:?} up");
    }
}

#[test]
fn an_aggregate_stands_for_what_is_inside_it() {
    let bench = Bench::new();
    let mut desired = bench.calico.desired();
    desired.announce_all = true;
    desired.networks.insert(prefix("203.0.113.0/24"));
    let aggregate = |cidr: &str, summary_only| Aggregate { prefix: prefix(cidr), summary_only };
    desired.aggregates = vec![aggregate("10.65.0.0/16", true), aggregate("10.66.0.0/16", false)];
    let originated = originated(&desired);
    let by = Some((AsNumber(64512), Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(originated[&prefix("10.65.0.0/16")].aggregator, by);
    assert_eq!(originated[&prefix("203.0.113.0/24")].aggregator, None);
    let filter = export_filter(&desired);
    for (route, announced) in [
        ("10.65.0.0/16", true),
        ("10.65.0.0/26", false),
        ("10.66.0.0/16", true),
        ("10.66.1.0/24", true),
        ("203.0.113.0/24", true),
    ] {
        assert_eq!(announces(&filter, route, Rank::Peers, NORMAL), announced, "{route}");
    }
}

#[test]
fn a_session_without_its_password_is_held_back_until_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    bench.sessions = Sessions::with_secrets(directory.path().to_owned());
    let Resource::BgpPeer(plain) = peer("tor", "10.0.0.9:179") else { unreachable!() };
    let password = Some(SecretKey { name: "bgp".to_owned(), key: "tor".to_owned() });
    bench.put(Resource::BgpPeer(BgpPeer { password, ttl_security: Some(1), ..plain.clone() }));
    assert_eq!(told(&bench.changes()), ["originate 10.65.0.0/26"]);
    let (name, (_, problem)) = bench.sessions.held_back().iter().next().unwrap();
    assert_eq!(name.as_str(), "Global_10_0_0_9");
    assert!(problem.contains("there is no such file"), "{problem}");

    std::fs::create_dir(directory.path().join("bgp")).unwrap();
    std::fs::write(directory.path().join("bgp/tor"), "first\n").unwrap();
    assert!(bench.sessions.secrets_changed());
    let guard = |changes: &[Input<'_>]| match changes {
        [Input::PutPeer(config)] => config.guard.clone(),
        other => panic!("{other:?}"),
    };
    let expected = |password: &[u8]| Guard { password: bgp::Password::new(password), ttl_security: Some(1) };
    assert_eq!(guard(&bench.changes()), expected(b"first"));
    assert!(bench.sessions.held_back().is_empty());

    // Another password is another session; one that is taken away ends it.
    std::fs::write(directory.path().join("bgp/tor"), "second").unwrap();
    assert!(bench.sessions.secrets_changed());
    assert_eq!(guard(&bench.changes()), expected(b"second"));
    std::fs::remove_file(directory.path().join("bgp/tor")).unwrap();
    assert!(bench.sessions.secrets_changed());
    assert_eq!(told(&bench.changes()), ["remove"]);

    bench.put(Resource::BgpPeer(plain));
    assert_eq!(guard(&bench.changes()), Guard::default());
    assert!(!bench.sessions.secrets_changed(), "nobody needs it any more");
}

#[test]
fn a_range_has_one_password_for_peers_that_are_named_there_and_for_those_that_are_taken_in() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("leaves")).unwrap();
    let file = directory.path().join("leaves/key");
    std::fs::write(&file, "first").unwrap();
    let secret = Some(SecretKey { name: "leaves".to_owned(), key: "key".to_owned() });
    let settings = BgpSettings {
        groups: vec![PeerGroup {
            range: prefix("10.0.0.0/24"),
            accept: Some(Accept { as_numbers: Vec::new(), limit: 8 }),
            default_route: DefaultRoute::AsAny,
            next_hop: None,
            options: PeerOptions { password: secret, ..PeerOptions::default() },
        }],
        ..BgpSettings::default()
    };
    let mut bench = Bench::new();
    bench.sessions = Sessions::with_secrets(directory.path().to_owned()).with_ranges(settings.passwords());
    let mut neighbours = Neighbours::default();
    let leaf = "10.0.0.7".parse().unwrap();
    neighbours.take_in(&settings, leaf, AsNumber(65007), std::time::Instant::now()).unwrap();
    let mut desired = bench.calico.desired();
    join(&settings, &neighbours, &Aggregates::default(), &mut desired);
    let passwords = |changes: Vec<Input<'_>>| -> Vec<(String, Option<Vec<u8>>)> {
        let password = |guard: &Guard| guard.password.as_ref().map(|password| password.bytes().to_vec());
        let of = |input: &Input<'_>| match input {
            Input::PutPeer(config) => Some((config.address.to_string(), password(&config.guard))),
            _ => None,
        };
        changes.iter().filter_map(of).collect()
    };
    let both = |password: &[u8]| {
        ["10.0.0.7", "10.0.0.9"].map(|address| (address.to_owned(), Some(password.to_vec())))
    };
    assert_eq!(passwords(bench.sessions.changes(&desired)), both(b"first"));
    let of_range = |bench: &mut Bench| -> Vec<_> {
        bench
            .sessions
            .range_passwords()
            .into_iter()
            .map(|(range, password)| (range, password.bytes().to_vec()))
            .collect()
    };
    assert_eq!(of_range(&mut bench), [(prefix("10.0.0.0/24"), b"first".to_vec())]);
    std::fs::write(&file, "second").unwrap();
    assert!(bench.sessions.secrets_changed());
    assert_eq!(passwords(bench.sessions.changes(&desired)), both(b"second"));
    std::fs::remove_file(&file).unwrap();
    assert!(bench.sessions.secrets_changed());
    assert_eq!(of_range(&mut bench), [], "the kernel asks for none");
    bench.sessions.changes(&desired);
    assert_eq!(bench.sessions.held_back().len(), 2, "and nobody has a session without");

    // A range that nobody has connected from yet hears of its password, too.
    let mut alone = Sessions::with_secrets(directory.path().to_owned()).with_ranges(settings.passwords());
    alone.range_passwords();
    alone.changes(&Calico::new("a").desired());
    std::fs::write(&file, "third").unwrap();
    assert!(alone.secrets_changed());
    assert_eq!(alone.range_passwords().len(), 1);
}

#[test]
fn where_no_address_is_bound_the_sessions_own_end_is_the_next_hop() {
    let mut bench = Bench::new();
    let mut own = |bind| {
        let Resource::BgpPeer(tor) = peer("tor", "10.0.0.9:179") else { unreachable!() };
        bench.put(Resource::BgpPeer(BgpPeer { bind_to_node_address: bind, ..tor }));
        let mut changes = bench.changes();
        let Some(Input::PutPeer(config)) = changes.pop() else { panic!("{changes:?}") };
        config.self_next_hops.v4
    };
    assert_eq!(own(true), Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(own(false), None);
}

#[test]
fn a_session_with_options_carries_what_they_ask_for() {
    let mut bench = Bench::new();
    bench.put(Resource::Node(Node {
        name: "a".to_owned(),
        ipv4: Some("10.0.0.1/24".parse().unwrap()),
        ipv6: Some("fd00::1/64".parse().unwrap()),
        ..Node::default()
    }));
    bench.put(Resource::BgpPeer(BgpPeer {
        as_number: Some(AsNumber(65001)),
        filters: vec!["both".to_owned()],
        ..BgpPeer::new("tor", PeerTarget::Address("10.0.0.9:179".parse().unwrap()))
    }));
    let rule = |accept| model::BgpFilterRule {
        accept,
        cidr: None,
        from_peers: false,
        interface: None,
        internal_peer: None,
        community: None,
        as_path_prefix: Vec::new(),
        priority: None,
        operations: Vec::new(),
    };
    bench.put(Resource::BgpFilter(model::BgpFilter {
        name: "both".to_owned(),
        import_v4: vec![rule(true)],
        import_v6: vec![rule(false)],
        export_v4: Vec::new(),
        export_v6: Vec::new(),
    }));
    let mut desired = bench.calico.desired();
    let peer = desired.peers.values_mut().next().unwrap();
    peer.options = crate::peer_groups::PeerOptions {
        prefix_limit: Some(bgp::PrefixLimit::closing(7)),
        families: Family::ALL.to_vec(),
        send_paths: Some(SendPaths::UpTo(2)),
        long_lived_time: Some(Duration::from_secs(60)),
        role: Some(bgp::Role::Customer),
        ..crate::peer_groups::PeerOptions::default()
    };
    let changes = bench.sessions.changes(&desired);
    let Some(Input::PutPeer(config)) = changes.last() else { panic!("{changes:?}") };
    assert_eq!(config.families, Family::ALL);
    assert_eq!(config.self_next_hops.v6, Some("fd00::1".parse().unwrap()), "the session's own end is IPv4's");
    assert_eq!(config.prefix_limit, Some(bgp::PrefixLimit::closing(7)));
    assert_eq!((config.add_path, config.send_paths), (true, SendPaths::UpTo(2)));
    assert_eq!((config.role, config.long_lived_time), (Some(bgp::Role::Customer), Duration::from_secs(60)));
    let import: Vec<_> = config.import.rules.iter().map(|rule| (rule.matches.family, rule.action)).collect();
    assert_eq!(
        import,
        [(Some(Family::V4), FilterAction::Accept), (Some(Family::V6), FilterAction::Reject)],
        "each family has the rules that are about it"
    );
}

#[test]
fn the_kernels_routes_are_told_where_that_is_asked_for() {
    let mut bench = Bench::new();
    bench.changes();
    let mut desired = bench.calico.desired();
    desired.redistributed =
        ["192.0.2.0/24", "10.65.0.0/26"].map(|told| (prefix(told), Redistribute::Static)).into();
    let changes = bench.sessions.changes(&desired);
    assert_eq!(told(&changes), ["originate 192.0.2.0/24", "put 10.0.0.9"], "the block is our own already");
    let Some(Input::Originate(route)) = changes.first() else { panic!("{changes:?}") };
    assert_eq!((route.origin, route.local_pref), (Origin::Incomplete, Some(2_147_482_623)));
    let Some(Input::PutPeer(config)) = changes.last() else { panic!("{changes:?}") };
    let accepts = |rule: &FilterRule| {
        rule.action == FilterAction::Accept
            && rule.matches.originated
            && rule.matches.one_of.as_ref().is_some_and(|told| told.contains(&prefix("192.0.2.0/24")))
    };
    assert!(config.export.rules.iter().any(accepts));
    desired.redistributed.clear();
    assert_eq!(told(&bench.sessions.changes(&desired)), ["withdraw 192.0.2.0/24", "put 10.0.0.9"]);
}

/// Another daemon's route loses to BGP's, as in BIRD; peers and filters see it as any of ours.
#[test]
fn another_daemons_routes_lose_to_bgps_and_are_told_like_our_own() {
    let mut bench = Bench::new();
    bench.changes();
    let mut desired = bench.calico.desired();
    let told = prefix("192.0.2.0/24");
    desired.redistributed = [(told, Redistribute::Kernel)].into();
    let changes = bench.sessions.changes(&desired);
    let Some(Input::Originate(route)) = changes.first() else { panic!("{changes:?}") };
    assert_eq!((route.rank, route.local_pref), (Rank::AfterPeers, Some(NORMAL)));
    let Some(Input::PutPeer(config)) = changes.last() else { panic!("{changes:?}") };
    let are_about = |rule: &&FilterRule| {
        rule.matches.rank.is_none_or(|rank| rank == Rank::AfterPeers)
            && rule.matches.one_of.as_ref().is_some_and(|one_of| one_of.contains(&told))
    };
    let about: Vec<_> = config.export.rules.iter().filter(are_about).collect();
    let [rule] = about[..] else { panic!("{about:?}") };
    assert!(rule.action == FilterAction::Accept && rule.matches.originated && rule.operations.is_empty());
}

#[test]
fn the_boxs_own_routes_are_told_as_pools_and_filters_say() {
    let mut bench = Bench::new();
    bench.changes();
    let mut desired = bench.calico.desired();
    desired.own_routes = [(prefix("172.31.20.2/32"), "lo".to_owned())].into();
    let changes = bench.sessions.changes(&desired);
    assert_eq!(told(&changes), ["originate 172.31.20.2/32"], "nobody's rules are others");
    let Some(Input::Originate(route)) = changes.first() else { panic!("{changes:?}") };
    assert_eq!((route.origin, route.local_pref), (Origin::Igp, Some(2_147_482_623)));
    desired.own_routes.clear();
    assert_eq!(told(&bench.sessions.changes(&desired)), ["withdraw 172.31.20.2/32"]);
}

#[test]
fn who_joins_is_told_alone_and_as_if_all_were_told_anew() {
    for default_route in [DefaultRoute::AsAny, DefaultRoute::Always, DefaultRoute::Only] {
        let mut bench = Bench::new();
        let group = PeerGroup {
            range: prefix("10.1.0.0/24"),
            accept: Some(Accept { as_numbers: Vec::new(), limit: 3 }),
            default_route,
            next_hop: None,
            options: PeerOptions::default(),
        };
        let settings = BgpSettings { groups: vec![group], ..BgpSettings::default() };
        let mut neighbours = Neighbours::default();
        let mut desired = bench.calico.desired();
        join(&settings, &neighbours, &Aggregates::default(), &mut desired);
        bench.sessions.changes(&desired);
        for last in 1..=3 {
            let address = IpAddr::from([10, 1, 0, last]);
            neighbours.take_in(&settings, address, AsNumber(65001), std::time::Instant::now()).unwrap();
            let name = join_neighbour(&settings, &neighbours, address, &mut desired).unwrap();
            let inputs = told(&bench.sessions.changes_of(&name, &desired));
            let alone = vec![format!("put {address}")];
            let expected = match (default_route, last) {
                (DefaultRoute::AsAny, _) | (_, 2..) => alone,
                // It brings the default route that others are not to be told of.
                _ => vec![
                    "originate 0.0.0.0/0".to_owned(),
                    format!("put {address}"),
                    "put 10.0.0.9".to_owned(),
                ],
            };
            assert_eq!(inputs, expected, "{default_route:?}");
            assert_eq!(told(&bench.sessions.changes(&desired)), [""; 0], "all is told");
            let id = bench.sessions.at_address(address).unwrap();
            assert_eq!(bench.sessions.desired(id).map(|peer| &peer.name), Some(&name));
        }
        let mut at_once = bench.calico.desired();
        join(&settings, &neighbours, &Aggregates::default(), &mut at_once);
        assert_eq!(at_once, desired);

        let gone = bench.calico.desired();
        assert_eq!(told(&bench.sessions.changes(&gone)).iter().filter(|told| *told == "remove").count(), 3);
        assert_eq!(bench.sessions.at_address("10.1.0.1".parse().unwrap()), None);
    }
}

/// Another node with a block in a pool of VXLAN.
fn behind_vxlan(bench: &mut Bench) {
    bench.put(Resource::IpPool(IpPool {
        name: "overlay".to_owned(),
        cidr: prefix("10.66.0.0/16"),
        ipip_mode: EncapMode::Never,
        vxlan_mode: EncapMode::Always,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export: false,
    }));
    let node = |name: &str, host: u8| Node {
        name: name.to_owned(),
        ipv4: Some(format!("10.0.0.{host}/24").parse().unwrap()),
        vxlan_tunnel_addr: Some([10, 66, host, 0].into()),
        ..Node::default()
    };
    bench.put(Resource::Node(node("a", 1)));
    bench.put(Resource::Node(node("b", 2)));
    bench.put(Resource::BlockAffinity(BlockAffinity { node: "b".to_owned(), ..block("10.66.2.0/26") }));
}

/// What a peer at this address may be told of another node's block that only the datastore brings.
fn is_told_of_others(changes: &[Input<'_>], address: &str) -> bool {
    let config = changes.iter().find_map(|input| match input {
        Input::PutPeer(config) if config.address == address.parse::<IpAddr>().unwrap() => Some(config),
        _ => None,
    });
    let about = |rule: &&FilterRule| {
        let matches = &rule.matches;
        matches.prefix.is_none_or(|set| set.prefix.covers(prefix("10.66.2.0/26")) && set.max_len >= 26)
            && matches.rank.is_none_or(|wanted| wanted == Rank::StandIn)
            && matches.one_of.as_ref().is_none_or(|among| among.contains(&prefix("10.66.2.0/26")))
            && !matches.learned
    };
    let filter = &config.unwrap().export;
    filter.rules.iter().find(about).map_or(filter.default, |rule| rule.action) == FilterAction::Accept
}

#[test]
fn peers_in_other_ases_are_told_of_blocks_that_the_datastore_brings_and_ours_are_not() {
    let mut bench = Bench::new();
    behind_vxlan(&mut bench);
    let changes = bench.changes();
    let of_others: Vec<_> = changes
        .iter()
        .filter_map(|input| match input {
            Input::Originate(route) if route.prefix == prefix("10.66.2.0/26") => {
                Some((route.rank, route.local_pref))
            }
            _ => None,
        })
        .collect();
    assert_eq!(of_others, [(Rank::StandIn, Some(NORMAL))], "any path that BGP brings is better");
    assert!(is_told_of_others(&changes, "10.0.0.9"), "the ToR");
    assert!(!is_told_of_others(&changes, "10.0.0.2"), "the node of the mesh");
}

#[test]
fn where_there_is_no_peer_in_another_as_only_our_own_is_originated() {
    let mut bench = Bench::new();
    behind_vxlan(&mut bench);
    bench.changes();
    bench.remove(Key::BgpPeer("tor".to_owned()));
    assert_eq!(told(&bench.changes()), ["withdraw 10.66.2.0/26", "remove"]);
}

#[test]
fn a_filter_by_interface_keeps_back_what_is_behind_tunnels() {
    for (interface, told) in [("vxlan.calico", false), ("*.calico", false), ("tunl0", true)] {
        let mut bench = Bench::new();
        behind_vxlan(&mut bench);
        bench.put(Resource::BgpFilter(BgpFilter {
            name: "f".to_owned(),
            export_v4: vec![BgpFilterRule {
                accept: false,
                cidr: None,
                from_peers: false,
                interface: Some(interface.to_owned()),
                internal_peer: None,
                community: None,
                as_path_prefix: Vec::new(),
                priority: None,
                operations: Vec::new(),
            }],
            ..BgpFilter::default()
        }));
        let Resource::BgpPeer(tor) = peer("tor", "10.0.0.9:179") else { panic!("a peer") };
        bench.put(Resource::BgpPeer(BgpPeer { filters: vec!["f".to_owned()], ..tor }));
        assert_eq!(is_told_of_others(&bench.changes(), "10.0.0.9"), told, "{interface}");
    }
}
