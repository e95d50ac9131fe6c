//! Calico policy in the walk: what begins a flow, what follows it, and what neither may.

mod support;

use std::sync::Arc;

use model::{PortId, WorkerId};
use packet::protocol;
use policy::rule::{Action, Checks, Rule};
use support::policed::{
    ACK, FIN, NEIGHBOR, RST, SYN, Talk, allow, between, deny, drop_to_host, drop_to_host_but_dhcp_and_dns,
    key, limit_connections, neighbor, police, police_endpoint, rules, to_port,
};
use support::translation::{self, FLOATING, OUT, OUTER, POD, SERVER, error_frame, fragments};
use support::{
    Build, HOST, Moved, PORTS, Rig, STRANGER, Sizes, UPLINK, WORKLOAD, fill, limits, prefix, worker,
};
use tables::{
    Counters, DropReason, EndpointPolicy, FlowRules, Flows, Judged, Nat, PolicyAct, PuntReason, Ticks, Writer,
};

/// A workload on another node.
const REMOTE: &str = "10.65.1.2";
const TCP: u8 = protocol::TCP;

/// A rig whose workload has these policies.
fn policed(ingress: Option<Arc<Checks>>, egress: Option<Arc<Checks>>) -> Rig {
    let mut rig = Rig::new();
    police(&mut rig, ingress, egress);
    rig
}

/// Clients reach port 80; the workload itself reaches nobody.
fn server() -> Rig {
    policed(Some(rules(vec![to_port(Action::Allow, TCP, 80)])), Some(deny()))
}

/// The workload reaches everybody; nobody reaches it.
fn client() -> Rig {
    policed(Some(deny()), Some(allow()))
}

fn passes(rig: &mut Rig, by: PortId, frame: &[u8]) {
    let moved = rig.send(by, frame);
    assert_eq!((moved.forwarded(), moved.drops()), (1, vec![]), "{moved:?}");
}

fn is_dropped(rig: &mut Rig, by: PortId, frame: &[u8], reason: DropReason) {
    let moved = rig.send(by, frame);
    assert_eq!(moved.drops(), [(reason.as_str(), 1)], "{moved:?}");
}

fn in_use(rig: &Rig) -> usize {
    rig.flows.counts().in_use
}

#[test]
fn without_policy_nothing_is_asked_and_nothing_remembered() {
    let mut rig = Rig::new();
    passes(&mut rig, WORKLOAD, &Talk::new(POD, REMOTE).tcp(WORKLOAD, RST));
    passes(&mut rig, UPLINK, &Talk::new(REMOTE, POD).udp(UPLINK));
    passes(&mut rig, WORKLOAD, &Talk::new(POD, OUTER).udp(WORKLOAD));
    assert_eq!(in_use(&rig), 0);
    rig.audit();
}

/// From whom, to whom, by which port, with which policies of the workload and of its neighbour (ingress, egress), and what
/// comes of it.
type Case<'a> = (&'a str, &'a str, PortId, [Arc<Checks>; 2], [Arc<Checks>; 2], Option<DropReason>);

/// Which ends are asked: egress of the sender, ingress of the receiver, both, or none, whichever way a packet goes.
#[test]
fn each_end_is_asked_for_its_own_direction() {
    let (no, yes) = (deny, allow);
    let cases: [Case<'_>; 12] = [
        (POD, REMOTE, WORKLOAD, [no(), yes()], [no(), no()], None),
        (POD, REMOTE, WORKLOAD, [yes(), no()], [yes(), yes()], Some(DropReason::EgressDenied)),
        (REMOTE, POD, UPLINK, [yes(), no()], [no(), no()], None),
        (REMOTE, POD, UPLINK, [no(), yes()], [yes(), yes()], Some(DropReason::IngressDenied)),
        (POD, NEIGHBOR, WORKLOAD, [no(), yes()], [yes(), no()], None),
        (POD, NEIGHBOR, WORKLOAD, [yes(), no()], [yes(), yes()], Some(DropReason::EgressDenied)),
        (POD, NEIGHBOR, WORKLOAD, [yes(), yes()], [no(), yes()], Some(DropReason::IngressDenied)),
        // The host reaches its workloads whatever they say; a workload reaches it as its egress says.
        (OUTER, POD, HOST, [no(), no()], [no(), no()], None),
        (POD, OUTER, WORKLOAD, [no(), yes()], [no(), no()], None),
        (POD, OUTER, WORKLOAD, [yes(), no()], [yes(), yes()], Some(DropReason::EgressDenied)),
        // What passes through is nobody's.
        (REMOTE, "10.69.0.1", UPLINK, [no(), no()], [no(), no()], None),
        (OUTER, REMOTE, HOST, [no(), no()], [no(), no()], None),
    ];
    for (number, (src, dst, by, [ingress, egress], [other_ingress, other_egress], dropped)) in
        cases.into_iter().enumerate()
    {
        let mut rig = policed(Some(ingress), Some(egress));
        neighbor(&mut rig, Some(other_ingress), Some(other_egress));
        for frame in
            [Talk::new(src, dst).udp(by), Talk::new(src, dst).tcp(by, SYN), Talk::new(src, dst).ping(by)]
        {
            match dropped {
                None => passes(&mut rig, by, &frame),
                Some(reason) => is_dropped(&mut rig, by, &frame, reason),
            }
        }
        let transit = number >= 10;
        assert_eq!(in_use(&rig), if dropped.is_none() && !transit { 3 } else { 0 }, "case {number}");
        rig.audit();
    }
}

