//! What a selector demands of single labels: enough to find, among many selectors, those that may match.
//!
//! Calico's `LabelRestrictions` (`libcalico-go/lib/selector/parser/ast.go`). Necessary, not sufficient: what meets all
//! restrictions may still not match.

use std::collections::{BTreeMap, BTreeSet};

use super::expression::Expression;

/// What is demanded of one label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restriction<'a> {
    /// It must be there.
    pub must_be_present: bool,
    /// It must not be there.
    pub must_be_absent: bool,
    /// Its value must be one of these; `None` demands nothing of the value, an empty set can't be met.
    pub must_have_one_of: Option<BTreeSet<&'a str>>,
}

type Restrictions<'a> = BTreeMap<&'a str, Restriction<'a>>;

pub(super) fn of(expression: &Expression) -> Restrictions<'_> {
    match expression {
        Expression::Has(label)
        | Expression::Contains(label, _)
        | Expression::StartsWith(label, _)
        | Expression::EndsWith(label, _) => present(label, None),
        Expression::Equal(label, value) => present(label, Some([value.as_str()].into())),
        Expression::In(label, values) => present(label, Some(values.iter().map(String::as_str).collect())),
        Expression::Not(inner) => not(inner),
        Expression::And(operands) => operands.iter().map(of).fold(Restrictions::new(), both),
        Expression::Or(operands) => operands.iter().map(of).reduce(either).unwrap_or_default(),
        Expression::All | Expression::Global | Expression::NotEqual(..) | Expression::NotIn(..) => {
            Restrictions::new()
        }
    }
}

fn present<'a>(label: &'a str, must_have_one_of: Option<BTreeSet<&'a str>>) -> Restrictions<'a> {
    [(label, Restriction { must_be_present: true, must_be_absent: false, must_have_one_of })].into()
}

fn not(inner: &Expression) -> Restrictions<'_> {
    match inner {
        Expression::Not(twice) => of(twice),
        Expression::Has(label) => {
            [(label.as_str(), Restriction { must_be_absent: true, ..Restriction::default() })].into()
        }
        _ => Restrictions::new(),
    }
}

fn both<'a>(mut one: Restrictions<'a>, other: Restrictions<'a>) -> Restrictions<'a> {
    for (label, more) in other {
        let restriction = one.entry(label).or_default();
        restriction.must_be_present |= more.must_be_present;
        restriction.must_be_absent |= more.must_be_absent;
        restriction.must_have_one_of = match (restriction.must_have_one_of.take(), more.must_have_one_of) {
            (Some(one), Some(other)) => Some(one.intersection(&other).copied().collect()),
            (one, other) => one.or(other),
        };
    }
    one
}

fn either<'a>(one: Restrictions<'a>, mut other: Restrictions<'a>) -> Restrictions<'a> {
    let shared = |(label, one): (&'a str, Restriction<'a>)| {
        let other = other.remove(label)?;
        let restriction = Restriction {
            must_be_present: one.must_be_present && other.must_be_present,
            must_be_absent: one.must_be_absent && other.must_be_absent,
            must_have_one_of: one
                .must_have_one_of
                .zip(other.must_have_one_of)
                .map(|(one, other)| one.union(&other).copied().collect()),
        };
        (restriction != Restriction::default()).then_some((label, restriction))
    };
    one.into_iter().filter_map(shared).collect()
}
