//! The compiled form held to the slow judge, whatever the policy, the packet and the history.

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::net::IpAddr;
use std::sync::Arc;

use cases::cases;
use model::Prefix;
use policy::compile::{Compiled, Compiler, Judgement, Limits, Memo, ProgramId};
use policy::judge::Verdict;
use policy::rule::{Action, AfterTiers, Checks, EndMatch, Policy, Rule, SetId};
use policy::sets::Member;
use proptest::collection::vec;
use proptest::prelude::*;
use support::{
    Change, Islands, LIMITS, World, apply, change, check, check_batch, checks, islands, named, packet,
};

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn programs_judge_as_the_slow_judge_does(
        sets in vec(change(), 0..12), checks in checks(), packets in vec(packet(), 1..60)
    ) {
        let (mut compiler, mut world) = (Compiler::new(LIMITS), World::default());
        let mut endpoints = vec![None];
        for change in &sets {
            apply(&mut compiler, &mut world, &mut endpoints, change);
        }
        let checks = Arc::new(checks);
        let program = compiler.program(&checks).expect("room");
        let compiled = compiler.publish();
        for packet in &packets {
            check(&compiler, &compiled, program, &checks, packet, &world);
        }
    }

    #[test]
    fn changes_in_any_batches_give_what_a_fresh_writer_gives(
        changes in vec(change(), 0..60), packets in vec(packet(), 1..20)
    ) {
        let (mut compiler, mut world) = (Compiler::new(LIMITS), World::default());
        let mut endpoints = vec![None, None, None];
        for change in changes.iter().chain([&Change::Publish]) {
            apply(&mut compiler, &mut world, &mut endpoints, change);
            let Change::Publish = change else { continue };
            let compiled = compiler.publish();
            for (checks, program) in endpoints.iter().flatten() {
                for packet in &packets {
                    check(&compiler, &compiled, *program, checks, packet, &world);
                }
            }
        }
        let mut fresh = Compiler::new(LIMITS);
        for (id, members) in &world.0 {
            fresh.put_set(*id, members.iter().copied()).expect("room");
        }
        let programs: Vec<_> = (endpoints.iter().flatten())
            .map(|(checks, program)| (*program, fresh.program(checks).expect("room")))
            .collect();
        let (old, new) = (compiler.publish(), fresh.publish());
        for packet in packets.iter().map(Into::into) {
            for (was, is) in &programs {
                prop_assert_eq!(
                    named(&compiler, old.judge(*was, &packet)), named(&fresh, new.judge(*is, &packet))
                );
            }
        }
    }

    #[test]
    fn a_batch_is_judged_as_its_packets_one_by_one(
        sets in vec(change(), 0..12), later in vec(change(), 0..12),
        all in vec(checks(), 1..4), packets in vec(packet(), 0..150)
    ) {
        let (mut compiler, mut world) = (Compiler::new(LIMITS), World::default());
        for change in &sets {
            apply(&mut compiler, &mut world, &mut vec![None], change);
        }
        let mut programs: Vec<_> =
            all.into_iter().map(|checks| compiler.program(&Arc::new(checks)).expect("room")).collect();
        // And one that isn't there.
        programs.push(ProgramId(4000));
        let compiled = compiler.publish();
        let asked: Vec<_> =
            packets.iter().zip(programs.iter().cycle()).map(|(packet, id)| (*id, packet.into())).collect();
        let mut out = vec![Judgement::NO_PROGRAM; asked.len()];
        check_batch(&compiled, &asked);
        compiled.judge_batch(&asked, &mut out);
        // One that remembers says the same, the first time and again, and after sets have changed.
        let mut memo = Memo::new();
        let mut remembered = out.clone();
        for _ in 0..2 {
            compiled.judge_batch_by_memory(&mut memo, &asked, &mut remembered);
            prop_assert_eq!(&remembered, &out);
        }
        for change in &later {
            apply(&mut compiler, &mut world, &mut vec![None], change);
        }
        let compiled = compiler.publish();
        compiled.judge_batch(&asked, &mut out);
        compiled.judge_batch_by_memory(&mut memo, &asked, &mut remembered);
        prop_assert_eq!(&remembered, &out);
    }
}

