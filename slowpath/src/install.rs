//! From the RIB into the tables: what should be there against what is.
//!
//! Order (ARCHITECTURE.md, a route's walk, step 9): adjacency, group, publication, route; removals the other way round.
//! A change of a neighbour or of the way to a gateway rewrites rows, never routes.

use std::collections::{BTreeMap, BTreeSet};

use ahash::{AHashMap, AHashSet};
use model::{IfIndex, MacAddr, PortId, Prefix};
use tables::{Adjacency, AdjacencyId, Group, GroupId, TableFull, Writer};
use tracing::warn;

use crate::resolve::{Hop, NeighborAddr, Resolution, resolve};
use crate::rib::{Offer, Rib};
use crate::target::{Target, TargetId};

/// Room for changes that is kept from one call to the next.
const CHANGES_KEPT: usize = 1 << 16;

/// What the installer must know of ports and neighbours.
pub trait Surroundings {
    /// The port on this link and its MAC address; `None` where the link isn't a port.
    fn port(&self, ifindex: IfIndex) -> Option<(PortId, MacAddr)>;

    /// The host port, its far side's MAC address (ours) and the kernel's (D1a).
    fn host_port(&self) -> Option<(PortId, MacAddr, MacAddr)>;

    /// A neighbour's MAC address, where it is known and usable.
    fn mac(&self, neighbor: NeighborAddr) -> Option<MacAddr>;

    /// Has the neighbour been seen to fail? Groups with others go on without it.
    fn is_lost(&self, _: NeighborAddr) -> bool {
        false
    }
}

/// Whom an adjacency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AdjacencyKey {
    /// This box's kernel.
    Host,
    /// Nobody yet: packets come up, and the slow path asks for their destination.
    Attached(IfIndex),
    /// One neighbour, and the tunnel through it, where there is one.
    Neighbor(Hop),
}

struct AdjacencyRow {
    id: AdjacencyId,
    uses: usize,
}

struct GroupRow {
    id: GroupId,
    members: Members,
}

/// Who packets may leave by, each with its weight beside the others'; in order, none twice.
type Members = Vec<(AdjacencyKey, u32)>;

/// Keeps the tables equal to the RIB.
pub struct Installer {
    writer: Writer,
    groups: AHashMap<TargetId, GroupRow>,
    /// Routes in the forwarding table that lead to each group, by its number, and changes under way that will.
    uses: Vec<u32>,
    /// The target asked for last, and its group: routes that come together mostly lead to the same.
    latest: Option<(TargetId, GroupId)>,
    adjacencies: BTreeMap<AdjacencyKey, AdjacencyRow>,
    /// Of the changes under way; empty between two calls, and kept for the room that they have.
    inserts: Vec<(Prefix, GroupId)>,
    removals: Vec<Prefix>,
    /// Prefixes that a full table refused; tried again when others leave.
    refused: AHashSet<Prefix>,
    warned_full: BTreeSet<&'static str>,
    /// Groups or adjacencies have been made or dropped since [`Self::routes`] began.
    groups_changed: bool,
}

impl Installer {
    /// An installer into these tables, which must be empty of routes.
    pub fn new(writer: Writer) -> Installer {
        Installer {
            writer,
            groups: AHashMap::new(),
            uses: Vec::new(),
            latest: None,
            adjacencies: BTreeMap::new(),
            inserts: Vec::new(),
            removals: Vec::new(),
            refused: AHashSet::new(),
            warned_full: BTreeSet::new(),
            groups_changed: false,
        }
    }

    /// The tables, for ports and for what `show` tells.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// The tables, to read.
    pub fn tables(&self) -> &Writer {
        &self.writer
    }

    /// Is the prefix's winner in the fast path's table?
    pub fn is_installed(&self, prefix: Prefix) -> bool {
        self.writer.fib().get(prefix).is_some()
    }

    /// Routes that a full table refused.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Neighbours that routes need, plainly and by each tunnel, and how many targets' groups need each.
    pub fn needed_hops(&self) -> impl Iterator<Item = (Hop, usize)> {
        self.adjacencies.iter().filter_map(|(key, row)| match key {
            AdjacencyKey::Neighbor(hop) => Some((*hop, row.uses)),
            _ => None,
        })
    }

