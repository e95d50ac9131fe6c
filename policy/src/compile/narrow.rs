//! Which rules of a large program are *narrow*: asked by few packets, as their addresses or ports say.
//!
//! Rows of bits cost a word for every 64 rules and every address. Where a list has thousands of rules, most of them are
//! about some network or some set, and an address meets a handful: those lie with what packets have, and rows are left with
//! rules that are about everybody. So what a packet costs hardly grows with the number of rules.
//!
//! A rule that asks for one end lies with the addresses that it is about, in a chain of blocks (`blocks.rs`). One that asks for
//! both lies with pairs (`pairs.rs`): all addresses that meet the same of what such rules ask of an end have one *position*
//! there, and most pairs of positions meet one rule or none. One that asks for neither lies with ports (`port_grid.rs`).
//! Each narrow rule has a *rank*, its place among all of them.

use std::collections::{HashMap, HashSet};

use ahash::RandomState;

use super::address_rows::seen;
use super::addresses::Addresses;
use super::atoms::AtomId;
use super::blocks::{Lane, NO_RANK, Rank};
use super::conditions::{AddressCondition, Group, Part};
use super::pairs::{Mixing, Pairs, Share};
use super::port_grid::PortGrid;
use super::program::named;
use super::rows::{PLAIN_MAX, WORD};
use crate::rule::Action;

/// Lanes that an address leads to at most: rules that would make more of them are better in rows.
const LANES_MAX: usize = 32;
/// Lanes of all addresses and pairs together, for each rule.
const LANES_A_RULE: usize = 16;

/// Narrow rules.
#[derive(Debug)]
pub(super) struct Narrow {
    /// Those that ask for one end, and the positions of each end: the source's, the destination's.
    pub(super) ends: [NarrowEnd; 2],
    /// Those that ask for both.
    pub(super) pairs: Pairs,
    /// Those of the first group that ask for neither.
    pub(super) grid: Option<PortGrid>,
    /// The name of each, by rank.
    pub(super) names: Vec<u32>,
}

/// One end.
#[derive(Debug, Default)]
pub(super) struct NarrowEnd {
    /// Lanes that an address of a condition leads to.
    pub(super) lanes: HashMap<AddressCondition, Vec<Lane>, RandomState>,
    /// What rules of both ends ask of this one, numbered.
    pub(super) paired: HashMap<AddressCondition, u32, RandomState>,
    /// The share of the position of addresses that meet exactly these of them, in the order of their numbers.
    pub(super) shares: HashMap<Box<[u32]>, Share, RandomState>,
}

impl Narrow {
    fn none() -> Narrow {
        Narrow { ends: Default::default(), pairs: Pairs::none(), grid: None, names: Vec::new() }
    }

    /// Takes narrow rules out of large groups.
    pub(super) fn of(groups: &mut [Group], addresses: &Addresses) -> Narrow {
        let parts: Vec<(usize, &Part)> = groups
            .iter()
            .enumerate()
            .flat_map(|(number, group)| group.parts.iter().map(move |part| (number, part)))
            .filter(|(_, part)| decides(part))
            .collect();
        if parts.len() <= PLAIN_MAX * WORD {
            return Narrow::none();
        }
        let ends = [
            Asked::new(parts.iter().map(|(_, part)| &part.source), addresses),
            Asked::new(parts.iter().map(|(_, part)| &part.destination), addresses),
        ];
        let mut all: Vec<Candidate> = parts
            .iter()
            .enumerate()
            .filter_map(|(number, (group, part))| Candidate::of(number, *group, part, &ends))
            .collect();
        let positions = [0, 1].map(|end: usize| {
            let paired = all.iter().filter(|one| one.lies == Lies::Both);
            ends[end].positions(paired.map(|one| ends[end].of_part[one.part]))
        });
        all.iter_mut().for_each(|one| one.count(&ends, &positions));
        all.sort_by_key(|one| one.count);
        let mut room = parts.len() * LANES_A_RULE;
        let mut counts = ends.each_ref().map(|asked| vec![0; asked.views]);
        all.retain(|one| {
            let fits = one.count <= room
                && match one.lies {
                    Lies::End(end) => {
                        let (views, counts) = (ends[end].views_of(one.part), &mut counts[end]);
                        let fits =
                            views.iter().all(|view| counts[*view as usize] + one.lanes.len() <= LANES_MAX);
                        if fits {
                            views.iter().for_each(|view| counts[*view as usize] += one.lanes.len());
                        }
                        fits
                    }
                    Lies::Both | Lies::Ports => true,
                };
            room -= if fits { one.count } else { 0 };
            fits
        });
        let paired = all.iter().filter(|one| one.lies == Lies::Both).map(|one| one.count).sum();
        let mixing = Mixing::new(positions.each_ref().map(|end| end.by_pattern.len()), paired);
        all.retain(|one| one.lies != Lies::Both || mixing.is_some());
        let mut names = rank(&mut all, &parts);
        let on_grid = all.iter().filter(|one| one.lies == Lies::Ports);
        let on_grid: Vec<Lane> = on_grid.flat_map(|one| &one.lanes).copied().collect();
        let grid = if on_grid.is_empty() { None } else { PortGrid::new(&on_grid) };
        if grid.is_none() {
            all.retain(|one| one.lies != Lies::Ports);
            names = rank(&mut all, &parts);
        }
        if all.len() < parts.len() / 2 || names.len() >= usize::from(NO_RANK) {
            return Narrow::none();
        }
        let mut narrow = Narrow { grid, names, ..Narrow::none() };
        let mut pairs: HashMap<[u16; 2], Vec<Lane>, RandomState> = HashMap::default();
        let mut taken = vec![false; parts.len()];
        for one in &all {
            taken[one.part] = true;
            match one.lies {
                Lies::End(end) => {
                    let condition = ends[end].condition(one.part);
                    narrow.ends[end].lanes.entry(condition.clone()).or_default().extend(&one.lanes);
                }
                Lies::Both => {
                    let [sources, destinations] = one.positions(&ends, &positions);
                    for source in sources {
                        for destination in destinations {
                            pairs.entry([*source, *destination]).or_default().extend(&one.lanes);
                        }
                    }
                }
                Lies::Ports => {}
            }
        }
        // Without pairs, one position is all addresses'.
        let positions = if mixing.is_some() {
            positions
        } else {
            ends.each_ref().map(|asked| asked.positions([].into_iter()))
        };
        for ((at, asked), Positions { numbers, by_pattern, .. }) in ends.iter().enumerate().zip(positions) {
            let number = |(condition, number)| (asked.conditions[condition as usize].clone(), number);
            let share = |(pattern, position)| (pattern, mixing.unwrap_or_default().share(at, position));
            let end = &mut narrow.ends[at];
            end.paired = numbers.into_iter().map(number).collect();
            end.shares = by_pattern.into_iter().map(share).collect();
        }
        if let Some(mixing) = mixing {
            let Some(pairs) = Pairs::new(mixing, pairs) else { return Narrow::none() };
            narrow.pairs = pairs;
        }
        let mut taken = taken.into_iter();
        for group in groups {
            group.parts.retain(|part| !decides(part) || !taken.next().unwrap_or(false));
        }
        narrow
    }

