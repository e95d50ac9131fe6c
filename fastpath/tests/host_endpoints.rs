//! Policy of host endpoints on what the walk forwards, in Felix's order: that of the port that it came by, workloads', that of
//! the port that it leaves by.

mod support;

use model::{FailsafePort, PortId, Protocol};
use packet::protocol::UDP;
use policy::rule::{Action, Rule};
use support::policed::*;
use support::translation::{FLOATING, POD};
use support::{FAR_END, HOST, NARROW, OUR_END, Rig, UPLINK, WORKLOAD, in_ipip, translation};
use tables::{DropReason, EndpointPolicy, Nat};

const BEYOND: &str = "10.69.0.1";

/// Host endpoints ask packets that neither start nor end here: by one uplink in, by the other out.
fn transit(sport: u16) -> Talk {
    Talk::new(REMOTE, BEYOND).ports(sport, 80)
}

#[test]
fn transit_is_held_to_the_policy_of_both_ports_and_answers_follow() {
    let web = || rules(vec![to_port(Action::Allow, TCP, 80)]);
    for (port, policy) in
        [(UPLINK, forward(Some(web()), Some(deny()))), (NARROW, forward(Some(deny()), Some(web())))]
    {
        let mut rig = Rig::new();
        police_host(&mut rig, port, policy);
        passes(&mut rig, UPLINK, &transit(1).tcp(UPLINK, SYN));
        passes(&mut rig, NARROW, &transit(1).answer().tcp(NARROW, SYN | ACK));
        passes(&mut rig, UPLINK, &transit(1).tcp(UPLINK, ACK));
        is_dropped(&mut rig, UPLINK, &transit(2).udp(UPLINK), DropReason::ForwardDenied);
        is_dropped(&mut rig, NARROW, &transit(3).answer().tcp(NARROW, RST), DropReason::FlowInvalid);
        is_dropped(&mut rig, NARROW, &Talk::new(BEYOND, REMOTE).tcp(NARROW, SYN), DropReason::ForwardDenied);
        rig.audit();
    }
}

#[test]
fn a_change_of_forward_policy_cuts_what_is_under_way() {
    let mut rig = Rig::new();
    police_host(&mut rig, UPLINK, forward(Some(allow()), None));
    passes(&mut rig, UPLINK, &transit(1).tcp(UPLINK, SYN));
    passes(&mut rig, NARROW, &transit(1).answer().tcp(NARROW, SYN | ACK));
    police_host(&mut rig, UPLINK, forward(Some(deny()), None));
    is_dropped(&mut rig, UPLINK, &transit(1).tcp(UPLINK, ACK), DropReason::ForwardDenied);
    is_dropped(&mut rig, NARROW, &transit(1).answer().tcp(NARROW, ACK), DropReason::ForwardDenied);
}

/// No applyOnForward policy: what is forwarded is allowed, and nothing is remembered of it. So it is at the endpoint of every
/// interface, and of what comes out of tunnels, too: Felix's chain of what is forwarded accepts where it has no tier
/// (`felix/rules/endpoints.go`), and it has one chain for all such interfaces.
#[test]
fn a_host_endpoint_without_forward_policy_lets_all_pass() {
    let ports: [fn(&mut Rig, EndpointPolicy); 2] =
        [|rig, policy| police_host(rig, UPLINK, policy), police_every_port];
    for police in ports {
        let mut rig = Rig::new();
        police(&mut rig, EndpointPolicy::default());
        passes(&mut rig, UPLINK, &transit(1).tcp(UPLINK, RST));
        passes(&mut rig, WORKLOAD, &Talk::new(POD, REMOTE).tcp(WORKLOAD, SYN));
        let inside = Talk::new("10.72.0.9", POD);
        passes(&mut rig, UPLINK, &in_ipip(&inside.udp(UPLINK), FAR_END, OUR_END));
        passes(&mut rig, WORKLOAD, &inside.answer().udp(WORKLOAD));
        assert_eq!(rig.flows.counts().in_use, 0);
    }
}