    /// Neighbours that are the next hop of some route, rather than just a destination.
    pub fn gateways<'a>(&'a self, rib: &'a Rib) -> impl Iterator<Item = NeighborAddr> + 'a {
        let leads_on = |id: &TargetId| matches!(rib.targets().get(*id), Some(Target::Via(_)));
        let rows = self.groups.iter().filter(move |(id, _)| leads_on(id));
        rows.flat_map(|(_, row)| &row.members).filter_map(|(key, _)| match key {
            AdjacencyKey::Neighbor(hop) => Some(hop.neighbor),
            AdjacencyKey::Host | AdjacencyKey::Attached(_) => None,
        })
    }

    /// Brings the routes to these prefixes into line with their winners; says whether there are other groups for it than
    /// before, which [`Self::rows`] publishes.
    pub fn routes(
        &mut self,
        rib: &Rib,
        changed: impl IntoIterator<Item = (Prefix, Option<Offer>)>,
        surroundings: &impl Surroundings,
    ) -> bool {
        self.groups_changed = false;
        let mut inserts = std::mem::take(&mut self.inserts);
        let mut removals = std::mem::take(&mut self.removals);
        for (prefix, winner) in changed {
            let wanted = winner.and_then(|offer| self.group(rib, offer.target, prefix, surroundings));
            match wanted {
                Some(group) => inserts.push((prefix, group)),
                None => removals.push(prefix),
            }
        }
        self.writer.publish();
        self.remove_routes(&removals);
        removals.clear();
        for (prefix, group) in inserts.drain(..) {
            self.insert_route(prefix, group);
        }
        inserts.shrink_to(CHANGES_KEPT);
        removals.shrink_to(CHANGES_KEPT);
        (self.inserts, self.removals) = (inserts, removals);
        self.retry_refused(rib, surroundings);
        self.drop_unused();
        self.writer.reclaim();
        self.groups_changed
    }

    /// Brings groups and adjacencies into line with ports, neighbours and the ways to gateways. Routes stay.
    ///
    /// The groups whose members are others now are counted.
    pub fn rows(&mut self, rib: &Rib, surroundings: &impl Surroundings) -> usize {
        let mut rewritten = 0;
        let targets: Vec<TargetId> = self.groups.keys().copied().collect();
        for id in targets {
            let Some(target) = rib.targets().get(id) else { continue };
            let members = members(&resolve(rib, target), surroundings);
            if self.groups.get(&id).is_some_and(|row| row.members != members) {
                self.replace_members(id, target, members);
                rewritten += 1;
            }
        }
        for (key, row) in &self.adjacencies {
            let fresh = adjacency(*key, surroundings);
            if self.writer.staged().adjacency(row.id) != Some(&fresh) {
                self.writer.replace_adjacency(row.id, fresh);
            }
        }
        self.drop_unused();
        self.writer.publish();
        rewritten
    }

    /// The group of a target, made where it doesn't exist, counted as used once more. A route's set of next hops that
    /// has lost one is another target: made after the group that the route to `prefix` led to before, it leaves the flows
    /// of the others where they are.
    fn group(
        &mut self,
        rib: &Rib,
        id: TargetId,
        prefix: Prefix,
        surroundings: &impl Surroundings,
    ) -> Option<GroupId> {
        let known = match self.latest {
            Some((latest, group)) if latest == id => Some(group),
            _ => self.groups.get(&id).map(|row| row.id),
        };
        if let Some(group) = known {
            self.latest = Some((id, group));
            self.uses[group.0 as usize] += 1;
            return known;
        }
        let target = rib.targets().get(id)?;
        let members = members(&resolve(rib, target), surroundings);
        let before = self.writer.fib().get(prefix);
        match self.make_group(target, &members, before, surroundings) {
            Ok(group) => {
                self.groups_changed = true;
                self.groups.insert(id, GroupRow { id: group, members });
                let number = group.0 as usize;
                self.uses.resize(self.uses.len().max(number + 1), 0);
                self.uses[number] = 1;
                Some(group)
            }
            Err(full) => {
                self.release(&members);
                self.warn_full(full);
                None
            }
        }
    }

    fn make_group(
        &mut self,
        target: &Target,
        members: &[(AdjacencyKey, u32)],
        before: Option<GroupId>,
        surroundings: &impl Surroundings,
    ) -> Result<GroupId, TableFull> {
        for (key, _) in members {
            if let Some(row) = self.adjacencies.get_mut(key) {
                row.uses += 1;
                continue;
            }
            let id = self.writer.insert_adjacency(adjacency(*key, surroundings))?;
            self.adjacencies.insert(*key, AdjacencyRow { id, uses: 1 });
        }
        let group = self.group_value(target, members);
        match before {
            Some(before) => self.writer.insert_group_after(group, before),
            None => self.writer.insert_group(group),
        }
    }

