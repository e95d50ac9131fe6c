//! A program: checks in the form that packets are judged by.

use std::hint::select_unpredictable;
use std::sync::atomic::Ordering;

use super::address_rows::ClassMap;
use super::arrange::Stage;
use super::by_address::{BATCH, NarrowRules};
use super::classes::ClassId;
use super::memo::Memory;
use super::packet::{Packet, Upper};
use super::port_rows::PortTables;
use super::rows::{ANY, BLOCK, Head, WORD, blocks};
use super::{Judgement, ProgramId, RuleId};
use crate::judge::Verdict;
use crate::rule::Action;

/// Blocks of words that are brought near before a batch is judged: four make 16,384 rules.
const BLOCKS_NEAR: usize = 4;
/// Words of each of them.
const WORDS_NEAR: u32 = 4;
/// Words that are looked at together.
const TOGETHER: usize = 8;

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
    /// Where rules are narrow; `None` where every rule has bits.
    pub(super) narrow: Option<NarrowRules>,
    pub(super) ports: PortTables,
    pub(super) source: Option<End>,
    pub(super) destination: Option<End>,
    pub(super) asks_source_port: bool,
}

/// One end of packets.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// What each class leads to.
    pub(super) map: ClassMap,
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

pub(super) const ALLOW: u32 = 0;
const DENY: u32 = 1;
pub(super) const PASS: u32 = 2;
const LOG: u32 = 3;
/// The row of a class that isn't known.
const UNKNOWN: u32 = u32::MAX;
/// No rule matches.
pub(super) const NONE: u32 = u32::MAX;

/// The judgement of a rule that decides.
#[inline(always)]
pub(super) fn judgement(id: ProgramId, name: u32) -> Judgement {
    let verdict = if name & 1 == ALLOW { Verdict::Allow } else { Verdict::Deny };
    Judgement { verdict, rule: RuleId::new(id, name >> 2), logs: 0 }
}

/// What a packet's judgement follows from, in a program without narrow rules: its rows of protocol and destination port, of
/// source port, of its source and of its destination. One that nothing asks for is the same for all packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PacketRows(pub(super) [u32; 4]);

impl End {
    /// The row of a class; [`UNKNOWN`] where the class isn't known.
    #[inline(always)]
    fn row(&self, class: ClassId) -> u32 {
        self.map.rows.get(class as usize).map_or(UNKNOWN, |row| row.load(Ordering::Relaxed))
    }
}

impl Program {
    pub(super) fn asks_for_addresses(&self) -> bool {
        self.source.is_some() || self.destination.is_some()
    }

    /// The rows of a packet whose ends have these classes; `None` where one of them isn't known.
    #[inline(always)]
    pub(super) fn rows(&self, packet: &Packet, [source, destination]: [ClassId; 2]) -> Option<PacketRows> {
        let row = |end: &Option<End>, class| end.as_ref().map_or(ANY, |end| end.row(class));
        let (source, destination) = (row(&self.source, source), row(&self.destination, destination));
        let [upper, source_port] = self.port_rows(packet);
        let is_known = source != UNKNOWN && destination != UNKNOWN;
        is_known.then_some(PacketRows([upper, source_port, source, destination]))
    }

    /// [`Self::rows`] of many packets; a bit for each of which all is known.
    #[inline(always)]
    pub(super) fn rows_of_batch(
        &self,
        run: &[(ProgramId, Packet)],
        classes: &[[ClassId; 2]],
        rows: &mut [PacketRows],
    ) -> u64 {
        // One dimension after the other, so that where it lies stays in registers.
        for (PacketRows([upper, source_port, ..]), (_, packet)) in rows.iter_mut().zip(run) {
            [*upper, *source_port] = self.port_rows(packet);
        }
        let mut highest = 0;
        for (at, end) in (2..).zip([&self.source, &self.destination]) {
            for (PacketRows(rows), classes) in rows.iter_mut().zip(classes) {
                rows[at] = end.as_ref().map_or(ANY, |end| end.row(classes[at - 2]));
                highest = highest.max(rows[at]);
            }
        }
        if highest != UNKNOWN {
            return !0;
        }
        let unknown = rows.iter().enumerate().filter(|(_, rows)| rows.0.contains(&UNKNOWN));
        unknown.fold(!0, |known, (number, _)| known & !(1 << number))
    }

