//! Telling peers: of news group by group, and one by one those that are on a run through the table or behind.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ahash::RandomState;

use crate::adj_rib_in::Tables;
use crate::adj_rib_out::{OutTable, Said};
use crate::backlog::Owed;
use crate::config::SendPaths;
use crate::decision::{Decision, Rules};
use crate::export::{ExportPolicy, Learned, Permit, Recipient};
use crate::filter::FilterRule;
use crate::former::Before;
use crate::loc_rib::{Index, Table};
use crate::nexthops::Nexthops;
use crate::output::Output;
use crate::path::{Path, Slot};
use crate::session::count;
use crate::speaker::{Peer, Speaker};
use crate::status::MessageCounters;
use crate::update_group::{Group, Member, Request, Run};
use crate::wire::attributes::{Attributes, key_nexthop};
use crate::wire::nlri::{AfiSafi, Nlri};
use crate::wire::route_refresh::{self, RouteRefresh};
use crate::wire::update::emit_end_of_rib;
use crate::wire::{HEADER_LEN, MessageType};
use crate::wording::{Stage, Worded, Wordings};
use crate::work::{Decided, FamilyKey, candidate};

/// Prefixes that are looked at for one member at once, at least: fewer would fill no UPDATE.
const LEAST_PORTION: usize = 64;

/// A prefix of which a group is told something else than before.
struct News<K> {
    index: Index,
    key: K,
    before: Option<Said>,
    after: Option<(Worded, Slot)>,
}

/// What one member is told of a prefix.
#[derive(Clone, Copy)]
enum Now {
    Nothing,
    This(Worded),
    /// The prefix is about to be decided; whatever comes of it is news to everybody.
    Undecided,
}

impl Speaker {
    /// Tells every group what came of a portion of decisions.
    pub(crate) fn tell_groups<K: FamilyKey>(&mut self, decided: &[Decided<K>], out: &mut Vec<Output>) {
        for id in self.groups.ids() {
            let Some(mut group) = self.groups.take(id) else { continue };
            let family = K::FAMILY as usize;
            if group.policy.several[family] {
                self.tell_of_several(&mut group, decided, out);
            } else if group.policy.families[family] {
                self.tell_group(&mut group, decided, out);
            }
            self.groups.put_back(id, group);
        }
    }

    fn tell_group<K: FamilyKey>(&mut self, group: &mut Group, decided: &[Decided<K>], out: &mut Vec<Output>) {
        let Group { policy, told, members, at_address } = group;
        let told = K::out_table(told);
        let Tables { rib, nexthops, .. } = &mut self.tables;
        let table = K::table(rib);
        let mut judge = Judge::new(policy, &self.peers, nexthops, Rules::of(&self.config), &self.hasher);
        let (mut news, mut stage) = (Vec::with_capacity(decided.len()), Stage::default());
        // Those for whom some of it is different.
        let mut apart = Vec::new();
        for &Decided { index, key, .. } in decided.iter().filter(|decided| decided.changed) {
            let after = judge.said(index, table);
            let said = after.map(|(worded, source)| Said { print: worded.print, source });
            let before = told.put(index, said);
            if before == said {
                if said.is_none() {
                    // Whoever comes from another group may have been told of it there.
                    told.backlog.note(key, false, false);
                }
                continue;
            }
            told.backlog.note(key, before.is_some(), said.is_some());
            match after {
                Some((worded, _)) if before.is_none_or(|before| before.print != worded.print) => {
                    stage.announce(Nlri { path_id: 0, prefix: key.prefix() }, worded);
                }
                Some(_) => {}
                None => stage.withdraw(key.prefix()),
            }
            for source in [before, said].into_iter().flatten().map(|said| said.source) {
                if apart.last() != Some(&source) {
                    apart.push(source);
                }
            }
            news.push(News { index, key, before, after });
        }
        let unsayable = std::mem::take(&mut judge.unsayable);
        if news.is_empty() && unsayable == 0 {
            return;
        }
        if !at_address.is_empty() {
            let worded = news.iter().filter_map(|news| news.after);
            let nexthops = worded.filter_map(|(worded, _)| key_nexthop(judge.wordings.key(worded)));
            apart.extend(nexthops.filter_map(|nexthop| at_address.get(&nexthop)).flatten());
        }
        apart.sort_unstable();
        apart.dedup();
        let form = policy.form(K::FAMILY);
        let mut for_all = Vec::new();
        stage.emit(form, &judge.wordings, &mut for_all);
        let mut letters: Vec<(Slot, Option<Vec<u8>>)> = Vec::new();
        for &slot in &*members {
            let Some(member) = peer_at(&self.peers, slot).and_then(|peer| peer.member.as_ref()) else {
                continue;
            };
            if !K::progress_of(member).follows(slot, told) {
                continue;
            }
            let own = apart.binary_search(&slot).is_ok().then(|| {
                let mut own = Vec::new();
                judge.stage_news(&news, recipient(slot, member), table, &mut stage);
                stage.emit(form, &judge.wordings, &mut own);
                own
            });
            letters.push((slot, own));
        }
        for (slot, own) in letters {
            self.send(slot, unsayable, own.unwrap_or_else(|| for_all.clone()), out);
        }
    }

