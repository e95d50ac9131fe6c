//! What readers have: one publication of all programs and sets.

use std::sync::Arc;

use model::Family;

use super::addresses::AddressLookup;
use super::by_address::{BATCH, Way};
use super::classes::{ClassId, NOTHING};
use super::memo::{Forgetful, Memo, Memory};
use super::packet::Packet;
use super::processor::Avx512;
use super::program::{PacketRows, Program, bits};
use super::{Judgement, ProgramId, RuleId};

/// The readers' side: one publication. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    pub(super) programs: Arc<[Option<Arc<Program>>]>,
    pub(super) addresses: AddressLookup,
    pub(super) asks_for_addresses: bool,
    /// Where batches may be judged by it.
    pub(super) avx512: Option<Avx512>,
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
        self.judge_all(&mut Scratch::new(), Forgetful, asked, out);
    }

    /// [`Self::judge_batch`] by a worker that remembers what it has judged before.
    pub fn judge_batch_by_memory(
        &self,
        memo: &mut Memo,
        asked: &[(ProgramId, Packet)],
        out: &mut [Judgement],
    ) {
        self.judge_all(&mut memo.scratch, &mut memo.remembered, asked, out);
    }

    /// The same by the look-up tables that any number of prefixes takes, however few there are: so that tests see both.
    pub fn by_tables(self) -> Compiled {
        Compiled { addresses: self.addresses.without_intervals(), ..self }
    }

    /// The same by what every processor has: so that tests see both.
    pub fn by_any_processor(self) -> Compiled {
        Compiled { avx512: None, ..self }
    }

    /// All packets, [`BATCH`] at a time.
    #[inline(always)]
    fn judge_all(
        &self,
        scratch: &mut Scratch,
        mut memory: impl Memory,
        asked: &[(ProgramId, Packet)],
        out: &mut [Judgement],
    ) {
        for (asked, out) in asked.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            self.judge_some(scratch, &mut memory, asked, out);
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
        if let Some(narrow) = &program.narrow {
            return program.judge_alone(self.avx512, narrow, id, packet, [source, destination], met);
        }
        match program.rows(packet, [source, destination]) {
            Some(rows) => program.judge(id, &rows, met),
            None => Judgement::NO_PROGRAM,
        }
    }

    /// At most [`BATCH`]: first every class, then every row, then what the rows lead to, then every verdict, so that one packet's
    /// wait for memory is another's work. What is recalled of a packet's rows isn't asked for, the rest is remembered.
    #[inline(always)]
    fn judge_some(
        &self,
        scratch: &mut Scratch,
        memory: &mut impl Memory,
        asked: &[(ProgramId, Packet)],
        out: &mut [Judgement],
    ) {
        let asked = &asked[..asked.len().min(out.len()).min(BATCH)];
        let runs = Runs::of(asked);
        let Scratch { classes, rows, ways, addresses } = scratch;
        self.classify(&runs, asked, addresses, classes);
        // Each bit is a packet's that is still to be judged.
        let mut unknown = 0u64;
        // Has to be made, so what it is of has to be read.
        let mut sum = 0u64;
        for (at, run) in runs.iter(asked) {
            let Some(program) = self.program(run[0].0) else {
                out[at..][..run.len()].fill(Judgement::NO_PROGRAM);
                continue;
            };
            if let Some(narrow) = &program.narrow {
                let ways = &mut ways[at..][..run.len()];
                program.lead(self.avx512, narrow, run, &classes[at..], ways);
                continue;
            }
            let (rows, out) = (&mut rows[at..][..run.len()], &mut out[at..][..run.len()]);
            let known = program.rows_of_batch(run, &classes[at..], rows);
            let all = !0 >> (BATCH - run.len());
            unknown |= (memory.recall(program.serial, rows, out) & known & all) << at;
            for number in bits(!known & all) {
                out[number] = Judgement::NO_PROGRAM;
            }
        }
        let unknown_of = |at: usize, run: &[_]| unknown & !0 >> (BATCH - run.len()) << at;
        for (at, run) in runs.iter(asked) {
            let Some(program) = self.program(run[0].0) else { continue };
            if program.lists {
                let words = bits(unknown_of(at, run)).map(|number| program.near_words(&rows[number % BATCH]));
                sum = words.fold(sum, u64::wrapping_add);
            }
        }
        std::hint::black_box(sum);
        for (at, run) in runs.iter(asked) {
            let (id, _) = run[0];
            let Some(program) = self.program(id) else { continue };
            if let Some(narrow) = &program.narrow {
                let classes = &classes[at..][..run.len()];
                let ways = &ways[at..][..run.len()];
                let out = &mut out[at..][..run.len()];
                program.judge_by_address(self.avx512, narrow, run, classes, ways, out);
                continue;
            }
            program.judge_batch(id, rows, unknown_of(at, run), out, memory);
        }
    }

    /// The classes of all packets' ends: of those that anybody asks for.
    #[inline(always)]
    fn classify(
        &self,
        runs: &Runs,
        asked: &[(ProgramId, Packet)],
        addresses: &mut Addresses,
        classes: &mut [[ClassId; 2]; BATCH],
    ) {
        let mut ends = [false; 2];
        for (_, run) in runs.iter(asked) {
            let Some(program) = self.program(run[0].0) else { continue };
            ends[0] |= program.source.is_some();
            ends[1] |= program.destination.is_some();
        }
        let of_v6 = |(_, packet): &&(ProgramId, Packet)| packet.family == Family::V6;
        // Those of IPv6 among them find something, and it is replaced.
        let mut v6 = 0;
        for (keys, (_, packet)) in addresses.v4.iter_mut().zip(asked) {
            *keys = [packet.source as u32, packet.destination as u32];
            v6 += usize::from(packet.family == Family::V6);
        }
        if v6 < asked.len() {
            match ends {
                [true, true] => {
                    let keys = addresses.v4[..asked.len()].as_flattened();
                    self.addresses.classes_v4(self.avx512, keys, classes.as_flattened_mut());
                }
                [false, false] => {}
                [source, _] => {
                    let end = usize::from(!source);
                    let keys = addresses.v4.map(|keys| keys[end]);
                    let answers = &mut addresses.classes[..asked.len()];
                    self.addresses.classes_v4(self.avx512, &keys[..asked.len()], answers);
                    for (class, answer) in classes.iter_mut().zip(answers) {
                        class[end] = *answer;
                    }
                }
            }
        }
        if v6 == 0 {
            return;
        }
        for (end, addr) in
            [|packet: &Packet| packet.source, |packet: &Packet| packet.destination].iter().enumerate()
        {
            if !ends[end] {
                continue;
            }
            for (key, (_, packet)) in addresses.v6.iter_mut().zip(asked.iter().filter(of_v6)) {
                *key = addr(packet);
            }
            let answers = &mut addresses.classes[..v6];
            self.addresses.classes_v6(&addresses.v6[..v6], answers);
            let places = classes.iter_mut().zip(asked).filter(|(_, asked)| of_v6(asked));
            for ((class, _), answer) in places.zip(answers) {
                class[end] = *answer;
            }
        }
    }
}

