//! The whole table at work: real listeners and senders in namespaces, and every way into and out of a host.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use model::{DenyAction, FailsafePort, LogRate, Protocol};
use policy::resolve::{Directions, EndpointPolicy};
use policy::rule::{Action, AfterTiers, Checks, Policy, PortRange, Rule, Tier, TierDefault};

use super::enforcing::Table;
use super::render::{Rendering, render};
use super::ruleset::{About, Line};
use super::{Enforcer, HostEndpointPolicy, HostPolicy, Interface, Mark, Settings, TABLE, remove};
use crate::nft;
use crate::status::{Answer, HostPolicyStatus};
use crate::sysctl;
use crate::testing::{Neighborhood, has, in_namespace, ip, run, uninterrupted};

/// How long an answer may take that will come.
const SURELY: Duration = Duration::from_secs(60);
/// How long to wait for one that won't.
const IN_VAIN: Duration = Duration::from_millis(300);

fn tcp(action: Action, port: u16) -> Rule {
    at_port(action, 6, port)
}

fn at_port(action: Action, protocol: u8, port: u16) -> Rule {
    let mut rule = Rule { protocol: Some(protocol), ..Rule::any(action) };
    rule.destination.ports = vec![PortRange { first: port, last: port }];
    rule
}

/// One tier with one policy.
fn tiers(default: TierDefault, rules: Vec<Rule>) -> Vec<Tier> {
    let policy = Policy { name: "some".to_owned(), rules };
    vec![Tier { name: "default".to_owned(), policies: vec![policy.into()], default }]
}

/// As normal policy is: what no rule allows is dropped.
fn only(rules: Vec<Rule>) -> Checks {
    Checks { tiers: tiers(TierDefault::Deny, rules), after: AfterTiers::Profiles(Vec::new()) }
}

/// As untracked and pre-DNAT policy is: what no rule decides is left to others.
fn first(rules: Vec<Rule>) -> Checks {
    Checks { tiers: tiers(TierDefault::Pass, rules), after: AfterTiers::NoMatch }
}

/// Neither policy nor profile.
fn nothing() -> Checks {
    Checks { tiers: Vec::new(), after: AfterTiers::Profiles(Vec::new()) }
}

fn everything() -> Checks {
    only(vec![Rule::any(Action::Allow)])
}

fn directions(ingress: Checks, egress: Checks) -> Directions {
    Directions { ingress: Some(Arc::new(ingress)), egress: Some(Arc::new(egress)) }
}

/// Without any policy: but for failsafe ports, nothing passes.
fn closed() -> EndpointPolicy {
    EndpointPolicy { normal: directions(nothing(), nothing()), ..EndpointPolicy::default() }
}

/// Allows whatever it is asked.
fn open() -> EndpointPolicy {
    EndpointPolicy { normal: directions(everything(), everything()), ..EndpointPolicy::default() }
}

/// Endpoints with their policies, by interface.
fn policy(endpoints: &[(&str, &EndpointPolicy)]) -> HostPolicy {
    let endpoint = |(interface, policy): &(&str, &EndpointPolicy)| HostEndpointPolicy {
        name: format!("node1-{interface}"),
        interface: match *interface {
            "*" => Interface::Every,
            name => Interface::Named(name.to_owned()),
        },
        policy: Arc::new(EndpointPolicy::clone(policy)),
    };
    HostPolicy { endpoints: endpoints.iter().map(endpoint).collect(), ..HostPolicy::default() }
}

fn enforce(policy: &HostPolicy) -> Table {
    let mut table = Table::default();
    table.want(render(policy));
    let status = table.status();
    assert_eq!(status.refused, None);
    table
}

/// A host, which is this thread's namespace, and somebody on its link `up0`.
fn host_and_outside() -> Neighborhood {
    link("up0", 1)
}

