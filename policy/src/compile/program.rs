//! A program: checks in the form that packets are judged by.

use std::sync::atomic::Ordering;

use super::address_rows::ClassRows;
use super::arrange::Stage;
use super::asks::{Asks, Shown};
use super::classes::ClassId;
use super::packet::{Packet, Upper};
use super::port_rows::PortTables;
use super::rows::{BLOCK, Head, WORD, blocks};
use super::{Judgement, ProgramId, RuleId};
use crate::judge::Verdict;
use crate::rule::Action;

/// Blocks whose words are brought near before a batch is judged: four make 16,384 rules.
const BLOCKS_NEAR: usize = 4;
/// Words of each of them.
const WORDS_NEAR: u32 = 4;

/// What readers see of a program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// No other program ever made has it. Rows that it has, it keeps.
    pub(super) serial: u64,
    pub(super) stages: Box<[Stage]>,
    /// For each bit the step of its rule, and in the lowest two bits what the rule does.
    pub(super) named: Box<[u32]>,
    /// Bases and rows.
    pub(super) words: Box<[u64]>,
    /// Do the rows of addresses list what differs from their base? Then all others are plain all the same.
    pub(super) lists: bool,
    /// Where those bases lie: of sources, of destinations.
    pub(super) bases: [u32; 2],
    pub(super) ports: PortTables,
    /// What each rule asks of protocol and ports, where rows of addresses list.
    pub(super) asks: Asks,
    pub(super) source: Option<ClassRows>,
    pub(super) destination: Option<ClassRows>,
    pub(super) asks_source_port: bool,
}

/// What a rule does, in the two bits beside its step.
pub(super) fn named(step: u32, action: Action) -> u32 {
    step << 2
        | match action {
            Action::Allow => ALLOW,
            Action::Deny => DENY,
            Action::Pass => PASS,
            Action::Log => LOG,
        }
}

const ALLOW: u32 = 0;
const DENY: u32 = 1;
const PASS: u32 = 2;
const LOG: u32 = 3;
/// No rule matches.
const NONE: u32 = u32::MAX;

/// Where a packet's rows lie: of protocol and destination port, source port, source, destination. One that nothing asks for
/// is the same for all packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PacketRows(pub(super) [u32; 4]);

impl Program {
    pub(super) fn asks_for_addresses(&self) -> bool {
        self.source.is_some() || self.destination.is_some()
    }

    /// The rows of a packet whose addresses have these classes; `None` where one of them is not known.
    #[inline(always)]
    pub(super) fn rows(&self, source: ClassId, destination: ClassId, packet: &Packet) -> Option<PacketRows> {
        let kind = self.ports.kind(packet.family, packet.protocol);
        let row = |map: &Option<ClassRows>, class: ClassId| match map {
            Some(map) => Some(map.get(class as usize)?.load(Ordering::Relaxed)),
            None => Some(0),
        };
        let (source, destination) = (row(&self.source, source)?, row(&self.destination, destination)?);
        let upper = match packet.upper {
            Upper::Ports { destination, .. } => self.ports.port(kind, destination),
            Upper::Icmp { icmp_type, code } => self.ports.icmp(kind, icmp_type, code),
            Upper::Nothing => kind.bare,
        };
        let source_port = match packet.upper {
            Upper::Ports { source, .. } if self.asks_source_port => self.ports.source_port(kind, source),
            _ => kind.source_bare,
        };
        Some(PacketRows([upper, source_port, source, destination]))
    }

    /// Reads the heads of a packet's rows, where they list, so that they are near.
    #[inline(always)]
    pub(super) fn near_heads(&self, PacketRows([_, _, source, destination]): &PacketRows) -> u64 {
        if !self.lists {
            return 0;
        }
        let word = |row: u32| self.words.get(row as usize).copied().unwrap_or(0);
        word(*source).wrapping_add(word(*destination))
    }

    /// Reads words that both ends fill, likewise. Of many, the first will do.
    #[inline(always)]
    pub(super) fn near_words(&self, PacketRows([_, _, source, destination]): &PacketRows) -> u64 {
        let (true, Some(_), Some(_)) = (self.lists, &self.source, &self.destination) else { return 0 };
        let mut sum = 0u64;
        let words = &*self.words;
        for block in 0..BLOCKS_NEAR.min(blocks(self.named.len() / WORD)) {
            let heads = [source, destination].map(|row| Head::at(words, *row, block));
            let mut common = heads[0].filled & heads[1].filled;
            for _ in 0..WORDS_NEAR.min(common.count_ones()) {
                for (head, base) in heads.iter().zip(self.bases) {
                    let base = base as usize + block * BLOCK;
                    sum = sum.wrapping_add(head.word(words, base, common.trailing_zeros()));
                }
                common &= common - 1;
            }
        }
        sum
    }

