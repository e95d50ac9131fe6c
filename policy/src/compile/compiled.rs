//! What readers have: one publication of all programs and sets.

use std::cell::RefCell;
use std::sync::Arc;

use model::Family;

use super::addresses::AddressLookup;
use super::classes::{ClassId, NOTHING};
use super::memo::Memo;
use super::packet::Packet;
use super::program::{PacketRows, Program};
use super::{Judgement, ProgramId, RuleId};

/// Packets whose addresses are looked up together.
const BATCH: usize = 64;

/// The readers' side: one publication. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    pub(super) programs: Arc<[Option<Arc<Program>>]>,
    pub(super) addresses: AddressLookup,
    pub(super) asks_for_addresses: bool,
}

impl Compiled {
    /// Does any program ask for addresses? It takes more than the packet to answer then.
    #[inline]
    pub fn asks_for_addresses(&self) -> bool {
        self.asks_for_addresses
    }

    /// Does this one?
    #[inline]
    pub fn asks_for_addresses_in(&self, id: ProgramId) -> bool {
        self.program(id).is_some_and(Program::asks_for_addresses)
    }

    /// What a program makes of a packet. It allocates nothing and never panics.
    #[inline]
    pub fn judge(&self, id: ProgramId, packet: &Packet) -> Judgement {
        self.judge_and_tell(id, packet, |_| {})
    }

    /// [`Self::judge`] for many packets, several at a time: `out[i]` for `asked[i]`. Of two lengths, the shorter counts.
    pub fn judge_batch(&self, asked: &[(ProgramId, Packet)], out: &mut [Judgement]) {
        let mut scratch = Scratch::new();
        for (asked, out) in asked.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            self.judge_some(&mut scratch, asked, out, |_, _| None, |_, _, _| {});
        }
    }

    /// [`Self::judge_batch`] by a worker that remembers what it has judged before.
    pub fn judge_batch_by_memory(
        &self,
        memo: &mut Memo,
        asked: &[(ProgramId, Packet)],
        out: &mut [Judgement],
    ) {
        let Memo { remembered, scratch } = memo;
        let remembered = RefCell::new(remembered);
        for (asked, out) in asked.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            self.judge_some(
                scratch,
                asked,
                out,
                |program, rows| remembered.borrow().recall(program.serial, rows),
                |program, rows, judgement| remembered.borrow_mut().remember(program.serial, rows, judgement),
            );
        }
    }

    /// Tells of each rule with action Log that the packet meets before it is decided on, in order.
    pub fn logs(&self, id: ProgramId, packet: &Packet, met: impl FnMut(RuleId)) {
        self.judge_and_tell(id, packet, met);
    }

    #[inline]
    fn program(&self, id: ProgramId) -> Option<&Program> {
        self.programs.get(usize::from(id.0))?.as_deref()
    }

    #[inline(always)]
    fn judge_and_tell(&self, id: ProgramId, packet: &Packet, met: impl FnMut(RuleId)) -> Judgement {
        let Some(program) = self.program(id) else { return Judgement::NO_PROGRAM };
        let class = |asked: bool, addr| {
            if asked { self.addresses.class(packet.family, addr) } else { NOTHING }
        };
        let source = class(program.source.is_some(), packet.source);
        let destination = class(program.destination.is_some(), packet.destination);
        match program.rows(source, destination, packet) {
            Some(rows) => program.judge(id, packet, &rows, met),
            None => Judgement::NO_PROGRAM,
        }
    }

    /// At most [`BATCH`]: first every class, then every row, then what the rows lead to, then every verdict, so that one packet's
    /// wait for memory is another's work. What is recalled of a packet's rows isn't asked for, the rest is remembered.
    #[inline(always)]
    fn judge_some(
        &self,
        scratch: &mut Scratch,
        asked: &[(ProgramId, Packet)],
        out: &mut [Judgement],
        recall: impl Fn(&Program, &PacketRows) -> Option<Judgement>,
        remember: impl Fn(&Program, &PacketRows, Judgement),
    ) {
        let Scratch { classes, v4, v6, rows } = scratch;
        for (number, (id, packet)) in asked.iter().enumerate() {
            let Some(program) = self.program(*id) else { continue };
            let ends = [(&program.source, packet.source), (&program.destination, packet.destination)];
            for (end, (map, addr)) in ends.into_iter().enumerate() {
                let place = (number * 2 + end) as u8;
                match (map, packet.family) {
                    (None, _) => {}
                    (_, Family::V4) => v4.push(place, addr as u32),
                    (_, Family::V6) => v6.push(place, addr),
                }
            }
        }
        v4.answer(classes, |addrs, classes| self.addresses.classes_v4(addrs, classes));
        v6.answer(classes, |addrs, classes| self.addresses.classes_v6(addrs, classes));
        let mut unknown = 0u64;
        for (number, (((id, packet), (classes, rows)), out)) in
            asked.iter().zip(classes.iter().zip(&mut *rows)).zip(&mut *out).enumerate()
        {
            let [source, destination] = *classes;
            let program = self.program(*id);
            let found = program.and_then(|program| program.rows(source, destination, packet));
            let Some((program, found)) = program.zip(found) else {
                *out = Judgement::NO_PROGRAM;
                continue;
            };
            match recall(program, &found) {
                Some(judgement) => *out = judgement,
                None => {
                    *rows = found;
                    unknown |= 1 << number;
                }
            }
        }
        // The sum means nothing, but has to be made, so what it is of has to be read.
        let mut sum = 0u64;
        for step in [Program::near_heads, Program::near_words] {
            for number in bits(unknown) {
                let program = asked.get(number).and_then(|(id, _)| self.program(*id));
                sum = sum.wrapping_add(program.map_or(0, |program| step(program, &rows[number % BATCH])));
            }
        }
        std::hint::black_box(sum);
        for number in bits(unknown) {
            let Some(((id, packet), out)) = asked.get(number).zip(out.get_mut(number)) else { break };
            let Some(program) = self.program(*id) else { continue };
            let rows = &rows[number % BATCH];
            *out = program.judge(*id, packet, rows, |_| {});
            remember(program, rows, *out);
        }
    }
}

