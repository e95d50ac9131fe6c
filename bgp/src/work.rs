//! What is due after an input: prefixes to decide, peers to tell.
//!
//! Work is taken in portions of [`Limits::work_per_call`](crate::Limits::work_per_call), so that one call never
//! takes long; what is left makes the next deadline "now".

use std::net::Ipv4Addr;
use std::sync::Arc;

use model::Family;

use crate::adj_rib_in::Tables;
use crate::adj_rib_out::{AdjRibOut, OutTable};
use crate::bmp::monitor::Shown;
use crate::decision::{Candidate, CandidatePeer, DEFAULT_LOCAL_PREF, Decision, Rules};
use crate::key::{Key, KeyV4, KeyV6};
use crate::loc_rib::{Entry, Index, Rib, Table};
use crate::nexthops::Nexthops;
use crate::output::{BestPath, BestPaths, Output};
use crate::pass::Portion;
use crate::path::{Path, Slot, mark};
use crate::speaker::monitoring::is_said;
use crate::speaker::{Peer, Speaker};
use crate::status::{Ineligible, Standing};
use crate::update_group::{Member, Progress};
use crate::wire::attributes::{Attributes, BLACKHOLE};

/// Where the tables of a key's family are.
pub(crate) trait FamilyKey: Key {
    const FAMILY: Family;
    fn table(rib: &mut Rib) -> &mut Table<Self>;
    fn out_table(told: &mut AdjRibOut) -> &mut OutTable<Self>;
    fn progress(member: &mut Member) -> &mut Progress<Self>;
    fn progress_of(member: &Member) -> &Progress<Self>;
}

impl FamilyKey for KeyV4 {
    const FAMILY: Family = Family::V4;
    fn table(rib: &mut Rib) -> &mut Table<Self> {
        &mut rib.v4
    }
    fn out_table(told: &mut AdjRibOut) -> &mut OutTable<Self> {
        &mut told.v4
    }
    fn progress(member: &mut Member) -> &mut Progress<Self> {
        &mut member.v4
    }
    fn progress_of(member: &Member) -> &Progress<Self> {
        &member.v4
    }
}

impl FamilyKey for KeyV6 {
    const FAMILY: Family = Family::V6;
    fn table(rib: &mut Rib) -> &mut Table<Self> {
        &mut rib.v6
    }
    fn out_table(told: &mut AdjRibOut) -> &mut OutTable<Self> {
        &mut told.v6
    }
    fn progress(member: &mut Member) -> &mut Progress<Self> {
        &mut member.v6
    }
    fn progress_of(member: &Member) -> &Progress<Self> {
        &member.v6
    }
}

/// Prefixes that are looked at for a next hop that has moved, or for a peer's paths, for each that may be decided: a look costs
/// as much less.
const LOOKS: usize = 4;

/// A prefix that was decided, and whether its best path is another or has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided<K> {
    pub(crate) index: Index,
    pub(crate) key: K,
    pub(crate) changed: bool,
}

impl Speaker {
    /// Does a portion of what is due.
    pub(crate) fn work(&mut self, out: &mut Vec<Output>) {
        let deferring = self.is_deferring();
        self.tables.interner.sweep();
        if !self.has_decisions() && !self.agenda.has_waiting(deferring) {
            return;
        }
        self.go_over_paths(out);
        let looks = self.config.limits.work_per_call * LOOKS;
        let [v4, v6] = &mut self.sweeps;
        v4.go_on(&mut self.tables.rib.v4, looks);
        v6.go_on(&mut self.tables.rib.v6, looks);
        // Each group is told of each prefix, and each member gets the bytes.
        let listeners = 1 + self.groups.len() + self.groups.members() / 16;
        let portion = (self.config.limits.work_per_call / listeners).max(64);
        self.work_family::<KeyV4>(portion, deferring, out);
        self.work_family::<KeyV6>(portion, deferring, out);
        let Tables { rib, interner, .. } = &mut self.tables;
        interner.begin_sweep(rib.len(Family::V4) + rib.len(Family::V6), false);
        rib.v4.shrink_at_work();
        rib.v6.shrink_at_work();
    }

    /// Begins to give memory back that large tables no longer need, if nothing is left to be done; from then on that is work,
    /// which the next [`Input::Tick`](crate::Input::Tick)s go on with. It is for when no route has changed for a while.
    pub fn rest(&mut self) {
        if self.has_work() {
            return;
        }
        let Tables { rib, interner, .. } = &mut self.tables;
        interner.begin_sweep(rib.len(Family::V4) + rib.len(Family::V6), true);
        rib.v4.shrink();
        rib.v6.shrink();
    }