/// A link of this namespace, with the host as `.1` and somebody else as `.2`.
fn link(name: &str, net: u8) -> Neighborhood {
    let outside = Neighborhood::behind(name, "eth0");
    ip(&format!("addr add 192.0.{net}.1/24 dev {name}"));
    ip(&format!("addr add fd00:{net}::1/64 dev {name} nodad"));
    outside.ip("link set lo up");
    outside.ip(&format!("addr add 192.0.{net}.2/24 dev eth0"));
    outside.ip(&format!("addr add fd00:{net}::2/64 dev eth0 nodad"));
    outside.ip(&format!("route add default via 192.0.{net}.1"));
    outside.ip(&format!("-6 route add default via fd00:{net}::1"));
    outside
}

/// Takes connections, of both families.
fn listen(port: u16) -> TcpListener {
    TcpListener::bind(("::", port)).unwrap()
}

fn connect(addr: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
    let addr: IpAddr = addr.parse().unwrap();
    TcpStream::connect_timeout(&SocketAddr::new(addr, port), within)
}

/// Does a connection come about?
#[track_caller]
fn reaches(from: &Neighborhood, addr: &str, port: u16) {
    let outcome = from.inside(|| connect(addr, port, SURELY).map(drop));
    assert!(outcome.is_ok(), "{addr} port {port}: {outcome:?}");
}

/// Does nothing come back?
#[track_caller]
fn is_kept_from(from: &Neighborhood, addr: &str, port: u16) {
    let outcome = from.inside(|| connect(addr, port, IN_VAIN).map(drop));
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut, "{addr} port {port}");
}

/// Packets that something has counted.
fn packets(status: &HostPolicyStatus, class: &str, direction: &str, what: &str) -> u64 {
    let rows = status.rules.iter().filter(|row| {
        (row.class.as_str(), row.direction.as_str(), row.what.as_str()) == (class, direction, what)
    });
    rows.map(|row| row.packets.expect("a counter")).sum()
}

/// Runs a test in a namespace, where nft is there.
fn with_nft(test: impl FnOnce() + Send + 'static) {
    if has("nft") {
        in_namespace(test);
    }
}

#[test]
fn an_endpoint_without_policy_is_closed_but_for_failsafe_ports() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listeners = [listen(22), listen(8080)];
        for addr in ["192.0.1.1", "fd00:1::1"] {
            reaches(&outside, addr, 8080);
        }
        let mut table = enforce(&policy(&[("up0", &closed())]));
        // Neighbour discovery begins anew.
        outside.ip("neigh flush dev eth0");
        ip("neigh flush dev up0");
        for addr in ["192.0.1.1", "fd00:1::1"] {
            reaches(&outside, addr, 22);
            is_kept_from(&outside, addr, 8080);
        }
        let status = table.status();
        assert!(packets(&status, "normal", "ingress", "failsafe") >= 2, "{status:#?}");
        assert!(packets(&status, "normal", "ingress", "no profile") >= 2, "{status:#?}");
        // Outwards as well: port 53 of UDP is a failsafe port, that of TCP isn't.
        let (resolver, _listener) = outside.inside(|| (UdpSocket::bind("192.0.1.2:53").unwrap(), listen(53)));
        resolver.set_read_timeout(Some(SURELY)).unwrap();
        UdpSocket::bind("192.0.1.1:0").unwrap().send_to(b"question", "192.0.1.2:53").unwrap();
        uninterrupted(|| resolver.recv(&mut [0; 64])).expect("the question comes");
        assert!(connect("192.0.1.2", 53, IN_VAIN).is_err());
        table.want(render(&HostPolicy::default()));
        assert_eq!(nft::has_table(TABLE), Ok(false));
        for addr in ["192.0.1.1", "fd00:1::1"] {
            reaches(&outside, addr, 8080);
        }
    });
}

