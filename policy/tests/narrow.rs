//! Large programs whose rules lie with addresses, held to the slow judge.

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::net::IpAddr;
use std::sync::Arc;

use cases::cases;
use model::Prefix;
use policy::compile::{Compiler, Limits, ProgramId};
use policy::judge::{Packet, Verdict};
use policy::rule::{Action, AfterTiers, Checks, EndMatch, Policy, Rule, SetId, Tier, TierDefault};
use policy::sets::Member;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use support::{LIMITS, World, check, check_batch};

/// Networks that rules are about, each of four addresses: few rules meet in one.
const HOMES: u32 = 400;
/// Sets of such networks.
const SETS: u32 = 8;

fn home(number: u32) -> Prefix {
    Prefix::new(host(number, 0), 30).expect("a length")
}

fn host(number: u32, at: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + number * 4 + at).into())
}

/// What the other end may be asked for: a few that lie in each other and beside each other.
fn across() -> impl Strategy<Value = Vec<Prefix>> {
    let net = |a: u8, length: u8| vec![Prefix::new(IpAddr::from([a, 0, 0, 0]), length).expect("a length")];
    select(vec![vec![], vec![], net(192, 8), net(192, 16), net(172, 12), net(128, 1)])
}

fn elsewhere() -> impl Strategy<Value = IpAddr> {
    select(vec![[192, 0, 0, 1], [192, 1, 0, 1], [172, 0, 0, 1], [128, 0, 0, 1], [1, 1, 1, 1]])
        .prop_map(IpAddr::from)
}

prop_compose! {
    fn rule()(
        number in 0..HOMES, set in select(vec![None, None, None, Some(0), Some(5)]), by_source in any::<bool>(),
        other in across(), first in 0u16..40, more in 0u16..10, asks_ports in 0u8..4, from in 0u16..4,
        is_about_anybody in prop::bool::weighted(0.1), protocol in select(vec![6, 17]),
        action in select(vec![Action::Allow, Action::Allow, Action::Deny, Action::Pass, Action::Log]),
    ) -> Rule {
        let home = match set {
            Some(set) => EndMatch { sets: vec![SetId(set + number % 3)], ..EndMatch::default() },
            None => EndMatch { nets: vec![home(number)], ..EndMatch::default() },
        };
        let other = EndMatch { nets: other, ..EndMatch::default() };
        let (mut source, mut destination) = if by_source { (home, other) } else { (other, home) };
        if is_about_anybody {
            // Few packets meet it, or it would decide on most of them.
            (source, destination) = Default::default();
            source.ports = vec![(from..=from + more % 2).into()];
        }
        if asks_ports > 0 || is_about_anybody {
            destination.ports = vec![(first..=first + more).into()];
        }
        Rule { protocol: Some(protocol), source, destination, ..Rule::any(action) }
    }
}

prop_compose! {
    /// One that is about everybody.
    fn wide_rule()(
        ports in vec((0u16..48, 0u16..4), 1..3), source_ports in vec(990u16..1_010, 0..2), protocol in select(vec![6, 17]),
        action in select(vec![Action::Allow, Action::Deny, Action::Pass]),
    ) -> Rule {
        let ports = ports.into_iter().map(|(first, more)| (first..=first + more).into()).collect();
        let source_ports = source_ports.into_iter().map(|first| (first..=first + 5).into()).collect();
        let destination = EndMatch { ports, ..EndMatch::default() };
        let source = EndMatch { ports: source_ports, ..EndMatch::default() };
        Rule { protocol: Some(protocol), source, destination, ..Rule::any(action) }
    }
}

prop_compose! {
    fn packet()(
        number in 0..HOMES + 5, at in 0u32..4, from_home in any::<bool>(), elsewhere in elsewhere(),
        port in 0u16..52, from in select(vec![1000, 1000, 0, 1, 2, 4, 5]), protocol in select(vec![6, 6, 17, 17, 132]),
    ) -> Packet {
        let home = host(number, at);
        let (source, destination) = if from_home { (home, elsewhere) } else { (elsewhere, home) };
        Packet { protocol, source, destination, ports: Some((from, port)), icmp: None }
    }
}

/// A set's number, and networks that are in it from now on.
fn membership() -> impl Strategy<Value = (SetId, Vec<Member>)> {
    let members =
        btree_set(0..HOMES, 0..6).prop_map(|all| all.into_iter().map(|at| Member::Net(home(at))).collect());
    ((0..SETS).prop_map(SetId), members)
}

