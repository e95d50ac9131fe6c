//! Rules that few addresses are asked, eight to a block: a packet is compared with all eight at once.
//!
//! What such a rule asks besides the address that leads to it fits a lane: a span of the other end's positions
//! (`narrow.rs`), a span of each port, and bits of the packet's kind.

use model::Family;

use super::conditions::{Part, PortCondition};
use super::packet::{Packet, Upper};
use super::port_rows::ranges;
use super::program::named;

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
        named: u32::MAX,
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

/// Two numbers of each lane, a lane's next to each other: 32 bytes, that one instruction compares.
type Pairs = [u16; 2 * LANES];

/// Lanes as they are compared.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(super) struct Block {
    /// Of the address at the other end and of the kind, then of both ports.
    first: [Pairs; 2],
    more: [Pairs; 2],
    named: [u32; LANES],
}

const _: () = assert!(size_of::<Block>() == 160);

impl Block {
    /// Some lanes, at most [`LANES`].
    fn new(some: &[Lane]) -> Block {
        let mut lanes = [Lane::NEVER; LANES];
        for (lane, one) in lanes.iter_mut().zip(some) {
            *lane = *one;
        }
        let pairs = |of: fn(&Lane) -> [Span; 2], number: fn(Span) -> u16| -> Pairs {
            std::array::from_fn(|at| number(of(&lanes[at / 2])[at % 2]))
        };
        let all = |number| {
            [
                pairs(|lane| [lane.across, lane.kind], number),
                pairs(|lane| [lane.source, lane.destination], number),
            ]
        };
        Block {
            first: all(|span| span.first),
            more: all(|span| span.more),
            named: lanes.map(|lane| lane.named),
        }
    }

    /// One that no packet matches.
    pub(super) fn never() -> Block {
        Block::new(&[])
    }

    /// Lowers each lane's `lowest` to how far its rule's name is above `from`, where the rule matches. A name below `from`
    /// is very far above it.
    #[inline(always)]
    pub(super) fn lower(&self, across: &Splat, ports: &Splat, from: u32, lowest: &mut [u32; LANES]) {
        let asked: [Pairs; 2] = [bytemuck::must_cast(across.0), bytemuck::must_cast(ports.0)];
        let miss = |pairs: usize, at: usize| {
            asked[pairs][at].wrapping_sub(self.first[pairs][at]).saturating_sub(self.more[pairs][at])
        };
        let misses: Pairs = std::array::from_fn(|at| miss(0, at) | miss(1, at));
        let misses: [u32; LANES] = bytemuck::must_cast(misses);
        for ((lowest, miss), named) in lowest.iter_mut().zip(misses).zip(&self.named) {
            let none = if miss == 0 { 0 } else { u32::MAX };
            *lowest = (*lowest).min(named.wrapping_sub(from) | none);
        }
    }

    /// Reads from each of its cache lines.
    #[inline(always)]
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.first[0][0]) + u64::from(self.more[0][0]) + u64::from(self.named[0])
    }
}

/// Two numbers of a packet, the same for each lane.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
pub(super) struct Splat([u32; LANES]);

impl Splat {
    #[inline(always)]
    fn new(pair: [u16; 2]) -> Splat {
        Splat([bytemuck::must_cast(pair); LANES])
    }
}

/// A packet as blocks are asked about it. Made some time before, so that what is written in pieces isn't read in one before
/// it has arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// Of the source's blocks, and of the destination's: the other end's position, and the kind.
    pub(super) across: [Splat; 2],
    pub(super) ports: Splat,
}

impl Asked {
    /// A packet whose ends have these positions.
    #[inline(always)]
    pub(super) fn new(packet: &Packet, [source, destination]: [u16; 2]) -> Asked {
        let kind = |has_ports| kind(packet.protocol, has_ports, packet.family);
        let (kind, ports) = match packet.upper {
            Upper::Ports { source, destination } => (kind(true), [source, destination]),
            Upper::Icmp { .. } | Upper::Nothing => (kind(false), [0, 0]),
        };
        Asked {
            across: [Splat::new([destination, kind]), Splat::new([source, kind])],
            ports: Splat::new(ports),
        }
    }
}

/// The blocks of some lanes.
pub(super) fn blocks(lanes: &[Lane]) -> Vec<Block> {
    lanes.chunks(LANES).map(Block::new).collect()
}