#[test]
fn answers_follow_their_flow_and_nothing_else_comes_in() {
    for to in [REMOTE, NEIGHBOR, OUTER] {
        let by = match to {
            REMOTE => UPLINK,
            NEIGHBOR => STRANGER,
            _ => HOST,
        };
        let mut rig = client();
        neighbor(&mut rig, Some(allow()), Some(deny()));
        let talk = Talk::new(POD, to);
        if by != HOST {
            is_dropped(
                &mut rig,
                by,
                &talk.answer().udp(by),
                match by {
                    UPLINK => DropReason::IngressDenied,
                    _ => DropReason::EgressDenied,
                },
            );
        }
        for (asks, answers) in [
            (talk.udp(WORKLOAD), talk.answer().udp(by)),
            (talk.tcp(WORKLOAD, SYN), talk.answer().tcp(by, SYN | ACK)),
            (talk.ping(WORKLOAD), talk.answer().ports(4000, 4000).pong(by)),
        ] {
            passes(&mut rig, WORKLOAD, &asks);
            passes(&mut rig, by, &answers);
        }
        if by == UPLINK {
            let other = talk.clone().ports(4001, 80).answer().tcp(by, SYN);
            is_dropped(&mut rig, by, &other, DropReason::IngressDenied);
        }
        assert_eq!(in_use(&rig), 3, "{to}");
        rig.audit();
    }
}

#[test]
fn answers_to_the_host_pass_whatever_the_workload_may_send() {
    let mut rig = policed(Some(deny()), Some(deny()));
    drop_to_host(&mut rig);
    let probe = Talk::new(OUTER, POD);
    passes(&mut rig, HOST, &probe.tcp(HOST, SYN));
    passes(&mut rig, WORKLOAD, &probe.answer().tcp(WORKLOAD, SYN | ACK));
    passes(&mut rig, HOST, &probe.tcp(HOST, ACK));
    is_dropped(
        &mut rig,
        WORKLOAD,
        &probe.answer().ports(81, 82).tcp(WORKLOAD, SYN),
        DropReason::EgressDenied,
    );
    rig.audit();
}

#[test]
fn what_goes_to_the_node_itself_is_dropped_by_default_but_for_listeners() {
    for egress in [None, Some(allow()), Some(deny())] {
        let refused = match egress == Some(deny()) {
            true => DropReason::EgressDenied,
            false => DropReason::WorkloadToHost,
        };
        let mut rig = policed(None, egress);
        drop_to_host(&mut rig);
        let to_node = Talk::new(POD, OUTER);
        is_dropped(&mut rig, WORKLOAD, &to_node.tcp(WORKLOAD, SYN), refused);
        is_dropped(&mut rig, WORKLOAD, &to_node.ping(WORKLOAD), refused);
        is_dropped(&mut rig, WORKLOAD, &to_node.clone().ports(68, 67).udp(WORKLOAD), refused);
        is_dropped(&mut rig, WORKLOAD, &to_node.clone().ports(9999, 53).udp(WORKLOAD), refused);
        let to_node = Talk::new("fd65::2", "fd18::1");
        is_dropped(&mut rig, WORKLOAD, &to_node.clone().ports(546, 547).udp(WORKLOAD), refused);
        passes(&mut rig, WORKLOAD, &to_node.icmp(WORKLOAD, 131));
        is_dropped(&mut rig, WORKLOAD, &to_node.ping(WORKLOAD), refused);
        rig.audit();
    }
}

#[test]
fn a_connection_to_the_node_itself_is_cut_where_that_is_no_longer_allowed() {
    let mut rig = policed(None, Some(allow()));
    let talk = Talk::new(POD, OUTER);
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, SYN));
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, ACK));
    drop_to_host(&mut rig);
    is_dropped(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, ACK), DropReason::WorkloadToHost);
    rig.audit();
}

#[test]
fn openstacks_instances_have_addresses_and_names_from_their_host_whatever_policy_says() {
    for egress in [None, Some(allow()), Some(deny())] {
        let refused = match egress == Some(deny()) {
            true => DropReason::EgressDenied,
            false => DropReason::WorkloadToHost,
        };
        let mut rig = policed(None, egress);
        drop_to_host_but_dhcp_and_dns(&mut rig);
        let to_node = Talk::new(POD, OUTER);
        passes(&mut rig, WORKLOAD, &to_node.clone().ports(68, 67).udp(WORKLOAD));
        passes(&mut rig, WORKLOAD, &to_node.clone().ports(9999, 53).udp(WORKLOAD));
        is_dropped(&mut rig, WORKLOAD, &to_node.clone().ports(9999, 53).tcp(WORKLOAD, SYN), refused);
        is_dropped(&mut rig, WORKLOAD, &to_node.clone().ports(546, 547).udp(WORKLOAD), refused);
        let to_node = Talk::new("fd65::2", "fd18::1");
        passes(&mut rig, WORKLOAD, &to_node.clone().ports(546, 547).udp(WORKLOAD));
        is_dropped(&mut rig, WORKLOAD, &to_node.clone().ports(68, 67).udp(WORKLOAD), refused);
        rig.audit();
    }
}