#[test]
fn workloads_policy_comes_between_those_of_the_ports() {
    // Each denies something else; the first that does is named.
    let but = |port| rules(vec![to_port(Action::Deny, UDP, port), Rule::any(Action::Allow)]);
    let mut rig = Rig::new();
    police(&mut rig, Some(but(2)), Some(but(3)));
    police_host(&mut rig, UPLINK, forward(Some(but(1)), Some(but(4))));
    let inward = |port| Talk::new(REMOTE, POD).ports(9, port).udp(UPLINK);
    let outward = |port| Talk::new(POD, REMOTE).ports(9, port).udp(WORKLOAD);
    is_dropped(&mut rig, UPLINK, &inward(1), DropReason::ForwardDenied);
    is_dropped(&mut rig, UPLINK, &inward(2), DropReason::IngressDenied);
    passes(&mut rig, UPLINK, &inward(3));
    is_dropped(&mut rig, WORKLOAD, &outward(3), DropReason::EgressDenied);
    is_dropped(&mut rig, WORKLOAD, &outward(4), DropReason::ForwardDenied);
    passes(&mut rig, WORKLOAD, &outward(1));
    // The port that denies comes last, so the workload's policy has been asked and has counted.
    let asked: u64 =
        rig.report.counts().map(|(_, by, count)| count.packets * u64::from(!by.is_ingress)).sum();
    assert_eq!(asked, 5, "egress: of the workload 3, of the port 2");
    rig.audit();
}

/// `felix/rules/dispatch.go`: the endpoint of every interface is asked of what comes and goes by workloads' interfaces, too.
#[test]
fn the_endpoint_of_every_interface_is_asked_at_workloads_ports_too() {
    let but = |port| rules(vec![to_port(Action::Deny, UDP, port), Rule::any(Action::Allow)]);
    let mut rig = Rig::new();
    police_every_port(&mut rig, forward(Some(but(1)), Some(but(2))));
    police_host(&mut rig, UPLINK, EndpointPolicy::default());
    for (port, denied) in [(1, true), (2, false)] {
        let frame = Talk::new(POD, REMOTE).ports(9, port).udp(WORKLOAD);
        match denied {
            true => is_dropped(&mut rig, WORKLOAD, &frame, DropReason::ForwardDenied),
            false => passes(&mut rig, WORKLOAD, &frame),
        }
    }
    for (port, denied) in [(1, false), (2, true)] {
        let frame = Talk::new(REMOTE, POD).ports(8, port).udp(UPLINK);
        match denied {
            true => is_dropped(&mut rig, UPLINK, &frame, DropReason::ForwardDenied),
            false => passes(&mut rig, UPLINK, &frame),
        }
    }
}

#[test]
fn what_the_host_sends_and_gets_is_not_forwarded() {
    let mut rig = Rig::new();
    police_every_port(&mut rig, forward(Some(deny()), Some(deny())));
    passes(&mut rig, UPLINK, &Talk::new(REMOTE, OUR_END).tcp(UPLINK, ACK));
    passes(&mut rig, HOST, &Talk::new(OUR_END, REMOTE).tcp(HOST, RST));
    passes(&mut rig, HOST, &Talk::new(OUR_END, POD).udp(HOST));
    passes(&mut rig, WORKLOAD, &Talk::new(POD, OUR_END).udp(WORKLOAD));
    is_dropped(&mut rig, WORKLOAD, &Talk::new(POD, REMOTE).udp(WORKLOAD), DropReason::ForwardDenied);
}

/// What it allows isn't asked by the port's forward policy; what it has no opinion of is.
#[test]
fn pre_dnat_policy_sees_the_floating_address_and_spares_what_it_allows_the_forward_policy() {
    let to_floating = || between(Action::Allow, "0.0.0.0/0", "198.51.100.7/32");
    let deny_remote = || between(Action::Deny, "10.65.1.9/32", "0.0.0.0/0");
    let mut rig = Rig::new();
    rig.writer.set_nat(Nat::new(&translation::rules()));
    let policy = EndpointPolicy {
        pre_dnat: Some(opinion(vec![deny_remote(), to_floating()])),
        ..forward(Some(deny()), None)
    };
    police_host(&mut rig, UPLINK, policy);
    passes(&mut rig, UPLINK, &Talk::new(REMOTE, FLOATING).tcp(UPLINK, SYN));
    passes(&mut rig, WORKLOAD, &Talk::new(POD, REMOTE).ports(80, 4000).tcp(WORKLOAD, SYN | ACK));
    passes(&mut rig, UPLINK, &Talk::new(REMOTE, FLOATING).tcp(UPLINK, ACK));
    is_dropped(
        &mut rig,
        UPLINK,
        &Talk::new("10.65.1.9", FLOATING).tcp(UPLINK, SYN),
        DropReason::ForwardDenied,
    );
    is_dropped(
        &mut rig,
        UPLINK,
        &Talk::new(REMOTE, POD).ports(7, 80).tcp(UPLINK, SYN),
        DropReason::ForwardDenied,
    );
    police(&mut rig, Some(deny()), None);
    is_dropped(&mut rig, UPLINK, &Talk::new(REMOTE, FLOATING).tcp(UPLINK, ACK), DropReason::IngressDenied);
    rig.audit();
}

