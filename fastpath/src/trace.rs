//! Seeing a packet: what each stage of the walk finds of those that somebody follows.
//!
//! The walk tells its [`Watch`] when a stage is over. Of most batches that does nothing; of one in 64 it takes the time, and
//! where packets are followed it compares the batch's columns with what they were. So no stage knows of it, but policy,
//! which says by which rule it has judged.

mod made_up;
mod recall;
mod rehearsal;

use std::cell::RefCell;

use model::{MacAddr, PortId, WorkerId};
use packet::encapsulation::vni;
use packet::{FlowKey, Parsed, ecn, protocol, udp};
use tables::{
    Answer, Fate, FlowSeen, Flows, Group, GroupId, Headers, Left, MeterTime, RouteTaken, Snapshot, Stage,
    State, Ticks, Trace, TraceFilter, Tracing,
};

use crate::Batch;
use crate::flow::tcp_flags;
use crate::stopwatch::Stopwatch;

pub use made_up::{MadeUp, Outer, Unfit};
pub use rehearsal::Rehearsal;

/// Packets of one batch that are followed: others are missed, so that a filter which asks for too much slows nothing down
/// by more than this.
const FOLLOWED: usize = 8;

/// Who is told when a stage of the walk is over.
pub(crate) struct Watch {
    /// Has it anything to do with this batch? Else it costs a comparison a stage.
    is_on: bool,
    pub(crate) stopwatch: Stopwatch,
    followed: Followed,
}

impl Watch {
    /// Follows nothing yet.
    pub(crate) fn new(flows: Flows) -> Watch {
        let followed = Followed { packets: Vec::new(), flows, now: Ticks::default() };
        Watch { is_on: false, stopwatch: Stopwatch::new(), followed }
    }

    /// A round begins.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.is_on = self.stopwatch.begin();
    }

    /// A stage of the walk is over.
    #[inline(always)]
    pub(crate) fn lap(&mut self, stage: Stage, batch: &Batch, tables: &Snapshot<'_>) {
        if self.is_on {
            self.look(stage, batch, tables);
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self, stage: Stage, batch: &Batch, tables: &Snapshot<'_>) {
        self.stopwatch.lap(stage);
        for packet in &mut self.followed.packets {
            packet.stage_is_over(stage, batch, tables, (&self.followed.flows, self.followed.now));
        }
    }

    /// What the time is, for meters.
    #[inline]
    pub(crate) fn meter_time(&self) -> MeterTime {
        self.stopwatch.meter_time()
    }

    /// Chooses packets of a batch that is about to be walked at this time; `false` where there is none to follow.
    #[cold]
    pub(crate) fn follow(&mut self, batch: &Batch, now: Ticks, worker: WorkerId, tracing: &Tracing) -> bool {
        self.followed.now = now;
        let filter = tracing.filter();
        let follows = filter.is_some_and(|filter| self.followed.choose(batch, worker, tracing, &filter));
        self.is_on |= follows;
        follows
    }

    /// Packets that are followed meet these flows from now on.
    pub(crate) fn meet(&mut self, flows: Flows) {
        self.followed.flows = flows;
    }

    /// Tells of what was followed, once its walk is over.
    #[cold]
    pub(crate) fn tell(&mut self, tables: &Snapshot<'_>, answers: &Answers, tracing: &Tracing) {
        self.followed.conclude(tables, answers);
        if let Some(filter) = tracing.filter() {
            let wanted = self.followed.packets.iter().filter(|packet| filter.wants(packet.trace.fate));
            wanted.for_each(|packet| tracing.tell(&packet.trace));
        }
        self.followed.packets.clear();
    }
}

/// Where policy says what it has said of packets: by where their bytes lie, as it knows no rows.
#[derive(Default)]
pub(crate) struct Answers(RefCell<Vec<(usize, Answer)>>);

impl Answers {
    /// Policy has said this of the packet.
    pub(crate) fn put(&self, packet: &[u8], answer: Answer) {
        self.0.borrow_mut().push((packet.as_ptr().addr(), answer));
    }
}

