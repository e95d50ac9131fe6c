//! The dimensions of protocol and ports: from family, protocol and a number of 16 bits to a row.
//!
//! The number is a port, or type and code of an ICMP message. Protocols that rules don't name are one kind. For each kind a
//! table finds the row in two steps: by the number's high bits one of 1,024 pages, in it by the low bits one of 64 rows.
//! Equal pages are one, so a program about a few ports has a few pages, and so are equal tables.

use std::collections::HashMap;

use ahash::RandomState;
use model::Family;

use super::conditions::{PortCondition, UpperCondition};
use super::rows::{Form, Rows, Words, set_bit};
use crate::judge::ICMP;
use crate::rule::PortRange;

/// Entries in a page: the fewer, the less memory lists of ranges take.
const PAGE: usize = 64;
/// Entries in a table.
const TABLE: usize = (1 << 16) / PAGE;
/// Rows lie below.
pub(super) const ROWS_END: usize = 1 << 31;

/// Rows of one kind of protocol; those with a number by where their table lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// Of packets that show neither ports nor an ICMP message's type.
    pub(super) bare: u32,
    /// By destination port.
    ports: u32,
    /// By type and code.
    icmp: u32,
    /// By source port, in a program that asks for it.
    source_ports: u32,
    /// Of packets that show none.
    pub(super) source_bare: u32,
}

/// The readers' side.
#[derive(Clone, Debug)]
pub(super) struct PortTables {
    kinds: Box<[Kind]>,
    /// By protocol; IPv6 behind IPv4.
    kind_of: Box<[u16; 512]>,
    pages: Box<[u32]>,
}

impl PortTables {
    /// The kind of a protocol: there is one.
    #[inline(always)]
    pub(super) fn kind(&self, family: Family, protocol: u8) -> Option<&Kind> {
        let at = usize::from(family == Family::V6) << 8 | usize::from(protocol);
        self.kinds.get(usize::from(self.kind_of[at]))
    }

    /// The row for a destination port.
    #[inline(always)]
    pub(super) fn port(&self, kind: &Kind, port: u16) -> u32 {
        self.row(kind.ports, port)
    }

    /// The row for an ICMP message.
    #[inline(always)]
    pub(super) fn icmp(&self, kind: &Kind, icmp_type: u8, code: u8) -> u32 {
        self.row(kind.icmp, u16::from_be_bytes([icmp_type, code]))
    }

    /// The row for a source port.
    #[inline(always)]
    pub(super) fn source_port(&self, kind: &Kind, port: u16) -> u32 {
        self.row(kind.source_ports, port)
    }

    #[inline(always)]
    fn row(&self, table: u32, number: u16) -> u32 {
        let (high, low) = (usize::from(number) / PAGE, usize::from(number) % PAGE);
        let page = self.pages.get(table as usize + high).copied().unwrap_or(0);
        self.pages.get(page as usize + low).copied().unwrap_or(0)
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.kinds) + size_of_val(&*self.kind_of) + size_of_val(&*self.pages)
    }
}

/// Conditions of one dimension, each with the bits of all who have it.
struct Asked<C> {
    conditions: Vec<(C, Vec<u32>)>,
}

impl<C: Clone + Eq + std::hash::Hash> Asked<C> {
    fn new<'a>(parts: impl Iterator<Item = (u32, &'a C)>) -> Asked<C>
    where
        C: 'a,
    {
        let mut numbers: HashMap<&C, usize, RandomState> = HashMap::default();
        let mut conditions: Vec<(C, Vec<u32>)> = Vec::new();
        for (bit, condition) in parts {
            let number = *numbers.entry(condition).or_insert_with(|| {
                conditions.push((condition.clone(), Vec::new()));
                conditions.len() - 1
            });
            conditions[number].1.push(bit);
        }
        Asked { conditions }
    }

    /// A base in which the bits stand of those who ask for nothing.
    fn rows(&self, is_any: impl Fn(&C) -> bool, width: usize, words: &mut Words) -> Rows {
        let mut base = vec![0; width];
        for (_, bits) in self.conditions.iter().filter(|(condition, _)| is_any(condition)) {
            bits.iter().for_each(|bit| set_bit(&mut base, *bit, true));
        }
        Rows::new(Form::Plain, base, words)
    }
}

/// Tables in the making.
struct Pages {
    pages: Vec<u32>,
    /// Where tables and pages with these entries lie.
    known: HashMap<Box<[u32]>, u32, RandomState>,
}

impl Pages {
    /// The table of a list of rows, each for the numbers from its own up to the next one's. The first is 0.
    fn table(&mut self, runs: &[(u32, u32)]) -> u32 {
        let mut table = [0; TABLE];
        let mut at = 0;
        let end = |at: usize| runs.get(at + 1).map_or(u32::MAX, |(first, _)| *first);
        let mut last: Option<(u32, u32)> = None;
        for (entry, high) in table.iter_mut().zip((0..).step_by(PAGE)) {
            while end(at) <= high {
                at += 1;
            }
            let row = runs[at].1;
            *entry = match last {
                // The same row throughout, as in the page before.
                Some((known, page)) if known == row && end(at) >= high + PAGE as u32 => page,
                _ => {
                    let uniform = end(at) >= high + PAGE as u32;
                    let mut rows = [row; PAGE];
                    for (entry, number) in rows.iter_mut().zip(high..) {
                        while end(at) <= number {
                            at += 1;
                        }
                        *entry = runs[at].1;
                    }
                    let page = self.place(&rows);
                    last = uniform.then_some((row, page));
                    page
                }
            };
        }
        self.place(&table)
    }