#[test]
fn failsafe_ports_pass_pre_dnat_and_untracked_policy_and_not_that_on_forwarded_traffic() {
    let denies = || Some(opinion(vec![Rule::any(Action::Deny)]));
    let failsafe = |port, net: Option<&str>| FailsafePort {
        protocol: Protocol::TCP,
        port,
        net: net.map(|net| net.parse().unwrap()),
    };
    for policy in [
        EndpointPolicy { pre_dnat: denies(), ..EndpointPolicy::default() },
        EndpointPolicy { untracked: denies(), ..EndpointPolicy::default() },
    ] {
        let mut rig = Rig::new();
        police_host(&mut rig, UPLINK, policy.clone());
        let mut host_endpoints = rig.writer.staged().policy.host_endpoints().clone();
        host_endpoints.failsafe_inbound =
            vec![failsafe(80, Some("10.65.1.0/24")), failsafe(81, Some("192.0.2.0/24"))];
        rig.writer.set_host_endpoints(host_endpoints);
        rig.publish();
        passes(&mut rig, UPLINK, &transit(1).tcp(UPLINK, SYN));
        is_dropped(&mut rig, UPLINK, &transit(1).ports(1, 81).tcp(UPLINK, SYN), DropReason::ForwardDenied);
        is_dropped(&mut rig, UPLINK, &transit(1).udp(UPLINK), DropReason::ForwardDenied);
        police_host(&mut rig, UPLINK, EndpointPolicy { ingress: Some(deny()), ..policy });
        is_dropped(&mut rig, UPLINK, &transit(2).tcp(UPLINK, SYN), DropReason::ForwardDenied);
    }
}

#[test]
fn untracked_policy_is_asked_of_every_packet_and_what_it_allows_begins_no_flow() {
    let mut rig = Rig::new();
    let policy = EndpointPolicy {
        untracked: Some(opinion(vec![to_port(Action::Allow, TCP, 80), to_port(Action::Deny, UDP, 80)])),
        ..forward(Some(deny()), None)
    };
    police_host(&mut rig, UPLINK, policy);
    for flags in [SYN, ACK, RST] {
        passes(&mut rig, UPLINK, &transit(1).tcp(UPLINK, flags));
    }
    assert_eq!(rig.flows.counts().in_use, 0);
    is_dropped(&mut rig, UPLINK, &transit(1).udp(UPLINK), DropReason::ForwardDenied);
    // No opinion: then the others are asked.
    is_dropped(&mut rig, UPLINK, &transit(1).ports(1, 81).udp(UPLINK), DropReason::ForwardDenied);
    // The workload's own policy is asked of each packet, for itself.
    passes(&mut rig, UPLINK, &Talk::new(REMOTE, POD).tcp(UPLINK, ACK));
    police(&mut rig, Some(deny()), Some(allow()));
    is_dropped(&mut rig, UPLINK, &Talk::new(REMOTE, POD).tcp(UPLINK, ACK), DropReason::IngressDenied);
    // And that of the port by which it leaves.
    police_host(&mut rig, NARROW, forward(None, Some(deny())));
    is_dropped(&mut rig, UPLINK, &transit(1).tcp(UPLINK, ACK), DropReason::ForwardDenied);
    rig.audit();
}

/// Felix has no such chain for all interfaces, and none at workloads' (`felix/rules/static.go`, `StaticRawPreroutingChain`).
#[test]
fn untracked_policy_needs_the_name_of_an_interface() {
    let untracked = |action| EndpointPolicy {
        untracked: Some(opinion(vec![Rule::any(action)])),
        ..EndpointPolicy::default()
    };
    let mut rig = Rig::new();
    police_every_port(&mut rig, untracked(Action::Deny));
    passes(&mut rig, UPLINK, &transit(1).tcp(UPLINK, SYN));
    passes(&mut rig, WORKLOAD, &Talk::new(POD, REMOTE).udp(WORKLOAD));
    // Nor does it spare what it would allow the workload's own policy.
    police_every_port(&mut rig, untracked(Action::Allow));
    police(&mut rig, Some(deny()), Some(allow()));
    passes(&mut rig, WORKLOAD, &Talk::new(POD, REMOTE).udp(WORKLOAD));
    assert_eq!(rig.flows.counts().in_use, 1, "it is tracked");
    passes(&mut rig, UPLINK, &Talk::new(POD, REMOTE).answer().udp(UPLINK));
    // An interface that is named beside has its own.
    police_host(&mut rig, UPLINK, untracked(Action::Deny));
    is_dropped(&mut rig, UPLINK, &transit(1).tcp(UPLINK, SYN), DropReason::ForwardDenied);
    rig.audit();
}

