//! Calico policy in the walk: whose is asked, of what, how often, and what is told of it.

mod support;

use std::sync::Arc;

use model::PortId;
use packet::protocol;
use policy::rule::{Action, Checks, Rule};
use support::policed::*;
use support::translation::{OUTER, POD};
use support::{HOST, Moved, Rig, STRANGER, UPLINK, WORKLOAD, prefix};
use tables::{DropReason, EndpointPolicy, Judged, PolicyAct, PuntReason};

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
    passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, SYN | ACK));
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
fn what_rules_decide_is_counted_and_told_once_a_judgement() {
    let mut rig =
        policed(Some(rules(vec![Rule::any(Action::Log), to_port(Action::Allow, TCP, 80)])), Some(allow()));
    let talk = Talk::new(REMOTE, POD);
    passes(&mut rig, UPLINK, &talk.tcp(UPLINK, SYN));
    passes(&mut rig, UPLINK, &talk.tcp(UPLINK, SYN));
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

/// `nftablesFilterDenyAction: Reject`.
#[test]
fn senders_are_told_of_what_is_denied_where_that_is_asked_for() {
    let mut rig = policed(Some(rules(vec![to_port(Action::Allow, TCP, 80)])), Some(deny()));
    tell_denied(&mut rig);
    let talk = Talk::new(REMOTE, POD);
    is_refused(&mut rig, UPLINK, &talk.udp(UPLINK), PuntReason::Denied);
    is_refused(&mut rig, WORKLOAD, &Talk::new(POD, REMOTE).tcp(WORKLOAD, SYN), PuntReason::Denied);
    assert_eq!(in_use(&rig), 0);
    // What is cut is told of as well; what belongs to nothing is dropped without a word.
    passes(&mut rig, UPLINK, &talk.tcp(UPLINK, SYN));
    passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, SYN | ACK));
    police(&mut rig, Some(deny()), Some(deny()));
    is_refused(&mut rig, UPLINK, &talk.tcp(UPLINK, ACK), PuntReason::Denied);
    is_refused(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, ACK), PuntReason::Denied);
    is_dropped(&mut rig, UPLINK, &talk.clone().ports(9, 9).tcp(UPLINK, RST), DropReason::FlowInvalid);
    // Denied before routing: in Linux, where nothing can be refused yet.
    police(&mut rig, None, None);
    let denies = || Some(opinion(vec![Rule::any(Action::Deny)]));
    for policy in [
        EndpointPolicy { pre_dnat: denies(), ..EndpointPolicy::default() },
        EndpointPolicy { untracked: denies(), ..EndpointPolicy::default() },
    ] {
        police_host(&mut rig, UPLINK, policy);
        is_dropped(&mut rig, UPLINK, &talk.clone().ports(8, 8).udp(UPLINK), DropReason::ForwardDenied);
    }
    police_host(&mut rig, UPLINK, forward(Some(deny()), None));
    is_refused(&mut rig, UPLINK, &talk.clone().ports(7, 7).udp(UPLINK), PuntReason::Denied);
    rig.audit();
}