/// As in Linux's connection tracking, which Calico leaves as it is: a connection may be older than this router.
#[test]
fn a_flow_begins_with_a_question_or_in_the_middle_of_a_connection() {
    let mut rig = policed(Some(allow()), Some(allow()));
    for (flags, begins) in
        [(SYN, true), (ACK, true), (SYN | ACK, false), (FIN | ACK, false), (RST, false), (0, false)]
    {
        let talk = Talk::new(REMOTE, POD).ports(100 + u16::from(flags), 80);
        match begins {
            true => passes(&mut rig, UPLINK, &talk.tcp(UPLINK, flags)),
            false => is_dropped(&mut rig, UPLINK, &talk.tcp(UPLINK, flags), DropReason::FlowInvalid),
        }
    }
    let talk = Talk::new(REMOTE, POD);
    is_dropped(&mut rig, UPLINK, &talk.pong(UPLINK), DropReason::FlowInvalid);
    passes(&mut rig, UPLINK, &talk.icmp(UPLINK, 13));
    let about_nothing = error_frame(UPLINK, "10.69.0.9", &Talk::new(POD, REMOTE).udp(WORKLOAD));
    is_dropped(&mut rig, UPLINK, &about_nothing, DropReason::FlowInvalid);
    // Without the check policy decides, and no flow begins.
    let before = in_use(&rig);
    rig.writer.set_flow_rules(FlowRules { drops_invalid: false, ..FlowRules::default() });
    rig.publish();
    passes(&mut rig, UPLINK, &talk.tcp(UPLINK, RST));
    passes(&mut rig, UPLINK, &talk.pong(UPLINK));
    passes(&mut rig, UPLINK, &about_nothing);
    assert_eq!(in_use(&rig), before);
    police(&mut rig, Some(deny()), None);
    is_dropped(&mut rig, UPLINK, &talk.tcp(UPLINK, RST), DropReason::IngressDenied);
    rig.audit();
}

#[test]
fn a_known_connection_has_no_packets_of_none() {
    let mut rig = client();
    let talk = Talk::new(POD, REMOTE);
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, SYN));
    is_dropped(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, 0), DropReason::FlowInvalid);
    passes(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, SYN | ACK));
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, ACK));
    is_dropped(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, SYN), DropReason::FlowInvalid);
    passes(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, RST));
    rig.audit();
}

/// What Calico itself doesn't do (ARCHITECTURE.md, D7).
#[test]
fn a_policy_change_cuts_what_is_under_way_and_gives_it_back() {
    let mut rig = server();
    let talk = Talk::new(REMOTE, POD);
    let (asks, answers) = (talk.tcp(UPLINK, ACK), talk.answer().tcp(WORKLOAD, ACK));
    passes(&mut rig, UPLINK, &talk.tcp(UPLINK, SYN));
    passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, SYN | ACK));
    passes(&mut rig, UPLINK, &asks);
    let others = rules(vec![to_port(Action::Allow, TCP, 81)]);
    police(&mut rig, Some(others), Some(deny()));
    // Answers are held to what is said of the questions, and may be the first to find out.
    is_dropped(&mut rig, WORKLOAD, &answers, DropReason::IngressDenied);
    is_dropped(&mut rig, UPLINK, &asks, DropReason::IngressDenied);
    assert_eq!(in_use(&rig), 1, "it is remembered");
    let both = rules(vec![to_port(Action::Allow, TCP, 81), to_port(Action::Allow, TCP, 80)]);
    police(&mut rig, Some(both), Some(deny()));
    passes(&mut rig, WORKLOAD, &answers);
    passes(&mut rig, UPLINK, &asks);
    rig.writer.remove_policy("default/pod");
    rig.publish();
    passes(&mut rig, UPLINK, &asks);
    rig.audit();
}

#[test]
fn a_flow_is_judged_once_an_epoch() {
    let mut rig = server();
    let talk = Talk::new(REMOTE, POD);
    passes(&mut rig, UPLINK, &talk.tcp(UPLINK, SYN));
    for _ in 0..5 {
        passes(&mut rig, UPLINK, &talk.tcp(UPLINK, ACK));
        passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, ACK));
    }
    let judged = |rig: &Rig| rig.report.counts().map(|(_, _, count)| count.packets).sum::<u64>();
    assert_eq!(judged(&rig), 1);
    rig.writer.put_set(policy::rule::SetId(9), []).unwrap();
    police(&mut rig, Some(rules(vec![to_port(Action::Allow, TCP, 80)])), Some(allow()));
    for _ in 0..5 {
        passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, ACK));
    }
    assert_eq!(judged(&rig), 2);
}

