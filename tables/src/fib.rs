//! The forwarding table: prefix to group, for both families.

use std::net::IpAddr;
use std::ops::Range;

use lpm::{Lookup, Table};
use model::{Family, Prefix};

use crate::{GroupId, Limits, TableFull};

/// The writer's side.
pub struct Fib {
    v4: Table<u32>,
    v6: Table<u128>,
    limits: Limits,
}

impl Fib {
    pub(crate) fn new(limits: Limits) -> Fib {
        Fib {
            v4: Table::new(lpm::Limits::for_routes(clamp(limits.routes_v4))),
            v6: Table::new(lpm::Limits::for_routes(clamp(limits.routes_v6))),
            limits,
        }
    }

    pub(crate) fn insert(&mut self, prefix: Prefix, group: GroupId) -> Result<Option<GroupId>, TableFull> {
        let (outcome, table, limit) = match prefix.addr() {
            IpAddr::V4(addr) => {
                (self.v4.insert(addr.into(), prefix.len(), group.0), "routes_v4", self.limits.routes_v4)
            }
            IpAddr::V6(addr) => {
                (self.v6.insert(addr.into(), prefix.len(), group.0), "routes_v6", self.limits.routes_v6)
            }
        };
        outcome.map(|before| before.map(GroupId)).map_err(|_| TableFull { table, limit })
    }

    pub(crate) fn remove(&mut self, prefix: Prefix) -> Option<GroupId> {
        match prefix.addr() {
            IpAddr::V4(addr) => self.v4.remove(addr.into(), prefix.len()),
            IpAddr::V6(addr) => self.v6.remove(addr.into(), prefix.len()),
        }
        .map(GroupId)
    }

    /// Removes these, from the last to the first, and tells the group of each that was there.
    pub(crate) fn remove_all(&mut self, prefixes: &[Prefix], mut gone: impl FnMut(GroupId)) {
        let (mut v4, mut v6) = (self.v4.removing(), self.v6.removing());
        for prefix in prefixes.iter().rev() {
            let group = match prefix.addr() {
                IpAddr::V4(addr) => v4.remove(addr.into(), prefix.len()),
                IpAddr::V6(addr) => v6.remove(addr.into(), prefix.len()),
            };
            if let Some(group) = group {
                gone(GroupId(group));
            }
        }
    }

    pub(crate) fn retire(&mut self, epoch: u64, safe: u64) {
        self.v4.retire(epoch, safe);
        self.v6.retire(epoch, safe);
    }

    /// The group that the very prefix leads to.
    pub fn get(&self, prefix: Prefix) -> Option<GroupId> {
        match prefix.addr() {
            IpAddr::V4(addr) => self.v4.get(addr.into(), prefix.len()),
            IpAddr::V6(addr) => self.v6.get(addr.into(), prefix.len()),
        }
        .map(GroupId)
    }

    /// How many routes a family has.
    pub fn len(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4.len(),
            Family::V6 => self.v6.len(),
        }
    }

    /// Has the table no route at all?
    pub fn is_empty(&self) -> bool {
        Family::ALL.iter().all(|family| self.len(*family) == 0)
    }

    /// Memory of both families' look-up structures, in bytes.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }

    /// The addresses at which both families' look-up structures lie: see [`Table::places`].
    pub fn places(&self) -> Vec<Range<usize>> {
        [self.v4.places(), self.v6.places()].concat()
    }

    pub(crate) fn reader(&self) -> FibReader {
        FibReader { v4: self.v4.reader(), v6: self.v6.reader() }
    }
}

/// The reader's side: cheap to clone, never waits.
#[derive(Clone)]
pub struct FibReader {
    v4: Lookup<u32>,
    v6: Lookup<u128>,
}

impl FibReader {
    /// The groups of many IPv4 addresses: `groups[i]` for `addrs[i]`, [`GroupId::NONE`] where no route covers one.
    #[inline]
    pub fn lookup_v4_batch(&self, addrs: &[u32], groups: &mut [u32]) {
        self.v4.lookup_batch(addrs, groups);
    }

    /// As [`Self::lookup_v4_batch`], for IPv6.
    #[inline]
    pub fn lookup_v6_batch(&self, addrs: &[u128], groups: &mut [u32]) {
        self.v6.lookup_batch(addrs, groups);
    }

    /// The group of the longest prefix that covers an IPv4 address.
    #[inline]
    pub fn lookup_v4(&self, addr: u32) -> Option<GroupId> {
        self.v4.lookup(addr).map(GroupId)
    }
}

/// A table holds at most 2³¹ routes, far beyond any memory.
fn clamp(routes: usize) -> u32 {
    u32::try_from(routes).unwrap_or(u32::MAX)
}
