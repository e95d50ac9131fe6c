//! Which bit each part of a rule has.
//!
//! Each group's rules have words of their own, and so have those among them that log, for they are looked at apart. Within
//! a group rules lie by the addresses that they ask for, not in their order: then rules that match the same packets share
//! words, and a packet's rows have few words in common. The rule that comes first is found by its number: within a word it
//! has the lowest bit.

use std::collections::BTreeSet;
use std::ops::Range;

use super::atoms::{Atom, Atoms};
use super::conditions::{AddressCondition, Group, Part};
use super::program::{NONE, named};
use super::rows::{PLAIN_MAX, WORD};
use crate::judge::Verdict;
use crate::rule::Action;

/// A group as a packet is judged by it.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// Words of rules that decide.
    pub(super) rules: Range<u32>,
    /// The lowest name among those; that of no rule where there are none, and 0 where rules log, as then all has to be asked.
    pub(super) lowest: u32,
    /// Words of rules that log, in their order.
    pub(super) logs: Range<u32>,
    /// What holds where no rule decides; `None` asks the next stage.
    pub(super) otherwise: Option<Verdict>,
    /// The step that this is.
    pub(super) step: u32,
}

/// Where everything lies.
pub(super) struct Arrangement {
    pub(super) stages: Vec<Stage>,
    /// What stands at each bit.
    pub(super) parts: Vec<Option<Part>>,
}

impl Arrangement {
    pub(super) fn new(groups: Vec<Group>, atoms: &Atoms) -> Arrangement {
        let mut parts = Vec::new();
        let mut stages = Vec::new();
        let are_many = groups.iter().map(|group| group.parts.len()).sum::<usize>() > PLAIN_MAX * WORD;
        for group in groups {
            let (logs, mut rules): (Vec<Part>, Vec<Part>) =
                group.parts.into_iter().partition(|part| part.action == Action::Log);
            if are_many && rules.len() > WORD {
                sort_by_addresses(&mut rules, atoms);
                rules.chunks_mut(WORD).for_each(|word| word.sort_by_key(|part| part.step));
            }
            let names = rules.iter().map(|part| named(part.step, part.action));
            let lowest = if logs.is_empty() { names.min().unwrap_or(NONE) } else { 0 };
            let rules = place(rules, &mut parts);
            let logs = place(logs, &mut parts);
            stages.push(Stage { rules, lowest, logs, otherwise: group.otherwise, step: group.step });
        }
        Arrangement { stages, parts }
    }

    /// Words that the bits make.
    pub(super) fn words(&self) -> usize {
        self.parts.len() / WORD
    }

    /// All parts with their bits.
    pub(super) fn bits(&self) -> impl Iterator<Item = (u32, &Part)> + Clone {
        (0..).zip(&self.parts).filter_map(|(bit, part)| Some((bit, part.as_ref()?)))
    }
}

fn place(some: Vec<Part>, parts: &mut Vec<Option<Part>>) -> Range<u32> {
    let start = parts.len() / WORD;
    parts.extend(some.into_iter().map(Some));
    parts.resize_with(parts.len().next_multiple_of(WORD), || None);
    start as u32..(parts.len() / WORD) as u32
}

/// By the end that tells more rules apart, then by the other one: a network next to those that it covers, and rules that
/// don't ask for an end by themselves.
fn sort_by_addresses(rules: &mut [Part], atoms: &Atoms) {
    let first = |condition: &AddressCondition| {
        condition.all_of.first().and_then(|any| any.first()).and_then(|atom| atoms.name(*atom))
    };
    let different = |ends: &mut dyn Iterator<Item = Option<Atom>>| ends.collect::<BTreeSet<_>>().len();
    let sources = different(&mut rules.iter().map(|part| first(&part.source)));
    let destinations = different(&mut rules.iter().map(|part| first(&part.destination)));
    rules.sort_by_cached_key(|part| {
        let (source, destination) = (first(&part.source), first(&part.destination));
        if sources > destinations { (source, destination) } else { (destination, source) }
    });
}
