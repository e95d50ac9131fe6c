//! Judging packets by a program with narrow rules (`narrow.rs`): first by what their ends lead to, which decides on most of
//! them, and the others by rows as well.
//!
//! Batches go step by step, all packets' leads before all packets' blocks, and lists of packets are kept where a branch
//! would be: whether a packet needs another step, no branch predictor can learn.

use std::sync::atomic::{AtomicU32, Ordering};

use super::address_rows::Lead;
use super::arrange::Stage;
use super::blocks::Asked;
use super::classes::ClassId;
use super::packet::Packet;
use super::program::{End, NONE, PASS, PacketRows, Program, VERDICTS, map_of};
use super::{Judgement, ProgramId, RuleId};

/// Packets of a batch at most.
pub(super) const BATCH: usize = 64;

/// A packet among narrow rules.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// Where its ends lead to.
    leads: [Lead; 2],
    asked: Asked,
    /// Are both ends' classes known?
    is_known: bool,
    /// The name of the first narrow rule that it matches.
    first: u32,
}

/// Where every class leads at an end that nobody asks for.
static NOWHERE: [Lead; 1] = [Lead { row: 0, block: 0, blocks: 0, position: 0 }];

/// What leads from an end's classes.
#[derive(Clone, Copy)]
struct Leading<'a> {
    map: &'a [AtomicU32],
    /// The bits of a class that count.
    mask: ClassId,
    leads: &'a [Lead],
}