/// In Linux a tunnel is an interface of its own: an endpoint that names the uplink isn't asked of what is inside, and that of
/// every interface is.
#[test]
fn what_comes_and_goes_by_tunnels_is_asked_by_the_endpoint_of_every_interface_alone() {
    let mut rig = Rig::new();
    let inward = |sport| in_ipip(&Talk::new("10.72.0.9", POD).ports(sport, 80).udp(UPLINK), FAR_END, OUR_END);
    let outward = |sport| Talk::new(POD, "10.72.0.9").ports(sport, 80).udp(WORKLOAD);
    police_host(&mut rig, UPLINK, forward(Some(deny()), Some(deny())));
    passes(&mut rig, UPLINK, &inward(1));
    passes(&mut rig, WORKLOAD, &outward(2));
    assert_eq!(rig.flows.counts().in_use, 0, "nothing is asked of it");
    is_dropped(&mut rig, WORKLOAD, &Talk::new(POD, REMOTE).udp(WORKLOAD), DropReason::ForwardDenied);
    // As for a workload's interface, too.
    police_every_port(&mut rig, forward(Some(deny()), None));
    is_dropped(&mut rig, UPLINK, &inward(3), DropReason::ForwardDenied);
    police_every_port(&mut rig, forward(Some(rules(vec![to_port(Action::Allow, UDP, 80)])), Some(deny())));
    is_dropped(&mut rig, WORKLOAD, &outward(4), DropReason::ForwardDenied);
    police_every_port(&mut rig, forward(Some(allow()), Some(allow())));
    passes(&mut rig, WORKLOAD, &outward(5));
    let answer = Talk::new(POD, "10.72.0.9").ports(5, 80).answer();
    passes(&mut rig, UPLINK, &in_ipip(&answer.udp(UPLINK), FAR_END, OUR_END));
    assert_eq!(rig.flows.counts().in_use, 1);
    rig.audit();
}

/// What belongs to known flows is compared together, but only where it comes and goes by the same interfaces.
#[test]
fn in_one_batch_tunnels_and_what_goes_beside_them_are_told_apart() {
    const FLOWS: u16 = 4;
    let mut rig = Rig::new();
    let by_tunnel = |sport| Talk::new(POD, "10.72.0.9").ports(sport, 80);
    let beside = |sport| Talk::new(POD, REMOTE).ports(sport, 80);
    let outward = |sport| [by_tunnel(sport).udp(WORKLOAD), beside(sport).udp(WORKLOAD)];
    let inward = |sport| {
        let [inside, plain] = [by_tunnel(sport), beside(sport)].map(|talk| talk.answer().udp(UPLINK));
        [in_ipip(&inside, FAR_END, OUR_END), plain]
    };
    let send = |rig: &mut Rig, by: PortId, frames: &dyn Fn(u16) -> [Vec<u8>; 2]| {
        let all = (1..=FLOWS).flat_map(frames);
        all.for_each(|frame| assert!(rig.wire(by).send(&frame)));
        let moved = rig.run();
        (moved.forwarded(), moved.drops())
    };
    let denied = || vec![(DropReason::ForwardDenied.as_str(), FLOWS.into())];
    let (all, half) = ((2 * u64::from(FLOWS), vec![]), (FLOWS.into(), denied()));
    police_every_port(&mut rig, forward(Some(allow()), Some(allow())));
    police_host(&mut rig, UPLINK, forward(Some(allow()), Some(allow())));
    assert_eq!(send(&mut rig, WORKLOAD, &outward), all);
    assert_eq!(send(&mut rig, UPLINK, &inward), all);
    assert_eq!(rig.flows.counts().in_use, 2 * usize::from(FLOWS));
    for uplink_allows in [false, true] {
        let named = if uplink_allows { allow() } else { deny() };
        police_host(&mut rig, UPLINK, forward(Some(named.clone()), Some(named)));
        assert_eq!(
            send(&mut rig, WORKLOAD, &outward),
            if uplink_allows { all.clone() } else { half.clone() }
        );
        assert_eq!(send(&mut rig, UPLINK, &inward), if uplink_allows { all.clone() } else { half.clone() });
    }
    rig.audit();
}
