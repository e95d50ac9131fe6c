use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::policy::compile::{Packet, ProgramId, Upper};
use ::policy::judge::Verdict;
use ::policy::rule::{Action, AfterTiers, Checks, EndMatch, Policy as Rules, Rule, SetId, Tier, TierDefault};
use ::policy::sets::Member;
use model::{Family, IfIndex, MacAddr, PortId, PortKind};

use crate::{Endpoint, EndpointPolicy, FlowRules, Limits, PolicyLimits, Port, PortPolicy, Writer};

fn writer() -> Writer {
    let policy = PolicyLimits { programs: 4, rules: 20, members: 8, bytes: 1 << 20 };
    Writer::new(Limits {
        ports: 8,
        adjacencies: 4,
        groups: 4,
        routes_v4: 10,
        routes_v6: 10,
        policy,
        readers: 1,
    })
}

fn port(id: u16, endpoint: Option<&str>) -> Port {
    Port {
        id: PortId(id),
        name: format!("cali{id}"),
        ifindex: IfIndex(u32::from(id) + 1),
        kind: PortKind::Workload,
        mac: MacAddr([2, 0, 0, 0, 0, id as u8]),
        mtu: 1500,
        up: true,
        queues: 1,
        endpoint: endpoint.map(|name| Endpoint { name: name.to_owned(), addresses: Vec::new(), qos: None }),
    }
}

/// Allowed is what comes from the set, or what doesn't.
fn checks(action: Action, set: u32) -> Arc<Checks> {
    let source = EndMatch { sets: vec![SetId(set)], ..EndMatch::default() };
    let other = if action == Action::Allow { Action::Deny } else { Action::Allow };
    let rules = vec![Rule { source, ..Rule::any(action) }, Rule::any(other)];
    let policies = vec![Arc::new(Rules { name: "p".to_owned(), rules })];
    let tiers = vec![Tier { name: "t".to_owned(), policies, default: TierDefault::Deny }];
    Arc::new(Checks { tiers, after: AfterTiers::Profiles(Vec::new()) })
}

fn ingress(checks: Arc<Checks>) -> EndpointPolicy {
    EndpointPolicy { ingress: Some(checks), ..EndpointPolicy::default() }
}

fn member(last: u8) -> Member {
    Member::Net(format!("10.0.0.{last}/32").parse().unwrap())
}

fn from(last: u8) -> Packet {
    Packet {
        source: 0x0a00_0000 + u128::from(last),
        destination: 0x0a00_0100,
        family: Family::V4,
        protocol: 6,
        upper: Upper::Ports { source: 1024, destination: 80 },
    }
}

#[test]
fn a_port_has_the_policy_of_its_endpoint_from_the_next_batch_on() {
    let mut writer = writer();
    let mut reader = writer.reader().unwrap();
    writer.put_port(port(1, Some("ns/a"))).unwrap();
    writer.put_port(port(2, None)).unwrap();
    writer.put_set(SetId(7), [member(1)]).unwrap();
    writer.put_policy("ns/a", &ingress(checks(Action::Allow, 7))).unwrap();
    assert!(reader.snapshot().state.policy.is_empty());
    reader.go_offline();
    writer.publish();
    let policy = &reader.snapshot().state.policy;
    assert_eq!(policy.of(PortId(2)), PortPolicy::default());
    let PortPolicy { ingress: Some(program), egress: None, .. } = policy.of(PortId(1)) else {
        panic!("ingress only")
    };
    assert_eq!(policy.judge(program, &from(1)).verdict, Verdict::Allow);
    let denied = policy.judge(program, &from(2));
    assert_eq!(denied.verdict, Verdict::Deny);
    let (named, step) = writer.step(denied.rule).unwrap();
    assert_eq!(named.tiers[0].policies[0].name, "p");
    assert_eq!(step, ::policy::judge::Step::Rule { tier: 0, policy: 0, rule: 1, action: Action::Deny });
    assert_eq!(policy.judge(ProgramId(3), &from(1)).verdict, Verdict::Deny, "no such program");
}

