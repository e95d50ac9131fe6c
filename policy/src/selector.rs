//! Calico's selector language (`libcalico-go/lib/selector`).
//!
//! ```text
//! selector := "" | or                           blank selects everything, as all() does
//! or       := and ("||" and)*
//! and      := op ("&&" op)*
//! op       := "!"* prim                         one "!" is about one comparison: !a == "b" is !(a == "b")
//! prim     := label ("==" | "!=" | "contains" | "starts with" | "ends with") string
//!           | label ["not"] "in" "{" [string ("," string)* [","]] "}"
//!           | "has(" label ")" | "all()" | "global()" | "(" or ")"
//! label    := [A-Za-z0-9_./-]{1,512}
//! string   := "…" | '…'                         no escapes; either may hold the other's quote
//! ```
//!
//! Blanks are spaces and tabs. `startswith`, `endswith` and `notin` are taken as well. `has(` is one word: `has (` is a
//! label named `has`. Words of the language are labels where a label may stand.

mod canonical;
mod expression;
mod parser;
mod restriction;

use std::collections::BTreeMap;
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
