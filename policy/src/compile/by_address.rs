//! Judging packets by a program with narrow rules (`narrow.rs`): first by what their ends and ports lead to, which decides on
//! most of them, and the others by rows as well.
//!
//! Batches go step by step, all packets' leads before all packets' blocks, and packets are marked where a branch would be:
//! whether one needs another step, no branch predictor can learn. Each step is a loop by itself, so that what it reads stays
//! in registers.

use std::hint::select_unpredictable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::address_rows::Lead;
use super::arrange::Stage;
use super::blocks::{self, Asked, Block, Blocks, NO_RANK, Rank};
use super::classes::ClassId;
use super::packet::Packet;
use super::pairs::Pairs;
use super::port_grid::PortGrid;
use super::processor::{Any, Avx512, Processor};
use super::program::{End, NONE, PASS, Program, bits, judgement};
use super::{Judgement, ProgramId, RuleId};

/// Packets of a batch at most.
pub(super) const BATCH: usize = 64;

/// A program's narrow rules, as readers see them.
#[derive(Clone, Debug)]
pub(super) struct NarrowRules {
    /// The name of each, by rank.
    names: Box<[u32]>,
    /// The same of those that decide whatever rows say; [`NONE`] of the others, and behind all of them.
    deciding: Box<[u32]>,
    /// Chains that addresses lead to.
    pub(super) blocks: Blocks,
    pairs: Arc<Pairs>,
    grid: Option<Arc<PortGrid>>,
}

/// A packet among narrow rules: what blocks and the grid are asked about it, and where.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
pub(super) struct Way {
    asked: Asked,
    /// Under the key of its pair.
    asked_by_pair: Asked,
    /// The bucket of its pair.
    bucket: u32,
    /// The blocks where the chains of its ends begin.
    blocks: [u32; 2],
    /// Its cell on the grid.
    cell: u32,
}

const _: () = assert!(size_of::<Way>() == 32);

impl Way {
    /// The first rule of blocks: of its pair, and of both ends.
    #[inline(always)]
    fn first(&self, processor: impl Processor, [pair, source, destination]: [&Block; 3]) -> Rank {
        let by_pair = (pair, self.asked_by_pair);
        blocks::first(processor, [by_pair, (source, self.asked), (destination, self.asked)])
    }

    /// Is what its addresses are in known?
    #[inline(always)]
    fn is_known(&self) -> bool {
        self.blocks.iter().all(|block| *block != Blocks::UNKNOWN)
    }
}

/// What leads from an end's classes.
#[derive(Clone, Copy)]
struct Leading<'a> {
    leads: &'a [AtomicU64],
    /// Where classes lead that aren't there.
    otherwise: Lead,
}

impl<'a> Leading<'a> {
    #[inline(always)]
    fn of(end: Option<&'a End>) -> Leading<'a> {
        match end {
            Some(end) => Leading { leads: &end.map.leads, otherwise: Lead::UNKNOWN },
            // Every class leads nowhere at an end that nobody asks for.
            None => Leading { leads: &[], otherwise: Lead::default() },
        }
    }

    #[inline(always)]
    fn lead(self, class: ClassId) -> Lead {
        let lead = self.leads.get(class as usize);
        lead.map_or(self.otherwise, |lead| Lead::from_bits(lead.load(Ordering::Relaxed)))
    }
}

impl NarrowRules {
    pub(super) fn new(
        names: Vec<u32>,
        blocks: Blocks,
        pairs: Pairs,
        grid: Option<PortGrid>,
        stages: &[Stage],
    ) -> NarrowRules {
        // Those of the first stage before any rule in rows, but not those that pass.
        let limit = stages.first().map_or(0, |stage| stage.lowest.min(stage.step << 2));
        let decides = |name: u32| name < limit && name & 3 != PASS;
        let deciding = names.iter().map(|name| if decides(*name) { *name } else { NONE });
        let deciding = deciding.chain([NONE]).collect();
        let (pairs, grid) = (Arc::new(pairs), grid.map(Arc::new));
        NarrowRules { names: names.into(), deciding, blocks, pairs, grid }
    }

    /// The name of a rank's rule where it decides whatever rows say; otherwise [`NONE`].
    #[inline(always)]
    fn deciding(&self, rank: Rank) -> u32 {
        self.deciding.get(usize::from(rank)).copied().unwrap_or(NONE)
    }