/// Packets of one batch that are followed, each in its row. Kept from batch to batch, so that following allocates nothing.
struct Followed {
    packets: Vec<Packet>,
    flows: Flows,
    /// The time that the walk goes by: a flow that it knows is known here.
    now: Ticks,
}

struct Packet {
    row: usize,
    trace: Trace,
    /// What it is at the moment.
    key: Option<FlowKey>,
    /// Where its bytes lay when policy saw them.
    lay_at: usize,
}

impl Followed {
    /// Chooses packets of a batch that the filter asks for; `false` where there is none.
    fn choose(&mut self, batch: &Batch, worker: WorkerId, tracing: &Tracing, filter: &TraceFilter) -> bool {
        self.packets.clear();
        for run in &batch.runs {
            if filter.port.is_some() && filter.port != run.ingress {
                continue;
            }
            for row in run.rows().filter(|row| batch.fates[*row] == Fate::Undecided) {
                if !matches(filter, batch.frames[row].bytes()) || !tracing.is_due(filter.one_in) {
                    continue;
                }
                match self.packets.len() < FOLLOWED {
                    true => self.follow(batch, row, worker, run.ingress),
                    false => tracing.miss(),
                }
            }
        }
        !self.packets.is_empty()
    }

    /// Follows the packet in this row.
    fn follow(&mut self, batch: &Batch, row: usize, worker: WorkerId, ingress: Option<PortId>) {
        let trace = Trace::begun(Some(worker), ingress, batch.frames[row].len() as u16);
        self.packets.push(Packet { row, trace, key: None, lay_at: 0 });
    }

    /// Puts down what policy has said, and would say of those that it wasn't asked of.
    fn conclude(&mut self, tables: &Snapshot<'_>, answers: &Answers) {
        for (lay_at, answer) in answers.0.borrow_mut().drain(..) {
            if let Some(packet) = self.packets.iter_mut().find(|packet| packet.lay_at == lay_at) {
                packet.trace.answer(answer);
            }
        }
        for Packet { trace, .. } in &mut self.packets {
            if trace.policy_asks && trace.answers[0].is_none() && !matches!(trace.fate, Fate::Drop(_)) {
                recall::answers(trace, tables.state, (&self.flows, self.now));
            }
        }
    }
}

/// Is this a packet that is asked for, by its own headers or by those inside?
pub(crate) fn matches(filter: &TraceFilter, frame: &[u8]) -> bool {
    match packet::parse(frame) {
        Ok(parsed) => {
            let keys = [FlowKey::new(frame, &parsed), FlowKey::inside(frame, &parsed)];
            keys.iter().flatten().any(|key| filter.matches(key)) || keys == [None; 2] && is_any(filter)
        }
        Err(_) => is_any(filter),
    }
}

/// Does the filter ask for nothing that only an IP packet can have?
fn is_any(filter: &TraceFilter) -> bool {
    TraceFilter { port: None, dropped: None, both_ways: false, one_in: 0, ..filter.clone() }
        == TraceFilter::default()
}

impl Packet {
    fn stage_is_over(&mut self, stage: Stage, batch: &Batch, tables: &Snapshot<'_>, flows: (&Flows, Ticks)) {
        let state = tables.state;
        let (fate, parsed) = (batch.fates[self.row], &batch.parsed[self.row]);
        let frame = batch.frames[self.row].bytes();
        let was_open = self.trace.fate == Fate::Undecided;
        let is_open = fate == Fate::Undecided;
        match stage {
            Stage::Parse if is_open => {
                self.key = FlowKey::new(frame, parsed);
                self.trace.came = headers(frame, parsed);
                self.trace.reverse_path = state.reverse_path;
            }
            Stage::Decapsulate if batch.opened >> self.row & 1 != 0 => {
                self.key = FlowKey::new(frame, parsed);
                self.trace.inside = headers(frame, parsed);
            }
            // Before any of its flow is changed by this packet.
            Stage::ReversePath if is_open => {
                self.trace.flow = self.flow(state, flows);
                self.lay_at = frame.as_ptr().addr();
            }
            Stage::Nat if is_open => self.translated(frame, parsed),
            Stage::Route if was_open => self.trace.route = route(state, batch, self.row),
            // What waits for its neighbour has its fate already.
            Stage::Policy if self.trace.route.is_some() => {
                (self.trace.policy_asks, self.trace.policy_epoch) = (true, state.policy.epoch());
            }
            Stage::Rewrite if was_open => {
                if let Fate::Forward(_) | Fate::Fragment(_) = fate {
                    self.trace.left = left(state, batch, self.row);
                }
            }
            _ => {}
        }
        if fate != self.trace.fate {
            (self.trace.fate, self.trace.ended) = (fate, stage);
        }
    }

