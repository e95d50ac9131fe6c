//! The slow judge and the compiled form held to what Calico's own tests expect of compiled policy (`polprog.jsonl`).

mod polprog;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Family, Prefix};
use policy::compile::{Compiled, Compiler, Limits, ProgramId};
use policy::judge::{Packet, Verdict, judge};
use policy::rule::{Action, Checks, EndMatch, Policy, PortRange, Rule};
use serde_json::json;

use polprog::RowSets;

/// What one row's checks say, by the slow judge and compiled alike.
struct Judges<'a> {
    sets: &'a RowSets,
    /// Policies that match none of the row's packets, before all others.
    prefix: &'a [Arc<Policy>],
    compiled: Vec<(Checks, ProgramId, Compiled)>,
}

impl Judges<'_> {
    fn verdict(&mut self, checks: &Checks, packet: &Packet) -> Verdict {
        let expected = judge(checks, packet, self.sets).verdict;
        let mut checks = checks.clone();
        if let Some(tier) = checks.tiers.iter_mut().find(|tier| !tier.policies.is_empty()) {
            tier.policies.splice(..0, self.prefix.iter().cloned());
        }
        let known = self.compiled.iter().position(|(known, ..)| *known == checks);
        let at = known.unwrap_or_else(|| {
            let limits = Limits { programs: 1, rules: 20_000, members: 1_000, bytes: 1 << 26 };
            let mut compiler = Compiler::new(limits);
            for (id, members) in &self.sets.members {
                compiler.put_set(*id, members.iter().copied()).expect("room");
            }
            let program = compiler.program(&Arc::new(checks.clone())).expect("room");
            self.compiled.push((checks.clone(), program, compiler.publish()));
            self.compiled.len() - 1
        });
        let (_, program, compiled) = &self.compiled[at];
        assert_eq!(compiled.judge(*program, &packet.into()).verdict, expected, "{packet:?}\n{checks:#?}");
        expected
    }
}

/// Every so many rows' packets, with these policies before the rows' own.
fn hold(step: usize, prefix: &[Arc<Policy>]) {
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    let mut skipped = 0;
    for row in polprog::rows().iter().step_by(step) {
        let sets = RowSets::of(row);
        let mut judges = Judges { sets: &sets, prefix, compiled: Vec::new() };
        for one in row["packets"].as_array().expect("a list") {
            if one["family_mismatch"] == true {
                // A program of one family fed with packets of the other: not a question that our judge can be asked.
                skipped += 1;
                continue;
            }
            let verdict = polprog::verdict(row, one, &sets, |checks, packet| judges.verdict(checks, packet));
            assert_eq!(verdict, polprog::expected(one), "{} {}: {one}", row["id"], row["name"]);
            *held.entry(row["suite"].as_str().expect("a suite").to_owned()).or_default() += 1;
        }
    }
    println!("held: {held:?}; {skipped} of another family skipped");
}

#[test]
fn packets_end_as_calicos_tests_have_it() {
    hold(1, &[]);
}

/// As Calico's own tests have it, which must split their programs for so many.
#[test]
fn two_hundred_and_fifty_policies_of_fifty_rules_before_all_others_change_no_verdict() {
    let rule = |number: u32| Rule {
        protocol: number.is_multiple_of(3).then_some(6),
        source: EndMatch {
            // TEST-NET-3: no packet comes from there.
            nets: vec![Prefix::new(IpAddr::from([203, 0, 113, number as u8]), 32).expect("a length of IPv4")],
            not_ports: if number.is_multiple_of(7) {
                vec![PortRange { first: 0, last: 80 }]
            } else {
                Vec::new()
            },
            ..EndMatch::default()
        },
        ..Rule::any([Action::Allow, Action::Deny, Action::Pass, Action::Log][number as usize % 4])
    };
    let policy = |number: u32| {
        let rules = (number * 50..number * 50 + 50).map(rule).collect();
        Arc::new(Policy { name: format!("prefix-{number}"), rules })
    };
    hold(7, &(0..250).map(policy).collect::<Vec<_>>());
}

#[test]
fn a_family_in_a_rule_leaves_the_other_family_alone() {
    let only_v6 = Rule { family: Some(Family::V6), ..Rule::any(Action::Allow) };
    let packet = Packet {
        protocol: 6,
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        ports: Some((1, 2)),
        icmp: None,
    };
    let sets = RowSets::of(&json!({"ip_sets": {}}));
    assert!(!policy::judge::matches(&only_v6, &packet, &sets));
}

#[test]
fn a_rule_that_never_matches_matches_neither_family() {
    let sets = RowSets::of(&json!({"ip_sets": {}}));
    for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let packet = Packet {
            protocol: 6,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ports: Some((1, 2)),
            icmp: None,
        };
        assert!(policy::judge::matches(&Rule::any(Action::Allow), &packet, &sets));
        assert!(!policy::judge::matches(&Rule::never(Action::Allow), &packet, &sets));
    }
}