    /// Goes on with what is left to be done to all paths of peers, unless enough waits to be decided.
    fn go_over_paths(&mut self, out: &mut Vec<Output>) {
        let work = self.config.limits.work_per_call;
        let slots: Vec<Slot> = self.agenda.with_left().collect();
        if slots.is_empty() || self.tables.rib.queued() >= work {
            return;
        }
        let mut portion = Portion { looks: work * LOOKS, changes: work };
        let Speaker { peers, tables, config, clusters, passes: [v4, v6], .. } = self;
        v4.go_on::<KeyV4>(peers, (config, clusters), tables, &mut portion, out);
        v6.go_on::<KeyV6>(peers, (config, clusters), tables, &mut portion, out);
        for slot in slots {
            self.agenda.touch(slot);
            self.vacate(slot);
        }
    }

    fn work_family<K: FamilyKey>(&mut self, portion: usize, deferring: bool, out: &mut Vec<Output>) {
        let decided = self.decide::<K>(portion, out);
        if !decided.is_empty() {
            self.tell_groups::<K>(&decided, out);
            let table = K::table(&mut self.tables.rib);
            // Everybody knows: what nobody has any more is forgotten.
            decided.iter().for_each(|decided| table.drop_if_empty(decided.index));
        }
        if self.agenda.has_waiting(deferring) {
            self.tell_waiting::<K>(deferring, out);
        }
    }

    /// Decides up to `portion` prefixes.
    fn decide<K: FamilyKey>(&mut self, portion: usize, out: &mut Vec<Output>) -> Vec<Decided<K>> {
        let Speaker { peers, tables: Tables { rib, nexthops, .. }, decision, config, monitor, .. } = self;
        let table = K::table(rib);
        let rules = Rules::of(config);
        let mut decided = Vec::with_capacity(table.queued().min(portion));
        let mut given = Given::default();
        for _ in 0..portion {
            let Some((index, entry)) = table.next_queued() else { break };
            if needs_no_comparison(entry.paths.as_slice(), nexthops) {
                decision.choose_only(entry.paths.as_slice().len());
            } else if !compare::<K>(index, entry, peers, nexthops, rules, decision) {
                continue;
            }
            let changed = apply_decision(entry, decision);
            let key = entry.key;
            decided.push(Decided { index, key, changed });
            let shown = Shown { index, prefix: key.prefix(), paths: entry.paths.as_slice() };
            monitor.note(shown, |path| is_said(peers, K::FAMILY, path));
            if changed {
                let paths = given.paths(entry.paths.as_slice(), decision, peers);
                if !paths.is_empty() || entry.is_given() {
                    entry.set_given(!paths.is_empty());
                    out.push(Output::RouteChanged { prefix: key.prefix(), paths });
                }
            }
        }
        decided
    }
}

/// Is there nothing to choose from, or one path that can be used?
fn needs_no_comparison(paths: &[Path], nexthops: &Nexthops) -> bool {
    let is_usable = |path: &Path| {
        !path.has(mark::INELIGIBLE)
            && path.imported.nexthop().is_none_or(|nexthop| nexthops.is_reachable(nexthop))
    };
    match paths {
        [] => true,
        [path] => is_usable(path),
        _ => false,
    }
}

/// Decides about a prefix, unless that is put off.
///
/// A route that moves to a next hop nobody has asked about yet stays where it is until the answer, which queues it again:
/// decided now, it would be gone for a moment.
fn compare<K: FamilyKey>(
    index: Index,
    entry: &Entry<K>,
    peers: &[Option<Peer>],
    nexthops: &mut Nexthops,
    rules: Rules,
    decision: &mut Decision,
) -> bool {
    let paths = entry.paths.as_slice();
    let is_awaited = |path: &Path| path.used_nexthop().is_some_and(|nexthop| nexthops.is_awaited(nexthop));
    let is_put_off = entry.is_given() && paths.iter().any(is_awaited);
    if !is_put_off {
        run_decision(paths, peers, nexthops, rules, decision);
    }
    for (at, path) in paths.iter().enumerate() {
        let out_of_reach = Some(&Standing::Ineligible(Ineligible::Unreachable));
        if (is_put_off || decision.standings.get(at) == out_of_reach)
            && let Some(nexthop) = path.used_nexthop()
        {
            nexthops.wait(nexthop, K::FAMILY, index);
        }
    }
    !is_put_off
}

