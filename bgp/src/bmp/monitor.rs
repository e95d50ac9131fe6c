//! What monitoring stations have been told, and what that leaves to be told.
//!
//! One memory serves all stations: of each prefix, by its place in the table, whose paths were told and how. The decision process
//! shows every prefix that anything was said of ([`Monitor::note`]), and the difference goes to everybody. A station that has
//! just come is led through the whole table beside that, in portions, and waits while it is congested. When the last one goes,
//! what was told goes in portions, too.
//!
//! A path counts as told within one session of its peer only: a station forgets a peer's routes when the peer is down.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{AsNumber, Family, Prefix};

use super::wire::{ADMINISTRATIVELY_CLOSED, Down, Message, PeerHeader, Statistic, View};
use super::{StationConfig, StationId};
use crate::loc_rib::Index;
use crate::output::{Output, Reason};
use crate::path::{Path, Slot, mark};
use crate::rewrite::Rewrite;
use crate::wire::attributes::Attributes;
use crate::wire::capability::Capability;
use crate::wire::nlri::{AfiSafi, Nlri};
use crate::wire::open::{AS_TRANS, Open};
use crate::wire::update::{Form, attributes_room, emit_announcements, emit_end_of_rib, emit_withdrawals};
use crate::wire::{HEADER_LEN, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN};

/// Prefixes that a station which has just come is told in one call, at most, and of which is forgotten what was told.
const PORTION: u32 = 1024;
/// The name of our only table (RFC 9069 §4.5).
const TABLE: &str = "global";

/// A session that stands, as stations are told of it.
#[derive(Clone, Debug)]
pub(crate) struct Monitored {
    pub(crate) address: IpAddr,
    pub(crate) as_number: u32,
    pub(crate) router_id: Ipv4Addr,
    /// Our end.
    pub(crate) local: IpAddr,
    /// Ours and the peer's; 0 is not known.
    pub(crate) ports: (u16, u16),
    /// As sent and as received, headers included.
    pub(crate) opens: [Vec<u8>; 2],
    /// Families in use, by [`Family`].
    pub(crate) families: [bool; 2],
    /// The peer's prefixes carry path identifiers, by [`Family`].
    pub(crate) add_path: [bool; 2],
}

/// A session and its number among all there have been.
#[derive(Debug)]
struct Standing {
    session: Monitored,
    generation: u32,
}

/// What was told of one path.
#[derive(Debug)]
struct ToldPath {
    source: Slot,
    path_id: u32,
    generation: u32,
    pre: Arc<Attributes>,
    /// Where it takes part in the decision process.
    post: Option<Arc<Attributes>>,
}

/// A prefix, its place in its family's table, and its paths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) index: Index,
    pub(crate) prefix: Prefix,
    pub(crate) paths: &'a [Path],
}

/// What was told of one prefix.
#[derive(Debug, Default)]
struct Told {
    paths: Vec<ToldPath>,
    loc: Option<Arc<Attributes>>,
}

#[derive(Debug)]
struct Station {
    config: StationConfig,
    congested: bool,
    /// The places of each family's table that it hasn't been led through yet. What comes there later is news, told to all.
    run: Option<[Range<Index>; 2]>,
}

impl Station {
    fn wants(&self, view: View) -> bool {
        match view {
            View::PrePolicy => self.config.pre_policy,
            View::PostPolicy => self.config.post_policy,
            View::LocRib => self.config.loc_rib,
        }
    }

    fn wants_peers(&self) -> bool {
        self.config.pre_policy || self.config.post_policy
    }
}

/// Routes of one peer, family and view, those of equal attributes together.
#[derive(Debug, Default)]
struct Updates {
    withdrawn: Vec<Nlri>,
    announced: Vec<(Arc<Attributes>, Vec<Nlri>)>,
    /// From an attribute set's hash to its place.
    places: HashMap<u32, usize>,
}

