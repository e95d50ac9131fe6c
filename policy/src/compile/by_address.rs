//! Judging packets by a program with narrow rules (`narrow.rs`): first by what their ends and ports lead to, which decides on
//! most of them, and the others by rows as well.
//!
//! Batches go step by step, all packets' leads before all packets' blocks, and lists of packets are kept where a branch
//! would be: whether a packet needs another step, no branch predictor can learn. Each step is a loop by itself, so that what
//! it reads stays in registers.

use std::hint::select_unpredictable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::address_rows::Lead;
use super::arrange::Stage;
use super::blocks::{self, Asked, Block, Blocks, NO_RANK, Rank};
use super::classes::ClassId;
use super::packet::Packet;
use super::pairs::{Pairs, Place};
use super::port_grid::PortGrid;
use super::processor::{Any, Avx512, Processor};
use super::program::{End, NONE, PASS, Program, VERDICTS};
use super::{Judgement, ProgramId, RuleId};

/// Packets of a batch at most.
pub(super) const BATCH: usize = 64;

/// A program's narrow rules, as readers see them.
#[derive(Clone, Debug)]
pub(super) struct NarrowRules {
    /// The name of each, by rank; behind them [`NONE`].
    names: Box<[u32]>,
    /// Chains that addresses lead to. The first block is of those that lead nowhere.
    pub(super) blocks: Blocks,
    pairs: Arc<Pairs>,
    grid: Option<Arc<PortGrid>>,
}

/// A packet among narrow rules.
#[derive(Clone, Copy)]
pub(super) struct Way {
    asked: Asked,
    /// Where its ends lead to.
    leads: [Lead; 2],
    /// The place of both positions.
    place: Place,
}

/// The packets of a batch: each part of a [`Way`] by itself, so that a step reads no more than it needs.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    asked: [Asked; BATCH],
    leads: [[Lead; 2]; BATCH],
    places: [Place; BATCH],
}

/// Those of some packets next to each other.
pub(super) struct WaysOf<'a> {
    asked: &'a mut [Asked],
    leads: &'a mut [[Lead; 2]],
    places: &'a mut [Place],
}

impl Way {
    /// The first rule of blocks: of its pair, and of both ends.
    #[inline(always)]
    fn first(&self, processor: impl Processor, [pair, source, destination]: [&Block; 3]) -> Rank {
        let by_pair = (pair, self.asked.under(self.place.key));
        blocks::first(processor, [by_pair, (source, self.asked), (destination, self.asked)])
    }
}

impl Ways {
    pub(super) fn new() -> Ways {
        Ways {
            asked: [Asked::default(); BATCH],
            leads: [[Lead::default(); 2]; BATCH],
            places: [Place::default(); BATCH],
        }
    }

    /// Those of so many packets from one on.
    #[inline(always)]
    pub(super) fn slices(&mut self, at: usize, count: usize) -> WaysOf<'_> {
        WaysOf {
            asked: &mut self.asked[at..][..count],
            leads: &mut self.leads[at..][..count],
            places: &mut self.places[at..][..count],
        }
    }
}

impl WaysOf<'_> {
    #[inline(always)]
    fn all(&self) -> impl Iterator<Item = Way> {
        let leads = self.leads.iter().zip(self.places.iter());
        self.asked.iter().zip(leads).map(|(asked, (leads, place))| Way {
            asked: *asked,
            leads: *leads,
            place: *place,
        })
    }

    #[inline(always)]
    fn get(&self, at: usize) -> Option<Way> {
        let (asked, (leads, place)) = self.asked.get(at).zip(self.leads.get(at).zip(self.places.get(at)))?;
        Some(Way { asked: *asked, leads: *leads, place: *place })
    }
}

/// Where every class leads at an end that nobody asks for.
static NOWHERE: [AtomicU64; 1] = [AtomicU64::new(0)];

/// What leads from an end's classes.
#[derive(Clone, Copy)]
struct Leading<'a> {
    leads: &'a [AtomicU64],
    /// The bits of a class that count.
    mask: ClassId,
}

impl<'a> Leading<'a> {
    /// Not in line, or each packet would ask again whether there is an end.
    #[inline(never)]
    fn of(end: Option<&'a End>) -> Leading<'a> {
        match end {
            Some(end) => Leading { leads: &end.map.leads, mask: ClassId::MAX },
            None => Leading { leads: &NOWHERE, mask: 0 },
        }
    }

    #[inline(always)]
    fn lead(self, class: ClassId) -> Lead {
        let lead = self.leads.get((class & self.mask) as usize);
        lead.map_or(Lead::UNKNOWN, |lead| Lead::from_bits(lead.load(Ordering::Relaxed)))
    }
}

impl NarrowRules {
    pub(super) fn new(
        mut names: Vec<u32>,
        blocks: Blocks,
        pairs: Pairs,
        grid: Option<PortGrid>,
    ) -> NarrowRules {
        names.push(NONE);
        NarrowRules { names: names.into(), blocks, pairs: Arc::new(pairs), grid: grid.map(Arc::new) }
    }