/// Runs the decision process over one prefix's paths.
pub(crate) fn run_decision(
    paths: &[Path],
    peers: &[Option<Peer>],
    nexthops: &Nexthops,
    rules: Rules,
    decision: &mut Decision,
) {
    match paths {
        [path] => decision.run(&[candidate(path, peers, nexthops)], rules),
        paths => {
            let candidates: Vec<_> = paths.iter().map(|path| candidate(path, peers, nexthops)).collect();
            decision.run(&candidates, rules);
        }
    }
}

pub(crate) fn candidate<'a>(
    path: &'a Path,
    peers: &[Option<Peer>],
    nexthops: &Nexthops,
) -> Result<Candidate<'a>, Ineligible> {
    for (marks, reason) in [
        (mark::AS_LOOP, Ineligible::AsLoop),
        (mark::REFLECTION_LOOP, Ineligible::ReflectionLoop),
        (mark::ROUTE_LEAK, Ineligible::RouteLeak),
        (mark::OWN_NEXT_HOP, Ineligible::OwnNextHop),
        (mark::FILTERED, Ineligible::Filtered),
    ] {
        if path.has(marks) {
            return Err(reason);
        }
    }
    let metric = match path.imported.nexthop() {
        None => 0,
        Some(nexthop) => nexthops.metric(nexthop).ok_or(Ineligible::Unreachable)?,
    };
    let peer = peers.get(path.source.0 as usize).and_then(Option::as_ref).map(|peer| CandidatePeer {
        kind: peer.rib_in.kind,
        router_id: peer.rib_in.router_id.unwrap_or(Ipv4Addr::BROADCAST),
        address: peer.session.config.address,
    });
    Ok(Candidate {
        attributes: &path.imported,
        rank: path.rank,
        peer,
        metric,
        stale: path.has(mark::STALE),
        path_id: path.path_id,
    })
}

/// Marks the paths as decided; says whether anything is different from before.
fn apply_decision<K>(entry: &mut Entry<K>, decision: &Decision) -> bool {
    let mut changed = entry.take_chosen_changed();
    for (path, standing) in entry.paths.as_mut_slice().iter_mut().zip(&decision.standings) {
        let marks = match standing {
            Standing::Best => mark::CHOSEN | mark::BEST,
            Standing::Multipath => mark::CHOSEN,
            _ => 0,
        };
        let before = path.marks;
        path.marks = before & !(mark::CHOSEN | mark::BEST) | marks;
        changed |= path.marks != before;
    }
    changed
}

/// What the forwarding plane is told, and of what it was told so last: neighbours mostly come the same way.
#[derive(Debug, Default)]
struct Given {
    latest: Option<(Arc<Attributes>, Slot, BestPaths)>,
}

impl Given {
    /// Nothing where the best path is our own.
    fn paths(&mut self, paths: &[Path], decision: &Decision, peers: &[Option<Peer>]) -> BestPaths {
        let only = match paths {
            [path] if !decision.chosen.is_empty() => path,
            paths => return best_paths(paths, decision, peers),
        };
        if let Some((imported, source, given)) = &self.latest
            && Arc::ptr_eq(imported, &only.imported)
            && *source == only.source
        {
            return given.clone();
        }
        let given = best_paths(paths, decision, peers);
        self.latest = Some((Arc::clone(&only.imported), only.source, given.clone()));
        given
    }
}

fn best_paths(paths: &[Path], decision: &Decision, peers: &[Option<Peer>]) -> BestPaths {
    let best_path = |&at: &usize| {
        let path = paths.get(at)?;
        let peer = peers.get(path.source.0 as usize)?.as_ref()?;
        Some(BestPath {
            nexthop: path.imported.nexthop()?,
            peer: peer.session.config.id,
            kind: peer.rib_in.kind,
            local_pref: path.imported.local_pref().unwrap_or(DEFAULT_LOCAL_PREF),
            med: path.imported.med(),
            bandwidth: path.imported.link_bandwidth(),
            discard: peer.session.config.blackhole && path.imported.has_community(BLACKHOLE),
        })
    };
    if decision.chosen.is_empty() {
        return BestPaths::default();
    }
    let mut best: Vec<BestPath> = Vec::with_capacity(decision.chosen.len());
    for path in decision.chosen.iter().filter_map(best_path) {
        // Two paths through one next hop are one way to forward.
        if best.iter().all(|other| other.nexthop != path.nexthop) {
            best.push(path);
        }
    }
    best.into()
}
