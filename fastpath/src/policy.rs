//! Stage 10: what Calico policy says, of a flow's first packet; the others follow it (ARCHITECTURE.md, D7).
//!
//! ```text
//!  from a workload      its endpoint's egress policy; to this node itself, then defaultEndpointToHostAction
//!  to a workload        its endpoint's ingress policy, unless the host sends
//!  of a known flow      nothing is asked, as long as policy and ways are those that it was let pass under; else both ends'
//!                       policies are asked again, of the packet that began it, whichever way this one goes
//!  forwarded            by ports of host endpoints: pre-DNAT policy and that on forwarded traffic of the one that it came by
//!                       before all that, that of the one that it leaves by after it
//!  untracked            each packet, before any flow is looked for: what such policy allows belongs to none
//!  an ICMP error        goes with the flow of the packet that it quotes
//!  a later fragment     goes with the first one of its datagram
//! ```
//!
//! After Felix's chains (`felix/rules/endpoints.go`, `felix/rules/static.go`); what begins a flow and what is invalid is as
//! in Linux's connection tracking. `nat.rs` has looked up before the route what it may have to translate and what comes from
//! a workload with policy; here only what goes to one is looked up, so each packet is looked up once.

mod ask;
mod first;
mod foreseen;
mod untracked;

use std::ops::Range;

use model::{PortId, PortKind};
use packet::{FlowKey, Parsed, protocol};
use tables::{
    Beginning, Between, Direction, DropReason, Fate, Flow, FlowVerdict, NextHop, NotAdded, Port, PortPolicy,
    PuntReason, Rows, State, TUNNELS, TcpPacket,
};

use crate::batch::Run;
use crate::flow::{Found, Memory, Seen, tcp_flags};
use crate::nat;
use crate::{BATCH, Batch};

pub(crate) use ask::{Reporter, asked as as_policy_sees};
use first::First;
use foreseen::{Foreseen, Said};
pub(crate) use untracked::untracked;

/// What this stage and `nat.rs` leave each other, without gaps.
pub(crate) struct Columns {
    /// Rows that have been looked up, but for those that are known (`flow.rs`).
    pub(crate) seen: Vec<Seen>,
    /// Rows whose flows `nat.rs` is to begin, and how.
    beginnings: Vec<(u8, Beginning)>,
    /// What endpoints' policies say of packets of no flow, in the order of `seen`, and what they were asked in.
    foreseen: Foreseen,
    /// Rows that untracked policy has allowed, and what the slow path sends as it is: of no flow.
    pub(crate) untracked: Rows,
}

impl Columns {
    pub(crate) fn new() -> Columns {
        Columns {
            seen: Vec::with_capacity(BATCH),
            beginnings: Vec::with_capacity(BATCH),
            foreseen: Foreseen::new(),
            untracked: Rows::NONE,
        }
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.seen.clear();
        self.beginnings.clear();
        self.untracked = Rows::NONE;
    }

    /// What is known of a row's flow that begins under another source.
    pub(crate) fn beginning_of(&self, row: u8) -> Beginning {
        let known = self.beginnings.iter().find(|(other, _)| *other == row);
        known.map(|(_, beginning)| *beginning).unwrap_or_default()
    }
}

/// What is asked at all, by a batch's tables. Where it is nothing, there is none.
#[derive(Clone, Copy)]
pub(crate) struct Policing<'a> {
    state: &'a State,
    /// Endpoints have policies, or limits of connections.
    asks_at_endpoints: bool,
    /// What workloads send to the host is dropped, or some of it goes another way.
    asks_to_host: bool,
}

/// One end of a packet's way through the router.
#[derive(Clone, Copy)]
struct End {
    port: PortId,
    /// `None`: the slow path itself.
    kind: Option<PortKind>,
    /// Something is asked there, of a workload's or of what is forwarded.
    is_asked: bool,
    /// A host endpoint's, that asks something of what is forwarded.
    is_host_endpoints: bool,
}

impl End {
    fn is(&self, kind: PortKind) -> bool {
        self.kind == Some(kind)
    }

    /// Is it an end of what is forwarded, rather than of what the host itself sends or gets?
    fn is_forwarding(&self) -> bool {
        self.kind.is_some_and(|kind| kind != PortKind::Host)
    }
}

/// Where a packet came in, and where it would leave.
#[derive(Clone, Copy)]
struct Way {
    from: End,
    to: End,
}

