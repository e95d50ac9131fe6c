//! Who matches which selector, kept true while labels, parents and selectors come, change and go.
//!
//! Felix's `labelindex.InheritIndex`. Three rules keep the work of a change small:
//!
//! 1. a selector stands under one label that it demands (`Selector::restrictions`), with its values where it demands
//!    some: who hasn't got that is never asked;
//! 2. a selector is asked again only where a label changed that it asks about;
//! 3. a new selector is asked only of those who have what it demands.

mod by_label;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::selector::{Labels, Selector};
use by_label::ByLabel;

/// Labels by name, shared with the resource that has them.
pub(crate) type LabelMap = Arc<BTreeMap<String, String>>;

/// What names an item or a selector.
pub(crate) trait Id: Copy + Eq + Ord + Hash {}

impl<T: Copy + Eq + Ord + Hash> Id for T {}

/// That an item began to match a selector, or ceased to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change<I, S> {
    /// The item.
    pub(crate) item: I,
    /// The selector.
    pub(crate) selector: S,
    /// It matches now.
    pub(crate) matches: bool,
}

/// Items with labels of their own and of their parents, and selectors.
#[derive(Debug)]
pub(crate) struct LabelIndex<I, S> {
    items: HashMap<I, Item<S>>,
    parents: HashMap<String, Parent<I>>,
    selectors: HashMap<S, Entry<I>>,
    /// Selectors by what they demand.
    by_demand: ByLabel<S>,
    /// Selectors that demand nothing.
    undemanding: BTreeSet<S>,
    /// Items by their own labels.
    items_by_label: ByLabel<I>,
    /// Parents by their labels.
    parents_by_label: ByLabel<Arc<str>>,
    /// How often a selector was asked about an item, ever.
    evaluations: u64,
}

#[derive(Debug)]
struct Item<S> {
    labels: LabelMap,
    /// In order; the first that has a label gives it, where the item hasn't got it.
    parents: Arc<[String]>,
    matched: BTreeSet<S>,
}

#[derive(Debug)]
struct Parent<I> {
    labels: LabelMap,
    children: BTreeSet<I>,
}

#[derive(Debug)]
struct Entry<I> {
    selector: Selector,
    /// What it asks about.
    labels: Box<[String]>,
    demand: Demand,
    matched: BTreeSet<I>,
}

/// What an item must have for a selector to be asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Demand {
    Nothing,
    Label(String),
    Values(String, Vec<String>),
}

impl<I: Id, S: Id> Default for LabelIndex<I, S> {
    fn default() -> Self {
        LabelIndex {
            items: HashMap::new(),
            parents: HashMap::new(),
            selectors: HashMap::new(),
            by_demand: ByLabel::default(),
            undemanding: BTreeSet::new(),
            items_by_label: ByLabel::default(),
            parents_by_label: ByLabel::default(),
            evaluations: 0,
        }
    }
}

impl<I: Id, S: Id> LabelIndex<I, S> {
    /// How often a selector was asked about an item, ever: the measure of this index's work.
    #[cfg(test)]
    pub(crate) fn evaluations(&self) -> u64 {
        self.evaluations
    }

    /// The selectors that an item matches.
    pub(crate) fn matched_by(&self, item: I) -> impl Iterator<Item = S> {
        self.items.get(&item).into_iter().flat_map(|item| item.matched.iter().copied())
    }

    /// The items that match a selector.
    pub(crate) fn matching(&self, selector: S) -> impl Iterator<Item = I> {
        self.selectors.get(&selector).into_iter().flat_map(|entry| entry.matched.iter().copied())
    }

