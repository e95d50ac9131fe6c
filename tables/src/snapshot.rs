//! Publication: one writer, readers that never wait (ARCHITECTURE.md, D5).
//!
//! Ports, adjacencies and groups are small and form one immutable [`State`], swapped as a whole. Routes are many
//! and live in the [`Fib`], changed in place. The order that keeps both in step:
//!
//! 1. the writer stages adjacencies and groups and calls [`Writer::publish`], which swaps the state in and, where
//!    a group is new, waits until every reader has seen it;
//! 2. only then may a route name that group;
//! 3. removal runs the other way round: routes first, then [`Writer::remove_group`] and the next publication.
//!
//! A row may be taken again at once: within one state rows are consistent, and a route to the row's new group waits
//! for step 1.

use std::sync::Arc;

use ::policy::compile::{RuleId, Usage};
use ::policy::judge::Step;
use ::policy::rule::{Checks, SetId};
use ::policy::sets::Member;
use arc_swap::{ArcSwap, Cache};
use model::{PortId, Prefix, ReversePath};
use packet::FlowHash;

use crate::buckets::Buckets;
use crate::epoch::Epochs;
use crate::policy::{self, PolicyWriter};
use crate::{
    AddressSet, Adjacency, AdjacencyId, EndpointPolicy, Fib, FibReader, FlowRules, Group, GroupId,
    HostEndpoints, Limits, Nat, NextHops, Policy, Port, Ports, TableFull, TunnelEnd, WorkloadTunnels,
};

/// Everything but the routes, as one epoch shows it.
///
/// All workers read it at every batch, so it and its parts begin and end at cache lines, two of them as processors fetch
/// them: what somebody writes all the time beside it would be fetched again and again (false sharing).
#[derive(Clone, Debug, Default)]
#[repr(align(128))]
pub struct State {
    /// The ports.
    pub ports: Arc<Ports>,
    adjacencies: Arc<Vec<Option<Adjacency>>>,
    groups: Arc<Vec<Option<Group>>>,
    /// Groups and adjacencies as the walk reads them; compiled by [`Writer::publish`].
    pub next_hops: Arc<NextHops>,
    /// Tunnels that end here.
    pub tunnel_ends: Arc<Vec<TunnelEnd>>,
    /// This router's own addresses: nothing that comes out of a tunnel may be from one.
    pub own_addresses: Arc<AddressSet>,
    /// Tunnel packets that workloads may not send.
    pub workload_tunnels: WorkloadTunnels,
    /// What is translated.
    pub nat: Arc<Nat>,
    /// What endpoints may send and get.
    pub policy: Arc<Policy>,
    /// What flows of workloads are held to besides.
    pub flow_rules: FlowRules,
    /// How sources of packets from uplinks are held to the routes.
    pub reverse_path: ReversePath,
    /// How flows choose among several next hops.
    pub flow_hash: FlowHash,
    /// May packets be forwarded? Not before the slow path is in sync.
    pub ready: bool,
}

impl State {
    /// The adjacency, if the row is taken.
    #[inline]
    pub fn adjacency(&self, id: AdjacencyId) -> Option<&Adjacency> {
        self.adjacencies.get(id.0 as usize)?.as_ref()
    }

    /// The group, if the row is taken.
    #[inline]
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.0 as usize)?.as_ref()
    }
}

/// What readers and the writer share.
struct Shared {
    state: Arc<ArcSwap<State>>,
    epochs: Epochs,
}

/// Row numbers of a table, and which are free.
struct Rows {
    table: &'static str,
    limit: usize,
    next: u32,
    free: Vec<u32>,
}

impl Rows {
    fn new(table: &'static str, limit: usize) -> Rows {
        Rows { table, limit, next: 0, free: Vec::new() }
    }

