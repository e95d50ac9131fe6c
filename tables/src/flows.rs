//! The flow table: what is remembered of each flow, shared by all workers (DESIGN.md, D7).
//!
//! ```text
//!  key ── hash ──► row                           where most flows lie that nobody translates: one cache line
//!           └────► bucket ──► row ──► row        where all lie: a plain flow in one chain, as its keys differ in their way only;
//!                  (index.rs)   (row.rs)         a translated one in two, by the key that its first packet showed and by the
//!                                                one that replies show
//! ```
//!
//! A look-up waits for nobody and finds a flow by either key; with it comes the other key, which says what the packet is
//! translated to: the other key turned round. Any worker adds and removes flows, holding one bucket for each key meanwhile,
//! lower number first; two workers that see the first packets of one flow at once get one row. All rows exist from the
//! start. A flow gets the row that its first key's hash points to if that is free, else another (free.rs). Where none is free,
//! the next row under the hand whose flow isn't established is evicted, so a flood of first packets pushes out first packets
//! only. A second hand ages some rows at a time.
//!
//! `glance.rs` looks a batch up; `timeouts.rs` holds states and times, `verdict.rs` what policy has said of a flow,
//! `connections.rs` how many of them an endpoint has; `mappings.rs` holds what keeps a workload's port to one outer port,
//! `ports.rs` which of those are free. `rehearsal.rs` makes a small copy for packets that are made up.

mod connections;
mod fragments;
mod free;
mod glance;
mod index;
mod mappings;
mod ports;
mod probes;
mod rehearsal;
mod row;
mod timeouts;
mod verdict;

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::time::Instant;

use model::PortId;
use packet::{FlowKey, protocol};

use connections::Connections;
use fragments::Fragments;
use free::Free;
use index::{Hash, Held, Index, Link, find_in, link, row_and_side};
use ports::Ports;
use row::{AllRows, Life, Row, Words, directed, is_own_answer, is_turned, key, undirected, words};

pub use glance::{Glanced, Glimpses};
pub(crate) use mappings::has_mapping;
pub use probes::{ColumnsV4, Probes};
pub use timeouts::{FlowTime, FlowTimeouts, TcpPacket, Ticks, begins_flow};
pub use verdict::{Beginning, Between, FlowVerdict};

/// Rows looked at for one to evict: a bound for the work of one packet.
const EVICTION_SCAN: u32 = 64;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// As the flow's first packet.
    Original,
    /// The other way.
    Reply,
}

/// A flow that was looked up. It stays a valid answer however the table changes: a row that has gone to another flow ignores
/// what is said of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    row: u32,
    protocol: u8,
    life: Life,
    /// Which way packets with the asked key go.
    pub direction: Direction,
    /// The key of packets that go the other way. Reversed, it is what a packet with the asked key becomes.
    pub other: FlowKey,
    /// What policy has said of it.
    pub verdict: FlowVerdict,
}

impl Flow {
    /// Do packets leave under other addresses or ports than they came with?
    #[inline]
    pub fn is_translated(&self) -> bool {
        !self.life.has(Life::PLAIN)
    }

    /// The packets that both policies of its ends are about, as the first one goes: its source before any translation, its
    /// destination after. `asked`: the key that it was found by.
    pub fn judged_as(&self, asked: &FlowKey) -> FlowKey {
        let (original, reply) = match self.direction {
            Direction::Original => (asked, &self.other),
            Direction::Reply => (&self.other, asked),
        };
        FlowKey { dst: reply.src, dport: reply.sport, ..*original }
    }

    /// The key of its first packet as it came. `asked`: the key that it was found by.
    pub fn original_of(&self, asked: &FlowKey) -> FlowKey {
        match self.direction {
            Direction::Original => *asked,
            Direction::Reply => self.other,
        }
    }

    /// May the flow have such a TCP packet, after what came before?
    #[inline]
    pub fn may_have(&self, packet: TcpPacket) -> bool {
        timeouts::may_follow(self.life.flags(), self.direction, packet)
    }