    /// An item is there, new or with other labels or parents. A parent that isn't there has no labels.
    pub(crate) fn put_item(
        &mut self,
        id: I,
        labels: LabelMap,
        parents: Arc<[String]>,
        changes: &mut Vec<Change<I, S>>,
    ) {
        let old = self.items.get(&id).map(|item| (item.labels.clone(), item.parents.clone()));
        if old.as_ref().is_some_and(|(own, inherited)| *own == labels && *inherited == parents) {
            return;
        }
        let changed: BTreeSet<String> = {
            let new = effective(&self.parents, &labels, &parents);
            let nobody = LabelMap::default();
            let old = match &old {
                Some((own, inherited)) => effective(&self.parents, own, inherited),
                None => Effective { own: &nobody, parents: Vec::new() },
            };
            let names = old.names().chain(new.names());
            names.filter(|name| old.value(name) != new.value(name)).map(str::to_owned).collect()
        };
        if let Some((own, inherited)) = &old {
            self.items_by_label.remove(own, &id);
            self.leave_parents(id, inherited);
        }
        self.items_by_label.insert(&labels, &id);
        for parent in parents.iter() {
            let parent = self.parents.entry(parent.clone()).or_insert_with(Parent::unknown);
            parent.children.insert(id);
        }
        let is_new = old.is_none();
        let item = self.items.entry(id).or_insert_with(Item::nobody);
        (item.labels, item.parents) = (labels, parents);
        if is_new {
            self.ask_candidates(id, None, changes);
        } else if !changed.is_empty() {
            self.ask_again(id, &changed, changes);
        }
    }

    /// An item is gone; so are its matches.
    pub(crate) fn remove_item(&mut self, id: I, changes: &mut Vec<Change<I, S>>) {
        let Some(item) = self.items.remove(&id) else { return };
        self.items_by_label.remove(&item.labels, &id);
        self.leave_parents(id, &item.parents);
        for selector in item.matched {
            self.forget(id, selector);
            changes.push(Change { item: id, selector, matches: false });
        }
    }

    /// What a parent gives its children: no labels where it is gone.
    pub(crate) fn put_parent(&mut self, name: &str, labels: LabelMap, changes: &mut Vec<Change<I, S>>) {
        let parent = self.parents.entry(name.to_owned()).or_insert_with(Parent::unknown);
        let old = std::mem::replace(&mut parent.labels, labels.clone());
        let children: Vec<I> = parent.children.iter().copied().collect();
        if children.is_empty() && labels.is_empty() {
            self.parents.remove(name);
        }
        if old == labels {
            return;
        }
        let shared: Arc<str> = name.into();
        self.parents_by_label.remove(&old, &shared);
        self.parents_by_label.insert(&labels, &shared);
        let names: BTreeSet<&String> = old.keys().chain(labels.keys()).collect();
        let changed: Vec<&String> =
            names.into_iter().filter(|name| old.get(*name) != labels.get(*name)).collect();
        for child in children {
            // What the child, or a parent before this one, says itself is not for this parent to change.
            let felt: BTreeSet<String> = {
                let item = &self.items[&child];
                let before: Vec<String> =
                    item.parents.iter().take_while(|parent| *parent != name).cloned().collect();
                let nearer = effective(&self.parents, &item.labels, &before);
                changed
                    .iter()
                    .filter(|name| nearer.value(name).is_none())
                    .map(|name| (*name).clone())
                    .collect()
            };
            if !felt.is_empty() {
                self.ask_again(child, &felt, changes);
            }
        }
    }

    /// A selector that wasn't there is asked about all who may match it.
    ///
    /// # Panics
    /// Where the id is taken.
    pub(crate) fn add_selector(&mut self, id: S, selector: Selector, changes: &mut Vec<Change<I, S>>) {
        let (demand, candidates) = self.demand(&selector);
        match &demand {
            Demand::Nothing => {
                self.undemanding.insert(id);
            }
            Demand::Label(label) => self.by_demand.insert_any(label, &id),
            Demand::Values(label, values) => {
                values.iter().for_each(|value| self.by_demand.insert_value(label, value, &id));
            }
        }
        let mut matched = BTreeSet::new();
        for item_id in candidates {
            let item = &self.items[&item_id];
            self.evaluations += 1;
            if selector.matches(&effective(&self.parents, &item.labels, &item.parents)) {
                matched.insert(item_id);
            }
        }
        for item in &matched {
            self.items.get_mut(item).expect("a candidate is an item").matched.insert(id);
            changes.push(Change { item: *item, selector: id, matches: true });
        }
        let labels = selector.labels().into_iter().map(str::to_owned).collect();
        let taken = self.selectors.insert(id, Entry { selector, labels, demand, matched });
        assert!(taken.is_none(), "a selector's id names one selector");
    }

