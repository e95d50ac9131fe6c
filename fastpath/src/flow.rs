//! What the table of flows knows of a packet, for translation and for policy: each packet is hashed and looked up once.
//!
//! A batch's packets are looked up together ([`Columns::look_up`]). Most find a flow that nobody translates, and go on by that
//! alone; what else there may be is recalled one by one.

use afxdp::Frame;
use packet::nat::{Quoted, fragment_id, is_icmp_error, quoted};
use packet::{FlowKey, Layout, Parsed, protocol};
use tables::{
    Beginning, ColumnsV4, Fate, Flow, FlowTime, Flows, Glanced, Glimpses, NotAdded, Probes, Rows, State,
    Ticks,
};

use crate::BATCH;
use crate::heads::Heads;

/// What is asked of the table, and what it knows.
pub(crate) struct Columns {
    probes: Probes,
    /// Rows to look up: those whose own key is all that there is to look up, and others.
    ordinary: Rows,
    special: Rows,
    /// Rows that have been looked up.
    pub(crate) looked_up: Rows,
    /// Rows whose packets, of TCP or UDP and whole, belong to flows, and have been translated where those say so; those among
    /// them that may change their flow, or that it may not have; and the flows.
    pub(crate) known: Rows,
    pub(crate) stirring: Rows,
    pub(crate) glimpses: Glimpses,
}

const _: () = assert!(BATCH == Rows::MOST, "a batch is looked up at once");

impl Columns {
    pub(crate) fn new() -> Columns {
        Columns {
            probes: Probes::default(),
            ordinary: Rows::NONE,
            special: Rows::NONE,
            looked_up: Rows::NONE,
            known: Rows::NONE,
            stirring: Rows::NONE,
            glimpses: Glimpses::default(),
        }
    }

    pub(crate) fn clear(&mut self) {
        (self.looked_up, self.known, self.stirring) = (Rows::NONE, Rows::NONE, Rows::NONE);
    }

    /// A row to be looked up.
    pub(crate) fn ask(&mut self, flows: &Flows, row: usize, frame: &[u8], parsed: &Parsed, key: &FlowKey) {
        flows.ask(&mut self.probes, row, key, tcp_flags(frame, parsed));
        match matches!(parsed.protocol, protocol::TCP | protocol::UDP) && !parsed.is_fragment() {
            true => self.ordinary.insert(row),
            false => self.special.insert(row),
        }
    }

    /// Makes ready for [`Columns::ask_plain`] what all rows need alike. It comes before anything else is asked.
    pub(crate) fn lay(&mut self, flows: &Flows, parsed: &[Parsed; BATCH], heads: &Heads) {
        let Heads { plain_v4, sources, destinations, ports, .. } = heads;
        let protocols = &parsed.each_ref().map(|parsed| parsed.protocol);
        flows.lay_v4(&mut self.probes, *plain_v4, &ColumnsV4 { sources, destinations, ports, protocols });
    }

    /// Asks for those of these rows that are TCP or UDP in plain IPv4 frames, and says which of them are something else.
    #[inline(never)]
    pub(crate) fn ask_plain(
        &mut self,
        flows: &Flows,
        rows: Rows,
        frames: &[Frame],
        fates: &[Fate; BATCH],
        parsed: &[Parsed; BATCH],
        heads: &Heads,
    ) -> Rows {
        let (mut unlike, mut decided) = (rows.without(heads.plain_v4), Rows::NONE);
        for row in rows.within(heads.plain_v4) {
            if fates[row] != Fate::Undecided {
                decided.insert(row);
                continue;
            }
            let protocol = parsed[row].protocol;
            let tcp_flags = match protocol {
                protocol::UDP => 0,
                protocol::TCP => plain_tcp_flags(frames, row),
                _ => {
                    unlike.insert(row);
                    continue;
                }
            };
            flows.ask_laid(&mut self.probes, row, protocol, tcp_flags);
        }
        self.ordinary = self.ordinary.with(rows.without(unlike).without(decided));
        unlike.into_iter().filter(|row| fates[*row] == Fate::Undecided).collect()
    }

    /// Asks for one row with TCP or UDP in a plain IPv4 frame.
    #[inline]
    pub(crate) fn ask_one_plain(&mut self, flows: &Flows, row: usize, frames: &[Frame], protocol: u8) {
        let tcp_flags = if protocol == protocol::TCP { plain_tcp_flags(frames, row) } else { 0 };
        flows.ask_laid(&mut self.probes, row, protocol, tcp_flags);
        self.ordinary.insert(row);
    }

