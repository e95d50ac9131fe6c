//! Policy beside translation: which addresses it sees.

mod support;

use policy::rule::Action;
use support::policed::*;
use support::translation::{FLOATING, OUT, OUTER, POD, SERVER, error_frame};
use support::{UPLINK, WORKLOAD};
use tables::DropReason;

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
