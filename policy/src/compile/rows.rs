//! Rows: for each value that a dimension tells apart, a bit for every part of a rule: does it match there?
//!
//! Bits come in words of 64 and words in blocks of 64. Where words are few, and in the dimensions of ports, a row is *plain*:
//! its words, one after the other. Where they are many, an address meets few rules and misses most, so a row of addresses
//! *lists* only the words in which it differs from the dimension's base, the row of an address that nothing asks for:
//!
//! ```text
//!  base   word word word ...                                  for all blocks
//!  row    filled listed start | filled listed start | ...     three words a block, then the words listed
//! ```
//!
//! `filled` has a bit for each word of the block that isn't zero: two of them laid together say which words are worth a look
//! (Baboescu and Varghese, "Scalable Packet Classification", 2001).

use std::collections::HashMap;

use ahash::RandomState;

/// Bits in a word.
pub(super) const WORD: usize = 64;
/// Words in a block.
pub(super) const BLOCK: usize = 64;
/// Words of a row that lists, for each block.
const HEAD: usize = 3;
/// The plain row of every packet in a dimension that nothing asks for.
pub(super) const ANY: u32 = 0;
/// Words of a program up to which all its rows are plain: few enough to lay together whatever they are.
pub(super) const PLAIN_MAX: usize = 8;

/// What a row says of one block.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// Words that aren't zero.
    pub(super) filled: u64,
    /// Words that differ from the base.
    listed: u64,
    /// Where the first of those lies.
    start: u64,
}

impl Head {
    /// The head of a block in the row at `row`; one of zeros where there is none.
    #[inline(always)]
    pub(super) fn at(words: &[u64], row: u32, block: usize) -> Head {
        match words.get(row as usize + HEAD * block..).and_then(|head| head.first_chunk()) {
            Some(&[filled, listed, start]) => Head { filled, listed, start },
            None => Head { filled: 0, listed: 0, start: 0 },
        }
    }

    /// Word `word` of the block whose base is at `base`.
    #[inline(always)]
    pub(super) fn word(self, words: &[u64], base: usize, word: u32) -> u64 {
        let below = self.listed & ((1 << word) - 1);
        let listed = self.start as usize + below.count_ones() as usize;
        let inherited = base + word as usize;
        // Chosen by arithmetic: which of the two it is, no branch predictor can learn.
        let is_listed = ((self.listed >> word & 1) as usize).wrapping_neg();
        let at = inherited ^ ((inherited ^ listed) & is_listed);
        words.get(at).copied().unwrap_or(0)
    }
}

/// Blocks that so many words make.
pub(super) fn blocks(words: usize) -> usize {
    words.div_ceil(BLOCK)
}

/// Words in the making, behind those that a program has already.
#[derive(Debug, Default)]
pub(super) struct Words {
    before: usize,
    pub(super) new: Vec<u64>,
}

impl Words {
    /// Those of [`ANY`].
    pub(super) fn of_any(width: usize) -> Words {
        Words { before: 0, new: vec![!0; width] }
    }

    /// Behind so many.
    pub(super) fn behind(before: usize) -> Words {
        Words { before, new: Vec::new() }
    }

    fn len(&self) -> usize {
        self.before + self.new.len()
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Lists,
}

/// The rows of one dimension, while they are made.
pub(super) struct Rows {
    form: Form,
    base: Vec<u64>,
    /// Where it lies, of rows that list.
    pub(super) base_at: u32,
    filled: Vec<u64>,
    /// The words in which a row differs, to the row.
    known: HashMap<Box<[(u32, u64)]>, u32, RandomState>,
}

impl Rows {
    /// The dimension with this base, which is written behind `words` where rows list.
    pub(super) fn new(form: Form, base: Vec<u64>, words: &mut Words) -> Rows {
        let mut filled = vec![0; blocks(base.len())];
        for (at, word) in base.iter().enumerate() {
            filled[at / BLOCK] |= u64::from(*word != 0) << (at % BLOCK);
        }
        let base_at = words.len() as u32;
        if form == Form::Lists {
            words.new.extend(&base);
        }
        Rows { form, base, base_at, filled, known: HashMap::default() }
    }

    /// The base.
    pub(super) fn base(&self) -> &[u64] {
        &self.base
    }

    /// The row that differs from the base in these words, in order; written behind `words` where it is new.
    pub(super) fn row(&mut self, mut differs: Vec<(u32, u64)>, words: &mut Words) -> u32 {
        differs.retain(|(at, word)| self.base[*at as usize] != *word);
        if let Some(row) = self.known.get(&*differs) {
            return *row;
        }
        let row = words.len() as u32;
        if self.form == Form::Plain {
            words.new.extend(&self.base);
            for (at, word) in &differs {
                words.new[row as usize - words.before + *at as usize] = *word;
            }
            self.known.insert(differs.into(), row);
            return row;
        }
        let mut start = words.len() + HEAD * self.filled.len();
        let mut rest = differs.as_slice();
        for (block, filled) in (0..).zip(&self.filled) {
            let here = rest.partition_point(|(at, _)| *at < (block + 1) * BLOCK as u32);
            let (mut filled, mut listed) = (*filled, 0);
            for (at, word) in &rest[..here] {
                let bit = 1 << (at % BLOCK as u32);
                listed |= bit;
                filled = if *word != 0 { filled | bit } else { filled & !bit };
            }
            words.new.extend([filled, listed, start as u64]);
            start += here;
            rest = &rest[here..];
        }
        words.new.extend(differs.iter().map(|(_, word)| word));
        self.known.insert(differs.into(), row);
        row
    }

    /// The row of these words.
    pub(super) fn dense_row(&mut self, row: &[u64], words: &mut Words) -> u32 {
        let pairs = (0..).zip(self.base.iter().zip(row));
        let differs = pairs.filter(|(_, (base, word))| base != word).map(|(at, (_, word))| (at, *word));
        let differs = differs.collect();
        self.row(differs, words)
    }
}

/// Sets or clears a bit of some words.
pub(super) fn set_bit(words: &mut [u64], bit: u32, value: bool) {
    let word = &mut words[bit as usize / WORD];
    let mask = 1 << (bit as usize % WORD);
    *word = if value { *word | mask } else { *word & !mask };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_reads_as_it_was_written(
            base in proptest::collection::vec(prop::sample::select(vec![0, 1, u64::MAX]), 1..200),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), 0u64..3), 0..40),
        ) {
            let mut words = Words::default();
            words.new.extend([7; 5]);
            let mut rows = Rows::new(Form::Lists, base.clone(), &mut words);
            let (mut wanted, mut written) = (Vec::new(), Vec::new());
            for (at, word) in changes {
                let mut row = wanted.last().cloned().unwrap_or_else(|| base.clone());
                row[at.index(base.len())] = word;
                written.push(rows.dense_row(&row, &mut words));
                wanted.push(row);
            }
            for (wanted, row) in wanted.iter().zip(written) {
                let len = words.len();
                prop_assert_eq!(rows.dense_row(wanted, &mut words), row, "equal rows are one");
                prop_assert_eq!(words.len(), len);
                for (at, word) in wanted.iter().enumerate() {
                    let head = Head::at(&words.new, row, at / BLOCK);
                    let base = rows.base_at as usize + at / BLOCK * BLOCK;
                    prop_assert_eq!(head.word(&words.new, base, (at % BLOCK) as u32), *word);
                    prop_assert_eq!(head.filled >> (at % BLOCK) & 1 != 0, *word != 0);
                }
            }
        }
    }
}
