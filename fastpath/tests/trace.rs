//! What is shown of a packet's way: of those that are made up, and of those that pass.

mod support;

use fastpath::{MadeUp, Outer, Rehearsal, Unfit};
use model::PortId;
use packet::protocol::{TCP, UDP};
use policy::judge::Verdict;
use policy::rule::Action;
use support::policed::*;
use support::{FAR_END, HOST, OUR_END, Rig, STRANGER, UPLINK, VNI, WORKLOAD, translation};
use tables::{Direction, DropReason, Fate, FlowSeen, Judged, Nat, PuntReason, Stage, Trace, TraceFilter};

const POD: &str = "10.65.0.2";
const REMOTE: &str = "10.65.1.2";

fn tcp(ingress: PortId, source: &str, destination: &str) -> MadeUp {
    MadeUp {
        ingress,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: TCP,
        ports: (4000, 80),
        tcp_flags: SYN,
        icmp: (8, 0, 1),
        ttl: 64,
        dscp: 0,
        dont_fragment: true,
        payload: 0,
        outer: None,
    }
}

/// Walks what is made up, and sees to it that nothing has moved.
fn walk(rig: &mut Rig, packet: &MadeUp) -> Trace {
    let reader = rig.writer.reader().expect("a reader is left");
    let mut rehearsal = Rehearsal::new(reader, support::pool(0), rig.flows.clone(), 16);
    let (books, flows, counts) = (rig.counters.books(), rig.flows.counts(), rig.report.counts().count());
    let trace = rehearsal.walk(packet).unwrap();
    assert_eq!(rig.counters.books(), books, "it is in no books");
    assert_eq!((rig.flows.counts(), rig.report.counts().count()), (flows, counts), "and begins nothing");
    assert!(rig.report.next_event().is_none(), "and nobody is told");
    for port in support::PORTS {
        assert!(rig.wire(port).receive().is_none(), "and leaves nowhere");
    }
    trace
}

/// A rig with room for rehearsals' readers.
fn rig() -> Rig {
    Rig::with_readers(64)
}

fn verdicts(trace: &Trace) -> Vec<(PortId, bool, Option<Verdict>, bool)> {
    let answers = trace.answers.iter().flatten();
    answers.map(|answer| (answer.port, answer.is_ingress, answer.verdict, answer.is_recalled)).collect()
}

#[test]
fn a_made_up_packet_shows_route_rule_and_rewrite() {
    let mut rig = rig();
    police(&mut rig, Some(deny()), Some(rules(vec![to_port(Action::Allow, TCP, 80)])));
    let trace = walk(&mut rig, &tcp(WORKLOAD, POD, REMOTE));
    assert_eq!((trace.fate, trace.ended), (Fate::Forward(UPLINK), Stage::Rewrite));
    let route = trace.route.unwrap();
    assert_eq!((route.member, route.members, route.hop.port), (1, 1, UPLINK));
    assert_eq!(verdicts(&trace), [(WORKLOAD, false, Some(Verdict::Allow), false)]);
    let left = trace.left.unwrap();
    assert_eq!((left.headers.ttl, left.in_tunnel), (63, false));
    assert_eq!(left.destination, support::neighbor_mac(UPLINK));
    assert_eq!(trace.flow, FlowSeen::Unknown);
}

#[test]
fn the_rule_that_denies_is_named() {
    let mut rig = rig();
    police(&mut rig, Some(rules(vec![to_port(Action::Deny, TCP, 80)])), Some(allow()));
    let trace = walk(&mut rig, &tcp(UPLINK, REMOTE, POD));
    assert_eq!(trace.fate, Fate::Drop(DropReason::IngressDenied));
    assert_eq!(trace.ended, Stage::Policy);
    assert_eq!(verdicts(&trace), [(WORKLOAD, true, Some(Verdict::Deny), false)]);
    let rule = trace.answers[0].unwrap().rule;
    let (checks, step) = rig.writer.step(rule).unwrap();
    assert_eq!(checks.tiers[0].name, "default");
    assert_eq!(step, policy::judge::Step::Rule { tier: 0, policy: 0, rule: 0, action: Action::Deny });
}