impl Updates {
    fn announce(&mut self, nlri: Nlri, attributes: &Arc<Attributes>) {
        let next = self.announced.len();
        let at = *self.places.entry(attributes.hash).or_insert(next);
        match self.announced.get_mut(at) {
            Some((of, group)) if Arc::ptr_eq(of, attributes) => group.push(nlri),
            _ => self.announced.push((Arc::clone(attributes), vec![nlri])),
        }
    }

    fn emit(&self, form: Form, out: &mut Vec<u8>) {
        emit_withdrawals(out, form, &self.withdrawn);
        for (attributes, nlri) in &self.announced {
            let fits = attributes.key().len() <= attributes_room(form.max_len);
            let form = if fits { form } else { Form { max_len: MAX_EXTENDED_LEN, ..form } };
            emit_announcements(out, form, attributes.key(), nlri);
        }
    }
}

/// By view, peer and family.
type Batch = BTreeMap<(View, Slot, Family), Updates>;

/// All stations, and what they know.
#[derive(Debug)]
pub(crate) struct Monitor {
    stations: Vec<Station>,
    /// By [`Family`] and [`Index`]; nothing of a prefix that is gone.
    told: [Vec<Told>; 2],
    /// What stations that are gone were told: it goes by and by.
    forgotten: Vec<Vec<Told>>,
    /// By slot.
    standing: Vec<Option<Standing>>,
    generations: u32,
    /// What everybody is to be told.
    batch: Batch,
    /// An instant, and what it was since 1970.
    clock: Option<(Instant, Duration)>,
    local_as: AsNumber,
    router_id: Ipv4Addr,
}

impl Monitor {
    pub(crate) fn new(local_as: AsNumber, router_id: Ipv4Addr) -> Monitor {
        Monitor {
            stations: Vec::new(),
            told: Default::default(),
            forgotten: Vec::new(),
            standing: Vec::new(),
            generations: 0,
            batch: Batch::new(),
            clock: None,
            local_as,
            router_id,
        }
    }

    /// Is anybody there to be told?
    pub(crate) fn is_on(&self) -> bool {
        !self.stations.is_empty()
    }

    /// Is there more to be told without anything happening?
    pub(crate) fn has_work(&self) -> bool {
        !self.forgotten.is_empty()
            || self.stations.iter().any(|station| station.run.is_some() && !station.congested)
    }

    /// A station has come. `peers` are the sessions that stand, `ends` those of the tables.
    pub(crate) fn join(
        &mut self,
        config: StationConfig,
        clock: (Instant, Duration),
        peers: impl Iterator<Item = (Slot, Monitored)>,
        ends: [Index; 2],
        out: &mut Vec<Output>,
    ) {
        self.leave(config.id);
        self.clock = Some(clock);
        if self.stations.is_empty() {
            self.standing.clear();
            for (slot, session) in peers {
                self.stand(slot, session);
            }
        }
        let mut bytes = Vec::new();
        let (description, name) = (&*config.system_description, &*config.system_name);
        Message::Initiation { description, name }.emit(&mut bytes);
        let run = ends.map(|end| Index(0)..end);
        let station = Station { config: config.clone(), congested: false, run: Some(run) };
        if station.config.loc_rib {
            self.emit_loc_rib_up(clock.0, &mut bytes);
        }
        if station.wants_peers() {
            for standing in self.standing.iter().flatten() {
                self.emit_up(&standing.session, clock.0, &mut bytes);
            }
        }
        out.push(Output::ToStation { station: config.id, bytes });
        self.stations.push(station);
    }

    /// A station has gone. What is known of the last one's is forgotten.
    pub(crate) fn leave(&mut self, id: StationId) {
        self.stations.retain(|station| station.config.id != id);
        if self.stations.is_empty() {
            self.forgotten.extend(std::mem::take(&mut self.told));
            self.batch = Batch::new();
        }
    }

    pub(crate) fn congested(&mut self, id: StationId, congested: bool) {
        if let Some(station) = self.stations.iter_mut().find(|station| station.config.id == id) {
            station.congested = congested;
        }
    }