    /// What a packet with the asked key becomes.
    pub fn translated(&self) -> FlowKey {
        self.other.reversed()
    }
}

/// Why a flow was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// It is there already.
    Known(Flow),
    /// Another flow's replies look like this one's would.
    Ambiguous,
    /// Every port of the range is taken.
    PortsExhausted,
    /// Its sender has as many ports as one address may have.
    OverShare,
    /// All rows are taken, and no flow nearby may be evicted.
    Full,
}

/// The outer address of flows whose source is translated, and the ports that they may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OuterAddress {
    /// As in [`FlowKey`].
    pub address: u128,
    /// TCP and UDP ports, SCTP ports and ICMP identifiers.
    pub ports: RangeInclusive<u16>,
}

/// A flow for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRow {
    /// As its first packet showed.
    pub original: FlowKey,
    /// As its replies show.
    pub reply: FlowKey,
    /// `new`, `answered`, `established`, `closed` or `reset`.
    pub state: &'static str,
    /// Seconds since its last packet.
    pub silent: u32,
}

/// Sums for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Rows in use: flows, mappings, and a count for each sender and protocol.
    pub in_use: usize,
    /// All rows.
    pub size: usize,
    /// Flows that went before their time to make room.
    pub evicted: u64,
    /// Outer ports in use.
    pub ports: usize,
    /// First packets of flows whose sender had its share of ports.
    pub over_share: u64,
}

struct Table {
    rows: AllRows,
    index: Index,
    free: Free,
    ports: Ports,
    fragments: Fragments,
    connections: Connections,
    evicted: AtomicU64,
    over_share: AtomicU64,
    /// Most outer ports of one address, for each protocol.
    ports_per_address: u32,
    /// The rows that evicting and ageing look at next.
    eviction_hand: AtomicUsize,
    ageing_hand: AtomicUsize,
    made: Instant,
}

/// A handle of the one table. Cheap to clone.
#[derive(Clone)]
pub struct Flows(Arc<Table>);

impl Flows {
    /// A table of so many rows. A translated flow takes one, one more for its port unless another flow shares it, and one
    /// for its sender's address.
    ///
    /// # Panics
    /// Where there are none, or 2³⁰ or more.
    pub fn new(rows: usize) -> Flows {
        Flows::with_share(rows, u32::MAX)
    }

    /// [`Flows::new`], and no address gets more than so many outer ports for each protocol.
    ///
    /// # Panics
    /// As [`Flows::new`].
    pub fn with_share(rows: usize, ports_per_address: u32) -> Flows {
        assert!((1..1 << 30).contains(&rows), "a flow table of {rows} rows");
        let table = Table {
            rows: AllRows::new(rows),
            index: Index::new(rows),
            free: Free::new(rows),
            ports: Ports::new(),
            fragments: Fragments::new(),
            connections: Connections::new(),
            evicted: AtomicU64::new(0),
            over_share: AtomicU64::new(0),
            // The highest number marks a row that is going.
            ports_per_address: ports_per_address.min(u32::MAX - 1),
            eviction_hand: AtomicUsize::new(0),
            ageing_hand: AtomicUsize::new(0),
            made: Instant::now(),
        };
        Flows(Arc::new(table))
    }

    /// Bytes of a table of so many rows.
    pub fn bytes(rows: usize) -> usize {
        rows * AllRows::BYTES_PER_ROW
            + (rows * Index::BUCKETS_PER_ROW).next_power_of_two() * 8
            + Free::bytes(rows)
            + Ports::BYTES
            + Fragments::BYTES
            + Connections::BYTES
    }

    /// The addresses at which rows and buckets lie.
    pub fn places(&self) -> [Range<usize>; 3] {
        let [near, far] = self.0.rows.places();
        [near, far, self.0.index.place()]
    }

