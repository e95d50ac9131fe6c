//! Packets of no flow are asked about together, where addresses are asked for: those tables are far away, and one packet's wait
//! is another's work.

use ::policy::compile::{Judgement, Memo, Packet as Asked, ProgramId};
use packet::Parsed;
use tables::Direction;

use super::ask::asked;
use super::{Judge, Packet, Ways, is_open};
use crate::flow::{Found, Seen};
use crate::{BATCH, Batch};

/// Below this many questions, asking them together saves nothing.
const WORTH_IT: usize = 2;

/// What one program says of the packet in one row, as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    row: u8,
    pub(super) program: ProgramId,
    pub(super) judgement: Judgement,
}

/// All that is said of a batch, and what a worker remembers from batch to batch.
pub(super) struct Foreseen {
    said: Vec<Said>,
    questions: Vec<(ProgramId, Asked)>,
    answers: Vec<Judgement>,
    memo: Memo,
}

impl Foreseen {
    pub(super) fn new() -> Foreseen {
        let room = BATCH * 2;
        Foreseen {
            said: Vec::with_capacity(room),
            questions: Vec::with_capacity(room),
            answers: Vec::with_capacity(room),
            memo: Memo::new(),
        }
    }

    /// From the beginning.
    pub(super) fn said(&self) -> InOrder<'_> {
        InOrder(&self.said)
    }
}

/// What is left of it.
pub(super) struct InOrder<'a>(&'a [Said]);

impl<'a> InOrder<'a> {
    /// What is said of a row. Rows are asked for in the order in which they were asked about.
    #[inline]
    pub(super) fn of(&mut self, row: u8) -> &'a [Said] {
        let (of_row, rest) = self.0.split_at(self.0.iter().take_while(|said| said.row == row).count());
        self.0 = rest;
        of_row
    }
}

/// Asks both ends' policies of what belongs to no flow.
pub(super) fn ask(batch: &mut Batch, judge: &Judge<'_>) {
    let policing = &judge.policing;
    let state = policing.state;
    let Batch { frames, runs, fates, parsed, hops, opened, policy, .. } = batch;
    let Foreseen { said, questions, answers, memo } = &mut policy.foreseen;
    said.clear();
    questions.clear();
    if !state.policy.asks_for_addresses() {
        return;
    }
    let mut ways = Ways::new(policing, runs, *opened, judge.epoch);
    for Seen { row, key, found } in &policy.seen {
        let at = usize::from(*row);
        let parsed: &Parsed = &parsed[at];
        if !matches!(found, Found::Nothing) || !is_open(fates[at]) || parsed.is_later_fragment() {
            continue;
        }
        ways.turn_to(at, state.next_hops.get(hops[at]));
        if !ways.is_asked {
            continue;
        }
        let between = ways.way.between(Direction::Original);
        let egress = between.egress.and_then(|port| state.policy.of(port).egress);
        let ingress = between.ingress.and_then(|port| state.policy.of(port).ingress);
        for program in [egress, ingress].into_iter().flatten() {
            if state.policy.asks_for_addresses_in(program) {
                let packet = Packet { bytes: frames[at].bytes(), parsed, key, way: ways.way, foreseen: &[] };
                questions.push((program, asked(key, packet.icmp())));
                said.push(Said { row: *row, program, judgement: Judgement::NO_PROGRAM });
            }
        }
    }
    if questions.len() < WORTH_IT {
        said.clear();
        return;
    }
    answers.resize(questions.len(), Judgement::NO_PROGRAM);
    state.policy.judge_batch_by_memory(memo, questions, answers);
    for (said, judgement) in said.iter_mut().zip(answers.iter()) {
        said.judgement = *judgement;
    }
}
