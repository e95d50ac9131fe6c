//! The dimension of one end's address: from its class to what it leads to.
//!
//! A program names a few atoms, so most classes are one to it: it makes rows for what it can tell apart, the atoms of a
//! class that it names (the class's *view*), and every class leads to what its view leads to: a row of bits, and in large
//! programs the blocks of its narrow rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ahash::RandomState;

use super::atoms::AtomId;
use super::blocks::{Blocks, Lane};
use super::classes::{ClassId, Classes};
use super::conditions::AddressCondition;
use super::narrow::NarrowEnd;
use super::rows::{Form, PLAIN_MAX, Rows, Words, set_bit};

/// From a class to its row, or in a program with narrow rules to the number of its lead. Shared with readers, and written in
/// place: a class that is new leads nowhere yet.
pub(super) type ClassLeads = Arc<[AtomicU32]>;

/// Where an address leads to in a program with narrow rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Lead {
    /// Its row of bits.
    pub(super) row: u32,
    /// The first of its blocks.
    pub(super) block: u32,
    /// How many there are: at least one where the program has any.
    pub(super) blocks: u32,
    /// Its position, for rules that lie with the other end.
    pub(super) position: u32,
}

/// What is in the making, behind what a program has already.
#[derive(Debug, Default)]
pub(super) struct Making {
    pub(super) words: Words,
    pub(super) blocks_before: usize,
    pub(super) blocks: Blocks,
}

/// The writer's side.
pub(super) struct AddressRows {
    rows: Rows,
    conditions: Vec<Asked>,
    /// The conditions that ask for an atom.
    by_atom: HashMap<AtomId, Vec<u32>, RandomState>,
    /// Each view's lead: a row or a lead's number.
    views: HashMap<Box<[AtomId]>, u32, RandomState>,
    /// All leads, and the number of each; none in a program without narrow rules.
    leads: Vec<Lead>,
    numbers: HashMap<Lead, u32, RandomState>,
    /// Positions of addresses, by what they meet of what rules of the other end ask.
    positions: HashMap<Box<[u32]>, u16, RandomState>,
    has_lanes: bool,
    /// The lead of a view of nothing.
    nothing: u32,
    /// Views when all classes were last gone through.
    views_at_first: usize,
}

/// A condition, and who has it: bits of rows, lanes of blocks, and rules that lie with the other end, by the number that
/// positions know it by.
#[derive(Default)]
struct Asked {
    condition: AddressCondition,
    bits: Vec<u32>,
    lanes: Vec<Lane>,
    across: Option<u32>,
}

impl AddressRows {
    /// The dimension that these parts make, by bit, and narrow ones; `None` where none of them asks for anything.
    pub(super) fn new<'a>(
        parts: impl Iterator<Item = (u32, &'a AddressCondition)>,
        narrow: NarrowEnd,
        has_lanes: bool,
        width: usize,
        making: &mut Making,
    ) -> Option<AddressRows> {
        let mut conditions = Conditions::default();
        parts.for_each(|(bit, condition)| conditions.one(condition).bits.push(bit));
        narrow.lanes.into_iter().for_each(|(condition, lanes)| conditions.one(&condition).lanes = lanes);
        let across = narrow.across.into_iter();
        across.for_each(|(condition, number)| conditions.one(&condition).across = Some(number));
        let conditions = conditions.all;
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
        let mut rows = AddressRows {
            rows: Rows::new(form, base, &mut making.words),
            conditions,
            by_atom,
            views: HashMap::default(),
            leads: Vec::new(),
            numbers: HashMap::default(),
            positions: narrow.positions,
            has_lanes,
            nothing: 0,
            views_at_first: 0,
        };
        rows.nothing = rows.lead_of(&[], making)?;
        Some(rows)
    }

    /// Where the base lies.
    pub(super) fn base_at(&self) -> u32 {
        self.rows.base_at
    }

    /// Does any bit depend on this end?
    pub(super) fn asks_bits(&self) -> bool {
        self.conditions.iter().any(|asked| !asked.bits.is_empty() && !asked.condition.is_any())
    }

    /// All leads, by number.
    pub(super) fn leads(&self) -> &[Lead] {
        &self.leads
    }

    /// Leads every class.
    pub(super) fn lead_all(&mut self, classes: &Classes, making: &mut Making) -> Option<ClassLeads> {
        let map = new_map(classes.end(), self.nothing);
        self.lead(|atom| classes.with(atom), &map, making)?;
        self.views_at_first = self.views.len();
        Some(map)
    }

    /// Leads new classes; `by_atom` are those among them that list an atom. Returns another map where this one is too short,
    /// and `None` where the program has to be made anew.
    pub(super) fn lead_fresh(
        &mut self,
        fresh: &[ClassId],
        by_atom: &HashMap<AtomId, Vec<ClassId>, RandomState>,
        map: &ClassLeads,
        making: &mut Making,
    ) -> Option<Option<ClassLeads>> {
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
        self.lead(|atom| by_atom.get(&atom).map_or(&[], Vec::as_slice), map, making)?;
        Some(longer)
    }

