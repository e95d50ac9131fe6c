//! What a plain loop that reads memory for each address does, and nothing besides.
//!
//! A table larger than the caches is as fast as these are in that hour, and on a machine that is shared they are others'
//! too. So floors stand beside the look-ups, in turn with ours. They are no bounds: loads into vectors can do better.

use std::ops::Range;

use perf::keys::Numbers;

/// Memory, and the place in it that belongs to each address.
pub(super) struct Floor {
    memory: Vec<u8>,
    places: Vec<u32>,
}

impl Floor {
    /// So much memory, over which the addresses are spread; equal ones have one place, so what is asked for often is near.
    /// `bytes` are 4 GiB at most.
    pub(super) fn spread(bytes: usize, keys: &[u32]) -> Floor {
        Floor::new(bytes, keys.iter().map(|key| Numbers::new((*key).into()).below(bytes) as u32))
    }

    /// A flat table: so many bytes for each number that the first `bits` of an address make.
    pub(super) fn flat(width: u32, bits: u32, keys: &[u32]) -> Floor {
        Floor::new((width as usize) << bits, keys.iter().map(|key| (key >> (32 - bits)) * width))
    }

    fn new(bytes: usize, places: impl Iterator<Item = u32>) -> Floor {
        let memory = vec![1; bytes];
        let Range { start, end } = memory.as_ptr_range();
        // As our tables are, and DPDK's.
        afxdp::prefer_huge_pages(start.addr()..end.addr());
        Floor { memory, places: places.collect() }
    }

    /// Reads once for each address; says how many they are.
    pub(super) fn read(&self) -> usize {
        self.read_with(|_| 0)
    }

    /// Reads once here and once there for each address, neither waiting for the other; says how many they are.
    pub(super) fn read_both(&self, other: &Floor) -> usize {
        self.read_with(|number| other.at(number))
    }

    #[inline(always)]
    fn read_with(&self, more: impl Fn(usize) -> u32) -> usize {
        let sum = (0..self.places.len()).map(|number| self.at(number) + more(number)).sum::<u32>();
        std::hint::black_box(sum);
        self.places.len()
    }

    #[inline(always)]
    fn at(&self, number: usize) -> u32 {
        let byte = self.places.get(number).and_then(|place| self.memory.get(*place as usize));
        byte.copied().unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_places() {
        let keys: Vec<u32> = (0..10_000).chain(0..10_000).collect();
        let spread = Floor::spread(1 << 20, &keys);
        let (first, again) = spread.places.split_at(10_000);
        assert_eq!(first, again);
        let mut quarters = [0; 4];
        first.iter().for_each(|place| quarters[(place >> 18) as usize] += 1);
        assert!(quarters.iter().all(|count| (2_300..2_700).contains(count)), "{quarters:?}");
        let flat = |width, bits| Floor::flat(width, bits, &[0, 0x0a00_01ff, u32::MAX]);
        assert_eq!(flat(2, 24).places, [0, 0x14_0002, 0x1ff_fffe]);
        assert_eq!((flat(4, 16).places, flat(4, 16).memory.len()), (vec![0, 0x2800, 0x3_fffc], 1 << 18));
        assert_eq!((spread.read(), spread.read_both(&spread)), (keys.len(), keys.len()));
    }
}
