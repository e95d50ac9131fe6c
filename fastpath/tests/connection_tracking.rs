//! What begins a flow, what belongs to one and what is invalid, as Linux's connection tracking has it.

mod support;

use packet::protocol;
use policy::rule::{Action, Rule};
use support::policed::*;
use support::translation::{POD, error_frame, fragments};
use support::{Build, Rig, UPLINK, WORKLOAD};
use tables::{DropReason, FlowRules, FlowTimeouts, Ticks};

/// The workload and one on another node, in both families, and a router on the way.
const ENDS: [(&str, &str, &str); 2] = [(POD, REMOTE, "10.69.0.9"), ("fd65::2", "fd65:1::2", "fd69::9")];

/// As in Linux's connection tracking, which Calico leaves as it is: a connection may be older than this router.
#[test]
fn a_flow_begins_with_a_question_or_in_the_middle_of_a_connection() {
    let mut rig = policed(Some(allow()), Some(allow()));
    for (flags, begins) in [
        (SYN, true),
        (ACK, true),
        (SYN | ACK, false),
        (FIN | ACK, false),
        (RST, false),
        (0, false),
        (SYN | FIN, false),
        (SYN | FIN | ACK, false),
        (FIN, false),
    ] {
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
    // Nobody has answered: neither side has a connection to go on with, or to close.
    for flags in [ACK, FIN | ACK, SYN | ACK] {
        is_dropped(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, flags), DropReason::FlowInvalid);
    }
    is_dropped(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, FIN | ACK), DropReason::FlowInvalid);
    // A bare ACK is no answer.
    passes(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, ACK));
    is_dropped(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, ACK), DropReason::FlowInvalid);
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, SYN));
    // Refused: nothing is left of it.
    passes(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, RST | ACK));
    assert_eq!(in_use(&rig), 0);
    is_dropped(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, SYN | ACK), DropReason::FlowInvalid);
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, SYN));
    passes(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, SYN | ACK));
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, ACK));
    is_dropped(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, SYN), DropReason::FlowInvalid);
    is_dropped(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, RST | SYN), DropReason::FlowInvalid);
    passes(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, RST));
    // The same ports again: it is for the other side to answer once more.
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, SYN));
    is_dropped(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, ACK), DropReason::FlowInvalid);
    rig.writer.set_flow_rules(FlowRules { drops_invalid: false, ..FlowRules::default() });
    rig.publish();
    passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, ACK));
    rig.audit();
}

/// A connection that is older than this router has no SYN to be answered.
#[test]
fn a_connection_that_is_picked_up_goes_on_before_the_other_side_is_heard() {
    let mut rig = client();
    let talk = Talk::new(POD, REMOTE);
    for flags in [ACK, ACK, FIN | ACK] {
        passes(&mut rig, WORKLOAD, &talk.tcp(WORKLOAD, flags));
    }
    is_dropped(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, SYN), DropReason::FlowInvalid);
    passes(&mut rig, UPLINK, &talk.answer().tcp(UPLINK, FIN | ACK));
    rig.audit();
}