#[test]
fn what_leaves_the_cluster_has_the_dscp_of_its_sources_endpoint() {
    with_nft(|| {
        let outside = host_and_outside();
        outside.ip("addr add 10.65.7.2/32 dev eth0");
        ip("route add 10.65.7.2/32 via 192.0.1.2 dev up0");
        ip("addr add 192.0.1.3/24 dev up0");
        outside.inside(|| {
            nft::apply(
                "table inet seen {\n counter marked {}\n counter plain {}\n chain in {\n  \
                 type filter hook input priority 0 ;\n  meta l4proto 17 ip dscp 46 counter name marked\n  \
                 meta l4proto 17 ip6 dscp 46 counter name marked\n  meta l4proto 17 ip dscp 0 counter name plain\n  \
                 meta l4proto 17 ip6 dscp 0 counter name plain\n }\n}\n",
            )
            .unwrap();
        });
        let counted = |name: &str| {
            let list = outside.inside(|| run("nft", &format!("-j list counter inet seen {name}")));
            let list: serde_json::Value = serde_json::from_str(&list).unwrap();
            let counters = list["nftables"].as_array().unwrap().iter();
            counters.filter_map(|object| object["counter"]["packets"].as_u64()).sum::<u64>()
        };
        let sources = ["192.0.1.1", "fd00:1::1"].map(|addr| addr.parse().unwrap()).to_vec();
        let pools = vec!["10.65.0.0/16".parse().unwrap()];
        let marks = vec![Mark { sources, dscp: 46 }];
        let _table = enforce(&HostPolicy { marks, pools, ..policy(&[("up0", &open())]) });
        for (from, to, is_marked) in [
            ("192.0.1.1", "192.0.1.2", true),
            ("fd00:1::1", "fd00:1::2", true),
            // To a pool, and from an address that no endpoint expects.
            ("192.0.1.1", "10.65.7.2", false),
            ("192.0.1.3", "192.0.1.2", false),
        ] {
            let addr = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
            // A port that was left may still be held by a program that another test is about to start.
            let theirs = outside.inside(|| UdpSocket::bind(addr(to, 0)).unwrap());
            let port = theirs.local_addr().unwrap().port();
            theirs.set_read_timeout(Some(SURELY)).unwrap();
            let before = (counted("marked"), counted("plain"));
            UdpSocket::bind(addr(from, 0)).unwrap().send_to(b"x", addr(to, port)).unwrap();
            uninterrupted(|| theirs.recv(&mut [0; 8])).expect("it comes");
            let marked = (before.0 + u64::from(is_marked), before.1 + u64::from(!is_marked));
            assert_eq!((counted("marked"), counted("plain")), marked, "{from} to {to}");
        }
    });
}

#[test]
fn what_the_host_begins_is_asked_and_answered_freely() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listener = outside.inside(|| [listen(80), listen(81)]);
        let mut up0 = closed();
        up0.normal.egress = Some(Arc::new(only(vec![tcp(Action::Allow, 80)])));
        let table = enforce(&policy(&[("up0", &up0)]));
        connect("192.0.1.2", 80, SURELY).unwrap();
        connect("fd00:1::2", 80, SURELY).unwrap();
        assert!(connect("192.0.1.2", 81, IN_VAIN).is_err());
        let status = table.status();
        assert!(packets(&status, "normal", "egress", "rule 0") >= 2, "{status:#?}");
        assert!(packets(&status, "normal", "ingress", "established") >= 2);
    });
}

#[test]
fn failsafe_ports_may_be_of_one_network_and_may_be_none() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listener = listen(22);
        let of = |net: &str| {
            let failsafe =
                FailsafePort { protocol: Protocol::TCP, port: 22, net: Some(net.parse().unwrap()) };
            let settings = Settings { failsafe_inbound: vec![failsafe], ..Settings::default() };
            HostPolicy { settings, ..policy(&[("up0", &closed())]) }
        };
        let mut table = enforce(&of("192.0.1.0/24"));
        reaches(&outside, "192.0.1.1", 22);
        is_kept_from(&outside, "fd00:1::1", 22);
        table.want(render(&of("fd00:1::/64")));
        reaches(&outside, "fd00:1::1", 22);
        is_kept_from(&outside, "192.0.1.1", 22);
        let settings =
            Settings { failsafe_inbound: Vec::new(), failsafe_outbound: Vec::new(), ..Settings::default() };
        table.want(render(&HostPolicy { settings, ..policy(&[("up0", &closed())]) }));
        is_kept_from(&outside, "192.0.1.1", 22);
        assert_eq!(table.status().refused, None);
    });
}