impl Way {
    /// Whose policies the packet's flow is held to.
    fn between(&self, direction: Direction) -> Between {
        let (from, to) = match direction {
            Direction::Original => (self.from, self.to),
            Direction::Reply => (self.to, self.from),
        };
        let is_forwarded = from.is_forwarding() && to.is_forwarding();
        let sends = from.is(PortKind::Workload) || is_forwarded && from.is_host_endpoints;
        let gets = to.is(PortKind::Workload) && !from.is(PortKind::Host)
            || to.is(PortKind::Host) && from.is(PortKind::Workload)
            || is_forwarded && to.is_host_endpoints;
        Between { egress: sends.then_some(from.port), ingress: gets.then_some(to.port) }
    }
}

impl<'a> Policing<'a> {
    /// `None` where nothing is asked of any packet.
    #[inline]
    pub(crate) fn of(state: &'a State) -> Option<Policing<'a>> {
        let asks_at_endpoints = !state.policy.is_empty() || state.ports.qos_use().connections;
        let asks_to_host = state.flow_rules.drops_to_host || state.flow_rules.passes_dhcp_and_dns;
        (asks_at_endpoints || asks_to_host).then_some(Policing { state, asks_at_endpoints, asks_to_host })
    }

    /// Is anything asked of what comes in here, wherever it goes?
    pub(crate) fn asks_senders_at(&self, ingress: Option<PortId>) -> bool {
        // Which of them come out of a tunnel, and so by another interface, is seen when they are judged.
        ingress.is_some() && self.state.policy.asks_of_forwarded() || self.end(ingress).is_asked
    }

    /// Whose policies the flow of a packet on this way is held to.
    pub(crate) fn ends_of_flow(
        &self,
        from: Option<PortId>,
        was_inside: bool,
        to: &NextHop,
        direction: Direction,
    ) -> Between {
        Way { from: self.end_by(from, was_inside), to: self.end_by(Some(to.port), !to.is_plain()) }
            .between(direction)
    }

    /// The end of a packet that comes by this port, or leaves by it, perhaps by a tunnel.
    fn end_by(&self, port: Option<PortId>, by_tunnel: bool) -> End {
        let end = self.end(port);
        match by_tunnel && end.is(PortKind::Uplink) {
            true => {
                let asks = self.state.policy.of_host(TUNNELS) != PortPolicy::default();
                End { port: TUNNELS, is_asked: asks, is_host_endpoints: asks, ..end }
            }
            false => end,
        }
    }

    fn end(&self, port: Option<PortId>) -> End {
        let row = port.and_then(|port| self.state.ports.get(port));
        End {
            port: port.unwrap_or(PortId(u16::MAX)),
            kind: row.map(|row| row.kind),
            is_asked: self.asks_at_endpoints && row.is_some_and(|row| self.asks_at(row)),
            is_host_endpoints: row.is_some_and(|row| self.is_host_endpoints(row)),
        }
    }

    fn asks_at(&self, port: &Port) -> bool {
        let qos = port.endpoint.as_ref().and_then(|endpoint| endpoint.qos.as_ref());
        let is_workloads = port.kind == PortKind::Workload;
        self.is_host_endpoints(port)
            || is_workloads
                && (self.state.policy.of(port.id) != PortPolicy::default()
                    || qos
                        .is_some_and(|qos| qos.ingress_connections().or(qos.egress_connections()).is_some()))
    }

    fn is_host_endpoints(&self, port: &Port) -> bool {
        self.state.policy.of_host(port.id) != PortPolicy::default()
    }

    /// Is anything asked of packets on this way?
    fn asks_on(&self, way: &Way) -> bool {
        let Way { from, to } = way;
        let with_host = from.is(PortKind::Workload) && to.is(PortKind::Host)
            || from.is(PortKind::Host) && to.is(PortKind::Workload);
        // What others than workloads send to the host, and it to them, the kernel asks of.
        let is_hosts = !with_host && (from.is(PortKind::Host) || to.is(PortKind::Host));
        from.kind.is_some() && !is_hosts && (from.is_asked || to.is_asked || with_host && self.asks_to_host)
    }

    /// May anything be asked of packets that come in here and that `nat.rs` hasn't looked up?
    fn may_ask_from(&self, from: &End) -> bool {
        from.kind.is_some() && (self.asks_at_endpoints || !from.is(PortKind::Uplink))
    }
}

/// Drops what policy denies and what belongs to no flow and can begin none; sends up connections above an endpoint's limit. Begins
/// flows, but for those that leave under another source.
pub(crate) fn judge(batch: &mut Batch, policing: &Policing<'_>, memory: &Memory<'_>, reporter: Reporter<'_>) {
    look_up(batch, policing, memory);
    let judge =
        Judge { policing: *policing, memory: *memory, reporter, epoch: policing.state.policy.epoch() };
    known_flows(batch, &judge);
    if !batch.policy.seen.is_empty() {
        others(batch, &judge);
    }
    if !batch.policy.untracked.is_empty() {
        untracked::forwarded(batch, &judge);
    }
}

/// What belongs to flows of TCP and UDP: of most packets, one word is compared and nothing written. What goes the same way is
/// compared together.
#[inline(never)]
fn known_flows(batch: &mut Batch, judge: &Judge<'_>) {
    let next_hops = &judge.policing.state.next_hops;
    let Batch { frames, runs, fates, parsed, hops, opened, flows: columns, nat, .. } = batch;
    let mut ways = Ways::new(&judge.policing, runs, *opened, judge.epoch);
    let mut exits = [0; BATCH];
    for (exit, hop) in exits.iter_mut().zip(&*hops).take(frames.len()) {
        *exit = ways.exit(next_hops.get(*hop));
    }
    let mut left = columns.known;
    while let Some(first) = left.into_iter().next() {
        ways.turn_to(first, next_hops.get(hops[first]));
        let together = left.within(ways.alike).within(rows_of(&exits, exits[first]));
        left = left.without(together);
        let let_pass = match ways.is_asked {
            true => columns.glimpses.said(&ways.allowed),
            false => together,
        };
        for at in together.without(let_pass).with(together.within(columns.stirring)) {
            if !is_open(fates[at]) {
                continue;
            }
            let key = columns.key(at);
            let (bytes, parsed) = (frames[at].bytes(), &parsed[at]);
            let packet = Packet { bytes, parsed, key: &key, way: ways.way, foreseen: &[] };
            let flow = columns.flow(at, nat.translated(at));
            let outcome = match ways.is_asked {
                true => judge.known(&packet, &flow),
                false => judge.pass(&packet, &Found::Flow(flow)),
            };
            if let Err(fate) = outcome {
                fates[at] = fate;
            }
        }
    }
}

/// The rows of an exit. To the end and without a branch, for the processor does many rows at once.
#[inline(always)]
fn rows_of(exits: &[u32; BATCH], exit: u32) -> Rows {
    Rows((0..BATCH).fold(0, |rows, row| rows | u64::from(exits[row] == exit) << row))
}

/// What belongs to no flow, and what isn't TCP or UDP.
#[inline(never)]
fn others(batch: &mut Batch, judge: &Judge<'_>) {
    let Judge { policing, epoch, .. } = judge;
    let state = policing.state;
    foreseen::ask(batch, judge);
    let Batch { frames, runs, fates, parsed, hops, opened, flows: columns, nat, policy, .. } = batch;
    let mut ways = Ways::new(policing, runs, *opened, *epoch);
    let mut said = policy.foreseen.said();
    for Seen { row, key, found } in &policy.seen {
        let (row, at) = (*row, usize::from(*row));
        if !is_open(fates[at]) {
            continue;
        }
        let hop = hops[at];
        ways.turn_to(at, state.next_hops.get(hop));
        let foreseen = said.of(row);
        let packet = Packet { bytes: frames[at].bytes(), parsed: &parsed[at], key, way: ways.way, foreseen };
        let outcome = match found {
            _ if !ways.is_asked => judge.pass(&packet, found),
            Found::Flow(flow) => judge.known(&packet, flow),
            Found::Begun(flow) => judge.begun(&packet, flow),
            Found::Related(flow, quote) => judge.related(&packet, flow, &quote.key.reversed()),
            Found::Fragment(_) => Ok(()),
            Found::Nothing | Found::BrokenError => {
                let leaves_hidden =
                    nat.is_hidden(row).then(|| nat::leaves(hop, &state.next_hops, &state.ports));
                let begin_hidden = |beginning| policy.beginnings.push((row, beginning));
                let begin_plain = |beginning: &Beginning| columns.begin(row, beginning, &judge.memory);
                judge.first(&packet, leaves_hidden, begin_hidden, begin_plain)
            }
        };
        if let Err(fate) = outcome {
            fates[at] = fate;
        }
    }
    policy.seen.clear();
}

/// Looks up what `nat.rs` hasn't, where something is asked of it.
#[inline(never)]
fn look_up(batch: &mut Batch, policing: &Policing<'_>, memory: &Memory<'_>) {
    let Batch { frames, runs, fates, parsed, hops, flows: columns, policy, .. } = batch;
    let mut to = policing.end(None);
    let mut is_any = false;
    for run in runs {
        let from = policing.end(run.ingress);
        // All that comes from where something is asked has been.
        if policing.asks_senders_at(run.ingress) || !policing.may_ask_from(&from) {
            continue;
        }
        for row in run.rows() {
            if columns.looked_up.with(policy.untracked).contains(row) || !is_open(fates[row]) {
                continue;
            }
            let leaves_by = policing.state.next_hops.get(hops[row]).port;
            if to.port != leaves_by {
                to = policing.end(Some(leaves_by));
            }
            if policing.asks_on(&Way { from, to })
                && let Some(key) = FlowKey::new(frames[row].bytes(), &parsed[row])
            {
                columns.ask(memory.flows, row, frames[row].bytes(), &parsed[row], &key);
                is_any = true;
            }
        }
    }
    if is_any {
        let others = columns.look_up(memory);
        for row in others.rows {
            policy.seen.push(columns.recall(&others, row, frames[row].bytes(), &parsed[row], memory));
        }
    }
}

/// Is a packet still to be judged? One that waits for its neighbour comes back as the slow path's own, and isn't asked then.
fn is_open(fate: Fate) -> bool {
    matches!(fate, Fate::Undecided | Fate::Punt(PuntReason::Unresolved))
}

/// A packet on its way.
struct Packet<'a> {
    bytes: &'a [u8],
    parsed: &'a Parsed,
    /// As it came.
    key: &'a FlowKey,
    way: Way,
    /// What has been asked of it already, as it came.
    foreseen: &'a [Said],
}

