//! A program: checks in the form that packets are judged by.

use std::sync::atomic::{AtomicU32, Ordering};

use super::address_rows::{ClassLeads, Lead};
use super::arrange::Stage;
use super::blocks::{Asked, Block, LANES};
use super::classes::ClassId;
use super::packet::{Packet, Upper};
use super::port_rows::PortTables;
use super::rows::{BLOCK, Head, WORD, blocks};
use super::{Judgement, ProgramId, RuleId};
use crate::judge::Verdict;
use crate::rule::Action;

/// Blocks of words that are brought near before a batch is judged: four make 16,384 rules.
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
    /// Narrow rules; the first block has none. None at all where every rule has bits.
    pub(super) blocks: Box<[Block]>,
    pub(super) ports: PortTables,
    pub(super) source: Option<End>,
    pub(super) destination: Option<End>,
    pub(super) asks_source_port: bool,
}

/// One end of packets.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// The lead of each class.
    pub(super) map: ClassLeads,
    pub(super) leads: Box<[Lead]>,
    /// Where the base of its rows lies.
    pub(super) base: u32,
    /// Does any bit depend on it?
    pub(super) asks_bits: bool,
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
/// No rule has a name above.
const NAMED_MAX: u32 = (RuleId::STEPS_MAX as u32) << 2 | 3;
/// What a rule of each action decides; of [`PASS`] and [`LOG`] nobody asks.
const VERDICTS: [Verdict; 4] = [Verdict::Allow, Verdict::Deny, Verdict::Deny, Verdict::Deny];

/// What a packet's judgement follows from, in a program without narrow rules: its rows of protocol and destination port and
/// of source port, the leads of its source and its destination. One that nothing asks for is the same for all packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PacketRows(pub(super) [u32; 4]);

/// Where a packet's ends lead to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    leads: [Lead; 2],
    /// In a program with narrow rules.
    asked: Asked,
}

/// Where every class leads at an end that nobody asks for.
static ONE_CLASS: [AtomicU32; 1] = [AtomicU32::new(0)];

/// The map of an end, and the bits of a class that it goes by.
fn map_of(end: Option<&End>) -> (&[AtomicU32], u32) {
    end.map_or((&ONE_CLASS, 0), |end| (&end.map, u32::MAX))
}

/// Packets to be judged: those whose bits are set.
struct Packets<'a> {
    asked: &'a [(ProgramId, Packet)],
    rows: &'a [PacketRows],
    ways: &'a [Way],
    which: u64,
    out: &'a mut [Judgement],
}

impl Program {
    pub(super) fn asks_for_addresses(&self) -> bool {
        self.source.is_some() || self.destination.is_some()
    }