/// A workload that comes to this node in the middle of a flow is asked, too.
#[test]
fn another_way_is_another_question() {
    let mut rig = Rig::new();
    let there = rig.writer.insert_adjacency(tables::Adjacency::resolved(
        STRANGER,
        "10.70.0.1".parse().unwrap(),
        support::neighbor_mac(STRANGER),
        support::mac(STRANGER),
    ));
    let group = rig.writer.insert_group(tables::Group::Forward(vec![there.unwrap()])).unwrap();
    police(&mut rig, Some(deny()), Some(allow()));
    neighbor(&mut rig, Some(deny()), Some(deny()));
    let talk = Talk::new(POD, "10.71.0.9");
    passes(&mut rig, WORKLOAD, &talk.udp(WORKLOAD));
    rig.writer.insert_route(prefix("10.71.0.9/32"), group).unwrap();
    is_dropped(&mut rig, WORKLOAD, &talk.udp(WORKLOAD), DropReason::IngressDenied);
    rig.audit();
}

#[test]
fn an_icmp_error_goes_with_the_flow_that_it_is_about() {
    let mut rig = client();
    let talk = Talk::new(POD, REMOTE);
    let sent = talk.udp(WORKLOAD);
    let error = error_frame(UPLINK, "10.69.0.9", &sent);
    is_dropped(&mut rig, UPLINK, &error, DropReason::FlowInvalid);
    passes(&mut rig, WORKLOAD, &sent);
    passes(&mut rig, UPLINK, &error);
    // And the other way: the workload says that nobody listens to the answer.
    let answer = talk.answer().udp(UPLINK);
    passes(&mut rig, UPLINK, &answer);
    passes(&mut rig, WORKLOAD, &error_frame(WORKLOAD, POD, &answer));
    // One that is sent to somebody else than the sender of what it quotes is none.
    let mut stray = error;
    stray[14 + 16..14 + 20].copy_from_slice(&[10, 70, 0, 1]);
    support::mend_ipv4_checksum(&mut stray);
    neighbor(&mut rig, Some(allow()), None);
    is_dropped(&mut rig, UPLINK, &stray, DropReason::FlowInvalid);
    police(&mut rig, Some(deny()), Some(deny()));
    is_dropped(&mut rig, UPLINK, &error_frame(UPLINK, "10.69.0.9", &sent), DropReason::EgressDenied);
    rig.audit();
}

#[test]
fn later_fragments_go_with_the_first_of_their_datagram() {
    let datagram = |by, src: &str, dst: &str, id| {
        fragments(&Build::packet(by, src, dst).dport(80).fragmentable().payload(40).frame(), id)
    };
    let to_80 = || rules(vec![to_port(Action::Allow, protocol::UDP, 80)]);
    for (by, src, dst) in [(UPLINK, REMOTE, POD), (WORKLOAD, POD, REMOTE)] {
        let mut rig = policed(Some(to_80()), Some(to_80()));
        let [first, later] = datagram(by, src, dst, 7);
        is_dropped(&mut rig, by, &later, DropReason::FragmentUnknown);
        passes(&mut rig, by, &first);
        passes(&mut rig, by, &later);
        // Of a flow that is known, too.
        let [first, later] = datagram(by, src, dst, 8);
        passes(&mut rig, by, &first);
        passes(&mut rig, by, &later);
        police(&mut rig, Some(deny()), Some(deny()));
        let [first, later] = datagram(by, src, dst, 9);
        let denied = if by == UPLINK { DropReason::IngressDenied } else { DropReason::EgressDenied };
        is_dropped(&mut rig, by, &first, denied);
        is_dropped(&mut rig, by, &later, DropReason::FragmentUnknown);
        rig.audit();
    }
}

/// Small containers all have process 7, and ping with that as their identifier.
#[test]
fn two_that_ping_each_other_with_one_identifier_are_held_to_what_each_may() {
    let there = Talk::new(POD, REMOTE).ports(7, 7);
    let back = there.answer();
    let mut rig = policed(Some(allow()), Some(allow()));
    passes(&mut rig, WORKLOAD, &there.ping(WORKLOAD));
    passes(&mut rig, UPLINK, &back.ping(UPLINK));
    passes(&mut rig, WORKLOAD, &there.pong(WORKLOAD));
    passes(&mut rig, UPLINK, &back.pong(UPLINK));
    assert_eq!(in_use(&rig), 1);
    let mut rig = client();
    passes(&mut rig, WORKLOAD, &there.ping(WORKLOAD));
    is_dropped(&mut rig, UPLINK, &back.ping(UPLINK), DropReason::IngressDenied);
    passes(&mut rig, UPLINK, &back.pong(UPLINK));
    rig.audit();
}