    /// The rows of a packet's protocol and destination port, and of its source port.
    #[inline(always)]
    pub(super) fn port_rows(&self, packet: &Packet) -> [u32; 2] {
        let Some(kind) = self.ports.kind(packet.family, packet.protocol) else { return [ANY; 2] };
        match packet.upper {
            Upper::Ports { source, destination } => {
                let source_port = if self.asks_source_port {
                    self.ports.source_port(kind, source)
                } else {
                    kind.source_bare
                };
                [self.ports.port(kind, destination), source_port]
            }
            Upper::Icmp { icmp_type, code } => [self.ports.icmp(kind, icmp_type, code), kind.source_bare],
            Upper::Nothing => [kind.bare, kind.source_bare],
        }
    }

    /// Reads what the rows of a program that lists lead to, so that it is near: words that both ends fill, of many the first.
    /// The sum means nothing, but has to be made.
    #[inline(always)]
    pub(super) fn near_words(&self, PacketRows([_, _, source, destination]): &PacketRows) -> u64 {
        let (Some(from), Some(to)) = (&self.source, &self.destination) else { return 0 };
        let mut sum = 0u64;
        let words = &*self.words;
        for block in 0..BLOCKS_NEAR.min(blocks(self.named.len() / WORD)) {
            let heads = [source, destination].map(|row| Head::at(words, *row, block));
            let mut common = heads[0].filled & heads[1].filled;
            for _ in 0..WORDS_NEAR.min(common.count_ones()) {
                for (head, base) in heads.iter().zip([from.base, to.base]) {
                    let base = base as usize + block * BLOCK;
                    sum = sum.wrapping_add(head.word(words, base, common.trailing_zeros()));
                }
                common &= common - 1;
            }
        }
        sum
    }

    /// What becomes of packets with these rows, of those whose bits are set; it is remembered.
    #[inline(never)]
    pub(super) fn judge_batch(
        &self,
        id: ProgramId,
        rows: &[PacketRows; BATCH],
        which: u64,
        out: &mut [Judgement],
        memory: &mut impl Memory,
    ) {
        let mut put = |number: usize, judgement: Judgement| {
            memory.remember(self.serial, &rows[number % BATCH], judgement);
            out.get_mut(number).into_iter().for_each(|out| *out = judgement);
        };
        let mut open = which;
        let plain_stages = if self.lists { &[] } else { &*self.stages };
        for stage in plain_stages.iter().take_while(|stage| stage.logs.is_empty()) {
            let (start, end) = (stage.rules.start, stage.rules.end);
            // How many words there are is asked once.
            open = match end.wrapping_sub(start) {
                1 => self.decide(id, stage, rows, open, &mut put, |rows| self.first_of::<1>(rows, start)),
                2 => self.decide(id, stage, rows, open, &mut put, |rows| self.first_of::<2>(rows, start)),
                _ => {
                    self.decide(id, stage, rows, open, &mut put, |rows| self.first_of_many(rows, start, end))
                }
            };
        }
        // What no stage has decided on, or not without logs.
        for number in bits(open) {
            put(number, self.judge(id, &rows[number % BATCH], |_| {}));
        }
    }

    /// Puts down what becomes of packets on which a stage without logs decides by plain rows, of which `first` names the first
    /// rule; which are the others?
    #[inline(always)]
    fn decide(
        &self,
        id: ProgramId,
        stage: &Stage,
        rows: &[PacketRows; BATCH],
        which: u64,
        mut put: impl FnMut(usize, Judgement),
        first: impl Fn([u32; 4]) -> u32,
    ) -> u64 {
        let mut open = which;
        for number in bits(which) {
            let first = first(rows[number % BATCH].0);
            let judgement = match stage.otherwise {
                _ if first & PASS == 0 => judgement(id, first),
                Some(verdict) if first == NONE => {
                    Judgement { verdict, rule: RuleId::new(id, stage.step), logs: 0 }
                }
                _ => continue,
            };
            put(number, judgement);
            open &= !(1 << number);
        }
        open
    }

