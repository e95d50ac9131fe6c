//! Stages 8 and 10: source NAT of packets that leave the pools, floating IPs, and the way to OpenStack's metadata.
//!
//! ```text
//!  known_flows   before the route     a known flow's packets, and ICMP errors about them, become what the flow says; to a
//!                                     floating IP, a workload's outer port or the metadata's address, a flow begins
//!  leaving       after the route      a workload's packet that leaves by an uplink begins a flow under the outer address
//!  undo_…        at the end           the slow path answers the sender, so it gets packets as they came
//! ```
//!
//! An established flow costs one look-up, whichever way its packets go. A packet to an outer address of the host's own that
//! belongs to no flow is the host's, and goes its way by the host port.

use afxdp::Frame;
use model::PortKind;
use packet::nat::{Quoted, is_icmp_error, translate, translate_error};
use packet::{FlowKey, Kind, Parsed, protocol};
use tables::{
    Beginning, DropReason, Fate, Flow, Flows, HopState, MetadataServer, Nat, NextHops, NotAdded, Ports, Rows,
    State, Ticks, begins_flow,
};

use crate::batch::Run;
use crate::flow::{Found, Memory, Seen, tcp_flags};
use crate::policy::Policing;
use crate::{BATCH, Batch};

/// Source ports that a workload's packet to its own floating IP may get instead of its own: so many are tried.
const HAIRPIN_PORTS: u16 = 8;
/// The dynamic ports of RFC 6335.
const DYNAMIC: (u16, u16) = (49_152, 16_384);

/// What this stage leaves from one call to the next, without gaps: most batches translate nothing.
pub(crate) struct Columns {
    /// Within `known_flows`: rows from workloads.
    from_workloads: Rows,
    /// Rows whose packets were translated.
    translated: Vec<Translated>,
    /// Rows that must not leave as they are.
    leaving: Vec<Leaving>,
}

