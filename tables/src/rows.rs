//! Some rows of a batch.

use std::ops::Range;

/// Rows of a batch of up to 64: bit *i* is about row *i*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rows(pub u64);

impl Rows {
    /// No row.
    pub const NONE: Rows = Rows(0);
    /// Rows that there may be.
    pub const MOST: usize = u64::BITS as usize;

    /// The first so many rows, at most all.
    #[inline(always)]
    #[must_use]
    pub fn first(count: usize) -> Rows {
        if count >= Rows::MOST { Rows(u64::MAX) } else { Rows((1 << count) - 1) }
    }

    /// One row below 64.
    #[inline(always)]
    #[must_use]
    pub fn only(row: usize) -> Rows {
        Rows(1 << row)
    }

    /// Adds a row below 64.
    #[inline(always)]
    pub fn insert(&mut self, row: usize) {
        self.0 |= 1 << row;
    }

    /// Is it one of them?
    #[inline(always)]
    pub fn contains(self, row: usize) -> bool {
        self.0 >> row & 1 != 0
    }

    /// Are there none?
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// These and those.
    #[inline(always)]
    #[must_use]
    pub fn with(self, those: Rows) -> Rows {
        Rows(self.0 | those.0)
    }

    /// These, as far as they are among those.
    #[inline(always)]
    #[must_use]
    pub fn within(self, those: Rows) -> Rows {
        Rows(self.0 & those.0)
    }

    /// These without those.
    #[inline(always)]
    #[must_use]
    pub fn without(self, those: Rows) -> Rows {
        Rows(self.0 & !those.0)
    }
}

impl From<Range<usize>> for Rows {
    /// As far as they are below 64.
    #[inline(always)]
    fn from(rows: Range<usize>) -> Rows {
        Rows::first(rows.end).without(Rows::first(rows.start))
    }
}

impl FromIterator<usize> for Rows {
    fn from_iter<I: IntoIterator<Item = usize>>(rows: I) -> Rows {
        Rows(rows.into_iter().fold(0, |rows, row| rows | 1 << row))
    }
}

impl IntoIterator for Rows {
    type Item = usize;
    type IntoIter = Each;

    #[inline(always)]
    fn into_iter(self) -> Each {
        Each(self.0)
    }
}

/// Rows, the first one first.
#[derive(Clone, Debug)]
pub struct Each(u64);

impl Iterator for Each {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let row = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        // Nothing changes, and who indexes by it need not check.
        Some(row % Rows::MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn rows_are_a_set_in_order(
            one in prop::collection::btree_set(0usize..64, 0..64), other in prop::collection::btree_set(0usize..64, 0..64),
        ) {
            let rows = |set: &BTreeSet<usize>| set.iter().copied().collect::<Rows>();
            let mut inserted = Rows::NONE;
            one.iter().for_each(|row| inserted.insert(*row));
            prop_assert_eq!(inserted, rows(&one));
            let sorted = |rows: Rows| rows.into_iter().collect::<Vec<_>>();
            prop_assert_eq!(sorted(rows(&one)), one.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(rows(&one).with(rows(&other)), rows(&one.union(&other).copied().collect()));
            prop_assert_eq!(rows(&one).within(rows(&other)), rows(&one.intersection(&other).copied().collect()));
            prop_assert_eq!(rows(&one).without(rows(&other)), rows(&one.difference(&other).copied().collect()));
            prop_assert_eq!(rows(&one).is_empty(), one.is_empty());
            prop_assert!((0..64).all(|row| rows(&one).contains(row) == one.contains(&row)));
            prop_assert_eq!(one.iter().copied().map(Rows::only).fold(Rows::NONE, Rows::with), rows(&one));
        }

        #[test]
        fn the_first_rows_are_those_below_their_count(count in 0usize..70) {
            prop_assert_eq!(Rows::first(count), (0..count.min(Rows::MOST)).collect::<Rows>());
        }

        #[test]
        fn a_range_is_its_rows(start in 0usize..64, len in 0usize..64) {
            let end = (start + len).min(Rows::MOST);
            prop_assert_eq!(Rows::from(start..end), (start..end).collect::<Rows>());
        }
    }
}