#[test]
fn every_other_interface_is_asked_by_the_endpoint_of_all_but_not_the_loopback() {
    with_nft(|| {
        let (named, other) = (link("up0", 1), link("up1", 2));
        let _listener = listen(8080);
        enforce(&policy(&[("up0", &open()), ("*", &closed())]));
        reaches(&named, "192.0.1.1", 8080);
        is_kept_from(&other, "192.0.2.1", 8080);
        is_kept_from(&other, "fd00:2::1", 8080);
        connect("127.0.0.1", 8080, SURELY).unwrap();
        connect("::1", 8080, SURELY).unwrap();
    });
}

#[test]
fn untracked_policy_is_asked_in_both_directions_and_leaves_no_connection() {
    with_nft(|| {
        let outside = host_and_outside();
        let server = UdpSocket::bind("192.0.1.1:5000").unwrap();
        server.set_read_timeout(Some(SURELY)).unwrap();
        let asks = |within: Duration| {
            outside.inside(|| {
                let client = UdpSocket::bind("192.0.1.2:0").unwrap();
                client.set_read_timeout(Some(within)).unwrap();
                client.send_to(b"question", "192.0.1.1:5000").unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let asked = uninterrupted(|| server.recv_from(&mut [0; 64]));
                        let (_, from) = asked.expect("the question comes");
                        // The answer may be refused on the way out.
                        let _ = server.send_to(b"answer", from);
                    });
                    uninterrupted(|| client.recv(&mut [0; 64])).is_ok()
                })
            })
        };
        let mut up0 = closed();
        up0.untracked.ingress = Some(Arc::new(first(vec![at_port(Action::Allow, 17, 5000)])));
        let mut table = enforce(&policy(&[("up0", &up0)]));
        assert!(!asks(IN_VAIN), "nobody has allowed the answer");
        let mut answers = Rule { protocol: Some(17), ..Rule::any(Action::Allow) };
        answers.source.ports = vec![PortRange { first: 5000, last: 5000 }];
        up0.untracked.egress = Some(Arc::new(first(vec![answers])));
        table.want(render(&policy(&[("up0", &up0)])));
        assert!(asks(SURELY));
        let status = table.status();
        assert_eq!(packets(&status, "untracked", "egress", "rule 0"), 1, "{status:#?}");
        assert_eq!(packets(&status, "normal", "ingress", "established"), 0, "{status:#?}");
    });
}

#[test]
fn untracked_denial_leaves_failsafe_ports_and_their_answers() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listeners = [listen(22), listen(8080)];
        let _theirs = outside.inside(|| listen(179));
        let mut up0 = open();
        let denial = || first(vec![Rule::any(Action::Deny)]);
        up0.untracked = directions(denial(), denial());
        enforce(&policy(&[("up0", &up0)]));
        for (theirs, ours) in [("192.0.1.2", "192.0.1.1"), ("fd00:1::2", "fd00:1::1")] {
            reaches(&outside, ours, 22);
            is_kept_from(&outside, ours, 8080);
            connect(theirs, 179, SURELY).unwrap();
        }
    });
}

#[test]
fn pre_dnat_policy_sees_the_destination_as_it_was_sent() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listeners = [listen(80), listen(22)];
        nft::apply(
            "table inet theirs {\n chain pre {\n  type nat hook prerouting priority dstnat ;\n  \
             tcp dport { 8080, 8081 } redirect to :80\n }\n}\n",
        )
        .unwrap();
        let mut up0 = open();
        let deny = vec![tcp(Action::Deny, 8081), tcp(Action::Deny, 22)];
        up0.pre_dnat = Some(Arc::new(first(deny.clone())));
        let mut table = enforce(&policy(&[("up0", &up0)]));
        reaches(&outside, "192.0.1.1", 8080);
        is_kept_from(&outside, "192.0.1.1", 8081);
        reaches(&outside, "192.0.1.1", 80);
        reaches(&outside, "192.0.1.1", 22);
        // What it allows, normal policy isn't asked about.
        up0.pre_dnat = Some(Arc::new(first([deny, vec![tcp(Action::Allow, 8080)]].concat())));
        up0.normal = closed().normal;
        table.want(render(&policy(&[("up0", &up0)])));
        reaches(&outside, "192.0.1.1", 8080);
        is_kept_from(&outside, "192.0.1.1", 80);
    });
}

