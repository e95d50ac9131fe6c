//! What the table of flows knows of a packet, for translation and for policy: each packet is looked up once.

use packet::nat::{Quoted, fragment_id, is_icmp_error, quoted};
use packet::{FlowKey, Parsed, protocol};
use tables::{Flow, FlowTimeouts, Flows, Ticks};

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
    pub(crate) timeouts: &'a FlowTimeouts,
    pub(crate) now: Ticks,
}

impl Memory<'_> {
    /// Looks a packet up.
    #[inline]
    pub(crate) fn recall(&self, frame: &[u8], parsed: &Parsed, key: &FlowKey) -> Found {
        let is_ordinary = matches!(parsed.protocol, protocol::TCP | protocol::UDP) && !parsed.is_fragment();
        if !is_ordinary && let Some(found) = self.recall_special(frame, parsed, key) {
            return found;
        }
        match self.flows.look_up(key, self.now, self.timeouts) {
            Some(flow) => Found::Flow(flow),
            None => Found::Nothing,
        }
    }

    /// What shows no key of its own.
    fn recall_special(&self, frame: &[u8], parsed: &Parsed, key: &FlowKey) -> Option<Found> {
        if parsed.is_later_fragment() {
            let id = fragment_id(frame, parsed)?;
            let known = self.flows.fragments().recall(&datagram(key, id), self.now);
            return Some(known.map_or(Found::Nothing, Found::Fragment));
        }
        if !is_icmp_error(frame, parsed) {
            return None;
        }
        let Ok(quote) = quoted(frame, parsed) else { return Some(Found::BrokenError) };
        // The error goes the way of the answers to the packet that it quotes (RFC 5508 §4), to who sent that.
        let answer = quote.key.reversed();
        let flow = self.flows.look_up(&answer, self.now, self.timeouts).filter(|_| answer.dst == key.dst);
        Some(flow.map_or(Found::Nothing, |flow| Found::Related(flow, quote)))
    }

    /// Where a packet that has passed is a datagram's first fragment, the others may follow it.
    #[inline]
    pub(crate) fn remember_fragment(&self, frame: &[u8], parsed: &Parsed, key: &FlowKey, to: &FlowKey) {
        if parsed.is_fragment()
            && let Some(id) = fragment_id(frame, parsed)
        {
            self.flows.fragments().remember(&datagram(key, id), to, self.now);
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
