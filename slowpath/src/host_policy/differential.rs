//! The renderer held to the slow judge and to the compiled form, with the kernel in between: random policy with fixed seeds,
//! and what Calico's own tests ask.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::{Family, Prefix};
use policy::compile::{Compiler, Limits, ProgramId};
use policy::judge::{self, Packet, Step, Verdict, judge};
use policy::rule::{
    Action, AfterTiers, Checks, EndMatch, IcmpMatch, Policy, PortRange, Rule, SetId, Tier, TierDefault,
};
use policy::sets::Member;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::kernel_judge::{KernelJudge, Program};
use super::render::{Class, Direction, Renderer};
use super::{Sets, Settings};
use crate::nft;
use crate::status::HostPolicyStatus;
use crate::testing::{has, in_namespace, run};

#[path = "../../../policy/tests/polprog/mod.rs"]
mod polprog;

/// Sets of addresses have the numbers below this, sets of ports those from it on.
const NET_SETS: u32 = 4;
const PORT_SETS: u32 = 3;
const PROTOCOLS: [u8; 7] = [6, 6, 17, 1, 58, 132, 47];
const PORTS: [u16; 6] = [53, 80, 81, 443, 8080, 65535];

struct Known<'a>(&'a Sets);

impl judge::Sets for Known<'_> {
    fn contains(&self, set: SetId, addr: IpAddr) -> bool {
        let mut members = self.0.get(&set).into_iter().flatten();
        members.any(|member| matches!(member, Member::Net(net) if net.contains(addr)))
    }

    fn contains_port(&self, set: SetId, addr: IpAddr, protocol: u8, port: u16) -> bool {
        let mut members = self.0.get(&set).into_iter().flatten();
        members.any(|member| match member {
            Member::Port { net, protocol: at, port: number } => {
                net.contains(addr) && (*at, *number) == (protocol, port)
            }
            Member::Net(_) => false,
        })
    }
}

/// Few, so that policy and packets meet.
fn addr() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 0u8..3, 1u8..7).prop_map(|(v6, net, host)| match v6 {
        true => IpAddr::from([0xfd00, 0, 0, net.into(), 0, 0, 0, host.into()]),
        false => IpAddr::from([10, 0, net, host]),
    })
}

fn net() -> impl Strategy<Value = Prefix> {
    let v4 = select(vec![0u8, 8, 23, 24, 30, 31, 32, 32]);
    let v6 = select(vec![0u8, 8, 63, 64, 126, 127, 128, 128]);
    (addr(), v4, v6).prop_map(|(addr, v4, v6)| {
        Prefix::new(addr, if addr.is_ipv4() { v4 } else { v6 }).expect("a length of the family")
    })
}

fn port_range() -> impl Strategy<Value = PortRange> {
    (select(PORTS.to_vec()), select(PORTS.to_vec()))
        .prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) })
}

/// Mostly empty: a rule that asks for everything matches nothing.
fn seldom<T: Clone + std::fmt::Debug>(
    of: impl Strategy<Value = T> + Clone,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![5 => Just(Vec::new()), 1 => vec(of, 1..=most)]
}