    fn stand(&mut self, slot: Slot, session: Monitored) {
        let at = slot.0 as usize;
        if self.standing.len() <= at {
            self.standing.resize_with(at + 1, || None);
        }
        self.generations = self.generations.wrapping_add(1);
        self.standing[at] = Some(Standing { session, generation: self.generations });
    }

    /// A session stands.
    pub(crate) fn peer_up(&mut self, slot: Slot, session: Monitored, now: Instant, out: &mut Vec<Output>) {
        if !self.is_on() {
            return;
        }
        let mut bytes = Vec::new();
        self.emit_up(&session, now, &mut bytes);
        self.stand(slot, session);
        self.send(&bytes, Station::wants_peers, out);
    }

    /// A session is gone, for this reason; no-op for one that nobody was told of.
    pub(crate) fn peer_down(&mut self, slot: Slot, reason: &Reason, now: Instant, out: &mut Vec<Output>) {
        let Some(standing) = self.standing.get_mut(slot.0 as usize).and_then(Option::take) else { return };
        let mut notification = Vec::new();
        let down = match reason {
            Reason::Sent(sent) => {
                sent.emit(&mut notification);
                Down::LocalNotification(&notification)
            }
            Reason::Received(received) => {
                received.emit(&mut notification);
                Down::RemoteNotification(&notification)
            }
            Reason::ConnectionLost => Down::RemoteLost,
            _ => Down::LocalEvent(0),
        };
        let mut bytes = Vec::new();
        let header = self.header_of(&standing.session, View::PrePolicy, now);
        Message::PeerDown(header, down).emit(&mut bytes);
        self.send(&bytes, Station::wants_peers, out);
    }

    /// We end: stations are told.
    pub(crate) fn terminate(&mut self, out: &mut Vec<Output>) {
        let mut bytes = Vec::new();
        Message::Termination(ADMINISTRATIVELY_CLOSED).emit(&mut bytes);
        self.send(&bytes, |_| true, out);
        self.stations.clear();
    }

    /// Tells counts: `of` gives those of a session, `loc_rib` are our own.
    pub(crate) fn statistics(
        &mut self,
        of: impl Fn(Slot) -> Vec<Statistic>,
        loc_rib: Vec<Statistic>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let mut bytes = Vec::new();
        for (at, standing) in self.standing.iter().enumerate() {
            let Some(standing) = standing else { continue };
            let header = self.header_of(&standing.session, View::PrePolicy, now);
            Message::Statistics(header, of(Slot(at as u32))).emit(&mut bytes);
        }
        self.send(&bytes, Station::wants_peers, out);
        bytes.clear();
        Message::Statistics(self.loc_rib_header(now), loc_rib).emit(&mut bytes);
        self.send(&bytes, |station| station.config.loc_rib, out);
    }

    /// These are the paths to a prefix now, and they may be others than before. Those that `is_said` of have been announced in
    /// the session that stands.
    pub(crate) fn note(&mut self, shown: Shown<'_>, is_said: impl Fn(&Path) -> bool) {
        if self.is_on() {
            let mut batch = std::mem::take(&mut self.batch);
            self.change(shown, is_said, &mut batch);
            self.batch = batch;
        }
    }