#[test]
fn what_the_kernel_forwards_is_asked_at_both_ends_and_free_where_nobody_asks() {
    with_nft(|| {
        let (left, right) = (link("up0", 1), link("up1", 2));
        sysctl::enable_forwarding([]).unwrap();
        let _listeners = right.inside(|| [listen(80), listen(81), listen(82)]);
        let (mut near, mut far) = (closed(), closed());
        let mut table = enforce(&policy(&[("up0", &near), ("up1", &far)]));
        for port in [80, 81, 82] {
            reaches(&left, "192.0.2.2", port);
        }
        near.forward.ingress = Some(Arc::new(only(vec![tcp(Action::Allow, 80), tcp(Action::Allow, 81)])));
        far.forward.egress = Some(Arc::new(only(vec![tcp(Action::Allow, 80), tcp(Action::Allow, 82)])));
        table.want(render(&policy(&[("up0", &near), ("up1", &far)])));
        reaches(&left, "192.0.2.2", 80);
        reaches(&left, "fd00:2::2", 80);
        is_kept_from(&left, "192.0.2.2", 81);
        is_kept_from(&left, "192.0.2.2", 82);
        // Failsafe ports are the host's own.
        is_kept_from(&left, "192.0.2.2", 22);
    });
}

#[test]
fn a_rejected_sender_is_told() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listener = listen(8080);
        let settings = Settings { deny: DenyAction::Reject, ..Settings::default() };
        let mut up0 = closed();
        // The answer of the rejection passes as related; before connections, nothing is rejected.
        up0.untracked.ingress = Some(Arc::new(first(vec![at_port(Action::Deny, 6, 8081)])));
        enforce(&HostPolicy { settings, ..policy(&[("up0", &up0)]) });
        for addr in ["192.0.1.1", "fd00:1::1"] {
            let outcome = outside.inside(|| connect(addr, 8080, SURELY).map(drop));
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{addr}");
            is_kept_from(&outside, addr, 8081);
        }
    });
}

#[test]
fn what_the_host_sends_is_asked_where_translation_has_sent_it() {
    with_nft(|| {
        let (_left, right) = (link("up0", 1), link("up1", 2));
        let _listeners = right.inside(|| [listen(80), listen(81)]);
        nft::apply(
            "table inet theirs {\n chain out {\n  type nat hook output priority -100 ;\n  \
             ip daddr 192.0.1.9 dnat ip to 192.0.2.2\n }\n}\n",
        )
        .unwrap();
        let mut far = closed();
        far.normal.egress = Some(Arc::new(only(vec![tcp(Action::Allow, 80)])));
        for deny in [DenyAction::Drop, DenyAction::Reject] {
            let settings = Settings { deny, ..Settings::default() };
            enforce(&HostPolicy { settings, ..policy(&[("up0", &closed()), ("up1", &far)]) });
            connect("192.0.1.9", 80, SURELY).unwrap();
            assert!(connect("192.0.1.9", 81, IN_VAIN).is_err(), "{deny:?}");
        }
    });
}