    fn group_value(&self, target: &Target, members: &[(AdjacencyKey, u32)]) -> Group {
        let rows = members.iter().filter_map(|(key, weight)| Some((self.adjacencies.get(key)?.id, *weight)));
        let (ids, weights): (Vec<AdjacencyId>, Vec<u32>) = rows.unzip();
        match target {
            Target::Blackhole => Group::Blackhole,
            Target::Broadcast => Group::Broadcast,
            Target::Local => ids.first().map_or(Group::Unreachable, |host| Group::Local(*host)),
            Target::Rejected => Group::Rejected,
            Target::Prohibited => Group::Prohibited,
            _ if ids.is_empty() => Group::Unreachable,
            _ if weights.iter().any(|weight| *weight != weights[0]) => Group::Weighted(ids, weights),
            _ => Group::Forward(ids),
        }
    }

    fn replace_members(&mut self, id: TargetId, target: &Target, members: Members) {
        for (key, _) in &members {
            if let Some(row) = self.adjacencies.get_mut(key) {
                row.uses += 1;
                continue;
            }
            // Its addresses are filled in by the loop over all adjacencies that follows in `rows`.
            let blank = Adjacency::unresolved(PortId(u16::MAX), unspecified(*key));
            match self.writer.insert_adjacency(blank) {
                Ok(new) => {
                    self.adjacencies.insert(*key, AdjacencyRow { id: new, uses: 1 });
                }
                Err(full) => self.warn_full(full),
            }
        }
        let group = self.group_value(target, &members);
        let Some(row) = self.groups.get_mut(&id) else { return };
        let before = std::mem::replace(&mut row.members, members);
        self.writer.replace_group(row.id, group);
        self.release(&before);
    }

    fn insert_route(&mut self, prefix: Prefix, group: GroupId) {
        match self.writer.insert_route(prefix, group) {
            Ok(before) => {
                self.is_not_refused(prefix);
                if let Some(before) = before {
                    unuse(&mut self.uses, before);
                }
            }
            Err(full) => {
                self.refused.insert(prefix);
                unuse(&mut self.uses, group);
                self.warn_full(full);
            }
        }
    }

    fn remove_routes(&mut self, prefixes: &[Prefix]) {
        prefixes.iter().for_each(|prefix| self.is_not_refused(*prefix));
        let Installer { writer, uses, .. } = self;
        writer.remove_routes(prefixes, |before| unuse(uses, before));
    }

    fn is_not_refused(&mut self, prefix: Prefix) {
        // Mostly none is; even an empty set would be asked by a hash.
        if !self.refused.is_empty() {
            self.refused.remove(&prefix);
        }
    }

    fn retry_refused(&mut self, rib: &Rib, surroundings: &impl Surroundings) {
        let limits = *self.writer.limits();
        let has_room = |installer: &Installer, prefix: Prefix| {
            let limit = if prefix.addr().is_ipv4() { limits.routes_v4 } else { limits.routes_v6 };
            installer.writer.fib().len(prefix.family()) < limit
        };
        let again: Vec<Prefix> =
            self.refused.iter().copied().filter(|prefix| has_room(self, *prefix)).collect();
        for prefix in again {
            if !has_room(self, prefix) {
                continue;
            }
            // Its target's group is gone only where no other route used it; then it is made and published anew.
            let group = rib.get(prefix).and_then(|offer| self.group(rib, offer.target, prefix, surroundings));
            let Some(group) = group else {
                self.refused.remove(&prefix);
                continue;
            };
            self.writer.publish();
            self.insert_route(prefix, group);
        }
    }

    /// Removes groups that no route leads to, then adjacencies that no group names.
    fn drop_unused(&mut self) {
        let is_unused = |row: &GroupRow| self.uses.get(row.id.0 as usize).is_none_or(|uses| *uses == 0);
        let unused: Vec<TargetId> =
            self.groups.iter().filter(|(_, row)| is_unused(row)).map(|(target, _)| *target).collect();
        for target in unused {
            self.latest = None;
            if let Some(row) = self.groups.remove(&target) {
                self.groups_changed = true;
                self.writer.remove_group(row.id);
                self.release(&row.members);
            }
        }
        let Installer { writer, groups_changed, .. } = self;
        self.adjacencies.retain(|_, row| {
            let used = row.uses > 0;
            if !used {
                *groups_changed = true;
                writer.remove_adjacency(row.id);
            }
            used
        });
    }