    /// What becomes of a packet with these rows.
    #[inline(always)]
    pub(super) fn judge(
        &self,
        id: ProgramId,
        packet: &Packet,
        rows: &PacketRows,
        met: impl FnMut(RuleId),
    ) -> Judgement {
        let shown = Shown::of(packet);
        let PacketRows([upper, port, source, destination]) = *rows;
        let (from, to) = ((source, self.bases[0]), (destination, self.bases[1]));
        // The one end that is asked for, where one is.
        let one = if self.source.is_some() { from } else { to };
        let ends = usize::from(self.source.is_some()) + usize::from(self.destination.is_some());
        match (self.lists, self.asks_source_port, ends) {
            (_, false, 0) => self.judge_by(id, shown, [upper], [], met),
            (_, true, 0) => self.judge_by(id, shown, [upper, port], [], met),
            (false, false, 1) => self.judge_by(id, shown, [upper, one.0], [], met),
            (false, true, 1) => self.judge_by(id, shown, [upper, port, one.0], [], met),
            (false, false, _) => self.judge_by(id, shown, [upper, source, destination], [], met),
            (false, true, _) => self.judge_by(id, shown, [upper, port, source, destination], [], met),
            (true, false, 1) => self.judge_by(id, shown, [upper], [one], met),
            (true, true, 1) => self.judge_by(id, shown, [upper, port], [one], met),
            (true, false, _) => self.judge_by(id, shown, [upper], [from, to], met),
            (true, true, _) => self.judge_by(id, shown, [upper, port], [from, to], met),
        }
    }

    #[inline(always)]
    fn judge_by<const P: usize, const L: usize>(
        &self,
        id: ProgramId,
        shown: Option<Shown>,
        plain: [u32; P],
        lists: [(u32, u32); L],
        mut met: impl FnMut(RuleId),
    ) -> Judgement {
        let mut logs = 0;
        for stage in &self.stages {
            let mut first = NONE;
            self.matches(shown, plain, lists, stage.rules.start, stage.rules.end, |at, word| {
                // Without a branch on whether there is one, for as often as not there is none.
                let bit = at as usize * WORD + word.trailing_zeros() as usize % WORD;
                let none = if word == 0 { NONE } else { 0 };
                first = first.min(self.named.get(bit).copied().unwrap_or(NONE) | none);
            });
            let step = if first == NONE { stage.step } else { first >> 2 };
            if !stage.logs.is_empty() {
                self.matches(shown, plain, lists, stage.logs.start, stage.logs.end, |at, mut word| {
                    while word != 0 {
                        let bit = at as usize * WORD + word.trailing_zeros() as usize;
                        let log = self.named.get(bit).copied().unwrap_or(NONE) >> 2;
                        if log < step {
                            logs += 1;
                            met(RuleId::new(id, log));
                        }
                        word &= word - 1;
                    }
                });
            }
            let decided = if first == NONE {
                stage.otherwise
            } else if first & 3 == PASS {
                None
            } else {
                Some(if first & 3 == ALLOW { Verdict::Allow } else { Verdict::Deny })
            };
            if let Some(verdict) = decided {
                return Judgement { verdict, rule: RuleId::new(id, step), logs };
            }
        }
        Judgement::NO_PROGRAM
    }

    /// Tells of words from `start` up to `end`, and which of their bits all rows have: maybe none. `plain` rows, and those
    /// that list, each with its base; words that one of these doesn't fill are left out. What the plain ones would say of
    /// few rules, these say for themselves.
    #[inline(always)]
    fn matches<const P: usize, const L: usize>(
        &self,
        shown: Option<Shown>,
        plain: [u32; P],
        lists: [(u32, u32); L],
        start: u32,
        end: u32,
        mut found: impl FnMut(u32, u64),
    ) {
        let words = &*self.words;
        let of_plain = |at: u32| {
            plain.iter().fold(!0, |bits, row| bits & words.get((row + at) as usize).copied().unwrap_or(0))
        };
        if L == 0 {
            for at in start..end {
                found(at, of_plain(at));
            }
            return;
        }
        let mut at = start;
        while at < end {
            let block = at as usize / BLOCK;
            let next = end.min((block as u32 + 1) * BLOCK as u32);
            let heads = lists.map(|(row, _)| Head::at(words, row, block));
            // Words of the block that are asked about: from `at` up to `next`.
            let mut common = (!0 << (at % BLOCK as u32)) & (!0 >> (BLOCK as u32 * (block as u32 + 1) - next));
            for head in &heads {
                common &= head.filled;
            }
            while common != 0 {
                let word = common.trailing_zeros();
                let at = (block * BLOCK) as u32 + word;
                let ends = heads.iter().zip(lists);
                let bits = ends.fold(!0, |bits, (head, (_, base))| {
                    bits & head.word(words, base as usize + block * BLOCK, word)
                });
                if bits != 0 {
                    let few = self.asks.of_few(at, bits, shown);
                    found(at, few.unwrap_or_else(|| bits & of_plain(at)));
                }
                common &= common - 1;
            }
            at = next;
        }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let maps = self.source.iter().chain(&self.destination);
        size_of_val(&*self.stages)
            + size_of_val(&*self.named)
            + size_of_val(&*self.words)
            + self.ports.bytes()
            + self.asks.bytes()
            + maps.map(|map| map.len() * 4).sum::<usize>()
    }
}
