//! The dimension of one end's address: from its class to a row.
//!
//! A program names a few atoms, so most classes are one to it: it makes rows for what it can tell apart, the atoms of a
//! class that it names (the class's *view*), and every class leads to the row of its view.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ahash::RandomState;

use super::atoms::AtomId;
use super::classes::{ClassId, Classes};
use super::conditions::AddressCondition;
use super::rows::{Form, PLAIN_MAX, Rows, Words, set_bit};

/// From a class to where its row lies. Shared with readers, and written in place: a class that is new leads nowhere yet.
pub(super) type ClassRows = Arc<[AtomicU32]>;

/// The writer's side.
pub(super) struct AddressRows {
    rows: Rows,
    conditions: Vec<Asked>,
    /// The conditions that ask for an atom.
    by_atom: HashMap<AtomId, Vec<u32>, RandomState>,
    /// Each view's row.
    views: HashMap<Box<[AtomId]>, u32, RandomState>,
    /// The row of a view of nothing.
    nothing: u32,
    /// Views when all classes were last gone through.
    views_at_first: usize,
}

/// A condition, and the bits of all who have it.
struct Asked {
    condition: AddressCondition,
    bits: Vec<u32>,
}

impl AddressRows {
    /// The dimension that these parts make, by bit; `None` where none of them asks for anything.
    pub(super) fn new<'a>(
        parts: impl Iterator<Item = (u32, &'a AddressCondition)>,
        width: usize,
        words: &mut Words,
    ) -> Option<AddressRows> {
        let mut numbers: HashMap<&AddressCondition, usize, RandomState> = HashMap::default();
        let mut conditions: Vec<Asked> = Vec::new();
        for (bit, condition) in parts {
            let number = *numbers.entry(condition).or_insert_with(|| {
                conditions.push(Asked { condition: condition.clone(), bits: Vec::new() });
                conditions.len() - 1
            });
            conditions[number].bits.push(bit);
        }
        if conditions.iter().all(|asked| asked.condition.is_any()) {
            return None;
        }
        let mut base = vec![0; width];
        let mut by_atom: HashMap<AtomId, Vec<u32>, RandomState> = HashMap::default();
        for (number, asked) in (0..).zip(&conditions) {
            if asked.condition.holds(&[]) {
                asked.bits.iter().for_each(|bit| set_bit(&mut base, *bit, true));
            }
            for atom in asked.condition.atoms() {
                let conditions = by_atom.entry(atom).or_default();
                if conditions.last() != Some(&number) {
                    conditions.push(number);
                }
            }
        }
        let form = if width <= PLAIN_MAX { Form::Plain } else { Form::Lists };
        let mut rows = Rows::new(form, base, words);
        let nothing = rows.row(Vec::new(), words);
        Some(AddressRows {
            rows,
            conditions,
            by_atom,
            views: HashMap::from_iter([(Box::default(), nothing)]),
            nothing,
            views_at_first: 0,
        })
    }

    /// Where the base lies.
    pub(super) fn base_at(&self) -> u32 {
        self.rows.base_at
    }

    /// Leads every class to its row.
    pub(super) fn lead_all(&mut self, classes: &Classes, words: &mut Words) -> ClassRows {
        let map = new_map(classes.end(), self.nothing);
        self.lead(|atom| classes.with(atom), &map, words);
        self.views_at_first = self.views.len();
        map
    }

    /// Leads new classes to their rows; `by_atom` are those among them that list an atom. Returns another map where this
    /// one is too short.
    pub(super) fn lead_fresh(
        &mut self,
        fresh: &[ClassId],
        by_atom: &HashMap<AtomId, Vec<ClassId>, RandomState>,
        map: &ClassRows,
        words: &mut Words,
    ) -> Option<ClassRows> {
        let end = fresh.iter().max().map_or(0, |last| *last as usize + 1);
        let longer = (end > map.len()).then(|| {
            let longer = new_map(end, self.nothing);
            for (new, old) in longer.iter().zip(map.iter()) {
                new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            longer
        });
        let map = longer.as_ref().unwrap_or(map);
        for class in fresh {
            map[*class as usize].store(self.nothing, Ordering::Relaxed);
        }
        self.lead(|atom| by_atom.get(&atom).map_or(&[], Vec::as_slice), map, words);
        longer
    }

    fn lead<'a>(&mut self, with: impl Fn(AtomId) -> &'a [ClassId], map: &[AtomicU32], words: &mut Words) {
        let named = self.by_atom.keys();
        let mut seen: Vec<(ClassId, AtomId)> =
            named.flat_map(|atom| with(*atom).iter().map(|class| (*class, *atom))).collect();
        seen.sort_unstable();
        let mut view = Vec::new();
        for one in seen.chunk_by(|(a, _), (b, _)| a == b) {
            view.clear();
            view.extend(one.iter().map(|(_, atom)| *atom));
            let row = match self.views.get(&*view) {
                Some(row) => *row,
                None => {
                    let row = self.row_of(&view, words);
                    self.views.insert(view.as_slice().into(), row);
                    row
                }
            };
            map[one[0].0 as usize].store(row, Ordering::Relaxed);
        }
    }

    fn row_of(&mut self, view: &[AtomId], words: &mut Words) -> u32 {
        let mut asked: Vec<u32> = view.iter().flat_map(|atom| &self.by_atom[atom]).copied().collect();
        asked.sort_unstable();
        asked.dedup();
        let mut turned: Vec<u32> = Vec::new();
        for number in asked {
            let Asked { condition, bits } = &self.conditions[number as usize];
            let before = condition.holds(&[]);
            if condition.holds(view) != before {
                turned.extend(bits);
            }
        }
        turned.sort_unstable();
        let base = self.rows.base();
        let differs = turned.chunk_by(|a, b| a / 64 == b / 64).map(|bits| {
            let word = bits[0] / 64;
            (word, bits.iter().fold(base[word as usize], |word, bit| word ^ 1u64 << (bit % 64)))
        });
        let differs = differs.collect();
        self.rows.row(differs, words)
    }

    /// Are there many more rows than when all classes were last gone through? Some may be nobody's by now.
    pub(super) fn is_worn(&self) -> bool {
        self.views.len() > self.views_at_first * 2 + 256
    }

    /// About how many bytes this takes, rows aside.
    pub(super) fn bytes(&self) -> usize {
        let conditions = self.conditions.iter();
        let bits: usize = conditions.map(|asked| asked.bits.len() * 4 + size_of::<Asked>()).sum();
        bits + self.views.len() * 64 + self.by_atom.len() * 64
    }
}

fn new_map(end: usize, row: u32) -> ClassRows {
    // Room for classes to come.
    let len = end.next_power_of_two().clamp(16, super::classes::UNKNOWN as usize);
    (0..len).map(|_| AtomicU32::new(row)).collect()
}