    /// Tells everybody what was noted, then leads those on that have just come. `at` gives what is at a place of a table.
    pub(crate) fn work<'a>(
        &mut self,
        at: impl Fn(Family, Index) -> Option<Shown<'a>>,
        is_said: impl Fn(Family, &Path) -> bool,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        self.forget();
        let batch = std::mem::take(&mut self.batch);
        self.tell(&batch, None, now, out);
        for number in 0..self.stations.len() {
            let station = &mut self.stations[number];
            if station.congested {
                continue;
            }
            let Some(run) = &mut station.run else { continue };
            let (mut portion, mut room) = (Vec::new(), PORTION);
            for (family, left) in Family::ALL.into_iter().zip(&mut *run) {
                let end = left.end.min(Index(left.start.0.saturating_add(room)));
                room -= end.0.saturating_sub(left.start.0);
                portion.extend((left.start.0..end.0).filter_map(|place| at(family, Index(place))));
                left.start = end;
            }
            let ends = run.iter().all(Range::is_empty);
            let (mut news, mut all) = (Batch::new(), Batch::new());
            for shown in portion {
                // What nobody knows yet is news to the others, and part of the table to this one.
                let is_said = |path: &Path| is_said(shown.prefix.family(), path);
                self.change(shown, is_said, &mut news);
                self.recite(shown, &mut all);
            }
            let id = self.stations[number].config.id;
            let others = |station: &Station| station.config.id != id;
            self.tell_those(&news, others, now, out);
            self.tell(&all, Some(id), now, out);
            if ends {
                self.stations[number].run = None;
                self.end_of_rib(number, now, out);
            }
        }
    }

    /// Forgets a portion of what stations that are gone were told.
    fn forget(&mut self) {
        let Some(told) = self.forgotten.last_mut() else { return };
        told.truncate(told.len().saturating_sub(PORTION as usize));
        if told.is_empty() {
            self.forgotten.pop();
        }
    }

    /// Compares what was told of a prefix with what is, and puts the difference into `batch`.
    fn change(&mut self, shown: Shown<'_>, is_said: impl Fn(&Path) -> bool, batch: &mut Batch) {
        let Shown { index: Index(index), prefix, paths } = shown;
        let (family, index) = (prefix.family(), index as usize);
        let all = &mut self.told[family as usize];
        if all.len() <= index {
            all.resize_with(index + 1, Told::default);
        }
        let told = &mut all[index];
        let generation_of = |slot: Slot| {
            let standing = self.standing.get(slot.0 as usize).and_then(Option::as_ref);
            standing.filter(|standing| standing.session.families[family as usize]).map(|it| it.generation)
        };
        // What a session that is gone told is forgotten at the stations, too.
        told.paths.retain(|path| generation_of(path.source) == Some(path.generation));
        told.paths.retain(|old| {
            let nlri = Nlri { path_id: old.path_id, prefix };
            let stays = paths.iter().any(|path| (path.source, path.path_id) == (old.source, old.path_id));
            if !stays {
                updates(batch, (View::PrePolicy, old.source, family)).withdrawn.push(nlri);
                if old.post.is_some() {
                    updates(batch, (View::PostPolicy, old.source, family)).withdrawn.push(nlri);
                }
            }
            stays
        });
        for path in paths {
            let Some(generation) = generation_of(path.source) else { continue };
            // Left or kept of a session before: in this one it hasn't been said.
            if !is_said(path) {
                continue;
            }
            let nlri = Nlri { path_id: path.path_id, prefix };
            let post = (!path.has(mark::INELIGIBLE)).then(|| Arc::clone(&path.imported));
            let is_it = |old: &&mut ToldPath| (old.source, old.path_id) == (path.source, path.path_id);
            let old = told.paths.iter_mut().find(is_it);
            let same = |a: Option<&Arc<Attributes>>, b: Option<&Arc<Attributes>>| match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (a, b) => a.is_none() && b.is_none(),
            };
            if !same(old.as_ref().map(|old| &old.pre), Some(path.received())) {
                updates(batch, (View::PrePolicy, path.source, family)).announce(nlri, path.received());
            }
            let old_post = old.as_ref().and_then(|old| old.post.as_ref());
            if !same(old_post, post.as_ref()) {
                match &post {
                    Some(post) => {
                        updates(batch, (View::PostPolicy, path.source, family)).announce(nlri, post)
                    }
                    None => updates(batch, (View::PostPolicy, path.source, family)).withdrawn.push(nlri),
                }
            }
            let pre = Arc::clone(path.received());
            match old {
                Some(old) => (old.pre, old.post) = (pre, post),
                None => {
                    let (source, path_id) = (path.source, path.path_id);
                    told.paths.push(ToldPath { source, path_id, generation, pre, post });
                }
            }
        }
        let nlri = Nlri { path_id: 0, prefix };
        let best = paths.iter().find(|path| path.has(mark::BEST)).map(|path| &path.imported);
        match (best, &told.loc) {
            (Some(best), Some(old)) if Arc::ptr_eq(best, old) => {}
            (Some(best), _) => {
                updates(batch, (View::LocRib, Slot::LOCAL, family))
                    .announce(nlri, &sayable(best, family, self.router_id));
                told.loc = Some(Arc::clone(best));
            }
            (None, Some(_)) => {
                updates(batch, (View::LocRib, Slot::LOCAL, family)).withdrawn.push(nlri);
                told.loc = None;
            }
            (None, None) => {}
        }
        if told.paths.is_empty() {
            told.paths = Vec::new();
        }
    }

    /// Puts all that was told of a prefix into `batch`.
    fn recite(&self, Shown { index, prefix, .. }: Shown<'_>, batch: &mut Batch) {
        let family = prefix.family();
        let Some(told) = self.told[family as usize].get(index.0 as usize) else { return };
        for path in &told.paths {
            let nlri = Nlri { path_id: path.path_id, prefix };
            let mut put = |view, attributes| {
                updates(batch, (view, path.source, family)).announce(nlri, attributes);
            };
            put(View::PrePolicy, &path.pre);
            if let Some(post) = &path.post {
                put(View::PostPolicy, post);
            }
        }
        if let Some(loc) = &told.loc {
            let nlri = Nlri { path_id: 0, prefix };
            updates(batch, (View::LocRib, Slot::LOCAL, family))
                .announce(nlri, &sayable(loc, family, self.router_id));
        }
    }

    /// Tells one station, or all.
    fn tell(&self, batch: &Batch, only: Option<StationId>, now: Instant, out: &mut Vec<Output>) {
        self.tell_those(batch, |station| only.is_none_or(|only| only == station.config.id), now, out);
    }

    fn tell_those(
        &self,
        batch: &Batch,
        whom: impl Fn(&Station) -> bool,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let mut by_view: BTreeMap<View, Vec<u8>> = BTreeMap::new();
        let mut updates = Vec::new();
        for ((view, slot, family), routes) in batch {
            let Some((header, form)) = self.header_and_form(*view, *slot, *family, now) else { continue };
            updates.clear();
            routes.emit(form, &mut updates);
            wrap(header, &updates, by_view.entry(*view).or_default());
        }
        for station in self.stations.iter().filter(|station| whom(station)) {
            let wanted = by_view.iter().filter(|(view, _)| station.wants(**view));
            let bytes: Vec<u8> = wanted.flat_map(|(_, bytes)| bytes).copied().collect();
            if !bytes.is_empty() {
                out.push(Output::ToStation { station: station.config.id, bytes });
            }
        }
    }

    /// A station has been told the whole table.
    fn end_of_rib(&self, at: usize, now: Instant, out: &mut Vec<Output>) {
        let station = &self.stations[at];
        let mut bytes = Vec::new();
        for family in Family::ALL {
            let mut end = Vec::new();
            emit_end_of_rib(&mut end, family);
            let standing = self.standing.iter().flatten();
            for peer in standing.filter(|peer| peer.session.families[family as usize]) {
                for view in
                    [View::PrePolicy, View::PostPolicy].into_iter().filter(|view| station.wants(*view))
                {
                    wrap(self.header_of(&peer.session, view, now), &end, &mut bytes);
                }
            }
            if station.config.loc_rib {
                wrap(self.loc_rib_header(now), &end, &mut bytes);
            }
        }
        if !bytes.is_empty() {
            out.push(Output::ToStation { station: station.config.id, bytes });
        }
    }

    fn send(&self, bytes: &[u8], whom: impl Fn(&Station) -> bool, out: &mut Vec<Output>) {
        if !bytes.is_empty() {
            for station in self.stations.iter().filter(|station| whom(station)) {
                out.push(Output::ToStation { station: station.config.id, bytes: bytes.to_vec() });
            }
        }
    }

    fn header_and_form(
        &self,
        view: View,
        slot: Slot,
        family: Family,
        now: Instant,
    ) -> Option<(PeerHeader, Form)> {
        let form = Form { family, max_len: MAX_MESSAGE_LEN, add_path: false };
        if view == View::LocRib {
            return Some((self.loc_rib_header(now), form));
        }
        let session = &self.standing.get(slot.0 as usize)?.as_ref()?.session;
        let form = Form { add_path: session.add_path[family as usize], ..form };
        Some((self.header_of(session, view, now), form))
    }

    fn header_of(&self, session: &Monitored, view: View, now: Instant) -> PeerHeader {
        PeerHeader {
            view,
            address: Some(session.address),
            as_number: session.as_number,
            router_id: session.router_id,
            time: self.time(now),
        }
    }

    fn loc_rib_header(&self, now: Instant) -> PeerHeader {
        PeerHeader {
            view: View::LocRib,
            address: None,
            as_number: self.local_as.0,
            router_id: self.router_id,
            time: self.time(now),
        }
    }

    fn time(&self, now: Instant) -> Duration {
        self.clock.map_or(Duration::ZERO, |(then, time)| time + now.saturating_duration_since(then))
    }

    fn emit_up(&self, session: &Monitored, now: Instant, out: &mut Vec<u8>) {
        Message::PeerUp {
            peer: self.header_of(session, View::PrePolicy, now),
            local: Some(session.local),
            ports: session.ports,
            opens: [&session.opens[0], &session.opens[1]],
            table: None,
        }
        .emit(out);
    }

    /// The OPENs are made up: they say how what follows is to be read (RFC 9069 §4.4).
    fn emit_loc_rib_up(&self, now: Instant, out: &mut Vec<u8>) {
        let open = Open {
            my_as: u16::try_from(self.local_as.0).unwrap_or(AS_TRANS),
            hold_time: 0,
            router_id: self.router_id,
            capabilities: Family::ALL
                .map(|family| Capability::MultiProtocol(AfiSafi::unicast(family)))
                .into_iter()
                .chain([Capability::FourOctetAs(self.local_as.0)])
                .collect(),
        };
        let mut bytes = Vec::new();
        open.emit(&mut bytes);
        Message::PeerUp {
            peer: self.loc_rib_header(now),
            local: None,
            ports: (0, 0),
            opens: [&bytes, &bytes],
            table: Some(TABLE),
        }
        .emit(out);
    }
}