    /// A selector is gone; so are its matches.
    pub(crate) fn remove_selector(&mut self, id: S, changes: &mut Vec<Change<I, S>>) {
        let Some(entry) = self.selectors.remove(&id) else { return };
        match &entry.demand {
            Demand::Nothing => {
                self.undemanding.remove(&id);
            }
            Demand::Label(label) => self.by_demand.remove_any(label, &id),
            Demand::Values(label, values) => {
                values.iter().for_each(|value| self.by_demand.remove_value(label, value, &id));
            }
        }
        for item in entry.matched {
            self.items.get_mut(&item).expect("who matches is an item").matched.remove(&id);
            changes.push(Change { item, selector: id, matches: false });
        }
    }

    /// An item whose labels of these names changed.
    fn ask_again(&mut self, id: I, changed: &BTreeSet<String>, changes: &mut Vec<Change<I, S>>) {
        let item = &self.items[&id];
        let labels = effective(&self.parents, &item.labels, &item.parents);
        let mut ended = BTreeSet::new();
        for selector in &item.matched {
            let entry = &self.selectors[selector];
            if entry.asks_about(changed) {
                self.evaluations += 1;
                if !entry.selector.matches(&labels) {
                    ended.insert(*selector);
                }
            }
        }
        for selector in &ended {
            self.forget(id, *selector);
            changes.push(Change { item: id, selector: *selector, matches: false });
        }
        self.ask_candidates(id, Some((changed, &ended)), changes);
    }

    /// Asks the selectors that an item might match and doesn't yet; where labels changed, only those about them, but
    /// for those that were asked already.
    fn ask_candidates(
        &mut self,
        id: I,
        changed: Option<(&BTreeSet<String>, &BTreeSet<S>)>,
        changes: &mut Vec<Change<I, S>>,
    ) {
        let item = &self.items[&id];
        let labels = effective(&self.parents, &item.labels, &item.parents);
        let mut began = BTreeSet::new();
        let candidates = labels.pairs().flat_map(|(name, value)| self.by_demand.of(name, value));
        for selector in candidates.chain(&self.undemanding) {
            let entry = &self.selectors[selector];
            let asked =
                changed.is_none_or(|(labels, asked)| entry.asks_about(labels) && !asked.contains(selector));
            if asked && !item.matched.contains(selector) {
                self.evaluations += 1;
                if entry.selector.matches(&labels) {
                    began.insert(*selector);
                }
            }
        }
        for selector in began {
            self.items.get_mut(&id).expect("it was there").matched.insert(selector);
            self.selectors.get_mut(&selector).expect("it was asked").matched.insert(id);
            changes.push(Change { item: id, selector, matches: true });
        }
    }

