//! Calico's selector language (`libcalico-go/lib/selector`).
//!
//! ```text
//! selector := "" | or                           blank selects everything, as all() does
//! or       := and ("||" and)*
//! and      := op ("&&" op)*
//! op       := "!"* prim                         about one comparison: !a == "b" is !(a == "b"); "!!" is nothing
//! prim     := label ("==" | "!=" | "contains" | "starts with" | "ends with") string
//!           | label ["not"] "in" "{" [string ("," string)* [","]] "}"
//!           | "has(" label ")" | "all()" | "global()" | "(" or ")"
//! label    := [A-Za-z0-9_./-]+
//! string   := "…" | '…'                         no escapes; either may hold the other's quote
//! ```
//!
//! Blanks are spaces and tabs. `startswith`, `endswith` and `notin` are taken as well. `has(` is one word: `has (` is a
//! label named `has`. Words of the language are labels where a label may stand.

mod canonical;
mod expression;
mod parser;
mod restriction;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use expression::Expression;

pub use parser::SelectorError;
pub use restriction::Restriction;

/// Labels by name: what a selector is asked of.
pub trait Labels {
    /// The value of a label, where there is one.
    fn value(&self, name: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// A selector. Two are equal where they are written the same in canonical form. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Arc<Expression>);

impl Selector {
    /// Selects everything.
    pub fn all() -> Selector {
        Selector(Arc::new(Expression::All))
    }

    /// Selects, among namespaces, what has none; everything to whom that isn't said.
    pub fn global() -> Selector {
        Selector(Arc::new(Expression::Global))
    }

    /// Does it select what has these labels? `global()` selects everything: its meaning, "what has no namespace", is
    /// for whoever composes selectors.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.0.matches(labels)
    }

    /// The same selector over labels whose names all begin with `prefix`, as Calico asks a namespace's labels of its
    /// workloads (`pcns.`).
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> Selector {
        Selector(Arc::new(self.0.with_prefix(prefix)))
    }

    /// Selects what has the label.
    pub fn has(label: &str) -> Selector {
        Selector(Arc::new(Expression::Has(label.to_owned())))
    }

    /// Selects what has the label with this value.
    pub fn equal(label: &str, value: &str) -> Selector {
        Selector(Arc::new(Expression::Equal(label.to_owned(), value.to_owned())))
    }

    /// Selects what has the label with one of these values.
    pub fn one_of(label: &str, values: &[String]) -> Selector {
        let values: BTreeSet<String> = values.iter().cloned().collect();
        Selector(Arc::new(Expression::In(label.to_owned(), values.into_iter().collect())))
    }

    /// Selects what both select.
    #[must_use]
    pub fn and(&self, other: &Selector) -> Selector {
        Selector(Arc::new(Expression::And(vec![(*self.0).clone(), (*other.0).clone()])))
    }

    /// Selects what this one doesn't.
    #[must_use]
    pub fn negated(&self) -> Selector {
        Selector(Arc::new((*self.0).clone().negated()))
    }

    /// The same selector where `all()` and `global()` mean something narrower, as they do of namespaces.
    #[must_use]
    pub fn with_meanings(&self, all: &Selector, global: &Selector) -> Selector {
        Selector(Arc::new(self.0.with_meanings(&all.0, &global.0)))
    }

    /// The labels that it asks about: with all others changed, it still says the same.
    pub fn labels(&self) -> BTreeSet<&str> {
        let mut labels = BTreeSet::new();
        self.0.each_label(&mut |label| {
            labels.insert(label);
        });
        labels
    }

    /// What it demands of single labels: nothing matches that doesn't meet all of it. A label that isn't named may be
    /// anything.
    pub fn restrictions(&self) -> BTreeMap<&str, Restriction<'_>> {
        restriction::of(&self.0)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Selector, SelectorError> {
        parser::parse(text).map(|expression| Selector(Arc::new(expression)))
    }
}

#[cfg(test)]
mod tests;
