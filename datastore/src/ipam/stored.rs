//! Values with the revision that a write of them has to name.

use model::{Family, Prefix};
use serde::de::DeserializeOwned;

use super::affinity::State;
use super::allocator::Ipam;
use super::block::Block;
use super::error::IpamError;
use crate::{Key, Revision, StoreError, Under};

/// A value, and the write that it comes from.
#[derive(Clone, Debug)]
pub(super) struct Versioned<T> {
    pub(super) value: T,
    pub(super) revision: Revision,
}

fn unusable(key: Key, reason: String) -> IpamError {
    IpamError::Store(StoreError::Unusable { key, reason })
}

impl Ipam<'_> {
    pub(super) fn read<T: DeserializeOwned>(&self, key: &Key) -> Result<Versioned<T>, IpamError> {
        let stored = self.store.get(key)?;
        let value = serde_json::from_value(stored.value);
        let value = value.map_err(|error| unusable(key.clone(), error.to_string()))?;
        Ok(Versioned { value, revision: stored.revision })
    }

    /// A block as it is now, what has cooled down in it freed; not found where Kubernetes is about to remove it.
    pub(super) fn block(&self, cidr: Prefix) -> Result<Versioned<Block>, IpamError> {
        let key = Key::Block(cidr);
        let stored = self.store.get(&key)?;
        let mut block = Block::from_value(&stored.value).map_err(|reason| unusable(key.clone(), reason))?;
        if block.is_deleted() {
            return Err(StoreError::NotFound(key).into());
        }
        block.collect(self.config()?.cooldown(), self.now());
        Ok(Versioned { value: block, revision: stored.revision })
    }

    /// All blocks of a family, as they are stored. What can't be read is warned of and left out.
    ///
    /// # Errors
    /// The store can't be asked.
    pub fn blocks(&self, family: Family) -> Result<Vec<Block>, IpamError> {
        let listed = self.store.list(&Under::Blocks(family))?;
        let read = |stored: crate::Stored| match Block::from_value(&stored.value) {
            Ok(block) => Some(block),
            Err(reason) => {
                tracing::warn!(key = %stored.key, "a block can't be read: {reason}");
                None
            }
        };
        Ok(listed.stored.into_iter().filter_map(read).filter(|block| !block.is_deleted()).collect())
    }

    /// Writes a block in place of the one that `revision` names, and counts that.
    pub(super) fn write_block(&self, block: &mut Versioned<Block>) -> Result<(), IpamError> {
        block.value.count_write();
        let key = Key::Block(block.value.cidr());
        block.revision = self.store.update(&key, &block.value.to_value(), block.revision)?;
        Ok(())
    }

    pub(super) fn affinity(&self, node: &str, block: Prefix) -> Result<Versioned<State>, IpamError> {
        let stored = self.store.get(&affinity_key(node, block))?;
        Ok(Versioned { value: State::of_value(&stored.value), revision: stored.revision })
    }

    pub(super) fn write_affinity(
        &self,
        node: &str,
        block: Prefix,
        affinity: &mut Versioned<State>,
        state: State,
    ) -> Result<(), IpamError> {
        let key = affinity_key(node, block);
        affinity.revision = self.store.update(&key, &state.to_value(), affinity.revision)?;
        affinity.value = state;
        Ok(())
    }

    /// The blocks that a node claims, however far that has come, in their order.
    pub(super) fn claimed(&self, node: &str, family: Family) -> Result<Vec<Prefix>, IpamError> {
        let listed = self.store.list(&Under::Affinities { node: Some(node.to_owned()), family })?;
        let block = |stored: crate::Stored| match stored.key {
            Key::Affinity { block, .. } => Some(block),
            _ => None,
        };
        Ok(listed.stored.into_iter().filter_map(block).collect())
    }
}

pub(super) fn affinity_key(node: &str, block: Prefix) -> Key {
    Key::Affinity { node: node.to_owned(), block }
}
