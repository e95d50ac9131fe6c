//! What workloads send to their own host: policy, defaultEndpointToHostAction, and what passes before either.

mod support;

use model::{FailsafePort, Protocol};
use policy::rule::{Action, Rule};
use support::policed::*;
use support::translation::{OUT, OUTER, POD};
use support::{HOST, Rig, UPLINK, WORKLOAD};
use tables::{DropReason, EndpointPolicy, FlowRules, PuntReason};

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
    passes(&mut rig, HOST, &talk.answer().tcp(HOST, SYN | ACK));
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
        // A lease is renewed with the server alone, which hears of it by the workload's interface.
        is_refused(&mut rig, WORKLOAD, &to_node.clone().ports(68, 67).udp(WORKLOAD), PuntReason::Dhcp);
        passes(&mut rig, WORKLOAD, &to_node.clone().ports(9999, 53).udp(WORKLOAD));
        is_dropped(&mut rig, WORKLOAD, &to_node.clone().ports(9999, 53).tcp(WORKLOAD, SYN), refused);
        is_dropped(&mut rig, WORKLOAD, &to_node.clone().ports(546, 547).udp(WORKLOAD), refused);
        let to_node = Talk::new("fd65::2", "fd18::1");
        is_refused(&mut rig, WORKLOAD, &to_node.clone().ports(546, 547).udp(WORKLOAD), PuntReason::Dhcp);
        is_dropped(&mut rig, WORKLOAD, &to_node.clone().ports(68, 67).udp(WORKLOAD), refused);
        rig.audit();
    }
}

#[test]
fn a_lease_is_renewed_where_nothing_else_is_asked_of_workloads() {
    let mut rig = Rig::new();
    rig.writer.set_flow_rules(FlowRules { passes_dhcp_and_dns: true, ..FlowRules::default() });
    rig.publish();
    let to_node = Talk::new(POD, OUTER);
    is_refused(&mut rig, WORKLOAD, &to_node.clone().ports(68, 67).udp(WORKLOAD), PuntReason::Dhcp);
    passes(&mut rig, WORKLOAD, &to_node.clone().ports(9999, 53).udp(WORKLOAD));
    passes(&mut rig, WORKLOAD, &to_node.tcp(WORKLOAD, SYN));
    // To another node's, and from the host: on their ways as ever.
    passes(&mut rig, WORKLOAD, &Talk::new(POD, "10.65.1.2").ports(68, 67).udp(WORKLOAD));
    passes(&mut rig, HOST, &Talk::new(OUTER, POD).ports(68, 67).udp(HOST));
    rig.audit();
}

/// Makes ports a host endpoint's.
type Police = fn(&mut Rig, EndpointPolicy);

/// As Felix's own table has it (`felix/fv/ep_to_host_action_test.go`): pre-DNAT policy of the endpoint of every interface comes
/// before defaultEndpointToHostAction, and neither undoes what the other drops; no other policy of host endpoints is asked.
#[test]
fn host_endpoints_have_no_say_in_what_workloads_send_to_the_host_but_by_pre_dnat_policy() {
    let pre_dnat = |action| EndpointPolicy {
        pre_dnat: Some(opinion(vec![Rule::any(action)])),
        ..EndpointPolicy::default()
    };
    let other = || EndpointPolicy {
        untracked: Some(opinion(vec![Rule::any(Action::Deny)])),
        ..forward(Some(deny()), Some(deny()))
    };
    let to_host = Some(DropReason::WorkloadToHost);
    let denied = Some(DropReason::ForwardDenied);
    let named: Police = |rig, policy| police_host(rig, UPLINK, policy);
    let every: Police = police_every_port;
    let cases: [(Police, EndpointPolicy, [Option<DropReason>; 2]); 6] = [
        // Whose it is, its policy, and what comes of it where the action is to accept, and where it is to drop.
        (every, EndpointPolicy::default(), [None, to_host]),
        (named, pre_dnat(Action::Deny), [None, to_host]),
        (named, other(), [None, to_host]),
        (every, pre_dnat(Action::Allow), [None, to_host]),
        (every, pre_dnat(Action::Deny), [denied, denied]),
        (every, other(), [None, to_host]),
    ];
    for (number, (police, policy, outcomes)) in cases.into_iter().enumerate() {
        for (drops, outcome) in [false, true].into_iter().zip(outcomes) {
            let mut rig = Rig::new();
            police(&mut rig, policy.clone());
            if drops {
                drop_to_host(&mut rig);
            }
            let frame = Talk::new(POD, OUTER).tcp(WORKLOAD, SYN);
            println!("case {number}, to be dropped: {drops}");
            match outcome {
                None => passes(&mut rig, WORKLOAD, &frame),
                Some(reason) => is_dropped(&mut rig, WORKLOAD, &frame, reason),
            }
            rig.audit();
        }
    }
}

