//! What is due after an input: prefixes to decide, peers to tell.
//!
//! Work is taken in portions of [`Limits::work_per_call`](crate::Limits::work_per_call), so that one call never
//! takes long; what is left makes the next deadline "now".

use std::net::Ipv4Addr;
use std::sync::Arc;

use model::Family;

use crate::adj_rib_in::Tables;
use crate::adj_rib_out::{AdjRibOut, OutTable, Request, Stage};
use crate::config::SendPaths;
use crate::decision::{Candidate, CandidatePeer, DEFAULT_LOCAL_PREF, Decision, Rules};
use crate::export::{ExportPolicy, Learned, Permit};
use crate::interner::Interner;
use crate::loc_rib::{Entry, Key, KeyV4, KeyV6, Path, Rib, Slot, Table, mark};
use crate::nexthops::Nexthops;
use crate::output::{BestPath, Output};
use crate::session::count;
use crate::speaker::{Peer, Speaker};
use crate::status::{Ineligible, MessageCounters, Standing};
use crate::wire::attributes::{Attributes, BLACKHOLE};
use crate::wire::nlri::AfiSafi;
use crate::wire::route_refresh::{self, RouteRefresh};
use crate::wire::{HEADER_LEN, MessageType};

/// Where the tables of a key's family are.
pub(crate) trait FamilyKey: Key {
    const FAMILY: Family;
    fn table(rib: &mut Rib) -> &mut Table<Self>;
    fn out_table(rib_out: &mut AdjRibOut) -> &mut OutTable<Self>;
}

impl FamilyKey for KeyV4 {
    const FAMILY: Family = Family::V4;
    fn table(rib: &mut Rib) -> &mut Table<Self> {
        &mut rib.v4
    }
    fn out_table(rib_out: &mut AdjRibOut) -> &mut OutTable<Self> {
        &mut rib_out.v4
    }
}

impl FamilyKey for KeyV6 {
    const FAMILY: Family = Family::V6;
    fn table(rib: &mut Rib) -> &mut Table<Self> {
        &mut rib.v6
    }
    fn out_table(rib_out: &mut AdjRibOut) -> &mut OutTable<Self> {
        &mut rib_out.v6
    }
}

impl Speaker {
    /// Does a portion of what is due.
    pub(crate) fn work(&mut self, out: &mut Vec<Output>) {
        if !self.tables.rib.has_queued() && self.agenda.waiting().is_empty() {
            return;
        }
        let listeners = 1 + self.peers.iter().flatten().filter(|peer| peer.negotiated().is_some()).count();
        let portion = (self.config.limits.work_per_call / listeners).max(64);
        self.work_family::<KeyV4>(portion, out);
        self.work_family::<KeyV6>(portion, out);
        self.tables.interner.sweep();
        self.tables.rib.v4.shrink();
        self.tables.rib.v6.shrink();
    }

    fn work_family<K: FamilyKey>(&mut self, portion: usize, out: &mut Vec<Output>) {
        let decided = self.decide::<K>(portion, out);
        let deferring = self.is_deferring();
        // News concerns everybody, the rest only those that wait for it.
        let concerned: Vec<usize> = if decided.is_empty() {
            self.agenda.waiting().iter().map(|slot| slot.0 as usize).collect()
        } else {
            (0..self.peers.len()).collect()
        };
        for at in concerned {
            let is_told = self.peers[at].as_mut().is_some_and(|peer| {
                let out_table = K::out_table(&mut peer.rib_out);
                let due = out_table.is_due(deferring) || out_table.follows && !decided.is_empty();
                due && peer.can_be_told()
            });
            if is_told && let Some(mut peer) = self.peers[at].take() {
                let slot = Slot(at as u32);
                self.tell::<K>(slot, &mut peer, &decided, portion, deferring, out);
                self.agenda.touch(slot);
                self.peers[at] = Some(peer);
            }
        }
    }