/// The numbers of the bits that are set.
#[inline(always)]
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = word.trailing_zeros() as usize;
        (word != 0).then(|| word &= word - 1).map(|()| number)
    })
}

/// What a batch is worked out in. Kept from batch to batch where it can be, so that nothing need be cleared: what isn't
/// written isn't read.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    classes: [[ClassId; 2]; BATCH],
    v4: Questions<u32>,
    v6: Questions<u128>,
    rows: [PacketRows; BATCH],
}

const _: () = assert!(BATCH <= u64::BITS as usize, "a bit for each packet");

impl Scratch {
    pub(super) fn new() -> Scratch {
        let classes = [[NOTHING; 2]; BATCH];
        Scratch { classes, v4: Questions::new(), v6: Questions::new(), rows: [PacketRows::default(); BATCH] }
    }
}

/// Addresses of one family to look up, and which end of which packet each is: twice the packet's number, and 1 for the
/// destination. Answered, they are forgotten.
#[derive(Clone, Debug)]
struct Questions<K> {
    addrs: [K; BATCH * 2],
    places: [u8; BATCH * 2],
    len: usize,
}

impl<K: Copy + Default> Questions<K> {
    fn new() -> Questions<K> {
        Questions { addrs: [K::default(); BATCH * 2], places: [0; BATCH * 2], len: 0 }
    }

    #[inline(always)]
    fn push(&mut self, place: u8, addr: K) {
        let at = self.len % (BATCH * 2);
        (self.addrs[at], self.places[at]) = (addr, place);
        self.len = at + 1;
    }

    #[inline(always)]
    fn answer(&mut self, classes: &mut [[ClassId; 2]; BATCH], look_up: impl Fn(&[K], &mut [ClassId])) {
        if self.len == 0 {
            return;
        }
        let mut answers = [NOTHING; BATCH * 2];
        let answers = &mut answers[..self.len];
        look_up(&self.addrs[..self.len], answers);
        for (place, answer) in self.places.iter().zip(answers) {
            classes[usize::from(place / 2) % BATCH][usize::from(place % 2)] = *answer;
        }
        self.len = 0;
    }
}
