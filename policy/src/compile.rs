//! Policy in the form that packets are judged by.
//!
//! The writer owns a [`Compiler`]: it is told of sets and their changes, and of [`Checks`](crate::rule::Checks), which
//! become numbered programs; equal checks are one program. [`Compiler::publish`] gives a [`Compiled`], cheap to clone, that
//! judges by all of it at once: programs and sets of one publication never meet those of another.

mod address_rows;
mod addresses;
mod arrange;
mod atoms;
mod blocks;
mod build;
mod by_address;
mod classes;
mod compiled;
mod compiler;
mod conditions;
mod intervals;
mod memo;
mod narrow;
mod packet;
mod pairs;
mod port_grid;
mod port_rows;
mod prefixes;
mod processor;
mod program;
mod rows;

pub use compiled::Compiled;
pub use compiler::Compiler;
pub use memo::Memo;
pub use packet::{Packet, Upper};

use crate::judge::Verdict;

/// Checks, compiled: the same number for all that are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgramId(pub u16);

/// The step that decided: a rule or a default of one program. [`Compiler::step`] names it while the program lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

impl RuleId {
    /// No rule: there was no such program, and the packet is denied.
    pub const NONE: RuleId = RuleId(u32::MAX);
    /// Bits that number a program's steps; those above number the program.
    const STEP_BITS: u32 = 20;
    /// Steps of a program at most.
    const STEPS_MAX: usize = (1 << RuleId::STEP_BITS) - 1;

    fn new(program: ProgramId, step: u32) -> RuleId {
        RuleId(u32::from(program.0) << RuleId::STEP_BITS | step)
    }

    /// The program it belongs to.
    pub fn program(self) -> ProgramId {
        ProgramId((self.0 >> RuleId::STEP_BITS) as u16)
    }

    fn step(self) -> usize {
        (self.0 & ((1 << RuleId::STEP_BITS) - 1)) as usize
    }
}

/// What a program makes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What decided.
    pub rule: RuleId,
    /// How many rules with action Log the packet met on the way; [`Compiled::logs`] says which.
    pub logs: u32,
}

impl Judgement {
    /// What a program that isn't there makes of a packet.
    pub const NO_PROGRAM: Judgement = Judgement { verdict: Verdict::Deny, rule: RuleId::NONE, logs: 0 };
}

/// How much a compiler takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Different programs, at most [`Self::PROGRAMS_MAX`].
    pub programs: usize,
    /// Rules and defaults of all programs.
    pub rules: usize,
    /// Members of all sets, and networks that rules name themselves.
    pub members: usize,
    /// Bytes of all programs.
    pub bytes: usize,
}

impl Limits {
    /// No policy at all.
    pub const NONE: Limits = Limits { programs: 0, rules: 0, members: 0, bytes: 0 };
    /// What the writer remembers of a rule: the rule itself with short lists, its step, and its conditions.
    const RULE_BYTES: usize = 768;

    /// The most memory that policy of these limits takes.
    pub fn bytes(&self) -> usize {
        addresses::Addresses::bytes_for(self.members) + self.rules * Limits::RULE_BYTES + self.bytes
    }

    /// Programs at most: a rule's number has 12 bits for its program.
    pub const PROGRAMS_MAX: usize = (1 << (u32::BITS - RuleId::STEP_BITS)) - 1;
}

/// A limit is reached; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Different programs.
    #[error("policy has {limit} different programs already")]
    Programs {
        /// The limit.
        limit: usize,
    },
    /// Rules of all programs, or steps of one: at most 1,048,575.
    #[error("policy has {limit} rules already")]
    Rules {
        /// The limit.
        limit: usize,
    },
    /// Members of all sets.
    #[error("the sets of policy have {limit} members already")]
    Members {
        /// The limit.
        limit: usize,
    },
}

/// What of a compiler's limits is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Different programs.
    pub programs: usize,
    /// Programs among them that deny everything, for want of room in [`Limits::bytes`].
    pub denying: usize,
    /// Programs among them most of whose rules lie with the addresses that they are about.
    pub by_address: usize,
    /// Rules and defaults of all programs.
    pub rules: usize,
    /// Members of all sets, and networks that rules name.
    pub members: usize,
    /// Classes of addresses that are told apart.
    pub classes: usize,
    /// Prefixes that found no class, because there are more than can be told apart: programs that ask for addresses deny
    /// them.
    pub unknown: usize,
    /// Bytes of all programs, as of the last publication.
    pub bytes: usize,
}