    /// The datagrams in fragments that were translated.
    pub fn fragments(&self) -> &Fragments {
        &self.0.fragments
    }

    /// The time.
    pub fn now(&self) -> Ticks {
        Ticks::from(self.0.made.elapsed())
    }

    /// The flow that a packet with this key belongs to, whichever way it goes. Waits for nobody, unless its chain is being
    /// changed all the time.
    pub fn look_up(&self, asked: &FlowKey, now: Ticks, timeouts: &FlowTimeouts) -> Option<Flow> {
        let words = words(asked);
        self.look_up_words(&words, self.0.index.hash(&words), &FlowTime::new(now, timeouts))
    }

    /// [`Flows::look_up`] of a row that has been asked about.
    pub fn look_up_asked(&self, probes: &Probes, row: usize, time: &FlowTime<'_>) -> Option<Flow> {
        let probe = probes.get(row);
        self.look_up_words(&probe.directed(), probe.hash, time)
    }

    fn look_up_words(&self, words: &Words, hash: Hash, time: &FlowTime<'_>) -> Option<Flow> {
        let Table { rows, index, .. } = &*self.0;
        let asked = key(words);
        let read = |link, life, row: Row<'_>| read(link, life, row, &asked);
        let (_, life, flow) = index.find_and_read(rows, hash, words, read)?;
        if time.may_be_over(life) && time.timeouts.is_over(flow.protocol, life, time.now) {
            self.remove(flow.row, life);
            return None;
        }
        Some(flow)
    }

    /// What was found, where it is still there.
    fn reread(&self, (found, life): (Link, Life), asked: &FlowKey) -> Option<Flow> {
        let (row, _) = row_and_side(found);
        let row = self.0.rows.row(row);
        let flow = read(found, life, row, asked);
        // Keys are written after a row's generation moved on: the same one means that these were the keys.
        fence(Ordering::Acquire);
        (row.life().generation() == life.generation() && row.life().has(Life::LIVE)).then_some(flow)
    }

    /// Notes that a packet of the flow has passed. `tcp_flags`: zero for other protocols.
    pub fn touch(&self, flow: &Flow, tcp_flags: u8, time: &FlowTime<'_>) {
        let row = self.0.rows.row(flow.row);
        let mut life = flow.life;
        loop {
            let flags = timeouts::after(life.flags(), flow.protocol, flow.direction, tcp_flags);
            if flags == life.flags() && time.is_recent(life) {
                return;
            }
            match row.change(life, life.with(flags, time.now.0.max(life.seen()))) {
                Ok(()) => return,
                Err(changed) => life = changed,
            }
            if life.generation() != flow.life.generation() || !life.has(Life::LIVE) {
                return;
            }
        }
    }

    /// Notes of a flow that has just been added what is known of it by its first packet. Until then, others judge it for
    /// themselves.
    pub fn begin(&self, flow: &Flow, beginning: &Beginning) {
        let row = self.0.rows.row(flow.row);
        let is_there = || {
            let life = Life(row.near.life.fetch_or(Life::FAR.into(), Ordering::AcqRel));
            life.generation() == flow.life.generation() && life.has(Life::LIVE)
        };
        if !is_there() {
            return self.uncount(beginning.counted);
        }
        let is_counted = row.begin(flow.life.generation(), beginning);
        // Removed meanwhile: either whoever removed it has counted it off, or it is for us to do.
        if !is_counted || !is_there() && row.uncount(beginning.counted) {
            self.uncount(beginning.counted);
        }
    }

    /// Notes what policy says of a flow from now on.
    pub fn judge(&self, flow: &Flow, verdict: FlowVerdict) {
        let row = self.0.rows.row(flow.row);
        row.near.verdict.store(verdict.word(flow.life.generation()), Ordering::Relaxed);
    }