    /// What is remembered of its flow.
    fn flow(&self, state: &State, (flows, now): (&Flows, Ticks)) -> FlowSeen {
        let Some(key) = &self.key else { return FlowSeen::NotAsked };
        match flows.look_up(key, now, &state.nat.timeouts) {
            None => FlowSeen::Unknown,
            Some(flow) => FlowSeen::Known {
                direction: flow.direction,
                judged: flow.verdict.is_of(state.policy.epoch()),
                translated: flow.is_translated(),
            },
        }
    }

    /// Translation comes before the route and after it.
    fn translated(&mut self, frame: &[u8], parsed: &Parsed) {
        let now = FlowKey::new(frame, parsed);
        if now == self.key {
            return;
        }
        match self.trace.route {
            None => self.trace.before_route = now,
            Some(_) => self.trace.after_route = now,
        }
        self.key = now;
    }
}

/// A packet's headers, for people.
fn headers(frame: &[u8], parsed: &Parsed) -> Option<Headers> {
    let is_icmp = matches!(parsed.protocol, protocol::ICMP | protocol::ICMPV6);
    let message = if is_icmp { parsed.l4_packet(frame) } else { &[] };
    Some(Headers {
        key: FlowKey::new(frame, parsed)?,
        ttl: parsed.ttl,
        dscp: frame.get(usize::from(parsed.l3)..).map_or(0, ecn::traffic_class) >> 2,
        len: parsed.l3_len,
        tcp_flags: tcp_flags(frame, parsed),
        icmp: message.first_chunk().map(|[icmp_type, code]| (*icmp_type, *code)),
        fragment: parsed.fragment,
    })
}

fn route(state: &State, batch: &Batch, row: usize) -> Option<RouteTaken> {
    let group = GroupId(batch.asked.groups[row]);
    let members = state.group(group).map_or(&[][..], Group::members);
    let hop = *state.next_hops.get(batch.hops[row]);
    let chosen = members.iter().position(|member| hop.adjacency == Some(*member));
    let neighbor = hop.adjacency.and_then(|id| state.adjacency(id)).map(|adjacency| adjacency.neighbor);
    Some(RouteTaken {
        group,
        members: members.len() as u16,
        member: chosen.map_or(0, |chosen| chosen as u16 + 1),
        adjacency: hop.adjacency,
        neighbor,
        hop,
    })
}

/// How a frame was written.
fn left(state: &State, batch: &Batch, row: usize) -> Option<Left> {
    let frame = batch.frames[row].bytes();
    let parsed = packet::parse(frame).ok()?;
    let address = |at: usize| frame.get(at..)?.first_chunk().map(|octets| MacAddr(*octets));
    let hop = state.next_hops.get(batch.hops[row]);
    let template = state.next_hops.encapsulation(hop);
    let datagram = frame.get(usize::from(parsed.l4) + udp::HEADER_LEN..);
    Some(Left {
        destination: address(0)?,
        source: address(6)?,
        headers: headers(frame, &parsed)?,
        // What is cut into fragments gets its outer headers then.
        in_tunnel: template.is_some() && matches!(batch.fates[row], Fate::Forward(_)),
        vni: template.filter(|template| template.is_vxlan()).and_then(|_| datagram.and_then(vni)),
        frame_len: frame.len() as u16,
    })
}
