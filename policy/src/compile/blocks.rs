//! Rules that few addresses are asked, eight to a block: a packet is compared with all eight at once.
//!
//! What such a rule asks besides the address that leads to it fits a lane: a span of the other end's positions
//! (`narrow.rs`), a span of each port, and bits of the packet's kind.

use std::hint::select_unpredictable;

use model::Family;

use super::conditions::{Part, PortCondition};
use super::packet::{Packet, Upper};
use super::port_rows::ranges;
use super::processor::{Any, Processor};
use super::program::{NONE, named};

/// Rules in a block: as many ports as a register of the processor holds.
pub(super) const LANES: usize = 8;
/// Lanes that one rule has at most.
const LANES_OF_RULE: usize = 4;

/// Numbers from the first one on, and how many more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u16,
    pub(super) more: u16,
}

impl Span {
    pub(super) const ANY: Span = Span { first: 0, more: u16::MAX };
}

/// The kind of a packet: its protocol, whether it shows ports, and its family, so that what rules ask for is mostly a span.
fn kind(protocol: u8, has_ports: bool, family: Family) -> u16 {
    u16::from(protocol) << 2 | u16::from(has_ports) << 1 | u16::from(family == Family::V6)
}

/// What one rule asks, or a part of it: ports may be in several spans.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// Positions of the address at the other end.
    pub(super) across: Span,
    kind: Span,
    source: Span,
    destination: Span,
    /// Step and action, as [`named`] has them.
    named: u32,
}

impl Lane {
    /// The lanes of a rule, whatever it asks of addresses; `None` where they can't say all that it asks, or where they
    /// would be too many.
    pub(super) fn of(part: &Part) -> Option<Vec<Lane>> {
        let upper = &part.upper;
        if upper.not_protocol.is_some() || upper.icmp.is_some() || upper.not_icmp.is_some() {
            return None;
        }
        let (sources, destinations) = (spans(&part.source_port)?, spans(&upper.port)?);
        let asks_ports = ![&part.source_port, &upper.port].iter().all(|port| port.holds_without());
        let (first, last) = match (upper.protocol, upper.family) {
            (None, None) if !asks_ports => (0, u16::MAX),
            (Some(protocol), None) => {
                (kind(protocol, asks_ports, Family::V4), kind(protocol, true, Family::V6))
            }
            (Some(protocol), Some(family)) if asks_ports => {
                let kind = kind(protocol, true, family);
                (kind, kind)
            }
            _ => return None,
        };
        let kind = Span { first, more: last - first };
        let named = named(part.step, part.action);
        let lanes = sources.iter().flat_map(|source| {
            let lane = move |destination: &Span| Lane {
                across: Span::ANY,
                kind,
                source: *source,
                destination: *destination,
                named,
            };
            destinations.iter().map(lane)
        });
        let lanes: Vec<Lane> = lanes.collect();
        (lanes.len() <= LANES_OF_RULE).then_some(lanes)
    }

    /// One that no packet matches: no packet is of that kind.
    const NEVER: Lane = Lane {
        across: Span::ANY,
        kind: Span { first: u16::MAX, more: 0 },
        source: Span::ANY,
        destination: Span::ANY,
        named: NONE,
    };
}

/// The ports that a condition admits of whatever protocol; `None` where that depends on the protocol, or on whether there
/// are ports.
fn spans(condition: &PortCondition) -> Option<Vec<Span>> {
    if *condition == PortCondition::default() {
        return Some(vec![Span::ANY]);
    }
    if condition.only.is_some() || !condition.not_pairs.is_empty() || condition.ports.is_empty() {
        return None;
    }
    let span = |(first, end): &(u32, u32)| Span { first: *first as u16, more: (end - first - 1) as u16 };
    Some(ranges(condition, 0).iter().map(span).collect())
}

/// What lanes ask of, in this order: the position of the address at the other end, the kind, both ports.
type Numbers = [u16; 4];

/// Lanes as they are compared: two cache lines, each of which the processor compares at once.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Block {
    first: [Numbers; LANES],
    more: [Numbers; LANES],
}

const _: () = assert!(size_of::<Block>() == 128);

/// One that no packet matches.
static NEVER: Block = Block { first: [[u16::MAX; 4]; LANES], more: [[0; 4]; LANES] };