    /// The same for a peer that takes several paths, of which any may have changed, not just the best.
    fn tell_of_several<K: FamilyKey>(
        &mut self,
        group: &mut Group,
        decided: &[Decided<K>],
        out: &mut Vec<Output>,
    ) {
        let Group { policy, told, members, .. } = group;
        let told = K::out_table(told);
        let Some(&slot) = members.first() else { return };
        let Some(member) = peer_at(&self.peers, slot).and_then(|peer| peer.member.as_ref()) else { return };
        if !K::progress_of(member).follows(slot, told) {
            decided.iter().for_each(|decided| told.backlog.note(decided.key, true, true));
            return;
        }
        let to = recipient(slot, member);
        let Tables { rib, nexthops, .. } = &mut self.tables;
        let table = K::table(rib);
        let mut judge = Judge::new(policy, &self.peers, nexthops, Rules::of(&self.config), &self.hasher);
        let mut stage = Stage::default();
        for &Decided { index, key, .. } in decided {
            told.stage_several(key, &judge.several(to, index, table), false, &mut stage);
        }
        let unsayable = judge.unsayable;
        let mut bytes = Vec::new();
        stage.emit(policy.form(K::FAMILY), &judge.wordings, &mut bytes);
        self.send(slot, unsayable, bytes, out);
    }

