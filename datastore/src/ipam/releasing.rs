//! Addresses given back (`libcalico-go/lib/ipam/ipam.go`, `ReleaseIPs` and `ReleaseByHandle`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{Family, Prefix};
use tracing::{debug, warn};

use super::allocator::{Ipam, RETRIES};
use super::block::{Block, sane_handle};
use super::error::IpamError;
use super::handle::Handle;
use super::pools::containing;
use super::stored::Versioned;
use crate::{Key, StoreError};

/// An address to give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The address.
    pub addr: IpAddr,
    /// Only if it is this handle's.
    pub handle: Option<String>,
    /// Only if it was assigned with this sequence number: not where it has been assigned anew since.
    pub sequence_number: Option<u64>,
}

impl Release {
    /// Whosever it is.
    pub fn of(addr: IpAddr) -> Release {
        Release { addr, handle: None, sequence_number: None }
    }
}

/// What became of addresses to give back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Those that nobody had.
    pub unassigned: Vec<IpAddr>,
}

impl Ipam<'_> {
    /// Gives addresses back. Those of one block all or none; blocks before one that fails stay released.
    ///
    /// # Errors
    /// Another has one of them by now, or the store. The first error is given after all blocks have been tried.
    pub fn release(&self, asked: &[Release]) -> Result<Released, IpamError> {
        let mut released = Released::default();
        let mut by_block: BTreeMap<Prefix, Vec<Release>> = BTreeMap::new();
        for family in Family::ALL {
            let of_family: Vec<&Release> =
                asked.iter().filter(|release| Family::of(release.addr) == family).collect();
            if of_family.is_empty() {
                continue;
            }
            let pools = self.enabled_pools(family)?;
            // Of a pool that is gone or disabled, which only the blocks still know.
            let mut blocks: Option<Vec<Block>> = None;
            for release in of_family {
                let block =
                    match containing(&pools, release.addr).and_then(|pool| pool.block_of(release.addr)) {
                        Some(block) => Some(block),
                        None => {
                            if blocks.is_none() {
                                blocks = Some(self.blocks(family)?);
                            }
                            let mut cidrs = blocks.iter().flatten().map(Block::cidr);
                            cidrs.find(|cidr| cidr.contains(release.addr))
                        }
                    };
                let handle = release.handle.as_deref().map(|handle| sane_handle(handle).to_owned());
                match block {
                    Some(block) => {
                        let of_block = by_block.entry(block).or_default();
                        of_block.retain(|other| other.addr != release.addr);
                        of_block.push(Release { handle, ..release.clone() });
                    }
                    None => released.unassigned.push(release.addr),
                }
            }
        }
        let mut failed = None;
        for (block, asked) in by_block {
            match self.release_from(block, &asked) {
                Ok(unassigned) => released.unassigned.extend(unassigned),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(released), Err)
    }

    fn release_from(&self, cidr: Prefix, asked: &[Release]) -> Result<Vec<IpAddr>, IpamError> {
        for _ in 0..RETRIES {
            let mut block = match self.block(cidr) {
                Ok(block) => block,
                Err(error) if error.is_not_found() => {
                    return Ok(asked.iter().map(|release| release.addr).collect());
                }
                Err(error) => return Err(error),
            };
            let cooldown = self.config()?.cooldown();
            let (unassigned, given) = block.value.release(asked, cooldown, self.now())?;
            if unassigned.len() == asked.len() {
                return Ok(unassigned);
            }
            match self.write_or_remove(&mut block) {
                Ok(()) => {
                    for (handle, count) in given {
                        self.subtract_from_handle(&handle, cidr, count)?;
                    }
                    self.keep_affinity_true(&block.value);
                    return Ok(unassigned);
                }
                Err(error) if error.is_overtaken() => {}
                Err(error) => return Err(error),
            }
        }
        Err(IpamError::TooManyConflicts)
    }

    /// A block that is nobody's goes with its last address.
    fn write_or_remove(&self, block: &mut Versioned<Block>) -> Result<(), IpamError> {
        if block.value.is_empty() && block.value.affinity().is_none() {
            self.store.delete(&Key::Block(block.value.cidr()), Some(block.revision))?;
            Ok(())
        } else {
            self.write_block(block)
        }
    }

    /// Gives back all addresses of a handle.
    ///
    /// # Errors
    /// There is no such handle ([`IpamError::is_not_found`]), or the store.
    pub fn release_by_handle(&self, handle: &str) -> Result<(), IpamError> {
        let handle = sane_handle(handle);
        let key = Key::Handle(handle.to_owned());
        let blocks: Vec<Prefix> = self.read::<Handle>(&key)?.value.blocks().map(|(block, _)| block).collect();
        for block in &blocks {
            self.release_handle_from(handle, *block)?;
        }
        // What it counts now it counts too much, after a writer's death, unless somebody is at it.
        for block in blocks {
            self.mend_handle(handle, block)?;
        }
        Ok(())
    }

    fn release_handle_from(&self, handle: &str, cidr: Prefix) -> Result<(), IpamError> {
        for _ in 0..RETRIES {
            let mut block = match self.block(cidr) {
                Ok(block) => block,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
            };
            let cooldown = self.config()?.cooldown();
            let count = block.value.release_by_handle(handle, cooldown, self.now());
            if count == 0 {
                return Ok(());
            }
            match self.write_or_remove(&mut block) {
                Ok(()) => {
                    self.subtract_from_handle(handle, cidr, count)?;
                    self.keep_affinity_true(&block.value);
                    return Ok(());
                }
                Err(error) if error.is_overtaken() => {}
                Err(error) => return Err(error),
            }
        }
        Err(IpamError::TooManyConflicts)
    }

    /// Counts less for a handle, which goes with its last address. What it didn't count is left alone.
    pub(super) fn subtract_from_handle(
        &self,
        handle: &str,
        block: Prefix,
        count: usize,
    ) -> Result<(), IpamError> {
        self.change_handle(handle, |handle| handle.subtract(block, count))
    }

    fn change_handle(
        &self,
        handle: &str,
        mut change: impl FnMut(&mut Handle) -> bool,
    ) -> Result<(), IpamError> {
        let key = Key::Handle(handle.to_owned());
        for _ in 0..RETRIES {
            let mut stored = match self.read::<Handle>(&key) {
                Ok(stored) => stored,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
            };
            if !change(&mut stored.value) {
                debug!(handle, "the handle counts less than was given back");
                return Ok(());
            }
            match self.write_handle(&key, &stored) {
                Err(error) if error.is_overtaken() => {}
                outcome => return outcome,
            }
        }
        Err(IpamError::TooManyConflicts)
    }

    fn write_handle(&self, key: &Key, handle: &Versioned<Handle>) -> Result<(), IpamError> {
        if handle.value.is_empty() {
            match self.store.delete(key, Some(handle.revision)) {
                Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
                Err(error) => Err(error.into()),
            }
        } else {
            self.store.update(key, &handle.value.to_value(), handle.revision)?;
            Ok(())
        }
    }

    /// Makes a handle forget a block where it has no addresses.
    ///
    /// Whoever assigns reads the block, then counts, then writes the block. So: read the handle, write the block as it is,
    /// change the handle. An assignment that read the block before our write fails at its own and counts anew; one that read
    /// it afterwards counts afterwards, and our change of the handle fails, or comes first.
    fn mend_handle(&self, handle: &str, cidr: Prefix) -> Result<(), IpamError> {
        let key = Key::Handle(handle.to_owned());
        for _ in 0..RETRIES {
            let mut stored = match self.read::<Handle>(&key) {
                Ok(stored) => stored,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
            };
            if !stored.value.blocks().any(|(block, _)| block == cidr) {
                return Ok(());
            }
            match self.block(cidr) {
                Ok(mut block) => {
                    if !block.value.addresses_of(handle).is_empty() {
                        return Ok(());
                    }
                    match self.write_block(&mut block) {
                        Ok(()) => {}
                        Err(error) if error.is_overtaken() => continue,
                        Err(error) => return Err(error),
                    }
                }
                // A block made anew is read by whoever assigns of it after this.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            warn!(handle, block = %cidr, "a handle counted addresses that it doesn't have");
            stored.value.forget(cidr);
            match self.write_handle(&key, &stored) {
                Err(error) if error.is_overtaken() => {}
                outcome => return outcome,
            }
        }
        Err(IpamError::TooManyConflicts)
    }

    /// A block whose pool doesn't select its node any more is given up with its last address. The address is released
    /// whatever comes of that.
    fn keep_affinity_true(&self, block: &Block) {
        let Some(node) = block.node() else { return };
        let outcome = (|| {
            let labels = match self.node_labels(node) {
                Ok(labels) => labels,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
            };
            let pools = self.enabled_pools(block.cidr().family())?;
            match containing(&pools, block.cidr().addr()) {
                Some(pool) if !pool.selects_node(&labels)? => self.give_up_if_empty(node, block.cidr()),
                _ => Ok(()),
            }
        })();
        if let Err(error) = outcome {
            warn!(block = %block.cidr(), node, "can't see whether the block is still for its node: {error}");
        }
    }
}