    fn lead<'a>(
        &mut self,
        with: impl Fn(AtomId) -> &'a [ClassId],
        map: &[AtomicU32],
        making: &mut Making,
    ) -> Option<()> {
        let mut view = Vec::new();
        for one in seen(self.by_atom.keys(), with).chunk_by(|(a, _), (b, _)| a == b) {
            view.clear();
            view.extend(one.iter().map(|(_, atom)| *atom));
            let lead = match self.views.get(&*view) {
                Some(lead) => *lead,
                None => self.lead_of(&view, making)?,
            };
            map[one[0].0 as usize].store(lead, Ordering::Relaxed);
        }
        Some(())
    }

    /// The lead of a view that is new; `None` where there is no position for it, or more blocks than can be counted.
    fn lead_of(&mut self, view: &[AtomId], making: &mut Making) -> Option<u32> {
        let mut asked: Vec<u32> = view.iter().flat_map(|atom| &self.by_atom[atom]).copied().collect();
        asked.sort_unstable();
        asked.dedup();
        let (mut turned, mut lanes, mut pattern) = (Vec::<u32>::new(), Vec::new(), Vec::new());
        for number in asked {
            let Asked { condition, bits, lanes: of_condition, across } = &self.conditions[number as usize];
            let before = condition.holds(&[]);
            if condition.holds(view) != before {
                turned.extend(bits);
                lanes.extend(of_condition);
                pattern.extend(across);
            }
        }
        turned.sort_unstable();
        let base = self.rows.base();
        let differs = turned.chunk_by(|a, b| a / 64 == b / 64).map(|bits| {
            let word = bits[0] / 64;
            (word, bits.iter().fold(base[word as usize], |word, bit| word ^ 1u64 << (bit % 64)))
        });
        let differs = differs.collect();
        let row = self.rows.row(differs, &mut making.words);
        let number = if self.has_lanes { self.number_of(row, &mut lanes, pattern, making)? } else { row };
        self.views.insert(view.into(), number);
        Some(number)
    }

    /// The number of a lead; `None` where there is no position for it, or more blocks than can be counted.
    fn number_of(
        &mut self,
        row: u32,
        lanes: &mut [Lane],
        mut pattern: Vec<u32>,
        making: &mut Making,
    ) -> Option<u32> {
        pattern.sort_unstable();
        let mut lead = Lead { row, position: (*self.positions.get(&*pattern)?).into(), ..Lead::default() };
        // Nothing of lanes is in the first block.
        if !lanes.is_empty() {
            lead.block = u32::try_from(making.blocks_before + making.blocks.len()).ok()?;
            lead.blocks = u32::try_from(making.blocks.write(lanes)).ok()?;
        }
        Some(*self.numbers.entry(lead).or_insert_with(|| {
            self.leads.push(lead);
            self.leads.len() as u32 - 1
        }))
    }

    /// Are there many more rows than when all classes were last gone through? Some may be nobody's by now.
    pub(super) fn is_worn(&self) -> bool {
        self.views.len() > self.views_at_first * 2 + 256
    }

    /// About how many bytes this takes, rows and blocks aside.
    pub(super) fn bytes(&self) -> usize {
        let of = |asked: &Asked| asked.bits.len() * 4 + size_of_val(&*asked.lanes) + size_of::<Asked>();
        let conditions: usize = self.conditions.iter().map(of).sum();
        conditions
            + self.views.len() * 64
            + self.by_atom.len() * 64
            + self.leads.len() * 3 * size_of::<Lead>()
    }
}

/// Conditions, each once.
#[derive(Default)]
struct Conditions {
    all: Vec<Asked>,
    numbers: HashMap<AddressCondition, usize, RandomState>,
}

impl Conditions {
    fn one(&mut self, condition: &AddressCondition) -> &mut Asked {
        let number = match self.numbers.get(condition) {
            Some(number) => *number,
            None => {
                self.numbers.insert(condition.clone(), self.all.len());
                self.all.push(Asked { condition: condition.clone(), ..Asked::default() });
                self.all.len() - 1
            }
        };
        &mut self.all[number]
    }
}

/// The classes that list any of these atoms, each with those that it lists: in order, a class's next to each other.
pub(super) fn seen<'a, 'b>(
    atoms: impl Iterator<Item = &'b AtomId>,
    with: impl Fn(AtomId) -> &'a [ClassId],
) -> Vec<(ClassId, AtomId)> {
    let mut seen: Vec<(ClassId, AtomId)> =
        atoms.flat_map(|atom| with(*atom).iter().map(|class| (*class, *atom))).collect();
    seen.sort_unstable();
    seen
}

/// A map in which every class leads where this one does.
fn new_map(end: usize, lead: u32) -> ClassLeads {
    // Room for classes to come.
    let len = end.next_power_of_two().clamp(16, super::classes::UNKNOWN as usize);
    (0..len).map(|_| AtomicU32::new(lead)).collect()
}