    /// What becomes of a packet, in a program without narrow rules.
    #[inline(always)]
    pub(super) fn judge(&self, id: ProgramId, rows: &PacketRows, met: impl FnMut(RuleId)) -> Judgement {
        self.judge_with(id, rows, NONE, |_| NONE, met)
    }

    /// By the rows that the program asks for, and the first narrow rule that the packet matches; `next` says which is the
    /// first of those named from a name on.
    #[inline(always)]
    pub(super) fn judge_with(
        &self,
        id: ProgramId,
        &PacketRows(rows): &PacketRows,
        narrow: u32,
        next: impl Fn(u32) -> u32,
        met: impl FnMut(RuleId),
    ) -> Judgement {
        let narrow = (narrow, next);
        if !self.lists {
            return self.judge_one(id, narrow, rows, [], met);
        }
        let [.., source, destination] = rows;
        let list =
            |end: &Option<End>, row| end.as_ref().filter(|end| end.asks_bits).map(|end| (row, end.base));
        match (list(&self.source, source), list(&self.destination, destination)) {
            (Some(source), Some(destination)) => self.judge_one(id, narrow, rows, [source, destination], met),
            (Some(one), None) | (None, Some(one)) => self.judge_one(id, narrow, rows, [one], met),
            (None, None) => Judgement::NO_PROGRAM,
        }
    }

    /// By plain rows, and where there are `lists` by these instead of those of ends.
    #[inline(always)]
    fn judge_one<const L: usize>(
        &self,
        id: ProgramId,
        (mut narrow, next_narrow): (u32, impl Fn(u32) -> u32),
        rows: [u32; 4],
        lists: [(u32, u32); L],
        mut met: impl FnMut(RuleId),
    ) -> Judgement {
        let mut logs = 0;
        for stage in &self.stages {
            let end = stage.step << 2;
            let mut first = if narrow < end { narrow } else { NONE };
            if L == 0 {
                first = first.min(self.first_plain(rows, stage.rules.start, stage.rules.end));
            } else {
                self.matches(rows, lists, stage.rules.start, stage.rules.end, |at, word| {
                    // Without a branch on whether there is one, for as often as not there is none.
                    let bit = at as usize * WORD + word.trailing_zeros() as usize % WORD;
                    let none = if word == 0 { NONE } else { 0 };
                    first = first.min(self.named.get(bit).copied().unwrap_or(NONE) | none);
                });
            }
            if !stage.logs.is_empty() {
                let step = if first == NONE { stage.step } else { first >> 2 };
                logs += self.meet_logs(id, stage, step, rows, lists, &mut met);
            }
            if first & PASS == 0 {
                return Judgement { logs, ..judgement(id, first) };
            }
            if let Some(verdict) = stage.otherwise.filter(|_| first == NONE) {
                return Judgement { verdict, rule: RuleId::new(id, stage.step), logs };
            }
            if narrow < end {
                narrow = next_narrow(end);
            }
        }
        Judgement::NO_PROGRAM
    }

    /// Tells of each rule of a stage that logs, before a step; how many.
    #[inline(never)]
    fn meet_logs<const L: usize>(
        &self,
        id: ProgramId,
        stage: &Stage,
        step: u32,
        rows: [u32; 4],
        lists: [(u32, u32); L],
        met: &mut impl FnMut(RuleId),
    ) -> u32 {
        let mut logs = 0;
        self.matches(rows, lists, stage.logs.start, stage.logs.end, |at, word| {
            for bit in bits(word) {
                let bit = at as usize * WORD + bit;
                let log = self.named.get(bit).copied().unwrap_or(NONE) >> 2;
                if log < step {
                    logs += 1;
                    met(RuleId::new(id, log));
                }
            }
        });
        logs
    }