#[test]
fn neighbours_and_listeners_messages_are_judged_each_for_itself() {
    let mut rig = policed(None, Some(rules(vec![between(Action::Allow, "fd65::/16", "fd65::/16")])));
    for dst in ["fd65:1::2", "fd69::2"] {
        let message = Talk::new("fd65::2", dst).icmp(WORKLOAD, 143);
        match dst {
            "fd65:1::2" => passes(&mut rig, WORKLOAD, &message),
            _ => is_dropped(&mut rig, WORKLOAD, &message, DropReason::EgressDenied),
        }
    }
    assert_eq!(in_use(&rig), 0);
}

#[test]
fn protocols_without_ports_are_flows_by_their_addresses() {
    const GRE: u8 = 47;
    let frame = |by, src: &str, dst: &str| {
        let mut frame = Build::packet(by, src, dst).frame();
        frame[23] = GRE;
        support::mend_ipv4_checksum(&mut frame);
        frame
    };
    let mut rig =
        policed(Some(deny()), Some(rules(vec![Rule { protocol: Some(GRE), ..Rule::any(Action::Allow) }])));
    is_dropped(&mut rig, UPLINK, &frame(UPLINK, REMOTE, POD), DropReason::IngressDenied);
    passes(&mut rig, WORKLOAD, &frame(WORKLOAD, POD, REMOTE));
    passes(&mut rig, UPLINK, &frame(UPLINK, REMOTE, POD));
    is_dropped(&mut rig, WORKLOAD, &Talk::new(POD, REMOTE).udp(WORKLOAD), DropReason::EgressDenied);
}

fn translating(ingress: Arc<Checks>, egress: Arc<Checks>) -> Rig {
    let mut rig = policed(Some(ingress), Some(egress));
    rig.writer.set_nat(Nat::new(&translation::rules()));
    rig.publish();
    rig
}

/// Egress policy sees the workload's own address, and one flow serves both: a row, and what translation shares.
#[test]
fn what_leaves_under_another_source_is_judged_before() {
    let to_server = || rules(vec![between(Action::Allow, "10.65.0.2/32", "10.69.0.0/16")]);
    let mut rig = translating(deny(), to_server());
    let talk = Talk::new(POD, SERVER);
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, SYN));
    let out = rig.left_by(OUT);
    assert_eq!(key(&out).source().to_string(), OUTER);
    assert_eq!(rig.flows.rows().count(), 1);
    let sport = key(&out).sport;
    let answer = Talk::new(SERVER, OUTER).ports(80, sport);
    passes(&mut rig, OUT, &answer.tcp(OUT, SYN | ACK));
    assert_eq!(key(&rig.left_by(WORKLOAD)).destination().to_string(), POD);
    let error = error_frame(OUT, "10.69.0.9", &out);
    passes(&mut rig, OUT, &error);
    assert_eq!(key(&rig.left_by(WORKLOAD)).destination().to_string(), POD);
    // Cut, with its answers and errors.
    police(&mut rig, Some(allow()), Some(deny()));
    is_dropped(&mut rig, OUT, &answer.tcp(OUT, ACK), DropReason::EgressDenied);
    is_dropped(&mut rig, OUT, &error, DropReason::EgressDenied);
    is_dropped(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, ACK), DropReason::EgressDenied);
    is_dropped(
        &mut rig,
        WORKLOAD,
        &Talk::new(POD, SERVER).ports(9, 9).udp(WORKLOAD),
        DropReason::EgressDenied,
    );
    assert_eq!(rig.flows.rows().count(), 1, "what is denied begins nothing");
    rig.audit();
}

/// The address that ingress policy sees is the workload's own, not the floating one.
#[test]
fn what_comes_to_a_floating_ip_is_judged_after_it_is_translated() {
    for (dst, allowed) in [("10.65.0.2/32", true), ("198.51.100.7/32", false)] {
        let mut rig = translating(rules(vec![between(Action::Allow, "10.65.1.0/24", dst)]), deny());
        let talk = Talk::new(REMOTE, FLOATING);
        let frame = talk.tcp(UPLINK, SYN);
        match allowed {
            true => {
                passes(&mut rig, UPLINK, &frame);
                let inside = Talk::new(POD, REMOTE).ports(80, 4000);
                passes(&mut rig, WORKLOAD, &inside.tcp(WORKLOAD, SYN | ACK));
                passes(&mut rig, UPLINK, &talk.tcp(UPLINK, ACK));
                police(&mut rig, Some(deny()), None);
                is_dropped(&mut rig, WORKLOAD, &inside.tcp(WORKLOAD, ACK), DropReason::IngressDenied);
            }
            false => is_dropped(&mut rig, UPLINK, &frame, DropReason::IngressDenied),
        }
        assert_eq!(in_use(&rig), usize::from(allowed), "what is denied begins nothing");
        rig.audit();
    }
}

