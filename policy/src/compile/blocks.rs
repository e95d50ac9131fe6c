//! Rules that few packets are asked, four to a block: a packet is compared with all four at once.
//!
//! What such a rule asks besides addresses fits a lane: a span of kinds of packets and one of each port. Rules that lie
//! together are a chain: they come in their order, and a block that is not the last of its chain has three rules and says
//! where the others lie.

use std::hint::select_unpredictable;

use model::Family;

use super::conditions::{Part, PortCondition};
use super::packet::{Packet, Upper};
use super::port_rows::ranges;
use super::processor::Processor;

/// Rules in a block: what a cache line holds.
pub(super) const LANES: usize = 4;
/// Lanes that one rule has at most.
const LANES_OF_RULE: usize = 4;
/// Chains go by keys below this one.
pub(super) const KEYS: u16 = 1 << 15;

/// A narrow rule's place among a program's narrow rules.
pub(super) type Rank = u16;
/// No rule's.
pub(super) const NO_RANK: Rank = Rank::MAX;

/// Numbers from the first one on, and how many more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Span {
    pub(super) first: u16,
    pub(super) more: u16,
}

impl Span {
    pub(super) const ANY: Span = Span { first: 0, more: u16::MAX };

    /// Is a number among them?
    pub(super) fn contains(self, number: u16) -> bool {
        number.wrapping_sub(self.first) <= self.more
    }
}

/// Kinds of packets are below.
pub(super) const KINDS: usize = 1 << 10;

/// The kind of a packet: its protocol, whether it shows ports, and its family, so that what rules ask for is mostly a span.
fn kind(protocol: u8, has_ports: bool, family: Family) -> u16 {
    u16::from(protocol) << 2 | u16::from(has_ports) << 1 | u16::from(family == Family::V6)
}

/// What one rule asks besides addresses, or a part of it: ports may be in several spans.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) kind: Span,
    pub(super) source: Span,
    pub(super) destination: Span,
    pub(super) rank: Rank,
}

impl Lane {
    /// The lanes of a rule, whatever it asks of addresses, without its rank; `None` where they can't say all that it asks, or
    /// where they would be too many.
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
        let lanes = sources.iter().flat_map(|source| {
            let lane = move |destination: &Span| Lane {
                kind,
                source: *source,
                destination: *destination,
                rank: NO_RANK,
            };
            destinations.iter().map(lane)
        });
        let lanes: Vec<Lane> = lanes.collect();
        (lanes.len() <= LANES_OF_RULE).then_some(lanes)
    }

    /// One that no packet matches: no packet is of that kind.
    const NEVER: Lane = Lane {
        kind: Span { first: u16::MAX, more: 0 },
        source: Span::ANY,
        destination: Span::ANY,
        rank: NO_RANK,
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

/// What lanes ask of, in this order: the kind, both ports, the key of the chain.
type Numbers = [u16; 4];

/// Lanes as they are compared: a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Block {
    first: [Numbers; LANES],
    /// How many more, and the rank in the place of the key's, which is one number.
    more: [Numbers; LANES],
}

const _: () = assert!(size_of::<Block>() == 64);

/// Where lanes and links have their key, and a rank.
const KEY: usize = 3;

/// The rest of a chain: blocks next to each other.
#[derive(Clone, Copy)]
struct Link {
    at: u32,
    count: u16,
}

/// The rank of the first lane that matches in any of three blocks; [`NO_RANK`] where none does.
#[inline(always)]
pub(super) fn first(processor: impl Processor, blocks: [(&Block, Asked); 3]) -> Rank {
    processor.least(blocks.map(|(block, asked)| {
        (bytemuck::must_cast_ref(&block.first), bytemuck::must_cast_ref(&block.more), asked.0)
    }))
}

impl Block {
    /// One that no packet matches.
    const NEVER: Block = {
        let lane = Lane::NEVER;
        Block {
            first: [[lane.kind.first, 0, 0, 0]; LANES],
            more: [[lane.kind.more, lane.source.more, lane.destination.more, NO_RANK]; LANES],
        }
    };