    /// Tells those that wait for a run or are behind of the next portion.
    pub(crate) fn tell_waiting<K: FamilyKey>(&mut self, deferring: bool, out: &mut Vec<Output>) {
        let work = self.config.limits.work_per_call;
        // Where too many wait for one call, everybody's turn comes: the next call begins where this one ends.
        let (waiting, first) = (self.agenda.waiting(), self.next_told[K::FAMILY as usize]);
        let turn = waiting.range(first..).chain(waiting.range(..first)).copied();
        let turn: Vec<Slot> = turn.take((work / LEAST_PORTION).max(1)).collect();
        self.next_told[K::FAMILY as usize] = turn.last().map_or(first, |last| Slot(last.0 + 1));
        let portion = (work / turn.len().max(1)).max(LEAST_PORTION);
        for slot in turn {
            // The peer stays where it is: routes of its own are judged by what it is.
            let peer = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut);
            let Some(mut member) = peer.and_then(|peer| peer.member.take()) else { continue };
            if let Some(mut group) = self.groups.take(member.group) {
                let is_begun = K::progress(&mut member).begun;
                if group.policy.families[K::FAMILY as usize] && (!deferring || is_begun) {
                    self.tell_member::<K>(slot, &mut member, &mut group, portion, out);
                    self.agenda.touch(slot);
                }
                self.groups.put_back(member.group, group);
            }
            if let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) {
                peer.member = Some(member);
            }
        }
    }

    /// Tells one member what it is owed, then the next portion of its run.
    fn tell_member<K: FamilyKey>(
        &mut self,
        slot: Slot,
        member: &mut Member,
        group: &mut Group,
        portion: usize,
        out: &mut Vec<Output>,
    ) {
        let Group { policy, told, .. } = group;
        let told = K::out_table(told);
        let to = recipient(slot, member);
        let progress = K::progress(member);
        let Tables { rib, nexthops, .. } = &mut self.tables;
        let table = K::table(rib);
        let mut walk = Walk {
            judge: Judge::new(policy, &self.peers, nexthops, Rules::of(&self.config), &self.hasher),
            several: policy.several[K::FAMILY as usize],
            to,
            stage: Stage::default(),
            left: portion,
        };
        let form = policy.form(K::FAMILY);
        let compares = progress.compares();
        if !compares {
            walk.catch_up(table, told);
        }
        let (mut begun, mut running, mut finished) = (false, None, None);
        if compares || !told.backlog.is_behind(slot) {
            begun = progress.begin(table);
            if let Some(run) = &mut progress.run {
                running = Some(run.request);
                if walk.run(run, table, told) {
                    finished = Some(run.request);
                    progress.run = None;
                }
            }
        }
        if progress.run.is_none() {
            walk.catch_up(table, told);
        }
        let Walk { judge, mut stage, .. } = walk;
        let unsayable = judge.unsayable;
        let negotiated = peer_at(&self.peers, slot).and_then(Peer::negotiated);
        let refresh_is_marked = negotiated.is_some_and(|negotiated| negotiated.enhanced_refresh);
        // No mark before the first End-of-RIB (RFC 7313 §4).
        let is_asked_for =
            |request: Option<Request>| request.is_some_and(|request| request.force && !request.end_of_rib);
        let marks = |subtype, due: bool, bytes: &mut Vec<u8>| {
            if due && refresh_is_marked {
                RouteRefresh { family: AfiSafi::unicast(K::FAMILY), subtype }.emit(bytes);
            }
        };
        let mut bytes = Vec::new();
        marks(route_refresh::BEGIN, begun && is_asked_for(running), &mut bytes);
        stage.emit(form, &judge.wordings, &mut bytes);
        if finished.is_some_and(|request| request.end_of_rib) {
            emit_end_of_rib(&mut bytes, K::FAMILY);
        }
        marks(route_refresh::END, is_asked_for(finished), &mut bytes);
        self.send(slot, unsayable, bytes, out);
    }

    fn send(&mut self, slot: Slot, unsayable: u64, bytes: Vec<u8>, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return };
        peer.errors.not_announceable += unsayable;
        let Some(established) = peer.session.established().filter(|_| !bytes.is_empty()) else { return };
        let connection = established.link.id;
        count_sent(&mut peer.session.messages_out, &bytes);
        out.push(Output::Send { connection, bytes });
    }
}

fn recipient(slot: Slot, member: &Member) -> Recipient {
    Recipient { slot, address: Some(member.address) }
}

fn peer_at(peers: &[Option<Peer>], slot: Slot) -> Option<&Peer> {
    peers.get(slot.0 as usize)?.as_ref()
}

/// One member's way through what it is owed and through the table.
struct Walk<'a> {
    judge: Judge<'a>,
    several: bool,
    to: Recipient,
    stage: Stage,
    /// Prefixes that may still be looked at in this call.
    left: usize,
}