impl Packet<'_> {
    /// Type and code of an ICMP message.
    fn icmp(&self) -> Option<(u8, u8)> {
        let is_icmp = matches!(self.parsed.protocol, protocol::ICMP | protocol::ICMPV6);
        let message = if is_icmp { self.parsed.l4_packet(self.bytes) } else { &[] };
        message.first_chunk().map(|[icmp_type, code]| (*icmp_type, *code))
    }

    /// What is remembered of a flow that begins with it.
    fn beginning(&self, verdict: FlowVerdict, counted: Between) -> Beginning {
        let is_syn = TcpPacket::of(tcp_flags(self.bytes, self.parsed)) == TcpPacket::Syn;
        Beginning { verdict, icmp: self.icmp(), counted, is_syn }
    }
}

/// The way of one packet after the other: neighbours mostly go the same way, and then it is compared and no more.
struct Ways<'a> {
    policing: &'a Policing<'a>,
    runs: &'a [Run],
    epoch: u64,
    /// Something is asked of what is forwarded, so that tunnels are interfaces of their own.
    tells_tunnels: bool,
    /// Frames that came out of one.
    opened: u64,
    run: usize,
    rows: Range<usize>,
    /// Rows in which a packet that leaves by the same exit goes the same way.
    alike: Rows,
    exit: u32,
    way: Way,
    /// Is anything asked on it?
    is_asked: bool,
    /// The verdict of a flow that may pass on it, as its first packet goes and as its answers go.
    allowed: [FlowVerdict; 2],
}