    /// The name of a rank's rule; [`NONE`] of none.
    #[inline(always)]
    fn name(&self, rank: Rank) -> u32 {
        // Without a branch on whether there is one, which no branch predictor can learn.
        let at = usize::from(rank).min(self.names.len().wrapping_sub(1));
        self.names.get(at).copied().unwrap_or(NONE)
    }

    #[inline(always)]
    fn way(&self, ends: [Leading<'_>; 2], packet: &Packet, classes: [ClassId; 2]) -> Way {
        let leads = [ends[0].lead(classes[0]), ends[1].lead(classes[1])];
        let place = self.pairs.place(leads.map(Lead::position));
        Way { asked: Asked::new(packet), leads, place }
    }

    /// The blocks where a packet's chains begin.
    #[inline(always)]
    fn begin(&self, way: &Way) -> [&Block; 3] {
        let [source, destination] = way.leads;
        [
            self.pairs.begin(way.place),
            self.blocks.begin(source.block()),
            self.blocks.begin(destination.block()),
        ]
    }

    /// The first rule of the blocks where a packet's chains begin, and does any of these go on?
    #[inline(always)]
    fn first(&self, processor: impl Processor, way: &Way) -> (Rank, bool) {
        let [pair, source, destination] = self.begin(way);
        let goes_on = pair.goes_on() | source.goes_on() | destination.goes_on();
        (way.first(processor, [pair, source, destination]), goes_on)
    }

    /// The same of the next blocks of these chains, which have this number.
    #[inline(always)]
    fn next(&self, processor: impl Processor, way: &Way, number: u16) -> (Rank, bool) {
        let [pair, source, destination] = self.begin(way);
        let (pair, more_of_pair) = self.pairs.next(pair, number);
        let (source, more_of_source) = self.blocks.next(source, number);
        let (destination, more_of_destination) = self.blocks.next(destination, number);
        let goes_on = more_of_pair | more_of_source | more_of_destination;
        (way.first(processor, [pair, source, destination]), goes_on)
    }

    /// The first rule of a packet by itself.
    #[inline(always)]
    pub(super) fn first_by(&self, processor: impl Processor, way: &Way) -> Rank {
        let (mut first, mut goes_on) = self.first(processor, way);
        if let Some(grid) = &self.grid {
            first = first.min(grid.first(processor, way.asked));
        }
        let mut round = 0;
        while goes_on {
            let next;
            (next, goes_on) = self.next(processor, way, round);
            (first, round) = (first.min(next), round + 1);
        }
        first
    }

    /// The first rule of each packet's chains: at most [`BATCH`].
    #[inline(always)]
    fn compare(&self, avx512: Option<Avx512>, ways: &WaysOf<'_>, ranks: &mut [Rank]) {
        match avx512 {
            Some(avx512) => avx512.compare(self, ways, ranks),
            None => self.compare_by(Any, ways, ranks),
        }
    }

    /// [`Self::compare`].
    #[inline(always)]
    pub(super) fn compare_by(&self, processor: impl Processor, ways: &WaysOf<'_>, ranks: &mut [Rank]) {
        let (mut open, mut count) = ([0u8; BATCH], 0);
        for ((number, way), rank) in (0..BATCH as u8).zip(ways.all()).zip(ranks.iter_mut()) {
            let (first, goes_on) = self.first(processor, &way);
            *rank = first;
            open[count % BATCH] = number;
            count += usize::from(goes_on);
        }
        let mut round = 0;
        while count > 0 {
            let mut kept = 0;
            for at in 0..count {
                let number = open[at % BATCH];
                let Some((way, rank)) = ways.get(number.into()).zip(ranks.get_mut(usize::from(number)))
                else {
                    break;
                };
                let (first, goes_on) = self.next(processor, &way, round);
                *rank = select_unpredictable(first < *rank, first, *rank);
                open[kept % BATCH] = number;
                kept += usize::from(goes_on);
            }
            (count, round) = (kept, round + 1);
        }
    }

    /// The name of the first rule that a packet matches of those named from `from` on, which is behind the first group.
    fn first_from(&self, way: &Way, from: u32) -> u32 {
        let chains = way.leads.iter().flat_map(|lead| self.blocks.all(Any, lead.block(), way.asked));
        let ranks = chains.chain(self.pairs.all(Any, way.place, way.asked));
        ranks.map(|rank| self.name(rank)).filter(|name| *name >= from).min().unwrap_or(NONE)
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        let grid = self.grid.as_ref().map_or(0, |grid| grid.bytes());
        size_of_val(&*self.names) + self.blocks.bytes() + self.pairs.bytes() + grid
    }
}

impl Program {
    /// Where packets of these classes lead to; what lies there is brought near.
    #[inline(never)]
    pub(super) fn lead(
        &self,
        narrow: &NarrowRules,
        run: &[(ProgramId, Packet)],
        classes: &[[ClassId; 2]],
        ways: WaysOf<'_>,
    ) {
        let ends = [Leading::of(self.source.as_ref()), Leading::of(self.destination.as_ref())];
        let places = ways.asked.iter_mut().zip(ways.leads).zip(ways.places);
        for (((_, packet), classes), ((asked, leads), place)) in run.iter().zip(classes).zip(places) {
            let way = narrow.way(ends, packet, *classes);
            narrow.pairs.prefetch(way.place);
            narrow.blocks.prefetch(way.leads[0].block());
            narrow.blocks.prefetch(way.leads[1].block());
            (*asked, *leads, *place) = (way.asked, way.leads, way.place);
        }
    }

