//! One block of addresses, as it is stored (`libcalico-go/lib/backend/model/block.go`), and what may happen to it
//! (`libcalico-go/lib/ipam/ipam_block.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use model::Prefix;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::address::{nth, ordinal, size};
use super::error::IpamError;
use super::releasing::Release;
use super::reservations::Reservations;

/// The handle of addresses that a Windows node keeps for its own networking; they don't keep a block from being empty.
pub const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";

/// Addresses in a block, at most: Calico's largest are an IPv4 /20 and an IPv6 /116.
const ADDRESSES: u128 = 1 << 12;

/// A block and its allocations. Fields stand in the order in which Calico writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Its addresses.
    #[serde(serialize_with = "write_text", deserialize_with = "read_prefix")]
    cidr: Prefix,
    /// Whose it is: `host:` and a node, or `virtual:` and the load balancer.
    #[serde(default)]
    affinity: Option<String>,
    /// When it became so; absent in old blocks.
    #[serde(default, rename = "affinity_claim_time", skip_serializing_if = "Option::is_none")]
    affinity_claim_time: Option<Time>,
    /// By place in the block: the row of `attributes` of who has the address, `None` where it is free.
    #[serde(default, deserialize_with = "or_default")]
    allocations: Vec<Option<usize>>,
    /// Places of free addresses: the first has been free for longest, and is assigned next.
    #[serde(default, deserialize_with = "or_default")]
    unallocated: Vec<usize>,
    /// Who has addresses. Calico writes `null` in a block that never had any.
    #[serde(default)]
    attributes: Option<Vec<Attributes>>,
    /// Goes up with every write of the block.
    #[serde(default, rename = "sequenceNumber")]
    sequence_number: u64,
    /// By place, as a text: the sequence number at which the address was assigned.
    #[serde(default, rename = "sequenceNumberForAllocation", deserialize_with = "or_default")]
    sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Kubernetes' way of removing: such a block isn't there.
    #[serde(default)]
    deleted: bool,
    /// The node of a block from before affinities had a kind.
    #[serde(default, rename = "hostAffinity", skip_serializing_if = "Option::is_none")]
    host_affinity: Option<String>,
}

/// Whose an address is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// The handle by which it is released.
    #[serde(default, rename = "handle_id", skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// What is known of its user: `node`, `pod`, `namespace`, `type`, and more.
    #[serde(
        default,
        rename = "secondary",
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub owner: BTreeMap<String, String>,
    /// Who had it before a live migration, or will have it.
    #[serde(
        default,
        rename = "alternate",
        alias = "alternateOwnerAttrs",
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub alternate: BTreeMap<String, String>,
    /// When it was given back: it cools down, and isn't assigned again before that is over.
    #[serde(default, rename = "releasedAt", skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Time>,
}

impl Attributes {
    /// The handle, as it is stored under. Some were once written with a line end and more behind it.
    pub fn handle(&self) -> Option<&str> {
        self.handle.as_deref().map(sane_handle)
    }

    /// Does an owner hold it? Else it is free or cooling down.
    pub fn is_held(&self) -> bool {
        self.released_at.is_none()
    }
}

/// See [`Attributes::handle`].
pub(super) fn sane_handle(handle: &str) -> &str {
    handle.split('\r').next().unwrap_or(handle)
}

/// A moment, kept to the second as Kubernetes' `metav1.Time` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_seconds(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    /// What is no time is one long past, so that nothing waits for it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Time(humantime::parse_rfc3339_weak(&text).unwrap_or(SystemTime::UNIX_EPOCH)))
    }
}

fn write_text<S: Serializer>(prefix: &Prefix, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(prefix)
}

fn read_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Go's writers leave `null` for an empty list or mapping.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The affinity of a node's blocks.
pub(super) fn host_affinity(node: &str) -> String {
    format!("host:{node}")
}

impl Block {
    /// A block that is a node's and has nothing assigned. Its sequence begins with the time, so that an address's number is
    /// another one after the block was removed and made again.
    pub fn of_node(cidr: Prefix, node: &str, now: SystemTime) -> Block {
        let addresses = size(cidr).min(ADDRESSES) as usize;
        let nanos = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        Block {
            cidr,
            affinity: Some(host_affinity(node)),
            affinity_claim_time: Some(Time(now)),
            allocations: vec![None; addresses],
            unallocated: (0..addresses).collect(),
            attributes: None,
            // Enough until the year 2554.
            sequence_number: nanos as u64,
            sequence_number_for_allocation: BTreeMap::new(),
            deleted: false,
            host_affinity: None,
        }
    }