/// Where routes of this kind are gathered.
fn updates(batch: &mut Batch, key: (View, Slot, Family)) -> &mut Updates {
    batch.entry(key).or_default()
}

/// Our own routes have no next hop of their own: our identifier stands for us, mapped into IPv6 (RFC 4291 §2.5.5.2) where it
/// has to be, as next hops of nothing are malformed.
fn sayable(attributes: &Arc<Attributes>, family: Family, router_id: Ipv4Addr) -> Arc<Attributes> {
    if attributes.nexthop().is_some() {
        return Arc::clone(attributes);
    }
    let nexthop = match family {
        Family::V4 => IpAddr::V4(router_id),
        Family::V6 => IpAddr::V6(router_id.to_ipv6_mapped()),
    };
    let mut key = Vec::new();
    Rewrite::of(attributes).write(Some(nexthop), &mut key);
    Arc::new(Attributes::from_key(&key, attributes.hash))
}

/// Puts each BGP message into one of Route Monitoring.
fn wrap(header: PeerHeader, mut updates: &[u8], out: &mut Vec<u8>) {
    while let Some(&[a, b]) = updates.get(16..18).and_then(|len| len.first_chunk()) {
        let len = usize::from(u16::from_be_bytes([a, b])).max(HEADER_LEN).min(updates.len());
        let (update, rest) = updates.split_at(len);
        Message::RouteMonitoring(header, update).emit(out);
        updates = rest;
    }
}