impl Walk<'_> {
    fn catch_up<K: FamilyKey>(&mut self, table: &Table<K>, told: &mut OutTable<K>) {
        while self.left > 0
            && let Some(Owed { key, may_know }) = told.backlog.next(self.to.slot, &mut self.left)
        {
            self.left = self.left.saturating_sub(1);
            let index = table.find(key);
            if self.several {
                let now = index.map(|index| self.judge.several(self.to, index, table)).unwrap_or_default();
                told.stage_several(key, &now, false, &mut self.stage);
            } else {
                match self.now(index, table, told) {
                    Now::This(worded) => self.announce(key, worded),
                    Now::Nothing if may_know => self.stage.withdraw(key.prefix()),
                    Now::Nothing | Now::Undecided => {}
                }
            }
        }
    }

    fn announce<K: FamilyKey>(&mut self, key: K, worded: Worded) {
        self.stage.announce(Nlri { path_id: 0, prefix: key.prefix() }, worded);
    }

    /// What the member is told of a prefix, which is gone where it has no index.
    fn now<K: FamilyKey>(&mut self, index: Option<Index>, table: &Table<K>, told: &mut OutTable<K>) -> Now {
        let Some((index, said)) = index.and_then(|index| Some((index, told.get(index)?))) else {
            return Now::Nothing;
        };
        let now = self.judge.now(index, said.source, self.to, table);
        if matches!(now, Now::Undecided) {
            // It might come out as everybody else knows it, but this member doesn't.
            told.forget_print(index);
        }
        now
    }

    /// Says whether the run has come to its end.
    fn run<K: FamilyKey>(&mut self, run: &mut Run<K>, table: &Table<K>, told: &mut OutTable<K>) -> bool {
        while let Some(index) = self.next_of(run, told) {
            if self.left == 0 {
                return false;
            }
            self.left -= 1;
            run.next = Index(index.0 + 1);
            if self.several {
                if let Some(entry) = table.entry(index) {
                    let now = self.judge.several(self.to, index, table);
                    told.stage_several(entry.key, &now, run.request.force, &mut self.stage);
                }
            } else {
                self.look_at(index, run, table, told);
            }
        }
        let Some(former) = &mut run.former else { return true };
        while self.left > 0 {
            let Some(before) = former.go_on() else { return true };
            self.left -= 1;
            match before {
                // What has gone from its place since is owed.
                Before::At(index) => {
                    if let Some(entry) = table.entry(index)
                        && former.may_know(self.to.slot, index)
                        && matches!(self.now(Some(index), table, told), Now::Nothing)
                    {
                        self.stage.withdraw(entry.key.prefix());
                    }
                }
                Before::Other(key) => match self.now(table.find(key), table, told) {
                    Now::This(worded) => self.announce(key, worded),
                    Now::Nothing => self.stage.withdraw(key.prefix()),
                    Now::Undecided => {}
                },
            }
        }
        false
    }

    fn next_of<K: FamilyKey>(&self, run: &Run<K>, told: &OutTable<K>) -> Option<Index> {
        let next = if self.several || told.unjudged.contains(&run.next) {
            run.next
        } else {
            let said = told.next_from(run.next);
            let unjudged =
                Some(told.unjudged.start).filter(|start| *start > run.next && !told.unjudged.is_empty());
            said.into_iter().chain(unjudged).min()?
        };
        (next < run.end).then_some(next)
    }

    fn look_at<K: FamilyKey>(
        &mut self,
        index: Index,
        run: &Run<K>,
        table: &Table<K>,
        told: &mut OutTable<K>,
    ) {
        let Some(entry) = table.entry(index) else { return };
        let mut was_said = false;
        if told.unjudged.contains(&index) {
            told.unjudged.start = Index(index.0 + 1);
            let said = self.judge.said(index, table);
            let said = said.map(|(worded, source)| Said { print: worded.print, source });
            was_said = told.put(index, said).is_some();
        }
        let worded = match self.now(Some(index), table, told) {
            Now::This(worded) => worded,
            Now::Nothing => {
                if was_said {
                    self.stage.withdraw(entry.key.prefix());
                }
                return;
            }
            Now::Undecided => return,
        };
        let before = run.former.as_ref().and_then(|former| former.get(index));
        let is_known =
            before.is_some_and(|before| before.source != self.to.slot && before.print == worded.print);
        if run.request.force || !is_known {
            self.announce(entry.key, worded);
        }
    }
}

/// Works out what is told under one policy.
struct Judge<'a> {
    policy: &'a ExportPolicy,
    peers: &'a [Option<Peer>],
    nexthops: &'a Nexthops,
    rules: Rules,
    /// What was said, for as long as this judge judges.
    wordings: Wordings,
    /// The latest answer and what it was made of; neighbours mostly share it.
    latest: Option<(Made, Option<Worded>)>,
    key: Vec<u8>,
    /// How often what is permitted could not be said.
    unsayable: u64,
}

/// What an answer is made of: equal ones give equal answers to anybody.
struct Made {
    from: Arc<Attributes>,
    source: Slot,
    rule: Option<*const FilterRule>,
}

impl Made {
    fn is_of(&self, path: &Path, rule: Option<&FilterRule>) -> bool {
        Arc::ptr_eq(&self.from, &path.imported)
            && self.source == path.source
            && self.rule == rule.map(std::ptr::from_ref)
    }
}