    /// The name of a rank's rule; [`NONE`] of none.
    #[inline(always)]
    fn name(&self, rank: Rank) -> u32 {
        self.names.get(usize::from(rank)).copied().unwrap_or(NONE)
    }

    /// Where packets' addresses lead to.
    #[inline(always)]
    fn lead_by_classes(
        &self,
        [source, destination]: [Leading<'_>; 2],
        classes: &[[ClassId; 2]],
        ways: &mut [Way],
    ) {
        for ([from, to], way) in classes.iter().zip(ways) {
            let (source, destination) = (source.lead(*from), destination.lead(*to));
            let place = self.pairs.place(source.sum(destination));
            self.pairs.prefetch(place.bucket);
            way.bucket = place.bucket;
            way.blocks = [source.block(), destination.block()];
            way.blocks.iter().for_each(|block| self.blocks.prefetch(*block));
            way.asked_by_pair = Asked::default().under(place.key);
        }
    }

    /// What is asked of the rest of packets, and where their ports lead to.
    #[inline(always)]
    fn lead_by_ports<'a>(
        &self,
        processor: impl Processor,
        packets: impl Iterator<Item = &'a Packet>,
        ways: &mut [Way],
    ) {
        let grid = self.grid.as_deref();
        for (packet, way) in packets.zip(ways) {
            way.asked = Asked::new(packet);
            way.asked_by_pair = way.asked.or(way.asked_by_pair);
            way.cell = grid.map_or(u32::MAX, |grid| grid.cell(processor, way.asked));
            grid.into_iter().for_each(|grid| lpm::prefetch(grid.ranks(), way.cell as usize));
        }
    }

    /// The blocks where a packet's chains begin: there are some.
    #[inline(always)]
    fn begin(&self, way: &Way) -> Option<[&Block; 3]> {
        let [source, destination] = way.blocks;
        Some([self.pairs.get(way.bucket)?, self.blocks.get(source)?, self.blocks.get(destination)?])
    }

    /// The first rule of each packet's cell on the grid.
    #[inline(always)]
    fn cells(&self) -> &[Rank] {
        self.grid.as_ref().map_or(&[], |grid| grid.ranks())
    }

    /// The first rule of the next blocks of these chains, which have this number, and do any of these go on?
    #[inline(always)]
    fn next(&self, processor: impl Processor, way: &Way, number: u16) -> (Rank, bool) {
        let Some([pair, source, destination]) = self.begin(way) else { return (NO_RANK, false) };
        let (pair, more_of_pair) = self.pairs.next(pair, number);
        let (source, more_of_source) = self.blocks.next(source, number);
        let (destination, more_of_destination) = self.blocks.next(destination, number);
        let goes_on = more_of_pair | more_of_source | more_of_destination;
        (way.first(processor, [pair, source, destination]), goes_on)
    }

    /// The first rule of a packet by itself.
    #[inline(always)]
    fn first_alone(&self, processor: impl Processor, way: &Way) -> Rank {
        let Some(begin) = self.begin(way) else { return NO_RANK };
        let cell = self.cells().get(way.cell as usize).copied().unwrap_or(NO_RANK);
        let (mut first, mut goes_on) = (way.first(processor, begin).min(cell), Block::any_goes_on(begin));
        let mut round = 0;
        while goes_on {
            let next;
            (next, goes_on) = self.next(processor, way, round);
            (first, round) = (first.min(next), round + 1);
        }
        first
    }

    /// The judgements of packets that narrow rules decide on; which are the others, and what is the first rule of each?
    #[inline(always)]
    pub(super) fn decide_by(
        &self,
        processor: impl Processor,
        id: ProgramId,
        ways: &[Way],
        out: &mut [Judgement],
        found: &mut Found,
    ) {
        let Found { ranks, open } = found;
        let longer = self.compare(processor, ways, ranks);
        let unknown = self.go_on(processor, longer, ways, ranks);
        *open = self.conclude(id, ranks, out) | unknown;
    }