#[test]
fn a_packet_that_waits_for_its_neighbour_has_been_judged() {
    let mut rig = client();
    let talk = Talk::new(POD, "10.67.0.1");
    let moved: Moved = rig.send(WORKLOAD, &talk.udp(WORKLOAD));
    assert_eq!(moved.punts(), [(PuntReason::Unresolved.as_str(), 1)]);
    assert_eq!(in_use(&rig), 1, "its answer may come before its next packet");
    police(&mut rig, None, Some(deny()));
    is_dropped(&mut rig, WORKLOAD, &talk.udp(WORKLOAD), DropReason::EgressDenied);
    // The slow path's own packets are not asked for: errors, and what has waited.
    police(&mut rig, Some(deny()), Some(deny()));
    rig.inject.push(tables::Inject::Walk, &Talk::new(OUTER, POD).udp(HOST)).unwrap();
    assert_eq!(rig.run().forwarded(), 1);
    rig.audit();
}

#[test]
fn a_flood_of_first_packets_ends_no_established_flow() {
    let mut rig = Rig::sized(Sizes { flows: 64, ..Sizes::default() });
    police(&mut rig, Some(rules(vec![to_port(Action::Allow, TCP, 80)])), Some(deny()));
    let talks: Vec<Talk> = (0..16).map(|n| Talk::new(REMOTE, POD).ports(1000 + n, 80)).collect();
    for talk in &talks {
        passes(&mut rig, UPLINK, &talk.tcp(UPLINK, SYN));
        passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, SYN | ACK));
        passes(&mut rig, UPLINK, &talk.tcp(UPLINK, ACK));
    }
    for n in 0..2_000 {
        let src = format!("10.65.1.{}", 3 + n % 50);
        passes(&mut rig, UPLINK, &Talk::new(&src, POD).ports(10_000 + n, 80).tcp(UPLINK, SYN));
        while rig.wire(WORKLOAD).receive().is_some() {}
    }
    let evicted = rig.flows.counts().evicted;
    assert!(evicted > 1_900, "{evicted}");
    for talk in &talks {
        passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, ACK));
    }
}

#[test]
fn a_table_full_of_established_flows_lets_no_new_one_begin() {
    let mut rig = Rig::sized(Sizes { flows: 4, ..Sizes::default() });
    police(&mut rig, Some(allow()), Some(allow()));
    let talks: Vec<Talk> = (0..4).map(|n| Talk::new(REMOTE, POD).ports(1000 + n, 80)).collect();
    for talk in &talks {
        passes(&mut rig, UPLINK, &talk.udp(UPLINK));
        passes(&mut rig, WORKLOAD, &talk.answer().udp(WORKLOAD));
    }
    let new = Talk::new(REMOTE, POD).ports(2000, 80);
    is_dropped(&mut rig, UPLINK, &new.udp(UPLINK), DropReason::FlowTableFull);
    is_dropped(&mut rig, HOST, &Talk::new(OUTER, POD).udp(HOST), DropReason::FlowTableFull);
    passes(&mut rig, UPLINK, &talks[0].udp(UPLINK));
    rig.audit();
}

/// Two workers share the table of flows: what one begins the other knows, and what policy cuts both cut.
#[test]
fn two_workers_answer_as_one() {
    let mut writer = Writer::new(limits(2));
    fill(&mut writer);
    let counters = Counters::new(2, 16);
    let flows = Flows::new(64);
    let shared = || (counters.clone(), flows.clone());
    let mut ends = fastpath::handoffs(2, 16, 2048);
    let (second_ends, first_ends) = (ends.remove(1), ends.remove(0));
    let sizes = Sizes::default();
    let (mut first, outside) = worker(&mut writer, WorkerId(0), shared(), first_ends, &PORTS, sizes);
    let (mut second, inside) = worker(&mut writer, WorkerId(1), shared(), second_ends, &PORTS, sizes);
    let policy = |ingress| EndpointPolicy {
        ingress: Some(ingress),
        egress: Some(deny()),
        ..EndpointPolicy::default()
    };
    let publish = |writer: &mut Writer, first: &mut fastpath::Worker, second: &mut fastpath::Worker| {
        first.housekeeping();
        second.housekeeping();
        writer.publish();
    };
    writer.put_policy("default/pod", &policy(rules(vec![to_port(Action::Allow, TCP, 80)]))).unwrap();
    publish(&mut writer, &mut first, &mut second);
    let talk = Talk::new(REMOTE, POD);
    let at = |port: PortId| port.index();
    let forwarded = || counters.books().forwarded;
    assert!(inside.wires[at(WORKLOAD)].send(&talk.answer().tcp(WORKLOAD, ACK)));
    second.round();
    assert_eq!(counters.books().drops[DropReason::EgressDenied.index()], 1, "an answer to nothing");
    assert!(outside.wires[at(UPLINK)].send(&talk.tcp(UPLINK, SYN)));
    first.round();
    assert!(inside.wires[at(WORKLOAD)].send(&talk.answer().tcp(WORKLOAD, SYN | ACK)));
    second.round();
    first.round();
    assert_eq!(forwarded(), 2);
    writer.put_policy("default/pod", &policy(deny())).unwrap();
    publish(&mut writer, &mut first, &mut second);
    assert!(inside.wires[at(WORKLOAD)].send(&talk.answer().tcp(WORKLOAD, ACK)));
    assert!(outside.wires[at(UPLINK)].send(&talk.tcp(UPLINK, ACK)));
    first.round();
    second.round();
    assert_eq!(counters.books().drops[DropReason::IngressDenied.index()], 2);
    let left = |parts: &support::Parts, port| parts.wires[at(port)].receive().is_some();
    assert!(left(&outside, WORKLOAD) && left(&outside, UPLINK) | left(&inside, UPLINK));
}

