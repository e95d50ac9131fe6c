//! Selectors held to what Calico's own tests expect of them (`selectors.jsonl`).

mod oracle;

use std::collections::{BTreeMap, BTreeSet};

use policy::Selector;
use serde_json::Value;

use oracle::rows;

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("{row} has no {field}"))
}

fn selector(row: &Value) -> Selector {
    text(row, "expr").parse().unwrap_or_else(|error| panic!("{row}: {error}"))
}

fn labels(row: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(row["labels"].clone()).expect("labels are texts")
}

/// A label's restriction as the rows write it.
fn restriction(value: &Value) -> (bool, bool, Option<BTreeSet<String>>) {
    let flag = |name: &str| value[name].as_bool().unwrap_or(false);
    let one_of =
        value.get("must_have_one_of").map(|one_of| serde_json::from_value(one_of.clone()).expect("texts"));
    (flag("must_be_present"), flag("must_be_absent"), one_of)
}

#[test]
fn selectors_are_what_calico_has_them_be() {
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows("selectors.jsonl") {
        let kind = text(&row, "kind");
        match kind {
            "parse_ok" => drop(selector(&row)),
            "parse_error" | "tokenize_error" => {
                assert!(text(&row, "expr").parse::<Selector>().is_err(), "{row}");
            }
            "eval" => assert_eq!(selector(&row).matches(&labels(&row)), row["match"] == true, "{row}"),
            "canonical" => assert_eq!(selector(&row).to_string(), text(&row, "canonical"), "{row}"),
            "prefix_labels" => {
                let prefixed = selector(&row).with_prefix(text(&row, "prefix"));
                assert_eq!(prefixed.to_string(), text(&row, "canonical"), "{row}");
            }
            "restrictions" => {
                let selector = selector(&row);
                let found: BTreeMap<String, _> = (selector.restrictions().into_iter())
                    .map(|(label, is)| {
                        let one_of =
                            is.must_have_one_of.map(|set| set.into_iter().map(str::to_owned).collect());
                        (label.to_owned(), (is.must_be_present, is.must_be_absent, one_of))
                    })
                    .collect();
                let expected = row["restrictions"].as_object().expect("a mapping");
                let expected =
                    expected.iter().map(|(label, value)| (label.clone(), restriction(value))).collect();
                assert_eq!(found, expected, "{row}");
            }
            "field_validation" if row["selectors"].as_array().is_some_and(|all| all.len() == 1) => {
                // Rules about fields rather than the language, such as where global() may stand, are the reader's
                // (`datastore/tests/validation_oracle.rs`).
                let parses = text(&row["selectors"][0], "expr").parse::<Selector>().is_ok();
                assert!(parses || row["valid"] == false, "{row}");
            }
            _ => {
                *left.entry(kind.to_owned()).or_default() += 1;
                continue;
            }
        }
        *held.entry(kind.to_owned()).or_default() += 1;
    }
    println!("held: {held:?}; not the language's, left: {left:?}");
}