impl Block {
    fn new(lanes: &[Lane; LANES]) -> Block {
        let spans = lanes.map(|lane| [lane.across, lane.kind, lane.source, lane.destination]);
        Block {
            first: spans.map(|spans| spans.map(|span| span.first)),
            more: spans.map(|spans| spans.map(|span| span.more)),
        }
    }

    /// A bit for each lane that matches, the first one lowest.
    #[inline(always)]
    fn matches(&self, processor: impl Processor, asked: u64) -> u8 {
        processor.within(bytemuck::must_cast_ref(&self.first), bytemuck::must_cast_ref(&self.more), asked)
    }
}

/// Blocks, and the names of their lanes, which are read where one matches. The first block is no packet's; there are none
/// at all in a program without narrow rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    names: Vec<[u32; LANES]>,
}

impl Blocks {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.blocks) + size_of_val(&*self.names)
    }

    /// Writes some lanes behind the others, those that come first in a program first; how many blocks that makes.
    pub(super) fn write(&mut self, lanes: &mut [Lane]) -> usize {
        lanes.sort_by_key(|lane| lane.named);
        let before = self.blocks.len();
        for some in lanes.chunks(LANES) {
            self.write_one(some);
        }
        self.blocks.len() - before
    }

    /// Writes a block that no packet matches.
    pub(super) fn write_never(&mut self) {
        self.write_one(&[]);
    }

    fn write_one(&mut self, some: &[Lane]) {
        let mut lanes = [Lane::NEVER; LANES];
        for (lane, one) in lanes.iter_mut().zip(some) {
            *lane = *one;
        }
        self.blocks.push(Block::new(&lanes));
        self.names.push(lanes.map(|lane| lane.named));
    }

    /// These, without room for more: whoever counts bytes counts what is there.
    pub(super) fn fitted(mut self) -> Blocks {
        self.blocks.shrink_to_fit();
        self.names.shrink_to_fit();
        self
    }

    /// Puts others behind these, with no more room than that takes.
    pub(super) fn append(&mut self, others: &Blocks) {
        self.blocks.reserve_exact(others.blocks.len());
        self.names.reserve_exact(others.names.len());
        self.blocks.extend(&others.blocks);
        self.names.extend(&others.names);
    }

    /// Asks for a block, so that it is near when it is read.
    #[inline(always)]
    pub(super) fn prefetch(&self, at: u32) {
        // A line each.
        if let Some(block) = self.blocks.get(at as usize) {
            lpm::prefetch(&block.first, 0);
            lpm::prefetch(&block.more, 0);
        }
    }

    /// The number of the first lane of one block that matches, counted from the first block on; 0, which has no name, where
    /// none does.
    #[inline(always)]
    pub(super) fn first_of(&self, processor: impl Processor, at: u32, asked: u64) -> u32 {
        let matches = self.blocks.get(at as usize).unwrap_or(&NEVER).matches(processor, asked);
        let lane = at * LANES as u32 + matches.trailing_zeros();
        select_unpredictable(matches == 0, 0, lane)
    }

    /// The name of a lane.
    #[inline(always)]
    pub(super) fn name(&self, lane: u32) -> u32 {
        self.names.as_flattened().get(lane as usize).copied().unwrap_or(NONE)
    }

    /// The name of the first lane of some blocks that matches, `count` of them; [`NONE`] where none does.
    #[inline(always)]
    pub(super) fn first(&self, at: u32, count: u16, asked: u64) -> u32 {
        // All of them: which is the first with a match, no branch predictor can learn.
        let all = at..at + u32::from(count);
        all.map(|at| self.name(self.first_of(Any, at, asked))).fold(NONE, u32::min)
    }

    /// The same of lanes that are named from `from` on.
    pub(super) fn first_from(&self, at: u32, count: u16, asked: u64, from: u32) -> u32 {
        let range = at as usize..at as usize + usize::from(count);
        let (blocks, names) = (self.blocks.get(range.clone()), self.names.get(range));
        let lanes = blocks.unwrap_or(&[]).iter().zip(names.unwrap_or(&[])).flat_map(|(block, names)| {
            let matches = block.matches(Any, asked);
            (0..).zip(names).filter(move |(lane, _)| matches >> lane & 1 != 0)
        });
        lanes.map(|(_, name)| *name).find(|name| *name >= from).unwrap_or(NONE)
    }
}

/// A packet as blocks are asked about it: its numbers in the order of [`Numbers`], for the source's blocks and for the
/// destination's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked(pub(super) [u64; 2]);

