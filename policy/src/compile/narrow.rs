//! Which rules of a large program are *narrow*: asked for by one address of few.
//!
//! Rows of bits cost a word for every 64 rules and every address. Where a list has thousands of rules, most of them are
//! about some network or some set, and an address meets a handful: those lie with what the address leads to, in blocks
//! (`blocks.rs`), and rows are left with rules that are about everybody. So what a packet costs hardly grows with the number
//! of rules.
//!
//! A rule that asks for both ends lies with the end that fewer classes of addresses meet; what it asks of the other end is a
//! span of *positions*. All addresses that meet the same of what is asked so have one position, and they are numbered so that
//! networks, of which one lies in another or apart from it, are spans. Rules whose other end is no span stay in rows.

use std::collections::{HashMap, HashSet};

use ahash::RandomState;

use super::address_rows::seen;
use super::addresses::Addresses;
use super::atoms::AtomId;
use super::blocks::{Lane, Span};
use super::conditions::{AddressCondition, Group, Part};
use super::rows::{PLAIN_MAX, WORD};
use crate::rule::Action;

/// Lanes that an address leads to at most: rules that would make more of them are better in rows.
const LANES_MAX: usize = 32;
/// Lanes of all addresses together, for each rule.
const LANES_A_RULE: usize = 16;

/// Narrow rules, by the end that leads to them: the source's, the destination's.
#[derive(Debug, Default)]
pub(super) struct Narrow {
    pub(super) ends: [NarrowEnd; 2],
}

/// One end.
#[derive(Debug, Default)]
pub(super) struct NarrowEnd {
    /// Lanes that an address of a condition leads to.
    pub(super) lanes: HashMap<AddressCondition, Vec<Lane>, RandomState>,
    /// What rules of the other end ask of this one, numbered.
    pub(super) across: HashMap<AddressCondition, u32, RandomState>,
    /// The position of addresses that meet exactly these of them, in the order of their numbers.
    pub(super) positions: HashMap<Box<[u32]>, u16, RandomState>,
}

impl Narrow {
    /// Takes narrow rules out of large groups.
    pub(super) fn of(groups: &mut [Group], addresses: &Addresses) -> Narrow {
        let parts: Vec<&Part> = groups.iter().flat_map(|group| &group.parts).filter(decides).collect();
        if parts.len() <= PLAIN_MAX * WORD {
            return Narrow::default();
        }
        let ends = [
            Asked::new(parts.iter().map(|part| &part.source), addresses),
            Asked::new(parts.iter().map(|part| &part.destination), addresses),
        ];
        let mut all: Vec<Candidate> = parts
            .iter()
            .enumerate()
            .filter_map(|(number, part)| Candidate::of(number, part, &ends))
            .collect();
        let positions =
            [0, 1].map(|end| ends[end].positions(all.iter().filter_map(|one| one.across(end, &ends))));
        all.retain_mut(|one| match one.across(1 - one.end, &ends) {
            None => true,
            Some(condition) => {
                let span = positions[1 - one.end].spans.get(&condition).copied();
                let across = span.unwrap_or(Span::ANY);
                one.lanes.iter_mut().for_each(|lane| lane.across = across);
                span.is_some()
            }
        });
        all.sort_by_key(|one| one.views(&ends).len());
        let mut room = parts.len() * LANES_A_RULE;
        let mut counts = ends.each_ref().map(|asked| vec![0; asked.views]);
        all.retain(|one| {
            let (views, count) = (one.views(&ends), one.lanes.len());
            let counts = &mut counts[one.end];
            let fits = views.len() * count <= room
                && views.iter().all(|view| counts[*view as usize] + count <= LANES_MAX);
            if fits {
                room -= views.len() * count;
                views.iter().for_each(|view| counts[*view as usize] += count);
            }
            fits
        });
        if all.len() < parts.len() / 2 {
            return Narrow::default();
        }
        let mut taken = vec![false; parts.len()];
        let mut narrow = Narrow::default();
        for one in &all {
            taken[one.part] = true;
            let condition = ends[one.end].condition(one.part);
            narrow.ends[one.end].lanes.entry(condition.clone()).or_default().extend(&one.lanes);
        }
        for ((end, asked), Positions { numbers, by_pattern, .. }) in
            narrow.ends.iter_mut().zip(&ends).zip(positions)
        {
            let number = |(condition, number)| (asked.conditions[condition as usize].clone(), number);
            end.across = numbers.into_iter().map(number).collect();
            end.positions = by_pattern;
        }
        let mut taken = taken.into_iter();
        for group in groups {
            group.parts.retain(|part| !decides(&part) || !taken.next().unwrap_or(false));
        }
        narrow
    }
}

/// Rules that log are asked in order, and stay in rows.
fn decides(part: &&Part) -> bool {
    part.action != Action::Log
}

/// A rule that may be narrow.
struct Candidate {
    part: usize,
    /// The end that leads to it.
    end: usize,
    lanes: Vec<Lane>,
}

