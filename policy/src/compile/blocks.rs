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
            let asked = Asked::new(&packet, [7, position]);
            let mut lowest = [u32::MAX; LANES];
            for block in blocks(&all) {
                block.lower(&asked.across[0], &asked.ports, from, &mut lowest);
            }
            let lowest = lowest.into_iter().min().filter(|lowest| *lowest < 1 << 20);
            prop_assert_eq!(lowest.map(|lowest| lowest + from), Some(expected).filter(|name| *name < u32::MAX));
        }
    }
}