    /// Where these entries lie.
    fn place(&mut self, entries: &[u32]) -> u32 {
        if let Some(place) = self.known.get(entries) {
            return *place;
        }
        let place = self.pages.len() as u32;
        self.pages.extend(entries);
        self.known.insert(entries.into(), place);
        place
    }
}

/// The two dimensions of a program, as it is made.
pub(super) struct PortRows {
    /// What readers get.
    pub(super) tables: PortTables,
    pub(super) asks_source: bool,
}

impl PortRows {
    /// What these parts ask for, by bit: of protocol and destination port, and of the source port.
    pub(super) fn new<'a>(
        parts: impl Iterator<Item = (u32, &'a UpperCondition, &'a PortCondition)> + Clone,
        width: usize,
        words: &mut Words,
    ) -> PortRows {
        let uppers = Asked::new(parts.clone().map(|(bit, upper, _)| (bit, upper)));
        let sources = Asked::new(parts.map(|(bit, _, source)| (bit, source)));
        let any_port = PortCondition::default();
        let any_upper = UpperCondition::default();
        let asks_source = sources.conditions.iter().any(|(condition, _)| *condition != any_port);
        let mut rows = uppers.rows(|condition| *condition == any_upper, width, words);
        let mut source_rows =
            asks_source.then(|| sources.rows(|condition| *condition == any_port, width, words));
        let mut pages = Pages { pages: Vec::new(), known: HashMap::default() };
        let (mut kinds, mut kind_of): (Vec<Kind>, _) = (Vec::new(), Box::new([0; 512]));
        let named = named_protocols(&uppers, &sources);
        let by_family = uppers.conditions.iter().any(|(condition, _)| condition.family.is_some());
        let mut kind = |family: Family, protocol: u8| {
            let upper = Upper { asked: &uppers, family, protocol };
            let mut kind = Kind {
                bare: upper.bare(&mut rows, words),
                ports: pages.table(&upper.by_port(&mut rows, words)),
                ..Kind::default()
            };
            kind.icmp = if ICMP.contains(&protocol) {
                pages.table(&upper.by_icmp(&mut rows, words))
            } else {
                pages.table(&[(0, kind.bare)])
            };
            if let Some(rows) = &mut source_rows {
                let holds = |port: &PortCondition| port.holds_without();
                kind.source_bare = row_where(&sources, rows, words, holds);
                let numbers = |port: &PortCondition| ranges(port, protocol);
                kind.source_ports = pages.table(&row_by_number(&sources, rows, words, numbers));
            }
            let number = kinds.iter().position(|other| *other == kind).unwrap_or(kinds.len());
            if number == kinds.len() {
                kinds.push(kind);
            }
            number as u16
        };
        for family in if by_family { &Family::ALL[..] } else { &Family::ALL[..1] } {
            let of_family = &mut kind_of[usize::from(*family == Family::V6) * 256..][..256];
            // A protocol that nobody names stands for all of them.
            if let Some(other) = (0..=u8::MAX).find(|protocol| !named[usize::from(*protocol)]) {
                of_family.fill(kind(*family, other));
            }
            for protocol in (0..=u8::MAX).filter(|protocol| named[usize::from(*protocol)]) {
                of_family[usize::from(protocol)] = kind(*family, protocol);
            }
        }
        if !by_family {
            kind_of.copy_within(..256, 256);
        }
        let tables = PortTables { kinds: kinds.into(), kind_of, pages: pages.pages.into() };
        PortRows { tables, asks_source }
    }
}

fn named_protocols(uppers: &Asked<UpperCondition>, sources: &Asked<PortCondition>) -> [bool; 256] {
    let mut named = [false; 256];
    let ports = |port: &PortCondition, named: &mut [bool; 256]| {
        let pairs = port.not_pairs.iter().chain(&port.only);
        pairs.for_each(|(protocol, _)| named[usize::from(*protocol)] = true);
    };
    for (upper, _) in &uppers.conditions {
        for protocol in upper.protocol.iter().chain(&upper.not_protocol) {
            named[usize::from(*protocol)] = true;
        }
        if upper.icmp.is_some() || upper.not_icmp.is_some() {
            ICMP.iter().for_each(|protocol| named[usize::from(*protocol)] = true);
        }
        ports(&upper.port, &mut named);
    }
    sources.conditions.iter().for_each(|(port, _)| ports(port, &mut named));
    named
}

/// What is asked of one kind of protocol.
struct Upper<'a> {
    asked: &'a Asked<UpperCondition>,
    family: Family,
    protocol: u8,
}