    /// The name of the first rule, of words from `start` up to `end`, whose bit all rows have: plain ones, whose rules lie in
    /// their order.
    #[inline(always)]
    fn first_plain(&self, rows: [u32; 4], start: u32, end: u32) -> u32 {
        match end.wrapping_sub(start) {
            1 => self.first_of::<1>(rows, start),
            2 => self.first_of::<2>(rows, start),
            _ => self.first_of_many(rows, start, end),
        }
    }

    /// [`Self::first_plain`] of so many words.
    #[inline(always)]
    fn first_of<const N: usize>(&self, rows: [u32; 4], start: u32) -> u32 {
        let mut common = [!0; N];
        for row in rows {
            let from = (row + start) as usize;
            let Some(words) = self.words.get(from..from + N) else { return NONE };
            common.iter_mut().zip(words).for_each(|(bits, word)| *bits &= word);
        }
        // Without a branch on where it is.
        let (mut at, mut bits) = (N - 1, common[N - 1]);
        for word in (0..N - 1).rev() {
            let is_here = common[word] != 0;
            at = select_unpredictable(is_here, word, at);
            bits = select_unpredictable(is_here, common[word], bits);
        }
        self.name(start as usize + at, bits)
    }

    /// The name of the first of a word's bits; [`NONE`] of none.
    #[inline(always)]
    fn name(&self, word: usize, bits: u64) -> u32 {
        let bit = word * WORD + bits.trailing_zeros() as usize % WORD;
        let none = if bits == 0 { NONE } else { 0 };
        self.named.get(bit).copied().unwrap_or(NONE) | none
    }

    /// [`Self::first_plain`] of any number of words.
    #[inline(always)]
    fn first_of_many(&self, rows: [u32; 4], start: u32, end: u32) -> u32 {
        // Each row by itself, so that its end is checked once.
        let row = |row: u32| self.words.get((row + start) as usize..(row + end) as usize).unwrap_or(&[]);
        let rows = rows.map(row);
        let len = rows.iter().map(|row| row.len()).min().unwrap_or(0);
        let rows = rows.map(|row| row[..len].as_chunks::<TOGETHER>());
        // From the last one, and without a branch on whether there is one.
        let (mut word, mut bits) = (0, 0);
        let chunks = len / TOGETHER;
        for at in (0..len % TOGETHER).rev() {
            let here = rows.iter().fold(!0, |bits, (_, rest)| bits & rest[at]);
            (word, bits) = if here != 0 { (chunks * TOGETHER + at, here) } else { (word, bits) };
        }
        for chunk in (0..chunks).rev() {
            let mut here = [!0; TOGETHER];
            for (chunks, _) in &rows {
                here.iter_mut().zip(&chunks[chunk]).for_each(|(bits, word)| *bits &= word);
            }
            let filled = (0..).zip(&here).fold(0u8, |bits, (at, word)| bits | u8::from(*word != 0) << at);
            let at = filled.trailing_zeros() as usize % TOGETHER;
            word = select_unpredictable(filled == 0, word, chunk * TOGETHER + at);
            bits = select_unpredictable(filled == 0, bits, here[at]);
        }
        self.name(start as usize + word, bits)
    }

    /// Tells of words from `start` up to `end`, and which of their bits all rows have: maybe none. Ends' rows are plain, or
    /// `lists`, each with its base; words that one of these doesn't fill are left out.
    #[inline(always)]
    fn matches<const L: usize>(
        &self,
        rows: [u32; 4],
        lists: [(u32, u32); L],
        start: u32,
        end: u32,
        mut found: impl FnMut(u32, u64),
    ) {
        let words = &*self.words;
        let plain = if L == 0 { &rows[..] } else { &rows[..2] };
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
            + self.narrow.as_ref().map_or(0, NarrowRules::bytes)
            + ends.map(|end| end.map.bytes()).sum::<usize>()
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