impl<'a> Judge<'a> {
    fn new(
        policy: &'a ExportPolicy,
        peers: &'a [Option<Peer>],
        nexthops: &'a Nexthops,
        rules: Rules,
        hasher: &RandomState,
    ) -> Judge<'a> {
        let wordings = Wordings::new(hasher.clone());
        Judge { policy, peers, nexthops, rules, wordings, latest: None, key: Vec::new(), unsayable: 0 }
    }

    /// What is said of a prefix to all to whom nothing else is, and whose route it is.
    fn said<K: FamilyKey>(&mut self, index: Index, table: &Table<K>) -> Option<(Worded, Slot)> {
        let entry = table.entry(index)?;
        let best = entry.best()?;
        Some((self.told_of(entry.key, best, Recipient::ANY)?, best.source))
    }

    /// What one member is told of a prefix of which everybody is told something of this source.
    fn now<K: FamilyKey>(&mut self, index: Index, source: Slot, to: Recipient, table: &Table<K>) -> Now {
        if source == to.slot {
            return Now::Nothing;
        }
        let decided = table.entry(index).filter(|entry| !entry.has_chosen_changed());
        let Some((entry, best)) = decided.and_then(|entry| Some((entry, entry.best()?))) else {
            return Now::Undecided;
        };
        let told = self.told_of(entry.key, best, Recipient::ANY);
        told.and_then(|worded| self.as_told_to(to, worded, entry.key, best)).map_or(Now::Nothing, Now::This)
    }

    /// The same as everybody, unless the next hop that all are told is the member itself, which must be told another
    /// (RFC 4271 §5.1.3).
    fn as_told_to<K: FamilyKey>(
        &mut self,
        to: Recipient,
        worded: Worded,
        key: K,
        best: &Path,
    ) -> Option<Worded> {
        let is_itself = self.policy.keeps_next_hops() && key_nexthop(self.wordings.key(worded)) == to.address;
        if is_itself { self.told_of(key, best, to) } else { Some(worded) }
    }

    /// Notes what news is to one recipient.
    fn stage_news<K: FamilyKey>(
        &mut self,
        news: &[News<K>],
        to: Recipient,
        table: &Table<K>,
        stage: &mut Stage,
    ) {
        for &News { index, key, before, after } in news {
            let before = before.filter(|before| before.source != to.slot);
            let after = after.filter(|(_, source)| *source != to.slot).and_then(|(worded, _)| {
                let best = table.entry(index)?.best()?;
                self.as_told_to(to, worded, key, best)
            });
            match after {
                Some(worded) if before.is_none_or(|before| before.print != worded.print) => {
                    stage.announce(Nlri { path_id: 0, prefix: key.prefix() }, worded);
                }
                Some(_) => {}
                None if before.is_some() => stage.withdraw(key.prefix()),
                None => {}
            }
        }
    }

    /// What is said of several paths to one peer, each with its identifier.
    fn several<K: FamilyKey>(&mut self, to: Recipient, index: Index, table: &Table<K>) -> Vec<(u32, Worded)> {
        let Some(entry) = table.entry(index) else { return Vec::new() };
        // What a peer said is not for itself.
        let mut paths: Vec<&Path> =
            entry.paths.as_slice().iter().filter(|path| path.source != to.slot).collect();
        let mut told = Vec::new();
        match self.policy.send_paths {
            SendPaths::Best => {}
            SendPaths::All => {
                for path in paths {
                    if candidate(path, self.peers, self.nexthops).is_ok() {
                        told.extend(self.told_of(entry.key, path, to).map(|said| (path.sent_id, said)));
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
                    told.extend(self.told_of(entry.key, path, to).map(|said| (path.sent_id, said)));
                }
            }
        }
        told
    }

    fn told_of<K: FamilyKey>(&mut self, key: K, path: &Path, to: Recipient) -> Option<Worded> {
        let learned = learned_from(self.peers, path.source);
        let Permit::Yes(rule) = self.policy.permits(to, key.prefix(), path, learned) else { return None };
        let is_anybody = to.address.is_none();
        if is_anybody
            && let Some((made, answer)) = &self.latest
            && made.is_of(path, rule)
        {
            self.unsayable += u64::from(answer.is_none());
            return *answer;
        }
        let sayable = self.policy.write(to, K::FAMILY, path, learned, rule, &mut self.key);
        self.unsayable += u64::from(!sayable);
        let answer = sayable.then(|| self.wordings.add(&self.key));
        if is_anybody {
            let rule = rule.map(std::ptr::from_ref);
            let made = Made { from: Arc::clone(&path.imported), source: path.source, rule };
            self.latest = Some((made, answer));
        }
        answer
    }
}

fn learned_from(peers: &[Option<Peer>], source: Slot) -> Option<Learned> {
    let peer = peer_at(peers, source)?;
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

#[cfg(test)]
pub(crate) mod tests;
