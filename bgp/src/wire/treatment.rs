//! What to do with each path attribute that is not as it should be (RFC 7606, and the attributes' own RFCs).
//!
//! "AFI/SAFI disable" is never chosen: wherever RFC 7606 names it, it leaves "session reset" as the other
//! choice, and a family silently switched off is harder to notice than a session that says why it ended.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Reader;
use super::attributes::{AsPath, RawAttribute, SegmentKind, code, flag};
use super::notification::{Notification, UPDATE_ERROR};
use crate::config::PeerKind;

/// Why an UPDATE's routes are treated as withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AttributeError {
    /// An attribute's header or value goes beyond the attributes' total length.
    #[error("the attribute list is cut short")]
    ListMalformed,
    /// ORIGIN, AS_PATH or NEXT_HOP is missing.
    #[error("mandatory attribute {0} is missing")]
    Missing(u8),
    /// The Optional or Transitive bit is not what the attribute's definition says.
    #[error("attribute {0} has the wrong flags")]
    Flags(u8),
    /// A length that the attribute cannot have.
    #[error("attribute {0} has an impossible length")]
    Length(u8),
    /// ORIGIN is not 0, 1 or 2.
    #[error("ORIGIN has an unknown value")]
    Origin,
    /// An unknown kind of segment, an empty one, or one that is cut short.
    #[error("AS_PATH is malformed")]
    AsPath,
    /// AS 0 (RFC 7607).
    #[error("AS_PATH names AS 0")]
    AsZero,
    /// AS_SET, AS_CONFED_SET (RFC 9774), or a confederation's segments from outside it (RFC 5065 §5).
    #[error("AS_PATH has a set or a confederation segment")]
    AsSet,
    /// AS_PATH is empty though the peer is in another AS (RFC 4271 §6.3).
    #[error("AS_PATH of an eBGP peer is empty")]
    AsPathEmpty,
    /// The next hop is no unicast address.
    #[error("the next hop is not a unicast address")]
    NextHop,
}

impl AttributeError {
    /// The attribute that is wrong, where it is there and RFC 4271 §6.3 asks to be told of it.
    pub(crate) fn attribute(self) -> Option<u8> {
        match self {
            AttributeError::Flags(code) | AttributeError::Length(code) => Some(code),
            AttributeError::Origin => Some(code::ORIGIN),
            AttributeError::NextHop => Some(code::NEXT_HOP),
            _ => None,
        }
    }

    /// The NOTIFICATION where treat-as-withdraw cannot be used.
    pub fn notification(self) -> Notification {
        let subcode = match self {
            AttributeError::ListMalformed => 1,
            AttributeError::Missing(_) => 3,
            AttributeError::Flags(_) => 4,
            AttributeError::Length(_) => 5,
            AttributeError::Origin => 6,
            AttributeError::NextHop => 8,
            AttributeError::AsPath
            | AttributeError::AsZero
            | AttributeError::AsSet
            | AttributeError::AsPathEmpty => 11,
        };
        match self {
            AttributeError::Missing(code) => Notification::with_data(UPDATE_ERROR, subcode, &[code]),
            _ => Notification::new(UPDATE_ERROR, subcode),
        }
    }
}

/// What becomes of one attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// It stays.
    Keep,
    /// It is dropped, the rest of the UPDATE stands.
    Discard,
    /// The UPDATE's routes are withdrawn.
    Withdraw(AttributeError),
    /// The session ends: Unrecognized Well-known Attribute.
    Unrecognized,
}

/// What decides how a peer's attributes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) kind: PeerKind,
    /// AS numbers have four octets.
    pub(crate) four_octet_as: bool,
}

/// Judges one attribute; MP_REACH_NLRI and MP_UNREACH_NLRI only by their flags.
pub(crate) fn judge(attribute: RawAttribute<'_>, reading: Reading) -> Treatment {
    let code = attribute.code;
    let Some(expected) = expected_flags(code) else {
        return judge_unknown(attribute);
    };
    if attribute.flags & flag::OPTIONAL_TRANSITIVE != expected {
        return match code {
            // Their own RFCs ask to discard whatever is malformed (RFC 7311 §3, RFC 9552 §8.2.2, RFC 8669 §6).
            code::AIGP | code::LINK_STATE | code::PREFIX_SID => Treatment::Discard,
            _ => Treatment::Withdraw(AttributeError::Flags(code)),
        };
    }
    let value = attribute.value;
    let length = |fits: bool| {
        if fits { Treatment::Keep } else { Treatment::Withdraw(AttributeError::Length(code)) }
    };
    let multiple_of = |size: usize| length(!value.is_empty() && value.len().is_multiple_of(size));
    let discard_unless = |fine: bool| if fine { Treatment::Keep } else { Treatment::Discard };
    let internal = reading.kind == PeerKind::Ibgp;
    match code {
        code::ORIGIN => match value {
            [0..=2] => Treatment::Keep,
            [_] => Treatment::Withdraw(AttributeError::Origin),
            _ => length(false),
        },
        code::AS_PATH => judge_as_path(value, reading),
        code::NEXT_HOP | code::MULTI_EXIT_DISC => length(value.len() == 4),
        // §7.5, §7.9, §7.10: from an external neighbor, discarded whatever they hold.
        code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST if !internal => Treatment::Discard,
        code::LOCAL_PREF | code::ORIGINATOR_ID => length(value.len() == 4),
        code::CLUSTER_LIST | code::COMMUNITIES => multiple_of(4),
        code::ATOMIC_AGGREGATE => discard_unless(value.is_empty()),
        code::AGGREGATOR => discard_unless(aggregator_is_fine(value, reading.four_octet_as)),
        code::EXTENDED_COMMUNITIES => multiple_of(8),
        // Only old speakers may send them (RFC 6793 §4.1), and malformed ones are discarded (§6).
        code::AS4_PATH | code::AS4_AGGREGATOR if reading.four_octet_as => Treatment::Discard,
        code::AS4_PATH => judge_as4_path(value),
        code::AS4_AGGREGATOR => discard_unless(aggregator_is_fine(value, true)),
        code::IPV6_EXTENDED_COMMUNITIES => multiple_of(20),
        // Not for us: AIGP needs to be enabled for the session (RFC 7311 §3.3), link state has no use here.
        code::AIGP | code::LINK_STATE => Treatment::Discard,
        code::LARGE_COMMUNITIES => multiple_of(12),
        code::ONLY_TO_CUSTOMER => length(value.len() == 4),
        code::PREFIX_SID => discard_unless(prefix_sid_is_well_formed(value)),
        _ => Treatment::Keep,
    }
}