    /// The demand that the fewest items meet, and these items; all items where it demands nothing of which an index is.
    fn demand(&self, selector: &Selector) -> (Demand, Vec<I>) {
        let mut best: Option<(usize, Demand)> = None;
        for (label, restriction) in selector.restrictions() {
            let demand = match (restriction.must_have_one_of, restriction.must_be_present) {
                (Some(values), _) => {
                    Demand::Values(label.to_owned(), values.into_iter().map(str::to_owned).collect())
                }
                (None, true) => Demand::Label(label.to_owned()),
                (None, false) => continue,
            };
            let count = self.count(&demand);
            // With as many items, values find fewer of those to come than the mere label.
            let rank = |demand: &Demand| matches!(demand, Demand::Label(_));
            let better = |(fewest, known): &(usize, Demand)| (count, rank(&demand)) < (*fewest, rank(known));
            if best.as_ref().is_none_or(better) {
                best = Some((count, demand));
            }
        }
        match best {
            None => (Demand::Nothing, self.items.keys().copied().collect()),
            Some((_, demand)) => {
                let candidates: BTreeSet<I> = self.who_meets(&demand).collect();
                (demand, candidates.into_iter().collect())
            }
        }
    }

    /// How many items meet a demand, at most.
    fn count(&self, demand: &Demand) -> usize {
        let children = |parents: &BTreeSet<Arc<str>>| -> usize {
            parents.iter().map(|parent| self.parents[&**parent].children.len()).sum()
        };
        self.items_by_label.sets(demand).map(BTreeSet::len).sum::<usize>()
            + self.parents_by_label.sets(demand).map(children).sum::<usize>()
    }

    /// The items that meet a demand by labels of their own or of a parent, and some whose own label hides the parent's.
    fn who_meets<'a>(&'a self, demand: &'a Demand) -> impl Iterator<Item = I> + 'a {
        let own = self.items_by_label.sets(demand).flatten().copied();
        let parents = self.parents_by_label.sets(demand).flatten();
        own.chain(parents.flat_map(|parent| self.parents[&**parent].children.iter().copied()))
    }

    fn leave_parents(&mut self, id: I, parents: &[String]) {
        for name in parents {
            // A parent may be named twice.
            let Some(parent) = self.parents.get_mut(name) else { continue };
            parent.children.remove(&id);
            if parent.children.is_empty() && parent.labels.is_empty() {
                self.parents.remove(name);
            }
        }
    }

    /// The item no longer matches the selector.
    fn forget(&mut self, item: I, selector: S) {
        if let Some(item) = self.items.get_mut(&item) {
            item.matched.remove(&selector);
        }
        if let Some(entry) = self.selectors.get_mut(&selector) {
            entry.matched.remove(&item);
        }
    }
}

impl<S> Item<S> {
    fn nobody() -> Item<S> {
        Item { labels: LabelMap::default(), parents: Arc::new([]), matched: BTreeSet::new() }
    }
}

impl<I> Parent<I> {
    fn unknown() -> Parent<I> {
        Parent { labels: LabelMap::default(), children: BTreeSet::new() }
    }
}

impl<I> Entry<I> {
    fn asks_about(&self, changed: &BTreeSet<String>) -> bool {
        self.labels.iter().any(|label| changed.contains(label))
    }
}

/// The labels that an item has in effect: its own, then those of its parents, the first that has one giving it.
struct Effective<'a> {
    own: &'a LabelMap,
    parents: Vec<&'a LabelMap>,
}

fn effective<'a, I>(
    parents: &'a HashMap<String, Parent<I>>,
    own: &'a LabelMap,
    names: &[String],
) -> Effective<'a> {
    Effective { own, parents: names.iter().filter_map(|name| Some(&parents.get(name)?.labels)).collect() }
}

impl<'a> Effective<'a> {
    fn names(&self) -> impl Iterator<Item = &'a str> {
        let parents = self.parents.clone().into_iter();
        std::iter::once(self.own).chain(parents).flat_map(|labels| labels.keys().map(String::as_str))
    }

    /// Each label once.
    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut seen = BTreeMap::new();
        for labels in std::iter::once(self.own).chain(self.parents.iter().copied()) {
            for (name, value) in labels.iter() {
                seen.entry(name.as_str()).or_insert(value.as_str());
            }
        }
        seen.into_iter()
    }
}

impl Labels for Effective<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        let own = self.own.get(name);
        own.or_else(|| self.parents.iter().find_map(|labels| labels.get(name))).map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
