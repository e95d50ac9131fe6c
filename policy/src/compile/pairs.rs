//! Rules that ask for both ends: by the pair of positions that a packet's ends have.
//!
//! All addresses that meet the same of what such rules ask of an end have one position there. A pair of positions is a number
//! of so many bits, mixed so that each number comes from one pair; its upper bits name the bucket, a chain of blocks, that the
//! pair's rules are in, and the others are their key in it. So a packet reads one block, and no pair is taken for another.

use std::collections::HashMap;

use ahash::RandomState;

use super::blocks::{Asked, Block, Blocks, KEYS, Lane, Rank};
use super::processor::Processor;

/// Lanes in a bucket, on average: with two of four, one bucket of twenty goes on elsewhere.
const LANES_A_BUCKET: usize = 2;
/// Bits of buckets more than that takes, for keys that are too long otherwise.
const MORE_BITS: u32 = 3;

/// Where a pair's rules are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) bucket: u32,
    pub(super) key: u16,
}

/// How pairs are mixed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixing {
    /// Bits of the destination's position.
    destination: u32,
    /// Bits of both, and all of them set.
    pair: u32,
    mask: u64,
    /// How far upper bits are laid on lower ones.
    shift: u32,
    /// Bits of a key.
    key: u32,
}

impl Mixing {
    /// For so many positions of source and destination, and so many lanes; `None` where keys would be too long.
    pub(super) fn new(positions: [usize; 2], lanes: usize) -> Option<Mixing> {
        let [source, destination] =
            positions.map(|count| usize::BITS - count.saturating_sub(1).leading_zeros());
        let pair = source + destination;
        let wanted = (lanes / LANES_A_BUCKET).max(1).ilog2();
        let buckets = wanted.max(pair.saturating_sub(KEYS.ilog2())).min(pair);
        (buckets <= wanted + MORE_BITS).then(|| Mixing::of(destination, pair, pair - buckets))
    }

    fn of(destination: u32, pair: u32, key: u32) -> Mixing {
        Mixing { destination, pair, mask: (1 << pair) - 1, shift: pair / 2 + 1, key }
    }

    /// Each step is a permutation of the numbers of so many bits: a product with an odd number, and bits laid on lower ones.
    #[inline(always)]
    fn place(self, [source, destination]: [u16; 2]) -> Place {
        let pair = u64::from(source) << self.destination | u64::from(destination);
        let mixed = pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) & self.mask;
        let mixed = mixed ^ mixed >> self.shift;
        let mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) & self.mask;
        Place { bucket: (mixed >> self.key) as u32, key: (mixed & ((1 << self.key) - 1)) as u16 }
    }
}

/// The rules of all pairs.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    mixing: Mixing,
    /// Buckets, and behind them what finds no room there.
    blocks: Blocks,
}

impl Pairs {
    /// Of no rule.
    pub(super) fn none() -> Pairs {
        Pairs { mixing: Mixing::of(0, 0, 0), blocks: Blocks::never(1) }
    }

    /// Of lanes by the pair of positions that they are asked at; `None` where they are more than can be numbered.
    pub(super) fn new(mixing: Mixing, lanes: HashMap<[u16; 2], Vec<Lane>, RandomState>) -> Option<Pairs> {
        let mut keyed: Vec<(Place, Lane)> = lanes
            .into_iter()
            .flat_map(|(pair, lanes)| lanes.into_iter().map(move |lane| (mixing.place(pair), lane)))
            .collect();
        keyed.sort_unstable_by_key(|(place, lane)| (place.bucket, lane.rank, place.key));
        let mut blocks = Blocks::never(1 << (mixing.pair - mixing.key));
        for bucket in keyed.chunk_by(|(a, _), (b, _)| a.bucket == b.bucket) {
            let lanes: Vec<(Lane, u16)> = bucket.iter().map(|(place, lane)| (*lane, place.key)).collect();
            blocks.put(bucket[0].0.bucket as usize, &lanes, 0)?;
        }
        Some(Pairs { mixing, blocks: blocks.fitted() })
    }

    /// Where the rules of a pair are.
    #[inline(always)]
    pub(super) fn place(&self, positions: [u16; 2]) -> Place {
        self.mixing.place(positions)
    }

    /// Asks for a pair's bucket, so that it is near when it is read.
    #[inline(always)]
    pub(super) fn prefetch(&self, place: Place) {
        self.blocks.prefetch(place.bucket);
    }

    /// The block where a pair's bucket begins.
    #[inline(always)]
    pub(super) fn begin(&self, place: Place) -> &Block {
        self.blocks.begin(place.bucket)
    }

    /// As [`Blocks::next`].
    #[inline(always)]
    pub(super) fn next(&self, begin: &Block, number: u16) -> (&Block, bool) {
        self.blocks.next(begin, number)
    }

    /// As [`Blocks::all`].
    pub(super) fn all(
        &self,
        processor: impl Processor,
        place: Place,
        asked: Asked,
    ) -> impl Iterator<Item = Rank> {
        self.blocks.all(processor, place.bucket, asked.under(place.key))
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
        for (sources, destinations) in [(1, 1), (2, 1), (1, 2), (3, 5), (300, 200), (7, 1_000), (1, 60_000)] {
            for lanes in [1, 100, 1_000_000] {
                let Some(mixing) = Mixing::new([sources, destinations], lanes) else { continue };
                let pairs = (0..sources as u16).flat_map(|a| (0..destinations as u16).map(move |b| [a, b]));
                let places: HashSet<_> =
                    pairs.map(|pair| mixing.place(pair)).map(|place| (place.bucket, place.key)).collect();
                assert_eq!(places.len(), sources * destinations, "{sources} {destinations} {lanes}");
                assert!(places.iter().all(|(_, key)| *key < KEYS));
            }
        }
        assert!(Mixing::new([60_000, 60_000], 10_000).is_none(), "a key would be too long");
    }
}
