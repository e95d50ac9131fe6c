//! The flow table: what is remembered of each flow, shared by all workers (ARCHITECTURE.md, D7).
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
//! `adding.rs` and `ending.rs` are how flows begin and end, `listing.rs` what people see of them; `glance.rs` looks a batch up;
//! `timeouts.rs` holds states and times, `verdict.rs` what policy has said of a flow,
//! `connections.rs` how many of them an endpoint has; `mappings.rs` holds what keeps a workload's port to one outer port,
//! `ports.rs` which of those are free. `rehearsal.rs` makes a small copy for packets that are made up.

mod adding;
mod connections;
mod ending;
mod flow;
mod fragments;
mod free;
mod glance;
mod index;
mod listing;
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
use packet::FlowKey;

use connections::Connections;
use fragments::Fragments;
use free::Free;
use index::{Hash, Index, Link, row_and_side};
use ports::Ports;
use row::{AllRows, Life, Row, Words, key, words};

pub use flow::{Direction, Flow};
pub use glance::{Glanced, Glimpses};
pub use listing::{FlowCounts, FlowRow};
pub(crate) use mappings::has_mapping;
pub use probes::{ColumnsV4, Probes};
pub use timeouts::{FlowTime, FlowTimeouts, TcpPacket, Ticks, begins_flow};
pub use verdict::{Beginning, Between, FlowVerdict};

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
        if beginning.is_syn {
            asked(row, flow);
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
}

/// Notes that a flow began with a SYN, as long as the row is its.
fn asked(row: Row<'_>, flow: &Flow) {
    let mut life = row.life();
    while life.generation() == flow.life.generation() && life.has(Life::LIVE) {
        match row.change(life, life.with(life.flags() | Life::ASKED, life.seen())) {
            Ok(()) => return,
            Err(changed) => life = changed,
        }
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

#[cfg(test)]
mod tests;