#[test]
fn failsafe_ports_of_the_host_are_open_to_workloads_whatever_pre_dnat_policy_says() {
    let mut rig = Rig::new();
    let pre_dnat = Some(opinion(vec![Rule::any(Action::Deny)]));
    police_every_port(&mut rig, EndpointPolicy { pre_dnat, ..EndpointPolicy::default() });
    let mut host_endpoints = rig.writer.staged().policy.host_endpoints().clone();
    host_endpoints.failsafe_inbound = vec![FailsafePort { protocol: Protocol::TCP, port: 22, net: None }];
    rig.writer.set_host_endpoints(host_endpoints);
    rig.publish();
    passes(&mut rig, WORKLOAD, &Talk::new(POD, OUTER).ports(1, 22).tcp(WORKLOAD, SYN));
    assert!(rig.report.next_event().is_none(), "policy isn't asked of it, and so denies nothing");
    assert_eq!(rig.report.counts().count(), 0);
    is_dropped(
        &mut rig,
        WORKLOAD,
        &Talk::new(POD, OUTER).ports(1, 23).tcp(WORKLOAD, SYN),
        DropReason::ForwardDenied,
    );
}

/// Under OpenStack an instance asks 169.254.169.254, and its metadata come from a server on its host or elsewhere.
#[test]
fn an_instance_has_its_metadata_from_where_that_is_served() {
    // On the host nothing is asked of policy; elsewhere it is asked of the server's own address.
    for (server, exit, answered_by) in
        [("127.0.0.1", HOST, HOST), (OUTER, HOST, HOST), (support::translation::SERVER, OUT, OUT)]
    {
        let to_server = rules(vec![between(Action::Allow, "10.65.0.2/32", &format!("{server}/32"))]);
        let mut rig = policed(None, Some(if exit == HOST { deny() } else { to_server }));
        drop_to_host(&mut rig);
        serve_metadata(&mut rig, server);
        let asks = Talk::new(POD, "169.254.169.254").ports(4000, 80);
        passes(&mut rig, WORKLOAD, &asks.tcp(WORKLOAD, SYN));
        let asked = key(&rig.left_by(exit));
        assert_eq!((asked.destination().to_string(), asked.dport), (server.to_owned(), 8775));
        let answers = Talk::new(server, POD).ports(8775, 4000);
        passes(&mut rig, answered_by, &answers.tcp(answered_by, SYN | ACK));
        let answered = key(&rig.left_by(WORKLOAD));
        assert_eq!((answered.source().to_string(), answered.sport), ("169.254.169.254".to_owned(), 80));
        passes(&mut rig, WORKLOAD, &asks.tcp(WORKLOAD, ACK));
        // A new epoch asks again.
        rig.writer.put_set(policy::rule::SetId(9), []).unwrap();
        rig.publish();
        passes(&mut rig, WORKLOAD, &asks.tcp(WORKLOAD, ACK));
        // Nothing else there is anybody's, and nobody is reached as the loopback.
        for other in
            [asks.clone().ports(4001, 81).tcp(WORKLOAD, SYN), asks.udp(WORKLOAD), asks.ping(WORKLOAD)]
        {
            is_dropped(&mut rig, WORKLOAD, &other, DropReason::LinkLocal);
        }
        is_dropped(
            &mut rig,
            UPLINK,
            &Talk::new(REMOTE, "169.254.169.254").tcp(UPLINK, SYN),
            DropReason::LinkLocal,
        );
        let to_loopback = Talk::new(POD, "127.0.0.1").ports(4000, 8775);
        is_dropped(&mut rig, WORKLOAD, &to_loopback.tcp(WORKLOAD, SYN), DropReason::MartianDestination);
        rig.audit();
    }
    // Without OpenStack the address is link-local as any other.
    let mut rig = policed(None, Some(allow()));
    let asks = Talk::new(POD, "169.254.169.254");
    is_dropped(&mut rig, WORKLOAD, &asks.tcp(WORKLOAD, SYN), DropReason::LinkLocal);
}

#[test]
fn the_hosts_loopback_says_nothing_that_it_was_not_asked_for() {
    let mut rig = policed(Some(allow()), Some(allow()));
    serve_metadata(&mut rig, "127.0.0.1");
    let talk = Talk::new("127.0.0.1", POD).ports(8775, 4000);
    is_dropped(&mut rig, HOST, &talk.tcp(HOST, ACK), DropReason::NatInvalid);
    is_dropped(&mut rig, HOST, &talk.clone().ports(8776, 4000).tcp(HOST, ACK), DropReason::MartianSource);
    is_dropped(&mut rig, UPLINK, &talk.tcp(UPLINK, ACK), DropReason::MartianSource);
    // Elsewhere, the server may speak for itself.
    serve_metadata(&mut rig, OUTER);
    passes(&mut rig, HOST, &Talk::new(OUTER, POD).ports(8775, 4000).tcp(HOST, SYN));
    rig.audit();
}