impl Upper<'_> {
    fn bare(&self, rows: &mut Rows, words: &mut Words) -> u32 {
        row_where(self.asked, rows, words, |upper| {
            upper.admits(self.family, self.protocol) && upper.icmp.is_none() && upper.port.holds_without()
        })
    }

    fn by_port(&self, rows: &mut Rows, words: &mut Words) -> Vec<(u32, u32)> {
        row_by_number(self.asked, rows, words, |upper| {
            if !upper.admits(self.family, self.protocol) || upper.icmp.is_some() {
                return Vec::new();
            }
            ranges(&upper.port, self.protocol)
        })
    }

    fn by_icmp(&self, rows: &mut Rows, words: &mut Words) -> Vec<(u32, u32)> {
        row_by_number(self.asked, rows, words, |upper| {
            if !upper.admits(self.family, self.protocol) || !upper.port.holds_without() {
                return Vec::new();
            }
            let numbers = |icmp: &crate::rule::IcmpMatch| {
                let (low, high) = icmp.code.map_or((0, u8::MAX), |code| (code, code));
                let number = |code| u16::from_be_bytes([icmp.icmp_type, code]);
                PortRange { first: number(low), last: number(high) }
            };
            let wanted: Vec<_> = upper.icmp.iter().map(numbers).collect();
            let unwanted: Vec<_> = upper.not_icmp.iter().map(numbers).collect();
            without(&wanted, &unwanted)
        })
    }
}

/// The ports that a condition admits, of one protocol.
pub(super) fn ranges(condition: &PortCondition, protocol: u8) -> Vec<(u32, u32)> {
    let one = |port: u16| PortRange { first: port, last: port };
    if let Some((only, port)) = condition.only {
        return if only == protocol { without(&[one(port)], &condition.not_ports) } else { Vec::new() };
    }
    let mut unwanted = condition.not_ports.clone();
    let pairs = condition.not_pairs.iter().filter(|(not, _)| *not == protocol);
    unwanted.extend(pairs.map(|(_, port)| one(*port)));
    without(&condition.ports, &unwanted)
}

/// The numbers in `wanted`, all where it is empty, that aren't in `unwanted`: ranges apart from each other and in order, from
/// the first up to one before the second.
fn without(wanted: &[PortRange], unwanted: &[PortRange]) -> Vec<(u32, u32)> {
    const END: u32 = 1 << 16;
    let joined = |ranges: &[PortRange]| {
        let mut sorted: Vec<(u32, u32)> = (ranges.iter().filter(|range| range.first <= range.last))
            .map(|range| (range.first.into(), u32::from(range.last) + 1))
            .collect();
        sorted.sort_unstable();
        sorted.dedup_by(|next, last| {
            let touches = next.0 <= last.1;
            if touches {
                last.1 = last.1.max(next.1);
            }
            touches
        });
        sorted
    };
    let wanted = if wanted.is_empty() { vec![(0, END)] } else { joined(wanted) };
    let unwanted = joined(unwanted);
    let mut left = Vec::new();
    for (mut first, end) in wanted {
        for (from, to) in &unwanted {
            if *to <= first || *from >= end {
                continue;
            }
            if *from > first {
                left.push((first, *from));
            }
            first = first.max(*to);
        }
        if first < end {
            left.push((first, end));
        }
    }
    left
}

/// The row of those whose condition holds.
fn row_where<C>(asked: &Asked<C>, rows: &mut Rows, words: &mut Words, holds: impl Fn(&C) -> bool) -> u32 {
    let mut row = vec![0; rows.base().len()];
    for (_, bits) in asked.conditions.iter().filter(|(condition, _)| holds(condition)) {
        bits.iter().for_each(|bit| set_bit(&mut row, *bit, true));
    }
    rows.dense_row(&row, words)
}

/// Rows and the number from which on each holds, where a condition holds for some ranges of numbers.
fn row_by_number<C>(
    asked: &Asked<C>,
    rows: &mut Rows,
    words: &mut Words,
    numbers: impl Fn(&C) -> Vec<(u32, u32)>,
) -> Vec<(u32, u32)> {
    let mut turns: Vec<(u32, bool, usize)> = Vec::new();
    for (number, (condition, _)) in asked.conditions.iter().enumerate() {
        for (first, end) in numbers(condition) {
            turns.extend([(first, true, number), (end, false, number)]);
        }
    }
    turns.sort_unstable();
    let mut row = vec![0; rows.base().len()];
    let mut runs = Vec::new();
    let first = [(0, rows.dense_row(&row, words))];
    turns.retain(|(number, ..)| *number <= u16::MAX.into());
    for turn in turns.chunk_by(|(a, ..), (b, ..)| a == b) {
        for (_, holds, number) in turn {
            asked.conditions[*number].1.iter().for_each(|bit| set_bit(&mut row, *bit, *holds));
        }
        runs.push((turn[0].0, rows.dense_row(&row, words)));
    }
    if runs.first().is_none_or(|(from, _)| *from > 0) {
        runs.splice(..0, first);
    }
    runs
}