#[test]
fn addresses_beyond_all_classes_are_denied_by_rules_that_lie_with_addresses() {
    const SETS: u32 = 65_600;
    let mut compiler = Compiler::new(Limits { members: 70_000, ..LIMITS });
    let about = |number| Rule {
        source: EndMatch { nets: vec![home(SETS + number)], ..EndMatch::default() },
        ..Rule::any(Action::Allow)
    };
    // What is known of the other end, and comes before all of them, makes no difference.
    let to_all = Rule {
        destination: EndMatch { nets: vec![home(0)], ..EndMatch::default() },
        ..Rule::any(Action::Allow)
    };
    let rules = [to_all].into_iter().chain((0..600).map(about)).chain([Rule::any(Action::Allow)]).collect();
    let profiles = vec![Arc::new(Policy { name: "p".to_owned(), rules })];
    let checks = Arc::new(Checks { tiers: Vec::new(), after: AfterTiers::Profiles(profiles) });
    let program = compiler.program(&checks).expect("room");
    for set in 0..SETS {
        compiler.put_set(SetId(set), [Member::Net(home(set))]).expect("room");
    }
    let compiled = compiler.publish();
    let usage = compiler.usage();
    assert_eq!(usage.by_address, 1);
    let packet = |number| Packet {
        protocol: 6,
        source: host(number, 1),
        destination: host(0, 0),
        ports: Some((1, 2)),
        icmp: None,
    };
    let asked: Vec<_> = (0..SETS + 600).map(|number| (program, (&packet(number)).into())).collect();
    let denied = asked.iter().filter(|(_, packet)| compiled.judge(program, packet).verdict == Verdict::Deny);
    assert_eq!(denied.count(), usage.unknown, "nobody can know what they are in");
    assert!(usage.unknown > 0);
    check_batch(&compiled, &asked);
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn rules_that_lie_with_addresses_judge_as_the_slow_judge_does(
        mut rules in vec(rule(), 900..1_000), has_logs in any::<bool>(), split in 100usize..600,
        // None of them, a word, and more words than are looked at together.
        wide in vec(wide_rule(), 540), wide_count in select(vec![0, 0, 60, 540]), ports_alone in any::<bool>(),
        first in vec(membership(), 0..SETS as usize), later in vec(membership(), 1..4),
        packets in vec(packet(), 300)
    ) {
        if !has_logs {
            // Where none logs, a rule that lies with addresses may decide by itself.
            rules.retain(|rule| rule.action != Action::Log);
        }
        if ports_alone {
            // All that are left in rows of bits ask for ports and for no address.
            for (number, rule) in (0..).zip(&mut rules) {
                for end in [&mut rule.source, &mut rule.destination] {
                    end.nets.retain(|net| net.len() == home(0).len());
                    if !std::mem::take(&mut end.sets).is_empty() {
                        end.nets.push(home(number % HOMES));
                    }
                }
            }
        }
        let mut split = split.min(rules.len() / 2);
        for (number, rule) in wide.into_iter().take(wide_count).enumerate() {
            rules.insert(number * 2 % split, rule);
            split += 1;
        }
        let mut compiler = Compiler::new(Limits { members: 5_000, ..LIMITS });
        let mut world = World::default();
        let put = |compiler: &mut Compiler, world: &mut World, all: &[(SetId, Vec<Member>)]| {
            for (set, members) in all {
                compiler.put_set(*set, members.iter().copied()).expect("room");
                world.0.insert(*set, members.iter().copied().collect());
            }
        };
        put(&mut compiler, &mut world, &first);
        let tier = |rules: &[Rule], default| {
            let policies = vec![Arc::new(Policy { name: "p".to_owned(), rules: rules.to_vec() })];
            Tier { name: "t".to_owned(), policies, default }
        };
        let tiers = vec![tier(&rules[..split], TierDefault::Pass), tier(&rules[split..], TierDefault::Deny)];
        let checks = Arc::new(Checks { tiers, after: AfterTiers::Profiles(Vec::new()) });
        let program = compiler.program(&checks).expect("room");
        let small = Checks { tiers: vec![tier(&rules[..10], TierDefault::Deny)], ..Checks::clone(&checks) };
        let small = compiler.program(&Arc::new(small)).expect("room");
        for change in [&[], &later[..]] {
            put(&mut compiler, &mut world, change);
            let compiled = compiler.publish();
            prop_assert_eq!(compiler.usage().by_address, 1, "most of the rules are about few addresses");
            for packet in &packets {
                check(&compiler, &compiled, program, &checks, packet, &world);
            }
            let asked: Vec<_> = packets.iter().map(|packet| (program, packet.into())).collect();
            check_batch(&compiled, &asked);
            // Beside a small program, and one that isn't there.
            let programs = [program, program, small, ProgramId(4000)].into_iter().cycle();
            let asked: Vec<_> = asked.iter().zip(programs).map(|((_, packet), id)| (id, *packet)).collect();
            check_batch(&compiled, &asked);
        }
    }
}