/// Where packets next to each other are asked about the same program.
struct Runs {
    /// The number of packets up to the end of each run.
    ends: [u8; BATCH],
    count: usize,
}

impl Runs {
    /// Of at most [`BATCH`] packets. Found once for all steps.
    #[inline(always)]
    fn of(asked: &[(ProgramId, Packet)]) -> Runs {
        let mut runs = Runs { ends: [0; BATCH], count: 0 };
        let Some((first, _)) = asked.first() else { return runs };
        // Mostly all are one.
        if asked.iter().fold(0, |differs, (id, _)| differs | (id.0 ^ first.0)) != 0 {
            for (end, [(one, _), (next, _)]) in (1..BATCH as u8).zip(asked.array_windows()) {
                runs.ends[runs.count % BATCH] = end;
                runs.count += usize::from(one != next);
            }
        }
        runs.ends[runs.count % BATCH] = asked.len() as u8;
        runs.count += 1;
        runs
    }

    /// Each run of these packets, and the number of its first.
    #[inline(always)]
    fn iter<'a>(
        &self,
        asked: &'a [(ProgramId, Packet)],
    ) -> impl Iterator<Item = (usize, &'a [(ProgramId, Packet)])> {
        let mut start = 0;
        self.ends[..self.count].iter().map(move |end| {
            let first = std::mem::replace(&mut start, usize::from(*end));
            (first, &asked[first..start])
        })
    }
}

/// What a batch is worked out in. Kept from batch to batch where it can be, so that nothing need be cleared: what isn't
/// written isn't read.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    classes: [[ClassId; 2]; BATCH],
    rows: [PacketRows; BATCH],
    ways: [Way; BATCH],
    addresses: Addresses,
}

/// Addresses to look up, and their answers.
#[derive(Clone, Debug)]
struct Addresses {
    v4: [[u32; 2]; BATCH],
    v6: [u128; BATCH],
    classes: [ClassId; BATCH],
}

const _: () = assert!(BATCH <= u64::BITS as usize, "a bit for each packet");

impl Scratch {
    pub(super) fn new() -> Scratch {
        let addresses = Addresses { v4: [[0; 2]; BATCH], v6: [0; BATCH], classes: [NOTHING; BATCH] };
        Scratch {
            classes: [[NOTHING; 2]; BATCH],
            rows: [PacketRows::default(); BATCH],
            ways: [Way::default(); BATCH],
            addresses,
        }
    }
}