    /// Type and code of a flow's first packet, where that was an ICMP message and is remembered.
    pub fn icmp_of(&self, flow: &Flow) -> Option<(u8, u8)> {
        let row = self.0.rows.row(flow.row);
        if !flow.life.has(Life::FAR) {
            return None;
        }
        let icmp = verdict::icmp_of(row.far.icmp.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        icmp.filter(|_| row.life().generation() == flow.life.generation())
    }

    /// Removes a flow that has just begun and may not go on.
    pub fn forget(&self, flow: &Flow) {
        let life = self.0.rows.row(flow.row).life();
        if life.generation() == flow.life.generation() && life.has(Life::LIVE) && !life.has(Life::ANSWERED) {
            self.remove(flow.row, life);
        }
    }

    /// Counts a new connection from a port's endpoint, unless there are `limit` already. It belongs to the flow that then
    /// begins with it ([`Beginning::counted`]); whoever begins none gives it back.
    pub fn count_egress(&self, port: PortId, limit: u64) -> bool {
        self.0.connections.take_egress(port, limit)
    }

    /// [`Self::count_egress`] for a connection to a port's endpoint.
    pub fn count_ingress(&self, port: PortId, limit: u64) -> bool {
        self.0.connections.take_ingress(port, limit)
    }

    /// Counts a connection off that has not become a flow.
    pub fn uncount(&self, counted: Between) {
        self.0.connections.give_back(counted);
    }

    /// Connections counted of a port's endpoint: from it, and to it.
    pub fn connections_of(&self, port: PortId) -> (u32, u32) {
        self.0.connections.of(port)
    }

    /// Adds a flow whose replies show the key `reply`.
    ///
    /// # Errors
    /// See [`NotAdded`]; the table is as it was, but for flows evicted.
    pub fn add(
        &self,
        original: &FlowKey,
        reply: &FlowKey,
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<Flow, NotAdded> {
        self.add_with(original, reply, [0; 2], now, timeouts)
    }

    /// Adds the flow of a packet that has been asked about, which nobody translates, and what is known of it by that packet:
    /// [`Flows::add`] and [`Flows::begin`].
    ///
    /// # Errors
    /// As [`Flows::add`].
    pub fn add_asked(
        &self,
        probes: &Probes,
        row: usize,
        beginning: &Beginning,
        time: &FlowTime<'_>,
    ) -> Result<(), NotAdded> {
        let probe = probes.get(row);
        let is_icmp = matches!(probe.protocol(), protocol::ICMP | protocol::ICMPV6);
        let far = if is_icmp || beginning.counted != Between::default() { Life::FAR } else { 0 };
        self.add_plain(&probe.directed(), probe.hash, far, beginning, time.now, time.timeouts).map(drop)
    }

    /// Adds a flow that nobody translates. `asked`: the key of its first packet.
    fn add_plain(
        &self,
        asked: &Words,
        hash: Hash,
        far: u16,
        beginning: &Beginning,
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<(u32, Life), NotAdded> {
        let number = self.take_row(hash, now, timeouts).ok_or(NotAdded::Full)?;
        let turned = if is_turned(asked) { Life::TURNED } else { 0 };
        let flags = Life::LIVE | Life::PLAIN | turned | far;
        self.0.rows.row(number).write(beginning, flags);
        let life = self.link_plain(number, asked, hash, flags, now);
        let life = life.map_err(|refused| self.refuse(number, refused, &key(asked)))?;
        Ok((number, life))
    }

    fn add_with(
        &self,
        original: &FlowKey,
        reply: &FlowKey,
        mappings: [u32; 2],
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<Flow, NotAdded> {
        let (nothing, keys) = (Beginning::default(), [words(original), words(reply)]);
        if mappings == [0; 2] && undirected(&keys[0]) == undirected(&keys[1]) && keys[0] != keys[1] {
            let hash = self.0.index.hash(&keys[0]);
            let (row, life) = self.add_plain(&keys[0], hash, Life::FAR, &nothing, now, timeouts)?;
            let Beginning { verdict, .. } = nothing;
            let (protocol, direction, other) = (original.protocol, Direction::Original, *reply);
            return Ok(Flow { row, protocol, life, direction, other, verdict });
        }
        let hashes = keys.each_ref().map(|key| self.0.index.hash(key));
        let number = self.take_row(hashes[0], now, timeouts).ok_or(NotAdded::Full)?;
        let (row, flags) = (self.0.rows.row(number), Life::LIVE | Life::FAR);
        row.set_mappings(mappings);
        row.write(&nothing, flags);
        let life = self.link(number, &keys, hashes, flags, now);
        let life = life.map_err(|refused| {
            row.set_mappings([0; 2]);
            self.refuse(number, refused, original)
        })?;
        Ok(Flow {
            row: number,
            protocol: original.protocol,
            life,
            direction: Direction::Original,
            other: *reply,
            verdict: FlowVerdict::NONE,
        })
    }

    /// Gives a row back that could not be linked, and says why that was.
    #[cold]
    fn refuse(&self, number: u32, refused: Refused, original: &FlowKey) -> NotAdded {
        self.0.rows.row(number).far.forget();
        self.give_row(number);
        match refused {
            Refused::Known(found) => {
                self.reread(found, original).map_or(NotAdded::Ambiguous, NotAdded::Known)
            }
            Refused::Ambiguous => NotAdded::Ambiguous,
        }
    }

    /// Puts a row that nobody else knows into the chain of a plain flow's keys, unless either is there already. `asked`: the
    /// key that its first packet showed.
    fn link_plain(
        &self,
        number: u32,
        asked: &Words,
        hash: Hash,
        flags: u16,
        now: Ticks,
    ) -> Result<Life, Refused> {
        let Table { rows, index, .. } = &*self.0;
        let words = undirected(asked);
        let keys = [directed(&words, is_turned(asked)), directed(&words, !is_turned(asked))];
        if is_own_answer(&words) {
            return Err(Refused::Ambiguous);
        }
        let row = rows.row(number);
        // A look-up that still walks over this row and sees the new keys sees the version of the chain it left, too.
        fence(Ordering::Release);
        row.set_words(0, &words);
        let held = index.hold(hash);
        if let Some(refused) = refused(rows, [held.head(); 2], &keys) {
            index.release(held, held.head());
            return Err(refused);
        }
        let life = row.life().with(flags, now.0);
        row.near.next[0].store(held.head(), Ordering::Relaxed);
        row.set_hash(hash);
        // Whoever finds the row without its chain sees the keys of this life.
        row.near.life.store(life.0, Ordering::Release);
        index.release(held, link(number, 0));
        Ok(life)
    }

    /// Puts a row that nobody else knows into the chains of both keys, unless either key is there already. `hashes`: the
    /// keys'.
    fn link(
        &self,
        number: u32,
        keys: &[Words; 2],
        hashes: [Hash; 2],
        flags: u16,
        now: Ticks,
    ) -> Result<Life, Refused> {
        if keys[0] == keys[1] {
            return Err(Refused::Ambiguous);
        }
        let Table { rows, index, .. } = &*self.0;
        let row = rows.row(number);
        // As in `link_plain`.
        fence(Ordering::Release);
        (0..2).for_each(|side| row.set_words(side, &keys[side]));
        let buckets = hashes.map(|hash| index.bucket(hash));
        let [low, high] = if buckets[0] <= buckets[1] { hashes } else { [hashes[1], hashes[0]] };
        let low = index.hold(low);
        let high = (buckets[0] != buckets[1]).then(|| index.hold(high));
        let held = |side: usize| if low.bucket == buckets[side] { low } else { high.unwrap_or(low) };
        let release = |heads: [Link; 2]| {
            let head_of = |held: Held| heads[usize::from(held.bucket != buckets[0])];
            index.release(low, head_of(low));
            if let Some(high) = high {
                index.release(high, head_of(high));
            }
        };
        let heads = [held(0).head(), held(1).head()];
        if let Some(refused) = refused(rows, heads, keys) {
            release(heads);
            return Err(refused);
        }
        let life = row.life().with(flags, now.0);
        let (first, second) = (link(number, 0), link(number, 1));
        row.near.next[0].store(heads[0], Ordering::Relaxed);
        // In one chain, the second link comes in front of the first.
        row.near.next[1].store(if high.is_none() { first } else { heads[1] }, Ordering::Relaxed);
        row.near.life.store(life.0, Ordering::Release);
        release(if high.is_none() { [second; 2] } else { [first, second] });
        Ok(life)
    }

    /// Removes a flow that is still what `life` says: `false` where it has changed.
    fn remove(&self, number: u32, life: Life) -> bool {
        let is_emptied = self.empty(number, life);
        if is_emptied {
            self.0.free.give_back(number);
        }
        is_emptied
    }

    /// [`Self::remove`], and the row is the caller's alone.
    fn empty(&self, number: u32, life: Life) -> bool {
        let Table { rows, index, .. } = &*self.0;
        let row = rows.row(number);
        if row.change(life, life.with(0, life.seen())).is_err() {
            return false;
        }
        match life.has(Life::PLAIN) {
            true => index.unlink(rows, number, 0, row.hash()),
            false => (0..2).for_each(|side| index.unlink(rows, number, side, index.hash(&row.words(side)))),
        }
        let (mut mappings, mut counted) = ([0; 2], Between::default());
        if life.has(Life::FAR) {
            (mappings, counted) = (row.take_mappings(), row.take_counted());
        }
        row.near.life.store(row.life().next().0, Ordering::Release);
        self.0.connections.give_back(counted);
        mappings.into_iter().for_each(|mapping| self.release_shared(mapping));
        true
    }

    /// A row for the caller alone: the one where a key with this hash is looked for first if it is free, else another free
    /// one, else that of a flow that may go.
    fn take_row(&self, hash: Hash, now: Ticks, timeouts: &FlowTimeouts) -> Option<u32> {
        let home = self.0.index.home(hash);
        if let Some(number) = self.0.free.take(home) {
            return Some(number);
        }
        let rows = &self.0.rows;
        for _ in 0..EVICTION_SCAN {
            let number = (self.0.eviction_hand.fetch_add(1, Ordering::Relaxed) % rows.len()) as u32;
            let row = rows.row(number);
            let life = row.life();
            if !life.has(Life::LIVE) || life.has(Life::MAPPING) {
                continue;
            }
            let is_over = timeouts.is_over(row.protocol(), life, now);
            if (is_over || !life.has(Life::ESTABLISHED)) && self.empty(number, life) {
                if !is_over {
                    self.0.evicted.fetch_add(1, Ordering::Relaxed);
                }
                return Some(number);
            }
        }
        None
    }

    /// Gives back a row that is linked nowhere.
    fn give_row(&self, number: u32) {
        let row = self.0.rows.row(number);
        row.near.life.store(row.life().next().0, Ordering::Release);
        self.0.free.give_back(number);
    }

    /// Looks at the next so many rows and removes flows whose time is over; says how many went. Little work at a time, so
    /// that no packet waits for it.
    pub fn age(&self, count: usize, now: Ticks, timeouts: &FlowTimeouts) -> usize {
        let rows = &self.0.rows;
        let count = count.min(rows.len());
        let first = self.0.ageing_hand.fetch_add(count, Ordering::Relaxed);
        let mut removed = 0;
        for number in (first..first + count).map(|number| (number % rows.len()) as u32) {
            let row = rows.row(number);
            let life = row.life();
            if life.has(Life::LIVE)
                && timeouts.is_over(row.protocol(), life, now)
                && self.remove(number, life)
            {
                removed += 1;
            }
        }
        removed
    }

    /// Ends the flows of some rows that `ended` says this of by their original key and that of their replies; says how many
    /// went.
    pub fn end(&self, rows: Range<usize>, ended: impl Fn(&FlowKey, &FlowKey) -> bool) -> usize {
        let all = &self.0.rows;
        let within = rows.start.min(all.len())..rows.end.min(all.len());
        within
            .map(|number| number as u32)
            .filter(|number| self.end_one(*number, all.row(*number), &ended))
            .count()
    }

    fn end_one(&self, number: u32, row: Row<'_>, ended: impl Fn(&FlowKey, &FlowKey) -> bool) -> bool {
        loop {
            let life = Life(row.near.life.load(Ordering::Acquire));
            if !life.has(Life::LIVE) || life.has(Life::MAPPING) {
                return false;
            }
            let [original, reply] = row.keys(life);
            let is_over = ended(&original, &reply);
            // Keys of another flow than `life`'s were read where this fails; a packet that is noted fails it, too.
            fence(Ordering::Acquire);
            if !is_over && row.life().generation() == life.generation() {
                return false;
            }
            if is_over && self.remove(number, life) {
                return true;
            }
        }
    }

    /// Rows in use, as in [`Self::counts`].
    pub fn in_use(&self) -> usize {
        self.0.free.taken()
    }

    /// Sums for metrics.
    pub fn counts(&self) -> FlowCounts {
        FlowCounts {
            in_use: self.in_use(),
            size: self.0.rows.len(),
            evicted: self.0.evicted.load(Ordering::Relaxed),
            ports: self.0.ports.taken(),
            over_share: self.0.over_share.load(Ordering::Relaxed),
        }
    }

    /// The flows as they are, one row at a time: what changes meanwhile shows or doesn't.
    pub fn rows(&self) -> impl Iterator<Item = FlowRow> {
        let now = self.now();
        self.0.rows.iter().filter_map(move |row| {
            let life = Life(row.near.life.load(Ordering::Acquire));
            if !life.has(Life::LIVE) || life.has(Life::MAPPING) {
                return None;
            }
            let [original, reply] = row.keys(life);
            fence(Ordering::Acquire);
            let same = row.life().generation() == life.generation();
            let silent = now.0.saturating_sub(life.seen()) / Ticks::PER_SECOND;
            same.then_some(FlowRow { original, reply, state: state(life), silent })
        })
    }
}

/// What a row says to whom it was found by this key. It means something only where the row hasn't gone to another flow
/// meanwhile.
fn read(found: Link, life: Life, row: Row<'_>, asked: &FlowKey) -> Flow {
    let (number, side) = row_and_side(found);
    let other = if life.has(Life::PLAIN) { asked.reversed() } else { key(&row.words(1 - side)) };
    let verdict = FlowVerdict::of_word(row.near.verdict_word(), life.generation());
    let direction = if side == 0 { Direction::Original } else { Direction::Reply };
    Flow { row: number, protocol: asked.protocol, life, direction, other, verdict }
}

/// Is one of these keys in its chain already? `heads`: of their chains, which nobody else changes.
fn refused(rows: &AllRows, heads: [Link; 2], keys: &[Words; 2]) -> Option<Refused> {
    let known = |side: usize| find_in(rows, heads[side], &keys[side], u32::MAX).unwrap_or(None);
    if heads == [0; 2] {
        return None;
    }
    let first = known(0).map(|(link, life, _)| Refused::Known((link, life)));
    first.or_else(|| known(1).map(|_| Refused::Ambiguous))
}

/// Why a row was not linked.
enum Refused {
    Known((Link, Life)),
    Ambiguous,
}

fn state(life: Life) -> &'static str {
    if life.has(Life::RESET) {
        "reset"
    } else if life.has(Life::FIN_ORIGINAL | Life::FIN_REPLY) {
        "closed"
    } else if life.has(Life::ESTABLISHED) {
        "established"
    } else if life.has(Life::ANSWERED) {
        "answered"
    } else {
        "new"
    }
}

#[cfg(test)]
mod tests;
