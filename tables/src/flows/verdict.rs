//! What policy has said of a flow, and what else is known of it from its first packet: kept in the flow's row, so that its
//! other packets needn't ask.

use model::PortId;

/// A port's number that means no port: rows of the table of ports end below it.
const NOBODY: u16 = u16::MAX;

/// Whose policies a flow is held to, as its first packet goes: the ports of the workloads at its ends, as far as they are
/// here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Between {
    /// The port of the sender, whose egress policy counts.
    pub egress: Option<PortId>,
    /// The port of the receiver: its ingress policy counts, or, of the host's port, whether workloads may send there.
    pub ingress: Option<PortId>,
}

impl Between {
    /// The same ends, seen by a packet that goes the other way.
    #[must_use]
    pub fn turned(self) -> Between {
        Between { egress: self.ingress, ingress: self.egress }
    }
}

/// That policy has let a flow pass: in which epoch, and between whom. One word, so that it is read and written whole:
///
/// ```text
///  63       48 47       32 31        8 7     1      0
///  egress port ingress port   epoch     flow   allowed
/// ```
///
/// A policy change moves the epoch on and a changed route the ports, so either makes the flow be judged again. 24 bits
/// count a hundred changes a second for two days; a flow is silent for an hour before it is forgotten. Nothing is kept of
/// flows that were denied: each of their packets is judged, and may find another policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowVerdict(u64);

impl FlowVerdict {
    /// Nobody has judged.
    pub const NONE: FlowVerdict = FlowVerdict(0);

    const ALLOWED: u64 = 1;
    /// The low bits of the generation of the row's flow: a late verdict on the row's last flow says nothing of this one.
    const FLOW: u64 = 0x7f << 1;
    const EPOCH: u64 = 0xff_ffff << 8;

    /// The flow may pass, in this epoch of the policy.
    #[inline]
    pub fn allowed(epoch: u64, between: Between) -> FlowVerdict {
        let number = |port: Option<PortId>| u64::from(port.map_or(NOBODY, |port| port.0));
        let ports = number(between.egress) << 48 | number(between.ingress) << 32;
        FlowVerdict(ports | epoch << 8 & FlowVerdict::EPOCH | FlowVerdict::ALLOWED)
    }

    /// Was it given in this epoch, whoever it was about?
    #[inline]
    pub fn is_of(self, epoch: u64) -> bool {
        self.0 & (FlowVerdict::EPOCH | FlowVerdict::ALLOWED)
            == epoch << 8 & FlowVerdict::EPOCH | FlowVerdict::ALLOWED
    }

    #[inline(always)]
    fn mark(generation: u16) -> u64 {
        (u64::from(generation) << 1) & FlowVerdict::FLOW
    }

    /// As it lies in a row.
    pub(super) fn word(self, generation: u16) -> u64 {
        self.0 | FlowVerdict::mark(generation)
    }

    /// As it lies in a row, without the mark of the row's flow.
    #[inline(always)]
    pub(super) fn unmarked(self) -> u64 {
        self.0
    }

    /// Out of a row: none where it was said of another flow.
    #[inline]
    pub(super) fn of_word(word: u64, generation: u16) -> FlowVerdict {
        FlowVerdict::of_unmarked(FlowVerdict::without_mark(word, generation))
    }

    /// Takes the mark of the row's flow off a word; something else is left where it was said of another one.
    #[inline(always)]
    pub(super) fn without_mark(word: u64, generation: u16) -> u64 {
        word ^ FlowVerdict::mark(generation)
    }

    /// The verdict of such a word.
    #[inline]
    pub(super) fn of_unmarked(word: u64) -> FlowVerdict {
        if word & FlowVerdict::FLOW == 0 { FlowVerdict(word) } else { FlowVerdict::NONE }
    }
}

/// What is known of a flow by its first packet, and remembered with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beginning {
    /// What policy says of it.
    pub verdict: FlowVerdict,
    /// Type and code, where the first packet is an ICMP message: policy may ask for them again.
    pub icmp: Option<(u8, u8)>,
    /// The connections that it has been counted among.
    pub counted: Between,
    /// Is the first packet a SYN, so that it is for the other side to answer?
    pub is_syn: bool,
}

/// As it lies in a row: 0 is none.
pub(super) fn icmp_word(icmp: Option<(u8, u8)>) -> u32 {
    icmp.map_or(0, |(icmp_type, code)| 1 << 16 | u32::from(icmp_type) << 8 | u32::from(code))
}