    /// The first rule of each packet's blocks and cell; the packets whose chains go on.
    #[inline(always)]
    fn compare(&self, processor: impl Processor, ways: &[Way], ranks: &mut [Rank; BATCH]) -> u64 {
        // Taken out of what they are in, or each packet would look for them there.
        let (pairs, blocks, cells) = (self.pairs.blocks(), self.blocks.all(), self.cells());
        let mut longer = 0;
        for ((number, way), rank) in (0..BATCH).zip(ways).zip(ranks) {
            let [source, destination] = way.blocks.map(|block| blocks.get(block as usize));
            let Some(((pair, source), destination)) =
                pairs.get(way.bucket as usize).zip(source).zip(destination)
            else {
                break;
            };
            let begin = [pair, source, destination];
            let first = way.first(processor, begin);
            let cell = cells.get(way.cell as usize).copied().unwrap_or(NO_RANK);
            *rank = select_unpredictable(cell < first, cell, first);
            longer |= u64::from(Block::any_goes_on(begin)) << number;
        }
        longer
    }

    /// The first rules of packets whose chains go on: of those whose bits are set. Which of them are of addresses of which
    /// nobody knows what they are in?
    #[inline(always)]
    fn go_on(&self, processor: impl Processor, longer: u64, ways: &[Way], ranks: &mut [Rank; BATCH]) -> u64 {
        let (mut list, mut unknown) = (List::new(), 0);
        for number in bits(longer) {
            let Some((way, rank)) = ways.get(number).zip(ranks.get(number)) else { break };
            let Some(begin) = self.begin(way) else { break };
            list.push_if(begin.iter().fold(false, |is, block| is | block.goes_on_before(*rank)), number);
            unknown |= u64::from(!way.is_known()) << number;
        }
        let mut round = 0;
        while list.count > 0 {
            let mut kept = List::new();
            for number in list.iter() {
                let Some((way, rank)) = ways.get(number).zip(ranks.get_mut(number)) else { break };
                let (first, goes_on) = self.next(processor, way, round);
                *rank = select_unpredictable(first < *rank, first, *rank);
                kept.push_if(goes_on, number);
            }
            (list, round) = (kept, round + 1);
        }
        unknown
    }

    /// What becomes of packets by their first rules; those of which these don't decide.
    #[inline(always)]
    fn conclude(&self, id: ProgramId, ranks: &[Rank; BATCH], out: &mut [Judgement]) -> u64 {
        let mut open = 0;
        // Of as many as there are, which is known to the compiler then.
        let Some(last) = self.deciding.len().checked_sub(1) else { return !0 };
        for ((number, rank), out) in (0..BATCH).zip(ranks).zip(out) {
            let name = self.deciding[usize::from(*rank).min(last)];
            (*out, open) = (judgement(id, name), open | u64::from(name == NONE) << number);
        }
        open
    }

    /// The name of the first rule that a packet matches of those named from `from` on, which is behind the first group.
    fn first_from(&self, way: &Way, from: u32) -> u32 {
        let chains = way.blocks.iter().flat_map(|block| self.blocks.matching(Any, *block, way.asked));
        let ranks = chains.chain(self.pairs.matching(Any, way.bucket, way.asked_by_pair));
        ranks.map(|rank| self.name(rank)).filter(|name| *name >= from).min().unwrap_or(NONE)
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        let grid = self.grid.as_ref().map_or(0, |grid| grid.bytes());
        let names = size_of_val(&*self.names) + size_of_val(&*self.deciding);
        names + self.blocks.bytes() + self.pairs.bytes() + grid
    }
}

/// What a batch's narrow rules leave.
pub(super) struct Found {
    /// The first rule of each packet.
    ranks: [Rank; BATCH],
    /// A bit for each packet that they don't decide on.
    open: u64,
}

/// Numbers of packets of a batch.
#[derive(Clone)]
struct List {
    numbers: [u8; BATCH],
    count: usize,
}

impl List {
    fn new() -> List {
        List { numbers: [0; BATCH], count: 0 }
    }

    /// Without a branch: what is asked here, no branch predictor can learn.
    #[inline(always)]
    fn push_if(&mut self, is_in: bool, number: usize) {
        self.numbers[self.count % BATCH] = number as u8;
        self.count += usize::from(is_in);
    }

    #[inline(always)]
    fn iter(&self) -> impl Iterator<Item = usize> {
        self.numbers[..self.count.min(BATCH)].iter().map(|number| usize::from(*number))
    }
}

impl Program {
    /// Where packets of these classes lead to; what lies there is brought near.
    #[inline(always)]
    pub(super) fn lead(
        &self,
        avx512: Option<Avx512>,
        narrow: &NarrowRules,
        run: &[(ProgramId, Packet)],
        classes: &[[ClassId; 2]],
        ways: &mut [Way],
    ) {
        match avx512 {
            Some(avx512) => avx512.lead(self, narrow, run, classes, ways),
            None => self.lead_by(Any, narrow, run, classes, ways),
        }
    }

