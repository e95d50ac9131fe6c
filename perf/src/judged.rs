//! Packets of new flows, and the ways to judge them: compiled, and rule after rule.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use model::Family;
use policy::compile::{Compiled, Compiler, Judgement, Limits, Memo, Packet, ProgramId, Upper};
use policy::judge::{self, Sets, Step};
use policy::rule::{Checks, SetId};

use crate::acl::FiveTuple;

/// Different packets, over and over: as many flows as `perf walk` has.
pub const PACKETS: usize = 65_536;
/// Packets asked about together, as many as a batch of the walk has.
const BATCH: usize = 64;
/// More than any work here takes.
pub const LIMITS: Limits = Limits { programs: 4_095, rules: 8_000_000, members: 1_300_000, bytes: 4 << 30 };
/// Packets of which rule after rule is asked in one go: there are rates of thousands a second.
const SEQUENTIAL: usize = 512;

/// One program and its packets.
pub struct Judged {
    compiled: Compiled,
    program: ProgramId,
    packets: Vec<FiveTuple>,
    memo: Memo,
    bytes: usize,
    checks: Arc<Checks>,
    /// As the slow judge has them.
    slow: Vec<judge::Packet>,
    /// What rule of one policy decides on each packet, counted from 1; 0 is none.
    rules: Vec<u32>,
}

/// What stands where no packet was asked about yet.
const NO_PACKET: Packet =
    Packet { source: 0, destination: 0, family: Family::V4, protocol: 0, upper: Upper::Nothing };

/// Packets as a walk has them by then, made of their bytes.
#[inline(always)]
fn ask(asked: &mut [(ProgramId, Packet); BATCH], tuples: &[FiveTuple; BATCH]) {
    for ((_, packet), tuple) in asked.iter_mut().zip(tuples) {
        *packet = tuple.into();
    }
}

/// Plain rules name no sets.
struct NoSets;

impl Sets for NoSets {
    fn contains(&self, _: SetId, _: std::net::IpAddr) -> bool {
        false
    }

    fn contains_port(&self, _: SetId, _: std::net::IpAddr, _: u8, _: u16) -> bool {
        false
    }
}

impl Judged {
    /// Compiles; some answers are held to the slow judge's.
    ///
    /// # Errors
    /// Where one differs.
    pub fn new(checks: Arc<Checks>, packets: Vec<FiveTuple>) -> Result<Judged> {
        let mut compiler = Compiler::new(LIMITS);
        let program = compiler.program(&checks)?;
        let compiled = compiler.publish();
        let slow: Vec<judge::Packet> =
            packets.iter().map(|tuple| judge::Packet::from(&Packet::from(tuple))).collect();
        let mut rules = Vec::new();
        for (number, (tuple, slow)) in packets.iter().zip(&slow).enumerate() {
            let judgement = compiled.judge(program, &tuple.into());
            let (_, step) = compiler.step(judgement.rule).context("a rule that decided has a name")?;
            if number % 64 == 0 {
                let expected = judge::judge(&checks, slow, &NoSets);
                ensure!(expected.steps.last() == Some(&step), "{slow:?}: {step:?}, expected {expected:?}");
            }
            rules.push(if let Step::Rule { rule, .. } = step { rule as u32 + 1 } else { 0 });
        }
        Ok(Judged {
            compiled,
            program,
            packets,
            memo: Memo::new(),
            bytes: compiler.usage().bytes,
            checks,
            slow,
            rules,
        })
    }

    /// What rule of the only policy decides on each packet, counted from 1; 0 is none.
    pub fn rules(&self) -> &[u32] {
        &self.rules
    }

    /// Bytes of the program.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Judges all, a batch at a time; how many.
    pub fn batches(&self) -> usize {
        let mut out = [Judgement::NO_PROGRAM; BATCH];
        let mut asked = [(self.program, NO_PACKET); BATCH];
        let mut sum = 0u32;
        for tuples in self.packets.as_chunks::<BATCH>().0 {
            ask(&mut asked, tuples);
            self.compiled.judge_batch(&asked, &mut out);
            sum = out.iter().fold(sum, |sum, judgement| sum.wrapping_add(judgement.rule.0));
        }
        std::hint::black_box(sum);
        self.packets.len()
    }

    /// [`Self::batches`] by a worker that remembers; how many.
    pub fn batches_by_memory(&mut self) -> usize {
        let mut out = [Judgement::NO_PROGRAM; BATCH];
        let mut asked = [(self.program, NO_PACKET); BATCH];
        let mut sum = 0u32;
        for tuples in self.packets.as_chunks::<BATCH>().0 {
            ask(&mut asked, tuples);
            self.compiled.judge_batch_by_memory(&mut self.memo, &asked, &mut out);
            sum = out.iter().fold(sum, |sum, judgement| sum.wrapping_add(judgement.rule.0));
        }
        std::hint::black_box(sum);
        self.packets.len()
    }

    /// Judges all, one at a time; how many.
    pub fn singles(&self) -> usize {
        let judge = |tuple| self.compiled.judge(self.program, &Packet::from(tuple)).rule.0;
        let sum = self.packets.iter().fold(0u32, |sum, tuple| sum.wrapping_add(judge(tuple)));
        std::hint::black_box(sum);
        self.packets.len()
    }

    /// Asks rule after rule, of some packets; how many.
    pub fn sequentially(&self) -> usize {
        let rules =
            || self.checks.tiers.iter().flat_map(|tier| &tier.policies).flat_map(|policy| &policy.rules);
        let mut sum = 0;
        for packet in self.slow.iter().step_by(PACKETS / SEQUENTIAL) {
            sum += rules().position(|rule| judge::matches(rule, packet, &NoSets)).unwrap_or(0);
        }
        std::hint::black_box(sum);
        SEQUENTIAL
    }
}