    fn release(&mut self, members: &[(AdjacencyKey, u32)]) {
        for (key, _) in members {
            if let Some(row) = self.adjacencies.get_mut(key) {
                row.uses = row.uses.saturating_sub(1);
            }
        }
    }

    fn warn_full(&mut self, full: TableFull) {
        if self.warned_full.insert(full.table) {
            warn!(table = full.table, limit = full.limit, "{full}; what doesn't fit is not forwarded");
        }
    }
}

/// A route less leads to the group.
fn unuse(uses: &mut [u32], group: GroupId) {
    if let Some(uses) = uses.get_mut(group.0 as usize) {
        *uses = uses.saturating_sub(1);
    }
}

/// The adjacencies that packets to this end are written for.
fn members(resolution: &Resolution, surroundings: &impl Surroundings) -> Members {
    match resolution {
        Resolution::Blackhole
        | Resolution::Broadcast
        | Resolution::Rejected
        | Resolution::Prohibited
        | Resolution::Unreachable => Vec::new(),
        Resolution::Local => vec![(AdjacencyKey::Host, 1)],
        Resolution::Attached(ifindex) => match surroundings.port(*ifindex) {
            Some(_) => vec![(AdjacencyKey::Attached(*ifindex), 1)],
            // A link that is no port of ours is the kernel's business.
            None => vec![(AdjacencyKey::Host, 1)],
        },
        Resolution::Neighbors(hops) => {
            // Where all are lost, nothing is gained by leaving them out.
            let all_lost = hops.keys().all(|hop| surroundings.is_lost(hop.neighbor));
            let usable = hops.iter().filter(|(hop, _)| all_lost || !surroundings.is_lost(hop.neighbor));
            let key = |hop: &Hop| match (surroundings.port(hop.neighbor.ifindex), hop.tunnel) {
                (Some(_), _) => Some(AdjacencyKey::Neighbor(*hop)),
                (None, None) => Some(AdjacencyKey::Host),
                // The kernel knows no tunnel of ours: it would send the packet back to us.
                (None, Some(_)) => None,
            };
            let mut members: BTreeMap<AdjacencyKey, u32> = BTreeMap::new();
            let kernels = |key| key == AdjacencyKey::Host;
            for (key, weight) in usable.filter_map(|(hop, weight)| Some((key(hop)?, *weight))) {
                let sum = members.entry(key).or_default();
                // The kernel's links are one way, whatever their number, unless they have weights.
                *sum = if kernels(key) && weight == 1 { 1 } else { sum.saturating_add(weight) };
            }
            members.into_iter().collect()
        }
    }
}

/// The row of an adjacency as it should be now.
fn adjacency(key: AdjacencyKey, surroundings: &impl Surroundings) -> Adjacency {
    let none = PortId(u16::MAX);
    match key {
        AdjacencyKey::Host => match surroundings.host_port() {
            Some((port, ours, kernels)) => Adjacency::resolved(port, unspecified(key), kernels, ours),
            None => Adjacency::unresolved(none, unspecified(key)),
        },
        AdjacencyKey::Attached(ifindex) => {
            let port = surroundings.port(ifindex).map_or(none, |(port, _)| port);
            Adjacency::unresolved(port, unspecified(key))
        }
        AdjacencyKey::Neighbor(Hop { neighbor, tunnel }) => {
            let Some((port, ours)) = surroundings.port(neighbor.ifindex) else {
                return Adjacency::unresolved(none, neighbor.addr);
            };
            let plain = match surroundings.mac(neighbor) {
                Some(mac) => Adjacency::resolved(port, neighbor.addr, mac, ours),
                None => Adjacency::unresolved(port, neighbor.addr),
            };
            match tunnel.map(|tunnel| (tunnel.template(), tunnel.mtu)) {
                None => plain,
                Some((Some(template), mtu)) => plain.encapsulated(template).limited(mtu),
                Some((None, _)) => Adjacency::unresolved(none, neighbor.addr),
            }
        }
    }
}

fn unspecified(key: AdjacencyKey) -> std::net::IpAddr {
    match key {
        AdjacencyKey::Neighbor(hop) => hop.neighbor.addr,
        AdjacencyKey::Host | AdjacencyKey::Attached(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests;
