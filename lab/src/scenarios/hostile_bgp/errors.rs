//! What the misbehaving peer sends, and what must become of it.

use std::net::Ipv4Addr;

use crate::bgp_message::{self as message, attribute, code, flag, kind, valid_attributes};

/// How an error is contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Containment {
    /// "Treat-as-withdraw" (RFC 7606 §2).
    Withdraw,
    /// "Attribute discard" (RFC 7606 §2).
    Discard,
}

/// An UPDATE that must not end the session.
pub(super) struct Contained {
    pub(super) what: &'static str,
    /// Who says what becomes of it.
    pub(super) source: &'static str,
    pub(super) ends: Containment,
    /// The UPDATE's path attributes.
    pub(super) attributes: fn(u16, Ipv4Addr) -> Vec<u8>,
}

/// Something that must end the session.
pub(super) struct Fatal {
    pub(super) what: &'static str,
    /// What is sent in a session that is Established, by this address.
    pub(super) octets: fn(Ipv4Addr) -> Vec<u8>,
    /// Code, subcode and data of the answer.
    pub(super) notification: (u8, u8, &'static [u8]),
}

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const OPTIONAL: u8 = flag::OPTIONAL;
const BOTH: u8 = flag::OPTIONAL | flag::TRANSITIVE;

/// The valid attributes with the one at `place` replaced.
fn with(as_number: u16, nexthop: Ipv4Addr, place: usize, replacement: &[u8]) -> Vec<u8> {
    let mut attributes = valid_attributes(as_number, nexthop);
    attributes[place] = replacement.to_vec();
    attributes.concat()
}

/// The valid attributes and one more.
fn and(as_number: u16, nexthop: Ipv4Addr, more: &[u8]) -> Vec<u8> {
    [&valid_attributes(as_number, nexthop).concat(), more].concat()
}

/// The places of [`valid_attributes`].
const ORIGIN: usize = 0;
const AS_PATH: usize = 1;
const NEXT_HOP: usize = 2;

/// Every error that RFC 7606 keeps from ending the session, one UPDATE each.
pub(super) const CONTAINED: &[Contained] = &[
    Contained {
        what: "ORIGIN of two octets",
        source: "RFC 7606 §7.1",
        ends: Containment::Withdraw,
        attributes: |asn, hop| with(asn, hop, ORIGIN, &attribute(WELL_KNOWN, code::ORIGIN, &[0, 0])),
    },
    Contained {
        what: "ORIGIN of value 9",
        source: "RFC 7606 §7.1",
        ends: Containment::Withdraw,
        attributes: |asn, hop| with(asn, hop, ORIGIN, &attribute(WELL_KNOWN, code::ORIGIN, &[9])),
    },
    Contained {
        what: "ORIGIN with the Optional flag",
        source: "RFC 7606 §3 c",
        ends: Containment::Withdraw,
        attributes: |asn, hop| with(asn, hop, ORIGIN, &attribute(BOTH, code::ORIGIN, &[0])),
    },
    Contained {
        what: "AS_PATH with a segment of type 9",
        source: "RFC 7606 §7.2",
        ends: Containment::Withdraw,
        attributes: |asn, hop| {
            with(asn, hop, AS_PATH, &attribute(WELL_KNOWN, code::AS_PATH, &[9, 1, 0xfd, 0xe7]))
        },
    },
    Contained {
        what: "AS_PATH with a segment that overruns",
        source: "RFC 7606 §7.2",
        ends: Containment::Withdraw,
        attributes: |asn, hop| {
            with(asn, hop, AS_PATH, &attribute(WELL_KNOWN, code::AS_PATH, &[2, 9, 0xfd, 0xe7]))
        },
    },
    Contained {
        what: "AS_PATH with an empty segment",
        source: "RFC 7606 §7.2",
        ends: Containment::Withdraw,
        attributes: |asn, hop| with(asn, hop, AS_PATH, &attribute(WELL_KNOWN, code::AS_PATH, &[2, 0])),
    },
    Contained {
        what: "AS_PATH with AS 0",
        source: "RFC 7607 §2",
        ends: Containment::Withdraw,
        attributes: |asn, hop| with(asn, hop, AS_PATH, &attribute(WELL_KNOWN, code::AS_PATH, &[2, 1, 0, 0])),
    },
    Contained {
        what: "NEXT_HOP of three octets",
        source: "RFC 7606 §7.3",
        ends: Containment::Withdraw,
        attributes: |asn, hop| with(asn, hop, NEXT_HOP, &attribute(WELL_KNOWN, code::NEXT_HOP, &[10, 9, 0])),
    },
    Contained {
        what: "no NEXT_HOP at all",
        source: "RFC 7606 §3 d",
        ends: Containment::Withdraw,
        attributes: |asn, hop| with(asn, hop, NEXT_HOP, &[]),
    },
    Contained {
        what: "MULTI_EXIT_DISC of five octets",
        source: "RFC 7606 §7.4",
        ends: Containment::Withdraw,
        attributes: |asn, hop| and(asn, hop, &attribute(OPTIONAL, code::MULTI_EXIT_DISC, &[0; 5])),
    },
    Contained {
        what: "COMMUNITIES of five octets",
        source: "RFC 7606 §7.8",
        ends: Containment::Withdraw,
        attributes: |asn, hop| and(asn, hop, &attribute(BOTH, code::COMMUNITIES, &[0; 5])),
    },
    Contained {
        what: "an attribute that goes beyond the list",
        source: "RFC 7606 §4",
        ends: Containment::Withdraw,
        attributes: |asn, hop| and(asn, hop, &[BOTH, code::COMMUNITIES, 200, 0, 0]),
    },
    Contained {
        what: "ATOMIC_AGGREGATE with a value",
        source: "RFC 7606 §7.6",
        ends: Containment::Discard,
        attributes: |asn, hop| and(asn, hop, &attribute(WELL_KNOWN, code::ATOMIC_AGGREGATE, &[1])),
    },
    Contained {
        what: "AGGREGATOR of five octets",
        source: "RFC 7606 §7.7",
        ends: Containment::Discard,
        attributes: |asn, hop| and(asn, hop, &attribute(BOTH, code::AGGREGATOR, &[1; 5])),
    },
    Contained {
        what: "LOCAL_PREF over eBGP, of three octets",
        source: "RFC 7606 §7.5",
        ends: Containment::Discard,
        attributes: |asn, hop| and(asn, hop, &attribute(WELL_KNOWN, code::LOCAL_PREF, &[0; 3])),
    },
    Contained {
        what: "ORIGINATOR_ID over eBGP",
        source: "RFC 7606 §7.9",
        ends: Containment::Discard,
        attributes: |asn, hop| and(asn, hop, &attribute(OPTIONAL, code::ORIGINATOR_ID, &[1; 4])),
    },
    Contained {
        what: "a second ORIGIN",
        source: "RFC 7606 §3 g",
        ends: Containment::Discard,
        attributes: |asn, hop| and(asn, hop, &attribute(WELL_KNOWN, code::ORIGIN, &[2])),
    },
];

/// Every error that ends a session, one session each.
pub(super) const FATAL: &[Fatal] = &[
    Fatal {
        what: "a marker with a hole",
        octets: |_| {
            let mut keepalive = message::keepalive();
            keepalive[7] = 0;
            keepalive
        },
        notification: (1, 1, &[]),
    },
    Fatal {
        what: "a length of 65535",
        octets: |_| [&[0xff; 16][..], &[0xff, 0xff, kind::UPDATE]].concat(),
        notification: (1, 2, &[0xff, 0xff]),
    },
    Fatal {
        what: "a message of type 255",
        octets: |_| message::message(255, &[]),
        notification: (1, 3, &[255]),
    },
    Fatal { what: "4096 octets of noise", octets: |_| noise(4096), notification: (1, 1, &[]) },
    Fatal {
        what: "an OPEN in the middle of the session",
        octets: |address| message::open(4, super::HOSTILE_AS, address),
        notification: (5, 3, &[]),
    },
    Fatal {
        what: "withdrawn routes that go beyond the UPDATE",
        octets: |_| message::message(kind::UPDATE, &[0xff, 0xff, 0, 0]),
        notification: (3, 1, &[]),
    },
    Fatal {
        what: "a withdrawn prefix of 33 bits",
        octets: |_| message::message(kind::UPDATE, &[0, 6, 33, 198, 18, 0, 0, 0, 0, 0]),
        notification: (3, 10, &[]),
    },
];

/// Octets without order, the same in every run (an LCG's upper half, Knuth's MMIX constants).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