/// It goes up as it came, so that its sender can be told.
#[track_caller]
fn is_refused(rig: &mut Rig, by: PortId, frame: &[u8], reason: PuntReason) {
    let moved = rig.send(by, frame);
    assert_eq!((moved.punts(), moved.drops()), (vec![(reason.as_str(), 1)], vec![]));
    let bytes = rig.punts.pop(|_, bytes| bytes.to_vec());
    assert_eq!(bytes.as_deref(), Some(frame));
}

#[test]
fn connections_above_an_endpoints_limit_are_refused_until_one_ends() {
    for (is_ingress, reason) in
        [(false, PuntReason::EgressConnections), (true, PuntReason::IngressConnections)]
    {
        let mut rig = Rig::new();
        limit_connections(&mut rig, (!is_ingress).then_some(2), is_ingress.then_some(2));
        let (by, back) = if is_ingress { (UPLINK, WORKLOAD) } else { (WORKLOAD, UPLINK) };
        let talk = |sport| match is_ingress {
            true => Talk::new(REMOTE, POD).ports(sport, 80),
            false => Talk::new(POD, REMOTE).ports(sport, 80),
        };
        passes(&mut rig, by, &talk(1).tcp(by, SYN));
        passes(&mut rig, by, &talk(2).tcp(by, SYN));
        is_refused(&mut rig, by, &talk(3).tcp(by, SYN), reason);
        passes(&mut rig, by, &talk(2).tcp(by, SYN));
        passes(&mut rig, by, &talk(4).udp(by));
        // The other direction has no limit.
        passes(&mut rig, back, &talk(9).answer().tcp(back, SYN));
        let counts = |rig: &Rig| rig.flows.connections_of(WORKLOAD);
        assert_eq!(counts(&rig), if is_ingress { (0, 2) } else { (2, 0) });
        passes(&mut rig, back, &talk(1).answer().tcp(back, RST));
        let later = Ticks(rig.flows.now().0 + 8 * 60);
        rig.flows.age(64, later, &tables::FlowTimeouts::default());
        assert_eq!(counts(&rig), (0, 0), "both are over");
        passes(&mut rig, by, &talk(3).tcp(by, SYN));
        let state = rig.writer.staged().ports.get(WORKLOAD).and_then(|port| port.endpoint.clone()).unwrap();
        let refused = state.qos.unwrap().refused_connections();
        assert_eq!(refused, if is_ingress { (1, 0) } else { (0, 1) });
        rig.audit();
    }
}

#[test]
fn a_connection_to_a_floating_ip_or_under_another_source_counts_once() {
    let mut rig = translating(allow(), allow());
    limit_connections(&mut rig, Some(1), Some(1));
    passes(&mut rig, WORKLOAD, &Talk::new(POD, SERVER).tcp(WORKLOAD, SYN));
    let second = Talk::new(POD, SERVER).ports(2, 80);
    is_refused(&mut rig, WORKLOAD, &second.tcp(WORKLOAD, SYN), PuntReason::EgressConnections);
    passes(&mut rig, UPLINK, &Talk::new(REMOTE, FLOATING).tcp(UPLINK, SYN));
    let second = Talk::new(REMOTE, FLOATING).ports(2, 80);
    is_refused(&mut rig, UPLINK, &second.tcp(UPLINK, SYN), PuntReason::IngressConnections);
    assert_eq!(rig.flows.connections_of(WORKLOAD), (1, 1));
    assert_eq!(rig.flows.rows().count(), 2);
    rig.flows.end(0..64, |_, _| true);
    assert_eq!(rig.flows.connections_of(WORKLOAD), (0, 0));
    rig.audit();
}

#[test]
fn what_rules_decide_is_counted_and_told_once_a_judgement() {
    let mut rig =
        policed(Some(rules(vec![Rule::any(Action::Log), to_port(Action::Allow, TCP, 80)])), Some(allow()));
    let talk = Talk::new(REMOTE, POD);
    passes(&mut rig, UPLINK, &talk.tcp(UPLINK, SYN));
    passes(&mut rig, UPLINK, &talk.tcp(UPLINK, ACK));
    is_dropped(&mut rig, UPLINK, &talk.udp(UPLINK), DropReason::IngressDenied);
    let told: Vec<_> = std::iter::from_fn(|| rig.report.next_event()).collect();
    let acts: Vec<_> = told.iter().map(|event| (event.act, event.is_ingress, event.port)).collect();
    let (logged, denied) = (PolicyAct::Logged, PolicyAct::Denied);
    assert_eq!(acts, [(logged, true, WORKLOAD), (logged, true, WORKLOAD), (denied, true, WORKLOAD)]);
    assert_eq!(told[0].packet.upper, policy::compile::Upper::Ports { source: 4000, destination: 80 });
    let mut counts: Vec<_> = rig.report.counts().map(|(_, by, count)| (by.rule.0, count.packets)).collect();
    counts.sort_unstable();
    let packets: Vec<_> = counts.iter().map(|(_, packets)| *packets).collect();
    assert_eq!(packets, [2, 1, 1], "the rule that logs, the one that allows, the tier's end");
}