#[test]
fn what_comes_by_the_host_port_is_judged_already_or_belongs_to_the_interface_of_the_answer() {
    with_nft(|| {
        let _outside = link("up0", 1);
        let walk = link("tortie0", 3);
        let _listener = listen(50_000);
        // A workload, and somebody out there whose packets the walk hands over.
        walk.ip("addr add 10.65.0.2/32 dev eth0");
        walk.ip("addr add 192.0.1.77/32 dev eth0");
        ip("route add 10.65.0.2/32 via 192.0.3.2 dev tortie0");
        let reaches_from = |source: &str, within: Duration| {
            walk.inside(|| {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into()).unwrap();
                socket
                    .connect_timeout(&"192.0.3.1:50000".parse::<SocketAddr>().unwrap().into(), within)
                    .is_ok()
            })
        };
        let workloads = vec!["10.65.0.2/32".parse().unwrap()];
        let table = enforce(&HostPolicy { workloads, ..policy(&[("up0", &closed()), ("*", &closed())]) });
        assert!(reaches_from("10.65.0.2", SURELY), "the walk has judged it");
        assert!(!reaches_from("192.0.1.77", IN_VAIN));
        let status = table.status();
        let dropped = status.rules.iter().find(|row| {
            row.interface.as_deref() == Some("up0") && row.direction == "ingress" && row.what == "no profile"
        });
        assert!(dropped.is_some_and(|row| row.packets > Some(0)), "{status:#?}");
        assert!(!reaches_from("192.0.3.2", IN_VAIN), "no workload, and no interface of its own");
        // To workloads the host sends freely, elsewhere as it may.
        let _theirs = walk.inside(|| listen(80));
        connect("10.65.0.2", 80, SURELY).unwrap();
        assert!(connect("192.0.3.2", 80, IN_VAIN).is_err());
    });
}

#[test]
fn what_the_hosts_dhcp_server_says_to_workloads_and_hears_is_no_host_endpoints_to_judge() {
    with_nft(|| {
        let outside = host_and_outside();
        let server = UdpSocket::bind("192.0.1.1:67").unwrap();
        server.set_read_timeout(Some(IN_VAIN)).unwrap();
        let talks = || {
            let client = outside.inside(|| UdpSocket::bind("192.0.1.2:68").unwrap());
            client.set_read_timeout(Some(IN_VAIN)).unwrap();
            client.send_to(b"discover", "192.0.1.1:67").unwrap();
            let heard = server.recv_from(&mut [0; 16]).is_ok();
            // Policy of what it sends may refuse it at once.
            let _ = server.send_to(b"offer", "192.0.1.2:68");
            (heard, client.recv_from(&mut [0; 16]).is_ok())
        };
        let every = policy(&[("*", &closed())]);
        let table = enforce(&every);
        assert_eq!(talks(), (false, false));
        drop(table);
        let _table = enforce(&HostPolicy { served: Some("up".to_owned()), ..every });
        assert_eq!(talks(), (true, true));
    });
}

#[test]
fn the_thread_keeps_the_newest_policy_and_leaves_it_in_force_when_it_ends() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listener = listen(8080);
        let mut enforcer = Enforcer::start().unwrap();
        let answer = |enforcer: &Enforcer| {
            let (reply, answer) = tokio::sync::oneshot::channel();
            enforcer.ask(reply);
            match answer.blocking_recv().expect("an answer") {
                Answer::HostPolicy(status) => status,
                other => panic!("{other:?}"),
            }
        };
        assert!(!answer(&enforcer).in_force);
        enforcer.apply(policy(&[("up0", &open())]));
        enforcer.apply(policy(&[("up0", &closed())]));
        let status = answer(&enforcer);
        assert_eq!((status.in_force, status.endpoints[0].name.as_str()), (true, "node1-up0"));
        is_kept_from(&outside, "192.0.1.1", 8080);
        drop(enforcer);
        is_kept_from(&outside, "192.0.1.1", 8080);
        remove().unwrap();
        remove().unwrap();
        reaches(&outside, "192.0.1.1", 8080);
    });
}

#[test]
fn what_nft_refuses_leaves_what_was_in_force() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listeners = [listen(22), listen(8080)];
        let mut table = enforce(&policy(&[("up0", &closed())]));
        let mut bad = render(&policy(&[("up0", &open())]));
        bad.ruleset.chains.values_mut().next().unwrap().lines.push(Line::plain("no such words"));
        table.want(bad);
        let status = table.status();
        assert!(status.refused.as_ref().is_some_and(|words| words.contains("no such words")), "{status:#?}");
        assert!(status.in_force);
        table.check();
        // Trying again changes nothing.
        let again = table.status();
        assert_eq!((again.in_force, &again.refused), (true, &status.refused));
        assert_eq!(again.endpoints, status.endpoints);
        is_kept_from(&outside, "192.0.1.1", 8080);
        reaches(&outside, "192.0.1.1", 22);
        table.want(render(&policy(&[("up0", &open())])));
        assert_eq!(table.status().refused, None);
        reaches(&outside, "192.0.1.1", 8080);
    });
}

