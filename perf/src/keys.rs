//! Addresses to ask for, the same in every run.

pub use lab::numbers::Numbers;
use lpm::Key;

use crate::data::Prefixes;

/// A random address.
pub fn any<K: Key>(numbers: &mut Numbers) -> K {
    K::from_words(if K::BITS == 32 { [numbers.next() >> 32, 0] } else { [numbers.next(), numbers.next()] })
}

/// How addresses are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Any address of the family; for IPv6 within 2000::/3, where most are in no prefix: told for completeness only.
    Uniform,
    /// A random prefix of the table, random bits behind it: every prefix equally hot.
    Table,
    /// 65,536 such addresses, the n-th asked for 1/n as often as the first (Zipf, s = 1).
    Zipf,
}

impl Mix {
    /// All of them.
    pub const ALL: [Mix; 3] = [Mix::Uniform, Mix::Table, Mix::Zipf];

    /// Its name in tables and records.
    pub fn name(self) -> &'static str {
        match self {
            Mix::Uniform => "uniform",
            Mix::Table => "table",
            Mix::Zipf => "zipf64k",
        }
    }
}

/// Flows of [`Mix::Zipf`].
pub const ZIPF_FLOWS: usize = 65_536;

/// `count` addresses.
pub fn draw<K: Key>(mix: Mix, prefixes: &Prefixes<K>, count: usize) -> Vec<K> {
    let mut numbers = Numbers::new(7);
    match mix {
        Mix::Uniform => (0..count).map(|_| uniform(&mut numbers)).collect(),
        Mix::Table => (0..count).map(|_| inside(prefixes, &mut numbers)).collect(),
        Mix::Zipf => {
            let flows: Vec<K> = (0..ZIPF_FLOWS).map(|_| inside(prefixes, &mut numbers)).collect();
            zipf(ZIPF_FLOWS, count, &mut numbers).into_iter().map(|flow| flows[flow as usize]).collect()
        }
    }
}

/// `count` numbers below `flows`, number n drawn 1/(n+1) as often as number 0.
pub fn zipf(flows: usize, count: usize, numbers: &mut Numbers) -> Vec<u32> {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=flows)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    (0..count)
        .map(|_| {
            let at = numbers.next() as f64 / u64::MAX as f64 * sum;
            cumulative.partition_point(|edge| *edge < at).min(flows - 1) as u32
        })
        .collect()
}

fn uniform<K: Key>(numbers: &mut Numbers) -> K {
    let key: K = any(numbers);
    if K::BITS == 32 {
        key
    } else {
        K::ZERO.or_bits(0, 3, 1).or_bits(3, 32, key.bits(3, 32)).or_bits(35, 29, key.bits(35, 29))
    }
}

/// A random address inside a random prefix.
pub fn inside<K: Key>(prefixes: &Prefixes<K>, numbers: &mut Numbers) -> K {
    let (addr, len) = prefixes[numbers.below(prefixes.len())];
    let [high, low] = addr.to_words();
    let random: K = any(numbers);
    let [keep_high, keep_low] = random.masked(len).to_words();
    let [random_high, random_low] = random.to_words();
    K::from_words([high | (random_high ^ keep_high), low | (random_low ^ keep_low)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_drawn_inside_a_prefix_is_inside() {
        let prefixes = vec![(0x0a00_0000u32, 8), (0xc0a8_0000, 16)];
        let mut numbers = Numbers::new(3);
        for _ in 0..100 {
            let key = inside(&prefixes, &mut numbers);
            assert!(prefixes.iter().any(|(addr, len)| key.masked(*len) == *addr), "{key:x}");
        }
    }

    #[test]
    fn the_second_flow_is_asked_for_half_as_often_as_the_first() {
        let drawn = zipf(1000, 200_000, &mut Numbers::new(5));
        let count = |flow| drawn.iter().filter(|drawn| **drawn == flow).count() as f64;
        assert!((1.8..2.2).contains(&(count(0) / count(1))));
    }
}