impl<'a> Leading<'a> {
    #[inline(always)]
    fn of(end: Option<&'a End>) -> Leading<'a> {
        let (map, mask) = map_of(end);
        Leading { map, mask, leads: end.map_or(&NOWHERE, |end| &end.leads) }
    }

    #[inline(always)]
    fn lead(self, class: ClassId) -> Option<Lead> {
        let number = self.map.get((class & self.mask) as usize)?.load(Ordering::Relaxed);
        self.leads.get(number as usize).copied()
    }
}

impl Program {
    #[inline(always)]
    fn way(&self, ends: [Leading<'_>; 2], packet: &Packet, classes: [ClassId; 2]) -> Way {
        let [source, destination] = [ends[0].lead(classes[0]), ends[1].lead(classes[1])];
        let is_known = source.is_some() & destination.is_some();
        let leads = [source.unwrap_or_default(), destination.unwrap_or_default()];
        Way {
            leads,
            asked: Asked::new(packet, leads.map(|lead| lead.position as u16)),
            is_known,
            first: NONE,
        }
    }

    /// Where packets of these classes lead to; what lies there is brought near.
    #[inline(always)]
    pub(super) fn lead(&self, run: &[(ProgramId, Packet)], classes: &[[ClassId; 2]], ways: &mut [Way]) {
        let ends = [Leading::of(self.source.as_ref()), Leading::of(self.destination.as_ref())];
        for (((_, packet), classes), way) in run.iter().zip(classes).zip(ways) {
            *way = self.way(ends, packet, *classes);
            self.blocks.prefetch(way.leads[0].block);
            self.blocks.prefetch(way.leads[1].block);
        }
    }

    /// What becomes of packets that [`Self::lead`] has led: at most [`BATCH`].
    #[inline(always)]
    pub(super) fn judge_by_address(
        &self,
        run: &[(ProgramId, Packet)],
        ways: &mut [Way],
        out: &mut [Judgement],
    ) {
        let Some(((id, _), stage)) = run.first().zip(self.stages.first()) else { return };
        // Packet and end, of those that have more blocks.
        let (mut open, mut count) = ([0u8; 2 * BATCH], 0);
        for (number, way) in (0..BATCH as u8).zip(ways.iter_mut()) {
            way.first = NONE;
            for (end, (lead, asked)) in (0..).zip(way.leads.iter().zip(way.asked.0)) {
                let found = self.blocks.first_of(lead.block, asked);
                way.first = way.first.min(found);
                open[count % (2 * BATCH)] = number * 2 + end;
                count += usize::from((found == NONE) & (lead.blocks > 1));
            }
        }
        let mut round = 1;
        while count > 0 {
            let mut kept = 0;
            for at in 0..count {
                let whose = usize::from(open[at % (2 * BATCH)]);
                let Some(way) = ways.get_mut(whose / 2) else { break };
                let (lead, asked) = (&way.leads[whose % 2], way.asked.0[whose % 2]);
                let found = self.blocks.first_of(lead.block + round, asked);
                open[kept % (2 * BATCH)] = whose as u8;
                kept += usize::from((found == NONE) & (lead.blocks > round + 1));
                way.first = way.first.min(found);
            }
            (count, round) = (kept, round + 1);
        }
        let (mut rest, mut count) = ([0u8; BATCH], 0);
        for ((number, way), out) in (0..BATCH as u8).zip(ways.iter()).zip(out.iter_mut()) {
            let (is_decided, judgement) = decided(*id, stage, way);
            *out = judgement;
            rest[count % BATCH] = number;
            count += usize::from(!is_decided);
        }
        for number in &rest[..count] {
            let number = usize::from(*number);
            let Some(((way, (_, packet)), out)) =
                ways.get(number).zip(run.get(number)).zip(out.get_mut(number))
            else {
                break;
            };
            self.judge_open(*id, packet, way, out);
        }
    }

    /// [`Self::judge_rest`] of a packet of a batch. Written where it is to be: what is returned is written in pieces and copied
    /// in one, for which the processor waits.
    #[inline(never)]
    fn judge_open(&self, id: ProgramId, packet: &Packet, way: &Way, out: &mut Judgement) {
        *out = self.judge_rest(id, packet, way, |_| {});
    }

    /// What becomes of a packet by itself.
    #[inline(always)]
    pub(super) fn judge_alone(
        &self,
        id: ProgramId,
        packet: &Packet,
        classes: [ClassId; 2],
        met: impl FnMut(RuleId),
    ) -> Judgement {
        let ends = [Leading::of(self.source.as_ref()), Leading::of(self.destination.as_ref())];
        let mut way = self.way(ends, packet, classes);
        for (lead, asked) in way.leads.iter().zip(way.asked.0) {
            way.first = way.first.min(self.blocks.first(lead.block, lead.blocks, asked));
        }
        match self.stages.first().map(|stage| decided(id, stage, &way)) {
            Some((true, judgement)) => judgement,
            _ => self.judge_rest(id, packet, &way, met),
        }
    }

    /// What becomes of a packet whose first narrow rule is known.
    #[inline(always)]
    fn judge_rest(&self, id: ProgramId, packet: &Packet, way: &Way, met: impl FnMut(RuleId)) -> Judgement {
        if !way.is_known {
            return Judgement::NO_PROGRAM;
        }
        let [upper, port] = self.port_rows(packet);
        let rows = PacketRows([upper, port, way.leads[0].row, way.leads[1].row]);
        let next = |from| {
            let ends = way.leads.iter().zip(way.asked.0);
            let firsts =
                ends.map(|(lead, asked)| self.blocks.first_from(lead.block, lead.blocks, asked, from));
            firsts.fold(NONE, u32::min)
        };
        self.judge_with(id, &rows, way.first, next, met)
    }
}

/// Does a packet's first narrow rule decide, whatever rows say? Then its judgement.
#[inline(always)]
fn decided(id: ProgramId, stage: &Stage, way: &Way) -> (bool, Judgement) {
    let first = way.first;
    let is_decided = way.is_known & (first < stage.lowest) & (first < stage.step << 2) & (first & 3 != PASS);
    let judgement =
        Judgement { verdict: VERDICTS[first as usize & 3], rule: RuleId::new(id, first >> 2), logs: 0 };
    (is_decided, judgement)
}