#[test]
fn a_table_that_somebody_removed_comes_back() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listener = listen(8080);
        let mut table = enforce(&policy(&[("up0", &closed())]));
        nft::apply("flush ruleset").unwrap();
        reaches(&outside, "192.0.1.1", 8080);
        table.check();
        is_kept_from(&outside, "192.0.1.1", 8080);
        // A change finds out by itself.
        nft::apply("flush ruleset").unwrap();
        table.want(render(&policy(&[("up0", &closed()), ("up1", &closed())])));
        is_kept_from(&outside, "192.0.1.1", 8080);
        assert_eq!(table.status().refused, None);
    });
}

#[test]
fn what_does_not_change_goes_on_counting() {
    with_nft(|| {
        let outside = host_and_outside();
        let _listener = listen(8080);
        let mut up0 = closed();
        up0.normal.ingress = Some(Arc::new(only(vec![tcp(Action::Allow, 8080)])));
        let mut table = enforce(&policy(&[("up0", &up0)]));
        reaches(&outside, "192.0.1.1", 8080);
        table.want(render(&policy(&[("up0", &up0), ("up1", &closed())])));
        assert!(packets(&table.status(), "normal", "ingress", "rule 0") >= 1);
    });
}

#[test]
fn names_from_outside_never_become_words_of_nfts() {
    with_nft(|| {
        let strange = "a\" ; drop ; } \\ \n\u{e9} {$x}%t";
        let rules = vec![Rule::any(Action::Log), Rule::any(Action::Allow)];
        let policies = vec![Policy { name: strange.to_owned(), rules }.into()];
        let tiers =
            vec![Tier { name: strange.to_owned(), policies: policies.clone(), default: TierDefault::Deny }];
        let checks = || Checks { tiers: tiers.clone(), after: AfterTiers::Profiles(policies.clone()) };
        let mut up0 = open();
        up0.normal = directions(checks(), checks());
        let settings = Settings {
            log_prefix: format!("{strange}%p{}", "x".repeat(200)),
            log_rate: Some(LogRate { packets: 10, per: Duration::from_secs(60) }),
            log_burst: 0,
            ..Settings::default()
        };
        let mut policy = HostPolicy { settings, ..policy(&[("up0", &up0)]) };
        policy.endpoints[0].name = strange.to_owned();
        assert_eq!(enforce(&policy).status().endpoints[0].name, strange);
    });
}

#[test]
fn the_prefix_of_a_log_rule_names_its_policy() {
    let policies = vec![Policy { name: "shop/web".to_owned(), rules: vec![Rule::any(Action::Log)] }.into()];
    let tiers = vec![Tier { name: "site".to_owned(), policies, default: TierDefault::Deny }];
    let mut up0 = open();
    up0.normal.ingress = Some(Arc::new(Checks { tiers, after: AfterTiers::Profiles(Vec::new()) }));
    let settings = Settings { log_prefix: "%t %k %n".to_owned(), ..Settings::default() };
    let ruleset = render(&HostPolicy { settings, ..policy(&[("up0", &up0)]) }).ruleset;
    let mut lines = ruleset.chains.values().flat_map(|chain| &chain.lines);
    assert!(lines.any(|line| line.text.contains("log prefix \"site np web: \"")));
}

#[test]
fn what_can_not_be_kept_is_said() {
    let mut every = closed();
    every.untracked.ingress = Some(Arc::new(first(vec![Rule::any(Action::Deny)])));
    let Rendering { ruleset, problems } = render(&policy(&[
        ("*", &every),
        ("a\"; accept", &closed()),
        ("a$b", &closed()),
        ("up*", &closed()),
        ("", &closed()),
    ]));
    assert_eq!(problems.len(), 5, "{problems:?}");
    let untracked = |about: &About| matches!(about, About::Endpoint { class: "untracked", .. });
    assert!(!ruleset.chains.values().any(|chain| untracked(&chain.about)));
    assert!(render(&HostPolicy::default()).ruleset.chains.is_empty());
}