impl Asked {
    /// A packet whose ends have these positions.
    #[inline(always)]
    pub(super) fn new(packet: &Packet, [source, destination]: [u16; 2]) -> Asked {
        let kind = |has_ports| kind(packet.protocol, has_ports, packet.family);
        let (kind, [from, to]) = match packet.upper {
            Upper::Ports { source, destination } => (kind(true), [source, destination]),
            Upper::Icmp { .. } | Upper::Nothing => (kind(false), [0, 0]),
        };
        Asked([destination, source].map(|across| bytemuck::must_cast([across, kind, from, to])))
    }
}

#[cfg(test)]
mod tests {
    use super::super::conditions::{AddressCondition, UpperCondition};
    use super::*;
    use crate::rule::{Action, IcmpMatch, PortRange};
    use proptest::prelude::*;

    const PORTS: [u16; 8] = [0, 1, 2, 79, 80, 81, 65_534, 65_535];

    fn port_conditions() -> impl Strategy<Value = PortCondition> {
        let port = || prop::sample::select(&PORTS[..]);
        let some = || {
            let range = (port(), port()).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) });
            prop::collection::vec(range, 0..3)
        };
        (some(), some(), prop::option::weighted(0.1, (6u8..18, port())), any::<bool>()).prop_map(
            |(ports, not_ports, only, is_plain)| PortCondition {
                ports,
                not_ports: if is_plain { Vec::new() } else { not_ports },
                only,
                not_pairs: Vec::new(),
            },
        )
    }

    prop_compose! {
        fn parts()(
            port in port_conditions(), source_port in port_conditions(),
            protocol in prop::option::weighted(0.8, prop::sample::select(vec![6u8, 17, 255])),
            not_protocol in prop::option::weighted(0.1, Just(6u8)),
            family in prop::option::weighted(0.2, prop::sample::select(&Family::ALL[..])),
            is_icmp in prop::bool::weighted(0.1),
            step in 0u32..1_000,
        ) -> Part {
            let icmp = is_icmp.then_some(IcmpMatch { icmp_type: 8, code: None });
            let upper = UpperCondition { family, protocol, not_protocol, icmp, port, ..UpperCondition::default() };
            let any = AddressCondition::default;
            Part { step, action: Action::Deny, source: any(), destination: any(), source_port, upper }
        }
    }

    proptest! {
        #[test]
        fn a_lane_says_what_its_rule_asks(
            parts in prop::collection::vec(parts(), 1..40), first in 0u16..50, more in 0u16..50, position in 0u16..100,
            protocol in prop::sample::select(vec![6u8, 17, 132, 255]), family in prop::sample::select(&Family::ALL[..]),
            ports in prop::option::of((prop::sample::select(&PORTS[..]), prop::sample::select(&PORTS[..]))),
            from in 0u32..1_000,
        ) {
            let upper = match ports {
                Some((source, destination)) => Upper::Ports { source, destination },
                None => Upper::Nothing,
            };
            let packet = Packet { source: 1, destination: 2, family, protocol, upper };
            let (mut all, mut expected) = (Vec::new(), u32::MAX);
            for part in &parts {
                let Some(lanes) = Lane::of(part) else { continue };
                let within = |condition: &PortCondition, port: u16| {
                    ranges(condition, protocol).iter().any(|(from, to)| (*from..*to).contains(&port.into()))
                };
                let shown = match ports {
                    Some((source, destination)) => {
                        within(&part.source_port, source) && within(&part.upper.port, destination)
                    }
                    None => part.source_port.holds_without() && part.upper.port.holds_without(),
                };
                let across = (first..=first + more).contains(&position);
                let name = named(part.step, part.action);
                if part.upper.admits(family, protocol) && shown && across && name >= from {
                    expected = expected.min(name);
                }
                all.extend(lanes.into_iter().map(|lane| Lane { across: Span { first, more }, ..lane }));
            }
            let [asked, _] = Asked::new(&packet, [7, position]).0;
            let mut blocks = Blocks::default();
            blocks.write_never();
            let count = blocks.write(&mut all) as u16;
            prop_assert_eq!(blocks.first_from(1, count, asked, from), expected);
            let first = blocks.first_from(1, count, asked, 0);
            prop_assert_eq!(blocks.first(1, count, asked), first);
        }
    }
}
