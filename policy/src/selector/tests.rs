//! What the oracles leave open, and what must hold of any text.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Selector;

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    selector.parse::<Selector>().unwrap().matches(&labels)
}

#[test]
fn words_of_the_language_are_labels_where_a_label_may_stand() {
    assert!(matches("contains contains 'n'", &[("contains", "one")]));
    assert!(matches("has == 'x' && in in {'x'} && not not in {'x'}", &[("has", "x"), ("in", "x")]));
    assert!(matches("all == 'a'", &[("all", "a")]));
}

#[test]
fn a_set_may_be_empty_and_may_end_with_a_comma() {
    assert!(!matches("a in {}", &[("a", "b")]));
    assert!(matches("a not in {}", &[("a", "b")]));
    assert!(matches("a in {'b',}", &[("a", "b")]));
}

#[test]
fn and_binds_tighter_than_or_and_not_is_about_one_comparison() {
    assert!(matches("a == 'x' || a == 'y' && b == 'z'", &[("a", "x")]));
    assert!(!matches("!a == 'x'", &[("a", "x")]));
    assert!(matches("!a == 'x' && b == 'y'", &[("b", "y")]));
}

/// So that selectors written with more of them than needed are one set and not two.
#[test]
fn pairs_of_not_cancel() {
    let canonical = |text: &str| text.parse::<Selector>().unwrap().to_string();
    assert_eq!(canonical("!!has(a)"), "has(a)");
    assert_eq!(canonical("! !!has(a)"), "!has(a)");
    assert_eq!(canonical("!! (a == 'b' || !!!has(c))"), "(a == \"b\" || !has(c))");
    assert_eq!(canonical("!(!(has(a)))"), "has(a)");
    assert_eq!(canonical(&format!("{}has(a)", "!".repeat(100_001))), "!has(a)");
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    for (text, error) in [
        ("a ==", "at character 5: expected a string in quotes, found the end"),
        (
            "a = 'b'",
            "at character 3: expected ==, !=, in, not in, contains, starts with or ends with, found `= 'b'`",
        ),
        ("ä == 'b'", "at character 1: expected a label, has(…), all(), global(), ! or (, found `ä == 'b'`"),
        ("a == 'b' b", "at character 10: expected &&, || or the end, found `b`"),
        ("a in {'b' 'c'}", "at character 11: expected a comma or a closing }, found `'c'}`"),
        ("a == 'b\n'\n", "at character 10: expected &&, || or the end, found `\n`"),
        (
            "has (a)",
            "at character 5: expected ==, !=, in, not in, contains, starts with or ends with, found `(a)`",
        ),
    ] {
        assert_eq!(text.parse::<Selector>().unwrap_err().to_string(), error, "{text:?}");
    }
}

#[test]
fn a_deep_nest_is_refused_and_a_long_label_is_not() {
    assert!(format!("{} == 'b'", "a".repeat(2000)).parse::<Selector>().is_ok());
    assert!(format!("{}has(a){}", "(".repeat(100_000), ")".repeat(100_000)).parse::<Selector>().is_err());
    assert!(format!("{}has(a){}", "(".repeat(200), ")".repeat(200)).parse::<Selector>().is_ok());
}

/// Selectors of every kind over a few labels, and labels that meet them now and then.
fn selector() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["a", "b", "in", "x.y/z-1"]);
    let value = prop::sample::select(vec!["", "v", "vw", "\"", "'", "w v"]);
    let quoted = value
        .prop_map(|value| if value.contains('"') { format!("'{value}'") } else { format!("\"{value}\"") });
    let word = prop::sample::select(vec!["==", "!=", "contains", "starts with", "endswith"]);
    let comparison = (label.clone(), word, quoted.clone()).prop_map(|(l, word, v)| format!("{l} {word} {v}"));
    let set =
        (label.clone(), prop::bool::ANY, prop::collection::vec(quoted, 0..3)).prop_map(|(l, not, values)| {
            format!("{l} {}in {{{}}}", if not { "not " } else { "" }, values.join(","))
        });
    let leaf = prop_oneof![
        comparison,
        set,
        label.prop_map(|label| format!("has({label})")),
        Just("all()".to_owned()),
        Just("global()".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("!({inner})")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|all| format!("({})", all.join(" && "))),
            prop::collection::vec(inner, 1..4).prop_map(|any| format!("({})", any.join("||"))),
        ]
    })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let name = prop::sample::select(vec!["a", "b", "in", "x.y/z-1"]).prop_map(str::to_owned);
    let value = prop::sample::select(vec!["", "v", "vw", "\"", "'", "w v"]).prop_map(str::to_owned);
    prop::collection::btree_map(name, value, 0..4)
}

proptest! {
    #[test]
    fn the_canonical_form_means_the_same_and_stays(text in selector(), labels in labels()) {
        let one: Selector = text.parse().unwrap();
        let canonical = one.to_string();
        let other: Selector = canonical.parse().unwrap();
        prop_assert_eq!(&other.to_string(), &canonical);
        prop_assert_eq!(one.matches(&labels), other.matches(&labels));
    }

    /// The promise that an index rests on.
    #[test]
    fn what_matches_meets_every_restriction(text in selector(), labels in labels()) {
        let selector: Selector = text.parse().unwrap();
        if selector.matches(&labels) {
            for (label, restriction) in selector.restrictions() {
                let value = labels.get(label).map(String::as_str);
                prop_assert!(!restriction.must_be_present || value.is_some());
                prop_assert!(!restriction.must_be_absent || value.is_none());
                let one_of = restriction.must_have_one_of;
                prop_assert!(one_of.is_none_or(|values| value.is_some_and(|value| values.contains(value))));
            }
        }
    }

    #[test]
    fn labels_with_a_prefix_are_asked_under_their_longer_names(text in selector(), labels in labels()) {
        let selector: Selector = text.parse().unwrap();
        let longer: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| (format!("pcns.{name}"), value.clone())).collect();
        prop_assert_eq!(selector.matches(&labels), selector.with_prefix("pcns.").matches(&longer));
    }

    #[test]
    fn any_text_is_a_selector_or_an_error_with_its_place(text in "\\PC{0,40}") {
        if let Err(error) = text.parse::<Selector>() {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.at));
        }
    }
}
