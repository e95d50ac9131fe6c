//! Stages 8 and 10: source NAT of packets that leave the pools, and floating IPs.
//!
//! ```text
//!  known_flows   before the route     a known flow's packets, and ICMP errors about them, become what the flow says; to a
//!                                     floating IP or a workload's outer port, a flow begins
//!  leaving       after the route      a workload's packet that leaves by an uplink begins a flow under the outer address
//!  undo_…        at the end           the slow path answers the sender, so it gets packets as they came
//! ```
//!
//! An established flow costs one look-up, whichever way its packets go. A packet to an outer address of the host's own that
//! belongs to no flow is the host's, and goes its way by the host port.

use afxdp::Frame;
use model::{Family, PortKind};
use packet::nat::{fragment_id, is_icmp_error, quoted, translate, translate_error};
use packet::{FlowKey, Kind, Parsed, protocol};
use tables::{
    DropReason, Fate, Flow, Flows, HopState, Nat, NextHops, NotAdded, Ports, State, Ticks, begins_flow,
};

use crate::batch::Run;
use crate::{BATCH, Batch};

/// Source ports that a workload's packet to its own floating IP may get instead of its own: so many are tried.
const HAIRPIN_PORTS: u16 = 8;
/// The dynamic ports of RFC 6335.
const DYNAMIC: (u16, u16) = (49_152, 16_384);

/// What this stage leaves from one call to the next, without gaps: most batches translate nothing.
pub(crate) struct Columns {
    /// Within `known_flows`: rows whose packets a rule may be about.
    asked: Vec<Asked>,
    /// Rows whose packets were translated.
    translated: Vec<Translated>,
    /// Rows that must not leave as they are.
    leaving: Vec<Leaving>,
}

struct Asked {
    row: u8,
    key: FlowKey,
    from_workload: bool,
}

struct Translated {
    row: u8,
    from: FlowKey,
    to: FlowKey,
}

struct Leaving {
    row: u8,
    key: FlowKey,
    /// The fate, if it leaves; else it begins a flow.
    fate: Option<DropReason>,
}

impl Columns {
    pub(crate) fn new() -> Columns {
        Columns {
            asked: Vec::with_capacity(BATCH),
            translated: Vec::with_capacity(BATCH),
            leaving: Vec::with_capacity(BATCH),
        }
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.translated.clear();
        self.leaving.clear();
    }
}

/// The rules, the flows and the time of one batch.
struct Translator<'a> {
    nat: &'a Nat,
    flows: &'a Flows,
    now: Ticks,
}

/// What becomes of one packet.
enum Step {
    /// It goes on as it is.
    AsIs,
    /// It has been translated; remember how.
    Done(FlowKey),
    /// If it leaves by an uplink, it begins a flow, or is dropped.
    IfLeaving(Option<DropReason>),
    Drop(DropReason),
}

/// Translates what belongs to a flow, begins flows to floating IPs, and notes what may not leave as it is.
pub(crate) fn known_flows(batch: &mut Batch, state: &State, flows: &Flows) {
    if state.nat.is_idle() {
        return;
    }
    let translator = Translator { nat: &state.nat, flows, now: flows.now() };
    let Batch { frames, runs, fates, parsed, nat, .. } = batch;
    for run in runs {
        let from_workload = may_be_workloads(run, &state.ports);
        for row in run.rows() {
            if fates[row] != Fate::Undecided {
                continue;
            }
            let Some(key) = FlowKey::new(frames[row].bytes(), &parsed[row]) else { continue };
            if translator.concerns(&key, from_workload) {
                nat.asked.push(Asked { row: row as u8, key, from_workload });
            }
        }
    }
    flows.bring_near(nat.asked.iter().map(|asked| asked.key));
    for Asked { row, key, from_workload } in nat.asked.drain(..) {
        let at = usize::from(row);
        match translator.step(&mut frames[at], &parsed[at], &key, from_workload) {
            Step::AsIs => {}
            Step::Done(to) => nat.translated.push(Translated { row, from: key, to }),
            Step::IfLeaving(fate) => nat.leaving.push(Leaving { row, key, fate }),
            Step::Drop(reason) => fates[at] = Fate::Drop(reason),
        }
    }
}

/// Begins flows of what leaves by an uplink, and translates it.
pub(crate) fn leaving(batch: &mut Batch, state: &State, flows: &Flows) {
    if batch.nat.leaving.is_empty() {
        return;
    }
    let translator = Translator { nat: &state.nat, flows, now: flows.now() };
    let Batch { frames, fates, parsed, hops, nat, .. } = batch;
    for Leaving { row, key, fate } in nat.leaving.drain(..) {
        let at = usize::from(row);
        if fates[at] != Fate::Undecided || !leaves(hops[at], &state.next_hops, &state.ports) {
            continue;
        }
        if let Some(reason) = fate {
            fates[at] = Fate::Drop(reason);
            continue;
        }
        match translator.begin_outgoing(&mut frames[at], &parsed[at], &key) {
            Ok(to) => nat.translated.push(Translated { row, from: key, to }),
            Err(reason) => fates[at] = Fate::Drop(reason),
        }
    }
}