    /// What becomes of packets that [`Self::lead`] has led: at most [`BATCH`].
    #[inline(never)]
    pub(super) fn judge_by_address(
        &self,
        avx512: Option<Avx512>,
        narrow: &NarrowRules,
        run: &[(ProgramId, Packet)],
        classes: &[[ClassId; 2]],
        ways: WaysOf<'_>,
        out: &mut [Judgement],
    ) {
        let Some(((id, _), stage)) = run.first().zip(self.stages.first()) else { return };
        let (mut ranks, mut cells) = ([NO_RANK; BATCH], [0; BATCH]);
        if let Some(grid) = &narrow.grid {
            grid.find(avx512, ways.asked, &mut cells);
        }
        narrow.compare(avx512, &ways, &mut ranks);
        let laid = narrow.grid.as_ref().map_or(&[][..], |grid| grid.ranks());
        let limit = limit(stage);
        let (mut rest, mut count) = ([0u8; BATCH], 0);
        let found = (0..BATCH as u8).zip(ranks.iter_mut().zip(&cells).zip(ways.leads.iter()));
        for ((number, ((rank, cell), leads)), out) in found.zip(out.iter_mut()) {
            *rank = (*rank).min(laid.get(*cell as usize).copied().unwrap_or(NO_RANK));
            let (is_decided, judgement) = decided(*id, limit, narrow.name(*rank | unknown(*leads)));
            *out = judgement;
            rest[count % BATCH] = number;
            count += usize::from(!is_decided);
        }
        for number in &rest[..count] {
            let number = usize::from(*number);
            let Some((((way, (_, packet)), classes), out)) =
                ways.get(number).zip(run.get(number)).zip(classes.get(number)).zip(out.get_mut(number))
            else {
                break;
            };
            self.judge_open(narrow, *id, packet, *classes, (&way, ranks[number % BATCH]), out);
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
        let ends = [Leading::of(self.source.as_ref()), Leading::of(self.destination.as_ref())];
        let way = narrow.way(ends, packet, classes);
        let first = match avx512 {
            Some(avx512) => avx512.first(narrow, &way),
            None => narrow.first_by(Any, &way),
        };
        let name = narrow.name(first | unknown(way.leads));
        match self.stages.first().map(|stage| decided(id, limit(stage), name)) {
            Some((true, judgement)) => judgement,
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

/// 0 where the classes of both ends are known; otherwise the largest number, which is no rule's.
#[inline(always)]
fn unknown([source, destination]: [Lead; 2]) -> Rank {
    source.unknown() | destination.unknown()
}

/// Narrow rules named below this decide whatever rows say, but for those that pass.
#[inline(always)]
fn limit(stage: &Stage) -> u32 {
    stage.lowest.min(stage.step << 2)
}

/// Does a packet's first narrow rule, which has this name, decide whatever rows say? Then its judgement.
#[inline(always)]
fn decided(id: ProgramId, limit: u32, first: u32) -> (bool, Judgement) {
    let is_decided = (first < limit) & (first & 3 != PASS);
    let judgement =
        Judgement { verdict: VERDICTS[first as usize & 3], rule: RuleId::new(id, first >> 2), logs: 0 };
    (is_decided, judgement)
}