fn end() -> impl Strategy<Value = EndMatch> {
    let net_set = (0..NET_SETS).prop_map(SetId).boxed();
    let port_set = (NET_SETS..NET_SETS + PORT_SETS).prop_map(SetId).boxed();
    let nets = net().boxed();
    let ports = port_range().boxed();
    (
        seldom(nets.clone(), 4),
        seldom(nets, 2),
        seldom(net_set.clone(), 2),
        seldom(net_set, 1),
        seldom(ports.clone(), 3),
        seldom(port_set.clone(), 2),
        seldom(ports, 2),
        seldom(port_set, 1),
    )
        .prop_map(|(nets, not_nets, sets, not_sets, ports, named_ports, not_ports, not_named_ports)| {
            EndMatch { nets, not_nets, sets, not_sets, ports, named_ports, not_ports, not_named_ports }
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    let action =
        select(vec![Action::Allow, Action::Allow, Action::Deny, Action::Deny, Action::Pass, Action::Log]);
    let family = prop_oneof![6 => Just(None), 1 => Just(Some(Family::V4)), 1 => Just(Some(Family::V6))];
    let protocol = || prop_oneof![3 => Just(None), 1 => select(PROTOCOLS.to_vec()).prop_map(Some)];
    let not_protocol = prop_oneof![8 => Just(None), 1 => select(PROTOCOLS.to_vec()).prop_map(Some)];
    let icmp = || {
        let kind = (select(vec![0u8, 3, 8, 128]), select(vec![None, None, Some(0), Some(1)]));
        let kind = kind.prop_map(|(icmp_type, code)| Some(IcmpMatch { icmp_type, code }));
        prop_oneof![8 => Just(None), 1 => kind]
    };
    (action, family, protocol(), not_protocol, icmp(), icmp(), end(), end()).prop_map(
        |(action, family, protocol, not_protocol, icmp, not_icmp, source, destination)| Rule {
            action,
            family,
            protocol,
            not_protocol,
            icmp,
            not_icmp,
            source,
            destination,
        },
    )
}

fn checks() -> impl Strategy<Value = Checks> {
    // The name is seldom told apart, so that policies of one name and unlike rules meet.
    let policy = || {
        (select(vec!["a", "b", "ns/c"]), vec(rule(), 0..6))
            .prop_map(|(name, rules)| Policy { name: name.to_owned(), rules }.into())
    };
    let default = select(vec![TierDefault::Deny, TierDefault::Pass]);
    let tier = (select(vec!["default", "security"]), vec(policy(), 0..4), default)
        .prop_map(|(name, policies, default)| Tier { name: name.to_owned(), policies, default });
    let after = prop_oneof![Just(AfterTiers::NoMatch), vec(policy(), 0..3).prop_map(AfterTiers::Profiles)];
    (vec(tier, 0..4), after).prop_map(|(tiers, after)| Checks { tiers, after })
}

fn packet() -> impl Strategy<Value = Packet> {
    let port = || select(PORTS.to_vec());
    let icmp = (select(vec![0u8, 3, 8, 128]), 0u8..2);
    (addr(), addr(), select(PROTOCOLS.to_vec()), port(), port(), icmp).prop_map(
        |(source, other, protocol, sport, dport, icmp)| {
            // One family: the other's address with the same number.
            let destination = match (source, other) {
                (IpAddr::V4(_), IpAddr::V6(other)) => {
                    IpAddr::from([10, 0, other.octets()[7], other.octets()[15]])
                }
                (IpAddr::V6(_), IpAddr::V4(other)) => {
                    let [_, _, net, host] = other.octets();
                    IpAddr::from([0xfd00, 0, 0, net.into(), 0, 0, 0, host.into()])
                }
                _ => other,
            };
            Packet {
                protocol,
                source,
                destination,
                ports: matches!(protocol, 6 | 17 | 132).then_some((sport, dport)),
                icmp: matches!(protocol, 1 | 58).then_some(icmp),
            }
        },
    )
}

fn sets() -> impl Strategy<Value = Sets> {
    let nets = btree_set(net().prop_map(Member::Net), 0..8);
    let ports = (addr(), select(vec![6u8, 17, 132]), select(PORTS.to_vec()))
        .prop_map(|(addr, protocol, port)| Member::Port { net: Prefix::host(addr), protocol, port });
    let ports = btree_set(ports, 0..8);
    (vec(nets, NET_SETS as usize), vec(ports, PORT_SETS as usize))
        .prop_map(|(nets, ports)| (0..).map(SetId).zip(nets.into_iter().chain(ports)).collect::<Sets>())
}

/// The same values for the same seed.
fn sample<T>(of: impl Strategy<Value = T>, seed: u8, count: usize) -> Vec<T> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count).map(|_| of.new_tree(&mut runner).expect("a value").current()).collect()
}

/// How often rules matched: by `policy` or `profile`, its name, the rule's number and what it does.
type Matches = BTreeMap<(&'static str, String, usize, String), u64>;

/// The rule that a step of the judge's is about.
fn rule_of(checks: &Checks, step: &Step) -> Option<(&'static str, String, usize, String)> {
    let word = |action| match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Pass => "pass",
        Action::Log => "log",
    };
    match *step {
        Step::Rule { tier, policy, rule, action } => {
            let name = checks.tiers[tier].policies[policy].name.clone();
            Some(("policy", name, rule, word(action).to_owned()))
        }
        Step::Profile { profile, rule, action } => {
            let AfterTiers::Profiles(profiles) = &checks.after else { unreachable!("a profile decided") };
            let action = if action == Action::Pass { "deny" } else { word(action) };
            Some(("profile", profiles[profile].name.clone(), rule, action.to_owned()))
        }
        Step::TierDefault { .. } | Step::NoProfile | Step::NoMatch => None,
    }
}

/// The same, as the kernel has counted it.
fn matches_of(counted: &HostPolicyStatus) -> Matches {
    let mut matches = Matches::new();
    for row in &counted.rules {
        let (Some(rule), Some(packets)) = (row.rule, row.packets) else { continue };
        if packets > 0 {
            let of = if row.of == "policy" { "policy" } else { "profile" };
            *matches.entry((of, row.name.clone(), rule, row.action.clone())).or_default() += packets;
        }
    }
    matches
}

