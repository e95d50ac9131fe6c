//! Judging packets by a program with narrow rules (`narrow.rs`): first by what their ends lead to, which decides on most of
//! them, and the others by rows as well.
//!
//! Batches go step by step, all packets' leads before all packets' blocks, so that one packet's wait for memory is another's
//! work. Lists of packets are kept where a branch would be: whether a packet needs another step, no branch predictor can
//! learn.

use std::sync::atomic::{AtomicU64, Ordering};

use super::address_rows::Lead;
use super::arrange::Stage;
use super::blocks::Asked;
use super::classes::ClassId;
use super::packet::Packet;
use super::processor::Processor;
use super::program::{End, NONE, PASS, PacketRows, Program, VERDICTS, row};
use super::{Judgement, ProgramId, RuleId};

/// Packets of a batch at most.
pub(super) const BATCH: usize = 64;

/// A packet among narrow rules.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// Where its ends lead to.
    leads: [Lead; 2],
    asked: Asked,
    /// The first lane that it matches at each end.
    lanes: [u32; 2],
    /// Its rows of ports, where they are asked for.
    ports: [u32; 2],
}

impl Way {
    /// Are both ends' classes known?
    #[inline(always)]
    fn is_known(&self) -> bool {
        self.leads.iter().all(|lead| lead.position != Lead::UNKNOWN.position)
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
    #[inline(always)]
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

impl Program {
    #[inline(always)]
    fn way(&self, ends: [Leading<'_>; 2], packet: &Packet, classes: [ClassId; 2]) -> Way {
        let leads = [ends[0].lead(classes[0]), ends[1].lead(classes[1])];
        Way {
            leads,
            asked: Asked::new(packet, leads.map(|lead| lead.position)),
            lanes: [0; 2],
            ports: [0; 2],
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
        processor: impl Processor,
        run: &[(ProgramId, Packet)],
        classes: &[[ClassId; 2]],
        ways: &mut [Way],
        out: &mut [Judgement],
    ) {
        let Some(((id, _), stage)) = run.first().zip(self.stages.first()) else { return };
        // Packet and end, of those that have more blocks.
        let (mut open, mut count) = ([0u8; 2 * BATCH], 0);
        for (number, way) in (0..BATCH as u8).zip(ways.iter_mut()) {
            for end in 0..2 {
                let lead = way.leads[end];
                let lane = self.blocks.first_of(processor, lead.block, way.asked.0[end]);
                way.lanes[end] = lane;
                open[count % (2 * BATCH)] = number * 2 + end as u8;
                count += usize::from((lane == 0) & (lead.blocks > 1));
            }
        }
        let mut round = 1;
        while count > 0 {
            let mut kept = 0;
            for at in 0..count {
                let whose = usize::from(open[at % (2 * BATCH)]);
                let Some(way) = ways.get_mut(whose / 2) else { break };
                let (lead, asked) = (&way.leads[whose % 2], way.asked.0[whose % 2]);
                let lane = self.blocks.first_of(processor, lead.block + u32::from(round), asked);
                way.lanes[whose % 2] = lane;
                open[kept % (2 * BATCH)] = whose as u8;
                kept += usize::from((lane == 0) & (lead.blocks > round + 1));
            }
            (count, round) = (kept, round + 1);
        }
        let (mut rest, mut count) = ([0u8; BATCH], 0);
        for ((number, way), out) in (0..BATCH as u8).zip(ways.iter()).zip(out.iter_mut()) {
            let first = self.first(way);
            let (is_decided, judgement) = decided(*id, stage, way, first);
            *out = judgement;
            rest[count % BATCH] = number;
            count += usize::from(!(is_decided & (first < stage.lowest)));
        }
        if self.asks_ports_alone(stage) {
            let mut kept = 0;
            for at in 0..count {
                let number = usize::from(rest[at % BATCH]);
                let Some((way, (_, packet))) = ways.get_mut(number).zip(run.get(number)) else { break };
                way.ports = self.port_rows(packet);
                self.prefetch_plain(way.ports);
            }
            for at in 0..count {
                let number = rest[at % BATCH];
                let Some((way, out)) = ways.get(usize::from(number)).zip(out.get_mut(usize::from(number)))
                else {
                    break;
                };
                let first = self.first(way).min(self.first_by_ports(processor, stage, way.ports));
                let (is_decided, judgement) = decided(*id, stage, way, first);
                *out = judgement;
                rest[kept % BATCH] = number;
                kept += usize::from(!is_decided);
            }
            count = kept;
        }
        for number in &rest[..count] {
            let number = usize::from(*number);
            let Some((((way, (_, packet)), classes), out)) =
                ways.get(number).zip(run.get(number)).zip(classes.get(number)).zip(out.get_mut(number))
            else {
                break;
            };
            self.judge_open(*id, packet, *classes, way, out);
        }
    }

    /// The name of the first narrow rule that a packet matches.
    #[inline(always)]
    fn first(&self, way: &Way) -> u32 {
        way.lanes.iter().map(|lane| self.blocks.name(*lane)).fold(NONE, u32::min)
    }

    /// [`Self::judge_rest`] of a packet of a batch. Written where it is to be: what is returned is written in pieces and copied
    /// in one, for which the processor waits.
    #[inline(never)]
    fn judge_open(
        &self,
        id: ProgramId,
        packet: &Packet,
        classes: [ClassId; 2],
        way: &Way,
        out: &mut Judgement,
    ) {
        *out = self.judge_rest(id, packet, classes, way, self.first(way), |_| {});
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
        let way = self.way(ends, packet, classes);
        let firsts = way
            .leads
            .iter()
            .zip(way.asked.0)
            .map(|(lead, asked)| self.blocks.first(lead.block, lead.blocks, asked));
        let first = firsts.fold(NONE, u32::min);
        match self.stages.first().map(|stage| (decided(id, stage, &way, first), stage.lowest)) {
            Some(((true, judgement), lowest)) if first < lowest => judgement,
            _ => self.judge_rest(id, packet, classes, &way, first, met),
        }
    }

    /// What becomes of a packet whose first narrow rule is known.
    #[inline(always)]
    fn judge_rest(
        &self,
        id: ProgramId,
        packet: &Packet,
        classes: [ClassId; 2],
        way: &Way,
        first: u32,
        met: impl FnMut(RuleId),
    ) -> Judgement {
        let ends = [(&self.source, classes[0]), (&self.destination, classes[1])];
        let [Some(source), Some(destination)] = ends.map(|(end, class)| row(end.as_ref(), class)) else {
            return Judgement::NO_PROGRAM;
        };
        let [upper, port] = self.port_rows(packet);
        let rows = PacketRows([upper, port, source, destination]);
        let next = |from| {
            let ends = way.leads.iter().zip(way.asked.0);
            let firsts =
                ends.map(|(lead, asked)| self.blocks.first_from(lead.block, lead.blocks, asked, from));
            firsts.fold(NONE, u32::min)
        };
        self.judge_with(id, &rows, first, next, met)
    }
}

/// Does the first rule of all that a packet matches decide in this stage? Then its judgement.
#[inline(always)]
fn decided(id: ProgramId, stage: &Stage, way: &Way, first: u32) -> (bool, Judgement) {
    let is_decided = way.is_known() & (first < stage.step << 2) & (first & 3 != PASS);
    let judgement =
        Judgement { verdict: VERDICTS[first as usize & 3], rule: RuleId::new(id, first >> 2), logs: 0 };
    (is_decided, judgement)
}
