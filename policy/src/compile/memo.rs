//! Judgements that a worker remembers: packets with the same rows are the same to a program.
//!
//! Not flows but kinds of flows: all pods of one deployment that call one service are one entry. An entry is named by the
//! program's serial number and the rows, so it stays true through publications that leave the program as it is, whoever
//! joins or leaves a set; a program that is made anew has another number.

use super::compiled::Scratch;
use super::program::PacketRows;
use super::{Judgement, RuleId};
use crate::judge::Verdict;

/// A worker's memory of judgements. It belongs to one worker, and takes [`Memo::BYTES`].
#[derive(Clone, Debug)]
pub struct Memo {
    pub(super) remembered: Remembered,
    pub(super) scratch: Box<Scratch>,
}

#[derive(Clone, Debug)]
pub(super) struct Remembered(Box<[Entry; ENTRIES]>);

/// Enough for the pairs of workloads that a node's new flows are between, and half of a second-level cache.
const ENTRIES: usize = 1 << 14;

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Entry {
    key: Key,
    /// 0 is no program's.
    serial: u64,
    rule: RuleId,
    /// How many logs, and above them the verdict.
    logs: u32,
}

const _: () = assert!(size_of::<Entry>() == 32);

const LOGS_BITS: u32 = 30;

/// A packet's rows. In two numbers, which are made in registers: rows that have just been stored one by one can't be read as
/// one before they have left the core.
type Key = [u64; 2];

#[inline(always)]
fn key(rows: &PacketRows) -> Key {
    let [a, b, c, d] = rows.0.map(u64::from);
    [a << 32 | b, c << 32 | d]
}

impl Memo {
    /// Bytes that one takes.
    pub const BYTES: usize = ENTRIES * size_of::<Entry>() + size_of::<Scratch>();

    /// One that remembers nothing.
    pub fn new() -> Memo {
        let entries = vec![Entry::default(); ENTRIES].into_boxed_slice();
        let entries = entries.try_into().unwrap_or_else(|_| unreachable!("as many as there are"));
        Memo { remembered: Remembered(entries), scratch: Box::new(Scratch::new()) }
    }
}

/// What is known of packets that were judged before.
pub(super) trait Memory {
    /// The judgements of a program on packets with these rows; a bit for each that isn't known.
    fn recall(&self, serial: u64, rows: &[PacketRows], out: &mut [Judgement]) -> u64;

    /// Remembers it, in the place of another one.
    fn remember(&mut self, serial: u64, rows: &PacketRows, judgement: Judgement);
}

/// Who remembers nothing.
pub(super) struct Forgetful;

impl Memory for Forgetful {
    #[inline(always)]
    fn recall(&self, _: u64, _: &[PacketRows], _: &mut [Judgement]) -> u64 {
        !0
    }

    #[inline(always)]
    fn remember(&mut self, _: u64, _: &PacketRows, _: Judgement) {}
}

impl Memory for &mut Remembered {
    #[inline(always)]
    fn recall(&self, serial: u64, rows: &[PacketRows], out: &mut [Judgement]) -> u64 {
        let mut unknown = 0;
        for (number, (rows, out)) in rows.iter().zip(out).enumerate() {
            let key = key(rows);
            let entry = &self.0[place(serial, key)];
            if entry.serial ^ serial | entry.key[0] ^ key[0] | entry.key[1] ^ key[1] != 0 {
                unknown |= 1 << number;
                continue;
            }
            let verdict = match entry.logs >> LOGS_BITS {
                0 => Verdict::Allow,
                1 => Verdict::Deny,
                _ => Verdict::NoMatch,
            };
            *out = Judgement { verdict, rule: entry.rule, logs: entry.logs & ((1 << LOGS_BITS) - 1) };
        }
        unknown
    }

    #[inline(always)]
    fn remember(&mut self, serial: u64, rows: &PacketRows, judgement: Judgement) {
        let verdict = match judgement.verdict {
            Verdict::Allow => 0,
            Verdict::Deny => 1,
            Verdict::NoMatch => 2u32,
        };
        let logs = judgement.logs | verdict << LOGS_BITS;
        let key = key(rows);
        self.0[place(serial, key)] = Entry { key, serial, rule: judgement.rule, logs };
    }
}

impl Default for Memo {
    fn default() -> Memo {
        Memo::new()
    }
}

/// Where an entry would be. Who makes packets that meet there only makes it forget.
#[inline(always)]
fn place(serial: u64, [a, b]: Key) -> usize {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15)
        * u128::from(b ^ serial.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ 0x94d0_49bb_1331_11eb);
    (product as u64 ^ (product >> 64) as u64) as usize % ENTRIES
}