    /// Looks up what has been asked for. The rows that aren't [known](Columns::known) then, to be recalled.
    pub(crate) fn look_up(&mut self, memory: &Memory<'_>) -> Others {
        let (ordinary, asked) = (self.ordinary, self.ordinary.with(self.special));
        (self.ordinary, self.special) = (Rows::NONE, Rows::NONE);
        let glanced = memory.flows.glance(&self.probes, ordinary, &memory.time, &mut self.glimpses);
        self.looked_up = self.looked_up.with(asked);
        let Glanced { plain, translated, stirring, nothing } = glanced;
        self.known = self.known.with(plain);
        self.stirring = self.stirring.with(stirring);
        Others { rows: asked.without(plain), ordinary, translated, nothing }
    }

    /// The flow of a known row's packet. `becomes`: where it has been translated.
    pub(crate) fn flow(&self, row: usize, becomes: Option<&FlowKey>) -> Flow {
        let key = self.probes.key(row);
        self.glimpses.of_translated(row, &key, becomes.unwrap_or(&key))
    }

    /// What a row's packet becomes, which belongs to a flow that is translated. It is known then.
    #[inline]
    pub(crate) fn becomes(&mut self, others: &mut Others, row: usize, flows: &Flows) -> Option<FlowKey> {
        let becomes = flows.becomes(&self.glimpses, row)?;
        others.rows = others.rows.without(Rows::only(row));
        self.known.insert(row);
        Some(becomes)
    }

    /// Begins the flow of a row that has been looked up, which nobody translates.
    pub(crate) fn begin(&self, row: u8, beginning: &Beginning, memory: &Memory<'_>) -> Result<(), NotAdded> {
        memory.flows.add_asked(&self.probes, row.into(), beginning, &memory.time)
    }

    /// The key of a row that has been looked up.
    pub(crate) fn key(&self, row: usize) -> FlowKey {
        self.probes.key(row)
    }

    /// What is known of the packet in one of these rows.
    #[inline]
    pub(crate) fn recall(
        &self,
        others: &Others,
        row: usize,
        frame: &[u8],
        parsed: &Parsed,
        memory: &Memory<'_>,
    ) -> Seen {
        let key = self.probes.key(row);
        let found = match others.nothing.contains(row) {
            true => Found::Nothing,
            false => memory.recall(&self.probes, row, &key, others.ordinary.contains(row), frame, parsed),
        };
        Seen { row: row as u8, key, found }
    }
}

/// Rows that have been looked up and don't belong to plain flows.
#[derive(Clone, Copy)]
pub(crate) struct Others {
    pub(crate) rows: Rows,
    ordinary: Rows,
    /// Of flows that are translated: [`Columns::becomes`] tells what they become.
    pub(crate) translated: Rows,
    nothing: Rows,
}

/// Such a row: the key that its packet came with, and what was found.
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
pub(crate) fn remembering<'a>(
    state: &'a State,
    flows: &'a Flows,
    now: Ticks,
    is_policed: bool,
) -> Option<Memory<'a>> {
    let is_asked = is_policed || !state.nat.is_idle();
    is_asked.then(|| Memory { flows, time: FlowTime::new(now, &state.nat.timeouts) })
}

impl Memory<'_> {
    /// Looks any packet up. `is_ordinary`: it shows no key but its own.
    #[inline(never)]
    fn recall(
        &self,
        probes: &Probes,
        row: usize,
        key: &FlowKey,
        is_ordinary: bool,
        frame: &[u8],
        parsed: &Parsed,
    ) -> Found {
        if !is_ordinary && let Some(found) = self.recall_special(frame, parsed, key) {
            return found;
        }
        self.flows.look_up_asked(probes, row, &self.time).map_or(Found::Nothing, Found::Flow)
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

/// Flags of TCP in a plain IPv4 frame.
#[inline(always)]
fn plain_tcp_flags(frames: &[Frame], row: usize) -> u8 {
    const FLAGS: usize = Layout::PLAIN_V4_LEN + 13;
    frames.get(row).and_then(|frame| frame.bytes().get(FLAGS)).copied().unwrap_or(0)
}

/// Flags of TCP; zero for the rest.
#[inline(always)]
pub(crate) fn tcp_flags(frame: &[u8], parsed: &Parsed) -> u8 {
    match (parsed.protocol, parsed.l4) {
        (protocol::TCP, 1..) => frame.get(usize::from(parsed.l4) + 13).copied().unwrap_or(0),
        _ => 0,
    }
}
