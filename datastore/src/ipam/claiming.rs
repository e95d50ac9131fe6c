//! How a block becomes a node's, and ceases to be (`libcalico-go/lib/ipam/ipam_block_reader_writer.go`).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use model::{Family, Prefix};
use tracing::{debug, info};

use super::address::nth;
use super::affinity::State;
use super::allocator::{Ipam, RETRIES};
use super::block::Block;
use super::block_order::BlockOrder;
use super::error::IpamError;
use super::pools::{Pool, containing};
use super::reservations::Reservations;
use super::stored::{Versioned, affinity_key};
use crate::{Key, StoreError};

/// How long an empty block stays its node's before another may take it: else two nodes could take it from each other without
/// either getting to an address.
const RECLAIM_AFTER: Duration = Duration::from_secs(60);

/// Why a block isn't the node's after all.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another has it, or nobody may.
    Taken,
    /// Somebody has addresses of it.
    NotEmpty,
    /// It was written since it was looked at.
    Changed,
    /// The store.
    Failed(IpamError),
}

impl<T: Into<IpamError>> From<T> for Refusal {
    fn from(error: T) -> Refusal {
        Refusal::Failed(error.into())
    }
}

impl Refusal {
    fn is_overtaken(&self) -> bool {
        matches!(self, Refusal::Failed(error) if error.is_overtaken())
    }
}

/// What to ask of a block before it is given up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GiveUp {
    /// Nobody has addresses of it.
    pub(super) empty: bool,
    /// It still has this sequence number.
    pub(super) unchanged_since: Option<u64>,
}