#[test]
fn the_kernel_judges_random_policy_as_the_slow_judge_and_the_compiled_form_do() {
    const SEEDS: u8 = 6;
    const PROGRAMS: usize = 60;
    const PACKETS: usize = 25;
    const ROOM: Limits = Limits { programs: PROGRAMS, rules: 10_000, members: 10_000, bytes: 1 << 26 };
    if !has("nft") {
        return;
    }
    in_namespace(|| {
        let kernel = KernelJudge::new().unwrap();
        let mut by_verdict = BTreeMap::new();
        for seed in 0..SEEDS {
            let class = if seed % 2 == 0 { Class::PreDnat } else { Class::Untracked };
            let sets = sample(sets(), seed, 1).remove(0);
            let programs = sample(checks(), seed, PROGRAMS);
            let packets = sample(vec(packet(), PACKETS), seed, PROGRAMS);
            let asked: Vec<Program<'_>> = (programs.iter().zip(&packets))
                .map(|(checks, packets)| Program { checks, packets })
                .collect();
            let (said, counted) = kernel.verdicts(&asked, &sets, class);
            let mut compiler = Compiler::new(ROOM);
            for (id, members) in &sets {
                compiler.put_set(*id, members.iter().copied()).unwrap();
            }
            let compile = |checks: &Checks| compiler.program(&Arc::new(checks.clone())).unwrap();
            let ids: Vec<ProgramId> = programs.iter().map(compile).collect();
            let compiled = compiler.publish();
            let mut steps = Matches::new();
            for ((program, said), id) in asked.iter().zip(&said).zip(ids) {
                for (packet, said) in program.packets.iter().zip(said) {
                    assert_eq!(compiled.judge(id, &packet.into()).verdict, *said, "seed {seed}: {packet:?}");
                    let right = judge(program.checks, packet, &Known(&sets));
                    assert_eq!(
                        *said, right.verdict,
                        "seed {seed}: {packet:?}\n{:#?}\nby {:?}\nwith {sets:#?}",
                        program.checks, right.steps
                    );
                    *by_verdict.entry(right.verdict).or_insert(0) += 1;
                    for step in &right.steps {
                        if let Some(rule) = rule_of(program.checks, step) {
                            *steps.entry(rule).or_default() += 1;
                        }
                    }
                }
            }
            assert_eq!(matches_of(&counted), steps, "seed {seed}: every match is counted once");
        }
        println!("held: {by_verdict:?}");
        assert!(by_verdict.values().all(|count| *count > 500) && by_verdict.len() == 3, "{by_verdict:?}");
    });
}

#[test]
fn the_kernel_judges_as_calicos_tests_have_it() {
    if !has("nft") {
        return;
    }
    in_namespace(|| {
        let kernel = KernelJudge::new().unwrap();
        let (mut held, mut left) = (0, BTreeSet::new());
        for row in polprog::rows() {
            let sets = polprog::RowSets::of(&row);
            let mut asked: Vec<(Checks, Packet, Verdict)> = Vec::new();
            for one in row["packets"].as_array().expect("a list") {
                if one["family_mismatch"] == true {
                    continue;
                }
                polprog::verdict(&row, one, &sets, |checks, packet| {
                    let verdict = judge(checks, packet, &sets).verdict;
                    // A socket can't send to everybody, and the kernel reads the message of ICMP in IPv6 with a protocol
                    // of its own.
                    if packet.destination.is_unspecified() {
                        left.insert(row["id"].to_string());
                    } else {
                        asked.push((checks.clone(), *packet, verdict));
                    }
                    verdict
                });
            }
            let packets: Vec<[Packet; 1]> = asked.iter().map(|(_, packet, _)| [*packet]).collect();
            let programs: Vec<Program<'_>> = (asked.iter().zip(&packets))
                .map(|((checks, ..), packets)| Program { checks, packets })
                .collect();
            let (said, _) = kernel.verdicts(&programs, &sets.members, Class::PreDnat);
            for ((checks, packet, verdict), said) in asked.iter().zip(said) {
                assert_eq!(said, [*verdict], "{} {}: {packet:?}\n{checks:#?}", row["id"], row["name"]);
                held += 1;
            }
        }
        println!("held: {held} judgements; rows with packets that can't be sent: {left:?}");
    });
}

#[test]
fn sets_change_without_their_rules_and_end_as_if_made_anew() {
    const SEEDS: u8 = 4;
    const CHANGES: usize = 25;
    if !has("nft") {
        return;
    }
    in_namespace(|| {
        let settings = Settings::default();
        let every_set = EndMatch {
            sets: (0..NET_SETS).map(SetId).collect(),
            named_ports: (NET_SETS..NET_SETS + PORT_SETS).map(SetId).collect(),
            ..EndMatch::default()
        };
        let rules = vec![Rule { source: every_set, ..Rule::any(Action::Allow) }];
        let policy = Policy { name: "all".to_owned(), rules };
        let default = TierDefault::Deny;
        let tiers = vec![Tier { name: "t".to_owned(), policies: vec![policy.into()], default }];
        let checks = Checks { tiers, after: AfterTiers::NoMatch };
        let with = |sets: &Sets| {
            let mut renderer = Renderer::new(&settings);
            renderer.checks(&checks, Class::Normal, Direction::Ingress);
            renderer.finish(sets)
        };
        for seed in 0..SEEDS {
            let mut now = with(&Sets::new());
            nft::apply(&now.replacement("changing")).unwrap();
            for sets in sample(sets(), seed, CHANGES) {
                let next = with(&sets);
                let script = next.transaction(&now, "changing").expect("only sets change");
                assert!(!script.contains("rule") && !script.contains("chain"), "{script}");
                nft::apply(&script).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{script}"));
                now = next;
            }
            let changed = run("nft", "list table inet changing");
            nft::apply(&now.replacement("changing")).unwrap();
            assert_eq!(changed, run("nft", "list table inet changing"), "seed {seed}");
        }
    });
}