    /// One that no packet matches, and that goes on, with no blocks.
    const UNKNOWN: Block = {
        let Block { mut first, mut more } = Block::NEVER;
        first[LANES - 1] = [0, 0, 0, u16::MAX];
        more[LANES - 1] = [0, 0, 0, NO_RANK];
        Block { first, more }
    };

    fn put(&mut self, at: usize, lane: &Lane, key: u16) {
        let Lane { kind, source, destination, rank } = lane;
        self.first[at] = [kind.first, source.first, destination.first, key];
        self.more[at] = [kind.more, source.more, destination.more, *rank];
    }

    fn of(lanes: &[(Lane, u16)]) -> Block {
        let mut block = Block::NEVER;
        lanes.iter().enumerate().for_each(|(at, (lane, key))| block.put(at, lane, *key));
        block
    }

    /// Puts a link in the place of the last rule, under a key that no packet has, with the rank of the first rule there.
    fn put_link(&mut self, Link { at, count }: Link, rank: Rank) {
        self.first[LANES - 1] = [at as u16, (at >> 16) as u16, count, u16::MAX];
        self.more[LANES - 1] = [0, 0, 0, rank];
    }

    /// Where the rest of its chain is: no blocks where there is none.
    #[inline(always)]
    fn link(&self) -> Link {
        let [low, high, count, key] = self.first[LANES - 1];
        Link { at: u32::from(high) << 16 | u32::from(low), count: if key >= KEYS { count } else { 0 } }
    }

    /// Does any of these chains go on?
    #[inline(always)]
    pub(super) fn any_goes_on(blocks: [&Block; 3]) -> bool {
        // The key has the highest bits of its lane.
        let [a, b, c] = blocks.map(|block| bytemuck::must_cast::<Numbers, i64>(block.first[LANES - 1]));
        (a | b | c) < 0
    }

    /// Does its chain go on with a rule before the one of a rank?
    #[inline(always)]
    pub(super) fn goes_on_before(&self, rank: Rank) -> bool {
        (self.first[LANES - 1][KEY] >= KEYS) & (self.more[LANES - 1][KEY] < rank)
    }

    /// A bit for each lane that matches, the first one lowest.
    #[inline(always)]
    fn matches(&self, processor: impl Processor, asked: Asked) -> u8 {
        processor.within(bytemuck::must_cast_ref(&self.first), bytemuck::must_cast_ref(&self.more), asked.0)
    }
}

/// Blocks in chains.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
}