    fn take(&mut self) -> Result<u32, TableFull> {
        if let Some(row) = self.free.pop() {
            return Ok(row);
        }
        if self.next as usize >= self.limit {
            return Err(TableFull { table: self.table, limit: self.limit });
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    fn give_back(&mut self, row: u32) {
        self.free.push(row);
    }

    fn taken(&self) -> usize {
        self.next as usize - self.free.len()
    }
}

/// The slow path's end: the one that changes tables.
pub struct Writer {
    shared: Arc<Shared>,
    staged: State,
    fib: Fib,
    limits: Limits,
    adjacency_rows: Rows,
    group_rows: Rows,
    /// Groups staged since the last publication: no route may name them yet.
    unpublished_groups: Vec<GroupId>,
    /// Which flows of each group, by row, go to which member: remembered, so that only those move that must.
    buckets: Vec<Buckets>,
    policy: PolicyWriter,
    /// The epoch by whose end every reader has the policy that was published last.
    policy_seen_by: u64,
    /// Ports, and with them which policy is whose, may have changed since the last publication.
    ports_changed: bool,
    /// Something that next hops are compiled of has changed since the last publication.
    next_hops_changed: bool,
    readers: usize,
}

impl Writer {
    /// Empty tables of these sizes. Forwarding stays closed until [`Self::set_ready`].
    pub fn new(limits: Limits) -> Writer {
        let shared = Shared {
            state: Arc::new(ArcSwap::from_pointee(State::default())),
            epochs: Epochs::new(limits.readers),
        };
        Writer {
            shared: Arc::new(shared),
            staged: State::default(),
            fib: Fib::new(limits),
            limits,
            adjacency_rows: Rows::new("adjacencies", limits.adjacencies),
            group_rows: Rows::new("groups", limits.groups),
            unpublished_groups: Vec::new(),
            buckets: Vec::new(),
            policy: PolicyWriter::new(limits.policy),
            policy_seen_by: 0,
            ports_changed: false,
            next_hops_changed: false,
            readers: 0,
        }
    }

    /// A reader for one worker; `None` where all of [`Limits::readers`] are taken.
    pub fn reader(&mut self) -> Option<Reader> {
        if self.readers == self.limits.readers {
            return None;
        }
        self.readers += 1;
        Some(Reader {
            state: Cache::new(Arc::clone(&self.shared.state)),
            fib: self.fib.reader(),
            shared: Arc::clone(&self.shared),
            index: self.readers - 1,
        })
    }

    /// The sizes of the tables.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the next publication will show.
    pub fn staged(&self) -> &State {
        &self.staged
    }

    /// The routes as they are.
    pub fn fib(&self) -> &Fib {
        &self.fib
    }

    /// Rows taken of adjacencies and of groups.
    pub fn taken(&self) -> (usize, usize) {
        (self.adjacency_rows.taken(), self.group_rows.taken())
    }

    /// Stages a port: new, or changed.
    pub fn put_port(&mut self, port: Port) -> Result<(), TableFull> {
        if port.id.index() >= self.limits.ports {
            return Err(TableFull { table: "ports", limit: self.limits.ports });
        }
        self.ports_mut().put(port);
        Ok(())
    }

    /// Stages the removal of a port. Adjacencies that still name it lead to drops, not to another port.
    pub fn remove_port(&mut self, id: PortId) -> Option<Port> {
        self.ports_mut().remove(id)
    }

    /// Stages a new adjacency.
    pub fn insert_adjacency(&mut self, adjacency: Adjacency) -> Result<AdjacencyId, TableFull> {
        let row = self.adjacency_rows.take()?;
        put_row(self.adjacencies_mut(), row, adjacency);
        Ok(AdjacencyId(row))
    }

    /// Stages a change of an adjacency: every route through it follows, and none is touched.
    pub fn replace_adjacency(&mut self, id: AdjacencyId, adjacency: Adjacency) {
        put_row(self.adjacencies_mut(), id.0, adjacency);
    }

    /// Stages the removal of an adjacency that no group names any more.
    pub fn remove_adjacency(&mut self, id: AdjacencyId) {
        debug_assert!(self.staged.adjacency(id).is_some(), "an adjacency is removed once");
        if let Some(row) = self.adjacencies_mut().get_mut(id.0 as usize) {
            *row = None;
            self.adjacency_rows.give_back(id.0);
        }
    }

    /// Stages a new group. Routes may name it after the next [`Self::publish`].
    pub fn insert_group(&mut self, group: Group) -> Result<GroupId, TableFull> {
        let row = self.group_rows.take()?;
        put_row(self.groups_mut(), row, group);
        self.buckets.resize_with(self.staged.groups.len(), Buckets::default);
        self.buckets[row as usize] = Buckets::default();
        self.unpublished_groups.push(GroupId(row));
        Ok(GroupId(row))
    }

    /// [`Self::insert_group`], for routes that led to another group before: flows that can stay with their next hop do.
    pub fn insert_group_after(&mut self, group: Group, before: GroupId) -> Result<GroupId, TableFull> {
        let id = self.insert_group(group)?;
        if let Some(buckets) = self.buckets.get(before.0 as usize) {
            self.buckets[id.0 as usize] = buckets.clone();
        }
        Ok(id)
    }

    /// Stages a change of a group: every route to it follows, and none is touched.
    pub fn replace_group(&mut self, id: GroupId, group: Group) {
        put_row(self.groups_mut(), id.0, group);
    }

    /// Stages the removal of a group that no route names any more.
    pub fn remove_group(&mut self, id: GroupId) {
        debug_assert!(self.staged.group(id).is_some(), "a group is removed once");
        if let Some(row) = self.groups_mut().get_mut(id.0 as usize) {
            *row = None;
            self.unpublished_groups.retain(|unpublished| *unpublished != id);
            self.group_rows.give_back(id.0);
        }
    }

    /// Stages the tunnels that end here.
    pub fn set_tunnel_ends(&mut self, ends: Vec<TunnelEnd>) {
        self.staged.tunnel_ends = Arc::new(ends);
    }

    /// Stages this router's own addresses.
    pub fn set_own_addresses(&mut self, own: AddressSet) {
        self.staged.own_addresses = Arc::new(own);
    }

    /// Stages the check of sources on uplinks.
    pub fn set_reverse_path(&mut self, reverse_path: ReversePath) {
        self.staged.reverse_path = reverse_path;
    }

    /// Stages how flows choose among several next hops. Another one moves nearly all of them.
    pub fn set_flow_hash(&mut self, flow_hash: FlowHash) {
        self.staged.flow_hash = flow_hash;
    }

    /// Stages which tunnel packets workloads may not send.
    pub fn set_workload_tunnels(&mut self, tunnels: WorkloadTunnels) {
        self.staged.workload_tunnels = tunnels;
    }

    /// Stages what flows of workloads are held to besides policy.
    pub fn set_flow_rules(&mut self, rules: FlowRules) {
        // What is under way has been let pass by the rules before.
        self.policy.changed |= self.staged.flow_rules != rules;
        self.staged.flow_rules = rules;
    }

    /// Stages what is translated.
    pub fn set_nat(&mut self, nat: Nat) {
        self.staged.nat = Arc::new(nat);
    }

    /// Stages what is asked of packets from and to an endpoint, by its name in [`crate::Endpoint`], whether or not a port
    /// has it yet.
    ///
    /// # Errors
    /// The policies are too many or too long; nothing is changed.
    pub fn put_policy(&mut self, endpoint: &str, policy: &EndpointPolicy) -> Result<(), TableFull> {
        self.policy.put(endpoint, policy)
    }

    /// Stages that nothing is asked at an endpoint any more.
    pub fn remove_policy(&mut self, endpoint: &str) {
        self.policy.remove(endpoint);
    }

    /// Stages which ports are host endpoints'.
    pub fn set_host_endpoints(&mut self, host_endpoints: HostEndpoints) {
        self.policy.set_host_endpoints(host_endpoints);
    }

    /// Stages a whole set of addresses or ports: what it had before is forgotten.
    ///
    /// # Errors
    /// Its members are too many; nothing is changed.
    pub fn put_set(&mut self, id: SetId, members: impl IntoIterator<Item = Member>) -> Result<(), TableFull> {
        self.policy.changed = true;
        self.policy.compiler.put_set(id, members).map_err(policy::table_full)
    }

    /// Stages a change of a set: first what is removed, then what is added.
    ///
    /// # Errors
    /// As [`Self::put_set`].
    pub fn update_set(&mut self, id: SetId, removed: &[Member], added: &[Member]) -> Result<(), TableFull> {
        self.policy.changed = true;
        self.policy.compiler.update_set(id, removed, added).map_err(policy::table_full)
    }

    /// Stages the removal of a set.
    pub fn remove_set(&mut self, id: SetId) {
        self.policy.changed = true;
        self.policy.compiler.remove_set(id);
    }

    /// What of policy's limits is in use.
    pub fn policy_usage(&self) -> Usage {
        self.policy.compiler.usage()
    }

    /// What is asked at each endpoint, and of which interfaces, as [`Writer::fingerprints`] takes it.
    pub(crate) fn policy_meanings(&self) -> Vec<(String, u64)> {
        self.policy.meanings()
    }

    /// What the number of a rule stands for: the checks it is in, and the step.
    pub fn step(&self, rule: RuleId) -> Option<(&Arc<Checks>, Step)> {
        self.policy.compiler.step(rule)
    }

    /// Stages the opening (or closing) of forwarding.
    pub fn set_ready(&mut self, ready: bool) {
        self.staged.ready = ready;
    }

    /// Shows what is staged to every reader from its next batch on.
    ///
    /// Returns after every reader has seen it where a group is new, at once otherwise; but where policy changes, it begins
    /// when every reader has seen the change before.
    pub fn publish(&mut self) {
        if std::mem::take(&mut self.next_hops_changed) {
            let State { ports, adjacencies, groups, .. } = &self.staged;
            self.staged.next_hops =
                Arc::new(NextHops::compile(groups, adjacencies, ports, &mut self.buckets));
        }
        let policy_changed = self.publish_policy();
        self.shared.state.store(Arc::new(self.staged.clone()));
        let epoch = self.shared.epochs.advance();
        if policy_changed {
            self.policy_seen_by = epoch;
        }
        if !self.unpublished_groups.is_empty() {
            self.shared.epochs.wait_for(epoch);
            self.unpublished_groups.clear();
        }
        self.reclaim();
    }

    /// Returns after every reader has seen all that was published: after a batch of each, unless the scheduler keeps a worker
    /// from its core.
    pub fn wait_for_readers(&mut self) {
        let epoch = self.shared.epochs.advance();
        self.shared.epochs.wait_for(epoch);
    }

    /// Compiles policy where it has changed.
    fn publish_policy(&mut self) -> bool {
        if !std::mem::take(&mut self.ports_changed) && !self.policy.changed {
            return false;
        }
        // The compiler takes up again what the publication before the last one was made of.
        let wait = || self.shared.epochs.wait_for(self.policy_seen_by);
        let published = self.policy.publish(&self.staged.ports, &self.staged.policy, wait);
        let changed = published.is_some();
        if let Some(policy) = published {
            self.staged.policy = Arc::new(policy);
        }
        changed
    }

    /// Makes a route lead to a published group, in place; gives the one that it led to before.
    ///
    /// # Panics
    /// In debug builds, where the group wasn't published: a reader could see a route without its next hops.
    pub fn insert_route(&mut self, prefix: Prefix, group: GroupId) -> Result<Option<GroupId>, TableFull> {
        debug_assert!(self.staged.group(group).is_some(), "a route needs its group");
        debug_assert!(!self.unpublished_groups.contains(&group), "publish a group before its routes");
        self.fib.insert(prefix, group)
    }

    /// Removes a route, in place; gives the group that it led to.
    pub fn remove_route(&mut self, prefix: Prefix) -> Option<GroupId> {
        self.fib.remove(prefix)
    }

    /// Removes many routes, in place, and tells the group of each that was there: sooner done than one by one where they are in
    /// the order of their addresses, those that others lie in first.
    pub fn remove_routes(&mut self, prefixes: &[Prefix], gone: impl FnMut(GroupId)) {
        self.fib.remove_all(prefixes, gone);
    }

    /// Gives memory of the forwarding table that no reader can see any more back for use. Publishing does this too; call it
    /// now and then during a long run of route changes.
    pub fn reclaim(&mut self) {
        // What is unlinked up to now belongs to the epoch that this call ends.
        if self.shared.epochs.oldest_seen() >= self.policy_seen_by {
            self.policy.compiler.settle();
        }
        let ended = self.shared.epochs.current();
        self.shared.epochs.advance();
        let safe = self.shared.epochs.oldest_seen();
        self.fib.retire(ended, safe.saturating_sub(1));
    }
}

impl Writer {
    fn ports_mut(&mut self) -> &mut Ports {
        self.next_hops_changed = true;
        self.ports_changed = true;
        Arc::make_mut(&mut self.staged.ports)
    }

    fn adjacencies_mut(&mut self) -> &mut Vec<Option<Adjacency>> {
        self.next_hops_changed = true;
        Arc::make_mut(&mut self.staged.adjacencies)
    }

    fn groups_mut(&mut self) -> &mut Vec<Option<Group>> {
        self.next_hops_changed = true;
        Arc::make_mut(&mut self.staged.groups)
    }
}

fn put_row<T>(rows: &mut Vec<Option<T>>, row: u32, value: T) {
    let row = row as usize;
    if rows.len() <= row {
        rows.resize_with(row + 1, || None);
    }
    rows[row] = Some(value);
}

/// A worker's end. It reports a quiescent state whenever it takes a [`Snapshot`], so take one a batch.
pub struct Reader {
    state: Cache<Arc<ArcSwap<State>>, Arc<State>>,
    fib: FibReader,
    shared: Arc<Shared>,
    index: usize,
}

impl Reader {
    /// The tables for one batch. The one before is given up: it can't outlive this call.
    #[inline]
    pub fn snapshot(&mut self) -> Snapshot<'_> {
        if self.shared.epochs.is_online(self.index) {
            self.shared.epochs.quiesce(self.index);
        } else {
            self.shared.epochs.enter(self.index);
        }
        Snapshot { state: self.state.load(), fib: &self.fib }
    }

    /// Call between batches where there may be none for long: the writer waits for a reader that is online.
    pub fn quiesce(&mut self) {
        if self.shared.epochs.is_online(self.index) {
            self.shared.epochs.quiesce(self.index);
        }
    }

    /// Call before sleeping: the writer waits for no reader that is offline. [`Self::snapshot`] comes back.
    pub fn go_offline(&mut self) {
        self.shared.epochs.leave(self.index);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.go_offline();
    }
}

/// One consistent view of all tables.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    /// Ports, adjacencies and groups.
    pub state: &'a State,
    /// Routes.
    pub fib: &'a FibReader,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicyLimits;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    fn limits() -> Limits {
        Limits {
            ports: 8,
            adjacencies: 4,
            groups: 4,
            routes_v4: 1000,
            routes_v6: 1000,
            policy: PolicyLimits::NONE,
            readers: 2,
        }
    }

    fn neighbor(last: u8) -> Adjacency {
        Adjacency::unresolved(PortId(1), IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_reader_sees_what_was_published_and_nothing_before() {
        let mut writer = Writer::new(limits());
        let mut reader = writer.reader().unwrap();
        let adjacency = writer.insert_adjacency(neighbor(1)).unwrap();
        let group = writer.insert_group(Group::Forward(vec![adjacency])).unwrap();
        assert!(reader.snapshot().state.group(group).is_none());
        reader.go_offline();
        writer.publish();
        writer.insert_route(prefix("10.0.0.0/8"), group).unwrap();
        let snapshot = reader.snapshot();
        assert_eq!(snapshot.fib.lookup_v4(0x0a00_0001), Some(group));
        assert_eq!(snapshot.state.group(group), Some(&Group::Forward(vec![adjacency])));
    }

    #[test]
    fn full_tables_say_so_and_stay_as_they_were() {
        let mut writer = Writer::new(limits());
        for _ in 0..4 {
            writer.insert_group(Group::Blackhole).unwrap();
        }
        let full = writer.insert_group(Group::Blackhole).unwrap_err();
        assert_eq!(
            full.to_string(),
            "the table of groups is full at 4: raise limits.groups in the configuration"
        );
        assert_eq!(writer.taken(), (0, 4));
    }

    #[test]
    fn a_freed_row_is_taken_again() {
        let mut writer = Writer::new(limits());
        let rows: Vec<_> = (0..4).map(|n| writer.insert_adjacency(neighbor(n)).unwrap()).collect();
        writer.remove_adjacency(rows[2]);
        assert_eq!(writer.taken(), (3, 0));
        assert_eq!(writer.insert_adjacency(neighbor(9)).unwrap(), rows[2]);
    }

    #[test]
    fn readers_are_limited() {
        let mut writer = Writer::new(limits());
        let _one = writer.reader().unwrap();
        let _two = writer.reader().unwrap();
        assert!(writer.reader().is_none());
    }

    #[test]
    fn a_reader_without_batches_doesnt_hold_up_the_writer() {
        let mut writer = Writer::new(limits());
        let mut reader = writer.reader().unwrap();
        reader.quiesce();
        writer.insert_group(Group::Blackhole).unwrap();
        writer.publish();
        reader.snapshot();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    reader.quiesce();
                }
            });
            writer.insert_group(Group::Blackhole).unwrap();
            // Returns at all.
            writer.publish();
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn routes_of_both_families_go_together() {
        let mut writer = Writer::new(limits());
        let groups = [Group::Blackhole, Group::Unreachable].map(|group| writer.insert_group(group).unwrap());
        writer.publish();
        let all = ["10.0.0.0/8", "10.65.0.0/24", "10.65.1.0/24", "fd00::/8", "fd00::/64"].map(prefix);
        for (number, route) in all.into_iter().enumerate() {
            writer.insert_route(route, groups[number % 2]).unwrap();
        }
        let mut gone = Vec::new();
        // One of them twice.
        writer.remove_routes(&[all[1], all[2], all[1], all[4]], |group| gone.push(group));
        assert_eq!(gone, [groups[0], groups[1], groups[0]]);
        assert_eq!(all.map(|route| writer.fib().get(route).is_some()), [true, false, false, true, false]);
        let reader = writer.fib().reader();
        let mut found = [0];
        reader.lookup_v4_batch(&[0x0a41_0001], &mut found);
        assert_eq!(found, [groups[0].0]);
        reader.lookup_v6_batch(&[0xfd00 << 112], &mut found);
        assert_eq!(found, [groups[1].0]);
    }

    /// The promise of this file: while routes come and go, a reader never finds a route whose group is missing.
    #[test]
    fn no_reader_ever_sees_a_route_without_its_group() {
        let mut writer = Writer::new(limits());
        let mut reader = writer.reader().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let hits = Arc::new(AtomicU64::new(0));
        let (stopped, found) = (Arc::clone(&stop), Arc::clone(&hits));
        let looking = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let snapshot = reader.snapshot();
                for last in 0..32u32 {
                    if let Some(group) = snapshot.fib.lookup_v4(0x0a00_0000 | last) {
                        let Some(Group::Forward(members)) = snapshot.state.group(group) else {
                            panic!("route to {group:?} without its group");
                        };
                        assert!(members.iter().all(|member| snapshot.state.adjacency(*member).is_some()));
                        found.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        // On a busy machine the reader may not have begun by then: the writer goes on until it has found something.
        let rounds = (0..u32::MAX).take_while(|round| {
            *round < 2_000 || hits.load(Ordering::Relaxed) == 0 && !looking.is_finished()
        });
        for round in rounds {
            let adjacency = writer.insert_adjacency(neighbor((round % 250) as u8)).unwrap();
            let group = writer.insert_group(Group::Forward(vec![adjacency])).unwrap();
            writer.publish();
            let route = Prefix::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | (round % 32))), 32).unwrap();
            writer.insert_route(route, group).unwrap();
            std::thread::yield_now();
            writer.remove_route(route);
            writer.remove_group(group);
            writer.remove_adjacency(adjacency);
            writer.publish();
        }
        stop.store(true, Ordering::Relaxed);
        looking.join().expect("the reader found every group");
    }
}