impl Ipam<'_> {
    /// Claims a block, or takes up a claim that somebody of this node has made before.
    ///
    /// # Errors
    /// [`Refusal::Taken`] where another node has it.
    pub(super) fn claim(&self, node: &str, cidr: Prefix) -> Result<Versioned<Block>, Refusal> {
        for _ in 0..RETRIES {
            let claim =
                self.claim_once(node, cidr).and_then(|mut claim| self.block_of(node, cidr, &mut claim));
            match claim {
                Err(refusal) if refusal.is_overtaken() => {}
                outcome => return outcome,
            }
        }
        Err(IpamError::TooManyConflicts.into())
    }

    fn claim_once(&self, node: &str, cidr: Prefix) -> Result<Versioned<State>, Refusal> {
        match self.store.create(&affinity_key(node, cidr), &State::Pending.to_value()) {
            Ok(revision) => Ok(Versioned { value: State::Pending, revision }),
            Err(StoreError::AlreadyExists(_)) => {
                let mut claim = self.affinity(node, cidr)?;
                if claim.value != State::Confirmed {
                    self.write_affinity(node, cidr, &mut claim, State::Pending)?;
                }
                Ok(claim)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The block of a claim: made where it isn't there, the claim confirmed where it wasn't. A claim of another's block is
    /// forgotten.
    pub(super) fn block_of(
        &self,
        node: &str,
        cidr: Prefix,
        claim: &mut Versioned<State>,
    ) -> Result<Versioned<Block>, Refusal> {
        let mut block = match self.block(cidr) {
            Ok(block) => block,
            Err(IpamError::Store(StoreError::NotFound(_))) => {
                if claim.value != State::Pending {
                    self.write_affinity(node, cidr, claim, State::Pending)?;
                }
                return self.make_block(node, cidr, claim);
            }
            Err(error) => return Err(error.into()),
        };
        if !block.value.is_of(node) {
            self.store.delete(&affinity_key(node, cidr), Some(claim.revision))?;
            return Err(Refusal::Taken);
        }
        if claim.value != State::Confirmed {
            self.write_affinity(node, cidr, claim, State::Pending)?;
            // Whoever else is at this block, to give it up for example, has to look again.
            self.write_block(&mut block)?;
            self.write_affinity(node, cidr, claim, State::Confirmed)?;
        }
        Ok(block)
    }

    fn make_block(
        &self,
        node: &str,
        cidr: Prefix,
        claim: &mut Versioned<State>,
    ) -> Result<Versioned<Block>, Refusal> {
        let block = Block::of_node(cidr, node, self.now());
        let made = match self.store.create(&Key::Block(cidr), &block.to_value()) {
            Ok(revision) => Versioned { value: block, revision },
            Err(StoreError::AlreadyExists(_)) => {
                let there = self.block(cidr)?;
                if !there.value.is_of(node) {
                    self.store.delete(&affinity_key(node, cidr), Some(claim.revision))?;
                    return Err(Refusal::Taken);
                }
                there
            }
            Err(error) => return Err(error.into()),
        };
        if let Err(error) = self.write_affinity(node, cidr, claim, State::Confirmed) {
            // Another process of this node may have confirmed it.
            let there = self.affinity(node, cidr)?;
            if there.value != State::Confirmed {
                return Err(error.into());
            }
        }
        debug!(node, %cidr, "claimed a block");
        Ok(made)
    }

    /// Gives up a node's claim of a block: the block goes where it is empty, else it is nobody's from now on.
    pub(super) fn give_up(&self, node: &str, cidr: Prefix, asked: GiveUp) -> Result<(), Refusal> {
        let mut claim = self.affinity(node, cidr)?;
        let mut block = self.block(cidr)?;
        if asked.unchanged_since.is_some_and(|number| number != block.value.sequence_number()) {
            return Err(Refusal::Changed);
        }
        if block.value.affinity().is_some() && !block.value.is_of(node) {
            self.store.delete(&affinity_key(node, cidr), Some(claim.revision))?;
            return Err(Refusal::Taken);
        }
        if asked.empty && !block.value.is_empty() {
            return Err(Refusal::NotEmpty);
        }
        self.write_affinity(node, cidr, &mut claim, State::PendingDeletion)?;
        if block.value.is_empty() {
            match self.store.delete(&Key::Block(cidr), Some(block.revision)) {
                Ok(_) | Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            block.value.drop_affinity();
            self.write_block(&mut block)?;
        }
        match self.store.delete(&affinity_key(node, cidr), Some(claim.revision)) {
            Ok(_) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        debug!(node, %cidr, "gave up a block");
        Ok(())
    }

    /// Gives up a block where it is empty; one that isn't, or isn't the node's any more, stays.
    pub(super) fn give_up_if_empty(&self, node: &str, cidr: Prefix) -> Result<(), IpamError> {
        self.giving_up(node, cidr, GiveUp { empty: true, unchanged_since: None }).map(|_| ())
    }

    /// Tries until nobody is in between. Was it the node's, and could it be given up?
    fn giving_up(&self, node: &str, cidr: Prefix, asked: GiveUp) -> Result<bool, IpamError> {
        for _ in 0..RETRIES {
            match self.give_up(node, cidr, asked) {
                Ok(()) => return Ok(true),
                Err(Refusal::Taken | Refusal::NotEmpty | Refusal::Changed) => return Ok(false),
                Err(Refusal::Failed(IpamError::Store(StoreError::NotFound(_)))) => {
                    return self.forget_claim_of_nothing(node, cidr).map(|()| false);
                }
                Err(Refusal::Failed(error)) if error.is_overtaken() => {}
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        Err(IpamError::TooManyConflicts)
    }

    /// A claim whose writer died before it made the block, or after it removed it. Calico's own library leaves it; it would
    /// count as one of the node's blocks for ever where the node is gone.
    fn forget_claim_of_nothing(&self, node: &str, cidr: Prefix) -> Result<(), IpamError> {
        let claim = match self.affinity(node, cidr) {
            Ok(claim) => claim,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        match self.block(cidr) {
            Err(error) if error.is_not_found() => {}
            outcome => return outcome.map(drop),
        }
        match self.store.delete(&affinity_key(node, cidr), Some(claim.revision)) {
            // Somebody has taken it up.
            Ok(_) | Err(StoreError::NotFound(_) | StoreError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A block for a node that isn't anybody's yet, or is the node's and has room; where there is none, an empty one of another
    /// node's is taken from it. `None` where all are in use.
    pub(super) fn find_block(
        &self,
        node: &str,
        family: Family,
        pools: &[Pool],
        reservations: &Reservations,
    ) -> Result<Option<Prefix>, IpamError> {
        let now = self.now();
        let there: BTreeMap<Prefix, Block> =
            self.blocks(family)?.into_iter().map(|block| (block.cidr(), block)).collect();
        let mut empty = Vec::new();
        for pool in pools {
            let mut order = BlockOrder::new(pool, node, now);
            while let Some(cidr) = order.next() {
                if let Some(reserved) = reservations.covering(cidr) {
                    order.skip_past(reserved);
                    continue;
                }
                let Some(block) = there.get(&cidr) else { return Ok(Some(cidr)) };
                let has_room = block.free(reservations) > 0;
                if block.is_of(node) && has_room {
                    return Ok(Some(cidr));
                }
                if block.is_empty() && has_room {
                    empty.push(block);
                }
            }
        }
        Ok(empty.into_iter().find(|block| self.reclaim(block, now)).map(Block::cidr))
    }

    /// Takes an empty block from the node whose it is.
    fn reclaim(&self, block: &Block, now: SystemTime) -> bool {
        let Some(owner) = block.node() else { return false };
        if block.age(now) < RECLAIM_AFTER {
            return false;
        }
        let asked = GiveUp { empty: true, unchanged_since: Some(block.sequence_number()) };
        match self.give_up(owner, block.cidr(), asked) {
            Ok(()) => {
                info!(block = %block.cidr(), owner, "took an empty block from its node");
                true
            }
            Err(refusal) => {
                debug!(block = %block.cidr(), owner, "an empty block stays its node's: {refusal:?}");
                false
            }
        }
    }

    /// Claims all blocks of a network for a node. Returns those that are its own now, and those that another has.
    ///
    /// # Errors
    /// The network is not of a pool, or smaller than a block; or the store.
    pub fn claim_affinity(&self, cidr: Prefix, node: &str) -> Result<(Vec<Prefix>, Vec<Prefix>), IpamError> {
        let (mut claimed, mut taken) = (Vec::new(), Vec::new());
        for block in self.blocks_within(cidr)? {
            match self.claim(node, block) {
                Ok(_) => claimed.push(block),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(_) => taken.push(block),
            }
        }
        Ok((claimed, taken))
    }

    /// Gives up a node's claims of all blocks of a network; with `empty`, of those alone that nobody has addresses of.
    ///
    /// # Errors
    /// As [`Self::claim_affinity`].
    pub fn release_affinity(&self, cidr: Prefix, node: &str, empty: bool) -> Result<(), IpamError> {
        for block in self.blocks_within(cidr)? {
            self.giving_up(node, block, GiveUp { empty, unchanged_since: None })?;
        }
        Ok(())
    }

    /// Gives up all of a node's claims; with `empty`, of blocks alone that nobody has addresses of.
    ///
    /// # Errors
    /// The store.
    pub fn release_host_affinities(&self, node: &str, empty: bool) -> Result<(), IpamError> {
        for family in Family::ALL {
            for block in self.claimed(node, family)? {
                self.giving_up(node, block, GiveUp { empty, unchanged_since: None })?;
            }
        }
        Ok(())
    }

    /// The blocks of a network: at most as many as an IPv4 pool of /0 could have.
    fn blocks_within(&self, cidr: Prefix) -> Result<impl Iterator<Item = Prefix>, IpamError> {
        let pools = self.enabled_pools(cidr.family())?;
        let pool = containing(&pools, cidr.addr()).ok_or(IpamError::CidrNotInPool(cidr))?;
        if cidr.len() > pool.block_size {
            return Err(IpamError::CidrTooSmall(cidr));
        }
        let size = pool.block_size;
        let shift = u32::from(cidr.family().bits() - size);
        let count = 1u128 << u32::from(size - cidr.len()).min(32);
        Ok((0..count).filter_map(move |n| Prefix::new(nth(cidr, n << shift), size)))
    }
}