    /// Are there none?
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Gives all lanes the rank of their rule; the names of all rules, by rank.
fn rank(all: &mut [Candidate], parts: &[(usize, &Part)]) -> Vec<u32> {
    let name = |one: &Candidate| named(parts[one.part].1.step, parts[one.part].1.action);
    let mut names: Vec<u32> = all.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    for one in all {
        let rank = names.binary_search(&name(one)).unwrap_or(usize::MAX) as Rank;
        one.lanes.iter_mut().for_each(|lane| lane.rank = rank);
    }
    names
}

/// Rules that log are asked in order, and stay in rows.
fn decides(part: &Part) -> bool {
    part.action != Action::Log
}

/// What a narrow rule lies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lies {
    /// The addresses of one end.
    End(usize),
    /// Pairs of positions.
    Both,
    /// Ports.
    Ports,
}

/// A rule that may be narrow.
struct Candidate {
    part: usize,
    lies: Lies,
    lanes: Vec<Lane>,
    /// Lanes that it makes.
    count: usize,
}

impl Candidate {
    fn of(number: usize, group: usize, part: &Part, ends: &[Asked<'_>; 2]) -> Option<Candidate> {
        // An end that an address in nothing doesn't meet: nobody else need be led to it.
        let narrow = |end: usize| !ends[end].condition(number).holds(&[]);
        let is_any = |end: usize| ends[end].condition(number).is_any();
        let lies = match [is_any(0), is_any(1)] {
            [true, true] if group == 0 => Lies::Ports,
            [false, true] if narrow(0) => Lies::End(0),
            [true, false] if narrow(1) => Lies::End(1),
            [false, false] if narrow(0) && narrow(1) => Lies::Both,
            _ => return None,
        };
        Some(Candidate { part: number, lies, lanes: Lane::of(part)?, count: 0 })
    }

    /// Counts the lanes that it makes.
    fn count(&mut self, ends: &[Asked<'_>; 2], positions: &[Positions; 2]) {
        let places = match self.lies {
            Lies::End(end) => ends[end].views_of(self.part).len(),
            Lies::Both => self.positions(ends, positions).iter().map(|places| places.len()).product(),
            Lies::Ports => 1,
        };
        self.count = places * self.lanes.len();
    }

    /// The positions that meet what it asks of each end.
    fn positions<'a>(&self, ends: &[Asked<'_>; 2], positions: &'a [Positions; 2]) -> [&'a [u16]; 2] {
        [0, 1].map(|end| {
            let condition = ends[end].of_part[self.part];
            positions[end].places.get(&condition).map_or(&[][..], Vec::as_slice)
        })
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
        let mut patterns: Vec<Vec<u32>> = vec![Vec::new(); self.views];
        for (number, condition) in (0..).zip(&conditions) {
            self.met_by[*condition as usize].iter().for_each(|view| patterns[*view as usize].push(number));
        }
        // Of addresses in nothing.
        patterns.push(Vec::new());
        patterns.sort_unstable();
        patterns.dedup();
        let numbers: HashMap<u32, u32, RandomState> = conditions.iter().copied().zip(0..).collect();
        let mut places: HashMap<u32, Vec<u16>, RandomState> = HashMap::default();
        for (position, pattern) in (0..).zip(&patterns) {
            for number in pattern {
                places.entry(conditions[*number as usize]).or_default().push(position);
            }
        }
        // There are no more patterns than classes.
        let by_pattern = patterns.into_iter().map(Vec::into_boxed_slice).zip(0..=u16::MAX).collect();
        Positions { numbers, places, by_pattern }
    }
}

/// Positions of the addresses of one end.
struct Positions {
    /// Conditions as patterns have them.
    numbers: HashMap<u32, u32, RandomState>,
    /// Where each is met.
    places: HashMap<u32, Vec<u16>, RandomState>,
    by_pattern: HashMap<Box<[u32]>, u16, RandomState>,
}
