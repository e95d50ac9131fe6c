//! The tree of a selector, and what it says of labels.

use super::Labels;

/// A selector as a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Expression {
    All,
    Global,
    Has(String),
    Equal(String, String),
    NotEqual(String, String),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    /// The values are sorted, each once.
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Not(Box<Expression>),
    /// Two or more.
    And(Vec<Expression>),
    /// Two or more.
    Or(Vec<Expression>),
}

impl Expression {
    pub(super) fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let is = |label: &String, test: &dyn Fn(&str) -> bool| labels.value(label).is_some_and(test);
        match self {
            Expression::All | Expression::Global => true,
            Expression::Has(label) => labels.value(label).is_some(),
            Expression::Equal(label, value) => is(label, &|found| found == value),
            Expression::NotEqual(label, value) => !is(label, &|found| found == value),
            Expression::Contains(label, value) => is(label, &|found| found.contains(value.as_str())),
            Expression::StartsWith(label, value) => is(label, &|found| found.starts_with(value.as_str())),
            Expression::EndsWith(label, value) => is(label, &|found| found.ends_with(value.as_str())),
            Expression::In(label, values) => is(label, &|found| contains(values, found)),
            Expression::NotIn(label, values) => !is(label, &|found| contains(values, found)),
            Expression::Not(inner) => !inner.matches(labels),
            Expression::And(operands) => operands.iter().all(|operand| operand.matches(labels)),
            Expression::Or(operands) => operands.iter().any(|operand| operand.matches(labels)),
        }
    }

    /// What it isn't: twice so is the same again, so that it prints as what it parses from.
    pub(super) fn negated(self) -> Expression {
        match self {
            Expression::Not(inner) => *inner,
            other => Expression::Not(Box::new(other)),
        }
    }

    /// Hands every label that it asks about to `each`, some more than once.
    pub(super) fn each_label<'a>(&'a self, each: &mut impl FnMut(&'a str)) {
        match self {
            Expression::All | Expression::Global => {}
            Expression::Has(label)
            | Expression::Equal(label, _)
            | Expression::NotEqual(label, _)
            | Expression::Contains(label, _)
            | Expression::StartsWith(label, _)
            | Expression::EndsWith(label, _)
            | Expression::In(label, _)
            | Expression::NotIn(label, _) => each(label),
            Expression::Not(inner) => inner.each_label(each),
            Expression::And(operands) | Expression::Or(operands) => {
                operands.iter().for_each(|operand| operand.each_label(each));
            }
        }
    }

    /// The same with other expressions for `all()` and `global()`.
    pub(super) fn with_meanings(&self, all: &Expression, global: &Expression) -> Expression {
        let each =
            |operands: &[Expression]| operands.iter().map(|one| one.with_meanings(all, global)).collect();
        match self {
            Expression::All => all.clone(),
            Expression::Global => global.clone(),
            Expression::Not(inner) => inner.with_meanings(all, global).negated(),
            Expression::And(operands) => Expression::And(each(operands)),
            Expression::Or(operands) => Expression::Or(each(operands)),
            other => other.clone(),
        }
    }

    pub(super) fn with_prefix(&self, prefix: &str) -> Expression {
        let named = |label: &String| format!("{prefix}{label}");
        let each = |operands: &[Expression]| operands.iter().map(|one| one.with_prefix(prefix)).collect();
        match self {
            Expression::All => Expression::All,
            Expression::Global => Expression::Global,
            Expression::Has(label) => Expression::Has(named(label)),
            Expression::Equal(label, value) => Expression::Equal(named(label), value.clone()),
            Expression::NotEqual(label, value) => Expression::NotEqual(named(label), value.clone()),
            Expression::Contains(label, value) => Expression::Contains(named(label), value.clone()),
            Expression::StartsWith(label, value) => Expression::StartsWith(named(label), value.clone()),
            Expression::EndsWith(label, value) => Expression::EndsWith(named(label), value.clone()),
            Expression::In(label, values) => Expression::In(named(label), values.clone()),
            Expression::NotIn(label, values) => Expression::NotIn(named(label), values.clone()),
            Expression::Not(inner) => Expression::Not(Box::new(inner.with_prefix(prefix))),
            Expression::And(operands) => Expression::And(each(operands)),
            Expression::Or(operands) => Expression::Or(each(operands)),
        }
    }
}

fn contains(sorted: &[String], found: &str) -> bool {
    sorted.binary_search_by(|value| value.as_str().cmp(found)).is_ok()
}