#[test]
fn a_known_flow_is_told_with_the_rules_that_let_it_pass_and_stays_as_it_was() {
    let mut rig = rig();
    police(&mut rig, Some(deny()), Some(rules(vec![to_port(Action::Allow, TCP, 80)])));
    let talk = Talk::new(POD, REMOTE);
    rig.send(WORKLOAD, &talk.tcp(WORKLOAD, SYN));
    rig.left_by(UPLINK);
    rig.send(UPLINK, &talk.answer().tcp(UPLINK, SYN | ACK));
    rig.left_by(WORKLOAD);
    while rig.report.next_event().is_some() {}
    let before: Vec<_> = rig.flows.rows().collect();
    let mut answer = tcp(UPLINK, REMOTE, POD);
    (answer.ports, answer.tcp_flags) = ((80, 4000), RST);
    let trace = walk(&mut rig, &answer);
    assert_eq!(trace.fate, Fate::Forward(WORKLOAD));
    let known = FlowSeen::Known { direction: Direction::Reply, judged: true, translated: false };
    assert_eq!(trace.flow, known);
    assert_eq!(verdicts(&trace), [(WORKLOAD, false, Some(Verdict::Allow), true)]);
    assert_eq!(rig.flows.rows().collect::<Vec<_>>(), before, "the reset was nobody's");
}

#[test]
fn what_comes_in_a_tunnel_is_shown_outside_and_inside() {
    for (vxlan, vni) in
        [(None, None), (Some(None), None), (Some(Some(VNI)), None), (Some(Some(77)), Some(77))]
    {
        let mut rig = rig();
        let outer = Outer { source: FAR_END.parse().unwrap(), destination: None, vxlan };
        let trace = walk(&mut rig, &MadeUp { outer: Some(outer), ..tcp(UPLINK, REMOTE, POD) });
        assert_eq!(trace.came.unwrap().key.destination().to_string(), OUR_END);
        if vni.is_some() {
            assert_eq!(trace.fate, Fate::Drop(DropReason::UnknownVni));
            continue;
        }
        assert_eq!(trace.inside.unwrap().key.destination().to_string(), POD);
        assert_eq!(trace.fate, Fate::Forward(WORKLOAD));
    }
}

#[test]
fn what_goes_into_a_tunnel_is_shown_with_its_outer_headers() {
    for (destination, vni) in [("10.72.0.9", None), ("10.73.0.9", Some(VNI))] {
        let left = walk(&mut rig(), &tcp(WORKLOAD, POD, destination)).left.unwrap();
        assert!(left.in_tunnel);
        assert_eq!(left.vni, vni);
        assert_eq!(left.headers.key.destination().to_string(), FAR_END);
    }
}

#[test]
fn translation_is_shown_where_it_happens() {
    let mut rig = rig();
    rig.writer.set_nat(Nat::new(&translation::rules()));
    rig.publish();
    let out = walk(&mut rig, &tcp(WORKLOAD, POD, translation::SERVER));
    assert_eq!(out.before_route, None);
    assert_eq!(out.after_route.unwrap().source().to_string(), translation::OUTER);
    let inward = walk(&mut rig, &tcp(UPLINK, REMOTE, translation::FLOATING));
    assert_eq!(inward.before_route.unwrap().destination().to_string(), POD);
    assert_eq!(inward.after_route, None);
}

