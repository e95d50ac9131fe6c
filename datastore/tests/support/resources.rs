//! What must hold of any text that somebody puts into the resource directory.
//!
//! Used by the test that replays the corpus, and by the fuzz target `resources`.

use std::collections::BTreeSet;

use datastore::{Source, read};

/// Reads the text twice and looks at what came of it.
///
/// # Panics
/// Where reading isn't a function of the text, a problem doesn't say what is wrong, or two resources share a name.
pub fn run(data: &[u8]) {
    let reading = || read(vec![Source::Text { name: "f.yaml".into(), bytes: data.to_vec() }]);
    let first = reading();
    assert_eq!(first, reading(), "the same text, read otherwise");
    let keys: BTreeSet<_> = first.resources.iter().map(|found| found.resource.key()).collect();
    assert_eq!(keys.len(), first.resources.len(), "two resources of one name");
    assert!(first.problems.is_empty() || first.resources.is_empty(), "half of a broken file is used");
    for problem in &first.problems {
        let text = problem.to_string();
        assert!(text.starts_with("f.yaml"), "{text}");
        assert!(!problem.reason.to_string().is_empty(), "{problem:?}");
    }
    let all: Vec<_> = first.resources.iter().map(|found| &*found.resource).collect();
    for finding in policy::lint::lint(&all) {
        assert!(finding.resource < all.len() && !finding.field.is_empty(), "{finding:?}");
    }
}
