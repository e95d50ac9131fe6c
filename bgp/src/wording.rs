//! What peers are told, in words: attributes as an export policy writes them, which follow from a path and are kept no longer
//! than it takes to send them.
//!
//! What is remembered of them is a [`Print`]. FRR tells in the same way what it has told already.

use ahash::RandomState;
use hashbrown::HashTable;

use crate::wire::nlri::Nlri;
use crate::wire::update::{Form, emit_announcements, emit_withdrawals};

/// 64 bits of a hash of attributes as they are told, keyed with the speaker's seed: equal ones say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Print([u32; 2]);

impl Print {
    /// Like nothing that is ever told.
    pub(crate) const UNKNOWN: Print = Print([0; 2]);

    fn of(hash: u64) -> Print {
        let hash = hash.max(1);
        Print([(hash >> 32) as u32, hash as u32])
    }

    fn hash(self) -> u64 {
        let Print([high, low]) = self;
        u64::from(high) << 32 | u64::from(low)
    }
}

/// Attributes that stand in [`Wordings`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worded {
    pub(crate) print: Print,
    /// Its place; counted up as they come.
    number: u32,
}

/// The attributes that are told in one go, each once.
#[derive(Debug)]
pub(crate) struct Wordings {
    /// Canonical keys, one behind the other.
    bytes: Vec<u8>,
    /// Where each ends, and its print.
    all: Vec<(usize, Print)>,
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl Wordings {
    pub(crate) fn new(hasher: RandomState) -> Wordings {
        Wordings { bytes: Vec::new(), all: Vec::new(), numbers: HashTable::new(), hasher }
    }

    /// Puts attributes in, given as a canonical key.
    pub(crate) fn add(&mut self, key: &[u8]) -> Worded {
        let Wordings { bytes, all, numbers, hasher } = self;
        let print = Print::of(hasher.hash_one(key));
        let next = all.len() as u32;
        let number = numbers
            .entry(
                print.hash(),
                |number| all[*number as usize].1 == print,
                |number| all[*number as usize].1.hash(),
            )
            .or_insert(next);
        let number = *number.get();
        if number == next {
            bytes.extend_from_slice(key);
            all.push((bytes.len(), print));
        }
        Worded { print, number }
    }

    /// The canonical key.
    pub(crate) fn key(&self, worded: Worded) -> &[u8] {
        self.numbered(worded.number)
    }

    fn numbered(&self, number: u32) -> &[u8] {
        let at = number as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.all[before].0);
        &self.bytes[start..self.all[at].0]
    }
}

/// What is to be told, gathered so that prefixes of equal attributes share UPDATEs.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    pub(crate) withdrawn: Vec<Nlri>,
    announced: Vec<Nlri>,
    /// The number of what is said of each of these.
    numbers: Vec<u32>,
}

impl Stage {
    pub(crate) fn withdraw(&mut self, prefix: model::Prefix) {
        self.withdrawn.push(Nlri { path_id: 0, prefix });
    }

    pub(crate) fn announce(&mut self, nlri: Nlri, worded: Worded) {
        self.announced.push(nlri);
        self.numbers.push(worded.number);
    }

    /// Appends the UPDATEs, withdrawals first, and forgets what they say.
    pub(crate) fn emit(&mut self, form: Form, wordings: &Wordings, out: &mut Vec<u8>) {
        emit_withdrawals(out, form, &self.withdrawn);
        // Prefixes mostly come with their neighbours, whose attributes they share.
        if !self.numbers.is_sorted() {
            let mut order: Vec<usize> = (0..self.numbers.len()).collect();
            order.sort_by_key(|at| self.numbers[*at]);
            self.announced = order.iter().map(|at| self.announced[*at]).collect();
            self.numbers = order.iter().map(|at| self.numbers[*at]).collect();
        }
        let mut rest = &self.announced[..];
        for alike in self.numbers.chunk_by(|one, next| one == next) {
            let (nlri, after) = rest.split_at(alike.len());
            emit_announcements(out, form, wordings.numbered(alike[0]), nlri);
            rest = after;
        }
        self.withdrawn.clear();
        self.announced.clear();
        self.numbers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_attributes_are_written_once_and_have_one_print() {
        let mut wordings = Wordings::new(RandomState::with_seed(1));
        let keys: [&[u8]; 3] = [&[0, 0x40, 1, 1, 0], &[0, 0x40, 1, 1, 1], &[0]];
        let first: Vec<Worded> = keys.iter().map(|key| wordings.add(key)).collect();
        let again: Vec<Worded> = keys.iter().map(|key| wordings.add(key)).collect();
        for ((key, first), again) in keys.iter().zip(&first).zip(&again) {
            assert_eq!((first.print, first.number), (again.print, again.number));
            assert_eq!(wordings.key(*again), *key);
        }
        assert_ne!(first[0].print, first[1].print);
        assert_eq!(wordings.bytes.len(), 11);
    }
}
