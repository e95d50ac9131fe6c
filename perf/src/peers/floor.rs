//! What one read of memory costs for each address, and nothing besides: what no look-up in such a table can beat.
//!
//! A table larger than the caches is as fast as these are in that hour, and on a machine that is shared they are others'
//! too. So floors stand beside the look-ups, in turn with ours.

use std::ops::Range;

use perf::keys::Numbers;

/// Memory, and the place in it that belongs to each address.
pub(super) struct Floor {
    memory: Vec<u8>,
    places: Vec<u32>,
}

impl Floor {
    /// As much memory as a table has, over which the addresses are spread; equal ones have one place, so what is asked for
    /// often is near. `bytes` are 4 GiB at most.
    pub(super) fn spread(bytes: usize, keys: &[u32]) -> Floor {
        Floor::new(bytes, keys.iter().map(|key| Numbers::new((*key).into()).below(bytes) as u32))
    }

    /// A flat table, as the first stage of DIR-24-8 is: an entry of so many bytes for each /24.
    pub(super) fn flat(width: u32, keys: &[u32]) -> Floor {
        Floor::new((width as usize) << 24, keys.iter().map(|key| (key >> 8) * width))
    }

    fn new(bytes: usize, places: impl Iterator<Item = u32>) -> Floor {
        let memory = vec![1; bytes];
        let Range { start, end } = memory.as_ptr_range();
        // As our tables are, and DPDK's.
        afxdp::prefer_huge_pages(start.addr()..end.addr());
        Floor { memory, places: places.collect() }
    }

    /// Reads once for each address; says how many that was.
    pub(super) fn read(&self) -> usize {
        let read = |place: &u32| u32::from(self.memory.get(*place as usize).copied().unwrap_or_default());
        std::hint::black_box(self.places.iter().map(read).sum::<u32>());
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_places() {
        let keys: Vec<u32> = (0..10_000).chain(0..10_000).collect();
        let floor = Floor::spread(1 << 20, &keys);
        let (first, again) = floor.places.split_at(10_000);
        assert_eq!(first, again);
        let mut quarters = [0; 4];
        first.iter().for_each(|place| quarters[(place >> 18) as usize] += 1);
        assert!(quarters.iter().all(|count| (2_300..2_700).contains(count)), "{quarters:?}");
        assert_eq!(floor.read(), keys.len());
        assert_eq!(Floor::flat(2, &[0, 0x0a00_01ff, u32::MAX]).places, [0, 0x14_0002, 0x1ff_fffe]);
    }
}
