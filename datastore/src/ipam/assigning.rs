//! Addresses for whoever asks (`libcalico-go/lib/ipam/ipam.go`, `AutoAssign` and `AssignIP`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use model::{Family, Prefix};
use tracing::debug;

use super::allocator::{Ipam, RETRIES};
use super::block::{Attributes, Block, sane_handle};
use super::block_order::BlockOrder;
use super::claiming::Refusal;
use super::config::DEFAULT_BLOCKS;
use super::error::IpamError;
use super::handle::Handle;
use super::pools::{Pool, PoolRequest, Use, containing, qualify};
use super::releasing::Release;
use super::reservations::Reservations;
use super::stored::Versioned;
use crate::{Key, ResourceKey, ResourceKind, StoreError};

/// A request for addresses, whichever they are.
#[derive(Clone, Debug)]
pub struct AutoAssign<'a> {
    /// How many.
    pub count: usize,
    /// Of which family.
    pub family: Family,
    /// The node that they are for.
    pub node: &'a str,
    /// The handle by which they will be released.
    pub handle: Option<&'a str>,
    /// What is known of their user.
    pub owner: BTreeMap<String, String>,
    /// Pools to take them from; empty for all that select the node and namespace.
    pub pools: &'a [Prefix],
    /// Labels of the workload's namespace.
    pub namespace: BTreeMap<String, String>,
    /// What they are for.
    pub usage: Use,
    /// Blocks that the node may have; 0 leaves that to the settings.
    pub max_blocks: usize,
}

/// A request for one address.
#[derive(Clone, Debug)]
pub struct Assign<'a> {
    /// The address.
    pub addr: IpAddr,
    /// The node that it is for.
    pub node: &'a str,
    /// The handle by which it will be released.
    pub handle: Option<&'a str>,
    /// What is known of its user.
    pub owner: BTreeMap<String, String>,
    /// What it is for, if the pool is to be asked.
    pub usage: Option<Use>,
}

/// What a request got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// Why there are fewer than were asked for, if there are.
    pub shortfall: Option<String>,
}

fn attributes(handle: Option<&str>, owner: &BTreeMap<String, String>) -> Attributes {
    Attributes { handle: handle.map(str::to_owned), owner: owner.clone(), ..Attributes::default() }
}