    /// Has it narrow rules?
    pub(super) fn lies_by_address(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Is it worth remembering what rows came to? Narrow rules tell more packets apart than could be remembered, and cost no
    /// more than remembering.
    #[inline(always)]
    pub(super) fn is_remembered(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The rows of packets whose ends have these classes; returns a bit for each whose ends are known.
    #[inline(always)]
    pub(super) fn rows(
        &self,
        asked: &[(ProgramId, Packet)],
        classes: &[[ClassId; 2]],
        rows: &mut [PacketRows],
    ) -> u64 {
        // An end that nobody asks for has one class.
        let ((sources, source_mask), (destinations, destination_mask)) =
            (map_of(self.source.as_ref()), map_of(self.destination.as_ref()));
        let lead = |map: &[AtomicU32], class: ClassId| {
            map.get(class as usize).map_or(u32::MAX, |lead| lead.load(Ordering::Relaxed))
        };
        let mut known = 0;
        for (number, ((rows, (_, packet)), [source, destination])) in
            rows.iter_mut().zip(asked).zip(classes).enumerate()
        {
            let kind = self.ports.kind(packet.family, packet.protocol);
            let (upper, source_port) = match packet.upper {
                Upper::Ports { source, destination } => {
                    let source_port = if self.asks_source_port {
                        self.ports.source_port(kind, source)
                    } else {
                        kind.source_bare
                    };
                    (self.ports.port(kind, destination), source_port)
                }
                Upper::Icmp { icmp_type, code } => (self.ports.icmp(kind, icmp_type, code), kind.source_bare),
                Upper::Nothing => (kind.bare, kind.source_bare),
            };
            let source = lead(sources, source & source_mask);
            let destination = lead(destinations, destination & destination_mask);
            *rows = PacketRows([upper, source_port, source, destination]);
            known |= u64::from(source != u32::MAX && destination != u32::MAX) << number;
        }
        known
    }

    /// What packets' ends lead to; its beginnings are read, so that they are near, and the sum means nothing.
    #[inline(always)]
    pub(super) fn lead(
        &self,
        asked: &[(ProgramId, Packet)],
        rows: &[PacketRows],
        ways: &mut [Way],
        which: u64,
    ) -> u64 {
        let [sources, destinations] =
            [&self.source, &self.destination].map(|end| end.as_ref().map_or(&[][..], |end| &end.leads));
        let lead = |all: &[Lead], number: u32| all.get(number as usize).copied().unwrap_or_default();
        for number in bits(which) {
            let Some((way, PacketRows([_, _, source, destination]))) =
                ways.get_mut(number).zip(rows.get(number))
            else {
                break;
            };
            way.leads = [lead(sources, *source), lead(destinations, *destination)];
        }
        // By itself, for the fewer instructions there are between such reads, the more of them wait at the same time.
        let mut sum = 0u64;
        if !self.blocks.is_empty() {
            let block = |lead: &Lead| self.blocks.get(lead.block as usize).map_or(0, Block::touch);
            for number in bits(which) {
                let Some(Way { leads, .. }) = ways.get(number) else { break };
                sum = sum.wrapping_add(block(&leads[0])).wrapping_add(block(&leads[1]));
            }
            for number in bits(which) {
                let Some((way, (_, packet))) = ways.get_mut(number).zip(asked.get(number)) else { break };
                way.asked = Asked::new(packet, way.leads.map(|lead| lead.position as u16));
            }
        }
        if self.lists {
            let word = |lead: &Lead| self.words.get(lead.row as usize).copied().unwrap_or(0);
            for number in bits(which) {
                let Some(Way { leads, .. }) = ways.get(number) else { break };
                sum = sum.wrapping_add(word(&leads[0])).wrapping_add(word(&leads[1]));
            }
        }
        if self.lists {
            for number in bits(which) {
                sum = sum.wrapping_add(ways.get(number).map_or(0, |way| self.near_words(&way.leads)));
            }
        }
        sum
    }

    /// Reads words that both ends fill, likewise. Of many, the first will do.
    #[inline(always)]
    fn near_words(&self, leads: &[Lead; 2]) -> u64 {
        let (Some(source), Some(destination)) = (&self.source, &self.destination) else { return 0 };
        let mut sum = 0u64;
        let words = &*self.words;
        for block in 0..BLOCKS_NEAR.min(blocks(self.named.len() / WORD)) {
            let heads = leads.map(|lead| Head::at(words, lead.row, block));
            let mut common = heads[0].filled & heads[1].filled;
            for _ in 0..WORDS_NEAR.min(common.count_ones()) {
                for (head, base) in heads.iter().zip([source.base, destination.base]) {
                    let base = base as usize + block * BLOCK;
                    sum = sum.wrapping_add(head.word(words, base, common.trailing_zeros()));
                }
                common &= common - 1;
            }
        }
        sum
    }

    /// The name of the first narrow rule that a packet matches, of those named from `from` on.
    #[inline(never)]
    fn first_narrow(&self, way: &Way, from: u32) -> u32 {
        let mut lowest = [u32::MAX; LANES];
        for (lead, across) in way.leads.iter().zip(&way.asked.across) {
            let blocks = self.blocks.get(lead.block as usize..(lead.block + lead.blocks) as usize);
            for block in blocks.unwrap_or(&[]) {
                block.lower(across, &way.asked.ports, from, &mut lowest);
            }
        }
        let lowest = lowest.into_iter().fold(u32::MAX, u32::min);
        // What is named below it is far above.
        if lowest > NAMED_MAX { NONE } else { from + lowest }
    }

    /// What becomes of packets with these rows and ways, of those whose bits are set.
    #[inline(never)]
    pub(super) fn judge(
        &self,
        asked: &[(ProgramId, Packet)],
        rows: &[PacketRows],
        ways: &[Way],
        which: u64,
        out: &mut [Judgement],
    ) {
        self.judge_and_tell(asked, rows, ways, which, out, |_| {});
    }

    /// [`Self::judge`], which tells of rules that log. Of a single packet nothing of the columns is left, once it is inlined.
    #[inline(always)]
    pub(super) fn judge_and_tell(
        &self,
        asked: &[(ProgramId, Packet)],
        rows: &[PacketRows],
        ways: &[Way],
        which: u64,
        out: &mut [Judgement],
        met: impl FnMut(RuleId),
    ) {
        let ends = [&self.source, &self.destination].map(|end| end.as_ref().filter(|end| end.asks_bits));
        let bases = ends.map(|end| end.map_or(0, |end| end.base));
        // The one end that is asked for, where one is.
        let one = usize::from(ends[0].is_none());
        let packets = Packets { asked, rows, ways, which, out };
        let list = |leads: &[Lead; 2], end: usize| (leads[end].row, bases[end]);
        match (self.lists, self.asks_source_port, ends.iter().flatten().count()) {
            (_, false, 0) => self.judge_by(packets, |[upper, ..], _| ([upper], []), met),
            (_, true, 0) => self.judge_by(packets, |[upper, port, ..], _| ([upper, port], []), met),
            (false, false, 1) => self.judge_by(packets, |[upper, ..], to| ([upper, to[one].row], []), met),
            (false, true, 1) => {
                self.judge_by(packets, |[upper, port, ..], to| ([upper, port, to[one].row], []), met)
            }
            (false, false, _) => {
                self.judge_by(packets, |[upper, ..], to| ([upper, to[0].row, to[1].row], []), met)
            }
            (false, true, _) => {
                self.judge_by(packets, |[upper, port, ..], to| ([upper, port, to[0].row, to[1].row], []), met)
            }
            (true, false, 1) => self.judge_by(packets, |[upper, ..], to| ([upper], [list(to, one)]), met),
            (true, true, 1) => {
                self.judge_by(packets, |[upper, port, ..], to| ([upper, port], [list(to, one)]), met)
            }
            (true, false, _) => {
                self.judge_by(packets, |[upper, ..], to| ([upper], [list(to, 0), list(to, 1)]), met)
            }
            (true, true, _) => self.judge_by(
                packets,
                |[upper, port, ..], to| ([upper, port], [list(to, 0), list(to, 1)]),
                met,
            ),
        }
    }

    /// [`Self::judge`] of programs of one form: which rows are laid together, plain ones and those that list.
    #[inline(always)]
    fn judge_by<const P: usize, const L: usize>(
        &self,
        packets: Packets<'_>,
        form: impl Fn([u32; 4], &[Lead; 2]) -> ([u32; P], [(u32, u32); L]),
        mut met: impl FnMut(RuleId),
    ) {
        let Packets { asked, rows, ways, which, out } = packets;
        for number in bits(which) {
            let columns =
                asked.get(number).zip(rows.get(number)).zip(ways.get(number)).zip(out.get_mut(number));
            let Some(((((id, _), rows), way), out)) = columns else { break };
            let first = if self.blocks.is_empty() { NONE } else { self.first_narrow(way, 0) };
            let next = |from: u32| self.first_narrow(way, from);
            let (plain, lists) = form(rows.0, &way.leads);
            *out = self.judge_one(*id, (first, next), plain, lists, &mut met);
        }
    }

    #[inline(always)]
    fn judge_one<const P: usize, const L: usize>(
        &self,
        id: ProgramId,
        (mut narrow, next_narrow): (u32, impl Fn(u32) -> u32),
        plain: [u32; P],
        lists: [(u32, u32); L],
        mut met: impl FnMut(RuleId),
    ) -> Judgement {
        let mut logs = 0;
        for stage in &self.stages {
            let end = stage.step << 2;
            let mut first = if narrow < end { narrow } else { NONE };
            if L == 0 {
                first = first.min(self.first_plain(plain, stage.rules.start, stage.rules.end));
            } else {
                self.matches(plain, lists, stage.rules.start, stage.rules.end, |at, word| {
                    // Without a branch on whether there is one, for as often as not there is none.
                    let bit = at as usize * WORD + word.trailing_zeros() as usize % WORD;
                    let none = if word == 0 { NONE } else { 0 };
                    first = first.min(self.named.get(bit).copied().unwrap_or(NONE) | none);
                });
            }
            let step = if first == NONE { stage.step } else { first >> 2 };
            if !stage.logs.is_empty() {
                self.matches(plain, lists, stage.logs.start, stage.logs.end, |at, mut word| {
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
            let decided =
                if first == NONE { stage.otherwise } else { VERDICTS.get(first as usize & 3).copied() };
            if let Some(verdict) = decided.filter(|_| first & 3 != PASS || first == NONE) {
                return Judgement { verdict, rule: RuleId::new(id, step), logs };
            }
            if narrow < end {
                narrow = next_narrow(end);
            }
        }
        Judgement::NO_PROGRAM
    }

    /// The name of the first rule, of words from `start` up to `end`, whose bit all rows have: plain ones, whose rules lie in
    /// their order.
    #[inline(always)]
    fn first_plain<const P: usize>(&self, rows: [u32; P], start: u32, end: u32) -> u32 {
        // Each row by itself, so that its end is checked once.
        let row = |row: u32| self.words.get((row + start) as usize..(row + end) as usize).unwrap_or(&[]);
        let rows = rows.map(row);
        let len = rows.iter().map(|row| row.len()).min().unwrap_or(0);
        let rows = rows.map(|row| &row[..len]);
        // From the last one, and without a branch on whether there is one.
        let (mut word, mut bits) = (0, 0);
        for at in (0..len).rev() {
            let here = rows.iter().fold(!0, |bits, row| bits & row[at]);
            (word, bits) = if here != 0 { (at, here) } else { (word, bits) };
        }
        let bit = (start as usize + word) * WORD + bits.trailing_zeros() as usize % WORD;
        let none = if bits == 0 { NONE } else { 0 };
        self.named.get(bit).copied().unwrap_or(NONE) | none
    }

    /// Tells of words from `start` up to `end`, and which of their bits all rows have: maybe none. `plain` rows, and those
    /// that list, each with its base; words that one of these doesn't fill are left out.
    #[inline(always)]
    fn matches<const P: usize, const L: usize>(
        &self,
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
                    found(at, bits & of_plain(at));
                }
                common &= common - 1;
            }
            at = next;
        }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let ends = self.source.iter().chain(&self.destination);
        size_of_val(&*self.stages)
            + size_of_val(&*self.named)
            + size_of_val(&*self.words)
            + self.ports.bytes()
            + size_of_val(&*self.blocks)
            + ends.map(|end| end.map.len() * 4 + size_of_val(&*end.leads)).sum::<usize>()
    }
}

/// The numbers of the bits that are set.
#[inline(always)]
pub(super) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = word.trailing_zeros() as usize;
        (word != 0).then(|| word &= word - 1).map(|()| number)
    })
}
