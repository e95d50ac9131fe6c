//! Path attributes in an operator's words.

use std::net::Ipv4Addr;

use bgp::wire::attributes::{
    AsPath, NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED, RawAttribute, SegmentKind, code,
};
use serde::Serialize;

/// One thing that a message says.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Attribute {
    /// What it is about.
    pub(super) name: String,
    /// What it says.
    pub(super) value: String,
}

impl Attribute {
    pub(super) fn new(name: &str, value: String) -> Attribute {
        Attribute { name: name.to_owned(), value }
    }
}

/// An attribute by its name in IANA's registry, with its value; one whose value isn't of its form, in hexadecimal.
pub(super) fn of(attribute: &RawAttribute<'_>, four_octet_as: bool) -> Attribute {
    let value = attribute.value;
    let wide =
        |value: &[u8]| value.first_chunk().filter(|_| value.len() == 4).map(|n| u32::from_be_bytes(*n));
    let number = || wide(value).map(|number| number.to_string());
    let (name, text) = match attribute.code {
        code::ORIGIN => ("ORIGIN", origin(value)),
        code::AS_PATH if four_octet_as => ("AS_PATH", as_path(AsPath::four_octet(value))),
        code::AS_PATH => ("AS_PATH", as_path(AsPath::two_octet(value))),
        code::AS4_PATH => ("AS4_PATH", as_path(AsPath::four_octet(value))),
        code::NEXT_HOP => ("NEXT_HOP", wide(value).map(|address| Ipv4Addr::from(address).to_string())),
        code::MULTI_EXIT_DISC => ("MULTI_EXIT_DISC", number()),
        code::LOCAL_PREF => ("LOCAL_PREF", number()),
        code::ATOMIC_AGGREGATE => ("ATOMIC_AGGREGATE", value.is_empty().then(String::new)),
        code::AGGREGATOR => ("AGGREGATOR", aggregator(value)),
        code::AS4_AGGREGATOR => ("AS4_AGGREGATOR", aggregator(value)),
        code::COMMUNITIES => {
            ("COMMUNITIES", list::<4>(value, |octets| community(u32::from_be_bytes(*octets))))
        }
        code::ORIGINATOR_ID => ("ORIGINATOR_ID", wide(value).map(|id| Ipv4Addr::from(id).to_string())),
        code::CLUSTER_LIST => {
            ("CLUSTER_LIST", list::<4>(value, |octets| Ipv4Addr::from(*octets).to_string()))
        }
        code::EXTENDED_COMMUNITIES => ("EXTENDED_COMMUNITIES", list::<8>(value, |octets| hex(octets))),
        code::LARGE_COMMUNITIES => ("LARGE_COMMUNITIES", list::<12>(value, large_community)),
        code::ONLY_TO_CUSTOMER => ("ONLY_TO_CUSTOMER", number()),
        code => {
            let name = format!("attribute {code}");
            return Attribute { name, value: hex(value) };
        }
    };
    Attribute::new(name, text.unwrap_or_else(|| format!("malformed: {}", hex(value))))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn origin(value: &[u8]) -> Option<String> {
    match value {
        [0] => Some("IGP"),
        [1] => Some("EGP"),
        [2] => Some("INCOMPLETE"),
        _ => None,
    }
    .map(str::to_owned)
}

/// Sequences plain, sets in braces, a confederation's segments in parentheses and brackets (RFC 5065 §3).
fn as_path(path: AsPath<'_>) -> Option<String> {
    let segment = |segment: bgp::wire::attributes::Segment<'_>| {
        let numbers: Vec<String> = segment.as_numbers().map(|number| number.to_string()).collect();
        let (begin, between, end) = match segment.kind {
            SegmentKind::Sequence => ("", " ", ""),
            SegmentKind::Set => ("{", ",", "}"),
            SegmentKind::ConfedSequence => ("(", " ", ")"),
            SegmentKind::ConfedSet => ("[", ",", "]"),
        };
        format!("{begin}{}{end}", numbers.join(between))
    };
    path.is_well_formed().then(|| path.map(segment).collect::<Vec<_>>().join(" "))
}

fn aggregator(value: &[u8]) -> Option<String> {
    let (number, address) = match *value {
        [a, b, ref address @ ..] if value.len() == 6 => (u32::from_be_bytes([0, 0, a, b]), address),
        [a, b, c, d, ref address @ ..] if value.len() == 8 => (u32::from_be_bytes([a, b, c, d]), address),
        _ => return None,
    };
    let address = Ipv4Addr::from(*address.first_chunk::<4>()?);
    Some(format!("AS {number}, {address}"))
}

fn list<const N: usize>(value: &[u8], item: impl Fn(&[u8; N]) -> String) -> Option<String> {
    let (items, rest) = value.as_chunks::<N>();
    rest.is_empty().then(|| items.iter().map(item).collect::<Vec<_>>().join(" "))
}

fn community(community: u32) -> String {
    match community {
        NO_EXPORT => "no-export".to_owned(),
        NO_ADVERTISE => "no-advertise".to_owned(),
        NO_EXPORT_SUBCONFED => "no-export-subconfed".to_owned(),
        0xffff_029a => "blackhole".to_owned(),
        _ => format!("{}:{}", community >> 16, community & 0xffff),
    }
}

fn large_community(octets: &[u8; 12]) -> String {
    let parts = octets.as_chunks::<4>().0.iter().map(|part| u32::from_be_bytes(*part).to_string());
    parts.collect::<Vec<_>>().join(":")
}