impl Blocks {
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }

    /// What lies before all chains of addresses: [`Self::NOWHERE`] and [`Self::UNKNOWN`].
    pub(super) fn of_none() -> Blocks {
        Blocks { blocks: vec![Block::NEVER, Block::UNKNOWN] }
    }

    /// The block of addresses that no narrow rule is about.
    pub(super) const NOWHERE: u32 = 0;
    /// The block of addresses of which nobody knows what they are in. It goes on, with no blocks: so packets that come here
    /// are looked at once more.
    pub(super) const UNKNOWN: u32 = 1;

    /// So many blocks that no packet matches.
    pub(super) fn never(count: usize) -> Blocks {
        Blocks { blocks: vec![Block::NEVER; count] }
    }

    /// Puts a chain of lanes, each with its key, in the place of a block; what doesn't fit goes behind all blocks, `before` of
    /// which lie elsewhere. `None` where there are too many.
    pub(super) fn put(&mut self, at: usize, lanes: &[(Lane, u16)], before: usize) -> Option<()> {
        if lanes.len() <= LANES {
            self.blocks[at] = Block::of(lanes);
            return Some(());
        }
        let (here, rest) = lanes.split_at(LANES - 1);
        let behind = u32::try_from(before + self.blocks.len()).ok()?;
        let count = u16::try_from(rest.len().div_ceil(LANES)).ok()?;
        self.blocks[at] = Block::of(here);
        self.blocks[at].put_link(Link { at: behind, count }, rest[0].0.rank);
        self.blocks.extend(rest.chunks(LANES).map(Block::of));
        Some(())
    }

    /// Writes a chain of lanes behind all blocks, `before` of which lie elsewhere; where it begins. `None` where there are too
    /// many.
    pub(super) fn write(&mut self, lanes: &mut [Lane], before: usize) -> Option<u32> {
        lanes.sort_by_key(|lane| lane.rank);
        let lanes: Vec<_> = lanes.iter().map(|lane| (*lane, 0)).collect();
        let at = self.blocks.len();
        self.blocks.push(Block::NEVER);
        self.put(at, &lanes, before)?;
        u32::try_from(before + at).ok()
    }

    /// These, without room for more: whoever counts bytes counts what is there.
    pub(super) fn fitted(mut self) -> Blocks {
        self.blocks.shrink_to_fit();
        self
    }

    /// Puts others behind these, with no more room than that takes.
    pub(super) fn append(&mut self, others: &Blocks) {
        self.blocks.reserve_exact(others.blocks.len());
        self.blocks.extend(&others.blocks);
    }

    /// Asks for a block, so that it is near when it is read.
    #[inline(always)]
    pub(super) fn prefetch(&self, at: u32) {
        lpm::prefetch(&self.blocks, at as usize);
    }

    /// The block where a chain begins.
    #[inline(always)]
    pub(super) fn begin(&self, at: u32) -> &Block {
        self.get(at).unwrap_or(&Block::NEVER)
    }

    /// All of them, by number.
    pub(super) fn all(&self) -> &[Block] {
        &self.blocks
    }

    /// The block with this number.
    #[inline(always)]
    pub(super) fn get(&self, at: u32) -> Option<&Block> {
        self.blocks.get(at as usize)
    }

    /// The block of the rest of a chain with this number, one that no packet matches where the rest is shorter; and are there
    /// more?
    #[inline(always)]
    pub(super) fn next(&self, begin: &Block, number: u16) -> (&Block, bool) {
        let Link { at, count } = begin.link();
        // Without a branch: which chain goes on, no branch predictor can learn.
        let is_there = number < count;
        let block = self.begin(select_unpredictable(is_there, at.wrapping_add(number.into()), 0));
        (select_unpredictable(is_there, block, &Block::NEVER), number + 1 < count)
    }

    fn rest(&self, at: u32) -> &[Block] {
        let Link { at, count } = self.begin(at).link();
        self.blocks.get(at as usize..at as usize + usize::from(count)).unwrap_or(&[])
    }

    /// The ranks of all lanes of a chain that match.
    pub(super) fn matching(
        &self,
        processor: impl Processor,
        at: u32,
        asked: Asked,
    ) -> impl Iterator<Item = Rank> {
        self.blocks.get(at as usize).into_iter().chain(self.rest(at)).flat_map(move |block| {
            let matches = block.matches(processor, asked);
            let lanes = block.more.iter().enumerate();
            lanes.filter(move |(lane, _)| matches >> lane & 1 != 0).map(|(_, lane)| lane[KEY])
        })
    }
}

/// A packet as blocks are asked about it: its numbers in the order of [`Numbers`], under the key of a chain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked(u64);

impl Asked {
    /// A packet under key 0.
    #[inline(always)]
    pub(super) fn new(packet: &Packet) -> Asked {
        let (has_ports, [from, to]) = match packet.upper {
            Upper::Ports { source, destination } => (true, [source, destination]),
            Upper::Icmp { .. } | Upper::Nothing => (false, [0, 0]),
        };
        let kind = kind(packet.protocol, has_ports, packet.family);
        Asked(bytemuck::must_cast([kind, from, to, 0u16]))
    }

    /// The same packet under another key, which is below [`KEYS`].
    #[inline(always)]
    pub(super) fn under(self, key: u16) -> Asked {
        Asked(self.0 | bytemuck::must_cast::<_, u64>([0, 0, 0, key]))
    }

