//! What the table of flows knows of a packet, for translation and for policy: each packet is hashed and looked up once.
//!
//! A batch's packets are looked up together: all their keys first, then all that the table will read of them, then one after
//! the other what they found. Most find a flow that nobody translates, which needs little from there on ([`Known`]).

use packet::nat::{Quoted, fragment_id, is_icmp_error, quoted};
use packet::{FlowKey, Parsed, protocol};
use tables::{Flow, FlowTime, Flows, Glance, PlainFlow, Probe, State};

use crate::BATCH;

/// A row of a batch that is to be looked up.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) row: u8,
    /// Its own key is all that there is to look up.
    is_ordinary: bool,
    pub(crate) probe: Probe,
}

/// A row whose packet, of TCP or UDP and whole, belongs to a flow that nobody translates.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) row: u8,
    pub(crate) flow: PlainFlow,
}

/// Any other row that has been looked up: the key that its packet came with, and what was found.
pub(crate) struct Seen {
    pub(crate) row: u8,
    pub(crate) key: FlowKey,
    pub(crate) found: Found,
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// It belongs to this flow.
    Flow(Flow),
    /// This flow has just begun with it, as translation wants one.
    Begun(Flow),
    /// An ICMP error about a packet of this flow. The flow is as the error goes: the way of the answers to what it quotes.
    Related(Flow, Quoted),
    /// An ICMP error that quotes nothing.
    BrokenError,
    /// A later fragment of a datagram whose first one has passed, and become this.
    Fragment(FlowKey),
}

/// The table of flows, and the time.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    pub(crate) flows: &'a Flows,
    pub(crate) time: FlowTime<'a>,
}

/// The memory of a batch, where translation or policy asks for any.
#[inline]
pub(crate) fn remembering<'a>(state: &'a State, flows: &'a Flows, is_policed: bool) -> Option<Memory<'a>> {
    let is_asked = is_policed || !state.nat.is_idle();
    is_asked.then(|| Memory { flows, time: FlowTime::new(flows.now(), &state.nat.timeouts) })
}

const _: () = assert!(BATCH <= Flows::AT_ONCE, "a batch is brought near together");

impl Memory<'_> {
    /// A row to be looked up, as far as it has a key.
    #[inline(always)]
    pub(crate) fn ask(&self, row: usize, parsed: &Parsed, key: &FlowKey) -> Asked {
        let is_ordinary = matches!(parsed.protocol, protocol::TCP | protocol::UDP) && !parsed.is_fragment();
        Asked { row: row as u8, is_ordinary, probe: self.flows.probe(key) }
    }

    /// Looks a packet up: `Ok` where it belongs to a flow that nobody translates.
    #[inline(always)]
    pub(crate) fn look_up(&self, frame: &[u8], parsed: &Parsed, asked: &Asked) -> Result<Known, Seen> {
        let Asked { row, is_ordinary, probe } = asked;
        let glance = if *is_ordinary { self.flows.glance(probe, &self.time) } else { Glance::Unclear };
        match glance {
            Glance::Plain(flow) => Ok(Known { row: *row, flow }),
            Glance::Nothing => Err(Seen { row: *row, key: probe.key(), found: Found::Nothing }),
            Glance::Unclear => Err(self.recall(frame, parsed, asked)),
        }
    }

    /// Looks any packet up.
    #[inline(never)]
    fn recall(&self, frame: &[u8], parsed: &Parsed, asked: &Asked) -> Seen {
        let key = asked.probe.key();
        let special = if asked.is_ordinary { None } else { self.recall_special(frame, parsed, &key) };
        let found = special.unwrap_or_else(|| {
            self.flows.look_up_probe(&asked.probe, &self.time).map_or(Found::Nothing, Found::Flow)
        });
        Seen { row: asked.row, key, found }
    }

    /// What shows no key of its own.
    fn recall_special(&self, frame: &[u8], parsed: &Parsed, key: &FlowKey) -> Option<Found> {
        if parsed.is_later_fragment() {
            let id = fragment_id(frame, parsed)?;
            let known = self.flows.fragments().recall(&datagram(key, id), self.time.now);
            return Some(known.map_or(Found::Nothing, Found::Fragment));
        }
        if !is_icmp_error(frame, parsed) {
            return None;
        }
        let Ok(quote) = quoted(frame, parsed) else { return Some(Found::BrokenError) };
        // The error goes the way of the answers to the packet that it quotes (RFC 5508 §4), to who sent that.
        let answer = quote.key.reversed();
        let FlowTime { now, timeouts, .. } = self.time;
        let flow = self.flows.look_up(&answer, now, timeouts).filter(|_| answer.dst == key.dst);
        Some(flow.map_or(Found::Nothing, |flow| Found::Related(flow, quote)))
    }

    /// Where a packet that has passed is a datagram's first fragment, the others may follow it.
    #[inline]
    pub(crate) fn remember_fragment(&self, frame: &[u8], parsed: &Parsed, key: &FlowKey, to: &FlowKey) {
        if parsed.is_fragment()
            && let Some(id) = fragment_id(frame, parsed)
        {
            self.flows.fragments().remember(&datagram(key, id), to, self.time.now);
        }
    }
}

/// The datagram that a fragment belongs to. IPv4 tells datagrams apart by protocol, too (RFC 791); IPv6 doesn't.
fn datagram(key: &FlowKey, id: u32) -> FlowKey {
    let protocol = if key.family == model::Family::V6 { protocol::FRAGMENT } else { key.protocol };
    FlowKey { sport: (id >> 16) as u16, dport: id as u16, protocol, ..*key }
}

/// Flags of TCP; zero for the rest.
#[inline]
pub(crate) fn tcp_flags(frame: &[u8], parsed: &Parsed) -> u8 {
    match (parsed.protocol, parsed.l4) {
        (protocol::TCP, 1..) => frame.get(usize::from(parsed.l4) + 13).copied().unwrap_or(0),
        _ => 0,
    }
}
