//! The dimension of one end's address: from its class to what it leads to.
//!
//! A program names a few atoms, so most classes are one to it: it makes rows for what it can tell apart, the atoms of a
//! class that it names (the class's *view*), and every class leads to what its view leads to: a row of bits, and in large
//! programs the blocks of its narrow rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ahash::RandomState;

use super::atoms::AtomId;
use super::blocks::{Blocks, Lane};
use super::classes::{ClassId, Classes};
use super::conditions::AddressCondition;
use super::narrow::NarrowEnd;
use super::pairs::Share;
use super::rows::{ANY, Form, PLAIN_MAX, Rows, Words, set_bit};

/// From a class to its row and, in a program with narrow rules, to its lead. Shared with readers, and written in place: nothing
/// leads to a class that is new yet.
#[derive(Clone, Debug)]
pub(super) struct ClassMap {
    pub(super) rows: Arc<[AtomicU32]>,
    /// As [`Lead`] has them; empty in a program without narrow rules.
    pub(super) leads: Arc<[AtomicU64]>,
}

/// What a class has in it.
type Entry = (u32, Option<Lead>);

impl ClassMap {
    /// A map in which every class has this entry.
    fn new(end: usize, (row, lead): Entry) -> ClassMap {
        // Room for classes to come.
        let len = end.next_power_of_two().clamp(16, super::classes::UNKNOWN as usize);
        let leads = lead.into_iter().flat_map(|lead| std::iter::repeat_n(lead.0, len));
        ClassMap {
            rows: (0..len).map(|_| AtomicU32::new(row)).collect(),
            leads: leads.map(AtomicU64::new).collect(),
        }
    }

    fn set(&self, class: ClassId, (row, lead): Entry) {
        self.rows[class as usize].store(row, Ordering::Relaxed);
        if let Some(lead) = lead {
            self.leads[class as usize].store(lead.0, Ordering::Relaxed);
        }
    }

    /// The same with room for classes up to `end`, which have this entry.
    fn longer(&self, end: usize, entry: Entry) -> ClassMap {
        let longer = ClassMap::new(end, entry);
        for (new, old) in longer.rows.iter().zip(self.rows.iter()) {
            new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for (new, old) in longer.leads.iter().zip(self.leads.iter()) {
            new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        longer
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.rows) + size_of_val(&*self.leads)
    }
}

/// Where an address leads to in a program with narrow rules: in one number, so that a reader sees all of it at once. The block
/// lies above the share.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lead(u64);

impl Lead {
    /// Of a class that isn't known.
    pub(super) const UNKNOWN: Lead = Lead((Blocks::UNKNOWN as u64) << Share::BITS);

    /// `None` where the block has too large a number.
    fn new(block: u32, Share(share): Share) -> Option<Lead> {
        (block >> (u64::BITS - Share::BITS) == 0).then_some(Lead(u64::from(block) << Share::BITS | share))
    }

    #[inline(always)]
    pub(super) fn from_bits(bits: u64) -> Lead {
        Lead(bits)
    }

    /// The block where its chain begins.
    #[inline(always)]
    pub(super) fn block(self) -> u32 {
        (self.0 >> Share::BITS) as u32
    }

    /// The sum of both shares, and something above it.
    #[inline(always)]
    pub(super) fn sum(self, Lead(other): Lead) -> u64 {
        self.0.wrapping_add(other)
    }
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
    /// Does any bit depend on this end?
    pub(super) asks_bits: bool,
    rows: Rows,
    conditions: Vec<Asked>,
    /// The conditions that ask for an atom.
    by_atom: HashMap<AtomId, Vec<u32>, RandomState>,
    /// What classes of each view have.
    views: HashMap<Box<[AtomId]>, Entry, RandomState>,
    /// The shares of addresses' positions, by what they meet of what rules of both ends ask.
    shares: HashMap<Box<[u32]>, Share, RandomState>,
    has_narrow: bool,
    /// What classes of a view of nothing have.
    nothing: Entry,
    /// Views when all classes were last gone through.
    views_at_first: usize,
}

/// A condition, and who has it: bits of rows, lanes of blocks, and rules of both ends, by the number that positions know it by.
#[derive(Default)]
struct Asked {
    condition: AddressCondition,
    bits: Vec<u32>,
    lanes: Vec<Lane>,
    paired: Option<u32>,
}

impl AddressRows {
    /// The dimension that these parts make, by bit, and narrow ones; `None` where none of them asks for anything.
    pub(super) fn new<'a>(
        parts: impl Iterator<Item = (u32, &'a AddressCondition)>,
        narrow: NarrowEnd,
        has_narrow: bool,
        width: usize,
        making: &mut Making,
    ) -> Option<AddressRows> {
        let mut conditions = Conditions::default();
        parts.for_each(|(bit, condition)| conditions.one(condition).bits.push(bit));
        narrow.lanes.into_iter().for_each(|(condition, lanes)| conditions.one(&condition).lanes = lanes);
        let paired = narrow.paired.into_iter();
        paired.for_each(|(condition, number)| conditions.one(&condition).paired = Some(number));
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
        let asks_bits = conditions.iter().any(|asked| !asked.bits.is_empty() && !asked.condition.is_any());
        let mut rows = AddressRows {
            asks_bits,
            rows: Rows::new(form, base, &mut making.words),
            conditions,
            by_atom,
            views: HashMap::default(),
            shares: narrow.shares,
            has_narrow,
            nothing: (0, None),
            views_at_first: 0,
        };
        rows.nothing = rows.entry_of(&[], making)?;
        Some(rows)
    }

