//! What keeps routes where they belong: default deny (RFC 8212), roles (RFC 9234), well-known communities (RFC 1997,
//! RFC 7999).

mod support;

use bgp::wire::attributes::{BLACKHOLE, NO_EXPORT, code};
use bgp::wire::capability::{Capability, Role};
use bgp::wire::notification::Notification;
use bgp::{
    Filter, FilterAction, FilterRule, Ineligible, Input, OriginatedRoute, Output, PeerConfig, PeerState,
    Standing,
};
use model::AsNumber;
use support::{Actor, Bench, EBGP, IBGP, OBSERVER, prefix, unhex, update};

const ROUTE: &str = "192.0.2.0/24";

/// What a test says of a peer's configuration.
type Configure<'a> = &'a dyn Fn(&mut PeerConfig);

/// A bench whose peers are configured so.
fn bench(peers: &[(Actor, Configure<'_>)]) -> Bench {
    let mut bench = Bench::new();
    for (actor, configure) in peers {
        let mut config = Bench::config(*actor);
        configure(&mut config);
        bench.give(Input::PutPeer(config));
        bench.establish_with(*actor, &actor.open());
    }
    bench.take();
    bench
}

fn plain(_: &mut PeerConfig) {}

/// 192.0.2.0/24 of AS 65001 with these attributes besides.
fn announce(more: &str) -> Vec<u8> {
    update(&[], &unhex(&format!("4001010040020602010000fde94003040a000002{more}")), &unhex("18c00002"))
}

fn standing(bench: &Bench) -> Option<Standing> {
    bench.speaker.routes(prefix(ROUTE)).first().map(|route| route.standing)
}

fn otc(bench: &Bench) -> Option<u32> {
    bench.speaker.routes(prefix(ROUTE))[0].attributes.only_to_customer()
}

/// ONLY_TO_CUSTOMER as the actor was told it; `None` where it wasn't told of any route.
fn told_otc(bench: &Bench, actor: Actor) -> Option<Option<u32>> {
    let (_, body) = bench.sent(actor).into_iter().find(|(_, body)| body.ends_with(&unhex("18c00002")))?;
    let at = body.windows(3).position(|window| window == [0xc0, code::ONLY_TO_CUSTOMER, 4]);
    Some(at.map(|at| u32::from_be_bytes(body[at + 3..at + 7].try_into().expect("four octets"))))
}

#[test]
fn another_as_gets_and_gives_nothing_before_a_policy_says_so() {
    let required = |config: &mut PeerConfig| config.policy_required = true;
    let mut bench = bench(&[(EBGP, &required), (IBGP, &required), (OBSERVER, &plain)]);
    bench.receive(EBGP, &announce(""));
    assert_eq!(standing(&bench), Some(Standing::Ineligible(Ineligible::Filtered)));
    bench.give(Input::Originate(OriginatedRoute::new(prefix("198.51.100.0/24"))));
    assert!(bench.sent(EBGP).is_empty());
    assert_eq!(bench.sent(IBGP).len(), 1, "within our AS nothing is required");
    assert_eq!(bench.sent(OBSERVER).len(), 1, "nor where it was taken back");
    // A policy, even one that accepts everything.
    let accept = Filter { rules: vec![FilterRule::any(FilterAction::Accept)], default: FilterAction::Reject };
    let mut config = Bench::config(EBGP);
    (config.policy_required, config.import, config.export) = (true, accept.clone(), accept);
    bench.give(Input::PutPeer(config));
    assert_eq!(bench.state(EBGP), PeerState::Established);
    assert_eq!(standing(&bench), Some(Standing::Best));
    assert_eq!(bench.sent(EBGP).len(), 1);
}

#[test]
fn a_new_peer_in_another_as_needs_a_policy() {
    assert!(PeerConfig::new(EBGP.id, EBGP.address.into(), model::AsNumber(EBGP.as_number)).policy_required);
}

#[test]
fn roles_that_do_not_fit_are_refused() {
    let open = |roles: &[Role]| {
        let mut open = EBGP.open();
        open.capabilities.extend(roles.iter().copied().map(Capability::Role));
        open
    };
    for (ours, strict, theirs, fits) in [
        (Some(Role::Customer), false, &[Role::Provider][..], true),
        (Some(Role::RouteServer), false, &[Role::RouteServerClient], true),
        (Some(Role::Peer), true, &[Role::Peer, Role::Peer], true),
        (Some(Role::Customer), false, &[Role::Customer], false),
        (Some(Role::Customer), false, &[Role::Provider, Role::Peer], false),
        (Some(Role::Customer), false, &[], true),
        (Some(Role::Customer), true, &[], false),
        (None, false, &[Role::Customer], true),
    ] {
        let mut bench = Bench::new();
        let mut config = Bench::config(EBGP);
        (config.role, config.strict_role) = (ours, strict);
        bench.give(Input::PutPeer(config));
        bench.connect(EBGP);
        let mut bytes = Vec::new();
        open(theirs).emit(&mut bytes);
        bench.receive(EBGP, &bytes);
        let refused = bench.notification(EBGP);
        let wanted = (!fits).then(|| Notification::new(2, 11));
        assert_eq!(refused, wanted, "{ours:?} strict {strict} {theirs:?}");
    }
}

#[test]
fn a_role_that_is_not_assigned_fits_none() {
    let mut bench = Bench::new();
    let mut config = Bench::config(EBGP);
    config.role = Some(Role::Customer);
    bench.give(Input::PutPeer(config));
    bench.connect(EBGP);
    let (mut open, mut bytes) = (EBGP.open(), Vec::new());
    open.capabilities.push(Capability::Other { code: 9, value: vec![5] });
    open.emit(&mut bytes);
    bench.receive(EBGP, &bytes);
    assert_eq!(bench.notification(EBGP), Some(Notification::new(2, 11)));
}

#[test]
fn what_came_down_or_across_does_not_go_up_or_across_again() {
    // The peer's role is the counterpart of ours.
    let role = |role| move |config: &mut PeerConfig| config.role = Some(role);
    let otc_of = |number: u32| format!("c02304{number:08x}");
    // Ours towards who announces; the attribute it sends; what we hold; is the route a leak?
    for (ours, sent, held, leak) in [
        (Role::Customer, None, Some(65001), false),
        (Role::Customer, Some(64999), Some(64999), false),
        (Role::RouteServerClient, None, Some(65001), false),
        (Role::Peer, None, Some(65001), false),
        (Role::Peer, Some(65001), Some(65001), false),
        (Role::Peer, Some(64999), Some(64999), true),
        (Role::Provider, None, None, false),
        (Role::Provider, Some(65001), Some(65001), true),
        (Role::RouteServer, Some(64999), Some(64999), true),
    ] {
        let mut bench = bench(&[(EBGP, &role(ours)), (OBSERVER, &plain)]);
        bench.receive(EBGP, &announce(&sent.map(otc_of).unwrap_or_default()));
        assert_eq!(otc(&bench), held, "{ours:?} {sent:?}");
        let expected = if leak { Standing::Ineligible(Ineligible::RouteLeak) } else { Standing::Best };
        assert_eq!(standing(&bench), Some(expected), "{ours:?} {sent:?}");
        assert_eq!(bench.status(EBGP).errors.route_leaks, u64::from(leak));
        // Without a role towards the observer the attribute passes as it is.
        assert_eq!(told_otc(&bench, OBSERVER), (!leak).then_some(held), "{ours:?} {sent:?}");
    }
    // Ours towards whom we tell; what it is told of a route without and with the attribute.
    for (ours, without, with) in [
        (Role::Provider, Some(Some(65000)), Some(Some(64999))),
        (Role::RouteServer, Some(Some(65000)), Some(Some(64999))),
        (Role::Peer, Some(Some(65000)), None),
        (Role::Customer, Some(None), None),
        (Role::RouteServerClient, Some(None), None),
    ] {
        for (sent, wanted) in [(None, without), (Some(64999), with)] {
            let mut bench = bench(&[(EBGP, &plain), (OBSERVER, &role(ours))]);
            bench.receive(EBGP, &announce(&sent.map(otc_of).unwrap_or_default()));
            assert_eq!(told_otc(&bench, OBSERVER), wanted, "{ours:?} {sent:?}");
        }
    }
}

#[test]
fn well_known_communities_bound_how_far_a_route_goes() {
    for (community, within, outside) in [
        ("ffffff01", true, false),
        ("ffffff02", false, false),
        ("ffffff03", true, false),
        ("ffff029a", true, true),
        ("fde80001", true, true),
    ] {
        let mut bench = bench(&[(EBGP, &plain), (IBGP, &plain), (OBSERVER, &plain)]);
        bench.receive(EBGP, &announce(&format!("c00804{community}")));
        assert_eq!(!bench.sent(IBGP).is_empty(), within, "{community}");
        assert_eq!(!bench.sent(OBSERVER).is_empty(), outside, "{community}");
    }
}

#[test]
fn a_blackhole_is_heeded_where_the_peer_may_ask_for_it_and_stays_in_our_as() {
    for heeded in [false, true] {
        let blackhole = move |config: &mut PeerConfig| config.blackhole = heeded;
        let mut bench = bench(&[(EBGP, &blackhole), (IBGP, &plain), (OBSERVER, &plain)]);
        bench.receive(EBGP, &announce("c00804ffff029a"));
        let discards = bench.out.iter().find_map(|output| match output {
            Output::RouteChanged { paths, .. } => Some(paths[0].discard),
            _ => None,
        });
        assert_eq!(discards, Some(heeded));
        let attributes = &bench.speaker.routes(prefix(ROUTE))[0].attributes;
        assert!(attributes.has_community(BLACKHOLE));
        assert_eq!(attributes.has_community(NO_EXPORT), heeded);
        assert_eq!(bench.sent(IBGP).len(), 1);
        assert_eq!(bench.sent(OBSERVER).is_empty(), heeded);
    }
}

#[test]
fn a_links_bandwidth_is_what_its_routes_tell_or_else_what_we_know_of_it() {
    for (known, told, counts) in [
        (None, "", None),
        (Some(125_000_000), "", Some(125_000_000)),
        // A float of 1,000 bytes a second.
        (Some(125_000_000), "c010084004fde9447a0000", Some(1000)),
    ] {
        let link = move |config: &mut PeerConfig| config.link_bandwidth = known;
        let mut bench = bench(&[(EBGP, &link), (IBGP, &plain), (OBSERVER, &plain)]);
        bench.receive(EBGP, &announce(told));
        let path = bench.out.iter().find_map(|output| match output {
            Output::RouteChanged { paths, .. } => Some(paths[0].bandwidth),
            _ => None,
        });
        assert_eq!(path, Some(counts));
        let tells = |actor| {
            let (_, body) = bench.sent(actor).pop().expect("an UPDATE");
            body.windows(2).any(|window| window == [0x40, 4])
        };
        assert_eq!(tells(IBGP), counts.is_some(), "our AS is told");
        assert!(!tells(OBSERVER), "another AS isn't");
    }
}

#[test]
fn communities_of_all_kinds_pass_as_they_came() {
    let mut bench = bench(&[(EBGP, &plain), (OBSERVER, &plain)]);
    let standard = "c00808fde80001fde80002";
    let extended = "c010080002fde900000064";
    let large = "c0200c0000fde90000000100000002";
    bench.receive(EBGP, &announce(&format!("{standard}{extended}{large}")));
    let (_, body) = bench.sent(OBSERVER).pop().expect("an UPDATE");
    for attribute in [standard, extended, large] {
        let wanted = unhex(attribute);
        assert!(body.windows(wanted.len()).any(|window| window == wanted), "{attribute}");
    }
}

#[test]
fn a_loop_is_the_as_that_the_peer_is_shown() {
    let path = |ases: &[u32]| {
        let numbers: String = ases.iter().map(|number| format!("{number:08x}")).collect();
        let len = 2 + 4 * ases.len();
        let attributes = format!("400101004002{len:02x}02{:02x}{numbers}4003040a000002", ases.len());
        update(&[], &unhex(&attributes), &unhex("18c00002"))
    };
    let shown_another = |config: &mut PeerConfig| config.local_as = Some(AsNumber(65100));
    let shown_another_once = |config: &mut PeerConfig| {
        config.local_as = Some(AsNumber(65100));
        config.allowed_own_as = 1;
    };
    // The speaker's own AS is 65000.
    for (configure, ases, is_loop) in [
        (&plain as Configure<'_>, &[65001, 65000][..], true),
        (&shown_another, &[65001, 65000], false),
        (&shown_another, &[65001, 65100], true),
        (&shown_another_once, &[65001, 65100], false),
        (&shown_another_once, &[65001, 65100, 65100], true),
    ] {
        let mut bench = bench(&[(EBGP, configure)]);
        bench.receive(EBGP, &path(ases));
        let expected = if is_loop { Standing::Ineligible(Ineligible::AsLoop) } else { Standing::Best };
        assert_eq!(standing(&bench), Some(expected), "{ases:?}");
    }
}