#[test]
fn the_epoch_rises_when_a_verdict_may_differ_and_only_then() {
    let mut writer = writer();
    let epoch = |writer: &mut Writer| {
        writer.publish();
        writer.staged().policy.epoch()
    };
    assert_eq!(epoch(&mut writer), 0);
    writer.put_port(port(1, Some("ns/a"))).unwrap();
    assert_eq!(epoch(&mut writer), 0, "a port without policy");
    writer.put_policy("ns/a", &ingress(checks(Action::Allow, 7))).unwrap();
    assert_eq!(epoch(&mut writer), 1);
    writer.set_ready(true);
    assert_eq!(epoch(&mut writer), 1);
    writer.update_set(SetId(7), &[], &[member(1)]).unwrap();
    assert_eq!(epoch(&mut writer), 2);
    writer.put_port(Port { mtu: 9000, ..port(1, Some("ns/a")) }).unwrap();
    assert_eq!(epoch(&mut writer), 2);
    writer.put_port(port(1, None)).unwrap();
    assert_eq!(epoch(&mut writer), 3);
    writer.remove_policy("ns/a");
    assert_eq!(epoch(&mut writer), 4);
    for _ in 0..2 {
        writer.set_flow_rules(FlowRules { drops_to_host: true, ..FlowRules::default() });
        assert_eq!(epoch(&mut writer), 5);
    }
}

#[test]
fn full_tables_of_policy_say_so_and_stay_as_they_were() {
    let mut writer = writer();
    writer.put_port(port(1, Some("ns/a"))).unwrap();
    writer.put_policy("ns/a", &ingress(checks(Action::Allow, 7))).unwrap();
    writer.put_set(SetId(7), (1..=8).map(member)).unwrap();
    let full = writer.update_set(SetId(7), &[], &[member(9)]).unwrap_err();
    assert_eq!(
        full.to_string(),
        "the table of policy_members is full at 8: raise limits.policy_members in the configuration"
    );
    let tiers = vec![checks(Action::Deny, 1).tiers[0].clone(); 9];
    let many = Arc::new(Checks { tiers, after: AfterTiers::NoMatch });
    let both = EndpointPolicy { egress: Some(many), ..ingress(checks(Action::Deny, 7)) };
    assert_eq!(writer.put_policy("ns/a", &both).unwrap_err().table, "policy_rules");
    writer.publish();
    let policy = Arc::clone(&writer.staged().policy);
    let program = policy.of(PortId(1)).ingress.unwrap();
    assert_eq!(policy.judge(program, &from(8)).verdict, Verdict::Allow);
    for set in 10..13 {
        writer.put_policy(&format!("ns/{set}"), &ingress(checks(Action::Allow, set))).unwrap();
    }
    assert_eq!(
        writer.put_policy("ns/b", &ingress(checks(Action::Allow, 13))).unwrap_err().table,
        "policy_programs"
    );
    writer.put_policy("ns/b", &ingress(checks(Action::Allow, 7))).expect("equal checks are one program");
}

/// The rule and the set of each publication make the same of every packet; half of one and half of the other wouldn't.
#[test]
fn no_reader_ever_sees_the_rules_of_one_publication_with_the_sets_of_another() {
    let mut writer = writer();
    let mut reader = writer.reader().unwrap();
    writer.put_port(port(1, Some("ns/a"))).unwrap();
    let stage = |writer: &mut Writer, round: u64| {
        // Address 1 passes always: by a set that it is in, or by one that it isn't in; address 2 never does.
        let (action, member) =
            if round.is_multiple_of(2) { (Action::Allow, member(1)) } else { (Action::Deny, member(2)) };
        writer.put_set(SetId(7), [member]).unwrap();
        writer.put_policy("ns/a", &ingress(checks(action, 7))).unwrap();
        writer.publish();
    };
    stage(&mut writer, 0);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&asked));
    let asking = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let policy = &reader.snapshot().state.policy;
            let program = policy.of(PortId(1)).ingress.expect("a program");
            for _ in 0..32 {
                assert_eq!(
                    policy.judge(program, &from(1)).verdict,
                    Verdict::Allow,
                    "epoch {}",
                    policy.epoch()
                );
                assert_eq!(
                    policy.judge(program, &from(2)).verdict,
                    Verdict::Deny,
                    "epoch {}",
                    policy.epoch()
                );
            }
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    // On a busy machine the reader may not have begun by then.
    let rounds = (1..u64::MAX)
        .take_while(|round| *round < 300 || asked.load(Ordering::Relaxed) < 100 && !asking.is_finished());
    for round in rounds {
        stage(&mut writer, round);
    }
    stop.store(true, Ordering::Relaxed);
    asking.join().expect("no mixture");
}