    /// Where the base lies.
    pub(super) fn base_at(&self) -> u32 {
        self.rows.base_at
    }

    /// Leads every class.
    pub(super) fn lead_all(&mut self, classes: &Classes, making: &mut Making) -> Option<ClassMap> {
        let map = ClassMap::new(classes.end(), self.nothing);
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
        map: &ClassMap,
        making: &mut Making,
    ) -> Option<Option<ClassMap>> {
        let end = fresh.iter().max().map_or(0, |last| *last as usize + 1);
        let longer = (end > map.rows.len()).then(|| map.longer(end, self.nothing));
        let map = longer.as_ref().unwrap_or(map);
        fresh.iter().for_each(|class| map.set(*class, self.nothing));
        self.lead(|atom| by_atom.get(&atom).map_or(&[], Vec::as_slice), map, making)?;
        Some(longer)
    }

    fn lead<'a>(
        &mut self,
        with: impl Fn(AtomId) -> &'a [ClassId],
        map: &ClassMap,
        making: &mut Making,
    ) -> Option<()> {
        let mut view = Vec::new();
        for one in seen(self.by_atom.keys(), with).chunk_by(|(a, _), (b, _)| a == b) {
            view.clear();
            view.extend(one.iter().map(|(_, atom)| *atom));
            let entry = match self.views.get(&*view) {
                Some(entry) => *entry,
                None => self.entry_of(&view, making)?,
            };
            map.set(one[0].0, entry);
        }
        Some(())
    }

    /// What classes of a view that is new have; `None` where there is no position for it, or more blocks than can be counted.
    fn entry_of(&mut self, view: &[AtomId], making: &mut Making) -> Option<Entry> {
        let mut asked: Vec<u32> = view.iter().flat_map(|atom| &self.by_atom[atom]).copied().collect();
        asked.sort_unstable();
        asked.dedup();
        let (mut turned, mut lanes, mut pattern) = (Vec::<u32>::new(), Vec::new(), Vec::new());
        for number in asked {
            let Asked { condition, bits, lanes: of_condition, paired } = &self.conditions[number as usize];
            let before = condition.holds(&[]);
            if condition.holds(view) != before {
                turned.extend(bits);
                lanes.extend(of_condition);
                pattern.extend(paired);
            }
        }
        turned.sort_unstable();
        let base = self.rows.base();
        let differs = turned.chunk_by(|a, b| a / 64 == b / 64).map(|bits| {
            let word = bits[0] / 64;
            (word, bits.iter().fold(base[word as usize], |word, bit| word ^ 1u64 << (bit % 64)))
        });
        let differs = differs.collect();
        let row = if self.asks_bits { self.rows.row(differs, &mut making.words) } else { ANY };
        let lead = if self.has_narrow { Some(self.lead_to(&mut lanes, pattern, making)?) } else { None };
        self.views.insert(view.into(), (row, lead));
        Some((row, lead))
    }

    /// A lead to these lanes; `None` where there is no position for it, or more blocks than can be counted.
    fn lead_to(&self, lanes: &mut [Lane], mut pattern: Vec<u32>, making: &mut Making) -> Option<Lead> {
        pattern.sort_unstable();
        let share = *self.shares.get(&*pattern)?;
        let block = if lanes.is_empty() {
            Blocks::NOWHERE
        } else {
            making.blocks.write(lanes, making.blocks_before)?
        };
        Lead::new(block, share)
    }

    /// Are there many more rows than when all classes were last gone through? Some may be nobody's by now.
    pub(super) fn is_worn(&self) -> bool {
        self.views.len() > self.views_at_first * 2 + 256
    }

    /// About how many bytes this takes, rows and blocks aside.
    pub(super) fn bytes(&self) -> usize {
        let of = |asked: &Asked| asked.bits.len() * 4 + size_of_val(&*asked.lanes) + size_of::<Asked>();
        let conditions: usize = self.conditions.iter().map(of).sum();
        conditions + self.views.len() * 64 + self.by_atom.len() * 64
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