    fn ends(&self) -> [Leading<'_>; 2] {
        [Leading::of(self.source.as_ref()), Leading::of(self.destination.as_ref())]
    }

    /// [`Self::lead`].
    #[inline(always)]
    pub(super) fn lead_by(
        &self,
        processor: impl Processor,
        narrow: &NarrowRules,
        run: &[(ProgramId, Packet)],
        classes: &[[ClassId; 2]],
        ways: &mut [Way],
    ) {
        // Ports come after addresses, for which there is a wait.
        narrow.lead_by_classes(self.ends(), classes, ways);
        narrow.lead_by_ports(processor, run.iter().map(|(_, packet)| packet), ways);
    }

    /// What becomes of packets that [`Self::lead`] has led: at most [`BATCH`].
    #[inline(always)]
    pub(super) fn judge_by_address(
        &self,
        avx512: Option<Avx512>,
        narrow: &NarrowRules,
        run: &[(ProgramId, Packet)],
        classes: &[[ClassId; 2]],
        ways: &[Way],
        out: &mut [Judgement],
    ) {
        let Some((id, _)) = run.first() else { return };
        let mut found = Found { ranks: [NO_RANK; BATCH], open: 0 };
        match avx512 {
            Some(avx512) => avx512.decide(narrow, *id, ways, out, &mut found),
            None => narrow.decide_by(Any, *id, ways, out, &mut found),
        }
        for at in bits(found.open) {
            let Some((((way, (_, packet)), classes), out)) =
                ways.get(at).zip(run.get(at)).zip(classes.get(at)).zip(out.get_mut(at))
            else {
                break;
            };
            self.judge_open(narrow, *id, packet, *classes, (way, found.ranks[at % BATCH]), out);
        }
    }

    /// [`Self::judge_rest`] of a packet of a batch. Written where it is to be: what is returned is written in pieces and copied
    /// in one, for which the processor waits.
    #[inline(never)]
    fn judge_open(
        &self,
        narrow: &NarrowRules,
        id: ProgramId,
        packet: &Packet,
        classes: [ClassId; 2],
        way: (&Way, Rank),
        out: &mut Judgement,
    ) {
        *out = self.judge_rest(narrow, id, packet, classes, way, |_| {});
    }

    /// The way of a packet by itself, and the first narrow rule on it.
    #[inline(always)]
    pub(super) fn first_by(
        &self,
        processor: impl Processor,
        narrow: &NarrowRules,
        packet: &Packet,
        classes: [ClassId; 2],
    ) -> (Way, Rank) {
        let mut way = [Way::default()];
        narrow.lead_by_classes(self.ends(), &[classes], &mut way);
        narrow.lead_by_ports(processor, std::iter::once(packet), &mut way);
        let [way] = way;
        (way, narrow.first_alone(processor, &way))
    }

    /// What becomes of a packet by itself.
    #[inline(always)]
    pub(super) fn judge_alone(
        &self,
        avx512: Option<Avx512>,
        narrow: &NarrowRules,
        id: ProgramId,
        packet: &Packet,
        classes: [ClassId; 2],
        met: impl FnMut(RuleId),
    ) -> Judgement {
        let (way, first) = match avx512 {
            Some(avx512) => avx512.first(self, narrow, packet, classes),
            None => self.first_by(Any, narrow, packet, classes),
        };
        match narrow.deciding(first) {
            name if name != NONE && way.is_known() => judgement(id, name),
            _ => self.judge_rest(narrow, id, packet, classes, (&way, first), met),
        }
    }

    /// What becomes of a packet whose first narrow rule is known.
    #[inline(always)]
    fn judge_rest(
        &self,
        narrow: &NarrowRules,
        id: ProgramId,
        packet: &Packet,
        classes: [ClassId; 2],
        (way, first): (&Way, Rank),
        met: impl FnMut(RuleId),
    ) -> Judgement {
        let Some(rows) = self.rows(packet, classes) else { return Judgement::NO_PROGRAM };
        let next = |from| narrow.first_from(way, from);
        self.judge_with(id, &rows, narrow.name(first), next, met)
    }
}
