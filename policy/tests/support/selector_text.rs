//! What must hold of any text that somebody writes as a selector.
//!
//! Used by the test that replays the corpus, and by the fuzz target `selectors`.

use std::collections::BTreeMap;

use policy::Selector;

/// Reads the text, and asks what came of it of labels that it names itself.
///
/// # Panics
/// An error has no place in the text, the canonical form means something else or isn't its own, or a restriction isn't
/// met by what matches.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let selector: Selector = match text.parse() {
        Ok(selector) => selector,
        Err(policy::SelectorError { at, .. }) => {
            assert!((1..=text.chars().count() + 1).contains(&at), "{text:?}: {at}");
            return;
        }
    };
    let canonical = selector.to_string();
    let again: Selector =
        canonical.parse().unwrap_or_else(|error| panic!("{text:?}: {canonical:?}: {error}"));
    assert_eq!(again.to_string(), canonical, "{text:?}");

    let values = ["", "v", "frontend"];
    let named = selector.labels();
    let all_have = |value: &str| named.iter().map(|label| ((*label).to_owned(), value.to_owned())).collect();
    let mut asked: Vec<BTreeMap<String, String>> = values.iter().map(|value| all_have(value)).collect();
    asked.push(BTreeMap::new());
    // What it names as possible values, where it does.
    let restrictions = selector.restrictions();
    let wanted = restrictions.iter().filter_map(|(label, restriction)| {
        let value = restriction.must_have_one_of.as_ref()?.first()?;
        Some(((*label).to_owned(), (*value).to_owned()))
    });
    asked.push(wanted.collect());

    for labels in &asked {
        let is_match = selector.matches(labels);
        assert_eq!(again.matches(labels), is_match, "{text:?}: {labels:?}");
        assert_eq!(selector.negated().matches(labels), !is_match, "{text:?}: {labels:?}");
        assert_eq!(selector.and(&again).matches(labels), is_match, "{text:?}: {labels:?}");
        for (label, restriction) in restrictions.iter().filter(|_| is_match) {
            let value = labels.get(*label).map(String::as_str);
            assert!(!restriction.must_be_present || value.is_some(), "{text:?}: {labels:?}");
            assert!(!restriction.must_be_absent || value.is_none(), "{text:?}: {labels:?}");
            let one_of = restriction.must_have_one_of.as_ref();
            let is_met = one_of.is_none_or(|values| value.is_some_and(|value| values.contains(value)));
            assert!(is_met, "{text:?}: {labels:?}");
        }
    }
}