/// What is known of a row whatever its look-up says.
#[derive(Clone, Copy)]
struct About {
    from_workload: bool,
    /// A rule may be about it; else policy is.
    concerns: bool,
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
            from_workloads: Rows::NONE,
            translated: Vec::with_capacity(BATCH),
            leaving: Vec::with_capacity(BATCH),
        }
    }

    /// What a row's packet has been translated to.
    pub(crate) fn translated(&self, row: usize) -> Option<&FlowKey> {
        self.translated.iter().find(|translated| usize::from(translated.row) == row).map(|found| &found.to)
    }

    /// Must this row's packet not leave as it is?
    pub(crate) fn is_hidden(&self, row: u8) -> bool {
        self.leaving.iter().any(|leaving| leaving.row == row)
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

/// Translates what belongs to a flow, begins flows to floating IPs, and notes what may not leave as it is. What it has
/// looked up policy need not look up again.
#[inline(never)]
pub(crate) fn known_flows(
    batch: &mut Batch,
    state: &State,
    memory: &Memory<'_>,
    policing: Option<&Policing<'_>>,
) {
    ask(batch, state, memory, policing);
    let Memory { flows, time } = memory;
    let translator = Translator { nat: &state.nat, flows, now: time.now };
    let Batch { frames, fates, parsed, heads, flows: columns, nat, policy, .. } = batch;
    let mut others = columns.look_up(memory);
    for at in others.translated {
        let from = match heads.plain_v4.contains(at) {
            true => heads.flow_v4(at, parsed[at].protocol),
            false => columns.key(at),
        };
        let Some(to) = columns.becomes(&mut others, at, flows) else { continue };
        translate(frames[at].bytes_mut(), &parsed[at], &from, &to);
        heads.translate(at, frames[at].bytes(), &parsed[at], &to);
        nat.translated.push(Translated { row: at as u8, from, to });
    }
    if policing.is_none() {
        for row in columns.stirring.within(columns.known) {
            // Whatever it becomes.
            let flow = columns.flow(row, None);
            flows.touch(&flow, tcp_flags(frames[row].bytes(), &parsed[row]), time);
        }
    }
    for at in others.rows {
        let (frame, parsed) = (&mut frames[at], &parsed[at]);
        let mut seen = columns.recall(&others, at, frame.bytes(), parsed, memory);
        let from_workload = nat.from_workloads.contains(at);
        let concerns = !state.nat.is_idle() && may_concern(&state.nat, &seen.key, from_workload);
        let about = About { from_workload, concerns };
        let Seen { row, key, ref mut found } = seen;
        let to = match translator.step(frame, parsed, &key, &about, found) {
            Step::AsIs => key,
            Step::Done(to) => {
                nat.translated.push(Translated { row, from: key, to });
                to
            }
            Step::IfLeaving(fate) => {
                nat.leaving.push(Leaving { row, key, fate });
                key
            }
            Step::Drop(reason) => {
                fates[at] = Fate::Drop(reason);
                continue;
            }
        };
        if !matches!(found, Found::Nothing) {
            heads.read_again(at, frame.bytes(), parsed);
        }
        if policing.is_some() {
            policy.seen.push(seen);
        } else if let Found::Flow(flow) | Found::Begun(flow) = found {
            flows.touch(flow, tcp_flags(frame.bytes(), parsed), time);
            memory.remember_fragment(frame.bytes(), parsed, &key, &to);
        }
    }
}

/// Finds the rows whose packets a rule or a policy may be about.
fn ask(batch: &mut Batch, state: &State, memory: &Memory<'_>, policing: Option<&Policing<'_>>) {
    let Batch { runs, nat, .. } = batch;
    nat.from_workloads = Rows::NONE;
    let mut is_laid = false;
    for number in 0..runs.len() {
        let run = batch.runs[number];
        let is_policed = policing.is_some_and(|policing| policing.asks_senders_at(run.ingress));
        if (is_policed || !state.nat.is_idle()) && !is_laid {
            batch.flows.lay(memory.flows, &batch.parsed, &batch.heads);
            is_laid = true;
        }
        if !state.nat.is_idle() && may_be_workloads(&run, &state.ports) {
            batch.nat.from_workloads = batch.nat.from_workloads.with(Rows::from(run.rows()));
        }
        if is_policed {
            ask_of_all(batch, &run, memory);
        } else if !state.nat.is_idle() {
            ask_by_rules(batch, &run, state, memory);
        }
    }
}

/// Asks about all of a run.
fn ask_of_all(batch: &mut Batch, run: &Run, memory: &Memory<'_>) {
    let Batch { frames, fates, parsed, heads, flows: columns, policy, .. } = batch;
    let rows = Rows::from(run.rows()).without(policy.untracked);
    let unlike = columns.ask_plain(memory.flows, rows, frames, fates, parsed, heads);
    for row in unlike {
        let (frame, parsed) = (frames[row].bytes(), &parsed[row]);
        if let Some(key) = FlowKey::new(frame, parsed) {
            columns.ask(memory.flows, row, frame, parsed, &key);
        }
    }
}

/// Asks about what of a run a rule may be about.
#[inline(never)]
fn ask_by_rules(batch: &mut Batch, run: &Run, state: &State, memory: &Memory<'_>) {
    let Batch { frames, fates, parsed, heads, flows: columns, nat, policy, .. } = batch;
    let from_workload = nat.from_workloads.contains(run.rows().start);
    for row in run.rows() {
        if fates[row] != Fate::Undecided || policy.untracked.contains(row) {
            continue;
        }
        let protocol = parsed[row].protocol;
        let is_plain = heads.plain_v4.contains(row) && matches!(protocol, protocol::TCP | protocol::UDP);
        let key = match is_plain {
            true => Some(heads.flow_v4(row, protocol)),
            false => FlowKey::new(frames[row].bytes(), &parsed[row]),
        };
        let Some(key) = key else { continue };
        if !may_concern(&state.nat, &key, from_workload) {
            continue;
        }
        match is_plain {
            true => columns.ask_one_plain(memory.flows, row, frames, protocol),
            false => columns.ask(memory.flows, row, frames[row].bytes(), &parsed[row], &key),
        }
    }
}

/// May a packet have to do with any rule?
#[inline]
fn may_concern(rules: &Nat, key: &FlowKey, from_workload: bool) -> bool {
    let FlowKey { src, dst, family, .. } = *key;
    rules.internal_of(family, dst).is_some()
        || rules.is_outer(family, dst)
        || rules.is_from_metadata(key)
        || from_workload
            && (rules.external_of(family, src).is_some()
                || rules.hides_source(key)
                || rules.metadata_for(key).is_some())
}

/// Begins flows of what leaves by an uplink, and translates it.
pub(crate) fn leaving(batch: &mut Batch, state: &State, memory: &Memory<'_>) {
    if batch.nat.leaving.is_empty() {
        return;
    }
    let translator = Translator { nat: &state.nat, flows: memory.flows, now: memory.time.now };
    let Batch { frames, fates, parsed, heads, hops, nat, policy, .. } = batch;
    for Leaving { row, key, fate } in nat.leaving.drain(..) {
        let at = usize::from(row);
        if fates[at] != Fate::Undecided || !leaves(hops[at], &state.next_hops, &state.ports) {
            continue;
        }
        if let Some(reason) = fate {
            fates[at] = Fate::Drop(reason);
            continue;
        }
        let beginning = policy.beginning_of(row);
        match translator.begin_outgoing(&mut frames[at], &parsed[at], &key, &beginning) {
            Ok(to) => {
                memory.remember_fragment(frames[at].bytes(), &parsed[at], &key, &to);
                heads.translate(at, frames[at].bytes(), &parsed[at], &to);
                nat.translated.push(Translated { row, from: key, to });
            }
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

pub(crate) fn leaves(hop: tables::HopIndex, next_hops: &NextHops, ports: &Ports) -> bool {
    let hop = next_hops.get(hop);
    hop.state == HopState::Ready && ports.get(hop.port).is_some_and(|port| port.kind == PortKind::Uplink)
}

impl Translator<'_> {
    /// What becomes of a packet of which this was found. A flow that begins with it is `found` from now on.
    fn step(
        &self,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &FlowKey,
        about: &About,
        found: &mut Found,
    ) -> Step {
        match found {
            Found::Flow(flow) | Found::Begun(flow) => self.apply(frame, parsed, key, flow),
            Found::Fragment(to) => {
                translate(frame.bytes_mut(), parsed, key, to);
                Step::Done(*to)
            }
            Found::Related(flow, quote) => icmp_error(frame, parsed, key, flow, quote),
            _ if !about.concerns => Step::AsIs,
            Found::BrokenError => Step::Drop(DropReason::IcmpErrorMalformed),
            Found::Nothing if parsed.is_later_fragment() => self.unknown_fragment(key, about),
            Found::Nothing if is_icmp_error(frame.bytes(), parsed) => self.unknown_error(key, about),
            Found::Nothing => self.first_packet(frame, parsed, key, about, found),
        }
    }

    fn first_packet(
        &self,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &FlowKey,
        about: &About,
        found: &mut Found,
    ) -> Step {
        let flags = tcp_flags(frame.bytes(), parsed);
        let begun = if let Some(internal) = self.nat.internal_of(key.family, key.dst) {
            if !begins_flow(key.protocol, flags) {
                return Step::Drop(DropReason::NatInvalid);
            }
            self.begin_to_floating(key, internal).map(Some).map_err(reason)
        } else if let Some(server) = self.nat.metadata_for(key).filter(|_| about.from_workload) {
            if !begins_flow(key.protocol, flags) {
                return Step::Drop(DropReason::NatInvalid);
            }
            self.begin_to_metadata(key, server).map(Some).map_err(reason)
        } else if about.from_workload
            && self.nat.is_outer(key.family, key.dst)
            && begins_flow(key.protocol, flags)
        {
            self.begin_hairpin(key).map_err(|not_added| match not_added {
                // A workload's port can't be its own peer.
                NotAdded::Ambiguous => DropReason::NatInvalid,
                not_added => reason(not_added),
            })
        } else {
            Ok(None)
        };
        match begun {
            // The host's loopback is nobody's peer but that of what has been sent there.
            Ok(None) if self.nat.is_from_metadata(key) && self.is_loopback() => {
                Step::Drop(DropReason::NatInvalid)
            }
            Ok(Some(flow)) => {
                *found = Found::Begun(flow);
                self.apply(frame, parsed, key, &flow)
            }
            Ok(None) => self.unknown(key, about, None),
            Err(reason) => Step::Drop(reason),
        }
    }

    /// A packet of no flow: it may go on unless it would leave under a source that is to be hidden, or was sent to an outer
    /// address that nobody but flows has.
    fn unknown(&self, key: &FlowKey, about: &About, if_leaving: Option<DropReason>) -> Step {
        if about.from_workload && self.nat.hides_source(key) {
            return Step::IfLeaving(if_leaving);
        }
        Step::AsIs
    }

    #[inline]
    fn apply(&self, frame: &mut Frame, parsed: &Parsed, key: &FlowKey, flow: &Flow) -> Step {
        if !flow.is_translated() {
            return Step::AsIs;
        }
        let to = flow.translated();
        translate(frame.bytes_mut(), parsed, key, &to);
        Step::Done(to)
    }

    /// Later fragments go the way of their first one, which alone shows the ports.
    fn unknown_fragment(&self, key: &FlowKey, about: &About) -> Step {
        let FlowKey { family, dst, .. } = *key;
        let is_hosts = self.nat.outgoing(family).is_some_and(|outgoing| outgoing.is_hosts);
        let is_flows = self.nat.is_outer(family, dst) && !is_hosts;
        if is_flows || self.nat.internal_of(family, dst).is_some() {
            return Step::Drop(DropReason::FragmentUnknown);
        }
        self.unknown(key, about, Some(DropReason::FragmentUnknown))
    }

    /// An ICMP error about a packet of no flow.
    fn unknown_error(&self, key: &FlowKey, about: &About) -> Step {
        if self.nat.internal_of(key.family, key.dst).is_some() {
            return Step::Drop(DropReason::NatInvalid);
        }
        self.unknown(key, about, Some(DropReason::NatInvalid))
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

    /// Does the metadata server answer from the host's loopback?
    fn is_loopback(&self) -> bool {
        self.nat.metadata.is_some_and(|server| server.addr.is_loopback())
    }

    /// A flow to OpenStack's metadata server.
    fn begin_to_metadata(&self, key: &FlowKey, server: MetadataServer) -> Result<Flow, NotAdded> {
        let inside = FlowKey { dst: u32::from(server.addr).into(), dport: server.port, ..*key };
        known_is_as_good(self.flows.add(key, &inside.reversed(), self.now, &self.nat.timeouts))
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
        beginning: &Beginning,
    ) -> Result<FlowKey, DropReason> {
        let begun = self.add_outgoing(frame, parsed, key);
        match &begun {
            Ok((flow, true)) => self.flows.begin(flow, beginning),
            // It can't be, or another worker has begun and counted it.
            Ok((_, false)) | Err(_) => self.flows.uncount(beginning.counted),
        }
        let to = begun?.0.translated();
        translate(frame.bytes_mut(), parsed, key, &to);
        Ok(to)
    }

    /// The flow, and is it new?
    fn add_outgoing(
        &self,
        frame: &Frame,
        parsed: &Parsed,
        key: &FlowKey,
    ) -> Result<(Flow, bool), DropReason> {
        let flags = tcp_flags(frame.bytes(), parsed);
        if !begins_flow(key.protocol, flags) {
            return Err(DropReason::NatInvalid);
        }
        let outgoing = self.nat.outgoing(key.family).ok_or(DropReason::NatUnsupported)?;
        if outgoing.is_hosts && !has_ports(key, parsed.kind) {
            return Err(DropReason::NatUnsupported);
        }
        match self.flows.add_outgoing(key, &outgoing.outer, self.now, &self.nat.timeouts) {
            Ok(flow) => Ok((flow, true)),
            Err(NotAdded::Known(flow)) => Ok((flow, false)),
            Err(not_added) => Err(reason(not_added)),
        }
    }
}

/// RFC 5508 §4: an error about a flow's packet goes to who sent it, and quotes it as it was sent.
fn icmp_error(frame: &mut Frame, parsed: &Parsed, key: &FlowKey, flow: &Flow, quote: &Quoted) -> Step {
    if flow.is_translated() {
        let becomes = flow.translated();
        // An error from a router on the way keeps its source; one from the flow's end hides it as the flow does.
        let src = if key.src == quote.key.dst { becomes.src } else { key.src };
        translate_error(frame.bytes_mut(), parsed, (src, becomes.dst), quote, &flow.other);
    }
    // Nobody is told of what befalls an ICMP error, so nothing need be undone.
    Step::AsIs
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