/// Optional and Transitive bits of the attributes we know.
fn expected_flags(code: u8) -> Option<u8> {
    Some(match code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => {
            flag::WELL_KNOWN
        }
        code::MULTI_EXIT_DISC
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH_NLRI
        | code::MP_UNREACH_NLRI
        | code::AIGP
        | code::LINK_STATE => flag::OPTIONAL,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::PMSI_TUNNEL
        | code::TUNNEL_ENCAPSULATION
        | code::IPV6_EXTENDED_COMMUNITIES
        | code::LARGE_COMMUNITIES
        | code::ONLY_TO_CUSTOMER
        | code::PREFIX_SID => flag::OPTIONAL_TRANSITIVE,
        _ => return None,
    })
}

/// The flags with which an attribute is kept.
///
/// Those that we pass on without understanding carry the Partial bit from here on (RFC 4271 §5).
pub(crate) fn kept_flags(attribute: RawAttribute<'_>) -> u8 {
    let partial = attribute.flags & flag::PARTIAL;
    match expected_flags(attribute.code) {
        Some(flag::OPTIONAL_TRANSITIVE) => match attribute.code {
            code::PMSI_TUNNEL | code::TUNNEL_ENCAPSULATION | code::PREFIX_SID => {
                flag::OPTIONAL_TRANSITIVE | flag::PARTIAL
            }
            _ => flag::OPTIONAL_TRANSITIVE | partial,
        },
        Some(flags) => flags,
        None => flag::OPTIONAL_TRANSITIVE | flag::PARTIAL,
    }
}

fn judge_unknown(attribute: RawAttribute<'_>) -> Treatment {
    match attribute.flags & flag::OPTIONAL_TRANSITIVE {
        flag::OPTIONAL_TRANSITIVE => Treatment::Keep,
        flag::OPTIONAL => Treatment::Discard,
        _ => Treatment::Unrecognized,
    }
}

fn judge_as_path(value: &[u8], reading: Reading) -> Treatment {
    let path = if reading.four_octet_as { AsPath::four_octet(value) } else { AsPath::two_octet(value) };
    let error = if !path.is_well_formed() {
        AttributeError::AsPath
    } else if path.as_numbers().any(|number| number == 0) {
        AttributeError::AsZero
    } else if !only_sequences(path) {
        AttributeError::AsSet
    } else if value.is_empty() && reading.kind == PeerKind::Ebgp {
        AttributeError::AsPathEmpty
    } else {
        return Treatment::Keep;
    };
    Treatment::Withdraw(error)
}

fn only_sequences(mut path: AsPath<'_>) -> bool {
    path.all(|segment| segment.kind == SegmentKind::Sequence)
}

fn judge_as4_path(value: &[u8]) -> Treatment {
    let path = AsPath::four_octet(value);
    if !path.is_well_formed() || path.as_numbers().any(|number| number == 0) {
        return Treatment::Discard;
    }
    let has_set = AsPath::four_octet(value).any(|segment| segment.kind == SegmentKind::Set);
    if has_set {
        // RFC 9774 §3 speaks of AS4_PATH as well.
        Treatment::Withdraw(AttributeError::AsSet)
    } else if only_sequences(path) {
        Treatment::Keep
    } else {
        // Confederation segments do not belong here (RFC 6793 §6).
        Treatment::Discard
    }
}

fn aggregator_is_fine(value: &[u8], four_octet_as: bool) -> bool {
    let width = if four_octet_as { 4 } else { 2 };
    value.len() == width + 4 && value[..width].iter().any(|&octet| octet != 0)
}

/// Type, two octets of length, value; a Label-Index has seven octets (RFC 8669 §3, §6).
fn prefix_sid_is_well_formed(value: &[u8]) -> bool {
    let mut reader = Reader(value);
    let mut tlv = || {
        let (kind, len) = (reader.u8()?, reader.u16()?);
        reader.take(usize::from(len))?;
        (kind != 1 || len == 7).then_some(reader.is_empty())
    };
    loop {
        match tlv() {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
    }
}

/// May packets be sent to this address? (RFC 4271 §6.3: "a valid IP host address".)
pub(crate) fn is_unicast(nexthop: IpAddr) -> bool {
    match nexthop {
        IpAddr::V4(addr) => {
            let [first, ..] = addr.octets();
            first != 0 && !addr.is_loopback() && first < 224 && addr != Ipv4Addr::BROADCAST
        }
        IpAddr::V6(addr) => {
            !addr.is_unspecified()
                && !addr.is_loopback()
                && !addr.is_multicast()
                && addr != Ipv6Addr::LOCALHOST
        }
    }
}
