//! The blocks of a pool in the order in which one node looks for one (`randomBlockGenerator` and `determineSeed` in
//! `libcalico-go/lib/ipam/ipam_block_reader_writer.go`): from a place that the node's name decides round to it again, so that
//! nodes begin apart, and one node always at the same place.

use std::time::SystemTime;

use model::Prefix;

use super::address::{nth, ordinal};
use super::go_random::GoRandom;
use super::pools::Pool;

/// Iterates over a pool's blocks.
#[derive(Clone, Debug)]
pub(super) struct BlockOrder {
    pool: Prefix,
    block_size: u8,
    /// Addresses in a block, and blocks in the pool, as powers of two.
    block_bits: u32,
    blocks: u128,
    next: u128,
    left: u128,
}

impl BlockOrder {
    /// # Panics
    /// Never: a pool is at least as large as its blocks, and of no more than 2^127 of them.
    pub(super) fn new(pool: &Pool, node: &str, now: SystemTime) -> BlockOrder {
        let family = pool.cidr.family();
        let block_size = pool.block_size.max(pool.cidr.len());
        let blocks = 1u128 << u32::from(block_size - pool.cidr.len()).min(127);
        let seed = if block_size == family.bits() {
            // Nothing is gained where a node gets to the same address again.
            now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as i64
        } else {
            i64::from(fnv1_32(node.as_bytes()))
        };
        let next = GoRandom::new(seed).below(blocks);
        let block_bits = u32::from(family.bits() - block_size);
        BlockOrder { pool: pool.cidr, block_size, block_bits, blocks, next, left: blocks }
    }

    /// Goes on behind a network that isn't to be looked at: a pool may have more blocks than can be counted through.
    pub(super) fn skip_past(&mut self, network: Prefix) {
        if network.covers(self.pool) {
            self.left = 0;
            return;
        }
        let Some(start) = ordinal(self.pool, network.addr()) else { return };
        let bits = u32::from(network.family().bits() - network.len());
        let end =
            (start >> self.block_bits).saturating_add(1u128 << bits.saturating_sub(self.block_bits).min(127));
        if (start >> self.block_bits..end).contains(&self.next) {
            let skipped = (end - self.next).min(self.left);
            self.left -= skipped;
            self.next = (self.next + skipped) % self.blocks;
        }
    }
}

impl Iterator for BlockOrder {
    type Item = Prefix;

    fn next(&mut self) -> Option<Prefix> {
        self.left = self.left.checked_sub(1)?;
        let block = Prefix::new(nth(self.pool, self.next << self.block_bits), self.block_size);
        self.next = (self.next + 1) % self.blocks;
        block
    }
}

/// `hash/fnv`'s New32: FNV-1, which multiplies first.
fn fnv1_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash: u32, byte| hash.wrapping_mul(16_777_619) ^ u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn pool(cidr: &str, block_size: u8) -> Pool {
        Pool { cidr: cidr.parse().unwrap(), block_size, ..Pool::default() }
    }

    #[test]
    fn the_hash_is_gos() {
        // The published test values of FNV-1.
        assert_eq!(fnv1_32(b""), 0x811c_9dc5);
        assert_eq!(fnv1_32(b"a"), 0x050c_5d7e);
        assert_eq!(fnv1_32(b"foobar"), 0x31f0_b262);
    }

    #[test]
    fn every_block_comes_once() {
        for (cidr, size, count) in
            [("10.0.0.0/16", 26, 1024), ("10.0.0.0/26", 26, 1), ("fd00::/112", 122, 1024)]
        {
            let pool = pool(cidr, size);
            let blocks: Vec<Prefix> = BlockOrder::new(&pool, "node1", SystemTime::UNIX_EPOCH).collect();
            assert_eq!(blocks.len(), count);
            assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), count);
            assert!(blocks.iter().all(|block| pool.cidr.covers(*block) && block.len() == size));
        }
    }

    #[test]
    fn a_node_begins_at_its_own_block_each_time() {
        let pool = pool("10.0.0.0/16", 26);
        let first = |node: &str| BlockOrder::new(&pool, node, SystemTime::now()).next();
        assert_eq!(first("node1"), first("node1"));
        assert_ne!(first("node1"), first("node2"));
    }

    #[test]
    fn what_is_skipped_costs_nothing() {
        let pool = pool("fd00::/48", 122);
        let half: Prefix = "fd00::/49".parse().unwrap();
        let mut order = BlockOrder::new(&pool, "node1", SystemTime::UNIX_EPOCH);
        let mut looked_at = 0;
        let found = loop {
            let block = order.next().unwrap();
            looked_at += 1;
            if half.covers(block) {
                order.skip_past(half);
            } else {
                break block;
            }
        };
        assert!(looked_at <= 2 && !half.covers(found), "{looked_at} {found}");
        order.skip_past(pool.cidr);
        assert_eq!(order.next(), None);
    }

    #[test]
    fn a_skip_passes_over_just_that_network() {
        let pool = pool("10.0.0.0/24", 28);
        let skipped: Prefix = "10.0.0.64/26".parse().unwrap();
        let mut order = BlockOrder::new(&pool, "node1", SystemTime::UNIX_EPOCH);
        let mut seen = BTreeSet::new();
        while let Some(block) = order.next() {
            seen.insert(block);
            if skipped.covers(block) {
                order.skip_past(skipped);
            }
        }
        let others = (0..16).map(|n| Prefix::new(nth(pool.cidr, n * 16), 28).unwrap());
        assert!(
            others.filter(|block| !skipped.covers(*block)).all(|block| seen.contains(&block)),
            "{seen:?}"
        );
    }
}