    /// Decides up to `portion` prefixes; gives them, each with whether its best path is another or has changed.
    fn decide<K: FamilyKey>(&mut self, portion: usize, out: &mut Vec<Output>) -> Vec<(K, bool)> {
        let Speaker { peers, tables: Tables { rib, nexthops, .. }, decision, config, .. } = self;
        let table = K::table(rib);
        let rules = Rules::of(config);
        let mut decided = Vec::new();
        for _ in 0..portion {
            let Some((key, entry)) = table.next_queued() else { break };
            // A route that moves to a next hop nobody has asked about yet stays where it is until the answer, which queues it
            // again: decided now, it would be gone for a moment.
            let is_awaited =
                |path: &Path| path.used_nexthop().is_some_and(|nexthop| nexthops.is_awaited(nexthop));
            if entry.given && entry.paths.as_slice().iter().any(is_awaited) {
                continue;
            }
            run_decision(entry.paths.as_slice(), peers, nexthops, rules, decision);
            let changed = apply_decision(entry, decision);
            decided.push((key, changed));
            if changed {
                let paths = best_paths(entry, decision, peers);
                if !paths.is_empty() || entry.given {
                    entry.given = !paths.is_empty();
                    out.push(Output::RouteChanged { prefix: key.prefix(), paths });
                }
            }
            table.drop_if_empty(key);
        }
        decided
    }

    /// Tells one peer of what changed, then of the next portion of a run through the table.
    fn tell<K: FamilyKey>(
        &mut self,
        slot: Slot,
        peer: &mut Peer,
        decided: &[(K, bool)],
        portion: usize,
        deferring: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(established) = peer.session.established() else { return };
        let (local_as, kind) = self.relation(&peer.session.config);
        let policy = ExportPolicy {
            slot,
            config: &peer.session.config,
            kind,
            local_as,
            negotiated: &established.negotiated,
            local_address: established.link.local,
        };
        let connection = established.link.id;
        let form = established.negotiated.form(K::FAMILY);
        let refresh_is_marked = established.negotiated.enhanced_refresh;
        let out_table = K::out_table(&mut peer.rib_out);
        let Tables { rib, interner, nexthops } = &mut self.tables;
        let table = K::table(rib);
        let mut teller = Teller {
            policy,
            peers: &self.peers,
            nexthops,
            rules: Rules::of(&self.config),
            interner,
            latest: None,
            key: Vec::new(),
            unsayable: 0,
        };
        let mut stage = Stage::default();
        let mut tell = |key: K, force: bool, out_table: &mut OutTable<K>| {
            if form.add_path {
                out_table.stage_several(key, teller.several(key, table), force, &mut stage);
            } else {
                out_table.stage(key, teller.told(key, table), force, &mut stage);
            }
        };
        if out_table.follows {
            // Of several paths any may have changed, not just the best.
            for &(key, _) in decided.iter().filter(|&&(_, changed)| changed || form.add_path) {
                tell(key, false, out_table);
            }
        }
        let (mut begun, mut finished) = (false, None);
        if out_table.is_due(deferring) {
            begun = out_table.begin(table);
            for _ in 0..portion {
                let Some((key, force)) = out_table.next_of_run() else { break };
                tell(key, force, out_table);
            }
            finished = out_table.finish_run();
        }
        peer.errors.not_announceable += teller.unsayable;
        // No mark before the first End-of-RIB (RFC 7313 §4).
        let is_asked_for =
            |request: Option<Request>| request.is_some_and(|request| request.force && !request.end_of_rib);
        let marks = |subtype, due: bool, bytes: &mut Vec<u8>| {
            if due && refresh_is_marked {
                RouteRefresh { family: AfiSafi::unicast(K::FAMILY), subtype }.emit(bytes);
            }
        };
        let mut bytes = Vec::new();
        marks(route_refresh::BEGIN, begun && is_asked_for(out_table.running().or(finished)), &mut bytes);
        stage.emit(form, finished.is_some_and(|request| request.end_of_rib), &mut bytes);
        marks(route_refresh::END, is_asked_for(finished), &mut bytes);
        if !bytes.is_empty() {
            count_sent(&mut peer.session.messages_out, &bytes);
            out.push(Output::Send { connection, bytes });
        }
    }
}

/// Works out what one peer is told.
struct Teller<'a> {
    policy: ExportPolicy<'a>,
    peers: &'a [Option<Peer>],
    nexthops: &'a Nexthops,
    rules: Rules,
    interner: &'a mut Interner,
    /// The latest answer and what it was made of; neighbours in a run mostly share it.
    latest: Option<(Made, Option<Arc<Attributes>>)>,
    key: Vec<u8>,
    unsayable: u64,
}

/// What an answer is made of: equal ones give equal answers.
#[derive(Clone, PartialEq, Eq)]
struct Made {
    from: SetRef,
    source: Slot,
    rule: Option<*const crate::filter::FilterRule>,
}