pub(super) fn icmp_of(word: u32) -> Option<(u8, u8)> {
    (word != 0).then_some(((word >> 8) as u8, word as u8))
}

/// As it lies in a row: port numbers counted from 1, so that 0 is nobody.
pub(super) fn counted_word(counted: Between) -> u32 {
    let number = |port: Option<PortId>| port.map_or(0, |port| u32::from(port.0.saturating_add(1)));
    number(counted.egress) << 16 | number(counted.ingress)
}

pub(super) fn counted_of(word: u32) -> Between {
    let port = |number: u16| number.checked_sub(1).map(PortId);
    Between { egress: port((word >> 16) as u16), ingress: port(word as u16) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::{FlowTimeouts, Flows, Ticks};
    use model::Family;
    use packet::FlowKey;
    use proptest::prelude::*;

    prop_compose! {
        fn ends()(egress in prop::option::of(0u16..65_535), ingress in prop::option::of(0u16..65_535)) -> Between {
            Between { egress: egress.map(PortId), ingress: ingress.map(PortId) }
        }
    }

    proptest! {
        #[test]
        fn a_verdict_is_of_its_own_epoch_and_ends_alone(
            epochs in [0u64..1 << 24, 0u64..1 << 24], ends in [ends(), ends()], generation: u16,
        ) {
            let verdict = |n: usize| FlowVerdict::allowed(epochs[n], ends[n]);
            let read = FlowVerdict::of_word(verdict(0).word(generation), generation);
            prop_assert_eq!(read, verdict(0));
            prop_assert_eq!(read.is_of(epochs[1]), epochs[0] == epochs[1]);
            prop_assert_eq!(read == verdict(1), (epochs[0], ends[0]) == (epochs[1], ends[1]));
            prop_assert_ne!(FlowVerdict::NONE, verdict(1));
        }

        #[test]
        fn a_late_verdict_says_nothing_of_the_rows_next_flow(generation: u16, later in 1u16..128) {
            let word = FlowVerdict::allowed(7, Between::default()).word(generation);
            prop_assert_eq!(FlowVerdict::of_word(word, generation.wrapping_add(later)), FlowVerdict::NONE);
        }

        #[test]
        fn what_a_row_holds_of_the_first_packet_comes_back(icmp: Option<(u8, u8)>, ends in ends()) {
            prop_assert_eq!(icmp_of(icmp_word(icmp)), icmp);
            prop_assert_eq!(counted_of(counted_word(ends)), ends);
        }
    }

    #[test]
    fn what_is_said_of_a_flow_is_found_both_ways_and_says_nothing_of_the_rows_next() {
        let (flows, now, timeouts) = (Flows::new(1), Ticks(9), FlowTimeouts::default());
        let key = |sport| FlowKey { src: 1, dst: 2, sport, dport: 0, protocol: 1, family: Family::V4 };
        let add = |sport| flows.add(&key(sport), &key(sport).reversed(), now, &timeouts).unwrap();
        let look_up = |key: FlowKey| flows.look_up(&key, now, &timeouts).unwrap();
        let flow = add(7);
        let verdict = FlowVerdict::allowed(3, Between { egress: Some(PortId(1)), ingress: None });
        flows.begin(&flow, &Beginning { verdict, icmp: Some((13, 0)), ..Beginning::default() });
        for key in [key(7), key(7).reversed()] {
            let found = look_up(key);
            assert_eq!((found.verdict, flows.icmp_of(&found)), (verdict, Some((13, 0))));
            assert_eq!((found.judged_as(&key).sport, found.is_translated()), (7, false));
        }
        let later = FlowVerdict::allowed(4, Between::default());
        flows.judge(&flow, later);
        assert_eq!(look_up(key(7)).verdict, later);
        let next = add(8);
        flows.judge(&flow, verdict);
        assert_eq!((look_up(key(8)).verdict, flows.icmp_of(&next)), (FlowVerdict::NONE, None));
        assert_eq!(flows.icmp_of(&flow), None);
    }

    #[test]
    fn a_fresh_row_knows_nothing() {
        assert!(!FlowVerdict::NONE.is_of(0));
        assert_eq!((icmp_word(None), counted_word(Between::default())), (0, 0));
    }
}