impl Candidate {
    fn of(number: usize, part: &Part, ends: &[Asked<'_>; 2]) -> Option<Candidate> {
        // An end that an address in nothing doesn't meet: nobody else need be led to it.
        let narrow = |end: &usize| !ends[*end].condition(number).holds(&[]);
        let is_any = |end: usize| ends[end].condition(number).is_any();
        let leads = |end: &usize| narrow(end) && (is_any(1 - end) || narrow(&(1 - end)));
        let end = [0, 1].into_iter().filter(leads).min_by_key(|end| ends[*end].views_of(number).len())?;
        Some(Candidate { part: number, end, lanes: Lane::of(part)? })
    }

    /// What it asks of this end, if it lies with the other one.
    fn across(&self, end: usize, ends: &[Asked<'_>; 2]) -> Option<u32> {
        let asks = self.end != end && !ends[end].condition(self.part).is_any();
        asks.then(|| ends[end].of_part[self.part])
    }

    fn views<'a>(&self, ends: &'a [Asked<'_>; 2]) -> &'a [u32] {
        ends[self.end].views_of(self.part)
    }
}

/// What is asked of one end, and which views of it there are: addresses that are in the same atoms that are asked for.
struct Asked<'a> {
    conditions: Vec<&'a AddressCondition>,
    /// The condition of each part.
    of_part: Vec<u32>,
    views: usize,
    /// The views that meet each condition, of those that nothing doesn't meet.
    met_by: Vec<Vec<u32>>,
}

impl<'a> Asked<'a> {
    fn new(parts: impl Iterator<Item = &'a AddressCondition>, addresses: &Addresses) -> Asked<'a> {
        let mut numbers: HashMap<&AddressCondition, u32, RandomState> = HashMap::default();
        let mut conditions = Vec::new();
        let of_part = parts.map(|condition| {
            *numbers.entry(condition).or_insert_with(|| {
                conditions.push(condition);
                conditions.len() as u32 - 1
            })
        });
        let of_part = of_part.collect();
        let mut by_atom: HashMap<AtomId, Vec<u32>, RandomState> = HashMap::default();
        for (number, condition) in (0..).zip(&conditions) {
            condition.atoms().for_each(|atom| by_atom.entry(atom).or_default().push(number));
        }
        let mut met_by = vec![Vec::new(); conditions.len()];
        let mut known: HashSet<Vec<AtomId>, RandomState> = HashSet::default();
        for class in
            seen(by_atom.keys(), |atom| addresses.classes.with(atom)).chunk_by(|(a, _), (b, _)| a == b)
        {
            let view: Vec<AtomId> = class.iter().map(|(_, atom)| *atom).collect();
            if known.contains(&view) {
                continue;
            }
            let number = known.len() as u32;
            let mut asked: Vec<u32> = view.iter().flat_map(|atom| &by_atom[atom]).copied().collect();
            asked.sort_unstable();
            asked.dedup();
            asked.retain(|condition| {
                let condition = conditions[*condition as usize];
                condition.holds(&view) && !condition.holds(&[])
            });
            asked.iter().for_each(|condition| met_by[*condition as usize].push(number));
            known.insert(view);
        }
        Asked { conditions, of_part, views: known.len(), met_by }
    }

    fn condition(&self, part: usize) -> &'a AddressCondition {
        self.conditions[self.of_part[part] as usize]
    }

    fn views_of(&self, part: usize) -> &[u32] {
        &self.met_by[self.of_part[part] as usize]
    }

    /// Positions for telling these conditions.
    fn positions(&self, conditions: impl Iterator<Item = u32>) -> Positions {
        let mut conditions: Vec<u32> = conditions.collect();
        conditions.sort_unstable();
        conditions.dedup();
        // The widest first: what lies within another one comes after it in every pattern, and patterns in order of their
        // conditions have those of each next to each other.
        conditions.sort_by_key(|condition| std::cmp::Reverse(self.met_by[*condition as usize].len()));
        let mut patterns: Vec<Vec<u32>> = vec![Vec::new(); self.views];
        for (number, condition) in (0..).zip(&conditions) {
            self.met_by[*condition as usize].iter().for_each(|view| patterns[*view as usize].push(number));
        }
        patterns.push(Vec::new());
        patterns.sort_unstable();
        patterns.dedup();
        let numbers: HashMap<u32, u32, RandomState> = conditions.iter().copied().zip(0..).collect();
        let mut places = vec![Vec::new(); conditions.len()];
        for (position, pattern) in patterns.iter().enumerate() {
            pattern.iter().for_each(|number| places[*number as usize].push(position));
        }
        // One that no address meets is the span of none: it stays in rows until there is one.
        let span = |places: &Vec<usize>| {
            let (first, last) = (*places.first()?, *places.last()?);
            let span = Span { first: first as u16, more: (last - first) as u16 };
            (last - first + 1 == places.len() && last < usize::from(u16::MAX)).then_some(span)
        };
        let spans = conditions
            .iter()
            .zip(&places)
            .filter_map(|(condition, places)| Some((*condition, span(places)?)));
        let spans = spans.collect();
        let by_pattern = patterns.into_iter().map(Vec::into_boxed_slice).zip(0..u16::MAX).collect();
        Positions { numbers, spans, by_pattern }
    }
}

/// Positions of the addresses of one end.
struct Positions {
    /// Conditions as patterns have them.
    numbers: HashMap<u32, u32, RandomState>,
    /// Those that are spans.
    spans: HashMap<u32, Span, RandomState>,
    by_pattern: HashMap<Box<[u32]>, u16, RandomState>,
}