/// An attribute set, equal only to itself.
#[derive(Clone)]
struct SetRef(Arc<Attributes>);

impl PartialEq for SetRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SetRef {}

impl Teller<'_> {
    fn told<K: FamilyKey>(&mut self, key: K, table: &Table<K>) -> Option<Arc<Attributes>> {
        self.told_of(key, table.get(key)?.best()?)
    }

    /// What is said of several paths, each with its identifier.
    fn several<K: FamilyKey>(&mut self, key: K, table: &Table<K>) -> Vec<(u32, Arc<Attributes>)> {
        let Some(entry) = table.get(key) else { return Vec::new() };
        // What a peer said is not for itself.
        let mut paths: Vec<&Path> =
            entry.paths.as_slice().iter().filter(|path| path.source != self.policy.slot).collect();
        let mut told = Vec::new();
        match self.policy.config.send_paths {
            SendPaths::Best => {}
            SendPaths::All => {
                for path in paths {
                    if candidate(path, self.peers, self.nexthops).is_ok() {
                        told.extend(self.told_of(key, path).map(|said| (path.sent_id, said)));
                    }
                }
            }
            // The best, then the best of what is left.
            SendPaths::UpTo(most) => {
                let mut decision = Decision::default();
                while told.len() < most {
                    let candidates: Vec<_> =
                        paths.iter().map(|path| candidate(path, self.peers, self.nexthops)).collect();
                    decision.run(&candidates, self.rules);
                    let Some(&best) = decision.chosen.first() else { break };
                    let path = paths.swap_remove(best);
                    told.extend(self.told_of(key, path).map(|said| (path.sent_id, said)));
                }
            }
        }
        told
    }

    fn told_of<K: FamilyKey>(&mut self, key: K, best: &Path) -> Option<Arc<Attributes>> {
        let learned = learned_from(self.peers, best.source);
        let Permit::Yes(rule) = self.policy.permits(key.prefix(), best, learned) else { return None };
        let made = Made {
            from: SetRef(Arc::clone(&best.imported)),
            source: best.source,
            rule: rule.map(std::ptr::from_ref),
        };
        if let Some((latest, answer)) = &self.latest
            && *latest == made
        {
            self.unsayable += u64::from(answer.is_none());
            return answer.clone();
        }
        let sayable = self.policy.write(K::FAMILY, best, learned, rule, &mut self.key);
        self.unsayable += u64::from(!sayable);
        let answer = sayable.then(|| self.interner.intern(&self.key));
        self.latest = Some((made, answer.clone()));
        answer
    }
}

fn learned_from(peers: &[Option<Peer>], source: Slot) -> Option<Learned> {
    let peer = peers.get(source.0 as usize)?.as_ref()?;
    Some(Learned {
        kind: peer.rib_in.kind,
        router_id: peer.rib_in.router_id.unwrap_or(Ipv4Addr::UNSPECIFIED),
        client: peer.session.config.reflector_client,
    })
}

/// Counts what stands in `bytes`: UPDATEs, and the marks around a refresh.
fn count_sent(counters: &mut MessageCounters, mut bytes: &[u8]) {
    while let Some(&[high, low, kind]) = bytes.get(16..19).and_then(|length| length.first_chunk()) {
        let is_refresh = kind == MessageType::RouteRefresh as u8;
        count(counters, if is_refresh { MessageType::RouteRefresh } else { MessageType::Update }, 1);
        let len = usize::from(u16::from_be_bytes([high, low])).max(HEADER_LEN);
        bytes = bytes.get(len..).unwrap_or_default();
    }
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

fn candidate<'a>(
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
        peer,
        metric,
        stale: path.has(mark::STALE),
        path_id: path.path_id,
    })
}

/// Marks the paths as decided; says whether anything is different from before.
fn apply_decision(entry: &mut Entry, decision: &Decision) -> bool {
    let mut changed = std::mem::take(&mut entry.chosen_changed);
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

/// What the forwarding plane is told: nothing where the best path is our own.
fn best_paths(entry: &Entry, decision: &Decision, peers: &[Option<Peer>]) -> Vec<BestPath> {
    let paths = entry.paths.as_slice();
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
    let mut best: Vec<BestPath> = Vec::with_capacity(decision.chosen.len());
    for path in decision.chosen.iter().filter_map(best_path) {
        // Two paths through one next hop are one way to forward.
        if best.iter().all(|other| other.nexthop != path.nexthop) {
            best.push(path);
        }
    }
    best
}