proptest! {
    #![proptest_config(cases(12))]

    /// More rules than plain rows take; those that lie with addresses have a test of their own (`narrow.rs`).
    #[test]
    fn large_programs_judge_as_the_slow_judge_does(islands in islands(900..1_300)) {
        check_islands(islands);
    }

    /// Plain rows of several words.
    #[test]
    fn programs_of_some_hundred_rules_judge_as_the_slow_judge_does(islands in islands(60..450)) {
        check_islands(islands);
    }
}

fn check_islands(islands: Islands) {
    let limits = Limits { members: 50_000, ..LIMITS };
    let (mut compiler, mut world) = (Compiler::new(limits), World::default());
    let mut endpoints = vec![None];
    let checks = Arc::new(islands.checks);
    let program = compiler.program(&checks).expect("room");
    for change in
        islands.before.iter().chain([&Change::Publish]).chain(&islands.after).chain([&Change::Publish])
    {
        apply(&mut compiler, &mut world, &mut endpoints, change);
        let Change::Publish = change else { continue };
        let compiled = compiler.publish();
        for packet in &islands.packets {
            check(&compiler, &compiled, program, &checks, packet, &world);
        }
        let asked: Vec<_> = islands.packets.iter().map(|packet| (program, packet.into())).collect();
        check_batch(&compiled, &asked);
    }
}

fn from(addr: u32) -> policy::compile::Packet {
    policy::compile::Packet {
        source: addr.into(),
        destination: 1,
        family: model::Family::V4,
        protocol: 6,
        upper: policy::compile::Upper::Ports { source: 1, destination: 2 },
    }
}

/// Denies what comes from the set and allows all else.
fn all_but(set: u32) -> Arc<Checks> {
    let source = EndMatch { sets: vec![SetId(set)], ..EndMatch::default() };
    let rules = vec![Rule { source, ..Rule::any(Action::Deny) }, Rule::any(Action::Allow)];
    let profiles = vec![Arc::new(Policy { name: "p".to_owned(), rules })];
    Arc::new(Checks { tiers: Vec::new(), after: AfterTiers::Profiles(profiles) })
}

#[test]
fn addresses_beyond_all_classes_are_denied_until_there_is_room_again() {
    const SETS: u32 = 65_600;
    let host = |number: u32| Member::Net(Prefix::host(IpAddr::V4((0x0a00_0000 + number).into())));
    let mut compiler = Compiler::new(Limits { members: 70_000, ..LIMITS });
    let program = compiler.program(&all_but(SETS + 1)).expect("room");
    for set in 0..SETS {
        compiler.put_set(SetId(set), [host(set)]).expect("room");
    }
    let denied = |compiled: &Compiled| {
        let verdict = |number: u32| compiled.judge(program, &from(0x0a00_0000 + number)).verdict;
        (0..SETS).filter(|number| verdict(*number) == Verdict::Deny).count()
    };
    let compiled = compiler.publish();
    let usage = compiler.usage();
    assert_eq!((usage.classes, usage.unknown), (65_532, 68));
    assert_eq!(denied(&compiled), 68, "in none of the program's sets, but nobody can know");
    (0..100).for_each(|set| compiler.remove_set(SetId(set)));
    compiler.publish();
    // The first publication only lets go of their classes; the next one may give them to others.
    let compiled = compiler.publish();
    assert_eq!((compiler.usage().unknown, denied(&compiled)), (0, 0));
}

#[test]
fn a_program_that_finds_no_room_denies_and_the_others_judge() {
    let mut one = Compiler::new(LIMITS);
    one.program(&all_but(1)).expect("room");
    one.publish();
    let bytes = one.usage().bytes * 3 / 2;
    let mut compiler = Compiler::new(Limits { bytes, ..LIMITS });
    let programs = [1, 2].map(|set| compiler.program(&all_but(set)).expect("rules enough"));
    let compiled = compiler.publish();
    let verdicts = programs.map(|program| compiled.judge(program, &from(1)).verdict);
    assert_eq!((compiler.usage().denying, verdicts), (1, [Verdict::Allow, Verdict::Deny]));
    compiler.release(programs[0]);
    let compiled = compiler.publish();
    assert_eq!(compiled.judge(programs[1], &from(1)).verdict, Verdict::Allow);
    assert!(compiler.usage().bytes <= bytes && compiler.usage().denying == 0);
}