impl<'a> Ways<'a> {
    fn new(policing: &'a Policing<'a>, runs: &'a [Run], opened: u64, epoch: u64) -> Ways<'a> {
        let nowhere = policing.end(None);
        let mut ways = Ways {
            policing,
            runs,
            epoch,
            tells_tunnels: policing.state.policy.asks_of_forwarded(),
            opened,
            run: 0,
            rows: runs.first().map_or(0..0, Run::rows),
            alike: Rows::NONE,
            exit: u32::MAX,
            way: Way { from: policing.end(runs.first().and_then(|run| run.ingress)), to: nowhere },
            is_asked: false,
            allowed: [FlowVerdict::NONE; 2],
        };
        ways.learn();
        ways
    }

    /// The way of the packet in this row. What `nat.rs` looked up comes first, in order; then, in order, the rest.
    #[inline(always)]
    fn turn_to(&mut self, row: usize, hop: &NextHop) {
        if !self.alike.contains(row) || self.exit != self.exit(hop) {
            self.turn(row, hop);
        }
    }

    /// A number for the port that packets leave by, and for the tunnels behind it, where these are an interface of their own.
    #[inline(always)]
    fn exit(&self, hop: &NextHop) -> u32 {
        u32::from(hop.port.0) | u32::from(self.tells_tunnels && !hop.is_plain()) << 16
    }

    #[inline(never)]
    fn turn(&mut self, row: usize, hop: &NextHop) {
        while !self.rows.contains(&row) {
            self.run = (self.run + 1) % self.runs.len();
            self.rows = self.runs[self.run].rows();
            self.way.from = self.policing.end(self.runs[self.run].ingress);
        }
        self.alike = Rows::from(self.rows.clone());
        if self.tells_tunnels {
            let came_by_tunnel = self.opened >> row & 1 != 0;
            let opened = Rows(self.opened);
            self.alike = if came_by_tunnel { self.alike.within(opened) } else { self.alike.without(opened) };
            self.way.from = self.policing.end_by(self.runs[self.run].ingress, came_by_tunnel);
            self.way.to = self.policing.end_by(Some(hop.port), !hop.is_plain());
        } else if self.way.to.port != hop.port {
            self.way.to = self.policing.end(Some(hop.port));
        }
        self.exit = self.exit(hop);
        self.learn();
    }

    fn learn(&mut self) {
        let between = |direction| self.way.between(direction);
        self.is_asked = self.policing.asks_on(&self.way);
        self.allowed = [Direction::Original, Direction::Reply]
            .map(|direction| FlowVerdict::allowed(self.epoch, between(direction)));
    }
}

/// All that judging takes.
struct Judge<'a> {
    policing: Policing<'a>,
    memory: Memory<'a>,
    reporter: Reporter<'a>,
    epoch: u64,
}