    /// What either has.
    #[inline(always)]
    pub(super) fn or(self, Asked(other): Asked) -> Asked {
        Asked(self.0 | other)
    }

    /// Its kind, and its source and destination port: 0 where it shows none.
    #[inline(always)]
    pub(super) fn numbers(self) -> [u16; 3] {
        let [kind, from, to, _] = bytemuck::must_cast(self.0);
        [kind, from, to]
    }
}

#[cfg(test)]
mod tests {
    use super::super::conditions::{AddressCondition, UpperCondition};
    use super::super::port_grid::PortGrid;
    use super::super::processor::Any;
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

    /// [`first`] of one block, whichever of three it is.
    fn first_of(processor: impl Processor, block: &Block, asked: Asked) -> Rank {
        let never = (&Block::NEVER, asked);
        let all = [0, 1, 2].map(|at| {
            let mut blocks = [never; 3];
            blocks[at] = (block, asked);
            super::first(processor, blocks)
        });
        assert!(all.iter().all(|found| *found == all[0]));
        all[0]
    }

    /// The first rule of a chain, block by block.
    fn first_of_all(processor: impl Processor, blocks: &Blocks, at: u32, asked: Asked) -> Rank {
        let begin = blocks.begin(at);
        let (mut first, mut goes_on) = (first_of(processor, begin, asked), Block::any_goes_on([begin; 3]));
        let mut number = 0;
        while goes_on {
            let next;
            (next, goes_on) = blocks.next(begin, number);
            (first, number) = (first.min(first_of(processor, next, asked)), number + 1);
        }
        let (behind, goes_on) = blocks.next(begin, number);
        assert!(!goes_on && first_of(processor, behind, asked) == NO_RANK, "a chain has an end");
        first
    }

    proptest! {
        #[test]
        fn a_lane_says_what_its_rule_asks(
            parts in prop::collection::vec(parts(), 1..40), key in 0..KEYS - 1,
            protocol in prop::sample::select(vec![6u8, 17, 132, 255]), family in prop::sample::select(&Family::ALL[..]),
            ports in prop::option::of((prop::sample::select(&PORTS[..]), prop::sample::select(&PORTS[..]))),
        ) {
            let upper = match ports {
                Some((source, destination)) => Upper::Ports { source, destination },
                None => Upper::Nothing,
            };
            let packet = Packet { source: 1, destination: 2, family, protocol, upper };
            let (mut all, mut expected) = (Vec::new(), Vec::new());
            for (rank, part) in (0..).zip(&parts) {
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
                if part.upper.admits(family, protocol) && shown {
                    expected.push(rank);
                }
                all.extend(lanes.into_iter().map(|lane| Lane { rank, ..lane }));
            }
            let asked = Asked::new(&packet);
            let first = expected.first().copied().unwrap_or(NO_RANK);
            let grid = PortGrid::new(&all).expect("room");
            prop_assert_eq!(grid.first(Any, asked), first);
            let keyed: Vec<_> = all.iter().flat_map(|lane| [(*lane, key), (*lane, key + 1)]).collect();
            let mut under_key = Blocks::never(1);
            under_key.put(0, &keyed, 0).expect("room");
            let mut blocks = Blocks::default();
            let at = blocks.write(&mut all, 0).expect("room");
            for (blocks, at, asked) in [(&blocks, at, asked), (&under_key, 0, asked.under(key))] {
                prop_assert_eq!(first_of_all(Any, blocks, at, asked), first);
                #[cfg(target_arch = "x86_64")]
                if let Some(avx512) = super::super::processor::Avx512::detect() {
                    prop_assert_eq!(first_of_all(avx512, blocks, at, asked), first);
                }
                let mut all: Vec<Rank> = blocks.matching(Any, at, asked).collect();
                all.dedup();
                prop_assert_eq!(&all, &expected);
            }
        }
    }
}