impl Ipam<'_> {
    /// Assigns addresses: of the node's own blocks first, then of blocks that it claims, then of others'.
    ///
    /// Fewer than were asked for are no error: [`Assigned::shortfall`] says why.
    ///
    /// # Errors
    /// No pool is for this node and use, the node has no more blocks to claim, or the store.
    pub fn auto_assign(&self, request: &AutoAssign<'_>) -> Result<Assigned, IpamError> {
        let reservations = self.reservations()?;
        let config = self.config()?;
        let labels = self.node_labels(request.node)?;
        let enabled = self.enabled_pools(request.family)?;
        let qualified = qualify(
            &enabled,
            PoolRequest {
                named: request.pools,
                node: request.node,
                labels: &labels,
                namespace: &request.namespace,
                usage: request.usage,
            },
        )?;
        let mut own = VecDeque::new();
        for block in self.claimed(request.node, request.family)? {
            if containing(&qualified.pools, block.addr()).is_some() {
                own.push_back(block);
            } else if containing(&qualified.selecting, block.addr()).is_none() {
                self.give_back(request.node, block, &enabled, &labels)?;
            }
        }
        let limit = match (config.max_blocks_per_host as usize, request.max_blocks) {
            (0, 0) => DEFAULT_BLOCKS,
            (0, asked) => asked,
            (global, 0) => global,
            (global, asked) => global.min(asked),
        };
        let mut search = Search {
            ipam: self,
            request,
            attributes: attributes(request.handle, &request.owner),
            pools: &qualified.pools,
            reservations: &reservations,
            strict: config.strict_affinity,
            claims: config.auto_allocate_blocks,
            blocks: own.len(),
            limit,
            own,
            addresses: Vec::new(),
            notes: BTreeSet::new(),
        };
        if let Err(error) = search.take() {
            // Nobody will hear of those that it got.
            let given: Vec<Release> = search.addresses.iter().copied().map(Release::of).collect();
            if let Err(left) = self.release(&given) {
                tracing::warn!(node = request.node, "addresses of a failed request stay assigned: {left}");
            }
            return Err(error);
        }
        Ok(search.outcome())
    }

    /// A block of a pool that doesn't select the node any more goes back, once it is empty.
    fn give_back(
        &self,
        node: &str,
        block: Prefix,
        enabled: &[Pool],
        labels: &BTreeMap<String, String>,
    ) -> Result<(), IpamError> {
        let Some(pool) = containing(enabled, block.addr()) else { return Ok(()) };
        if pool.selects_node(labels).unwrap_or(true) { Ok(()) } else { self.give_up_if_empty(node, block) }
    }

    pub(super) fn node_labels(&self, node: &str) -> Result<BTreeMap<String, String>, IpamError> {
        let key = ResourceKey { kind: ResourceKind::Node, namespace: String::new(), name: node.to_owned() };
        let stored = self.store.get(&Key::Resource(key))?;
        let labels = stored.value["metadata"]["labels"].as_object().into_iter().flatten();
        Ok(labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
    }

    /// Assigns one address, of a block that the node claims for it where it isn't anybody's.
    ///
    /// # Errors
    /// It isn't of a pool, somebody has it, the block is another node's and affinities are strict, or the store.
    pub fn assign(&self, request: &Assign<'_>) -> Result<(), IpamError> {
        let pools = self.enabled_pools(Family::of(request.addr))?;
        let pool = containing(&pools, request.addr).ok_or(IpamError::NotInPool)?;
        if let Some(usage) = request.usage.filter(|usage| !pool.uses.contains(usage)) {
            return Err(IpamError::UseNotAllowed { addr: request.addr, pool: pool.name.clone(), usage });
        }
        let strict = self.config()?.strict_affinity;
        let cidr = pool.block_of(request.addr).ok_or(IpamError::NotInPool)?;
        for _ in 0..RETRIES {
            let mut block = match self.block(cidr) {
                Ok(block) => block,
                Err(IpamError::Store(StoreError::NotFound(_))) => match self.claim(request.node, cidr) {
                    Ok(block) => block,
                    Err(Refusal::Failed(error)) => return Err(error),
                    // Somebody was quicker; what is there now may still be assigned from.
                    Err(_) => continue,
                },
                Err(error) => return Err(error),
            };
            let attributes = attributes(request.handle, &request.owner);
            block.value.assign(request.addr, &attributes, request.node, strict)?;
            match self.write_counted(request.handle, &mut block, 1) {
                Err(error) if error.is_overtaken() => {}
                outcome => return outcome,
            }
        }
        Err(IpamError::TooManyConflicts)
    }

    /// Writes a block that `count` addresses more of a handle have been assigned from, counted by the handle first: after a
    /// crash between the two it counts too many, never too few.
    fn write_counted(
        &self,
        handle: Option<&str>,
        block: &mut Versioned<Block>,
        count: usize,
    ) -> Result<(), IpamError> {
        let cidr = block.value.cidr();
        if let Some(handle) = handle {
            self.add_to_handle(handle, cidr, count)?;
        }
        let written = self.write_block(block);
        if let (Some(handle), Err(error)) = (handle, &written)
            && error.is_overtaken()
        {
            // Surely not written. After any other error that isn't known, and the handle had better count too many.
            self.subtract_from_handle(handle, cidr, count)?;
        }
        written
    }

    fn add_to_handle(&self, handle: &str, block: Prefix, count: usize) -> Result<(), IpamError> {
        let key = Key::Handle(handle.to_owned());
        self.retry(|| {
            match self.read::<Handle>(&key) {
                Ok(mut stored) => {
                    stored.value.add(block, count);
                    self.store.update(&key, &stored.value.to_value(), stored.revision)?;
                }
                Err(IpamError::Store(StoreError::NotFound(_))) => {
                    let mut new = Handle::default();
                    new.add(block, count);
                    self.store.create(&key, &new.to_value())?;
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })
    }

    /// Who has an address.
    ///
    /// # Errors
    /// Nobody has it ([`IpamError::is_not_found`]), it is cooling down, or the store can't be asked.
    pub fn assignment(&self, addr: IpAddr) -> Result<Attributes, IpamError> {
        let pools = self.enabled_pools(Family::of(addr))?;
        let pool = containing(&pools, addr).ok_or(IpamError::NotAssigned(addr))?;
        let block = self.block(pool.block_of(addr).ok_or(IpamError::NotAssigned(addr))?)?;
        let mut attributes = block.value.holder(addr).cloned().ok_or(IpamError::NotAssigned(addr))?;
        if !attributes.is_held() {
            return Err(IpamError::CoolingDown(addr));
        }
        attributes.handle = attributes.handle.map(|handle| sane_handle(&handle).to_owned());
        Ok(attributes)
    }

    /// The addresses of a handle, of every block where it has some.
    ///
    /// # Errors
    /// There is no such handle, or the store can't be asked.
    pub fn addresses_of(&self, handle: &str) -> Result<Vec<IpAddr>, IpamError> {
        let stored = self.read::<Handle>(&Key::Handle(handle.to_owned()))?;
        let mut addresses = Vec::new();
        for (cidr, _) in stored.value.blocks() {
            match self.block(cidr) {
                Ok(block) => addresses.extend(block.value.addresses_of(handle)),
                Err(error) => debug!(handle, %cidr, "a handle's block can't be read: {error}"),
            }
        }
        Ok(addresses)
    }
}

/// One request on its way.
struct Search<'a, 'b> {
    ipam: &'a Ipam<'b>,
    request: &'a AutoAssign<'a>,
    attributes: Attributes,
    pools: &'a [Pool],
    reservations: &'a Reservations,
    strict: bool,
    /// May blocks be claimed?
    claims: bool,
    /// Blocks that the node has, and may have.
    blocks: usize,
    limit: usize,
    /// Those of them that weren't looked at yet.
    own: VecDeque<Prefix>,
    addresses: Vec<IpAddr>,
    notes: BTreeSet<String>,
}

impl Search<'_, '_> {
    fn missing(&self) -> usize {
        self.request.count - self.addresses.len()
    }

    fn take(&mut self) -> Result<(), IpamError> {
        self.take_own()?;
        if self.strict { Ok(()) } else { self.borrow() }
    }

    /// Takes addresses from the node's blocks, and from more that it claims.
    fn take_own(&mut self) -> Result<(), IpamError> {
        let mut in_vain = 0;
        while self.missing() > 0 {
            let Some(block) = self.block_with_room()? else {
                if self.strict {
                    self.notes.insert("No more free affine blocks and strict affinity enabled".to_owned());
                }
                return Ok(());
            };
            let cidr = block.value.cidr();
            if self.take_from(block, cidr, self.strict)? == 0 {
                self.notes.insert("Failed to assign IPs in newly allocated block".to_owned());
                in_vain += 1;
                if in_vain == RETRIES {
                    return Err(IpamError::TooManyConflicts);
                }
            }
        }
        Ok(())
    }

    /// A block of the node's with a free address; `None` where there is none and none can be had.
    fn block_with_room(&mut self) -> Result<Option<Versioned<Block>>, IpamError> {
        let node = self.request.node;
        while let Some(cidr) = self.own.pop_front() {
            if self.reservations.covering(cidr).is_some() {
                continue;
            }
            match self.own_block(cidr) {
                Ok(block) if block.value.free(self.reservations) > 0 => return Ok(Some(block)),
                Ok(_) => {}
                Err(Refusal::Failed(error)) if !error.is_not_found() => return Err(error),
                Err(refusal) => debug!(node, %cidr, "a claimed block isn't the node's: {refusal:?}"),
            }
        }
        if self.blocks >= self.limit {
            tracing::warn!(
                node,
                blocks = self.blocks,
                limit = self.limit,
                "the node may not claim more blocks"
            );
            return Err(IpamError::BlockLimit);
        }
        if !self.claims {
            return Err(IpamError::NoBlocks);
        }
        for _ in 0..RETRIES {
            let family = self.request.family;
            let Some(cidr) = self.ipam.find_block(node, family, self.pools, self.reservations)? else {
                return Ok(None);
            };
            match self.ipam.claim(node, cidr) {
                Ok(block) => {
                    self.blocks += 1;
                    if block.value.free(self.reservations) > 0 {
                        return Ok(Some(block));
                    }
                    // Another process of this node was there too, and has taken all of it.
                }
                Err(Refusal::Failed(error)) => return Err(error),
                Err(refusal) => debug!(node, %cidr, "a block was taken meanwhile: {refusal:?}"),
            }
        }
        Err(IpamError::TooManyConflicts)
    }

    fn own_block(&self, cidr: Prefix) -> Result<Versioned<Block>, Refusal> {
        let node = self.request.node;
        for _ in 0..RETRIES {
            let mut claim = self.ipam.affinity(node, cidr)?;
            match self.ipam.block_of(node, cidr, &mut claim) {
                Err(Refusal::Failed(error)) if error.is_overtaken() => {}
                outcome => return outcome,
            }
        }
        Err(IpamError::TooManyConflicts.into())
    }

    /// Takes addresses of other nodes' blocks, and of blocks that are nobody's.
    fn borrow(&mut self) -> Result<(), IpamError> {
        if self.missing() == 0 {
            return Ok(());
        }
        let there: BTreeSet<Prefix> =
            self.ipam.blocks(self.request.family)?.iter().map(Block::cidr).collect();
        let mut exhausted = Vec::new();
        for pool in self.pools {
            let mut order = BlockOrder::new(pool, self.request.node, self.ipam.now());
            while self.missing() > 0 {
                let Some(cidr) = order.next() else {
                    exhausted.push(pool.cidr.to_string());
                    break;
                };
                if let Some(reserved) = self.reservations.covering(cidr) {
                    order.skip_past(reserved);
                    continue;
                }
                if !there.contains(&cidr) {
                    continue;
                }
                match self.ipam.block(cidr) {
                    Ok(block) => {
                        self.take_from(block, cidr, false)?;
                    }
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if !exhausted.is_empty() {
            self.notes.insert(format!("No IPs available in pools: [{}]", exhausted.join(" ")));
        }
        Ok(())
    }

    /// Takes what is missing from one block, or as much as it has. Returns how many.
    fn take_from(
        &mut self,
        mut block: Versioned<Block>,
        cidr: Prefix,
        strict: bool,
    ) -> Result<usize, IpamError> {
        let node = self.request.node;
        for _ in 0..RETRIES {
            let count = self.missing();
            let taken = block.value.auto_assign(count, &self.attributes, node, strict, self.reservations);
            // The block may have become another's meanwhile.
            let Ok(taken) = taken else { return Ok(0) };
            if taken.is_empty() {
                return Ok(0);
            }
            match self.ipam.write_counted(self.request.handle, &mut block, taken.len()) {
                Ok(()) => {
                    self.addresses.extend(&taken);
                    return Ok(taken.len());
                }
                Err(error) if error.is_overtaken() => match self.ipam.block(cidr) {
                    Ok(again) => block = again,
                    Err(error) if error.is_not_found() => return Ok(0),
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Err(IpamError::TooManyConflicts)
    }

    fn outcome(self) -> Assigned {
        let (got, asked, family) = (self.addresses.len(), self.request.count, self.request.family);
        let shortfall = (got < asked).then(|| {
            let notes: String = self.notes.iter().map(|note| format!("; {note}")).collect();
            format!("Assigned {got} out of {asked} requested {family} addresses{notes}")
        });
        Assigned { addresses: self.addresses, shortfall }
    }
}