#[test]
fn staged_policy_tells_what_it_would_have_denied() {
    let mut rig = Rig::new();
    let policy = EndpointPolicy {
        ingress: Some(allow()),
        staged_ingress: Some(rules(vec![to_port(Action::Allow, TCP, 80)])),
        ..EndpointPolicy::default()
    };
    rig.writer.put_policy("default/pod", &policy).unwrap();
    rig.publish();
    passes(&mut rig, UPLINK, &Talk::new(REMOTE, POD).tcp(UPLINK, SYN));
    passes(&mut rig, UPLINK, &Talk::new(REMOTE, POD).udp(UPLINK));
    let told: Vec<_> = std::iter::from_fn(|| rig.report.next_event()).map(|event| event.act).collect();
    assert_eq!(told, [PolicyAct::WouldBeDenied]);
    let mut counts: Vec<_> = rig.report.counts().map(|(_, by, count)| (by.judged, count.packets)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [(Judged::Enforced, 2), (Judged::Staged, 1), (Judged::WouldBeDenied, 1)]);
    police_endpoint(&mut rig, "default/pod", Some(deny()), None);
    is_dropped(&mut rig, UPLINK, &Talk::new(REMOTE, POD).udp(UPLINK), DropReason::IngressDenied);
}

/// A batch's packets are asked about together, and each gets what it would get alone.
#[test]
fn in_company_packets_are_judged_as_they_are_alone() {
    let rig = || {
        let ingress = rules(vec![
            between(Action::Deny, "10.65.1.4/32", "0.0.0.0/0"),
            Rule { protocol: Some(TCP), ..between(Action::Allow, "10.65.1.0/29", "10.65.0.0/24") },
            Rule::any(Action::Log),
            to_port(Action::Allow, protocol::UDP, 80),
        ]);
        let staged = rules(vec![between(Action::Allow, "10.65.1.2/31", "10.65.0.0/16")]);
        let policy = EndpointPolicy {
            ingress: Some(ingress.clone()),
            egress: Some(rules(vec![
                between(Action::Deny, "0.0.0.0/0", "10.65.1.3/32"),
                Rule::any(Action::Allow),
            ])),
            staged_ingress: Some(staged),
            ..EndpointPolicy::default()
        };
        let mut rig = Rig::new();
        rig.writer.put_policy("default/pod", &policy).unwrap();
        let theirs =
            rules(vec![to_port(Action::Allow, TCP, 80), between(Action::Allow, POD, "10.70.0.0/24")]);
        neighbor(&mut rig, Some(theirs), Some(allow()));
        rig
    };
    let mut frames = Vec::new();
    for number in 0..48u16 {
        let (by, src, dst) = match number % 3 {
            0 => (WORKLOAD, POD.to_owned(), NEIGHBOR.to_owned()),
            1 => (WORKLOAD, POD.to_owned(), format!("10.65.1.{}", number % 7)),
            _ => (UPLINK, format!("10.65.1.{}", number % 11), POD.to_owned()),
        };
        let talk = Talk::new(&src, &dst).ports(4000 + number / 4, 80 + number % 2);
        frames.push((
            by,
            match number % 4 {
                0 => talk.udp(by),
                1 => talk.tcp(by, SYN),
                2 => talk.ping(by),
                _ => talk.tcp(by, RST),
            },
        ));
    }
    let (mut alone, mut together) = (rig(), rig());
    let mut dropped = std::collections::BTreeMap::new();
    for (by, frame) in &frames {
        for (reason, count) in alone.send(*by, frame).drops() {
            *dropped.entry(reason).or_insert(0) += count;
        }
    }
    for (by, frame) in &frames {
        assert!(together.wire(*by).send(frame), "the wire has room");
    }
    let moved = together.run();
    assert_eq!(moved.drops().into_iter().collect::<std::collections::BTreeMap<_, _>>(), dropped);
    assert!(dropped.len() >= 3, "{dropped:?}");
    let told = |rig: &Rig| {
        let mut counts: Vec<_> =
            rig.report.counts().map(|(_, by, count)| (by.rule.0, by.judged, count.packets)).collect();
        counts.sort_unstable();
        let mut acts: Vec<_> = std::iter::from_fn(|| rig.report.next_event())
            .map(|event| format!("{:?} {:?} {:?}", event.act, event.rule, event.packet))
            .collect();
        acts.sort_unstable();
        (counts, acts)
    };
    assert_eq!(told(&together), told(&alone));
    assert_eq!(in_use(&together), in_use(&alone));
    together.audit();
}
