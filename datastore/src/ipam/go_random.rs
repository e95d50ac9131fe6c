//! Go's `math/rand` as Calico seeds it: an additive lagged Fibonacci generator,
//!
//! ```text
//! x(n) = x(n − 607) + x(n − 273)  mod 2^64
//! ```
//!
//! so that this program and Calico's own on one node begin their search for a block at the same one, and don't end up with two
//! where one will do. What is added to a seed is the generator's state after 7.8 · 10^12 numbers; as the recurrence is linear,
//! that state is reached by powers of x modulo x^607 − x^334 − 1, in milliseconds.

use std::sync::OnceLock;

const LEN: usize = 607;
const TAP: usize = 273;
/// The modulus of the generator that fills the state of this one, and its multiplier (Park and Miller).
const SEED_MODULUS: i64 = (1 << 31) - 1;
const SEED_MULTIPLIER: i64 = 48_271;
/// Numbers of that generator that go by before the first is used.
const SEED_SKIPPED: usize = 20;
/// What stands for a seed of zero, which that generator can't leave.
const SEED_OF_ZERO: i64 = 89_482_311;
/// How many numbers of the generator seeded by 1 lie before the state that seeds are mixed with.
const COOKED_AFTER: u64 = 7_800_000_000_000;

/// A source of random numbers, as `rand.New(rand.NewSource(seed))`.
#[derive(Clone, Debug)]
pub(super) struct GoRandom {
    state: Vec<u64>,
    tap: usize,
    feed: usize,
}

impl GoRandom {
    pub(super) fn new(seed: i64) -> GoRandom {
        let mut state = seeded(seed, [40, 20]);
        for (number, cooked) in state.iter_mut().zip(cooked()) {
            *number ^= cooked;
        }
        GoRandom { state, tap: 0, feed: LEN - TAP }
    }

    fn next(&mut self) -> u64 {
        self.tap = (self.tap + LEN - 1) % LEN;
        self.feed = (self.feed + LEN - 1) % LEN;
        let number = self.state[self.feed].wrapping_add(self.state[self.tap]);
        self.state[self.feed] = number;
        number
    }

    /// `rand.Uint32`: 32 bits from the upper end of 63.
    fn uint32(&mut self) -> u32 {
        ((self.next() & (u64::MAX >> 1)) >> 31) as u32
    }

    /// A number below `limit`, as `big.Int.Rand` draws it on a 64-bit machine: word by word, again while it is too large.
    pub(super) fn below(&mut self, limit: u128) -> u128 {
        let bits = 128 - limit.leading_zeros();
        if bits == 0 {
            return 0;
        }
        let words = bits.div_ceil(64);
        loop {
            let mut number = 0u128;
            for word in 0..words {
                let low = u64::from(self.uint32());
                let high = u64::from(self.uint32());
                number |= u128::from(low | high << 32) << (64 * word);
            }
            number &= u128::MAX >> (128 - bits);
            if number < limit {
                return number;
            }
        }
    }
}

/// State filled from a seed: three numbers of the small generator each, laid over each other at these shifts.
fn seeded(seed: i64, shifts: [u32; 2]) -> Vec<u64> {
    let mut x = match seed.rem_euclid(SEED_MODULUS) {
        0 => SEED_OF_ZERO,
        x => x,
    };
    let mut next = || {
        x = x * SEED_MULTIPLIER % SEED_MODULUS;
        // Within 1..2^31 − 1.
        x as u64
    };
    for _ in 0..SEED_SKIPPED {
        next();
    }
    (0..LEN).map(|_| next() << shifts[0] ^ next() << shifts[1] ^ next()).collect()
}

/// The state that seeds are mixed with.
fn cooked() -> &'static [u64] {
    static COOKED: OnceLock<Vec<u64>> = OnceLock::new();
    COOKED.get_or_init(|| after(&seeded(1, [20, 10]), COOKED_AFTER))
}

/// The state after `count` numbers.
///
/// Number n is written at place (333 − n) mod 607, so what stands there at first is number n − 607.
fn after(state: &[u64], count: u64) -> Vec<u64> {
    let place = |n: i128| (333 - n).rem_euclid(LEN as i128) as usize;
    let first: Vec<u64> = (0..LEN as i128).map(|n| state[place(n)]).collect();
    // x^n stands for number n − 607.
    let mut power = power_of_x(count);
    let mut later = vec![0; LEN];
    for n in 0..LEN as i128 {
        let number = power.iter().zip(&first).fold(0u64, |sum, (c, x)| sum.wrapping_add(c.wrapping_mul(*x)));
        later[place(i128::from(count) + n)] = number;
        power = times_x(power);
    }
    later
}

/// x^n, reduced.
fn power_of_x(n: u64) -> Vec<u64> {
    let mut power = vec![0; LEN];
    power[0] = 1;
    for bit in (0..64 - n.leading_zeros()).rev() {
        power = squared(&power);
        if n >> bit & 1 == 1 {
            power = times_x(power);
        }
    }
    power
}

fn times_x(mut polynomial: Vec<u64>) -> Vec<u64> {
    polynomial.insert(0, 0);
    reduced(polynomial)
}

fn squared(polynomial: &[u64]) -> Vec<u64> {
    let mut product = vec![0u64; 2 * LEN - 1];
    for (i, a) in polynomial.iter().enumerate() {
        for (place, b) in product[i..].iter_mut().zip(polynomial) {
            *place = place.wrapping_add(a.wrapping_mul(*b));
        }
    }
    reduced(product)
}

/// Modulo x^607 − x^334 − 1.
fn reduced(mut polynomial: Vec<u64>) -> Vec<u64> {
    for place in (LEN..polynomial.len()).rev() {
        let c = polynomial[place];
        for lower in [place - LEN, place - TAP] {
            polynomial[lower] = polynomial[lower].wrapping_add(c);
        }
    }
    polynomial.truncate(LEN);
    polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_go() {
        // `rand.New(rand.NewSource(1)).Int63()`, three times: the numbers of every Go tutorial.
        let mut random = GoRandom::new(1);
        let int63: Vec<u64> = (0..3).map(|_| random.next() & (u64::MAX >> 1)).collect();
        assert_eq!(int63, [5_577_006_791_947_779_410, 8_674_665_223_082_153_551, 6_129_484_611_666_145_821]);
    }

    #[test]
    fn a_leap_is_as_many_steps() {
        let mut random = GoRandom { state: seeded(7, [20, 10]), tap: 0, feed: LEN - TAP };
        let start = random.state.clone();
        for _ in 0..2_000 {
            random.next();
        }
        assert_eq!(random.state, after(&start, 2_000));
    }

    #[test]
    fn numbers_below_a_limit_are_below_it() {
        let mut random = GoRandom::new(42);
        for limit in [1, 2, 3, 1024, 1 << 74, u128::MAX] {
            for _ in 0..50 {
                assert!(random.below(limit) < limit);
            }
        }
        assert_eq!(random.below(0), 0);
    }
}
