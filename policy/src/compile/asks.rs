//! What each rule asks of protocol and ports, by itself.
//!
//! Where both addresses leave few rules of a word, asking those is cheaper than their rows of ports: of ten thousand rules,
//! rows of ports take megabytes and are read at one word in hundreds, while this is a dozen bytes a rule.

use super::conditions::{Part, PortCondition};
use super::packet::{Packet, Upper};
use super::rows::WORD;
use crate::rule::PortRange;

/// Rules of one word that are asked one by one; of more, their rows are.
const FEW: u32 = 8;
/// Any protocol.
const ANY: u16 = 256;
/// More is asked than fits here.
const MORE: u16 = 257;

/// What one rule asks.
#[derive(Clone, Copy, Debug)]
struct Ask {
    /// A protocol, [`ANY`] or [`MORE`].
    protocol: u16,
    /// The first of the destination's ports, and how many follow; then the source's.
    destination: [u16; 2],
    source: [u16; 2],
}

/// What all rules of a program ask, by bit.
#[derive(Clone, Debug, Default)]
pub(super) struct Asks(Box<[Ask]>);

/// Protocol and ports of a packet that shows them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    protocol: u16,
    source: u16,
    destination: u16,
}

impl Shown {
    /// `None` of a packet without ports.
    #[inline(always)]
    pub(super) fn of(packet: &Packet) -> Option<Shown> {
        match packet.upper {
            Upper::Ports { source, destination } => {
                Some(Shown { protocol: packet.protocol.into(), source, destination })
            }
            _ => None,
        }
    }
}

impl Ask {
    fn of(part: &Part) -> Ask {
        let upper = &part.upper;
        let more = Ask { protocol: MORE, destination: [0; 2], source: [0; 2] };
        let more_is_asked = upper.family.is_some()
            || upper.not_protocol.is_some()
            || upper.icmp.is_some()
            || upper.not_icmp.is_some();
        let protocol = upper.protocol.map_or(ANY, u16::from);
        match (range(&upper.port), range(&part.source_port)) {
            (Some(destination), Some(source)) if !more_is_asked => Ask { protocol, destination, source },
            _ => more,
        }
    }

    #[inline(always)]
    fn admits(&self, shown: Shown) -> bool {
        let within = |[first, more]: [u16; 2], port: u16| port.wrapping_sub(first) <= more;
        // Without branches: which of them fails, nobody can foresee.
        ((self.protocol == ANY) | (self.protocol == shown.protocol))
            & within(self.destination, shown.destination)
            & within(self.source, shown.source)
    }
}

/// The only range of ports that is asked for, if that is all.
fn range(asked: &PortCondition) -> Option<[u16; 2]> {
    let PortCondition { ports, not_ports, only, not_pairs } = asked;
    if !not_ports.is_empty() || only.is_some() || !not_pairs.is_empty() {
        return None;
    }
    match ports.as_slice() {
        [] => Some([0, u16::MAX]),
        [PortRange { first, last }] if first <= last => Some([*first, last - first]),
        _ => None,
    }
}

impl Asks {
    /// Of these rules, a bit each; a bit without a rule is never asked.
    pub(super) fn new(parts: &[Option<Part>]) -> Asks {
        let none = Ask { protocol: MORE, destination: [0; 2], source: [0; 2] };
        Asks(parts.iter().map(|part| part.as_ref().map_or(none, Ask::of)).collect())
    }

    /// Of the rules at these bits of a word those that ask for what is shown; `None` where their rows have to tell.
    #[inline(always)]
    pub(super) fn of_few(&self, word: u32, mut bits: u64, shown: Option<Shown>) -> Option<u64> {
        let shown = shown?;
        if bits.count_ones() > FEW {
            return None;
        }
        let asks = self.0.get(word as usize * WORD..)?.first_chunk::<WORD>()?;
        let mut admitted = 0;
        while bits != 0 {
            let bit = bits.trailing_zeros() as usize % WORD;
            let ask = &asks[bit];
            if ask.protocol == MORE {
                return None;
            }
            admitted |= u64::from(ask.admits(shown)) << bit;
            bits &= bits - 1;
        }
        Some(admitted)
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conditions::{AddressCondition, UpperCondition};
    use super::super::port_rows::ranges;
    use super::*;
    use crate::rule::{Action, IcmpMatch};
    use model::Family;
    use proptest::prelude::*;

    fn port_conditions() -> impl Strategy<Value = PortCondition> {
        let port = prop::sample::select(vec![0u16, 1, 2, 79, 80, 81, 65_534, 65_535]);
        let range = (port.clone(), port.clone()).prop_map(|(first, last)| PortRange { first, last });
        let some = prop::collection::vec(range, 0..3);
        (some.clone(), some, prop::option::weighted(0.2, (6u8..18, port.clone())), any::<bool>()).prop_map(
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
            protocol in prop::option::of(prop::sample::select(vec![6u8, 17])),
            not_protocol in prop::option::weighted(0.2, Just(6u8)), of_v4 in prop::option::weighted(0.2, any::<bool>()),
            is_icmp in prop::bool::weighted(0.1),
        ) -> Part {
            let family = of_v4.map(|v4| if v4 { Family::V4 } else { Family::V6 });
            let icmp = is_icmp.then_some(IcmpMatch { icmp_type: 8, code: None });
            let upper = UpperCondition { family, protocol, not_protocol, icmp, port, ..UpperCondition::default() };
            let any = AddressCondition::default;
            Part { step: 0, action: Action::Allow, source: any(), destination: any(), source_port, upper }
        }
    }

    proptest! {
        /// What is said of few rules is what their rows say.
        #[test]
        fn rules_say_of_themselves_what_their_rows_do(
            parts in prop::collection::vec(parts(), 1..=64), bits: u64, keep in prop::collection::vec(0u32..64, 1..12),
            protocol in prop::sample::select(vec![6u8, 17, 132]), source: u16, destination in 0u16..100,
        ) {
            let some: Vec<Option<Part>> = parts.iter().cloned().map(Some).chain((parts.len()..64).map(|_| None)).collect();
            let asks = Asks::new(&some);
            let there = keep.iter().fold(0, |bits, bit| bits | 1u64 << bit) & bits & (!0 >> (64 - parts.len()));
            let upper = Upper::Ports { source, destination };
            let packet = Packet { source: 1, destination: 2, family: Family::V4, protocol, upper };
            let row = parts.iter().enumerate().fold(0, |row, (bit, part)| {
                let within = |condition: &PortCondition, port: u16| {
                    ranges(condition, protocol).iter().any(|(from, to)| (*from..*to).contains(&port.into()))
                };
                let matches = part.upper.admits(Family::V4, protocol)
                    && part.upper.icmp.is_none()
                    && within(&part.upper.port, destination)
                    && within(&part.source_port, source);
                row | u64::from(matches) << bit
            });
            match asks.of_few(0, there, Shown::of(&packet)) {
                Some(few) => prop_assert_eq!(few, there & row),
                None => prop_assert!(there.count_ones() > FEW || parts.iter().any(|part| Ask::of(part).protocol == MORE)),
            }
        }
    }
}