    /// Reads a stored block. What another writer got wrong must not take us down: what `allocations` or `unallocated` name and
    /// isn't there is refused, by the reason.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_value(value: &serde_json::Value) -> Result<Block, String> {
        let mut block = Block::deserialize(value).map_err(|error| error.to_string())?;
        if let Some(node) = block.host_affinity.take()
            && block.affinity.is_none()
        {
            block.affinity = Some(host_affinity(&node));
        }
        if size(block.cidr) > ADDRESSES {
            return Err(format!("{} is too large for a block", block.cidr));
        }
        let addresses = size(block.cidr) as usize;
        if block.allocations.len() != addresses {
            let given = block.allocations.len();
            return Err(format!("it has {addresses} addresses, and {given} allocations"));
        }
        Ok(block)
    }

    /// As it is stored.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Its addresses.
    pub fn cidr(&self) -> Prefix {
        self.cidr
    }

    /// How many addresses it has.
    pub fn size(&self) -> usize {
        self.allocations.len()
    }

    /// Whose it is: `host:` and a node, or `virtual:` and a name.
    pub fn affinity(&self) -> Option<&str> {
        self.affinity.as_deref()
    }

    /// The node whose it is, if it is one's.
    pub fn node(&self) -> Option<&str> {
        self.affinity()?.strip_prefix("host:")
    }

    /// Is it this node's?
    pub fn is_of(&self, node: &str) -> bool {
        self.node() == Some(node)
    }

    /// Nobody's, from now on.
    pub fn drop_affinity(&mut self) {
        self.affinity = None;
        self.affinity_claim_time = None;
    }

    /// How long it has been whose it is; for ever where nobody wrote down since when.
    pub fn age(&self, now: SystemTime) -> Duration {
        match self.affinity_claim_time {
            Some(Time(since)) => now.duration_since(since).unwrap_or_default(),
            None => Duration::MAX,
        }
    }

    /// Goes up with every write.
    pub fn sequence_number(&self) -> u64 {
        self.sequence_number
    }

    /// One more write.
    pub(super) fn count_write(&mut self) {
        self.sequence_number = self.sequence_number.wrapping_add(1);
    }

    /// Is it being removed? Such a block isn't there.
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// The places that aren't free, by address, with who has them where that is known.
    pub fn allocations(&self) -> impl Iterator<Item = (IpAddr, usize, Option<&Attributes>)> {
        let rows = self.attributes();
        self.allocations.iter().enumerate().filter_map(move |(place, row)| {
            let row = (*row)?;
            Some((nth(self.cidr, place as u128), place, rows.get(row)))
        })
    }

    /// Who has addresses of it.
    pub fn attributes(&self) -> &[Attributes] {
        self.attributes.as_deref().unwrap_or_default()
    }

    /// The places of free addresses, the next one first.
    pub fn unallocated(&self) -> &[usize] {
        &self.unallocated
    }

    /// The sequence number at which the address at a place was assigned; 0 where that isn't known.
    pub fn sequence_number_of(&self, place: usize) -> u64 {
        self.sequence_number_for_allocation.get(&place.to_string()).copied().unwrap_or(0)
    }

    /// Does nobody have an address of it, but what Windows keeps for itself?
    pub fn is_empty(&self) -> bool {
        self.allocations().all(|(_, _, row)| {
            let handle = row.and_then(|row| row.handle.as_deref());
            handle.is_some_and(|handle| handle.eq_ignore_ascii_case(WINDOWS_RESERVED))
        })
    }

    /// How many addresses could be assigned now.
    pub fn free(&self, reservations: &Reservations) -> usize {
        let free = self.unallocated.iter().filter(|place| self.is_free(**place));
        if reservations.overlaps(self.cidr) {
            free.filter(|place| !reservations.holds(self.address(**place))).count()
        } else {
            free.count()
        }
    }

    /// Is it really? Another writer may have left in `unallocated` what somebody has.
    fn is_free(&self, place: usize) -> bool {
        self.allocations.get(place) == Some(&None)
    }

    fn address(&self, place: usize) -> IpAddr {
        nth(self.cidr, place as u128)
    }

    fn place(&self, addr: IpAddr) -> Option<usize> {
        ordinal(self.cidr, addr).map(|place| place as usize)
    }

    /// Who has an address; `None` where nobody does, or it isn't of this block.
    pub fn holder(&self, addr: IpAddr) -> Option<&Attributes> {
        let row = (*self.allocations.get(self.place(addr)?)?)?;
        self.attributes().get(row)
    }

    /// The addresses of a handle.
    pub fn addresses_of(&self, handle: &str) -> Vec<IpAddr> {
        let of_handle = |row: Option<&Attributes>| row.and_then(Attributes::handle) == Some(handle);
        self.allocations().filter(|(_, _, row)| of_handle(*row)).map(|(addr, _, _)| addr).collect()
    }

    /// May this node have addresses of it? `strict` asks for its own block.
    fn admits(&self, node: &str, strict: bool) -> Result<(), IpamError> {
        match self.affinity() {
            Some(affinity) if strict && affinity != host_affinity(node) => {
                Err(IpamError::OtherAffinity { affinity: affinity.to_owned(), node: node.to_owned() })
            }
            None if strict => Err(IpamError::NoAffinity(self.cidr)),
            _ => Ok(()),
        }
    }

    /// Assigns the `count` addresses that have been free for longest, or as many as there are.
    ///
    /// # Errors
    /// `strict`, and the block isn't the node's.
    pub fn auto_assign(
        &mut self,
        count: usize,
        attributes: &Attributes,
        node: &str,
        strict: bool,
        reservations: &Reservations,
    ) -> Result<Vec<IpAddr>, IpamError> {
        self.admits(node, strict)?;
        let mut left = Vec::with_capacity(self.unallocated.len());
        let mut assigned = Vec::new();
        for place in std::mem::take(&mut self.unallocated) {
            let addr = self.address(place);
            if assigned.len() >= count || reservations.holds(addr) || !self.is_free(place) {
                left.push(place);
                continue;
            }
            self.take(place, attributes);
            assigned.push(addr);
        }
        self.unallocated = left;
        Ok(assigned)
    }

    /// Assigns one address.
    ///
    /// # Errors
    /// It is another block's, somebody has it, or `strict` and the block isn't the node's.
    pub fn assign(
        &mut self,
        addr: IpAddr,
        attributes: &Attributes,
        node: &str,
        strict: bool,
    ) -> Result<(), IpamError> {
        self.admits(node, strict)?;
        let place = self.place(addr).ok_or(IpamError::NotInBlock { addr, block: self.cidr })?;
        if self.allocations[place].is_some() {
            return Err(IpamError::AlreadyAssigned(addr));
        }
        self.take(place, attributes);
        self.unallocated.retain(|free| *free != place);
        Ok(())
    }

    fn take(&mut self, place: usize, attributes: &Attributes) {
        let row = self.row_of(attributes);
        self.allocations[place] = Some(row);
        self.number(place);
    }

    fn number(&mut self, place: usize) {
        self.sequence_number_for_allocation.insert(place.to_string(), self.sequence_number);
    }

    fn row_of(&mut self, attributes: &Attributes) -> usize {
        let rows = self.attributes.get_or_insert_default();
        rows.iter().position(|row| row == attributes).unwrap_or_else(|| {
            rows.push(attributes.clone());
            rows.len() - 1
        })
    }

    /// Gives addresses back: all that are asked for, or none. Returns those that nobody held, and how many each handle gave.
    ///
    /// # Errors
    /// Who asks knows the address by another handle or sequence number than it has now: it has been assigned anew since.
    pub fn release(
        &mut self,
        asked: &[Release],
        cooldown: Duration,
        now: SystemTime,
    ) -> Result<(Vec<IpAddr>, BTreeMap<String, usize>), IpamError> {
        let mut unassigned = Vec::new();
        let mut given = BTreeMap::new();
        let mut places = BTreeSet::new();
        for release in asked {
            let addr = release.addr;
            let place = self.place(addr).ok_or(IpamError::NotInBlock { addr, block: self.cidr })?;
            let expected = self.sequence_number_of(place);
            if let Some(requested) = release.sequence_number
                && requested != expected
            {
                return Err(IpamError::BadSequenceNumber { addr, requested, expected });
            }
            let Some(row) = self.holder(addr).filter(|row| row.is_held()) else {
                if self.allocations[place].is_some() && self.holder(addr).is_none() {
                    // A row that isn't there: nobody can hold it, so it may go.
                    places.insert(place);
                    continue;
                }
                unassigned.push(addr);
                continue;
            };
            let handle = row.handle().map(str::to_owned);
            if let Some(requested) = &release.handle
                && handle.as_ref() != Some(requested)
            {
                let expected = handle.unwrap_or_default();
                return Err(IpamError::BadHandle { addr, requested: requested.clone(), expected });
            }
            if places.insert(place)
                && let Some(handle) = handle
            {
                *given.entry(handle).or_default() += 1;
            }
        }
        self.cool(&places, now);
        self.collect(cooldown, now);
        Ok((unassigned, given))
    }

    /// Gives back all addresses of a handle; returns how many.
    pub fn release_by_handle(&mut self, handle: &str, cooldown: Duration, now: SystemTime) -> usize {
        let addresses = self.addresses_of(handle);
        let places: BTreeSet<usize> = addresses.into_iter().filter_map(|addr| self.place(addr)).collect();
        self.cool(&places, now);
        self.collect(cooldown, now);
        places.len()
    }

    fn cool(&mut self, places: &BTreeSet<usize>, now: SystemTime) {
        if places.is_empty() {
            return;
        }
        let rows = self.attributes.get_or_insert_default();
        rows.push(Attributes { released_at: Some(Time(now)), ..Attributes::default() });
        let row = rows.len() - 1;
        for place in places {
            self.allocations[*place] = Some(row);
            self.number(*place);
        }
    }

    /// Frees what has cooled down, in the order of the addresses, and forgets rows that nobody has. Did that change anything?
    pub fn collect(&mut self, cooldown: Duration, now: SystemTime) -> bool {
        let rows = self.attributes.take().unwrap_or_default();
        let had_any = !rows.is_empty();
        let cooled = |row: &Attributes| match row.released_at {
            // A clock that was set back must not keep an address for ever.
            Some(Time(at)) => now.duration_since(at).is_ok_and(|age| age >= cooldown),
            None => false,
        };
        let mut changed = false;
        let mut used = vec![false; rows.len()];
        for place in 0..self.allocations.len() {
            let Some(row) = self.allocations[place] else { continue };
            if rows.get(row).is_some_and(cooled) {
                self.allocations[place] = None;
                self.unallocated.push(place);
                self.sequence_number_for_allocation.remove(&place.to_string());
                changed = true;
            } else if let Some(used) = used.get_mut(row) {
                *used = true;
            }
        }
        let mut places = vec![0; rows.len()];
        let mut kept = Vec::with_capacity(rows.len());
        for (number, row) in rows.into_iter().enumerate() {
            places[number] = kept.len();
            if used[number] {
                kept.push(row);
            } else {
                changed = true;
            }
        }
        for row in self.allocations.iter_mut().flatten() {
            if let Some(place) = places.get(*row) {
                *row = *place;
            }
        }
        self.attributes = (had_any || !kept.is_empty()).then_some(kept);
        changed
    }

    /// What is wrong with it, if anything is, in the words of `calicoctl ipam check`.
    ///
    /// # Errors
    /// The first thing that is.
    pub fn validate(&self, now: SystemTime) -> Result<(), String> {
        let rows = self.attributes();
        let mut indexed = vec![false; rows.len()];
        let mut allocated = BTreeSet::new();
        for (place, row) in self.allocations.iter().enumerate() {
            let Some(row) = *row else { continue };
            let Some(indexed) = indexed.get_mut(row) else {
                return Err(format!("allocation {place} indexes a nonexistent attribute {row}"));
            };
            *indexed = true;
            allocated.insert(place);
        }
        for (number, row) in rows.iter().enumerate() {
            if !indexed[number] {
                return Err(format!("attribute index {number} exists but is not indexed by an allocation"));
            }
            if row.released_at.is_some_and(|Time(at)| at > now) {
                return Err(format!(
                    "attribute index {number} has releasedAt in the future, suggesting clock skew"
                ));
            }
        }
        let mut free = BTreeSet::new();
        for place in &self.unallocated {
            if *place >= self.size() {
                return Err(format!(
                    "ordinal {place} appears in the Unallocated array but is out of the block"
                ));
            }
            if !free.insert(*place) {
                return Err(format!("ordinal {place} appears more than once in Unallocated array"));
            }
            if allocated.contains(place) {
                return Err(format!("ordinal {place} is allocated but appears in Unallocated"));
            }
        }
        let (size, unallocated, allocated) = (self.size(), self.unallocated.len(), allocated.len());
        if unallocated + allocated != size {
            return Err(format!(
                "expected {size} addresses in this block, but Unallocated ({unallocated}) + Allocated \
                 ({allocated}) = {}",
                unallocated + allocated
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