/// Gives packets that go to the slow path their own addresses back.
pub(crate) fn undo_for_slow_path(batch: &mut Batch) {
    let Batch { frames, fates, parsed, nat, .. } = batch;
    for Translated { row, from, to } in nat.translated.drain(..) {
        let row = usize::from(row);
        if matches!(fates[row], Fate::Punt(_)) {
            translate(frames[row].bytes_mut(), &parsed[row], &to, &from);
        }
    }
}

/// Packets from workloads; among the slow path's own may be ones that waited for a neighbour.
fn may_be_workloads(run: &Run, ports: &Ports) -> bool {
    let port = run.ingress.map(|ingress| ports.get(ingress));
    port.is_none_or(|port| port.is_some_and(|port| port.kind == PortKind::Workload))
}

fn leaves(hop: tables::HopIndex, next_hops: &NextHops, ports: &Ports) -> bool {
    let hop = next_hops.get(hop);
    hop.state == HopState::Ready && ports.get(hop.port).is_some_and(|port| port.kind == PortKind::Uplink)
}

/// Flags of TCP; zero for the rest.
fn tcp_flags(frame: &[u8], parsed: &Parsed) -> u8 {
    match (parsed.protocol, parsed.l4) {
        (protocol::TCP, 1..) => frame.get(usize::from(parsed.l4) + 13).copied().unwrap_or(0),
        _ => 0,
    }
}

/// The datagram that a fragment belongs to. IPv4 tells datagrams apart by protocol, too (RFC 791); IPv6 doesn't.
fn datagram(key: &FlowKey, id: u32) -> FlowKey {
    let protocol = if key.family == Family::V6 { protocol::FRAGMENT } else { key.protocol };
    FlowKey { sport: (id >> 16) as u16, dport: id as u16, protocol, ..*key }
}