impl Judge<'_> {
    /// Nothing is asked; a flow is one all the same.
    fn pass(&self, packet: &Packet<'_>, found: &Found) -> Result<(), Fate> {
        if let Found::Flow(flow) | Found::Begun(flow) = found {
            self.note(packet, flow);
        }
        Ok(())
    }

    /// A packet of a flow that is known.
    fn known(&self, packet: &Packet<'_>, flow: &Flow) -> Result<(), Fate> {
        let flags = tcp_flags(packet.bytes, packet.parsed);
        let is_icmp = match packet.key.protocol {
            protocol::TCP => {
                if self.drops_invalid() && !flow.may_have(TcpPacket::of(flags)) {
                    return Err(DropReason::FlowInvalid.into());
                }
                false
            }
            protocol::ICMP | protocol::ICMPV6 => true,
            _ => false,
        };
        if is_icmp && !self.fits(packet, flow) {
            return self.crossing(packet);
        }
        let between = packet.way.between(flow.direction);
        let verdict = FlowVerdict::allowed(self.epoch, between);
        if flow.verdict != verdict {
            self.ask_of_flow(packet, flow, packet.key, between)?;
            self.memory.flows.judge(flow, verdict);
        }
        self.note(packet, flow);
        if packet.key.protocol == protocol::TCP
            && !flow.is_answered()
            && TcpPacket::of(flags) == TcpPacket::Reset
        {
            // Refused, or taken back: there is no connection, as for Linux.
            self.memory.flows.forget(flow);
        }
        Ok(())
    }

    /// A packet that a flow has begun with already, as its destination is translated.
    #[cold]
    fn begun(&self, packet: &Packet<'_>, flow: &Flow) -> Result<(), Fate> {
        let between = packet.way.between(Direction::Original);
        let may_begin = || match First::of(packet) {
            First::Invalid if self.drops_invalid() => Err(DropReason::FlowInvalid.into()),
            _ => self.ask_of_flow(packet, flow, packet.key, between),
        };
        match may_begin().and_then(|()| self.count(packet.key, between)) {
            Ok(counted) => {
                let verdict = FlowVerdict::allowed(self.epoch, between);
                self.memory.flows.begin(flow, &packet.beginning(verdict, counted));
                self.note(packet, flow);
                Ok(())
            }
            Err(fate) => {
                self.memory.flows.forget(flow);
                Err(fate)
            }
        }
    }

    /// An ICMP error, which shares its flow's fate. `answer`: the key that the flow was found by.
    #[cold]
    fn related(&self, packet: &Packet<'_>, flow: &Flow, answer: &FlowKey) -> Result<(), Fate> {
        if flow.verdict.is_of(self.epoch) {
            return Ok(());
        }
        // The error may come from anywhere on the way, so nothing is noted: the flow's own packets are asked for that.
        self.ask_of_flow(packet, flow, answer, packet.way.between(flow.direction))
    }

    /// A packet of no flow. `leaves_hidden`: it is to leave under another source; does it? Then `begin_hidden` is told how its
    /// flow begins, else `begin_plain`.
    #[cold]
    fn first(
        &self,
        packet: &Packet<'_>,
        leaves_hidden: Option<bool>,
        begin_hidden: impl FnOnce(Beginning),
        begin_plain: impl FnOnce(&Beginning) -> Result<(), NotAdded>,
    ) -> Result<(), Fate> {
        if packet.parsed.is_later_fragment() {
            return Err(DropReason::FragmentUnknown.into());
        }
        let Way { from, to } = packet.way;
        let rules = &self.policing.state.flow_rules;
        if to.is(PortKind::Host) && first::is_dhcp(packet, rules) {
            return Err(PuntReason::Dhcp.into());
        }
        if to.is(PortKind::Host) && first::is_exempt(packet, rules) {
            return Ok(());
        }
        let first = First::of(packet);
        let between = packet.way.between(Direction::Original);
        let is_hosts = from.is(PortKind::Host);
        if first == First::Invalid && self.drops_invalid() && !is_hosts {
            return Err(DropReason::FlowInvalid.into());
        }
        self.ask(packet, packet.key, packet.icmp(), between)?;
        if first != First::Begins {
            return Ok(());
        }
        // What waits for its neighbour begins its flow when it leaves.
        if leaves_hidden == Some(false) && to.is(PortKind::Uplink) {
            return Ok(());
        }
        let counted = self.count(packet.key, between)?;
        let verdict = FlowVerdict::allowed(self.epoch, between);
        let beginning = packet.beginning(verdict, counted);
        if leaves_hidden == Some(true) {
            begin_hidden(beginning);
            return Ok(());
        }
        if let Err(not_added) = begin_plain(&beginning) {
            self.memory.flows.uncount(counted);
            // Known: another worker has begun it meanwhile. Ambiguous: it is its own answer, and needs no flow.
            if not_added == NotAdded::Full {
                return Err(DropReason::FlowTableFull.into());
            }
        }
        self.memory.remember_fragment(packet.bytes, packet.parsed, packet.key, packet.key);
        Ok(())
    }

    /// Notes that a packet of a flow has passed.
    #[inline]
    fn note(&self, packet: &Packet<'_>, flow: &Flow) {
        self.memory.flows.touch(flow, tcp_flags(packet.bytes, packet.parsed), &self.memory.time);
        if packet.parsed.is_fragment() {
            self.memory.remember_fragment(packet.bytes, packet.parsed, packet.key, &flow.translated());
        }
    }

    fn drops_invalid(&self) -> bool {
        self.policing.state.flow_rules.drops_invalid
    }

    /// Counts a new connection at both ends, where they have limits.
    fn count(&self, key: &FlowKey, between: Between) -> Result<Between, Fate> {
        let mut counted = Between::default();
        if key.protocol != protocol::TCP || !self.policing.state.ports.qos_use().connections {
            return Ok(counted);
        }
        let (ports, flows) = (&self.policing.state.ports, self.memory.flows);
        let qos_at = |port: PortId| ports.get(port)?.endpoint.as_ref()?.qos.as_ref();
        if let Some(port) = between.egress
            && let Some((qos, limit)) = qos_at(port).and_then(|qos| Some((qos, qos.egress_connections()?)))
        {
            if !flows.count_egress(port, limit) {
                qos.refuse_egress();
                return Err(PuntReason::EgressConnections.into());
            }
            counted.egress = Some(port);
        }
        if let Some(port) = between.ingress
            && let Some((qos, limit)) = qos_at(port).and_then(|qos| Some((qos, qos.ingress_connections()?)))
        {
            if !flows.count_ingress(port, limit) {
                qos.refuse_ingress();
                flows.uncount(counted);
                return Err(PuntReason::IngressConnections.into());
            }
            counted.ingress = Some(port);
        }
        Ok(counted)
    }
}
