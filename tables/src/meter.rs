//! A token bucket that all workers draw from.
//!
//! One number says all: the theoretical arrival time of the generic cell rate algorithm (ITU-T I.371 Annex A), which is
//! when the bucket will be full again. Tokens are time: a packet costs the time in which its bits come back, and passes
//! where the bucket would then be full no later than the bucket's depth from now. It is an atomic, changed by one
//! compare-exchange for all packets of a run, so any number of workers together never pass more than
//! depth + rate × time.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// Parts of a nanosecond that a meter's time is counted in. A frame's bits at 100 Gbit/s are some 8,000 of them, and 63
/// bits last for four years.
const PER_NANOSECOND: u64 = 64;
/// A second, in those parts.
const SECOND: u128 = 1_000_000_000 * PER_NANOSECOND as u128;
/// Binary digits behind the point of a token's cost.
const FRACTION: u32 = 24;
/// No bucket is deeper, so that sums of times don't overflow.
const DEEPEST: u128 = 1 << 62;

/// A moment of a clock that all workers share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MeterTime(u64);

impl MeterTime {
    /// So many nanoseconds after the clock's beginning, whenever that was.
    pub fn from_nanos(nanos: u64) -> MeterTime {
        MeterTime(nanos.saturating_mul(PER_NANOSECOND))
    }
}

/// What a meter allows: a rate and a depth, both above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Bits a second, and bits at once.
    Bits {
        /// Bits a second.
        rate: u64,
        /// Bits.
        depth: u64,
    },
    /// Packets a second, and packets at once.
    Packets {
        /// Packets a second.
        rate: u64,
        /// Packets.
        depth: u64,
    },
}

/// A token bucket. It begins full.
#[derive(Debug)]
pub struct Meter {
    allowance: Allowance,
    /// What a byte (or a packet) costs, in parts of a nanosecond, with [`FRACTION`] binary digits behind the point. Rounded
    /// up, so that the rate is never exceeded.
    cost: u64,
    /// How far ahead the bucket's being full may lie.
    depth: u64,
    level: CachePadded<Level>,
}

#[derive(Debug, Default)]
struct Level {
    /// When the bucket is full again; in the past where it is full.
    full_at: AtomicU64,
    /// When somebody drew from it last: no clock but the workers' is asked when an allowance changes.
    drawn_at: AtomicU64,
}

impl Meter {
    /// A full bucket.
    pub fn new(allowance: Allowance) -> Meter {
        let (rate, depth, per_size) = match allowance {
            Allowance::Bits { rate, depth } => (rate, depth, 8),
            Allowance::Packets { rate, depth } => (rate, depth, 1),
        };
        let rate = u128::from(rate.max(1));
        let cost = ((SECOND * per_size) << FRACTION).div_ceil(rate);
        // One part more than it takes, so that rounding doesn't keep out a packet as large as the bucket.
        let depth = ((u128::from(depth) * SECOND).div_ceil(rate) + 1).min(DEEPEST);
        Meter {
            allowance,
            cost: u64::try_from(cost).unwrap_or(u64::MAX),
            depth: depth as u64,
            level: CachePadded::default(),
        }
    }

    /// A bucket from which as much is missing as from another one, as far as it goes: a new allowance is no new burst.
    pub fn following(allowance: Allowance, before: &Meter) -> Meter {
        let meter = Meter::new(allowance);
        let drawn_at = before.level.drawn_at.load(Ordering::Relaxed);
        let missing = before.level.full_at.load(Ordering::Relaxed).saturating_sub(drawn_at);
        let missing = u128::from(missing) * u128::from(meter.cost) / u128::from(before.cost.max(1));
        let missing = missing.min(u128::from(meter.depth)) as u64;
        meter.level.drawn_at.store(drawn_at, Ordering::Relaxed);
        meter.level.full_at.store(drawn_at.saturating_add(missing), Ordering::Relaxed);
        meter
    }

    /// What it allows.
    pub fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Asks for packets of these sizes in bytes, in order: at most 64, those whose bit is set in `asked`. Takes the tokens
    /// of each that passes, and says which do.
    pub fn draw(&self, now: MeterTime, sizes: &[u32], asked: u64) -> u64 {
        let full_at = &self.level.full_at;
        let mut seen = full_at.load(Ordering::Relaxed);
        loop {
            let (next, passed) = self.judge(seen, now.0, sizes, asked);
            if passed == 0 {
                return 0;
            }
            match full_at.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.level.drawn_at.store(now.0, Ordering::Relaxed);
                    return passed;
                }
                Err(other) => seen = other,
            }
        }
    }

    /// Gives back the tokens of packets that passed here and were refused elsewhere.
    pub fn give_back(&self, sizes: &[u32], returned: u64) {
        let cost: u64 = rows(sizes, returned).map(|(_, size)| self.cost_of(size)).sum();
        self.level.full_at.fetch_sub(cost, Ordering::Relaxed);
    }

    fn judge(&self, full_at: u64, now: u64, sizes: &[u32], asked: u64) -> (u64, u64) {
        // A bucket is never more than full nor less than empty, whatever a clock or an older allowance left.
        let latest = now.saturating_add(self.depth);
        let mut full_at = full_at.clamp(now, latest);
        let mut passed = 0;
        for (bit, size) in rows(sizes, asked) {
            let after = full_at.saturating_add(self.cost_of(size));
            if after <= latest {
                full_at = after;
                passed |= bit;
            }
        }
        (full_at, passed)
    }

    fn cost_of(&self, size: u32) -> u64 {
        let tokens = match self.allowance {
            Allowance::Bits { .. } => size,
            Allowance::Packets { .. } => 1,
        };
        let cost = (u128::from(tokens) * u128::from(self.cost)).div_ceil(1 << FRACTION);
        u64::try_from(cost).unwrap_or(u64::MAX)
    }
}

/// The sizes whose bit is set, with their bit.
fn rows(sizes: &[u32], asked: u64) -> impl Iterator<Item = (u64, u32)> {
    let bits = (0..u64::BITS).map(|row| 1 << row);
    bits.zip(sizes).filter(move |(bit, _)| asked & bit != 0).map(|(bit, size)| (bit, *size))
}

#[cfg(test)]
mod tests;