impl Translator<'_> {
    /// May the packet have to do with any rule?
    #[inline]
    fn concerns(&self, key: &FlowKey, from_workload: bool) -> bool {
        let FlowKey { src, dst, family, .. } = *key;
        self.nat.internal_of(family, dst).is_some()
            || self.nat.is_outer(family, dst)
            || from_workload && (self.nat.external_of(family, src).is_some() || self.nat.hides_source(key))
    }

    fn step(&self, frame: &mut Frame, parsed: &Parsed, key: &FlowKey, from_workload: bool) -> Step {
        if parsed.is_later_fragment() {
            return self.later_fragment(frame, parsed, key, from_workload);
        }
        if is_icmp_error(frame.bytes(), parsed) {
            return self.icmp_error(frame, parsed, key, from_workload);
        }
        let flags = tcp_flags(frame.bytes(), parsed);
        if let Some(flow) = self.flows.look_up(key, self.now, &self.nat.timeouts) {
            self.flows.touch(&flow, flags, self.now);
            return Step::Done(self.apply(frame, parsed, key, &flow));
        }
        if let Some(internal) = self.nat.internal_of(key.family, key.dst) {
            if !begins_flow(key.protocol, flags) {
                return Step::Drop(DropReason::NatInvalid);
            }
            return match self.begin_to_floating(key, internal) {
                Ok(flow) => Step::Done(self.apply(frame, parsed, key, &flow)),
                Err(not_added) => Step::Drop(reason(not_added)),
            };
        }
        if from_workload && self.nat.is_outer(key.family, key.dst) && begins_flow(key.protocol, flags) {
            match self.begin_hairpin(key) {
                Ok(Some(flow)) => return Step::Done(self.apply(frame, parsed, key, &flow)),
                Ok(None) => {}
                // A workload's port can't be its own peer.
                Err(NotAdded::Ambiguous) => return Step::Drop(DropReason::NatInvalid),
                Err(not_added) => return Step::Drop(reason(not_added)),
            }
        }
        self.unknown(key, from_workload, None)
    }

    /// A packet of no flow: it may go on unless it would leave under a source that is to be hidden, or was sent to an outer
    /// address that nobody but flows has.
    fn unknown(&self, key: &FlowKey, from_workload: bool, if_leaving: Option<DropReason>) -> Step {
        if from_workload && self.nat.hides_source(key) {
            return Step::IfLeaving(if_leaving);
        }
        Step::AsIs
    }

    fn apply(&self, frame: &mut Frame, parsed: &Parsed, key: &FlowKey, flow: &Flow) -> FlowKey {
        let to = flow.translated();
        if let Some(id) = fragment_id(frame.bytes(), parsed) {
            self.flows.fragments().remember(&datagram(key, id), &to, self.now);
        }
        translate(frame.bytes_mut(), parsed, key, &to);
        to
    }

    /// Later fragments go the way of their first one, which alone shows the ports.
    fn later_fragment(&self, frame: &mut Frame, parsed: &Parsed, key: &FlowKey, from_workload: bool) -> Step {
        let known = fragment_id(frame.bytes(), parsed)
            .and_then(|id| self.flows.fragments().recall(&datagram(key, id), self.now));
        if let Some(to) = known {
            translate(frame.bytes_mut(), parsed, key, &to);
            return Step::Done(to);
        }
        let is_hosts = self.nat.outgoing(key.family).is_some_and(|outgoing| outgoing.is_hosts);
        let is_flows = self.nat.is_outer(key.family, key.dst) && !is_hosts;
        if is_flows || self.nat.internal_of(key.family, key.dst).is_some() {
            return Step::Drop(DropReason::FragmentUnknown);
        }
        self.unknown(key, from_workload, Some(DropReason::FragmentUnknown))
    }

    /// RFC 5508 §4: an error about a flow's packet goes to who sent it, and quotes it as it was sent.
    fn icmp_error(&self, frame: &mut Frame, parsed: &Parsed, key: &FlowKey, from_workload: bool) -> Step {
        let Ok(quote) = quoted(frame.bytes(), parsed) else {
            return Step::Drop(DropReason::IcmpErrorMalformed);
        };
        // The error goes the way of the answers to the packet that it quotes.
        let answer = quote.key.reversed();
        let flow = self.flows.look_up(&answer, self.now, &self.nat.timeouts);
        let Some(flow) = flow.filter(|_| answer.dst == key.dst) else {
            if self.nat.internal_of(key.family, key.dst).is_some() {
                return Step::Drop(DropReason::NatInvalid);
            }
            return self.unknown(key, from_workload, Some(DropReason::NatInvalid));
        };
        let becomes = flow.translated();
        // An error from a router on the way keeps its source; one from the flow's end hides it as the flow does.
        let src = if key.src == answer.src { becomes.src } else { key.src };
        translate_error(frame.bytes_mut(), parsed, (src, becomes.dst), &quote, &flow.other);
        // Nobody is told of what befalls an ICMP error, so nothing need be undone.
        Step::AsIs
    }

    /// A flow to a floating IP. One that comes back to its own sender gets the floating IP as source, too: else the workload
    /// would answer itself directly.
    fn begin_to_floating(&self, key: &FlowKey, internal: u128) -> Result<Flow, NotAdded> {
        let own = key.src == internal;
        let inside = FlowKey { dst: internal, src: if own { key.dst } else { key.src }, ..*key };
        let add = |inside: FlowKey| self.flows.add(key, &inside.reversed(), self.now, &self.nat.timeouts);
        let mut added = add(inside);
        let is_query = matches!(key.protocol, protocol::ICMP | protocol::ICMPV6);
        let has_ports = is_query || matches!(key.protocol, protocol::TCP | protocol::UDP);
        for step in 0..HAIRPIN_PORTS {
            if !own || !has_ports || added != Err(NotAdded::Ambiguous) {
                break;
            }
            let sport = DYNAMIC.0 + key.sport.wrapping_add(step * 1_009) % DYNAMIC.1;
            // A query's identifier is both of its ports; the same one would make request and reply alike.
            let dport = if is_query { sport } else { inside.dport };
            added = add(FlowKey { sport, dport, ..inside });
        }
        known_is_as_good(added)
    }

    /// A flow to another workload's outer port, if there is one at this port (RFC 4787 REQ-9).
    fn begin_hairpin(&self, key: &FlowKey) -> Result<Option<Flow>, NotAdded> {
        let Some(outgoing) = self.nat.outgoing(key.family) else { return Ok(None) };
        match self.flows.add_hairpin(key, &outgoing.outer, self.now, &self.nat.timeouts) {
            Err(NotAdded::Known(flow)) => Ok(Some(flow)),
            added => added,
        }
    }

    fn begin_outgoing(
        &self,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &FlowKey,
    ) -> Result<FlowKey, DropReason> {
        let flags = tcp_flags(frame.bytes(), parsed);
        if !begins_flow(key.protocol, flags) {
            return Err(DropReason::NatInvalid);
        }
        let outgoing = self.nat.outgoing(key.family).ok_or(DropReason::NatUnsupported)?;
        if outgoing.is_hosts && !has_ports(key, parsed.kind) {
            return Err(DropReason::NatUnsupported);
        }
        let added = self.flows.add_outgoing(key, &outgoing.outer, self.now, &self.nat.timeouts);
        let flow = known_is_as_good(added).map_err(reason)?;
        Ok(self.apply(frame, parsed, key, &flow))
    }
}

/// Do ports tell this flow from the host's own?
fn has_ports(key: &FlowKey, kind: Kind) -> bool {
    match key.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => true,
        protocol::ICMP => kind == Kind::Ipv4 && key.sport != 0,
        protocol::ICMPV6 => kind == Kind::Ipv6 && key.sport != 0,
        _ => false,
    }
}

/// Another worker has just begun the same flow.
fn known_is_as_good(added: Result<Flow, NotAdded>) -> Result<Flow, NotAdded> {
    match added {
        Err(NotAdded::Known(flow)) => Ok(flow),
        added => added,
    }
}

fn reason(not_added: NotAdded) -> DropReason {
    match not_added {
        NotAdded::Full => DropReason::FlowTableFull,
        NotAdded::OverShare => DropReason::NatShareExhausted,
        NotAdded::PortsExhausted | NotAdded::Ambiguous | NotAdded::Known(_) => DropReason::NatPortsExhausted,
    }
}