/// Lengths that lie, and chunks of SCTP that only who has an association sends.
#[test]
fn a_flow_does_not_begin_with_a_packet_that_nobody_could_take() {
    const LENGTH_OF_UDP: usize = 14 + 20 + 4;
    const OFFSET_OF_TCP: usize = 14 + 20 + 12;
    let mut rig = policed(Some(allow()), Some(allow()));
    let talk = Talk::new(REMOTE, POD);
    for (at, octet, good) in
        [(LENGTH_OF_UDP, 0xff, talk.udp(UPLINK)), (OFFSET_OF_TCP, 0x40, talk.tcp(UPLINK, SYN))]
    {
        let mut bad = good.clone();
        bad[at] = octet;
        is_dropped(&mut rig, UPLINK, &bad, DropReason::FlowInvalid);
        passes(&mut rig, UPLINK, &good);
    }
    let [data, init, init_ack, sack, heartbeat, abort, shutdown, error] = [0, 1, 2, 3, 4, 6, 7, 9];
    let [cookie_echo, cookie_ack, shutdown_complete] = [10, 11, 14];
    let bad: [(u32, &[u8]); 13] = [
        (0, &[]),
        (7, &[init]),
        (0, &[init, data]),
        (7, &[data, cookie_echo]),
        (0, &[data, init]),
        (7, &[init_ack]),
        (7, &[cookie_echo]),
        (7, &[cookie_echo, data]),
        (7, &[error]),
        (7, &[abort]),
        (7, &[shutdown_complete]),
        (7, &[cookie_ack]),
        (7, &[data, abort]),
    ];
    for (tag, chunks) in bad {
        is_dropped(&mut rig, UPLINK, &talk.sctp_of(UPLINK, tag, chunks), DropReason::FlowInvalid);
    }
    let good: [(u32, &[u8]); 5] =
        [(0, &[init]), (7, &[data, data]), (7, &[sack]), (7, &[heartbeat]), (7, &[shutdown])];
    for (port, (tag, chunks)) in (1..).zip(good) {
        let talk = talk.clone().ports(port, 3868);
        passes(&mut rig, UPLINK, &talk.sctp_of(UPLINK, tag, chunks));
        passes(&mut rig, UPLINK, &talk.sctp_of(UPLINK, tag, &[abort]));
    }
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

#[test]
fn an_icmp_error_of_either_family_goes_with_whatever_it_is_about() {
    for (pod, remote, router) in ENDS {
        let mut rig = client();
        let talk = Talk::new(pod, remote);
        for sent in [talk.udp(WORKLOAD), talk.tcp(WORKLOAD, SYN), talk.ping(WORKLOAD), talk.sctp(WORKLOAD)] {
            let error = error_about(UPLINK, router, &sent);
            is_dropped(&mut rig, UPLINK, &error, DropReason::FlowInvalid);
            passes(&mut rig, WORKLOAD, &sent);
            passes(&mut rig, UPLINK, &error);
        }
        assert_eq!(in_use(&rig), 4, "an error begins nothing");
        // Nobody tells of an error that an error met (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
        let answer = talk.answer().udp(UPLINK);
        passes(&mut rig, UPLINK, &answer);
        let error = error_about(WORKLOAD, pod, &answer);
        passes(&mut rig, WORKLOAD, &error);
        is_dropped(&mut rig, UPLINK, &error_about(UPLINK, router, &error), DropReason::FlowInvalid);
        // The pong that nobody asked for is about nothing either.
        let pong = Talk::new(pod, remote).ports(1, 1).pong(WORKLOAD);
        is_dropped(&mut rig, UPLINK, &error_about(UPLINK, router, &pong), DropReason::FlowInvalid);
        rig.audit();
    }
}

#[test]
fn sctp_is_told_apart_by_its_ports() {
    for (pod, remote, _) in ENDS {
        let mut rig = policed(Some(deny()), Some(rules(vec![to_port(Action::Allow, protocol::SCTP, 3868)])));
        let talk = Talk::new(pod, remote).ports(4000, 3868);
        is_dropped(&mut rig, UPLINK, &talk.answer().sctp(UPLINK), DropReason::IngressDenied);
        passes(&mut rig, WORKLOAD, &talk.sctp(WORKLOAD));
        passes(&mut rig, UPLINK, &talk.answer().sctp(UPLINK));
        let other = talk.clone().ports(4000, 3869);
        is_dropped(&mut rig, WORKLOAD, &other.sctp(WORKLOAD), DropReason::EgressDenied);
        is_dropped(&mut rig, UPLINK, &other.answer().sctp(UPLINK), DropReason::IngressDenied);
        is_dropped(&mut rig, WORKLOAD, &talk.udp(WORKLOAD), DropReason::EgressDenied);
        assert_eq!(in_use(&rig), 1);
        rig.audit();
    }
}

/// Calico's `bpfConntrackTimeouts`: a flow is remembered for so many seconds without packets, by its state, and then it is over:
/// what would be its next packet is one of no flow.
#[test]
fn a_flow_is_over_when_it_was_silent_for_as_long_as_its_state_says() {
    let fin = FIN | ACK;
    let handshake = [(false, SYN), (true, SYN | ACK), (false, ACK)];
    let tcp: [(u32, Vec<(bool, u8)>); 6] = [
        (20, handshake[..1].to_vec()),
        (20, handshake[..2].to_vec()),
        (3600, handshake.to_vec()),
        (3600, [&handshake[..], &[(false, fin)]].concat()),
        (30, [&handshake[..], &[(false, fin), (true, fin), (false, ACK)]].concat()),
        (40, [&handshake[..], &[(true, RST)]].concat()),
    ];
    let is_remembered_for = |mut rig: Rig, lasts: u32, next: &[u8]| {
        // Its last packet came between the beginning of the table's time and now.
        let now = rig.flows.now();
        for (since, later, left) in [(Ticks(0), lasts - 1, 1), (now, lasts + 2, 0)] {
            let time = Ticks(since.0 + later * Ticks::PER_SECOND);
            rig.flows.age(64, time, &FlowTimeouts::default());
            assert_eq!(in_use(&rig), left, "after {later} seconds of {lasts}");
        }
        // The workload may send by itself to nobody.
        let moved = rig.send(WORKLOAD, next);
        assert_eq!(moved.forwarded(), 0, "{:?}", moved.drops());
        rig.audit();
    };
    let talk = Talk::new(REMOTE, POD);
    for (lasts, packets) in tcp {
        let mut rig = server();
        for (is_answer, flags) in packets {
            match is_answer {
                false => passes(&mut rig, UPLINK, &talk.tcp(UPLINK, flags)),
                true => passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, flags)),
            }
        }
        is_remembered_for(rig, lasts, &talk.answer().tcp(WORKLOAD, ACK));
    }
    let pinged = talk.clone().ports(7, 7);
    let others = [
        (60, talk.udp(UPLINK), talk.answer().udp(WORKLOAD)),
        (600, talk.sctp(UPLINK), talk.answer().sctp(WORKLOAD)),
        (5, pinged.ping(UPLINK), pinged.answer().pong(WORKLOAD)),
    ];
    for (lasts, asks, answers) in others {
        let mut rig = policed(Some(allow()), Some(deny()));
        passes(&mut rig, UPLINK, &asks);
        passes(&mut rig, WORKLOAD, &answers);
        is_remembered_for(rig, lasts, &answers);
    }
    // Nobody has answered: the grace period is longer than what ICMP gets.
    let mut rig = policed(Some(allow()), Some(deny()));
    passes(&mut rig, UPLINK, &pinged.ping(UPLINK));
    is_remembered_for(rig, 10, &pinged.answer().pong(WORKLOAD));
}
