//! Rules that ask for both ends: by the pair of positions that a packet's ends have.
//!
//! All addresses that meet the same of what such rules ask of an end have one position there. A position has a *share* in the
//! places of its pairs: both shares added up name the bucket, a chain of blocks, that the pair's rules are in, and their key
//! in it. Positions of one end have keys of their own, and buckets as chance will have it; those of the other end are told
//! apart by the bucket. So a packet reads one block, and no pair is taken for another.

use std::collections::HashMap;

use ahash::RandomState;

use super::blocks::{Asked, Block, Blocks, KEYS, Lane, Rank};
use super::processor::Processor;

/// Lanes in a bucket, on average: with two of four, one bucket of twenty goes on elsewhere.
const LANES_A_BUCKET: usize = 2;
/// Bits of buckets more than that takes, for keys that are too long otherwise.
const MORE_BITS: u32 = 3;

/// Where a pair's rules are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) bucket: u32,
    pub(super) key: u16,
}

/// What a position adds to the place of a pair: the bucket's number in the lowest bits, the key above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share(pub(super) u64);

impl Share {
    /// Bits of two shares added up.
    pub(super) const BITS: u32 = KEY_AT + KEYS.ilog2();
}

/// Bits of buckets' numbers at most.
const BUCKET_BITS: u32 = 24;
/// Where the key begins: two numbers of buckets, added up, don't reach it.
const KEY_AT: u32 = BUCKET_BITS + 1;

/// How positions become shares.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mixing {
    /// Bits of the positions of each end.
    positions: [u32; 2],
    /// Bits of a bucket's number.
    buckets: u32,
}

impl Mixing {
    /// For so many positions of source and destination, and so many lanes; `None` where keys would be too long.
    pub(super) fn new(positions: [usize; 2], lanes: usize) -> Option<Mixing> {
        let positions = positions.map(|count| usize::BITS - count.saturating_sub(1).leading_zeros());
        let pair = positions[0] + positions[1];
        let wanted = (lanes / LANES_A_BUCKET).max(1).ilog2();
        let buckets = wanted.max(pair.saturating_sub(KEYS.ilog2())).min(pair);
        let mixing = Mixing { positions, buckets };
        let fits =
            positions[mixing.keyed()] <= KEYS.ilog2() && buckets <= BUCKET_BITS.min(wanted + MORE_BITS);
        fits.then_some(mixing)
    }

    /// The end that keys tell apart: the one with fewer positions.
    fn keyed(self) -> usize {
        usize::from(self.positions[1] < self.positions[0])
    }

    /// The share of an end's position.
    pub(super) fn share(self, end: usize, position: u16) -> Share {
        let (position, keyed) = (u64::from(position), self.keyed());
        if end == keyed {
            return Share(scattered(position) & self.bucket_mask() | position << KEY_AT);
        }
        // A permutation, so no two positions have both, bucket and what no bucket has room for.
        let mixed = mixed(position, self.positions[end]);
        Share(mixed & self.bucket_mask() | (mixed >> self.buckets) << (KEY_AT + self.positions[keyed]))
    }

    fn bucket_mask(self) -> u64 {
        (1 << self.buckets) - 1
    }
}

/// Two permutations of the numbers of so many bits: a product with an odd number, and upper bits laid on lower ones.
fn mixed(number: u64, bits: u32) -> u64 {
    let product = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & ((1 << bits) - 1);
    product ^ product >> (bits / 2 + 1)
}

/// A number that looks random (SplitMix64; Steele, Lea, Flood 2014).
fn scattered(number: u64) -> u64 {
    let number = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The rules of all pairs.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    /// All bits of buckets' numbers.
    mask: u32,
    /// Buckets, and behind them what finds no room there.
    blocks: Blocks,
}

impl Pairs {
    /// Of no rule.
    pub(super) fn none() -> Pairs {
        Pairs { mask: 0, blocks: Blocks::never(1) }
    }

    /// Of lanes by the pair of positions that they are asked at; `None` where they are more than can be numbered.
    pub(super) fn new(mixing: Mixing, lanes: HashMap<[u16; 2], Vec<Lane>, RandomState>) -> Option<Pairs> {
        let mut pairs =
            Pairs { mask: mixing.bucket_mask() as u32, blocks: Blocks::never(1 << mixing.buckets) };
        let mut keyed = Vec::new();
        for ([source, destination], lanes) in lanes {
            let place = pairs.place(mixing.share(0, source).0.wrapping_add(mixing.share(1, destination).0));
            keyed.extend(lanes.into_iter().map(|lane| (place, lane)));
        }
        keyed.sort_unstable_by_key(|(place, lane)| (place.bucket, lane.rank, place.key));
        for bucket in keyed.chunk_by(|(a, _), (b, _)| a.bucket == b.bucket) {
            let lanes: Vec<(Lane, u16)> = bucket.iter().map(|(place, lane)| (*lane, place.key)).collect();
            pairs.blocks.put(bucket[0].0.bucket as usize, &lanes, 0)?;
        }
        Some(Pairs { blocks: pairs.blocks.fitted(), ..pairs })
    }

    /// Where the rules of a pair are: by the sum of both shares.
    #[inline(always)]
    pub(super) fn place(&self, sum: u64) -> Place {
        Place { bucket: sum as u32 & self.mask, key: (sum >> KEY_AT) as u16 % KEYS }
    }

    /// Asks for a pair's bucket, so that it is near when it is read.
    #[inline(always)]
    pub(super) fn prefetch(&self, bucket: u32) {
        self.blocks.prefetch(bucket);
    }

    /// The block where a pair's bucket begins: there is one.
    #[inline(always)]
    pub(super) fn get(&self, bucket: u32) -> Option<&Block> {
        self.blocks.get(bucket)
    }

    /// All blocks, those of buckets first, by number.
    pub(super) fn blocks(&self) -> &[Block] {
        self.blocks.all()
    }

    /// As [`Blocks::next`].
    #[inline(always)]
    pub(super) fn next(&self, begin: &Block, number: u16) -> (&Block, bool) {
        self.blocks.next(begin, number)
    }

    /// As [`Blocks::matching`].
    pub(super) fn matching(
        &self,
        processor: impl Processor,
        bucket: u32,
        asked: Asked,
    ) -> impl Iterator<Item = Rank> {
        self.blocks.matching(processor, bucket, asked)
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_pairs_have_one_place() {
        let both =
            [(1, 1), (2, 1), (1, 2), (3, 5), (300, 200), (7, 1_000), (1, 60_000), (60_000, 1), (1_000, 900)];
        for (sources, destinations) in both {
            for lanes in [1, 100, 10_000, 1_000_000] {
                let Some(mixing) = Mixing::new([sources, destinations], lanes) else { continue };
                let pairs = Pairs::new(mixing, HashMap::default()).expect("room");
                // With what leads have above it.
                let share = |end, position| mixing.share(end, position).0 | 3 << Share::BITS;
                let positions =
                    (0..sources as u16).flat_map(|a| (0..destinations as u16).map(move |b| [a, b]));
                let places: HashSet<_> =
                    positions.map(|[a, b]| pairs.place(share(0, a) + share(1, b))).collect();
                assert_eq!(places.len(), sources * destinations, "{sources} {destinations} {lanes}");
                assert!(places.iter().all(|place| place.key < KEYS && place.bucket >> mixing.buckets == 0));
            }
        }
        assert!(Mixing::new([60_000, 60_000], 10_000).is_none(), "a key would be too long");
    }
}
