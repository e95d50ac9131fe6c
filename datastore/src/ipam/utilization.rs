//! How full pools and blocks are (`libcalico-go/lib/ipam/accounting`).

use model::{Family, Prefix};

use super::address::size;
use super::allocator::Ipam;
use super::block::Block;
use super::error::IpamError;
use super::pools::Pool;
use super::reservations::Reservations;

/// A block's addresses, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUsage {
    /// The block.
    pub cidr: Prefix,
    /// All.
    pub capacity: u128,
    /// Those that aren't free, what cools down among them.
    pub in_use: u128,
    /// Those that a reservation keeps, in use or not.
    pub reserved: u128,
    /// Those that are neither.
    pub free: u128,
}

/// A pool's addresses, counted over all of it, and its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// The pool; `None` for blocks that no pool has any more.
    pub cidr: Option<Prefix>,
    /// All.
    pub capacity: u128,
    /// Those that aren't free.
    pub in_use: u128,
    /// Those that a reservation keeps, in use or not.
    pub reserved: u128,
    /// Those that are neither.
    pub free: u128,
    /// Its blocks, in order.
    pub blocks: Vec<BlockUsage>,
}

impl Ipam<'_> {
    /// How full every pool is, by name, and last the blocks that no pool has.
    ///
    /// # Errors
    /// The store can't be asked.
    pub fn utilization(&self) -> Result<Vec<PoolUsage>, IpamError> {
        let pools = self.pools()?;
        let reservations = self.reservations()?;
        let mut of_pool: Vec<Vec<Block>> = vec![Vec::new(); pools.len() + 1];
        for family in Family::ALL {
            for block in self.blocks(family)? {
                of_pool[owner(&pools, block.cidr()).unwrap_or(pools.len())].push(block);
            }
        }
        let cidrs = pools.iter().map(|pool| Some(pool.cidr)).chain([None]);
        Ok(cidrs.zip(of_pool).map(|(cidr, blocks)| count(cidr, &blocks, &reservations)).collect())
    }
}

/// The pool that a block is of: one whose blocks are of its size rather than not, then the smallest, then by name.
fn owner(pools: &[Pool], block: Prefix) -> Option<usize> {
    let candidates = pools.iter().enumerate().filter(|(_, pool)| pool.cidr.covers(block));
    let rank = |pool: &Pool| (pool.block_size == block.len(), pool.cidr.len());
    // `max_by_key` takes the last of equals, and pools come by name.
    candidates.rev().max_by_key(|(_, pool)| rank(pool)).map(|(number, _)| number)
}

fn count(cidr: Option<Prefix>, blocks: &[Block], reservations: &Reservations) -> PoolUsage {
    let mut in_use_and_reserved = 0;
    let blocks: Vec<BlockUsage> = blocks
        .iter()
        .map(|block| {
            let capacity = block.size() as u128;
            let in_use = block.allocations().count() as u128;
            let both = block.allocations().filter(|(addr, _, _)| reservations.holds(*addr)).count() as u128;
            let reserved = reservations.count(block.cidr());
            in_use_and_reserved += both;
            let free = (capacity + both).saturating_sub(in_use + reserved);
            BlockUsage { cidr: block.cidr(), capacity, in_use, reserved, free }
        })
        .collect();
    let in_use = blocks.iter().map(|block| block.in_use).sum();
    let (capacity, reserved) = cidr.map_or((0, 0), |cidr| (size(cidr), reservations.count(cidr)));
    let free = (capacity - reserved).saturating_sub(in_use - in_use_and_reserved);
    PoolUsage { cidr, capacity, in_use, reserved, free, blocks }
}