#[test]
fn where_a_walk_ends_is_named_by_its_stage() {
    let mut rig = rig();
    let case = |packet: MadeUp| {
        let trace = walk(&mut rig, &packet);
        (trace.ended, trace.fate)
    };
    let outward = tcp(WORKLOAD, POD, REMOTE);
    let cases = [
        (tcp(WORKLOAD, "10.65.0.3", REMOTE), Stage::WorkloadSend, Fate::Drop(DropReason::SpoofedSource)),
        (tcp(STRANGER, POD, REMOTE), Stage::Admit, Fate::Drop(DropReason::UnknownEndpoint)),
        (tcp(WORKLOAD, POD, "224.0.0.1"), Stage::Admit, Fate::Drop(DropReason::Multicast)),
        (tcp(WORKLOAD, POD, "10.65.0.9"), Stage::Route, Fate::Drop(DropReason::Blackhole)),
        (tcp(WORKLOAD, POD, "10.67.0.9"), Stage::Route, Fate::Punt(PuntReason::Unresolved)),
        (MadeUp { ttl: 1, ..outward.clone() }, Stage::Rewrite, Fate::Punt(PuntReason::TtlExceeded)),
        (
            MadeUp { payload: 1000, ..tcp(WORKLOAD, POD, "10.69.0.9") },
            Stage::Rewrite,
            Fate::Punt(PuntReason::TooBig),
        ),
        (tcp(HOST, OUR_END, REMOTE), Stage::Rewrite, Fate::Forward(UPLINK)),
    ];
    let (packets, expected): (Vec<_>, Vec<_>) =
        cases.into_iter().map(|(packet, stage, fate)| (packet, (stage, fate))).unzip();
    let found: Vec<_> = packets.into_iter().map(case).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_protocol_can_be_made_up_in_both_families() {
    let mut rig = rig();
    for (source, destination) in [(POD, REMOTE), ("fd65::2", "fd65:1::2")] {
        let icmp = if source == POD { packet::protocol::ICMP } else { packet::protocol::ICMPV6 };
        let echo = if source == POD { 8 } else { 128 };
        for protocol in [TCP, UDP, icmp, packet::protocol::SCTP, 47] {
            let made_up =
                MadeUp { protocol, icmp: (echo, 0, 7), payload: 10, ..tcp(WORKLOAD, source, destination) };
            let trace = walk(&mut rig, &made_up);
            assert_eq!(trace.fate, Fate::Forward(UPLINK), "{protocol} of {source}: {trace:?}");
            let headers = trace.came.unwrap();
            assert_eq!(headers.key.protocol, protocol);
            assert_eq!(headers.icmp, (protocol == icmp).then_some((echo, 0)));
        }
    }
}

#[test]
fn a_made_up_dhcp_request_goes_to_many_and_up_under_openstack() {
    let mut rig = rig();
    let requests = [("0.0.0.0", "255.255.255.255", (68, 67)), ("fe80::2", "ff02::1:2", (546, 547))]
        .map(|(src, dst, ports)| MadeUp { protocol: UDP, ports, ..tcp(WORKLOAD, src, dst) });
    let fates =
        |rig: &mut Rig| requests.each_ref().map(|packet| walk(rig, packet)).map(|t| (t.ended, t.fate));
    let lost =
        [DropReason::Broadcast, DropReason::Multicast].map(|reason| (Stage::Admit, Fate::Drop(reason)));
    assert_eq!(fates(&mut rig), lost);
    drop_to_host_but_dhcp_and_dns(&mut rig);
    assert_eq!(fates(&mut rig), [(Stage::Admit, Fate::Punt(PuntReason::Dhcp)); 2]);
}

#[test]
fn what_can_be_no_packet_is_refused() {
    let mut rig = rig();
    let reader = rig.writer.reader().unwrap();
    let mut rehearsal = Rehearsal::new(reader, support::pool(0), rig.flows.clone(), 16);
    for (packet, why) in [
        (tcp(WORKLOAD, POD, "fd65:1::2"), Unfit::TwoFamilies),
        (tcp(PortId(12), POD, REMOTE), Unfit::NoSuchPort),
        (MadeUp { payload: 8000, ..tcp(WORKLOAD, POD, REMOTE) }, Unfit::TooLong),
        (MadeUp { payload: u16::MAX, ..tcp(WORKLOAD, POD, REMOTE) }, Unfit::TooLong),
    ] {
        assert_eq!(rehearsal.walk(&packet), Err(why));
    }
    assert_eq!(rehearsal.port_named("port2"), Some(WORKLOAD));
    assert_eq!(rehearsal.port_named("default/pod"), Some(WORKLOAD));
    assert_eq!(rehearsal.port_of_sender(POD.parse().unwrap()), Some(WORKLOAD));
    assert_eq!(rehearsal.port_of_sender(REMOTE.parse().unwrap()), None);
    // Between its packets the writer doesn't wait for it.
    rig.writer.insert_group(tables::Group::Blackhole).unwrap();
    rig.publish();
}

fn followed(rig: &Rig) -> Vec<Trace> {
    std::iter::from_fn(|| rig.tracing.next()).collect()
}

#[test]
fn packets_that_match_are_followed_and_go_their_way_as_ever() {
    let mut rig = rig();
    police(&mut rig, Some(deny()), Some(rules(vec![to_port(Action::Allow, TCP, 80)])));
    let filter = TraceFilter { dport: Some(80), protocol: Some(TCP), one_in: 1, ..TraceFilter::default() };
    rig.tracing.start(filter, 10);
    let talk = Talk::new(POD, REMOTE);
    for frame in [talk.udp(WORKLOAD), talk.tcp(WORKLOAD, SYN), talk.clone().ports(1, 81).tcp(WORKLOAD, SYN)] {
        assert!(rig.wire(WORKLOAD).send(&frame));
    }
    assert!(rig.wire(UPLINK).send(&talk.answer().tcp(UPLINK, SYN | ACK)));
    let moved = rig.run();
    assert_eq!((moved.received(), moved.forwarded()), (4, 1));
    let traces = followed(&rig);
    assert_eq!(traces.len(), 1, "{traces:?}");
    let [trace] = traces[..] else { unreachable!() };
    assert_eq!((trace.ingress, trace.fate), (Some(WORKLOAD), Fate::Forward(UPLINK)));
    assert_eq!(verdicts(&trace), [(WORKLOAD, false, Some(Verdict::Allow), false)]);
    assert_eq!(trace.answers[0].unwrap().judged, Judged::Enforced);
    let judged: u64 = rig.report.counts().map(|(_, _, count)| count.packets).sum();
    assert_eq!(judged, 3, "what is followed counts like all others");
    rig.tracing.stop();
    rig.send(WORKLOAD, &talk.tcp(WORKLOAD, ACK));
    assert!(followed(&rig).is_empty());
    rig.audit();
}

#[test]
fn only_so_many_of_a_batch_and_of_all_are_followed() {
    let mut rig = rig();
    rig.tracing.start(TraceFilter { one_in: 1, ..TraceFilter::default() }, 5);
    for sport in 0..20 {
        assert!(rig.wire(WORKLOAD).send(&Talk::new(POD, REMOTE).ports(sport, 80).udp(WORKLOAD)));
    }
    assert_eq!(rig.run().forwarded(), 20);
    assert_eq!(followed(&rig).len(), 5);
    assert!(!rig.tracing.is_on() && rig.tracing.missed() >= 12);
}

#[test]
fn drops_alone_are_followed_where_that_is_asked_for() {
    let mut rig = rig();
    let dropped = Some(Some(DropReason::Blackhole));
    rig.tracing.start(TraceFilter { dropped, one_in: 1, ..TraceFilter::default() }, 5);
    for destination in [REMOTE, "10.65.0.9", "224.0.0.1"] {
        rig.send(WORKLOAD, &Talk::new(POD, destination).udp(WORKLOAD));
    }
    let traces = followed(&rig);
    assert_eq!(
        traces.iter().map(|trace| trace.fate).collect::<Vec<_>>(),
        [Fate::Drop(DropReason::Blackhole)]
    );
}

#[test]
fn frames_that_are_no_packets_are_followed_where_nothing_is_asked_of_packets() {
    let mut rig = rig();
    rig.tracing.start(TraceFilter { port: Some(WORKLOAD), one_in: 1, ..TraceFilter::default() }, 5);
    let mut broken = Talk::new(POD, REMOTE).udp(WORKLOAD);
    broken[24] ^= 1;
    rig.send(WORKLOAD, &broken);
    let [trace] = followed(&rig)[..] else { panic!("one") };
    assert_eq!((trace.came, trace.ended), (None, Stage::Parse));
    assert_eq!(trace.fate, Fate::Drop(DropReason::Ipv4BadChecksum));
}
