//! Ids by labels and their values.

use std::collections::{BTreeSet, HashMap};

use super::{Demand, LabelMap};

/// Ids under labels: with values, or of any value.
#[derive(Debug)]
pub(super) struct ByLabel<T> {
    pub(super) labels: HashMap<String, Under<T>>,
}

#[derive(Debug)]
pub(super) struct Under<T> {
    any: BTreeSet<T>,
    values: HashMap<String, BTreeSet<T>>,
}

impl<T> Default for ByLabel<T> {
    fn default() -> Self {
        ByLabel { labels: HashMap::new() }
    }
}

impl<T: Clone + Ord> ByLabel<T> {
    /// Under all of its labels.
    pub(super) fn insert(&mut self, labels: &LabelMap, id: &T) {
        labels.iter().for_each(|(name, value)| self.insert_value(name, value, id));
    }

    pub(super) fn remove(&mut self, labels: &LabelMap, id: &T) {
        labels.iter().for_each(|(name, value)| self.remove_value(name, value, id));
    }

    fn under(&mut self, label: &str) -> &mut Under<T> {
        // Most labels are known, and a look-up needs no String.
        if !self.labels.contains_key(label) {
            self.labels.insert(label.to_owned(), Under { any: BTreeSet::new(), values: HashMap::new() });
        }
        self.labels.get_mut(label).expect("it was inserted")
    }

    pub(super) fn insert_any(&mut self, label: &str, id: &T) {
        self.under(label).any.insert(id.clone());
    }

    pub(super) fn insert_value(&mut self, label: &str, value: &str, id: &T) {
        let values = &mut self.under(label).values;
        match values.get_mut(value) {
            Some(ids) => {
                ids.insert(id.clone());
            }
            None => {
                values.insert(value.to_owned(), BTreeSet::from([id.clone()]));
            }
        }
    }

    pub(super) fn remove_any(&mut self, label: &str, id: &T) {
        if let Some(under) = self.labels.get_mut(label) {
            under.any.remove(id);
        }
        self.tidy(label);
    }

    pub(super) fn remove_value(&mut self, label: &str, value: &str, id: &T) {
        if let Some(under) = self.labels.get_mut(label)
            && let Some(ids) = under.values.get_mut(value)
        {
            ids.remove(id);
            if ids.is_empty() {
                under.values.remove(value);
            }
        }
        self.tidy(label);
    }

    /// What nothing stands under takes no memory.
    fn tidy(&mut self, label: &str) {
        if self.labels.get(label).is_some_and(|under| under.any.is_empty() && under.values.is_empty()) {
            self.labels.remove(label);
        }
    }

    /// What stands under a label with this value, or under it whatever its value.
    pub(super) fn of(&self, label: &str, value: &str) -> impl Iterator<Item = &T> {
        let under = self.labels.get(label);
        let any = under.into_iter().flat_map(|under| &under.any);
        any.chain(under.and_then(|under| under.values.get(value)).into_iter().flatten())
    }

    /// The sets of those who meet a demand.
    pub(super) fn sets<'a>(&'a self, demand: &'a Demand) -> impl Iterator<Item = &'a BTreeSet<T>> {
        let (label, values) = match demand {
            Demand::Nothing => (None, None),
            Demand::Label(label) => (Some(label), None),
            Demand::Values(label, values) => (Some(label), Some(values)),
        };
        let under = label.and_then(|label| self.labels.get(label));
        let all = under.filter(|_| values.is_none()).into_iter().flat_map(|under| under.values.values());
        let some = values.into_iter().flatten().filter_map(move |value| under?.values.get(value));
        all.chain(some)
    }
}
