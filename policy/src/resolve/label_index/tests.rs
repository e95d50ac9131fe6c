//! The index held to asking every selector about every item, and its work counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::{Change, LabelIndex, LabelMap};
use crate::Selector;

fn labels(pairs: &[(&str, &str)]) -> LabelMap {
    Arc::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn parents(names: &[&str]) -> Arc<[String]> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

#[test]
fn a_label_of_one_among_ten_thousand_asks_only_the_selectors_about_it() {
    let mut index: LabelIndex<u32, u32> = LabelIndex::default();
    let mut changes = Vec::new();
    for number in 0..1_000 {
        let (app, role) = (number % 100, number / 100);
        let text = format!("app == 'app-{app}' && role == 'role-{role}'");
        index.add_selector(number, selector(&text), &mut changes);
    }
    index.add_selector(1_000, selector("!has(quarantine)"), &mut changes);
    for number in 0..10_000 {
        let own = labels(&[
            ("app", &format!("app-{}", number % 100)),
            ("role", &format!("role-{}", number / 100 % 10)),
            ("name", &format!("pod-{number}")),
        ]);
        index.put_item(number, own, parents(&["kns.default"]), &mut changes);
    }
    let matched = |index: &LabelIndex<u32, u32>| index.matched_by(7).collect::<Vec<_>>();
    assert_eq!(matched(&index), [7, 1_000]);

    let mut changed_to = |own: &[(&str, &str)]| {
        let before = index.evaluations();
        changes.clear();
        index.put_item(7, labels(own), parents(&["kns.default"]), &mut changes);
        (index.evaluations() - before, changes.clone())
    };
    // Nothing asks about the name.
    let (asked, said) = changed_to(&[("app", "app-7"), ("role", "role-0"), ("name", "other")]);
    assert_eq!((asked, said.len()), (0, 0));
    // The one that ceases to match, and the ten of the same app.
    let (asked, said) = changed_to(&[("app", "app-7"), ("role", "role-3"), ("name", "other")]);
    assert!(asked <= 11, "{asked} of 1 001 selectors were asked");
    assert_eq!(said.len(), 2);
    // What all items match is asked about one of them.
    let (asked, said) =
        changed_to(&[("app", "app-7"), ("role", "role-3"), ("name", "other"), ("quarantine", "")]);
    assert_eq!((asked, said), (1, vec![Change { item: 7, selector: 1_000, matches: false }]));
}

#[test]
fn a_new_selector_is_asked_only_of_those_who_have_what_it_demands() {
    let mut index: LabelIndex<u32, u32> = LabelIndex::default();
    let mut changes = Vec::new();
    for number in 0..10_000 {
        let own = labels(&[("app", &format!("app-{}", number % 100)), ("tier", "web")]);
        index.put_item(number, own, parents(&[if number < 5 { "kns.a" } else { "kns.b" }]), &mut changes);
    }
    index.put_parent("kns.a", labels(&[("pcns.name", "a")]), &mut changes);
    index.add_selector(1, selector("tier == 'web' && app == 'app-3'"), &mut changes);
    assert_eq!(index.evaluations(), 100);
    index.add_selector(2, selector("tier == 'web' && pcns.name == 'a'"), &mut changes);
    assert_eq!(index.evaluations(), 105);
    assert_eq!(index.matching(2).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn the_first_parent_with_a_label_gives_it_and_an_own_label_wins() {
    let mut index: LabelIndex<u32, u32> = LabelIndex::default();
    let mut changes = Vec::new();
    index.put_parent("one", labels(&[("x", "one")]), &mut changes);
    index.put_parent("two", labels(&[("x", "two"), ("y", "two")]), &mut changes);
    index.put_item(1, labels(&[]), parents(&["one", "two"]), &mut changes);
    index.put_item(2, labels(&[("x", "own")]), parents(&["one", "two"]), &mut changes);
    for (id, text) in [(1, "x == 'one'"), (2, "x == 'two'"), (3, "x == 'own'"), (4, "y == 'two'")] {
        index.add_selector(id, selector(text), &mut changes);
    }
    let of = |index: &LabelIndex<u32, u32>, item| index.matched_by(item).collect::<Vec<_>>();
    assert_eq!((of(&index, 1), of(&index, 2)), (vec![1, 4], vec![3, 4]));
    index.put_parent("one", labels(&[]), &mut changes);
    assert_eq!((of(&index, 1), of(&index, 2)), (vec![2, 4], vec![3, 4]));
}

/// One act upon the index.
#[derive(Clone, Debug)]
enum Act {
    PutItem(u8, BTreeMap<String, String>, Vec<String>),
    RemoveItem(u8),
    PutParent(String, BTreeMap<String, String>),
    AddSelector(u8, String),
    RemoveSelector(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let name = prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
    let value = prop::sample::select(vec!["", "u", "v"]).prop_map(str::to_owned);
    let labels = prop::collection::btree_map(name, value, 0..3);
    let parent = prop::sample::select(vec!["p", "q", "r"]).prop_map(str::to_owned);
    let parents = prop::collection::vec(parent.clone(), 0..3);
    let selector = prop::sample::select(vec![
        "all()",
        "has(a)",
        "!has(a)",
        "a == 'u'",
        "a != 'u'",
        "a in {'u', 'v'} && b == 'v'",
        "a == 'u' || a == 'v'",
        "a == 'u' || b == 'v'",
        "has(a) && !has(b)",
        "c starts with 'u' && has(a)",
        "a in {}",
        "b not in {'', 'v'}",
    ])
    .prop_map(str::to_owned);
    let act = prop_oneof![
        4 => (0u8..4, labels.clone(), parents).prop_map(|(id, own, from)| Act::PutItem(id, own, from)),
        1 => (0u8..4).prop_map(Act::RemoveItem),
        2 => (parent, labels).prop_map(|(name, labels)| Act::PutParent(name, labels)),
        3 => (0u8..6, selector).prop_map(|(id, text)| Act::AddSelector(id, text)),
        1 => (0u8..6).prop_map(Act::RemoveSelector),
    ];
    prop::collection::vec(act, 1..60)
}

/// What is there, and nothing worked out.
#[derive(Default)]
struct Naive {
    items: BTreeMap<u8, (BTreeMap<String, String>, Vec<String>)>,
    parents: BTreeMap<String, BTreeMap<String, String>>,
    selectors: BTreeMap<u8, Selector>,
}

impl Naive {
    fn matches(&self) -> BTreeSet<(u8, u8)> {
        let mut matches = BTreeSet::new();
        for (item, (own, parents)) in &self.items {
            let mut effective = own.clone();
            for inherited in parents.iter().filter_map(|name| self.parents.get(name)) {
                for (name, value) in inherited {
                    effective.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            let matching = self.selectors.iter().filter(|(_, selector)| selector.matches(&effective));
            matches.extend(matching.map(|(selector, _)| (*item, *selector)));
        }
        matches
    }
}

proptest! {
    #[test]
    fn after_any_acts_the_matches_are_those_of_asking_everyone(acts in acts()) {
        let (mut index, mut naive) = (LabelIndex::<u8, u8>::default(), Naive::default());
        let mut replayed = BTreeSet::new();
        for act in acts {
            let mut changes = Vec::new();
            match act {
                Act::PutItem(id, own, from) => {
                    index.put_item(id, Arc::new(own.clone()), from.iter().cloned().collect(), &mut changes);
                    naive.items.insert(id, (own, from));
                }
                Act::RemoveItem(id) => {
                    index.remove_item(id, &mut changes);
                    naive.items.remove(&id);
                }
                Act::PutParent(name, labels) => {
                    index.put_parent(&name, Arc::new(labels.clone()), &mut changes);
                    naive.parents.insert(name, labels);
                }
                Act::AddSelector(id, text) => {
                    index.remove_selector(id, &mut changes);
                    index.add_selector(id, selector(&text), &mut changes);
                    naive.selectors.insert(id, selector(&text));
                }
                Act::RemoveSelector(id) => {
                    index.remove_selector(id, &mut changes);
                    naive.selectors.remove(&id);
                }
            }
            for Change { item, selector, matches } in changes {
                let news = if matches { replayed.insert((item, selector)) } else { replayed.remove(&(item, selector)) };
                prop_assert!(news, "a change is told once");
            }
            prop_assert_eq!(&replayed, &naive.matches());
            for item in 0..4 {
                let told: Vec<u8> = replayed.iter().filter(|(who, _)| *who == item).map(|(_, what)| *what).collect();
                prop_assert_eq!(index.matched_by(item).collect::<Vec<_>>(), told);
            }
        }
    }

    #[test]
    fn what_is_taken_back_leaves_nothing_behind(acts in acts()) {
        let mut index = LabelIndex::<u8, u8>::default();
        let changes = &mut Vec::new();
        for act in acts {
            match act {
                Act::PutItem(id, own, from) => index.put_item(id, Arc::new(own), from.into(), changes),
                Act::PutParent(name, labels) => index.put_parent(&name, Arc::new(labels), changes),
                Act::AddSelector(id, text) => {
                    index.remove_selector(id, changes);
                    index.add_selector(id, selector(&text), changes);
                }
                Act::RemoveItem(_) | Act::RemoveSelector(_) => {}
            }
        }
        (0..4).for_each(|id| index.remove_item(id, changes));
        (0..6).for_each(|id| index.remove_selector(id, changes));
        ["p", "q", "r"].into_iter().for_each(|name| index.put_parent(name, LabelMap::default(), changes));
        let LabelIndex { items, parents, selectors, by_demand, undemanding, items_by_label, parents_by_label, .. } =
            index;
        prop_assert!(items.is_empty() && parents.is_empty() && selectors.is_empty() && undemanding.is_empty());
        prop_assert!(by_demand.labels.is_empty());
        prop_assert!(items_by_label.labels.is_empty() && parents_by_label.labels.is_empty());
    }
}
