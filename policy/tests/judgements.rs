//! The slow judge held to what Calico's own tests expect of compiled policy (`polprog.jsonl`).

mod polprog;

use std::collections::BTreeMap;

use model::Family;
use policy::judge::{Packet, judge};
use policy::rule::{Action, Rule};
use serde_json::json;

use polprog::RowSets;

#[test]
fn packets_end_as_calicos_tests_have_it() {
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    let mut skipped = 0;
    for row in polprog::rows() {
        let sets = RowSets::of(&row);
        for one in row["packets"].as_array().expect("a list") {
            if one["family_mismatch"] == true {
                // A program of one family fed with packets of the other: not a question that our judge can be asked.
                skipped += 1;
                continue;
            }
            let verdict =
                polprog::verdict(&row, one, &sets, |checks, packet| judge(checks, packet, &sets).verdict);
            assert_eq!(verdict, polprog::expected(one), "{} {}: {one}", row["id"], row["name"]);
            *held.entry(row["suite"].as_str().expect("a suite").to_owned()).or_default() += 1;
        }
    }
    println!("held: {held:?}; {skipped} of another family skipped");
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
